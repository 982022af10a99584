"""docs/log-events.md from the code: `python docs/list_log_events.py` writes it, tests/unit/test_log_events.py holds it.

What to do is the `advice` of a line; where a line has none, ACTIONS below.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from noetl_worker.observability.last_words import REASONS
from noetl_worker.observability.repeated_lines import REPEATED

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = ROOT / "python" / "noetl_worker"
PAGE: Final = ROOT / "docs" / "log-events.md"
LEVELS: Final = ("debug", "info", "warning", "error", "exception")
NOT_A_WORKERS: Final = ("authoring", "cli", "testing")
"""Packages that a worker does not run."""
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "ids": ("execution_id", "command_id", "event_id", "step", "kind"),
    "spent": ("attempt", "deliveries", "queued_s", "claim_s", "prepare_s", "tool_s"),
    "handled": ("failure",),
    "line": ("error", "failures", "since", "for_s"),
    "times": ("since", "for_s"),
    "died": ("process", "exit_code", "deaths", "starts_again_s"),
    "start": ("version", "engine", "stream", "durable", "filters", "slots", "control_plane", "server_url", "worker_id"),
}
"""Of `**name`, or `**name()`, in a call."""

ACTIONS: Final[Mapping[str, str]] = {
    "deregister_failed": "nothing; this worker's registry row goes stale when its heartbeats stop",
    "heartbeat_too_slow": "set WORKER_HEARTBEAT_INTERVAL lower",
    "max_ack_pending_reached": "raise NOETL_WORKER_MAX_ACK_PENDING above the slots of all workers together and run "
    "`noetl-worker nats ensure --apply`; if this login may not acknowledge, see `acks_refused`",
    "nats_unreachable": "check NATS_URL, and that the server is up",
    "process_died": "see the worker's own log lines above",
    "process_keeps_dying": "see the worker's own log lines above",
    "request_retried": "nothing; if it lasts, look at the control plane",
    "server_not_named": "if it is a control plane of yours, name it in NOETL_WORKER_TRUSTED_SERVERS",
    "start_not_recorded": "`noetl-worker doctor`: permissions of the bucket of starts",
}
"""Of lines without `advice`."""
REASONS_HEAD: Final = "`reason` is one of these, with the exit code:"
HEAD: Final = """# Log events

Made from the code by `python docs/list_log_events.py`. Every line has `event`, `level` and `timestamp`; below
`--processes` also `worker`. Ids are text. `since`, `for_s` and `failures` belong to an outage, which has one line when
it begins, one a minute while it lasts, and one at its end. By event: its levels, its fields, and what to do.

An event that `repeats` has one line a minute for each cause (`reason`, `error`): the first at once, a later one with
the number of lines that it stands for, in `repeats`. Its ids are those of the last one. At the level debug all are
written.

"""


@dataclass
class Event:
    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)
    advice: list[str] = field(default_factory=list)
    has_advice: bool = False


def texts(nodes: Sequence[ast.AST]) -> dict[str, str]:
    """The constants and plain variables of a file that are texts; not those of several texts."""
    found: dict[str, str] = {}
    several: set[str] = set()
    for node in nodes:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and isinstance(value, ast.expr) and (text := text_of(value, {})) is not None:
            several |= {target.id} if found.get(target.id, text) != text else set()
            found[target.id] = text
    return {name: text for name, text in found.items() if name not in several}


def text_of(node: ast.expr, known: Mapping[str, str]) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return known.get(node.id) if isinstance(node, ast.Name) else None


def calls(nodes: Sequence[ast.AST]) -> Iterator[tuple[str, str, ast.Call]]:
    """(event, level, the call) of each line."""
    for node in nodes:
        if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
            continue
        if isinstance(node.func, ast.Attribute) and node.func.attr not in LEVELS:
            continue
        event = str(node.args[0].value)
        if re.fullmatch(r"[a-z_]+", event):
            levels = re.findall(r"(?:log|logger|\))\.(\w+)", ast.unparse(node.func))
            yield from ((event, level, node) for level in levels if level in LEVELS)


def events() -> dict[str, Event]:
    found: defaultdict[str, Event] = defaultdict(Event)
    files = {file: file.relative_to(PACKAGE).parts[0] for file in sorted(PACKAGE.rglob("*.py"))}
    trees = {
        file: list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        for file, room in files.items()
        if room not in NOT_A_WORKERS
    }
    own = {file: texts(nodes) for file, nodes in trees.items()}
    shared = {
        name: text
        for known in own.values()
        for name, text in known.items()
        if name.isupper() and not name.startswith("_")
    }
    for file, nodes in trees.items():
        known = {**shared, **own[file]}
        for name, level, call in calls(nodes):
            event = found[name]
            if re.search(r"StepLog|step_log|self._log\(\)|context.logger", ast.unparse(call.func)):
                event.fields.update(GROUPS["ids"])
            event.levels.add("error" if level == "exception" else level)
            for keyword in call.keywords:
                if keyword.arg is None:
                    text = ast.unparse(keyword.value)
                    found_in = (fields for name, fields in GROUPS.items() if re.search(rf"(\b|_){name}\b", text))
                    event.fields.update(next(found_in, ()))
                elif keyword.arg == "advice":
                    event.has_advice = True
                    event.advice += filter(None, [text_of(keyword.value, known)])
                elif keyword.arg != "exc_info":
                    event.fields.add(keyword.arg)
    return dict(sorted(found.items()))


def action(name: str, event: Event) -> str:
    """What a person does; empty for lines that tell a normal thing."""
    if name in ACTIONS:
        return f"Do: {ACTIONS[name]}."
    if event.levels.isdisjoint({"warning", "error"}):
        return ""
    return "Do: " + ("; ".join(dict.fromkeys(event.advice)) or "see `advice`").removeprefix("do ") + "."


def page() -> str:
    return HEAD + "".join(entry(name, event) for name, event in events().items())


def entry(name: str, event: Event) -> str:
    """A list, for a terminal too: a row of a table would be too wide for one."""
    levels = ", ".join(level for level in LEVELS if level in event.levels) + (", repeats" if name in REPEATED else "")
    fields = ", ".join(f"`{one}`" for one in sorted(event.fields))
    texts = [f"Fields: {fields}." if fields else "", action(name, event)]
    lines = [textwrap.fill(text, 118, break_on_hyphens=False, break_long_words=False) for text in texts if text]
    if name == "worker_failed":
        lines += [REASONS_HEAD, *reasons()]
    return f"- `{name}`, {levels}." + "".join("\n" + textwrap.indent(line, "  ") for line in lines) + "\n"


def reasons() -> Iterator[str]:
    """The closed set of what ends a process with another code than 0 and 4."""
    for name, (code, advice) in REASONS.items():
        text = f"- `{name}`, {'that of a worker' if code is None else code}: {advice}."
        yield textwrap.fill(text, 116, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
