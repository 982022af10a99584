"""The requests that read an execution from its plane: events, playbook, child executions, and single commands."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from noetl_worker.authoring.run_page.command_events import RunDialect, build_commands, item_in, parse_id
from noetl_worker.authoring.run_page.inference import inferred_end
from noetl_worker.authoring.run_page.python_events import PythonRunEvents
from noetl_worker.authoring.run_page.run import ExecutionRun, RunCommand
from noetl_worker.authoring.run_page.rust_events import RustRunEvents
from noetl_worker.authoring.run_page.steps import run_steps
from noetl_worker.authoring.run_page.tasks import add_tasks
from noetl_worker.errors import ControlPlaneError, ServerRefused
from noetl_worker.models.wire import Dialect, fields_of, has_next_page, read_events
from noetl_worker.pipeline.command.command import is_reference
from noetl_worker.remote.plane.client import ControlPlaneClient, Plane, if_there
from noetl_worker.remote.transport.opening import open_transport
from noetl_worker.settings.settings import Settings

MOST_ASKED: Final = 1000
"""Largest number of commands that are read from the plane for one execution page. Each command takes one request."""
MOST_STORED: Final = 1000
"""Largest number of commands, per execution page, whose template variables are read from the plane's result store."""
MOST_CHILDREN: Final = 20
_PLAYBOOKS: Final = ("playbook", "playbooks")
_AT_ONCE: Final = 4
_PAGE: Final = 200
"""Number of events per page of the plane's event list (recorded: pyworker-loop-parallel-events)."""
_DIALECTS: Final[Mapping[Dialect, RunDialect]] = {Dialect.PYTHON: PythonRunEvents(), Dialect.RUST: RustRunEvents()}


async def read_run(settings: Settings, execution_id: int) -> ExecutionRun:
    """Read an execution from the configured control plane.

    Raises:
        ControlPlaneError: the plane cannot be reached, refuses the credentials, or does not know the execution.
    """
    async with ControlPlaneClient(open_transport(settings, max_connections=_AT_ONCE), settings) as client:
        return await read_run_from(await client.plane(""), execution_id)


async def read_run_from(plane: Plane, execution_id: int) -> ExecutionRun:
    """Read an execution and its child executions. Raise ControlPlaneError if the execution cannot be read."""
    run = await _read_one(plane, execution_id)
    family, missing = [run], 0
    for member in family:
        for command in member.commands:
            command.child = _child_id(command, member)
            if command.child and command.child not in {one.execution_id for one in family}:
                if len(family) > MOST_CHILDREN or (found := await _child(plane, command.child)) is None:
                    missing += 1
                else:
                    family.append(found)
    run.children = family[1:]
    if missing:
        run.notes.append(f"{missing} child executions are not shown: unknown to the plane, or over {MOST_CHILDREN}.")
    return run


async def _add_names(plane: Plane, run: ExecutionRun) -> None:
    """Read the template variables of commands from the plane's result store, where the plane keeps large ones.

    Then set the loop item of each command from its template variables.
    """
    turns = asyncio.Semaphore(_AT_ONCE)

    async def read(command: RunCommand) -> None:
        async with turns:
            try:
                value, _ = await plane.stored_result(str(command.names["ref"]), command.names)
            except ControlPlaneError:  # it has expired
                value = None
        command.names = fields_of(value)

    stored = [command for command in run.commands if is_reference(command.names)]
    await asyncio.gather(*map(read, stored[:MOST_STORED]))
    for command in stored[MOST_STORED:]:
        command.names = {}
    lost = sum(not command.names for command in stored)
    if lost:
        run.notes.append(
            f"The item of {lost} of {len(stored)} commands is not shown: the plane stores items apart, some may have "
            f"expired, and the page reads at most {MOST_STORED} items."
        )
    for command in run.commands:
        if command.item is not None:
            command.value = item_in(command.names)


async def _child(plane: Plane, name: str) -> ExecutionRun | None:
    """Read a child execution, or return None if the plane does not know it."""
    try:
        return await _read_one(plane, int(name))
    except ServerRefused as error:
        if not error.is_not_found:
            raise
        return None


def _child_id(command: RunCommand, run: ExecutionRun) -> str:
    """Return the id of the execution that a command started; "" if the command started no execution."""
    kind = command.kind or run.steps[command.step].kind
    outputs = [(kind, command.output), *((task.kind, task.output) for task in command.tasks)]
    for kind, output in outputs:
        name = str(fields_of(output).get("execution_id") or "")
        if kind in _PLAYBOOKS and name.isdecimal():
            return name
    return ""


async def _read_one(plane: Plane, execution_id: int) -> ExecutionRun:
    dialect = _DIALECTS[plane.dialect]
    detail = await plane.execution_detail(execution_id)
    events = await _all_events(plane, execution_id, detail)
    run = dialect.run(detail, events)
    wanted = dialect.events_to_request(events)
    asked = await _ask(plane, wanted[:MOST_ASKED])
    if len(asked) < len(wanted):
        run.notes.append(
            f"The input of {len(wanted) - len(asked)} of {len(wanted)} commands is not shown: "
            f"no event has the input, and the plane is asked for at most {MOST_ASKED} commands."
        )
    run.commands = build_commands(dialect, events, asked)
    await _add_names(plane, run)
    add_tasks(run.commands, plane.rules.names)
    if plane.rules.infers_completion and (inferred := inferred_end(detail.get("status"), events)):
        run.inferred = inferred
        run.notes.append(f"COMPLETED is {inferred}.")
    document = await _playbook(plane, detail, run)
    run.steps = run_steps(document, run.commands)
    return run


async def _all_events(plane: Plane, execution_id: int, detail: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return all events of an execution, in the order of their ids.

    A new event between two requests moves older events to the next page. So repeated events are dropped.
    """
    found = {parse_id(event.get("event_id")): event for event in read_events(detail)}
    page = 0
    while has_next_page(detail):
        page += 1
        detail = await plane.list_events(execution_id, page=page, page_size=_PAGE)
        found.update((parse_id(event.get("event_id")), event) for event in read_events(detail))
    return [found[event_id] for event_id in sorted(found)]


async def _ask(plane: Plane, event_ids: Sequence[int]) -> dict[int, Mapping[str, Any]]:
    turns = asyncio.Semaphore(_AT_ONCE)

    async def ask(event_id: int) -> Mapping[str, Any] | None:
        async with turns:
            return await if_there(plane.fetch_command(event_id))

    answers = await asyncio.gather(*map(ask, event_ids))
    return {event_id: answer for event_id, answer in zip(event_ids, answers, strict=True) if answer is not None}


async def _playbook(plane: Plane, detail: Mapping[str, Any], run: ExecutionRun) -> Mapping[str, Any]:
    """Return the playbook, in the version that the execution ran, or {} if the plane cannot give it."""
    try:
        entry = await plane.catalog_entry(str(detail.get("catalog_id") or ""))
    except ControlPlaneError as error:
        run.notes.append(f"The playbook could not be read, so arcs that were not taken are missing: {error}")
        return {}
    run.version = run.version or str(entry.get("version") or "")
    layout = entry.get("layout")  # on the Rust plane `payload` is the workload (protocol/executions.md#the-catalog)
    return {"workflow": layout} if isinstance(layout, list) else fields_of(entry.get("payload"))
