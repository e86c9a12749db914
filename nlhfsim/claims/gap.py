"""Claims about exploitability and the distance to the equilibrium: what E_β(μ) says about KL(μ‖π*), both ways.

The two sides of β KL(μ‖π*) ≤ E_β(μ) ≤ (β + 1/(4β)) KL(μ‖π*) are two claims: they have different proofs, one is attained and the
other is not, and a verdict, a tightness and a witness belong to one inequality. What lies between them is an identity.
"""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp, rel_entr

from nlhfsim.claims._accuracy import EPS, deviation_error, kl_from_equilibrium
from nlhfsim.claims._case import Case
from nlhfsim.claims._registry import register
from nlhfsim.claims._runs import kl_to_equilibrium
from nlhfsim.claims._spec import Claim, Hypothesis, Measured, Mutant
from nlhfsim.simplex import kl_log
from nlhfsim.sources import PROXIMAL_POINT_NLHF

_RESOLVED = 1e-12


def gap(case: Case) -> Measured:
    """Return E_β(μ) of the case's opponent by its definition: the maximum over π as a log-sum-exp, and the penalty on μ."""
    beta, penalty = case.beta, rel_entr(case.opponent, case.reference)
    exponents = case.log_reference + case.advantages @ case.opponent / beta
    best = float(logsumexp(exponents))
    largest = float(np.exp(exponents - best) @ np.abs(exponents)) + float(np.abs(penalty).sum())
    return Measured(beta * (best + float(penalty.sum())), 8 * EPS * (1 + beta * (1 + largest)))


def _distance(case: Case, factor: float) -> Measured:
    value, error = kl_from_equilibrium(case, case.log_opponent)
    return Measured(factor * value, factor * error)


def _backwards(case: Case) -> Measured:
    value, error = kl_to_equilibrium(case, case.log_opponent[None])
    return Measured(case.beta * value, case.beta * error)


_AWAY = Hypothesis("KL(μ‖π*) > 1e-12 (rounding)", lambda case: kl_from_equilibrium(case, case.log_opponent).value > _RESOLVED)
_WHY = "rounding of the largest terms; the error of π* is propagated to KL"


register(
    Claim(
        id="gap-dominates-kl",
        title="exploitability bounds the distance to the equilibrium",
        statement=r"\beta\, \mathrm{KL}(\mu \| \pi^*) \le \mathcal E_\beta(\mu)",
        source=PROXIMAL_POINT_NLHF.at("exploitability; the bound derived here"),
        kind="lower",
        status="theorem",
        measure=gap,
        bound=lambda case: _distance(case, case.beta),
        tolerance=0.0,
        why=_WHY,
        hypotheses=(_AWAY,),
        mutants=(
            Mutant("β times 1.5", {"bound": lambda case: _distance(case, 1.5 * case.beta)}),
            Mutant("KL the other way", {"bound": _backwards}),
        ),
        proof="docs/proofs/derived-claims.md#gap-dominates-kl",
    )
)

register(
    Claim(
        id="gap-dominates-kl-upper",
        title="the distance to the equilibrium bounds exploitability",
        statement=r"\mathcal E_\beta(\mu) \le (\beta + \tfrac{1}{4\beta})\, \mathrm{KL}(\mu \| \pi^*)",
        source=PROXIMAL_POINT_NLHF.at("exploitability; the bound derived here"),
        kind="upper",
        status="theorem",
        measure=gap,
        bound=lambda case: _distance(case, case.beta + 0.25 / case.beta),
        tolerance=0.0,
        why=_WHY,
        hypotheses=(_AWAY,),
        mutants=(
            Mutant("1/(4β) dropped", {"bound": lambda case: _distance(case, case.beta)}),
            Mutant("β divided by 1.5", {"bound": lambda case: _distance(case, case.beta / 1.5 + 0.25 / case.beta)}),
        ),
        slack="attained in β at large β; the most of 1/(4β) that maximizing over games found is 0.414, so gap-decomposition "
        "carries the mutants of that term",
        proof="docs/proofs/derived-claims.md#gap-dominates-kl-upper",
    )
)


def _parts(case: Case, partition: bool = True, centre: bool = True) -> Measured:
    """β KL(μ‖π*) + β log Σ π* exp((v - ⟨π*, v⟩)/β), v = A(μ - π*).

    An error δ of log π* moves it by β ⟨BR(μ) - μ, r⟩, r = δ - AJδ/β the residual: at most by β ‖r‖_sp.
    """
    beta, pi, opponent = case.beta, case.equilibrium, case.opponent
    value = beta * float(kl_log(case.log_opponent, case.log_equilibrium))
    largest = float(np.sum(opponent * (1 + np.abs(case.log_opponent) + np.abs(case.log_equilibrium))))
    gain = case.advantages @ (opponent - pi)
    if partition:
        exponents = case.log_equilibrium + gain / beta
        total = float(logsumexp(exponents))
        value += beta * total
        largest += float(np.exp(exponents - total) @ np.abs(exponents))
    if centre:
        value -= float(pi @ gain)
    return Measured(value, beta * deviation_error(case) + 8 * EPS * (1 + beta * largest))


register(
    Claim(
        id="gap-decomposition",
        title="exploitability is β KL to the equilibrium and a log-partition",
        statement=r"\mathcal E_\beta(\mu) = \beta\, \mathrm{KL}(\mu \| \pi^*) + \beta \log \textstyle\sum_y \pi^*_y "
        r"e^{(v_y - \langle \pi^*, v \rangle)/\beta}, \quad v = A(\mu - \pi^*)",
        source=PROXIMAL_POINT_NLHF.at("exploitability; the identity derived here"),
        kind="equality",
        status="identity",
        measure=gap,
        bound=_parts,
        tolerance=0.0,
        why="rounding of the largest terms; an error of π* enters through its residual only",
        mutants=(
            Mutant("without the log-partition", {"bound": lambda case: _parts(case, partition=False)}),
            Mutant("v not centred", {"bound": lambda case: _parts(case, centre=False)}),
        ),
        proof="docs/proofs/derived-claims.md#gap-decomposition",
    )
)
