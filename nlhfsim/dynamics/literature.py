"""Names of the literature for updates that are instances of the methods here, each in the parameters of its paper.

An alias is a factory like a method's, and its name stands wherever a method's name does; what it returns is an instance of the
method behind it, under that method's name; grids of `compare` and `tune` are over that method's parameters. Papers write the
preference P(y ≻ y') where this package writes the advantage A = P - 1/2: the two differ by a constant, which no update sees. What
they call τ or β, the weight of the KL to the reference, is the game's own β here. They estimate their updates from samples and
fit them to a language model; here they are exact.
"""

from __future__ import annotations

from nlhfsim.dynamics._spec import Alias, Dynamics, alias
from nlhfsim.dynamics.extragradient import Extragradient
from nlhfsim.dynamics.magnet_refresh import MagnetRefresh
from nlhfsim.dynamics.multiplicative_weights import MultiplicativeWeights
from nlhfsim.dynamics.nash_mirror_prox import NashMirrorProx
from nlhfsim.dynamics.nash_prox import NashProx
from nlhfsim.dynamics.natural_pg import NaturalPG
from nlhfsim.dynamics.optimistic_mirror_descent import OptimisticMirrorDescent
from nlhfsim.dynamics.schedules import StepSize, ensure_step_size
from nlhfsim.dynamics.self_play_pg import SelfPlayPG
from nlhfsim.errors import InputError, ensure_integer, ensure_positive
from nlhfsim.sources import (
    CONVERGENT_META_ALIGNMENT,
    DIRECT_NASH_OPTIMIZATION,
    EXTRAGRADIENT,
    ITERATIVE_NASH_POLICY_OPTIMIZATION,
    MAGNETIC_PREFERENCE_OPTIMIZATION,
    NASH_LEARNING,
    NASH_MIRROR_PROX,
    NASH_POLICY_GRADIENT,
    ONLINE_IPO,
    OPTIMISTIC_NASH_POLICY_OPTIMIZATION,
    SELF_PLAY_PREFERENCE_OPTIMIZATION,
)

_BETA = "it is the game's β, run the method on game.with_beta({name})"


def _inverse(name: str, value: float | None) -> float | None:
    return None if value is None else 1 / ensure_positive(name, value)


@alias(
    Alias(
        "INPO",
        "NaturalPG",
        "step_size = 1/eta; the paper's tau is the game's β",
        ITERATIVE_NASH_POLICY_OPTIMIZATION.at("the online mirror descent update that its loss fits"),
        {"eta": 4.0},
        {"tau": _BETA.format(name="tau")},
    )
)
def INPO(eta: float | None = None) -> Dynamics:
    """Iterative Nash policy optimization: ``π⁺ ∝ π^(1 - τ/η) ρ^(τ/η) exp(P(· ≻ π)/η)``, which is `NaturalPG` with step 1/η.

    Parameters
    ----------
    eta : float, optional
        η > 0, the weight of the KL to the last policy: an inverse step. Default: that of `NaturalPG`. The paper's τ is the game's
        β and not given here; the exponents above are positive for η > τ.

    Raises
    ------
    InputError
        If η is not positive, or τ is given.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.dynamics.INPO(eta=4.0)
    NaturalPG(step_size=0.25)
    """
    return NaturalPG(_inverse("eta", eta))


@alias(
    Alias(
        "OnlineMirrorDescent",
        "NaturalPG",
        "step_size = eta; the paper's tau is the game's β",
        NASH_LEARNING.at("online mirror descent, beside Nash-MD"),
        {"eta": 0.25},
        {"tau": _BETA.format(name="tau")},
    )
)
def OnlineMirrorDescent(eta: StepSize | None = None) -> Dynamics:
    """Online mirror descent with the regularizer linearized too: ``argmax_q η⟨P(· ≻ π) - τ log(π/ρ), q⟩ - KL(q‖π)``: `NaturalPG`.

    Parameters
    ----------
    eta : float or schedule, optional
        η > 0, the step size. Default: that of `NaturalPG`. The paper's τ is the game's β.

    Raises
    ------
    InputError
        If η is not positive, or τ is given.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.dynamics.OnlineMirrorDescent(eta=0.25)
    NaturalPG(step_size=0.25)
    """
    return NaturalPG(ensure_step_size("eta", eta))


