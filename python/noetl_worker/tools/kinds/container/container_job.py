"""A Kubernetes Job for one container: its manifest, and the state that the Job and its pod report."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import uuid4

from noetl_worker.errors import ConfigurationError
from noetl_worker.models.wire import JsonValue, fields_of
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.fields import check_numbers
from noetl_worker.tools.kinds.container.job_fields import ContainerFields, JobFields
from noetl_worker.tools.process import process

CONTAINER_NAME: Final = "main"
_DEADLINE_GRACE_S: Final = 30
"""Seconds by which the Job's own deadline in Kubernetes exceeds the worker's timeout. The deadline ends a Job that no
worker watches any more."""
_NEVER_STARTS: Final = frozenset(
    {"InvalidImageName", "ImagePullBackOff", "ErrImageNeverPull", "CreateContainerFieldsError", "CreateContainerError"}
)
_VOLUME_SOURCES: Final[Mapping[str, Mapping[str, str]]] = {
    "empty_dir": {"medium": "medium", "size_limit": "sizeLimit"},
    "persistent_volume_claim": {"claim_name": "claimName", "read_only": "readOnly"},
    "config_map": {"name": "name"},
    "secret": {"secret_name": "secretName", "secretName": "secretName", "name": "secretName"},
}
_VARIABLE_SOURCES: Final[Mapping[str, tuple[str, ...]]] = {
    "secretKeyRef": ("name", "key"),
    "configMapKeyRef": ("name", "key"),
    "fieldRef": ("fieldPath",),
    "resourceFieldRef": ("resource",),
}
"""Kind of Kubernetes source (`valueFrom`) for an environment variable -> fields that the source must have."""

_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NOT_IN_LABELS: Final = re.compile(r"[^A-Za-z0-9_.-]+")
_CAPITAL: Final = re.compile(r"(?<!^)(?=[A-Z])")
_VARIABLE: Final = re.compile(r"[^=\x00-\x1f\x7f]+")
_RESOURCES: Final = ("requests", "limits", "claims")

# ── checks for a `__post_init__`: each raises ConfigurationError for a value that no Job can have ─────


def check_variable_name(name: str) -> None:
    if not _VARIABLE.fullmatch(name):
        raise ConfigurationError(
            f"env: {name!r} cannot be a variable: no '=' and no control character may be in it", field=f"env.{name}"
        )


def check_job(config: ContainerFields | JobFields) -> None:
    """Check the config fields that the kinds `container` and `script` share: retries, time to live, namespace and
    resources. Raise ConfigurationError for a wrong value."""
    check_numbers(0, backoff_limit=config.backoff_limit, ttl_seconds_after_finished=config.ttl_seconds_after_finished)
    if not _NAMESPACE.fullmatch(config.namespace):
        raise ConfigurationError(
            f"'namespace' {config.namespace!r} is not allowed: use small letters, digits and -, at most 63",
            field="namespace",
        )
    for name, amounts in config.resources.items():
        if name not in _RESOURCES:
            raise ConfigurationError(
                f"resources: {name!r} is none of {', '.join(_RESOURCES)}", field=f"resources.{name}"
            )
        if name != "claims" and amounts is not None and not isinstance(amounts, Mapping):
            raise ConfigurationError(
                f"resources: {name!r} must be an object like {{cpu: 500m, memory: 1Gi}}", field=f"resources.{name}"
            )


def _resources(resources: Mapping[str, Any]) -> dict[str, JsonValue] | None:
    """Return the field `resources` of a container's manifest, without null values. Return None if nothing is left."""
    present = {name: _present(given) if isinstance(given, Mapping) else given for name, given in resources.items()}
    return _present(present) or None


def check_volumes(volumes: Sequence[Mapping[str, Any]], mounts: Sequence[Mapping[str, Any]]) -> None:
    """Check that each volume has a name and one source. Check that each mount has a path and the name of one of the
    volumes."""
    names = [str(_volume(volume)["name"]) for volume in volumes]
    for mount in mounts:
        if not mount.get("name") or not mount.get("mount_path", mount.get("mountPath")):
            raise ConfigurationError("each of volume_mounts needs 'name' and 'mount_path'", field="volume_mounts")
        if str(mount["name"]) not in names:
            there = ", ".join(names) or "none"
            raise ConfigurationError(
                f"volume_mounts: there is no volume {mount['name']!r}; there are: {there}", field="volume_mounts"
            )


def manifest(config: ContainerFields, context: ToolContext, timeout_s: float) -> dict[str, JsonValue]:
    """Return the manifest of the Job for a `container` step. Kubernetes ends the Job 30 seconds after `timeout_s`, even
    if no worker is left to delete the Job."""
    container: dict[str, JsonValue] = {
        "command": config.command,
        "args": config.args,
        "env": [variable for variable in map(job_variable, config.variables) if variable is not None] or None,
        "volumeMounts": [_camel(mount) for mount in config.volume_mounts] or None,
    }
    pod: dict[str, JsonValue] = {
        "restartPolicy": config.restart_policy,
        "nodeSelector": config.node_selector or None,
        "tolerations": [_camel(toleration) for toleration in config.tolerations] or None,
        "volumes": [_volume(volume) for volume in config.volumes] or None,
    }
    metadata = object_metadata("container", job_name(context), config.namespace, context)
    return job_manifest(config, metadata, container, pod, deadline_s=math.ceil(timeout_s) + _DEADLINE_GRACE_S)


