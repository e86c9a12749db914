"""The optimizer: torch's own on the same gradients, its schedule, clipping, and plain gradient steps that are the simulator's.

Truth: `torch.optim.AdamW` by hand, formulas written down, and `nlhfsim.simulate` for a model that is a table of logits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from small import CYCLE, gpt2
from training import Lookup, copied, same, train_on

import nlhfsim as nl
from nlhfsim.llm import NashConfig, NashTrainer, oracles
from nlhfsim.llm.optimizer import learning_rate


def give_gradients(trainer: NashTrainer, seed: int, size: float = 1.0) -> dict[str, torch.Tensor]:
    """Put numbers where a backward pass would put a gradient, and return them."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, weight in trainer.policies.parameters.items():
        weight.grad = (size * torch.randn(weight.shape, generator=generator)).to(weight.dtype)
        found[name] = weight.grad.float().clone()
    trainer.optimizer.collect()
    return found


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_adamw_is_torchs_own(precision: str) -> None:
    given: dict[str, Any] = dict(adam_betas=(0.8, 0.95), adam_epsilon=1e-6, weight_decay=0.1, warmup_steps=3, schedule="linear")
    trainer = train_on(gradient_clip=0.5, precision=precision, **given)
    weights = {name: torch.nn.Parameter(weight) for name, weight in copied(trainer.policies.masters).items()}
    plain = torch.optim.AdamW(weights.values(), lr=1.0, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)
    for step in range(5):
        for name, gradient in give_gradients(trainer, step, size=0.001 if step == 2 else 1.0).items():
            weights[name].grad = gradient
        norm = float(torch.nn.utils.clip_grad_norm_(weights.values(), 0.5))
        plain.param_groups[0]["lr"] = learning_rate(trainer.config, step)
        plain.step()
        found = trainer.optimizer.step(step)
        assert found == (pytest.approx(norm, rel=1e-5), learning_rate(trainer.config, step))
    for name, weight in trainer.policies.masters.items():
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight.detach(), weights[name].detach(), rtol=1e-5, atol=1e-7)
        assert torch.equal(trainer.policies.parameters[name].detach(), weight.detach().to(trainer.policies.dtype))


def test_a_gradient_within_the_limit_is_not_touched() -> None:
    """Clipping to the limit would be seen at plain steps: the move is the learning rate times the gradient."""
    for clip, scale in ((None, 1.0), (1e9, 1.0), (0.25, None)):
        trainer = train_on(optimizer="sgd", gradient_clip=clip, learning_rate=0.5)
        before, gradients = copied(trainer.policies.masters), give_gradients(trainer, 0)
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients.values()))
        share = scale if scale is not None else 0.25 / norm
        assert trainer.optimizer.step(0) == (pytest.approx(norm, rel=1e-5), 0.5)
        for name, weight in trainer.policies.masters.items():
            torch.testing.assert_close(before[name] - weight.detach(), 0.5 * share * gradients[name], rtol=1e-3, atol=1e-6)


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    trainer = train_on()
    before = copied(trainer.policies.masters)
    give_gradients(trainer, 0)
    next(iter(trainer.policies.masters.values())).grad[0] = math.nan  # type: ignore[index]
    norm, rate = trainer.optimizer.step(0)
    assert math.isnan(norm) and rate == 0 and same(before, trainer.policies.masters)
    assert not trainer.optimizer.inner.state_dict()["state"]
    assert all(weight.grad is None for weight in trainer.policies.masters.values())


SCHEDULES: dict[str, tuple[dict[str, Any], list[float]]] = {
    "constant": ({"schedule": "constant", "warmup_steps": 2}, [0.1, 0.2, 0.2, 0.2, 0.2, 0.2]),
    "linear": ({"schedule": "linear"}, [0.2 * (1 - t / 6) for t in range(6)]),
    "linear after a warm-up": ({"schedule": "linear", "warmup_steps": 2}, [0.1, 0.2, 0.2, 0.15, 0.1, 0.05]),
    "cosine": ({"schedule": "cosine"}, [0.1 * (1 + math.cos(math.pi * t / 6)) for t in range(6)]),
    "inverse time": ({"schedule": "inverse_time", "decay_steps": 2}, [0.2 / (1 + t / 2) for t in range(6)]),
    "inverse time, a tenth": ({"schedule": "inverse_time"}, [0.2 / (1 + t) for t in range(6)]),
    "warm-up alone": ({"schedule": "linear", "warmup_steps": 6}, [0.2 * (t + 1) / 6 for t in range(6)]),
}


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_schedules(name: str) -> None:
    given, right = SCHEDULES[name]
    config = NashConfig(learning_rate=0.2, steps=6, **given)
    assert [learning_rate(config, t) for t in range(6)] == pytest.approx(right, abs=1e-15)
    assert learning_rate(config, 7) >= 0


def test_the_rate_in_force_is_recorded() -> None:
    run = train_on(schedule="cosine", warmup_steps=2, steps=4).fit()
    config = NashConfig(learning_rate=1e-2, schedule="cosine", warmup_steps=2, steps=4)
    np.testing.assert_allclose(run.steps["learning_rate"], [learning_rate(config, t) for t in range(4)])


def test_a_snapshot_brings_everything_back() -> None:
    trainer = train_on(precision="bfloat16")
    give_gradients(trainer, 0)
    trainer.optimizer.step(0)
    before, snapshot = copied(trainer.policies.masters), trainer.optimizer.snapshot()
    ends = []
    for _ in range(2):
        give_gradients(trainer, 1)
        trainer.optimizer.step(1)
        ends.append(copied(trainer.policies.masters))
        trainer.optimizer.restore(snapshot)
        assert same(before, trainer.policies.masters)
        assert same({n: w.to(torch.bfloat16) for n, w in before.items()}, trainer.policies.parameters)
    assert same(*ends) and not same(before, ends[0])


