"""Log-linear policies: steps against an oracle in θ written from the formulas, and what the class can attain against searches.

The package runs steps on logits; the oracle here moves θ itself, context by context, with pseudo-inverses. Attainable values are
checked by cvxpy and on grids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse
from mpmath import mp
from scipy.optimize import minimize

import nlhfsim as nl
from nlhfsim import dynamics
from nlhfsim.dynamics import _spec
from nlhfsim.errors import InputError, NlhfsimWarning, SizeError
from nlhfsim.log_linear import attainable, features, shared
from nlhfsim.log_linear.features import DenseFeatures, SparseFeatures, least_squares

pytestmark = pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")

Floats = npt.NDArray[np.float64]

GRADIENT = ["SelfPlayPG", "ProximalPG", "NashProx", "IPOMD"]
MIRROR = [
    "NaturalPG",
    "MagneticMirrorDescent",
    "NashMD",
    "NashMirrorProx",
    "OptimisticMirrorDescent",
    "Extragradient",
    "MultiplicativeWeights",
    "MagnetRefresh",
]
SUPPORTED = GRADIENT + MIRROR


def example(name: str) -> dynamics.Dynamics:
    """The method's own example."""
    return dynamics.build(name, **dynamics.get(name).method.example)


def contexts_game(beta: float = 0.3) -> nl.PreferenceGame:
    """Three contexts of four actions with unequal weights and references."""
    rng = np.random.default_rng(5)
    matrices = np.stack([nl.games.random_game(4, seed).preferences for seed in (1, 2, 3)])
    return nl.PreferenceGame(matrices, beta, rng.dirichlet(np.ones(4), size=3), weights=[0.5, 0.3, 0.2])


@pytest.fixture(scope="module")
def three() -> nl.PreferenceGame:
    return contexts_game()


@pytest.fixture(scope="module")
def phi() -> Floats:
    """Three features that differ between contexts, shape (3, 4, 3)."""
    return np.random.default_rng(8).normal(size=(3, 4, 3))


@pytest.fixture(scope="module")
def one() -> nl.PreferenceGame:
    """One context of five actions."""
    return nl.games.random_game(5, 4, beta=0.2, reference=nl.games.random_reference(5, 9, 1.0))


# --- the oracle -----------------------------------------------------------------------------------------------------------


class Oracle:
    """The formulas of a log-linear class in θ, one context at a time."""

    def __init__(self, game: nl.PreferenceGame, phi: Floats) -> None:
        shape = (game.n_contexts, game.n)
        self.A, self.beta, self.phi = game.advantages.reshape(*shape, game.n), game.beta, phi
        self.rho, self.nu = game.reference.reshape(shape), game.weights

    def policy(self, theta: Floats) -> Floats:
        """π_θ of every context, shape (contexts, n)."""
        powers = self.rho * np.exp(self.phi @ theta)
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def gradient(self, theta: Floats, sampling: Floats | None = None, pull: float = 0.0, centre: Any = 0.0) -> Floats:
        """Σ_x ν_x φ_xᵀ J(π̃_x)(A_x π̃_x - β φ_x θ - τ φ_x (θ - θ̄)), at π̃ = π_θ if none is given."""
        total = np.zeros(len(theta))
        for x, pi in enumerate(self.policy(theta) if sampling is None else sampling):
            J = np.diag(pi) - np.outer(pi, pi)
            slope = self.A[x] @ pi - self.beta * self.phi[x] @ theta - pull * self.phi[x] @ (theta - centre)
            total += self.nu[x] * self.phi[x].T @ J @ slope
        return total

    def compatible(self, theta: Floats) -> Floats:
        """ŵ(π_θ) = F⁺ Σ_x ν_x φ_xᵀ J A π."""
        F, b = np.zeros((len(theta), len(theta))), np.zeros(len(theta))
        for x, pi in enumerate(self.policy(theta)):
            J = np.diag(pi) - np.outer(pi, pi)
            F += self.nu[x] * self.phi[x].T @ J @ self.phi[x]
            b += self.nu[x] * self.phi[x].T @ J @ self.A[x] @ pi
        return np.asarray(np.linalg.pinv(F, rcond=1e-13, hermitian=True) @ b)

    def iterates(self, name: str, theta: Floats, params: dict[str, Any]) -> Iterator[Floats]:
        """θ_1, θ_2, … of a method with the parameters of its factory."""
        gamma, beta = params.get("step_size", 0.0), self.beta
        w, share = self.compatible, gamma * beta
        centre, seen, taken = theta, self.compatible(theta), 0

        def prox(theta: Floats, gain: Floats) -> Floats:
            return (theta + gamma * gain) / (1 + share)

        while True:
            taken += 1
            if name == "SelfPlayPG":
                theta = theta + gamma * self.gradient(theta)
            elif name == "IPOMD":
                theta = theta + gamma * self.gradient(theta, self.policy((1 - params["mixing"]) * theta))
            elif name == "ProximalPG":
                centre = theta
                for _ in range(params["inner_steps"]):
                    slope = self.gradient(theta, pull=1 / params["proximal_step"], centre=centre)
                    theta = theta + params["inner_step_size"] * slope
            elif name == "NashProx":
                theta = theta + gamma * self.gradient(theta, pull=1 / params["proximal_step"], centre=centre)
                centre = (1 - params["averaging"]) * centre + params["averaging"] * theta
            elif name == "NaturalPG":
                theta = theta + gamma * (w(theta) - beta * theta)
            elif name == "MultiplicativeWeights":
                theta = theta + gamma * w(theta)
            elif name == "MagneticMirrorDescent":
                theta = prox(theta, w(theta))
            elif name == "NashMD":
                theta = (1 - share) * theta + gamma * w((1 - share) * theta)
            elif name == "NashMirrorProx":
                theta = prox(theta, w(prox(theta, w(theta))))
            elif name == "OptimisticMirrorDescent":
                seen = w(prox(theta, seen))
                theta = prox(theta, seen)
            elif name == "Extragradient":
                half = theta + gamma * (w(theta) - beta * theta)
                theta = theta + gamma * (w(half) - beta * theta)
            elif name == "MagnetRefresh":
                pull = gamma * params["magnet"]
                theta = (theta + pull * centre + gamma * w(theta)) / (1 + pull)
                centre = theta if taken % params["refresh_every"] == 0 else centre
            else:
                raise AssertionError(f"{name} has no oracle")
            yield theta


def test_every_method_with_a_log_linear_form_has_an_oracle() -> None:
    """What the registry says is what is tested here; their kinds are what their steps are."""
    kinds = {name: dynamics.get(name).method.log_linear for name in dynamics.names()}
    assert {name for name, kind in kinds.items() if kind == "gradient"} == set(GRADIENT)
    assert {name for name, kind in kinds.items() if kind == "mirror"} == set(MIRROR)


