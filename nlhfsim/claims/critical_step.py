"""Claims about the critical step of self-play policy gradient that need no run: bounds on the spectrum of J(AJ - βI).

J = MMᵀ with M = D^½(I - uuᵀ), D = diag(π), u = √π, so what is not 0 in the spectrum of J(AJ - βI) is that of (Ω - βI)G with
Ω = MᵀAM skew-symmetric and G = MᵀM; the spectral radius of AJ is ‖Ω‖.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nlhfsim.claims._case import Case
from nlhfsim.claims._potential import proven_step
from nlhfsim.claims._registry import register
from nlhfsim.claims._spec import Claim, Measured, Mutant
from nlhfsim.equilibrium import solve
from nlhfsim.errors import Array
from nlhfsim.games.game import PreferenceGame
from nlhfsim.sources import PROXIMAL_POINT_NLHF

DERIVED = PROXIMAL_POINT_NLHF.at("stability of self-play policy gradient; the statement is derived in this project")
_PAGE = "docs/proofs/critical-step.md"
_NOISE = 1e-9
"""Eigenvalues below this share of the largest are rounding. λ = ik - βj has |k| ≤ j/π, so their steps are not the smallest."""


def root_of_covariance(policy: Array) -> Array:
    """Return M with MMᵀ = J(π)."""
    root = np.sqrt(policy)
    return np.asarray(root[:, None] * (np.eye(len(policy)) - np.outer(root, root)))


def rotation(advantages: Array, policy: Array) -> float:
    """Return ω, the spectral radius of AJ(π)."""
    M = root_of_covariance(policy)
    return float(np.linalg.norm(M.T @ advantages @ M, 2))


def spectral_step(advantages: Array, policy: Array, beta: float) -> Measured:
    """Return min -2 Re λ/|λ|² over the eigenvalues λ ≠ 0 of J(AJ - βI), inf if there is none; its error by Bauer and Fike."""
    M = root_of_covariance(policy)
    matrix = (M.T @ advantages @ M - beta * np.eye(len(policy))) @ (M.T @ M)
    values, vectors = np.linalg.eig(matrix)
    size = np.abs(values)
    kept = size > _NOISE * size.max(initial=0.0)
    if not kept.any():
        return Measured(np.inf)
    steps = -2 * values[kept].real / size[kept] ** 2
    blur = 8 * np.finfo(float).eps * np.linalg.norm(matrix, 2) * np.linalg.cond(vectors)
    least = int(np.argmin(steps))
    return Measured(float(steps[least]), float(6 * blur / size[kept][least] ** 2))


def _policies(case: Case) -> tuple[Array, Array, Array]:
    """Return policies that a claim about every policy is checked on: the case's, its equilibrium, and the uniform one."""
    return case.policy, case.equilibrium, np.full(case.n, 1 / case.n)


def _critical_steps(case: Case) -> Measured:
    found = [spectral_step(case.advantages, policy, case.beta) for policy in _policies(case)]
    return Measured(np.array([step.value for step in found]), np.array([step.uncertainty for step in found]))


def _least_step(factor: float = 4.0, rotation_squared: float = math.pi**-2) -> Callable[[Case], float]:
    return lambda case: factor * case.beta / (case.beta**2 + rotation_squared)


def _at_least_two(case: Case) -> str:
    return "" if case.n > 1 else "there is one action only"


register(
    Claim(
        id="rotation-at-most-one-over-pi",
        title="A J(π) turns by at most 1/π, whatever the game and the policy",
        statement=r"\omega = \varrho\bigl(A\,J(\pi)\bigr) \le 1/3.14159\ldots \quad\text{for every game and policy}",
        source=DERIVED,
        kind="upper",
        status="theorem",
        measure=lambda case: np.array([rotation(case.advantages, policy) for policy in _policies(case)]),
        bound=lambda case: 1 / math.pi,
        tolerance=1e-13,
        why="rounding of a norm",
        mutants=(
            Mutant("1/(1.05π)", {"bound": lambda case: 1 / (1.05 * math.pi)}),
            Mutant("1/4, Popoviciu's bound on the variance", {"bound": lambda case: 0.25}),
        ),
        proof=f"{_PAGE}#rotation",
    )
)
register(
    Claim(
        id="critical-step-lower-bound",
        title="SelfPlayPG: the critical step is at least 4β/(β² + 1/π²), whatever the game",
        statement=(
            r"\gamma_c = \min_{\lambda \ne 0} \frac{-2\operatorname{Re}\lambda}{|\lambda|^2} \ge "
            r"\frac{4\beta}{\beta^2 + 1/3.14159\ldots^2},"
            r"\quad \lambda \text{ of } J(AJ - \beta I),\ J = J(\pi) \text{ at any policy}"
        ),
        source=DERIVED,
        kind="lower",
        status="theorem",
        measure=_critical_steps,
        bound=_least_step(),
        tolerance=1e-12,
        why="rounding of the bound; that of the eigenvalues is bounded by Bauer and Fike",
        counts=_at_least_two,
        mutants=(
            Mutant("8 for 4", {"bound": _least_step(8.0)}),
            Mutant("1/π² halved", {"bound": _least_step(rotation_squared=0.5 / math.pi**2)}),
            Mutant("1/π² left out", {"bound": _least_step(rotation_squared=0.0)}),
        ),
        slack="attained with two equal actions as β → ∞; at small β the least seen is 72β, on the 3-cycle; the bound is 39.5β",
        proof=f"{_PAGE}#lower-bound",
    )
)

