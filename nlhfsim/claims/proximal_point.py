"""Claims about the proximal point method: its rate, what inexact steps cost, and what is left of it at β = 0."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np

from nlhfsim.claims._case import Case
from nlhfsim.claims._rates import WHY, implicit_factor, powers
from nlhfsim.claims._registry import register
from nlhfsim.claims._runs import EPS, kl_to_equilibrium, log_policies
from nlhfsim.claims._spec import Claim, Measured, Mutant
from nlhfsim.dynamics import Dynamics, MultiplicativeWeights, ProximalPoint
from nlhfsim.errors import Array
from nlhfsim.simplex import kl_log, log_softmax, safe_log
from nlhfsim.solvers import tolerance
from nlhfsim.sources import BREGMAN_PROXIMAL_POINT, PROXIMAL_POINT_NLHF

_FEW = 4
"""Steps; each is a solved game, and the bound is nearest to KL in the first."""


def _inner_error(case: Case) -> float:
    """Return how far the inner solver may be from a step's log-policy; the steps after it shrink that."""
    return _FEW * tolerance(case.beta + 1 / case.step_size)


# --- the rate, exact and inexact ------------------------------------------------------------------------------------------


def _kl_along(case: Case, dynamics: Dynamics) -> Measured:
    return kl_to_equilibrium(case, log_policies(case, dynamics, _FEW)[1:], _inner_error(case))


register(
    Claim(
        id="proximal-point-rate",
        title="ProximalPoint: KL to π* shrinks by 1 + γβ a step, for every γ",
        statement=r"\mathrm{KL}(\pi^* \| \pi_K) \le (1 + \gamma\beta)^{-K}\, \mathrm{KL}(\pi^* \| \pi_0)",
        source=PROXIMAL_POINT_NLHF.at("the proximal point framework, last-iterate rate of exact steps"),
        kind="rate",
        status="theorem",
        measure=_kl_along,
        bound=powers(implicit_factor, steps=_FEW),
        tolerance=1e-12,
        why=WHY + "; what the inner solver may be off by counts like rounding",
        mutants=(Mutant("the exponent times 1.5", {"bound": powers(implicit_factor, 1.5, _FEW)}),),
        proof="docs/proofs/derived-claims.md#proximal-point-rate",
        method=ProximalPoint(),
    )
)


def _generator(case: Case) -> np.random.Generator:
    """Return a generator that depends on the case alone."""
    return np.random.default_rng(np.frombuffer(np.round(case.log_opponent, 6).tobytes(), dtype=np.uint32))


def _error_size(case: Case) -> float:
    """Return ε, from 0.01 to 100: where log π is far off the bound is attained, near π* KL is only quadratic in ε."""
    return float(10 ** _generator(case).uniform(-2, 2))


def _errors(case: Case) -> Iterator[Array]:
    """Yield random directions of span ε: always one action that is raised, or anything anew at each step."""
    rng, size = _generator(case), _error_size(case)
    raised = size * np.eye(case.n)[rng.integers(case.n)]
    persistent = rng.random() < 0.5
    while True:
        direction = rng.standard_normal(case.n)
        yield raised if persistent else size * direction / np.ptp(direction)


def _inexact_run(case: Case, dynamics: Dynamics) -> Measured:
    """Return KL(π*‖π_K) where each step from the current iterate is exact, then moved by an error."""
    method, state, rows, errors = dynamics.method, None, [case.log_policy], _errors(case)
    for _ in range(_FEW):
        state = method.init(case.context, dynamics.params, rows[-1])
        exact = method.step(state, case.context, case.step_size, dynamics.params)
        rows.append(log_softmax(log_softmax(exact.logits) + next(errors)))
    return kl_to_equilibrium(case, np.array(rows[1:]), _inner_error(case))


def _inexact_bound(gain: Callable[[float], float]) -> Callable[[Case, Dynamics], Array]:
    """Return the bound with ε times ``gain(γβ)`` for what the errors add up to."""
    exact = powers(implicit_factor, steps=_FEW)
    return lambda case, dynamics: exact(case, dynamics) + _error_size(case) * gain(case.step_size * case.beta)


register(
    Claim(
        id="inexact-proximal-point",
        title="ProximalPoint with steps off by ε: KL to π* shrinks as with exact ones, to a floor of ε(1 + γβ)/(γβ)",
        statement=r"\|\log\hat\pi_{k+1} - \log\mathrm{prox}(\hat\pi_k)\|_{sp} \le \varepsilon \Rightarrow \mathrm{KL}(\pi^* \| "
        r"\hat\pi_K) \le (1 + \gamma\beta)^{-K}\, \mathrm{KL}(\pi^* \| \pi_0) + \varepsilon\,\frac{1 + \gamma\beta}{\gamma\beta}",
        source=PROXIMAL_POINT_NLHF.at("the proximal point framework, inexact steps; this form derived here"),
        kind="rate",
        status="theorem",
        measure=_inexact_run,
        bound=_inexact_bound(lambda pull: (1 + pull) / pull),
        tolerance=1e-12,
        why=WHY + "; what the inner solver may be off by counts like rounding",
        mutants=(
            Mutant("the floor halved", {"bound": _inexact_bound(lambda pull: (1 + pull) / (2 * pull))}),
            Mutant("the floor without 1 + γβ", {"bound": _inexact_bound(lambda pull: 1 / pull)}),
            Mutant("the errors do not add up", {"bound": _inexact_bound(lambda pull: 1.0)}),
        ),
        proof="docs/proofs/derived-claims.md#inexact-proximal-point",
        method=ProximalPoint(),
    )
)


