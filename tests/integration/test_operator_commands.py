"""`noetl-worker nats ensure` and `noetl-worker dead-letters`, and what the worker says about the same things."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from structlog.testing import capture_logs

from integration.house import House, house, run
from integration.processes import Ended, command_line, one_line, refused_start, until, worker_process
from noetl_worker.delivery.dead_letter import NotRequeued, Requeued, pack, requeue
from noetl_worker.dev.nats_server import NatsServer, free_port
from noetl_worker.dev.plane import RawCommand
from noetl_worker.errors import JetStreamError
from noetl_worker.jetstream import comparison, puller
from noetl_worker.jetstream.api import ask
from noetl_worker.jetstream.comparison import covers
from noetl_worker.jetstream.connection import Connection, connect
from noetl_worker.jetstream.consumer import ensure_durable, look
from noetl_worker.jetstream.dead_letter_store import DEAD_LETTER_STREAM, DeadLetterStore
from noetl_worker.observability.metrics import ACK_PENDING_FULL, MAX_ACK_PENDING
from noetl_worker.settings.settings import load_settings

STREAM, DURABLE = "NOETL_COMMANDS", "noetl_worker"
LETTERS = "noetl.dead_letters"


class Desk:
    """A NATS server and the command line of an operator in front of it."""

    def __init__(self, server: NatsServer, connection: Connection, directory: Path) -> None:
        self.server, self.connection, self._directory = server, connection, directory
        self.store = DeadLetterStore(connection, LETTERS)

    async def type(self, *arguments: str, **variables: str) -> Ended:
        given = {"NATS_URL": self.server.url, **variables}
        return await asyncio.to_thread(command_line, self._directory, *arguments, **given)

    async def ask(self, subject: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return await ask(self.connection.client, subject, body)

    async def make_stream(self, **fields: Any) -> None:
        config = {"name": STREAM, "subjects": ["noetl.commands", "noetl.commands.>"], **fields}
        await self.ask(f"STREAM.CREATE.{STREAM}", config)

    async def make_durable(self, **fields: Any) -> None:
        config = {
            "durable_name": DURABLE,
            "name": DURABLE,
            "ack_policy": "explicit",
            "filter_subjects": ["noetl.commands", "noetl.commands.>"],
            **fields,
        }
        config = {name: value for name, value in config.items() if value is not None}
        body = {"stream_name": STREAM, "config": config, "action": "create"}
        await self.ask(f"CONSUMER.CREATE.{STREAM}.{DURABLE}", body)

    async def durable(self) -> dict[str, Any]:
        return await self.ask(f"CONSUMER.INFO.{STREAM}.{DURABLE}")

    async def messages(self, stream: str = STREAM) -> int:
        return int((await self.ask(f"STREAM.INFO.{stream}"))["state"]["messages"])

    async def keep(self, data: bytes = b"{}", *, reason: str = "unknown command: 404", **fields: object) -> None:
        given: dict[str, Any] = {"subject": "noetl.commands", "stream_sequence": 1, "num_delivered": 6, **fields}
        headers = given.pop("headers", None)
        message_id = given.pop("message_id", uuid.uuid4().hex)
        await self.store.publish(LETTERS, pack(data, headers, reason=reason, worker_id="w-1", **given), message_id)


@asynccontextmanager
async def desk(directory: Path, config: str = "") -> AsyncIterator[Desk]:
    async with NatsServer(config=config) as server:
        connection = await connect(load_settings({"NATS_URL": server.url}), "test", attempts=5)
        try:
            yield Desk(server, connection, directory)
        finally:
            await connection.close()


def differing(ended: Ended) -> dict[str, list[str]]:
    """What `nats ensure --json` marks as other than wanted."""
    report = json.loads(ended.out)
    return {
        what: [one["field"] for one in report[what]["fields"] if not one["agrees"]] for what in ("stream", "durable")
    }


# ── nats ensure ──


def test_ensure_shows_what_is_missing_makes_it_when_told_and_is_content_then(tmp_path: Path) -> None:
    async def go() -> None:
        async with desk(tmp_path) as there:
            looked = await there.type("nats", "ensure")
            assert looked.code == 5
            assert looked.err == ""
            assert f"stream {STREAM} is missing" in looked.out
            assert f"durable {DURABLE} is missing" in looked.out
            assert "noetl-worker nats ensure --apply" in looked.out
            assert (await there.ask("STREAM.NAMES")).get("streams") in (None, [])
            applied = await there.type("nats", "ensure", "--apply")
            assert applied.code == 0, applied.out + applied.err
            assert f"done: durable {DURABLE} made" in applied.out
            assert "done: bucket NOETL_COMMAND_STARTS made" in applied.out
            again = await there.type("nats", "ensure", "--json")
            assert again.code == 0
            assert differing(again) == {"stream": [], "durable": []}
            worker_durable = await ensure_durable(there.connection.client, load_settings({}))
            assert worker_durable.filters == ("noetl.commands", "noetl.commands.>")

    run(go())


def test_ensure_makes_the_durable_with_the_filters_of_its_pools_and_refuses_another_pool_s(tmp_path: Path) -> None:
    async def go() -> None:
        async with desk(tmp_path) as there:
            applied = await there.type("nats", "ensure", "--apply", NOETL_WORKER_POOL_SEGMENTS="legacy,shared")
            assert applied.code == 0, applied.out + applied.err
            assert (await there.durable())["config"]["filter_subjects"] == ["noetl.commands", "noetl.commands.shared.>"]
            with pytest.raises(JetStreamError, match=r"the settings want noetl\.commands\.gpu\.>"):
                await ensure_durable(there.connection.client, load_settings({"NOETL_WORKER_POOL_SEGMENTS": "gpu"}))

    run(go())


def test_ensure_changes_in_place_what_can_be_and_keeps_the_place_of_the_durable(tmp_path: Path) -> None:
    async def go() -> None:
        async with desk(tmp_path) as there:
            await there.make_stream(subjects=["noetl.commands", "noetl.commands.gpu"], max_age=60 * 10**9)
            await there.make_durable(
                filter_subjects=None,
                filter_subject="noetl.commands",
                ack_wait=300 * 10**9,
                max_ack_pending=64,
                max_deliver=1000,
                backoff=[10**9],
                inactive_threshold=3600 * 10**9,
                max_expires=10**9,
                max_batch=1,
                headers_only=True,
                priority_policy="overflow",
                priority_groups=["a"],
                max_bytes=4096,
                metadata={"team": "data"},
            )
            before = await there.durable()
            assert differing(await there.type("nats", "ensure", "--json")) == {
                "stream": ["subjects", "max_age"],
                "durable": [
                    *("filters", "ack_wait", "max_ack_pending", "max_deliver", "backoff", "inactive_threshold"),
                    *("max_expires", "max_batch", "headers_only", "priority_policy"),
                ],
            }
            applied = await there.type("nats", "ensure", "--apply")
            assert applied.code == 0, applied.out + applied.err
            assert "done: durable noetl_worker: ack_wait 1 s -> 30 s" in applied.out
            after = await there.durable()
            assert after["created"] == before["created"]
            assert (after["config"]["max_bytes"], after["config"]["metadata"]["team"]) == (4096, "data")
            assert after["config"]["ack_wait"] == 30 * 10**9
            subjects = (await there.ask(f"STREAM.INFO.{STREAM}"))["config"]["subjects"]
            assert sorted(subjects) == ["noetl.commands", "noetl.commands.>"]

    run(go())


def test_ensure_never_recreates_but_says_what_would_be_lost_and_how_to_do_it(tmp_path: Path) -> None:
    async def go() -> None:
        async with desk(tmp_path) as there:
            await there.make_stream(retention="interest")
            await there.make_durable(deliver_subject="push.here", ack_policy="none", ack_wait=None)
            await there.connection.client.jetstream().publish("noetl.commands", b"x")
            before = await there.durable()
            applied = await there.type("nats", "ensure", "--apply")
            assert applied.code == 5
            assert f"nats consumer rm {STREAM} {DURABLE}" in applied.out
            assert f"nats stream edit {STREAM} --retention limits" in applied.out
            assert "messages waiting: 1, in flight: 0" in applied.out
            after = await there.durable()
            assert (after["created"], after["config"]["deliver_subject"]) == (before["created"], "push.here")

    run(go())


def test_paused_durable_is_left_to_whoever_paused_it(tmp_path: Path) -> None:
    async def go() -> None:
        async with desk(tmp_path) as there:
            await there.make_stream()
            await there.make_durable(ack_wait=30 * 10**9, pause_until="2999-01-01T00:00:00Z")
            applied = await there.type("nats", "ensure", "--apply")
            assert applied.code == 5
            assert f"nats consumer resume {STREAM} {DURABLE}" in applied.out
            assert (await there.durable())["paused"] is True

    run(go())


def test_change_that_jetstream_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    async def go() -> None:
        async with desk(tmp_path) as there:
            await there.make_stream(subjects=["noetl.commands"])
            await there.ask("STREAM.CREATE.OTHER", {"name": "OTHER", "subjects": ["noetl.commands.gpu"]})
            applied = await there.type("nats", "ensure", "--apply")
            assert applied.code == 3
            assert "subjects overlap with an existing stream" in applied.err

    run(go())


@pytest.mark.parametrize("command", [("nats", "ensure"), ("dead-letters", "list")])
def test_nats_that_is_not_there_is_one_line_and_exit_3(command: tuple[str, ...], tmp_path: Path) -> None:
    ended = command_line(tmp_path, *command, NATS_URL=f"nats://u:s3cr3t@127.0.0.1:{free_port()}")
    assert ended.code == 3
    assert ended.out == ""
    assert len(ended.err_lines) == 1
    assert "NATS_URL" in ended.err
    assert "s3cr3t" not in ended.err


def test_nats_without_jetstream_is_named_by_the_operator_commands(tmp_path: Path) -> None:
    async def go() -> None:
        account = 'accounts { A { users: [{user: a, password: "b"}] } }'  # no jetstream in this account
        async with NatsServer(config=account) as server:
            url = f"nats://a:b@{server.host}:{server.port}"
            for command in (("nats", "ensure"), ("dead-letters", "list")):
                ended = await asyncio.to_thread(command_line, tmp_path, *command, NATS_URL=url)
                assert ended.code == 3
                assert "JetStream is not enabled" in ended.err

    run(go())


# ── the same at the worker's start, and while it runs ──


def test_start_warns_of_each_field_that_differs_and_uses_the_server_s(tmp_path: Path) -> None:
    async def go() -> None:
        async with house(worker=False) as home:
            client = await nats.connect(home.nats.url)
            config = {
                "durable_name": DURABLE,
                "ack_policy": "explicit",
                "ack_wait": 7 * 10**9,
                "max_deliver": 9,
                "filter_subjects": ["noetl.commands", "noetl.commands.>"],
            }
            await ask(
                client,
                f"CONSUMER.CREATE.{STREAM}.{DURABLE}",
                {"stream_name": STREAM, "config": {**config, "name": DURABLE}},
            )
            await client.close()
            async with worker_process(home, tmp_path) as worker:
                warned = {line["field"]: line for line in worker.logged("durable_differs")}
                assert set(warned) == {"ack_wait", "max_deliver"}
                assert (warned["ack_wait"]["server"], warned["ack_wait"]["settings"]) == ("7 s", "30 s")
                assert all("noetl-worker nats ensure --apply" in line["advice"] for line in warned.values())
                [one] = await home.plane.create_commands([RawCommand("noop")])
                await home.wait_terminal(one.event_id)

    run(go())


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"filter_subjects": ["noetl.commands.gpu"]}, "filters"),
        ({"headers_only": True}, "headers_only"),
        ({"max_expires": 10**9}, "max_expires"),
    ],
    ids=["filter", "no bodies", "short pulls"],
)
def test_durable_that_a_worker_must_not_or_cannot_use_refuses_the_start(
    fields: dict[str, Any], field: str, tmp_path: Path
) -> None:
    async def go() -> None:
        async with desk(tmp_path) as there:
            await there.make_stream()
            await there.make_durable(**fields)
            with pytest.raises(JetStreamError, match=field) as caught:
                await ensure_durable(there.connection.client, load_settings({}))
            assert "noetl-worker nats ensure --apply" in str(caught.value)

    run(go())


def test_refused_start_names_the_command_that_mends_it(tmp_path: Path) -> None:
    async def go() -> None:
        async with desk(tmp_path) as there:
            await there.make_stream()
            await there.make_durable(deliver_subject="push.here")
            worker = await refused_start(tmp_path, NATS_URL=there.server.url)
            assert worker.process.returncode == 3
            assert "noetl-worker nats ensure --apply" in one_line(worker)

    run(go())


def test_durable_deleted_under_a_worker_is_made_again_and_nothing_runs_twice() -> None:
    async def go() -> None:
        async with house(WORKER_NATS_LAG_POLL_INTERVAL="1") as home:
            [before] = await home.plane.create_commands([RawCommand("noop")])
            await home.wait_terminal(before.event_id)
            await home.wait_settled()
            client = await nats.connect(home.nats.url)
            try:
                await ask(client, f"CONSUMER.DELETE.{STREAM}.{DURABLE}")
                [after] = await home.plane.create_commands([RawCommand("noop")])
                await home.wait_terminal(after.event_id)
                await home.wait_settled()
                assert home.terminal_events(before.event_id) == ["command.completed"]
                config = (await ask(client, f"CONSUMER.INFO.{STREAM}.{DURABLE}"))["config"]
                assert config["filter_subjects"] == ["noetl.commands", "noetl.commands.>"]
            finally:
                await client.close()

    run(go())


def test_durable_changed_or_deleted_while_it_is_used_is_said_once(tmp_path: Path) -> None:
    async def go() -> None:
        async with desk(tmp_path) as there:
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
                seen = await look(client, durable)
                assert not seen.is_ours(durable)
                assert seen.durable.ack_wait_s == 5
                await look(client, durable)
                assert [(line["event"], line["field"]) for line in logs] == [
                    ("durable_changed", "filters"),
                    ("durable_changed", "ack_wait_s"),
                ]
                assert "noetl-worker nats ensure --apply" in logs[0]["advice"]
                await there.ask(f"CONSUMER.DELETE.{STREAM}.{DURABLE}")
                for _ in range(2):
                    with pytest.raises(JetStreamError, match="is gone"):
                        await look(client, durable)
                assert [line["event"] for line in logs[2:]] == ["durable_gone"]

    run(go())


def test_max_ack_pending_that_is_reached_is_a_gauge_and_one_warning_until_it_is_over(tmp_path: Path) -> None:
    async def go() -> None:
        async with desk(tmp_path) as there:
            client = there.connection.client
            await there.make_stream()
            await there.make_durable(max_ack_pending=2)
            settings = load_settings({})
            durable = await ensure_durable(client, settings)
            for _ in range(3):
                await client.jetstream().publish("noetl.commands", b"x")
            subscription = await client.jetstream().pull_subscribe_bind(DURABLE, STREAM)
            taken = await subscription.fetch(2, timeout=5)
            gauge = ACK_PENDING_FULL.labels(STREAM, DURABLE)
            with capture_logs() as logs:
                seen = await look(client, durable)
                await look(client, durable)
                assert (seen.pending, seen.ack_pending) == (1, 2)
                assert gauge.value == 1
                assert MAX_ACK_PENDING.labels(STREAM, DURABLE).value == 2
                [line] = logs
                assert (line["event"], line["waiting"]) == ("max_ack_pending_reached", 1)
                assert "NOETL_WORKER_MAX_ACK_PENDING" in line["advice"]
                await taken[0].ack_sync()
                await look(client, durable)
                assert gauge.value == 0

    run(go())


def test_limits_on_pulls_are_compared_with_what_the_puller_asks_for() -> None:
    assert comparison.PULL_EXPIRES_S == puller.EXPIRES_S
    assert comparison.MAX_PULL_BATCH == puller._MAX_BATCH


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


# ── dead letters ──


async def refused_command(home: House) -> tuple[Any, dict[str, Any]]:
    """A command whose claim was refused, so that it is a dead letter; and the letter."""

    def refuse(request: Request) -> Response | None:
        is_claim = request.url.path.endswith("/claim")
        return JSONResponse({"detail": "not now, token=s3cr3t-value"}, 422) if is_claim else None

    home.plane.fault = refuse
    [issued] = await home.plane.create_commands([RawCommand("noop")])
    await until(lambda: _has_letters(home), "the dead letter")
    await home.wait_settled()
    home.plane.fault = None
    [letter] = await home.dead_letters()
    return issued, letter


async def _has_letters(home: House) -> bool:
    return bool(await home.dead_letters())


def test_dead_letter_is_listed_shown_and_put_back_to_work(tmp_path: Path) -> None:
    async def go() -> None:
        async with house() as home:
            issued, kept = await refused_command(home)

            async def type_(*arguments: str) -> Ended:
                return await asyncio.to_thread(command_line, tmp_path, *arguments, NATS_URL=home.nats.url)

            listed = json.loads((await type_("dead-letters", "list", "--json")).out)
            assert (listed["id"], listed["kind"], listed["deliveries"]) == (1, "claim_refused", 1)
            assert listed["execution_id"] == str(kept["execution_id"])
            assert listed["command_id"] == str(kept["command_id"])
            assert listed["age_s"] < 30
            shown = await type_("dead-letters", "show", "1")
            assert shown.code == 0
            assert "422" in shown.out
            assert "not now" in shown.out
            assert f'"event_id": {issued.event_id}' in shown.out
            assert "s3cr3t-value" not in shown.out + json.dumps(listed)
            back = await type_("dead-letters", "requeue", "1")
            assert back.code == 0, back.err
            assert "noetl.commands" in back.out
            await home.wait_terminal(issued.event_id)
            assert home.terminal_events(issued.event_id) == ["command.completed"]
            assert await home.dead_letters() == []
            gone = await type_("dead-letters", "requeue", "1")
            assert gone.code == 5
            assert "no dead letter 1" in gone.err

    run(go())


def test_message_comes_back_byte_for_byte_with_its_headers_and_only_then_is_its_letter_gone(tmp_path: Path) -> None:
    async def go() -> None:
        async with desk(tmp_path) as there:
            await there.make_stream()
            headers = {"traceparent": "00-1", "Nats-Msg-Id": "old", "Nats-Expected-Last-Sequence": "77"}
            await there.keep(b"\xff\x00{", subject="noetl.commands.shared.7", headers=headers)
            ended = await there.type("dead-letters", "requeue", "1")
            assert ended.code == 0, ended.err
            message = await there.connection.client.jsm().get_msg(STREAM, 1)
            assert (message.data, message.subject) == (b"\xff\x00{", "noetl.commands.shared.7")
            assert message.headers is not None
            assert message.headers["traceparent"] == "00-1"
            assert "Nats-Expected-Last-Sequence" not in message.headers
            assert await there.messages(DEAD_LETTER_STREAM) == 0

    run(go())


def test_letter_stays_when_the_message_is_not_taken(tmp_path: Path) -> None:
    async def go() -> None:
        async with desk(tmp_path) as there:
            await there.keep()
            ended = await there.type("dead-letters", "requeue", "1")
            assert ended.code == 5
            assert "no stream takes noetl.commands" in ended.err
            assert await there.messages(DEAD_LETTER_STREAM) == 1

    run(go())


def test_requeue_that_is_repeated_publishes_once(tmp_path: Path) -> None:
    async def go() -> None:
        async with desk(tmp_path) as there:
            await there.make_stream()
            await there.keep(b"one")
            [kept] = [one async for one in there.store.letters(DEAD_LETTER_STREAM)]

            class Killed(DeadLetterStore):
                async def remove(self, sequence: int) -> None:
                    raise JetStreamError("the connection is gone")

            half = await requeue(Killed(there.connection, LETTERS), kept)
            assert isinstance(half, NotRequeued)
            assert "still there" in half.why
            for _ in range(2):  # the operator again, and another one at the same time
                assert isinstance(await requeue(there.store, kept), Requeued)
            assert await there.messages() == 1
            assert await there.messages(DEAD_LETTER_STREAM) == 0
            # The same number in a stream made anew is another letter.
            await there.ask(f"STREAM.DELETE.{DEAD_LETTER_STREAM}")
            store = DeadLetterStore(there.connection, LETTERS)
            await store.publish(LETTERS, pack(b"two", None, reason="r", subject="noetl.commands"), "two")
            [other] = [one async for one in store.letters(DEAD_LETTER_STREAM)]
            assert other.sequence == kept.sequence
            assert isinstance(await requeue(store, other), Requeued)
            assert await there.messages() == 2

    run(go())


def test_requeue_all_takes_the_oldest_first_and_only_those_with_the_reason(tmp_path: Path) -> None:
    async def go() -> None:
        async with desk(tmp_path) as there:
            await there.make_stream()
            await there.keep(b"first")
            await there.keep(b"poison", reason="not a notification: json_syntax")
            await there.keep(b"second")
            await there.keep(b"x" * 600_000)
            ended = await there.type("dead-letters", "requeue", "--all", "--reason", "unknown_command")
            assert ended.code == 5  # one was too long to be kept whole
            assert "2 requeued, 1 not" in ended.out
            assert "only the first 4096 of its 600000 bytes" in ended.err
            client = there.connection.client
            assert [(await client.jsm().get_msg(STREAM, at)).data for at in (1, 2)] == [b"first", b"second"]
            left = await there.type("dead-letters", "list", "--json")
            assert [json.loads(line)["id"] for line in left.out.splitlines()] == [4, 2]

    run(go())


def test_list_shows_the_newest_first_within_the_limit_and_skips_what_is_no_letter(tmp_path: Path) -> None:
    async def go() -> None:
        async with desk(tmp_path) as there:
            await there.ask("STREAM.CREATE.MINE", {"name": "MINE", "subjects": ["noetl.dead_letters", "mine.>"]})
            for number in range(1, 6):
                await there.connection.client.jetstream().publish("mine.x", b"x")
                await there.keep(b"%d" % number, reason=f"unknown command: {number}")
            await there.store.remove(8)
            await there.connection.client.jetstream().publish(LETTERS, b"not ours")
            ended = await there.type("dead-letters", "list", "-n", "3", "--json")
            assert [json.loads(line)["id"] for line in ended.out.splitlines()] == [11, 10, 6]
            ended = await there.type("dead-letters", "list")
            assert "5 of 5 dead letters in MINE" in ended.out
            assert "not a dead letter of noetl-worker" in ended.out
            assert (await there.type("dead-letters", "requeue", "11")).code == 5
            assert "unknown command: 5" in (await there.type("dead-letters", "list", "--reason", "d: 5")).out

    run(go())


def test_message_cannot_write_to_the_operator_s_terminal(tmp_path: Path) -> None:
    async def go() -> None:
        async with desk(tmp_path) as there:
            await there.keep(b"\x1b]0;owned\x07{", reason="not a notification: \x1b[2J")
            for arguments in (("list",), ("show", "1"), ("list", "--json")):
                ended = await there.type("dead-letters", *arguments)
                assert ended.code == 0
                assert not {"\x1b", "\x07"} & set(ended.out)
                assert "not a notification" in ended.out

    run(go())


def test_letters_that_are_not_there_are_told_from_a_stream_that_is_not_there(tmp_path: Path) -> None:
    async def go() -> None:
        async with desk(tmp_path) as there:
            listed = await there.type("dead-letters", "list", "--json")
            assert (listed.code, listed.out) == (0, "")
            assert "there is no dead-letter stream" in listed.err
            assert "NOETL_WORKER_DEAD_LETTER_SUBJECT" in listed.err
            assert (await there.type("dead-letters", "requeue", "--all")).code == 0
            assert (await there.type("dead-letters", "show", "1")).code == 5
            await there.keep()
            unknown = await there.type("dead-letters", "show", "7")
            assert unknown.code == 5
            assert "no dead letter 7 in NOETL_DEAD_LETTERS" in unknown.err

    run(go())


@pytest.mark.parametrize("arguments", [(), ("1", "--all"), ("1", "--reason", "x"), ("one",), ("0",)])
def test_requeue_that_says_too_little_or_too_much_is_a_usage_error(arguments: tuple[str, ...], tmp_path: Path) -> None:
    ended = command_line(tmp_path, "dead-letters", "requeue", *arguments)
    assert ended.code == 2
    assert "Usage" in ended.err


@pytest.mark.parametrize(
    "command", [("nats", "ensure"), *(("dead-letters", one) for one in ("list", "show", "requeue"))]
)
def test_help_says_what_the_exit_codes_mean(command: tuple[str, ...], tmp_path: Path) -> None:
    ended = command_line(tmp_path, *command, "--help")
    assert ended.code == 0
    assert "Exit codes: 0" in ended.out
