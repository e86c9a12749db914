"""Certified equilibria: solvers against one another, closed forms, linear programs; certificates at 60 digits; honest status."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq, linprog

import nlhfsim as nl
from nlhfsim import equilibrium as module
from nlhfsim import solvers
from nlhfsim.errors import InputError, UnknownNameError
from nlhfsim.games.payoffs import dense
from nlhfsim.solvers import interior_point as interior_point_module
from nlhfsim.solvers import newton as newton_module

mp = oracles.mp
Floats = npt.NDArray[np.float64]
EPS = float(np.finfo(np.float64).eps)


def allowed(beta: float) -> float:
    """The log-ratio residual up to which an equilibrium counts as certified."""
    return max(1e-12, 8 * EPS / beta)


def textbook_certificates(game: nl.PreferenceGame, log_policy: Floats) -> tuple[list[float], float]:
    """Exploitability by context, β log Σ ρ exp(Aμ/β) + β KL(μ‖ρ), and the largest span of log μ - log BR(μ), at 60 digits."""
    exploitabilities, residual = [], mp.mpf(0)
    for context, row in zip(game.contexts, log_policy.reshape(game.n_contexts, game.n)):
        logs = oracles.numbers(row)
        log_mass = mp.log(mp.fsum(mp.exp(v) for v in logs))
        logs = [v - log_mass for v in logs]
        mu = [mp.exp(v) for v in logs]
        raw = oracles.numbers(context.log_reference)
        log_rho = [v - mp.log(mp.fsum(mp.exp(w) for w in raw)) for v in raw]
        beta = mp.mpf(game.beta)
        tilt = [
            r + mp.fsum(mp.mpf(a) * m for a, m in zip(line, mu)) / beta
            for r, line in zip(log_rho, dense(context.payoff).tolist())
        ]
        partition = mp.log(mp.fsum(mp.exp(t) for t in tilt))
        distance = mp.fsum(m * (v - r) for m, v, r in zip(mu, logs, log_rho))
        exploitabilities.append(float(beta * (partition + distance)))
        residual = max(residual, oracles.span([v - t for v, t in zip(logs, tilt)]))
    return exploitabilities, float(residual)


def biased_cycle(beta: float) -> nl.PreferenceGame:
    """Rock–paper–scissors with unequal margins and a reference of its own."""
    return nl.PreferenceGame([[0.5, 0.9, 0.2], [0.1, 0.5, 1.0], [0.8, 0.0, 0.5]], beta, [0.5, 0.2, 0.3])


# --- closed forms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 5, 21])
@pytest.mark.parametrize("beta", [1e-4, 0.1, 10.0, 0.0])
def test_a_uniform_cycle_has_the_uniform_equilibrium(n: int, beta: float) -> None:
    """By symmetry π* is uniform on a regular cycle with uniform reference, and the only equilibrium."""
    found = nl.solve(nl.games.cyclic_tournament(n, 0.4, beta=beta))
    np.testing.assert_allclose(found.policy, 1 / n, rtol=1e-12)
    assert found.status == "certified" and found.unique is True and found.face_dimension == 0


@pytest.mark.parametrize("beta", [1e-3, 0.05, 1.0, 30.0])
@pytest.mark.parametrize("margin", [1e-3, 0.2, 0.5])
def test_two_actions_solve_a_scalar_equation(beta: float, margin: float) -> None:
    """With two actions log(p/(1-p)) = log(ρ/(1-ρ)) + a/β: the margin does not depend on the opponent."""
    game = nl.PreferenceGame([[0.5, 0.5 + margin], [0.5 - margin, 0.5]], beta, [0.3, 0.7])
    found = nl.solve(game)
    odds = found.log_policy[0] - found.log_policy[1]
    # (Aπ)_0 - (Aπ)_1 = a(π_1 + π_0) = a
    assert odds == pytest.approx(np.log(0.3 / 0.7) + margin / beta, rel=1e-12)


def test_a_bystander_solves_a_scalar_equation() -> None:
    """Symmetric cycle plus an action that each of the three beats: one unknown, found by bisection."""
    beta, margin, loss = 0.2, 0.4, 0.3
    A = np.zeros((4, 4))
    for i in range(3):
        A[i, (i + 1) % 3], A[(i + 1) % 3, i], A[i, 3], A[3, i] = margin, -margin, loss, -loss
    # q on the bystander: log((1-q)/3) - log q = (loss q + loss (1 - q))/β
    q = brentq(lambda q: np.log((1 - q) / 3 / q) - loss / beta, 1e-9, 1 - 1e-9, xtol=1e-15)
    np.testing.assert_allclose(nl.solve(nl.PreferenceGame(A + 0.5, beta)).policy, [(1 - q) / 3] * 3 + [q], rtol=1e-12)


def test_strong_regularization_returns_the_reference() -> None:
    """log(π*/ρ) = (Aπ*)/β up to a constant, so its span times β tends to that of Aρ as β grows."""
    game = nl.games.random_game(6, 0, beta=1e4, reference=nl.games.random_reference(6, 1, 2.0))
    found = nl.solve(game)
    first_order = game.advantages @ game.reference / 1e4
    difference = found.log_policy - game.log_reference - first_order
    assert np.ptp(difference) < 1e-8
    assert 0 < nl.span(found.log_policy - game.log_reference) <= 1e-4


@pytest.mark.parametrize("scale", [1e-6, 0.01, 0.5])
def test_only_the_ratio_of_margins_to_beta_matters(scale: float) -> None:
    """Scaling A and β together leaves π* where it is; at β = 0 the scale of A alone does not matter."""
    A = nl.games.random_game(7, 3).advantages
    for beta in (0.05, 0.0):
        plain = nl.solve(nl.PreferenceGame(A + 0.5, beta))
        scaled = nl.solve(nl.PreferenceGame(scale * A + 0.5, scale * beta))
        np.testing.assert_allclose(scaled.policy, plain.policy, rtol=0, atol=1e-16 / scale + 1e-12)
        assert scaled.unique is plain.unique is True


def test_a_game_of_one_action() -> None:
    """One action is the equilibrium, for every β and by every solver."""
    for beta, methods in ((0.0, ("auto", "interior-point", "cvxpy")), (0.1, ("auto", "newton", "cvxpy"))):
        for method in methods:
            found = nl.solve(nl.PreferenceGame([[0.5]], beta), method)
            assert found.policy.tolist() == [1.0] and found.status == "certified" and found.unique is True


# --- solvers against each other -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [2.0, 0.1, 0.01])
@pytest.mark.parametrize("law", ["uniform", "zero-one", "low-rank", "near-ties"])
def test_newton_agrees_with_cvxpy(law: str, beta: float) -> None:
    """‖newton - cvxpy‖₁ ≤ sqrt(2 E_β(cvxpy)/β) (E_β ≥ β KL(·‖π*), Pinsker): the distance its own certificate allows."""
    game = nl.games.random_game(6, 4, law, beta=beta, reference=nl.games.random_reference(6, 5, 1.5))
    newton, cvxpy = nl.solve(game, "newton"), nl.solve(game, "cvxpy")
    assert newton.status == "certified" and cvxpy.status in ("certified", "approximate")
    assert newton.method == "newton" and cvxpy.method == "cvxpy"
    assert newton.kl_bound is not None and cvxpy.kl_bound is not None
    distance = np.abs(newton.policy - cvxpy.policy).sum()
    assert distance <= np.sqrt(2 * cvxpy.kl_bound) + np.sqrt(2 * newton.kl_bound)
    assert distance < 1e-4


def test_cvxpy_agrees_in_every_context(
    family: dict[str, nl.PreferenceGame], equilibrium_of: Callable[..., nl.Equilibrium]
) -> None:
    """The family's game with contexts: cvxpy context by context, within the bound of its certificate."""
    game = family["contexts"]
    cvxpy = nl.solve(game, "cvxpy")
    distances = np.abs(cvxpy.policy - equilibrium_of(game).policy).sum(axis=-1)
    assert (distances <= np.sqrt(2 * cvxpy.exploitability_by_context / game.beta) + 1e-12).all()


