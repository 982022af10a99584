"""`make image-test`: builds the image, and runs it as the chart does before a real nats-server and a development plane.

As a user who is nobody, on a root that is read-only, without capabilities, with the rendered chart's variables: the
chart's job makes the durable, a command of each kind completes, nothing can be written but what the chart mounts, the
health check of the Dockerfile answers, SIGTERM drains and the exit code is 0. Once as the image's user before a Python
plane, once as a user that no file knows before a Rust one. Linux, with podman (as root) or docker.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests"), str(ROOT / "tests/packaging")]

from chart import pod, rendered  # noqa: E402
from integration.house import House  # noqa: E402 - found by the line above
from integration.processes import Probe, until  # noqa: E402
from noetl_worker.authoring.dev.nats_server import NatsServer  # noqa: E402
from noetl_worker.authoring.dev.plane import DevControlPlane, RawCommand  # noqa: E402
from noetl_worker.authoring.dev.settings import PlaneSettings  # noqa: E402
from noetl_worker.models import Dialect  # noqa: E402

IMAGE: Final = "noetl-worker:image-test"
PROBES: Final = Probe(9090)
RUNS: Final = ((Dialect.PYTHON, "10001:10001"), (Dialect.RUST, "23456:10001"))
WRITES: Final = """
id -u
for place in / /usr /etc /home /var/lib /usr/local/lib; do
  if touch "$place/written" 2>/dev/null; then echo "wrote to $place"; fi
done
touch /tmp/written "$HOME/also" && echo scratch
"""


def kinds(plane_url: str) -> dict[str, RawCommand]:
    return {
        "shell": RawCommand("shell", {"command": WRITES}),
        "python": RawCommand("python", {"code": "import tempfile\nresult = {'name': tempfile.mkstemp()[1]}"}),
        "http": RawCommand("http", {"url": f"{plane_url}/api/health", "method": "GET"}),
        "duckdb": RawCommand("duckdb", {"query": "SELECT sum(i) AS total FROM range(1000000) t(i)"}),
    }


class Engine:
    """podman or docker."""

    def __init__(self, name: str, ulimits: Sequence[str]) -> None:
        self.name: Final = name
        self._limits: Final = [f"--ulimit={limit}" for limit in ulimits]

    def __call__(self, *arguments: str) -> str:
        """Its output; what fails is said with all that it wrote."""
        done = subprocess.run([self.name, *arguments], capture_output=True, text=True, check=False, timeout=600)
        if done.returncode:
            raise RuntimeError(f"{self.name} {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def build(self, *, local_bases: bool) -> None:
        # Podman's own format has no health check.
        more = ["--format", "docker"] if self.name == "podman" else []
        dockerfile = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
        if local_bases:
            more += ["--pull=never", "--network=host"]
            dockerfile = re.sub(r"@sha256:\w+", "", dockerfile)  # those of local_bases.sh have digests of their own
        with tempfile.NamedTemporaryFile("w", suffix=".Dockerfile", encoding="utf-8") as file:
            file.write(dockerfile)
            file.flush()
            command = [self.name, "build", *more, "-f", file.name, "-t", IMAGE, str(ROOT)]
            subprocess.run(command, check=True, timeout=3600)

    def health_check(self) -> list[str]:
        """The command of the Dockerfile's HEALTHCHECK, from the image."""
        (image,) = json.loads(self("image", "inspect", IMAGE))
        how, *command = (image.get("Healthcheck") or image["Config"]["Healthcheck"])["Test"]
        assert how == "CMD", how
        return list(command)

    @contextmanager
    def container(
        self, spec: Mapping[str, Any], user: str, mounts: Mapping[str, Path], changed: Mapping[str, str]
    ) -> Iterator[str]:
        """A container of a rendered pod, started; its name. Removed at the end, with its log where something failed."""
        assert spec["securityContext"]["readOnlyRootFilesystem"]
        of_the_chart = {setting["name"]: setting["value"] for setting in spec["env"] if "value" in setting}
        variables = {**of_the_chart, **changed}
        name = f"noetl-image-{uuid.uuid4().hex[:12]}"
        self(
            *("run", "--detach", "--name", name, "--network=host", "--read-only", f"--user={user}", *self._limits),
            *("--cap-drop=ALL", "--security-opt=no-new-privileges"),
            *(f"--volume={mounts[mount['mountPath']]}:{mount['mountPath']}" for mount in spec["volumeMounts"]),
            *(f"--env={key}={value}" for key, value in variables.items()),
            IMAGE,
            *spec.get("args", []),
        )
        try:
            yield name
        except BaseException:
            print(subprocess.run([self.name, "logs", name], capture_output=True, text=True, check=False), flush=True)
            raise
        finally:
            self("rm", "--force", name)


