"""The routes that start and cancel executions (protocol/executions.md; recorded: execute-*, cancel-*)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from noetl_worker.authoring.dev.event_log import EventLog
from noetl_worker.authoring.dev.orchestration.execution import Execution
from noetl_worker.authoring.dev.orchestration.location import Location, RefusedPart
from noetl_worker.authoring.dev.orchestration.playbook import Playbook, parse_yaml
from noetl_worker.authoring.dev.orchestration.router import Router
from noetl_worker.authoring.dev.orchestration.step_alone import StepAlone
from noetl_worker.authoring.dev.registration.rust_types import refused_by_rust
from noetl_worker.authoring.dev.registration.shapes import Refusal
from noetl_worker.authoring.dev.server.answers import HttpAnswer, Refused, answer, detail, invalid, rust_error
from noetl_worker.authoring.dev.server.catalog import EXECUTABLE_KINDS, Catalog, CatalogEntry
from noetl_worker.authoring.dev.server.credentials import Keychain
from noetl_worker.authoring.dev.server.dispatcher import Dispatcher
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.errors import PlaybookError, TemplateError
from noetl_worker.models.wire import Dialect, JsonValue, fields_of

_HEAD: Final = ("apiVersion", "kind", "metadata")
_DIRECT_POSTGRES: Final = ("db_host", "db_port", "db_user", "db_password", "db_name", "dsn")


class Executions:
    """All executions of one plane, in memory. The executions' commands and events are in the event log."""

    def __init__(
        self,
        settings: PlaneSettings,
        log: EventLog,
        catalog: Catalog,
        keychain: Keychain,
        router: Router,
        dispatcher: Dispatcher,
    ) -> None:
        self._settings, self._log, self._catalog, self._keychain = settings, log, catalog, keychain
        self._router, self._dispatcher = router, dispatcher
        self._by_id: dict[int, Execution] = {}
        self._is_rust = settings.dialect is Dialect.RUST

    def get(self, execution_id: int) -> Execution | None:
        return self._by_id.get(execution_id)

    def known(self, execution_id: int, otherwise: str = "") -> Execution:
        """Return an execution. Raises Refused, with the plane's 404 as the answer, for an unknown id.

        Args:
            otherwise: the Python plane's message for an unknown id; "": the usual message.
        """
        execution = self._by_id.get(execution_id)
        if execution is not None:
            return execution
        if self._is_rust:
            raise Refused(rust_error(404, f"Execution not found: {execution_id}"))
        raise Refused(detail(404, otherwise or f"Execution {execution_id} not found"))

    def all(self) -> list[Execution]:
        return list(self._by_id.values())

    def children(self, execution_id: int) -> list[Execution]:
        return [execution for execution in self._by_id.values() if execution.parent_execution_id == execution_id]

    def restore(self, execution: Execution) -> None:
        """Add an execution of an earlier plane, so that routes can show the execution.

        The caller adds the execution's rows to the event log.
        """
        self._by_id[execution.execution_id] = execution

    # ── starting ────────────────────────────────────────────────────────────────────────────────

    def execute_route(self, body: JsonValue) -> HttpAnswer:
        """Answer POST /api/execute: start an execution of a playbook of the catalog."""
        given = fields_of(body)
        entry = self._entry(given)
        if self._is_rust and (refusal := self._refusal_of_rust(entry)):
            return rust_error(refusal.status, refusal.text)
        if not self._is_rust and (reason := _refused_tool(self._catalog.playbook(entry))):
            return detail(422, reason)
        payload = given.get("payload") or given.get("workload") or {}
        parent = given.get("parent_execution_id")
        try:
            execution, generated = self.begin(entry, payload, int(parent) if parent is not None else None)
        except (TemplateError, PlaybookError) as error:
            return rust_error(500, str(error)) if self._is_rust else detail(500, str(error))
        return answer(
            {
                "execution_id": str(execution.execution_id),
                "status": "started",
                "commands_generated": generated,
            }
        )

    def _entry(self, body: Mapping[str, JsonValue]) -> CatalogEntry:
        path, catalog_id = body.get("path"), body.get("catalog_id")
        if path is None and catalog_id is None:
            text = "Value error, Either 'path' or 'catalog_id' must be provided"
            raise invalid("value_error", ["body"], text, dict(body), {"error": {}})
        kind = body.get("resource_kind")
        if kind is not None and str(kind).lower() not in EXECUTABLE_KINDS:
            raise Refused(detail(422, f"Catalog kind '{kind}' is not executable"))
        entry = self._catalog.find(
            path=path, version=body.get("version"), catalog_id=int(catalog_id) if catalog_id is not None else None
        )
        if entry is not None:
            return entry
        named = path if path is not None else f"catalog_id={catalog_id}"
        if self._is_rust:
            raise Refused(rust_error(404, f"Playbook not found: {named}"))
        raise Refused(detail(404, f"Executable catalog entry not found: {named}"))

    def begin(
        self,
        entry: CatalogEntry,
        payload: Mapping[str, JsonValue],
        parent_execution_id: int | None = None,
        alone: StepAlone | None = None,
    ) -> tuple[Execution, int]:
        """Start an execution. Return the execution and the number of commands that were issued.

        Args:
            payload: values that win over the playbook's workload.
            alone: the only step to run; None: the whole playbook.

        Raises:
            RefusedPart: the Rust plane does not execute the playbook, a credential is missing, or the step cannot be
                run alone.
        """
        if self._is_rust and (refusal := self._refusal_of_rust(entry)):
            raise RefusedPart(f"the Rust plane refuses the playbook: {refusal.text}", Location(path=refusal.path))
        execution = self.open(entry, payload, parent_execution_id, alone)
        try:
            execution.keychain = {
                str(item.get("name")): fields
                for index, item in enumerate(execution.playbook.keychain)
                if (fields := self._keychain.resolve(entry.catalog_id, item, index))
            }
            return execution, self._dispatcher.apply(execution, self._router.begin(execution, alone))
        except Exception:  # a credential is missing, or the Rust plane cannot render a template (recorded: methods)
            del self._by_id[execution.execution_id]
            raise

    def open(
        self,
        entry: CatalogEntry,
        payload: Mapping[str, JsonValue],
        parent_execution_id: int | None = None,
        alone: StepAlone | None = None,
    ) -> Execution:
        """Add an execution with its first events, but issue no commands.

        Args:
            payload: values that win over the playbook's workload.
            alone: the only step to run, whose variables win over `payload`; None: the whole playbook.
        """
        playbook = self._catalog.playbook(entry)
        if not self._is_rust:
            playbook = playbook.as_python_reads_it()
        workload = {**playbook.workload, **payload, **(alone.variables(playbook) if alone is not None else {})}
        execution = Execution(
            execution_id=self._log.ids.next(),
            catalog_id=entry.catalog_id,
            path=entry.path,
            version=entry.version,
            playbook=playbook,
            workload=workload,
            payload=payload,
            parent_execution_id=parent_execution_id,
            started_at=time.time(),
            variables={} if self._is_rust else {key: value for key, value in workload.items() if key != "ctx"},
        )
        self._by_id[execution.execution_id] = execution
        self._write_opening(execution)
        return execution

    def _refusal_of_rust(self, entry: CatalogEntry) -> Refusal | None:
        """Return the first reason why the real Rust plane would refuse to execute a catalog entry's playbook, or None.

        Two kinds of mistakes are ignored here, because `noetl-worker check` reports them. The first is a missing head
        (apiVersion, kind, metadata). The second is any mistake inside a tool, since a plug-in or a test may provide the
        tool's kind.
        """
        found = refused_by_rust(fields_of(parse_yaml(entry.content)))
        minded = (one for one in found if "tool" not in one.path[:-1] and (one.path or one.missing not in _HEAD))
        return next(minded, None)

    def _write_opening(self, execution: Execution) -> None:
        number, path = execution.execution_id, execution.path
        if self._is_rust:
            self._log.write(number, "playbook_started", path, "STARTED")
            return
        shown: dict[str, JsonValue] = {"workload": execution.workload, "playbook_path": path}
        first = execution.playbook.first(Dialect.PYTHON)
        opened = {"error": None, "status": "initialized", "final_step": None}
        context = {**opened, "result": shown}
        begun = self._log.write(number, "playbook.initialized", path, "initialized", context=context)
        context = {**opened, "result": {**shown, "first_step": first.name if first is not None else None}}
        workflow = self._log.write(
            number, "workflow.initialized", "workflow", "initialized", context=context, parent_event_id=begun.event_id
        )
        execution.lifecycle_event_ids = (begun.event_id, workflow.event_id)

    # ── cancelling ──────────────────────────────────────────────────────────────────────────────

    def cancel_route(self, execution_id: int, body: JsonValue) -> HttpAnswer:
        """Answer POST /api/executions/{id}/cancel. The Python plane cancels child executions too."""
        execution = self.known(execution_id)
        if self._is_rust:
            return self._cancel_rust(execution)
        # The real plane looks only at the last event. After a batch, that event is never the end of the playbook, so
        # a finished execution is still answered with "cancelled" (protocol/executions.md).
        status = self._status_of_last_event(execution)
        if status != "RUNNING":
            message = f"Execution {execution_id} is already {status}"
            return answer(
                {
                    "status": "already_completed",
                    "execution_id": str(execution_id),
                    "cancelled_executions": [],
                    "message": message,
                }
            )
        family = self._family(execution)
        for member in family:
            self._cancel(member, "execution.cancelled", "cancel", fields_of(body).get("reason"))
        return answer(
            {
                "status": "cancelled",
                "execution_id": str(execution_id),
                "cancelled_executions": [str(member.execution_id) for member in family],
                "message": f"Cancelled {len(family)} execution(s)",
            }
        )

    def _cancel_rust(self, execution: Execution) -> HttpAnswer:
        if execution.is_over:
            return rust_error(422, f"Cannot cancel execution in {execution.status} state")
        self._cancel(execution, "playbook_cancelled", execution.path, None)
        message = "Execution cancellation requested"
        return answer({"execution_id": execution.execution_id, "message": message, "status": "cancelled"})

    def _cancel(self, execution: Execution, event_type: str, node: str, reason: JsonValue) -> None:
        execution.status, execution.ended_at = "CANCELLED", time.time()
        result = {"status": "CANCELLED", "context": {"reason": reason}}
        self._log.write(execution.execution_id, event_type, node, "CANCELLED", result=result)

    def _family(self, execution: Execution) -> list[Execution]:
        found = [execution]
        for member in found:
            found.extend(child for child in self.children(member.execution_id) if not child.is_over)
        return found

    def _status_of_last_event(self, execution: Execution) -> str:
        if execution.status == "CANCELLED":
            return "CANCELLED"
        words = {"playbook.completed": "COMPLETED", "playbook.failed": "FAILED"}
        return words.get(self._log.last_event(execution.execution_id).event_type, "RUNNING")

    def cancellation_route(self, execution_id: int) -> HttpAnswer:
        """Answer GET /api/executions/{id}/cancellation-check.

        On the Python plane only the field `cancelled` is reliable. The other fields come from the last event.
        """
        execution = self.known(execution_id)
        is_cancelled = execution.status == "CANCELLED"
        if self._is_rust:
            return answer({"execution_id": execution_id, "is_cancelled": is_cancelled})
        status = self._status_of_last_event(execution)
        return answer(
            {
                "execution_id": str(execution_id),
                "status": status,
                "event_type": self._log.last_event(execution_id).event_type,
                "cancelled": is_cancelled,
                "completed": status == "COMPLETED",
                "failed": status == "FAILED",
            }
        )


def _refused_tool(playbook: Playbook) -> str | None:
    """Return the reason why the Python plane refuses the first step's tool, or None.

    The plane refuses a `postgres` tool that has no credential in `auth`, or has connection fields of its own
    (recorded: tool-postgres-*).
    """
    first = playbook.first(Dialect.PYTHON)
    if first is None or first.kind != "postgres" or not isinstance(first.tool, Mapping):
        return None
    prefix = f"Invalid command context for step '{first.name}' and tool 'postgres': Postgres command for step"
    direct = [name for name in _DIRECT_POSTGRES if name in first.tool]
    if direct:
        return f"{prefix} '{first.name}' includes forbidden direct connection fields: {', '.join(direct)}"
    if not first.tool.get("auth"):
        return f"{prefix} '{first.name}' is missing auth in command context."
    return None
