"""Client that takes commands from a coordinator. A coordinator hands out one shard of upstream's feed of commands.

The client asks for commands on one connection per filter, and acknowledges them on a further connection. The
coordinator assigns a command to one waiting connection, and to no other until the command's ack_wait is over. So at a
stop, the client only half-closes the asking connections, and still takes the records that arrive
(protocol/feed.md#claim-face).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

from noetl_worker.bridge import metrics
from noetl_worker.bridge.address import FeedAddress
from noetl_worker.bridge.frames import framed, read_frame
from noetl_worker.bridge.held_records import HeldRecord, HeldRecords
from noetl_worker.bridge.ordered_requests import OrderedRequests
from noetl_worker.bridge.peer import Peer
from noetl_worker.bridge.record import FeedRecord, NotARecord, parse_object, parse_record
from noetl_worker.errors import SettingsError
from noetl_worker.observability.outage import Outage
from noetl_worker.settings.nats import SYSTEM_POOL
from noetl_worker.text import json_text

HEARTBEAT_MS: Final = 5000
MISSED_HEARTBEATS: Final = 3
_SILENT_S: Final = MISSED_HEARTBEATS * HEARTBEAT_MS / 1000
_ACKNOWLEDGED: Final = b"1"
log = structlog.get_logger("noetl_worker.bridge")


def check_filter(text: str, *, with_system: bool) -> str:
    """Return the filter of commands (`commands.shared.>`) unchanged, or raise SettingsError if it is invalid.

    Args:
        with_system: allow a filter that takes the system pool's commands, which upstream's own worker runs.
    """
    tokens = text.split(".")
    if not all(tokens) or any(">" in token for token in tokens[:-1]) or any(map(str.isspace, text)):
        raise SettingsError("--filter", text, "give a filter of the feed, for example commands.shared.>")
    takes_all = tokens[0] == ">" or (len(tokens) > 1 and tokens[1] in ("*", ">", SYSTEM_POOL))
    if tokens[0] in ("commands", "*", ">") and takes_all and not with_system:
        raise SettingsError(
            "--filter",
            text,
            "this filter takes the commands of the pool system, which upstream's own worker runs: give the filters of "
            "your pools, for example commands.shared.>, or allow it with --with-system",
        )
    return text


class FeedClaims:
    """Client that takes commands from one coordinator, and acknowledges each command once JetStream has stored it.

    Args:
        deliver: sends a command's record to JetStream.
        refusal: returns the reason why a record must be refused, or None to accept it.
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
        self.held, self._deliver, self._refusal = held, deliver, refusal
        member = secrets.randbits(32)  # a number that no other process is likely to have
        self._asks = [_Ask(self, one, Peer(f"coordinator, asked for {one}", address), member) for one in filters]
        self._acks = OrderedRequests(Peer("coordinator, acknowledgements", address), _read_ack_answer)
        self._in_hand: dict[tuple[int, str], HeldRecord] = {}
        """Held records by sort key and event id, to recognise a record that is assigned twice. The sort key alone is
        not enough: a coordinator that was killed reuses the sort keys of lost records."""
        self._refused = Outage()
        self.is_stopping = False

    async def run(self) -> None:
        """Request commands from the coordinator of upstream's command feed, and acknowledge them, until cancelled."""
        await asyncio.gather(self._acks.run(), *(ask.run() for ask in self._asks))

    async def stop(self) -> None:
        """Request no more commands, and wait for those that the coordinator has already assigned to this bridge."""
        self.is_stopping = True
        await asyncio.gather(*(ask.stop() for ask in self._asks))

    @property
    def is_done(self) -> bool:
        """True if each command taken from the coordinator is stored in JetStream, and the coordinator has answered each
        acknowledgement.
        """
        return not self._in_hand and not self._acks.is_busy

    async def acknowledged(self) -> None:
        """Wait until the coordinator has answered each acknowledgement."""
        await self._acks.answered()

    def take(self, answer: dict[str, Any]) -> None:
        """Pass the command record in a coordinator's answer on to JetStream. Keep the record until it is stored there.

        A record that was taken before is ignored. A record that cannot be taken is logged and not acknowledged.
        """
        key = answer.get("sort_key")
        try:
            if type(key) is not int:
                raise NotARecord("the answer has no sort_key")
            record = parse_record(answer.get("record"), b"")  # the body is not passed on
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
                    advice="the bridge cannot use this record, and the feed sends it again and again: find the sort "
                    "key in the log of upstream's writer, the program that stored the record",
                )
            return
        identity = (key, record.event_id)
        if identity not in self._in_hand:
            self._in_hand[identity] = held = self.held.take(record, lambda: self._passed_on(identity))
            self._deliver(held)

    def _passed_on(self, identity: tuple[int, str]) -> None:
        self._in_hand.pop(identity, None)
        self._acks.put(framed(json_text.dumps({"Ack": {"sort_key": identity[0]}})))


class _Ask:
    """Connection on which the bridge requests commands that match one filter from a coordinator, one at a time."""

    def __init__(self, claims: FeedClaims, filter_: str, peer: Peer, member: int) -> None:
        self._claims, self._peer = claims, peer
        fields = {"member": member, "filter": filter_, "heartbeat_ms": HEARTBEAT_MS}
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
            while True:
                await self._claims.held.wait_for_room()
                if self._claims.is_stopping:
                    break
                writer.write(self._request)
                self._is_waiting, is_answered = True, False
                while not is_answered:
                    body = await read_frame(reader, _SILENT_S if has_heartbeats else None)
                    answer = parse_object(body, "answer of the coordinator")
                    self._peer.works()
                    is_answered = "heartbeat" not in answer
                    has_heartbeats = has_heartbeats or not is_answered
                self._is_waiting = False
                self._claims.take(answer)
            self._ended.set()
            await asyncio.Event().wait()  # the connection stays open, without a further request
        finally:
            metrics.ASKING.own.inc(-1)
            self._writer, self._is_waiting = None, False
            if self._claims.is_stopping:
                self._ended.set()


async def _read_ack_answer(reader: asyncio.StreamReader) -> None:
    if await read_frame(reader) != _ACKNOWLEDGED:
        raise NotARecord(f"the coordinator answered an acknowledgement with other bytes than {_ACKNOWLEDGED!r}")
