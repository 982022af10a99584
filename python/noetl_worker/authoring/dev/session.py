"""A session of `noetl-worker dev`: NATS, a control plane and a worker are started, run one playbook, and stop."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any, Final, Protocol, TypeAlias

import yaml
from rich.console import Console

from noetl_worker.authoring.dev.credential_files import LocalCredential, local_credentials
from noetl_worker.authoring.dev.event_log import LoggedEvent
from noetl_worker.authoring.dev.failures import About
from noetl_worker.authoring.dev.live_view import JsonView, LineView, View
from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.authoring.dev.orchestration.execution import Execution
from noetl_worker.authoring.dev.orchestration.location import Location, RefusedPart, RefusedTemplate
from noetl_worker.authoring.dev.orchestration.playbook import NO_CURSOR, Playbook, read_file_text
from noetl_worker.authoring.dev.orchestration.step_alone import StepAlone
from noetl_worker.authoring.dev.places import FilePlaces, places_in
from noetl_worker.authoring.dev.plane import DevControlPlane
from noetl_worker.authoring.dev.positions import read_text
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.authoring.dev.stored_runs.rows import rows_to_store
from noetl_worker.authoring.dev.stored_runs.runs import StoredRuns
from noetl_worker.authoring.dev.watch import playbooks_in_folder
from noetl_worker.authoring.outline import kinds_in, step_parts
from noetl_worker.errors import NoetlWorkerError, PlaybookError
from noetl_worker.models.spellings import STEP_OF_TASKS
from noetl_worker.models.wire import Dialect, JsonValue, fields_of
from noetl_worker.observability.terminal import say
from noetl_worker.pipeline.outbox.dev_token import token_file, token_in_file
from noetl_worker.text.json_text import loads
from noetl_worker.tools.fields import nearest
from noetl_worker.tools.process.live_output import PrintedLine, watched


class WorkerFactory(Protocol):
    """A function that returns an async context manager. A worker runs inside the manager's block.

    `kinds` names the tool kinds that the worker will probably run, so that the worker loads these tools early.
    """

    def __call__(
        self, nats_url: str, server_url: str, dialect: Dialect, token: str, /, *, kinds: Collection[str] = ()
    ) -> AbstractAsyncContextManager[Any]: ...


OnEnd: TypeAlias = Callable[[DevControlPlane, int], Awaitable[None]]
"""A callback for the end of an execution, or for its interruption by the user. Arguments: the plane, and the
execution's id."""


_GIVEN: Final = ("server_url", "nats_url")
"""Names that `noetl-worker dev` adds to the workload of every run. So `--set` may give values to these names even if
the playbook does not declare the names."""


async def run_playbook(
    path: Path | str,
    overrides: Mapping[str, JsonValue],
    *,
    dialect: Dialect,
    keep: bool,
    as_json: bool,
    worker_factory: WorkerFactory,
    console: Console,
    credentials: Sequence[str] = (),
    is_quiet: bool = False,
    is_strict: bool = False,
    step: Callable[[Playbook], StepAlone] | None = None,
    on_end: OnEnd | None = None,
) -> int:
    """Run one playbook file on a control plane, NATS server and worker of its own, and show the run.

    Other playbooks in the file's folder are registered too. The workload gets `server_url` and `nats_url`, unless the
    playbook sets them. The plane requires a token, and NATS a password, so other users have no access.

    Args:
        overrides: values of the workload by dotted name, with or without `workload.`: {"workload.base": "http://..."}.
        credentials: texts `NAME=FILE`, added to the credentials file beside the playbook.
        keep: go on serving after the end of the execution, until cancelled (Ctrl-C).
        as_json: write JSON lines instead of text. `is_quiet` leaves out the lines that steps print.
        is_strict: return 1 also if a step failed or a name in a template had no value.
        step: function that returns the only step to run, with its inputs; None: run the whole playbook.
        on_end: called when the execution is over or interrupted. The plane is still serving then.

    Returns:
        0 if the execution ended COMPLETED, otherwise 1.

    Raises:
        PlaybookError: a file or an override is wrong, or the plane refuses the playbook.
        JetStreamError: nats-server does not start.
    """
    file = Path(path)
    text, document = await asyncio.to_thread(load_document, file, overrides)
    known = await asyncio.to_thread(local_credentials, file, credentials)
    alone = await _alone(step, document)
    async with (
        NatsServer(has_login=True) as nats,
        DevControlPlane(PlaneSettings(dialect=dialect, token=secrets.token_urlsafe()), nats_url=nats.url) as plane,
        _page(plane) if keep else nullcontext("") as page,
    ):
        document["workload"] = {"server_url": plane.url, "nats_url": nats.url, **document["workload"]}
        for credential in known:
            plane.credentials.write(credential.body())
        places = await _registered_neighbours(plane, file)
        own_path = plane.register_playbook(yaml.safe_dump(document, sort_keys=False)).path
        places[own_path] = places_in(text, str(path))
        view = JsonView(console.file) if as_json else LineView(console)
        with _joinable(plane), _kept(plane, known):
            shown = _Shown(plane, view, places, keep=keep)
            with nullcontext() if is_quiet else watched(shown.take):
                async with worker_factory(nats.url, plane.url, dialect, plane.settings.token, kinds=kinds_in(document)):
                    first_line = _begin(plane, nats.address, known, page, as_json=as_json)
                    execution = await _run(plane, own_path, alone, shown, first_line, on_end)
                    if keep:
                        await _stay(shown, None if as_json else console, page, plane, nats.address)
    return 0 if execution.status == "COMPLETED" and not (is_strict and view.has_flaws(execution)) else 1


