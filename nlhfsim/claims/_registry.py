"""The claims by their ids: those registered, and for each registered method that its step is what defines it."""

from __future__ import annotations

from nlhfsim import dynamics
from nlhfsim.claims._spec import Claim
from nlhfsim.claims._step import SHORTER, step_claim
from nlhfsim.errors import InputError, UnknownNameError, did_you_mean

_REGISTRY: dict[str, Claim] = {}
_STEPS: dict[str, Claim] = {}
_OWN: dict[str, Claim] = {}
"""The claims that come with the package."""


def register(claim: Claim) -> Claim:
    """Enter a claim into the registry under its id, and return it.

    Raises
    ------
    InputError
        If it is not a `Claim`, or another one has its id: one of the package, or one from another module or with another title.
    """
    if not isinstance(claim, Claim):
        raise InputError(f"claim = {claim!r} must be a nlhfsim.claims.Claim")
    present = (_steps() | _REGISTRY).get(claim.id)
    if claim.id in _OWN and claim is not _OWN[claim.id]:
        raise InputError(f"id = {claim.id!r} is taken by a claim of the package")
    if present is not None and (present.measure.__module__, present.title) != (claim.measure.__module__, claim.title):
        raise InputError(f"id = {claim.id!r} is taken by another claim")
    _REGISTRY[claim.id] = claim
    return claim


def names() -> list[str]:
    """Return the ids of all claims, in the order of the theory; those of the steps of registered methods come last."""
    return list(_REGISTRY | _steps())


def get(name: str) -> Claim:
    """Return a claim by its id.

    Raises
    ------
    UnknownNameError
        If there is none; the nearest one is suggested.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.claims.get("constant-sum").status
    'identity'
    """
    known = _steps() | _REGISTRY
    if not isinstance(name, str):
        raise InputError(f"name = {name!r} must be the id of a claim")
    if name not in known:
        raise UnknownNameError(f"claim {name!r} is unknown{did_you_mean(name, known)}")
    return known[name]


def about(method: str) -> list[Claim]:
    """Return the claims about a registered method, by its name.

    Raises
    ------
    UnknownNameError
        If there is no such method.
    """
    dynamics.get(method)
    return [claim for claim in map(get, names()) if claim.method is not None and claim.method.name == method]


def seal() -> None:
    """Take the claims that are there for those of the package, which no other can replace."""
    _OWN.update(_REGISTRY)


def is_own(claim: Claim) -> bool:
    """Return whether a claim is one that every process finds under its id, once it has imported the package."""
    if claim.id in _OWN:
        return claim is _OWN[claim.id]
    if claim.method is None or claim is not _STEPS.get(claim.method.name):
        return False
    return str(dynamics.get(claim.method.name).__module__).startswith("nlhfsim.")


def _steps() -> dict[str, Claim]:
    """Return the claims that come with the registered methods, made when they are first asked for."""
    for name in dynamics.names():
        method = dynamics.get(name).method
        known = _STEPS.get(name)
        if method.characterisation is None or known is not None and known.method and known.method.method is method:
            continue
        _STEPS[name] = step_claim(dynamics.build(name, **(dict(method.example or {}) | SHORTER.get(name, {}))))
    return {claim.id: claim for claim in _STEPS.values()}
