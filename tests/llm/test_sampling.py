"""What is sampled is the policy: cached steps against a whole forward, counts against enumerated probabilities.

Truth: log-probabilities from whole logits without cache or padding; Pearson's χ².
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from small import MODELS, cyclic_oracle, gpt2, qwen2
from torch import Tensor

from nlhfsim.llm import NashConfig, NashTrainer, decoding, sampling
from nlhfsim.llm.logprobs import TokenSpace
from nlhfsim.llm.sampling import Limits, Mixture, draw, join, mixture_of, sample, truncated

POLICY: Mixture = (("policy", 1.0),)
PROMPTS = [(0,), (1, 2, 0, 2), (2, 1)]


def trainer_of(model: Any, length: int = 3, stop: tuple[int, ...] = (), **fields: Any) -> NashTrainer:
    """A trainer whose policy has left the reference; responses of three tokens."""
    given: dict[str, Any] = {"method": "nash_md", "max_new_tokens": length, "stop_tokens": stop} | fields
    trainer = NashTrainer(
        model, None, cyclic_oracle(3, length, stop), [list(p) for p in PROMPTS], NashConfig(**given, exact_check=True)
    )
    torch.manual_seed(7)
    with torch.no_grad():
        for weight in trainer.policies.masters.values():
            weight.add_(0.2 * weight.std() * torch.randn_like(weight))
    return trainer


def draws(trainer: NashTrainer, mixture: Mixture, copies: int, seed: int = 0, **changes: Any) -> Any:
    """Responses to the three prompts."""
    generator = torch.Generator().manual_seed(seed)
    limits = Limits(
        **{"max_new_tokens": trainer.config.max_new_tokens, "stop_tokens": trainer.estimator.limits.stop_tokens} | changes
    )
    estimator = trainer.estimator
    return sample(estimator.decoder, mixture, PROMPTS, copies, estimator.space, limits, generator)


def whole_forward(trainer: NashTrainer, mixture: Mixture, prompt: tuple[int, ...], response: tuple[int, ...]) -> Tensor:
    """Log-probabilities of a response's tokens under a mixture, from whole logits of each model."""
    logs: Any = 0.0
    for view, weight in mixture:
        with torch.no_grad(), trainer.policies.view(view) as model:
            logits = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
        logs = logs + weight * (logits / trainer.config.temperature).log_softmax(-1)
    return logs.log_softmax(-1).gather(-1, torch.tensor(response)[:, None])[:, 0]


def largest_step_error(trainer: NashTrainer, mixture: Mixture) -> float:
    """Largest distance between log-probabilities as drawn, with caches, and those of a whole forward."""
    found, errors = draws(trainer, mixture, 4), []
    for k in range(len(found)):
        length = int(found.mask[k].sum())
        right = whole_forward(trainer, mixture, PROMPTS[k // 4], tuple(found.tokens[k, :length].tolist()))
        errors.append(float((found.sampled[k, :length] - right).abs().max()))
        assert not found.sampled[k, length:].any() and not found.tokens[k, length:].any()
    return max(errors)


@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("mixing", [0.0, 0.3])
def test_cached_steps_are_a_whole_forward(model: str, mixing: float) -> None:
    """Through caches, padding on the left and a temperature, for the policy and the mixture."""
    trainer = trainer_of(MODELS[model](), length=6, stop=(2,), temperature=0.7, precision="float64")
    assert largest_step_error(trainer, mixture_of(mixing)) < 1e-6


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-12), ("float32", 3e-6), ("bfloat16", 0.1)])
def test_to_rounding(precision: str, tolerance: float) -> None:
    """Where all of the model is in one precision, its rounding is all that there is."""
    trainer = trainer_of(gpt2(), length=5, precision=precision)
    assert largest_step_error(trainer, mixture_of(0.4)) < tolerance


