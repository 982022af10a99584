"""Templates: the rules of `templates.template`, and every row of the table in protocol/tasks.md#templates with the
choice made."""

from __future__ import annotations

import gc
import time
import tracemalloc
from typing import Any

import pytest
from jinja2 import Template

from noetl_worker.errors import TemplateError
from noetl_worker.text.templates.template import has_template, render, truthy

VARIABLES: dict[str, Any] = {
    "n": 7,
    "s": "42",
    "z": "0042",
    "f": 1.5,
    "t": True,
    "nul": None,
    "l": [1, 2],
    "m": {"b": 1, "a": None, "items": [3]},
    "e": "",
    "big": 767527441685282836,
    "sly": "{{ n }}",
    "own": {"result": 5},
    "workload": {"b": 1},
}

EXPRESSIONS: list[tuple[str, Any]] = [
    ("{{ n }}", 7),
    ("{{ s }}", "42"),
    ("{{ s ~ '' }}", "42"),
    ("{{ z }}", "0042"),
    ("{{ z ~ '' }}", "0042"),
    ("{{ f }}", 1.5),
    ("{{ t }}", True),
    ("{{ nul }}", None),
    ("{{ 'none' }}", "none"),
    ("{{ l }}", [1, 2]),
    ("{{ m }}", {"b": 1, "a": None, "items": [3]}),
    ("{{ m.zz }}", None),
    ("{{ e }}", ""),
    ("{{ missing }}", None),
    ("{{ missing.x.y }}", None),
    ("{{ missing.x | default('q') }}", "q"),
    ("{{ missing | default('q') }}", "q"),
    ("{{ nul | default('q') }}", "q"),
    ("{{ e | default('q') }}", ""),
    ("{{ e | default('q', true) }}", "q"),
    ("x{{ n }}", "x7"),
    ("x{{ missing }}y", "xy"),
    ("{{ n }}{{ n }}", "77"),
    ("{{ 10 / 5 }}", 2.0),
    ("{{ 2**3 }}", 8),
    ("{{ n > 3 }}", True),
    ("{{ t and s }}", "42"),
    ("{{ l | tojson }}", [1, 2]),
    (" {{ m | tojson(indent=2) }} ", {"b": 1, "a": None, "items": [3]}),
    ("{{ s | tojson }}", "42"),
    ("{{ sly | tojson }}", "{{ n }}"),
    ("{{ l | tojson | string }}", "[1,2]"),
    ("x{{ l | tojson }}", "x[1,2]"),
    ("x{{ m | tojson }}", 'x{"a":null,"b":1,"items":[3]}'),
    ("{# a comment #}", ""),
    (" {# a #} {# {{ n }} #} ", "   "),
    ("{# a\n comment #}\n", ""),
    ("a{# hidden #}b", "ab"),
    ("a{# b", "a{# b"),
    ("echo ${#list[@]} #}", "echo ${#list[@]} #}"),
    ("{# not closed", "{# not closed"),
    ("{{ l[-1] }}", 2),
    ("{{ 'a' + 'b' }}", "ab"),
    ("{{ m.items() | list }}", [["b", 1], ["a", None], ["items", [3]]]),
    ("{{ m.items }}", [3]),
    ("{{ m.keys }}", None),
    ("{{ m.get('b') }}", 1),
    ("{{ missing == none }}", False),
    ("{{ missing is none }}", False),
    ("{{ nul == none }}", True),
    ("{{ n == '7' }}", False),
    ("{% if missing.x %}a{% else %}b{% endif %}", "b"),
    ("{{ [missing, {'a': missing.b}] }}", [None, {"a": None}]),
    ("  {{ l }}\n", [1, 2]),
    ("{{- l -}}", [1, 2]),
    ("{{ '}}' }}", "}}"),
    ("{{ {'a': {'b': 1}} }}", {"a": {"b": 1}}),
    ("{{ range(3) }}", [0, 1, 2]),
    ("{{ big }}", 767527441685282836),
    ("id {{ big }}", "id 767527441685282836"),
    ("{{ m.result.b }}", 1),
    ("{{ m.result }}", {"b": 1, "a": None, "items": [3]}),
    ("{{ own.result }}", 5),
    ("{{ workload.result }}", None),
    ("{{ missing.result.b }}", None),
    ("{{ m.deep.result }}", None),
    ("{% for m in [{'b': 2}] %}{{ m.result | default('none') }}{% endfor %}", "none"),
    ("{{ sly }}", "{{ n }}"),
    ("got {{ sly }}", "got {{ n }}"),
    ("{{ t }} {{ nul }} {{ m }} {{ l }}\n", 'true null {"b": 1, "a": null, "items": [3]} [1, 2]\n'),
    ("{{ 't=' ~ t }}", "t=true"),
    ("{% for i in l %}{{ loop.index }}:{{ i }},{% endfor %}", "1:1,2:2,"),
    ("{% set x = n + 1 %}{{ x }}", "8"),
]

