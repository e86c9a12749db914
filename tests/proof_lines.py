"""Every displayed inequality of `docs/proofs/self-play-pg-converges.md` as (smaller side, larger side), and lines that are false.

A side that is an increase is written as the decrease: both sides are positive and their quotient says how tight the line is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from proof_points import Floats, Values, excess, kernel

Line = Callable[[Values], tuple[Floats, Floats]]
EXPONENT = np.e - 2


def _total(x: Floats) -> Floats:
    return np.asarray(x.sum(-1))


def universal_step(share: float) -> Callable[[Values], Floats]:
    return lambda x: np.asarray(share * x.gamma_1)


# --- setting ----------------------------------------------------------------------------------------------------------------


def smallest_q(x: Values) -> tuple[Floats, Floats]:
    return x.log_inverse, x.level_0


def reference_level(x: Values) -> tuple[Floats, Floats]:
    return _level_at_reference(x), np.minimum((1 - 1 / x.n) / x.beta, 1 / (8 * x.beta**2))


def _level_at_reference(x: Values) -> Floats:
    w = x.points.log_rho - x.points.log_q
    w = w - w.mean(-1, keepdims=True)
    return np.asarray(np.logaddexp.reduce(-w, axis=-1) - np.log(x.n))


def span_of_equilibrium(x: Values) -> tuple[Floats, Floats]:
    return np.ptp(x.points.log_q - x.points.log_rho, axis=-1), 1 / x.beta


# --- theorem 1: any step up to min(4β, 1/β) ------------------------------------------------------------------------------------


def _tilted(x: Values, gamma: Floats) -> Floats:
    """Decrease Σ q (1 - exp(-γv))."""
    return np.asarray(-_total(x.q * np.expm1(-gamma[:, None] * x.v)))


def one_slope(x: Values) -> tuple[Floats, Floats]:
    gamma = 0.5 * x.gamma_1
    return np.maximum(_tilted(x, gamma), 0), -x.change(gamma)


def concave_power(x: Values) -> tuple[Floats, Floats]:
    alpha = (0.5 * x.gamma_1 * x.beta)[:, None]
    return np.exp(alpha * x.r).ravel(), (1 + alpha * np.expm1(x.r)).ravel()


def hoeffding(x: Values) -> tuple[Floats, Floats]:
    gamma = x.gamma_1
    alpha = (gamma * x.beta)[:, None]
    mixture = x.q + alpha * x.d
    y = gamma[:, None] * (x.a - _total(mixture * x.a)[:, None])
    return np.log1p(_total(mixture * excess(y))), gamma**2 * x.tv**2 / 2


def pinsker(x: Values) -> tuple[Floats, Floats]:
    return 2 * x.tv**2, x.kl


def decrease(x: Values) -> tuple[Floats, Floats]:
    gamma = 0.5 * x.gamma_1
    return -np.expm1(-gamma * x.beta * x.kl + gamma**2 * x.tv**2 / 2), -x.change(gamma)


def decrease_in_kl(x: Values) -> tuple[Floats, Floats]:
    gamma = 0.5 * x.gamma_1
    return -np.expm1(-gamma * x.beta * (1 - gamma / (4 * x.beta)) * x.kl), -x.change(gamma)


def kl_above_level(x: Values) -> tuple[Floats, Floats]:
    return x.n * x.smallest_q * x.level / x.largest, x.kl


def kl_termwise(x: Values) -> tuple[Floats, Floats]:
    return excess(x.r).ravel(), (x.largest[:, None] * kernel(x.r)).ravel()


def universal_rate(x: Values) -> tuple[Floats, Floats]:
    gamma = 0.5 * x.gamma_1
    size = gamma * x.beta * (1 - gamma / (4 * x.beta))
    gained = -np.expm1(-size * x.kl) / x.ratio
    return -np.log1p(-gained), -np.log1p(x.change(gamma) / x.ratio)


def universal_level(x: Values) -> tuple[Floats, Floats]:
    """ℓ - ℓ⁺ is at least the share of ℓ that the theorem gives."""
    gamma = 0.5 * x.gamma_1
    size = gamma * x.beta * (1 - gamma / (4 * x.beta))
    share = size * x.n * x.smallest_q / (x.largest * x.ratio * (1 + size * x.log_inverse))
    return share * x.level, -np.log1p(x.change(gamma) / x.ratio)


# --- theorem 2: the step γ₀ ----------------------------------------------------------------------------------------------------


def advantage_size(x: Values) -> tuple[Floats, Floats]:
    return np.abs(x.a).max(-1), x.tv


def popoviciu(x: Values) -> tuple[Floats, Floats]:
    return x.variance(x.a), x.tv**2


def pinsker_twice(x: Values) -> tuple[Floats, Floats]:
    return 4 * x.tv**2, x.jeffreys


def logarithmic_mean(x: Values) -> tuple[Floats, Floats]:
    safe = np.where(np.abs(x.r) < 1e-12, 1e-12, x.r)
    return (safe / -np.expm1(-safe)).ravel(), (1 + np.maximum(x.r, 0)).ravel()


def second_moment(x: Values) -> tuple[Floats, Floats]:
    return _total(x.pi * x.r**2), (1 + x.log_inverse) * x.jeffreys


def second_moment_sharp(x: Values) -> tuple[Floats, Floats]:
    level = x.log_inverse
    return _total(x.pi * x.r**2), level / -np.expm1(-level) * x.jeffreys


def variance_of_slope(x: Values) -> tuple[Floats, Floats]:
    return x.variance(x.u), x.slope**2 * x.jeffreys


def second_order(x: Values) -> tuple[Floats, Floats]:
    return _total(x.q * x.pi * x.v**2), x.slope**2 * x.jeffreys


def second_order_largest_q(x: Values) -> tuple[Floats, Floats]:
    return _total(x.q * x.pi * x.v**2), x.q.max(-1) * x.slope**2 * x.jeffreys


def fall_of_logit(x: Values) -> tuple[Floats, Floats]:
    return np.maximum((-x.pi * x.v).max(-1), 0), 0.5 + x.beta * x.log_inverse


def step_bounded(x: Values) -> tuple[Floats, Floats]:
    return x.gamma_0 * (0.5 + x.beta * x.log_inverse), np.ones_like(x.beta)


def descent(x: Values) -> tuple[Floats, Floats]:
    share = 1 - EXPONENT * x.gamma_0 * x.slope**2 / x.beta
    return share * x.gamma_0 * x.beta * x.jeffreys, -x.change(x.gamma_0)


def level_by_terms(x: Values) -> tuple[Floats, Floats]:
    return x.level, _total(excess(x.r)) / x.n


def jeffreys_termwise(x: Values) -> tuple[Floats, Floats]:
    return excess(x.r).ravel(), (x.largest[:, None] / 2 * x.r * np.expm1(x.r)).ravel()


def level_below_jeffreys(x: Values) -> tuple[Floats, Floats]:
    return x.level, x.largest * x.jeffreys / (2 * x.n * x.smallest_q)


def ratio_below(x: Values) -> tuple[Floats, Floats]:
    return x.ratio, x.n * x.largest


def span_below_level(x: Values) -> tuple[Floats, Floats]:
    return np.ptp(x.w, axis=-1), x.n * x.level + np.log(4)


def largest_below_level(x: Values) -> tuple[Floats, Floats]:
    return np.log(x.largest), x.n * x.level + np.log(4)


def rate(x: Values) -> tuple[Floats, Floats]:
    share = 1 - EXPONENT * x.gamma_0 * x.slope**2 / x.beta
    factor = 2 * share * x.gamma_0 * x.beta * x.n * x.smallest_q / (x.largest * x.ratio)
    return factor * x.level, -np.log1p(x.change(x.gamma_0) / x.ratio)


def local_second_order(x: Values) -> tuple[Floats, Floats]:
    """Near π*: Σ qπv² ≤ max q (¼ + β²) D, as the covariance of a and r vanishes there; |r| ≤ 0.02."""
    near = np.abs(x.r).max(-1) < 0.02
    return _total(x.q * x.pi * x.v**2)[near], (1.05 * x.q.max(-1) * (0.25 + x.beta**2) * x.jeffreys)[near]


LINES: dict[str, Line] = {
    line.__name__: line
    for line in (
        smallest_q,
        reference_level,
        span_of_equilibrium,
        one_slope,
        concave_power,
        hoeffding,
        pinsker,
        decrease,
        decrease_in_kl,
        kl_termwise,
        kl_above_level,
        universal_rate,
        universal_level,
        advantage_size,
        popoviciu,
        pinsker_twice,
        logarithmic_mean,
        second_moment,
        second_moment_sharp,
        variance_of_slope,
        second_order,
        second_order_largest_q,
        fall_of_logit,
        step_bounded,
        descent,
        level_by_terms,
        jeffreys_termwise,
        level_below_jeffreys,
        ratio_below,
        span_below_level,
        largest_below_level,
        rate,
        local_second_order,
    )
}


# --- lines that are false ------------------------------------------------------------------------------------------------------


def power_convex(x: Values) -> tuple[Floats, Floats]:
    """α above 1: γ = 2/β."""
    return np.exp(2 * x.r).ravel(), np.maximum(1 + 2 * np.expm1(x.r), 1e-300).ravel()


def hoeffding_without_cancellation(x: Values) -> tuple[Floats, Floats]:
    """Half of the exponent that Hoeffding's lemma gives."""
    smaller, larger = hoeffding(x)
    return smaller, larger / 2


