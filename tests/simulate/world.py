"""The house of one run: a control plane, a JetStream server, the networks, two or three workers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from noetl_worker.models import Dialect
from noetl_worker.settings.settings import Settings, load_settings
from simulate.clock import Clock, Process, VirtualLoop, in_world
from simulate.disk import new_disk
from simulate.faults import Faults
from simulate.http_link import URL, HttpNetwork
from simulate.invariants import Witness
from simulate.jetstream_model import JetStream
from simulate.nats_link import NatsNetwork
from simulate.plane import Plane
from simulate.python_plane import PythonPlane
from simulate.rust_plane import RustPlane
from simulate.schedule import Fault, Issue
from simulate.trace import Trace
from simulate.worker_process import WorkerProcess, seams

COMMANDS: Final = "NOETL_COMMANDS"
DURABLE: Final = "noetl_worker"
QUIET_WITHIN_S: Final = 2_400.0
"""After the last fault: the Python plane's hard limit of 1,800 s, and then some."""
STOP_WITHIN_S: Final = 60.0
SUPERVISED_S: Final = 2.0
BURIALS: Final = 50


class World(contextlib.AbstractContextManager["World"]):
    """Enter it, make things happen, let time pass, `settle`, and read `witness.violations`."""

    def __init__(
        self, dialect: Dialect, seed: str, environment: Mapping[str, str], *, is_one_machine: bool = True
    ) -> None:
        self.dialect = dialect
        self.clock = Clock()
        self.trace = Trace(self.clock)
        self.loop = VirtualLoop(self.clock)
        self.server = JetStream(self.loop, self.clock)
        self.stream = self.server.add_stream(COMMANDS, ["noetl.commands", "noetl.commands.>"], max_age_s=3600)
        plane = PythonPlane if dialect is Dialect.PYTHON else RustPlane
        self.plane: Plane = plane(self.clock, self.trace, self.publish)
        self.plane.on_next = lambda: self.issue(Issue(0.0, {"seconds": 0.1, "ending": "success"}))
        self.nats = NatsNetwork(self.loop, self.server, self.trace, seed)
        self.http = HttpNetwork(self.loop, self.plane, self.trace, seed)
        self.witness = Witness(self.clock, self.trace, self.plane, self.server)
        self.witness.known = self.http.known
        self.http.on_sent, self.witness.refused = self.witness.sent, self.http.refused
        self.nats.on_received = self.witness.received
        self.server.on_delivered = self.witness.delivered
        self.server.on_answer = self.witness.answered
        self.server.on_expired = self.witness.expired
        self.faults = Faults(self, seed)
        self.lives: dict[str, WorkerProcess] = {}
        self.past: list[WorkerProcess] = []
        self._seed = seed
        self._environment = environment
        self._is_one_machine = is_one_machine
        self._disk = ""
        self._numbers = 0
        self._is_closing = False
        self._open = contextlib.ExitStack()

    def __enter__(self) -> World:
        self._open.enter_context(in_world(self.clock, self._seed))
        self._disk = self._open.enter_context(new_disk())
        self._open.enter_context(self.trace.with_logs(unnamed=self._disk))
        self._open.enter_context(seams(self.nats, self.http))
        self.loop.outside(60.0, self._minute)
        return self

    def __exit__(self, *_: object) -> None:
        for life in self.past:
            life.kill()
        for _round in range(BURIALS):
            left = sorted(asyncio.all_tasks(self.loop), key=hash)
            if not left:
                break
            for task in left:
                task.cancel()
            self.advance(1.0)
        self.loop.close()
        self._open.close()

    # ── time ──

    def advance(self, seconds: float) -> None:
        """Let this much virtual time pass."""
        self.loop.outside(seconds, self.loop.stop)
        self.loop.run_forever()

    def _minute(self) -> None:
        self.plane.look_after()
        self.loop.outside(60.0, self._minute)

    # ── messages ──

    def publish(self, subject: str, data: bytes) -> None:
        self.server.store(self.stream, subject, data)

    def issue(self, issue: Issue) -> None:
        """Publish one message of the schedule."""
        self._numbers += 1
        if issue.kind == "poison":
            self.trace.note("plane", f"publishes poison s{self._numbers}")
            self.publish("noetl.commands", b'{"step": "s%d", "execution_id": "x"' % self._numbers)
        elif issue.kind == "unknown":
            self.trace.note("plane", f"publishes the unknown s{self._numbers}")
            ids = {name: self.plane.new_id() for name in ("execution_id", "event_id", "command_id")}
            self.publish("noetl.commands", json.dumps({**ids, "step": f"s{self._numbers}", "server_url": URL}).encode())
        else:
            command = self.plane.issue(self._numbers, issue.config, issue.next_s)
            command.is_refused, command.is_item = issue.kind == "refused", issue.is_item

    # ── workers ──

    def start(self, name: str) -> None:
        """Start this worker unless it lives."""
        life = self.lives.get(name)
        if self._is_closing or (life is not None and not life.is_over):
            return
        self.lives[name] = life = WorkerProcess(name, self.loop, self._settings(name), self.trace, self._tool_runs)
        self.past.append(life)

    def _settings(self, name: str) -> Settings:
        return load_settings(
            {
                "NOETL_SERVER_URL": URL,
                "WORKER_METRICS_BIND": "",
                "NOETL_CONTROL_PLANE": self.dialect.value,
                "WORKER_ID": name,
                "NOETL_WORKER_OUTBOX_DIR": str(Path(self._disk, "machine" if self._is_one_machine else name)),
                **self._environment,
            }
        )

    def _tool_runs(self, process: Process, command_id: str) -> None:
        command = self.plane.by_id[command_id]
        self.trace.note(process.name, f"runs {command.step}")
        if not process.is_dead:
            command.runs.append((self.clock.now, process.name))

    def supervise(self) -> None:
        """Start again what ended by itself, as a supervisor does."""
        for name, life in list(self.lives.items()):
            if isinstance(life.exit, str) and not self.faults.keeps_down(name):
                self.start(name)

    def befall(self, fault: Fault) -> None:
        self.faults.begin(fault)

    # ── the end ──

    def settle(self) -> None:
        """No more faults: run on until everything is done, stop the workers, and check what must hold."""
        self.faults.end_all()
        for name in list(self.lives):
            self.start(name)
        self.trace.note("world", "no more faults")
        until = self.clock.now + QUIET_WITHIN_S
        self.advance(SUPERVISED_S)
        while not self.is_quiet and self.clock.now < until:
            self.advance(SUPERVISED_S)
            self.supervise()
        if not self.is_quiet:
            self.witness.violate(f"not quiet {QUIET_WITHIN_S:g} s after the last fault: {self._unsettled()}")
        self.trace.note("world", "quiet: stops the workers")
        self._stop_all()
        self.witness.check(self.past, self.loop.errors)

    @property
    def is_quiet(self) -> bool:
        """Nothing is waiting or unacknowledged in JetStream, and every command of the plane has ended, with an end that
        is acted on wherever somebody is there to see to that."""
        return not self._unsettled()

    def _unsettled(self) -> list[str]:
        consumer = self.stream.consumers.get(DURABLE)
        if consumer is None:
            return ["no consumer"] if self.stream.messages else []
        waiting = [one for one in self.stream.messages if one >= consumer.next_sequence or one in consumer.pending]
        open_commands = [one.step for one in self.plane.commands.values() if not one.is_over or one.is_worked_on]
        return [*(f"message {one}" for one in waiting), *open_commands, *self._not_acted_on()]

    def _not_acted_on(self) -> list[str]:
        """Ends that the Python plane has stored and forgotten, and that a worker will ask for."""
        if self.plane.dialect is not Dialect.PYTHON:
            return []
        stored = [one for one in self.plane.commands.values() if one.sets and not one.endings and not one.is_refused]
        waited = [one for one in stored if not self.witness.is_excused(one, self.past)]
        return [one.step for one in waited if not self.witness.is_named(one)]

    def _stop_all(self) -> None:
        self._is_closing, self.witness.closing_at = True, self.clock.now
        for life in self.lives.values():
            life.stop()
        until = self.clock.now + STOP_WITHIN_S
        while any(not life.is_over for life in self.lives.values()) and self.clock.now < until:
            self.advance(1.0)
        self.advance(10.0)
