"""The chart, rendered by Helm's own engine, against Kubernetes' schemas and the worker's settings; the image."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chart import CHART, VARIANTS, containers, helm_python, one, pod, rendered, variables
from noetl_worker.settings.settings import SETTINGS

ROOT = Path(__file__).parents[2]
OURS = {"PrometheusRule", "ScaledObject", "ServiceMonitor"}
"""Kinds of other projects, whose schemas are not Kubernetes': test_chart_objects.py says what stands in them."""


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_rendered_is_what_kubernetes_takes(variant: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    documents = rendered(VARIANTS[variant])
    for document in documents:
        if document["kind"] not in OURS:
            kubernetes_validate.validate(document, "1.30", strict=True)
    assert len({(document["kind"], document["metadata"]["name"]) for document in documents}) == len(documents)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variable_of_the_chart_is_a_setting(variant: str) -> None:
    known = {name for line in SETTINGS for name in (line.variable, *line.aliases)}
    for container in containers(rendered(VARIANTS[variant])):
        assert variables(container).keys() - {"TZ"} <= known


def test_grace_of_a_pod_is_its_drain_and_twenty_seconds() -> None:
    spec = pod(rendered({"drainTimeoutSeconds": 90}))
    assert spec["terminationGracePeriodSeconds"] == 110
    assert variables(spec["containers"][0])["NOETL_WORKER_DRAIN_TIMEOUT_S"] == "90"


def test_worker_claims_under_its_pods_name_and_runs_as_nobody_who_can_write() -> None:
    documents = rendered({})
    spec = pod(documents)
    worker = spec["containers"][0]
    assert worker["env"][0] == {"name": "WORKER_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    for container in containers(documents):
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert spec["securityContext"]["runAsNonRoot"]
    assert {mount["mountPath"] for mount in worker["volumeMounts"]} == {"/tmp", "/var/lib/noetl-worker"}


@pytest.mark.parametrize(
    ("slots", "processes", "threshold", "wanted"),
    [(16, 1, 0, "16"), (64, 1, 0, "64"), (64, 2, 0, "128"), (64, 2, 10, "10")],
)
def test_keda_asks_for_a_pod_for_each_full_set_of_slots(
    slots: int, processes: int, threshold: int, wanted: str
) -> None:
    documents = rendered({"slots": slots, "processes": processes, "keda": {"lagThreshold": threshold}})
    scaled = one(documents, "ScaledObject")["spec"]
    (trigger,) = scaled["triggers"]
    assert trigger["metadata"]["lagThreshold"] == wanted
    assert trigger["metadata"]["consumer"] == "noetl_worker"
    assert all(isinstance(value, str) for value in trigger["metadata"].values())  # KEDA reads text only
    assert scaled["scaleTargetRef"]["name"] == one(documents, "StatefulSet")["metadata"]["name"]
    down = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] == 300
    assert "replicas" not in one(documents, "StatefulSet")["spec"]  # an upgrade does not undo what KEDA did


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({}, "1000"),
        ({"slots": 64, "keda": {"maxReplicas": 100}}, "12800"),
        ({"slots": 64, "processes": 2, "keda": {"maxReplicas": 100}}, "25600"),
        ({"slots": 64, "keda": {"enabled": False}, "replicas": 50}, "6400"),
        ({"settings": {"NOETL_WORKER_MAX_ACK_PENDING": 50}}, "50"),
    ],
)
def test_durable_takes_what_all_pods_hold_together(values: dict[str, Any], wanted: str) -> None:
    """The job that makes the durable and the pods agree on it."""
    for container in containers(rendered(values)):
        assert variables(container)["NOETL_WORKER_MAX_ACK_PENDING"] == wanted


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(268435456, "268435456"), (1704067200000, "1704067200000"), (0.5, "0.5"), (True, "true"), ("1e6", "1e6")],
)
def test_setting_has_the_text_that_the_values_have(value: Any, wanted: str) -> None:
    """Helm reads a number of a file as a float, whose own text is 2.68435456e+08."""
    documents = rendered({"settings": {"NOETL_EVENT_RESULT_CONTEXT_MAX_BYTES": value}})
    for container in containers(documents):
        assert variables(container)["NOETL_EVENT_RESULT_CONTEXT_MAX_BYTES"] == wanted


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"slot": 4}, "slot"),
        ({"slots": 0}, "slots"),
        ({"processes": 0}, "processes"),
        ({"settings": {"NOETL_WORKER_PROCESSES": 2}}, "NOETL_WORKER_PROCESSES: .* processes"),
        ({"settings": {"NOETL_WORKER_KUBERNETES_OWN_SECRETS": "a"}}, "NOETL_WORKER_KUBERNETES_OWN_SECRETS: .* secrets"),
        ({"kind": "DaemonSet"}, "kind"),
        ({"server": {"url": "noetl:8082"}}, "server"),
        ({"nats": {"monitoring": "http://nats:8222"}}, "monitoring"),
        ({"settings": {"NOETL_WORKER_DRAIN_TIMEOUT_S": 90}}, "NOETL_WORKER_DRAIN_TIMEOUT_S: .* drainTimeoutSeconds"),
        ({"settings": {"WORKER_ID": "a"}}, "WORKER_ID"),
        ({"outbox": {"size": "one"}}, "size"),
        ({"settings": {"NOETL_WORKER_DRAIN_TIMEOUTS": 5}}, "NOETL_WORKER_DRAIN_TIMEOUTS"),
        ({"settings": {"LOG_LEVL": "debug"}}, "LOG_LEVL"),
        ({"keda": {"minReplicas": 5, "maxReplicas": 2}}, "keda.minReplicas"),
        ({"nats": {"url": "nats://localhost:4222"}}, "nats.url"),
        ({"nats": {"url": "nats://a:4222,tls://u:p@127.0.0.1:4222"}}, "nats.url"),
    ],
)
def test_value_that_does_not_fit_or_cannot_work_is_refused_by_its_name(values: dict[str, Any], said: str) -> None:
    with pytest.raises(helm_python.HelmError, match=said):
        rendered(values)


