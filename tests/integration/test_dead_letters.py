"""`noetl-worker dead-letters`: listed, shown, and put back to work."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from integration.desk import DEAD_LETTERS, STREAM, desk
from integration.house import House, house
from integration.processes import Ended, typed
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.errors import JetStreamError
from noetl_worker.observability import metrics
from noetl_worker.pipeline.delivery.dead_letter import pack, requeue
from noetl_worker.remote.jetstream import dead_letter_store
from noetl_worker.remote.jetstream.dead_letter_store import DEAD_LETTER_STREAM, DeadLetterStore

POISON = {"kind": "not_a_notification", "reason": "not a notification: json_syntax"}
NO_CHOICE = [(), ("1", "--all"), ("1", "--reason", "x")]


async def refused_command(home: House) -> tuple[Any, dict[str, Any]]:
    """A command whose claim was refused, so that it is a dead letter; and the dead letter."""

    def refuse(request: Request) -> Response | None:
        is_claim = request.url.path.endswith("/claim")
        return JSONResponse({"detail": "not now, token=s3cr3t-value"}, 422) if is_claim else None

    home.plane.fault = refuse
    [issued] = await home.plane.create_commands([RawCommand("noop")])
    [dead_letter] = await home.wait_dead_letters(1)
    await home.wait_settled()
    home.plane.fault = None
    return issued, dead_letter


async def test_dead_letter_is_listed_shown_and_put_back_to_work() -> None:
    async with house() as home:
        issued, kept = await refused_command(home)

        async def type_(*arguments: str) -> Ended:
            return await asyncio.to_thread(typed, *arguments, NATS_URL=home.nats.url)

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


async def test_message_comes_back_byte_for_byte_with_its_headers_and_only_then_is_its_dead_letter_gone() -> None:
    async with desk() as there:
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


async def test_dead_letter_stays_when_the_message_is_not_taken() -> None:
    async with desk() as there:
        await there.keep()
        ended = await there.type("dead-letters", "requeue", "1")
        assert ended.code == 5
        assert "no stream takes noetl.commands" in ended.err
        assert await there.messages(DEAD_LETTER_STREAM) == 1


async def test_requeue_that_is_repeated_publishes_once() -> None:
    async with desk() as there:
        await there.make_stream()
        await there.keep(b"one")
        [kept] = [one async for one in there.store.dead_letters(DEAD_LETTER_STREAM)]

        class Killed(DeadLetterStore):
            async def remove(self, sequence: int) -> None:
                raise JetStreamError("the connection is gone")

        with pytest.raises(JetStreamError, match="still there"):
            await requeue(Killed(there.connection), kept)
        for _ in range(2):  # the operator again, and another one at the same time
            assert (await requeue(there.store, kept))[0] == "noetl.commands"
        assert await there.messages() == 1
        assert await there.messages(DEAD_LETTER_STREAM) == 0
        # The same number in a stream made anew is another dead letter.
        await there.ask(f"STREAM.DELETE.{DEAD_LETTER_STREAM}")
        store = DeadLetterStore(there.connection)
        await store.publish(
            DEAD_LETTERS, pack(b"two", None, kind="claim_refused", reason="r", subject="noetl.commands"), "two"
        )
        [other] = [one async for one in store.dead_letters(DEAD_LETTER_STREAM)]
        assert other.sequence == kept.sequence
        assert (await requeue(store, other))[0] == "noetl.commands"
        assert await there.messages() == 2


async def test_requeue_all_takes_the_oldest_first_and_only_those_with_the_reason() -> None:
    async with desk() as there:
        await there.make_stream()
        await there.keep(b"first")
        await there.keep(b"poison", **POISON)
        await there.keep(b"second")
        await there.keep(b"x" * 600_000)
        ended = await there.type("dead-letters", "requeue", "--all", "--reason", "unknown_command")
        assert ended.code == 5  # one was too long to be kept whole
        assert "2 requeued, 1 not" in ended.out
        assert "only the first 4096 of 600000 bytes" in ended.err
        client = there.connection.client
        assert [(await client.jsm().get_msg(STREAM, at)).data for at in (1, 2)] == [b"first", b"second"]
        left = await there.type("dead-letters", "list", "--json")
        assert [json.loads(line)["id"] for line in left.out.splitlines()] == [4, 2]


async def test_reason_that_no_dead_letter_has_is_an_error_that_lists_those_that_there_are() -> None:
    async with desk() as there:
        await there.make_stream()
        await there.keep(b"first")
        await there.keep(b"poison", **POISON)
        for command in (("requeue", "--all"), ("delete",)):
            ended = await there.type("dead-letters", *command, "--reason", "nonsense")
            assert (ended.code, ended.out) == (2, "")
            assert "not_a_notification (1), unknown_command (1)" in ended.err
            assert "pool_not_served" in ended.err, "one that there could be"
            none_yet = await there.type("dead-letters", *command, "--reason", "pool_not_served")
            assert none_yet.code == 0
        assert await there.messages(DEAD_LETTER_STREAM) == 2


async def test_dead_letters_are_deleted_by_id_reason_and_age_and_a_dry_run_deletes_none() -> None:
    async with desk() as there:
        await there.keep(b"first")
        await there.keep(b"poison", **POISON)
        await there.keep(b"second")
        tried = await there.type("dead-letters", "delete", "--reason", "unknown_command", "--dry-run")
        assert (tried.code, tried.out.splitlines()[-1]) == (0, "2 would be deleted")
        assert await there.messages(DEAD_LETTER_STREAM) == 3
        assert (await there.type("dead-letters", "delete", "--older-than", "1h")).out == "0 deleted\n"
        ended = await there.type("dead-letters", "delete", "--reason", "unknown_command", "--older-than", "0s")
        assert ended.out == "1 deleted: unknown command: 404\n3 deleted: unknown command: 404\n2 deleted\n"
        gone = await there.type("dead-letters", "delete", "1", "2")
        assert (gone.code, "no dead letter 1" in gone.err) == (5, True)
        assert "1 deleted, 1 not" in gone.out
        assert await there.messages(DEAD_LETTER_STREAM) == 0


@pytest.mark.parametrize("command", [("delete",), ("delete", "--all"), ("requeue", "--all"), ("list",)])
async def test_empty_reason_is_refused_and_chooses_none(command: tuple[str, ...]) -> None:
    """A script's `--reason "$REASON"` where there is no REASON; every reason has the empty text in it."""
    async with desk() as there:
        await there.make_stream()
        await there.keep(b"first")
        for reason in ("", " "):
            ended = await there.type("dead-letters", *command, "--reason", reason)
            assert (ended.code, ended.out) == (2, "")
            assert "it is empty" in ended.err
        assert await there.messages(DEAD_LETTER_STREAM) == 1


