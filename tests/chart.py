"""The chart, rendered by Helm's own engine: for the tests of the deployment, and the fault that asks as KEDA does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

helm_python = pytest.importorskip("helm_python", reason="the chart's tests need the dev group")

CHART = Path(__file__).parents[1] / "deploy/helm/noetl-worker"
VARIANTS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "everything": {
        "outbox": {"size": "1Gi", "storageClass": "fast"},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": True},
        "networkPolicy": {"metricsFrom": [{"namespaceSelector": {}}], "egress": [{"ports": [{"port": 4222}]}]},
        "secrets": [{"name": "nats"}, {"name": "plane", "optional": True}],
        "settings": {"LOG_LEVEL": "debug", "NOETL_WORKER_EXECUTION_SHARE": 0.5},
        "nats": {"filterSubject": "noetl.commands.gpu.>"},
        "env": [{"name": "TZ", "value": "UTC"}],
        "keda": {"authenticationRef": "nats-monitoring"},
        "imagePullSecrets": [{"name": "registry"}],
        "nodeSelector": {"pool": "workers"},
        "tolerations": [{"key": "workers", "operator": "Exists"}],
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
        "affinity": {"podAntiAffinity": {}},
        "priorityClassName": "high",
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "data"},
        "volumes": [{"name": "tls", "secret": {"secretName": "noetl-worker-tls"}}],
        "volumeMounts": [{"name": "tls", "mountPath": "/etc/noetl-worker", "readOnly": True}],
        "serviceAccount": {"annotations": {"iam.gke.io/gcp-service-account": "worker"}, "mountToken": True},
    },
    "deployment without KEDA": {"kind": "Deployment", "keda": {"enabled": False}, "replicas": 3},
    "least": {
        "ensure": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "serviceAccount": {"create": False},
    },
}


def _files(values: dict[str, Any], name: str) -> dict[str, str]:
    with helm_python.Chart.load(CHART) as chart:
        files: dict[str, str] = chart.render(values=values, name=name, namespace="noetl")
    return files


def rendered(values: dict[str, Any], name: str = "pool") -> list[dict[str, Any]]:
    """Every object of the release, hooks too."""
    return [
        document
        for file, text in _files(values, name).items()
        if file.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document
    ]


def notes(values: dict[str, Any], name: str = "pool") -> str:
    """What helm prints after an install."""
    (text,) = (text for file, text in _files(values, name).items() if file.endswith("NOTES.txt"))
    return text


def one(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = (document for document in documents if document["kind"] == kind)
    return found


def containers(documents: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for document in documents:
        template = document["spec"].get("template") if "spec" in document else None
        if isinstance(template, dict):
            yield from template["spec"]["containers"]


def pod(documents: list[dict[str, Any]], kind: str = "StatefulSet") -> dict[str, Any]:
    """The pods of the one object of this kind."""
    spec: dict[str, Any] = one(documents, kind)["spec"]["template"]["spec"]
    return spec


def variables(container: dict[str, Any]) -> dict[str, Any]:
    """By name, each given once; None for what comes from elsewhere."""
    found = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert len(found) == len(container["env"])
    return found
