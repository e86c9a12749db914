"""The work of one step, and both trainers at it: the same model, prompts, oracle and number of tokens, ours and TRL's."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks._measure import DisagreementError

BETA = 0.1
RATE = 1e-5


def small_model() -> Any:
    """Return a model of 1.3 million weights; a fresh one, always the same."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=2000,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        pad_token_id=0,
    )
    return Qwen2ForCausalLM(config)


@dataclass(frozen=True)
class Work:
    """A step of two responses to each of some prompts.

    Attributes
    ----------
    model : callable
        Makes the model, always the same.
    vocabulary : int
        Its tokens.
    prompts, at_once : int
        Prompts of a step, and those that TRL takes at a time, whose gradients it adds up.
    prompt_tokens : tuple of int
        Length of the shortest prompt and of the longest.
    new_tokens : int
        Length of every response.
    on_gpu : bool
        Where both work.
    clock : callable
        Seconds.
    ours : dict
        More fields of our configuration.
    """

    model: Callable[[], Any] = small_model
    vocabulary: int = 2000
    prompts: int = 8
    at_once: int = 8
    prompt_tokens: tuple[int, int] = (6, 12)
    new_tokens: int = 48
    on_gpu: bool = False
    clock: Callable[[], float] = time.process_time
    ours: dict[str, Any] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Tokens that a step makes."""
        return 2 * self.prompts * self.new_tokens

    def tokenizer(self) -> Any:
        """Return a tokenizer of made-up words; its end of sequence is no token of the model, so nothing ends early."""
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        words = {"<pad>": 0, **{f"w{k}": k for k in range(1, self.vocabulary)}, "<end>": self.vocabulary}
        made = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        fast: Any = PreTrainedTokenizerFast
        return fast(tokenizer_object=made, pad_token="<pad>", eos_token="<end>")

    def texts(self) -> list[str]:
        """Return the prompts."""
        rng = np.random.default_rng(0)
        lengths = np.linspace(*self.prompt_tokens, self.prompts).astype(int)
        return [" ".join(f"w{k}" for k in rng.integers(1, self.vocabulary, length)) for length in lengths]

    def ensure_done(self, name: str, length: float, loss: float) -> None:
        """Refuse a step that made other responses, or has no finite loss.

        Raises
        ------
        DisagreementError
            If it is one.
        """
        if length != self.new_tokens or not np.isfinite(loss):
            raise DisagreementError(
                f"{name} made {length} tokens a response instead of {self.new_tokens}, or its loss {loss} is not finite"
            )


def oracle() -> Any:
    """Return rock, paper, scissors by the first token of a response."""
    from nlhfsim.llm.oracles import rock_paper_scissors

    return rock_paper_scissors(lambda response: response.tokens[0] % 3)


def by_nlhfsim(work: Work, method: str, steps: int) -> list[float]:
    """Return the seconds of each step of ours, without the first."""
    trainer = our_trainer(work, method, steps)
    seconds = []
    for _ in range(steps + 1):
        before = work.clock()
        record = trainer.step()
        seconds.append(work.clock() - before)
        work.ensure_done("nlhfsim", record["length"], record["loss"])
    return seconds[1:]


def our_trainer(work: Work, method: str, steps: int) -> Any:
    """Return a trainer of ours."""
    from nlhfsim.llm import NashConfig, NashTrainer

    given: dict[str, Any] = dict(
        method=method,
        beta=BETA,
        group_size=2,
        prompts_per_step=work.prompts,
        max_new_tokens=work.new_tokens,
        stop_tokens=(),
        learning_rate=RATE,
        steps=steps + 1,
    )
    config, device = NashConfig(**(given | work.ours)), "cuda" if work.on_gpu else "cpu"
    return NashTrainer(work.model(), work.tokenizer(), oracle(), work.texts(), config, device=device)


def by_trl(work: Work, steps: int, **settings: Any) -> list[float]:
    """Return the seconds of each step of TRL's, without the first."""
    watch = Watch(work)
    trained(work, work.model(), watch, steps + 1, **settings)
    for length, loss in zip(watch.lengths, watch.losses, strict=True):
        work.ensure_done("TRL", length, loss)
    if len(watch.losses) * work.at_once != (steps + 1) * work.prompts:
        raise DisagreementError(f"TRL took {len(watch.losses) * work.at_once} prompts in {steps + 1} steps of {work.prompts}")
    return watch.seconds[1:]


class Watch:
    """What TRL does: the responses and votes of every part of a step, losses, seconds, and if wanted the first gradient."""

    def __init__(self, work: Work, keep_gradient: bool = False) -> None:
        from nlhfsim.llm.interop import trl_reward_function

        self.clock, self.keep_gradient = work.clock, keep_gradient
        self._reward = trl_reward_function(oracle(), tokenizer=work.tokenizer())
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
                watch._begin = watch.clock()

            def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **named: Any) -> None:
                if watch.keep_gradient and state.global_step == 0:
                    watch.gradient = {name: weight.grad.clone() for name, weight in model.named_parameters()}

            def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
                watch.seconds.append(watch.clock() - watch._begin)

        return Timer()


def trained(work: Work, policy: Any, watch: Watch, steps: int, reference: Any = None, **settings: Any) -> None:
    """Train a policy by TRL."""
    from datasets import Dataset
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = OnlineDPOConfig(
            output_dir=folder,
            loss_type="ipo",
            beta=[BETA],
            max_new_tokens=work.new_tokens,
            per_device_train_batch_size=work.at_once,
            gradient_accumulation_steps=work.prompts // work.at_once,
            learning_rate=RATE,
            max_steps=steps,
            use_cpu=not work.on_gpu,
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
            train_dataset=Dataset.from_dict({"prompt": work.texts() * steps}),
            processing_class=work.tokenizer(),
            callbacks=[watch.callback()],
        )
        trainer.training_step = watch.around(trainer.training_step)
        with contextlib.redirect_stdout(sys.stderr):  # where results go, it would print its own
            trainer.train()
