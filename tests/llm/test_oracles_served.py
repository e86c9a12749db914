"""A judge behind an address: what its answers mean, what happens when it stumbles, and that its key stays where it is."""

from __future__ import annotations

import email.utils
import json
import logging
import math
import signal
import socket
import threading
import time
from typing import Any

import numpy as np
import pytest
from served_judge import Reply, chat, completion, error, in_turn, serving

from nlhfsim.errors import InputError, MissingExtraError, OracleError
from nlhfsim.llm.oracles import Batched, BothOrders, Message, Prompt, Response, ServedJudgeOracle, ask

KEY = "sk-a-Secret-0123456789"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key and no proxy of whoever runs the tests."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def oracle(address: str, **options: Any) -> ServedJudgeOracle:
    return ServedJudgeOracle(address, "judge", **{"backoff": 0.01, "retries": 2, "timeout": 2.0} | options)


def one(judge: Any, left: str = "yes", right: str = "no") -> tuple[float, bool]:
    probabilities, valid = ask(judge, [Prompt("Why?", ())], [Response(left, ())], [Response(right, ())])
    return float(probabilities[0]), bool(valid[0])


def many(judge: Any, count: int) -> Any:
    return ask(judge, [Prompt("Why?", ())] * count, [Response(str(k), ()) for k in range(count)], [Response("no", ())] * count)


def log(*shares: float) -> list[float]:
    return [math.log(share) for share in shares]


half, tenth, fifth = log(0.5, 0.1, 0.2)
ANSWERS: list[tuple[Reply, float | None]] = [
    (chat("A", {"A": half, "B": tenth}), 5 / 6),
    (chat("A", {"A": half, " A": tenth, "B": fifth, "C": tenth}), 3 / 4),
    (chat("B", {"▁B": half, "ĠA": tenth}), 1 / 6),
    (chat("B", {"B": 0.0, "A": -9999.0}), 0.0),
    # An answer that is not listed has at most 0.001, so the other is right with 500/501 to 1.
    (chat("A", {"A": half, "C": math.log(0.001)}), (1 + 500 / 501) / 2),
    (chat("B", {"B": half, "C": math.log(0.001)}), (1 - 500 / 501) / 2),
    # At most as likely as the tenth that is listed: 5/6 to 1 is not known well enough.
    (chat("A", {"A": half, "C": tenth}), None),
    (chat("C", {"C": half, "D": tenth}), None),
    (chat("tie", {"tie": half, "D": tenth}), 0.5),
    (chat("A", {"A": math.nan, "B": tenth}), 1.0),
    (chat("A"), 1.0),
    (chat(" b.\n\nBecause it is shorter."), 0.0),
    (chat("**Tie**"), 0.5),
    (chat("A better one is B"), None),
    (chat(""), None),
    ((200, {}, json.dumps({"choices": [{"message": {"content": None, "refusal": "No."}}]})), None),
    ((200, {}, json.dumps({"choices": [7]})), None),
    ((200, {}, json.dumps({"choices": [{"message": {"content": "B"}, "logprobs": {"content": []}}]})), 0.0),
]


@pytest.mark.parametrize("reply, expected", ANSWERS)
def test_answers_are_read(reply: Reply, expected: float | None) -> None:
    with serving(lambda body: reply) as judge:
        asked = oracle(judge.address)
        probability, valid = one(asked)
    assert valid == (expected is not None) and (asked.asked, asked.invalid) == (1, expected is None)
    assert expected is None or probability == pytest.approx(expected, abs=1e-12)


def test_a_chat_is_asked_for_one_token_with_log_probabilities() -> None:
    with serving(lambda body: chat("A")) as judge:
        one(oracle(judge.address + "/", template="{prompt} {left} or {right}?", extra={"seed": 1, "temperature": None}))
        one(oracle(judge.address + "/chat/completions", logprobs=False, max_tokens=3), "{left} \ud83d", "né")
    assert judge.paths == ["/v1/chat/completions"] * 2
    first, second = judge.seen
    asked = {"role": "user", "content": "Why? yes or no?"}
    assert first == {"model": "judge", "max_tokens": 1, "logprobs": True, "top_logprobs": 20, "messages": [asked], "seed": 1}
    assert {*second} == {"model", "max_tokens", "temperature", "messages"} and second["max_tokens"] == 3
    assert "[Response A]\n{left} ?" in second["messages"][0]["content"] and "\nné\n" in second["messages"][0]["content"]


def test_a_conversation_is_shown_turn_by_turn() -> None:
    talk = Prompt("as one text", (), 0, (Message("system", "Be brief."), Message("user", "Why?")))
    with serving(lambda body: chat("A")) as judge:
        ask(oracle(judge.address, template="{prompt} {left} {right}"), [talk], [Response("a", ())], [Response("b", ())])
    assert judge.seen[0]["messages"] == [{"role": "user", "content": "[System]\nBe brief.\n\n[User]\nWhy? a b"}]


