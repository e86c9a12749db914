"""The commands. Each reads its input, calls the library, and hands the result to `nlhfsim.cli.output`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

import nlhfsim
from nlhfsim.cli import inputs, output
from nlhfsim.errors import NlhfsimWarning

if TYPE_CHECKING:
    from nlhfsim.games.game import PreferenceGame
    from nlhfsim.trajectory import Trajectory

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(nlhfsim.__version__, prog_name="nlhfsim")
def group() -> None:
    """Nash learning from human feedback: simulate, measure and compare.

    SOURCE is a named game or a dataset (see 'nlhfsim list games' and 'nlhfsim list datasets'), or a file: a matrix of
    preference probabilities (.csv, .npy, .json) or a log of comparisons (.csv, .jsonl, .parquet).
    """


def _game_options(command: Command) -> Command:
    """Add the options that say which game is meant."""
    for decorate in reversed(
        (
            click.argument("source", metavar="SOURCE"),
            click.option("--beta", type=float, help="Regularization, at least 0. Default: the source's own, else 0.1."),
            click.option(
                "--reference", metavar="uniform|P1,P2,…|FILE", help="Reference policy. Default: the source's own, else uniform."
            ),
            click.option(
                "--game-param", "game_params", multiple=True, metavar="K=V", help="Parameter of a named game; may be repeated."
            ),
            click.option(
                "--context", metavar="COLUMN", help="Column of a comparison log that gives each context a game of its own."
            ),
            click.option(
                "--prior", type=float, help="Beta prior of a comparison log, votes added to each side of a pair. Default: 0.5."
            ),
            click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything random."),
            click.option("--out", metavar="DIR", help="Folder for result.json, tables and figures."),
            click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else."),
        )
    ):
        command = decorate(command)
    return command


def _run_options(command: Command) -> Command:
    """Add the options that say how a method is run."""
    for decorate in reversed(
        (
            click.option("--start", default="reference", show_default=True, metavar="reference|uniform|random|P1,P2,…|FILE"),
            click.option("--runs", type=int, default=1, show_default=True, help="Number of runs."),
            click.option("--param", "params", multiple=True, metavar="K=V", help="Parameter of a method; may be repeated."),
            click.option("--feedback", type=click.Choice(["exact"]), default="exact", show_default=True),
        )
    ):
        command = decorate(command)
    return command


def _read_game(options: dict[str, Any]) -> PreferenceGame:
    names = ("game_params", "beta", "reference", "context", "prior", "seed")
    return inputs.read_source(options["source"], **{name: options[name] for name in names})


@group.command()
@_game_options
@click.option("--method", default="auto", show_default=True, metavar="auto|newton|interior-point|cvxpy")
@click.option("--diagnose", is_flag=True, help="Say too how far SOURCE is from what a reward model can express.")
def solve(**options: Any) -> None:
    """Find the equilibrium of SOURCE and certify it."""
    folder = inputs.ensure_folder(options["out"])
    game = _read_game(options)
    with output.Progress(options["as_json"]).stage("solving"):
        equilibrium = nlhfsim.solve(game, options["method"])
    if equilibrium.status == "failed":
        warnings.warn(
            f"no equilibrium was found ({equilibrium.solver_status}); the policy is not one", NlhfsimWarning, stacklevel=1
        )
    entry = output.equilibrium_entry(game, equilibrium)
    diagnosis = None
    if options["diagnose"]:
        with output.Progress(options["as_json"]).stage("diagnosing"):
            diagnosis = game.diagnose(equilibrium, rng=options["seed"])
        entry["diagnosis"] = diagnosis.to_dict()
    if folder is not None:
        output.write_json(entry, folder / "result.json")
    if options["as_json"]:
        output.emit_json(entry)
        return
    notes = output.certificate_notes(equilibrium) + output.shape_notes(game)
    if game.comparisons is not None:
        notes.append(str(game.comparisons.coverage()))
    output.table(f"Equilibrium of {options['source']}, beta = {game.beta:g}", *_policy_table(game, equilibrium.policy), notes)
    if diagnosis is not None:
        print()
        output.table("Diagnosis", ["quantity", "value"], diagnosis.rows(), diagnosis.legend())


def _context_name(name: Any) -> str:
    return name if isinstance(name, str) else ", ".join(map(str, name))


def _policy_table(game: PreferenceGame, policy: Any) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of a policy: an action a row, or a context a row for a game with contexts."""
    if game.batched:
        shown = range(min(game.n_contexts, 20))
        names = getattr(game.comparisons, "contexts", None) or [f"context {k}" for k in range(game.n_contexts)]
        rows: list[list[Any]] = [[_context_name(names[k]), *map(float, policy[k])] for k in shown]
        if game.n_contexts > len(shown):
            rows.append([f"… {game.n_contexts - len(shown)} more"] + [""] * game.n)
        return ["", *game.labels], rows
    order = sorted(range(game.n), key=lambda i: -policy[i])[:50]
    rows = [[game.labels[i], float(policy[i]), float(game.reference[i])] for i in order]
    if game.n > len(order):
        rows.append([f"… {game.n - len(order)} more", "", ""])
    return ["action", "equilibrium", "reference"], rows


