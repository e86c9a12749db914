"""The contract that every registered method keeps, its characterisation with mutants, identities between methods, proven rates.

Everything in the first half comes from the registry alone: a new file in `nlhfsim/dynamics` goes through it without being listed.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pytest

import nlhfsim as nl
from nlhfsim import claims, dynamics, kernels
from nlhfsim.claims._method_mutants import GENERIC, mutants_of
from nlhfsim.claims._step import kebab
from nlhfsim.dynamics import _spec
from nlhfsim.errors import InputError, ProvenRangeWarning, UnknownNameError
from nlhfsim.games.payoffs import Context
from nlhfsim.testing._step_clauses import REJECTED, TOLERANCE
from nlhfsim.testing._subject import log_policy, run_plain, step_input

pytestmark = pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")

Floats = npt.NDArray[np.float64]
Family = dict[str, nl.PreferenceGame]
Starts = dict[str, Floats]

METHODS = dynamics.names()
COMPILED = [name for name in METHODS if dynamics.get(name).method.compiled]


def example(name: str, **changes: Any) -> dynamics.Dynamics:
    """The method's own example, with some of its parameters changed."""
    return dynamics.build(name, **(dict(dynamics.get(name).method.example) | changes))


def situations(family: Family, starts: Starts) -> Iterator[tuple[str, Context, Floats]]:
    """Every context of every game with every start."""
    for name, game in family.items():
        for policy in starts[name]:
            for context, row in zip(game.contexts, policy.reshape(game.n_contexts, game.n)):
                yield name, context, row


# --- registration ---------------------------------------------------------------------------------------------------------


def method_files() -> list[str]:
    """Modules of nlhfsim.dynamics that must each be one method."""
    found = [module.name for module in pkgutil.iter_modules(dynamics.__path__)]
    return [name for name in found if not name.startswith("_") and name not in ("schedules", "literature")]


@pytest.mark.parametrize("file", method_files())
def test_every_file_is_a_documented_registered_method(file: str) -> None:
    """A file of the folder is one method: registered, exported, documented with source, example and characterisation."""
    module = importlib.import_module(f"nlhfsim.dynamics.{file}")
    method = module.METHOD
    assert dynamics.get(method.name) is getattr(module, method.name) is getattr(dynamics, method.name)
    assert method.name in dynamics.__all__
    assert "Source:" in (module.__doc__ or "") and "Examples" in (getattr(module, method.name).__doc__ or "")
    assert method.source is not None and method.example is not None and method.characterisation and method.summary
    assert (method.safe_step is None) == (method.scheduled is None)
    assert file.replace("_", "") == method.name.lower()


def test_the_registry_is_the_folder() -> None:
    """Nothing is registered that has no file."""
    assert len(METHODS) == len(method_files())


@pytest.mark.parametrize("name", METHODS)
def test_metadata_is_of_the_declared_kind(name: str) -> None:
    """fixed_point, iterate and flags take their declared values; the example names real parameters; cite finds the source."""
    method = dynamics.get(name).method
    assert method.fixed_point in ("nash", "biased", "none") and method.iterate in ("last", "average")
    assert all(isinstance(flag, bool) for flag in (method.smooth, method.autonomous, method.stochastic, method.compiled))
    built = example(name)
    assert built.name == name and built.method is method
    assert set(method.example) <= set(built.parameters)
    assert dynamics.build(name, **built.parameters) == built
    assert nl.cite(built).lstrip().startswith("@")


@pytest.mark.parametrize("name", METHODS)
def test_bad_parameters_are_refused(name: str) -> None:
    """A step size that is not positive and an unknown parameter are refused by name."""
    scheduled = dynamics.get(name).method.scheduled
    if scheduled is None:
        with pytest.raises(UnknownNameError, match="no parameter 'step_size'"):
            dynamics.build(name, step_size=0.1)
    for wrong in (0.0, -1.0, float("nan"), "0.1") if scheduled else ():
        with pytest.raises(InputError, match=scheduled):
            dynamics.build(name, **{scheduled: wrong})
    with pytest.raises(UnknownNameError, match="no parameter 'steps_size'"):
        dynamics.build(name, steps_size=1.0)


# --- the contract ---------------------------------------------------------------------------------------------------------


