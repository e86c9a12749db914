"""Many runs at once: the same numbers as one by one, step sizes of their own, runs that diverge, continuations."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt
import pytest

import nlhfsim as nl
from nlhfsim import dynamics, in_place
from nlhfsim.errors import InputError
from nlhfsim.games.payoffs import DensePayoff, advantage
from nlhfsim.kernels import many, one, rows
from nlhfsim.simplex import log_softmax

Floats = npt.NDArray[np.float64]
pytestmark = pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")
TOGETHER = [name for name in dynamics.names() if dynamics.get(name).method.together]
KERNELS = [name for name in dynamics.names() if dynamics.get(name).method.kernel]


def example(name: str) -> dynamics.Dynamics:
    """The method's own example."""
    return dynamics.build(name, **dict(dynamics.get(name).method.example))


def game_of(n: int) -> nl.PreferenceGame:
    """A game with a peaked reference."""
    return nl.games.random_game(n, 7, "logistic", beta=0.1, reference=nl.games.random_reference(n, 8, 2.0))


def policies(n: int, runs: int) -> Floats:
    """Starts, one a run."""
    return np.random.default_rng(9).dirichlet(np.ones(n), size=runs)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 101])
@pytest.mark.parametrize("name", TOGETHER)
def test_together_is_alone(name: str, n: int) -> None:
    """Runs with steps of their own agree, compiled and plain, with each run alone at its step size."""
    game, starts = game_of(n), policies(n, 9)
    method = example(name)
    steps = float(method.step_size) * np.linspace(0.2, 1.0, 9)  # type: ignore[arg-type]
    many = method.with_step(tuple(steps))
    for compiled in (True, False):
        whole = nl.simulate(game, many, 6, start=starts, equilibrium=False, compiled=compiled, record_every=[2, 3])
        for run in range(9):
            alone = nl.simulate(
                game,
                method.with_step(steps[run]),
                6,
                start=starts[run],
                equilibrium=False,
                compiled=compiled,
                record_every=[2, 3],
            )
            assert whole.log_policies is not None and alone.log_policies is not None
            np.testing.assert_allclose(whole.log_policies[run], alone.log_policies[0], rtol=0, atol=1e-11)
            np.testing.assert_allclose(whole.exploitability[run], alone.exploitability[0], rtol=1e-6, atol=1e-14)


def test_a_step_of_another_run_is_noticed() -> None:
    """The comparison above can fail: with the step sizes in another order the runs differ."""
    game, starts = game_of(10), np.repeat(policies(10, 4), 2, axis=0)
    right, wrong = (
        nl.simulate(game, dynamics.NashMD(s), 6, start=starts, equilibrium=False) for s in (4 * [0.5, 1.0], 4 * [1.0, 0.5])
    )
    assert right.log_policies is not None and wrong.log_policies is not None
    assert np.abs(right.log_policies[:, -1] - wrong.log_policies[:, -1]).max() > 1e-3


@pytest.mark.parametrize("compiled", [True, False])
def test_a_run_that_diverges_leaves_the_others_alone(compiled: bool) -> None:
    """Of runs side by side one gets a step that overflows: it ends in NaN, its step named; the others go on unchanged."""
    game, starts = game_of(4), policies(4, 8)
    steps = [0.5, 1e308, 0.25, 1.5e308, 1.0, 0.1, 0.2, 0.3]
    options: dict[str, Any] = {"equilibrium": False, "record_every": 1, "compiled": compiled}
    whole = nl.simulate(game, dynamics.NaturalPG(steps), 8, start=starts, **options)
    assert whole.status == ("completed", "diverged", "completed", "diverged", *4 * ("completed",))
    assert whole.log_policies is not None
    for run, step in enumerate(steps):
        alone = nl.simulate(game, dynamics.NaturalPG(step), 8, start=starts[run], **options)
        assert alone.log_policies is not None and alone.status[0] == whole.status[run]
        np.testing.assert_allclose(whole.log_policies[run], alone.log_policies[0], rtol=1e-13, atol=1e-12)
        if whole.status[run] == "diverged":
            named = [note.partition("at step")[2] for note in whole.notes if f"run {run}:" in note]
            assert named == [note.partition("at step")[2] for note in alone.notes if "run 0:" in note]


@pytest.mark.parametrize("runs", [1, 8])
def test_minus_infinity_is_no_record(runs: int) -> None:
    """A policy that loses an action for good is diverged, and its record NaN, although its softmax is a number."""

    def step(state: Any, context: Any, step_size: Any, params: Any) -> Any:
        logits = np.array(state.logits)
        logits[..., 0] = -np.inf
        return dynamics.LogPolicy(logits)

    losing = dynamics.Dynamics(dynamics.Method(name="Losing", step=step, together=True, compiled=False), step_size=1.0)
    found = nl.simulate(game_of(3), losing, 4, start=policies(3, runs), equilibrium=False, record_every=1)
    assert set(found.status) == {"diverged"} and found.log_policies is not None
    assert np.isnan(found.log_policies[:, 1:]).all() and np.isfinite(found.log_policies[:, 0]).all()


