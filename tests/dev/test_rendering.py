"""Arc conditions and server-side rendering."""

from __future__ import annotations

import json
from typing import Any

import pytest

from noetl_worker.dev.orchestration.python_templates import ListResult
from noetl_worker.dev.orchestration.rendering import holds, python_set, render_fields
from noetl_worker.errors import TemplateError
from noetl_worker.models import Dialect

SCOPE: dict[str, Any] = {"n": 5, "empty": [], "off": "off", "word": "yes", "nothing": None, "x": {"y": "{{ n }}"}}


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (None, True),
        (True, True),
        (False, False),
        ("{{ n > 3 }}", True),
        ("n > 3", True),
        ("{{ n > 7 }}", False),
        ("{{ empty }}", False),
        ("{{ nothing }}", False),
        ("{{ missing.deep.down }}", False),
        ("{{ off }}", False),
        (" {{ word }} ", True),
        ("{% if n > 3 %} None {% endif %}", False),
        ("{{ 0 }}", False),
        ("{{ 1 // 0 }}", False),
    ],
)
def test_what_counts_as_true(when: Any, expected: bool) -> None:
    assert holds(when, SCOPE, "here", Dialect.PYTHON) is expected


def test_a_condition_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert not holds("{{ 1 // 0 }}", SCOPE, "step 'a', next.arcs[0].when", Dialect.PYTHON)
    assert "step 'a', next.arcs[0].when: the condition cannot be evaluated" in caplog.text


def test_lone_expressions_keep_their_type_and_values_are_not_rendered_again() -> None:
    given = {"a": ["{{ n }}", "n={{ n }}"], "b": "{{ x.y }}", "c": 7, "d": "plain"}
    assert render_fields(given, SCOPE, Dialect.PYTHON) == {"a": [5, "n=5"], "b": "{{ n }}", "c": 7, "d": "plain"}


def test_keychain_references_are_left_to_the_worker() -> None:
    given = {"pure": "{{ keychain.api.token }}", "mixed": "Bearer {{ keychain.api.token }}"}
    assert render_fields(given, SCOPE, Dialect.PYTHON) == {
        "pure": {"$noetl_ref": {"kind": "keychain", "name": "api", "field": "token"}},
        "mixed": "Bearer {{ keychain.api.token }}",
    }


def test_a_template_that_fails_stays_as_text() -> None:
    assert render_fields("{{ 1 // 0 }}", SCOPE, Dialect.PYTHON) == "{{ 1 // 0 }}"


@pytest.mark.parametrize("text", ["{{ gone }}", "{{ x.gone }}", "{{ gone.deep }}", "a {{ x.gone }}"])
def test_what_is_missing_stays_as_text_on_the_python_plane_and_is_nothing_on_the_rust_one(text: str) -> None:
    assert render_fields(text, SCOPE, Dialect.PYTHON) == text
    assert render_fields(text, SCOPE, Dialect.RUST) in (None, "a ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{{ off }}", "off"), ("1{{ n }}", 15), ("[{{ n }}]", [5]), ('{"a": {{ n }}}', {"a": 5}), ("{{ '007' }}", 7)],
)
def test_printed_text_of_the_rust_plane_is_what_it_reads_as(text: str, expected: Any) -> None:
    assert render_fields(text, SCOPE, Dialect.RUST) == expected


@pytest.mark.parametrize(
    ("plane", "expected"),
    [
        (Dialect.PYTHON, "v None [1, 'a', None, True] {'k': {'m': None}}"),
        (Dialect.RUST, 'v  [1, "a", undefined, true] {"k": {"m": undefined}}'),
    ],
)
def test_values_in_text_print_as_the_plane_prints_them(plane: Dialect, expected: str) -> None:
    """Recorded (types-in-text)."""
    scope = {"none": None, "list": [1, "a", None, True], "object": {"k": {"m": None}}}
    assert render_fields("v {{ none }} {{ list }} {{ object }}", scope, plane) == expected


@pytest.mark.parametrize("text", ["{{ x.get('y') }}", "{{ word.upper() }}", "{{ n | nofilter }}", "{% if n %}"])
def test_what_the_rust_plane_cannot_render_is_an_error(text: str) -> None:
    with pytest.raises(TemplateError):
        render_fields(text, SCOPE, Dialect.RUST)
    with pytest.raises(TemplateError):
        holds(text, SCOPE, "here", Dialect.RUST)


