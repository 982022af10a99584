"""Another user of this machine, or a page in a browser here, gets at a running `dev` or `test`."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from closed_port import closed_port
from dev.shown_session import interrupted_session, session
from integration.processes import PROBES, WorkerProcess, command_line, typed
from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.authoring.dev.plane import DevControlPlane, RawCommand
from noetl_worker.authoring.dev.server.route_table import route_table
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.cli.dev import reporting
from noetl_worker.cli.stored_run import stored_run_plane
from noetl_worker.errors import JetStreamError
from noetl_worker.models import Dialect
from patience import PATIENCE_S, until

from .commands import USERS, printed_under

OPEN = {"GET /health", "GET /api/health", "GET /demo/items"}
"""Probes, and what the examples call."""
PLAYBOOK = """\
metadata: {name: p, path: p}
workflow:
  - step: start
    tool: {kind: python, input: {nats: "{{ workload.nats_url }}"}, code: "result = {'nats': nats}"}
"""
STRANGER = """
import glob, json, os, socket, sys, urllib.error, urllib.request
given = json.load(sys.stdin)

def status(request):
    method, path = request.split()
    asked = urllib.request.Request(given["url"] + path, None if method == "GET" else b"{}", method=method)
    try:
        return urllib.request.urlopen(asked, timeout=given["patience"]).status
    except urllib.error.HTTPError as error:
        return error.code

def reading(path):
    try:
        return os.listdir(path) if os.path.isdir(path) else open(path).read()
    except OSError as error:
        return type(error).__name__

def printed(path):
    try:
        return open(path).read()
    except OSError:
        return ""

with socket.create_connection(("127.0.0.1", given["nats_port"])) as connection, connection.makefile("rwb") as nats:
    nats.readline()
    nats.write(b'CONNECT {"verbose":false}\\r\\nPING\\r\\n')
    nats.flush()
    said = nats.readline().decode().strip()
