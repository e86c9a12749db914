"""Claims about the factor by which last iterates tend to a fixed point: measured on runs, against linearizations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nlhfsim import dynamics as methods
from nlhfsim.claims._case import Case
from nlhfsim.claims._growth import growth
from nlhfsim.claims._registry import register
from nlhfsim.claims._spec import Claim, Hypothesis, Measured, Mutant
from nlhfsim.claims._step import kebab
from nlhfsim.dynamics import Dynamics
from nlhfsim.errors import Array, InputError
from nlhfsim.games import cyclic_tournament
from nlhfsim.sources import PROXIMAL_POINT_NLHF
from nlhfsim.stability import local_rate

DERIVED = PROXIMAL_POINT_NLHF.at("local rates; the statement is derived in this project")
_SLOWEST, _FASTEST = 5e-3, 15.0
"""Of a smaller rate a step, some thousand steps show too little; of a larger one, one step leaves nothing but rounding."""


def _scale(case: Case) -> float:
    return case.beta / (case.beta**2 + 0.1)


def _moderate(case: Case) -> Case:
    return case.at(step_size=float(np.clip(case.step_size, 0.3 * _scale(case), _scale(case))))


_RANGE = Hypothesis("0.3 s ≤ γ ≤ s = β/(β² + 0.1)", lambda case: case.step_size == _moderate(case).step_size, _moderate)


def _sized(case: Case, dynamics: Dynamics) -> Dynamics:
    return dynamics if dynamics.method.scheduled is None else dynamics.with_step(case.step_size)


def _measured(case: Case, dynamics: Dynamics) -> Measured:
    found = growth(case, dynamics)
    return Measured(-found.value, found.uncertainty)


def _predicted(case: Case, dynamics: Dynamics, beta: float = 1.0, step: float = 1.0) -> float:
    """Return -log of the spectral radius; or at another β or step size."""
    at = case if beta == 1 else case.with_beta(beta * case.beta)
    return -float(np.log(local_rate(at.game, _sized(at.at(step_size=step * at.step_size), dynamics))))


def _resolvable(dynamics: Dynamics) -> Callable[[Case], str]:
    def counts(case: Case) -> str:
        if case.n < 2 or float(case.equilibrium.min()) < 1e-3:
            return "an action is so rare that it hardly moves"
        try:
            rate = _predicted(case, dynamics)
        except InputError as error:
            return str(error)
        inner = dynamics.method.inner_steps
        slowest = _SLOWEST * math.sqrt(1 if inner is None else inner(dynamics.params))
        if rate > _FASTEST:
            return "so fast that rounding is reached in a step"
        return "" if rate >= slowest else "too slow to be told from a few thousand steps"

    return counts


def local_rate_claim(dynamics: Dynamics) -> Claim:
    """Return the claim that the last iterate of a method tends to its fixed point by the factor that its linearization says.

    Parameters
    ----------
    dynamics : Dynamics
        A smooth method that forgets the time, with parameters; registered or not.

    Raises
    ------
    InputError
        If it is not smooth, depends on the time, or has no regularized fixed point.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> from nlhfsim.claims.local_rate import local_rate_claim
    >>> local_rate_claim(nl.dynamics.NashMD(0.5)).id
    'local-rate-nash-md'
    """
    method = dynamics.method
    if not (method.smooth and method.autonomous and not method.stochastic) or method.fixed_point == "none":
        raise InputError(f"{method.name} has no local rate: its step must be smooth and autonomous, with a fixed point")
    return Claim(
        id=f"local-rate-{kebab(method.name)}",
        title=f"{method.name}: the last iterate tends to its fixed point by the spectral radius of the linearization a step",
        statement=(
            rf"\text{{{method.name}: }} \|\theta_k - \theta_\infty\|^{{1/k}} \to \varrho(DT)"
            r"\text{ on } \mathbb{R}^n/\mathbf{1}, \text{ in the full state, at the method's own fixed point}"
        ),
        source=DERIVED,
        kind="threshold",
        status="asymptotic",
        measure=_measured,
        bound=_predicted,
        tolerance=0.02,
        why="a finite run: slopes of its third and last quarter agree to 1 %",
        hypotheses=(_RANGE,),
        mutants=(
            Mutant("β halved", {"bound": lambda case, dynamics: _predicted(case, dynamics, beta=0.5)}),
            Mutant("1.5 times the rate", {"bound": lambda case, dynamics: 1.5 * _predicted(case, dynamics)}),
        ),
        proof="docs/proofs/derived-claims.md#local-rate",
        cost="costly",
        method=dynamics,
        counts=_resolvable(dynamics),
    )


def linearizable() -> list[str]:
    """Return the names of the registered methods that have a local rate."""
    found = []
    for name in methods.names():
        method = methods.get(name).method
        if method.smooth and method.autonomous and not method.stochastic and method.fixed_point != "none":
            found.append(name)
    return found


for _name in linearizable():
    register(local_rate_claim(methods.build(_name, **(methods.get(_name).method.example or {}))))

# --- closed forms on the uniform cycle -------------------------------------------------------------------------------------

CYCLE_ROTATION = 1 / math.sqrt(12)
"""ω on the uniform 3-cycle with certain votes: A J(π*) has the eigenvalues ±iω, and J(π*) = 1/3."""


def _gradient(b: float, w: complex, g: float, d: Dynamics) -> complex:
    mixing = getattr(d.params, "mixing", 0.0)
    return 1 + g * ((1 - mixing) * w - b) / 3


def _two_calls(b: float, w: complex, g: float, d: Dynamics) -> complex:
    return (1 + g * w * (1 + g * w) / (1 + g * b)) / (1 + g * b)


def _optimistic(b: float, w: complex, g: float, d: Dynamics) -> complex:
    s = 1 / (1 + g * b)
    # State (θ, payoff seen last): π′ = s(θ + γv), v⁺ = wπ′, θ⁺ = s(θ + γv⁺).
    return _larger([[s * (1 + g * w * s), s * g * w * s * g], [w * s, w * s * g]])


def _proximal_pg(b: float, w: complex, g: float, d: Dynamics) -> complex:
    pull, total = d.params.pull, b + d.params.pull
    inner = (1 + g * (w - total) / 3) ** d.params.inner_steps
    return complex(inner + (1 - inner) * pull / (total - w))


def _nash_prox(b: float, w: complex, g: float, d: Dynamics) -> complex:
    pull, share = d.params.pull, d.params.averaging
    step = [1 + g * (w - b - pull) / 3, g * pull / 3]
    return _larger([step, [share * step[0], 1 - share + share * step[1]]])


def _larger(matrix: Any) -> complex:
    values = np.linalg.eigvals(np.array(matrix))
    return complex(values[np.argmax(np.abs(values))])


_ON_CYCLE: dict[str, Callable[[float, complex, float, Dynamics], complex]] = {
    "Extragradient": lambda b, w, g, d: 1 - g * b + g * w * (1 + g * (w - b)),
    "IPOMD": _gradient,
    "MagneticMirrorDescent": lambda b, w, g, d: (1 + g * w) / (1 + g * b),
    "NashMD": lambda b, w, g, d: (1 - g * b) * (1 + g * w),
    "NashMirrorProx": _two_calls,
    "NashProx": _nash_prox,
    "NaturalPG": lambda b, w, g, d: 1 - g * b + g * w,
    "OptimisticMirrorDescent": _optimistic,
    "ProximalPG": _proximal_pg,
    "ProximalPoint": lambda b, w, g, d: 1 / (1 + g * b - g * w),
    "SelfPlayPG": _gradient,
}
"""Eigenvalue of one step at π* by name, a function of β, iω, γ and the method."""


def _cycles(seed: int) -> Iterator[Case]:
    for beta in (0.3, 1.0):
        game = cyclic_tournament(3, 0.5, beta=beta)
        uniform = game.log_reference.reshape(3)
        case = Case(game, uniform, uniform, 1.0, "by hand")
        yield case.at(step_size=0.5 * _scale(case))


def _examples() -> list[Dynamics]:
    return [methods.build(name, **(methods.get(name).method.example or {})) for name in _ON_CYCLE]


def _measured_on_cycle(case: Case) -> Measured:
    found = [growth(case, dynamics.with_step(case.step_size)) for dynamics in _examples()]
    return Measured(-np.array([f.value for f in found]), np.array([f.uncertainty for f in found]))


def _closed_forms(beta: float = 1.0, rotation: float = 1.0) -> Callable[[Case], Array]:
    """Return -log|eigenvalue| of every method on the uniform cycle; or with β or ω times a factor."""

    def bound(case: Case) -> Array:
        turn = 1j * rotation * CYCLE_ROTATION
        return np.array([-np.log(abs(_ON_CYCLE[d.name](beta * case.beta, turn, case.step_size, d))) for d in _examples()])

    return bound


register(
    Claim(
        id="local-rate",
        title="every smooth method on the uniform cycle: the last iterate tends to π* by a factor known in closed form",
        statement=(
            r"\|\theta_k - \theta^*\|^{1/k} \to |\lambda|,\quad |1 - \gamma\beta + i\gamma\omega| \text{ of NaturalPG,}"
            r"\ |1 - \gamma(\beta - i\omega)/3| \text{ of SelfPlayPG},\ \omega^2 = 1/12;\quad"
            r"\text{local-rate-… has every method on every game}"
        ),
        source=DERIVED,
        kind="threshold",
        status="asymptotic",
        measure=_measured_on_cycle,
        bound=_closed_forms(),
        tolerance=0.02,
        why="a finite run: slopes of its last three quarters agree to 1 %",
        mutants=(
            Mutant("β halved", {"bound": _closed_forms(beta=0.5)}),
            Mutant("ω = 1/4 for 1/√12", {"bound": _closed_forms(rotation=math.sqrt(12) / 4)}),
        ),
        proof="docs/proofs/derived-claims.md#local-rate",
        cost="costly",
        cases=_cycles,
    )
)
