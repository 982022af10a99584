"""What must hold in every run, watched while it happens and checked at its end."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from noetl_worker.models import Dialect
from noetl_worker.remote.plane.python.store import unpacked
from simulate.clock import Clock, Process
from simulate.jetstream_model import Consumer, JetStream, Peer, Stored, Stream
from simulate.nats_link import Session
from simulate.plane import Command, Plane, TerminalSet
from simulate.schedule import WORKERS
from simulate.trace import Trace
from simulate.worker_process import WorkerProcess

_TOLD: Final = ("call.done", "call.error", "command.completed", "command.failed")
DEAD_LETTERS: Final = "noetl.dead_letters"
EXPIRY_GRACE_S: Final = 2.0
EXITS: Final = (0, 4)


@dataclass(slots=True)
class _Told:
    """What one process has sent about one command."""

    ended_at: float | None = None
    runs: int = 0
    """How often the command's tool had run here when the end was sent."""


@dataclass(slots=True)
class _Given:
    """One delivery."""

    process: Process
    ack_wait_s: float
    received_at: float = math.inf
    expired_at: float = math.inf
    is_answered: bool = False

    @property
    def is_known_to_be_lost(self) -> bool:
        """It expired, and whoever has it can tell by its own clock: what came late may expire sooner than it seems."""
        return self.expired_at - self.received_at > self.ack_wait_s - 0.1


