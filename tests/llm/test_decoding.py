"""A cache of a fixed size gives the samples of one that grows, also when its step is recorded and replayed.

Truth: the cache that grows, itself held against whole forwards in test_sampling.py. Where there is no GPU, what stands in for its
graph is the program of tensor operations that tracing records, which like a graph knows nothing of Python any more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
import torch
import transformers
from small import MODELS, cyclic_oracle, gpt2, qwen2
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from training import train_on
from transformers import Qwen2ForCausalLM
from transformers.modeling_utils import AttentionInterface

from nlhfsim.errors import InputError, NlhfsimWarning
from nlhfsim.llm import NashConfig, decoding, static_cache
from nlhfsim.llm.decoding import Decoder
from nlhfsim.llm.logprobs import Responses
from nlhfsim.llm.sampling import Limits, mixture_of, sample
from nlhfsim.llm.trainer import NashTrainer

PROMPTS = [(0,), (1, 2, 0, 2), (2, 1)]
LIMITS = Limits(6, (2,))
_SHAPE: dict[str, Any] = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
_SHAPE |= dict(intermediate_size=48, vocab_size=7, initializer_range=0.3, pad_token_id=0)
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _SHAPE,
    "qwen3": _SHAPE | {"head_dim": 16},
    "mistral": _SHAPE | {"sliding_window": 64},
    "gemma2": _SHAPE | {"head_dim": 16, "sliding_window": 64, "attn_logit_softcapping": 0.5, "query_pre_attn_scalar": 9},
    "gpt_neox": _SHAPE,
    "phi": _SHAPE,
    "opt": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48, "vocab_size": 7, "init_std": 0.3},
}


def model_of(family: str, **changes: Any) -> Any:
    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model(family, **FAMILIES.get(family, _SHAPE) | changes)
    load: Any = transformers.AutoModelForCausalLM.from_config
    # torch's own attention does not cap scores, and versions differ in whether Gemma 2 takes it.
    return load(config, **({"attn_implementation": "eager"} if family == "gemma2" else {}))


def trainer_of(model: Any, **fields: Any) -> NashTrainer:
    """A trainer whose policy has left the reference."""
    size = model.get_output_embeddings().weight.shape[0]
    given: dict[str, Any] = {"method": "nash_md", "max_new_tokens": 3, "stop_tokens": (2,)} | fields
    trainer = NashTrainer(model, None, cyclic_oracle(size, 1), [list(p) for p in PROMPTS], NashConfig(**given))
    torch.manual_seed(7)
    with torch.no_grad():
        for weight in trainer.policies.masters.values():
            weight.add_(0.2 * torch.randn_like(weight) * (weight.std() + 0.1))
    trainer.policies.publish()
    return trainer


def drawn(
    trainer: NashTrainer, decoder: Decoder | None, mixing: float = 0.0, copies: int = 5, limits: Limits = LIMITS
) -> Responses:
    generator = torch.Generator().manual_seed(11)
    space = trainer.estimator.space
    decoder = decoder or Decoder(trainer.policies, "eager")
    return sample(decoder, mixture_of(mixing), PROMPTS, copies, space, limits, generator)


def ensure_same(found: Responses, right: Responses, tolerance: float) -> None:
    for name in ("prompts", "prompt_mask", "tokens", "mask", "ended"):
        assert torch.equal(getattr(found, name), getattr(right, name)), name
    torch.testing.assert_close(found.sampled, right.sampled, rtol=0, atol=tolerance)


@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("mixing", [0.0, 0.4])
@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-6), ("float32", 1e-5)])
def test_same_samples(model: str, mixing: float, precision: str, tolerance: float) -> None:
    """Prompts of different lengths, responses that end, the policy and a mixture, twice with the same caches."""
    trainer = trainer_of(MODELS[model](), precision=precision)
    decoder = Decoder(trainer.policies, "static")
    right = drawn(trainer, None, mixing)
    for _ in range(2):
        ensure_same(drawn(trainer, decoder, mixing), right, tolerance)


def test_to_rounding() -> None:
    """Where all of a model is in float64."""
    trainer = trainer_of(gpt2(), precision="float64")
    ensure_same(drawn(trainer, Decoder(trainer.policies, "static")), drawn(trainer, None), 1e-13)


def test_log_probabilities_in_bfloat16() -> None:
    """Tokens may differ by rounding; what is said of those that were drawn is what scoring says."""
    trainer = trainer_of(qwen2(), precision="bfloat16", decoding="static")
    found = drawn(trainer, trainer.estimator.decoder)
    scores = trainer.estimator.score("policy", found)
    torch.testing.assert_close(found.sampled, scores.log_probabilities, rtol=0, atol=0.1)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_families(family: str) -> None:
    """Grouped heads, windows that are long enough, capped scores, other scalings and positions."""
    # Gemma 2 knows no padding in float64: what it adds to scores there has no place in the float32 of its softmax.
    trainer = trainer_of(model_of(family), precision="float32" if family == "gemma2" else "float64")
    ensure_same(drawn(trainer, Decoder(trainer.policies, "static")), drawn(trainer, None), 1e-5)


def test_what_training_changes_is_seen() -> None:
    """A cache is kept from step to step, and the weights are read where they are; the whole run is the same."""
    runs = []
    for decoding_of in ("eager", "static"):
        trainer = train_on(qwen2(), method="nash_prox", refresh_every=2, decoding=decoding_of, precision="float64", steps=4)
        trainer.fit()
        runs.append({name: weight.detach() for name, weight in trainer.policies.masters.items()})
    for name, weight in runs[0].items():
        torch.testing.assert_close(runs[1][name], weight, rtol=0, atol=1e-6)


def test_adapters() -> None:
    """The policy's on and the reference's off, each view with its own cache."""
    pytest.importorskip("peft")
    trainer = trainer_of(qwen2(), precision="float64", lora_rank=2)
    decoder = Decoder(trainer.policies, "static")
    for mixing in (0.0, 1.0, 0.5):
        ensure_same(drawn(trainer, decoder, mixing), drawn(trainer, None, mixing), 1e-6)
    assert set(decoder._kept) == {"policy", "reference"}


def test_one_cache_for_each_shape() -> None:
    """Other numbers of responses and lengths make a new one, which takes the place of the old one."""
    trainer = trainer_of(gpt2(), precision="float64")
    decoder = Decoder(trainer.policies, "static")
    drawn(trainer, decoder)
    first = decoder._kept["policy"]
    drawn(trainer, decoder, limits=Limits(20))
    assert decoder._kept["policy"] is first
    ensure_same(drawn(trainer, decoder, copies=3), drawn(trainer, None, copies=3), 1e-12)
    assert decoder._kept["policy"] is not first and len(decoder._kept) == 1


def traced(run: Callable[[], Tensor], device: Any = None) -> Callable[[], Tensor]:
    """Record a function as tensor operations, and return what does them again; it fails where a graph would."""
    program = make_fx(lambda: run(), tracing_mode="real")()
    return lambda: program()


@pytest.mark.parametrize("model", list(MODELS))
def test_a_recorded_step(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same samples, for the policy and a mixture, before and after the weights have changed in place."""
    recorded: list[Any] = []

    def record(run: Callable[[], Tensor], device: Any) -> Callable[[], Tensor]:
        recorded.append(run)
        return traced(run)

    trainer = trainer_of(MODELS[model](), precision="float64")
    decoder = Decoder(trainer.policies, "static")
    decoder.decoding = "graph"  # past the check for a GPU
    monkeypatch.setattr(decoding, "cuda_graph", record)
    for mixing in (0.0, 0.4, 0.0):
        ensure_same(drawn(trainer, decoder, mixing), drawn(trainer, None, mixing), 1e-6)
    with torch.no_grad():
        for weight in trainer.policies.masters.values():
            weight.mul_(0.9)
    ensure_same(drawn(trainer, decoder), drawn(trainer, None), 1e-6)
    assert len(recorded) == 2, "a step is recorded once for each view"