def variants(name: str) -> list[dynamics.Dynamics]:
    """The example, and the methods' other modes."""
    found = [example(name)]
    if name == "FictitiousPlay":
        found.append(dynamics.FictitiousPlay(smoothed=True))
    if name == "NashProx":
        found.append(dynamics.NashProx(step_size=0.5, refresh_every=4))
    if name == "ProximalPG":
        found.append(dynamics.ProximalPG(inner_step_size=0.5, inner_steps=1))
    if name == "MagnetRefresh":
        found.append(dynamics.MagnetRefresh(step_size=0.4, magnet=0.1))
    if name == "IPOMD":
        found.append(dynamics.IPOMD(0.3, mixing=1.0))
    return found


NO_REFERENCE = {"rejects: half of beta", "rejects: regularizer dropped", "rejects: another reference"}
NOT_READ = {name: NO_REFERENCE for name in ("MultiplicativeWeights", "MagnetRefresh")} | {
    name: NO_REFERENCE | {"rejects: double step"} for name in ("FictitiousPlay", "RegretMatching", "RegretMatchingPlus")
}


@pytest.mark.parametrize("method", [method for name in METHODS for method in variants(name)], ids=repr)
def test_every_method_keeps_the_contract(method: dynamics.Dynamics, family: Family) -> None:
    """Everything that `nlhfsim.testing.check_dynamics` holds methods to; its characterisation rejects all that it reads."""
    smoothed = method.parameters.get("smoothed") is True
    # Smoothed, fictitious play has π* as its fixed point, though the method declares none.
    report = nl.testing.check_dynamics(method, games=family if smoothed else None)
    unread = {"rejects: double step"} if smoothed else NOT_READ.get(method.name, set())
    missing = {name for name, why in report.skipped.items() if name.startswith("rejects: ") and why.startswith("it makes no")}
    assert missing == unread and report.checked["characterisation"] > 50
    assert ("oracle calls" in report.skipped) == (method.name == "ProximalPoint")


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="the compiler is off")
@pytest.mark.parametrize("name", COMPILED)
def test_nothing_compiles_twice(name: str, family: Family, starts: Starts, tmp_path: Path) -> None:
    """One compilation a method serves every game, start, continuation, and game derived from another."""
    method = example(name)
    state = method.method.init(family["random"].contexts[0], method.params, family["random"].log_reference)
    kernel = method.method.kernel
    loop: Any = kernels.compile_loop(kernel or method.method.step, state._fields, kernel is not None)
    for start in (np.repeat(starts["random"], 4, axis=0), starts["random"][:1]):
        nl.simulate(family["random"], example(name), 2, start=start, equilibrium=False)
    known = len(loop.signatures)
    readonly = starts["contexts"].copy()
    readonly.setflags(write=False)
    run = nl.simulate(family["contexts"], example(name), 2, start=readonly[:1], equilibrium=False)
    nl.simulate(family["contexts"], example(name), 2, start=nl.load(run.save(tmp_path / "run")), equilibrium=False)
    real = family["real"]
    fortran = nl.PreferenceGame(np.asfortranarray(np.round(real.preferences * 8).astype(np.float32) / 8), 0.1)
    for game in (real.restrict([2, 0, 1]), family["contexts"].context(1), real.with_beta(0.0), real.with_beta(1), fortran):
        nl.simulate(game, example(name), 2, equilibrium=False)
    assert len(loop.signatures) == known


ALONE = [name for name in COMPILED if not (dynamics.get(name).method.together or dynamics.get(name).method.log_linear)]


@pytest.mark.parametrize("name", ALONE)
def test_a_step_takes_many_runs_at_once(name: str, family: Family, starts: Starts) -> None:
    """On leading axes the plain step gives what it gives for each run alone, though the method does not say so."""
    game, method = family["peaked"], example(name)
    alone = [run_plain(method, game.contexts[0], policy, 3)[-1].logits for policy in starts["peaked"]]
    together = run_plain(method, game.contexts[0], starts["peaked"], 3)[-1].logits
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-12)


# --- wrong steps -----------------------------------------------------------------------------------------------------------


WRONG_STEPS = [(name, wrong) for name in METHODS for wrong in mutants_of(claims.get(f"{kebab(name)}-step").method)]
NO_REFERENCE = {"regularizer dropped", "regularizer halved", "uniform for the reference"}
UNUSED = {
    "ProximalPoint": {"opponent's policy stale"},
    **{name: NO_REFERENCE for name in ("MultiplicativeWeights", "MagnetRefresh")},
    **{name: NO_REFERENCE | {"factor 2 in the step"} for name in ("FictitiousPlay", "RegretMatching", "RegretMatchingPlus")},
}


