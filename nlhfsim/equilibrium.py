"""Certified equilibria: the cvxpy programs, Newton's method with continuation in β, an interior-point method for β = 0.

A solver's own word is never taken: exploitability, KL bound and residual are recomputed from the policy it returns, and the
status follows from them alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nlhfsim.errors import Array, InputError, ensure_array, ensure_choice
from nlhfsim.games.game import PreferenceGame
from nlhfsim.games.payoffs import Context, dense
from nlhfsim.games.responses import context_exploitability, log_best_response
from nlhfsim.simplex import log_softmax, safe_log, span

METHODS = ("auto", "cvxpy", "newton", "interior-point")
_EPS = float(np.finfo(np.float64).eps)
_WORST_FIRST = ("failed", "approximate", "certified")


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
        Whether the equilibrium is the only one (always for β > 0); None if the solver failed.
    face_dimension : int or None
        Dimension of the set of equilibria, the largest over contexts; 0 if unique, None if the solver failed.
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


@dataclass(frozen=True)
class _Answer:
    """What a solver says about one context."""

    log_policy: Array
    method: str
    words: str
    face_dimension: int | None = 0


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


def tolerance(beta: float) -> float:
    """Return the log-ratio residual up to which an equilibrium at β > 0 counts as certified: max(1e-12, 8 eps/β), at most 1e-6.

    Below β = 2e-9 rounding alone exceeds the cap, so nothing is certified there.
    """
    return min(max(1e-12, 8 * _EPS / beta), 1e-6)


def log_ratio_residual(context: Context, log_policy: Array) -> float:
    """Return ``‖log μ - log BR(μ)‖_sp`` of one log-policy ``(n,)`` in a context with β > 0; 0 exactly at π*."""
    return float(span(log_policy - log_best_response(context, log_policy)))


def regularized_equilibrium(context: Context, log_start: Array) -> Array:
    """Return the log-policy ``(n,)`` of the equilibrium of one context with β > 0, by Newton from a log-policy near it."""
    return _newton_continued(context, log_start).log_policy


def _solve_context(context: Context, method: str, warm: Array | None = None) -> _Answer:
    if method == "cvxpy":
        return _cvxpy(context)
    if context.beta == 0:
        return _interior_point(context)
    answer = _newton_continued(context, warm)
    if method == "auto" and context.beta > 1e-9 and log_ratio_residual(context, answer.log_policy) > tolerance(context.beta):
        reference = _cvxpy(context)
        polished, words = newton(context, np.maximum(reference.log_policy, -1e4))
        if log_ratio_residual(context, polished) < log_ratio_residual(context, answer.log_policy):
            return _Answer(polished, "cvxpy+newton", f"{reference.words}; {words}")
    return answer


def _assemble(game: PreferenceGame, answers: Sequence[_Answer]) -> Equilibrium:
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
    return Equilibrium(
        policy=policy,
        log_policy=log_policy,
        exploitability=exploitability,
        kl_bound=exploitability / game.beta if game.beta > 0 else None,
        residual=max(residuals) if residuals is not None else None,
        unique=None if dimension is None else dimension == 0,
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


# --- Newton's method, β > 0 ---------------------------------------------------------------------------------------------------


@np.errstate(over="ignore", invalid="ignore")  # at a tiny β steps overflow, and are then refused by the backtracking
def newton(context: Context, log_start: Array, target: float = 0.0, max_iterations: int = 60) -> tuple[Array, str]:
    """Solve ``θ = log ρ + Aπ_θ/β`` (mod constants) by damped Newton from a log-policy ``(n,)``; β > 0.

    The Jacobian ``I - A J(π)/β`` has eigenvalues 1 ± iω/β (A skew, J positive semidefinite), so it is never singular, and its
    step reduces ``‖F‖²``. θ is kept normalized as log π.

    Returns the log-policy with the smallest residual seen, and why the iteration ended. It ends at a log-ratio residual ≤
    `target`, or (as always for the default 0) when rounding stops the progress.
    """
    log_policy = log_softmax(np.asarray(log_start))
    defect = _defect(context, log_policy)
    best, best_residual = log_policy, float(span(defect))
    for iteration in range(max_iterations):
        if best_residual <= target:
            return best, f"newton: residual {best_residual:.1e} after {iteration} iterations"
        step = _newton_step(context, log_policy, defect)
        log_policy, defect, damping = _backtrack(context, log_policy, defect, step)
        residual = float(span(defect))
        if residual < best_residual:
            slow = damping == 1 and residual > 0.5 * best_residual and residual < tolerance(context.beta)
            best, best_residual = log_policy, residual
            if not slow:
                continue
        return best, f"newton: residual {best_residual:.1e} after {iteration + 1} iterations"
    return best, f"newton: residual {best_residual:.1e}, stopped at {max_iterations} iterations"


def _defect(context: Context, log_policy: Array) -> Array:
    """Return F = log π - log BR(π), centred: constants do not count."""
    difference = log_policy - log_best_response(context, log_policy)
    return np.asarray(difference - difference.mean())


def _newton_step(context: Context, log_policy: Array, defect: Array) -> Array:
    import scipy.linalg

    policy = np.exp(log_policy)
    matrix = dense(context.payoff)
    jacobian = (matrix * policy - np.outer(matrix @ policy, policy)) / -context.beta
    jacobian.flat[:: len(policy) + 1] += 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)  # an inaccurate step is caught by the backtracking
        try:
            return np.asarray(scipy.linalg.solve(jacobian, -defect, overwrite_a=True, check_finite=False))
        except (scipy.linalg.LinAlgError, ValueError):
            return np.zeros_like(defect)  # singular in rounding, or overflowed at a tiny β: no progress from here


def _backtrack(context: Context, log_policy: Array, defect: Array, step: Array) -> tuple[Array, Array, float]:
    """Return the first damped step that reduces ‖F‖ enough, its defect, and the damping."""
    norm = float(defect @ defect)
    damping = 1.0
    while True:
        trial = log_softmax(log_policy + damping * step)
        trial_defect = _defect(context, trial)
        if float(trial_defect @ trial_defect) <= (1 - 0.5 * damping) * norm or damping < 1e-3:
            return trial, trial_defect, damping
        damping /= 2


def _newton_continued(context: Context, warm: Array | None) -> _Answer:
    """Try Newton directly, from `warm` or ρ; where it stalls, follow the equilibrium from large β down to the context's."""
    log_policy, words = newton(context, context.log_reference if warm is None else warm, max_iterations=30)
    if log_ratio_residual(context, log_policy) <= tolerance(context.beta):
        return _Answer(log_policy, "newton", words)
    log_policy = np.array(context.log_reference)
    level, ratio = max(3.0, 3 * context.beta), 3.0
    levels = 0
    while level > context.beta and levels < 200:
        trial = max(level / ratio, context.beta)
        final = trial == context.beta
        candidate, words = newton(context._replace(beta=trial), log_policy, 0.0 if final else 1e-6)
        accepted = log_ratio_residual(context._replace(beta=trial), candidate) <= max(1e-4, tolerance(trial))
        if accepted:
            log_policy, level, ratio = candidate, trial, min(3.0, ratio**1.5)
        else:
            ratio = ratio**0.5
        levels += 1
        if ratio < 1.01:
            break
    if level > context.beta:
        words = f"newton: rounding or a stall ended the continuation at beta = {level:.1e}"
    return _Answer(log_policy, "newton", f"{words}, continued in beta over {levels} levels")


