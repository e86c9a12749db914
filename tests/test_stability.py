"""Linearizations against hand derivations, finite differences and runs; thresholds against closed forms.

The hand derivations are written in the policy's own matrices J = diag(π) - ππᵀ and A, and share nothing with the package but
the equilibrium, whose certificate is recomputed elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

import nlhfsim as nl
from nlhfsim import dynamics, plots, simplex, stability
from nlhfsim.dynamics import Dynamics, Method
from nlhfsim.errors import InputError, SizeError
from nlhfsim.games.payoffs import Context, advantage
from nlhfsim.simplex import exp, log_softmax

pytestmark = pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")

Floats = npt.NDArray[np.float64]
Solve = Callable[[nl.PreferenceGame], nl.Equilibrium]

LINEAR = """
    Extragradient IPOMD MagneticMirrorDescent NashMD NashMirrorProx NashProx NaturalPG OptimisticMirrorDescent ProximalPG
    ProximalPoint SelfPlayPG
""".split()
STEPS = {"proximal_step": 1.7, "inner_step_size": 0.6, "step_size": 0.45}


def example(name: str) -> Dynamics:
    """A method with parameters that are none of its defaults."""
    method = dynamics.get(name).method
    return dynamics.build(name, **(dict(method.example) | {method.scheduled: STEPS[method.scheduled]}))


def jay(policy: Floats) -> Floats:
    """J(π) = diag(π) - ππᵀ."""
    return np.asarray(np.diag(policy) - np.outer(policy, policy))


def without_constants(matrix: Floats) -> Floats:
    """A matrix on n-vectors modulo constants, in the coordinates v_i - v_n, i < n."""
    n = len(matrix)
    differences = np.hstack([np.eye(n - 1), -np.ones((n - 1, 1))])
    lift = np.vstack([np.eye(n - 1), np.zeros((1, n - 1))])
    return np.asarray(differences @ matrix @ lift)


def same_spectrum(found: npt.ArrayLike, matrix: Floats, tolerance: float = 1e-9) -> bool:
    """Whether eigenvalues are those of a matrix, each paired with the nearest one left."""
    left = list(np.linalg.eigvals(matrix))
    for value in np.asarray(found):
        nearest = min(range(len(left)), key=lambda k: abs(left[k] - value))
        if abs(left.pop(nearest) - value) > tolerance:
            return False
    return not left


def by_hand(name: str, A: Floats, pi: Floats, beta: float, gamma: float) -> Floats:
    """M on logits modulo constants, from the displays of the methods; `mixture` is π̃ where the method has one."""
    one, J = np.eye(len(pi)), jay(pi)
    prox = 1 + gamma * beta
    match name:
        case "SelfPlayPG":
            return np.asarray(one + gamma * J @ (A @ J - beta * one))
        case "NaturalPG":
            return np.asarray(one + gamma * (A @ J - beta * one))
        case "MagneticMirrorDescent":
            return np.asarray((one + gamma * A @ J) / prox)
        case "NashMirrorProx":
            half = (one + gamma * A @ J) / prox
            return np.asarray((one + gamma * A @ J @ half) / prox)
        case "Extragradient":
            half = one + gamma * (A @ J - beta * one)
            return np.asarray((1 - gamma * beta) * one + gamma * A @ J @ half)
        case "ProximalPoint":
            return np.asarray(np.linalg.inv(prox * one - gamma * A @ J))
    raise AssertionError(name)


@pytest.mark.parametrize("step_size", [0.05, 0.7, 4.3])
@pytest.mark.parametrize(
    "name", ["SelfPlayPG", "NaturalPG", "MagneticMirrorDescent", "NashMirrorProx", "Extragradient", "ProximalPoint"]
)
def test_spectra_are_those_derived_by_hand(game: nl.PreferenceGame, equilibrium_of: Solve, name: str, step_size: float) -> None:
    equilibrium = equilibrium_of(game)
    method = dynamics.build(name, **{dynamics.get(name).method.scheduled: step_size})
    policies, matrices = equilibrium.policy.reshape(-1, game.n), game.advantages.reshape(-1, game.n, game.n)
    radii = []
    for k, (pi, A) in enumerate(zip(policies, matrices)):
        found = stability.linearize(game, method, context=k, equilibrium=equilibrium)
        matrix = without_constants(by_hand(name, A, pi, game.beta, step_size))
        assert same_spectrum(found.eigenvalues, matrix)
        assert found.matrix.shape == (game.n - 1, game.n - 1) and found.differentiated == "complex step"
        assert found.kl_from_equilibrium < 1e-20
        radii.append(np.abs(np.linalg.eigvals(matrix)).max())
    assert abs(stability.local_rate(game, method, equilibrium=equilibrium) - max(radii)) < 1e-9


@pytest.mark.parametrize("share", [0.02, 0.6])
def test_nash_md_rests_at_a_game_with_more_regularization(game: nl.PreferenceGame, share: float) -> None:
    """The mixture at NashMD's fixed point is the equilibrium at β/(1 - γβ); there M = (1 - γβ)(I + γ A J(π̃))."""
    game = game.context(0) if game.batched else game
    step_size = share / game.beta
    mixture = nl.solve(game.with_beta(game.beta / (1 - share)))
    policy = log_softmax((mixture.log_policy - share * game.log_reference) / (1 - share))
    found = stability.linearize(game, dynamics.NashMD(step_size=step_size))
    np.testing.assert_allclose(found.log_policy, policy, atol=1e-8)
    matrix = (1 - share) * (np.eye(game.n) + step_size * game.advantages @ jay(mixture.policy))
    assert same_spectrum(found.eigenvalues, without_constants(matrix))
    expected = float(nl.kl(nl.solve(game).policy, np.exp(policy)))
    np.testing.assert_allclose(found.kl_from_equilibrium, expected, rtol=1e-5, atol=1e-15)


