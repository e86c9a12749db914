"""What `ask` takes and refuses, and the oracles that need no model, against values worked out by hand."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import nlhfsim as nl
from nlhfsim.errors import InputError
from nlhfsim.llm import oracles
from nlhfsim.llm.oracles import (
    Batched,
    BothOrders,
    Cached,
    ClassOracle,
    FirstToken,
    FunctionOracle,
    MatrixOracle,
    Noisy,
    PreferenceOracle,
    Prompt,
    Response,
    ScoreOracle,
    Verdicts,
    ask,
    ask_all,
    rock_paper_scissors,
)

PROMPT = Prompt("Which?", (1, 2))


def responses(*texts: str) -> list[Response]:
    """Responses whose tokens are the letters of their texts."""
    return [Response(text, tuple(map(ord, text))) for text in texts]


class Says:
    """An oracle that returns whatever it is told to."""

    def __init__(self, result: Any) -> None:
        self.result, self.calls = result, 0

    def compare(self, prompts: Sequence[Prompt], left: Sequence[Response], right: Sequence[Response]) -> Any:
        self.calls += 1
        return self.result


def ask_two(oracle: Any) -> Verdicts:
    return ask(oracle, [PROMPT] * 2, responses("a", "b"), responses("c", "d"))


class Recorder:
    """Whether the left text comes first in the alphabet, leaning to the left; no verdict on a "?" there. Keeps what was asked."""

    def __init__(self, leaning: float = 0.0) -> None:
        self.leaning, self.asked = leaning, []  # type: ignore[var-annotated]

    def compare(self, prompts: Sequence[Prompt], left: Sequence[Response], right: Sequence[Response]) -> Verdicts:
        self.asked.append([(a.text, b.text) for a, b in zip(left, right)])
        p = [0.5 + 0.3 * ((a.text < b.text) - (a.text > b.text)) + self.leaning for a, b in zip(left, right)]
        return Verdicts(np.array(p), np.array(["?" not in one.text for one in left]))


@pytest.mark.parametrize(
    ("result", "probabilities", "valid"),
    [
        (([0.25, 1], [True, True]), [0.25, 1], [True, True]),
        ([0.25, 1], [0.25, 1], [True, True]),
        ((0.25, 1), [0.25, 1], [True, True]),
        (np.array([0.25, 1], dtype=np.float32), [0.25, 1], [True, True]),
        ([True, False], [1, 0], [True, True]),
        ((np.array([0.25, math.nan]), np.array([True, False])), [0.25, 0.5], [True, False]),
        (([0.25, None], [True, False]), [0.25, 0.5], [True, False]),
        (([7, 0.25], [False, True]), [0.5, 0.25], [False, True]),
        ([1 + 5e-7, -5e-7], [1, 0], [True, True]),
        (([0.25, 1], None), [0.25, 1], [True, True]),
    ],
)
def test_an_answer_is_read(result: Any, probabilities: list[float], valid: list[bool]) -> None:
    verdicts = ask_two(Says(result))
    assert verdicts.probabilities.tolist() == probabilities and verdicts.probabilities.dtype == np.float64
    assert verdicts.valid.tolist() == valid and verdicts.valid.dtype == np.bool_


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([0.5], r"Says.compare returned probabilities of shape \(1,\), must be \(2,\), one a pair"),
        ([[0.5], [0.5]], r"shape \(2, 1\), must be \(2,\)"),
        (0.5, r"Says.compare returned .*0.5.* as probabilities, must be an array of 2, one a pair"),
        (None, r"Says.compare returned None as probabilities, must be an array of 2"),
        ([[0.5], [0.5, 0.1]], r"Says.compare: probabilities\[0\] = \[0.5\] must be a number"),
        ([0.5, math.nan], r"Says.compare: probabilities\[1\] = nan must lie in \[0, 1\].*, or not be valid"),
        ([0.5, None], r"Says.compare: probabilities\[1\] = nan must lie"),
        ([0.5, math.inf], r"Says.compare: probabilities\[1\] = inf must lie in \[0, 1\]"),
        ([1.2, 0.5], r"Says.compare: probabilities\[0\] = 1.2 must lie in \[0, 1\]: the probability that the left response"),
        ([0.5, -0.1], r"Says.compare: probabilities\[1\] = -0.1 must lie"),
        ([0.5, "0.7"], r"Says.compare: probabilities\[1\] = '0.7' must be a number"),
        ([0.5, 1j], r"must be a number"),
        (([0.5, 0.5], [1, 0]), r"Says.compare: valid\[0\] = .*1.* must be True or False"),
        (([0.5, 0.5], [True, None]), r"Says.compare: valid\[1\] = None must be True or False"),
        (([0.5, 0.5], [True]), r"Says.compare returned valid of shape \(1,\), must be \(2,\)"),
    ],
)
def test_what_is_no_answer_is_refused(result: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ask_two(Says(result))


def test_nothing_is_asked_about_nothing() -> None:
    oracle = Says([0.5])
    verdicts = ask(oracle, [], [], [])
    assert verdicts.probabilities.shape == verdicts.valid.shape == (0,) and oracle.calls == 0


def test_what_is_asked_is_checked() -> None:
    with pytest.raises(InputError, match="prompts, left and right have 1, 2 and 1 entries"):
        ask(Says([0.5]), [PROMPT], responses("a", "b"), responses("c"))
    with pytest.raises(InputError, match=r"must have a method compare\(prompts, left, right\)"):
        ask(lambda prompts, left, right: [0.5], [PROMPT], responses("a"), responses("b"))  # type: ignore[arg-type]


def test_the_answer_is_not_the_oracles_own_array() -> None:
    own = np.array([0.1, 0.2])
    ask_two(Says((own, np.array([True, True])))).probabilities[:] = 0.9
    assert own.tolist() == [0.1, 0.2]


def test_every_oracle_is_one() -> None:
    function = FunctionOracle(lambda prompt, left, right: 0.5)
    made: list[Any] = [
        function,
        ScoreOracle(lambda prompt, response: 0.0),
        MatrixOracle([[0.5]], ["a"]),
        ClassOracle(lambda response: 0, [[0.5]]),
        *(BothOrders(function), Cached(function), Batched(function, 1), Noisy(function, 0.1)),
    ]
    assert all(isinstance(oracle, PreferenceOracle) and type(oracle).__name__ in repr(oracle) for oracle in made)


# A matrix whose entries are all different, so that a row taken for a column shows.
P = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])


@pytest.mark.parametrize("by", ["text", "tokens", "game"])
def test_a_matrix_is_looked_up(by: str) -> None:
    names = responses("a", "bc", "d")
    oracle = {
        "text": lambda: MatrixOracle(P, ["a", "bc", "d"]),
        "tokens": lambda: MatrixOracle(P, [[97], np.array([98, 99]), (100,)]),  # type: ignore[list-item]
        "game": lambda: MatrixOracle(nl.PreferenceGame(P, beta=0.3, labels=["a", "bc", "d"])),
    }[by]()
    left = [one for one in names for _ in names]
    verdicts = ask(oracle, [PROMPT] * 9, left, names * 3)
    np.testing.assert_allclose(verdicts.probabilities.reshape(3, 3), P, rtol=0, atol=1e-15)
    assert verdicts.valid.all()


def test_a_matrix_for_each_prompt() -> None:
    games = np.stack([P, P.T])
    left, right = responses("a", "a"), responses("b", "b")
    by_number = MatrixOracle(games, ["a", "b", "c"])
    verdicts = ask(by_number, [Prompt("x", (), 1), Prompt("y", (), 0)], left, right)
    np.testing.assert_allclose(verdicts.probabilities, [0.1, 0.9], rtol=0, atol=1e-15)
    by_name = MatrixOracle(games, ["a", "b", "c"], prompts=["y", "x"])
    verdicts = ask(by_name, [Prompt("x", ()), Prompt("y", ())], left, right)
    np.testing.assert_allclose(verdicts.probabilities, [0.1, 0.9], rtol=0, atol=1e-15)
    by_tokens = MatrixOracle(games, ["a", "b", "c"], prompts=[[4], [5]])
    verdicts = ask(by_tokens, [Prompt("", (5,)), Prompt("", (4,))], left, right)
    np.testing.assert_allclose(verdicts.probabilities, [0.1, 0.9], rtol=0, atol=1e-15)
    with pytest.raises(InputError, match="prompt 2 has no context: preferences has 2"):
        ask(by_number, [Prompt("z", (), 2)], left[:1], right[:1])
    with pytest.raises(InputError, match="prompt 'z' is not among the 2 prompts"):
        ask(by_name, [Prompt("z", ())], left[:1], right[:1])


def test_a_response_that_is_not_there() -> None:
    pair = [PROMPT] * 3, responses("a", "x", "a"), responses("x", "a", "b")
    assert ask(MatrixOracle(P, ["a", "b", "c"]), *pair).valid.tolist() == [False, False, True]
    with pytest.raises(InputError, match=r"response 'x' of tokens \[120\] is not among the 3 responses"):
        ask(MatrixOracle(P, ["a", "b", "c"], strict=True), *pair)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0.5, 0.9], [0.2, 0.5]], ["a", "b"]), r"preferences\[0, 1\] \+ preferences\[1, 0\] = 1.1, must be 1"),
        ((P, ["a", "b"]), "responses has 2 entries, must be 3, one a row of preferences"),
        ((P, ["a", "b", "a"]), "responses has 'a' more than once"),
        ((P, ["a", "b", [3]]), "responses has texts and token lists, must be one kind"),
        ((P, ["a", "b", 3]), r"responses\[2\] = 3 must be a text or a list of token numbers"),
        ((P, [[1], [2], [2.5]]), r"responses\[2\] = \[2.5\] must be a text or a list of token numbers"),
        ((P, "abc"), "responses = 'abc' must be a list of 3 texts or token lists"),
        ((P,), "responses must be given: the 3 responses"),
    ],
)
def test_a_wrong_matrix_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MatrixOracle(*arguments)


def test_prompts_of_one_matrix_are_refused() -> None:
    with pytest.raises(InputError, match="prompts must be left out"):
        MatrixOracle(P, ["a", "b", "c"], prompts=["x"])


def test_classes() -> None:
    oracle = ClassOracle(lambda response: "abc".find(response.text[0]) if response.text[0] != "x" else None, P)
    left, right = responses("a", "b", "c", "aa", "x"), responses("b", "c", "a", "ab", "a")
    verdicts = ask(oracle, [PROMPT] * 5, left, right)
    np.testing.assert_allclose(verdicts.probabilities, [0.9, 0.7, 0.8, 0.5, 0.5], rtol=0, atol=1e-15)
    assert verdicts.valid.tolist() == [True, True, True, True, False]
    with pytest.raises(InputError, match=r"classify\('z'\) = -1 must be a class from 0 to 2, or None"):
        ask(oracle, [PROMPT], responses("z"), responses("a"))
    says_text: Any = lambda response: response.text  # noqa: E731
    with pytest.raises(InputError, match=r"classify\('z'\) = 'z' must be a class from 0 to 2"):
        ask(ClassOracle(says_text, P), [PROMPT], responses("z"), responses("a"))


def test_rock_paper_scissors_has_the_cycle_that_its_name_says() -> None:
    oracle = pickle.loads(pickle.dumps(rock_paper_scissors(FirstToken([[7], [8], [9, 10]]), strength=0.75)))
    rock, paper, scissors, other = (Response("", (token, 1)) for token in (7, 8, 10, 3))
    left, right = [rock, paper, scissors, paper, rock], [scissors, rock, paper, scissors, rock]
    assert ask(oracle, [PROMPT] * 5, left, right).probabilities.tolist() == [0.75, 0.75, 0.75, 0.25, 0.5]
    assert not ask(oracle, [PROMPT] * 2, [other, rock], [rock, Response("", ())]).valid.any()
    with pytest.raises(InputError, match="groups has token 7 in classes 0 and 1"):
        FirstToken([[7], [7]])
    with pytest.raises(InputError, match="strength = 0.4 must lie between 0.5 and 1"):
        rock_paper_scissors(FirstToken([[7]]), strength=0.4)
    with pytest.raises(InputError, match="groups must have at least one token"):
        FirstToken([[]])
    with pytest.raises(InputError, match="preferences has 2 contexts, must be one matrix"):
        ClassOracle(FirstToken([[7]]), np.stack([P, P]))


def one_by_one(prompt: Any, left: Any, right: Any) -> float | None:
    """0.1 for each letter of the left text; nothing to say of a "?"; NaN of a "!"."""
    text = left if isinstance(left, str) else left.text
    return None if text == "?" else math.nan if text == "!" else len(text) / 10


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("tokens", [False, True])
def test_a_function(batched: bool, tokens: bool) -> None:
    seen: list[Any] = []

    def listed(prompts: list[Any], left: list[Any], right: list[Any]) -> list[float | None]:
        assert all(isinstance(column, list) for column in (prompts, left, right))
        return [single(*pair) for pair in zip(prompts, left, right)]

    def single(*pair: Any) -> float | None:
        seen.append(pair)
        return one_by_one(*pair)

    oracle = FunctionOracle(listed if batched else single, batched=batched, tokens=tokens)
    left, right = responses("a", "?", "bbb", "!"), responses("w", "x", "y", "z")
    verdicts = ask(oracle, [PROMPT] * 4, left, right)
    np.testing.assert_allclose(verdicts.probabilities, [0.1, 0.5, 0.3, 0.5], rtol=0, atol=1e-15)
    assert verdicts.valid.tolist() == [True, False, True, False]
    assert seen[2] == ((PROMPT, left[2], right[2]) if tokens else ("Which?", "bbb", "y"))


def test_a_function_that_is_wrong() -> None:
    pair = [PROMPT] * 2, responses("a", "b"), responses("c", "d")
    with pytest.raises(InputError, match=r"function = 3 must be a function \(prompt, left, right\) -> probability"):
        FunctionOracle(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"function's result \[0\] = 'A' must be a number"):
        ask(FunctionOracle(lambda prompt, left, right: "A"), *pair)
    with pytest.raises(InputError, match=r"function returned an array of shape \(1,\), must be \(2,\)"):
        ask(FunctionOracle(lambda prompts, left, right: [0.5], batched=True), *pair)
    with pytest.raises(InputError, match=r"FunctionOracle.compare: probabilities\[1\] = 1.5 must lie in \[0, 1\]"):
        ask(FunctionOracle(lambda prompt, left, right: 0.5 + (left == "b")), *pair)
    with pytest.raises(ZeroDivisionError):
        ask(FunctionOracle(lambda prompt, left, right: 1 / 0), *pair)


@pytest.mark.parametrize("batched", [False, True])
def test_a_score_is_bradley_terry(batched: bool) -> None:
    calls: list[str] = []

    def score(prompt: Any, response: Any) -> Any:
        calls.extend(response if batched else [response])
        values = {"a": 0.0, "b": math.log(3), "c": None, "d": math.nan}
        return [values[one] for one in response] if batched else values[response]

    oracle = ScoreOracle(score, temperature=0.5, batched=batched)
    left, right = responses("b", "a", "a", "c", "b"), responses("a", "b", "a", "a", "d")
    verdicts = ask(oracle, [PROMPT] * 5, left, right)
    # Odds are exp(log 3 / 0.5) = 9.
    np.testing.assert_allclose(verdicts.probabilities[:3], [0.9, 0.1, 0.5], rtol=0, atol=1e-15)
    assert verdicts.valid.tolist() == [True, True, True, False, False]
    assert sorted(calls) == ["a", "b", "c", "d"]


def test_scores_of_one_response_differ_between_prompts() -> None:
    oracle = ScoreOracle(lambda prompt, response: len(prompt) * len(response))
    verdicts = ask(oracle, [Prompt("", ()), Prompt("p", ())], responses("aa", "aa"), responses("a", "a"))
    np.testing.assert_allclose(verdicts.probabilities, [0.5, 1 / (1 + math.exp(-1))], rtol=0, atol=1e-15)


def test_wrong_scores_are_refused() -> None:
    pair = [PROMPT], responses("a"), responses("b")
    with pytest.raises(InputError, match="score of 'b' = -inf must be finite"):
        ask(ScoreOracle(lambda prompt, response: -math.inf if response == "b" else 0), *pair)
    with pytest.raises(InputError, match="score's result = 'good' must be a number"):
        ask(ScoreOracle(lambda prompt, response: "good"), *pair)
    with pytest.raises(InputError, match="temperature = 0 must be positive"):
        ScoreOracle(lambda prompt, response: 0, temperature=0)


def test_both_orders() -> None:
    inner = Recorder(leaning=0.1)  # says 0.9 and 0.3 of what is 0.8 and 0.2, in either order
    oracle = BothOrders(inner)
    pair = [PROMPT] * 4, responses("a", "b", "a?", "b"), responses("b", "a", "b", "a?")
    verdicts = ask(oracle, *pair)
    np.testing.assert_allclose(verdicts.probabilities, [0.8, 0.2, 0.5, 0.5], rtol=0, atol=1e-15)
    assert verdicts.valid.tolist() == [True, True, False, False]
    there = [("a", "b"), ("b", "a"), ("a?", "b"), ("b", "a?")]
    assert inner.asked == [[*there, *((right, left) for left, right in there)]]
    assert oracle.disagreement(*pair) == pytest.approx(0.2, abs=1e-15)
    assert BothOrders(Recorder()).disagreement(*pair) == pytest.approx(0, abs=1e-15)
    assert math.isnan(oracle.disagreement([PROMPT], responses("?"), responses("a")))


def test_a_response_ties_with_itself_in_both_orders() -> None:
    same = responses(*"abc")
    assert ask(BothOrders(Recorder(leaning=0.17)), [PROMPT] * 3, same, same).probabilities.tolist() == [0.5] * 3


def test_a_cache_asks_once() -> None:
    inner = Recorder(leaning=0.1)
    oracle = Cached(inner)
    left, right = responses("a", "b", "a", "?"), responses("b", "a", "b", "a")
    first = ask(oracle, [PROMPT] * 4, left, right)
    second = ask(oracle, [PROMPT] * 4, left, right)
    np.testing.assert_allclose(first.probabilities, [0.9, 0.3, 0.9, 0.5], rtol=0, atol=1e-15)
    assert first.valid.tolist() == [True, True, True, False]
    for one, other in zip(first, second):
        assert one.tolist() == other.tolist()
    assert inner.asked == [[("a", "b"), ("b", "a"), ("?", "a")], [("?", "a")]]
    assert (oracle.hits, oracle.asked) == (4, 4)


def test_a_cache_tells_prompts_and_tokens_apart() -> None:
    oracle = Cached(Recorder())
    prompts = [Prompt("p", (1,), 0), Prompt("p", (1,), 1), Prompt("q", (1,), 0), Prompt("p", (1,), 0), Prompt("p", (2,), 0)]
    left = [Response("a", (1,))] * 3 + [Response("a", (2,)), Response("a", (1,))]
    ask(oracle, prompts, left, responses("b") * 5)
    assert (oracle.hits, oracle.asked) == (0, 5)


def test_a_symmetric_cache_turns_what_it_knows() -> None:
    inner = Recorder(leaning=0.1)
    oracle = Cached(inner, symmetric=True)
    verdicts = ask(oracle, [PROMPT] * 4, responses("b", "a", "b", "c"), responses("a", "b", "a", "c"))
    np.testing.assert_allclose(verdicts.probabilities, [0.3, 0.7, 0.3, 0.6], rtol=0, atol=1e-15)
    assert inner.asked == [[("b", "a"), ("c", "c")]]
    np.testing.assert_allclose(ask(oracle, [PROMPT], responses("a"), responses("b")).probabilities, [0.7], rtol=0, atol=1e-15)


def test_a_cache_forgets_what_was_used_longest_ago() -> None:
    inner = Recorder()
    oracle = Cached(inner, max_size=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        ask(oracle, [PROMPT], responses(text), responses("x"))
    assert [asked[0][0] for asked in inner.asked] == ["a", "b", "c", "b"]
    # More in one call than it keeps: all are answered all the same.
    assert ask(oracle, [PROMPT] * 5, responses(*"efghe"), responses(*"xxxxx")).probabilities.tolist() == [0.8] * 5


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_keep_the_order(workers: int) -> None:
    threads = set()

    def slower_at_first(prompts: list[str], left: list[str], right: list[str]) -> list[float]:
        threads.add(threading.get_ident())
        time.sleep(0.06 if "a" in left else 0.01)
        return [(ord(text) - 97) / 10 for text in left]

    oracle = Batched(FunctionOracle(slower_at_first, batched=True), batch_size=2, workers=workers)
    verdicts = ask(oracle, [PROMPT] * 7, responses(*"abcdefg"), responses(*"xxxxxxx"))
    np.testing.assert_allclose(verdicts.probabilities, np.arange(7) / 10, rtol=0, atol=1e-15)
    assert (len(threads) > 1) == (workers > 1)


def test_batches_have_the_size_asked_for() -> None:
    inner = Recorder()
    ask(Batched(inner, 3), [PROMPT] * 7, responses(*"abcdefg"), responses(*"xxxxxxx"))
    assert list(map(len, inner.asked)) == [3, 3, 1]


@pytest.mark.parametrize("workers", [1, 4])
def test_a_mistake_in_a_batch_is_named_by_its_pair(workers: int) -> None:
    oracle = Batched(FunctionOracle(lambda prompt, left, right: 2.0 * (left == "f")), batch_size=2, workers=workers)
    with pytest.raises(InputError, match=r"FunctionOracle.compare: probabilities\[5\] = 2 must lie"):
        ask(oracle, [PROMPT] * 7, responses(*"abcdefg"), responses(*"xxxxxxx"))


def test_a_cache_serves_several_threads() -> None:
    oracle = Cached(FunctionOracle(lambda prompt, left, right: (ord(left) - 97) / 26), max_size=5)
    texts = [chr(97 + k % 26) for k in range(520)]
    verdicts = ask(Batched(oracle, 4, workers=8), [PROMPT] * 520, responses(*texts), responses(*"x" * 520))
    np.testing.assert_allclose(verdicts.probabilities, [(ord(text) - 97) / 26 for text in texts], rtol=0, atol=1e-15)
    assert oracle.hits + oracle.asked == 520


def test_noise() -> None:
    pair = [PROMPT] * 3, responses("a", "b", "?"), responses("b", "a", "b")
    # Says what it means (0.8) with probability 0.9, the opposite with 0.1: 0.9 * 0.8 + 0.1 * 0.2.
    verdicts = ask(Noisy(Recorder(), flip=0.1), *pair)
    np.testing.assert_allclose(verdicts.probabilities, [0.74, 0.26, 0.5], rtol=0, atol=1e-15)
    assert verdicts.valid.tolist() == [True, True, False]
    with pytest.raises(InputError, match="flip = 1.1 must lie between 0 and 1"):
        Noisy(Recorder(), 1.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Batched(Recorder(), 0), "batch_size = 0 must be at least 1"),
        (lambda: Batched(Recorder(), 1, workers=0), "workers = 0 must be at least 1"),
        (lambda: Cached(Recorder(), max_size=0), "max_size = 0 must be at least 1"),
        (lambda: Cached(Recorder(), symmetric=1), "symmetric = 1 must be True or False"),  # type: ignore[arg-type]
    ],
)
def test_wrong_wrappers_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


# Preferences that no two pairs share, some without a verdict; a class twice, and a response that has none.
SEVERAL = responses("a", "bb", "c", "d", "aa", "?", "ccc")
LOST = {frozenset("ac"), frozenset("db")}


def per_letter() -> Any:
    ahead = np.triu(np.random.default_rng(0).uniform(-0.5, 0.5, (4, 4)), 1)
    return ClassOracle(lambda one: None if one.text == "?" else ord(one.text[0]) - ord("a"), 0.5 + ahead - ahead.T)


def with_contexts() -> Any:
    ahead = np.triu(np.random.default_rng(1).uniform(-0.5, 0.5, (2, 7, 7)), 1)
    return MatrixOracle(0.5 + ahead - np.swapaxes(ahead, 1, 2), [one.text for one in SEVERAL[::-1]])


class NotAll:
    """An oracle that is asked pair by pair."""

    def __init__(self, oracle: Any) -> None:
        self.oracle, self.sizes = oracle, list[int]()

    def compare(self, prompts: Any, left: Any, right: Any) -> Verdicts:
        self.sizes.append(len(prompts))
        found = self.oracle.compare(prompts, left, right)
        lost = [frozenset((a.text[0], b.text[0])) in LOST for a, b in zip(left, right, strict=True)]
        return found._replace(valid=found.valid & ~np.array(lost, dtype=bool))


@pytest.mark.parametrize("at_once", [1, 15, 10**6])
def test_all_pairs_are_asked_once_whatever_is_asked_at_a_time(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlhfsim.llm.oracles._check._AT_ONCE", at_once)
    oracle, prompt = NotAll(with_contexts()), PROMPT._replace(number=1)
    found = ask_all(oracle, prompt, SEVERAL)
    assert sum(oracle.sizes) == 21 and len(oracle.sizes) == {1: 6, 15: 3, 10**6: 1}[at_once]
    for i, left in enumerate(SEVERAL):
        assert found.probabilities[i, i] == 0.5 and found.valid[i, i]
        for j in range(i + 1, len(SEVERAL)):
            single = ask(oracle, [prompt], [left], [SEVERAL[j]])
            assert (found.probabilities[i, j], found.valid[i, j]) == (single.probabilities[0], single.valid[0])
            assert (found.probabilities[j, i], found.valid[j, i]) == (1 - single.probabilities[0], single.valid[0])
    assert not found.valid.all()


@pytest.mark.parametrize("make", [per_letter, with_contexts])
def test_an_oracle_that_knows_all_pairs_says_what_it_says_of_each(make: Any) -> None:
    oracle, prompt = make(), PROMPT._replace(number=1)
    whole = ask_all(oracle, prompt, SEVERAL)
    rows, columns = np.triu_indices(len(SEVERAL), 1)
    pairs = ask(oracle, [prompt] * 21, [SEVERAL[i] for i in rows], [SEVERAL[j] for j in columns])
    np.testing.assert_array_equal(whole.probabilities[rows, columns], pairs.probabilities)
    np.testing.assert_array_equal(whole.valid[rows, columns], pairs.valid)
    assert len(set(pairs.probabilities.tolist())) > 6


def test_all_pairs_of_no_response_and_of_one() -> None:
    assert ask_all(Says(None), PROMPT, []).probabilities.shape == (0, 0)
    assert ask_all(Says(None), PROMPT, responses("a")).probabilities.tolist() == [[0.5]]


def test_a_wrong_answer_on_all_pairs_is_refused() -> None:
    oracle = Says(None)
    right, valid = np.full((3, 3), 0.5), np.ones((3, 3), dtype=bool)
    for answer, message in [
        (Verdicts(right[:2], valid), r"Says.compare_all returned arrays of shape \(2, 3\) and \(3, 3\), must be \(3, 3\)"),
        (Verdicts(right + np.eye(3, k=2), valid), r"Says.compare_all: probabilities\[1\] = 1.5 must lie in \[0, 1\]"),
    ]:
        oracle.compare_all = lambda *_, answer=answer: answer  # type: ignore[attr-defined]
        with pytest.raises(InputError, match=message):
            ask_all(oracle, PROMPT, responses("a", "b", "c"))


def test_oracles_without_a_model_need_no_torch() -> None:
    program = "import sys; from nlhfsim.llm import oracles, interop; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_all_names_are_there() -> None:
    assert set(oracles.__all__) <= set(dir(oracles)) and all(hasattr(oracles, name) for name in oracles.__all__)
    with pytest.raises(AttributeError, match="'nlhfsim.llm.oracles' has no attribute 'Judge'"):
        getattr(oracles, "Judge")