@alias(
    Alias(
        "SPPO",
        "MultiplicativeWeights",
        "step_size = eta",
        SELF_PLAY_PREFERENCE_OPTIMIZATION.at("the multiplicative weight update that its loss fits"),
        {"eta": 0.5},
    )
)
def SPPO(eta: StepSize | None = None) -> Dynamics:
    """Self-play preference optimization: ``π⁺ ∝ π exp(η P(· ≻ π))``, which is `MultiplicativeWeights` with step η.

    Parameters
    ----------
    eta : float or schedule, optional
        η > 0. Default: the step of `MultiplicativeWeights`. The paper's code takes its inverse, under the name beta.

    Raises
    ------
    InputError
        If η is not positive.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.dynamics.SPPO(eta=0.5)
    MultiplicativeWeights(step_size=0.5)
    """
    return MultiplicativeWeights(ensure_step_size("eta", eta))


@alias(
    Alias(
        "DNO",
        "MultiplicativeWeights",
        "step_size = 1/eta",
        DIRECT_NASH_OPTIMIZATION.at("the soft policy iteration that its regression fits"),
        {"eta": 4.0},
    )
)
def DNO(eta: float | None = None) -> Dynamics:
    """Direct Nash optimization: ``π⁺ ∝ π exp(P(· ≻ π)/η)``, which is `MultiplicativeWeights` with step 1/η.

    Parameters
    ----------
    eta : float, optional
        η > 0, an inverse step. Default: that of `MultiplicativeWeights`.

    Raises
    ------
    InputError
        If η is not positive.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.dynamics.DNO(eta=4.0)
    MultiplicativeWeights(step_size=0.25)
    """
    return MultiplicativeWeights(_inverse("eta", eta))


@alias(
    Alias(
        "ONPO",
        "OptimisticMirrorDescent",
        "step_size; on a game with β = 0",
        OPTIMISTIC_NASH_POLICY_OPTIMIZATION.at("optimistic online mirror descent in the unregularized game"),
        {"step_size": 0.5},
    )
)
def ONPO(step_size: StepSize | None = None) -> Dynamics:
    """Optimistic Nash policy optimization: optimistic mirror descent in the bare game, `OptimisticMirrorDescent` at β = 0.

    ``π'_t ∝ π_t exp(γ P(· ≻ π'_{t-1}))``, ``π_{t+1} ∝ π_t exp(γ P(· ≻ π'_t))``. A method cannot set β: run it on
    ``game.with_beta(0)``; on another game it is optimistic mirror descent of the regularized payoff. The policy recorded is π_t,
    the point from which it looks ahead; the paper's guarantee is about the average of the π'_t that are played.

    Parameters
    ----------
    step_size : float or schedule, optional
        γ > 0; its inverse is the weight of the KL term. Default: that of `OptimisticMirrorDescent`.

    Raises
    ------
    InputError
        If γ is not positive.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.dynamics.ONPO(step_size=0.5)
    OptimisticMirrorDescent(step_size=0.5)
    """
    return OptimisticMirrorDescent(step_size)


