"""Training language models on the command line: what is going on, what came of it, how to go on."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from nlhfsim.cli import inputs, output
from nlhfsim.errors import NlhfsimWarning, OracleError, SamplerError
from nlhfsim.tables import show
from nlhfsim.training_run import TrainingRun, load_run

_SEEN = {"win_rate_reference": "win rate", "kl_reference": "KL", "exploitability": "E_beta"}
"""What the line shows of the last evaluation, and in words as short as a terminal is narrow."""


def train_model(
    config: str,
    out: str | None,
    resume: bool,
    seed: int | None,
    steps: int | None,
    settings: tuple[str, ...],
    device: str,
    track: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train a model, and say what came of it."""
    from nlhfsim.llm import NashTrainer, read_recipe, trackers

    given = {"seed": seed, "steps": steps}
    overrides = inputs.parameters(settings, "--set") | {key: value for key, value in given.items() if value is not None}
    recipe = read_recipe(config, overrides)
    tracked = trackers.make([*recipe.trackers, *track])
    folder = inputs.ensure_folder(out)
    if folder is None:
        warnings.warn("without --out nothing is kept, neither the model nor the metrics", NlhfsimWarning, stacklevel=1)
    first = output.speaks()
    progress = output.Progress(quiet=as_json or not first)
    with progress.stage("loading"):
        _silence()
        parts = recipe.build(device)
    try:
        with progress.line("beginning …") as say:
            line = Line(recipe.config.steps, say)
            more = {"out": folder, "callbacks": [line, *tracked], "recipe": recipe.tables, "command": output.command()}
            run = NashTrainer(**parts, **more).fit(resume=resume)
    except KeyboardInterrupt as stop:
        if first:
            for words in [f"nlhfsim: {stop}"] if stop.args else getattr(stop, "__notes__", []):
                click.echo(words, err=True)
        raise
    except (OracleError, SamplerError) as stop:
        if folder is None or not first:
            raise
        raise type(stop)(f"{stop}; the same command goes on from what is saved in {str(folder)!r}") from None
    if not first:
        return
    if folder is not None:
        _draw(run, folder)
    if as_json:
        output.emit_json(entry(run))
        return
    _tell(run, recipe.title, last=20)
    if folder is not None:
        print(f"\nThe model is in {folder / 'model'}, the curves in {folder / 'training.pdf'}")


def _silence() -> None:
    """Keep the bars of transformers, one for each file, out of ours."""
    from transformers.utils import logging

    disable: Any = logging.disable_progress_bar
    disable()


def _draw(run: TrainingRun, folder: Path) -> None:
    from nlhfsim import plots

    figure = plots.training(run)
    for suffix in ("pdf", "svg"):
        plots.save(figure, folder / f"training.{suffix}")


def show_run(folder: str, last: int, as_json: bool) -> None:
    """Show how far a run is."""
    run = load_run(folder)
    if as_json:
        records = [_record(zip(run.evaluations, row)) for row in zip(*run.evaluations.values())]
        output.emit_json(entry(run) | {"evaluations": records[-last:]})
    else:
        _tell(run, str((run.recipe or {}).get("title", "")), last)


def entry(run: TrainingRun) -> dict[str, Any]:
    """Return a run with the fields that others rely on."""
    spent = {name: int(values[-1]) for name in ("queries", "tokens") if len(values := _known(run, name))}
    return {
        "path": None if run.path is None else str(run.path),
        "method": run.config.get("method"),
        "beta": run.config.get("beta"),
        "seed": run.config.get("seed"),
        "steps": run.last_step,
        "status": run.status,
        "queries": spent.get("queries", 0),
        "tokens": spent.get("tokens", 0),
        "final": _record(run.final.items()),
    }


def _record(numbers: Iterable[tuple[str, float]]) -> dict[str, float]:
    return {name: int(value) if name == "step" else float(value) for name, value in numbers}


def _known(run: TrainingRun, name: str) -> Any:
    values = run.steps.get(name, np.array([]))
    return values[~np.isnan(values)]


def _tell(run: TrainingRun, title: str, last: int) -> None:
    columns, rows, notes = run.table(last)
    config = run.config
    words = (
        f"{config.get('method')}, beta = {show(config.get('beta'))}, step {run.last_step} of {config.get('steps')}, {run.status}"
    )
    for name in ("generation", "training"):
        speeds = _known(run, f"{name}_tokens_per_second")[-100:]
        notes += [f"{name}: {show(float(np.median(speeds)))} tokens a second"] if len(speeds) else []
    lost = _known(run, "invalid")[-100:]
    notes += [f"{lost.mean():.1%} of the last verdicts were not valid"] if len(lost) and lost.any() else []
    output.table(f"{title}: {words}" if title else words, columns or ["step"], rows, notes or ["there was no evaluation yet"])


class Line:
    """Says in one line how far a training run is: a callback of the trainer.

    Parameters
    ----------
    steps : int
        Of the whole run.
    say : callable
        Is given the line.
    clock : callable
        Seconds.
    """

    def __init__(self, steps: int, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._steps, self._say, self._clock = steps, say, clock
        self._seen: list[str] = []
        self._begin, self._done = clock(), 0

    def on_evaluation(self, metrics: Mapping[str, Any]) -> None:
        """Keep what was measured for the next lines."""
        found = {name: metrics.get(name) for name in _SEEN}
        self._seen = [f"{_SEEN[name]} {value:.3g}" for name, value in found.items() if value is not None]

    def on_step(self, metrics: Mapping[str, Any]) -> None:
        """Say where the run is."""
        self._done += 1
        left = (self._clock() - self._begin) / self._done * (self._steps - metrics["step"])
        speed = metrics.get("generation_tokens_per_second")
        parts = [f"step {metrics['step']} of {self._steps}", *self._seen]
        parts += [f"{speed:.0f} tokens/s"] if speed is not None and math.isfinite(speed) else []
        self._say(", ".join([*parts, f"{duration(left)} left"]))


def duration(seconds: float) -> str:
    """Return a time in words, as exact as one wants it."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
