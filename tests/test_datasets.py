"""Preference data: the embedded tables against published facts, and the readers against small files, good and bad."""

from __future__ import annotations

import collections
import csv
import itertools
import json
import pickle
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linprog

from nlhfsim import datasets
from nlhfsim.datasets import from_comparisons, looks_like_comparisons, read_comparisons, read_game, read_matrix
from nlhfsim.errors import DataError, InputError, MissingExtraError, UnknownNameError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the published files are not beside the repository")

VOTES = [("A", "B", "A"), ("A", "B", "B"), ("B", "A", "B"), ("B", "C", "tie"), ("C", "A", "item_a"), ("A", "C", "model_b")]
WINS = [[0, 1, 0], [2, 0, 0], [2, 0, 0]]
TIES = [[0, 0, 0], [0, 0, 1], [0, 1, 0]]


def von_neumann_winner(preferences):
    """The maximin policy by linear programming."""
    n = len(preferences)
    inequality = np.column_stack([-(preferences.T - 0.5), np.ones(n)])
    result = linprog(
        [*np.zeros(n), -1.0], inequality, np.zeros(n), np.array([[1.0] * n + [0.0]]), [1.0], [(0, 1)] * n + [(None, None)]
    )
    assert result.status == 0 and abs(result.fun) < 1e-9
    return result.x[:n]


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content, encoding="utf-8")
    return path


def write_csv(folder, rows, header=("item_a", "item_b", "winner"), name="votes.csv"):
    return write(folder, name, "\n".join(",".join(str(cell) for cell in row) for row in (header, *rows)) + "\n")


def assert_counts(comparisons, wins=WINS, ties=TIES):
    np.testing.assert_array_equal(comparisons.wins[0], wins)
    np.testing.assert_array_equal(comparisons.ties[0], ties)


# The embedded tables.


def test_regenwetter_has_the_published_von_neumann_winner():
    game = datasets.load()
    assert game.n == 5 and game.beta == 0.1
    np.testing.assert_allclose(von_neumann_winner(game.preferences), [0.268, 0.085, 0.249, 0.031, 0.368], atol=6e-4)
    assert set(game.comparisons.totals[0][~np.eye(5, dtype=bool)]) == {45.0}
    assert game.preferences[2, 3] == pytest.approx(41.5 / 45), "a tie is half a win"


def test_kendall_has_the_published_von_neumann_winner():
    game = datasets.load("kendall1940-girls")
    expected = {"gymnastics": 0.053, "science": 0.684, "art": 0.263}
    winner = dict(zip(game.labels, von_neumann_winner(game.preferences)))
    assert {label: round(mass, 3) for label, mass in winner.items() if mass > 1e-9} == expected
    assert set(game.comparisons.totals[0][~np.eye(11, dtype=bool)]) == {25.0}


def test_mtbench_has_the_published_number_of_votes():
    coverage = datasets.load("mtbench").comparisons.coverage()
    assert (coverage.votes, coverage.items, coverage.pairs_seen, coverage.pairs) == (3355, 6, 15, 15)
    assert coverage.prior == 0.0


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_embedded_games_are_the_observed_frequencies(name):
    game = datasets.load(name, beta=0.3)
    counts = game.comparisons
    for i, j in itertools.combinations(range(game.n), 2):
        won, lost, tied = counts.wins[0, i, j], counts.wins[0, j, i], counts.ties[0, i, j]
        assert game.preferences[i, j] == pytest.approx((won + tied / 2) / (won + lost + tied), abs=1e-15)
    assert game.beta == 0.3 and datasets.cite(name).startswith("@") and datasets.DATASETS[name].description


def test_unknown_dataset():
    with pytest.raises(UnknownNameError, match="dataset = 'mt-bench' is unknown; did you mean 'mtbench'?"):
        datasets.load("mt-bench")


@needs_shared
def test_mtbench_equals_its_published_log():
    pooled = read_comparisons(SHARED / "mtbench_human.jsonl")
    embedded = datasets.load("mtbench").comparisons
    assert pooled.items == embedded.items
    assert_counts(pooled, embedded.wins[0], embedded.ties[0])


