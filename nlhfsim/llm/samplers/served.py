"""A sampler that is an inference server: SGLang, by its own interface."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import weakref
from collections.abc import Mapping
from threading import Event
from typing import Any

import numpy as np
from safetensors import SafetensorError

from nlhfsim.errors import DataError, SamplerError, ensure_integer, ensure_nonnegative, ensure_positive
from nlhfsim.files import ensure_folder, ensure_path
from nlhfsim.llm.endpoint import Endpoint, Unread, shorten
from nlhfsim.llm.credentials import Secrets, checked, ensure_header
from nlhfsim.llm.samplers._spec import Samples, SamplingRequest, Weights

_LIFT = 128.0
"""Added to the logits of allowed tokens, in units of the temperature: others keep e⁻¹²⁸ of what they had beside them."""


class ServedSampler:
    """Draws by an SGLang server, which reads the weights from a folder that it and the trainer see.

    Written against SGLang 0.5.23, its pages "Sampling Parameters" and "SGLang for RL Systems" and its source, and tested with a
    stand-in that speaks as they say, not with SGLang itself: ``POST /generate`` with ``input_ids``, and ``POST
    /update_weights_from_disk``. The server is started with the model that is trained, or one of its shape.

    Every response is checked to come from the weights that were handed over last. The server holds one policy at a time: an
    evaluation, which draws from the reference and the target as well, loads each of them. Others must not use it during a run.

    Parameters
    ----------
    address : str
        Of the server, without a path: ``"http://localhost:30000"``.
    folder : path
        Where weights are written, room for one model a view: in a folder of its own there, which is removed at the end.
    server_folder : path, optional
        The same folder as the server sees it, if that is another path.
    key : str, optional
        Name of the environment variable that holds the server's ``--api-key``; None: no key is sent.
    admin_key : str, optional
        Name of the variable with its ``--admin-api-key``, which loading weights needs if there is one. Default: `key`.
    headers : mapping, optional
        Further headers; what is secret is written ``"$NAME"`` with the name of an environment variable.
    retries, backoff, longest_wait
        As in `nlhfsim.llm.oracles.ServedJudgeOracle`.
    timeout : float
        Seconds for a connection, for an answer to begin, and for it to end; all responses of a request are one answer.

    Raises
    ------
    InputError
        If an argument is not as described.
    SamplerError
        By its methods: if the server is down after the retries, refuses, or answers by other weights. A training run stops then
        with everything saved.
    MissingExtraError
        If the extra ``served`` is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from nlhfsim.llm.samplers import ServedSampler
    >>> ServedSampler("http://localhost:30000", tempfile.mkdtemp())
    ServedSampler('http://localhost:30000')
    """

    def __init__(
        self,
        address: str,
        folder: str | os.PathLike[str],
        *,
        server_folder: str | os.PathLike[str] | None = None,
        key: str | None = None,
        admin_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        retries: int = 6,
        backoff: float = 0.5,
        longest_wait: float = 60.0,
        timeout: float = 600.0,
    ) -> None:
        further = checked(ensure_header, "headers", {} if headers is None else headers)
        patience: dict[str, Any] = {
            "concurrency": 1,
            "retries": ensure_integer("retries", retries),
            "backoff": ensure_nonnegative("backoff", backoff),
            "longest_wait": ensure_nonnegative("longest_wait", longest_wait),
            "timeout": ensure_positive("timeout", timeout),
        }
        self._generate = _Native(address, "/generate", Secrets(key, further, default=None), **patience)
        self._update = _Native(address, "/update_weights_from_disk", Secrets(admin_key or key, further, default=None), **patience)
        seen_as = None if server_folder is None else ensure_path("server_folder", server_folder)
        self._run = f"nlhfsim-{secrets.token_hex(4)}"
        self._folder = ensure_folder("folder", folder).resolve() / self._run
        self._folder.mkdir()
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._seen_as = (seen_as or self._folder.parent) / self._run
        self._written: dict[str, str] = {}
        self._count, self._there = 0, ""

    def load(self, view: str, weights: Weights) -> None:
        """Write the weights; the server reads them when they are needed."""
        self._count += 1
        name = f"{view}-{self._count:06d}"
        partial = self._folder / f".{name}.part"
        try:
            weights.save(partial)
            os.replace(partial, self._folder / name)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise DataError(f"folder: the weights {str(self._folder / name)!r} cannot be written: {error}") from error
        before = self._written.pop(view, None)
        self._written[view] = name
        if before is not None:
            shutil.rmtree(self._folder / before, ignore_errors=True)

    def sample(self, request: SamplingRequest) -> Samples:
        """Return responses with the server's log-probabilities."""
        version = self._have_loaded(self._written[request.view])
        prompts = [list(prompt) for prompt in request.prompts for _ in range(request.copies)]
        # A seed for every response: by the same seed the server would draw the same response to the same prompt.
        seeds = np.random.SeedSequence(request.seed).generate_state(len(prompts), np.uint64) >> np.uint64(1)
        shared = _sampling(request)
        body = {
            "input_ids": prompts,
            "sampling_params": [shared | {"sampling_seed": int(seed)} for seed in seeds],
            "return_logprob": True,
        }
        answers = self._ask(self._generate, body).get("answers")
        if not isinstance(answers, list) or len(answers) != len(prompts):
            raise SamplerError(self._generate.said(f"does not answer with a list of {len(prompts)} responses: is it SGLang?"))
        rows = [self._read(k, answer, version) for k, answer in enumerate(answers)]
        return Samples([tokens for tokens, _ in rows], [logs for _, logs in rows])

    def _have_loaded(self, name: str) -> str:
        """Have the server read weights, unless it has them; return what it calls them."""
        version = f"{self._run}/{name}"
        if self._there != version:
            self._there = ""
            where = str(self._seen_as / name)
            answer = self._ask(
                self._update,
                {"model_path": where, "load_format": "safetensors", "weight_version": version, "flush_cache": True},
            )
            if answer.get("success") is not True:
                words = shorten(str(answer.get("message", answer)))
                raise SamplerError(self._update.said(f"does not load the weights in {where!r}: {words}"))
            self._there = version
        return version

    def _ask(self, endpoint: Endpoint, body: dict[str, Any]) -> dict[str, Any]:
        answer = endpoint.post(body, Event())
        if isinstance(answer, Unread):
            raise SamplerError(answer.words)
        return answer

    def _read(self, k: int, answer: Any, version: str) -> tuple[list[int], list[float]]:
        """Return tokens of a response and their log-probabilities."""
        try:
            meta, tokens = answer["meta_info"], list(answer["output_ids"])
            reason, found = meta["finish_reason"], meta["weight_version"]
            listed = [(entry[0], entry[1]) for entry in meta["output_token_logprobs"]]
            aborted = reason["type"] == "abort"
        except (KeyError, TypeError, IndexError) as error:
            words = f"answers row {k} without what SGLang's answers have ({type(error).__name__}: {error})"
            raise SamplerError(self._generate.said(words)) from None
        if aborted:
            raise SamplerError(self._generate.said(f"broke off row {k}: {shorten(str(reason.get('message')))}"))
        if found != version:
            self._there = ""
            raise SamplerError(
                self._generate.said(
                    f"answers row {k} by the weights {shorten(str(found))!r}, not by {version!r}: it was started again, or "
                    "somebody else loads weights into it"
                )
            )
        if [token for _, token in listed] != tokens:
            raise SamplerError(self._generate.said(f"answers row {k} with log-probabilities of other tokens than its own"))
        return tokens, [log for log, _ in listed]

    def __repr__(self) -> str:
        return f"ServedSampler({self._generate.address!r})"


