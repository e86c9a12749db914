"""Random generators for tests that say what is drawn, or tell afterwards what was."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

LARGEST = 1 - 2.0**-53
"""The largest number below 1 that a generator returns."""


class Given:
    """Draws the numbers given, one after the other; afterwards 0.3, counted in `more`, a thousand times at most."""

    def __init__(self, numbers: Iterable[float]) -> None:
        self.numbers = list(numbers)
        self.more = 0

    def random(self) -> float:
        """The next number."""
        if self.numbers:
            return self.numbers.pop(0)
        self.more += 1
        assert self.more < 1000, "drawn again and again"
        return 0.3


class Recording:
    """Draws from a generator and keeps what it drew."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator
        self.drawn: list[float] = []

    def random(self) -> float:
        """The next number."""
        self.drawn.append(self.generator.random())
        return self.drawn[-1]
