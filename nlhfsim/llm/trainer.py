"""The trainer: steps, evaluations and checkpoints of one configuration."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from nlhfsim.errors import InputError, ensure_choice, ensure_flag, ensure_integer
from nlhfsim.files import ensure_folder, ensure_path
from nlhfsim.llm import checkpoint
from nlhfsim.llm.config import NashConfig
from nlhfsim.llm.estimate import Estimator
from nlhfsim.llm.evaluation import evaluate
from nlhfsim.llm.exact import ExactGame
from nlhfsim.llm.interrupts import Interrupts, only_one
from nlhfsim.llm.memory import advice_on
from nlhfsim.llm.model import decoder, ensure_causal, ensure_model, ensure_tokenizer, stop_tokens_of, vocabulary_size
from nlhfsim.llm.optimizer import Optimizer
from nlhfsim.llm.oracles import PreferenceOracle, Response
from nlhfsim.llm.parts import OWNERS, encoded, ensure_callbacks, ensure_tokens, policies_of, warn_if_taken
from nlhfsim.llm.processes import Processes
from nlhfsim.llm.prompts import PromptStream
from nlhfsim.llm.record import MetricsWriter, TrainingRun
from nlhfsim.llm.resumption import checkpoint_of, go_back, settings, write_description, write_result
from nlhfsim.llm.samplers import Sampler
from nlhfsim.llm.samplers._spec import ensure_sampler, ensure_single
from nlhfsim.llm.steps import take_step
from nlhfsim.training_run import read_lines


class NashTrainer:
    """Trains a language model towards the Nash equilibrium of the preference game that an oracle defines.

    Parameters
    ----------
    model : transformers.PreTrainedModel or path
        A causal language model; it is trained in place, and a frozen copy of it is the reference.
    tokenizer : transformers tokenizer, path, or None
        None: prompts are lists of token numbers, and an oracle sees numbers for texts. A padding token is not needed.
    oracle : PreferenceOracle
        Who compares two responses, see `nlhfsim.llm.oracles`.
    prompts : list, path or dataset
        Texts, conversations or lists of token numbers, or a ``.jsonl``, ``.parquet`` or ``.csv`` file, or a dataset of the
        library ``datasets``, with a column ``prompt``; see `nlhfsim.llm.prompts.read_prompts`.
    config : NashConfig
        Everything else.
    held_out : list, path or dataset, optional
        Prompts for evaluations; None: the first of `prompts`, as many as a step takes.
    out : path, optional
        Folder for metrics, checkpoints and the model; None: nothing is written.
    callbacks : iterable
        Objects with ``on_step(metrics)``, ``on_evaluation(metrics)``, ``on_begin(run)`` or ``on_end(status)``, all optional:
        `nlhfsim.llm.trackers` are some, and say what a run is. Of several processes the first calls them.
    device : str or torch.device, optional
        Default: a GPU if there is one. Started by ``accelerate launch`` or ``torchrun``, each process takes its own, and its
        share of a step's prompts.
    sampler : Sampler, optional
        Who draws the responses, see `nlhfsim.llm.samplers`; None: the trainer does. Each process needs one of its own.

    Raises
    ------
    InputError
        If something is not as described.

    Examples
    --------
    >>> from transformers import Qwen2Config, Qwen2ForCausalLM
    >>> from nlhfsim.llm import NashConfig, NashTrainer, oracles
    >>> shape = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, intermediate_size=16)
    >>> model = Qwen2ForCausalLM(Qwen2Config(vocab_size=3, **shape))
    >>> oracle = oracles.MatrixOracle([[0.5, 0.9, 0.4], [0.1, 0.5, 0.7], [0.6, 0.3, 0.5]], [(0,), (1,), (2,)])
    >>> config = NashConfig(beta=0.1, max_new_tokens=1, stop_tokens=(), feedback="exact", learning_rate=0.01, steps=40)
    >>> run = NashTrainer(model, None, oracle, [[0], [1]], config).fit()
    >>> bool(run.evaluations["exploitability"][-1] < 0.1 * run.evaluations["exploitability"][0])
    True
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        oracle: PreferenceOracle,
        prompts: Any,
        config: NashConfig,
        *,
        held_out: Any = None,
        out: Any = None,
        callbacks: Iterable[Any] = (),
        device: Any = None,
        sampler: Sampler | None = None,
        recipe: Any = None,
        command: str | None = None,
    ) -> None:
        if not isinstance(config, NashConfig):
            raise InputError(f"config = {config!r} must be a NashConfig")
        if isinstance(oracle, type) or not callable(getattr(oracle, "compare", None)):
            raise InputError(f"oracle is of type {type(oracle).__name__}, must have a method compare(prompts, left, right)")
        self.config, self.callbacks, self.recipe, self.command = config, ensure_callbacks(callbacks), recipe, command
        self.tokenizer = ensure_tokenizer(tokenizer)
        if sampler is not None:
            ensure_sampler(sampler)
            ensure_single(config)
        model = ensure_model(model)
        self.prompts = encoded(prompts, "prompts", model, self.tokenizer, config)
        self.held_out = self.prompts[: config.prompts_per_step]
        if held_out is not None:
            self.held_out = encoded(held_out, "held_out", model, self.tokenizer, config)
        ensure_tokens(model, config)
        warn_if_taken(model)
        self.processes = Processes(device)
        with advice_on("loading"):
            ensure_causal(model.eval())
            self.policies = policies_of(model, config, self.processes.device)
        stop = stop_tokens_of(model, self.tokenizer, config.stop_tokens)
        self.estimator = Estimator(self.policies, oracle, config, decoder(self.tokenizer), stop, self.processes, sampler)
        self.optimizer = Optimizer(self.policies, config, self.processes)
        self.stream = PromptStream(len(self.prompts), config.seed)
        self.taken, self.queries, self.tokens = 0, 0, 0
        self.in_vain = 0  # steps in a row without a verdict, since this trainer began or went back
        self.torn = False  # whether a step was broken off while it changed the weights, or is not recorded: it must not be saved
        enumerated = config.exact_check or config.feedback == "exact"
        self.exact = ExactGame(self.estimator, self.prompts, vocabulary_size(model)) if enumerated else None
        self.out = None if out is None else ensure_folder("out", out)
        self.spent = 0.0
        self._begin: float | None = None
        self._rows: list[dict[str, Any]] = []
        self._writer: MetricsWriter | None = None
        OWNERS[model] = weakref.ref(self)

    def step(self) -> dict[str, Any]:
        """Do one step and return its metrics.

        A step that fails leaves weights, generators and the position in the data as they were before.
        """
        return take_step(self)

    def sample(self, prompts: Any = None, n: int = 1, *, view: str = "policy", seed: int = 0) -> list[list[Response]]:
        """Return what a policy says: its own distribution, restricted and tempered as in training.

        Parameters
        ----------
        prompts : list or path, optional
            As in the constructor; None: the held-out ones.
        n : int
            Responses to each.
        view : str
            ``"policy"``, ``"reference"`` or ``"target"``.
        seed : int
            Of the draws; the generators of training are left alone.

        Returns
        -------
        list of list of Response
            A list for each prompt, with texts and token numbers.

        Raises
        ------
        InputError
            If there is no such view, or a prompt is none.
        """
        ensure_choice("view", view, self.policies.names)
        asked = (
            self.held_out if prompts is None else encoded(prompts, "prompts", self.policies.model, self.tokenizer, self.config)
        )
        generator = torch.Generator(device=self.policies.device).manual_seed(ensure_integer("seed", seed))
        count = ensure_integer("n", n, 1)
        found = self.estimator.texts(self.estimator.draw(asked, ((view, 1.0),), count, generator))
        return [found[k : k + count] for k in range(0, len(found), count)]

    def evaluate(self) -> dict[str, Any]:
        """Return the measures of the policy on the held-out prompts, and of the exact check if there is one."""
        found: dict[str, Any] = {"kind": "evaluation", "step": self.taken} | evaluate(self.estimator, self.held_out, self.taken)
        return found | (self.exact.report() if self.exact is not None else {})

    def fit(self, resume: bool = True) -> TrainingRun:
        """Train until `config.steps` steps are done.

        Parameters
        ----------
        resume : bool
            Whether to go on from the newest checkpoint in `out`, if there is one.

        Returns
        -------
        TrainingRun
            The metrics.

        Raises
        ------
        InputError
            If `out` has a run already and `resume` is False, or its checkpoint is of another configuration, model or
            prompts, or a run is writing to it at this moment.
        OracleError
            If a judge that is served cannot be asked any more, or no pair of 10 steps in a row had a verdict; everything is
            saved, and the same call goes on from there. Of several processes all stop at the same step.
        KeyboardInterrupt
            After Ctrl-C, when the step or evaluation under way is finished and everything is saved, which is told on standard
            error; again for at once.
        """
        with only_one(self.out if self.processes.first else None):
            self._train(ensure_flag("resume", resume))
        return self.run

    def _train(self, resume: bool) -> None:
        self._open(resume)
        self._call("on_begin", {"out": None if self.out is None else str(self.out), "step": self.taken} | self._described())
        self._begin = time.perf_counter()
        try:
            with Interrupts(self._at_interrupt()) as interrupts:
                self._evaluate_if_due()
                while self.taken < self.config.steps and not self.processes.any(interrupts.asked):
                    self._record(self.step(), "on_step")
                    self._evaluate_if_due()
                    if self.out is not None and self._due(self.config.checkpoint_every) and self.taken < self.config.steps:
                        self.save()
        except BaseException as error:
            where = self._stop("interrupted", alone=error is not self.processes.failure)
            if where:
                error.add_note(f"nlhfsim: {self._stopped(where)}")
            raise
        if self.taken < self.config.steps:
            raise KeyboardInterrupt(self._stopped(self._stop("interrupted")))
        self._stop("done")

    @property
    def run(self) -> TrainingRun:
        """The metrics so far."""
        described = self._described()
        status = "done" if self.taken >= self.config.steps else "unfinished"
        return TrainingRun.of_records(self._rows, described["training"], status, path=self.out, recipe=self.recipe)

    def save_model(self, folder: Any) -> Path:
        """Save the policy and its tokenizer where transformers loads them from."""
        path = ensure_folder("folder", folder)
        self.policies.save(path)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(path)
        return path

    def save(self) -> Path:
        """Write a checkpoint to `out`, whole or not at all.

        Raises
        ------
        InputError
            If there is no `out`.
        """
        if self.out is None:
            raise InputError("out must be given to save a checkpoint")
        found, path = checkpoint_of(self), self.out
        if self.processes.first:
            path = checkpoint.save(self.out, found, self.config.keep_checkpoints)
        return Path(self.processes.gather(str(path))[0])  # no process goes on before it is there

    def load(self, path: Any) -> None:
        """Go back to a checkpoint; the next step has the bits that it had then.

        Raises
        ------
        InputError
            If it is of another configuration, model or set of prompts, or `path` is none.
        DataError
            If it is not whole.
        """
        go_back(self, ensure_path("path", path))

    def _due(self, every: int | None) -> bool:
        return every is not None and self.taken % every == 0

    def _evaluate_if_due(self) -> None:
        """Evaluate at the start, when it is time, and at the end; not twice, as where a run goes on."""
        due = self.taken in (0, self.config.steps) or self._due(self.config.evaluate_every)
        if not due:
            return
        with self.processes.together():
            known = any(row["kind"] == "evaluation" and row["step"] == self.taken for row in self._rows)
            found = self.evaluate() if self.processes.first and not known else None
        if found is not None:
            self._record(found, "on_evaluation")

    def _record(self, metrics: dict[str, Any], event: str) -> None:
        if self._writer is not None:
            self.torn = metrics["kind"] == "step"
            self._writer.write(metrics)
            self.torn = False
        self._rows.append(metrics)
        self._call(event, metrics)

    def _call(self, event: str, what: Any) -> None:
        what = dict(what) if isinstance(what, dict) else what  # a callback may do with it what it likes
        for callback in self.callbacks if self.processes.first else ():
            if hasattr(callback, event):
                getattr(callback, event)(what)

    def _open(self, resume: bool) -> None:
        """Go on from the newest checkpoint, or begin the folder."""
        if self.out is None:
            return
        metrics = self.out / "metrics.jsonl"
        # What the first process sees is what counts: others look at another moment.
        there, begun = self.processes.gather((checkpoint.found(self.out), metrics.exists()))[0]
        if (there or begun) and not resume:
            raise InputError(f"out {str(self.out)!r} has a run already: resume it (resume = True), or choose another folder")
        if there:
            self.load(there[-1])
        if not self.processes.first:
            return
        self._writer = MetricsWriter(metrics)
        self._writer.truncate_after(self.taken if there else -1)
        self._rows = [record for _, record in read_lines(self._writer.path)]
        write_description(self, self.out, self._described())

    def _described(self) -> dict[str, Any]:
        return {"training": settings(self.config), "recipe": self.recipe}

    @property
    def seconds(self) -> float:
        """How long `fit` has run, that of the runs before this one went on included; 0 before."""
        return self.spent + (0.0 if self._begin is None else time.perf_counter() - self._begin)

    def _stop(self, status: str, alone: bool = False) -> str:
        """Save what there is, tell the callbacks, and return where it is, for a message of the first process.

        A process that fails `alone` must not wait for the others.
        """
        where = self._keep(status, alone)
        self._call("on_end", status)
        return where

    def _at_interrupt(self) -> str | None:
        saving = "" if self.out is None else " and saving"
        words = f"nlhfsim: finishing the step or evaluation under way{saving}; again to stop at once"
        return words if self.processes.first else None

    def _stopped(self, where: str) -> str:
        return f"stopped after step {self.taken} of {self.config.steps}{where}"

    def _keep(self, status: str, alone: bool) -> str:
        self.spent, self._begin = self.seconds, None
        if self.out is None:
            return ""
        whole = not (self.torn or (alone and self.processes.count > 1))
        if whole:
            self.save()
        if not self.processes.first:
            return ""
        write_result(self, self.out, status, self._rows)
        if status == "done":
            self.save_model(self.out / "model")
        return f"; saved in {str(self.out)!r}, the same call goes on from there" if whole else ""
