"""Dead letters: messages that the worker terminates, stored with the reason in a separate stream.

A `term` alone would lose the message, so a dead letter with the message is stored first. A requeue publishes the
message again before it removes the dead letter.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import datetime
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from noetl_worker.errors import DocumentError, JetStreamError
from noetl_worker.models.disposition import Disposition
from noetl_worker.remote.jetstream.dead_letter_store import DeadLetterStore
from noetl_worker.remote.jetstream.delivery import Delivery
from noetl_worker.remote.jetstream.message_search import StoredMessage
from noetl_worker.settings.nats import DEAD_LETTER_SUBJECT
from noetl_worker.text import json_text

log = structlog.get_logger("noetl_worker.dead_letter")
_MAX_TEXT_BYTES: Final = 65_536
_EXCERPT_BYTES: Final = 4_096
_MAX_BASE64_BYTES: Final = 512 * 1024
"""Size in bytes of the largest message that a dead letter contains in base64. The dead letter must fit into NATS'
default max_payload of 1 MiB."""
_REPLACEMENT: Final = "\ufffd"
"""Character that the decoder puts in place of bytes that are not UTF-8."""
_OWN_FIELDS: Final = frozenset(
    (
        *("kind", "reason", "subject", "stream_sequence", "num_delivered", "worker_id", "kept_at", "headers"),
        *("notification", "notification_base64", "notification_bytes", "headers_left_out"),
    )
)
_REQUIRED: Final = ("kind", "reason", "subject")
_CREDENTIAL_HEADER: Final = re.compile(r"(proxy-)?authorization|(set-)?cookie2?|x-.*token", re.IGNORECASE)
"""Pattern for the names of headers with credentials. These headers are left out of dead letters, because a reader of
dead letters may not be allowed to use the credentials."""


@dataclass(frozen=True, repr=False)
class DeadLetters:
    """Writer of dead letters. It stores each message before the `term`, so that an operator can examine or requeue the
    message."""

    publish: Callable[[str, bytes, str], Awaitable[None]]
    """Async function that stores a dead letter (subject, body, message id) in JetStream, only once for each id."""
    worker_id: str

    async def store(self, delivery: Delivery, disposition: Disposition, ids: Mapping[str, object]) -> bool:
        """Store one message as a dead letter. Return False if JetStream did not store the dead letter. The caller must
        then not answer the message with term.

        Args:
            ids: the command's ids and the kind of its tool. Only the log has the kind of the tool, since `kind` in a
                dead letter is the kind of the disposition.
        """
        sequence, reason = delivery.stream_sequence, disposition.reason
        dead_letter = pack(
            delivery.data,
            delivery.headers,
            kind=disposition.kind.value,
            reason=reason,
            subject=delivery.subject,
            stream_sequence=sequence,
            num_delivered=delivery.num_delivered,
            worker_id=self.worker_id,
            kept_at=datetime.datetime.now(datetime.timezone.utc).isoformat(),
            **{name: value for name, value in ids.items() if name != "kind"},
        )
        try:
            await self.publish(DEAD_LETTER_SUBJECT, dead_letter, delivery.message_id)
        except (JetStreamError, asyncio.TimeoutError) as error:
            log.error(
                "dead_letter_not_kept",
                stream_sequence=sequence,
                reason=reason,
                error=str(error),
                advice="check the stream NOETL_DEAD_LETTERS with `noetl-worker doctor`; the message returns in 30 s",
                **ids,
            )
            return False
        log.error(
            "dead_letter",
            subject=delivery.subject,
            stream_sequence=sequence,
            deliveries=delivery.num_delivered,
            reason=reason,
            advice="see it with `noetl-worker dead-letters list` and `show`, then use `requeue` or `delete`",
            **ids,
        )
        return True


# ── the dead letter ──────────────────────────────────────────────────────────────────────────────────


def pack(data: bytes, headers: Mapping[str, str] | None, **fields: object) -> bytes:
    """Return a dead letter as JSON.

    {kind, reason, subject, stream_sequence, num_delivered, worker_id, kept_at, notification, notification_bytes, ...}:
    `notification` is the complete message as text. If the message is not UTF-8, has a U+FFFD or has more than 64 KiB,
    `notification` is only its start. `notification_base64` then has the complete bytes, if they are at most 512 KiB.
    `headers` is left out when empty. A header with a credential is dropped, and its name is listed in
    `headers_left_out`.

    Args:
        data: the message.
        headers: the message's headers.
        fields: the other fields of the dead letter.
    """
    text = _exact_text(data)
    dead_letter: dict[str, Any] = {
        **fields,
        "notification": data[:_EXCERPT_BYTES].decode("utf-8", "replace") if text is None else text,
        "notification_bytes": len(data),
    }
    if text is None and len(data) <= _MAX_BASE64_BYTES:
        dead_letter["notification_base64"] = base64.b64encode(data).decode("ascii")
    left_out = sorted(name for name in headers or () if _CREDENTIAL_HEADER.fullmatch(name.strip()))
    stored = {name: value for name, value in (headers or {}).items() if name not in left_out}
    if stored:
        dead_letter["headers"] = stored
    if left_out:
        dead_letter["headers_left_out"] = left_out
    return json_text.dumps(dead_letter)


def _exact_text(data: bytes) -> str | None:
    """Decode the bytes without loss. Return None if they are too long, not UTF-8, or contain a U+FFFD: a reader could
    not tell this character from a replaced byte."""
    if len(data) > _MAX_TEXT_BYTES:
        return None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if _REPLACEMENT in text else text


@dataclass(frozen=True, slots=True)
class DeadLetter:
    kind: str
    """Kind of the disposition that made the message a dead letter: the value of a DispositionKind."""
    reason: str
    """Reason why the worker gave up the message, with the plane's last answer if the plane gave one."""
    subject: str
    stream_sequence: int
    num_delivered: int
    worker_id: str
    data: bytes | None
    """The complete message, or None when it was too long to store."""
    excerpt: str
    size: int
    headers: Mapping[str, str]
    headers_left_out: tuple[str, ...]
    """Names of headers that had a credential and were left out."""
    detail: Mapping[str, Any]
    """The command's ids and step, as far as known: execution_id, command_id, event_id, step."""

    def known(self, name: str) -> str:
        """Return the id `name` (such as `execution_id`) from `detail` or from the message, or "" if neither has the
        id."""
        value = self.detail.get(name)
        if value is None and self.data is not None:
            try:
                document = json_text.loads(self.data)
            except DocumentError:
                return ""
            value = document.get(name) if isinstance(document, dict) else None
        return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""

    @classmethod
    def parse(cls, body: bytes) -> DeadLetter:
        """Read a dead letter from the JSON that `pack` has made.

        Raises:
            DocumentError: the JSON is not a dead letter of noetl-worker.
        """
        fields = json_text.loads(body)
        if not isinstance(fields, dict) or not all(isinstance(fields.get(name), str) for name in _REQUIRED):
            names = ", ".join(_REQUIRED)
            text = f"the message is not a dead letter of noetl-worker ({names} must be texts)"
            raise DocumentError("json_syntax", f"{text}: look at the message, then delete it")
        text = str(fields.get("notification") or "")
        headers, left_out = fields.get("headers"), fields.get("headers_left_out")
        return cls(
            kind=fields["kind"],
            reason=fields["reason"],
            subject=fields["subject"],
            stream_sequence=_integer(fields.get("stream_sequence")),
            num_delivered=_integer(fields.get("num_delivered")),
            worker_id=str(fields.get("worker_id") or ""),
            data=_full_data(fields, text),
            excerpt=text,
            size=_integer(fields.get("notification_bytes")),
            headers={str(name): str(value) for name, value in headers.items()} if isinstance(headers, dict) else {},
            headers_left_out=tuple(map(str, left_out)) if isinstance(left_out, list) else (),
            detail={name: value for name, value in fields.items() if name not in _OWN_FIELDS},
        )


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0


