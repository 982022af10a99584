"""The Job that kind `container` makes of a config, and configs of which it makes none."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError
from noetl_worker.testing import run_tool
from noetl_worker.tools.kinds.container.container import ContainerTool

from .cluster import FakeCluster
from .containers import LABELS, WATCHED, call


def job_of(config: dict[str, Any], **context: Any) -> Any:
    """The Job that a config becomes."""
    cluster = FakeCluster({})
    call(cluster, {"wait": False, **config}, **context)
    (job,) = cluster.jobs.values()
    return job


def pod_of(config: dict[str, Any]) -> Any:
    return job_of(config)["spec"]["template"]["spec"]


def container_of(config: dict[str, Any]) -> Any:
    (container,) = pod_of(config)["containers"]
    return container


# ── the Job ─────────────────────────────────────────────────────────────────────────────────────


def test_the_whole_config_is_in_the_job() -> None:
    job = job_of(
        {
            "command": ["sh", "-c"],
            "args": ["echo {{ who }}"],
            "env": [
                {"name": "A", "value": 1},
                {"name": "B", "value_from": {"secret_name": "s", "secret_key": "k"}},
            ],
            "resources": {"limits": {"memory": "1Gi"}},
            "service_account": "runner",
            "backoff_limit": 2,
            "restart_policy": "OnFailure",
            "image_pull_policy": "Always",
            "node_selector": {"disk": "ssd"},
            "tolerations": [{"key": "gpu", "operator": "Exists", "toleration_seconds": 5}],
            "volumes": [
                {"name": "tmp", "empty_dir": {"size_limit": "1Gi"}},
                {"name": "data", "persistent_volume_claim": {"claim_name": "c", "read_only": True}},
                {"name": "conf", "config_map": {"name": "m"}},
                {"name": "keys", "secret": {"secret_name": "s"}},
            ],
            "volume_mounts": [{"name": "tmp", "mount_path": "/tmp", "read_only": False}],
            "ttl_seconds_after_finished": 5,
            "timeout_seconds": 60,
        },
        variables={"who": "ada"},
    )
    assert job["metadata"]["labels"] == LABELS
    assert job["spec"] == {
        "backoffLimit": 2,
        "activeDeadlineSeconds": 90,
        "ttlSecondsAfterFinished": 5,
        "template": {
            "metadata": {"labels": LABELS},
            "spec": {
                "restartPolicy": "OnFailure",
                "serviceAccountName": "runner",
                "nodeSelector": {"disk": "ssd"},
                "tolerations": [{"key": "gpu", "operator": "Exists", "tolerationSeconds": 5}],
                "volumes": [
                    {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
                    {"name": "data", "persistentVolumeClaim": {"claimName": "c", "readOnly": True}},
                    {"name": "conf", "configMap": {"name": "m"}},
                    {"name": "keys", "secret": {"secretName": "s"}},
                ],
                "containers": [
                    {
                        "name": "main",
                        "image": "busybox",
                        "command": ["sh", "-c"],
                        "args": ["echo ada"],
                        "env": [
                            {"name": "A", "value": "1"},
                            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                        ],
                        "resources": {"limits": {"memory": "1Gi"}},
                        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp", "readOnly": False}],
                        "imagePullPolicy": "Always",
                    }
                ],
            },
        },
    }


def test_kubernetes_own_spelling_is_taken() -> None:
    """What was written camelCase was dropped, and the Job ran with an empty value."""
    env = [
        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "B", "value_from": {"config_map_key_ref": {"name": "m", "key": "k", "optional": True}}},
        {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    volumes = [
        {"name": "c", "configMap": {"name": "m"}},
        {"name": "d", "emptyDir": {"sizeLimit": "1Gi"}},
        {"name": "s", "secret": {"secretName": "s", "defaultMode": 256}},
        {"name": "p", "persistentVolumeClaim": {"claimName": "p"}},
    ]
    mounts = [{"name": "c", "mountPath": "/c", "subPath": "x"}]
    spec = pod_of({"env": env, "volumes": volumes, "volume_mounts": mounts})
    assert spec["volumes"] == volumes
    assert spec["containers"][0]["volumeMounts"] == mounts
    assert [one["valueFrom"] for one in spec["containers"][0]["env"]] == [
        {"secretKeyRef": {"name": "s", "key": "k"}},
        {"configMapKeyRef": {"name": "m", "key": "k", "optional": True}},
        {"fieldRef": {"fieldPath": "status.podIP"}},
    ]


def test_values_are_texts_as_in_the_shell_and_python_kinds() -> None:
    values = {"A": True, "B": None, "C": {"x": [1, None]}, "D": 1.5, "E": ""}
    texts = [
        {"name": "A", "value": "true"},
        {"name": "C", "value": '{"x":[1,null]}'},
        {"name": "D", "value": "1.5"},
        {"name": "E", "value": ""},
    ]
    for env in (values, [{"name": name, "value": value} for name, value in values.items()]):
        assert container_of({"env": env})["env"] == texts


def test_a_null_inside_an_object_counts_as_absent() -> None:
    given = {
        "node_selector": {"disk": "ssd", "zone": "{{ zone }}"},
        "resources": {"limits": {"memory": "1Gi", "cpu": None}, "requests": None},
        "env": {"A": None},
    }
    pod = pod_of(given)
    assert pod["nodeSelector"] == {"disk": "ssd"}
    assert pod["containers"][0]["resources"] == {"limits": {"memory": "1Gi"}}


def test_a_wrong_value_inside_an_object_is_named_with_its_key() -> None:
    with pytest.raises(ConfigurationError, match=r"field 'node_selector\.disk' must be text, not list"):
        call(FakeCluster({}), {"node_selector": {"disk": ["ssd"]}})


def test_the_least_config_leaves_the_rest_to_kubernetes() -> None:
    assert pod_of({}) == {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox"}]}


def test_the_steps_input_is_not_taken_for_the_arguments() -> None:
    """The step's input overwrote argv."""
    assert container_of({"args": ["x"], "input": {"n": 1}})["args"] == ["x"]


