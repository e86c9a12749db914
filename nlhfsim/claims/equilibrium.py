"""Claims about the equilibrium π*: what it wins, how far it is from the reference, and what regularization costs."""

from __future__ import annotations

import numpy as np
from scipy.special import rel_entr

from nlhfsim.claims._accuracy import EPS, deviation_error, kl_from_equilibrium, span_error
from nlhfsim.claims._case import Case
from nlhfsim.claims._registry import register
from nlhfsim.claims._runs import kl_to_equilibrium
from nlhfsim.claims._spec import Claim, Measured, Mutant
from nlhfsim.claims.payoff import payoff, payoff_rounding
from nlhfsim.simplex import kl_log
from nlhfsim.sources import PROXIMAL_POINT_NLHF

_SAME = 1e-12


def _advantage(case: Case, opponents_penalty: bool = True) -> Measured:
    """P_β(π* ≻ μ) - ½ by its definition; an error δ of log π* moves it by Cov_π*(A(μ - π*), δ)."""
    pi, opponent = case.equilibrium, case.opponent
    value = payoff(case, pi, opponent) - 0.5
    if not opponents_penalty:
        value -= case.beta * float(rel_entr(opponent, case.reference).sum())
    error = 0.5 * float(np.abs(opponent - pi).sum()) * deviation_error(case)
    return Measured(value, error + payoff_rounding(case, pi, opponent))


def _scaled(factor: float, measured: Measured) -> Measured:
    return Measured(factor * measured.value, factor * measured.uncertainty)


register(
    Claim(
        id="advantage-of-equilibrium",
        title="what the equilibrium wins against a policy is β KL to it",
        statement=r"\mathcal P_\beta(\pi^* \succ \mu) - \tfrac12 = \beta\, \mathrm{KL}(\mu \| \pi^*)",
        source=PROXIMAL_POINT_NLHF.at("definition of the Nash equilibrium; the identity derived here"),
        kind="equality",
        status="identity",
        measure=_advantage,
        bound=lambda case: _scaled(case.beta, kl_from_equilibrium(case, case.log_opponent)),
        tolerance=0.0,
        why="rounding of the largest terms; the error of π* is propagated to both sides",
        mutants=(
            Mutant("KL the other way", {"bound": lambda case: _scaled(case.beta, kl_to_equilibrium(case, case.log_opponent))}),
            Mutant("β times 1.5", {"bound": lambda case: _scaled(1.5 * case.beta, kl_from_equilibrium(case, case.log_opponent))}),
            Mutant("the opponent's penalty dropped", {"measure": lambda case: _advantage(case, opponents_penalty=False)}),
        ),
        proof="docs/proofs/derived-claims.md#advantage-of-equilibrium",
    )
)


def _both_ways(case: Case, back: float = 1.0) -> Measured:
    """KL(π*‖ρ) + KL(ρ‖π*) from logarithms."""
    there = kl_to_equilibrium(case, case.log_reference)
    again = kl_from_equilibrium(case, case.log_reference)
    rounding = 4 * EPS * float(np.sum(case.equilibrium * (1 + np.abs(case.log_equilibrium) + np.abs(case.log_reference))))
    return Measured(there.value + back * again.value, there.uncertainty + back * again.uncertainty + rounding)


def _margin(case: Case, factor: float = 1.0) -> Measured:
    """(P(π* ≻ ρ) - ½)/β in probability space; as ρᵀAρ = 0 it is that of π* - ρ, which keeps digits."""
    gain = case.advantages @ case.reference
    away = case.equilibrium - case.reference
    spread = float(np.sqrt(case.equilibrium @ (gain - case.equilibrium @ gain) ** 2))
    rounding = 8 * EPS * float(np.abs(away) @ np.abs(gain) + 0.5 * np.abs(away).sum() + 0.5 * (np.abs(gain).max()))
    return Measured(factor * float(away @ gain) / case.beta, factor * (rounding + spread * deviation_error(case)) / case.beta)


def _elsewhere(case: Case) -> str:
    near = kl_log(case.log_reference, case.log_equilibrium) <= _SAME
    return "the reference is the equilibrium" if near else ""


