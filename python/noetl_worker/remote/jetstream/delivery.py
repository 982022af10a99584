"""Delivery of a message, and the answers to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

import nats
from nats.aio.msg import Msg

from noetl_worker.errors import JetStreamError
from noetl_worker.remote.jetstream.client import Client
from noetl_worker.text.secrets.redaction import excerpt

TERM_TRIES: Final = 5
TERM_TRY_S: Final = 1.0
"""Time for one try of a term. A killed server silently loses socket data; with a second try, a slot waits one second
for the answer and not five. A second term is confirmed like the first (tried)."""
_ACK: Final = b"+ACK"
IN_PROGRESS: Final = b"+WPI"


class Delivery:
    """Message as delivered. `num_delivered` is 1 the first time."""

    __slots__ = (
        "_client",
        "data",
        "headers",
        "num_delivered",
        "published_at",
        "received_at",
        "reply",
        "stream_sequence",
        "subject",
        "tries",
        "wall_offset_s",
    )

    def __init__(self, client: Client, message: Msg, received_at: float, *, wall_offset_s: float) -> None:
        """Read a message. `received_at` is monotonic; `wall_offset_s` is the wall clock less the monotonic one."""
        self._client = client
        self.wall_offset_s = wall_offset_s
        self.data: bytes = message.data
        self.headers: Mapping[str, str] | None = message.headers
        self.subject: str = message.subject
        self.reply: str = message.reply
        self.received_at = received_at
        self.num_delivered, self.stream_sequence, self.published_at = _metadata(message.reply)
        self.tries = self.num_delivered
        """Number of tries by workers; below `num_delivered` if the message was returned for its execution's share."""

    @classmethod
    def without_message(cls) -> Delivery:
        """Return a first delivery without a message in a stream, for a command that runs without JetStream."""
        reply = f"$JS.ACK.nobody.nobody.1.1.1.{time.time_ns()}.0"
        now = time.monotonic()
        return cls(Client(), Msg(_client=Client(), reply=reply), now, wall_offset_s=time.time() - now)

    def age_s(self) -> float:
        """Return the seconds since storage in the stream. A jump of our wall clock must not change them: one server
        error would then set a fresh message aside."""
        return max(0.0, time.monotonic() + self.wall_offset_s - self.published_at)

    @property
    def undelivered(self) -> int:
        """Messages of the durable that nobody had received when this one was sent."""
        tokens = self.reply.split(".")
        return int(tokens[8 if len(tokens) == 9 else 10])

    @property
    def message_id(self) -> str:
        """Unique id of the message: the same at each delivery, and never reused, even if the stream is made again."""
        tokens = self.reply.split(".")
        at = 2 if len(tokens) == 9 else 4
        return f"{tokens[at]}-{self.stream_sequence}-{tokens[at + 5]}"

    async def ack(self) -> None:
        """Acknowledge, unconfirmed. After a lost ack the finished command is delivered again, and recognised here
        (in_flight.py) or by the claim's 409.

        Raises:
            JetStreamError: the connection is closed.
        """
        await self._publish(_ACK)

    async def nak(self, delay_s: float) -> None:
        """Return the message to the stream, for delivery after `delay_s`, which is 0 only at shutdown
        (protocol/jetstream.md#acknowledging)."""
        body = b'-NAK {"delay":%d}' % int(delay_s * 1_000_000_000) if delay_s > 0 else b"-NAK"
        await self._publish(body)

    async def term(self, reason: str) -> None:
        """Stop all further deliveries, and return when the server has confirmed. `reason` shows in its advisory.

        The dead letter is already kept by then: a message delivered again would be kept a second time.

        Raises:
            JetStreamError: not confirmed in 5 s; the message is delivered again.
        """
        body = b"+TERM " + excerpt(reason, 200).encode("ascii", "replace")
        for left in reversed(range(TERM_TRIES)):
            try:
                await self._client.request(self.reply, body, timeout=TERM_TRY_S)
                return
            except (nats.errors.Error, asyncio.TimeoutError, OSError) as error:
                if left == 0 or not isinstance(error, asyncio.TimeoutError):
                    text = f"NATS did not confirm the term of stream sequence {self.stream_sequence}: {error!r}"
                    raise JetStreamError(text) from error

    async def _publish(self, body: bytes) -> None:
        try:
            await self._client.publish(self.reply, body)
        except (nats.errors.Error, OSError) as error:
            raise JetStreamError(f"answer to stream sequence {self.stream_sequence} not sent: {error!r}") from error


def _metadata(reply: str) -> tuple[int, int, float]:
    """Return (num_delivered, stream_sequence, published_at in epoch seconds) of an ack subject.

    The subject has 9 tokens,
    $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<timestamp>.<pending>, or 11 and more, with
    <domain>.<account hash> after ACK.
    """
    tokens = reply.split(".")
    at = 4 if len(tokens) == 9 else 6
    try:
        return int(tokens[at]), int(tokens[at + 1]), int(tokens[at + 3]) / 1e9
    except (IndexError, ValueError):
        raise JetStreamError(f"not a JetStream delivery (reply subject {reply!r})") from None