def test_a_continuation_keeps_the_runs_together(tmp_path: Path) -> None:
    """run(5) continued by 6 is run(11) in every bit, with a step size for each run, also through a file; others are refused."""
    game, starts = game_of(6), policies(6, 8)
    for method in (
        dynamics.NashProx([0.5, 0.2, 1.0, 0.1, 0.3, 0.4, 0.6, 0.7], proximal_step=2.0, refresh_every=4),
        dynamics.NashMD([0.5, 0.2, 1.0, 0.1, 0.3, 0.4, 0.6, 0.7]),
    ):
        whole = nl.simulate(game, method, 11, start=starts, record_every=[5])
        part = nl.load(nl.simulate(game, method, 5, start=starts).save(tmp_path / "part"))
        np.testing.assert_array_equal(nl.simulate(game, method, 6, start=part).parameters, whole.parameters)
    with pytest.raises(InputError, match="a run continues only with the method it began with"):
        nl.simulate(game, dynamics.NashMD([0.9, 0.2, 1.0, 0.1, 0.3, 0.4, 0.6, 0.7]), 6, start=part)


def test_the_number_of_runs_is_said_once() -> None:
    """Step sizes, starts and `runs` must agree on the number of runs; the message names the two that do not."""
    game, method = game_of(3), dynamics.NashMD([0.5, 0.2])
    assert nl.simulate(game, method, 2).runs == 2
    assert nl.simulate(game, method, 2, runs=2, start="random").runs == 2
    with pytest.raises(InputError, match="step_size holds 2 values but runs = 3; they must agree"):
        nl.simulate(game, method, 2, runs=3)
    with pytest.raises(InputError, match="start holds 3 policies but"):
        nl.simulate(game, method, 2, start=policies(3, 3))
    for wrong, message in (
        ([0.5, -1.0], "step_size = -1 must be positive"),
        ([[0.5]], "must be one number, or one a run"),
        ([], "shape"),
    ):
        with pytest.raises(InputError, match=message):
            dynamics.NashMD(wrong)  # type: ignore[arg-type]


def test_a_comparison_takes_one_step_size() -> None:
    """Step sizes for each run are for `simulate`; `tune` and `compare` say where theirs go."""
    for attempt in (nl.tune, lambda game, method: nl.compare(game, [method])):
        with pytest.raises(InputError, match=r"has a step size for each run; .*: step_sizes = {'NashMD': \[0.5, 0.2\]}"):
            attempt(game_of(3), dynamics.NashMD([0.5, 0.2]))


def test_tuning_side_by_side_is_tuning_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """`tune` reports for every step size what a run of its own reaches, several runs and parameters included."""
    monkeypatch.setattr(importlib.import_module("nlhfsim.tuning"), "_WORTH_IT", 0)
    game = game_of(5)
    grid = {"step_size": [0.05, 0.4, 3.0, 50.0], "proximal_step": [1.0, 8.0]}
    tuning = nl.tune(game, dynamics.NashProx, grid, oracle_calls=60, runs=3, start="random")
    assert len(tuning.grid) == 8
    for point in tuning.grid:
        method = dynamics.NashProx(step_size=point["step_size"], proximal_step=point["proximal_step"])
        alone = nl.simulate(game, method, 60, runs=3, start="random")
        assert point["value"] == pytest.approx(float(np.median(alone.kl[:, -1])), rel=1e-6, abs=1e-15)
    assert tuning.best.parameters["step_size"] == min(tuning.grid, key=lambda point: point["value"])["step_size"]


# --- kernels and primitives -----------------------------------------------------------------------------------------------


def test_some_methods_have_kernels() -> None:
    """The tests of the contract run them against the plain steps (`test_compiled_is_plain`); here only that there are some."""
    assert {"MagneticMirrorDescent", "SelfPlayPG", "NashMirrorProx"} <= set(KERNELS) <= set(TOGETHER)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("shape", [(5,), (3, 5)])
def test_a_plain_kernel_is_its_step(name: str, shape: tuple[int, ...]) -> None:
    """Run as plain Python, a kernel overwrites the state with what the step returns."""
    context, method = game_of(5).contexts[0], example(name)
    logits = log_softmax(np.random.default_rng(0).standard_normal(shape))
    step: Any = method.step_size if len(shape) == 1 else np.full((3, 1), method.step_size)
    state = method.method.init(context, method.params, logits)
    expected = method.method.step(state, context, step, method.params)
    given = type(state)(*(np.array(field) for field in state))
    method.method.kernel(given, context, step, method.params, *(np.empty(shape) for _ in range(3)))  # type: ignore[misc]
    for field, right in zip(given, expected):
        np.testing.assert_allclose(field, right, rtol=0, atol=1e-13)


