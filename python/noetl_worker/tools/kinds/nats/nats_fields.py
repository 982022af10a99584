"""Config fields of kind `nats`, and the login fields that kind `subscription` has too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsLogin:
    """Config fields that name a NATS server and the login there. Kinds `nats` and `subscription` have these fields."""

    url: str | list[str] | None = None
    """Address of the server, or a list of addresses; wins over the credential's url."""
    auth: str | dict[str, Any] | None = None
    """Alias of a credential with url and user + password, token, creds (text of a .creds file) or nkey (a seed)."""
    user: str | None = None
    """User name; wins over the credential's user."""
    password: str | None = None
    """Password; wins over the credential's password."""
    token: str | None = None
    """Token; wins over the credential's token."""


@dataclass(frozen=True, slots=True)
class NatsFields(NatsLogin):
    """Config fields of kind `nats`. Each operation reads some of these fields; `NatsConfig` checks the values."""

    operation: str
    """The operation: kv_get, kv_put, kv_delete, kv_purge, kv_keys, object_put, object_get, object_info, object_list,
    object_delete, js_publish, js_consume, js_get_msg, js_stream_info."""
    bucket: str | None = None
    """Bucket of a kv_ or object_ operation."""
    key: str | None = None
    """Key of a kv_ operation."""
    value: Any = None
    """The value that kv_put stores: text as it is, anything else as JSON."""
    revision: int | None = None
    """kv_put: the revision to replace, 0 for a key that does not exist. kv_get: the revision to read. kv_delete: delete
    the key only if this is the key's last revision."""
    pattern: str | None = None
    """kv_keys: return only the keys that match this shell pattern, such as `orders.*`."""
    object: str | None = None
    """Name of the object. Use `object` instead of `name` on a plane that puts the task's label into `name`."""
    name: str | None = None
    """Name of the object, when `object` is absent."""
    data: Any = None
    """Content of object_put and js_publish: text as it is, anything else as JSON."""
    encoding: Literal["utf-8", "base64"] = "utf-8"
    """Encoding of `value` and `data`, and of an object's returned content: `utf-8` for text, `base64` for bytes."""
    description: str | None = None
    """object_put: description to store with the object."""
    stream: str | None = None
    """Stream of js_consume, js_get_msg and js_stream_info; for js_publish the stream that must take the message."""
    consumer: str | None = None
    """Durable pull consumer of js_consume."""
    subject: str | None = None
    """js_publish: subject of the message. js_get_msg: return the last message on this subject."""
    headers: dict[str, Any] = field(default_factory=dict)
    """Headers of a message; null values are left out. The stream drops a second message with the same `Nats-Msg-Id`."""
    seq: int | None = None
    """js_get_msg: sequence number of the message."""
    last: bool = False
    """js_get_msg: true returns the stream's last message."""
    batch: int = 100
    """js_consume: maximum number of messages; above 1000 counts as 1000."""
    timeout_ms: int = 1000
    """js_consume: longest wait in milliseconds; above 5000 counts as 5000."""
    ack: bool = True
    """js_consume: ack the returned messages. With false each message has an `ack_id`. The server redelivers the message
    after the ack wait, unless a later step acks the `ack_id` (kind `subscription`)."""
    timeout: float | None = None
    """Longest time of the call in seconds; absent: the command's remaining time."""

    @property
    def object_name(self) -> str | None:
        """Return the name of the object: the field `object`, else the field `name`. `object` wins, because a plane may
        put a task's label into `name`."""
        return self.object or self.name
