"""Claims about the reward model: what its KL-regularized optimum loses in the game, on cycles and where the model is right.

π_r ∝ ρ exp(r/β), r the Bradley–Terry scores of maximum likelihood, all pairs weighted equally. The cycles have three actions: 0
beats 1 and 1 beats 2 by the margin m, 2 beats 0 by s ≤ m, and ρ is uniform. Then r = (t, 0, -t) with σ(t) + σ(2t) = 1 + m - s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit

from nlhfsim import games
from nlhfsim.claims._accuracy import EPS
from nlhfsim.claims._case import Case
from nlhfsim.claims._registry import register
from nlhfsim.claims._spec import Claim, Hypothesis, Measured, Mutant
from nlhfsim.errors import Array
from nlhfsim.games.game import PreferenceGame
from nlhfsim.games.reward_model import reward_model_optimum
from nlhfsim.simplex import log_softmax
from nlhfsim.sources import BRADLEY_TERRY, DIRECT_PREFERENCE_OPTIMIZATION, NASH_LEARNING

_FIT = 4e-12
"""What scores may be off by where the likelihood, flat at its maximum, is within 1e-24 of it."""


def optimum_gap0(case: Case) -> Measured:
    """Return E_0(π_r) as the package fits and optimizes; NaN where there is no fit. Scores off by e move Aπ_r by e/β at most."""
    found = reward_model_optimum(case.game, case.solution)
    if found.gap0 is None or found.policy is None:
        return Measured(np.nan)
    return Measured(found.gap0, _FIT / case.beta * (1 - float(found.policy.max())) + 4 * EPS)


def _margins(case: Case) -> tuple[float, float]:
    return float(case.advantages[0, 1]), float(case.advantages[2, 0])


def _decay(case: Case) -> float:
    """exp(-t/β), t the root of the likelihood equation."""
    m, s = _margins(case)
    excess: Callable[[float], float] = lambda t: float(expit(t)) + float(expit(2 * t)) - (1 + m - s)
    return float(np.exp(-brentq(excess, 0.0, 100.0, xtol=1e-15) / case.beta))


def _floor(case: Case, factor: float = 1.0) -> float:
    """s - (s + m) exp(-t/β), s multiplied by a factor."""
    m, s = _margins(case)
    return factor * s - (factor * s + m) * _decay(case)


def _exact(case: Case, power: float = 1.0) -> float:
    """E_0 of (1, q, q²)/(1 + q + q²), q = exp(-t/β) to a power."""
    (m, s), q = _margins(case), _decay(case) ** power
    return float(max(m * q - s * q**2, s - m * q) / (1 + q + q**2))


def _gap0_of_equilibrium(case: Case) -> float:
    return float((case.advantages @ case.equilibrium).max())


def three_actions(m: float, s: float, beta: float) -> Case:
    """Return the case of margins (m, m, s) and uniform ρ."""
    matrix = 0.5 + np.array([[0.0, m, -s], [-m, 0.0, m], [s, -m, 0.0]])
    uniform = np.full(3, -np.log(3))
    return Case(PreferenceGame(matrix, beta), uniform, uniform, 1.0, "three actions")


_WITNESS = tuple(three_actions(0.5, 0.2, beta) for beta in (1.0, 0.1, 0.01, 0.001))


def _cycles(seed: int) -> Iterator[Case]:
    """Yield the witness at four β, then others."""
    yield from _WITNESS
    rng = np.random.default_rng([seed, 3])
    for _ in range(60):
        m = float(rng.uniform(0.05, 0.5))
        yield three_actions(m, float(rng.uniform(0.1, 0.9)) * m, float(10 ** rng.uniform(-3, 0)))


def _cycles_and_controls(seed: int) -> Iterator[Case]:
    """Yield uniform cycles and transitive games too, and one whose fit diverges."""
    yield from _cycles(seed)
    yield from (three_actions(m, m, 1.0) for m in (0.5, 0.2))
    yield from (three_actions(0.3, s, beta) for s in (-0.1, -0.4) for beta in (1.0, 0.1, 0.01))
    yield three_actions(0.5, -0.5, 0.1)


def _is_three_actions(case: Case, lowest: float) -> bool:
    """Return whether the case has margins (m, m, s), lowest < s ≤ m, and uniform ρ."""
    if case.n != 3:
        return False
    m, s = _margins(case)
    same = np.allclose(case.advantages, three_actions(m, s, case.beta).advantages, rtol=0, atol=1e-12)
    return bool(same and lowest < s <= m and np.ptp(case.log_reference) < 1e-12)


register(
    Claim(
        id="bradley-terry-is-exploitable",
        title="on a cycle the optimum of the best reward model stays exploitable as β → 0",
        statement=r"\mathcal E_0(\pi_r) \ge s - (s + m)\, e^{-t/\beta} \to s > 0, \quad \sigma(t) + \sigma(2t) = 1 + m - s, "
        r"\quad \text{margins } (m, m, s)",
        source=NASH_LEARNING.at("why reward models do not suffice; the example derived here"),
        kind="lower",
        status="counterexample",
        measure=optimum_gap0,
        bound=_floor,
        tolerance=1e-12,
        why="the root t over β; the stopping of the fit is propagated",
        hypotheses=(Hypothesis("a 3-cycle of margins (m, m, s), 0 < s ≤ m", lambda case: _is_three_actions(case, 0.0)),),
        mutants=(
            Mutant("s times 1.5", {"bound": lambda case: _floor(case, 1.5)}),
            Mutant("the equilibrium for the optimum of the reward model", {"measure": _gap0_of_equilibrium}),
        ),
        proof="docs/proofs/derived-claims.md#bradley-terry-is-exploitable",
        cases=_cycles,
    )
)

register(
    Claim(
        id="bradley-terry-on-three-actions",
        title="what the optimum of the best reward model loses on three actions, exactly",
        statement=r"\mathcal E_0(\pi_r) = \frac{\max(mq - sq^2,\, s - mq)}{1 + q + q^2}, \quad q = e^{-t/\beta}, \quad "
        r"\sigma(t) + \sigma(2t) = 1 + m - s, \quad \text{margins } (m, m, s)",
        source=BRADLEY_TERRY.at("maximum likelihood; the value derived here"),
        kind="equality",
        status="identity",
        measure=optimum_gap0,
        bound=_exact,
        tolerance=1e-12,
        absolute=1e-11,
        why="the root t over β; uniform cycles give 0 to the stopping of the fit, which is propagated elsewhere",
        hypotheses=(
            Hypothesis(
                "three actions of margins (m, m, s), -½ < s ≤ m: a finite fit", lambda case: _is_three_actions(case, -0.5)
            ),
        ),
        mutants=(
            Mutant("t divided by 1.5", {"bound": lambda case: _exact(case, 1 / 1.5)}),
            Mutant("the equilibrium for the optimum of the reward model", {"measure": _gap0_of_equilibrium}),
        ),
        proof="docs/proofs/derived-claims.md#bradley-terry-on-three-actions",
        cases=_cycles_and_controls,
    )
)


def _is_bradley_terry(case: Case) -> bool:
    """Return whether the log-odds against action 0 give all preferences."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = logit(case.advantages[:, 0] + 0.5)
        predicted = expit(scores[:, None] - scores[None, :])
    return bool(np.isfinite(scores).all() and np.abs(predicted - case.advantages - 0.5).max() < 1e-9)


