"""The routes that show an execution: its detail, status and events (protocol/executions.md)."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from noetl_worker.authoring.dev.database import moment
from noetl_worker.authoring.dev.event_log import EventLog, LoggedEvent
from noetl_worker.authoring.dev.orchestration.execution import Execution
from noetl_worker.authoring.dev.server.answers import HttpAnswer, answer
from noetl_worker.authoring.dev.server.executions import Executions
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.models.wire import Dialect, JsonValue

PAGE_SIZE: Final = 100
_NOT_FOUND: Final = "Execution not found"


class Inspection:
    """The read-only routes of one plane's executions."""

    def __init__(self, settings: PlaneSettings, log: EventLog, executions: Executions) -> None:
        self._log, self._executions = log, executions
        self._is_rust = settings.dialect is Dialect.RUST

    def status_route(self, execution_id: int) -> HttpAnswer:
        """Answer GET /api/executions/{id}/status: the execution's status, steps and times."""
        execution = self._executions.known(execution_id, otherwise=_NOT_FOUND)
        return answer(self._rust_status(execution) if self._is_rust else self._python_status(execution))

    def _python_status(self, execution: Execution) -> Mapping[str, JsonValue]:
        is_inferred = execution.status in ("RUNNING", "COMPLETED") and self._looks_complete(execution)
        is_failed = execution.status == "FAILED" or execution.is_failed
        end = execution.ended_at
        if end is None and (is_failed or is_inferred):
            end = self._log.last_event(execution.execution_id).created_at
        return {
            "execution_id": str(execution.execution_id),
            "current_step": execution.current_step,
            "completed_steps": list(execution.completed_steps),
            "failed": is_failed,
            "completed": execution.status in ("COMPLETED", "CANCELLED") or is_inferred,
            "completion_inferred": is_inferred,
            "variables": execution.kept_variables,
            **_times(execution, end, utc="+00:00"),
        }

    def _looks_complete(self, execution: Execution) -> bool:
        """Guess whether an execution is complete, as the real plane does.

        The guess is True if the last event is `batch.completed` and no command is open (recorded:
        batch-actionable-default). But the guess is False if the execution failed, or is stuck: it stays RUNNING without
        a next step (recorded: loop-over-seq-rows).
        """
        last = self._log.last_event(execution.execution_id)
        if last.event_type != "batch.completed" or execution.is_failed or execution.stands_still:
            return False
        commands = self._log.execution_commands(execution.execution_id)
        return bool(commands) and not any(command.is_open for command in commands)

    def _rust_status(self, execution: Execution) -> Mapping[str, JsonValue]:
        nodes = self._nodes_by_event(execution)
        return {
            "execution_id": execution.execution_id,
            "status": execution.status,
            "current_step": execution.current_step or next(iter(execution.open_commands.values()), None),
            "progress": {
                # Recorded (playbook-return-step): the total counts only steps that an arc led to.
                "total_steps": len(nodes["step.enter"]),
                "completed_steps": len(nodes["command.completed"]),
                "running_steps": len(nodes["command.started"]),
                "failed_steps": int(execution.is_failed),
            },
            "is_cancelled": execution.status == "CANCELLED",
        }

    def _nodes_by_event(self, execution: Execution) -> Mapping[str, set[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        for event in self._log.events(execution.execution_id, "step.enter", "command.started", "command.completed"):
            if event.event_type != "command.completed" or event.status == "success":
                found[event.event_type].add(event.node)
        return found

    # ── detail and events ───────────────────────────────────────────────────────────────────────

    def detail_route(self, execution_id: int, query: Mapping[str, str]) -> HttpAnswer:
        """Answer GET /api/executions/{id}: the execution with its status, times and events."""
        execution = self._executions.known(execution_id, otherwise=_NOT_FOUND)
        if self._is_rust:
            return answer(self._rust_detail(execution))
        parent = execution.parent_execution_id
        return answer(
            {
                "execution_id": str(execution_id),
                "catalog_id": str(execution.catalog_id),
                "path": execution.path,
                "version": execution.version,
                "status": self._status_word(execution),
                **_times(execution, execution.ended_at, utc="Z"),
                "progress": 100 if execution.is_over else 0,
                "result": None,
                "error": execution.error,
                "parent_execution_id": str(parent) if parent is not None else None,
                "events_included": True,
                "events_endpoint": f"/api/executions/{execution_id}/events",
                **self._page(execution, query, utc="Z"),
            }
        )

    def _rust_detail(self, execution: Execution) -> Mapping[str, JsonValue]:
        return {
            "execution_id": execution.execution_id,
            "catalog_id": execution.catalog_id,
            "path": execution.path,
            "status": execution.status,
            "started_at": moment(execution.started_at, utc="Z"),
            "completed_at": moment(execution.ended_at, utc="Z") if execution.status == "COMPLETED" else None,
            "parent_execution_id": execution.parent_execution_id,
            "workload": execution.workload,
            "events": [_rust_event(event) for event in self._log.events(execution.execution_id)],
        }

    def events_route(self, execution_id: int, query: Mapping[str, str]) -> HttpAnswer:
        """Answer GET /api/executions/{id}/events.

        The Python plane answers with one page, the newest event first, selected by the query parameters event_type,
        page and page_size. The Rust plane answers with all events, the oldest first.
        """
        execution = self._executions.known(execution_id)
        if self._is_rust:
            events = [_rust_event(event) for event in self._log.events(execution_id)]
            return answer({"execution_id": execution_id, "events": events})
        return answer(
            {
                "execution_id": str(execution_id),
                "path": execution.path,
                "status": self._status_word(execution),
                **self._page(execution, query, utc="+00:00"),
            }
        )

    def _status_word(self, execution: Execution) -> str:
        if execution.status == "RUNNING" and execution.is_failed:
            return "FAILED"
        if execution.status == "RUNNING" and self._looks_complete(execution):
            return "COMPLETED"
        return execution.status

    def _page(self, execution: Execution, query: Mapping[str, str], *, utc: str) -> Mapping[str, JsonValue]:
        kinds = [query["event_type"]] if query.get("event_type") else []
        events = self._log.events(execution.execution_id, *kinds)[::-1]
        size, page = _number(query, "page_size", PAGE_SIZE), _number(query, "page", 1)
        pages = max(1, math.ceil(len(events) / size))
        return {
            "events": [_python_event(event, execution, utc=utc) for event in events[(page - 1) * size : page * size]],
            "pagination": {
                "page": page,
                "page_size": size,
                "total_events": len(events),
                "total_pages": pages,
                "has_next": page < pages,
                "has_prev": page > 1,
            },
        }


def _times(execution: Execution, end: float | None, *, utc: str) -> Mapping[str, JsonValue]:
    lasted = (end or time.time()) - execution.started_at
    return {
        "start_time": moment(execution.started_at, utc=utc),
        "end_time": moment(end, utc=utc),
        "duration_seconds": round(lasted, 3),
        "duration_human": f"{round(lasted)}s",
    }


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    found = query.get(name, "")
    return int(found) if found.isdecimal() and int(found) > 0 else default


def _python_event(event: LoggedEvent, execution: Execution, *, utc: str) -> Mapping[str, JsonValue]:
    created_at = moment(event.created_at, utc=utc)
    parent = execution.parent_execution_id
    as_text = utc == "Z"  # the detail route writes these ids as text, the events route as numbers (recorded)
    is_lifecycle = event.event_type.partition(".")[0] in ("playbook", "workflow")
    return {
        "event_id": event.event_id,
        "event_type": event.event_type,
        "node_id": event.node,
        "node_name": event.node,
        "status": event.status,
        "created_at": created_at,
        "context": event.context,
        "result": event.result,
        "error": event.error,
        "catalog_id": str(execution.catalog_id) if as_text else execution.catalog_id,
        "parent_execution_id": str(parent) if parent is not None else None,
        "parent_event_id": str(event.parent_event_id) if as_text and event.parent_event_id else event.parent_event_id,
        "duration": 0.0 if is_lifecycle else None,
        "execution_id": str(execution.execution_id),
        "timestamp": created_at,
    }


def _rust_event(event: LoggedEvent) -> Mapping[str, JsonValue]:
    return {
        "event_id": event.event_id,
        "event_type": event.event_type,
        "node_name": event.node,
        "status": event.status,
        "created_at": moment(event.created_at, utc="Z"),
        "result": event.result,
        "error": event.error,
    }
