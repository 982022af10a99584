"""The result of one check: the found and the wanted state, and how to fix a difference."""

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
    """Name of the check."""
    state: State
    found: str
    """The state that was found, for people."""
    wanted: str
    """The state that a worker needs, for people."""
    fix: str = ""
    """Advice that leads to the wanted state: a setting, a command or a text. Empty if there is nothing to fix."""


def fine(check: str, found: str, wanted: str) -> Finding:
    return Finding(check, State.FINE, found, wanted)


def warning(check: str, found: str, wanted: str, fix: str) -> Finding:
    return Finding(check, State.WARNING, found, wanted, fix)


def wrong(check: str, found: str, wanted: str, fix: str) -> Finding:
    return Finding(check, State.WRONG, found, wanted, fix)


def unknown(check: str, found: str, wanted: str, fix: str = "") -> Finding:
    return Finding(check, State.UNKNOWN, found, wanted, fix)
