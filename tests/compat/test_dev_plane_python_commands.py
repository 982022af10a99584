"""Claims, batches, events and executions of the Python plane: every recorded call, each on a plane prepared for it."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest

from compat.dev_plane_replay import ANY_RESULT, Driver, Record, differences, playbook_text, records
from compat.dev_plane_stage import EXECUTION, RECORDED, Stage, file_of
from compat.test_dev_plane_python_groups import GROUPS
from noetl_worker.authoring.dev.event_log import CommandRow
from noetl_worker.authoring.dev.settings import PlaneSettings

NOT_MIRRORED = {
    "identity-root": "the page of the server itself; no worker asks for it",
    "identity-openapi": "no schema is published by a stand-in",
    "identity-probe-metrics": "no metrics of its own",
    "batch-stream": "server-sent events; no worker reads them",
    "large-120k-unbroken-execute": "75 s of work in the real plane on one long word, then 500: a flaw, not a form",
    "claim-race-five-workers-5": "two workers accepted at once: the development plane claims exclusively",
    "claim-503-pool-saturated": "a database pool under load; tests inject 503 by the fault hook",
    "pool-status-saturated": "the same",
    "db-broken-claim": "a database that is gone; tests inject it by the fault hook",
    "db-broken-event": "the same",
    "db-broken-batch": "the same",
    "db-broken-status": "the same",
    "one-step-single-done-first-status": "never ends there; here it does (differs-from-upstream)",
}


def is_in_a_group(case: str) -> bool:
    return any(re.fullmatch(pattern, case) for pattern in GROUPS.values())


CASES = [one for one in RECORDED if one["case"] not in NOT_MIRRORED and not is_in_a_group(one["case"])]
BY_NAME = {one["case"]: one for one in RECORDED}


# ── special situations ──────────────────────────────────────────────────────────────────────────


async def claimed(stage: Stage) -> CommandRow:
    row = await stage.command()
    await stage.driver.claim(row.event_id)
    return row


async def _running(stage: Stage) -> None:
    await stage.driver.started(await claimed(stage))


async def _completed(stage: Stage) -> None:
    await stage.driver.finish(await claimed(stage), ANY_RESULT)


async def _failed(stage: Stage) -> None:
    await stage.driver.finish(await claimed(stage), None, is_ok=False)


async def _cancelled(stage: Stage) -> None:
    await stage.command()
    await stage.driver.send("POST", f"/api/executions/{stage.execution_id}/cancel", {})


async def _locked(stage: Stage) -> None:
    row = await stage.command()
    stage.driver.plane.claims.hold(row.event_id)


async def _by_command_id(stage: Stage) -> None:
    row = await stage.command()
    recorded = re.search(r"/api/commands/(\d+)", stage.record["path"])
    assert recorded is not None
    stage.known[recorded[1]] = row.command_ref


def aged(holder: str, *, is_registered: bool, seconds: float, is_running: bool = False) -> Preparation:
    """A claim of `holder` that many seconds old."""

    async def prepare(stage: Stage) -> None:
        plane = stage.driver.plane
        if is_registered:
            await stage.driver.send("POST", "/api/worker/pool/register", {"name": holder})
        row = await stage.command()
        await stage.driver.claim(row.event_id, holder)
        if is_running:
            await stage.driver.started(row)
        if "deregistered" in stage.record["case"]:
            body = {"name": holder, "component_type": "worker_pool"}
            await stage.driver.send("DELETE", "/api/worker/pool/deregister", body)
        plane.log.db.execute("UPDATE commands SET claimed_at = claimed_at - ?", (seconds,))
        if "stale" in stage.record["case"]:
            for runtime in plane.registry.runtimes.values():
                runtime["heartbeat"] -= 100

    return prepare


Preparation = Callable[[Stage], Awaitable[object]]
SITUATIONS: dict[str, Preparation] = {
    r"claim-409-cache-fast-path|claim-200-again-same-worker|claim-200-extra-fields": claimed,
    r"lease-healthy-claim-b-in-cache": aged("worker-lease-a", is_registered=True, seconds=0),
    r"lease-healthy-claim-b-within-lease": aged("worker-lease-a", is_registered=True, seconds=10),
    r"lease-healthy-claim-b-after-lease": aged("worker-lease-a", is_registered=True, seconds=200),
    r"lease-healthy-claim-a-again": aged("worker-lease-a", is_registered=True, seconds=200),
    r"lease-unregistered-claim-b-within-lease": aged("worker-lease-ghost", is_registered=False, seconds=10),
    r"lease-unregistered-claim-b-reclaimed|lease-command-heartbeat-claim-b-reclaimed": aged(
        "worker-lease-ghost", is_registered=False, seconds=200
    ),
    r"lease-deregistered-claim-b-within-lease": aged("worker-lease-d", is_registered=True, seconds=10),
    r"lease-deregistered-claim-b-reclaimed": aged("worker-lease-d", is_registered=True, seconds=200, is_running=True),
    r"lease-stale-heartbeat-claim-b-reclaimed": aged("worker-lease-a", is_registered=True, seconds=200),
    r"lease-same-worker-running-claim-a-again": aged(
        "worker-lease-a", is_registered=True, seconds=200, is_running=True
    ),
    r"claim-race-five-workers-2": aged("worker-race-0", is_registered=False, seconds=0),
    r"claim-409-worker-status-running": _running,
    r"claim-409-already-terminal-completed|late-started-.*claim-.*again|ack-timeout-claim-again": _completed,
    r"claim-409-already-terminal-failed": _failed,
    r"cancel-.*claim.*": _cancelled,
    r"claim-409-being-claimed": _locked,
    r"claim-by-command-id-404": _by_command_id,
}


def situation_of(case: str) -> Preparation | None:
    return next((prepare for pattern, prepare in SITUATIONS.items() if re.fullmatch(pattern, case)), None)


async def prepare_for_reading(stage: Stage) -> None:
    """Bring the execution to the end (or not) that the recorded answer shows."""
    answer, execution_id = stage.record["resp"], stage.execution_id
    is_cancelled = (
        answer.get("cancelled") or answer.get("status") == "CANCELLED" or "cancel-running" in stage.record["case"]
    )
    if stage.record["path"].endswith("/cancel"):
        if "again" in stage.record["case"]:
            await stage.driver.send("POST", f"/api/executions/{execution_id}/cancel", {})
        elif stage.record["case"] == "cancel-finished":
            await stage.driver.run_to_end(execution_id)
        return
    if is_cancelled:
        if answer.get("current_step"):
            await stage.driver.finish(await claimed(stage), ANY_RESULT)
        await stage.driver.send("POST", f"/api/executions/{execution_id}/cancel", {})
    elif answer.get("failed") or answer.get("status") == "FAILED":
        await stage.driver.run_to_end(execution_id, fails=True)
    elif answer.get("completion_inferred") and answer.get("current_step") is None:
        await _batch_without_actionable(stage)
    elif answer.get("completed") or answer.get("status") == "COMPLETED":
        await stage.driver.run_to_end(execution_id)
    elif answer.get("current_step"):
        await stage.driver.finish(await claimed(stage), ANY_RESULT)
    elif answer.get("event_type") == "batch.completed":
        await stage.driver.started(await claimed(stage))


async def _batch_without_actionable(stage: Stage) -> None:
    """`actionable` defaults to false in a batch: stored, and the status only guesses the end
    (protocol/batches.md#request)."""
    row = await claimed(stage)
    events = [
        {"step": row.node, "name": name, "payload": {"command_id": int(row.command_ref)}}
        for name in ("call.done", "command.completed")
    ]
    body = {"execution_id": str(stage.execution_id), "events": events}
    await stage.driver.send("POST", "/api/events/batch", body)


# ── the replay ──────────────────────────────────────────────────────────────────────────────────


def settings_for(case: str) -> PlaneSettings:
    uncached = case.startswith("lease-") and "in-cache" not in case
    doubled = "single-prefix" in case or "resolve" in case
    return PlaneSettings(claims_cache_ttl_s=-1 if uncached else 30, result_prefix="/api/api" if doubled else "/api")


async def answer_of(record: Record) -> tuple[int, Any, Any]:
    case, path = record["case"], record["path"]
    async with Driver(settings_for(case)) as driver:
        stage = Stage(driver, record)
        if path not in ("/api/execute", "/api/pool/status", "/api/health"):
            await stage.execute()
        elif path == "/api/execute":
            for name in {file_of(record), "child-greeting", "large-workload"}:
                driver.plane.register_playbook(playbook_text(name))
        situation = situation_of(case)
        if situation is not None:
            await situation(stage)
        elif path.startswith("/api/commands/"):
            await stage.command()
        elif path.startswith("/api/events") and "/status" not in path:
            await prepare_for_event(stage)
        elif EXECUTION.match(path):
            await prepare_for_reading(stage)
        if path.startswith("/api/events/batch/"):
            return await batch_status(stage)
        if "resolve" in case:
            return await resolved(stage)
        answer = await stage.send()
        return answer.status_code, answer.json(), answer.headers


async def prepare_for_event(stage: Stage) -> None:
    case = stage.record["case"]
    if case.startswith(("refused-", "accepted-")) and "execution_id" not in json.dumps(stage.record.get("req")):
        return
    if case.endswith(("execution-id-unknown", "not-a-number")):
        stage.known.clear()
        return
    await claimed(stage)
    if case in ("five-events-batch-repeat-same-key", "ack-timeout-repeat-same-key", "idem-same-key-other-body"):
        await stage.send()
    if case == "ack-timeout-batch-503":
        stage.driver.plane.batches.fault = "ack_timeout"
    if case == "queue-no-workers-batch":
        stage.driver.plane.batches.fault = "queue_unavailable"


async def batch_status(stage: Stage) -> tuple[int, Any, Any]:
    """The status of a batch of ours, in the recorded state."""
    is_lost = stage.record["resp"].get("state") == "failed"
    row = await claimed(stage)
    if is_lost:
        stage.driver.plane.batches.fault = "ack_timeout"
    events = [{"step": "start", "name": "command.started", "payload": {"command_id": int(row.command_ref)}}]
    body = {"execution_id": str(stage.execution_id), "events": events}
    posted = (await stage.driver.send("POST", "/api/events/batch", body, headers={"Idempotency-Key": "k"})).json()
    request_id = posted["detail"]["request_id"] if is_lost else posted["request_id"]
    answer = await stage.driver.send("GET", f"/api/events/batch/{request_id}/status")
    return answer.status_code, answer.json(), answer.headers


async def resolved(stage: Stage) -> tuple[int, Any, Any]:
    """Resolve the reference that our own claim answers."""
    field = "render_context" if "render_context" in stage.record["case"] else "input"
    row = stage.driver.open_commands(stage.execution_id)[0]
    context = (await stage.driver.claim(row.event_id)).json()["context"]
    prefix = "/api" if "single-prefix" in stage.record["case"] else "/api/api"
    answer = await stage.driver.client.get(f"{prefix}/result/resolve", params={"ref": context[field]["ref"]})
    return answer.status_code, answer.json(), answer.headers


@pytest.mark.sweep
@pytest.mark.parametrize("case", [one["case"] for one in CASES])
async def test_recorded_call_gets_an_answer_of_the_same_shape(case: str) -> None:
    record = BY_NAME[case]
    status, given, headers = await answer_of(record)
    assert status == record["status"], given
    assert ("retry-after" in headers) == ("retry-after" in record["hdr"])
    assert list(compared(record, given)) == []


def compared(record: Record, given: Any) -> Iterator[str]:
    recorded = record["resp"]
    if isinstance(recorded, dict) and isinstance(recorded.get("events"), list):
        yield from compared_events(record, given)
        recorded = {key: value for key, value in recorded.items() if key != "events"}
        given = {key: value for key, value in given.items() if key in recorded or not record.get("cut")}
        given.pop("events", None)
    if isinstance(recorded, dict) and isinstance(recorded.get("context"), dict):
        yield from differences(
            recorded["context"]["tool_config"], given["context"]["tool_config"], ".tool_config", free=LOOSE
        )
        yield from compared_render_context(recorded["context"]["render_context"], given["context"]["render_context"])
    for line in differences(recorded, given, free=SHALLOW):
        if not (record.get("cut") and line.endswith("not in the recording")):  # the recorder left it out
            yield line


LOOSE = frozenset({"input", "data", "tasks"})
SHALLOW = frozenset({"render_context", "tool_config", "input", "variables", "reclaimed", "message", "context"})
STEP_RESULTS = frozenset({"ctx", "workload", "start", "output", "finish", "iter"})


def compared_render_context(recorded: Any, given: Any) -> Iterator[str]:
    """The keys of a render context; what a step left behind is the tool's."""
    yield from differences(recorded, given, ".render_context", free=STEP_RESULTS)


def compared_events(record: Record, given: Any) -> Iterator[str]:
    """Rows by event type; cut recordings keep only some keys of each row."""
    ours = {event["event_type"]: event for event in given["events"]}
    for event in record["resp"]["events"]:
        if not isinstance(event, dict) or event["event_type"] not in ours:
            continue
        own = ours[event["event_type"]]
        kept = {key: own[key] for key in event if key in own}
        skipped = frozenset({"context", "result", "error"})
        yield from differences(event, kept, f".events[{event['event_type']}]", free=skipped, exact=frozenset())


# ── notifications ───────────────────────────────────────────────────────────────────────────────

NOTIFICATIONS = {one["case"]: one for one in records("python-control-plane-cases") if "nats_subject" in one}


@pytest.mark.parametrize("case", NOTIFICATIONS)
async def test_recorded_notification_has_the_same_shape_and_subject(case: str) -> None:
    recorded = NOTIFICATIONS[case]
    sent: list[tuple[str, bytes]] = []

    class Listener:
        async def publish(self, messages: Sequence[tuple[str, bytes]]) -> bool:
            sent.extend(messages)
            return True

    async with Driver(PlaneSettings()) as driver:
        driver.plane.dispatcher.publisher = Listener()
        driver.plane.dispatcher.server_url = "http://plane"
        execution_id = await driver.execute("task-sequence" if ":" in recorded["body"]["step"] else "one-step")
        if case == "republish-nats-reaper":
            await driver.plane.publish_again(driver.plane.commands(execution_id)[0].event_id, as_text=True)
        if case == "republish-nats-publish-recovery":
            await driver.plane.publish_again(driver.plane.commands(execution_id)[0].event_id)
    subject, body = sent[-1][0], json.loads(sent[-1][1])
    assert subject == recorded["nats_subject"]
    assert list(differences(recorded["body"], body, exact=frozenset())) == []
    assert list(body) == list(recorded["body"])
