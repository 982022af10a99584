"""The worker that the commands `dev` and `test` run inside their own process, with settings for a laptop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from noetl_worker.models.wire import Dialect
from noetl_worker.settings.settings import SettingsReading, is_for_tools, read_settings
from noetl_worker.tools.contract import Tool

if TYPE_CHECKING:
    from noetl_worker.worker.worker import Worker

_RULES: Final = (
    "NOETL_WORKER_KINDS",
    "NOETL_WORKER_KINDS_DENY",
    "NOETL_WORKER_EGRESS_DENY",
    "NOETL_WORKER_KUBERNETES_ALLOW",
    "NOETL_WORKER_KUBERNETES_OWN_SECRETS",
    "NOETL_WORKER_CREDENTIALS_ALLOW",
    "NOETL_WORKER_ISOLATION",
    "NOETL_WORKER_ALLOW_NAMESPACES",
    "NOETL_WORKER_UNDEFINED",
)
"""Environment variables, mostly limits on what commands may do, that the worker of `dev` and `test` obeys."""


def local_settings(
    nats_url: str, server_url: str, dialect: Dialect, token: str = "", *, machine: Mapping[str, str] | None = None
) -> SettingsReading:
    """Return the settings of a worker for a session of `dev` or `test` on a laptop.

    Args:
        nats_url: URL of the session's NATS server.
        server_url: URL of the session's control plane.
        token: bearer token that the control plane requires; "" for none.
        machine: environment variables that apply to the worker's tools and limits; None: `os.environ`. {} for a caller
            that runs no tool.
    """
    of_machine = os.environ if machine is None else machine
    listed = of_machine.get("NOETL_KEYCHAIN_ENV_VARS", "").replace(" ", "").split(",")
    return read_settings(
        {
            "NATS_URL": nats_url,
            "NOETL_SERVER_URL": server_url,
            "NOETL_CONTROL_PLANE": dialect.value,
            "NOETL_INTERNAL_API_TOKEN": token,
            "WORKER_METRICS_BIND": "",
            "WORKER_ID": "dev",
            "NOETL_WORKER_DRAIN_TIMEOUT_S": "3",
            "NOETL_WORKER_ISOLATION": "off",  # one's own machine: ping and sudo work, a debugger finds the code
            "NOETL_WORKER_PYTHON_PACKAGES": "wheels",  # an author's own choice, which builds nothing
            "NOETL_WORKER_OUTBOX": "off",  # the plane ends with this process: nothing could be reported later
            **{name: text for name, text in of_machine.items() if name in (*_RULES, *listed) or is_for_tools(name)},
        },
        dotenv=Path(os.devnull),  # a production .env in the working directory is not for a local run
    )


@asynccontextmanager
async def local_worker(
    nats_url: str,
    server_url: str,
    dialect: Dialect,
    token: str = "",
    *,
    kinds: Collection[str] = (),
    tools: Sequence[Tool[Any]] = (),
    machine: Mapping[str, str] | None = None,
) -> AsyncIterator[None]:
    """Run a worker on this event loop while the caller's block runs, and then drain the worker.

    Args:
        nats_url: URL of the NATS server in the session of `dev` or `test`.
        server_url: URL of the control plane in the session.
        token: bearer token that the control plane requires; "" for none.
        kinds: tool kinds that will run. Their processes start at once, so that no command has to wait for them.
        tools: tools that the worker has besides the usual tools.
        machine: environment variables that apply to the worker's tools and limits; None: `os.environ`.
    """
    from noetl_worker.pipeline.command.tool_rules import make_registry

    reading = local_settings(nats_url, server_url, dialect, token, machine=machine)
    registry = make_registry(reading.settings)
    for tool in tools:
        registry.register(tool)
    registry.warm_up(kinds)  # its processes start while the worker is loaded
    from noetl_worker.worker.worker import Worker

    async with _running(Worker(reading.settings, registry=registry)):
        yield


@asynccontextmanager
async def _running(worker: Worker) -> AsyncIterator[None]:
    running = asyncio.ensure_future(worker.run())
    ready = asyncio.ensure_future(worker.ready.wait())
    try:
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        yield
    finally:
        ready.cancel()
        worker.request_stop()
        await running
