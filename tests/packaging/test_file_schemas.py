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


@pytest.mark.parametrize(
    ("options", "files"),
    [
        (["--builtin-schema", "vendor.github-workflows"], WORKFLOWS),
        (["--builtin-schema", "vendor.dependabot"], [ROOT / ".github/dependabot.yml"]),
        (["--builtin-schema", "vendor.cloudbuild"], [ROOT / "deploy/cloudbuild.yaml"]),
        (["--check-metaschema"], [ROOT / "deploy/helm/noetl-worker/values.schema.json"]),
    ],
    ids=["workflows", "Dependabot", "Cloud Build", "schema of the chart's values"],
)
def test_files_are_such_as_their_programs_take(options: list[str], files: list[Path]) -> None:
    assert files
    command = [sys.executable, "-m", "check_jsonschema", "--quiet", "--no-cache", *options, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