# --- β = 0 ----------------------------------------------------------------------------------------------------------------

_OBJECTIVES = 3


@lru_cache(maxsize=8)
def winners(case: Case) -> Array:
    """Return von Neumann winners of the game: the centre of the set of them and vertices of it, shape ``(k, n)``.

    The vertices maximize random objectives over ``{x: Ax ≤ 0}``.
    """
    found = [case.equilibrium]
    if case.solution.face_dimension != 0:
        found += list(_vertices(case))
    return np.array(found)


def _vertices(case: Case) -> Iterator[Array]:
    from scipy.optimize import linprog

    rng = _generator(case)
    for _ in range(_OBJECTIVES):
        best = linprog(
            rng.standard_normal(case.n), case.advantages, np.zeros(case.n), np.ones((1, case.n)), [1.0], method="highs-ds"
        )
        if best.x is not None:
            vertex = np.maximum(best.x, 0.0)
            yield vertex / vertex.sum()


def _kl_rows(policies: Array, rows: Array) -> Array:
    """Return KL of each policy to each log-policy of a run, shape ``(policies, steps)``."""
    return kl_log(safe_log(policies)[:, None], rows[None])


def _rounding(case: Case, rows: Array, policies: Array) -> Array:
    """Return what a change of KL may be off by in each step: rounding, the inner solver, and a winner that loses a little.

    One step changes KL(π*‖π) by -KL(π⁺‖π) - γπ*ᵀAπ⁺, and π*ᵀAπ⁺ ≥ -max Aπ*.
    """
    losing = case.step_size * np.maximum(policies @ case.advantages.T, 0.0).max(axis=1)
    spread = np.ptp(np.diff(rows, axis=0), axis=1)
    inner = tolerance(1 / case.step_size) * (1 + spread)
    return np.asarray(losing[:, None] + 8 * EPS * np.abs(rows).max() + inner)


def _after(case: Case, dynamics: Dynamics) -> Measured:
    """Return KL(π*‖π_{k+1}) for some winners π* and k = 0, 1, …"""
    found = winners(case)
    rows = log_policies(case, dynamics, _FEW)
    return Measured(_kl_rows(found, rows[1:]).ravel(), _rounding(case, rows, found).ravel())


def _before(power: float, of: Callable[[Case], Array] = winners) -> Callable[[Case, Dynamics], Array]:
    """Return KL(π*‖π_k) less `power` times KL(π_{k+1}‖π_k), both by the definition in probability space."""

    def bound(case: Case, dynamics: Dynamics) -> Array:
        rows = log_policies(case, dynamics, _FEW)
        found = of(case)
        entropies = np.sum(found * np.log(np.where(found > 0, found, 1.0)), axis=1, keepdims=True)
        moved = np.sum(np.exp(rows[1:]) * (rows[1:] - rows[:-1]), axis=1)
        return np.asarray((entropies - found @ rows[:-1].T - power * moved).ravel())

    return bound


def _any_policies(case: Case) -> Array:
    return np.broadcast_to(case.opponent, winners(case).shape)


def _after_any(case: Case, dynamics: Dynamics) -> Measured:
    rows = log_policies(case, dynamics, _FEW)
    return Measured(_kl_rows(_any_policies(case), rows[1:]).ravel(), 8 * EPS * np.abs(rows).max())


register(
    Claim(
        id="unregularized-prox-monotone",
        title="ProximalPoint at β = 0: KL to every von Neumann winner never increases, and falls by KL(π⁺‖π)",
        statement=r"\beta = 0:\quad \mathrm{KL}(\pi^* \| \pi_{k+1}) \le \mathrm{KL}(\pi^* \| \pi_k) - "
        r"\mathrm{KL}(\pi_{k+1} \| \pi_k)\ \text{for every von Neumann winner}\ \pi^*",
        source=BREGMAN_PROXIMAL_POINT.at("Fejér monotonicity of proximal steps with a Bregman distance"),
        kind="upper",
        status="theorem",
        measure=_after,
        bound=_before(1.0),
        tolerance=1e-12,
        why="rounding; the inner solver, and what the winner itself loses, times γ, are in the uncertainty",
        mutants=(
            Mutant("falls by twice KL(π⁺‖π)", {"bound": _before(2.0)}),
            Mutant("any policy for π*", {"measure": _after_any, "bound": _before(1.0, _any_policies)}),
        ),
        proof="docs/proofs/derived-claims.md#unregularized-prox-monotone",
        cost="moderate",
        method=ProximalPoint(),
        unregularized=True,
    )
)


