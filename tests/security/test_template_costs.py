"""A template blocks the loop or takes the memory."""

from __future__ import annotations

import ctypes
import functools
import gc
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from holds import HOLDS_TIMES
from noetl_worker.errors import TemplateError
from noetl_worker.text.templates import limits, template
from noetl_worker.text.templates.costs import FILTER_COSTS, METHOD_COSTS, TEST_COSTS
from noetl_worker.text.templates.sandbox import LENIENT

from .commands import peak_of
from .template_calls import COMPARISONS, ONCE, calls, values

ROUNDS, PARTS = 1_000_000, 10
"""Of a loop of plain Python: a tenth, and how many of it make the limit, 0.2 s of a machine with nothing else to do.
One tenth is timed: whatever is slow is looked at often, and each look has a time of its own beside it."""
LOOKS = 5
"""At what was slow beside plain Python the first time: what else runs on the machine only ever adds to it."""
OVER = re.compile(r"it (takes|makes texts and lists of) more than")
REFUSED = re.compile(rf"{OVER.pattern}|of over|is over|no longer than a line|a width in its format")
"""What the budget says, and the bounds of a single argument. Any other failure is of a call that was never made."""
MAX_MEMORY = 100_000_000
CLEAR_REFS = Path("/proc/self/clear_refs")
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

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
        "dict(alike | batch(2))",
        "[text[:4000000]] | urlize",
        "[text[:6000000]] | title",
        "([digits] * 30000) | string",
        "([digits] * 30000) | tojson",
        "([digits] * 30000) | join(',')",
        "([digits] * 10000) | replace('1', '2')",
        "([digits] * 30000) | map('string') | list",
        "[[digits, []]] * 50000",
        "{'a': [digits] * 90000}",
        "'x' ~ [digits] * 10000",
        "[{'a': digits}] * 90000 | tojson",
        "('%s' * 10000) | format(*([digits] * 10000))",
        "('x' * 9000000 ~ '\\U0001f600')",
        "text.upper().lower().title()",
        "text.rfind('b' + 'a' * 9000)",
        "text.strip(text)",
        "nest == nest",
        "nest | tojson",
        "'x' ~ nest",
    ),
)


ALTERNATELY = "{% for i in range(200) %}{{ loop.changed(words if i % 2 else same) }}{% endfor %}"
TEN_TIMES = "{{{{ {0} }}}}" * 10


def doubled(first: str, after: str, last: str) -> str:
    """A text that is made ten times as long again and again, each time as a whole."""
    made = "".join(after.replace("NEXT", f"n{number + 1}").replace("LAST", f"n{number}") for number in range(3))
    return first + made + last


TEXTS = (
    doubled(
        "{% set n0 %}{{ text }}{% endset %}",
        f"{{% set NEXT %}}{TEN_TIMES.format('LAST')}{{% endset %}}",
        "{{ n3 | length }}",
    ),
    doubled(
        "{% macro n0() %}{{ text }}{% endmacro %}",
        f"{{% macro NEXT() %}}{TEN_TIMES.format('LAST()')}{{% endmacro %}}",
        "{{ n3() | length }}",
    ),
    f"{{% macro m() %}}{TEN_TIMES.format('caller()')}{{% endmacro %}}{{% call m() %}}{{{{ text }}}}{{% endcall %}}",
    "{% set n %}{% for i in range(99) %}{{ text }}{% endfor %}{% endset %}{{ n | length }}",
    "{% block b %}{{ text }}{% endblock %}{% set n %}" + TEN_TIMES.format("self.b()") + "{% endset %}{{ n }}",
    "{% filter upper %}{% for i in range(99) %}{{ text }}{% endfor %}{% endfilter %}",
    *(f"{{% for i in ints %}}{one}{{% endfor %}}" for one in ("{{ digits }}", "{% set x = digits ~ 'a' %}")),
    *(
        f"{{% for i in ints %}}{{% set x = {one} %}}{{% endfor %}}"
        for one in ("('9' * 4000) | int", "digits | round(-9)")
    ),
    *(ALTERNATELY, "{{ l }}" * 50_000, "{% if l %}a{% endif %}" * 20_000, "{{ [" + "l," * 50_000 + "] }}"),
    *("{{ {" + ",".join(f"'k{number}': 1" for number in range(50_000)) + "} }}", "\n" * 2_000_000 + "{{ l }}"),
)
"""Whole templates: what is made by their blocks, and what it takes to compile them."""
CALLS = calls()
GROUPS = {
    kind: [one for name, given in CALLS.items() if kind in name for one in given] for kind in ("filter ", "test ", ".")
}
GROUPS["others"] = [
    *(one for name, given in CALLS.items() if not any(kind in name for kind in GROUPS) for one in given),
    *ATTACKS,
]
GROUPS["whole templates"] = list(TEXTS)