@contextmanager
def volumes(*paths: str) -> Iterator[dict[str, Path]]:
    """Directories like the chart's emptyDirs, by where they are mounted."""
    with tempfile.TemporaryDirectory(prefix="noetl-image-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o755)
        found = {path: Path(directory) / path.replace("/", "_") for path in paths}
        for volume in found.values():
            volume.mkdir()
            volume.chmod(0o2777)
        yield found


def specs() -> tuple[dict[str, Any], dict[str, Any]]:
    """The containers of the chart's job and of its worker, for services of a cluster: the chart refuses a loopback."""
    documents = rendered({"nats": {"url": "nats://nats:4222"}, "server": {"url": "http://plane:8082"}})
    return pod(documents, "Job")["containers"][0], pod(documents)["containers"][0]


async def tried(engine: Engine, dialect: Dialect, user: str) -> None:
    async with (
        NatsServer() as nats,
        DevControlPlane(PlaneSettings(dialect=dialect), nats_url=nats.url) as plane,
    ):
        home = House(nats, plane)
        job, worker = specs()
        addresses = {"NATS_URL": nats.url, "NOETL_SERVER_URL": plane.url}
        with volumes("/tmp", "/var/lib/noetl-worker") as mounts:
            with engine.container(job, user, mounts, addresses) as name:
                assert await asyncio.to_thread(engine, "wait", name) == "0", engine("logs", name)
            print(f"{dialect.value}, user {user}: the chart's job made the durable")
            more = {"WORKER_ID": "pool-0", "NOETL_CONTROL_PLANE": dialect.value, "NOETL_WORKER_OUTBOX": "always"}
            with engine.container(worker, user, mounts, {**addresses, **more}) as name:
                await until(PROBES.is_ready, "readiness")
                await asyncio.to_thread(engine, "exec", name, *engine.health_check())
                print("ready; the health check answers")
                print(engine("exec", name, "uv", "--version"), "for packages of python steps")
                await each_kind(home, user)
                assert engine("exec", name, "ls", "/var/lib/noetl-worker/outbox")
                print("the outbox is on its volume")
                await drain(engine, home, name, mounts["/tmp"])


async def each_kind(home: House, user: str) -> None:
    """Each completes, with what it found: who it is, where it may write, an answer, a sum."""
    expected = {
        "shell": f"{user.partition(':')[0]}\\nscratch",
        "python": "/tmp/",
        "http": '"status_code": 200',
        "duckdb": '"row_count": 1',
    }
    issued = await home.plane.create_commands(kinds(home.plane.url).values())
    await home.wait_terminal(*(command.event_id for command in issued))
    for (kind, part), command in zip(expected.items(), issued, strict=True):
        events = home.plane.events_of_command(command.event_id)
        results = json.dumps([event.result for event in events])
        assert events[-1].event_type == "command.completed", (kind, events)
        assert part in results, (kind, results)
        assert "wrote to" not in results, (kind, results)
        print(f"{kind}: {events[-1].event_type}")


async def drain(engine: Engine, home: House, name: str, scratch: Path) -> None:
    """SIGTERM while a command runs: it ends, and then the worker."""
    waits = "touch /tmp/began; until [ -e /tmp/go ]; do sleep 0.05; done; echo drained"
    (one,) = await home.plane.create_commands([RawCommand("shell", {"command": waits})])
    await until((scratch / "began").exists, "the command's start")
    engine("kill", "--signal=TERM", name)

    async def draining() -> bool:
        return not await PROBES.is_ready()

    await until(draining, "the drain")
    (scratch / "go").touch()
    code = await asyncio.to_thread(engine, "wait", name)
    assert code == "0", (code, engine("logs", name))
    events = [event.event_type for event in home.plane.events_of_command(one.event_id)]
    assert events[-1] == "command.completed", events
    await home.wait_settled()
    print("SIGTERM: the command that ran completed, and the exit code is 0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="podman", choices=["podman", "docker"])
    parser.add_argument("--ulimits", default="", help="for the engine: nofile=1024:4096 nproc=1000:1000")
    parser.add_argument("--local-bases", action="store_true", help="the base images are local_bases.sh's")
    parser.add_argument("--no-build", action="store_true", help="the image is there already")
    options = parser.parse_args()
    engine = Engine(options.engine, options.ulimits.split())
    if not options.no_build:
        engine.build(local_bases=options.local_bases)
    for dialect, user in RUNS:
        asyncio.run(tried(engine, dialect, user))
    print(f"{IMAGE} runs")


if __name__ == "__main__":
    main()
