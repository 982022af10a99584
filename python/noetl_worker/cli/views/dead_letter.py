"""The output of `noetl-worker dead-letters`: dead letters as text or JSON, with secrets redacted."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.table import Column
from rich.text import Text

from noetl_worker.errors import DocumentError
from noetl_worker.models.disposition import Answer, DispositionKind
from noetl_worker.observability.terminal import duration, harmless, operator_console, plain_table, say_json
from noetl_worker.pipeline.delivery.dead_letter import DeadLetter
from noetl_worker.remote.jetstream.api import moment
from noetl_worker.remote.jetstream.message_search import StoredMessage
from noetl_worker.text import json_text
from noetl_worker.text.secrets.redaction import excerpt, redact_text, redact_value

REASONS: Final = tuple(kind.value for kind in DispositionKind if kind.answer is Answer.TERM)
"""Codes of the reasons for which a message becomes a dead letter. The flag `--reason` accepts such a code."""
_IDS: Final = ("execution_id", "command_id", "step")
_MESSAGE: Final = ("notification", "text", "message")
"""Names of the field that has the original message, in the output about a dead letter. The name is `notification` for
a complete JSON message, `message` if noetl-worker did not write the dead letter, and `text` in all other cases."""


@dataclass(frozen=True)
class ShownDeadLetter:
    """A message of the dead-letter stream, with the values that `noetl-worker dead-letters` prints."""

    kept: StoredMessage
    dead_letter: DeadLetter | None
    """The parsed dead letter; None if the message was not written by noetl-worker."""

    @classmethod
    def from_message(cls, kept: StoredMessage) -> ShownDeadLetter:
        try:
            return cls(kept, DeadLetter.parse(kept.data))
        except DocumentError:
            return cls(kept, None)

    @property
    def kind(self) -> str:
        return self.dead_letter.kind if self.dead_letter is not None else "none of noetl-worker's"

    @property
    def reason(self) -> str:
        if self.dead_letter is None:
            return "not a dead letter of noetl-worker"
        return redact_text(self.dead_letter.reason)

    @property
    def age_s(self) -> float:
        return max(0.0, time.time() - moment(self.kept.stored_at))

    def has(self, reason: str | None) -> bool:
        if reason is None:
            return True
        return self.dead_letter is not None and (
            reason.lower() in self.dead_letter.reason.lower() or reason == self.dead_letter.kind
        )

    def as_json(self) -> dict[str, Any]:
        line: dict[str, Any] = {
            "id": self.kept.sequence,
            "kept_at": self.kept.stored_at,
            "age_s": round(self.age_s, 1),
            "reason": self.reason,
        }
        if self.dead_letter is not None:
            line["kind"] = self.dead_letter.kind
            line["deliveries"] = self.dead_letter.num_delivered
            line["subject"] = self.dead_letter.subject
            line |= {name: self.dead_letter.known(name) or None for name in _IDS}
        return line


def print_entries(entries: Sequence[ShownDeadLetter], total: int, stream: str, *, as_json: bool) -> None:
    """Print dead letters as a table, or as one JSON object a line. `total`: number of dead letters in the stream."""
    console = operator_console()
    if as_json:
        for entry in entries:
            say_json(entry.as_json())
        return
    if entries:
        table = plain_table(
            Column("id", justify="right", no_wrap=True),
            Column("age", justify="right", no_wrap=True),
            Column("tries", justify="right", no_wrap=True),
            Column("reason", overflow="fold", ratio=1),
            Column("execution, command", overflow="fold"),
        )
        for entry in entries:
            table.add_row(*_cells(entry))
        console.print(table)
    shown = f"{len(entries)} of {total} dead letters" if entries else f"no dead letters of {total}"
    console.print(f"{shown} in {stream}" if total else f"no dead letters in {stream}", markup=False)


def _cells(entry: ShownDeadLetter) -> list[Text]:
    dead_letter = entry.dead_letter
    ids = [dead_letter.known("execution_id"), dead_letter.known("command_id")] if dead_letter is not None else []
    return [
        Text(str(entry.kept.sequence)),
        Text(duration(entry.age_s)),
        Text(str(dead_letter.num_delivered) if dead_letter is not None else "-"),
        Text(harmless(entry.reason)),
        Text(harmless("\n".join(filter(None, ids)) or "-")),
    ]


def _details(entry: ShownDeadLetter) -> dict[str, Any]:
    """Return the redacted fields that `dead-letters show` prints and `list` does not: origin and original message."""
    dead_letter = entry.dead_letter
    if dead_letter is None:
        return {"message": excerpt(entry.kept.data, 4096)}
    found: dict[str, Any] = {
        "stream_sequence": dead_letter.stream_sequence,
        "worker_id": dead_letter.worker_id,
        "headers": redact_value(dict(dead_letter.headers)),
        "headers_left_out": list(dead_letter.headers_left_out),
        "detail": redact_value({name: value for name, value in dead_letter.detail.items() if name not in _IDS}),
        "bytes": dead_letter.size,
        "is_whole": dead_letter.data is not None,
    }
    try:
        found["notification"] = redact_value(json_text.loads(dead_letter.data or b""))
    except DocumentError:
        found["text"] = redact_text(dead_letter.excerpt)
    return found


def print_entry(entry: ShownDeadLetter, *, as_json: bool) -> None:
    """Print one dead letter in full: a line for each field and the message last, or one JSON object."""
    console, shown = operator_console(), {**entry.as_json(), **_details(entry)}
    if as_json:
        say_json(shown)
        return
    message = next(shown.pop(name) for name in _MESSAGE if name in shown)
    width = max(map(len, shown))
    for name, value in shown.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        console.print(f"{name:<{width}}  {harmless(text)}", markup=False, soft_wrap=True)
    text = message if isinstance(message, str) else json.dumps(message, indent=2, ensure_ascii=False)
    console.print(f"\n{harmless(text)}", markup=False, soft_wrap=True)
