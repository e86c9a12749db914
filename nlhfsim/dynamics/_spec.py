"""What a method is: pure functions on a small immutable state, with the metadata that the rest of the package reads."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

from nlhfsim.dynamics.schedules import StepSize, describe, ensure_step_size
from nlhfsim.errors import Array, InputError, UnknownNameError, did_you_mean
from nlhfsim.games.payoffs import Context
from nlhfsim.pairs import Pairs
from nlhfsim.sources import Source


class LogPolicy(NamedTuple):
    """The state of a method that remembers nothing but its policy.

    Attributes
    ----------
    logits : numpy.ndarray
        θ with π = softmax(θ), shape ``(..., n)``.
    """

    logits: Array


class NoParams(NamedTuple):
    """The parameters of a method that has none beside its step size."""


class ProvenRange(NamedTuple):
    """For which constant step sizes convergence is proven on a game, and how fast.

    Attributes
    ----------
    largest : float
        The largest step size covered; ``inf`` if every one is.
    claim : str
        The claim that says so, and its source.
    factor : float or None
        ``KL(π*‖π_K) ≤ factor^K KL(π*‖π_0)`` at the step size asked about; None if no such factor is proven there.
    """

    largest: float
    claim: str
    factor: float | None


def _one_call(params: Any) -> int:
    return 1


def _no_range(context: Context, params: Any, step_size: float) -> ProvenRange | None:
    return None


def _has_sampled_form(params: Any) -> str:
    return ""


def start_at(context: Context, params: Any, log_policy: Array) -> LogPolicy:
    """Return the initial state of a method that remembers nothing but its policy."""
    return LogPolicy(log_policy)


@dataclass(frozen=True)
class Method:
    """A method: its functions and what is known about it.

    Attributes
    ----------
    name : str
        As in `nlhfsim.dynamics`.
    step : callable
        ``step(state, context, step_size, params) -> state``: pure, written with `exp`, `log_softmax`, `expect` and `advantage`
        so that it compiles.
    characterisation : callable
        ``characterisation(context, params, before, step_size, after) -> float``: how far the step is from the optimality
        condition that defines it; 0 up to rounding. Shares no code with `step`.
    flow : callable or None
        ``flow(context, params, logits) -> dθ/dt``, shape ``(..., n)``: the limit of ``(θ⁺ - θ)/γ`` as the step size γ → 0 with
        all other parameters fixed, where the time is the sum of the step sizes spent. None: no such limit is known.
    init : callable
        ``init(context, params, log_policy) -> state``; its first field is called ``logits``, and π = softmax(logits).
    safe_step : callable
        ``safe_step(context, params) -> float``: the step size used when none is given.
    proven : callable
        ``proven(context, params, step_size) -> ProvenRange | None`` for a constant step; None where nothing is proven.
    source : Source or None
        Where it was published, with the equation.
    oracle_calls : callable or None
        Oracle calls of one step; None where an inner solver decides, which leaves the method out of comparisons at equal budget.
    inner_steps : callable or None
        How many values of the step size one step uses; it receives them as an array. None: it receives one number.
    scheduled : str or None
        Name of the parameter that may be a schedule, the step size; None: the method has none, and its step is given 0.
    fixed_point : str
        ``"nash"``, ``"biased"`` (a fixed point, but not π*) or ``"none"`` (no regularized equilibrium).
    iterate : str
        Which iterate converges: ``"last"`` or ``"average"``. A method without a step size keeps its average itself: there π is
        the average.
    smooth, autonomous, stochastic : bool
        Whether the step is differentiable, forgets the time (but for a `period`), draws at random.
    period : callable or None
        ``period(params) -> int``: after so many steps a counter in the state makes the step do the same again. None: after one.
    analytic : callable or None
        The step in a form that takes complex states, where `step` takes real ones only: `nlhfsim.stability` differentiates it.
    compiled : bool
        Whether the step can be compiled with the loop.
    kernel : callable or None
        ``kernel(state, context, step_size, params, policy, gain, half)``: the step in place, for the compiled loop, where that is
        at least twice as fast; written with the functions of `nlhfsim.in_place`, the last three being scratch like the logits.
    together : bool
        Whether the step takes many runs at once: arrays with a leading axis of runs, ``(runs, n)``, numbers of the state common
        to all, the step size of shape ``(runs, 1)``. Taken at its word, as `kernel` is: compare with ``compiled=False`` once.
    pairs : callable or None
        ``pairs(params) -> Pairs``: the sampled form of a policy-gradient method, by the Online IPO estimate of `nlhfsim.pairs`.
        None: a batch of votes stands for Aπ wherever the step reads it by `advantage`, and should enter linearly.
    unsampled : callable
        ``unsampled(params) -> str``: why the method has no sampled form; empty if it has one.
    full_support : bool
        Whether every policy that the step asks about gives each action a chance. If not, candidates drawn from it would leave
        the gain of some actions unseen.
    initial_calls : int
        Oracle calls that `init` makes.
    log_linear : str or None
        How the step moves log-linear policies, on the logits of all contexts at once, shape ``(contexts, n)``: ``"mirror"``,
        if θ⁺ is linear in θ, log ρ and what `advantage` returns, so that payoffs projected on the features keep it in the class;
        ``"gradient"``, if it adds ``lifted(context.payoff, γg)``, g a gradient in the logits; None: it does not.
    helpers : tuple of callable
        Plain functions that the step calls beside the primitives.
    tuning : mapping
        Values to try for the parameters beside the step size when a comparison tunes the method.
    example : mapping
        Parameters of a typical instance, for tests, tables and documentation.
    summary : str
        One line.
    """

    name: str
    step: Callable[..., Any]
    characterisation: Callable[..., float] | None = None
    flow: Callable[..., Array] | None = None
    init: Callable[..., Any] = start_at
    safe_step: Callable[..., float] | None = None
    proven: Callable[..., ProvenRange | None] = _no_range
    source: Source | None = None
    oracle_calls: Callable[[Any], int] | None = _one_call
    inner_steps: Callable[[Any], int] | None = None
    scheduled: str | None = "step_size"
    fixed_point: str = "nash"
    iterate: str = "last"
    smooth: bool = True
    autonomous: bool = True
    stochastic: bool = False
    period: Callable[[Any], int] | None = None
    analytic: Callable[..., Any] | None = None
    compiled: bool = True
    kernel: Callable[..., None] | None = None
    together: bool = False
    pairs: Callable[[Any], Pairs] | None = None
    unsampled: Callable[[Any], str] = _has_sampled_form
    full_support: bool = True
    initial_calls: int = 0
    log_linear: str | None = None
    helpers: tuple[Callable[..., Any], ...] = ()
    tuning: Mapping[str, Sequence[Any]] | None = None
    example: Mapping[str, Any] | None = None
    summary: str = ""

    def __post_init__(self) -> None:
        name: Any = self.name
        if not (isinstance(name, str) and name.isidentifier()):
            raise InputError(f"name = {self.name!r} of a method must be a name as of a class, such as 'NashMD'")
        for part in ("step", "init", "proven", "unsampled"):
            if not callable(getattr(self, part)):
                raise InputError(f"{part} of {self.name} = {getattr(self, part)!r} must be a function")
        if self.source is not None and not isinstance(self.source, Source):
            raise InputError(f"source of {self.name} = {self.source!r} must be a nlhfsim.sources.Source, or None")
        if callable(self.helpers) or not all(map(callable, self.helpers)):
            raise InputError(f"helpers of {self.name} = {self.helpers!r} must be a tuple of functions")


@dataclass(frozen=True)
class Dynamics:
    """A method with its parameters: what `simulate` runs.

    Attributes
    ----------
    method : Method
        The functions and metadata.
    params : NamedTuple
        The numbers that the step reads.
    step_size : float, schedule, tuple of float or None
        γ, constant, a function of t, or one a run; None: the method's safe step on the game at hand, or the method has no step
        size.
    given : mapping
        The parameters as the caller named them, without the step size.
    """

    method: Method
    params: Any = NoParams()
    step_size: StepSize | None = None
    given: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """The method's name."""
        return self.method.name

    @property
    def parameters(self) -> dict[str, Any]:
        """All parameters in the form that JSON and tables take."""
        # A method made without a factory shows what its step reads.
        others = dict(self.given) or dict(getattr(self.params, "_asdict", dict)())
        if self.method.scheduled is None:
            return others
        return {self.method.scheduled: None if self.step_size is None else describe(self.step_size)} | others

    def with_step(self, step_size: StepSize | None) -> Dynamics:
        """Return the same method with another step size."""
        return replace(self, step_size=step_size)

    def resolve(self, contexts: tuple[Context, ...]) -> Dynamics:
        """Return the same method with a step size: its own, or the smallest safe one over the contexts; without, if it has none.

        Raises
        ------
        InputError
            If the step size is not a positive number or a schedule, if none is given and the method names no safe one, or if one
            is given to a method that has none.
        """
        if self.method.scheduled is None:
            if self.step_size is not None:
                raise InputError(f"step_size = {describe(self.step_size)} must not be given: {self.name} has no step size")
            return self
        if self.step_size is not None:
            return self.with_step(ensure_step_size(self.method.scheduled, self.step_size))
        if self.method.safe_step is None:
            raise InputError(f"{self.method.scheduled} of {self.name} must be given: the method names no safe one")
        return self.with_step(min(self.method.safe_step(context, self.params) for context in contexts))

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.parameters.items())
        return f"{self.name}({shown})"