@pytest.mark.parametrize("name", SUPPORTED)
def test_steps_are_those_of_the_oracle(name: str, three: nl.PreferenceGame, phi: Floats) -> None:
    """θ after every one of 25 steps, more than the magnet's refresh takes, and the policies, from θ given."""
    method, theta, oracle = example(name), np.array([0.5, -1.0, 0.3]), Oracle(three, phi)
    run = nl.simulate(three, method, 25, record_every=1, start=theta, parametrization=nl.LogLinear(phi))
    iterates = oracle.iterates(name, theta, method.parameters)
    expected = [theta] + [next(iterates) for _ in range(25)]
    assert run.log_policies is not None and run.parameters.shape == (1, 3)
    np.testing.assert_allclose(np.exp(run.log_policies[0]), [oracle.policy(one) for one in expected], rtol=1e-10)
    np.testing.assert_allclose(run.parameters[0], expected[-1], rtol=1e-9, atol=1e-11)
    early = nl.simulate(three, method, 3, start=theta, parametrization=nl.LogLinear(phi))
    np.testing.assert_allclose(early.parameters[0], expected[3], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", SUPPORTED)
def test_identity_features_are_the_tabular_method(name: str, one: nl.PreferenceGame) -> None:
    """In one context with φ = I every method is its tabular self."""
    start, method = np.array([0.4, 0.3, 0.1, 0.1, 0.1]), example(name)
    tabular = nl.simulate(one, method, 60, start=start, record_every=1)
    theta = np.log(start) - one.log_reference
    run = nl.simulate(one, method, 60, start=theta, record_every=1, parametrization=nl.LogLinear(np.eye(5)))
    np.testing.assert_allclose(run.log_policies, tabular.log_policies, atol=1e-10)  # type: ignore[arg-type]
    for metric in ("kl", "exploitability", "gap0", "span", "min_probability"):
        np.testing.assert_allclose(run.metric(metric), tabular.metric(metric), rtol=1e-8, atol=1e-18)
    assert run.attainable is not None and run.attainable.kl < 1e-20 and run.attainable.exploitability < 1e-20
    np.testing.assert_allclose(run.attainable.class_exploitability, run.exploitability[:, -1], atol=1e-14)
    assert tabular.attainable is None and tabular.parametrization == "tabular"


@pytest.mark.parametrize("name", MIRROR)
def test_block_features_are_mirror_steps_of_each_context(name: str, three: nl.PreferenceGame) -> None:
    """With a block of its own for each context ŵ fits every payoff, so mirror methods are tabular whatever the weights."""
    blocks = np.eye(12).reshape(3, 4, 12)
    method = example(name)
    tabular = nl.simulate(three, method, 40, record_every=1)
    run = nl.simulate(three, method, 40, record_every=1, parametrization=nl.LogLinear(blocks))
    np.testing.assert_allclose(run.log_policies, tabular.log_policies, atol=1e-10)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", GRADIENT)
def test_block_features_weigh_the_gradient_of_each_context(name: str, three: nl.PreferenceGame) -> None:
    """With blocks a gradient step in context x is the tabular one at γν_x."""
    blocks, method = np.eye(12).reshape(3, 4, 12), example(name)
    run = nl.simulate(three, method, 30, parametrization=nl.LogLinear(blocks))
    for x, weight in enumerate(three.weights):
        alone = nl.simulate(three.context(x), method.with_step(weight * method.step_size), 30)
        np.testing.assert_allclose(run.final[0, x], alone.final[0], rtol=1e-10)  # type: ignore[index]


def test_tabular_is_the_default(one: nl.PreferenceGame) -> None:
    """nl.Tabular() changes no bit."""
    runs = [nl.simulate(one, "NaturalPG", 20, start="random", **options) for options in ({}, {"parametrization": nl.Tabular()})]
    np.testing.assert_array_equal(runs[0].log_policies, runs[1].log_policies)
    assert runs[1].attainable is None and runs[1].parametrization == "tabular"


def test_the_gradient_is_that_of_the_payoff(three: nl.PreferenceGame, phi: Floats) -> None:
    """(θ⁺ - θ)/γ of SelfPlayPG is the derivative in θ of P_β(π_θ ≻ μ) at μ = π_θ held fixed, to 40 digits by differences."""
    theta, gamma = [0.4, -0.7, 1.1], 1e-3
    with mp.workdps(40):

        def policy(theta: list[Any], x: int) -> list[Any]:
            powers = [mp.mpf(r) * mp.exp(mp.fdot(map(float, f), theta)) for r, f in zip(three.reference[x], phi[x])]
            return [p / mp.fsum(powers) for p in powers]

        def payoff(theta: list[Any], opponents: list[list[Any]]) -> Any:
            total = mp.mpf(0)
            for x, mu in enumerate(opponents):
                pi = policy(theta, x)
                for y in range(4):
                    won = mp.fsum(mp.mpf(three.preferences[x, y, z]) * mu[z] for z in range(4))
                    cost = mp.log(pi[y] / mp.mpf(three.reference[x, y]))
                    total += mp.mpf(three.weights[x]) * pi[y] * (won - mp.mpf(three.beta) * cost)
            return total

        at = [mp.mpf(t) for t in theta]
        frozen = [policy(at, x) for x in range(3)]
        size, expected = mp.mpf(10) ** -12, []
        for k in range(3):
            up, down = [[t + sign * size * (j == k) for j, t in enumerate(at)] for sign in (1, -1)]
            expected.append(float((payoff(up, frozen) - payoff(down, frozen)) / (2 * size)))
    run = nl.simulate(three, dynamics.SelfPlayPG(gamma), 1, start=theta, parametrization=nl.LogLinear(phi))
    np.testing.assert_allclose((run.parameters[0] - theta) / gamma, expected, rtol=1e-9)


# --- invariance, fixed points ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SUPPORTED)
def test_mirror_methods_do_not_see_a_change_of_basis(name: str, three: nl.PreferenceGame, phi: Floats) -> None:
    """φ → φM leaves the policies of mirror methods as they are and changes those of gradient methods; θ becomes M⁻¹θ."""
    M = np.array([[2.0, 0.3, 0.0], [-1.0, 0.5, 0.2], [0.0, 1.0, 3.0]])
    theta, method = np.array([0.2, 0.4, -0.6]), example(name)
    plain = nl.simulate(three, method, 20, start=theta, parametrization=nl.LogLinear(phi))
    mixed = nl.simulate(three, method, 20, start=np.linalg.solve(M, theta), parametrization=nl.LogLinear(phi @ M))
    assert plain.final is not None and mixed.final is not None
    if name in MIRROR:
        np.testing.assert_allclose(mixed.final, plain.final, rtol=1e-9)
        np.testing.assert_allclose(M @ mixed.parameters[0], plain.parameters[0], rtol=1e-8)
    else:
        assert np.abs(mixed.final - plain.final).max() > 1e-3


@pytest.mark.parametrize(("name", "step"), [("NaturalPG", 0.3), ("SelfPlayPG", 0.3), ("NashMirrorProx", 1.0)])
def test_the_fixed_point_is_stationary(name: str, step: float, three: nl.PreferenceGame, phi: Floats) -> None:
    """Where they come to rest Σ_x ν_x φ_xᵀ J(Aπ - βφθ) = 0, which π* does not solve: it is not in the class."""
    game = three.with_beta(0.5)
    run = nl.simulate(game, dynamics.build(name, step_size=step), 3000, parametrization=nl.LogLinear(phi))
    oracle = Oracle(game, phi)
    assert np.abs(oracle.gradient(run.parameters[0])).max() < 1e-12
    assert np.abs(oracle.gradient(run.parameters[0] + 0.01)).max() > 1e-4
    assert run.kl[0, -1] > run.attainable.kl > 1e-4  # type: ignore[union-attr]


def test_a_magnet_is_refreshed_when_the_inner_game_is_solved(three: nl.PreferenceGame, phi: Floats) -> None:
    """refresh_every=None with contexts of different constants: the magnet moves once the defect of θ is small, and not before."""
    method, kind = dynamics.MagnetRefresh(0.5, 0.5), nl.LogLinear(phi)
    runs = {steps: nl.simulate(three, method, steps, parametrization=kind) for steps in (5, 400)}
    reference = np.log(three.reference)
    np.testing.assert_allclose(runs[5].state["log_magnet"][0], reference, atol=1e-12)
    assert np.abs(runs[400].state["log_magnet"][0] - reference).max() > 1e-2


# --- features -------------------------------------------------------------------------------------------------------------


def sparse_of(phi: Floats) -> Any:
    """The same features as a sparse array, a row for each context and action."""
    return scipy.sparse.coo_array(phi.reshape(-1, phi.shape[-1]))


@pytest.mark.parametrize("name", SUPPORTED)
def test_sparse_features_are_the_dense_ones(
    name: str, three: nl.PreferenceGame, phi: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small sparse features are written out: the same bits. Large ones never are: the same to the tolerance of LSMR."""
    phi = np.where(np.abs(phi) < 0.4, 0.0, phi)
    options: dict[str, Any] = {"start": [0.3, -0.2, 0.5], "record_every": 1}
    dense = nl.simulate(three, example(name), 12, parametrization=nl.LogLinear(phi), **options)
    small = nl.simulate(three, example(name), 12, parametrization=nl.LogLinear(sparse_of(phi)), **options)
    np.testing.assert_array_equal(small.log_policies, dense.log_policies)
    monkeypatch.setattr(shared, "_DENSIFIED", 0)
    monkeypatch.setattr(scipy.sparse.csr_array, "toarray", lambda *a, **k: pytest.fail("written out"))
    large = nl.simulate(three, example(name), 12, parametrization=nl.LogLinear(sparse_of(phi)), **options)
    np.testing.assert_allclose(large.log_policies, dense.log_policies, rtol=1e-9, atol=1e-10)  # type: ignore[arg-type]
    np.testing.assert_allclose(large.parameters, dense.parameters, rtol=1e-8, atol=1e-10)
    assert dense.attainable is not None and large.attainable is not None
    np.testing.assert_allclose(large.attainable.kl, dense.attainable.kl, rtol=1e-9)
    np.testing.assert_allclose(large.attainable.exploitability, dense.attainable.exploitability, rtol=1e-5)


def test_many_sparse_features_are_never_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 contexts of 40 actions: all there is with 1,000 features; with 30,000 gradient steps, and what is not found is said."""
    monkeypatch.setattr(scipy.sparse.csr_array, "toarray", lambda *a, **k: pytest.fail("written out"))
    rng = np.random.default_rng(2)
    game = nl.games.low_rank(*rng.normal(size=(2, 40, 2)) / 5, beta=0.5)
    whole = nl.PreferenceGame([game.contexts[0].payoff] * 200, 0.5)
    few, many = (
        scipy.sparse.random_array((8000, d), density=share, rng=rng, format="csr") for d, share in ((1000, 2e-3), (30_000, 2e-4))
    )
    for method in (dynamics.SelfPlayPG(2.0), dynamics.NaturalPG(0.5)):
        run = nl.simulate(whole, method, 2, parametrization=nl.LogLinear(few), keep_policies=False)
        assert run.parameters.shape == (1, 1000) and run.attainable is not None
        assert run.exploitability[0, 0] > run.exploitability[0, -1] > run.attainable.exploitability
        assert run.kl[0, 0] > run.kl[0, -1] > run.attainable.kl > 0 and run.attainable.class_exploitability[0] > 0
    monkeypatch.setattr(features, "_ITERATIONS", 300)
    run = nl.simulate(whole, dynamics.SelfPlayPG(2.0), 2, parametrization=nl.LogLinear(many), keep_policies=False)
    assert run.parameters.shape == (1, 30_000) and run.exploitability[0, -1] < run.exploitability[0, 0]
    assert any("not all that is attainable was found: the projection on 30000 sparse features" in note for note in run.notes)
    with pytest.raises(SizeError, match="the projection on 30000 sparse features did not converge.*such as SelfPlayPG"):
        nl.simulate(whole, dynamics.NaturalPG(0.5), 2, parametrization=nl.LogLinear(many))


def test_default_steps_are_scaled_to_the_features(three: nl.PreferenceGame, phi: Floats) -> None:
    """A gradient step is divided by the largest eigenvalue of Σ ν φᵀ(I - 11ᵀ/n)φ, a mirror step is not."""
    centred = phi - phi.mean(axis=1, keepdims=True)
    largest = np.linalg.eigvalsh(np.einsum("x,xyi,xyj->ij", three.weights, centred, centred))[-1]
    for name, factor in (("SelfPlayPG", 1 / largest), ("NaturalPG", 1.0)):
        tabular = dynamics.build(name).resolve(three.contexts).step_size
        run = nl.simulate(three, name, 1, parametrization=nl.LogLinear(phi))
        assert run.params["step_size"] == pytest.approx(tabular * factor, rel=1e-12)
        assert run.proven_factor is None
    forms = DenseFeatures(phi), SparseFeatures(sparse_of(phi).tocsr(), 3)
    assert [form.stretch(three.weights[:, None]) for form in forms] == pytest.approx([largest, largest], rel=1e-9)
    one_column = SparseFeatures(sparse_of(phi[:, :, :1]).tocsr(), 3).stretch(three.weights[:, None])
    assert one_column == pytest.approx((three.weights[:, None] * centred[:, :, 0] ** 2).sum(), rel=1e-12)


def test_dependent_features_give_the_smallest_theta(three: nl.PreferenceGame, phi: Floats) -> None:
    """A repeated and a constant column change no policy; the note says so, and θ is that of the pseudo-inverse."""
    wide = np.concatenate([phi, 3 * phi[:, :, :1], np.full((3, 4, 1), 7.0)], axis=-1)
    plain = nl.simulate(three, dynamics.NaturalPG(0.3), 15, parametrization=nl.LogLinear(phi))
    run = nl.simulate(three, dynamics.NaturalPG(0.3), 15, parametrization=nl.LogLinear(wide))
    np.testing.assert_allclose(run.final, plain.final, rtol=1e-10)  # type: ignore[arg-type]
    first, second, third = plain.parameters[0]
    np.testing.assert_allclose(run.parameters[0], [first / 10, second, third, 3 * first / 10, 0], rtol=1e-9, atol=1e-12)
    assert any("features[..., 4] are constant over the actions" in note for note in run.notes)
    assert any("the 5 features have rank 3 up to constants" in note for note in run.notes)
    oracle = Oracle(three, wide)
    theta = np.zeros(5)
    for _, theta in zip(range(15), oracle.iterates("NaturalPG", theta, {"step_size": 0.3})):
        pass
    np.testing.assert_allclose(run.parameters[0], theta, rtol=1e-8, atol=1e-10)


def test_features_of_any_scale_are_told_apart(one: nl.PreferenceGame) -> None:
    """A column of size 1e-200 beside one of 1e8 on an offset counts; policies are those of well scaled columns."""
    plain = np.random.default_rng(3).normal(size=(5, 2))
    scaled = plain * [1e-200, 1e8] + [0.0, 1e3]
    runs = [nl.simulate(one, dynamics.NaturalPG(0.2), 10, parametrization=nl.LogLinear(phi)) for phi in (plain, scaled)]
    np.testing.assert_allclose(runs[1].final, runs[0].final, rtol=1e-6)  # type: ignore[arg-type]
    np.testing.assert_allclose(runs[1].parameters * [1e-200, 1e8], runs[0].parameters, rtol=1e-6)
    assert not any("rank" in note for note in runs[1].notes)


@pytest.mark.parametrize("peak", [1.0, 30.0, 600.0])
def test_projections_are_right_at_peaked_policies(peak: float) -> None:
    """Weighted least squares in 800 digits, for probabilities down to e^(-600): each entry of φŵ is right to 1e-9."""
    rng = np.random.default_rng(4)
    phi, values = rng.normal(size=(2, 6, 3)), rng.normal(size=(2, 6))
    logits = np.linspace(0, -peak, 6)[rng.permuted(np.tile(np.arange(6), (2, 1)), axis=1)]
    policy = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    weights = np.array([[0.7], [0.3]])
    with mp.workdps(800):
        F, b = mp.zeros(3, 3), mp.zeros(3, 1)
        for x in range(2):
            pi = [mp.mpf(p) for p in policy[x]]
            pi = [p / mp.fsum(pi) for p in pi]
            mean = [mp.fdot(pi, map(mp.mpf, phi[x, :, i])) for i in range(3)]
            average = mp.fdot(pi, map(mp.mpf, values[x]))
            for y in range(6):
                row = [mp.mpf(phi[x, y, i]) - mean[i] for i in range(3)]
                for i in range(3):
                    b[i] += mp.mpf(weights[x, 0]) * pi[y] * row[i] * (mp.mpf(values[x, y]) - average)
                    for j in range(3):
                        F[i, j] += mp.mpf(weights[x, 0]) * pi[y] * row[i] * row[j]
        w = np.array(mp.lu_solve(F, b).tolist(), dtype=float).ravel()
    found = DenseFeatures(phi).project(policy, weights, values)
    differences = (found - phi @ w) - (found - phi @ w)[:, :1]
    assert np.abs(differences).max() < 1e-9 * max(1.0, np.abs(w).max())


def test_parameters_that_are_not_found_are_noted(three: nl.PreferenceGame, phi: Floats, monkeypatch: pytest.MonkeyPatch) -> None:
    """θ is read off the logits by LSMR; where that ends early the note says how far its policies are off."""
    monkeypatch.setattr(shared, "_DENSIFIED", 0)
    monkeypatch.setattr(features, "_ITERATIONS", 1)
    run = nl.simulate(three, dynamics.SelfPlayPG(0.5), 5, parametrization=nl.LogLinear(sparse_of(phi)))
    (note,) = [note for note in run.notes if note.startswith("parameters are approximate")]
    policy = Oracle(three, phi).policy(run.parameters[0])
    away = np.log(policy / np.asarray(run.final)[0])
    off = np.abs(away - away.mean(axis=1, keepdims=True)).max()
    assert f"up to {off:.1g} from" in note and off > 1e-3


def test_least_squares_of_nothing_finite_is_nan() -> None:
    """A run that diverges inside a step reaches the projection with NaN and leaves it with NaN."""
    assert np.isnan(least_squares(np.array([[1.0], [np.inf]]), np.ones(2))).all()
    sparse = SparseFeatures(scipy.sparse.csr_array(np.eye(3)), 1)
    assert np.isnan(sparse.project(np.full((1, 3), np.nan), np.ones((1, 1)), np.ones((1, 3)))).all()


# --- what can be attained -------------------------------------------------------------------------------------------------


def searched_kl(game: nl.PreferenceGame, phi: Floats, targets: Floats) -> float:
    """min_θ Σ_x ν_x KL(p_x‖π_θ,x) by cvxpy, for policies of shape (contexts, n)."""
    theta, total = cp.Variable(phi.shape[-1]), 0.0
    for weight, p, rho, f in zip(game.weights, targets, game.reference.reshape(targets.shape), phi):
        logits = np.log(rho) + f @ theta
        total = total + weight * (cp.log_sum_exp(logits) - p @ logits + float((p * np.log(p)).sum()))
    problem = cp.Problem(cp.Minimize(total))
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    return float(problem.value)


def regularized_payoff(game: nl.PreferenceGame, pi: Floats, mu: Floats) -> Floats:
    """P_β(π ≻ μ) - 1/2, averaged over contexts, for policies (..., contexts, n)."""
    rho = game.reference.reshape(game.n_contexts, game.n)
    A = game.advantages.reshape(game.n_contexts, game.n, game.n)
    won = np.einsum("...xi,xij,...xj->...x", pi, A, mu)
    costs = [(p * np.log(p / rho)).sum(axis=-1) if game.beta else 0.0 for p in (pi, mu)]
    return np.asarray((won - game.beta * (costs[0] - costs[1])) @ game.weights)


def grid_of(d: int, width: float, count: int) -> Floats:
    """A grid of θ, shape (count^d, d)."""
    axes = np.meshgrid(*[np.linspace(-width, width, count)] * d, indexing="ij")
    return np.stack([axis.ravel() for axis in axes], axis=1)


def searched_exploitabilities(game: nl.PreferenceGame, policies: Floats) -> Floats:
    """E_β of each policy by its closed form (theory 1), averaged over contexts."""
    rho = game.reference.reshape(game.n_contexts, game.n)
    gain = np.einsum("xij,...xj->...xi", game.advantages.reshape(game.n_contexts, game.n, game.n), policies)
    if game.beta == 0:
        return np.asarray(gain.max(axis=-1) @ game.weights)
    response = game.beta * np.log((rho * np.exp(gain / game.beta)).sum(axis=-1))
    return np.asarray((response + game.beta * (policies * np.log(policies / rho)).sum(axis=-1)) @ game.weights)


@pytest.mark.parametrize("beta", [0.05, 0.3, 2.0])
def test_the_attainable_kl_is_the_convex_minimum(beta: float, phi: Floats) -> None:
    """Newton's answer against cvxpy, with a decrement at rounding; every run stays above it."""
    game = contexts_game(beta)
    run = nl.simulate(game, dynamics.NaturalPG(0.1), 300, start="random", runs=2, parametrization=nl.LogLinear(phi))
    assert run.attainable is not None
    assert run.attainable.kl == pytest.approx(searched_kl(game, phi, nl.solve(game).policy), rel=1e-6)
    assert 0 <= run.attainable.kl_gap < 1e-20 and (run.kl > run.attainable.kl).all()
    (note,) = [note for note in run.notes if "not a policy of these features" in note]
    assert f"attainable kl is {run.attainable.kl:.4g}" in note and f"{run.attainable.exploitability:.4g}" in note


@pytest.mark.parametrize("beta", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("d", [1, 2])
def test_exploitabilities_are_those_of_a_grid(d: int, beta: float, phi: Floats) -> None:
    """The least E_β of the class and what an opponent of it gains, against every policy of a grid, the best one polished."""
    game, phi = contexts_game(beta), phi[:, :, :d]
    method = dynamics.SelfPlayPG(0.2) if beta == 0 else dynamics.MagneticMirrorDescent(0.2)
    run = nl.simulate(game, method, 7, start="random", runs=2, parametrization=nl.LogLinear(phi))
    assert run.attainable is not None and run.final is not None
    oracle = Oracle(game, phi)
    grid = grid_of(d, 25.0, 10001 if d == 1 else 301)
    policies = np.stack([oracle.policy(theta) for theta in grid])

    def polished(values: Floats, value: Callable[[Floats], Any]) -> float:
        options = {"xatol": 1e-10, "fatol": 1e-14, "maxiter": 4000}
        start = grid[values.argmin()]
        return float(minimize(lambda t: float(value(oracle.policy(t))), start, method="Nelder-Mead", options=options).fun)

    with np.errstate(all="ignore"):
        values = searched_exploitabilities(game, policies)
        least = polished(np.nan_to_num(values, nan=9.0), lambda pi: searched_exploitabilities(game, pi))
        assert run.attainable.exploitability == pytest.approx(least, rel=5e-3 if beta == 0 else 1e-6)
        for found, mu, whole in zip(run.attainable.class_exploitability, run.final, run.exploitability[:, -1]):
            gained = regularized_payoff(game, policies, np.broadcast_to(mu, policies.shape))
            largest = -polished(np.nan_to_num(-gained, nan=9.0), lambda pi, mu=mu: -regularized_payoff(game, pi, mu))
            assert found == pytest.approx(largest, rel=1e-3 if beta == 0 else 1e-6, abs=1e-9) and found <= whole


def test_an_equilibrium_of_the_class_is_attained(three: nl.PreferenceGame) -> None:
    """One feature log π* - log ρ: π* is θ = 1, all attainable values are 0, and no note speaks of what is out of reach."""
    feature = (nl.solve(three).log_policy - three.log_reference)[..., None]
    run = nl.simulate(three, dynamics.NashMirrorProx(2.0), 400, parametrization=nl.LogLinear(feature))
    assert run.attainable is not None and run.attainable.kl < 1e-24 and run.attainable.exploitability < 1e-24
    np.testing.assert_allclose(run.parameters, [[1.0]], rtol=1e-10)
    assert run.kl[0, -1] < 1e-20 and run.attainable.class_exploitability[0] < 1e-15 and run.notes == ()


def test_without_an_equilibrium_the_reason_is_given(three: nl.PreferenceGame, phi: Floats) -> None:
    """equilibrium=False: no attainable kl, but the exploitabilities all the same, as they are with it."""
    runs = [
        nl.simulate(three, dynamics.NaturalPG(0.1), 5, parametrization=nl.LogLinear(phi), equilibrium=equilibrium)
        for equilibrium in (False, None)
    ]
    assert runs[0].attainable is not None and runs[1].attainable is not None
    assert np.isnan(runs[0].attainable.kl) and np.isnan(runs[0].kl).all()
    assert any(note.startswith("the attainable kl is NaN: no equilibrium was asked for") for note in runs[0].notes)
    assert runs[0].attainable.exploitability == pytest.approx(runs[1].attainable.exploitability, rel=1e-6)


def test_searches_too_large_are_left_out(three: nl.PreferenceGame, phi: Floats, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit the exploitabilities are NaN with a note; the kl is there."""
    monkeypatch.setattr(attainable, "_LARGEST", 10)
    run = nl.simulate(three, dynamics.NaturalPG(0.1), 5, parametrization=nl.LogLinear(phi))
    assert run.attainable is not None and np.isnan(run.attainable.exploitability) and run.attainable.kl > 0
    assert np.isnan(run.attainable.class_exploitability).all() and any("was not searched for" in note for note in run.notes)


@pytest.mark.parametrize("seed", [1, 2, 138])
def test_projections_of_peaked_policies_are_the_convex_minimum(seed: int) -> None:
    """Targets with probabilities below 1e-20, in seed 138 such that Newton's method alone misses the minimum."""
    rng = np.random.default_rng(seed)
    game = nl.PreferenceGame(np.full((2, 5, 5), 0.5), 1.0, rng.dirichlet(np.ones(5), size=2))
    phi, logits = rng.normal(size=(2, 5, 4)), 20 * rng.normal(size=(2, 5))
    target = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    kl, gap, nearest = attainable.kl_projection(shared.class_of(game, nl.LogLinear(phi)), target)
    assert kl == pytest.approx(searched_kl(game, phi, np.exp(target)), rel=1e-4, abs=1e-8) and gap < 1e-11
    nearest = nearest - nearest.max(axis=1, keepdims=True)
    log_policy = nearest - np.log(np.exp(nearest).sum(axis=1, keepdims=True))
    assert kl == pytest.approx(game.weights @ (np.exp(target) * (target - log_policy)).sum(axis=1), rel=1e-6, abs=1e-14)


def test_an_unregularized_equilibrium_at_the_border() -> None:
    """β = 0 with a sure winner: π* is approached as θ grows, so the smallest kl is 0, and so is the exploitability."""
    game = nl.PreferenceGame([[0.5, 0.9, 0.8], [0.1, 0.5, 0.7], [0.2, 0.3, 0.5]], 0.0)
    line = nl.LogLinear([[2.0], [1.0], [0.0]])
    run = nl.simulate(game, dynamics.SelfPlayPG(0.5), 50, parametrization=line)
    assert run.attainable is not None
    assert run.attainable.kl < 1e-9 and run.attainable.exploitability < 1e-3
    assert 0 < run.attainable.class_exploitability[0] <= run.exploitability[0, -1]


# --- starts ---------------------------------------------------------------------------------------------------------------


def begun(game: nl.PreferenceGame, phi: Any, **options: Any) -> nl.Trajectory:
    """A run of no steps."""
    return nl.simulate(game, dynamics.NaturalPG(0.1), 0, parametrization=nl.LogLinear(phi), **options)


def test_starts(three: nl.PreferenceGame, phi: Floats) -> None:
    """None and "reference" are θ = 0; θ is of all runs or one a run; a policy of the class is its θ."""
    oracle, theta = Oracle(three, phi), np.array([[0.5, -1.0, 2.0], [0.1, 0.0, 0.3]])
    for start in (None, "reference"):
        run = begun(three, phi, start=start, runs=2)
        np.testing.assert_allclose(run.parameters, np.zeros((2, 3)), atol=1e-15)
        np.testing.assert_allclose(run.final, [three.reference] * 2, rtol=1e-14)  # type: ignore[arg-type]
    np.testing.assert_allclose(begun(three, phi, start=theta[0], runs=2).parameters, [theta[0]] * 2, rtol=1e-12)
    for runs in (1, 2):
        np.testing.assert_allclose(begun(three, phi, start=theta, runs=runs).parameters, theta, atol=1e-13)
    policies = np.stack([oracle.policy(row) for row in theta])
    np.testing.assert_allclose(begun(three, phi, start=policies).parameters, theta, atol=1e-12)
    np.testing.assert_allclose(begun(three, phi, start=policies[0]).parameters, theta[:1], atol=1e-12)
    np.testing.assert_allclose(begun(three.with_reference(None), phi, start="uniform").parameters, np.zeros((1, 3)), atol=1e-13)


def test_random_starts_are_normal_and_scaled(three: nl.PreferenceGame, phi: Floats) -> None:
    """The same for a seed, different between runs, whatever the size of the features: φθ has mean square 1."""
    runs = [begun(three, scale * phi, start="random", runs=150, seed=7, equilibrium=False) for scale in (1.0, 50.0)]
    np.testing.assert_allclose(runs[0].final, runs[1].final, rtol=1e-9)  # type: ignore[arg-type]
    scores = np.einsum("xyi,ri->rxy", phi - phi.mean(axis=1, keepdims=True), runs[0].parameters)
    assert (scores**2).mean() == pytest.approx(1, abs=0.2)
    assert len(np.unique(runs[0].parameters)) == 450


def test_as_many_features_as_actions_is_theta(one: nl.PreferenceGame) -> None:
    """d = n: an array is θ, with a warning if it looks like a policy; with all its axes it is a policy."""
    phi, theta = np.random.default_rng(0).normal(size=(5, 5)), np.array([0.5, -0.5, 1.0, 0.0, 0.0])
    expected = Oracle(one, phi[None]).policy(theta)
    np.testing.assert_allclose(begun(one, phi, start=theta).final, expected, rtol=1e-10)  # type: ignore[arg-type]
    policy = [0.4, 0.3, 0.1, 0.1, 0.1]
    with pytest.warns(NlhfsimWarning, match=r"start is taken as theta.*\(d = n = 5\)") as caught:
        run = nl.simulate(one, dynamics.NaturalPG(0.1), 0, parametrization=nl.LogLinear(np.eye(5)), start=policy)
    assert caught[0].filename == __file__
    assert np.abs(np.asarray(run.final) - policy).max() > 0.05
    for start in ([[policy]], np.array([[policy], [policy]])):
        np.testing.assert_allclose(begun(one, np.eye(5), start=start).final[0], policy, rtol=1e-12)  # type: ignore[index]


# --- runs, schedules, records ---------------------------------------------------------------------------------------------


def test_several_runs_are_runs_one_by_one(three: nl.PreferenceGame, phi: Floats) -> None:
    """Nine runs, of which tabular ones would go together, with a step size each: the same bits as alone."""
    theta, steps = np.random.default_rng(1).normal(size=(9, 3)), tuple(0.05 * k for k in range(1, 10))
    whole = nl.simulate(three, dynamics.SelfPlayPG(steps), 12, start=theta, parametrization=nl.LogLinear(phi))
    assert whole.parameters.shape == (9, 3) and whole.log_policies is not None and whole.log_policies.shape[2:] == (3, 4)
    for k in (0, 5, 8):
        alone = nl.simulate(three, dynamics.SelfPlayPG(steps[k]), 12, start=theta[k], parametrization=nl.LogLinear(phi))
        np.testing.assert_array_equal(whole.log_policies[k], alone.log_policies[0])  # type: ignore[index]
        np.testing.assert_array_equal(whole.kl[k], alone.kl[0])


def test_records_are_where_asked(three: nl.PreferenceGame, phi: Floats) -> None:
    """record_every and keep_policies do what they do for tabular policies; oracle calls are counted the same."""
    kind = nl.LogLinear(phi)
    every = nl.simulate(three, dynamics.NashMirrorProx(0.5), 10, record_every=1, parametrization=kind)
    some = nl.simulate(three, dynamics.NashMirrorProx(0.5), 10, record_every=4, keep_policies="final", parametrization=kind)
    assert some.steps.tolist() == [0, 4, 8, 10] and some.oracle_calls.tolist() == [0, 8, 16, 20] and some.log_policies is None
    np.testing.assert_array_equal(some.kl, every.kl[:, [0, 4, 8, 10]])
    assert not every.compiled and every.by_context["kl"].shape == (1, 11, 3)
    oracle = Oracle(three, phi)
    np.testing.assert_allclose(every.exploitability[0, -1], searched_exploitabilities(three, oracle.policy(every.parameters[0])))


@pytest.mark.parametrize("name", SUPPORTED)
def test_a_run_cut_in_two_is_the_whole(name: str, three: nl.PreferenceGame, phi: Floats, tmp_path: Path) -> None:
    """7 steps, saved, loaded and continued by 6, are 13 steps bit for bit, what is attainable included."""
    kind, method = nl.LogLinear(phi), example(name)
    if name in ("SelfPlayPG", "NaturalPG"):
        method = method.with_step(nl.schedules.inverse_time(3, 5))
    whole = nl.simulate(three, method, 13, record_every=1, runs=2, start="random", seed=3, parametrization=kind)
    part = nl.simulate(three, method, 7, record_every=1, runs=2, start="random", seed=3, parametrization=kind)
    loaded = nl.load(part.save(tmp_path / "part"))
    rest = nl.simulate(three, method, 6, record_every=1, start=loaded, parametrization=nl.LogLinear(phi.copy()))
    for field in ("log_policies", "parameters", "final", "kl", "exploitability", "oracle_calls"):
        np.testing.assert_array_equal(getattr(rest, field), getattr(whole, field))
    assert rest.notes == whole.notes and rest.attainable is not None and whole.attainable is not None
    assert rest.attainable.to_dict() == whole.attainable.to_dict()
    stored = nl.load(whole.save(tmp_path / "whole"))
    assert stored.attainable is not None and stored.attainable.to_dict() == whole.attainable.to_dict()
    assert stored.parametrization == whole.parametrization


def test_a_run_continues_only_with_its_parametrization(three: nl.PreferenceGame, phi: Floats) -> None:
    """Tabular after log-linear, log-linear after tabular and other features are refused."""
    method = dynamics.NaturalPG(0.1)
    log_linear = nl.simulate(three, method, 2, parametrization=nl.LogLinear(phi))
    tabular = nl.simulate(three, method, 2)
    for start, kind in ((log_linear, None), (tabular, nl.LogLinear(phi)), (log_linear, nl.LogLinear(phi + 1e-9))):
        with pytest.raises(InputError, match="another parametrization, or other features"):
            nl.simulate(three, method, 2, start=start, parametrization=kind)


@pytest.mark.parametrize("sparse", [False, True])
def test_divergence_ends_all_contexts(sparse: bool, three: nl.PreferenceGame, monkeypatch: pytest.MonkeyPatch) -> None:
    """θ is shared, so the whole run ends at one step, with one note; the other run goes on to the end."""
    monkeypatch.setattr(shared, "_DENSIFIED", 0 if sparse else 2**22)
    phi = np.zeros((3, 4, 2))
    phi[0, 0, 0] = phi[1, 0, 1] = 1.0  # the third context never moves
    fast = nl.simulate(
        three.with_beta(10.0), dynamics.NaturalPG((1e6, 1e-3)), 100, start=[[3.0, -2.0], [0.5, 0.5]], record_every=1,
        parametrization=nl.LogLinear(sparse_of(phi) if sparse else phi),
    )  # fmt: skip
    assert fast.status == ("diverged", "completed")
    (note,) = [note for note in fast.notes if "stopped being finite" in note]
    end = int(note.split("at step ")[1].split(";")[0])
    assert np.isfinite(fast.by_context["span"][0, :end]).all() and np.isnan(fast.by_context["span"][0, end:]).all()
    assert np.isfinite(fast.by_context["span"][1]).all() and np.isnan(fast.parameters[0]).all()
    assert fast.attainable is not None and np.isnan(fast.attainable.class_exploitability).tolist() == [True, False]


# --- comparisons and figures ----------------------------------------------------------------------------------------------


def test_comparisons_say_what_is_attainable(three: nl.PreferenceGame, phi: Floats) -> None:
    """Rows carry the attainable values beside those reached, tuned and given methods alike; tabular rows do not."""
    kind = nl.LogLinear(phi)
    methods = [dynamics.NashMirrorProx(1.0), "SelfPlayPG"]
    comparison = nl.compare(three, methods, oracle_calls=60, step_sizes={"SelfPlayPG": [0.1, 1.0]}, parametrization=kind)
    for row, trajectory in zip(comparison.rows, comparison.trajectories):
        assert trajectory.attainable is not None and trajectory.parameters.shape == (1, 3)
        assert row["attainable_kl"] == trajectory.attainable.kl < row["final_kl"]
        assert row["attainable_exploitability"] == trajectory.attainable.exploitability < row["final_exploitability"]
        assert row["proven_factor"] is None and row["in_proven_range"] is None
    alone = nl.simulate(three, dynamics.NashMirrorProx(1.0), 30, parametrization=kind)
    assert comparison.rows[0]["final_kl"] == alone.kl[0, -1]
    assert "attainable_kl" not in nl.compare(three, methods[:1], oracle_calls=4).rows[0]
    with pytest.raises(InputError, match="FictitiousPlay has no log-linear form"):
        nl.compare(three, ["SelfPlayPG", "FictitiousPlay"], oracle_calls=10, parametrization=kind)


def test_tuning_tunes_the_log_linear_method(three: nl.PreferenceGame, phi: Floats) -> None:
    """Each grid point is the run of that step size."""
    kind, grid = nl.LogLinear(phi), [0.05, 0.4]
    tuning = nl.tune(three, dynamics.NaturalPG, grid, oracle_calls=20, parametrization=kind)
    for point, step in zip(tuning.grid, grid):
        assert point["value"] == nl.simulate(three, dynamics.NaturalPG(step), 20, parametrization=kind).kl[0, -1]
    assert tuning.trajectory.attainable is not None


def test_the_attainable_level_is_drawn(three: nl.PreferenceGame, phi: Floats) -> None:
    """A dotted line at the attainable kl and exploitability, with its key; none for what is negligible or tabular."""
    run = nl.simulate(three, dynamics.NaturalPG(0.1), 20, parametrization=nl.LogLinear(phi))
    assert run.attainable is not None
    for metric, level in (("kl", run.attainable.kl), ("exploitability", run.attainable.exploitability)):
        axes = nl.plots.convergence([run, nl.simulate(three, dynamics.NashMD(0.1), 20)], metric)
        (line,) = [line for line in axes.lines if line.get_gid() == "attainable"]
        assert set(line.get_ydata()) == {level}
        assert axes.get_ylim()[0] < level < axes.get_ylim()[1]
        assert "attainable with the features" in [text.get_text() for text in axes.get_legend().get_texts()]
    exact = nl.simulate(three, dynamics.NaturalPG(0.1), 20, parametrization=nl.LogLinear(np.eye(12).reshape(3, 4, 12)))
    for trajectory, metric in ((run, "gap0"), (exact, "kl"), (nl.simulate(three, dynamics.NaturalPG(0.1), 20), "kl")):
        assert not [line for line in trajectory.plot(metric).lines if line.get_gid() == "attainable"]


# --- what is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: np.ones(3), r"features has shape \(3,\), must be \(n, d\) or \(contexts, n, d\)"),
        (lambda: np.ones((2, 3, 4, 5)), r"features has shape \(2, 3, 4, 5\)"),
        (lambda: np.ones((4, 0)), r"features has shape \(4, 0\)"),
        (lambda: [[1.0, np.nan], [0.0, 1.0]], r"features\[0, 1\] = nan must be finite"),
        (lambda: [[1.0, 2.0], [0.0, -np.inf]], r"features\[1, 1\] = -inf must be finite"),
        (lambda: [["a"], ["b"]], "features must be an array of numbers"),
        (lambda: scipy.sparse.csr_array([[0, 0], [0, np.inf], [1, 0]]), r"features\[1, 1\] = inf must be finite"),
        (lambda: scipy.sparse.csr_array([[1j, 0]]), "must be real"),
    ],
)
def test_bad_features_are_refused(made: Callable[[], Any], message: str) -> None:
    """Shape and entries by name and position."""
    with pytest.raises(InputError, match=message):
        nl.LogLinear(made())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.ones((5, 2)), r"features has shape \(5, 2\), must be \(4, d\) or \(3, 4, d\) for this game"),
        (np.ones((2, 4, 2)), r"features has shape \(2, 4, 2\), must be \(4, d\)"),
        (
            scipy.sparse.csr_array(np.ones((4, 2))),
            "sparse features have 4 rows, must have 12: one for each of 3 contexts times 4",
        ),
        (np.ones((4, 2)), "features are constant over the actions of every context, so no policy depends on theta"),
        (np.zeros((3, 4, 1)), "features are constant"),
    ],
)
def test_features_that_do_not_fit_are_refused(given: Any, message: str, three: nl.PreferenceGame) -> None:
    """The shape wanted is that of the game; something must depend on θ."""
    with pytest.raises(InputError, match=message):
        nl.simulate(three, "NaturalPG", 1, parametrization=nl.LogLinear(given))


