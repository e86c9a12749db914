"""What a run is begun and resumed with: the content of its checkpoints, and the files that say what it is and what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nlhfsim import provenance
from nlhfsim.files import jsonable, write_whole
from nlhfsim.llm import checkpoint
from nlhfsim.llm.config import NashConfig
from nlhfsim.llm.prompts import PromptStream

if TYPE_CHECKING:
    from nlhfsim.llm.trainer import NashTrainer


def checkpoint_of(trainer: NashTrainer) -> checkpoint.Checkpoint:
    """Return everything that the next step depends on; all processes take part."""
    estimator, gather = trainer.estimator, trainer.processes.gather
    state = {
        "step": trainer.taken,
        "queries": trainer.queries,
        "tokens": trainer.tokens,
        "seconds": trainer.seconds,
        "position": trainer.stream.position,
        "voters": gather(estimator.voter.bit_generator.state),
        "generators": gather(estimator.generator.get_state().numpy().tobytes().hex()),
        "config": settings(trainer.config),
        "fixed": trainer.config.fixed,
        "digests": _digests(trainer) | _measured_by(trainer),
    }
    return checkpoint.Checkpoint(trainer.policies.masters, trainer.policies.shadow, trainer.optimizer.inner.state_dict(), state)


def go_back(trainer: NashTrainer, folder: Path) -> None:
    """Bring a trainer to a checkpoint.

    Raises
    ------
    InputError
        If it is of another configuration, model or set of prompts.
    DataError
        If it is not whole.
    """
    found, policies, estimator = checkpoint.load(folder), trainer.policies, trainer.estimator
    here = settings(trainer.config) | {"processes": trainer.processes.count}
    checkpoint.ensure_same(folder, found.state, here, _digests(trainer))
    checkpoint.warn_of_change(folder, found.state, _measured_by(trainer))
    checkpoint.ensure_fits(policies.masters, found.policy, folder)
    checkpoint.ensure_fits(policies.shadow, found.target, folder)
    checkpoint.copy_to(policies.masters, found.policy)
    checkpoint.copy_to(policies.shadow, found.target)
    policies.publish()
    policies.publish_target()
    trainer.optimizer.inner.load_state_dict(found.optimizer)
    trainer.torn = False
    trainer.in_vain = 0
    rank = trainer.processes.rank
    words = bytearray.fromhex(found.state["generators"][rank])
    estimator.generator.set_state(torch.frombuffer(words, dtype=torch.uint8))
    estimator.voter.bit_generator.state = found.state["voters"][rank]
    trainer.taken, trainer.queries, trainer.tokens = (int(found.state[name]) for name in ("step", "queries", "tokens"))
    trainer.spent = float(found.state["seconds"])
    trainer.stream = PromptStream(len(trainer.prompts), trainer.config.seed, position=int(found.state["position"]))


def settings(config: NashConfig) -> dict[str, Any]:
    """Return a configuration with the parameters of its method, as JSON has it."""
    found: dict[str, Any] = json.loads(json.dumps(config.to_dict() | config.parameters))
    return found


def _digests(trainer: NashTrainer) -> dict[str, str]:
    """Return what a run that goes on must have in common with the one before, beside its configuration."""
    prompts = checkpoint.digest([prompt.tokens for prompt in trainer.prompts])
    return {"model": trainer.policies.fingerprint(), "set of prompts": prompts}


def _measured_by(trainer: NashTrainer) -> dict[str, str]:
    """Return what its curves depend on, and may change for a reason, as where a judge has moved."""
    tables = trainer.recipe.get("oracle") if isinstance(trainer.recipe, dict) else None
    held_out = [prompt.tokens for prompt in trainer.held_out]
    return {"oracle of the recipe": checkpoint.digest(tables), "held-out prompts": checkpoint.digest(held_out)}


def write_description(trainer: NashTrainer, folder: Path, described: Mapping[str, Any]) -> None:
    """Write ``config.json`` and ``provenance.json``."""
    text = json.dumps(described, indent=1, ensure_ascii=False) + "\n"
    write_whole(folder / "config.json", text.encode("utf-8"))
    count = trainer.processes.count
    more = [name for name, used in (("peft", trainer.config.lora_rank is not None), ("accelerate", count > 1)) if used]
    provenance.write(folder, trainer.command, "torch", "transformers", *more, processes=count)


def write_result(trainer: NashTrainer, folder: Path, status: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``result.json``: what was spent, and the last evaluation among the records."""
    evaluations = [row for row in rows if row["kind"] == "evaluation"]
    result = {
        "method": trainer.config.method,
        "beta": trainer.config.beta,
        "steps": trainer.taken,
        "status": status,
        "seconds": trainer.seconds,
        "queries": trainer.queries,
        "tokens": trainer.tokens,
        "final": jsonable(evaluations[-1]) if evaluations else None,
    }
    write_whole(folder / "result.json", (json.dumps(result, indent=1) + "\n").encode("utf-8"))
