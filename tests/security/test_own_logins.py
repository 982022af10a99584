"""A playbook's server is sent the worker's own passwords and certificates."""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.house import house
from integration.processes import worker_process
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.testing import run_tool
from plug_ins import install

pytest.importorskip("psycopg")
pytest.importorskip("duckdb")
PEM = Path(__file__).parents[1] / "tools" / "loopback.pem"
OWN = "the-workers-own"
"""Password in everything that libpq looks into by itself."""
TLS, GSS = 80877103, 80877104


class Asking(socketserver.ThreadingTCPServer):
    """As much of Postgres as it takes to ask for a password, and for a certificate where it speaks TLS."""

    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.address = f"host=db.internal hostaddr=127.0.0.1 port={self.server_address[1]} user=app dbname=x"
        self.passwords: list[str] = []
        self.has_certificate: list[bool] = []
        self.tls: ssl.SSLContext | None = None

    def speak_tls(self) -> None:
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(PEM)
        self.tls.load_verify_locations(PEM)
        self.tls.verify_mode = ssl.CERT_OPTIONAL

    def asked_by(self, kind: str, config: dict[str, Any]) -> str:
        """What the tool says to the refusal that its login ends with."""
        with pytest.raises(ToolError) as refused:
            run_tool(kind, config)
        self.shutdown()
        self.server_close()  # waits for what it was sent
        return str(refused.value)


class Asked(socketserver.BaseRequestHandler):
    server: Asking

    def handle(self) -> None:
        try:
            self._ask()
        except (OSError, struct.error):  # the client has gone: it has nothing to send, or wants no such server
            pass
        finally:
            self.request.close()

    def _ask(self) -> None:
        size, code = struct.unpack(">II", self.request.recv(8, socket.MSG_WAITALL))
        while code in (TLS, GSS):
            is_taken = code == TLS and self.server.tls is not None
            self.request.sendall(b"S" if is_taken else b"N")
            if is_taken:
                assert self.server.tls is not None
                self.request = self.server.tls.wrap_socket(self.request, server_side=True)
                self.server.has_certificate.append(bool(self.request.getpeercert()))
            size, code = struct.unpack(">II", self.request.recv(8))
        self.request.recv(size - 8)
        self.request.sendall(b"R" + struct.pack(">II", 8, 3))  # AuthenticationCleartextPassword
        answer = self.request.recv(1000)
        if answer:
            self.server.passwords.append(answer[5:].rstrip(b"\0").decode())
            refusal = b"SFATAL\0C28P01\0Mno such password\0\0"
            self.request.sendall(b"E" + struct.pack(">I", len(refusal) + 4) + refusal)


@pytest.fixture
def server() -> Iterator[Asking]:
    server = Asking()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With the login of the worker's operator, for the server that a step gives the name of."""
    monkeypatch.setenv("HOME", str(tmp_path))
    private(tmp_path / ".pgpass", f"db.internal:*:*:app:{OWN}\n")
    private(tmp_path / ".pg_service.conf", f"[prod]\nhost=db.internal\nuser=app\npassword={OWN}\n")
    (tmp_path / ".postgresql").mkdir()
    certificate, key = in_two(PEM)
    private(tmp_path / ".postgresql" / "postgresql.crt", certificate)
    private(tmp_path / ".postgresql" / "postgresql.key", key)
    return tmp_path


def private(file: Path, text: str) -> str:
    file.write_text(text)
    file.chmod(0o600)
    return str(file)


def in_two(pem: Path) -> tuple[str, str]:
    """(certificate, key)"""
    certificate, end, key = pem.read_text().partition("-----END CERTIFICATE-----\n")
    return certificate + end, key


def steps(address: str) -> list[tuple[str, dict[str, Any]]]:
    """Each kind that logs in to Postgres."""
    end = {"type": "postgres", "connection_string": address}
    rows = {"type": "duckdb", "query": "SELECT 1 AS a"}
    return [
        ("postgres", {"connection_string": address, "query": "SELECT 1"}),
        ("transfer", {"source": {**end, "query": "SELECT 1"}, "target": {**end, "table": "t"}}),
        ("transfer", {"source": rows, "target": {**end, "table": "t"}}),
    ]


