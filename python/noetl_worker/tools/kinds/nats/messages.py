"""Messages on NATS subjects and JetStream streams, for the `nats` and `subscription` tools."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import anyio

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models.wire import JsonValue
from noetl_worker.text.json_text import dumps
from noetl_worker.tools.ending import ended
from noetl_worker.tools.kinds.nats.nats_fields import NatsFields
from noetl_worker.tools.kinds.nats.operation import Operation
from noetl_worker.tools.payload import MAX_RESULT_BYTES, as_bytes, as_headers

_ANSWER_GRACE_S: Final = 2.0
"""Maximum seconds to wait for a pull's last status after the pull has expired."""
ACK: Final = b"+ACK"
_CONFIRM_S: Final = 5.0
_REFUSED_PULLS: Final = (
    ("503", "", "does not answer: create it before this step", "not_found"),
    ("409", "deleted", "was deleted", "not_found"),
    ("409", "push", "is a push consumer; a pull consumer is needed", "client_error"),
    ("409", "maxwaiting", "has too many waiting pulls: raise its max_waiting", "rate_limit"),
)
"""Statuses with which the server refuses a pull: (status, word in the server's description, our error message without
the consumer's name, kind of failure). Descriptions are compared in lower case and without spaces."""


def check_names(**names: str | None) -> None:
    """Raise ConfigurationError if the name of a bucket, stream or consumer has a character that NATS forbids."""
    for name, value in names.items():
        if value is not None and any(mark in ".*>/\\" or mark.isspace() for mark in value):
            raise ConfigurationError(
                f"{name} {value!r} has a character that no {name} may have: leave out . * > / \\ and blanks", field=name
            )


async def _js_publish(client: Any, config: NatsFields) -> dict[str, JsonValue]:
    ack = await client.jetstream().publish(
        config.subject, _content(client, config), stream=config.stream, headers=as_headers(config.headers)
    )
    return {"stream": ack.stream, "seq": ack.seq, "duplicate": bool(ack.duplicate)}


async def _consume(client: Any, config: NatsFields) -> dict[str, JsonValue]:
    """Pull at most `batch` messages of a stream's consumer, and wait at most `timeout_ms`. Ack the messages, unless
    `ack` is false."""
    assert config.stream is not None
    assert config.consumer is not None
    pulled = await pull(client, "js_consume", config.stream, config.consumer, config.batch, config.timeout_ms / 1000)
    messages = [described(message, with_ack_id=not config.ack) for message in pulled]
    acked = config.ack and await confirmed_acks(client, pulled) == len(pulled)
    return {
        "stream": config.stream,
        "consumer": config.consumer,
        "count": len(messages),
        "messages": messages,
        "acked": acked,
    }


def described(message: Any, *, with_ack_id: bool) -> dict[str, JsonValue]:
    meta = message.metadata
    fields: dict[str, JsonValue] = {
        "subject": message.subject,
        "stream_seq": meta.sequence.stream,
        "consumer_seq": meta.sequence.consumer,
        "delivered": meta.num_delivered,
        "pending": meta.num_pending,
        "data": message.data,
        "headers": dict(message.headers or {}),
    }
    return {**fields, "ack_id": message.reply} if with_ack_id else fields


async def _get_message(client: Any, config: NatsFields) -> dict[str, JsonValue]:
    context = client.jetstream()
    if config.seq is not None:
        found = await context.get_msg(config.stream, seq=config.seq)
    elif config.subject is not None:
        found = await context.get_msg(config.stream, subject=config.subject)
    else:
        info = await context.stream_info(config.stream)
        if info.state.messages == 0:
            raise ToolError(f"js_get_msg failed: stream {config.stream!r} is empty", kind="not_found")
        found = await context.get_msg(config.stream, seq=info.state.last_seq)
    return {
        "stream": config.stream,
        "subject": found.subject,
        "seq": found.seq,
        "data": found.data or b"",
        "headers": dict(found.headers or {}),
    }


async def _stream_info(client: Any, config: NatsFields) -> dict[str, JsonValue]:
    info = await client.jetstream().stream_info(config.stream)
    settings, state = info.config, info.state
    return {
        "stream": settings.name,
        "config": {
            "name": settings.name,
            "subjects": list(settings.subjects or []),
            "max_msgs": settings.max_msgs,
            "max_bytes": settings.max_bytes,
        },
        "state": {
            "messages": state.messages,
            "bytes": state.bytes,
            "first_seq": state.first_seq,
            "last_seq": state.last_seq,
            "consumer_count": state.consumer_count,
        },
    }


def _content(client: Any, config: NatsFields) -> bytes:
    content = as_bytes("nats", config.data, config.encoding)
    if len(content) > client.max_payload:
        raise ConfigurationError(
            f"nats: the data has {len(content)} bytes, the server takes {client.max_payload}; "
            "put it into an object store (object_put) and publish its name"
        )
    return content


# ── pulling ─────────────────────────────────────────────────────────────────────────────────────