def test_newton_agrees_with_sixty_digits() -> None:
    """The equilibrium of a small game at 60 digits, by look-ahead ascent and Newton in probability space."""
    game = nl.PreferenceGame([[0.5, 0.875, 0.25], [0.125, 0.5, 1.0], [0.75, 0.0, 0.5]], 0.0625, [0.5, 0.25, 0.25])
    exact = oracles.equilibrium(game.preferences.tolist(), game.reference.tolist(), game.beta)
    np.testing.assert_allclose(nl.solve(game).policy, [float(p) for p in exact], rtol=1e-13)


# --- certificates ---------------------------------------------------------------------------------------------------------


def test_certificates_are_what_they_say(game: nl.PreferenceGame, equilibrium_of: Callable[..., nl.Equilibrium]) -> None:
    """Exploitability, KL bound and residual equal their definitions at 60 digits (the residual up to its own rounding)."""
    found = equilibrium_of(game)
    exploitabilities, residual = textbook_certificates(game, found.log_policy)
    assert found.residual is not None and found.kl_bound is not None
    assert residual <= allowed(game.beta) and abs(found.residual - residual) <= allowed(game.beta)
    assert found.exploitability == pytest.approx(float(np.dot(found.exploitability_by_context, game.weights)), rel=1e-14)
    assert found.kl_bound == pytest.approx(found.exploitability / game.beta, rel=1e-14)
    assert max(exploitabilities) <= 1e-24
    assert found.policy.shape == game.policy_shape and not found.policy.flags.writeable and not found.log_policy.flags.writeable
    np.testing.assert_array_equal(found.policy, np.exp(found.log_policy))