def worst_residual(wrong: dynamics.Dynamics, context: Context, policy: Floats) -> float:
    """The largest residual of the characterisation over a few steps."""
    method, found = wrong.method, []
    state = method.init(context, wrong.params, np.log(policy))
    with np.errstate(all="ignore"):
        for _ in range(4):
            after = method.step(state, context, step_input(wrong), wrong.params)
            found.append(method.characterisation(context, wrong.params, state, step_input(wrong), after))
            state = after
    return float(np.nanmax(found))


@pytest.mark.parametrize(("name", "wrong"), WRONG_STEPS)
def test_wrong_steps_are_rejected(name: str, wrong: str, family: Family, starts: Starts) -> None:
    """Every wrong step of the claims' registry breaks the characterisation a thousandfold, on every game with every start.

    Where that cannot be: a reference that is uniform; plays, which a wrong rule may hit by chance, so that they need only be
    found out on most games by some start. Where margins are thousandths, what they change is as much smaller.
    """
    mutant = mutants_of(claims.get(f"{kebab(name)}-step").method)[wrong]
    rejected: dict[str, list[bool]] = {}
    for key, context, policy in situations(family, starts):
        if wrong == "uniform for the reference" and np.ptp(context.log_reference) < 1e-12:
            continue
        enough = 1e-3 * TOLERANCE if key == "near-ties" else REJECTED
        rejected.setdefault(key, []).append(worst_residual(mutant, context, policy) > enough)
    if mutant.method.scheduled is None:
        assert np.mean([any(found) for found in rejected.values()]) >= 0.7, rejected
    else:
        assert all(all(found) for found in rejected.values()), rejected


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_does_not_use_changes_no_bit(name: str, family: Family, starts: Starts) -> None:
    """The wrong arguments that are left out of a method's wrong steps are the declared ones, and make no difference."""
    method = claims.get(f"{kebab(name)}-step").method
    assert method is not None and set(GENERIC) - set(mutants_of(method)) == UNUSED.get(name, set())
    for wrong in UNUSED.get(name, set()) & (NO_REFERENCE | {"factor 2 in the step"}):
        mutant = dataclasses.replace(method, method=GENERIC[wrong](method.method))
        for _, context, policy in situations(family, starts):
            for right, other in zip(run_plain(method, context, policy, 3), run_plain(mutant, context, policy, 3)):
                np.testing.assert_array_equal(right.logits, other.logits)


# --- identities -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("explicit", "implicit"), [("NaturalPG", "MagneticMirrorDescent"), ("Extragradient", "NashMirrorProx")])
def test_explicit_is_implicit(explicit: str, implicit: str, family: Family, starts: Starts) -> None:
    """The explicit method at γ is the implicit one at γ/(1 - γβ), step for step; at the same γ it is another."""
    for key, game in family.items():
        gamma = 0.3
        runs = [
            nl.simulate(game, dynamics.build(name, step_size=step), 8, start=starts[key], equilibrium=False).log_policies
            for name, step in ((explicit, gamma), (implicit, gamma / (1 - gamma * game.beta)), (implicit, gamma))
        ]
        scale = np.abs(runs[0]).max()  # type: ignore[arg-type]
        np.testing.assert_allclose(runs[0], runs[1], rtol=0, atol=1e-13 * scale)
        assert np.abs(runs[0] - runs[2]).max() > 1e-8 * scale  # type: ignore[operator]


@pytest.mark.parametrize("m", [1, 5])
def test_nash_prox_with_refresh_is_proximal_pg(m: int, family: Family, starts: Starts) -> None:
    """m steps of NashProx with a refresh every m are one step of ProximalPG with m inner steps."""
    for key, game in family.items():
        one = nl.simulate(game, dynamics.NashProx(0.6, 1.5, refresh_every=m), 3 * m, start=starts[key], equilibrium=False)
        other = nl.simulate(game, dynamics.ProximalPG(1.5, 0.6, m), 3, start=starts[key], equilibrium=False)
        np.testing.assert_allclose(one.final, other.final, rtol=1e-12)
        np.testing.assert_array_equal(one.oracle_calls[-1], other.oracle_calls[-1])


def test_nash_prox_that_copies_its_centre_has_no_pull(family: Family, starts: Starts) -> None:
    """With averaging 1 the centre is the policy itself, so NashProx is SelfPlayPG."""
    for key, game in family.items():
        one = nl.simulate(game, dynamics.NashProx(0.4, averaging=1.0), 6, start=starts[key], equilibrium=False)
        other = nl.simulate(game, dynamics.SelfPlayPG(0.4), 6, start=starts[key], equilibrium=False)
        np.testing.assert_allclose(one.final, other.final, rtol=1e-12)


