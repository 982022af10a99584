"""`noetl-worker dev PLAYBOOK.yaml`: NATS, a control plane, the worker and a live view in one process."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from noetl_worker import event_loop
from noetl_worker.errors import NoetlWorkerError, PlaybookError
from noetl_worker.models import Dialect, JsonValue
from noetl_worker.observability.logging import configure_logging
from noetl_worker.settings import load_settings

__all__ = ["dev", "parse_override"]


def dev(
    playbook: Annotated[Path, typer.Argument(help="A playbook file.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override, for example workload.x=1 (value is JSON, else text).")
    ] = None,
    dialect: Annotated[Dialect, typer.Option(help="Which control plane to stand in for.")] = Dialect.PYTHON,
    keep: Annotated[bool, typer.Option("--keep", help="Stay up afterwards, for POST /api/execute.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of the view.")] = False,
    log_level: Annotated[str, typer.Option("--log-level", "-l", help="Level of the worker's own log.")] = "error",
) -> None:
    """Run a playbook on this machine with nothing else running. Exit code 0 only if it completed."""
    configure_logging(log_level, "auto")
    try:
        from noetl_worker.dev.session import run_playbook

        overrides = dict(parse_override(text) for text in set_ or ())
        code = event_loop.run(
            run_playbook(playbook, overrides, dialect=dialect, keep=keep, as_json=as_json, worker_factory=worker_beside)
        )
    except NoetlWorkerError as error:
        typer.echo(f"noetl-worker dev: {error}", err=True)
        raise typer.Exit(2) from None
    raise typer.Exit(code)


def parse_override(text: str) -> tuple[str, JsonValue]:
    """`workload.x=1` -> ("workload.x", 1). The value is JSON where it parses, else text."""
    from noetl_worker import json_text
    from noetl_worker.errors import DocumentError

    name, equals, value = text.partition("=")
    if not equals or not name.startswith("workload.") or name == "workload.":
        raise PlaybookError(f"--set {text!r}: write workload.<name>=<value>")
    try:
        return name, json_text.loads(value)
    except DocumentError:
        return name, value


@asynccontextmanager
async def worker_beside(nats_url: str, server_url: str, dialect: Dialect) -> AsyncIterator[None]:
    """A worker on this loop, pointed at the session's own NATS and control plane; drained at the end."""
    import asyncio

    from noetl_worker.worker import Worker

    settings = load_settings(
        {
            "NATS_URL": nats_url,
            "NOETL_SERVER_URL": server_url,
            "NOETL_CONTROL_PLANE": dialect.value,
            "WORKER_METRICS_BIND": "",
            "WORKER_ID": "dev",
            "NOETL_WORKER_DRAIN_TIMEOUT_S": "3",
        },
        dotenv=Path(os.devnull),  # a production .env in the working directory is not for a local run
    )
    worker = Worker(settings)
    running = asyncio.ensure_future(worker.run())
    ready = asyncio.ensure_future(worker.ready.wait())
    await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        ready.cancel()
        running.result()
    try:
        yield
    finally:
        worker.request_stop()
        await running
