"""The Dockerfile and the Cloud Build file, read word by word: nothing here runs an engine or a cluster."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from chart import CHART, one, rendered
from noetl_worker.cli import app_for
from noetl_worker.observability.probes import Health, pages_of
from noetl_worker.settings.settings import SETTINGS

ROOT = Path(__file__).parents[2]
BUILD = yaml.safe_load((ROOT / "deploy/cloudbuild.yaml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
OPERATE = (ROOT / "docs/operate.md").read_text(encoding="utf-8")


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


def only(instruction: str) -> str:
    (words,) = (words for name, words in final_stage() if name == instruction)
    return words


def only_argument(name: str) -> str:
    (value,) = (words.partition("=")[2] for kind, words in final_stage() if kind == "ARG" and words.startswith(name))
    return value


def script(step: str) -> list[list[str]]:
    """The commands of a step in words, with Cloud Build's doubled dollars as the shell gets them."""
    (found,) = (one for one in BUILD["steps"] if one["id"] == step)
    assert found["args"][0] == "-ec"
    return [shlex.split(line.replace("$$", "$")) for line in joined(found["args"][1])]


def options(words: list[str]) -> Iterator[tuple[str, str]]:
    """(--name, value) pairs; a switch has none."""
    for number, word in enumerate(words):
        if word.startswith("--"):
            following = words[number + 1 : number + 2]
            yield word, "" if not following or following[0].startswith("--") else following[0]


def has(values: Mapping[str, Any], dotted: str) -> bool:
    at: Any = values
    for key in dotted.split("."):
        if not isinstance(at, Mapping) or key not in at:
            return False
        at = at[key]
    return True


# ── the image ──


def test_image_runs_the_packages_script_under_a_reaper() -> None:
    entry = json.loads(only("ENTRYPOINT"))
    assert entry == ["tini", "--", "noetl-worker"]
    scripts = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.scripts]")[2]
    assert re.search(rf'^{entry[-1]} = "noetl_worker\.', scripts.partition("\n[")[0], re.MULTILINE)
    assert any("apt-get install" in words and "tini" in words.split() for name, words in final_stage() if name == "RUN")
    (command,) = json.loads(only("CMD"))
    assert command == "run"
    assert command in get_command(app_for()).commands  # type: ignore[attr-defined]


def test_image_asks_itself_for_what_the_worker_serves() -> None:
    switches, _, command = only("HEALTHCHECK").partition(" CMD ")
    assert switches.split() == ["--interval=10s", "--timeout=5s", "--start-period=30s", "--retries=6"]
    program, flag, code = json.loads(command)
    assert (program, flag) == ("python", "-c")
    (url,) = re.findall(r"urlopen\('([^']+)', timeout=4\)", code)
    port = only("EXPOSE")
    assert url == f"http://127.0.0.1:{port}/livez"
    assert "/livez" in pages_of(Health())
    (bind,) = (line.default for line in SETTINGS if line.variable == "WORKER_METRICS_BIND")
    assert bind == f"0.0.0.0:{port}"


def test_image_runs_as_the_charts_user_who_owns_the_outbox_and_is_not_root() -> None:
    user, group = only("USER").split(":")
    assert int(user) > 0
    assert int(group) > 0
    names = [name for name, _ in final_stage()]
    assert "RUN" not in names[names.index("USER") :]  # what is installed is root's
    (made,) = (words for name, words in final_stage() if name == "RUN" and "useradd" in words)
    assert f"useradd --uid {user} --gid {group} " in made
    assert f"groupadd --gid {group} " in made
    assert "install -d -o noetl -g noetl -m 0700 /var/lib/noetl-worker" in made
    pod = one(rendered({}), "StatefulSet")["spec"]["template"]["spec"]
    assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]) == (int(user), int(group))