class Witness:
    """Sees every request, delivery and answer; `violations` is empty when all is well."""

    def __init__(self, clock: Clock, trace: Trace, plane: Plane, server: JetStream) -> None:
        self._clock = clock
        self._trace = trace
        self._plane = plane
        self._server = server
        self.violations: list[str] = []
        self.refused: Sequence[tuple[float, str]] = ()
        """When which worker was refused a connection."""
        self.known: Mapping[tuple[Process, str], float] = {}
        """When which process was first told that the end of an execution's command is accepted."""
        self.deliveries: dict[str, int] = {}
        self.excused_until: dict[str, float] = {}
        self.closing_at = math.inf
        """When the workers are stopped at the end of the run."""
        self._told: dict[tuple[Process, str], _Told] = {}
        self._given: dict[str, dict[tuple[Consumer, int], list[_Given]]] = {}
        """Step -> (consumer, sequence) -> its deliveries."""
        self._by_reply: dict[str, _Given] = {}

    def violate(self, text: str) -> None:
        self._trace.note("VIOLATION", text)
        self.violations.append(text)

    # ── while it happens ──

    def sent(self, process: Process, path: str, body: Mapping[str, Any]) -> None:
        """A request leaves a worker."""
        if path in ("/api/events", "/api/events/batch"):
            names, command = self._read(body)
            if command is not None:
                self._told_in_order(process, command, names)
                self._told_as_its_own(process, command, names, body["worker_id"])

    def _read(self, body: Mapping[str, Any]) -> tuple[list[str], Command | None]:
        if "events" in body:
            items = body["events"]
            found = [str(item["payload"].get("command_id")) for item in items]
            return [str(item["name"]) for item in items], self._plane.by_id.get(found[0]) if found else None
        command = self._plane.by_id.get(str((body.get("meta") or {}).get("command_id")))
        return [str(body["event_type"])], command

    def _told_of(self, process: Process, command: Command) -> _Told:
        return self._told.setdefault((process, str(command.command_id)), _Told())

    def _told_in_order(self, process: Process, command: Command, names: Sequence[str]) -> None:
        told = self._told_of(process, command)
        runs_here = sum(1 for _, name in command.runs if name == process.name)
        is_end = bool(set(names) & set(_TOLD))
        if "command.started" in names and not is_end and told.ended_at is not None and told.runs == runs_here:
            self.violate(f"{process.name} sends the start of {command.step} after its end")
        if is_end and (told.ended_at is None or told.runs != runs_here):
            told.ended_at, told.runs = self._clock.now, runs_here
            self._asked_first(process, command)

    def _told_as_its_own(self, process: Process, command: Command, names: Sequence[str], worker_id: str) -> None:
        """Who asked, and heard that the command is another's or over, has nothing to tell any more. An answer that was
        lost on its way is asked for again: the last one counts. A set of its own that the plane has stored already is
        over too: sent again, because its answer was lost, it is no other set."""
        is_stored = any(one.worker_id == worker_id for one in command.sets)
        if set(names) & set(_TOLD) and worker_id in command.refused_at and not is_stored:
            at = command.refused_at[worker_id]
            self.violate(f"{process.name} tells the end of {command.step}, of which it was told at {at:g} to keep off")

    def _asked_first(self, process: Process, command: Command) -> None:
        """Whose delivery has expired asks for the claim before it reports (docs/delivery.md, F12)."""
        holder = (command.holder or "").partition("-")[0]
        if holder == process.name:
            return  # nobody else has it: asking would have changed nothing
        for given in self._given.get(command.step, {}).values():
            for one in given:
                if one.process is not process or one.is_answered or not one.is_known_to_be_lost:
                    continue
                asked = [at for at, name in command.asked if name == process.name and at > one.expired_at]
                if not asked and self._clock.now - one.expired_at > EXPIRY_GRACE_S:
                    self.violate(f"{process.name} tells the end of {command.step} unasked: {holder} has it by now")

    def delivered(self, consumer: Consumer, stored: Stored, peer: Peer, reply: str) -> None:
        """A message leaves the server."""
        step = _step(stored)
        if isinstance(peer, Session):
            given = self._given.setdefault(step, {}).setdefault((consumer, stored.sequence), [])
            one = self._by_reply[reply] = _Given(peer.client.process, consumer.ack_wait_s)
            given.append(one)
        count = consumer.delivered[stored.sequence]
        self._trace.note("nats", f"gives {step} (sequence {stored.sequence}, {count}) to {peer.name}")
        self.deliveries[step] = self.deliveries.get(step, 0) + 1

    def received(self, reply: str) -> None:
        """A delivery is in the hands of its worker."""
        if reply in self._by_reply:
            self._by_reply[reply].received_at = self._clock.now

    def expired(self, stored: Stored, peer: Peer) -> None:
        """A delivery had no sign of life for ack_wait: the keepalive prevents that, unless something is broken."""
        step = _step(stored)
        self._trace.note("nats", f"misses {peer.name}'s answer to {step} (sequence {stored.sequence})")
        for (_, sequence), given in self._given.get(step, {}).items():
            for one in given:
                if sequence == stored.sequence and isinstance(peer, Session) and one.process is peer.client.process:
                    one.expired_at = min(one.expired_at, self._clock.now)
        if self._clock.now > self.excused_until.get(peer.name, 0.0):
            self.violate(f"{peer.name} let {step} expire, and nothing was wrong with it")

    def excuse(self, name: str, until: float) -> None:
        """A fault keeps this worker (or "*") from answering until then."""
        for one in (name,) if name != "*" else WORKERS:
            self.excused_until[one] = max(until, self.excused_until.get(one, 0.0))

    def answered(self, stream: Stream, stored: Stored, peer: Peer, text: str) -> None:
        """An answer of a worker reaches the server."""
        if text == "+WPI":
            return
        step = _step(stored)
        self._trace.note(peer.name, f"{text[:60]} of {step} (sequence {stored.sequence}) arrives")
        for (_, sequence), given in self._given.get(step, {}).items():
            for one in given:
                if sequence == stored.sequence and isinstance(peer, Session) and one.process is peer.client.process:
                    one.is_answered = True
        command = self._command(stored)
        if text == "+ACK" and (command is None or not (command.is_terminal or command.endings)):
            status = "unknown" if command is None else command.status
            self.violate(f"{peer.name} acks {step}, which is {status} for the plane")
        if text.startswith("+TERM"):
            self._terminated(stored, command, step)

    def _terminated(self, stored: Stored, command: Command | None, step: str) -> None:
        if stored.sequence not in self._dead_letters():
            self.violate(f"{step} is terminated without a dead letter")
        if command is not None and not command.is_refused:
            self.violate(f"{step} is a dead letter, though it could run: {self._dead_letters().get(stored.sequence)}")

    def _command(self, stored: Stored) -> Command | None:
        try:
            return self._plane.commands.get(json.loads(stored.data)["event_id"])
        except ValueError:
            return None

    def _dead_letters(self) -> dict[int, str]:
        """Sequence of the message -> the reason that is kept with it."""
        stream = next((one for one in self._server.streams.values() if DEAD_LETTERS in one.subjects), None)
        dead_letters = [json.loads(one.data) for one in stream.messages.values()] if stream is not None else []
        return {dead_letter["stream_sequence"]: str(dead_letter["reason"]) for dead_letter in dead_letters}

    # ── at the end ──

    def check(self, lives: Sequence[WorkerProcess], errors: Sequence[str]) -> None:
        """Everything is quiet and every worker has been stopped."""
        for command in self._plane.commands.values():
            self._ended_once(command, lives)
            self._ran_as_often_as_it_may(command)
            self._result_is_whole(command)
            self._not_cut_off(command, lives)
            for problem in command.problems:
                self.violate(f"{command.step}: {problem}")
        for life in (one for one in lives if not one.process.is_dead):
            if life.exit not in EXITS and not isinstance(life.exit, str):
                self.violate(f"{life.process.name} has not ended: {life.exit}")
            for task in life.process.tasks:
                self.violate(f"{life.process.name} leaves a task: {task.get_coro()}")
        for error in errors:
            self.violate(f"nobody handled: {error}")

    def _ended_once(self, command: Command, lives: Sequence[WorkerProcess]) -> None:
        if command.is_refused:
            if command.sets:
                self.violate(f"{command.step} has an end that the plane refused")
            return
        if not command.endings:
            if self.is_named(command):
                self._trace.note("world", f"{command.step} is lost, and named")
            elif self.is_excused(command, lives):
                self._trace.note("world", f"{command.step} is lost: its teller died before the rescue")
            else:
                self.violate(
                    f"{command.step} has no end that is acted on: {command.status}, {len(command.sets)} stored"
                )
            return
        end = command.endings[0]
        if self._plane.dialect is Dialect.RUST and len(command.sets) > 1:
            self.violate(f"{command.step} has {len(command.sets)} ends: {', '.join(one.mark for one in command.sets)}")
        again = [one for one in command.sets if one is not end and one.at > end.at and one.worker_id == end.worker_id]
        if again and self._plane.dialect is Dialect.PYTHON:
            self.violate(f"{command.step} was ended again by {end.worker_id}, which had ended it")
        for one in command.sets:
            self._told_by_a_holder(command, one, end)
        if end.word != self._expected(command):
            self.violate(f"{command.step} is {end.word}, its tool ends in {self._expected(command)}")

    def _told_by_a_holder(self, command: Command, one: TerminalSet, end: TerminalSet) -> None:
        """Each end is a holder's. Two holders there are only when the plane gave the command away: it let both in at
        one instant, or the first one's lease was over."""
        first = {worker_id: at for at, worker_id in reversed(command.grants)}
        if first.get(one.worker_id, math.inf) > one.at:
            self.violate(f"{command.step} was ended by {one.worker_id}, which the plane had not given it to")
        elif one.worker_id != end.worker_id and end.worker_id in first:
            apart_s = abs(first[one.worker_id] - first[end.worker_id])
            if not command.leaked_to & {one.worker_id, end.worker_id} and apart_s < self._plane.lease_s:
                self.violate(f"{command.step} was ended by two workers, {apart_s:g} s of a lease apart")

    def _not_cut_off(self, command: Command, lives: Sequence[WorkerProcess]) -> None:
        """Nobody but the network, a death or a hard stop cuts off an end while the plane works on the next command."""
        if command.cut_off is None or command.cut_off[1] or command.cut_off[0].is_dead:
            return
        if not any(life.process is command.cut_off[0] and life.is_stopped_hard for life in lives):
            self.violate(f"{command.cut_off[0].name} hangs up on the plane, which works on what follows {command.step}")

    def is_named(self, command: Command) -> bool:
        """Whether an operator is told that its end is forgotten: of an item of a loop, which nothing brings on, by a
        worker that stops, or ten minutes later, where no request has met the restart."""
        about = [line for line in self._trace.lines if f" command_id={command.command_id} " in line]
        if command.is_item and any(" log error: batch_not_rescued " in line for line in about):
            return True
        stopped = (" log warning: batch_left_open ", "and has not processed it; this worker stops")
        if any(text in line for text in stopped for line in about):
            return True
        overdue = [line.split()[:2] for line in about if " log error: batch_overdue " in line]
        told = [one.at - self._clock.now + self._clock.elapsed_s for one in command.sets]
        return any(
            not any(who == name and since < at < float(until) for at, who in self.refused)
            for until, name in overdue
            for since in told
        )

    def is_excused(self, command: Command, lives: Sequence[WorkerProcess]) -> bool:
        """The plane has stored an end, will never act on it and refuses every claim (503 ack_timeout,
        protocol/batches.md#rescue; or a restart). Only who knows of it can mend it, or name it when it stops; who is
        killed can not."""
        if not command.sets or self._plane.dialect is not Dialect.PYTHON:
            return False
        tellers = {one.worker_id for one in command.sets}
        return not any(self._follows(life, command) for life in lives if life.worker_id in tellers)

    def _follows(self, life: WorkerProcess, command: Command) -> bool:
        if life.ended_at >= self.closing_at:
            return True
        known_at = self.known.get((life.process, str(command.execution_id)), math.inf)
        return not life.process.is_dead and known_at < life.ended_at

    def _expected(self, command: Command) -> str:
        """On the Rust plane a returned failure completes the step (protocol/events.md#rust-plane)."""
        ending = command.config.get("ending", "success")
        is_failed = ending == "raises" or (ending == "error" and self._plane.dialect is Dialect.PYTHON)
        return "FAILED" if is_failed else "COMPLETED"

    def _result_is_whole(self, command: Command) -> None:
        """What an end says of a success is all of it: in the event, or behind a reference that the plane knows."""
        if self._expected(command) == "FAILED" or command.config.get("ending", "success") != "success":
            return
        for result in command.results:
            reference = result.get("reference")
            inside = result["context"] if self._plane.dialect is Dialect.RUST else result["response"]
            told = self._plane.results.get(reference["ref"]) if reference is not None else inside
            if (packed := unpacked(told)) is not None:
                told = json.loads(packed)
            data = told.get("data") if told is not None and self._plane.dialect is Dialect.RUST else told
            if data is None or len(data.get("text", "")) != command.config.get("chars", 0):
                self.violate(f"{command.step} is told with {str(result)[:200]}")

    def _ran_as_often_as_it_may(self, command: Command) -> None:
        runs, deliveries = len(command.runs), self.deliveries.get(command.step, 0)
        if runs > deliveries:
            self.violate(f"{command.step} ran {runs} times in {deliveries} deliveries")
        if runs > len(command.grants):
            self.violate(f"{command.step} ran {runs} times with {len(command.grants)} claims")
        if command.endings and not runs:
            self.violate(f"{command.step} ended without having run")


def _step(stored: Stored) -> str:
    try:
        return str(json.loads(stored.data)["step"])
    except ValueError:
        return f"poison {stored.sequence}"
