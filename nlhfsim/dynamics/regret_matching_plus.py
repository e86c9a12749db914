"""Regret matching+: regret matching that forgets negative regrets and weighs later plays more.

    r_{t+1} = max(r_t + Ax_t - (x_tᵀAx_t) 1, 0),    x_{t+1} ∝ r_{t+1},    π_{t+1} = Σ_s (s + 1) x_s / Σ_s (s + 1), s = 0 … t + 1

with r_0 = 0 and x_0 = π_0 the start; x_{t+1} is uniform if no regret is positive. The policy is the linear average π. Both sides
of the symmetric game are updated at once, not in turns as in CFR+. The game's own β and ρ are not used.
Source: Tammelin, arXiv 1407.5042 (regret matching+, linear averaging). As r_{t+1} - r_t is at least the regret of x_t, summing by
parts gives Σ_s (s + 1) regret_s ≤ T r_T for T plays, hence E_0 ≤ 2 max r_T/(T + 1) ≤ √(nT)/(T + 1).
Known failure: where all regrets are small the next play jumps, so that the plays may cycle (Farina et al., arXiv 2305.14709).
"""

from __future__ import annotations

import numpy as np

from nlhfsim.dynamics._averaging import matched, misaverage, mismatch, total
from nlhfsim.dynamics._conditions import probabilities
from nlhfsim.dynamics._spec import Dynamics, Method, NoParams, register
from nlhfsim.dynamics.regret_matching import State, init, instant_regrets
from nlhfsim.games.payoffs import Context, advantage
from nlhfsim.simplex import expect
from nlhfsim.sources import REGRET_MATCHING_PLUS


def step(state: State, context: Context, step_size: float, params: NoParams) -> State:
    """Regret the last play, forget what is negative; match the regrets; average with weight t + 1 on play t."""
    gain = advantage(context.payoff, state.play)
    regrets = np.maximum(state.regrets + (gain - expect(state.play, gain)), 0.0)
    play = matched(regrets)
    taken = state.taken + 1
    plays = state.plays + (taken + 1.0) * play
    return State(np.log(plays) - np.log(0.5 * (taken + 1.0) * (taken + 2.0)), plays, play, regrets, taken)


def characterisation(context: Context, params: NoParams, before: State, step_size: float, after: State) -> float:
    """Return the distance of r⁺ from its rule, of x⁺ from matching r⁺, and of π⁺ from the average.

    r⁺ is the least vector above 0 and above r + regrets: nowhere below either, and in each action equal to one of the two.
    """
    above = after.regrets - before.regrets - instant_regrets(context, before.play)
    regretted = np.abs(np.minimum(after.regrets, above)).max()
    earlier = sum(s + 1.0 for s in range(before.taken + 1))
    parts = [(earlier, probabilities(before.logits)), (before.taken + 2.0, after.play)]
    counted = abs(after.taken - before.taken - 1)
    return float(max(regretted, mismatch(after.regrets, after.play), misaverage(after.logits, parts), counted))


METHOD = Method(
    name="RegretMatchingPlus",
    step=step,
    characterisation=characterisation,
    init=init,
    source=REGRET_MATCHING_PLUS.at("regret matching+ with linear averaging, both sides at once"),
    scheduled=None,
    fixed_point="none",
    iterate="average",
    full_support=False,
    smooth=False,
    autonomous=False,
    helpers=(total, matched),
    example={},
    summary="regret matching without negative regrets, averaged linearly",
)


@register(METHOD)
def RegretMatchingPlus() -> Dynamics:
    """Regret matching+: plays in proportion to regrets that are cut at 0; the policy is their average with weights 1, 2, 3, …

    It has no parameters, and the game's β and ρ are not used: E_0 of the average of T plays is at most √(nT)/(T + 1).

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.games.rock_paper_scissors(margin=0.5, bias=-0.3, beta=0.0)
    >>> trajectory = nl.simulate(game, nl.dynamics.RegretMatchingPlus(), 9999, start=[0.8, 0.1, 0.1])
    >>> bool(trajectory.gap0[0, -1] <= (3 * 10_000) ** 0.5 / 10_001)
    True
    """
    return Dynamics(METHOD)
