"""The gradient of the language model's loss is the simulator's: on the same pairs, and in expectation over all of them.

Truth: the simulator's own step (`nlhfsim.pairs`), and the gradient of the regularized payoff, differentiated by autograd from its
definition over enumerated responses. Defects found in real trainers are planted, and must be noticed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small import MODELS, cyclic_oracle, gpt2
from torch import Tensor

import nlhfsim.llm.estimate as estimate
import nlhfsim.llm.losses as losses
from nlhfsim.errors import InputError
from nlhfsim.llm import CrossCheck, NashConfig, NashTrainer, crosscheck, methods, oracles
from nlhfsim.llm.estimate import Labels
from nlhfsim.llm.logprobs import Responses, Scores, TokenSpace

PROMPTS = [[0], [1, 2], [2, 0, 1]]
TOLERANCE = {"float64": 1e-12, "float32": 1e-6}


def checked(method: str, length: int = 1, stop: tuple[int, ...] = (), model: str = "gpt2", **fields: Any) -> CrossCheck:
    """Cross-check a small model with three tokens."""
    config = NashConfig(
        method=method, beta=0.1, max_new_tokens=length, stop_tokens=stop, **{"precision": "float64", "group_size": 6} | fields
    )
    return crosscheck(MODELS[model](), None, cyclic_oracle(3, length, stop), PROMPTS, config)


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("method", methods.names())
def test_one_token(method: str, precision: str) -> None:
    """Responses of one token: a softmax policy, as in the simulator."""
    found = checked(method, precision=precision)
    assert max(found.error, found.expected_error) < TOLERANCE[precision]
    assert (found.pairs, found.responses) == (45, 3)


@pytest.mark.parametrize("method", methods.names())
@pytest.mark.parametrize(("length", "stop"), [(2, ()), (3, (2,))])
def test_longer_responses(method: str, length: int, stop: tuple[int, ...]) -> None:
    """Sums over tokens, responses of different lengths, padding on both sides, a temperature."""
    found = checked(method, length, stop, temperature=1.3, micro_batch_prompts=2, logprob_chunk=4)
    assert max(found.error, found.expected_error) < 1e-12


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_model_that_normalizes_in_float32(precision: str) -> None:
    """Rounding of the model's own, and no more: bfloat16 has three digits."""
    found = checked("nash_prox", 2, model="qwen2", precision=precision)
    assert max(found.error, found.expected_error) < (5e-6 if precision == "float32" else 0.1)


def test_allowed_tokens() -> None:
    """A policy over some of the tokens of a larger vocabulary."""
    config = NashConfig(
        method="online_ipo", max_new_tokens=2, stop_tokens=(), allowed_tokens=(6, 1, 4), precision="float64", group_size=5
    )
    responses = list(itertools.product((1, 4, 6), repeat=2))
    ahead = np.triu(np.ones((9, 9)), 1)
    oracle = oracles.MatrixOracle(0.5 + 0.4 * (ahead - ahead.T), responses)
    found = crosscheck(gpt2(8), None, oracle, PROMPTS, config)
    assert max(found.error, found.expected_error) < 1e-12
    assert found.responses == 9 and found.pairs == 30


class Forgetful:
    """Has a verdict on every pair of responses while the game is set up, and then none on those with the first response."""

    def __init__(self) -> None:
        self.whole, self.calls = cyclic_oracle(3, 1), 0

    def compare(self, prompts: Any, left: Any, right: Any) -> oracles.Verdicts:
        self.calls += 1
        found = self.whole.compare(prompts, left, right)
        if self.calls <= len(PROMPTS):
            return found
        lost = np.array([(0,) in (one.tokens, other.tokens) for one, other in zip(left, right, strict=True)])
        return found._replace(valid=found.valid & ~lost)


def test_pairs_without_a_verdict_are_left_out() -> None:
    """Of the mean, too."""
    config = NashConfig(method="online_ipo", max_new_tokens=1, stop_tokens=(), precision="float64", group_size=6)
    found = crosscheck(gpt2(), None, Forgetful(), PROMPTS, config)
    assert found.error < 1e-12 and 0 < found.pairs < 45


def test_the_exact_game_needs_every_verdict() -> None:
    """A pair without one is named."""
    oracle = oracles.FunctionOracle(lambda prompt, left, right: None if left == "0" else 0.5)
    with pytest.raises(InputError, match="no verdict on '0' against '1'"):
        crosscheck(gpt2(), None, oracle, PROMPTS, NashConfig(max_new_tokens=1, stop_tokens=()))


# ---- planted defects ---------------------------------------------------------


