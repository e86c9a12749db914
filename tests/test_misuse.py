"""Input that could be taken the wrong way in silence, and mistakes that deserve a sentence instead of a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

import nlhfsim as nl
from nlhfsim.dynamics import Dynamics, LogPolicy, Method
from nlhfsim.errors import InputError
from nlhfsim.games.payoffs import advantage
from nlhfsim.report import write_report
from nlhfsim.simplex import log_softmax
from nlhfsim.training_run import load_run

pytestmark = pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")
P = np.array([[0.5, 0.8, 0.3], [0.2, 0.5, 0.7], [0.7, 0.3, 0.5]])
START = [0.8, 0.1, 0.1]


@pytest.fixture
def game() -> nl.PreferenceGame:
    return nl.PreferenceGame(P, beta=0.1)


def test_a_data_frame_brings_its_labels() -> None:
    """Rows and columns must be the same actions in the same order; they become the labels."""
    names = ["tea", "mate", "coffee"]
    assert nl.PreferenceGame(pd.DataFrame(P, names, names)).labels == ("tea", "mate", "coffee")
    with pytest.raises(InputError, match="must be the same in the same order"):
        nl.PreferenceGame(pd.DataFrame(P, names, ["mate", "tea", "coffee"]))


def test_a_series_goes_by_its_labels() -> None:
    """A labelled reference or start is put in the order of the actions; unlabelled, it goes by position."""
    game = nl.PreferenceGame(P, labels=["a", "b", "c"], reference=pd.Series([0.2, 0.3, 0.5], ["c", "a", "b"]))
    np.testing.assert_allclose(game.reference, [0.3, 0.5, 0.2])
    run = nl.simulate(game, "NashMD", 0, start=pd.Series([0.2, 0.3, 0.5], ["c", "a", "b"]))
    assert run.final is not None
    np.testing.assert_allclose(run.final[0], [0.3, 0.5, 0.2])
    np.testing.assert_allclose(nl.PreferenceGame(P, reference=pd.Series([0.2, 0.3, 0.5])).reference, [0.2, 0.3, 0.5])
    with pytest.raises(InputError, match="reference is labelled x, a, b, must be labelled a, b, c"):
        nl.PreferenceGame(P, labels=["a", "b", "c"], reference=pd.Series([0.2, 0.3, 0.5], ["x", "a", "b"]))


def test_masked_entries_are_refused() -> None:
    """What a mask hides is not data."""
    with pytest.raises(InputError, match="masked"):
        nl.PreferenceGame(np.ma.masked_array(P, P > 0.7))


def test_the_best_policy_is_kept_where_beta_is_tiny() -> None:
    """Where the continuation stalls, auto still returns a policy no worse than the unregularized equilibrium."""
    reference = nl.games.random_reference(50, rng=1, peak=50)
    game = nl.games.random_game(50, rng=7, law="zero-one", beta=1e-10, reference=reference)
    centre = nl.exploitability(game, nl.solve(game.with_beta(0)).policy)
    assert nl.solve(game).exploitability <= centre * (1 + 1e-9)


def test_nothing_is_tuned_on_nan() -> None:
    """Without an equilibrium KL cannot rank; the message names a metric that can."""
    reference = nl.games.random_reference(50, rng=1, peak=50)
    game = nl.games.random_game(50, rng=7, law="zero-one", beta=1e-10, reference=reference)
    assert nl.solve(game).status == "failed"
    with pytest.raises(InputError, match="use metric='exploitability'"):
        nl.tune(game, "NaturalPG", [0.1, 1], oracle_calls=20)
    assert nl.tune(game, "NaturalPG", [0.1, 1], oracle_calls=20, metric="exploitability").metric == "exploitability"


def test_at_beta_zero_the_gap_is_minimized(game: nl.PreferenceGame) -> None:
    """π* need not be unique there, so KL to one of them is not the default."""
    assert nl.tune(game.with_beta(0), "MagneticMirrorDescent", [0.1, 0.2], oracle_calls=50, start=START).metric == "gap0"
    assert nl.tune(game, "MagneticMirrorDescent", [0.1, 0.2], oracle_calls=50, start=START).metric == "kl"


@pytest.mark.parametrize(("step", "message"), [(-1, "must be positive"), (float("nan"), "finite"), ("a", "real number")])
def test_a_step_size_is_validated_without_a_factory(game: nl.PreferenceGame, step: Any, message: str) -> None:
    """`Dynamics` made directly is held to what the factories ask."""
    with pytest.raises(InputError, match=f"step_size = .* {message}"):
        nl.simulate(game, Dynamics(nl.dynamics.NaturalPG.method, step_size=step), 5, start=START)


class Momentum(NamedTuple):
    """Share of the last move that is repeated."""

    share: float


class Moving(NamedTuple):
    """Logits and the last move."""

    logits: Any
    move: Any


def begin(context: Any, params: Momentum, log_policy: Any) -> Moving:
    """At rest."""
    return Moving(log_policy, np.zeros_like(log_policy))


def move(state: Moving, context: Any, step_size: float, params: Momentum) -> Moving:
    """Mirror descent with momentum."""
    slope = advantage(context.payoff, np.exp(state.logits)) - context.beta * (state.logits - context.log_reference)
    last = params.share * state.move + step_size * slope
    return Moving(log_softmax(state.logits + last), last)


def test_a_method_of_ones_own_shows_and_tunes_its_parameters(game: nl.PreferenceGame) -> None:
    """Parameters of an unregistered method are in its name and its rows, can be tuned, and a continuation minds them."""
    method = Method(name="Momentum", step=move, init=begin)
    mine = Dynamics(method, Momentum(0.3), step_size=0.2)
    assert repr(mine) == "Momentum(step_size=0.2, share=0.3)"
    tuning = nl.tune(game, mine, {"share": [0.1, 0.5], "step_size": [0.1, 0.2]}, oracle_calls=40, start=START)
    assert len(tuning.grid) == 4 and tuning.best.params.share in (0.1, 0.5)
    run = nl.simulate(game, mine, 10, start=START)
    more = nl.simulate(game, mine, 10, start=run)
    np.testing.assert_array_equal(more.parameters, nl.simulate(game, mine, 20, start=START).parameters)
    with pytest.raises(InputError, match="continues only with the method it began with"):
        nl.simulate(game, Dynamics(method, Momentum(0.4), step_size=0.2), 10, start=run)


def test_a_step_that_does_not_compile_is_explained(game: nl.PreferenceGame) -> None:
    """One sentence that names the method and the way out, not pages of the compiler's."""
    with pytest.raises(
        InputError, match=r"the step of Momentum does not compile: run it with compiled=False .* in Method\(helpers=…\)"
    ):
        nl.simulate(game, Dynamics(Method(name="Momentum", step=move, init=begin), step_size=0.2), 5, start=START)
    short = Method(name="Short", step=lambda state, context, step_size, params: LogPolicy(state.logits[:2]), compiled=False)
    with pytest.raises(InputError, match=r"logits of shape \(2,\), must be \(3,\)"):
        nl.simulate(game, Dynamics(short, step_size=0.2), 5, start=START)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"name": ""}, "name = '' of a method must be a name as of a class"),
        ({"name": None}, "name = None of a method must be"),
        ({"step": None}, "step of Mine = None must be a function"),
        ({"source": "a paper"}, "source of Mine = 'a paper' must be a nlhfsim.sources.Source, or None"),
        ({"helpers": move}, "helpers of Mine = .* must be a tuple of functions"),
        ({"helpers": (1,)}, "helpers of Mine = .* must be a tuple of functions"),
    ],
)
def test_a_method_names_what_is_wrong_with_it(parts: dict[str, Any], message: str) -> None:
    """When it is made."""
    with pytest.raises(InputError, match=message):
        Method(**({"name": "Mine", "step": move, "init": begin} | parts))


