"""An author chooses the size or the hash of what a template works on."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_worker.errors import TemplateError
from noetl_worker.text.templates.template import render

STEPS, BYTES = "takes more than 1,000,000 steps", "makes texts and lists of more than 64,000,000 bytes"
NEST = "{% set t = (1, 1) %}" + "{% set t = (t, t) %}" * 22
"""Of 2 ** 23 elements in 22 tuples."""
LOOP = (
    "{% for i in [1] recursive %}{% if loop.depth == 1 %}{{ loop(ints) }}{% elif false %}"
    + "{{ i }}" * 300
    + "{% endif %}{% endfor %}"
)
"""So much is in it that it is over the steps before a busy machine is over the seconds."""
DEEP = "{% set ns = namespace(a=range(2000) | list) %}" + "{% set ns.a = [ns.a] %}" * 100
NUMBERS = "{% set a = 2 ** 49000 %}{% set b = 3 ** 12000 %}"
VALUES: dict[str, Any] = {
    "text": "ab c<" * 100_000,
    "accents": "é" * 100_000,
    "ints": list(range(100_000)),
    "l": [1, 2, 3],
    "m": {"a": 1},
    "rows": [{"a": {"a": number}} for number in range(1000)],
    "letters": {f"k{number}": number for number in range(60_000)},
    "alike": [number * (2**61 - 1) for number in range(2_000)],
    "pairs": [[number, number] for number in range(5_000)],
}
CLOSED = "is not open to templates"


def refused(template: str, match: str) -> None:
    with pytest.raises(TemplateError, match=match):
        render(template, VALUES)


@pytest.mark.parametrize(
    "expression",
    [
        "('xy'.encode() * 1000000) | length",
        "1000000 * 'xy'.encode()",
        "('%9999999d'.encode() % 1) | length",
        "text.encode() + text.encode()",
        "letters.items() - m.items()",
        "ints - m.keys()",
        "letters.keys() - range(99999)",
    ],
)
def test_operand_that_has_no_cost_is_refused(expression: str) -> None:
    """Bytes a billion times, or a set of what has one hash, by an operator of one step."""
    refused(f"{{{{ {expression} }}}}", CLOSED)


def test_keys_that_are_taken_from_keys_are_charged() -> None:
    """The difference of large sets of keys for one step."""
    refused("{{ (letters.keys() - m.keys()) | length }}", STEPS)


@pytest.mark.parametrize(
    ("template", "match"),
    [
        ("{{ dict(dict(pairs[:9]).items() | batch(2)) }}", "a key is a text or a number, no tuple"),
        ("{{ dict([[(1, 2), 3]]) }}", "a key is a text or a number, no tuple"),
        ("{{ dict(pairs) | length }}", "over 4,000 keys that are numbers"),
        ("{{ namespace(alike | batch(2) | list) }}", "a key of over 60 bits"),
        ("{{ {(1, 2): 3} }}", "a key is a text or a number, no tuple"),
        ("{{ {alike[9]: 3} }}", "a key of over 60 bits"),
        ("{{ {20752587082923245559: 3} }}", "a key of over 60 bits"),
    ],
)
def test_key_whose_hash_an_author_chooses_is_refused(template: str, match: str) -> None:
    """An object with keys that Python compares each with each."""
    refused(template, match)


class Compared(int):
    """A number that counts how often it is compared."""

    times = 0

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return int(self) == other

    __hash__ = int.__hash__


def test_unique_compares_no_element_with_all_the_others() -> None:
    """`unique` of elements that have the same hash."""
    numbers = [Compared(number * (2**61 - 1)) for number in range(300)]
    pairs = {f"k{number}": number for number in numbers}
    assert render("{{ numbers | unique | list | length }}", {"numbers": numbers}) == 300
    assert render("{{ m.items() | unique | list | length }}", {"m": pairs}) == 300
    assert Compared.times == 0


def test_unique_still_takes_equal_numbers_for_one() -> None:
    """(no attack) What a number's key is."""
    assert render("{{ [1, 1.0, true, 'a', 'A', 0.5, none, none] | unique | list }}", {}) == [1, "a", 0.5, None]
    assert render("{{ [(1, 2), (1.0, 2), (2, 1)] | unique | list }}", {}) == [[1, 2], [2, 1]]


@pytest.mark.parametrize(
    "template",
    [
        "{{ m.get(t) }}",
        "{{ m | get(t) }}",
        "{{ m[t] }}",
        "{{ m[[t]] + 1 }}",
        "{% set d = {t: 1} %}",
        "{{ t is filter }}",
        "{{ l | map(t) }}",
    ],
)
def test_hash_of_a_tuple_of_tuples_is_charged_or_refused(template: str) -> None:
    """A tuple that holds another one twice, and so on, is looked up: its hash takes forever."""
    refused(NEST + template, f"{STEPS}|no (tuple|list)")


@pytest.mark.parametrize("template", ["{{ m.get(ns.t) }}", "{{ ns.t in m }}"])
def test_tuple_in_a_tuple_thousands_of_times_is_refused(template: str) -> None:
    """The hash of so deep a tuple takes all of the stack, and the worker with it."""
    deeper = "{% set ns.t = " + "(" * 20 + "ns.t" + ",)" * 20 + " %}"
    made = "{% set ns = namespace() %}{% for i in range(1500) %}" + deeper + "{% endfor %}"
    refused(made + template, STEPS)


def test_namespace_prints_without_what_is_in_it() -> None:
    """The same printed within a namespace."""
    assert render(NEST + "{% set ns = namespace() %}{% set ns.a = t %}{{ ns }}", {}) == "<Namespace>"