def test_a_mean_over_tokens_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some trainers take the mean of the log-probabilities over a response's tokens."""
    mean = property(lambda self: self.log_probabilities.sum(-1) / (self.log_probabilities != 0).sum(-1))
    monkeypatch.setattr(Scores, "sums", mean)
    assert checked("online_ipo", 3, (2,)).error > 0.05


def test_a_temperature_of_sampling_alone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some trainers sample at one temperature and take log-probabilities at another."""
    right = TokenSpace.log_probabilities
    monkeypatch.setattr(TokenSpace, "log_probabilities", lambda self, logits: right(TokenSpace(1.0, self.allowed), logits))
    assert checked("online_ipo", 2, temperature=1.3).error > 0.05


@pytest.mark.parametrize(
    ("defect", "method"),
    [
        (lambda s, r, t, y, v, beta, pull: RIGHT(s, r, t, y, v, beta=2 * beta, pull=pull), "online_ipo"),
        (lambda s, r, t, y, v, beta, pull: RIGHT(s, r, t, -y, v, beta=beta, pull=pull), "online_ipo"),
        (lambda s, r, t, y, v, beta, pull: RIGHT(s, r, r, y, v, beta=beta, pull=pull), "nash_prox"),
        (lambda s, r, t, y, v, beta, pull: RIGHT(s, r, None, y, v, beta=beta + pull, pull=0.0), "proximal_pg"),
        (lambda s, r, t, y, v, beta, pull: RIGHT(s, r, t, y, v, beta=beta, pull=pull) * (beta + pull), "online_ipo"),
        (lambda s, r, t, y, v, beta, pull: RIGHT(s, s.detach(), t, y, v, beta=beta, pull=pull), "nash_md"),
    ],
)
def test_a_wrong_loss_is_noticed(monkeypatch: pytest.MonkeyPatch, defect: Any, method: str) -> None:
    """A wrong pull, sign, anchor or scale."""
    monkeypatch.setattr(estimate, "pair_loss", lambda s, r, t, y, v, *, beta, pull: defect(s, r, t, y, v, beta, pull))
    assert checked(method).error > 1e-3


RIGHT = losses.pair_loss


def test_a_target_that_is_the_reference_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The target's view must not give another model."""
    from nlhfsim.llm.policy import Policies

    right = Policies.view
    monkeypatch.setattr(Policies, "view", lambda self, name: right(self, "reference" if name == "target" else name))
    # The check itself reads through the views, so the trainer's gradient and its own agree; the target's pull is gone.
    found = checked("nash_prox")
    monkeypatch.undo()
    assert found.error < 1e-12
    trainer = NashTrainer(gpt2(), None, cyclic_oracle(3, 1), PROMPTS, NashConfig(max_new_tokens=1, stop_tokens=()))
    with trainer.policies.view("target") as target, trainer.policies.view("reference") as reference:
        assert target is not reference


# ---- expectations ------------------------------------------------------------


def trainer_of(length: int, vocabulary: int, **fields: Any) -> NashTrainer:
    """A trainer in float64 whose policy has left the reference."""
    config = NashConfig(
        **{"method": "online_ipo", "beta": 0.2, "group_size": 2, "precision": "float64", "max_new_tokens": length} | fields,
        stop_tokens=(),
    )
    oracle = cyclic_oracle(vocabulary, length)
    trainer = NashTrainer(gpt2(vocabulary), None, oracle, [[0, 1]], replace(config, exact_check=True))
    torch.manual_seed(5)
    with torch.no_grad():
        for weights in (trainer.policies.masters, trainer.policies.shadow):
            for weight in weights.values():
                weight.add_(0.05 * torch.randn_like(weight))
    return trainer


def by_definition(trainer: NashTrainer) -> dict[str, Tensor]:
    """The gradient of P_β(π ≻ π̄) - τ KL(π ‖ target) at π̄ = π, π̄ held fixed, over all responses, by autograd."""
    assert trainer.exact is not None
    batch, config = trainer.exact.batch(trainer.exact.prompts), trainer.config
    logs = {}
    for view in trainer.policies.names:
        with trainer.policies.view(view) as model:
            whole = torch.cat([batch.prompts, batch.tokens], 1)
            logits = model(whole).logits[:, batch.prompts.shape[1] - 1 : -1].log_softmax(-1)
            logs[view] = logits.gather(-1, batch.tokens[..., None])[..., 0].sum(-1)
    policy, matrix = logs["policy"].exp(), torch.from_numpy(trainer.exact.game.advantages).reshape(len(batch), -1)
    payoff = policy @ matrix @ policy.detach() - config.beta * (policy * (logs["policy"] - logs["reference"].detach())).sum()
    if config.pull > 0:
        payoff = payoff - config.pull * (policy * (logs["policy"] - logs["target"].detach())).sum()
    payoff.backward()
    return taken(trainer)


