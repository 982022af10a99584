"""docs/tools, the guides its pages are made of, and `noetl-worker tools`."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from noetl_worker.cli import main
from noetl_worker.errors import ConfigurationError
from noetl_worker.tools import requirements
from noetl_worker.tools.docs.description import describe_kind
from noetl_worker.tools.docs.guide import parse_guide, read_guide
from noetl_worker.tools.docs.reference import reference_pages, write_pages
from noetl_worker.tools.docs.schema import json_schema
from noetl_worker.tools.error_kinds import ERROR_KINDS
from noetl_worker.tools.kinds.noop.noop import NoopTool
from noetl_worker.tools.registry import Registry

ROOT = Path(__file__).parents[2]
REGISTRY = Registry(plugins=False)
KINDS = REGISTRY.kinds()


def command(*arguments: str, **variables: str | None) -> SimpleNamespace:
    """Run `noetl-worker tools` in this process. The copy of tests/tools/test_added_kind.py has these tests alone."""
    words = mock.patch.object(sys, "argv", ["noetl-worker", "tools", *arguments])
    with words, CliRunner().isolation(env=variables) as (out, err, _):
        with pytest.raises(SystemExit) as ended:
            main()
        sys.stderr.flush()
        return SimpleNamespace(
            code=int(ended.value.code or 0), out=out.getvalue().decode(), err=err.getvalue().decode()
        )


# ── docs/tools ───────────────────────────────────────────────────────────────────────────────


def pages_in(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_pages_are_what_the_models_and_guides_give_and_no_others() -> None:
    made = reference_pages(map(REGISTRY.get, KINDS))
    assert made.keys() == {"README.md", *(f"{kind}.md" for kind in KINDS)}
    assert pages_in(ROOT / "docs" / "tools") == made, "docs/tools is not what `make docs` gives"


def test_page_of_a_kind_that_is_gone_goes_too(tmp_path: Path) -> None:
    write_pages(tmp_path, map(REGISTRY.get, KINDS))
    write_pages(tmp_path, [REGISTRY.get("noop")])
    assert pages_in(tmp_path).keys() == {"README.md", "noop.md"}


def test_page_that_somebody_wrote_is_neither_replaced_nor_deleted(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Mine\n", encoding="utf-8")
    ended = command("--markdown", str(tmp_path))
    assert (ended.code, pages_in(tmp_path)) == (2, {"README.md": "# Mine\n"})
    assert "README.md, written by hand: name another directory" in ended.err


@pytest.mark.parametrize("kind", KINDS)
def test_guide_has_a_result_an_example_that_validates_and_known_failures(kind: str) -> None:
    tool = REGISTRY.get(kind)
    guide = read_guide(tool)
    assert guide.result or describe_kind(tool).result
    assert set(guide.errors) <= set(ERROR_KINDS)
    example = yaml.safe_load(guide.example)
    if isinstance(example, list):
        assert kind in ("task_sequence", *(task["kind"] for task in example))
        assert _errors("task_sequence", {"tasks": example}) == []
    else:
        assert example["kind"] == kind
    tasks = example if isinstance(example, list) else [example]
    assert [error for task in tasks for error in _errors(task["kind"], task)] == []


def _errors(kind: str, config: dict[str, Any]) -> list[str]:
    return [error.message for error in strict_schema(kind).iter_errors(config)]


@functools.cache
def strict_schema(kind: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json_schema(REGISTRY.get(kind), strict=True))


@pytest.mark.parametrize(("columns", "width"), [(None, 120), ("", 120), ("90", 90), ("wide", 120)])
def test_table_in_a_pipe_is_as_wide_as_asked_for_and_no_wider_than_a_terminal(columns: str | None, width: int) -> None:
    rows = [line for line in command(COLUMNS=columns).out.splitlines() if line.startswith(tuple("┏┃┡│└"))]
    assert rows
    assert width - 10 < max(map(len, rows)) <= width


def test_guide_of_another_form_says_what_is_wrong() -> None:
    with pytest.raises(ConfigurationError, match="guide of 'x': heading 'Exmaple' is none of Example, Result, Errors"):
        parse_guide("## Exmaple\n\nx\n", "x")
    with pytest.raises(ConfigurationError, match="guide of 'x': the line 'timeout - late' must have the form"):
        parse_guide("## Errors\n\ntimeout - late\n", "x")


# ── noetl-worker tools ──────────────────────────────────────────────────────────────────────────


def test_list_has_every_kind_with_what_it_does() -> None:
    ended = command(COLUMNS="200")  # a sentence is one line
    assert ended.code == 0
    assert set(KINDS) <= set(ended.out.split())
    assert "Does nothing, and returns `result` or a short message" in ended.out


def test_what_is_to_be_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module == "duckdb" else find_spec(module))
    monkeypatch.setitem(sys.modules, "noetl_worker._core", None)
    told = {line.split()[1]: line for line in command().out.splitlines() if line.startswith("│") and line[2] != " "}
    assert "noetl-worker[duckdb]" in told["duckdb"]
    assert "the native build" in told["rhai"]
    assert "noetl-worker[" not in told["noop"]


def test_what_a_plugin_requires_is_told_too() -> None:
    class Needy(NoopTool):
        kind = "needy"
        requires: ClassVar[Mapping[str, str]] = {
            "json": "part of Python",
            "no_such_library": "pip install no-such-library",
            "no_such_library.part": "pip install no-such-library[part]",
        }

    assert requirements.missing(Needy()) == ("pip install no-such-library", "pip install no-such-library[part]")


def test_every_extra_that_is_named_exists() -> None:
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    registry = Registry(plugins=False)
    hints = [how for kind in KINDS for how in getattr(registry.get(kind), "requires", {}).values()]
    named = {extra for how in hints for extra in re.findall(r"^noetl-worker\[(\w+)\]", how)}
    assert len(hints) > 10
    assert named <= set(project["optional-dependencies"])


def test_one_kind_is_shown_with_fields_example_and_failures() -> None:
    shown = command("playbooks").out
    assert shown.strip() in (ROOT / "docs" / "tools" / "playbook.md").read_text(encoding="utf-8")
    assert shown.startswith("# playbook\n\nStarts another playbook")
    assert "Also: `playbooks`." in shown
    assert "Wait for the end of the child execution, and return the child's result" in " ".join(shown.split())
    assert "`not_found`: there is no such playbook" in shown
    assert "\nkind: playbook\n" in shown


def test_unknown_kind_is_an_error_that_names_the_nearest() -> None:
    ended = command("playbok")
    assert ended.code == 2
    assert "did you mean 'playbook'?" in ended.err


def test_schemas_of_one_and_of_all() -> None:
    one = json.loads(command("noop", "--schema").out)
    assert one["properties"]["kind"]["enum"] == ["noop"]
    everything = json.loads(command("--schema").out)
    assert set(KINDS) <= everything.keys()
    assert everything["noop"] == one
    assert json.loads(command("noop", "--schema", "--strict").out)["additionalProperties"] is False


def test_schema_of_a_playbook_knows_every_kind() -> None:
    schema = json.loads(command("--schema", "--playbook").out)
    assert set(KINDS) <= set(schema["$defs"]["tool"]["properties"]["kind"]["enum"])


def test_pages_are_written_of_all_kinds_at_once(tmp_path: Path) -> None:
    assert command("--markdown", str(tmp_path / "new")).code == 0
    assert pages_in(tmp_path / "new") == reference_pages(map(REGISTRY.get, KINDS))
    ended = command("noop", "--markdown", str(tmp_path / "one"))
    assert (ended.code, (tmp_path / "one").exists()) == (2, False)
    assert "leave out noop" in ended.err
