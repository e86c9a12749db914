"""The folder of a sweep: what it is, a file a finished run, and the tables that they are put together to."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nlhfsim.errors import DataError, InputError, MissingExtraError, NlhfsimWarning, ensure_flag
from nlhfsim.files import ensure_folder, write_whole
from nlhfsim.provenance import versions
from nlhfsim.sweep._design import Design
from nlhfsim.sweep._work import CURVES, OUTCOME

FORMAT = "nlhfsim-sweep-1"
ABOUT, RESULTS, TIMINGS, CURVES_FILE = "sweep.json", "results.parquet", "timings.parquet", "curves.parquet"
_FROM_TEXT = "nlhfsim sweep config.toml --out FOLDER, where paths in config.toml start from the folder paths_from"
_FROM_CONFIG = "nl.sweep(json.load(open('sweep.json'))['config'], out=FOLDER), in the folder paths_from"
_ONE_ROW = {"compression": "none", "use_dictionary": False, "write_statistics": False}
"""How a table of one row is written: a third of the time, as there is nothing to gain by what this leaves out."""
_LARGEST_INTEGER = 2**63 - 1


def ensure_extra() -> None:
    """Refuse to begin without what the tables are written with."""
    try:
        import filelock  # noqa: F401
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(f"a sweep keeps its results in Parquet files, which needs {error.name}: {_INSTALL}") from None


_INSTALL = "pip install 'nlhfsim[data]'"


@contextmanager
def locked(path: Any) -> Iterator[Path]:
    """Give the folder of a sweep, made if needed, which no other sweep may use meanwhile.

    The lock is the operating system's, and ends with the process, however that ends.
    """
    from filelock import FileLock, Timeout

    folder = ensure_folder("out", path)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"out {str(path)!r} is in use by another sweep; wait for that to end, or give another folder") from None
    except (OSError, NotImplementedError) as error:
        raise DataError(f"out {str(path)!r} cannot be locked: {error}") from None
    try:
        yield folder
    finally:
        lock.release()


class Store:
    """The files of one design in a folder."""

    def __init__(self, folder: Path, design: Design) -> None:
        self.folder, self.design = folder, design
        self._runs = folder / "runs"
        self._position = {run.task.id: k for k, run in enumerate(design.runs)}
        self._types = _types(design)

    def open(self, resume: bool) -> None:
        """Write what the sweep is, or make sure that the folder holds this very one."""
        about = self.folder / ABOUT
        if not about.exists():
            self._begin(about)
        elif not ensure_flag("resume", resume):
            raise InputError(
                f"out {str(self.folder)!r} holds a sweep already; go on with it by resume=True, or give another folder"
            )
        else:
            self._ensure_same(read_about(self.folder))
        try:
            for partial in [*self._runs.glob("*.part"), *self.folder.glob("*.part")]:
                partial.unlink()
        except OSError as error:
            raise DataError(f"{str(self._runs)!r} cannot be written: {error.strerror or error}") from None

    def _begin(self, about: Path) -> None:
        design = self.design
        ensure_folder("out", self._runs)
        if design.text is not None:
            write_whole(self.folder / "config.toml", design.text.encode("utf-8"))
        found = {
            "format": FORMAT,
            "title": design.title,
            "runs": len(design.runs),
            "digest": design.digest,
            "config": design.tables,
            "paths_from": str(design.base),
            "versions": versions("pyarrow"),
            "reproduce": _FROM_CONFIG if design.text is None else _FROM_TEXT,
        }
        write_whole(about, (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))

    def _ensure_same(self, about: dict[str, Any]) -> None:
        if about["digest"] != self.design.digest:
            raise InputError(
                f"out {str(self.folder)!r} holds a sweep with another configuration, or one whose files have changed since; give "
                "another folder, or the configuration that it began with (it is in sweep.json)"
            )
        now = versions("pyarrow")
        changed = [f"{name} {old}, now {now.get(name)}" for name, old in about["versions"].items() if old != now.get(name)]
        if changed:
            warnings.warn(f"the sweep began with {'; '.join(changed)}: bits may differ", NlhfsimWarning, stacklevel=4)

    @property
    def kept(self) -> int:
        """How many runs have a file."""
        return len(self._files())

    def finished(self) -> dict[str, str]:
        """Return the status of each run that has a file; a file that cannot be read counts for nothing."""
        import pyarrow
        import pyarrow.parquet

        found = {}
        for path in self._files():
            try:
                row = pyarrow.parquet.ParquetFile(path).read(["id", "status"]).to_pylist()
                if [one["id"] for one in row] != [path.stem]:
                    raise ValueError("not this run's")
                found[path.stem] = str(row[0]["status"])
            except (OSError, ValueError, KeyError, pyarrow.ArrowException):
                warnings.warn(f"{path} is damaged, so that run is done again", NlhfsimWarning, stacklevel=4)
        return found

    def _files(self) -> list[Path]:
        """Return the files that there are, in the order of the design."""
        present = {path.stem for path in self._runs.glob("*.parquet")}
        return [self._runs / f"{run.task.id}.parquet" for run in self.design.runs if run.task.id in present]

    def put(self, record: dict[str, Any]) -> None:
        """Write the record of a run to a file of its own, in one move."""
        import pyarrow

        position = self._position[record["id"]]
        row = {"run": position} | self.design.runs[position].config | record
        curves = record.get("curves") or {}
        row |= {f"curve_{name}": curves.get(name) for name in CURVES}
        columns = {name: [_cell(row.get(name), kind)] for name, kind in self._types.items()}
        schema = pyarrow.schema([(name, _arrow(kind)) for name, kind in self._types.items()])
        self._write(pyarrow.table(columns, schema), self._runs / f"{record['id']}.parquet", **_ONE_ROW)

    def put_together(self) -> None:
        """Write the tables of all runs, in the order of the design: what is the same every time, the seconds, the curves."""
        import pyarrow
        import pyarrow.parquet

        files = self._files()
        if len(files) < len(self.design.runs):
            raise DataError(f"files have gone from {str(self._runs)!r} while the sweep ran")
        whole = pyarrow.concat_tables(pyarrow.parquet.ParquetFile(path).read() for path in files)
        whole = whole.combine_chunks()
        curves = [name for name in whole.column_names if name.startswith("curve_")]
        self._write(whole.drop_columns(["seconds", *curves]), self.folder / RESULTS)
        self._write(whole.select(["run", "id", "seconds"]), self.folder / TIMINGS)
        if self.design.curves:
            self._write(_long(whole, curves), self.folder / CURVES_FILE)

    def _write(self, table: Any, path: Path, **how: Any) -> None:
        import pyarrow
        import pyarrow.parquet

        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(table, sink, **({"compression": "zstd"} | how))
        write_whole(path, sink.getvalue().to_pybytes())


def read_about(folder: Path) -> dict[str, Any]:
    """Return what a folder says about its sweep."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if about["format"] != FORMAT or not {"title", "digest", "versions"} <= set(about):
            raise ValueError("format")
    except OSError as error:
        raise DataError(f"{str(folder)!r} holds no sweep ({ABOUT}: {error.strerror or error})") from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{str(folder / ABOUT)!r} is not what a sweep of this version of nlhfsim writes") from None
    return dict(about)


