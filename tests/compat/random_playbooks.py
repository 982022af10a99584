"""A small grammar of playbooks, as Hypothesis strategies: what it draws runs on the Rust plane, and it shrinks.

What differs for a known reason is left out of it: texts that read as JSON, a number or a template (theirs are read
again), null or an object printed into text, names that only our templates know, and `ctx.` of a task's own `set` read
by later steps. Of two arcs to one step the plane follows none once it has passed over the first: `other` ends there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from compat.values_server import RECORDED_AT

WORKLOAD: dict[str, Any] = {
    "n": 3,
    "zero": 0,
    "half": 1.5,
    "word": "blue",
    "words": "two words",
    "yes": True,
    "no": False,
    "nothing": None,
    "numbers": [3, 1, 2],
    "names": ["ann", "bob", "cid"],
    "empty": [],
    "obj": {"k": 7, "deep": {"x": "ycorn", "l": [4, 5]}},
    "rows": [{"id": 1, "name": "ann"}, {"id": 2, "name": "bob"}],
}
TYPES = {int: "int", float: "float", str: "text", bool: "bool", list: "list", dict: "dict", type(None): "null"}
Playbook = Mapping[str, Any]
Names = dict[str, str]
"""Paths that templates may read, each with the type of its value; `missing` where there is none."""


def typed(at: str, value: Any) -> Names:
    """`at` and everything below it."""
    found = {at: TYPES[type(value)]}
    if isinstance(value, dict):
        for key, inner in value.items():
            found |= typed(f"{at}.{key}", inner)
    elif isinstance(value, list) and value:
        found |= typed(f"{at}[0]", value[0])
    return found


FIRST = typed("workload", WORKLOAD) | {
    "workload.absent": "missing",
    "absent": "missing",
    "absent.deep": "missing",
    "n": "int",
    "word": "text",
    "ctx.n": "int",
    "ctx.word": "text",
}
"""Names of every step; those by themselves and below `ctx` are the workload's."""
LIST_ONLY = {"ctx.n", "ctx.word"}

# ── templates ───────────────────────────────────────────────────────────────────────────────────

ANY = (
    "{p}",
    "{p} is defined",
    "{p} is none",
    "{p} | default('other')",
    "{p} | default(4)",
    "not {p}",
    "'full' if {p} else 'bare'",
    "{p} and 'and'",
    "{p} or 'or'",
)
BY_TYPE: Mapping[str, Sequence[str]] = {
    "int": (
        "{p} + 1", "{p} * 2", "{p} - 5", "{p} // 2", "{p} / 2", "{p} % 2", "-{p}", "{p} > 2", "{p} == 3", "{p} != 3",
        "{p} >= 3 and {p} < 5", "{p} | abs", "{p} | float", "{p} | int", "{p} is number", "{p} in [1, 3]",
        "[{p}, {p}]", "'w' ~ {p}", "{p} | default(9) + 1", "({p} + 1) * 2", "{p} ** 2", "range({p}) | list",
    ),
    "float": ("{p} + 1", "{p} * 2", "{p} | int", "{p} | round", "{p} > 1", "'w' ~ {p}", "{p} is number", "-{p}"),
    "text": (
        "{p} | upper", "{p} | title", "{p} | capitalize", "{p} | length", "{p} ~ ' x'", "{p} | replace('b', 'c')",
        "{p} == 'blue'", "{p}[0]", "{p}[1:]", "'b' in {p}", "{p} | trim", "{p} is string", "[{p}, 'z']", "{p} | list",
        "{p} | first", "{p} | last", "{p} | reverse", "{p} < 'm'", "{{'a': {p}}}",
    ),
    "bool": ("{p} == true", "{p} is boolean", "1 if {p} else 2", "[{p}]", "{p} != false"),
    "list": (
        "{p} | length", "{p} | first", "{p} | last", "{p}[0]", "{p}[-1]", "{p}[1:]", "{p}[:2]", "{p} | reverse | list",
        "{p} + [9]", "1 in {p}", "{p} | tojson", "{p} is sequence", "{p} == []", "{p} | list", "{p}[7]",
        "{p} | unique | list",
    ),
    "dict": ("{p} | length", "{p} | tojson", "{p} is mapping", "'k' in {p}", "{p}['k']", "{p}.k", "[{p}]"),
    "any": (),
    "null": ("{p} == none", "{p} is undefined", "[{p}]"),
    "missing": ("{p} is undefined", "{p} == none", "[1, {p} | default(2)]"),
}  # fmt: skip
SORTABLE = ("workload.numbers", "workload.names")
SORTED = ("{p} | sort", "{p} | join('-')", "{p} | min", "{p} | max", "{p} | map('string') | list")
PRINTABLE = ("int", "text")
AROUND = (
    "v {{{{ {p} }}}}.",
    "{{{{ {p} }}}} and {{{{ {p} }}}} v",
    "{{% if {p} %}}some{{% else %}}none of it{{% endif %}} v",
)


