"""How the text of a variable becomes a value: each parser raises ValueError with what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

__all__ = [
    "Secret",
    "bind",
    "choice",
    "nats_servers",
    "numbers_by_name",
    "optional_whole",
    "seconds",
    "secret",
    "subjects",
    "text",
    "url",
    "urls",
    "whole",
]


class Secret(str):
    """A string whose repr hides it; use `reveal()` where it is sent."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('***')" if self else "Secret('')"

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return repr(self)

    def reveal(self) -> str:
        return str.__str__(self)


def text(given: str) -> str:
    return given.strip()


def secret(text: str) -> Secret:
    return Secret(text.strip())


def subjects(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def whole(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    allowed = f"a whole number from {minimum}" + (f" to {maximum}" if maximum is not None else "")

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(allowed) from None
        if value < minimum or (maximum is not None and value > maximum):
            raise ValueError(allowed)
        return value

    return parse


def optional_whole(minimum: int, maximum: int) -> Callable[[str], int | None]:
    parse = whole(minimum, maximum)
    return lambda text: parse(text) if text.strip() else None


def numbers_by_name(minimum: int) -> Callable[[str], Mapping[str, int]]:
    """`postgres=4,container=2` -> {"postgres": 4, "container": 2}."""
    allowed = f"NAME=NUMBER pairs, comma-separated, numbers from {minimum}: postgres=4,container=2"

    def parse(text: str) -> Mapping[str, int]:
        numbers: dict[str, int] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, number = (piece.strip() for piece in part.partition("="))
            if not name or not number.isdigit() or int(number) < minimum or name in numbers:
                raise ValueError(allowed)
            numbers[name] = int(number)
        return numbers

    return parse


def seconds(minimum: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"seconds, a number from {minimum:g}") from None
        if not minimum <= value < 1e9:
            raise ValueError(f"seconds, a number from {minimum:g}")
        return value

    return parse


def choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.strip().lower() not in allowed:
            raise ValueError("one of " + ", ".join(allowed))
        return text.strip().lower()

    return parse


def url(*schemes: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        parts = urlsplit(text.strip())
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(f"a URL that starts with {' or '.join(s + '://' for s in schemes)}")
        return text.strip().rstrip("/")

    return parse


def urls(text: str) -> tuple[str, ...]:
    parse = url("http", "https")
    return tuple(parse(part) for part in text.split(",") if part.strip())


def bind(text: str) -> str:
    if not text.strip():
        return ""
    host, colon, port = text.strip().rpartition(":")
    if not colon or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError("HOST:PORT, for example 0.0.0.0:9090, or empty to switch the endpoint off")
    return f"{host or '0.0.0.0'}:{port}"


def nats_servers(text: str) -> Secret:
    """Comma-separated server URLs; a Secret, since user-info in a URL is a password."""
    servers = [part.strip() for part in text.split(",") if part.strip()]
    parse = url("nats", "tls", "ws", "wss")
    for server in servers:
        parse(server)
    if not servers:
        raise ValueError("at least one URL that starts with nats://, tls://, ws:// or wss://")
    return Secret(",".join(servers))
