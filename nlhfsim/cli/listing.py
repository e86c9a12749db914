"""What ``nlhfsim list`` shows."""

from __future__ import annotations

from typing import Any


def game_rows() -> list[dict[str, Any]]:
    """Return a row a named game."""
    import inspect

    from nlhfsim import games

    return [
        {
            "name": name,
            "parameters": ", ".join(str(p).split(":")[0] + _default(p) for p in inspect.signature(build).parameters.values()),
            "what": (inspect.getdoc(build) or "").splitlines()[0].replace("`", ""),
        }
        for name, build in games.NAMED.items()
    ]


def _default(parameter: Any) -> str:
    return "" if parameter.default is parameter.empty or parameter.default is None else f"={parameter.default}"


def dataset_rows() -> list[dict[str, Any]]:
    """Return a row an embedded dataset."""
    from nlhfsim import datasets

    return [{"name": name, "items": len(d.items), "what": d.description} for name, d in datasets.DATASETS.items()]


def dynamics_rows() -> list[dict[str, Any]]:
    """Return a row a method or name of the literature."""
    import inspect

    from nlhfsim import dynamics

    factories = {name: dynamics.get(name) for name in dynamics.names() + dynamics.aliases()}
    return [
        {
            "name": name,
            "parameters": ", ".join(inspect.signature(factory).parameters),
            "fixed point": factory.method.fixed_point,
            "what": _what(factory),
            "source": str(getattr(factory, "source", factory.method.source)),
        }
        for name, factory in factories.items()
    ]


def _what(factory: Any) -> str:
    alias = getattr(factory, "alias", None)
    return factory.method.summary if alias is None else f"instance of {alias.instance_of}: {alias.mapping}"


def claim_rows() -> list[dict[str, Any]]:
    """Return a row a claim."""
    from nlhfsim import claims

    return [
        {
            "name": claim.id,
            "status": claim.status,
            "kind": claim.kind,
            "what": claim.title,
            "hypotheses": "; ".join(hypothesis.name for hypothesis in claim.hypotheses),
            "source": str(claim.source),
        }
        for claim in map(claims.get, claims.names())
    ]


ROWS = {"games": game_rows, "datasets": dataset_rows, "dynamics": dynamics_rows, "claims": claim_rows}
