"""Names of the literature: each run equals the paper's own update in the paper's own parameters, at 60 digits, and no other."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import oracles
import pytest
from oracles import Number, Vector, mp

import nlhfsim as nl
from nlhfsim import dynamics
from nlhfsim.dynamics import _spec
from nlhfsim.errors import InputError, UnknownNameError

pytestmark = pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")

ALIASES = dynamics.aliases()
STEPS = 12


def dyadic_game(n: int, seed: int) -> np.ndarray:
    """A random game with P + P^T = 1 exactly."""
    upper = np.triu(np.round(np.random.default_rng(seed).random((n, n)) * 2**30) / 2**30, 1)
    return upper + np.tril(1.0 - upper.T, -1) + np.eye(n) / 2


P, RHO, START = dyadic_game(5, 3), np.random.default_rng(4).dirichlet(np.ones(5)), np.random.default_rng(5).dirichlet(np.ones(5))
BETA = 0.125


# --- the updates as the papers write them, in 60 digits -------------------------------------------------------------------


class Game(NamedTuple):
    """Reference policy ρ and its weight, the papers' τ or β."""

    rho: Vector
    tau: Number


Update = Callable[[Vector, int, Game, dict[str, Any]], Vector]
"""Returns the next policy from the last, the number of the step from 0, the game, and what the paper keeps between steps."""


def wins(pi: Vector) -> Vector:
    """P(y > pi) for every y, in [0, 1] as the papers have it."""
    return [mp.fsum(entry * p for entry, p in zip(row, pi)) for row in oracles.preferences(P)]


def tilted(pi: Vector, exponents: Vector) -> Vector:
    """Proportional to pi exp(exponents)."""
    return oracles.simplex([p * mp.exp(e) for p, e in zip(pi, exponents)])


def inpo_step(pi: Vector, anchor: Vector, eta: Number, tau: Number) -> Vector:
    """pi^(1 - tau/eta) anchor^(tau/eta) exp(P(y > pi)/eta), normalized."""
    return oracles.simplex([p ** (1 - tau / eta) * a ** (tau / eta) * mp.exp(w / eta) for p, a, w in zip(pi, anchor, wins(pi))])


def inpo(eta: Number) -> Update:
    return lambda pi, t, game, kept: inpo_step(pi, game.rho, eta, game.tau)


def online_mirror_descent(eta: Number) -> Update:
    """argmax eta <P(y > pi) - tau log(pi/rho), q> - KL(q || pi)."""

    def update(pi: Vector, t: int, game: Game, kept: dict[str, Any]) -> Vector:
        slope = [w - game.tau * mp.log(p / r) for w, p, r in zip(wins(pi), pi, game.rho)]
        return oracles.penalized_argmax([eta * s for s in slope], [(mp.mpf(1), pi)])

    return update


def sppo(eta: Number) -> Update:
    return lambda pi, t, game, kept: tilted(pi, [eta * w for w in wins(pi)])


def dno(eta: Number) -> Update:
    """The policy whose log-ratios to pi, times eta, differ as the win rates do."""
    return lambda pi, t, game, kept: tilted(pi, [w / eta for w in wins(pi)])


def onpo(step_size: Number) -> Update:
    """Two proximal steps from the same point with KL weight 1/step_size: with the last win rates seen, then with those found."""

    def update(pi: Vector, t: int, game: Game, kept: dict[str, Any]) -> Vector:
        played = oracles.penalized_argmax(kept.get("seen") or wins(pi), [(1 / step_size, pi)])
        kept["seen"] = wins(played)
        return oracles.penalized_argmax(kept["seen"], [(1 / step_size, pi)])

    return update


def online_ipo(learning_rate: Number) -> Update:
    """Descent on the logits along the gradient of E (h - (o - 1/2)/tau)^2, pairs from the policy held fixed, o ~ P."""

    def update(pi: Vector, t: int, game: Game, kept: dict[str, Any]) -> Vector:
        n, matrix = len(pi), oracles.preferences(P)
        gradient = [mp.mpf(0)] * n
        for y in range(n):
            for z in range(n):
                h = mp.log(pi[y] / game.rho[y]) - mp.log(pi[z] / game.rho[z])
                for vote, chance in ((1, matrix[y][z]), (0, matrix[z][y])):
                    slope = pi[y] * pi[z] * chance * 2 * (h - (vote - mp.mpf(1) / 2) / game.tau)
                    gradient[y] += slope
                    gradient[z] -= slope
        return tilted(pi, [-learning_rate * g for g in gradient])

    return update


