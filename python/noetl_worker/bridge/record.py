"""A record of upstream's command feed: a command's notification and the id of the command's command.issued event
(protocol/feed.md#record)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from noetl_worker.errors import DocumentError, NoetlWorkerError
from noetl_worker.settings.nats import SYSTEM_POOL
from noetl_worker.text import json_text

SHARED_POOL: Final = "shared"
"""Worker pool that gets a command whose notification names no pool."""
_FIELDS: Final = frozenset({"global_sequence", "execution_id", "transaction_id", "payload"})
_NOT_IN_A_TOKEN: Final = re.compile(r"[\s.*>\x00-\x1f\x7f]")
_MOST_SHOWN: Final = 80


class NotARecord(NoetlWorkerError):
    """Error for received data that are not a valid record of a command. The text says why."""


@dataclass(frozen=True, slots=True)
class FeedRecord:
    sequence: int
    """Number of the record (`global_sequence`). The bridge acknowledges the record to the plane by this number."""
    event_id: str
    execution_id: str
    pool: str
    payload: bytes
    """The command's notification, as UTF-8 JSON, unchanged."""
    body: bytes
    """The received frame's body, unchanged, to forward to upstream's writer, which fills the command feed.

    Empty if the record came from a coordinator, which hands out the feed's commands.
    """

    @property
    def is_for_system_pool(self) -> bool:
        return self.pool == SYSTEM_POOL

    def subject(self, base: str) -> str:
        """Return the NATS subject of the command: `<base>.<pool>.<execution id>`."""
        return f"{base}.{self.pool}.{self.execution_id}"


def read_record(body: bytes) -> FeedRecord:
    """Read a record from the body of a frame. Raise NotARecord if the body is no record."""
    return parse_record(parse_object(body, "frame"), body)


def parse_record(fields: object, body: bytes) -> FeedRecord:
    """Return a FeedRecord from the parsed JSON `fields`. Raise NotARecord if a field is missing, unknown or invalid.

    Args:
        body: the record's original JSON, for forwarding unchanged.
    """
    if not isinstance(fields, dict) or fields.keys() != _FIELDS:
        raise NotARecord(f"a record of a command must be an object with the fields {', '.join(sorted(_FIELDS))} only")
    sequence, execution_id, payload = fields["global_sequence"], fields["execution_id"], fields["payload"]
    if type(sequence) is not int or not 0 <= sequence < 2**64:
        raise NotARecord("global_sequence is no whole number of 64 bits")
    if not isinstance(execution_id, str) or not execution_id or not isinstance(payload, str):
        raise NotARecord("execution_id and payload have to be texts")
    notification = parse_object(payload, "payload")
    if "command_id" not in notification or "event_id" not in notification:
        raise NotARecord("the payload is no notification of a command: command_id or event_id is missing")
    pool = notification.get("execution_pool")
    return FeedRecord(
        sequence,
        str(notification["event_id"]),
        _token(execution_id),
        _token(pool if isinstance(pool, str) and pool else SHARED_POOL),
        payload.encode(),
        body,
    )


def parse_object(text: str | bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object. Raise NotARecord if `text` is no JSON object.

    Args:
        text: the received JSON.
        what: name for the text in the error, such as `payload`.
    """
    try:
        found = json_text.loads(text)
    except DocumentError as error:
        raise NotARecord(f"the {what} is no JSON: {str(error)[:_MOST_SHOWN]}") from None
    if not isinstance(found, dict):
        raise NotARecord(f"the {what} is no JSON object")
    return found


def _token(text: str) -> str:
    """Replace characters that a token of a NATS subject must not contain by `_`."""
    return _NOT_IN_A_TOKEN.sub("_", text)
