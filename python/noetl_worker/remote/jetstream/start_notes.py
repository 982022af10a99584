"""Notes in a NATS key-value bucket about commands that have started and not ended. The notes reveal a command that
crashes every worker that starts it.

The number of deliveries does not reveal such a command: refusals, leases and drains raise that number too. So the
worker notes the start of a command before the worker parses the command, and removes the note afterwards. Only the
first delivery of a message is not noted, to save time.

Commands of every kind are noted: even a template can block the event loop until a failed probe ends the worker. The
notes are outside the worker, because a dead worker cannot write anything.

A note belongs to a command, not to a message. The Python plane publishes the command of a dead worker again in new
messages, whose deliveries count from 1 (`test_copy_that_the_python_plane_publishes_is_no_first_delivery`).

Anyone who may write to the bucket can forge notes. So the worker ignores notes beyond the number of possible starts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from datetime import datetime, timezone
from typing import Any, Final

import nats
import nats.js.errors
import structlog

from noetl_worker.errors import DocumentError, JetStreamError, ToolError
from noetl_worker.models.command import Command
from noetl_worker.models.slots import Slots
from noetl_worker.observability import metrics
from noetl_worker.remote.jetstream.api import ALREADY_THERE, ApiRefused, ask, owning_stream
from noetl_worker.remote.jetstream.client import Client
from noetl_worker.remote.jetstream.comparison import NANOSECONDS, SHARED_CONFIG
from noetl_worker.remote.jetstream.connection import Connection
from noetl_worker.remote.jetstream.message_search import get
from noetl_worker.text import json_text

BUCKET: Final = "NOETL_COMMAND_STARTS"
MOST_STARTS: Final = 3
"""Number of starts after which a command fails and is not started again, if the worker died after each start."""
_STREAM: Final = f"KV_{BUCKET}"
_SUBJECTS: Final = f"$KV.{BUCKET}.>"
_CONFIG: Final = {
    "name": _STREAM,
    "subjects": [_SUBJECTS],
    "max_msgs_per_subject": 1,
    "max_age": 24 * 3600 * NANOSECONDS,
    "max_bytes": 16 * 1024 * 1024,
    "discard": "new",
    "allow_rollup_hdrs": True,
    "allow_direct": True,
    **SHARED_CONFIG,
}
"""Configuration of the stream behind the key-value bucket of start notes, as NATS clients make it for any bucket. A
note expires after a day, later than the message of its command."""
_TRY_S: Final = 2.0
_PAUSE_S: Final = 60.0
"""Seconds for which the worker neither reads nor writes start notes, after a failed request to their bucket. A request
without permission fails only after `_TRY_S` seconds."""
_NEEDED: Final = (f"$JS.API.STREAM.CREATE.{_STREAM}", f"$JS.API.STREAM.MSG.GET.{_STREAM}", _SUBJECTS)
_FULL: Final = 10077
"""Error number (`err_code`) of JetStream for a message that would exceed a limit of its stream."""
_NOTE_CHARS: Final = 200
"""Largest number of characters of each text in the note of a command's start: a worker's name, and a time."""
_Notes = list[dict[str, str]]
"""Start notes of a command: the worker's name and the time of each start."""
_WHO_WRITES: Final = (
    f"let only the workers' login publish to {_SUBJECTS}, since somebody else writes there, and empty the bucket with "
    f"`nats stream purge {_STREAM}`"
)
log = structlog.get_logger("noetl_worker.remote.jetstream")


async def ensure_bucket(client: Client) -> bool:
    """Make the bucket of start notes if it is missing. Return whether this call made the bucket.

    Raises:
        JetStreamError: the bucket cannot be made.
    """
    # STREAM.CREATE does not tell whether the stream existed. Every worker may ask STREAM.NAMES.
    if await owning_stream(client, _SUBJECTS) == _STREAM:
        return False
    try:
        await ask(client, f"STREAM.CREATE.{_STREAM}", _CONFIG)
    except ApiRefused as refused:
        if refused.err_code in ALREADY_THERE:
            return False
        raise
    log.info("start_bucket_made", bucket=BUCKET)
    return True


class Start:
    """A start of a command, with the notes of its earlier starts."""

    def __init__(self, notes: _Notes, slots: Slots) -> None:
        self._notes = notes
        self._slots = slots
        self.exclusive: Final = ExitStack()
        """Context that is open while the command's last allowed start runs without other commands. Closing the context
        lets other commands run again."""

    @property
    def is_lost(self) -> bool:
        return len(self._notes) >= MOST_STARTS

    def check(self) -> None:
        """Raise ToolError of kind worker_lost if a worker has died after each of the last MOST_STARTS starts of this
        command."""
        if self.is_lost:
            starts = ", ".join(f"{note['worker']} at {note['at']}" for note in self._notes)
            raise ToolError(
                f"{len(self._notes)} workers in a row ended while they had this command ({starts}): it is not started "
                "again. See in the logs of these workers why they ended",
                kind="worker_lost",
            )

    def waiting(self, kind: str | None = None) -> AbstractContextManager[None]:
        """Return a context manager (`Slots.waiting`) that frees the command's slot while the command waits for other
        commands. If this command runs alone in its worker (`exclusive`), let the worker run others again."""
        self.exclusive.close()
        return self._slots.waiting(kind)


