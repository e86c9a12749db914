"""What to lower when memory runs out, and how much was used at most."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nlhfsim.errors import InputError

_ADVICE = {
    "generation": "lower generation_batch (responses generated at once), or max_new_tokens",
    "weights": "take precision = 'bfloat16', or a smaller model: merged adapters are copied while they are written",
    "scoring": "lower micro_batch_prompts (prompts scored at once), logprob_chunk or group_size",
    "training": "lower micro_batch_prompts, logprob_chunk or group_size, set activation_checkpointing = True, or take precision "
    "= 'bfloat16'",
    "enumeration": "set allowed_tokens, or lower max_new_tokens or logprob_chunk",
    "optimizer": "take optimizer = 'sgd', which remembers nothing, or a smaller model",
    "evaluation": "lower micro_batch_prompts or logprob_chunk, or give fewer held-out prompts",
    "loading": "train adapters (lora_rank), which keeps one copy of the model, or take a smaller model",
}
_ON_CPU = ("not enough memory", "can't allocate memory", "DefaultCPUAllocator")


@contextmanager
def advice_on(phase: str) -> Iterator[None]:
    """Turn running out of memory into a sentence that says what to lower.

    Raises
    ------
    InputError
        In its place.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in str(error) for words in _ON_CPU):
            raise InputError(f"out of memory in {phase}: {_ADVICE[phase]}") from error
        raise


def peak_memory(device: torch.device) -> int:
    """Return the largest number of bytes used so far: allocated by torch on a GPU, resident of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # not on this system
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
