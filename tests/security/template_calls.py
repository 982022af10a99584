"""Every filter, test, method and operator of the templates' sandbox, called with arguments that it takes."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from noetl_worker.text.templates.costs import FILTER_COSTS, METHOD_COSTS, TEST_COSTS


@functools.cache
def values() -> dict[str, Any]:
    """What the expressions name; 300 MB, made when a test needs them and not where a file is only collected.

    `nest` has 2 ** 40 elements in forty lists. `same` and `samedict` are equal to `words` and `bigdict`, and other
    objects: Python compares what is in them. All of `alike` have the same hash, and `digits` has so many that Python
    takes long to write them.
    """
    nest: Any = [1]
    for _ in range(40):
        nest = [nest, nest]
    return {
        "text": "ab c<" * 2_000_000,
        "wide": "é b\n" * 250_000,
        "brackets": "[" + "[]," * 800_000 + "[]]",
        "ints": list(range(900_000)),
        "words": [f"w{number}" for number in range(900_000)],
        "same": [f"w{number}" for number in range(900_000)],
        "rows": [{"a": number, "b": "x"} for number in range(80_000)],
        "bigdict": {f"k{number}": f"v{number}" for number in range(200_000)},
        "samedict": {f"k{number}": f"v{number}" for number in range(200_000)},
        "middict": {f"k{number}": f"v{number}" for number in range(90_000)},
        "nest": nest,
        "alike": [number * (2**61 - 1) for number in range(20_000)],
        "digits": 9**4000,
        "million": 999_999,
        "half": 0.5,
        "l": [1, 2, 3],
    }


LARGE = ("text", "ints", "words", "rows", "bigdict", "middict", "nest", "alike")

FILTERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("map", "select", "reject"), ("('center', million)", "('string')", "('lower')")),
    **dict.fromkeys(("selectattr", "rejectattr", "attr", "groupby"), ("('a')",)),
    **dict.fromkeys(("center", "indent", "batch", "slice", "wordwrap", "round", "truncate"), ("(1)", "(million)")),
    "get": ("('k1')", "(1)"),
    "default": ("(bigdict)",),
    "replace": ("('a', 'b' * 9)", "(bigdict, 'x')", "(middict, 'x')"),
    "split": ("", "('b')"),
    "join": ("('b' * 9)",),
    "format": ("(text)", "(bigdict)"),
    "trim": ("", "('ab')"),
    "tojson": ("", "(indent=2)"),
    "sum": ("", "(start=[])"),
    "dictsort": ("", "(by='value')"),
}
SMALL_FILTERS = {
    "abs": ("million", "half"),
    "round": ("million", "half"),
    "filesizeformat": ("million",),
    "b64decode": ("('QUJD' * 4000000)",),
    "format": ("('%s' * 9)",),
    "int": ("million", "('9' * 4000)"),
    "float": ("half",),
    "groupby": ("rows[:9]",),
    "xmlattr": ("{'a': text[:99]}",),
    "attr": ("rows[0]",),
}
"""Filters of values that none of the large ones is."""

TESTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("eq", "equalto", "ne", "lt", "lessthan", "le", "gt", "greaterthan", "ge", "sameas", "in"),
        ("(nest)", "(same)", "(samedict)"),
    ),
    "divisibleby": ("(3)",),
}
SMALL_TESTS = {
    **dict.fromkeys(("even", "odd", "divisibleby"), ("million",)),
    **dict.fromkeys(("filter", "test"), ("'lower'",)),
}

_SIGNS = ("", "('ab')", "(text)")
_WIDTH = ("(million)", "(10 ** 9)")
_SOUGHT = ("('c')", "('b' * 9000)", "(text)")
METHODS: dict[type, tuple[tuple[str, ...], dict[str, tuple[str, ...]]]] = {
    str: (
        ("text", "wide"),
        {
            **dict.fromkeys(("center", "ljust", "rjust"), (*_WIDTH, "(million, 'é')")),
            "zfill": _WIDTH,
            **dict.fromkeys(("count", "endswith", "find", "index", "startswith"), _SOUGHT),
            **dict.fromkeys(("rfind", "rindex", "partition", "rpartition", "removeprefix", "removesuffix"), _SOUGHT),
            **dict.fromkeys(("strip", "lstrip", "rstrip"), _SIGNS),
            **dict.fromkeys(("split", "rsplit"), ("", "('b')", "(text)")),
            "encode": ("", "('utf-16')"),
            "expandtabs": ("", "(million)"),
            "join": ("(l)", "(words)", "(text)", "(bigdict)"),
            "maketrans": ("('abc', 'xyz')", "({'a': text})", "(bigdict)", "(text, text)"),
            "replace": ("('a', 'b' * 99)", "('', 'b')", "('a', text)"),
            "splitlines": ("", "(true)"),
            "translate": ("({97: 'x' * 9999})", "({97: none})"),
        },
    ),
    bytes: (("text.encode()", "wide.encode('utf-16')"), {"decode": ("", "('utf-16')", "('latin-1')")}),
    int: (("million", "(2 ** 90000)"), {}),
    float: (("half",), {}),
    list: (("ints", "words", "rows", "nest"), dict.fromkeys(("count", "index"), ("(1)", "(nest)", "(words[0])"))),
    tuple: (("(ints, words, ints)", "(1, nest)"), dict.fromkeys(("count", "index"), ("(1)", "(nest)", "(ints)"))),
    dict: (("bigdict", "rows[0]"), {"get": ("('k1')", "(1, nest)")}),
}
BINARY = ("+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or")
PAIRS = (
    *(("text", "text"), ("text", "wide"), ("text", "nest"), ("text", "million"), ("text", "bigdict")),
    *(("ints", "ints"), ("ints", "million"), ("ints", "words"), ("million", "half")),
    *(("words", "same"), ("'w5'", "words"), ("'w'", "text")),
    *(("nest", "nest"), ("nest", "ints"), ("l", "nest"), ("rows", "rows[1:]")),
    *(("bigdict", "samedict"), ("bigdict", "text"), ("'x'", "bigdict")),
    *(("'%s'", "bigdict"), ("'%s'", "nest"), ("million", "million"), ("million", "9 ** 9000"), ("'x'", "rows")),
    *((f"bigdict.{view}()", f"samedict.{view}()") for view in ("keys", "items")),
)
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=", "in", "not in")
ONCE = (
    *(("text", "nest"), ("words", "same"), ("nest", "ints"), ("l", "nest"), ("'%s'", "nest")),
    *(("rows", "rows[1:]"), ("'x'", "rows"), ("bigdict", "samedict"), ("bigdict.items()", "samedict.items()")),
)
"""Pairs whose sides alone are over the budget: a comparison charges each before its operator is looked at, so that they
are tried with `==` alone; (nest, nest) is with every one. `and` and `or` give a side as it is: tried as a value."""
NOT_ONCE = {*COMPARISONS, "and", "or"} - {"=="}


def calls() -> dict[str, list[str]]:
    """What is called -> the expressions that call it."""
    found: dict[str, list[str]] = {}
    for name, expression in (*_filters(), *_tests(), *_methods(), *_operators()):
        found.setdefault(name, []).append(expression)
    return found


def _filters() -> Iterator[tuple[str, str]]:
    for name in FILTER_COSTS:
        for value in (*LARGE, *SMALL_FILTERS.get(name, ())):
            for given in FILTERS.get(name, ("",)):
                yield f"filter {name}", f"{value} | {name}{given}"


def _tests() -> Iterator[tuple[str, str]]:
    for name in TEST_COSTS:
        if not name.isidentifier():
            yield from ((f"test {name}", f"[{one}] | select('{name}', {one}) | list") for one in ("text", "words", "l"))
            continue
        for value in ("text", "words", "bigdict", "nest", *SMALL_TESTS.get(name, ())):
            for given in TESTS.get(name, ("",)):
                yield f"test {name}", f"{value} is {name}{given}"


def _methods() -> Iterator[tuple[str, str]]:
    for kind, (values, arguments) in METHODS.items():
        for name in METHOD_COSTS[kind]:
            for value in values:
                for given in arguments.get(name, ("",)):
                    tail = " | length" if name == "encode" else ""
                    yield f"{kind.__name__}.{name}", f"{value}.{name}{given or '()'}{tail}"


def _operators() -> Iterator[tuple[str, str]]:
    for operator in BINARY:
        for left, right in PAIRS:
            if operator in NOT_ONCE and (left, right) in ONCE:
                continue
            yield f"operator {operator}", f"({left}) {operator} ({right})"
    for value in LARGE:
        yield "operator not", f"not {value}"
        yield "operator if", f"1 if {value} else 2"
        yield from (("a slice", f"{value}{part}") for part in ("[1:]", "[::-1]"))
        yield "a value", value
        yield "printing", f"'x' ~ {value}"
    yield from (("unary", f"{sign}{value}") for sign in "+-" for value in ("million", "half"))