def test_a_model_without_chat_completes() -> None:
    with serving(in_turn(completion(" A", {" A": half, " B": tenth}), completion(" B"))) as judge:
        asked = oracle(judge.address, mode="completions", answers=(" A", " B"))
        assert one(asked)[0] == pytest.approx(5 / 6) and one(asked) == (0.0, True)
    assert judge.paths == ["/v1/completions"] * 2
    assert judge.seen[0]["logprobs"] == 5 and judge.seen[0]["prompt"].endswith("alone.\n\nBetter response:")


def by_number(body: dict[str, Any]) -> Reply:
    """Prefers the left one by a tenth of its number, and is done with small numbers last."""
    number = int(body["messages"][0]["content"].split()[0])
    time.sleep(0.002 * (12 - number))
    return chat("A", {"A": math.log(0.1 * number + 0.01), "B": math.log(0.99 - 0.1 * number)})


def test_verdicts_keep_their_order_and_equal_questions_are_asked_once() -> None:
    order = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]
    with serving(by_number) as judge:
        asked = oracle(judge.address, template="{left} {prompt} {right}", concurrency=4)
        found = ask(asked, [Prompt("", ())] * 12, [Response(str(k), ()) for k in order], [Response("", ())] * 12)
    assert found.probabilities == pytest.approx([0.1 * k + 0.01 for k in order]) and found.valid.all()
    assert len(judge.seen) == len({*order}) == asked.asked


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_requests_at_a_time_than_allowed_and_connections_are_kept(limit: int) -> None:
    def slow(body: dict[str, Any]) -> Reply:
        time.sleep(0.02)
        return chat("A")

    with serving(slow) as judge:
        asked = oracle(judge.address, concurrency=limit)
        many(asked, 9)
        # Batches in threads of their own share the limit.
        many(Batched(asked, batch_size=3, workers=3), 9)
        assert judge.most_at_once == limit
        assert len(judge.connections) <= limit and len(judge.seen) == 18


def test_both_orders_are_asked() -> None:
    with serving(lambda body: chat("A", {"A": half, "B": tenth})) as judge:
        assert one(BothOrders(oracle(judge.address))) == (pytest.approx(0.5), True)
        assert len(judge.seen) == 2


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503])
def test_passing_trouble_passes(status: int) -> None:
    with serving(in_turn(error(status, "busy"), error(status, "busy"), chat("B"))) as judge:
        asked = oracle(judge.address)
        assert one(asked) == (0.0, True)
        assert (asked.retried, asked.asked, len(judge.seen)) == (2, 1, 3)


def test_backoff_doubles() -> None:
    with serving(in_turn(*[error(500, "busy")] * 3, chat("A"))) as judge:
        asked = oracle(judge.address, retries=3, backoff=0.01)
        asked._endpoint._random.random = lambda: 1.0  # type: ignore[method-assign]
        one(asked)
    waited = np.diff(judge.times)
    assert (waited >= [0.02, 0.04, 0.08]).all() and waited[0] < 0.04


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_the_server_says_when_to_come_again(form: str) -> None:
    """A date has whole seconds: one that is over asks for nothing."""
    when = "0.15" if form == "seconds" else email.utils.formatdate(time.time() - 1, usegmt=True)
    with serving(in_turn(error(429, "slow down", retry_after=when), chat("A"))) as judge:
        assert one(oracle(judge.address, backoff=0.0)) == (1.0, True)
    assert judge.times[1] - judge.times[0] >= (0.15 if form == "seconds" else 0)


def test_a_server_that_asks_for_an_hour_is_down() -> None:
    with serving(lambda body: error(429, "come tomorrow", retry_after="3600")) as judge:
        with pytest.raises(OracleError, match=r"answers 429: come tomorrow; it asks to wait 3600 s, more than longest_wait = 60"):
            one(oracle(judge.address))
        assert len(judge.seen) == 1
        later = email.utils.formatdate(time.time() + 7200, usegmt=True)
        judge.behaviour = lambda body: error(503, "", retry_after=later)
        with pytest.raises(OracleError, match=r"it asks to wait 7\d\d\d s"):
            one(oracle(judge.address))


def test_a_server_that_stays_down_is_one_sentence() -> None:
    with serving(lambda body: error(500, "the engine\n\x1b[31mis dead" + "!" * 1000)) as judge:
        with pytest.raises(OracleError) as failed:
            many(oracle(judge.address, concurrency=2), 20)
        said = str(failed.value)
        assert said.startswith(f"the judge at {judge.address} answers 500: the engine [31mis dead!!!") and "\x1b" not in said
        assert said.endswith("…; asked 3 times") and len(said) < 450
        assert len(judge.seen) <= 6, "the other questions are not tried any more"


