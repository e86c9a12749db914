"""Continuous-time limits: what a method follows as its step size goes to 0, integrated in log space."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nlhfsim import metrics
from nlhfsim.dynamics._spec import Dynamics, as_dynamics, get, names
from nlhfsim.equilibrium import Equilibrium
from nlhfsim.errors import Array, InputError, SizeError, ensure_array, ensure_between, ensure_integer, ensure_positive
from nlhfsim.games.game import PreferenceGame, ensure_game
from nlhfsim.simplex import log_softmax
from nlhfsim.execution import equilibrium_notes
from nlhfsim.plan import start_policies, target_of
from nlhfsim.simulate import warn_flat
from nlhfsim.trajectory import METRICS, Records

_LOGGER = logging.getLogger(__name__)
_RECORDS = 201
_EVALUATIONS = 300_000
"""Evaluations of the field after which a run in one context is given up; some ten seconds."""
_LARGEST_GAME = 5000
_LARGEST = 1e12
"""Size of θ at which its rounding, 1e-4, would show in π."""


@dataclass(frozen=True)
class Flow(Records):
    """The records of a method's continuous-time limit on one game, the counterpart of a `Trajectory`.

    Attributes
    ----------
    times : numpy.ndarray
        Shape ``(records,)``, from 0 on: the sum of the step sizes that a run with infinitely small steps would have spent.
    kl, exploitability, gap0, span, min_probability : numpy.ndarray
        Shape ``(runs, records)``, as in `Trajectory`. NaN after a run failed and where `notes` says so.
    by_context : dict of numpy.ndarray
        The same metrics, each of shape ``(runs, records, contexts)``.
    weights : numpy.ndarray
        The game's weights of its contexts, shape ``(contexts,)``.
    logits : numpy.ndarray
        θ_t with π_t = softmax(θ_t), shape ``(runs, records, [contexts,] n)``. Beside π_t it shows what the method does with
        constants: the limits of gradient steps conserve Σθ, those of mirror steps keep θ = log π.
    log_policies : numpy.ndarray
        log π_t, shape ``(runs, records, [contexts,] n)``.
    status : tuple of str
        One a run: ``"completed"``, or ``"failed"`` where the integrator had to give up.
    notes : tuple of str
        What a reader of the numbers should know.
    dynamics, params : str, dict
        The method's name, and its parameters beside the step size.
    seed : int
        As asked for.
    fingerprint : str
        Fingerprint of the game.
    rtol, atol : float
        Tolerances of the integration, in units of θ.
    """

    times: Array
    by_context: dict[str, Array]
    weights: Array
    logits: Array
    log_policies: Array
    status: tuple[str, ...]
    notes: tuple[str, ...]
    dynamics: str
    params: dict[str, Any]
    seed: int
    fingerprint: str
    rtol: float
    atol: float

    @property
    def parameters(self) -> Array:
        """The last θ, shape ``(runs, [contexts,] n)``."""
        return self.logits[:, -1]

    @property
    def final(self) -> Array:
        """The last policies, probability space, shape ``(runs, [contexts,] n)``."""
        return np.exp(self.log_policies[:, -1])

    def __repr__(self) -> str:
        shown = ", ".join(sorted(set(self.status)))
        return f"Flow({self.dynamics}, runs={self.runs}, time={self.times[-1]:g}, records={len(self.times)}, {shown})"

    def first_passage(self, metric: str = "kl", eps: float = 1e-6) -> Array:
        """Return the first recorded time at which `metric` was at or below `eps` > 0, shape ``(runs,)``; ``inf`` if never."""
        return metrics.first_passage(self.times, self.metric(metric), eps)

    def fit_rate(self, metric: str = "kl", *, floor: float | None = None) -> Array:
        """Return the fitted factor of `metric` per unit of time, shape ``(runs,)``; see `nlhfsim.metrics.fit_rate`.

        Parameters
        ----------
        metric : str
            ``"kl"``, ``"exploitability"``, …
        floor : float, optional
            Values at or below it are not fitted. Default: (10 (rtol + atol))², where errors of the integration show in KL.
        """
        chosen = max(1e-26, (10 * (self.rtol + self.atol)) ** 2) if floor is None else floor
        return metrics.fit_rate(self.times, self.metric(metric), floor=chosen)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame, a row a run and record. Needs the ``data`` extra."""
        return self._frame(("times",))


