"""Values that the Python plane's result store would take for secrets, on their way from one step to the next."""

from __future__ import annotations

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


async def reported(count: int) -> tuple[str, dict[str, Any]]:
    """How the playbook ends with so many articles, and what each step reported."""
    async with house(Dialect.PYTHON) as home:
        home.plane.register_playbook(ARTICLES.replace("COUNT", str(count)))
        execution_id = await home.plane.execute("t/articles")
        status = await home.plane.wait_ended(execution_id)
        done = [event for event in home.plane.log.events(execution_id) if event.event_type == "call.done"]
        return status, {event.node: event.result for event in done}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("count", [20, 1_500])
async def test_next_step_reads_what_the_step_returned_however_large_it_is(count: int) -> None:
    status, results = await reported(count)
    assert status == "COMPLETED"
    assert results["single"]["context"]["seen"] == WRITTEN
