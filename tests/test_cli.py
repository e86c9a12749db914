"""The command line: what it prints, writes and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nlhfsim
from nlhfsim.cli import main

SOLVE_FIELDS = {"beta", "labels", "policy", "exploitability", "kl_bound", "residual", "status", "condorcet_winner", "cycles"}
RUN_FIELDS = {"dynamics", "params", "seed", "steps", "oracle_calls", "queries", "final_kl", "final_exploitability", "status"}


def call(capsys: Any, *arguments: str) -> tuple[int, str, str]:
    """Run the command line in this process; return exit code, standard output and standard error."""
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    printed = capsys.readouterr()
    return int(exit_.value.code or 0), printed.out, printed.err


def call_json(capsys: Any, *arguments: str) -> Any:
    """Run a command with ``--json`` and return its object; nothing else may be on standard output."""
    code, out, err = call(capsys, *arguments, "--json")
    assert code == 0, err
    assert out.count("\n") == 1
    return json.loads(out)


def test_solve_json_of_a_biased_cycle_is_its_closed_form(capsys: Any) -> None:
    """At β = 0 a three-cycle's equilibrium weighs each action with the margin of the opposing edge."""
    found = call_json(
        capsys, "solve", "rock-paper-scissors", "--game-param", "margin=0.5", "--game-param", "bias=-0.3", "--beta", "0"
    )
    assert SOLVE_FIELDS <= set(found)
    assert sorted(found["policy"]) == pytest.approx([0.2 / 1.2, 0.5 / 1.2, 0.5 / 1.2], abs=1e-12)
    assert found["kl_bound"] is None and found["residual"] is None
    assert found["cycles"] is True and found["condorcet_winner"] is None and found["status"] == "certified"


def test_solve_json_names_the_condorcet_winner(capsys: Any) -> None:
    """The pooled MT-Bench votes are transitive and gpt-4 wins."""
    found = call_json(capsys, "solve", "mtbench")
    assert found["condorcet_winner"] == "gpt-4" and found["cycles"] is False


def test_solve_json_with_contexts_is_lists_of_lists(capsys: Any) -> None:
    """A game with contexts gives one policy a context."""
    parameters = ["--game-param", "n=4", "--game-param", "contexts=3"]
    found = call_json(capsys, "solve", "random-game", *parameters)
    assert np.array(found["policy"]).shape == (3, 4)
    assert len(found["condorcet_winner"]) == len(found["cycles"]) == 3


@pytest.mark.parametrize("method", ["newton", "cvxpy"])
def test_solve_methods_agree(capsys: Any, method: str) -> None:
    """Newton and cvxpy find the same equilibrium."""
    found = call_json(capsys, "solve", "regenwetter2012", "--beta", "0.5", "--method", method)
    assert found["policy"] == pytest.approx(call_json(capsys, "solve", "regenwetter2012", "--beta", "0.5")["policy"], abs=1e-6)


def test_solve_diagnoses(capsys: Any) -> None:
    """With --diagnose the object holds the diagnosis and the terminal a second table; without, neither."""
    arguments = ["solve", "regenwetter2012", "--diagnose"]
    found = call_json(capsys, *arguments)["diagnosis"]
    assert found["cyclic_triples"] == {"cyclic": 4, "triples": 10, "share": 0.4} and len(found["top_cycle"]) == 5
    assert found["bradley_terry_test"]["p_value"] == 1 / 1001 and found["reward_model"]["gap0"] > 0.1
    code, out, _ = call(capsys, *arguments)
    assert code == 0 and "certified" in out and "4 of 10, 40.0%" in out and "rejected, p = 0.001" in out
    code, out, _ = call(capsys, "solve", "regenwetter2012")
    assert "Diagnosis" not in out and "diagnosis" not in call_json(capsys, "solve", "regenwetter2012")


def test_solve_diagnoses_contexts_and_games_without_counts(capsys: Any) -> None:
    """A game with contexts gives lists; a game that was not made from votes has no p-value, but a reason."""
    parameters = ["--game-param", "n=4", "--game-param", "contexts=3", "--diagnose"]
    found = call_json(capsys, "solve", "random-game", *parameters)["diagnosis"]
    assert [test["p_value"] for test in found["bradley_terry_test"]] == [None] * 3
    assert all(test["reason"].startswith("no counts") for test in found["bradley_terry_test"])
    code, out, _ = call(capsys, "solve", "random-game", *parameters)
    assert code == 0 and "of 3 contexts" in out


