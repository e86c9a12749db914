"""An oracle made from a scalar reward: Bradley–Terry, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.special import expit

from nlhfsim.errors import Array, InputError, ensure_flag, ensure_positive
from nlhfsim.llm.oracles._check import ensure_callable, number_or_nothing, per_pair
from nlhfsim.llm.oracles._spec import Prompt, Response, Verdicts


class ScoreOracle:
    """Preferences by a scalar reward r: ``P(y ≻ y') = sigmoid((r(y) - r(y')) / temperature)``.

    This is the Bradley–Terry model. It is transitive: it cannot say that y beats y', y' beats y'' and y'' beats y, so what Nash
    learning is for, preferences with cycles, is not in it.

    Parameters
    ----------
    score : callable
        ``score(prompt, response)``, the texts, to a finite number; None or NaN where there is none: then verdicts on it are not
        valid. Called once a compare for each distinct prompt and response.
    temperature : float
        Difference of rewards by which the odds of a preference change by the factor e, > 0.
    batched : bool
        Whether it takes and returns lists.
    tokens : bool
        Whether it takes `Prompt` and `Response`, with text and tokens, rather than texts.

    Raises
    ------
    InputError
        If an argument is not as described, or a score is infinite or no number.

    Examples
    --------
    >>> from nlhfsim.llm.oracles import Prompt, Response, ScoreOracle, ask
    >>> oracle = ScoreOracle(lambda prompt, response: len(response), temperature=2.0)
    >>> verdicts = ask(oracle, [Prompt("Why?", ())], [Response("No idea", ())], [Response("Maybe", ())])
    >>> verdicts.probabilities.round(3)  # 1 / (1 + exp(-1))
    array([0.731])
    """

    def __init__(
        self, score: Callable[..., Any], *, temperature: float = 1.0, batched: bool = False, tokens: bool = False
    ) -> None:
        self._score = ensure_callable("score", score, "(prompt, response) -> number")
        self._temperature = ensure_positive("temperature", temperature)
        self._batched, self._tokens = ensure_flag("batched", batched), ensure_flag("tokens", tokens)

    def compare(self, prompts: Sequence[Prompt], left: Sequence[Response], right: Sequence[Response]) -> Verdicts:
        """Return the Bradley–Terry probabilities."""
        wanted = [self._arguments(*pair) for side in (left, right) for pair in zip(prompts, side)]
        distinct = list(dict.fromkeys(wanted))
        known = dict(zip(distinct, self._scores(distinct).tolist()))
        first, second = np.array([known[one] for one in wanted], dtype=np.float64).reshape(2, len(prompts))
        probabilities = expit((first - second) / self._temperature)
        return Verdicts(probabilities, ~np.isnan(probabilities))

    def _arguments(self, prompt: Prompt, response: Response) -> tuple[Any, Any]:
        return (prompt, response) if self._tokens else (prompt.text, response.text)

    def _scores(self, pairs: list[tuple[Any, Any]]) -> Array:
        if self._batched:
            scores = per_pair("score", self._score(*map(list, zip(*pairs))), len(pairs))
        else:
            scores = np.array([number_or_nothing("score's result", self._score(*pair)) for pair in pairs], dtype=np.float64)
        infinite = np.flatnonzero(np.isinf(scores))
        if len(infinite):
            worst = int(infinite[0])
            raise InputError(
                f"score of {pairs[worst][1]!r} = {scores[worst]:g} must be finite, or None where a response has no score"
            )
        return scores

    def __repr__(self) -> str:
        return f"{type(self).__name__}(temperature={self._temperature:g})"
