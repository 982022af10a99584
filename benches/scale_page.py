"""docs/scale.md from scale.json: what one command and one worker cost, and what a pool of many makes of that."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from performance_page import measured_on, rounded, table

FIGURES: Final = Path(__file__).with_name("scale.json")
DOCUMENT: Final = Path(__file__).resolve().parents[1] / "docs/scale.md"
POOLS: Final = (10, 1000)
COMMAND_S: Final = 10.0
"""How long a command of the model runs."""
ACK_PENDING: Final = 1000
"""JetStream's default, which a durable gets that the worker makes."""
CORE_US: Final = 1e6

INTRODUCTION: Final = """\
# Scale

How many workers a durable, a plane and a database carry: what one command and one worker cost, multiplied. Written by
`make scale`; other machines give other times, the counts stay.

Measured on {when}, load average {load:.2g}: {machine}.
"""

SHOWN: Final = """\
## What was shown

| | figure |
| --- | --- |
| {commands:,} no-op commands, {workers} worker processes | {ended:,} ended, {ended_twice} twice, {claims:,} claims |
| share of one worker, mean {mean:,.0f} | {least:,} to {most:,}: {beside:.0%} off at most (20% fails) |
| rate, everything on this machine | {commands_per_s:,.0f} commands/s |
| KEDA's lag, 10 commands of which 4 run | 10 until they end, 0 when idle: [F26](reliability-figures.md#f26) |
| NATS cluster of three, the leader killed under load | none lost: [F9](reliability-figures.md#f9) |

KEDA's lag is pending + ack pending: a command counts until it is acknowledged, so no working pod is stopped.
"""

NATS_UNITS: Final = {
    "pull": "empty pull request and its answer",
    "published": "command published",
    "delivered": "command delivered, with 1/16 of a pull request",
    "in_progress": "in progress",
    "ack": "ack",
}
PLANE_UNITS: Final = {
    "begun": "execution begun",
    "claim": "claim",
    "batch of 2": "batch of start and result",
    "command.completed": "`command.completed`, next command issued",
    "heartbeat": "heartbeat",
    "question": "question about cancellation",
}
UNITS: Final = """\
## What one costs

Bytes are of both directions, with heads.

{traffic}
A no-op command is a delivery, an ack, {pulls:.2f} pull requests, a claim ({claim:,.0f} bytes) and a batch
({batch:,.0f}). An idle worker pulls every 30 s, reads the lag every 5 s and reports to the plane every 15 s. A running
command reports to NATS every 10 s and asks every 5 s whether its execution was cancelled.

CPU of one no-op command: {cpu}.

*Together*: 500 at once. *Alone*: one every 0.5 ms, most of it the server's waking up.

{nats}
CPU of the Rust plane with its Postgres, above what they take idle ({rest_us:,.0f} µs a second):
{plane}.
"""

POOL: Final = """\
## What a pool costs

Workers of {slots} slots, idle, or full of commands that run for {command_s:g} s. Cores are CPU seconds a second;
*plane* is the Rust plane with its Postgres.
"""

LIMITS: Final = """\
## Which limit comes first

1. **The durable.** `max_ack_pending` is {ack_pending:,} by default: {full_pool} full workers of {slots} slots. All
   others then wait (`noetl_worker_nats_consumer_ack_pending_full` is 1). Set `NOETL_WORKER_MAX_ACK_PENDING` above
   workers x slots and run `noetl-worker nats ensure --apply`; the chart sets it. A durable holds {open_pulls} pull
   requests: of {sent:,} sent, {refused} were refused and tried again within 5 s. A pool of its own
   (`NATS_FILTER_SUBJECT`, `NATS_CONSUMER`) has its own durable.
2. **The plane and its Postgres.** A command takes {plane_ms:.1f} ms of their CPU, {plane_times:.0f} times the worker's:
   {plane_rate:,.0f} commands a second for a core. More workers do not help; more replicas, a larger Postgres, or fewer
   and longer commands do.
3. **Questions about cancellation**, one in 5 s of each command, take {check_us:.0f} µs: {check_even:,.0f} running
   commands fill a core.
4. **NATS**: {nats_us:.0f} µs a command, {nats_rate:,.0f} commands a second for a core, with one server and a stream in
   memory. A stream on disk with replicas costs more and was not measured.

When a plane slows down, workers ask less (its gate). The Python plane was not measured: it answers a batch before it
processes it.
"""


def load() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8"))
    return found


def keep(found: Mapping[str, Any]) -> None:
    """Add to the figures, and write the page when all are there."""
    whole = {**(load() if FIGURES.exists() else {}), **rounded(found)}
    FIGURES.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    if "real_plane" in whole and "load" in whole:
        DOCUMENT.write_text(document(whole), encoding="utf-8")


