"""`noetl-worker nats ensure`: what is shown, what is changed, and what is never changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from integration.desk import DURABLE, STREAM, desk
from integration.processes import Ended
from noetl_worker.errors import JetStreamError
from noetl_worker.remote.jetstream.consumer import ensure_durable
from noetl_worker.settings.settings import load_settings
from patience import PATIENCE_S


def differing(ended: Ended) -> dict[str, list[str]]:
    """What `nats ensure --json` marks as other than wanted."""
    report = json.loads(ended.out)
    return {
        what: [one["field"] for one in report[what]["fields"] if not one["agrees"]] for what in ("stream", "durable")
    }


async def test_ensure_shows_what_is_missing_makes_it_when_told_and_is_content_then() -> None:
    async with desk() as there:
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
        twice = await there.type("nats", "ensure", "--apply")
        assert (twice.code, "done:" in twice.out) == (0, False), "nothing was left to make"
        worker_durable = await ensure_durable(there.connection.client, load_settings({}))
        assert worker_durable.filters == ("noetl.commands", "noetl.commands.>")


async def test_ensure_makes_the_durable_with_the_filters_of_its_pools_and_refuses_another_pool_s() -> None:
    async with desk() as there:
        applied = await there.type("nats", "ensure", "--apply", NOETL_WORKER_POOL_SEGMENTS="legacy,shared")
        assert applied.code == 0, applied.out + applied.err
        assert (await there.durable())["config"]["filter_subjects"] == ["noetl.commands", "noetl.commands.shared.>"]
        with pytest.raises(JetStreamError, match=r"the settings want noetl\.commands\.gpu\.>"):
            await ensure_durable(there.connection.client, load_settings({"NOETL_WORKER_POOL_SEGMENTS": "gpu"}))


async def test_ensure_changes_in_place_what_can_be_and_keeps_the_place_of_the_durable() -> None:
    async with desk() as there:
        await there.make_stream(subjects=["noetl.commands", "noetl.commands.gpu"], max_age=60 * 10**9)
        await there.make_durable(
            filter_subjects=None,
            filter_subject="noetl.commands",
            ack_wait=300 * 10**9,
            max_ack_pending=64,
            max_deliver=1000,
            inactive_threshold=3600 * 10**9,
            max_bytes=4096,
            metadata={"team": "data"},
        )
        before = await there.durable()
        assert differing(await there.type("nats", "ensure", "--json")) == {
            "stream": ["subjects", "other fields"],
            "durable": ["filters", "ack_wait", "max_ack_pending", "max_deliver", "other fields"],
        }
        applied = await there.type("nats", "ensure", "--apply")
        assert applied.code == 0, "a worker runs on what is left to the operator"
        assert "done: durable noetl_worker: ack_wait 300 s -> 30 s" in applied.out
        assert f"warning: stream {STREAM}: other fields: max_age 60 s" in applied.out
        assert f"nats stream edit {STREAM}" in applied.out
        assert "inactive_threshold: the durable is deleted while no worker runs" in applied.out
        after = await there.durable()
        assert after["created"] == before["created"]
        assert (after["config"]["max_bytes"], after["config"]["metadata"]["team"]) == (4096, "data")
        assert after["config"]["ack_wait"] == 30 * 10**9
        subjects = (await there.ask(f"STREAM.INFO.{STREAM}"))["config"]["subjects"]
        assert sorted(subjects) == ["noetl.commands", "noetl.commands.>"]
        assert (await ensure_durable(there.connection.client, load_settings({}))).name == DURABLE
        assert (await there.type("nats", "ensure")).code == 5, "without --apply any difference counts"


async def test_commands_that_other_filters_pass_over_are_counted_and_a_durable_from_a_sequence_has_them() -> None:
    """748 of 1,084 were never delivered, and nothing said so."""
    async with desk() as there:
        await there.make_stream()
        await there.make_durable(filter_subjects=None, filter_subject="noetl.commands.gpu.>", ack_wait=30 * 10**9)
        jetstream = there.connection.client.jetstream()
        for number in range(12):
            await jetstream.publish("noetl.commands" if number % 4 else f"noetl.commands.gpu.{number}", b"x")
        taken = await (await jetstream.pull_subscribe_bind(DURABLE, STREAM)).fetch(2, timeout=PATIENCE_S)
        assert [int(one.metadata.sequence.stream) for one in taken] == [1, 5]
        applied = await there.type("nats", "ensure", "--apply", NATS_FILTER_SUBJECT="noetl.commands")
        assert applied.code == 0, applied.out + applied.err
        said = " ".join(applied.out.split())
        assert "warning: 3 commands that the filters select lie before sequence 6" in said
        assert "1 waiting commands are not selected by the filters any more" in said
        words = ["nats", "ensure", "--apply", "--from", "1", "--nats-consumer", "noetl_worker_missed"]
        assert f"noetl-worker {' '.join(words)}" in said
        assert (await there.type(*words, NATS_FILTER_SUBJECT="noetl.commands")).code == 0
        missed = await there.ask(f"CONSUMER.INFO.{STREAM}.noetl_worker_missed")
        assert missed["num_pending"] == 9
        assert (await there.type(*words, NATS_FILTER_SUBJECT="noetl.commands")).code == 2, "it is there by now"


async def test_ensure_never_recreates_but_says_what_would_be_lost_and_how_to_do_it() -> None:
    async with desk() as there:
        await there.make_stream(retention="interest")
        await there.make_durable(deliver_subject="push.here", ack_policy="none", ack_wait=None)
        await there.connection.client.jetstream().publish("noetl.commands", b"x")
        before = await there.durable()
        applied = await there.type("nats", "ensure", "--apply")
        assert applied.code == 5
        assert f"nats consumer rm {STREAM} {DURABLE}" in applied.out
        assert "other fields: deliver_subject push.here, ack_policy none, wanted:" in applied.out
        assert "retention: commands published while there is no durable are lost" in applied.out
        assert "messages waiting: 1, in flight: 0" in applied.out
        after = await there.durable()
        assert (after["created"], after["config"]["deliver_subject"]) == (before["created"], "push.here")


@pytest.mark.parametrize(
    "fields",
    [
        {"headers_only": True},
        {"max_expires": 10**9},
        {"max_batch": 1},
        {"priority_policy": "overflow", "priority_groups": ["a"]},
    ],
    ids=lambda fields: next(iter(fields)),
)
async def test_durable_that_no_worker_can_pull_from_is_named_and_not_changed(fields: dict[str, Any]) -> None:
    async with desk() as there:
        await there.make_stream()
        await there.make_durable(ack_wait=5 * 10**9, **fields)
        applied = await there.type("nats", "ensure", "--apply")
        assert applied.code == 5
        assert f"other fields: {next(iter(fields))} " in applied.out
        assert f"nats consumer edit {STREAM} {DURABLE}" in applied.out
        assert (await there.durable())["config"]["ack_wait"] == 5 * 10**9


async def test_stream_that_forgets_commands_when_it_is_full_is_told() -> None:
    async with desk() as there:
        await there.make_stream(max_msgs=2, max_bytes=4096, discard="old")
        await there.make_durable(ack_wait=30 * 10**9)
        for _ in range(3):
            await there.connection.client.jetstream().publish("noetl.commands", b"x")
        assert await there.messages() == 2, "the first of them is gone"
        looked = await there.type("nats", "ensure")
        assert looked.code == 5
        assert f"stream {STREAM}: other fields: max_msgs 2, max_bytes 4096, wanted:" in looked.out
        assert "max_msgs: a full stream loses the oldest commands" in looked.out


async def test_paused_durable_is_left_to_whoever_paused_it() -> None:
    async with desk() as there:
        await there.make_stream()
        await there.make_durable(ack_wait=30 * 10**9, pause_until="2999-01-01T00:00:00Z")
        applied = await there.type("nats", "ensure", "--apply", NOETL_WORKER_ACK_WAIT_S="20")
        assert applied.code == 0, applied.out + applied.err
        assert "is paused by an operator" in " ".join(applied.out.split())
        assert (await there.durable())["paused"] is True


async def test_change_that_jetstream_refuses_is_told_in_its_words() -> None:
    async with desk() as there:
        await there.make_stream(subjects=["noetl.commands"])
        await there.ask("STREAM.CREATE.OTHER", {"name": "OTHER", "subjects": ["noetl.commands.gpu"]})
        applied = await there.type("nats", "ensure", "--apply")
        assert applied.code == 3
        assert "subjects overlap with an existing stream" in applied.err
