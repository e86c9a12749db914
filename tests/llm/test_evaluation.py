"""What an evaluation measures, against closed forms.

Truth: sums over all responses of a model that is a table, or of one whose responses are enumerated.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from small import CYCLE, gpt2
from training import Lookup, Untrustworthy, train_on

import nlhfsim.llm.evaluation as evaluation
from nlhfsim.llm import NashTrainer, oracles
from nlhfsim.llm.oracles import Verdicts

REFERENCE = np.log(np.array([[0.5, 0.3, 0.2]] * 3))
POLICY = np.log(np.array([[0.2, 0.2, 0.6]] * 3))
TARGET = np.log(np.array([[0.1, 0.8, 0.1]] * 3))
MANY = 4000


def table_trainer(oracle: Any, prompts: int = MANY, **given: Any) -> NashTrainer:
    """The three views are three rows: a response is one token, and every prompt has the same distribution."""
    fields: dict[str, Any] = dict(max_new_tokens=1, precision="float64", **given)
    trainer = train_on(Lookup(REFERENCE), oracle, [[k % 3] for k in range(prompts)], held_out=None, **fields)
    trainer.held_out = trainer.prompts
    with torch.no_grad():
        trainer.policies.masters["table.weight"].copy_(torch.tensor(POLICY))
        if trainer.policies.shadow:
            trainer.policies.shadow["table.weight"].copy_(torch.tensor(TARGET))
    return trainer


def kl(first: Any, second: Any) -> float:
    return float((np.exp(first[0]) * (first[0] - second[0])).sum())


def test_win_rates_kl_and_entropy() -> None:
    trainer = table_trainer(oracles.MatrixOracle(CYCLE, [(0,), (1,), (2,)]))
    found = trainer.evaluate()
    policy = np.exp(POLICY[0])
    for name, other in (("reference", np.exp(REFERENCE[0])), ("target", np.exp(TARGET[0]))):
        right = policy @ CYCLE @ other
        spread = math.sqrt(policy @ (CYCLE - right) ** 2 @ other / MANY)
        assert abs(found[f"win_rate_{name}"] - right) < 4 * spread
        assert abs(right - 0.5) > 6 * spread
    assert found["kl_reference"] == pytest.approx(kl(POLICY, REFERENCE), abs=1e-9)
    assert found["kl_target"] == pytest.approx(kl(POLICY, TARGET), abs=1e-9)
    assert found["entropy"] == pytest.approx(-float((policy * np.log(policy)).sum()), abs=1e-9)
    assert found["length"] == 1 and found["order_disagreement"] == pytest.approx(0, abs=1e-12) and found["invalid"] == 0


class OfThePrompt:
    """Each prompt has a chance of its own for whatever is said to it."""

    chances = np.array([0.9, 0.2, 0.65])

    def compare(self, prompts: Any, left: Any, right: Any) -> Any:
        return self.chances[[prompt.number % 3 for prompt in prompts]]


def test_responses_to_one_prompt_are_no_prompts_of_their_own() -> None:
    """Where the chance is the prompt's, 16 responses to each say no more than one: the spread of the prompts decides."""
    oracle = OfThePrompt()
    for copies in (1, 16):
        trainer = table_trainer(oracle, 3, evaluation_responses=copies)
        with torch.no_grad():  # nothing is said twice, so that there are no ties
            trainer.policies.masters["table.weight"].copy_(torch.tensor([[50.0, 0.0, 0.0]] * 3))
            for name in ("reference", "target"):
                with trainer.policies.view(name) as model:
                    model.table.weight.copy_(torch.tensor([[0.0, 50.0, 0.0]] * 3))
        found = trainer.evaluate()
        for name in ("reference", "target"):
            assert found[f"win_rate_{name}"] == pytest.approx(oracle.chances.mean())
            assert found[f"win_rate_{name}_error"] == pytest.approx(oracle.chances.std(ddof=1) / math.sqrt(3))


def test_the_standard_error_is_how_far_win_rates_scatter() -> None:
    """Prompts with chances of their own, responses that scatter around them, and verdicts that are missing unevenly."""
    rng = np.random.default_rng(5)
    means, errors = [], []
    for _ in range(2000):
        wins = np.clip(rng.beta(2, 2, (40, 1)) + 0.2 * rng.standard_normal((40, 5)), 0, 1)
        wins[rng.random((40, 5)) < rng.random((40, 1)) ** 2] = np.nan
        mean, error = evaluation.win_rate(wins)
        means.append(mean)
        errors.append(error)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.05)
    naive = np.mean(np.nanstd(wins) / math.sqrt((~np.isnan(wins)).sum()))
    assert naive < 0.8 * np.std(means)


def test_one_prompt_has_no_standard_error() -> None:
    """And a prompt without a verdict is none."""
    for wins in ([[0.2, 0.6]], [[0.2, 0.6], [math.nan, math.nan]]):
        mean, error = evaluation.win_rate(np.array(wins))
        assert mean == pytest.approx(0.4) and math.isnan(error)
    assert all(math.isnan(value) for value in evaluation.win_rate(np.full((3, 2), math.nan)))


def test_the_other_way_round_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The defect of asking for the opponent's chance."""
    ask = evaluation.ask
    monkeypatch.setattr(evaluation, "ask", lambda oracle, prompts, left, right: ask(oracle, prompts, right, left))
    with pytest.raises(AssertionError):
        test_win_rates_kl_and_entropy()


