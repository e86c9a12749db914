"""Fictitious play and regret matching: counted runs, closed forms, published bounds, wrong steps, and how they are compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import nlhfsim as nl
from nlhfsim import dynamics
from nlhfsim.dynamics import fictitious_play, regret_matching, regret_matching_plus
from nlhfsim.errors import InputError, UnknownNameError
from nlhfsim.games.payoffs import DensePayoff, dense

Floats = npt.NDArray[np.float64]
Family = dict[str, nl.PreferenceGame]

METHODS = ("FictitiousPlay", "RegretMatching", "RegretMatchingPlus")
MATCHING = METHODS[1:]


def bare(game: nl.PreferenceGame) -> list[nl.PreferenceGame]:
    """The game without regularization, one a context."""
    return [game.context(k).with_beta(0.0) for k in range(game.n_contexts)] if game.batched else [game.with_beta(0.0)]


# --- known runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [(2, 1, 3), (1, 1, 1), (1, 1, 4), (1, 6, 2)])
@pytest.mark.parametrize("compiled", [True, False])
def test_fictitious_play_on_rock_paper_scissors_is_counting(weights: tuple[int, int, int], compiled: bool) -> None:
    """Counted in fractions, ties split exactly: also where sixths and ninths make the float gains differ in their last digits."""
    counts = [Fraction(w, sum(weights)) for w in weights]
    game = nl.games.rock_paper_scissors(0.5, beta=0.0)
    sign = [[int(np.sign(a)) for a in row] for row in game.advantages]
    start, shared, expected = [float(c) for c in counts], 0, []
    for t in range(600):
        gain = [sum(s * c for s, c in zip(row, counts)) for row in sign]
        best = [y for y in range(3) if gain[y] == max(gain)]
        shared += len(best) > 1
        counts = [c + (Fraction(1, len(best)) if y in best else 0) for y, c in enumerate(counts)]
        expected.append([float(c / (t + 2)) for c in counts])
    run = nl.simulate(game, "FictitiousPlay", 600, start=start, record_every=1, equilibrium=False, compiled=compiled)
    np.testing.assert_allclose(np.exp(run.log_policies[0, 1:]), expected, rtol=1e-13)  # type: ignore[index]
    assert shared > 0


def test_ties_are_what_rounding_cannot_tell() -> None:
    """Equal gains that differ in their last digit share the play; a difference of 1e-12 does not."""
    gain = np.array([0.1 + 0.2, 0.3, -0.1, 0.3 - 1e-12])
    assert gain[0] != gain[1]
    np.testing.assert_array_equal(fictitious_play.split_evenly(gain), [0.5, 0.5, 0, 0])
    many = np.stack([gain, gain[::-1], np.zeros(4)])
    np.testing.assert_array_equal(fictitious_play.split_evenly(many), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5], [0.25] * 4])


@pytest.mark.parametrize(("name", "share"), [(n, w) for n, w in zip(METHODS, (0, 0, 1))])
def test_a_condorcet_winner_is_played_at_once_and_for_ever(name: str, share: int) -> None:
    """One action beats all others, which tie: after T steps the start keeps 1/(T + 1), with linear weights 2/((T + 1)(T + 2))."""
    P = np.full((4, 4), 0.5)
    P[2], P[:, 2] = [0.9, 0.9, 0.5, 0.9], [0.1, 0.1, 0.5, 0.1]
    start = np.array([0.5, 0.2, 0.1, 0.2])
    for steps in (1, 7, 1000):
        kept = 2 / ((steps + 1) * (steps + 2)) if share else 1 / (steps + 1)
        final = nl.simulate(nl.PreferenceGame(P, 0.1), name, steps, start=start, equilibrium=False).final
        np.testing.assert_allclose(final[0], kept * start + (1 - kept) * np.eye(4)[2], rtol=1e-12)  # type: ignore[index]


@pytest.mark.parametrize("name", METHODS)
def test_log_probabilities_stay_finite(name: str) -> None:
    """An action that is never played keeps its share of the start, 1e-300, however small: in log space it is there."""
    P = [[0.5, 0.9, 0.9], [0.1, 0.5, 0.5], [0.1, 0.5, 0.5]]
    run = nl.simulate(nl.PreferenceGame(P, 0.1), name, 10**5, start=[0.5, 0.5, 1e-300], equilibrium=False)
    mass = {"RegretMatchingPlus": (10**5 + 1) * (10**5 + 2) / 2}.get(name, 10**5 + 1)
    assert run.status == ("completed",)
    assert np.exp(run.parameters).sum() == pytest.approx(1, rel=1e-12), "the logits are log-probabilities"
    assert run.log_policies[0, -1, 2] == pytest.approx(np.log(1e-300) - np.log(mass), rel=1e-12)  # type: ignore[index]


# --- published bounds -----------------------------------------------------------------------------------------------------

# E_0 of the average of T plays, from the largest cumulative regret and from n alone, payoffs in [-1/2, 1/2].
BOUNDS: dict[str, tuple[Callable[[float, int], float], Callable[[int, int], float]]] = {
    "RegretMatching": (lambda regret, T: regret / T, lambda n, T: n**0.5 / (2 * T**0.5)),
    "RegretMatchingPlus": (lambda regret, T: 2 * regret / (T + 1), lambda n, T: (n * T) ** 0.5 / (T + 1)),
}


@pytest.mark.parametrize("name", MATCHING)
def test_regrets_bound_the_exploitability(name: str, family: Family, starts: dict[str, Floats]) -> None:
    """E_0 of the average is at most what the regrets say, for plain matching equal to it, and that is at most the bound in n, T.

    A fifteenth of that bound would be broken: it is not vacuous.
    """
    by_regret, by_size = BOUNDS[name]
    worst = 0.0
    for key, game in family.items():
        for k, one in enumerate(bare(game)):
            start = starts[key][:, k] if game.batched else starts[key]
            for plays in (1, 3, 20, 400, 3000):
                # The average after T - 1 steps is of T plays; the regrets of all T are known one step later.
                average = nl.simulate(one, name, plays - 1, start=start, equilibrium=False).gap0[:, -1]
                regrets = nl.simulate(one, name, plays, start=start, equilibrium=False).state["regrets"]
                found = np.array([by_regret(max(r.max(), 0.0), plays) for r in regrets[:, 0]])
                if name == "RegretMatching":
                    np.testing.assert_allclose(average, found, rtol=1e-9, atol=1e-14)
                assert (average <= found + 1e-14).all() and (found <= by_size(one.n, plays)).all(), (key, plays)
                worst = max(worst, float((average / by_size(one.n, plays)).max()))
    assert worst > 1 / 15


def test_fictitious_play_converges_in_value(family: Family, starts: dict[str, Floats]) -> None:
    """E_0 of the average tends to 0 on symmetric zero-sum games (Robinson, 1951); multiplicative weights' last play cycles."""
    for key, game in family.items():
        run = nl.simulate(game, "FictitiousPlay", 30_000, start=starts[key], equilibrium=False, record_every=[30])
        assert (run.gap0[:, -1] < 0.01).all() and (run.gap0[:, -1] < run.gap0[:, 1] / 5).all(), key
    cycle = nl.games.rock_paper_scissors(0.5, beta=0.0)
    with_step = nl.simulate(cycle, dynamics.MultiplicativeWeights(0.3), 30_000, start=[0.7, 0.2, 0.1], equilibrium=False)
    assert with_step.gap0[0, -1] > 0.1


