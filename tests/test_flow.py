"""Continuous-time limits: methods with small steps tend to them, closed forms and proven identities hold along them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

import nlhfsim as nl
from nlhfsim import dynamics, plots
from nlhfsim.dynamics._flows import natural_gradient, policy_gradient
from nlhfsim.errors import EquilibriumStartWarning, InputError
from nlhfsim.games.payoffs import Context, DensePayoff
from nlhfsim.simplex import expect, log_softmax
from oracles import mp

pytestmark = pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")

Floats = npt.NDArray[np.float64]
Family = dict[str, nl.PreferenceGame]
Starts = dict[str, Floats]

WITH_FLOW = [name for name in dynamics.names() if dynamics.get(name).method.flow is not None]
SMOOTH = """
    Extragradient IPOMD MagneticMirrorDescent MultiplicativeWeights NashMD NashMirrorProx NashProx NaturalPG
    OptimisticMirrorDescent ProximalPG ProximalPoint SelfPlayPG
""".split()
CYCLE = nl.games.rock_paper_scissors(margin=0.4, bias=-0.1, beta=0.1)
START = [0.7, 0.2, 0.1]


def test_the_smooth_methods_have_a_flow() -> None:
    """Every method that was promised one has it; one that is not smooth has none."""
    assert set(SMOOTH) <= set(WITH_FLOW)
    assert all(dynamics.get(name).method.smooth for name in WITH_FLOW)


# --- methods tend to their flows -------------------------------------------------------------------------------------------

TIME = 1.5


class Case(NamedTuple):
    """A method at a given step size, the steps of its coarsest run, and how many step sizes one step uses."""

    at: Callable[[float], dynamics.Dynamics]
    steps: int = 120
    inner: int = 1


CASES = {
    name: Case(lambda step, name=name: dynamics.build(name, **{dynamics.get(name).method.scheduled: step})) for name in SMOOTH
}
CASES["IPOMD"] = Case(lambda step: dynamics.IPOMD(step, mixing=0.3))
CASES["ProximalPoint"] = Case(dynamics.ProximalPoint, steps=40)
CASES["ProximalPG"] = Case(lambda step: dynamics.ProximalPG(1.5, step, inner_steps=4), steps=240, inner=4)
CASES["NashProx"] = Case(lambda step: dynamics.NashProx(step, 1.5, averaging=0.4), steps=240)
CASES["NashProx, refreshed"] = Case(lambda step: dynamics.NashProx(step, 1.5, refresh_every=3), steps=240)
CASES["NashProx, slow centre"] = Case(lambda step: dynamics.NashProx(step, 2.0, averaging=0.05), steps=2000)


def half_beta(right: Any, context: Context, params: Any, logits: Floats) -> Floats:
    return np.asarray(right(context._replace(beta=context.beta / 2), params, logits))


def transposed(right: Any, context: Context, params: Any, logits: Floats) -> Floats:
    payoff = DensePayoff(np.ascontiguousarray(context.payoff.matrix.T))
    return np.asarray(right(context._replace(payoff=payoff), params, logits))


def other_metric(right: Any, context: Context, params: Any, logits: Floats) -> Floats:
    """J dropped where it belongs, put in where it does not."""
    if right in (natural_gradient, dynamics.get("MultiplicativeWeights").method.flow):
        return np.exp(log_softmax(logits)) * right(context, params, logits)
    return natural_gradient(context, params, logits)


def no_mixture(right: Any, context: Context, params: Any, logits: Floats) -> Floats:
    return policy_gradient(context, params, logits)


WRONG = {wrong.__name__: wrong for wrong in (half_beta, transposed, other_metric, no_mixture)}


def applies(name: str, wrong: str) -> bool:
    """Whether a wrong field differs from the right one."""
    if wrong == "half_beta":
        return name != "MultiplicativeWeights"
    return wrong != "no_mixture" or name == "IPOMD"


def with_wrong_flow(method: dynamics.Dynamics, wrong: str) -> dynamics.Dynamics:
    right = method.method.flow
    return replace(method, method=replace(method.method, flow=lambda c, p, x: WRONG[wrong](right, c, p, x)))


def limit(method: dynamics.Dynamics, game: nl.PreferenceGame, start: Floats, tolerance: float = 1e-12) -> Floats:
    """log π at TIME along a flow."""
    found = nl.flow(game, method, [TIME], start=start, rtol=tolerance, atol=tolerance, equilibrium=False)
    assert set(found.status) == {"completed"}
    return found.log_policies[:, -1]


def refined(case: Case, game: nl.PreferenceGame, start: Floats) -> list[Floats]:
    """log π at TIME of runs with γ, γ/2, γ/4."""
    finals = []
    for k in (case.steps, 2 * case.steps, 4 * case.steps):
        run = nl.simulate(game, case.at(TIME / k), k // case.inner, start=start, record_every=k, equilibrium=False)
        assert run.log_policies is not None
        finals.append(run.log_policies[:, -1])
    return finals


def orders(finals: list[Floats], target: Floats) -> Floats:
    """By what factor the error falls when γ is halved, in every run and context; the shape is (2, rows)."""
    errors = [np.linalg.norm((run - target).reshape(-1, target.shape[-1]), axis=-1) for run in finals]
    return np.array([errors[0] / errors[1], errors[1] / errors[2]])


@pytest.mark.parametrize("name", CASES)
def test_a_run_tends_to_the_flow_at_first_order(name: str, family: Family, starts: Starts) -> None:
    """Halving γ halves the distance of `simulate` from the flow, in every game, run and context; to no wrong field it falls."""
    base = name.partition(",")[0]
    for key, game in family.items():
        finals = refined(CASES[name], game, starts[key])
        method = CASES[name].at(1.0)
        right = orders(finals, limit(method, game, starts[key]))
        assert ((1.85 < right) & (right < 2.15)).all(), (key, right)
        for wrong in filter(lambda w: applies(base, w), WRONG):
            found = orders(finals, limit(with_wrong_flow(method, wrong), game, starts[key], 1e-9))
            assert (np.abs(found[1] - 2) > 0.5).all(), (key, wrong, found)


# --- closed forms ----------------------------------------------------------------------------------------------------------

MIRROR = [name for name in SMOOTH if dynamics.get(name).method.flow is natural_gradient]
GRADIENT = [name for name in SMOOTH if dynamics.get(name).method.flow is policy_gradient]
TIMES = np.array([0.3, 1.0, 4.0, 15.0])


def two_actions(beta: float, margin: float = 0.3) -> nl.PreferenceGame:
    return nl.PreferenceGame([[0.5, 0.5 + margin], [0.5 - margin, 0.5]], beta, [0.4, 0.6])


def log_odds(found: nl.Flow) -> Floats:
    """log π_0/π_1 at each record."""
    return np.asarray(found.log_policies[0, :, 0] - found.log_policies[0, :, 1])


@pytest.mark.parametrize("name", ["MultiplicativeWeights", *MIRROR])
def test_two_actions_grow_logistically(name: str) -> None:
    """Without regularization the log-odds of mirror flows grow by the margin per unit of time."""
    found = nl.flow(two_actions(0.0), name, TIMES, start=[0.1, 0.9])
    np.testing.assert_allclose(log_odds(found), np.log(1 / 9) + 0.3 * found.times, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", MIRROR)
def test_two_actions_relax_exponentially(name: str) -> None:
    """With it they relax to log ρ_0/ρ_1 + margin/β at the rate β."""
    found = nl.flow(two_actions(0.2), name, TIMES, start=[0.1, 0.9])
    end = np.log(0.4 / 0.6) + 0.3 / 0.2
    np.testing.assert_allclose(log_odds(found), end + (np.log(1 / 9) - end) * np.exp(-0.2 * found.times), rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", GRADIENT)
def test_two_actions_under_policy_gradient(name: str) -> None:
    """Without regularization x' = 2 margin σ(x)σ(-x) for the log-odds x, so x + sinh x grows by the margin per unit of time."""
    found = nl.flow(two_actions(0.0), name, TIMES, start=[0.1, 0.9])
    x = log_odds(found)
    np.testing.assert_allclose(x + np.sinh(x), x[0] + np.sinh(x[0]) + 0.3 * found.times, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", MIRROR)
@pytest.mark.parametrize("beta", [1e-3, 0.7, 40.0])
def test_without_preferences_policies_relax_to_the_reference(name: str, beta: float, family: Family) -> None:
    """On P = 1/2 the field is linear: log π - log ρ shrinks like exp(-βt), up to constants."""
    reference = family["peaked"].reference
    game = nl.PreferenceGame(np.full((6, 6), 0.5), beta, reference)
    found = nl.flow(game, name, TIMES, start="random", runs=2, seed=3, equilibrium=False)
    expected = log_softmax(
        np.log(reference) + (found.log_policies[:, :1] - np.log(reference)) * np.exp(-beta * found.times)[:, None]
    )
    np.testing.assert_allclose(found.log_policies, expected, rtol=0, atol=1e-7)


def test_the_replicator_conserves_its_distance() -> None:
    """KL(π*‖π_t) of an interior von Neumann winner is constant along the replicator, not along the policy gradient."""
    game = CYCLE.with_beta(0.0)
    found = nl.flow(game, "MultiplicativeWeights", 200.0, start=START)
    np.testing.assert_allclose(found.kl[0], found.kl[0, 0], rtol=1e-7)
    assert np.ptp(found.gap0[0]) > 0.05
    assert np.ptp(nl.flow(game, "SelfPlayPG", 200.0, start=START).kl[0]) > 0.1


# --- an integrator and a field of another making ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["NaturalPG", "SelfPlayPG", "MultiplicativeWeights"])
def test_taylor_series_in_probability_space_agree(name: str) -> None:
    """mpmath's Taylor integration of π' = π∘(w - ⟨π, w⟩), w = u or π∘(u - ⟨π, u⟩), in probability space."""
    game, until = CYCLE.with_reference([0.5, 0.3, 0.2]), 5
    beta = mp.mpf(0 if name == "MultiplicativeWeights" else game.beta)
    A, rho = [[mp.mpf(a) for a in row] for row in game.advantages.tolist()], [mp.mpf(r) for r in game.reference.tolist()]

    def centred(pi: list[Any], values: list[Any]) -> list[Any]:
        mean = mp.fsum(p * v for p, v in zip(pi, values))
        return [p * (v - mean) for p, v in zip(pi, values)]

    def field(t: Any, pi: list[Any]) -> list[Any]:
        u = [mp.fsum(a * p for a, p in zip(row, pi)) - beta * mp.log(pi[y] / rho[y]) for y, row in enumerate(A)]
        return centred(pi, centred(pi, u) if name == "SelfPlayPG" else u)

    with mp.workdps(13):
        expected = [float(p) for p in mp.odefun(field, 0, [mp.mpf(p) for p in START])(until)]
    np.testing.assert_allclose(nl.flow(game, name, [until], start=START).final[0], expected, rtol=0, atol=1e-9)


def test_stiff_games_agree_with_an_implicit_integrator(family: Family, starts: Starts) -> None:
    """At large β and for a peaked reference, against the implicit Radau method at a tighter tolerance."""
    from scipy.integrate import solve_ivp

    for game, until in ((family["random"].with_beta(1e4), 1e-2), (family["peaked"].with_beta(50.0), 3.0)):
        start = starts["random" if game.n == 10 else "peaked"][1]
        context = game.contexts[0]
        for name, field in (("NaturalPG", natural_gradient), ("SelfPlayPG", policy_gradient)):
            found = nl.flow(game, name, [until], start=start, equilibrium=False)
            other = solve_ivp(lambda t, x: field(context, None, x), (0, until), np.log(start), "Radau", rtol=1e-11, atol=1e-11)
            np.testing.assert_allclose(found.log_policies[0, -1], log_softmax(other.y[:, -1]), rtol=0, atol=1e-7)


# --- what is proven along the flows ----------------------------------------------------------------------------------------


def nodes(until: float, panels: int = 60, order: int = 8) -> tuple[Floats, Floats]:
    """Times and weights of a composite Gauss–Legendre rule on [0, until]; the last time is `until`, with weight 0."""
    points, weights = np.polynomial.legendre.leggauss(order)
    edges = np.linspace(0, until, panels + 1)
    half = until / panels / 2
    times = (edges[:-1, None] + half * (points + 1)).ravel()
    return np.append(times, until), np.append(np.tile(weights * half, panels), 0.0)


def integral(weights: Floats, rates: Floats) -> Floats:
    """The integral over time of rates ``(runs, records, ...)``, whose first record is time 0 and no node."""
    return np.asarray(np.einsum("t,rt...->r...", weights, rates[:, 1:]))


def both_kl(log_target: Floats, log_policies: Floats) -> tuple[Floats, Floats]:
    """KL(π*‖π) and KL(π‖π*), from the definition."""
    difference = log_target - log_policies
    return (np.exp(log_target) * difference).sum(axis=-1), -(np.exp(log_policies) * difference).sum(axis=-1)


def potential(log_target: Floats, logits: Floats) -> Floats:
    """Φ(θ) = Σ π*_y exp(-θ_y)."""
    return np.asarray(np.exp(log_target - logits).sum(axis=-1))


def along(
    name: str, family: Family, starts: Starts, solved: Any, until: float = 6.0
) -> Iterator[tuple[float, nl.Flow, Floats, Floats]]:
    """β, flow, log π* and quadrature weights on every game of the family."""
    times, weights = nodes(until)
    for key, game in family.items():
        target = solved(game)
        found = nl.flow(game, name, times, start=starts[key], rtol=1e-12, atol=1e-12, equilibrium=target)
        yield game.beta, found, target.log_policy, weights


def test_the_potential_of_policy_gradient_decreases_as_derived(family: Family, starts: Starts, equilibrium_of: Any) -> None:
    """dΦ/dt = -(β/Z)(KL(π‖π*) + KL(π*‖π)), Z = Σe^θ, integrated over time; with half of it, or without J, it is not so."""
    for name in ("SelfPlayPG", "NaturalPG"):
        for beta, found, target, weights in along(name, family, starts, equilibrium_of):
            phi = potential(target, found.logits)
            forward, backward = both_kl(target, found.log_policies)
            Z = np.exp(found.logits).sum(axis=-1)
            drop, derived = phi[:, 0] - phi[:, -1], integral(weights, beta / Z * (forward + backward))
            if name == "SelfPlayPG":
                np.testing.assert_allclose(drop, derived, rtol=1e-6, atol=1e-11 * phi.max())
                assert (np.diff(phi, axis=1) <= 1e-11 * phi.max()).all()
                half = integral(weights, beta / Z * forward)
                assert (np.abs(half / drop - 1) > 1e-3).all()
            else:
                assert (np.abs(derived / drop - 1) > 1e-3).all()


def test_sums_that_are_conserved(family: Family, starts: Starts) -> None:
    """Σθ along gradient flows, as 1ᵀJ = 0; log Σe^θ = 0 along mirror flows; each drifts along the other."""
    for key, game in family.items():
        gradient, mirror = (
            nl.flow(game, name, 20.0, start=starts[key], equilibrium=False) for name in ("SelfPlayPG", "NaturalPG")
        )
        sums = {found.dynamics: found.logits.sum(axis=-1) for found in (gradient, mirror)}
        partition = {found.dynamics: np.log(np.exp(found.logits).sum(axis=-1)) for found in (gradient, mirror)}
        scale = np.abs(gradient.logits).max()
        assert np.abs(sums["SelfPlayPG"] - sums["SelfPlayPG"][:, :1]).max() < 1e-11 * scale
        assert np.abs(partition["NaturalPG"]).max() < 1e-7
        assert np.abs(sums["NaturalPG"] - sums["NaturalPG"][:, :1]).max() > 1e-3 > 1e-5 < np.abs(partition["SelfPlayPG"]).max()


def test_policy_gradient_flow_converges_from_everywhere(family: Family, starts: Starts, equilibrium_of: Any) -> None:
    """To π*: in the end at a rate of 2β min π* or more (theory, section 6), but rare actions are slow to leave a corner."""
    for key, game in family.items():
        target = equilibrium_of(game)
        slow = game.beta * min(target.policy.min(), starts[key].min())
        if slow > 1e-9:
            found = nl.flow(game, "SelfPlayPG", 30 / slow, start=starts[key], equilibrium=target)
            assert found.status == ("completed",) * 2 and (found.kl[:, -1] < 1e-16).all(), key


def test_distance_along_mirror_flows_falls_as_derived(family: Family, starts: Starts, equilibrium_of: Any) -> None:
    """d KL(π*‖π)/dt = -β(KL(π‖π*) + KL(π*‖π)), integrated over time; half of it, or with J left in, is not so."""
    for name in ("NaturalPG", "SelfPlayPG"):
        for beta, found, target, weights in along(name, family, starts, equilibrium_of):
            forward, backward = both_kl(target, found.log_policies)
            drop, derived = forward[:, 0] - forward[:, -1], integral(weights, beta * (forward + backward))
            if name == "NaturalPG":
                np.testing.assert_allclose(drop, derived, rtol=1e-6, atol=1e-10)
                assert (np.abs(integral(weights, beta * backward) / drop - 1) > 1e-3).all()
            else:
                assert (np.abs(derived / drop - 1) > 1e-3).all()


@pytest.mark.parametrize("name", MIRROR)
def test_distance_along_mirror_flows_falls_at_the_rate_beta(
    name: str, family: Family, starts: Starts, equilibrium_of: Any
) -> None:
    """KL(π*‖π_t) ≤ exp(-βt) KL(π*‖π_0); from far out nearly with equality: a tenth more is refuted."""
    for key, game in family.items():
        found = nl.flow(game, name, 5 / game.beta, start=starts[key], equilibrium=equilibrium_of(game))
        assert (found.kl <= np.exp(-game.beta * found.times) * found.kl[:, :1] * (1 + 1e-9) + 1e-17).all(), key
        assert (found.fit_rate() <= np.exp(-game.beta)).all()
    far = nl.flow(CYCLE, name, 5.0, start=[1.0, 1e-60, 1e-60])
    bounds = [np.exp(-factor * CYCLE.beta * far.times[1:]) * far.kl[0, 0] for factor in (1.0, 1.1)]
    assert (far.kl[0, 1:] <= bounds[0]).all() and not (far.kl[0, 1:] <= bounds[1]).any()


def centred_ratio(found: nl.Flow, log_target: Floats) -> Floats:
    """w = θ - log π* without its mean."""
    ratio = found.log_policies - log_target
    return np.asarray(ratio - ratio.mean(axis=-1, keepdims=True))


def escape_game() -> nl.PreferenceGame:
    """The witness of `self-play-pg-span-bound`: 0 beats 1 and 2, 2 beats 1, 3 beats all."""
    P = np.full((4, 4), 0.5)
    for winner, loser in ((0, 1), (0, 2), (2, 1), (3, 0), (3, 1), (3, 2)):
        P[winner, loser], P[loser, winner] = 1.0, 0.0
    reference = np.exp([0.0, -6.0, -9.0, -8.0])
    return nl.PreferenceGame(P, 0.2, reference / reference.sum())


def test_span_along_policy_gradient_is_bounded(family: Family, equilibrium_of: Any) -> None:
    """‖θ_t - log ρ‖_sp ≤ n/β + log 4 ≤ n(1/β + log n) from θ_0 = log ρ, and each link of its proof.

    With w = log π - log π*, centred, Φ̄ = Σe^(-w) decreases; log(Φ̄_0/n) ≤ (1 - 1/n)/β and ≤ 1/(8β²), as w_0 spans at most 1/β;
    ‖w‖_sp ≤ n log(Φ̄/n) + log 4; and ‖log π* - log ρ‖_sp ≤ 1/β.
    """
    for game in (*family.values(), escape_game()):
        target, n = equilibrium_of(game), game.n
        found = nl.flow(game, "SelfPlayPG", np.geomspace(0.1, 1e4, 60), start="reference", equilibrium=False)
        assert (found.span <= n / game.beta + np.log(4)).all()
        w = centred_ratio(found, target.log_policy)
        level = np.log(np.exp(-w).mean(axis=-1))
        assert (np.diff(level, axis=1) <= 1e-9).all()
        assert (level[:, 0] <= min((1 - 1 / n) / game.beta, 1 / (8 * game.beta**2)) + 1e-12).all()
        assert (np.ptp(w, axis=-1) <= n * level + np.log(4) + 1e-9).all()


def test_links_of_the_span_bound_are_sharp() -> None:
    """‖w‖_sp ≤ n log(Φ̄/n) + log 4: equal with one w_y far up and one log 2 below the rest; 1/(8β²): with two halves."""
    n, low = 5, 12.0
    w = np.array([0.0, -low - np.log(2), -low, -low, -low])
    w[0] = -w.sum()
    slack = n * np.log(np.exp(-w).mean()) + np.log(4) - np.ptp(w)
    assert abs(slack) < 1e-12
    halves = np.array([0.5, 0.5, -0.5, -0.5]) * 0.01
    assert np.log(np.exp(-halves).mean()) == pytest.approx(0.01**2 / 8, rel=1e-4)


def test_span_along_policy_gradient_exceeds_that_of_the_equilibrium() -> None:
    """1/β bounds it at π* but not along the flow: 1.0063/β near t = 73,800, as along the method with γ = 5/6."""
    game = escape_game()
    found = nl.flow(game, "SelfPlayPG", np.geomspace(1.0, 1e6, 400), equilibrium=False)
    widest = int(found.span[0].argmax())
    assert 1.0062 < found.span[0, widest] * game.beta < 1.0064 and 7.0e4 < found.times[widest] < 7.8e4
    assert found.span[0, -1] * game.beta < 1


# --- the result ------------------------------------------------------------------------------------------------------------


def test_records_are_the_metrics_of_the_policies(family: Family, starts: Starts, equilibrium_of: Any) -> None:
    """Every metric is that of the recorded policies by the public functions; averages use the weights of the contexts."""
    game = family["contexts"]
    target = equilibrium_of(game)
    found = nl.flow(game, "NaturalPG", 3.0, start=starts["contexts"], records=4, equilibrium=target)
    assert found.times.tolist() == [0.0, 1.0, 2.0, 3.0] and found.logits.shape == found.log_policies.shape == (2, 4, 3, 4)
    np.testing.assert_array_equal(found.parameters, found.logits[:, -1])
    np.testing.assert_allclose(np.exp(found.log_policies[:, 0]), starts["contexts"], rtol=1e-12)
    for run in range(2):
        for k in range(4):
            policy = np.exp(found.log_policies[run, k])
            assert found.kl[run, k] == pytest.approx(float(nl.kl(target.policy, policy) @ game.weights), rel=1e-9)
            assert found.exploitability[run, k] == pytest.approx(nl.exploitability(game, policy), rel=1e-9)
            assert found.gap0[run, k] == pytest.approx(nl.exploitability(game, policy, regularized=False), rel=1e-9)
            assert found.min_probability[run, k] == pytest.approx(policy.min(), rel=1e-12)
            assert found.span[run, k] == pytest.approx(nl.span(np.log(policy) - game.log_reference).max(), rel=1e-9)
    assert found.final.shape == (2, 3, 4) and found.runs == 2 and found.by_context["kl"].shape == (2, 4, 3)
    assert repr(found) == "Flow(NaturalPG, runs=2, time=3, records=4, completed)"


def test_contexts_and_runs_are_on_their_own(family: Family, starts: Starts) -> None:
    """A game with contexts, and several runs, give what each gives alone."""
    game = family["contexts"]
    together = nl.flow(game, "SelfPlayPG", 3.0, start=starts["contexts"], equilibrium=False)
    for run in range(2):
        for k in range(3):
            alone = nl.flow(game.context(k), "SelfPlayPG", 3.0, start=starts["contexts"][run, k], equilibrium=False)
            np.testing.assert_allclose(together.logits[run, :, k], alone.logits[0], rtol=0, atol=1e-12)


def test_starts_are_those_of_simulate() -> None:
    """The same words, seed and runs start in the same policies."""
    for start in (None, "reference", "uniform", "random", [START, START]):
        runs = 2 if start == "random" else 1
        flowing = nl.flow(CYCLE.with_reference(START[::-1]), "NashMD", 1.0, start=start, runs=runs, seed=4)
        walking = nl.simulate(CYCLE.with_reference(START[::-1]), "NashMD", 0, start=start, runs=runs, seed=4)
        assert walking.log_policies is not None
        np.testing.assert_array_equal(flowing.log_policies[:, 0], log_softmax(walking.log_policies[:, 0]))
        assert flowing.seed == 4


def test_times_are_recorded_as_asked() -> None:
    """An array of times gets 0 in front where it lacks it; the values do not depend on what else is recorded."""
    few, many = (nl.flow(CYCLE, "NaturalPG", times, start=START) for times in ([2.0, 5.0], np.linspace(0, 5, 501)))
    assert few.times.tolist() == [0.0, 2.0, 5.0] and len(many.times) == 501
    np.testing.assert_allclose(few.kl[0], many.kl[0, [0, 200, 500]], rtol=1e-6)
    assert len(nl.flow(CYCLE, "NaturalPG", 5, start=START).times) == 201


def test_passages_rates_and_tables() -> None:
    """On P = 1/2 with two actions near ρ, KL falls like exp(-2βt): its passage, its factor, and its table."""
    game = nl.PreferenceGame([[0.5, 0.5], [0.5, 0.5]], 0.5)
    found = nl.flow(game, "NaturalPG", 60.0, start=[0.5001, 0.4999], records=601)
    assert found.fit_rate()[0] == pytest.approx(np.exp(-1.0), rel=1e-3)
    assert found.first_passage("kl", found.kl[0, 0] * np.exp(-2.05))[0] == pytest.approx(2.1, abs=1e-9)
    assert found.first_passage(eps=1e-300)[0] == np.inf
    frame = found.to_frame()
    assert list(frame.columns) == ["dynamics", "run", "times", "kl", "exploitability", "gap0", "span", "min_probability"]
    np.testing.assert_array_equal(frame["kl"], found.kl[0])
    np.testing.assert_array_equal(frame["times"], found.times)


def test_flows_are_drawn_against_time() -> None:
    """A curve of the recorded numbers, named a flow; orbits in the triangle; flows and runs do not share a clock."""
    found = nl.flow(CYCLE, "SelfPlayPG", 30.0, start=START)
    axes = found.plot()
    np.testing.assert_array_equal(axes.lines[0].get_xydata().T, [found.times, found.kl[0]])
    assert axes.get_xlabel() == "Time  $t$" and axes.lines[0].get_label() == "SelfPlayPG flow"
    run = nl.simulate(CYCLE, dynamics.SelfPlayPG(1.0), 30, start=START, compiled=False)
    assert len(plots.phase_portrait(CYCLE, [found, run], field=dynamics.IPOMD(mixing=0.5)).lines) == 4
    with pytest.raises(InputError, match="draw them apart"):
        plots.convergence([found, run])


def test_a_method_of_ones_own_flows() -> None:
    """A Method with a `flow` needs nothing else; a wrong shape is named; parameters are handed on."""

    def field(context: Context, params: Any, logits: Floats) -> Floats:
        return params.rate * (context.log_reference - logits)

    class Params(NamedTuple):
        rate: float

    mine = dynamics.Method("Mine", lambda *_: None, flow=field)
    found = nl.flow(CYCLE, dynamics.Dynamics(mine, Params(2.0)), 1.0, start=START)
    log_start = np.log(START)
    np.testing.assert_allclose(found.parameters[0], np.log(1 / 3) + (log_start - np.log(1 / 3)) * np.exp(-2.0), atol=1e-9)
    assert (found.dynamics, found.params) == ("Mine", {"rate": 2.0})
    with pytest.raises(InputError, match=r"the flow of Mine returns an array of shape \(2,\), must be \(3,\)"):
        nl.flow(CYCLE, replace(mine, flow=lambda context, params, logits: logits[:2]), 1.0, start=START)


# --- trouble ---------------------------------------------------------------------------------------------------------------


def flowing(field: Callable[..., Any]) -> dynamics.Method:
    return dynamics.Method("Mine", lambda *_: None, flow=field)


def test_a_flow_that_escapes_is_reported() -> None:
    """dθ/dt = 1 + θ² from θ = -1.1 and -1.8, … is at infinity before t = 2.7: records before it are right, NaN after."""
    escaping = flowing(lambda context, params, logits: 1 + logits**2)
    found = nl.flow(CYCLE, escaping, np.linspace(0, 5, 51), start="uniform", equilibrium=False)
    end = np.pi / 2 + np.arctan(np.log(3))
    inside = found.times < end
    np.testing.assert_allclose(found.logits[0, inside, 0], np.tan(found.times[inside] - np.arctan(np.log(3))), rtol=1e-6)
    assert found.status == ("failed",) and np.isnan(found.kl[0, ~inside]).all() and np.isnan(found.span[0, ~inside]).all()
    assert any(note.startswith("run 0: the integrator gave up at time 2.4") for note in found.notes)


def test_a_flow_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many evaluations the run fails with a note, and keeps the records that it has."""
    import sys

    monkeypatch.setattr(sys.modules["nlhfsim.flow"], "_EVALUATIONS", 500)
    found = nl.flow(CYCLE.with_beta(0.0), "MultiplicativeWeights", 1e6, start=[START, START], equilibrium=False)
    assert found.status == ("failed", "failed") and np.isnan(found.kl[:, 1:]).all() and np.isfinite(found.span[:, 0]).all()
    assert "500 evaluations of the field were not enough" in found.notes[0] and len(found.notes) == 3


def test_what_no_integrator_follows_is_given_up() -> None:
    """A field that is noise fails with the integrator's own words."""
    rng = np.random.default_rng(0)
    found = nl.flow(CYCLE, flowing(lambda context, params, logits: 1e3 * rng.standard_normal(3)), 1.0, start=START)
    assert found.status == ("failed",) and "the integrator gave up at time 0 (" in found.notes[0]


@pytest.mark.parametrize("beta", [1e-300, 1e-12, 1e12])
def test_extreme_regularization(beta: float) -> None:
    """A tiny β acts like none; a huge one leads to ρ at once."""
    game = CYCLE.with_reference([0.2, 0.3, 0.5]).with_beta(beta)
    found = nl.flow(game, "NaturalPG", 1.0, start=START, equilibrium=False)
    expected = game.reference if beta > 1 else nl.flow(game.with_beta(0.0), "MultiplicativeWeights", 1.0, start=START).final[0]
    assert found.status == ("completed",)
    np.testing.assert_allclose(found.final[0], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["NaturalPG", "SelfPlayPG"])
@pytest.mark.parametrize("beta", [1e100, 1e160, 1e300])
def test_regularization_beyond_reach_fails_with_a_note(name: str, beta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """No warning, no crash, no wrong number."""
    import sys

    monkeypatch.setattr(sys.modules["nlhfsim.flow"], "_EVALUATIONS", 5000)
    found = nl.flow(CYCLE.with_reference([0.2, 0.3, 0.5]).with_beta(beta), name, 1.0, start=START, equilibrium=False)
    if found.status == ("failed",):
        assert "the integrator gave up" in found.notes[0] and np.isnan(found.final).all()
        assert beta < 1e150 or "the step became too small" in found.notes[0]
    else:
        np.testing.assert_allclose(found.final[0], [0.2, 0.3, 0.5], atol=1e-9)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_interrupts_and_errors_of_a_field_come_through(error: type[BaseException]) -> None:
    """What a field raises while it is integrated reaches the caller."""
    calls: list[int] = []

    def field(context: Context, params: Any, logits: Floats) -> Floats:
        calls.append(1)
        if len(calls) > 20:
            raise error
        return natural_gradient(context, params, logits)

    with pytest.raises(error):
        nl.flow(CYCLE, flowing(field), 50.0, start=START)
    assert nl.flow(CYCLE, "NaturalPG", 50.0, start=START).status == ("completed",)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "negative time": ({"time": -1.0}, "time = -1 must be positive"),
    "no time": ({"time": 0}, "time = 0 must be positive"),
    "NaN": ({"time": float("nan")}, "time = nan must be finite"),
    "NaN among times": ({"time": [0.0, float("nan")]}, r"time\[1\] = nan must be finite"),
    "decreasing": ({"time": [1.0, 3.0, 2.0]}, r"time\[2\] = 2 must be above time\[1\] = 3"),
    "twice": ({"time": [1.0, 1.0]}, r"time\[1\] = 1 must be above"),
    "before the start": ({"time": [-1.0, 3.0]}, r"time\[0\] = -1 must not be negative"),
    "only the start": ({"time": [0.0]}, "must hold a positive time"),
    "no times": ({"time": []}, r"time has shape \(0,\)"),
    "table of times": ({"time": [[1.0, 2.0]]}, r"time has shape \(1, 2\)"),
    "words": ({"time": "long"}, "time must be an array of numbers"),
    "records": ({"records": 1}, "records = 1 must be at least 2"),
    "records and times": ({"time": [1.0], "records": 5}, "records = 5 must not be given"),
    "not smooth": (
        {"method": "MagnetRefresh"},
        "method = MagnetRefresh has no continuous-time limit; choose one of .*SelfPlayPG",
    ),
    "no method": ({"method": 3}, "method = 3 must be a method"),
    "unknown": ({"method": "NashMirorProx"}, "did you mean 'NashMirrorProx'"),
    "rtol": ({"rtol": 0.0}, "rtol = 0 must lie between 1e-13 and 0.01"),
    "atol": ({"atol": -1e-9}, "atol = -1e-09 must be positive"),
    "runs": ({"runs": 0}, "runs = 0 must be at least 1"),
    "seed": ({"seed": -1}, "seed = -1 must be at least 0"),
    "start": ({"start": [0.5, 0.5]}, r"start has shape \(2,\)"),
    "start with a zero": ({"start": [0.5, 0.5, 0.0]}, r"start\[2\] = 0 must be positive"),
    "game": ({"game": 7}, "game = 7 must be a PreferenceGame"),
    "equilibrium": ({"equilibrium": 7}, "equilibrium = 7 must be the result of nl.solve"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused(name: str) -> None:
    """One sentence with the argument, its value, and what would be right."""
    changes, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        nl.flow(**({"game": CYCLE, "method": "NaturalPG", "time": 5.0, "start": START} | changes))


def test_a_flow_is_no_start() -> None:
    """Its last policies are."""
    found = nl.flow(CYCLE, "NaturalPG", 5.0, start=START)
    with pytest.raises(InputError, match="start is a Flow; give its policies: start=before.final"):
        nl.flow(CYCLE, "NaturalPG", 5.0, start=found)
    whole = nl.flow(CYCLE, "NaturalPG", 10.0, start=START)
    np.testing.assert_allclose(nl.flow(CYCLE, "NaturalPG", 5.0, start=found.final).final, whole.final, atol=1e-9)


def test_a_start_at_the_equilibrium_is_warned_about() -> None:
    """As by simulate: the curves show nothing."""
    with pytest.warns(EquilibriumStartWarning, match="the start is the equilibrium already"):
        found = nl.flow(nl.games.rock_paper_scissors(0.5, beta=0.1), "SelfPlayPG", 5.0)
    assert np.isfinite(found.kl).all()


def test_fields_keep_leading_axes(family: Family, starts: Starts) -> None:
    """On many policies at once a field gives what it gives on each; it does not change them."""
    game = family["low-rank"]
    logits = np.log(starts["low-rank"])
    logits.setflags(write=False)
    for name in WITH_FLOW:
        built = dynamics.build(name, **dynamics.get(name).method.example)
        field: Any = built.method.flow
        together = field(game.contexts[0], built.params, logits)
        np.testing.assert_allclose(together, [field(game.contexts[0], built.params, row) for row in logits], rtol=0, atol=1e-15)
        moved = np.exp(log_softmax(logits)) * (together - expect(np.exp(log_softmax(logits)), together))
        np.testing.assert_allclose(plots.flow(game, np.exp(logits), built), moved, rtol=0, atol=1e-15)
