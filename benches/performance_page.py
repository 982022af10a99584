"""docs/performance.md, made of performance.json: nothing on that page is written by hand."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
WORKER: Final = "performance"
OTHERS: Final = ("peers", "kinds", "http", "bridge", "packages", "dev")
"""Runs of their own, each with a file of figures."""
DOCUMENT: Final = Path(__file__).resolve().parents[1] / "docs" / "performance.md"

_HEAD: Final = """# Performance

Written by `make performance`. A nats-server, a stub of the Python plane and the worker share one machine: rates are of
all together, CPU (user and system) is the worker's with all it starts. The *yardstick* (`benches/yardstick.py`) is the
least that a Python worker can do: pull, claim, one batch of five events, ack, without checks, tools, keepalive or
retries. Both take turns; the best rate and the least CPU of all rounds are shown. Other machines give other times. Only
counts, and the CPU in terms of the yardstick's, are held by a gate (`make bench`, `benches/gates.toml`).
"""
_COUNTS: Final = {
    "requests": "requests to the plane",
    "tasks": "asyncio tasks",
    "futures": "futures",
    "callbacks": "callbacks of the loop",
    "calls": "Python and builtin calls",
}
_GROWTH: Final = {
    "commands_per_s": "commands/s",
    "cpu_us": "CPU, µs",
    "requests_per_command": "requests",
    "rss_mb": "RSS, MB",
}
_BESIDE: Final = ("yardstick's CPU", "ratio")
_PACKAGES: Final = {
    "transport": "two HTTP/1.1 requests: heads, deadlines, sizes, connections",
    "claim": "the claim's answer, its templates, references and secrets",
    "command": "references, input, one tool, cases",
    "report": "the result fitted and redacted, events, their answer",
    "outbox": "the events as a set, until they are accepted",
    "deliveries": "the deliveries that the worker holds",
    "recovery": "batches remembered",
    "plane": "the gate, the events in its dialect",
    "delivery": "decoding, in flight and finished, keepalive, settlement",
    "python": "standard library, constructors of dataclasses",
    "nats": "nats-py",
    "tools": "the tool's config, limits, run",
    "jetstream": "pulls, metadata of a message",
    "json_text": "JSON read and written",
    "observability": "metrics",
    "execution": "the stages in their order",
    "stages": "where each command is, for a stop",
    "secrets": "which secrets a command was handed",
    "slots": "how many run",
}
_PEERS_NOTE: Final = (
    "FastStream and taskiq do what the yardstick does, with its HTTP client and on uvloop (`benches/peers/`); the rest "
    "is how they receive, hand over and acknowledge a message. They have no claims, renewed ack_wait, outbox, limits "
    "or redaction. Without compiled packages there is the Python engine, asyncio's loop, the standard library's JSON "
    "and h11."
)
_CALM: Final = 2.0
"""Load average of a machine that has little else to do."""
_PUBLISHED_S: Final = {
    "Hatchet": 1.22,
    "Windmill": 2.09,
    "Temporal": 2.97,
    "Windmill, another mode": 4.38,
    "Prefect": 4.87,
}
"""Seconds that Windmill's documentation gives for a flow of 40 short steps, on its own machine."""
_KINDS_NOTE: Final = (
    "`http` is a GET of 15 bytes, in `http, 400/s` so many a second, where hardly one waits for a slot; `postgres` and "
    "`duckdb` are a SELECT 1, `task_sequence` two noops, `python` one line, "
    "`shell` is `true`; `http, 1 MB` and `http, 10 MB` a list of tasks that gets a text of JSON of that size and ends "
    "with a noop. Memory is the proportional set size of all processes. The published worker starts an interpreter for "
    "each `python` command, and confines none."
)
_HTTP_NOTE: Final = (
    "The bare loop has what the kind needs of a client: connections kept, addresses checked, a deadline, redirects "
    "followed by us, the body within a limit. The kind adds its config, the limits of a tool, the answer parsed, "
    "retries and pages, its result. `make bench` holds it to 1.6 times the bare loop."
)
_LOOPS: Final = {
    "bare": "the kind's client in a bare loop",
    "kind": "the kind `http`",
    "httpx_one_each": "httpx, a client for each of those at work",
    "httpx_one_for_all": "httpx, one client for all",
}
_HTTP_PARTS: Final = {
    "the exchange: httpx, h11": ("httpx", "httpcore", "h11", "anyio", "sniffio"),
    "connections kept, redirects, the socket": (
        "tools/http/client",
        "tools/http/client_transport",
        "tools/http/connection",
    ),
    "addresses checked": ("tools/http/egress", "tools/http/egress_backend", "tools/http/secret_hosts"),
    "the request built": ("tools/http/request",),
    "the answer read, unpacked, parsed": ("tools/http/answer", "tools/http/charsets"),
    "deadline, retries, pages, credentials": (
        "tools/http/http",
        "tools/http/call",
        "tools/http/retry",
        "tools/http/auth",
        "tools/http/tokens",
    ),
    "a tool's config, limits, run": ("tools",),
    "the result fitted and redacted, events": ("report",),
    "the plane: events in its form, the gate, requests": ("plane", "transport", "outbox", "json_text"),
    "the standard library": ("python",),
}
_PYTHON_FORMS: Final = {
    "own": "the worker's own, no packages",
    "own, packages": "the worker's own, a package",
    "another": "another, no packages",
    "another, packages": "another, a package",
}
_REMEMBERED: Final = """A worker remembers the
commands that it finished for two to four ack_waits, to answer repeated messages without a claim: 110 bytes each, 16 to
32 MB at 2,400 commands/s and an ack_wait of 30 s. These runs are too short to show it."""