def test_one_cache_for_two_models_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer was found whose mixture hands the cache of the policy to the reference too."""
    first: dict[str, Any] = {}

    class Shared(decoding.Writer):
        def repeat(self, copies: int) -> None:
            super().repeat(copies)
            self.cache = first.setdefault("cache", self.cache)

    trainer = trainer_of(qwen2(), length=4)
    monkeypatch.setattr(decoding, "Writer", Shared)
    assert largest_step_error(trainer, mixture_of(0.4)) > 1e-2


@pytest.mark.parametrize("mixing", [0.0, 0.5])
@pytest.mark.parametrize("stop", [(), (2,)])
def test_counts_are_the_enumerated_policy(mixing: float, stop: tuple[int, ...]) -> None:
    """χ² of 12,000 draws in all against 27, or with a stop token 15, responses to each of three prompts."""
    trainer = trainer_of(qwen2(), stop=stop)
    assert trainer.exact is not None
    mixture, copies = mixture_of(mixing), 4000
    found, expected = draws(trainer, mixture, copies), np.exp(trainer.exact.log_mixture(mixture))
    assert chi_square_p(trainer, found, expected) > 1e-4


def chi_square_p(trainer: NashTrainer, found: Any, expected: Any) -> float:
    """The probability of counts at least as far from the expected ones; rare responses are one class."""
    assert trainer.exact is not None
    number = {tokens: k for k, tokens in enumerate(trainer.exact.responses)}
    seen = [number[text.tokens] for text in trainer.estimator.texts(found)]
    statistic, freedom, copies = 0.0, 0, len(seen) // len(PROMPTS)
    for x in range(len(PROMPTS)):
        counts = np.bincount(seen[x * copies : (x + 1) * copies], minlength=len(number))
        mean = copies * expected[x]
        common = mean >= 5
        groups = [*zip(counts[common], mean[common])]
        if not common.all():
            groups.append((counts[~common].sum(), max(mean[~common].sum(), 1e-9)))
        statistic += sum((count - about) ** 2 / about for count, about in groups)
        freedom += len(groups) - 1
    return float(scipy.stats.chi2.sf(statistic, freedom))


def test_another_temperature_is_noticed_by_the_counts() -> None:
    """The mutant of the test above."""
    trainer = trainer_of(qwen2())
    assert trainer.exact is not None
    expected = np.exp(trainer.exact.log_mixture(POLICY))
    trainer.estimator.space = TokenSpace(0.9)
    assert chi_square_p(trainer, draws(trainer, POLICY, 4000), expected) < 1e-6


def test_the_same_generator_draws_the_same() -> None:
    """And another, otherwise."""
    trainer = trainer_of(gpt2())
    first, again, other = draws(trainer, POLICY, 8), draws(trainer, POLICY, 8), draws(trainer, POLICY, 8, seed=1)
    assert torch.equal(first.tokens, again.tokens) and not torch.equal(first.tokens, other.tokens)


def test_responses_end_with_a_stop_token_or_at_the_limit() -> None:
    """The stop token belongs to the response, nothing follows it, and the longest decides the width."""
    found = draws(trainer_of(gpt2(), length=6, stop=(2,)), POLICY, 50)
    for tokens, mask, ended in zip(found.tokens.tolist(), found.mask.tolist(), found.ended.tolist(), strict=True):
        length = sum(mask)
        assert mask == [True] * length + [False] * (len(mask) - length)
        assert (tokens[length - 1] == 2) == ended and 2 not in tokens[: length - 1]
        assert ended or length == 6
    assert found.mask.any(0).all()


def test_parts_of_a_batch_are_put_together() -> None:
    """Whole prompts at a time, padded alike; what is asked for in parts differs in its draws, not in its form."""
    trainer = trainer_of(gpt2(), stop=(2,))
    generator = torch.Generator().manual_seed(0)
    found = sample(trainer.estimator.decoder, POLICY, PROMPTS, 4, trainer.estimator.space, Limits(3, (2,)), generator, batch=5)
    assert found.tokens.shape[0] == 12 and found.prompts.shape == (12, 4)
    assert [row[mask].tolist() for row, mask in zip(found.prompts[::4], found.prompt_mask[::4])] == [list(p) for p in PROMPTS]
    again = join([found.rows(slice(0, 5)), found.rows(slice(5, 12))])
    assert torch.equal(again.prompts, found.prompts) and torch.equal(again.tokens * again.mask, found.tokens * found.mask)


def test_allowed_tokens_only() -> None:
    """Others never occur, and probabilities are over the allowed ones."""
    config = NashConfig(method="online_ipo", max_new_tokens=3, stop_tokens=(), allowed_tokens=(5, 2))
    trainer = NashTrainer(gpt2(8), None, cyclic_oracle(3, 3), [[0]], config)
    found = trainer.estimator.draw(trainer.prompts, POLICY, 200)
    assert set(found.tokens.unique().tolist()) == {2, 5}
    scores = trainer.estimator.score("policy", found, entropy=True)
    assert scores.entropy is not None and float(scores.entropy.max()) <= np.log(2) + 1e-6
    assert torch.allclose(scores.log_probabilities, found.sampled, atol=1e-5)


def test_truncated_sampling() -> None:
    """top_k keeps the k likeliest; top_p the fewest that reach p."""
    logs = torch.log(torch.tensor([[0.5, 0.1, 0.3, 0.1], [0.05, 0.9, 0.02, 0.03]]))
    kept = truncated(logs, Limits(1, top_k=2)) > -torch.inf
    assert kept.tolist() == [[True, False, True, False], [True, True, False, False]]
    kept = truncated(logs, Limits(1, top_p=0.75)) > -torch.inf
    assert kept.tolist() == [[True, False, True, False], [False, True, False, False]]
    found = draws(trainer_of(gpt2()), POLICY, 100, top_k=1)
    assert len({tuple(row) for row in found.tokens[:100].tolist()}) == 1


def test_a_draw_inverts_the_distribution_function() -> None:
    """Places of probability 0 are never drawn, at either end."""
    logs = torch.log(torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]])).expand(20_000, 5)
    shares = torch.rand(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counts = torch.bincount(draw(logs, shares), minlength=5)
    assert counts[[0, 2, 4]].tolist() == [0, 0, 0]
    assert abs(int(counts[1]) - 5000) < 4 * np.sqrt(20_000 * 0.25 * 0.75)


@pytest.mark.parametrize("tokens", [3, 512, 513, 5000])
def test_draws_of_a_large_vocabulary(tokens: int) -> None:
    """Block after block or at once, a draw is where NumPy's running sum passes the share; the two ends have no chance."""
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.full(tokens, 0.3), size=400)
    chances[:, [0, -1]] = 0.0
    shares = np.concatenate([[0.0, 1 - 2**-53], rng.random(398)])
    with np.errstate(divide="ignore"):
        found = draw(torch.from_numpy(np.log(chances)), torch.from_numpy(shares)).numpy()
    reach = chances.cumsum(1)
    right = [np.searchsorted(row, share * row[-1], side="right") for row, share in zip(reach, shares)]
    assert found[2:].tolist() == right[2:]
    assert (chances[np.arange(400), found] > 0).all() and found[0] == np.flatnonzero(chances[0])[0]