@pytest.fixture(scope="module", autouse=True)
def _returned() -> Iterator[None]:
    """What the collector would go through again and again for the rest of this process."""
    yield
    values.cache_clear()


def is_other_method(kind: type, name: str) -> bool:
    """Whether it is a method that has no cost. `format` is charged as what it makes."""
    listed = name in METHOD_COSTS[kind] or (kind is str and name in ("format", "format_map"))
    return not name.startswith("_") and not listed and callable(getattr(kind, name))


def limit() -> float:
    """Seconds of this thread, at the machine's speed of this moment."""
    started = time.thread_time()
    for _ in range(ROUNDS):
        pass
    return PARTS * (time.thread_time() - started)


def outcome(expression: str) -> str:
    """What comes of a rendering: `value`, `refused` or the text of another error."""
    try:
        template.render([expression if expression in TEXTS else "{{ " + expression + " }}"], values())
    except TemplateError as error:
        return "refused" if REFUSED.search(str(error)) else str(error)
    return "value"


def timed(expression: str) -> tuple[str, float]:
    """What comes of a rendering, and the seconds of this thread that it takes; the collector goes through what is new
    alone, and not through all that the tests of this process have left."""
    gc.collect()
    gc.freeze()
    started = time.thread_time()
    came = outcome(expression)
    return came, time.thread_time() - started


def taken(expression: str) -> float:
    """Of a rendering that comes to an end or is refused."""
    return timed(expression)[1]


@dataclass(frozen=True)
class Rendering:
    """One of an expression, whether it came to an end or was refused: all tests below read it."""

    outcome: str
    taken_s: float
    grown: int
    """Bytes by which the process had grown at its peak; where that cannot be asked, as much as is allowed."""


@functools.cache
def rendering(expression: str) -> Rendering:
    before = memory_before()
    came, taken_s = timed(expression)
    return Rendering(came, taken_s, MAX_MEMORY if before is None else status_bytes("VmHWM") - before)


def memory_before() -> int | None:
    """Bytes of this process, whose peak is a new one from here on; None where it cannot be asked."""
    try:
        if LIBC is not None:
            LIBC.malloc_trim(0)  # what is free would be taken without any growth
        CLEAR_REFS.write_text("5", encoding="ascii")
        return status_bytes("VmRSS")
    except (OSError, AttributeError):
        return None


def status_bytes(name: str) -> int:
    [line] = (
        line for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if line.startswith(name)
    )
    return int(line.split()[1]) * 1024


def memory_of(expression: str) -> int:
    """Bytes at the peak of a rendering."""
    return peak_of(lambda: outcome(expression))


def test_everything_that_is_offered_has_a_cost_and_nothing_else_is_offered() -> None:
    """A filter or method without a cost."""
    assert set(LENIENT.filters) == {*FILTER_COSTS, "_counted"}
    assert set(LENIENT.tests) == set(TEST_COSTS)
    for value, kind in (("'x'", str), ("m", dict), ("[1]", list), ("n", int), ("f", float), ("'x'.encode()", bytes)):
        for name in (name for name in dir(kind) if is_other_method(kind, name)):
            with pytest.raises(TemplateError, match="is not open to templates"):
                template.render(f"{{{{ {value}.{name}() }}}}", {"m": {"a": 1}, "n": 1, "f": 1.5})


def is_slow(took_s: float, limit_s: float) -> bool:
    """Plain Python is timed again beside what is over half of the limit."""
    return took_s > limit_s / 2 and took_s > limit()


@pytest.mark.sweep
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not HOLDS_TIMES, reason="a time: make faults")
@pytest.mark.parametrize("group", GROUPS)
def test_no_call_of_a_template_holds_up_the_loop(group: str) -> None:
    """Each filter and method with the most costly arguments.

    Judged beside plain Python in the same thread, since a second means nothing on a busy machine.
    """
    limit_s = limit()
    suspects = [expression for expression in GROUPS[group] if is_slow(rendering(expression).taken_s, limit_s)]
    slow = [expression for expression in suspects if all(is_slow(taken(expression), limit_s) for _ in range(LOOKS))]
    assert slow == []


