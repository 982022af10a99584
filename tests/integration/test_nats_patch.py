"""docs/upstream: the patch of nats-py does what it says on the installed version, and the dependency is pinned."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import nats
import pytest

from integration.processes import program
from patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
PATCHES = ROOT / "docs" / "upstream"
TESTED = ("2.15", "2.16")
"""Versions on which this file and tests/integration/test_connection.py have run."""
PROGRAM = """
import asyncio, nats

async def connect(hear):
    async def serve(reader, writer):
        writer.write(b'INFO {"server_id":"x","version":"2.10.0","max_payload":1048576}\\r\\n')
        while line := await reader.readline():
            hear(line, writer)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    return asyncio.ensure_future(nats.connect(f"nats://127.0.0.1:{listening.sockets[0].getsockname()[1]}"))
"""
ORDER = """
async def main():
    read = []

    def hear(line, writer):
        read.extend(line.split()[:1])
        if line == b"PING\\r\\n":
            writer.write(b"PONG\\r\\n")

    client = await (await connect(hear))
    del read[:]
    await client.publish("a", b"")
    await client.flush()
    print(b" ".join(read).decode())
    await client.close()

asyncio.run(main())
"""
LATE = """
async def main():
    asked = asyncio.Queue()
    connecting = await connect(lambda line, writer: line == b"PING\\r\\n" and asked.put_nowait(writer))
    (await asked.get()).write(b"PONG\\r\\n")
    client = await connecting
    try:
        await client.flush(timeout=0.05)
    except nats.errors.FlushTimeoutError:
        (await asked.get()).write(b"PONG\\r\\n")
    second = asyncio.ensure_future(client.flush(timeout=1))
    (await asked.get()).write(b"PONG\\r\\n")
    try:
        await second
        print("reads")
    except nats.errors.FlushTimeoutError:
        print("is deaf")
    await client.close()

asyncio.run(main())
"""


def run(code: str, library: Path) -> str:
    """What a program prints that imports nats from this folder."""
    ended = program([sys.executable, "-c", PROGRAM + code], {**os.environ, "PYTHONPATH": str(library)})
    assert ended.code == 0, ended.err
    return ended.out.strip()


@pytest.fixture
def library(tmp_path: Path) -> Path:
    if shutil.which("patch") is None:
        pytest.skip("patch is not installed")
    shutil.copytree(Path(nats.__file__).parent, tmp_path / "nats", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def apply(name: str, library: Path) -> None:
    with (PATCHES / name).open("rb") as patch:
        subprocess.run(["patch", "-p1", "--batch"], cwd=library, stdin=patch, check=True, timeout=PATIENCE_S)


def test_patch_puts_the_ping_behind_the_publish(library: Path) -> None:
    """What a server has read when `flush` after a `publish` returns."""
    assert run(ORDER, library).startswith("PING"), "nats-py has it: take the patch and remote/jetstream/client.py away"
    apply("nats-py-flush-order.patch", library)
    assert run(ORDER, library) == "PUB PING"


def test_patch_goes_on_reading_after_a_late_pong(library: Path) -> None:
    assert run(LATE, library) == "is deaf", "nats-py has it: take the patch and Client._process_pong away"
    apply("nats-py-late-pong.patch", library)
    assert run(LATE, library) == "reads"


def test_dependency_is_pinned_to_the_versions_that_were_tested() -> None:
    lowest, above = TESTED[0], int(TESTED[-1].split(".")[1]) + 1
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"nats-py>={lowest},<2.{above}"' in project
    assert version("nats-py").rpartition(".")[0] in TESTED
