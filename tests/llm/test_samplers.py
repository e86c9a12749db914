"""Who draws in place of the trainer: the same distribution, the same training, weights that are never stale.

Truth: responses that are enumerated; `generate` of transformers; a run of the trainer on its own, whose draws are replayed.
"""

from __future__ import annotations

import gc
import math
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from other_samplers import Failing, Generating, Replaying, Watched, generated, loaded
from small import MODELS, cyclic_oracle, gpt2, qwen2
from test_lora import randomize
from test_sampling import chi_square_p
from training import PROMPTS, SMALL, assert_same_state, copied, same, state_of, timeless
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from nlhfsim.errors import InputError
from nlhfsim.llm import NashConfig, NashTrainer
from nlhfsim.llm.samplers import Sampler, Samples, SamplingRequest, Weights
from nlhfsim.llm.samplers._draws import Apart

TOKENS = torch.tensor([[0, 1, 2, 1], [2, 2, 0, 1]])


def train_by(sampler: Any, model: Any = None, out: Any = None, **given: Any) -> NashTrainer:
    """A trainer of a small model whose draws are a sampler's, if there is one."""
    config = NashConfig(**(SMALL | given))
    oracle = cyclic_oracle(3, config.max_new_tokens, config.stop_tokens or ())
    trainer = NashTrainer(gpt2() if model is None else model, None, oracle, PROMPTS, config, out=out, sampler=sampler)
    if isinstance(sampler, Watched):
        sampler.trainer = trainer
    return trainer


