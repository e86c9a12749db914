"""The policy, the reference and the target: three views that everything else asks for by name."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

from nlhfsim.errors import InputError
from nlhfsim.llm.logprobs import splits
from nlhfsim.llm.methods import Follow

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
VIEWS = ("policy", "reference", "target")


class Policies:
    """Three policies of one architecture: the one that is trained, the reference, and, for a method with a pull, the target.

    The policy is the model that is given, trained in place. All run without dropout: the distribution that is sampled is the one
    whose log-probabilities are taken.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A causal language model.
    device : torch.device
        Where it runs.
    precision : str
        Of weights and activations, see `NashConfig`.
    with_target : bool
        Whether there is a target.
    activation_checkpointing : bool
        Whether the backward pass computes activations again.

    Attributes
    ----------
    masters : dict
        The trained weights by name, at least float32: the policy's own, or a copy that is more precise than it.
    shadow : dict
        The target's weights by name in the same precision: what a moving average needs, as in bfloat16 small moves are lost.
    changes : dict
        How often the weights of each view have changed.
    """

    def __init__(
        self, model: Any, *, device: torch.device, precision: str, with_target: bool, activation_checkpointing: bool = False
    ) -> None:
        self.device, self.dtype = device, DTYPES[precision]
        self.exact = torch.float64 if self.dtype == torch.float64 else torch.float32
        self.shadow: dict[str, Tensor] = {}
        self.changes = dict.fromkeys(VIEWS, 0)
        self._set_up(model.to(device).eval(), with_target)
        self.split = splits(self.model)
        self._checkpointed = _checkpoint_activations(self.model) if activation_checkpointing else []

    def _set_up(self, model: Any, with_target: bool) -> None:
        """Set the views, the trained weights and their masters, and the target's weights."""
        self.model = model
        trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        if not trained:
            raise InputError("model has no weight with requires_grad = True, so there is nothing to train")
        own = self.dtype == self.exact
        self.masters = trained if own else {n: w.detach().to(self.exact, copy=True) for n, w in trained.items()}
        cast(model, self.dtype)
        self.parameters = {name: weight for name, weight in model.named_parameters() if name in self.masters}
        self._models = {"policy": model, "reference": _frozen_copy(model)}
        self._target_weights: dict[str, Tensor] = {}
        if with_target:
            self._models["target"] = target = _frozen_copy(model)
            self._target_weights = {name: weight for name, weight in target.named_parameters() if name in self.masters}
            self.shadow = self._target_weights if own else {name: weight.clone() for name, weight in self.masters.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """The views that there are."""
        return ("policy", "reference", "target") if self.shadow else ("policy", "reference")

    @contextmanager
    def view(self, name: str) -> Iterator[Any]:
        """Give the model that acts as one of the policies; another view may be the same weights in another state."""
        yield self._models[name]

    def reference_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield names and weights of the reference."""
        yield from self._models["reference"].named_parameters()

    @torch.no_grad()
    def weights(self, view: str) -> Iterator[tuple[str, Tensor]]:
        """Yield what a view is made of, as `from_pretrained` names it: weights, and buffers that are saved."""
        model = self._models[view]
        for name, weight in model.named_parameters():
            yield name, weight.detach()
        yield from saved_buffers(model)

    def save_whole(self, view: str, folder: Path) -> None:
        """Save a view as a model of its own, where transformers loads it from."""
        # On the CPU: adapters that are merged need room for a copy of the model while it is written.
        weights = {name: weight.cpu() for name, weight in self.weights(view)}
        with self.view(view) as model, without_bars():
            model.save_pretrained(folder, state_dict=weights)

    def save(self, folder: Path) -> None:
        """Save the policy where transformers loads it from."""
        with without_bars():
            self.model.save_pretrained(folder)

    @contextmanager
    def training(self) -> Iterator[Any]:
        """Give the policy with activation checkpointing in force, if it is wanted; elsewhere it would cost the cache."""
        for module in self._checkpointed:
            module.training = True
        try:
            yield self.model
        finally:
            for module in self._checkpointed:
                module.training = False

    @torch.no_grad()
    def publish(self) -> None:
        """Bring the policy to its master weights, if these are a copy."""
        self.changes["policy"] += 1
        for name, weight in self.parameters.items():
            if weight is not self.masters[name]:
                weight.copy_(self.masters[name])

    @torch.no_grad()
    def follow(self, rule: Follow, taken: int) -> None:
        """Let the target follow after `taken` steps."""
        if not self.shadow:
            return
        if rule.averaging > 0:
            torch._foreach_lerp_(list(self.shadow.values()), [self.masters[name] for name in self.shadow], rule.averaging)
        elif rule.refresh_every > 0 and taken % rule.refresh_every == 0:
            for name, weight in self.shadow.items():
                weight.copy_(self.masters[name])
        else:
            return
        self.publish_target()

    @torch.no_grad()
    def publish_target(self) -> None:
        """Bring the target to its shadow, if that is a copy."""
        self.changes["target"] += 1
        for name, weight in self._target_weights.items():
            if weight is not self.shadow[name]:
                weight.copy_(self.shadow[name])

    def fingerprint(self) -> str:
        """Return a hash of the reference: names, shapes and sums of its weights."""
        found = hashlib.sha256()
        for name, weight in self.reference_weights():
            found.update(f"{name} {tuple(weight.shape)} {weight.double().sum().item():.12g};".encode())
        return found.hexdigest()[:16]


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep the progress bars of transformers, one for each file, off the terminal."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def cast(model: Any, dtype: torch.dtype) -> None:
    """Give the weights a precision as transformers does when it loads them: what is computed and not saved keeps its own.

    In bfloat16 the frequencies of rotary positions would be wrong in the third digit, and far positions with them.
    """
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    for _, buffer in saved_buffers(model):
        if buffer.is_floating_point():
            buffer.data = buffer.data.to(dtype)


def saved_buffers(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the buffers that belong to the state of a model."""
    saved = model.state_dict(keep_vars=True)
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name in saved)


def _frozen_copy(model: Any) -> Any:
    return copy.deepcopy(model).requires_grad_(False).eval()


def _checkpoint_activations(model: Any) -> list[Any]:
    """Switch activation checkpointing on, and return the modules that do it when they are in training mode."""
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise InputError(f"activation_checkpointing = True is not supported by {type(model).__name__}, must be False")
    # The name changed; the old one warns where the new one is there.
    switch = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    switch({"use_reentrant": False})
    flags = ("gradient_checkpointing", "activation_checkpointing")
    return [module for module in model.modules() if any(getattr(module, flag, False) is True for flag in flags)]