FILTERS: list[tuple[str, Any]] = [
    ("{{ 'x' | int }}", 0),
    ("{{ ' 5' | int }}", 5),
    ("{{ '1e3' | int }}", 1000),
    ("{{ '3.99' | int }}", 3),
    ("{{ '-7.9' | int }}", -7),
    ("{{ nul | int }}", 0),
    ("{{ missing | int }}", 0),
    ("{{ 'x' | int(9) }}", 9),
    ("{{ '767527441685282836' | int }}", 767527441685282836),
    ("{{ 'x' | float }}", 0.0),
    ("{{ '2.5' | float }}", 2.5),
    ("{{ 'héllo' | length }}", 5),
    ("{{ n | len }}", 0),
    ("{{ m | length }}", 3),
    ("{{ 'Ab' | upper }}{{ 'Ab' | lower }}", "ABab"),
    ("{{ ' a ' | trim }}", "a"),
    ("{{ 42 | replace('4', '5') }}", "52"),
    ("{{ 'a,b' | split(',') }}", ["a", "b"]),
    ("{{ 'a b' | split }}", ["a", "b"]),
    ("{{ 'hi' | join(',') }}", "h,i"),
    ("{{ l | join('-') }}", "1-2"),
    ("{{ [true, none] | join(',') }}", "true,null"),
    ("{{ l | first }}", 1),
    ("{{ l | last }}", 2),
    ("{{ [] | first }}", None),
    ("{{ [] | last }}", None),
    ("{{ 'héllo' | b64encode }}", "aMOpbGxv"),
    ("{{ 'aMOpbGxv' | b64decode }}", "héllo"),
    ("{{ '{\"a\": 1}' | fromjson }}", {"a": 1}),
    ("{{ '{' | fromjson }}", None),
    ("{{ '<&>' | tojson }}", "<&>"),
    ("x{{ '<&>' | tojson }}", 'x"<&>"'),
    ("{{ missing | tojson }}", None),
    ("x{{ missing | tojson }}", "xnull"),
    ("{{ m | keys }}", ["b", "a", "items"]),
    ("{{ m | values }}", [1, None, [3]]),
    ("{{ {'a': 1} | items }}", [["a", 1]]),
    ("{{ m | get('b') }}{{ m | get('zz', 4) }}", "14"),
    ("{{ l | map('string') | list }}", ["1", "2"]),
    ("{{ 'no' | bool }}", False),
    ("{{ l | sum }}", 3),
]


@pytest.mark.parametrize(("template", "expected"), [*EXPRESSIONS, *FILTERS])
def test_expression_keeps_its_type_and_text_stays_text(template: str, expected: Any) -> None:
    rendered = render(template, VARIABLES)
    assert rendered == expected
    assert type(rendered) is type(expected)


@pytest.mark.parametrize("text", ["", "10", "007", "true", "{a}", "${#x[@]}", "a } } b"])
def test_text_without_marks_is_untouched(text: str) -> None:
    assert render(text, VARIABLES) is text


def test_text_that_is_undefined_is_what_is_asked_for() -> None:
    given = {"a": "{{ nope }}", "b": ["{{ x.y.z }}"], "c": "{{ x }}", "d": "<{{ nope }}>", "e": "{{ nope == none }}"}
    rendered = {"a": "", "b": [""], "c": None, "d": "<>", "e": False}
    assert render(given, {"x": None}, undefined="") == rendered


def test_containers_are_walked_and_keys_are_not() -> None:
    value = {"{{ n }}": ["{{ n }}", {"deep": "{{ s }}"}, 3, None]}
    assert render(value, VARIABLES) == {"{{ n }}": [7, {"deep": "42"}, 3, None]}
    assert value == {"{{ n }}": ["{{ n }}", {"deep": "{{ s }}"}, 3, None]}


@pytest.mark.parametrize(
    "template",
    [
        "{{ s.__class__ }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ s['__class__'] }}",
        "{{ s | attr('__class__') }}",
        "{{ '{0.__class__}'.format(s) }}",
        "{{ missing.__class__ }}",
        "{{ m.__class__ is defined }}",
        "{{ missing._x.__class__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ range.__globals__ }}",
        "x {{ m.__init__ }}",
        "{{ l.append(3) }}",
        "{{ m.update(a=1) }}",
        "{{ 'a' * 10**9 }}",
        "{{ 10 ** 10000000 }}",
        "{{ range(10**8) }}",
        "{% include 'etc' %}",
    ],
)
def test_the_sandbox_refuses(template: str) -> None:
    with pytest.raises(TemplateError):
        render(template, VARIABLES)
    assert VARIABLES["l"] == [1, 2]


