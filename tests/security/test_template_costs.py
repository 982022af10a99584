"""A template does not hold up the loop or take the memory: whatever it calls is charged before it runs."""

from __future__ import annotations

import contextlib
import re
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from noetl_worker.errors import TemplateError
from noetl_worker.templates import template
from noetl_worker.templates.costs import FILTER_COSTS, METHOD_COSTS, TEST_COSTS
from noetl_worker.templates.sandbox import LENIENT

NEST: Any = [1]
for _ in range(40):
    NEST = [NEST, NEST]
"""2 ** 40 elements in forty lists."""
VALUES: dict[str, Any] = {
    "text": "ab c<" * 2_000_000,
    "wide": "é b\n" * 250_000,
    "brackets": "[" + "[]," * 800_000 + "[]]",
    "ints": list(range(900_000)),
    "rows": [{"a": number, "b": "x"} for number in range(80_000)],
    "nest": NEST,
    "million": 999_999,
    "l": [1, 2, 3],
}
MANY_ROUNDS = 10_000_000
"""Of a loop of plain Python: 0.2 s of a machine that has nothing else to do."""
OVER = re.compile(r"it (takes|makes) more than")
MAX_MEMORY = 100_000_000

ARGUMENTS = {
    **dict.fromkeys(("map", "select", "reject"), "('center', million)"),
    **dict.fromkeys(("selectattr", "rejectattr", "attr", "groupby"), "('a')"),
    **dict.fromkeys(("center", "indent", "batch", "slice", "wordwrap", "round", "truncate"), "(1)"),
    "replace": "('a', 'b' * 9)",
    "join": "('b' * 9)",
    "format": "(text)",
    "trim": "(text)",
}


def calls() -> Iterator[str]:
    names = ("text", "ints", "nest")
    for name in FILTER_COSTS:
        yield from (f"{value} | {name}{ARGUMENTS.get(name, '')}" for value in names)
    for name in filter(str.isidentifier, TEST_COSTS):
        yield from (f"{value} is {name}{argument}" for value in ("text", "nest") for argument in ("(nest)",))
    for name in METHOD_COSTS[str]:
        yield from (f"text.{name}{given}" for given in ("(million)", "('a', 'b' * 99)"))
    for kind, value in ((list, "ints"), (dict, "rows[0]"), (int, "million")):
        yield from (f"{value}.{name}(nest)" for name in METHOD_COSTS[kind])
    for operator in ("+", "-", "*", "/", "//", "%", "**", "~", "==", "<", "in"):
        yield from (f"{left} {operator} {right}" for left in ("text", "nest") for right in ("text", "nest"))
        yield f"ints {operator} million"
    yield from (f"{value}{part}" for value in names for part in ("[1:]", "[::-1]", ""))


ATTACKS = (
    *("('%s' * 90000) | format(*ints)", "rows | map('tojson') | list", "rows | map('upper') | map('lower') | list"),
    *("text | wordwrap(1)", "text | indent(1000)", "[[1] * 1000000] * 1000", "ints | map('center', 999999) | list"),
    *("million.to_bytes(10 ** 9, 'big')", "text.translate({97: 'x' * 9999})", "('{0:999999}' * 500).format(1)"),
    *("('%999999d' * 500) % ((1,) * 500)", "brackets | fromjson", "5 | round(-10 ** 9)", "'x'.ljust(10 ** 8)"),
    *(
        "'x'['center'](10 ** 8)",
        "('<!--a-->' * 90000) | striptags",
        "(text * 3).rfind('b' + text)",
        "ints | sum(start=[])",
    ),
    *(
        "ints | map('string') | map('center', 9999) | join",
        "text | list",
        "text | sort",
        "text | pprint",
        "text.encode(text)",
    ),
    *(
        "('x' * 9000000 ~ '\\U0001f600')",
        "text.upper().lower().title()",
        "text.rfind('b' + 'a' * 9000)",
        "text.strip(text)",
        "nest == nest",
        "nest | tojson",
        "'x' ~ nest",
    ),
)


