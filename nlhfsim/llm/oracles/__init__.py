"""Preference oracles: who compares two responses to a prompt, and says with which probability the first is preferred.

Any object with a method ``compare`` is one (`PreferenceOracle`); `ask` calls it and refuses what is no answer.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nlhfsim.llm.oracles._check import ask, ask_all
from nlhfsim.llm.oracles._spec import Message, PreferenceOracle, Prompt, Response, Verdicts
from nlhfsim.llm.oracles.classes import ClassOracle, FirstToken, rock_paper_scissors
from nlhfsim.llm.oracles.function import FunctionOracle
from nlhfsim.llm.oracles.matrix import MatrixOracle
from nlhfsim.llm.oracles.score import ScoreOracle
from nlhfsim.llm.oracles.wrappers import Batched, BothOrders, Cached, Noisy

if TYPE_CHECKING:
    from nlhfsim.llm.oracles.judge import JudgeOracle
    from nlhfsim.llm.oracles.reward_model import RewardModelOracle
    from nlhfsim.llm.oracles.served import ServedJudgeOracle

_WITH_TORCH = {"JudgeOracle": "judge", "RewardModelOracle": "reward_model", "ServedJudgeOracle": "served"}

__all__ = [
    "Batched",
    "BothOrders",
    "Cached",
    "ClassOracle",
    "FirstToken",
    "FunctionOracle",
    "JudgeOracle",
    "MatrixOracle",
    "Message",
    "Noisy",
    "PreferenceOracle",
    "Prompt",
    "Response",
    "RewardModelOracle",
    "ScoreOracle",
    "ServedJudgeOracle",
    "Verdicts",
    "ask",
    "ask_all",
    "rock_paper_scissors",
]


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module 'nlhfsim.llm.oracles' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"nlhfsim.llm.oracles.{_WITH_TORCH[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
