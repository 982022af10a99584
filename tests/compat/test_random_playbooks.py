"""The table of two workers on random playbooks: every playbook is in it, and every difference has a reason."""

from __future__ import annotations

import pytest

pytest.importorskip("psycopg")
pytest.importorskip("hypothesis")
from compat.live_table import LiveTable, live_names, live_page, results
from compat.values_run import names
from compat.values_table import VALUES, Table


def test_every_line_of_the_live_table_names_a_known_reason() -> None:
    table = LiveTable.load()
    lines = [one.why for one in table.random]
    lines += [why for own in table.live.playbooks["rust"].values() for why in own.values()]
    assert set(lines) | set(table.live.everywhere["rust"].values()) <= table.reasons.keys()


def test_what_only_the_plane_explains_excuses_no_difference_on_one_plane() -> None:
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
