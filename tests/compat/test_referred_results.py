"""Commands whose earlier step went to the result store, as the real planes hand them out: a reference and a preview.

The recorded answers of the store are cut; what was cut is put back, as the playbooks made it.
"""

from __future__ import annotations

import copy
import json
from base64 import b64encode
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

from compat.recorded_claims import hydrated, ran_with
from noetl_worker.errors import ToolError
from noetl_worker.models import CaseDecision, Fail, ToolResult
from noetl_worker.models.marks import Marks
from noetl_worker.pipeline.claim.text_marks import read_marks
from noetl_worker.pipeline.command import case_actions
from noetl_worker.remote.transport.transport import MAX_BODY_BYTES, Response
from noetl_worker.text import json_text
from noetl_worker.text.templates import template
from unit.planes import answer

SAMPLES = Path(__file__).parent / "samples" / "values"
ROWS = [[i, "row " * 40] for i in range(1000)]
LOOK = {"n": 1000, "deep": 900, "count": 1000, "note": "end"}


@lru_cache(maxsize=2)
def recorded(plane: str) -> Mapping[str, Mapping[str, Any]]:
    lines = map(json.loads, (SAMPLES / f"referred-results-{plane}.jsonl").read_text().splitlines())
    return {line["name"]: line for line in lines}


class Store:
    """A plane with one stored result; it counts how often it is asked for it."""

    def __init__(self, ref: str, body: Any, status: int = 200) -> None:
        self.ref, self.body, self.status = ref, body, status
        self.asked = 0

    def __call__(self, method: str, path: str, _: Any) -> Response:
        route, _, ref = path.partition("?ref=")
        if route.startswith("/api/keychain"):
            return answer(200, {"status": "not_found"})
        assert (method, route) == ("GET", "/api/result/resolve")
        if not ref.startswith("noetl"):  # which of two routes answers: text that is no reference is returned
            return answer(200, ref)
        assert unquote(ref) == self.ref
        self.asked += 1
        return answer(self.status, self.body)


def stored(name: str) -> Store:
    line = recorded("rust")[name]
    whole = copy.deepcopy(line["stored"])
    data = whole["data"]
    if name == "large-postgres":
        data["rows"] = [{"id": i, "t": "row " * 250} for i in range(1, 151)]
    else:
        data.get("gen", data)["rows"] = ROWS
    return Store(line["ref"], whole)


def claim(name: str, plane: str = "rust") -> dict[str, Any]:
    whole: dict[str, Any] = copy.deepcopy(recorded(plane)[name]["claim"])
    return whole


async def rendered(text: str, store: Store) -> Any:
    """What a template in a task of the recorded command gives."""
    body = claim("large-list")
    body["context"]["tool_config"][0]["look"]["input"] = {"n": text}
    return template.render(text, (await hydrated("rust", body, store)).variables)


async def look(body: Mapping[str, Any], store: Store) -> Any:
    data = json.loads(json.dumps(json_text.plain((await ran_with("rust", body, store)).data)))
    return data["look"]


async def test_fields_of_a_stored_result_are_whole_in_a_list_valued_tool() -> None:
    """Theirs knows `data.rows` alone, and gives 0 for the length of `rows`."""
    store = stored("large-list")
    ours = await look(claim("large-list"), store)
    assert ours == {**LOOK, "dn": 1000, "ref": True}
    assert store.asked == 1
    theirs = recorded("rust")["large-list"]["response"]["look"]
    assert (ours["dn"], ours["ref"]) == (theirs["dn"], theirs["ref"])
    assert (theirs["n"], theirs["count"]) == (0, None)


async def test_whole_of_a_stored_result_has_its_fields_and_where_it_is() -> None:
    """Theirs has no fields but under `data`, and the words about its run beside it."""
    ours = await look(claim("large-list-whole"), stored("large-list-whole"))
    theirs = recorded("rust")["large-list-whole"]["response"]["look"]
    assert ours == {**theirs, "rows": 1000, "keys": ["_ref", "_store", "_uri", "count", "data", "note", "rows"]}


async def test_stored_result_of_a_single_task_is_found_under_its_label_and_flat() -> None:
    """Theirs has it flat only."""
    ours = await look(claim("large-sequence-last"), stored("large-sequence-last"))
    assert ours == {**LOOK, "flat": 1000, "frows": 1000, "small": None}
    theirs = recorded("rust")["large-sequence-last"]["response"]["look"]
    assert (theirs["flat"], theirs["frows"], theirs["n"]) == (1000, 1000, 0)


async def test_stored_result_of_two_tasks_is_found_under_their_labels_and_flat() -> None:
    """Theirs finds nothing."""
    ours = await look(claim("large-list-sequence"), stored("large-list-sequence"))
    assert ours == {**LOOK, "flat": 1000, "frows": 1000, "small": 1}