def test_solve_reads_a_matrix_file_and_a_reference(capsys: Any, tmp_path: Path) -> None:
    """Two actions that tie stay at the reference, whatever it is."""
    path = tmp_path / "game.csv"
    path.write_text("0.5,0.5\n0.5,0.5\n")
    found = call_json(capsys, "solve", str(path), "--reference", "0.25,0.75", "--beta", "0.3")
    assert found["policy"] == pytest.approx([0.25, 0.75], abs=1e-15)


def test_solve_reads_comparisons(capsys: Any, tmp_path: Path) -> None:
    """A log of votes becomes a game whose labels are its items."""
    path = tmp_path / "votes.jsonl"
    votes = [("a", "b", "a"), ("b", "c", "b"), ("c", "a", "c"), ("a", "b", "tie")]
    path.write_text("".join(json.dumps(dict(zip(("item_a", "item_b", "winner"), vote))) + "\n" for vote in votes))
    found = call_json(capsys, "solve", str(path))
    assert found["labels"] == ["a", "b", "c"] and found["cycles"] is True


def test_run_json_has_the_promised_fields_and_counts(capsys: Any) -> None:
    """Nash mirror prox makes two oracle calls a step and no queries with exact feedback."""
    arguments = ["--dynamics", "NashMirrorProx", "--steps", "30", "--start", "random", "--runs", "2", "--param", "step_size=1.5"]
    found = call_json(capsys, "run", "rock-paper-scissors", *arguments)["runs"]
    assert [entry["run"] for entry in found] == [0, 1]
    assert all(RUN_FIELDS <= set(entry) for entry in found)
    assert {(e["steps"], e["oracle_calls"], e["queries"], e["params"]["step_size"]) for e in found} == {(30, 60, 0, 1.5)}
    # (1 + γβ)^(-K) times the largest KL that a start can have here bounds it only loosely, but it must have shrunk.
    assert all(entry["final_kl"] < 1e-3 for entry in found)


def test_run_without_counted_oracle_calls_gives_null(capsys: Any) -> None:
    """The proximal point method's oracle calls are its inner solver's, not counted."""
    found = call_json(capsys, "run", "rock-paper-scissors", "--dynamics", "ProximalPoint", "--steps", "3", "--start", "random")
    assert found["runs"][0]["oracle_calls"] is None


def test_run_takes_schedules_and_start_from_a_file(capsys: Any, tmp_path: Path) -> None:
    """A schedule is written inverse-time:c,t0, a start policy may lie in a file."""
    start = tmp_path / "start.csv"
    start.write_text("0.8,0.1,0.1\n")
    arguments = ["--dynamics", "NashMD", "--param", "step_size=inverse-time:20,2", "--start", str(start), "--steps", "50"]
    found = call_json(capsys, "run", "rock-paper-scissors", *arguments)["runs"][0]
    assert found["params"]["step_size"] == "inverse-time:20,2" and found["status"] == "completed"


def test_run_writes_result_trajectory_and_figures(capsys: Any, tmp_path: Path) -> None:
    """What is printed with --json is also in the folder, and the trajectory reads back."""
    import nlhfsim as nl

    folder = tmp_path / "new" / "folder"
    arguments = ["--dynamics", "Extragradient", "--start", "0.8,0.1,0.1", "--steps", "40", "--out", str(folder)]
    found = call_json(capsys, "run", "rock-paper-scissors", *arguments)
    assert json.loads((folder / "result.json").read_text()) == found
    assert nl.load(folder / "trajectory.npz").kl[0, -1] == found["runs"][0]["final_kl"]
    for name in (
        "convergence-kl.pdf",
        "convergence-exploitability.pdf",
        "convergence.png",
        "phase-portrait.pdf",
        "phase-portrait.png",
    ):
        assert (folder / name).stat().st_size > 1000
    assert not list(folder.glob("*.part"))