@pytest.mark.parametrize("mixing", [0.125, 0.5])
def test_ipo_md_rests_at_a_game_with_more_regularization(mixing: float) -> None:
    """The mixture at IPO-MD's fixed point is the equilibrium at β/(1 - m): β log(π/ρ) = Aπ̃ up to a constant."""
    game = nl.PreferenceGame([[0.5, 1, 0], [0, 0.5, 1], [1, 0, 0.5]], 0.05, [0.6, 0.3, 0.1])
    mixture = nl.solve(game.with_beta(0.05 / (1 - mixing)))
    policy = log_softmax((mixture.log_policy - mixing * game.log_reference) / (1 - mixing))
    found = stability.linearize(game, dynamics.IPOMD(step_size=0.3, mixing=mixing))
    np.testing.assert_allclose(found.log_policy, policy, atol=1e-8)
    assert found.kl_from_equilibrium > 1e-3
    J = jay(mixture.policy)
    matrix = np.eye(3) + 0.3 * J @ ((1 - mixing) * game.advantages @ J - 0.05 * np.eye(3))
    assert same_spectrum(found.eigenvalues, without_constants(matrix))


def test_the_full_state_of_the_optimistic_method(equilibrium_of: Solve) -> None:
    """δθ⁺ = (δθ + γδg⁺)/(1 + γβ), δg⁺ = A J (δθ + γδg)/(1 + γβ): one block matrix on (θ, g)."""
    game = nl.games.random_game(5, 3, beta=0.1)
    gamma, prox, n = 0.8, 1.08, 5
    AJ = game.advantages @ jay(equilibrium_of(game).policy)
    gain = np.hstack([AJ / prox, gamma * AJ / prox])
    logits = (np.hstack([np.eye(n), np.zeros((n, n))]) + gamma * gain) / prox
    full = np.vstack([logits, gain])
    found = stability.linearize(game, dynamics.OptimisticMirrorDescent(step_size=gamma))
    expected = np.linalg.eigvals(full)
    # The constants of θ and of g add the eigenvalues 1/(1 + γβ) and 0.
    kept = np.delete(expected, [np.abs(expected - 1 / prox).argmin(), np.abs(expected).argmin()])
    assert same_spectrum(found.eigenvalues, np.diag(kept), 1e-7)
    stale = np.abs(np.linalg.eigvals(without_constants((np.eye(n) + gamma * AJ) / prox))).max()
    assert abs(found.radius - stale) > 1e-3, "the mutant whose half point is the iterate itself is another method"


def test_the_full_state_of_nash_prox(equilibrium_of: Solve) -> None:
    """δθ⁺ = δθ + γJ(AJδθ - βδθ - τ(δθ - δc)), δc⁺ = (1 - α)δc + αδθ⁺."""
    game = nl.games.cyclic_tournament(5, 0.4, beta=0.02)
    gamma, tau, alpha, n = 1.5, 0.25, 0.1, 5
    J, one = jay(equilibrium_of(game).policy), np.eye(5)
    logits = np.hstack([one + gamma * J @ (game.advantages @ J - (game.beta + tau) * one), gamma * tau * J])
    centre = np.hstack([np.zeros((n, n)), (1 - alpha) * one]) + alpha * logits
    expected = np.linalg.eigvals(np.vstack([logits, centre]))
    kept = np.delete(expected, [np.abs(expected - 1).argmin(), np.abs(expected - (1 - alpha)).argmin()])
    method = dynamics.NashProx(step_size=gamma, proximal_step=4.0, averaging=alpha)
    found = stability.linearize(game, method)
    assert found.matrix.shape == (8, 8) and same_spectrum(found.eigenvalues, np.diag(kept))
    # Without projection the constants of θ would keep the radius at 1.
    assert abs(expected[np.abs(expected - 1).argmin()] - 1) < 1e-12 and found.radius < 0.999


def test_refreshes_are_a_period() -> None:
    """NashProx with a refresh every m steps is ProximalPG with m inner steps: one of its periods, a factor a step its root."""
    game = nl.games.cyclic_tournament(5, 0.4, beta=0.02)
    proximal = stability.linearize(game, dynamics.ProximalPG(proximal_step=3.0, inner_step_size=0.9, inner_steps=7))
    refreshed = stability.linearize(game, dynamics.NashProx(step_size=0.9, proximal_step=3.0, refresh_every=7))
    assert refreshed.period == 7 and proximal.period == 1 and proximal.oracle_calls == 7 and refreshed.oracle_calls == 1
    np.testing.assert_allclose(refreshed.radius**7, proximal.radius, rtol=1e-12)
    np.testing.assert_allclose(refreshed.time_constant, proximal.time_constant, rtol=1e-9)


def central_differences(steps: Any, point: Floats, step_size: float) -> Floats:
    """The Jacobian of a state map by differences of second order, coordinate by coordinate, through the method's real step."""
    size = 2e-6
    columns = []
    for direction in np.eye(len(point)):
        after, before = (steps._step((point + sign * size * direction)[None], step_size)[0] for sign in (1, -1))
        columns.append((after - before) / (2 * size))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("name", LINEAR)
