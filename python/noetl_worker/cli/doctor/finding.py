"""The result of one check of `doctor`: the found state, the wanted state, and advice to fix a difference."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(str, Enum):
    FINE = "fine"
    WARNING = "warning"
    """A worker starts and works, but may have trouble later."""
    WRONG = "wrong"
    """A worker does not start, or does not get, run or report its commands."""
    UNKNOWN = "unknown"
    """The check could not be made; `found` says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    """Name of the check, as `doctor` shows it."""
    state: State
    found: str
    """Description of the state that the check found."""
    wanted: str
    """Description of the state that a worker needs."""
    fix: str = ""
    """Advice for reaching the wanted state: a setting, a command or a text. Empty if there is nothing to fix."""


def fine(check: str, found: str, wanted: str) -> Finding:
    return Finding(check, State.FINE, found, wanted)


def warning(check: str, found: str, wanted: str, fix: str) -> Finding:
    return Finding(check, State.WARNING, found, wanted, fix)


def wrong(check: str, found: str, wanted: str, fix: str) -> Finding:
    return Finding(check, State.WRONG, found, wanted, fix)


def unknown(check: str, found: str, wanted: str, fix: str = "") -> Finding:
    return Finding(check, State.UNKNOWN, found, wanted, fix)
