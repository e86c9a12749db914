"""An oracle that is any Python function: a rule, a program, a remote service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nlhfsim.errors import ensure_flag
from nlhfsim.llm.oracles._check import ensure_callable, number_or_nothing, per_pair
from nlhfsim.llm.oracles._spec import Prompt, Response, Verdicts


class FunctionOracle:
    """Preferences by a Python function.

    Parameters
    ----------
    function : callable
        ``function(prompt, left, right)``, the texts, to the probability that `left` is preferred; ½ for a tie, None or NaN
        where there is no verdict. It must say the same each time.
    batched : bool
        Whether it takes and returns lists, one entry a pair.
    tokens : bool
        Whether it takes `Prompt` and `Response`, with text and tokens, rather than texts.

    Attributes
    ----------
    unread : str
        Why the last pair without a verdict had none; empty if there was none.

    Raises
    ------
    InputError
        If an argument is not as described, or the function returns no number.

    Examples
    --------
    >>> from nlhfsim.llm.oracles import FunctionOracle, Prompt, Response, ask
    >>> def shorter(prompt, left, right):
    ...     return None if not left or not right else 0.5 + 0.5 * ((len(left) < len(right)) - (len(left) > len(right)))
    >>> why, yes, no, nothing = Prompt("Why?", ()), Response("Yes.", ()), Response("No.", ()), Response("", ())
    >>> ask(FunctionOracle(shorter), [why] * 3, [no, no, no], [yes, no, nothing])
    Verdicts(probabilities=array([1. , 0.5, 0.5]), valid=array([ True,  True, False]))
    """

    def __init__(self, function: Callable[..., Any], *, batched: bool = False, tokens: bool = False) -> None:
        self._function = ensure_callable("function", function, "(prompt, left, right) -> probability")
        self._batched, self._tokens = ensure_flag("batched", batched), ensure_flag("tokens", tokens)
        self.unread = ""

    def compare(self, prompts: Sequence[Prompt], left: Sequence[Response], right: Sequence[Response]) -> Verdicts:
        """Return what the function says of each pair."""
        columns: list[list[Any]] = [list(prompts), list(left), list(right)]
        if not self._tokens:
            columns = [[one.text for one in column] for column in columns]
        if self._batched:
            probabilities = per_pair("function", self._function(*columns), len(prompts))
        else:
            said = (number_or_nothing(f"function's result [{k}]", self._function(*pair)) for k, pair in enumerate(zip(*columns)))
            probabilities = np.fromiter(said, dtype=np.float64, count=len(prompts))
        valid = ~np.isnan(probabilities)
        if not valid.all():
            self.unread = f"{self!r}: it returned NaN or None, which is no verdict"
        return Verdicts(probabilities, valid)

    def __repr__(self) -> str:
        return f"FunctionOracle({getattr(self._function, '__name__', self._function)!r})"
