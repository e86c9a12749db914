"""Oracles around oracles: both orders, a cache, batches, noise."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np

from nlhfsim.errors import ensure_between, ensure_flag, ensure_integer
from nlhfsim.llm.oracles._check import ask, unread_by
from nlhfsim.llm.oracles._spec import PreferenceOracle, Prompt, Response, Verdicts


class _Around:
    """What wraps an oracle."""

    def __init__(self, oracle: PreferenceOracle) -> None:
        self._oracle = oracle

    @property
    def unread(self) -> str:
        """Why the oracle had no verdict the last time that it had none."""
        return unread_by(self._oracle)


class BothOrders(_Around):
    """Ask in both orders and average, so that ``P(y ≻ y') + P(y' ≻ y) = 1`` whatever the oracle makes of positions.

    Parameters
    ----------
    oracle : PreferenceOracle
        Asked twice about each pair, in one call; a verdict is valid if both are.

    Examples
    --------
    >>> from nlhfsim.llm.oracles import BothOrders, FunctionOracle, Prompt, Response, ask
    >>> oracle = BothOrders(FunctionOracle(lambda prompt, left, right: 0.9))  # the first is always better
    >>> pair = [Prompt("Why?", ())], [Response("So.", ())], [Response("No.", ())]
    >>> float(ask(oracle, *pair).probabilities[0]), round(oracle.disagreement(*pair), 3)
    (0.5, 0.8)
    """

    def compare(self, prompts: Sequence[Prompt], left: Sequence[Response], right: Sequence[Response]) -> Verdicts:
        """Return the averages of both orders."""
        there, back = self._orders(prompts, left, right)
        return Verdicts(0.5 + (there.probabilities - back.probabilities) / 2, there.valid & back.valid)

    def disagreement(self, prompts: Sequence[Prompt], left: Sequence[Response], right: Sequence[Response]) -> float:
        """Return how far the orders are apart, the mean of ``|P(y ≻ y') - (1 - P(y' ≻ y))|``; NaN if no pair is valid."""
        there, back = self._orders(prompts, left, right)
        valid = there.valid & back.valid
        return float(np.abs(there.probabilities + back.probabilities - 1)[valid].mean()) if valid.any() else float("nan")

    def _orders(
        self, prompts: Sequence[Prompt], left: Sequence[Response], right: Sequence[Response]
    ) -> tuple[Verdicts, Verdicts]:
        both = ask(self._oracle, [*prompts, *prompts], [*left, *right], [*right, *left])
        probabilities, valid = (part.reshape(2, len(prompts)) for part in both)
        return Verdicts(probabilities[0], valid[0]), Verdicts(probabilities[1], valid[1])

    def __repr__(self) -> str:
        return f"BothOrders({self._oracle!r})"


class Cached(_Around):
    """Remember verdicts, and ask only about pairs that are new, each once.

    Parameters
    ----------
    oracle : PreferenceOracle
        Verdicts that are not valid are not remembered, so they are asked for again.
    max_size : int
        Verdicts kept, at least 1; beyond it the one that was used longest ago goes.
    symmetric : bool
        Whether ``P(y' ≻ y)`` is ``1 - P(y ≻ y')`` by definition, so that one order answers the other. Leave it False for a judge
        that may favour a position.

    Attributes
    ----------
    hits, asked : int
        Pairs answered from memory, and pairs that the oracle was asked about.

    Examples
    --------
    >>> from nlhfsim.llm.oracles import Cached, FunctionOracle, Prompt, Response, ask
    >>> oracle = Cached(FunctionOracle(lambda prompt, left, right: 0.7), symmetric=True)
    >>> why, yes, no = Prompt("Why?", ()), Response("Yes.", ()), Response("No.", ())
    >>> ask(oracle, [why, why], [yes, no], [no, yes]).probabilities, oracle.hits, oracle.asked
    (array([0.7, 0.3]), 1, 1)
    """

    def __init__(self, oracle: PreferenceOracle, max_size: int = 100_000, *, symmetric: bool = False) -> None:
        super().__init__(oracle)
        self._max_size, self._symmetric = ensure_integer("max_size", max_size, 1), ensure_flag("symmetric", symmetric)
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._lock = Lock()
        self.hits = self.asked = 0

    def compare(self, prompts: Sequence[Prompt], left: Sequence[Response], right: Sequence[Response]) -> Verdicts:
        """Return verdicts, from memory where they are there."""
        keys = [self._key(*pair) for pair in zip(prompts, left, right)]
        answers = self._recall(keys)
        new: dict[bytes, int] = {}
        for place, (key, _) in enumerate(keys):
            if key not in answers:
                new.setdefault(key, place)
        places = list(new.values())
        verdicts = ask(self._oracle, [prompts[k] for k in places], [left[k] for k in places], [right[k] for k in places])
        fresh = {
            key: 1 - p if keys[place][1] else p
            for (key, place), p, valid in zip(new.items(), verdicts.probabilities.tolist(), verdicts.valid)
            if valid
        }
        self._remember(fresh, hits=len(keys) - len(places), asked=len(places))
        answers |= fresh
        forward = np.array([answers.get(key, np.nan) for key, _ in keys], dtype=np.float64)
        turned = np.array([turn for _, turn in keys], dtype=np.bool_)
        return Verdicts(np.where(turned, 1 - forward, forward), ~np.isnan(forward))

    def _key(self, prompt: Prompt, left: Response, right: Response) -> tuple[bytes, bool]:
        """Return under what a pair is known, and whether its other order is."""
        turned = self._symmetric and right < left
        first, second = (right, left) if turned else (left, right)
        # A digest, as the texts and tokens of many long responses would fill the memory.
        parts = repr((tuple(prompt), tuple(first), tuple(second)))
        return hashlib.blake2b(parts.encode("utf-8", "surrogatepass"), digest_size=16).digest(), turned

    def _recall(self, keys: list[tuple[bytes, bool]]) -> dict[bytes, float]:
        with self._lock:
            found = {key: self._known[key] for key, _ in keys if key in self._known}
            for key in found:
                self._known.move_to_end(key)
        return found

    def _remember(self, fresh: dict[bytes, float], *, hits: int, asked: int) -> None:
        with self._lock:
            self._known.update(fresh)
            while len(self._known) > self._max_size:
                self._known.popitem(last=False)
            self.hits += hits
            self.asked += asked

    def __repr__(self) -> str:
        return f"Cached({self._oracle!r})"


class Batched(_Around):
    """Ask in batches, in turn or several at a time.

    Parameters
    ----------
    oracle : PreferenceOracle
        With several workers, called from several threads at once.
    batch_size : int
        The most pairs a call, at least 1.
    workers : int
        Calls at a time, at least 1: for an oracle that waits, such as a remote service. Verdicts keep their order.

    Examples
    --------
    >>> from nlhfsim.llm.oracles import Batched, FunctionOracle, Prompt, Response, ask
    >>> oracle = Batched(FunctionOracle(lambda prompt, left, right: len(left) / 10), batch_size=2, workers=2)
    >>> ask(oracle, [Prompt("", ())] * 3, [Response(text, ()) for text in ("a", "bb", "ccc")], [Response("", ())] * 3)
    Verdicts(probabilities=array([0.1, 0.2, 0.3]), valid=array([ True,  True,  True]))
    """

    def __init__(self, oracle: PreferenceOracle, batch_size: int, workers: int = 1) -> None:
        super().__init__(oracle)
        self._batch_size, self._workers = ensure_integer("batch_size", batch_size, 1), ensure_integer("workers", workers, 1, 1024)

    def compare(self, prompts: Sequence[Prompt], left: Sequence[Response], right: Sequence[Response]) -> Verdicts:
        """Return the verdicts of all batches."""

        def batch(first: int) -> Verdicts:
            part = slice(first, first + self._batch_size)
            return ask(self._oracle, prompts[part], left[part], right[part], first=first)

        firsts = range(0, len(prompts), self._batch_size)
        if self._workers == 1 or len(firsts) == 1:
            found = [batch(first) for first in firsts]
        else:
            with ThreadPoolExecutor(min(self._workers, len(firsts))) as pool:
                found = list(pool.map(batch, firsts))
        return Verdicts(*(np.concatenate(parts) for parts in zip(*found)))

    def __repr__(self) -> str:
        return f"Batched({self._oracle!r}, batch_size={self._batch_size}, workers={self._workers})"


class Noisy(_Around):
    """An annotator who says the opposite with a fixed probability: ``p → (1 - 2 flip) p + flip``.

    The probabilities stay a function of the pair; votes are drawn by the trainer.

    Parameters
    ----------
    oracle : PreferenceOracle
        What the annotator means.
    flip : float
        Probability of the opposite, in [0, 1]; ½ leaves no signal.

    Examples
    --------
    >>> from nlhfsim.llm.oracles import FunctionOracle, Noisy, Prompt, Response, ask
    >>> oracle = Noisy(FunctionOracle(lambda prompt, left, right: 1.0), flip=0.25)
    >>> float(ask(oracle, [Prompt("", ())], [Response("", ())], [Response("", ())]).probabilities[0])
    0.75
    """

    def __init__(self, oracle: PreferenceOracle, flip: float) -> None:
        super().__init__(oracle)
        self._flip = ensure_between("flip", flip, 0, 1)

    def compare(self, prompts: Sequence[Prompt], left: Sequence[Response], right: Sequence[Response]) -> Verdicts:
        """Return the probabilities of what the annotator says."""
        verdicts = ask(self._oracle, prompts, left, right)
        return Verdicts((1 - 2 * self._flip) * verdicts.probabilities + self._flip, verdicts.valid)

    def __repr__(self) -> str:
        return f"Noisy({self._oracle!r}, flip={self._flip:g})"
