"""One-pair steps of self-play policy gradient as a good engineer, and as other libraries, would write them.

Each takes a `PairProblem` and returns ``run(n_steps, runs, seed)``. A step draws actions y, y' from the policy and a vote o, 1
with probability P[y, y'], and moves two logits: ``θ_y += γ/2 ((o - 1/2) - β h)`` and ``θ_y' -= `` the same, where
``h = (θ - log ρ)_y - (θ - log ρ)_y'``.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numba import njit

import nlhfsim as nl
from benchmarks._measure import Floats
from benchmarks.rivals import NotInstalledError, library

PairRun = Callable[[int, int, int], Floats]
"""``run(n_steps, runs, seed)`` starts every run at the start of the problem and returns the logits, shape ``(runs, n)``."""


class PairProblem(NamedTuple):
    """What is stepped.

    Attributes
    ----------
    game : nlhfsim.PreferenceGame
        P, β and ρ.
    step_size : float
        γ.
    start : numpy.ndarray
        Log-policy to start at, shape ``(n,)``.
    """

    game: nl.PreferenceGame
    step_size: float
    start: Floats

    @property
    def preferences(self) -> Floats:
        """P, shape ``(n, n)``."""
        return np.array(self.game.preferences)

    @property
    def log_reference(self) -> Floats:
        """log ρ, shape ``(n,)``."""
        return np.log(self.game.reference)


def pair_problem(n: int, seed: int = 0, beta: float = 0.1, step_size: float = 0.1) -> PairProblem:
    """Return a random logistic game with a reference and a start of its own."""
    rng = np.random.default_rng(seed)
    game = nl.games.random_game(n, rng, "logistic", beta=beta, reference=nl.games.random_reference(n, rng))
    return PairProblem(game, step_size, np.log(nl.games.random_reference(n, rng)))


def low_rank_problem(n: int, rank: int = 8, seed: int = 0, beta: float = 0.1, step_size: float = 0.1) -> PairProblem:
    """Return a game of normal factors, scaled so that its rows prove it valid, with a reference and a start of its own."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, 2 * rank))
    rows *= np.sqrt(0.5 / np.square(rows).sum(axis=1).max())
    game = nl.games.low_rank(rows[:, :rank], rows[:, rank:], beta=beta, reference=nl.games.random_reference(n, rng))
    return PairProblem(game, step_size, np.log(nl.games.random_reference(n, rng)))


def pairwise_problem(n: int, seed: int = 0, beta: float = 0.1, step_size: float = 0.1) -> PairProblem:
    """Return a game that is a function of the pair, in embeddings of dimension 8."""
    rng = np.random.default_rng(seed)
    embeddings, reference = rng.standard_normal((n, 8)), nl.games.random_reference(n, rng)
    game = nl.games.preference_representation(embeddings, 0.5, beta=beta, reference=reference)
    return PairProblem(game, step_size, np.log(nl.games.random_reference(n, rng)))


def each(one: Callable[[int, int], Any]) -> PairRun:
    """Return a run of many out of ``one(n_steps, seed)``, one after the other."""
    return lambda n_steps, runs, seed: np.stack([np.asarray(one(n_steps, 10_000 * seed + k)) for k in range(runs)])


def feedback(batch: int) -> Any:
    """Return votes on so many pairs a step, as this package asks for them.

    Raises
    ------
    NotInstalledError
        If it has no sampled feedback.
    """
    if not hasattr(nl, "Sampled"):
        raise NotInstalledError("sampled feedback")
    return nl.Sampled(batch_size=batch, votes=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Say nothing about steps outside the proven range, where most of what is tried here lies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nl.errors.NlhfsimWarning)
        yield


def nlhfsim_pairs(asked: PairProblem, batch: int = 1, threads: int | None = 1) -> PairRun:
    """This package, through its front door.

    Raises
    ------
    NotInstalledError
        If it has no sampled feedback.
    """
    sampled = feedback(batch)
    dynamics, start = nl.dynamics.SelfPlayPG(step_size=asked.step_size), np.exp(asked.start)
    options: dict[str, Any] = {"feedback": sampled, "equilibrium": False, "keep_policies": "final", "threads": threads}

    def run(n_steps: int, runs: int, seed: int) -> Floats:
        with quiet():
            trajectory = nl.simulate(
                asked.game, dynamics, n_steps, start=start, runs=runs, seed=seed, record_every=n_steps, **options
            )
        return np.asarray(trajectory.parameters)

    return run


@njit
def _draw(tree: Any, half: int, uniform: float) -> int:
    """Go down from the root, left or right; leaves begin at `half`."""
    target = uniform * tree[1]
    node = 1
    while node < half:
        node *= 2
        if target >= tree[node]:
            target -= tree[node]
            node += 1
    return node - half


@njit
def _put(tree: Any, half: int, leaf: int, weight: float) -> None:
    """Write one weight, and the sums above it."""
    node = half + leaf
    tree[node] = weight
    node //= 2
    while node >= 1:
        tree[node] = tree[2 * node] + tree[2 * node + 1]
        node //= 2


