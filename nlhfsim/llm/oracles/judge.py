"""An oracle that is a language model: shown both responses, it says which is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from nlhfsim.errors import Array, InputError, ensure_integer
from nlhfsim.llm.oracles._check import ensure_template
from nlhfsim.llm.oracles._models import batches, context_length, load, parameters, reading, use_chat
from nlhfsim.llm.oracles._spec import Prompt, Response, Verdicts
from nlhfsim.llm.pretrained import head_of

FIELDS = ("prompt", "left", "right")
TEMPLATE = """\
Below are a prompt and two responses to it. Decide which response is better: more helpful, more accurate, and closer to what was \
asked for. Do not let the order of the responses or their length decide.

[Prompt]
{prompt}

[Response A]
{left}

[Response B]
{right}

Which response is better? Answer with A or B alone."""
ENDING = "\n\nBetter response:"
"""What a model without a chat template goes on from."""


def by_turns(prompt: Prompt) -> str:
    """Return a prompt as a judge reads it: of a conversation, each message under the role of who says it."""
    if len(prompt.messages) < 2:
        return prompt.text
    return "\n\n".join(f"[{message.role.capitalize()}]\n{message.content}" for message in prompt.messages)


class JudgeOracle:
    """Preferences by a judge language model: the softmax over two answer tokens at the position after the question.

    Judges favour a position; `BothOrders` averages that out, at twice the cost.

    Parameters
    ----------
    model : transformers causal language model, or its path
        Used without gradients and without dropout; it stays on its device unless `device` is given.
    tokenizer : transformers tokenizer, optional
        The judge's; default: that at the path. It needs no padding token.
    template : str, optional
        The question, with ``{prompt}``, ``{left}`` and ``{right}`` in it; a conversation of several turns stands there turn by
        turn, as in ``[User]``, ``[Assistant]``. Default: `TEMPLATE`, without a chat template followed
        by `ENDING`.
    answers : pair of str, optional
        What says that the left, and that the right response is better; each one token where the question ends. Default:
        ``("A", "B")`` with a chat template, ``(" A", " B")`` without.
    batch_size : int
        Questions read at once.
    chat : bool, optional
        Whether the question is the message of a user in the tokenizer's chat template. Default: if there is one.
    max_length : int, optional
        A question of more tokens gets no valid verdict. Default: the context of the model.
    device : optional
        Where the model goes; default for a path: the first CUDA device if there is one.

    Attributes
    ----------
    unread : str
        Why the last question without a verdict had none; empty if there was none.

    Raises
    ------
    InputError
        If an argument is not as described; an answer that is not one token is named.

    Examples
    --------
    >>> from nlhfsim.llm.oracles import BothOrders, JudgeOracle
    >>> oracle = BothOrders(JudgeOracle("Qwen/Qwen2.5-1.5B-Instruct"))  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        template: str | None = None,
        answers: tuple[str, str] | None = None,
        batch_size: int = 16,
        chat: bool | None = None,
        max_length: int | None = None,
        device: Any = None,
    ) -> None:
        from transformers import AutoModelForCausalLM

        if template is not None:
            ensure_template("template", template, FIELDS)
        self._batch_size = ensure_integer("batch_size", batch_size, 1)
        self._model, self._tokenizer = load(AutoModelForCausalLM, model, tokenizer, device, "judge")
        if head_of(self._model) is None:
            raise InputError(f"model is a {type(self._model).__name__}, must be a causal language model, which answers in words")
        self._chat = use_chat(self._tokenizer, chat)
        self._template = template or (TEMPLATE if self._chat else TEMPLATE + ENDING)
        self._answers = self._answer_tokens(answers or (("A", "B") if self._chat else (" A", " B")))
        self._max_length = context_length(self._model, self._tokenizer, max_length)
        self._parameters = parameters(self._model)
        self.unread = ""

    def compare(self, prompts: Sequence[Prompt], left: Sequence[Response], right: Sequence[Response]) -> Verdicts:
        """Return the judge's probabilities of the first answer against the second."""
        pairs = zip(prompts, left, right)
        asked = [self._tokens(self._question(by_turns(prompt), first.text, second.text)) for prompt, first, second in pairs]
        valid = np.array([self._max_length is None or len(tokens) <= self._max_length for tokens in asked], dtype=np.bool_)
        if not valid.all():
            longest = max(map(len, asked))
            self.unread = f"a question to the judge has {longest} tokens, more than max_length = {self._max_length}"
        probabilities = np.full(len(asked), 0.5)
        probabilities[valid] = self._read([tokens for tokens, fits in zip(asked, valid) if fits])
        return Verdicts(probabilities, valid)

    def _question(self, prompt: str, left: str, right: str) -> str:
        text = self._template.format(prompt=prompt, left=left, right=right)
        if not self._chat:
            return text
        messages = [{"role": "user", "content": text}]
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _tokens(self, text: str) -> list[int]:
        if self._chat:  # the template writes the special tokens itself
            return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        tokens = list(self._tokenizer(text)["input_ids"])
        # Some tokenizers end every text, and behind the end there is no answer.
        return tokens[:-1] if tokens and tokens[-1] == self._tokenizer.eos_token_id else tokens

    def _answer_tokens(self, answers: Any) -> tuple[int, int]:
        if (
            not isinstance(answers, (tuple, list))
            or len(answers) != 2
            or not all(isinstance(one, str) and one for one in answers)
        ):
            raise InputError(f"answers = {answers!r} must be two texts, such as ('A', 'B')")
        question = self._question("prompt", "left", "right")
        before = self._tokens(question)
        first, second = (self._answer_token(f"answers[{k}]", question, before, one) for k, one in enumerate(answers))
        if first == second:
            raise InputError(f"answers = {answers!r} are the same token, must be two different ones")
        return first, second

    def _answer_token(self, name: str, question: str, before: list[int], answer: str) -> int:
        token = self._one_more(question, before, answer)
        if token is not None:
            return token
        fitting = [one for one in (answer.strip(), f" {answer.strip()}") if self._one_more(question, before, one) is not None]
        advice = f"{fitting[0]!r} is one" if fitting else "choose a shorter answer, or another end of the template"
        raise InputError(f"{name} = {answer!r} is not one token of the judge's after {question[-20:]!r}, must be one: {advice}")

    def _one_more(self, question: str, before: list[int], answer: str) -> int | None:
        """Return the token that an answer is where the question ends, None if it is none or several."""
        after = self._tokens(question + answer)
        return after[-1] if after[: len(before)] == before and len(after) == len(before) + 1 else None

    def _read(self, questions: list[list[int]]) -> Array:
        probabilities = np.empty(len(questions))
        with reading(self._model):
            for numbers in batches([len(tokens) for tokens in questions], self._batch_size):
                probabilities[numbers] = self._forward([questions[number] for number in numbers])
        return probabilities

    def _forward(self, questions: list[list[int]]) -> Array:
        """Return the probabilities of questions that are padded on the left, so that all end at the last position."""
        longest = max(map(len, questions))
        device = self._model.device
        # What stands in padding is never read, so any token will do.
        tokens = torch.tensor([[0] * (longest - len(one)) + one for one in questions], device=device)
        mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in questions], device=device)
        offered = {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0), "logits_to_keep": 1, "use_cache": False}
        taken = {name: value for name, value in offered.items() if name in self._parameters}
        logits = self._model(input_ids=tokens, attention_mask=mask, **taken).logits[:, -1, list(self._answers)]
        return np.asarray(torch.softmax(logits.double(), dim=-1)[:, 0].cpu().numpy())

    def __repr__(self) -> str:
        return f"JudgeOracle({type(self._model).__name__})"