async def test_stored_rows_of_postgres_are_whole() -> None:
    ours = await look(claim("large-postgres"), stored("large-postgres"))
    assert ours == {"n": 150, "d": 141, "rc": 150}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ start.data.count }}", 1000),
        ("{{ start.data.note }}", "end"),
        ("{{ start.data.rows[0][0] }}", 0),
        ("{{ start._ref is defined and start._store == 'db' }}", True),
        ("{{ start.status }}", "success"),
        ("{{ steps.start.status }}", "COMPLETED"),
        ("{{ path }}", "values/large-list"),
        ("{{ workload.start }}", None),
    ],
)
async def test_what_the_preview_says_is_not_fetched(text: str, expected: Any) -> None:
    store = stored("large-list")
    assert await rendered(text, store) == expected
    assert store.asked == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ start.data.rows[999][0] }}", 999),
        ("{{ start.data.rows[0:3] | length }}", 3),
        ("{{ ctx.start.rows | length }}", 1000),
        ("{{ ctx.steps.start.rows | length }}", 1000),
        ("{{ steps.start.rows | length }}", 1000),
        ("{{ steps.start.data.rows | length }}", 1000),
        ("{{ steps.start.context.result.context.data.rows | length }}", 1000),
        ("{{ start.result.rows | length }}", 1000),
        ("{{ start['rows'] | length }}", 1000),
        ("{{ (start or none).rows | length }}", 1000),
        ("{% for key in ['rows'] %}{{ start[key] | length }}{% endfor %}", "1000"),
        ("{% set s = steps %}{{ s.start.rows | length }}", "1000"),
        ("{{ start.get('rows') | length }}", 1000),
        ("{{ start.status }} {{ start.count }}", "success 1000"),
    ],
)
async def test_however_a_template_reaches_past_the_preview_it_gets_the_whole_result(text: str, expected: Any) -> None:
    store = stored("large-list")
    assert await rendered(text, store) == expected
    assert store.asked == 1


async def test_stored_result_is_asked_for_once_however_many_tasks_read_it() -> None:
    store, body = stored("large-list"), claim("large-list")
    task = body["context"]["tool_config"][0]["look"]
    rule = {"when": "{{ start.rows | length == 1000 }}", "then": {"do": "continue"}}
    second = {**task, "name": "again", "spec": {"policy": {"rules": [rule, {"else": {"then": {"do": "fail"}}}]}}}
    body["context"]["tool_config"].append({"again": second})
    data = json_text.plain((await ran_with("rust", body, store)).data)
    assert data["look"] == data["again"] == {**LOOK, "dn": 1000, "ref": True}
    assert store.asked == 1


COUNT = "result = len(context['start']['rows'])"


@pytest.mark.parametrize(
    "fields",
    [
        {"code": COUNT},
        {"code": "def main(start): return len(start['rows'])"},
        {"script": COUNT},
        {"script": COUNT + "\nresult"},
        {"script": {"source": {"type": "inline", "code": COUNT}}},
        {"code_b64": b64encode(COUNT.encode()).decode()},
        {"code_base64": b64encode(COUNT.encode()).decode()},
        {"code_b64": "{{ workload.text }}"},
        {"code": "{{ workload.code }}"},
        {"spec": {"code": COUNT}},
    ],
)
async def test_code_in_any_field_that_reads_the_step_itself_gets_the_whole_result(fields: Mapping[str, Any]) -> None:
    store, body = stored("large-list"), claim("large-list")
    given = {"code": COUNT, "text": b64encode(COUNT.encode()).decode()}
    body["context"]["render_context"]["workload"].update(given)
    body["context"]["tool_config"] = [{"look": {"kind": "python", **fields}}]
    assert await look(body, store) == 1000
    assert store.asked == 1


@pytest.mark.parametrize("is_list", [False, True], ids=["a step", "a task of a list"])
async def test_workbook_entry_which_is_read_later_gets_the_whole_result(is_list: bool) -> None:
    store, body = stored("large-list"), claim("large-list")
    tool = {"kind": "python", "input": {"n": "{{ start.rows | length }}"}, "code": "result = n"}
    playbook = yaml.safe_dump({"workbook": [{"name": "count", "tool": tool}]})

    def script(method: str, path: str, sent: Any) -> Response:
        return answer(200, {"content": playbook}) if path.startswith("/api/catalog") else store(method, path, sent)

    body["action"] = "task_sequence" if is_list else "workbook"
    body["context"]["tool_config"] = [{"look": {"kind": "workbook", "task": "count"}}] if is_list else {"name": "count"}
    data = (await ran_with("rust", body, script)).data
    assert (data["look"] if is_list else data) == 1000
    assert store.asked == 1


