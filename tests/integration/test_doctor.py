"""`noetl-worker doctor`: each check with the thing it looks at broken on purpose."""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from integration.house import house, run
from integration.processes import command_line
from noetl_worker import engine
from noetl_worker.dev.nats_server import NatsServer, free_port
from noetl_worker.doctor import Finding, State, clock, examine, machine, nats, outbox, plane, tls
from noetl_worker.jetstream.api import ask
from noetl_worker.jetstream.connection import connect
from noetl_worker.jetstream.consumer import ensure_durable
from noetl_worker.jetstream.start_notes import BUCKET, ensure_bucket
from noetl_worker.models import Dialect, Report
from noetl_worker.outbox.outbox import Outbox
from noetl_worker.outcome.event_set import EventSet
from noetl_worker.settings.settings import Settings, load_settings
from noetl_worker.tools.process import confinement

STREAM, DURABLE = "NOETL_COMMANDS", "noetl_worker"


def settings(directory: Path, **variables: str) -> Settings:
    return load_settings({"NOETL_WORKER_OUTBOX_DIR": str(directory / "outbox"), **variables}, dotenv=Path(os.devnull))


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    assert len({one.check for one in findings}) == len(findings)
    return {one.check: one for one in findings}


def not_fine(findings: list[Finding]) -> dict[str, State]:
    return {one.check: one.state for one in findings if one.state is not State.FINE}


async def made(
    server: NatsServer, stream: Mapping[str, Any] | None = None, durable: Mapping[str, Any] | None = None
) -> None:
    """The stream and the durable, with these fields changed."""
    connection = await connect(load_settings({"NATS_URL": server.url}), "test", attempts=5)
    try:
        config = {"name": STREAM, "subjects": ["noetl.commands", "noetl.commands.>"], **(stream or {})}
        await ask(connection.client, f"STREAM.CREATE.{STREAM}", config)
        given = {
            "durable_name": DURABLE,
            "ack_policy": "explicit",
            "filter_subjects": ["noetl.commands", "noetl.commands.>"],
            "ack_wait": 30 * 10**9,
            "max_ack_pending": 1000,
            **(durable or {}),
        }
        name = given["durable_name"]
        body = {"stream_name": STREAM, "config": {**given, "name": name}, "action": "create"}
        await ask(connection.client, f"CONSUMER.CREATE.{STREAM}.{name}", body)
    finally:
        await connection.close()


# ── all of it ──


@pytest.mark.parametrize("dialect", Dialect)
def test_nothing_is_wrong_in_front_of_a_plane_with_a_worker(dialect: Dialect, tmp_path: Path) -> None:
    async def go() -> None:
        async with house(dialect, WORKER_ID="w") as home:
            urls = {"NATS_URL": home.nats.url, "NOETL_SERVER_URL": home.plane.url}
            findings = await examine(settings(tmp_path, **urls))
            assert not_fine(findings) == ({} if engine.ENGINE == "rust" else {"engine": State.WARNING})
            found = by_check(findings)
            assert found["control plane version"].found.startswith(dialect.value)
            assert "1 ready: w" in found["registered workers"].found
            assert await home.unsettled() == 0
            assert await home.dead_letters() == []  # trying the permission keeps no letter

    run(go())


def test_command_tells_by_its_exit_code_and_as_json(tmp_path: Path) -> None:
    nowhere = {
        "NATS_URL": f"nats://u:s3cr3t@127.0.0.1:{free_port()}",
        "NOETL_SERVER_URL": f"http://127.0.0.1:{free_port()}",
    }
    ended = command_line(tmp_path, "doctor", "--json", **nowhere)
    assert (ended.code, ended.err) == (5, "")
    told = json.loads(ended.out)
    assert told["ok"] is False
    wrong = {one["check"]: one for one in told["checks"] if one["state"] == "wrong"}
    assert set(wrong) == {"NATS", "control plane"}
    assert "NATS_URL" in wrong["NATS"]["fix"]
    assert "s3cr3t" not in ended.out
    shown = command_line(tmp_path, "doctor", "--brief", **nowhere)
    assert shown.code == 5
    assert "WRONG  control plane: start it, or set NOETL_SERVER_URL" in shown.out
    assert " descriptors " not in shown.out


def test_setting_that_is_wrong_is_exit_2(tmp_path: Path) -> None:
    ended = command_line(tmp_path, "doctor", "--ack-wait-s", "soon")
    assert (ended.code, ended.out) == (2, "")
    assert "NOETL_WORKER_ACK_WAIT_S='soon'" in ended.err


