"""The run of all checks of `noetl-worker doctor`. NATS and the control plane are checked concurrently."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from noetl_worker.cli.doctor import machine, nats, outbox, plane, tls, variables
from noetl_worker.cli.doctor.finding import Finding
from noetl_worker.pipeline.command.tool_rules import protected_paths
from noetl_worker.process.open_files import raise_open_files_limit
from noetl_worker.settings.settings import Settings
from noetl_worker.text.secrets.redaction import redact_text
from noetl_worker.tools.kinds.python.packages.uv import uv_program
from noetl_worker.tools.process.machine import memory_bytes


async def examine(settings: Settings) -> list[Finding]:
    """Run all checks of `doctor`, and return their findings in the order to show. A failed check raises nothing."""
    here = [
        variables.check_names(os.environ, Path(".env"), settings),
        machine.check_engine(),
        machine.check_isolation(settings, machine.missing_isolation()),
        machine.check_packages(settings, uv_program(), protected_paths(settings)),
        machine.check_descriptors(settings, raise_open_files_limit()),
        machine.check_memory(settings, memory_bytes()),
        *tls.examine_own_files(settings),
        outbox.check_directory(settings),
        outbox.check_contents(settings),
        outbox.check_disk(settings),
    ]
    there: Sequence[list[Finding]] = await asyncio.gather(
        tls.examine_nats(settings), _nats(settings), tls.examine_plane(settings), plane.examine(settings)
    )
    return [_without_secrets(finding) for findings in (here, *there) for finding in findings]


async def _nats(settings: Settings) -> list[Finding]:
    return await nats.examine(settings, is_made_bare=await plane.makes_bare_stream(settings))


def _without_secrets(finding: Finding) -> Finding:
    """Return a copy of the finding with secrets redacted, as its error text may quote an address with a login."""
    return replace(finding, found=redact_text(finding.found))
