"""`noetl-worker packages`, and the example of a step that brings its packages, against an index of the tests."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from integration.processes import typed
from noetl_worker.pipeline.command.tool_rules import make_tool_settings, protected_paths
from noetl_worker.settings.settings import load_settings
from noetl_worker.tools.kinds.python.packages.uv import uv_program
from noetl_worker.tools.process import landlock
from tools.wheels import wheel

pytestmark = pytest.mark.skipif(uv_program() is None, reason="needs uv")
EXAMPLE = Path(__file__).parents[2] / "examples/packages.yaml"
HUMANIZE = "def naturalsize(size):\n    return f'{size} bytes'\n"
HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: p, path: p}\n"
STEPS = """
workflow:
  - step: start
    tool:
      kind: python
      code: |
        # /// script
        # dependencies = ["alpha"]
        # ///
        import alpha
        result = "{{ workload.who }}"
  - step: next
    tool:
      - name: one
        kind: python
        deps: {packages: ["{{ workload.package }}"]}
        code: "1"
      - name: two
        kind: python
        code: "2"
  - step: last
    tool: {kind: python, deps: {packages: [nosuch]}, code: "1"}
"""


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    wheels, config = tmp_path / "wheels", tmp_path / "uv.toml"
    wheel(wheels, "humanize", "4.9", {"humanize.py": HUMANIZE})
    wheel(wheels, "alpha", "1.0", {"alpha.py": ""})
    config.write_text(f'no-index = true\nfind-links = ["{wheels}"]\n')
    mode = {"NOETL_WORKER_PYTHON_PACKAGES": "wheels"}
    return {**mode, "NOETL_WORKER_PACKAGES_DIR": str(tmp_path / "packages"), "UV_CONFIG_FILE": str(config)}


def test_packages_are_installed_before_the_run_listed_and_removed(tmp_path: Path, variables: dict[str, str]) -> None:
    playbook = tmp_path / "p.yaml"
    playbook.write_text(HEAD + STEPS)
    fetched = typed("packages", "prefetch", str(playbook), **variables)
    assert (fetched.code, fetched.out) == (1, f"{playbook}:8: alpha\n")
    left_out, failed = fetched.err.splitlines()[:2]
    assert left_out == f"{playbook}:17: left out, since templates decide on its packages"
    assert failed.startswith(f"{playbook}:25: python: the packages cannot be resolved: No solution found")
    assert typed("packages", "prefetch", str(EXAMPLE), **variables).code == 0
    listed = json.loads(typed("packages", "list", "--json", **variables).out)
    assert [one["requirements"] for one in listed] == [["humanize==4.*"], ["alpha"]]
    assert "humanize==4.*" in typed("packages", "list", **variables).out
    assert typed("packages", "clean", **variables).out == "removed: 2 environments, 0 MiB\n"
    assert typed("packages", "list", **variables).err == "0 environments, 0 MiB\n"


def test_packages_that_are_off_are_not_fetched(variables: dict[str, str]) -> None:
    ended = typed("packages", "prefetch", str(EXAMPLE), **{**variables, "NOETL_WORKER_PYTHON_PACKAGES": ""})
    assert ended.code == 1
    assert "NOETL_WORKER_PYTHON_PACKAGES is off" in ended.err


def test_dev_installs_wheels_without_a_setting_and_says_so(variables: dict[str, str]) -> None:
    del variables["NOETL_WORKER_PYTHON_PACKAGES"]
    ended = typed("dev", str(EXAMPLE), **variables)
    assert ended.code == 0, ended.err
    assert "start (packages) | installing 1 package" in ended.out
    assert '{"size":"123456789 bytes"}' in ended.out
    again = typed("dev", str(EXAMPLE), **variables)
    assert (again.code, "installing" in again.out) == (0, False)


def test_packages_are_closed_to_commands_in_a_place_of_their_own(tmp_path: Path) -> None:
    def closed(**variables: str) -> tuple[str, ...]:
        usual = {"NOETL_WORKER_PYTHON_PACKAGES": "wheels", "NOETL_WORKER_PACKAGES_DIR": "/var/lib/noetl-packages"}
        return protected_paths(load_settings({**usual, **variables}, dotenv=tmp_path / "none"))

    there = ("/var/lib/noetl-packages",) if landlock.is_there() else ()
    assert closed() == there
    assert closed(NOETL_WORKER_PACKAGES_DIR=f"{tempfile.gettempdir()}/packages") == ()  # commands make files beside it
    assert closed(NOETL_WORKER_ALLOW_NAMESPACES="true") == ()  # with rules for files nothing can be mounted
    assert closed(NOETL_WORKER_ISOLATION="off") == ()
    assert closed(NOETL_WORKER_PYTHON_PACKAGES="off") == ()


def test_packages_of_a_worker_that_may_write_to_var_lib_are_closed_to_commands_without_a_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def directory() -> str:
        settings = load_settings({"NOETL_WORKER_PYTHON_PACKAGES": "wheels"}, dotenv=tmp_path / "none")
        closed = protected_paths(settings)
        found = make_tool_settings(settings).packages_dir
        assert closed == ((found,) if found.startswith("/var/lib/") and landlock.is_there() else ())
        return found

    machines = Path("/var/lib/noetl-worker")
    may_write = os.access(machines if machines.exists() else machines.parent, os.W_OK)
    of_the_user = Path.home() / ".local/state/noetl-worker/packages"
    assert directory() == (f"{machines}/packages" if may_write else str(of_the_user))
    monkeypatch.setattr(os, "access", lambda path, mode: "/var/lib" not in str(path))
    assert directory() == str(of_the_user)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_STATE_HOME", str(Path.home() / "state"))
    assert directory() == str(Path.home() / "state/noetl-worker/packages")
    monkeypatch.setenv("STATE_DIRECTORY", str(Path.home() / "service"))
    assert directory() == str(Path.home() / "service/packages")
