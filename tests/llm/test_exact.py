"""The exact check: responses, their probabilities, and the game that the core solves.

Truth: counting, the chain rule by one plain forward a prefix, and the core's own measures of a game built by hand.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from small import MODELS, cyclic_oracle
from training import Untrustworthy, train_on

import nlhfsim as nl
from nlhfsim.errors import InputError, SizeError
from nlhfsim.llm import NashTrainer, exact, oracles


def test_all_responses_are_listed() -> None:
    assert exact.enumerate_responses([1, 0], 2) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert exact.enumerate_responses([0, 1, 5], 3, stop_tokens=[5]) == sorted(
        [*itertools.product((0, 1), repeat=3), (5,), (0, 5), (1, 5), *((a, b, 5) for a in (0, 1) for b in (0, 1))]
    )
    assert exact.enumerate_responses([0, 1], 2, stop_tokens=[0, 1]) == [(0,), (1,)]
    assert exact.enumerate_responses([3], 4, stop_tokens=[9]) == [(3, 3, 3, 3)]


@pytest.mark.parametrize(("tokens", "stop", "length"), [(3, 0, 4), (4, 1, 3), (5, 2, 4)])
def test_their_number(tokens: int, stop: int, length: int) -> None:
    """Σ_t (V - s)^(t - 1) s of those that stop, and (V - s)^L that do not."""
    found = exact.enumerate_responses(range(tokens), length, range(stop))
    go_on = tokens - stop
    assert len(found) == len(set(found)) == sum(go_on ** (t - 1) * stop for t in range(1, length + 1)) + go_on**length
    assert found == sorted(found)


def test_too_many_are_refused_before_memory_is_gone() -> None:
    right = r"50000 tokens at max_new_tokens = 64 give more than 5000 responses.* lower max_new_tokens, or set allowed_tokens"
    with pytest.raises(SizeError, match=right):
        exact.enumerate_responses(range(50_000), 64)
    with pytest.raises(SizeError, match="more than 5000 responses"):
        train_on(feedback="exact", max_new_tokens=20, oracle=oracles.FunctionOracle(lambda *_: 0.5))
    assert len(exact.enumerate_responses(range(70), 2)) == 4900
    with pytest.raises(SizeError):
        exact.enumerate_responses(range(71), 2)


def moved(trainer: NashTrainer) -> NashTrainer:
    """A policy and a target away from the reference."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weights in (trainer.policies.masters, trainer.policies.shadow):
            for weight in weights.values():
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight.dtype))
    trainer.policies.publish()
    trainer.policies.publish_target()
    return trainer


def by_the_chain_rule(trainer: NashTrainer, view: str, prompt: tuple[int, ...], response: tuple[int, ...]) -> float:
    """Σ_t log π(y_t | x, y_<t), each from a forward of its own without cache, mask or padding."""
    total, allowed = 0.0, trainer.config.allowed_tokens or (0, 1, 2)
    for t, token in enumerate(response):
        with torch.no_grad(), trainer.policies.view(view) as model:
            logits = model(torch.tensor([[*prompt, *response[:t]]])).logits[0, -1].double()[list(allowed)]
        logs = (logits / trainer.config.temperature).log_softmax(-1)
        total += float(logs[allowed.index(token)])
    return total


SPACES: list[dict[str, Any]] = [{}, {"stop_tokens": (2,)}, {"temperature": 0.7}, {"allowed_tokens": (0, 2), "stop_tokens": (0,)}]


@pytest.mark.parametrize("family", list(MODELS))
@pytest.mark.parametrize("given", SPACES)
def test_probabilities_are_the_models(family: str, given: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"precision": "float64", "max_new_tokens": 3, "logprob_chunk": 5} | given
    oracle = oracles.FunctionOracle(lambda prompt, left, right: 0.3 + 0.4 * (left > right))
    trainer = moved(train_on(MODELS[family](), oracle, exact_check=True, **fields))
    game = trainer.exact
    assert game is not None
    for view in ("policy", "target"):
        logs = game.log_policy(view)
        assert logs.shape == (len(trainer.prompts), len(game.responses)) and logs.dtype == np.float64
        np.testing.assert_allclose(np.exp(logs).sum(1), 1, atol=1e-12)
        for k, j in itertools.product(range(2), range(0, len(game.responses), 3)):
            right = by_the_chain_rule(trainer, view, trainer.prompts[k].tokens, game.responses[j])
            assert logs[k, j] == pytest.approx(right, abs=1e-5 if family == "qwen2" else 1e-10)
    np.testing.assert_allclose(np.exp(game.log_policy("reference")), game.game.reference, atol=1e-12)
    assert np.abs(game.log_policy() - game.log_policy("reference")).max() > 0.05