def test_the_compiled_exponential() -> None:
    """Within 2 units in the last place of mpmath's on [-708, 0]; exact at 0; 0 below; NaN and infinities as they should be."""
    values = np.concatenate([np.random.default_rng(0).uniform(-708, 0, 3000), -np.geomspace(1e-18, 700, 500)])
    found = np.empty_like(values)
    one.exp_all(found, values)
    exact = [mpmath.exp(mpmath.mpf(float(value))) for value in values]
    errors = [abs(mpmath.mpf(float(f)) - e) / mpmath.mpf(float(np.spacing(float(e)))) for f, e in zip(found, exact)]
    assert max(errors) <= 2
    special = np.array([0.0, -0.0, np.nan, -np.inf, -708.5, -1e300, np.inf])
    out = np.empty_like(special)
    one.exp_all(out, special)
    np.testing.assert_array_equal(out[:6], [1.0, 1.0, np.nan, 0.0, 0.0, 0.0])
    assert not np.isfinite(out[6])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 99, 100, 101, 102, 103, 257])
def test_compiled_products(n: int) -> None:
    """Rows four at a time, and the upper triangle alone, give Aπ for every remainder of n by 4."""
    game = nl.games.random_game(n, n, beta=0.1)
    matrix, policy = game.advantages, np.random.default_rng(n).dirichlet(np.ones(n))
    expected = np.array([sum(a * p for a, p in zip(row, policy)) for row in matrix])
    for product in (one.product, one.skew_product, one.dense):
        out = np.full(n, np.nan)
        product(out, matrix, policy)
        np.testing.assert_allclose(out, expected, rtol=0, atol=1e-15)
    left, right = np.random.default_rng(n).standard_normal((2, n, 3)) / 10
    out = np.full(n, np.nan)
    one.low_rank(out, left, right, policy)
    np.testing.assert_allclose(out, (left @ right.T - right @ left.T) @ policy, rtol=0, atol=1e-15)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("runs", [1, 2, 7, 8, 20])
@pytest.mark.parametrize("n", [1, 3, 15, 16, 101])
def test_compiled_products_of_many_runs(n: int, runs: int, order: Any) -> None:
    """Loops, products one by one, and BLAS, in both orders of memory, give Aπ of every run."""
    game = nl.games.random_game(n, n, beta=0.1)
    policy = np.array(policies(n, runs), order=order)
    expected = np.array([[sum(a * p for a, p in zip(row, one_policy)) for row in game.advantages] for one_policy in policy])
    # With one run or one action the two orders are the same to Numba.
    for product in (rows.dense,) if policy.flags.c_contiguous else (many.product, many.dense):
        out = np.full((runs, n), np.nan, order=order)
        product(out, game.advantages, policy)
        np.testing.assert_allclose(out, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (1, 1)])
def test_primitives_in_place(shape: tuple[int, ...]) -> None:
    """Plain and compiled, each writes what its formula says, also over one of its arguments."""
    n, rng = shape[-1], np.random.default_rng(1)
    logits, gain, log_reference = rng.standard_normal(shape), rng.standard_normal(shape) / 2, log_softmax(rng.standard_normal(n))
    policy = np.exp(log_softmax(rng.standard_normal(shape)))
    step: Any = 0.3 if len(shape) == 1 else rng.uniform(0.1, 1.0, (shape[0], 1))
    slope = gain - 0.2 * (logits - log_reference)

    def normalized(values: Floats) -> Floats:
        return np.asarray(values - np.log(np.exp(values).sum(axis=-1, keepdims=True)))

    moved = logits + step * policy * (slope - (policy * slope).sum(axis=-1, keepdims=True))
    loops = [one] if len(shape) == 1 else [many, rows]
    both: dict[str, tuple[Any, Any, Floats]] = {
        "mirror": (in_place.mirror_to, (gain, step, 0.2, log_reference), normalized(logits + step * slope)),
        "prox": (
            in_place.prox_to,
            (gain, step, 0.2, log_reference),
            normalized((logits + step * 0.2 * log_reference + step * gain) / (1 + 0.2 * step)),
        ),
        "mixture": (
            in_place.mixture_to,
            (step, 0.2, log_reference),
            normalized((1 - 0.2 * step) * logits + 0.2 * step * log_reference),
        ),
        "log_softmax": (in_place.log_softmax_to, (), normalized(logits)),
        "exp_all": (in_place.exp_to, (), np.exp(logits)),
    }
    for name, (plain, arguments, expected) in both.items():
        for function in (plain, *(getattr(module, name) for module in loops)):
            out = np.empty(shape)
            function(out, logits, *arguments)
            np.testing.assert_allclose(out, expected, rtol=1e-14, atol=1e-14, err_msg=name)
            over = logits.copy()
            function(over, over, *arguments)
            np.testing.assert_allclose(over, expected, rtol=1e-14, atol=1e-14, err_msg=name)
    for function in (in_place.ascend_to, *(module.ascend for module in loops)):
        out = logits.copy()
        function(out, policy, gain.copy(), step, 0.2, log_reference)
        np.testing.assert_allclose(out, moved, rtol=0, atol=1e-14)
    payoff = DensePayoff(nl.games.random_game(n, 3).advantages)
    out = np.empty(shape)
    in_place.advantage_to(out, payoff, policy)
    np.testing.assert_array_equal(out, advantage(payoff, policy))
