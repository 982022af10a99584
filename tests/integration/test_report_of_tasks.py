"""The execution page of what lies within a command: tasks, tries, failures that a rule let pass, a child execution."""

from __future__ import annotations

from typing import Any

import pytest

from integration.processes import typed
from noetl_worker.models import Dialect
from run_page.told_plane import data_of

SECRET = "k9-Secret-of-the-shop-7731"
PLAYBOOK = f"""
apiVersion: noetl.io/v2
kind: Playbook
metadata: {{name: shop, path: shop/orders}}
workload: {{items: [one, two], password: {SECRET}}}
workflow:
  - step: start
    loop: {{in: "{{{{ workload.items }}}}", iterator: u, spec: {{mode: parallel}}}}
    tool:
      - name: fetch
        kind: http
        url: "{{{{ server_url }}}}/api/executions/{{{{ iter.u }}}}"
        spec: {{policy: {{rules: [{{when: "{{{{ output.status == 'error' }}}}", then: {{do: continue}}}}]}}}}
      - {{name: note, kind: python, input: {{u: "{{{{ iter.u }}}}", password: "{{{{ workload.password }}}}"}},
         code: "print('noted', u, password)\\nresult = {{'n': u}}"}}
    next: {{arcs: [{{step: again}}]}}
  - step: again
    tool:
      - name: flaky
        kind: python
        input: {{number: "{{{{ _attempt }}}}"}}
        code: "if number < 2:\\n    raise ValueError('not yet')\\nresult = 1"
        spec:
          policy: {{rules: [{{when: "{{{{ output.status == 'error' }}}}", then: {{do: retry, delay: 0}}}}]}}
    next: {{arcs: [{{step: kid}}]}}
  - step: kid
    tool: {{kind: playbook, path: shop/kid, poll_interval: 0.1}}
    next: {{arcs: [{{step: last}}]}}
  - step: last
    tool: {{kind: http, url: "{{{{ server_url }}}}/api/executions/77"}}
"""
KID = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: kid, path: shop/kid}
workflow: [{step: start, tool: {kind: python, code: "print('in the child')\\nresult = 1"}}]
"""


@pytest.fixture(scope="module", params=Dialect)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "orders.yaml").write_text(PLAYBOOK, encoding="utf-8")
    (folder / "kid.yaml").write_text(KID, encoding="utf-8")
    given = ("--quiet", "--dialect", request.param.value, "--report", str(folder / "run.html"))
    typed("dev", str(folder / "orders.yaml"), *given)
    return (folder / "run.html").read_text(encoding="utf-8")


def commands_of(page: str, step: str) -> list[dict[str, Any]]:
    data = data_of(page)
    return [one for one in data["commands"] if data["steps"][one["step"]]["name"] == step]


def test_failure_that_a_rule_let_pass_is_seen_on_its_item_with_the_body_of_the_answer(page: str) -> None:
    for number, item in enumerate(commands_of(page, "start")):
        assert (item["state"], item["error"]) == ("passed", "fetch: HTTP 401 response")
        assert ("one", "two")[number] in item["value"][0][1]
        (tried,) = item["tasks"][0]["tries"]
        assert (tried["state"], tried["then"], tried["error"]) == ("failed", "continue", "HTTP 401 response")
        assert tried["answer"][0][1].startswith("refused: send the header")


def test_inputs_of_tasks_are_shown_as_the_task_saw_them(page: str) -> None:
    fetch, note = commands_of(page, "start")[1]["tasks"]
    assert "/api/executions/two" in fetch["input"][0][1]
    assert '"u": "two"' in note["input"][-1][1]
    assert "{{" not in str(fetch["input"])


def test_each_try_of_a_task_is_told_with_what_followed(page: str) -> None:
    (again,) = commands_of(page, "again")
    first, second = again["tasks"][0]["tries"]
    assert (again["state"], first["then"], first["error"]) == ("done", "retry", "ValueError: not yet")
    assert (second["state"], second["at"] >= first["took"]) == ("done", True)


def test_what_a_task_printed_is_shown_without_secrets(page: str) -> None:
    note = commands_of(page, "start")[0]["tasks"][1]
    assert note["tries"][0]["printed"] == [["stdout", "noted one [REDACTED]\n"]]
    assert SECRET not in page


def test_child_execution_is_on_the_page_of_the_command_that_started_it(page: str) -> None:
    (kid,) = commands_of(page, "kid")
    child = data_of(page)["children"][kid["child"]]
    assert (child["run"]["path"], child["run"]["parent"]) == ("shop/kid", data_of(page)["run"]["id"])
    assert child["commands"][0]["printed"] == [["stdout", "in the child\n"]]


def test_body_of_a_failed_answer_is_shown_on_both_planes(page: str) -> None:
    (last,) = commands_of(page, "last")
    assert last["state"] == "failed"
    assert "refused: send the header" in str([last["output"], last.get("answer")])