def test_a_step_that_looks_at_values_cannot_be_recorded() -> None:
    """The stand-in refuses what a graph cannot hold."""
    values = torch.ones(3)
    with pytest.raises(RuntimeError):
        traced(lambda: values * 2 if bool(values.sum() > 0) else values)


def test_what_cannot_be_recorded_is_decoded_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a graph was not asked for, with one warning; where it was, it is an error."""
    trainer = trainer_of(gpt2(), precision="float64")

    def fails(run: Any, device: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(decoding, "cuda_graph", fails)
    decoder = Decoder(trainer.policies, "static")
    decoder.decoding = "auto"
    with pytest.warns(NlhfsimWarning, match="decoding eagerly, which is slower than a graph: GPT2LMHeadModel: .*not permitted"):
        found = drawn(trainer, decoder)
    ensure_same(found, drawn(trainer, None), 0.0)
    ensure_same(drawn(trainer, decoder), found, 0.0)
    decoder = Decoder(trainer.policies, "static")
    decoder.decoding = "graph"
    with pytest.raises(InputError, match="'graph' does not work with GPT2LMHeadModel.*take decoding = 'eager'"):
        drawn(trainer, decoder)


def test_memory_that_runs_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not taken for a model that cannot be recorded."""
    trainer = trainer_of(gpt2(), decoding="static")

    def fails(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(static_cache.StaticWriter, "begin", fails)
    with pytest.raises(InputError, match="out of memory in generation"):
        trainer.step()


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [("bloom", {"n_head": 4, "n_layer": 2}, "takes no positions"), ("mistral", {"sliding_window": 2}, "window of 2")],
)
def test_models_that_need_a_cache_of_their_own(family: str, changes: dict[str, Any], words: str) -> None:
    """Are refused, and decode eagerly."""
    with pytest.raises(InputError, match=f"decoding = 'static' does not work with .*{words}.*; take decoding = 'eager'"):
        train_on(model_of(family, **changes), oracle=cyclic_oracle(7, 1), decoding="static")
    trainer = trainer_of(model_of(family, **changes), method="online_ipo")
    found = trainer.estimator.draw(trainer.prompts, mixture_of(0.0), 3)
    torch.testing.assert_close(found.sampled, trainer.estimator.score("policy", found).log_probabilities, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        ("mamba", {"state_size": 4}, "logits with a cache are others: what it draws would be of another policy"),
        ("rwkv", {}, "logits beside a longer prompt are others: it takes no notice of padding"),
    ],
)
def test_models_that_cannot_be_drawn_from(family: str, changes: dict[str, Any], words: str) -> None:
    """Where a cache or padding changes what a token's probability is, what is drawn is not what is scored."""
    with pytest.raises(InputError, match=f"model is a .*{words}"):
        train_on(model_of(family, **changes), oracle=cyclic_oracle(7, 1))


