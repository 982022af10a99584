"""What `noetl-worker nats ensure` and `noetl-worker dead-letters` have in common."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from closed_port import closed_port
from integration.processes import command_line, typed
from noetl_worker.authoring.dev.nats_server import NatsServer


@pytest.mark.parametrize("command", [("nats", "ensure"), ("dead-letters", "list")])
def test_nats_that_is_not_there_is_one_line_and_exit_3(command: tuple[str, ...], tmp_path: Path) -> None:
    ended = command_line(tmp_path, *command, NATS_URL=f"nats://u:s3cr3t@127.0.0.1:{closed_port()}")
    assert ended.code == 3
    assert ended.out == ""
    assert len(ended.err_lines) == 1
    assert "NATS_URL" in ended.err
    assert "s3cr3t" not in ended.err


async def test_nats_without_jetstream_is_named_by_the_operator_commands() -> None:
    account = 'accounts { A { users: [{user: a, password: "b"}] } }'  # no jetstream in this account
    async with NatsServer(config=account) as server:
        url = f"nats://a:b@{server.host}:{server.port}"
        for command in (("nats", "ensure"), ("dead-letters", "list")):
            ended = await asyncio.to_thread(typed, *command, NATS_URL=url)
            assert ended.code == 3
            assert "JetStream is not enabled" in ended.err


@pytest.mark.parametrize(
    "command", [("nats", "ensure"), *(("dead-letters", one) for one in ("list", "show", "requeue"))]
)
def test_help_says_what_the_exit_codes_mean(command: tuple[str, ...]) -> None:
    ended = typed(*command, "--help")
    assert ended.code == 0
    assert "Exit codes: 0" in ended.out


async def test_flags_of_run_reach_the_operator_commands() -> None:
    """A fix is typed after the flags that the problem was found with."""
    async with NatsServer() as server:
        at = ("--nats-url", server.url)
        pool = ("--nats-consumer", "gpu", "--nats-filter-subjects", "noetl.commands.gpu.>")
        made = await asyncio.to_thread(typed, "nats", "ensure", "--apply", *at, *pool)
        assert (made.code, made.err) == (0, "")
        assert "durable gpu made" in made.out
