"""`noetl-worker doctor`: the chains of certificates of the plane and of NATS."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from integration.findings import settings
from integration.wire import serving
from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.cli.doctor import State, nats, tls
from patience import PATIENCE_S

NEW_KEY = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, other.pem (a foreign CA) and, signed by the first, good, expired, soon and elsewhere, with one key."""
    at = tmp_path_factory.mktemp("certificates")

    def openssl(line: str) -> None:
        subprocess.run(["openssl", *line.split()], cwd=at, check=True, capture_output=True, timeout=PATIENCE_S)

    for name in ("ca", "other"):
        openssl(f"{NEW_KEY} -x509 -days 99 -subj /CN={name} -keyout {name}.key -out {name}.pem")
    openssl(f"{NEW_KEY} -subj /CN=server -keyout key.pem -out request.csr")
    for name, days, address in (
        ("good", "90", "127.0.0.1"),
        ("expired", "-1", "127.0.0.1"),
        ("soon", "3", "127.0.0.1"),
        ("elsewhere", "90", "10.0.0.1"),
    ):
        (at / "san").write_text(f"subjectAltName=IP:{address}")
        signed = f"-CA ca.pem -CAkey ca.key -CAcreateserial -days {days} -extfile san"
        openssl(f"x509 -req -in request.csr {signed} -out {name}.pem")
    return at


CHAINS = [
    ("good", "ca", State.FINE, "signed by ca"),
    ("soon", "ca", State.WARNING, "days left"),
    ("expired", "ca", State.WRONG, "certificate has expired"),
    ("good", "other", State.WRONG, "unable to get local issuer certificate"),
    ("elsewhere", "ca", State.WRONG, "IP address mismatch"),
]


@pytest.mark.parametrize(("chain", "trusted", "state", "said"), CHAINS)
async def test_chain_of_the_plane(
    chain: str, trusted: str, state: State, said: str, certificates: Path, tmp_path: Path
) -> None:
    async with tls_server(certificates, chain) as url:
        ours = settings(tmp_path, NOETL_SERVER_URL=url, NOETL_TLS_CA=str(certificates / f"{trusted}.pem"))
        [found] = await tls.examine_plane(ours)
        assert (found.state, said in found.found) == (state, True), found


@pytest.mark.parametrize(("chain", "state"), [("good", State.FINE), ("expired", State.WRONG)])
async def test_chain_of_nats(chain: str, state: State, certificates: Path, tmp_path: Path) -> None:
    config = f'tls {{ cert_file: "{certificates}/{chain}.pem", key_file: "{certificates}/key.pem" }}'
    async with NatsServer(config=config) as server:
        url = f"tls://{server.host}:{server.port}"
        authorities = {"NOETL_TLS_CA": str(certificates / "other.pem"), "NATS_CA": str(certificates / "ca.pem")}
        ours = settings(tmp_path, NATS_URL=url, **authorities)
        [found] = await tls.examine_nats(ours)
        assert found.state is state, found
        [first, *_] = await nats.examine(ours)
        assert (first.check, first.state) == ("NATS", state)


async def test_server_without_tls_is_wrong_where_tls_is_asked_for_and_nothing_elsewhere(tmp_path: Path) -> None:
    async with NatsServer() as server:
        assert await tls.examine_nats(settings(tmp_path, NATS_URL=server.url)) == []
        [found] = await tls.examine_nats(settings(tmp_path, NATS_URL=f"tls://{server.host}:{server.port}"))
        assert found.found == "the server offers no TLS"


async def test_client_certificate_that_is_wanted_and_not_given(certificates: Path, tmp_path: Path) -> None:
    async with tls_server(certificates, "good", wants_client=True) as url:
        ours = settings(tmp_path, NOETL_SERVER_URL=url, NOETL_TLS_CA=str(certificates / "ca.pem"))
        [found] = await tls.examine_plane(ours)
        assert found.state is State.WRONG
        assert "NOETL_TLS_CLIENT_CERT" in found.fix


@asynccontextmanager
async def tls_server(certificates: Path, chain: str, *, wants_client: bool = False) -> AsyncIterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{chain}.pem", certificates / "key.pem")
    if wants_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates / "ca.pem")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n")
        writer.close()

    async with serving(serve, context) as url:
        yield url
