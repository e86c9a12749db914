"""Our oracles in other trainers: a pairwise oracle as the scalar reward function that TRL's online DPO takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nlhfsim.errors import InputError, ensure_flag, ensure_integer
from nlhfsim.llm.oracles import Message, PreferenceOracle, Prompt, Response, ask
from nlhfsim.llm.oracles._spec import as_text

RewardFunction = Callable[..., list[float]]


def trl_reward_function(oracle: PreferenceOracle, *, votes: bool = True, seed: int = 0, tokenizer: Any = None) -> RewardFunction:
    """Return `oracle` as an entry of ``reward_funcs`` of TRL's ``OnlineDPOTrainer``.

    That trainer has two responses to each prompt and labels the first as chosen if its score is at least that of the second. It
    hands over all first responses, then all second ones, with the prompts twice; the scores returned are the vote on the pair, 1
    and 0. It knows no verdicts that are not valid: such a pair gets ½ and ½, so the first is chosen, which is as likely one
    response as the other.

    Parameters
    ----------
    oracle : PreferenceOracle
        Gets the text of a prompt or, of a conversation, its messages too, numbered by the column ``number`` of the data set, if
        there is one.
    votes : bool
        True: one Bernoulli vote a pair, drawn from the oracle's probability, as learning from preferences needs. False: the
        probability and its complement, of which TRL reads only which is larger, a tie as the first. That is another game, in
        which every majority is certain, with another equilibrium.
    seed : int
        Of the votes. With TRL's step and the process it determines them, so a run that resumes draws the same.
    tokenizer : transformers tokenizer, optional
        The policy's. With it prompts have tokens, and those of responses are cut behind the end of sequence, where TRL pads;
        without it a response has the padding, and a prompt no tokens.

    Returns
    -------
    callable
        ``function(prompts, completions, completion_ids=None, **columns)`` to a list of as many scores.

    Raises
    ------
    InputError
        If an argument is not as described; when called, if prompts and completions are not laid out like that.

    Notes
    -----
    Written for, and tried with, TRL 1.16, where the layout is as described but not documented. Its ``missing_eos_penalty``, if
    set, is taken off the scores afterwards.

    Examples
    --------
    >>> from nlhfsim.llm.interop import trl_reward_function
    >>> from nlhfsim.llm.oracles import FunctionOracle
    >>> longer = FunctionOracle(lambda prompt, left, right: float(len(left) > len(right)))
    >>> reward = trl_reward_function(longer)
    >>> reward(prompts=["a", "b", "a", "b"], completions=["yes", "no", "no", "never"])
    [1.0, 0.0, 0.0, 1.0]
    """
    ensure_flag("votes", votes)
    ensure_integer("seed", seed)
    last = (-1, -1)
    rank = int(os.environ.get("RANK", 0))

    def nlhfsim_oracle(
        prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Sequence[Sequence[int]] | None = None, **columns: Any
    ) -> list[float]:
        nonlocal last
        half = _half(prompts, completions)
        asked = [_prompt(one, number, tokenizer) for one, number in zip(prompts[:half], _numbers(columns, half))]
        tokens: Sequence[Sequence[int]] = [()] * len(completions) if completion_ids is None else completion_ids
        responses = [Response(_text(one), _cut(ids, tokenizer)) for one, ids in zip(completions, tokens)]
        verdicts = ask(oracle, asked, responses[:half], responses[half:])
        # Several calls belong to one step where gradients accumulate; without steps all belong to one.
        step = getattr(columns.get("trainer_state"), "global_step", 0)
        last = (step, last[1] + 1 if step == last[0] else 0)
        rng = np.random.default_rng([seed, rank, *last])
        drawn = (rng.random(half) < verdicts.probabilities).astype(np.float64) if votes else verdicts.probabilities
        first = np.where(verdicts.valid, drawn, 0.5)
        return [*first.tolist(), *(1 - first).tolist()]

    return nlhfsim_oracle


def _half(prompts: Sequence[Any], completions: Sequence[Any]) -> int:
    """Return how many pairs there are."""
    half, odd = divmod(len(completions), 2)
    if odd or len(prompts) != len(completions):
        raise InputError(f"there are {len(prompts)} prompts and {len(completions)} completions, must be as many and even")
    wrong = next((k for k in range(half) if prompts[k] != prompts[half + k]), None)
    if wrong is not None:
        raise InputError(
            f"prompts[{wrong}] and prompts[{half + wrong}] differ, must be the same: all first completions come before all "
            "second ones, as in TRL's OnlineDPOTrainer"
        )
    return half


def _numbers(columns: dict[str, Any], half: int) -> list[int]:
    given = columns.get("number")
    return [0] * half if given is None else [int(number) for number in given[:half]]


def _text(given: Any) -> str:
    return given if isinstance(given, str) else as_text(_messages(given))


def _messages(given: Any) -> tuple[Message, ...]:
    return tuple(Message(message["role"], _content(message)) for message in given)


def _content(message: Any) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _prompt(given: Any, number: int, tokenizer: Any) -> Prompt:
    if isinstance(given, str):
        return Prompt(given, () if tokenizer is None else tuple(tokenizer(given)["input_ids"]), number)
    tokens: Sequence[int] = ()
    if tokenizer is not None:
        tokens = tokenizer.apply_chat_template(given, add_generation_prompt=True, tokenize=True, return_dict=False)
    messages = _messages(given)
    return Prompt(as_text(messages), tuple(tokens), number, messages)


def _cut(tokens: Sequence[int], tokenizer: Any) -> tuple[int, ...]:
    """Return the tokens up to and with the end of sequence."""
    end = getattr(tokenizer, "eos_token_id", None)
    listed = tuple(tokens)
    return listed[: listed.index(end) + 1] if end in listed else listed