@pytest.mark.parametrize(
    ("start", "runs", "message"),
    [
        ([0.1, 0.2], 1, r"start has shape \(2,\), must be \(3, 4\) \(as theta it would have shape \(3,\) or \(runs, 3\)\)"),
        ([[0.1, 0.2], [0.1]], 1, "start must be an array of numbers"),
        (np.zeros((2, 3)), 3, "start holds 2 values of theta but runs = 3"),
        (np.zeros((0, 3)), 1, "start holds 0 values of theta"),
        ([0.1, np.nan, 0.0], 1, r"start\[1\] = nan must be finite"),
        ("unifrom", 1, "did you mean 'uniform'"),
        ("uniform", 1, "start is not a log-linear policy of these features: its log-probabilities are .* give theta itself"),
        (np.full((2, 3, 4), 0.25), 2, r"start\[0\] is not a log-linear policy"),
    ],
)
def test_bad_starts_are_refused(start: Any, runs: int, message: str, three: nl.PreferenceGame, phi: Floats) -> None:
    """Each with what would be right."""
    with pytest.raises(InputError, match=message):
        begun(three, phi, start=start, runs=runs)


def test_a_policy_just_outside_the_class_is_refused_with_its_distance(three: nl.PreferenceGame, phi: Floats) -> None:
    """A log-probability moved by 1e-6 is refused, by 1e-10 accepted."""
    policy = Oracle(three, phi).policy(np.array([0.3, 0.2, -0.1]))
    for size, refused in ((1e-6, True), (1e-10, False)):
        moved = policy * np.exp(size * np.eye(4)[:3])
        moved /= moved.sum(axis=1, keepdims=True)
        if refused:
            with pytest.raises(InputError, match=r"log-probabilities are [3-9]\.?\d*e-07 from"):
                begun(three, phi, start=moved)
        else:
            begun(three, phi, start=moved)