@pytest.mark.parametrize("name", METHODS)
def test_averages_reach_the_von_neumann_winner(name: str) -> None:
    """A three-cycle's only equilibrium at β = 0 weighs each action with the margin of the opposing edge."""
    game = nl.games.rock_paper_scissors(margin=0.5, bias=-0.3, beta=0.0)
    winner = np.array([game.advantages[1, 2], game.advantages[2, 0], game.advantages[0, 1]])
    final = nl.simulate(game, name, 10**6, start=[0.8, 0.1, 0.1], equilibrium=False).final
    np.testing.assert_allclose(final[0], np.abs(winner) / np.abs(winner).sum(), atol=2e-3)  # type: ignore[index]


def test_linear_averaging_and_cut_regrets_pay(family: Family, starts: dict[str, Floats]) -> None:
    """Regret matching+ is ahead of regret matching after 3,000 steps on cycles, the published experience with CFR+."""
    for key in ("cyclic-tournament", "zero-one-cycle", "low-rank"):
        plain, plus = (
            nl.simulate(family[key], name, 3000, start=starts[key], equilibrium=False).gap0[:, -1] for name in MATCHING
        )
        assert (plus < plain).all(), key


def test_smoothed_play_reaches_the_regularized_equilibrium(
    family: Family, starts: dict[str, Floats], equilibrium_of: Callable[..., nl.Equilibrium]
) -> None:
    """The average of smoothed best responses tends to π*, its error like 1/t; unsmoothed play goes elsewhere."""
    for key in ("cyclic-tournament", "low-rank", "transitive-cyclic", "peaked", "random", "strong", "contexts"):
        game = family[key]
        solved = equilibrium_of(game)
        run = nl.simulate(
            game, dynamics.FictitiousPlay(smoothed=True), 10**5, start=starts[key], equilibrium=solved, record_every=[10**4]
        )
        assert (np.abs(run.final - solved.policy) < 2e-4).all(), key
        # Ten times the steps: KL is about a hundredth, or a tenth where an action's share of the start exceeds its share of π*.
        assert (run.kl[:, -1] < run.kl[:, 1] / 8).all(), key
        other = nl.simulate(game, "FictitiousPlay", 10**4, start=starts[key], equilibrium=solved)
        assert (np.abs(other.final - solved.policy).max(axis=-1) > 1e-3).any(), key


