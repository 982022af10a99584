"""Rows of the outbox that other versions of the worker wrote.

`samples/outbox/version-1.jsonl` has rows as the first worker with an outbox left them on disk, each with what that
worker itself sent when it told them: to a plane that accepts all, and to one whose result store refuses.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.delivery.in_flight import InFlight
from noetl_worker.outbox.directory import signing_key
from noetl_worker.outbox.file import OutboxFile, OutboxRow
from noetl_worker.outbox.rows import read_row
from noetl_worker.plane.client import ControlPlaneClient
from noetl_worker.recovery.adoption import Adoption
from unit.planes import ScriptedTransport, answer, batch_status, emitter, settings

RECORDED = Path(__file__, "../samples/outbox/version-1.jsonl").resolve().read_text("utf-8").splitlines()
ROWS: dict[str, Any] = {row["name"]: row for row in map(json.loads, RECORDED)}
STORED = {"ref": "noetl://execution/7/result/start/1", "store": "kv", "scope": "execution", "bytes": 9, "sha256": "aa"}
NEW_KEY = "made by whoever reads the row"


def left_by_version_1(directory: Path, row: dict[str, Any]) -> None:
    file = OutboxFile.made(directory, signing_key(directory))
    data = row["data"].encode() if row["data"] else None
    contents = row["row"].encode()
    file.put(OutboxRow(row["key"], row["command_id"], row["place"], len(contents), contents, data))
    file.close(is_empty=False)


async def told(directory: Path, *, stores: bool) -> list[list[Any]]:
    """What a worker sends that finds this directory: method, path, body and key of each request."""

    def script(method: str, path: str, body: Any) -> Any:
        if path.startswith("/api/result/resolve"):
            return answer(200, "where")
        if method == "PUT":
            return answer(200, STORED) if stores else answer(413, {"detail": "too large"})
        if path.startswith("/api/events/batch/"):
            return batch_status("failed")
        if path.endswith("/claim"):
            return answer(200, {"execution_id": 1, "node_name": "start", "action": "noop"})
        return answer(202, {"event_ids": [5]}) if "batch" in path else answer(200, {"event_id": 7})

    transport, ours = ScriptedTransport(script), emitter(directory)
    adoption = Adoption(ControlPlaneClient(transport, settings()), ours, InFlight())
    adoption.look()
    while not ours.outbox.is_empty:
        await asyncio.sleep(0)
    await adoption.stop()
    ours.outbox.close()
    return [[method, path, body, headers.get("idempotency-key")] for method, path, body, headers in transport.sent]


def without_new_ids(sent: list[list[Any]], row: str) -> Any:
    """An id of ours that the row does not have is made by whoever tells it."""
    for _, path, body, _ in sent:
        if path == "/api/events" and str(body["event_id"]) not in row:
            body["event_id"] = NEW_KEY
    return sent


LOST = ("rust to be stored", "refusing to store")
"""That version told a preview in place of the result, as a success."""
CASES = [(name, what) for name, row in ROWS.items() for what in row["sent"] if (name, what) != LOST]


@pytest.mark.parametrize(("name", "what"), CASES, ids=[f"{name}, {what}" for name, what in CASES])
async def test_row_of_version_1_is_told_as_that_version_told_it(tmp_path: Path, name: str, what: str) -> None:
    row = ROWS[name]
    left_by_version_1(tmp_path, row)
    sent = await told(tmp_path, stores=what == "accepting")
    assert without_new_ids(sent, row["row"]) == without_new_ids(row["sent"][what], row["row"])
    assert [path.name for path in tmp_path.iterdir()] == ["outbox.key"], "the row is gone with its file"


async def test_result_in_a_row_of_version_1_that_the_store_refuses_fails_its_command(tmp_path: Path) -> None:
    name, what = LOST
    left_by_version_1(tmp_path, ROWS[name])
    sent, theirs = await told(tmp_path, stores=False), ROWS[name]["sent"][what]
    assert sent[:-2] == theirs[:-2], "up to the refusal"
    assert "_truncated" in json.dumps(theirs)
    assert "_truncated" not in json.dumps(sent)
    (_, _, first, _), (_, _, last, _) = sent[-2:]
    ended = first["events"][-1]
    assert (ended["name"], ended["payload"]["error_kind"]) == ("call.error", "resource")
    assert (last["event_type"], last["context"]["error"]) == ("command.failed", ended["payload"]["error"])


@pytest.mark.parametrize("name", ROWS)
def test_row_of_version_1_that_has_to_wait_stays_one(name: str) -> None:
    """A worker that goes back to that version reads what is left of it."""
    row = ROWS[name]
    data = row["data"].encode() if row["data"] else None
    written, beside = read_row(row["row"].encode(), data).packed()
    assert (json.loads(written), beside) == (json.loads(row["row"]), data)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if "rust" in name and not row["data"]])
def test_row_of_version_1_whose_first_request_was_accepted_keeps_the_rest(name: str) -> None:
    made = read_row(ROWS[name]["row"].encode())
    paths = [one["path"] for one in json.loads(ROWS[name]["row"])["requests"]]
    made.accepted({})
    assert (made.is_open, made.was_tried) == (len(paths) > 1, False)
    if made.is_open:
        made.own_id = 1 << 62
        again = read_row(*made.packed())
        assert (again.part.path, json.loads(again.body())["event_id"]) == (paths[1], 1 << 62)