# --- over the proven step --------------------------------------------------------------------------------------------------

_SMALLEST = 0.2959999
"""s, where 2(1 - log s)/(3s(1 - 2s)) is least."""
TWO_ACTIONS = 4 * (1 + math.log(2))
THREE_ACTIONS = 2 * (1 - math.log(_SMALLEST)) / (3 * _SMALLEST * (1 - 2 * _SMALLEST))
TIGHTEST = {2: (0.5, 0.5), 3: (_SMALLEST, _SMALLEST, 1 - 2 * _SMALLEST)}
"""References at which the ratio is least as β → ∞: there π* = ρ and it is 2(1 + log(1/min ρ))/(largest eigenvalue of J(ρ))."""
_LARGE = 1e4
"""Factor to a β at which π* is nearly ρ."""


def _relatives(case: Case, actions: int) -> list[PreferenceGame]:
    """Return the game, the same at a large β, and its first few actions alone with the tightest reference at a large β."""
    matrix = case.game.preferences.reshape(case.n, case.n)[:actions, :actions]
    large = case.beta * _LARGE
    return [case.game, case.game.with_beta(large), PreferenceGame(matrix, large, TIGHTEST[actions])]


def _step_over_proven_step(actions: int) -> Callable[[Case], Measured]:
    """Return γ_c/γ₀ of the game and its relatives."""

    def measure(case: Case) -> Measured:
        found = []
        for game in _relatives(case, actions):
            at = case.at(game=game)
            step = spectral_step(at.advantages, at.equilibrium if game is case.game else solve(game).policy, game.beta)
            found.append(np.array(step) / proven_step(at))
        ratios = np.array(found)
        return Measured(ratios[:, 0], ratios[:, 1])

    return measure


def _over_proven_step(actions: int, constant: float, **what: Any) -> Claim:
    words = {2: "two", 3: "three"}[actions]
    return Claim(
        title=f"SelfPlayPG: the critical step is more than {constant:.2f} times the proven one, with {words} actions or more",
        source=DERIVED,
        kind="lower",
        measure=_step_over_proven_step(actions),
        bound=lambda case: constant,
        tolerance=1e-12,
        why="rounding; that of the eigenvalues is bounded by Bauer and Fike",
        counts=lambda case: "" if case.n >= actions else f"there are fewer than {words} actions",
        **what,
    )


register(
    _over_proven_step(
        2,
        TWO_ACTIONS,
        id="critical-step-over-proved-step",
        statement=r"\gamma_c > 4(1 + \log 2)\,\gamma_0 \quad\text{for every game of } n \ge 2",
        status="theorem",
        slack="attained as β → ∞ with two actions and uniform reference",
        mutants=(
            Mutant("1.03 of it", {"bound": lambda case: 1.03 * TWO_ACTIONS}),
            Mutant("1 + log 2 replaced by 2", {"bound": lambda case: 8.0}),
        ),
        proof=f"{_PAGE}#over-the-proven-step",
    )
)
register(
    _over_proven_step(
        3,
        THREE_ACTIONS,
        id="critical-step-over-proved-step-three-actions",
        statement=(
            r"\gamma_c > \min_s \frac{2(1 + \log(1/s))}{3s(1 - 2s)}\,\gamma_0 = 12.2405\,\gamma_0"
            r"\quad\text{for every game of } n \ge 3"
        ),
        status="theorem",
        slack="attained as β → ∞ with ρ = (s, s, 1 - 2s), s = 0.296",
        mutants=(Mutant("6(1 + log 3), that of the uniform reference", {"bound": lambda case: 6 * (1 + math.log(3))}),),
        proof=f"{_PAGE}#over-the-proven-step",
    )
)
