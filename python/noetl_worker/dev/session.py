"""One playbook on this machine: NATS, control plane and worker up, run, show, down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from rich.console import Console

from noetl_worker.dev.credential_files import LocalCredential, local_credentials
from noetl_worker.dev.event_log import LoggedEvent
from noetl_worker.dev.live_view import View, view_for
from noetl_worker.dev.nats_server import NatsServer
from noetl_worker.dev.orchestration.execution import Execution
from noetl_worker.dev.orchestration.playbook import Playbook, known_kinds, load_playbook, parse_yaml
from noetl_worker.dev.plane import DevControlPlane
from noetl_worker.dev.settings import PlaneSettings
from noetl_worker.errors import PlaybookError
from noetl_worker.models.wire import Dialect, JsonValue
from noetl_worker.tools.registry import Registry

__all__ = ["WorkerFactory", "run_playbook"]

WorkerFactory: TypeAlias = Callable[[str, str, Dialect], AbstractAsyncContextManager[Any]]
"""(nats_url, server_url, dialect) -> a worker that runs while the block is open."""


async def run_playbook(
    path: Path | str,
    overrides: Mapping[str, JsonValue],
    *,
    dialect: Dialect,
    keep: bool,
    as_json: bool,
    worker_factory: WorkerFactory,
    credentials: Sequence[str] = (),
    console: Console | None = None,
) -> int:
    """Run one playbook file with nothing else running, and show it.

    Playbooks beside the file are registered too, so that a `playbook` tool finds its child by `metadata.path`.
    `workload.server_url` is the development plane's URL and `workload.nats_url` its NATS's, unless the playbook sets
    them.

    Args:
        overrides: by dotted name, `workload.` optional: {"workload.base": "http://...", "retries": 3}.
        credentials: `NAME=FILE`, in addition to a file of credentials beside the playbook.
        keep: leave everything up after the end, until cancelled (Ctrl-C).
        as_json: JSON lines instead of the view.
        console: where to show it; default: standard output.

    Returns:
        0 only if the execution ended COMPLETED, else 1.

    Raises:
        PlaybookError: the playbook, an override or a credential is wrong; found before anything is started.
        JetStreamError: nats-server is not installed or does not start.
    """
    file = Path(path)
    document = await asyncio.to_thread(_load, file, overrides)
    known = await asyncio.to_thread(local_credentials, file, credentials)
    console = console or Console()
    settings = PlaneSettings(dialect=dialect)
    async with NatsServer() as nats, DevControlPlane(settings, nats_url=nats.url) as plane:
        document["workload"].setdefault("server_url", plane.url)
        document["workload"].setdefault("nats_url", nats.url)
        for credential in known:
            plane.credentials.write(credential.body())
        own_path = Playbook.of(document).path
        for content in await asyncio.to_thread(_neighbours, file):
            plane.register_playbook(content)
        plane.register_playbook(yaml.safe_dump(document, sort_keys=False))
        with view_for(console, as_json=as_json) as view:
            async with worker_factory(nats.url, plane.url, dialect):
                execution = await _run(plane, own_path, view, _begin(plane, nats.url, known))
                if keep:
                    if not as_json:  # there, the `begin` line has both addresses
                        line = f"control plane {plane.url}, NATS {nats.url}; Ctrl-C ends it"
                        console.print(line, highlight=False, soft_wrap=True)
                    await asyncio.Event().wait()
    return 0 if execution.status == "COMPLETED" else 1


def _begin(plane: DevControlPlane, nats_url: str, known: Sequence[LocalCredential]) -> dict[str, str]:
    """What the first line says; of credentials the names alone."""
    fields = {"control_plane": plane.url, "nats": nats_url}
    return fields | ({"credentials": ", ".join(credential.name for credential in known)} if known else {})


async def _run(plane: DevControlPlane, path: str, view: View, fields: Mapping[str, str]) -> Execution:
    """Execute and wait for the end, children of it included."""
    early: list[LoggedEvent] = []
    forget = plane.log.listen(early.append)
    execution = plane.execution(await plane.execute(path))
    view.begin(execution, fields)

    def show(event: LoggedEvent) -> None:
        owner = "" if event.execution_id == execution.execution_id else plane.execution(event.execution_id).path
        view.event(event, _kind(plane, event), owner)

    forget()
    for event in early:
        show(event)
    stop_showing = plane.log.listen(show)
    try:
        await plane.wait_all_ended(timeout_s=None)
    finally:
        stop_showing()
        view.summary(execution)
    return execution


def _kind(plane: DevControlPlane, event: LoggedEvent) -> str:
    if event.event_type != "command.issued":
        return ""
    playbook = plane.execution(event.execution_id).playbook
    step = playbook.steps.get(event.node.removesuffix(":task_sequence")) if playbook is not None else None
    return step.kind if step is not None else ""


# ── the file ────────────────────────────────────────────────────────────────────────────────────


def _load(file: Path, overrides: Mapping[str, JsonValue]) -> dict[str, Any]:
    """The checked document with the overrides in its workload."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise PlaybookError(f"{file}: {error.strerror or error}") from error
    load_playbook(text, source=str(file), kinds=known_kinds() | set(Registry().kinds()))
    document = parse_yaml(text)
    assert isinstance(document, dict)
    workload = document.setdefault("workload", None) or {}
    document["workload"] = workload
    document.setdefault("metadata", {"path": file.stem, "name": file.stem})
    for name, value in overrides.items():
        _override(workload, name, value)
    return document


def _override(workload: dict[str, Any], name: str, value: JsonValue) -> None:
    parts = name.removeprefix("workload.").split(".")
    if not all(parts):
        raise PlaybookError(f"--set {name}: not a dotted name such as workload.city")
    target = workload
    for part in parts[:-1]:
        inner = target.setdefault(part, {})
        if not isinstance(inner, dict):
            raise PlaybookError(f"--set {name}: workload.{part} is not a mapping")
        target = inner
    target[parts[-1]] = value


def _neighbours(file: Path) -> list[str]:
    """Contents of the other playbooks in the file's folder; what is no playbook is left out."""
    found: list[str] = []
    for other in sorted((*file.parent.glob("*.yaml"), *file.parent.glob("*.yml"))):
        if other.resolve() == file.resolve():
            continue
        text = other.read_text(encoding="utf-8", errors="replace")
        try:
            document = parse_yaml(text)
        except PlaybookError:
            continue
        if isinstance(document, dict) and "workflow" in document:
            found.append(text)
    return found
