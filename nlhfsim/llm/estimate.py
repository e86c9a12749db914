"""One estimate of the gradient: responses, opponents, labels of their pairs, and the backward pass in micro-batches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nlhfsim.llm import methods
from nlhfsim.llm.config import NashConfig
from nlhfsim.llm.decoding import Decoder
from nlhfsim.llm.logprobs import Responses, Scores, TokenSpace, score, states
from nlhfsim.llm.losses import gains_against, pair_loss, token_kl_loss
from nlhfsim.llm.memory import advice_on
from nlhfsim.llm.oracles import PreferenceOracle, Prompt, Response, ask
from nlhfsim.llm.policy import Policies
from nlhfsim.llm.processes import Processes
from nlhfsim.llm.samplers import Sampler
from nlhfsim.llm.samplers._draws import Apart, Draws
from nlhfsim.llm.sampling import Limits, Mixture, sample


@dataclass
class Clock:
    """Seconds a phase."""

    seconds: dict[str, float] = field(default_factory=dict)
    device: torch.device | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time spent here to a phase."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            if self.device is not None and self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin


class Labels(NamedTuple):
    """Labels of pairs, the left response one of ours, the right one an opponent.

    Attributes
    ----------
    centred : torch.Tensor
        Vote or probability less ½, shape ``(prompts, group, opponents)``; 0 where it is not valid.
    valid : torch.Tensor
        Which pairs count; of a response and itself, False.
    probabilities : numpy.ndarray
        What the oracle said of the pairs that it was asked for, valid ones only.
    asked, invalid : int
        How many those were, and how many had no verdict.
    against_others : bool
        Whether opponents are others than the responses themselves.
    """

    centred: Tensor
    valid: Tensor
    probabilities: Any
    asked: int
    invalid: int
    against_others: bool = False


class Sums(NamedTuple):
    """What a backward pass adds up, over responses unless it says otherwise.

    Attributes
    ----------
    loss : float
        Mean over pairs.
    log_policy, log_reference, log_target : float
        Mean summed log-probability.
    apart : Apart
        Of what drew the responses from the policy.
    """

    loss: float
    log_policy: float
    log_reference: float
    log_target: float | None
    apart: Apart = Apart()


def _seed_of(seed: int, rank: int) -> int:
    """Return the seed of a process's sampler; alone, the seed itself."""
    return seed if rank == 0 else int(np.random.SeedSequence(seed, spawn_key=(2, rank)).generate_state(1)[0])


