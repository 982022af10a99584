"""The table of two workers on one plane: every playbook is in it, and every difference has a reason."""

from __future__ import annotations

from compat.live_table import LiveTable, is_refused, live_counts, missing, results
from compat.values_table import VALUES, Table


def test_every_line_of_the_live_table_names_a_known_reason() -> None:
    table = LiveTable.load()
    lines = [why for own in table.live.playbooks["rust"].values() for why in own.values()]
    lines += [why for row in results() for why in row["why"]]
    assert set(lines) | set(table.live.everywhere["rust"].values()) <= table.reasons.keys()


def test_what_only_the_plane_explains_excuses_no_difference_on_one_plane() -> None:
    line = 'events.playbook: "playbook.failed" | ""'
    assert LiveTable.load().unexplained("arcs-none-match", [line]) == [line]
    assert Table.load(VALUES).unexplained("rust", "arcs-none-match", [line]) == []


def test_the_last_results_have_every_playbook() -> None:
    assert set(missing()) <= {"rhai-throw-list", "large-sizes"}, "until the next make compat-values"


def test_what_the_plane_refuses_is_not_counted_as_equal() -> None:
    total, equal, differing, unsettled, refused = live_counts()
    assert refused == sum(map(is_refused, results())) > 0
    assert equal + differing + unsettled + refused == total == len(results())
