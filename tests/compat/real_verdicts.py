"""The real Rust server's word on each recorded playbook, and on new mutations, beside that of `check --plane rust`.

Its part of `make compat`. A playbook is registered and executed, with no worker there: a refusal is any answer but 200,
also of what the plane cannot render for the first step.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lint.verdicts import disagreement, drawn, recorded
from noetl_worker.authoring.dev.plane import DevControlPlane
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.authoring.lint.inspector import inspect_text
from noetl_worker.errors import PlaybookError, TemplateError
from noetl_worker.models.wire import Dialect
from noetl_worker.tools.registry import Registry

_MUTATIONS = 2000


async def run_verdicts(client: httpx.AsyncClient) -> list[str]:
    """Ask the server. Return a line, which is printed, for each playbook on which `check` says something else."""
    first_seed = time.gmtime().tm_yday * 10_000
    texts = {f"{row.file}, seed {row.seed}": row.text() for row in recorded()} | drawn(_MUTATIONS, first_seed)
    registry, wrong, refused = Registry(plugins=False), [], 0
    for name, text in texts.items():
        refusal = await _refusal(client, text)
        refused += refusal is not None
        found = inspect_text(text, name, registry, plane="rust")
        said = disagreement(found, accepted=refusal is None)
        if said is not None and not (refusal is not None and await _is_refused_by_dev(text)):
            wrong.append(f"{name}: {said}; the server: {refusal or 'it runs'}")
    counts = f"{len(texts):,} playbooks, {refused:,} refused, {len(wrong)} judged otherwise"
    print(f"verdicts: {counts}", *wrong, sep="\n    ")
    return wrong


async def _is_refused_by_dev(text: str) -> bool:
    """Return whether `dev` says it: what a template gives with this workload is not for `check` to know."""
    async with DevControlPlane(PlaneSettings(dialect=Dialect.RUST)) as plane:
        try:
            execution = plane.execution(await plane.execute(plane.register_playbook(text).path))
        except (PlaybookError, TemplateError):
            return True
        return execution.status == "FAILED"


async def _refusal(client: httpx.AsyncClient, text: str) -> str | None:
    """Return the server's refusal of a playbook, None if it runs. One at a time: many have the same path."""
    answer = await client.post("/api/catalog/register", json={"content": text, "resource_type": "playbook"})
    if answer.is_success:
        entry = answer.json()
        body = {"path": entry["path"], "version": entry["version"], "workload": {}}
        answer = await client.post("/api/execute", json=body)
    return None if answer.is_success else f"{answer.status_code} {answer.text}"
