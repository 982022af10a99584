"""Frozen values that cross rooms.

Ids are Python ints (64-bit, exact). `command_id` is sent back in the form in which it was received, as a number or a
text: the Rust plane compares texts, and the Python plane reads both forms.

Code outside the package imports the values from here. The package imports them from the modules that define them.
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