def test_jacobians_agree_with_finite_differences(game: nl.PreferenceGame, equilibrium_of: Solve, name: str) -> None:
    from nlhfsim.stability._local import constant_step, subject

    about = subject(game, example(name), equilibrium_of(game))
    step_size = constant_step(game, about.dynamics)
    for k, steps in enumerate(about.maps):
        local = about.at(step_size, k)
        rough = local.basis.T @ central_differences(steps, local.point, step_size) @ local.basis
        np.testing.assert_allclose(local.matrix, rough, atol=1e-7)


def test_every_method_has_a_linearization_or_says_why_not() -> None:
    game = nl.games.rock_paper_scissors(margin=0.5, beta=0.1)
    refused = {}
    for name in dynamics.names():
        try:
            assert stability.linearize(game, example(name) if dynamics.get(name).method.scheduled else name).radius > 0
        except InputError as error:
            refused[name] = str(error)
    assert sorted(set(dynamics.names()) - set(refused)) == sorted([*LINEAR, "MultiplicativeWeights"])
    for name, words in refused.items():
        assert words == f"{name} has no linearization: its step depends on the time"


def test_what_has_no_linearization_is_refused() -> None:
    game = nl.games.rock_paper_scissors(margin=0.5, beta=0.1)
    with pytest.raises(InputError, match="step_size must be one constant number"):
        stability.linearize(game, dynamics.NashMD(step_size=nl.schedules.inverse_time(20, 2)))
    with pytest.raises(InputError, match="must be one constant number"):
        stability.local_rate(game, dynamics.NashMD(step_size=(0.1, 0.2)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at beta = 0 it takes a unique equilibrium that plays all actions"):
        stability.linearize(nl.games.transitive_cyclic(5, 0.1, beta=0.0), dynamics.SelfPlayPG(0.1))
    with pytest.raises(InputError, match="does not use the game's own beta"):
        stability.linearize(nl.games.bradley_terry([0, 1, 2]), "MultiplicativeWeights")
    with pytest.raises(InputError, match="oracle calls of its inner solver"):
        stability.best_step(game, "ProximalPoint")
    with pytest.raises(InputError, match="must be a PreferenceGame"):
        stability.linearize(None, "NashMD")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="another game"):
        stability.linearize(game, "NashMD", equilibrium=nl.solve(game.with_beta(0.2)))
    with pytest.raises(InputError, match="context = 1 must be at most 0"):
        stability.linearize(game, "NashMD", context=1)
    with pytest.raises(InputError, match="low = 2 must be below high = 1"):
        stability.stable_ranges(game, "NashMD", 2, 1)
    with pytest.raises(InputError, match="betas must be positive numbers"):
        stability.stability_map(game, "NashMD", [1], [0.1, 0.1])
    with pytest.raises(InputError, match="at least two different"):
        stability.stability_limit(["NashMD"], [0.1])
    with pytest.raises(SizeError, match="out of reach"):
        stability.linearize(nl.games.random_low_rank(2000, 2, 0), "NashMD")


def test_unregularized_games() -> None:
    """At β = 0 the spiral of multiplicative weights grows by √(1 + γ²ω²) a step, ω² = 1/12 on the uniform cycle."""
    game = nl.games.rock_paper_scissors(margin=0.5, beta=0.3)
    for name in ("MultiplicativeWeights", "NaturalPG"):
        at = game if name == "MultiplicativeWeights" else game.with_beta(0.0)
        method = dynamics.build(name, step_size=0.5)
        np.testing.assert_allclose(stability.local_rate(at, method), np.sqrt(1 + 0.25 / 12), rtol=1e-12)
        assert stability.critical_step(at, method) == 0


# --- contexts -------------------------------------------------------------------------------------------------------------


def test_the_worst_context_decides(family: dict[str, nl.PreferenceGame], equilibrium_of: Solve) -> None:
    game = family["contexts"]
    method = dynamics.NaturalPG(step_size=0.6)
    whole = stability.linearize(game, method, equilibrium=equilibrium_of(game))
    alone = [stability.linearize(game.context(k), method) for k in range(3)]
    np.testing.assert_allclose(whole.radius_by_context, [one.radius for one in alone], rtol=1e-12)
    assert whole.radius == max(whole.radius_by_context) and whole.context == int(np.argmax(whole.radius_by_context))
    second = stability.linearize(game, method, context=1)
    assert second.context == 1 and np.isnan(second.radius_by_context[[0, 2]]).all()
    critical = [stability.critical_step(game.context(k), method) for k in range(3)]
    np.testing.assert_allclose(stability.critical_step(game, method), min(critical), rtol=1e-9)


# --- thresholds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.01, 0.1, 0.5, 3.0])
def test_critical_steps_on_the_uniform_cycle(beta: float) -> None:
    """Closed forms with ω² = 1/12."""
    game = nl.games.rock_paper_scissors(margin=0.5, beta=beta)
    square = beta**2 + 1 / 12
    expected: dict[str, float] = {
        "SelfPlayPG": 6 * beta / square,
        "NaturalPG": 2 * beta / square,
        "MagneticMirrorDescent": 2 * beta / (1 / 12 - beta**2) if beta**2 < 1 / 12 else np.inf,
        "ProximalPoint": np.inf,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(stability.critical_step(game, name), value, rtol=1e-8)


def test_small_regularization_is_told_or_refused() -> None:
    """Within a thousandth of the closed form down to β = 5e-6; below, where rounding decides, no number is given."""
    for beta in (1e-3, 1e-4, 1e-5, 5e-6):
        game = nl.games.rock_paper_scissors(margin=0.5, beta=beta)
        square = beta**2 + 1 / 12
        told = max(1e-3 * (5e-6 / beta) ** 2, 1e-7)
        found = [stability.critical_step(game, name) for name in ("SelfPlayPG", "NaturalPG")]
        np.testing.assert_allclose(found, [6 * beta / square, 2 * beta / square], rtol=told)
        (stable,) = stability.stable_ranges(game, "SelfPlayPG", 1e-3 * beta, 1.0)
        assert stable == (1e-3 * beta, pytest.approx(6 * beta / square, rel=told))
    for beta in (1e-6, 1e-8, 1e-10):
        game = nl.games.rock_paper_scissors(margin=0.5, beta=beta)
        with pytest.raises(
            InputError, match=f"beta = {beta:g} is too small to tell a limit of stability of SelfPlayPG.*spectrum"
        ):
            stability.critical_step(game, "SelfPlayPG")
        with pytest.raises(InputError, match="too small to tell a limit of stability of NaturalPG"):
            stability.stable_ranges(game, "NaturalPG", 1e-12, 1.0)
        closed = stability.self_play_spectrum(game, nl.solve(game)).critical_step
        assert closed == pytest.approx(72 * beta, rel=1e-6)


def test_best_steps_are_told_or_refused() -> None:
    """β/(β² + ω²) of `NaturalPG` with ω² = 1/12 down to β = 1e-5; where deviations shrink by less than rounding, no number."""
    for beta in (1e-3, 1e-5):
        found = stability.best_step(nl.games.rock_paper_scissors(margin=0.5, beta=beta), "NaturalPG")
        assert found.time_constant == pytest.approx(1 / (6 * beta**2), rel=1e-5)
        assert found.step_size == pytest.approx(12 * beta, rel=2e-3)
    for name in ("SelfPlayPG", "NaturalPG"):
        with pytest.raises(InputError, match=f"beta = 1e-09 is too small to tell the best step of {name}"):
            stability.best_step(nl.games.rock_paper_scissors(margin=0.5, beta=1e-9), name)


def test_absurd_ranges_do_not_overflow() -> None:
    """β = 1e155 and steps from 1e-300 to 1e300."""
    game = nl.games.rock_paper_scissors(margin=0.5, beta=0.1)
    assert stability.critical_step(game.with_beta(1e155), "SelfPlayPG") == pytest.approx(6e-155)
    ((low, high),) = stability.stable_ranges(game, "SelfPlayPG", 1e-300, 1e300)
    assert low == 1e-300 and high == pytest.approx(0.6 / (0.01 + 1 / 12))
    best = stability.best_step(game, "SelfPlayPG", low=1e-300, high=1e300).step_size
    assert best == pytest.approx(0.3 / (0.01 + 1 / 12), rel=1e-3)


def test_a_step_that_is_no_number_is_not_taken_for_instability() -> None:
    """It is refused."""
    game = nl.games.rock_paper_scissors(margin=0.5, beta=0.1)
    broken = own(lambda state, context, step_size, params: dynamics.LogPolicy(np.full(3, np.nan) * state.logits))
    for function in (stability.critical_step, stability.best_step, stability.stable_ranges):
        with pytest.raises(InputError, match="has no linearization: its step of size .* is not finite"):
            function(game, broken)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": []}, "methods is empty"),
        ({"tuning": 3}, "tuning = 3 must map"),
        ({"tuning": {"ProximalPG": 3}}, "tuning = .* must map"),
        ({"tuning": {"ProximalPq": {}}}, "did you mean 'ProximalPG'"),
    ],
)
def test_the_stability_limit_names_what_is_wrong(options: dict[str, Any], message: str) -> None:
    """The argument and what it must be."""
    with pytest.raises(InputError, match=message):
        stability.stability_limit(**options)