# --- wrong steps ----------------------------------------------------------------------------------------------------------


def advanced(name: str, context: Any, policy: Floats, steps: int) -> Any:
    """The state after some steps."""
    method = dynamics.build(name, **dynamics.get(name).method.example)
    state = method.method.init(context, method.params, np.log(policy))
    for _ in range(steps):
        state = method.method.step(state, context, 0.0, method.params)
    return state


@pytest.mark.parametrize("wrong", ["half beta", "uniform reference", "unsmoothed", "transposed"])
def test_wrong_smoothing_is_rejected(wrong: str, family: Family, starts: dict[str, Floats]) -> None:
    """The characterisation of smoothed play knows β, ρ and A."""
    method, right = dynamics.FictitiousPlay.method, fictitious_play.Params(True)
    for key in ("low-rank", "peaked", "strong", "zero-one-cycle"):
        context = family[key].contexts[0]
        before = method.init(context, right, np.log(starts[key][0]))
        other = {
            "half beta": context._replace(beta=context.beta / 2),
            "uniform reference": context._replace(log_reference=np.full(family[key].n, -np.log(family[key].n))),
            "transposed": context._replace(payoff=DensePayoff(-dense(context.payoff))),
            "unsmoothed": context,
        }[wrong]
        after = method.step(before, other, 0.0, fictitious_play.Params(wrong != "unsmoothed"))
        residual = method.characterisation(context, right, before, 0.0, after)
        uniform = wrong == "uniform reference" and np.ptp(context.log_reference) == 0
        assert residual < 1e-11 if uniform else residual > 1e-6, key