def test_a_step_shows_what_it_lacks_from_its_context_and_itself_as_data_on_the_python_plane() -> None:
    scope = {"s": {"a": 1, "context": {"a": 1, "rows": [2]}}, "h": {"data": 3, "context": {"data": 3}}}
    given = {"rows": "{{ s.rows }}", "a": "{{ s.data.a }}", "own": "{{ h.data }}"}
    assert render_fields(given, scope, Dialect.PYTHON) == {"rows": [2], "a": 1, "own": 3}


def test_data_of_what_has_no_data_is_itself_at_any_depth_on_the_python_plane() -> None:
    """Recorded (view-http); of a list result (view-python-list) there is `result` alone."""
    scope = {"s": {"data": {"name": "ada"}, "context": {"data": {"name": "ada"}}}, "l": ListResult([1, 2])}
    assert render_fields("{{ s.data.data.name }}", scope, Dialect.PYTHON) == "ada"
    given = {"whole": "{{ l }}", "result": "{{ l.result }}", "len": "{{ l | length }}", "first": "{{ l[0] }}"}
    assert render_fields(given, scope, Dialect.PYTHON) == {
        **given, "whole": [1, 2], "result": [1, 2], "len": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ 5 | string }}", 5),
        ("{{ d | tojson }}", '{"a": 1, "b": null}'),
        ("[{{ n }}]", [5]),
        ("{{ gone | default('none') }}", None),
        ("{{ nothing | default('d') }}", None),
        ("{{ digits }}", "007"),
        ("{{ none }}", {"step": 1}),
        ("n={{ n }}\n", "n=5"),
        ("{{ gone or 'x' }}", "{{ gone or 'x' }}"),
        ("{{ n | zzz }}", "{{ n | zzz }}"),
    ],
)
def test_python_plane_reads_what_is_no_dotted_name_again(text: str, expected: Any) -> None:
    """Recorded: filters-basic, types-in-text, undefined-single, shell-forms, py-code-template."""
    scope = {"n": 5, "d": {"b": None, "a": 1}, "nothing": None, "digits": "007", "none": {"step": 1}}
    assert render_fields(text, scope, Dialect.PYTHON) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("{{ n }}", 5),
        ("{{ n + 1 }}", "6"),
        ("{{ n > 1 }}", "True"),
        ("n={{ n }}", "n=5"),
        (7, 7),
        (["{{ n + 1 }}"], [6]),
    ],
)
def test_set_of_the_python_plane_keeps_the_type_of_a_dotted_name_alone(value: Any, expected: Any) -> None:
    """Recorded (http-step-pages, step-set)."""
    assert python_set(value, {"n": 5}) == expected


def test_output_shows_what_it_has_alone_and_a_set_of_what_is_missing_is_an_error() -> None:
    """Recorded (set-step-output)."""
    output = {"status": "ok", "data": {"a": 1}, "context": {"a": 1}}
    assert python_set("{{ output.data.a }}", {"output": output}) == 1
    with pytest.raises(TemplateError, match="no attribute 'a'"):
        python_set("{{ output.a }}", {"output": output})


def test_what_json_cannot_say_prints_as_python_prints_it_on_the_python_plane() -> None:
    """Recorded (methods)."""
    found = render_fields("{{ d['items'] | default('none') }}", {"d": {"a": 1}}, Dialect.PYTHON)
    assert str(found).startswith("<built-in method items of dict object")


def test_an_attribute_of_a_missing_name_fails_the_whole_condition_on_the_python_plane() -> None:
    assert not holds("{{ gone.status == 'x' or n == 5 }}", SCOPE, "here", Dialect.PYTHON)
    assert holds("{{ gone.status == 'x' or n == 5 }}", SCOPE, "here", Dialect.RUST)


def test_rust_plane_writes_the_numbers_of_lists_and_objects_as_recorded() -> None:
    """view-rhai, pg-types, types-single: whole floats lose their point there, others are text beside a null."""
    scope = {"a": {"f": 2.0, "g": 1.5}, "b": {"f": 2.0, "g": [1.5], "n": None}, "c": 2.0}
    seen = render_fields({name: f"{{{{ {name} }}}}" for name in scope}, scope, Dialect.RUST)
    assert json.dumps(seen) == '{"a": {"f": 2, "g": 1.5}, "b": {"f": 2, "g": ["1.5"], "n": null}, "c": 2.0}'


def test_rust_plane_has_no_null_in_its_data() -> None:
    """arcs-conditions, expressions."""
    scope = {"a": {"n": None}}
    assert not holds("{{ a.n is none }}", scope, "here", Dialect.RUST)
    assert holds("{{ a.n is none }}", scope, "here", Dialect.PYTHON)
    assert render_fields("{{ none }}", scope, Dialect.RUST) == "none"
    assert render_fields("{{ a.n }}", scope, Dialect.RUST) is None
