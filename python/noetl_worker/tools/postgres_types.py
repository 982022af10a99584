"""How Postgres' values are read where psycopg's own way loses something or fails.

Registered on one connection at a time, never on psycopg itself: other code in the process keeps its own.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["register"]

_SPAN: Final = re.compile(
    r"(?:(?P<Y>-?\d+) years? ?)?(?:(?P<M>-?\d+) mons? ?)?(?:(?P<D>-?\d+) days? ?)?"
    r"(?:(?P<sign>[+-])?(?P<h>\d+):(?P<m>\d\d):(?P<s>\d\d(?:\.\d+)?))?",
)
_MOMENTS: Final = ("date", "time", "timetz", "timestamp", "timestamptz")
_RANGES: Final = ("int4", "int8", "num", "date", "ts", "tstz")


def register(psycopg: Any, connection: Any) -> None:
    """Read dates and times as ISO 8601 text, intervals as ISO 8601 durations, ranges and addresses as the server's.

    What Python cannot hold (`infinity`, 24:00:00, years BC or above 9999) stays the server's text: psycopg would
    fail the whole query for one such value.
    """
    for name, loader in _loaders(psycopg).items():
        connection.adapters.register_loader(name, loader)


@functools.lru_cache(maxsize=4)
def _loaders(psycopg: Any) -> Mapping[str, type]:
    """Type name -> how it is read. psycopg's own readers are compiled and cannot be inherited from: they are asked."""
    adapters, text = psycopg.adapters, psycopg.pq.Format.TEXT

    class Text(psycopg.adapt.Loader):  # type: ignore[misc]
        def load(self, data: Any) -> str:
            return bytes(data).decode()

    class Duration(Text):
        def load(self, data: Any) -> str:
            return _duration(bytes(data).decode())

    def moment(name: str) -> type:
        base = adapters.get_loader(adapters.types[name].oid, text)

        class Moment(Text):
            def __init__(self, oid: int, context: Any = None) -> None:
                super().__init__(oid, context)
                self._base = base(oid, context)

            def load(self, data: Any) -> str:
                try:
                    return str(self._base.load(data).isoformat())
                except (psycopg.Error, ValueError):
                    return super().load(data)

        return Moment

    ranges = [f"{name}{kind}" for name in _RANGES for kind in ("range", "multirange")]
    found: dict[str, type] = dict.fromkeys([*ranges, "inet", "cidr"], Text)
    return {**found, "interval": Duration, **{name: moment(name) for name in _MOMENTS}}


def _duration(text: str) -> str:
    """`1 mon -2 days +03:04:05.5` -> `P1M-2DT3H4M5.5S`; a text in another IntervalStyle stays as it is.

    psycopg would count a month as 30 days and a year as 365.
    """
    match = _SPAN.fullmatch(text)
    if match is None:
        return text
    date = "".join(f"{int(match[unit])}{unit}" for unit in "YMD" if match[unit])
    clock = ""
    if match["h"]:
        sign = "-" if match["sign"] == "-" else ""
        second = match["s"].rstrip("0").rstrip(".") if "." in match["s"] else match["s"]
        second = second.lstrip("0") or "0"
        second = f"0{second}" if second.startswith(".") else second
        amounts = ((str(int(match["h"])), "H"), (str(int(match["m"])), "M"), (second, "S"))
        clock = "".join(f"{sign}{amount}{unit}" for amount, unit in amounts if amount != "0")
    return f"P{date}T{clock}" if clock else f"P{date}" if date else "PT0S"