def test_one_method_is_enough_for_the_stability_limit() -> None:
    """A name is not a sequence of letters."""
    assert stability.stability_limit("NaturalPG", (0.03, 0.01)).methods == ("NaturalPG",)


def test_the_equilibrium_of_another_game_is_refused() -> None:
    """By its shape."""
    game, other = nl.games.rock_paper_scissors(beta=0.1), nl.games.cyclic_tournament(5, 0.3, beta=0.1)
    with pytest.raises(InputError, match=r"equilibrium has policies of shape \(5,\), those of this game are \(3,\)"):
        stability.self_play_spectrum(game, nl.solve(other))


def test_a_radius_next_to_1_is_shown_by_its_distance() -> None:
    """1 is neither stable nor not."""
    game = nl.games.rock_paper_scissors(margin=0.5, beta=1e-6)
    local = stability.linearize(game, nl.dynamics.SelfPlayPG(step_size=1e-6))
    assert local.stable and repr(local) == "Linearization(SelfPlayPG, step_size=1e-06, radius=1 - 3.3e-13)"


def test_critical_steps_are_those_of_the_closed_forms(game: nl.PreferenceGame, equilibrium_of: Solve) -> None:
    equilibrium = equilibrium_of(game)
    closed = stability.self_play_spectrum(game, equilibrium).critical_step
    np.testing.assert_allclose(stability.critical_step(game, "SelfPlayPG", equilibrium=equilibrium), closed, rtol=1e-5)
    policies, matrices = equilibrium.policy.reshape(-1, game.n), game.advantages.reshape(-1, game.n, game.n)
    omega = max(np.abs(np.linalg.eigvals(A @ jay(pi))).max() for pi, A in zip(policies, matrices))
    natural = 2 * game.beta / (game.beta**2 + omega**2)
    np.testing.assert_allclose(stability.critical_step(game, "NaturalPG", equilibrium=equilibrium), natural, rtol=1e-6)
    # Theorem: |Im λ| ≤ (-Re λ/β)/π for the eigenvalues of J(AJ - βI), so ω ≤ 1/π and γ_c ≥ 4β/(β² + 1/π²).
    assert omega <= 1 / np.pi
    assert closed >= 4 * game.beta / (game.beta**2 + np.pi**-2) * (1 - 1e-9)