def test_compare_spends_the_same_oracle_calls(capsys: Any) -> None:
    """Every method gets the budget, and tunes on the grid given."""
    arguments = [
        "--dynamics",
        "SelfPlayPG,NashMirrorProx",
        "--oracle-calls",
        "60",
        "--step-sizes",
        "0.5,1,2",
        "--start",
        "random",
    ]
    found = call_json(capsys, "compare", "rock-paper-scissors", *arguments)
    assert [(e["dynamics"], e["oracle_calls"]) for e in found["runs"]] == [("SelfPlayPG", 60), ("NashMirrorProx", 60)]
    assert {e["params"]["step_size"] for e in found["runs"]} <= {0.5, 1.0, 2.0}
    assert all(row["grid_points"] == 3 for row in found["comparison"])


def test_compare_addresses_parameters_to_one_method(capsys: Any, tmp_path: Path) -> None:
    """NAME.k=v reaches that method alone, which then runs at that step."""
    arguments = [
        "--dynamics",
        "NaturalPG,NashMD",
        "--param",
        "NashMD.step_size=0.25",
        "--oracle-calls",
        "40",
        "--start",
        "random",
    ]
    found = call_json(capsys, "compare", "rock-paper-scissors", *arguments, "--out", str(tmp_path))
    rows = {row["dynamics"]: row for row in found["comparison"]}
    assert rows["NashMD"]["params"]["step_size"] == 0.25 and rows["NashMD"]["grid_points"] == 0
    assert rows["NaturalPG"]["grid_points"] > 10
    assert (tmp_path / "comparison.csv").read_text().count("\n") == 3


@pytest.mark.parametrize("kind", ["games", "datasets", "dynamics"])
def test_list_prints_every_entry(capsys: Any, kind: str) -> None:
    """Everything in the registry is listed, in words and as JSON."""
    import nlhfsim as nl

    methods = {*nl.dynamics.names(), *nl.dynamics.aliases()}
    expected = {"games": set(nl.games.NAMED), "datasets": set(nl.datasets.DATASETS), "dynamics": methods}[kind]
    assert {row["name"] for row in call_json(capsys, "list", kind)[kind]} == expected
    code, out, _ = call(capsys, "list", kind)
    assert code == 0 and all(name in out for name in expected)


def test_tables_are_printed_for_people(capsys: Any) -> None:
    """Without --json there is a table with labels and certificates."""
    code, out, _ = call(capsys, "solve", "regenwetter2012")
    assert code == 0 and "gamble a" in out and "certified" in out and "the majorities cycle" in out
    code, out, _ = call(
        capsys, "compare", "rock-paper-scissors", "--dynamics", "NashMD", "--oracle-calls", "30", "--start", "random"
    )
    assert code == 0 and "NashMD" in out


