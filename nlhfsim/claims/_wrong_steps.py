"""Wrong steps of one method each: bugs that were published, or nearly so, written in probability space where that is short."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from nlhfsim.dynamics import LogPolicy
from nlhfsim.dynamics._averaging import matched
from nlhfsim.dynamics._spec import Method
from nlhfsim.equilibrium import regularized_equilibrium
from nlhfsim.errors import Array
from nlhfsim.games.payoffs import Context, advantage
from nlhfsim.simplex import log_softmax

Change = Callable[[Method], Method]
Step = Callable[..., Any]


def plain(method: Method, **changes: Any) -> Method:
    """Return a method with other functions, without what was written for its own ones."""
    return replace(method, compiled=False, kernel=None, together=False, pairs=None, **changes)


def instead(step: Step) -> Change:
    """The step is another one."""
    return lambda method: plain(method, step=step)


def amiss(spoil: Callable[[Context, Any, Any], Any]) -> Change:
    """What the right step returns is spoiled: ``spoil(context, before, after) -> state``."""

    def wrong(method: Method) -> Method:
        def step(state: Any, context: Context, step_size: Any, params: Any) -> Any:
            return spoil(context, state, method.step(state, context, step_size, params))

        return plain(method, step=step)

    return wrong


def _policy(logits: Array) -> Array:
    return np.exp(log_softmax(logits))


def _gain(context: Context, logits: Array) -> Array:
    return advantage(context.payoff, _policy(logits))


def _pull(context: Context, logits: Array) -> Array:
    return np.asarray(context.beta * (logits - context.log_reference))


def _moved(logits: Array, change: Array) -> LogPolicy:
    return LogPolicy(log_softmax(logits + change))


# --- mirror steps ---------------------------------------------------------------------------------------------------------


def _mixture(context: Context, logits: Array, share: float) -> Array:
    return log_softmax((1 - share) * logits + share * context.log_reference)


def _arithmetic(context: Context, logits: Array, share: float) -> Array:
    return np.asarray(np.log((1 - share) * _policy(logits) + share * np.exp(context.log_reference)))


def _nash_md_arithmetic(state: Any, context: Context, step_size: float, params: Any) -> LogPolicy:
    mixture = _arithmetic(context, state.logits, step_size * context.beta)
    return _moved(mixture, step_size * _gain(context, mixture))


def _nash_md_self_play(state: Any, context: Context, step_size: float, params: Any) -> LogPolicy:
    return _moved(_mixture(context, state.logits, step_size * context.beta), step_size * _gain(context, state.logits))


def _nash_md_from_policy(state: Any, context: Context, step_size: float, params: Any) -> LogPolicy:
    return _moved(state.logits, step_size * _gain(context, _mixture(context, state.logits, step_size * context.beta)))


def _ahead(state: Any, context: Context, step_size: float) -> Array:
    return _moved(state.logits, step_size * (_gain(context, state.logits) - _pull(context, state.logits))).logits


def _extragradient_moving(state: Any, context: Context, step_size: float, params: Any) -> LogPolicy:
    half = _ahead(state, context, step_size)
    return _moved(state.logits, step_size * (_gain(context, half) - _pull(context, half)))


def _extragradient_from_half(state: Any, context: Context, step_size: float, params: Any) -> LogPolicy:
    half = _ahead(state, context, step_size)
    return _moved(half, step_size * (_gain(context, half) - _pull(context, state.logits)))


def _extragradient_dropped(state: Any, context: Context, step_size: float, params: Any) -> LogPolicy:
    return _moved(state.logits, step_size * _gain(context, _ahead(state, context, step_size)))


def _prox(logits: Array, gain: Array, context: Context, step_size: float) -> Array:
    share = 1 / (1 + step_size * context.beta)
    return log_softmax(share * logits + (1 - share) * context.log_reference + share * step_size * gain)


def _no_look_ahead(state: Any, context: Context, step_size: float, params: Any) -> LogPolicy:
    return LogPolicy(_prox(state.logits, _gain(context, state.logits), context, step_size))


def _prox_from_half(state: Any, context: Context, step_size: float, params: Any) -> LogPolicy:
    half = _prox(state.logits, _gain(context, state.logits), context, step_size)
    return LogPolicy(_prox(half, _gain(context, half), context, step_size))


def _optimistic_from_half(state: Any, context: Context, step_size: float, params: Any) -> Any:
    half = _prox(state.logits, state.gain, context, step_size)
    gain = _gain(context, half)
    return state._replace(logits=_prox(half, gain, context, step_size), gain=gain)


def _jacobian_left_in(state: Any, context: Context, step_size: float, params: Any) -> LogPolicy:
    policy, slope = _policy(state.logits), _gain(context, state.logits) - _pull(context, state.logits)
    return _moved(state.logits, step_size * policy * (slope - policy @ slope))


def _no_shrinkage(state: Any, context: Context, step_size: float, params: Any) -> LogPolicy:
    return _moved(state.logits, step_size * (context.beta * context.log_reference + _gain(context, state.logits)))


def _linear_weights(state: Any, context: Context, step_size: float, params: Any) -> LogPolicy:
    return _moved(state.logits, np.log1p(np.maximum(step_size * _gain(context, state.logits), -0.99)))


def _regularized_weights(state: Any, context: Context, step_size: float, params: Any) -> LogPolicy:
    return _moved(state.logits, step_size * (_gain(context, state.logits) - _pull(context, state.logits)))


# --- gradient steps -------------------------------------------------------------------------------------------------------


def _ascent(logits: Array, context: Context, *pulls: tuple[float, Array]) -> Array:
    """Return J(π)(Aπ - β(θ - log ρ) - Σ_k w_k (θ - c_k))."""
    policy, slope = _policy(logits), _gain(context, logits) - _pull(context, logits)
    slope = slope - sum(weight * (logits - centre) for weight, centre in pulls)
    return np.asarray(policy * (slope - policy @ slope))


def _no_baseline(state: Any, context: Context, step_size: float, params: Any) -> LogPolicy:
    slope = _gain(context, state.logits) - _pull(context, state.logits)
    return LogPolicy(state.logits + step_size * _policy(state.logits) * slope)


def _no_jacobian(state: Any, context: Context, step_size: float, params: Any) -> LogPolicy:
    policy, slope = _policy(state.logits), _gain(context, state.logits) - _pull(context, state.logits)
    return LogPolicy(state.logits + step_size * (slope - policy @ slope))


def _ipo_md(sampling: str, opponent: str, baseline: str) -> Step:
    """IPO-MD whose pairs, opponent and baseline come from the ``"policy"``, the ``"mixture"`` or the ``"arithmetic"`` one."""

    def step(state: Any, context: Context, step_size: float, params: Any) -> LogPolicy:
        sources = {
            "policy": state.logits,
            "mixture": _mixture(context, state.logits, params.mixing),
            "arithmetic": _arithmetic(context, state.logits, params.mixing),
        }
        slope = _gain(context, sources[opponent]) - _pull(context, state.logits)
        centred = slope - _policy(sources[baseline]) @ slope
        return LogPolicy(state.logits + step_size * _policy(sources[sampling]) * centred)

    return step


def _nash_prox_without_pull(state: Any, context: Context, step_size: float, params: Any) -> Any:
    logits = state.logits + step_size * _ascent(state.logits, context)
    return _followed(state, logits, params)


def _nash_prox_around_new(state: Any, context: Context, step_size: float, params: Any) -> Any:
    """The centre follows first, so that the step is pulled to where the centre will be."""
    centre = (1 - params.averaging) * state.centre + params.averaging * state.logits
    logits = state.logits + step_size * _ascent(state.logits, context, (params.pull, centre))
    return _followed(state, logits, params)


def _followed(state: Any, logits: Array, params: Any) -> Any:
    centre = (1 - params.averaging) * state.centre + params.averaging * logits
    return state._replace(logits=logits, centre=centre, taken=state.taken + 1)


def _proximal_pg(pulled: bool) -> Step:
    """Inner steps around a centre that moves with each of them, or without the proximal term."""

    def step(state: Any, context: Context, step_sizes: Array, params: Any) -> LogPolicy:
        logits = state.logits
        centre = logits
        for step_size in step_sizes:
            pull = params.pull if pulled else 0.0
            past, logits = logits, logits + step_size * _ascent(logits, context, (pull, centre))
            centre = past
        return LogPolicy(logits)

    return step


# --- sub-games and magnets ------------------------------------------------------------------------------------------------


def _without_proximal_term(state: Any, context: Context, step_size: float, params: Any) -> LogPolicy:
    """Nothing pulls to the last policy; at β = 0 next to nothing, as the game itself need not have one equilibrium."""
    return LogPolicy(regularized_equilibrium(context._replace(beta=max(context.beta, 1e-6)), state.logits))


def _without_reference(state: Any, context: Context, step_size: float, params: Any) -> LogPolicy:
    """All the regularization pulls to the last policy."""
    centre = log_softmax(state.logits)
    inner = context._replace(log_reference=centre, beta=context.beta + 1 / step_size)
    return LogPolicy(regularized_equilibrium(inner, centre))


def _magnet(follow: Callable[[Context, Any, int, Array, int], Array]) -> Step:
    """A magnetic step whose magnet follows a wrong rule: ``follow(context, state, steps done, logits, m) -> log σ⁺``."""

    def step(state: Any, context: Context, step_size: float, params: Any) -> Any:
        inner = context._replace(beta=params.magnet, log_reference=state.log_magnet)
        logits = _prox(state.logits, _gain(context, state.logits), inner, step_size)
        taken = state.taken + 1
        magnet = follow(context, state, taken, logits, params.refresh_every)
        return state._replace(logits=logits, log_magnet=magnet, taken=taken)

    return step


def _refreshed_late(context: Context, state: Any, taken: int, logits: Array, every: int) -> Array:
    return logits if taken > every and taken % every == 1 % every else np.asarray(state.log_magnet)


def _at_old_policy(context: Context, state: Any, taken: int, logits: Array, every: int) -> Array:
    return np.asarray(state.logits if taken % every == 0 else state.log_magnet)


# --- plays and averages ---------------------------------------------------------------------------------------------------


def _normalized(weights: Array) -> Array:
    return np.asarray(weights / weights.sum())


def _rejoined(after: Any, plays: Array, play: Array | None = None) -> Any:
    """Return a state with another sum of plays, hence another average."""
    fields = {"logits": np.log(_normalized(plays)), "plays": plays}
    return after._replace(**fields, **({} if play is None else {"play": play}))


def _pure(n: int, action: Any) -> Array:
    return np.asarray(np.eye(n)[int(action)])


def _played(weights: Callable[[Context, Any, Any], Array]) -> Change:
    """The play is another one, in proportion to weights."""

    def spoil(context: Context, before: Any, after: Any) -> Any:
        play = _normalized(weights(context, before, after))
        return _rejoined(after, before.plays + play, play if hasattr(after, "play") else None)

    return amiss(spoil)


def _reversed_gain(context: Context, before: Any, position: int) -> Array:
    return _pure(len(before.plays), np.argsort(advantage(context.payoff, before.plays), kind="stable")[position])


def _weighed(weight: Callable[[Any], float]) -> Change:
    """The last play joins the average with another weight."""
    return amiss(lambda context, before, after: _rejoined(after, before.plays + weight(before) * after.play))


def _matched(regrets: Callable[[Context, Any, Any], Array], weight: Callable[[Any], float]) -> Change:
    """The regrets are others, and are matched."""

    def spoil(context: Context, before: Any, after: Any) -> Any:
        kept = regrets(context, before, after)
        play = matched(kept)
        return _rejoined(after, before.plays + weight(before) * play, play)._replace(regrets=kept)

    return amiss(spoil)


def _regrets_of_average(context: Context, before: Any, after: Any) -> Array:
    """Return the regrets where the opponent is the average, not the last play; it loses nothing to itself."""
    return np.asarray(before.regrets + _gain(context, before.logits))


def _forgotten(context: Context, before: Any, after: Any) -> Array:
    return advantage(context.payoff, before.play)


SPECIFIC: dict[str, dict[str, Change]] = {
    "NashMD": {
        "arithmetic mixture": instead(_nash_md_arithmetic),
        "the policy as opponent": instead(_nash_md_self_play),
        "step from the policy": instead(_nash_md_from_policy),
    },
    "Extragradient": {
        "regularizer at the half point in the second step": instead(_extragradient_moving),
        "second step from the half point": instead(_extragradient_from_half),
        "no regularizer in the second step": instead(_extragradient_dropped),
        "no look-ahead": instead(_regularized_weights),
    },
    "NashMirrorProx": {
        "no look-ahead": instead(_no_look_ahead),
        "second step from the half point": instead(_prox_from_half),
    },
    "OptimisticMirrorDescent": {
        "keeps the gain at π, not at π′": amiss(lambda c, before, after: after._replace(gain=_gain(c, before.logits))),
        "never renews the gain": amiss(lambda c, before, after: after._replace(gain=before.gain)),
        "second step from the half point": instead(_optimistic_from_half),
    },
    "NaturalPG": {"Jacobian left in": instead(_jacobian_left_in)},
    "MagneticMirrorDescent": {"no shrinkage": instead(_no_shrinkage)},
    "MultiplicativeWeights": {
        "linear weights": instead(_linear_weights),
        "regularized": instead(_regularized_weights),
        "Jacobian left in": instead(lambda s, c, step_size, p: _jacobian_left_in(s, c._replace(beta=0.0), step_size, p)),
    },
    "SelfPlayPG": {"no baseline": instead(_no_baseline), "no Jacobian": instead(_no_jacobian)},
    "IPOMD": {
        "the policy as opponent": instead(_ipo_md("mixture", "policy", "mixture")),
        "baseline from the policy": instead(_ipo_md("mixture", "mixture", "policy")),
        "arithmetic mixture": instead(_ipo_md("arithmetic", "arithmetic", "arithmetic")),
        "no mixture": instead(_ipo_md("policy", "policy", "policy")),
    },
    "NashProx": {
        "pulled to where the centre will be": instead(_nash_prox_around_new),
        "centre follows one step late": amiss(
            lambda c, before, after: after._replace(centre=after.centre + 0.05 * (before.logits - after.logits))
        ),
        "centre never follows": amiss(lambda c, before, after: after._replace(centre=before.centre)),
        "no proximal term": instead(_nash_prox_without_pull),
    },
    "ProximalPG": {
        "centre moves at every inner step": instead(_proximal_pg(True)),
        "no proximal term": instead(_proximal_pg(False)),
    },
    "ProximalPoint": {
        "no proximal term": instead(_without_proximal_term),
        "no reference": instead(_without_reference),
    },
    "MagnetRefresh": {
        "magnet at the reference": instead(_magnet(lambda c, state, taken, logits, m: c.log_reference)),
        "never refreshed": instead(_magnet(lambda c, state, taken, logits, m: state.log_magnet)),
        "refreshed one step late": instead(_magnet(_refreshed_late)),
        "refreshed to the policy before": instead(_magnet(_at_old_policy)),
    },
    "FictitiousPlay": {
        "worst response": _played(lambda c, before, after: _reversed_gain(c, before, 0)),
        "second best response": _played(lambda c, before, after: _reversed_gain(c, before, -2)),
        "earlier plays fade": amiss(lambda c, before, after: _rejoined(after, after.plays - 0.1 * before.plays)),
        "new plays weigh twice": amiss(lambda c, before, after: _rejoined(after, 2 * after.plays - before.plays)),
        "steps are not counted": amiss(lambda c, before, after: after._replace(taken=before.taken)),
        "the average stays": amiss(lambda c, before, after: after._replace(logits=before.logits)),
    },
    "RegretMatching": {
        "the average as opponent": _matched(_regrets_of_average, lambda before: 1.0),
        "regrets forgotten": _matched(_forgotten, lambda before: 1.0),
        "regrets clipped": _matched(lambda c, before, after: np.maximum(after.regrets, 0.0), lambda before: 1.0),
        "best response to the regrets": _played(lambda c, b, after: _pure(len(after.regrets), np.argmax(after.regrets))),
        "absolute regrets": _played(lambda c, before, after: np.abs(after.regrets)),
        "linear weights": _weighed(lambda before: before.taken + 2.0),
        "the last play for the average": amiss(lambda c, b, after: after._replace(logits=np.log(np.maximum(after.play, 1e-12)))),
    },
    "RegretMatchingPlus": {
        "the average as opponent": _matched(
            lambda c, before, after: np.maximum(_regrets_of_average(c, before, after), 0.0), lambda before: before.taken + 2.0
        ),
        "regrets not clipped": _matched(
            lambda c, before, after: before.regrets + advantage(c.payoff, before.play), lambda before: before.taken + 2.0
        ),
        "regrets halved": amiss(lambda c, before, after: after._replace(regrets=after.regrets / 2)),
        "uniform weights": _weighed(lambda before: 1.0),
        "weights one too small": _weighed(lambda before: before.taken + 1.0),
        "quadratic weights": _weighed(lambda before: (before.taken + 2.0) ** 2),
    },
}
"""Wrong steps of one method, by its name."""