def test_image_keeps_its_outbox_where_the_chart_mounts_a_volume() -> None:
    variables = dict(word.split("=", 1) for word in only("ENV").split())
    worker = one(rendered({}), "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    (set_by_chart,) = (v["value"] for v in worker["env"] if v["name"] == "NOETL_WORKER_OUTBOX_DIR")
    assert variables["NOETL_WORKER_OUTBOX_DIR"] == set_by_chart
    assert any(set_by_chart.startswith(mount["mountPath"]) for mount in worker["volumeMounts"])


def test_image_starts_nothing_that_a_command_can_have_left() -> None:
    """A command writes to /tmp. There a worker that starts again would find its `.env`, and its interpreter modules."""
    variables = dict(word.split("=", 1) for word in only("ENV").split())
    assert only("WORKDIR") == "/"
    assert {name: variables.get(name) for name in ("HOME", "PYTHONSAFEPATH", "PYTHONNOUSERSITE")} == {
        "HOME": "/tmp",  # else that of a user without an entry is the working directory, which is read-only
        "PYTHONSAFEPATH": "1",
        "PYTHONNOUSERSITE": "1",
    }


def test_image_has_the_wheel_that_is_built_from_the_sdist() -> None:
    stages = [line.split()[-1] for line in joined(DOCKERFILE) if line.startswith("FROM ") and " AS " in line]
    assert stages == ["build"]
    assert "NOETL_WORKER_BUILD=rust /build/bin/python -m build --outdir /dist" in DOCKERFILE
    (installed,) = (words for name, words in final_stage() if name == "RUN" and "pip install" in words)
    assert installed.startswith("--mount=type=bind,from=build,source=/dist,target=/dist pip install ")
    assert '"$(echo /dist/*.whl)[${EXTRAS}]"' in installed


def test_image_has_the_packages_of_what_a_variable_alone_switches_on() -> None:
    """Without them a worker with OTEL_EXPORTER_OTLP_ENDPOINT or NATS_CREDS refuses its start."""
    extras = set(only_argument("EXTRAS").split(","))
    assert {"otel", "nkeys"} <= extras
    (line,) = re.findall(r"It has the extras (.*?); `--build-arg EXTRAS=", OPERATE, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", line)) == extras


def test_chart_hands_on_what_the_page_on_traces_sets() -> None:
    (name, value) = re.findall(r"`--set settings\.(\w+)=([^`]+)`", OPERATE.partition("\n## Traces\n")[2])[0]
    worker = one(rendered({"settings": {name: value}}), "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": value} in worker["env"]


# ── Cloud Build ──


def test_steps_are_image_cluster_and_deploy_in_this_order() -> None:
    assert [step["id"] for step in BUILD["steps"]] == ["image", "cluster", "deploy"]
    assert all("waitFor" not in step for step in BUILD["steps"])  # one after the other


def test_image_step_builds_the_file_that_is_there_and_pushes_it() -> None:
    create, build = script("image")
    assert create == ["docker", "buildx", "create", "--use"]
    assert build[:3] == ["docker", "buildx", "build"]
    assert dict(options(build)) == {
        "--file": "deploy/Dockerfile",
        "--provenance": "mode=max",
        "--sbom": "true",
        "--push": "",
        "--tag": "${_IMAGE}:${_TAG}",
    }
    assert build[-1] == "."


def test_deploy_step_installs_or_upgrades_the_chart_with_the_image_that_was_built() -> None:
    (helm,) = script("deploy")
    assert helm[:4] == ["helm", "upgrade", "${_RELEASE}", "deploy/helm/noetl-worker"]
    assert (ROOT / helm[3]).resolve() == CHART.resolve()
    given = list(options(helm))
    assert [pair for pair in given if pair[0] != "--set"] == [
        ("--install", ""),
        ("--atomic", ""),
        ("--timeout", "10m"),
        ("--namespace", "${_NAMESPACE}"),
        ("--values", "${_VALUES}"),
        ("--kube-apiserver", "https://$(cat /workspace/.cluster-endpoint)"),
        ("--kube-ca-file", "/workspace/.cluster-ca.pem"),
        ("--kube-token", "$(cat /workspace/.cluster-token)"),
    ]
    changed = dict(value.split("=", 1) for name, value in given if name == "--set")
    assert changed == {"image.repository": "${_IMAGE}", "image.tag": "${_TAG}"}
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert [key for key in changed if not has(values, key)] == []
    assert (ROOT / BUILD["substitutions"]["_VALUES"]).is_file()


def test_what_helm_reads_of_the_cluster_is_what_the_step_before_writes() -> None:
    (cluster,) = (step for step in BUILD["steps"] if step["id"] == "cluster")
    written = {
        path: command.strip() for command, path in re.findall(r"^(.*)> (/workspace/\S+)$", cluster["args"][1], re.M)
    }
    assert written == {
        "/workspace/.cluster-endpoint": "describe endpoint",
        "/workspace/.cluster-ca.pem": "describe masterAuth.clusterCaCertificate | base64 -d",
        "/workspace/.cluster-token": "gcloud auth print-access-token",
    }
    assert joined(cluster["args"][1])[0] == "umask 077"  # the token is a secret
    (deploy,) = (step for step in BUILD["steps"] if step["id"] == "deploy")
    assert set(re.findall(r"/workspace/[\w.-]+", deploy["args"][1])) == set(written)
    assert 'clusters describe "${_CLUSTER}" --region "${_REGION}" --format "value($$1)"' in cluster["args"][1]


@pytest.mark.parametrize("name", ["_CLUSTER", "_REGION", "_TAG"])
def test_command_at_the_top_sets_what_can_be_substituted(name: str) -> None:
    text = (ROOT / "deploy/cloudbuild.yaml").read_text(encoding="utf-8")
    (command,) = re.findall(r"^# (gcloud builds submit .*)$", text, re.M)
    words = shlex.split(command)
    assert words[:5] == ["gcloud", "builds", "submit", "--config", "deploy/cloudbuild.yaml"]
    given = dict(pair.split("=", 1) for pair in words[words.index("--substitutions") + 1].split(","))
    assert set(given) <= set(BUILD["substitutions"])
    assert name in given
