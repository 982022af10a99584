"""Comparison of stream and durable with the settings, as a table for a terminal or as one JSON object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

from rich.table import Column, Table
from rich.text import Text

from noetl_worker.observability.terminal import duration, operator_console, plain_table, say_json
from noetl_worker.remote.jetstream.comparison import (
    IN_PLACE,
    ComparedField,
    dead_letter_rows,
    durable_rows,
    pause_left_s,
    stream_rows,
)
from noetl_worker.remote.jetstream.consumer import ENSURE, Found
from noetl_worker.remote.jetstream.skipped_commands import SkippedCommands
from noetl_worker.settings.settings import Settings


class _Part(NamedTuple):
    kind: str
    name: str
    exists: bool
    rows: Sequence[ComparedField]

    @property
    def what(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class ComparisonView:
    """The output of `noetl-worker nats ensure`: how stream, durable and dead letters differ from the settings."""

    found: Found
    settings: Settings
    done: Sequence[str]
    is_applied: bool = False
    passed_over: SkippedCommands | None = None

    @cached_property
    def _parts(self) -> Sequence[_Part]:
        """The compared fields of the stream, the durable and, if it exists, the stream of dead letters."""
        found, info = self.found, self.found.stream_info
        stream = stream_rows(None if info is None else info["config"], self.settings)
        durable = durable_rows(found.durable_info, self.settings)
        parts = [
            _Part("stream", found.stream, info is not None, stream),
            _Part("durable", found.durable, found.durable_info is not None, durable),
        ]
        if (letters := found.dead_letters) is not None:
            parts.append(_Part("dead letters", letters["name"], True, dead_letter_rows(letters)))
        return parts

    @property
    def is_as_wanted(self) -> bool:
        """True if nothing is missing or different. All fields of a missing stream or durable count as different."""
        return all(row.agrees for row in self._rows)

    @property
    def is_fine(self) -> bool:
        """True if `nats ensure` may exit with code 0.

        Without --apply, nothing may differ. With --apply, a difference that a person has to decide on is accepted,
        so that an automatic installation goes on.
        """
        return all(row.agrees or (self.is_applied and row.is_accepted_difference) for row in self._rows)

    @property
    def _rows(self) -> list[ComparedField]:
        return [row for part in self._parts for row in part.rows]

    def as_json(self) -> dict[str, Any]:
        parts = {part.kind: _as_json(part) for part in self._parts}
        return {
            "as_wanted": self.is_as_wanted,
            "paused_s": pause_left_s(self.found.durable_info),
            "done": list(self.done),
            "passed_over": asdict(self.passed_over) if self.passed_over is not None else None,
            "stream": parts["stream"],
            "durable": parts["durable"],
            "dead_letters": parts.get("dead letters"),
            "dead_letters_unknown": self.found.dead_letters_unknown,
        }

    def print(self, *, as_json: bool) -> None:
        console = operator_console()
        if as_json:
            say_json(self.as_json())
            return
        for line in self.done:
            console.print(f"done: {line}", markup=False, style="green")
        for part in self._parts:
            console.print(_table(part))
            console.print()
        for line in self.closing():
            console.print(line, markup=False, soft_wrap=True)

    def closing(self) -> list[str]:
        """Return the last lines of the output: how to remove the differences between the settings and what NATS has."""
        lines = self._left_out()
        if left_s := pause_left_s(self.found.durable_info):
            lines.append(
                f"durable {self.found.durable} is paused by an operator for {duration(left_s)} more, and delivers "
                "nothing until then: noetl-worker nats resume ends it"
            )
        if self.found.dead_letters_unknown:
            lines.append(f"the stream of dead letters could not be looked at: {self.found.dead_letters_unknown}")
        if self.is_as_wanted:
            return [*lines, "Stream and durable are as the settings want them."]
        lines += [f"{part.what} is missing: {ENSURE} makes it" for part in self._parts if not part.exists]
        for part in self._parts:
            if part.exists:
                lines += self._advice(part)
        return lines

    def _left_out(self) -> list[str]:
        if (left_out := self.passed_over) is None:
            return []
        name = f"{self.found.durable}_missed"
        make = f"{ENSURE} --from {left_out.first} --nats-consumer {name}"
        behind = (
            f"warning: {left_out.behind} commands that the filters select lie before sequence {left_out.place + 1}, "
            f"where durable {self.found.durable} goes on: it delivers none of them. Make a second durable: {make}",
            f"    then run a worker with NATS_CONSUMER={name} until no message waits, and delete the second durable. "
            "The worker drops commands that have finished already",
        )
        unwanted = f"warning: {left_out.unwanted} waiting commands are not selected by the filters any more"
        return [*(behind if left_out.behind else ()), *([unwanted] if left_out.unwanted else ())]

    def _advice(self, part: _Part) -> list[str]:
        lines = []
        for row in part.rows:
            if not row.agrees:
                kind = "warning: " if self.is_applied and row.is_accepted_difference else ""
                lines += [f"{kind}{part.what}: {row.field}: {row.have}, wanted: {row.wanted}", f"    {row.matters}"]
                lines += [f"    changed in place by {ENSURE}"] if row.change == IN_PLACE else self._by_hand(part)
        return lines

    def _by_hand(self, part: _Part) -> list[str]:
        found = self.found
        if part.kind != "durable":
            return [f"    left to you, since somebody decided it: nats stream edit {part.name}"]
        info = found.durable_info or {}
        return [
            f"    left to you, since somebody decided it: nats consumer edit {found.stream} {found.durable}",
            "A field that JetStream cannot change takes a new durable, LOSING the place of this one "
            f"(messages waiting: {info.get('num_pending', 0)}, in flight: {info.get('num_ack_pending', 0)}):",
            "the new one begins with the oldest message of the stream, so finished commands come",
            "again and are dropped at their claim. Stop the pool, then",
            f"    nats consumer rm {found.stream} {found.durable} && {ENSURE}",
            "or leave this durable to its users, and set another NATS_CONSUMER.",
        ]


def _as_json(part: _Part) -> dict[str, Any]:
    fields = [
        {
            "field": row.field,
            "is": row.have,
            "wanted": row.wanted,
            "agrees": row.agrees,
            "matters": row.matters,
            "change": row.change,
        }
        for row in part.rows
    ]
    return {"name": part.name, "exists": part.exists, "fields": fields}


def _table(part: _Part) -> Table:
    """Return a table of the compared fields of a stream or durable. Fields that differ are marked with `!`."""
    table = plain_table(
        " ",
        *(Column(name, overflow="fold", no_wrap=name == "field") for name in ("field", "is", "wanted")),
        title=part.what if part.exists else f"{part.what} (missing)",
        title_justify="left",
        title_style="bold",
    )
    for row in part.rows:
        cells = ("" if row.agrees else "!", row.field, row.have or "-", row.wanted)
        table.add_row(*(Text(cell, style="" if row.agrees else "red") for cell in cells))
    return table
