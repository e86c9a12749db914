"""An oracle that is a reward model: a language model with one output. Bradley–Terry, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from nlhfsim.errors import Array, InputError, ensure_integer
from nlhfsim.llm.oracles._check import ensure_template
from nlhfsim.llm.oracles._models import batches, context_length, load, parameters, reading, use_chat
from nlhfsim.llm.oracles._spec import Message, Prompt, Response
from nlhfsim.llm.oracles.score import ScoreOracle
from nlhfsim.llm.pretrained import head_of

FIELDS = ("prompt", "response")


class RewardModelOracle(ScoreOracle):
    """Preferences by a reward model: ``P(y ≻ y') = sigmoid((r(y) - r(y')) / temperature)``.

    This is the Bradley–Terry model, which cannot express cycles: see `ScoreOracle`.

    Parameters
    ----------
    model : transformers sequence classification model with one label, or its path
        Used without gradients and without dropout; it stays on its device unless `device` is given. If its configuration names
        no padding token, it gets the tokenizer's; if there is none either, texts are read one at a time.
    tokenizer : transformers tokenizer, optional
        The reward model's; default: that at the path.
    temperature : float
        Difference of rewards by which the odds of a preference change by the factor e, > 0.
    batch_size : int
        Texts read at once.
    template : str, optional
        What is read, with ``{prompt}`` and ``{response}`` in it. Default: the chat template; without one, prompt and response as
        the pair of texts that the tokenizer makes of them.
    chat : bool, optional
        Whether the texts are messages of user and assistant in the tokenizer's chat template. Default: if there is one and no
        `template`.
    max_length : int, optional
        A text of more tokens, or of none, gets no score. Default: the context of the model.
    device : optional
        Where the model goes; default for a path: the first CUDA device if there is one.

    Raises
    ------
    InputError
        If an argument is not as described.

    Examples
    --------
    >>> from nlhfsim.llm.oracles import RewardModelOracle
    >>> oracle = RewardModelOracle("OpenAssistant/reward-model-deberta-v3-base")  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        temperature: float = 1.0,
        batch_size: int = 16,
        template: str | None = None,
        chat: bool | None = None,
        max_length: int | None = None,
        device: Any = None,
    ) -> None:
        from transformers import AutoModelForSequenceClassification

        super().__init__(self._rewards, temperature=temperature, batched=True)
        if template is not None:
            ensure_template("template", template, FIELDS)
            if chat:
                raise InputError("give template or chat = True, not both")
        ensure_integer("batch_size", batch_size, 1)
        self._model, self._tokenizer = load(AutoModelForSequenceClassification, model, tokenizer, device, "reward model")
        if head_of(self._model) is not None:
            raise InputError(f"model is a {type(self._model).__name__}, must be a sequence classifier with one label, the reward")
        if self._model.config.num_labels != 1:
            raise InputError(f"model has {self._model.config.num_labels} labels, must have one, the reward: num_labels=1")
        self._template = template
        self._chat = template is None and use_chat(self._tokenizer, chat)
        self._max_length = context_length(self._model, self._tokenizer, max_length)
        self._parameters = parameters(self._model)
        self._pad_token = self._padding()
        self._batch_size = ensure_integer("batch_size", batch_size, 1) if self._pad_token is not None else 1

    def _padding(self) -> int | None:
        """Return the token by which the model knows where texts end that are read together."""
        config = self._model.config.get_text_config()
        if getattr(config, "pad_token_id", None) is None:
            config.pad_token_id = getattr(self._tokenizer, "pad_token_id", None)
        return config.pad_token_id  # type: ignore[no-any-return]

    def _arguments(self, prompt: Prompt, response: Response) -> tuple[Any, Any]:
        """Return what is read: a chat template takes a conversation turn by turn."""
        return (prompt.messages or (Message("user", prompt.text),)) if self._chat else prompt.text, response.text

    def _encode(self, prompt: Any, response: str) -> dict[str, list[int]]:
        if self._template is not None:
            return dict(self._tokenizer(self._template.format(prompt=prompt, response=response)))
        if not self._chat:  # in lists, as transformers takes an empty second text that stands alone for none
            return {name: values[0] for name, values in self._tokenizer([prompt], [response]).items()}
        messages = [message._asdict() for message in (*prompt, Message("assistant", response))]
        try:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False)
        except Exception as error:  # a template is a program of its own, and refuses in its own way
            raise InputError(
                f"the reward model's chat template refuses {messages}: {error}; give template, or chat = False"
            ) from None
        # A chat template writes the special tokens itself.
        return dict(self._tokenizer(text, add_special_tokens=False))

    def _rewards(self, prompts: Sequence[Any], responses: Sequence[str]) -> Array:
        """Return the reward of each response, NaN for one that is too long."""
        encoded = [self._encode(prompt, response) for prompt, response in zip(prompts, responses)]
        lengths = [len(one["input_ids"]) for one in encoded]
        fitting = [k for k, length in enumerate(lengths) if 0 < length <= (self._max_length or length)]
        rewards = np.full(len(encoded), np.nan)
        with reading(self._model):
            for batch in batches([lengths[k] for k in fitting], self._batch_size):
                numbers = [fitting[k] for k in batch]
                rewards[numbers] = self._forward([encoded[number] for number in numbers])
        return rewards

    def _forward(self, encoded: list[dict[str, list[int]]]) -> Array:
        """Return the rewards of texts that are padded on the right."""
        longest = max(len(one["input_ids"]) for one in encoded)
        padding = {"input_ids": self._pad_token}
        inputs = {
            name: torch.tensor([one[name] + [padding.get(name, 0)] * (longest - len(one[name])) for one in encoded])
            for name in encoded[0]
            if name in self._parameters
        }
        rewards = self._model(**{name: tensor.to(self._model.device) for name, tensor in inputs.items()}).logits[:, 0]
        if not torch.isfinite(rewards).all():
            raise InputError(f"model gives the rewards {rewards.tolist()}, must be finite: its weights are damaged, or overflow")
        return np.asarray(rewards.double().cpu().numpy())