def egpo(eta: Number) -> Update:
    """theta' = (1 - eta beta) theta + eta beta theta_ref + eta P pi; the same from theta with P pi'."""

    def update(pi: Vector, t: int, game: Game, kept: dict[str, Any]) -> Vector:
        share = eta * game.tau
        mixed = [(1 - share) * mp.log(p) + share * mp.log(r) for p, r in zip(pi, game.rho)]
        ahead = oracles.softmax([m + eta * w for m, w in zip(mixed, wins(pi))])
        return oracles.softmax([m + eta * w for m, w in zip(mixed, wins(ahead))])

    return update


def nash_mp(eta: Number) -> Update:
    """argmin P(pi_k > q)/beta + KL(q || rho) + KL(q || pi_k)/eta, then the same against the point found."""

    def update(pi: Vector, t: int, game: Game, kept: dict[str, Any]) -> Vector:
        def step(opponent: Vector) -> Vector:
            lost = [1 - w for w in wins(opponent)]  # P(opponent > y)
            return oracles.penalized_argmax([-value / game.tau for value in lost], [(mp.mpf(1), game.rho), (1 / eta, pi)])

        return step(step(pi))

    return update


def mpo(eta: Number, alpha: Number, refresh_every: int) -> Update:
    """argmax <P(y > pi), q> - alpha KL(q || magnet) - KL(q || pi)/eta; the magnet is copied every so many steps."""

    def update(pi: Vector, t: int, game: Game, kept: dict[str, Any]) -> Vector:
        magnet = kept.setdefault("magnet", pi)
        after = oracles.penalized_argmax(wins(pi), [(alpha, magnet), (1 / eta, pi)])
        kept["magnet"] = after if (t + 1) % refresh_every == 0 else magnet
        return after

    return update


def comal(tau: Number, eta: Number, refresh_every: int) -> Update:
    """INPO steps towards the last solution, which is copied every so many steps."""

    def update(pi: Vector, t: int, game: Game, kept: dict[str, Any]) -> Vector:
        solution = kept.setdefault("solution", pi)
        after = inpo_step(pi, solution, eta, tau)
        kept["solution"] = after if (t + 1) % refresh_every == 0 else solution
        return after

    return update


def nash_pg(step_size: Number, alpha: Number, refresh_every: int) -> Update:
    """Gradient steps on the payoff less alpha KL(pi || reference); the reference is copied every so many steps."""

    def update(pi: Vector, t: int, game: Game, kept: dict[str, Any]) -> Vector:
        reference = kept.setdefault("reference", pi)
        after = oracles.policy_gradient_step(P, [(alpha, reference)], pi, step_size)
        kept["reference"] = after if (t + 1) % refresh_every == 0 else reference
        return after

    return update


class Case(NamedTuple):
    """The paper's update in its parameters, the alias in its own, the game's β, and the same with a mapping that is wrong."""

    paper: Callable[..., Update]
    given: dict[str, Any]
    alias: dict[str, Any]
    beta: float
    wrong: Callable[[], dynamics.Dynamics]