class StartNotes:
    """Reader and writer of the start notes of one worker.

    Args:
        worker: name of the worker in its notes.
    """

    def __init__(self, connection: Connection, worker: str) -> None:
        self._connection = connection
        self._worker = worker
        self._pause_until = 0.0
        self._is_warned = False
        self._is_full = False

    @asynccontextmanager
    async def noted(
        self, command: Command, slots: Slots, possible: Callable[[int], Awaitable[int]]
    ) -> AsyncIterator[Start]:
        """Note the start of a command, and remove the command's notes when the context ends.

        The last allowed start waits until this worker runs no other command. If the worker then crashes, no other
        command is blamed.

        Args:
            possible: callback that gets the number of notes, and returns how often the command can have started. Notes
                beyond that number must be forged, and are ignored.
        """
        key = f"{command.execution_id}.{command.event_id}"
        notes = await self._tried(self._read(key))
        counted = notes[: await possible(len(notes))] if notes else []
        start = Start(counted, slots)
        if notes is None or start.is_lost:  # without notes the command runs all the same
            yield start
            return
        if len(counted) == MOST_STARTS - 1:
            await slots.start_exclusive()
            start.exclusive.callback(slots.end_exclusive)
        with start.exclusive:
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            note = {"worker": self._worker, "at": now}
            await self._tried(self._write(key, [*notes, note][-MOST_STARTS:]))
            try:
                yield start
            finally:
                await self._tried(self._remove(key))

    async def _tried(self, asking: Any) -> Any:
        """Return the result of `asking`, a request to the bucket of start notes. Return None if the request failed, or
        was skipped because an earlier request just failed. A worker must work without the bucket too."""
        if time.monotonic() < self._pause_until:
            asking.close()
            return None
        try:
            return await asking
        except (JetStreamError, nats.errors.Error, asyncio.TimeoutError, OSError, ValueError) as error:
            self._pause_until = time.monotonic() + _PAUSE_S
            if not self._is_warned:
                self._is_warned = True
                log.warning(
                    "start_not_recorded",
                    bucket=BUCKET,
                    error=str(error) or type(error).__name__,
                    advice="check JetStream, or if this worker's login lacks permission, add "
                    f"{json_text.dumps(list(_NEEDED)).decode()} to its publish permissions. Until then a command that "
                    "crashes every worker is not found",
                )
            return None

    async def _read(self, key: str) -> _Notes:
        asked = {"last_by_subj": f"$KV.{BUCKET}.{key}"}
        message = await get(self._connection.client, _STREAM, asked, timeout_s=_TRY_S)
        try:
            return _parse_notes(message.data) if message is not None else []
        except (DocumentError, ValueError) as error:
            log.warning("start_notes_unreadable", bucket=BUCKET, key=key, error=str(error), advice=_WHO_WRITES)
            return []

    async def _write(self, key: str, notes: _Notes) -> None:
        """Store a command's start notes, and return when the server has confirmed them. Without the confirmation, a
        crash caused by the command could lose the notes."""
        jetstream, data = self._connection.client.jetstream(), json_text.dumps(notes)
        try:
            try:
                await jetstream.publish(f"$KV.{BUCKET}.{key}", data, timeout=_TRY_S)
            except nats.js.errors.NoStreamResponseError:
                await ensure_bucket(self._connection.client)
                await jetstream.publish(f"$KV.{BUCKET}.{key}", data, timeout=_TRY_S)
        except nats.js.errors.APIError as refused:
            if refused.err_code != _FULL:
                raise
            self._set_full(True)
        else:
            self._set_full(False)

    def _set_full(self, is_full: bool) -> None:
        metrics.START_NOTES_FULL.set(is_full)
        if is_full and not self._is_full:
            log.warning("start_bucket_full", bucket=BUCKET, advice=_WHO_WRITES)
        self._is_full = is_full

    async def _remove(self, key: str) -> None:
        """Remove the start notes of a command, without waiting for a confirmation. If the removal is lost, the notes
        expire. Until then the notes count only if the command starts again."""
        headers = {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}
        await self._connection.client.publish(f"$KV.{BUCKET}.{key}", b"", headers=headers)


def _parse_notes(data: bytes) -> _Notes:
    """Return the start notes (when which worker started a command) in a stored message. Return an empty list for empty
    data: the notes were removed. Raise ValueError for other data."""
    found = json_text.loads(data) if data else []
    if not isinstance(found, list) or len(found) > MOST_STARTS:
        raise ValueError(f"not a list of at most {MOST_STARTS} notes")
    for note in found:
        if not isinstance(note, dict) or note.keys() != {"worker", "at"}:
            raise ValueError("a note has other keys than worker and at")
        if not all(isinstance(text, str) and len(text) <= _NOTE_CHARS and text.isprintable() for text in note.values()):
            raise ValueError(f"a note has a value that is not a text of at most {_NOTE_CHARS} printable characters")
    return found