@needs_shared
def test_mtbench_by_question_adds_up_to_the_pooled_log():
    by_question = read_comparisons(SHARED / "mtbench_human.jsonl", context="question_id")
    assert by_question.contexts == tuple(str(k) for k in range(81, 161))
    np.testing.assert_array_equal(by_question.wins.sum(axis=0), datasets.load("mtbench").comparisons.wins[0])
    game = by_question.game()
    with open(SHARED / "mtbench_human.jsonl", encoding="utf-8") as lines:
        votes = collections.Counter(json.loads(line)["question_id"] for line in lines)
    np.testing.assert_allclose(game.weights, [votes[k] / 3355 for k in range(81, 161)])


@needs_shared
def test_regenwetter_equals_its_published_log():
    with open(SHARED / "regenwetter2012.csv", encoding="utf-8", newline="") as file:
        row = next(r for r in csv.DictReader(file) if (r["participant"], r["gamble_set"]) == ("9", "2"))
    votes = []
    for name, count in row.items():
        if ">" in name:
            votes += [(*sorted(name.split(">")), name[0])] * int(count)
        elif "=" in name:
            votes += [(*name.split("="), "tie")] * int(count)
    melted = read_comparisons(votes, prior=0)
    assert melted.items == tuple("abcde")
    embedded = datasets.load("regenwetter2012").comparisons
    assert_counts(melted, embedded.wins[0], embedded.ties[0])


@needs_shared
def test_kendall_equals_its_published_log():
    with open(SHARED / "kendall1940_schoolsubjects.csv", encoding="utf-8", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["class"] == "girls"]
    published = read_comparisons(rows, prior=0)
    embedded = datasets.load("kendall1940-girls").comparisons
    order = [next(k for k, label in enumerate(embedded.items) if label[:3] == item[:3]) for item in published.items]
    assert sorted(order) == list(range(11))
    assert_counts(published, embedded.wins[0][np.ix_(order, order)], embedded.ties[0][np.ix_(order, order)])


# Every kind of table gives the same counts.


def test_tuples_dicts_columns_and_generators():
    dicts = [dict(zip(("item_a", "item_b", "winner"), row)) for row in VOTES]
    models = [dict(zip(("model_a", "model_b", "winner"), row)) for row in VOTES]
    columns = {name: [row[name] for row in dicts] for name in dicts[0]}
    for table in (VOTES, dicts, models, columns, iter(VOTES), (row for row in dicts)):
        comparisons = read_comparisons(table)
        assert comparisons.items == ("A", "B", "C") and comparisons.contexts is None
        assert_counts(comparisons)


def test_files(tmp_path):
    pandas = pytest.importorskip("pandas")
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    frame = pandas.DataFrame(VOTES, columns=["item_a", "item_b", "winner"])
    frame.to_parquet(tmp_path / "votes.parquet")
    frame.to_csv(tmp_path / "frame.csv", index=False)
    frame.to_json(tmp_path / "votes.jsonl", orient="records", lines=True)
    with_blanks = "\ufeff\r\n item_a , item_b,winner\r\n\r\n" + "\r\n".join(" , ".join(row) for row in VOTES)
    write(tmp_path, "windows.csv", with_blanks)
    arrow = pyarrow.Table.from_pandas(frame)
    files = [tmp_path / name for name in ("votes.parquet", "frame.csv", "votes.jsonl", "windows.csv")]
    for table in (frame, frame.iloc[::-1], arrow, *files, str(files[0])):
        assert_counts(read_comparisons(table))


def test_counts_are_votes(tmp_path):
    rows = [("A", "B", 1, 2, 0), ("B", "C", 0, 0, 1), ("A", "C", 0, 2, 0)]
    path = write_csv(tmp_path, rows, ("item_i", "item_j", "wins_i", "wins_j", "ties"))
    assert_counts(read_comparisons(path))
    with pytest.raises(DataError, match=r"votes.csv, row 1 \(line 2\): wins_i = '-1' must be a finite number, not negative"):
        read_comparisons(write_csv(tmp_path, [("A", "B", -1, 2)], ("item_i", "item_j", "wins_i", "wins_j")))


def test_the_order_of_the_rows_does_not_matter():
    shuffled = VOTES.copy()
    random.Random(0).shuffle(shuffled)
    np.testing.assert_array_equal(from_comparisons(shuffled).preferences, from_comparisons(VOTES).preferences)