@alias(
    Alias(
        "OnlineIPO",
        "SelfPlayPG",
        "step_size = 4 learning_rate/β, with the game's β",
        ONLINE_IPO.at("the gradient of the Online IPO loss"),
        {"step_size": 0.5},
        {"learning_rate": "step_size = 4 learning_rate/β, with the β of the game", "tau": _BETA.format(name="tau")},
    )
)
def OnlineIPO(step_size: StepSize | None = None) -> Dynamics:
    """Online IPO: gradient descent on the IPO loss of pairs drawn from the policy itself, which is `SelfPlayPG`.

    The gradient of ``E (h(y, y') - (o - 1/2)/β)²``, h the difference of log(π/ρ), o the vote, the sampling held fixed, is -4/β
    times that of the regularized payoff: descent on the loss with learning rate λ is `SelfPlayPG` with step 4λ/β.

    Parameters
    ----------
    step_size : float or schedule, optional
        γ = 4λ/β > 0. It depends on the game's β (the paper's τ), so the learning rate λ itself is no parameter here. Default:
        that of `SelfPlayPG`.

    Raises
    ------
    InputError
        If γ is not positive, or λ or τ is given.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.dynamics.OnlineIPO(step_size=0.5)
    SelfPlayPG(step_size=0.5)
    """
    return SelfPlayPG(step_size)


@alias(
    Alias(
        "EGPO",
        "Extragradient",
        "step_size = eta",
        EXTRAGRADIENT.at("the extragradient update"),
        {"eta": 0.5},
    )
)
def EGPO(eta: StepSize | None = None) -> Dynamics:
    """Extragradient preference optimization: `Extragradient` with step η.

    ``θ' = (1 - ηβ) θ + ηβ log ρ + η P(· ≻ π_θ)``, then ``θ⁺ = (1 - ηβ) θ + ηβ log ρ + η P(· ≻ π_θ')``.

    Parameters
    ----------
    eta : float or schedule, optional
        η > 0. Default: the step of `Extragradient`, above the paper's bound 1/(β + 3).

    Raises
    ------
    InputError
        If η is not positive.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.dynamics.EGPO(eta=0.5)
    Extragradient(step_size=0.5)
    """
    return Extragradient(ensure_step_size("eta", eta))


@alias(
    Alias(
        "NashMP",
        "NashMirrorProx",
        "step_size = eta/β, with the game's β",
        NASH_MIRROR_PROX.at("Nash-MP"),
        {"step_size": 2.0},
        {"eta": "step_size = eta/β, with the β of the game"},
    )
)
def NashMP(step_size: StepSize | None = None) -> Dynamics:
    """Nash-MP as its paper abbreviates it: `NashMirrorProx`.

    The paper weighs ``P(π_k ≻ π)/β + KL(π‖ρ) + KL(π‖π_k)/η``, whose step is γ = η/β in units of P; its rate (1 + 2β)^(-N/2) is
    that of γ = 2, hence η = 2β.

    Parameters
    ----------
    step_size : float or schedule, optional
        γ = η/β > 0. It depends on the game's β, so η itself is no parameter here. Default: 2, the paper's.

    Raises
    ------
    InputError
        If γ is not positive, or η is given.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.dynamics.NashMP(step_size=2.0)
    NashMirrorProx(step_size=2)
    """
    return NashMirrorProx(2.0 if step_size is None else step_size)


@alias(
    Alias(
        "MPO",
        "MagnetRefresh",
        "step_size = eta, magnet = alpha",
        MAGNETIC_PREFERENCE_OPTIMIZATION.at("magnetic mirror descent with a periodically updated magnet"),
        {"eta": 0.5, "alpha": 0.25, "refresh_every": 4},
    )
)
def MPO(eta: StepSize | None = None, alpha: float = 0.1, refresh_every: int = 100) -> Dynamics:
    """Magnetic preference optimization: `MagnetRefresh` with a refresh after every `refresh_every`-th step.

    ``π⁺ = argmax_q ⟨P(· ≻ π), q⟩ - α KL(q‖σ) - KL(q‖π)/η``, the magnet σ a copy of the policy at the last refresh. The game's β
    and ρ are not used.

    Parameters
    ----------
    eta : float or schedule, optional
        η > 0. Default: 4α, the step of `MagnetRefresh`.
    alpha : float
        α > 0, the weight of the KL to the magnet.
    refresh_every : int
        Steps between two refreshes, at least 1.

    Raises
    ------
    InputError
        If a parameter is out of range.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.dynamics.MPO(eta=0.5, alpha=0.25, refresh_every=50)
    MagnetRefresh(step_size=0.5, magnet=0.25, refresh_every=50)
    """
    every = ensure_integer("refresh_every", refresh_every, 1)
    return MagnetRefresh(ensure_step_size("eta", eta), ensure_positive("alpha", alpha), every)


