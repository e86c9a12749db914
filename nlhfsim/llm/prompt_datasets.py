"""Datasets of the Hugging Face library ``datasets`` as prompts: objects, folders that it saved, and names at the hub."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nlhfsim.errors import DataError, InputError, MissingExtraError, UnknownNameError, did_you_mean
from nlhfsim.llm.pretrained import first_line

PREFIX = "hf:"
_SAVED = ("state.json", "dataset_dict.json")
"""What ``save_to_disk`` leaves in a folder."""
_SPLIT = "train"


class Source(NamedTuple):
    """What ``hf:OWNER/NAME/SUBSET:SPLIT`` says.

    Attributes
    ----------
    name : str
        At the hub.
    subset, split : str or None
        The configuration, and the part.
    """

    name: str
    subset: str | None
    split: str | None


def is_dataset(source: Any) -> bool:
    """Return whether `source` is an object of the library, or says where one is."""
    if isinstance(source, (str, Path)):
        return str(source).startswith(PREFIX) or Path(source).is_dir()
    library = sys.modules.get("datasets")
    return library is not None and isinstance(source, _kinds(library))


def _kinds(library: Any) -> tuple[type, ...]:
    names = ("Dataset", "IterableDataset", "DatasetDict", "IterableDatasetDict")
    return tuple(getattr(library, name) for name in names if isinstance(getattr(library, name, None), type))


def values(source: Any, column: str, split: str | None, name: str) -> Iterator[tuple[Any, str]]:
    """Yield the entries of a column, each with its place for messages.

    Parameters
    ----------
    source : dataset, or str or path
        One that streams is read to its end: cut it by ``take``.
    column : str
        The column.
    split : str, optional
        Its part, if it has several; default: the only one, else train.
    name : str
        What messages call `source`.

    Raises
    ------
    MissingExtraError
        If the library is needed and not installed.
    InputError
        If the column or the split does not exist.
    DataError
        If it cannot be loaded.
    """
    where = name if not isinstance(source, (str, Path)) else f"{name} = {str(source)!r}"
    dataset = _part(_loaded(source, split, where), split, where)
    columns = dataset.column_names
    if columns is not None:
        if column not in columns:
            raise UnknownNameError(f"{where} has no column {column!r}{did_you_mean(column, columns)}")
        dataset = dataset.select_columns([column])
    for k, row in enumerate(dataset):
        if column not in row:
            raise UnknownNameError(f"{where} has no column {column!r}{did_you_mean(column, row)}")
        yield row[column], f"{where}, row {k + 1}"


def _loaded(source: Any, split: str | None, where: str) -> Any:
    if not isinstance(source, (str, Path)):
        return source
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(f"{where} needs the library datasets: pip install datasets") from None
    if not str(source).startswith(PREFIX):
        return _from_folder(datasets, Path(source), where)
    wanted = parse(str(source), where)
    if wanted.split and split and wanted.split != split:
        raise InputError(f"{where} names the split {wanted.split!r}, and split = {split!r}: name one")
    try:
        return datasets.load_dataset(wanted.name, wanted.subset, split=wanted.split or split)
    except Exception as error:  # the hub, the network and every format fail in their own way
        advice = "without network, save it elsewhere by save_to_disk and give the folder"
        raise DataError(f"{where} cannot be loaded: {first_line(error)}; {advice}") from None


def _from_folder(library: Any, folder: Path, where: str) -> Any:
    if not any((folder / name).is_file() for name in _SAVED):
        raise DataError(
            f"{where} is a folder without a dataset, must be one that save_to_disk of the library datasets wrote, or a file"
        )
    try:
        return library.load_from_disk(str(folder))
    except Exception as error:  # each file of it can be damaged in its own way
        raise DataError(f"{where} cannot be read: {first_line(error)}") from None


def parse(source: str, where: str) -> Source:
    """Return the parts of ``hf:OWNER/NAME/SUBSET:SPLIT``, of which subset and split may be left out.

    Raises
    ------
    InputError
        If it is not of this form.

    Examples
    --------
    >>> from nlhfsim.llm.prompt_datasets import parse
    >>> parse("hf:openai/gsm8k/main:train[:100]", "prompts")
    Source(name='openai/gsm8k', subset='main', split='train[:100]')
    """
    path, _, split = source.removeprefix(PREFIX).partition(":")
    parts = path.split("/")
    if not all(part.strip() for part in parts) or len(parts) > 3:
        raise InputError(f"{where} must be written 'hf:OWNER/NAME', with '/SUBSET' and ':SPLIT' behind it if wanted")
    return Source("/".join(parts[:2]), parts[2] if len(parts) == 3 else None, split or None)


def _part(dataset: Any, split: str | None, where: str) -> Any:
    """Return one split of a dataset that has several."""
    if not isinstance(dataset, dict):
        return dataset
    chosen = split or (_SPLIT if _SPLIT in dataset or len(dataset) != 1 else next(iter(dataset)))
    if chosen not in dataset:
        raise UnknownNameError(f"{where} has no split {chosen!r}{did_you_mean(chosen, dataset)}")
    return dataset[chosen]
