"""One delivery of one message, and the four answers to it."""

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
"""What was in a socket when the server was killed is gone without a word: asked again, a slot waits one second for the
answer and not five. A second one is confirmed as the first (tried)."""
_ACK: Final = b"+ACK"
IN_PROGRESS: Final = b"+WPI"


class Delivery:
    """A message as delivered. `num_delivered` is 1 the first time."""

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
        """`received_at`: monotonic; `wall_offset_s`: wall clock less monotonic clock."""
        self._client = client
        self.wall_offset_s = wall_offset_s
        self.data: bytes = message.data
        self.headers: Mapping[str, str] | None = message.headers
        self.subject: str = message.subject
        self.reply: str = message.reply
        self.received_at = received_at
        self.num_delivered, self.stream_sequence, self.published_at = _metadata(message.reply)
        self.tries = self.num_delivered
        """How often a worker has tried it; below `num_delivered` where it was returned for its execution's share."""

    @classmethod
    def without_message(cls) -> Delivery:
        """The first delivery of a message that no stream has, for a command that is run without one."""
        reply = f"$JS.ACK.nobody.nobody.1.1.1.{time.time_ns()}.0"
        now = time.monotonic()
        return cls(Client(), Msg(_client=Client(), reply=reply), now, wall_offset_s=time.time() - now)

    def age_s(self) -> float:
        """Seconds since it was stored in the stream. A jump of our wall clock must not make it old: then one server
        error would set a fresh message aside."""
        return max(0.0, time.monotonic() + self.wall_offset_s - self.published_at)

    @property
    def undelivered(self) -> int:
        """Messages of the durable that nobody had been given when this one was sent."""
        tokens = self.reply.split(".")
        return int(tokens[8 if len(tokens) == 9 else 10])

    @property
    def message_id(self) -> str:
        """Of the message: the same at each delivery, and no other message's, not even one of a stream made again."""
        tokens = self.reply.split(".")
        at = 2 if len(tokens) == 9 else 4
        return f"{tokens[at]}-{self.stream_sequence}-{tokens[at + 5]}"

    async def ack(self) -> None:
        """Acknowledge. Not confirmed: an ack that is lost comes back as a delivery of a command that is finished, here
        (in_flight.py) or by the claim's 409.

        Raises:
            JetStreamError: the connection is closed.
        """
        await self._publish(_ACK)

    async def nak(self, delay_s: float) -> None:
        """Give it back, to come again after `delay_s`. Never without a delay but at shutdown
        (protocol/jetstream.md#acknowledging)."""
        body = b'-NAK {"delay":%d}' % int(delay_s * 1_000_000_000) if delay_s > 0 else b"-NAK"
        await self._publish(body)

    async def term(self, reason: str) -> None:
        """Never deliver it again; `reason` shows in the server's advisory. Returns when the server has stored that.

        Confirmed, since its dead letter is kept by then: a message that came again would be kept a second time.

        Raises:
            JetStreamError: not confirmed in 5 s; the message comes again.
        """
        body = b"+TERM " + excerpt(reason, 200).encode("ascii", "replace")
        for left in reversed(range(TERM_TRIES)):
            try:
                await self._client.request(self.reply, body, timeout=TERM_TRY_S)
                return
            except (nats.errors.Error, asyncio.TimeoutError, OSError) as error:
                if left == 0 or not isinstance(error, asyncio.TimeoutError):
                    text = f"the end of stream sequence {self.stream_sequence} is not confirmed: {error!r}"
                    raise JetStreamError(text) from error

    async def _publish(self, body: bytes) -> None:
        try:
            await self._client.publish(self.reply, body)
        except (nats.errors.Error, OSError) as error:
            raise JetStreamError(f"answer to stream sequence {self.stream_sequence} not sent: {error!r}") from error


def _metadata(reply: str) -> tuple[int, int, float]:
    """(num_delivered, stream_sequence, published_at in epoch seconds) of an ack subject.

    It has two forms, of 9 tokens, or of 11 and more:

    $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<timestamp>.<pending>, the longer form
    with <domain>.<account hash> after ACK.
    """
    tokens = reply.split(".")
    at = 4 if len(tokens) == 9 else 6
    try:
        return int(tokens[at]), int(tokens[at + 1]), int(tokens[at + 3]) / 1e9
    except (IndexError, ValueError):
        raise JetStreamError(f"not a JetStream delivery (reply subject {reply!r})") from None
