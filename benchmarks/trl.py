"""Seconds a step beside TRL's online DPO with the IPO loss, the only online trainer from preferences that TRL still has.

Same model, prompts, oracle and number of tokens; two responses a prompt, as TRL has no other number.
"""

from __future__ import annotations

import importlib
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._measure import NOT_INSTALLED, PROCESSOR_NOTE, DisagreementError, Report, ensure_agreement, in_turns
from nlhfsim.errors import MissingExtraError

BETA = 0.1
PROMPTS = 8
VOCABULARY = 2000
NEW_TOKENS = 48
RATE = 1e-5
TOLERANCE = 1e-5
"""Of loss and gradient, relative to their largest entry: both sides run in float32."""
DEFAULTS, EXACT, TUNED = "TRL, its defaults", "TRL, its defaults in float32", "TRL, float32, cache on, no logging"
OURS = {"nlhfsim, Online IPO": "online_ipo", "nlhfsim, Nash Prox": "nash_prox"}
_FLOAT32 = {"bf16": False}
_TUNED = {**_FLOAT32, "logging_strategy": "no", "gradient_checkpointing": False}


def run(*, quick: bool, out: Path) -> Report:
    """Compare loss and gradient on the same responses, then time whole steps in turns.

    Raises
    ------
    DisagreementError
        If loss or gradient differ, or a trainer makes another number of tokens.
    """
    repeats, steps, tokens = (1, 2, 8) if quick else (4, 6, NEW_TOKENS)
    report = Report(
        "trl",
        f"A step of {2 * PROMPTS} responses of {tokens} tokens, beside TRL",
        {
            "contestant": "trainer",
            "s_min": "s a step",
            "s_median": "median",
            "tokens_per_second": "tokens/s",
            "ratio": "times nlhfsim's Online IPO",
            "error": "gradient off by",
            "note": "note",
        },
        settings={"beta": BETA, "prompts": PROMPTS, "repeats": repeats, "steps": steps, "new_tokens": tokens},
    )
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    try:
        for name in ("nlhfsim.llm", "trl.experimental.online_dpo", "datasets"):
            importlib.import_module(name)
    except (ImportError, MissingExtraError) as error:
        missing = "nlhfsim.llm" if isinstance(error, MissingExtraError) else "TRL"
        report.rows.append({"contestant": missing, "note": NOT_INSTALLED})
        return report
    import torch

    torch.set_num_threads(1)
    off = gradient_error(tokens)
    calls: dict[str, Callable[[], list[float]]] = {
        DEFAULTS: partial(by_trl, steps, tokens),
        EXACT: partial(by_trl, steps, tokens, **_FLOAT32),
        TUNED: partial(by_trl, steps, tokens, **_TUNED),
        **{name: partial(by_nlhfsim, method, steps, tokens) for name, method in OURS.items()},
    }
    found: dict[str, list[list[float]]] = {name: [] for name in calls}
    turns = in_turns({name: partial(_kept, found[name], call) for name, call in calls.items()}, repeats)
    best = {name: min(statistics.median(one) for one in found[name]) for name in turns}
    ours = next(iter(OURS))
    for name, seconds in best.items():
        middle = statistics.median(sum(found[name], []))
        row: dict[str, Any] = {"contestant": name, "s_min": seconds, "s_median": middle, "seconds": found[name]}
        row |= {"tokens_per_second": 2 * PROMPTS * tokens / seconds, "ratio": seconds / best[ours]}
        report.rows.append(row | ({"error": off} if name == TUNED else {}))
    report.aim("TRL at its defaults over Online IPO, at least 4", best[DEFAULTS] / best[ours], 4.0, at_least=True)
    report.aim("TRL with its cache over Online IPO, at least 1.1", best[TUNED] / best[ours], 1.1, at_least=True)
    report.notes = [
        f"{sum(weight.numel() for weight in model().parameters()):,} weights, vocabulary of {VOCABULARY:,}, float32; {PROMPTS} "
        "prompts of 6 to 12 tokens; one vote a pair on rock, paper and scissors",
        "every response has its full length; TRL's IPO loss and gradient are 4/β times ours, checked on responses that it drew",
        "TRL's defaults are bfloat16 by autocast and computing activations again, which turns the cache of generation off",
        f"s a step: median of {steps} steps, best of {repeats} turns",
        PROCESSOR_NOTE,
    ]
    return report


