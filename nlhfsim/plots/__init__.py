"""Figures at print size: convergence, phase portraits and streamlines, preferences and tournaments, stability, tightness, work.

Every function draws on the axes it is given, or on a new figure 3.4 or 7 inches wide, and returns the axes. New figures are
plain `matplotlib.figure.Figure` objects that pyplot does not know: no display is needed, and none stays open. In a notebook,
show ``axes.figure``, after ``%matplotlib inline``; `save` writes it to a file.
"""

from nlhfsim.plots.claims import tightness
from nlhfsim.plots.curves import convergence
from nlhfsim.plots.experiment import experiment
from nlhfsim.plots.graph import tournament
from nlhfsim.plots.matrices import policy_bars, preferences
from nlhfsim.plots.quantiles import high_probability
from nlhfsim.plots.stability import stability_limit, stability_map
from nlhfsim.plots.streamlines import streamlines
from nlhfsim.plots.style import DOUBLE, FORMATS, METHOD_COLOURS, SINGLE, colour_of, save
from nlhfsim.plots.sweep import sweep
from nlhfsim.plots.training import training
from nlhfsim.plots.triangle import flow, phase_portrait
from nlhfsim.plots.work import work_precision

__all__ = [
    "DOUBLE",
    "FORMATS",
    "METHOD_COLOURS",
    "SINGLE",
    "colour_of",
    "convergence",
    "experiment",
    "flow",
    "high_probability",
    "phase_portrait",
    "policy_bars",
    "preferences",
    "save",
    "stability_limit",
    "stability_map",
    "streamlines",
    "sweep",
    "tightness",
    "tournament",
    "training",
    "work_precision",
]
