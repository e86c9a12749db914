"""Where a method is stable and how fast it is near its fixed point: linearizations, critical steps, best steps.

Everything here is local: a run that starts far away may do worse, and on some games a step above the critical one still
converges on average.
"""

from nlhfsim.stability.limit import StabilityLimit, stability_limit
from nlhfsim.stability.linearization import Linearization, linearize, local_rate
from nlhfsim.stability.maps import StabilityMap, stability_map
from nlhfsim.stability.self_play import SelfPlaySpectrum, self_play_spectrum
from nlhfsim.stability.step_sizes import BestStep, best_step, critical_step, stable_ranges

__all__ = [
    "BestStep",
    "Linearization",
    "SelfPlaySpectrum",
    "StabilityLimit",
    "StabilityMap",
    "best_step",
    "critical_step",
    "linearize",
    "local_rate",
    "self_play_spectrum",
    "stability_limit",
    "stability_map",
    "stable_ranges",
]