@pytest.mark.parametrize("distance", [1e-10, 1e-6, 1e-2, 1.0])
def test_certificates_of_wrong_policies_are_accurate(distance: float, game: nl.PreferenceGame) -> None:
    """Away from π* exploitability and residual keep ten digits, however small they are."""
    rng = np.random.default_rng(0)
    logs = nl.solve(game).log_policy + distance * rng.standard_normal(game.policy_shape)
    logs = logs - np.log(np.exp(logs).sum(axis=-1, keepdims=True))
    answers = [solvers.Answer(row, "by hand", "optimal") for row in logs.reshape(game.n_contexts, game.n)]
    found = module._assemble(game, answers)
    exploitabilities, residual = textbook_certificates(game, logs)
    slack = 1e-10 + 10 * allowed(game.beta) / distance
    np.testing.assert_allclose(found.exploitability_by_context, exploitabilities, rtol=2 * slack)
    assert found.residual == pytest.approx(residual, rel=slack)
    assert found.status != "certified"


@given(st.floats(-14, 1), st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 0.1, 2.0]))
def test_status_follows_from_the_policy_alone(exponent: float, seed: int, beta: float) -> None:
    """Certified exactly if the residual at 60 digits is small, approximate if the KL bound is; whatever the solver says."""
    game = biased_cycle(beta)
    logs = nl.solve(game).log_policy + 10**exponent * np.random.default_rng(seed).standard_normal(3)
    logs = logs - np.log(np.exp(logs).sum())
    found = module._assemble(game, [solvers.Answer(logs, "liar", "optimal")])
    (exploitability,), residual = textbook_certificates(game, logs)
    if residual > 1.1 * allowed(beta) + 4 * EPS / beta:
        assert found.status != "certified"
    if residual < 0.9 * allowed(beta) - 4 * EPS / beta:
        assert found.status == "certified"
    if exploitability / beta > 1.01e-4:
        assert found.status == "failed"


@pytest.mark.parametrize(("gap", "status"), [(1e-3, "failed"), (1e-5, "failed"), (1e-8, "approximate"), (1e-11, "approximate")])
def test_status_without_regularization(gap: float, status: str) -> None:
    """At β = 0 the exploitability alone decides: a policy that loses 1e-11 is not certified."""
    game = nl.games.rock_paper_scissors(0.5, beta=0.0)
    policy = np.full(3, 1 / 3) + 2 * gap * np.array([1, -1, 0])
    found = module._assemble(game, [solvers.Answer(np.log(policy), "liar", "optimal", 0)])
    assert found.exploitability == pytest.approx((game.advantages @ policy).max(), rel=1e-4)
    assert found.status == status and found.kl_bound is None and found.residual is None
    assert found.unique is (None if status == "failed" else True)


def test_the_worst_context_gives_the_status() -> None:
    """One wrong context out of two makes the whole equilibrium failed, and names both solvers."""
    game = nl.PreferenceGame(np.stack([biased_cycle(0.1).preferences] * 2), 0.1)
    right = nl.solve(game).log_policy
    answers = [solvers.Answer(right[0], "good", "fine"), solvers.Answer(np.log([0.98, 0.01, 0.01]), "bad", "optimal")]
    found = module._assemble(game, answers)
    assert found.status == "failed" and found.method == "good, bad" and found.solver_status == "fine, optimal"
    assert found.unique is None and found.face_dimension is None


