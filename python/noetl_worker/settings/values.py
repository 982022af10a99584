"""The parsers of settings. A parser returns the value of a text, or raises ValueError with the allowed values."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

NumberT = TypeVar("NumberT", int, float)
ValueT = TypeVar("ValueT")
EmptyT = TypeVar("EmptyT")

_WELL_FORMED: Final = (
    "a URL whose port is a number, and whose password has /, ?, #, [ and ] percent-encoded (%2F, %3F, %23, %5B, %5D)"
)


class Secret(str):
    """A text that prints as `***`, so that output and logs do not show it. `reveal()` returns the real text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('***')" if self else "Secret('')"

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return repr(self)

    def reveal(self) -> str:
        return str.__str__(self)


class TlsPaths(NamedTuple):
    """Paths of the PEM files of one connection; "" for a file that is not set."""

    ca: str
    cert: str
    key: str


def text(given: str) -> str:
    return given.strip()


def file(text: str) -> str:
    """Parse the path of an existing file; "" is allowed."""
    path = text.strip()
    # before Python 3.14, Path.is_file and is_dir raise for a path in a directory that this user may not search
    if path and not os.path.isfile(path):  # noqa: PTH113
        raise ValueError("the path of a file that can be read")
    return path


def directory(text: str) -> str:
    """Parse the path of an existing directory; "" is allowed."""
    path = text.strip()
    if path and not os.path.isdir(path):  # noqa: PTH112
        raise ValueError("the path of a directory")
    return path


def secret(text: str) -> Secret:
    return Secret(text.strip())


def texts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(str.lower, texts(text))))


def pool_segments(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of pool names. A pool name is one token of a NATS subject, spelled as on the
    plane."""
    found = tuple(dict.fromkeys(texts(text)))
    if any(re.search(r"[\s.*>]", pool) for pool in found):
        raise ValueError("names of pools, comma-separated, without blanks, dots and wildcards: shared,python")
    return found


def _number(read: Callable[[str], NumberT], allowed: str, minimum: float, maximum: float) -> Callable[[str], NumberT]:
    def parse(text: str) -> NumberT:
        try:
            value = read(text)
        except ValueError:
            raise ValueError(allowed) from None
        if not minimum <= value <= maximum:
            raise ValueError(allowed)
        return value

    return parse


def integer(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    allowed = f"a whole number from {minimum}" + (f" to {maximum}" if maximum is not None else "")
    return _number(int, allowed, minimum, math.inf if maximum is None else maximum)


def seconds(minimum: float) -> Callable[[str], float]:
    return _number(float, f"seconds, a number from {minimum:g}", minimum, 1e9)


def optional(parse: Callable[[str], ValueT], empty: EmptyT) -> Callable[[str], ValueT | EmptyT]:
    """Return a parser that returns `empty` for an empty text, and `parse(text)` for any other text."""
    return lambda text: parse(text) if text.strip() else empty


share: Final = _number(float, "a number from 0 to 1, for example 0.5", 0, 1)


def processes(text: str) -> int:
    """Parse a number of processes. `auto` means the number of CPUs that this process may use."""
    if text.strip().lower() != "auto":
        return integer(1, 256)(text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def numbers_by_name(text: str) -> Mapping[str, int]:
    """Parse `postgres=4,container=2` as {"postgres": 4, "container": 2}."""
    numbers: dict[str, int] = {}
    for part in texts(text):
        name, _, number = (piece.strip() for piece in part.partition("="))
        if not name or not number.isdecimal() or int(number) < 1 or name in numbers:
            raise ValueError("NAME=NUMBER pairs, comma-separated, numbers from 1: postgres=4,container=2")
        numbers[name] = int(number)
    return numbers


def choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.strip().lower() not in allowed:
            raise ValueError("one of " + ", ".join(allowed))
        return text.strip().lower()

    return parse


def boolean(text: str) -> bool:
    return choice("true", "false")(text) == "true"


def strip_login(address: str) -> str:
    """Return an address with *** in place of user and password. The last `@` ends the password, which may contain
    `@`."""
    *schemes, rest = address.split("://", 1)
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    has_login = ":" in authority or (schemes and "@" in authority)
    return "://".join([*schemes, f"***@{rest.rpartition('@')[2]}"]) if has_login and "@" in rest else address


def url(*schemes: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        try:
            parts = urlsplit(text.strip())
            _ = parts.port
        except ValueError:  # not chained: its text quotes what may be a password
            raise ValueError(_WELL_FORMED) from None
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(f"a URL that starts with {' or '.join(s + '://' for s in schemes)}")
        return text.strip().rstrip("/")

    return parse


def duckdb_memory(text: str) -> str:
    if text.strip() and not re.fullmatch(r"\d+(\.\d+)?\s*([kmgt]i?b|b|%)", text.strip(), re.IGNORECASE):
        raise ValueError("a size as DuckDB reads it: 2GB, 512MiB, 50%")
    return text.strip()


def urls(text: str) -> tuple[str, ...]:
    return tuple(map(url("http", "https"), texts(text)))


def bind(text: str) -> str:
    if not text.strip():
        return ""
    host, colon, port = text.strip().rpartition(":")
    if not colon or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ValueError("HOST:PORT, for example 0.0.0.0:9090, or empty to switch the endpoint off")
    return f"{host or '0.0.0.0'}:{port}"


def nats_servers(text: str) -> Secret:
    """Parse URLs of servers, comma-separated. The result is a Secret, since a URL may contain a password."""
    servers = texts(text)
    parse = url("nats", "tls", "ws", "wss")
    for server in servers:
        parse(server)
        if "@" in "".join(urlsplit(server)[2:]):  # an unencoded / ? or # in a password ended the login
            raise ValueError(_WELL_FORMED)
    if not servers:
        raise ValueError("at least one URL that starts with nats://, tls://, ws:// or wss://")
    return Secret(",".join(servers))
