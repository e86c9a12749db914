"""A stand-in of SGLang: the two requests that `ServedSampler` makes, as its version 0.5.23 answers them.

It loads weights with transformers, and draws without a cache, token by token: nothing is shared with what is tested.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from served_judge import Reply
from transformers import AutoModelForCausalLM

# The schema's own lists (`sglang/api/v1/api_types.py`): unknown sampling parameters are rejected, other keys are not read.
SAMPLING = """max_new_tokens stop stop_token_ids stop_regex temperature top_p top_k min_p frequency_penalty presence_penalty
    repetition_penalty min_new_tokens n json_schema regex ebnf structural_tag ignore_eos skip_special_tokens
    spaces_between_special_tokens no_stop_trim stream_interval logit_bias sampling_seed custom_params beam_width watermark
    choice""".split()
UPDATE = """model_path load_format abort_all_requests weight_version is_async torch_empty_cache keep_pause recapture_cuda_graph
    token_step flush_cache manifest""".split()


def refused(message: str, status: int = 400) -> Reply:
    """A request that is refused, as `_create_error_response` says it."""
    return status, {}, json.dumps({"error": {"message": message}})


class Engine:
    """What a server does with a request.

    Attributes
    ----------
    model : transformers.PreTrainedModel or None
        What it draws from.
    version : str
        What it calls its weights.
    loads : list of str
        Folders that it loaded from.
    eos : tuple of int
        Tokens at which the model that it was started with ends, whatever it is asked for.
    noise : float
        What is added to its log-probabilities.
    """

    def __init__(self, eos: tuple[int, ...] = (), noise: float = 0.0) -> None:
        self.model: Any = None
        self.version, self.eos, self.noise = "default", eos, noise
        self.loads: list[str] = []

    def __call__(self, body: dict[str, Any]) -> Reply:
        if "model_path" in body:
            return self.update(body)
        return self.generate(body)

    def update(self, body: dict[str, Any]) -> Reply:
        assert set(body) <= set(UPDATE) and body["load_format"] == "safetensors" and body["flush_cache"] is True
        folder = Path(body["model_path"])
        if not list(folder.glob("*.safetensors")):
            message = f"Failed to get weights iterator: Cannot find any model weights with `{folder}`."
            return 400, {}, json.dumps({"success": False, "message": message, "num_paused_requests": 0})
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.loads.append(folder.name)
        self.version = body["weight_version"]
        message = f"Succeeded to update model weights. Weight version updated to {self.version}."
        return 200, {}, json.dumps({"success": True, "message": message, "num_paused_requests": 0})

    def generate(self, body: dict[str, Any]) -> Reply:
        prompts, wanted = body["input_ids"], body["sampling_params"]
        assert isinstance(prompts[0], list) and isinstance(wanted, list) and len(prompts) == len(wanted)
        for one in wanted:
            unknown = set(one) - set(SAMPLING)
            if unknown:
                return refused(f"unknown field {sorted(unknown)[0]}")
            if not isinstance(one["sampling_seed"], int) or not 0 <= one["sampling_seed"] <= 2**63 - 1:
                return refused("sampling_seed must be in [-2**63, 2**63 - 1]")
        answers = [self.answer(prompt, one, body["return_logprob"]) for prompt, one in zip(prompts, wanted, strict=True)]
        return 200, {}, json.dumps(answers)

    @torch.no_grad()
    def answer(self, prompt: list[int], wanted: dict[str, Any], with_logs: bool) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(wanted["sampling_seed"])
        tokens: list[int] = []
        listed: list[list[Any]] = []
        reason: dict[str, Any] = {"type": "length", "length": wanted["max_new_tokens"]}
        stops = set() if wanted["ignore_eos"] else {*(wanted["stop_token_ids"] or []), *self.eos}
        for _ in range(wanted["max_new_tokens"]):
            logits = self.model(torch.tensor([[*prompt, *tokens]])).logits[0, -1].float()
            for token, bias in (wanted.get("logit_bias") or {}).items():
                logits[int(token)] += bias
            shares = (logits / wanted["temperature"]).softmax(-1)
            token = int(torch.multinomial(shares, 1, generator=generator))
            tokens.append(token)
            listed.append([float(shares[token].log()) + self.noise, token, None])
            if token in stops:
                reason = {"type": "stop", "matched": token}
                break
        meta: dict[str, Any] = {
            "id": "0",
            "finish_reason": reason,
            "prompt_tokens": len(prompt),
            "weight_version": self.version,
            "num_retractions": 0,
            "reasoning_tokens": 0,
            "completion_tokens": len(tokens),
            "cached_tokens": 0,
            "dp_rank": None,
            "e2e_latency": 0.01,
        }
        if with_logs:
            meta |= {"input_token_logprobs": [], "output_token_logprobs": listed}
        return {"text": "", "output_ids": tokens, "meta_info": meta}
