"""What the objects of a release say to each other and to KEDA and Prometheus: names, ports, labels, paths, bounds.

Kubernetes' schemas take any name; one that nothing has is found at work only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from chart import CHART, VARIANTS, containers, one, rendered, variables
from noetl_worker.observability.probes import Health, make_pages

WORKLOADS = ("StatefulSet", "Deployment")
each_variant = pytest.mark.parametrize("variant", VARIANTS)


def workload(documents: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = (document for document in documents if document["kind"] in WORKLOADS)
    return found


def worker(documents: list[dict[str, Any]]) -> dict[str, Any]:
    (container,) = workload(documents)["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def probes(container: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: container[name]["httpGet"] for name in container if name.endswith("Probe")}


def pod_selectors(documents: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, str]]]:
    """What chooses pods by their labels."""
    for document in documents:
        spec, kind = document.get("spec", {}), document["kind"]
        if kind == "Service":
            yield kind, spec["selector"]
        elif kind == "NetworkPolicy":
            yield kind, spec["podSelector"]["matchLabels"]
        elif kind in (*WORKLOADS, "PodDisruptionBudget"):
            yield kind, spec["selector"]["matchLabels"]


def test_keda_gets_the_keys_of_its_jetstream_scaler_and_no_others() -> None:
    """Names and text as https://keda.sh/docs/latest/scalers/nats-jetstream-stream/ has them: it ignores what it does
    not know, and a key that it lacks is an error on the cluster."""
    nats = {"monitoring": "nats:8222", "account": "WORK", "stream": "COMMANDS", "consumer": "gpu"}
    values = {"nats": nats, "slots": 8, "keda": {"useHttps": True, "authenticationRef": "monitoring"}}
    scaled = one(rendered(values), "ScaledObject")
    assert scaled["apiVersion"] == "keda.sh/v1alpha1"
    assert scaled["spec"]["triggers"] == [
        {
            "type": "nats-jetstream",
            "metadata": {
                "natsServerMonitoringEndpoint": "nats:8222",
                "account": "WORK",
                "stream": "COMMANDS",
                "consumer": "gpu",
                "lagThreshold": "8",
                "activationLagThreshold": "0",
                "useHttps": "true",
            },
            "authenticationRef": {"name": "monitoring"},
        }
    ]


def test_prometheus_reads_a_port_and_a_path_that_are_there() -> None:
    values = {"serviceMonitor": {"enabled": True, "interval": "15s", "labels": {"release": "prometheus"}}}
    documents = rendered(values)
    monitor, service = one(documents, "ServiceMonitor"), one(documents, "Service")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["endpoints"] == [{"port": "metrics", "path": "/metrics", "interval": "15s"}]
    assert "metrics" in {port["name"] for port in service["spec"]["ports"]}
    assert set(monitor["spec"]) == {"selector", "endpoints"}
    wanted = monitor["spec"]["selector"]["matchLabels"]
    assert wanted
    assert wanted.items() <= service["metadata"]["labels"].items()


@each_variant
def test_selectors_choose_the_workers_pods_and_not_the_jobs(variant: str) -> None:
    documents = rendered(VARIANTS[variant])
    labels = workload(documents)["spec"]["template"]["metadata"]["labels"]
    selectors = list(pod_selectors(documents))
    least = variant == "least"
    assert {kind for kind, _ in selectors} == {
        workload(documents)["kind"],
        "Service",
        *(() if least else ("PodDisruptionBudget", "NetworkPolicy")),
    }
    for kind, selector in selectors:
        assert selector, kind
        assert selector.items() <= labels.items(), kind
        for job in (document for document in documents if document["kind"] == "Job"):
            assert not selector.items() <= job["spec"]["template"]["metadata"]["labels"].items(), kind


@each_variant
def test_ports_that_are_named_are_the_one_that_the_worker_serves(variant: str) -> None:
    documents = rendered(VARIANTS[variant])
    container = worker(documents)
    assert container["ports"] == [{"name": "metrics", "containerPort": 9090}]
    assert variables(container)["WORKER_METRICS_BIND"] == "0.0.0.0:9090"
    assert {probe["port"] for probe in probes(container).values()} == {"metrics"}
    service = one(documents, "Service")["spec"]
    assert service["ports"] == [{"name": "metrics", "port": 9090, "targetPort": "metrics"}]
    for document in documents:
        if document["kind"] == "NetworkPolicy":
            (rule,) = document["spec"]["ingress"]
            assert rule["ports"] == [{"port": "metrics", "protocol": "TCP"}]


def test_probes_ask_for_what_is_served() -> None:
    served = set(make_pages(Health()))
    asked = {name: probe["path"] for name, probe in probes(worker(rendered({}))).items()}
    assert asked == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    assert {*asked.values(), "/metrics"} <= served


def test_network_policy_lets_in_who_may_read_and_closes_the_way_out_by_rules_alone() -> None:
    values = VARIANTS["everything"]["networkPolicy"]
    spec = one(rendered({"networkPolicy": values}), "NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["ingress"][0]["from"] == values["metricsFrom"]
    assert spec["egress"] == values["egress"]
    as_it_comes = one(rendered({}), "NetworkPolicy")["spec"]
    assert as_it_comes["policyTypes"] == ["Ingress"]
    assert "egress" not in as_it_comes
    assert "from" not in as_it_comes["ingress"][0]


@each_variant
def test_names_that_objects_give_are_those_of_objects_that_are_there(variant: str) -> None:
    documents = rendered(VARIANTS[variant])
    names = {(document["kind"], document["metadata"]["name"]) for document in documents}
    target = workload(documents)["spec"]
    pod = target["template"]["spec"]
    assert ("ServiceAccount", pod["serviceAccountName"]) in names or pod["serviceAccountName"] == "default"
    if "serviceName" in target:
        assert ("Service", target["serviceName"]) in names
    for document in documents:
        if document["kind"] not in (*WORKLOADS, "Job"):
            continue
        inside = document["spec"]["template"]["spec"]
        claims = document["spec"].get("volumeClaimTemplates", [])
        volumes = [volume["name"] for volume in inside["volumes"]] + [claim["metadata"]["name"] for claim in claims]
        mounted = [mount["name"] for container in containers([document]) for mount in container["volumeMounts"]]
        assert sorted(volumes) == sorted(mounted)


def test_chart_brings_alerts_and_dashboard_as_they_are_where_it_is_asked_to() -> None:
    """Prometheus' templates in them are not Helm's."""
    values = {"prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}}, "dashboard": {"enabled": True}}
    documents, files = rendered(values), CHART / "files"
    rule = one(documents, "PrometheusRule")
    assert rule["apiVersion"] == "monitoring.coreos.com/v1"
    assert rule["spec"] == yaml.safe_load((files / "alerts.yaml").read_text(encoding="utf-8"))
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    dashboard = one(documents, "ConfigMap")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    (text,) = dashboard["data"].values()
    assert json.loads(text) == json.loads((files / "dashboard.json").read_text(encoding="utf-8"))
    assert not {document["kind"] for document in rendered({})} & {"PrometheusRule", "ConfigMap"}
