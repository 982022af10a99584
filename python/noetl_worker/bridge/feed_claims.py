"""The claim interface of upstream's feed, at one coordinator: one connection per filter for asking, one for
acknowledging.

A coordinator is one shard. It assigns the next command to a waiting connection, and to no other until its ack_wait is
over. So a connection that asks is half-closed, and records that still arrive are taken (protocol/feed.md#claim-face).
"""

from __future__ import annotations

import asyncio
import os
import socket
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

from noetl_worker.bridge import metrics
from noetl_worker.bridge.address import FeedAddress
from noetl_worker.bridge.frames import MOST_BYTES, framed
from noetl_worker.bridge.held_records import HeldRecord, HeldRecords
from noetl_worker.bridge.peer import Peer, PeerSilent
from noetl_worker.bridge.record import FeedRecord, NotARecord, record_of
from noetl_worker.errors import DocumentError, SettingsError
from noetl_worker.observability.outage import Outage
from noetl_worker.settings.nats import SYSTEM_POOL
from noetl_worker.text import json_text

HEARTBEAT_MS: Final = 5000
MISSED_HEARTBEATS: Final = 3
_HEAD: Final = 4
_KEPT: Final = b"1"
_ANSWER_S: Final = 10.0
log = structlog.get_logger("noetl_worker.bridge")


def check_filter(text: str, *, with_system: bool) -> str:
    """Return a filter of the feed: dotted, with `*` and `>`. Raise SettingsError if it is invalid.

    Args:
        with_system: allow a filter that takes the system pool's commands.
    """
    tokens = text.split(".")
    if not all(tokens) or any(">" in token for token in tokens[:-1]) or any(map(str.isspace, text)):
        raise SettingsError("--filter", text, "a filter of the feed, for example commands.shared.>")
    takes_all = tokens[0] == ">" or (len(tokens) > 1 and tokens[1] in ("*", ">", SYSTEM_POOL))
    if tokens[0] in ("commands", "*", ">") and takes_all and not with_system:
        raise SettingsError(
            "--filter",
            text,
            "the filters of your pools, for example commands.shared.>: this one takes the commands of the pool system, "
            "which upstream's own worker runs; --with-system allows it",
        )
    return text


class FeedClaims:
    """Takes commands from one coordinator.

    Args:
        deliver: passes a held record on.
        refusal: returns why a record cannot be taken, or None.
    """

    def __init__(
        self,
        address: FeedAddress,
        filters: Sequence[str],
        held: HeldRecords,
        deliver: Callable[[HeldRecord], None],
        refusal: Callable[[FeedRecord], str | None],
    ) -> None:
        self.address = address
        self._held, self._deliver, self._refusal = held, deliver, refusal
        self._asks = [_Ask(self, one, Peer(f"coordinator, asked for {one}", address)) for one in filters]
        self._acks = _Acks(Peer("coordinator, acknowledgements", address))
        self._in_hand: dict[tuple[int, str], HeldRecord] = {}
        """Held records by sort key and event id; a record that is assigned again meanwhile is the same one. The key is
        not enough: a coordinator that was killed gives the keys of the records that it lost to others."""
        self._room = asyncio.Event()
        self._refused = Outage()
        self.is_stopping = False
        held.on_room.append(self._room.set)

    async def run(self) -> None:
        """Ask and acknowledge until cancelled."""
        await asyncio.gather(self._acks.run(), *(ask.run() for ask in self._asks))

    async def stop(self) -> None:
        """Ask no more, and wait for the records already assigned to the asking connections."""
        self.is_stopping = True
        self._room.set()
        await asyncio.gather(*(ask.stop() for ask in self._asks))

    @property
    def is_done(self) -> bool:
        """True if every record was acknowledged."""
        return not self._in_hand and not self._acks.is_busy

    async def acknowledged(self) -> None:
        """Wait until the coordinator has answered each acknowledgement."""
        await self._acks.answered()

    async def room(self) -> None:
        """Wait until another record may be held."""
        while self._held.is_full and not self.is_stopping:
            self._room.clear()
            await self._room.wait()

    def take(self, answer: dict[str, Any]) -> None:
        """Hold a record that was assigned."""
        key = answer.get("sort_key")
        try:
            if type(key) is not int:
                raise NotARecord("the answer has no sort_key")
            record = record_of(answer.get("record"), b"")  # the body is not passed on
            if (reason := self._refusal(record)) is not None:
                raise NotARecord(reason)
        except NotARecord as error:
            metrics.REFUSED.inc()
            if (line := self._refused.note_failure(str(error))) is not None:
                log.error(
                    "bridge_record_refused",
                    address=str(self.address),
                    sort_key=key,
                    **line,
                    advice="it stays unacknowledged and is assigned again and again: see the writer's log for this key",
                )
            return
        identity = (key, record.event_id)
        if identity not in self._in_hand:
            self._in_hand[identity] = held = self._held.take(record, lambda: self._kept(identity))
            self._deliver(held)

    def _kept(self, identity: tuple[int, str]) -> None:
        self._in_hand.pop(identity, None)
        self._acks.put(identity[0])


