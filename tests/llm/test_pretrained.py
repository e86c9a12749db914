"""Models and tokenizers from folders and from the hub: a small part of it on this machine, none that is far away.

Truth: the weights that were saved.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import transformers
from huggingface_hub import constants, file_download
from small import qwen2
from training import same

from nlhfsim.errors import DataError
from nlhfsim.llm.model import ensure_model, ensure_tokenizer
from nlhfsim.llm.oracles import JudgeOracle


@contextmanager
def hub(folder: Path) -> Iterator[str]:
    """The part of the hub that files are loaded from, on this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            owner, name, _, _, file = self.path.strip("/").split("/", 4)
            path = folder / owner / name / file
            there = path.is_file()
            self.send_response(200 if there else 404)
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("X-Error-Code", "" if there else "EntryNotFound" if path.parent.is_dir() else "RepoNotFound")
            self.send_header("ETag", f'"{file}"')
            self.send_header("Content-Length", str(path.stat().st_size if there else 0))
            self.end_headers()
            if there and self.command == "GET":
                self.wfile.write(path.read_bytes())

        do_GET = do_HEAD

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def use(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path) -> None:
    """Take another hub and another cache; older libraries have them in several places."""
    for module in (constants, file_download):
        monkeypatch.setattr(
            module, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}", raising=False
        )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(transformers.utils.hub, "TRANSFORMERS_CACHE", str(cache), raising=False)


def test_a_folder_with_a_model_alone_has_no_tokenizer(tmp_path: Path) -> None:
    """For some kinds of model transformers makes up one, without a vocabulary."""
    qwen2().save_pretrained(tmp_path)
    for load in (ensure_tokenizer, lambda path: JudgeOracle(path, device="cpu")):
        with pytest.raises(DataError, match=r"tokenizer .*cannot be loaded: none of tokenizer_config.json"):
            load(tmp_path)


@pytest.mark.parametrize("load", [ensure_model, ensure_tokenizer])
def test_a_hub_that_does_not_answer_is_not_waited_for(load: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Transformers asks for 23 seconds a file."""
    use(monkeypatch, "http://127.0.0.1:9", tmp_path)
    began = time.monotonic()
    with pytest.raises(DataError, match="'owner/absent' cannot be loaded: there is no such folder, and the hub does not answer"):
        load("owner/absent")
    assert time.monotonic() - began < 8
    for name in ("", "./absent", "a/b/c", "C:\\models", "two words"):
        with pytest.raises(
            DataError, match="cannot be loaded: there is no such folder, and at the hub names are like 'owner/name'"
        ):
            load(name)


def test_what_the_hub_says_of_its_attempts_is_kept_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Our sentence says it once; afterwards the library may speak again."""
    use(monkeypatch, "http://127.0.0.1:9", tmp_path)
    said: list[str] = []
    listener, logger = logging.Handler(), logging.getLogger("huggingface_hub")
    monkeypatch.setattr(listener, "emit", lambda record: said.append(record.getMessage()))
    logger.addHandler(listener)
    level = logger.level
    try:
        with pytest.raises(DataError, match="the hub does not answer"):
            ensure_model("owner/absent")
        assert said == [] and logger.level == level
        logger.warning("heard")
        assert said == ["heard"]
    finally:
        logger.removeHandler(listener)


def test_models_are_loaded_from_a_hub_that_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A small one of our own; and again from the cache when it is gone."""
    model = qwen2()
    model.save_pretrained(tmp_path / "there" / "owner" / "name")
    with hub(tmp_path / "there") as address:
        use(monkeypatch, address, tmp_path / "cache")
        found = ensure_model("owner/name")
        with pytest.raises(DataError, match="'owner/absent' cannot be loaded: (?!there is no such folder)"):
            ensure_model("owner/absent")
    again = ensure_model("owner/name")
    for one in (found, again):
        assert same(dict(one.named_parameters()), dict(model.named_parameters()))
