"""Every code of `check`: its meaning, a playbook that has it, and how to mend it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Severity: TypeAlias = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Code:
    name: str
    title: str
    example: str
    mend: str
    is_warning: bool = False
    """Always one: it runs, and does something else than it looks like."""
    is_judged: bool = False
    """A warning, and an error where a plane refuses the playbook for it."""
    plane: str = ""
    """The one plane the code concerns. It is a warning, unless a playbook for that plane `fails` there."""
    fails: bool = False
    is_refusal: bool = False
    """The plane's own words. An error where the other plane refuses the playbook too."""

    @property
    def severity(self) -> Severity:
        return "warning" if self.is_warning or self.is_judged or self.plane else "error"


GROUPS: Final[Mapping[str, str]] = {
    "NW1": "Shape",
    "NW2": "Tools",
    "NW3": "Templates",
    "NW4": "Flow",
    "NW5": "Planes",
    "NW6": "Code",
}


HEAD: Final = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: example, path: example}\n"


def _step(*lines: str, name: str = "start") -> str:
    return "".join([f"  - step: {name}\n", *(f"    {line}\n" for line in lines)])


def _playbook(*steps: str, head: str = "") -> str:
    return head + "workflow:\n" + "".join(steps)


_NOOP: Final = "tool: {kind: noop}"
_LAST: Final = _step(_NOOP, name="last")
_OTHER: Final = _step(_NOOP, name="other")
_WORDS: Final = "workload: {words: [b, a]}\n"
_CODES: Final = (
    # Shape
    Code("NW100", "The file is not YAML", 'workflow: [\n  "step\n', "Close the quote or the bracket."),
    Code(
        "NW101",
        "A key that nothing reads",
        _playbook(_step(_NOOP, "next:", "  arcs:", '    - {step: last, whn: "{{ start.ok }}"}'), _LAST),
        "Write `when`: a plane ignores what it does not know, and takes this arc always.",
        is_judged=True,
    ),
    Code(
        "NW102",
        "A key that is there twice",
        _playbook(_step(_NOOP, "desc: one", "desc: two")),
        "Keep one of them: of two, only the last counts. The Rust plane refuses the file.",
        is_judged=True,
    ),
    Code(
        "NW103",
        "Another kind of document",
        _playbook(_step(_NOOP), head="apiVersion: noetl.io/v3\nkind: Playbook\nmetadata: {name: a}\n"),
        "Write `apiVersion: noetl.io/v2` and `kind: Playbook`.",
        is_judged=True,
    ),
    Code(
        "NW104",
        "A value of a wrong type, or none of those allowed",
        _playbook(
            _step("loop: {in: '{{ workload.words }}', iterator: word, spec: {mode: concurrent}}", _NOOP), head=_WORDS
        ),
        "Write `mode: parallel` or `mode: sequential`.",
        is_judged=True,
    ),
    Code(
        "NW105",
        "A part that is missing",
        _playbook(_step("desc: does nothing")),
        "Give the step a `tool`: the Rust plane refuses it, and an execution on the Python plane never ends.",
        is_judged=True,
    ),
    Code(
        "NW106",
        "Two steps of one name",
        _playbook(_step(_NOOP), _step(_NOOP)),
        "Rename one of them, and the arcs that lead to it.",
        is_judged=True,
    ),
    Code(
        "NW107",
        "A value of the workload that YAML reads otherwise than it looks",
        _playbook(_step(_NOOP), head="workload: {at: 12:30}\n"),
        "Write `'12:30'`: without quotes it is 750, `01234` is 668, `no` is false. For yes and no write `true` and "
        "`false`.",
        is_warning=True,
    ),
    Code(
        "NW108",
        "A file without its head",
        _playbook(_step(_NOOP)),
        "Write `apiVersion: noetl.io/v2`, `kind: Playbook` and `metadata: {name: ..., path: ...}`. `dev` adds what is "
        "missing, no other plane does.",
    ),
    # Tools
    Code("NW201", "No such kind", _playbook(_step("tool: {kind: pyhton}")), "Write `kind: python`."),
    Code(
        "NW202",
        "A field that this kind has not",
        _playbook(_step("tool: {kind: http, url: https://example.org, metod: POST}")),
        "Write `method`: the worker ignores what it does not know. An error where a field is missing for it.",
        is_warning=True,
    ),
    Code("NW203", "A field that is missing", _playbook(_step("tool: {kind: shell}")), "Give it a `command`."),
    Code(
        "NW204",
        "A value that the kind does not take",
        _playbook(_step("tool: {kind: http, url: https://example.org, timeout: soon}")),
        "Write seconds, or a text such as `30s`.",
    ),
    Code(
        "NW205",
        "A field that is not read here",
        _playbook(_step("tool: {kind: shell, command: ls, retry: {max_attempts: 3}}")),
        "Make `tool` a list of this one task, with a rule `do: retry`.",
        is_warning=True,
    ),
    Code(
        "NW206",
        "A rule of a policy that cannot work",
        _playbook(
            _step("tool:", "  - {name: one, kind: noop, spec: {policy: {rules: [{else: {then: {do: retrry}}}]}}}")
        ),
        "Write one of `continue`, `retry`, `break`, `jump`, `fail`.",
    ),
    Code(
        "NW207",
        "A loop that this worker does not run",
        _playbook(
            _step(
                "loop:",
                "  cursor: {kind: postgres, auth: pg, claim: SELECT 1}",
                "  iterator: row",
                "  spec: {mode: cursor}",
                _NOOP,
            )
        ),
        "Read the rows in a step before, and write `loop.in` with its result.",
    ),
    # Templates
    Code(
        "NW301",
        "A template that does not compile",
        _playbook(_step('tool: {kind: shell, command: "echo {{ workload. }}"}')),
        "Finish the expression. Text that only looks like one goes between `{% raw %}` and `{% endraw %}`.",
    ),
    Code(
        "NW302",
        "No such filter",
        _playbook(_step('tool: {kind: shell, command: "echo {{ 3 | strng }}"}')),
        "Write `string`.",
    ),
    Code(
        "NW303",
        "No such test",
        _playbook(_step('tool: {kind: shell, command: "echo {{ 3 is defind }}"}')),
        "Write `is defined`.",
    ),
    Code(
        "NW304",
        "No such method or function",
        _playbook(_step('tool: {kind: shell, command: "echo {{ len([1]) }}"}')),
        "Write `[1] | length`: templates have filters where Python has functions.",
    ),
    Code(
        "NW305",
        "A name that nothing makes",
        _playbook(_step('tool: {kind: shell, command: "echo {{ strat.stdout }}"}')),
        "Write the name of a step, an input, an iterator or a `set`; or `| default(...)`, where it may be missing.",
        is_warning=True,
    ),
    Code(
        "NW306",
        "A key that the result has not",
        _playbook(
            _step("tool: {kind: python, code: \"result = {'data_': 1}\"}", "next: {arcs: [{step: last}]}"),
            _step('tool: {kind: shell, command: "echo {{ start.dta_ }}"}', name="last"),
        ),
        "Write `start.data_`. What a result has is on the page of its kind ([tools/](tools/README.md)).",
        is_warning=True,
    ),
    Code(
        "NW307",
        "A template without quotes",
        _playbook(_step("tool:", "  kind: shell", "  command: {{ workload.command }}")),
        'Write `"{{ workload.command }}"`: without quotes YAML reads a mapping.',
    ),
    Code(
        "NW308",
        "A `when` that is no condition",
        _playbook(
            _step(_NOOP, "next: {arcs: [{step: last, when: \"{{ start.status }} == 'ok'\"}, {step: other}]}"),
            _LAST,
            _OTHER,
        ),
        "Write the whole condition into one pair of braces: `\"{{ start.status == 'ok' }}\"`.",
        is_judged=True,
    ),
    Code(
        "NW309",
        "A name that the workload has not",
        _playbook(_step('tool: {kind: shell, command: "echo {{ workload.nmae }}"}'), head="workload: {name: Ada}\n"),
        "Write `workload.name`; name it in `workload`, with null, if whoever runs the playbook gives it.",
        is_warning=True,
    ),
    Code(
        "NW310",
        "A keychain entry that is not there",
        _playbook(
            _step('tool: {kind: shell, command: "echo {{ keychain.gp.user }}"}'),
            head="keychain: [{name: pg, kind: static, map: {user: noetl}}]\n",
        ),
        "Write the name of an entry of `keychain`, and of a field of it ([secrets.md](secrets.md#keychain)).",
        is_warning=True,
    ),
    Code(
        "NW311",
        "A name of `ctx` or `iter` that nothing writes",
        _playbook(_step('tool: {kind: shell, command: "echo {{ ctx.totl }}"}', "set: {ctx.total: 1}")),
        "Write the name that a `set` writes or the iterator of the loop; or `| default(...)`, where it may be missing.",
        is_warning=True,
    ),
    Code(
        "NW312",
        "A loop over a text",
        _playbook(_step("loop: {in: workload.words, iterator: word}", _NOOP), head=_WORDS),
        "Write `in: '{{ workload.words }}'`. Without braces the Python plane takes the text as one item, and on the "
        "Rust plane the playbook fails.",
        is_judged=True,
    ),
    # Flow
    Code(
        "NW401",
        "A step that nothing reaches",
        _playbook(_step(_NOOP), _LAST),
        "Let an arc lead to it: `next: {arcs: [{step: last}]}`.",
        is_warning=True,
    ),
    Code(
        "NW402",
        "An arc that leads nowhere",
        _playbook(_step(_NOOP, "next: {arcs: [{step: lst}]}"), _LAST),
        "Write the name of a step, or `end`. The Rust plane refuses the playbook, the Python plane ends there.",
        is_judged=True,
    ),
    Code(
        "NW403",
        "An arc that is never taken",
        _playbook(
            _step(
                _NOOP,
                "next:",
                "  arcs:",
                "    - {step: one}",
                "    - {step: two, when: \"{{ start.status == 'ok' }}\"}",
            ),
            _step(_NOOP, name="one"),
            _step(_NOOP, name="two"),
        ),
        "Put the arc without `when` last, or write `spec: {mode: inclusive}`: of exclusive arcs the first that holds "
        "is taken.",
        is_warning=True,
    ),
    Code(
        "NW404",
        "A credential that is not there",
        _playbook(_step("tool: {kind: http, url: https://example.org, auth: shpo}")),
        "Write a name of the file that `--credentials` gives. Without that flag `auth` is not looked at.",
    ),
    Code(
        "NW405",
        "A workbook entry that no step runs",
        _playbook(_step(_NOOP), head="workbook: [{name: greet, tool: {kind: shell, command: echo hello}}]\n"),
        "Run it by a step, `tool: {kind: workbook, name: greet}`, or take it out. Mistakes in it are warnings.",
        is_warning=True,
    ),
    # Planes
    Code(
        "NW501",
        "A method of a value",
        _playbook(
            _step('tool: {kind: shell, command: "echo {{ workload.name.upper() }}"}'), head="workload: {name: a}\n"
        ),
        "Use a filter: `workload.name | upper`. The plane refuses methods in what it renders: of a task in a list "
        "all but `input`, `set`, `spec` and `command`, unless it names what an earlier task gives.",
        plane="rust",
        fails=True,
    ),
    Code(
        "NW502",
        "A filter or a function that the plane has not",
        _playbook(_step("tool: {kind: http, url: \"https://example.org/{{ 'a b' | urlencode }}\"}")),
        "Give it as `params`, which are encoded by the worker. `{{ token(alias) }}` works in a task of a list.",
        plane="rust",
        fails=True,
    ),
    Code(
        "NW503",
        "A kind that the plane does not register",
        _playbook(_step("tool: {kind: result_fetch, ref: 'noetl://execution/1/result/a/b'}")),
        "Use another kind, here `artifact`, or run the playbook on the Rust plane.",
        plane="python",
        fails=True,
    ),
    Code(
        "NW504",
        "A policy of a single tool",
        _playbook(_step("tool: {kind: noop, spec: {policy: {rules: [{else: {then: {do: continue}}}]}}}")),
        "Make `tool` a list of this one task: the plane ignores rules elsewhere.",
        plane="rust",
    ),
    Code(
        "NW505",
        "`output.status` or `output.error` outside of a policy",
        _playbook(
            _step(_NOOP, "next: {arcs: [{step: last, when: \"{{ output.status == 'error' }}\"}, {step: other}]}"),
            _LAST,
            _OTHER,
        ),
        "Decide in a rule of a list of tasks, which has both on each plane: there `output` is the result's data alone.",
        plane="rust",
    ),
    Code(
        "NW506",
        "`_prev` or `results` in a list of tasks",
        _playbook(
            _step("tool:", "  - {name: one, kind: noop}", '  - {name: two, kind: shell, command: "echo {{ _prev }}"}')
        ),
        "Write the label of the task: `one`.",
        plane="rust",
    ),
    Code(
        "NW507",
        "A playbook that the plane refuses to execute",
        _playbook(_step(_NOOP, "next: {arcs: [{step: end}]}")),
        "Add a step `end`. The message is the plane's own (noetl-server 3.54.0).",
        plane="rust",
        fails=True,
        is_refusal=True,
    ),
    Code(
        "NW508",
        "A loop over what is no name",
        _playbook(_step("loop: {in: '{{ workload.words | sort }}', iterator: word}", _NOOP), head=_WORDS),
        "Write one name: `{{ workload.words }}`. All else is one item, its printed text. Compute the list in a step "
        "before.",
        plane="python",
    ),
    Code(
        "NW509",
        "A `when` of a step",
        _playbook(
            _step(_NOOP, "next: {arcs: [{step: last}]}"),
            _step('when: "{{ workload.words }}"', _NOOP, name="last"),
            head=_WORDS,
        ),
        "Write it at the arcs that lead to the step: the plane runs the step whatever its own says.",
        plane="python",
    ),
    Code(
        "NW510",
        "An arc back to `start` or to its own step",
        _playbook(
            _step(_NOOP, "next: {arcs: [{step: last}]}"), _step(_NOOP, "next: {arcs: [{step: start}]}", name="last")
        ),
        "Repeat inside of a list of tasks, with `jump`: the plane enters a step once.",
        plane="rust",
    ),
    Code(
        "NW511",
        "A playbook that the plane refuses to register",
        _playbook(_step("args: {city: Rome}", _NOOP)),
        "Write `input`. The message is the plane's own (package `noetl` 4.0.0).",
        plane="python",
        fails=True,
        is_refusal=True,
    ),
    Code(
        "NW512",
        "Arcs that all have a condition",
        _playbook(_step(_NOOP, "next: {arcs: [{step: last, when: \"{{ start.status == 'ok' }}\"}]}"), _LAST),
        "End the list with an arc without `when`, to a step of its own if nothing is to be done.",
        plane="rust",
    ),
    Code(
        "NW513",
        "An arc that skips a step of another way",
        _playbook(
            _step(
                _NOOP,
                "next:",
                "  arcs:",
                "    - {step: between, when: \"{{ start.status == 'ok' }}\"}",
                "    - {step: last}",
            ),
            _step(_NOOP, "next: {arcs: [{step: last}]}", name="between"),
            _LAST,
        ),
        "Lead each way through a step of its own: `{kind: noop}` does nothing.",
        plane="rust",
    ),
    Code(
        "NW514",
        "Ways that start together and meet",
        _playbook(
            _step(_NOOP, "next: {spec: {mode: inclusive}, arcs: [{step: one}, {step: two}]}"),
            _step(_NOOP, "next: {arcs: [{step: last}]}", name="one"),
            _step(_NOOP, "next: {arcs: [{step: last}]}", name="two"),
            _LAST,
        ),
        "Do the work in a list of tasks, or one step after the other.",
        plane="python",
    ),
    Code(
        "NW515",
        "Pages of a single `http`",
        _playbook(
            _step(
                "tool:",
                "  kind: http",
                "  url: https://example.org/items",
                "  retry:",
                "    on_success: {while: '{{ response.next }}', next_call: {params: {page: 2}}}",
            )
        ),
        "Make `tool` a list of this one task: there the worker fills in `while` and `next_call`, page by page.",
        plane="rust",
    ),
    # Code
    Code(
        "NW601",
        "Python that does not compile",
        _playbook(_step("tool:", "  kind: python", "  code: |", "    if True", "      result = 1")),
        "The message is Python's own: here a colon is missing.",
    ),
    Code(
        "NW602",
        "Rhai that does not parse",
        _playbook(_step("tool:", "  kind: rhai", "  code: |", "    let a = ;")),
        "The message is the parser's own. Only a native build has it; a pure one does not look at rhai.",
    ),
    Code(
        "NW603",
        "A quote that is not closed",
        _playbook(_step("tool:", "  kind: shell", "  command: |", '    echo "hello')),
        "Close the quote. Where there is no `sh`, shell commands are not looked at.",
    ),
    Code(
        "NW604",
        "A secret in the playbook",
        _playbook(_step("tool: {kind: http, url: https://example.org, headers: {X-Api-Key: 9fK2vQ8xLr4TzB7m}}")),
        "Give it as a credential, and write `auth: NAME` or a keychain reference ([secrets.md](secrets.md)).",
        is_warning=True,
    ),
)
CODES: Final[Mapping[str, Code]] = {code.name: code for code in _CODES}
