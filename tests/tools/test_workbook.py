"""Kind `workbook`: a tool of the playbook, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError, MaybeProcessed, ServerRefused, ToolError, UnknownTool
from noetl_worker.models import JsonValue, ToolStatus
from noetl_worker.testing import MemoryControlPlane, run_tool
from tool_settings import tool_settings

ADD = {"name": "add", "tool": {"kind": "python", "code": "return a + b", "input": {"b": "{{ workload.b }}"}}}
WORKLOAD = {"workload": {"b": 2}}


def call(config: Mapping[str, Any], *entries: JsonValue, **context: Any) -> Any:
    plane = MemoryControlPlane()
    plane.document = {"workflow": [], "workbook": list(entries)}
    return run_tool("workbook", config, **{"control_plane": plane, "variables": WORKLOAD, **context})


def test_entry_is_run_with_its_own_input_and_the_steps_over_it() -> None:
    assert call({"name": "add", "input": {"a": 1}}, ADD).data == 3
    assert call({"name": "add", "args": {"a": 1, "b": 5}}, ADD).data == 6
    assert call({"task": "add", "name": "label of the task", "input": {"a": 1}}, {"name": "other"}, ADD).data == 3


@pytest.mark.parametrize("kind", ["tool", "type"])
def test_kind_may_be_named_with_the_fields_beside_it(kind: str) -> None:
    entry = {
        "name": "say",
        kind: "noop",
        "desc": "for people",
        "args": {"who": "Ada"},
        "result": "{{ who }} of {{ a }}",
    }
    assert call({"name": "say", "input": {"a": 1}}, entry).data == "Ada of 1"


def test_field_of_the_tool_that_is_called_name_stays_the_tools() -> None:
    settings = tool_settings(NOETL_SECRET_DOOR="swordfish")
    result = call({"name": "key"}, {"name": "key", "tool": {"kind": "secrets", "name": "door"}}, settings=settings)
    assert (result.status, result.data["name"]) == (ToolStatus.SUCCESS, "door")


def test_values_of_the_input_are_data_and_never_templates() -> None:
    text = "{{ 1 // 0 }}"
    variables = {"workload": {"b": 2}, "text": text}
    entry = {"name": "say", "tool": {"kind": "noop", "result": "{{ said }}"}}
    assert call({"name": "say", "input": {"said": "{{ text }}"}}, entry, variables=variables).data == text


def test_failure_is_that_of_the_entrys_kind() -> None:
    result = call({"name": "bad"}, {"name": "bad", "tool": {"kind": "shell", "command": "exit 3"}})
    assert (result.error.kind, result.exit_code) == ("process", 3)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (ADD, "the playbook's workbook has no entry 'x'; it has: 'add'"),
        (
            {"name": "x", "tool": [{"kind": "noop"}]},
            "entry 'x' needs 'tool' with one 'kind'; put a list of tools into a playbook of its own",
        ),
        (
            {"name": "x", "tool": {"kind": "workbook", "name": "x"}},
            "entry 'x' may not be of kind workbook itself; in the step, name the entry that should run",
        ),
        (
            {"name": "x", "tool": {"kind": "shell", "env": {"T": "{{ keychain.k.token }}"}, "command": "true"}},
            "entry 'x' reads the keychain, but only the fields of a step may read it: use 'auth' in the entry, "
            "or give the value as the step's 'input'",
        ),
    ],
)
def test_what_cannot_be_run_is_told(entry: JsonValue, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        call({"name": "x"}, entry)
    assert str(caught.value).startswith(f"workbook: {message}")


def test_entry_of_an_unknown_kind_is_told() -> None:
    with pytest.raises(UnknownTool, match=r"^Tool not found: htp; did you mean 'http'\?"):
        call({"name": "x"}, {"name": "x", "tool": {"kind": "htp"}})


@pytest.mark.parametrize(
    ("problem", "kind", "retryable"),
    [
        (ServerRefused("404", status=404, body='{"detail":"Catalog entry not found"}'), "not_found", False),
        (ServerRefused("404", status=404, body="<html>", is_page=True), "server_error", True),
        (ServerRefused("403", status=403, body=""), "auth", False),
        (ServerRefused("422", status=422, body="{}"), "client_error", False),
        (ServerRefused("503", status=503, body="{}"), "server_error", True),
        (MaybeProcessed("no answer"), "connection", True),
    ],
)
def test_catalog_that_does_not_give_the_playbook_is_told(problem: Exception, kind: str, retryable: bool) -> None:
    class Refusing(MemoryControlPlane):
        async def playbook(self) -> Mapping[str, JsonValue]:
            raise problem

    with pytest.raises(ToolError) as caught:
        call({"name": "x"}, control_plane=Refusing())
    assert (caught.value.kind, caught.value.retryable) == (kind, retryable)