# ── NATS ──

DENIED = {
    "subscribe": {"may receive answers": "_INBOX.>"},
    "publish": {
        "may find the stream": "$JS.API.STREAM.NAMES",
        "may look at the stream": f"$JS.API.STREAM.INFO.{STREAM}",
        "may look at the durable": f"$JS.API.CONSUMER.INFO.{STREAM}.{DURABLE}",
        "may make the durable": f"$JS.API.CONSUMER.CREATE.{STREAM}.{DURABLE}",
        "may pull commands": f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{DURABLE}",
        "may acknowledge commands": f"$JS.ACK.{STREAM}.{DURABLE}.>",
        "may keep dead letters": "noetl.dead_letters",
        "may make the stream of dead letters": "$JS.API.STREAM.CREATE.NOETL_DEAD_LETTERS",
        "may read the notes of starts": f"$JS.API.STREAM.MSG.GET.KV_{BUCKET}",
        "may note the start of a command": f"$KV.{BUCKET}.>",
        "may make the bucket of these notes": f"$JS.API.STREAM.CREATE.KV_{BUCKET}",
    },
}


def test_each_permission_that_is_denied_is_found_by_itself_with_the_grant(tmp_path: Path) -> None:
    cases = [(verb, check, subject) for verb, checks in DENIED.items() for check, subject in checks.items()]
    users = [
        f'{{user: u{number}, password: p, permissions: {{{verb}: {{deny: ["{subject}"]}}}}}}'
        for number, (verb, _, subject) in enumerate(cases)
    ]
    admin = "{user: admin, password: p}"
    config = f"accounts {{ A {{ jetstream: enabled, users: [{', '.join([admin, *users])}] }} }}\nno_auth_user: admin"

    async def go() -> None:
        async with NatsServer(config=config) as server:
            await made(server)
            for number, (verb, check, subject) in enumerate(cases):
                url = f"nats://u{number}:p@{server.host}:{server.port}"
                findings = await nats.examine(settings(tmp_path, NATS_URL=url))
                found = by_check(findings)[check]
                expected = State.WARNING if "make" in check or BUCKET in subject else State.WRONG
                assert found.state is expected, (check, findings)
                assert found.wanted == f"{verb} to {subject}"
                assert f'allow: [..., "{subject}"]' in found.fix
                others = [one.check for one in findings if one.check.startswith("may ") and one.state is not State.FINE]
                assert others == [check]

    run(go())


def test_trying_the_permissions_leaves_no_note_and_makes_no_bucket(tmp_path: Path) -> None:
    async def go() -> None:
        async with NatsServer() as server:
            await made(server)
            await nats.examine(settings(tmp_path, NATS_URL=server.url))
            connection = await connect(load_settings({"NATS_URL": server.url}), "test", attempts=5)
            try:
                assert await ensure_bucket(connection.client)
                await nats.examine(settings(tmp_path, NATS_URL=server.url))
                notes = await ask(connection.client, f"STREAM.INFO.KV_{BUCKET}")
                assert notes["state"]["last_seq"] == 0
            finally:
                await connection.close()

    run(go())


def test_login_that_is_refused_is_told_as_such(tmp_path: Path) -> None:
    async def go() -> None:
        async with NatsServer(config='authorization { user: "a", password: "b" }') as server:
            [found] = await nats.examine(settings(tmp_path, NATS_URL=server.url))
            assert found.state is State.WRONG
            assert "refuses the login" in found.found

    run(go())


def test_account_without_jetstream_is_told_as_such(tmp_path: Path) -> None:
    async def go() -> None:
        config = 'accounts { A { users: [{user: a, password: "b"}] } }'
        async with NatsServer(config=config) as server:
            url = f"nats://a:b@{server.host}:{server.port}"
            found = by_check(await nats.examine(settings(tmp_path, NATS_URL=url)))
            assert found["JetStream"].state is State.WRONG
            assert "not enabled" in found["JetStream"].found

    run(go())