CASES: dict[str, Case] = {
    "INPO": Case(inpo, {"eta": 2.0}, {"eta": 2.0}, BETA, lambda: dynamics.NaturalPG(2.0)),
    "OnlineMirrorDescent": Case(
        online_mirror_descent, {"eta": 0.25}, {"eta": 0.25}, BETA, lambda: dynamics.MagneticMirrorDescent(0.25)
    ),
    "SPPO": Case(sppo, {"eta": 0.5}, {"eta": 0.5}, BETA, lambda: dynamics.MultiplicativeWeights(2.0)),
    "DNO": Case(dno, {"eta": 2.0}, {"eta": 2.0}, BETA, lambda: dynamics.MultiplicativeWeights(2.0)),
    "ONPO": Case(onpo, {"step_size": 0.5}, {"step_size": 0.5}, 0.0, lambda: dynamics.MultiplicativeWeights(0.5)),
    "OnlineIPO": Case(
        online_ipo,
        {"learning_rate": 1 / 64},
        {"step_size": 4 / 64 / BETA},
        BETA,
        lambda: dynamics.SelfPlayPG(2 / 64 / BETA),
    ),
    "EGPO": Case(egpo, {"eta": 0.5}, {"eta": 0.5}, BETA, lambda: dynamics.NashMirrorProx(0.5)),
    "NashMP": Case(nash_mp, {"eta": 0.25}, {"step_size": 0.25 / BETA}, BETA, lambda: dynamics.NashMirrorProx(0.25)),
    "MPO": Case(
        mpo,
        {"eta": 0.5, "alpha": 0.25, "refresh_every": 4},
        {"eta": 0.5, "alpha": 0.25, "refresh_every": 4},
        BETA,
        lambda: dynamics.MagnetRefresh(2.0, 0.25, 4),
    ),
    "COMAL": Case(
        comal,
        {"tau": 0.25, "eta": 1.5, "refresh_every": 5},
        {"tau": 0.25, "eta": 1.5, "refresh_every": 5},
        BETA,
        lambda: dynamics.MagnetRefresh(1 / 1.5, 0.25, 5),
    ),
    "NashPG": Case(
        nash_pg,
        {"step_size": 0.5, "alpha": 0.25, "refresh_every": 4},
        {"step_size": 0.5, "alpha": 0.25, "refresh_every": 4},
        0.0,
        lambda: dynamics.NashProx(0.5, 0.25, refresh_every=4),
    ),
}


def distances(name: str, method: dynamics.Dynamics) -> list[float]:
    """Largest difference of a probability between a run and the paper's update, formed in 60 digits, for every step."""
    case = CASES[name]
    game, kept = Game(oracles.simplex(RHO), mp.mpf(case.beta)), dict[str, Any]()
    update = case.paper(**{k: v if isinstance(v, int) else mp.mpf(v) for k, v in case.given.items()})
    run = nl.simulate(nl.PreferenceGame(P, case.beta, RHO), method, STEPS, start=START, record_every=1, compiled=False)
    pi, found = oracles.simplex(START), []
    for t in range(STEPS):
        pi = update(pi, t, game, kept)
        policy = np.exp(run.log_policies[0, t + 1])  # type: ignore[index]
        found.append(float(max(abs(mp.mpf(float(a)) - b) for a, b in zip(policy, pi, strict=True))))
    return found


def test_every_alias_has_a_case() -> None:
    assert set(CASES) == set(ALIASES)


@pytest.mark.parametrize("name", CASES)
def test_an_alias_is_the_update_of_its_paper(name: str) -> None:
    """Every step agrees to rounding with the paper's update in the paper's parameters."""
    assert max(distances(name, dynamics.build(name, **CASES[name].alias))) < 1e-13


@pytest.mark.parametrize("name", CASES)
def test_another_mapping_of_the_parameters_is_rejected(name: str) -> None:
    """The inverse step, half the step, an implicit step for an explicit one, … do not give the paper's run."""
    assert max(distances(name, CASES[name].wrong())) > 1e-3


def test_comal_solved_exactly_is_the_proximal_point_method() -> None:
    """With the inner games solved, the solutions are the iterates of `ProximalPoint` at β = 0 with step 1/τ."""
    game, tau = nl.games.rock_paper_scissors(0.5, bias=-0.3, beta=0.0), 0.4
    run = nl.simulate(game, dynamics.COMAL(tau=tau), 4000, start=[0.6, 0.3, 0.1])
    exact = nl.simulate(game, dynamics.ProximalPoint(1 / tau), 200, start=[0.6, 0.3, 0.1], record_every=1)
    magnet = np.exp(run.state["log_magnet"][0, 0])
    nearest = np.abs(np.exp(exact.log_policies[0]) - magnet).max(axis=1)  # type: ignore[index]
    assert nearest.min() < 1e-7 and nearest.argmin() > 3