def test_positions_that_depend_on_the_longest_text() -> None:
    """Are used only as far as they do not."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    further = {"original_max_position_embeddings": 8, "max_position_embeddings": 64, "eos_token_id": 0, "bos_token_id": 0}
    model = model_of("phi3", rope_parameters=rope | {"original_max_position_embeddings": 8}, **_SHAPE | further)
    assert train_on(model, oracle=cyclic_oracle(7, 1), max_new_tokens=5).prompts
    with pytest.raises(InputError, match="max_new_tokens = 8 must be below the model's context of 8 tokens"):
        train_on(model, oracle=cyclic_oracle(7, 1), max_new_tokens=8)


def test_a_window_shorter_than_prompt_and_response() -> None:
    """Is noticed when the prompts are there."""
    trainer = trainer_of(model_of("mistral", sliding_window=8), decoding="static")
    with pytest.raises(InputError, match="window of 8 tokens is shorter than prompt and response, 10 tokens"):
        drawn(trainer, trainer.estimator.decoder)


def test_a_graph_needs_a_gpu() -> None:
    with pytest.raises(InputError, match="decoding = 'graph' needs a CUDA device, and this one is cpu: take 'auto'"):
        Decoder(train_on(gpt2()).policies, "graph")


def test_auto_is_eager_on_a_cpu() -> None:
    assert not Decoder(train_on(gpt2()).policies, "auto").static


def _padding_is_read(query: Any, key: Any, value: Any, mask: Any, **given: Any) -> Any:
    return static_cache.one_query(None, query, key, value, torch.zeros_like(mask), **given)


def _heads_in_another_order(query: Any, key: Any, value: Any, mask: Any, **given: Any) -> Any:
    group = query.shape[1] // key.shape[1]
    return static_cache.one_query(None, query, key.repeat(1, group, 1, 1), value.repeat(1, group, 1, 1), mask, **given)


def _scores_not_scaled(query: Any, key: Any, value: Any, mask: Any, **given: Any) -> Any:
    return static_cache.one_query(None, query, key, value, mask, **given | {"scaling": 1.0})


@pytest.mark.parametrize("wrong", [_padding_is_read, _heads_in_another_order, _scores_not_scaled])
def test_wrong_attention_is_noticed_before_the_first_response(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 and bfloat16, by the comparison of one token."""
    monkeypatch.setitem(
        AttentionInterface._global_mapping, static_cache._ATTENTION, lambda module, *given, **named: wrong(*given, **named)
    )
    for precision in ("float32", "bfloat16"):
        with pytest.raises(InputError, match="with a cache of a fixed size its logits are others"):
            trainer_of(qwen2(), decoding="static", precision=precision)


