"""Config fields that describe a Kubernetes Job: those of kind `container`, and those of the object `job` of kind
`script`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class ContainerFields:
    """Config fields of a `container` step, which describe its Kubernetes Job. `ContainerConfig` checks them."""

    image: str | None = None
    """Image to run."""
    command: list[str] | None = None
    """Program and its first arguments. Absent: the command that the image defines."""
    args: list[str] | None = None
    """Arguments of the program. Absent: the arguments that the image defines."""
    env: list[dict[str, Any]] | dict[str, Any] = field(default_factory=list)
    """Environment variables: {name: value}, or a list of {name, value} and {name, value_from: {secret_name,
    secret_key}}. Kubernetes' valueFrom with secretKeyRef, configMapKeyRef, fieldRef or resourceFieldRef works too. A
    variable with the value null is left out."""
    resources: dict[str, Any] = field(default_factory=dict)
    """CPU, memory and other resources of the container, as an object with Kubernetes' `requests` and `limits`."""
    auth: str | dict[str, Any] | None = None
    """Alias of a credential with url, token and ca_file of a cluster; the worker's own cluster when absent."""
    namespace: str = "noetl"
    """Namespace of the Job."""
    service_account: str | None = None
    """Service account of the pod; absent: the default account of the namespace."""
    backoff_limit: int = 0
    """Number of retries by Kubernetes after a failure."""
    restart_policy: Literal["Never", "OnFailure"] = "Never"
    """Policy for a failed container. With OnFailure Kubernetes starts the container again in the same pod. With Never
    each retry gets a new pod."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """Image pull policy; Kubernetes decides when absent."""
    node_selector: dict[str, str] = field(default_factory=dict)
    """Labels that a node of the cluster must have to run the pod."""
    tolerations: list[dict[str, Any]] = field(default_factory=list)
    """Tolerations of the pod for tainted nodes, as Kubernetes writes tolerations."""
    volumes: list[dict[str, Any]] = field(default_factory=list)
    """Volumes of the pod: objects with a name and one of empty_dir, persistent_volume_claim, config_map, secret;
    Kubernetes' spellings are accepted too."""
    volume_mounts: list[dict[str, Any]] = field(default_factory=list)
    """Mounts of the `volumes` in the container: objects {name, mount_path, sub_path, read_only}."""
    ttl_seconds_after_finished: int = 300
    """Seconds until Kubernetes removes the ended Job."""
    wait: bool = True
    """false: only create the Job. The playbook does not learn the Job's outcome."""
    max_log_bytes: int = 262_144
    """Maximum bytes of output in the result, from the beginning of the output."""
    runtime: dict[str, Any] = field(default_factory=dict)
    """Object with any of the fields image, namespace, command, args, env, serviceAccountName and resources, as NoETL's
    Python worker reads it. A field in `runtime` replaces the field of the same name in the step."""
    timeout: float | None = None
    """Longest time in seconds, after which the Job is deleted; absent: the command's remaining time."""

    @property
    def variables(self) -> list[dict[str, Any]]:
        """Return the environment variables in the list form of `env`: one object with `name` for each variable."""
        if isinstance(self.env, Mapping):
            return [{"name": name, "value": value} for name, value in self.env.items() if value is not None]
        return self.env


@dataclass(frozen=True, slots=True)
class JobFields:
    """Fields of the config object `job` of kind `script`, which describe its Kubernetes Job. `JobConfig` checks
    them."""

    image: str = "python:3.11-slim"
    namespace: str = "noetl"
    ttl_seconds_after_finished: int = 300
    backoff_limit: int = 3
    timeout: float = 600.0
    """Seconds, retries included, after which Kubernetes ends the Job."""
    install_dependencies: list[str] = field(default_factory=list)
    """Packages that pip installs before the script starts, such as `requests==2.32`."""
    resources: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables. The worker puts the variables into a Secret, and Kubernetes deletes this Secret with the
    Job."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    service_account: str | None = None
