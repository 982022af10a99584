"""The bridge of a release: what the server publishes to, who may, and what workers and Prometheus are told of it."""

from __future__ import annotations

from typing import Any

import pytest

from chart import rendered, variables
from noetl_worker.settings.settings import load_settings

PEERS = [{"podSelector": {"matchLabels": {"app": "noetl-server"}}}]


def of_bridge(values: dict[str, Any] | None = None, **bridge: Any) -> dict[str, dict[str, Any]]:
    """The objects of the bridge, by kind."""
    found = rendered({**(values or {}), "bridge": {"enabled": True, **bridge}})
    return {one["kind"]: one for one in found if one["metadata"]["name"] == "pool-noetl-worker-bridge"}


def test_release_has_a_bridge_only_where_it_is_asked_for() -> None:
    assert not [one for one in rendered({}) if "bridge" in one["metadata"]["name"]]
    assert set(of_bridge()) == {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"}
    assert "ServiceMonitor" in of_bridge({"serviceMonitor": {"enabled": True}})


def test_bridge_has_two_replicas_that_are_never_taken_away_together() -> None:
    found = of_bridge()
    assert found["Deployment"]["spec"]["replicas"] == 2
    assert found["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert found["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


def test_service_and_policies_choose_the_bridges_pods_and_no_workers() -> None:
    found = of_bridge(publishFrom=PEERS)
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    worker = next(one for one in rendered({}) if one["kind"] == "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    for selector in (
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        found["Deployment"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
        assert not selector.items() <= worker.items()
    assert found["NetworkPolicy"]["spec"]["ingress"][0] == {
        "ports": [{"port": "publish", "protocol": "TCP"}],
        "from": PEERS,
    }


def test_container_listens_where_the_service_leads_and_names_its_health() -> None:
    found = of_bridge(forward="writer:9100")
    (container,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["bridge", "--publish", "0.0.0.0:9100", "--forward", "writer:9100"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"publish": 9100, "metrics": 9090}
    assert {port["name"]: port["port"] for port in found["Service"]["spec"]["ports"]} == ports
    settings = load_settings(variables(container))
    assert settings.bridge_health == "http://pool-noetl-worker-bridge.noetl.svc:9090"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"bridge": {"enabled": True, "publishFrom": []}}, "name the peers that publish"),
        ({"bridge": {"enabled": True}, "settings": {"NOETL_BRIDGE_HEALTH": "http://x"}}, "the chart sets it"),
        ({"bridge": {"enabled": True, "forward": "http://writer"}}, "forward"),
    ],
)
def test_values_that_would_open_or_mislead_the_bridge_are_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(Exception, match=reason):
        rendered(values)
