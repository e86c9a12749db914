"""The commands. Each reads its input, calls the library, and hands the result to `nlhfsim.cli.output`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

import nlhfsim
from nlhfsim.cli import inputs, listing, output
from nlhfsim.errors import NlhfsimWarning
from nlhfsim.tables import comparison_notes, comparison_table, show

if TYPE_CHECKING:
    from nlhfsim.games.game import PreferenceGame
    from nlhfsim.trajectory import Trajectory

Command = TypeVar("Command", bound=Callable[..., Any])


class _Group(click.Group):
    """Remembers what was typed, for what is written about a result."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[output.ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
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
            click.option(
                "--start",
                default="reference",
                show_default=True,
                metavar="reference|uniform|random|P1,P2,…|FILE",
                help="Where runs start. trajectory.npz of a run: go on from there, as if it had never stopped.",
            ),
            click.option("--runs", type=int, default=1, show_default=True, help="Number of runs."),
            click.option("--param", "params", multiple=True, metavar="K=V", help="Parameter of a method; may be repeated."),
            click.option(
                "--feedback",
                type=click.Choice(["exact", "sampled"]),
                help="What steps see: payoffs, or votes on sampled pairs. Default: exact; sampled if votes are spoken of.",
            ),
            click.option("--batch-size", type=int, help="Votes an oracle call. Default: 1."),
            click.option("--probabilities", is_flag=True, help="See the probability of a sampled pair, not a vote on it."),
        )
    ):
        command = decorate(command)
    return command


def _feedback(options: dict[str, Any], queries: int | None = None) -> Any:
    """Return the feedback that the options ask for."""
    asked = options["batch_size"] is not None or options["probabilities"] or queries is not None
    kind = options["feedback"] or ("sampled" if asked else "exact")
    if kind == "exact":
        if asked:
            raise click.UsageError("--batch-size, --probabilities and --queries are for --feedback sampled")
        return "exact"
    batch = 1 if options["batch_size"] is None else options["batch_size"]
    return nlhfsim.Sampled(batch_size=batch, votes=not options["probabilities"])


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
        output.write_result(entry, folder)
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
@click.option("--average", metavar="policies|parameters", help="Measure the average iterate, not the last.")
def run(**options: Any) -> None:
    """Run one method on SOURCE."""
    folder = inputs.ensure_folder(options["out"])
    method = inputs.build_method(options["dynamics"], inputs.parameters(options["params"], "--param"))
    game = _read_game(options)
    start = inputs.read_start(options["start"], game)
    names = ("runs", "seed", "average")
    given = {name: options[name] for name in names} | {"feedback": _feedback(options), "start": start}
    with output.Progress(options["as_json"]).stage("running"):
        trajectory = nlhfsim.simulate(game, method, options["steps"], **given)
    result = {"runs": output.run_entries(trajectory), "notes": list(trajectory.notes)}
    if folder is not None:
        output.write_result(result, folder)
        trajectory.save(folder / "trajectory.npz")
        _figures(game, [trajectory], folder)
    if options["as_json"]:
        output.emit_json(result)
        return
    columns = ["run", "steps", "oracle calls", "votes", "KL at start", "KL", "E_beta", "E_0", "status"]
    spent = [int(trajectory.steps[-1]), _calls(trajectory), int(trajectory.queries[-1])]
    rows = [[str(r), *spent, *_numbers(trajectory, r), trajectory.status[r]] for r in range(trajectory.runs)]
    parameters = show(trajectory.params).replace("\n", " ")
    output.table(
        f"{trajectory.dynamics}({parameters}) on {options['source']}, beta = {game.beta:g}", columns, rows, trajectory.notes
    )


def _numbers(trajectory: Trajectory, run: int) -> list[float]:
    records = (trajectory.kl[run, 0], trajectory.kl[run, -1], trajectory.exploitability[run, -1], trajectory.gap0[run, -1])
    return [float(number) for number in records]


