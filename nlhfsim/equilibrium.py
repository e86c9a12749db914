"""Certified equilibria: a solver's answer in each context, and certificates recomputed from it.

A solver's own word is never taken: exploitability, KL bound and residual are recomputed from the policy it returns, and the
status follows from them alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nlhfsim.errors import Array, InputError, ensure_array, ensure_choice
from nlhfsim.games.game import PreferenceGame, ensure_game
from nlhfsim.games.payoffs import Context, LowRankPayoff, n_actions
from nlhfsim.games.responses import context_exploitability, log_ratio_residual
from nlhfsim.solvers import Answer, tolerance
from nlhfsim.solvers.convex_program import solve_by_cvxpy
from nlhfsim.solvers.double_oracle import solve_by_double_oracle
from nlhfsim.solvers.interior_point import solve_by_interior_point
from nlhfsim.solvers.newton import newton, solve_by_newton

METHODS = ("auto", "cvxpy", "newton", "interior-point")
_WORST_FIRST = ("failed", "approximate", "certified")
_WHOLE = 1000
"""Up to so many actions a low-rank game at β = 0 is solved whole."""
_CVXPY = 5000
"""Up to so many actions cvxpy is asked where Newton's method fails."""


@dataclass(frozen=True)
class Equilibrium:
    """The symmetric Nash equilibrium π* of a game as a solver found it, with certificates.

    Attributes
    ----------
    policy, log_policy : numpy.ndarray
        π* in probability and log space, shape `game.policy_shape`. At β = 0 some probabilities may be 0 (``-inf`` in log space).
    exploitability : float
        E_β(π*), averaged over contexts.
    kl_bound : float or None
        E_β/β, an upper bound on KL(policy‖π*) (theory: `gap-dominates-kl`); None at β = 0.
    residual : float or None
        ``‖log π* - log BR(π*)‖_sp``, the largest over contexts; None at β = 0.
    unique : bool or None
        Whether the equilibrium is the only one (always for β > 0); None if that is not known.
    face_dimension : int or None
        Dimension of the set of equilibria, the largest over contexts; 0 if unique, None if not known.
    status : str
        ``"certified"``: residual ≤ min(max(1e-12, 8 eps/β), 1e-6), at β = 0 exploitability ≤ 1e-12. ``"approximate"``: KL bound
        ≤ 1e-4, at β = 0 exploitability ≤ 1e-6. Else ``"failed"``. The worst over contexts.
    solver_status : str
        The solver's own words.
    method : str
        The solver that gave the answer.
    exploitability_by_context : numpy.ndarray
        Shape ``(contexts,)``.
    fingerprint : str
        Fingerprint of the game that was solved.
    """

    policy: Array
    log_policy: Array
    exploitability: float
    kl_bound: float | None
    residual: float | None
    unique: bool | None
    face_dimension: int | None
    status: str
    solver_status: str
    method: str
    exploitability_by_context: Array
    fingerprint: str

    def __repr__(self) -> str:
        return f"Equilibrium({self.status}, exploitability={self.exploitability:.3g}, method={self.method!r})"


def solve(game: PreferenceGame, method: str = "auto") -> Equilibrium:
    """Return the symmetric Nash equilibrium of `game` with certificates.

    Parameters
    ----------
    game : PreferenceGame
        The game; contexts are solved one by one.
    method : str
        ``"newton"`` (β > 0: damped Newton on ``θ - log ρ - Aπ_θ/β``, continued in β where needed), ``"interior-point"`` (β =
        0: the centre of the optimal face), ``"cvxpy"`` (the reference programs: exponential cone by Clarabel for β > 0, linear
        program by HiGHS at β = 0, unpolished), or ``"auto"``: Newton or interior point by β, and cvxpy polished by Newton
        where that is not certified.

    Returns
    -------
    Equilibrium
        Look at ``.status``: a policy that is not accurate says so.

    Raises
    ------
    InputError
        If the method is unknown or does not apply at this β.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> equilibrium = nl.solve(nl.games.rock_paper_scissors(margin=0.5, bias=-0.3, beta=0))
    >>> equilibrium.policy.round(3), equilibrium.status
    (array([0.417, 0.167, 0.417]), 'certified')
    """
    ensure_game(game)
    chosen = ensure_choice("method", method, METHODS)
    if chosen == "newton" and game.beta == 0:
        raise InputError("method = 'newton' needs beta > 0; at beta = 0 use 'interior-point' or 'cvxpy'")
    if chosen == "interior-point" and game.beta > 0:
        raise InputError(f"method = 'interior-point' needs beta = 0, not {game.beta:g}; for beta > 0 use 'newton' or 'cvxpy'")
    return _assemble(game, [_solve_context(context, chosen) for context in game.contexts])


