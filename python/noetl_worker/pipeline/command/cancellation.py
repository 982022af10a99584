"""Polling for the cancellation of a running command's execution. No plane notifies a worker of a cancellation."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from noetl_worker.errors import ControlPlaneError
from noetl_worker.models.command import Command
from noetl_worker.remote.plane.client import Plane

_ADVICE: Final = "do nothing: the tool runs on, and the control plane is asked again in some seconds"
log = structlog.get_logger("noetl_worker.cancellation")


async def wait_until_cancelled(plane: Plane, command: Command, every_s: float) -> None:
    """Wait until the plane says that the command's execution is cancelled. An error of the plane is logged, and the
    plane is asked again."""
    while True:
        try:
            if await plane.is_cancelled(command.execution_id):
                return
        except ControlPlaneError as error:
            log.warning("cancellation_unknown", **command.log_ids(), error=str(error), advice=_ADVICE)
        await asyncio.sleep(every_s)
