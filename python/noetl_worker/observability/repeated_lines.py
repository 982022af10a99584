"""Condensing of repeated log lines. The first line about a cause is written at once. While the cause lasts, one line a
minute has the number of repeats.

Without condensing, a plane that answered HTTP 500 caused 6,894 lines a minute, one for each attempt of each command. At
the level debug all lines are written.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from noetl_worker.observability.outage import Outage

REPEATED: Final = frozenset(
    (
        *("adopted_outcome_reported", "outcome_adopted", "outcome_already_stored", "outcome_dropped"),
        *("batch_check_failed", "batch_forgotten", "batch_rescued", "batch_state_unknown", "batches_checked"),
        *("cancellation_unknown", "child_status_unknown", "claim_unknown", "claims_not_counted", "outcomes_adopted"),
        *("dead_letter_not_kept", "dead_letters_not_counted", "durable_gone", "durable_made", "durable_not_checked"),
        *("events_not_accepted", "execution_check_failed", "heartbeat_failed", "heartbeat_unknown", "http_retry"),
        *("http_retry_given_up", "lag_unknown", "nats_disconnected", "nats_reconnected"),
        *("message_not_answered", "message_returned", "message_unreadable", "outbox_row_duplicated"),
        *("outbox_row_not_read", "outbox_row_unreadable", "plane_down", "plane_up", "pull_failed"),
        *("pull_heartbeat_missed", "pull_refused", "pulls_not_withdrawn", "request_retried", "resource_shortage"),
        *("result_left_out_of_event", "result_not_stored", "start_bucket_made", "start_notes_unreadable"),
        *("started_not_sent", "started_refused", "tls_files_unreadable"),
    )
)
"""Names of the log events whose repeats are condensed to one line a minute. They repeat until their cause is gone.

Events about the outcome of one command are not condensed: an operator needs the ids in them.
"""
_CAUSE: Final = ("reason", "what", "error", "problem")
"""Fields of a log line that together identify its cause, so that repeats of the line are recognised."""
_CAUSE_CHARS: Final = 200
_MOST_CAUSES: Final = 200
"""Largest number of different causes whose repeated log lines are counted separately. Further causes are not told
apart: all their lines of the same log event are counted together."""
_IDS: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d+")
_OWN: Final = frozenset({"event", "level", "timestamp"})
_COUNT: Final = "repeats"
log = structlog.get_logger("noetl_worker")


@dataclass
class _Cause:
    outage: Outage = field(default_factory=Outage)
    method: str = ""
    line: Mapping[str, Any] = field(default_factory=dict)
    """The last line that was held back for this cause, already redacted."""


class RepeatedLines:
    """A structlog processor that condenses repeated lines. In the processor chain it must come after the redaction.
    Thread-safe."""

    def __init__(self, has_all: Callable[[], bool]) -> None:
        """Create a processor of log lines.

        Args:
            has_all: returns True while the log is to have every line, as at the level debug. Repeated lines
                are then not condensed.
        """
        self._is_unlimited = has_all
        self._lock = threading.Lock()
        self._causes: dict[tuple[str, str], _Cause] = {}
        """Causes of repeated log lines, by the name of the log event and the text of the cause. The cause whose last
        line is oldest comes first, and `flush` writes in this order."""

    def __call__(self, logger: Any, method: str, event_dict: MutableMapping[str, Any]) -> Mapping[str, Any]:
        """Return the log line if it is to be written now. If the line also stands for lines that were held back, its
        field `repeats` counts all of them.

        Raises:
            structlog.DropEvent: the line is held back as a repeat.
        """
        event = event_dict["event"]
        if event not in REPEATED or _COUNT in event_dict or self._is_unlimited():
            return event_dict
        with self._lock:
            key = (event, _read_cause(event_dict))
            if key not in self._causes and len(self._causes) >= _MOST_CAUSES:
                key = (event, "")
            cause = self._causes.pop(key) if key in self._causes else _Cause()
            self._causes[key] = cause
            said = cause.outage.note_failure("")
            if said is None:
                cause.method, cause.line = method, dict(event_dict)
                raise structlog.DropEvent
        return event_dict if said["failures"] == 1 else {**event_dict, _COUNT: said["failures"]}

    def flush(self, *, at_once: bool = False) -> None:
        """Write the last held-back log line of each cause, such as an error that repeats. Skip a cause about which a
        line was written in the last minute. With `at_once`, skip no cause."""
        due: list[tuple[_Cause, int]] = []
        with self._lock:
            for key, cause in list(self._causes.items()):
                count = cause.outage.take_unlogged(at_once=at_once)
                if count:
                    due.append((cause, count))
                elif count == 0:  # no line for a minute: the cause has ended
                    del self._causes[key]
        for cause, count in due:
            fields = {name: value for name, value in cause.line.items() if name not in _OWN}
            getattr(log, cause.method)(cause.line["event"], **fields, **{_COUNT: count})


def _read_cause(line: Mapping[str, Any]) -> str:
    """Return the cause of a log line as a string. Numbers and ids are replaced, because they differ from command to
    command."""
    return replace_ids(" ".join(str(line[name])[:_CAUSE_CHARS] for name in _CAUSE if name in line))


def replace_ids(text: str) -> str:
    """Return a text with # in place of its numbers and UUIDs."""
    return _IDS.sub("#", text)
