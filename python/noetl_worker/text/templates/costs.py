"""The costs of the sandbox's filters, tests and methods, charged to the rendering's budget before they run.

Only filters, tests and methods listed here are offered to templates. A cost is at least the work done: bytes for text
that is copied, nodes for the work of Python code or a regular expression on each character.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any, Final

from jinja2.exceptions import SecurityError

from noetl_worker.text.templates.limits import PRINTED, Budget, charge_format, charge_integer_operation, text_size

Cost = Callable[..., None]
"""Function that charges the rendering's budget for a call of a filter, test or method. It gets the budget, the value
that the filter, test or method is applied to, and the arguments of the call."""
_PIECE: Final = 60
"""Number of bytes charged to the rendering's budget for a short text in a list: its memory and its pointer."""
_MAX_DIGITS: Final = 400
_MAX_OF_LINK: Final = 100
"""Largest number of characters of a text that is an argument of the filter `urlize`, which writes the text into each
link. An argument that is a list (of URL schemes) may have a tenth as many elements."""
_ENCODINGS: Final = (
    *("utf-8", "utf8", "utf-8-sig", "ascii", "us-ascii", "latin-1", "latin1", "iso-8859-1"),
    *("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"),
)
"""Encodings that take linear time for any text. Other encodings may take longer: punycode two minutes for 900 kB."""
_ERRORS: Final = ("strict", "ignore", "replace")
"""Error handlers of `encode` and `decode` that templates may use. Other handlers write up to 90 characters in place of
one character."""
LAZY_NODES: Final = 12


# ── costs ───────────────────────────────────────────────────────────────────────────────────────


def _free(budget: Budget, *_: Any, **__: Any) -> None:
    budget.charge(1)


def _printed(budget: Budget, value: Any, size: int = 1) -> None:
    """Charge the rendering's budget for a filter whose result has at most `size` times as many bytes as the value's
    text. A list or object is converted to text first."""
    if isinstance(value, str):
        budget.charge_value(value, PRINTED, size)
    else:
        budget.charge_printed(value)
        if size > PRINTED:
            budget.charge_value(value, 0, size - PRINTED)


def _text(times: int = 1, per_character: int = 0) -> Cost:
    """Return a cost function for a filter whose result has at most `times` as many bytes as the filtered text and the
    arguments. Besides these bytes, the function charges `per_character` nodes (units of work) for each character of the
    filtered text."""

    def cost(budget: Budget, value: Any, *arguments: Any, **named: Any) -> None:
        for part in (value, *arguments, *named.values()):
            _printed(budget, part, times)
        if isinstance(value, str):
            budget.charge(per_character * len(value))
        elif per_character:
            budget.charge(per_character * len(str(value)))

    return cost