print(json.dumps({
    "uid": os.getuid(),
    "routes": {request: status(request) for request in given["requests"]},
    "files": {path: reading(path) for path in given["paths"]},
    "nats": said,
    "command_lines": "".join(map(printed, glob.glob("/proc/*/cmdline"))),
}))
"""
is_one_of_two = pytest.mark.skipif("nobody" not in USERS, reason="needs root, setpriv and an interpreter of nobody's")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "noetl-worker" / "dev"


def written(folder: Path, text: str = PLAYBOOK, name: str = "p.yaml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def requests_of(dialect: Dialect) -> list[str]:
    """Every route of the plane as "METHOD path", and a path that it does not have."""
    plane = DevControlPlane(PlaneSettings(dialect=dialect))
    table = {re.sub(r"\{\w+\}", "1", template): methods for template, methods in route_table(plane).items()}
    plane.log.close()
    return [*(f"{method} {path}" for path, methods in table.items() for method in methods), "GET /api/none", "GET /"]


@asynccontextmanager
async def kept_dev(
    folder: Path, dialect: Dialect = Dialect.PYTHON
) -> AsyncIterator[tuple[dict[str, str], io.StringIO]]:
    """The first line of `dev --keep --json`, whose run is over, and all that it shows."""
    shown = io.StringIO()
    async with interrupted_session(written(folder), shown, keep=True, as_json=True, dialect=dialect) as task:
        await until(lambda: '"event":"summary"' in shown.getvalue() or task.done(), "the end of the run")
        yield json.loads(shown.getvalue().splitlines()[0]), shown


def authorization(begin: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {Path(begin['NOETL_INTERNAL_API_TOKEN_FILE']).read_text()}"}


async def said_to_a_stranger(begin: dict[str, str], requests: list[str], *paths: str) -> dict[str, Any]:
    given = {"url": begin["control_plane"], "nats_port": urlsplit(begin["nats"]).port, "patience": PATIENCE_S}
    given |= {"requests": requests, "paths": paths}
    said: dict[str, Any] = await asyncio.to_thread(printed_under, USERS[-1], STRANGER, given=given)
    return said


@pytest.mark.parametrize("dialect", Dialect)
async def test_who_has_no_token_is_answered_by_no_route_and_by_no_nats(tmp_path: Path, dialect: Dialect) -> None:
    """Another user finds the ports of `dev`, and registers and runs a playbook as the user who started it."""
    requests = requests_of(dialect)
    async with kept_dev(tmp_path, dialect) as (begin, shown):
        said = await said_to_a_stranger(begin, requests)
        assert {request: status for request, status in said["routes"].items() if status != 401} == dict.fromkeys(
            OPEN, 200
        )
        assert len(requests) > len(OPEN) + 20
        assert said["nats"] == "-ERR 'Authorization Violation'"
        assert shown.getvalue().count('"event":"begin"') == 1, "nothing was run"


@is_one_of_two
async def test_token_and_login_cannot_be_read_by_another_user(tmp_path: Path, state: Path) -> None:
    """Another user reads the token of `dev` in its file, or the login of its NATS in a command line."""
    tmp_path.chmod(0o755)
    async with kept_dev(tmp_path) as (begin, _):
        file = Path(begin["NOETL_INTERNAL_API_TOKEN_FILE"])
        assert [stat.S_IMODE(path.stat().st_mode) for path in (file, file.parent)] == [0o600, 0o700]
        said = await said_to_a_stranger(begin, [], str(file), str(state))
        assert said["uid"] != os.getuid()
        assert said["files"] == {str(file): "PermissionError", str(state): "PermissionError"}
        assert file.read_text() not in said["command_lines"]
        assert str(urlsplit(begin["NATS_URL"]).password) not in said["command_lines"]


async def test_refusal_says_where_the_token_is_and_the_token_opens(tmp_path: Path) -> None:
    """(no attack) Who started it finds the token by the refusal, by number and by name of the address."""
    async with kept_dev(tmp_path) as (begin, _), httpx.AsyncClient(verify=False) as client:
        url = begin["control_plane"]
        refused = await client.get(f"{url}/api/worker/pools")
        file = begin["NOETL_INTERNAL_API_TOKEN_FILE"]
        assert refused.text == f"refused: send the header `Authorization: Bearer TOKEN`; the token is in {file}"
        assert refused.headers["www-authenticate"] == "Bearer"
        for address in (url, url.replace("127.0.0.1", "localhost")):
            headers = {**authorization(begin), "Host": urlsplit(address).netloc}
            assert (await client.get(f"{url}/api/worker/pools", headers=headers)).status_code == 200
    assert not Path(file).exists(), "the token ends with its run"


def wrong_tokens(token: str) -> Iterator[dict[str, str]]:
    for given in ("", token, f"Basic {token}", f"Bearer {token[:-1]}", f"Bearer {token}x", "Bearer", "Bearer \xe9"):
        yield {"Authorization": given}
    yield {"Cookie": f"token={token}; Authorization=Bearer {token}"}
    yield {"X-Authorization": f"Bearer {token}"}


async def test_what_is_nearly_the_token_or_elsewhere_opens_nothing(tmp_path: Path) -> None:
    """A part of the token is tried, and the token where a page can put it: in a cookie or an address."""
    async with kept_dev(tmp_path) as (begin, _), httpx.AsyncClient(verify=False) as client:
        url, token = begin["control_plane"], authorization(begin)["Authorization"].removeprefix("Bearer ")
        for headers in wrong_tokens(token):
            raw = {name: value.encode("latin-1") for name, value in headers.items()}
            assert (await client.get(f"{url}/api/worker/pools", headers=raw)).status_code == 401, headers
        for address in (f"{url}/api/worker/pools?token={token}", f"{url}/{token}/api/worker/pools"):
            assert (await client.get(address)).status_code == 401


async def test_page_that_had_the_token_would_be_refused_too(tmp_path: Path) -> None:
    """A page posts a form, or has its name lead to 127.0.0.1 (DNS rebinding), and even knows the token."""
    async with kept_dev(tmp_path) as (begin, shown), httpx.AsyncClient(verify=False) as client:
        url, port, known = begin["control_plane"], urlsplit(begin["control_plane"]).port, authorization(begin)
        rebound = {"Host": f"evil.example:{port}", **known}
        assert (await client.get(f"{url}/api/worker/pools", headers=rebound)).status_code == 403
        form = {"Origin": "http://evil.example", "Content-Type": "text/plain", "Cookie": "a=b", **known}
        assert (await client.post(f"{url}/api/execute", content='{"path": "p"}', headers=form)).status_code == 403
        del form["Origin"], form["Authorization"]
        assert (await client.post(f"{url}/api/execute", content='{"path": "p"}', headers=form)).status_code == 401
        assert shown.getvalue().count('"event":"begin"') == 1


def listening_at(pids: set[int]) -> set[str]:
    """The addresses at which these processes listen, as /proc has them in hexadecimal digits."""
    inodes = set()
    for pid in pids:
        inodes.update(str(descriptor.readlink()) for descriptor in Path(f"/proc/{pid}/fd").iterdir())
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp", "/proc/net/udp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state_, *rest = line.split()
            if (state_ == "0A" or "udp" in table) and f"socket:[{rest[5]}]" in inodes:
                found.add(local.partition(":")[0])
    return found


def family_of(pid: int) -> set[int]:
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return {pid}.union(*map(family_of, children))


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's /proc")
async def test_nothing_of_dev_listens_beyond_this_machine(tmp_path: Path) -> None:
    """A neighbour on the network connects to `dev`."""
    kept = WorkerProcess(tmp_path, "dev", {"PORT": "8080"}, ["dev", str(written(tmp_path)), "--keep", "--json"])
    try:
        await kept.wait_logged("summary")
        assert listening_at(family_of(kept.process.pid)) == {"0100007F"}
        kept.signal(signal.SIGINT)
        assert await kept.exit_code() == 130
    finally:
        await asyncio.to_thread(kept.end)


@pytest.mark.parametrize("dialect", Dialect)
async def test_login_of_nats_is_in_no_kept_run_and_on_no_page(tmp_path: Path, state: Path, dialect: Dialect) -> None:
    """Who is sent a page of a run, or a copy of the kept runs, reads the login of its NATS there."""
    page, shown = tmp_path / "run.html", io.StringIO()
    logins = []

    async def note(plane: DevControlPlane, execution_id: int) -> None:
        logins.append(str(urlsplit(plane.nats_url or "").password))
        await reporting(page)(plane, execution_id)

    assert await session(written(tmp_path), shown, dialect=dialect, on_end=note) == 0
    assert [login in page.read_text() for login in logins] == [False]
    async with kept_dev(tmp_path, dialect) as (begin, _), httpx.AsyncClient(verify=False) as client:
        logins.append(str(urlsplit(begin["NATS_URL"]).password))
        live = await client.get(begin["page"], follow_redirects=True)
        assert (live.status_code, logins[-1] in live.text) == (200, False)
    assert len(logins[0]) >= 32
    assert logins[0] != logins[1]
    assert [login for login in logins if login.encode() in (state / "runs.sqlite3").read_bytes()] == []
    assert logins[0] not in shown.getvalue()


async def test_kept_run_is_read_by_the_command_that_asked_alone(tmp_path: Path) -> None:
    """Another user reads the kept run that `why`, `report` or `replay` looks at."""
    assert await session(written(tmp_path), io.StringIO()) == 0
    async with stored_run_plane("last") as kept, httpx.AsyncClient(verify=False) as client:
        assert kept is not None
        asked = f"{kept.flags['NOETL_SERVER_URL']}/api/executions/{kept.name}"
        assert (await client.get(asked)).status_code == 401
        token = {"Authorization": f"Bearer {kept.flags['NOETL_INTERNAL_API_TOKEN']}"}
        assert (await client.get(asked, headers=token)).status_code == 200


def test_test_answers_nobody_else_either(tmp_path: Path) -> None:
    """Another user runs a playbook on the plane of `noetl-worker test`, or connects to its NATS."""
    code = """
