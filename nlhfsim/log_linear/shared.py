"""The payoff form through which a method's step moves a θ that all contexts share.

A step runs as it stands, on the logits ``log ρ + φθ`` of all contexts at once, shape ``(contexts, n)``. It stays in the class
because of how it sees the game. Mirror steps are linear in logits and payoffs: in place of Aπ they read φŵ(π) with

    ŵ(π) = F(π)⁺ Σ_x ν_x φ_xᵀ J(π_x) A_x π_x,    F(π) = Σ_x ν_x φ_xᵀ J(π_x) φ_x,    J(π) = diag(π) - ππᵀ

the w that minimizes ``Σ_x ν_x Σ_y π_x(y) ((φ_x w)_y - (A_x π_x)_y - c_x)²``: compatible function approximation, with which
`NaturalPG` is the natural policy gradient in θ. Gradient steps read Aπ itself, and a gradient g in the logits moves them by
``φ Σ_x ν_x φ_xᵀ g_x``. In the end θ is read off the logits by least squares.
Source: Kakade, "A natural policy gradient" (2001); Agarwal et al., arXiv 1908.00261, section 6; Tiapkin et al., arXiv 2505.19731.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nlhfsim.errors import Array, InputError
from nlhfsim.games.game import PreferenceGame
from nlhfsim.games.payoffs import Context, DensePayoff, advantage
from nlhfsim.games.votes import REFERENCE, StackedPayoff, with_sums
from nlhfsim.log_linear.features import DenseFeatures, Features, SparseFeatures
from nlhfsim.log_linear.votes import SharedVotes, estimate_all_to
from nlhfsim.parametrizations import LogLinear, is_sparse

_DENSIFIED = 2**22
"""Sparse features of up to so many entries are written out."""
_STACKED = 2**24
"""Matrices of advantages of up to so many entries are kept as one array."""


@dataclass(frozen=True, eq=False)
class SharedPayoff:
    """What stands for the payoffs of all contexts; policies have shape ``(contexts, n)``.

    Attributes
    ----------
    features : Features
        φ.
    weights : numpy.ndarray
        ν, shape ``(contexts, 1)``.
    payoffs : tuple
        The payoff forms of the contexts.
    matrices : numpy.ndarray or None
        The same as one array ``(contexts, n, n)``, where they are matrices and not too many.
    projected : bool
        Whether `product` is φŵ(π) rather than Aπ.
    votes : SharedVotes or None
        With sampled feedback: where estimates of A_xπ_x come from.
    estimate : callable
        `estimate_all_to` or its compiled counterpart.
    """

    features: Features
    weights: Array
    payoffs: tuple[Any, ...]
    matrices: Array | None
    projected: bool
    votes: SharedVotes | None = None
    estimate: Any = estimate_all_to

    def gains(self, policy: Array) -> Array:
        """Return A_xπ_x of every context: what is known of the game at a policy, the one place where steps read it."""
        if self.votes is not None:
            out = np.empty(policy.shape)
            self.estimate(out, self.votes, policy)
            return out
        if self.matrices is not None:
            return np.asarray(self.matrices @ policy[..., None])[..., 0]
        return np.stack([advantage(payoff, row) for payoff, row in zip(self.payoffs, policy)])

    def product(self, policy: Array) -> Array:
        """Return what `nlhfsim.games.payoffs.advantage` is to a step: φŵ(π), or Aπ itself."""
        gains = self.gains(policy)
        return self.features.project(policy, self.weights, gains) if self.projected else gains

    def lifted(self, gradient: Array) -> Array:
        """Return how the logits move when θ follows a gradient in the logits: ``φ Σ_x ν_x φ_xᵀ g_x``."""
        return self.features.lift(self.weights * gradient)


@dataclass(frozen=True, eq=False)
class SharedClass:
    """The log-linear policies of some features on a game.

    Attributes
    ----------
    features : Features
        φ.
    context : Context
        All contexts as one, as a gradient step sees them: log ρ of shape ``(contexts, n)``, a `SharedPayoff`.
    described : dict
        What tells it from others, for JSON.
    notes : tuple of str
        What a reader should know about the features.
    batched : bool
        Whether policies of the game carry a context axis.
    """

    features: Features
    context: Context
    described: dict[str, Any]
    notes: tuple[str, ...]
    batched: bool

    @property
    def compiles(self) -> bool:
        """Whether votes compile: of several contexts, those on matrices only."""
        payoff = self.context.payoff
        return len(payoff.payoffs) == 1 or payoff.matrices is not None

    def seen(self, kind: str) -> Context:
        """Return what a method's step sees, by its kind of log-linear form: ``"gradient"`` or ``"mirror"``."""
        return self.context._replace(payoff=replace(self.context.payoff, projected=kind == "mirror"))

    def voting(self, batch_size: int, votes: bool, candidates: int, generator: Any) -> SharedVotes:
        """Return what stands for the payoffs of all contexts when a run sees votes; see `SharedVotes`."""
        shared = self.context.payoff
        payoff: Any = shared.payoffs if len(shared.payoffs) > 1 else shared.payoffs[0]
        if shared.matrices is not None:
            payoff = StackedPayoff(shared.matrices)
        weights, rows = with_sums(shared.weights[:, 0]), self.features.by_rows()
        # Of another length where it is not read, every context still has a place in it.
        reference = np.exp(self.context.log_reference) if candidates == REFERENCE else np.zeros((len(shared.payoffs), 0))
        return SharedVotes(payoff, *rows, weights, generator, batch_size, votes, candidates, with_sums(reference))

    def parameters(self, logits: Array) -> Array:
        """Return the smallest θ of each policy, shape ``(runs, d)``, from logits ``(runs, contexts, n)``; NaN if not finite."""
        return np.stack([self.features.fit(row - self.context.log_reference) for row in logits])

    def distance(self, logits: Array, theta: Array) -> float:
        """Return how far log-probabilities are from those of θ, one policy; NaN if they are not finite."""
        with np.errstate(all="ignore"):
            missed = logits - self.context.log_reference - self.features.scores(theta)
            return float(np.abs(missed - missed.mean(axis=-1, keepdims=True)).max())


