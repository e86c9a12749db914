"""Whether the two sides of a claim are two routes: the functions of this package, or of the user's, that both of them call."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from typing import Any

from nlhfsim.claims._spec import Claim

_MACHINERY = ("nlhfsim.simplex.", "nlhfsim.claims._accuracy.", "nlhfsim.claims._runs.", "nlhfsim.claims._step.")


def shared_functions(claim: Claim) -> set[str]:
    """Return the functions, by dotted name, that both sides of a claim call, directly or through others.

    For an identity there must be none: one bug could be on both sides. Functions of NumPy, SciPy and the standard library may be
    shared, as may the primitives of `nlhfsim.simplex`, what propagates rounding or runs a step, and the attributes of a case.
    Found by the names in the code, so a function that is passed around as a value is seen where it is named.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.claims.shared_functions(nl.claims.get("constant-sum"))
    set()
    """
    measured, bound = (set(_called(side, set())) for side in (claim.measure, claim.bound))
    names = {f"{function.__module__}.{function.__qualname__}" for function in measured & bound}
    return {name for name in names if not name.startswith(_MACHINERY)}


def _called(function: Any, seen: set[int]) -> Iterator[types.FunctionType]:
    """Yield a function and those that its code names, and those that these name, outside of libraries."""
    function = _plain(function)
    if not isinstance(function, types.FunctionType) or id(function) in seen or _of_library(function):
        return
    seen.add(id(function))
    yield function
    names = set(_names(function.__code__))
    values = [function.__globals__[name] for name in names if name in function.__globals__]
    values += [cell.cell_contents for cell in function.__closure__ or ()]
    modules = [value for value in values if isinstance(value, types.ModuleType) and not _in_library(value.__name__, value)]
    for value in [*values, *(getattr(module, name, None) for module in modules for name in names)]:
        yield from _called(value, seen)


def _plain(function: Any) -> Any:
    """Return the function behind a partial application, a bound method or an object that is called."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, types.MethodType):
            function = function.__func__
        elif isinstance(getattr(type(function), "__call__", None), types.FunctionType):
            function = type(function).__call__
        else:
            return function


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _of_library(function: types.FunctionType) -> bool:
    """Return whether a function belongs to an installed library other than nlhfsim."""
    return _in_library(function.__module__ or "", function.__code__.co_filename)


def _in_library(name: str, where: Any) -> bool:
    path = str(getattr(where, "__file__", None) or where)
    return name.partition(".")[0] != "nlhfsim" and ("site-packages" in path or "lib/python" in path or "built-in" in path)
