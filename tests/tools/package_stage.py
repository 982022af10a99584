"""A worker for steps with packages: its settings, the wheels of its index, and its store."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from noetl_worker.testing import tool_context
from noetl_worker.tools.contract import ToolSettings
from noetl_worker.tools.memory_context import RecordedLogger
from noetl_worker.tools.process.confinement import Confinement
from noetl_worker.tools.registry import Registry
from tool_settings import tool_settings

from .wheels import wheel

NAMES = {"code": "import alpha, beta\nresult = [alpha.NAME, beta.NAME]"}


class Stage:
    """A worker's settings, its wheels, and its store."""

    def __init__(self, directory: Path, confinement: Confinement) -> None:
        self.wheels, self.packages = directory / "wheels", directory / "packages"
        self.config = directory / "uv.toml"
        self.confinement = confinement
        wheel(self.wheels, "alpha", "1.0", {"alpha.py": "NAME = 'alpha 1.0'\n"}, ["beta"])
        wheel(self.wheels, "beta", "2.0", {"beta.py": "NAME = 'beta 2.0'\n"})
        self.offline()
        self.registries: list[Registry] = []

    def offline(self) -> None:
        self.config.write_text(f'no-index = true\nfind-links = ["{self.wheels}"]\n')

    def online(self, url: str) -> None:
        self.config.write_text(f'[[index]]\nurl = "{url}"\ndefault = true\n')

    def settings(self, mode: str = "wheels", **more: str) -> ToolSettings:
        given = {"NOETL_WORKER_PACKAGES_DIR": str(self.packages), "UV_CONFIG_FILE": str(self.config)}
        return tool_settings(NOETL_WORKER_PYTHON_PACKAGES=mode, **given, **more)

    def worker(self, mode: str = "wheels", **more: str) -> Registry:
        made = Registry(plugins=False, confinement=self.confinement, settings=self.settings(mode, **more))
        self.registries.append(made)
        return made

    def environments(self) -> list[str]:
        return sorted(path.name for path in self.packages.glob("environments/*"))

    def unfinished(self) -> list[Path]:
        return list(self.packages.glob("building/*"))


class Ran:
    def __init__(self, data: Any, error: Any, logger: RecordedLogger, secrets: set[str]) -> None:
        self.data, self.error, self.log, self.secrets = data, error, logger.records, secrets

    @property
    def failure(self) -> tuple[str, bool]:
        return self.error.kind, self.error.retryable

    @property
    def said(self) -> str:
        return str(getattr(self.error, "message", self.error))


async def run(worker: Registry, config: Mapping[str, Any], *packages: str, **context: Any) -> Ran:
    """One step with these packages; an error that is raised is like one that is returned."""
    logger, secrets = RecordedLogger(), set[str]()
    whole = {**config, "deps": {"packages": list(packages)}} if packages else config
    made = tool_context(registry=worker, kind="python", logger=logger, secrets=secrets, **context)
    try:
        result = await worker.run_tool("python", whole, made)
    except Exception as error:  # the worker reports it
        return Ran(None, error, logger, secrets)
    return Ran(result.data, result.error, logger, secrets)


def sdist(directory: Path, tmp_path: Path, then: str = "pass") -> Path:
    """A package whose build leaves a mark, and then does something else."""
    mark = tmp_path / "built"
    source = tmp_path / "delta-1.0"
    source.mkdir()
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: delta\nVersion: 1.0\n")
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "delta"\nversion = "1.0"\n'
    )
    (source / "backend.py").write_text(
        f"""
import json, os, zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    with open({str(mark)!r}, "w") as file:
        json.dump([dict(os.environ), status["NoNewPrivs"].strip()], file)
    {then}
    name = "delta-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as archive:
        archive.writestr("delta.py", "NAME = 'delta'")
        archive.writestr("delta-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: delta\\nVersion: 1.0\\n")
        archive.writestr("delta-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\n")
        archive.writestr("delta-1.0.dist-info/RECORD", "")
    return name
"""
    )
    with tarfile.open(directory / "delta-1.0.tar.gz", "w:gz") as archive:
        archive.add(source, "delta-1.0")
    return mark