def test_stream_and_durable_are_compared_field_by_field(tmp_path: Path) -> None:
    async def go() -> None:
        async with NatsServer() as server:
            missing = by_check(await nats.examine(settings(tmp_path, NATS_URL=server.url)))
            assert missing["stream"].state is State.WARNING
            assert missing["durable"].state is State.WARNING
            assert missing["clock against NATS"].state is State.UNKNOWN
            await made(
                server,
                stream={"max_age": 60 * 10**9},
                durable={"filter_subjects": None, "filter_subject": "noetl.commands", "ack_wait": 10**9},
            )
            findings = await nats.examine(settings(tmp_path, NATS_URL=server.url))
            assert not_fine(findings) == {
                "stream: max_age": State.WARNING,
                "durable: filters": State.WRONG,
                "durable: ack_wait": State.WARNING,
            }
            assert all(one.fix == "noetl-worker nats ensure --apply" for one in findings if one.state is not State.FINE)

    run(go())


def test_another_durable_for_the_same_commands_is_named(tmp_path: Path) -> None:
    async def go() -> None:
        async with NatsServer() as server:
            await made(server)
            connection = await connect(load_settings({"NATS_URL": server.url}), "test", attempts=5)
            apart = load_settings({"NATS_CONSUMER": "apart", "NATS_FILTER_SUBJECT": "noetl.commands.gpu.>"})
            await ensure_durable(connection.client, load_settings({"NATS_CONSUMER": "worker-pool"}))
            await ensure_durable(connection.client, apart)
            await connection.close()
            ours = settings(
                tmp_path, NATS_URL=server.url, NATS_FILTER_SUBJECT="noetl.commands.cpu.>", NATS_CONSUMER="cpu"
            )
            found = by_check(await nats.examine(ours))["stream: other durables"]
            assert found.state is State.WARNING
            assert "worker-pool" in found.found
            assert "apart" not in found.found

    run(go())


# ── the control plane ──


def test_plane_that_has_left_nats_is_wrong_with_the_versions_that_are_served(tmp_path: Path) -> None:
    later = {"status": "ok", "database": "connected", "nats": "removed", "uptime_seconds": 1, "version": "3.77.3"}
    found = plane_findings(tmp_path, lambda request: JSONResponse(later))["control plane version"]
    assert found.state is State.WRONG
    assert found.found.startswith("rust 3.77.3")
    assert "Rust control planes up to 3.60.1, and every Python one" in found.wanted


def test_plane_that_is_none_is_wrong(tmp_path: Path) -> None:
    found = plane_findings(tmp_path, lambda request: Response("<html>hello</html>"))
    assert found["control plane"].state is State.WRONG
    assert "neither the Python nor the Rust control plane" in found["control plane"].found


def test_plane_that_refuses_our_token_is_wrong(tmp_path: Path) -> None:
    def answer(request: Request) -> Response | None:
        return JSONResponse({}, 401) if request.url.path == "/api/worker/pools" else None

    found = plane_findings(tmp_path, answer)["control plane lets us in"]
    assert found.state is State.WRONG
    assert "NOETL_INTERNAL_API_TOKEN" in found.fix


def test_another_program_on_our_durable_is_wrong(tmp_path: Path) -> None:
    row = {"name": "worker-94abb616", "status": "ready", "labels": {"nats_consumer": DURABLE}, "runtime": "python"}

    def answer(request: Request) -> Response | None:
        return JSONResponse({"items": [row], "count": 1}) if request.url.path == "/api/worker/pools" else None

    found = plane_findings(tmp_path, answer)["registered workers"]
    assert found.state is State.WRONG
    assert "worker-94abb616" in found.found


@pytest.mark.parametrize(("off_s", "state"), [(0, State.FINE), (20, State.WARNING), (-300, State.WRONG)])
def test_clock_of_the_plane_is_compared(off_s: float, state: State, tmp_path: Path) -> None:
    date = email.utils.formatdate(time.time() + off_s, usegmt=True)
    answer = f'HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: 15\r\n\r\n{{"status":"ok"}}'.encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(answer)

    async def go() -> None:
        async with serving(serve) as port:
            url = f"http://127.0.0.1:{port}"
            found = by_check(await plane.examine(settings(tmp_path, NOETL_SERVER_URL=url)))
        assert found["clock against the plane"].state is state

    run(go())


def test_clock_is_judged_by_what_is_surely_off() -> None:
    assert clock.skew("c", theirs=100.0, ours=107.0, uncertain_s=2.5).state is State.FINE
    assert clock.skew("c", theirs=100.0, ours=107.0, uncertain_s=1.0).state is State.WARNING
    assert clock.skew("c", theirs=100.0, ours=0.0, uncertain_s=1.0).state is State.WRONG
    assert clock.moment("2026-11-26T20:37:20.123456789Z") == pytest.approx(1795725440.123456)


