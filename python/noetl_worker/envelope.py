"""Public function that decodes the JetStream message of a command notification (docs/library.md)."""

from __future__ import annotations

from noetl_worker.engine import chosen as engine
from noetl_worker.models.notification import Envelope

__all__ = ["decode_notification"]


def decode_notification(data: bytes) -> Envelope:
    """Decode one command notification with the engine in use, Rust or pure Python.

    Args:
        data: the message's payload, UTF-8 JSON (protocol/notification.md#message). Unknown fields are ignored.

    Returns:
        Envelope: the notification. Ids are exact to 64 bits. `command_id` is a number or a string as it was received.
            `server_url` is "" if the notification has none.

    Raises:
        NotificationError: the message is no notification, and its command can never be claimed. `code` is stable
            (`not_an_object`, `missing_field`, `wrong_type`, `empty_field`, `out_of_range`, or a code of DocumentError).
            The error's text names the field, and has the start of its value.
    """
    return engine.decode_notification(data)
