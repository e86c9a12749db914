"""The stability limit: how the time constant of a method at its best constant step grows as β → 0."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from nlhfsim.claims._case import Case
from nlhfsim.claims._registry import register
from nlhfsim.claims._spec import Claim, Mutant
from nlhfsim.errors import Array
from nlhfsim.games import cyclic_tournament
from nlhfsim.games.game import PreferenceGame
from nlhfsim.sources import PROXIMAL_POINT_NLHF
from nlhfsim.stability import stability_limit

GRADIENT, PROXIMAL = ("SelfPlayPG", "NaturalPG"), ("NashMirrorProx", "ProximalPG")
BETAS = (0.03, 0.01, 0.003, 0.001)
_INNER = {"ProximalPG": {"proximal_step": (4.0,), "inner_steps": (3,)}}


def _tournament(seed: int) -> Iterator[Case]:
    """Yield the cyclic tournament of 21 actions, whose modes turn at ten frequencies."""
    yield _case(cyclic_tournament(21, 0.5, beta=BETAS[0]))


def _cycle(seed: int) -> Iterator[Case]:
    """Yield the 3-cycle, which has one mode."""
    yield _case(cyclic_tournament(3, 0.5, beta=BETAS[0]))


def _case(game: PreferenceGame) -> Case:
    uniform = game.log_reference.reshape(game.n)
    return Case(game, uniform, uniform, 1.0, "by hand")


@lru_cache(maxsize=4)
def _times(n: int, methods: tuple[str, ...]) -> Array:
    """Return time constants in oracle calls on a cyclic tournament, shape ``(methods, betas)``."""
    return stability_limit(methods, BETAS, game=cyclic_tournament(n, 0.5), tuning=_INNER).time_constants


def _slopes(*methods: str) -> Callable[[Case], Array]:
    """Return the measurement of the slopes of log time constant against log β."""

    def measure(case: Case) -> Array:
        return np.asarray(np.polyfit(np.log(BETAS), np.log(_times(case.n, methods)).T, 1)[0])

    return measure


def _spread(case: Case) -> Array:
    """Return by which factor time constants grow when the smallest β but one is divided by 3."""
    times = _times(case.n, PROXIMAL)
    return np.asarray(times[:, -1] / times[:, -2])


def _limit(name: str, title: str, methods: tuple[str, ...], slope: float, tolerance: float, **what: Any) -> Claim:
    return Claim(
        id=name,
        title=title,
        source=PROXIMAL_POINT_NLHF.at("possible stability limitation of self-play policy gradient"),
        kind="threshold",
        status="asymptotic",
        measure=_slopes(*methods),
        bound=lambda case: slope,
        tolerance=0.0,
        absolute=tolerance,
        proof=f"docs/proofs/derived-claims.md#{name}",
        cost="costly",
        cases=_tournament,
        **what,
    )


register(
    _limit(
        "stability-limit",
        "SelfPlayPG and NaturalPG need time of the order 1/β² on a cyclic tournament",
        GRADIENT,
        -2.0,
        0.02,
        statement=(
            r"\text{oracle calls to shrink by } e \text{ at the best step} \sim \beta^{-2}\text{: slope } {-2.00} \pm 0.02,"
            r"\ n = 21,\ \beta \in \{0.03, 0.01, 0.003, 0.001\}"
        ),
        why="the slope is that of a limit, at finite β; steps are optimized to 1e-9",
        mutants=(
            Mutant("the slope -1 of the proximal methods", {"bound": lambda case: -1.0}),
            Mutant("the proximal methods", {"measure": _slopes(*PROXIMAL)}),
            Mutant("slope -1.95", {"bound": lambda case: -1.95}),
        ),
    )
)
register(
    _limit(
        "stability-limit-proximal",
        "NashMirrorProx and ProximalPG need time of the order 1/β on a cyclic tournament",
        PROXIMAL,
        -1.0,
        0.03,
        statement=(
            r"\text{oracle calls to shrink by } e \text{ at the best step} \sim \beta^{-1}\text{: slope } {-1.00} \pm 0.03,"
            r"\ n = 21,\ \beta \in \{0.03, 0.01, 0.003, 0.001\}"
        ),
        why="the slope is that of a limit, at finite β and fixed parameters of the inner loop",
        mutants=(
            Mutant("the slope -2 of the gradient methods", {"bound": lambda case: -2.0}),
            Mutant("the gradient methods", {"measure": _slopes(*GRADIENT)}),
            Mutant("the 3-cycle, which has one mode", {"cases": _cycle}),
        ),
    )
)
register(
    Claim(
        id="stability-limit-one-mode",
        title="with one mode, on the 3-cycle, the time of the proximal methods stays bounded as β → 0",
        statement=r"\text{time constant at } \beta = 0.001 \le 1.5 \times \text{that at } \beta = 0.003 \text{ on the 3-cycle}",
        source=PROXIMAL_POINT_NLHF.at("proximal point framework; the control of stability-limit"),
        kind="upper",
        status="asymptotic",
        measure=_spread,
        bound=lambda case: 1.5,
        tolerance=0.0,
        why="1/β would be a factor of 3",
        mutants=(
            Mutant("the tournament of 21 actions", {"cases": _tournament}),
            Mutant("1 for 1.5", {"bound": lambda case: 1.0}),
        ),
        proof="docs/proofs/derived-claims.md#stability-limit-one-mode",
        cost="costly",
        cases=_cycle,
    )
)
