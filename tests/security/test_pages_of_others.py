"""A page in a browser on this machine asks the development control plane."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx
import pytest

from dev.served_plane import serving
from noetl_worker.authoring.dev.plane import DevControlPlane
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.models import Dialect

SECRET = "hush-29-of-pg"
PLAYBOOK = "metadata: {name: p, path: p}\nworkflow: [{step: start, tool: {kind: noop}}]\n"
NAMES_OF_OTHERS = ("evil.example:{port}", "evil.example", "127.0.0.1.evil.example:{port}", "127.0.0.1:1", "")
PAGES_OF_OTHERS = ("http://evil.example", "http://evil.example:{port}", "http://127.0.0.1:1", "null", "")


@asynccontextmanager
async def with_a_secret(dialect: Dialect) -> AsyncIterator[tuple[DevControlPlane, httpx.AsyncClient, int]]:
    """A plane with a credential and a playbook, a client, and the plane's port."""
    async with serving(dialect=dialect) as (plane, client):
        plane.credentials.write({"name": "pg", "type": "postgres", "data": {"password": SECRET}})
        plane.register_playbook(PLAYBOOK)
        yield plane, client, urlsplit(plane.url).port or 0


@pytest.mark.parametrize("dialect", Dialect)
async def test_credential_is_not_given_to_a_name_that_leads_here(dialect: Dialect) -> None:
    """A name of a stranger leads to 127.0.0.1 (DNS rebinding), and its page reads credentials of `dev`."""
    async with with_a_secret(dialect) as (plane, client, port):
        for name in NAMES_OF_OTHERS:
            answer = await client.get("/api/credentials/pg?include_data=true", headers={"Host": name.format(port=port)})
            assert (answer.status_code, SECRET in answer.text) == (403, False), name
        assert plane.requests.total() == 0


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("page", PAGES_OF_OTHERS)
async def test_page_of_another_server_runs_nothing(page: str, dialect: Dialect) -> None:
    """A page posts to `/api/execute` of `dev` as a form does, which no browser asks about before."""
    async with with_a_secret(dialect) as (plane, client, port):
        headers = {"Origin": page.format(port=port), "Content-Type": "text/plain"}
        answer = await client.post("/api/execute", content='{"path": "p", "workload": {}}', headers=headers)
        assert (answer.status_code, plane.executions.all()) == (403, [])
        assert answer.text.startswith(
            f"refused: send the request to http://127.0.0.1:{port} or http://[::1]:{port} or "
        )


@pytest.mark.parametrize("dialect", Dialect)
async def test_own_names_and_own_pages_are_answered(dialect: Dialect) -> None:
    """(no attack) By number and by name, and what is no page at all."""
    async with with_a_secret(dialect) as (_, client, port):
        for name in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", f"LocalHost:{port}"):
            for origin in ({}, {"Origin": f"http://{name.lower()}"}):
                answer = await client.get("/api/credentials/pg?include_data=true", headers={"Host": name, **origin})
                assert (answer.status_code, SECRET in answer.text) == (200, True), (name, origin)
                answer = await client.post("/api/execute", json={"path": "p"}, headers={"Host": name, **origin})
                assert answer.status_code == 200, (name, origin)


async def test_host_of_the_public_url_is_answered() -> None:
    """(no attack) A proxy in front of the plane."""
    settings = PlaneSettings(public_url="http://plane.test/behind")
    async with DevControlPlane(settings) as plane, httpx.AsyncClient(base_url=plane.url, verify=False) as client:
        headers = {"Host": "plane.test", "Origin": "http://plane.test"}
        assert (await client.get("/api/health", headers=headers)).status_code == 200