def test_without_regularization_magnetic_is_multiplicative_weights(family: Family, starts: Starts) -> None:
    """At β = 0, NaturalPG, MagneticMirrorDescent, NashMD and MultiplicativeWeights are one method."""
    game = family["transitive-cyclic"].with_beta(0.0)
    names = ("NaturalPG", "MagneticMirrorDescent", "NashMD", "MultiplicativeWeights")
    finals = [
        nl.simulate(game, dynamics.build(n, step_size=0.2), 5, start=starts["transitive-cyclic"], equilibrium=False).final
        for n in names
    ]
    for other in finals[1:]:
        np.testing.assert_allclose(other, finals[0], rtol=1e-13)


def test_self_play_pg_keeps_the_sum_of_logits(family: Family, starts: Starts) -> None:
    """1ᵀJ = 0: the sum of the logits never changes along SelfPlayPG."""
    game = family["random"]
    run = nl.simulate(game, dynamics.SelfPlayPG(0.3), 500, start=starts["random"], equilibrium=False)
    np.testing.assert_allclose(run.parameters.sum(axis=-1), np.log(starts["random"]).sum(axis=-1), rtol=1e-13)


# --- proven rates ---------------------------------------------------------------------------------------------------------

PROVEN: dict[str, tuple[Callable[[float], float], Callable[[float, float], float]]] = {
    "ProximalPoint": (lambda beta: np.inf, lambda gamma, beta: 1 / (1 + gamma * beta)),
    "NashMirrorProx": (lambda beta: 2 * (beta + (1 + beta**2) ** 0.5), lambda gamma, beta: 1 / (1 + gamma * beta)),
    "Extragradient": (lambda beta: 2 / (beta + (1 + beta**2) ** 0.5), lambda gamma, beta: 1 - gamma * beta),
    "MagneticMirrorDescent": (lambda beta: 4 * beta, lambda gamma, beta: 1 / (1 + gamma * beta)),
    "NaturalPG": (lambda beta: 4 * beta / (1 + 4 * beta**2), lambda gamma, beta: 1 - gamma * beta),
}


def excess_over_rate(kl: Floats, steps: Floats, factor: float) -> float:
    """Largest ratio of KL to factor^K KL_0 over runs and records while the bound is above rounding."""
    bound = kl[:, :1] * factor**steps
    seen = bound > 1e-19
    return float((kl / bound)[seen].max())


def test_every_method_with_a_factor_is_in_the_table(family: Family) -> None:
    """A method that claims a factor at its safe step is checked below, and no other."""
    game = family["random"]
    claiming = set()
    for name in METHODS:
        method = dynamics.build(name).resolve(game.contexts)
        range_ = method.method.proven(game.contexts[0], method.params, method.step_size)
        if range_ is not None and range_.factor is not None:
            claiming.add(name)
    assert claiming == set(PROVEN)


@pytest.mark.parametrize("name", PROVEN)
def test_proven_ranges_are_those_of_the_theory(name: str, family: Family) -> None:
    """Largest step and factor are the theory's formulas; beyond the range no factor is claimed."""
    largest, factor = PROVEN[name]
    method = dynamics.get(name).method
    for game in family.values():
        limit = largest(game.beta)
        for gamma in (min(limit, 5.0), min(limit, 5.0) / 3):
            found = method.proven(game.contexts[0], _spec.NoParams(), gamma)
            assert found.largest == pytest.approx(limit, rel=1e-14) and found.factor == pytest.approx(
                factor(gamma, game.beta), rel=1e-14
            )
        assert np.isinf(limit) or method.proven(game.contexts[0], _spec.NoParams(), 1.01 * limit).factor is None


@pytest.mark.parametrize("name", PROVEN)
def test_proven_rates_hold_and_are_tight(
    name: str, family: Family, starts: Starts, equilibrium_of: Callable[..., nl.Equilibrium]
) -> None:
    """KL(π*‖π_K) ≤ factor^K KL(π*‖π_0) along every run at the largest step and a third of it; twice the progress is refused."""
    worst, wrong = 0.0, 0.0
    for key, game in family.items():
        for gamma in (min(PROVEN[name][0](game.beta), 5.0) * share for share in (1.0, 1 / 3)):
            method = dynamics.build(name, **{dynamics.get(name).method.scheduled: gamma})
            run = nl.simulate(game, method, 60, start=starts[key], equilibrium=equilibrium_of(game), record_every=1)
            factor = PROVEN[name][1](gamma, game.beta)
            assert run.proven_factor == pytest.approx(factor, rel=1e-14)
            worst = max(worst, excess_over_rate(run.kl, run.steps, factor))
            wrong = max(wrong, excess_over_rate(run.kl, run.steps, factor**2))
    assert worst <= 1 + 1e-9
    assert wrong > 1.05