def test_thresholds_where_one_action_is_nearly_certain() -> None:
    """Eigenvalues of 1e-19 are rounding and decide nothing; λ = -9.6091427e-8 does (mpmath at 60 digits)."""
    game = nl.games.bradley_terry([0, 0.3, 2, 2.5], beta=0.01)
    spectrum = stability.self_play_spectrum(game, nl.solve(game))
    np.testing.assert_allclose(spectrum.critical_step, 20813511.2973, rtol=1e-8)
    np.testing.assert_allclose(stability.critical_step(game, "SelfPlayPG"), 20813511.2973, rtol=1e-5)
    cyclic = nl.games.random_game(8, 4, "zero-one", beta=0.01)
    closed = stability.self_play_spectrum(cyclic, nl.solve(cyclic)).critical_step
    np.testing.assert_allclose(stability.critical_step(cyclic, "SelfPlayPG"), closed, rtol=1e-7)


def test_the_bound_on_rotation_is_nearly_attained() -> None:
    """On long cyclic tournaments ω tends to 1/π."""
    game = nl.games.cyclic_tournament(201, 0.5, beta=0.1)
    J = jay(np.full(201, 1 / 201))
    values = np.linalg.eigvals(J @ (game.advantages @ J - 0.1 * np.eye(201)))
    ratio = np.abs(values.imag) / np.maximum(-values.real / 0.1, 1e-300)
    assert 0.9999 / np.pi < ratio[-values.real > 1e-12].max() <= 1 / np.pi


def window(beta: float) -> list[float]:
    """The steps between 0 and 1/β at which (1 - γβ)²(1 + γ²/12) = 1, by bisection."""
    from scipy.optimize import brentq

    def excess(gamma: float) -> float:
        # Divided by γ, so that the root at 0 is gone.
        return -2 * beta + gamma * (beta**2 + 1 / 12) - beta * gamma**2 / 6 + beta**2 * gamma**3 / 12

    grid = np.linspace(1e-3, 1 / beta, 20_001)
    signs = np.sign([excess(gamma) for gamma in grid])
    return [brentq(excess, grid[k], grid[k + 1]) for k in np.flatnonzero(np.diff(signs))]


@pytest.mark.parametrize(("beta", "ends"), [(0.01, (0.241, 96.4)), (0.05, (1.33, 15.7)), (0.1, ())])
def test_the_unstable_window_of_nash_md(beta: float, ends: tuple[float, ...]) -> None:
    game = nl.games.rock_paper_scissors(margin=0.5, beta=beta)
    np.testing.assert_allclose(window(beta), ends, rtol=5e-3)
    ranges = stability.stable_ranges(game, "NashMD", 1e-3, 1 / beta)
    expected = np.array([1e-3, *window(beta), 1 / beta]).reshape(-1, 2)
    np.testing.assert_allclose(ranges, expected, rtol=1e-8)
    if ends:
        np.testing.assert_allclose(stability.critical_step(game, "NashMD"), window(beta)[0], rtol=1e-8)


def test_a_window_narrower_than_the_grid_is_found() -> None:
    """At β where the window of NashMD just opens it is narrower than a 24th of a decade."""
    from scipy.optimize import brentq

    def top(beta: float) -> float:
        steps = np.linspace(0.5, 0.99 / beta, 40_001)
        return float(((1 - steps * beta) ** 2 * (1 + steps**2 / 12)).max() - 1)

    opens = brentq(top, 0.05, 0.1)
    low, high = window(opens * 0.99995)
    assert high / low < 10 ** (1 / 24)
    game = nl.games.rock_paper_scissors(margin=0.5, beta=opens * 0.99995)
    (_, first), (second, _) = stability.stable_ranges(game, "NashMD", 0.01, 1 / game.beta)
    np.testing.assert_allclose([first, second], [low, high], rtol=1e-6)


def test_the_best_step_of_natural_gradients() -> None:
    """|1 - γβ + iγω| is smallest at β/(β² + ω²), with one mode."""
    for beta in (0.01, 0.3):
        square = beta**2 + 1 / 12
        best = stability.best_step(nl.games.rock_paper_scissors(margin=0.5, beta=beta), "NaturalPG")
        np.testing.assert_allclose(best.step_size, beta / square, rtol=1e-5)
        np.testing.assert_allclose(best.rate, np.sqrt(1 / 12 / square), rtol=1e-10)
        np.testing.assert_allclose(best.time_constant, -1 / np.log(best.rate), rtol=1e-6)


@pytest.mark.parametrize("name", ["NashMirrorProx", "ProximalPG", "OptimisticMirrorDescent", "NashMD"])
def test_no_step_of_a_fine_grid_beats_the_best(name: str) -> None:
    """On a curve with kinks: the largest of the branches of a game with several modes."""
    game = nl.games.cyclic_tournament(7, 0.5, beta=0.02)
    best = stability.best_step(game, name, low=0.01, high=45)
    method = dynamics.build(name)
    rates = [stability.local_rate(game, method.with_step(float(step))) for step in np.geomspace(0.01, 45, 500)]
    assert best.rate <= min(rates) * (1 + 1e-9)
    np.testing.assert_allclose(stability.local_rate(game, method.with_step(best.step_size)), best.rate, rtol=1e-9)
    calls = method.method.oracle_calls
    assert calls is not None
    np.testing.assert_allclose(best.time_constant, -calls(method.params) / np.log(best.rate), rtol=1e-7)


