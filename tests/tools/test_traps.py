"""Values in configs that were lost elsewhere: a boolean condition, a null, variables of many megabytes."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest

from noetl_worker.testing import run_tool, tool_context
from noetl_worker.tools.kinds.noop.noop import NoopTool
from noetl_worker.tools.registry import Registry


@pytest.mark.parametrize(("condition", "result"), [(True, "stopped"), (False, "went on")])
def test_trap_17_boolean_condition_is_none_of_a_text_and_a_null_keeps_its_object(condition: bool, result: str) -> None:
    rule = {"when": condition, "then": {"do": "break", "set": {"ctx.seen": {"a": None, "b": "{{ 1 + 1 }}"}}}}
    tasks = [
        {"name": "first", "kind": "noop", "result": "stopped", "spec": {"policy": {"rules": [rule]}}},
        {"name": "second", "kind": "noop", "result": "went on"},
    ]
    data = run_tool("task_sequence", {"tasks": tasks}).data
    assert data["_prev"] == result
    assert data["updates"] == ({"ctx.seen": {"a": None, "b": 2}} if condition else {})


class Large(dict[str, Any]):
    """Variables of many megabytes: a copy of them is what must not happen."""

    def __copy__(self) -> NoReturn:
        raise AssertionError("copied")

    def __deepcopy__(self, memo: Any) -> NoReturn:
        raise AssertionError("copied deeply")

    def __iter__(self) -> NoReturn:
        raise AssertionError("walked through")

    def keys(self) -> NoReturn:
        raise AssertionError("walked through")

    def items(self) -> NoReturn:
        raise AssertionError("walked through")

    def values(self) -> NoReturn:
        raise AssertionError("walked through")


def test_trap_25_variables_are_not_copied_for_a_render() -> None:
    registry = Registry([NoopTool()], plugins=False)
    context = tool_context(registry=registry, variables={"big": Large(x=7)})
    config = registry.prepare("noop", {"result": ["{{ big.x }}", "x is {{ big.x }}"] * 50}, context).config
    assert config.result == [7, "x is 7"] * 50
