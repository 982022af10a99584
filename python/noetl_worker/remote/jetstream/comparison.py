"""Comparison of the existing stream and durable with the settings.

The comparison is a list of ComparedField. Each configuration field that a setting determines has its own entry, and can
be changed in place (tried against nats-server 2.15.1). All other fields that a worker needs, or that can lose messages,
share one entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import not_
from typing import Any, Final, NamedTuple

from noetl_worker.settings.nats import covers
from noetl_worker.settings.settings import Settings

NANOSECONDS: Final = 1_000_000_000
MAX_AGE_S: Final = 3600
PULL_EXPIRES_S: Final = 30
"""Longest time, in seconds, for which a pull request of the worker stays open. A durable's `max_expires` must allow
this time."""
MAX_PULL_BATCH: Final = 256
"""Largest number of messages in one pull request of the worker. A durable's `max_batch` must allow a pull request for
all slots, up to this number."""
UNLIMITED: Final = -1
"""Value of `max_deliver` for unlimited deliveries. With a limit, JetStream would stop delivering a message, and KEDA
would no longer count the message. The worker makes a dead letter of such a message instead."""
IN_PLACE: Final = "in place"
"""Label of a difference between NATS and the settings that `noetl-worker nats ensure --apply` corrects."""
BY_HAND: Final = "by hand"
"""Label of a difference between NATS and the settings that an operator has to correct, for example because JetStream
refuses the change."""
SHOWN_NONE: Final = "none"
_AS_MADE: Final = "as a worker makes it"
_FULL: Final = "a full stream loses the oldest commands (discard old) or refuses new commands"
_DURATIONS: Final = ("max_age", "max_expires", "inactive_threshold")
SHARED_CONFIG: Final = {"retention": "limits", "storage": "file", "num_replicas": 1}
"""Configuration fields that have the same value in every stream that a worker makes."""


@dataclass(frozen=True, slots=True)
class ComparedField:
    """Comparison of one configuration field, or of several fields together, with the settings.

    `have` is the server's value, or None if the stream or durable does not exist. `wanted` is the value that the
    settings ask for.
    """

    field: str
    have: str | None
    wanted: str
    agrees: bool
    matters: str
    is_fatal: bool = False
    """True if a difference forbids workers to start: a worker could not pull, or would claim the commands of another
    worker pool."""
    patch: Mapping[str, Any] | None = None
    """Configuration change that corrects the field (see `patched`), or None if an operator has to correct the field."""

    @property
    def change(self) -> str:
        """Way to correct a field that differs from the settings: IN_PLACE (`noetl-worker nats ensure --apply` corrects
        the field) or BY_HAND (an operator must)."""
        return BY_HAND if self.patch is None else IN_PLACE

    @property
    def is_accepted_difference(self) -> bool:
        """True if the field differs from the settings, workers run nevertheless, and only an operator can correct the
        field."""
        return not self.agrees and self.patch is None and not self.is_fatal


def pause_left_s(info: Mapping[str, Any] | None) -> float:
    """Return the remaining seconds of a durable's pause from its consumer info, or 0 without a pause."""
    return int((info or {}).get("pause_remaining") or 0) / NANOSECONDS