def _calls(trajectory: Trajectory) -> float:
    return float(trajectory.oracle_calls[-1])


@group.command(short_help="Compare methods on SOURCE at equal oracle calls or votes.")
@_game_options
@_run_options
@click.option("--dynamics", required=True, metavar="A,B,…|all", help="The methods; see 'nlhfsim list dynamics'.")
@click.option(
    "--oracle-calls", "--steps", "oracle_calls", type=int, help="Budget of each method. Default: 2000, unless --queries is given."
)
@click.option("--queries", type=int, help="Budget of each method in votes.")
@click.option("--step-sizes", metavar="default|G1,G2,…", help="Grid of step sizes on which every method is tuned.")
@click.option("--metric", metavar="kl|exploitability|gap0", help="What tuning minimizes. Default: kl, at beta = 0 gap0.")
def compare(**options: Any) -> None:
    """Compare methods on SOURCE at equal oracle calls, or equal votes, each at its best step of one grid.

    A method whose step size is given with --param runs at that step, unless --step-sizes is given.
    """
    folder = inputs.ensure_folder(options["out"])
    feedback = _feedback(options, options["queries"])
    chosen = inputs.method_names(options["dynamics"], sampled=feedback != "exact")
    methods = inputs.methods_with_parameters(chosen, options["params"])
    game = _read_game(options)
    names = ("oracle_calls", "queries", "metric", "runs", "seed")
    with output.Progress(options["as_json"]).stage("comparing"):
        comparison = nlhfsim.compare(
            game,
            methods,
            feedback=feedback,
            step_sizes=_grid(options["step_sizes"]),
            start=inputs.read_start(options["start"], game),
            **{name: options[name] for name in names},
        )
    result = {"runs": [entry for t in comparison.trajectories for entry in output.run_entries(t)], "comparison": comparison.rows}
    if folder is not None:
        output.write_result(result, folder)
        output.write_text(_csv(comparison.rows), folder / "comparison.csv")
        _figures(game, comparison.trajectories, folder)
    if options["as_json"]:
        output.emit_json(result)
        return
    budget = (
        f"{options['queries']} votes" if options["queries"] is not None else f"{options['oracle_calls'] or 2000} oracle calls"
    )
    title = f"{budget} on {options['source']}, beta = {game.beta:g}"
    output.table(title, *comparison_table(comparison.rows), comparison_notes(comparison.rows))


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
    clock = "queries" if any(t.queries.any() for t in trajectories) else "oracle_calls"
    curves = [plots.convergence(trajectories, metric=metric, clock=clock) for metric in measured]
    for metric, axes in zip(measured, curves):
        plots.save(axes, folder / f"convergence-{metric}.pdf")
    plots.save(curves[0], folder / "convergence.png")
    if game.n == 3 and not game.batched and all(t.log_policies is not None for t in trajectories):
        portrait = plots.phase_portrait(game, trajectories, equilibrium=nlhfsim.solve(game), field="SelfPlayPG")
        for suffix in ("pdf", "png"):
            plots.save(portrait, folder / f"phase-portrait.{suffix}")


