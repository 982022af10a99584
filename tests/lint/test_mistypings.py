"""Fifty mistypings of one right playbook: `check` finds each, at its line."""

from __future__ import annotations

import pytest

pytest.importorskip("yaml")
from lint.head import HEAD
from noetl_worker.authoring.lint.inspector import inspect_text
from noetl_worker.tools.registry import Registry

REGISTRY = Registry(plugins=False)
RIGHT = (
    HEAD
    + """\
workload: {city: Rome, words: [b, a], shop: https://example.org}
keychain:
  - {name: api, kind: static, scope: global, map: {key: "{{ workload.city }}"}}
workbook:
  - {name: greet, tool: {kind: python, code: "result = {'text': 'hello'}"}}
workflow:
  - step: start
    desc: begins
    tool: {kind: python, input: {city: "{{ workload.city }}"}, code: "result = {'size': len(city)}"}
    set: {ctx.size: "{{ start.size }}"}
    next:
      spec: {mode: exclusive}
      arcs:
        - {step: each, when: "{{ start.size > 3 }}", set: {ctx.way: long}}
        - {step: short}
  - step: short
    tool: {kind: noop}
    next: {arcs: [{step: last}]}
  - step: each
    loop: {in: "{{ workload.words }}", iterator: word, spec: {mode: parallel, max_in_flight: 2}}
    tool: {kind: shell, command: "echo {{ iter.word | upper }}", timeout: 5}
    next: {arcs: [{step: fetch}]}
  - step: fetch
    tool:
      - name: ask
        kind: http
        method: GET
        url: "{{ workload.shop }}/orders"
        headers: {X-Key: "{{ keychain.api.key }}"}
        params: {city: "{{ workload.city }}"}
        retry: {max_attempts: 3, backoff: exponential}
        spec:
          policy:
            rules:
              - when: "{{ output.status == 'error' and _attempt < 2 }}"
                then: {do: retry, attempts: 2, delay: 1}
              - else: {then: {do: continue, set: {ctx.failed: false}}}
      - name: count
        kind: python
        input: {all: "{{ ask.data }}", way: "{{ ctx.way | default('') }}"}
        code: "result = {'n': len(all)}"
    next: {arcs: [{step: greet}]}
  - step: greet
    tool: {kind: workbook, name: greet}
    next: {arcs: [{step: last}]}
  - step: last
    tool: {kind: noop, input: {size: "{{ ctx.size }}", failed: "{{ ctx.failed }}"}}
"""
)
TYPOS = """
apiVersion: noetl.io/v2 | apiVersion: noetl.io/2
apiVersion: | apiVerson:
kind: Playbook | kind: Playbok
metadata: | metdata:
{name: example, | {nam: example,
workload: | worklaod:
keychain: | keychian:
scope: global | scpoe: global
workbook: | workbok:
workflow: | workflw:
- step: each | - stpe: each
step: last} | step: lst}
desc: begins | dsec: begins
tool: {kind: python, input: {city: | tol: {kind: python, input: {city:
kind: shell | kind: shel
kind: http | kind: htpp
code: "result = {'size': | cod: "result = {'size':
{'size': len(city)} | {'size': len(city)
start.size > 3 | strat.size > 3
start.size > 3 | start.szie > 3
"{{ start.size }}" | "{{ start.size }"
"{{ start.size }}" | "{{ star.size }}"
set: {ctx.size | sett: {ctx.size
next:\\n | nxt:\\n
mode: exclusive | mode: exclusiv
spec: {mode: exclusive | spce: {mode: exclusive
arcs:\\n | arc:\\n
when: "{{ start.size > 3 }}" | whn: "{{ start.size > 3 }}"
when: "{{ start.size > 3 }}" | when: "{{ start.size }} > 3"
loop: | lop:
{in: | {inn:
iterator: word | iteratr: word
iterator: word | iterator: wrod
mode: parallel | mode: paralel
max_in_flight | max_in_fligt
iter.word | iter.wrod
| upper | | uper
command: | comand:
timeout: 5 | timout: 5
method: GET | metod: GET
method: GET | method: GTE
url: | ulr:
headers: | haeders:
keychain.api | keychain.app
keychain.api.key | keychain.api.kye
workload.shop | workload.shp
max_attempts | max_atempts
policy: | polcy:
rules: | rulse:
do: retry | do: rety
attempts: 2 | atempts: 2
- else: | - esle:
ask.data | aks.data
name: greet} | name: gret}
ctx.failed }} | ctx.faild }}
ctx.size }} | ctx.siz }}
"""
PAIRS = [
    tuple(part.strip(" ") for part in line.replace("\\n", "\n").split(" | ", 1)) for line in TYPOS.split("\n") if line
]


def test_the_right_playbook_has_no_finding() -> None:
    assert inspect_text(RIGHT, "p.yaml", REGISTRY) == []


@pytest.mark.parametrize("plane", ["python", "rust", None])
def test_each_mistyping_is_found(plane: str | None) -> None:
    unfound = []
    for right, wrong in PAIRS:
        assert right in RIGHT, right
        if not inspect_text(RIGHT.replace(right, wrong, 1), "p.yaml", REGISTRY, plane=plane):
            unfound.append(f"{right} -> {wrong}")
    assert len(PAIRS) >= 50
    assert unfound == []


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("{name: example,", "{nam: example,", ["unknown key 'nam' of metadata; did you mean 'name'?"]),
        ("desc: begins", "dsec: begins", ["unknown key 'dsec' of a step; did you mean 'desc'?"]),
        ("policy:", "polcy:", ["http: unknown field 'spec.polcy'; did you mean 'policy'?"]),
        ("workflow:", "workflw:", ["unknown key 'workflw' of a playbook; did you mean 'workflow'?"]),
        ("iterator: word", "iterator: wrod", ["nothing writes 'iter.word'; did you mean 'wrod'?"]),
    ],
)
def test_mistyping_is_said_once_with_the_word_that_was_meant(right: str, wrong: str, said: list[str]) -> None:
    found = inspect_text(RIGHT.replace(right, wrong, 1), "p.yaml", REGISTRY)
    assert [one.message for one in found] == said
