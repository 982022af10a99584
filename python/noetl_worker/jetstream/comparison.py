"""Stream and durable as they are against what the settings want, one row a field.

What can be changed in place was tried against nats-server 2.15.1, whose source is the only list of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as a_field
from enum import Enum
from typing import Any, Final

from noetl_worker.settings.nats import covers
from noetl_worker.settings.settings import Settings

__all__ = [
    "Change",
    "ComparedField",
    "config_filters",
    "dead_letter_rows",
    "durable_rows",
    "new_dead_letter_stream",
    "new_durable",
    "new_stream",
    "patched",
    "stream_rows",
]

NANOSECONDS: Final = 1_000_000_000
MAX_AGE_S: Final = 3600
PULL_EXPIRES_S: Final = 30
MAX_PULL_BATCH: Final = 256
"""How long our pull requests stay open, and for how many messages (jetstream/puller.py); a durable must allow it."""
SHOWN_NONE: Final = "none"
_DEAD_LETTER_BYTES: Final = 256 * 1024 * 1024


class Change(str, Enum):
    """What it takes to change a field that differs."""

    IN_PLACE = "in place"
    """JetStream takes it; `noetl-worker nats ensure --apply` does it."""
    BY_HAND = "by hand"
    """JetStream would take it, but it is somebody's decision."""
    NEW = "needs a new one"
    """JetStream refuses to change it."""


@dataclass(frozen=True, slots=True)
class ComparedField:
    """One field. `have` is None where there is no such stream or durable yet."""

    field: str
    have: str | None
    wanted: str
    agrees: bool
    matters: str
    change: Change
    is_fatal: bool = False
    """With it a worker could not work, or would claim another pool's commands: it does not start."""
    patch: Mapping[str, Any] = a_field(default_factory=dict)
    """What to put into the configuration to make it agree; None takes a key out."""