def flow(
    game: PreferenceGame,
    method: Any,
    time: npt.ArrayLike,
    *,
    start: npt.ArrayLike | str | None = None,
    runs: int = 1,
    seed: int = 0,
    records: int | None = None,
    rtol: float = 1e-10,
    atol: float = 1e-10,
    equilibrium: Equilibrium | bool | None = None,
) -> Flow:
    """Integrate the continuous-time limit of a method, dθ/dt = lim (θ⁺ - θ)/γ as its step size γ → 0.

    A run of `simulate` with a small γ is at step k near the flow at time t = γk, up to O(γ) (where a step uses several step
    sizes, as in `ProximalPG`, t is their sum). The method's file derives its limit: for gradient steps ``J(π)u``, for mirror
    steps ``u``, the regularized replicator, with ``u = Aπ - β(θ - log ρ)``.

    Parameters
    ----------
    game : PreferenceGame
        The game; its contexts are integrated side by side.
    method : Dynamics, factory or str
        As in `simulate`; its step size does not matter.
    time : float or array_like
        The final time > 0, or the times to record, increasing and at least 0. Time 0 is always recorded.
    start, runs, seed
        As in `simulate`: ``"reference"`` (default), ``"uniform"``, ``"random"``, one policy, or one policy a run.
    records : int, optional
        Number of evenly spaced records, at least 2, where `time` is one number. Default: 201.
    rtol, atol : float
        Tolerances of each step of the integration in θ, so `atol` is a relative error of probabilities; 1e-13 ≤ `rtol` ≤ 0.01.
        Over long times errors add up; beside a stable equilibrium KL ends near the square of the tolerances instead of at 0.
    equilibrium : Equilibrium or False, optional
        The solved equilibrium, so that it is not solved again; False: do without, KL is then NaN.

    Returns
    -------
    Flow
        Records, policies, status. A run in which the integrator gives up (too stiff, not finite) has status ``"failed"`` and a
        note; its later records are NaN.

    Warns
    -----
    EquilibriumStartWarning
        If a run starts at the equilibrium already.

    Raises
    ------
    InputError
        If an argument is not as described, or the method has no continuous-time limit.

    Notes
    -----
    Integrated by LSODA (Petzold, 1983; `scipy.integrate.LSODA`), which turns to implicit steps where a large β makes the field
    stiff. Along ``J(π)u`` the function ``Σ π*_y exp(-θ_y)`` decreases and π converges to π* for every β > 0 from everywhere;
    along ``u``, ``KL(π*‖π_t) ≤ exp(-βt) KL(π*‖π_0)``.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.games.rock_paper_scissors(margin=0.5, beta=0.1)
    >>> natural = nl.flow(game, "NaturalPG", 50, start=[0.8, 0.1, 0.1])
    >>> natural.status, bool(natural.kl[0, -1] < natural.kl[0, 0] * 2.72 ** (-0.1 * 50))
    (('completed',), True)
    """
    ensure_game(game)
    dynamics = with_flow(method)
    times = _record_times(time, records)
    relative, absolute = ensure_between("rtol", rtol, 1e-13, 1e-2), ensure_positive("atol", atol)
    if game.n > _LARGEST_GAME:
        raise SizeError(
            f"the flow of {game.n} actions is out of reach: the integrator keeps n² numbers, for at most {_LARGEST_GAME} actions"
        )
    target, without = target_of(game, equilibrium)
    if isinstance(start, Records):
        raise InputError(f"start is a {type(start).__name__}; give its policies: start=before.final")
    whole_seed = ensure_integer("seed", seed)
    starts = start_policies(game, start, ensure_integer("runs", runs, 1), whole_seed)
    logits, notes = _integrated(game, dynamics, starts, times, relative, absolute)
    failed = [bool(np.isnan(rows).any()) for rows in logits]
    with np.errstate(all="ignore"):
        log_policies = log_softmax(logits)
        by_context = _measured(game, log_policies, target)
    shape = (*logits.shape[:2], *game.policy_shape)
    result = Flow(
        times=times,
        by_context=by_context,
        weights=np.array(game.weights),
        logits=logits.reshape(shape),
        log_policies=log_policies.reshape(shape),
        status=tuple("failed" if bad else "completed" for bad in failed),
        notes=(*notes, *equilibrium_notes(target, without)),
        dynamics=dynamics.name,
        params={name: value for name, value in dynamics.parameters.items() if name != dynamics.method.scheduled},
        seed=whole_seed,
        fingerprint=game.fingerprint,
        rtol=relative,
        atol=absolute,
    )
    warn_flat(result)
    return result


def with_flow(method: Any) -> Dynamics:
    """Return a method as `Dynamics`, or raise `InputError` if it has no continuous-time limit."""
    dynamics = as_dynamics(method)
    if dynamics.method.flow is None:
        known = ", ".join(name for name in names() if get(name).method.flow is not None)
        raise InputError(f"method = {dynamics.name} has no continuous-time limit; choose one of {known}")
    return dynamics


