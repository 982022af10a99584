"""What a seed means: which commands are published when, and which faults befall the house."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from noetl_worker.models import Dialect

WORKERS: Final = ("w1", "w2", "w3")
PUBLISHING_S: Final = 60.0
FAULTS_END_S: Final = 120.0
LARGE: Final = 110_000
"""Characters of a result that is over the event budget."""


@dataclass(frozen=True, slots=True)
class Issue:
    """One message: a command of the plane, or bytes that are none."""

    at: float
    config: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "command"
    """command, refused (the plane will never accept its events), unknown (nobody knows it), poison."""
    next_s: float = 0.0
    """Rust plane: how long it works on the next command inside of the request with this one's end."""
    is_item: bool = False
    """Python plane: of a loop."""


@dataclass(frozen=True, slots=True)
class Fault:
    at: float
    kind: str
    target: str
    """A worker, or "*"."""
    lasts_s: float
    size: float
    """A chance, seconds, or a count: the kind says which."""


@dataclass(frozen=True, slots=True)
class _Kind:
    weight: int
    lasts_s: tuple[float, float]
    size: tuple[float, float] = (0.0, 0.0)
    only: Dialect | None = None
    is_global: bool = False
    may_expire: bool = False
    """Whether a delivery may expire meanwhile through no fault of the worker's."""


FAULTS: Final[Mapping[str, _Kind]] = {
    "http_lost": _Kind(4, (5, 60), (0.1, 0.6)),
    "http_slow": _Kind(3, (5, 60), (0.5, 40)),
    "http_twice": _Kind(2, (5, 60), (0.2, 1.0)),
    "http_down": _Kind(3, (1, 150)),
    "http_silent": _Kind(2, (5, 90)),
    "plane_busy": _Kind(3, (2, 60), (0.3, 1.0), is_global=True),
    "plane_broken": _Kind(2, (1, 20), (0.2, 0.8), is_global=True),
    "proxy_page": _Kind(2, (1, 30), (0.3, 1.0), is_global=True),
    "login_refused": _Kind(1, (5, 40), is_global=True),
    "ack_timeout": _Kind(2, (2, 30), only=Dialect.PYTHON, is_global=True),
    "claims_leak": _Kind(2, (20, 60), only=Dialect.PYTHON, is_global=True),
    "nats_cut": _Kind(3, (0, 0), may_expire=True),
    "nats_stall": _Kind(3, (2, 90), may_expire=True),
    "nats_slow": _Kind(2, (5, 60), (0.2, 3.0), may_expire=True),
    "nats_restart": _Kind(3, (0.5, 20), (0, 30), is_global=True, may_expire=True),
    "consumer_deleted": _Kind(1, (0, 0), is_global=True, may_expire=True),
    "published_again": _Kind(3, (0, 0), (1, 6), is_global=True),
    "crash": _Kind(5, (1, 60), may_expire=True),
    "stop": _Kind(4, (1, 30)),
    "stop_now": _Kind(2, (1, 30)),
    "pause": _Kind(3, (5, 200), may_expire=True),
    "block": _Kind(2, (5, 60), may_expire=True),
    "clock_jump": _Kind(4, (0, 0), (-3700, 3700)),
    "plane_forgets": _Kind(0, (2, 40), (0, 6), only=Dialect.PYTHON, is_global=True),
    "plane_restarts": _Kind(0, (2, 40), (0, 6), only=Dialect.PYTHON, is_global=True),
}
"""A weight of 0: drawn by itself, so that it changes nothing else of a seed."""


@dataclass(frozen=True, slots=True)
class Schedule:
    seed: int
    dialect: Dialect
    workers: tuple[str, ...]
    environment: Mapping[str, str]
    is_one_machine: bool
    """Whether the workers share a disk, and so adopt each other's outbox."""
    issues: tuple[Issue, ...]
    faults: tuple[Fault, ...]


