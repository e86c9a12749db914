"""Sliders above a figure, for the notebooks; the figure alone where nothing can move them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

_NOT_MOVED = "(sliders: run the notebook to move them)"


def slide(draw: Callable[..., Any], **choices: Sequence[float]) -> Any:
    """Show the figure that `draw` returns at its default arguments, and redraw it when a slider is moved.

    Parameters
    ----------
    draw : callable
        Takes numbers by name, with defaults, and returns a figure.
    **choices : sequence of float
        The values that a slider has, by the name of the argument; its default must be one of them.

    Returns
    -------
    list of ipywidgets.SelectionSlider
        Empty without ipywidgets. The figure is an output of its own, so that it stays where sliders do not: on paper, on GitHub.
    """
    from IPython import display as output

    parameters = inspect.signature(draw).parameters
    sliders = _sliders({name: (values, parameters[name].default) for name, values in choices.items()})
    if sliders:
        output.display(_bundle(sliders), raw=True)  # type: ignore[no-untyped-call]
    shown = output.display(draw(), display_id=True)  # type: ignore[no-untyped-call]
    for slider in sliders:
        slider.observe(lambda change: shown.update(draw(**{one.description: one.value for one in sliders})), "value")
    return sliders


def _sliders(choices: dict[str, tuple[Sequence[float], float]]) -> list[Any]:
    try:
        from ipywidgets import SelectionSlider
    except ImportError:
        return []
    return [
        SelectionSlider(options=[(f"{v:.3g}", v) for v in values], value=default, description=name, continuous_update=False)
        for name, (values, default) in choices.items()
    ]


def _bundle(sliders: list[Any]) -> dict[str, Any]:
    """Return what shows the sliders in a row, with words in place of the widget's name where they cannot be shown."""
    from ipywidgets import HBox

    return {**HBox(sliders)._repr_mimebundle_(), "text/plain": _NOT_MOVED}
