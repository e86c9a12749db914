"""How many floating-point operations a model needs: the formula, from its linear layers.

A forward pass over a response of n tokens to a prompt of p, T = p + n:

    2 N T + 2 H n + 4 layers · heads · head_dim · T²

N are the weights of the linear layers, H those of the output layer, which is applied to the response alone; a multiplication and
an addition are two operations. Attention counts scores and sums over all T positions for each, as is usual, though a causal mask
needs half of them. A backward pass needs twice as much. What is computed again to save memory, norms, activation functions,
softmax and the optimizer are not counted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

FORMULA = "2 N T + 2 H n + 4 layers · heads · head_dim · T² for a forward pass over a response of n tokens, T with its prompt"


class Operations(NamedTuple):
    """What the formula needs to know of a model.

    Attributes
    ----------
    linear, output : int
        Weights of the linear layers but the last, and of the output layer.
    attention : int
        layers · heads · head_dim.
    """

    linear: int
    output: int
    attention: int

    @classmethod
    def of(cls, model: Any) -> Operations:
        """Count the weights of a model whose layers are `torch.nn.Linear`."""
        last, config = model.get_output_embeddings(), model.config
        linear = sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Linear) and layer is not last)
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(linear, last.weight.numel(), config.num_hidden_layers * config.num_attention_heads * width)

    def forward(self, prompt: int, new: int) -> int:
        """Return the operations of a forward pass over one response and its prompt."""
        tokens = prompt + new
        return 2 * self.linear * tokens + 2 * self.output * new + 4 * self.attention * tokens**2

    def training(self, prompt: int, new: int) -> int:
        """Return those of a forward and a backward pass."""
        return 3 * self.forward(prompt, new)
