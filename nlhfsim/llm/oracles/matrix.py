"""An oracle whose preferences are a matrix over enumerated responses: a game of the simulator, played by a language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nlhfsim.errors import InputError, ensure_flag
from nlhfsim.games import PreferenceGame
from nlhfsim.llm.oracles._spec import Prompt, Response, Verdicts

Key = str | tuple[int, ...]


class MatrixOracle:
    """Preferences looked up in a matrix.

    Parameters
    ----------
    preferences : array_like or PreferenceGame
        P of shape ``(n, n)``, the same for every prompt, or ``(prompts, n, n)``: ``P[y, y']`` is the probability that response
        y is preferred to y'. Checked as `PreferenceGame` does.
    responses : sequence of str or of token sequences, optional
        The n responses, all different: their texts, or their tokens as sampled, the token that ends a response included.
        Default: the labels of the game.
    prompts : sequence of str or of token sequences, optional
        Which prompt each context is, for a game of several. Default: the context of a prompt is its number.
    strict : bool
        Whether a response that is not among `responses` is refused; else the verdict on it is not valid.

    Raises
    ------
    InputError
        If an argument is not as described; when asked, if a prompt has no context.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> from nlhfsim.llm.oracles import MatrixOracle, Prompt, Response, ask
    >>> oracle = MatrixOracle(nl.games.rock_paper_scissors(margin=0.4))
    >>> rock, paper, lizard = (Response(text, ()) for text in ("rock", "paper", "lizard"))
    >>> ask(oracle, [Prompt("Play.", ())] * 2, [paper, lizard], [rock, rock])
    Verdicts(probabilities=array([0.9, 0.5]), valid=array([ True, False]))
    """

    def __init__(
        self,
        preferences: npt.ArrayLike | PreferenceGame,
        responses: Sequence[str] | Sequence[Sequence[int]] | None = None,
        *,
        prompts: Sequence[str] | Sequence[Sequence[int]] | None = None,
        strict: bool = False,
    ) -> None:
        game = preferences if isinstance(preferences, PreferenceGame) else PreferenceGame(preferences)
        self._strict = ensure_flag("strict", strict)
        self._advantages = game.advantages.reshape(game.n_contexts, game.n, game.n)
        self._same_for_all = not game.batched
        if responses is None and not isinstance(preferences, PreferenceGame):
            raise InputError(f"responses must be given: the {game.n} responses that the rows of preferences are")
        self._responses = _numbered(
            "responses", game.labels if responses is None else responses, game.n, "one a row of preferences"
        )
        self._prompts: dict[Key, int] | None = None
        if prompts is not None:
            if self._same_for_all:
                raise InputError("prompts must be left out: preferences is one matrix, the same for every prompt")
            self._prompts = _numbered("prompts", prompts, game.n_contexts, "one a context of preferences")

    def compare(self, prompts: Sequence[Prompt], left: Sequence[Response], right: Sequence[Response]) -> Verdicts:
        """Return the entries of the matrix."""
        contexts = np.array([self._context(prompt) for prompt in prompts], dtype=np.intp)
        rows, columns = (np.array([self._number(response) for response in side], dtype=np.intp) for side in (left, right))
        return Verdicts(self._advantages[contexts, rows, columns] + 0.5, (rows >= 0) & (columns >= 0))

    def compare_all(self, prompt: Prompt, responses: Sequence[Response]) -> Verdicts:
        """Return the entries of the matrix for all of some responses, ``(n, n)``; each is looked up once."""
        numbers = np.array([self._number(response) for response in responses], dtype=np.intp)
        known = numbers >= 0
        return Verdicts(self._advantages[self._context(prompt)][np.ix_(numbers, numbers)] + 0.5, known[:, None] & known)

    def _number(self, response: Response) -> int:
        """Return the number of a response, -1 for one that is not there."""
        number = _find(self._responses, response)
        if number is None and self._strict:
            raise InputError(
                f"response {response.text!r} of tokens {list(response.tokens)} is not among the {len(self._responses)} responses"
            )
        return -1 if number is None else number

    def _context(self, prompt: Prompt) -> int:
        if self._same_for_all:
            return 0
        if self._prompts is not None:
            number = _find(self._prompts, prompt)
            if number is None:
                raise InputError(f"prompt {prompt.text!r} is not among the {len(self._prompts)} prompts of the oracle")
            return number
        contexts = len(self._advantages)
        if not 0 <= prompt.number < contexts:
            raise InputError(
                f"prompt {prompt.number} has no context: preferences has {contexts}, must have one a prompt, or name its prompts"
            )
        return prompt.number

    def __repr__(self) -> str:
        return f"MatrixOracle({len(self._responses)} responses, {len(self._advantages)} contexts)"


def _numbered(name: str, entries: Any, count: int, what: str) -> dict[Key, int]:
    """Return the number of each entry."""
    if isinstance(entries, str) or not isinstance(entries, (Sequence, np.ndarray)):
        raise InputError(f"{name} = {entries!r} must be a list of {count} texts or token lists")
    if len(entries) != count:
        raise InputError(f"{name} has {len(entries)} entries, must be {count}, {what}")
    keys = [_key(f"{name}[{k}]", entry) for k, entry in enumerate(entries)]
    if len({type(key) for key in keys}) > 1:
        raise InputError(f"{name} has texts and token lists, must be one kind")
    if len(set(keys)) != count:
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"{name} has {repeated!r} more than once, must be all different")
    return {key: number for number, key in enumerate(keys)}


def _key(name: str, entry: Any) -> Key:
    if isinstance(entry, str):
        return entry
    try:
        tokens = [int(token) for token in entry if not isinstance(token, str) and token == int(token)]
    except (TypeError, ValueError):
        tokens = None
    if tokens is None or len(tokens) != len(entry):
        raise InputError(f"{name} = {entry!r} must be a text or a list of token numbers")
    return tuple(tokens)


def _find(numbers: dict[Key, int], one: Prompt | Response) -> int | None:
    by_text = isinstance(next(iter(numbers)), str)
    return numbers.get(one.text if by_text else one.tokens)
