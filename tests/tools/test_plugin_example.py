"""examples/plugin as an integrator uses it: installed, tested, listed, and run by `noetl-worker dev`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from integration.processes import environment
from noetl_worker.testing import HttpStub
from patience import PATIENCE_S

pytestmark = pytest.mark.pages

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir")

ALONE = {"PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
"""The plug-in asks for pytest alone, not for what our own tests have beside it."""
TYPED = """
import json, sys
from typer.testing import CliRunner
from noetl_worker.cli import app_for
print(json.dumps([CliRunner().invoke(app_for(line.split()), line.split()).stdout for line in sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A throw-away directory that the plug-in is installed into, without a network."""
    pytest.importorskip("hatchling", reason="the plug-in's build backend is in the test group")
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(PLUGIN, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    options = ("--no-index", "--no-deps", "--no-build-isolation", "--target", str(folder / "site"))
    subprocess.run(
        [sys.executable, *PIP, *options, str(source)], check=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL
    )
    return folder


def python(folder: Path, arguments: Sequence[str], *, cwd: str = "source") -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder / "site"), environment()["PYTHONPATH"]])
    return subprocess.run(
        [sys.executable, *arguments],
        env={**environment(), "PYTHONPATH": path, **ALONE, "NO_COLOR": "1", "COLUMNS": "200"},
        cwd=folder / cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        stdin=subprocess.DEVNULL,
    )


def test_plugins_own_tests_pass(installed: Path) -> None:
    done = python(installed, ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_installed_plugin_is_a_kind_like_the_others(installed: Path) -> None:
    done = python(installed, ["-c", TYPED, "tools", "tools webhook", "tools webhook --schema"])
    listed, shown, schema = json.loads(done.stdout)
    assert "webhook" in listed
    assert "Alias of a credential with a `secret`" in shown
    assert "`connection`: the receiver cannot be reached" in shown  # its guide was installed with it
    assert {"url", "event", "type", "auth", "credential"} <= json.loads(schema)["properties"].keys()


def test_playbook_with_the_plugin_runs_on_a_laptop(installed: Path) -> None:
    with HttpStub() as receiver:
        receiver.answer("POST /hooks", status=503, times=1)
        receiver.answer("POST /hooks", status=204)
        override = f"workload.receiver={receiver.url}/hooks"
        done = python(installed, ["-m", "noetl_worker", "dev", "playbook.yaml", "--set", override])
    assert done.returncode == 0, done.stdout + done.stderr
    refused, taken = receiver.requests
    assert taken.json["data"] == {"order": 17}
    assert refused.headers["webhook-id"] == taken.headers["webhook-id"]
    assert taken.headers["webhook-signature"].startswith("v1,")
    assert "whsec_" not in done.stdout


def test_package_that_does_not_load_is_told_and_the_rest_runs(installed: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(installed / "site", tmp_path / "site")
    (broken / "noetl_worker_webhook" / "webhook.py").write_text("import no_such_library\n", encoding="utf-8")
    shutil.copytree(installed / "source", tmp_path / "source")
    listed = python(tmp_path, ["-m", "noetl_worker", "tools"])
    assert listed.returncode == 0
    assert "noop" in listed.stdout
    assert "tool 'webhook' of noetl-worker-webhook 1.0.0 does not load: ModuleNotFoundError" in listed.stderr