def test_settings_that_the_chart_takes_are_those_that_there_are() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    listed, families = schema["properties"]["settings"]["propertyNames"]["anyOf"]
    names = {name for line in SETTINGS for name in (*line.names, line.file_variable if line.is_secret else "")}
    assert listed["enum"] == sorted(names - {""})
    assert all(re.search(families["pattern"], name) for name in ("NOETL_MCP_A_URL", "NOETL_SECRET_B", "OTEL_A"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_pod_gets_the_variables_of_services(variant: str) -> None:
    """They are named as ours: a service `noetl-worker` makes NOETL_WORKER_PORT."""
    specs = [
        document["spec"]["template"]["spec"]
        for document in rendered(VARIANTS[variant])
        if "template" in document.get("spec", {})
    ]
    assert specs
    assert [spec["enableServiceLinks"] for spec in specs] == [False] * len(specs)


def test_job_runs_where_the_pods_may() -> None:
    """On a cluster whose nodes are all tainted the install would wait for it in vain."""
    place = {
        "nodeSelector": {"pool": "workers"},
        "tolerations": [{"key": "workers", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
    }
    documents = rendered(place)
    for kind in ("StatefulSet", "Job"):
        spec = pod(documents, kind)
        assert {name: spec.get(name) for name in place} == place, kind


def test_files_that_settings_name_reach_the_pods_and_the_job() -> None:
    """A plane or a NATS with an authority of its own, a .creds file: settings that are paths."""
    volume = {"name": "tls", "secret": {"secretName": "noetl-worker-tls"}}
    mount = {"name": "tls", "mountPath": "/etc/noetl-worker", "readOnly": True}
    settings = {"NOETL_TLS_CA": "/etc/noetl-worker/ca.pem"}
    documents = rendered({"volumes": [volume], "volumeMounts": [mount], "settings": settings})
    for kind in ("StatefulSet", "Job"):
        spec = pod(documents, kind)
        assert volume in spec["volumes"]
        assert mount in spec["containers"][0]["volumeMounts"]
        assert variables(spec["containers"][0])["NOETL_TLS_CA"] == settings["NOETL_TLS_CA"]


def test_secrets_of_the_pods_are_named_to_the_worker() -> None:
    """A step of kind container or script that names one of them is refused."""
    reference = {"secretKeyRef": {"name": "of-env", "key": "k"}}
    values = {
        "secrets": [{"name": "nats"}],
        "imagePullSecrets": [{"name": "registry"}],
        "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": reference}],
        "volumes": [
            {"name": "a", "secret": {"secretName": "tls"}},
            {"name": "b", "projected": {"sources": [{"secret": {"name": "part"}}, {"configMap": {"name": "c"}}]}},
            {"name": "d", "emptyDir": {}},
        ],
    }
    (worker,) = pod(rendered(values))["containers"]
    own = variables(worker)["NOETL_WORKER_KUBERNETES_OWN_SECRETS"]
    assert own == "nats,registry,of-env,tls,part"
    (worker,) = pod(rendered({}))["containers"]
    assert "NOETL_WORKER_KUBERNETES_OWN_SECRETS" not in variables(worker)


def test_dockerfile_is_clean() -> None:
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    assert hadolint is not None
    found = subprocess.run([hadolint, ROOT / "deploy/Dockerfile"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
