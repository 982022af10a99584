"""The answer of `noetl-worker why`: all that this machine, NATS and the control plane know of a command or execution.

Asking changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from noetl_worker.authoring.run_page.inference import inferred_end
from noetl_worker.cli.nats_connection import connected
from noetl_worker.envelope import decode_notification
from noetl_worker.errors import (
    ControlPlaneError,
    DocumentError,
    JetStreamError,
    NotificationError,
    ServerRefused,
    TransportError,
)
from noetl_worker.models.notification import Envelope
from noetl_worker.models.wire import context_of, has_next_page, read_events
from noetl_worker.pipeline.delivery.dead_letter import DeadLetter
from noetl_worker.pipeline.outbox.directory import outbox_directory
from noetl_worker.pipeline.outbox.reading import read_outboxes
from noetl_worker.remote.jetstream.comparison import config_filters
from noetl_worker.remote.jetstream.consumer import Found, find
from noetl_worker.remote.jetstream.dead_letter_store import DeadLetterStore
from noetl_worker.remote.jetstream.message_search import Search, StoredMessage, search_newest, search_subject
from noetl_worker.remote.plane.client import ControlPlaneClient, Plane, if_there
from noetl_worker.remote.transport.opening import open_transport
from noetl_worker.settings.nats import SYSTEM_POOL, covers, read_pool
from noetl_worker.settings.settings import Settings
from noetl_worker.text.secrets import redaction
from noetl_worker.worker.probe_addresses import addresses_here, ask_workers

_ENDS: Final = ("command.completed", "command.failed")
_SHOWN: Final = frozenset({"command.issued", "command.claimed", "command.started", "call.done", "call.error", *_ENDS})
_MOST_CHARS: Final = 300
_BEYOND: Final = "acknowledged, or passed over"
"""Text for a command's message that the durable consumer will not deliver again.