async def pull(client: Any, operation: str, stream: str, consumer: str, batch: int, timeout_s: float) -> list[Any]:
    """Return at most `batch` messages of a durable pull consumer within `timeout_s`, without acking any message.

    The call sends one pull request, with a reply inbox for this request alone. The server limits the time and size of
    the request. So all messages of the pull have arrived when the call returns. nats-py's `fetch` is not used: `fetch`
    does not report a deleted consumer, and can leave a delivered message unread.

    Raises:
        ToolError: the stream or consumer does not exist, or the server refuses the pull.
    """
    import nats.errors

    what = f"{operation} failed: consumer {consumer!r} of stream {stream!r}"
    reply, arrived, messages = client.new_inbox(), asyncio.Queue[Any](), list[Any]()
    inbox = await client.receive(reply, arrived.put_nowait)
    try:
        wanted = {"batch": batch, "expires": int(timeout_s * 1_000_000_000), "max_bytes": MAX_RESULT_BYTES}
        await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", dumps(wanted), reply=reply)
        with anyio.move_on_after(timeout_s + _ANSWER_GRACE_S):  # ends the wait if the status was lost
            while len(messages) < batch:
                message = await arrived.get()
                if message is None:
                    raise nats.errors.ConnectionClosedError
                status = (message.headers or {}).get("Status")
                if status is None:
                    messages.append(message)
                elif _ends(status, (message.headers or {}).get("Description", ""), what, bool(messages)):
                    break
    except BaseException:
        await ended(asyncio.ensure_future(_return(messages, arrived, inbox)))
        raise
    await _close(inbox)
    return messages


async def _return(messages: list[Any], arrived: asyncio.Queue[Any], inbox: Any) -> None:
    """Nak all messages of an interrupted pull, so that other clients get these messages at once.

    The inbox is drained before the nak. Otherwise the server could deliver a message to the same inbox again. Nobody
    reads the inbox any more, so that message would wait until the consumer's ack wait is over.
    """
    import nats.errors

    try:
        await asyncio.wait_for(inbox.drain(), _ANSWER_GRACE_S)
        while not arrived.empty():
            messages.append(arrived.get_nowait())
        await _nak(messages)
    except (nats.errors.Error, OSError, asyncio.TimeoutError):
        return  # no connection: the server redelivers the messages after the consumer's ack wait
    finally:
        await _close(inbox)


async def _close(inbox: Any) -> None:
    """End the subscription to a pull's reply inbox, in the nats-py client and at the server."""
    import nats.errors

    with suppress(nats.errors.Error):  # drained, or the connection is gone
        await inbox.unsubscribe()


async def _nak(messages: Sequence[Any]) -> None:
    import nats.errors

    with suppress(nats.errors.Error, OSError):  # no connection
        for message in messages:
            if message.reply:
                await message.nak()


def _ends(status: str, description: str, what: str, has_messages: bool) -> bool:
    """Return True if the server's status message ends a pull without an error, False if it is a heartbeat (100). Raises
    ToolError for any other status."""
    if status == "100":
        return False
    text = description.lower().replace(" ", "")
    for of_status, word, problem, kind in _REFUSED_PULLS:
        if status == of_status and word in text:
            raise ToolError(f"{what} {problem}", kind=kind, retryable=kind == "rate_limit")
    if status == "409" and "sizeexceeds" in text and not has_messages:
        raise ToolError(
            f"{what}: the next message is larger than {MAX_RESULT_BYTES} bytes; read it with another client",
            kind="resource",
        )
    if status == "409" and "maxrequest" in text:
        less = f"raise it to {MAX_RESULT_BYTES}" if "maxbytes" in text else "give a smaller 'batch' or 'timeout_ms'"
        raise ToolError(
            f"{what} has a limit below this request: {description}; {less}, or unset the limit", kind="client_error"
        )
    if status in ("404", "408", "409"):
        return True
    raise ToolError(f"{what}: {status} {description}", kind="server_error", retryable=True)


# ── settling ────────────────────────────────────────────────────────────────────────────────────


async def confirmed_acks(client: Any, messages: Sequence[Any]) -> int:
    """Ack pulled messages, and return how many the server confirmed. The server redelivers unconfirmed messages after
    the ack wait."""
    try:
        problems = await acknowledge(client, [message.reply for message in messages], ACK)
    except asyncio.CancelledError:
        await ended(asyncio.ensure_future(_nak(messages)))  # an earlier ack of a message wins over this nak
        raise
    return len(messages) - len(problems)


async def acknowledge(client: Any, ack_ids: Sequence[str], answer: bytes) -> dict[str, str]:
    """Answer pulled messages with `answer` (+ACK, -NAK, +TERM), and wait for the server's confirmations.

    Returns:
        ack id -> why the server did not confirm; empty if all were confirmed.
    """
    import nats.errors

    async def settle(ack_id: str) -> str | None:
        try:
            await client.request(ack_id, answer, timeout=_CONFIRM_S)
        except nats.errors.NoRespondersError:
            return "no such stream or consumer"
        except nats.errors.TimeoutError:
            return "the server did not confirm the answer in time"
        return None

    answers = await asyncio.gather(*(settle(ack_id) for ack_id in ack_ids))
    return {ack_id: problem for ack_id, problem in zip(ack_ids, answers, strict=True) if problem is not None}


MESSAGES: Final[Mapping[str, Operation]] = {
    "js_publish": Operation(_js_publish, ("subject",), ("data", "encoding", "headers", "stream")),
    "js_consume": Operation(_consume, ("stream", "consumer"), ("batch", "timeout_ms", "ack")),
    "js_get_msg": Operation(_get_message, ("stream",), ("seq", "subject", "last")),
    "js_stream_info": Operation(_stream_info, ("stream",)),
}
