"""A command notification as the worker uses it after decoding the JetStream message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from noetl_worker.models.wire import CommandId, JsonValue, command_ids


class Envelope(NamedTuple):
    """A decoded command notification (protocol/notification.md#message)."""

    execution_id: int
    event_id: int
    """Id of the `command.issued` event. The worker claims the command by this id."""
    command_id: CommandId
    step: str
    server_url: str
    """URL of the plane that issued the command. "" if the notification names no plane: the worker then uses
    NOETL_SERVER_URL."""
    pool: str | None
    """Pool that is to run the command (`execution_pool`), or None if the notification names none."""
    trace: Mapping[str, JsonValue] | None
    """Trace headers of the command, or None."""

    def log_ids(self) -> dict[str, object]:
        """Return the ids and step of the command for a log line."""
        return command_ids(self)