# --- the table ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALIASES)
def test_an_alias_is_documented(name: str) -> None:
    """Exported, with example, mapping, a source of its own, and the method it is an instance of; its name is no method's."""
    factory = dynamics.get(name)
    assert factory is getattr(dynamics, name) and name in dynamics.__all__ and name not in dynamics.names()
    entry = factory.alias
    assert entry.name == name and entry.mapping and factory.source is entry.source
    assert f"`{entry.instance_of}`" in factory.__doc__ and "Examples" in factory.__doc__ and "Raises" in factory.__doc__
    for built in (factory(), dynamics.build(name, **entry.example)):
        assert isinstance(built, dynamics.Dynamics) and built.name == entry.instance_of
        assert built.method is factory.method is dynamics.get(entry.instance_of).method
        assert dynamics.build(built.name, **built.parameters) == built
    assert set(entry.example) <= set(inspect.signature(factory).parameters)


@pytest.mark.parametrize("name", ALIASES)
def test_an_alias_has_its_own_citation(name: str) -> None:
    """By name and by factory, the paper of the name, not that of the method."""
    assert nl.cite(name) == nl.cite(getattr(dynamics, name)) == dynamics.get(name).alias.source.bibtex()


def test_citations_of_aliases_are_theirs() -> None:
    assert "2404.03715" in nl.cite("DNO") and "2404.03715" not in nl.cite("MultiplicativeWeights")
    assert nl.cite("NashMD") == nl.cite(dynamics.NashMD)
    with pytest.raises(UnknownNameError, match="did you mean 'SPPO'"):
        nl.cite("SPO")


@pytest.mark.parametrize("name", ALIASES)
def test_an_alias_stands_where_a_name_stands(name: str) -> None:
    """In simulate and compare, as a name, a factory and an instance, at the defaults of the method behind it."""
    game = nl.games.rock_paper_scissors(0.5, bias=-0.3, beta=0.1)
    runs = [
        nl.simulate(game, method, 5, start=[0.7, 0.2, 0.1]) for method in (name, getattr(dynamics, name), dynamics.build(name))
    ]
    for run in runs:
        assert run.dynamics == dynamics.get(name).alias.instance_of
        np.testing.assert_array_equal(run.final, runs[0].final)
    table = nl.compare(game, [name, "NashMD"], oracle_calls=12, step_sizes=[0.1, 0.2], start=[0.7, 0.2, 0.1])
    assert [row["dynamics"] for row in table.rows] == [runs[0].dynamics, "NashMD"] and table.rows[0]["grid_points"] == 2
    kept = {k: v for k, v in dynamics.build(name).parameters.items() if k != "step_size"}
    assert kept.items() <= table.rows[0]["params"].items(), "what the name fixes is not tuned"


def test_grids_by_the_name_of_an_alias() -> None:
    """A mapping may use either name; one that is not compared is refused."""
    game, common = nl.games.rock_paper_scissors(0.5, beta=0.1), {"oracle_calls": 12, "start": [0.7, 0.2, 0.1]}
    for key in ("SPPO", "MultiplicativeWeights"):
        rows = nl.compare(game, ["SPPO", "NashMD"], step_sizes={key: [0.1, 0.2, 0.3]}, **common).rows
        assert rows[0]["grid_points"] == 3 and rows[1]["grid_points"] > 3
    with pytest.raises(UnknownNameError, match="step_sizes = 'DNO' is unknown"):
        nl.compare(game, ["SPPO", "NashMD"], step_sizes={"DNO": [0.1, 0.2]}, **common)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dynamics.INPO(eta=0.0), "eta = 0 must be positive"),
        (lambda: dynamics.DNO(eta=float("nan")), "eta = nan must be finite"),
        (lambda: dynamics.SPPO(eta=-1.0), "eta = -1 must be positive"),
        (lambda: dynamics.EGPO(eta="fast"), "eta = 'fast' must be a real number"),
        (lambda: dynamics.OnlineMirrorDescent(eta=0), "eta = 0 must be positive"),
        (lambda: dynamics.MPO(alpha=0.0), "alpha = 0 must be positive"),
        (lambda: dynamics.MPO(refresh_every=0), "refresh_every = 0 must be at least 1"),
        (lambda: dynamics.MPO(refresh_every=None), "refresh_every = None must be"),  # type: ignore[arg-type]
        (lambda: dynamics.COMAL(tau=0.5, eta=0.5), "eta = 0.5 must be above tau = 0.5"),
        (lambda: dynamics.COMAL(tau=-1), "tau = -1 must be positive"),
        (lambda: dynamics.NashPG(alpha=-1), "alpha = -1 must be positive"),
        (
            lambda: dynamics.INPO(eta=1.0, tau=0.1),
            r"tau = 0.1 is not INPO's to set: it is the game's β, .* game.with_beta\(tau\)",
        ),
        (lambda: dynamics.build("INPO", tau=0.1), "tau = 0.1 is not INPO's to set"),
        (lambda: dynamics.NashMP(eta=0.2), "eta = 0.2 is not NashMP's to set: step_size = eta/β"),
        (lambda: dynamics.OnlineIPO(learning_rate=0.2), "learning_rate = 0.2 is not OnlineIPO's to set: step_size = 4"),
        (lambda: dynamics.build("INPO", beta=0.1), "INPO has no parameter 'beta'; did you mean 'eta'"),
        (lambda: dynamics.get("SPPPO"), "method 'SPPPO' is unknown; did you mean 'SPPO'"),
    ],
)
def test_bad_parameters_of_an_alias_are_refused(call: Callable[[], Any], message: str) -> None:
    """By the paper's name of the parameter, with what would be right."""
    with pytest.raises(InputError, match=message):
        call()


