"""JSON in and out is the same with and without orjson, and in the process of the tool `python`."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import importlib.util
import json
import math
import runpy
import subprocess
import sys
import types
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noetl_worker.errors import DocumentError
from noetl_worker.text import json_text

VALUES = runpy.run_path(str(Path(json_text.__file__).with_name("plain_values.py")))
HERE = datetime.timezone(datetime.timedelta(hours=5, seconds=30))


class Colour(enum.Enum):
    RED = "red"
    ONE = 1
    PAIR = (1, 2)
    NONE = None


class Level(enum.IntEnum):
    HIGH = 5


class Word(str):
    pass


class Whole(int):
    pass


class Part(float):
    pass


class Named(dict[str, Any]):
    pass


@dataclasses.dataclass
class Point:
    x: int
    _inner: Any = None


@dataclasses.dataclass(frozen=True)
class Slotted:
    __slots__ = ("a",)
    a: Any


class Model:
    def model_dump(self) -> dict[str, Any]:
        return {"a": {1}}


class Frame:
    columns = ("a",)

    def to_dict(self, orient: str) -> list[dict[str, Any]]:
        assert orient == "records"
        return [{"a": float("nan")}]


class Odd:
    def __str__(self) -> str:
        return "odd \udcff"


Couple = collections.namedtuple("Couple", "a b")
ITSELF: list[Any] = [1]
ITSELF.append(ITSELF)
TWICE: dict[str, Any] = {}
TWICE.update(a=TWICE, b=[TWICE, TWICE])


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


SAID: list[tuple[Any, Any]] = [
    (2**63 - 1, 2**63 - 1),
    (2**63, 2**63),
    (2**64 - 1, 2**64 - 1),
    (2**64, str(2**64)),
    (-(2**63), -(2**63)),
    (-(2**63) - 1, str(-(2**63) - 1)),
    ([10**400], [str(10**400)]),
    (float("nan"), None),
    ([math.inf, -math.inf, -0.0, 1e16, 1e-7, 5e-324], [None, None, -0.0, 1e16, 1e-7, 5e-324]),
    ({None: 1, True: 2, False: 3}, {"null": 1, "true": 2, "false": 3}),
    ({5: 1, -1: 2, 2**63: 3}, {"5": 1, "-1": 2, str(2**63): 3}),
    ({2**64: 1, True: 2}, {str(2**64): 1, "true": 2}),
    ({1.5: 1, 1e16: 2, 1e-7: 3, 1e-5: 4, -0.0: 5}, {"1.5": 1, "1e+16": 2, "1e-07": 3, "1e-05": 4, "-0.0": 5}),
    ({math.nan: 1}, {"null": 1}),
    ({math.inf: 1, (1, 2): 2}, {"null": 1, "(1, 2)": 2}),
    ({Colour.RED: 1, Colour.ONE: 2, Level.HIGH: 3, Colour.NONE: 4}, {"red": 1, "1": 2, "5": 3, "null": 4}),
    ({Colour.PAIR: 1}, {"(1, 2)": 1}),
    ({b"a": 1, Path("/x"): 2, Word("w"): 3}, {"b'a'": 1, "/x": 2, "w": 3}),
    ({uuid.UUID(int=5): 1}, {"00000000-0000-0000-0000-000000000005": 1}),
    ({datetime.date(2026, 1, 2): 1, datetime.time(3, 4): 2}, {"2026-01-02": 1, "03:04:00": 2}),
    ({"\ud800": 1, "a": "\udcff"}, {"\0": 1, "a": "\0"}),
    ([Colour.RED, Colour.ONE, Colour.PAIR, Level.HIGH, Colour.NONE], ["red", 1, [1, 2], 5, None]),
    ([Word("w"), Whole(5), Part(1.5), Part("nan"), Named(a=1)], ["w", 5, 1.5, None, {"a": 1}]),
    (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    (types.MappingProxyType({"a": Colour.ONE}), {"a": 1}),
    (Couple(1, {2}), [1, [2]]),
    (Point(1, Point(2)), {"x": 1, "_inner": {"x": 2, "_inner": None}}),
    ([Slotted((1,)), Point], [{"a": [1]}, str(Point)]),
    ([uuid.UUID(int=5), Path("/x"), Path("/\udcff")], ["00000000-0000-0000-0000-000000000005", "/x", "/\0"]),
    ([decimal.Decimal("1E+3"), decimal.Decimal("NaN")], ["1E+3", "NaN"]),
    (datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=HERE), "2026-01-02T03:04:05.000006+05:00:30"),
    ([datetime.time(3, tzinfo=datetime.timezone.utc), datetime.date(2026, 1, 2)], ["03:00:00+00:00", "2026-01-02"]),
    ([datetime.timedelta(seconds=90)], ["0:01:30"]),
    ([b"ab", bytearray(b"ab"), memoryview(b"ab")], ["YWI=", "YWI=", "YWI="]),
    ([{3, 1, 2}, frozenset({"b", "a"}), {1, "a"}], [[1, 2, 3], ["a", "b"], [1, "a"]]),
    ([Model(), Frame(), Odd(), ValueError("v")], [{"a": [1]}, [{"a": None}], "odd \0", "v"]),
    (ITSELF, [1, "[circular]"]),
    (TWICE, {"a": "[circular]", "b": ["[circular]", "[circular]"]}),
]


def without_orjson() -> Any:
    """The module as it is imported where there is no orjson."""
    spec = importlib.util.spec_from_file_location("json_text_without_orjson", json_text.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "orjson", None)
        spec.loader.exec_module(module)
    return module


WITHOUT = without_orjson()


@pytest.fixture(params=["orjson", "json"])
def way(request: pytest.FixtureRequest) -> Any:
    if request.param == "json":
        return WITHOUT
    if json_text.orjson is None:
        pytest.skip("orjson is not installed: there is only one way")
    return json_text


def exactly(value: Any) -> str:
    return repr(value)  # 1, 1.0 and True are three values, and so are the orders of keys


@pytest.mark.parametrize(("value", "said"), SAID)
def test_value_is_written_the_same_way(way: Any, value: Any, said: Any) -> None:
    assert exactly(json.loads(way.dumps(value))) == exactly(said)
    assert exactly(json.loads(way.dumps({"in": [value]}))["in"]) == exactly([said])


@pytest.mark.parametrize(("value", "said"), SAID)
def test_so_is_what_code_of_the_python_tool_gives(value: Any, said: Any) -> None:
    assert exactly(VALUES["plain"](value)) == exactly(said)
    assert exactly(json_text.plain(value)) == exactly(said)


_keys = st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=3)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=3) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(_keys, inner, max_size=3)
        | st.sets(st.integers() | st.text(max_size=2), max_size=3)
        | st.builds(Point, st.integers(), inner)
    ),
    max_leaves=12,
)


@pytest.mark.sweep
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(value=_values)
def test_any_value_is_written_the_same_way(value: Any) -> None:
    said = exactly(json.loads(json_text.dumps(value)))
    assert exactly(json.loads(WITHOUT.dumps(value))) == said
    assert exactly(VALUES["plain"](value)) == exactly(json_text.plain(value))


@pytest.mark.parametrize("levels", [200, 253, 254, 255, 1000])
def test_nesting_ends_at_the_same_depth(way: Any, levels: int) -> None:
    value, depth = json.loads(way.dumps(nested(levels))), 0
    while isinstance(value, list):
        value, depth = value[0], depth + 1
    assert (value, depth) == ((1, levels) if levels <= 254 else ("[nested too deeply]", 254))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", 2.0**64),
        ("-9223372036854775808", -(2**63)),
        ("-9223372036854775809", -(2.0**63)),
        ("1" * 300, float("1" * 300)),
        ("[1.0, -0, -0.0, 1e2, 1e-400]", [1.0, 0, -0.0, 100.0, 0.0]),
        ('{"a": 1, "b": 2, "a": 3}', {"a": 3, "b": 2}),
        ('"\\ud83d\\ude00 \\\\u \\u0000"', "\U0001f600 \\u \0"),
    ],
)
def test_text_is_read_the_same_way(way: Any, text: str, value: Any) -> None:
    for data in (text, text.encode(), bytearray(text.encode())):
        assert exactly(way.loads(data)) == exactly(value)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"NaN", b"-Infinity", b"1e999", b"9" * 400, b"9" * 5000, b"[1,]", b"01", b"{} x", b'"\x01"', b"\xff"),
        *(b'"\\ud800"', b'{"\\udc00": 1}', b'"\xed\xa0\x80"', b"\xef\xbb\xbf1", "1".encode("utf-16"), "\ufeff1"),
        '"\ud800"',
    ],
)
def test_text_that_is_no_json_is_the_same_error(way: Any, data: Any) -> None:
    with pytest.raises(DocumentError) as caught:
        way.loads(data)
    assert caught.value.code == "json_syntax"


def test_embedded_json_is_the_same(way: Any) -> None:
    for body in (b'{"a":18446744073709551616}', b'["a",1.5]'):
        assert json.loads(way.dumps({"x": way.embed(body)})) == {"x": json.loads(body)}


@pytest.mark.parametrize("beside", [1, 2**70, "\ud800"], ids=["plain", "a number beyond 64 bits", "half of a pair"])
def test_embedded_bytes_are_written_as_they_are(way: Any, beside: Any) -> None:
    """A result is serialised once, also where the library gives up on what stands beside it."""
    body = b'{"a": 18446744073709551616,  "b":[ 1 ]}'
    event = {"payload": {"result": {"context": way.embed(body)}, "response": [way.embed(body)]}}
    written = way.dumps({"events": [event, {"beside": beside}]})
    assert written.count(body) == 2
    assert json.loads(written)["events"][0]["payload"]["response"] == [json.loads(body)]


def test_embedded_bytes_that_are_very_deep_are_still_the_same_value(way: Any) -> None:
    value: Any = way.embed(b'{"a":1}')
    for _ in range(20):
        value = [value, 2**70]
    plain = json.loads(way.dumps(value))
    for _ in range(20):
        plain = plain[0]
    assert plain == {"a": 1}


def numpy_values() -> list[tuple[Any, Any]]:
    numpy: Any = pytest.importorskip("numpy", reason="no wheel for this platform")
    times = numpy.array([["2026-01-02", "NaT"]], "M8[ns]")
    return [
        (numpy.int64(5), 5),
        (numpy.uint64(2**64 - 1), 2**64 - 1),
        ([numpy.float32(0.5), numpy.float64(0.5), numpy.float16(0.5), numpy.longdouble(0.5)], [0.5] * 4),
        ([numpy.float32("nan"), numpy.float64("inf"), numpy.longdouble("nan")], [None] * 3),
        ([numpy.bool_(True), numpy.str_("a"), numpy.bytes_(b"ab")], [True, "a", "YWI="]),
        (numpy.arange(6).reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
        ([numpy.array([]), numpy.array(5), numpy.zeros((1, 0))], [[], 5, [[]]]),
        (numpy.array([1.0, numpy.nan, -numpy.inf]), [1.0, None, None]),
        (numpy.array([0.5, numpy.nan], numpy.longdouble), [0.5, None]),
        (numpy.arange(6)[::2], [0, 2, 4]),
        (numpy.array(["a", "é"]), ["a", "é"]),
        (numpy.array([1, "a", None, {2}], dtype=object), [1, "a", None, [2]]),
        (numpy.array([(1, "a")], dtype="i4,U1"), [[1, "a"]]),
        (numpy.ma.masked_array([1, 2], [False, True]), [1, None]),
        (numpy.array([1 + 2j]), ["(1+2j)"]),
        (numpy.datetime64("2026-01-02"), "2026-01-02"),
        (numpy.datetime64("2026-01-02T03:04:05.123456789"), "2026-01-02T03:04:05.123456789"),
        (numpy.datetime64("2026-01-02T03:04:05"), "2026-01-02T03:04:05"),
        (times, [["2026-01-02T00:00:00.000000000", None]]),
        (
            [numpy.datetime64("NaT", "s"), numpy.timedelta64("NaT", "s"), numpy.timedelta64(5, "D")],
            [None, None, "5 days"],
        ),
        ({numpy.int64(5): 1, numpy.float64(0.5): 2, numpy.bool_(True): 3}, {"5": 1, "0.5": 2, "true": 3}),
        ({numpy.datetime64("2026-01-02"): 1, numpy.str_("a"): 2}, {"2026-01-02": 1, "a": 2}),
    ]


def test_numpy_is_written_the_same_way(way: Any) -> None:
    for value, said in numpy_values():
        assert exactly(json.loads(way.dumps(value))) == exactly(said)
        assert exactly(json.loads(way.dumps({"in": [value]}))) == exactly({"in": [said]})
        assert exactly(VALUES["plain"](value)) == exactly(said)


def test_nobody_imports_numpy_for_it() -> None:
    code = "import sys, noetl_worker.text.json_text as j; j.dumps([object(), {1}]); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


LONG = "12345678901234567890123"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (LONG, int(LONG)),
        ("-" + LONG, -int(LONG)),
        (f'{{"id": [{LONG}, 1.5]}}', {"id": [int(LONG), 1.5]}),
        ("0.12345678901234567890123", 0.12345678901234568),
        (f'"{LONG}"', LONG),
        ("5", 5),
    ],
)
def test_number_of_any_length_is_read_exactly_where_it_is_passed_on(text: str, value: Any, way: Any) -> None:
    read = way.loads_exact(text)
    assert read == value
    assert type(read) is type(value)


def test_number_that_was_read_exactly_is_written_as_its_digits() -> None:
    assert json_text.dumps(json_text.loads_exact(f'{{"id":{LONG}}}')) == b'{"id":"%s"}' % LONG.encode()


@pytest.mark.parametrize("text", ["{", "1" * 5000, f'{{"a": NaN, "b": {LONG}}}'])
def test_text_that_is_no_json_is_refused_by_the_exact_reading_too(text: str) -> None:
    with pytest.raises(DocumentError):
        json_text.loads_exact(text)
