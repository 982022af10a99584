"""A playbook has its outputs looked through for thousands of secrets."""

from __future__ import annotations

import asyncio
import io
import itertools
import random
import string
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.shown_session import session
from noetl_worker.errors import ConfigurationError
from noetl_worker.models import Dialect
from noetl_worker.text.secrets.known import MOST_OF_A_COMMAND, KnownSecrets


def passwords(number: int) -> dict[str, str]:
    draw = random.Random(7)
    letters = string.ascii_letters + string.digits
    return {f"password_{one}": "".join(draw.choices(letters, k=20)) for one in range(number)}


async def ran(folder: Path, dialect: Dialect, number: int, steps: int, command: str) -> tuple[int, str]:
    """Run so many steps, one after the other: (exit code, what was shown)."""
    tool = {"kind": "shell", "command": command, "timeout": 10}
    names = [f"step_{one}" for one in range(steps)]
    workflow: list[dict[str, Any]] = [{"step": name, "tool": tool} for name in ("start", *names[1:])]
    for step, following in itertools.pairwise(workflow):
        step["next"] = {"arcs": [{"step": following["step"]}]}
    playbook = {"metadata": {"name": "p", "path": "p"}, "workload": passwords(number), "workflow": workflow}
    path = folder / "p.yaml"
    path.write_text(yaml.safe_dump(playbook), encoding="utf-8")
    shown = io.StringIO()
    return await session(path, shown, dialect=dialect, is_quiet=True), shown.getvalue()


async def test_command_with_more_secrets_than_are_looked_for_fails_before_its_tool(
    dialect: Dialect, tmp_path: Path
) -> None:
    """Thousands of variables named `password_N`: a step's output takes minutes after its timeout, and others wait."""
    code, shown = await ran(tmp_path, dialect, 1_500, 1, f"touch {tmp_path / 'ran'}")
    assert code == 1
    assert not (tmp_path / "ran").exists()
    assert "more than 1,000 different secrets" in " ".join(shown.split())
    assert "give other names to fields that hold no secret" in " ".join(shown.split())


async def test_outputs_of_megabytes_with_as_many_secrets_as_are_allowed_end_in_time(
    dialect: Dialect, tmp_path: Path
) -> None:
    """Steps with 1,000 variables named `password_N` and 2 MB of output in lines of base64."""
    output = "head -c 1500000 /dev/zero | tr '\\\\0' 'k' | base64 -w 76"
    code, shown = await asyncio.wait_for(ran(tmp_path, dialect, 990, 2, output), 60)
    assert code == 0, shown


def test_thousand_secrets_are_known_and_one_more_is_refused() -> None:
    """(no attack) What counts: different texts that are not common ones; not the worker's own."""
    known = KnownSecrets([f"of-the-worker-{one}-Zq7x" for one in range(50)], most=MOST_OF_A_COMMAND)
    values = list(passwords(MOST_OF_A_COMMAND).values())
    known.add_inline({"passwords": [*values, *values, "demo", "noetl", "abc"]})
    assert values[-1] in known.texts().all
    with pytest.raises(ConfigurationError, match="more than 1,000 different secrets"):
        known.add("one-more-Zq7xK2")
