"""`noetl-worker why`: what this machine, NATS and the control plane know of a command."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from closed_port import closed_port
from integration.desk import Desk, connected, desk
from integration.findings import nowhere
from integration.house import House, house
from integration.processes import command_line, typed
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.authoring.run_page.inference import inferred_end
from noetl_worker.cli.diagnosis import Diagnosis, Story
from noetl_worker.models import Dialect, Report
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.pipeline.outbox.outbox import Outbox
from noetl_worker.remote.jetstream.consumer import ensure_durable
from noetl_worker.settings.settings import Settings, load_settings
from noetl_worker.testing import HttpStub

LOAD = b'{"execution_id": 1, "event_id": 3, "command_id": "1:load:3", "step": "load", "server_url": "http://s"}'
FAILS = RawCommand("python", {"code": "raise ValueError('not today')"})
IDS = {"command_id": "42:load:7", "execution_id": "42", "event_id": "7", "step": "load"}
RUNNING = {**IDS, "stage": "running", "seconds": 3.5, "deliveries": 2}


def settings(home: House, **variables: str) -> Settings:
    return load_settings({**home.variables, **variables}, dotenv=Path(os.devnull))


async def asked(home: House, command_id: object, **options: Any) -> Story:
    most, execution_id = options.pop("most", 100), options.pop("execution_id", None)
    return await Diagnosis(settings(home, **options), str(command_id), execution_id=execution_id, most=most).ask()


def texts(story: Story, source: str) -> str:
    return "\n".join(fact.text for fact in story.facts if fact.source == source)


async def test_command_that_ended_is_told_by_the_plane_and_by_nats(dialect: Dialect) -> None:
    async with house(dialect, WORKER_ID="w-1") as home:
        good, bad = await home.ran(RawCommand("noop"), FAILS)
        story = await asked(home, good.command_id)
        assert story.conclusion.startswith("it completed, by w-1")
        assert "command.claimed" in texts(story, "plane")
        assert "acknowledged" in texts(story, "NATS")
        assert story.unknown == []
        failed = await asked(home, bad.command_id)
        ended = "it failed, by w-1" if dialect is Dialect.PYTHON else "it completed with status error, by w-1"
        assert failed.conclusion.startswith(ended)
        assert "not today" in texts(failed, "plane")
        assert "not today" not in texts(story, "plane")


async def test_execution_is_told_by_how_its_commands_ended(dialect: Dialect) -> None:
    async with house(dialect, WORKER_ID="w-1") as home:
        good, bad = await home.ran(RawCommand("noop"), FAILS)
        story = await asked(home, good.execution_id)
        assert story.conclusion.startswith(f"execution {good.execution_id} of raw is ")
        assert f"(command {good.command_id}, event " in texts(story, "plane")
        assert "start completed (command" in texts(story, "plane")
        assert f"not today (command {bad.command_id}, event " in texts(story, "plane")


async def test_command_that_waits_is_told_by_where_the_durable_stands() -> None:
    async with house(worker=False) as home:
        [one] = await home.plane.create_commands([RawCommand("noop")])
        assert "there is no durable noetl_worker" in (await asked(home, one.command_id)).conclusion
        async with connected(settings(home)) as connection:
            await ensure_durable(connection.client, settings(home))
        assert "waits in the stream" in (await asked(home, one.command_id)).conclusion
        other = await asked(home, one.command_id, most=1)
        assert other.is_known
        [two] = await home.plane.create_commands([RawCommand("noop")])
        missed = await asked(home, one.command_id, most=1, execution_id=one.execution_id)
        assert "1 older ones were not looked through" in texts(missed, "NATS")
        assert two.command_id != one.command_id


async def test_command_that_the_durable_passed_over_is_not_called_acknowledged() -> None:
    """The ack floor is all that JetStream tells, and a change of filters leaves messages behind it."""
    async with house(Dialect.PYTHON, worker=False) as home, connected(settings(home)) as connection:
        [one] = await home.plane.create_commands([RawCommand("noop")])
        there = Desk(home.nats, connection)
        await there.make_durable(opt_start_seq=2, deliver_policy="by_start_sequence")
        story = await asked(home, one.command_id, execution_id=one.execution_id)
        assert "acknowledged, or passed over" in texts(story, "NATS")
        assert story.conclusion.startswith("it was never claimed, and the durable has gone past its message:")


def test_completion_that_the_plane_infers_is_told_with_what_has_not_ended() -> None:
    def events(kind: str, count: int) -> list[dict[str, str]]:
        return [{"event_type": kind, "node_name": "fetch"}] * count

    seen = [*events("command.issued", 500), *events("command.completed", 498), *events("command.failed", 1)]
    assert inferred_end("COMPLETED", seen) == "inferred by the plane, no event says so; fetch has 499 of 500"
    assert inferred_end("COMPLETED", [*seen, {"event_type": "playbook.completed"}]) == ""
    assert inferred_end("RUNNING", seen) == ""


async def test_dead_letter_is_told_with_its_number_and_reason() -> None:
    async with house(worker=False) as home:
        async with connected(settings(home)) as connection:
            await Desk(home.nats, connection).keep(LOAD)
        story = await asked(home, "1:load:3")
        assert story.conclusion.startswith("it was kept as dead letter 1: noetl-worker dead-letters show 1")
        assert "unknown command: 404 (6 deliveries, kept by w-1)" in texts(story, "NATS")
        assert any("execution 1" in text for text in story.unknown)  # the plane does not know it


async def test_message_is_found_also_where_the_dead_letters_may_not_be_read() -> None:
    denied = 'permissions: { publish: { deny: ["$JS.API.STREAM.MSG.GET.NOETL_DEAD_LETTERS"] } }'
    config = f'authorization {{ users: [ {{ user: w, password: "w", {denied} }} ] }}\nno_auth_user: w'
    async with desk(config) as there:
        await there.make_stream()
        await there.make_durable()
        await there.keep()
        await there.connection.client.jetstream().publish("noetl.commands", LOAD)
        nowhere = f"http://127.0.0.1:{closed_port()}"
        asked = await there.type("why", "1:load:3", "--json", NOETL_SERVER_URL=nowhere)
        story = json.loads(asked.out)
        assert asked.code == 0
        assert story["conclusion"].startswith("it waits in the stream")
        assert any(text.startswith("the dead letters: ") for text in story["unknown"])


async def test_outcome_in_the_outbox_is_told_with_who_sends_it() -> None:
    async with house(worker=False) as home:
        outbox = Outbox("always", Path(home.outbox.name), max_rows=9, max_bytes=10**6)
        report = Report(status="success", context=None)
        outbox.write(EventSet(7, 42, "42:load:7", "load", "w", home.plane.url, Dialect.RUST, report))
        assert "of a worker that runs" in texts(await asked(home, "42:load:7"), "machine")
        outbox.close()
        story = await asked(home, "42:load:7")
        assert "of a dead process: the next worker here sends it" in texts(story, "machine")
        assert story.conclusion.startswith("it ran, and its outcome waits in the outbox")


async def test_worker_of_this_machine_tells_what_it_does_with_it_and_how_often_it_was_delivered() -> None:
    look = {"worker": {"worker_id": "w-9"}, "commands": [RUNNING]}
    with HttpStub() as stub:
        stub.answer("GET /debug/inflight", json=look)
        async with house(worker=False) as home:
            bind = stub.url.removeprefix("http://")
            story = await asked(home, "42:load:7", WORKER_METRICS_BIND=bind)
            assert story.conclusion == "a worker of this machine has it: running"
            assert "w-9" in texts(story, "machine")
            assert "for 3.5 s, delivery 2" in texts(story, "machine")
            other = await asked(home, "42:load:8", WORKER_METRICS_BIND=bind, NOETL_WORKER_DEBUG_TOKEN="t")
            assert not other.is_known
        # who listens there may be another program, and a worker of this machine wants no token from here
        assert [request for request in stub.requests if "authorization" in request.headers] == []


async def test_worker_of_a_supervisor_tells_what_it_does_with_it() -> None:
    idle = {"worker": {"worker_id": "w-9-1"}, "commands": []}
    busy = {"worker": {"worker_id": "w-9-2"}, "commands": [RUNNING]}
    with HttpStub() as stub:
        stub.answer("GET /debug/inflight", json={"processes": [idle, busy]})
        async with house(worker=False) as home:
            story = await asked(home, "42:load:7", WORKER_METRICS_BIND=stub.url.removeprefix("http://"))
        assert story.conclusion == "a worker of this machine has it: running"
        assert "w-9-2" in texts(story, "machine")


async def test_source_that_cannot_be_asked_is_named_and_the_others_are_asked() -> None:
    async with house(WORKER_ID="w-1") as home:
        [one] = await home.ran(RawCommand("noop"))
        nowhere = f"nats://127.0.0.1:{closed_port()}"
        without = await asked(home, one.command_id, NATS_URL=nowhere)
        assert not without.is_known
        assert any("no NATS" in text for text in without.unknown)
        assert any("--execution" in text for text in without.unknown)
        story = await asked(home, one.command_id, NATS_URL=nowhere, execution_id=one.execution_id)
        assert story.conclusion.startswith("it completed")


async def test_login_of_a_plane_that_does_not_answer_is_not_shown() -> None:
    async with house(worker=False) as home:
        nowhere = f"http://user:hunter2@127.0.0.1:{closed_port()}"
        story = await asked(home, "1:none:2", NOETL_SERVER_URL=nowhere)
        assert any("ConnectionRefused" in text for text in story.unknown)
        assert "hunter2" not in str(story)
        for words in (("report", "7", "--server", nowhere), ("replay", "7", "--server-url", nowhere)):
            ended = await asyncio.to_thread(typed, *words)
            assert (ended.code, ended.out, len(ended.err_lines)) == (3, "", 1)
            assert "ConnectionRefused" in ended.err
            assert "hunter2" not in ended.err


async def test_command_line_ends_with_5_where_nothing_is_known() -> None:
    async with house(worker=False) as home:
        ended = await asyncio.to_thread(typed, "why", "1:none:2", "--json", **home.addresses)
        assert (ended.code, ended.err) == (5, "")
        assert json.loads(ended.out)["is_known"] is False


def test_id_that_is_empty_is_refused(tmp_path: Path) -> None:
    ended = command_line(tmp_path, "why", " ")
    assert (ended.code, ended.out, len(ended.err_lines)) == (2, "", 1)
    assert "the id of a command or an execution" in ended.err


def test_table_without_a_fact_has_no_head() -> None:
    ended = typed("why", "1:none:2", **nowhere())
    assert ended.code == 5
    assert not any(line.startswith("knows") for line in ended.out.splitlines())
    assert "not known: " in ended.out
