"""How large everything is: on a GPU, on a processor, and to see that it works."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import transformers

from nlhfsim.llm import methods


class Shape(NamedTuple):
    """The shape of a causal language model with random weights.

    Attributes
    ----------
    family : str
        Of transformers.
    vocabulary, hidden, layers, heads, shared_heads, head_dim, intermediate : int
        As its configuration calls them; `shared_heads` are those of keys and values.
    """

    family: str
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    shared_heads: int
    head_dim: int
    intermediate: int

    def build(self, where: torch.device | str, seed: int = 0) -> Any:
        """Return a model, made where it is to run: drawing billions of weights elsewhere takes minutes."""
        config = getattr(transformers, f"{self.family}Config")(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.shared_heads,
            head_dim=self.head_dim,
            intermediate_size=self.intermediate,
            tie_word_embeddings=True,
        )
        torch.manual_seed(seed)
        with torch.device(where):
            return getattr(transformers, f"{self.family}ForCausalLM")(config)


HALF_A_BILLION = Shape("Qwen2", 151_936, 896, 24, 14, 2, 64, 4864)
"""That of Qwen2.5-0.5B."""
FOUR_BILLION = Shape("Qwen3", 151_936, 2560, 36, 32, 8, 128, 9728)
"""That of Qwen3-4B."""
TWENTY_MILLION = Shape("Qwen2", 512, 384, 12, 6, 2, 64, 1024)
SMALL = Shape("Qwen2", 2000, 128, 4, 4, 2, 32, 384)
TINY = Shape("Qwen2", 64, 32, 2, 4, 2, 8, 64)
PLAYER = Shape("Qwen2", 64, 64, 2, 4, 2, 16, 192)
SMALL_THREE = SMALL._replace(family="Qwen3")
TINY_THREE = TINY._replace(family="Qwen3")


class Sizes(NamedTuple):
    """What the sections do; `TABLE` says how much of it where.

    Attributes
    ----------
    precision : str
        Of weights and activations, where a section does not say another.
    product : int
        Side of the matrices whose product is the ceiling.
    checked : tuple of str
        Methods that the cross-check takes.
    model : Shape
        Of throughput and of TRL.
    prompts, group, prompt_tokens, new_tokens : int
        Of a step.
    micro_batch : int
        Prompts whose activations are in memory at once.
    chunk : int
        Tokens whose logits are.
    decodings : tuple of str
        Ways to decode, the slow one first.
    steps : tuple of int
        That are timed of each, behind one that is not.
    flips : tuple of int
        Prompts, responses to each, and their tokens, that two ways to decode are compared on.
    players : tuple of Shape
        Models that play the game whose equilibrium is known: the first that has the time.
    game_tokens, game_length : int
        Tokens of that game, and of a response.
    game_group, game_steps, game_rate
        Responses to a prompt, steps, and the learning rate of a model with 64 hidden features, see `convergence`.
    game_seconds : float
        What a run of the game may take.
    trl_prompts, trl_at_once, trl_new_tokens, trl_steps : int
        Of TRL's step: prompts, how many at a time by default, tokens of a response, steps that are timed.
    adapted : Shape
        Of the model with adapters.
    adapted_prompts, adapted_tokens : int
        Prompts, four responses to each, and tokens of either.
    """

    precision: str
    product: int
    checked: tuple[str, ...]
    model: Shape
    prompts: int
    group: int
    prompt_tokens: int
    new_tokens: int
    micro_batch: int
    chunk: int
    decodings: tuple[str, str]
    steps: tuple[int, int]
    flips: tuple[int, int, int]
    players: tuple[Shape, ...]
    game_tokens: int
    game_length: int
    game_group: int
    game_steps: int
    game_rate: float
    game_seconds: float
    trl_prompts: int
    trl_at_once: int
    trl_new_tokens: int
    trl_steps: int
    adapted: Shape
    adapted_prompts: int
    adapted_tokens: int


ALL = tuple(methods.names())
TABLE: dict[str, tuple[Any, Any, Any]] = {
    # name: on a GPU, on a processor, to see that it works
    "precision": ("bfloat16", "float32", "float32"),
    "product": (8192, 1024, 128),
    "checked": (ALL, ALL, ("nash_prox",)),
    "model": (HALF_A_BILLION, SMALL, TINY),
    "prompts": (32, 4, 2),
    "group": (8, 4, 2),
    "prompt_tokens": (64, 16, 4),
    "new_tokens": (256, 32, 4),
    "micro_batch": (4, 2, 1),
    "chunk": (4096, 1024, 64),
    "decodings": (("eager", "graph"), ("eager", "static"), ()),
    "steps": ((1, 3), (2, 2), (1, 1)),
    "flips": ((4, 8, 64), (4, 8, 16), (2, 2, 4)),
    "players": ((HALF_A_BILLION, TWENTY_MILLION), (PLAYER,), (PLAYER,)),
    "game_tokens": (8, 8, 3),
    "game_length": (4, 4, 2),
    "game_group": (32, 32, 4),
    "game_steps": (300, 400, 4),
    "game_rate": (2e-3, 2e-3, 2e-3),
    "game_seconds": (90.0, 90.0, 90.0),
    "trl_prompts": (32, 8, 4),
    "trl_at_once": (8, 4, 2),
    "trl_new_tokens": (256, 16, 4),
    "trl_steps": (1, 2, 1),
    "adapted": (FOUR_BILLION, SMALL_THREE, TINY_THREE),
    "adapted_prompts": (4, 4, 2),
    "adapted_tokens": (64, 16, 4),
}


def sizes(on_gpu: bool, quick: bool) -> Sizes:
    """Return a column of the table; the ways to decode are always those of the machine."""
    column = 2 if quick else 0 if on_gpu else 1
    found = Sizes(**{name: row[column] for name, row in TABLE.items()})
    return found._replace(decodings=TABLE["decodings"][0 if on_gpu else 1])