@group.command()
@_game_options
@_run_options
@click.option("--dynamics", required=True, metavar="NAME", help="The method; see 'nlhfsim list dynamics'.")
@click.option("--steps", type=int, default=1000, show_default=True, help="Steps to do.")
def run(**options: Any) -> None:
    """Run one method on SOURCE."""
    folder = inputs.ensure_folder(options["out"])
    method = inputs.build_method(options["dynamics"], inputs.parameters(options["params"], "--param"))
    game = _read_game(options)
    start = inputs.read_start(options["start"], game)
    names = ("feedback", "runs", "seed")
    with output.Progress(options["as_json"]).stage("running"):
        trajectory = nlhfsim.simulate(game, method, options["steps"], start=start, **{name: options[name] for name in names})
    result = {"runs": output.run_entries(trajectory), "notes": list(trajectory.notes)}
    if folder is not None:
        output.write_json(result, folder / "result.json")
        trajectory.save(folder / "trajectory.npz")
        _figures(game, [trajectory], folder)
    if options["as_json"]:
        output.emit_json(result)
        return
    columns = ["run", "steps", "oracle calls", "KL at start", "KL", "E_beta", "E_0", "status"]
    rows = [
        [str(r), int(trajectory.steps[-1]), _calls(trajectory), *_numbers(trajectory, r), trajectory.status[r]]
        for r in range(trajectory.runs)
    ]
    parameters = output.show(trajectory.params).replace("\n", " ")
    output.table(
        f"{trajectory.dynamics}({parameters}) on {options['source']}, beta = {game.beta:g}", columns, rows, trajectory.notes
    )


def _numbers(trajectory: Trajectory, run: int) -> list[float]:
    records = (trajectory.kl[run, 0], trajectory.kl[run, -1], trajectory.exploitability[run, -1], trajectory.gap0[run, -1])
    return [float(number) for number in records]


def _calls(trajectory: Trajectory) -> float:
    return float(trajectory.oracle_calls[-1])


@group.command(short_help="Compare methods on SOURCE at equal oracle calls.")
@_game_options
@_run_options
@click.option("--dynamics", required=True, metavar="A,B,…|all", help="The methods; see 'nlhfsim list dynamics'.")
@click.option(
    "--oracle-calls", "--steps", "oracle_calls", type=int, default=2000, show_default=True, help="Budget of each method."
)
@click.option("--step-sizes", metavar="default|G1,G2,…", help="Grid of step sizes on which every method is tuned.")
@click.option("--metric", metavar="kl|exploitability|gap0", help="What tuning minimizes. Default: kl, at beta = 0 gap0.")
def compare(**options: Any) -> None:
    """Compare methods on SOURCE at equal oracle calls, each at its best step of one grid.

    A method whose step size is given with --param runs at that step, unless --step-sizes is given.
    """
    folder = inputs.ensure_folder(options["out"])
    methods = inputs.methods_with_parameters(inputs.method_names(options["dynamics"]), options["params"])
    game = _read_game(options)
    names = ("oracle_calls", "metric", "runs", "seed")
    with output.Progress(options["as_json"]).stage("comparing"):
        comparison = nlhfsim.compare(
            game,
            methods,
            step_sizes=_grid(options["step_sizes"]),
            start=inputs.read_start(options["start"], game),
            **{name: options[name] for name in names},
        )
    result = {"runs": [entry for t in comparison.trajectories for entry in output.run_entries(t)], "comparison": comparison.rows}
    if folder is not None:
        output.write_json(result, folder / "result.json")
        output.write_text(_csv(comparison.rows), folder / "comparison.csv")
        _figures(game, comparison.trajectories, folder)
    if options["as_json"]:
        output.emit_json(result)
        return
    title = f"{options['oracle_calls']} oracle calls on {options['source']}, beta = {game.beta:g}"
    output.table(title, *comparison_table(comparison.rows), comparison_notes(comparison.rows))