def test_schedules_pass_through_where_the_step_is_not_inverted() -> None:
    schedule = nl.schedules.inverse_time(2.0, 3.0)
    for name in ("SPPO", "EGPO", "MPO", "OnlineMirrorDescent"):
        assert dynamics.build(name, eta=schedule).step_size is schedule
    with pytest.raises(InputError, match="eta = .* must be a real number"):
        dynamics.INPO(eta=schedule)  # type: ignore[arg-type]


def test_names_are_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method cannot take the name of an alias, nor an alias that of a method or another than its factory's."""
    monkeypatch.setattr(_spec, "_REGISTRY", dict(_spec._REGISTRY))
    monkeypatch.setattr(_spec, "_ALIASES", dict(_spec._ALIASES))
    source = nl.dynamics.SPPO.source  # type: ignore[attr-defined]

    def SPPO() -> Any: ...

    def NashMD() -> Any: ...

    with pytest.raises(InputError, match="'SPPO' is registered already, from nlhfsim.dynamics.literature"):
        dynamics.register(_spec.Method("SPPO", lambda *parts: None))(SPPO)
    with pytest.raises(InputError, match="'NashMD' is a method itself, so it cannot be another name of SelfPlayPG"):
        dynamics.alias(dynamics.Alias("NashMD", "SelfPlayPG", "", source, {}))(NashMD)
    with pytest.raises(InputError, match="the factory is called 'SPPO', must be called 'Mine'"):
        dynamics.alias(dynamics.Alias("Mine", "SelfPlayPG", "", source, {}))(SPPO)


def test_the_command_line_knows_aliases(capsys: Any) -> None:
    """run and compare take them, list shows what they are instances of, and ``all`` leaves them out."""
    from nlhfsim.cli import inputs, main

    def call(*arguments: str) -> Any:
        with pytest.raises(SystemExit) as exit_:
            main([*arguments, "--json"])
        printed = capsys.readouterr()
        assert not exit_.value.code, printed.err
        return json.loads(printed.out)

    common = ("rock-paper-scissors", "--start", "0.7,0.2,0.1")
    found = call("run", *common, "--dynamics", "INPO", "--param", "eta=4", "--steps", "3")["runs"][0]
    assert found["dynamics"] == "NaturalPG" and found["params"] == {"step_size": 0.25}
    found = call("compare", *common, "--dynamics", "SPPO,NashMD", "--param", "SPPO.eta=0.5", "--oracle-calls", "9")["runs"]
    assert [run["dynamics"] for run in found] == ["MultiplicativeWeights", "NashMD"] and found[0]["params"]["step_size"] == 0.5
    rows = {row["name"]: row for row in call("list", "dynamics")["dynamics"]}
    assert rows["DNO"]["what"].startswith("instance of MultiplicativeWeights") and "Rosset" in rows["DNO"]["source"]
    assert not set(inputs.method_names("all")) & set(ALIASES)
