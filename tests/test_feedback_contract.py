"""What votes cost, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sampled import SAMPLED, START, example, game_of, unsampled

import nlhfsim as nl
from nlhfsim import dynamics, pairs
from nlhfsim.errors import InputError
from nlhfsim.games import votes

pytestmark = pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")


# --- queries --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One entry for each vote that plain code asks for."""
    found: list[bool] = []
    real = votes.vote
    for module in (votes, pairs):
        monkeypatch.setattr(module, "vote", lambda *arguments: found.append(True) or real(*arguments))
    return found


@pytest.mark.parametrize("name", SAMPLED)
def test_every_vote_is_counted(name: str, asked: list[bool]) -> None:
    """Queries are the votes asked for, one each, first looks included, also over a continuation; oracle calls are batches."""
    method, game = example(name), game_of()
    options: dict[str, Any] = {"feedback": nl.Sampled(3), "equilibrium": False, "compiled": False, "record_every": 2}
    counts = []
    for n_steps in (0, 1, 2, 5):
        asked.clear()
        run = nl.simulate(game, method, n_steps, **options)
        counts.append(len(asked))
        assert run.queries[-1] == len(asked)
        assert run.oracle_calls[-1] * 3 == len(asked) - 3 * method.method.initial_calls
    assert counts[0] == 3 * method.method.initial_calls and run.queries[run.steps.tolist().index(2)] == counts[2]
    asked.clear()
    more = nl.simulate(game, method, 4, start=run, **options)
    assert len(asked) == more.queries[-1] - run.queries[-1] == 4 / 5 * (counts[-1] - counts[0])


def test_exact_feedback_asks_nothing(asked: list[bool]) -> None:
    """With exact feedback there are no queries."""
    run = nl.simulate(game_of(), "SelfPlayPG", 5, compiled=False, equilibrium=False)
    assert not asked and not run.queries.any() and run.oracle_calls[-1] == 5


# --- refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in dynamics.names() if unsampled(name)])
def test_methods_without_a_sampled_form_are_refused(name: str) -> None:
    """They say why."""
    with pytest.raises(InputError, match=f"{name} has no sampled form: .{{20,}}; or use feedback='exact'") as caught:
        nl.simulate(game_of(), example(name), 5, feedback="sampled", equilibrium=False)
    assert unsampled(name) in str(caught.value)


def test_magnet_refresh_has_a_sampled_form_with_a_number_of_steps_only() -> None:
    """Whether its inner game is solved cannot be seen from votes."""
    with pytest.raises(InputError, match="MagnetRefresh has no sampled form: whether its inner game is solved .*refresh_every"):
        nl.simulate(game_of(), dynamics.MagnetRefresh(), 5, feedback="sampled", equilibrium=False)


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "no pairs": (lambda: nl.Sampled(0), "batch_size"),
    "a share of a pair": (lambda: nl.Sampled(1.5), "batch_size"),  # type: ignore[arg-type]
    "a string": (lambda: nl.Sampled("16"), "batch_size"),  # type: ignore[arg-type]
    "votes": (lambda: nl.Sampled(votes=1), "votes"),  # type: ignore[arg-type]
    "candidates": (lambda: nl.Sampled(candidates="x"), "candidates"),
    "feedback": (lambda: nl.simulate(game_of(), "NashMD", 1, feedback=16), "feedback = 16"),  # type: ignore[arg-type]
    "name": (lambda: nl.simulate(game_of(), "NashMD", 1, feedback="votes"), "feedback"),
    "threads": (lambda: nl.simulate(game_of(), "NashMD", 1, threads=0), "threads"),
    "half a thread": (lambda: nl.simulate(game_of(), "NashMD", 1, threads=0.5), "threads"),  # type: ignore[arg-type]
    "average": (lambda: nl.simulate(game_of(), "NashMD", 1, average="x"), "average"),
    "an average of averages": (
        lambda: nl.simulate(game_of(), "RegretMatching", 1, average="policies"),
        "average = 'policies' must not be given: the policy of RegretMatching is an average already",
    ),
    "policies of pairs": (
        lambda: nl.simulate(game_of(), "SelfPlayPG", 1, feedback="sampled", average="policies"),
        "average = 'policies' would cost SelfPlayPG .* use average='parameters'",
    ),
}


@pytest.mark.parametrize("key", BAD)
def test_bad_input_is_refused(key: str) -> None:
    """By name, before anything runs."""
    attempt, message = BAD[key]
    with pytest.raises((InputError, nl.errors.UnknownNameError), match=message):
        attempt()


def test_ways_to_say_sampled() -> None:
    """The name, the class and an instance with its defaults are one vote a call; the run says what it learned from."""
    options: dict[str, Any] = {"equilibrium": False, "start": START}
    runs = [nl.simulate(game_of(), "NashMD", 9, feedback=f, **options) for f in ("sampled", nl.Sampled, nl.Sampled(1, True))]
    for run in runs:
        np.testing.assert_array_equal(run.parameters, runs[0].parameters)
        assert run.feedback == {"batch_size": 1, "votes": True, "candidates": "uniform"} and run.queries[-1] == 9
    assert nl.simulate(game_of(), "NashMD", 9, feedback="exact", **options).feedback == "exact"