def test_numbers_are_names_and_sort_as_numbers():
    votes = [(10, 2, 10), (2, 1.0, 1), (10, 1, 2.0)]
    with pytest.raises(DataError, match="row 3 of the table: winner '2' must be '10', '1'"):
        read_comparisons(votes)
    assert read_comparisons(votes[:2] + [(10, 1, "10")]).items == ("1", "2", "10")
    large = 2**63 + 1
    assert str(large) in read_comparisons([(large, 2, large)]).items


def test_an_item_named_like_a_verdict_is_refused_where_it_is_ambiguous():
    assert read_comparisons([("model_a", "model_b", "model_a")]).wins[0, 0, 1] == 1
    for row in (("tie", "B", "tie"), ("model_b", "x", "model_b"), ("x", "item_a", "item_a")):
        with pytest.raises(DataError, match="is also the name of the other item or of a tie: rename the item"):
            read_comparisons([row])


# Estimates.


@pytest.mark.parametrize("prior", [0.5, 0.0, 2.0])
def test_preferences_are_the_posterior_mean(prior):
    game = from_comparisons(VOTES, prior=prior, beta=0.3, reference=[0.2, 0.3, 0.5])
    expected = {(0, 1): (1, 3), (0, 2): (0, 2), (1, 2): (0.5, 1)}
    for (i, j), (won, total) in expected.items():
        assert game.preferences[i, j] == pytest.approx((won + prior) / (total + 2 * prior), abs=1e-15)
    assert game.beta == 0.3 and game.comparisons.prior == prior
    np.testing.assert_allclose(game.reference, [0.2, 0.3, 0.5])


def test_game_of_comparisons_can_change_the_prior():
    comparisons = read_comparisons(VOTES, prior=1)
    game = comparisons.game(prior=0)
    assert game.preferences[2, 0] == 1.0 and game.comparisons.prior == 0
    assert comparisons.game().comparisons is comparisons
    with pytest.raises(InputError, match="prior = -1 must not be negative"):
        comparisons.game(prior=-1)


def test_a_pair_never_compared_needs_a_prior():
    chain = [("A", "B", "A"), ("B", "C", "B"), ("C", "D", "C")]
    assert from_comparisons(chain).preferences[0, 2] == 0.5
    with pytest.raises(InputError, match="'A' and 'C' were never compared: prior = 0 leaves their preference open"):
        from_comparisons(chain, prior=0)
    with pytest.raises(InputError, match="'A' and 'C' were never compared in context 'x'"):
        from_comparisons([(*row, "x") for row in chain], prior=0)


def test_weights_scale_votes(tmp_path):
    rows = [(*row, k) for k, row in enumerate(VOTES)]
    path = write_csv(tmp_path, rows, ("item_a", "item_b", "winner", "weight"))
    wins, ties = [[0, 0, 0], [3, 0, 0], [9, 0, 0]], [[0, 0, 0], [0, 0, 3], [0, 3, 0]]
    assert_counts(read_comparisons(path), wins, ties)
    other = write_csv(tmp_path, rows, ("item_a", "item_b", "winner", "trust"))
    assert_counts(read_comparisons(other, weight="trust"), wins, ties)
    assert_counts(read_comparisons(other))
    with pytest.raises(UnknownNameError, match="weight = 'trsut' is not a column of .*votes.csv; did you mean 'trust'?"):
        read_comparisons(other, weight="trsut")


# Contexts.


def test_a_context_column_makes_contexts_weighted_by_votes():
    rows = [(*row, context) for row, context in zip(VOTES, ["y", "x", "x", "y", "y", "y"])]
    game = from_comparisons(rows)
    assert game.comparisons.contexts == ("x", "y") and game.policy_shape == (2, 3)
    np.testing.assert_allclose(game.weights, [2 / 6, 4 / 6])
    np.testing.assert_array_equal(game.comparisons.wins[0], [[0, 0, 0], [2, 0, 0], [0, 0, 0]])
    assert game.preferences[0, 1, 0] == pytest.approx(2.5 / 3) and game.preferences[0, 0, 2] == 0.5
    np.testing.assert_array_equal(from_comparisons(rows, context=()).preferences, from_comparisons(VOTES).preferences)


def test_one_value_of_the_context_column_is_one_context():
    game = from_comparisons([(*row, "x") for row in VOTES])
    assert game.batched and game.policy_shape == (1, 3)


