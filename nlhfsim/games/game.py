"""The preference game: contexts, preferences, a reference policy and the strength of regularization towards it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nlhfsim.errors import (
    Array,
    InputError,
    by_label,
    ensure_array,
    ensure_distribution,
    ensure_integer,
    ensure_nonnegative,
    position,
)
from nlhfsim.games.payoffs import (
    FORMS,
    Checked,
    Context,
    DensePayoff,
    Payoff,
    advantage,
    content,
    dense,
    frozen,
    frozen_array,
    n_actions,
    restricted,
    validated,
)
from nlhfsim.simplex import kl_log, safe_log

if TYPE_CHECKING:
    from nlhfsim.games.diagnosis import Diagnosis


class PreferenceGame:
    """A KL-regularized preference game over finitely many actions, in one or several contexts. Immutable.

    Parameters
    ----------
    preferences : array_like, data frame or payoff form, or a sequence of payoff forms
        P of shape ``(n, n)``, or ``(contexts, n, n)``: ``P[y, y']`` is the probability that y is preferred to y', so
        ``P + P.T == 1`` with 1/2 on the diagonal (checked to 1e-8, for single precision to 1e-6, then made exact).
    beta : float
        Regularization β ≥ 0; 0 is the unregularized game.
    reference : array_like, optional
        Reference policy ρ with full support, shape ``(n,)`` (used in every context) or ``(contexts, n)``. Default: uniform.
    labels : sequence of str, optional
        Names of the actions, all different. Default: those of a data frame, else ``"0"``, ``"1"``, …
    weights : array_like, optional
        Positive weights ν of the contexts, shape ``(contexts,)``, adding up to 1. Default: equal.
    comparisons : optional
        The `nlhfsim.datasets.Comparisons` that the game was estimated from, kept for its counts.

    Raises
    ------
    InputError
        If an argument is not as described; the message names the entry.

    Notes
    -----
    The payoff of π against μ is ``P_β(π ≻ μ) = 1/2 + πᵀAμ - β KL(π‖ρ) + β KL(μ‖ρ)``, ``A = P - 1/2``, averaged over contexts
    with ν (Munos et al., arXiv 2312.00886, section 3).

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.PreferenceGame([[0.5, 0.8], [0.2, 0.5]], beta=0.1, labels=["A", "B"])
    >>> game.n, game.labels
    (2, ('A', 'B'))
    """

    def __init__(
        self,
        preferences: npt.ArrayLike | Payoff | Sequence[Payoff] | Checked,
        beta: float = 0.1,
        reference: npt.ArrayLike | None = None,
        labels: Sequence[str] | None = None,
        weights: npt.ArrayLike | None = None,
        *,
        comparisons: Any = None,
    ) -> None:
        labels = _frame_labels(preferences) if labels is None else labels
        payoffs, batched, kept = _payoffs(preferences)
        sizes = {n_actions(payoff) for payoff in payoffs}
        if len(sizes) != 1:
            raise InputError(f"preferences has contexts of {sorted(sizes)} actions, must be one number for all")
        n = sizes.pop()
        self._set("n", n)
        self._set("n_contexts", len(payoffs))
        self._set("batched", batched)
        self._set("beta", ensure_nonnegative("beta", beta))
        self._set("_labels", None if labels is None else _ensure_labels(labels, n))
        self._set("weights", _weights(weights, len(payoffs)))
        self._set("comparisons", comparisons)
        shape = (len(payoffs), n)
        if kept is not None and reference is None:
            log_reference = kept.copy()
        elif reference is None:
            log_reference = np.full(shape, -np.log(n))
        else:
            given = np.asarray(by_label("reference", reference, self.labels))
            if not batched and given.shape == (1, n):
                given = given[0]
            expected = shape if batched else (n,)
            probabilities = ensure_distribution("reference", given, expected, full_support=True)
            log_reference = np.log(probabilities).reshape(shape)
        log_reference.setflags(write=False)
        self._set("contexts", tuple(Context(p, row, self.beta) for p, row in zip(payoffs, log_reference)))
        self._set("log_reference", log_reference if batched else log_reference[0])

    n: int
    """Number of actions."""
    n_contexts: int
    """Number of contexts, 1 for a plain game."""
    batched: bool
    """Whether policies carry a context axis, ``(contexts, n)`` rather than ``(n,)``."""
    beta: float
    weights: Array
    comparisons: Any
    contexts: tuple[Context, ...]
    """The contexts, each in the form that a method's step sees."""
    log_reference: Array
    """log ρ, of shape `policy_shape`."""
    _labels: tuple[str, ...] | None

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a PreferenceGame is immutable: use with_beta or with_reference instead of setting {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        forms = [c.payoff for c in self.contexts]
        reference = self.log_reference.reshape(self.n_contexts, self.n)
        return (_rebuild, (forms, self.batched, self.beta, reference, self._labels, self.weights, self.comparisons))

    def __repr__(self) -> str:
        contexts = f", contexts={self.n_contexts}" if self.batched else ""
        return f"PreferenceGame(n={self.n}{contexts}, beta={self.beta:g})"

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Names of the actions."""
        return tuple(map(str, range(self.n))) if self._labels is None else self._labels

    @property
    def policy_shape(self) -> tuple[int, ...]:
        """Shape of a policy: ``(n,)`` or ``(contexts, n)``."""
        return (self.n_contexts, self.n) if self.batched else (self.n,)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that the dynamics depend on: payoffs, β, reference, weights."""
        digest = hashlib.sha256(repr((self.policy_shape, self.beta)).encode())
        for context in self.contexts:
            for part in (*content(context.payoff), context.log_reference.tobytes()):
                digest.update(part)
        digest.update(self.weights.tobytes())
        return digest.hexdigest()

    @property
    def reference(self) -> Array:
        """The reference policy ρ, probability space, shape `policy_shape`."""
        return np.exp(self.log_reference)

    @property
    def advantages(self) -> Array:
        """``A = P - 1/2``, skew-symmetric, shape ``(n, n)`` or ``(contexts, n, n)``."""
        matrices = [dense(context.payoff) for context in self.contexts]
        return np.stack(matrices) if self.batched else matrices[0]

    @property
    def preferences(self) -> Array:
        """P, shape ``(n, n)`` or ``(contexts, n, n)``: the probability that the row is preferred to the column."""
        return self.advantages + 0.5

    def with_beta(self, beta: float) -> PreferenceGame:
        """Return the same game with another regularization strength."""
        return self._replace(beta=beta)

    def with_reference(self, reference: npt.ArrayLike | None) -> PreferenceGame:
        """Return the same game with another reference policy (None: uniform)."""
        return self._replace(reference=reference)

    def restrict(self, actions: Sequence[int | str]) -> PreferenceGame:
        """Return the game on some of the actions, given by label or index; the reference is conditioned on them.

        The counts in `comparisons` are not carried along.

        Examples
        --------
        >>> import nlhfsim as nl
        >>> nl.games.rock_paper_scissors().restrict(["rock", "paper"]).labels
        ('rock', 'paper')
        """
        if isinstance(actions, str) or not isinstance(actions, Iterable):
            raise InputError(f"actions = {actions!r} must be a list of labels or indices")
        chosen = [self._index(action) for action in actions]
        if len(set(chosen)) != len(chosen) or not chosen:
            raise InputError(f"actions = {list(actions)!r} must be different and at least one")
        reference = self.reference[..., chosen]
        reference = reference / reference.sum(axis=-1, keepdims=True)
        forms = [restricted(c.payoff, np.array(chosen)) for c in self.contexts]
        return PreferenceGame(
            Checked(forms, self.batched),
            self.beta,
            reference,
            [self.labels[i] for i in chosen],
            self.weights if self.batched else None,
        )

    def context(self, index: int) -> PreferenceGame:
        """Return one context as a game of its own."""
        k = ensure_integer("index", index)
        if k >= self.n_contexts:
            raise InputError(f"index = {k} must be below the number of contexts, {self.n_contexts}")
        chosen = self.contexts[k]
        kept = chosen.log_reference[None, :]
        return PreferenceGame(Checked([chosen.payoff], False, kept), self.beta, labels=self._labels)

    def materialized(self) -> PreferenceGame:
        """Return the same game with its matrices of advantages stored, up to 20,000 actions.

        Examples
        --------
        >>> import numpy as np, nlhfsim as nl
        >>> game = nl.games.pairwise(lambda i, j: 1 / (1 + np.exp(np.sin(j) - np.sin(i))), 100)
        >>> bool(np.allclose(game.materialized().advantage(game.reference), game.advantage(game.reference)))
        True
        """
        return self._replace(payoffs=[DensePayoff(frozen_array(dense(c.payoff))) for c in self.contexts])

    def advantage(self, policy: npt.ArrayLike) -> Array:
        """Return Aπ, shape ``(..., *policy_shape)``: each action's probability of beating π, less 1/2.

        Parameters
        ----------
        policy : array_like
            Probability space, shape ``(..., *policy_shape)``.
        """
        array = ensure_array("policy", policy)
        if array.shape[-len(self.policy_shape) :] != self.policy_shape:
            raise InputError(f"policy has shape {array.shape}, must end in {self.policy_shape}")
        if not self.batched:
            return advantage(self.contexts[0].payoff, array)
        return np.stack([advantage(c.payoff, array[..., k, :]) for k, c in enumerate(self.contexts)], axis=-2)

    def average(self, by_context: Array) -> Array:
        """Average the last axis, one value a context, with the weights ν."""
        return np.asarray(by_context @ self.weights)

    def payoff(self, policy: npt.ArrayLike, opponent: npt.ArrayLike, *, regularized: bool = True) -> float:
        """Return ``P_β(π ≻ μ)``, averaged over contexts (`regularized=False`: β = 0).

        Examples
        --------
        >>> import nlhfsim as nl
        >>> game = nl.games.rock_paper_scissors(margin=0.5)
        >>> game.payoff([1, 0, 0], [0, 0, 1], regularized=False)
        1.0
        """
        p, q = (
            ensure_distribution(name, value, self.policy_shape, full_support=False).reshape(self.n_contexts, self.n)
            for name, value in (("policy", policy), ("opponent", opponent))
        )
        gain = np.array([p[k] @ advantage(c.payoff, q[k]) for k, c in enumerate(self.contexts)])
        if regularized and self.beta > 0:
            log_reference = self.log_reference.reshape(self.n_contexts, self.n)
            gain = gain - self.beta * (kl_log(safe_log(p), log_reference) - kl_log(safe_log(q), log_reference))
        return float(0.5 + self.average(gain))

    def diagnose(
        self,
        equilibrium: Any = None,
        *,
        votes_per_pair: int | None = None,
        draws: int = 1000,
        rng: np.random.Generator | int = 0,
    ) -> Diagnosis:
        """Return how far the game is from what a reward model can express; printed, it is a table.

        Majorities (Condorcet winner, top cycle, cyclic triples), the cyclic part of the advantages, the Bradley–Terry fit and a
        test of it, and, where an equilibrium is given, the optimum of that reward model beside it.

        Parameters
        ----------
        equilibrium : Equilibrium, optional
            That of this very game, ``nl.solve(game)``.
        votes_per_pair : int, optional
            Take the preferences as the frequencies among so many votes a pair; without it a game that was not made from
            comparisons has no p-value.
        draws : int
            Bootstrap samples of the test, at least 1.
        rng : numpy.random.Generator or int
            Source of their randomness, or a seed.

        Returns
        -------
        Diagnosis
            Its attributes name the functions of `nlhfsim.games` that they come from, and ``to_dict()`` is for JSON.

        Raises
        ------
        InputError
            If the equilibrium is that of another game, or an option is outside its range.

        Examples
        --------
        >>> import nlhfsim as nl
        >>> nl.games.rock_paper_scissors().diagnose().cyclic_share
        1.0
        """
        from nlhfsim.games.diagnosis import diagnose

        return diagnose(self, equilibrium, votes_per_pair=votes_per_pair, draws=draws, rng=rng)

    def _index(self, action: int | str) -> int:
        if isinstance(action, str):
            if action not in self.labels:
                raise InputError(f"action {action!r} is not a label; the labels are {', '.join(self.labels)}")
            return self.labels.index(action)
        k = ensure_integer("action", action)
        if k >= self.n:
            raise InputError(f"action {k} must be below the number of actions, {self.n}")
        return k

    def _replace(self, **changes: Any) -> PreferenceGame:
        same = {"beta": self.beta, "labels": self._labels, "comparisons": self.comparisons}
        if self.batched:
            same["weights"] = self.weights
        payoffs = changes.pop("payoffs", None) or [c.payoff for c in self.contexts]
        kept = None if "reference" in changes else self.log_reference.reshape(self.n_contexts, self.n)
        return PreferenceGame(Checked(payoffs, self.batched, kept), **(same | changes))


def ensure_game(game: object) -> PreferenceGame:
    """Return `game` if it is one, else raise `InputError` saying how to make one."""
    if isinstance(game, PreferenceGame):
        return game
    raise InputError(f"game = {game!r} must be a PreferenceGame, such as nl.PreferenceGame(P, beta=0.1)")


def _rebuild(
    forms: list[Payoff], batched: bool, beta: float, reference: Array, labels: Any, weights: Array, comparisons: Any
) -> PreferenceGame:
    checked = Checked([frozen(form) for form in forms], batched, reference)
    return PreferenceGame(checked, beta, None, labels, weights if batched else None, comparisons=comparisons)


def _payoffs(preferences: Any) -> Checked:
    """Return one payoff form a context, and whether the game has a context axis."""
    if isinstance(preferences, Checked):
        return preferences
    if isinstance(preferences, FORMS):
        return Checked([validated(preferences)], False)
    if isinstance(preferences, (list, tuple)) and preferences and isinstance(preferences[0], FORMS):
        return Checked([validated(payoff) for payoff in preferences], True)
    matrix = ensure_array("preferences", preferences)
    if matrix.ndim not in (2, 3) or matrix.shape[-1] != matrix.shape[-2]:
        raise InputError(f"preferences has shape {matrix.shape}, must be square: (n, n) or (contexts, n, n)")
    if 0 in matrix.shape:
        raise InputError(f"preferences has shape {matrix.shape}, must hold at least one action and one context")
    _check_probabilities(matrix, 1e-6 if np.asarray(preferences).dtype in (np.float32, np.float16) else 1e-8)
    advantages = np.clip(matrix, 0.0, 1.0) - 0.5
    advantages = np.ascontiguousarray((advantages - np.swapaxes(advantages, -1, -2)) / 2)
    advantages.setflags(write=False)
    if advantages.ndim == 2:
        return Checked([DensePayoff(advantages)], False)
    return Checked([DensePayoff(block) for block in advantages], True)


def _check_probabilities(matrix: Array, tolerance: float) -> None:
    outside = np.argwhere((matrix < -tolerance) | (matrix > 1 + tolerance))
    if len(outside):
        where = tuple(outside[0])
        raise InputError(f"preferences{position(where)} = {matrix[where]:g} is outside [0, 1], must be a probability")
    total = matrix + np.swapaxes(matrix, -1, -2)
    off = np.argwhere(np.abs(total - 1) > tolerance)
    if len(off):
        where = tuple(off[0])
        mirror = (*where[:-2], where[-1], where[-2])
        if where == mirror:
            raise InputError(f"preferences{position(where)} = {matrix[where]:g}, must be 1/2 on the diagonal")
        raise InputError(
            f"preferences{position(where)} + preferences{position(mirror)} = {total[where]:.10g}, must be 1 "
            "(each entry is the probability that the row is preferred to the column)"
        )


def _frame_labels(preferences: Any) -> list[str] | None:
    """Return the labels of a data frame, whose rows and columns must be the same actions in the same order; None otherwise."""
    columns, index = getattr(preferences, "columns", None), getattr(preferences, "index", None)
    if columns is None or index is None or callable(index):
        return None
    rows, tops = [str(entry) for entry in index], [str(entry) for entry in columns]
    if rows != tops:
        raise InputError(
            f"preferences has the rows {', '.join(rows)} and the columns {', '.join(tops)}, must be the same in the same order"
        )
    return rows


def _ensure_labels(labels: Sequence[str], n: int) -> tuple[str, ...]:
    if isinstance(labels, str):
        raise InputError(f"labels = {labels!r} must be a sequence of {n} strings, not one string")
    names = tuple(str(label) for label in labels)
    if len(names) != n:
        raise InputError(f"labels has {len(names)} entries, must be {n}, one an action")
    if len(set(names)) != n:
        repeated = next(name for name in names if names.count(name) > 1)
        raise InputError(f"labels has {repeated!r} more than once, must be all different")
    return names


def _weights(weights: npt.ArrayLike | None, n_contexts: int) -> Array:
    if weights is None:
        array = np.full(n_contexts, 1.0 / n_contexts)
    else:
        array = ensure_distribution("weights", weights, (n_contexts,), full_support=True)
    array.setflags(write=False)
    return array