@pytest.mark.parametrize(
    "status, message", [(400, "no such field"), (401, "wrong key"), (403, "no"), (404, "no model"), (302, "")]
)
def test_mistakes_are_told_at_once(status: int, message: str) -> None:
    with serving(lambda body: error(status, message)) as judge:
        with pytest.raises(OracleError, match=f"the judge at {judge.address} answers {status}: {message}.*not tried again"):
            one(oracle(judge.address))
        assert len(judge.seen) == 1
        if status == 404:
            with pytest.raises(OracleError, match="most such addresses end in /v1"):
                one(oracle(judge.address.removesuffix("/v1")))


TOO_LONG = "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens."


@pytest.mark.parametrize(
    "reply", [error(400, TOO_LONG), error(400, "", "context_length_exceeded"), error(400, "", "content_filter")]
)
def test_a_question_that_the_judge_cannot_take_has_no_verdict(reply: Reply) -> None:
    with serving(lambda body: reply if "left 1\n" in body["messages"][0]["content"] else chat("A")) as judge:
        asked = oracle(judge.address, template="{prompt} left {left}\n{right}")
        assert many(asked, 3).valid.tolist() == [True, False, True]
        assert (asked.asked, asked.invalid, asked.retried) == (3, 1, 0)
        assert one(asked, "1") == (0.5, False), "also where no other question is asked"


GARBAGE: list[tuple[Reply, str]] = [
    ((200, {}, '{"choices": [{"mess'), "what is no JSON"),
    ((200, {"Content-Type": "text/html"}, "<html>Log in</html>"), "is this the address of an OpenAI-compatible server"),
    ((200, {}, "[]"), "answers without choices"),
    ((200, {}, b"\xff\xfe"), "what is no JSON"),
    (error(200, "overloaded"), "answers without choices: overloaded"),
]


@pytest.mark.parametrize("reply, words", GARBAGE)
def test_garbage_is_asked_for_again_and_is_no_verdict(reply: Reply, words: str) -> None:
    with serving(in_turn(reply, chat("A"))) as judge:
        assert one(oracle(judge.address)) == (1.0, True)
        judge.behaviour = lambda body: reply if "left 1\n" in body["messages"][0]["content"] else chat("A")
        asked = oracle(judge.address, template="{prompt} left {left}\n{right}")
        assert many(asked, 3).valid.tolist() == [True, False, True] and (asked.invalid, asked.retried) == (1, 2)
        judge.behaviour = lambda body: reply
        with pytest.raises(OracleError, match=words):
            many(asked, 3)


def test_a_server_that_hangs_is_not_waited_for() -> None:
    release = threading.Event()

    def hang(body: dict[str, Any]) -> Reply:
        release.wait(5)
        return chat("A")

    with serving(hang) as judge:
        begin = time.monotonic()
        with pytest.raises(OracleError, match=r"does not answer within 0.1 s; asked 2 times"):
            one(oracle(judge.address, timeout=0.1, retries=1))
        assert time.monotonic() - begin < 1
        release.set()


