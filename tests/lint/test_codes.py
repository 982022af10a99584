"""Each code has an example and broken playbooks that give it alone, docs/check.md is made of them, and no text breaks
the check."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

pytest.importorskip("yaml")
from dev.test_playbook import UNREADABLE
from lint.head import HEAD
from noetl_worker.authoring.lint.codes import CODES, Code
from noetl_worker.authoring.lint.inspector import inspect_text
from noetl_worker.authoring.lint.page import page
from noetl_worker.engine import chosen as engine
from noetl_worker.tools.registry import Registry

ROOT = Path(__file__).parents[2]
REGISTRY = Registry(plugins=False)
BROKEN = {file.stem: file.read_text(encoding="utf-8") for file in sorted((ROOT / "tests/lint/broken").glob("*.yaml"))}
"""Sixty playbooks with one mistake each, of the kind that people make."""
VALUES = (
    "null", "[]", "{}", "1", '"{{ x }}"', "[[1]]", "{a: {b: [1]}}", "2020-01-01", ".nan", "!!binary aGk=", "*a", "&a b",
    "{1: 2}", '"\\u202e\\x1b"', "1e400", "!!set {a}", "!!python/object:os.system {}", "&a [*a]",
)  # fmt: skip


def skip_without_a_parser_of_rhai() -> None:
    if engine.ENGINE != "rust":
        pytest.skip("rhai has its parser in the native build")


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_example_of_a_code_gives_it_alone(code: Code) -> None:
    if code.name == "NW602":
        skip_without_a_parser_of_rhai()
    names = ["shop"] if code.name == "NW404" else None
    text = code.example if "apiVersion" in code.example or code.name in ("NW100", "NW108") else code.example + HEAD
    found = inspect_text(text, "p.yaml", REGISTRY, credentials=names)
    assert [one.code for one in found] == [code.name]
    assert code.is_judged or found[0].severity == code.severity


def said(text: str, name: str) -> str | None:
    """What a comment at the top of a file says."""
    found = re.search(rf"^# {name}: (.+)$", text, re.MULTILINE)
    return found[1] if found is not None else None


@pytest.mark.parametrize("name", BROKEN)
def test_mistake_is_the_one_finding_at_its_line(name: str) -> None:
    text = BROKEN[name]
    if said(text, "needs") == "rhai":
        skip_without_a_parser_of_rhai()
    plane, names = said(text, "plane"), said(text, "credentials")
    credentials = names.split(", ") if names is not None else None
    found = inspect_text(text, f"{name}.yaml", REGISTRY, plane=plane, credentials=credentials)
    assert [f"{one.code} {one.line}" for one in found] == [said(text, "expect")], found
    assert plane is None or found[0].severity == "error"


def test_each_code_has_a_broken_playbook() -> None:
    assert {(said(text, "expect") or "").split()[0] for text in BROKEN.values()} == set(CODES)


def test_page_is_what_make_docs_gives() -> None:
    assert (ROOT / "docs/check.md").read_text(encoding="utf-8") == page(), "run make docs"


@pytest.mark.parametrize("text", [text for text, _ in UNREADABLE], ids=[said for _, said in UNREADABLE])
def test_text_that_is_not_yaml_is_an_error(text: str) -> None:
    assert [(one.code, one.severity) for one in inspect_text(text, "p.yaml", REGISTRY)] == [("NW100", "error")]


@pytest.mark.parametrize("seed", range(4))
def test_no_text_ends_in_anything_but_findings(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(100):
        lines = chance.choice([*BROKEN.values()]).split("\n")
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(lines))
            key, colon, _ = lines[place].partition(":")
            mended = f"{key}: {chance.choice(VALUES)}" if colon else lines[place][1:]
            lines[place : place + 1] = chance.choice([[mended], [], [lines[place]] * 2, [lines[place].lstrip()]])
            lines = lines or [""]
        assert isinstance(inspect_text("\n".join(lines), "p.yaml", REGISTRY), list)


@pytest.mark.parametrize(
    "text",
    ["", "\0", "- " * 2000, "[" * 5000, "a: &a [1]\nb: &b [*a, *a]\n", "x: &x {y: *x}\n", "\udc80", "workflow: *none"],
    ids=["empty", "null", "dashes", "deep", "aliases", "cycle", "surrogate", "no-anchor"],
)
def test_text_that_is_no_playbook_is_one_error(text: str) -> None:
    found = inspect_text(text, "p.yaml", REGISTRY)
    assert [one.severity for one in found if one.code in ("NW100", "NW104", "NW105")][:1] == ["error"]


@pytest.mark.parametrize(
    "last",
    [
        "{step: last, loop: {in: '{{ workload.n }}', iterator: start}, tool: {kind: noop, result: '{{ start.id }}'}}",
        "{step: last, tool: [{name: start, kind: noop}, {name: two, kind: noop, result: '{{ start.id }}'}]}",
    ],
)
def test_iterator_or_task_that_is_called_as_a_step_has_keys_of_its_own(last: str) -> None:
    text = (
        "workload: {n: [{id: 1}]}\nworkflow:\n"
        "- {step: start, tool: {kind: shell, command: ls}, next: {arcs: [{step: last}]}}\n"
        f"- {last}\n{HEAD}"
    )
    assert inspect_text(text, "p.yaml", REGISTRY) == []


def test_number_and_text_of_one_look_are_two_keys() -> None:
    text = "workload: {1: a, '1': b}\nworkflow: [{step: start, tool: {kind: noop}}]\n"
    assert inspect_text(text + HEAD, "p.yaml", REGISTRY, plane="rust") == []


def test_message_about_a_secret_has_nothing_of_it() -> None:
    found = inspect_text(CODES["NW604"].example, "p.yaml", REGISTRY)
    assert "9fK2" not in found[0].message