def test_a_continuation_keeps_runs_and_seed(game: nl.PreferenceGame) -> None:
    """Another number of runs is refused; the seed stays the one that was used."""
    run = nl.simulate(game, "NashMD", 5, start="random", seed=4, runs=2)
    assert nl.simulate(game, "NashMD", 5, start=run, seed=99).seed == 4
    with pytest.raises(InputError, match="start holds 2 runs but runs = 7"):
        nl.simulate(game, "NashMD", 5, start=run, runs=7)


def test_records_of_a_continuation_have_the_same_bits() -> None:
    """Averages over contexts do not depend on how many records are averaged at once."""
    game = nl.games.random_game(4, 0, contexts=7)
    whole = nl.simulate(game, "NaturalPG", 60, start="random", runs=3, record_every=1)
    parts = nl.simulate(
        game, "NaturalPG", 37, start=nl.simulate(game, "NaturalPG", 23, start="random", runs=3, record_every=1), record_every=1
    )
    for metric in ("kl", "exploitability", "gap0", "span", "min_probability"):
        np.testing.assert_array_equal(whole.metric(metric), parts.metric(metric))


def test_small_mistakes_get_a_sentence(game: nl.PreferenceGame, tmp_path: Path) -> None:
    """Each names what is wrong."""
    run = nl.simulate(game, "NashMD", 5, start=START)
    run.save(tmp_path / "zz")
    assert nl.load(tmp_path / "zz").steps[-1] == 5
    cases: list[tuple[Any, str]] = [
        (lambda: nl.simulate(game, nl.dynamics.NashMD(lambda t: 1 / t), 5), "steps count from 0"),
        (lambda: nl.simulate(game, "NashMD", 5, start=nl.solve(game)), "start=equilibrium.policy"),
        (lambda: nl.metrics.fit_rate([0, 1], [1, 0.5, 0.25]), "must end in the number of times"),
        (lambda: nl.metrics.fit_rate([0, 2, 1], [1, 0.5, 0.25]), "times must be increasing"),
        (lambda: nl.metrics.first_passage([0, 1], [1, 0.5, 0.2], 0.3), "must end in the number of times"),
        (lambda: nl.load(3), "must be the path of a file"),  # type: ignore[arg-type]
        (lambda: run.save(None), "path = None must be the path of a file"),  # type: ignore[arg-type]
        (lambda: nl.dynamics.ProximalPG(inner_steps=10**20), "at most"),
        (lambda: nl.compare(game, ["NashMD"], step_sizes={"NaturalPG": [1]}), "step_sizes = 'NaturalPG' is unknown"),
    ]
    for attempt, message in cases:
        with pytest.raises(InputError, match=message):
            attempt()


