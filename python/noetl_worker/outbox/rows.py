"""Reading a row of the outbox, and the batches in one: those are written many at once, at next to no cost for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from noetl_worker import json_text
from noetl_worker.errors import DocumentError
from noetl_worker.models.wire import JsonValue
from noetl_worker.outbox.event_set import REPORT_NAMES, SET_NAMES, EventSet

_SET_NAMES: Final = ("size", "dialect", "loop", *SET_NAMES)
_REPORT_NAMES: Final = ("exit", *REPORT_NAMES)
# One call for each set, and none of it in Python.
_of_set: Final = attrgetter(*_SET_NAMES)
_of_report: Final = attrgetter(*_REPORT_NAMES)


@dataclass(frozen=True, slots=True)
class KeptBatch:
    """A batch that a plane has accepted, and that was not seen as worked off."""

    batch: str
    end: EventSet
    """As it was before the plane took the batch."""
    has_events: bool
    """False: there was no room for them, and the end can only be named."""
    outages: int
    """Of the plane, as its worker had counted them when the plane took it."""


def read_row(row: bytes, data: bytes | None = None) -> EventSet:
    """The set of a row.

    Raises:
        DocumentError: these bytes are no row of ours.
    """
    try:
        return EventSet.unpacked(json_text.loads(row), data)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DocumentError("outbox_row", f"not a row of an outbox: {type(error).__name__}: {error}") from error


def pack_batches(accepted: Sequence[Any], *, with_events: bool) -> bytes:
    """The row of what recent_batches.py has of some batches."""
    ends = [one.end for one in accepted]
    batches, sent, outages = zip(*[(one.batch, one.sent, one.outages) for one in accepted], strict=True)
    reports = list(map(_of_report, [end.report for end in ends])) if with_events else []
    return json_text.dumps([batches, outages, sent, list(map(_of_set, ends)), reports])


def read_batches(contents: bytes) -> list[KeptBatch]:
    """What `pack_batches` wrote.

    Raises:
        DocumentError: these bytes are none of it.
    """
    try:
        batches, outages, sent, sets, reports = json_text.loads(contents)
        nothing: list[list[JsonValue]] = [[None] * len(_REPORT_NAMES)] * len(batches)
        read = zip(batches, outages, sent, sets, reports or nothing, strict=True)
        return [KeptBatch(str(batch), _end(*values), bool(reports), int(of)) for batch, of, *values in read]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DocumentError("outbox_row", f"no batches of an outbox: {type(error).__name__}: {error}") from error


def _end(sent: int, of_set: Sequence[JsonValue], of_report: Sequence[JsonValue]) -> EventSet:
    row: dict[str, Any] = {**dict(zip(_SET_NAMES, of_set, strict=True)), "sent": sent}
    report: dict[str, Any] = dict(zip(_REPORT_NAMES, of_report, strict=True))
    row["loop"], report["exit"] = _positional(row["loop"]), _positional(report["exit"])
    end = EventSet.unpacked({**row, "report": report}, None)
    end.size = int(row["size"])
    return end


def _positional(fields: Mapping[str, JsonValue] | None) -> list[JsonValue] | None:
    """A dataclass is written with the names of its fields; a row of a set has it without."""
    return list(fields.values()) if fields is not None else None
