"""docs/scale.md from scale.json: what one command and one worker cost, and what a pool of many makes of that."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from performance_page import measured_on

__all__ = ["DOCUMENT", "FIGURES", "document", "keep", "load"]

FIGURES: Final = Path(__file__).with_name("scale.json")
DOCUMENT: Final = Path(__file__).resolve().parents[1] / "docs/scale.md"
POOLS: Final = (10, 100, 1000)
COMMAND_S: Final = 10.0
"""How long a command of the model runs."""
ACK_PENDING: Final = 1000
"""JetStream's default, which a durable gets that the worker makes."""
CORE_US: Final = 1e6

INTRODUCTION: Final = """\
# Scale

How many workers one durable, one plane and one database carry, on paper: what was measured for one command and one
worker, times as many. Written by `make scale` (`benches/bench_scale.py`, `benches/bench_plane.py`); other machines
give other times, the counts stay. Measured on {when}, load average before the run {load:.2g}:
{machine}.
"""

SHOWN: Final = """\
## What was shown

| | figure | by |
| --- | --- | --- |
| {commands:,} no-op commands, {workers} worker processes | {ended:,} ended, {ended_twice} twice, {claims:,} claims | `make scale` |
| share of one worker, mean {mean:,.0f} | {least:,} to {most:,}: {beside:.0%} beside the mean at most | `make scale` |
| rate, everything on this one machine | {commands_per_s:,.0f} commands/s | `make scale` |
| KEDA's lag, 10 commands of which 4 run | 10 until they end, 0 when idle | [F26](reliability-figures.md#f26) |
| NATS cluster of three, the leader's node killed under load | none lost | [F9](reliability-figures.md#f9) |

`make scale` fails when a command is lost or ends twice, or a share is more than 20 % beside the mean. KEDA's lag is
pending + ack pending of `/jsz`: a command counts until its worker has acknowledged it, so that no pod that works is
taken for idle.
"""  # noqa: E501 - a row of a table is one line

NATS_UNITS: Final = {
    "pull": "pull request that finds nothing, with its answer",
    "published": "command published",
    "delivered": "command delivered, with its share of a pull request for 16",
    "in_progress": "in progress",
    "ack": "ack",
}
PLANE_UNITS: Final = {
    "begun": "execution begun, its first command issued",
    "claim": "claim",
    "batch of 2": "batch of the events of a start and a result",
    "command.completed": "`command.completed`, in which the next command is issued",
    "heartbeat": "heartbeat of a worker",
    "question": "question whether an execution was cancelled",
}
UNITS: Final = """\
## What one costs

Messages are those of NATS in both directions, bytes those of their headers and payloads, and of HTTP requests and
answers with their heads.

{traffic}
A no-op command is a delivery, an acknowledgement and {pulls:.2f} of a pull request; a claim ({claim:,.0f} bytes) and
a batch ({batch:,.0f}). An idle worker pulls every 30 s, hears from NATS every 5 s, reads the durable's lag every 5 s,
and reports to the plane every 15 s. A running command is reported to NATS every 10 s, and asks the plane
every 5 s whether its execution was cancelled.

{cpu}
The same of NATS, for one message of a kind. *Together*: 500 at once, as on a busy server. *Alone*: one every 0.5 ms;
the server sleeps in between, and most of it is waking up.

{nats}
And of the Rust plane with its Postgres, asked one by one with the worker's own requests; what they take for nothing
({rest_us:,.0f} µs a second) is taken off.

{plane}"""

POOL: Final = """\
## What a pool costs

Workers of {slots} slots. Idle: there is nothing to do. Full: every slot has a command that runs for {command_s:g} s.
Cores are CPU seconds a second: of NATS, of the Rust plane with its Postgres (of an idle worker its heartbeats), of
the workers. NATS at idle is at most that: what the server takes for itself is in it.
"""

WALLS: Final = """\
## Where the first wall is, and what moves it

1. **The limits of the durable.** `max_ack_pending` is {ack_pending:,} where nobody says otherwise: {full_pool} full
   workers of {slots} slots; all others stand idle (`noetl_worker_nats_consumer_ack_pending_full` is 1, and it is
   logged). Set `NOETL_WORKER_MAX_ACK_PENDING` above workers x slots and run `noetl-worker nats ensure --apply`; the
   chart sets twice the slots of `keda.maxReplicas` pods, at least 1,000. One
   durable keeps {open_pulls} pull requests open: of {sent:,} that were sent, {refused} were refused. Of more idle
   workers than that some are refused, and ask again within 5 s. A pool of its own (`NATS_FILTER_SUBJECT`,
   `NATS_CONSUMER`) has its own durable.
2. **The plane and its Postgres.** A command takes {plane_ms:.1f} ms of their CPU, {plane_times:.0f} times what it
   takes the worker: {plane_rate:,.0f} commands a second for a core, whoever runs them. More workers do not move that.
   More replicas of the plane and a larger Postgres do; so do fewer and longer commands.
3. **Questions whether an execution was cancelled** take {check_us:.0f} µs there; those of {check_even:,.0f} running
   commands are a core. `NOETL_WORKER_CANCELLATION_POLL_S` makes them rarer.
4. **NATS** is last: {nats_us:.0f} µs a command, {nats_rate:,.0f} commands a second for a core, with one server and a
   stream in memory. A stream on disk with three replicas costs more, and was not measured.

A plane at its wall is kept alive by the gate: when its answers slow down, workers ask less at the same time. The
Python plane was not measured here: it answers a batch before it has worked it off, so its answers do not show its
rate.
"""


def load() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8"))
    return found


def keep(found: Mapping[str, Any]) -> None:
    """Add to the figures, and write the page when all are there."""
    whole = {**(load() if FIGURES.exists() else {}), **_rounded(found)}
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
    walls = WALLS.format(
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
    return "\n".join([introduction, shown, _units(found), pool, _pools(found), walls])


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
    cpu = [
        ["NATS", f"{load['nats_cpu_us']:,.0f}"],
        [f"worker ({load['workers']} processes on this machine)", f"{load['worker_cpu_us']:,.0f}"],
        [f"Rust plane {plane['version']}, a step of an execution of {plane['steps']}", f"{plane['plane_cpu_us']:,.0f}"],
        ["its Postgres (without fsync)", f"{plane['postgres_cpu_us']:,.0f}"],
    ]
    return UNITS.format(
        traffic=_table(["", "NATS messages", "bytes", "plane requests", "bytes"], lines),
        pulls=load["nats_messages"] - 2,
        **{name: load["request_bytes"][name] for name in ("claim", "batch")},
        cpu=_table(["CPU of one no-op command", "µs"], cpu),
        nats=_table(
            ["CPU of NATS for one", "together, µs", "alone, µs"],
            (
                [what, *(f"{found['nats_units'][how][name]:,.0f}" for how in ("together", "alone"))]
                for name, what in NATS_UNITS.items()
            ),
        ),
        rest_us=plane["units"]["rest_us_a_second"],
        plane=_table(
            ["CPU of plane and Postgres for one", "µs"],
            ([what, f"{plane['units'][name]:,.0f}"] for name, what in PLANE_UNITS.items()),
        ),
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


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _rounded(value: Any) -> Any:
    """Four digits say all that such a measurement knows; counts stay."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: _rounded(one) for key, one in value.items()}
    return value
