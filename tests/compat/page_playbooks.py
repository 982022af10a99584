"""The playbooks of docs/playbooks.md, and those behind its tables (`playbooks/forms.md`), with what each gives.

A fence of YAML is a playbook. Its first lines say what comes of it: `# gives: VALUE` is the result of the last command
(`gives on the Python plane:`, `gives on the Rust plane:` where they differ), `failed`, `refused`, or `stands still`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from noetl_worker.models import Dialect

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "playbooks.md"
FORMS: Final = Path(__file__).resolve().parent / "playbooks" / "forms.md"
FAILED: Final = "failed"
REFUSED: Final = "refused"
STANDS_STILL: Final = "stands still"
_FENCE: Final = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_GIVES: Final = re.compile(r"^# gives(?: on the (Python|Rust) plane)?: (.+)$", re.MULTILINE)
_HEAD: Final = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{name: {name}, path: page/{name}}}\n"


@dataclass(frozen=True)
class PagePlaybook:
    name: str
    content: str
    gives: dict[Dialect, Any]

    @property
    def path(self) -> str:
        return f"page/{self.name}"


def page_playbooks() -> list[PagePlaybook]:
    """In the order of the page; a name is the file's, the line and the last heading before it."""
    return [one for file in (PAGE, FORMS) for one in _playbooks_of_page(file)]


def _playbooks_of_page(file: Path) -> list[PagePlaybook]:
    text = file.read_text(encoding="utf-8")
    found: list[PagePlaybook] = []
    for fence in _FENCE.finditer(text):
        heading = re.findall(r"^#+ (.+)$", _without_fences(text[: fence.start()]), re.MULTILINE)[-1]
        name = re.sub(r"[^a-z0-9]+", "-", f"{file.stem} {len(found) + 1} {heading}".lower()).strip("-")
        document = re.sub(r"^(apiVersion|kind|metadata):.*\n", "", fence[1], flags=re.MULTILINE)
        found.append(PagePlaybook(name, _HEAD.format(name=name) + document, _gives(fence[1])))
    return found


def _without_fences(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def _gives(playbook: str) -> dict[Dialect, Any]:
    found: dict[Dialect, Any] = {}
    for plane, value in _GIVES.findall(playbook):
        for dialect in [Dialect(plane.lower())] if plane else Dialect:
            found[dialect] = yaml.safe_load(value)
    return found
