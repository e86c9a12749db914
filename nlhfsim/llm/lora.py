"""Low-rank adapters: one base model for all three policies, no second copy of its weights.

The reference is the base model with its adapters off, the policy an adapter that is trained, the target a second one that is not.
A copy of the policy's factors A and B into the target's is exact. A moving average of the factors is not the average of the
updates BA: with A = A₀ + a, B = B₀ + b it differs from it by terms of second order in a and b; where that matters, refresh.

Adapters are float32 whatever the base model is (float64 if it is), so they need no master copy and average without loss.
Source of the parametrization: Hu et al., arXiv 2106.09685.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nlhfsim.errors import InputError, MissingExtraError
from nlhfsim.llm.policy import Policies, cast, saved_buffers
from nlhfsim.llm.pretrained import first_line, head_of

_POLICY, _TARGET = "default", "target"
"""Names of adapters; peft saves the one called default where it looks for it first."""


class Lora(NamedTuple):
    """What adapters there are, as `NashConfig` says it.

    Attributes
    ----------
    rank : int
        r, columns of B and rows of A.
    alpha : float
        The update is ``alpha / rank * B A``.
    modules : tuple of str or None
        Names of the linear layers that get one; None: all but the output layer.
    seed : int
        Of the random A; B is 0, so the policy starts at the reference.
    """

    rank: int
    alpha: float
    modules: tuple[str, ...] | None
    seed: int


class LoraPolicies(Policies):
    """Three policies on one base model; see `Policies`.

    Parameters
    ----------
    lora : Lora
        The adapters.

    Raises
    ------
    MissingExtraError
        Without peft, which is in ``nlhfsim[lora]``.
    InputError
        If the model has no layer of the names given.
    """

    def __init__(self, model: Any, *, lora: Lora, **keywords: Any) -> None:
        self.lora = lora
        super().__init__(model, **keywords)

    def _set_up(self, model: Any, with_target: bool) -> None:
        cast(model, self.dtype)
        self.model = model.requires_grad_(False)
        self._base_names = [name for name, _ in model.named_parameters()]
        self.wrapped, self._layers = _adapted(model, self.lora, (_POLICY, _TARGET) if with_target else (_POLICY,))
        if any(layer in (model.get_output_embeddings(), model.get_input_embeddings()) for layer in self._layers):
            raise InputError(
                f"lora_modules = {list(self.lora.modules or ())} names the embedding or the output layer, which all three "
                "policies share: leave it out"
            )
        for name, weight in model.named_parameters():
            if ".lora_" in name:
                weight.data = weight.data.to(self.exact)
        self.parameters = self.masters = self._adapter(_POLICY)
        self._target_weights = self.shadow = self._adapter(_TARGET)
        with torch.no_grad():
            for name, weight in self.shadow.items():
                weight.copy_(self.masters[name])
        self._activate(_POLICY)

    def _adapter(self, name: str) -> dict[str, Tensor]:
        """Return the weights of an adapter, under the names that the policy's have."""
        return {
            key.replace(f".{name}.", f".{_POLICY}."): weight
            for key, weight in self.model.named_parameters()
            if ".lora_" in key and f".{name}." in key
        }

    def _activate(self, name: str) -> None:
        """Let one adapter act, or for the reference none; the policy's alone has gradients."""
        for layer in self._layers:
            if name == "reference":
                layer.enable_adapters(False)
            else:
                layer.enable_adapters(True)
                layer.set_adapter(name)
        for weight in self.shadow.values():
            weight.requires_grad_(False)
        for weight in self.masters.values():
            weight.requires_grad_(True)

    @contextmanager
    def view(self, name: str) -> Iterator[Any]:
        """Give the one model, with the adapters of a policy on."""
        if name == "policy":
            yield self.model
            return
        self._activate(name)
        try:
            yield self.model
        finally:
            self._activate(_POLICY)

    def reference_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield names and weights of the base model, as they were called before it had adapters."""
        base = [(name, weight) for name, weight in self.model.named_parameters() if ".lora_" not in name]
        yield from ((name, weight) for name, (_, weight) in zip(self._base_names, base, strict=True))

    @torch.no_grad()
    def weights(self, view: str) -> Iterator[tuple[str, Tensor]]:
        """Yield the weights of the base model, those of adapted layers with the view's update BA in them, one at a time.

        The sum is computed in the precision of the adapters and has that of the base model: in bfloat16 it loses of an update
        what is below the third digit of a weight.
        """
        adapter = {"policy": _POLICY, "target": _TARGET}.get(view)
        adapted = {id(layer.get_base_layer().weight): layer for layer in self._layers}
        for name, weight in self.reference_weights():
            layer = adapted.get(id(weight)) if adapter else None
            yield name, weight if layer is None else (weight + layer.get_delta_weight(adapter)).to(weight.dtype)
        yield from ((name.replace(".base_layer.", "."), buffer) for name, buffer in saved_buffers(self.model))

    def save(self, folder: Path) -> None:
        """Save the policy's adapter where peft loads it from; its folder names the base model."""
        self.wrapped.save_pretrained(folder, selected_adapters=[_POLICY])


def _adapted(model: Any, lora: Lora, names: tuple[str, ...]) -> tuple[Any, list[Any]]:
    """Put adapters into a model, in place; return peft's wrapper around it and the layers that have them."""
    try:
        from peft import LoraConfig, get_peft_model
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError:
        raise MissingExtraError("lora_rank needs peft: pip install 'nlhfsim[lora]'") from None
    modules = "all-linear" if lora.modules is None else list(lora.modules)
    scale: Any = lora.alpha  # peft says int, and divides
    described = LoraConfig(r=lora.rank, lora_alpha=scale, target_modules=modules, lora_dropout=0.0, task_type="CAUSAL_LM")
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False")  # peft sees itself that a layer is transposed
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.* is deprecated")  # what peft calls, not the user
        torch.manual_seed(lora.seed)
        try:
            wrapped = get_peft_model(model, described, adapter_name=names[0])
        except ValueError as error:
            if known := _without_any(model, lora.modules):
                raise InputError(
                    f"lora_modules = {lora.modules} names no layer of the model, which has {', '.join(known)}"
                ) from None
            raise InputError(f"lora_modules = {lora.modules} cannot have adapters: {first_line(error)}") from None
        for name in names[1:]:
            wrapped.add_adapter(name, described)
    return wrapped.eval(), [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


def _without_any(model: Any, names: tuple[str, ...] | None) -> list[str]:
    """Return the names of the linear layers that may have adapters if no layer has one of some names, else nothing."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    layers = {name.rpartition(".")[2]: layer for name, layer in model.named_modules()}
    if names is None or not {name.rpartition(".")[2] for name in names}.isdisjoint(layers):
        return []
    return sorted(name for name, layer in layers.items() if isinstance(layer, (Linear, Conv1D)) and layer is not head_of(model))
