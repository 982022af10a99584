"""Values that the Python plane's result store would take for secrets, on their way from one step to the next."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from integration.house import house
from noetl_worker.models import Dialect

ARTICLES = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: articles, path: t/articles}
workflow:
- step: start
  tool:
    kind: python
    code: |
      result = {"articles": [
          {"id": n, "authors": ["Ada", "Grace"], "url": f"https://a.test/{n}?token=abc", "text": "a word " * 10}
          for n in range(COUNT)
      ]}
  next:
    arcs: [{step: single}]
- step: single
  tool:
    kind: python
    input: {authors: "{{ start.articles[0].authors }}", url: "{{ start.articles[0].url }}"}
    code: "result = {'seen': f'{authors} {url}'}"
"""
WRITTEN = "['Ada', 'Grace'] https://a.test/0?token=abc"


async def reported(count: int, text: str = ARTICLES) -> tuple[str, dict[str, Any]]:
    """How the playbook ends with so many articles, and what each step reported."""
    async with house(Dialect.PYTHON) as home:
        home.plane.register_playbook(text.replace("COUNT", str(count)))
        execution_id = await home.plane.execute("t/articles")
        status = await home.plane.wait_ended(execution_id)
        done = home.plane.log.events(execution_id, "call.done", "call.error")
        return status, {event.node: event.result for event in done}


@pytest.mark.parametrize("count", [20, 1_500])
async def test_next_step_reads_what_the_step_returned_however_large_it_is(count: int) -> None:
    status, results = await reported(count)
    assert status == "COMPLETED"
    assert results["single"]["context"]["seen"] == WRITTEN


SEVERAL = """
  next:
    arcs: [{step: several}]
- step: several
  tool:
  - read:
      kind: python
      input: {authors: "{{ start.articles[0].authors }}"}
      code: "result = {'seen': f'{authors}'}"
"""
"""A list of tasks: the worker renders it, from names that the plane stores above 8 kB."""


async def test_list_of_tasks_reads_a_value_as_it_was_or_fails_with_its_place() -> None:
    text = ARTICLES.rstrip() + SEVERAL
    status, results = await reported(3, text)
    assert (status, results["several:task_sequence"]["context"]["_prev"]["seen"]) == ("COMPLETED", "['Ada', 'Grace']")
    status, results = await reported(20, text)
    assert status == "FAILED"
    place = r"in place of start\.context\.articles\[0\]\.authors: "
    assert re.search(place, results["several:task_sequence"]["context"]["error"])


@pytest.mark.parametrize(("comment", "ends"), [("", "COMPLETED"), ("# a word\n" * 1_000, "FAILED")])
async def test_config_that_the_plane_has_stored_without_an_object_fails_its_command(comment: str, ends: str) -> None:
    tool = {"kind": "noop", "result": {"auth": {"user": "ada"}, "text": comment}}
    step = {"step": "start", "tool": tool}
    text = {"apiVersion": "noetl.io/v2", "kind": "Playbook", "metadata": {"name": "a", "path": "t/articles"}}
    status, results = await reported(1, json.dumps({**text, "workflow": [step]}))
    assert status == ends
    if ends == "FAILED":
        assert "in place of tool_config.result.auth: " in results["start"]["context"]["error"]
