"""The README's Python examples run and print what it says; its commands exist."""

from __future__ import annotations

import configparser
import doctest
import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parent.parent / "README.md"


def test_the_examples_print_what_the_readme_says() -> None:
    """Every ``>>>`` of the README, in order."""
    failures, tried = doctest.testfile(str(README), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert tried > 10 and failures == 0


def test_every_extra_is_named() -> None:
    """In the paragraph on installing, each once; the words there are those of setup.cfg."""
    settings = configparser.ConfigParser()
    settings.read(README.parent / "setup.cfg", encoding="utf-8")
    [paragraph] = re.findall(r"^Each makes the environment.*?\n\n", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    named = re.findall(r"`(\w+)`", paragraph.partition("Extras: ")[2])
    assert sorted(named) == sorted(settings["options.extras_require"])


@pytest.mark.parametrize("line", re.findall(r"^nlhfsim (.+)$", README.read_text(encoding="utf-8"), flags=re.MULTILINE))
def test_the_commands_name_things_that_exist(line: str) -> None:
    """Every command line of the README parses: known command, options, games, methods."""
    from nlhfsim import datasets, dynamics, games
    from nlhfsim.cli.commands import group

    words = line.partition("#")[0].split()
    command: Any = group.commands[words[0]]
    if words[0] == "llm":
        command = command.commands[words[1]]
    options = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options
    if words[0] in ("solve", "run", "compare"):
        assert words[1] in {*games.NAMED, *datasets.DATASETS} or words[1].endswith(".csv")
    if "--dynamics" in words:
        assert {*words[words.index("--dynamics") + 1].split(",")} <= {*dynamics.names(), *dynamics.aliases(), "all"}
