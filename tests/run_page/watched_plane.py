"""A development plane with a run, and its live page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from dev.served_plane import serving
from noetl_worker.authoring.dev.live_page import live_page
from noetl_worker.authoring.dev.plane import DevControlPlane
from noetl_worker.models import Dialect
from patience import PATIENCE_S

PLAYBOOK = "metadata: {name: p, path: p}\nworkload: {n: 7}\nworkflow: [{step: start, tool: {kind: noop}}]\n"


@asynccontextmanager
async def watched(dialect: Dialect = Dialect.PYTHON) -> AsyncIterator[tuple[DevControlPlane, httpx.AsyncClient, int]]:
    """A plane with a run, and a client whose base is the address that is printed."""
    async with serving(dialect=dialect) as (plane, _), live_page(plane) as address:
        plane.register_playbook(PLAYBOOK)
        execution_id = await plane.execute("p", {"n": 8})
        async with httpx.AsyncClient(base_url=address, timeout=PATIENCE_S, verify=False) as client:
            yield plane, client, execution_id