def test_nan_is_never_certified() -> None:
    """A solver that returns NaN is failed, at β > 0 and β = 0."""
    for beta in (0.1, 0.0):
        found = module._assemble(biased_cycle(beta), [solvers.Answer(np.full(3, np.nan), "broken", "optimal")])
        assert found.status == "failed"


def test_a_broken_newton_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """If Newton returns rubbish, 'newton' says failed and 'auto' falls back on cvxpy without certifying more than is true."""

    def lazy(context: Any, *arguments: Any) -> Any:
        return newton_module._Point(
            np.asarray(context.log_reference), 0.0, lambda vector: vector, 1, "newton: converged, honestly"
        )

    monkeypatch.setattr(newton_module, "_newton", lazy)
    game = biased_cycle(0.01)
    assert nl.solve(game, "newton").status == "failed"
    fallback = nl.solve(game, "auto")
    assert fallback.status == "failed" if fallback.method == "newton" else fallback.status in ("approximate", "certified")
    _, residual = textbook_certificates(game, fallback.log_policy)
    assert fallback.status != "certified" or residual <= allowed(0.01)


def test_a_broken_interior_point_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the central path stops early, the certificate says so."""
    real = interior_point_module._central_path
    monkeypatch.setattr(interior_point_module, "_central_path", lambda matrix: real(matrix, 2))
    found = nl.solve(nl.games.random_game(9, 1, beta=0.0))
    assert found.status == "failed" and found.unique is None


def repeated(seed: int) -> Floats:
    """The advantages of a random tournament whose actions occur one to four times, in random order."""
    rng = np.random.default_rng(seed)
    kinds = np.repeat(np.arange(7), rng.integers(1, 5, 7))
    kinds = rng.permutation(kinds)
    return np.asarray(nl.games.random_game(7, seed, "zero-one").advantages[np.ix_(kinds, kinds)])


DEGENERATE: dict[str, Floats] = {
    "ties": np.zeros((6, 6)),
    "disjoint cycles": np.kron(np.eye(4), [[0, 0.5, -0.5], [-0.5, 0, 0.5], [0.5, -0.5, 0]]),
    "unequal cycles": np.kron(np.eye(3), [[0, 0.5, -0.25], [-0.5, 0, 0.5], [0.25, -0.5, 0]]),
    "cycles of pairs": np.kron([[0, 0.5, -0.5], [-0.5, 0, 0.5], [0.5, -0.5, 0]], np.ones((2, 2))),
    **{f"repeated {seed}": repeated(seed) for seed in range(6)},
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_repeated_and_tied_actions_keep_centre_and_dimension(name: str) -> None:
    """Solved with equal actions as one, the centre is that of the whole central path, the dimension that of the face itself."""
    matrix = DEGENERATE[name]
    found = nl.solve(nl.PreferenceGame(matrix + 0.5, 0.0))
    assert found.status == "certified" and found.exploitability <= 1e-14
    # A point of the whole path, no action merged, where the duality gap falls below 1e-8: near the centre, not yet drifting.
    _, _, early, _ = interior_point_module._central_path(matrix + 0.0)
    np.testing.assert_allclose(found.policy, early, rtol=0, atol=1e-6)
    support = early > 1e-5
    face = np.vstack([matrix[np.ix_(support, support)], np.ones(int(support.sum()))])
    assert found.face_dimension == int(support.sum()) - np.linalg.matrix_rank(face)
    assert found.unique is (found.face_dimension == 0)


def test_the_centre_counts_what_the_losers_lose() -> None:
    """On the face {(a, 0, 1-a)} the path ends where log a + log(1-a) + log(1-2a) is largest: 6a² - 6a + 1 = 0."""
    game = nl.PreferenceGame([[0.5, 0, 0.5], [1, 0.5, 0], [0.5, 1, 0.5]], 0.0)
    expected = [(3 - 3**0.5) / 6, 0, (3 + 3**0.5) / 6]
    np.testing.assert_allclose(nl.solve(game).policy, expected, rtol=0, atol=1e-12)
    # One more action, that always loses, changes nothing; copies of an action share its weight otherwise.
    loser = np.full((4, 4), 0.5)
    loser[:3, :3], loser[3, :3], loser[:3, 3] = game.preferences, 0, 1
    np.testing.assert_allclose(nl.solve(nl.PreferenceGame(loser, 0.0)).policy, [*expected, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_the_centre_maximizes_the_barrier_of_the_face(seed: int) -> None:
    """On games with entries 0, 1/2, 1, no move along the face raises the barrier, whose gradient is formed by differences."""
    upper = np.triu(np.random.default_rng(seed).integers(-1, 2, (9, 9)) / 2, 1)
    matrix = upper - upper.T
    found = nl.solve(nl.PreferenceGame(matrix + 0.5, 0.0))
    x = found.policy
    support = x > 0
    face = np.vstack([matrix[np.ix_(support, support)], np.ones(int(support.sum()))])
    _, values, rows = np.linalg.svd(face)
    directions = rows[int((values > 1e-9).sum()) :]
    assert len(directions) == found.face_dimension

    def barrier(y: Floats) -> float:
        slack = -(matrix @ y)[~support]
        return float(np.log(y[support]).sum() + np.log(slack).sum())

    for direction in directions:
        move = np.zeros(9)
        move[support] = 1e-4 * direction * x[support].min()
        assert abs(barrier(x + move) - barrier(x - move)) < 1e-9
        assert barrier(x + 100 * move) < barrier(x)


def test_groups_of_actions_have_scales_of_their_own() -> None:
    """Two three-cycles side by side, one with margins of 1e-10: a segment of equilibria."""
    cycle = np.array([[0, 0.5, -0.5], [-0.5, 0, 0.5], [0.5, -0.5, 0]])
    small = np.block([[cycle, np.zeros((3, 3))], [np.zeros((3, 3)), 2e-10 * cycle]])
    assert nl.solve(nl.PreferenceGame(small + 0.5, 0.0)).face_dimension == 1


def test_a_failing_cvxpy_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A solver error becomes the status 'failed' with the solver's words, not an exception."""
    import cvxpy

    def refuse(self: Any, **options: Any) -> None:
        raise cvxpy.SolverError("no luck today")

    monkeypatch.setattr(cvxpy.Problem, "solve", refuse)
    found = nl.solve(biased_cycle(0.01), "cvxpy")
    assert found.status == "failed" and "no luck today" in found.solver_status


