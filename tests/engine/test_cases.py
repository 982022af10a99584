"""Case tables: order, short circuits, templated sides, places of errors, the cache."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from json_libraries import without_orjson
from noetl_worker import envelope
from noetl_worker.errors import ConditionError, DocumentError, TemplateError
from noetl_worker.models import Continue, Exit, JsonValue, SetVar
from noetl_worker.pipeline.command import cases


def no_template(template: JsonValue) -> JsonValue:
    raise AssertionError(f"rendered {template!r}, which no reached condition needs")


def case(*when: dict[str, Any], then: Any = "continue") -> dict[str, Any]:
    return {"when": list(when), "then": then}


def test_index_counts_parsable_cases_only(chosen: Any) -> None:
    listed = [{"when": "{{ a }}", "then": "continue"}, case({"left": "a", "right": 2}), case()]
    decision = cases.match_cases(listed, {"a": 1}, None, no_template)
    assert (decision.index, decision.action) == (1, Continue())
    assert [(one.index, one.reason) for one in decision.skipped] == [
        (0, "when: expected an array of conditions, found a text")
    ]


def test_condition_after_a_false_one_is_not_evaluated(chosen: Any) -> None:
    bad = {"left": "text", "op": "gt", "right": 1}
    listed = [case({"left": "a", "right": 2}, bad, {"left": "{{ a }}", "right": 1})]
    assert cases.match_cases(listed, {"a": 1}, None, no_template).index is None


def test_long_text_is_not_quoted_in_part(engine: Any) -> None:
    """It may be a tool's, and half of a secret in it would not be known as one."""
    for text, said in (("é" * 60, '"' + "é" * 60 + '"'), ("é" * 61, "a text of 61 characters")):
        with pytest.raises(ConditionError, match=f"^{said} is not a number: gt, lt, gte and lte compare numbers$"):
            engine.decide(json.dumps(text).encode(), "gt", b"1")


def test_reached_error_names_case_and_condition(chosen: Any) -> None:
    listed = [case({"left": "a", "right": 2}), case({"left": "a", "right": 1}, {"left": "five", "op": "gt"})]
    with pytest.raises(ConditionError, match=r'^case 1, condition 1: "five" is not a number: gt') as caught:
        cases.match_cases(listed, {"a": 1}, None, no_template)
    assert (caught.value.code, caught.value.case, caught.value.condition) == ("not_a_number", 1, 1)


def test_templates_are_rendered_left_before_right_and_only_when_reached(chosen: Any) -> None:
    rendered: list[JsonValue] = []

    def render(template: JsonValue) -> JsonValue:
        rendered.append(template)
        return {"{{ l }}": "x", "{{ no }}": "n"}.get(template, ["x"]) if isinstance(template, str) else ["x"]

    listed = [
        case({"left": "{{ no }}", "right": "y"}, {"left": "{{ never }}"}),
        case({"left": "{{ l }}", "op": "in", "right": ["{{ r }}"]}, then={"exit": {"status": "s"}}),
    ]
    assert cases.match_cases(listed, {}, None, render).action == Exit("s")
    assert rendered == ["{{ no }}", "{{ l }}", ["{{ r }}"]]


def test_variable_with_template_marks_in_its_name_is_a_variable(chosen: Any) -> None:
    listed = [case({"left": "{{ a }}", "right": 1})]
    assert cases.match_cases(listed, {"{{ a }}": 1}, None, no_template).index == 0


def test_right_side_is_rendered_even_where_the_operator_ignores_it(chosen: Any) -> None:
    seen: list[JsonValue] = []
    listed = [case({"left": "a", "op": "truthy", "right": "{{ r }}"})]
    assert cases.match_cases(listed, {"a": 1}, None, lambda value: seen.append(value)).index == 0
    assert seen == ["{{ r }}"]


def test_template_error_names_case_condition_and_side(chosen: Any) -> None:
    def render(template: JsonValue) -> JsonValue:
        raise TemplateError("no such filter")

    with pytest.raises(ConditionError, match=r"^case 0, condition 0: right side: no such filter$") as caught:
        cases.match_cases([case({"left": "a", "right": {"k": "{{ r }}"}})], {"a": 1}, None, render)
    assert caught.value.code == "template"
    assert isinstance(caught.value.__cause__, TemplateError)