def shifted(trainer: NashTrainer, seed: int = 5) -> NashTrainer:
    """The trainer with policy and target somewhere else, each elsewhere."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for weights in (trainer.policies.masters, trainer.policies.shadow):
            for weight in weights.values():
                weight.add_(0.3 * weight.std() * torch.randn_like(weight))
    trainer.policies.publish()
    trainer.policies.publish_target()
    return trainer


class Stale(Generating):
    """Keeps the weights that it was handed first."""

    def load(self, view: str, weights: Weights) -> None:
        if view not in self.models:
            super().load(view, weights)


# The distribution


@pytest.mark.parametrize("view", ["policy", "reference", "target"])
def test_counts_are_the_enumerated_policy(view: str) -> None:
    """χ² of 4,500 draws against the responses that there are, three tokens of which one ends a response, tempered."""
    sampler = Generating(qwen2)
    fields: dict[str, Any] = dict(max_new_tokens=3, stop_tokens=(2,), temperature=0.7, exact_check=True)
    trainer = shifted(train_by(sampler, qwen2(), **fields))
    assert trainer.exact is not None
    prompts = trainer.prompts[:3]
    expected = np.exp(trainer.exact.log_mixture(((view, 1.0),)))[:3]
    found = trainer.estimator.draw(prompts, ((view, 1.0),), 1500)
    assert chi_square_p(trainer, found, expected) > 1e-4
    others = [name for name in ("policy", "reference", "target") if name != view]
    wrong = [np.exp(trainer.exact.log_mixture(((name, 1.0),)))[:3] for name in others]
    assert max(chi_square_p(trainer, found, one) for one in wrong) < 1e-4, "the test tells the views apart"


def test_allowed_tokens_and_truncation_are_asked_for_and_the_trainers_own_logs_are_of_the_allowed() -> None:
    """What a request has is what the configuration has."""
    sampler = Generating(qwen2)
    fields: dict[str, Any] = dict(allowed_tokens=(0, 2), top_k=2, top_p=0.9, allow_off_policy=True, temperature=1.5)
    trainer = shifted(train_by(sampler, qwen2(), **fields))
    found = trainer.estimator.draw(trainer.prompts, (("policy", 1.0),), 4)
    assert not bool((found.tokens == 1).any())
    torch.testing.assert_close(
        found.sampled, trainer.estimator.score("policy", found).log_probabilities, rtol=0, atol=1e-5  # type: ignore[arg-type]
    )
    [request] = sampler.requests
    assert request == SamplingRequest(
        view="policy",
        prompts=tuple(tuple(prompt) for prompt in PROMPTS),
        copies=4,
        max_new_tokens=2,
        temperature=1.5,
        allowed_tokens=(0, 2),
        stop_tokens=(),
        top_k=2,
        top_p=0.9,
        seed=request.seed,
    )
    assert isinstance(sampler, Sampler)


def test_seeds_are_of_the_trainers_generator_and_differ_from_draw_to_draw() -> None:
    """The same run asks the same again; as many prompts at once as `generation_batch` says."""
    runs = []
    for _ in range(2):
        sampler = Generating(gpt2)
        trainer = train_by(sampler, generation_batch=4, prompts_per_step=4)
        trainer.step()
        trainer.evaluate()
        trainer.sample(seed=3)
        runs.append([(request.seed, len(request.prompts)) for request in sampler.requests])
    assert runs[0] == runs[1] and len({seed for seed, _ in runs[0]}) == len(runs[0])
    assert [count for _, count in runs[0][:4]] == [1] * 4 and all(0 <= seed < 2**63 for seed, _ in runs[0])


def test_parts_that_are_drawn_one_after_another_are_put_together() -> None:
    """Prompts and responses of different lengths in parts, beside all at once."""
    trainer = train_by(Generating(gpt2), generation_batch=2, stop_tokens=(2,), max_new_tokens=3)
    found = trainer.estimator.draw(trainer.prompts, (("policy", 1.0),), 2)
    rows = [tuple(row[:length]) for row, length in zip(found.tokens.tolist(), found.mask.sum(1).tolist(), strict=True)]
    right = []
    for request in trainer.estimator.draws.sampler.requests:  # type: ignore[union-attr]
        right += generated(gpt2().eval(), request)[0]
    assert rows == [tuple(row) for row in right] and len({len(row) for row in rows}) > 1
    assert found.ended.tolist() == [row[-1] == 2 for row in rows]
    prompts = [
        [t for t, there in zip(*pair, strict=True) if there] for pair in zip(found.prompts, found.prompt_mask, strict=True)
    ]
    assert [list(map(int, prompt)) for prompt in prompts] == [prompt for prompt in PROMPTS for _ in range(2)]


# Training


@pytest.mark.parametrize(
    "fields", [dict(method="online_ipo"), dict(method="nash_prox"), dict(method="extragradient", lora_rank=2)]
)
@pytest.mark.parametrize("log", [None, -7.0], ids=["no logs", "wrong logs"])
def test_the_same_responses_give_the_same_weights(fields: dict[str, Any], log: float | None) -> None:
    """To the bit, whatever a sampler says their log-probabilities are: these are computed here."""
    draws: list[list[list[int]]] = []
    own = train_by(None, **fields, kl_estimator="token")
    draw = own.estimator.draw

    def noted(*arguments: Any) -> Any:
        found = draw(*arguments)
        draws.append([row[:n] for row, n in zip(found.tokens.tolist(), found.mask.sum(1).tolist(), strict=True)])
        return found

    own.estimator.draw = noted  # type: ignore[method-assign]
    rows = [own.step() for _ in range(3)]
    there = train_by(Replaying(draws, log), **fields, kl_estimator="token")
    for row in rows:
        found = timeless(there.step())
        ours, apart = timeless(row), {name: found.pop(name) for name in ("sampler_distance", "kl_sampler")}
        assert ours.pop("sampler_distance") < 1e-5 and ours.pop("kl_sampler") < 1e-6
        assert found == ours
        assert apart == {"sampler_distance": None, "kl_sampler": None} if log is None else apart["sampler_distance"] > 1
    assert same(own.policies.masters, there.policies.masters) and same(own.policies.shadow, there.policies.shadow)


def test_a_run_by_generate_comes_as_near_to_the_equilibrium() -> None:
    """Exploitability of a run by either."""
    fields: dict[str, Any] = dict(method="online_ipo", beta=0.2, steps=60, learning_rate=1e-3, schedule="linear", group_size=16)
    fields |= dict(exact_check=True, votes=False)
    left = []
    for sampler in (None, Generating(gpt2)):
        run = train_by(sampler, prompts_per_step=4, max_new_tokens=1, **fields).fit()
        left.append(run.evaluations["exploitability"])
    assert all(curve[-1] < 0.2 * curve[0] for curve in left), left


# Hand-over

EVALUATED = ["load policy", "draw policy", "load reference", "draw reference", "load target", "draw target"]
HANDED = {
    # before the run its evaluation; the reference never again, the policy when it has moved
    "online_ipo": (dict(method="online_ipo"), 2, [*EVALUATED[:4], "draw policy", "load policy", "draw policy"]),
    # the target moves at every second step, and only evaluations draw from it
    "nash_prox": (
        dict(method="nash_prox", refresh_every=2, evaluate_every=1),
        2,
        [*EVALUATED, "draw policy", "load policy", "draw policy", "draw reference", "draw target", "draw policy"],
    ),
    # there and back: at the half step, and after it
    "extragradient": (
        dict(method="extragradient"),
        2,
        [*EVALUATED[:4], "draw policy", "load policy", "draw policy", "load policy", "draw policy", "load policy", "draw policy"],
    ),
}


@pytest.mark.parametrize("lora", [None, 2])
@pytest.mark.parametrize("name", list(HANDED))
def test_weights_are_handed_over_when_they_have_changed_and_only_then(name: str, lora: int | None) -> None:
    """And every draw is from the weights that are in force."""
    fields, steps, right = HANDED[name]
    sampler = Watched(Generating(gpt2))
    trainer = train_by(sampler, **fields, lora_rank=lora, steps=steps)
    trainer.fit()
    last = ["load policy", "draw policy", "draw reference"] + EVALUATED[4:] * (name == "nash_prox")
    assert sampler.seen == right + last
    trainer.evaluate()
    assert sampler.seen[len(right + last) :] == [line for line in last if line.startswith("draw")]


def test_a_checkpoint_that_is_loaded_is_handed_over(tmp_path: Path) -> None:
    """To a new sampler everything, to the same one what training moves."""
    whole = train_by(Watched(Generating(gpt2)), out=tmp_path / "whole", method="nash_prox", steps=3, checkpoint_every=1)
    whole.fit()
    sampler = Watched(Generating(gpt2))
    trainer = train_by(sampler, out=tmp_path / "parts", method="nash_prox", steps=3, checkpoint_every=1)
    trainer.step()
    trainer.save()
    trainer.step()
    seen = len(sampler.seen)
    trainer.load(tmp_path / "parts" / "checkpoints" / "step-00000001")
    trainer.step()
    assert sampler.seen[seen:] == ["load policy", "draw policy"]
    again = Watched(Generating(gpt2))
    resumed = train_by(again, out=tmp_path / "parts", method="nash_prox", steps=3, checkpoint_every=1)
    resumed.fit()
    assert again.seen[:2] == ["load policy", "draw policy"] and again.seen.count("load reference") == 1
    assert same(resumed.policies.masters, whole.policies.masters), "and it draws by the seeds that it would have drawn by"


@pytest.mark.parametrize("fails", [dict(draw=1), dict(draw=2), dict(draw=3), dict(load=1), dict(load=2)])
def test_a_step_whose_sampler_fails_is_undone(fails: dict[str, int]) -> None:
    """At the first draw of a step, at that of the half step, and where weights are taken; then all goes on as if it had not."""
    right = train_by(Generating(gpt2), method="extragradient")
    sampler = Watched(Generating(gpt2))
    trainer = train_by(sampler, method="extragradient")
    trainer.estimator.draws.sampler = Failing(sampler, **fails)  # type: ignore[union-attr]
    for _ in range(3):
        before = state_of(trainer)
        try:
            trainer.step()
        except ConnectionError as error:
            assert "gone at a" in str(error)
            assert_same_state(before, state_of(trainer))
            trainer.step()
        right.step()
    assert max(trainer.estimator.draws.sampler.left.values()) <= 0  # type: ignore[union-attr]
    assert_same_state(state_of(right), state_of(trainer))


def test_a_run_whose_sampler_dies_is_saved_and_goes_on(tmp_path: Path) -> None:
    """To the bits of one that was not disturbed."""
    whole = train_by(Generating(gpt2), out=tmp_path / "whole", steps=4)
    whole.fit()
    with pytest.raises(ConnectionError):
        train_by(Failing(Generating(gpt2), draw=6), out=tmp_path / "parts", steps=4).fit()
    again = train_by(Generating(gpt2), out=tmp_path / "parts", steps=4)
    run = again.fit()
    assert run.status == "done" and same(again.policies.masters, whole.policies.masters)


# What is handed over


def tied() -> Any:
    """A model whose output layer is its embedding."""
    torch.manual_seed(0)
    shape: dict[str, Any] = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=3, intermediate_size=48, tie_word_embeddings=True, **shape))


@pytest.mark.parametrize("make", [*MODELS.values(), tied], ids=[*MODELS, "tied"])
@pytest.mark.parametrize("lora", [None, 3], ids=["full", "lora"])
def test_a_fresh_model_of_what_is_handed_over_has_the_logits_of_the_view(make: Any, lora: int | None, tmp_path: Path) -> None:
    """Directly, and from the folder that transformers loads; the reference to the bit, with adapters merged to rounding."""
    trainer = train_by(None, make(), lora_rank=lora, method="nash_prox")
    if lora is None:
        shifted(trainer)
    else:
        randomize(trainer.policies)
    logits = {}
    for view in ("policy", "reference", "target"):
        with torch.no_grad(), trainer.policies.view(view) as model:
            logits[view] = model(TOKENS).logits
        weights = Weights(trainer.policies, view)
        weights.save(tmp_path / view)
        for fresh in (loaded(make(), weights), AutoModelForCausalLM.from_pretrained(tmp_path / view)):
            with torch.no_grad():
                apart = float((fresh(TOKENS).logits - logits[view]).abs().max())
            assert apart <= (1e-4 if lora and view != "reference" else 0), view
    assert min(float((logits["policy"] - logits[view]).abs().max()) for view in ("reference", "target")) > 0.05


def test_merged_weights_are_made_one_at_a_time() -> None:
    """None of them is alive when the last has been read, and the model that is trained is as it was."""
    trainer = train_by(None, qwen2(), lora_rank=3)
    randomize(trainer.policies)
    own = {weight.data_ptr() for weight in trainer.policies.model.parameters()}
    before, made, alive = copied(dict(trainer.policies.model.named_parameters())), [], []
    for _, weight in Weights(trainer.policies, "policy"):
        if weight.data_ptr() not in own:
            made.append(weakref.ref(weight))
        alive.append(sum(one() is not None for one in made))
    del weight
    gc.collect()
    assert len(made) == 14 and max(alive) <= 2 and all(one() is None for one in made)
    assert same(before, dict(trainer.policies.model.named_parameters()))


# How far it is


@pytest.mark.parametrize("lora", [None, 2])
def test_a_right_sampler_is_at_no_distance_and_a_stale_one_is(lora: int | None) -> None:
    """From the second step on, as it learns."""
    rows = {}
    for kind in (Generating, Stale):
        trainer = train_by(kind(gpt2), learning_rate=3e-2, lora_rank=lora)
        rows[kind] = [trainer.step() for _ in range(3)]
    right = [row["sampler_distance"] for row in rows[Generating]]
    assert 0 < max(right) < 1e-5 and max(abs(row["kl_sampler"]) for row in rows[Generating]) < 1e-6
    wrong = [row["sampler_distance"] for row in rows[Stale]]
    assert wrong[0] < 1e-5 < 1e-2 < wrong[1] < wrong[2] and rows[Stale][2]["kl_sampler"] > 1e-4


def test_without_log_probabilities_there_is_nothing_to_compare() -> None:
    """Nor where a mixture is drawn from; what is drawn here is compared as a sampler's is."""
    for row in (train_by(Generating(gpt2, logs=False)).step(), train_by(None, method="ipo_md").step()):
        assert row["sampler_distance"] is None and row["kl_sampler"] is None and row["loss"] is not None
    trainer = train_by(None)
    assert 0 < trainer.step()["sampler_distance"] < 1e-5
    draw = trainer.estimator.draw

    def off(*given: Any) -> Any:
        found = draw(*given)
        return replace(found, sampled=torch.where(found.mask, found.sampled - 0.01, 0.0))

    trainer.estimator.draw = off  # type: ignore[method-assign]
    assert trainer.step()["sampler_distance"] == pytest.approx(0.01, rel=1e-3)