Factory = TypeVar("Factory", bound=Callable[..., Dynamics])
_REGISTRY: dict[str, Callable[..., Dynamics]] = {}
_ALIASES: dict[str, Callable[..., Dynamics]] = {}


def register(method: Method) -> Callable[[Factory], Factory]:
    """Enter a method into the registry under its name; decorates the factory that validates its parameters.

    Raises
    ------
    InputError
        If the name is taken by another method, or the factory's name differs from the method's.
    """

    def enter(factory: Factory) -> Factory:
        if factory.__name__ != method.name:
            raise InputError(f"the factory is called {factory.__name__!r}, must be called {method.name!r} like its method")
        present = _REGISTRY.get(method.name) or _ALIASES.get(method.name)
        if present is not None and present.__module__ != factory.__module__:
            raise InputError(f"a method called {method.name!r} is registered already, from {present.__module__}")
        factory.method = method  # type: ignore[attr-defined]
        _REGISTRY[method.name] = factory
        return factory

    return enter


@dataclass(frozen=True)
class Alias:
    """A name of the literature for an update that the package has under another name.

    Attributes
    ----------
    name : str
        As in the literature.
    instance_of : str
        The name of the method that it is an instance of.
    mapping : str
        How that method's parameters follow from those of the literature.
    source : Source
        Where the name comes from.
    example : mapping
        Parameters of a typical instance, for tests and documentation.
    elsewhere : mapping
        Parameters of the literature that are not the method's to set, with the sentence that says whose they are.
    """

    name: str
    instance_of: str
    mapping: str
    source: Source
    example: Mapping[str, Any]
    elsewhere: Mapping[str, str] = field(default_factory=dict)


