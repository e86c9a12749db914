"""A method's constant step as a map of vectors, and its exact derivative."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np

from nlhfsim.dynamics._spec import Dynamics
from nlhfsim.errors import Array, InputError
from nlhfsim.games.payoffs import Context
from nlhfsim.simplex import log_softmax

COMPLEX, DIFFERENCES = "complex step", "central differences"
_SIZE = 1e-30
"""The imaginary part of a complex step: so small that second order vanishes below rounding."""
_SHIFT = 1e-3
"""The shift of central differences of fourth order, in units of what the step makes of it."""
_AGREE = 1e-5
_ROUNDING = 1e-14
"""The rounding error of an image for each unit of the step size."""
_STEEP = 1e6
"""Above this slope, where differences see rounding only, a complex step is taken at its word."""
_LEAK = 1e-7


class Derivative(NamedTuple):
    """A step and its derivative at a point.

    Attributes
    ----------
    image : numpy.ndarray
        Where the step leads, shape ``(d,)``.
    matrix : numpy.ndarray
        Its Jacobian, shape ``(d, d)``.
    means : str
        How it was differentiated: `COMPLEX` or `DIFFERENCES`.
    """

    image: Array
    matrix: Array
    means: str


class StepMap:
    """The step of a method in one context, at any constant step size, on its full state written as a vector of length d.

    Arrays and floats of the state are coordinates; whole numbers count steps and start where `init` puts them. A method with a
    period is taken over a whole one. Arrays that the step returns as normalized log-probabilities are normalized before it too,
    so that their constants, which carry no meaning, have no effect.

    Parameters
    ----------
    context : Context
        One context of a game.
    dynamics : Dynamics
        The method; its own step size is not used.
    log_policy : numpy.ndarray
        Where `init` starts, shape ``(n,)``.
    """

    def __init__(self, context: Context, dynamics: Dynamics, log_policy: Array) -> None:
        method, self._params = dynamics.method, dynamics.params
        self._context, self._method = context, method
        self.period = 1 if method.period is None else method.period(self._params)
        self._inner = None if method.inner_steps is None else method.inner_steps(self._params)
        self._state = method.init(context, self._params, np.array(log_policy))
        self._moving = [k for k, value in enumerate(self._state) if isinstance(value, (np.ndarray, float, np.floating))]
        parts = [np.asarray(self._state[k], dtype=np.float64) for k in self._moving]
        ends = np.cumsum([0, *(part.size for part in parts)])
        self._slices = [slice(int(a), int(b)) for a, b in zip(ends, ends[1:])]
        self._shapes = [part.shape for part in parts]
        self._vectors = [s for s, shape in zip(self._slices, self._shapes) if shape == log_policy.shape]
        self._together = method.together and len(self._vectors) == len(self._slices)
        self._normalized: list[slice] | None = None
        self.start = np.concatenate([part.ravel() for part in parts])
        self.size = len(self.start)
        self._probe = np.random.default_rng(self.size).uniform(-1, 1, self.size)

    @property
    def logits(self) -> slice:
        """Where θ stands in the vector."""
        return self._slices[0]

    def state(self, point: Array) -> Any:
        """Return a point as the method's state."""
        return self._unpacked(self._clean(point))

    def derivative(self, point: Array, step_size: float) -> Derivative:
        """Return the step and its Jacobian at a point.

        By a complex step, checked against central differences along one direction; where they disagree, as after ``abs`` or
        ``np.real``, or where the step refuses complex numbers, by central differences.

        Raises
        ------
        InputError
            If the step has a kink at the point.
        """
        if self._normalized is None:
            self._normalized = self._find_normalized(point, step_size)
        with np.errstate(all="ignore"):
            directions = np.vstack([np.eye(self.size), self._probe])
            found = self._by_complex_step(point, directions, step_size)
            if found is not None:
                slope = float(np.abs(found[-1]).max())
                shift = _SHIFT / (1 + slope)
                image, along = self._stencil(point, self._probe, step_size, shift)
                agree = np.abs(along - found[-1]).max() <= _AGREE * (1 + slope) + _ROUNDING * step_size / shift
                if agree or not slope <= _STEEP:
                    return Derivative(image, found[:-1].T, COMPLEX)
            return self._by_differences(point, step_size)

    def basis(self, jacobian: Array) -> Array:
        """Return an orthonormal basis ``(d, r)`` of what is left once constants are projected out of every logits-like array.

        An array is logits-like if adding a constant to it moves the image by constants of logits-like arrays only.
        """
        constants = {s.start: self._constant(s) for s in self._vectors}
        while constants:
            span = np.stack(list(constants.values()), axis=1)
            image = jacobian @ span
            leak = np.abs(image - span @ (span.T @ image)).max(axis=0)
            bad = [s for s, out, column in zip(constants, leak, image.T) if out > _LEAK * (1 + np.abs(column).max())]
            if not bad:
                break
            constants = {s: column for s, column in constants.items() if s not in bad}
        columns = [_without_constant(s.stop - s.start, s.start in constants) for s in self._slices]
        out = np.zeros((self.size, sum(block.shape[1] for block in columns)))
        column = 0
        for s, block in zip(self._slices, columns):
            out[s, column : column + block.shape[1]] = block
            column += block.shape[1]
        return out

    def _constant(self, where: slice) -> Array:
        vector = np.zeros(self.size)
        vector[where] = 1 / np.sqrt(where.stop - where.start)
        return vector

    def _find_normalized(self, point: Array, step_size: float) -> list[slice]:
        """Return the arrays that the step normalizes whatever it is given."""
        self._normalized = []
        with np.errstate(all="ignore"):
            images = self._step(point + 1e-3 * self._probe * np.arange(3)[:, None], step_size)
            return [s for s in self._vectors if np.abs(np.log(np.exp(images[:, s]).sum(axis=1))).max() < 1e-9]

    def _by_complex_step(self, point: Array, directions: Array, step_size: float) -> Array | None:
        """Return the derivative along each direction, shape ``(directions, d)``; None if the step takes no complex numbers."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", np.exceptions.ComplexWarning)
                images = self._step(point + 1j * _SIZE * directions, step_size)
        except Exception:  # whatever a step made elsewhere says to complex numbers, differences will do
            return None
        return np.asarray(images.imag / _SIZE)

    def _by_differences(self, point: Array, step_size: float) -> Derivative:
        slope = float(np.abs(self._stencil(point, self._probe, step_size, _SHIFT)[1]).max())
        small = _SHIFT**2 / (1 + slope)
        image, after, before = self._step(point + small * self._probe * np.array([[0], [1], [-1]]), step_size)
        if np.abs(after - 2 * image + before).max() > 0.01 * small * (1 + slope):
            raise InputError(f"{self._method.name} has no linearization: its step has a kink at its fixed point")
        rows = [self._stencil(point, direction, step_size, _SHIFT / (1 + slope))[1] for direction in np.eye(self.size)]
        return Derivative(image, np.stack(rows, axis=1), DIFFERENCES)

    def _stencil(self, point: Array, direction: Array, step_size: float, shift: float) -> tuple[Array, Array]:
        """Return the image and the derivative along one direction, by central differences of fourth order."""
        image, *images = self._step(point + shift * direction * np.array([[0], [1], [-1], [2], [-2]]), step_size)
        return image, (8 * (images[0] - images[1]) - (images[2] - images[3])) / (12 * shift)

    def _step(self, points: Array, step_size: float) -> Array:
        """Return the images of points, shape ``(points, d)``."""
        cleaned = self._clean(points)
        if self._together:
            return self._run(cleaned, step_size)
        return np.stack([self._run(point, step_size) for point in cleaned])

    def _run(self, points: Array, step_size: float) -> Array:
        sizes = step_size if self._inner is None else np.full(self._inner, step_size)
        step = self._method.analytic if self._method.analytic is not None and np.iscomplexobj(points) else self._method.step
        state = self._unpacked(points)
        for _ in range(self.period):
            state = step(state, self._context, sizes, self._params)
        parts = [np.reshape(state[k], (*points.shape[:-1], s.stop - s.start)) for k, s in zip(self._moving, self._slices)]
        return np.concatenate(parts, axis=-1)

    def _unpacked(self, points: Array) -> Any:
        fields = list(self._state)
        for k, s, shape in zip(self._moving, self._slices, self._shapes):
            fields[k] = points[..., s].reshape(*points.shape[:-1], *shape) if shape else points[s.start]
        return type(self._state)(*fields)

    def _clean(self, points: Array) -> Array:
        cleaned = np.array(points)
        for s in self._normalized or []:
            cleaned[..., s] = log_softmax(cleaned[..., s])
        return cleaned


def _without_constant(length: int, project: bool) -> Array:
    """Return a basis of the vectors that add up to 0, or of all."""
    if not project:
        return np.eye(length)
    return np.asarray(np.linalg.qr(np.eye(length) - 1 / length)[0][:, : length - 1])