@pytest.mark.sweep
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("group", GROUPS)
def test_no_call_of_a_template_takes_the_memory(group: str) -> None:
    """The same for their memory."""
    # To trace is slow: what does not let the process grow is not traced.
    suspects = [expression for expression in GROUPS[group] if rendering(expression).grown > MAX_MEMORY / 4]
    found = [(expression, size) for expression in suspects if (size := memory_of(expression)) >= MAX_MEMORY]
    assert found == []


@pytest.mark.sweep
def test_sides_of_a_comparison_are_refused_whatever_compares_them() -> None:
    """(no attack) Why not every operator is tried with all of these."""
    assert {rendering(f"({left}) == ({right})").outcome for left, right in ONCE} == {"refused"}
    assert {rendering(f"(nest) {operator} (nest)").outcome for operator in COMPARISONS} == {"refused"}


@pytest.mark.sweep
@pytest.mark.timeout(1800)
def test_each_name_is_really_called() -> None:
    """(no attack) A name that only fails for its arguments would show nothing above: one call of each has an effect."""
    called = {
        name for name, given in CALLS.items() if any(rendering(one).outcome in ("value", "refused") for one in given)
    }
    assert set(CALLS) - called == set()
    names = {f"filter {name}" for name in FILTER_COSTS} | {f"test {name}" for name in TEST_COSTS}
    names |= {f"{kind.__name__}.{name}" for kind, costs in METHOD_COSTS.items() for name in costs}
    assert names - called == set()


@pytest.mark.parametrize(
    "call", ["'9'.encode().decode({0})", "'é'.encode({0})", "'9'.encode(errors='x', encoding={0})"]
)
@pytest.mark.parametrize("name", ["'punycode'", "'PUNY_CODE'", "'idna'", "'unicode_escape'", "'hex'", "text", "1"])
def test_encoding_whose_time_grows_with_the_square_is_refused(call: str, name: str) -> None:
    """`decode('punycode')` of 900 kB: two minutes."""
    with pytest.raises(
        TemplateError, match=r"a template can encode only as utf-8, .*: use a python step for another encoding"
    ):
        template.render(f"{{{{ {call.format(name)} }}}}", {"text": "a" * 1_000_000})


def test_encodings_of_text_are_read_and_written() -> None:
    for name in ("utf-8", "UTF_8", "utf8", "utf-16", "UTF-16-LE", "utf_32_be", "utf-8-sig"):
        assert template.render(f"{{{{ 'é€'.encode('{name}').decode('{name}') }}}}", {}) == "é€"
    assert template.render("{{ 'aé'.encode('ascii', 'ignore').decode('latin-1') }}", {}) == "a"


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
def test_one_budget_is_for_all_of_a_rendering(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many calls, each below the limit."""
    monkeypatch.setattr(limits, "MAX_TIME_S", 1_000.0)
    with pytest.raises(TemplateError, match=OVER):
        template.render([text], values())


def test_one_budget_is_for_all_texts_of_a_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in many texts."""
    monkeypatch.setattr(limits, "MAX_TIME_S", 1_000.0)
    with pytest.raises(TemplateError, match=OVER):
        template.render(["{% for i in range(9999) %}{% endfor %}"] * 1000, {})
    with pytest.raises(TemplateError, match=OVER):
        template.render([f"{{{{ a{number} }}}}" for number in range(5_000)], {})


def test_ordinary_work_on_large_data_is_within_the_budget() -> None:
    rows = [{"id": number, "name": f"n{number}", "amount": number / 4} for number in range(10_000)]
    assert template.render("{{ rows | map(attribute='id') | sum }}", {"rows": rows}) == sum(range(10_000))
    assert len(str(template.render("x{{ rows | tojson }}", {"rows": rows}))) > 400_000
    assert template.render("{{ rows | selectattr('id', 'gt', 9990) | list | length }}", {"rows": rows}) == 9
    assert template.render("{{ rows | default([]) }}", {"rows": rows}) == rows
    text = "{% for row in rows %}{{ row.id }},{{ row.name }}\n{% endfor %}"
    assert str(template.render(text, {"rows": rows})).count("\n") == 10_000
    assert len(str(template.render("{{ text | upper | replace('A', 'b') }}", {"text": "a" * 10_000_000}))) == 10_000_000