def job_manifest(
    config: ContainerFields | JobFields,
    metadata: Mapping[str, JsonValue],
    container: Mapping[str, JsonValue],
    pod: Mapping[str, JsonValue],
    *,
    deadline_s: int,
) -> dict[str, JsonValue]:
    """Return the manifest of a Job with one container, without null values. `container` and `pod` have the manifest
    fields in which the kinds `container` and `script` differ."""
    whole: dict[str, JsonValue] = {
        "name": CONTAINER_NAME,
        "image": config.image,
        "imagePullPolicy": config.image_pull_policy,
        "resources": _resources(config.resources),
        **container,
    }
    spec = _present({"containers": [_present(whole)], "serviceAccountName": config.service_account or None, **pod})
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": dict(metadata),
        "spec": {
            "backoffLimit": config.backoff_limit,
            "activeDeadlineSeconds": deadline_s,
            "ttlSecondsAfterFinished": config.ttl_seconds_after_finished,
            "template": {"metadata": {"labels": metadata["labels"]}, "spec": spec},
        },
    }


def with_owner(manifest: Mapping[str, JsonValue], job: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Return an object's manifest with the Job added as its owner. Kubernetes then deletes the object together with the
    Job."""
    metadata = job["metadata"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
    return {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": [owner]}}


def job_name(context: ToolContext) -> str:
    """Return the Job's name: `noetl-container-<step>-<execution>-<six hex digits>`, at most 63 characters.

    A redelivered command gets the same name again, and so finds the existing Job. A task of a sequence may run several
    times within one command. Then each Job gets a new name.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", context.command.step.lower())[:20].strip("-") or "step"
    return f"noetl-container-{slug}-{context.command.execution_id}-{unique_hex_digits(context, 6)}"


def unique_hex_digits(context: ToolContext, count: int) -> str:
    """Return `count` hex digits that make a Job's name unique. Each delivery of one attempt of a command gives the same
    digits. A task of a sequence gets new digits at each run."""
    command = context.command
    identity = uuid4().hex if "_task" in context.values.variables else f"{command.command_id}:{command.attempt}"
    return hashlib.sha256(identity.encode()).hexdigest()[:count]


def object_metadata(kind: str, name: str, namespace: str, context: ToolContext) -> dict[str, JsonValue]:
    """Return the metadata of a Job, ConfigMap or Secret, with labels by which an operator finds the step's Job.

    differs-from-upstream: there are no labels `noetl.execution-id` and `noetl.step-name`. For a Job with these labels
    the platform's k8s-watcher posts a second `call.done`, in addition to the command's own. (read in the source of the
    watcher, noetl/ops)
    """
    # A label must begin and end with a letter or a digit.
    step = _NOT_IN_LABELS.sub("-", context.command.step).lstrip("-._")[:63].rstrip("-._")
    labels = {
        "app.kubernetes.io/managed-by": "noetl-worker",
        "noetl-worker.execution-id": str(context.command.execution_id),
        "noetl-worker.step-name": step or "step",
        "noetl-worker.tool-kind": kind,
    }
    return {"name": name, "namespace": namespace, "labels": labels}


def job_variable(entry: Mapping[str, Any]) -> dict[str, JsonValue] | None:
    """Convert a config's environment variable to the form in a Kubernetes manifest. Return None for a variable with the
    value null: the container does not get the variable.

    Raises:
        ConfigurationError: the variable has no name, or not exactly one supported source of a value.
    """
    if not entry.get("name"):
        raise ConfigurationError("each of env needs 'name'", field="env")
    name, given = str(entry["name"]), {_camel_word(key): value for key, value in entry.items() if key != "name"}
    check_variable_name(name)
    if len(given) == 2 and given.keys() == {"value", "valueFrom"}:
        raise ConfigurationError(
            f"container env var {name!r}: value and value_from are mutually exclusive; keep one", field=f"env.{name}"
        )
    if given.keys() == {"value"}:
        text = process.environment_text({name: given["value"]})
        return {"name": name, "value": text[name]} if text else None
    if given.keys() != {"valueFrom"}:
        there = ", ".join(entry.keys() - {"name"}) or "nothing"
        raise ConfigurationError(
            f"container env var {name!r} has {there} beside its name; give value or value_from, and nothing else",
            field=f"env.{name}",
        )
    return {"name": name, "valueFrom": _variable_source(name, given["valueFrom"])}


def _variable_source(name: str, given: Any) -> dict[str, JsonValue]:
    source = {_camel_word(str(key)): value for key, value in given.items()} if isinstance(given, Mapping) else {}
    if source.keys() == {"secretName", "secretKey"}:
        return {"secretKeyRef": {"name": str(source["secretName"]), "key": str(source["secretKey"])}}
    [word, about] = next(iter(source.items())) if len(source) == 1 else ("", None)
    if word not in _VARIABLE_SOURCES:
        raise ConfigurationError(
            f"container env var {name!r}: value_from needs secret_name and secret_key, "
            f"or one of {', '.join(_VARIABLE_SOURCES)}",
            field=f"env.{name}",
        )
    needed = _VARIABLE_SOURCES[word]
    fields = _camel(about) if isinstance(about, Mapping) else {}
    if not all(fields.get(field) for field in needed):
        raise ConfigurationError(
            f"container env var {name!r}: {word} needs {' and '.join(needed)}", field=f"env.{name}"
        )
    return {word: fields}


def _volume(entry: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Convert a config's volume to the form in a Kubernetes manifest. Raise ConfigurationError if the volume has no
    name, or not exactly one of the sources in `_VOLUME_SOURCES`."""
    name, sources = entry.get("name"), {snake_word(key): value for key, value in entry.items() if key != "name"}
    if not name or len(sources) != 1 or not sources.keys() <= _VOLUME_SOURCES.keys():
        raise ConfigurationError(
            f"each of volumes needs 'name' and exactly one of {', '.join(_VOLUME_SOURCES)}", field="volumes"
        )
    [(source, given)] = sources.items()
    about, names = given or {}, _VOLUME_SOURCES[source]
    if not isinstance(about, Mapping):
        raise ConfigurationError(f"volume {name!r}: {source!r} must be an object", field="volumes")
    if source != "empty_dir" and not about:
        raise ConfigurationError(f"volume {name!r}: {source!r} needs {next(iter(names))!r}", field="volumes")
    return {"name": name, _camel_word(source): {names.get(key, _camel_word(key)): about[key] for key in about}}


def _camel(entry: Mapping[str, Any]) -> dict[str, JsonValue]:
    return {_camel_word(key): value for key, value in entry.items()}


def _camel_word(word: str) -> str:
    first, *rest = word.split("_")
    return first + "".join(part.capitalize() for part in rest)


def snake_word(word: str) -> str:
    return _CAPITAL.sub("_", word).lower()


def _present(fields: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {key: value for key, value in fields.items() if value is not None}


# ── reading the cluster's answers ────────────────────────────────────────────────────────────────


def objects_in(value: JsonValue) -> list[Mapping[str, Any]]:
    """Return only the JSON objects of a list, or an empty list if the value is not a list."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


class JobEnd(NamedTuple):
    """Final state of a Kubernetes Job, with the reason and message that Kubernetes gave."""

    state: str
    """succeeded, failed or timeout."""
    reason: str | None
    message: str | None


def job_end(job: Mapping[str, Any]) -> JobEnd | None:
    """Return how a Job ended, from the conditions in its status. Return None while the Job runs."""
    for condition in objects_in(fields_of(job.get("status")).get("conditions")):
        if condition.get("status") == "True" and condition.get("type") in ("Complete", "Failed"):
            state = "succeeded" if condition["type"] == "Complete" else "failed"
            return JobEnd(state, condition.get("reason"), condition.get("message"))
    return None


@dataclass(frozen=True, slots=True)
class PodState:
    """State of the newest pod of a Kubernetes Job. All fields are None if the Job has no pod yet."""

    name: str | None = None
    exit_code: int | None = None
    reason: str | None = None
    """Reason that Kubernetes gives, such as OOMKilled, Error, ImagePullBackOff, Unschedulable or Evicted."""
    message: str | None = None
    started_at: str | None = None
    finished_at: str | None = None

    @property
    def never_starts(self) -> bool:
        return self.reason in _NEVER_STARTS


def pod_state(pods: Sequence[Mapping[str, Any]]) -> PodState:
    """Return the state of the newest of a Job's pods."""
    if not pods:
        return PodState()
    pod = max(pods, key=lambda candidate: str(fields_of(candidate.get("metadata")).get("creationTimestamp", "")))
    status = fields_of(pod.get("status"))
    ours = [item for item in objects_in(status.get("containerStatuses")) if item.get("name") == CONTAINER_NAME]
    state = fields_of(ours[0].get("state")) if ours else {}
    ended, waiting = fields_of(state.get("terminated")), fields_of(state.get("waiting"))
    conditions = objects_in(status.get("conditions"))
    unscheduled = next((condition for condition in conditions if condition.get("reason") == "Unschedulable"), {})
    reported = ended or waiting or unscheduled
    return PodState(
        name=fields_of(pod.get("metadata")).get("name"),
        exit_code=ended.get("exitCode"),
        reason=reported.get("reason") or status.get("reason"),
        message=reported.get("message") or status.get("message"),
        started_at=ended.get("startedAt"),
        finished_at=ended.get("finishedAt"),
    )
