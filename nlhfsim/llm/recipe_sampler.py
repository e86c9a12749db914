"""The sampler of a recipe: who draws the responses in place of the trainer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlhfsim.errors import InputError
from nlhfsim.llm.config import NashConfig
from nlhfsim.llm.credentials import ensure_name
from nlhfsim.llm.recipe_kinds import OF_A_SERVER, Kind, ensure_function, ensure_text, import_function, read_kind
from nlhfsim.llm.samplers._spec import Sampler, ensure_sampler, ensure_single
from nlhfsim.sweep._axes import Mistakes


@dataclass(frozen=True)
class SamplerRecipe:
    """A sampler as a table describes it.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    options : dict
        What it takes, checked one by one.
    base : pathlib.Path
        The folder that paths and modules start from.
    """

    kind: str
    options: dict[str, Any]
    base: Path

    @classmethod
    def read(cls, section: Mapping[str, Any], base: Path, config: NashConfig | None, mistakes: Mistakes) -> SamplerRecipe | None:
        """Return what a table says, None if it has mistakes or the method cannot have a sampler."""
        before = len(mistakes.found)
        kind, found = read_kind("sampler", section, KINDS, mistakes, {})
        if config is not None:
            with mistakes.at("sampler"):
                ensure_single(config)
        return cls(kind, found, base) if len(mistakes.found) == before else None

    def make(self) -> Sampler:
        """Return the sampler.

        Raises
        ------
        InputError
            If it cannot be made; the message begins with the table.
        """
        options = dict(self.options)
        try:
            if self.kind == "function":
                return ensure_sampler(import_function("function", options["function"], self.base)())
            from nlhfsim.llm.samplers import ServedSampler

            address, folder = _own(options.pop("address")), self.base / options.pop("folder")
            return ServedSampler(address, folder, **options)
        except InputError as error:
            raise InputError(f"sampler: {error}") from None


def _addresses(name: str, value: Any) -> Any:
    """Return one address, or a list with one for each process."""
    if not isinstance(value, list):
        return ensure_text(name, value)
    if not value:
        raise InputError(f"{name} = [] must be a text, or a list with one for each process")
    return [ensure_text(f"{name}[{k}]", one) for k, one in enumerate(value)]


def _own(addresses: str | list[str]) -> str:
    """Return the address of this process's server: what one loads, others must not draw from."""
    rank, count = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    found = [addresses] if isinstance(addresses, str) else addresses
    if len(found) != count:
        raise InputError(f"address = {addresses!r} must be {count} of them, one for each process")
    return found[rank]


KINDS: dict[str, Kind] = {
    "function": ({"function": ensure_function}, {}),
    "served": (
        {"address": _addresses, "folder": ensure_text},
        {"server_folder": ensure_text, "admin_key": ensure_name} | OF_A_SERVER,
    ),
}
"""By kind: what must be given, and what may be."""
