"""Preference data: embedded tables of published counts, and readers of comparison and matrix files."""

from __future__ import annotations

from nlhfsim.datasets.comparisons import Comparisons, Coverage, from_comparisons, read_comparisons
from nlhfsim.datasets.embedded import DATASETS, Dataset, cite, load
from nlhfsim.datasets.readers import looks_like_comparisons, read_game, read_matrix

__all__ = [
    "DATASETS",
    "Comparisons",
    "Coverage",
    "Dataset",
    "cite",
    "from_comparisons",
    "load",
    "looks_like_comparisons",
    "read_comparisons",
    "read_game",
    "read_matrix",
]
