"""The client's whole surface against the development control plane, per dialect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from noetl_worker.authoring.dev.plane import DevControlPlane, RawCommand
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.errors import CredentialError, ServerRefused
from noetl_worker.models import Dialect
from noetl_worker.remote.plane.client import ControlPlaneClient, Plane
from noetl_worker.remote.transport.opening import open_transport
from noetl_worker.settings.settings import load_settings
from patience import PATIENCE_S


@asynccontextmanager
async def reached(dialect: Dialect, **settings: Any) -> AsyncIterator[tuple[Plane, DevControlPlane]]:
    async with DevControlPlane(PlaneSettings(dialect=dialect, **settings)) as control_plane:
        variables = {"NOETL_SERVER_URL": control_plane.url, "NOETL_WORKER_HTTP_TIMEOUT_S": f"{PATIENCE_S:g}"}
        chosen = load_settings(variables)
        client = ControlPlaneClient(open_transport(chosen), chosen)
        try:
            plane = await client.plane("")
            assert plane.dialect is dialect
            yield plane, control_plane
        finally:
            await client.close()


async def test_variables_are_set_and_read_in_the_planes_own_form(dialect: Dialect) -> None:
    async with reached(dialect) as (plane, control_plane):
        [one] = await control_plane.create_commands([RawCommand()], publish=False)
        big = 2**63 - 1
        variables = {"n": big, "deep": {"x": [1, None]}, "name with space": "ü"}
        await plane.set_vars(one.execution_id, variables, "start")
        assert {name: await plane.get_var(one.execution_id, name) for name in variables} == variables
        assert await plane.get_var(one.execution_id, "missing") is None


async def test_command_is_fetched_without_claiming_it(dialect: Dialect) -> None:
    async with reached(dialect) as (plane, control_plane):
        [one] = await control_plane.create_commands([RawCommand("shell", {"command": "true"})], publish=False)
        fetched = await plane.fetch_command(one.event_id)
        assert (fetched["execution_id"], fetched["action"]) == (one.execution_id, "shell")
        assert control_plane.command(one.event_id).worker_id is None
        with pytest.raises(ServerRefused) as caught:
            await plane.fetch_command(4242)
        assert caught.value.status == 404


@pytest.mark.parametrize("prefix", ["/api", "/api/api"])
async def test_result_is_stored_and_resolved_under_either_prefix(prefix: str) -> None:
    async with reached(Dialect.PYTHON, result_prefix=prefix) as (plane, control_plane):
        [one] = await control_plane.create_commands([RawCommand()], publish=False)
        data = b'{"id":767527441517510672,"rows":[1,2]}'
        stored = await plane.put_result(one.execution_id, "start", data, source_step="start")
        assert (await plane.stored_result(stored["ref"]))[0] == {"id": 767527441517510672, "rows": [1, 2]}
        left = datetime.fromisoformat(stored["expires_at"]) - datetime.now(timezone.utc)
        assert timedelta(hours=1, minutes=59) < left <= timedelta(hours=2), "as the worker has asked for"


async def test_credentials_keychain_and_cancellation(dialect: Dialect) -> None:
    async with reached(dialect) as (plane, control_plane):
        body = {"name": "pg demo", "type": "postgres", "data": {"host": "h", "password": "p"}, "tags": []}
        await plane.client.send("POST", f"{plane.url}/api/credentials", body)
        record = await plane.credential("pg demo")
        assert (record["type"], record["data"]["password"]) == ("postgres", "p")
        with pytest.raises(CredentialError, match="no credential 'nobody'"):
            await plane.credential("nobody")
        assert (await plane.keychain("9", "none"))["status"] == "not_found"
        [one] = await control_plane.create_commands([RawCommand()], publish=False)
        assert await plane.is_cancelled(one.execution_id) is False


async def test_registry_row_is_made_beaten_and_taken_away(dialect: Dialect) -> None:
    async with reached(dialect) as (plane, _):
        assert await plane.heartbeat("w-1") is False
        await plane.register({"name": "w-1", "component_type": "worker_pool", "runtime": "python", "status": "ready"})
        assert await plane.heartbeat("w-1") is True
        await plane.deregister("w-1")
        await plane.deregister("never registered")


async def test_child_playbook_is_started_and_asked_for() -> None:
    async with reached(Dialect.PYTHON) as (plane, control_plane):
        content = "metadata: {name: c, path: t/c}\nworkflow: [{step: start, tool: {kind: noop}}]\n"
        control_plane.register_playbook(content)
        started = await plane.execute_playbook({"path": "t/c", "payload": {}})
        status = await plane.execution_status(int(started["execution_id"]))
        assert int(status["execution_id"]) == int(started["execution_id"])
        with pytest.raises(ServerRefused) as caught:
            await plane.execute_playbook({"path": "t/none", "payload": {}})
        assert caught.value.status == 404