def test_without_a_target() -> None:
    found = table_trainer(oracles.MatrixOracle(CYCLE, [(0,), (1,), (2,)]), 6, method="online_ipo").evaluate()
    assert (
        found["win_rate_target"] is None
        and found["win_rate_target_error"] is None
        and found["kl_target"] is None
        and found["win_rate_reference"] is not None
    )


def test_kl_is_exact_at_every_token() -> None:
    """The mean over draws of Σ_t KL_t is the KL of whole responses, here over all 27; and has a far smaller variance than the
    difference of log-probabilities, so 1600 draws fix it to a few per cent."""
    trainer = train_on(gpt2(), method="online_ipo", max_new_tokens=3, precision="float64", exact_check=True, logprob_chunk=7)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in trainer.policies.masters.values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    game, prompts = trainer.exact, trainer.prompts
    assert game is not None
    logs, reference = game.log_policy(), game.log_policy("reference")
    right = (np.exp(logs) * (logs - reference)).sum(1).mean()
    trainer.held_out = prompts * 400
    found = trainer.evaluate()
    assert found["kl_reference"] == pytest.approx(right, rel=0.05) and right > 0.05
    assert found["entropy"] == pytest.approx(-(np.exp(logs) * logs).sum(1).mean() / 3, rel=0.02)


class Biased:
    """Says 0.1 too much for whoever is on the left."""

    def compare(self, prompts: Any, left: Any, right: Any) -> Any:
        rows = [[one.tokens[0] for one in side] for side in (left, right)]
        return CYCLE[rows[0], rows[1]] * 0.8 + 0.1 + 0.1


def test_order_disagreement() -> None:
    """p(y, y') + p(y', y) - 1 is 0.2 of every pair that is asked, and pairs of equal responses are not."""
    for method in ("online_ipo", "nash_prox"):
        found = table_trainer(Biased(), 30, method=method).evaluate()
        assert found["order_disagreement"] == pytest.approx(0.2)
    assert table_trainer(oracles.BothOrders(Biased()), 30).evaluate()["order_disagreement"] == pytest.approx(0, abs=1e-12)


def test_equal_responses_tie() -> None:
    """Where policies always say the same nothing is asked."""

    class Refuses:
        def compare(self, *_: Any) -> Any:
            raise AssertionError("asked")

    trainer = table_trainer(Refuses(), 10, allowed_tokens=(1,))
    found = trainer.evaluate()
    assert found["win_rate_reference"] == found["win_rate_target"] == 0.5 and found["invalid"] == 0
    assert math.isnan(found["order_disagreement"]) and found["kl_reference"] == 0


def test_missing_verdicts_are_left_out_and_counted() -> None:
    oracle = Untrustworthy(oracles.FunctionOracle(lambda *_: 0.9), lambda call, k: k % 2 == 0)
    found = table_trainer(oracle, 300, method="online_ipo").evaluate()
    policy, reference = np.exp(POLICY[0]), np.exp(REFERENCE[0])
    ties = float(policy @ reference)
    assert found["invalid"] == pytest.approx((1 - ties) / 2, abs=0.1)
    assert found["win_rate_reference"] == pytest.approx((0.5 * ties + 0.9 * (1 - ties) / 2) / (1 - found["invalid"]), abs=0.06)
    none = table_trainer(Untrustworthy(oracles.FunctionOracle(lambda *_: 0.9), lambda *_: False), 8)
    found = none.evaluate()
    assert math.isnan(found["order_disagreement"]) and 0 < found["invalid"] <= 1


def test_one_view_without_a_verdict_does_not_hide_the_other() -> None:
    """Against the target no pair has a verdict; the disagreement of the others is still there."""

    class AgainstTheReference:
        calls = 0

        def compare(self, prompts: Any, left: Any, right: Any) -> Any:
            self.calls += 1
            return Verdicts(Biased().compare(prompts, left, right), np.full(len(prompts), self.calls <= 2))

    found = table_trainer(AgainstTheReference(), 30).evaluate()
    assert found["order_disagreement"] == pytest.approx(0.2) and found["win_rate_target"] == 0.5  # the ties alone


def test_an_evaluation_leaves_the_trainer_alone_and_repeats() -> None:
    from training import assert_same_state, state_of

    trainer = table_trainer(oracles.MatrixOracle(CYCLE, [(0,), (1,), (2,)]), 30)
    before = state_of(trainer)
    first, second = trainer.evaluate(), trainer.evaluate()
    assert_same_state(before, state_of(trainer))
    assert first == second
    trainer.taken = 1
    assert trainer.evaluate()["win_rate_reference"] != first["win_rate_reference"]


def test_parts_of_the_held_out_prompts_are_all_of_them() -> None:
    """Sums are over parts of as many responses as a step has."""
    found = []
    for prompts_per_step in (1, 100):
        trainer = train_on(copy.deepcopy(gpt2()), prompts_per_step=prompts_per_step, held_out=[[0], [1, 2], [2, 2, 2]] * 7)
        with torch.no_grad():
            trainer.policies.masters["transformer.wte.weight"].copy_(torch.linspace(-1, 1, 96).reshape(3, 32))
        found.append({name: value for name, value in trainer.evaluate().items() if name not in ("kind", "step")})
    assert found[0] == pytest.approx(found[1], rel=1e-5)
