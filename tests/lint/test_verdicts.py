"""`check` says of each recorded playbook what its plane does: an error where it refuses, and none where it runs."""

from __future__ import annotations

import pytest

pytest.importorskip("yaml")
from lint.verdicts import Verdict, disagreement, recorded
from noetl_worker.authoring.lint.inspector import inspect_text
from noetl_worker.tools.registry import Registry

RECORDED = recorded()
REGISTRY = Registry(plugins=False)


OFTEN = [row for row in RECORDED if row.seed is None and "/values/" not in row.file]
MUTATIONS = [row for row in RECORDED if row.seed is not None]


def wrong_ones(rows: list[Verdict], plane: str) -> dict[str, str]:
    said = {}
    for row in rows:
        found = inspect_text(row.text(), row.file, REGISTRY, plane=plane)
        text = disagreement(found, accepted=getattr(row, plane))
        said |= {f"{row.file}, seed {row.seed}": text} if text is not None else {}
    return said


@pytest.mark.parametrize("plane", ["python", "rust"])
def test_verdict_on_playbooks_is_the_planes_own(plane: str) -> None:
    assert wrong_ones(OFTEN, plane) == {}


@pytest.mark.sweep
@pytest.mark.parametrize("plane", ["python", "rust"])
def test_verdict_on_recordings_and_mutations_is_the_planes_own(plane: str) -> None:
    assert len(MUTATIONS) > 600
    assert wrong_ones(RECORDED, plane) == {}


def test_without_a_plane_what_either_refuses_is_found() -> None:
    refused = [row for row in OFTEN if not (row.python and row.rust)]
    silent = [row.file for row in refused if not inspect_text(row.text(), row.file, REGISTRY)]
    assert silent == []