def test_the_python_workers_form_is_taken() -> None:
    runtime = {"image": "alpine", "command": [True], "serviceAccountName": "r"}
    spec = pod_of({"image": None, "env": {"A": 1, "NONE": None}, "runtime": runtime})
    assert spec["serviceAccountName"] == "r"
    assert spec["containers"] == [
        {"name": "main", "image": "alpine", "command": ["true"], "env": [{"name": "A", "value": "1"}]}
    ]


def test_job_is_none_that_the_platforms_watcher_reports_too() -> None:
    """Its `call.done` came behind that of this worker, and the step had its bare state as the result."""
    assert not WATCHED & job_of({})["metadata"]["labels"].keys()


def test_names_fit_kubernetes_whatever_the_step_is_called() -> None:
    for step in ("Ein sehr langer Schritt mit Ümläuten", "___", "x"):
        metadata = job_of({}, step=step, execution_id=2**63 - 1)["metadata"]
        name = metadata["name"]
        assert len(name) <= 63
        assert not set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789-")
        label = metadata["labels"]["noetl-worker.step-name"]
        assert 0 < len(label) <= 63


def test_credential_may_be_named_as_in_every_kind() -> None:
    """protocol/tasks.md#fields: {source: credential, key: alias}; it was taken for the credential's own data."""
    cluster = FakeCluster({})
    auth = {"source": "credential", "key": "k8s"}
    made = run_tool(
        ContainerTool(cluster),
        {"image": "i", "wait": False, "auth": auth},
        credentials={"k8s": {"url": "https://cluster:6443", "token": "secret-token"}},
    )
    assert made.data["state"] == "created"
    assert cluster.requests[0].url.host == "cluster"
    assert cluster.requests[0].headers["authorization"] == "Bearer secret-token"
