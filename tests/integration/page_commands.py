"""The commands of a page: what stands in its fences, and what it shows of their output."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from patience import PATIENCE_S

ROOT: Final = Path(__file__).resolve().parents[2]
NOT_RUN: Final = {
    "pip install": "asks a package registry; tests/packaging installs the wheels",
    "noetl-worker exec postgres": "a database of the reader's; tests/integration/test_examples.py runs it",
    "make ": "runs the tests, this one among them, or takes minutes; test_demo_of_a_clone.py runs the demo",
    "helm ": "installs on a cluster; tests/packaging/test_chart_page.py renders what it would install",
    "kubectl ": "asks a cluster",
    "docker ": "pushes to a registry of the reader's; make image-test builds the image and runs it",
    "noetl-worker dev --watch": "runs until Ctrl-C; tests/local/test_watch.py runs it",
    "noetl-worker bridge": "runs until it is stopped; tests/bridge runs it",
    "noetl-worker completion fish": "fish is not on every machine; bash's form stands beside it and is run",
}
"""How a command begins that is not run, and why."""
_GROUPS: Final = ("dead-letters", "nats")
_SHELL: Final = "<>|&;$`*?~\\!"
"""Characters that mean something to bash."""
_FENCE: Final = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_SAVED: Final = re.compile(r"Save this as `([\w.-]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Line:
    """One command as the page has it, where it stands, and the output that is shown (None: none is)."""

    text: str
    number: int
    output: str | None

    @property
    def why_not(self) -> str | None:
        """Why it is not run; None if it is."""
        return next((reason for start, reason in NOT_RUN.items() if self.text.startswith(start)), None)

    @property
    def words(self) -> list[str] | None:
        """What `noetl-worker` is given; None where bash has more to do than to split it into words."""
        words = shlex.split(self.text, comments=True)
        is_plain = words[0] == "noetl-worker" and not {*"".join(words)} & {*_SHELL}
        return words[1:] if is_plain else None

    @property
    def stays(self) -> bool:
        """Whether it is a worker, which runs until it is stopped."""
        words = re.sub(r"\s#.*", "", self.text).split()
        command = [word for word in words if not re.match(r"[A-Z_]+=", word)]
        return command == ["noetl-worker"] or command[:2] == ["noetl-worker", "run"]


def pages() -> dict[str, list[Line]]:
    """Every page with a command, as a path from the root, and its commands."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
    commands = {path.relative_to(ROOT).as_posix(): commands_of(path.read_text(encoding="utf-8")) for path in found}
    return {page: lines for page, lines in commands.items() if lines}


def first_of_each() -> set[tuple[str, int]]:
    """(page, number) of the first line with each command, as `doctor` and `nats ensure`."""
    found: dict[tuple[str, ...], tuple[str, int]] = {}
    for page, lines in pages().items():
        for line in lines:
            words = line.words if line.why_not is None else None
            if words:
                name = tuple(words[: 2 if words[0] in _GROUPS else 1])
                found.setdefault(name, (page, line.number))
    return set(found.values())


def commands_of(page: str) -> list[Line]:
    """In the page's order. A line that ends in a backslash goes on in the next one."""
    found: list[Line] = []
    for fence in _FENCE.finditer(page):
        indent, language, body = fence.groups()
        first = page[: fence.start(3)].count("\n") + 1
        lines = [line.removeprefix(indent) for line in body.splitlines()]
        if language in ("sh", "bash"):
            found += _script(lines, first)
        elif language == "console":
            found += _session(lines, first)
    return found


def _script(lines: list[str], first: int) -> Iterator[Line]:
    text = ""
    for number, line in enumerate(lines, first):
        text += line.strip()
        if text.endswith("\\"):
            text = text[:-1]
        elif text:
            if not text.startswith("#"):
                yield Line(text, number, None)
            text = ""


def _session(lines: list[str], first: int) -> Iterator[Line]:
    starts = [place for place, line in enumerate(lines) if line.startswith("$ ")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield Line(lines[start][2:], first + start, "\n".join(lines[start + 1 : end]))


def files_of(page: str) -> dict[str, str]:
    """What the page says to save: {name: content}."""
    return dict(_SAVED.findall(page))


def fresh_clone(into: Path) -> None:
    """This repository as it is committed; of a source without one (an sdist) the examples, which pages name."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        shutil.copytree(ROOT / "examples", into / "examples")
        return
    command = ["git", "clone", "-q", str(ROOT), str(into)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr


def shows(shown: str, output: str) -> bool:
    """Whether the output is what the page shows: three dots stand for anything, lines too where they are a line."""
    parts = (
        r"(?:.*\n)*?" if line.strip() == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r"\n"
        for line in shown.splitlines()
    )
    return re.fullmatch("".join(parts), output.rstrip("\n") + "\n") is not None
