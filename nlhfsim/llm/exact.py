"""The exact check: where all responses can be enumerated, the language model plays a game that the core solves.

A vocabulary of V tokens and a length of L give at most V^L responses. The policy's probability of each is read from the model,
the preference of each over each is asked from the oracle, and what comes out is a `PreferenceGame`, a context for every prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlhfsim.equilibrium import Equilibrium, solve
from nlhfsim.errors import Array, InputError, SizeError
from nlhfsim.games import PreferenceGame
from nlhfsim.games.responses import exploitability
from nlhfsim.llm.estimate import Estimator
from nlhfsim.llm.logprobs import Responses
from nlhfsim.llm.losses import exact_loss
from nlhfsim.llm.memory import advice_on
from nlhfsim.llm.oracles import Prompt, ask_all
from nlhfsim.llm.sampling import Mixture, pad_left

LARGEST = 5000
"""More responses are refused: their preferences are a matrix."""
POLICY: Mixture = (("policy", 1.0),)


def enumerate_responses(
    allowed: Sequence[int], max_new_tokens: int, stop_tokens: Sequence[int] = (), largest: int = LARGEST
) -> list[tuple[int, ...]]:
    """Return all responses: sequences of allowed tokens that end with the first stop token, or at the limit.

    Parameters
    ----------
    allowed : sequence of int
        The tokens.
    max_new_tokens : int
        The limit.
    stop_tokens : sequence of int
        Tokens that end a response and belong to it.
    largest : int
        More responses than this are refused.

    Raises
    ------
    SizeError
        If there are more.

    Examples
    --------
    >>> from nlhfsim.llm import exact
    >>> exact.enumerate_responses([0, 1], 2, stop_tokens=[1])
    [(0, 0), (0, 1), (1,)]
    """
    stop = set(stop_tokens)
    done: list[tuple[int, ...]] = []
    open_ones: list[tuple[int, ...]] = [()]
    for _ in range(max_new_tokens):
        longer = [(*one, token) for one in open_ones for token in sorted(allowed)]
        done += [one for one in longer if one[-1] in stop]
        open_ones = [one for one in longer if one[-1] not in stop]
        if len(done) + len(open_ones) > largest:
            raise SizeError(
                f"{len(allowed)} tokens at max_new_tokens = {max_new_tokens} give more than {largest} responses: too many to "
                "enumerate; lower max_new_tokens, or set allowed_tokens"
            )
    return sorted(done + open_ones)


class ExactGame:
    """The preference game that a language model plays on its prompts.

    Parameters
    ----------
    estimator : Estimator
        Models, oracle and configuration.
    prompts : sequence of Prompt
        The contexts of the game, with equal weights.
    vocabulary_size : int
        Of the model; read if the configuration allows all tokens.

    Raises
    ------
    SizeError
        If there are more than 5,000 responses.
    InputError
        If the oracle has no verdict on a pair.

    Attributes
    ----------
    responses : list of tuple
        All responses, the actions of the game.
    game : PreferenceGame
        Preferences ``(prompts, n, n)`` of the oracle, reference ``(prompts, n)`` of the model, β of the configuration; its labels
        are the responses' texts, or where two have the same, their token numbers.
    """

    def __init__(self, estimator: Estimator, prompts: Sequence[Prompt], vocabulary_size: int) -> None:
        config = estimator.config
        self.estimator, self.prompts = estimator, list(prompts)
        allowed = range(vocabulary_size) if config.allowed_tokens is None else config.allowed_tokens
        self.stop_tokens = estimator.limits.stop_tokens
        self.responses = enumerate_responses(list(allowed), config.max_new_tokens, self.stop_tokens)
        with torch.no_grad():
            reference = np.exp(self.log_policy("reference"))
        texts = [one.text for one in estimator.as_responses(self.responses)]
        labels = texts if len(set(texts)) == len(texts) and all(texts) else [" ".join(map(str, row)) for row in self.responses]
        self.game = PreferenceGame(self._preferences(), beta=config.beta, reference=reference, labels=labels)

    @cached_property
    def equilibrium(self) -> Equilibrium:
        """The regularized equilibrium, solved and certified by the core."""
        return solve(self.game)

    def batch(self, prompts: Sequence[Prompt]) -> Responses:
        """Return all responses to each of some prompts."""
        n, device = len(self.responses), self.estimator.policies.device
        tokens, mask = pad_left([prompt.tokens for prompt in prompts], device)
        longest = max(len(one) for one in self.responses)
        rows = torch.tensor([[*one, *[0] * (longest - len(one))] for one in self.responses], device=device)
        there = torch.tensor([[k < len(one) for k in range(longest)] for one in self.responses], device=device)
        ended = torch.tensor([one[-1] in self.stop_tokens for one in self.responses], device=device)
        many = len(prompts)
        return Responses(
            tokens.repeat_interleave(n, 0),
            mask.repeat_interleave(n, 0),
            rows.repeat(many, 1),
            there.repeat(many, 1),
            ended.repeat(many),
        )

    def log_policy(self, view: str = "policy") -> Array:
        """Return the log-probability of every response under a view, float64, shape ``(prompts, n)``, normalized."""
        return self.log_mixture(((view, 1.0),))

    def log_mixture(self, mixture: Mixture) -> Array:
        """Return the log-probability of every response under a mixture, normalized token by token as it is sampled."""
        n, parts = len(self.responses), []
        at_once = max(1, LARGEST // n)
        for begin in range(0, len(self.prompts), at_once):
            with torch.no_grad(), advice_on("enumeration"):
                found = self.estimator.log_probabilities(mixture, self.batch(self.prompts[begin : begin + at_once]))
                parts.append(found.double().cpu().numpy().reshape(-1, n))
        logs = np.concatenate(parts)
        if np.isnan(logs).any():
            rate = self.estimator.config.learning_rate
            raise InputError(f"the policy's probabilities are no numbers any more: lower learning_rate = {rate:g}")
        return np.asarray(logs - np.logaddexp.reduce(logs, axis=1, keepdims=True))

    def report(self) -> dict[str, float]:
        """Return how far the policy is from the equilibrium: exploitability E_β, KL(π* ‖ π), and the unregularized E_0."""
        logs = self.log_policy()
        found = {
            "exploitability": exploitability(self.game, log_policy=logs),
            "gap0": exploitability(self.game, log_policy=logs, regularized=False),
        }
        if self.game.beta > 0:
            star = self.equilibrium.log_policy
            kl = (np.exp(star) * (star - logs)).sum(axis=-1)
            found["kl_equilibrium"] = float(self.game.average(np.maximum(kl, 0.0)))
        return found

    def ascent(self, index: Sequence[int], opponents: Array, logs: Array | None = None) -> Array:
        """Return u = Aμ - β(θ - log ρ) - τ(θ - θ̄) of some prompts at the policy, shape ``(prompts, n)``.

        Parameters
        ----------
        index : sequence of int
            Which prompts.
        opponents : numpy.ndarray
            log μ of all prompts, shape ``(prompts, n)``.
        logs : numpy.ndarray, optional
            θ of all prompts, for whom has `log_policy` already.
        """
        config, logs = self.estimator.config, self.log_policy() if logs is None else logs
        slope = self.game.advantage(np.exp(opponents)) - config.beta * (logs - np.log(self.game.reference))
        if config.pull > 0:
            slope = slope - config.pull * (logs - self.log_policy("target"))
        return np.asarray(slope)[list(index)]

    def backward(self, index: Sequence[int], opponents: Array, drawn: Mixture, collect: Any = None) -> float:
        """Add the exact gradient on some prompts to the policy's weights, and return the loss.

        Parameters
        ----------
        index : sequence of int
            Which prompts.
        opponents : numpy.ndarray
            log μ, shape ``(prompts, n)``.
        drawn : tuple
            The mixture that responses are drawn from.
        collect : callable, optional
            Called after every micro-batch.
        """
        logs = self.log_policy()
        ascent = self.ascent(index, opponents, logs)
        weights = np.exp(logs if drawn == POLICY else self.log_mixture(drawn))[list(index)]
        at_once = self.estimator.config.micro_batch_prompts or len(index)
        processes, total = self.estimator.processes, 0.0
        [count] = processes.sums(len(index))
        for begin in range(0, len(index), at_once):
            part = slice(begin, begin + at_once)
            responses = self.batch([self.prompts[k] for k in index[part]])
            with advice_on("training"):
                with self.estimator.policies.training() as model:
                    sums = self.estimator.score_with(model, responses).sums.view(-1, len(self.responses))
                loss = exact_loss(sums, _like(weights[part], sums), _like(ascent[part], sums)) / count
                loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
            if collect is not None:
                collect()
        return processes.sums(total)[0]

    def _preferences(self) -> Array:
        """Ask for all pairs of responses to every prompt; equal responses are ½, and each pair is asked in one order."""
        texts = self.estimator.as_responses(self.responses)
        found = np.empty((len(self.prompts), len(texts), len(texts)))
        for k, prompt in enumerate(self.prompts):
            found[k], valid = ask_all(self.estimator.oracle, prompt, texts)
            if not valid.all():
                left, right = (texts[place] for place in np.argwhere(~valid)[0])
                raise InputError(
                    f"oracle has no verdict on {left.text!r} against {right.text!r}, and a game needs all of them: "
                    "exact feedback and exact checks need an oracle that always has one"
                )
        return found


def _like(values: Array, tensor: Tensor) -> Tensor:
    return torch.from_numpy(values).to(tensor.device, tensor.dtype)
