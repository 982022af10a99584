"""What a notification says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from noetl_worker.models.wire import CommandId, JsonValue, ids_of


class Envelope(NamedTuple):
    """A decoded command notification (protocol/notification.md#message). A NamedTuple: it is made once per message on
    the hot path."""

    execution_id: int
    event_id: int
    """Id of the `command.issued` event; the key of the claim."""
    command_id: CommandId
    step: str
    server_url: str
    """Where to claim and report; "" when the notification has none (then the configured URL holds)."""
    pool: str | None
    trace: Mapping[str, JsonValue] | None

    def who(self) -> dict[str, object]:
        return ids_of(self)