def test_context_columns_by_name():
    names = ("item_a", "item_b", "winner", "question", "turn")
    rows = [dict(zip(names, (*row, 10 - k // 2, k % 2))) for k, row in enumerate(VOTES)]
    assert read_comparisons(rows, context="question").contexts == ("8", "9", "10")
    both = read_comparisons(rows, context=["question", "turn"])
    assert both.contexts == ("8, 0", "8, 1", "9, 0", "9, 1", "10, 0", "10, 1")
    with pytest.raises(UnknownNameError, match="context = 'questoin' is not a column of the table; did you mean 'question'?"):
        read_comparisons(rows, context="questoin")
    with pytest.raises(DataError, match="row 2 of the table: context is missing"):
        read_comparisons([("A", "B", "A", "x"), ("A", "B", "A", None)])
    with pytest.raises(DataError, match="context 'y' has no votes, all its weights are 0"):
        read_comparisons([("A", "B", "A", "x", 1), ("A", "B", "A", "y", 0)])


def test_coverage_counts_and_reads_well():
    coverage = read_comparisons([(*row, context) for row, context in zip(VOTES, "xxxxyx")]).coverage()
    assert (coverage.votes, coverage.ties, coverage.pairs_seen, coverage.pairs) == (6, 1, 3, 3)
    assert (coverage.min_votes, coverage.median_votes, coverage.contexts_with_unseen_pairs) == (1, 2, 1)
    text = str(coverage)
    assert (
        "6 votes on 3 items, 1 of them tied" in text
        and "2 contexts, 1 with pairs never compared" in text
        and "prior: 0.5" in text
    )
    assert "no prior" in str(read_comparisons(VOTES, prior=0).coverage())


def test_comparisons_are_immutable_and_survive_pickle():
    wins = np.zeros((1, 2, 2))
    comparisons = datasets.Comparisons(("A", "B"), None, wins, np.zeros((1, 2, 2)))
    wins[0, 0, 1] = 1.0
    assert comparisons.wins[0, 0, 1] == 0.0
    copy = pickle.loads(pickle.dumps(read_comparisons(VOTES)))
    assert_counts(copy)
    for array in (comparisons.wins, copy.ties):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0, 1] = 1.0
    with pytest.raises(InputError, match=r"wins has shape \(2, 2\), must be \(1, 2, 2\)"):
        datasets.Comparisons(("A", "B"), None, wins[0], wins)


# Refusals: each names the file, the row, and what would be right.


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("A", "B", "A"), ("A", "B", "both_bad")], "row 2 .*winner 'both_bad' must be 'A', 'B', item_a, item_b, .* or tie"),
        ([("A", "B", "A"), ("A", "C", "B")], "row 2 .*winner 'B' must be 'A', 'C'"),
        ([("A", "B", "A"), ("A", "B", "")], "row 2 .*winner is missing"),
        ([("A", "B", "A"), ("", "B", "B")], "row 2 .*item_a is missing"),
        ([("A", "A", "A")], "row 1 .*'A' is compared with itself, must be two different items"),
    ],
)
def test_bad_rows_are_refused_in_every_kind_of_table(rows, message, tmp_path):
    pandas = pytest.importorskip("pandas")
    names = ("item_a", "item_b", "winner")
    lines = "\n".join(json.dumps(dict(zip(names, row))) for row in rows)
    blank_is_missing = [[cell or None for cell in row] for row in rows]
    tables = [
        write_csv(tmp_path, rows),
        write(tmp_path, "votes.jsonl", lines),
        rows,
        blank_is_missing,
        pandas.DataFrame(blank_is_missing, columns=names),
    ]
    for table in tables:
        with pytest.raises(DataError, match=message) as refused:
            from_comparisons(table)
        assert ("votes." in str(refused.value)) is isinstance(table, Path)


