"""The benchmarks of language models check what they report, and say what is missing; tiny sizes, and TRL is not needed."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nlhfsim as nl
from benchmarks import language_game, language_models, trl, trl_work
from benchmarks._measure import NOT_INSTALLED, DisagreementError

METHODS = {name: language_models.METHODS[name] for name in list(language_models.METHODS)[:2]}


def test_the_game_is_one_and_its_exploitability_is_that_of_the_core() -> None:
    """Rows and columns sum to one, there is a cycle, and the definition in plain NumPy agrees with the core."""
    preferences = language_game.preferences()
    game = nl.PreferenceGame(preferences, beta=0.1, reference=np.exp(language_game._log_policy(language_game.model())))
    assert 0 <= preferences.min() and preferences.max() <= 1 and nl.games.majority_cycles(nl.PreferenceGame(preferences[0]))
    assert game.reference.max() > 5 * game.reference.min()
    policy = language_game.model()
    for weight in policy.parameters():
        weight.data *= 1.5
    right = nl.exploitability(game, log_policy=language_game._log_policy(policy))
    assert right > 0.1 and language_game.by_definition(policy, 0.1) == pytest.approx(right, abs=1e-6)


def test_a_quick_run_has_a_row_a_method_and_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two methods at one rate behind the three runs that come close; the start is the same for all."""
    monkeypatch.setattr(language_models, "QUICK", language_models.Effort(4, 4, 4, 2))
    report = language_models.run(quick=True, out=tmp_path, rates=(1e-3,), methods=METHODS, workers=1)
    assert [row["name"] for row in report.rows[3:]] == list(METHODS)
    assert all(np.isfinite(row["final"]) and row["lowest"] <= row["final"] <= row["highest"] for row in report.rows[3:])
    assert len({row["start"] for row in report.rows[3:]}) == 1
    assert f"0 of {len(report.rows[3:]) // 2} rates: none" in report.notes[-1]


def test_an_exploitability_that_is_not_the_models_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_game, "by_definition", lambda policy, beta: 0.5)
    with pytest.raises(DisagreementError, match="exploitability differs from the right answer"):
        language_game.play(steps=4, marks=1, feedback="exact", learning_rate=1e-3)


@dataclass
class Played:
    """A run by its path."""

    exploitability: list[float]
    processor: float = 1.0
    seconds: float = 2.0


def test_the_best_rate_and_the_good_ones_are_told() -> None:
    """Medians over seeds; the best is the lowest at the end."""
    rows = [
        language_models._row("x", rate, [Played([1.0, 0.5, 0.25, last]) for last in ends])
        for rate, ends in ((0.1, (0.3, 0.1, 0.2)), (0.2, (0.009, 0.001, 0.8)), (0.4, (0.0095, 0.005, 0.007)))
    ]
    assert [row["final"] for row in rows] == [0.2, 0.009, 0.007] and rows[1]["highest"] == 0.8
    said = language_models._summary("x", rows)
    assert said.startswith(
        "x: best at 0.4, where E_β is 0.5 after a quarter, 0.25 after half, 0.007 at the end (0.005 to 0.0095)"
    )
    assert said.endswith("2 of 3 rates: 0.2 to 0.4")


def test_trl_is_said_to_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(trl.importlib, "import_module", missing)
    assert trl.run(quick=True, out=tmp_path).rows == [{"contestant": "TRL", "note": NOT_INSTALLED}]


def test_ours_makes_the_tokens_that_it_is_timed_for() -> None:
    """Whole steps; fewer tokens, or a loss that is not finite, are no result."""
    work = trl_work.Work(new_tokens=3)
    assert len(trl_work.by_nlhfsim(work, "online_ipo", 1)) == 1
    with pytest.raises(DisagreementError, match="made 2.5 tokens a response instead of 3"):
        work.ensure_done("x", 2.5, 0.1)
    with pytest.raises(DisagreementError, match="not finite"):
        work.ensure_done("x", 3.0, float("nan"))


def test_ours_works_where_trl_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a machine with a GPU, which we would take of ourselves."""
    asked: list[Any] = []

    def made(*_: Any, device: Any = None) -> None:
        asked.append(device)

    monkeypatch.setattr("nlhfsim.llm.NashTrainer", made)
    for on_gpu in (False, True):
        trl_work.our_trainer(trl_work.Work(on_gpu=on_gpu), "online_ipo", 1)
    assert asked == ["cpu", "cuda"]


def test_what_trl_prints_is_no_result(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Results go to standard output; a stand-in for TRL, which need not be here."""

    class Trainer:
        def __init__(self, **_: Any) -> None:
            self.training_step = None

        def train(self) -> None:
            print("{'train_runtime': 1.0}")

    made = types.ModuleType("trl.experimental.online_dpo")
    made.__dict__.update(OnlineDPOConfig=lambda **_: None, OnlineDPOTrainer=Trainer)
    for name, module in (("trl", types.ModuleType("trl")), ("trl.experimental", types.ModuleType("t")), (made.__name__, made)):
        monkeypatch.setitem(sys.modules, name, module)
    work = trl_work.Work(new_tokens=3)
    trl_work.trained(work, None, trl_work.Watch(work), 1)
    said = capsys.readouterr()
    assert said.out == "" and "train_runtime" in said.err


def test_the_gradient_of_ours_is_compared_with_the_definition_of_trl() -> None:
    """Its squared distance of the log-ratio from 1/(2β), the first response chosen in a tie: 4/β times ours."""
    import torch

    work = trl_work.Work(new_tokens=3)
    trainer = trl_work.our_trainer(work, "online_ipo", 1)
    watch: Any = type("Watch", (), {"prompts": work.texts() * 2, "tokens": [], "votes": [1.0] * 4 + [0.0] * 8 + [1.0] * 4})()
    watch.tokens = np.random.default_rng(0).integers(1, work.vocabulary, (16, 3)).tolist()
    watch.votes[3] = watch.votes[11] = 0.5
    with torch.no_grad():
        for weight in trainer.policies.model.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    responses, labels = trl._as_ours(trainer, watch)
    with torch.no_grad():
        ratios = trainer.estimator.score("policy", responses).sums - trainer.estimator.score("reference", responses).sums
    margin = (ratios[::2] - ratios[1::2]) * torch.tensor([1.0] * 4 + [-1.0] * 4)
    expected = (margin - 1 / (2 * trl_work.BETA)).square().mean() * trl_work.BETA / 4
    assert trainer.estimator.backward(responses, labels).loss == pytest.approx(float(expected), rel=1e-5)
