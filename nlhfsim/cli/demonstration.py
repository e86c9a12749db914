"""The main job on embedded real preference data, from the votes to the figures."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import nlhfsim
from nlhfsim import claims, datasets, dynamics, games
from nlhfsim.cli import inputs, output
from nlhfsim.errors import InputError, NlhfsimWarning
from nlhfsim.tables import comparison_notes, comparison_table

if TYPE_CHECKING:
    from nlhfsim.compare import Comparison
    from nlhfsim.equilibrium import Equilibrium
    from nlhfsim.games.game import PreferenceGame
    from nlhfsim.verify import VerificationReport

_CASES = 12
"""Random policies and step sizes on which each claim is checked."""


def demonstrate(out: str | None, dataset: str, beta: float, oracle_calls: int, seed: int, as_json: bool) -> int:
    """Solve the game of a dataset twice, run every method against it, check the claims on it, draw; return the exit code."""
    folder = inputs.ensure_folder(out)
    if beta == 0:
        raise InputError("--beta = 0 must be above 0 for demo: its methods learn the regularized equilibrium")
    game = datasets.load(dataset, beta=beta)
    progress = output.Progress(quiet=as_json)
    with progress.stage("solving the game by Newton's method and by cvxpy"):
        equilibrium, reference = nlhfsim.solve(game), nlhfsim.solve(game, "cvxpy")
    names = inputs.method_names("all")
    with progress.stage(f"running {len(names)} methods on a grid of step sizes"):
        tuned = nlhfsim.compare(game, names, oracle_calls=oracle_calls, seed=seed, equilibrium=equilibrium, step_sizes="default")
        proven = _at_proven_steps(game, names, oracle_calls, seed, equilibrium)
    with progress.stage("checking the claims on this game"):
        checked = nlhfsim.verify(_quick_claims(), _CASES, seed, game=game)
    result = _result(dataset, game, equilibrium, reference, tuned, proven) | {"claims": checked.to_dict()}
    if folder is not None:
        with progress.stage("drawing"):
            _draw(game, equilibrium, tuned, proven, folder)
        output.write_result(result, folder)
    violated = any(verdict.verdict == "violated" for verdict in checked.verdicts)
    if as_json:
        output.emit_json(result)
        return int(violated)
    _tell(dataset, game, equilibrium, reference, tuned, proven)
    _tell_claims(checked)
    if folder is not None:
        print(f"\nFigures and result.json are in {folder}/")
    return int(violated)


def _quick_claims() -> list[str]:
    """Return the claims that can be checked on a given game in a moment."""
    found = map(claims.get, claims.names())
    return [claim.id for claim in found if claim.cases is None and claim.cost != "costly" and claim.status != "conjecture"]


def _tell_claims(checked: VerificationReport) -> None:
    """Say how many claims hold on the game, and how tight the bounds are on it."""
    identities = [verdict for verdict in checked.verdicts if verdict.claim.status == "identity"]
    bounds = [verdict for verdict in checked.verdicts if verdict.claim.status == "theorem" and verdict.n_games]
    print()
    columns = ["theorem", "verdict", "worst ratio", "median"]
    rows = [[v.claim.id, v.verdict, v.worst_ratio, v.median_ratio] for v in bounds]
    violated = [verdict.claim.id for verdict in checked.verdicts if verdict.verdict == "violated"]
    holding = sum(verdict.verdict == "holds" for verdict in identities)
    notes = [
        "measured over bound (lower bounds: bound over measured), at most 1",
        f"{holding} of {len(identities)} identities hold to rounding, the optimality condition of every method's step among them",
    ]
    notes += [f"violated: {', '.join(violated)}"] if violated else []
    output.table(f"The theory on this game, {checked.n_games} random policies and step sizes", columns, rows, notes)


def _at_proven_steps(game: PreferenceGame, names: list[str], budget: int, seed: int, equilibrium: Equilibrium) -> Comparison:
    """Run the methods that have a proven rate on this game at the largest step that has it."""
    instances = [dynamics.build(name).resolve(game.contexts) for name in names]
    with_rate = [d for d in instances if _has_rate(game, d)]
    return nlhfsim.compare(game, with_rate, oracle_calls=budget, seed=seed, equilibrium=equilibrium)


def _has_rate(game: PreferenceGame, instance: dynamics.Dynamics) -> bool:
    proven = instance.method.proven(game.contexts[0], instance.params, instance.step_size)
    return proven is not None and proven.factor is not None


def _distance(equilibrium: Equilibrium, reference: Equilibrium) -> float:
    """Return the largest difference of a probability between two equilibria."""
    return float(np.abs(equilibrium.policy - reference.policy).max())


def _result(
    dataset: str, game: PreferenceGame, equilibrium: Equilibrium, reference: Equilibrium, tuned: Comparison, proven: Comparison
) -> dict[str, Any]:
    return {
        "dataset": dataset,
        **output.equilibrium_entry(game, equilibrium),
        "cvxpy_distance": _distance(equilibrium, reference),
        "cvxpy_status": reference.status,
        "runs": [entry for trajectory in tuned.trajectories for entry in output.run_entries(trajectory)],
        "comparison": tuned.rows,
        "proven": proven.rows,
    }


def _tell(
    dataset: str, game: PreferenceGame, equilibrium: Equilibrium, reference: Equilibrium, tuned: Comparison, proven: Comparison
) -> None:
    data = datasets.DATASETS[dataset]
    print(f"{data.description}\n")
    winner = nlhfsim.solve(game.with_beta(0))
    rows = [
        [label, float(equilibrium.policy[i]), float(reference.policy[i]), float(winner.policy[i])]
        for i, label in enumerate(game.labels)
    ]
    notes = output.shape_notes(game) + output.certificate_notes(equilibrium)
    notes.append(f"cvxpy ({reference.solver_status}) differs by at most {_distance(equilibrium, reference):.1e} in a probability")
    columns = ["action", "equilibrium", "by cvxpy", "von Neumann winner (beta = 0)"]
    output.table(f"Equilibrium, beta = {game.beta:g}", columns, rows, notes)
    print()
    title = f"{tuned.rows[0]['oracle_calls']} oracle calls, each method at its best step of one grid"
    output.table(title, *comparison_table(tuned.rows), comparison_notes(tuned.rows))
    print()
    columns = ["method", "step size", "proven factor of KL a step", "fitted factor", "calls to 1e-6"]
    lines = [
        [row["dynamics"], next(iter(row["params"].values())), row["proven_factor"], row["fitted_factor"], row["calls_to_1e-6"]]
        for row in proven.rows
    ]
    output.table("At the largest step with a proven rate", columns, lines)


def _draw(game: PreferenceGame, equilibrium: Equilibrium, tuned: Comparison, proven: Comparison, folder: Path) -> None:
    from nlhfsim import plots

    figures = {
        "convergence-best-step": plots.convergence(tuned.trajectories),
        "convergence-proven-step": plots.convergence(proven.trajectories),
        "preferences": plots.preferences(game, order=equilibrium),
    }
    cycle = games.strongest_cycle(game)
    if cycle is not None:
        figures["phase-portrait"] = _portrait(game.restrict(cycle))
    for name, axes in figures.items():
        for suffix in ("pdf", "png"):
            plots.save(axes, folder / f"{name}.{suffix}")


def _portrait(triple: PreferenceGame) -> Any:
    """Draw self-play policy gradient above its stability limit, and the proximal cures, on the strongest cycle of the data."""
    from nlhfsim import plots

    methods = [dynamics.SelfPlayPG(10.0), dynamics.NashProx(10.0, proximal_step=5.0, averaging=0.1), dynamics.NashMirrorProx(2.0)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NlhfsimWarning)
        runs = [nlhfsim.simulate(triple, m, 400, start=[0.8, 0.1, 0.1], record_every=1) for m in methods]
    return plots.phase_portrait(triple, runs, equilibrium=nlhfsim.solve(triple), field="SelfPlayPG")