def test_the_two_kinds_of_matching_differ(family: Family, starts: dict[str, Floats]) -> None:
    """Neither step meets the other's characterisation once a regret is negative."""
    game, policy = family["low-rank"], starts["low-rank"][0]
    context = game.contexts[0]
    before = advanced("RegretMatchingPlus", context, policy, 2)
    for one, other in ((regret_matching, regret_matching_plus), (regret_matching_plus, regret_matching)):
        after = one.step(before, context, 0.0, _no_params())
        assert other.characterisation(context, _no_params(), before, 0.0, after) > 1e-6


def _no_params() -> Any:
    return dynamics.NoParams()


# --- no step size ---------------------------------------------------------------------------------------------------------

START = [0.7, 0.2, 0.1]


@pytest.fixture
def cycle() -> nl.PreferenceGame:
    """A biased rock–paper–scissors at β = 0.1."""
    return nl.games.rock_paper_scissors(0.5, bias=-0.3, beta=0.1)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_without_a_step_size_shows_none(name: str, cycle: nl.PreferenceGame) -> None:
    """It is in neither the parameters nor the repr, and is refused where it is given."""
    instance = dynamics.build(name)
    assert "step_size" not in instance.parameters and "step_size" not in repr(instance) and None not in instance.parameters
    assert instance.resolve(cycle.contexts) == instance
    assert nl.simulate(cycle, instance, 3, start=START).params == instance.parameters
    with pytest.raises(InputError, match=f"step_size = 0.1 must not be given: {name} has no step size"):
        nl.simulate(cycle, instance.with_step(0.1), 3, start=START)
    with pytest.raises(InputError, match="inverse-time:1,1 must not be given"):
        nl.simulate(cycle, instance.with_step(nl.schedules.inverse_time(1, 1)), 3, start=START)
    with pytest.raises(UnknownNameError, match="no parameter 'step_size'"):
        dynamics.build(name, step_size=0.1)


@pytest.mark.parametrize("step_sizes", [None, "default", [0.1, 0.3], {"NashMD": [0.1, 0.2]}])
def test_it_is_compared_as_given(step_sizes: Any, cycle: nl.PreferenceGame) -> None:
    """Grids of step sizes are for the others."""
    methods = [*METHODS, dynamics.FictitiousPlay(smoothed=True), "NashMD"]
    table = nl.compare(cycle, methods, oracle_calls=30, step_sizes=step_sizes, start=START)
    assert [row["grid_points"] for row in table.rows[:4]] == [0] * 4 and table.rows[4]["grid_points"] > 1
    assert [row["steps"] for row in table.rows] == [30] * 5 and not any(row["at_edge"] for row in table.rows[:4])
    assert [row["params"] for row in table.rows[:4]] == [{"smoothed": False}, {}, {}, {"smoothed": True}]
    for method, trajectory in zip(methods[:4], table.trajectories):
        np.testing.assert_array_equal(trajectory.final, nl.simulate(cycle, method, 30, start=START).final)


def test_its_other_parameters_can_be_tuned(cycle: nl.PreferenceGame) -> None:
    """A mapping names them; to the regularized equilibrium smoothed play is better."""
    for method in ("FictitiousPlay", dynamics.FictitiousPlay()):
        tuning = nl.tune(cycle, method, {"smoothed": [False, True]}, oracle_calls=500, start=START)
        assert [point["smoothed"] for point in tuning.grid] == [False, True]
        assert tuning.best == dynamics.FictitiousPlay(smoothed=True) and tuning.at_edge is False
    grids = {"FictitiousPlay": {"smoothed": [False, True]}, "RegretMatching": "default"}
    table = nl.compare(cycle, ["FictitiousPlay", "RegretMatching"], oracle_calls=500, step_sizes=grids, start=START)
    assert [row["grid_points"] for row in table.rows] == [2, 0] and table.rows[0]["params"] == {"smoothed": True}


