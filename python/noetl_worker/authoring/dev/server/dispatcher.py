"""The dispatcher of a plane: it stores and publishes the commands that a router has decided on, and ends executions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from noetl_worker.authoring.dev.event_log import CommandRow, EventLog, LoggedEvent
from noetl_worker.authoring.dev.nats_server import CommandStream
from noetl_worker.authoring.dev.orchestration.execution import Execution
from noetl_worker.authoring.dev.orchestration.location import RefusedPart, RefusedTemplate
from noetl_worker.authoring.dev.orchestration.router import Decision
from noetl_worker.authoring.dev.plane_rules.rules import IssuedCommand, PlaneRules
from noetl_worker.authoring.dev.server.results import Results
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.models.wire import Dialect, JsonValue
from noetl_worker.text.json_text import dumps, embed


class Dispatcher:
    """Issues commands and ends executions.

    Commands and events are stored at once. Notifications wait for `flush`, which is called after every request.
    """

    def __init__(self, settings: PlaneSettings, log: EventLog, rules: PlaneRules, results: Results) -> None:
        self._settings, self._log, self._rules, self._results = settings, log, rules, results
        self._outgoing: list[tuple[int, str, bytes]] = []
        """Event id, subject and body of each notification that is not published yet."""
        self.server_url = ""
        self.publisher: CommandStream | None = None
        """The stream to publish to; None while the plane is stopped or has no NATS."""

    def apply(self, execution: Execution, decision: Decision, caused_by: int | None = None) -> int:
        """Carry out a router's decision. Return the number of commands that were issued.

        Args:
            caused_by: id of the event that led to the decision; None: the execution's first event. This event is the
                parent of each `command.issued` event.
        """
        number, at, ids = execution.execution_id, time.time(), self._log.ids
        noticed = [
            LoggedEvent(ids.next(), number, event_type, node, status, at, result={"status": status.upper()})
            for event_type, node, status in decision.notices
        ]
        issued: list[IssuedCommand] = []
        for command in decision.commands:
            built = self._rules.issue(execution, command, ids)
            ref = str(built.command_id)
            execution.open_commands[ref] = command.step.name
            if command.position is not None:
                execution.positions[ref] = command.position
            issued.append(built)
        if noticed:  # not earlier: if a command cannot be rendered, nothing may be stored
            self._log.append(noticed)
        self.issue(issued, caused_by=caused_by or execution.lifecycle_event_ids[0] or None)
        if decision.is_over:
            self.finish(execution)
        return len(issued)

    def issue(self, commands: Sequence[IssuedCommand], *, caused_by: int | None = None, publish: bool = True) -> None:
        """Store commands with their `command.issued` events, and queue their notifications.

        Args:
            caused_by: id of the parent event.
            publish: False queues no notifications.
        """
        now = time.time()
        rows: list[CommandRow] = []
        logged: list[LoggedEvent] = []
        for given in commands:
            command = self._externalised(given)
            context, meta, ref = dumps(command.context), dumps(command.meta), str(command.command_id)
            rows.append(
                CommandRow(
                    command.event_id, ref, command.execution_id, command.node, command.action, context, meta,
                    "PENDING", None, now, None, None, command.event_id,
                )
            )  # fmt: skip
            logged.append(
                LoggedEvent(
                    command.event_id, command.execution_id, "command.issued", command.node, "PENDING", now,
                    context=embed(context), command_ref=ref, parent_event_id=caused_by,
                )
            )  # fmt: skip
            if publish:
                self.queue(command)
        self._log.add_commands(rows)
        if logged:
            self._log.append(logged)

    def _externalised(self, command: IssuedCommand) -> IssuedCommand:
        if self._settings.dialect is Dialect.RUST:
            return command
        step = command.node.partition(":")[0]
        context = self._results.externalise(
            command.context, execution_id=command.execution_id, step=step, command_id=command.command_id
        )
        return command if context is command.context else replace(command, context=context)

    # ── notifications ───────────────────────────────────────────────────────────────────────────

    def queue(self, command: IssuedCommand) -> None:
        """Queue a command's notification for the next `flush`."""
        subject, body = self._rules.notification(command, self.server_url, self._settings.subject)
        self._outgoing.append((command.event_id, subject, body))

    def requeue(self, row: CommandRow, *, as_text: bool) -> None:
        """Queue the notification of an issued command once more.

        Args:
            as_text: write the command_id as text, as the Python plane's reaper does (protocol/notification.md#message).
        """
        is_number = self._settings.dialect is Dialect.PYTHON and not as_text
        command_id = int(row.command_ref) if is_number else row.command_ref
        self.queue(IssuedCommand(row.execution_id, row.event_id, command_id, row.node, row.action, {}, {}))

    async def flush(self) -> None:
        """Publish the queued notifications. If NATS cannot be reached, `Reaper.recover` publishes them later."""
        waiting, self._outgoing = self._outgoing, []
        if not waiting or self.publisher is None:
            return
        if await self.publisher.publish([(subject, body) for _, subject, body in waiting]):
            self._log.set_published([event_id for event_id, *_ in waiting], time.time())

    # ── the end ─────────────────────────────────────────────────────────────────────────────────

    def fail(self, execution: Execution, error: Exception) -> None:
        """End an execution as failed because of an error in the plane itself."""
        execution.is_failed, execution.error = True, str(error) or type(error).__name__
        if isinstance(error, RefusedPart | RefusedTemplate):
            execution.refused = error.location
        self.apply(execution, Decision(is_over=True))

    def finish(self, execution: Execution) -> None:
        """End an execution as COMPLETED or FAILED, and write its last events. Do nothing for an ended execution."""
        if execution.is_over:
            return
        execution.status = "FAILED" if execution.is_failed else "COMPLETED"
        execution.ended_at = time.time()
        if self._settings.dialect is Dialect.PYTHON:
            self._write_python_end(execution)
        elif not execution.is_failed_by_command:  # after a failed command there is no last event (fail-execution)
            self._write_rust_end(execution)

    def _write_python_end(self, execution: Execution) -> None:
        is_first = len(execution.completed_steps) < 2
        if execution.status == "COMPLETED" and (is_first or execution.ends_with_a_sequence):
            return  # recorded (values/*, outcome "inferred"): the plane writes no last event here
        word = execution.status.lower()
        result = {"status": execution.status, "context": _object(execution.last_result)}
        context = {
            "error": execution.error,
            "result": result,
            "status": word,
            "final_step": execution.current_step,
        }
        error = execution.error if execution.is_failed else None
        of_playbook, of_workflow = execution.lifecycle_event_ids
        ended = partial(self._log.write, execution.execution_id, context=context, result=result, error=error)
        ended(f"workflow.{word}", "workflow", word, parent_event_id=of_workflow)
        ended(f"playbook.{word}", execution.path, word, parent_event_id=of_playbook)

    def _write_rust_end(self, execution: Execution) -> None:
        result: dict[str, JsonValue] = {"status": execution.status}
        if execution.is_failed:
            result["context"] = {"error": execution.error}
        event_type = f"playbook.{execution.status.lower()}"
        self._log.write(execution.execution_id, event_type, "playbook", execution.status, result=result)


def _object(value: JsonValue) -> Mapping[str, JsonValue]:
    if isinstance(value, dict):
        return value
    return {} if value is None else {"value": value}
