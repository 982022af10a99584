"""The comparison of two workers on random playbooks, with invented answers: what it counts, how small it makes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

pytest.importorskip("psycopg")
pytest.importorskip("hypothesis")
from compat.event_shapes import shape_differences
from compat.live_pair import Both, in_their_order
from compat.live_table import LiveTable, live_names, live_page, results
from compat.random_pairs import Explorer, signature
from compat.random_playbooks import Playbook
from compat.values_run import names
from compat.values_table import VALUES, Table

ENDED: dict[str, Any] = {"outcome": "completed"}


def kinds_of(playbook: Playbook) -> list[str]:
    return [tool["kind"] for step in playbook["workflow"] for tool in _tools(step["tool"])]


def _tools(tool: Any) -> list[dict[str, Any]]:
    return tool if isinstance(tool, list) else [tool]


def answers(drawn: Mapping[str, Playbook]) -> dict[str, Both]:
    """Two workers of which one does not know duckdb."""
    return {
        name: Both(name, ENDED, ENDED, ['start.value: {"x": 1} | null'] if "duckdb" in kinds_of(playbook) else [])
        for name, playbook in drawn.items()
    }


def test_a_difference_is_made_small_and_every_playbook_is_counted() -> None:
    found = Explorer(answers, lambda lines: list(lines), 25, 7, shrink_s=math.inf).explore()
    equal, explained, left = found.counts(lambda lines: ["open"] * len(lines))
    assert equal + left == len(found.seen) > 10
    assert explained == 0 < left
    (one,) = found.new.values()
    assert len(yaml.safe_load(one.text)["workflow"]) == 2, "one step with duckdb, and the last one"


def test_a_seed_draws_the_same_playbooks() -> None:
    first, second = (Explorer(answers, lambda lines: [], 10, 3).explore() for _ in range(2))
    assert list(first.seen) == list(second.seen)


def test_two_places_with_one_fault_have_one_signature() -> None:
    assert signature('last.value.a: 1 | "1"') == signature('first.value[0].b: 2 | "x"'.replace("[0]", ""))
    assert signature('last.value.a: 1 | "1"') != signature("last.value.a: 1 | null")


def test_shapes_tell_which_side_has_a_key() -> None:
    theirs = {"call.done": ["meta.attempts (int)", "status=COMPLETED"]}
    ours = {"call.done": ["status=COMPLETED", "result.more (str)"]}
    assert list(shape_differences(theirs, ours)) == [
        'shape.call.done.meta.attempts (int): "there" | "<absent>"',
        'shape.call.done.result.more (str): "<absent>" | "there"',
    ]


def test_every_line_of_the_live_table_names_a_known_reason() -> None:
    table = LiveTable.load()
    lines = [one.why for one in table.random]
    lines += [why for own in table.live.playbooks["rust"].values() for why in own.values()]
    assert set(lines) | set(table.live.everywhere["rust"].values()) <= table.reasons.keys()


def test_what_only_the_plane_explains_excuses_no_difference_between_two_workers_on_it() -> None:
    line = 'events.playbook: "playbook.failed" | ""'
    assert LiveTable.load().unexplained("arcs-none-match", [line]) == [line]
    assert Table.load(VALUES).unexplained("rust", "arcs-none-match", [line]) == []


def test_the_last_results_have_every_playbook_or_name_it_as_missing() -> None:
    *rows, drawn = results()
    run = [row["playbook"] for row in rows]
    assert sorted([*run, *drawn["missing"]]) == sorted([*names(), *live_names()])
    assert set(drawn["missing"]) <= {"rhai-throw-list", "large-sizes"}, "until the next make compat-values"


def test_what_the_plane_refuses_is_not_counted_as_equal() -> None:
    *rows, _ = results()
    refused = sum(row["ours"] == "refused" for row in rows)
    equal = sum(not row["why"] for row in rows) - refused
    assert refused > 0
    line = next(line for line in live_page(LiveTable.load()) if " named | " in line)
    assert line.split(" | ")[1::3] == [str(equal), f"{refused} |"]


def test_every_reason_in_the_last_results_is_a_known_one() -> None:
    *rows, _ = results()
    assert {why for row in rows for why in row["why"]} <= LiveTable.load().reasons.keys()


def test_printed_object_with_its_keys_in_another_order_is_the_same_and_another_value_is_not() -> None:
    theirs = {"a": '{"x": 1, "y": null}', "b": ['{"x": 12}'], "c": "ab"}
    ours = {"a": '{"y": null, "x": 1}', "b": ['{"x": 21}'], "c": "ba"}
    assert in_their_order(theirs, ours) == {"a": theirs["a"], "b": ours["b"], "c": "ba"}
