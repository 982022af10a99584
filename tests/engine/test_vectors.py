"""Every published vector, through the public API, and every kept call of the long run, on both engines."""

from __future__ import annotations

from typing import Any

import pytest

from engine import hazards
from engine.rendering import renderer
from engine.vectors import vectors
from fuzz import corpus
from noetl_worker.errors import ConditionError, NotificationError
from noetl_worker.models import Continue, Exit, Fail, FitRules, Goto, Retry, SetVar
from noetl_worker.pipeline.command import cases

ACTIONS = {"continue": Continue, "exit": Exit, "set_var": SetVar, "goto": Goto, "retry": Retry, "fail": Fail}


def rows(*names: str) -> list[Any]:
    return [pytest.param(row, id=row["id"]) for row in vectors(*names)]


@pytest.mark.parametrize("row", rows("conditions", "more_conditions"))
def test_condition_holds_as_its_vector_says(chosen: Any, row: dict[str, Any]) -> None:
    variables, data = row["variables"], row.get("result")
    listed = [{"when": [row["condition"]], "then": "continue"}]
    render = renderer(variables, data)
    if row["expect"] == "ERROR":
        with pytest.raises(ConditionError) as caught:
            cases.match_cases(listed, variables, data, render)
        assert (caught.value.case, caught.value.condition) == (0, 0)
        assert caught.value.code in ("not_a_number", "not_numeric", "invalid_regex")
    else:
        decision = cases.match_cases(listed, variables, data, render)
        assert decision.skipped == ()
        assert (decision.index == 0) is row["expect"]


@pytest.mark.parametrize("row", rows("cases", "more_cases"))
def test_case_parses_as_its_vector_says(chosen: Any, row: dict[str, Any]) -> None:
    decision = cases.match_cases([row["case"]], {"a": 1}, None, lambda value: value)
    if row["accepted"]:
        assert decision.skipped == ()
        assert isinstance(decision.action, ACTIONS[row["action"]])
    else:
        assert decision.action is None
        assert [skipped.index for skipped in decision.skipped] == [0]
        assert decision.skipped[0].reason


@pytest.mark.parametrize("row", rows("notifications"))
def test_notification_decodes_as_its_vector_says(engine: Any, row: dict[str, Any]) -> None:
    data = row["data"].encode()
    if "error" in row:
        with pytest.raises(NotificationError, match=row["says"]) as caught:
            engine.decode_notification(data)
        assert caught.value.code == row["error"]
    else:
        envelope = engine.decode_notification(data)
        assert repr(list(envelope)) == repr(row["envelope"])


@pytest.mark.parametrize("row", rows("fit", "more_fit"))
def test_result_is_fitted_as_its_vector_says(engine: Any, row: dict[str, Any]) -> None:
    fitted = engine.fit_result(row["data"].encode(), FitRules(**row.get("rules", {})))
    assert fitted.body.decode() == row["body"]
    assert fitted.size == len(fitted.body)
    assert fitted.redactions == row["redactions"]
    assert (fitted.preview or b"").decode() == row.get("preview", "")


@pytest.mark.rust
@pytest.mark.parametrize("call", [pytest.param(call, id=name) for name, call in corpus.kept()])
def test_engines_agree_on_what_once_told_them_apart(engines: tuple[Any, Any], call: hazards.Call) -> None:
    one, other = (hazards.outcome(call, engine) for engine in engines)
    assert one == other or "regex_unsupported" in one