@pytest.mark.parametrize(
    "text",
    [
        "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in l %}{% endfor %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) if j < 0 %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=9) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
        "{% for i in range(999) %}{{ 'x' * 1000000 }}{% endfor %}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
        "{% for x in [1, 2] recursive %}{% if loop.depth < 60 %}{{ loop([1, 2]) }}{% endif %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ ((2 ** 9999) ** 9999) ** 9999 }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%*d' % (999999999, 1) }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ '{:{}}'.format(1, 999999999) }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ [3] | _counted }}",
    ],
)
def test_a_template_cannot_eat_the_worker(text: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TemplateError):  # without a limit these take minutes: the test's own timeout ends them
            render(text, VARIABLES)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


def test_time_of_one_rendering_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    with pytest.raises(TemplateError, match="it runs for more than 2 s"):
        render("{% for i in range(100) %}{{ i }}{% endfor %}", VARIABLES)


def test_ordinary_loops_keep_what_jinja_gives_them() -> None:
    text = "{% for i in l %}{{ loop.index }}/{{ loop.length }}{{ loop.last }}{{ loop.nextitem }} {% endfor %}"
    assert render(text, VARIABLES) == "1/2false2 2/2true "
    assert render("{% for i in missing %}x{% else %}none{% endfor %}", VARIABLES) == "none"
    assert render("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}", VARIABLES) == "a1"
    tree = {"t": [{"n": 1, "c": [{"n": 2, "c": []}]}]}
    nested = "{% for x in t recursive %}{{ x.n }}({{ loop(x.c) }}){% endfor %}"
    assert render(nested, tree) == "1(2())"


def test_compiled_templates_are_bounded() -> None:
    def kept_after(numbers: range) -> int:
        for number in numbers:
            render(f"{{{{ n + {number} }}}}", VARIABLES)
        gc.collect()
        return sum(isinstance(one, Template) for one in gc.get_objects())

    assert kept_after(range(1_100)) == kept_after(range(1_100, 1_300)) >= 1_024


def test_markup_is_never_escaped_behind_the_authors_back() -> None:
    assert render("{{ ('<a>' | safe) + '<b>' }}", VARIABLES) == "<a><b>"
    assert render("{{ ('<a>' | e) + '<b>' }}", VARIABLES) == "&lt;a&gt;<b>"
    assert type(render("{{ '<a>' | e }}", VARIABLES)) is str


@pytest.mark.parametrize("template", ["{{ missing }}", "{{ missing.deep }}", "a {{ missing }}", "{{ [missing] }}"])
def test_strict_names_the_undefined_variable(template: str) -> None:
    with pytest.raises(TemplateError, match="'missing' is undefined"):
        render(template, VARIABLES, strict=True)


def test_strict_allows_a_default() -> None:
    assert render("{{ missing.deep | default('q') }}", VARIABLES, strict=True) == "q"
    assert render("{{ n if n is defined else 0 }}", VARIABLES, strict=True) == 7
    assert render("{{ missing is defined }}", VARIABLES, strict=True) is False


def test_syntax_error_names_template_line_and_remedy() -> None:
    with pytest.raises(TemplateError) as caught:
        render("first\nsecond {{ n", VARIABLES)
    assert str(caught.value) == (
        "template 'first\\nsecond {{ n' at line 2: unexpected end of template, expected 'end of print statement'. "
        "Text that only looks like a template goes between {% raw %} and {% endraw %}"
    )


def test_excerpt_of_a_long_template_is_bounded() -> None:
    with pytest.raises(TemplateError) as caught:
        render("x" * 100_000 + "{{ 1 // 0 }}", VARIABLES)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("a\nb\n{{ 1 / (n - 7) }}\n", "at line 3: division by zero"),
        ("{{ 'a' + 1 }}", "can only concatenate str"),
        ("{{ n > '5' }}", "'>' not supported between"),
        ("{{ missing > 3 }}", "'missing' is undefined"),
        ("{{ n | nofilter }}", "No filter named 'nofilter'"),
        ("{{ namespace(a=1) }}", "no value of JSON"),
    ],
)
def test_an_expression_that_cannot_be_evaluated_is_an_error(template: str, said: str) -> None:
    with pytest.raises(TemplateError, match=said):
        render(template, VARIABLES)


def test_deep_values_render_without_running_out_of_stack() -> None:
    value: Any = "{{ n }}"
    for _ in range(400):
        value = [value]
    rendered = render(value, VARIABLES)
    for _ in range(400):
        (rendered,) = rendered
    assert rendered == 7


TRUE = ["true", "yes", "a", "00", 1, -1, [0], {"a": None}, True]
FALSE = ["", " ", "false", "False", "0", "no", "None", "null", "OFF", "{}", "[]", 0, None, []]


@pytest.mark.parametrize(("value", "is_true"), [*((one, True) for one in TRUE), *((one, False) for one in FALSE)])
def test_what_counts_as_true(value: Any, is_true: bool) -> None:
    assert truthy(value) is is_true


def test_has_template_looks_into_values_only() -> None:
    assert has_template({"a": [{"b": "x {% if y %}{% endif %}"}]})
    assert not has_template({"{{ a }}": ["b", 1, None]})