def load() -> dict[str, Any]:
    """Of the worker, and under a name of its own each run that is not of its figures."""
    found = {name: json.loads((HERE / f"{name}.json").read_text(encoding="utf-8")) for name in (WORKER, *OTHERS)}
    return {**found.pop(WORKER), **found}


def rounded(value: Any) -> Any:
    """Four digits say all that such a measurement knows; counts stay."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list | tuple) else value


def keep(name: str, found: Mapping[str, Any]) -> None:
    """Write the figures of a run, and the page with them."""
    (HERE / f"{name}.json").write_text(json.dumps(rounded(found), indent=1) + "\n", encoding="utf-8")
    write()


def write() -> None:
    DOCUMENT.write_text(document(load()), encoding="utf-8")


def document(found: Mapping[str, Any]) -> str:
    tables = found["tables"]
    parts = [
        _HEAD,
        *_where(found),
        *_noop(tables, found["counts"]),
        *_rates(tables["rate"]),
        *_recorded(tables["recorded"][0], found["counts"]["recorded"]),
        *_delays(tables["delay"]),
        *_processes(tables["processes"]),
        *_growth(
            "## By commands in flight",
            "slots",
            tables["in_flight"],
            lambda row: f"{row['slots']}",
            note=_REMEMBERED,
        ),
        *_growth("## By size of the context", "context", tables["context"], lambda row: _bytes(row["context_bytes"])),
        *_growth(
            "## By size of the result",
            "result",
            tables["result"],
            lambda row: _bytes(row["result_bytes"]),
            "A noop's result comes with its claim, which grows too.",
        ),
        *_kinds(tables["kinds"]),
        *_python_forms(found["packages"]),
        *_traces(found["traces"]),
        *_peers(found["peers"]),
        *_by_kind(found["kinds"]),
        *_http(found["http"]),
        *_bridge(found["bridge"]),
        *_dev(found["dev"]),
    ]
    return "\n".join(map(_fitted, parts))


def _fitted(part: str) -> str:
    """A paragraph with figures in it, no wider than a terminal."""
    return part if max(map(len, part.split("\n"))) <= 120 else textwrap.fill(part, 120, break_on_hyphens=False)


def measured_on(found: Mapping[str, Any]) -> str:
    """The date, and the commit if the run knew it."""
    return f"{found['date']} at commit `{found['commit']}`" if found.get("commit") else str(found["date"])


def _run_of_its_own(found: Mapping[str, Any]) -> str:
    load = _number(found["load_average_before"])
    return f"In a run of its own ({measured_on(found)}; load average before it {load})"


def _where(found: Mapping[str, Any]) -> list[str]:
    load = _number(found["load_average_before"])
    return [f"Measured on {measured_on(found)}: {found['machine']}; load average before the run {load}.", ""]


def _noop(tables: Mapping[str, Any], counts: Mapping[str, Mapping[str, float]]) -> list[str]:
    row = tables["noop"][0]
    worker, yardstick = row["worker"], row["yardstick"]
    sides = [
        ("CPU, µs", worker["cpu_us"], yardstick["cpu_us"]),
        *((label, counts["worker"][name], counts["yardstick"][name]) for name, label in _COUNTS.items()),
        ("commands/s", worker["commands_per_s"], yardstick["commands_per_s"]),
        ("memory (RSS), MB", worker["rss_mb"], yardstick["rss_mb"]),
    ]
    scenario = row["scenario"]
    start = worker["tool_start_ms"]
    first_claims = [one["worker"]["first_claim_ms"] for rows in tables.values() for one in rows]
    return [
        "## One no-op command",
        "",
        f"{scenario['slots']} slots, the plane answers at once. Counts are per command, with one batch of events.",
        "",
        *table(["", "worker", "yardstick"], ([name, _number(a), _number(b)] for name, a, b in sides)),
        "",
        f"CPU in terms of the yardstick's: **{_number(row['cpu_to_yardstick'])}**. Idle, the worker takes "
        f"{_number(worker['idle_cpu_percent'])} % of a core. Its first claim comes "
        f"{_number(min(first_claims))} ms after its start, the best of {len(first_claims)}.",
        "",
        "From notification to tool start (a plug-in's), at half of the greatest rate "
        f"({_number(start['commands_per_s'])} commands/s): {_quantiles(start)}. The yardstick's, to the claim's "
        f"answer: {_quantiles(yardstick['tool_start_ms'])}. Of each the round with the least p99.",
        "",
        *_packages(counts["worker"]["calls_by_part"], counts["yardstick"]["calls"]),
    ]


def _rates(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    def row_of(row: Mapping[str, Any]) -> list[str]:
        worker, yardstick = row["worker"]["tool_start_ms"], row["yardstick"]["tool_start_ms"]
        return [
            _number(worker["commands_per_s"]),
            _number(worker["cpu_us"]),
            f"{worker['commands_per_s'] * worker['cpu_us'] / 1e4:.0f} %",
            _quantiles(worker),
            _number(yardstick["cpu_us"]),
            _quantiles(yardstick),
            _number(worker["cpu_us"] / yardstick["cpu_us"]),
        ]

    return [
        "## By rate",
        "",
        "No-op commands, 128 slots, the plane answers at once. A command that comes alone costs more, the yardstick "
        "too: each message wakes a process with cold caches.",
        "",
        *table(
            ["commands/s", "CPU, µs", "of a core", "to the start", "yardstick's CPU", "yardstick's start", "ratio"],
            map(row_of, rows),
        ),
        "",
    ]


def _packages(calls: Mapping[str, float], of_yardstick: float) -> list[str]:
    ordered = sorted(calls, key=lambda name: -calls[name])
    rows = [[f"`{name}`", _PACKAGES[name], _number(calls[name])] for name in ordered if name in _PACKAGES]
    rest = sum(calls[name] for name in ordered if name not in _PACKAGES)
    return [
        "Where the calls are made, those of builtins by their caller:",
        "",
        *table(["package", "what for", "calls"], [*rows, ["others", "", _number(rest)]]),
        "",
        f"The yardstick makes {_number(of_yardstick)}. The others serve [delivery](delivery.md) and "
        "[security](security.md), and hold for a no-op too.",
        "",
    ]


def _recorded(row: Mapping[str, Any], calls: float) -> list[str]:
    worker = row["worker"]
    return [
        "## Claims of a real plane",
        "",
        "Claims that a Python plane gave to playbooks of its users, 2 kB on average; three of four have an address, a "
        "key, a password or a template, which the worker looks for. Each with a noop for its tool: "
        f"**{_number(worker['cpu_us'])} µs** of CPU, {_number(calls)} calls, "
        f"{_number(worker['commands_per_s'])} commands/s; {_number(row['cpu_to_yardstick'])} times the yardstick's "
        "CPU.",
        "",
    ]


def _delays(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        "## By the plane's time for an answer",
        "",
        f"No-op commands, {rows[0]['scenario']['slots']} slots.",
        "",
        *table(
            ["answer after", "commands/s", "yardstick's", "CPU, µs", "yardstick's", "ratio"],
            (
                [
                    f"{_number(row['scenario']['delay_ms'])} ms",
                    *(_number(row[side]["commands_per_s"]) for side in ("worker", "yardstick")),
                    *(_number(row[side]["cpu_us"]) for side in ("worker", "yardstick")),
                    _number(row["cpu_to_yardstick"]),
                ]
                for row in rows
            ),
        ),
        "",
    ]


def _processes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    one, two = (row["worker"] for row in rows)
    faster, dearer = (two[name] / one[name] for name in ("commands_per_s", "cpu_us"))
    scenario = rows[0]["scenario"]
    return [
        "## By processes",
        "",
        f"`run --processes`, no-op commands, {scenario['slots']} slots each, an answer after "
        f"{_number(scenario['delay_ms'])} ms. Two do **{faster:.2f} x** the commands of one, at {dearer:.2f} x the CPU "
        "for each; RSS counts shared memory twice. Load, NATS and plane have a lower priority.",
        "",
        *table(
            ["processes", "commands/s", "CPU, µs", "RSS, MB"],
            (
                [f"{number}", *(_number(worker[name]) for name in ("commands_per_s", "cpu_us", "rss_mb"))]
                for number, worker in enumerate((one, two), start=1)
            ),
        ),
        "",
    ]


def _traces(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    off, on = (row["worker"]["cpu_us"] for row in rows)
    return [
        "## With traces",
        "",
        f"No-op commands, {rows[0]['scenario']['slots']} slots. A command took "
        f"**{_number(on)} µs** of CPU with traces on, every command sampled out, "
        f"and {_number(off)} µs without: the least of {rows[0]['scenario']['rounds']} runs in turns. The gate counts "
        "calls.",
        "",
    ]


def _peers(found: Mapping[str, Any]) -> list[str]:
    versions = found["versions"]
    named = {
        "worker": "noetl-worker",
        "pure": "noetl-worker without compiled packages",
        "yardstick": "the yardstick",
        "faststream": f"FastStream {versions['faststream']}",
        "taskiq": f"taskiq {versions['taskiq']}, taskiq-nats {versions['taskiq-nats']}",
    }
    columns = {"commands_per_s": "commands/s", "cpu_us": "CPU, µs", "rss_mb": "RSS, MB"}
    noop = found["noop"]
    return [
        "## Beside others",
        "",
        f"In a run of its own ({measured_on(found)}), in turns: no-op commands, {found['slots']} slots, the plane "
        "answers at once.",
        "",
        *table(
            ["", *columns.values()],
            ([named[name], *(_number(noop[name][column]) for column in columns)] for name in named if name in noop),
        ),
        "",
        _PEERS_NOTE,
        "",
    ]


def _dev(found: Mapping[str, Any]) -> list[str]:
    ours = {f"`dev --dialect {name}`": row["seconds"] for name, row in found["dialects"].items()}
    cpu = max(row["cpu_s"] for row in found["dialects"].values())
    return [
        f"## A playbook of {found['steps']} steps",
        "",
        f"{_run_of_its_own(found)}: "
        f"{found['steps']} one-line `python` steps one after another in `noetl-worker dev`, from the start of the "
        f"execution to its end, the best of {found['runs']}. All of `dev`, with its start and NATS, took "
        f"{_number(cpu)} s of CPU. **The other figures were not measured here**: they are those that Windmill's "
        "documentation gives for such a flow, on its machine, of servers with a database.",
        "",
        *table(["", "seconds"], ([name, _number(value)] for name, value in ours.items())),
        "",
        *table(["published by Windmill", "seconds"], ([name, f"{s:.2f}"] for name, s in _PUBLISHED_S.items())),
        "",
    ]


def _by_kind(found: Mapping[str, Any]) -> list[str]:
    is_busy = found["load_average_before"] > _CALM
    busy = " **The machine was busy with other work**: only the sides of one kind can be compared." if is_busy else ""
    named = {
        "worker": "noetl-worker",
        "published": f"the published Rust worker {found['published']}",
    }
    return [
        "## By kind",
        "",
        f"{_run_of_its_own(found)}, "
        f"in turns: {found['slots']} slots, the plane answers after {_number(found['delay_ms'])} ms. "
        f"{_KINDS_NOTE}{busy}",
        "",
        *table(
            ["kind", "", "commands/s", "CPU, ms", "claim to outcome", "memory, MB"],
            (
                [kind, named[name], *_side(sides[name])]
                for kind, sides in found["kinds"].items()
                for name in named
                if name in sides
            ),
        ),
        "",
    ]


def _http(found: Mapping[str, Any]) -> list[str]:
    loops, of_parts = found["loops_us"], found["parts"]
    bare = loops["bare"]
    return [
        "## Where a command of `http` goes",
        "",
        f"{_run_of_its_own(found)}. {_HTTP_NOTE}",
        "",
        *table(
            [f"{found['slots']} at a time, one process", "CPU, µs", "of the bare loop's"],
            ([words, _number(loops[name]), _number(loops[name] / bare)] for name, words in _LOOPS.items()),
        ),
        "",
        f"A command in a worker with {found['slots']} slots, the plane answers after {_number(found['delay_ms'])} ms. "
        "Calls are counted, the CPU is looked at after each four milliseconds of it; the standard library's is its "
        "caller's.",
        "",
        *table(
            ["what for", "calls", "CPU, µs", "a no-op's calls", "a no-op's CPU, µs"],
            _http_parts(of_parts["http"], of_parts["noop"]),
        ),
        "",
    ]


def _bridge(found: Mapping[str, Any]) -> list[str]:
    publish = found["publish"]
    rows = [
        ["bare publishes to JetStream by nats-py, records/s", _number(publish["bare_publishes_a_second"])],
        ["the bridge, records/s", _number(publish["records_a_second"])],
        ["a record at 500/s, from the frame to its acknowledgement", _quantiles(publish["ms_at_500_a_second"])],
        ["memory (RSS) idle, and after the run, MB", " and ".join(map(_number, publish["rss_mb"]))],
    ]
    return [
        "## A bridge",
        "",
        f"{_run_of_its_own(found)}: "
        f"{_number(publish['records'])} records over one connection, {publish['window']} in flight, one process.",
        "",
        *table(["what", "figure"], rows),
        "",
    ]


def _http_parts(http: Mapping[str, Mapping[str, float]], noop: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    def row_of(what_for: str, parts: Iterable[str]) -> list[str]:
        sums = [sum(side[what].get(part, 0.0) for part in parts) for side in (http, noop) for what in ("calls", "cpu")]
        return [what_for, *("–" if value == 0 else _number(value) for value in sums)]

    said = {part for parts in _HTTP_PARTS.values() for part in parts}
    rest = {part for side in (http, noop) for what in side.values() for part in what} - said
    every = {**_HTTP_PARTS, "all else: delivery, claim, input, cases, settlement": rest, "all": said | rest}
    return [row_of(what_for, parts) for what_for, parts in every.items()]


def _side(side: Mapping[str, float]) -> list[str]:
    spans = f"p50 {_number(side['p50_ms'])} ms, p99 {_number(side['p99_ms'])} ms"
    return [_number(side["commands_per_s"]), _number(side["cpu_us"] / 1000), spans, _number(side["pss_mb"])]


def _growth(title: str, column: str, rows: Sequence[Mapping[str, Any]], label: Any, note: str = "") -> list[str]:
    slots = {row["scenario"]["slots"] for row in rows}
    said = f"No-op commands{f', {slots.pop()} slots' if len(slots) == 1 else ''}, the plane answers at once."
    return [
        title,
        "",
        f"{said} {note}".strip(),
        "",
        *table(
            [column, *_GROWTH.values(), *(_BESIDE if "yardstick" in rows[0] else ())],
            (
                [label(row["scenario"]), *(_number(row["worker"][name]) for name in _GROWTH), *_peer_cells(row)]
                for row in rows
            ),
        ),
        "",
    ]


def _peer_cells(row: Mapping[str, Any]) -> list[str]:
    return [_number(row["yardstick"]["cpu_us"]), _number(row["cpu_to_yardstick"])] if "yardstick" in row else []


def _kinds(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    def row_of(row: Mapping[str, Any]) -> list[str]:
        worker, scenario = row["worker"], row["scenario"]
        start = worker.get("tool_start_ms")
        paced = f"{_quantiles(start)} at {_number(start['commands_per_s'])}/s" if start else "–"
        cpu_ms = _number(worker["cpu_us"] / 1000)
        return [scenario["kind"], f"{scenario['slots']}", _number(worker["commands_per_s"]), cpu_ms, paced]

    return [
        "## Kinds that start processes",
        "",
        "`python`: one line, warm; `shell`: `true`.",
        "",
        *table(["kind", "slots", "commands/s", "CPU, ms", "notification to the code's start"], map(row_of, rows)),
        "",
        *PROCESS_COSTS,
        "",
    ]


PROCESS_COSTS: Final = (
    "Measured apart, at their least:",
    "",
    "* `python`: 0.6 ms for fork and end of an interpreter (170 mappings, 17 MB; a third is asyncio, loaded before),",
    "  0.9 ms for 290 copied pages, 0.2 ms for the process above it, 0.4 ms for the tool.",
    "* `shell`: 1 ms for `sh`. Of this glibc takes 0.65 ms in a virtual machine (80 CPUID calls); a program without C",
    "  library takes 80 µs.",
    "* A directory that was left unchanged is used again. To remove one takes 0.5 to 4 ms here, where TMPDIR discards",
    "  what it frees (`mount -o discard`), and 2 µs on a tmpfs.",
)
"""Not of the page's own runs: counted with perf and /proc."""