@pytest.mark.parametrize(
    ("kind", "script", "asked"),
    [
        ("python", "count.py", 1),
        ("python", {"uri": "s3://bucket/count.py"}, 1),
        ("duckdb", "https://a.test/count.sql", 1),
        ("duckdb", "select 1;\nselect 2", 0),
        ("duckdb", {"source": {"type": "inline", "code": "select 1"}}, 0),
        ("python", "import json\nresult = 1", 0),
        ("shell", "start.sh", 0),
        ("rhai", "start.rows.len()", 1),
        ("rhai", "2 * 2", 0),
    ],
)
async def test_script_at_an_address_may_read_any_result_and_one_that_is_here_what_it_says(
    kind: str, script: Any, asked: int
) -> None:
    store, body = stored("large-list"), claim("large-list")
    body["context"]["tool_config"] = [{"look": {"kind": kind, "script": script}}]
    await hydrated("rust", body, store)
    assert store.asked == asked


async def test_result_that_the_store_does_not_have_is_an_error_that_names_the_step() -> None:
    line = recorded("rust")["large-list"]
    with pytest.raises(ToolError, match=rf"the result of step 'start' cannot be fetched .*{line['ref']}"):
        await look(claim("large-list"), Store(line["ref"], b"", status=404))


async def test_results_beyond_the_memory_limit_are_an_error_that_names_the_step() -> None:
    store, body = stored("large-list"), claim("large-list")
    result = body["context"]["render_context"]["steps"]["start"]["context"]["result"]
    result["reference"]["meta"]["bytes"] = 2**27
    with pytest.raises(ToolError, match=r"\(start\) have 134217728 bytes, more than 67108864"):
        await look(body, store)
    assert store.asked == 0


@pytest.mark.heavy_on_loop(reason="64 MiB of JSON are made and read, in one step of a plane without a network")
async def test_results_that_turn_out_to_be_beyond_the_memory_limit_are_an_error() -> None:
    """A claim need not say how large they are."""
    store, body = stored("large-list"), claim("large-list")
    del body["context"]["render_context"]["steps"]["start"]["context"]["result"]["reference"]["meta"]
    store.body = json.dumps(store.body).encode()[:-1] + b', "pad": "' + b"x" * MAX_BODY_BYTES + b'"}'
    with pytest.raises(ToolError, match=r"\(start\) have 67\d{6} bytes, more than 67108864"):
        await look(body, store)


@pytest.mark.parametrize(
    ("left", "right", "asked"),
    [("{{ start.rows | length }}", 1000, 1), ("{{ start.status }}", "success", 0), ("path", "values/large-list", 0)],
)
async def test_case_that_reads_past_the_preview_gets_the_whole_result(left: str, right: Any, asked: int) -> None:
    assert (await decision({"left": left, "op": "eq", "right": right}, asked=asked)).action == Fail("x")


async def test_bare_left_side_of_a_case_is_the_whole_result() -> None:
    data = recorded("rust")["large-list"]["claim"]["context"]["render_context"]["start"]
    assert (await decision({"left": "start", "op": "ne", "right": data}, asked=1)).action == Fail("x")


async def decision(condition: Mapping[str, Any], *, asked: int) -> CaseDecision:
    store, body = stored("large-list"), claim("large-list")
    body["context"]["tool_config"] = {"code": "result = 1"}
    body["context"]["cases"] = [{"when": [condition], "then": {"fail": {"message": "x"}}}]
    command = await hydrated("rust", body, store)
    assert store.asked == asked
    return case_actions.decide(command, ToolResult.success(1), "w")


@pytest.mark.parametrize("is_list", [False, True], ids=["an object", "its rows alone"])
async def test_reference_without_its_rows_on_the_python_plane_is_resolved(is_list: bool) -> None:
    """Two steps on, that plane has only the scalars beside the reference; theirs gives 0 for the length."""
    body = claim("large-postgres", "python")
    rows = [{"id": i, "t": "row " * 250} for i in range(1, 151)]
    ref = body["context"]["render_context"]["start"]["reference"]["ref"]
    store = Store(ref, rows if is_list else {"rows": rows, "row_count": 150})
    data = json_text.plain((await ran_with("python", body, store)).data)
    assert data["results"]["look"] == {"n": 150, "d": 141, "rc": 150}
    assert recorded("python")["large-postgres"]["response"]["results"]["look"]["n"] == 0
    assert store.asked == 1


@pytest.mark.parametrize(("plane", "name"), [("rust", "large-list"), ("python", "large-postgres")])
def test_claim_with_a_reference_is_marked(plane: str, name: str) -> None:
    assert read_marks(json.dumps(claim(name, plane)).encode()).references


async def test_claim_that_is_not_marked_is_not_searched_for_references() -> None:
    store = stored("large-list")
    await hydrated("rust", claim("large-list"), store, marks=Marks(references=False))
    assert store.asked == 0