def test_one_query_is_attention() -> None:
    """Against torch's own, with heads that share keys and values, and a mask."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, heads, length, 8, dtype=torch.float64) for heads, length in ((6, 1), (2, 5), (2, 5)))
    mask = torch.where(torch.rand(3, 1, 1, 5) < 0.3, -1e9, 0.0).double()
    found, _ = static_cache.one_query(None, query, key, value, mask, scaling=0.3)
    right = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(found, right.transpose(1, 2), rtol=0, atol=1e-13)


def test_scores_in_half_precision() -> None:
    """Are sums in float32, on a GPU without a copy of the keys: rounded scores are far from those of other kernels."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, heads, n, 64).bfloat16() for heads, n in ((4, 1), (2, 50), (2, 50)))
    mask = torch.zeros(3, 1, 1, 50, dtype=torch.bfloat16)
    found, _ = static_cache.one_query(None, query, key, value, mask, scaling=1.0)
    shared = [part.double().repeat_interleave(2, 1) for part in (key, value)]
    weights = torch.softmax(query.double() @ shared[0].mT, -1)
    right = (weights.bfloat16().double() @ shared[1]).transpose(1, 2)
    torch.testing.assert_close(found.double(), right, rtol=2**-8, atol=2e-3)
    with FakeTensorMode(allow_non_fake_inputs=False):
        query, key = (torch.empty(3, heads, n, 64, dtype=torch.bfloat16, device="cuda") for heads, n in ((4, 1), (2, 50)))
        scores = static_cache._products(query.reshape(3, 2, 2, 64), key)
        assert scores.shape == (3, 2, 2, 50) and scores.dtype == torch.float32 and scores.is_cuda


class _Shifted(Qwen2ForCausalLM):
    """A model that reads padding, and adds a number to all logits, which changes no probability."""

    shift, deaf = 0.0, True

    @wraps(Qwen2ForCausalLM.forward)
    def forward(self, *given: Any, **named: Any) -> Any:
        if self.deaf:
            named["attention_mask"] = None
        out = super().forward(*given, **named)
        out.logits = out.logits + self.shift
        return out


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("shift", [0.0, 20.0])
def test_what_all_logits_have_in_common_hides_nothing(precision: str, shift: float) -> None:
    """Nor is a model refused for it."""
    model = _Shifted(qwen2(7).config)
    model.shift = shift
    with pytest.raises(InputError, match="_Shifted, whose logits beside a longer prompt are others"):
        train_on(model, oracle=cyclic_oracle(7, 1), precision=precision)
    model.deaf = False
    assert train_on(model, oracle=cyclic_oracle(7, 1), precision=precision, max_new_tokens=1).step()["step"] == 1


def test_a_context_of_two_tokens() -> None:
    """Is enough for a prompt of one and a response of one."""
    model = model_of("gpt2", n_positions=2, n_embd=32, n_layer=2, n_head=4)
    trainer = train_on(model, oracle=cyclic_oracle(7, 1), prompts=[[0], [3]], max_new_tokens=1)
    assert trainer.step()["length"] == 1


def test_weights_that_are_no_numbers() -> None:
    model = qwen2()
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(InputError, match="whose logits are not finite: are its weights whole?"):
        train_on(model)
