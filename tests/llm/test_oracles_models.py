"""Judges and reward models, against forward passes of one text at a time with nothing padded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
)

from nlhfsim.errors import InputError
from nlhfsim.llm.oracles import BothOrders, JudgeOracle, Message, Prompt, Response, RewardModelOracle, ask
from nlhfsim.llm.oracles.judge import ENDING, TEMPLATE

torch.set_num_threads(1)

CHAT = (
    "{% for message in messages %}<user>{{ message['content'] }}<end>{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"
)
PROMPTS = [Prompt(text, ()) for text in ("Why?", "Name a prime.", "Say it {in} braces", "?", "Why?")]
LEFT = [Response(text, ()) for text in ("Because.", "7", "{left}", "A much longer answer than the others are.", "No.")]
RIGHT = [Response(text, ()) for text in ("So.", "It is four, I think, or nine.", "ß", "", "Because.")]
SHORT = "{prompt}|{left}|{right}?"


def byte_tokenizer(*, pad: bool = False, chat: str | None = None, frame: str = "$A", **settings: Any) -> PreTrainedTokenizerFast:
    """One token a byte, but for " A" and " B"; `frame` is what special tokens stand around a text, $A."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<end>", "<user>", "<bot>", "<pad>", *alphabet, "ĠA", "ĠB"]
    tokenizer = Tokenizer(models.BPE({word: k for k, word in enumerate(words)}, [("Ġ", "A"), ("Ġ", "B")]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>", "<user>", "<bot>", "<pad>"])
    tokenizer.post_processor = processors.TemplateProcessing(single=frame, special_tokens=[("<end>", 0), ("<bot>", 2)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>" if pad else None, **settings)
    fast.chat_template = chat
    return fast


SIZE = 4 + 256 + 2
SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64)


def peaked(model: Any) -> Any:
    """Larger weights, so that outputs depend on everything that is read; dropout on, as in training."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return model.train()


def qwen(**settings: Any) -> Any:
    torch.manual_seed(0)
    config = Qwen2Config(vocab_size=SIZE, max_position_embeddings=2048, attention_dropout=0.1, **SMALL, **settings)
    return peaked(Qwen2ForCausalLM(config))


def gpt2() -> Any:
    """A model with a table of positions, which padding shifts."""
    torch.manual_seed(0)
    return peaked(GPT2LMHeadModel(GPT2Config(vocab_size=SIZE, n_positions=1024, n_embd=32, n_layer=2, n_head=4)))


def bloom() -> Any:
    """A model that takes no positions: they follow from what is masked."""
    torch.manual_seed(0)
    return peaked(BloomForCausalLM(BloomConfig(vocab_size=SIZE, hidden_size=32, n_layer=2, n_head=4)))


def token_of(tokenizer: Any, answer: str) -> int:
    [token] = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return int(token)


def judged(model: Any, tokenizer: Any, texts: list[str], answers: tuple[str, str]) -> npt.NDArray[np.float64]:
    """The probability of the first answer of the two, one question at a time, from the logits at all positions."""
    model.eval()
    first, second = (token_of(tokenizer, answer) for answer in answers)
    found = []
    for text in texts:
        tokens = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            logits = model(input_ids=tokens).logits[0, -1].double()
        found.append(1 / (1 + math.exp(logits[second] - logits[first])))
    return np.array(found)


@pytest.mark.parametrize("make", [qwen, gpt2, bloom])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_a_judge_reads_as_if_alone(make: Any, batch_size: int) -> None:
    model, tokenizer = make(), byte_tokenizer()
    oracle = JudgeOracle(model, tokenizer, batch_size=batch_size)
    verdicts = ask(oracle, PROMPTS, LEFT, RIGHT)
    assert model.training
    # Braces in the texts stay as they are.
    texts = [
        (TEMPLATE + ENDING).replace("{left}", "\0").replace("{right}", "\1").replace("{prompt}", prompt.text)
        .replace("\0", left.text).replace("\1", right.text)
        for prompt, left, right in zip(PROMPTS, LEFT, RIGHT)
    ]  # fmt: skip
    expected = judged(model, tokenizer, texts, (" A", " B"))
    assert np.ptp(expected) > 100 * 2e-5  # the texts matter, far beyond the tolerance
    np.testing.assert_allclose(verdicts.probabilities, expected, rtol=0, atol=2e-5)
    assert verdicts.valid.all()


def test_a_judge_through_a_chat_template() -> None:
    model, tokenizer = qwen(), byte_tokenizer(chat=CHAT, frame="<bot> $A")
    verdicts = ask(JudgeOracle(model, tokenizer, template=SHORT), PROMPTS, LEFT, RIGHT)
    questions = [f"<user>{p.text}|{a.text}|{b.text}?<end><bot>" for p, a, b in zip(PROMPTS, LEFT, RIGHT)]
    np.testing.assert_allclose(verdicts.probabilities, judged(model, tokenizer, questions, ("A", "B")), rtol=0, atol=2e-5)
    plain = ask(JudgeOracle(model, tokenizer, template=SHORT, chat=False), PROMPTS, LEFT, RIGHT)
    questions = [f"<bot>{p.text}|{a.text}|{b.text}?" for p, a, b in zip(PROMPTS, LEFT, RIGHT)]
    np.testing.assert_allclose(plain.probabilities, judged(model, tokenizer, questions, (" A", " B")), rtol=0, atol=2e-5)


def test_answers_say_which_is_which() -> None:
    model, tokenizer = qwen(), byte_tokenizer()
    one = ask(JudgeOracle(model, tokenizer, template=SHORT, answers=("x", "y")), PROMPTS, LEFT, RIGHT)
    other = ask(JudgeOracle(model, tokenizer, template=SHORT, answers=("y", "x")), PROMPTS, LEFT, RIGHT)
    np.testing.assert_allclose(one.probabilities + other.probabilities, 1, rtol=0, atol=1e-6)
    questions = [f"{p.text}|{a.text}|{b.text}?" for p, a, b in zip(PROMPTS, LEFT, RIGHT)]
    np.testing.assert_allclose(one.probabilities, judged(model, tokenizer, questions, ("x", "y")), rtol=0, atol=2e-5)


def test_a_judge_favours_positions_and_both_orders_do_not() -> None:
    oracle = JudgeOracle(qwen(), byte_tokenizer(), template=SHORT)
    there, back = ask(oracle, PROMPTS, LEFT, RIGHT), ask(oracle, PROMPTS, RIGHT, LEFT)
    assert np.abs(there.probabilities + back.probabilities - 1).max() > 0.05
    there, back = ask(BothOrders(oracle), PROMPTS, LEFT, RIGHT), ask(BothOrders(oracle), PROMPTS, RIGHT, LEFT)
    np.testing.assert_allclose(there.probabilities + back.probabilities, 1, rtol=0, atol=1e-5)


def test_questions_longer_than_the_context_are_not_valid() -> None:
    lengths = [len(f"{p.text}|{a.text}|{b.text}?".encode()) for p, a, b in zip(PROMPTS, LEFT, RIGHT)]
    limit = sorted(lengths)[2]
    expected = [length <= limit for length in lengths]
    assert 0 < sum(expected) < 5
    model = qwen()
    limited = JudgeOracle(model, byte_tokenizer(), template=SHORT, max_length=limit)
    verdicts = ask(limited, PROMPTS, LEFT, RIGHT)
    assert verdicts.valid.tolist() == expected
    assert limited.unread == f"a question to the judge has {max(lengths)} tokens, more than max_length = {limit}"
    whole = ask(JudgeOracle(model, byte_tokenizer(), template=SHORT), PROMPTS, LEFT, RIGHT)
    np.testing.assert_allclose(verdicts.probabilities[expected], whole.probabilities[expected], rtol=0, atol=2e-5)
    for oracle in (
        JudgeOracle(model, byte_tokenizer(model_max_length=limit), template=SHORT),
        JudgeOracle(model, byte_tokenizer(), template=SHORT, max_length=1),
    ):
        assert ask(oracle, PROMPTS, LEFT, RIGHT).valid.tolist() == (expected if oracle._max_length == limit else [False] * 5)
    with pytest.raises(InputError, match="max_length = 3000 must be at most 2048"):
        JudgeOracle(model, byte_tokenizer(), max_length=3000)


def test_an_end_that_the_tokenizer_adds_is_not_read() -> None:
    model = qwen()
    plain, ended = byte_tokenizer(), byte_tokenizer(frame="$A <end>")
    assert ended("x")["input_ids"] == [*plain("x")["input_ids"], 0]
    verdicts = [ask(JudgeOracle(model, one, template=SHORT), PROMPTS, LEFT, RIGHT) for one in (plain, ended)]
    assert verdicts[0].probabilities.tolist() == verdicts[1].probabilities.tolist()


def test_a_judge_from_a_folder(tmp_path: Path) -> None:
    model, tokenizer = qwen(), byte_tokenizer()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    one = ask(JudgeOracle(tmp_path, template=SHORT, device="cpu"), PROMPTS, LEFT, RIGHT)
    other = ask(JudgeOracle(model, tokenizer, template=SHORT), PROMPTS, LEFT, RIGHT)
    np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=0, atol=1e-6)


def test_a_judge_whose_weights_are_damaged_is_refused() -> None:
    model = qwen()
    with torch.no_grad():
        model.lm_head.weight[:] = math.nan
    with pytest.raises(InputError, match=r"JudgeOracle.compare: probabilities\[0\] = nan must lie"):
        ask(JudgeOracle(model, byte_tokenizer(), template=SHORT), PROMPTS, LEFT, RIGHT)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"template": "{prompt} {left}"}, r"template has no \{right\}, must have \{prompt\} and \{left\} and \{right\}"),
        ({"template": SHORT + "{score}"}, r"template has the field \{score\}, must have .* alone; write a brace .* twice"),
        ({"template": SHORT + "{"}, "template is no template: .*; write a brace that is no field twice"),
        ({"template": 3}, r"template = 3 must be a text with \{prompt\}"),
        (
            {"answers": ("A", "Bee")},
            r"answers\[1\] = 'Bee' is not one token of the judge's after '.*response:', must be one: choose",
        ),
        ({"answers": (" 1", " 2")}, r"answers\[0\] = ' 1' is not one token .*, must be one: '1' is one"),
        ({"answers": ("A", "A")}, r"answers = \('A', 'A'\) are the same token, must be two different ones"),
        ({"answers": ("A",)}, r"answers = \('A',\) must be two texts, such as \('A', 'B'\)"),
        ({"answers": "AB"}, "answers = 'AB' must be two texts"),
        ({"chat": True}, "chat = True needs a chat template, and the tokenizer has none"),
        ({"batch_size": 0}, "batch_size = 0 must be at least 1"),
        ({"tokenizer": None}, "tokenizer = None must be a transformers tokenizer"),
        ({"model": 3}, "model = 3 must be a transformers model or the path of one"),
    ],
)
def test_a_wrong_judge_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        JudgeOracle(**({"model": qwen(), "tokenizer": byte_tokenizer()} | settings))


def reward_model(**settings: Any) -> Any:
    torch.manual_seed(1)
    config = Qwen2Config(
        vocab_size=SIZE, max_position_embeddings=2048, attention_dropout=0.1, **({"num_labels": 1} | SMALL | settings)
    )
    return peaked(Qwen2ForSequenceClassification(config))


def rewards(model: Any, texts: list[str]) -> npt.NDArray[np.float64]:
    """The output of the model's last layer at the last token, one text at a time."""
    model.eval()
    found = []
    for text in texts:
        tokens = torch.tensor([byte_tokenizer()(text, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            found.append(model.score(model.model(input_ids=tokens).last_hidden_state[0, -1]).item())
    return np.array(found)


def texts(form: str, side: list[Response]) -> list[str]:
    return [form.replace("PROMPT", prompt.text).replace("RESPONSE", one.text) for prompt, one in zip(PROMPTS, side)]


TALK = (Message("user", "Name a prime."), Message("assistant", "user: 4"), Message("user", "Another."))
SHOWN = "[User]\nName a prime.\n\n[Assistant]\nuser: 4\n\n[User]\nAnother."


def test_a_conversation_reaches_a_judge_turn_by_turn() -> None:
    """Under who says it; a lone message is the text as it is, which says the same of any number of turns."""
    model, tokenizer = qwen(), byte_tokenizer()
    oracle = JudgeOracle(model, tokenizer, template=SHORT)
    talk, lone = Prompt("as one text", (), 0, TALK), Prompt("Why?", (), 1, (Message("user", "Why?"),))
    verdicts = ask(oracle, [talk, lone], LEFT[:2], RIGHT[:2])
    texts = [SHORT.format(prompt=shown, left=a.text, right=b.text) for shown, a, b in zip((SHOWN, "Why?"), LEFT, RIGHT)]
    np.testing.assert_allclose(verdicts.probabilities, judged(model, tokenizer, texts, (" A", " B")), rtol=0, atol=2e-5)


ROLES = "{% for message in messages %}<user>{{ message['role'] }}:{{ message['content'] }}<end>{% endfor %}"


def test_a_conversation_reaches_a_reward_model_through_its_template() -> None:
    """As messages, not as one of a user; a template that refuses a role says so."""
    model, tokenizer = reward_model(), byte_tokenizer(chat=ROLES)
    verdicts = ask(RewardModelOracle(model, tokenizer), [Prompt("as one text", (), 0, TALK)], LEFT[:1], RIGHT[:1])
    form = "<user>user:Name a prime.<end><user>assistant:user: 4<end><user>user:Another.<end><user>assistant:RESPONSE<end>"
    margin = rewards(model, texts(form, LEFT[:1])) - rewards(model, texts(form, RIGHT[:1]))
    np.testing.assert_allclose(verdicts.probabilities, 1 / (1 + np.exp(-margin)), rtol=0, atol=2e-5)
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(InputError, match="chat template refuses .*Another.*: roles must alternate; give template, or chat = Fal"):
        ask(RewardModelOracle(model, tokenizer), [Prompt("as one text", (), 0, TALK)], LEFT[:1], RIGHT[:1])


@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize(
    ("form", "chat", "settings"),
    [
        ("PROMPTRESPONSE", None, {}),
        ("PROMPT => RESPONSE.", None, {"template": "{prompt} => {response}."}),
        ("<user>PROMPT<end><user>RESPONSE<end>", CHAT, {}),
        ("PROMPTRESPONSE", CHAT, {"chat": False}),
        ("<bot>PROMPT-RESPONSE", CHAT, {"template": "{prompt}-{response}"}),
    ],
)
def test_a_reward_model_reads_as_if_alone(pad: bool, form: str, chat: str | None, settings: dict[str, Any]) -> None:
    model = reward_model()
    tokenizer = byte_tokenizer(pad=pad, chat=chat, frame="<bot> $A" if chat else "$A")
    oracle = RewardModelOracle(model, tokenizer, batch_size=4, temperature=2.0, **settings)
    verdicts = ask(oracle, PROMPTS, LEFT, RIGHT)
    assert model.training and verdicts.valid.all()
    margin = rewards(model, texts(form, LEFT)) - rewards(model, texts(form, RIGHT))
    assert np.ptp(margin) > 0.5
    np.testing.assert_allclose(verdicts.probabilities, 1 / (1 + np.exp(-margin / 2)), rtol=0, atol=2e-5)


def test_padding_is_what_the_reward_model_takes_for_it() -> None:
    model = reward_model(pad_token_id=2)  # the tokenizer pads with 3
    verdicts = ask(RewardModelOracle(model, byte_tokenizer(pad=True)), PROMPTS, LEFT, RIGHT)
    margin = rewards(model, texts("PROMPTRESPONSE", LEFT)) - rewards(model, texts("PROMPTRESPONSE", RIGHT))
    np.testing.assert_allclose(verdicts.probabilities, 1 / (1 + np.exp(-margin)), rtol=0, atol=2e-5)


def test_a_reward_model_of_pairs_of_texts() -> None:
    """A BERT sees which text is which by token types, which are padded too."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer(pad=True, model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<user> $A <end>", pair="<user> $A <end> $B:1 <end>:1", special_tokens=[("<user>", 1), ("<end>", 0)]
    )
    config = BertConfig(vocab_size=SIZE, num_labels=1, pad_token_id=3, max_position_embeddings=128, **SMALL)
    model = peaked(BertForSequenceClassification(config))
    verdicts = ask(RewardModelOracle(model, tokenizer), PROMPTS, LEFT, RIGHT)
    model.eval()

    def alone(prompt: Prompt, response: Response) -> float:
        first, second = (tokenizer(one.text, add_special_tokens=False)["input_ids"] for one in (prompt, response))
        tokens = torch.tensor([[1, *first, 0, *second, 0]])
        kinds = torch.tensor([[0] * (len(first) + 2) + [1] * (len(second) + 1)])
        with torch.no_grad():
            return float(model(input_ids=tokens, token_type_ids=kinds).logits)

    margin = np.array([alone(p, a) - alone(p, b) for p, a, b in zip(PROMPTS, LEFT, RIGHT)])
    assert np.ptp(margin) > 0.1
    np.testing.assert_allclose(verdicts.probabilities, 1 / (1 + np.exp(-margin)), rtol=0, atol=2e-5)


def test_texts_without_a_reward_are_not_valid() -> None:
    oracle = RewardModelOracle(reward_model(), byte_tokenizer(pad=True), max_length=16)
    long, short, empty = (Response(text, ()) for text in ("more than sixteen bytes", "short", ""))
    none = Prompt("", ())
    verdicts = ask(oracle, [PROMPTS[0], PROMPTS[0], none], [long, short, short], [short, short, empty])
    assert verdicts.valid.tolist() == [False, True, False] and verdicts.probabilities[1] == 0.5


def test_each_text_is_read_once() -> None:
    model, read = reward_model(), []
    model.register_forward_pre_hook(lambda module, args, kwargs: read.extend(kwargs["input_ids"].tolist()), with_kwargs=True)
    oracle = RewardModelOracle(model, byte_tokenizer(pad=True))
    ask(oracle, [PROMPTS[0]] * 6, [LEFT[0]] * 3 + [RIGHT[0]] * 3, [RIGHT[0]] * 3 + [LEFT[0]] * 3)
    assert len(read) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": reward_model(num_labels=2)}, "model has 2 labels, must have one, the reward: num_labels=1"),
        ({"template": "{prompt}"}, r"template has no \{response\}"),
        ({"template": "{prompt}{response}", "chat": True}, "give template or chat = True, not both"),
        ({"chat": True}, "chat = True needs a chat template"),
        ({"batch_size": 1.5}, "batch_size = 1.5 must be a whole number"),
        ({"temperature": -1}, "temperature = -1 must be positive"),
        ({"tokenizer": 3}, "tokenizer = 3 must be a transformers tokenizer"),
    ],
)
def test_a_wrong_reward_model_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RewardModelOracle(**({"model": reward_model(), "tokenizer": byte_tokenizer()} | settings))


def test_a_reward_that_is_no_number_is_refused() -> None:
    model = reward_model()
    with torch.no_grad():
        model.score.weight[:] = math.nan
    with pytest.raises(InputError, match="model gives the rewards .*nan.*, must be finite: its weights are damaged, or overflow"):
        ask(RewardModelOracle(model, byte_tokenizer(pad=True)), PROMPTS, LEFT, RIGHT)


class Tensors:
    """An oracle that returns a tensor as it is."""

    def __init__(self, said: torch.Tensor) -> None:
        self.said = said

    def compare(self, prompts: Any, left: Any, right: Any) -> Any:
        return self.said


def test_answers_may_be_tensors_that_numpy_can_read() -> None:
    said = ask(Tensors(torch.tensor([0.25, 0.75])), PROMPTS[:2], LEFT[:2], RIGHT[:2])
    assert said.probabilities.tolist() == [0.25, 0.75]
    for tensor in (torch.tensor([0.5, 0.5], requires_grad=True), torch.tensor([0.5, 0.5], dtype=torch.bfloat16)):
        with pytest.raises(InputError, match="Tensors.compare: probabilities must be an array of numbers: "):
            ask(Tensors(tensor), PROMPTS[:2], LEFT[:2], RIGHT[:2])


def test_a_model_of_another_kind_is_refused_when_it_is_given() -> None:
    """A reward model cannot answer, and a language model has no reward; a tokenizer may not be larger than its model."""
    with pytest.raises(InputError, match="model is a .*ForSequenceClassification, must be a causal language model"):
        JudgeOracle(reward_model(), byte_tokenizer())
    with pytest.raises(InputError, match="model is a Qwen2ForCausalLM, must be a sequence classifier with one label"):
        RewardModelOracle(qwen(), byte_tokenizer())
    small = Qwen2ForCausalLM(Qwen2Config(vocab_size=50, **SMALL))
    with pytest.raises(InputError, match="tokenizer has .* tokens and model 50: they do not belong together"):
        JudgeOracle(small, byte_tokenizer())
