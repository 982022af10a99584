"""Loaders for Postgres values that psycopg's own loaders would convert with a loss, or not at all.

These loaders are registered on one connection at a time, never on psycopg itself. Other code in the process uses
psycopg's own loaders.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from noetl_worker.errors import DocumentError
from noetl_worker.process.threads import LARGE, take_turns
from noetl_worker.text.json_text import loads_exact

_SPAN: Final = re.compile(
    r"(?:(?P<Y>-?\d+) years? ?)?(?:(?P<M>-?\d+) mons? ?)?(?:(?P<D>-?\d+) days? ?)?"
    r"(?:(?P<sign>[+-])?(?P<h>\d+):(?P<m>\d\d):(?P<s>\d\d(?:\.\d+)?))?",
)
_MOMENT: Final = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)?(?P<gap> )?(?P<time>\d\d:\d\d:\d\d)(?P<part>\.\d+)?(?P<zone>[+-]\d\d(?::\d\d)*)?"
)
_MOMENTS: Final = ("time", "timetz", "timestamp", "timestamptz")
_TEXTS: Final = ("date", "inet", "cidr")
LONGEST_APART: Final = 1 << 18
"""Maximum bytes of an array or record that is parsed. A longer array or record stays the server's text."""
_SHORT: Final = 1 << 12
_JSON: Final = ("json", "jsonb")
_RANGES: Final = ("int4", "int8", "num", "date", "ts", "tstz")


def register(psycopg: Any, connection: Any) -> None:
    """Register our loaders for Postgres values at a connection. Dates and times become ISO 8601 text, intervals ISO
    8601 durations, ranges and network addresses text.

    Arrays and records up to 256 kB are parsed; longer arrays and records stay text. JSON is parsed if the parsed values
    fit into memory, and else stays text. Values that Python cannot hold (`infinity`, 24:00:00, years BC or above 9999)
    stay the server's text: psycopg would fail the query for one such value. A timestamptz keeps the UTC offset that the
    server wrote.
    """
    for name, loader in _loaders(psycopg).items():
        connection.adapters.register_loader(name, loader)


@functools.lru_cache(maxsize=4)
def _loaders(psycopg: Any) -> Mapping[str | int, type]:
    """Return our loaders by name or OID of the Postgres type."""

    def loader(read: Callable[[str], str]) -> type:
        class Loader(psycopg.adapt.Loader):  # type: ignore[misc]
            def load(self, data: Any) -> str:
                return read(bytes(data).decode())

        return Loader

    def bounded(own: type, read: Callable[[Any, bytes], Any]) -> type:
        class BoundedLoader(psycopg.adapt.Loader):  # type: ignore[misc]
            def __init__(self, oid: int, context: Any = None) -> None:
                super().__init__(oid, context)
                self._own = own(oid, context).load

            def load(self, data: Any) -> Any:
                if len(data) <= _SHORT:
                    return self._own(data)
                take_turns()
                return read(self._own, bytes(data))

        return BoundedLoader

    adapters, text = psycopg.adapters, psycopg.pq.Format.TEXT
    numbers = [psycopg.adapters.types["record"].oid, *(known.array_oid for known in adapters.types if known.array_oid)]
    apart = {number: bounded(adapters.get_loader(number, text), _apart) for number in numbers}
    jsons = {name: bounded(adapters.get_loader(adapters.types[name].oid, text), _json) for name in _JSON}
    ranges = [f"{name}{kind}" for name in _RANGES for kind in ("range", "multirange")]
    found = dict.fromkeys([*ranges, *_TEXTS], loader(str))
    return {**apart, **jsons, **found, "interval": loader(_duration), **dict.fromkeys(_MOMENTS, loader(_moment))}


def _apart(load: Callable[[bytes], Any], data: bytes) -> Any:
    return load(data) if len(data) <= LONGEST_APART else data.decode()


def _json(load: Callable[[bytes], Any], data: bytes) -> Any:
    if len(data) <= LARGE:
        return load(data)
    try:
        return loads_exact(data)
    except DocumentError:  # too many values, or a number too large for a double
        return data.decode()


def _moment(text: str) -> str:
    """Return `2026-01-02 03:04:05.5+01` as `2026-01-02T03:04:05.500000+01:00`. Return a text in another DateStyle
    unchanged."""
    match = _MOMENT.fullmatch(text)
    if match is None:
        return text
    part = f"{match['part']:0<7}" if match["part"] else ""
    zone = f"{match['zone'] or ''}{':00' if len(match['zone'] or '') == 3 else ''}"
    return f"{match['date'] or ''}{'T' if match['gap'] else ''}{match['time']}{part}{zone}"


def _duration(text: str) -> str:
    """Return `1 mon -2 days +03:04:05.5` as `P1M-2DT3H4M5.5S`. Return a text in another IntervalStyle unchanged.

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
