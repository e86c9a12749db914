"""Files to arrays and columns: matrices (.csv, .npy, .json) and tables of comparisons (.csv, .jsonl, .parquet).

Every refusal is a `DataError` that names the file, the place in it, and what would be right.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nlhfsim.errors import Array, DataError, InputError, MissingExtraError, did_you_mean, ensure_array
from nlhfsim.games import PreferenceGame

PAIR_COLUMNS = (("item_a", "item_b"), ("model_a", "model_b"))
COUNT_COLUMNS = ("item_i", "item_j", "wins_i", "wins_j")
_MATRIX_KEYS = ("preferences", "labels", "beta", "reference", "weights")


@dataclass(frozen=True)
class Table:
    """A table of comparisons by column.

    Attributes
    ----------
    source : str
        The file, or "the table", for messages.
    names : tuple of str
        The columns.
    n_rows : int
        Number of rows.
    column : callable
        From a name to the list of its values, one a row; None where a row has none.
    where : callable
        From a row's index to how a message calls it.
    """

    source: str
    names: tuple[str, ...]
    n_rows: int
    column: Callable[[str], list[Any]]
    where: Callable[[int], str]


def read_table(table: Any) -> Table:
    """Return a file, data frame, mapping of columns, or iterable of rows as a `Table`."""
    if isinstance(table, (str, os.PathLike)):
        return _table_from_file(Path(table))
    if hasattr(table, "columns") and hasattr(table, "__getitem__"):
        return _table_from_frame(table)
    if isinstance(table, Mapping):
        return _table_from_columns({str(name): list(values) for name, values in table.items()})
    if isinstance(table, Iterable) and not isinstance(table, (bytes, bytearray)):
        return _table_from_rows(list(table))
    raise DataError(
        f"table is of type {type(table).__name__}, must be a data frame, rows (dicts or tuples), "
        "or the path of a .csv, .jsonl or .parquet file"
    )


def looks_like_comparisons(path: str | os.PathLike[str]) -> bool:
    """Return whether a file holds comparisons, by its extension, or by the header for .csv; False if it cannot be read.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.datasets.looks_like_comparisons("votes.jsonl"), nl.datasets.looks_like_comparisons("matrix.npy")
    (True, False)
    """
    file = Path(path)
    extension = file.suffix.lower()
    if extension != ".csv":
        return extension in (".jsonl", ".parquet")
    try:
        header = {cell.strip() for cell in next(csv.reader(io.StringIO(_text(file), newline="")), [])}
    except (DataError, csv.Error):
        return False
    return any(header >= {*pair, "winner"} for pair in PAIR_COLUMNS) or header >= set(COUNT_COLUMNS) or "winner" in header


def read_matrix(path: str | os.PathLike[str]) -> tuple[Array, list[str] | None]:
    """Read a matrix of preferences from a file.

    Parameters
    ----------
    path : str or path
        ``.csv``: numbers, with or without a header row and a first column of labels. ``.npy``: an array. ``.json``: a list of
        lists, or an object with "preferences" and, if wanted, "labels", "beta", "reference" and "weights" (`read_game` uses
        them all).

    Returns
    -------
    tuple of numpy.ndarray and (list of str or None)
        The matrix, shape ``(n, n)`` or ``(contexts, n, n)``, not yet checked to be one of preferences, and the labels.

    Raises
    ------
    DataError
        If the file cannot be read as a square matrix of finite numbers.

    Examples
    --------
    >>> import nlhfsim as nl, pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp(), "matrix.csv")
    >>> _ = file.write_text(",A,B\\nA,0.5,0.8\\nB,0.2,0.5\\n")
    >>> nl.datasets.read_matrix(file)
    (array([[0.5, 0.8],
           [0.2, 0.5]]), ['A', 'B'])
    """
    matrix, labels, _ = _matrix_file(Path(path))
    return matrix, labels


def read_game(
    path: str | os.PathLike[str], *, beta: float | None = None, reference: npt.ArrayLike | None = None
) -> PreferenceGame:
    """Read a game from a matrix file, as `read_matrix` does.

    Parameters
    ----------
    path : str or path
        The file.
    beta : float, optional
        Regularization. Default: the "beta" of a .json file, else 0.1.
    reference : array_like, optional
        Reference policy. Default: the "reference" of a .json file, else uniform.

    Returns
    -------
    PreferenceGame
        The game.

    Raises
    ------
    DataError
        If the file cannot be read as a matrix of preferences.

    Examples
    --------
    >>> import nlhfsim as nl, pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp(), "game.json")
    >>> _ = file.write_text('{"preferences": [[0.5, 0.8], [0.2, 0.5]], "labels": ["A", "B"], "beta": 0.2}')
    >>> nl.datasets.read_game(file)
    PreferenceGame(n=2, beta=0.2)
    """
    file = Path(path)
    matrix, labels, extra = _matrix_file(file)
    strength = extra.get("beta", 0.1) if beta is None else beta
    policy = extra.get("reference") if reference is None else reference
    try:
        return PreferenceGame(matrix, strength, policy, labels, extra.get("weights"))
    except InputError as error:
        raise DataError(f"{file}: {error}") from None


def _matrix_file(file: Path) -> tuple[Array, list[str] | None, dict[str, Any]]:
    readers = {".csv": _matrix_from_csv, ".npy": _matrix_from_npy, ".json": _matrix_from_json}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise DataError(f"{file} has the extension {file.suffix!r}, must be .csv, .npy or .json for a matrix")
    matrix, labels, extra = reader(file)
    if matrix.ndim not in (2, 3) or matrix.shape[-1] != matrix.shape[-2]:
        raise DataError(f"{file} holds an array of shape {matrix.shape}, must be square: (n, n) or (contexts, n, n)")
    if labels is not None and len(labels) != matrix.shape[-1]:
        raise DataError(f"{file} has {len(labels)} labels for {matrix.shape[-1]} actions, must be one an action")
    return matrix, labels, extra


def _matrix_from_npy(file: Path) -> tuple[Array, None, dict[str, Any]]:
    content = _content(file)
    if not content.startswith(b"\x93NUMPY"):
        raise DataError(f"{file} is not a NumPy array file, must be written by numpy.save")
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError, OverflowError) as error:
        raise DataError(f"{file} cannot be read as an array of numbers: {error}") from None
    if array.dtype.kind not in "fiub":
        raise DataError(f"{file} holds {array.dtype} entries, must be real numbers")
    return _numbers(file, array), None, {}


def _matrix_from_json(file: Path) -> tuple[Array, list[str] | None, dict[str, Any]]:
    try:
        value = json.loads(_text(file))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON: {error}") from None
    if isinstance(value, list):
        return _numbers(file, value), None, {}
    if not isinstance(value, dict) or "preferences" not in value:
        raise DataError(f'{file} must hold a list of lists, or an object with "preferences"')
    for key in value:
        if key not in _MATRIX_KEYS:
            raise DataError(f"{file} has the key {key!r}, not one of a game{did_you_mean(key, _MATRIX_KEYS)}")
    labels = value.get("labels")
    if labels is not None and not (isinstance(labels, list) and all(isinstance(one, str) for one in labels)):
        raise DataError(f'{file}: "labels" must be a list of strings')
    extra = {key: value[key] for key in ("beta", "reference", "weights") if value.get(key) is not None}
    return _numbers(file, value["preferences"]), labels, extra


def _matrix_from_csv(file: Path) -> tuple[Array, list[str] | None, dict[str, Any]]:
    rows, lines = _csv_rows(file)
    header = _pop_header(rows, lines)
    if not rows:
        raise DataError(f"{file} has a header and no rows, must hold a square matrix")
    width = len(rows[0])
    for row, line in zip(rows, lines):
        if len(row) != width:
            raise DataError(f"{file}, line {line} has {len(row)} cells, must have {width} like the rows before it")
    names = None
    if any(not _is_number(row[0]) for row in rows) or (header is not None and width == len(rows) + 1):
        names = [row.pop(0) for row in rows]
    if header is not None:
        header = _header_labels(file, header, names, len(rows[0]))
    offset = 1 if names is None else 2
    for row, line in zip(rows, lines):
        for k, cell in enumerate(row):
            if not _is_number(cell):
                raise DataError(f"{file}, line {line}, column {k + offset}: {cell!r} must be a number")
    return _numbers(file, rows), header if names is None else names, {}


def _pop_header(rows: list[list[str]], lines: list[int]) -> list[str] | None:
    """Remove and return the header: a first row with text past its first cell, or one that a square matrix has no room for."""
    first = rows[0]
    text = [not _is_number(cell) for cell in first]
    if any(text[1:]) or (text[0] and (len(first) == 1 or len(rows) == len(rows[-1]))):
        lines.pop(0)
        return rows.pop(0)
    return None


def _header_labels(file: Path, header: list[str], names: list[str] | None, width: int) -> list[str]:
    labels = header[1:] if names is not None and len(header) == width + 1 else header
    if len(labels) != width:
        raise DataError(f"{file} has a header of {len(labels)} labels over {width} columns, must be one a column")
    if names is not None and len(names) != len(labels):
        raise DataError(
            f"{file} has {len(names)} rows under {len(labels)} columns, must be a square matrix with commas between cells"
        )
    if names is not None and names != labels:
        first = next(k for k, pair in enumerate(zip(names, labels)) if pair[0] != pair[1])
        raise DataError(f"{file}: row {names[first]!r} and column {labels[first]!r} must be the same action, in the same order")
    return labels


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(file: Path, value: Any) -> Array:
    try:
        return ensure_array("preferences", value)
    except InputError as error:
        raise DataError(f"{file}: {error}") from None


def _content(file: Path) -> bytes:
    if file.is_dir():
        raise DataError(f"{file} is a folder, must be a file")
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{file} does not exist") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not content:
        raise DataError(f"{file} is empty")
    return content


def _text(file: Path) -> str:
    try:
        text = _content(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text (byte {error.start})") from None
    if "\0" in text:
        raise DataError(f"{file} is not text: it holds zero bytes")
    if not text.strip():
        raise DataError(f"{file} is empty")
    return text


def _csv_rows(file: Path) -> tuple[list[list[str]], list[int]]:
    """Return the cells of the rows that are not blank, stripped, and the line in the file where each ends."""
    rows, lines = [], []
    reader = csv.reader(io.StringIO(_text(file), newline=""), strict=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append([cell.strip() for cell in row])
                lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num} is not comma-separated text: {error}") from None
    if not rows:
        raise DataError(f"{file} has only blank cells")
    return rows, lines


def _table_from_file(file: Path) -> Table:
    readers = {".csv": _table_from_csv, ".jsonl": _table_from_jsonl, ".parquet": _table_from_parquet}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        hint = " (.json files are matrices)" if file.suffix.lower() == ".json" else ""
        raise DataError(f"{file} has the extension {file.suffix!r}, must be .csv, .jsonl or .parquet for comparisons{hint}")
    return reader(file)


def _table_from_csv(file: Path) -> Table:
    rows, lines = _csv_rows(file)
    names, rows, lines = rows[0], rows[1:], lines[1:]
    _refuse_repeated(str(file), names)
    for k, row in enumerate(rows):
        if len(row) != len(names):
            raise DataError(f"{file}, row {k + 1} (line {lines[k]}) has {len(row)} cells, must have {len(names)} like the header")
    return Table(
        source=str(file),
        names=tuple(names),
        n_rows=len(rows),
        column=lambda name: [row[names.index(name)] for row in rows],
        where=lambda k: f"{file}, row {k + 1} (line {lines[k]})",
    )


def _table_from_jsonl(file: Path) -> Table:
    rows, lines = [], []
    for number, line in enumerate(_text(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}, line {number} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise DataError(f"{file}, line {number} must be a JSON object, one row")
        rows.append(row)
        lines.append(number)
    return _table_from_dicts(rows, str(file), lambda k: f"{file}, row {k + 1} (line {lines[k]})")


def _table_from_parquet(file: Path) -> Table:
    content = _content(file)
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("reading .parquet files needs pyarrow: pip install nlhfsim[data]") from None
    try:
        parquet = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content))
        names, n_rows = tuple(parquet.schema_arrow.names), parquet.metadata.num_rows
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(f"{file} is not a parquet file: {error}") from None
    _refuse_repeated(str(file), names)

    def column(name: str) -> list[Any]:
        try:
            return list(parquet.read(columns=[name]).column(name).to_pylist())
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise DataError(f"{file}, column {name!r} cannot be read: {error}") from None

    return Table(str(file), names, n_rows, column, lambda k: f"{file}, row {k + 1}")


def _table_from_frame(frame: Any) -> Table:
    names = tuple(str(name) for name in (frame.column_names if hasattr(frame, "column_names") else frame.columns))
    _refuse_repeated("the table", names)
    keys = dict(zip(names, names if hasattr(frame, "column_names") else frame.columns))

    def column(name: str) -> list[Any]:
        values = frame[keys[name]]
        convert = next(getattr(values, way) for way in ("to_pylist", "to_list", "tolist", "__iter__") if hasattr(values, way))
        return list(convert())

    return Table("the table", names, len(frame), column, _row_of_the_table)


def _table_from_columns(columns: dict[str, list[Any]]) -> Table:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the columns of the table have {lengths} entries, must all have the same number")
    n_rows = next(iter(lengths.values()), 0)
    return Table("the table", tuple(columns), n_rows, columns.__getitem__, _row_of_the_table)


def _table_from_rows(rows: list[Any]) -> Table:
    if all(isinstance(row, Mapping) for row in rows):
        return _table_from_dicts(rows, "the table", _row_of_the_table)
    width = len(rows[0]) if isinstance(rows[0], Sequence) else 0
    for k, row in enumerate(rows):
        if not isinstance(row, Sequence) or isinstance(row, (str, bytes)) or not 3 <= len(row) <= 5 or len(row) != width:
            raise DataError(
                f"{_row_of_the_table(k)} is {row!r}, must be (item_a, item_b, winner[, context[, weight]]), as long as the rows "
                "before it, or all rows dicts"
            )
    names = ("item_a", "item_b", "winner", "context", "weight")[:width]
    return _table_from_columns({name: [row[k] for row in rows] for k, name in enumerate(names)})


def _table_from_dicts(rows: list[Any], source: str, where: Callable[[int], str]) -> Table:
    names = tuple(dict.fromkeys(key for row in rows for key in row))
    return Table(source, names, len(rows), lambda name: [row.get(name) for row in rows], where)


def _row_of_the_table(k: int) -> str:
    return f"row {k + 1} of the table"


def _refuse_repeated(source: str, names: Sequence[str]) -> None:
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise DataError(f"{source} has the column {repeated[0]!r} more than once, must have each once")
