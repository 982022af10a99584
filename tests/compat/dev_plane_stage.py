"""A plane brought to where a recorded call of the Python plane was made."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from compat.dev_plane_replay import (
    ANY_RESULT,
    PLAYBOOKS,
    Driver,
    Record,
    meta_of,
    playbook_text,
    records,
    substitute,
    substitute_path,
    workload_of,
)
from noetl_worker.authoring.dev.event_log import CommandRow

RECORDED = [record for record in records("python-control-plane-cases") if "method" in record]
EXECUTION = re.compile(r"/api/executions/(\d+)(?:/([a-z-]+))?")


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
        seen: Any = answer.get("context") if isinstance(answer.get("context"), dict) else {}
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
            self.driver.plane.register_playbook(playbook_text(other))
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
        path = substitute_path(record["path"], {old: new for old, new in self.known.items() if str(old).isdigit()})
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
