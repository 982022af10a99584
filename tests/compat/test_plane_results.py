"""The page of `make compat`: tests/compat/values/plane.md."""

from __future__ import annotations

import json

from compat import real_plane
from compat.plane_results import PLAYBOOKS, RESULTS


def test_the_last_results_have_every_playbook() -> None:
    rows = json.loads(RESULTS.read_text("utf-8"))
    assert [row["playbook"] for row in rows["playbooks"]] == sorted(path.stem for path in PLAYBOOKS.glob("*.yaml"))
    assert rows["server"] == real_plane.VERSION
