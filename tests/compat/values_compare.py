"""Recorded values beside ours: what differs in every run is made equal, the rest is told by path."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from compat.values_server import RECORDED_AT

_DURATIONS = frozenset(
    {
        "duration_ms", "duration_seconds", "duration_human", "elapsed", "metrics", "render_ms", "tool_ms",
        "start_time", "end_time", "timestamp", "date", "sha256",
    }
)  # fmt: skip
_ID = re.compile(r"\d{15,}")
_TEXTS = (
    (re.compile(r"^\d{15,}:[\w:.-]+$"), "<command>"),
    (re.compile(r"loop_\d+_\d+(<cut, 40 characters>)?"), "<loop>"),
    (_ID, "<id>"),
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r"20(2[6-9]|[3-9]\d)-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"0x[0-9a-f]{6,}"), "<address>"),
    (re.compile(r"/tmp/\.tmp\w+"), "<path>"),
)
KNOWN_UUID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
"""The one that a playbook writes itself."""
START = 4096
"""A recorded value longer than this is there as its keys, their types and sizes, and how it starts."""


def plain(value: Any, server: str = RECORDED_AT) -> Any:
    """`value` without what is another one in every run: ids, times, durations, addresses."""
    if isinstance(value, dict) and value.get("kind") == "result_ref":
        return {"kind": "result_ref"}
    if isinstance(value, dict):
        return {key: plain(inner, server) for key, inner in value.items() if key not in _DURATIONS}
    if isinstance(value, list):
        return [plain(inner, server) for inner in value]
    if isinstance(value, int) and not isinstance(value, bool) and _ID.fullmatch(str(value)):
        return "<id number>"
    if isinstance(value, str) and value != KNOWN_UUID:
        value = value.replace(server, RECORDED_AT)
        for pattern, mark in _TEXTS:
            value = pattern.sub(mark, value)
    return value


def differences(recorded: Mapping[str, Any], ours: Mapping[str, Any], server: str) -> list[str]:
    """Paths at which a run of ours is not what was recorded, each with both values: `path: theirs | ours`."""
    return list(_run("", recorded, ours, server))


def claim_differences(node: str, recorded: Any, ours: Any, *, is_cut: bool) -> list[str]:
    """The same for what a claim answered; of a cut one only what is left is looked at."""
    theirs, given = plain(recorded), plain(ours)
    return list(_value(node, theirs, _like(theirs, given) if is_cut else given))


def _like(recorded: Any, ours: Any) -> Any:
    """`ours` cut as the recording was."""
    if isinstance(recorded, str) and "<cut, " in recorded and isinstance(ours, str):
        is_same = ours.startswith((recorded.partition("<cut, ")[0], "<command>", "<uuid>", "noetl://"))
        return recorded if is_same else ours
    if isinstance(recorded, dict) and isinstance(ours, dict):
        return {key: _like(recorded[key], inner) for key, inner in ours.items() if key in recorded}
    if isinstance(recorded, list) and isinstance(ours, list):
        is_cut = bool(recorded) and isinstance(recorded[-1], str) and recorded[-1].startswith("<cut, ")
        kept = ours[: len(recorded) - is_cut]
        both = zip(recorded[: len(kept)], kept, strict=True)
        return [*(_like(one, other) for one, other in both), *(recorded[-1:] if is_cut else ours[len(kept) :])]
    return ours


def _run(at: str, recorded: Mapping[str, Any], ours: Mapping[str, Any], server: str) -> Iterator[str]:
    if recorded.get("outcome") != ours.get("outcome"):
        yield _line(f"{at}outcome", recorded.get("outcome"), ours.get("outcome"))
    theirs, given = recorded.get("steps", {}), ours.get("steps", {})
    for step in dict.fromkeys((*theirs, *given)):
        if step not in theirs or step not in given:
            yield _line(f"{at}{step}", *("ran" if step in steps else "did not run" for steps in (theirs, given)))
        else:
            yield from _step(f"{at}{step}", theirs[step], given[step], server)
    if "events_total" not in recorded and recorded.get("outcome") == ours.get("outcome"):
        ran_in_both = theirs.keys() & given.keys()
        both = (recorded.get("events", []), ours.get("events", []))
        yield from _events(f"{at}events", *both, lambda node: node in ran_in_both or node not in {*theirs, *given})
    for index, (one, other) in enumerate(_pairs(recorded.get("children", []), ours.get("children", []))):
        yield from _run(f"{at}child{index}.", one or {}, other or {}, server)


def _step(at: str, recorded: Mapping[str, Any], ours: Mapping[str, Any], server: str) -> Iterator[str]:
    theirs, given = ([plain(one, server) for one in step.get("runs", [step])] for step in (recorded, ours))
    if len(theirs) != len(given):
        yield _line(f"{at}.runs", len(theirs), len(given))
    for index, (one, other) in enumerate(_pairs(theirs, given)):
        if one is not None and other is not None:
            yield from _one(at if len(theirs) == 1 else f"{at}[{index}]", one, other)


def _one(at: str, recorded: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[str]:
    """One run of a step. Of an error only whether there is one: each worker has its own words."""
    for key in ("status", "exit_code"):
        if recorded.get(key) != ours.get(key):
            yield _line(f"{at}.{key}", recorded.get(key), ours.get(key))
    if bool(recorded.get("reference")) != bool(ours.get("reference")):
        yield _line(f"{at}.reference", bool(recorded.get("reference")), bool(ours.get("reference")))
    if bool(recorded.get("error")) != bool(ours.get("error")):
        yield _line(f"{at}.error", recorded.get("error"), ours.get("error"))
    yield from _value(f"{at}.value", recorded.get("value"), ours.get("value"))


def _pairs(recorded: Sequence[Any], ours: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Runs that belong together: equal ones, whatever their order was, then the rest in order."""
    left = list(ours)
    found: list[tuple[Any, Any]] = []
    unmatched: list[Any] = []
    for one in recorded:
        same = next((index for index, other in enumerate(left) if not any(_one("", one, other))), None)
        if same is None:
            unmatched.append(one)
        else:
            found.append((one, left.pop(same)))
    unmatched += [None] * (len(left) - len(unmatched))
    left += [None] * (len(unmatched) - len(left))
    return found + list(zip(unmatched, left, strict=True))


