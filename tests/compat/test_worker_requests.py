"""Our requests against the recorded ones: the same keys, types and order for the same commands.

Shape means keys and types, not the contents of `response` and `context` (which are the tool's).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from compat.dev_plane_replay import SAMPLES, records
from integration.leak_stage import Alive, Message
from noetl_worker.models import Dialect, Envelope, Report
from noetl_worker.models.disposition import Answer
from noetl_worker.models.slots import Slots
from noetl_worker.observability.probes import Health
from noetl_worker.pipeline.command.claimed_command import WorkerServices
from noetl_worker.pipeline.command.command import hydrate
from noetl_worker.pipeline.delivery.in_flight import InFlight
from noetl_worker.pipeline.executor import Executor
from noetl_worker.pipeline.report.events import CommandEvents
from noetl_worker.remote.plane.client import ControlPlaneClient, Plane
from noetl_worker.remote.plane.identity import Identity
from noetl_worker.remote.plane.plane_watch import HeartbeatWatch
from noetl_worker.remote.plane.registration import Registration
from noetl_worker.tools.registry import Registry
from unit.planes import URL, Ours, ScriptedTransport, answer, emitter, settings

RUST_CASES = {one["case"]: one for one in records("rust-control-plane-cases")}
CASES = {**RUST_CASES, **{one["case"]: one for one in records("python-control-plane-cases")}}
OK = Report(status="success", context={"ok": True}, response={"ok": True})
FAILED = Report(status="error", context={"error": "boom"}, response={"error": "boom"}, error="boom")
NOTED = replace(OK, notes={"output": {"stdout": "hello", "stderr": ""}})
CONTENT = {"response", "context"}


def shape(value: Any, key: str = "") -> Any:
    """Keys and types; what a tool put in is left out; every place in a list counts."""
    if key in CONTENT and not (isinstance(value, dict) and "command_id" in value):
        return "content"
    if isinstance(value, dict):
        return {name: shape(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value).__name__


def accept(method: str, path: str, body: Any) -> Any:
    if path == "/api/events/batch":
        return answer(202, {"status": "accepted", "event_ids": [5, 6]})
    if path.startswith("/api/result"):
        return answer(200, {"ref": "noetl://r/1", "store": "kv", "scope": "execution", "bytes": 1, "sha256": "x"})
    return answer(200, {"status": "ok", "event_id": 7})


async def sent_for(claim: str, report: Report, dialect: Dialect, *, slow: bool = False) -> list[tuple[str, Any]]:
    """What we POST for a recorded claim: [(path, body)]."""
    transport = ScriptedTransport(accept)
    plane = Plane(ControlPlaneClient(transport, settings()), URL, dialect)
    body = CASES[claim]["resp"]
    command_id = body["meta"]["command_id"]
    envelope = Envelope(body["execution_id"], body["event_id"], command_id, body["node_name"], URL, None, None)
    command = await hydrate(body, envelope, plane)
    hold_s = 0.0 if slow else 5.0
    told = CommandEvents(command, plane, "worker-rec-a", emitter(), hold_s=hold_s)
    told.start()
    if slow:
        while not transport.sent:
            await asyncio.sleep(0)
    await told.finish(report, Ours())
    return [(path, sent) for _, path, sent, _ in transport.sent]


@pytest.mark.parametrize(
    ("report", "batches"),
    [
        (OK, ["five-events-batch"]),
        (NOTED, ["noted-batch"]),
        (OK, ["tool-python-batch-started", "tool-python-batch-ok-start"]),
        (FAILED, ["tool-python-batch-started", "claim-conflicts-batch-failed"]),
        (FAILED, ["tool-python-batch-started", "arcs-on-error-batch-failed"]),
    ],
    ids=["fast", "noted", "slow", "failed", "failed beside an arc for it"],
)
async def test_batches_of_a_command_have_the_recorded_shapes(report: Report, batches: list[str]) -> None:
    sent = await sent_for("tool-python-claim-start", report, Dialect.PYTHON, slow=len(batches) == 2)
    for (path, body), recorded in zip(sent, map(CASES.__getitem__, batches), strict=True):
        assert path == recorded["path"]
        assert shape(body) == shape(recorded["req"])
        for key in ("name", "actionable"):
            assert [one[key] for one in body["events"]] == [one[key] for one in recorded["req"]["events"]]


@pytest.mark.parametrize(
    ("claim", "recorded"),
    [
        ("loop-sequential-claim", "loop-sequential-batch-ok"),
        ("loop-parallel-claim", "loop-parallel-batch-ok"),
        ("task-sequence-claim", "task-sequence-batch-ok"),
        ("loop-sequence-body-claim", "loop-sequence-body-batch-ok"),
        ("step-set-claim", "step-set-batch-ok"),
    ],
)
async def test_batch_of_a_loop_or_sequence_echoes_what_the_recorded_one_echoes(claim: str, recorded: str) -> None:
    _, (_, ended) = await sent_for(claim, OK, Dialect.PYTHON, slow=True)
    expected = CASES[recorded]["req"]
    assert shape(ended) == shape(expected)
    for ours, theirs in zip(ended["events"], expected["events"], strict=True):
        assert ours["step"] == theirs["step"]
        assert ours.get("meta") == theirs.get("meta")
        for key in ("command_id", "loop_event_id", "loop_iteration_index"):
            assert ours["payload"].get(key) == theirs["payload"].get(key)


@pytest.mark.parametrize("name", ["failing-shell-1", "loop-parallel-2", "loop-parallel-1"])
async def test_fast_command_on_the_rust_plane_has_the_recorded_split_shape(name: str) -> None:
    command_id = CASES[f"batch-split-{name}-claim"]["resp"]["meta"]["command_id"]
    report = Report(status="success", context={"status": "success", "data": {}, "command_id": command_id})
    (batch_path, batch), (single_path, single) = await sent_for(f"batch-split-{name}-claim", report, Dialect.RUST)
    recorded_batch, recorded_single = CASES[f"batch-split-{name}-batch"], CASES[f"batch-split-{name}-completed"]
    assert (batch_path, single_path) == (recorded_batch["path"], recorded_single["path"])
    assert single["context"].pop("result", None) == (None if "loop" in name and name[-1] != "1" else _result_in(batch))
    assert shape(single) == shape(_without_time(recorded_single["req"]))
    ours, theirs = batch["events"], recorded_batch["req"]["events"]
    assert [one["name"] for one in ours] == [one["name"] for one in theirs]
    assert {*batch} == {*recorded_batch["req"]}
    for event, expected in zip(ours, theirs, strict=True):
        assert {*event} == {*expected}
        assert {*event["payload"]} == {*expected["payload"]}
        # `attempts` is what the recorded worker's single events carry; this plane drops a batch's meta
        # (protocol/events.md#rust-plane)
        assert {*event["meta"]} >= {*expected["meta"]}


async def test_slow_events_on_the_rust_plane_have_the_recorded_shapes() -> None:
    *batches, (_, completed) = await sent_for("claim", OK, Dialect.RUST, slow=True)
    # One alone goes as a batch, which takes its ids from the plane (remote/plane/rust/rules.py).
    for (path, batch), name in zip(batches, ("event-started", "event-call-done"), strict=True):
        [event], expected = batch["events"], CASES[name]["req"]
        assert (path, event["name"]) == ("/api/events/batch", expected["event_type"])
        assert {*event["payload"]} == {*expected["context"]}
        assert shape(event["meta"]) == shape(expected["meta"])
    expected = _without_time(CASES["event-completed"]["req"])
    assert completed["context"].pop("result") == _result_in(batches[-1][1])
    assert {*completed} == {*expected}
    assert {*completed["context"]} == {*expected["context"]}
    assert shape(completed["meta"]) == shape(expected["meta"])
    assert (completed["event_type"], completed["status"]) == (expected["event_type"], expected["status"])
    assert completed["event_id"] > CASES["claim"]["resp"]["event_id"]


async def test_failure_on_the_rust_plane_has_the_recorded_shapes() -> None:
    _, (_, batch), (_, failed) = await sent_for("claim", FAILED, Dialect.RUST, slow=True)
    [error], expected = batch["events"], CASES["fail-call-error"]["req"]
    assert error["name"] == expected["event_type"]
    assert shape(error["payload"]) == shape(expected["context"])
    expected = _without_time(CASES["fail-command-failed"]["req"])
    assert {*failed} == {*expected}
    assert shape(failed["context"]) == shape(expected["context"])
    assert failed["event_type"] == expected["event_type"]


def _result_in(batch: dict[str, Any]) -> Any:
    """The end of a command that is no item of a loop has it too: the plane can miss the one in call.done."""
    return batch["events"][-1]["payload"]["result"]


def _without_time(event: dict[str, Any]) -> dict[str, Any]:
    """The plane gives it its own: it compares the times of steps, and has one clock."""
    return {name: value for name, value in event.items() if name != "created_at"}


# ── the rest of the client's surface ──


async def calls(dialect: Dialect) -> dict[str, tuple[str, str, Any]]:
    transport = ScriptedTransport(accept)
    plane = Plane(ControlPlaneClient(transport, settings()), URL, dialect)
    registration = Registration(plane, settings(), "worker-rec-a", HeartbeatWatch(plane.url, Health()))
    await registration.register()
    await registration.heartbeat()
    await registration.deregister()
    await plane.set_vars(7, {"a": 1}, "start")
    await plane.put_result(7, "start", b'{"rows":[1]}', source_step="start")
    await plane.claim(9, "worker-rec-a")
    names = ("register", "heartbeat", "deregister", "vars-set", "result-put", "claim")
    told = [sent for sent in transport.sent if sent[0] != "GET"]  # where the store is (Python plane)
    return {name: sent[:3] for name, sent in zip(names, told, strict=True)}


@pytest.mark.parametrize(
    ("dialect", "name", "recorded"),
    [
        (Dialect.PYTHON, "register", "runtime-register"),
        # its heartbeat logs a warning for each (protocol/registry.md#heartbeat)
        (Dialect.PYTHON, "heartbeat", "runtime-register"),
        (Dialect.PYTHON, "deregister", "runtime-deregister-delete"),
        (Dialect.PYTHON, "vars-set", "vars-set"),
        (Dialect.PYTHON, "claim", "tool-python-claim-start"),
        (Dialect.RUST, "register", "register"),
        (Dialect.RUST, "heartbeat", "heartbeat"),
        (Dialect.RUST, "deregister", "deregister-delete"),
        (Dialect.RUST, "result-put", "result-put"),
        (Dialect.RUST, "claim", "claim"),
    ],
)
async def test_call_has_the_recorded_keys(dialect: Dialect, name: str, recorded: str) -> None:
    method, _, body = (await calls(dialect))[name]
    case = (CASES if dialect is Dialect.PYTHON else RUST_CASES)[recorded]
    assert (method, {*body}) == (case["method"], {*case["req"]})


async def test_result_for_the_python_plane_has_the_recorded_keys_and_its_time_to_live() -> None:
    method, _, body = (await calls(Dialect.PYTHON))["result-put"]
    recorded, with_all = CASES["result-put"], CASES["result-put-all"]["req"]
    assert (method, {*body}) == (recorded["method"], {*recorded["req"], "ttl"})
    assert re.fullmatch(r"\d+h", body["ttl"])
    assert re.fullmatch(r"\d+h", with_all["ttl"])


async def test_registration_and_variables_for_the_rust_plane_have_recorded_keys_alone() -> None:
    ours = await calls(Dialect.RUST)
    rows = RUST_CASES["vars-set"]["req"]["variables"]
    assert {*ours["vars-set"][2]["variables"][0]} <= {key for row in rows for key in row}
    assert "kind" not in ours["register"][2]


# ── every recorded claim, through the whole pipeline ──


def recorded_claims() -> list[tuple[str, Mapping[str, Any], Dialect]]:
    found: dict[str, tuple[str, Mapping[str, Any], Dialect]] = {}
    for path in sorted(SAMPLES.glob("*.jsonl")):
        dialect = Dialect.RUST if path.name.startswith("rust") else Dialect.PYTHON
        for number, line in enumerate(path.read_text().splitlines()):
            one = json.loads(line)
            if one.get("path", "").endswith("/claim") and one.get("status") == 200 and "cut" not in one:
                body = one["resp"]
                key = f"{body['event_id']}"
                found.setdefault(key, (one.get("case") or f"{path.stem}-{number}", body, dialect))
    return list(found.values())


CLAIMS = recorded_claims()


@pytest.fixture(scope="module")
async def registry(anyio_backend: Any) -> AsyncIterator[Registry]:
    """One for all claims, as a worker has it: its template and what it has loaded are there for the next."""
    tools = Registry(plugins=False)
    yield tools
    await tools.aclose()


@pytest.mark.parametrize(("case", "body", "dialect"), CLAIMS, ids=[case for case, _, _ in CLAIMS])
async def test_recorded_command_ends_in_one_terminal_set_and_an_ack(
    case: str, body: Any, dialect: Dialect, registry: Registry
) -> None:
    def script(method: str, path: str, sent: Any) -> Any:
        if path.endswith("/claim"):
            return answer(200, body)
        if path == "/api/execute":
            return answer(200, {"execution_id": "8", "status": "started", "commands_generated": 1})
        if path == "/api/executions/8/status":
            ended = {"completed_steps": ["end"], "variables": {"end": {"ok": True}}, "failed": False}
            return answer(200, {"execution_id": "8", "status": "COMPLETED", "completed": True, **ended})
        if path.startswith(("/api/credentials", "/api/keychain", "/api/result/resolve", "/api/api/result")):
            return answer(404, {"detail": "not recorded"})
        return accept(method, path, sent)

    transport = ScriptedTransport(script)
    variables = {"NOETL_CONTROL_PLANE": dialect.value, "NOETL_WORKER_STARTED_HOLD_MS": "10000"}
    ours = settings(NOETL_WORKER_COMMAND_TIMEOUT_S="5", **variables)

    services = WorkerServices(ours, Identity(ours), registry, InFlight(), Alive(), emitter(), Slots(4))  # type: ignore[arg-type]
    execution = Executor(ControlPlaneClient(transport, ours), services)
    notification = {
        "execution_id": body["execution_id"],
        "event_id": body["event_id"],
        "step": body["node_name"],
        "command_id": body["meta"]["command_id"],
        "server_url": URL,
    }
    disposition = await execution.run(Message(json.dumps(notification).encode(), 1))  # type: ignore[arg-type]
    assert disposition.answer is Answer.ACK
    told = [event["name"] for one in transport.bodies("/api/events/batch") for event in one["events"]]
    told += [one["event_type"] for one in transport.bodies("/api/events")]
    terminal = [name for name in told if name in ("command.completed", "command.failed")]
    assert len(terminal) == 1, told
    assert len(transport.sent) <= 20
