"""Packages that root installs while an image is built, used by a worker that may not write them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from noetl_worker.tools.kinds.python.packages.uv import uv_program
from tools.wheels import wheel

from .commands import USERS, interpreter_of, run_as

pytestmark = [
    pytest.mark.skipif("nobody" not in USERS, reason="needs root and an interpreter for nobody"),
    pytest.mark.skipif(uv_program() is None, reason="needs uv"),
]


@pytest.fixture
def image() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="image-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def test_packages_that_root_prefetched_are_used_by_a_worker_that_cannot_write_them(image: Path) -> None:
    wheel(image / "wheels", "alpha", "1.0", {"alpha.py": "NAME = 'alpha 1.0'\n"})
    config = image / "uv.toml"
    config.write_text(f'no-index = true\nfind-links = ["{image / "wheels"}"]\n')
    step = {
        "kind": "python",
        "python": interpreter_of("nobody"),
        "deps": {"packages": ["alpha"]},
        "code": "import alpha\ntry:\n    open(alpha.__file__, 'a')\nexcept PermissionError:\n    result = alpha.NAME",
    }
    book = {"apiVersion": "noetl.io/v2", "kind": "Playbook", "metadata": {"name": "p", "path": "p"}}
    (image / "p.yaml").write_text(json.dumps({**book, "workflow": [{"step": "start", "tool": step}]}))
    settings = {
        "python_packages": "wheels",
        "packages_dir": str(image / "packages"),
        "uv_config": str(config),
        "pythons": step["python"],
    }
    variables = {
        "NOETL_WORKER_PYTHON_PACKAGES": "wheels",
        "NOETL_WORKER_PACKAGES_DIR": settings["packages_dir"],
        "NOETL_WORKER_PYTHONS": settings["pythons"],
        "UV_CONFIG_FILE": settings["uv_config"],
    }
    prefetch = [sys.executable, "-m", "noetl_worker", "packages", "prefetch", str(image / "p.yaml")]
    subprocess.run(["env", *(f"{name}={value}" for name, value in variables.items()), *prefetch], check=True)
    shutil.rmtree(image / "wheels")
    del step["kind"]
    [ran] = run_as("nobody", "basic", [("python", step)], settings=settings)
    assert ran.get("data") == "alpha 1.0", ran
    [more] = run_as("nobody", "basic", [("python", {**step, "deps": {"packages": ["beta"]}})], settings=settings)
    assert "packages (NOETL_WORKER_PACKAGES_DIR) cannot be written" in more["error"]
