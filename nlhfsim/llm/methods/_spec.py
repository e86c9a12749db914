"""What a method is to the trainer of language models: whom responses are drawn from, what the policy is pulled to, what follows.

Every method climbs an estimate of J(π̂)(Aμ - β(θ - log ρ) - τ(θ - θ̄)) from responses y ~ π̂ and opponents ~ μ: ρ is the
reference, θ̄ the target, and θ is log π(y | x) up to a constant in every prompt x. Methods differ in π̂ (the policy, or its
mixture with the reference), in μ (the responses themselves, or others), in τ and in how the target follows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nlhfsim.errors import ensure_choice
from nlhfsim.sources import Source

Parameters = Mapping[str, Any]


class Follow(NamedTuple):
    """How the target follows the policy; as it stands, not at all.

    Attributes
    ----------
    averaging : float
        α > 0: after every step the target's weights move to ``(1 - α) target + α policy``.
    refresh_every : int
        m > 0: after every m-th step the target becomes the policy.
    """

    averaging: float = 0.0
    refresh_every: int = 0


@dataclass(frozen=True)
class Method:
    """One method; its callables take the parameters that it is given, those of `defaults`.

    Attributes
    ----------
    name : str
        As the configuration says it.
    simulator : str
        The method of `nlhfsim.dynamics` that this one is on a softmax policy over enumerated responses.
    source : Source
        Where it is from.
    summary : str
        One line.
    defaults : mapping
        The parameters of `NashConfig` that it takes beside those of all methods, with their defaults.
    pull : callable
        τ ≥ 0, the weight of the pull to the target.
    follow : callable
        How the target follows.
    mixing : callable
        m in [0, 1]: responses are drawn from the mixture π^(1-m) ρ^m, normalized token by token.
    opponent_mixing : callable or None
        m of the mixture that opponents are drawn from; None: the responses to a prompt are each other's opponents.
    half_step : bool
        Whether opponents are drawn from the policy after a first step, and the second starts where the first did.
    """

    name: str
    simulator: str
    source: Source
    summary: str
    defaults: Parameters = field(default_factory=dict)
    pull: Callable[[Parameters], float] = lambda given: 0.0
    follow: Callable[[Parameters], Follow] = lambda given: Follow()
    mixing: Callable[[Parameters], float] = lambda given: 0.0
    opponent_mixing: Callable[[Parameters], float] | None = None
    half_step: bool = False


_METHODS: dict[str, Method] = {}


def register(method: Method) -> Method:
    """Make a method known by its name, and return it."""
    _METHODS[method.name] = method
    return method


def get(name: str) -> Method:
    """Return a method by its name.

    Raises
    ------
    UnknownNameError
        If there is none.

    Examples
    --------
    >>> from nlhfsim.llm import methods
    >>> methods.get("online_ipo").simulator
    'SelfPlayPG'
    """
    return _METHODS[ensure_choice("method", name, _METHODS)]


def names() -> list[str]:
    """Return the names of all methods."""
    return list(_METHODS)