import socket, urllib.error, urllib.request
try:
    urllib.request.urlopen(server_url + "/api/worker/pools")
except urllib.error.HTTPError as error:
    http = error.code
host, _, port = nats_url.rpartition("@")[2].removeprefix("nats://").partition(":")
with socket.create_connection((host, int(port))) as connection, connection.makefile("rwb") as nats:
    nats.readline()
    nats.write(b'CONNECT {"verbose":false}\\r\\nPING\\r\\n')
    nats.flush()
    said = nats.readline().decode().strip()
result = {"http": http, "nats": said}
"""
    given = {name: f"{{{{ workload.{name} }}}}" for name in ("server_url", "nats_url")}
    step = {"step": "start", "tool": {"kind": "python", "input": given, "code": code}}
    written(tmp_path, json.dumps({"metadata": {"name": "p", "path": "p"}, "workflow": [step]}))
    expected = {"http": 401, "nats": "-ERR 'Authorization Violation'"}
    cases = {"cases": [{"name": "refused", "expect": {"result": expected}}]}
    ended = typed("test", str(written(tmp_path, json.dumps(cases), "p.test.yaml")))
    assert ended.code == 0, ended.out


async def test_commands_of_its_user_ask_a_running_dev_without_more(tmp_path: Path) -> None:
    """(no attack) `why`, `report` and `replay` of its user find the token by the address."""
    async with kept_dev(tmp_path, Dialect.RUST) as (begin, _), httpx.AsyncClient(verify=False) as client:
        execution, url = begin["execution_id"], begin["control_plane"]
        events = (await client.get(f"{url}/api/executions/{execution}/events", headers=authorization(begin))).json()
        [issued] = (str(one["event_id"]) for one in events["events"] if one["event_type"] == "command.issued")
        nowhere = ("--nats-url", f"nats://127.0.0.1:{closed_port()}")
        for words, said in (
            (("why", execution, *nowhere), f"execution {execution} of p is "),
            (("report", execution, "-o", "-"), execution),
            (("replay", issued), "not sent: POST /api/events"),
        ):
            ended = await asyncio.to_thread(command_line, tmp_path, *words, "--server-url", url)
            assert (ended.code, said in ended.out) == (0, True), ended


async def test_worker_joins_with_the_lines_that_keep_prints(tmp_path: Path) -> None:
    """(no attack) A worker in another process runs commands of a `dev` that stays."""
    shown = io.StringIO()
    async with interrupted_session(written(tmp_path), shown, keep=True):
        await until(lambda: "export NOETL_SERVER_URL=" in shown.getvalue(), "the lines")
        lines = [line.removeprefix("export ") for line in shown.getvalue().splitlines() if line.startswith("export ")]
        settings = dict(line.split("=", 1) for line in lines)
        assert list(settings) == ["NOETL_INTERNAL_API_TOKEN_FILE", "NATS_URL", "NOETL_SERVER_URL"]
        worker = WorkerProcess(tmp_path, "joined", {**settings, **PROBES, "WORKER_ID": "joined"}, ["run"])
        try:
            await worker.wait_logged("registered")
            assert await worker.stop() == 0
        finally:
            await asyncio.to_thread(worker.end)


async def test_plane_and_nats_of_a_test_stay_open() -> None:
    """(no attack) What is made without a token and a login asks for none."""
    async with (
        NatsServer() as nats,
        DevControlPlane(nats_url=nats.url) as plane,
        httpx.AsyncClient(verify=False) as client,
    ):
        assert nats.url == nats.address
        assert len(await plane.create_commands([RawCommand()])) == 1
        assert (await client.get(f"{plane.url}/api/worker/pools")).status_code == 200


async def test_server_of_another_user_is_not_taken_for_our_nats() -> None:
    """Another user listens at the port of the NATS of `dev` before it does, to see its messages."""

    def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"X","server_name":"X","version":"2.11.0","max_payload":1048576}\r\n')
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as stranger:
        port = stranger.sockets[0].getsockname()[1]
        with pytest.raises(JetStreamError, match="address already in use"):
            await NatsServer(port=port, has_login=True).__aenter__()