@alias(
    Alias(
        "COMAL",
        "MagnetRefresh",
        "magnet = tau, step_size = 1/(eta - tau)",
        CONVERGENT_META_ALIGNMENT.at("the meta-algorithm with INPO inside"),
        {"tau": 0.25, "eta": 1.5, "refresh_every": 5},
    )
)
def COMAL(tau: float = 0.1, eta: float | None = None, refresh_every: int | None = None) -> Dynamics:
    """Convergent meta-alignment: games regularized towards the last solution, solved one after the other; `MagnetRefresh`.

    The inner game, with weight τ on the KL to the last solution σ, is played by INPO:
    ``π⁺ ∝ π^(1 - τ/η) σ^(τ/η) exp(P(· ≻ π)/η)``. That explicit step 1/η is the implicit step 1/(η - τ) of `MagnetRefresh`. The
    meta-algorithm leaves the inner solver open; solved exactly it is `ProximalPoint` at β = 0 with step 1/τ. The game's β and ρ
    are not used.

    Parameters
    ----------
    tau : float
        τ > 0, the regularization of the inner games.
    eta : float, optional
        η > τ, the inverse step of the inner INPO. Default: so that the implicit step is 4τ.
    refresh_every : int, optional
        Inner steps a game. Default: until it is solved, see `MagnetRefresh`.

    Raises
    ------
    InputError
        If τ is not positive, η is not above τ, or `refresh_every` is below 1.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.dynamics.COMAL(tau=0.25, eta=1.5, refresh_every=12)
    MagnetRefresh(step_size=0.8, magnet=0.25, refresh_every=12)
    """
    magnet, step = ensure_positive("tau", tau), None
    if eta is not None:
        inverse = ensure_positive("eta", eta)
        if not inverse > magnet:
            raise InputError(f"eta = {inverse:g} must be above tau = {magnet:g}: a step 1/eta would overshoot the last solution")
        step = 1 / (inverse - magnet)
    return MagnetRefresh(step, magnet, refresh_every)


@alias(
    Alias(
        "NashPG",
        "NashProx",
        "proximal_step = 1/alpha; on a game with β = 0",
        NASH_POLICY_GRADIENT.at("policy gradient with a periodically refreshed reference policy"),
        {"step_size": 0.5, "alpha": 0.25, "refresh_every": 4},
    )
)
def NashPG(step_size: StepSize | None = None, alpha: float = 0.5, refresh_every: int = 100) -> Dynamics:
    """Nash policy gradient in exact tabular form: `NashProx` with hard refreshes at β = 0.

    ``θ⁺ = θ + γ ∇(P(π_θ ≻ π) - α KL(π_θ‖σ))`` at π = π_θ held fixed, the reference σ a copy of the policy at the last refresh.
    The paper runs PPO for each player of an extensive-form game, here it is the plain gradient for both sides of a preference
    game. A method cannot set β: run it on ``game.with_beta(0)``; on another game the KL to the game's own reference stays.

    Parameters
    ----------
    step_size : float or schedule, optional
        γ > 0. Default: that of `NashProx`.
    alpha : float
        α > 0, the weight of the KL to the reference, held at a large value.
    refresh_every : int
        Gradient steps between two refreshes, at least 1.

    Raises
    ------
    InputError
        If a parameter is out of range.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.dynamics.NashPG(step_size=0.5, alpha=0.25, refresh_every=50)
    NashProx(step_size=0.5, proximal_step=4, refresh_every=50)
    """
    every = ensure_integer("refresh_every", refresh_every, 1)
    return NashProx(step_size, 1 / ensure_positive("alpha", alpha), refresh_every=every)