def test_the_divergence_is_that_of_the_distributions() -> None:
    """KL(sampler ‖ here) of whole responses by enumeration; of 6,000 draws, to four standard errors."""
    here, there = (shifted(train_by(None, max_new_tokens=3, stop_tokens=(2,), exact_check=True), seed) for seed in (1, 2))
    assert here.exact is not None and there.exact is not None
    log_here, log_there = (one.exact.log_mixture((("policy", 1.0),))[0] for one in (here, there))  # type: ignore[union-attr]
    right = float((np.exp(log_there) * (log_there - log_here)).sum())
    drawn = there.estimator.draw(there.prompts[:1], (("policy", 1.0),), 6000)
    logs = here.estimator.score("policy", drawn).log_probabilities.detach()
    parts = [Apart.of(drawn.rows(slice(k, k + 300)), logs[k : k + 300, : drawn.tokens.shape[1]]) for k in range(0, 6000, 300)]
    found = [part.metrics()["kl_sampler"] for part in parts]
    mean, error = float(np.mean(found)), float(np.std(found, ddof=1)) / math.sqrt(len(found))  # type: ignore[arg-type]
    assert right > 0.02 and abs(mean - right) < 4 * error < 0.2 * right
    whole = Apart(*map(sum, zip(*parts, strict=True)))  # type: ignore[arg-type]
    apart = float((logs.double() - drawn.sampled.double())[drawn.mask].abs().mean())  # type: ignore[union-attr]
    assert whole.metrics()["sampler_distance"] == pytest.approx(apart)


