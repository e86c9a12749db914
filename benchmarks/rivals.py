"""Steps as this package, and as other libraries, would do them; each takes a `Problem` and returns ``run(n_steps)``."""

from __future__ import annotations

import copy
import functools
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import nlhfsim as nl
from benchmarks._measure import Floats

Run = Callable[[int], Floats]
"""``run(n_steps)`` starts at the start of the problem and returns the log-policy after so many steps."""


class NotInstalledError(Exception):
    """A rival's library is not there."""


class Problem(NamedTuple):
    """What is stepped.

    Attributes
    ----------
    advantages : numpy.ndarray
        A, skew, shape ``(n, n)``.
    log_reference : numpy.ndarray
        log ρ, shape ``(n,)``.
    beta : float
        β.
    step_size : float or numpy.ndarray
        γ, or one for each run, shape ``(runs, 1)``.
    start : numpy.ndarray
        Log-policies to start at, shape ``(n,)`` or ``(runs, n)``.
    """

    advantages: Floats
    log_reference: Floats
    beta: float
    step_size: Any
    start: Floats

    @property
    def shrink(self) -> Any:
        """1/(1 + γβ), what a mirror step leaves of log π."""
        return 1 / (1 + self.step_size * self.beta)

    def uniform(self) -> Problem:
        """Return the same with ρ and the start uniform."""
        flat = np.full_like(self.log_reference, -np.log(len(self.log_reference)))
        return self._replace(log_reference=flat, start=flat)


def problem(n: int, seed: int = 0, beta: float = 0.1) -> Problem:
    """Return a random logistic game with a reference and a start of its own, at γ = β."""
    rng = np.random.default_rng(seed)
    game = nl.games.random_game(n, rng, "logistic", beta=beta, reference=nl.games.random_reference(n, rng))
    start = np.log(nl.games.random_reference(n, rng))
    return Problem(np.array(game.advantages), np.log(game.reference), beta, beta, start)


def library(name: str) -> Any:
    """Return an installed library.

    Raises
    ------
    NotInstalledError
        If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise NotInstalledError(name.partition(".")[0]) from None


def mirror_truth(asked: Problem, n_steps: int) -> Floats:
    """Return log π after mirror steps, from π⁺ ∝ (π ρ^(γβ) exp(γAπ))^(1/(1+γβ)) in probability space."""
    rho = np.exp(asked.log_reference)
    policy = np.exp(asked.start)
    for _ in range(n_steps):
        gain = np.einsum("ij,...j->...i", asked.advantages, policy)
        powers = (policy * rho ** (asked.step_size * asked.beta) * np.exp(asked.step_size * gain)) ** asked.shrink
        policy = powers / powers.sum(axis=-1, keepdims=True)
    return np.asarray(np.log(policy))


def gradient_truth(asked: Problem, n_steps: int) -> Floats:
    """Return log π after θ⁺ = θ + γ J(π)(Aπ - β(θ - log ρ)), with the matrix J = diag(π) - ππᵀ written out."""
    logits = np.array(asked.start)
    for _ in range(n_steps):
        policy = np.exp(logits) / np.exp(logits).sum()
        jacobian = np.diag(policy) - np.outer(policy, policy)
        pull = asked.advantages @ policy - asked.beta * (logits - asked.log_reference)
        logits = logits + asked.step_size * jacobian @ pull
    return np.asarray(logits - np.log(np.exp(logits).sum()))


def nlhfsim_runs(asked: Problem, method: str = "MagneticMirrorDescent", compiled: bool = True) -> Run:
    """This package, through its front door."""
    game = nl.PreferenceGame(asked.advantages + 0.5, asked.beta, np.exp(asked.log_reference))
    step_size = asked.step_size if np.ndim(asked.step_size) == 0 else np.ravel(asked.step_size)
    dynamics = getattr(nl.dynamics, method)(step_size=step_size)
    start = np.exp(asked.start)
    quiet: dict[str, Any] = {"equilibrium": False, "keep_policies": False, "compiled": compiled}

    def run(n_steps: int) -> Floats:
        trajectory = nl.simulate(game, dynamics, n_steps, start=start, record_every=n_steps, **quiet)
        logits = trajectory.parameters.reshape(start.shape)
        return np.asarray(logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True)))

    return run


def jax_scan(asked: Problem) -> Run:
    """JAX: the step under jit and lax.scan, in double precision; many starts through vmap."""
    jax = library("jax")
    jax.config.update("jax_enable_x64", True)
    numpy = jax.numpy
    matrix, log_reference = numpy.asarray(asked.advantages), numpy.asarray(asked.log_reference)
    pull = asked.step_size * asked.beta

    def step(logits: Any) -> Any:
        gain = matrix @ numpy.exp(logits)
        return jax.nn.log_softmax((logits + pull * log_reference + asked.step_size * gain) * asked.shrink)

    advance = jax.vmap(step) if asked.start.ndim == 2 else step

    @functools.cache
    def compiled(n_steps: int) -> Any:
        return jax.jit(lambda logits: jax.lax.scan(lambda state, _: (advance(state), None), logits, None, length=n_steps)[0])

    start = numpy.asarray(asked.start)
    return lambda n_steps: np.asarray(compiled(n_steps)(start))


def torch_autograd(asked: Problem) -> Run:
    """torch, eager: a step of SGD on the logits, maximizing P_β(π_θ ≻ π̄) with the opponent π̄ = π_θ held fixed."""
    torch = library("torch")
    torch.set_num_threads(1)
    matrix, log_reference = torch.tensor(asked.advantages), torch.tensor(asked.log_reference)

    def run(n_steps: int) -> Floats:
        logits = torch.tensor(asked.start, requires_grad=True)
        optimizer = torch.optim.SGD([logits], lr=asked.step_size, maximize=True)
        for _ in range(n_steps):
            log_policy = torch.log_softmax(logits, dim=-1)
            policy = log_policy.exp()
            value = policy @ (matrix @ policy.detach()) - asked.beta * (policy * (log_policy - log_reference)).sum()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        return np.asarray(torch.log_softmax(logits.detach(), dim=-1).numpy())

    return run


def open_spiel_mmd(asked: Problem) -> Run:
    """OpenSpiel's ``mmd_dilated``: both players' sequence forms from the uniform policy, with the uniform magnet."""
    pyspiel = library("pyspiel")
    mmd_dilated = library("open_spiel.python.algorithms.mmd_dilated")
    names = [str(k) for k in range(len(asked.advantages))]
    game = pyspiel.create_matrix_game("game", "game", names, names, asked.advantages, -asked.advantages)
    solver = mmd_dilated.MMDDilatedEnt(pyspiel.convert_to_turn_based(game), alpha=asked.beta, stepsize=asked.step_size)
    first = copy.deepcopy(solver.sequences)

    def run(n_steps: int) -> Floats:
        solver.sequences = copy.deepcopy(first)
        for _ in range(n_steps):
            solver.update_sequences()
        return np.asarray(np.log(solver.get_policies().action_probability_array[0]))

    return run
