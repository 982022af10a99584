"""Claims, batches, events and executions of the Python plane: every recorded call, each on a plane prepared for it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from compat.dev_plane_replay import (
    ANY_RESULT,
    PLAYBOOKS,
    Driver,
    Record,
    differences,
    meta_of,
    records,
    substitute,
    workload_of,
)
from compat.test_dev_plane_python_groups import GROUPS
from noetl_worker.dev.event_log import CommandRow
from noetl_worker.dev.settings import PlaneSettings

RECORDED = [record for record in records("python-control-plane-cases") if "method" in record]
EXECUTION = re.compile(r"/api/executions/(\d+)(?:/([a-z-]+))?")

NOT_MIRRORED = {
    "identity-root": "the page of the server itself; no worker asks for it",
    "identity-openapi": "no schema is published by a stand-in",
    "identity-probe-metrics": "no metrics of its own",
    "batch-stream": "server-sent events; no worker reads them",
    "large-120k-unbroken-execute": "75 s of work in the real plane on one long word, then 500: a flaw, not a form",
    "claim-race-five-workers-5": "two workers let in at once: the development plane claims exclusively",
    "claim-503-pool-saturated": "a database pool under load; tests inject 503 by the fault hook",
    "pool-status-saturated": "the same",
    "db-broken-claim": "a database that is gone; tests inject it by the fault hook",
    "db-broken-event": "the same",
    "db-broken-batch": "the same",
    "db-broken-status": "the same",
    "one-step-single-done-first-status": "never ends there; here it does (differs-from-upstream)",
    "loop-empty-status-final": "runs for ever there; here an empty loop is passed (differs-from-upstream)",
    "tool-missing-status": "runs for ever there; here a step without a tool is passed (differs-from-upstream)",
}
SKIPPED_GROUPS = tuple(pattern for pattern in GROUPS.values())


def is_in_a_group(case: str) -> bool:
    return any(re.fullmatch(pattern, case) for pattern in SKIPPED_GROUPS)


CASES = [one for one in RECORDED if one["case"] not in NOT_MIRRORED and not is_in_a_group(one["case"])]
BY_NAME = {one["case"]: one for one in RECORDED}


# ── what a recording says about itself ──────────────────────────────────────────────────────────


def paths_by_execution() -> dict[str, str]:
    """Recorded execution id -> playbook file, from every answer that tells, catalog ids included."""
    known: dict[str, str] = {}
    by_catalog: dict[str, str] = {}
    catalog_of: dict[str, str] = {}
    for record in RECORDED:
        answer = record["resp"] if isinstance(record["resp"], dict) else {}
        if record["path"] == "/api/execute" and record["status"] == 200 and isinstance(record["req"], dict):
            known[answer["execution_id"]] = str(record["req"]["path"])
        elif isinstance(answer.get("path"), str) and "execution_id" in answer:
            known[str(answer["execution_id"])] = answer["path"]
        seen = answer.get("context") if isinstance(answer.get("context"), dict) else {}
        catalog_id = (answer.get("meta") or {}).get("catalog_id") or (seen.get("render_context") or {}).get(
            "catalog_id"
        )
        if catalog_id and "execution_id" in answer:
            catalog_of[str(answer["execution_id"])] = catalog_id
        name = file_by_prefix(record["case"])
        if name is not None and "execution_id" in answer:
            known.setdefault(str(answer["execution_id"]), f"rec/{name}")
    for execution_id, catalog_id in catalog_of.items():
        if execution_id in known:
            by_catalog[catalog_id] = known[execution_id]
    for execution_id, catalog_id in catalog_of.items():
        if catalog_id in by_catalog:
            known[execution_id] = by_catalog[catalog_id]
    return {execution_id: path.removeprefix("rec/") for execution_id, path in known.items()}


def file_by_prefix(case: str) -> str | None:
    names = sorted((path.stem for path in PLAYBOOKS.glob("*.yaml")), key=len, reverse=True)
    return next((name for name in names if case.removeprefix("pyworker-").startswith(name)), None)


FILES = paths_by_execution()
DEFAULT_FILE = "two-steps"
"""The recorder's playbook for everything about claims, events and batches."""


def execution_of(record: Record) -> str:
    found = EXECUTION.match(record["path"])
    if found:
        return found[1]
    for body in (record.get("req"), record["resp"]):
        if isinstance(body, dict) and "execution_id" in body:
            return str(body["execution_id"])
    return ""