def test_claims_and_reports_are_what_they_are_called(game: nl.PreferenceGame) -> None:
    """An id is not a claim, a game no case, and None no folder."""
    claim, case = nl.claims.get("constant-sum"), nl.claims.mixed_case(0, 0)
    report = nl.verify(claim, 2, workers=1)
    witness = nl.claims.Witness("constant-sum", case, nl.claims.judge(claim, case))
    loose: Any = nl.claims
    nothing: Any = None
    cases: list[tuple[Any, str]] = [
        (lambda: loose.judge("constant-sum", case), "claim = 'constant-sum' must be a claim; nlhfsim.claims.get returns one"),
        (lambda: loose.shrink("constant-sum", case), "claim = 'constant-sum' must be a claim"),
        (lambda: witness.replay(loose.names), "claim = .* must be a claim"),
        (lambda: loose.judge(claim, game), r"case = PreferenceGame\(n=3, beta=0.1\) must be a nlhfsim.claims.Case"),
        (lambda: report.save(nothing), "folder = None must be the path of a file or folder"),
        (lambda: witness.save(nothing), "path = None must be"),
        (lambda: nl.claims.load_witness(nothing), "path = None must be"),
        (lambda: nl.plots.save(nl.simulate(game, "NashMD", 5, start=START).plot(), nothing), "path = None must be"),
        (lambda: nl.Sweep.read(nothing), "path = None must be"),
        (lambda: load_run(nothing), "folder = None must be"),
        (lambda: write_report(nothing), "folder = None must be"),
    ]
    for attempt, message in cases:
        with pytest.raises(InputError, match=message):
            attempt()


def test_grids_take_schedules_and_the_word_default(game: nl.PreferenceGame) -> None:
    """A list may hold schedules; a mapping may say default."""
    tuning = nl.tune(game, "NashMD", [nl.schedules.inverse_time(20, 2), 0.1], oracle_calls=30, start=START)
    assert [point["step_size"] for point in tuning.grid] == ["inverse-time:20,2", 0.1]
    rows = nl.compare(game, [nl.dynamics.NashMD(0.1)], step_sizes={"NashMD": "default"}, oracle_calls=20, start=START).rows
    assert rows[0]["grid_points"] > 10