def test_a_server_that_answers_drop_by_drop_is_not_waited_for() -> None:
    """Every byte comes in time, and the whole would take a minute."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                try:
                    while True:
                        connection.sendall(b" ")
                        time.sleep(0.03)
                except OSError:
                    pass

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        begin = time.monotonic()
        with pytest.raises(OracleError, match="does not end its answer within 0.2 s"):
            one(oracle(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", timeout=0.2, retries=0))
        assert time.monotonic() - begin < 1
        thread.join(5)


def test_a_server_that_is_not_there_is_told_by_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(OracleError, match=rf"^the judge at http://127.0.0.1:{port}/v1 cannot be reached: .*; asked 3 times$"):
        many(oracle(f"http://127.0.0.1:{port}/v1"), 5)


def test_a_connection_that_breaks_is_made_again() -> None:
    with serving(in_turn((200, {"Content-Length": "9999", "Connection": "close"}, "{"), chat("B"))) as judge:
        assert one(oracle(judge.address)) == (0.0, True)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals are sent in another way")
def test_an_interruption_ends_the_waiting_for_retries() -> None:
    """And then the oracle can be asked again."""
    main = threading.main_thread().ident
    assert main is not None

    def interrupts(body: dict[str, Any]) -> Reply:
        signal.pthread_kill(main, signal.SIGINT)
        return error(503, "later", retry_after="8")

    with serving(interrupts) as judge:
        asked = oracle(judge.address)
        begin = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            one(asked)
        assert time.monotonic() - begin < 4
        judge.behaviour = lambda body: chat("A")
        assert one(asked) == (1.0, True)


def test_the_global_generator_of_numbers_is_left_alone() -> None:
    import random

    state = random.getstate()
    with serving(in_turn(error(500, ""), chat("A"))) as judge:
        one(oracle(judge.address))
    assert random.getstate() == state


def test_the_key_is_sent_and_shown_nowhere(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Not where the server sends it back, not in a log, not in what an object holds."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("A_KEY", KEY)
    monkeypatch.setenv("OTHER_SECRET", "Zweiter-9")
    # The second time the key stands where a long message is cut: half of it must not stay.
    told = f"wrong key {KEY} for team blue: " + "x" * 242 + f"{KEY} Zweiter-9"
    assert told.rindex(KEY) < 300 < len(told)
    with serving(in_turn(chat("A"), error(401, told))) as judge:
        asked = oracle(judge.address, key="A_KEY", headers={"X-Team": "blue", "api-key": "$OTHER_SECRET"})
        one(asked)
        sent = judge.headers[0]
        assert (sent["authorization"], sent["x-team"], sent["api-key"]) == (f"Bearer {KEY}", "blue", "Zweiter-9")
        with pytest.raises(OracleError) as failed:
            one(asked)
    client = asked._endpoint._client
    held = [repr(vars(thing)) for thing in (asked, asked._endpoint, asked._endpoint._secrets, client)]
    shown = "\n".join([str(failed.value), repr(failed.value), repr(asked), caplog.text, repr(client.headers), *held])
    assert "wrong key … for team blue" in shown and "HTTP Request" in caplog.text
    for secret in (KEY, KEY[:6], "Zweiter"):
        assert secret not in shown


def test_the_default_key_is_that_of_openai_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda body: chat("A")) as judge:
        one(oracle(judge.address))
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        one(oracle(judge.address))
    assert ["authorization" in headers for headers in judge.headers] == [False, True]


GOOD = "http://127.0.0.1:9/v1"
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"address": 7}, "address is of type int"),
    ({"address": "localhost:8000/v1"}, "address = .* must begin with http"),
    ({"address": "ftp://host/v1"}, "must begin with http"),
    ({"address": f"https://user:{KEY}@host/v1"}, "must have no user, password"),
    ({"address": f"https://host/v1?key={KEY}"}, "must have no user, password, query"),
    ({"model": ""}, "model = '' must be the name"),
    ({"template": "{prompt}"}, "template has no {left}"),
    ({"answers": ("A", " a")}, "must be two different texts"),
    ({"answers": "AB"}, "must be two texts"),
    ({"mode": "chats"}, "did you mean 'chat'"),
    ({"key": KEY}, "key must be the name of an environment variable"),
    ({"key": KEY.replace("-", "_")}, "there is no environment variable of the name that was given"),
    ({"key": "NO_SUCH_KEY"}, "there is no environment variable NO_SUCH_KEY"),
    ({"key": "TWO_LINES"}, "holds no key, must be printable"),
    ({"headers": {"Authorization": f"Bearer {KEY}"}}, r"headers\['Authorization'\] may hold a secret"),
    ({"headers": {"X-Team": f"Bearer {KEY}"}}, r"headers\['X-Team'\] may hold a secret"),
    ({"headers": {"X-Team": "$NO_SUCH_TEAM"}}, "there is no environment variable NO_SUCH_TEAM"),
    ({"headers": {"X-Team": f"${KEY}"}}, "must be the name of an environment variable"),
    ({"headers": {"X Team": "a"}}, "must map names of headers"),
    ({"headers": ["a"]}, "headers must be a table"),
    ({"extra": {"api_key": KEY}}, r"extra\['api_key'\] may hold a secret"),
    ({"extra": {"options": [{"apiKey": KEY}]}}, "may hold a secret"),
    ({"extra": {"seed": math.inf}}, "cannot be written as JSON"),
    ({"concurrency": 0}, "concurrency = 0 must be at least 1"),
    ({"retries": -1}, "retries = -1"),
    ({"timeout": 0}, "timeout = 0 must be positive"),
    ({"backoff": -1}, "backoff = -1 must not be negative"),
]


@pytest.mark.parametrize("options, words", REFUSED, ids=[words for _, words in REFUSED])
def test_bad_input_is_refused_without_showing_a_key(options: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWO_LINES", f"{KEY}\n")
    with pytest.raises(InputError, match=words) as refused:
        ServedJudgeOracle(**{"address": GOOD, "model": "judge"} | options)
    assert KEY not in str(refused.value) and KEY.replace("-", "_") not in str(refused.value)


@pytest.mark.parametrize("library", ["httpx2", "tenacity"])
def test_a_missing_library_is_told(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(MissingExtraError, match=rf"needs {library}: pip install 'nlhfsim\[served\]'"):
        oracle(GOOD)