def _types(design: Design) -> dict[str, str]:
    """Return the columns of a run's file and their types."""
    columns: dict[str, list[Any]] = {}
    for run in design.runs:
        for name, value in run.config.items():
            columns.setdefault(name, []).append(value)
    # In the order in which one thinks of them: what belongs to the game stands beside the game.
    order = sorted(columns, key=lambda name: _ORDER.index(_group(name)))
    types = {"run": "integer", "id": "text"} | {name: _type_of(columns[name]) for name in order} | OUTCOME | {"seconds": "number"}
    return types | ({f"curve_{name}": f"list of {kind}" for name, kind in CURVES.items()} if design.curves else {})


_ORDER = ("game", "method", "other")
_OF_GAMES = ("beta", "reference", "n", "contexts", "fingerprint")


def _group(name: str) -> str:
    if name.partition("_")[0] == "game" or name in _OF_GAMES:
        return "game"
    return "method" if name.partition("_")[0] == "method" else "other"


def _type_of(values: list[Any]) -> str:
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, bool) for value in known):
        return "flag"
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in known) or not known:
        return "text"
    if any(abs(value) > _LARGEST_INTEGER for value in known):
        return "text"
    return "integer" if all(isinstance(value, int) for value in known) else "number"


def _arrow(kind: str) -> Any:
    import pyarrow

    if kind.startswith("list of "):
        return pyarrow.list_(_arrow(kind.removeprefix("list of ")))
    types = {"text": pyarrow.string, "integer": pyarrow.int64, "number": pyarrow.float64, "flag": pyarrow.bool_}
    return types[kind]()


def _cell(value: Any, kind: str) -> Any:
    """Return a value as its column holds it; lists and numbers in a column of words as JSON."""
    if value is None or kind.startswith("list of "):
        return value
    if kind == "text":
        return value if isinstance(value, str) else json.dumps(value)
    return float(value) if kind == "number" else value


def _long(whole: Any, curves: list[str]) -> Any:
    """Return the curves of all runs, a row a record."""
    import pyarrow
    import pyarrow.compute

    parents = pyarrow.compute.list_parent_indices(whole[curves[0]].combine_chunks())
    columns = {name: whole[name].take(parents) for name in ("run", "id")}
    flat = {name.removeprefix("curve_"): pyarrow.compute.list_flatten(whole[name].combine_chunks()) for name in curves}
    return pyarrow.table(columns | flat)