def file_of(record: Record) -> str:
    found = FILES.get(execution_of(record)) or file_by_prefix(record["case"])
    if record["case"].startswith("seq-"):
        return "task-sequence"
    if found is None or not (PLAYBOOKS / f"{found}.yaml").exists():
        return DEFAULT_FILE
    return found


# ── preparing ───────────────────────────────────────────────────────────────────────────────────


class Stage:
    """One plane, brought to where a recorded call was made."""

    def __init__(self, driver: Driver, record: Record) -> None:
        self.driver, self.record = driver, record
        self.known: dict[Any, Any] = {}
        self.execution_id = 0

    async def execute(self) -> None:
        name = file_of(self.record)
        for other in {"child-greeting", name}:
            self.driver.plane.register_playbook((PLAYBOOKS / f"{other}.yaml").read_text(encoding="utf-8"))
        seen = (self.record["resp"].get("context") or {}) if isinstance(self.record["resp"], dict) else {}
        self.execution_id = await self.driver.execute(name, self._payload(name, seen))
        recorded = execution_of(self.record)
        if recorded.isdigit():
            self.known[recorded] = str(self.execution_id)
            self.known[int(recorded)] = self.execution_id

    def _payload(self, name: str, context: Any) -> dict[str, Any]:
        """What the recorder passed beside the playbook's own workload, as far as a claim shows it."""
        case = self.record["case"]
        if case.startswith(("large-9k", "large-120k", "pyworker-large")):
            return {"blob": "lorem ipsum " * (750 if "9k" in case else 10_000)}
        defaults = workload_of(name)
        given = context.get("input") if isinstance(context, dict) else None
        if not isinstance(given, dict) or not self.record["resp"].get("meta", {}).get("attempt"):
            return {"score": 2} if "low" in case else {}
        return {key: given[key] for key in given if key in defaults and given[key] != defaults[key]} | (
            {"both": "from-payload", "extra": 1} if "extra" in given else {}
        )

    async def command(self) -> CommandRow:
        """The command the recorded call is about: what comes before it is finished with the recorded results."""
        node, index, known_results, is_after_error = self._target()
        for _ in range(12):
            rows = self.driver.open_commands(self.execution_id)
            for row in rows:
                if row.node == node and meta_of(row).get("loop_iteration_index") == index:
                    return self._noted(row)
            assert rows, f"no command for {node} {index}"
            step = rows[0].node.partition(":")[0]
            given = known_results.get(step, ANY_RESULT)
            await self.driver.claim(rows[0].event_id)
            await self.driver.finish(
                rows[0],
                {"pad": "x" * 110_000} if self.record["case"].startswith("context-110000") else without_alias(given),
                is_ok=not is_after_error,
                is_single="trigger_step" in (self.record["resp"].get("meta") or {}),
                node=step if self.record["case"].startswith("seq-plain-name") else None,
            )
        raise AssertionError(f"never came to {node} {index}")

    def _target(self) -> tuple[str, int | None, dict[str, Any], bool]:
        body, answer = self.record.get("req"), self.record["resp"]
        if "/api/commands/" in self.record["path"] and "node_name" in answer:
            context = answer["context"].get("render_context", {})
            meta = answer["meta"]
            node = answer["node_name"]
            return node, meta.get("loop_iteration_index"), context, meta.get("triggered_by") == "call.error"
        if isinstance(body, dict) and isinstance(body.get("events"), list) and body["events"]:
            first = body["events"][0]
            payload = first.get("payload", {})
            node = self._node(first["step"])
            return node, self._index(payload.get("loop_iteration_index")), {}, node == "rescue"
        if isinstance(body, dict) and ("step" in body or "node_name" in body):
            return self._node(body.get("step") or body.get("node_name") or "start"), self._index(None), {}, False
        return self._node("start"), self._index(None), {}, False

    def _node(self, step: str) -> str:
        """Odd recordings name another step than the command they answer."""
        if self.record["case"] in ("odd-call-done-unknown-step", "refused-single-no-step"):
            return "start"
        return "start:task_sequence" if file_of(self.record) == "task-sequence" and step == "start" else step

    def _index(self, given: int | None) -> int | None:
        is_loop = file_of(self.record).startswith("loop") and self._node("start") == "start"
        return 0 if given is None and is_loop else given

    def _noted(self, row: CommandRow) -> CommandRow:
        self.known[int(row.command_ref)] = int(row.command_ref)
        for recorded in self._recorded_command_ids():
            is_text = isinstance(recorded, str)
            self.known[recorded] = row.command_ref if is_text else int(row.command_ref)
        if found := re.search(r"/api/commands/(\d+)", self.record["path"]):
            self.known[found[1]] = str(row.event_id)
            self.known[int(found[1])] = row.event_id
        epoch_id = meta_of(row).get("loop_event_id")
        for recorded in loop_epochs(self.record.get("req")):
            self.known[recorded] = epoch_id
        return row

    def _recorded_command_ids(self) -> Iterator[Any]:
        body = self.record.get("req")
        entries = body.get("events", [body]) if isinstance(body, dict) else []
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict):
                payload = entry.get("payload") or entry.get("context") or {}
                if "command_id" in payload and not str(payload["command_id"]).endswith("unknown"):
                    yield payload["command_id"]
                    if str(payload["command_id"]).isdigit():
                        yield int(payload["command_id"])

    async def send(self) -> Any:
        record = self.record
        path = record["path"]
        for old, new in self.known.items():
            if isinstance(old, str) and old.isdigit():
                path = path.replace(old, str(new))
        body = expand(substitute(record.get("req"), self.known))
        return await self.driver.send(record["method"], path, body, headers=self._headers())

    def _headers(self) -> Any:
        """The recorded headers; some recordings keep only the key that the answer repeats."""
        answer = self.record["resp"]
        if "reqh" not in self.record and isinstance(answer, dict) and answer.get("idempotency_key"):
            return {"Idempotency-Key": answer["idempotency_key"]}
        return self.record.get("reqh")