def document(found: Mapping[str, Any]) -> str:
    load, plane = found["load"], found["real_plane"]
    introduction = INTRODUCTION.format(
        when=measured_on(found), load=found["load_average_before"], machine=found["machine"]
    )
    shown = SHOWN.format(**load, mean=load["commands"] / load["workers"], beside=load["beside_the_mean"])
    plane_us = plane["plane_cpu_us"] + plane["postgres_cpu_us"]
    limits = LIMITS.format(
        ack_pending=ACK_PENDING,
        full_pool=ACK_PENDING // found["slots"],
        slots=found["slots"],
        open_pulls=found["open_pulls"]["open"],
        sent=found["open_pulls"]["sent"],
        refused=found["open_pulls"]["refused"],
        plane_ms=plane_us / 1000,
        plane_times=plane_us / load["worker_cpu_us"],
        plane_rate=CORE_US / plane_us,
        check_us=plane["units"]["question"],
        check_even=CORE_US / (plane["units"]["question"] * held_rates(found)["requests"]),
        nats_us=load["nats_cpu_us"],
        nats_rate=CORE_US / load["nats_cpu_us"],
    )
    pool = POOL.format(slots=found["slots"], command_s=COMMAND_S)
    return "\n".join([introduction, shown, _units(found), pool, _pools(found), limits])


def held_rates(found: Mapping[str, Any]) -> dict[str, float]:
    """A second and running command, without what its worker costs anyway."""
    held, idle, slots = found["held"], found["idle"], found["held_slots"]
    return {
        "messages": held["in_progress"],
        "message_bytes": held["in_progress_bytes"],
        "requests": held["requests"]["probe"] - idle["requests"]["probe"] / slots,
        "request_bytes": held["request_bytes"]["probe"] - idle["request_bytes"]["probe"] / slots,
    }


def _totals(one: Mapping[str, Any]) -> dict[str, float]:
    return {
        "messages": one["nats_messages"],
        "message_bytes": one["nats_bytes"],
        "requests": sum(one["requests"].values()),
        "request_bytes": sum(one["request_bytes"].values()),
    }


def _units(found: Mapping[str, Any]) -> str:
    load, plane = found["load"], found["real_plane"]
    rows = [
        ("an idle worker, a minute", {name: value * 60 for name, value in _totals(found["idle"]).items()}),
        ("a running command, a minute", {name: value * 60 for name, value in held_rates(found).items()}),
        ("a no-op command", _totals(load)),
    ]
    lines = [
        [what, *(f"{one[name]:{form}}" for name, form in zip(one, (".3g", ",.0f", ".3g", ",.0f"), strict=True))]
        for what, one in rows
    ]
    cpu = {
        "NATS": load["nats_cpu_us"],
        f"worker ({load['workers']} processes on this machine)": load["worker_cpu_us"],
        f"Rust plane {plane['version']} (a step of {plane['steps']})": plane["plane_cpu_us"],
        "its Postgres (without fsync)": plane["postgres_cpu_us"],
    }
    return UNITS.format(
        traffic=_table(["", "NATS messages", "bytes", "plane requests", "bytes"], lines),
        pulls=load["nats_messages"] - 2,
        **{name: load["request_bytes"][name] for name in ("claim", "batch")},
        cpu=",\n".join(f"{what} {us:,.0f} µs" for what, us in cpu.items()),
        nats=_table(
            ["CPU of NATS for one", "together, µs", "alone, µs"],
            (
                [what, *(f"{found['nats_units'][how][name]:,.0f}" for how in ("together", "alone"))]
                for name, what in NATS_UNITS.items()
            ),
        ),
        rest_us=plane["units"]["rest_us_a_second"],
        plane=",\n".join(f"{what} {plane['units'][name]:,.0f} µs" for name, what in PLANE_UNITS.items()),
    )


def _pools(found: Mapping[str, Any]) -> str:
    idle, held, one = _totals(found["idle"]), held_rates(found), _totals(found["load"])
    load, plane = found["load"], found["real_plane"]
    lines = []
    for workers in POOLS:
        running = workers * found["slots"]
        per_s = running / COMMAND_S
        full = {name: workers * idle[name] + running * held[name] + per_s * one[name] for name in idle}
        plane_s = per_s * (plane["plane_cpu_us"] + plane["postgres_cpu_us"])
        plane_s += running * held["requests"] * plane["units"]["question"]
        beats_s = workers * found["idle"]["requests"]["pool"] * plane["units"]["heartbeat"]
        lines += [
            [
                f"{workers:,} idle",
                "0",
                *_traffic({name: workers * value for name, value in idle.items()}),
                f"{workers * found['idle']['nats_cpu_us'] / CORE_US:.2g}",
                f"{beats_s / CORE_US:.2g}",
                f"{workers * found['idle']['worker_cpu_us'] / CORE_US:.2g}",
            ],
            [
                f"{workers:,} full",
                f"{per_s:,.0f}",
                *_traffic(full),
                f"{(workers * found['idle']['nats_cpu_us'] + per_s * load['nats_cpu_us']) / CORE_US:.2g}",
                f"{(plane_s + beats_s) / CORE_US:.2g}",
                f"{(workers * found['idle']['worker_cpu_us'] + per_s * load['worker_cpu_us']) / CORE_US:.2g}",
            ],
        ]
    names = ["workers", "commands/s", "NATS messages/s", "kB/s", "plane requests/s", "kB/s"]
    return _table([*names, "cores: NATS", "plane", "workers"], lines)


def _traffic(one: Mapping[str, float]) -> list[str]:
    return [
        f"{one['messages']:,.0f}",
        f"{one['message_bytes'] / 1000:,.0f}",
        f"{one['requests']:,.0f}",
        f"{one['request_bytes'] / 1000:,.0f}",
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"{line}\n" for line in table(head, rows))