@group.command(short_help="Learning from votes: the paper's experiment.")
@click.option("--dynamics", metavar="A,B,…", help="The methods. Default: the eight of the paper's comparison.")
@click.option("--beta", type=float, default=0.005, show_default=True, help="Regularization of the games, above 0.")
@click.option("--queries", type=int, default=500_000, show_default=True, help="Votes of each method in each run.")
@click.option("--batch-size", type=int, default=100, show_default=True, help="Votes an oracle call.")
@click.option("--step-sizes", metavar="G1,G2,…", help="Grid of step sizes. Default: 0.01 to 100, three a decade.")
@click.option("--runs", type=int, default=32, show_default=True, help="Number of runs.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything random.")
@click.option("--out", metavar="DIR", help="Folder for result.json, the table and the figure.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def experiment(**options: Any) -> None:
    """Let methods learn from equally many votes on four games, each at its own best step of one grid.

    The games: real choices that cycle, a cyclic tournament of 21 actions, a low-rank game, a random game. Takes some minutes.
    """
    from nlhfsim.experiment import METHODS, STEP_SIZES

    folder = inputs.ensure_folder(options["out"])
    methods = METHODS if options["dynamics"] is None else inputs.method_names(options["dynamics"])
    steps = _grid(options["step_sizes"])
    with output.Progress(options["as_json"]).stage("learning from votes"):
        found = nlhfsim.experiment(
            None,
            methods,
            beta=options["beta"],
            queries=options["queries"],
            feedback=nlhfsim.Sampled(batch_size=options["batch_size"]),
            step_sizes=STEP_SIZES if steps is None or isinstance(steps, str) else steps,
            runs=options["runs"],
            seed=options["seed"],
        )
    result = {
        "queries": found.queries,
        "feedback": found.feedback.to_dict(),
        "critical_steps": found.critical_steps,
        "comparison": found.rows,
    }
    if folder is not None:
        from nlhfsim import plots

        output.write_result(result, folder)
        output.write_text(_csv(found.rows), folder / "comparison.csv")
        figure = found.plot()
        for suffix in ("pdf", "png"):
            plots.save(figure, folder / f"experiment.{suffix}")
    if options["as_json"]:
        output.emit_json(result)
        return
    for name, comparison in found.comparisons.items():
        critical = f"exact SelfPlayPG is unstable at constant steps above {found.critical_steps[name]:.3g}"
        title = f"{found.queries} votes, {found.feedback.batch_size} an oracle call: {name}, beta = {options['beta']:g}"
        output.table(title, *comparison_table(comparison.rows), [*comparison_notes(comparison.rows), critical])


@group.command(short_help="Check the theory on many games.")
@click.argument("names", metavar="[CLAIM …]", nargs=-1)
@click.option("--mutants", is_flag=True, help="Show what each mutant is rejected by, wrong steps of the methods included.")
@click.option("--deep", is_flag=True, help="Check on 5,000 games; takes half an hour.")
@click.option("--games", type=int, help="Games for cheap claims; costly ones are checked on fewer. Default: 200.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the games.")
@click.option("--workers", type=int, help="Processes. Default: all processors where the work is worth it.")
@click.option("--replay", metavar="FILE", help="Judge a saved witness again, and nothing else.")
@click.option("--out", metavar="DIR", help="Folder for result.json and the witnesses.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def verify(**options: Any) -> int:
    """Check claims on many games, and that the checks can fail: each CLAIM, or all; see 'nlhfsim list claims'.

    Exit code 1: an identity, theorem, asymptotic statement or counterexample is violated, or a mutant survived.
    """
    from nlhfsim.cli.verification import verify_claims

    return verify_claims(**options)


@group.command(short_help="Do all runs that a configuration describes.")
@click.argument("config", metavar="CONFIG.toml")
@click.option("--out", required=True, metavar="DIR", help="Folder for the tables; a sweep that stopped there goes on.")
@click.option("--workers", type=int, help="Processes. Default: one a processor.")
@click.option("--dask", metavar="ADDRESS", help="Run on the Dask cluster of this scheduler instead, such as tcp://host:8786.")
@click.option("--resume/--no-resume", default=True, show_default=True, help="Go on with a sweep in DIR, or refuse to.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def sweep(**options: Any) -> None:
    """Do all runs that CONFIG.toml describes: grids and random designs over games, methods, feedback, starts and seeds.

    Every finished run is kept at once. A sweep that was interrupted or killed goes on when the same command is given again, and
    ends with the same table.
    """
    from nlhfsim.cli.sweeping import do_sweep

    do_sweep(**options)


@group.command(short_help="Make an HTML page of a folder of results.")
@click.argument("folder", metavar="DIR")
@click.option("--out", metavar="FILE", help="The page. Default: report.html in DIR.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def report(folder: str, out: str | None, as_json: bool) -> None:
    """Make one self-contained HTML page of DIR, a folder that any of the other commands wrote with --out."""
    from nlhfsim.report import write_report

    page = write_report(folder, out)
    if as_json:
        output.emit_json({"path": str(page)})
    else:
        print(f"The page is {page}")


@group.command(name="list")
@click.argument("kind", type=click.Choice(["games", "datasets", "dynamics", "claims"]))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def list_(kind: str, as_json: bool) -> None:
    """List what there is: games, datasets, dynamics or claims."""
    rows = listing.ROWS[kind]()
    if as_json:
        output.emit_json({kind: rows})
        return
    output.table(kind.capitalize(), list(rows[0]), [list(row.values()) for row in rows])


@group.command(short_help="Show the whole on real preferences that cycle.")
@click.option("--out", metavar="DIR", help="Folder for the figures and tables.")
@click.option("--dataset", default="regenwetter2012", show_default=True, help="The preference data; see 'nlhfsim list datasets'.")
@click.option("--beta", type=float, default=0.02, show_default=True, help="Regularization, above 0.")
@click.option("--oracle-calls", type=int, default=2000, show_default=True, help="Budget of every method.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything random.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def demo(**options: Any) -> int:
    """Show the whole on real preferences that cycle: equilibrium, certificates, methods, claims, figures.

    Exit code 1: a claim is violated on this game.
    """
    from nlhfsim.cli.demonstration import demonstrate

    return demonstrate(**options)


@group.group(short_help="Train a language model towards the equilibrium.")
def llm() -> None:
    """Nash learning with language models: train one as a TOML file says, and look at how far it is.

    Training needs the extra: pip install 'nlhfsim[torch]'. Looking at a run does not; 'nlhfsim report DIR' makes a page of it.
    """


@llm.command(short_help="Train as a TOML file says, or go on.")
@click.argument("config", metavar="CONFIG.toml")
@click.option("--out", metavar="DIR", help="Folder for metrics, checkpoints and the model. Without it nothing is kept.")
@click.option("--resume/--no-resume", default=True, show_default=True, help="Go on with a run in DIR, or refuse to.")
@click.option("--seed", type=int, help="Seed of everything random. Default: that of CONFIG.toml, else 0.")
@click.option("--steps", type=int, help="Optimizer steps. Default: those of CONFIG.toml.")
@click.option(
    "--set", "settings", multiple=True, metavar="K=V", help="Set training.K, or SECTION.K, in CONFIG.toml; may be repeated."
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--track",
    multiple=True,
    type=click.Choice(["tensorboard", "wandb", "trackio"]),
    help="Send the curves there too; may be repeated. Also trackers = [...] in CONFIG.toml.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def train(**options: Any) -> None:
    """Train a language model as CONFIG.toml says.

    \b
    CONFIG.toml has the tables
      [model]      path = "FOLDER", name = "ORGANISATION/MODEL" at the hub, or [model.new]
      [tokenizer]  path or name, if they are not the model's
      [prompts]    path = "FILE" (.jsonl, .parquet, .csv) or "hf:OWNER/NAME:SPLIT" with a column "prompt", or list = [...];
                   held_out = 0.1
      [oracle]     kind = "judge", "served-judge", "reward-model", "score", "function", "classes" or "matrix", and what
                   that takes; both_orders = true, cache = true, noise = 0.1
      [training]   the fields of nlhfsim.llm.NashConfig: method, beta, steps, learning_rate, ...

    Ctrl-C finishes the step and saves; the same command goes on from there.
    """
    from nlhfsim.cli.training import train_model

    train_model(**options)


@llm.command(name="show", short_help="Show how far a run is.")
@click.argument("folder", metavar="DIR")
@click.option("--last", type=click.IntRange(min=1), default=20, show_default=True, help="Evaluations to show.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def show_run(folder: str, last: int, as_json: bool) -> None:
    """Show the last evaluations of the training run in DIR, also while it goes on."""
    from nlhfsim.cli.training import show_run as show

    show(folder, last, as_json)
