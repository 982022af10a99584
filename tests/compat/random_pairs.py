"""Random playbooks through both workers: how many are equal, and for each kind of difference the smallest one found."""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

from compat.live_pair import Both, Unexplained
from compat.random_playbooks import Playbook, playbooks, shown, text_of
from compat.values_table import OPEN

Run = Callable[[Mapping[str, Playbook]], Mapping[str, Both]]
"""Runs playbooks through both workers, by name."""
QUIET: dict[str, Any] = {
    "database": None,
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "verbosity": Verbosity.quiet,
    "print_blob": False,
}
SHRINK_S = 90.0
"""For each kind of difference; after that the smallest one so far will do."""
_STEP = re.compile(r"\b(start|first|second|last|one|two|three|look|[abcd])\b(?=[.\[]|$)|\[\d+\]")


@dataclass
class Found:
    """A kind of difference: where, and the smallest playbook that shows it."""

    text: str
    lines: Sequence[str]


@dataclass
class Explored:
    """What came of one seed."""

    seen: dict[str, Both] = field(default_factory=dict)
    new: dict[str, Found] = field(default_factory=dict)

    def counts(self, why: Callable[[Sequence[str]], Sequence[str]]) -> tuple[int, int, int]:
        """Equal, explained, open: by the reasons of what differs in each."""
        reasons = [why(one.lines) for one in self.seen.values()]
        equal, left = sum(not one for one in reasons), sum(OPEN in one for one in reasons)
        return equal, len(reasons) - equal - left, left


def signature(line: str) -> str:
    """What two playbooks with one fault have in common: the place without names, and the types of the two values."""
    path, _, values = line.partition(": ")
    theirs, _, ours = values.partition(" | ")
    return f"{_STEP.sub('*', path)} {_kind(theirs)} {_kind(ours)}"


def _kind(value: str) -> str:
    if value in ("null", "true", "false") or '"<absent>"' in value:
        return value
    return {'"': "text", "{": "object", "[": "list"}.get(value[:1], "number")


def name_of(playbook: Playbook) -> str:
    """Another name for another playbook: a plane keeps each version of one."""
    return "p" + hashlib.sha256(text_of(playbook, "", "").encode()).hexdigest()[:16]


class Explorer:
    """Playbooks of one seed: all of them at first, some at a time, then smaller and smaller ones that differ."""

    def __init__(self, run: Run, unexplained: Unexplained, count: int, start: int, shrink_s: float = SHRINK_S) -> None:
        self._run = run
        self._unexplained = unexplained
        self._count = count
        self._seed = start
        self._shrink_s = shrink_s
        self._known: dict[str, Both] = {}
        self._small_enough_at = math.inf

    def explore(self) -> Explored:
        drawn: dict[str, Playbook] = {}
        self._draw((Phase.generate,), lambda playbook: drawn.update({name_of(playbook): playbook}))
        self._known = dict(self._run(drawn))
        found = Explored(dict(self._known))
        while (wanted := self._first_new(found)) is not None:
            found.new[wanted] = self._smallest(wanted)
        return found

    def _draw(self, phases: Sequence[Phase], look: Callable[[Playbook], None]) -> None:
        """The same playbooks each time."""
        drawing = given(playbooks())(lambda playbook: look(playbook))
        seed(self._seed)(settings(max_examples=self._count, phases=phases, **QUIET)(drawing))()

    def _first_new(self, found: Explored) -> str | None:
        """A kind of difference without a smallest playbook, of a playbook in which no other kind has one."""
        for one in found.seen.values():
            kinds = [signature(line) for line in self._unexplained(one.lines)]
            if kinds and not any(kind in found.new for kind in kinds):
                return kinds[0]
        return None

    def _smallest(self, wanted: str) -> Found:
        best: list[Found] = []
        self._small_enough_at = time.monotonic() + self._shrink_s

        def look(playbook: Playbook) -> None:
            lines = [line for line in self._unexplained(self._lines(playbook)) if signature(line) == wanted]
            if lines:
                best.append(Found(shown(playbook), lines))
                raise AssertionError(wanted)

        with contextlib.suppress(AssertionError):
            self._draw((Phase.generate, Phase.shrink), look)
        return min(best, key=lambda one: len(one.text))

    def _lines(self, playbook: Playbook) -> Sequence[str]:
        name = name_of(playbook)
        if name not in self._known and time.monotonic() < self._small_enough_at:
            self._known |= self._run({name: playbook})
        return self._known[name].lines if name in self._known else ()