def test_a_report_is_the_cores_measure_of_the_game() -> None:
    """The game is built here, from the oracle's matrix and the reference's probabilities by the chain rule."""
    trainer = moved(train_on(precision="float64", exact_check=True, beta=0.07))
    assert trainer.exact is not None
    responses = list(itertools.product(range(3), repeat=2))
    matrix = cyclic_oracle(3, 2)._advantages[0] + 0.5
    tables = {
        view: np.array([[by_the_chain_rule(trainer, view, p.tokens, y) for y in responses] for p in trainer.prompts])
        for view in ("policy", "reference")
    }
    game = nl.PreferenceGame(np.stack([matrix] * 4), beta=0.07, reference=np.exp(tables["reference"]))
    star = nl.solve(game).log_policy
    found = trainer.evaluate()
    assert found["exploitability"] == pytest.approx(nl.exploitability(game, log_policy=tables["policy"]), abs=1e-9)
    assert found["gap0"] == pytest.approx(nl.exploitability(game, log_policy=tables["policy"], regularized=False), abs=1e-9)
    right = (np.exp(star) * (star - tables["policy"])).sum(1).mean()
    assert found["kl_equilibrium"] == pytest.approx(right, abs=1e-7) and right > 0.01


def test_an_exact_gradient_is_that_of_the_payoff() -> None:
    """Of V(π) = Σ_x [π (A μ) - β KL(π ‖ ρ) - τ KL(π ‖ π̄)] / X with μ held fixed, by PyTorch from all probabilities."""
    trainer = moved(train_on(precision="float64", feedback="exact", prompts_per_step=4, proximal_step=4.0))
    game = trainer.exact
    assert game is not None
    fixed = {view: torch.from_numpy(game.log_policy(view)) for view in trainer.policies.names}
    advantages = torch.tensor(cyclic_oracle(3, 2)._advantages[0].tolist(), dtype=torch.float64)
    rows = []
    for prompt in trainer.prompts:
        tokens = torch.tensor([[*prompt.tokens, *response] for response in game.responses])
        logs = trainer.policies.model(tokens).logits[:, len(prompt.tokens) - 1 : -1].log_softmax(-1)
        rows.append(logs.gather(-1, tokens[:, len(prompt.tokens) :, None])[..., 0].sum(-1))
    logs = torch.stack(rows)
    payoff = fixed["policy"].exp() @ advantages.T - 0.1 * (logs - fixed["reference"]) - 0.25 * (logs - fixed["target"])
    value = (logs.exp() * payoff).sum() / 4
    weights = trainer.policies.masters
    right = torch.autograd.grad(value, list(weights.values()))
    game.backward(range(4), game.log_policy(), (("policy", 1.0),))
    for (name, weight), slope in zip(weights.items(), right, strict=True):
        assert weight.grad is not None, name
        torch.testing.assert_close(-weight.grad, slope, rtol=1e-8, atol=1e-12)
    assert max(float(slope.abs().max()) for slope in right) > 1e-3


def test_a_game_needs_all_verdicts() -> None:
    oracle = Untrustworthy(oracles.FunctionOracle(lambda *_: 0.9), lambda call, k: k % 2 == 0)
    with pytest.raises(InputError, match="oracle has no verdict on '0' against '2', and a game needs all of them"):
        train_on(oracle=oracle, exact_check=True, max_new_tokens=1)


def test_preferences_are_the_oracles() -> None:
    game = train_on(oracle=cyclic_oracle(3, 1), exact_check=True, max_new_tokens=1).exact
    assert game is not None
    advantages = game.game.advantages
    np.testing.assert_allclose(advantages, np.stack([cyclic_oracle(3, 1)._advantages[0]] * 4), atol=1e-15)


def test_every_pair_is_asked_once() -> None:
    asked: list[int] = []

    class Counts:
        def compare(self, prompts: Any, left: Any, right: Any) -> Any:
            asked.append(len(prompts))
            assert all(a.tokens < b.tokens for a, b in zip(left, right, strict=True))
            return np.full(len(prompts), 0.5)

    train_on(oracle=Counts(), exact_check=True)
    assert asked == [36] * 4
