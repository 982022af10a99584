"""Fields of a command that the Python plane has stored, with "[REDACTED]" in place of what looked like a secret."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import pytest
from structlog.testing import capture_logs

from noetl_worker.errors import ToolError
from noetl_worker.models import Command, Dialect
from noetl_worker.models.slots import Slots
from noetl_worker.pipeline.command.command import hydrate
from noetl_worker.pipeline.command.dispatch import CallLimits, Dispatch
from noetl_worker.pipeline.command.failure import make_failure
from noetl_worker.remote.plane.client import Plane
from noetl_worker.tools.registry import Registry
from unit.planes import ENVELOPE, answer, plane

MARK = "[REDACTED]"
NAMES = {
    "start": {"context": {"articles": [{"id": 1, "authors": MARK, "url": "https://a.test"}], "count": 1}},
    "fetch": {"context": {"status_code": 200, "headers": {"Set-Cookie": MARK, "age": "1"}}},
    "authors": MARK,
    "links": [MARK, "https://a.test"],
}
"""As the plane hands them out: `articles[].authors` was a list."""


def stored(name: str) -> dict[str, Any]:
    return {"kind": "result_ref", "ref": f"noetl://execution/7/result/{name}/1", "store": "kv"}


async def given(
    kind: str, context: Mapping[str, Any], held: Mapping[str, Any], dialect: Dialect = Dialect.PYTHON
) -> tuple[Command, Plane]:
    """A command with this context, of a plane whose store holds results by their references."""

    def script(method: str, path: str, _: Any) -> Any:
        ref = unquote(path.partition("?ref=")[2])
        return answer(200, held.get(ref, ref))

    body = {"execution_id": 7, "node_name": "two", "action": kind, "context": context, "meta": {}}
    at, _ = plane(script, dialect)
    return await hydrate(body, ENVELOPE, at), at


async def prepared(
    kind: str,
    config: Any,
    names: Mapping[str, Any] = NAMES,
    dialect: Dialect = Dialect.PYTHON,
    *,
    config_is_stored: bool = False,
    names_are_stored: bool = True,
) -> Any:
    """The config of the tool, as it is run."""
    context = {
        "tool_config": stored("config") if config_is_stored else config,
        "render_context": stored("names") if names_are_stored else names,
    }
    held = {stored("config")["ref"]: config, stored("names")["ref"]: names}
    command, at = await given(kind, context, held, dialect)
    limits = CallLimits(default_s=5.0, hard_s=5.0, cancellation_poll_s=0.0)
    dispatch = Dispatch(Registry(plugins=False), command, at, worker_id="w", limits=limits, slots=Slots(1))
    tool = await dispatch.prepare()
    return await dispatch.run(tool) if kind == "task_sequence" else tool.config


async def refusal(*given: Any, **how: Any) -> ToolError:
    try:
        result = await prepared(*given, **how)
    except ToolError as error:
        return error
    assert result.error is not None, result
    return ToolError(result.error.message, kind=result.error.kind)


def tasks(config: Mapping[str, Any]) -> list[Any]:
    return [{"read": {"kind": "noop", **config}}]


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({"auth": MARK, "query": "select 1"}, "tool_config.auth"),
        ({"headers": {"Authorization": MARK}, "url": "https://a.test"}, "tool_config.headers.Authorization"),
        ({"code": MARK}, "tool_config.code"),
        ({"input": {"rows": [{"authors": MARK}]}}, "tool_config.input.rows[0].authors"),
        ([{"get": {"kind": "http", "url": MARK}}], "tool_config[0].get.url"),
    ],
)
async def test_config_that_the_plane_took_something_out_of_fails_its_command(config: Any, place: str) -> None:
    error = await refusal("noop", config, config_is_stored=True)
    assert error.kind == "configuration"
    assert f"the control plane has put {MARK} in place of {place}: " in str(error)
    assert "below 8 kB" in str(error)
    assert "auth: its_alias" in str(error)


async def test_config_that_came_as_it_is_may_have_that_text() -> None:
    assert (await prepared("noop", {"result": {"a": MARK}}, {})).result == {"a": MARK}


async def test_text_that_has_more_in_it_is_the_authors() -> None:
    config = {"result": {"a": f"a {MARK}"}}
    assert (await prepared("noop", config, {}, config_is_stored=True)).result == {"a": f"a {MARK}"}


async def test_input_that_another_one_hides_is_not_missed() -> None:
    """The step's input wins over the tool's."""
    context = {"tool_config": stored("config"), "input": {"authors": ["Ada"]}, "render_context": {}}
    command, _ = await given("noop", context, {stored("config")["ref"]: {"input": {"authors": MARK}, "result": 1}})
    assert command.input == {"authors": ["Ada"]}


READS = {
    "{{ start.articles[0].authors }}": "start.context.articles[0].authors",
    "{{ start.articles[0]['authors'] }}": "start.context.articles[0].authors",
    "by {{ start.articles[0].authors }}": "start.context.articles[0].authors",
    "{{ authors }}": "authors",
    "{{ authors | length }}": "authors",
    "{{ links[0] }}": "links[0]",
    "{% for link in links %}{{ link }}{% endfor %}": "links[0]",
    "{% if start.articles[0].authors %}x{% endif %}": "start.context.articles[0].authors",
    "{{ start.articles[0].authors == 'x' }}": "start.context.articles[0].authors",
    "{{ start.articles | map(attribute='authors') | list }}": "start.context.articles[0].authors",
    "{{ fetch.headers['Set-Cookie'] }}": "fetch.context.headers.Set-Cookie",
    "{{ start.articles }}": "start.context.articles[0].authors",
    "{{ start }}": "start.context.articles[0].authors",
    "{{ links | join(' ') }}": "links[0]",
    "of {{ start.articles | tojson }}": "authors",
}


@pytest.mark.parametrize("text", READS)
async def test_template_of_a_list_that_reads_one_fails_its_task(text: str) -> None:
    error = await refusal("task_sequence", tasks({"result": {"a": text}}))
    assert f"the control plane has put {MARK} in place of " in str(error)
    assert READS[text] in str(error)
    assert error.kind == "configuration"


async def test_rule_that_reads_one_fails_the_command_and_is_not_passed_over() -> None:
    rules = [{"when": "{{ start.articles[0].authors == ['Ada'] }}", "then": {"do": "continue"}}]
    error = await refusal("task_sequence", tasks({"spec": {"policy": {"rules": rules}}}))
    assert "start.context.articles[0].authors" in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "{{ start.articles[0].url }}",
        "{{ start.count }}",
        "{{ start.articles | length }}",
        "{{ links[1] }}",
        "{% for article in start.articles %}{{ article.id }}{% endfor %}",
        "{{ fetch }}",
        "{{ fetch.headers }}",
    ],
)
async def test_template_that_reads_none_gives_what_it_reads(text: str) -> None:
    result = await prepared("task_sequence", tasks({"result": {"a": text}}))
    assert result.error is None, result


async def test_config_of_a_single_tool_fails_too_where_the_plane_has_left_a_template() -> None:
    error = await refusal("noop", {"result": {"a": "{{ start.articles[0].authors }}"}})
    assert "start.context.articles[0].authors" in str(error)


@pytest.mark.parametrize(("dialect", "is_stored"), [(Dialect.RUST, True), (Dialect.PYTHON, False)])
async def test_names_that_the_plane_has_not_redacted_are_what_they_are(dialect: Dialect, is_stored: bool) -> None:
    """A step may have returned that text, and a worker takes secrets out of results."""
    config = tasks({"result": {"a": "{{ authors }}"}})
    result = await prepared("task_sequence", config, dialect=dialect, names_are_stored=is_stored)
    assert result.error is None, result


@pytest.mark.parametrize(
    "code",
    [
        {"code": "result = context['start']"},
        {"script": "result = context['start']"},
        {"code_b64": b64encode(b"result = context['start']").decode()},
    ],
    ids=lambda code: next(iter(code)),
)
async def test_code_that_may_read_one_is_a_warning_with_its_place(code: dict[str, Any]) -> None:
    with capture_logs() as lines:
        await prepared("python", code)
        await prepared("python", {"code": "result = 'restart'"})
        await prepared("python", {"code": "result = context['fetch']"})
    warned = [line["places"] for line in lines if line["event"] == "variables_redacted_by_plane"]
    assert warned == [["start.context.articles[0].authors"]]


async def test_result_of_an_earlier_step_that_was_stored_says_so_as_well() -> None:
    names = {"start": {"status": "COMPLETED", "context": {"n": 1}, "reference": stored("start")}}
    config = tasks({"result": "{{ start.articles[0].authors }}"})
    context = {"tool_config": {"tasks": config}, "render_context": names}
    command, _ = await given("task_sequence", context, {stored("start")["ref"]: {"articles": [{"authors": MARK}]}})
    assert command.redacted == ["start.articles[0].authors"]


async def test_stored_result_that_a_tool_fetches_is_a_warning_with_its_places() -> None:
    with capture_logs() as lines:
        config = {"ref": stored("names")["ref"]}
        await prepared("task_sequence", [{"get": {"kind": "result_fetch", **config}}], names_are_stored=False)
    warned = [line["places"] for line in lines if line["event"] == "stored_result_redacted_by_plane"]
    assert warned == [["authors", "links[0]", "start.context.articles[0].authors"]]


def test_error_names_five_places_at_most() -> None:
    from noetl_worker.text.templates.redacted import check_given, mark_redacted

    value = {"a": {f"n{n}": MARK for n in range(9)}}
    places = mark_redacted(value, "x")
    with pytest.raises(ToolError, match=r"in place of x\.a\.n0, .* and 4 more: ") as caught:
        check_given(f"a {MARK}", places)
    assert make_failure(caught.value).error.kind == "configuration"  # type: ignore[union-attr]
