"""A stream of dead letters that was made otherwise than we make it: told at the start, changed by the operator."""

from __future__ import annotations

import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from integration.desk import DEAD_LETTERS, STREAM, Desk, desk
from noetl_worker.errors import JetStreamError
from noetl_worker.remote.jetstream.consumer import ensure_durable
from noetl_worker.remote.jetstream.dead_letter_store import DEAD_LETTER_STREAM
from noetl_worker.settings.settings import load_settings


async def make_dead_letters(there: Desk, **fields: Any) -> None:
    config = {"name": DEAD_LETTER_STREAM, "subjects": [DEAD_LETTERS], **fields}
    await there.ask(f"STREAM.CREATE.{DEAD_LETTER_STREAM}", config)


async def fill(there: Desk) -> None:
    """More dead letters than 4 KiB hold."""
    for number in range(20):
        await there.keep(b"dead letter %d" % number)


async def told_at_a_start(there: Desk) -> list[Any]:
    """What the log says of the stream of dead letters."""
    with capture_logs() as logs:
        durable = await ensure_durable(there.connection.client, load_settings({}))
    assert durable.stream == STREAM
    return [line for line in logs if line["event"].startswith("dead_letter_stream_")]


def of_dead_letters(out: str) -> list[dict[str, Any]]:
    return list(json.loads(out)["dead_letters"]["fields"])


async def test_stream_that_forgets_dead_letters_is_told_at_the_start_and_left_to_the_operator() -> None:
    async with desk() as there:
        await make_dead_letters(there, discard="old", max_bytes=4096, max_age=7 * 86_400 * 10**9)
        await there.keep(b"first")
        [told] = await told_at_a_start(there)
        assert (told["event"], told["name"]) == ("dead_letter_stream_differs", DEAD_LETTER_STREAM)
        assert (told["server"], told["change"]) == ("discard old", "by hand")
        assert "loses old dead letters" in told["matters"]
        assert "noetl-worker nats ensure --apply" in told["advice"]

        applied = await there.type("nats", "ensure", "--apply")
        assert applied.code == 0
        assert f"warning: dead letters {DEAD_LETTER_STREAM}: other fields: discard old" in applied.out
        assert f"left to you, since somebody decided it: nats stream edit {DEAD_LETTER_STREAM}" in applied.out
        assert [one["is"] for one in of_dead_letters((await there.type("nats", "ensure", "--json")).out)] == [
            "discard old"
        ]

        config = (await there.ask(f"STREAM.INFO.{DEAD_LETTER_STREAM}"))["config"]
        assert config["discard"] == "old"
        await there.ask(f"STREAM.UPDATE.{DEAD_LETTER_STREAM}", {**config, "discard": "new"})
        with pytest.raises(JetStreamError, match="not stored"):
            await fill(there)
        assert (await there.connection.client.jsm().get_msg(DEAD_LETTER_STREAM, 1)).data is not None
        assert await told_at_a_start(there) == []


async def test_stream_as_we_make_it_agrees_and_one_that_is_not_there_is_no_difference() -> None:
    async with desk() as there:
        assert (await there.type("nats", "ensure", "--apply")).code == 0
        before = await there.type("nats", "ensure", "--json")
        assert (before.code, json.loads(before.out)["dead_letters"]) == (0, None)
        await there.keep()
        after = await there.type("nats", "ensure", "--json")
        assert after.code == 0
        assert {one["agrees"] for one in of_dead_letters(after.out)} == {True}


MAY_NOT_LOOK = f"""
authorization {{ users: [ {{ user: w, password: "w", permissions: {{ publish: {{ deny: [
  "$JS.API.STREAM.INFO.{DEAD_LETTER_STREAM}", "$JS.API.STREAM.MSG.GET.{DEAD_LETTER_STREAM}"
] }} }} }} ] }}
no_auth_user: w
"""


async def test_login_that_may_not_look_at_the_dead_letters_starts_all_the_same() -> None:
    async with desk(MAY_NOT_LOOK) as there:
        await make_dead_letters(there, discard="old")
        [told] = await told_at_a_start(there)
        assert (told["event"], told["subject"]) == ("dead_letter_stream_unknown", DEAD_LETTERS)


async def test_login_that_may_not_look_at_the_dead_letters_makes_pauses_and_resumes_the_durable() -> None:
    async with desk(MAY_NOT_LOOK) as there:
        await there.keep()
        applied = await there.type("nats", "ensure", "--apply")
        assert applied.code == 0, applied.out + applied.err
        assert "the stream of dead letters could not be looked at: " in applied.out
        looked = json.loads((await there.type("nats", "ensure", "--json")).out)
        assert (looked["as_wanted"], looked["dead_letters"]) == (True, None)
        assert "since NATS refuses it" in looked["dead_letters_unknown"]
        assert (await there.type("nats", "pause", "--for", "1m")).code == 0
        assert (await there.type("nats", "resume")).code == 0


async def test_dead_letters_that_may_not_be_counted_are_told_in_the_log() -> None:
    async with desk(MAY_NOT_LOOK) as there:
        await there.keep()
        with capture_logs() as logs:
            await there.store.measure()
        [told] = [line for line in logs if line["event"] == "dead_letters_not_counted"]
        assert told["log_level"] == "warning"
        assert "noetl-worker doctor" in told["advice"]


async def test_dead_letter_of_a_message_that_comes_again_is_kept_once() -> None:
    async with desk() as there:
        for _ in range(2):  # stored, and the end of its message was not confirmed
            await there.keep(b"the same", message_id="noetl_commands-7-1700000000000000000")
        await there.keep(b"another", message_id="noetl_commands-7-1800000000000000000")
        assert await there.messages(DEAD_LETTER_STREAM) == 2