def comparison_table(rows: Any) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of a comparison, the best first."""
    keys = ("final_kl", "final_exploitability", "final_gap0", "calls_to_1e-3", "calls_to_1e-6", "in_proven_range")
    columns = ["method", "parameters", "KL", "E_beta", "E_0", "E_beta to 1e-3", "to 1e-6", "proven step"]
    ordered = sorted(rows, key=lambda row: (row["calls_to_1e-6"], row["final_kl"]))
    return columns, [[row["dynamics"], row["params"], *(row[key] for key in keys)] for row in ordered]


def comparison_notes(rows: Any) -> list[str]:
    """Return what the table means, and notes on methods that diverged or whose best step lies at the edge of the grid."""
    edges = [row["dynamics"] for row in rows if row["at_edge"]]
    lost = [row["dynamics"] for row in rows if row["status"] == "diverged"]
    notes = [
        "at the end: KL(π* ‖ π), exploitability E_beta, unregularized exploitability E_0; oracle calls until E_beta was below "
        "1e-3 and 1e-6; whether convergence is proven at this step size (–: at none)"
    ]
    notes += [f"diverged at every step of the grid, or at the step given: {', '.join(lost)}"] if lost else []
    return notes + ([f"best step at the edge of the grid, a wider grid may do better: {', '.join(edges)}"] if edges else [])


def _grid(text: str | None) -> Any:
    if text is None or text == "default":
        return text
    grid = inputs.parameters((f"grid={text}",), "--step-sizes")["grid"]
    if isinstance(grid, str):
        raise click.BadParameter(f"{text!r} must be 'default' or numbers separated by commas", param_hint="--step-sizes")
    return grid if isinstance(grid, list) else [grid]


def _csv(rows: Any) -> str:
    import csv
    import io

    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "params": json.dumps(row["params"])} for row in rows)
    return stream.getvalue()


def _figures(game: PreferenceGame, trajectories: Any, folder: Path) -> None:
    """Draw convergence, and the phase portrait of a game with three actions."""
    from nlhfsim import plots

    measured = ("kl", "exploitability") if game.beta > 0 else ("gap0",)
    curves = [plots.convergence(trajectories, metric=metric) for metric in measured]
    for metric, axes in zip(measured, curves):
        plots.save(axes, folder / f"convergence-{metric}.pdf")
    plots.save(curves[0], folder / "convergence.png")
    if game.n == 3 and not game.batched and all(t.log_policies is not None for t in trajectories):
        portrait = plots.phase_portrait(game, trajectories, equilibrium=nlhfsim.solve(game), field="SelfPlayPG")
        for suffix in ("pdf", "png"):
            plots.save(portrait, folder / f"phase-portrait.{suffix}")


@group.command(name="list")
@click.argument("kind", type=click.Choice(["games", "datasets", "dynamics"]))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def list_(kind: str, as_json: bool) -> None:
    """List what there is: games, datasets or dynamics."""
    rows = {"games": _game_rows, "datasets": _dataset_rows, "dynamics": _dynamics_rows}[kind]()
    if as_json:
        output.emit_json({kind: rows})
        return
    output.table(kind.capitalize(), list(rows[0]), [list(row.values()) for row in rows])


def _game_rows() -> list[dict[str, Any]]:
    import inspect

    from nlhfsim import games

    return [
        {
            "name": name,
            "parameters": ", ".join(str(p).split(":")[0] + _default(p) for p in inspect.signature(build).parameters.values()),
            "what": (inspect.getdoc(build) or "").splitlines()[0].replace("`", ""),
        }
        for name, build in games.NAMED.items()
    ]


def _default(parameter: Any) -> str:
    return "" if parameter.default is parameter.empty or parameter.default is None else f"={parameter.default}"


def _dataset_rows() -> list[dict[str, Any]]:
    from nlhfsim import datasets

    return [{"name": name, "items": len(d.items), "what": d.description} for name, d in datasets.DATASETS.items()]


def _dynamics_rows() -> list[dict[str, Any]]:
    import inspect

    from nlhfsim import dynamics

    factories = {name: dynamics.get(name) for name in dynamics.names() + dynamics.aliases()}
    return [
        {
            "name": name,
            "parameters": ", ".join(inspect.signature(factory).parameters),
            "fixed point": factory.method.fixed_point,
            "what": _what(factory),
            "source": str(getattr(factory, "source", factory.method.source)),
        }
        for name, factory in factories.items()
    ]


def _what(factory: Any) -> str:
    alias = getattr(factory, "alias", None)
    return factory.method.summary if alias is None else f"instance of {alias.instance_of}: {alias.mapping}"


@group.command(short_help="Show the whole on real preferences that cycle.")
@click.option("--out", metavar="DIR", help="Folder for the figures and tables.")
@click.option("--dataset", default="regenwetter2012", show_default=True, help="The preference data; see 'nlhfsim list datasets'.")
@click.option("--beta", type=float, default=0.02, show_default=True, help="Regularization, above 0.")
@click.option("--oracle-calls", type=int, default=2000, show_default=True, help="Budget of every method.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything random.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def demo(**options: Any) -> None:
    """Show the whole on real preferences that cycle: equilibrium, certificates, methods, figures."""
    from nlhfsim.cli.demonstration import demonstrate

    demonstrate(**options)
