"""Tool kinds that NoETL's own tool registries name but this worker does not run, and what to use instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

INSTEAD: Final[Mapping[str, str]] = {
    "agent": "call the agent over http or mcp, or a NoETL agent with kind: playbook",
    # None of our recordings has the routes of frames: guessing them would lose rows or process them twice.
    "cursor_worker": "a cursor loop is leased frame by frame from the control plane, which only NoETL's own Python "
    "worker does: write loop: {in: ...} on the step, read page by page in a task sequence whose rule jumps back, or "
    "run one of NoETL's own workers for this kind",
    "gateway": "call it with the http tool",
    "gcs": "use artifact or http with a signed https:// address, or the python tool with google-cloud-storage",
    "iterator": "write loop: {in: ..., iterator: ...} on the step",
    "provider": "call the cloud's API with the http tool (auth type gcp_adc), or its command line with shell",
    "wasm": "use the rhai or python tool",
}
"""Kind that this worker does not run -> advice for the playbook's author: what to write instead."""