def _record_times(time: Any, records: int | None) -> Array:
    """Return the times to record, 0 the first."""
    given = ensure_array("time", time)
    if given.ndim == 0:
        count = _RECORDS if records is None else ensure_integer("records", records, 2)
        return np.linspace(0.0, ensure_positive("time", time), count)
    if records is not None:
        raise InputError(f"records = {records} must not be given with an array of times, which says itself when to record")
    if given.ndim != 1 or given.size == 0:
        raise InputError(f"time has shape {given.shape}, must be one number or increasing times of shape (records,)")
    if given[0] < 0:
        raise InputError(f"time[0] = {given[0]:g} must not be negative")
    for k in np.flatnonzero(np.diff(given) <= 0):
        raise InputError(f"time[{k + 1}] = {given[k + 1]:g} must be above time[{k}] = {given[k]:g}: times increase")
    times = given if given[0] == 0 else np.concatenate([[0.0], given])
    if len(times) == 1:
        raise InputError("time = [0] must hold a positive time")
    return times


def _integrated(
    game: PreferenceGame, dynamics: Dynamics, starts: Array, times: Array, rtol: float, atol: float
) -> tuple[Array, list[str]]:
    """Return θ of every run in every context, shape ``(runs, records, contexts, n)``, and a note on each that failed."""
    logits = np.full((len(starts), len(times), game.n_contexts, game.n), np.nan)
    notes = []
    for run, rows in enumerate(starts):
        _LOGGER.info("flow of %s: run %d of %d", dynamics.name, run + 1, len(starts))
        for k, row in enumerate(rows):
            logits[run, :, k], trouble = _integrate(_field(game, dynamics, k, row), times, row, rtol, atol)
            if trouble is not None:
                notes.append(f"run {run}: {trouble}; records after that are NaN")
    return logits, notes


class _GivenUp(Exception):
    """Raised inside the field to end an integration."""


def _field(game: PreferenceGame, dynamics: Dynamics, k: int, start: Array) -> Callable[[float, Array], Array]:
    """Return the field of a method in context k as the integrator wants it; it ends the integration where it must."""
    limit, context, params = dynamics.method.flow, game.contexts[k], dynamics.params
    assert limit is not None
    shape = np.shape(limit(context, params, np.array(start)))
    if shape != start.shape:
        raise InputError(f"the flow of {dynamics.name} returns an array of shape {shape}, must be {start.shape}")
    evaluations = 0

    def field(t: float, logits: Array) -> Array:
        nonlocal evaluations
        evaluations += 1
        if evaluations > _EVALUATIONS:
            raise _GivenUp(f"{_EVALUATIONS} evaluations of the field were not enough: shorten the time or loosen rtol and atol")
        velocity = limit(context, params, logits)
        if not (np.isfinite(velocity).all() and np.abs(logits).max() < _LARGEST):
            raise _GivenUp(f"the logits went beyond {_LARGEST:g} or their velocity stopped being finite")
        return velocity

    return field


def _integrate(
    field: Callable[[float, Array], Array], times: Array, start: Array, rtol: float, atol: float
) -> tuple[Array, str | None]:
    """Return θ at the times, shape ``(records, n)``, NaN from where the integrator gave up, and the reason if it did."""
    from scipy.integrate import LSODA

    logits = np.full((len(times), len(start)), np.nan)
    logits[0], done, now = start, 1, 0.0
    with np.errstate(all="ignore"), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            solver = LSODA(field, times[0], np.array(start), times[-1], rtol=rtol, atol=atol)
            while done < len(times):
                solver.step()
                if solver.t <= now:
                    break
                now = float(solver.t)
                reached = int(np.searchsorted(times, now, side="right"))
                if reached > done:
                    logits[done:reached] = solver.dense_output()(times[done:reached]).T
                    done = reached
            trouble = str(said[-1].message).rstrip(".") if said else "the step became too small"
        except _GivenUp as reason:
            trouble = str(reason)
    return logits, None if done == len(times) else f"the integrator gave up at time {now:.6g} ({trouble})"


def _measured(game: PreferenceGame, log_policies: Array, target: Equilibrium | None) -> dict[str, Array]:
    """Return every metric of log-policies ``(runs, records, contexts, n)``, each of shape ``(runs, records, contexts)``."""
    log_equilibria: Any = [None] * game.n_contexts
    if target is not None and target.status != "failed":
        log_equilibria = target.log_policy.reshape(game.n_contexts, game.n)
    measured = [metrics.of_context(c, log_policies[:, :, k], log_equilibria[k])[0] for k, c in enumerate(game.contexts)]
    return {name: np.stack([values[name] for values in measured], axis=-1) for name in METRICS}