register(
    Claim(
        id="reference-distance",
        title="the distance of equilibrium and reference is what the one wins against the other, over β",
        statement=r"\mathrm{KL}(\pi^* \| \rho) + \mathrm{KL}(\rho \| \pi^*) = (\mathcal P(\pi^* \succ \rho) - \tfrac12)/\beta",
        source=PROXIMAL_POINT_NLHF.at("strong monotonicity of the regularized game; the identity derived here"),
        kind="equality",
        status="identity",
        measure=_both_ways,
        bound=_margin,
        tolerance=0.0,
        why="rounding of the largest terms; the error of π* is propagated to both sides",
        counts=_elsewhere,
        mutants=(
            Mutant("KL(π*‖ρ) alone", {"measure": lambda case: _both_ways(case, back=0.0)}),
            Mutant("1/β times 1.5", {"bound": lambda case: _margin(case, 1.5)}),
        ),
        proof="docs/proofs/derived-claims.md#reference-distance",
    )
)

register(
    Claim(
        id="reference-distance-bound",
        title="equilibrium and reference are at most 1/(2β) apart",
        statement=r"\mathrm{KL}(\pi^* \| \rho) + \mathrm{KL}(\rho \| \pi^*) \le 1/(2\beta)",
        source=PROXIMAL_POINT_NLHF.at("strong monotonicity of the regularized game; the bound derived here"),
        kind="upper",
        status="theorem",
        measure=_both_ways,
        bound=lambda case: 0.5 / case.beta,
        tolerance=0.0,
        why="rounding of the largest terms; the error of π* is propagated",
        mutants=(Mutant("1/(3β)", {"bound": lambda case: 1 / (3 * case.beta)}),),
        proof="docs/proofs/derived-claims.md#reference-distance-bound",
    )
)


def _log_ratio_span(case: Case) -> Measured:
    log_ratio = case.log_equilibrium - case.log_reference
    rounding = 4 * EPS * float((np.abs(case.log_equilibrium) + np.abs(case.log_reference)).max())
    return Measured(float(log_ratio.max() - log_ratio.min()), span_error(case) + rounding)


register(
    Claim(
        id="log-ratio-span",
        title="the log-ratio of equilibrium and reference spans at most 1/β",
        statement=r"\| \log \pi^* - \log \rho \|_{\mathrm{sp}} \le 1/\beta",
        source=PROXIMAL_POINT_NLHF.at("definition of the Nash equilibrium; the bound derived here"),
        kind="upper",
        status="theorem",
        measure=_log_ratio_span,
        bound=lambda case: 1 / case.beta,
        tolerance=0.0,
        why="rounding of logarithms; the error of π* is propagated",
        mutants=(Mutant("1/(1.5β)", {"bound": lambda case: 1 / (1.5 * case.beta)}),),
        proof="docs/proofs/derived-claims.md#log-ratio-span",
    )
)


def _gap0(case: Case) -> Measured:
    """E_0(π*) = max_y (Aπ*)_y; an error δ of log π* moves Aπ* by AJδ, at most half its standard deviation."""
    gains = [float(row @ case.equilibrium) for row in case.advantages]
    return Measured(max(gains), 0.5 * deviation_error(case) + 4 * EPS)


register(
    Claim(
        id="bias-of-regularization",
        title="regularization costs at most β log(1/min ρ)",
        statement=r"\mathcal E_0(\pi^*_\beta) \le \beta \textstyle\sum_x \nu(x) \log(1/\min \rho_x)",
        source=PROXIMAL_POINT_NLHF.at("unregularized exploitability; the bound derived here"),
        kind="upper",
        status="theorem",
        measure=_gap0,
        bound=lambda case: -case.beta * float(np.log(case.reference.min())),
        tolerance=0.0,
        why="rounding of Aπ*; the error of π* is propagated",
        mutants=(Mutant("β divided by 1.5", {"bound": lambda case: -case.beta / 1.5 * float(np.log(case.reference.min()))}),),
        proof="docs/proofs/derived-claims.md#bias-of-regularization",
    )
)
