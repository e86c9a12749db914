"""Draw the figures of the pages: ``python -m docs.draw`` writes them to ``docs/figures``."""

from __future__ import annotations

import contextlib
import doctest
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import nlhfsim as nl
from nlhfsim.plots.style import DOUBLE, finish, save, style
from nlhfsim.stability import self_play_spectrum

Floats = npt.NDArray[np.float64]
PAGES = Path(__file__).parent
FOLDER = PAGES / "figures"
COLOURS = ("#000000", "#D55E00", "#0072B2", "#CC79A7")
STARTS = np.array([[0.98, 0.01, 0.01], [0.01, 0.98, 0.01], [0.01, 0.01, 0.98], [0.5, 0.45, 0.05]])
"""Policies near the three vertices, and one on an edge."""
BETA, STEPS = 0.05, 16_000


def game() -> nl.PreferenceGame:
    """A cycle whose three margins differ, so that the equilibrium is uneven: (0.30, 0.25, 0.45)."""
    return nl.PreferenceGame([[0.5, 1.0, 0.2], [0.0, 0.5, 0.8], [0.8, 0.2, 0.5]], BETA)


def descent_step(one: nl.PreferenceGame) -> float:
    """γ₀ = β/(½ + β√(1 + L₀))², L₀ = 1/(2β) + log(1/min ρ)."""
    bound = 1 / (2 * one.beta) + float(np.log(1 / one.reference.min()))
    return float(one.beta / (0.5 + one.beta * np.sqrt(1 + bound)) ** 2)


def levels(log_policies: Floats, log_target: Floats) -> Floats:
    """ℓ = log(Φ̄/n) along trajectories, ``(..., n)`` to ``(...)``."""
    w = log_policies - log_target
    w = w - w.mean(axis=-1, keepdims=True)
    return np.asarray(np.log1p((np.expm1(-w) + w).mean(axis=-1)))


def proven(log_policies: Floats, log_target: Floats, step_size: float, beta: float) -> Floats:
    """ℓ₀ times the product of the proven factors 1 - 2cγβ n min π*/(E R), E and R read off the run, ``(records, n)``."""
    share = 1 - (np.e - 2) * step_size / descent_step(game())
    shrink = np.exp(log_target - log_policies)
    n = log_target.size
    taken = 2 * share * step_size * beta * n * np.exp(log_target.min()) / (shrink.max(-1) * shrink.sum(-1))
    product = np.concatenate([[1.0], np.cumprod(1 - taken[:-1])])
    return np.asarray(levels(log_policies[:1], log_target)[0] * product)


def run(one: nl.PreferenceGame, step_size: float, steps: int) -> Any:
    """Exact runs from the four starts."""
    return nl.simulate(one, nl.dynamics.SelfPlayPG(step_size), steps, start=STARTS, runs=len(STARTS), record_every=1)


def draw_bound(axes: Any, one: nl.PreferenceGame, target: Floats, step_size: float) -> None:
    """ℓ from the four starts, and what is proven of it."""
    found = run(one, step_size, STEPS)
    for k, colour in enumerate(COLOURS):
        axes.semilogy(found.steps, levels(found.log_policies[k], target), color=colour)
        axes.semilogy(found.steps, proven(found.log_policies[k], target, step_size, BETA), color=colour, dashes=(4, 2.5), lw=0.8)
    axes.set(
        xlabel="Steps  $t$",
        ylabel=r"$\ell_t=\log(\bar\Phi_t/n)$",
        ylim=(1e-12, 10),
        title=r"(a) $\gamma=\gamma_0$; dashed: proven",
    )


def draw_kl(axes: Any, one: nl.PreferenceGame, target: Floats, step_size: float) -> None:
    """KL(π*‖π) rises along a run on which ℓ only falls."""
    found = run(one, step_size, 1600)
    axes.plot(found.steps, found.kl[1], color=COLOURS[2], label=r"$\mathrm{KL}(\pi^*\,\Vert\,\pi_t)$")
    axes.plot(found.steps, levels(found.log_policies[1], target), color=COLOURS[0], label=r"$\ell_t$")
    axes.set(xlabel="Steps  $t$", ylim=(0, None), title=r"(b) $\gamma=\gamma_1$")
    axes.legend(loc="upper right")


def draw_flow(axes: Any, one: nl.PreferenceGame, target: Floats, steps: dict[str, float]) -> None:
    """The flow and runs at several step sizes, against time."""
    horizon = 1200.0
    flow = nl.flow(one, "SelfPlayPG", horizon, start=STARTS[1])
    axes.semilogy(flow.times, levels(flow.log_policies[0], target), color="0.7", lw=3, label="flow")
    for (label, step_size), colour in zip(steps.items(), COLOURS):
        found = run(one, step_size, int(horizon / step_size))
        axes.semilogy(step_size * found.steps, levels(found.log_policies[1], target), color=colour, lw=1, label=label)
    axes.set(xlabel=r"Time  $\gamma t$", ylim=(1e-12, 10), title="(c) steps beside the flow")
    axes.legend(loc="lower left")


def convergence_of_self_play_pg() -> Any:
    """The figure of `self-play-pg-converges`."""
    from matplotlib.figure import Figure

    one = game()
    found = nl.solve(one)
    target = found.log_policy
    first, critical = descent_step(one), self_play_spectrum(one, found).critical_step
    second = min(4 * BETA, 1 / BETA)
    with style():
        figure = Figure(figsize=(DOUBLE, 2.5), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        draw_bound(left, one, target, first)
        draw_kl(middle, one, target, second)
        draw_flow(right, one, target, {r"$\gamma_0$": first, r"$\gamma_1$": second, r"$1.05\,\gamma_c$": 1.05 * critical})
        for axes in (left, middle, right):
            finish(axes)
    return figure


def draw_pages() -> None:
    """Run the examples of every page that shows figures, and keep the figures that they save."""
    for page in sorted(PAGES.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if "plots.save(" in text:
            with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
                globs: dict[str, Any] = {}
                for example in doctest.DocTestParser().get_examples(text):
                    if example.exc_msg is None:
                        exec(compile(example.source, page.name, "exec"), globs)
                for figure in Path(folder).glob("*.svg"):
                    shutil.copy(figure, FOLDER)


def draw_page(page: Path) -> None:
    """Execute the examples of a page, and write the axes that it draws to the picture that comes next."""
    names: dict[str, Any] = {}
    for part in re.split(r"(!\[.*?\]\(.*?\))", page.read_text(encoding="utf-8")):
        picture = re.fullmatch(r"!\[.*?\]\((.*?)\)", part)
        if picture:
            save(names["axes"], page.parent / picture[1])
        for example in doctest.DocTestParser().get_examples(part):
            exec(compile(example.source, page.name, "single"), names)


def main() -> None:
    """Write every figure."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nl.errors.ProvenRangeWarning)  # steps above γ₁ are the point
        save(convergence_of_self_play_pg(), FOLDER / "self-play-pg-converges.svg")
        draw_pages()
        draw_page(FOLDER.parent / "how-to" / "figures.md")


if __name__ == "__main__":
    main()