def _full_data(fields: Mapping[str, Any], text: str) -> bytes | None:
    encoded = fields.get("notification_base64")
    if isinstance(encoded, str):
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            text = (
                f"notification_base64 is not base64 ({error}): the dead letter is damaged; look at it, then delete it"
            )
            raise DocumentError("json_syntax", text) from error
    data = text.encode("utf-8", "replace")
    return data if len(data) == fields.get("notification_bytes") else None  # otherwise an excerpt


# ── requeueing ──────────────────────────────────────────────────────────────────────────────────


async def requeue(store: DeadLetterStore, stored: StoredMessage) -> tuple[str, str, int]:
    """Publish the dead letter's message again on its old subject, then remove the dead letter. The body is unchanged;
    `Nats-*` headers are left out.

    A second requeue of the same dead letter (after a lost answer, or by another operator) publishes with the same
    message id. So JetStream drops the second message.

    Returns:
        Subject, stream and sequence of the new message, which JetStream has stored.

    Raises:
        DocumentError, JetStreamError: the dead letter was not removed; the text says what to do.
    """
    dead_letter = DeadLetter.parse(stored.data)
    if dead_letter.data is None:
        raise JetStreamError(
            f"the dead letter has only the first {len(dead_letter.excerpt.encode())} of {dead_letter.size} bytes of "
            "its message: publish the complete message again, if the command stream still has it as sequence "
            f"{dead_letter.stream_sequence}"
        )
    # The server obeys Nats-* headers: with an expected sequence or an old id it would refuse the message.
    headers = {name: value for name, value in dead_letter.headers.items() if not name.lower().startswith("nats-")}
    message_id = f"noetl-requeue-{stored.sequence}-{stored.stored_at}"
    stream, sequence = await store.put_back(dead_letter.subject, dead_letter.data, headers, message_id)
    try:
        await store.remove(stored.sequence)
    except JetStreamError as error:
        text = f"the message was published as sequence {sequence} of {stream}, but its dead letter is still there"
        raise JetStreamError(f"{text} ({error}): delete the dead letter") from error
    return dead_letter.subject, stream, sequence