# Refused


@pytest.mark.parametrize("method", ["nash_md", "ipo_md"])
def test_mixtures_are_refused(method: str) -> None:
    """Not where all weight is on one policy."""
    with pytest.raises(InputError, match=f"method = '{method}' draws from a mixture of policy and reference.*set mixing = 0"):
        train_by(Generating(gpt2), method=method)
    for mixing, views in ((0.0, {"policy"}), (1.0, {"policy", "reference"} if method == "nash_md" else {"reference"})):
        sampler = Generating(gpt2)
        train_by(sampler, method=method, mixing=mixing).step()
        assert {request.view for request in sampler.requests} == views


@pytest.mark.parametrize("sampler", [Generating, 3, "served"])
def test_what_is_no_sampler_is_refused(sampler: Any) -> None:
    with pytest.raises(InputError, match=r"must have the methods load\(view, weights\) and sample\(request\)"):
        train_by(sampler)


class Saying(Generating):
    """Says what it is told to."""

    def __init__(self, said: Any) -> None:
        super().__init__(gpt2)
        self.said = said

    def sample(self, request: SamplingRequest) -> Any:
        return self.said


def rows(**changed: Any) -> list[list[Any]]:
    """Four rows of at most three tokens, with 2 as the one that ends them, some changed."""
    found: list[list[Any]] = [[0, 1, 0], [2], [1, 2], [0, 0, 2]]
    for k, row in changed.items():
        found[int(k[1:])] = row
    return found