class _Ask:
    """The connection that asks with one filter, one request at a time."""

    def __init__(self, claims: FeedClaims, filter_: str, peer: Peer) -> None:
        self._claims, self._peer = claims, peer
        fields = {"member": _member(), "filter": filter_, "heartbeat_ms": HEARTBEAT_MS}
        self._request = framed(json_text.dumps({"Next": fields}))
        self._writer: asyncio.StreamWriter | None = None
        self._is_waiting = False
        self._ended = asyncio.Event()

    async def run(self) -> None:
        await self._peer.serve(self._session)

    async def stop(self) -> None:
        if self._writer is not None and self._is_waiting:
            self._writer.write_eof()
            await self._ended.wait()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer, has_heartbeats = writer, False
        metrics.ASKING.own.inc()
        try:
            while not self._claims.is_stopping:
                await self._claims.room()
                writer.write(self._request)
                self._is_waiting, is_answered = True, False
                while not is_answered:
                    answer = _object(await _frame(reader, _SILENT_S if has_heartbeats else None))
                    self._peer.works()
                    is_answered = "heartbeat" not in answer
                    has_heartbeats = has_heartbeats or not is_answered
                self._is_waiting = False
                self._claims.take(answer)
            self._ended.set()
            await asyncio.Event().wait()  # nothing is asked for any more
        finally:
            metrics.ASKING.own.inc(-1)
            self._writer, self._is_waiting = None, False
            if self._claims.is_stopping:
                self._ended.set()


class _Acks:
    """The connection that acknowledges. Many acknowledgements are in flight, answered in order."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._unanswered: deque[int] = deque()
        self._writer: asyncio.StreamWriter | None = None
        self._wanted, self._answered = asyncio.Event(), asyncio.Event()

    async def answered(self) -> None:
        while self._unanswered:
            self._answered.clear()
            await self._answered.wait()

    @property
    def is_busy(self) -> bool:
        return bool(self._unanswered)

    def put(self, key: int) -> None:
        self._unanswered.append(key)
        self._wanted.set()
        if self._writer is not None:
            self._send(key, self._writer)

    async def run(self) -> None:
        await self._peer.serve(self._session)

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for key in self._unanswered:
            self._send(key, writer)
        self._writer = writer
        try:
            while True:
                while not self._unanswered:
                    self._wanted.clear()
                    await self._wanted.wait()
                if await _frame(reader, _ANSWER_S) != _KEPT:
                    raise PeerSilent("an acknowledgement is answered with something else")
                self._unanswered.popleft()
                self._answered.set()
                self._peer.works()
        finally:
            self._writer = None

    def _send(self, key: int, writer: asyncio.StreamWriter) -> None:
        if not writer.transport.is_closing():
            writer.write(framed(json_text.dumps({"Ack": {"sort_key": key}})))


_SILENT_S: Final = MISSED_HEARTBEATS * HEARTBEAT_MS / 1000


async def _frame(reader: asyncio.StreamReader, most_s: float | None) -> bytes:
    """Read one frame. Raise PeerSilent if that takes too long."""
    try:
        head = await asyncio.wait_for(reader.readexactly(_HEAD), most_s)
    except asyncio.TimeoutError:
        raise PeerSilent(f"nothing for {most_s:g} s") from None
    size = int.from_bytes(head, "big")
    if size > MOST_BYTES:
        raise PeerSilent(f"a frame of {size:,} bytes: no coordinator of the feed")
    return await reader.readexactly(size)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json_text.loads(body)
    except DocumentError as error:
        raise PeerSilent(f"no JSON: {error}") from None
    if not isinstance(found, dict):
        raise PeerSilent("no JSON object: no coordinator of the feed")
    return found


def _member() -> int:
    """Return a number that no other process is likely to have."""
    return zlib.crc32(f"{socket.gethostname()} {os.getpid()}".encode())
