"""One delivery of one message, and the four answers to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from noetl_worker.errors import JetStreamError

__all__ = ["Delivery"]

ACK_TIMEOUT_S: Final = 5.0
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
    )

    def __init__(self, client: Client, message: Msg) -> None:
        self._client = client
        self.data: bytes = message.data
        self.headers: Mapping[str, str] | None = message.headers
        self.subject: str = message.subject
        self.reply: str = message.reply
        self.received_at = time.monotonic()
        self.num_delivered, self.stream_sequence, self.published_at = _metadata(message.reply)

    def age_s(self) -> float:
        """Seconds since it was stored in the stream, by the wall clocks of server and worker."""
        return max(0.0, time.time() - self.published_at)

    async def ack(self) -> None:
        """Acknowledge and wait until the server has stored it.

        A plain ack is buffered while disconnected and may be lost without a word (peers.md 2a.11).

        Raises:
            JetStreamError: not confirmed; the message may come again, and the claim will settle that.
        """
        try:
            await self._client.request(self.reply, _ACK, timeout=ACK_TIMEOUT_S)
        except (nats.errors.Error, asyncio.TimeoutError, OSError) as error:
            raise JetStreamError(f"ack of stream sequence {self.stream_sequence} not confirmed: {error!r}") from error

    async def nak(self, delay_s: float) -> None:
        """Give it back, to come again after `delay_s`. Never without a delay but at shutdown (peers.md 2a.15)."""
        body = b'-NAK {"delay":%d}' % int(delay_s * 1_000_000_000) if delay_s > 0 else b"-NAK"
        await self._publish(body)

    async def term(self, reason: str) -> None:
        """Never deliver it again; `reason` shows in the server's advisory."""
        await self._publish(b"+TERM " + reason.encode("ascii", "replace")[:200])

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