def plane_findings(directory: Path, fault: Any) -> dict[str, Finding]:
    found: list[Finding] = []

    async def go() -> None:
        async with house(worker=False) as home:
            home.plane.fault = fault
            found.extend(await plane.examine(settings(directory, NOETL_SERVER_URL=home.plane.url)))

    run(go())
    return by_check(found)


# ── certificates ──

EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=20)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, other.pem (a foreign CA) and, signed by the first, good, expired, soon and elsewhere, with one key."""
    at = tmp_path_factory.mktemp("certificates")
    for name in ("ca", "other"):
        openssl(
            "req",
            "-x509",
            *EC,
            "-days",
            "99",
            "-subj",
            f"/CN={name}",
            "-keyout",
            f"{at}/{name}.key",
            "-out",
            f"{at}/{name}.pem",
        )
    openssl("req", *EC, "-subj", "/CN=server", "-keyout", f"{at}/key.pem", "-out", f"{at}/request.csr")
    for name, days, address in (
        ("good", "90", "127.0.0.1"),
        ("expired", "-1", "127.0.0.1"),
        ("soon", "3", "127.0.0.1"),
        ("elsewhere", "90", "10.0.0.1"),
    ):
        (at / "san").write_text(f"subjectAltName=IP:{address}")
        signed = (
            "-CA",
            f"{at}/ca.pem",
            "-CAkey",
            f"{at}/ca.key",
            "-CAcreateserial",
            "-days",
            days,
            "-extfile",
            f"{at}/san",
        )
        openssl("x509", "-req", "-in", f"{at}/request.csr", *signed, "-out", f"{at}/{name}.pem")
    return at


CHAINS = [
    ("good", "ca", State.FINE, "signed by ca"),
    ("soon", "ca", State.WARNING, "days left"),
    ("expired", "ca", State.WRONG, "certificate has expired"),
    ("good", "other", State.WRONG, "unable to get local issuer certificate"),
    ("elsewhere", "ca", State.WRONG, "IP address mismatch"),
]


@pytest.mark.parametrize(("chain", "trusted", "state", "said"), CHAINS)
def test_chain_of_the_plane(
    chain: str, trusted: str, state: State, said: str, certificates: Path, tmp_path: Path
) -> None:
    async def go() -> None:
        async with tls_server(certificates, chain) as port:
            ours = settings(
                tmp_path,
                NOETL_SERVER_URL=f"https://127.0.0.1:{port}",
                NOETL_TLS_CA=str(certificates / f"{trusted}.pem"),
            )
            [found] = await tls.of_plane(ours)
            assert (found.state, said in found.found) == (state, True), found

    run(go())


@pytest.mark.parametrize(("chain", "state"), [("good", State.FINE), ("expired", State.WRONG)])
def test_chain_of_nats(chain: str, state: State, certificates: Path, tmp_path: Path) -> None:
    async def go() -> None:
        config = f'tls {{ cert_file: "{certificates}/{chain}.pem", key_file: "{certificates}/key.pem" }}'
        async with NatsServer(config=config) as server:
            url = f"tls://{server.host}:{server.port}"
            authorities = {"NOETL_TLS_CA": str(certificates / "other.pem"), "NATS_CA": str(certificates / "ca.pem")}
            ours = settings(tmp_path, NATS_URL=url, **authorities)
            [found] = await tls.of_nats(ours)
            assert found.state is state, found
            [first, *_] = await nats.examine(ours)
            assert (first.check, first.state) == ("NATS", state)

    run(go())


def test_server_without_tls_is_wrong_where_tls_is_asked_for_and_nothing_elsewhere(tmp_path: Path) -> None:
    async def go() -> None:
        async with NatsServer() as server:
            assert await tls.of_nats(settings(tmp_path, NATS_URL=server.url)) == []
            [found] = await tls.of_nats(settings(tmp_path, NATS_URL=f"tls://{server.host}:{server.port}"))
            assert found.found == "the server offers no TLS"

    run(go())


def test_client_certificate_that_is_wanted_and_not_given(certificates: Path, tmp_path: Path) -> None:
    async def go() -> None:
        async with tls_server(certificates, "good", wants_client=True) as port:
            url = {"NOETL_SERVER_URL": f"https://127.0.0.1:{port}", "NOETL_TLS_CA": str(certificates / "ca.pem")}
            [found] = await tls.of_plane(settings(tmp_path, **url))
            assert found.state is State.WRONG
            assert "NOETL_TLS_CLIENT_CERT" in found.fix

    run(go())


@asynccontextmanager
async def tls_server(certificates: Path, chain: str, *, wants_client: bool = False) -> AsyncIterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{chain}.pem", certificates / "key.pem")
    if wants_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates / "ca.pem")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n")
        writer.close()

    async with serving(serve, context) as port:
        yield port


@asynccontextmanager
async def serving(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Its port; at the end no connection is left open."""
    writers: list[asyncio.StreamWriter] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(asyncio.IncompleteReadError, OSError):  # the other side went away
            await serve(reader, writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


# ── this machine ──


def event_set() -> EventSet:
    report = Report(status="success", context=None)
    return EventSet(7, 1, "c-7", "start", "w", "http://p", Dialect.PYTHON, report)


def test_outbox_directory_of_another_is_wrong(tmp_path: Path) -> None:
    ours = settings(tmp_path)
    assert outbox.directory(ours).state is State.FINE
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox").chmod(0o777)
    found = outbox.directory(ours)
    assert found.state is State.WRONG
    assert "chmod go-rwx" in found.found
    assert outbox.contents(ours).state is State.UNKNOWN
    (tmp_path / "file").touch()
    assert outbox.directory(load_settings({"NOETL_WORKER_OUTBOX_DIR": str(tmp_path / "file")})).state is State.WRONG
    assert outbox.directory(settings(tmp_path, NOETL_WORKER_OUTBOX="off")).state is State.WARNING


def test_outbox_with_rows_of_a_dead_process_and_a_full_one(tmp_path: Path) -> None:
    ours = settings(tmp_path)
    kept = Outbox("always", tmp_path / "outbox", max_rows=10, max_bytes=10**6)
    kept.keep(event_set())
    assert outbox.contents(ours).found.startswith("1 event sets")
    assert "0 of dead processes" in outbox.contents(ours).found
    kept.close()
    found = outbox.contents(ours)
    assert found.state is State.WARNING
    assert "1 of dead processes" in found.found
    full = outbox.contents(settings(tmp_path, NOETL_WORKER_OUTBOX_MAX_ROWS="1"))
    assert (full.state, full.found.startswith("full: ")) == (State.WRONG, True)
    again = Outbox("always", tmp_path / "outbox", max_rows=10, max_bytes=10**6)
    assert len(again.adopt()) == 1  # looking at it has taken nothing away
    again.close()
    (tmp_path / "outbox" / "outbox-1.unreadable").touch()
    assert "1 files that cannot be read" in outbox.contents(ours).found


def test_disk_without_the_room_that_the_outbox_may_take(tmp_path: Path) -> None:
    ours = settings(tmp_path, NOETL_WORKER_OUTBOX_MAX_BYTES=str(1 << 60))
    assert outbox.disk(ours).state is State.WARNING
    assert outbox.disk(settings(tmp_path)).state is State.FINE


def test_open_files_and_memory_are_held_against_the_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: 1 << 30)
    monkeypatch.setattr(machine, "raise_open_files_limit", lambda: 1024)
    few, many = settings(tmp_path, WORKER_MAX_CONCURRENT="4"), settings(tmp_path, WORKER_MAX_CONCURRENT="400")
    assert machine.memory(few).state is State.FINE
    assert machine.descriptors(few).state is State.FINE
    assert machine.memory(many).fix.startswith("WORKER_MAX_CONCURRENT=14,")
    assert machine.descriptors(many).state is State.WRONG
    hungry = settings(tmp_path, WORKER_MAX_CONCURRENT="4", NOETL_WORKER_PROCESS_MEMORY_MB="512")
    assert machine.memory(hungry).wanted.startswith("2148 MiB")


def test_isolation_that_is_off_or_partial_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.isolation(settings(tmp_path, NOETL_WORKER_ISOLATION="off")).state is State.WARNING
    monkeypatch.setattr(confinement, "missing", lambda: ["processes that leave their session"])
    assert "processes that leave their session" in machine.isolation(settings(tmp_path)).found


def test_python_engine_says_why_it_is_not_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "ENGINE", "python")
    monkeypatch.setenv(engine.VARIABLE, "python")
    assert machine.engine_in_use().found == "python, because NOETL_WORKER_ENGINE=python"
    monkeypatch.setenv(engine.VARIABLE, "auto")
    monkeypatch.setitem(sys.modules, "noetl_worker._core", None)
    assert "cannot be imported" in machine.engine_in_use().found