def is_other_method(kind: type, name: str) -> bool:
    """Whether it is a method that has no cost. `format` is charged as what it makes; `maketrans` is one of texts."""
    listed = name in METHOD_COSTS[kind] or name in ("format", "format_map", "maketrans")
    return not name.startswith("_") and not listed and callable(getattr(kind, name))


def rounds(count: int) -> float:
    started = time.thread_time()
    for _ in range(count):
        pass
    return time.thread_time() - started


def taken(expression: str) -> float:
    """Seconds of this thread that a rendering takes, whether it comes to an end or is refused."""
    text = "{{ " + expression + " }}"
    started = time.thread_time()
    with contextlib.suppress(TemplateError):
        template.render([text], VALUES)
    return time.thread_time() - started


def test_everything_that_is_offered_has_a_cost_and_nothing_else_is_offered() -> None:
    assert set(LENIENT.filters) == {*FILTER_COSTS, "_counted"}
    assert set(LENIENT.tests) == set(TEST_COSTS)
    for value, kind in (("'x'", str), ("m", dict), ("[1]", list), ("n", int), ("f", float), ("'x'.encode()", bytes)):
        for name in (name for name in dir(kind) if is_other_method(kind, name)):
            with pytest.raises(TemplateError, match="is not open to templates"):
                template.render(f"{{{{ {value}.{name}() }}}}", {"m": {"a": 1}, "n": 1, "f": 1.5})


@pytest.mark.timeout(120)
def test_no_call_of_a_template_holds_up_the_loop() -> None:
    """Judged beside plain Python in the same thread, since a second means nothing on a busy machine."""
    limit_s = rounds(MANY_ROUNDS)
    suspects = [expression for expression in (*calls(), *ATTACKS) if taken(expression) > limit_s / 2]
    slow = [expression for expression in suspects if min(taken(expression), taken(expression)) > rounds(MANY_ROUNDS)]
    assert slow == [], [(expression, taken(expression) / limit_s) for expression in slow]


@pytest.mark.parametrize("expression", ATTACKS)
def test_no_attack_takes_the_memory(expression: str) -> None:
    tracemalloc.start()
    try:
        taken(expression)
        assert tracemalloc.get_traced_memory()[1] < MAX_MEMORY
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "text",
    [
        "{% set ns = namespace(a=[1]) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a }}",
        "{% for i in range(99999) %}{% set x = ints[1:] %}{% endfor %}",
        "{% for i in range(99999) %}{% if i in ints %}x{% endif %}{% endfor %}",
        "{% for i in range(99999) %}{% block b scoped %}{% for j in l %}{% endfor %}{% endblock %}{% endfor %}",
        "{% set n = 2 ** 9000 %}{% for i in range(99999) %}{% set m = n // 3 ** 2000 %}{% endfor %}",
    ],
)
def test_one_budget_is_for_all_of_a_rendering(text: str) -> None:
    with pytest.raises(TemplateError, match=OVER):
        template.render([text], VALUES)
    with pytest.raises(TemplateError, match=OVER):
        template.render(["{% for i in range(9999) %}{% endfor %}"] * 1000, {})


def test_ordinary_work_on_large_data_is_within_the_budget() -> None:
    rows = [{"id": number, "name": f"n{number}", "amount": number / 4} for number in range(10_000)]
    assert template.render("{{ rows | map(attribute='id') | sum }}", {"rows": rows}) == sum(range(10_000))
    assert len(str(template.render("x{{ rows | tojson }}", {"rows": rows}))) > 400_000
    assert template.render("{{ rows | selectattr('id', 'gt', 9990) | list | length }}", {"rows": rows}) == 9
    assert template.render("{{ rows | default([]) }}", {"rows": rows}) == rows
    text = "{% for row in rows %}{{ row.id }},{{ row.name }}\n{% endfor %}"
    assert str(template.render(text, {"rows": rows})).count("\n") == 10_000
    assert len(str(template.render("{{ text | upper | replace('A', 'b') }}", {"text": "a" * 10_000_000}))) == 10_000_000
