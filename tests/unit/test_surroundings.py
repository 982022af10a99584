"""What a person and a machine have is not in the tests (tests/surroundings.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
LOOKS = """
import json, os, pathlib, tempfile
def test_looks(worker_id):
    temporary, seen = pathlib.Path(tempfile.gettempdir()), dict(os.environ)
    found = [seen, str(pathlib.Path.home()), str(temporary), os.path.exists(".env"), oct(temporary.stat().st_mode)]
    pathlib.Path(seen["FOUND"], worker_id).write_text(json.dumps(found))
"""


def test_settings_home_and_temporary_files_of_a_person_are_in_no_process_of_the_tests(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.mkdir()
    (tmp_path / "conftest.py").write_text("pytest_plugins = ['surroundings']\n")
    (tmp_path / "test_it.py").write_text(LOOKS)
    (tmp_path / ".env").write_text("WORKER_ID=mine\n")
    of_a_person = {"NATS_URL": "nats://mine", "PGHOST": "mine", "AWS_PROFILE": "mine", "http_proxy": "http://mine"}
    asked = {"HOME": str(tmp_path), "TMPDIR": str(usual), "PYTHONPATH": str(TESTS), "FOUND": str(tmp_path)}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", "--dist", "each", "test_it.py"],
        env={**kept, **of_a_person, **asked, "NOETL_WORKER_ENGINE": "python"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads((tmp_path / worker).read_text()) for worker in ("gw0", "gw1")]
    for variables, home, temporary, has_dotenv, mode in found:
        assert of_a_person.keys() & variables.keys() == set()
        assert variables["NOETL_WORKER_ENGINE"] == "python"
        assert Path(home).parent == Path(temporary)
        assert Path(temporary).parents[1] == usual
        assert (has_dotenv, mode) == (False, "0o41777")
    assert found[0][2] != found[1][2]
    assert [path.name for path in usual.iterdir() if path.name.startswith("noetl-tests-")] == []
