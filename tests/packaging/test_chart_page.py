"""What docs/operate.md says of the chart: its commands, and what helm prints, against what is rendered."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart import CHART, notes, one, pod, rendered, variables
from integration.page_commands import commands_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operate.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("\n## Install the chart\n")[2].partition("\n## ")[0]


def words(start: str) -> list[str]:
    """The one command of the section that begins so."""
    (line,) = (line.text for line in commands_of(SECTION) if line.text.startswith(start))
    return shlex.split(line)


def values_of(command: list[str]) -> dict[str, Any]:
    """What its --set give, nested as the chart reads them."""
    values: dict[str, Any] = {}
    for flag, given in itertools.pairwise(command):
        if flag == "--set":
            dotted, _, value = given.partition("=")
            *keys, last = dotted.removeprefix("secrets[0].").split(".")
            at = values.setdefault("secrets", [{}])[0] if dotted.startswith("secrets[0].") else values
            for key in keys:
                at = at.setdefault(key, {})
            at[last] = yaml.safe_load(value)
    return values


def known(given: Any, defaults: Any) -> bool:
    if not isinstance(given, dict):
        return True
    return isinstance(defaults, dict) and all(key in defaults and known(given[key], defaults[key]) for key in given)


def test_install_of_the_page_sets_what_a_worker_needs() -> None:
    command = words("helm install ")
    assert command[:4] == ["helm", "install", "noetl-worker", "deploy/helm/noetl-worker"]
    assert (ROOT / command[3]).resolve() == CHART.resolve()
    assert command[command.index("--namespace") + 1] == "noetl"
    values = values_of(command)
    assert known(values, yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8")))
    documents = rendered(values, command[2])
    pushed = words("docker push ")[2]
    assert words("docker build ")[-3:] == ["-t", pushed, "."]
    for kind in ("StatefulSet", "Job"):
        (container,) = pod(documents, kind)["containers"]
        assert container["image"] == pushed, "nothing is published: it is the image that the page builds and pushes"
        given = variables(container)
        assert given["NATS_URL"] == "nats://nats.nats:4222"
        assert given["NOETL_SERVER_URL"] == "http://noetl.noetl:8082"
        assert container["envFrom"] == [{"secretRef": {"name": "noetl-worker-nats"}}]
    (trigger,) = one(documents, "ScaledObject")["spec"]["triggers"]
    assert trigger["metadata"]["natsServerMonitoringEndpoint"] == "nats.nats:8222"


@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment"])
@pytest.mark.parametrize(
    ("values", "without_pods"),
    [
        ({}, "While no command waits or runs there is no pod."),
        ({"keda": {"minReplicas": 1}}, None),
        ({"keda": {"enabled": False}, "replicas": 2}, None),
        ({"keda": {"enabled": False}, "replicas": 0}, "There is no pod: replicas is 0."),
    ],
)
def test_notes_name_no_pod_but_the_workload_that_is_there(
    kind: str, values: dict[str, Any], without_pods: str | None
) -> None:
    """A Deployment's pods have names that nobody knows before, and there may be none."""
    text = notes({"kind": kind, **values})
    (target,) = re.findall(r"kubectl -n noetl exec (\S+) -- noetl-worker doctor", text)
    assert target == f"{kind.lower()}/{one(rendered({'kind': kind, **values}), kind)['metadata']['name']}"
    assert [line for line in text.splitlines() if "no pod" in line] == ([] if without_pods is None else [without_pods])