def rate_at(name: str, step: Callable[..., Any], gamma: float, beta: float, factor: float, start: Floats) -> float:
    """Excess over a rate on rock–paper–scissors with certain votes, whose equilibrium is uniform, for any step function."""
    game = nl.games.rock_paper_scissors(0.5, beta=beta)
    method = _spec.Dynamics(_spec.Method(name, step), step_size=gamma)
    run = nl.simulate(game, method, 50, start=start, compiled=False, record_every=1)
    return excess_over_rate(run.kl, run.steps, factor)


NEAR = np.array([0.34, 0.33, 0.33])
FAR = np.array([0.9, 0.08, 0.02])


def test_steps_beyond_the_range_break_the_rate() -> None:
    """Mutants known to fail, β = 0.01, rock–paper–scissors: mirror prox at γ = 4, magnetic at γ = 16β; in range they hold."""
    beta = 0.01
    for name, good, bad in (("NashMirrorProx", 2.0, 4.0), ("MagneticMirrorDescent", 4 * beta, 16 * beta)):
        step = dynamics.get(name).method.step
        assert max(rate_at(name, step, good, beta, 1 / (1 + good * beta), s) for s in (NEAR, FAR)) <= 1 + 1e-9
        assert max(rate_at(name, step, bad, beta, 1 / (1 + bad * beta), s) for s in (NEAR, FAR)) > 1.001


def test_the_regularizer_at_the_half_point_breaks_the_rate() -> None:
    """Mutant known to fail: Extragradient with the regularizer at θ′, from β = 0.16."""

    wrong = mutants_of(dynamics.Extragradient())["regularizer at the half point in the second step"].method.step
    beta = 1.0
    gamma = 1 / (beta + 0.5)
    right = dynamics.get("Extragradient").method.step
    assert rate_at("Extragradient", right, gamma, beta, 1 - gamma * beta, NEAR) <= 1 + 1e-9
    assert rate_at("Mutant", wrong, gamma, beta, 1 - gamma * beta, NEAR) > 1.001


def test_nash_md_rate(family: Family, starts: Starts, equilibrium_of: Callable[..., nl.Equilibrium]) -> None:
    """With γ_t = 2/(β(t + 2)): KL(π*‖π_{t+1}) ≤ 1/(2β²(t + 2)) (Munos et al., theorem 1)."""
    for key, game in family.items():
        method = dynamics.NashMD(nl.schedules.inverse_time(2 / game.beta, 2))
        run = nl.simulate(game, method, 300, start=starts[key], equilibrium=equilibrium_of(game), record_every=1)
        assert (run.kl[:, 1:] <= 1 / (2 * game.beta**2 * (run.steps[1:] + 1))).all(), key


def test_average_of_multiplicative_weights(family: Family) -> None:
    """E_0 of the average of π_0 … π_{T-1} is at most log n/(γT) + γ/8 from uniform, while the last iterate spirals out."""
    T, gamma = 400, 0.4
    for game in family.values():
        if not game.batched:
            run = nl.simulate(
                game, dynamics.MultiplicativeWeights(gamma), T - 1, start="uniform", equilibrium=False, record_every=1
            )
            average = np.exp(run.log_policies[0]).mean(axis=0)  # type: ignore[index]
            assert (game.advantages @ average).max() <= np.log(game.n) / (gamma * T) + gamma / 8
    cycle = nl.games.rock_paper_scissors(0.5, beta=0.0)
    spiral = nl.simulate(cycle, dynamics.MultiplicativeWeights(gamma), 100, start=[0.4, 0.35, 0.25], record_every=1)
    assert (np.diff(spiral.kl[0]) > 0).all()


def test_proximal_point_without_regularization(starts_of: Callable[[nl.PreferenceGame], Floats]) -> None:
    """At β = 0 KL(π*‖π_k) never increases along ProximalPoint and the gap goes to 0."""
    game = nl.games.rock_paper_scissors(0.5, bias=-0.3, beta=0.0)
    run = nl.simulate(game, dynamics.ProximalPoint(20.0), 60, start=starts_of(game), record_every=1)
    assert (np.diff(run.kl, axis=-1) <= 1e-14).all() and (run.gap0[:, -1] < 1e-8).all()


