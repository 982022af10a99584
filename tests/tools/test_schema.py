"""JSON Schemas of the tool kinds: they take what the registry takes, and refuse what it refuses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Literal

import jsonschema
import pytest
import yaml
from mashumaro import field_options

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models import ToolResult
from noetl_worker.testing import tool_context
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.docs.description import describe_kind, field_docs
from noetl_worker.tools.docs.playbook_schema import playbook_schema
from noetl_worker.tools.docs.schema import json_schema
from noetl_worker.tools.registry import Registry
from tools import tool_configs

REGISTRY = Registry(plugins=False)
KINDS = REGISTRY.kinds()


@dataclass(frozen=True, slots=True)
class Side:
    path: str
    """Where it lies."""
    limit: int | None = None
    """How many rows, all when absent."""


@dataclass(frozen=True, slots=True)
class EveryTypeConfig:
    """Has a field of every type. The second sentence is no summary.

    Result: `{rows}`, or nothing.

    More of it.
    """

    query: str
    """What is asked."""
    source: Side | None = None
    """Where from,
    over two lines."""
    count: int = 1
    ratio: float = 0.5
    loud: bool = False
    mode: Literal["fast", "safe"] = "fast"
    names: list[str] = field(default_factory=list)
    env: dict[str, int] = field(default_factory=dict)
    many: str | list[str] | None = None
    whatever: Any = None
    timeout: float | None = None


class EveryTypeTool:
    kind: ClassVar[str] = "every"
    aliases: ClassVar[tuple[str, ...]] = ("each",)
    config_model: ClassVar[type] = EveryTypeConfig
    field_aliases: ClassVar[Mapping[str, str]] = {"how_many": "count"}

    async def run(self, config: EveryTypeConfig, context: ToolContext) -> ToolResult:
        return ToolResult.success(None)


def validator(tool: Any, *, strict: bool = False) -> jsonschema.Draft202012Validator:
    schema = json_schema(tool, strict=strict)
    jsonschema.Draft202012Validator.check_schema(schema)
    json.dumps(schema)  # it is printed
    return jsonschema.Draft202012Validator(schema)


@cache
def every() -> jsonschema.Draft202012Validator:
    return validator(EveryTypeTool())


@cache
def of_kind(kind: str) -> jsonschema.Draft202012Validator:
    return validator(REGISTRY.get(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_schema_of_every_kind_is_valid_and_names_its_fields(kind: str) -> None:
    tool = REGISTRY.get(kind)
    schema = of_kind(kind).schema
    described = describe_kind(tool)
    assert schema["properties"]["kind"]["enum"] == [kind, *getattr(tool, "aliases", ())]
    assert schema["description"] == described.text
    for one in described.fields:
        assert {one.name, *one.spellings} <= schema["properties"].keys()
        assert schema["properties"][one.name]["description"] == one.meaning


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_and_every_field_says_what_it_is(kind: str) -> None:
    described = describe_kind(REGISTRY.get(kind))
    assert described.summary
    assert [one.name for one in described.fields if not one.meaning] == []
    assert [one.name for one in described.fields if "<class" in one.type or "typing." in one.type] == []


def test_written_tools_validate() -> None:
    checked = _check(tool_configs.written())
    assert {"python", "shell", "http", "noop", "playbook", "postgres", "duckdb", "rhai", "task_sequence"} <= checked


def test_recorded_commands_validate() -> None:
    assert {"python", "shell", "http", "task_sequence"} <= _check(tool_configs.recorded())


def _check(configs: Any) -> set[str]:
    wrong, checked = [], set()
    for where, kind, config in configs:
        try:
            tool = REGISTRY.get(kind)
        except ConfigurationError:
            continue
        wrong += [f"{where}: {kind}: {error.message}" for error in of_kind(tool.kind).iter_errors(config)]
        checked.add(tool.kind)
    assert wrong == []
    return checked


@cache
def playbooks() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(playbook_schema(map(REGISTRY.get, KINDS)))


def test_whole_playbooks_validate() -> None:
    jsonschema.Draft202012Validator.check_schema(playbooks().schema)
    wrong = []
    for path in tool_configs.PLAYBOOKS:
        if path.name not in tool_configs.MEANT_TO_BE_BROKEN | tool_configs.NO_PLAYBOOKS:
            playbook = yaml.safe_load(path.read_text(encoding="utf-8"))
            wrong += [f"{path.name}: {error.json_path}: {error.message}" for error in playbooks().iter_errors(playbook)]
    assert wrong == []


@pytest.mark.parametrize(
    "tool",
    [
        {"kind": "htp", "url": "http://x"},
        {"kind": "http"},
        {"url": "http://x"},
        {"kind": "playbook", "path": "a", "poll_interval": "often"},
        [],
        ["noop"],
        [{"kind": "http"}],
        [{"fetch": {"kind": "http"}}],
        [{"fetch": {"kind": "htp"}}],
        [{"kind": "noop", "spec": {"policy": {"rules": [{"when": True, "then": {"do": "retyr"}}]}}}],
    ],
    ids=str,
)
def test_playbook_with_a_broken_tool_does_not_validate(tool: Any) -> None:
    playbook = {"workflow": [{"step": "start", "tool": {"kind": "noop"}}, {"step": "x", "tool": tool}]}
    found = [error.json_path for error in playbooks().iter_errors(playbook)]
    assert found
    assert [path for path in found if not path.startswith("$.workflow[1].tool")] == []


@pytest.mark.parametrize(
    "part",
    [
        {"next": {"arcs": [{"step": "last", "whn": "{{ x }}"}]}},
        {"next": {"arc": []}},
        {"next": [{"step": "last", "whn": "{{ x }}"}]},
        {"loop": {"in": [1], "iterater": "x"}},
    ],
    ids=str,
)
def test_misspelled_key_of_an_arc_or_a_loop_does_not_validate(part: dict[str, Any]) -> None:
    playbook = {"workflow": [{"step": "start", "tool": {"kind": "noop"}, **part}]}
    assert [error.json_path for error in playbooks().iter_errors(playbook)] == [f"$.workflow[0].{next(iter(part))}"]


# ── the same answer as the registry's ───────────────────────────────────────────────────────────

ACCEPTED: list[dict[str, Any]] = [
    {"query": "q"},
    {"sql": "q", "kind": "each"},
    {"spec": {"query": "q", "policy": {"rules": []}, "timeout": {"total": "2m"}}},
    {"query": 5, "count": "3", "ratio": "1.5", "loud": "Yes", "names": ["a", 1], "env": {"a": "1"}},
    {"query": "{{ q }}", "count": "{{ n }}", "ratio": "{{ r }}", "loud": "{{ t }}", "names": "{{ l }}"},
    {"query": "q", "how_many": 3.0, "timeout": "30s", "many": ["a"], "whatever": [{"a": None}]},
    {"query": "q", "timeout": 1.5, "many": "a", "mode": "safe", "loud": 1, "source": None, "count": None},
    {"query": "q", "source": {"path": "p", "limit": "5", "more": 1}},
    {"query": "q", "name": "label", "retry": {}, "case": [], "output": None, "unknown": 1},
]
REFUSED: list[dict[str, Any]] = [
    {},
    {"count": 1},
    {"query": {"a": 1}},
    {"query": "q", "count": "many"},
    {"query": "q", "count": 1.5},
    {"query": "q", "count": True},
    {"query": "q", "ratio": "half"},
    {"query": "q", "loud": "maybe"},
    {"query": "q", "mode": "slow"},
    {"query": "q", "names": "abc"},
    {"query": "q", "names": [["a"]]},
    {"query": "q", "env": ["a"]},
    {"query": "q", "env": {"a": "x"}},
    {"query": "q", "many": {"a": 1}},
    {"query": "q", "timeout": "soon"},
    {"query": "q", "timeout": 0},
    {"query": "q", "source": {"limit": 1}},
    {"query": "q", "source": "here"},
]
VARIABLES = {"q": "q", "n": 2, "r": 0.1, "t": True, "l": ["a"]}


def prepare(config: dict[str, Any]) -> None:
    registry = Registry([EveryTypeTool()], plugins=False)
    registry.prepare("every", config, tool_context(registry=registry, variables=VARIABLES))


@pytest.mark.parametrize("config", ACCEPTED, ids=str)
def test_what_the_registry_takes_validates(config: dict[str, Any]) -> None:
    prepare(config)
    assert [error.message for error in every().iter_errors(config)] == []


@pytest.mark.parametrize("config", REFUSED, ids=str)
def test_what_the_registry_refuses_does_not_validate(config: dict[str, Any]) -> None:
    with pytest.raises(ToolError):
        prepare(config)
    assert not every().is_valid(config)


def test_unknown_fields_validate_as_in_the_registry_unless_strict() -> None:
    config = {"query": "q", "qeury": "q"}
    prepare(config)
    assert every().is_valid(config)
    assert not validator(EveryTypeTool(), strict=True).is_valid(config)


# ── descriptions ────────────────────────────────────────────────────────────────────────────────


def test_meaning_of_a_field_is_the_text_below_it() -> None:
    assert field_docs(EveryTypeConfig) == {"query": "What is asked.", "source": "Where from, over two lines."}
    source = json_schema(EveryTypeTool())["properties"]["source"]
    assert source["anyOf"][0]["properties"]["limit"]["description"] == "How many rows, all when absent."


def test_meanings_of_a_base_model_are_kept() -> None:
    @dataclass(frozen=True)
    class Wider(Side):
        """Also wide."""

        width: int = 1
        """In cells."""

    assert field_docs(Wider)["path"] == "Where it lies."
    assert field_docs(Wider)["width"] == "In cells."


def test_model_made_without_a_source_has_a_schema_without_meanings() -> None:
    namespace: dict[str, Any] = {}
    exec("from dataclasses import dataclass\n@dataclass\nclass Made:\n    a: int = 1\n    '''x'''\n", namespace)

    class MadeTool(EveryTypeTool):
        config_model: ClassVar[type] = namespace["Made"]
        field_aliases: ClassVar[Mapping[str, str]] = {}

    described = describe_kind(MadeTool())
    assert (described.text, described.fields[0].meaning) == ("", "")
    assert validator(MadeTool()).is_valid({"a": 1})


class Amount:
    """No type of JSON: its field says how it is read."""

    def __init__(self, text: str) -> None:
        self.text = text


@dataclass(frozen=True, slots=True)
class PluginConfig:
    amount: Amount = field(metadata=field_options(serialize=str, deserialize=Amount))


class PluginTool(EveryTypeTool):
    config_model: ClassVar[type] = PluginConfig
    field_aliases: ClassVar[Mapping[str, str]] = {}


@pytest.mark.filterwarnings("ignore:Type Any will be used")  # mashumaro's, of `serialize`
def test_type_that_a_plug_in_reads_in_its_own_way_has_a_schema() -> None:
    config = {"kind": "every", "amount": "3 EUR"}
    validator(PluginTool()).validate(config)
    Registry([PluginTool()], plugins=False).prepare("every", config, tool_context())


def test_kind_is_described_by_its_first_sentence_and_types_in_words() -> None:
    described = describe_kind(EveryTypeTool())
    assert described.summary == "Has a field of every type."
    assert described.text.endswith("More of it.")
    assert described.result == "`{rows}`, or nothing."
    by_name = {one.name: one for one in described.fields}
    assert by_name["query"].spellings == ("cmd", "cmds", "command", "commands", "queries", "sql")
    assert by_name["query"].is_needed
    assert by_name["count"].spellings == ("how_many",)
    assert by_name["many"].type == "text or a list of text"
    assert by_name["mode"].type == "one of 'fast', 'safe'"
    assert by_name["whatever"].type == "any value"


# ── task sequences ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "rule",
    [
        {"when": True, "then": {"do": "retry", "attempts": "3", "backoff": "linear", "delay": 0.5}},
        {"when": "{{ output.ok }}", "then": "break"},
        {"when": "{{ output.ok }}", "then": {"do": "jump", "to": "previous", "set": {"ctx.a": 1}}},
        {"else": {"then": {"do": "continue"}}},
        {"when": False},
    ],
    ids=str,
)
def test_rules_of_a_task_validate(rule: dict[str, Any]) -> None:
    assert of_kind("task_sequence").is_valid({"tasks": [{"kind": "noop", "spec": {"policy": {"rules": [rule]}}}]})
    assert of_kind("task_sequence").is_valid(
        {"tool_config": [{"label": {"kind": "noop", "spec": {"policy": {"rules": [rule]}}}}]}
    )


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"tasks": []},
        {"tasks": ["x"]},
        {"tasks": [{"name": "a"}]},
        {"tasks": [{"a": {"say": 1}}]},
        {"tasks": [{"kind": "noop", "spec": {"policy": {"rules": [{"then": "retyr"}]}}}]},
        {"tasks": [{"kind": "noop", "spec": {"policy": {"rules": [{}]}}}]},
        {"tasks": [{"kind": "noop", "spec": {"policy": "retry"}}]},
    ],
    ids=str,
)
def test_broken_sequences_validate_neither_here_nor_there(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        REGISTRY.prepare("task_sequence", config, tool_context())
    assert not of_kind("task_sequence").is_valid(config)
