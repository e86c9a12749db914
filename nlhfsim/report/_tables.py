"""Tables of a page: cells with what they show and what they are sorted by."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from nlhfsim.tables import show


class Cell(NamedTuple):
    """A cell.

    Attributes
    ----------
    text : str
        What it shows.
    key : float or None
        The number that it is sorted by; None: its text.
    link : str
        An anchor on the page, or empty.
    mark : str
        A class that colours it, or empty.
    """

    text: str
    key: float | None = None
    link: str = ""
    mark: str = ""


class Table(NamedTuple):
    """A table.

    Attributes
    ----------
    title : str
        Its caption.
    columns : sequence of str
        Names of the columns.
    numeric : list of bool
        Which columns hold numbers.
    rows : list of list of Cell
        The cells.
    notes : sequence of str
        What is to be read with it.
    """

    title: str
    columns: Sequence[str]
    numeric: list[bool]
    rows: list[list[Cell]]
    notes: Sequence[str] = ()


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], notes: Sequence[str] = ()) -> Table:
    """Return a table of values, or of cells that are ready."""
    cells = [[value if isinstance(value, Cell) else cell(value) for value in row] for row in rows]
    numeric = [any(row[k].key is not None for row in cells) for k in range(len(columns))]
    return Table(title, columns, numeric, cells, notes)


def cell(value: Any) -> Cell:
    """Return the cell of a value; what does not exist is sorted last."""
    if isinstance(value, bool):
        return Cell(show(value))
    if isinstance(value, (int, float)):
        return Cell(show(value), math.inf if math.isnan(value) else float(value))
    if value is None:
        return Cell(show(None), math.inf)
    return Cell(show(value).replace("\n", " "))
