"""Files for other programs, against those programs' schemas as check-jsonschema carries them: no network is asked."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from patience import PATIENCE_S

pytestmark = pytest.mark.skipif(find_spec("check_jsonschema") is None, reason="needs the dev group")

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def check(*arguments: str | Path) -> str:
    """What it finds; empty if nothing."""
    command = [sys.executable, "-m", "check_jsonschema", "--quiet", "--no-cache", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode in (0, 1), done.stderr
    return "" if done.returncode == 0 else done.stdout + done.stderr or "found something, and says nothing"


def test_workflows_are_such_as_github_takes() -> None:
    assert WORKFLOWS
    assert check("--builtin-schema", "vendor.github-workflows", *WORKFLOWS) == ""


def test_cloud_build_file_is_such_as_cloud_build_takes() -> None:
    assert check("--builtin-schema", "vendor.cloudbuild", ROOT / "deploy/cloudbuild.yaml") == ""


def test_schema_of_the_charts_values_is_a_json_schema() -> None:
    assert check("--check-metaschema", ROOT / "deploy/helm/noetl-worker/values.schema.json") == ""