@st.composite
def templates(draw: DrawFn, names: Names) -> str:
    """A text with one expression, or an expression alone, which keeps its type."""
    path = draw(st.sampled_from(sorted(names)))
    kind = names[path]
    if kind in PRINTABLE and draw(st.integers(0, 4)) == 4:
        return draw(st.sampled_from(AROUND)).format(p=path)
    forms = (*ANY, *BY_TYPE[kind], *(SORTED if path in SORTABLE else ()))
    return "{{ " + draw(st.sampled_from(forms)).format(p=path) + " }}"


LITERALS = st.sampled_from([5, 0, True, None, "plain", "two words", [1, "a"], {"k": 1}, 2.5])


def inputs(names: Names, most: int = 3) -> SearchStrategy[dict[str, Any]]:
    value = st.one_of(templates(names), templates(names), templates(names), LITERALS)
    nested = st.one_of(value, value, st.fixed_dictionaries({"in": value, "l": st.lists(value, max_size=2)}))
    return st.dictionaries(st.sampled_from(("a", "b", "c", "d")), nested, max_size=most)


# ── tools ───────────────────────────────────────────────────────────────────────────────────────

RESULTS: Sequence[dict[str, Any]] = (
    {"x": 5},
    {"x": "blue", "y": [1, 2], "z": {"k": 1}},
    {"rows": [{"id": 1}, {"id": 2}], "x": True},
    {"x": None, "y": "two words"},
    {"x": 1.5, "y": []},
)


LARGE = "{'table': [{'id': i, 'word': 'two words'} for i in range(3000)], 'size': 3000}"
"""Above the budget of an event: it goes to the result store, and later steps get a reference with a preview."""


@dataclass
class Drawn:
    """A tool, and what its result has for templates to read."""

    tool: dict[str, Any]
    gives: dict[str, Any] = field(default_factory=dict)


@st.composite
def python_tools(draw: DrawFn, names: Names) -> Drawn:
    given = draw(inputs(names))
    keys = ", ".join(f"{key!r}: globals().get({key!r}, '<missing>')" for key in sorted(given))
    result = draw(st.sampled_from(RESULTS))
    end = draw(st.sampled_from(("", "", "", "\nraise ValueError('bad thing')")))
    large = f", **{LARGE}" if draw(st.integers(0, 7)) == 7 else ""
    code = f"result = {{**{result!r}{large}, 'saw': {{{keys}}}}}{end}"
    if large:
        result = {**result, "table": [{"id": 0, "word": "two words"}], "size": 3000}
    tool = {"kind": "python", "code": code} | ({"input": given} if given else {})
    return Drawn(tool, {} if end else result)


@st.composite
def http_tools(draw: DrawFn, names: Names) -> Drawn:
    path = draw(st.sampled_from(("json", "list", "text", "status/404", "status/500", "empty", "null", "echo")))
    url = f"http://{RECORDED_AT}/{path}"
    tool: dict[str, Any] = {"kind": "http", "method": "GET", "url": url}
    if path == "echo":
        body = draw(inputs(names, most=2))
        tool |= {"method": draw(st.sampled_from(("POST", "PUT"))), "json": body}
    gives = {"json": {"n": 3, "name": "ada", "list": [1, 2]}, "list": [{"id": 1}, {"id": 2}]}.get(path)
    return Drawn(tool, {"status_code": 200, "body": gives} if gives is not None else {})


@st.composite
def shell_tools(draw: DrawFn, names: Names) -> Drawn:
    printable = {path: kind for path, kind in names.items() if kind == "int" or path == "workload.word"}
    word = draw(st.one_of(st.just("plain"), st.sampled_from(sorted(printable)).map(lambda path: f"{{{{ {path} }}}}")))
    command = draw(st.sampled_from(("echo it {w}", "printf 'it %s' {w}", "echo it {w}; exit 3", "echo it {w} >&2")))
    return Drawn({"kind": "shell", "command": command.format(w=word)})


@st.composite
def child_tools(draw: DrawFn, names: Names) -> Drawn:
    """The recorded child, values/child: its last step gives {"final": 2 n + 1}. For `return_step` theirs differs."""
    known = sorted({"workload.n", "workload.zero"} & names.keys())
    given = draw(st.one_of(st.integers(0, 9), st.sampled_from(known).map(lambda path: f"{{{{ {path} }}}}")))
    named = draw(st.sampled_from(({}, {"result_step": "end"})))
    tool = {"kind": "playbook", "path": "values/child", "return_result": True, **named, "input": {"n": given}}
    return Drawn(tool, {"final": 7})


