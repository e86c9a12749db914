"""Samplers: who draws the responses in place of the trainer, an inference server for one.

Any object with the methods ``load`` and ``sample`` is one (`Sampler`). It is handed the weights whenever they have changed; the
log-probabilities of what it draws are computed by the trainer.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nlhfsim.llm.samplers._spec import Sampler, Samples, SamplingRequest, Weights

if TYPE_CHECKING:
    from nlhfsim.llm.samplers.served import ServedSampler

__all__ = ["Sampler", "Samples", "SamplingRequest", "ServedSampler", "Weights"]


def __getattr__(name: str) -> Any:
    if name != "ServedSampler":
        raise AttributeError(f"module 'nlhfsim.llm.samplers' has no attribute {name!r}")
    value = importlib.import_module("nlhfsim.llm.samplers.served").ServedSampler
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
