"""What pages name in the middle of a sentence is there: commands with their flags, make targets, variables, files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from noetl_worker.cli import app_for
from noetl_worker.settings.settings import SETTINGS

ROOT = Path(__file__, "../../..").resolve()
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/tools/*.md"))
    if path.name != "CHANGELOG.md"  # which names what was, too
)
SETTABLE = {name for line in SETTINGS for name in (*line.names, line.file_variable)}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
STANDS_FOR = ("KIND", "/x.rs")
"""In names of files that are the reader's to choose."""


def spans(page: str) -> Iterator[str]:
    """The text between backticks, outside of fences."""
    text = re.sub(r"^( *)```.*?^\1```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text):
        yield " ".join(span.split())


def wrong_in(span: str) -> str | None:
    """What of it is not there."""
    if (target := re.match(r"make ([a-z-]+)", span)) and target[1] not in TARGETS:
        return f"no target {target[1]}"
    if command := re.match(r"(?:[A-Z_]+=\S+ )*noetl-worker (.+)", span):
        return unknown_word(command[1].split())
    is_file = re.fullmatch(r"(?:tests|benches|deploy|docs|examples|python|rust)/[\w./-]+", span)
    if is_file and not any(one in span for one in STANDS_FOR) and not (ROOT / span).exists():
        return f"no file {span}"
    return None


@cache
def command_line() -> Any:
    return get_command(app_for())


def unknown_word(words: list[str]) -> str | None:
    command = command_line()
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    if hasattr(command, "commands") and words and not words[0].startswith("-"):
        return f"no command {words[0]}"
    known = {"--help", *(name for one in command.params for name in (*one.opts, *one.secondary_opts))}
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    return next((f"no flag {flag}" for flag in flags if flag not in known), None)


@pytest.mark.parametrize("page", PAGES)
def test_what_a_sentence_names_is_there(page: str) -> None:
    assert [(span, wrong) for span in spans(page) if (wrong := wrong_in(span)) is not None] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/migration.md"])
def test_variables_that_a_page_names_are_settings(page: str) -> None:
    """docs/migration.md names those of other workers: test_migration_docs.py."""
    named = {one for span in spans(page) for one in re.findall(r"\b(?:NOETL_WORKER|WORKER|NATS)_[A-Z_]+\b", span)}
    assert sorted(named - SETTABLE) == []
