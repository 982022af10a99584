"""One delivery of one message, and the four answers to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

import nats
from nats.aio.msg import Msg

from noetl_worker.errors import JetStreamError
from noetl_worker.nats_client import Client
from noetl_worker.redaction import excerpt

__all__ = ["Delivery"]

ACK_TRIES: Final = 5
ACK_TRY_S: Final = 1.0
"""What was in a socket when the server was killed is gone without a word: asked again, a slot waits one second for its
ack and not five, and the message is not delivered a second time. A second ack is confirmed as the first (tried)."""
_ACK: Final = b"+ACK"
IN_PROGRESS: Final = b"+WPI"


class Delivery:
    """A message as delivered. `num_delivered` is 1 the first time."""

    __slots__ = (
        "_client",
        "_wall_offset_s",
        "data",
        "headers",
        "num_delivered",
        "published_at",
        "received_at",
        "reply",
        "stream_sequence",
        "subject",
    )

    def __init__(self, client: Client, message: Msg, *, wall_offset_s: float | None = None) -> None:
        """`wall_offset_s`: wall clock less monotonic clock, taken once; None takes it now."""
        self._client = client
        self._wall_offset_s = time.time() - time.monotonic() if wall_offset_s is None else wall_offset_s
        self.data: bytes = message.data
        self.headers: Mapping[str, str] | None = message.headers
        self.subject: str = message.subject
        self.reply: str = message.reply
        self.received_at = time.monotonic()
        self.num_delivered, self.stream_sequence, self.published_at = _metadata(message.reply)

    def age_s(self) -> float:
        """Seconds since it was stored in the stream. A jump of our wall clock must not make it old: then one server
        error would set a fresh message aside."""
        return max(0.0, time.monotonic() + self._wall_offset_s - self.published_at)

    async def ack(self) -> None:
        """Acknowledge and wait until the server has stored it.

        A plain ack is buffered while disconnected and may be lost without a word (peers.md 2a.11).

        Raises:
            JetStreamError: not confirmed in 5 s; the message may come again, and the claim will settle that.
        """
        for left in reversed(range(ACK_TRIES)):
            try:
                await self._client.request(self.reply, _ACK, timeout=ACK_TRY_S)
                return
            except (nats.errors.Error, asyncio.TimeoutError, OSError) as error:
                if left == 0 or not isinstance(error, asyncio.TimeoutError):
                    text = f"ack of stream sequence {self.stream_sequence} not confirmed: {error!r}"
                    raise JetStreamError(text) from error

    async def nak(self, delay_s: float) -> None:
        """Give it back, to come again after `delay_s`. Never without a delay but at shutdown (peers.md 2a.15)."""
        body = b'-NAK {"delay":%d}' % int(delay_s * 1_000_000_000) if delay_s > 0 else b"-NAK"
        await self._publish(body)

    async def term(self, reason: str) -> None:
        """Never deliver it again; `reason` shows in the server's advisory."""
        await self._publish(b"+TERM " + excerpt(reason, 200).encode("ascii", "replace"))

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
