"""Solvers of the equilibrium: this package's, and those of other libraries as their users would call them.

Each takes a skew matrix of advantages (and log ρ and β where there is regularization) and returns a policy.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from typing import Any
from unittest import mock

import numpy as np

import nlhfsim as nl
from benchmarks._measure import Floats
from benchmarks.rivals import library

CLARABEL_SECONDS = 120.0


class NoAnswerError(Exception):
    """A solver gave no policy; the message is its own words."""


def exploitability(advantages: Floats, policy: Floats) -> float:
    """Return the largest gain against a policy, ``max_y (Aπ)_y``, from its definition."""
    return float((advantages @ policy).max())


def residual(advantages: Floats, log_reference: Floats, beta: float, log_policy: Floats) -> float:
    """Return the span of ``log π - log ρ - Aπ/β``, which is 0 exactly at the regularized equilibrium."""
    # A zero probability counts as the smallest number, so that the residual is large but finite.
    finite = np.maximum(log_policy, np.log(np.finfo(float).tiny))
    return float(np.ptp(finite - log_reference - advantages @ np.exp(log_policy) / beta))


def regularized_exploitability(advantages: Floats, log_reference: Floats, beta: float, log_policy: Floats) -> float:
    """Return ``β log Σ ρ exp(Aμ/β) + β KL(μ‖ρ)`` as it stands, good to about 1e-16."""
    policy = np.exp(log_policy)
    inside = log_reference + advantages @ policy / beta
    largest = inside.max()
    log_total = largest + np.log(np.exp(inside - largest).sum())
    positive = policy > 0
    distance = (policy[positive] * (log_policy - log_reference)[positive]).sum()
    return float(beta * (log_total + distance))


# β = 0


def nlhfsim_at_zero(advantages: Floats) -> Floats:
    """``nl.solve``."""
    return np.asarray(nl.solve(nl.PreferenceGame(advantages + 0.5, 0.0)).policy)


def highs_ipm(advantages: Floats) -> Floats:
    """The maximin linear program by scipy's ``highs-ipm``: minimize v subject to Aπ ≤ v, π in the simplex."""
    return _linear_program(advantages, "highs-ipm")


def highs_simplex(advantages: Floats) -> Floats:
    """The same by scipy's ``highs-ds``."""
    return _linear_program(advantages, "highs-ds")


def _linear_program(advantages: Floats, method: str) -> Floats:
    optimize: Any = importlib.import_module("scipy.optimize")
    n = len(advantages)
    found = optimize.linprog(
        np.append(np.zeros(n), 1.0),
        A_ub=np.hstack([advantages, -np.ones((n, 1))]),
        b_ub=np.zeros(n),
        A_eq=np.append(np.ones(n), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, None)] * n + [(None, None)],
        method=method,
    )
    if found.x is None:
        raise NoAnswerError(found.message)
    return _cleaned(found.x[:n])


def nashpy_linear_program(advantages: Floats) -> Floats:
    """nashpy's ``linear_program``."""
    return _cleaned(library("nashpy").Game(advantages).linear_program()[0])


def quantecon_minmax(advantages: Floats) -> Floats:
    """QuantEcon's ``minmax``, a compiled simplex method for zero-sum games."""
    return _cleaned(library("quantecon.optimize.minmax").minmax(advantages)[1])


def quantecon_lemke_howson(advantages: Floats) -> Floats:
    """QuantEcon's ``lemke_howson``."""
    theory = library("quantecon.game_theory")
    players = theory.Player(advantages), theory.Player(np.ascontiguousarray(-advantages.T))
    return _cleaned(theory.lemke_howson(theory.NormalFormGame(players))[0])


def open_spiel_lp(advantages: Floats) -> Floats:
    """OpenSpiel's ``solve_zero_sum_matrix_game``, by Clarabel: its default solver, ECOS, no longer comes with cvxpy."""
    pyspiel = library("pyspiel")
    lp_solver = library("open_spiel.python.algorithms.lp_solver")
    by_clarabel = functools.partialmethod(lp_solver.LinearProgram.solve, solver="CLARABEL", solver_kwargs={})
    game = pyspiel.create_matrix_game(advantages, -advantages)
    with mock.patch.object(lp_solver.LinearProgram, "solve", by_clarabel):
        return _cleaned(np.ravel(lp_solver.solve_zero_sum_matrix_game(game)[0]))


def pygambit_lp(advantages: Floats) -> Floats:
    """Gambit's ``lp_solve`` in floating point."""
    gambit = library("pygambit")
    game = gambit.Game.from_arrays(advantages, -advantages)
    profile = gambit.nash.lp_solve(game, rational=False).equilibria[0]
    row = next(iter(game.players))
    return _cleaned([weight for _strategy, weight in profile[row]])


# β > 0


def nlhfsim_regularized(advantages: Floats, log_reference: Floats, beta: float) -> Floats:
    """``nl.solve``; returns the log-policy."""
    return np.asarray(nl.solve(nl.PreferenceGame(advantages + 0.5, beta, np.exp(log_reference))).log_policy)


def clarabel(advantages: Floats, log_reference: Floats, beta: float) -> Floats:
    """The convex program of section 1 of the theory by cvxpy and Clarabel at its default tolerances; the log-policy."""
    cp = library("cvxpy")
    policy = cp.Variable(len(advantages), nonneg=True)
    inside = log_reference + advantages @ policy / beta
    objective = cp.log_sum_exp(inside) - cp.sum(cp.entr(policy)) - log_reference @ policy
    problem = cp.Problem(cp.Minimize(objective), [cp.sum(policy) == 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the answer may be inaccurate is measured
        try:
            problem.solve(solver=cp.CLARABEL, time_limit=CLARABEL_SECONDS)
        except cp.SolverError as error:
            raise NoAnswerError(str(error).split("\n")[0][:80]) from None
    if policy.value is None:
        raise NoAnswerError(problem.status)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(_cleaned(policy.value)))


def scipy_root(advantages: Floats, log_reference: Floats, beta: float) -> Floats:
    """``scipy.optimize.root`` (Powell's hybrid method) on θ - log ρ - Aπ_θ/β with its Jacobian, from ρ; the log-policy."""
    from scipy.optimize import root

    def equation(logits: Floats) -> tuple[Floats, Floats]:
        policy = np.exp(logits - logits.max())
        policy /= policy.sum()
        scaled = advantages / beta
        jacobian = np.eye(len(policy)) - scaled * policy + np.outer(scaled @ policy, policy)
        return logits - log_reference - scaled @ policy, jacobian

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # overflow on its way; what it reaches is measured
        found: Any = root(equation, log_reference, jac=True, method="hybr", tol=1e-12)
    logits = found.x - found.x.max()
    return np.asarray(logits - np.log(np.exp(logits).sum()))


def _cleaned(policy: Any) -> Floats:
    """Return a solver's vector as a policy: what is below zero by rounding is zero, and the sum is 1."""
    found = np.maximum(np.asarray(policy, dtype=np.float64), 0.0)
    return np.asarray(found / found.sum())