def test_self_play_pg_default_step_is_the_proven_one(family: Family) -> None:
    """γ₁ = min(4β, 1/β), whatever the reference (docs/proofs/self-play-pg-converges.md)."""
    for game in family.values():
        for at in (game, game.with_beta(3.0), game.with_beta(1e-200)):
            expected = 4 * at.beta if at.beta <= 0.5 else 1 / at.beta
            assert dynamics.SelfPlayPG().resolve(at.contexts).step_size == pytest.approx(expected, rel=1e-12)


# --- schedules ------------------------------------------------------------------------------------------------------------


def test_schedules_are_their_formulas() -> None:
    """inverse_time is c/(t + t0); two_stage switches at its step; both read back from what they print."""
    inverse, two = nl.schedules.inverse_time(3.0, 2.0), nl.schedules.two_stage(1.0, 0.25, 3)
    assert [inverse(t) for t in range(3)] == [1.5, 1.0, 0.75]
    assert [two(t) for t in range(5)] == [1.0, 1.0, 1.0, 0.25, 0.25]
    for schedule in (inverse, two, nl.schedules.inverse_time(1 / 3, 7)):
        again = nl.schedules.parse(str(schedule))
        assert [again(t) for t in range(9)] == pytest.approx([schedule(t) for t in range(9)], rel=1e-5)
    assert nl.schedules.parse("inverse-time:3")(1) == 1.5


@pytest.mark.parametrize(
    "text",
    ["inverse-time:", "inverse-time:1,2,3", "two-stage:1,2", "cosine:1", "0.1", "two-stage:1,0.1,2.5", "inverse-time:-1,1"],
)
def test_bad_schedules_are_refused(text: str) -> None:
    """What is no schedule is refused with what would be one."""
    with pytest.raises(InputError):
        nl.schedules.parse(text)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (lambda t: -1.0 if t == 3 else 1.0, "step_size is -1.0 at step 3"),
        (lambda t: float("nan"), "step_size is nan at step 0"),
        (lambda t: [1.0, 2.0], r"not an array of shape \(2,\)"),
        (lambda t: "fast", "must return one number"),
        (lambda t: None if t == 1 else 1.0, "must return one number|must be finite"),
    ],
)
def test_a_schedule_that_returns_nonsense_is_refused(schedule: Callable[[int], Any], message: str, family: Family) -> None:
    """Values of a callable step size are checked before the run, naming the step."""
    with pytest.raises(InputError, match=message):
        nl.simulate(family["random"], dynamics.NashMirrorProx(schedule), 5, equilibrium=False)


def test_a_schedule_is_what_the_steps_receive(family: Family, starts: Starts) -> None:
    """A run with a schedule is the plain steps with γ_0, γ_1, …; ProximalPG counts inner steps over the whole run."""
    game, context = family["random"], family["random"].contexts[0]
    schedule, start = nl.schedules.inverse_time(2.0, 3.0), starts["random"][0]
    state = _spec.LogPolicy(np.log(start))
    for t in range(4):
        state = dynamics.get("SelfPlayPG").method.step(state, context, 2.0 / (t + 3.0), None)
    run = nl.simulate(game, dynamics.SelfPlayPG(schedule), 4, start=start, equilibrium=False)
    np.testing.assert_allclose(run.final[0], np.exp(log_policy(state)), rtol=1e-12)  # type: ignore[index]
    nested = nl.simulate(game, dynamics.ProximalPG(1.0, schedule, 2), 2, start=start, equilibrium=False)
    nash_prox = nl.simulate(game, dynamics.NashProx(schedule, 1.0, refresh_every=2), 4, start=start, equilibrium=False)
    np.testing.assert_allclose(nested.final, nash_prox.final, rtol=1e-12)


# --- methods from outside -------------------------------------------------------------------------------------------------


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A copy of the registry that the test may change."""
    copy = dict(_spec._REGISTRY)
    monkeypatch.setattr(_spec, "_REGISTRY", copy)
    return copy


def towards_reference(state: Any, context: Context, step_size: float, params: Any) -> Any:
    """A user's method: walk straight to the reference in log space."""
    return _spec.LogPolicy(state.logits + step_size * (context.log_reference - state.logits))


def dictionary_step(state: Any, context: Context, step_size: float, params: Any) -> Any:
    """A user's method that no compiler takes."""
    held: dict[str, Any] = {"state": state, "words": ["no", 1]}
    return towards_reference(held["state"], context, step_size, params)


