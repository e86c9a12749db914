"""What a method learns from: exact payoffs, or votes on sampled pairs, and the random generators behind them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nlhfsim.dynamics._spec import Dynamics
from nlhfsim.errors import InputError, ensure_choice, ensure_flag, ensure_integer
from nlhfsim.games.payoffs import Context
from nlhfsim.games.votes import POLICY, REFERENCE, UNIFORM, SampledPayoff, with_sums

CANDIDATES = {"uniform": UNIFORM, "reference": REFERENCE, "policy": POLICY}
_STREAMS = {"runs": 1, "tuning": 2}
"""Marks the streams of feedback among all that come from a seed."""


@dataclass(frozen=True)
class Sampled:
    """Feedback from votes: every oracle call takes a fresh batch of pairs and one vote on each, a query.

    Policy-gradient methods (`SelfPlayPG`, `ProximalPG`, `NashProx`, `IPOMD`) draw both actions of a pair from their own policy
    (`IPOMD` from its mixture) and take the Online IPO estimate, at O(log n) a vote. All other methods read Aπ' at some policy π'
    of theirs (`NashMD` at its mixture, `NashMirrorProx` and `Extragradient` at the current policy and, with a fresh batch, at the
    half point): they get an unbiased estimate of it, for which the opponents are drawn from π' and the actions whose gain is
    estimated from `candidates`, with importance weights.

    Nothing is proven about constant steps with votes: they end in a neighbourhood of π*, and default steps are those for exact
    feedback. Steps that decay, such as ``nl.schedules.inverse_time``, converge.

    Parameters
    ----------
    batch_size : int
        Pairs an oracle call, at least 1.
    votes : bool
        True: a vote is a Bernoulli draw. False: its probability P[y, y'] is seen, which still counts as a query.
    candidates : str
        ``"uniform"``, ``"reference"`` or ``"policy"``: where actions come from whose gain is estimated. Weights are 1/q(y), so
        a reference or a policy that is small somewhere makes the estimate noisy there.

    Raises
    ------
    InputError
        If an argument is not as described.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.games.rock_paper_scissors(beta=0.1)
    >>> method = nl.dynamics.SelfPlayPG(step_size=nl.schedules.inverse_time(100, 400))
    >>> run = nl.simulate(game, method, 20_000, feedback=nl.Sampled(batch_size=4), start=[0.8, 0.1, 0.1])
    >>> float(run.queries[-1]), bool(run.kl[0, -1] < 0.01)
    (80000.0, True)
    """

    batch_size: int = 1
    votes: bool = True
    candidates: str = "uniform"

    def __post_init__(self) -> None:
        """Validate."""
        object.__setattr__(self, "batch_size", ensure_integer("batch_size", self.batch_size, 1, 10**7))
        object.__setattr__(self, "votes", ensure_flag("votes", self.votes))
        ensure_choice("candidates", self.candidates, CANDIDATES)

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters in the form that JSON takes."""
        return asdict(self)


Feedback = Sampled | None
"""None: exact."""
Words = npt.NDArray[np.uint64]


def ensure_feedback(feedback: Any) -> Feedback:
    """Return feedback as given to `simulate`: ``"exact"``, ``"sampled"`` (one vote a batch), a `Sampled`, or None for exact."""
    if isinstance(feedback, Sampled) or feedback is None:
        return feedback
    if isinstance(feedback, str):
        return Sampled() if ensure_choice("feedback", feedback, ("exact", "sampled")) == "sampled" else None
    if feedback is Sampled:
        return Sampled()
    raise InputError(f"feedback = {feedback!r} must be 'exact' or nl.Sampled(batch_size=..., votes=...)")


def described(feedback: Feedback) -> Any:
    """Return feedback in the form that JSON and tables take: ``"exact"`` or the parameters of `Sampled`."""
    return "exact" if feedback is None else feedback.to_dict()


def ensure_sampled(dynamics: Dynamics, feedback: Sampled) -> None:
    """Refuse a method that has no sampled form, or none with these candidates."""
    why = dynamics.method.unsampled(dynamics.params)
    if why:
        raise InputError(f"{dynamics.name} has no sampled form: {why}; or use feedback='exact'")
    if feedback.candidates == "policy" and not dynamics.method.full_support:
        raise InputError(
            f"candidates = 'policy' leaves actions unseen that {dynamics.name} does not play, must be 'uniform' or 'reference'"
        )


def generator_of(seed: int, run: int, context: int, stream: str = "runs") -> np.random.Generator:
    """Return the generator of one run in one context: streams of different runs, contexts and seeds are independent."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=(_STREAMS[stream], run, context))))


def sampled_context(context: Context, feedback: Sampled, generator: np.random.Generator) -> Context:
    """Return a context whose payoff answers with votes."""
    reference = with_sums(np.exp(context.log_reference)) if feedback.candidates == "reference" else np.zeros((2, 0))
    payoff = SampledPayoff(
        context.payoff, generator, feedback.batch_size, feedback.votes, CANDIDATES[feedback.candidates], reference
    )
    return context._replace(payoff=payoff)


def words_of(generator: np.random.Generator) -> Words:
    """Return the state of an SFC64 generator, shape ``(4,)``."""
    return np.array(generator.bit_generator.state["state"]["state"], dtype=np.uint64)


def generator_from(words: Words) -> np.random.Generator:
    """Return the generator that `words_of` described."""
    bits = np.random.SFC64()
    bits.state = bits.state | {"state": {"state": np.array(words, dtype=np.uint64)}, "has_uint32": 0, "uinteger": 0}
    return np.random.Generator(bits)