def make_schedule(seed: int, dialect: Dialect) -> Schedule:
    """The same seed and dialect give the same schedule, on every machine."""
    chance = random.Random(f"{seed}:{dialect.value}:schedule")
    workers = WORKERS[: chance.choice((2, 2, 3))]
    ack_wait_s = chance.choice((6, 10, 30))
    environment = {
        "WORKER_MAX_CONCURRENT": str(chance.choice((1, 2, 4, 8))),
        "NOETL_WORKER_ACK_WAIT_S": str(ack_wait_s),
        "NOETL_WORKER_DRAIN_TIMEOUT_S": str(chance.choice((0, 2, 10))),
        "NOETL_WORKER_HTTP_TIMEOUT_S": str(chance.choice((5, 30))),
        "NOETL_WORKER_OUTBOX": chance.choice(("off", "on_failure", "on_failure", "always")),
    }
    followed = random.Random(f"{seed}:{dialect.value}:next")  # of its own: it changes nothing else of a seed
    issues = [
        replace(_issue(chance), next_s=followed.choice((0.0, 0.0, 0.0, 1.0, 20.0, 90.0)))
        for _ in range(chance.randint(4, 24))
    ]
    faults = [draw_fault(chance, dialect, workers) for _ in range(chance.choice((0, 1, 2, 3, 4, 6, 8, 10)))]
    forgets = random.Random(f"{seed}:{dialect.value}:forgets")
    if dialect is Dialect.PYTHON and forgets.random() < 0.3:
        faults.append(_drawn("plane_forgets", forgets, "*", forgets.uniform(0, FAULTS_END_S)))
    restarts = random.Random(f"{seed}:{dialect.value}:restarts")
    if dialect is Dialect.PYTHON and restarts.random() < 0.4:
        faults.append(_drawn("plane_restarts", restarts, "*", restarts.uniform(0, FAULTS_END_S)))
        issues = [replace(one, is_item=restarts.random() < 0.4) for one in issues]
    return Schedule(
        seed,
        dialect,
        workers,
        environment,
        chance.random() < 0.5,
        tuple(sorted(issues, key=lambda one: one.at)),
        tuple(sorted(faults, key=lambda one: one.at)),
    )


def _issue(chance: random.Random) -> Issue:
    at = round(chance.uniform(0, PUBLISHING_S), 3)
    kind = chance.choices(("command", "refused", "unknown", "poison"), (40, 1, 1, 1))[0]
    seconds = chance.choice(
        (0, 0, 0.01, 0.1, 1, 3, chance.uniform(0, 10), chance.uniform(10, 60), chance.uniform(60, 250))
    )
    config = {
        "seconds": round(seconds, 3),
        "ending": chance.choices(("success", "error", "raises"), (8, 1, 1))[0],
        "clings_s": chance.choice((0, 0, 0, 1, 4)),
        "chars": chance.choice((0, 0, 0, LARGE)),
    }
    return Issue(at, config, kind)


def draw_fault(chance: random.Random, dialect: Dialect, workers: tuple[str, ...], *, at: float | None = None) -> Fault:
    """One fault; `at` is drawn too unless it is given."""
    kinds = [name for name, kind in FAULTS.items() if kind.only in (None, dialect)]
    name = chance.choices(kinds, [FAULTS[one].weight for one in kinds])[0]
    kind = FAULTS[name]
    when = chance.uniform(0, FAULTS_END_S) if at is None else at
    target = "*" if kind.is_global else chance.choice(workers)
    if name.startswith("http_") and chance.random() < 0.3:
        target = "*"
    return _drawn(name, chance, target, when)


def _drawn(name: str, chance: random.Random, target: str, at: float) -> Fault:
    kind = FAULTS[name]
    lasts_s, size = round(chance.uniform(*kind.lasts_s), 3), round(chance.uniform(*kind.size), 3)
    return Fault(round(at, 3), name, target, lasts_s, size)