def taken(trainer: NashTrainer) -> dict[str, Tensor]:
    """The gradients that are there, which are cleared."""
    found = {name: weight.grad.clone() for name, weight in trainer.policies.masters.items() if weight.grad is not None}
    trainer.optimizer.clear()
    return found


def groups_of_two(trainer: NashTrainer) -> Iterator[tuple[Responses, Labels, float]]:
    """All pairs of responses with each vote, and the probability of both under the policy and the oracle."""
    assert trainer.exact is not None
    batch, policy = trainer.exact.batch(trainer.exact.prompts), np.exp(trainer.exact.log_policy()[0])
    chances = trainer.exact.game.preferences[0]
    others = torch.from_numpy(~np.eye(2, dtype=bool))[None]
    for i, j in itertools.product(range(len(batch)), repeat=2):
        for vote, chance in ((0.5, chances[i, j]), (-0.5, 1 - chances[i, j])):
            centred = torch.tensor([[[0.0, vote], [-vote, 0.0]]], dtype=torch.float64)
            yield batch.rows([i, j]), Labels(centred, others, np.array([chance]), 1, 0), float(policy[i] * policy[j] * chance)


def expectation(trainer: NashTrainer) -> dict[str, Tensor]:
    """-1 times the mean gradient of a group of two, over all groups and votes."""
    total: dict[str, Tensor] = {}
    for responses, labels, weight in groups_of_two(trainer):
        trainer.estimator.backward(responses, labels)
        for name, slope in taken(trainer).items():
            total[name] = total.get(name, 0.0) - weight * slope
    return total


def distance(found: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    """Largest difference over largest entry."""
    largest = max(float(slope.abs().max()) for slope in right.values())
    return max(float((found[name] - slope).abs().max()) for name, slope in right.items()) / largest


@pytest.mark.parametrize(("length", "vocabulary"), [(2, 3), (3, 2)])
@pytest.mark.parametrize("fields", [{}, {"kl_estimator": "token"}, {"method": "nash_prox", "kl_estimator": "token"}])
def test_the_expectation_is_the_gradient(length: int, vocabulary: int, fields: dict[str, Any]) -> None:
    """Over all pairs and votes, for responses of several tokens, both estimators of KL."""
    trainer = trainer_of(length, vocabulary, **fields)
    assert distance(expectation(trainer), by_definition(trainer)) < 1e-11


def test_a_kl_without_later_tokens_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer was found whose KL term forgets what a token does to later ones: right for one token, wrong for two."""

    def forgetful(log_probabilities: Tensor, divergence: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask, divergence, torch.zeros_like(divergence)).sum()

    monkeypatch.setattr(estimate, "token_kl_loss", forgetful)
    one, two = trainer_of(1, 3, kl_estimator="token"), trainer_of(2, 3, kl_estimator="token")
    assert distance(expectation(one), by_definition(one)) < 1e-11
    assert distance(expectation(two), by_definition(two)) > 1e-3


def test_votes_come_with_the_oracles_probability() -> None:
    """A label that is the likelier outcome, always, is another game."""
    chances = np.array([[0.5, 0.8], [0.2, 0.5]])
    config = NashConfig(method="online_ipo", group_size=40, max_new_tokens=1, stop_tokens=(), prompts_per_step=10)
    trainer = NashTrainer(gpt2(2), None, oracles.MatrixOracle(chances, [(0,), (1,)]), [[0]] * 10, config)
    responses = trainer.estimator.draw(trainer.prompts, (("policy", 1.0),), 40)
    labels = trainer.estimator.judge(trainer.prompts, responses)
    kinds = responses.tokens[:, 0].view(10, 40)
    first = (kinds[:, :, None] == 0) & (kinds[:, None, :] == 1)
    share, count = float(labels.centred[first].mean()) + 0.5, int(first.sum())
    assert count > 1000 and abs(share - 0.8) < 4 * np.sqrt(0.8 * 0.2 / count)
    assert torch.equal(labels.centred, -labels.centred.transpose(1, 2))
    assert labels.asked == int(first.sum())


def test_what_crosscheck_refuses() -> None:
    """What the simulator has no counterpart for."""
    for fields in ({"kl_estimator": "token"}, {"allow_off_policy": True, "top_k": 2}):
        with pytest.raises(InputError, match="the simulator has nothing else"):
            checked("online_ipo", **fields)
