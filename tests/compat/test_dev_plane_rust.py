"""The Rust plane: its recorded calls in their order, on one development plane, ids mapped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from compat.dev_plane_replay import PLAYBOOKS, Driver, Record, differences, records, substitute, substitute_path
from compat.values_run import credentials
from noetl_worker.authoring.dev.event_log import CommandRow
from noetl_worker.authoring.dev.plane_rules.rules import IssuedCommand
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.models import Dialect
from noetl_worker.remote.plane.rust.event_ids import EventIds

NOT_MIRRORED = {
    "samples/error-branch RUNNING": "both arcs skipped, runs for ever; here `start.status` is in scope",
    "samples/large-result FAILED": "`length` of an undefined value is an error of its template engine; Jinja says 0",
}
FREE = frozenset(
    {"workload", "value", "data", "start", "steps", "each", "render_context", "args", "result", "extracted"}
)
CLAIM = re.compile(r"/api/commands/(\d+)(?:/claim)?$")


class Replay:
    """Recorded calls one after another; what the recording calls by one id, the plane calls by another."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.known: dict[Any, Any] = {}
        self.event_ids = EventIds(5)
        self.executions: list[int] = []

    async def step(self, record: Record) -> list[str]:
        if "method" not in record:
            return self._compare_notification(record)
        self._map_command_of(record)
        self._map_new_event_id(record)
        path = substitute_path(record["path"], self.known)
        body = substitute(record.get("req"), self.known)
        if isinstance(body, dict) and isinstance(body.get("content"), str):
            body["content"] = all_at_once(body["content"])
        if path.endswith("/result/resolve"):  # the hand recording left the query out
            path += f"?ref={self.known['last_ref']}"
        answer = await self.driver.send(record["method"], path, body)
        name = record.get("case", f"{record['method']} {record['path']}")
        if answer.status_code != record["status"]:
            return [f"{name}: status {record['status']} recorded, {answer.status_code} given: {answer.text[:200]}"]
        is_json = isinstance(record["resp"], (dict, list))
        if not is_json:
            return [] if answer.headers.get("content-type", "") != "application/json" else [f"{name}: JSON given"]
        given = answer.json()
        self._learn(record, given)
        return [f"{name}{line}" for line in self._compare(record, given)]

    # ── ids ─────────────────────────────────────────────────────────────────────────────────────

    def _learn(self, record: Record, given: Any) -> None:
        recorded = record["resp"]
        if not isinstance(recorded, dict):
            return
        if record["path"] == "/api/execute" and record["status"] == 200:
            self._know(int(recorded["execution_id"]), int(given["execution_id"]))
            self.executions.append(int(given["execution_id"]))
        if "ref" in recorded:
            self.known[recorded["ref"]] = self.known["last_ref"] = given["ref"]
            self.known[quote(recorded["ref"], safe="")] = given["ref"]

    def _know(self, recorded: int, ours: int) -> None:
        self.known[recorded] = ours
        self.known[str(recorded)] = str(ours)

    def _map_command_of(self, record: Record) -> None:
        """A claim names a command by its recorded event id; find ours by execution, step and loop index."""
        found = CLAIM.match(record["path"])
        recorded = record["resp"]
        if found is None or int(found[1]) in self.known or not isinstance(recorded, dict):
            return
        meta = recorded.get("meta", {})
        if "execution_id" in recorded:
            row = self._open(self.known[recorded["execution_id"]], recorded["node_name"], meta.get("iteration_index"))
            self._know(int(found[1]), row.event_id)
            self.known[meta["command_id"]] = row.command_ref

    def _open(self, execution_id: int, node: str, index: int | None) -> CommandRow:
        mapped = set(self.known.values())
        for row in self.driver.plane.commands(execution_id):
            is_item = index is None or row.command_ref.endswith(f":i{index}")
            if row.node == node and is_item and row.event_id not in mapped:
                return row
        raise AssertionError(f"no command for {node} {index} of {execution_id}")

    def _map_new_event_id(self, record: Record) -> None:
        """A worker's own ids must be above the plane's, but where the recording wants a clock behind."""
        body = record.get("req")
        given = body.get("event_id") if isinstance(body, dict) else None
        if given is None or given in self.known:
            return
        if record.get("case", "").startswith("clock-behind"):
            self.known[given] = given
        else:
            rows = [row for number in self.executions[-1:] for row in self.driver.plane.commands(number)]
            self.known[given] = self.event_ids.next_above(max((row.high_id for row in rows), default=0))

    # ── comparing ───────────────────────────────────────────────────────────────────────────────

    def _compare_notification(self, record: Record) -> list[str]:
        body = record["body"]
        row = self._open(self.known[body["execution_id"]], body["step"], None)
        self._know(body["event_id"], row.event_id)
        self.known[body["command_id"]] = row.command_ref
        issued = IssuedCommand(row.execution_id, row.event_id, row.command_ref, row.node, row.action, {}, {})
        subject, given = self.driver.plane.rules.notification(issued, "http://plane", "noetl.commands")
        wrong = list(differences(body, json.loads(given), record["case"]))
        if record["nats_subject"] != substitute_path(subject, {str(row.execution_id): str(body["execution_id"])}):
            wrong.append(f"{record['case']}: {record['nats_subject']} recorded, {subject} given")
        return wrong

    def _compare(self, record: Record, given: Any) -> Iterator[str]:
        recorded = record["resp"]
        if isinstance(recorded, dict) and isinstance(recorded.get("events"), list):
            if f"{recorded['path']} {recorded['status']}" in NOT_MIRRORED:
                return
            yield from self._compare_events(recorded["events"], given["events"])
            recorded = {**recorded, "events": []}
            if recorded["status"] != given["status"]:
                yield f".status: {recorded['status']} recorded, {given['status']} given"
        if CLAIM.match(record["path"]) and record["status"] == 200:
            yield from self._compare_claim(recorded["context"], given["context"])
        if recorded and isinstance(recorded, dict) and "rows" in recorded:
            return
        yield from differences(recorded, given, free=FREE)

    def _compare_claim(self, recorded: Any, given: Any) -> Iterator[str]:
        if set(recorded["render_context"]) - {"start"} != set(given["render_context"]) - {"start"}:
            yield f".render_context: {sorted(recorded['render_context'])} / {sorted(given['render_context'])}"
        yield from differences(recorded["tool_config"], given["tool_config"], ".tool_config", free=frozenset({"input"}))

    def _compare_events(self, recorded: Any, given: Any) -> Iterator[str]:
        ours = {event["event_type"]: event for event in given}
        for event in recorded:
            if isinstance(event, dict):
                if event["event_type"] not in ours:
                    yield f".events: no {event['event_type']}"
                else:
                    yield from differences(
                        event, ours[event["event_type"]], ".event", free=frozenset({"result"}), exact=frozenset()
                    )


def all_at_once(playbook: str) -> str:
    """The real plane issues all items of a parallel loop at once, whatever max_in_flight says."""
    return playbook.replace("max_in_flight: 2", "max_in_flight: 3")


async def replay(name: str) -> list[str]:
    wrong: list[str] = []
    async with Driver(PlaneSettings(dialect=Dialect.RUST)) as driver:
        registers_itself = name == "rust-control-plane"
        for file in () if registers_itself else sorted((PLAYBOOKS / "rust").glob("*.yaml")):
            driver.plane.register_playbook(file.read_text(encoding="utf-8"))
        postgres, _ = credentials(5433)
        await driver.send("POST", "/api/credentials", postgres)
        sequence = Replay(driver)
        for record in records(name):
            wrong += await sequence.step(record)
    return wrong


@pytest.mark.heavy_on_loop(reason="a whole recording is compared in one step")
@pytest.mark.parametrize("name", ["rust-control-plane-cases", "rust-control-plane"])
async def test_recorded_calls_get_answers_of_the_same_shape(name: str) -> None:
    assert await replay(name) == []
