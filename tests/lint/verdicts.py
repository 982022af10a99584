"""What the planes' own readers say of playbooks: recorded, or asked now.

The Python plane's is package `noetl` 4.0.0 in an environment of its own (CPython 3.12); the Rust plane's rows were made
with the parser of noetl-server 3.54.0. `python tests/lint/verdicts.py 2000` asks the first about so many mutations, and
compares what `check --plane python` says of each.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lint.mutations import mutated
from noetl_worker.authoring.lint.findings import Mistake
from noetl_worker.authoring.lint.inspector import inspect_text
from noetl_worker.tools.registry import Registry

ROOT: Final = Path(__file__).resolve().parents[2]
RECORDED: Final = ROOT / "tests/lint/verdicts.jsonl"
FOLDERS: Final = ("examples", "tests/compat/playbooks", "tests/compat/values", "tests/lint/broken")
ENVIRONMENT: Final = ROOT / ".compat" / "noetl-4.0.0"
PACKAGE: Final = "noetl==4.0.0"
_OF_A_REFUSAL: Final = ("NW1", "NW402", "NW308", "NW507", "NW511", "NW503")
"""Errors that say a plane refuses the playbook; the others say that a command of it fails."""
_ASKED: Final = """
import json, logging, sys, yaml
logging.disable(logging.CRITICAL)
from noetl.core.dsl.engine.models.executor import Playbook
for line in sys.stdin:
    try:
        document = yaml.safe_load(json.loads(line)) or {}
        Playbook.model_validate(document)
        accepted = Playbook(**document).apiVersion == "noetl.io/v2"
        spec = document.get("executor") and document["executor"].get("spec")
        entry = spec and spec.get("entry_step")
        accepted = accepted and (not entry or entry in [step["step"] for step in document["workflow"]])
    except Exception:
        accepted = False
    print(json.dumps(bool(accepted)), flush=True)
"""


class Verdict(NamedTuple):
    file: str
    seed: int | None
    """Of the mutation; None: the file as it is."""
    python: bool
    rust: bool

    def text(self) -> str:
        return text_of(self.file, self.seed)


def text_of(file: str, seed: int | None) -> str:
    text = (ROOT / file).read_text(encoding="utf-8")
    return text if seed is None else mutated(text, seed)


def recorded() -> list[Verdict]:
    return [Verdict(**json.loads(line)) for line in RECORDED.read_text(encoding="utf-8").splitlines()]


def playbooks() -> list[str]:
    files = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.yaml"))]
    return [str(file.relative_to(ROOT)) for file in files if "workflow:" in file.read_text(encoding="utf-8")]


def disagreement(found: Sequence[Mistake], *, accepted: bool) -> str | None:
    """Return what `check` says wrongly: an error of what is taken, or nothing of what is refused."""
    if not accepted:
        return None if any(one.severity == "error" for one in found) else "nothing is said of what is refused"
    wrong = [one for one in found if one.severity == "error" and one.code.startswith(_OF_A_REFUSAL)]
    return f"false: {wrong[0].code} {wrong[0].message}" if wrong else None


def ask_python(texts: Sequence[str]) -> Iterator[bool]:
    """Raises CalledProcessError: the environment cannot be made."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        interpreter = os.environ.get("NOETL_PYTHON_312") or shutil.which("python3.12") or "python3.12"
        subprocess.run([interpreter, "-m", "venv", str(ENVIRONMENT)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", PACKAGE], check=True)
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    answered = subprocess.run([str(python), "-c", _ASKED], input=lines, text=True, capture_output=True, check=True)
    yield from map(json.loads, answered.stdout.splitlines())


def drawn(count: int, first_seed: int) -> dict[str, str]:
    """Return the text of each playbook, and of so many mutations, by its name."""
    files = playbooks()
    cases: list[tuple[str, Any]] = [(file, None) for file in files]
    cases += [(files[index * 7919 % len(files)], first_seed + index) for index in range(count)]
    return {f"{file}, seed {seed}": _text_of_case((file, seed)) for file, seed in cases}


def main(count: int, first_seed: int) -> int:
    texts, registry, wrong = drawn(count, first_seed), Registry(plugins=False), 0
    for (name, text), accepted in zip(texts.items(), ask_python(list(texts.values())), strict=True):
        said = disagreement(inspect_text(text, name, registry, plane="python"), accepted=accepted)
        if said is not None:
            wrong += 1
            print(f"{name}: {said}")
    print(f"{len(texts):,} playbooks, {wrong} of them with another verdict than the Python plane's")
    return 1 if wrong else 0


def _text_of_case(case: tuple[str, Any]) -> str:
    try:
        return text_of(*case)
    except Exception as error:  # of the few that are no YAML there is no mutation
        return f"# {type(error).__name__}\n" + text_of(case[0], None)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else 0))
