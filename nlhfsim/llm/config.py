"""The configuration of a training run: one frozen dataclass, checked when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from nlhfsim.errors import ConfigurationError, InputError, did_you_mean
from nlhfsim.llm import methods
from nlhfsim.llm.config_fields import CHECKS

OF_METHODS = ("proximal_step", "averaging", "refresh_every", "inner_steps", "mixing")


@dataclass(frozen=True)
class NashConfig:
    """How a language model is trained towards the Nash equilibrium of the preference game.

    Every field is checked; a combination that makes no sense is refused with what would.

    Parameters
    ----------
    method : str
        ``"nash_prox"``, ``"online_ipo"``, ``"proximal_pg"``, ``"nash_md"``, ``"ipo_md"`` or ``"extragradient"``.
    beta : float
        β ≥ 0, weight of the KL towards the reference, on the scale of probabilities of preference.
    proximal_step : float, optional
        1/τ > 0: the pull to the target has weight τ (`nash_prox`, `proximal_pg`; default 5).
    averaging : float, optional
        α in (0, 1], the share that the target takes from the policy after every step (`nash_prox`; default 0.05).
    refresh_every : int, optional
        m ≥ 1: the target becomes the policy after every m-th step instead (`nash_prox`).
    inner_steps : int, optional
        Steps between two refreshes of the target (`proximal_pg`; default 50).
    mixing : float, optional
        m in [0, 1], weight of the reference in the geometric mixture (`nash_md`, `ipo_md`; default 0.125).
    group_size : int
        G ≥ 2 responses a prompt; all their pairs are compared.
    votes : bool
        True: one Bernoulli vote a pair, drawn from the oracle's probability. False: the probability itself.
    feedback : str
        ``"sampled"``, or ``"exact"``: the expectation over all responses, for a model whose responses can be enumerated.
    kl_estimator : str
        ``"pair"``: from the log-probabilities of the responses, as in the loss. ``"token"``: the KL over the vocabulary at every
        token of them, with its effect on later tokens; both are unbiased for the same gradient.
    steps, prompts_per_step : int
        Optimizer steps, and prompts in each.
    micro_batch_prompts : int, optional
        Prompts, with all of their responses, whose activations are in memory at once; None: all of a step. The gradient does
        not depend on it.
    max_prompt_tokens, max_new_tokens : int
        Longest prompt (None: what the model's context leaves) and response.
    temperature : float
        T > 0: the policy is softmax(logits/T), when it is sampled and when its log-probabilities are taken.
    top_k, top_p : int and float, optional
        Truncated sampling. It draws from another policy than the one that is trained, so `allow_off_policy` must be True.
    allow_off_policy : bool
        Whether sampling may differ from the policy.
    allowed_tokens : tuple of int, optional
        The policy is restricted to these tokens, when it is sampled and when its log-probabilities are taken.
    stop_tokens : tuple of int, optional
        Tokens that end a response and belong to it. None: the tokenizer's end of sequence. Empty: every response has
        `max_new_tokens` tokens.
    optimizer : str
        ``"adamw"`` or ``"sgd"``.
    learning_rate : float
        The largest of the schedule, > 0.
    schedule : str
        ``"constant"``, ``"linear"`` (to 0 at the last step), ``"cosine"`` (to 0), or ``"inverse_time"`` (``1/(1 +
        t/decay_steps)``).
    decay_steps : int, optional
        Of ``inverse_time``; default a tenth of `steps`.
    warmup_steps : int
        Steps over which the learning rate rises from 0.
    adam_betas, adam_epsilon, weight_decay : floats
        Of AdamW; `weight_decay` pulls weights to 0 and is off by default, as the theory has no such term.
    gradient_clip : float, optional
        Largest Euclidean norm of a gradient; None: no limit.
    precision : str
        ``"float32"``, ``"bfloat16"`` (with float32 master weights) or ``"float64"``.
    lora_rank : int, optional
        Train low-rank adapters of this rank and nothing else (needs ``nlhfsim[lora]``); None: all weights.
    lora_alpha : float, optional
        The adapters' update is ``lora_alpha / lora_rank * B A``; default twice the rank.
    lora_modules : tuple of str, optional
        Names of the linear layers that get adapters; None: all but the output layer.
    activation_checkpointing : bool
        Recompute activations in the backward pass.
    logprob_chunk : int
        Tokens whose logits over the vocabulary are in memory at once.
    generation_batch : int, optional
        Responses generated at once, rounded down to whole prompts with all of their responses, but at least one prompt: 3 with
        4 responses a prompt generates 4. None: all of a step.
    decoding : str
        What responses are written with. ``"eager"``: keys and values in a cache that grows. ``"static"``: in one of a fixed
        size. ``"graph"``: that, and the step of a token is replayed as a CUDA graph. ``"auto"``: a graph on a GPU if the model
        allows it, else eager. For the same seed they give the same responses, up to rounding.
    evaluation_responses : int
        Responses to each held-out prompt in an evaluation, of each policy.
    exact_check : bool
        Whether evaluations enumerate all responses, at most 5,000, and report how far the policy is from the equilibrium; exact
        feedback does.
    evaluate_every, checkpoint_every : int, optional
        Steps between evaluations on the held-out prompts and between checkpoints; None: only at the end.
    keep_checkpoints : int
        How many are kept, the newest.
    seed : int
        Of everything random.

    Raises
    ------
    InputError
        If a field is not as described.

    Examples
    --------
    >>> from nlhfsim.llm import NashConfig
    >>> config = NashConfig(method="nash_prox", beta=0.05, refresh_every=50)
    >>> config.parameters
    {'proximal_step': 5.0, 'averaging': None, 'refresh_every': 50}
    """

    method: str = "nash_prox"
    beta: float = 0.1
    proximal_step: float | None = None
    averaging: float | None = None
    refresh_every: int | None = None
    inner_steps: int | None = None
    mixing: float | None = None
    group_size: int = 4
    votes: bool = True
    feedback: str = "sampled"
    kl_estimator: str = "pair"
    steps: int = 100
    prompts_per_step: int = 8
    micro_batch_prompts: int | None = None
    max_prompt_tokens: int | None = None
    max_new_tokens: int = 64
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    allow_off_policy: bool = False
    allowed_tokens: tuple[int, ...] | None = None
    stop_tokens: tuple[int, ...] | None = None
    optimizer: str = "adamw"
    learning_rate: float = 1e-6
    schedule: str = "constant"
    decay_steps: int | None = None
    warmup_steps: int = 0
    adam_betas: tuple[float, float] = (0.9, 0.99)
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.0
    gradient_clip: float | None = 1.0
    precision: str = "float32"
    lora_rank: int | None = None
    lora_alpha: float | None = None
    lora_modules: tuple[str, ...] | None = None
    activation_checkpointing: bool = False
    logprob_chunk: int = 1024
    generation_batch: int | None = None
    decoding: str = "auto"
    evaluation_responses: int = 4
    exact_check: bool = False
    evaluate_every: int | None = None
    checkpoint_every: int | None = None
    keep_checkpoints: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate, and put every field into its exact type."""
        for name, check in CHECKS.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            object.__setattr__(self, name, check(name, value))
        self._check_parameters()
        self._check_together()

    def _check_parameters(self) -> None:
        """Refuse the parameters of other methods."""
        defaults = methods.get(self.method).defaults
        for name in OF_METHODS:
            if getattr(self, name) is not None and name not in defaults:
                owners = [other for other in methods.names() if name in methods.get(other).defaults]
                raise InputError(
                    f"{name} = {getattr(self, name)} is not a parameter of {self.method}, but of {', '.join(owners)}"
                )
        if self.refresh_every is not None and self.averaging is not None:
            raise InputError("give averaging (moving average) or refresh_every (copies), not both")

    def _check_together(self) -> None:
        if (self.top_k is not None or self.top_p is not None) and not self.allow_off_policy:
            given = "top_k" if self.top_k is not None else "top_p"
            raise InputError(
                f"{given} = {getattr(self, given)} samples from another policy than the one that is trained, which biases the "
                "gradient; leave it out, or set allow_off_policy = True"
            )
        if self.decay_steps is not None and self.schedule != "inverse_time":
            raise InputError(f"decay_steps = {self.decay_steps} belongs to schedule = 'inverse_time', not {self.schedule!r}")
        weight = self.beta + self.pull
        if weight != 0 and not 1e-30 <= weight <= 1e30:
            said = "beta" if self.pull == 0 else "beta + 1/proximal_step"
            raise InputError(f"{said} = {weight:g} must be 0 or between 1e-30 and 1e30, which float32 can divide by")
        for name in ("lora_alpha", "lora_modules"):
            if getattr(self, name) is not None and self.lora_rank is None:
                raise InputError(f"{name} = {getattr(self, name)} belongs to lora_rank, which must be given with it")
        if self.lora_rank is not None and self.lora_alpha is None:
            object.__setattr__(self, "lora_alpha", 2.0 * self.lora_rank)
        if self.warmup_steps > self.steps:
            raise InputError(f"warmup_steps = {self.warmup_steps} must be at most steps = {self.steps}")
        if self.beta == 0 and self.kl_estimator == "token" and "proximal_step" not in self.parameters:
            raise InputError("kl_estimator = 'token' needs beta > 0: there is no KL to estimate")
        if self.kl_estimator == "token" and methods.get(self.method).mixing(self.parameters) > 0:
            raise InputError(
                f"kl_estimator = 'token' needs responses of the policy, and those of {self.method} are of its mixture"
            )

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that only some methods take, as they are in force: given, or the method's default."""
        found = dict(methods.get(self.method).defaults)
        if self.refresh_every is not None:
            found["averaging"] = None
        return found | {name: getattr(self, name) for name in found if getattr(self, name) is not None}

    @property
    def pull(self) -> float:
        """τ, the weight of the pull to the target."""
        return methods.get(self.method).pull(self.parameters)

    @property
    def follow(self) -> methods.Follow:
        """How the target follows the policy."""
        return methods.get(self.method).follow(self.parameters)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as they were given, in the form that JSON takes."""
        return asdict(self)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any], name: str = "config") -> NashConfig:
        """Return the configuration that a mapping describes.

        Raises
        ------
        ConfigurationError
            If there are mistakes; each is listed with its place.
        """
        if not isinstance(given, Mapping):
            raise ConfigurationError(name, [f"is of type {type(given).__name__}, must be a table of fields"])
        known = [field.name for field in fields(cls)]
        mistakes = [f"{key}: is no field{did_you_mean(str(key), known)}" for key in given if key not in known]
        for key, value in given.items():
            if key in CHECKS and not (value is None and key in _OPTIONAL):
                try:
                    CHECKS[key](key, value)
                except InputError as error:
                    mistakes.append(f"{key}: {error}")
        if not mistakes:
            try:
                return cls(**given)
            except InputError as error:
                mistakes.append(str(error))
        raise ConfigurationError(name, mistakes)

    @property
    def fixed(self) -> list[str]:
        """The fields that the weights after a step depend on: a run can be resumed only with the same.

        How far to go may change, unless the schedule depends on it; so may what changes the gradient by rounding at most.
        """
        free = {"decoding", "evaluation_responses", "exact_check", "evaluate_every", "checkpoint_every", "keep_checkpoints"}
        if self.schedule == "constant" or (self.schedule == "inverse_time" and self.decay_steps is not None):
            free.add("steps")
        return [field.name for field in fields(self) if field.name not in free]


_OPTIONAL = {field.name for field in fields(NashConfig) if str(field.type).endswith("| None")}
