"""docs/protocol: each fact has evidence that can be opened, and each reference from the code leads to a heading."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted(ROOT.joinpath("docs/protocol").glob("*.md"))
MARK: Final = re.compile(r"\[((?:py|rs|feed|values|test|source) [^\]]+)\]")
REFERENCE: Final = re.compile(r"\bprotocol/([a-z]+\.md)(?:#([a-z0-9-]+))?")
FOLDERS: Final = ("python", "rust", "tests", "benches")
SESSION: Final = "*"
"""`[rs *]`: the whole session of the published worker, whose records have no names."""


def facts(page: Path) -> list[str]:
    """Its list items and the rows of its tables that have evidence, each on one line."""
    text = re.sub(r"\n +", " ", page.read_text(encoding="utf-8"))
    rows = [line for line in text.splitlines() if line.startswith("| ") and MARK.search(line)]
    return [line for line in text.splitlines() if line.startswith("* ")] + rows


def evidence(fact: str) -> list[tuple[str, str]]:
    """(kind, name) of each thing that shows it."""
    found: list[tuple[str, str]] = []
    for marks in MARK.findall(fact):
        for mark in marks.split("; "):
            kind, _, names = mark.partition(" ")
            found += [(kind, name.strip()) for name in names.split(", ")]
    return found


@cache
def recorded(plane: str) -> frozenset[str]:
    file = ROOT / f"tests/compat/samples/{plane}-control-plane-cases.jsonl"
    return frozenset(json.loads(line)["case"] for line in file.read_text(encoding="utf-8").splitlines()) | {SESSION}


def is_there(kind: str, name: str) -> bool:
    if kind == "source":
        return re.search(r"\d+\.\d+\.\d+$", name) is not None
    if kind == "test":
        return (ROOT / "tests" / name).is_file()
    if kind == "feed":
        return (ROOT / f"tests/compat/samples/rust-plane-3.83/{name}.jsonl").is_file()
    if kind == "values":
        return any((ROOT / "tests/compat/values/playbooks").rglob(f"{name}.yaml"))
    return name in recorded({"py": "python", "rs": "rust"}[kind])


def headings(page: Path) -> set[str]:
    lines = page.read_text(encoding="utf-8").splitlines()
    names = [line.lstrip("# ").lower() for line in lines if line.startswith("#")]
    return {re.sub(r"[^a-z0-9 -]", "", name).replace(" ", "-") for name in names}


FACT_PAGES: Final = [page for page in PAGES if page.name != "README.md"]
each_page = pytest.mark.parametrize("page", FACT_PAGES, ids=[page.stem for page in FACT_PAGES])


@each_page
def test_every_fact_has_evidence_that_is_there(page: Path) -> None:
    assert facts(page)
    assert [fact for fact in facts(page) if not evidence(fact)] == []
    assert [one for fact in facts(page) for one in evidence(fact) if not is_there(*one)] == []


def test_references_from_the_code_lead_to_a_heading() -> None:
    known = {page.name: headings(page) for page in PAGES}
    files = [file for folder in FOLDERS for end in ("py", "rs") for file in (ROOT / folder).rglob(f"*.{end}")]
    found = [(file, *named) for file in files for named in REFERENCE.findall(file.read_text(encoding="utf-8"))]
    lost = [
        f"{file.relative_to(ROOT)}: {page}#{anchor}"
        for file, page, anchor in found
        if page not in known or (anchor and anchor not in known[page])
    ]
    assert lost == []


def test_the_list_of_pages_is_whole() -> None:
    listed = set(re.findall(r"^\| \[([a-z]+\.md)\]", (PAGES[0].parent / "README.md").read_text(encoding="utf-8"), re.M))
    assert listed == {page.name for page in FACT_PAGES}