def test_methods_without_a_log_linear_form_are_refused(three: nl.PreferenceGame, phi: Floats) -> None:
    """By name, with those that have one; a method of the user's is taken if it declares its kind."""
    kind = nl.LogLinear(phi)
    for name in set(dynamics.names()) - set(SUPPORTED):
        with pytest.raises(
            InputError, match=f"{name} has no log-linear form; the methods that have one are Extragradient, .*SelfPlayPG"
        ):
            nl.simulate(three, name, 1, parametrization=kind)
    step = dynamics.get("MultiplicativeWeights").method.step
    with pytest.raises(InputError, match="Own has no log-linear form"):
        nl.simulate(three, _spec.Dynamics(_spec.Method("Own", step), step_size=0.2), 3, parametrization=kind)
    with pytest.raises(InputError, match="log_linear of Own = 'mirorr' is unknown; did you mean 'mirror'"):
        nl.simulate(three, _spec.Dynamics(_spec.Method("Own", step, log_linear="mirorr"), step_size=0.2), 3, parametrization=kind)
    own = nl.simulate(
        three, _spec.Dynamics(_spec.Method("Own", step, log_linear="mirror"), step_size=0.2), 3, parametrization=kind
    )
    same = nl.simulate(three, dynamics.MultiplicativeWeights(0.2), 3, parametrization=kind)
    np.testing.assert_array_equal(own.parameters, same.parameters)


