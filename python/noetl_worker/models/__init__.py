"""Values that the worker's subpackages pass to each other: commands, claim answers, tool results, reports.

Ids are exact Python ints of 64 bits, except `command_id`. A `command_id` is an int or a string, as the plane sent it.
The worker sends it back with the same type: the Rust plane compares strings, and the Python plane reads both types.

Code outside the package imports these values from this module. The package itself imports each value from the module
that defines the value.
"""

from noetl_worker.models.case import CaseAction, CaseDecision, Continue, Exit, Fail, Goto, Retry, SetVar, SkippedCase
from noetl_worker.models.claim import (
    AlreadyFinished,
    AuthRefusedClaim,
    ClaimAnswer,
    Claimed,
    ClaimRefused,
    HeldByOther,
    HeldByThisWorker,
    NotFound,
    RetryLater,
)
from noetl_worker.models.command import Command, LoopPosition
from noetl_worker.models.fit import FitRules, FittedResult, SecretTexts
from noetl_worker.models.notification import Envelope
from noetl_worker.models.report import Report, Upload
from noetl_worker.models.tool_result import RaisedFailure, ToolFailure, ToolForm, ToolResult, ToolStatus
from noetl_worker.models.wire import CommandId, Dialect, JsonValue

__all__ = [
    "AlreadyFinished",
    "AuthRefusedClaim",
    "CaseAction",
    "CaseDecision",
    "ClaimAnswer",
    "ClaimRefused",
    "Claimed",
    "Command",
    "CommandId",
    "Continue",
    "Dialect",
    "Envelope",
    "Exit",
    "Fail",
    "FitRules",
    "FittedResult",
    "Goto",
    "HeldByOther",
    "HeldByThisWorker",
    "JsonValue",
    "LoopPosition",
    "NotFound",
    "RaisedFailure",
    "Report",
    "Retry",
    "RetryLater",
    "SecretTexts",
    "SetVar",
    "SkippedCase",
    "ToolFailure",
    "ToolForm",
    "ToolResult",
    "ToolStatus",
    "Upload",
]
