"""Which constant steps are locally stable, and which of them is best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nlhfsim.dynamics._spec import Dynamics
from nlhfsim.equilibrium import Equilibrium
from nlhfsim.errors import Array, InputError, ensure_positive
from nlhfsim.games.game import PreferenceGame
from nlhfsim.stability._local import Subject, subject

_A_DECADE = 24
_COARSE = 8
_HIGHEST = 1e12
_CLIP = 1e3
_FLAT = 1e-10
_POLISHED = 3
_NEAR, _TOLD = 1e-2, 1e-3


class BestStep(NamedTuple):
    """The constant step with the fastest local convergence; see `best_step`.

    Attributes
    ----------
    step_size : float
        γ.
    rate : float
        The factor a step; 1 or more if no step is stable.
    time_constant : float
        ``-calls/log(rate)``: oracle calls in which deviations shrink by e; infinite if no step is stable.
    """

    step_size: float
    rate: float
    time_constant: float


def critical_step(game: PreferenceGame, method: Any, *, equilibrium: Equilibrium | None = None) -> float:
    """Return the smallest constant step at which the local radius reaches 1; 0 if small steps are unstable, inf if none is.

    Parameters
    ----------
    game, equilibrium
        As in `linearize`.
    method : Dynamics, factory or str
        Its own step size is not used, its other parameters are kept.

    Returns
    -------
    float
        γ_c, looked for from a thousandth of 1/(β + 0.1/β) up to 1e12. Stability may come back at larger steps: see
        `stable_ranges`. An eigenvalue counts as unstable once |λ|² - 1 is more than rounding, by its condition number, makes
        of 0.

    Raises
    ------
    InputError
        As `linearize`; if the method has no step size; if rounding leaves γ_c uncertain by more than a thousandth, as it does on
        the uniform 3-cycle below β = 3e-7.

    Notes
    -----
    Theory of this project: `critical-step`, `omd-critical-step`, `nash-md-threshold`. `SelfPlayPG` on the uniform 3-cycle: γ_c =
    6β/(β² + 1/12); `NaturalPG` on every game: 2β/(β² + ω²), ω ≤ 1/π the spectral radius of A J(π*).

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.games.rock_paper_scissors(margin=0.5, beta=0.1)
    >>> round(nl.stability.critical_step(game, nl.dynamics.SelfPlayPG), 4)
    6.4286
    >>> nl.stability.critical_step(game, nl.dynamics.ProximalPoint)
    inf
    """
    about = _with_steps(game, method, equilibrium)
    begin = low = search_range(about.beta)[0]
    while begin < _HIGHEST:
        # Decade by decade, each begun a little early: an extremum at its end is one inside the next.
        first, end = max(begin * 10**-0.1, low), 10 * begin
        ranges = _stable(about, first, end)
        if not ranges or ranges[0][0] > first:
            return 0.0 if begin == low else first
        if ranges[0][1] < end:
            return ranges[0][1]
        begin = end
    return float("inf")


def stable_ranges(
    game: PreferenceGame,
    method: Any,
    low: float | None = None,
    high: float | None = None,
    *,
    equilibrium: Equilibrium | None = None,
) -> list[tuple[float, float]]:
    """Return the intervals of constant steps between `low` and `high` that are locally stable.

    Parameters
    ----------
    game, method, equilibrium
        As in `critical_step`.
    low, high : float, optional
        Where to look. Default: from a thousandth of 1/(β + 0.1/β), below every known limit, to 1,000 (1 + 1/β).

    Returns
    -------
    list of (float, float)
        In increasing order. Ends other than `low` and `high` are roots of radius = 1 (Brent's method), which 24 steps a decade,
        refined at extrema between them, bracket.

    Raises
    ------
    InputError
        As `critical_step`, for every end; if `low` is not below `high`.

    Examples
    --------
    `NashMD` at β = 0.01 is unstable in a window, (1 - γβ)²(1 + γ²/12) > 1:

    >>> import nlhfsim as nl
    >>> game = nl.games.rock_paper_scissors(margin=0.5, beta=0.01)
    >>> [(round(a, 3), round(b, 3)) for a, b in nl.stability.stable_ranges(game, nl.dynamics.NashMD, 0.001, 100)]
    [(0.001, 0.241), (96.409, 100.0)]
    """
    about = _with_steps(game, method, equilibrium)
    begin, end = search_range(about.beta)
    begin = begin if low is None else ensure_positive("low", low)
    end = end if high is None else ensure_positive("high", high)
    _ensure_order(begin, end)
    return _stable(about, begin, end)


def best_step(
    game: PreferenceGame,
    method: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    equilibrium: Equilibrium | None = None,
) -> BestStep:
    """Return the constant step with the fastest local convergence per oracle call.

    Parameters
    ----------
    game, method, equilibrium
        As in `critical_step`.
    low, high : float, optional
        Where to look. Default: as `stable_ranges`. If the radius still falls at an end, that end is returned.

    Returns
    -------
    BestStep
        Step, factor a step, time constant in oracle calls. The radius is the largest of several branches, so it has kinks and
        more than one minimum: 24 steps a decade are looked at, and the best three minima polished.

    Raises
    ------
    InputError
        As `critical_step`; if the method counts no oracle calls.

    Examples
    --------
    `NaturalPG`: ``|1 - γβ + iγω|`` is smallest at γ = β/(β² + ω²), where it is ``ω/√(β² + ω²)``:

    >>> import nlhfsim as nl
    >>> best = nl.stability.best_step(nl.games.rock_paper_scissors(margin=0.5, beta=0.1), nl.dynamics.NaturalPG)
    >>> round(best.step_size, 4), round(best.rate, 4), round(best.time_constant, 2)
    (1.0714, 0.9449, 17.65)
    """
    about = _with_steps(game, method, equilibrium)
    begin, end = search_range(about.beta)
    begin = begin if low is None else ensure_positive("low", low)
    end = end if high is None else ensure_positive("high", high)
    _ensure_order(begin, end)
    return fastest(about, begin, end)


def fastest(about: Subject, low: float, high: float, a_decade: int = _A_DECADE, polish: bool = True) -> BestStep:
    """Return the best step of a method that is ready to be linearized."""
    from scipy.optimize import minimize_scalar

    calls = about.dynamics.method.oracle_calls
    if calls is None:
        raise InputError(f"{about.dynamics.name} has no best step: the oracle calls of its inner solver are not counted")
    logs = _grid(low, high, a_decade)

    def objective(log_step: float) -> float:
        return max(about.log_radius(float(np.exp(log_step))), -700.0)

    values = np.array([objective(log) for log in logs])
    candidates = [(float(values[k]), float(logs[k])) for k in _minima(values)[:_POLISHED]]
    for k in _minima(values)[:_POLISHED] if polish else []:
        bounds = (logs[max(k - 1, 0)], logs[min(k + 1, len(logs) - 1)])
        if np.isfinite(values[k]):
            found = minimize_scalar(objective, bounds=bounds, method="bounded", options={"xatol": 1e-9})
            candidates.append((float(found.fun), float(found.x)))
    value, log_step = min(candidates)
    constant = -calls(about.dynamics.params) / value if value < 0 else float("inf")
    return BestStep(float(np.exp(log_step)), float(np.exp(value)), constant)


def best_of(game: PreferenceGame, variants: Sequence[Dynamics], equilibrium: Equilibrium | None) -> tuple[Dynamics, BestStep]:
    """Return the variant of a method with the smallest time constant, and its best step; a coarse look chooses the variant."""
    ready = [_with_steps(game, variant, equilibrium) for variant in variants]
    low, high = search_range(ready[0].beta)
    chosen = 0
    if len(ready) > 1:
        coarse = [fastest(about, low, high, _COARSE, polish=False).time_constant for about in ready]
        chosen = int(np.argmin(coarse))
    return variants[chosen], fastest(ready[chosen], low, high)


def search_range(beta: float) -> tuple[float, float]:
    """Return the steps between which limits are looked for."""
    return (1e-3 * beta / (beta**2 + 0.1), 1e3 * (1 + 1 / beta)) if beta > 0 else (0.1, 1e3)


def _with_steps(game: PreferenceGame, method: Any, equilibrium: Equilibrium | None) -> Subject:
    about = subject(game, method, equilibrium)
    if about.dynamics.method.scheduled is None:
        raise InputError(f"{about.dynamics.name} has no step size, so none is critical or best; see local_rate")
    # What is wrong with the method is said here, and not taken for instability: at a small step and at its own.
    chosen, safe = about.dynamics.step_size, about.dynamics.method.safe_step
    own = chosen if isinstance(chosen, float) else None
    for k, context in enumerate(game.contexts):
        about.at(search_range(about.beta)[0], k)
        if own is not None or safe is not None:
            about.at(own or safe(context, about.dynamics.params), k)  # type: ignore[misc]
    return about


def _ensure_order(low: float, high: float) -> None:
    if low >= high:
        raise InputError(f"low = {low:g} must be below high = {high:g}")


def _grid(low: float, high: float, a_decade: int) -> Array:
    return np.linspace(np.log(low), np.log(high), max(int(np.ceil(np.log10(high / low) * a_decade)), 2) + 1)


def _minima(values: Array) -> list[int]:
    """Return where a sequence has its local minima, the smallest first."""
    padded = np.concatenate([[np.inf], values, [np.inf]])
    at = np.flatnonzero((padded[1:-1] <= padded[:-2]) & (padded[1:-1] <= padded[2:]))
    return sorted(at.tolist(), key=lambda k: float(values[k]))


def _stable(about: Subject, low: float, high: float) -> list[tuple[float, float]]:
    from scipy.optimize import brentq

    def margin(log_step: float) -> float:
        step_size = float(np.exp(log_step))
        return min(about.beyond_rounding(step_size)[0], _CLIP)

    logs = _grid(low, high, _A_DECADE)
    logs, values = _refined(margin, logs, np.array([margin(log) for log in logs]))
    stable = values <= 0
    turns = np.flatnonzero(stable[1:] != stable[:-1])
    roots = [float(np.exp(brentq(margin, logs[k], logs[k + 1], xtol=1e-12))) for k in turns]
    for root in roots:
        _ensure_told(about, root)
    ends = [low, *roots, high]
    first = 0 if stable[0] else 1
    return [(ends[k], ends[k + 1]) for k in range(first, len(ends) - 1, 2)]


def _ensure_told(about: Subject, root: float) -> None:
    """Refuse a limit of stability that rounding moves by more than a thousandth."""
    near, allowed = [about.beyond_rounding(root * factor)[0] for factor in (1 - _NEAR, 1 + _NEAR)], about.beyond_rounding(root)[1]
    slope = abs(near[1] - near[0]) / (2 * _NEAR)
    if allowed > _TOLD * slope:
        exact = "; nlhfsim.stability.self_play_spectrum has its closed form" if about.dynamics.name == "SelfPlayPG" else ""
        raise InputError(
            f"beta = {about.beta:g} is too small to tell a limit of stability of {about.dynamics.name}: near the step {root:.3g} "
            f"|λ|² - 1 is of the size of rounding, {allowed:.1e}{exact}"
        )


def _refined(margin: Callable[[float], float], logs: Array, values: Array) -> tuple[Array, Array]:
    """Add the extrema between grid points at which the sign changes after all: windows narrower than the grid."""
    from scipy.optimize import minimize_scalar

    found = []
    for sign in (1.0, -1.0):
        flipped = sign * values
        for k in _minima(flipped):
            near = flipped[[max(k - 1, 0), min(k + 1, len(logs) - 1)]]
            if 0 < k < len(logs) - 1 and flipped[k] > 0 and near.max() - flipped[k] > _FLAT and flipped[k] < 0.5:
                best = minimize_scalar(lambda x: sign * margin(x), bounds=(logs[k - 1], logs[k + 1]), method="bounded")
                if best.fun <= 0:
                    found.append((float(best.x), sign * float(best.fun)))
    points = sorted([*zip(logs.tolist(), values.tolist()), *found])
    return np.array([x for x, _ in points]), np.array([y for _, y in points])