def _kept(seconds: list[list[float]], call: Callable[[], list[float]]) -> None:
    seconds.append(call())


def model() -> Any:
    """Return the model; a fresh one, always the same."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        pad_token_id=0,
    )
    return Qwen2ForCausalLM(config)


def tokenizer() -> Any:
    """Return a tokenizer of made-up words; its end of sequence is a token that the model does not have, so nothing ends early."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, **{f"w{k}": k for k in range(1, VOCABULARY)}, "<end>": VOCABULARY}
    made = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=made, pad_token="<pad>", eos_token="<end>")


def prompts() -> list[str]:
    """Return the prompts, of different lengths."""
    rng = np.random.default_rng(0)
    return [" ".join(f"w{k}" for k in rng.integers(1, VOCABULARY, length)) for length in np.linspace(6, 12, PROMPTS).astype(int)]


def oracle() -> Any:
    """Return rock, paper, scissors by the first token of a response."""
    from nlhfsim.llm.oracles import rock_paper_scissors

    return rock_paper_scissors(lambda response: response.tokens[0] % 3)


def by_nlhfsim(method: str, steps: int, tokens: int) -> list[float]:
    """Return processor seconds of each step of ours, without the first."""
    trainer = our_trainer(method, steps, tokens)
    seconds = []
    for _ in range(steps + 1):
        before = time.process_time()
        record = trainer.step()
        seconds.append(time.process_time() - before)
        _ensure_work("nlhfsim", record["length"], tokens, record["loss"])
    return seconds[1:]


def our_trainer(method: str, steps: int, tokens: int) -> Any:
    """Return a trainer of ours."""
    from nlhfsim.llm import NashConfig, NashTrainer

    config = NashConfig(
        method=method,
        beta=BETA,
        group_size=2,
        prompts_per_step=PROMPTS,
        max_new_tokens=tokens,
        stop_tokens=(),
        learning_rate=RATE,
        steps=steps + 1,
    )
    return NashTrainer(model(), tokenizer(), oracle(), prompts(), config)


def by_trl(steps: int, tokens: int, **settings: Any) -> list[float]:
    """Return processor seconds of each step of TRL's, without the first."""
    watch = _Watch()
    trained(model(), watch, steps + 1, tokens, **settings)
    for length, loss in zip(watch.lengths, watch.losses, strict=True):
        _ensure_work("TRL", length, tokens, loss)
    return watch.seconds[1:]


def _ensure_work(name: str, length: float, tokens: int, loss: float) -> None:
    if length != tokens or not np.isfinite(loss):
        raise DisagreementError(f"{name} made {length} tokens a response instead of {tokens}, or its loss {loss} is not finite")