# --- Interior point, β = 0 ----------------------------------------------------------------------------------------------------


def _interior_point(context: Context) -> _Answer:
    """Return the centre of the set of von Neumann winners of one context, and the dimension of that set."""
    matrix = dense(context.payoff)
    scale = float(np.abs(matrix).max()) or 1.0
    x, slack, early, iterations = _central_path(matrix / scale)
    words = f"interior point: {iterations} iterations"
    support = x > slack  # strict complementarity: exactly one of x_i and s_i tends to zero
    face = np.vstack([matrix[np.ix_(support, support)] / scale, np.ones(int(support.sum()))])
    dimension = int(support.sum()) - int(np.linalg.matrix_rank(face, tol=1e-9))
    candidates = [x, np.where(support, x, 0.0) / x[support].sum()]
    if dimension > 0:
        # Near the end rounding drifts along the face; an earlier point, projected onto the face, is closer to its centre.
        target = np.append(np.zeros(int(support.sum())), 1.0)
        centre = np.zeros(len(x))
        centre[support] = early[support] + np.linalg.lstsq(face, target - face @ early[support], rcond=None)[0]
        candidates.append(np.maximum(centre, 0.0) / np.maximum(centre, 0.0).sum())
    good = [c for c in candidates if (matrix @ c).max() <= max(float((matrix @ x).max()), 1e-14)]
    return _Answer(safe_log(good[-1]), "interior-point", words, dimension)


