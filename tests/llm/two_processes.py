"""What two processes do together, beside one: run by `test_processes` under ``torch.distributed.run``, or alone.

Writes to the folder that it is given what came out, from the first process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from other_samplers import Generating
from small import cyclic_oracle, gpt2

from nlhfsim.errors import InputError, OracleError
from nlhfsim.llm import NashConfig, NashTrainer, checkpoint
from nlhfsim.llm.estimate import Labels
from nlhfsim.llm.oracles import FunctionOracle
from nlhfsim.llm.trainer import NashTrainer as Trainer

torch.set_num_threads(1)
PROMPTS = [[0], [1, 2], [2, 0, 1], [1]]


def trainer_of(out: Any = None, sampler: Any = None, **fields: Any) -> NashTrainer:
    """Four prompts, all of them in every step, in float64."""
    given: dict[str, Any] = {"max_new_tokens": 2, "stop_tokens": (), "precision": "float64", "prompts_per_step": 4, "steps": 3}
    config = NashConfig(**given | {"learning_rate": 0.01, "micro_batch_prompts": 1} | fields)
    return NashTrainer(gpt2(), None, cyclic_oracle(3, 2), PROMPTS, config, out=out, device="cpu", sampler=sampler)


def gradient(trainer: Trainer) -> list[float]:
    """The gradient over all processes."""
    weights = list(trainer.policies.masters.values())
    trainer.processes.add_up(weight.grad for weight in weights if weight.grad is not None)
    found = torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None]).tolist()
    trainer.optimizer.clear()
    return found


def given_responses(estimator: str) -> dict[str, Any]:
    """The gradient of responses and labels that are the same however many processes share them, some without a verdict."""
    trainer = trainer_of(kl_estimator=estimator, group_size=3)
    with torch.no_grad():
        torch.manual_seed(1)
        for weight in trainer.policies.masters.values():
            weight.add_(0.1 * torch.randn_like(weight))
    everything = torch.Generator().manual_seed(8)
    responses = trainer.estimator.draw(trainer.prompts, (("policy", 1.0),), 3, everything)
    upper = torch.rand((4, 3, 3), generator=everything, dtype=torch.float64).triu(1)
    lost = torch.zeros((4, 3, 3), dtype=torch.bool)
    lost[1, 0, 1] = lost[1, 1, 0] = lost[3, :, 2] = lost[3, 2, :] = True
    valid = ~lost & ~torch.eye(3, dtype=torch.bool)
    mine = trainer.processes.share(torch.arange(4).numpy())
    labels = Labels((upper - upper.mT)[mine], valid[mine], torch.ones(1).numpy(), 1, 0)
    rows = [3 * k + i for k in mine for i in range(3)]
    sums = trainer.estimator.backward(responses.rows(rows), labels, trainer.optimizer.collect)
    return {"gradient": gradient(trainer), "loss": sums.loss}


class Down:
    """A judge that the last process cannot ask any more once it has taken a step."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.oracle = trainer, trainer.estimator.oracle

    def compare(self, *pairs: Any) -> Any:
        alone = self.trainer.processes
        return refuse() if self.trainer.taken and alone.rank == alone.count - 1 else self.oracle.compare(*pairs)


def refuse() -> Any:
    raise OracleError("the judge is down")


def stopped(folder: Path, where: str) -> dict[str, Any]:
    """What all processes stop with after a step, what is saved, and the weights when the same call has gone on."""
    fields = {"group_size": 4, "evaluate_every": 1 if where == "evaluation" else None}
    trainer = trainer_of(folder, **fields)
    if where == "evaluation":
        evaluate = trainer.evaluate
        trainer.evaluate = lambda: refuse() if trainer.taken else evaluate()  # type: ignore[method-assign]
    elif where == "draw":
        estimator = trainer.estimator
        draw, last = estimator.draw, trainer.processes.rank == trainer.processes.count - 1
        estimator.draw = lambda *given: refuse() if trainer.taken and last else draw(*given)  # type: ignore[method-assign]
    else:
        trainer.estimator.oracle = Down(trainer)
    said = ""
    try:
        trainer.fit()
    except OracleError as error:
        said = str(error)
    found = {"said": trainer.processes.gather(said), "saved": [path.name for path in checkpoint.found(folder)]}
    again = trainer_of(folder, **fields)
    again.fit()
    return found | {"weights": weights_of(again)}


class Interrupting:
    """A judge at whose second step Ctrl-C comes, to each process."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.oracle = trainer, trainer.estimator.oracle

    def compare(self, *pairs: Any) -> Any:
        if self.trainer.taken == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return self.oracle.compare(*pairs)


def interrupted(folder: Path) -> list[str]:
    """What the processes stop with at Ctrl-C."""
    trainer = trainer_of(folder, group_size=4)
    trainer.estimator.oracle = Interrupting(trainer)
    try:
        trainer.fit()
    except KeyboardInterrupt as stop:
        return [str(words) for words in trainer.processes.gather(str(stop))]
    return []


def in_vain(folder: Path) -> dict[str, Any]:
    """What all processes stop with where only the last can say why its judge has no verdict, and where they are."""
    trainer = trainer_of(folder, steps=20, group_size=4)
    last = trainer.processes.rank == trainer.processes.count - 1
    trainer.estimator.oracle = FunctionOracle(lambda *pair: None) if last else Silent()
    said = ""
    try:
        trainer.fit()
    except OracleError as error:
        said = str(error)
    return {"said": trainer.processes.gather([trainer.taken, said]), "saved": [path.name for path in checkpoint.found(folder)]}


class Silent:
    """A judge without a verdict that does not say why."""

    def compare(self, prompts: Any, left: Any, right: Any) -> Any:
        return [None] * len(prompts), [False] * len(prompts)


def weights_of(trainer: Trainer) -> list[float]:
    found: list[float] = torch.cat([weight.detach().flatten() for weight in trainer.policies.masters.values()]).tolist()
    return found


def main(folder: Path) -> None:
    """Write all results."""
    found: dict[str, Any] = {name: given_responses(name) for name in ("pair", "token")}
    for method in ("nash_prox", "extragradient"):
        trainer = trainer_of(method=method, feedback="exact")
        trainer.fit()
        found[method] = weights_of(trainer)
    whole = trainer_of(folder / "whole", group_size=4)
    whole.fit()
    first = trainer_of(folder / "resumed", group_size=4)
    first.step()
    first.save()
    again = trainer_of(folder / "resumed", group_size=4)
    again.fit()
    for name, run in (("whole", whole), ("resumed", again)):
        found[name] = weights_of(run)
    for name in ("step", "draw", "evaluation"):
        found[f"down in {name}"] = stopped(folder / name, name)
    found["in vain"] = in_vain(folder / "vain")
    found["interrupted"] = interrupted(folder / "interrupted")
    found["counts"] = [whole.processes.count, whole.queries, whole.tokens, len(whole.processes.gather(0))]
    sampler = Generating(gpt2)
    by_sampler = trainer_of(sampler=sampler, method="extragradient")
    by_sampler.fit()
    draws = [[request.seed, len(request.prompts)] for request in sampler.requests]
    found["sampler"] = [by_sampler.run.steps["sampler_distance"].tolist(), by_sampler.processes.gather(draws)]
    try:
        trainer_of(prompts_per_step=1).step()
        found["few"] = "" if whole.processes.count == 1 else "nothing was refused"
    except InputError as error:
        found["few"] = str(error)
    if whole.processes.first:
        (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