def test_rows_of_a_file_are_named_with_their_line(tmp_path):
    path = write(tmp_path, "votes.csv", 'item_a,item_b,winner\n\n"A\nlong",B,B\n\nB,C,D\n')
    with pytest.raises(DataError, match=r"votes.csv, row 2 \(line 6\): winner 'D'"):
        from_comparisons(path)


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf"), "much", None, True])
def test_bad_weights_are_refused(weight):
    with pytest.raises(DataError, match="row 2 of the table: weight = .* must be a finite number, not negative"):
        from_comparisons([("A", "B", "A", "x", 1.0), ("A", "B", "A", "x", weight)])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", "", "empty.csv is empty"),
        ("blank.csv", " \n\n", "blank.csv is empty"),
        ("commas.csv", ",,\n,,\n", "commas.csv has only blank cells"),
        ("header.csv", "item_a,item_b,winner\n", "header.csv has no rows, must hold comparisons"),
        ("columns.csv", "a,b,winner\nA,B,A\n", "columns.csv has the columns a, b, winner, must have item_a, item_b and winner"),
        ("twice.csv", "item_a,item_b,winner,winner\nA,B,A,A\n", "has the column 'winner' more than once"),
        ("ragged.csv", "item_a,item_b,winner\nA,B\n", r"ragged.csv, row 1 \(line 2\) has 2 cells, must have 3 like the header"),
        ("quotes.csv", 'item_a,item_b,winner\n"A"x,B,A\n', "quotes.csv, line 2 is not comma-separated text"),
        ("binary.csv", b"\x89PNG\r\n\x1a\n\x00", r"binary.csv is not UTF-8 text \(byte 0\)"),
        ("zeros.csv", b"item_a\x00", "zeros.csv is not text: it holds zero bytes"),
        ("empty.jsonl", "", "empty.jsonl is empty"),
        ("bad.jsonl", '{"item_a": "A", "item_b": "B", "winner": "A"}\n{"item_a": ', "bad.jsonl, line 2 is not JSON"),
        ("list.jsonl", '["A", "B", "A"]\n', "list.jsonl, line 1 must be a JSON object, one row"),
        ("nested.jsonl", '{"item_a": ["A"], "item_b": "B", "winner": "B"}', r"item_a is \['A'\], must be text or a number"),
        (
            "absent.jsonl",
            '{"item_a": "A", "item_b": "B", "winner": "B"}\n{"item_a": "A", "item_b": "B"}',
            "row 2 .* winner is missing",
        ),
        ("votes.txt", "item_a", r"has the extension '.txt', must be .csv, .jsonl or .parquet"),
        ("votes.json", "[]", r"has the extension '.json'.*\(.json files are matrices\)"),
        ("votes", "item_a", "has the extension '', must be"),
        ("bad.parquet", b"PAR0 no", "bad.parquet is not a parquet file"),
    ],
)
def test_bad_files_are_refused(name, content, message, tmp_path):
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=message):
        from_comparisons(write(tmp_path, name, content))


def test_missing_files_and_folders_are_refused(tmp_path):
    for name in ("votes.csv", "votes.jsonl", "votes.parquet"):
        with pytest.raises(DataError, match=f"{name} does not exist"):
            from_comparisons(tmp_path / name)
        (tmp_path / "folder" / name).mkdir(parents=True)
        with pytest.raises(DataError, match=f"{name} is a folder, must be a file"):
            from_comparisons(tmp_path / "folder" / name)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install nlhfsim\[data\]"):
        from_comparisons(write(tmp_path, "votes.parquet", b"PAR1"))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (3, "table is of type int, must be a data frame"),
        (b"votes.csv", "table is of type bytes"),
        ([], "the table has no rows"),
        ([("A", "B")], r"row 1 of the table is \('A', 'B'\), must be \(item_a, item_b, winner"),
        ([("A", "B", "A"), ("A", "B", "A", "x")], "row 2 of the table is .* as long as the rows before it"),
        (["ABA"], "row 1 of the table is 'ABA'"),
        ({"item_a": ["A"], "item_b": ["B"], "winner": []}, "must all have the same number"),
    ],
)
def test_what_is_no_table_is_refused(table, message):
    with pytest.raises(DataError, match=message):
        from_comparisons(table)


def test_a_star_is_no_game(tmp_path):
    rows = [("base", other, "base") for other in "ABC"]
    with pytest.raises(DataError, match="votes.csv: every comparison involves 'base', so the other items are never compared"):
        from_comparisons(write_csv(tmp_path, rows))
    assert from_comparisons([*rows, ("A", "B", "A")]).n == 4
    assert from_comparisons(rows[:1]).n == 2


