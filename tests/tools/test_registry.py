"""From a playbook's config to a tool: spellings, types, unknown kinds and fields, plug-ins."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import pytest

from noetl_worker.errors import ConfigurationError, TemplateError, UnknownTool
from noetl_worker.models import Dialect, ToolResult
from noetl_worker.testing import run_tool, tool_context
from noetl_worker.tools import fields
from noetl_worker.tools.built_in import ALIASES
from noetl_worker.tools.contract import CONTRACT_VERSION, ToolContext
from noetl_worker.tools.deadline import effective_timeout, given_timeouts
from noetl_worker.tools.docs.schema import json_schema
from noetl_worker.tools.registry import PreparedTool, Registry
from plug_ins import install


@dataclass(frozen=True, slots=True)
class EchoConfig:
    query: str
    input: dict[str, Any] = field(default_factory=dict)
    database: str | None = None
    count: int = 1
    ratio: float = 0.5
    loud: bool = False
    names: list[str] = field(default_factory=list)
    password: str | None = None
    template: str = ""
    own: str = field(init=False, default="")
    timeout: float | None = None


class EchoTool:
    """Gives its config back."""

    kind: ClassVar[str] = "echo"
    aliases: ClassVar[tuple[str, ...]] = ("say",)
    config_model: ClassVar[type] = EchoConfig
    field_aliases: ClassVar[Mapping[str, str]] = {"how_many": "count"}
    raw_fields: ClassVar[frozenset[str]] = frozenset({"template"})

    async def run(self, config: EchoConfig, context: ToolContext) -> ToolResult:
        return ToolResult.success(config)


def prepare(config: Any, *, kind: str = "echo", **context: Any) -> PreparedTool:
    registry = Registry([EchoTool()], plugins=False)
    return registry.prepare(kind, config, tool_context(registry=registry, **context))


@pytest.mark.parametrize("spelling", ["query", "command", "commands", "sql"])
def test_every_spelling_of_a_field_is_accepted(spelling: str) -> None:
    assert prepare({spelling: "select 1"}).config.query == "select 1"


def test_other_spellings_of_input_database_and_own_aliases() -> None:
    config = prepare({"query": "q", "args": {"a": 1}, "db_path": "x.db", "how_many": 3}).config
    assert (config.input, config.database, config.count) == ({"a": 1}, "x.db", 3)


def test_input_and_args_together_are_merged_and_input_wins() -> None:
    for config in (
        {"query": "q", "args": {"a": 1, "b": 1}, "input": {"b": 2}},
        {"input": {"b": 2}, "args": {"a": 1, "b": 1}, "query": "q"},
    ):
        assert prepare(config).config.input == {"a": 1, "b": 2}


IGNORED: list[tuple[dict[str, Any], list[str]]] = [
    ({"spec": None, "output": None, "cases": [], "retry": None, "name": "label", "kind": "echo"}, []),
    ({"databse": "x"}, ["unknown field 'databse' is ignored; did you mean 'database'?"]),
    ({"spec": {"databse": "x", "policy": {}, "timeout": 3, "count": 2, "nothing": None}},
     ["unknown field 'spec.databse' is ignored; did you mean 'database'?"]),
    ({"spec": {"policy": {"rules": [{"then": "retry"}]}}},
     ["spec.policy is ignored: rules work only in a list; make `tool` a list of this one task"]),
    ({"retry": 3}, ["retry is ignored for kind echo: write the step's tool as a list with a rule `do: retry`"]),
]  # fmt: skip


@pytest.mark.parametrize(("config", "told"), IGNORED, ids=str)
def test_what_is_ignored_is_reported_with_what_to_write(config: dict[str, Any], told: list[str]) -> None:
    assert [str(one) for one in prepare({"query": "q", **config}).warnings] == [f"echo: {one}" for one in told]


@pytest.mark.parametrize("name", ["case", "cases", "next"])
def test_fields_of_a_step_are_unknown_ones_where_a_tool_is_called(name: str) -> None:
    assert f"echo: unknown field {name!r} is ignored" in str(prepare({"query": "q", name: [{"then": 1}]}).warnings[0])


def test_retry_of_a_kind_that_reads_it_is_not_reported() -> None:
    assert prepare({"url": "http://localhost", "retry": {"max_attempts": 2}}, kind="http").warnings == ()


def test_fields_under_spec_may_be_spelled_in_any_way() -> None:
    """A field under `spec` counts as if it stood at the top: other spellings were ignored there."""
    http = prepare({"spec": {"endpoint": "http://h/", "credential": "zz", "timeout_seconds": 1}}, kind="http")
    assert (http.config.url, http.config.auth, http.timeout_s, http.warnings) == ("http://h/", "zz", 1.0, ())
    assert prepare({"spec": {"cmds": ["echo a"]}}, kind="shell").config.command == ["echo a"]
    above = prepare({"url": "http://top/", "spec": {"endpoint": "http://h/"}}, kind="http")
    assert above.config.url == "http://top/"
    python = prepare({"code": "1", "input": {"a": 1}, "spec": {"args": {"a": 2, "b": 3}}}, kind="python")
    assert python.config.input == {"a": 1, "b": 3}
    python = prepare({"code": "1", "spec": {"args": {"a": 2}, "input": {"b": 3}}}, kind="python")
    assert python.config.input == {"a": 2, "b": 3}


def test_misspelt_part_of_a_timeout_is_refused() -> None:
    for timeout in ({"timeout": {"totl": 3}}, {"spec": {"timeout_seconds": {"totl": 3}}}):
        with pytest.raises(ConfigurationError, match=r"totl is not supported; supported: total, connect, read"):
            prepare({"query": "q", **timeout})


def test_parts_of_a_config_that_a_tool_itself_calls_ignored_are_reported_too() -> None:
    class Pickier(EchoTool):
        def ignored(self, config: EchoConfig) -> list[str]:
            return [f"echo: {name!r} is no name" for name in config.names if not name.isalpha()]

    registry = Registry([Pickier()], plugins=False)
    config = {"query": "q", "names": ["ada", "4"]}
    assert [str(one) for one in registry.prepare("echo", config, tool_context()).warnings] == ["echo: '4' is no name"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "field 'query' (or command, commands, sql) is missing"),
        ({"qurey": "q", "something": 1}, "field 'query' (or command, commands, sql) is missing "
         "(echo: unknown field 'qurey' is ignored; did you mean 'query'?)"),
        ({"query": "a", "sql": "b"}, "'query' and 'sql' are the same field with two values"),
        ({"sql": "{{ nope }}"}, "field 'query' is null: its template '{{ nope }}' gives nothing"),
    ],
)  # fmt: skip
def test_field_that_has_no_value_or_two_is_named(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        prepare(config)
    assert str(caught.value).startswith(f"echo: {said}")


@pytest.mark.parametrize(
    ("field_name", "value", "expected"),
    [
        ("query", 5, "5"),
        ("query", True, "true"),
        ("count", "3", 3),
        ("count", 3.0, 3),
        ("ratio", "1.5", 1.5),
        ("loud", "no", False),
        ("loud", "True", True),
        ("names", ["a", 1], ["a", "1"]),
        ("password", 123, "123"),
    ],
)
def test_scalars_that_yaml_blurs_are_converted(field_name: str, value: Any, expected: Any) -> None:
    assert getattr(prepare({"query": "q", field_name: value}).config, field_name) == expected


@pytest.mark.parametrize(
    ("field_name", "value", "message"),
    [
        ("query", {"a": 1}, "field 'query' must be text, not dict"),
        ("count", "many", "field 'count' must be a whole number, not 'many' (str)"),
        ("count", 1.5, "field 'count' must be a whole number, not '1.5' (float)"),
        ("count", True, "field 'count' must be a whole number, not 'True' (bool)"),
        ("loud", "maybe", "field 'loud' must be true or false, not 'maybe' (str)"),
        ("names", "abc", "field 'names' must be a list of text, not 'abc' (str)"),
        ("names", {"a": 1}, "field 'names' must be a list of text, not dict"),
        ("input", [1], "field 'input' must be an object, not list"),
        ("password", ["hunter2"], "field 'password' must be text, not list"),
    ],
)
def test_wrong_type_names_field_and_type(field_name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        prepare({"query": "q", field_name: value})
    assert str(caught.value) == f"echo: {message}"


def test_field_that_a_model_fills_by_itself_is_none_of_a_config() -> None:
    assert prepare({"query": "q", "own": "x"}).config.own == ""
    [warning] = prepare({"query": "q", "own": "x"}).warnings
    assert (str(warning), warning.field, warning.reason) == ("echo: unknown field 'own' is ignored", "own", "unknown")
    assert "own" not in json_schema(EchoTool())["properties"]


def test_fields_are_rendered_once_and_raw_ones_never() -> None:
    config = prepare(
        {"query": "{{ sly }}", "template": "{{ x }}", "input": {"n": "{{ x }}"}}, variables={"sly": "{{ x }}", "x": 5}
    ).config
    assert (config.query, config.template, config.input) == ("{{ x }}", "{{ x }}", {"n": 5})


class Large(dict[str, Any]):
    """Variables of many megabytes: that something goes through them must not happen."""

    def walked_through(self, *_: Any) -> NoReturn:
        raise AssertionError("copied, or walked through")

    __copy__ = __deepcopy__ = __iter__ = keys = items = values = walked_through  # type: ignore[assignment]


def test_trap_25_variables_are_not_copied_for_a_render() -> None:
    names = ["{{ big.x }}", "x is {{ big.x }}"] * 50
    assert prepare({"query": "q", "names": names}, variables={"big": Large(x=7)}).config.names == ["7", "x is 7"] * 50


def test_template_error_names_kind_and_field() -> None:
    with pytest.raises(TemplateError, match=r"^echo: field 'query': template '\{\{ 1 // 0 \}\}': "):
        prepare({"query": "{{ 1 // 0 }}"})


def test_unknown_kind_names_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(UnknownTool, match=r"^Tool not found: htp; did you mean 'http'\? Known kinds: .*noop.*shell"):
        prepare({}, kind="htp")


def test_alias_of_a_kind_is_the_same_tool() -> None:
    registry = Registry([EchoTool()], plugins=False)
    assert registry.get("say") is registry.get("echo")
    assert registry.get("playbooks") is registry.get("playbook")


def test_aliases_of_the_built_in_kinds_are_those_the_tools_name() -> None:
    registry = Registry(plugins=False)
    named = {alias: kind for kind in registry.kinds() for alias in getattr(registry.get(kind), "aliases", ())}
    assert named == ALIASES
    assert set(named) & set(registry.kinds()) == set()


def test_no_own_spelling_repeats_the_common_table_or_hides_a_field() -> None:
    registry = Registry(plugins=False)
    for kind in registry.kinds():
        tool = registry.get(kind)
        own, spellings = fields.field_names(tool.config_model), getattr(tool, "field_aliases", {})
        assert set(spellings) & own == set(), kind
        common = fields.field_spellings(tool.config_model, {})
        assert [name for name, meant in spellings.items() if common.get(name) == meant] == [], kind


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("kind", "", "is no tool: it has no `kind`; give its class one"),
        ("config_model", dict, "tool 'echo': `config_model` must be a dataclass, not <class 'dict'>"),
        ("run", lambda self, config, context: None, "tool 'echo': `run` must be an async method"),
        (
            "raw_fields",
            frozenset({"tempalte"}),
            "tool 'echo': its config_model has no field tempalte, named in raw_fields or field_aliases",
        ),
        (
            "field_aliases",
            {"n": "cuont"},
            "tool 'echo': its config_model has no field cuont, named in raw_fields or field_aliases",
        ),
    ],
)
def test_tool_that_lacks_something_is_refused_with_what_it_lacks(attribute: str, value: Any, message: str) -> None:
    broken = type("Broken", (EchoTool,), {attribute: value})
    with pytest.raises(ConfigurationError) as caught:
        Registry([broken()], plugins=False)
    assert str(caught.value).endswith(message)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({}, None),
        ({"timeout": 20}, 20.0),
        ({"timeout": 1.5}, 1.5),
        ({"timeout": "30"}, 30.0),
        ({"timeout": "30s"}, 30.0),
        ({"timeout": "2m"}, 120.0),
        ({"timeout": "250ms"}, 0.25),
        ({"timeout_seconds": 7}, 7.0),
        ({"timeout": 20, "timeout_seconds": 7}, 7.0),
        ({"spec": {"policy": None, "timeout": {"total": 9}}}, 9.0),
        ({"timeout": {"total": 9, "connect": 2}}, 9.0),
        ({"timeout": {"connect": 2}}, None),
        ({"spec": {"timeout": "9s"}, "timeout": 20}, 9.0),
        ({"spec": None, "timeout": None}, None),
        ({"timeout": "{{ t }}"}, None),
    ],
)
def test_timeout_in_every_form(raw: dict[str, Any], expected: float | None) -> None:
    assert effective_timeout("shell", given_timeouts(raw)) == expected


@pytest.mark.parametrize("value", [0, -1, "soon", True, [], float("nan")])
def test_what_is_no_time_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"shell: timeout=.* is not a time"):
        effective_timeout("shell", {"timeout": value})


def test_prepared_timeout_is_rendered_and_never_longer_than_the_commands() -> None:
    assert prepare({"query": "q", "timeout": "{{ t }}"}, variables={"t": "4s"}).timeout_s == 4.0
    assert prepare({"query": "q", "timeout": 9}, timeout_s=5.0).timeout_s == 5.0
    assert prepare({"query": "q", "timeout": 9}).config.timeout == 9.0


# ── plug-ins ────────────────────────────────────────────────────────────────────────────────────


class NotATool:
    pass


@pytest.fixture
def on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_plugin_is_found_by_its_entry_point(on_the_path: Path) -> None:
    install(on_the_path, "echo", f"{__name__}:EchoTool")
    registry = Registry()
    assert isinstance(registry.get("echo"), EchoTool)
    assert "echo" in registry.kinds()
    assert registry.broken == []


def test_broken_plugin_is_one_warning_and_an_error_for_its_kind_only(
    on_the_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(on_the_path, "bad", f"{__name__}:NotATool")
    with caplog.at_level(logging.WARNING):
        registry = Registry()
    assert len(caplog.records) == 1
    assert "tool 'bad' of some-tools 1.0 does not load" in caplog.text
    with pytest.raises(ConfigurationError, match=r"'bad' of some-tools 1\.0 does not load: .*has no `kind`"):
        registry.get("bad")
    assert registry.get("noop").kind == "noop"


class LaterTool(EchoTool):
    contract = CONTRACT_VERSION + 1


class PresentTool(EchoTool):
    contract = CONTRACT_VERSION


def test_plugin_for_another_version_of_the_contract_is_refused_with_what_to_install(on_the_path: Path) -> None:
    install(on_the_path, "echo", f"{__name__}:LaterTool")
    with pytest.raises(ConfigurationError) as caught:
        Registry().get("echo")
    assert "tool 'echo' of some-tools 1.0 does not load" in str(caught.value)
    assert "version 2 of the tool contract, this worker has 1: install a version of its package" in str(caught.value)
    assert Registry([PresentTool()], plugins=False).get("echo").kind == "echo"


def test_plugin_whose_import_fails_does_not_stop_the_worker(on_the_path: Path) -> None:
    install(on_the_path, "gone", "no_such_module_anywhere:Tool")
    (broken,) = Registry().broken
    assert "ModuleNotFoundError: No module named 'no_such_module_anywhere'" in str(broken)


def test_tool_that_gives_no_result_is_an_error() -> None:
    class Wrong(EchoTool):
        async def run(self, config: EchoConfig, context: ToolContext) -> ToolResult:
            return {"status": "ok"}  # type: ignore[return-value]

    with pytest.raises(ConfigurationError, match=r"echo: run\(\) gave dict, a ToolResult is needed"):
        run_tool(Wrong(), {"query": "q"})


@pytest.mark.parametrize(
    ("kind", "library"), [("duckdb", "duckdb"), ("postgres", "psycopg"), ("snowflake", "snowflake")]
)
def test_missing_library_names_the_extra(kind: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    login = {"host": "h", "account": "a", "user": "u", "password": "p"}
    with pytest.raises(ConfigurationError, match=rf"pip install 'noetl-worker\[{kind}\]'"):
        run_tool(kind, {"query": "select 1", **login})


def test_noop_gives_its_result_back() -> None:
    assert run_tool("noop", {}).data == {"status": "ok", "message": "noop"}
    python = {"dialect": Dialect.PYTHON, "step": "join"}
    assert run_tool("noop", {}, **python).data == {"status": "noop", "step": "join"}
    assert run_tool("noop", {"message": "m"}, **python).data == {"status": "noop", "step": "join", "message": "m"}
    assert run_tool("noop", {"result": 5}, **python).data == 5
    assert run_tool("noop", {"result": {"a": "{{ x }}"}}, variables={"x": 1}).data == {"a": 1}


async def test_tool_that_cannot_be_closed_keeps_no_other_from_it_and_spoils_no_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    closed: list[str] = []

    class Broken(EchoTool):
        kind: ClassVar[str] = "broken"
        aliases: ClassVar[tuple[str, ...]] = ()

        async def aclose(self) -> None:
            raise RuntimeError("its server is gone")

    class Fine(EchoTool):
        async def aclose(self) -> None:
            closed.append("fine")

    await Registry([Broken(), Fine()], plugins=False).aclose()
    assert closed == ["fine"]
    assert "broken" in caplog.text
    assert "its server is gone" in caplog.text
