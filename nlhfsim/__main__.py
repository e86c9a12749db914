"""``python -m nlhfsim`` is the command line."""

from nlhfsim.cli import main

main()