def _ceiling(case: Case, factor: float = 1.0) -> float:
    """β/4 log(1/ρ(y)) of the action y that wins most, times a factor."""
    best = int(np.argmax(case.advantages.sum(axis=1)))
    return -factor * case.beta / 4 * float(case.log_reference[best])


def _bradley_terry_games(seed: int) -> Iterator[Case]:
    """Yield games of two actions whose better one is rare, others, and the witness, which is none of them."""
    for rare, log_ratio, beta in ((1e-6, 12.0, 0.01), (1e-9, 19.0, 0.01), (1e-3, 5.0, 0.1)):
        yield _with_scores(np.array([log_ratio * beta, 0.0]), beta, np.array([rare, 1 - rare]))
    rng = np.random.default_rng([seed, 4])
    for _ in range(100):
        n, beta = int(rng.integers(2, 9)), float(10 ** rng.uniform(-3, 1))
        reference = games.random_reference(n, rng, float(rng.choice([0.0, 1.0, 8.0])))
        reach = min(beta * float(10 ** rng.uniform(-1, 2)), 4.0)
        yield _with_scores(reach * rng.standard_normal(n), beta, reference)
    yield from _WITNESS


def _with_scores(scores: Array, beta: float, reference: Array) -> Case:
    uniform = log_softmax(np.zeros(len(scores)))
    return Case(games.bradley_terry(scores, beta=beta, reference=reference), uniform, uniform, 1.0, "Bradley-Terry")


register(
    Claim(
        id="bradley-terry-games-are-solved",
        title="where the reward model is right, its optimum loses O(β)",
        statement=r"P_{ij} = \sigma(s_i - s_j) \Rightarrow \mathcal E_0(\pi_r) \le \tfrac{\beta}{4} \log(1/\rho(y^*)), \quad "
        r"y^* = \operatorname{argmax} s",
        source=DIRECT_PREFERENCE_OPTIMIZATION.at("the KL-regularized optimum of a reward; the bound derived here"),
        kind="upper",
        status="theorem",
        measure=optimum_gap0,
        bound=_ceiling,
        tolerance=1e-12,
        why="rounding of preferences; the stopping of the fit is propagated",
        hypotheses=(Hypothesis("P is Bradley–Terry", _is_bradley_terry),),
        mutants=(Mutant("β/6 for β/4", {"bound": lambda case: _ceiling(case, 1 / 1.5)}),),
        proof="docs/proofs/derived-claims.md#bradley-terry-games-are-solved",
        cases=_bradley_terry_games,
    )
)