# --- runs -----------------------------------------------------------------------------------------------------------------


class Measured(NamedTuple):
    """How a run's deviation along the dominant left eigenvector shrinks: log of the factor a step, and over how many steps."""

    log_factor: float
    steps: int


def measured(game: nl.PreferenceGame, method: Dynamics, local: stability.Linearization, steps: int, size: float) -> Measured:
    """Run from a generic small perturbation of the fixed point, and fit the decay of its dominant component.

    The component along a left eigenvector has no oscillation, and other modes do not enter it; the decay is the run's own.
    """
    values, vectors = np.linalg.eig(local.matrix.T)
    left = vectors[:, int(np.abs(values).argmax())]
    generic = np.random.default_rng(5).standard_normal(game.n)
    start = np.exp(log_softmax(local.log_policy + size * generic))
    # The state is seen at 24 times; runs go on as if they had never stopped.
    marks = np.unique(np.linspace(steps / 4, steps, 24).astype(int) // local.period * local.period)
    rest = np.concatenate([np.ravel(part) for part in local.state if isinstance(part, np.ndarray)])
    trajectory, seen = start, []
    for k, more in enumerate(np.diff([0, *marks])):
        trajectory = nl.simulate(
            game, method, int(more), start=trajectory, equilibrium=False, record_every=int(more) or 1, compiled=False
        )
        parts = [trajectory.state[name][0, 0] for name in local.state._fields if trajectory.state[name][0, 0].ndim]
        seen.append(abs(left @ (local.basis.T @ (np.concatenate(parts) - rest))))
    slope = np.polyfit(marks, np.log(seen), 1)[0]
    return Measured(float(slope), steps)


RUNS = {
    "cycle": lambda: nl.PreferenceGame([[0.5, 1, 0], [0, 0.5, 1], [1, 0, 0.5]], 0.05, [0.5, 0.3, 0.2]),
    "tournament": lambda: nl.games.cyclic_tournament(5, 0.5, beta=0.1, reference=[0.3, 0.25, 0.2, 0.15, 0.1]),
    "random": lambda: nl.games.random_game(6, 5, beta=0.5),
}


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("which", RUNS)
def test_runs_shrink_by_the_local_rate(which: str, name: str) -> None:
    """Claim `local-rate`: the measured factor is the spectral radius, to 0.01 in its logarithm and to 1 % of it."""
    game, method = RUNS[which](), example(name)
    local = stability.linearize(game, method)
    assert 0.2 < local.radius < 0.99999
    steps = int(np.clip(np.log(1e-5) / np.log(local.radius), 8, 4000))
    found = measured(game, method, local, steps, 1e-4)
    assert abs(found.log_factor - np.log(local.radius)) < 0.01 * min(1.0, -np.log(local.radius))


def test_a_mutant_prediction_is_rejected_by_the_runs() -> None:
    """The rate at π* of a method that rests elsewhere, at twice the regularization, or at a stale half point: all are off."""
    game = nl.PreferenceGame([[0.5, 1, 0], [0, 0.5, 1], [1, 0, 0.5]], 0.2, [0.8, 0.15, 0.05])
    method = dynamics.NashMirrorProx(step_size=1.0)
    local = stability.linearize(game, method)
    found = measured(game, method, local, 30, 1e-4).log_factor
    pi, A = np.exp(local.log_policy), game.advantages
    mutants = {
        "stale half point": by_hand("MagneticMirrorDescent", A, pi, 0.2, 1.0),
        "twice the regularization": by_hand("NashMirrorProx", A, pi, 0.4, 1.0),
        "at the reference": by_hand("NashMirrorProx", A, game.reference, 0.2, 1.0),
    }
    assert (
        abs(found - np.log(np.abs(np.linalg.eigvals(without_constants(by_hand("NashMirrorProx", A, pi, 0.2, 1.0)))).max())) < 1e-3
    )
    for words, matrix in mutants.items():
        off = abs(found - np.log(np.abs(np.linalg.eigvals(without_constants(matrix))).max()))
        assert off > 0.005, words


@pytest.mark.parametrize(
    "name", ["SelfPlayPG", "NaturalPG", "MagneticMirrorDescent", "NashMD", "NashMirrorProx", "Extragradient", "ProximalPG"]
)
def test_runs_bracket_the_critical_step(name: str) -> None:
    """At 0.99 γ_c runs from nearby converge, at 1.01 γ_c they leave."""
    game = nl.PreferenceGame([[0.5, 1, 0], [0, 0.5, 1], [1, 0, 0.5]], 0.2, [0.5, 0.3, 0.2])
    critical = stability.critical_step(game, name)
    steps = 2000 if name == "ProximalPG" else 20_000
    for factor, converges in ((0.99, True), (1.01, False)):
        method = dynamics.build(name).with_step(factor * critical)
        rest = np.exp(stability.linearize(game, method).log_policy)
        start = rest * np.array([1.001, 1.0, 0.999])
        run = nl.simulate(game, method, steps, start=start / start.sum(), record_every=steps, compiled=False)
        away = float(nl.kl(rest, run.final[0]))
        assert away < 1e-12 if converges else away > 1e-6, (factor, away)


def test_few_small_inner_steps_leave_a_window() -> None:
    """`ProximalPG` with five inner steps at β = 0.001: runs converge below and above the window, and leave π* within it."""
    gambles = nl.datasets.load("regenwetter2012", beta=0.001)
    cycle = gambles.restrict(nl.games.strongest_cycle(gambles))
    equilibrium = nl.solve(cycle)
    method = dynamics.ProximalPG(proximal_step=10, inner_steps=5)
    (_, first), (second, third) = stability.stable_ranges(cycle, method, 0.01, 100, equilibrium=equilibrium)
    assert (first, second, third) == pytest.approx((0.6546, 2.7915, 24.778), rel=1e-3)
    start = equilibrium.policy * [1.01, 1.0, 0.99]
    for step, converges in ((0.9 * first, True), (1.5, False), (1.1 * second, True)):
        run = nl.simulate(cycle, method.with_step(step), 20_000, start=start / start.sum(), equilibrium=equilibrium)
        assert bool(run.kl[0, -1] < run.kl[0, 0]) == converges


# --- methods of users -----------------------------------------------------------------------------------------------------


def own(step: Callable[..., Any], **changes: Any) -> Dynamics:
    """A method made outside of the package."""
    return Dynamics(Method(name="Mine", step=step, **changes), step_size=0.5)


def natural(state: dynamics.LogPolicy, context: Context, step_size: float, params: Any) -> dynamics.LogPolicy:
    """NaturalPG, written anew."""
    slope = advantage(context.payoff, exp(log_softmax(state.logits))) - context.beta * (state.logits - context.log_reference)
    return dynamics.LogPolicy(state.logits + step_size * slope)


def through_reals(state: dynamics.LogPolicy, context: Context, step_size: float, params: Any) -> dynamics.LogPolicy:
    """The same, but it drops imaginary parts."""
    return natural(dynamics.LogPolicy(np.real(state.logits)), context, step_size, params)


def through_absolute_values(state: dynamics.LogPolicy, context: Context, step_size: float, params: Any) -> dynamics.LogPolicy:
    """The same, with |-θ| for -θ, wrong for complex numbers."""
    return natural(dynamics.LogPolicy(-np.abs(log_softmax(state.logits))), context, step_size, params)


def through_floats(state: dynamics.LogPolicy, context: Context, step_size: float, params: Any) -> dynamics.LogPolicy:
    """The same, and it refuses complex numbers."""
    return natural(dynamics.LogPolicy(np.array([float(x) for x in state.logits])), context, step_size, params)


@pytest.mark.parametrize(
    ("step", "means", "together"),
    [
        (natural, "complex step", False),
        (natural, "complex step", True),
        (through_reals, "central differences", False),
        (through_reals, "central differences", True),
        (through_absolute_values, "central differences", False),
        (through_absolute_values, "central differences", True),
        (through_floats, "central differences", False),
    ],
)
def test_a_step_that_takes_no_complex_numbers(step: Callable[..., Any], means: str, together: bool) -> None:
    game = nl.games.random_game(5, 2, beta=0.3)
    found = stability.linearize(game, own(step, together=together))
    expected = stability.linearize(game, dynamics.NaturalPG(step_size=0.5))
    assert found.differentiated == means
    assert same_spectrum(found.eigenvalues, expected.matrix, 1e-9)
    np.testing.assert_allclose(stability.critical_step(game, own(step)), stability.critical_step(game, "NaturalPG"), rtol=1e-7)


class Momentum(NamedTuple):
    """θ, its velocity, and a number that decays."""

    logits: Floats
    velocity: Floats
    weight: float


def heavy_ball(state: Momentum, context: Context, step_size: float, params: Any) -> Momentum:
    """Natural gradients with momentum; the gain of the gradient tends to 1 from the number in the state."""
    slope = advantage(context.payoff, exp(log_softmax(state.logits))) - context.beta * (state.logits - context.log_reference)
    velocity = 0.3 * state.velocity + (1 + state.weight) * (slope - slope.mean())
    return Momentum(state.logits + step_size * velocity, velocity, 0.5 * state.weight)


def test_a_state_of_arrays_and_numbers() -> None:
    """The velocity is without constants, the number is a coordinate with eigenvalue 1/2; its start is not the fixed point."""
    game = nl.games.random_game(4, 2, beta=0.3)
    method = own(heavy_ball, init=lambda context, params, log_policy: Momentum(log_policy, np.zeros(4), 1.0))
    found = stability.linearize(game, method)
    slope = game.advantages @ jay(nl.solve(game).policy) - 0.3 * np.eye(4)
    full = np.block([[np.eye(4) + 0.5 * slope, 0.15 * np.eye(4)], [slope, 0.3 * np.eye(4)]])
    expected = [value for value in np.linalg.eigvals(np.kron(np.eye(2), np.eye(4) - 1 / 4) @ full) if abs(value) > 1e-9]
    assert found.state.weight == pytest.approx(0, abs=1e-12) and found.kl_from_equilibrium < 1e-16
    assert same_spectrum(found.eigenvalues, np.diag([*expected, 0.5]), 1e-9)


def test_a_claim_to_rest_at_the_equilibrium_is_checked() -> None:
    game = nl.PreferenceGame([[0.5, 1, 0], [0, 0.5, 1], [1, 0, 0.5]], 0.2, [0.5, 0.3, 0.2])
    honest = dynamics.NashMD(step_size=0.5)
    assert stability.linearize(game, honest).kl_from_equilibrium > 1e-6
    boasting = replace(honest, method=replace(honest.method, fixed_point="nash"))
    with pytest.raises(InputError, match="does not rest at the equilibrium as it says but at KL .* 'biased'"):
        stability.linearize(game, boasting)
    with pytest.raises(InputError, match="does not rest"):
        stability.critical_step(game, boasting)


def test_a_kink_is_seen() -> None:
    game = nl.games.rock_paper_scissors(margin=0.5, beta=0.2)

    def kinked(state: dynamics.LogPolicy, context: Context, step_size: float, params: Any) -> dynamics.LogPolicy:
        return dynamics.LogPolicy(log_softmax(state.logits - 0.3 * np.abs(state.logits + np.log(3))))

    with pytest.raises(InputError, match="has a kink at its fixed point"):
        stability.linearize(game, own(kinked))


def test_a_method_without_a_step_size() -> None:
    game = nl.games.rock_paper_scissors(margin=0.5, beta=0.2)

    def still(state: dynamics.LogPolicy, context: Context, step_size: float, params: Any) -> dynamics.LogPolicy:
        return natural(state, context, 0.5, params)

    method = Dynamics(Method(name="Mine", step=still, scheduled=None))
    np.testing.assert_allclose(stability.local_rate(game, method), stability.local_rate(game, dynamics.NaturalPG(0.5)))
    with pytest.raises(InputError, match="Mine has no step size"):
        stability.critical_step(game, method)


def test_complex_steps_through_the_primitives() -> None:
    """log softmax and the payoff products carry the derivative J(π), and A, exactly, at logits of any size."""
    logits = np.array([3.0, -700.0, 2.5, 1e4])
    for point in (logits[:3], np.random.default_rng(0).standard_normal(5), logits):
        images = simplex.log_softmax(point + 1e-30j * np.eye(len(point)))
        policy = np.exp(simplex.log_softmax(point))
        np.testing.assert_allclose(images.imag / 1e-30, np.eye(len(point)) - policy[:, None], atol=1e-14)
        np.testing.assert_allclose(images.real, np.tile(simplex.log_softmax(point), (len(point), 1)), rtol=1e-15)


# --- maps and the limit ---------------------------------------------------------------------------------------------------


def test_a_map_is_its_points() -> None:
    game = nl.games.random_game(4, 1)
    found = stability.stability_map(game, dynamics.NashMD, [0.3, 2.0], [0.05, 0.2, 0.4])
    for k, beta in enumerate(found.betas):
        at = game.with_beta(float(beta))
        rates = [stability.local_rate(at, dynamics.NashMD(step_size=float(step))) for step in found.step_sizes]
        np.testing.assert_allclose(found.radius[k], rates, rtol=1e-9)
        np.testing.assert_allclose(found.critical_steps[k], stability.critical_step(at, "NashMD"), rtol=1e-9)
    spiral = stability.stability_map(nl.games.rock_paper_scissors(), "MultiplicativeWeights", [0.5], [0.1, 0.2])
    assert (spiral.radius > 1).all() and (spiral.critical_steps == 0).all()


def test_the_map_shows_where_the_radius_is_one() -> None:
    game = nl.games.rock_paper_scissors(margin=0.5)
    found = stability.stability_map(game, "NaturalPG", np.geomspace(0.05, 5, 60), np.geomspace(0.01, 0.1, 12))
    axes = found.plot()
    (contour,) = [c for c in axes.collections if type(c).__name__ == "QuadContourSet"]
    points = contour.get_paths()[0].vertices
    np.testing.assert_allclose(points[:, 0], 2 * points[:, 1] / (points[:, 1] ** 2 + 1 / 12), rtol=0.02)
    assert axes.get_xscale() == axes.get_yscale() == "log" and "NaturalPG" in axes.get_xlabel()
    (best,) = [line for line in axes.lines if line.get_gid() == "best"]
    seen = np.isfinite(best.get_xdata())
    np.testing.assert_allclose(best.get_xdata()[seen], (found.betas / (found.betas**2 + 1 / 12))[seen], rtol=0.05)
    nothing = stability.stability_map(nl.games.rock_paper_scissors(), "MultiplicativeWeights", [0.5, 1], [0.1, 0.2])
    assert not nothing.plot().collections


def test_the_stability_limit() -> None:
    """Claim `stability-limit`: time constants of order 1/β² and 1/β on the tournament of 21 actions."""
    found = stability.stability_limit()
    assert found.methods == ("SelfPlayPG", "NaturalPG", "NashMirrorProx", "ProximalPG")
    np.testing.assert_allclose(found.slopes[:2], -2.0, atol=0.02)
    np.testing.assert_allclose(found.slopes[2:], -1.0, atol=0.03)
    for row, times in zip(found.chosen, found.time_constants):
        for beta, method, time in zip(found.betas, row, times):
            local = stability.linearize(nl.games.cyclic_tournament(21, beta=float(beta)), method)
            np.testing.assert_allclose(local.time_constant, time, rtol=1e-5)
    assert "SelfPlayPG" in str(found)
    lines = [line for line in plots.stability_limit(found).lines if line.get_gid() is None]
    np.testing.assert_array_equal([line.get_ydata() for line in lines], found.time_constants)
    np.testing.assert_array_equal(lines[0].get_xdata(), 1 / found.betas)


def test_one_mode_has_no_such_limit() -> None:
    """The control: on the 3-cycle the time constant of the proximal methods tends to a constant, that of the others does not."""
    methods = ["NashMirrorProx", "OptimisticMirrorDescent", "SelfPlayPG"]
    found = stability.stability_limit(methods, game=nl.games.rock_paper_scissors(margin=0.5), tuning={})
    assert -0.16 < found.slopes[0] < 0.05 and -0.15 < found.slopes[1] < 0.05
    assert abs(found.slopes[2] + 2) < 0.02
    last = np.log(found.time_constants[:2, -1] / found.time_constants[:2, -2]) / np.log(found.betas[-1] / found.betas[-2])
    assert (np.abs(last) < 0.05).all()