def class_of(game: PreferenceGame, parametrization: LogLinear) -> SharedClass:
    """Return the class of policies that a parametrization is on a game.

    Raises
    ------
    InputError
        If the features do not fit the game, or no policy depends on θ.
    """
    features = _features_on(game, parametrization.features)
    if len(features.constant) == features.d or features.rank == 0:
        raise InputError(
            "features are constant over the actions of every context, so no policy depends on theta; they must tell actions apart"
        )
    notes = []
    if len(features.constant):
        shown = ", ".join(map(str, features.constant[:8])) + (", …" if len(features.constant) > 8 else "")
        notes.append(f"features[..., {shown}] are constant over the actions of every context and move no policy")
    if features.rank is not None and features.rank < features.d:
        notes.append(
            f"the {features.d} features have rank {features.rank} up to constants: of the theta that give the same policy the "
            "smallest is reported"
        )
    payoffs = tuple(context.payoff for context in game.contexts)
    small = game.n_contexts * game.n**2 <= _STACKED and all(isinstance(payoff, DensePayoff) for payoff in payoffs)
    matrices = np.stack([payoff.matrix for payoff in payoffs]) if small else None
    log_reference = game.log_reference.reshape(game.n_contexts, game.n)
    payoff = SharedPayoff(features, game.weights[:, None], payoffs, matrices, False)
    context = Context(payoff, log_reference, game.beta)
    return SharedClass(features, context, describe(parametrization), tuple(notes), game.batched)


def describe(parametrization: LogLinear) -> dict[str, Any]:
    """Return what tells features apart, for JSON: their kind, shape and a fingerprint."""
    features = parametrization.features
    parts = (features.data, features.indices, features.indptr) if is_sparse(features) else (features,)
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes())
    return {"kind": "log-linear", "features": list(features.shape), "fingerprint": digest.hexdigest()}


def _features_on(game: PreferenceGame, features: Any) -> Features:
    contexts, n = game.n_contexts, game.n
    if is_sparse(features):
        if features.shape[0] != contexts * n:
            raise InputError(
                f"sparse features have {features.shape[0]} rows, must have {contexts * n}: one for each of {contexts} contexts "
                f"times {n} actions"
            )
        if features.shape[0] * features.shape[1] > _DENSIFIED:
            return SparseFeatures(features, contexts)
        features = features.toarray().reshape(contexts, n, -1)
    if features.shape[:-1] not in ((n,), (contexts, n)):
        wanted = f"({n}, d)" + (f" or ({contexts}, {n}, d)" if game.batched else "")
        raise InputError(f"features has shape {features.shape}, must be {wanted} for this game")
    return DenseFeatures(np.broadcast_to(features, (contexts, n, features.shape[-1])))
