"""Nash learning from human feedback: preference games, certified equilibria, and the methods that learn them.

Everything is imported when it is first used, so that ``import nlhfsim`` is quick and pulls in neither cvxpy nor matplotlib.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nlhfsim import claims, datasets, dynamics, errors, games, metrics, plots, stability, testing
    from nlhfsim.compare import Comparison, compare
    from nlhfsim.dynamics import schedules
    from nlhfsim.equilibrium import Equilibrium, solve, solve_path
    from nlhfsim.experiment import Experiment, experiment
    from nlhfsim.feedback import Sampled
    from nlhfsim.flow import Flow, flow
    from nlhfsim.games.game import PreferenceGame
    from nlhfsim.games.responses import best_response, exploitability
    from nlhfsim.high_probability import HighProbability, high_probability
    from nlhfsim.parametrizations import LogLinear, Tabular
    from nlhfsim.simplex import kl, span
    from nlhfsim.simulate import simulate
    from nlhfsim.sources import cite
    from nlhfsim.sweep import Sweep, sweep
    from nlhfsim.trajectory import Trajectory, load
    from nlhfsim.tuning import Tuning, tune
    from nlhfsim.verify import VerificationReport, verify

_HOME = {
    "Comparison": "compare",
    "Equilibrium": "equilibrium",
    "Experiment": "experiment",
    "Flow": "flow",
    "HighProbability": "high_probability",
    "LogLinear": "parametrizations",
    "PreferenceGame": "games.game",
    "Sampled": "feedback",
    "Sweep": "sweep",
    "Tabular": "parametrizations",
    "Trajectory": "trajectory",
    "Tuning": "tuning",
    "VerificationReport": "verify",
    "best_response": "games.responses",
    "cite": "sources",
    "compare": "compare",
    "exploitability": "games.responses",
    "experiment": "experiment",
    "flow": "flow",
    "high_probability": "high_probability",
    "kl": "simplex",
    "load": "trajectory",
    "simulate": "simulate",
    "solve": "equilibrium",
    "solve_path": "equilibrium",
    "span": "simplex",
    "sweep": "sweep",
    "tune": "tuning",
    "verify": "verify",
}
_MODULES = {
    name: name for name in ("claims", "datasets", "dynamics", "errors", "games", "metrics", "plots", "stability", "testing")
} | {"schedules": "dynamics.schedules"}

__all__ = [
    "Comparison",
    "Equilibrium",
    "Experiment",
    "Flow",
    "HighProbability",
    "LogLinear",
    "PreferenceGame",
    "Sampled",
    "Sweep",
    "Tabular",
    "Trajectory",
    "Tuning",
    "VerificationReport",
    "best_response",
    "cite",
    "claims",
    "compare",
    "datasets",
    "dynamics",
    "errors",
    "experiment",
    "exploitability",
    "flow",
    "games",
    "high_probability",
    "kl",
    "load",
    "metrics",
    "plots",
    "schedules",
    "simulate",
    "solve",
    "solve_path",
    "span",
    "stability",
    "sweep",
    "testing",
    "tune",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"nlhfsim.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"nlhfsim.{_MODULES[name]}")
    else:
        raise AttributeError(f"module 'nlhfsim' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps ``nlhfsim.simulate`` and its like functions, though a submodule of that name is imported too."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        # A function that names the package must reach other processes; pickling knows plain modules only.
        return importlib.import_module, (__name__,)


sys.modules[__name__].__class__ = _Package
