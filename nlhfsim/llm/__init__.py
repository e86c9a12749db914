"""Nash learning with language models: the methods of the simulator, with the same loss, on a causal language model.

Needs the extra: ``pip install nlhfsim[torch]``.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from nlhfsim.errors import MissingExtraError

for _name in ("torch", "transformers", "safetensors"):
    if importlib.util.find_spec(_name) is None:
        raise MissingExtraError(f"nlhfsim.llm needs {_name}: pip install 'nlhfsim[torch]'")

if TYPE_CHECKING:
    from nlhfsim.llm import methods, oracles, samplers, trackers
    from nlhfsim.llm.config import NashConfig
    from nlhfsim.llm.cross_check import CrossCheck, crosscheck
    from nlhfsim.llm.record import TrainingRun, load_run
    from nlhfsim.llm.recipe import read_recipe

_HOME = {
    "CrossCheck": "cross_check",
    "NashConfig": "config",
    "NashTrainer": "trainer",
    "TrainingRun": "record",
    "crosscheck": "cross_check",
    "load_run": "record",
    "read_recipe": "recipe",
}
_MODULES = ("exact", "methods", "oracles", "samplers", "trackers")

__all__ = [
    "CrossCheck",
    "NashConfig",
    "NashTrainer",
    "TrainingRun",
    "crosscheck",
    "exact",
    "load_run",
    "methods",
    "oracles",
    "read_recipe",
    "samplers",
    "trackers",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"nlhfsim.llm.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"nlhfsim.llm.{name}")
    else:
        raise AttributeError(f"module 'nlhfsim.llm' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