# --- Newton over the whole range ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 30.0, 1e3])
@pytest.mark.parametrize("n", [2, 3, 10, 40])
def test_newton_certifies_small_games(n: int, beta: float) -> None:
    """Residual ≤ max(1e-12, 8 eps/β) for certain votes, random votes, near ties and peaked references."""
    for law in ("zero-one", "uniform", "near-ties", "low-rank"):
        for peak in (0.0, 10.0):
            game = nl.games.random_game(n, n + 1, law, beta=beta, reference=nl.games.random_reference(n, n, peak))
            found = nl.solve(game, "newton")
            assert found.status == "certified", (law, peak, found.solver_status)
            assert found.residual is not None and found.residual <= allowed(beta)
            np.testing.assert_allclose(found.policy.sum(), 1, rtol=1e-13)
            assert nl.span(found.log_policy - game.log_reference) <= (1 + 1e-10) / beta


@pytest.mark.parametrize("beta", [1e-5, 1e-3, 0.1])
@pytest.mark.parametrize("law", ["zero-one", "uniform"])
def test_newton_certifies_larger_games(law: str, beta: float) -> None:
    """n = 300 with certain and with random votes, down to β = 1e-5."""
    found = nl.solve(nl.games.random_game(300, 2, law, beta=beta))
    assert found.status == "certified", found.solver_status


@pytest.mark.slow
def test_newton_certifies_a_large_game() -> None:
    """n = 1500 at β = 0.01; the residual again from the definition, by plain matrix products."""
    game = nl.games.random_game(1500, 0, "zero-one", beta=0.01)
    found = nl.solve(game)
    ratio = found.log_policy - game.log_reference - game.advantages @ found.policy / 0.01
    assert found.status == "certified" and np.ptp(ratio) < 1e-11


# --- β = 0 ----------------------------------------------------------------------------------------------------------------