class Estimator:
    """Draws, asks and differentiates for one configuration.

    Parameters
    ----------
    policies : Policies
        The models.
    oracle : PreferenceOracle
        Who compares.
    config : NashConfig
        How.
    decode : callable
        From lists of token numbers to texts.
    stop_tokens : tuple of int
        Tokens that end a response.
    processes : Processes
        Those that train together.
    sampler : Sampler, optional
        Who draws; None: the models do here.
    """

    def __init__(
        self,
        policies: Policies,
        oracle: PreferenceOracle,
        config: NashConfig,
        decode: Any,
        stop_tokens: tuple[int, ...],
        processes: Processes,
        sampler: Sampler | None = None,
    ) -> None:
        self.policies, self.oracle, self.config, self.decode = policies, oracle, config, decode
        self.processes = processes
        self.space = TokenSpace.of(config.temperature, config.allowed_tokens, policies.device)
        self.limits = Limits(config.max_new_tokens, stop_tokens, config.top_k, config.top_p)
        self.decoder = Decoder(policies, config.decoding)
        self.generator = torch.Generator(device=policies.device).manual_seed(_seed_of(config.seed, processes.rank))
        key = (1, processes.rank) if processes.rank else (1,)
        self.voter = np.random.Generator(np.random.PCG64(np.random.SeedSequence(config.seed, spawn_key=key)))
        self.clock = Clock(device=policies.device)
        self.of_policy = methods.get(config.method).mixing(config.parameters) == 0  # whether what is drawn is what is scored
        self.draws = None if sampler is None else Draws(sampler, policies, config, stop_tokens)

    def draw(
        self, prompts: Sequence[Prompt], mixture: Mixture, copies: int, generator: torch.Generator | None = None
    ) -> Responses:
        """Draw `copies` responses to each prompt."""
        tokens = [prompt.tokens for prompt in prompts]
        if self.draws is not None:
            [(view, _)] = mixture
            with advice_on("weights"), self.clock.phase("weights"):
                self.draws.hand_over(view)
            with self.clock.phase("generation"), advice_on("generation"):
                return self.draws.draw(view, tokens, copies, generator or self.generator)
        with self.clock.phase("generation"), advice_on("generation"):
            return sample(
                self.decoder,
                mixture,
                tokens,
                copies,
                self.space,
                self.limits,
                generator or self.generator,
                self.config.generation_batch,
            )

    def texts(self, responses: Responses) -> list[Response]:
        """Return responses as an oracle sees them."""
        lengths = responses.mask.sum(1).tolist()
        return self.as_responses([tuple(row[:length]) for row, length in zip(responses.tokens.tolist(), lengths, strict=True)])

    def as_responses(self, tokens: Sequence[tuple[int, ...]]) -> list[Response]:
        """Return token numbers with their texts."""
        return [Response(text, row) for text, row in zip(self.decode(tokens), tokens, strict=True)]

    def judge(self, prompts: Sequence[Prompt], responses: Responses, opponents: Responses | None = None) -> Labels:
        """Ask for every pair once, and draw its vote.

        Parameters
        ----------
        prompts : sequence of Prompt
            One for each group.
        responses : Responses
            Groups of ours, one after the other.
        opponents : Responses, optional
            Groups of others; None: the responses of a group are each other's.

        Returns
        -------
        Labels
            Without opponents skew-symmetric, a vote for each unordered pair. Equal responses are ½ without being asked for.
        """
        with self.clock.phase("oracle"):
            left = self.texts(responses)
            right = left if opponents is None else self.texts(opponents)
            group, others = len(left) // len(prompts), len(right) // len(prompts)
            grid = np.full((len(prompts), group, others), 0.5)
            valid = np.ones(grid.shape, dtype=bool)
            wanted = [
                (k, i, j)
                for k in range(len(prompts))
                for i in range(group)
                for j in range(0 if opponents is not None else i + 1, others)
                if left[k * group + i].tokens != right[k * others + j].tokens
            ]
            with self.processes.together():
                verdicts = ask(
                    self.oracle,
                    [prompts[k] for k, _, _ in wanted],
                    [left[k * group + i] for k, i, _ in wanted],
                    [right[k * others + j] for k, _, j in wanted],
                )
            places = tuple(np.array(wanted, dtype=np.int64).reshape(-1, 3).T)
            grid[places], valid[places] = verdicts.probabilities, verdicts.valid
            if self.config.votes:
                votes = (self.voter.random(len(wanted)) < verdicts.probabilities).astype(np.float64)
                grid[places] = votes
            if opponents is None:
                k, i, j = places
                grid[k, j, i], valid[k, j, i] = 1 - grid[k, i, j], valid[k, i, j]
                valid &= ~np.eye(group, dtype=bool)
            dtype = torch.float64 if self.policies.dtype == torch.float64 else torch.float32
            return Labels(
                torch.from_numpy(np.where(valid, grid - 0.5, 0.0)).to(self.policies.device, dtype),
                torch.from_numpy(valid).to(self.policies.device),
                verdicts.probabilities[verdicts.valid],
                len(wanted),
                int((~verdicts.valid).sum()),
                opponents is not None,
            )

    def backward(self, responses: Responses, labels: Labels, collect: Any = None) -> Sums:
        """Add the gradient of the loss to the policy's weights, micro-batch after micro-batch.

        Parameters
        ----------
        responses : Responses
            Ours, groups one after the other.
        labels : Labels
            Of their pairs: among themselves, or against opponents.
        collect : callable, optional
            Called after every micro-batch.
        """
        group = labels.centred.shape[1]
        prompts = len(responses) // group
        centred, valid = labels.centred, labels.valid
        if labels.against_others:
            centred, valid = gains_against(centred, valid)
        pairs, count = (max(1, int(n)) for n in self.processes.sums(int(valid.sum()), len(responses)))
        at_once = self.config.micro_batch_prompts or prompts
        sums: list[Sums] = []
        for k in range(0, prompts, at_once):
            part = responses.rows(slice(k * group, (k + at_once) * group))
            sums.append(self._micro_batch(part, centred[k : k + at_once], valid[k : k + at_once], pairs, count))
            if collect is not None:
                collect()
        totals = self.processes.sums(
            sum(part.loss for part in sums),
            sum(part.log_policy for part in sums),
            sum(part.log_reference for part in sums),
            sum(part.log_target or 0.0 for part in sums),
            *(sum(column) for column in zip(*(part.apart for part in sums), strict=True)),
        )
        return Sums(totals[0], totals[1], totals[2], totals[3] if self.config.pull > 0 else None, Apart(*totals[4:]))

    def _micro_batch(self, responses: Responses, centred: Tensor, valid: Tensor, pairs: int, count: int) -> Sums:
        config, shape = self.config, centred.shape[:2]
        token = config.kl_estimator == "token"
        names = ("reference", *(("target",) if config.pull > 0 else ()))
        weights = dict(zip(("reference", "target"), (config.beta, config.pull), strict=True))
        with self.clock.phase("anchors"), advice_on("scoring"), torch.no_grad():
            scored = {name: self._anchor(name, responses, keep=token) for name in names}
            anchors = {name: sums.view(shape) for name, (sums, _) in scored.items()}
        with self.clock.phase("policy"), advice_on("training"):
            with self.policies.training() as model:
                scores = self.score_with(model, responses, tuple(kept for _, kept in scored.values()) if token else ())
            sums = scores.sums.view(shape)
            beta, pull = (0.0, 0.0) if token else (config.beta, config.pull)
            loss = pair_loss(sums, anchors["reference"], anchors.get("target"), centred, valid, beta=beta, pull=pull) / pairs
            if token:
                divergence = torch.stack([weights[n] * d for n, d in zip(names, scores.divergences, strict=True)]).sum(0)
                wide = (*shape, -1)
                masked = responses.mask.view(wide)
                loss = loss + token_kl_loss(scores.log_probabilities.view(wide), divergence.view(wide), masked) / count
            loss.backward()  # type: ignore[no-untyped-call]
        means = [float(values.detach().sum()) / count for values in (sums, *anchors.values())]
        apart = Apart.of(responses, scores.log_probabilities) if self.of_policy else Apart()
        return Sums(float(loss.detach()), means[0], means[1], means[2] if len(means) > 2 else None, apart)

    def _anchor(self, view: str, responses: Responses, *, keep: bool) -> tuple[Tensor, Any]:
        """Return the log-probabilities of responses under a view, and with `keep` the states that they were taken from."""
        found = self._states(view, responses)
        return self._score(found, responses).sums, found if keep else None

    def score(self, view: str, responses: Responses, *, entropy: bool = False, against: tuple[str, ...] = ()) -> Scores:
        """Return what a view makes of responses; with `against`, also the KL to those views at every token."""
        kept = tuple(self._states(name, responses) for name in against)
        with self.policies.view(view) as model:
            return self.score_with(model, responses, kept, entropy)

    def log_probabilities(self, mixture: Mixture, responses: Responses) -> Tensor:
        """Return the summed log-probability of responses under a mixture, normalized token by token, shape ``(N,)``."""
        if len(mixture) == 1:
            return self.score(mixture[0][0], responses).sums
        logs: Any = 0.0
        for view, weight in mixture:
            hidden, head = self._states(view, responses)
            logs = logs + weight * self.space.log_probabilities(head(hidden))
        places = self.space.places(responses.tokens[responses.mask])
        chosen = torch.log_softmax(logs, -1).gather(-1, places[:, None])[:, 0]
        return chosen.new_zeros(responses.mask.shape).masked_scatter(responses.mask, chosen).sum(-1)

    def score_with(self, model: Any, responses: Responses, anchors: Any = (), entropy: bool = False) -> Scores:
        """Return what a model makes of responses, with gradient where it is on."""
        return self._score(states(model, responses, self.policies.split), responses, anchors, entropy)

    def _score(self, found: Any, responses: Responses, anchors: Any = (), entropy: bool = False) -> Scores:
        return score(found, responses, self.space, chunk=self.config.logprob_chunk, anchors=anchors, entropy=entropy)

    def _states(self, view: str, responses: Responses) -> Any:
        with torch.no_grad(), self.policies.view(view) as model:
            return states(model, responses, self.policies.split)