def test_a_log_in_pieces_is_refused_with_the_pieces(tmp_path):
    rows = [("A", "B", "A"), ("C", "D", "D"), ("D", "E", "tie")]
    with pytest.raises(DataError, match="votes.csv falls into 2 groups .* must be one: A, B; C, D, E"):
        from_comparisons(write_csv(tmp_path, rows))
    zero_weight = [(*row, "x", 1) for row in rows] + [("B", "C", "B", "x", 0)]
    with pytest.raises(DataError, match="falls into 2 groups"):
        from_comparisons(zero_weight)


def test_contexts_may_be_in_pieces_when_the_pooled_log_is_not():
    rows = [("A", "B", "A", "x"), ("C", "D", "D", "x"), ("B", "C", "B", "y"), ("A", "D", "A", "y")]
    assert from_comparisons(rows).n_contexts == 2


def test_too_many_contexts_are_refused_before_memory_runs_out():
    rows = [(k, k + 1, "tie", k) for k in range(600)]
    with pytest.raises(DataError, match=r"601 items in 600 contexts, 1.7 GB a matrix: must be fewer"):
        read_comparisons(rows)


# Matrices.

MATRIX = [[0.5, 0.8, 0.3], [0.2, 0.5, 0.9], [0.7, 0.1, 0.5]]
BODY = [",".join(str(x) for x in row) for row in MATRIX]


@pytest.mark.parametrize(
    ("lines", "labels"),
    [
        (BODY, None),
        (["A,B,C", *BODY], ["A", "B", "C"]),
        ([",A,B,C", *(f"{name},{row}" for name, row in zip("ABC", BODY))], ["A", "B", "C"]),
        (["A,B,C", *(f"{name},{row}" for name, row in zip("ABC", BODY))], ["A", "B", "C"]),
        ([f"{name},{row}" for name, row in zip("ABC", BODY)], ["A", "B", "C"]),
        ([",0,1,2", *(f"{name},{row}" for name, row in zip("012", BODY))], ["0", "1", "2"]),
        (["model,A,B,C", *(f"{name},{row}" for name, row in zip("ABC", BODY))], ["A", "B", "C"]),
        (["model,1,2,3", *(f"{name},{row}" for name, row in zip("123", BODY))], ["1", "2", "3"]),
    ],
    ids=["bare", "header", "both", "header without corner", "column", "data frame", "named corner", "named corner, numbers"],
)
def test_csv_matrices(lines, labels, tmp_path):
    matrix, found = read_matrix(write(tmp_path, "matrix.csv", "\n".join(lines)))
    np.testing.assert_array_equal(matrix, MATRIX)
    assert found == labels


def test_npy_and_json_matrices(tmp_path):
    np.save(tmp_path / "matrix.npy", np.array(MATRIX))
    np.save(tmp_path / "contexts.npy", np.stack([MATRIX, MATRIX]))
    write(tmp_path, "list.json", json.dumps(MATRIX))
    write(tmp_path, "object.json", json.dumps({"preferences": MATRIX, "labels": ["A", "B", "C"], "beta": 0.2}))
    for name in ("matrix.npy", "list.json", "object.json"):
        matrix, labels = read_matrix(tmp_path / name)
        np.testing.assert_array_equal(matrix, MATRIX)
        assert labels == (["A", "B", "C"] if name == "object.json" else None)
    assert read_matrix(tmp_path / "contexts.npy")[0].shape == (2, 3, 3)