RHAI = (
    ("#{ x: 40 + 2, y: \"blue\", z: #{ k: 1 } }", {"x": 42, "y": "blue", "z": {"k": 1}}),
    ("#{ x: [1, 2, 3], y: true }", {"x": [1, 2, 3], "y": True}),
    ("let t = 0; for i in 0..5 { t += i; } #{ x: t }", {"x": 10}),
    ("\"some \" + \"text\"", {}),
)  # fmt: skip
THROWS = ('throw "bad thing"', {})
"""Not in a task with rules: with us they see it, and with us alone."""
SQL = (
    ("select 1 as x, 'blue' as y", {"rows": [{"x": 1, "y": "blue"}], "row_count": 1}),
    ("select i as x from generate_series(1, 3) g(i)", {"rows": [{"x": 1}], "row_count": 3}),
    ("select 1 as x where false", {"row_count": 0}),
    ("select {{ workload.n }} as x, '{{ workload.word }}' as y", {"rows": [{"x": 3, "y": "blue"}], "row_count": 1}),
)


@st.composite
def tools(draw: DrawFn, names: Names, *, has_rules: bool = False) -> Drawn:
    """Mostly python, whose inputs show what templates give."""
    others = ("noop", "http", "http", "shell", "rhai", "postgres", "duckdb", "playbook")
    kind = draw(st.sampled_from(("python",) * 5 + others))
    if kind == "python":
        return draw(python_tools(names))
    if kind == "http":
        return draw(http_tools(names))
    if kind == "shell":
        return draw(shell_tools(names))
    if kind == "playbook":
        return draw(child_tools(names))
    if kind == "noop":
        return Drawn({"kind": "noop"})
    scripts = RHAI if has_rules else (*RHAI, THROWS)
    text, gives = draw(st.sampled_from(scripts if kind == "rhai" else SQL))
    if kind == "rhai":
        return Drawn({"kind": "rhai", "code": text}, gives)
    return Drawn({"kind": kind, "query" if kind == "duckdb" else "command": text} | _auth(kind), gives)


def _auth(kind: str) -> dict[str, str]:
    return {"auth": "pg_demo"} if kind == "postgres" else {}


# ── lists of tasks ──────────────────────────────────────────────────────────────────────────────

WHENS = (
    "{{ output.status == 'error' }}",
    "{{ output.status == 'success' }}",
    "{{ output.data.x == 5 }}",
    "{{ output.data.x is defined }}",
    "{{ _attempt < 2 }}",
    "{{ workload.yes }}",
    "{{ workload.no }}",
)
TASKS = ("one", "two", "three")


@st.composite
def actions(draw: DrawFn, task: int, count: int, names: Names) -> dict[str, Any]:
    does = draw(st.sampled_from(("continue", "continue", "continue", "break", "fail", "retry", "jump")))
    then: dict[str, Any] = {"do": does}
    if does == "retry":
        then |= {"attempts": draw(st.integers(1, 3)), "backoff": "fixed", "delay": 0.01}
    if does == "jump":
        if task + 1 >= count:
            return {"do": "continue"}
        then["to"] = TASKS[draw(st.integers(task + 1, count - 1))]
    if draw(st.booleans()) and does in ("continue", "jump", "break"):
        output = {"output.data.x": "int", "output.status": "text"}
        where = st.sampled_from(("ctx.r", "ctx.q", "bare", "iter.i"))
        value = st.one_of(templates({**names, **output}), LITERALS)
        then["set"] = draw(st.dictionaries(where, value, min_size=1, max_size=2))
    return then


@st.composite
def policies(draw: DrawFn, task: int, count: int, names: Names) -> dict[str, Any]:
    rules: list[dict[str, Any]] = [
        {"when": draw(st.sampled_from(WHENS)), "then": draw(actions(task, count, names))}
        for _ in range(draw(st.integers(0, 2)))
    ]
    if draw(st.booleans()) or not rules:
        rules.append({"else": {"then": draw(actions(task, count, names))}})
    return {"policy": {"rules": rules}}


@st.composite
def task_lists(draw: DrawFn, names: Names) -> tuple[list[dict[str, Any]], Names]:
    """The tasks, and what later steps may read of them."""
    known = dict(names)
    tasks: list[dict[str, Any]] = []
    gives: Names = {}
    count = draw(st.integers(1, 3))
    for index in range(count):
        has_rules = draw(st.integers(0, 2)) == 2
        one = draw(tools(known, has_rules=has_rules))
        task = {"name": TASKS[index], **one.tool}
        if has_rules:
            task["spec"] = draw(policies(index, count, known))
            rules = task["spec"]["policy"]["rules"]
            for rule in rules:
                then = rule.get("then") or rule["else"]["then"]
                known |= dict.fromkeys(then.get("set", {}), "any")
        if draw(st.integers(0, 4)) == 4:
            task["set"] = {draw(st.sampled_from(("own", "iter.own"))): draw(st.one_of(templates(known), LITERALS))}
            known |= dict.fromkeys(task["set"], "any")
        below = {path: kind for path, kind in typed(TASKS[index], one.gives).items() if path != TASKS[index]}
        known |= below
        gives |= below
        tasks.append(task)
    return tasks, gives


