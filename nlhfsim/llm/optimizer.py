"""The optimizer: torch's own, on the master weights, with clipping and a schedule."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from nlhfsim.llm.config import NashConfig
from nlhfsim.llm.policy import Policies
from nlhfsim.llm.processes import Processes


def learning_rate(config: NashConfig, taken: int) -> float:
    """Return the learning rate of the step after `taken` steps.

    Examples
    --------
    >>> from nlhfsim.llm import NashConfig
    >>> linear = NashConfig(learning_rate=0.1, schedule="linear", warmup_steps=2, steps=6)
    >>> [round(learning_rate(linear, t), 4) for t in range(6)]
    [0.05, 0.1, 0.1, 0.075, 0.05, 0.025]
    """
    if taken < config.warmup_steps:
        return config.learning_rate * (taken + 1) / config.warmup_steps
    after, left = taken - config.warmup_steps, max(1, config.steps - config.warmup_steps)
    if config.schedule == "linear":
        return config.learning_rate * max(0.0, 1 - after / left)
    if config.schedule == "cosine":
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, after / left)))
    if config.schedule == "inverse_time":
        return config.learning_rate / (1 + after / (config.decay_steps or max(1, config.steps / 10)))
    return config.learning_rate


class Optimizer:
    """Steps on the master weights of a policy.

    Gradients of micro-batches, and of processes, are added up in the precision of the masters.
    """

    def __init__(self, policies: Policies, config: NashConfig, processes: Processes) -> None:
        self.policies, self.config, self.processes = policies, config, processes
        weights = list(policies.masters.values())
        if config.optimizer == "adamw":
            self.inner: Any = torch.optim.AdamW(
                weights,
                lr=config.learning_rate,
                betas=config.adam_betas,
                eps=config.adam_epsilon,
                weight_decay=config.weight_decay,
                fused=True,
            )
        else:
            self.inner = torch.optim.SGD(weights, lr=config.learning_rate, weight_decay=config.weight_decay)

    def collect(self) -> None:
        """Add the policy's gradients to those of the masters, if these are a copy."""
        for name, weight in self.policies.parameters.items():
            master = self.policies.masters[name]
            if weight is master or weight.grad is None:
                continue
            grown = weight.grad.to(master.dtype)
            master.grad = grown if master.grad is None else master.grad.add_(grown)
            weight.grad = None

    def step(self, taken: int) -> tuple[float, float]:
        """Do a step with the gradients that are there and clear them; return their norm before clipping, and the rate."""
        weights = [weight for weight in self.policies.masters.values() if weight.grad is not None]
        self.processes.add_up(_gradient(weight) for weight in weights)
        limit = math.inf if self.config.gradient_clip is None else self.config.gradient_clip
        norm = float(torch.nn.utils.get_total_norm([_gradient(weight) for weight in weights]))
        if not math.isfinite(norm):
            self.clear()
            return norm, 0.0
        if norm > limit:
            torch._foreach_mul_([_gradient(weight) for weight in weights], limit / norm)
        rate = learning_rate(self.config, taken)
        for group in self.inner.param_groups:
            group["lr"] = rate
        self.inner.step()
        self.clear()
        self.policies.publish()
        return norm, rate

    def clear(self) -> None:
        """Forget all gradients."""
        self.inner.zero_grad(set_to_none=True)
        for weight in self.policies.parameters.values():
            weight.grad = None

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return copies of the master weights and of the optimizer's memory."""
        return (
            {name: weight.detach().clone() for name, weight in self.policies.masters.items()},
            copy.deepcopy(self.inner.state_dict()),
        )

    @torch.no_grad()
    def restore(self, snapshot: tuple[dict[str, Tensor], dict[str, Any]]) -> None:
        """Go back to a snapshot."""
        weights, memory = snapshot
        for name, weight in self.policies.masters.items():
            weight.copy_(weights[name])
        self.inner.load_state_dict(memory)
        self.policies.publish()


def _gradient(weight: Tensor) -> Tensor:
    assert weight.grad is not None
    return weight.grad