def alias(entry: Alias) -> Callable[[Factory], Factory]:
    """Enter a name of the literature; decorates the factory that returns the instance, in the literature's parameters.

    The factory gets the attributes ``alias``, ``source`` and ``method``, the last that of the method it is an instance of.

    Raises
    ------
    InputError
        If the name is taken, or the factory's name differs from it.
    """

    def enter(factory: Factory) -> Factory:
        if factory.__name__ != entry.name:
            raise InputError(f"the factory is called {factory.__name__!r}, must be called {entry.name!r} like the alias")
        if entry.name in _REGISTRY:
            raise InputError(f"{entry.name!r} is a method itself, so it cannot be another name of {entry.instance_of}")

        @functools.wraps(factory)
        def instance(*arguments: Any, **parameters: Any) -> Dynamics:
            for name in entry.elsewhere.keys() & parameters.keys():
                raise InputError(f"{name} = {parameters[name]!r} is not {entry.name}'s to set: {entry.elsewhere[name]}")
            return factory(*arguments, **parameters)

        for name, value in (("alias", entry), ("source", entry.source), ("method", get(entry.instance_of).method)):
            setattr(instance, name, value)
        _ALIASES[entry.name] = instance
        return instance  # type: ignore[return-value]

    return enter


def names() -> list[str]:
    """Return the names of all registered methods; other names that the literature has for them are in `aliases`."""
    return sorted(_REGISTRY)


def aliases() -> list[str]:
    """Return the names of the literature that are instances of a registered method."""
    return sorted(_ALIASES)


def get(name: str) -> Any:
    """Return the factory of a registered method, or of an alias; its ``.method`` carries the metadata.

    Raises
    ------
    UnknownNameError
        If no method has that name; the nearest one is suggested.
    """
    if name in _REGISTRY:
        return _REGISTRY[name]
    if name in _ALIASES:
        return _ALIASES[name]
    raise UnknownNameError(f"method {name!r} is unknown{did_you_mean(name, [*_REGISTRY, *_ALIASES])}")


def build(name: str, **parameters: Any) -> Dynamics:
    """Return a registered method, or an alias, with parameters; an unknown parameter is refused with the known ones."""
    import inspect

    factory = get(name)
    known = list(inspect.signature(factory).parameters)
    elsewhere = getattr(getattr(factory, "alias", None), "elsewhere", {})
    for parameter in parameters:
        if parameter not in known and parameter not in elsewhere:
            raise UnknownNameError(f"{name} has no parameter {parameter!r}{did_you_mean(parameter, known)}")
    instance: Dynamics = factory(**parameters)
    return instance


def as_dynamics(method: Any) -> Dynamics:
    """Return a `Dynamics` from one, a factory (with its defaults), or a name."""
    if isinstance(method, Dynamics):
        return method
    if isinstance(method, str):
        return build(method)
    if hasattr(method, "method"):
        instance = method()
        if isinstance(instance, Dynamics):
            return instance
    if isinstance(method, Method):
        return Dynamics(method)
    raise InputError(
        f"method = {method!r} must be a method of nlhfsim.dynamics, such as nl.dynamics.NashMirrorProx(step_size=2.0)"
    )


def given_parameters(**parts: Any) -> tuple[tuple[str, Any], ...]:
    """Return the parameters that were given, for `Dynamics.given`."""
    return tuple((name, value) for name, value in parts.items() if value is not None)