def solve_path(game: PreferenceGame, betas: npt.ArrayLike) -> list[Equilibrium]:
    """Return the equilibria of `game` at each β of `betas`, in that order.

    Each solve starts from the equilibrium at the next larger β.

    Parameters
    ----------
    game : PreferenceGame
        Its own β is not used.
    betas : array_like
        Shape ``(k,)``, each ≥ 0.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> path = nl.solve_path(nl.datasets.load(), [1.0, 0.1, 0.0])
    >>> [round(float(equilibrium.policy[1]), 3) for equilibrium in path]
    [0.206, 0.154, 0.085]
    """
    ensure_game(game)
    values = np.atleast_1d(ensure_array("betas", betas))
    if values.ndim != 1 or (values < 0).any():
        raise InputError(f"betas must be a list of numbers none of which is negative, got {np.asarray(betas).tolist()}")
    found: dict[int, Equilibrium] = {}
    warm: Array | None = None
    for index in np.argsort(-values, kind="stable"):
        at = game.with_beta(float(values[index]))
        starts = [None] * game.n_contexts if warm is None else list(warm.reshape(game.n_contexts, game.n))
        found[int(index)] = _assemble(at, [_solve_context(c, "auto", w) for c, w in zip(at.contexts, starts)])
        if at.beta > 0 and found[int(index)].status == "certified":
            warm = found[int(index)].log_policy
    return [found[i] for i in range(len(values))]


def regularized_equilibrium(context: Context, log_start: Array) -> Array:
    """Return the log-policy ``(n,)`` of the equilibrium of one context with β > 0, by Newton from a log-policy near it."""
    return solve_by_newton(context, log_start).log_policy


def _solve_context(context: Context, method: str, warm: Array | None = None) -> Answer:
    if method == "cvxpy":
        return solve_by_cvxpy(context)
    if context.beta == 0:
        return _solve_unregularized(context)
    answer = solve_by_newton(context, warm)
    if method == "newton" or log_ratio_residual(context, answer.log_policy) <= tolerance(context.beta):
        return answer
    if context.beta > 1e-9 and n_actions(context.payoff) <= _CVXPY:
        reference = solve_by_cvxpy(context)
        polished, words = newton(context, np.maximum(reference.log_policy, -1e4))
        if log_ratio_residual(context, polished) < log_ratio_residual(context, answer.log_policy):
            return Answer(polished, "cvxpy+newton", f"{reference.words}; {words}")
    if context.beta < 1e-8:
        # At so small a β the unregularized centre may be nearer than where the continuation stalled.
        centre = _solve_unregularized(context)
        if context_exploitability(context, centre.log_policy) < context_exploitability(context, answer.log_policy):
            return Answer(centre.log_policy, centre.method, f"{answer.words}; {centre.words}")
    return answer


def _solve_unregularized(context: Context) -> Answer:
    large = isinstance(context.payoff, LowRankPayoff) and n_actions(context.payoff) > _WHOLE
    return solve_by_double_oracle(context) if large else solve_by_interior_point(context)


def _assemble(game: PreferenceGame, answers: Sequence[Answer]) -> Equilibrium:
    """Recompute every certificate from the policies alone."""
    exploitabilities = np.array([float(context_exploitability(c, a.log_policy)) for c, a in zip(game.contexts, answers)])
    residuals = None
    if game.beta > 0:
        residuals = [log_ratio_residual(c, a.log_policy) for c, a in zip(game.contexts, answers)]
    statuses = [_status(game.beta, gap, None if residuals is None else residuals[k]) for k, gap in enumerate(exploitabilities)]
    status = min(statuses, key=_WORST_FIRST.index)
    log_policy = np.stack([a.log_policy for a in answers]).reshape(game.policy_shape)
    log_policy.setflags(write=False)
    policy = np.exp(log_policy)
    policy.setflags(write=False)
    exploitability = float(game.average(exploitabilities))
    dimensions = [a.face_dimension for a in answers]
    dimension = None if status == "failed" or None in dimensions else max(d for d in dimensions if d is not None)
    alone = [a.unique for a in answers]
    unique = None if status == "failed" else False if False in alone else None if None in alone else True
    return Equilibrium(
        policy=policy,
        log_policy=log_policy,
        exploitability=exploitability,
        kl_bound=exploitability / game.beta if game.beta > 0 else None,
        residual=max(residuals) if residuals is not None else None,
        unique=unique,
        face_dimension=dimension,
        status=status,
        solver_status=_distinct(a.words for a in answers),
        method=_distinct(a.method for a in answers),
        exploitability_by_context=exploitabilities,
        fingerprint=game.fingerprint,
    )


def _distinct(words: Any) -> str:
    return ", ".join(dict.fromkeys(words))


def _status(beta: float, exploitability: float, residual: float | None) -> str:
    if residual is None:
        certified, approximate = exploitability <= 1e-12, exploitability <= 1e-6
    else:
        certified, approximate = residual <= tolerance(beta), exploitability / beta <= 1e-4
    return "certified" if certified else "approximate" if approximate else "failed"
