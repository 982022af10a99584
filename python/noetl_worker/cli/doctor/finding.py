"""The finding of one check: what it found, what is wanted, and the line that fixes it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(str, Enum):
    FINE = "fine"
    WARNING = "warning"
    """A worker starts and works, but will have trouble later."""
    WRONG = "wrong"
    """A worker does not start, or does not get, run or report its commands."""
    UNKNOWN = "unknown"
    """The check could not be made; `found` says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    state: State
    found: str
    wanted: str
    fix: str = ""
    """The line that fixes it; empty if there is nothing to fix."""


def fine(check: str, found: str, wanted: str) -> Finding:
    return Finding(check, State.FINE, found, wanted)


def warning(check: str, found: str, wanted: str, fix: str) -> Finding:
    return Finding(check, State.WARNING, found, wanted, fix)


def wrong(check: str, found: str, wanted: str, fix: str) -> Finding:
    return Finding(check, State.WRONG, found, wanted, fix)


def unknown(check: str, found: str, wanted: str, fix: str = "") -> Finding:
    return Finding(check, State.UNKNOWN, found, wanted, fix)