def _average_gap(case: Case, dynamics: Dynamics) -> Measured:
    """Return E_0 of the average of π_1, …, π_K."""
    policies = np.exp(log_policies(case, dynamics, _FEW)[1:])
    averages = np.cumsum(policies, axis=0) / np.arange(1, _FEW + 1)[:, None]
    inexact = tolerance(1 / case.step_size) * (1 - case.log_policy.min()) / case.step_size
    return Measured((averages @ case.advantages.T).max(axis=1), 4 * EPS + inexact)


def _average_bound(factor: float = 1.0, power: float = 1.0) -> Callable[[Case, Dynamics], Array]:
    def bound(case: Case, dynamics: Dynamics) -> Array:
        rarest = float(np.log(1 / case.policy.min()))
        return np.asarray(factor * rarest / (case.step_size * np.arange(1, _FEW + 1) ** power))

    return bound


register(
    Claim(
        id="unregularized-prox-average",
        title="ProximalPoint at β = 0: E_0 of the average of K steps is at most log(1/min π_0)/(γK)",
        statement=r"\beta = 0:\quad E_0\Bigl(\tfrac1K \sum_{k=1}^K \pi_k\Bigr) \le \frac{\log(1/\min\pi_0)}{\gamma K}",
        source=BREGMAN_PROXIMAL_POINT.at("the ergodic rate of proximal steps; derived here"),
        kind="upper",
        status="theorem",
        measure=_average_gap,
        bound=_average_bound(),
        tolerance=1e-12,
        why="rounding; the inner solver's error is in the uncertainty",
        mutants=(
            Mutant("halved", {"bound": _average_bound(0.5)}),
            Mutant("K² for K", {"bound": _average_bound(power=2.0)}),
        ),
        proof="docs/proofs/derived-claims.md#unregularized-prox-average",
        method=ProximalPoint(),
        unregularized=True,
    )
)

_LONGEST = 1000
_STAYS = 20
_NEAR = 1e-2
_LARGE = 100.0
"""The step size, in units of 1/max |A|, at which most games are settled within a few dozen steps."""


def _scaled(case: Case) -> Case:
    return case.at(step_size=_LARGE / float(np.abs(case.advantages).max()))


def _gap(case: Case, logits: Array) -> float:
    """Return E_0 of a policy in units of the largest |A|."""
    return float((case.advantages @ np.exp(log_softmax(logits))).max() / np.abs(case.advantages).max())


def _settled(case: Case, dynamics: Dynamics) -> float:
    """Return the largest E_0 over the last 20 steps of a run that ends once that is at most 0.01, or after 1,000 steps."""
    method, context, step_size = dynamics.method, case.context, _scaled(case).step_size
    state, gaps = method.init(context, dynamics.params, case.log_policy), [np.inf] * _STAYS
    while len(gaps) < _LONGEST + _STAYS and max(gaps[-_STAYS:]) > _NEAR:
        state = method.step(state, context, step_size, dynamics.params)
        gaps.append(_gap(case, state.logits))
    return max(gaps[-_STAYS:])


def _gaps(case: Case, dynamics: Dynamics) -> Array:
    return np.array([_gap(case, row) for row in log_policies(_scaled(case), dynamics, 60)])


def _all_ties(case: Case) -> str:
    return "" if np.abs(case.advantages).max() > 1e-6 else "all actions tie"


register(
    Claim(
        id="unregularized-prox-converges",
        title="ProximalPoint at β = 0: E_0 of the last iterate goes to 0, not monotonically",
        statement=r"\beta = 0:\quad E_0(\pi_k) \to 0;\ \text{here, at}\ \gamma = 100/\|A\|_{\max}:\ "
        r"\max_{K-20 < k \le K} E_0(\pi_k) \le 10^{-2} \|A\|_{\max}\ \text{for some}\ K \le 1000",
        source=BREGMAN_PROXIMAL_POINT.at("convergence of proximal steps with a Bregman distance"),
        kind="upper",
        status="asymptotic",
        measure=_settled,
        bound=lambda case, dynamics: _NEAR,
        tolerance=0.0,
        why="the limit is proven, how soon it is near is measured",
        mutants=(
            Mutant("multiplicative weights instead", {"method": MultiplicativeWeights()}),
            Mutant(
                "never increases",
                {
                    "measure": lambda case, dynamics: _gaps(case, dynamics)[1:],
                    "bound": lambda case, dynamics: _gaps(case, dynamics)[:-1],
                },
            ),
        ),
        slack="there is no common rate: an action that has become rare may be missed for many steps",
        proof="docs/proofs/derived-claims.md#unregularized-prox-converges",
        cost="moderate",
        method=ProximalPoint(),
        counts=_all_ties,
        unregularized=True,
    )
)
