"""Logins of NATS: taken from wherever they are given, never shown, and told when they are refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.requests import Request

from integration.house import House, noops
from integration.processes import one_line, refused_start, typed, worker_process
from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.authoring.dev.plane import DevControlPlane
from noetl_worker.authoring.dev.settings import PlaneSettings

PASSWORD, TOKEN, INTERNAL = "s3cr3t/pa:ss@wörd", "t0ken-of-nats", "internal-t0ken"
ACCOUNTS = f"""
accounts {{
  NOETL {{
    jetstream: enabled
    users: [
      {{user: "noetl", password: {json.dumps(PASSWORD, ensure_ascii=False)}}}
      {{user: "plane", password: "plane"}}
    ]
  }}
  OTHER {{ users: [{{user: "other", password: "other"}}] }}
}}
"""
QUOTED = "s3cr3t%2Fpa%3Ass%40w%C3%B6rd"


@asynccontextmanager
async def gated_house(config: str, login: str, look: Callable[[Request], None]) -> AsyncIterator[tuple[House, str]]:
    """A house whose NATS asks for a login, the plane's being `login`; and its host:port. `look` sees every request."""
    async with NatsServer(config=config) as server:
        address = f"{server.host}:{server.port}"
        async with DevControlPlane(PlaneSettings(), nats_url=f"nats://{login}@{address}") as plane:
            home, plane.fault = House(server, plane), look
            yield home, address
            await home.close()


OF_ACCOUNTS, OF_A_TOKEN = (ACCOUNTS, "plane:plane"), (f'authorization {{ token: "{TOKEN}" }}', TOKEN)
LOGINS: dict[str, tuple[tuple[str, str], str, dict[str, str]]] = {
    "user and password in the URL": (OF_ACCOUNTS, f"noetl:{QUOTED}@", {}),
    "variables before the URL": (OF_ACCOUNTS, "somebody:else@", {"NATS_USER": "noetl", "NATS_PASSWORD": PASSWORD}),
    "NATS_TOKEN": (OF_A_TOKEN, "", {"NATS_TOKEN": TOKEN}),
    "token in the URL": (OF_A_TOKEN, f"{TOKEN}@", {}),
}
"""What the server asks for and the plane gives; what the worker has in its URL, and in variables."""


@pytest.mark.parametrize("how", LOGINS)
async def test_login_is_taken_and_never_shown(how: str, tmp_path: Path) -> None:
    """The worker works; no secret is in its log at its most talkative, nor in the plane's registry."""
    (config, login), in_url, variables = LOGINS[how]
    tokens: set[str | None] = set()

    def look(request: Request) -> None:
        tokens.add(request.headers.get("authorization"))

    everything = {"NOETL_INTERNAL_API_TOKEN": INTERNAL, "LOG_LEVEL": "debug", **variables}
    async with (
        gated_house(config, login, look) as (home, address),
        worker_process(home, tmp_path, NATS_URL=f"nats://{in_url}{address}", **everything) as worker,
    ):
        await worker.wait_logged("registered")
        issued = await home.plane.create_commands(noops(3))
        await home.wait_terminal(*(one.event_id for one in issued))
        rows = list(home.plane.registry.runtimes.values())
        assert await worker.stop() == 0
    assert tokens == {f"Bearer {INTERNAL}"}
    assert len(rows) == 1
    for secret in (PASSWORD, QUOTED, "s3cr3t", TOKEN, INTERNAL):
        assert secret not in worker.text
        assert secret not in str(rows)


BY_KEY = "authorization { users: [{nkey: UBIS6JHZYBWE7W7CQNDHHK34N4NQBWMDWDDRTJTNRGR4JWSNRLCYRELC}] }"
NO_SEED = "SUABCs3cr3tTHATISNONE"
JWT = "-----BEGIN NATS USER JWT-----\na.b.c\n------END NATS USER JWT------\n"
NO_KEYS: dict[str, tuple[dict[str, str], bytes]] = {
    "seed": ({"NATS_SEED": NO_SEED}, b""),
    "seed beside a JWT": ({"NATS_SEED": NO_SEED, "NATS_JWT": "a.b.c"}, b""),
    "file of a seed": ({"NATS_NKEY": "{file}"}, NO_SEED.encode()),
    "file that is no text": ({"NATS_NKEY": "{file}", "NATS_JWT": "a.b.c"}, b"\xff\xfe"),
    "credentials": ({"NATS_CREDS": "{file}"}, b"s3cr3t"),
    "credentials without a seed": ({"NATS_CREDS": "{file}"}, JWT.encode()),
}
"""The variables, and what the file has."""


@pytest.mark.parametrize("how", NO_KEYS)
async def test_key_that_is_none_is_said_to_be_none(how: str, tmp_path: Path) -> None:
    (variables, content), file = NO_KEYS[how], tmp_path / "key"
    file.write_bytes(content)
    async with NatsServer(config=BY_KEY) as server:
        given = {name: text.format(file=file) for name, text in variables.items()}
        ended = await asyncio.to_thread(typed, "nats", "ensure", NATS_URL=server.url, **given)
    assert (ended.code, ended.out) == (2, ""), "no server could make it right"
    [line] = ended.err_lines
    assert next(iter(variables)) in line
    assert ("no NATS USER JWT" in line) is (how == "credentials"), "nats-py looks for it without an end"
    assert "NATS_URL" not in ended.err, "it is not the address"
    assert "s3cr3t" not in ended.err


REFUSED_LOGINS = {
    "none": {},
    "wrong password": {"NATS_USER": "noetl", "NATS_PASSWORD": "wr0ng-one"},
}


@pytest.mark.parametrize("how", REFUSED_LOGINS)
async def test_login_that_nats_refuses_ends_the_start_with_exit_3(how: str, tmp_path: Path) -> None:
    async with NatsServer(config=ACCOUNTS) as server:
        worker = await refused_start(tmp_path, NOETL_WORKER_WAIT="false", NATS_URL=server.url, **REFUSED_LOGINS[how])
        assert worker.process.returncode == 3
        line = one_line(worker)
        assert "NATS_USER" in line
        assert server.url in line
        assert "wr0ng-one" not in worker.text