@pytest.mark.parametrize(
    ("variables", "more"),
    [
        ({}, ""),
        ({}, " password='' passfile=''"),
        ({"PGPASSWORD": OWN}, ""),
        ({"PGPASSWORD": OWN}, " password=''"),
        ({"PGPASSFILE": "{home}/.pgpass"}, ""),
        ({"PGSERVICE": "prod"}, ""),
        ({"PGSERVICE": "prod", "PGSERVICEFILE": "{home}/.pg_service.conf"}, ""),
    ],
)
@pytest.mark.parametrize("number", [0, 1, 2])
def test_password_of_the_worker_is_not_sent(
    number: int, variables: dict[str, str], more: str, server: Asking, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PGPASSWORD, `~/.pgpass` or a service's password, for a server that a step names."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(home=home))
    kind, config = steps(server.address + more)[number]
    assert "no password supplied; give 'auth' or 'password'" in server.asked_by(kind, config)
    assert server.passwords == []


def test_service_of_the_worker_is_not_for_playbooks(server: Asking, home: Path) -> None:
    """The same by `service`, which has user and password from a file."""
    for kind, config in steps(f"{server.address} service=prod"):
        with pytest.raises(ConfigurationError, match=r"'service' is not for playbooks.*give host, user and pass"):
            run_tool(kind, config)


@pytest.mark.parametrize("more", ["", "sslcert='' sslkey=''", "sslcert={home}/.postgresql/postgresql.crt"])
@pytest.mark.parametrize("are_named", [False, True])
def test_certificate_of_the_worker_is_not_presented(
    more: str, are_named: bool, server: Asking, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client certificate of `~/.postgresql` or PGSSLCERT, or its key for a certificate that a step names."""
    server.speak_tls()
    if are_named:
        monkeypatch.setenv("PGSSLCERT", str(home / ".postgresql" / "postgresql.crt"))
        monkeypatch.setenv("PGSSLKEY", str(home / ".postgresql" / "postgresql.key"))
    kind, config = steps(f"{server.address} sslmode=require {more.format(home=home)}")[0]
    server.asked_by(kind, config)
    assert True not in server.has_certificate


def test_login_that_a_step_names_is_used(server: Asking, home: Path, tmp_path: Path) -> None:
    """(no attack) A password, a file of passwords, a client certificate."""
    server.speak_tls()
    passfile = private(tmp_path / "named", "*:*:*:*:of-the-step\n")
    key = private(tmp_path / "both.pem", PEM.read_text())
    more = f"sslmode=require passfile={passfile} sslcert={key} sslkey={key}"
    kind, config = steps(f"{server.address} {more}")[0]
    assert "no such password" in server.asked_by(kind, config)
    assert (server.passwords, server.has_certificate) == (["of-the-step"], [True])


def test_password_of_a_credential_is_sent(server: Asking, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """(no attack)"""
    monkeypatch.setenv("PGPASSWORD", OWN)
    login = {"host": "127.0.0.1", "port": server.server_address[1], "user": "app", "password": "of-the-credential"}
    server.asked_by("postgres", {"auth": login, "query": "SELECT 1"})
    assert server.passwords == ["of-the-credential"]


NAMES = (
    *("PGPASSWORD", "PGPASSFILE", "PGSERVICE", "PGSSLCERT", "PGSSLKEY", "MYSQL_PWD"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_CLIENT_SECRET", "HF_TOKEN"),
)
LOOKS = f"""
import ctypes, dataclasses, json, os, pathlib

getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p

@dataclasses.dataclass
class Config:
    pass

class Looks:
    kind, aliases, config_model, field_aliases = "looks", (), Config, {{}}
    raw_fields = frozenset()

    async def run(self, config, context):
        seen = [name for name in {(*NAMES, "PGSSLMODE")} if (getenv(name.encode()) or b"").decode() == {OWN!r}]
        kept = [name for name in {NAMES} if os.environ.get(name) == {OWN!r}]
        pathlib.Path(__file__).with_name("seen").write_text(json.dumps([seen, kept]))
        return {{}}
"""
"""A library in the worker: what it finds in the environment, as C has it."""


async def test_libraries_of_the_worker_find_no_login_in_its_environment(tmp_path: Path) -> None:
    """The same by DuckDB's extensions, and AWS keys, which SQL reads as settings."""
    (tmp_path / "looks.py").write_text(LOOKS)
    install(tmp_path, "looks", "looks:Looks")
    variables = {**dict.fromkeys((*NAMES, "PGSSLMODE"), OWN), "PYTHONPATH": str(tmp_path)}
    async with house(worker=False) as home, worker_process(home, tmp_path, **variables) as worker:
        [issued] = await home.plane.create_commands([RawCommand("looks", {})])
        await home.wait_terminal(issued.event_id)
        assert await worker.stop() == 0
    seen, kept = json.loads((tmp_path / "seen").read_text())
    assert seen == ["PGSSLMODE"]
    assert kept == list(NAMES)
