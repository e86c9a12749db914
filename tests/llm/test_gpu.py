"""What only a GPU can show: a recorded graph gives the samples of the growing cache, and a run there is that of a CPU.

Skipped where there is none.
"""

from __future__ import annotations

import pytest
import torch
from small import MODELS, cyclic_oracle, qwen2

from nlhfsim.llm import NashConfig, NashTrainer, crosscheck
from nlhfsim.llm.logprobs import Responses

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
PROMPTS = [[0], [1, 2, 0, 2], [2, 1]]


def trainer_of(model: str, decoding: str, **fields: object) -> NashTrainer:
    given = {"method": "nash_md", "max_new_tokens": 6, "stop_tokens": (2,), "precision": "float64", "decoding": decoding}
    config = NashConfig(**given | fields)  # type: ignore[arg-type]
    return NashTrainer(MODELS[model](), None, cyclic_oracle(3, config.max_new_tokens, (2,)), PROMPTS, config, device="cuda")


def drawn(trainer: NashTrainer, mixing: float) -> Responses:
    mixture = tuple(part for part in (("policy", 1 - mixing), ("reference", mixing)) if part[1] > 0)
    generator = torch.Generator(device="cuda").manual_seed(3)
    return trainer.estimator.draw(trainer.prompts, mixture, 4, generator)


@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("mixing", [0.0, 0.5])
def test_a_graph_gives_the_same_samples(model: str, mixing: float) -> None:
    """Before and after a step, for the policy and a mixture."""
    graph, eager = trainer_of(model, "graph"), trainer_of(model, "eager")
    for _ in range(2):
        found, right = drawn(graph, mixing), drawn(eager, mixing)
        assert torch.equal(found.tokens, right.tokens) and torch.equal(found.mask, right.mask)
        torch.testing.assert_close(found.sampled, right.sampled, rtol=0, atol=1e-6)
        graph.step()
        eager.policies.model.load_state_dict(graph.policies.model.state_dict())


def test_auto_is_a_graph() -> None:
    trainer = trainer_of("qwen2", "auto")
    trainer.step()
    assert trainer.estimator.decoder.static and set(trainer.estimator.decoder._kept) == {"policy", "reference"}


def test_the_gradient_is_the_simulators() -> None:
    config = NashConfig(method="nash_prox", max_new_tokens=2, stop_tokens=(), precision="float64")
    found = crosscheck(qwen2(), None, cyclic_oracle(3, 2), PROMPTS, config, device="cuda")
    assert max(found.error, found.expected_error) < 1e-5