USER = _spec.Method("UserMethod", towards_reference, safe_step=lambda context, params: 0.5)
OPAQUE = _spec.Method("Opaque", dictionary_step, compiled=False)


def test_register_makes_a_method_known(registry: dict[str, Any], family: Family) -> None:
    """A registered factory is found by name, listed, built with its parameters, and suggested for a typo."""

    @dynamics.register(USER)
    def UserMethod(step_size: float | None = None) -> dynamics.Dynamics:
        return dynamics.Dynamics(USER, step_size=step_size)

    assert "UserMethod" in dynamics.names() and dynamics.get("UserMethod") is UserMethod
    assert dynamics.build("UserMethod", step_size=0.25).step_size == 0.25
    run = nl.simulate(family["random"], "UserMethod", 4, start="uniform", equilibrium=False)
    assert run.params == {"step_size": 0.5}
    with pytest.raises(UnknownNameError, match="did you mean 'UserMethod'"):
        dynamics.get("UserMethd")


def test_register_refuses_duplicates(registry: dict[str, Any]) -> None:
    """A name that is taken, and a factory named otherwise than its method, are refused."""

    def SelfPlayPG() -> Any: ...

    with pytest.raises(InputError, match="'SelfPlayPG' is registered already, from nlhfsim.dynamics.self_play_pg"):
        dynamics.register(_spec.Method("SelfPlayPG", towards_reference))(SelfPlayPG)
    with pytest.raises(InputError, match="the factory is called 'SelfPlayPG', must be called 'Other'"):
        dynamics.register(_spec.Method("Other", towards_reference))(SelfPlayPG)
    assert dynamics.get("SelfPlayPG") is dynamics.SelfPlayPG


@pytest.mark.parametrize(("method", "compiled"), [(USER, True), (USER, False), (OPAQUE, True)])
def test_an_unregistered_method_works(method: _spec.Method, compiled: bool, family: Family, starts: Starts) -> None:
    """A Method made by hand runs without registration, also one that cannot be compiled, and does what it says."""
    run = nl.simulate(
        family["random"],
        dynamics.Dynamics(method, step_size=0.5),
        2,
        start=starts["random"],
        equilibrium=False,
        compiled=compiled,
    )
    assert run.compiled is (compiled and method.compiled)
    rho, start = family["random"].reference, starts["random"]
    expected = start**0.25 * rho**0.75
    np.testing.assert_allclose(run.final, expected / expected.sum(axis=-1, keepdims=True), rtol=1e-12)


def test_a_bare_method_takes_its_safe_step_or_says_it_has_none(family: Family) -> None:
    """Without a step size the safe step is taken; a method that names none says so."""
    assert nl.simulate(family["random"], USER, 1, start="uniform", equilibrium=False).params == {"step_size": 0.5}
    with pytest.raises(InputError, match="step_size of Opaque must be given"):
        nl.simulate(family["random"], OPAQUE, 1, equilibrium=False)


def test_unregistered_methods_are_compared(family: Family, starts: Starts) -> None:
    """compare takes unregistered methods, compiled or not, beside registered ones, and tunes them."""
    methods = [dynamics.Dynamics(OPAQUE, step_size=0.5), USER, "NashMirrorProx"]
    table = nl.compare(family["random"], methods, oracle_calls=20, step_sizes=[0.1, 1.0], start=starts["random"][0])
    assert [row["dynamics"] for row in table.rows] == ["Opaque", "UserMethod", "NashMirrorProx"]
    assert [row["steps"] for row in table.rows] == [20, 20, 10]


@pytest.mark.parametrize("wrong", [3.0, None, dict, "SelfPlay"])
def test_what_is_no_method_is_refused(wrong: Any, family: Family) -> None:
    """Anything else is refused with an example, a misspelt name with the nearest one."""
    with pytest.raises(InputError, match="method"):
        nl.simulate(family["random"], wrong, 1)


def test_unknown_method_is_suggested() -> None:
    """A near miss names the method meant."""
    with pytest.raises(UnknownNameError, match="did you mean 'NashMirrorProx'"):
        dynamics.get("nashmirorprox")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"averaging": 0.1, "refresh_every": 3}, "not both"),
        ({"averaging": 0.0}, "averaging = 0 must be above 0"),
        ({"averaging": 1.5}, "averaging = 1.5 must lie between"),
        ({"refresh_every": 0}, "refresh_every = 0 must be at least 1"),
        ({"proximal_step": -1.0}, "proximal_step = -1 must be positive"),
    ],
)
def test_nash_prox_refuses_bad_parameters(parameters: dict[str, Any], message: str) -> None:
    """Each parameter of NashProx has its range, and only one way to follow may be chosen."""
    with pytest.raises(InputError, match=message):
        dynamics.NashProx(step_size=0.1, **parameters)


