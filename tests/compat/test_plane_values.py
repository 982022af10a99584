"""The development plane's claims are the real planes', for what the published workers posted to them."""

from __future__ import annotations

from typing import Any

import pytest

from compat.values_replay import replay
from compat.values_run import chosen, names
from compat.values_table import CLAIMS, PLANES, Table

pytestmark = pytest.mark.sweep

NAMES = names()
TABLE = Table.load(CLAIMS)


@pytest.fixture(scope="module")
async def differing(anyio_backend: Any, request: pytest.FixtureRequest) -> dict[str, dict[str, list[str]]]:
    """By plane and playbook what differs, of the playbooks that this session tests."""
    found: dict[str, dict[str, list[str]]] = {}
    for plane in PLANES:
        found[plane] = await replay(plane, chosen(request.session, plane))
    return found


@pytest.mark.timeout(1800)  # the first one plays them all
@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("playbook", NAMES)
def test_claims_are_the_recorded_ones_or_the_table_says_why(
    plane: str, playbook: str, differing: dict[str, dict[str, list[str]]]
) -> None:
    lines = differing[plane][playbook]
    assert TABLE.unexplained(plane, playbook, lines) == [], "path: recorded | ours"
    assert TABLE.stale(plane, playbook, lines) == [], "these lines of claims.yaml differ no more: make values"