@pytest.mark.parametrize("grid", [None, [0.1, 0.2], {}, [nl.schedules.inverse_time(1, 1)]])
def test_tuning_its_step_size_is_refused(grid: Any, cycle: nl.PreferenceGame) -> None:
    """There is none; the sentence says what there is."""
    with pytest.raises(
        InputError, match=r"FictitiousPlay has no step size to tune; .* \(it has smoothed\), or run it with simulate"
    ):
        nl.tune(cycle, "FictitiousPlay", grid, oracle_calls=10, start=START)
    with pytest.raises(InputError, match=r"RegretMatching has no step size to tune; .* \(it has none\)"):
        nl.tune(cycle, dynamics.RegretMatching(), grid, oracle_calls=10, start=START)
    with pytest.raises(InputError, match="RegretMatching has no step size to tune"):
        nl.compare(cycle, ["RegretMatching"], step_sizes={"RegretMatching": [0.1, 0.2]}, oracle_calls=10, start=START)
    with pytest.raises(UnknownNameError, match="FictitiousPlay has no parameter 'step_size'"):
        nl.tune(cycle, "FictitiousPlay", {"step_size": [0.1]}, oracle_calls=10, start=START)


def test_an_unregistered_method_may_have_no_step_size(cycle: nl.PreferenceGame) -> None:
    """Its step is given 0."""

    def step(state: Any, context: Any, step_size: float, params: Any) -> Any:
        return dynamics.LogPolicy(0.5 * (state.logits + context.log_reference) + step_size)

    mine = dynamics.Method("Halfway", step, scheduled=None)
    table = nl.compare(cycle, [mine, "NashMD"], oracle_calls=4, step_sizes=[0.1, 0.2], start=START)
    expected = np.array(START) ** (1 / 16)
    np.testing.assert_allclose(table.trajectories[0].final, [expected / expected.sum()], rtol=1e-12)
    with pytest.raises(InputError, match="Halfway has no step size to tune"):
        nl.tune(cycle, mine, [0.1], oracle_calls=10, start=START)


@pytest.mark.parametrize("wrong", ["yes", 1, None, 0.0])
def test_smoothed_is_true_or_false(wrong: Any) -> None:
    with pytest.raises(InputError, match=f"smoothed = {wrong!r} must be True or False"):
        dynamics.FictitiousPlay(smoothed=wrong)


def test_smoothing_needs_regularization(cycle: nl.PreferenceGame) -> None:
    """At β = 0 there is nothing that smooths the best response."""
    for run in (
        lambda game: nl.simulate(game, dynamics.FictitiousPlay(smoothed=True), 3, start=START),
        lambda game: nl.compare(game, [dynamics.FictitiousPlay(smoothed=True)], oracle_calls=3, start=START),
    ):
        run(cycle)
        with pytest.raises(InputError, match="smoothed = True of FictitiousPlay needs a game with beta > 0"):
            run(cycle.with_beta(0.0))


def test_the_command_line_knows_flags(capsys: Any) -> None:
    """``--param smoothed=true`` is True; a table row without a step size is printed."""
    from nlhfsim.cli import main

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            main(list(arguments))
        printed = capsys.readouterr()
        return int(exit_.value.code or 0), printed.out, printed.err

    common = ("rock-paper-scissors", "--start", "0.7,0.2,0.1")
    code, out, _ = call("run", *common, "--dynamics", "FictitiousPlay", "--param", "smoothed=true", "--steps", "9", "--json")
    assert code == 0 and json.loads(out)["runs"][0]["params"] == {"smoothed": True}
    code, out, _ = call("compare", *common, "--dynamics", "RegretMatching,NashMD", "--oracle-calls", "20")
    assert code == 0 and "RegretMatching" in out
    code, out, _ = call("run", *common, "--dynamics", "RegretMatching", "--steps", "9")
    assert code == 0 and "RegretMatching()" in out
    code, _, err = call("run", *common, "--dynamics", "FictitiousPlay", "--param", "smoothed=maybe")
    assert code == 2 and "smoothed = 'maybe' must be True or False" in err