def test_proven_range_warning_is_a_nlhfsim_warning() -> None:
    """The warning that this module ignores can be filtered as one family."""
    assert issubclass(ProvenRangeWarning, nl.errors.NlhfsimWarning)


# --- the methods that aim at the unregularized equilibrium, or look ahead with old news -------------------------------------


def test_solved_magnets_are_the_proximal_point_method(family: Family) -> None:
    """Refreshed when the inner game is solved, `MagnetRefresh` visits the iterates of `ProximalPoint` at β = 0, step 1/α."""
    game = family["transitive-cyclic"].with_beta(0.0)
    start = np.full(game.n, 1.0 / game.n)
    run = nl.simulate(game, dynamics.MagnetRefresh(0.4, magnet=0.4), 3000, start=start, record_every=1)
    magnets = [start]
    assert run.log_policies is not None
    state = dynamics.MagnetRefresh.method.init(game.contexts[0], None, np.log(start))
    instance = dynamics.MagnetRefresh(0.4, magnet=0.4)
    for _ in range(3000):
        after = instance.method.step(state, game.contexts[0], 0.4, instance.params)
        if not np.array_equal(after.log_magnet, state.log_magnet):
            magnets.append(np.exp(after.log_magnet))
        state = after
    exact = nl.simulate(game, dynamics.ProximalPoint(1 / 0.4), 3, start=start, record_every=1)
    assert len(magnets) > 3 and exact.log_policies is not None
    np.testing.assert_allclose(magnets[1:4], np.exp(exact.log_policies[0, 1:4]), atol=1e-7)


@pytest.mark.parametrize("every", [None, 200])
def test_refreshed_magnets_reach_the_unregularized_equilibrium(every: int | None) -> None:
    """On a biased cycle the last iterate of `MagnetRefresh` tends to the von Neumann winner, where a fixed magnet stays away."""
    game = nl.games.rock_paper_scissors(margin=0.5, bias=-0.3, beta=0.0)
    refreshed = nl.simulate(game, dynamics.MagnetRefresh(0.4, magnet=0.1, refresh_every=every), 20000, start=[0.8, 0.1, 0.1])
    fixed = nl.simulate(game, dynamics.MagnetRefresh(0.4, magnet=0.1, refresh_every=10**6), 20000, start=[0.8, 0.1, 0.1])
    assert refreshed.gap0[0, -1] < 1e-6 < 1e-3 < fixed.gap0[0, -1]


def test_optimism_at_beta_zero_is_optimistic_weights(family: Family, starts: Starts) -> None:
    """At β = 0 two consecutive half points differ by γ(2Aπ'_t - Aπ'_{t-1}) in their logits: optimistic multiplicative weights."""
    context = family["cyclic-tournament"].with_beta(0.0).contexts[0]
    method, gamma = example("OptimisticMirrorDescent"), 0.8
    states = run_plain(method, context, starts["cyclic-tournament"][0], 6)
    halves = [log_policy(s._replace(logits=s.logits + gamma * s.gain)) for s in states]
    for k in range(1, 6):
        moved = halves[k] - halves[k - 1] - gamma * (2 * states[k].gain - states[k - 1].gain)
        assert np.ptp(moved) < 1e-12


def test_mixing_is_where_ipo_md_is_biased(family: Family, equilibrium_of: Callable[..., nl.Equilibrium]) -> None:
    """Without mixing IPO-MD is self-play policy gradient and keeps π*; with it the fixed point moves away."""
    game = family["transitive-cyclic"]
    equilibrium = equilibrium_of(game)
    start = equilibrium.policy
    same = nl.simulate(game, dynamics.SelfPlayPG(0.2), 50, start=family["transitive-cyclic"].reference)
    none = nl.simulate(game, dynamics.IPOMD(0.2, mixing=0.0), 50, start=family["transitive-cyclic"].reference)
    np.testing.assert_allclose(same.parameters, none.parameters, rtol=0, atol=1e-14)
    with pytest.warns(nl.errors.EquilibriumStartWarning):
        moved = nl.simulate(game, dynamics.IPOMD(0.2, mixing=0.5), 3000, start=start)
    assert moved.kl[0, -1] > 1e-4
