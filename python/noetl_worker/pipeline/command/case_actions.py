"""The stage `deciding`: finds the first case whose conditions hold for the tool's result
(protocol/conditions.md#cases).

Cases are evaluated when the tool returned a result, whether a success or a failure. A tool that raised an error has
no result, and its command fails without cases. This module runs only the action `set_var`, before the terminal events
are sent. A failed `set_var` fails the command. `results.report` makes the report from the decision.
"""

from __future__ import annotations

from typing import Final

import structlog

from noetl_worker.errors import ControlPlaneError, ToolError
from noetl_worker.models.case import CaseDecision, SetVar
from noetl_worker.models.command import Command
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue
from noetl_worker.observability import metrics
from noetl_worker.observability.step_log import StepLog, Warned
from noetl_worker.pipeline.command import cases
from noetl_worker.remote.plane.client import Plane
from noetl_worker.remote.plane.patience import COMMAND_TRIES, retry_while_passing
from noetl_worker.text import json_text
from noetl_worker.text.null_characters import NullCharacters, has_null
from noetl_worker.text.secrets import redaction
from noetl_worker.text.templates import template

_NO_CASE: Final = CaseDecision()
_SKIPPED_ADVICE: Final = "look at `reason`, and correct this case of the step: it cannot be read, and is not evaluated"
log = structlog.get_logger("noetl_worker.cases")


def decide(command: Command, result: ToolResult, worker_id: str, warned: Warned | None = None) -> CaseDecision:
    """Return the first case whose conditions hold for the tool's result. Log each case that cannot be read.

    Raises:
        ConditionError: a condition cannot be evaluated; the text names the case and the condition.
    """
    if not command.cases:
        return _NO_CASE

    def render(value: JsonValue) -> JsonValue:
        metadata = {
            "execution_id": command.execution_id,
            "step": command.step,
            "server_url": command.server_url,
            "worker_id": worker_id,
            "command_id": command.command_id,
            "result": result.data,
        }
        return template.render(value, {**command.variables, **metadata})

    decision = cases.match_cases(command.cases, command.variables, result.data, render)
    if decision.skipped:
        step_log = StepLog(log.bind(**command.log_ids()), warned or Warned(), command)
        for skipped in decision.skipped:
            metrics.CASES_SKIPPED.inc()
            step_log.warning("case_skipped", case=skipped.index, reason=skipped.reason, advice=_SKIPPED_ADVICE)
    return decision


async def act(decision: CaseDecision, command: Command, plane: Plane) -> None:
    """Run the action `set_var` of the matched case: let the plane store the variable. Ignore every other action. The
    plane itself runs `goto` and `retry`.

    Raises:
        ToolError: the plane did not store the variable.
    """
    action = decision.action
    if not isinstance(action, SetVar):
        return
    given = {action.name: action.value}  # the plane stores the value in clear text
    safe = await redaction.remove_known_off_loop(given, redaction.known_here())
    if has_null(packed := json_text.dumps(safe)):
        refusal = NullCharacters.find(packed).refusal("the variable")
        raise ToolError(f"case {decision.index}: set_var {action.name!r}: {refusal}", kind="transform")
    try:
        await retry_while_passing(
            f"set_var {action.name}",
            lambda: plane.set_vars(command.execution_id, safe, command.step),
            max_tries=COMMAND_TRIES,
            ids=command.log_ids,
        )
    except ControlPlaneError as error:
        raise ToolError(
            f"case {decision.index}: the control plane did not take set_var {action.name!r}: {error}: see its log, "
            "then run the step again",
            kind="set_var",
            retryable=error.is_retryable,
        ) from error
