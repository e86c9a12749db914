"""Self-play policy gradient at the equilibrium: the closed form of its stability limit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nlhfsim.equilibrium import Equilibrium
from nlhfsim.errors import Array, InputError
from nlhfsim.games.game import PreferenceGame
from nlhfsim.games.payoffs import dense


class SelfPlaySpectrum(NamedTuple):
    """What the linearization of self-play policy gradient says; see `self_play_spectrum`.

    Attributes
    ----------
    critical_step : float
        γ_c: a constant step is locally stable exactly below it.
    slowest_rate : float
        λ₀ = min -Re λ: near π* the flow shrinks θ - θ* by exp(-λ₀ t), so steps γ_t = c/(t + t0) need cλ₀ ≥ 1 for the rate 1/t.
    """

    critical_step: float
    slowest_rate: float


def self_play_spectrum(game: PreferenceGame, equilibrium: Equilibrium) -> SelfPlaySpectrum:
    """Return the critical step and the slowest rate of `SelfPlayPG` at the equilibrium, the worst over contexts.

    With λ the eigenvalues of J(π*)(A J(π*) - βI) on the logits without their constant, γ_c = min -2 Re λ/|λ|² and λ₀ = min -Re λ
    (theory of this project, `critical-step`).

    Parameters
    ----------
    game : PreferenceGame
        A game with β > 0 that can be written as a matrix.
    equilibrium : Equilibrium
        Its equilibrium.

    Raises
    ------
    InputError
        If β = 0, where no constant step is stable on a cycle; if the equilibrium is another game's.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> from nlhfsim.stability import self_play_spectrum
    >>> game = nl.games.rock_paper_scissors(beta=0.1)    # γ_c = 6β/(β² + 1/12) = 6.4286 on the uniform cycle, λ₀ = β/3
    >>> spectrum = self_play_spectrum(game, nl.solve(game))
    >>> round(spectrum.critical_step, 4), round(spectrum.slowest_rate, 4)
    (6.4286, 0.0333)
    """
    if equilibrium.policy.shape != game.policy_shape:
        raise InputError(
            f"equilibrium has policies of shape {equilibrium.policy.shape}, those of this game are {game.policy_shape}"
        )
    if game.beta == 0:
        raise InputError("the critical step needs beta > 0: at beta = 0 no constant step is stable on a cycle")
    policies = equilibrium.policy.reshape(game.n_contexts, game.n)
    values = np.concatenate([_eigenvalues(dense(c.payoff), pi, game.beta) for c, pi in zip(game.contexts, policies)])
    # Rounding drowns the smallest eigenvalues, those of actions that are hardly played. They never decide: |Im λ| ≤ -Re λ/(πβ),
    # so that -2 Re λ/|λ|² grows as λ shrinks.
    seen = values[np.abs(values) > game.n * np.finfo(float).eps * np.abs(values).max(initial=0.0)]
    steps = -2 * seen.real / np.abs(seen) ** 2
    return SelfPlaySpectrum(float(steps.min(initial=np.inf)), float((-values.real).min(initial=np.inf)))


def _eigenvalues(advantages: Array, policy: Array, beta: float) -> Array:
    """Return the eigenvalues of the linearization on the space of logits modulo constants, shape ``(n - 1,)``."""
    n = len(policy)
    covariance = -np.outer(policy, policy)
    # π_y (1 - π_y) as a sum over the others: no digit is lost where one action is nearly certain.
    np.fill_diagonal(covariance, 0.0)
    np.fill_diagonal(covariance, -covariance.sum(axis=1))
    # An orthonormal basis of the vectors that add up to 0; J maps into them.
    basis = np.linalg.qr(np.eye(n) - 1 / n)[0][:, : n - 1]
    return np.asarray(np.linalg.eigvals(basis.T @ covariance @ (advantages @ covariance - beta * np.eye(n)) @ basis))