def test_rounding_leads_to_no_token_without_a_chance() -> None:
    """What is left within a block may round to less than nothing, or to more than the block has."""
    chances = torch.rand(20_000, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    reach = chances.cumsum(-1)
    place, rest = sampling._inverse(chances, reach[:, 20:21] / reach[:, -1:])
    assert set(torch.unique(place).tolist()) <= {20, 21} and float(rest.min()) >= 0
    chances[:, [0, -1]] = 0.0
    for share, right in ((0.0, 1), (1.0, 38)):
        place, _ = sampling._inverse(chances, torch.full((20_000, 1), share, dtype=torch.float64))
        assert torch.unique(place).tolist() == [right]


def test_what_is_drawn_next_does_not_depend_on_when_responses_end() -> None:
    """The generator has moved by as much, whether a response ends at its first token or not at all."""
    trainer, states = trainer_of(gpt2(), length=6), []
    for stop in ((0, 1, 2), (2,), ()):
        generator = torch.Generator().manual_seed(5)
        limits = Limits(6, stop)
        found = sample(trainer.estimator.decoder, POLICY, PROMPTS, 2, trainer.estimator.space, limits, generator)
        assert found.tokens.shape[1] == int(found.mask.sum(1).max())
        states.append(generator.get_state())
    assert torch.equal(states[0], states[1]) and torch.equal(states[0], states[2])
