"""The Dockerfile against the chart: user, outbox, what a restarted worker may find. `make image-test` runs it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from chart import pod, rendered, variables

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")


def joined(text: str) -> list[str]:
    """The lines with those that end in a backslash joined to the next, without comments."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return re.sub(r"\s*\\\n\s*", " ", "\n".join(lines)).splitlines()


def final_stage() -> Iterator[tuple[str, str]]:
    """(instruction, its words) of what becomes the image."""
    lines = [line for line in joined(DOCKERFILE) if line]
    start = max(number for number, line in enumerate(lines) if line.startswith("FROM "))
    for line in lines[start:]:
        name, _, words = line.partition(" ")
        yield name, words


def only_value(instruction: str) -> str:
    (words,) = (words for name, words in final_stage() if name == instruction)
    return words


def variables_of_the_image() -> dict[str, str]:
    return dict(word.split("=", 1) for word in only_value("ENV").split())


def test_image_runs_as_the_charts_user_who_owns_the_outbox_and_is_not_root() -> None:
    user, group = only_value("USER").split(":")
    assert int(user) > 0
    assert int(group) > 0
    names = [name for name, _ in final_stage()]
    assert "RUN" not in names[names.index("USER") :]  # what is installed is root's
    (made,) = (words for name, words in final_stage() if name == "RUN" and "useradd" in words)
    assert f"useradd --uid {user} --gid {group} " in made
    assert f"groupadd --gid {group} " in made
    assert "install -d -o noetl -g noetl -m 0700 /var/lib/noetl-worker" in made
    context = pod(rendered({}))["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == (int(user), int(group))


def test_image_keeps_its_outbox_where_the_chart_mounts_a_volume() -> None:
    (worker,) = pod(rendered({}))["containers"]
    set_by_chart = variables(worker)["NOETL_WORKER_OUTBOX_DIR"]
    assert variables_of_the_image()["NOETL_WORKER_OUTBOX_DIR"] == set_by_chart
    assert any(set_by_chart.startswith(mount["mountPath"]) for mount in worker["volumeMounts"])


def test_image_starts_nothing_that_a_command_can_have_left() -> None:
    """A command writes to /tmp. There a worker that starts again would find its `.env`, and its interpreter modules."""
    given = variables_of_the_image()
    assert only_value("WORKDIR") == "/"
    assert {name: given.get(name) for name in ("HOME", "PYTHONSAFEPATH", "PYTHONNOUSERSITE")} == {
        "HOME": "/tmp",  # else that of a user without an entry is the working directory, which is read-only
        "PYTHONSAFEPATH": "1",
        "PYTHONNOUSERSITE": "1",
    }
