"""`noetl-worker nats pause` and `resume`: nothing is lost by a pause, and whoever looks sees that it is meant."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from integration.desk import DURABLE, STREAM, desk
from integration.house import house, noops
from integration.older_server import older_server
from integration.processes import typed, until, worker_process
from noetl_worker.authoring.dev.nats_server import free_port
from noetl_worker.models import Dialect


async def test_pause_holds_commands_back_until_it_is_resumed_and_is_seen_everywhere(tmp_path: Path) -> None:
    variables = {"WORKER_METRICS_BIND": f"127.0.0.1:{free_port()}", "WORKER_NATS_LAG_POLL_INTERVAL": "1"}
    async with (
        house(Dialect.PYTHON, worker=False) as home,
        worker_process(home, tmp_path, **variables) as worker,
    ):
        given = {**home.addresses, **variables}
        probe = await worker.probe()
        paused = await asyncio.to_thread(typed, "nats", "pause", "--for", "20m", **given)
        assert (paused.code, paused.err) == (0, "")
        assert f"durable {DURABLE} on stream {STREAM} delivers nothing for 20m" in paused.out
        await worker.wait_logged("durable_paused")
        issued = await home.plane.create_commands(noops(3))

        async def is_shown() -> bool:
            text = await probe.metrics()
            is_waiting = f'consumer_pending{{consumer="{DURABLE}",stream="{STREAM}"}} 3.0' in text
            return is_waiting and f'pause_seconds{{consumer="{DURABLE}",stream="{STREAM}"}} 11' in text

        await until(is_shown, "three wait, and the gauge says for how long")
        assert "noetl_worker_ready 1.0" in await probe.metrics(), (
            "it is meant: no probe and no alert takes it for trouble"
        )
        for words in (("nats", "ensure"), ("doctor",), ("top", "--once", variables["WORKER_METRICS_BIND"])):
            looked = await asyncio.to_thread(typed, *words, **given)
            said = " ".join(looked.out.split())
            assert "by an operator" in said and "nothing runs" in said if words[0] == "top" else "resume" in said, said
        ensured = json.loads((await asyncio.to_thread(typed, "nats", "ensure", "--json", **given)).out)
        assert ensured["as_wanted"] is True
        assert 1100 < ensured["paused_s"] <= 1200

        resumed = await asyncio.to_thread(typed, "nats", "resume", "--json", **given)
        assert (resumed.code, json.loads(resumed.out)["paused_s"]) == (0, 0)
        await home.wait_terminal(*(one.event_id for one in issued))
        assert (await asyncio.to_thread(typed, "nats", "resume", **given)).code == 0, "not paused: nothing to do"


NO_TIMES = [(("--for", text), "for example 20m") for text in ("", "20", "m", "-5m", "0m", "1.5h", "a day")]


@pytest.mark.parametrize(("words", "said"), [*NO_TIMES, ((), "--for")])
def test_time_that_is_none_or_absent_is_refused(words: tuple[str, ...], said: str) -> None:
    ended = typed("nats", "pause", *words)
    assert ended.code == 2
    assert said in ended.err


async def test_pause_that_would_lose_a_command_is_refused_with_the_longest_that_does_not() -> None:
    async with desk() as there:
        await there.make_stream(max_age=3600 * 10**9)
        await there.make_durable()
        ended = await there.type("nats", "pause", "--for", "50m")
        assert ended.code == 2
        assert "would lose commands" in ended.err
        assert "at most --for 45m" in ended.err
        assert (await there.durable()).get("paused") is not True
        assert (await there.type("nats", "pause", "--for", "45m")).code == 0


async def test_command_that_waits_already_shortens_the_longest_pause() -> None:
    async with desk() as there:
        await there.make_stream(max_age=(900 + 60) * 10**9)
        await there.make_durable()
        await there.connection.client.jetstream().publish("noetl.commands", b"x")
        ended = await there.type("nats", "pause", "--for", "60s")
        assert ended.code == 2, "it has waited for a moment already"
        assert (await there.type("nats", "pause", "--for", "30s")).code == 0


async def test_durable_that_is_not_there_is_named_with_what_makes_it() -> None:
    async with desk() as there:
        await there.make_stream()
        for words in (("pause", "--for", "1m"), ("resume",)):
            ended = await there.type("nats", *words)
            assert ended.code == 3
            assert f"no durable {DURABLE}" in ended.err
            assert "nats ensure --apply" in ended.err


@pytest.mark.parametrize("words", [("pause", "--for", "20m"), ("resume",)])
async def test_server_before_2_11_cannot_pause_and_nothing_is_changed(words: tuple[str, ...]) -> None:
    """Its INFO has this version (recorded of nats-server 2.10.26, which said the same by hand)."""
    async with desk() as there:
        await there.make_stream(max_age=3600 * 10**9)
        await there.make_durable()
        before = (await there.durable())["config"]
        async with older_server(there.server.port, "2.10.26") as url:
            ended = await there.type("nats", *words, NATS_URL=url)
        assert (ended.code, ended.out) == (3, "")
        assert ended.err_lines == ["noetl-worker nats: nats-server 2.10 cannot pause a durable; use 2.11"]
        assert (await there.durable())["config"] == before
