"""A stop at every moment of a command: at most one terminal set, and always one answer to JetStream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from noetl_worker import handover
from noetl_worker.claimed_command import Workplace
from noetl_worker.control_plane.client import ControlPlaneClient
from noetl_worker.control_plane.transport import Response
from noetl_worker.errors import NotSent
from noetl_worker.execution import Execution
from noetl_worker.identity import Identity
from noetl_worker.in_flight import InFlight
from noetl_worker.models import Dialect, Outcome, Settlement
from noetl_worker.slots import Slots
from noetl_worker.tools.registry import Registry
from unit.planes import ENVELOPE, URL, ScriptedTransport, answer, emitter, settings

COMMAND_ID = {Dialect.PYTHON: ENVELOPE.command_id, Dialect.RUST: "7:start:9"}


@dataclass
class Beats:
    expired: bool = False

    def is_expired(self, reply: str) -> bool:
        return self.expired


class Delivery:
    reply, subject, stream_sequence, num_delivered, received_at = "r", "noetl.commands", 1, 1, 0.0

    def __init__(self, data: bytes) -> None:
        self.data = data

    def age_s(self) -> float:
        return 1.0


class Gated(ScriptedTransport):
    """Holds the k-th request of the command until it is let go."""

    def __init__(self, script: Any, hold: int) -> None:
        super().__init__(script)
        self.hold, self.reached, self.go = hold, asyncio.Event(), asyncio.Event()

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout_s: float
    ) -> Response:
        said = await super().send(method, url, headers, body, timeout_s)
        if len(self.sent) == self.hold:
            self.reached.set()
            await self.go.wait()
        return said


def script_for(dialect: Dialect, config: Mapping[str, Any], action: str) -> Any:
    def script(method: str, path: str, body: Any) -> Any:
        if path.endswith("/claim"):
            meta = {"command_id": COMMAND_ID[dialect]}
            context = {"tool_config": dict(config), "input": {}}
            return answer(
                200,
                {
                    "execution_id": ENVELOPE.execution_id,
                    "event_id": ENVELOPE.event_id,
                    "node_name": "start",
                    "action": action,
                    "context": context,
                    "meta": meta,
                },
            )
        return answer(202, {"event_ids": [5]}) if "batch" in path else answer(200, {"event_id": 7})

    return script


def execution(transport: Any, dialect: Dialect, beats: Beats, **variables: str) -> Execution:
    ours = settings(NOETL_CONTROL_PLANE=dialect.value, **variables)
    client = ControlPlaneClient(transport, ours)
    workplace = Workplace(ours, Identity(ours), Registry(plugins=False), InFlight(), beats, emitter(), Slots(4))  # type: ignore[arg-type]
    return Execution(client, workplace)


def delivery(dialect: Dialect, **changes: Any) -> Any:
    body = {
        "execution_id": ENVELOPE.execution_id,
        "event_id": ENVELOPE.event_id,
        "step": "start",
        "command_id": COMMAND_ID[dialect],
        "server_url": URL,
        **changes,
    }
    return Delivery(json.dumps(body).encode())


def terminal(transport: ScriptedTransport) -> list[str]:
    told = [event["name"] for body in transport.bodies("/api/events/batch") for event in body["events"]]
    told += [body["event_type"] for body in transport.bodies("/api/events")]
    return [name for name in told if name in ("command.completed", "command.failed")]


def stopped_at(hold: int, dialect: Dialect, *, let_go: bool, **variables: str) -> tuple[Outcome | None, Any]:
    async def go() -> tuple[Outcome | None, Any]:
        transport = Gated(script_for(dialect, {}, "noop"), hold)
        whole = execution(transport, dialect, Beats(), NOETL_WORKER_STARTED_HOLD_MS="0", **variables)
        task = asyncio.ensure_future(whole.run(delivery(dialect)))
        await transport.reached.wait()
        task.cancel()
        if let_go:
            asyncio.get_running_loop().call_later(0.05, transport.go.set)
        try:
            return await task, transport
        finally:
            transport.go.set()
            await whole.workplace.registry.aclose()

    return asyncio.run(go())


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "GRACE_S", 0.3)


@pytest.mark.parametrize("let_go", [True, False], ids=["answer comes", "answer never comes"])
@pytest.mark.parametrize("worker_id", ["stable", ""], ids=["with WORKER_ID", "without"])
@pytest.mark.parametrize(
    ("dialect", "hold"), [(Dialect.PYTHON, 1), (Dialect.PYTHON, 2), *((Dialect.RUST, k) for k in (1, 2, 3))]
)
def test_stop_at_any_request_gives_one_answer_and_at_most_one_terminal_set(
    dialect: Dialect, hold: int, worker_id: str, let_go: bool
) -> None:
    outcome, transport = stopped_at(hold, dialect, let_go=let_go, WORKER_ID=worker_id)
    assert outcome is not None
    ended = terminal(transport)
    assert len(ended) <= 1
    if outcome.settlement is Settlement.ACK:
        assert len(ended) == 1
    if not let_go and hold == 1:
        assert outcome.settlement is Settlement.NAK


def test_stop_while_the_last_event_is_under_way_waits_for_it_and_acks() -> None:
    outcome, transport = stopped_at(3, Dialect.RUST, let_go=True)
    assert outcome is not None
    assert outcome.settlement is Settlement.ACK
    assert terminal(transport) == ["command.completed"]


def test_tool_that_raises_late_reports_its_start_once() -> None:
    async def go() -> ScriptedTransport:
        transport = ScriptedTransport(script_for(Dialect.RUST, {"url": "http://127.0.0.1:9/"}, "http"))
        whole = execution(transport, Dialect.RUST, Beats(), NOETL_WORKER_STARTED_HOLD_MS="0")
        await whole.run(delivery(Dialect.RUST))
        await whole.workplace.registry.aclose()
        return transport

    transport = asyncio.run(go())
    told = [body["event_type"] for body in transport.bodies("/api/events")]
    told += [event["name"] for body in transport.bodies("/api/events/batch") for event in body["events"]]
    assert told.count("command.started") == 1
    assert terminal(transport) == ["command.failed"]


@pytest.mark.parametrize("url", ["nonsense", "http://a b/", "http://[bad", "http://h:99999", "ftp://x/"])
@pytest.mark.parametrize("transport", ["httpx", "pyreqwest"])
def test_notification_with_a_server_url_that_is_none_is_answered_and_never_raises(url: str, transport: str) -> None:
    if transport == "pyreqwest":
        pytest.importorskip("pyreqwest")
    from noetl_worker.control_plane.transport import open_transport

    async def go() -> Outcome | None:
        real = open_transport(settings(NOETL_WORKER_HTTP_TRANSPORT=transport))
        whole = execution(real, Dialect.PYTHON, Beats())
        try:
            return await whole.run(delivery(Dialect.PYTHON, server_url=url))
        finally:
            await real.close()

    outcome = asyncio.run(go())
    assert outcome is not None
    assert outcome.settlement is Settlement.NAK
    assert outcome.delay_s > 0
    assert outcome.detail["execution_id"] == ENVELOPE.execution_id


@pytest.mark.parametrize("still_ours", [True, False])
def test_expired_delivery_asks_the_claim_before_it_tells_the_outcome(still_ours: bool) -> None:
    claims: list[int] = []

    def script(method: str, path: str, body: Any) -> Any:
        if path.endswith("/claim"):
            claims.append(1)
            if len(claims) == 2:
                return NotSent("refused")  # not knowing is no reason to throw a result away
            if len(claims) == 3 and still_ours:
                return answer(409, {"detail": {"code": "active_claim", "worker_status": "running"}})
            if len(claims) == 3:
                return answer(409, {"detail": {"code": "active_claim", "worker_id": "other"}})
        return script_for(Dialect.PYTHON, {}, "noop")(method, path, body)

    async def go() -> tuple[Outcome | None, ScriptedTransport]:
        transport = ScriptedTransport(script)
        whole = execution(transport, Dialect.PYTHON, Beats(expired=True))
        return await whole.run(delivery(Dialect.PYTHON)), transport

    outcome, transport = asyncio.run(go())
    assert outcome is not None
    if still_ours:
        assert (outcome.settlement, len(terminal(transport))) == (Settlement.ACK, 1)
    else:
        assert (outcome.reason, terminal(transport)) == ("held_by_other", [])


def test_bearer_token_goes_to_the_configured_servers_only() -> None:
    async def go() -> list[Mapping[str, str]]:
        transport = ScriptedTransport(lambda *_: answer(200, {}))
        trusted = settings(NOETL_INTERNAL_API_TOKEN="t0ken", NOETL_WORKER_TRUSTED_SERVERS="http://second.test")
        client = ControlPlaneClient(transport, trusted)
        for url in (URL, "http://second.test", "http://evil.test", f"{URL}.evil.test"):
            await client.send("GET", f"{url}/api/health")
        return [headers for *_, headers in transport.sent]

    assert ["authorization" in headers for headers in asyncio.run(go())] == [True, True, False, False]


def test_secret_reference_in_the_input_is_resolved_for_the_tool() -> None:
    def script(method: str, path: str, body: Any) -> Any:
        if path.startswith("/api/keychain"):
            return answer(200, {"status": "success", "token_data": {"token": "s3cr3t-token"}})
        if path.endswith("/claim"):
            reference = {"$noetl_ref": {"kind": "keychain", "name": "k", "field": "token"}}
            context = {"tool_config": {"result": "{{ pass_on }}"}, "input": {"pass_on": reference}}
            meta = {"command_id": 5, "catalog_id": "9"}
            return answer(
                200, {"execution_id": 1, "node_name": "s", "action": "noop", "context": context, "meta": meta}
            )
        return answer(202, {"event_ids": []})

    async def go() -> ScriptedTransport:
        transport = ScriptedTransport(script)
        await execution(transport, Dialect.PYTHON, Beats()).run(delivery(Dialect.PYTHON))
        return transport

    transport = asyncio.run(go())
    assert [path.partition("?")[0] for _, path, _, _ in transport.sent][1] == "/api/keychain/9/k"
    done = transport.bodies("/api/events/batch")[0]["events"][2]
    assert done["name"] == "call.done"
    assert "s3cr3t-token" not in json.dumps(transport.bodies("/api/events/batch"))
    assert done["payload"]["response"] == "[REDACTED]"
