"""The lines that tell a playbook's author about a failed command: step, file and line, loop item, error, output."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from noetl_worker.authoring.dev.excerpts import excerpt, printable, summary
from noetl_worker.authoring.dev.orchestration.execution import Position
from noetl_worker.authoring.dev.places import FilePlaces
from noetl_worker.models.wire import JsonValue
from noetl_worker.text.secrets.redaction import redact_text, redact_value

STDERR_LINES: Final = 8
TRACEBACK_LINES: Final = 200
BODY: Final = 500
"""Largest number of characters of an HTTP answer that the lines about a failure show."""
_ITEM: Final = 120
_TRACEBACK: Final = re.compile(r"^.*\(most recent call (?:first|last)\):$", re.MULTILINE)
_DESCRIPTION: Final = frozenset(
    {"error", "error_kind", "retryable", "code", "exception", "failed_task", "elapsed", "url"}
)
"""Fields of a failed command's result that describe the failure. `Failure.details` does not print these fields."""


@dataclass(frozen=True, slots=True)
class About:
    """Facts about a command that its events lack: tool kind, loop item, HTTP request, lines of the playbook's file."""

    kind: str = ""
    owner: str = ""
    """Path of the command's playbook, shown before the step's name; "" in the execution that the user started."""
    item: Position | None = None
    request: str = ""
    """Method and address of an `http` command; "" for other kinds."""
    places: FilePlaces = field(default_factory=FilePlaces)

    def name(self, step: str) -> str:
        named = f"{self.owner}: {step}" if self.owner else step
        return named if self.item is None else f"{named}[{self.item.index}]"


@dataclass(frozen=True, slots=True)
class Failure:
    step: str
    error: str
    value: JsonValue = None
    ids: str = ""
    """Ids of the execution, the command and the event, as text to show."""
    about: About = field(default_factory=About)

    @property
    def lacks_credential(self) -> bool:
        if "code" in self._fields:
            return bool(self._fields["code"] == "credential_not_found")
        # The Rust plane stores only the error's kind. An HTTP answer of 401 has the same kind, and a status code.
        return self._fields.get("error_kind") == "auth" and "status_code" not in self._fields

    @property
    def task(self) -> str:
        """Name of the failed task in a list of tasks; "" for a single tool."""
        return str(self._fields.get("failed_task") or "")

    @property
    def _fields(self) -> dict[str, Any]:
        return self.value if isinstance(self.value, dict) else {}

    @property
    def asked(self) -> str:
        """Method and address of an `http` command, without secrets; "" for other kinds.

        The address is the `url` in the result, or else the address in the command.
        """
        method, _, address = self.about.request.partition(" ")
        return f"{method} {redact_text(str(self._fields.get('url') or address))}" if self.about.request else ""

    def details(self) -> list[str]:
        """Return the lines that help to find the cause of a command's failure.

        The lines come from the first of these sources that has text: the error without its first line; the traceback in
        stderr, or the last lines of stderr; the HTTP answer; the result.
        """
        _, *more = self.error.splitlines() or [""]
        if details := [line for line in more if line.strip()] or self._printed():
            return details
        fields = self._fields
        if "status_code" in fields:
            body = fields.get("data") or fields.get("body")
            shown = body[:BODY] if isinstance(body, str) else excerpt(body, BODY)
            first, *more = shown.splitlines() or [""]
            said = f"{fields['status_code'] or ''} {first}".strip()
            return [said, *more] if said else more
        answer = summary({name: item for name, item in fields.items() if name not in _DESCRIPTION}, BODY)
        return [answer] if answer else []

    def _printed(self) -> list[str]:
        text = self._fields.get("stderr")
        if not isinstance(text, str) or not text.strip():
            return []
        if found := _TRACEBACK.search(text):  # a traceback is shown with all its lines
            return text[found.start() :].rstrip().splitlines()[-TRACEBACK_LINES:]
        return text.rstrip().splitlines()[-STDERR_LINES:]


def failure_lines(failure: Failure) -> list[str]:
    """Return the lines about a failure: step, task and error, then file and line, request and ids, then details."""
    task = f", task {failure.task}" if failure.task else ""
    item = _item_text(failure.about.item) if failure.about.item is not None else ""

    def placed(text: str) -> str:
        return failure.about.places.in_file(text, failure.step, failure.task)

    first, *_ = failure.error.splitlines() or ["failed"]
    where = failure.about.places.step_place(failure.step)
    lines = [f"  failed: {failure.step}{item}{task}: {placed(first)}"]
    if said := "; ".join(filter(None, (where and f"at {where}", failure.asked, failure.ids))):
        lines.append(f"    {said}")
    return lines + [f"    | {printable(placed(line))}" for line in failure.details()]


def _item_text(item: Position) -> str:
    return f"[{item.index}], {item.run.iterator} = {excerpt(redact_value(item.item), _ITEM) or 'null'}"
