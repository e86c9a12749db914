"""What a sampler is: who draws responses in place of the trainer, from the weights that it is handed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from nlhfsim.errors import InputError
from nlhfsim.llm import methods

if TYPE_CHECKING:
    from torch import Tensor

    from nlhfsim.llm.config import NashConfig
    from nlhfsim.llm.policy import Policies


@dataclass(frozen=True)
class SamplingRequest:
    """What a sampler is asked for.

    Attributes
    ----------
    view : str
        Which weights are meant, of those that were handed over: ``"policy"``, ``"reference"`` or ``"target"``.
    prompts : tuple of tuple of int
        Token numbers of each prompt.
    copies : int
        Responses to each.
    max_new_tokens : int
        Longest response.
    temperature : float
        T > 0: tokens are drawn from softmax(logits / T).
    allowed_tokens : tuple of int or None
        All other tokens have probability 0; None: all are allowed.
    stop_tokens : tuple of int
        Tokens that end a response and belong to it; nothing else ends one before its limit.
    top_k, top_p : int and float or None
        Truncation, after the temperature.
    seed : int
        In [0, 2⁶³), of the trainer's own generator: who draws by it alone makes runs that repeat.
    """

    view: str
    prompts: tuple[tuple[int, ...], ...]
    copies: int
    max_new_tokens: int
    temperature: float
    allowed_tokens: tuple[int, ...] | None
    stop_tokens: tuple[int, ...]
    top_k: int | None
    top_p: float | None
    seed: int


class Samples(NamedTuple):
    """What a sampler returns.

    Attributes
    ----------
    tokens : sequence of sequences of int
        ``len(prompts) * copies`` responses, those to one prompt next to each other, each with the token that ends it.
    log_probabilities : sequence of sequences of float, optional
        Of each of their tokens in softmax(logits / T) over the allowed tokens, before any truncation; from -700, less than which
        is no chance of a token that was drawn, to 0. They are compared with the trainer's own, and used for nothing else.
    """

    tokens: Sequence[Sequence[int]]
    log_probabilities: Sequence[Sequence[float]] | None = None


class Weights:
    """The weights of one policy, adapters merged, made one after another while they are iterated.

    Iterated, it gives pairs of a name that `from_pretrained` of transformers knows and a tensor, which may be the trainer's own:
    copy it, as the next step changes it. Tied weights come once.
    """

    def __init__(self, policies: Policies, view: str) -> None:
        self._policies, self._view = policies, view

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        yield from self._policies.weights(self._view)

    def save(self, folder: Path) -> None:
        """Write model and configuration to a folder that `from_pretrained` loads, by `save_pretrained`."""
        self._policies.save_whole(self._view, folder)


@runtime_checkable
class Sampler(Protocol):
    """Anything with these two methods. It belongs to one trainer, which knows what weights it has."""

    def load(self, view: str, weights: Weights) -> None:
        """Take the weights of a view: before the first request for it, and before the next one whenever they have changed."""
        ...

    def sample(self, request: SamplingRequest) -> Samples | Sequence[Sequence[int]]:
        """Return responses, with or without the log-probabilities of their tokens."""
        ...


def ensure_sampler(sampler: Any) -> Sampler:
    """Return `sampler` if it has the two methods."""
    if isinstance(sampler, type) or not all(callable(getattr(sampler, name, None)) for name in ("load", "sample")):
        raise InputError(f"sampler = {sampler!r} must have the methods load(view, weights) and sample(request)")
    return sampler  # type: ignore[no-any-return]


def ensure_single(config: NashConfig) -> None:
    """Refuse a method that draws from two policies at once: the distributions of both are needed at every token.

    Raises
    ------
    InputError
        If it does.
    """
    method, given = methods.get(config.method), config.parameters
    drawn = [method.mixing(given)] + ([] if method.opponent_mixing is None else [method.opponent_mixing(given)])
    if any(0 < share < 1 for share in drawn):
        raise InputError(
            f"method = {config.method!r} draws from a mixture of policy and reference, token by token, which a sampler cannot: "
            "leave the sampler out, or set mixing = 0"
        )