async def _alone(step: Callable[[Playbook], StepAlone] | None, document: Mapping[str, JsonValue]) -> StepAlone | None:
    return await asyncio.to_thread(step, Playbook.from_document(document)) if step is not None else None


async def _registered_neighbours(plane: DevControlPlane, file: Path) -> dict[str, FilePlaces]:
    """Register the other playbooks in the file's folder. Return an object for each playbook, by its `metadata.path`,
    that finds the line numbers of the playbook's parts.
    """
    found = await asyncio.to_thread(neighbours, file)
    return {plane.register_playbook(content).path: places_in(content, str(one)) for one, content in found}


def _page(plane: DevControlPlane) -> AbstractAsyncContextManager[str]:
    from noetl_worker.authoring.dev.live_page import live_page  # slow to import, and only --keep needs it

    return live_page(plane)


@contextmanager
def _joinable(plane: DevControlPlane) -> Iterator[None]:
    """Store the plane's token in a file during the `with` block, so that this user's other processes can join the run.

    If the file cannot be written, print a message and go on without the file.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(token_in_file(plane.url, plane.settings.token))
        except OSError as error:
            said = f"no other process can join this run, since its token could not be stored: {error}"
            say(f"noetl-worker dev: {said}; mend the cause and start again", err=True)
        yield


def _settings_to_join(plane: DevControlPlane) -> dict[str, str]:
    """Return the environment variables with which a worker joins this run."""
    file, nats_url = token_file(plane.url), plane.nats_url or ""
    return {"NOETL_INTERNAL_API_TOKEN_FILE": str(file), "NATS_URL": nats_url, "NOETL_SERVER_URL": plane.url}


@contextmanager
def _kept(plane: DevControlPlane, known: Sequence[LocalCredential]) -> Iterator[None]:
    """Store all executions for later CLI commands when the `with` block ends.

    An error in storing is only printed.
    """
    try:
        yield
    finally:
        data = [credential.data for credential in known]
        for execution in plane.executions.all():
            if execution.parent_execution_id is None:
                try:
                    if not StoredRuns().store(execution.execution_id, rows_to_store(plane, execution, data)):
                        _warn(execution, "the run is larger than the space for all stored runs; use smaller data")
                except (NoetlWorkerError, OSError, sqlite3.Error) as error:
                    _warn(execution, str(error))


def _warn(execution: Execution, reason: str) -> None:
    say(f"noetl-worker dev: run {execution.execution_id} is not stored for later commands: {reason}", err=True)


async def _stay(shown: _Shown, console: Console | None, page: str, plane: DevControlPlane, nats: str) -> None:
    """Keep `noetl-worker dev --keep` running until cancelled. Show the summary of executions that other programs start.

    Args:
        console: console on which to print the settings that another worker needs to join this run. None with `--json`:
            nothing is printed here, because the first line of the JSON output has these settings.
    """
    if console is not None:
        exports = [f"export {name}={quote(text)}" for name, text in _settings_to_join(plane).items()]
        last = f"page {page}, control plane {plane.url}, NATS {nats}; Ctrl-C ends it"
        for line in ("A worker joins with these settings:", *exports, last):
            console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)
    await shown.follow_others()


def _begin(
    plane: DevControlPlane, nats: str, known: Sequence[LocalCredential], page: str, *, as_json: bool
) -> dict[str, str]:
    """Return the fields of the first line of output: addresses, and names of credentials.

    The JSON line of `--keep` also has the settings with which a worker joins.
    """
    fields = {"control_plane": plane.url, "nats": nats} | ({"page": page} if page else {})
    if page and as_json:
        fields |= _settings_to_join(plane)
    return fields | ({"credentials": ", ".join(credential.name for credential in known)} if known else {})


async def _run(
    plane: DevControlPlane,
    path: str,
    alone: StepAlone | None,
    shown: _Shown,
    fields: Mapping[str, str],
    on_end: OnEnd | None,
) -> Execution:
    """Execute the playbook, and wait until the execution and its child executions are over."""
    plane.log.listen(shown.take)
    try:
        execution = plane.execution(await plane.execute(path, alone=alone))
    except (RefusedPart, RefusedTemplate) as error:
        raise PlaybookError(f"{shown.place(path, error.location)}: {error}") from error
    shown.begin(execution, fields)
    is_interrupted = True
    try:
        await plane.wait_all_ended(timeout_s=None)
        is_interrupted = False
    finally:
        shown.end(execution, is_interrupted=is_interrupted)
        if on_end is not None:
            await on_end(plane, execution.execution_id)
    return execution


class _Shown:
    """Passes the plane's events and the steps' printed lines to a view, each with facts about its command."""

    def __init__(self, plane: DevControlPlane, view: View, places: Mapping[str, FilePlaces], *, keep: bool) -> None:
        self._view, self._plane, self._places, self._keep = view, plane, places, keep
        self._early: list[LoggedEvent | PrintedLine] | None = []
        """The plane's events and the steps' printed lines that wait for `begin`, which shows them; None afterwards."""
        self._execution_id = 0
        self._begun: set[int] = set()
        self._ended: set[int] = set()
        self._is_interrupted = False

    def begin(self, execution: Execution, fields: Mapping[str, str]) -> None:
        self._execution_id = execution.execution_id
        self._begun.add(execution.execution_id)
        self._view.begin(execution, fields)
        early, self._early = self._early or [], None
        for item in early:
            self.take(item)

    def take(self, item: LoggedEvent | PrintedLine) -> None:
        if self._early is not None:
            self._early.append(item)
        elif self._is_interrupted:
            return
        elif isinstance(item, PrintedLine):
            line = replace(item, step=item.step.removesuffix(STEP_OF_TASKS))
            self._view.printed(line, self._about(line.execution_id, line.step, line.command_id))
        elif self._keep or not self._ended:
            execution = self._plane.execution(item.execution_id)
            if execution.parent_execution_id is None and execution.execution_id not in self._begun:
                self._begun.add(execution.execution_id)
                self._view.begin(execution, {"control_plane": self._plane.url})
            self._view.event(item, self._about(item.execution_id, item.node, item.command_ref))

    def end(self, execution: Execution, *, is_interrupted: bool = False) -> None:
        """Show the summary of an execution. After an interrupted execution, nothing more is shown."""
        self._is_interrupted = is_interrupted
        self._ended.add(execution.execution_id)
        location = execution.refused
        if execution.stands_still and not execution.error:
            location = Location(execution.current_step or "", ("next",))
        where = self.place(execution.path, location) if location is not None else ""
        self._view.summary(execution, is_interrupted=is_interrupted, where=where)

    def place(self, path: str, location: Location) -> str:
        """Return `file:line` of a part of the playbook with this `metadata.path`; "" for a playbook without a file."""
        return self._places.get(path, FilePlaces()).location_text(location)

    async def follow_others(self) -> None:
        """Show the summary of each execution that another program starts. When cancelled, show open executions as
        interrupted.
        """

        def new() -> list[Execution]:
            return [one for one in self._plane.executions.all() if one.execution_id in self._begun - self._ended]

        try:
            while True:
                await self._plane.wait_until(lambda: any(one.is_at_rest for one in new()), timeout_s=None)
                for execution in new():
                    if execution.is_at_rest:
                        self.end(execution)
        finally:
            for execution in new():
                self.end(execution, is_interrupted=True)

    def _about(self, execution_id: int, node: str, command_ref: str | None) -> About:
        execution = self._plane.execution(execution_id)
        step = execution.playbook.steps.get(node.removesuffix(STEP_OF_TASKS))
        kind = step.kind if step is not None else ""
        owner = "" if execution_id == self._execution_id else execution.path
        item = execution.positions.get(command_ref or "")
        request = self._request(command_ref) if kind == "http" and command_ref is not None else ""
        return About(kind, owner, item, request, self._places.get(execution.path, FilePlaces()))

    def _request(self, command_ref: str) -> str:
        row = self._plane.log.command_by_ref(command_ref)
        config = fields_of(loads(row.context).get("tool_config")) if row is not None else {}
        address = config.get("url") or config.get("endpoint") or ""
        return f"{str(config.get('method') or 'GET').upper()} {address}"


# ── the file ────────────────────────────────────────────────────────────────────────────────────


def load_document(
    file: Path, overrides: Mapping[str, JsonValue], *, source: str = "--set"
) -> tuple[str, dict[str, Any]]:
    """Return the text of a playbook file, and the parsed playbook with the overrides in its workload.

    Args:
        overrides: values by dotted name.
        source: the flag or the field that gives the overrides, for errors.

    Raises:
        PlaybookError: the file is no playbook, or an override names a key that the workload lacks.
    """
    text = read_file_text(file)
    document = _runnable(text, file)
    written = fields_of(document.get("workload"))
    workload = document.setdefault("workload", None) or {}
    document["workload"] = workload
    document.setdefault("metadata", {"path": file.stem, "name": file.stem})
    for name, value in overrides.items():
        _override(workload, written, name, value, source)
    return text, document


def _runnable(text: str, file: Path) -> dict[str, Any]:
    """Return the parsed playbook. Raises PlaybookError, with the line, if this worker cannot run the playbook."""
    read = read_text(text)
    if read.unreadable is not None:
        raise PlaybookError(f"{file}:{read.unreadable.place.line}: {read.unreadable.reason}")
    document = read.value
    if not isinstance(document, dict) or not isinstance(document.get("workflow"), list) or not document["workflow"]:
        line = read.key_place(("workflow",)).line
        raise PlaybookError(f"{file}:{line}: a playbook is a mapping with a workflow, a list of at least one step")
    for step in step_parts(document):
        if fields_of(step.value.get("loop")).get("cursor") is not None:
            line = read.key_place((*step.path, "loop")).line
            raise PlaybookError(f"{file}:{line}: step '{step.name}': {NO_CURSOR}")
    return document


def _override(workload: dict[str, Any], written: JsonValue, name: str, value: JsonValue, source: str) -> None:
    """Set one value in the workload. An unknown name raises PlaybookError, since it is probably misspelt.

    Args:
        workload: the mapping to change.
        written: the workload as the file has it. Names that it lacks are unknown, except below an empty object.
    """
    parts = name.removeprefix("workload.").split(".")
    if not all(parts):
        raise PlaybookError(f"{source} {name}: write a dotted name such as workload.city")
    target, where = workload, "workload"
    for depth, part in enumerate(parts):
        may_be_any = not written if depth else part in _GIVEN
        if isinstance(written, dict) and part not in written and not may_be_any:
            raise PlaybookError(f"{source} {name}: {where} has no {part!r}{nearest(part, list(map(str, written)))}")
        if depth:
            target = target.setdefault(parts[depth - 1], {})
            if not isinstance(target, dict):
                raise PlaybookError(f"{source} {name}: {where} is not a mapping; name {where} itself to replace it")
        written, where = fields_of(written).get(part), f"{where}.{part}"
    target[parts[-1]] = value


def neighbours(file: Path) -> list[tuple[Path, str]]:
    """Return the other playbooks in the file's folder, each with its text."""
    return [(other, text) for other, text, _ in playbooks_in_folder(file.parent) if other.resolve() != file.resolve()]