BAD = {
    "unknown source": (["solve", "rock-paper-scisors"], "did you mean 'rock-paper-scissors'"),
    "missing file": (["solve", "nothing.csv"], "nothing.csv does not exist"),
    "negative beta": (["solve", "mtbench", "--beta", "-1"], "beta = -1 must not be negative"),
    "beta not a number": (["solve", "mtbench", "--beta", "much"], "--beta"),
    "NaN beta": (["solve", "mtbench", "--beta", "nan"], "must be finite"),
    "reference with a zero": (["solve", "rock-paper-scissors", "--reference", "0,0.5,0.5"], "reference[0] = 0 must be positive"),
    "reference of wrong length": (["solve", "rock-paper-scissors", "--reference", "0.5,0.5"], "shape (2,), must be (3,)"),
    "reference of words": (["solve", "rock-paper-scissors", "--reference", "skewed"], "--reference = 'skewed'"),
    "unknown game parameter": (["solve", "rock-paper-scissors", "--game-param", "margn=1"], "did you mean 'margin'"),
    "parameter without value": (["solve", "rock-paper-scissors", "--game-param", "margin"], "must be written name=value"),
    "parameter for a dataset": (["solve", "mtbench", "--game-param", "n=3"], "--game-param is for named games"),
    "missing game parameter": (["solve", "cyclic-tournament"], "needs n"),
    "context for a game": (["solve", "rock-paper-scissors", "--context", "turn"], "files of comparisons"),
    "unknown solver": (["solve", "mtbench", "--method", "newtn"], "did you mean 'newton'"),
    "newton at zero": (["solve", "mtbench", "--beta", "0", "--method", "newton"], "needs beta > 0"),
    "unknown method": (["run", "mtbench", "--dynamics", "NashMDD"], "method 'NashMDD' is unknown; did you mean 'NashMD'"),
    "unknown parameter": (["run", "mtbench", "--dynamics", "NashMD", "--param", "stepsize=1"], "did you mean 'step_size'"),
    "step of zero": (["run", "mtbench", "--dynamics", "NashMD", "--param", "step_size=0"], "step_size = 0 must be positive"),
    "bad schedule": (
        ["run", "mtbench", "--dynamics", "NashMD", "--param", "step_size=inverse-time:x"],
        "numbers after the colon",
    ),
    "both follow rules": (
        ["run", "mtbench", "--dynamics", "NashProx", "--param", "averaging=0.1", "--param", "refresh_every=3"],
        "not both",
    ),
    "start with a zero": (
        ["run", "rock-paper-scissors", "--dynamics", "NashMD", "--start", "1,0,0"],
        "start[1] = 0 must be positive",
    ),
    "start of a wrong sum": (["run", "rock-paper-scissors", "--dynamics", "NashMD", "--start", "0.5,0.5,0.5"], "adds up to 1.5"),
    "negative steps": (["run", "mtbench", "--dynamics", "NashMD", "--steps", "-1"], "n_steps = -1 must be at least 0"),
    "no runs": (["run", "mtbench", "--dynamics", "NashMD", "--runs", "0"], "runs = 0 must be at least 1"),
    "unknown feedback": (
        ["run", "mtbench", "--dynamics", "NashMD", "--feedback", "guess"],
        "'guess' is not one of 'exact', 'sampled'",
    ),
    "uncountable method": (["compare", "mtbench", "--dynamics", "ProximalPoint"], "cannot be compared at equal oracle calls"),
    "no method": (["compare", "mtbench", "--dynamics", ","], "must name at least one method"),
    "grid of words": (["compare", "mtbench", "--dynamics", "NashMD", "--step-sizes", "small"], "--step-sizes"),
    "negative grid": (["compare", "mtbench", "--dynamics", "NashMD", "--step-sizes", "-1,1"], "must be positive"),
    "parameter of nobody": (
        ["compare", "mtbench", "--dynamics", "NashMD", "--param", "speed=1"],
        "no method here has that parameter",
    ),
    "demo without beta": (["demo", "--beta", "0"], "must be above 0"),
    "unknown dataset": (["demo", "--dataset", "mtbnch"], "did you mean 'mtbench'"),
    "unknown command": (["slove"], "No such command 'slove'"),
    "unknown option": (["solve", "mtbench", "--betta", "1"], "--betta"),
    "empty folder name": (["solve", "mtbench", "--out", ""], "must be a folder"),
    "file as a folder": (["solve", "mtbench", "--out", "/dev/null"], "must be a folder"),
    "unwritable folder": (["solve", "mtbench", "--out", "/proc/nlhfsim"], "cannot be written"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(capsys: Any, case: str) -> None:
    """Bad input says what is wrong and where on standard error, nothing on standard output, without a traceback."""
    arguments, expected = BAD[case]
    code, out, err = call(capsys, *arguments)
    assert code == 2 and out == ""
    assert expected in err
    assert err.startswith("nlhfsim: ") and err.count("\n") == 1 and "Traceback" not in err


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b"\x00\xff\xfe\x01binary", "text"),
        (b"0.5,0.6\n0.5,0.5\n", "must be 1"),
        (b"0.5,nan\n0.5,0.5\n", "finite"),
        (b"0.5,1.5\n-0.5,0.5\n", "outside [0, 1]"),
        (b"0.5,0.5,0.5\n0.5,0.5,0.5\n", "square"),
        (b"0.5,a\nb,0.5\n", "same action"),
        (b".5;.7\n.3;.5\n", "commas between cells"),
        (b"a;b\n.5;.7\n.3;.5\n", "commas between cells"),
        (b"0.5 0.7\n0.3 0.5\n", "commas between cells"),
    ],
)
def test_bad_matrix_files_are_refused(capsys: Any, tmp_path: Path, content: bytes, expected: str) -> None:
    """An empty, binary or malformed matrix file is refused with its name and the reason."""
    path = tmp_path / "game.csv"
    path.write_bytes(content)
    code, _, err = call(capsys, "solve", str(path))
    assert code == 2 and "game.csv" in err and expected in err