def without_alias(value: Any) -> Any:
    if isinstance(value, dict) and isinstance(value.get("context"), dict) and "stats" not in value:
        return value["context"] if value["context"].keys() <= value.keys() else value
    return value


def loop_epochs(body: Any) -> Iterator[str]:
    yield from re.findall(r"loop_\d+_\d+", json.dumps(body))


def expand(body: Any) -> Any:
    """The real body behind the recording's place holders."""
    if not isinstance(body, dict) or ("events" not in body and "payload" not in body):
        return body
    small = {"step": "start", "name": "command.heartbeat", "payload": {"a": 1}}
    events = body.get("events")
    if isinstance(events, str):
        return {**body, "events": [small] * int(events.partition(" ")[0].lstrip("<"))}
    text = json.dumps(body)
    if found := re.search(r'"<[^"]*?(\d{4,})[^"]*>"', text):
        size = 102_000 if "JSON with spaces" in found[0] and int(found[1]) < 105_000 else int(found[1])
        text = text.replace(found[0], json.dumps("x" * (size - 120 if size > 2_000_000 else size)))
        text = text.replace('"<command.completed>"', json.dumps({**small, "name": "command.completed"}))
        return json.loads(text)
    return body


# ── special situations ──────────────────────────────────────────────────────────────────────────


async def claimed(stage: Stage) -> CommandRow:
    row = await stage.command()
    await stage.driver.claim(row.event_id)
    return row


async def _held_by_a(stage: Stage) -> None:
    await claimed(stage)


async def _held_by_first_racer(stage: Stage) -> None:
    row = await stage.command()
    await stage.driver.claim(row.event_id, "worker-race-0")


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
            plane.log.db.execute("UPDATE runtimes SET heartbeat = heartbeat - 100")

    return prepare


Preparation = Callable[[Stage], Awaitable[None]]
SITUATIONS: dict[str, Preparation] = {
    r"claim-409-cache-fast-path|claim-200-again-same-worker|claim-200-extra-fields": _held_by_a,
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
    r"claim-race-five-workers-2": _held_by_first_racer,
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
    """`actionable` defaults to false in a batch: stored, and the status only guesses the end (wire.md 9.4)."""
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
                driver.plane.register_playbook((PLAYBOOKS / f"{name}.yaml").read_text(encoding="utf-8"))
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


@pytest.mark.parametrize("case", [one["case"] for one in CASES])
def test_recorded_call_gets_an_answer_of_the_same_shape(case: str) -> None:
    record = BY_NAME[case]
    status, given, headers = asyncio.run(answer_of(record))
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


def test_every_recorded_call_is_replayed_or_named_with_a_reason() -> None:
    replayed = {one["case"] for one in CASES}
    grouped = {one["case"] for one in RECORDED if is_in_a_group(one["case"])}
    assert {one["case"] for one in RECORDED} == replayed | grouped | set(NOT_MIRRORED)
    assert all(NOT_MIRRORED.values())
    assert not replayed & set(NOT_MIRRORED)