def config_filters(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The filter subjects of a durable's configuration, in either of its two forms."""
    subject = config.get("filter_subject")
    return tuple(config.get("filter_subjects") or ([subject] if subject else []))


def _filter_fields(filters: Sequence[str]) -> dict[str, Any]:
    if len(filters) == 1:
        return {"filter_subject": filters[0], "filter_subjects": None}
    return {"filter_subject": None, "filter_subjects": list(filters)}


def patched(config: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a configuration with the patch in it."""
    return {name: value for name, value in {**config, **patch}.items() if value is not None}


# ── as they are made ────────────────────────────────────────────────────────────────────────────


def new_stream(name: str, settings: Settings) -> dict[str, Any]:
    """As the Python plane makes it (protocol/notification.md#stream), so that whoever comes first makes the same
    stream."""
    return {
        "name": name,
        "subjects": [settings.nats_subject, f"{settings.nats_subject}.>"],
        "retention": "limits",
        "storage": "file",
        "max_age": MAX_AGE_S * NANOSECONDS,
        "num_replicas": 1,
    }


def new_durable(settings: Settings) -> dict[str, Any]:
    """The configuration of a durable that does not exist yet."""
    return patched(
        {
            "name": settings.nats_consumer,
            "durable_name": settings.nats_consumer,
            # all, not new: a command published before the first start must not wait for a reaper
            # (protocol/notification.md#durable)
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "replay_policy": "instant",
            "ack_wait": int(settings.ack_wait_s * NANOSECONDS),
            "max_deliver": settings.max_deliver,
            "max_ack_pending": settings.max_ack_pending,
        },
        _filter_fields(settings.filters),
    )


def new_dead_letter_stream(name: str, subject: str) -> dict[str, Any]:
    """Dead letters never expire by themselves."""
    return {
        "name": name,
        "subjects": [subject],
        "max_bytes": _DEAD_LETTER_BYTES,
        "discard": "new",  # full, it refuses, and the message is returned; the old ones are not lost
        "retention": "limits",
        "storage": "file",
        "num_replicas": 1,
    }


# ── compared ────────────────────────────────────────────────────────────────────────────────────


def stream_rows(config: Mapping[str, Any] | None, settings: Settings) -> list[ComparedField]:
    """The stream's fields that matter to a worker. `config` None: there is no stream."""
    is_there = config is not None
    have = config if config is not None else {}
    subjects = [str(subject) for subject in have.get("subjects") or []]
    missing = [pattern for pattern in settings.filters if not any(covers(subject, pattern) for subject in subjects)]
    rows = [
        ComparedField(
            "subjects",
            ", ".join(subjects) or SHOWN_NONE,
            ", ".join(settings.filters),
            not missing,
            "a command published to a subject that no stream has is lost",
            Change.IN_PLACE,
            patch={"subjects": [subject for subject in subjects if not _is_covered(subject, missing)] + missing},
        ),
        ComparedField(
            "retention",
            str(have.get("retention") or "limits"),
            "limits or workqueue",
            have.get("retention") != "interest",
            "with interest, what is published while there is no durable is dropped",
            Change.BY_HAND,
        ),
        *_keeping_rows(have),
    ]
    return rows if is_there else [_absent(row) for row in rows]


def _keeping_rows(have: Mapping[str, Any]) -> list[ComparedField]:
    """What decides how long a command is kept for a worker."""
    max_age = int(have.get("max_age") or 0)
    per_subject = int(have.get("max_msgs_per_subject") or -1)
    return [
        ComparedField(
            "max_age",
            _seconds(max_age) if max_age else "unlimited",
            f"at least {MAX_AGE_S} s",
            not max_age or max_age >= MAX_AGE_S * NANOSECONDS,
            "a command that waits longer is dropped before a worker has seen it",
            Change.IN_PLACE,
            patch={"max_age": MAX_AGE_S * NANOSECONDS},
        ),
        ComparedField(
            "max_msgs_per_subject",
            "unlimited" if per_subject < 0 else str(per_subject),
            "unlimited",
            per_subject < 0,
            "commands share a subject: a limit drops those that wait",
            Change.IN_PLACE,
            patch={"max_msgs_per_subject": -1},
        ),
        ComparedField(
            "sealed",
            _yes(have.get("sealed")),
            "no",
            not have.get("sealed"),
            "a sealed stream takes no command any more",
            Change.NEW,
        ),
        ComparedField(
            "storage",
            str(have.get("storage") or "file"),
            "any",
            True,
            "memory: a restart of NATS forgets what waits, and the plane has to publish it again",
            Change.NEW,
        ),
    ]


def _is_covered(subject: str, others: Sequence[str]) -> bool:
    """A stream's subjects may not overlap: what a wider one of ours covers goes."""
    return any(covers(other, subject) for other in others)


def dead_letter_rows(config: Mapping[str, Any], subject: str) -> list[ComparedField]:
    """The fields of the stream of dead letters that decide whether one is lost; such a stream there is."""
    discard = str(config.get("discard") or "old")
    max_age, max_bytes = int(config.get("max_age") or 0), int(config.get("max_bytes") or -1)
    is_ours_alone = list(config.get("subjects") or []) == [subject]
    return [
        ComparedField(
            "discard",
            discard,
            "new",
            discard == "new",
            "full, with old it forgets dead letters to take new ones; with new it refuses, and the message is returned",
            # What else is in a stream of somebody's own would be refused too.
            Change.IN_PLACE if is_ours_alone else Change.BY_HAND,
            patch={"discard": "new"},
        ),
        ComparedField(
            "max_bytes",
            "unlimited" if max_bytes < 0 else str(max_bytes),
            "any",
            True,
            "how much it takes until it is full",
            Change.BY_HAND,
        ),
        ComparedField(
            "max_age",
            _seconds(max_age) if max_age else "unlimited",
            "any",
            True,
            "a dead letter that is older is gone, read or not",
            Change.BY_HAND,
        ),
    ]


def durable_rows(info: Mapping[str, Any] | None, settings: Settings) -> list[ComparedField]:
    """The durable's fields that matter to a worker, from its consumer info. None: there is no durable."""
    have = new_durable(settings) if info is None else info["config"]
    rows = [
        *_deciding_rows(have, settings),
        *_limit_rows(have, settings),
        *_pull_rows(have, settings),
        _paused_row(info or {}, have),
    ]
    return [_absent(row) for row in rows] if info is None else rows


def _deciding_rows(have: Mapping[str, Any], settings: Settings) -> list[ComparedField]:
    """What decides which messages come, and how they are answered."""
    filters = config_filters(have)
    pushed_to = have.get("deliver_subject")
    return [
        ComparedField(
            "mode",
            f"push to {pushed_to}" if pushed_to else "pull",
            "pull",
            not pushed_to,
            "a worker asks for as many commands as it has free slots",
            Change.NEW,
            is_fatal=True,
        ),
        ComparedField(
            "ack_policy",
            str(have.get("ack_policy") or SHOWN_NONE),
            "explicit",
            have.get("ack_policy") == "explicit",
            "each command is acknowledged by itself, after its outcome is accepted",
            Change.NEW,
            is_fatal=True,
        ),
        ComparedField(
            "filters",
            ", ".join(filters) or SHOWN_NONE,
            ", ".join(settings.filters),
            set(filters) == set(settings.filters),
            "which commands this pool gets; a change counts for later messages only",
            Change.IN_PLACE,
            is_fatal=True,
            patch=_filter_fields(settings.filters),
        ),
        ComparedField(
            "deliver_policy",
            str(have.get("deliver_policy") or "all"),
            "any",
            True,
            "counts only when the durable is made (then: all)",
            Change.NEW,
        ),
    ]


def _limit_rows(have: Mapping[str, Any], settings: Settings) -> list[ComparedField]:
    ack_wait = int(have.get("ack_wait") or 0)
    backoff = have.get("backoff")
    inactive = int(have.get("inactive_threshold") or 0)
    return [
        ComparedField(
            "ack_wait",
            _seconds(ack_wait),
            f"{settings.ack_wait_s:g} s",
            ack_wait == int(settings.ack_wait_s * NANOSECONDS),
            "how long a command of a dead worker waits for the next one",
            Change.IN_PLACE,
            patch={"ack_wait": int(settings.ack_wait_s * NANOSECONDS)},
        ),
        _limit(
            "max_ack_pending",
            have,
            settings.max_ack_pending,
            "commands in flight over the whole pool; at the limit no worker gets any",
        ),
        _limit(
            "max_deliver",
            have,
            settings.max_deliver,
            "with a limit, a command that used it up stays undelivered and unseen",
        ),
        ComparedField(
            "backoff",
            ", ".join(_seconds(int(delay)) for delay in backoff) if backoff else SHOWN_NONE,
            SHOWN_NONE,
            not backoff,
            "it takes the place of ack_wait",
            Change.IN_PLACE,
            patch={"backoff": None},
        ),
        ComparedField(
            "inactive_threshold",
            _seconds(inactive) if inactive else SHOWN_NONE,
            SHOWN_NONE,
            not inactive,
            "the durable would be deleted while no worker runs",
            Change.IN_PLACE,
            patch={"inactive_threshold": None},
        ),
    ]


def _limit(name: str, have: Mapping[str, Any], wanted: int, matters: str) -> ComparedField:
    value = int(have.get(name) or -1)
    shown, want = ("unlimited" if number < 0 else str(number) for number in (value, wanted))
    return ComparedField(name, shown, want, value == wanted, matters, Change.IN_PLACE, patch={name: wanted})


def _pull_rows(have: Mapping[str, Any], settings: Settings) -> list[ComparedField]:
    """Limits on pull requests: one below what we ask for, and every pull is refused."""
    expires, batch = int(have.get("max_expires") or 0), int(have.get("max_batch") or 0)
    batch_wanted = min(settings.max_concurrent, MAX_PULL_BATCH)
    policy = str(have.get("priority_policy") or SHOWN_NONE)
    return [
        ComparedField(
            "max_expires",
            _seconds(expires) if expires else SHOWN_NONE,
            f"none, or at least {PULL_EXPIRES_S} s",
            not expires or expires >= PULL_EXPIRES_S * NANOSECONDS,
            "a longer pull request, as ours, is refused",
            Change.IN_PLACE,
            is_fatal=True,
            patch={"max_expires": None},
        ),
        ComparedField(
            "max_batch",
            str(batch) if batch else SHOWN_NONE,
            f"none, or at least {batch_wanted}",
            not batch or batch >= batch_wanted,
            "a pull request for more, as ours with all slots free, is refused",
            Change.IN_PLACE,
            is_fatal=True,
            patch={"max_batch": None},
        ),
        ComparedField(
            "headers_only",
            _yes(have.get("headers_only")),
            "no",
            not have.get("headers_only"),
            "without its body a notification is no command, and would become a dead letter",
            Change.IN_PLACE,
            is_fatal=True,
            patch={"headers_only": None},
        ),
        ComparedField(
            "priority_policy",
            policy,
            SHOWN_NONE,
            policy == SHOWN_NONE,
            "with priority groups, a pull request that names none is refused",
            Change.IN_PLACE,
            is_fatal=True,
            patch={"priority_policy": None, "priority_groups": None, "priority_timeout": None},
        ),
    ]


def _paused_row(info: Mapping[str, Any], have: Mapping[str, Any]) -> ComparedField:
    paused = bool(info.get("paused"))  # pause_until stays in the configuration when its time has passed
    return ComparedField(
        "paused",
        f"until {have.get('pause_until')}" if paused else "no",
        "no",
        not paused,
        "a paused durable delivers nothing",
        Change.BY_HAND,
    )


def _absent(row: ComparedField) -> ComparedField:
    """The row of something that is not there; "any" cannot differ."""
    return ComparedField(row.field, None, row.wanted, row.wanted == "any", row.matters, Change.IN_PLACE)


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds / NANOSECONDS:g} s"


def _yes(value: object) -> str:
    return "yes" if value else "no"