def test_a_step_outside_the_proven_range_is_a_warning(capsys: Any) -> None:
    """The warning names the range; the run goes on."""
    arguments = ["run", "rock-paper-scissors", "--beta", "0.1", "--dynamics", "MagneticMirrorDescent", "--start", "random"]
    code, out, err = call(capsys, *arguments, "--param", "step_size=1")
    assert code == 0 and "outside the range (0, 0.4]" in err and "MagneticMirrorDescent" in out


def test_a_start_at_the_equilibrium_is_said(capsys: Any) -> None:
    """Uniform rock-paper-scissors starts at its equilibrium, so the curves show nothing."""
    code, _, err = call(capsys, "run", "rock-paper-scissors", "--dynamics", "NashMirrorProx", "--steps", "5")
    assert code == 0 and "the start is the equilibrium already" in err


@pytest.mark.parametrize("method", ["NashMirrorProx", "SelfPlayPG", "NaturalPG", "ProximalPG", "NashProx"])
def test_a_huge_beta_overflows_nothing(capsys: Any, method: str) -> None:
    """At β = 1e300 the equilibrium is the reference, and the proven ranges are still numbers."""
    code, _, err = call(capsys, "run", "mtbench", "--beta", "1e300", "--dynamics", method, "--steps", "3")
    assert code == 0 and "overflow" not in err and "(0, 0]" not in err


def test_a_failed_equilibrium_is_said(capsys: Any) -> None:
    """A policy that is no equilibrium comes with a warning on standard error."""
    code, out, err = call(capsys, "solve", "kendall1940-girls", "--beta", "1e-16", "--json")
    assert code == 0 and json.loads(out)["status"] == "failed" and "no equilibrium was found" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments", [["solve", "mtbench"], ["solve", "mtbench", "--json"]])
def test_a_full_disk_is_a_sentence(arguments: list[str]) -> None:
    """Standard output on a full disk: one sentence and exit code 2."""
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "nlhfsim", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2 and done.stderr.startswith("nlhfsim: ") and "Traceback" not in done.stderr


def test_divergence_is_a_status_not_a_crash(capsys: Any) -> None:
    """A run whose logits overflow ends with status diverged and null numbers."""
    arguments = ["--beta", "10", "--dynamics", "NaturalPG", "--param", "step_size=100", "--start", "random", "--steps", "2000"]
    found = call_json(capsys, "run", "rock-paper-scissors", *arguments)["runs"][0]
    assert found["status"] == "diverged" and found["final_kl"] is None


def test_demo_shows_the_whole(capsys: Any, tmp_path: Path) -> None:
    """The demo finds the published cycle, certifies its equilibrium, holds it against cvxpy, and draws."""
    found = call_json(capsys, "demo", "--oracle-calls", "200", "--out", str(tmp_path))
    assert found["cycles"] is True and found["condorcet_winner"] is None and found["status"] == "certified"
    assert found["cvxpy_distance"] < 1e-5
    assert {row["dynamics"] for row in found["comparison"]} >= {"SelfPlayPG", "ProximalPG", "NashMirrorProx"}
    for row in found["proven"]:
        assert row["fitted_factor"] is None or row["fitted_factor"] <= row["proven_factor"] + 1e-9
    assert {p.suffix for p in tmp_path.iterdir()} == {".pdf", ".png", ".json"}
    assert (tmp_path / "phase-portrait.pdf").stat().st_size > 1000


def test_demo_prints_tables(capsys: Any) -> None:
    """Without --json the demo tells its story in tables."""
    code, out, _ = call(capsys, "demo", "--oracle-calls", "100")
    assert code == 0 and "Regenwetter" in out and "von Neumann winner" in out and "proven factor" in out