# ── steps ───────────────────────────────────────────────────────────────────────────────────────

STEPS = ("start", "first", "second")
ITEMS = ("workload.numbers", "workload.names", "workload.rows", "workload.empty")


@st.composite
def steps(draw: DrawFn, name: str, names: Names) -> tuple[dict[str, Any], Names]:
    """One step without its arcs, and the names it adds for later ones."""
    form = draw(st.sampled_from(("single", "single", "list", "list", "loop")))
    step: dict[str, Any] = {"step": name}
    known = dict(names)
    if form == "loop" and name == "start":
        form = "single"  # a loop at the start is written after a noop in the recorded ones
    if form == "loop":
        items = draw(st.sampled_from(ITEMS))
        mode = draw(st.sampled_from(({"mode": "sequential"}, {"mode": "parallel", "max_in_flight": 2})))
        step["loop"] = {"in": "{{ " + items + " }}", "iterator": "it", "spec": mode}
        known |= {"iter.it": "any", "it": "any", "iter._index": "int"}
    is_list = form == "list" or (form == "loop" and draw(st.booleans()))
    if is_list:
        step["tool"], gives = draw(task_lists(known))
        added = {f"{name}.{path}": kind for path, kind in gives.items()}
    else:
        one = draw(tools({path: kind for path, kind in known.items() if path not in LIST_ONLY}))
        step["tool"] = one.tool
        added = {path: kind for path, kind in typed(name, one.gives).items() if path != name}
    if form == "loop":
        return step, {}
    if draw(st.integers(0, 3)) == 3:
        where = draw(st.sampled_from(("ctx.s", "ctx.u")))
        step["set"] = {where: draw(st.one_of(templates({**names, **added}), LITERALS))}
        added[where] = "any"
    return step, added


@st.composite
def playbooks(draw: DrawFn) -> dict[str, Any]:
    """Up to three steps in a row, each with an arc or two, then `last`, which shows what it sees."""
    names = dict(FIRST)
    found: list[dict[str, Any]] = []
    count = draw(st.integers(1, 3))
    for index in range(count):
        step, added = draw(steps(STEPS[index], names))
        names |= added
        after = STEPS[index + 1] if index + 1 < count else "last"
        step["next"] = draw(arcs(after, names))
        found.append(step)
    if any(arc["step"] == "other" for step in found for arc in step["next"]["arcs"]):
        found.append({"step": "other", "tool": {"kind": "noop"}})
    last = draw(inputs(names, most=4)) or {"a": "{{ start }}"}
    keys = ", ".join(f"{key!r}: {key}" for key in sorted(last))
    look = {"kind": "python", "input": last, "code": f"result = {{{keys}}}"}
    found.append({"step": "last", "tool": [{"name": "look", **look}] if draw(st.booleans()) else look})
    return {
        "apiVersion": "noetl.io/v2",
        "kind": "Playbook",
        "metadata": {"name": "random", "path": "random/one"},
        "workload": WORKLOAD,
        "workflow": found,
    }


@st.composite
def arcs(draw: DrawFn, target: str, names: Names) -> dict[str, Any]:
    form = draw(st.sampled_from(("plain", "plain", "when", "both")))
    mode = draw(st.sampled_from(("exclusive", "inclusive")))
    if form == "plain":
        return {"spec": {"mode": mode}, "arcs": [{"step": target}]}
    if form == "when":
        path = draw(st.sampled_from(sorted(path for path in names if "." in path)))
        when = draw(st.sampled_from(("{{{{ {p} == 3 }}}}", "{{{{ {p} == 'blue' }}}}", "{{{{ {p} is defined }}}}")))
        ways = [{"step": target, "when": when.format(p=path)}, {"step": "other"}]
        return {"spec": {"mode": "exclusive"}, "arcs": ways}
    value = draw(st.one_of(templates(names), LITERALS))
    return {"spec": {"mode": "exclusive"}, "arcs": [{"step": target, "set": {"ctx.arc": value}}]}


def text_of(playbook: Playbook, server: str, path: str) -> str:
    document = {**playbook, "metadata": {"name": path.rpartition("/")[2], "path": path}}
    return yaml.safe_dump(document, sort_keys=False, width=110).replace(RECORDED_AT, server)


def shown(playbook: Playbook) -> str:
    """Its steps: the workload is the same for all."""
    return yaml.safe_dump({"workflow": playbook["workflow"]}, sort_keys=False, width=110)