def _number(budget: Budget, value: Any, *_: Any, **__: Any) -> None:
    """Charge the rendering's budget for parsing a number. Python parses at most 4,300 digits, in time that grows with
    the square of their count."""
    _printed(budget, value, 2)
    if isinstance(value, str):
        budget.charge(len(value) // 4)


def _case(budget: Budget, value: Any, *_: Any, **__: Any) -> None:
    """Charge the rendering's budget for a change of case, such as `upper`. For each character of a non-ASCII text,
    CPython reserves the memory of three of the widest characters."""
    _printed(budget, value, 1 if not isinstance(value, str) or value.isascii() else 4)


def _case_by_place(budget: Budget, value: Any, *_: Any, **__: Any) -> None:
    """Charge the rendering's budget for `capitalize`, `title` or `swapcase`. These methods reserve the memory of three
    of the widest characters (in CPython) for each ASCII character too."""
    _case(budget, value)
    if isinstance(value, str):
        budget.charge(size=14 * len(value))


def _each(weight: int, size: int = 0) -> Cost:
    """Return a cost function for work on each element of a list, an object or a text (its characters).

    Args:
        weight: quarters of a node (unit of work) for each element.
        size: bytes for each element, in addition to a pointer.
    """

    def cost(budget: Budget, value: Any, *_: Any, **__: Any) -> None:
        if isinstance(value, Sized):
            budget.charge(1 + weight * len(value) // 4, (8 + size) * len(value))
        else:
            budget.charge(1)

    return cost


def _characters(budget: Budget, value: Any, *_: Any, **__: Any) -> None:
    """Charge the rendering's budget for a filter that makes a list of the characters of a text, such as `list`. In the
    list, characters beyond Latin-1 are separate objects."""
    wide = isinstance(value, str) and not value.isascii()
    _each(2, 80 if wide else 0)(budget, value)


def _compared(budget: Budget, value: Any, *arguments: Any, **named: Any) -> None:
    """Charge the rendering's budget for a filter that compares elements with each other, such as `sort`. Nested
    elements are compared in depth, and texts character by character."""
    budget.charge_value((value, *arguments, *named.values()), 12)
    if isinstance(value, Mapping):  # a list of the keys is made first
        budget.charge(6 * len(value))
    _each_sign(budget, value)


def _each_sign(budget: Budget, value: Any) -> None:
    """Charge the rendering's budget for work on each character of a text."""
    if isinstance(value, (str, bytes)):
        budget.charge(10 * len(value), 80 * len(value))


def _grouped(budget: Budget, value: Any, *arguments: Any, **named: Any) -> None:
    """Charge the rendering's budget for `groupby`: for the look-up of an attribute in each element, and for comparing
    the elements."""
    _each(16)(budget, value)
    _compared(budget, value, *arguments, **named)


def _compared_as_wholes(budget: Budget, value: Any, *arguments: Any, **named: Any) -> None:
    """Charge the rendering's budget for a test that compares two values once, such as `eq`. The characters of a text
    are not charged one by one."""
    budget.charge_value((value, *arguments, *named.values()), 12)


def _looked_through(budget: Budget, value: Any, *arguments: Any, **named: Any) -> None:
    budget.charge_value((value, *arguments), 1, 0 if isinstance(value, str) else 1)
    if isinstance(value, str):
        budget.charge(len(value) // 64)


def _searched_backwards(budget: Budget, value: str, sought: Any = "", *_: Any, **__: Any) -> None:
    """Charge the rendering's budget for a search from the end of a text, such as `rfind`. In CPython the time of the
    search may grow with the product of both lengths: of `value` and of `sought`."""
    length = len(sought) if isinstance(sought, str) else 1
    budget.charge(1 + len(value) * max(length, 8) // 256, len(value))


def _strip(budget: Budget, value: Any, chars: Any = None, **_: Any) -> None:
    _printed(budget, value)
    if isinstance(value, str) and isinstance(chars, str):
        budget.charge(len(value) * (8 + len(chars)) // 256)


def _width(budget: Budget, value: Any, width: Any = 80, fill: Any = " ", **_: Any) -> None:
    _printed(budget, value, 2)
    if isinstance(width, int):
        wide = 1 if isinstance(fill, str) and fill.isascii() and (not isinstance(value, str) or value.isascii()) else 4
        budget.charge(size=wide * max(width, 0))


def _tabs(budget: Budget, value: str, tabsize: Any = 8, **_: Any) -> None:
    count = value.count("\t") * max(tabsize, 0) if isinstance(tabsize, int) else 0
    budget.charge(1 + len(value) // 32, text_size(value) + count * (1 if value.isascii() else 4))


def _length_of_indent(indent: Any) -> int:
    return len(indent) if isinstance(indent, str) else max(indent, 0) if isinstance(indent, int) else 0


def _indented(budget: Budget, value: Any, width: Any = 4, *_: Any, **__: Any) -> None:
    step = _length_of_indent(width)
    wide = 4 if isinstance(width, str) and not width.isascii() else 1
    lines = len(value) if isinstance(value, str) else 1
    if isinstance(value, str):
        lines = 1 + sum(map(value.count, "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"))
        wide = wide if value.isascii() else 4
    _printed(budget, value, 3)
    budget.charge(lines, lines * (_PIECE + 2 * step * wide))


def _replaced(budget: Budget, value: Any, old: Any = "", new: Any = "", *_: Any, **__: Any) -> None:
    for part in (value, old, new):  # each part is converted to text twice: here for counting, then by the filter
        _printed(budget, part)
        if not isinstance(part, str):
            _printed(budget, part)
    text, old, new = (part if isinstance(part, str) else str(part) for part in (value, old, new))
    count = text.count(old) if old else len(text) + 1
    wide = 1 if text.isascii() and new.isascii() else 4
    budget.charge(count // 16, wide * (len(text) + count * max(len(new) - len(old), 0)))


def _pieces(budget: Budget, value: Any, separator: Any = None, *_: Any, **named: Any) -> None:
    """Charge the rendering's budget for `split`, which makes a new text for each separator."""
    separator = named.get("sep", named.get("separator", separator))
    _printed(budget, value, 2)
    if isinstance(value, str):
        count = value.count(separator) if isinstance(separator, str) and separator else _blanks(value)
        budget.charge(count // 2, _PIECE * count)


def _blanks(text: str) -> int:
    if not text.isascii():
        return (len(text) + 1) // 2
    return min((len(text) + 1) // 2, 1 + sum(map(text.count, " \n\t\r\x0b\x0c\x1c\x1d\x1e\x1f")))


def _pieces_backwards(budget: Budget, value: str, separator: Any = None, *_: Any, **named: Any) -> None:
    _pieces(budget, value, separator, **named)
    _searched_backwards(budget, value, named.get("sep", separator))


def _lines(budget: Budget, value: str, *_: Any, **__: Any) -> None:
    _indented(budget, value, 0)


def _joined(budget: Budget, value: Any, separator: Any = "", *attribute: Any, **named: Any) -> None:
    """Charge the rendering's budget for joining elements to one text: for the elements, the separators, and the look-up
    of `attribute` in each element."""
    if attribute or named:
        _each(160)(budget, value)
    budget.charge_value(value, PRINTED, 2)
    _each_sign(budget, value)
    count = len(value) if isinstance(value, Sized) else 0
    budget.charge(count)
    if isinstance(separator, str):
        elements = value if isinstance(value, (list, tuple)) else (value,)
        is_ascii = all(element.isascii() for element in elements if isinstance(element, str))
        budget.charge(size=(1 if is_ascii else 4) * count * text_size(separator))


def _joined_by(budget: Budget, separator: str, value: Any = (), *_: Any, **__: Any) -> None:
    _joined(budget, value, separator)


def _translated(budget: Budget, value: str, table: Any = None, *_: Any, **__: Any) -> None:
    given = table.values() if isinstance(table, Mapping) else table if isinstance(table, (list, tuple)) else ()
    longest = max((len(replacement) for replacement in given if isinstance(replacement, str)), default=1)
    budget.charge(1 + 8 * len(value), 4 * len(value) * max(longest, 1))


def _escaped(budget: Budget, value: Any, *_: Any, **__: Any) -> None:
    _printed(budget, value, 2)
    if isinstance(value, str):
        more = sum(map(value.count, "&<>\"'"))
        budget.charge(more // 8, (5 if value.isascii() else 20) * more)


def _as_json(budget: Budget, value: Any, indent: Any = None, **_: Any) -> None:
    """Charge the rendering's budget for writing JSON, in which a control character takes six bytes. With an indent, the
    indentation of each element costs too."""
    step = _length_of_indent(indent)
    if step > _MAX_DIGITS:
        raise SecurityError(f"an indent of over {_MAX_DIGITS}; give a smaller one")
    budget.charge_value(value, PRINTED + step, 7)
    if step:
        budget.charge(size=step * _levels(value))


def _levels(value: Any) -> int:
    """Return the sum of the indentation levels of all lines in a value's indented JSON. One level takes the bytes of
    one indent."""
    levels, waiting = 0, [(value, 1)]
    while waiting:
        item, level = waiting.pop()
        if isinstance(item, (list, tuple, Mapping)):
            inner = item.values() if isinstance(item, Mapping) else item
            levels += level * (len(inner) + 1)
            waiting += [(one, level + 1) for one in inner if isinstance(one, (list, tuple, Mapping))]
    return levels


def _parsed_json(budget: Budget, value: Any, *_: Any, **__: Any) -> None:
    """Charge the rendering's budget for parsing JSON. A list or object takes thirty times the memory of its two
    brackets. A value that is no text is converted to text first."""
    _printed(budget, value, 2)
    if not isinstance(value, str):
        _printed(budget, value)
    else:
        containers, others = value.count("[") + value.count("{"), value.count(",") + value.count(":")
        budget.charge(containers + others // 2, _PIECE * others + 90 * containers)


def _tags(budget: Budget, value: Any, *_: Any, **__: Any) -> None:
    """Charge the rendering's budget for `striptags`. Each removal of a tag or comment copies the text, so many tags
    cost much."""
    _printed(budget, value, 4)
    if isinstance(value, str):
        budget.charge(len(value) + value.count("<") * len(value) // 256)


def _rounded(budget: Budget, value: Any, precision: Any = 0, *_: Any, **__: Any) -> None:
    if isinstance(precision, int) and abs(precision) > _MAX_DIGITS:
        raise SecurityError(f"round: a precision of over {_MAX_DIGITS}; give a smaller one")
    budget.charge_printed(value)


def _filled(budget: Budget, value: Any, count: Any = 1, *_: Any, **named: Any) -> None:
    """Charge the rendering's budget for `batch` or `slice`, which divide the elements into lists. `count` costs too,
    because these filters may add `count` lists or fill values."""
    count = named.get("linecount", named.get("slices", count))
    _each(8, 80)(budget, value)
    if isinstance(count, int):
        budget.charge(max(count, 0), 100 * max(count, 0))


def _encoded(budget: Budget, value: str, encoding: Any = "utf-8", errors: Any = "strict", *_: Any, **__: Any) -> None:
    if not isinstance(encoding, str) or encoding.lower().replace("_", "-") not in _ENCODINGS:
        raise SecurityError(
            f"a template can encode only as {', '.join(_ENCODINGS)}: use a python step for another encoding"
        )
    if errors not in _ERRORS:
        raise SecurityError(
            f"`errors` of encode and decode may be {', '.join(_ERRORS)}: use another one in a python step"
        )
    _printed(budget, value, 2)


def _formatted(budget: Budget, value: Any, *arguments: Any, **named: Any) -> None:
    _printed(budget, value)
    charge_format(budget, value if isinstance(value, str) else "%" * 10, (*arguments, *named.values()))


def _divided(budget: Budget, value: Any, num: Any = 1, *_: Any, **__: Any) -> None:
    if isinstance(value, int) and isinstance(num, int):
        charge_integer_operation(budget, "%", value, num)


def _absolute(budget: Budget, value: Any, *_: Any, **__: Any) -> None:
    budget.charge(1, value.bit_length() // 8 if isinstance(value, int) else 0)


def _wrapped(budget: Budget, value: Any, *arguments: Any, **named: Any) -> None:
    """Charge the rendering's budget for `wordwrap`, which puts the argument `wrapstring` between all lines. A line may
    have only one character."""
    _text(8, per_character=20)(budget, value, *arguments, **named)
    between = named.get("wrapstring", arguments[2] if len(arguments) > 2 else None)
    if isinstance(between, str):
        budget.charge(size=text_size(between) * len(str(value)))


def _linked(budget: Budget, value: Any, *arguments: Any, **named: Any) -> None:
    for part in (*arguments, *named.values()):
        most = _MAX_OF_LINK if isinstance(part, str) else _MAX_OF_LINK // 10
        if isinstance(part, Iterable) and not (isinstance(part, Sized) and len(part) <= most):
            raise SecurityError(f"urlize: an argument of over {most} characters or schemes; shorten it")
    _SLOW_TEXT(budget, value, *arguments, **named)


_SLOW_TEXT: Final = _text(4, per_character=8)
_WORDS: Final = _text(2, per_character=2)


def lazily(budget: Budget, value: Any, *_: Any, **__: Any) -> None:
    """Charge the rendering's budget for a filter that yields elements one by one, such as `map`. Work on the elements
    is charged separately."""
    if isinstance(value, Sized):
        budget.charge(LAZY_NODES * len(value))


FILTER_COSTS: Final[dict[str, Cost]] = {
    **dict.fromkeys(("attr", "d", "default", "first", "get", "random", "count", "len", "length"), _free),
    **dict.fromkeys(("string", "safe", "bool", "filesizeformat", "truncate"), _text(2)),
    **dict.fromkeys(("int", "float"), _number),
    **dict.fromkeys(("upper", "lower"), _case),
    "abs": _absolute,
    "capitalize": _case_by_place,
    **dict.fromkeys(("title", "wordcount"), _WORDS),
    "wordwrap": _wrapped,
    "urlize": _linked,
    **dict.fromkeys(("urlencode", "xmlattr", "pprint"), _SLOW_TEXT),
    **dict.fromkeys(("escape", "e", "forceescape"), _escaped),
    **dict.fromkeys(("sort", "unique", "dictsort", "max", "min"), _compared),
    **dict.fromkeys(("map", "select", "reject", "selectattr", "rejectattr"), lazily),
    **dict.fromkeys(("keys", "values"), _each(8, 80)),
    "items": _each(20, 80),
    **dict.fromkeys(("list", "last", "reverse"), _characters),
    **dict.fromkeys(("batch", "slice"), _filled),
    "groupby": _grouped,
    "sum": _each(12),
    "round": _rounded,
    "trim": _strip,
    "striptags": _tags,
    "center": _width,
    "indent": _indented,
    "replace": _replaced,
    "split": _pieces,
    "join": _joined,
    "format": _formatted,
    "tojson": _as_json,
    "fromjson": _parsed_json,
    "b64encode": _text(3),
    "b64decode": _text(3),
}

ATTRIBUTE_AT: Final = {
    **dict.fromkeys(("selectattr", "rejectattr", "groupby", "sum"), 0),
    **dict.fromkeys(("join", "unique", "min", "max"), 1),
    "sort": 2,
    "map": 99,
}
"""Index of the positional argument `attribute` in each filter that looks up an attribute in its elements. `map` has the
unreachable index 99, because `map` takes `attribute` only by name."""

TEST_COSTS: Final[dict[str, Cost]] = {
    **dict.fromkeys(("boolean", "callable", "defined", "escaped", "even", "false", "filter", "float"), _free),
    **dict.fromkeys(("integer", "iterable", "mapping", "none", "number", "odd", "sameas", "sequence"), _free),
    **dict.fromkeys(("string", "test", "true", "undefined"), _free),
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "eq", "equalto", "ne", "lt"), _compared_as_wholes),
    **dict.fromkeys(("lessthan", "le", "gt", "greaterthan", "ge", "in"), _compared_as_wholes),
    **dict.fromkeys(("lower", "upper"), _text()),
    "divisibleby": _divided,
}

_TEXT_METHODS: Final[dict[str, Cost]] = {
    **dict.fromkeys(("casefold", "lower", "upper"), _case),
    **dict.fromkeys(("capitalize", "swapcase", "title"), _case_by_place),
    **dict.fromkeys(("isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier", "islower"), _text()),
    **dict.fromkeys(("isnumeric", "isprintable", "isspace", "istitle", "isupper"), _text()),
    **dict.fromkeys(("removeprefix", "removesuffix", "partition"), _text(2)),
    "encode": _encoded,
    **dict.fromkeys(("count", "endswith", "find", "index", "startswith"), _looked_through),
    **dict.fromkeys(("rfind", "rindex", "rpartition"), _searched_backwards),
    **dict.fromkeys(("strip", "lstrip", "rstrip"), _strip),
    **dict.fromkeys(("center", "ljust", "rjust", "zfill"), _width),
    "expandtabs": _tabs,
    "join": _joined_by,
    "maketrans": _text(100, per_character=2),
    "replace": _replaced,
    "rsplit": _pieces_backwards,
    "split": _pieces,
    "splitlines": _lines,
    "translate": _translated,
}
METHOD_COSTS: Final[dict[type, dict[str, Cost]]] = {
    str: _TEXT_METHODS,
    bytes: {"decode": _encoded, "hex": _each(0, 2)},
    int: dict.fromkeys(("as_integer_ratio", "bit_count", "bit_length", "conjugate", "is_integer"), _free),
    float: dict.fromkeys(("as_integer_ratio", "conjugate", "hex", "is_integer"), _free),
    list: {"copy": _each(0), "count": _compared, "index": _compared},
    tuple: {"count": _compared, "index": _compared},
    dict: {"copy": _each(1, 100), **dict.fromkeys(("get", "items", "keys", "values"), _free)},
}
