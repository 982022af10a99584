"""Arc conditions and server-side rendering."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_worker.authoring.dev.orchestration.rendering import holds, render_fields
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


@pytest.mark.parametrize("text", ["{{ [n, gone] }}", "{{ {'a': x.gone, 'n': [empty | length]} }}"])
def test_list_or_object_with_one_missing_name_is_as_that_name_alone(text: str) -> None:
    """The Python plane leaves the whole text, the Rust plane has null in its place."""
    assert render_fields(text, SCOPE, Dialect.PYTHON) == text
    assert not holds(text, SCOPE, "here", Dialect.PYTHON)
    assert render_fields(text, SCOPE, Dialect.RUST) in ([5, None], {"a": None, "n": [0]})


def test_rust_plane_gives_a_list_for_what_a_filter_goes_through() -> None:
    assert render_fields("{{ [x] | map(attribute='y') if [x] | length else [] }}", SCOPE, Dialect.RUST) == ["{{ n }}"]


@pytest.mark.parametrize("text", ["{{ gone }}", "{{ x.gone }}", "{{ gone.deep }}", "a {{ x.gone }}"])
def test_what_is_missing_stays_as_text_on_the_python_plane_alone(text: str) -> None:
    assert render_fields(text, SCOPE, Dialect.PYTHON) == text
    assert render_fields(text, SCOPE, Dialect.RUST) in (None, "a ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{{ off }}", "off"), ("1{{ n }}", 15), ("[{{ n }}]", [5]), ('{"a": {{ n }}}', {"a": 5}), ("{{ '007' }}", 7)],
)
def test_printed_text_of_the_rust_plane_is_what_it_reads_as(text: str, expected: Any) -> None:
    assert render_fields(text, SCOPE, Dialect.RUST) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("007", 7),
        ("1e5", 1e5),
        ("null", None),
        ("", None),
        ("  ", None),
        ("None", None),
        ("true", True),
        ("false ", False),
        (" +5", 5),
        (".5", 0.5),
        ("5.", 5.0),
        ("007.5", 7.5),
        ("9223372036854775807", 9223372036854775807),
        ("99999999999999999999", 1e20),
        ("[1, '2']", "[1, '2']"),
        ('{"a": 1}', {"a": 1}),
    ]
    + [
        (text, text)
        for text in (
            '"a"',
            "12:30",
            "NaN",
            "1e999",
            "None of it",
            "{a: 1}",
            "none",
            "True",
            "0x10",
            "1_0",
            "+",
            "٣",
            "[+5]",
        )
    ],
)
def test_literal_text_is_read_again_by_the_rust_plane_alone(text: str, expected: Any) -> None:
    """shell-true; protocol/command.md#rust-plane."""
    assert render_fields(text, SCOPE, Dialect.RUST) == expected
    assert render_fields(text, SCOPE, Dialect.PYTHON) == text


@pytest.mark.parametrize("text", ["7" * 5_000, "[" * 100_000], ids=["digits", "depth"])
def test_text_of_a_step_that_is_too_much_to_read_stays_text_on_the_rust_plane(text: str) -> None:
    assert render_fields("{{ start.d }}", {"start": {"d": text}}, Dialect.RUST) == text


NOT_BY_RUST = [
    "{{ x.get('y') }}",
    "{{ word.upper() }}",
    "{{ n | nofilter }}",
    "{% if n %}",
    # asked of noetl-server 3.54.0
    "{{ '' | first }}",
    "{{ [] | last }}",
    "{{ nowhere | first }}",
    "{{ 'a' | int }}",
    "{{ nowhere | int }}",
    "{{ ' 7 ' | float }}",
    "{{ 'a' | int(3) }}",
    "{{ word | truncate(2) }}",
]


@pytest.mark.parametrize("text", NOT_BY_RUST)
def test_what_the_rust_plane_cannot_render_is_an_error(text: str) -> None:
    with pytest.raises(TemplateError):
        render_fields(text, SCOPE, Dialect.RUST)
    with pytest.raises(TemplateError):
        holds(text, SCOPE, "here", Dialect.RUST)


@pytest.mark.parametrize(
    ("text", "value"),
    [("{{ '7.5' | int }}", 7), ("{{ 1.7 | int }}", 1), ("{{ '1e3' | float }}", 1000.0), ("{{ nowhere | list }}", [])],
)
def test_number_and_list_are_made_as_the_rust_plane_makes_them(text: str, value: Any) -> None:
    """Asked of noetl-server 3.54.0."""
    assert render_fields(text, {}, Dialect.RUST) == value


def test_a_step_shows_its_context_and_itself_as_data_on_the_python_plane() -> None:
    scope = {"s": {"a": 1, "context": {"a": 1, "rows": [2]}}, "h": {"data": 3, "context": {"data": 3}}}
    given = {"rows": "{{ s.rows }}", "a": "{{ s.data.a }}", "own": "{{ h.data }}"}
    assert render_fields(given, scope, Dialect.PYTHON) == {"rows": [2], "a": 1, "own": 3}


def test_attribute_of_a_missing_name_fails_the_condition_on_the_python_plane() -> None:
    assert not holds("{{ gone.status == 'x' or n == 5 }}", SCOPE, "here", Dialect.PYTHON)
    assert holds("{{ gone.status == 'x' or n == 5 }}", SCOPE, "here", Dialect.RUST)


def test_result_is_a_key_to_the_rust_plane_and_what_stands_in_text_is_text() -> None:
    """view-noop: of a step too, which the worker's own engine gives itself."""
    scope = {"n": 3, "start": {"a": 1}, "given": {"result": 2}, "file": "out.result"}
    assert render_fields("echo {{ n }} > out.result", scope, Dialect.RUST) == "echo 3 > out.result"
    assert holds("{{ file == 'out.result' }}", scope, "here", Dialect.RUST)
    assert render_fields(["{{ start.result }}", "{{- given.result -}}"], scope, Dialect.RUST) == [None, 2]


def test_rust_plane_has_no_null_in_its_data() -> None:
    """arcs-conditions, expressions."""
    scope = {"a": {"n": None}}
    assert not holds("{{ a.n is none }}", scope, "here", Dialect.RUST)
    assert holds("{{ a.n is none }}", scope, "here", Dialect.PYTHON)
    assert render_fields("{{ none }}", scope, Dialect.RUST) == "none"
    assert render_fields("{{ a.n }}", scope, Dialect.RUST) is None
