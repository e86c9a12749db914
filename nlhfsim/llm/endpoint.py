"""Questions to a server: connections, retries, and what a refusal means. All HTTP is that of httpx2, all retrying of tenacity."""

from __future__ import annotations

import email.utils
import json
import random
import time
import weakref
from threading import Event, Lock
from typing import Any, NamedTuple

from nlhfsim.errors import InputError, MissingExtraError, NlhfsimError, OracleError
from nlhfsim.llm.credentials import Secrets

_PASSING = (408, 409, 425, 429)
"""Refusals that may be gone the next time; and all from 500 on."""
_UNANSWERED = ("context_length_exceeded", "content_filter", "content_policy_violation")
_TOO_LONG = ("context length", "context window", "maximum context")
_MOST_LETTERS = 300


class Unread(NamedTuple):
    """A question without an answer.

    Attributes
    ----------
    words : str
        Why.
    own : bool
        Whether it is for what this question is, so that others may do better.
    """

    words: str
    own: bool


class _Passing(Exception):
    """What may be gone the next time."""

    def __init__(self, words: str, wait: float | None = None, readable: bool = True) -> None:
        super().__init__(words)
        self.words, self.wait, self.readable = words, wait, readable


class Endpoint:
    """One path of an OpenAI-compatible server, asked from several threads.

    Parameters
    ----------
    address : str
        Up to the version: ``https://host/v1``.
    path : str
        What follows.
    secrets : Secrets
        Key and headers.
    concurrency : int
        Connections at most.
    retries, backoff, longest_wait, timeout
        As in `ServedJudgeOracle`.

    Attributes
    ----------
    retried : int
        Requests that were repeated.
    """

    who = "judge"
    failure: type[NlhfsimError] = OracleError
    most_bytes = 2**22
    example = "such as 'https://api.openai.com/v1' or 'http://localhost:8000/v1'"

    def __init__(
        self,
        address: str,
        path: str,
        secrets: Secrets,
        *,
        concurrency: int,
        retries: int,
        backoff: float,
        longest_wait: float,
        timeout: float,
    ) -> None:
        try:
            import httpx2
            import tenacity
        except ImportError as error:
            raise MissingExtraError(f"a served {self.who} needs {error.name}: pip install 'nlhfsim[served]'") from None
        self._http, self._tenacity = httpx2, tenacity
        self.address = self._ensure_address(address)
        self._url, self._secrets = self.address + path, secrets
        self._retries, self._backoff, self._longest_wait, self._timeout = retries, backoff, longest_wait, timeout
        self._client = httpx2.Client(
            timeout=httpx2.Timeout(timeout, pool=None),
            limits=httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
            auth=self._authorize,
        )
        weakref.finalize(self, self._client.close)
        self._lock, self._random = Lock(), random.Random()
        self.retried = 0

    def _ensure_address(self, given: Any) -> str:
        """Return an address that has no secret in it."""
        right = self.example
        if not isinstance(given, str):
            raise InputError(f"address is of type {type(given).__name__}, must be a text, {right}")
        try:
            url = self._http.URL(given)
        except self._http.InvalidURL:
            raise InputError(f"address is no address, must be one {right}") from None
        if url.userinfo or url.query or url.fragment:
            raise InputError(f"address must have no user, password, query or fragment, {right}: a key is given by key or headers")
        if url.scheme not in ("http", "https") or not url.host:
            raise InputError(f"address = {given!r} must begin with http:// or https:// and a host, {right}")
        return given.rstrip("/").removesuffix("/chat/completions").removesuffix("/completions")

    def _authorize(self, request: Any) -> Any:
        request.headers.update(self._secrets.headers())
        return request

    def post(self, body: dict[str, Any], stop: Event) -> dict[str, Any] | Unread:
        """Return the server's answer, with at least one entry in ``choices``, or why this question has none.

        Parameters
        ----------
        body : dict
            The request.
        stop : threading.Event
            Set: waiting ends, and nothing is tried again. A server that is down sets it.

        Raises
        ------
        OracleError
            If the server refuses for good, or is down after the retries; `failure` is its class.
        """
        if stop.is_set():
            return Unread("was not asked", own=False)
        retrying = self._tenacity.Retrying(
            retry=self._tenacity.retry_if_exception_type(_Passing),
            wait=self._wait,
            stop=self._tenacity.stop_after_attempt(self._retries + 1) | self._tenacity.stop_when_event_set(stop),
            sleep=self._tenacity.sleep_using_event(stop),
            before_sleep=self._count,
            reraise=True,
        )
        try:
            return retrying(self._once, body)
        except _Passing as trouble:
            times = retrying.statistics.get("attempt_number", 1)
            words = self.said(f"{trouble.words}; asked {'once' if times == 1 else f'{times} times'}")
            if not trouble.readable or stop.is_set():
                return Unread(words, own=False)
            stop.set()
            raise self.failure(words) from None

    def said(self, words: str) -> str:
        """Return what happened as a sentence that names the server."""
        return self._secrets.hide(f"the {self.who} at {self.address} {words}")

    def _count(self, state: Any) -> None:
        with self._lock:
            self.retried += 1

    def _wait(self, state: Any) -> float:
        """Return seconds to wait: what the server asks for, else a random share of a time that doubles."""
        wait = state.outcome.exception().wait
        with self._lock:
            share = self._random.random()
        if wait is not None:
            return float(wait) + share * self._backoff
        return float(share * min(self._longest_wait, self._backoff * 2.0 ** min(state.attempt_number, 64)))

    def _once(self, body: dict[str, Any]) -> dict[str, Any] | Unread:
        http = self._http
        try:
            with self._client.stream("POST", self._url, json=body) as response:
                content = self._read(response)
        except http.TimeoutException:
            raise _Passing(f"does not answer within {self._timeout:g} s") from None
        except http.ConnectError as error:
            raise _Passing(f"cannot be reached: {error}") from None
        except (http.TransportError, http.DecodingError) as error:
            raise _Passing(f"breaks off: {error or type(error).__name__}") from None
        if response.is_success:
            return self._answer(content)
        return self._refused(response, content)

    def _read(self, response: Any) -> bytes:
        """Return the body; a timeout of the library alone begins anew with every byte."""
        until, content = time.monotonic() + self._timeout, b""
        for part in response.iter_bytes():
            content += part
            if len(content) > self.most_bytes:
                raise _Passing(f"answers with more than {self.most_bytes // 2**20} MiB", readable=False)
            if time.monotonic() > until:
                raise _Passing(f"does not end its answer within {self._timeout:g} s")
        return content

    def shown(self, message: str) -> str:
        """Return what the server says as one short line; hidden first, as half a key is not found any more."""
        return shorten(self._secrets.hide(message))

    def _answer(self, content: bytes) -> dict[str, Any]:
        try:
            found = json.loads(content)
        except ValueError:
            words = "answers with what is no JSON: is this the address of an OpenAI-compatible server?"
            raise _Passing(words, readable=False) from None
        if isinstance(found, dict) and isinstance(found.get("choices"), list) and found["choices"]:
            return found
        message = f": {self.shown(_message(content)[0])}" if isinstance(found, dict) and "error" in found else ""
        raise _Passing(f"answers without choices{message}", readable=False)

    def _refused(self, response: Any, content: bytes) -> Unread:
        status = response.status_code
        message, code = _message(content)
        shown = self.shown(message)
        words = f"answers {status}" + (f": {shown}" if shown else "")
        if status in _PASSING or status >= 500:
            wait = _retry_after(response.headers)
            if wait is not None and wait > self._longest_wait:
                limit = f"longest_wait = {self._longest_wait:g}"
                raise self.failure(self.said(f"{words}; it asks to wait {wait:.0f} s, more than {limit}"))
            raise _Passing(words, wait)
        if status in (400, 413, 422) and (code in _UNANSWERED or any(one in message.lower() for one in _TOO_LONG)):
            return Unread(self.said(words), own=True)
        advice = self._advice() if status == 404 else ""
        raise self.failure(self.said(f"{words} (not tried again, as this is no passing trouble{advice})"))

    def _advice(self) -> str:
        """Return what to say where the server does not know the path."""
        return "" if self.address.endswith("/v1") else "; most such addresses end in /v1"


def shorten(text: str) -> str:
    """Return a text on one short line, without what a terminal would obey."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= _MOST_LETTERS else line[: _MOST_LETTERS - 1] + "…"


def _message(content: bytes) -> tuple[str, str]:
    """Return what a server says of an error, and its code."""
    try:
        found: Any = json.loads(content)
    except ValueError:
        return content.decode("utf-8", "replace"), ""
    inner = found.get("error", found) if isinstance(found, dict) else found
    if not isinstance(inner, dict):
        return str(inner), ""
    return str(inner.get("message") or inner.get("detail") or inner.get("msg") or inner), str(inner.get("code") or "")


def _retry_after(headers: Any) -> float | None:
    """Return the seconds that a server asks to wait: a number, or until a date."""
    given = headers.get("retry-after", "").strip()
    if not given:
        return None
    try:
        seconds = float(given)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(given).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if seconds < float("inf") else None
