"""`check_dynamics` can fail: for every clause a method that is broken in one place, which it rejects, naming the clause."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.extending import overload

import nlhfsim as nl
from nlhfsim import dynamics, testing
from nlhfsim.dynamics import Dynamics, LogPolicy, Method, natural_pg, self_play_pg
from nlhfsim.errors import InputError
from nlhfsim.games.payoffs import Context, DensePayoff, advantage, dense
from nlhfsim.in_place import advantage_to, ascend_to, exp_to, log_softmax_to
from nlhfsim.simplex import exp, expect, log_softmax
from nlhfsim.solvers import tolerance
from nlhfsim.testing import _step_clauses as step_clauses
from nlhfsim.testing import contract
from nlhfsim.testing._subject import Check, Subject, differing, distance

Floats = npt.NDArray[np.float64]
CYCLE = nl.PreferenceGame([[0.5, 1, 0], [0, 0.5, 1], [1, 0, 0.5]], 0.2, [0.6, 0.3, 0.1])
CLAUSES = [clause.name for clause in contract.CLAUSES]


def natural(state: Any, context: Context, step_size: Any, params: Any) -> LogPolicy:
    """A right step: natural policy gradient."""
    gain = advantage(context.payoff, exp(state.logits))
    return LogPolicy(log_softmax(state.logits + step_size * (gain - context.beta * (state.logits - context.log_reference))))


RIGHT = Method(
    "Right",
    natural,
    characterisation=natural_pg.characterisation,
    flow=dynamics.get("NaturalPG").method.flow,
    safe_step=lambda context, params: 0.05,
    compiled=False,
    together=True,
    log_linear="mirror",
)


def broken(games: Any = None, step_size: float | None = 0.2, method: Method = RIGHT, **changes: Any) -> set[str]:
    """The clauses that the right method breaks with some of its parts changed."""
    try:
        testing.check_dynamics(Dynamics(replace(method, **changes), step_size=step_size), games=games)
    except testing.BrokenContractError as error:
        return {item.clause for item in error.report.broken}
    return set()


def test_the_right_method_breaks_nothing() -> None:
    """What the mutants below are made from passes; what does not apply is named with the reason."""
    report = testing.check_dynamics(Dynamics(RIGHT, step_size=0.2))
    assert set(report.checked) | set(report.skipped) == set(CLAUSES) and not report.broken
    assert set(report.skipped) == {"compiled", "kernel"}
    assert min(report.checked.values()) > 0 and "characterisation" in str(report)


def test_no_check_is_left_out() -> None:
    """Of one game: two starts, two schedules, a file, three runs of those together, every context, three steps."""
    one = testing.check_dynamics(Dynamics(RIGHT, step_size=0.2), games=CYCLE).checked
    assert one["safe step"] == 8, "two numbers at β and at 0, also for one action"
    assert one["continuation"] == 4, "constant and with a schedule, in memory and through a file"
    assert (one["together"], one["characterisation"], one["seed"], one["contexts"]) == (3, 6, 2, 2)
    several = testing.check_dynamics(Dynamics(RIGHT, step_size=0.2), games=testing.mixed_games()["contexts"]).checked
    assert (several["contexts"], several["characterisation"]) == (3, 18)


def test_numbers_are_held_against_what_is_allowed() -> None:
    """NaN is in no range; arrays of different shapes differ everywhere, NaN does not differ from itself."""
    nan = float("nan")
    assert Check("x", 1.0, 1.0).holds and not Check("x", 1.1, 1.0).holds and not Check("x", nan, 1.0).holds
    assert Check("x", 1.0, 1.0, least=True).holds and not Check("x", 0.9, 1.0, least=True).holds
    assert not Check("x", nan, 1.0, least=True).holds
    assert differing([1.0, nan, 2.0], [1.0, nan, 3.0]) == 1 and differing(np.zeros(3), np.zeros(2)) == 3
    assert differing(np.zeros(0), np.zeros((0, 2))) == 1 and distance([1.0, 4.0], [1.5, 4.0]) == 0.5


def test_starts_follow_the_seed_and_steps_are_constant() -> None:
    """Another seed starts elsewhere; of several step sizes, and of a schedule, the first is taken."""
    subjects = [Subject(Dynamics(RIGHT, step_size=0.2), {"cycle": CYCLE}, seed, usual=False) for seed in (0, 0, 1)]
    first, again, other = (subject.starts("cycle") for subject in subjects)
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()
    for size in ((0.3, 0.9), nl.schedules.inverse_time(1.5, 5.0)):
        assert replace(subjects[0], method=Dynamics(RIGHT, step_size=size)).constant(CYCLE).step_size == pytest.approx(0.3)


# --- what is declared -----------------------------------------------------------------------------------------------------


class Other(NamedTuple):
    """A state whose first field is not called logits."""

    policy: Floats
    logits: Floats


@pytest.mark.parametrize(
    "changes",
    [
        {"fixed_point": "Nash"},
        {"iterate": "all"},
        {"log_linear": "natural"},
        {"init": lambda context, params, log_policy: LogPolicy(0.5 * log_policy)},
        {"init": lambda context, params, log_policy: Other(np.exp(log_policy), log_policy)},
    ],
)
def test_wrong_declarations(changes: dict[str, Any]) -> None:
    """Unknown words, a start elsewhere, a state with another first field."""
    assert "declarations" in broken(CYCLE, **changes)


@pytest.mark.parametrize("step", [lambda c, p: 4 * c.beta, lambda c, p: -0.1, lambda c, p: float("nan"), lambda c, p: 1e308])
def test_unsafe_steps(step: Callable[..., float]) -> None:
    """No step at β = 0, a negative one, none, and one that overflows."""
    assert "safe step" in broken(CYCLE, safe_step=step)


def test_a_run_that_overflows() -> None:
    """A safe step that is far from safe."""
    assert {"simplex", "fixed point"} <= broken(CYCLE, safe_step=lambda context, params: 1e10)


# --- what a step does -----------------------------------------------------------------------------------------------------


class Remembering(NamedTuple):
    """θ and one array beside it."""

    logits: Floats
    kept: Floats


def in_place(state: Any, context: Context, step_size: Any, params: Any) -> Any:
    """Writes into its argument."""
    state.logits[...] = natural(state, context, step_size, params).logits
    return state


def sharing(state: Any, context: Context, step_size: Any, params: Any) -> Any:
    """Hands its argument on."""
    return Remembering(state.kept, natural(state, context, step_size, params).logits)


@pytest.mark.parametrize(
    ("step", "init"),
    [(in_place, dynamics._spec.start_at), (sharing, lambda c, p, log_policy: Remembering(log_policy, log_policy.copy()))],
)
def test_a_step_that_touches_its_inputs(step: Any, init: Any) -> None:
    """One that writes into its state, and one whose result is a part of it."""
    assert "inputs" in broken(CYCLE, step=step, init=init)


def test_a_step_with_dice_of_its_own() -> None:
    """Noise from a generator that no seed reaches."""
    rng = np.random.default_rng()

    def noisy(state: Any, context: Context, step_size: Any, params: Any) -> LogPolicy:
        return natural(state, context, step_size * (1 + 1e-9 * rng.standard_normal()), params)

    assert "seed" in broken(CYCLE, step=noisy)


def test_a_step_with_dice_where_it_learns_from_votes() -> None:
    """The noise comes with sampled payoffs only."""
    rng = np.random.default_rng()

    def noisy(state: Any, context: Context, step_size: Any, params: Any) -> LogPolicy:
        exact = isinstance(context.payoff, DensePayoff)
        return natural(state, context, step_size * (1 if exact else 1 + 1e-9 * rng.standard_normal()), params)

    assert broken(CYCLE, step=noisy) == {"seed"}


def test_a_memory_that_shows_in_the_state_only() -> None:
    """A count of the calls, kept in the state, that no policy depends on."""
    calls = [0]

    def init(context: Context, params: Any, log_policy: Floats) -> Remembering:
        return Remembering(log_policy, np.zeros_like(log_policy))

    def counting(state: Any, context: Context, step_size: Any, params: Any) -> Remembering:
        calls[0] += 1
        after = natural(state, context, step_size, params).logits
        return Remembering(after, np.full_like(after, calls[0]))

    found = broken(CYCLE, step=counting, init=init, together=False, log_linear=None)
    assert "continuation" in found and "seed" not in found


def test_a_step_that_remembers_other_step_sizes() -> None:
    """Constant steps continue, those of a schedule do not."""
    seen: set[float] = set()

    def init(context: Context, params: Any, log_policy: Floats) -> LogPolicy:
        seen.clear()
        return LogPolicy(log_policy)

    def tiring(state: Any, context: Context, step_size: Any, params: Any) -> LogPolicy:
        seen.add(float(np.ravel(step_size)[0]))
        return natural(state, context, step_size / len(seen), params)

    changes = {"characterisation": None, "flow": None, "together": False, "log_linear": None}
    assert broken(CYCLE, step=tiring, init=init, **changes) == {"continuation"}


def test_a_step_with_a_memory_outside_its_state() -> None:
    """A counter that `init` sets back: the same bits for one seed, and yet no continuation."""
    done = [0]

    def init(context: Context, params: Any, log_policy: Floats) -> LogPolicy:
        done[0] = 0
        return LogPolicy(log_policy)

    def decaying(state: Any, context: Context, step_size: Any, params: Any) -> LogPolicy:
        done[0] += 1
        return natural(state, context, step_size / done[0], params)

    found = broken(CYCLE, step=decaying, init=init)
    assert "continuation" in found and "seed" not in found


def test_a_step_that_sees_names() -> None:
    """The first action gets a little more."""

    def favouring(state: Any, context: Context, step_size: Any, params: Any) -> LogPolicy:
        bonus = 1e-8 * (np.arange(state.logits.shape[-1]) == 0)
        return LogPolicy(log_softmax(natural(state, context, step_size, params).logits + bonus))

    assert "relabelling" in broken(CYCLE, step=favouring)


def test_a_step_that_sees_constants() -> None:
    """Logits that are read as log π and are not normalized, the slip that softmax policies invite."""

    def unnormalized(state: Any, context: Context, step_size: Any, params: Any) -> LogPolicy:
        pull = context.beta * (state.logits - context.log_reference)
        return LogPolicy(state.logits + step_size * (advantage(context.payoff, exp(state.logits)) - pull))

    found = broken(CYCLE, step=unnormalized)
    assert "constants" in found and "characterisation" in found


def test_a_step_that_sees_other_contexts() -> None:
    """The reference of the context that was begun last, remembered outside the state."""
    last: list[Any] = [None]

    def init(context: Context, params: Any, log_policy: Floats) -> LogPolicy:
        last[0] = context.log_reference
        return LogPolicy(log_policy)

    def confused(state: Any, context: Context, step_size: Any, params: Any) -> LogPolicy:
        return natural(state, context._replace(log_reference=last[0]), step_size, params)

    assert "contexts" in broken(CYCLE, step=confused, init=init)
    assert "contexts" in broken(testing.mixed_games()["contexts"], step=confused, init=init)


def test_a_step_that_adds_up_over_runs() -> None:
    """A sum over all axes is right for one run and wrong for several."""

    def summing(state: Any, context: Context, step_size: Any, params: Any) -> LogPolicy:
        policy = np.exp(log_softmax(state.logits))
        slope = advantage(context.payoff, policy) - context.beta * (state.logits - context.log_reference)
        return LogPolicy(state.logits + step_size * policy * (slope - np.sum(policy * slope)))

    right = {"characterisation": self_play_pg.characterisation, "flow": dynamics.get("SelfPlayPG").method.flow}
    assert broken(CYCLE, step=summing, **right) == {"together", "leading axes"}
    assert broken(CYCLE, step=summing, together=False, log_linear=None, **right) == set()


# --- compiled -------------------------------------------------------------------------------------------------------------


def slightly(value):  # type: ignore[no-untyped-def]  # Numba compares annotations
    """1 in Python."""
    return value / value


@overload(slightly)  # type: ignore[untyped-decorator]
def slightly_compiled(value):  # type: ignore[no-untyped-def]
    """A little more where it is compiled."""
    return lambda value: 1.000000001


def two_faced(state: Any, context: Context, step_size: Any, params: Any) -> LogPolicy:
    """Another step where it is compiled."""
    gain = advantage(context.payoff, exp(state.logits))
    size = step_size * slightly(step_size)
    return LogPolicy(log_softmax(state.logits + size * (gain - context.beta * (state.logits - context.log_reference))))


def hasty(state: Any, context: Any, step_size: Any, params: Any, policy: Any, gain: Any, half: Any) -> None:
    """The kernel of `SelfPlayPG` with a step that is too long by a part in a billion."""
    log_softmax_to(half, state.logits)
    exp_to(policy, half)
    advantage_to(gain, context.payoff, policy)
    ascend_to(state.logits, policy, gain, 1.000000001 * step_size, context.beta, context.log_reference)


def uncompilable(state: Any, context: Context, step_size: Any, params: Any) -> LogPolicy:
    """A dictionary of many types, which no compiler takes."""
    held: dict[str, Any] = {"state": state, "words": ["no", 1]}
    return natural(held["state"], context, step_size, params)


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="the compiler is off")
def test_a_step_that_compiles_to_another() -> None:
    """The compiled step differs by a part in a billion; a step that does not compile, undeclared, is broken too."""
    assert broken(CYCLE, step=two_faced, compiled=True, together=False) == {"compiled"}
    assert broken(CYCLE, step=uncompilable, compiled=True, together=False) == {"compiled"}


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="the compiler is off")
def test_a_kernel_that_is_another_step() -> None:
    """A kernel off by a part in a billion."""
    assert broken(CYCLE, method=self_play_pg.METHOD, kernel=hasty, together=False) == {"kernel"}


# --- what a step reads, and its fixed point -------------------------------------------------------------------------------


def test_wrong_oracle_calls() -> None:
    """One call declared where two are made, a call of init that is not declared, and a payoff read past `advantage`."""

    def reading(context: Context, params: Any, log_policy: Floats) -> LogPolicy:
        advantage(context.payoff, np.exp(log_policy))
        return LogPolicy(log_policy)

    def past(state: Any, context: Context, step_size: Any, params: Any) -> LogPolicy:
        return natural(state, context._replace(payoff=DensePayoff(context.payoff.matrix)), step_size, params)

    assert broken(CYCLE, oracle_calls=lambda params: 2) == {"oracle calls"}
    assert broken(CYCLE, init=reading) == {"oracle calls"}
    assert "oracle calls" in broken(CYCLE, step=past)


def test_wrong_fixed_points() -> None:
    """A method that leaves π* though it says that it stays, and one that stays though it says that it leaves."""

    def biased(state: Any, context: Context, step_size: Any, params: Any) -> LogPolicy:
        return natural(state, context._replace(beta=1.01 * context.beta), step_size, params)

    assert "fixed point" in broken(CYCLE, step=biased)
    assert broken(None, fixed_point="biased") == {"fixed point"}


def test_a_drift_that_one_step_does_not_show() -> None:
    """π* is left by 1e-9 in one step, and by more than rounding in thirty."""
    allowed = 1e-9 + 100 * tolerance(CYCLE.beta)

    def drifting(state: Any, context: Context, step_size: Any, params: Any) -> LogPolicy:
        slant = np.linspace(-1, 1, state.logits.shape[-1])
        return LogPolicy(log_softmax(natural(state, context, step_size, params).logits + 0.2 * allowed * slant))

    assert "fixed point" in broken(CYCLE, step=drifting)


def test_a_biased_method_shows_on_some_game() -> None:
    """`NashMD` stays at the uniform equilibrium of the uniform cycle, and leaves that of another: in any order of the games."""
    games = [CYCLE, nl.games.rock_paper_scissors(beta=0.2)]
    for some in (games, games[::-1]):
        assert testing.check_dynamics(dynamics.NashMD(0.5), games=some).checked["fixed point"] == 1
    report = testing.check_dynamics(dynamics.NashMD(0.5), games=games[1])
    assert "declared another" in report.skipped["fixed point"]


def test_wrong_flows() -> None:
    """The flow of half of β, and that of policy gradient."""
    right = RIGHT.flow
    assert right is not None
    assert broken(CYCLE, flow=lambda c, p, x: right(c._replace(beta=0.5 * c.beta), p, x)) == {"flow"}
    assert broken(CYCLE, flow=dynamics.get("SelfPlayPG").method.flow) == {"flow"}


# --- characterisations ----------------------------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[Context], Context]] = {
    "payoff transposed": lambda c: c._replace(payoff=DensePayoff(np.ascontiguousarray(-dense(c.payoff)))),
    "half of beta": lambda c: c._replace(beta=c.beta / 2),
    "regularizer dropped": lambda c: c._replace(beta=0.0),
    "another reference": step_clauses._another_reference,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_lenient_characterisation(name: str) -> None:
    """A condition that also takes one wrong step is caught at that one."""

    def lenient(context: Context, params: Any, before: Any, step_size: Any, after: Any) -> float:
        residuals = [natural_pg.characterisation(c, params, before, step_size, after) for c in (context, CHANGES[name](context))]
        return min(residuals)

    assert broken(CYCLE, characterisation=lenient) == {f"rejects: {name}"}


def test_a_characterisation_that_takes_a_double_step() -> None:
    """At γ or 2γ."""

    def lenient(context: Context, params: Any, before: Any, step_size: Any, after: Any) -> float:
        return min(natural_pg.characterisation(context, params, before, k * step_size, after) for k in (1, 2))

    assert broken(CYCLE, characterisation=lenient) == {"rejects: double step"}


def test_an_empty_characterisation() -> None:
    """One that takes everything rejects none of the wrong steps."""
    assert broken(CYCLE, characterisation=lambda *arguments: 0.0) == {f"rejects: {name}" for name in step_clauses.WRONG_STEPS}


def test_a_step_off_by_a_billionth() -> None:
    """The characterisation sees it."""

    def long(state: Any, context: Context, step_size: Any, params: Any) -> LogPolicy:
        return natural(state, context, step_size * (1 + 1e-9), params)

    assert broken(CYCLE, step=long) == {"characterisation"}


def test_every_clause_has_a_mutant() -> None:
    """The names of all clauses stand in the tests above."""
    with open(__file__, encoding="utf-8") as file:
        text = file.read()
    generic = {f"rejects: {name}" for name in step_clauses.WRONG_STEPS}
    assert [name for name in CLAUSES if name not in generic and f'"{name}"' not in text] == []


# --- report and arguments -------------------------------------------------------------------------------------------------


def test_the_message_is_enough_to_see_it_again() -> None:
    """It names the method, the promise, the numbers, and the smallest game as code that makes it."""
    method = Dynamics(replace(RIGHT, oracle_calls=lambda params: 3), step_size=0.2)
    with pytest.raises(AssertionError) as caught:
        testing.check_dynamics(method, games=[testing.mixed_games()["random"], CYCLE])
    text = str(caught.value)
    assert isinstance(caught.value, nl.errors.NlhfsimError) and isinstance(caught.value, testing.BrokenContractError)
    assert text.startswith("Right(step_size=0.2) breaks 1 promise of the contract")
    assert "oracle calls of a step declared as 3, off by: 2, must be at most 0 (3 other checks of this fail too)" in text
    (item,) = caught.value.report.broken
    assert item.game == "game 1" and item.code in text
    assert eval(item.code, {"nl": nl, "np": np}).fingerprint == CYCLE.fingerprint
    assert "oracle calls                   broken" in str(caught.value.report)


def test_an_exception_of_the_step_is_reported() -> None:
    """It breaks what it interrupts, with its own words."""

    def failing(state: Any, context: Context, step_size: Any, params: Any) -> LogPolicy:
        raise ZeroDivisionError("no step today")

    with pytest.raises(testing.BrokenContractError, match="raised ZeroDivisionError: no step today"):
        testing.check_dynamics(Dynamics(replace(RIGHT, step=failing), step_size=0.2), games=CYCLE)


@pytest.mark.parametrize("games", [CYCLE, [CYCLE], {"cycle": CYCLE}])
def test_games_are_given_in_any_way(games: Any) -> None:
    """One, several, or by name."""
    assert testing.check_dynamics(Dynamics(RIGHT, step_size=0.2), games=games).checked["simplex"] == 2


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("NashMirorProx", {}, "did you mean"),
        (3.0, {}, "must be a method"),
        ("NashMD", {"games": []}, "games is empty"),
        ("NashMD", {"games": ["rps"]}, "must be a PreferenceGame"),
        ("NashMD", {"seed": 0.5}, "seed"),
        (replace(RIGHT, safe_step=None), {}, "step_size of Right must be given"),
    ],
)
def test_misuse_is_refused(method: Any, options: dict[str, Any], message: str) -> None:
    """What is no method, no game, or cannot be run, is bad input and no broken contract."""
    with pytest.raises(InputError, match=message):
        testing.check_dynamics(method, **options)


@given(testing.preference_games(beta=testing.betas(1e-2, 1.0)))
@settings(max_examples=10)
def test_methods_are_checked_on_drawn_games(game: nl.PreferenceGame) -> None:
    """Property tests call it with the game that they draw."""
    testing.check_dynamics(Dynamics(RIGHT, step_size=0.2), games=game)


GAMES = st.one_of(testing.preference_games(), testing.preference_games(contexts=(1, 3)), testing.preference_games(low_rank=True))


@given(GAMES)
def test_code_makes_the_game(game: nl.PreferenceGame) -> None:
    """The same advantages in every bit, β and weights, the reference to rounding."""
    again = eval(testing.as_code(game), {"nl": nl, "np": np})
    np.testing.assert_array_equal(again.advantages, game.advantages)
    assert (again.beta, again.policy_shape) == (game.beta, game.policy_shape)
    np.testing.assert_allclose(again.log_reference, game.log_reference, rtol=1e-14)
    np.testing.assert_allclose(again.weights, game.weights, rtol=1e-14)


def test_code_without_short_decimals() -> None:
    """Advantages that P cannot hold are written themselves."""
    tiny = np.array([[0.0, 1e-20], [-1e-20, 0.0]])
    for game in (nl.PreferenceGame(DensePayoff(tiny)), nl.PreferenceGame([DensePayoff(tiny)] * 2)):
        assert eval(testing.as_code(game), {"nl": nl, "np": np}).fingerprint == game.fingerprint


def test_a_method_of_the_readme() -> None:
    """A method in a few lines, without metadata: what it does not declare is skipped."""

    def step(state: Any, context: Context, step_size: float, params: Any) -> LogPolicy:
        policy = np.exp(log_softmax(state.logits))
        slope = advantage(context.payoff, policy) - context.beta * (state.logits - context.log_reference)
        return LogPolicy(state.logits + step_size * policy * (slope - expect(policy, slope)))

    report = testing.check_dynamics(Method("Mine", step, safe_step=lambda context, params: 0.1), games=CYCLE)
    assert {"kernel", "together", "flow", "characterisation"} <= set(report.skipped) and "compiled" in report.checked
