"""F23: names do not resolve for a while; certificates and credentials are replaced while the worker runs."""

from __future__ import annotations

import base64
import gc
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from faults.conftest import Measured
from faults.proxy import Proxy
from faults.scene import inside, scene
from integration.processes import until
from noetl_worker.authoring.dev.nats_server import NatsServer, free_port
from noetl_worker.remote.jetstream.connection import Connection, connect
from noetl_worker.settings.settings import load_settings
from patience import PATIENCE_S

EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


async def test_f23_names_that_do_not_resolve_for_a_while(tmp_path: Path, measured: Measured) -> None:
    broken = tmp_path / "no-names"
    changes = inside(DNS=str(broken), TASKS=str(tmp_path / "worker.tasks"))
    variables = {"NOETL_WORKER_ACK_WAIT_S": "1", **changes}
    async with scene(tmp_path) as home, Proxy(home.nats.port) as proxy:
        worker = await home.start_process(NATS_URL=f"nats://localhost:{proxy.port}", LOG_LEVEL="debug", **variables)
        broken.touch()
        proxy.reset()

        def refused() -> bool:
            return any("name resolution" in record["error"] for record in worker.logged("nats_error"))

        await until(refused, "a name that does not resolve")
        broken.unlink()
        mended = time.monotonic()
        one = await home.one_more()
        back_s = time.monotonic() - mended
        await home.close_books([one])
    measured("F23", "names resolve again: a command ends after", back_s, "s", at_most=3)


@pytest.fixture
def collected() -> Iterator[None]:
    """What an attempt left open is told by the garbage collector: here, and not in whichever test it comes by next."""
    yield
    gc.collect()


async def reconnected(connection: Connection, started: float) -> float:
    """Seconds since `started` until it is connected and the server answers."""
    await until(lambda: connection.is_connected, "connected again", every_s=0.02)
    await connection.client.flush(timeout=PATIENCE_S)
    return time.monotonic() - started


# ── certificates ──


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=PATIENCE_S)


def make_certificates(directory: Path) -> None:
    """ca.pem, and server.pem signed by it for 127.0.0.1."""
    directory.mkdir()
    ca, key, server = directory / "ca.pem", directory / "ca.key", directory / "server"
    openssl("req", "-x509", *EC, "-days", "2", "-subj", f"/CN={directory.name}", "-keyout", str(key), "-out", str(ca))
    openssl("req", *EC, "-subj", "/CN=nats", "-keyout", f"{server}.key", "-out", f"{server}.csr")
    (directory / "san").write_text("subjectAltName=IP:127.0.0.1")
    signed = ("-CA", str(ca), "-CAkey", str(key), "-CAcreateserial", "-days", "2", "-extfile", str(directory / "san"))
    openssl("x509", "-req", "-in", f"{server}.csr", *signed, "-out", f"{server}.pem")


def tls_config(directory: Path) -> str:
    return f'tls {{ cert_file: "{directory}/server.pem", key_file: "{directory}/server.key" }}'


@pytest.mark.usefixtures("collected")
async def test_f23_server_certificate_and_ca_file_are_replaced(tmp_path: Path, measured: Measured) -> None:
    for name in ("old", "new"):
        make_certificates(tmp_path / name)
    trusted, port = tmp_path / "trusted.pem", free_port()
    trusted.write_bytes((tmp_path / "old/ca.pem").read_bytes())
    settings = load_settings({"NATS_URL": f"tls://127.0.0.1:{port}", "NOETL_TLS_CA": str(trusted)})
    async with NatsServer(port=port, config=tls_config(tmp_path / "old")):
        connection = await connect(settings, "worker")
    async with NatsServer(port=port, config=tls_config(tmp_path / "new")):
        await until(lambda: "CERTIFICATE" in str(connection.last_error), "the new certificate refused")
        trusted.write_bytes((tmp_path / "new/ca.pem").read_bytes())
        back_s = await reconnected(connection, time.monotonic())
        await connection.close()
    measured("F23", "certificate and CA file replaced: connected after", back_s, "s", at_most=3)


# ── credentials ──


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwt(issuer: Any, subject: Any, name: str, claims: Mapping[str, Any]) -> str:
    """A NATS JWT, signed by the issuer's key."""
    body = {"jti": name, "iat": int(time.time()), "iss": issuer.public_key.decode(), "name": name}
    body |= {"sub": subject.public_key.decode(), "nats": {"version": 2, **claims}}
    head = encoded(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
    signed = f"{head}.{encoded(json.dumps(body).encode())}"
    return f"{signed}.{encoded(issuer.sign(signed.encode()))}"


LIMITS = dict.fromkeys(("subs", "data", "payload", "conn", "leaf", "imports", "exports"), -1) | {"wildcards": True}


def make_login(creds: Path) -> str:
    """Write a creds file; the configuration of a server that accepts it and no other."""
    nkeys = pytest.importorskip("nkeys")

    def pair(kind: int) -> Any:
        return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), kind))

    operator, system = pair(nkeys.PREFIX_BYTE_OPERATOR), pair(nkeys.PREFIX_BYTE_ACCOUNT)
    account, user = pair(nkeys.PREFIX_BYTE_ACCOUNT), pair(nkeys.PREFIX_BYTE_USER)
    token = jwt(account, user, "worker", {"type": "user", "subs": -1, "data": -1, "payload": -1})
    creds.write_text(
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    accounts = {
        one.public_key.decode(): jwt(operator, one, name, {"type": "account", "limits": LIMITS})
        for name, one in (("SYS", system), ("A", account))
    }
    preload = "\n".join(f"  {key}: {value}" for key, value in accounts.items())
    root = jwt(operator, operator, "O", {"type": "operator"})
    return (
        f"operator: {root}\nsystem_account: {system.public_key.decode()}\n"
        f"resolver: MEMORY\nresolver_preload {{\n{preload}\n}}\n"
    )


@pytest.mark.usefixtures("collected")
async def test_f23_creds_file_is_replaced(tmp_path: Path, measured: Measured) -> None:
    creds, later, port = tmp_path / "worker.creds", tmp_path / "later.creds", free_port()
    old, new = make_login(creds), make_login(later)
    settings = load_settings({"NATS_URL": f"nats://127.0.0.1:{port}", "NATS_CREDS": str(creds)})
    async with NatsServer(port=port, config=old):
        connection = await connect(settings, "worker")
    async with NatsServer(port=port, config=new):
        with capture_logs() as logs:

            def refusals() -> int:
                return sum("Authorization" in line.get("error", "") for line in logs)

            await until(lambda: refusals() >= 3, "the old creds refused again and again, and not given up")
        later.replace(creds)
        back_s = await reconnected(connection, time.monotonic())
        await connection.close()
    measured("F23", "creds file replaced: connected after", back_s, "s", at_most=3)