def config_filters(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the filter subjects in a durable's configuration: `filter_subjects`, else `filter_subject`, else none."""
    subject = config.get("filter_subject")
    return tuple(config.get("filter_subjects") or ([subject] if subject else []))


def filter_fields(filters: Sequence[str]) -> dict[str, Any]:
    """Return the patch that sets these filters in a durable's configuration (see `patched`)."""
    if len(filters) == 1:
        return {"filter_subject": filters[0], "filter_subjects": None}
    return {"filter_subject": None, "filter_subjects": list(filters)}


def patched(config: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a configuration with the patch's values. A key whose value in the patch is None is removed."""
    return {name: value for name, value in {**config, **patch}.items() if value is not None}


# ── new configurations ──────────────────────────────────────────────────────────────────────────


def new_stream(name: str, settings: Settings) -> dict[str, Any]:
    """Return the configuration of a new stream of commands.

    Subjects and age limit are those of the stream that a Python plane makes itself (protocol/notification.md#stream).
    """
    return {
        "name": name,
        "subjects": [settings.nats_subject, f"{settings.nats_subject}.>"],
        "max_age": MAX_AGE_S * NANOSECONDS,
        **SHARED_CONFIG,
    }


def new_durable(settings: Settings, first: int | None = None) -> dict[str, Any]:
    """Return the configuration of a durable that does not exist yet.

    Args:
        first: stream sequence at which the durable begins, or None for the oldest message.
    """
    return patched(
        {
            "name": settings.nats_consumer,
            "durable_name": settings.nats_consumer,
            # all, not new: a command published before the first start must not wait for a reaper
            # (protocol/notification.md#durable)
            "deliver_policy": "all" if first is None else "by_start_sequence",
            "opt_start_seq": first,
            "ack_policy": "explicit",
            "replay_policy": "instant",
            "ack_wait": int(settings.ack_wait_s * NANOSECONDS),
            "max_deliver": UNLIMITED,
            "max_ack_pending": settings.max_ack_pending,
        },
        filter_fields(settings.filters),
    )


# ── comparison ──────────────────────────────────────────────────────────────────────────────────


class _Rule(NamedTuple):
    """Required value of a field in the configuration of a stream or durable, for a field without a worker setting."""

    field: str
    is_right: Callable[[Any], bool]
    matters: str
    is_fatal: bool = False


def _is_unlimited(value: Any) -> bool:
    return (value or -1) < 0


def _allows(least: int) -> Callable[[Any], bool]:
    """Return a function that tells whether a limit in a configuration is unset or at least `least`."""
    return lambda value: not value or value >= least


_STREAM_RULES: Final = (
    _Rule("retention", lambda value: value != "interest", "commands published while there is no durable are lost"),
    _Rule("max_age", _allows(MAX_AGE_S * NANOSECONDS), "a command that waits longer is lost"),
    _Rule("max_msgs", _is_unlimited, _FULL),
    _Rule("max_bytes", _is_unlimited, _FULL),
    _Rule("max_msgs_per_subject", _is_unlimited, "commands that wait on a subject are lost"),
    _Rule("sealed", not_, "the stream takes no commands"),
)
_DEAD_LETTER_RULES: Final = (_Rule("discard", lambda value: value == "new", "a full stream loses old dead letters"),)


def _durable_rules(settings: Settings) -> tuple[_Rule, ...]:
    whole_pull = min(settings.max_concurrent, MAX_PULL_BATCH)
    pull_s = PULL_EXPIRES_S
    return (
        _Rule("deliver_subject", not_, "the durable pushes, but a worker pulls", is_fatal=True),
        _Rule("ack_policy", lambda value: value == "explicit", "a worker acks each command alone", is_fatal=True),
        _Rule("max_expires", _allows(pull_s * NANOSECONDS), f"pulls of {pull_s} s are refused", is_fatal=True),
        _Rule("max_batch", _allows(whole_pull), "a pull for all slots is refused", is_fatal=True),
        _Rule("headers_only", not_, "notifications come without their bodies", is_fatal=True),
        _Rule("priority_policy", lambda value: value in (None, "", "none"), "our pulls are refused", is_fatal=True),
        _Rule("backoff", not_, "the durable does not use ack_wait"),
        _Rule("inactive_threshold", not_, "the durable is deleted while no worker runs"),
    )


def stream_rows(
    config: Mapping[str, Any] | None, settings: Settings, *, is_made_bare: bool = False
) -> list[ComparedField]:
    """Return the comparison of a stream with the settings, for the fields that matter to a worker.

    Args:
        config: configuration of the stream, or None if the stream does not exist.
        is_made_bare: accept a stream whose only subject is NATS_SUBJECT, as the Python plane makes the stream.
    """
    have = config if config is not None else {}
    subjects = [str(subject) for subject in have.get("subjects") or []]
    missing = [pattern for pattern in settings.filters if not any(covers(subject, pattern) for subject in subjects)]
    # A stream's subjects may not overlap, so subjects that a wider missing filter covers are dropped.
    remaining = [subject for subject in subjects if not any(covers(pattern, subject) for pattern in missing)]
    subject_row = ComparedField(
        "subjects",
        ", ".join(subjects) or SHOWN_NONE,
        ", ".join(settings.filters),
        not missing,
        "a command published to a subject that no stream has is lost",
        patch={"subjects": remaining + missing},
    )
    is_as_made = is_made_bare and subjects == [settings.nats_subject]
    rows = [*([] if is_as_made else [subject_row]), _other_fields(have, _STREAM_RULES)]
    return rows if config is not None else [_absent(row) for row in rows]


def dead_letter_rows(config: Mapping[str, Any]) -> list[ComparedField]:
    """Return a list with one entry, which compares the dead-letter stream with what the worker requires. The entry is a
    difference if the stream can lose a dead letter."""
    return [_other_fields(config, _DEAD_LETTER_RULES)]


def durable_rows(info: Mapping[str, Any] | None, settings: Settings) -> list[ComparedField]:
    """Return the comparison of a durable with the settings, for the fields that matter to a worker.

    `info` is the durable's consumer info, or None if the durable does not exist.
    """
    have = new_durable(settings) if info is None else info["config"]
    filters, ack_wait = config_filters(have), int(have.get("ack_wait") or 0)
    rows = [
        ComparedField(
            "filters",
            ", ".join(filters) or SHOWN_NONE,
            ", ".join(settings.filters),
            set(filters) == set(settings.filters),
            "which commands this pool gets; a change counts for later messages only",
            is_fatal=True,
            patch=filter_fields(settings.filters),
        ),
        ComparedField(
            "ack_wait",
            _seconds(ack_wait),
            f"{settings.ack_wait_s:g} s",
            ack_wait == int(settings.ack_wait_s * NANOSECONDS),
            "how long a command of a dead worker waits for another worker",
            patch={"ack_wait": int(settings.ack_wait_s * NANOSECONDS)},
        ),
        _limit(
            "max_ack_pending",
            have,
            settings.max_ack_pending,
            "commands in flight over the whole pool; at the limit no worker gets a command",
        ),
        _limit(
            "max_deliver",
            have,
            UNLIMITED,
            "at a limit JetStream silently stops delivering the command",
        ),
        _other_fields(have, _durable_rules(settings)),
    ]
    return [_absent(row) for row in rows] if info is None else rows


def _limit(name: str, have: Mapping[str, Any], wanted: int, matters: str) -> ComparedField:
    value = int(have.get(name) or -1)
    shown, want = ("unlimited" if number < 0 else str(number) for number in (value, wanted))
    return ComparedField(name, shown, want, value == wanted, matters, patch={name: wanted})


def _other_fields(have: Mapping[str, Any], rules: Sequence[_Rule]) -> ComparedField:
    wrong = [rule for rule in rules if not rule.is_right(have.get(rule.field))]
    return ComparedField(
        "other fields",
        ", ".join(f"{rule.field} {_shown(rule.field, have.get(rule.field))}" for rule in wrong) or _AS_MADE,
        _AS_MADE,
        not wrong,
        "; ".join(f"{rule.field}: {rule.matters}" for rule in wrong),
        is_fatal=any(rule.is_fatal for rule in wrong),
    )


def _shown(field: str, value: Any) -> str:
    return _seconds(int(value)) if field in _DURATIONS else str(value)


def _absent(row: ComparedField) -> ComparedField:
    """Return a copy of a comparison's entry, changed for a stream or durable that does not exist: `have` is None, and
    the entry is a difference that is never fatal."""
    return replace(row, have=None, agrees=False, is_fatal=False, patch=row.patch or {})


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds / NANOSECONDS:g} s"