def _sampling(request: SamplingRequest) -> dict[str, Any]:
    """Return the sampling parameters of a request; all that matter, as a server takes others from the model's folder."""
    found: dict[str, Any] = {
        "max_new_tokens": request.max_new_tokens,
        "min_new_tokens": 0,
        "temperature": request.temperature,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "top_k": -1 if request.top_k is None else request.top_k,
        "min_p": 0.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "repetition_penalty": 1.0,
        # With it the server looks at no stop token at all, ours included.
        "ignore_eos": not request.stop_tokens,
        "stop_token_ids": list(request.stop_tokens),
    }
    if request.allowed_tokens is not None:
        lift = _LIFT * max(1.0, request.temperature)
        found["logit_bias"] = {str(token): lift for token in request.allowed_tokens}
    return found


class _Native(Endpoint):
    """A path of SGLang's own interface: an object, or a list that is given back under ``answers``."""

    who = "sampler"
    failure = SamplerError
    most_bytes = 2**28
    example = "such as 'http://localhost:30000'"

    def _answer(self, content: bytes) -> dict[str, Any]:
        try:
            found = json.loads(content)
        except ValueError:
            raise SamplerError(self.said("answers with what is no JSON: is this the address of an SGLang server?")) from None
        return found if isinstance(found, dict) else {"answers": found}

    def _advice(self) -> str:
        return f"; the address has no path, {self.example}"