@pytest.mark.parametrize(
    "call",
    [
        "range(99999).count(1.5)",
        "letters.keys().isdisjoint(ints)",
        "letters.keys().mapping.copy()",
        "(letters.keys() - []).union(ints)",
        "(l | batch(2)).send(none)",
    ],
)
def test_method_that_has_no_cost_is_refused(call: str) -> None:
    """A method of a range, of a view or of a set, of one step whatever its size."""
    values = VALUES | {"letters": {"a": 1}}
    with pytest.raises(TemplateError, match=CLOSED):
        render(f"{{{{ {call} }}}}", values)


@pytest.mark.parametrize(
    ("template", "match"),
    [
        (LOOP, STEPS),
        ("{% macro f() %}{{ varargs | length }}{% endmacro %}" + "{{ f(*ints) }}" * 3, STEPS),
        ("{{ [" + "'zz' in text," * 200 + "] }}", STEPS),
        (NUMBERS + "{{ ([a] * 3000) | select('divisibleby', b) | list | length }}", STEPS),
        (NUMBERS + "{{ ([-a] * 20000) | map('abs') | list | length }}", BYTES),
        ("{{ ('x ' * 2000) | wordwrap(1, wrapstring='y' * 50000) | length }}", BYTES),
        ("{{ ('x' * 50000).join(ints[:2000] | map('string')) | length }}", BYTES),
        ("{{ ('a' * 2000).translate(['x' * 50000] * 128) | length }}", BYTES),
        ("{{ '%r' % ('\\x00' * 9000000) }}", BYTES),
        (DEEP + "{{ ns.a | tojson(indent=400) | length }}", BYTES),
        ("{{ ('http://a.bc ' * 2000) | urlize(target='x' * 50000) | length }}", "urlize: an argument of over 100"),
        ("{{ ('{0' ~ '.a' * 300000 ~ '}').format(m) }}", STEPS),
        ("{{ rows | map(attribute='a' ~ '.a' * 900) | list | length }}", "an attribute of over 8 parts"),
        ("{{ rows | sort(attribute='a' ~ ',a' * 900) | length }}", "an attribute of over 8 parts"),
        ("{{ rows | sort(false, false, 'a' ~ ',a' * 900) | length }}", "an attribute of over 8 parts"),
        (
            "{{ accents.encode('ascii', 'namereplace') | length }}",
            "`errors` of encode and decode may be strict, ignore, replace",
        ),
        ("{{ accents.encode().decode('ascii', errors='backslashreplace') }}", "`errors` of encode and decode may be"),
        ("{% autoescape true %}{{ text }}{% endautoescape %}", f"autoescape {CLOSED}"),
    ],
)
def test_work_that_an_argument_multiplies_is_charged(template: str, match: str) -> None:
    """An argument that is worked through, or written, once an element: it was charged once."""
    refused(template, match)


class Joined(list[int]):
    """A list that counts how often it is added to another one, all of which is copied."""

    times = 0

    def __radd__(self, other: list[int]) -> list[int]:
        Joined.times += 1
        return [*other, *self]


def test_sum_of_lists_copies_each_once() -> None:
    """`sum` of as many lists as there is room for: it copied what it had once a list."""
    assert render("{{ lists | sum(start=[]) | length }}", {"lists": [Joined([1]) for _ in range(100)]}) == 100
    assert Joined.times == 0


def test_attribute_that_groups_elements_is_charged_for_each() -> None:
    """As many numbers as may be compared with one another, by an attribute: two seconds of it."""
    refused("{{ ((ints * 2) | groupby('real')) | length }}", STEPS)


def test_long_texts_are_cased_and_cut_into_lines() -> None:
    """(no attack) Such texts were refused when lines and cases were charged more than they take."""
    text = "é" * 1_500_000
    assert render("{{ text.swapcase() | length }}", {"text": text}) == len(text)
    assert render("{{ text.splitlines() | length }}", {"text": "ab\n" * 850_000}) == 850_000


def test_ordinary_uses_of_the_same_are_open() -> None:
    """(no attack) What authors write."""
    for expression, expected in {
        "(m.keys() - ['a']) | list": [],
        "({'a': 1, 'b': 2}.keys() - m) | list": ["b"],
        "[[1], [2, 3]] | sum(start=[])": [1, 2, 3],
        "rows[:3] | sum(attribute='a.a')": 3,
        "dict(pairs[:2])[1]": 1,
        "{1: 'a', m.a: 'b'}[1]": "b",
        "dict(rows[:2] | groupby('a.a')) | length": 2,
        "'%s-%s' % (1, m.keys() | first)": "1-a",
        "(1, 2) + (3,)": [1, 2, 3],
        "', '.join(l | map('string'))": "1, 2, 3",
        "'aé'.encode('ascii', errors='ignore').decode()": "a",
        "'b a' in text": False,
        "'abc'.translate({97: 'x'})": "xbc",
        "l | tojson(indent=2) | length": 17,
        "'see http://a.bc' | urlize(target='_blank') | length > 20": True,
        "6 is divisibleby(3)": True,
    }.items():
        assert render(f"{{{{ {expression} }}}}", VALUES) == expected, expression


def test_call_in_a_loop_is_not_charged_for_what_the_loop_has_set() -> None:
    """(no attack) Jinja hands the variables of the loop on to each call."""
    text = "{% for i in range(300) %}{% set large = text %}{{ 'a'.isupper() }}{% endfor %}"
    assert render(text, {"text": "x" * 1_000_000}) == "false" * 300