def test_as_a_program() -> None:
    """``python -m nlhfsim`` is the same program: help, and one sentence with exit code 2."""
    good = subprocess.run([sys.executable, "-m", "nlhfsim", "--help"], capture_output=True, text=True, check=False)
    assert good.returncode == 0 and "demo" in good.stdout
    bad = subprocess.run([sys.executable, "-m", "nlhfsim", "solve"], capture_output=True, text=True, check=False)
    assert bad.returncode == 2 and bad.stderr.startswith("nlhfsim: ") and bad.stdout == ""


def test_many_actions_are_solved_without_their_majorities(capsys: Any) -> None:
    """Where no matrix can be written out, the majorities are null (in words: not looked at), and the rest is there."""
    source = ["solve", "random-low-rank", "--beta", "0.1"]
    source += [part for pair in ("n=20001", "rank=1", "rng=1") for part in ("--game-param", pair)]
    solved = call_json(capsys, *source)
    assert solved["status"] == "certified" and solved["condorcet_winner"] is None and solved["cycles"] is None
    code, out, _ = call(capsys, *source)
    assert code == 0 and "the majorities of 20001 actions were not looked at" in " ".join(out.split())


# --- votes ----------------------------------------------------------------------------------------------------------------


def test_run_with_votes_counts_them(capsys: Any, tmp_path: Path) -> None:
    """A batch of votes an oracle call; the run saved is that of the library with the same seed."""
    words = ["run", "rock-paper-scissors", "--dynamics", "NashProx", "--param", "step_size=0.2", "--steps", "300"]
    more = ["--batch-size", "4", "--runs", "2", "--seed", "3", "--start", "0.8,0.1,0.1", "--out", str(tmp_path)]
    found = call_json(capsys, *words, *more)
    assert [entry["queries"] for entry in found["runs"]] == [1200, 1200]
    game, method = nlhfsim.games.rock_paper_scissors(), nlhfsim.dynamics.NashProx(0.2)
    feedback = nlhfsim.Sampled(batch_size=4)
    alone = nlhfsim.simulate(game, method, 300, feedback=feedback, runs=2, seed=3, start=[0.8, 0.1, 0.1])
    assert [entry["final_kl"] for entry in found["runs"]] == alone.kl[:, -1].tolist()
    assert (nlhfsim.load(tmp_path / "trajectory.npz").parameters == alone.parameters).all()


def test_a_saved_run_goes_on(capsys: Any, tmp_path: Path) -> None:
    """--start trajectory.npz continues the votes as if the run had never stopped; another method or a comparison refuses it."""
    words = ["run", "rock-paper-scissors", "--dynamics", "NashProx", "--param", "step_size=0.2", "--batch-size", "4"]
    begin = ["--start", "0.8,0.1,0.1", "--seed", "3"]
    call_json(capsys, *words, *begin, "--steps", "200", "--out", str(tmp_path / "a"))
    saved = ["--start", str(tmp_path / "a" / "trajectory.npz")]
    rest = call_json(capsys, *words, *saved, "--steps", "100", "--out", str(tmp_path / "b"))
    whole = call_json(capsys, *words, *begin, "--steps", "300")
    assert rest["runs"][0] == whole["runs"][0]
    code, _, err = call(capsys, *words[:3], "SelfPlayPG", "--param", "step_size=0.2", "--batch-size", "4", *saved)
    assert code == 2 and "a run continues only with the method it began with" in err
    code, _, err = call(capsys, "compare", "rock-paper-scissors", "--dynamics", "NashMD", "--queries", "40", *saved)
    assert code == 2 and err.count("\n") == 1
    code, _, err = call(capsys, *words, "--start", str(tmp_path / "none.npz"))
    assert code == 2 and "cannot be read" in err


def test_probabilities_and_averages_on_the_command_line(capsys: Any) -> None:
    """--probabilities sees no votes, --average measures the average; both change what comes out."""
    words = ["run", "rock-paper-scissors", "--dynamics", "SelfPlayPG", "--start", "0.8,0.1,0.1", "--feedback", "sampled"]
    ends = [
        call_json(capsys, *words, *more)["runs"][0]["final_kl"] for more in ([], ["--probabilities"], ["--average", "parameters"])
    ]
    assert len(set(ends)) == 3


