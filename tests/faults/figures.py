"""The faults, what is promised for each, and what was measured.

`make faults` writes docs/reliability.md (a line for each fault) and docs/reliability-figures.md (every figure) from it.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
FIGURES_FILE: Final = Path(__file__).with_name("figures.json")
OVERVIEW: Final = ROOT / "docs" / "reliability.md"
DOCUMENT: Final = ROOT / "docs" / "reliability-figures.md"

FAULTS: Final[dict[str, tuple[str, str]]] = {
    "F1": (
        "SIGTERM with 50 commands in flight",
        "none lost, none twice, exit 0 a second after the last one ends; no claim later than 100 ms after the signal; "
        "deregistered",
    ),
    "F2": (
        "SIGTERM, a command longer than the drain",
        "stopped and returned, no command.failed, exit 4 within drain + 3 s, a peer runs it to its one end",
    ),
    "F3": ("a second and a third signal", "the second cancels: exit 4 in 1 s; the third exits 130 at once"),
    "F4": (
        "SIGKILL in the middle of a run, the same WORKER_ID starts again",
        "delivered again within ack_wait + 1 s, accepted, run again, one outcome",
    ),
    "F5": (
        "SIGKILL, the others have another id",
        "409 is returned with growing delay, never acked; who may take it takes it",
    ),
    "F6": (
        "nats-server restarts under 500 commands/s (SIGTERM, SIGKILL)",
        "connected again within 2 s, first delivery 1 s later, none lost",
    ),
    "F7": (
        "NATS is a black hole",
        "found within two pings, not ready, recovered within 2 s of its return; what NATS sent into the hole within "
        "ack_wait + 1 s",
    ),
    "F8": (
        "the durable is deleted, while pulling and while idle",
        "found in 1 s, or at the next pull; made again; at most one pull a second while it cannot be",
    ),
    "F9": (
        "the stream is purged, deleted; leaders change in a cluster of three",
        "no crash, pulling again; back-off 0.1 to 5 s",
    ),
    "F10": (
        "a dead peer holds all of max_ack_pending",
        "a gauge and a warning say so; going on within ack_wait + 1 s",
    ),
    "F11": ("the ack is lost", "delivered again, acked, the tool not run again"),
    "F12": (
        "the worker stands still for longer than ack_wait (SIGSTOP)",
        "it notices, asks whose the command is, and reports nothing that is another's",
    ),
    "F13": (
        "the event loop is blocked for 10 s",
        "in_progress goes on, no second delivery, liveness 503 after 5 s, alive again after it",
    ),
    "F14": (
        "the control plane answers 503 and 429, or 500 to all executions",
        "at most 2 requests a second and worker (after server errors of three executions), no common peaks (largest "
        "second at most twice the mean), "
        "everything reported afterwards",
    ),
    "F15": (
        "the control plane hangs, or drops its answer after it has processed",
        "the same key or id at every try: one terminal row, one call.done row (on the Rust plane, whose batch takes "
        "neither a key nor ids: at most one row for each send)",
    ),
    "F16": (
        "the control plane is down at SIGTERM",
        "never acked without an accepted outcome",
    ),
    "F17": (
        "poison: broken JSON, wrong types, 19 digits, 10 MB, depth 2,000, unknown tool",
        "a dead letter with its reason (or command.failed), at no more than the cost of a checksum, the worker goes on",
    ),
    "F18": (
        "1,000 commands whose claim always fails",
        "others are served at once; at most 5 attempts a second and worker when the plane is busy, and over all "
        "commands that fail by themselves once each has been tried three times",
    ),
    "F19": (
        "tools that do not end: sleep 1000, a loop in C, a deadlocked thread",
        "killed with their group within timeout + 1 s, slot free, no zombie",
    ),
    "F20": (
        "tools that leave grandchildren, write 1 GB, close their standard input",
        "group killed, output cut with a mark, at most 32 MB more memory",
    ),
    "F21": ("a tool's process runs out of memory, or is killed for it", "the worker goes on, the event names memory"),
    "F22": (
        "the clock is wrong, or jumps an hour, either way",
        "the plane's time is what counts: commands end as ever, and each step gets the values of those before it",
    ),
    "F23": (
        "names do not resolve; certificates and credentials are replaced",
        "connected again with the new ones, without a restart",
    ),
    "F24": (
        "steady load of 200 commands/s",
        "memory slope below 1 MB/h (over an hour; over a minute: grown by less than 0.5 MB), descriptors and tasks "
        "constant, no backlog",
    ),
    "F25": ("random schedules of the above", "the invariant holds on every seed; a failing seed prints its replay"),
    "F26": ("what KEDA reads during long runs", "lag at least what is in flight; 0 only when idle"),
    "F27": ("two workers race for every command", "each command runs once; the refused path below 2 ms (p99)"),
    "F28": ("the Rust engine is absent, or panics", "equal results from the Python engine; an exception, no abort"),
    "K": (
        "three workers, one killed every 2 s, NATS restarted every 30 s",
        "none lost, none with two outcomes, no tool run without its claim",
    ),
    "U": (
        "1,000 notifications, every tenth of a command nobody knows",
        "the others as fast as without them (+10 %, and what the claims of the unknown ones cost), each unknown one "
        "asked 6 times at most, then a dead letter",
    ),
    "D": (
        "two workers are given the same command (the Python plane under contention)",
        "the first call.done counts, and moves the execution once; the loser can be counted",
    ),
    "L": (
        "storms: what a worker with 16 slots logs in a minute of trouble",
        "a line at once and one a minute for each cause, whatever the number of commands; the ends of commands aside",
    ),
    "S": (
        "100,000 commands; two hours of mixed kinds at half load, in parts",
        "less than 5 MB more memory after warm-up, descriptors and tasks constant, no child, file or outcome left",
    ),
}
SHORT: Final[dict[str, tuple[str, str]]] = {
    "F1": ("SIGTERM with 50 commands in flight", "none lost, none twice, exit 0 a second after the last"),
    "F2": ("SIGTERM, a command longer than the drain", "returned, exit 4; a peer runs it to its end"),
    "F3": ("a second and a third signal", "the second cancels in 1 s, the third exits at once"),
    "F4": ("SIGKILL, the same WORKER_ID starts again", "runs again within ack_wait + 1 s, reported once"),
    "F5": ("SIGKILL, the others have another id", "never acknowledged without an outcome"),
    "F6": ("nats-server restarts under load", "connected in 2 s, at work 1 s later, none lost"),
    "F7": ("NATS does not answer", "found within two pings, not ready, back within 2 s"),
    "F8": ("the durable is deleted", "found in 1 s or at the next pull, made again"),
    "F9": ("stream purged or deleted, leaders change", "no crash, none lost, pulling again"),
    "F10": ("a dead peer holds all of max_ack_pending", "a gauge and a warning; goes on within ack_wait + 1 s"),
    "F11": ("the ack is lost", "acknowledged at the next delivery, not run again"),
    "F12": ("the worker is stopped (SIGSTOP)", "reports nothing that is another's"),
    "F13": ("the event loop is blocked for 10 s", "no second delivery; liveness 503 after 5 s"),
    "F14": ("the control plane answers 503, 429, 500", "two requests a second at most, all reported after"),
    "F15": ("the control plane hangs, answers are lost", "one terminal row for each command"),
    "F16": ("the control plane is down at SIGTERM", "never acknowledged before the outcome is accepted"),
    "F17": ("poison messages", "a dead letter with its reason; the worker goes on"),
    "F18": ("1,000 commands whose claim always fails", "others are served at once; five tries a second"),
    "F19": ("tools that do not end", "killed within timeout + 1 s, slot free, no zombie"),
    "F20": ("tools with grandchildren, 1 GB of output", "all killed, output cut, 32 MB more memory at most"),
    "F21": ("a tool runs out of memory", "the worker goes on, the event names memory"),
    "F22": ("the clock is wrong, or jumps an hour, either way", "the plane's time is what counts"),
    "F23": ("names do not resolve, certificates change", "connected again without a restart"),
    "F24": ("steady load of 200 commands/s", "memory below 1 MB/h, descriptors and tasks constant"),
    "F25": ("random schedules of the above", "the invariant holds on every seed"),
    "F26": ("what KEDA reads during long runs", "lag at least what is in flight, 0 only when idle"),
    "F27": ("two workers race for every command", "each runs once; the refused path below 2 ms (p99)"),
    "F28": ("the Rust engine is absent, or panics", "equal results in Python; an exception, no abort"),
    "K": ("three workers, one killed every 2 s", "none lost, none with two outcomes"),
    "U": ("every tenth command is unknown", "the others as fast; six tries, then a dead letter"),
    "D": ("two workers are given the same command", "the first outcome counts, once"),
    "L": ("storms of log lines", "a line a minute for each cause, with a count"),
    "S": ("100,000 commands, two hours of mixed kinds", "less than 5 MB more memory, nothing left behind"),
}
"""The same in a line each: what a reader asks for, and what is kept."""
POINTERS: Final[dict[str, tuple[str, ...]]] = {
    "F25": ("tests/simulate",),
    "F28": ("tests/engine/test_agreement.py", "tests/engine/test_selection.py", "tests/fuzz/differential.py"),
}
"""Faults whose tests are not in this directory."""


@dataclass(frozen=True)
class Figure:
    """One measured figure. `form`: short (make faults) or long (make soak); `bound` is what the test asserted."""

    fault: str
    what: str
    value: float
    unit: str
    bound: str
    where: str
    form: str
    date: str = ""
    machine: str = ""


def machine_class() -> str:
    """Cores, memory, system, interpreter: no name of a machine."""
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    interpreter = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{cores} cores, {pages / 2**30:.0f} GB, {platform.system()} {platform.machine()}, {interpreter}"


def load() -> list[Figure]:
    return [Figure(**row) for row in json.loads(FIGURES_FILE.read_text(encoding="utf-8"))]


def merge(old: Sequence[Figure], new: Sequence[Figure]) -> list[Figure]:
    """The figures of a run replace those of the same tests and form; a test that did not run keeps its last ones."""
    today, here = datetime.datetime.now(datetime.timezone.utc).date().isoformat(), machine_class()
    ran = {(one.where, one.form) for one in new}
    kept = [one for one in old if (one.where, one.form) not in ran]
    dated = [Figure(**{**asdict(one), "date": today, "machine": here}) for one in new]
    order = list(FAULTS)
    return sorted([*kept, *dated], key=lambda one: (order.index(one.fault), one.form != "short"))


def is_there(where: str) -> bool:
    """Whether the test of a figure still exists."""
    file, _, name = where.partition("::")
    path = FIGURES_FILE.with_name(file)
    return path.exists() and f"def {name}(" in path.read_text(encoding="utf-8")


def save(new: Sequence[Figure]) -> None:
    """Write the figures and the document; figures of tests that are gone are left out."""
    rows: list[dict[str, Any]] = [asdict(one) for one in merge(load(), new) if is_there(one.where)]
    FIGURES_FILE.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write()


def write() -> None:
    """Both pages, from the stored figures."""
    OVERVIEW.write_text(overview(), encoding="utf-8")
    DOCUMENT.write_text(document(load()), encoding="utf-8")


_OVERVIEW: Final = """# Reliability: what happens when something fails

