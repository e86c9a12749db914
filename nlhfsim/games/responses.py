"""Best responses and exploitability: what a policy loses to the opponent that plays best against it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nlhfsim.errors import Array, InputError, ensure_array, ensure_distribution
from nlhfsim.games.game import PreferenceGame, ensure_game
from nlhfsim.games.payoffs import Context, advantage
from nlhfsim.simplex import kl_log, log_softmax, safe_log, spread


def log_best_response(context: Context, log_policy: Array, gain: Array | None = None) -> Array:
    """Return log BR(μ), ``BR(μ) ∝ ρ exp(Aμ/β)``, for log-policies ``(..., n)`` of one context with β > 0; Aμ may be given."""
    gain = advantage(context.payoff, np.exp(log_policy)) if gain is None else gain
    return log_softmax(context.log_reference + gain / context.beta)


def context_exploitability(context: Context, log_policy: Array, gain: Array | None = None) -> Array:
    """Return E_β(μ) of log-policies ``(..., n)`` in one context, shape ``(...)``; at β = 0 the gap ``max_y (Aμ)_y``.

    For β > 0 it is computed as ``β KL(μ‖BR(μ))``, which is never negative and relatively accurate to 1e-30. Aμ may be given.
    """
    if context.beta == 0:
        return context_gap0(context, log_policy, gain)
    return np.asarray(context.beta * kl_log(log_policy, log_best_response(context, log_policy, gain)))


def context_gap0(context: Context, log_policy: Array, gain: Array | None = None) -> Array:
    """Return the unregularized exploitability ``E_0(μ) = max_y (Aμ)_y`` in one context, never negative; Aμ may be given."""
    gain = advantage(context.payoff, np.exp(log_policy)) if gain is None else gain
    # (Aμ) averages to zero under μ, so its maximum is at least zero; rounding may say otherwise.
    return np.asarray(np.maximum(gain.max(axis=-1), 0.0))


def log_ratio_residual(context: Context, log_policy: Array) -> float:
    """Return ``‖log μ - log BR(μ)‖_sp`` of one log-policy ``(n,)`` in a context with β > 0; 0 exactly at π*."""
    return float(spread(log_policy - log_best_response(context, log_policy)))


def exploitability_by_context(game: PreferenceGame, log_policy: Array, *, regularized: bool = True) -> Array:
    """Return the exploitability in each context, shape ``(..., contexts)``, of log-policies ``(..., *policy_shape)``."""
    measure = context_exploitability if regularized else context_gap0
    if not game.batched:
        return measure(game.contexts[0], log_policy)[..., None]
    return np.stack([measure(c, log_policy[..., k, :]) for k, c in enumerate(game.contexts)], axis=-1)


def exploitability(
    game: PreferenceGame,
    policy: npt.ArrayLike | None = None,
    *,
    log_policy: npt.ArrayLike | None = None,
    regularized: bool = True,
) -> float:
    """Return ``E_β(μ) = max_π P_β(π ≻ μ) - 1/2 ≥ 0``, averaged over contexts with the game's weights.

    Parameters
    ----------
    game : PreferenceGame
        The game.
    policy : array_like, optional
        μ in probability space, shape `game.policy_shape`; zeros are allowed.
    log_policy : array_like, optional
        μ in log space instead: keeps probabilities below 1e-308.
    regularized : bool
        False: the unregularized ``E_0(μ) = max_y (Aμ)_y``, zero exactly at the von Neumann winners.

    Returns
    -------
    float
        At least 0. With β > 0 it equals ``β KL(μ‖BR(μ))`` and bounds ``β KL(μ‖π*)`` from above.

    Raises
    ------
    InputError
        If neither or both policies are given, or one is not a policy of this game.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.games.rock_paper_scissors(margin=0.5, beta=0.1)
    >>> nl.exploitability(game, [1, 0, 0], regularized=False)
    0.5
    >>> nl.exploitability(game, game.reference)
    0.0
    """
    ensure_game(game)
    logs = _as_log_policy(game, policy, log_policy)
    return float(game.average(exploitability_by_context(game, logs, regularized=regularized)))


def best_response(game: PreferenceGame, policy: npt.ArrayLike) -> Array:
    """Return the best response BR(μ) = argmax_π P_β(π ≻ μ), probability space, shape `game.policy_shape`.

    At β = 0 it is uniform over the actions that beat μ most.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.games.rock_paper_scissors(margin=0.5, beta=0)
    >>> nl.best_response(game, [1, 0, 0])   # paper beats rock
    array([0., 1., 0.])
    """
    ensure_game(game)
    mu = ensure_distribution("policy", policy, game.policy_shape, full_support=False)
    if game.beta == 0:
        gains = game.advantage(mu)
        best = gains >= gains.max(axis=-1, keepdims=True) - 1e-15
        return np.asarray(best / best.sum(axis=-1, keepdims=True))
    rows = safe_log(mu).reshape(game.n_contexts, game.n)
    responses = np.stack([np.exp(log_best_response(c, row)) for c, row in zip(game.contexts, rows)])
    return responses.reshape(game.policy_shape)


def _as_log_policy(game: PreferenceGame, policy: npt.ArrayLike | None, log_policy: npt.ArrayLike | None) -> Array:
    if (policy is None) == (log_policy is None):
        raise InputError("give exactly one of policy and log_policy")
    if policy is not None:
        return safe_log(ensure_distribution("policy", policy, game.policy_shape, full_support=False))
    logs = ensure_array("log_policy", log_policy)
    if logs.shape != game.policy_shape:
        raise InputError(f"log_policy has shape {logs.shape}, must be {game.policy_shape}")
    if (np.abs(np.exp(logs).sum(axis=-1) - 1) > 1e-6).any():
        raise InputError("log_policy must hold log-probabilities: their exponentials must add up to 1")
    return log_softmax(logs)