The message was acknowledged, or the durable consumer's filters exclude it.
"""
_SOURCES: Final = ("plane", "machine", "NATS")
"""Sources that `why` asks about a command, most trusted first. `why` shows the first conclusion that it gets."""


@dataclass(frozen=True, slots=True)
class Fact:
    source: str
    """Source of the fact: `machine` (this machine's workers and outbox), `NATS` or `plane` (the control plane)."""
    at: str
    """Time at which the fact happened (RFC 3339); empty if unknown, or for a fact about the present."""
    text: str


@dataclass(slots=True)
class Story:
    """The answer of `noetl-worker why`: all known facts about a command or execution, and the conclusion from them."""

    command_id: str
    conclusion: str = ""
    is_known: bool = False
    """True if at least one source knows the id."""
    execution_id: int | None = None
    event_id: int | None = None
    facts: list[Fact] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    """Sources that could not be asked, each with the reason."""


class Diagnosis:
    """Search for what became of one command or execution. The caller calls either `ask` or `ask_plane_alone`, once."""

    def __init__(self, settings: Settings, command_id: str, *, execution_id: int | None = None, most: int) -> None:
        """Prepare the search for an id.

        Args:
            command_id: id of the command, or of an execution.
            execution_id: execution of the command, if it is known.
            most: number of messages to search at most, from the newest message of the stream back.
        """
        self._settings, self._most = settings, most
        self._story = Story(command_id, execution_id=execution_id or _execution_in(command_id))
        self._conclusions: dict[str, str] = {}
        """The conclusion about the command or execution that each source (`plane`, `machine` or `NATS`) gives, by
        source. `_add_fact` keeps the first conclusion of a source."""
        self._running = "is RUNNING"
        self._infers_completion = self._may_be_passed_over = False
        self._unanswered = ""
        """Text that says that no control plane answers; empty if a control plane has answered."""

    async def ask(self) -> Story:
        """Collect the facts from the outbox, this machine's workers, NATS and the control plane.

        A source that cannot be asked raises nothing: `Story.unknown` names the source.
        """
        self._ask_outbox()
        await self._ask_workers()
        await self._ask_nats()
        await self._ask_plane()
        why = self._unanswered or "it is over and forgotten, or was never published here"
        return self._conclude(f"nothing is known of it: {why}")

    async def ask_plane_alone(self, *, is_interrupted: bool) -> Story:
        """Collect only the facts from the control plane, which the caller has started to serve a stored run of `dev`.

        Args:
            is_interrupted: the stored run was interrupted, although the plane shows it as running.
        """
        self._running = "was interrupted" if is_interrupted else self._running
        await self._ask_plane()
        return self._conclude("the control plane knows nothing of it")

    def _conclude(self, otherwise: str) -> Story:
        story, found = self._story, self._conclusions
        story.facts.sort(key=lambda fact: _SOURCES.index(fact.source))
        story.conclusion = redaction.redact_text(next((found[one] for one in _SOURCES if one in found), otherwise))
        return story

    def _add_fact(self, source: str, text: str, at: str = "", *, conclusion: str = "") -> None:
        self._story.facts.append(Fact(source, at, redaction.redact_text(text)))
        self._story.is_known = True
        if conclusion:
            self._conclusions.setdefault(source, conclusion)

    def _add_gap(self, text: str) -> None:
        self._story.unknown.append(redaction.redact_text(text))

    def _is_sought(self, command_id: object) -> bool:
        return str(command_id) == self._story.command_id

    # ── this machine ──

    async def _ask_workers(self) -> None:
        """Ask each worker on this machine, at its probe port, whether it is running the command."""
        addresses = addresses_here(self._settings.metrics_bind, outbox_directory(self._settings.outbox_dir))
        for look in await ask_workers(addresses):
            name = (look.get("worker") or {}).get("worker_id", "a worker")
            for command in look.get("commands") or ():
                if self._is_sought(command.get("command_id")):
                    self._add_fact(
                        "machine",
                        f"{name} at {look['address']} has it: {command.get('stage')}, for {command.get('seconds')} s, "
                        f"delivery {command.get('deliveries')}",
                        conclusion=f"a worker of this machine has it: {command.get('stage')}",
                    )
                    self._story.execution_id = self._story.execution_id or int(command["execution_id"])
                    self._story.event_id = self._story.event_id or int(command["event_id"])

    def _ask_outbox(self) -> None:
        try:
            view = read_outboxes(outbox_directory(self._settings.outbox_dir))
        except OSError as error:
            self._add_gap(f"the outbox: {error}")
            return
        for kept in view.outcomes:
            if not self._is_sought(kept.command_id):
                continue
            owner = "a worker that runs" if kept.is_owned else "a dead process: the next worker here sends it"
            self._add_fact(
                "machine",
                f"its outcome is in the outbox {kept.file.name}, for {kept.place}, of {owner}",
                conclusion="it ran, and its outcome waits in the outbox of this machine for the control plane to "
                "accept it",
            )
            if kept.event_set is not None:
                self._story.execution_id = self._story.execution_id or kept.event_set.execution_id
                self._story.event_id = kept.event_set.event_id

    # ── NATS ──

    async def _ask_nats(self) -> None:
        try:
            async with connected(self._settings, "noetl-worker why") as connection:
                found = await find(connection.client, self._settings)
                try:
                    await self._ask_dead_letters(DeadLetterStore(connection))
                except JetStreamError as error:  # the login may have no permission to read dead letters
                    self._add_gap(f"the dead letters: {error}")
                if found.stream_info is not None:
                    self._note_messages(await self._search(connection.client, found.stream), found)
        except (JetStreamError, OSError) as error:
            self._add_gap(str(error))

    async def _ask_dead_letters(self, store: DeadLetterStore) -> None:
        stream = await store.stream()
        if stream is None:
            return
        async for kept in store.dead_letters(stream):
            try:
                dead_letter = DeadLetter.parse(kept.data)
            except DocumentError:
                continue
            if self._is_sought(dead_letter.known("command_id")):
                self._add_fact(
                    "NATS",
                    f"dead letter {kept.sequence}: {dead_letter.reason} ({dead_letter.num_delivered} deliveries, "
                    f"kept by {dead_letter.worker_id})",
                    kept.stored_at,
                    conclusion=f"it was kept as dead letter {kept.sequence}: noetl-worker dead-letters show "
                    f"{kept.sequence}",
                )
                self._learn(_read_notification(dead_letter.data or b""))

    async def _search(self, client: Any, stream: str) -> Search:
        """Find the command's message in the stream.

        On the Rust plane the subject ends in the execution's id, so messages with this subject are searched first. If
        none matches, the newest messages of the stream are searched.
        """
        sought = self._story.command_id.encode()

        def matches(data: bytes) -> bool:
            known = _read_notification(data) if sought in data else None
            return known is not None and self._is_sought(known.command_id)

        execution_id = self._story.execution_id
        if execution_id is not None:
            for subject in (
                f"{self._settings.nats_subject}.*.{execution_id}",
                f"{self._settings.nats_subject}.*.*.*.{execution_id}",
            ):
                search = await search_subject(client, stream, subject, matches)
                if search.found:
                    return search
        return await search_newest(client, stream, matches, most=self._most)

    def _note_messages(self, search: Search, found: Found) -> None:
        for message in search.found:
            self._learn(_read_notification(message.data))
            state, conclusion = _state(message, found, self._settings)
            self._may_be_passed_over |= state == _BEYOND
            text = f"message {message.sequence} of {found.stream} on {message.subject}: {state}"
            self._add_fact("NATS", text, message.stored_at, conclusion=conclusion)
        if not search.found:
            rest = search.there - search.looked_at
            more = f", {rest} older ones were not looked through (--messages)" if rest > 0 else ""
            self._story.facts.append(
                Fact("NATS", "", f"no message of it among the newest {search.looked_at} of {found.stream}{more}")
            )

    def _learn(self, notification: Envelope | None) -> None:
        if notification is not None:
            self._story.execution_id, self._story.event_id = notification.execution_id, notification.event_id

    # ── the control plane ──

    async def _ask_plane(self) -> None:
        story = self._story
        try:
            async with ControlPlaneClient(open_transport(self._settings, max_connections=2), self._settings) as client:
                plane = await client.plane("")
                self._infers_completion = plane.rules.infers_completion
                if story.execution_id is not None:
                    self._note_command(await plane.execution_detail(story.execution_id))
                elif (detail := await _execution_named(plane, story.command_id)) is not None:
                    self._note_execution(detail)
                else:
                    self._add_gap("the control plane: no source names the execution; give --execution")
        except ServerRefused as error:
            self._add_gap(f"execution {story.execution_id}: {error}")
        except ControlPlaneError as error:
            self._add_gap(f"the control plane: {error}")
            if isinstance(error, TransportError):
                self._unanswered = f"no control plane answers at {self._settings.server_url} (NOETL_SERVER_URL)"

    def _note_execution(self, detail: Mapping[str, Any]) -> None:
        """Add a fact for each claimed command of the execution: how the command ended, or that it has not ended."""
        story = self._story
        story.execution_id = int(story.command_id)
        errors: dict[str, str] = {}
        running: dict[str, Mapping[str, Any]] = {}
        failed = []
        for event in _sorted_events(detail):
            node, command_id = event.get("node_name"), str(context_of(event).get("command_id"))
            errors[command_id] = _error_text(event) or errors.get(command_id, "")
            if event.get("event_type") == "command.claimed":
                running[command_id] = event
            elif event.get("event_type") in _ENDS:
                running.pop(command_id, None)
                text = f"{node} {_end_text(event)}" + (f": {errors[command_id]}" if errors[command_id] else "")
                self._add_fact("plane", text[:_MOST_CHARS] + _ids_text(event), str(event.get("created_at") or ""))
                failed += [text] if errors[command_id] else []
        for claim in running.values():
            self._add_fact("plane", f"{claim.get('node_name')} was claimed and has no end{_ids_text(claim)}")
        reason = f"; first {failed[0]}" if failed else f": {detail['error']}" if detail.get("error") else ""
        story.is_known = True
        self._conclusions["plane"] = f"{self._state_text(detail)}{reason}"
        if has_next_page(detail):
            self._add_gap(f"execution {story.execution_id} has more events than its newest page")

    def _state_text(self, detail: Mapping[str, Any]) -> str:
        status = detail.get("status")
        word = self._running if status == "RUNNING" else f"is {status}"
        if self._infers_completion and (inferred := inferred_end(status, _sorted_events(detail))):
            word = f"is {status} ({inferred})"
        return f"execution {self._story.execution_id} of {detail.get('path')} {word}"

    def _note_command(self, detail: Mapping[str, Any]) -> None:
        events = [event for event in _sorted_events(detail) if self._is_of_command(event)]
        for event in events:
            self._add_fact("plane", _event_text(event), str(event.get("created_at") or ""))
        ends = [event for event in events if event.get("event_type") in _ENDS]
        claims = [event for event in events if event.get("event_type") == "command.claimed"]
        self._story.facts.append(Fact("plane", "", self._state_text(detail)))
        if ends:
            self._conclusions["plane"] = (
                f"it {_end_text(ends[-1])}, by {_worker(events)}: the control plane has its end"
            )
        elif claims:
            self._conclusions["plane"] = f"it was claimed by {_worker(events)}, and the control plane has no end of it"
        elif self._may_be_passed_over and events:
            self._conclusions["plane"] = (
                "it was never claimed, and the durable has gone past its message: the durable had other filters or "
                "another start then; `noetl-worker nats ensure` says how to get the command"
            )
        if not events and has_next_page(detail):
            self._add_gap(
                f"execution {self._story.execution_id} has more events than its newest page, and that page "
                "does not name the command"
            )

    def _is_of_command(self, event: Mapping[str, Any]) -> bool:
        if event.get("event_type") not in _SHOWN:
            return False
        if event.get("event_type") == "command.issued":
            return str(event.get("event_id")) in (str(self._story.event_id), self._story.command_id.rpartition(":")[2])
        return self._is_sought(context_of(event).get("command_id"))


async def _execution_named(plane: Plane, name: str) -> Mapping[str, Any] | None:
    """Return the execution whose id is `name`; None if the plane has no such execution."""
    if not (name.isascii() and name.isdigit()):
        return None
    return await if_there(plane.execution_detail(int(name)))


def _sorted_events(detail: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return an execution's events, the oldest first. The Python plane lists the newest first."""
    events = read_events(detail)
    return sorted(events, key=lambda event: (str(event.get("created_at")), int(event.get("event_id") or 0)))


def _execution_in(command_id: str) -> int | None:
    """Return the execution's id from a Rust command's id `<execution>:<step>:<event>`; None for any other id."""
    head, colon, _ = command_id.partition(":")
    return int(head) if colon and head.isdecimal() else None


def _read_notification(data: bytes) -> Envelope | None:
    try:
        return decode_notification(data)
    except NotificationError:
        return None


def _state(message: StoredMessage, found: Found, settings: Settings) -> tuple[str, str]:
    """Return two texts for people: the delivery state of a command's message, and the conclusion from this state.

    JetStream does not tell whether a message was delivered. So both texts are inferred from the stream positions up to
    which the durable consumer has delivered and acknowledged messages.
    """
    info = found.durable_info
    if info is None:
        return f"there is no durable {found.durable}", f"nobody pulls it: there is no durable {found.durable}"
    filters = config_filters(info["config"])
    if filters and not any(covers(pattern, message.subject) for pattern in filters):
        state = f"durable {found.durable} does not get this subject (its filters: {', '.join(filters)})"
        return state, f"it is for another pool: {state}"
    if not settings.has_system_pool and read_pool(message.subject, settings.nats_subject) == SYSTEM_POOL:
        state = f"passed over by the workers of durable {found.durable}, whose settings do not name {SYSTEM_POOL}"
        return state, f"it is for another pool: {state}"
    delivered = int((info.get("delivered") or {}).get("stream_seq") or 0)
    floor = int((info.get("ack_floor") or {}).get("stream_seq") or 0)
    pending = int(info.get("num_ack_pending") or 0)
    if message.sequence > delivered:
        waiting = int(info.get("num_pending") or 0)
        return f"not delivered yet ({waiting} messages wait)", "it waits in the stream: no worker has got it yet"
    if message.sequence <= floor or not pending:
        return _BEYOND, "it was acknowledged, or passed over by other filters of the durable; the plane knows which"
    state = f"delivered; {pending} of the durable are not acknowledged, it may be one of them"
    return state, "it was delivered; a worker has it, or has given it back for a while"


def _ids_text(event: Mapping[str, Any]) -> str:
    return f" (command {context_of(event).get('command_id')}, event {event.get('event_id')})"


def _event_text(event: Mapping[str, Any]) -> str:
    worker, error = context_of(event).get("worker_id"), _error_text(event)
    parts = [
        f"{event.get('event_type')} ({event.get('status')}), event {event.get('event_id')}",
        f"by {worker}" if worker else "",
        f"error: {error}" if error else "",
    ]
    return ", ".join(filter(None, parts))[:_MOST_CHARS]


def _error_text(event: Mapping[str, Any]) -> str:
    context = context_of(event)
    return str(event.get("error") or context.get("error") or context_of(context).get("error") or "")


def _end_text(end: Mapping[str, Any]) -> str:
    """Describe how a command ended, from its command.completed or command.failed event.

    On the Rust plane a command is completed even if its tool failed. The event then has the tool's status.
    """
    if end["event_type"] == "command.failed":
        return "failed"
    status = str(context_of(end).get("status")).lower()
    return f"completed with status {status}" if status in ("error", "timeout") else "completed"


def _worker(events: Sequence[Mapping[str, Any]]) -> str:
    """Return the name of the worker that ran a command, from the newest event that names a worker, or else `a worker`.

    All events are searched, since on the Python plane the command.claimed event names no worker.
    """
    workers = (context_of(event).get("worker_id") for event in reversed(events))
    return str(next(filter(None, workers), "a worker"))
