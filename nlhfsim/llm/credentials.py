"""Keys of services: taken from the environment when a request is sent, and kept nowhere else."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from nlhfsim.errors import InputError

DEFAULT_KEY = "OPENAI_API_KEY"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET = re.compile(r"api.?key|secret|passw|authori[sz]ation|cookie|credential|bearer|(auth|access).?token", re.IGNORECASE)
"""Names of fields that hold what nobody else must know."""
_SECRET_HEADER = re.compile(f"{_SECRET.pattern}|auth|key|token|session", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"\s*(bearer\s|basic\s|sk-)", re.IGNORECASE)


class Secrets:
    """The key of a service and its headers: what is secret is known by the name of an environment variable alone.

    Messages here never show a value that was given, as it may be the key.

    Parameters
    ----------
    key : str or None
        Name of the variable; None: `default`, if there is one.
    headers : mapping
        Further headers, or their variables as ``"$NAME"``.
    default : str or None
        The variable that is taken without a key, if there is one of that name; None: no key is sent then.

    Raises
    ------
    InputError
        If a variable is not there or holds no key, or a secret is written where its variable's name belongs.
    """

    def __init__(self, key: str | None, headers: Mapping[str, str], default: str | None = DEFAULT_KEY) -> None:
        self._headers = {name: ensure_header(name, value) for name, value in headers.items()}
        self._key = ensure_name("key", key) if key is not None else default if default and os.environ.get(default) else None
        self._variables = {value[1:] for value in self._headers.values() if value.startswith("$")}
        self._variables |= {self._key} if self._key else set()
        for name in sorted(self._variables):
            _value(name)

    def headers(self) -> dict[str, str]:
        """Return the headers as they are now, secrets included."""
        found = {name: _value(value[1:]) if value.startswith("$") else value for name, value in self._headers.items()}
        return found | ({"Authorization": f"Bearer {_value(self._key)}"} if self._key else {})

    def hide(self, text: str) -> str:
        """Return a text without the secrets: a server may send back what it was sent."""
        for value in sorted(filter(None, map(os.environ.get, self._variables)), key=len, reverse=True):
            text = text.replace(value, "…")
        return text


def _value(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        # A key that was taken for a name must not be shown: keys have digits or small letters, and no underscores between words.
        shown = name if re.fullmatch(r"[A-Z]+(_[A-Z]+)+", name) else "of the name that was given"
        raise InputError(f"key: there is no environment variable {shown}, which must hold the key")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise InputError(f"key: the environment variable {name!r} holds no key, must be printable without spaces or line ends")
    return value


def ensure_name(name: str, value: Any) -> str:
    """Return `value` if it can be the name of an environment variable."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InputError(
            f"{name} must be the name of an environment variable with the key, such as {DEFAULT_KEY!r}, never the key itself"
        )
    return value


def ensure_header(name: Any, value: Any) -> str:
    """Return the value of a header if it is a plain text that is no secret, or ``"$NAME"``."""
    if not isinstance(name, str) or not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9-]+", name):
        raise InputError("headers must map names of headers, such as 'X-Team', to texts")
    if value.startswith("$"):
        return f"${ensure_name(f'headers[{name!r}] after the $', value[1:])}"
    if _SECRET_HEADER.search(name) or _SECRET_VALUE.match(value):
        raise InputError(f"headers[{name!r}] may hold a secret: write '$NAME' with the name of the environment variable it is in")
    if not value.isascii() or not value.isprintable():
        raise InputError(f"headers[{name!r}] must be printable ASCII")
    return value


def ensure_no_secret(name: str, value: Any) -> None:
    """Refuse fields, at whatever depth, whose names say that they hold a secret."""
    for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ():
        if isinstance(key, str) and _SECRET.search(key):
            raise InputError(f"{name}[{key!r}] may hold a secret, which would be written to files: give it by key or headers")
        ensure_no_secret(f"{name}[{key!r}]", inner)


def checked(check: Callable[[str, Any], Any], name: str, values: Any) -> dict[str, Any]:
    """Return `values` if it is a table with texts as names, each entry as `check` returns it."""
    if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
        raise InputError(f"{name} must be a table of names and values")
    return {key: check(key, value) for key, value in values.items()}
