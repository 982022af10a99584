"""Delivery of a message, and the worker's answers to JetStream: ack, nak, term."""

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
"""Seconds to wait for the server's confirmation of a term before the worker sends the term again.

A killed server silently loses a term. With this short wait, the command's slot is then blocked for one second, not for
five. The server confirms a repeated term like the first term (tried).
"""
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
        "stored_at",
        "stream_sequence",
        "subject",
        "tries",
    )

    def __init__(self, client: Client, message: Msg, received_at: float, *, wall_offset_s: float) -> None:
        """Create a delivery from a received message.

        Args:
            received_at: monotonic time at which the message was received.
            wall_offset_s: wall-clock time minus monotonic time, in seconds.
        """
        self._client = client
        self.data: bytes = message.data
        self.headers: Mapping[str, str] | None = message.headers
        self.subject: str = message.subject
        self.reply: str = message.reply
        self.received_at = received_at
        tokens = message.reply.split(".")
        self._fields = fields = tokens[2:] if len(tokens) == 9 else tokens[4:]
        """Parts of the ack subject, split at the dots, from the stream's name on.

        The subject is $JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.<consumer sequence>.<time>.<pending>. A
        longer subject has <domain>.<account hash> after ACK.
        """
        try:
            self.num_delivered, self.stream_sequence = int(fields[2]), int(fields[3])
            self.published_at = int(fields[5]) / 1e9
        except (IndexError, ValueError):
            raise JetStreamError(f"not a JetStream delivery (reply subject {message.reply!r})") from None
        self.stored_at = min(self.published_at - wall_offset_s, received_at)
        """Monotonic time at which the stream stored the message. A jump of this machine's wall clock does not change
        the value.

        Otherwise a fresh message would look old after a jump. One server error would then make the message a dead
        letter. The value is never after `received_at`, even if the server's clock is ahead of this machine's.
        """
        self.tries = self.num_delivered
        """Number of times that this worker took the message to run its command. A delivery that the worker returned
        because the execution already used its limit of slots does not count. Until `ExecutionShare` sets this value, it
        is `num_delivered`."""

    @classmethod
    def without_message(cls) -> Delivery:
        """Return a first delivery without a message in a stream, for a command that runs without JetStream."""
        reply = f"$JS.ACK.nobody.nobody.1.1.1.{time.time_ns()}.0"
        now = time.monotonic()
        return cls(Client(), Msg(_client=Client(), reply=reply), now, wall_offset_s=time.time() - now)

    def age_s(self) -> float:
        """Return the seconds since the stream stored the message."""
        return time.monotonic() - self.stored_at

    @property
    def undelivered(self) -> int:
        """Number of messages of the durable that no worker had received when the server sent this message."""
        return int(self._fields[6])

    @property
    def message_id(self) -> str:
        """Unique id of the message, the same at each delivery. The id is never used again, even if the stream is
        deleted and made again."""
        return f"{self._fields[0]}-{self.stream_sequence}-{self._fields[5]}"

    async def ack(self) -> None:
        """Acknowledge the message, without waiting for a confirmation.

        If the ack is lost, JetStream delivers the finished command again. The worker recognises the finished command
        (in_flight.py), or the plane answers the claim with 409.

        Raises:
            JetStreamError: the connection is closed.
        """
        await self._publish(_ACK)

    async def nak(self, delay_s: float) -> None:
        """Return the message to the stream. JetStream delivers the message again after `delay_s` seconds. Only at
        shutdown is the delay 0 (protocol/jetstream.md#acknowledging)."""
        body = b'-NAK {"delay":%d}' % int(delay_s * 1_000_000_000) if delay_s > 0 else b"-NAK"
        await self._publish(body)

    async def term(self, reason: str) -> None:
        """Tell JetStream never to deliver the message again, and return when the server has confirmed this. The
        server's advisory contains `reason`.

        The worker stores the dead letter before this call. If the message were delivered again, the dead letter would
        be stored a second time.

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
                        f"NATS did not confirm the term of stream sequence {self.stream_sequence} ({error!r}): do "
                        "nothing, JetStream delivers the message again"
                    ) from error

    async def _publish(self, body: bytes) -> None:
        try:
            await self._client.publish(self.reply, body)
        except (nats.errors.Error, OSError) as error:
            raise JetStreamError(
                f"the worker could not send its ack or nak of stream sequence {self.stream_sequence} ({error!r}): do "
                "nothing, JetStream delivers the message again"
            ) from error