class _Watch:
    """What TRL does: the responses and votes of every step, losses and seconds, and the gradient of the last one."""

    def __init__(self) -> None:
        from nlhfsim.llm.interop import trl_reward_function

        self._reward = trl_reward_function(oracle(), tokenizer=tokenizer())
        self._begin = 0.0
        self.lengths: list[float] = []
        self.losses: list[float] = []
        self.seconds: list[float] = []
        self.gradient: dict[str, Any] = {}
        self.prompts: list[str] = []
        self.tokens: list[list[int]] = []
        self.votes: list[float] = []

    def reward(self, prompts: Any, completions: Any, completion_ids: Any, **columns: Any) -> list[float]:
        """Ask the oracle, and remember."""
        votes = self._reward(prompts=prompts, completions=completions, completion_ids=completion_ids, **columns)
        self.prompts, self.tokens, self.votes = list(prompts), [list(row) for row in completion_ids], votes
        self.lengths.append(sum(map(len, self.tokens)) / len(self.tokens))
        return votes

    def around(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Return TRL's step that remembers its loss."""

        def watched(*arguments: Any, **named: Any) -> Any:
            loss = step(*arguments, **named)
            self.losses.append(float(loss))
            return loss

        return watched

    def callback(self) -> Any:
        """Return the callback that takes the time, from the beginning of a step to behind the optimizer."""
        from transformers import TrainerCallback

        watch = self

        class Timer(TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
                watch._begin = time.process_time()

            def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **named: Any) -> None:
                if state.global_step == 0:
                    watch.gradient = {name: weight.grad.clone() for name, weight in model.named_parameters()}

            def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
                watch.seconds.append(time.process_time() - watch._begin)

        return Timer()


def trained(policy: Any, watch: _Watch, steps: int, tokens: int, reference: Any = None, **settings: Any) -> None:
    """Train a policy by TRL."""
    from datasets import Dataset
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = OnlineDPOConfig(
            output_dir=folder,
            loss_type="ipo",
            beta=[BETA],
            max_new_tokens=tokens,
            per_device_train_batch_size=PROMPTS,
            learning_rate=RATE,
            max_steps=steps,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            **settings,
        )
        trainer = OnlineDPOTrainer(
            model=policy,
            ref_model=reference,
            reward_funcs=watch.reward,
            args=config,
            train_dataset=Dataset.from_dict({"prompt": prompts() * steps}),
            processing_class=tokenizer(),
            callbacks=[watch.callback()],
        )
        trainer.training_step = watch.around(trainer.training_step)
        trainer.train()


def gradient_error(tokens: int) -> float:
    """Return how far ours is from TRL's gradient on the responses and votes of its first step, away from the reference.

    Raises
    ------
    DisagreementError
        If the loss or the gradient is not β/4 times TRL's.
    """
    import torch

    moved = model()
    with torch.no_grad():
        for weight in moved.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    watch, ours = _Watch(), our_trainer("online_ipo", 1, tokens)
    ours.policies.model.load_state_dict(moved.state_dict())
    trained(moved, watch, 1, tokens, model(), temperature=1.0, max_grad_norm=0.0, **_TUNED)
    loss = ours.estimator.backward(*_as_ours(ours, watch)).loss
    ensure_agreement("TRL's loss", [BETA / 4 * watch.losses[0] / loss], [1.0], TOLERANCE)
    own = {name: weight.grad for name, weight in ours.policies.parameters.items()}
    largest = max(float(values.abs().max()) for values in own.values())
    return max(
        ensure_agreement(f"TRL's gradient of {name}", BETA / 4 * watch.gradient[name] / largest, own[name] / largest, TOLERANCE)
        for name in own
    )


def _as_ours(trainer: Any, watch: _Watch) -> tuple[Any, Any]:
    """Return TRL's responses and votes as ours, the two responses to a prompt next to each other."""
    import torch

    from nlhfsim.llm.estimate import Labels
    from nlhfsim.llm.logprobs import Responses
    from nlhfsim.llm.sampling import pad_left

    half = len(watch.tokens) // 2
    order = [row for k in range(half) for row in (k, half + k)]
    tokens, mask = pad_left([trainer.tokenizer(watch.prompts[row])["input_ids"] for row in order], "cpu")
    drawn = torch.tensor([watch.tokens[row] for row in order])
    there = torch.ones_like(drawn, dtype=torch.bool)
    responses = Responses(tokens, mask, drawn, there, torch.zeros(len(order), dtype=torch.bool))
    # A tie goes to the first, in TRL.
    first = torch.tensor([0.5 if watch.votes[k] >= watch.votes[half + k] else -0.5 for k in range(half)])
    centred = torch.zeros(half, 2, 2)
    centred[:, 0, 1], centred[:, 1, 0] = first, -first
    valid = ~torch.eye(2, dtype=torch.bool).expand(half, 2, 2)
    return responses, Labels(centred, valid, np.array([]), half, 0)
