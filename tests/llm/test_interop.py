"""Our oracles as TRL's reward functions: what TRL 1.16 hands over, and what it makes of the scores."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nlhfsim.errors import InputError
from nlhfsim.llm.interop import trl_reward_function
from nlhfsim.llm.oracles import FunctionOracle, MatrixOracle, Prompt, Response, Verdicts


def first_is_chosen(scores: list[float]) -> list[bool]:
    """As TRL's online DPO decides it."""
    first, second = np.split(np.array(scores), 2)
    return (first >= second).tolist()


def test_the_oracle_is_asked_about_first_against_second() -> None:
    asked: list[Any] = []

    def certain(prompts: list[Prompt], left: list[Response], right: list[Response]) -> list[float | None]:
        asked.extend(zip(prompts, left, right))
        return [1.0, 0.0, None]

    scores = trl_reward_function(FunctionOracle(certain, batched=True, tokens=True))(
        prompts=["p", "q", "r"] * 2,
        completions=["a", "b", "c", "d", "e", "f"],
        completion_ids=[[1, 9], [2], [3], [4], [5], [6]],
        number=[7, 8, 9] * 2,
        trainer_state=SimpleNamespace(global_step=3),
    )
    assert asked == [
        (Prompt("p", (), 7), Response("a", (1, 9)), Response("d", (4,))),
        (Prompt("q", (), 8), Response("b", (2,)), Response("e", (5,))),
        (Prompt("r", (), 9), Response("c", (3,)), Response("f", (6,))),
    ]
    assert scores == [1, 0, 0.5, 0, 1, 0.5] and first_is_chosen(scores) == [True, False, True]


def test_conversations() -> None:
    asked: list[Any] = []
    oracle = FunctionOracle(lambda *pair: asked.append(pair) or 1.0)
    one = [{"role": "user", "content": "Why?"}]
    many = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Why?"}]}]
    completions = [[{"role": "assistant", "content": text}] for text in "abcd"]
    assert trl_reward_function(oracle)(prompts=[one, many] * 2, completions=completions) == [1, 1, 0, 0]
    assert asked == [("Why?", "a", "c"), ("system: Be brief.\n\nuser: Why?", "b", "d")]
    whole = FunctionOracle(lambda *pair: asked.append(pair) or 1.0, tokens=True)
    trl_reward_function(whole)(prompts=[one, many] * 2, completions=completions)
    assert [prompt.messages for prompt, _, _ in asked[2:]] == [(("user", "Why?"),), (("system", "Be brief."), ("user", "Why?"))]


def test_with_the_tokenizer_there_are_tokens_and_no_padding() -> None:
    class Letters:
        """A tokenizer: the letter's number, 0 at the end."""

        eos_token_id = 0

        def __call__(self, text: str) -> dict[str, list[int]]:
            return {"input_ids": [ord(letter) - 96 for letter in text]}

        def apply_chat_template(self, messages: Any, **how: Any) -> list[int]:
            assert how == {"add_generation_prompt": True, "tokenize": True, "return_dict": False}
            return [99, *self(messages[0]["content"])["input_ids"]]

    asked: list[Any] = []

    def see(prompt: Prompt, left: Response, right: Response) -> float:
        asked.append((prompt.tokens, left.tokens, right.tokens))
        return 1.0

    function = trl_reward_function(FunctionOracle(see, tokens=True), tokenizer=Letters())
    chat = [{"role": "user", "content": "cd"}]
    function(prompts=["ab", chat] * 2, completions=list("abcd"), completion_ids=[[1, 0, 0], [2, 3, 4], [0, 0], [5, 0]])
    assert asked == [((1, 2), (1, 0), (0,)), ((99, 3, 4), (2, 3, 4), (5, 0))]


def call(function: Any, pairs: int, step: int) -> list[float]:
    scores = function(
        prompts=["p"] * (2 * pairs), completions=["a", "b"] * pairs, trainer_state=SimpleNamespace(global_step=step)
    )
    assert np.add(*np.split(np.array(scores), 2)).tolist() == [1.0] * pairs
    return [float(score) for score in scores[:pairs]]


def test_votes_are_drawn_from_the_probability() -> None:
    pairs = 20_000
    scores = call(trl_reward_function(FunctionOracle(lambda *pair: 0.7)), pairs, 0)
    assert set(scores) == {0.0, 1.0}
    assert abs(np.mean(scores) - 0.7) < 4 * np.sqrt(0.21 / pairs)


def test_without_votes_scores_are_the_probabilities() -> None:
    oracle = MatrixOracle([[0.5, 0.75], [0.25, 0.5]], ["a", "b"])
    function = trl_reward_function(oracle, votes=False)
    scores = function(prompts=["p"] * 6, completions=["a", "b", "a", "b", "a", "a"])
    assert scores == [0.75, 0.25, 0.5, 0.25, 0.75, 0.5] and first_is_chosen(scores) == [True, False, True]


def test_votes_depend_on_seed_step_and_place_in_it_alone() -> None:
    oracle = FunctionOracle(lambda *pair: 0.5)
    straight = trl_reward_function(oracle)
    drawn = [call(straight, 64, step) for step in (0, 0, 1, 1)]
    assert len({tuple(votes) for votes in drawn}) == 4
    resumed = trl_reward_function(oracle)
    assert [call(resumed, 64, 1), call(resumed, 64, 1)] == drawn[2:]
    assert call(trl_reward_function(oracle, seed=1), 64, 0) != drawn[0]


def test_processes_draw_votes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = FunctionOracle(lambda *pair: 0.5)
    alone = call(trl_reward_function(oracle), 64, 0)
    monkeypatch.setenv("RANK", "1")
    assert call(trl_reward_function(oracle), 64, 0) != alone


class Broken:
    def compare(self, prompts: Any, left: Any, right: Any) -> Verdicts:
        return Verdicts(np.array([1.5]), np.array([True]))


@pytest.mark.parametrize(
    ("oracle", "prompts", "completions", "message"),
    [
        (Broken(), ["p", "p"], ["a", "b"], r"Broken.compare: probabilities\[0\] = 1.5 must lie in \[0, 1\]"),
        (Broken(), ["p"], ["a"], "there are 1 prompts and 1 completions, must be as many and even"),
        (Broken(), ["p"], ["a", "b"], "there are 1 prompts and 2 completions"),
        (Broken(), ["p", "p", "q", "q"], list("abcd"), r"prompts\[0\] and prompts\[2\] differ, must be the same"),
    ],
)
def test_what_is_wrong_is_said(oracle: Any, prompts: list[str], completions: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        trl_reward_function(oracle)(prompts=prompts, completions=completions)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InputError, match="votes = 1 must be True or False"):
        trl_reward_function(Broken(), votes=1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="seed = -1 must be at least 0"):
        trl_reward_function(Broken(), seed=-1)
