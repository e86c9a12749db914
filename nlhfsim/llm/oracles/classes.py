"""An oracle that knows classes of responses: preferences that run in a circle, on texts of any length."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nlhfsim.errors import InputError, ensure_between
from nlhfsim.games import PreferenceGame
from nlhfsim.games import rock_paper_scissors as cycle_of_three
from nlhfsim.llm.oracles._check import ensure_callable
from nlhfsim.llm.oracles._spec import Prompt, Response, Verdicts


class ClassOracle:
    """Preferences between classes of responses; within a class it is a tie.

    Parameters
    ----------
    classify : callable
        ``classify(response)``, a `Response`, to the number of its class, or None if it has none: then the verdict is not valid.
    preferences : array_like or PreferenceGame
        Shape ``(k, k)``: the probability that a response of class a is preferred to one of class b. Checked as `PreferenceGame`
        does.

    Raises
    ------
    InputError
        If an argument is not as described, or `classify` returns no class.

    Examples
    --------
    >>> from nlhfsim.llm.oracles import ClassOracle, Prompt, Response, ask
    >>> polite = ClassOracle(lambda response: int("please" in response.text), [[0.5, 0.2], [0.8, 0.5]])
    >>> left, right = Response("Sit down, please.", ()), Response("Sit.", ())
    >>> float(ask(polite, [Prompt("May I?", ())], [left], [right]).probabilities[0])
    0.8
    """

    def __init__(self, classify: Callable[[Response], int | None], preferences: npt.ArrayLike | PreferenceGame) -> None:
        self._classify = ensure_callable("classify", classify, "of a Response to the number of its class, or None")
        game = preferences if isinstance(preferences, PreferenceGame) else PreferenceGame(preferences)
        if game.batched:
            raise InputError(f"preferences has {game.n_contexts} contexts, must be one matrix between classes, (k, k)")
        self._preferences = game.preferences

    def compare(self, prompts: Sequence[Prompt], left: Sequence[Response], right: Sequence[Response]) -> Verdicts:
        """Return the preferences between the classes."""
        rows, columns = (np.array([self._class(response) for response in side], dtype=np.intp) for side in (left, right))
        return Verdicts(self._preferences[rows, columns], (rows >= 0) & (columns >= 0))

    def compare_all(self, prompt: Prompt, responses: Sequence[Response]) -> Verdicts:
        """Return the preferences between all of some responses, ``(n, n)``; each is classified once."""
        classes = np.array([self._class(response) for response in responses], dtype=np.intp)
        known = classes >= 0
        return Verdicts(self._preferences[np.ix_(classes, classes)], known[:, None] & known)

    def _class(self, response: Response) -> int:
        """Return the class of a response, -1 for none."""
        given: Any = self._classify(response)
        if given is None:
            return -1
        try:
            number = operator.index(given)
        except TypeError:
            number = -1
        if not 0 <= number < len(self._preferences):
            raise InputError(
                f"classify({response.text!r}) = {given!r} must be a class from 0 to {len(self._preferences) - 1}, or None"
            )
        return number

    def __repr__(self) -> str:
        return f"ClassOracle({len(self._preferences)} classes)"


class FirstToken:
    """The class of a response by its first token.

    Parameters
    ----------
    groups : sequence of collections of int
        The tokens of each class; a response that begins with another, or is empty, has none.

    Raises
    ------
    InputError
        If a token is in two classes, or there are none.

    Examples
    --------
    >>> from nlhfsim.llm.oracles import FirstToken, Response
    >>> classify = FirstToken([{5, 6}, {7}])
    >>> classify(Response("", (7, 5))), classify(Response("", (4,)))
    (1, None)
    """

    def __init__(self, groups: Sequence[Collection[int]]) -> None:
        self._classes: dict[int, int] = {}
        for number, group in enumerate(groups):
            for token in group:
                if self._classes.setdefault(token, number) != number:
                    raise InputError(f"groups has token {token} in classes {self._classes[token]} and {number}, must be in one")
        if not self._classes:
            raise InputError("groups must have at least one token")

    def __call__(self, response: Response) -> int | None:
        """Return the class of a response, or None."""
        return self._classes.get(response.tokens[0]) if response.tokens else None


def rock_paper_scissors(classify: Callable[[Response], int | None], strength: float = 0.9) -> ClassOracle:
    """Return an oracle for which class 1 (paper) beats 0 (rock), 2 (scissors) beats 1, and 0 beats 2.

    No scalar reward agrees with it, and its unregularized equilibrium is each class with probability ⅓.

    Parameters
    ----------
    classify : callable
        ``classify(response)`` to 0, 1, 2 or None.
    strength : float
        Probability that the winner is preferred, in [½, 1].

    Examples
    --------
    >>> from nlhfsim.llm.oracles import FirstToken, Prompt, Response, ask, rock_paper_scissors
    >>> oracle = rock_paper_scissors(FirstToken([[0], [1], [2]]), strength=0.8)
    >>> rock, paper, scissors = (Response(str(token), (token,)) for token in range(3))
    >>> ask(oracle, [Prompt("", ())] * 3, [paper, scissors, rock], [rock, paper, scissors]).probabilities
    array([0.8, 0.8, 0.8])
    """
    return ClassOracle(classify, cycle_of_three(margin=ensure_between("strength", strength, 0.5, 1) - 0.5))