def _value(at: str, recorded: Any, ours: Any) -> Iterator[str]:
    if isinstance(recorded, dict) and recorded.get("_cut"):
        yield from _cut_value(at, recorded, ours)
    elif isinstance(recorded, dict) and isinstance(ours, dict):
        for key in dict.fromkeys((*recorded, *ours)):
            if key not in ours or key not in recorded:
                both = (value.get(key, "<absent>") for value in (recorded, ours))
                yield _line(f"{at}.{key}", *both)
            else:
                yield from _value(f"{at}.{key}", recorded[key], ours[key])
    elif isinstance(recorded, list) and isinstance(ours, list) and len(recorded) == len(ours):
        if all(isinstance(item, dict) and item.keys() == {"context", "status"} for item in recorded):
            ours = _paired(recorded, ours)
        for index, (one, other) in enumerate(zip(recorded, ours, strict=True)):
            yield from _value(f"{at}[{index}]", one, other)
    elif type(recorded) is not type(ours) or recorded != ours:
        if isinstance(recorded, str) and isinstance(ours, str) and "<path>" in recorded:
            return
        yield _line(at, recorded, ours)


def _paired(recorded: Sequence[Any], ours: Sequence[Any]) -> list[Any]:
    """What a loop of the Rust plane left, whose items are in the order of their ends: ours beside their likes."""
    left = list(ours)
    found: list[Any] = []
    for item in recorded:
        same = next((index for index, other in enumerate(left) if other.get("status") == item["status"]), 0)
        found.append(left.pop(same))
    return found


def _cut_value(at: str, recorded: Mapping[str, Any], ours: Any) -> Iterator[str]:
    """A value that the recording has cut: the kinds and sizes of its parts."""
    if "keys" not in recorded or not isinstance(ours, dict):
        if "keys" in recorded or len(json.dumps(ours)) < START:
            yield _line(at, f"<{recorded['bytes']} bytes>", ours)
        return
    for key, part in recorded["keys"].items():
        if key in _DURATIONS:
            continue
        given = ours.get(key)
        kind = type(given).__name__ if key in ours else "absent"
        length = len(given) if isinstance(given, (str, list, dict)) else None
        start = recorded.get("start")
        shown = start.get(key) if isinstance(start, dict) else None
        size = len(shown) if isinstance(shown, dict) else part.get("length")  # without what is another one in every run
        if (kind, length) != (part["type"], size):
            yield _line(f"{at}.{key}", f"{part['type']} {'' if size is None else size}", f"{kind} {length or ''}")
    for key in ours:
        if key not in recorded["keys"] and key not in _DURATIONS:
            yield _line(f"{at}.{key}", "<absent>", ours[key])


def _events(
    at: str, recorded: Sequence[Sequence[str]], ours: Sequence[Sequence[str]], is_compared: Callable[[str], bool]
) -> Iterator[str]:
    """Per step the events in their order; where a step ran more than once, how many of each there are."""
    theirs, given = _by_node(recorded), _by_node(ours)
    for node in filter(is_compared, dict.fromkeys((*theirs, *given))):
        one, other = theirs.get(node, []), given.get(node, [])
        if one.count("command.issued") > 1 or other.count("command.issued") > 1:
            is_same = Counter(one) == Counter(other)
        else:
            is_same = one == other
        if not is_same:
            yield _line(f"{at}.{node}", " ".join(one), " ".join(other))


def _by_node(events: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for kind, node in events:
        found.setdefault(node, []).append(kind)
    return found


def _line(path: str, recorded: Any, ours: Any) -> str:
    return f"{path}: {_short(recorded)} | {_short(ours)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else text[:157] + "..."
