"""The real Rust server's word on each recorded playbook and mutation, beside that of `check --plane rust`.

Its part of `make compat`. A playbook is registered and executed, with no worker there: a refusal is any answer but 200,
also of what the plane cannot render for the first step.
"""

from __future__ import annotations

import sys
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lint.verdicts import Verdict, disagreement, recorded
from noetl_worker.authoring.lint.inspector import inspect_text
from noetl_worker.tools.registry import Registry


async def run_verdicts(client: httpx.AsyncClient) -> list[str]:
    """Ask the server. Return a line, which is printed, for each playbook on which `check` says something else."""
    rows, registry = recorded(), Registry(plugins=False)
    answers = [await _refusal(client, row.text()) for row in rows]
    wrong = []
    for row, refusal in zip(rows, answers, strict=True):
        found = inspect_text(row.text(), row.file, registry, plane="rust")
        said = disagreement(found, accepted=refusal is None)
        if said is not None:
            wrong.append(f"{_name(row)}: {said}; the server: {refusal or 'it runs'}")
    refused = sum(refusal is not None for refusal in answers)
    print(
        f"verdicts: {len(rows):,} playbooks, {refused:,} refused, {len(wrong)} judged otherwise", *wrong, sep="\n    "
    )
    return wrong


async def _refusal(client: httpx.AsyncClient, text: str) -> str | None:
    """Return the server's refusal of a playbook, None if it runs. One at a time: many have the same path."""
    answer = await client.post("/api/catalog/register", json={"content": text, "resource_type": "playbook"})
    if answer.is_success:
        entry = answer.json()
        body = {"path": entry["path"], "version": entry["version"], "workload": {}}
        answer = await client.post("/api/execute", json=body)
    return None if answer.is_success else f"{answer.status_code} {answer.text}"


def _name(row: Verdict) -> str:
    return row.file if row.seed is None else f"{row.file}, seed {row.seed}"
