"""`noetl-worker doctor`: the checks of NATS, with what each looks at broken on purpose."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response

from integration.desk import DEAD_LETTERS, DURABLE, STREAM, Desk, account_of, connected, desk, who_may_not
from integration.findings import by_check, not_fine, settings
from integration.house import house
from integration.processes import until
from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.cli.doctor import State, nats
from noetl_worker.errors import JetStreamError
from noetl_worker.models import Dialect
from noetl_worker.remote.jetstream.api import ask
from noetl_worker.remote.jetstream.client import Client
from noetl_worker.remote.jetstream.consumer import ensure_durable
from noetl_worker.remote.jetstream.start_notes import BUCKET, ensure_bucket
from noetl_worker.settings.settings import Settings, load_settings


@asynccontextmanager
async def set_up(
    tmp_path: Path, config: str = "", stream: Mapping[str, Any] | None = None, durable: Mapping[str, Any] | None = None
) -> AsyncIterator[tuple[Desk, Settings]]:
    """The stream and the durable as the settings want them, but for these fields; and the settings."""
    async with desk(config) as there:
        await there.make_stream(**(stream or {}))
        await there.make_durable(**{"ack_wait": 30 * 10**9, "max_ack_pending": 1000, **(durable or {})})
        yield there, settings(tmp_path, NATS_URL=there.server.url)


DENIED = {
    "subscribe": {"may receive answers": "_INBOX.>"},
    "publish": {
        "may find the stream": "$JS.API.STREAM.NAMES",
        "may look at the stream": f"$JS.API.STREAM.INFO.{STREAM}",
        "may look at the durable": f"$JS.API.CONSUMER.INFO.{STREAM}.{DURABLE}",
        "may make the stream": f"$JS.API.STREAM.CREATE.{STREAM}",
        "may make the durable": f"$JS.API.CONSUMER.CREATE.{STREAM}.{DURABLE}",
        "may pull commands": f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{DURABLE}",
        "may acknowledge commands": f"$JS.ACK.{STREAM}.{DURABLE}.>",
        "may keep dead letters": "noetl.dead_letters",
        "may make the stream of dead letters": "$JS.API.STREAM.CREATE.NOETL_DEAD_LETTERS",
        "may look at the stream of dead letters": "$JS.API.STREAM.INFO.NOETL_DEAD_LETTERS",
        "may read dead letters": "$JS.API.STREAM.MSG.GET.NOETL_DEAD_LETTERS",
        "may read the notes of starts": f"$JS.API.STREAM.MSG.GET.KV_{BUCKET}",
        "may note the start of a command": f"$KV.{BUCKET}.>",
        "may make the bucket of these notes": f"$JS.API.STREAM.CREATE.KV_{BUCKET}",
    },
}


async def test_each_permission_that_is_denied_is_found_by_itself_with_the_grant(tmp_path: Path) -> None:
    cases = [(verb, check, subject) for verb, checks in DENIED.items() for check, subject in checks.items()]
    users = [who_may_not(verb, subject, name=f"u{number}") for number, (verb, _, subject) in enumerate(cases)]
    async with set_up(tmp_path, account_of(*users)) as (there, _):
        for number, (verb, check, subject) in enumerate(cases):
            findings = await nats.examine(settings(tmp_path, NATS_URL=there.url_of(f"u{number}")))
            found = by_check(findings)[check]
            is_warning = "make" in check or BUCKET in subject or "NOETL_DEAD_LETTERS" in subject
            expected = State.WARNING if is_warning else State.WRONG
            assert found.state is expected, (check, findings)
            assert found.wanted == f"{verb} to {subject}"
            assert f'allow: [..., "{subject}"]' in found.fix
            others = [one.check for one in findings if one.check.startswith("may ") and one.state is not State.FINE]
            assert others == [check]


@pytest.mark.parametrize("what", ["stream", "durable"])
async def test_login_that_may_not_make_what_is_missing_is_wrong_and_does_not_start(what: str, tmp_path: Path) -> None:
    denied = DENIED["publish"][f"may make the {what}"]
    async with desk(account_of(who_may_not("publish", denied))) as there:
        ours = settings(tmp_path, NATS_URL=there.url_of("u"))
        found = not_fine(await nats.examine(ours))
        assert found[f"may make the {what}"] is State.WRONG
        assert [check for check, state in found.items() if state is State.WRONG] == [f"may make the {what}"]
        async with connected(ours) as connection:
            with pytest.raises(JetStreamError, match=f'publish to "{re.escape(denied.lower())}"'):
                await ensure_durable(connection.client, ours)


async def test_stream_of_dead_letters_that_may_not_be_looked_at_hides_nothing_else(tmp_path: Path) -> None:
    user = who_may_not("publish", "$JS.API.STREAM.INFO.KEPT", "$JS.API.STREAM.MSG.GET.KEPT")
    async with set_up(tmp_path, account_of(user)) as (there, _):
        await there.ask("STREAM.CREATE.KEPT", {"name": "KEPT", "subjects": [DEAD_LETTERS]})
        found = by_check(await nats.examine(settings(tmp_path, NATS_URL=there.url_of("u"))))
        assert [check for check, one in found.items() if one.state is State.WRONG] == []
        assert found["dead letters"].state is State.UNKNOWN
        assert 'allow: [..., "$JS.API.STREAM.INFO.KEPT"]' in found["may look at the stream of dead letters"].fix
        assert {"stream", "durable", "durable: ack_wait"} <= found.keys()


async def test_trying_the_permissions_leaves_no_note_and_makes_no_bucket(tmp_path: Path) -> None:
    async with set_up(tmp_path) as (there, ours):
        await nats.examine(ours)
        assert await ensure_bucket(there.connection.client)
        await nats.examine(ours)
        notes = await there.ask(f"STREAM.INFO.KV_{BUCKET}")
        assert notes["state"]["last_seq"] == 0


async def test_login_that_is_refused_is_told_as_such(tmp_path: Path) -> None:
    async with NatsServer(config='authorization { user: "a", password: "b" }') as server:
        [found] = await nats.examine(settings(tmp_path, NATS_URL=server.url))
        assert found.state is State.WRONG
        assert "refuses the login" in found.found


async def test_account_without_jetstream_is_told_as_such(tmp_path: Path) -> None:
    config = 'accounts { A { users: [{user: a, password: "b"}] } }'
    async with NatsServer(config=config) as server:
        url = f"nats://a:b@{server.host}:{server.port}"
        found = by_check(await nats.examine(settings(tmp_path, NATS_URL=url)))
        assert found["JetStream"].state is State.WRONG
        assert "not enabled" in found["JetStream"].found


async def test_stream_and_durable_are_compared_field_by_field(tmp_path: Path) -> None:
    async with NatsServer() as server:
        missing = by_check(await nats.examine(settings(tmp_path, NATS_URL=server.url)))
        assert missing["stream"].state is State.WARNING
        assert missing["durable"].state is State.WARNING
        assert missing["clock against NATS"].state is State.UNKNOWN
    changed = {"filter_subjects": None, "filter_subject": "noetl.commands", "ack_wait": 10**9}
    async with set_up(tmp_path, stream={"max_age": 60 * 10**9}, durable=changed) as (_, ours):
        findings = await nats.examine(ours)
        assert not_fine(findings) == {
            "NATS: without a login": State.WARNING,
            "stream: other fields": State.WARNING,
            "durable: filters": State.WRONG,
            "durable: ack_wait": State.WARNING,
        }
        fixes = {one.check: one.fix for one in findings if one.state is not State.FINE}
        assert fixes.pop("stream: other fields") == "noetl-worker nats ensure shows what it takes"
        assert "#permissions-in-nats" in fixes.pop("NATS: without a login")
        assert set(fixes.values()) == {"noetl-worker nats ensure --apply"}


async def test_another_durable_for_the_same_commands_is_named(tmp_path: Path) -> None:
    async with set_up(tmp_path) as (there, _):
        apart = load_settings({"NATS_CONSUMER": "apart", "NATS_FILTER_SUBJECT": "noetl.commands.gpu.>"})
        await ensure_durable(there.connection.client, load_settings({"NATS_CONSUMER": "worker-pool"}))
        await ensure_durable(there.connection.client, apart)
        ours = settings(
            tmp_path, NATS_URL=there.server.url, NATS_FILTER_SUBJECT="noetl.commands.cpu.>", NATS_CONSUMER="cpu"
        )
        found = by_check(await nats.examine(ours))["stream: other durables"]
        assert found.state is State.WARNING
        assert "worker-pool" in found.found
        assert "apart" not in found.found


@pytest.mark.parametrize(
    ("theirs", "is_ours"), [(["noetl.commands.gpu.>"], False), ([], False), (["noetl.commands"], True)], ids=str
)
async def test_durable_of_another_pool_is_not_to_be_changed(theirs: list[str], is_ours: bool, tmp_path: Path) -> None:
    """One that lacks a filter of ours is ours still, and is mended in place."""
    async with set_up(tmp_path, durable={"filter_subjects": theirs}) as (_, ours):
        found = by_check(await nats.examine(ours))["durable: filters"]
        assert found.state is State.WRONG
        assert (found.fix == "noetl-worker nats ensure --apply") is is_ours
        assert ("NATS_FILTER_SUBJECT" in found.fix and "NATS_CONSUMER" in found.fix) is not is_ours
        assert ("ensure" in found.fix) is is_ours


async def test_pull_request_of_nobody_who_is_registered_is_told(tmp_path: Path) -> None:
    async with house(Dialect.RUST, worker=False) as home, connected(load_settings(home.addresses)) as connection:
        ours = settings(tmp_path, **home.addresses)
        await ensure_durable(connection.client, ours)
        await asked(connection.client)
        found = by_check(await nats.examine(ours))["durable: pulled by"]
        assert found.state is State.WARNING
        assert "pull requests waiting: 1, " in found.found
        assert "has 0 workers" in found.found
        home.plane.fault = lambda request: Response(status_code=500)
        assert by_check(await nats.examine(ours))["durable: pulled by"].state is State.FINE
        home.plane.fault = None
        await home.start_worker(WORKER_MAX_CONCURRENT="1")
        await until(lambda: waits_beside(connection.client, 1), "the worker pulls too")
        found = by_check(await nats.examine(ours))["durable: pulled by"]
        assert (found.state, "has 1 workers" in found.found) == (State.WARNING, True)


async def asked(client: Client) -> None:
    """A pull request that stays open."""
    request = json.dumps({"batch": 1, "expires": 60 * 10**9}).encode()
    await client.subscribe("_INBOX.somebody")
    await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{DURABLE}", request, reply="_INBOX.somebody")
    await client.flush()


async def waits_beside(client: Client, others: int) -> bool:
    info = await ask(client, f"CONSUMER.INFO.{STREAM}.{DURABLE}")
    return int(info["num_waiting"]) > others


@pytest.mark.parametrize(
    ("off_s", "state", "said"), [(0, State.FINE, ""), (20, State.WARNING, "ahead"), (-300, State.WRONG, "behind")]
)
async def test_clock_of_nats_is_compared(off_s: float, state: State, said: str, tmp_path: Path) -> None:
    async with set_up(tmp_path) as (_, ours):
        found = by_check(await nats.examine(ours, lambda: time.time() + off_s))["clock against NATS"]
        assert found.state is state
        assert said in found.found


async def test_stream_that_is_named_and_is_none_where_another_has_the_subject_is_wrong(tmp_path: Path) -> None:
    async with set_up(tmp_path) as (there, _):
        ours = settings(tmp_path, NATS_URL=there.server.url, NATS_STREAM="OTHER")
        found = by_check(await nats.examine(ours))["stream"]
        assert found.state is State.WRONG
        assert STREAM in found.found
        assert f"NATS_STREAM={STREAM}" in found.fix
        with pytest.raises(JetStreamError, match=f"(?s)OTHER.*NATS_STREAM={STREAM}"):  # what `run` ends with
            await ensure_durable(there.connection.client, ours)


@pytest.mark.parametrize(("verb", "denied"), [("publish", "$JS.API.STREAM.NAMES"), ("subscribe", "_INBOX.>")])
async def test_login_that_may_not_ask_jetstream_or_hear_it_learns_it_from_the_refusal_and_not_from_a_timeout(
    verb: str, denied: str
) -> None:
    async with (
        desk(account_of(who_may_not(verb, denied))) as there,
        connected(load_settings({"NATS_URL": there.url_of("u")})) as connection,
    ):
        for _ in range(2):
            with pytest.raises(JetStreamError, match="since NATS refuses it"):
                await ask(connection.client, "STREAM.NAMES", timeout_s=1e6)


async def test_stream_that_the_python_plane_makes_itself_is_no_warning(tmp_path: Path) -> None:
    async with set_up(tmp_path) as (there, ours):
        await there.ask("STREAM.UPDATE.NOETL_COMMANDS", {"name": "NOETL_COMMANDS", "subjects": ["noetl.commands"]})
        assert "stream: subjects" in not_fine(await nats.examine(ours))
        assert "stream: subjects" not in not_fine(await nats.examine(ours, is_made_bare=True))