def face(game: nl.PreferenceGame) -> tuple[float, Floats]:
    """By linear programs: the value of the game, and for each action the least and most weight in an equilibrium."""
    A, n = game.advantages, game.n
    value = linprog(
        [*np.zeros(n), 1.0], np.hstack([A, -np.ones((n, 1))]), np.zeros(n), [[*np.ones(n), 0.0]], [1.0], [(0, 1)] * n + [(-1, 1)]
    )
    ranges = []
    for i in range(n):
        unit = np.eye(n)[i]
        ends = [linprog(sign * unit, A, np.full(n, 1e-12), np.ones((1, n)), [1.0], (0, 1)).fun * sign for sign in (1, -1)]
        ranges.append(ends)
    return float(value.fun), np.array(ranges)


def disjoint(*blocks: Floats) -> Floats:
    """P of games side by side, all actions of different ones tied."""
    n = sum(len(block) for block in blocks)
    P, at = np.full((n, n), 0.5), 0
    for block in blocks:
        P[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    return P


RPS = np.array([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]])
BEATEN = np.pad(RPS, (0, 1), constant_values=1.0)
BEATEN[3] = [0.0, 0.0, 0.0, 0.5]

FACES: dict[str, tuple[Floats, int, Floats | None]] = {
    "all ties": (np.full((5, 5), 0.5), 4, np.full(5, 0.2)),
    "every action twice": (np.kron(RPS, np.ones((2, 2))), 3, np.full(6, 1 / 6)),
    "two cycles": (disjoint(RPS, RPS), 1, np.full(6, 1 / 6)),
    "cycle and a tied action": (disjoint(RPS, np.array([[0.5]])), 1, None),
    "total order": (np.triu(np.ones((6, 6)), 1) + np.eye(6) / 2, 0, np.eye(6)[0]),
    "two tied winners": (
        np.block([[np.full((2, 2), 0.5), np.ones((2, 3))], [np.zeros((3, 2)), np.full((3, 3), 0.5)]]),
        1,
        np.array([0.5, 0.5, 0, 0, 0]),
    ),
    "cycle above a loser": (BEATEN, 0, np.array([1, 1, 1, 0]) / 3),
    "two actions tied": (np.full((2, 2), 0.5), 1, np.full(2, 0.5)),
}


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-10])
@pytest.mark.parametrize("name", FACES)
def test_the_set_of_equilibria_has_its_dimension(name: str, scale: float) -> None:
    """Dimension of the face and its centre on games built to have them; margins of any size."""
    P, dimension, centre = FACES[name]
    found = nl.solve(nl.PreferenceGame(scale * (P - 0.5) + 0.5, 0.0))
    assert found.status == "certified"
    assert found.face_dimension == dimension and found.unique is (dimension == 0)
    if centre is not None:
        np.testing.assert_allclose(found.policy, centre, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", FACES)
def test_linear_programs_see_the_same_uniqueness(name: str) -> None:
    """The weights that equilibria give to an action are a point exactly where the face is; the answer lies inside the ranges."""
    P, dimension, _ = FACES[name]
    game = nl.PreferenceGame(P, 0.0)
    value, ranges = face(game)
    assert abs(value) < 1e-12
    assert bool(np.ptp(ranges, axis=1).max() > 0.1) == (dimension > 0)
    found = nl.solve(game)
    assert (found.policy >= ranges[:, 0] - 1e-8).all() and (found.policy <= ranges[:, 1] + 1e-8).all()
    inner = np.ptp(ranges, axis=1) > 1e-6
    assert (found.policy[inner] > 1e-3).all(), "the centre of the face has full support on it"


@pytest.mark.parametrize("seed", range(6))
def test_interior_point_agrees_with_linear_programming(seed: int) -> None:
    """Random games: exploitability 0 like the linear program's value, complementary support, HiGHS within its own accuracy."""
    game = nl.games.random_game(5 + 3 * seed, seed, ("uniform", "logistic")[seed % 2], beta=0.0)
    found, cvxpy = nl.solve(game, "interior-point"), nl.solve(game, "cvxpy")
    value, ranges = face(game)
    assert abs(value) < 1e-10 and found.status == "certified" and found.exploitability <= 1e-12
    assert (game.advantages @ found.policy).max() <= 1e-12
    slack = -(game.advantages @ found.policy)
    assert (np.minimum(found.policy, slack) < 1e-11).all() and (np.maximum(found.policy, slack) > 1e-6).all()
    np.testing.assert_allclose(found.policy, ranges.mean(axis=1), atol=1e-7)
    np.testing.assert_allclose(found.policy, cvxpy.policy, atol=1e-7)


@pytest.mark.parametrize("n", [3, 8, 25, 60])
def test_tournaments_have_one_equilibrium_of_odd_support(n: int) -> None:
    """Fisher & Ryan (1992), Laffond et al. (1993): a tournament has one optimal strategy, on an odd number of actions."""
    found = nl.solve(nl.games.random_game(n, n, "zero-one", beta=0.0))
    assert found.status == "certified" and found.unique is True
    assert (found.policy > 1e-9).sum() % 2 == 1


def test_three_margins_are_the_equilibrium() -> None:
    """Kaplansky (1945): on a 3-cycle the winner weights each action with the margin between the other two."""
    a, b, c = 0.5, 0.2, 0.05
    game = nl.PreferenceGame([[0.5, 0.5 + a, 0.5 - c], [0.5 - a, 0.5, 0.5 + b], [0.5 + c, 0.5 - b, 0.5]], 0.0)
    np.testing.assert_allclose(nl.solve(game).policy, np.array([b, c, a]) / (a + b + c), rtol=1e-10)


def test_the_regularized_path_ends_at_an_equilibrium() -> None:
    """E_0(π*_β) ≤ β log(1/min ρ): the path in β goes to the set of von Neumann winners."""
    game = nl.games.random_game(6, 9)
    for beta in (1.0, 0.1, 0.01, 0.001):
        policy = nl.solve(game.with_beta(beta)).policy
        assert 0 <= (game.advantages @ policy).max() <= beta * np.log(6)


# --- paths and arguments --------------------------------------------------------------------------------------------------


def test_solve_path_keeps_its_order(family: dict[str, nl.PreferenceGame]) -> None:
    """Equilibria come back in the order of the betas, repeated and zero ones too, and equal single solves."""
    betas = [0.1, 3.0, 0.0, 0.01, 0.1]
    for game in (family["random"], family["contexts"], family["peaked"]):
        path = nl.solve_path(game, betas)
        assert len(path) == len(betas)
        for beta, found in zip(betas, path):
            alone = nl.solve(game.with_beta(beta))
            assert found.status == "certified" and found.fingerprint == alone.fingerprint
            np.testing.assert_allclose(found.policy, alone.policy, rtol=0, atol=1e-11)
    assert len(nl.solve_path(game, 0.5)) == 1 and nl.solve_path(game, []) == []


@pytest.mark.parametrize(
    ("beta", "method", "message"),
    [
        (0.1, "newtn", "did you mean 'newton'"),
        (0.1, "interior-point", "needs beta = 0, not 0.1"),
        (0.0, "newton", "needs beta > 0"),
        (0.1, None, "method = None is unknown"),
    ],
)
def test_methods_are_checked(beta: float, method: Any, message: str) -> None:
    """A method that does not exist or does not apply at this β is refused with what would be right."""
    with pytest.raises(InputError, match=message):
        nl.solve(biased_cycle(beta), method)


def test_unknown_methods_are_unknown_names() -> None:
    """The error of a misspelt solver is the one of all misspelt names."""
    with pytest.raises(UnknownNameError):
        nl.solve(biased_cycle(0.1), "simplex")


@pytest.mark.parametrize(
    ("betas", "message"), [([0.1, -0.2], "negative"), ([[0.1]], "list of numbers"), ([np.nan], "finite"), ("x", "numbers")]
)
def test_betas_are_checked(betas: Any, message: str) -> None:
    """Negative, nested, NaN or non-numeric betas are refused."""
    with pytest.raises(InputError, match=message):
        nl.solve_path(biased_cycle(0.1), betas)


def test_an_equilibrium_prints_its_status() -> None:
    """The repr shows what to look at first."""
    assert repr(nl.solve(biased_cycle(0.1))).startswith("Equilibrium(certified, exploitability=")


def test_a_path_that_overflows_ends_without_a_warning() -> None:
    """Where an entry of the path all but vanishes its linear system overflows; the answer before is the equilibrium."""
    above = [[0, 0.01534973008109175, 0.22572271719379766, 0.3662898843442448], [0, 0, 0.9599342872449076, 0.009230266354737005]]
    P = np.array([*above, [0, 0, 0, 0.918002395987598], [0, 0, 0, 0]])
    P = P + np.tril(1 - P.T, -1) + 0.5 * np.eye(4)
    assert nl.solve(nl.PreferenceGame(P, 0.0)).status == "certified"
