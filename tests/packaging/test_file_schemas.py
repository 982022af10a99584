"""Files for other programs, against those programs' schemas as check-jsonschema carries them: no network is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

check_jsonschema = pytest.importorskip("check_jsonschema", reason="needs the dev group")

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
    done = CliRunner().invoke(check_jsonschema.main, ["--quiet", "--no-cache", *options, *map(str, files)])
    assert done.exit_code == 0, done.output