def logs(**changed: Any) -> list[list[Any]]:
    found: list[list[Any]] = [[-0.5] * len(row) for row in rows()]
    for k, row in changed.items():
        found[int(k[1:])] = row
    return found


WHERE = r"^Saying.sample: row 2 \(response 0 to prompt 1\) "
DEFECTS = {
    "too few": (rows()[:3], r"^Saying.sample returned 3 rows, must be 4: 2 for each of 2 prompts"),
    "too many": ([*rows(), [2]], "returned 5 rows, must be 4"),
    "no rows": (7, "^Saying.sample returned 7, must be a row of tokens for each response"),
    "flat": ([0, 1, 2, 0], "must be a row of tokens for each response"),
    "nothing": (None, "^Saying.sample returned None, must be a row"),
    "empty": (rows(_2=[]), WHERE + "has 0 tokens, must have 1 to max_new_tokens = 3"),
    "too long": (rows(_2=[0, 1, 0, 2]), WHERE + "has 4 tokens, must have 1 to max_new_tokens = 3"),
    "no such token": (rows(_2=[0, 3, 2]), WHERE + r"has 3 at \[1\], must be the number of a token, from 0 to 2"),
    "negative": (rows(_2=[-1, 2]), WHERE + r"has -1 at \[0\]"),
    "a share": (rows(_2=[0.0, 2]), WHERE + r"has 0.0 at \[0\]"),
    "a flag": (rows(_2=[True, 2]), WHERE + r"has True at \[0\]"),
    "goes on": (rows(_2=[2, 0, 1]), WHERE + r"goes on behind the stop token 2 at \[0\], must end with it"),
    "breaks off": (
        rows(_2=[0, 1]),
        WHERE + r"ends after 2 tokens with token 1, must end at max_new_tokens = 3 or with one of stop_",
    ),
    "fewer logs": (Samples(rows(), logs()[:3]), "^Saying.sample returned log-probabilities of 3 rows, must be 4"),
    "short logs": (Samples(rows(), logs(_2=[-1])), WHERE + "has 1 log-probabilities, must be 2, one for each token"),
    "infinite": (Samples(rows(), logs(_2=[-1, -math.inf])), WHERE + r"has -inf as log-probability at \[1\], must be a finite"),
    "absurd": (
        Samples(rows(), logs(_2=[-1, -1e308])),
        WHERE + r"has -1e\+308 as log-probability at \[1\], must be at least -700:",
    ),
    "unknown": (
        Samples(rows(), logs(_2=[-9999, -1])),
        WHERE + r"has -9999 as log-probability at \[0\], must be at least -700: a t",
    ),
    "missing": (Samples(rows(), logs(_2=[None, -1])), WHERE + r"has None as log-probability at \[0\]"),
    "probabilities": (Samples(rows(), logs(_2=[0.3, -1])), WHERE + r"has 0.3 as log-probability at \[0\], .* at most 0"),
}


