"""Is the trainer's gradient the simulator's? Both are taken on the same sampled pairs, by code that shares nothing.

The simulator's step from a vote (`nlhfsim.pairs`) moves the logits of two enumerated responses; the model's weights should move
by that, carried through the log-probabilities of all responses, which are taken from the model's logits without padding, chunks
or cache.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nlhfsim.errors import Array, InputError, ensure_nonnegative
from nlhfsim.games.payoffs import Context, DensePayoff, advantage
from nlhfsim.games.votes import POLICY, SampledPayoff
from nlhfsim.llm import methods
from nlhfsim.llm.config import NashConfig
from nlhfsim.llm.estimate import Labels
from nlhfsim.llm.exact import ExactGame
from nlhfsim.llm.logprobs import Responses
from nlhfsim.llm.sampling import mixture_of
from nlhfsim.llm.trainer import NashTrainer
from nlhfsim.pairs import Pairs, run_pairs, start_pairs


@dataclass(frozen=True)
class CrossCheck:
    """How far the trainer's gradient is from the simulator's.

    Attributes
    ----------
    method, precision : str
        Of the configuration.
    error : float
        Largest difference in the gradient of any weight, over the largest gradient.
    expected_error : float
        The same for the expectation over all responses, `NashConfig.feedback` ``"exact"``.
    pairs : int
        Pairs with a label.
    responses : int
        Responses to a prompt that there are.
    """

    method: str
    precision: str
    error: float
    expected_error: float
    pairs: int
    responses: int


def crosscheck(
    model: Any, tokenizer: Any, oracle: Any, prompts: Any, config: NashConfig, *, spread: float = 0.1, device: Any = None
) -> CrossCheck:
    """Compare the trainer's gradient with the simulator's on the same pairs, and their expectations.

    Parameters
    ----------
    model, tokenizer, oracle, prompts, config
        As for `NashTrainer`; the model is copied. Its responses must be few enough to enumerate.
    spread : float
        The policy, and the target, are moved away from the reference by this much of each weight's size: where all are the same,
        a wrong pull is not seen.
    device : str or torch.device, optional
        Where the trainer runs.

    Returns
    -------
    CrossCheck
        Errors of about 1e-14 in float64 and 1e-6 in float32. Many models (Qwen, Llama, Gemma) normalize in float32 whatever their
        weights are, and reach 1e-7 in float64.

    Raises
    ------
    InputError
        If the configuration truncates sampling or estimates KL by token: the simulator does neither.

    Examples
    --------
    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> from nlhfsim.llm import NashConfig, crosscheck, oracles
    >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=3, n_embd=16, n_layer=1, n_head=2, n_positions=8))
    >>> oracle = oracles.MatrixOracle([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]], [(0,), (1,), (2,)])
    >>> config = NashConfig(max_new_tokens=1, stop_tokens=(), precision="float64")
    >>> found = crosscheck(model, None, oracle, [[0], [1]], config)
    >>> found.error < 1e-12, found.expected_error < 1e-12
    (True, True)
    """
    if config.allow_off_policy or config.kl_estimator != "pair":
        raise InputError("crosscheck needs allow_off_policy = False and kl_estimator = 'pair': the simulator has nothing else")
    trainer = NashTrainer(copy.deepcopy(model), tokenizer, oracle, prompts, replace(config, exact_check=True), device=device)
    _move_away(trainer, ensure_nonnegative("spread", spread))
    exact = trainer.exact
    assert exact is not None
    drawn, others, own, labels = _draw(trainer)
    trainer.estimator.backward(own, labels, trainer.optimizer.collect)
    sampled = _take_gradient(trainer)
    exact.backward(range(len(trainer.prompts)), exact.log_mixture(others), drawn, trainer.optimizer.collect)
    expected = _take_gradient(trainer)
    simulator = _Simulator(trainer, exact)
    pairs = list(_pairs(exact, own, labels))
    return CrossCheck(
        config.method,
        config.precision,
        _error(sampled, simulator.carried(simulator.moves(pairs))),
        _error(expected, simulator.carried(simulator.expectation(exact.log_mixture(drawn), exact.log_mixture(others)))),
        len(pairs),
        len(exact.responses),
    )


class _Pair(NamedTuple):
    """Prompt, two responses by their numbers, and the label of the first against the second, less ½."""

    prompt: int
    first: int
    second: int
    label: float


def _move_away(trainer: NashTrainer, spread: float) -> None:
    """Move the policy and the target away from the reference."""
    generator = torch.Generator().manual_seed(trainer.config.seed)
    policies = trainer.policies
    with torch.no_grad():
        for weights in (policies.masters, policies.shadow):
            for weight in weights.values():
                noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight.device, weight.dtype)
                size = float(weight.double().square().mean().sqrt()) or 1.0
                weight.add_(noise, alpha=spread * size)
    policies.publish()
    if policies.shadow:
        policies.publish_target()


def _draw(trainer: NashTrainer) -> tuple[Any, Any, Responses, Labels]:
    """Return the mixtures of responses and of opponents, and responses with the labels of their pairs.

    The opponents of a method that looks ahead are taken from the reference: from anything but the policy.
    """
    config, estimator = trainer.config, trainer.estimator
    method, given, prompts = methods.get(config.method), config.parameters, trainer.prompts
    drawn = mixture_of(method.mixing(given))
    others = drawn
    if method.opponent_mixing is not None:
        others = mixture_of(method.opponent_mixing(given))
    elif method.half_step:
        others = (("reference", 1.0),)
    own = estimator.draw(prompts, drawn, config.group_size)
    against = estimator.draw(prompts, others, config.group_size) if others != drawn or method.half_step else None
    return drawn, others, own, estimator.judge(prompts, own, against)


def _pairs(exact: ExactGame, own: Responses, labels: Labels) -> Iterator[_Pair]:
    """Yield the unordered pairs that count; of responses against opponents, the difference of their mean gains is the label."""
    number = {tokens: k for k, tokens in enumerate(exact.responses)}
    texts = exact.estimator.texts(own)
    centred, valid = labels.centred.double().cpu().numpy(), labels.valid.cpu().numpy()
    prompts, group, _ = centred.shape
    for x in range(prompts):
        names = [number[texts[x * group + i].tokens] for i in range(group)]
        for i in range(group):
            for j in range(i + 1, group):
                if labels.against_others:
                    met = valid[x, i].any() and valid[x, j].any()
                    label = centred[x, i][valid[x, i]].mean() - centred[x, j][valid[x, j]].mean() if met else np.nan
                else:
                    met, label = valid[x, i, j], centred[x, i, j]
                if met:
                    yield _Pair(x, names[i], names[j], float(label))


def _take_gradient(trainer: NashTrainer) -> dict[str, Array]:
    """Return -1 times the gradient of every weight in float64, and clear it."""
    found = {
        name: -weight.grad.double().cpu().numpy() if weight.grad is not None else np.zeros(weight.shape)
        for name, weight in trainer.policies.masters.items()
    }
    trainer.optimizer.clear()
    return found


def _error(found: dict[str, Array], right: dict[str, Array]) -> float:
    largest = max(float(np.abs(values).max()) for values in right.values())
    if largest == 0:
        raise InputError("all sampled responses are the same, so there is no gradient to compare: take a larger group_size")
    return max(float(np.abs(found[name] - values).max()) for name, values in right.items()) / largest


class _Script:
    """Stands for a generator: its numbers make the simulator draw a given pair."""

    def __init__(self, numbers: tuple[float, ...]) -> None:
        self.numbers = iter(numbers)

    def random(self) -> float:
        return next(self.numbers)


class _Simulator:
    """The simulator on the enumerated responses of a trainer; everything in float64 but the model itself."""

    def __init__(self, trainer: NashTrainer, exact: ExactGame) -> None:
        self.config, self.policies, self.exact = trainer.config, trainer.policies, exact
        self.mixing = methods.get(self.config.method).mixing(self.config.parameters)
        with torch.no_grad():
            self.logs = {view: self._all(view).double().cpu().numpy() for view in self.policies.names}
        self.graph = self._all("policy")

    def moves(self, pairs: list[_Pair]) -> Array:
        """Return the mean over pairs of what a step of size 1 moves the logits by, shape ``(prompts, n)``."""
        moved = np.zeros_like(self.logs["policy"])
        for pair in pairs:
            moved[pair.prompt] += self._step(pair)
        return moved / len(pairs)

    def _step(self, pair: _Pair) -> Array:
        """Let the simulator draw this pair, see this label, and step."""
        logs, reference = self.logs["policy"][pair.prompt], self.logs["reference"][pair.prompt]
        rule = Pairs(self.mixing, self.config.pull, averaging=1.0)
        state = start_pairs(logs, rule, average=False)
        if self.config.pull > 0:
            state.lag[:] = logs - self.logs["target"][pair.prompt]
            state.touched[:] = 1  # the lag is that of now
        matrix = np.zeros((len(logs), len(logs)))
        matrix[pair.first, pair.second] = pair.label
        weights = np.exp((1 - self.mixing) * logs + self.mixing * reference)
        middle = (np.cumsum(weights) - weights / 2) / weights.sum()
        script = _Script((middle[pair.first], middle[pair.second]))
        payoff = SampledPayoff(DensePayoff(matrix), script, 1, False, POLICY, np.zeros((2, 0)))
        nowhere = np.zeros(0, dtype=np.int64)
        run_pairs(state, Context(payoff, reference, self.config.beta), np.ones(1), rule, nowhere, np.zeros((0, len(logs))))
        return np.asarray(state.logits - logs)

    def expectation(self, drawn: Array, opponents: Array) -> Array:
        """Return J(π̂)(Aμ - β(θ - log ρ) - τ(θ - θ̄)) over the number of prompts, shape ``(prompts, n)``."""
        moved = []
        for x, context in enumerate(self.exact.game.contexts):
            logs = self.logs["policy"][x]
            slope = advantage(context.payoff, np.exp(opponents[x])) - self.config.beta * (logs - self.logs["reference"][x])
            if self.config.pull > 0:
                slope -= self.config.pull * (logs - self.logs["target"][x])
            policy = np.exp(drawn[x])
            moved.append(policy * (slope - policy @ slope))
        return np.stack(moved) / len(moved)

    def carried(self, moves: Array) -> dict[str, Array]:
        """Return what moves of the logits are as moves of the model's weights: Jᵀ times them."""
        weights = self.policies.parameters
        along = (self.graph * torch.from_numpy(moves).to(self.graph)).sum()
        found = torch.autograd.grad(along, list(weights.values()), retain_graph=True, materialize_grads=True)
        return {name: slope.double().cpu().numpy() for name, slope in zip(weights, found, strict=True)}

    def _all(self, view: str) -> Tensor:
        """Return the log-probability of every response, a prompt and a length at a time, shape ``(prompts, n)``."""
        lengths = sorted({len(tokens) for tokens in self.exact.responses})
        rows = []
        for prompt in self.exact.prompts:
            found: list[Tensor] = [torch.zeros(())] * len(self.exact.responses)
            for length in lengths:
                which = [k for k, tokens in enumerate(self.exact.responses) if len(tokens) == length]
                summed = self._plain(view, prompt.tokens, [self.exact.responses[k] for k in which])
                for k, value in zip(which, summed, strict=True):
                    found[k] = value
            rows.append(torch.stack(found))
        return torch.stack(rows)

    def _plain(self, view: str, prompt: tuple[int, ...], responses: list[tuple[int, ...]]) -> Tensor:
        """Return log-probabilities of responses of one length from whole logits, by definition."""
        tokens = torch.tensor([[*prompt, *response] for response in responses], device=self.policies.device)
        with self.policies.view(view) as model:
            logits = model(tokens).logits[:, len(prompt) - 1 : -1] / self.config.temperature
        if self.config.allowed_tokens is not None:
            shut = torch.ones(logits.shape[-1], dtype=torch.bool, device=logits.device)
            shut[list(self.config.allowed_tokens)] = False
            logits = logits.masked_fill(shut, -torch.inf)
        logs = logits.to(torch.float64 if logits.dtype == torch.float64 else torch.float32).log_softmax(-1)
        summed: Tensor = logs.gather(-1, tokens[:, len(prompt) :, None])[..., 0].sum(-1)
        return summed
