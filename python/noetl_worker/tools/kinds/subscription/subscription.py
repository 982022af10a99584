"""Kind `subscription`: reads a bounded number of messages from a durable consumer, and acks them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from noetl_worker.errors import ConfigurationError
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue
from noetl_worker.text.json_text import dumps
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.deadline import in_time
from noetl_worker.tools.fields import check_numbers, excerpt, ignored_field
from noetl_worker.tools.kinds.nats.connections import Address, NatsConnectionTool, check_login, resolve_address
from noetl_worker.tools.kinds.nats.failures import leased_client
from noetl_worker.tools.kinds.nats.messages import ACK, acknowledge, check_names, confirmed_acks, described, pull
from noetl_worker.tools.kinds.nats.nats import MAX_BATCH, MAX_WAIT_MS
from noetl_worker.tools.kinds.nats.nats_fields import NatsLogin
from noetl_worker.tools.kinds.nats.operation import with_values

_OPERATIONS: Final = ("poll", "ack", "nack", "term")
_ACK_MODES: Final = {"on_success": True, "auto": True, "true": True} | dict.fromkeys(
    ("manual", "defer", "none", "false"), False
)
_ACK_PREFIX: Final = "$JS.ACK."


@dataclass(frozen=True, slots=True)
class SubscriptionConfig(NatsLogin):
    """Polls a consumer of a message source, or acks, nacks or terminates messages of an earlier poll.

    For work that must not be lost, poll with `ack: defer`, and ack the `ack_ids` in a later step, once the work is
    done.
    """

    source: str
    """Message source: nats. This worker does not read Kafka and Pub/Sub."""
    operation: str = "poll"
    """Operation: poll messages, or ack, nack (or nak) or term messages of an earlier poll."""
    stream: str | None = None
    """Name of the JetStream stream that the consumer reads."""
    consumer: str | None = None
    """Name of the durable pull consumer, which must exist."""
    batch: int = 100
    """poll: maximum number of messages; above 1000 counts as 1000."""
    timeout_ms: int = 1000
    """poll: longest wait in milliseconds; above 5000 counts as 5000."""
    ack: str = "on_success"
    """poll: on_success, auto or true acks the returned messages; manual, defer or false returns `ack_ids` instead. The
    value `none` does neither, so the server redelivers the messages after the consumer's ack wait."""
    ack_ids: list[str] = field(default_factory=list)
    """ack, nack, term: the `ack_ids` that an earlier poll returned."""
    nack_delay_ms: int | None = None
    """nack: milliseconds until redelivery; absent: at once."""
    timeout: float | None = None
    """Maximum time of the call in seconds; absent: the command's remaining time."""

    def __post_init__(self) -> None:
        source, operation, ack = (str(text).strip().lower() for text in (self.source, self.operation, self.ack))
        operation = "nack" if operation == "nak" else operation
        if source in ("kafka", "pubsub"):
            raise ConfigurationError(
                f"source {source!r} is not read by this worker: bridge it to a NATS stream, or read it with the "
                "python tool and a client library",
                field="source",
            )
        if source != "nats":
            raise ConfigurationError(f"unsupported source {self.source!r}. Supported: nats", field="source")
        if operation not in _OPERATIONS:
            raise ConfigurationError(
                f"unsupported operation {self.operation!r}. Supported: {', '.join(_OPERATIONS)}", field="operation"
            )
        if ack not in _ACK_MODES:
            raise ConfigurationError(f"unsupported ack {self.ack!r}. Supported: {', '.join(_ACK_MODES)}", field="ack")
        self._check(operation)
        object.__setattr__(self, "operation", operation)
        object.__setattr__(self, "ack", ack)
        object.__setattr__(self, "batch", min(self.batch, MAX_BATCH))
        object.__setattr__(self, "timeout_ms", min(self.timeout_ms, MAX_WAIT_MS))
        check_login("subscription", self)

    def _check(self, operation: str) -> None:
        if operation == "poll":
            for name in ("stream", "consumer"):
                if not getattr(self, name):
                    raise ConfigurationError(f"[nats] requires {name!r}", field=name, reason="missing")
            check_names(stream=self.stream, consumer=self.consumer)
            check_numbers(1, batch=self.batch, timeout_ms=self.timeout_ms)
            return
        check_numbers(0, nack_delay_ms=self.nack_delay_ms)
        if not self.ack_ids:
            raise ConfigurationError(
                f"{operation} requires 'ack_ids': give the `ack_ids` of a poll with `ack: defer`",
                field="ack_ids",
                reason="missing",
            )
        if len(self.ack_ids) > MAX_BATCH:
            raise ConfigurationError(
                f"{operation}: {len(self.ack_ids)} ack_ids; at most {MAX_BATCH} at once: split them", field="ack_ids"
            )
        for ack_id in self.ack_ids:
            # the ack id is used as a subject, so it must not be able to publish anything else
            if not ack_id.startswith(_ACK_PREFIX) or any(mark in "*>" or mark.isspace() for mark in ack_id):
                raise ConfigurationError(
                    f"ack_id {excerpt(ack_id, 80)!r} is not from a NATS poll; give the `ack_ids` of a poll",
                    field="ack_ids",
                )