@pytest.mark.parametrize("name", list(DEFECTS))
def test_what_is_no_answer_is_refused(name: str) -> None:
    """By the row that it is in, and nothing has changed."""
    said, words = DEFECTS[name]
    trainer = train_by(Saying(said), group_size=2, stop_tokens=(2,), max_new_tokens=3)
    before = state_of(trainer)
    with pytest.raises(InputError, match=words):
        trainer.step()
    assert_same_state(before, state_of(trainer))


def test_the_least_log_probabilities_have_a_finite_distance() -> None:
    """What is taken can be measured."""
    row = train_by(Saying(Samples(rows(), logs(_2=[-700, -700.0]))), group_size=2, stop_tokens=(2,), max_new_tokens=3).step()
    assert row["sampler_distance"] > 100 and math.isfinite(row["kl_sampler"])


def test_other_rules_make_other_rows_wrong() -> None:
    """Without stop tokens a short row is wrong; with allowed ones every other token is."""
    with pytest.raises(InputError, match=r"row 1 .*must end at max_new_tokens = 3, and there are no stop_tokens"):
        train_by(Saying(rows()), group_size=2, max_new_tokens=3).step()
    with pytest.raises(InputError, match=r"row 0 .* has token 1 at \[1\], which is not one of allowed_tokens"):
        train_by(Saying(rows()), group_size=2, max_new_tokens=3, stop_tokens=(2,), allowed_tokens=(0, 2)).step()


@pytest.mark.parametrize("said", [rows(), Samples(rows(), logs()), [np.array(row) for row in rows()], tuple(map(tuple, rows()))])
def test_right_rows_in_any_form_are_taken(said: Any) -> None:
    trainer = train_by(Saying(said), group_size=2, stop_tokens=(2,), max_new_tokens=3)
    found = trainer.estimator.draw(trainer.prompts[:2], (("policy", 1.0),), 2)
    assert found.tokens.tolist() == [[0, 1, 0], [2, 0, 0], [1, 2, 0], [0, 0, 2]]
    assert found.mask.sum(1).tolist() == [3, 1, 2, 3] and found.ended.tolist() == [False, True, True, True]
    whole = Saying(np.zeros((4, 3), dtype=np.int64))
    assert train_by(whole, group_size=2, max_new_tokens=3).step()["length"] == 3