def second_moment_without_logarithm(x: Values) -> tuple[Floats, Floats]:
    return _total(x.pi * x.r**2), x.jeffreys


def variance_without_regularizer(x: Values) -> tuple[Floats, Floats]:
    return x.variance(x.u), 0.25 * x.jeffreys


def fall_without_logarithm(x: Values) -> tuple[Floats, Floats]:
    return np.maximum((-x.pi * x.v).max(-1), 0), np.full_like(x.beta, 0.5)


def level_without_jeffreys_ratio(x: Values) -> tuple[Floats, Floats]:
    return x.level, x.jeffreys / (2 * x.n * x.smallest_q)


def kl_without_ratio(x: Values) -> tuple[Floats, Floats]:
    return x.n * x.smallest_q * x.level, x.kl


def span_without_log_4(x: Values) -> tuple[Floats, Floats]:
    return np.ptp(x.w, axis=-1), x.n * x.level


def rate_without_ratio(x: Values) -> tuple[Floats, Floats]:
    smaller, larger = rate(x)
    return smaller * x.largest * x.ratio / x.n, larger


def smallest_q_without_beta(x: Values) -> tuple[Floats, Floats]:
    return x.log_inverse, -x.points.log_rho.min(-1)


def reference_level_halved(x: Values) -> tuple[Floats, Floats]:
    return _level_at_reference(x), np.minimum((1 - 1 / x.n) / x.beta, 1 / (16 * x.beta**2))


FALSE: dict[str, Line] = {
    line.__name__: line
    for line in (
        power_convex,
        hoeffding_without_cancellation,
        second_moment_without_logarithm,
        variance_without_regularizer,
        fall_without_logarithm,
        level_without_jeffreys_ratio,
        kl_without_ratio,
        span_without_log_4,
        rate_without_ratio,
        smallest_q_without_beta,
        reference_level_halved,
    )
}
