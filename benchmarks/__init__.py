"""Benchmarks of nlhfsim beside other libraries: ``python -m benchmarks`` from the repository root; see README.md here."""