def test_handle_can_be_resumed_more_than_once(engine: Any) -> None:
    listed = [case({"left": "{{ a }}", "right": 1}, then={"set_var": {"name": "n", "value": {"k": [1, 1.0, None]}}})]
    reached = engine.compile_cases(json.dumps(listed).encode()).match(b"{}", b"[]")
    assert (reached.case, reached.condition, reached.side, reached.template) == (0, 0, "left", "{{ a }}")
    assert reached.resume(b"2") is None
    match = reached.resume(b"1")
    assert (match.index, match.action) == (0, SetVar("n", {"k": [1, 1.0, None]}))
    with pytest.raises(DocumentError):
        reached.resume(b"{")


def test_table_says_which_variables_and_whether_the_result_is_read(engine: Any) -> None:
    listed = [case({"left": "b"}, {"left": "a"}), case({"left": "result.x"}, {"left": "b"})]
    table = engine.compile_cases(json.dumps(listed).encode())
    assert (table.variables, table.reads_result, len(table)) == (("a", "b"), True, 2)
    assert engine.compile_cases(json.dumps(listed[:1]).encode()).reads_result is False


@pytest.mark.parametrize("listed", [b"null", b"{}", b'"x"', b"5", b"[]"])
def test_anything_but_a_list_has_no_cases(chosen: Any, listed: bytes) -> None:
    assert cases.match_cases(listed, {}, None, no_template).index is None
    assert len(cases.compile_cases(listed)) == 0


def test_equal_cases_are_compiled_once(chosen: Any) -> None:
    assert cases.compile_cases([case({"left": "a"})]) is cases.compile_cases([case({"left": "a"})])


def are_kept(tables: dict[bytes, Any]) -> list[bool]:
    """Whether each table is still the one that is given for its bytes; that makes those anew that are not."""
    return [cases.compile_cases(data) is table for data, table in tables.items()]


def test_tables_that_are_kept_are_bounded_by_number(chosen: Any) -> None:
    made = {data: cases.compile_cases(data) for data in (b"[%d]" % n for n in range(cases.CACHED_TABLES + 1))}
    first, *others = made
    assert all(are_kept({data: made[data] for data in others}))
    assert not any(are_kept({first: made[first]}))


def test_tables_that_are_kept_are_bounded_by_bytes(chosen: Any) -> None:
    small, large = (b"[]".ljust(cases.MOST_CACHED_BYTES + more) for more in (0, 1))
    made = {data: cases.compile_cases(data) for data in (small, large)}
    assert are_kept(made) == [True, False]


def test_tables_are_matched_from_many_threads_at_once(engine: Any) -> None:
    listed = [case({"left": "result.n", "op": "gte", "right": number}) for number in range(50, 0, -1)]
    table = engine.compile_cases(json.dumps(listed).encode())
    wrong: list[int] = []

    def work(number: int) -> None:
        found = {table.match(b"{}", b'{"n":%d}' % number).index for _ in range(200)}
        wrong.extend(found - {50 - number})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_data_beyond_json_is_read_as_events_show_it(chosen: Any) -> None:
    import datetime

    data = {"at": datetime.date(2026, 1, 2), "big": 2**70, "nan": float("nan")}
    listed = [
        case(
            {"left": "result.at", "right": "2026-01-02"},
            {"left": "result.nan"},
        )
    ]
    assert cases.match_cases(listed, {}, data, no_template).index == 0


def test_integers_over_64_bits_keep_every_digit(chosen: Any) -> None:
    listed = [case({"left": "n", "right": 2**70}), case({"left": "n", "right": 2**70 + 1})]
    assert cases.match_cases(listed, {"n": 2**70 + 1}, None, no_template).index == 1


def test_values_are_read_alike_without_orjson(chosen: Any) -> None:
    listed = [case({"left": "result.a", "right": "é"}, {"left": "n", "right": 2**70})]
    with without_orjson():
        assert cases.match_cases(listed, {"n": 2**70}, {"a": "é"}, no_template).index == 0


@pytest.mark.parametrize("odd", [float("nan"), "\ud800", {1: "a"}, {(1,): "a"}])
def test_odd_data_does_not_stop_the_cases(chosen: Any, odd: Any) -> None:
    listed = [case({"left": "result.a", "right": 1})]
    assert cases.match_cases(listed, {}, {"a": 1, "odd": odd}, no_template).index == 0


def test_notification_is_decoded_on_the_chosen_engine(chosen: Any) -> None:
    assert envelope.decode_notification(b'{"execution_id":1,"event_id":2,"command_id":"c","step":"s"}').step == "s"