def _tree_kernel(prefers: Any) -> Any:
    """Return the compiled loop for a compiled function that gives P[y, y'] out of the data of a game."""

    @njit
    def steps(
        data: Any, log_reference: Any, beta: float, step_size: float, logits: Any, tree: Any, n_steps: int, rng: Any
    ) -> None:
        half = tree.size // 2
        for _ in range(n_steps):
            y = _draw(tree, half, rng.random())
            z = _draw(tree, half, rng.random())
            vote = 1.0 if rng.random() < prefers(data, y, z) else 0.0
            if y == z:
                continue
            h = (logits[y] - log_reference[y]) - (logits[z] - log_reference[z])
            move = 0.5 * step_size * ((vote - 0.5) - beta * h)
            logits[y] += move
            logits[z] -= move
            _put(tree, half, y, np.exp(logits[y]))
            _put(tree, half, z, np.exp(logits[z]))

    return steps


@njit
def _entry(matrix: Any, y: int, z: int) -> float:
    return matrix[y, z]  # type: ignore[no-any-return]


@njit
def _of_factors(factors: Any, y: int, z: int) -> float:
    left, right = factors
    total = 0.5
    for k in range(left.shape[1]):
        total += left[y, k] * right[z, k] - right[y, k] * left[z, k]
    return total


_dense_steps = _tree_kernel(_entry)
_low_rank_steps = _tree_kernel(_of_factors)


def _tree_of(weights: Floats) -> Floats:
    """Return the binary tree of partial sums: the root at 1, the children of k at 2k and 2k + 1, unused leaves zero."""
    half = 1
    while half < len(weights):
        half *= 2
    tree = np.zeros(2 * half)
    tree[half : half + len(weights)] = weights
    while half > 1:
        half //= 2
        tree[half : 2 * half] = tree[2 * half : 4 * half].reshape(-1, 2).sum(axis=1)
    return tree


def numba_tree(asked: PairProblem) -> PairRun:
    """Numba by hand: a tree of partial sums in one array."""
    return _by_tree(_dense_steps, asked.preferences, asked)


def numba_tree_low_rank(asked: PairProblem) -> PairRun:
    """The same for a game that is given by its factors."""
    payoff: Any = asked.game.contexts[0].payoff
    return _by_tree(_low_rank_steps, (np.array(payoff.left), np.array(payoff.right)), asked)


def _by_tree(steps: Any, data: Any, asked: PairProblem) -> PairRun:
    log_reference, tree = asked.log_reference, _tree_of(np.exp(asked.start))

    def one(n_steps: int, seed: int) -> Floats:
        logits = asked.start.copy()
        rng = np.random.default_rng(seed)
        steps(data, log_reference, asked.game.beta, asked.step_size, logits, tree.copy(), n_steps, rng)
        return logits

    return each(one)


def numpy_closed_form(asked: PairProblem) -> PairRun:
    """NumPy: inverse of the cumulative distribution, and the two logits."""
    preferences, log_reference, beta = asked.preferences, asked.log_reference, asked.game.beta

    def one(n_steps: int, seed: int) -> Floats:
        logits, weights = asked.start.copy(), np.exp(asked.start)
        rng = np.random.default_rng(seed)
        for _ in range(n_steps):
            cumulative, uniform = np.cumsum(weights), rng.random(3)
            y, z = np.searchsorted(cumulative, uniform[:2] * cumulative[-1], side="right")
            vote = float(uniform[2] < preferences[y, z])
            h = (logits[y] - log_reference[y]) - (logits[z] - log_reference[z])
            move = 0.5 * asked.step_size * ((vote - 0.5) - beta * h)
            logits[y] += move
            logits[z] -= move
            weights[y], weights[z] = np.exp(logits[y]), np.exp(logits[z])
        return logits

    return each(one)


def by_definition(asked: PairProblem, batch: int = 1) -> PairRun:
    """The law itself, all runs at once, unlike the others in all: the largest of noisy logits is drawn, gradients are dense."""
    preferences, log_reference, n = asked.preferences, asked.log_reference, len(asked.start)

    def run(n_steps: int, runs: int, seed: int) -> Floats:
        rng = np.random.default_rng([seed, 1])
        logits = np.tile(asked.start, (runs, 1))
        for _ in range(n_steps):
            pairs = (logits[:, None, None] + rng.gumbel(size=(runs, batch, 2, n))).argmax(axis=-1)
            wins = rng.binomial(1, preferences[pairs[..., 0], pairs[..., 1]])
            directions = np.eye(n)[pairs[..., 0]] - np.eye(n)[pairs[..., 1]]
            h = np.einsum("rbn,rn->rb", directions, logits - log_reference)
            gradients = np.einsum("rb,rbn->rn", (wins - 0.5) - asked.game.beta * h, directions) / (2 * batch)
            logits = logits + asked.step_size * gradients
        return logits

    return run


def jax_inverse_cdf(asked: PairProblem) -> PairRun:
    """JAX, jit and lax.scan: everything inside the step, draws by the inverse of the cumulative distribution."""
    jax = library("jax")

    def step(state: Any, _: Any, move: Any) -> Any:
        logits, weights, key = state
        key, own = jax.random.split(key)
        return (*move(logits, weights, jax.random.uniform(own, (3,), dtype=np.float64)), key), None

    return _jax(asked, step, lambda key, n_steps: (key, None))