class SubscriptionTool(NatsConnectionTool):
    """Tool of kind `subscription`. Data of poll: {status: success, source, operation, count, messages: [{id, data,
    headers, attributes, metadata: {subject, stream, consumer, stream_seq, consumer_seq, delivered, pending,
    timestamp}, ack_id}], acked, ack_mode, ack_ids, metrics: {duration_ms, bytes, redelivered}}; `id` is the sequence
    in the stream as text, `acked` true if the server has confirmed the ack of each message.

    Data of ack, nack, term: {status: success | partial, source, operation, requested, disposed, errors: [{ack_id,
    error}], metrics: {duration_ms}}. Errors: as in kind `nats`.
    """

    kind: ClassVar[str] = "subscription"
    config_model: ClassVar[type] = SubscriptionConfig
    field_aliases: ClassVar[Mapping[str, str]] = {"nats_url": "url", "username": "user", "ack_mode": "ack"}

    def ignored(self, config: SubscriptionConfig) -> list[ConfigurationError]:
        """Return a warning for each config field that the step's `operation` does not read."""
        unread = {
            "ack_ids": bool(config.ack_ids) and config.operation == "poll",
            "nack_delay_ms": config.nack_delay_ms is not None and config.operation != "nack",
        }
        why = f"{config.operation} does not read it"
        return [ignored_field(self.kind, name, why) for name, is_given in unread.items() if is_given]

    async def run(self, config: SubscriptionConfig, context: ToolContext) -> ToolResult:
        address = await resolve_address("subscription", config, context)
        return await in_time(self._call(address, config, context.stop), context.timeout_s)

    async def _call(self, address: Address, config: SubscriptionConfig, owner: object) -> dict[str, JsonValue]:
        started = time.monotonic()
        operate = _poll if config.operation == "poll" else _settle
        async with leased_client(self._connections, address, config.operation) as client:
            data = await with_values(await operate(client, config), owner)
        data["metrics"] = {**data.get("metrics", {}), "duration_ms": round((time.monotonic() - started) * 1000)}
        return {"status": "success", "source": "nats", "operation": config.operation, **data}


async def _poll(client: Any, config: SubscriptionConfig) -> dict[str, Any]:
    pulled = await pull(
        client, "poll", str(config.stream), str(config.consumer), config.batch, config.timeout_ms / 1000
    )
    is_acked = _ACK_MODES[config.ack]
    is_deferred = not is_acked and config.ack != "none"
    messages = [_message(message, with_ack_id=is_deferred) for message in pulled]
    acked = is_acked and await confirmed_acks(client, pulled) == len(pulled)
    return {
        "count": len(messages),
        "messages": messages,
        "acked": acked,
        "ack_mode": config.ack,
        "ack_ids": [message.reply for message in pulled] if is_deferred else [],
        "metrics": {
            "bytes": sum(len(message.data) for message in pulled),
            "redelivered": sum(message.metadata.num_delivered > 1 for message in pulled),
        },
    }


def _message(message: Any, *, with_ack_id: bool) -> dict[str, JsonValue]:
    meta, about = message.metadata, described(message, with_ack_id=False)
    data, headers = about.pop("data"), about.pop("headers")
    about.update(stream=meta.stream, consumer=meta.consumer, timestamp=meta.timestamp.isoformat())
    fields: dict[str, JsonValue] = {
        "id": str(meta.sequence.stream),
        "data": data,
        "headers": headers,
        "attributes": headers,
        "metadata": about,
    }
    return {**fields, "ack_id": message.reply} if with_ack_id else fields


async def _settle(client: Any, config: SubscriptionConfig) -> dict[str, Any]:
    ack_ids: Sequence[str] = list(dict.fromkeys(config.ack_ids))
    problems = await acknowledge(client, ack_ids, _answer(config))
    return {
        "status": "partial" if problems else "success",
        "requested": len(ack_ids),
        "disposed": len(ack_ids) - len(problems),
        "errors": [{"ack_id": ack_id, "error": problem} for ack_id, problem in problems.items()],
    }


def _answer(config: SubscriptionConfig) -> bytes:
    if config.operation == "nack" and config.nack_delay_ms:
        return b"-NAK " + dumps({"delay": config.nack_delay_ms * 1_000_000})
    return {"ack": ACK, "nack": b"-NAK", "term": b"+TERM"}[config.operation]