def test_compare_at_equal_votes(capsys: Any) -> None:
    """The budget is votes; the table has quantiles and votes to a threshold."""
    words = [
        "compare",
        "rock-paper-scissors",
        "--dynamics",
        "SelfPlayPG,NashMirrorProx",
        "--queries",
        "400",
        "--start",
        "0.8,0.1,0.1",
    ]
    found = call_json(capsys, *words, "--batch-size", "10", "--step-sizes", "0.1,0.5", "--runs", "3")
    assert [row["queries"] for row in found["comparison"]] == [400, 400]
    assert [row["steps"] for row in found["comparison"]] == [40, 20]
    code, out, _ = call(capsys, *words, "--step-sizes", "0.1")
    assert code == 0 and "400 votes on rock-paper-scissors" in out and "95 %" in out


def test_all_methods_with_votes_are_those_that_have_a_sampled_form(capsys: Any) -> None:
    """``--dynamics all`` leaves out what cannot learn from votes."""
    words = [
        "compare",
        "rock-paper-scissors",
        "--dynamics",
        "all",
        "--queries",
        "60",
        "--step-sizes",
        "0.1",
        "--start",
        "0.8,0.1,0.1",
    ]
    names = {row["dynamics"] for row in call_json(capsys, *words)["comparison"]}
    assert {"SelfPlayPG", "NashMD", "RegretMatching"} <= names
    assert not {"FictitiousPlay", "ProximalPoint"} & names


def test_the_experiment_writes_its_table_and_figure(capsys: Any, tmp_path: Path) -> None:
    """One command: a row a game and method, a figure, the critical steps."""
    words = ["experiment", "--dynamics", "SelfPlayPG,NashProx", "--queries", "2000", "--step-sizes", "0.1,1", "--runs", "2"]
    found = call_json(capsys, *words, "--out", str(tmp_path))
    assert len(found["comparison"]) == 8 and len(found["critical_steps"]) == 4 and found["feedback"]["batch_size"] == 100
    assert {path.name for path in tmp_path.iterdir()} == {
        *("result.json", "provenance.json", "comparison.csv", "experiment.pdf", "experiment.png")
    }
    assert (tmp_path / "comparison.csv").read_text().count("\n") == 9
    code, out, _ = call(capsys, *words)
    assert code == 0 and "unstable at constant steps above" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--feedback", "exact", "--batch-size", "4"], "are for --feedback sampled"),
        (["run", "--batch-size", "0"], "batch_size = 0 must be at least 1"),
        (["run", "--batch-size", "x"], "'x' is not a valid integer"),
        (["run", "--feedback", "votes"], "'votes' is not one of 'exact', 'sampled'"),
        (["run", "--feedback", "sampled", "--average", "mean"], "average = 'mean' is unknown"),
        (["run", "--feedback", "sampled", "--average", "policies"], "use average='parameters'"),
        (["compare", "--queries", "10", "--oracle-calls", "4"], "oracle_calls or queries"),
        (["compare", "--queries", "10", "--feedback", "exact"], "are for --feedback sampled"),
        (["compare", "--queries", "0"], "queries = 0 must be at least 1"),
    ],
)
def test_votes_asked_for_wrongly(capsys: Any, words: list[str], message: str) -> None:
    """Bad input is one sentence and exit code 2."""
    command, *options = words
    code, out, err = call(capsys, command, "rock-paper-scissors", "--dynamics", "SelfPlayPG", *options)
    assert code == 2 and out == "" and message in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--beta", "0"], "beta = 0 must be positive"),
        (["--queries", "50"], "queries = 50 must be at least 100"),
        (["--dynamics", "FictitiousPlay"], "no step size to tune"),
        (["--dynamics", "Nope"], "'Nope' is unknown"),
        (["--step-sizes", "0"], "step_sizes = 0 must be positive"),
        (["--step-sizes", "fast"], "must be 'default' or numbers"),
        (["--runs", "0"], "runs = 0 must be at least 1"),
        (["--seed", "-1"], "seed = -1 must be at least 0"),
    ],
)
def test_the_experiment_asked_for_wrongly(capsys: Any, words: list[str], message: str) -> None:
    """The same for the experiment."""
    code, out, err = call(capsys, "experiment", *words)
    assert code == 2 and out == "" and message in err and err.count("\n") == 1