No outcome is lost. A message is acknowledged only after the control plane has accepted its outcome, and is delivered
again until then. `tests/faults` causes each fault of the table. Each name leads to the whole promise, what was
measured, and the tests.

[delivery.md](delivery.md) says what becomes of a message, case by case. [runbook.md](runbook.md) says what to do.

| fault | what happens | what is promised |
|---|---|---|
"""
_HEAD: Final = """# Reliability: every figure

Look up here what was measured for a fault; [reliability.md](reliability.md) has a line for each. Everything on this
page is made by `make faults`, and by `make soak` for the rows marked *long*.

* Each figure was held against its bound in the run that it comes from. A run that breaks a bound writes nothing.
* The runs use a real nats-server, worker processes and the development control plane.
* After each test that issues commands, but for L, there is one outcome for each (D: for each claim). No tool ran
  without its claim, nothing is left unacknowledged, and no child process stays.
* F19, F20, F24, S and U count tasks and descriptors, too.
"""


def overview() -> str:
    """The page with a line for each fault. The links stand below the table, so that it fits a terminal."""
    rows = [f"| [{name}] | {fault} | {kept} |" for name, (fault, kept) in SHORT.items()]
    links = [f"[{name}]: {DOCUMENT.name}#{name.lower()}" for name in SHORT]
    return _OVERVIEW + "\n".join([*rows, "", *links]) + "\n"


def document(figures: Sequence[Figure]) -> str:
    """The page with a section for each fault: the promise in full, its figures, its tests."""
    parts = [_HEAD]
    for name, (title, promise) in FAULTS.items():
        found = [one for one in figures if one.fault == name]
        said = textwrap.fill(f"**{title}**: {promise}.", 120, break_long_words=False)
        parts.append(f"\n## {name}\n\n{said}\n\n{_table(found)}")
        where = dict.fromkeys([*(one.where for one in found), *POINTERS.get(name, ())])
        parts.append("\nTests:\n\n" + "".join(f"* `{one}`\n" for one in where))
    runs = dict.fromkeys(f"* {one.form} form: {one.date}, {one.machine}\n" for one in figures)
    return "".join(parts) + "\n## Runs\n\n" + "".join(runs)


def _table(found: Sequence[Figure]) -> str:
    if not found:
        return "Measured in its own tests.\n"
    return "| what | measured | bound |\n|---|---|---|\n" + "".join(_row(one) + "\n" for one in found)


def _row(one: Figure) -> str:
    value = f"{one.value:,.0f}" if abs(one.value) >= 100 or one.value == int(one.value) else f"{one.value:.3g}"
    long = " *long*" if one.form == "long" else ""
    return f"| {one.what}{long} | {f'{value} {one.unit}'.strip()} | {one.bound} |"


if __name__ == "__main__":
    write()