TABLE = np.array([[0.3, -0.2, 0.1], [0.0, 0.5, -1.0], [1.0, 0.0, 0.2]])
TWO = np.stack([CYCLE, 1 - np.roll(CYCLE, 1, axis=(0, 1)), np.full((3, 3), 0.5)])
SAME: dict[str, tuple[str, dict[str, Any], Any]] = {
    "online_ipo": ("online_ipo", {}, nl.dynamics.SelfPlayPG),
    "moving average": ("nash_prox", {"proximal_step": 3.0, "averaging": 0.1}, nl.dynamics.NashProx),
    "refresh": ("nash_prox", {"proximal_step": 3.0, "refresh_every": 4}, nl.dynamics.NashProx),
    "proximal_pg": ("proximal_pg", {"proximal_step": 3.0, "inner_steps": 4}, nl.dynamics.NashProx),
    "ipo_md": ("ipo_md", {"mixing": 0.2}, nl.dynamics.IPOMD),
}


def table_after(method: str, given: dict[str, Any], steps: int, micro: int | None = None) -> NashTrainer:
    """Train the table on the three contexts at once: a step of each is the mean over them, so the rate is three times γ."""
    oracle = oracles.MatrixOracle(TWO, [(0,), (1,), (2,)])
    return train_on(
        Lookup(TABLE),
        oracle,
        [[0], [1], [2]],
        method=method,
        feedback="exact",
        precision="float64",
        optimizer="sgd",
        learning_rate=3 * 0.5,
        gradient_clip=None,
        beta=0.15,
        max_new_tokens=1,
        prompts_per_step=3,
        micro_batch_prompts=micro,
        steps=steps,
        **given,
    )


@pytest.mark.parametrize("name", list(SAME))
@pytest.mark.parametrize("micro", [None, 2])
def test_plain_steps_of_a_table_are_the_simulators(name: str, micro: int | None) -> None:
    method, given, dynamics = SAME[name]
    trainer = table_after(method, given, 30, micro)
    run = trainer.fit()
    reference = np.exp(TABLE) / np.exp(TABLE).sum(1, keepdims=True)
    game = nl.PreferenceGame(TWO, beta=0.15, reference=reference)
    parameters = {{"inner_steps": "refresh_every"}.get(key, key): value for key, value in given.items()}
    trajectory = nl.simulate(game, dynamics(step_size=0.5, **parameters), 30, compiled=False)
    logits = trainer.policies.masters["table.weight"].detach().numpy()
    right = np.log(np.asarray(trajectory.final).reshape(3, 3))
    normalized = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(normalized, right, atol=1e-10, rtol=0)
    assert run.final["exploitability"] == pytest.approx(nl.exploitability(game, log_policy=right), abs=1e-12)
    assert np.abs(logits - TABLE).max() > 0.1


def test_extragradient_by_definition() -> None:
    """Both steps start at θ; the second is against the policy after the first."""
    trainer = table_after("extragradient", {}, 5)
    trainer.fit()
    theta = TABLE.copy()
    log_reference = np.log(np.exp(TABLE) / np.exp(TABLE).sum(1, keepdims=True))
    for _ in range(5):
        middle = theta + 0.5 * direction(theta, theta, log_reference)
        theta = theta + 0.5 * direction(theta, middle, log_reference)
    np.testing.assert_allclose(trainer.policies.masters["table.weight"].detach().numpy(), theta, atol=1e-12, rtol=0)


def test_nash_md_by_definition() -> None:
    """Opponents are of the mixture with the reference, responses of the policy."""
    trainer = table_after("nash_md", {"mixing": 0.2}, 5)
    trainer.fit()
    theta = TABLE.copy()
    log_reference = np.log(np.exp(TABLE) / np.exp(TABLE).sum(1, keepdims=True))
    for _ in range(5):
        theta = theta + 0.5 * direction(theta, 0.8 * theta + 0.2 * log_reference, log_reference)
    np.testing.assert_allclose(trainer.policies.masters["table.weight"].detach().numpy(), theta, atol=1e-12, rtol=0)


def direction(theta: Any, opponent: Any, log_reference: Any) -> Any:
    """J(π)(Aμ - β(log π - log ρ)) of every context, with the Jacobian as a matrix."""
    policy, other = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (theta, opponent))
    jacobian = np.stack([np.diag(p) - np.outer(p, p) for p in policy])
    slope = np.einsum("kij,kj->ki", TWO - 0.5, other) - 0.15 * (np.log(policy) - log_reference)
    return np.einsum("kij,kj->ki", jacobian, slope)


def test_a_rate_that_is_half_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison with the simulator fails if steps are not of the size that is said."""
    import nlhfsim.llm.optimizer as module

    monkeypatch.setattr(module, "learning_rate", lambda config, taken: 0.5 * config.learning_rate)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        test_plain_steps_of_a_table_are_the_simulators("online_ipo", None)


def test_frozen_weights_stay() -> None:
    model = gpt2()
    model.transformer.wpe.weight.requires_grad_(False)
    before = model.transformer.wpe.weight.detach().clone()
    trainer = train_on(model)
    trainer.fit()
    assert torch.equal(before, trainer.policies.model.transformer.wpe.weight) and "transformer.wpe.weight" not in state(trainer)


def state(trainer: NashTrainer) -> Any:
    return trainer.policies.masters
