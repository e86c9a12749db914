"""Draws that a sampler makes: it is asked with a seed of the trainer's, and always has the weights that are in force."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nlhfsim.llm.config import NashConfig
from nlhfsim.llm.logprobs import Responses
from nlhfsim.llm.model import vocabulary_size
from nlhfsim.llm.policy import Policies
from nlhfsim.llm.samplers._check import responses_of
from nlhfsim.llm.samplers._spec import Sampler, SamplingRequest, Weights
from nlhfsim.llm.sampling import join


class Apart(NamedTuple):
    """How far what drew responses is from what scores them, summed over those that came with log-probabilities.

    That is a sampler, or decoding here: rounding in half precision, and whatever makes a model say something else with a cache.

    Attributes
    ----------
    responses, tokens : float
        How many.
    distance : float
        |log p_sampler − log p_here|, over tokens.
    divergence : float
        Estimate of KL(sampler ‖ here), over tokens: r − 1 − log r with r = p_here / p_sampler is never negative and has that KL
        as its expectation.
    """

    responses: float = 0.0
    tokens: float = 0.0
    distance: float = 0.0
    divergence: float = 0.0

    @classmethod
    def of(cls, responses: Responses, here: Tensor) -> Apart:
        """Compare the log-probabilities that came with responses to our own, shape ``(N, longest response)``."""
        if responses.sampled is None:
            return cls()
        behind = torch.where(responses.mask, here.detach().double() - responses.sampled.double(), 0.0)
        divergence = torch.expm1(behind) - behind
        return cls(len(responses), float(responses.mask.sum()), float(behind.abs().sum()), float(divergence.sum()))

    def metrics(self) -> dict[str, float | None]:
        """Return the mean distance of a token and the mean divergence of a response; None: there was nothing to compare."""
        return {
            "sampler_distance": self.distance / self.tokens if self.tokens else None,
            "kl_sampler": self.divergence / self.responses if self.responses else None,
        }


class Draws:
    """A sampler, and which weights it has.

    Parameters
    ----------
    sampler : Sampler
        Who draws.
    policies : Policies
        Whose weights it is handed.
    config : NashConfig
        How.
    stop_tokens : tuple of int
        Tokens that end a response.
    """

    def __init__(self, sampler: Sampler, policies: Policies, config: NashConfig, stop_tokens: tuple[int, ...]) -> None:
        self.sampler, self.policies, self.config, self.stop_tokens = sampler, policies, config, stop_tokens
        self._vocabulary = vocabulary_size(policies.model)
        self._handed: dict[str, int] = {}

    def hand_over(self, view: str) -> None:
        """Give the sampler the weights of a view, unless it has them."""
        now = self.policies.changes[view]
        if self._handed.get(view) == now:
            return
        self._handed.pop(view, None)  # if it fails, nobody knows what the sampler has
        self.sampler.load(view, Weights(self.policies, view))
        self._handed[view] = now

    def draw(self, view: str, prompts: Sequence[tuple[int, ...]], copies: int, generator: torch.Generator) -> Responses:
        """Return responses to prompts by the weights that were handed over, as many at once as the configuration says."""
        batch = self.config.generation_batch
        at_once = len(prompts) if batch is None else max(1, batch // copies)
        parts = [
            self._ask(view, tuple(prompts[begin : begin + at_once]), copies, generator)
            for begin in range(0, len(prompts), at_once)
        ]
        return parts[0] if len(parts) == 1 else join(parts)

    def _ask(self, view: str, prompts: tuple[tuple[int, ...], ...], copies: int, generator: torch.Generator) -> Responses:
        config = self.config
        seed = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
        request = SamplingRequest(
            view=view,
            prompts=prompts,
            copies=copies,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            allowed_tokens=config.allowed_tokens,
            stop_tokens=self.stop_tokens,
            top_k=config.top_k,
            top_p=config.top_p,
            seed=seed,
        )
        name = f"{type(self.sampler).__name__}.sample"
        said = self.sampler.sample(request)
        return responses_of(name, said, request, self._vocabulary, self.policies.device, self.policies.exact)