def test_other_parametrizations_are_refused(three: nl.PreferenceGame, phi: Floats) -> None:
    """Bare features and names are not parametrizations."""
    for given in (phi, "log-linear", nl.LogLinear):
        with pytest.raises(InputError, match=r"must be nl.Tabular\(\) or nl.LogLinear\(features\)"):
            nl.simulate(three, "NaturalPG", 1, parametrization=given)


def test_features_are_kept_as_a_frozen_copy(phi: Floats) -> None:
    """The caller's array stays writable and apart; ours cannot be written to."""
    mine, matrix = phi.copy(), scipy.sparse.csr_array(phi[0])
    kinds = nl.LogLinear(mine), nl.LogLinear(matrix)
    mine[:], matrix.data[:] = 0.0, 0.0
    np.testing.assert_array_equal(kinds[0].features, phi)
    np.testing.assert_array_equal(kinds[1].features.toarray(), phi[0])
    for array in (kinds[0].features, kinds[1].features.data):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0
    assert repr(kinds[0]) == "LogLinear(features of shape (3, 4, 3))" and "sparse" in repr(kinds[1])


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_features_of_absurd_scale_are_refused(scale: float) -> None:
    """Their squares would overflow or vanish, and θ with them."""
    with pytest.raises(InputError, match="scale them"):
        nl.LogLinear(np.eye(3) * scale)