def _python_forms(found: Mapping[str, Any]) -> list[str]:
    rows = found["cpu_ms"]
    return [
        "## Packages of a `python` step",
        "",
        f"{_run_of_its_own(found)}, "
        f"in turns: the first run in a new worker, which resolves and installs from an index of files, and each of "
        f"{found['later']} later ones, the second on. All processes together, the least of {found['rounds']} rounds.",
        "",
        *table(
            ["interpreter", "first run, CPU, ms", "later, CPU, ms", "more than without"],
            (
                [words, *(_number(rows[name][run]) for run in ("first", "later")), _more(rows, name)]
                for name, words in _PYTHON_FORMS.items()
            ),
        ),
        "",
    ]


def _more(rows: Mapping[str, Mapping[str, float]], name: str) -> str:
    return "–" if name == "own" else f"{_number(rows[name]['later'] - rows['own']['later'])} ms"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_line(head), _line(["---"] * len(head)), *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _quantiles(found: Mapping[str, float]) -> str:
    return f"p50 {_number(found['p50'])} ms, p99 {_number(found['p99'])} ms"


def _number(value: float) -> str:
    """Three digits, and whole from a hundred on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _bytes(size: int) -> str:
    return f"{size // 1_000_000} MB" if size >= 1_000_000 else f"{size // 1000} kB"