def _central_path(matrix: Array, max_iterations: int = 100) -> tuple[Array, Array, Array, int]:
    """Follow ``x_i s_i = μ``, ``s = v 1 - A x``, to μ = 0; A skew with entries of order 1.

    Return x, s, the first x with a gap below 1e-8, and the number of iterations.

    As ``xᵀAx = 0``, ``v = xᵀs`` is the duality gap. Predictor and corrector (Mehrotra, SIAM J. Optim. 2, 1992) share one
    factorization of ``diag(s/x) - A``, positive definite plus skew and so never singular.
    """
    import scipy.linalg

    n = len(matrix)
    x = np.full(n, 1.0 / n)
    value = float((matrix @ x).max()) + 0.1
    slack = value - matrix @ x
    best, best_gap, stalled = (x, slack), float(x @ slack), 0
    early: Array | None = None
    for iteration in range(max_iterations):
        system = -matrix
        system.flat[:: n + 1] += slack / x
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)
            factors = scipy.linalg.lu_factor(system, overwrite_a=True, check_finite=False)
        dx, dv, length = _predictor_corrector(matrix, factors, x, slack)
        x = x + length * dx
        x, value = x / x.sum(), value + length * dv
        slack = np.maximum(value - matrix @ x, 1e-20)
        gap = float(x @ slack)
        if not np.isfinite(gap) or (x <= 0).any():
            break
        stalled = 0 if gap < 0.5 * best_gap else stalled + 1
        if gap < best_gap:
            best, best_gap = (x, slack), gap
        if gap < 1e-8 and early is None:
            early = x
        if gap < 1e-17 or (gap < 1e-10 and stalled >= 2):
            break
    return *best, best[0] if early is None else early, iteration + 1


def _predictor_corrector(matrix: Array, factors: Any, x: Array, slack: Array) -> tuple[Array, float, float]:
    """Return the direction (dx, dv) of one interior-point iteration and how far to go along it."""
    import scipy.linalg

    n = len(x)
    ones = scipy.linalg.lu_solve(factors, np.ones(n), check_finite=False)

    def direction(target: Array) -> tuple[Array, float, Array]:
        # Linearization of x_i s_i = target_i with s = v 1 - A x and 1ᵀdx = 0.
        plain = scipy.linalg.lu_solve(factors, target / x - slack, check_finite=False)
        dv = float(plain.sum() / ones.sum())
        dx = plain - dv * ones
        return dx, dv, dv - matrix @ dx

    average = float(x @ slack) / n
    dx, _, ds = direction(np.zeros(n))
    length = min(1.0, _longest(x, dx), _longest(slack, ds))
    predicted = float((x + length * dx) @ (slack + length * ds)) / n
    centring = min(max(predicted / average, 0.0) ** 3, 1.0)
    dx, dv, ds = direction(centring * average - dx * ds)
    return dx, dv, min(1.0, 0.9995 * min(_longest(x, dx), _longest(slack, ds)))


def _longest(position: Array, direction: Array) -> float:
    """Return the longest step that keeps `position` non-negative (at most 1e6)."""
    shrinking = direction < 0
    if not shrinking.any():
        return 1e6
    return float(np.min(-position[shrinking] / direction[shrinking]))


# --- cvxpy, the reference -----------------------------------------------------------------------------------------------------


def _cvxpy(context: Context) -> _Answer:
    """Solve the convex program of one context by a general solver, unpolished."""
    import cvxpy

    cp: Any = cvxpy

    matrix = dense(context.payoff)
    policy = cp.Variable(len(matrix), nonneg=True)
    if context.beta > 0:
        inside = context.log_reference + matrix @ policy / context.beta
        # rel_entr(π, 1) - π log ρ instead of rel_entr(π, ρ): a peaked ρ then enters linearly.
        objective = cp.log_sum_exp(inside) - cp.sum(cp.entr(policy)) - context.log_reference @ policy
        options: dict[str, Any] = {"solver": cp.CLARABEL, "max_iter": 500}
        options |= {name: 1e-13 for name in ("tol_gap_abs", "tol_gap_rel", "tol_feas")}
        words = "clarabel"
    else:
        objective = cp.max(matrix @ policy)
        # HiGHS through scipy: through highspy it writes a banner to standard output.
        tight = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
        options = {"solver": cp.SCIPY, "scipy_options": {"method": "highs-ds"} | tight}
        words = "highs"
    problem = cp.Problem(cp.Minimize(objective), [cp.sum(policy) == 1])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "Solution may be inaccurate": the certificate says how inaccurate
            problem.solve(**options)
    except cp.SolverError as error:
        return _Answer(np.array(context.log_reference), "cvxpy", f"{words}: {error}", None)
    if policy.value is None:
        return _Answer(np.array(context.log_reference), "cvxpy", f"{words}: {problem.status}", None)
    floor = np.finfo(float).tiny if context.beta > 0 else 0.0
    found = np.maximum(policy.value, floor)
    dimension = 0 if context.beta > 0 else _interior_point(context).face_dimension
    return _Answer(safe_log(found / found.sum()), "cvxpy", f"{words}: {problem.status}", dimension)
