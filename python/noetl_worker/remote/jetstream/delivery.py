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
"""Seconds to wait for the confirmation of a term before the term is sent again. A killed server silently loses sent
data, and a short wait then costs a slot one second, not five. The server confirms a repeated term like the first
(tried)."""
_ACK: Final = b"+ACK"
IN_PROGRESS: Final = b"+WPI"


class Delivery:
    """A delivery of a message by JetStream. `num_delivered` is 1 for the message's first delivery."""

    __slots__ = (
        "_client",
        "_fields",
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
        """Read a message. `received_at` is a monotonic time; `wall_offset_s` is wall-clock time minus monotonic
        time."""
        self._client = client
        self.wall_offset_s = wall_offset_s
        self.data: bytes = message.data
        self.headers: Mapping[str, str] | None = message.headers
        self.subject: str = message.subject
        self.reply: str = message.reply
        self.received_at = received_at
        tokens = message.reply.split(".")
        self._fields = fields = tokens[2:] if len(tokens) == 9 else tokens[4:]
        """Tokens of the ack subject from the stream's name on.

        The subject is $JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.<consumer sequence>.<time>.<pending>,
        or a longer one with <domain>.<account hash> after ACK.
        """
        try:
            self.num_delivered, self.stream_sequence = int(fields[2]), int(fields[3])
            self.published_at = int(fields[5]) / 1e9
        except (IndexError, ValueError):
            raise JetStreamError(f"not a JetStream delivery (reply subject {message.reply!r})") from None
        self.tries = self.num_delivered
        """Number of deliveries, not counting deliveries returned because the execution already had its share of the
        slots."""

    @classmethod
    def without_message(cls) -> Delivery:
        """Return a first delivery without a message in a stream, for a command that runs without JetStream."""
        reply = f"$JS.ACK.nobody.nobody.1.1.1.{time.time_ns()}.0"
        now = time.monotonic()
        return cls(Client(), Msg(_client=Client(), reply=reply), now, wall_offset_s=time.time() - now)

    def age_s(self) -> float:
        """Return the seconds since the stream stored the message, unaffected by a jump of this machine's wall clock.
        After a jump, a fresh message would look old, and one server error would make the message a dead letter."""
        return max(0.0, time.monotonic() + self.wall_offset_s - self.published_at)

    @property
    def undelivered(self) -> int:
        """Number of messages of the durable that no worker had received when this message was sent."""
        return int(self._fields[6])

    @property
    def message_id(self) -> str:
        """Unique id of the message: the same at each delivery, and never reused, even if the stream is made again."""
        return f"{self._fields[0]}-{self.stream_sequence}-{self._fields[5]}"

    async def ack(self) -> None:
        """Acknowledge the message, without a confirmation.

        If the ack is lost, JetStream delivers the finished command again. The worker recognises it (in_flight.py), or
        the plane answers the claim with 409.

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
        """Stop all further deliveries, and return when the server has confirmed. The server's advisory has `reason`.

        The dead letter is stored before this call, and another delivery would store it a second time.

        Raises:
            JetStreamError: the server did not confirm within 5 s; the message is delivered again.
        """
        body = b"+TERM " + excerpt(reason, 200).encode("ascii", "replace")
        for left in reversed(range(TERM_TRIES)):
            try:
                await self._client.request(self.reply, body, timeout=TERM_TRY_S)
                return
            except (nats.errors.Error, asyncio.TimeoutError, OSError) as error:
                if left == 0 or not isinstance(error, asyncio.TimeoutError):
                    raise JetStreamError(
                        f"NATS did not confirm the term of stream sequence {self.stream_sequence} ({error!r}): the "
                        "message is delivered again"
                    ) from error

    async def _publish(self, body: bytes) -> None:
        try:
            await self._client.publish(self.reply, body)
        except (nats.errors.Error, OSError) as error:
            raise JetStreamError(
                f"answer to stream sequence {self.stream_sequence} not sent ({error!r}): the message is delivered again"
            ) from error
