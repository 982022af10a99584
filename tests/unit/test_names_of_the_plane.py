"""Large results with fields that the Python plane would put its own in the place of."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_worker import json_text
from noetl_worker.models import CaseDecision, Dialect, FitRules, Report, ToolResult
from noetl_worker.outcome import results
from unit.planes import command

LARGE = "word " * 30_000


async def told(data: Any, dialect: Dialect = Dialect.PYTHON) -> Report:
    return await results.report(command(dialect), ToolResult.success(data), CaseDecision(), FitRules())


@pytest.mark.parametrize("name", ["data", "status", "context", "reference", "ref", "_ref"])
async def test_large_result_with_a_field_that_the_plane_would_hide_goes_out_whole_beside_its_reference(
    name: str,
) -> None:
    """An HTTP answer: `{{ step.data.rows }}` of a single tool is rendered by the plane, and was empty."""
    data = {"status_code": 200, name: {"rows": [{"id": 7}], "text": LARGE}}
    report = await told(data)
    assert report.upload is not None
    assert json_text.loads(json_text.dumps(report.response)) == data


async def test_large_result_without_one_goes_out_as_its_reference_alone() -> None:
    assert (await told({"rows": [LARGE]})).response is None
    assert (await told([LARGE])).response is None


async def test_result_over_the_limit_of_a_batch_goes_out_as_its_reference_alone() -> None:
    assert (await told({"data": LARGE * 14})).response is None


async def test_rust_plane_is_told_the_reference_alone() -> None:
    assert (await told({"data": LARGE}, Dialect.RUST)).response is None
