"""A step names a file that blocks whoever opens it."""

from __future__ import annotations

import os
import socket
import sys
from io import BufferedReader
from pathlib import Path
from typing import Any

import pytest

from integration.house import house
from integration.processes import Probe, worker_process
from noetl_worker.authoring.dev.nats_server import free_port
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.testing import arun_tool, run_tool
from tool_settings import tool_settings
from tools.http_server import ToolServer

CONNECTION = {"connection_string": "postgresql://u:p@127.0.0.1:1/d"}


def steps_that_open(file: str) -> list[tuple[str, dict[str, Any]]]:
    """Each kind and field that has the worker open a file."""
    to = {"url": "https://127.0.0.1:1/"}
    return [
        ("http", {**to, "method": "POST", "files": {"f": file}}),
        ("http", {**to, "method": "POST", "files": {"f": [{"path": file}]}}),
        ("http", {**to, "ca_file": file}),
        ("http", {**to, "client_cert": file}),
        ("http", {**to, "client_cert": __file__, "client_key": file}),
        ("artifact", {"uri": file}),
        ("python", {"script": file}),
        ("python", {"script": {"source": {"type": "file", "uri": f"file://{file}"}}}),
        ("postgres", {**CONNECTION, "script": file}),
        ("duckdb", {"script": file}),
        ("script", {"script": file, "image": "i"}),
        *(
            ("postgres", {"connection_string": f"host=127.0.0.1 {name}={file}", "query": "SELECT 1"})
            for name in ("passfile", "sslcert", "sslkey", "sslrootcert", "sslcrl")
        ),
    ]


async def test_named_pipes_hold_up_no_other_command(tmp_path: Path) -> None:
    """A named pipe as each file that a step can name."""
    pytest.importorskip("duckdb")
    pytest.importorskip("psycopg")
    os.mkfifo(pipe := tmp_path / "pipe.sql")
    probe = Probe(free_port())
    commands = [RawCommand(kind, config) for kind, config in steps_that_open(str(pipe))]
    async with (
        house(worker=False) as home,
        worker_process(home, tmp_path, WORKER_METRICS_BIND=f"127.0.0.1:{probe.port}") as worker,
    ):
        issued = await home.plane.create_commands([*commands, RawCommand("noop", {})])
        await home.wait_terminal(*(one.event_id for one in issued))
        *ends, last = [home.terminal_events(one.event_id) for one in issued]
        assert ends == [["command.failed"]] * len(commands)
        assert last == ["command.completed"]
        assert (await probe.get("/livez")).status_code == 200
        assert await worker.stop() == 0


@pytest.mark.parametrize("made", ["pipe", "directory", "socket"])
async def test_only_regular_files_are_opened(made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe, directory or socket as a file or a secret."""
    pytest.importorskip("psycopg")
    settings = tool_settings(NOETL_SECRETS_DIR=str(tmp_path))
    monkeypatch.chdir(tmp_path)
    there = tmp_path / "there.sql"
    with socket.socket(socket.AF_UNIX) as listening:
        match made:
            case "pipe":
                os.mkfifo(there)
            case "directory":
                there.mkdir()
            case _:
                listening.bind(there.name)  # the whole path may be longer than an address of a socket
        said = "No such device" if made == "socket" else "no regular file"
        for kind, config in [*steps_that_open(str(there)), ("secrets", {"provider": "file", "name": there.name})]:
            with pytest.raises((ConfigurationError, ToolError), match=f"{said}|is no regular file"):
                await arun_tool(kind, config, settings=settings)


def test_certificates_are_bounded(tmp_path: Path) -> None:
    """A certificate of gigabytes."""
    with (tmp_path / "large.pem").open("wb") as file:
        file.truncate(5 << 20)
    for name in ("ca_file", "client_cert"):
        with pytest.raises(ConfigurationError, match="is over 4 MiB"):
            run_tool("http", {"url": "https://127.0.0.1:1/", name: str(tmp_path / "large.pem")})


async def test_upload_is_read_off_the_loop(tmp_path: Path) -> None:
    """A file on a file system that does not answer."""
    (tmp_path / "file").write_bytes(b"x" * 200_000)
    read_here: list[Any] = []

    def note(frame: Any, event: str, called: Any) -> None:
        del frame
        if event == "c_call" and isinstance(getattr(called, "__self__", None), BufferedReader):
            read_here.append(called)

    with ToolServer() as server:
        sys.setprofile(note)
        try:
            step = {"url": server.url("/echo"), "method": "POST", "files": {"f": str(tmp_path / "file")}}
            result = await arun_tool("http", step)
        finally:
            sys.setprofile(None)
    assert result.data["status_code"] == 200
    assert [call.__name__ for call in read_here if call.__name__ == "read"] == []
