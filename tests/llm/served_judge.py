"""A small local server with OpenAI's interface, whose behaviour is scripted."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], str | bytes]
"""Status, headers and body."""
Behaviour = Callable[[dict[str, Any]], Reply]
"""From the decoded request to the reply; it may take its time."""


def chat(text: str = "A", top: dict[str, float] | None = None) -> Reply:
    """An answer of a chat, with log-probabilities if there are any."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "length"}
    if top is not None:
        listed = [{"token": token, "logprob": log, "bytes": list(token.encode())} for token, log in top.items()]
        choice["logprobs"] = {"content": [listed[0] | {"top_logprobs": listed}], "refusal": None}
    return 200, {}, json.dumps({"id": "1", "object": "chat.completion", "choices": [choice]})


def completion(text: str, top: dict[str, float] | None = None) -> Reply:
    """An answer of the older interface."""
    listed = None if top is None else {"tokens": [text], "token_logprobs": [0.0], "top_logprobs": [top], "text_offset": [0]}
    return 200, {}, json.dumps({"choices": [{"index": 0, "text": text, "logprobs": listed, "finish_reason": "length"}]})


def error(status: int, message: str, code: str | None = None, **headers: str) -> Reply:
    """A refusal, with headers such as ``retry_after="0"``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, named, json.dumps({"error": {"message": message, "type": "error", "code": code}})


class Judge:
    """A server in a thread.

    Attributes
    ----------
    seen : list
        Requests, decoded, in the order they came.
    headers, paths : list
        Theirs.
    most_at_once : int
        The most requests that were being answered at a time.
    connections : set
        Where they came from.
    """

    def __init__(self, behaviour: Behaviour, port: int = 0) -> None:
        self.behaviour = behaviour
        self.seen: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.times: list[float] = []
        self.connections: set[Any] = set()
        self.most_at_once = self._now = 0
        self._lock = threading.Lock()
        judge = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 5
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                judge.answer(self)

            def log_message(self, *arguments: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *arguments: Any) -> None:
                """Clients that gave up are part of the tests."""

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.address = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        with self._lock:
            self.seen.append(body)
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            self.paths.append(handler.path)
            self.times.append(time.monotonic())
            self.connections.add(handler.client_address)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            status, headers, content = self.behaviour(body)
        finally:
            with self._lock:
                self._now -= 1
        data = content.encode() if isinstance(content, str) else content
        handler.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(data))} | headers).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@contextmanager
def serving(behaviour: Behaviour, port: int = 0) -> Iterator[Judge]:
    """A judge for a while."""
    judge = Judge(behaviour, port)
    try:
        yield judge
    finally:
        judge.close()


def in_turn(*replies: Reply) -> Behaviour:
    """Replies one after another, the last for ever."""
    left = list(replies)
    lock = threading.Lock()

    def behaviour(body: dict[str, Any]) -> Reply:
        with lock:
            return left.pop(0) if len(left) > 1 else left[0]

    return behaviour