def test_read_game_takes_everything_in_the_file_and_lets_arguments_win(tmp_path):
    reference, weights = [0.2, 0.3, 0.5], [0.25, 0.75]
    content = {"preferences": [MATRIX, MATRIX], "beta": 0.0, "reference": reference, "weights": weights}
    path = write(tmp_path, "game.json", json.dumps(content))
    game = read_game(path)
    assert game.beta == 0.0
    np.testing.assert_allclose(game.reference, [reference, reference])
    np.testing.assert_allclose(game.weights, weights)
    other = read_game(path, beta=0.7, reference=[0.1, 0.1, 0.8])
    assert other.beta == 0.7 and other.reference[1, 2] == pytest.approx(0.8)
    assert read_game(write(tmp_path, "bare.csv", "\n".join(BODY))).beta == 0.1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", "0.5,0.8\n0.2,x\n", r"m.csv, line 2, column 2: 'x' must be a number"),
        ("m.csv", ",A,B\nA,0.5,0.8\nB,,0.5\n", r"m.csv, line 3, column 2: '' must be a number"),
        ("m.csv", "0.5,0.8\n0.2\n", "m.csv, line 2 has 1 cells, must have 2"),
        ("m.csv", "0.5,0.8,0.1\n0.2,0.5,0.1\n", r"m.csv holds an array of shape \(2, 3\), must be square"),
        ("m.csv", "0.5,nan\n0.2,0.5\n", r"m.csv: preferences\[0, 1\] = nan must be finite"),
        ("m.csv", "0.5,0.8\n0.3,0.5\n", r"m.csv: preferences\[0, 1\] \+ preferences\[1, 0\] = 1.1, must be 1"),
        ("m.csv", "A,B\n", "m.csv has a header and no rows"),
        ("m.csv", ",A,B\nB,0.5,0.8\nA,0.2,0.5\n", "m.csv: row 'B' and column 'A' must be the same action, in the same order"),
        ("m.csv", "A,B,C\n0.5,0.8\n0.2,0.5\n", "m.csv has a header of 3 labels over 2 columns"),
        ("m.csv", "A,A\n0.5,0.8\n0.2,0.5\n", "m.csv: labels has 'A' more than once"),
        ("m.csv", b"\xff\xfe0\x00", "m.csv is not UTF-8 text"),
        ("m.csv", "", "m.csv is empty"),
        ("m.json", "[[0.5, 0.8], [0.2, 0.5]", "m.json is not JSON"),
        ("m.json", "[" * 100_000, "m.json is not JSON"),
        ("m.json", "3", "m.json must hold a list of lists"),
        ("m.json", '{"matrix": []}', 'an object with "preferences"'),
        ("m.json", '{"preferences": [[0.5]], "lables": ["A"]}', "has the key 'lables', .*did you mean 'labels'?"),
        ("m.json", '{"preferences": [[0.5]], "labels": "A"}', '"labels" must be a list of strings'),
        ("m.json", '{"preferences": [[0.5]], "labels": ["A", "B"]}', "has 2 labels for 1 actions"),
        ("m.json", "[[0.5, 0.8], [0.2]]", "m.json: preferences must be an array of numbers"),
        ("m.json", '{"preferences": [[0.5]], "beta": -1}', "m.json: beta = -1 must not be negative"),
        ("m.npy", b"no array", "m.npy is not a NumPy array file, must be written by numpy.save"),
        ("m.npy", b"\x93NUMPY\x01\x00", "m.npy cannot be read as an array of numbers"),
        ("m.txt", "0.5", "has the extension '.txt', must be .csv, .npy or .json"),
    ],
)
def test_bad_matrices_are_refused(name, content, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_game(write(tmp_path, name, content))


def test_npy_files_of_objects_or_text_are_refused_unread(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([[{}]]), allow_pickle=True)
    with pytest.raises(DataError, match="objects.npy cannot be read as an array of numbers: Object arrays cannot be loaded"):
        read_matrix(tmp_path / "objects.npy")
    np.save(tmp_path / "text.npy", np.array([["x"]]))
    with pytest.raises(DataError, match="text.npy holds <U1 entries, must be real numbers"):
        read_matrix(tmp_path / "text.npy")
    with pytest.raises(DataError, match="gone.npy does not exist"):
        read_matrix(tmp_path / "gone.npy")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="folder.csv is a folder"):
        read_matrix(tmp_path / "folder.csv")


def test_comparisons_are_told_from_matrices(tmp_path):
    assert looks_like_comparisons(write_csv(tmp_path, VOTES))
    assert looks_like_comparisons(write_csv(tmp_path, [], ("id", "model_a", "model_b", "winner")))
    assert looks_like_comparisons(write_csv(tmp_path, [], ("item_i", "item_j", "wins_i", "wins_j")))
    assert not looks_like_comparisons(write(tmp_path, "matrix.csv", "\n".join(BODY)))
    assert not looks_like_comparisons(write(tmp_path, "labels.csv", "\n".join([",A,B,C", *(f"A,{row}" for row in BODY)])))
    assert not looks_like_comparisons(write(tmp_path, "binary.csv", b"\xff\x00"))
    assert not looks_like_comparisons(tmp_path / "gone.csv")
    assert [looks_like_comparisons(f"x.{end}") for end in ("jsonl", "parquet", "JSONL", "json", "npy")] == [True] * 3 + [
        False
    ] * 2
