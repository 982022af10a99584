"""Prints the other CPython interpreters (3.10, 3.12, 3.13, ...) that this machine has, one a line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

WANTED = ("3.10", "3.11", "3.12", "3.13")


def candidates(version: str) -> list[str]:
    root = os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))
    found = sorted(str(path) for path in Path(root, "versions").glob(f"{version}.*/bin/python3"))
    on_path = shutil.which(f"python{version}")
    return [*found, *([on_path] if on_path else [])]


def works(python: str, version: str) -> bool:
    code = "import sys, venv, ssl, sqlite3; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.returncode == 0 and done.stdout.strip() == version


def main() -> None:
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for version in WANTED:
        if version == here:
            continue
        python = next((one for one in candidates(version) if works(one, version)), None)
        if python:
            print(python)


if __name__ == "__main__":
    main()