def jax_ahead(asked: PairProblem) -> PairRun:
    """The same with all uniform numbers drawn before the scan, in one call: much faster, at 24 bytes a step of memory."""
    jax = library("jax")

    def step(state: Any, uniform: Any, move: Any) -> Any:
        logits, weights, key = state
        return (*move(logits, weights, uniform), key), None

    return _jax(asked, step, lambda key, n_steps: (key, jax.random.uniform(key, (n_steps, 3), dtype=np.float64)))


def _jax(asked: PairProblem, step: Callable[..., Any], noise: Callable[..., Any]) -> PairRun:
    jax = library("jax")
    jax.config.update("jax_enable_x64", True)
    numpy = jax.numpy
    preferences, log_reference = numpy.asarray(asked.preferences), numpy.asarray(asked.log_reference)
    method = "compare_all" if len(asked.start) <= 300 else "scan_unrolled"  # the faster one of each size

    def move(logits: Any, weights: Any, uniform: Any) -> Any:
        cumulative = numpy.cumsum(weights)
        y, z = numpy.searchsorted(cumulative, uniform[:2] * cumulative[-1], side="right", method=method)
        return _jax_vote(numpy, asked, preferences, log_reference, logits, weights, (y, z, uniform[2]))

    return _jax_scan(asked, lambda state, x: step(state, x, move), noise)


def jax_categorical(asked: PairProblem) -> PairRun:
    """JAX, jit and lax.scan: everything inside the step, draws by `jax.random.categorical`."""
    jax = library("jax")
    jax.config.update("jax_enable_x64", True)
    numpy = jax.numpy
    preferences, log_reference = numpy.asarray(asked.preferences), numpy.asarray(asked.log_reference)

    def step(state: Any, _: Any) -> Any:
        logits, weights, key = state
        key, for_pair, for_vote = jax.random.split(key, 3)
        y, z = jax.random.categorical(for_pair, logits, shape=(2,))
        drawn = (y, z, jax.random.uniform(for_vote, dtype=np.float64))
        return (*_jax_vote(numpy, asked, preferences, log_reference, logits, weights, drawn), key), None

    return _jax_scan(asked, step, lambda key, n_steps: (key, None))


def _jax_vote(
    numpy: Any, asked: PairProblem, preferences: Any, log_reference: Any, logits: Any, weights: Any, drawn: tuple[Any, Any, Any]
) -> tuple[Any, Any]:
    """Return logits and weights after the vote on a pair; compiled away are the weights that nobody reads."""
    y, z, uniform = drawn
    h = (logits[y] - log_reference[y]) - (logits[z] - log_reference[z])
    change = 0.5 * asked.step_size * ((uniform < preferences[y, z]) - 0.5 - asked.game.beta * h)
    moved = logits.at[y].add(change).at[z].add(-change)
    return moved, weights.at[y].set(numpy.exp(moved[y])).at[z].set(numpy.exp(moved[z]))


def _jax_scan(asked: PairProblem, step: Callable[[Any, Any], Any], noise: Callable[[Any, int], Any]) -> PairRun:
    jax = library("jax")
    start = jax.numpy.asarray(asked.start)

    @functools.cache
    def compiled(n_steps: int) -> Any:
        def go(logits: Any, seed: Any) -> Any:
            key, ahead = noise(jax.random.key(seed), n_steps)
            return jax.lax.scan(step, (logits, jax.numpy.exp(logits), key), ahead, length=n_steps)[0][0]

        return jax.jit(go)

    return each(lambda n_steps, seed: compiled(n_steps)(start, seed))


def torch_autograd(asked: PairProblem, batch: int = 1) -> PairRun:
    """torch, eager: SGD on the Online IPO loss of the pairs, ``(h - (o - 1/2)/β)²``, the policy that draws them held fixed.

    Its gradient is ``-4g/β``, so that the rate of SGD is γβ/4.
    """
    torch = library("torch")
    torch.set_num_threads(1)
    preferences, log_reference, beta = torch.tensor(asked.preferences), torch.tensor(asked.log_reference), asked.game.beta

    def one(n_steps: int, seed: int) -> Floats:
        generator = torch.Generator().manual_seed(seed)
        logits = torch.tensor(asked.start, requires_grad=True)
        optimizer = torch.optim.SGD([logits], lr=asked.step_size * beta / 4)
        for _ in range(n_steps):
            log_policy = torch.log_softmax(logits, dim=-1)
            pairs = torch.multinomial(log_policy.detach().exp(), 2 * batch, replacement=True, generator=generator)
            y, z = pairs[:batch], pairs[batch:]
            votes = torch.bernoulli(preferences[y, z], generator=generator)
            ratio = log_policy - log_reference
            loss = (ratio[y] - ratio[z] - (votes - 0.5) / beta).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return np.asarray(logits.detach().numpy().copy())

    return each(one)