async def test_metric_of_kept_dead_letters_follows_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    async with desk() as there:
        monkeypatch.setattr(dead_letter_store, "COUNTED_EVERY_S", 0.0)

        async def kept() -> float:
            await there.store.measure()
            return metrics.DEAD_LETTERS_KEPT.own.value

        assert await kept() == 0
        await there.keep(b"first")
        await there.keep(b"second", kind="pool_not_served")
        assert await kept() == 2
        await there.store.remove(2)
        assert await kept() == 1
        await there.ask(f"STREAM.PURGE.{DEAD_LETTER_STREAM}")
        assert await kept() == 0


async def test_list_shows_the_newest_first_within_the_limit_and_skips_what_is_no_dead_letter() -> None:
    async with desk() as there:
        await there.ask("STREAM.CREATE.MINE", {"name": "MINE", "subjects": ["noetl.dead_letters", "mine.>"]})
        for number in range(1, 6):
            await there.connection.client.jetstream().publish("mine.x", b"x")
            await there.keep(b"%d" % number, reason=f"unknown command: {number}")
        await there.store.remove(8)
        await there.connection.client.jetstream().publish(DEAD_LETTERS, b"not ours")
        ended = await there.type("dead-letters", "list", "-n", "3", "--json")
        assert [json.loads(line)["id"] for line in ended.out.splitlines()] == [11, 10, 6]
        ended = await there.type("dead-letters", "list")
        assert "5 of 5 dead letters in MINE" in ended.out
        assert "not a dead letter of noetl-worker" in ended.out
        assert (await there.type("dead-letters", "requeue", "11")).code == 5
        assert "unknown command: 5" in (await there.type("dead-letters", "list", "--reason", "d: 5")).out


async def test_message_cannot_write_to_the_operator_s_terminal() -> None:
    async with desk() as there:
        await there.keep(b"\x1b]0;owned\x07{", reason="not a notification: \x1b[2J")
        for arguments in (("list",), ("show", "1"), ("list", "--json")):
            ended = await there.type("dead-letters", *arguments)
            assert ended.code == 0
            assert not {"\x1b", "\x07"} & set(ended.out)
            assert "not a notification" in ended.out


async def test_dead_letters_that_are_not_there_are_told_from_a_stream_that_is_not_there() -> None:
    async with desk() as there:
        listed = await there.type("dead-letters", "list", "--json")
        assert (listed.code, listed.out) == (0, "")
        assert "there is no dead-letter stream" in listed.err
        assert (await there.type("dead-letters", "requeue", "--all")).code == 0
        assert (await there.type("dead-letters", "show", "1")).code == 5
        await there.keep()
        unknown = await there.type("dead-letters", "show", "7")
        assert unknown.code == 5
        assert "no dead letter 7 in NOETL_DEAD_LETTERS" in unknown.err


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        *(("requeue", arguments) for arguments in [*NO_CHOICE, ("one",), ("0",)]),
        *(("delete", arguments) for arguments in NO_CHOICE),
    ],
)
def test_requeue_and_delete_that_are_told_too_little_or_too_much_are_usage_errors(
    command: str, arguments: tuple[str, ...]
) -> None:
    ended = typed("dead-letters", command, *arguments)
    assert ended.code == 2
    assert "Invalid value" in ended.err


def test_age_that_is_no_duration_is_refused_with_the_form_of_one() -> None:
    ended = typed("dead-letters", "delete", "--older-than", "soon")
    assert (ended.code, ended.out) == (2, "")
    assert "--older-than='soon' is not usable: a number with s, m, h or d, for example 20m" in ended.err
