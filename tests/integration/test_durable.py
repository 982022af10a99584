"""The durable at the worker's start and while it runs: what is compared, told and made again."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from integration.desk import DURABLE, STREAM, Desk, connected, desk, durable_config
from integration.house import house, noops
from integration.processes import PROBES, Gate, until, worker_process
from integration.test_connection import speaking
from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.errors import JetStreamError
from noetl_worker.models import Dialect
from noetl_worker.models.stopping import Stopping
from noetl_worker.observability.metrics import ACK_PENDING_FULL, DURABLE_USABLE, MAX_ACK_PENDING
from noetl_worker.observability.probes import Health
from noetl_worker.remote.jetstream import comparison
from noetl_worker.remote.jetstream.api import ask
from noetl_worker.remote.jetstream.connection import connect
from noetl_worker.remote.jetstream.consumer import check_durable, ensure_durable
from noetl_worker.settings.nats import covers
from noetl_worker.settings.settings import load_settings
from noetl_worker.worker.startup import Startup
from patience import PATIENCE_S


async def test_start_warns_of_each_field_that_differs_and_uses_the_server_s(tmp_path: Path) -> None:
    async with house(worker=False) as home:
        async with home.client() as client:
            config = durable_config(ack_wait=7 * 10**9, max_deliver=9)
            await ask(client, f"CONSUMER.CREATE.{STREAM}.{DURABLE}", {"stream_name": STREAM, "config": config})
        async with worker_process(home, tmp_path) as worker:
            warned = {line["field"]: line for line in worker.logged("durable_differs")}
            assert set(warned) == {"ack_wait", "max_deliver"}
            assert (warned["ack_wait"]["server"], warned["ack_wait"]["settings"]) == ("7 s", "30 s")
            assert all("noetl-worker nats ensure --apply" in line["advice"] for line in warned.values())
            await home.ran(RawCommand("noop"))


async def test_server_that_is_restarted_during_a_start_is_asked_again() -> None:
    """What the one before was asked is never answered."""
    asked = asyncio.Event()

    async def hear(line: bytes, _: asyncio.StreamWriter) -> None:
        if line.startswith(b"PUB $JS.API."):
            asked.set()
            await asyncio.Event().wait()

    async with speaking(hear) as url:
        settings = load_settings({"NATS_URL": url})
        connection = await connect(settings, "test")
        starting = asyncio.ensure_future(Startup(settings, Health(), Stopping()).durable(connection))
        await asked.wait()
    async with NatsServer(port=int(url.rpartition(":")[2])):
        durable = await starting
        assert durable is not None
        assert (durable.stream, durable.name) == (STREAM, DURABLE)
        await connection.close()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"filter_subjects": ["noetl.commands.gpu"]}, "filters"),
        ({"headers_only": True}, "headers_only"),
        ({"max_expires": 10**9}, "max_expires"),
        ({"deliver_subject": "push.here"}, "deliver_subject"),
    ],
    ids=["filter", "no bodies", "short pulls", "no pulls"],
)
async def test_durable_that_a_worker_must_not_or_cannot_use_refuses_the_start(
    fields: dict[str, Any], field: str
) -> None:
    async with desk() as there:
        await there.make_stream()
        await there.make_durable(**fields)
        with pytest.raises(JetStreamError, match=field) as caught:
            await ensure_durable(there.connection.client, load_settings({}))
        assert "noetl-worker nats ensure --apply" in str(caught.value)


async def test_stream_as_the_python_plane_makes_it_is_no_difference_there(dialect: Dialect) -> None:
    """The Rust plane makes none, and publishes below the bare subject."""
    async with house(dialect, worker=False) as home:
        async with home.client() as client:
            config = (await ask(client, f"STREAM.INFO.{STREAM}"))["config"]
            await ask(client, f"STREAM.UPDATE.{STREAM}", {**config, "subjects": ["noetl.commands"]})
        with capture_logs() as logs:
            await home.start_worker()
        told = [line["field"] for line in logs if line["event"] == "stream_differs"]
        assert told == ([] if dialect is Dialect.PYTHON else ["subjects"])


async def test_durable_changed_or_deleted_while_it_is_used_is_said_once() -> None:
    async with desk() as there:
        settings, client = load_settings({}), there.connection.client
        durable = await ensure_durable(client, settings)
        await there.ask(
            f"CONSUMER.CREATE.{STREAM}.{DURABLE}",
            {
                "stream_name": STREAM,
                "action": "update",
                "config": {
                    **comparison.new_durable(settings),
                    "filter_subjects": ["noetl.commands.gpu", "noetl.commands.cpu"],
                    "ack_wait": 5 * 10**9,
                },
            },
        )
        with capture_logs() as logs:
            seen = await check_durable(client, durable, settings)
            assert set(seen.durable.filters) != set(durable.filters)
            assert seen.durable.ack_wait_s == 5
            await check_durable(client, durable, settings)
            assert [(line["event"], line["field"]) for line in logs] == [
                ("durable_unusable", "filters"),
                ("durable_changed", "ack_wait_s"),
            ]
            assert DURABLE_USABLE.labels(STREAM, DURABLE).value == 0
            assert "noetl-worker nats ensure --apply" in logs[0]["error"]
            await there.ask(f"CONSUMER.DELETE.{STREAM}.{DURABLE}")
            for _ in range(2):
                with pytest.raises(JetStreamError, match="is gone"):
                    await check_durable(client, durable, settings)
            assert [line["event"] for line in logs[2:]] == ["durable_gone"]


async def test_worker_whose_durable_was_changed_is_not_ready_until_it_is_mended(tmp_path: Path) -> None:
    """It was ready, with a lag of 0."""
    poll = {**PROBES, "WORKER_NATS_LAG_POLL_INTERVAL": "1"}
    async with house(worker=False) as home, worker_process(home, tmp_path, **poll) as worker:
        probe = await worker.probe()
        async with connected(load_settings({"NATS_URL": home.nats.url})) as connection:
            there = Desk(home.nats, connection)
            config = (await there.durable())["config"]
            others = {**config, "filter_subjects": None, "filter_subject": "noetl.commands.gpu.>"}
            body = {"stream_name": STREAM, "action": "update", "config": others}
            await there.ask(f"CONSUMER.CREATE.{STREAM}.{DURABLE}", body)
            said = await worker.wait_logged("durable_unusable")
            assert (said["level"], said["field"]) == ("error", "filters")

            async def is_the_reason() -> bool:
                return "filters noetl.commands.gpu.>" in (await probe.why_not_ready() or "")

            await until(is_the_reason, "not ready")
            assert (await there.type("nats", "ensure", "--apply")).code == 0
            await worker.wait_logged("durable_usable")
            await until(probe.is_ready, "ready again")
            await home.ran(*noops(1))


async def test_age_of_the_oldest_waiting_message_is_a_gauge_without_a_right_to_read_the_stream(tmp_path: Path) -> None:
    given = {**PROBES, "WORKER_NATS_LAG_POLL_INTERVAL": "1", "WORKER_MAX_CONCURRENT": "1"}
    gate = Gate(tmp_path)
    name = 'noetl_worker_nats_consumer_oldest_waiting_seconds{consumer="noetl_worker",stream="NOETL_COMMANDS"} '
    async with house(worker=False) as home, worker_process(home, tmp_path, **given) as worker:
        probe = await worker.probe()

        async def age_s() -> float:
            found = [line for line in (await probe.metrics()).splitlines() if line.startswith(name)]
            return float(found[0].removeprefix(name)) if found else -1.0

        async def is_zero() -> bool:
            return await age_s() == 0.0

        async def is_growing() -> bool:
            return await age_s() > 1.5

        await home.plane.create_commands([RawCommand("shell", {"command": gate.command()})])
        await until(lambda: gate.runs == 1, "its slot is taken")
        await until(is_zero, "nothing waits")
        issued_at = time.time()
        await home.plane.create_commands(noops(3))
        await until(is_growing, "they wait")
        assert await age_s() <= time.time() - issued_at + 1.5  # one look before they came
        gate.open()
        await until(is_zero, "all have begun")


@pytest.mark.parametrize("is_idle", [True, False], ids=["pulling", "full"])
async def test_stream_that_is_deleted_is_an_error_with_the_number_that_waited(is_idle: bool, tmp_path: Path) -> None:
    """The line said that every message comes again."""
    given = {**PROBES, "WORKER_NATS_LAG_POLL_INTERVAL": "1", "WORKER_MAX_CONCURRENT": "1"}
    gate = Gate(tmp_path)
    async with house(worker=False) as home, worker_process(home, tmp_path, **given) as worker:
        probe = await worker.probe()
        await home.plane.create_commands(
            [RawCommand("shell", {"command": gate.command()}), *noops(0 if is_idle else 5)]
        )
        await until(lambda: gate.runs == 1, "its slot is taken")
        waiting = 'consumer_pending{consumer="noetl_worker",stream="NOETL_COMMANDS"} ' + ("0.0" if is_idle else "5.0")

        async def is_counted() -> bool:
            return waiting in await probe.metrics()

        await until(is_counted, "the lag was looked at")
        if is_idle:
            gate.open()
            await home.wait_settled()
        async with connected(load_settings({"NATS_URL": home.nats.url})) as connection:
            await Desk(home.nats, connection).ask(f"STREAM.DELETE.{STREAM}")
            lost = await worker.wait_logged("stream_lost")
            assert (lost["level"], lost["waited"]) == ("error", 0 if is_idle else 5)
            assert f"noetl_worker_commands_lost_total {lost['waited']}.0" in await probe.metrics()
            gate.open()
            await worker.wait_logged("stream_made")
        assert worker.logged("durable_gone") == []
        assert len(worker.logged("stream_lost")) == 1


async def test_max_ack_pending_that_is_reached_is_a_gauge_and_one_warning_until_it_is_over() -> None:
    async with desk() as there:
        client = there.connection.client
        await there.make_stream()
        await there.make_durable(max_ack_pending=2)
        settings = load_settings({})
        durable = await ensure_durable(client, settings)
        for _ in range(3):
            await client.jetstream().publish("noetl.commands", b"x")

        async def is_waiting() -> bool:
            return bool((await client.jetstream().consumer_info(STREAM, DURABLE)).num_pending == 3)

        await until(is_waiting, "the durable knows of all three: it hears of them after the stream")
        subscription = await client.jetstream().pull_subscribe_bind(DURABLE, STREAM)
        taken = await subscription.fetch(2, timeout=PATIENCE_S)
        gauge = ACK_PENDING_FULL.labels(STREAM, DURABLE)
        with capture_logs() as logs:
            seen = await check_durable(client, durable, settings)
            await check_durable(client, durable, settings)
            assert (seen.pending, seen.ack_pending) == (1, 2)
            assert gauge.value == 1
            assert MAX_ACK_PENDING.labels(STREAM, DURABLE).value == 2
            [line] = logs
            assert (line["event"], line["waiting"]) == ("max_ack_pending_reached", 1)
            assert "NOETL_WORKER_MAX_ACK_PENDING" in line["advice"]
            await taken[0].ack_sync()
            await check_durable(client, durable, settings)
            assert gauge.value == 0


@pytest.mark.parametrize(
    ("pattern", "subject", "does"),
    [
        ("a.b", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("a.*", "a.b", True),
        ("a.*", "a.>", False),
        ("a.*", "a.b.c", False),
        ("a.b", "a.>", False),
        ("a.b", "a.*", False),
        (">", "a.>", True),
        ("a.*.c", "a.b.c", True),
    ],
)
def test_pattern_covers_a_subject_only_if_all_its_messages_are_in_it(pattern: str, subject: str, does: bool) -> None:
    assert covers(pattern, subject) is does
