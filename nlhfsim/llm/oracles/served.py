"""An oracle that is a language model behind an address: vLLM, SGLang, llama.cpp, or a provider with OpenAI's interface."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from threading import Event, Lock
from typing import Any

import numpy as np

from nlhfsim.errors import (
    InputError,
    OracleError,
    ensure_choice,
    ensure_flag,
    ensure_integer,
    ensure_nonnegative,
    ensure_positive,
)
from nlhfsim.llm.oracles._answers import probability, text_of
from nlhfsim.llm.oracles._check import ensure_template
from nlhfsim.llm.endpoint import Endpoint, Unread
from nlhfsim.llm.credentials import Secrets, checked, ensure_header, ensure_no_secret
from nlhfsim.llm.oracles._spec import Prompt, Response, Verdicts
from nlhfsim.llm.oracles.judge import ENDING, FIELDS, TEMPLATE, by_turns

MODES = {"chat": "/chat/completions", "completions": "/completions"}
_MOST_TOKENS = {"chat": 20, "completions": 5}
"""How many log-probabilities servers list at most, by default."""


class ServedJudgeOracle:
    """Preferences by a judge behind an OpenAI-compatible address.

    The judge is asked for one token. Where the server lists log-probabilities, the verdict is the softmax of the two answers';
    where it does not, the answer's text decides: 1, 0, or ½ for "tie". An answer that is neither, and a question that is too
    long for the judge or refused by its filter, is no valid verdict.

    Judges favour a position; `BothOrders` averages that out, at twice the cost. Equal questions of one call are asked once;
    `Cached` remembers them.

    Parameters
    ----------
    address : str
        Up to the version: ``"https://api.openai.com/v1"``, ``"http://localhost:8000/v1"``.
    model : str
        Its name at the server.
    template : str, optional
        The question, with ``{prompt}``, ``{left}`` and ``{right}`` in it. Default: that of `JudgeOracle`.
    answers : pair of str
        What says that the left, and that the right response is better; each one token of the judge's.
    mode : str
        ``"chat"``, or ``"completions"`` for a model without a chat template.
    logprobs : bool
        Whether to ask for log-probabilities: False for servers that refuse to give them.
    top_logprobs : int, optional
        How many tokens are listed. Default: 20, for completions 5, the most that servers allow unless told otherwise. If an
        answer is not among them, the verdict is valid where they determine it to 0.05 all the same.
    max_tokens : int
        Tokens of an answer; more than one where it begins with something else, which is of use without log-probabilities alone.
    key : str, optional
        Name of the environment variable that holds the key, sent as a bearer token; default: ``OPENAI_API_KEY``, if there is
        one. The key itself is read when a request is sent, and never kept, shown or written.
    headers : mapping, optional
        Further headers; what is secret is written ``"$NAME"`` with the name of an environment variable.
    extra : mapping, optional
        Further fields of the request, in place of ours where the names are equal; None leaves ours out.
    concurrency : int
        Requests at a time, whatever the number of threads that compare.
    retries : int
        How often a request is repeated that was answered with 408, 409, 425, 429 or 5xx, with no JSON, or not at all.
    backoff : float
        Seconds. Before the k-th repetition a random part of ``backoff * 2**k`` passes, or what the server asks for by
        ``Retry-After``.
    longest_wait : float
        Seconds that are waited at most before a repetition; a server that asks for more is down.
    timeout : float
        Seconds for a connection, for an answer to begin, and for it to end.

    Attributes
    ----------
    asked, invalid, retried : int
        Questions sent, those without a verdict, and requests that were repeated.
    unread : str
        The last answer without a verdict, shortened; empty if there was none.

    Raises
    ------
    InputError
        If an argument is not as described.
    OracleError
        By `compare`: if the server is down after the retries, or refuses for good, as for a wrong key or model. A training run
        stops then with everything saved.
    MissingExtraError
        If the extra ``served`` is not installed.

    Examples
    --------
    >>> from nlhfsim.llm.oracles import BothOrders, ServedJudgeOracle
    >>> BothOrders(ServedJudgeOracle("http://localhost:8000/v1", "Qwen/Qwen2.5-7B-Instruct"))
    BothOrders(ServedJudgeOracle('http://localhost:8000/v1', 'Qwen/Qwen2.5-7B-Instruct'))
    """

    def __init__(
        self,
        address: str,
        model: str,
        *,
        template: str | None = None,
        answers: Sequence[str] = ("A", "B"),
        mode: str = "chat",
        logprobs: bool = True,
        top_logprobs: int | None = None,
        max_tokens: int = 1,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
        concurrency: int = 16,
        retries: int = 6,
        backoff: float = 0.5,
        longest_wait: float = 60.0,
        timeout: float = 60.0,
    ) -> None:
        self._mode, self._model = ensure_choice("mode", mode, MODES), ensure_model("model", model)
        self._template = TEMPLATE + ("" if self._mode == "chat" else ENDING)
        if template is not None:
            self._template = ensure_template("template", template, FIELDS)
        self._answers = ensure_answers("answers", answers)
        listed = _MOST_TOKENS[self._mode] if top_logprobs is None else ensure_integer("top_logprobs", top_logprobs, 1)
        self._body = self._fields(ensure_flag("logprobs", logprobs), listed, ensure_integer("max_tokens", max_tokens, 1))
        self._extra = checked(lambda _, value: value, "extra", {} if extra is None else extra)
        ensure_no_secret("extra", self._extra)
        ensure_json("extra", self._extra)
        self._concurrency = ensure_integer("concurrency", concurrency, 1, 1024)
        self._endpoint = Endpoint(
            address,
            MODES[self._mode],
            Secrets(key, checked(ensure_header, "headers", {} if headers is None else headers)),
            concurrency=self._concurrency,
            retries=ensure_integer("retries", retries),
            backoff=ensure_nonnegative("backoff", backoff),
            longest_wait=ensure_nonnegative("longest_wait", longest_wait),
            timeout=ensure_positive("timeout", timeout),
        )
        self._lock = Lock()
        self.asked = self.invalid = 0
        self.unread = ""

    @property
    def retried(self) -> int:
        """Requests that were repeated."""
        return self._endpoint.retried

    def _fields(self, logprobs: bool, listed: int, max_tokens: int) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self._model, "max_tokens": max_tokens, "temperature": 0}
        if not logprobs:
            return body
        return body | ({"logprobs": True, "top_logprobs": listed} if self._mode == "chat" else {"logprobs": listed})

    def compare(self, prompts: Sequence[Prompt], left: Sequence[Response], right: Sequence[Response]) -> Verdicts:
        """Return the judge's probabilities of the first answer against the second."""
        pairs = zip(prompts, left, right)
        questions = [self._question(by_turns(prompt), first.text, second.text) for prompt, first, second in pairs]
        distinct = list(dict.fromkeys(questions))
        known = dict(zip(distinct, self._ask(distinct)))
        found = [known[question] for question in questions]
        valid = np.array([one is not None for one in found], dtype=np.bool_)
        return Verdicts(np.array([0.5 if one is None else one for one in found], dtype=np.float64), valid)

    def _question(self, prompt: str, left: str, right: str) -> str:
        text = self._template.format(prompt=prompt, left=left, right=right)
        return text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair cannot be sent

    def _ask(self, questions: list[str]) -> list[float | None]:
        """Return the verdicts on different questions, in their order."""
        replies = self._post([self._request(question) for question in questions])
        unread = [reply for reply in replies if isinstance(reply, Unread)]
        if unread and len(unread) == len(replies) and not any(reply.own for reply in unread):
            raise OracleError(unread[0].words)
        found = [None if isinstance(one, Unread) else probability(one["choices"][0], self._answers) for one in replies]
        with self._lock:
            self.asked += len(found)
            self.invalid += found.count(None)
            self.unread = next((self._in_words(one) for one, said in zip(replies, found) if said is None), self.unread)
        return found

    def _in_words(self, reply: dict[str, Any] | Unread) -> str:
        """Return an answer without a verdict as a sentence that can be shown."""
        if isinstance(reply, Unread):
            return reply.words
        said = self._endpoint.shown(text_of(reply["choices"][0]))
        return self._endpoint.said(f"answers {said!r}, which is no verdict between {' and '.join(map(repr, self._answers))}")

    def _request(self, question: str) -> dict[str, Any]:
        asked = {"messages": [{"role": "user", "content": question}]} if self._mode == "chat" else {"prompt": question}
        return {name: value for name, value in (self._body | asked | self._extra).items() if value is not None}

    def _post(self, bodies: list[dict[str, Any]]) -> list[dict[str, Any] | Unread]:
        """Ask several questions at a time; the first that fails for good ends them all."""
        stop = Event()
        pool = ThreadPoolExecutor(min(self._concurrency, len(bodies) or 1), thread_name_prefix="judge")
        try:
            pending: list[Future[dict[str, Any] | Unread]] = [pool.submit(self._endpoint.post, body, stop) for body in bodies]
            done = wait(pending, return_when=FIRST_EXCEPTION).done
            for one in done:
                one.result()
            return [one.result() for one in pending]
        finally:
            stop.set()  # also at Ctrl-C: nobody waits for the others' retries
            pool.shutdown(cancel_futures=True)

    def __repr__(self) -> str:
        return f"ServedJudgeOracle({self._endpoint.address!r}, {self._model!r})"


def ensure_model(name: str, value: Any) -> str:
    """Return `value` if it can be the name of a model."""
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{name} = {value!r} must be the name of the judge at the server")
    return value


def ensure_answers(name: str, value: Any) -> tuple[str, str]:
    """Return two different answers, without spaces around."""
    if not isinstance(value, (tuple, list)) or len(value) != 2 or not all(isinstance(one, str) and one.strip() for one in value):
        raise InputError(f"{name} = {value!r} must be two texts, such as ('A', 'B')")
    first, second = (one.strip() for one in value)
    if first.casefold() == second.casefold():
        raise InputError(f"{name} = {value!r} must be two different texts")
    return first, second


def ensure_json(name: str, value: Any) -> None:
    """Refuse what cannot be sent."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} cannot be written as JSON: {error}") from None
