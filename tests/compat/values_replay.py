"""The recorded exchanges of the value playbooks against the development plane: are its claims the real plane's?

What the published worker posted is posted again, so that only the plane can be the reason for a difference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from compat.dev_plane_replay import Driver, Record, substitute
from compat.uncut import uncut
from compat.values_compare import claim_differences
from compat.values_run import CHILDREN, HERE, credentials, names, playbook_text, recorded
from compat.values_server import RECORDED_AT
from noetl_worker.authoring.dev.event_log import CommandRow
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.models import Dialect

NOT_EXECUTED = ("child", "child-fails")
"""Executed by others alone."""


def exchanges(plane: str) -> dict[str, list[Record]]:
    """By playbook: claims with what they answered, posted events, children that were started.

    `stop`: a post that the recording has as the beginning of its text alone; `value` is what it said of the result,
    where the recorded values have that in full.
    """
    found: dict[str, list[Record]] = {}
    with (HERE / f"exchanges-{plane}.jsonl").open(encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            found.setdefault(record["name"], []).append(record)
    if Dialect(plane) is Dialect.RUST:
        return found  # cut at its end alone
    values = recorded(Dialect.PYTHON)
    for name, records in found.items():
        for record in records:
            if "stop" in record and _has_whole_value(step := values[name]["steps"][record["stop"]]):
                record["value"] = step["value"]
    return found


def _has_whole_value(step: Record) -> bool:
    return "value" in step and not (isinstance(step["value"], dict) and "_cut" in step["value"])


def not_compared(plane: str) -> list[str]:
    """The playbooks whose claims are not compared, or not all: none were recorded, or a post before one is cut."""
    known = exchanges(plane)
    return [name for name in names() if name in NOT_EXECUTED or not _is_whole(known.get(name, []))]


def _is_whole(records: Sequence[Record]) -> bool:
    stops = [index for index, record in enumerate(records) if "stop" in record and "value" not in record]
    claims = [index for index, record in enumerate(records) if "claim" in record]
    return bool(claims) and not any(claims[-1] > stop for stop in stops)


class Replay:
    """One playbook's exchanges in their order; what the recording calls by one id, the plane calls by another."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._known: dict[Any, Any] = {}
        self._claimed: dict[tuple[int, str], CommandRow] = {}

    async def run(self, records: Sequence[Record], execution_id: int) -> list[str]:
        lines: list[str] = []
        first = next((int(one["execution_id"]) for one in records if "claim" in one), None)
        if first is not None:
            self._know(first, execution_id)
        for record in records:
            if "stop" in record and "value" not in record:
                return lines
            if "stop" in record:
                await self._driver.finish(self._claimed[execution_id, record["stop"]], record["value"])
                continue
            if "claim" in record:
                lines += await self._claim(record)
            elif "execute" in record:
                await self._execute(record)
            elif not await self._post(record):
                return lines
        return lines + list(self._left(execution_id))

    def _know(self, recorded: int, ours: int) -> None:
        self._known[recorded], self._known[str(recorded)] = ours, str(ours)

    async def _execute(self, record: Record) -> None:
        answer = await self._driver.send("POST", "/api/execute", substitute(record["execute"], self._known))
        self._know(int(record["execution_id"]), int(answer.json()["execution_id"]))

    async def _claim(self, record: Record) -> list[str]:
        execution_id = self._known.get(int(record["execution_id"]))
        row = self._open(execution_id, record["node"], record["index"]) if execution_id is not None else None
        if row is None:
            return [f'{record["node"]}: "issued" | "not issued"']
        answer = await self._driver.claim(row.event_id)
        given = answer.json()
        self._claimed[row.execution_id, row.node] = row
        if record["command_id"] is not None:
            self._known[record["command_id"]] = given["meta"]["command_id"]
            self._known[str(record["command_id"])] = str(given["meta"]["command_id"])
        theirs = {"action": record["action"], **record["context"]}
        ours = {"action": given["action"], **given["context"]}
        return claim_differences(record["node"], theirs, ours, is_cut=record.get("cut", False))

    def _open(self, execution_id: int, node: str, index: int | None) -> CommandRow | None:
        for row in self._driver.plane.commands(execution_id):
            meta = json.loads(row.meta)
            position = meta.get("loop_iteration_index", meta.get("iteration_index"))
            if row.worker_id is None and row.node == node and index in (None, position):
                return row
        return None

    async def _post(self, record: Record) -> bool:
        """Whether it could be posted: events of a command that the plane never issued cannot."""
        body = substitute(uncut(record["req"]) if record.get("cut") else record["req"], self._known)
        execution_id = self._known.get(str(record["req"]["execution_id"]))
        for event in body.get("events", [body]):
            node = event.get("step") or event.get("node_name")
            row = self._claimed.get((int(execution_id or 0), node))
            if row is None:
                return False
            self._set_command(event, row)
        answer = await self._driver.send("POST", record["path"], body)
        assert answer.status_code in (200, 202), answer.text
        return True

    def _set_command(self, event: Record, row: CommandRow) -> None:
        """Give an event the command's id where the recorded claim had lost it in a cut."""
        place = event.get("payload", event.get("context"))
        if not isinstance(place, dict) or "command_id" not in place:
            return
        known = {one.command_ref for one in self._driver.plane.commands(row.execution_id)}
        if str(place["command_id"]) not in known:
            place["command_id"] = int(row.command_ref) if row.command_ref.isdigit() else row.command_ref

    def _left(self, execution_id: int) -> Iterator[str]:
        for row in self._driver.plane.commands(execution_id):
            if row.worker_id is None:
                yield f'{row.node}: "not issued" | "issued"'


async def replay(plane: str, wanted: Sequence[str]) -> dict[str, list[str]]:
    """By playbook where the development plane's claims are not the real plane's."""
    known = exchanges(plane)
    found: dict[str, list[str]] = {}
    async with Driver(PlaneSettings(dialect=Dialect(plane))) as driver:
        for body in credentials(5434):
            await driver.send("POST", "/api/credentials", body)
        for name in {*wanted, *CHILDREN}:
            driver.plane.register_playbook(playbook_text(name, RECORDED_AT))
        for name in wanted:
            records = known.get(name, [])
            if name in NOT_EXECUTED or not records:
                found[name] = []
                continue
            execution_id = await driver.plane.execute(f"values/{name}")
            found[name] = await Replay(driver).run(records, execution_id)
    return found
