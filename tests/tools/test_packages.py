"""Packages of python steps: installed from an index that the tests make."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from closed_port import closed_port
from interpreters import candidates, works
from noetl_worker.testing import tool_context
from noetl_worker.tools.kinds.python.packages.store import PackageStore
from noetl_worker.tools.kinds.python.packages.uv import uv_program
from noetl_worker.tools.process import landlock
from noetl_worker.tools.process.confinement import Confinement, has_domains
from patience import until

from .package_stage import NAMES, Stage, run, sdist
from .processes import until_gone
from .wheels import Index, served, wheel

pytestmark = pytest.mark.skipif(uv_program() is None, reason="needs uv")


@pytest.fixture
async def stage(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    made = Stage(tmp_path, Confinement(getattr(request, "param", "basic")))
    yield made
    for registry in made.registries:
        await registry.aclose()


@pytest.fixture
def index(stage: Stage) -> Iterator[Index]:
    with served(stage.wheels) as running:
        stage.online(running.url())
        yield running


WITH_AND_WITHOUT_ISOLATION = pytest.mark.parametrize("stage", ["basic", "off"], indirect=True)


@WITH_AND_WITHOUT_ISOLATION
async def test_step_finds_its_packages_and_what_they_need_and_nothing_else(stage: Stage) -> None:
    worker = stage.worker()
    code = """
import importlib.util, subprocess, sys, sysconfig
import alpha, beta
again = subprocess.run([sys.executable, "-c", "import beta; print(beta.NAME)"], capture_output=True, text=True)
result = {
    "names": [alpha.NAME, beta.NAME],
    "again": again.stdout,
    "of_the_worker": importlib.util.find_spec("noetl_worker") is not None,
    "is_one": sys.prefix == sysconfig.get_path("data") != sys.base_prefix,
}
"""
    ran = await run(worker, {"code": code}, "alpha==1.*")
    names = ["alpha 1.0", "beta 2.0"]
    assert ran.data == {"names": names, "again": "beta 2.0\n", "of_the_worker": False, "is_one": True}, ran.said
    assert ("info", "packages_installing", {"packages": 2, "requirements": ["alpha==1.*"]}) in ran.log
    without = await run(worker, {"code": "import importlib.util\nresult = importlib.util.find_spec('alpha') is None"})
    assert without.data is True


async def test_block_in_the_code_or_its_file_is_the_same_environment(
    stage: Stage, index: Index, tmp_path: Path
) -> None:
    worker = stage.worker()
    block = '# /// script\n# requires-python = ">=3.9"\n# dependencies = [\n#   "Alpha==1.*",\n# ]\n# ///\n'
    first = await run(worker, {"code": block + NAMES["code"]})
    assert first.data == ["alpha 1.0", "beta 2.0"], first.said
    asked = index.requests
    second = await run(worker, NAMES, "alpha==1.*")
    assert (second.data, second.log, index.requests) == (first.data, [], asked)
    script = tmp_path / "step.py"
    script.write_text(block + NAMES["code"])
    of_a_file = await run(worker, {"script": str(script)})
    assert (of_a_file.data, of_a_file.log, index.requests) == (first.data, [], asked), of_a_file.said
    assert len(stage.environments()) == 1
    upstream = await run(worker, {**NAMES, "deps": {"packages": {"tenant": ["alpha==1.*"], "other": []}}})
    assert (upstream.data, upstream.log) == (first.data, [])


async def test_environment_of_one_worker_is_that_of_all_and_needs_no_index(stage: Stage, index: Index) -> None:
    cold = await run(stage.worker(), NAMES, "alpha")
    assert cold.data == ["alpha 1.0", "beta 2.0"], cold.said
    shutil.rmtree(stage.wheels)
    asked = index.requests
    warm = await run(stage.worker(), NAMES, "alpha")
    assert (warm.data, warm.log, index.requests) == (cold.data, [], asked)


async def test_two_workers_at_once_install_once(stage: Stage, index: Index) -> None:
    workers = [stage.worker(), stage.worker()]
    both = await asyncio.gather(*(run(worker, NAMES, "alpha") for worker in workers for _ in range(2)))
    assert [one.data for one in both] == [["alpha 1.0", "beta 2.0"]] * 4
    assert sum(len(one.log) for one in both) == 1
    assert (len(stage.environments()), stage.unfinished()) == (1, [])


async def test_what_was_resolved_stays_until_it_is_forgotten(stage: Stage) -> None:
    worker = stage.worker()
    assert (await run(worker, NAMES, "alpha")).data == ["alpha 1.0", "beta 2.0"]
    wheel(stage.wheels, "beta", "3.0", {"beta.py": "NAME = 'beta 3.0'\n"})
    assert (await run(worker, NAMES, "alpha")).data == ["alpha 1.0", "beta 2.0"]
    shutil.rmtree(stage.packages / "environments")
    assert (await run(worker, NAMES, "alpha")).data == ["alpha 1.0", "beta 2.0"]
    PackageStore(stage.packages).forget_locks()
    assert (await run(worker, NAMES, "alpha")).data == ["alpha 1.0", "beta 3.0"]


# ── refused ──


async def test_packages_that_are_off_are_named_with_what_to_do(stage: Stage) -> None:
    ran = await run(stage.worker("off"), NAMES, "alpha==1.*", "beta")
    assert ran.failure == ("configuration", False)
    assert "alpha==1.*, beta" in ran.said
    assert "NOETL_WORKER_PYTHON_PACKAGES is off: set it to 'wheels', or install them and give 'venv_path'" in ran.said
    assert not stage.packages.exists()


async def test_packages_that_are_not_there_are_the_authors_error_in_uvs_words(stage: Stage) -> None:
    ran = await run(stage.worker(), NAMES, "nosuch>=2")
    assert ran.failure == ("configuration", False)
    assert "nosuch was not found" in ran.said
    assert (stage.environments(), stage.unfinished()) == ([], [])


@pytest.mark.sweep  # uv asks again for ten seconds
async def test_index_that_is_down_may_be_back_later(stage: Stage) -> None:
    login = "joe:s3cr3t-p4ssw0rd"
    stage.online(f"http://{login}@127.0.0.1:{closed_port()}/simple")
    ran = await run(stage.worker(), NAMES, "alpha")
    assert ran.failure == ("connection", True)
    assert "the index of packages cannot be reached" in ran.said
    assert "s3cr3t" not in ran.said
    assert "s3cr3t-p4ssw0rd" in ran.secrets


async def test_login_of_the_index_is_used_and_shown_nowhere(stage: Stage, index: Index) -> None:
    index.login = "joe:s3cr3t-p4ssw0rd"
    refused = await run(stage.worker(), NAMES, "alpha")
    assert refused.error is not None
    stage.online(index.url(index.login))
    ran = await run(stage.worker(), NAMES, "alpha")
    assert ran.data == ["alpha 1.0", "beta 2.0"], ran.said
    kept = [path for path in stage.packages.rglob("*") if path.is_file() and b"s3cr3t" in path.read_bytes()]
    assert (kept, "s3cr3t" in str(ran.log)) == ([], False)
    assert "s3cr3t-p4ssw0rd" in ran.secrets


async def test_broken_wheel_leaves_nothing_that_counts(stage: Stage) -> None:
    made = wheel(stage.wheels, "gamma", "1.0", {"gamma.py": "x" * 10_000})
    whole = made.read_bytes()
    made.write_bytes(whole[:60] + b"\0" * 500 + whole[560:])
    ran = await run(stage.worker(), {"code": "import gamma"}, "gamma")
    assert ran.failure == ("configuration", False)
    assert "gamma" in ran.said
    assert (stage.environments(), stage.unfinished()) == ([], [])
    made.write_bytes(whole)
    shutil.rmtree(stage.packages)
    wheel(stage.wheels, "gamma", "1.0", {"gamma.py": "NAME = 1"})
    assert (await run(stage.worker(), {"code": "import gamma\nresult = gamma.NAME"}, "gamma")).data == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@WITH_AND_WITHOUT_ISOLATION
async def test_source_is_built_only_where_any_is_set_and_confined_without_the_workers_variables(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_WORKER", "hidden-4711")
    mark = sdist(stage.wheels, tmp_path)
    code = {"code": "import delta\nresult = delta.NAME"}
    refused = await run(stage.worker("wheels"), code, "delta")
    assert refused.failure == ("configuration", False)
    assert not mark.exists()
    assert (await run(stage.worker("any"), code, "delta")).data == "delta"
    variables, has_no_new_rights = json.loads(mark.read_text())
    assert "hidden-4711" not in str(variables)
    assert has_no_new_rights == ("1" if stage.confinement.is_on else "0")
    assert (await run(stage.worker("wheels"), code, "delta")).error is not None  # what `any` has built is not for it


async def test_address_of_a_package_passes_by_the_index_and_needs_any(stage: Stage) -> None:
    there = f"beta @ {(stage.wheels / 'beta-2.0-py3-none-any.whl').as_uri()}"
    code = {"code": "import beta\nresult = beta.NAME"}
    refused = await run(stage.worker(), code, "beta @ https://joe:s3cr3t@h/beta-1.whl")
    assert "s3cr3t" not in refused.said
    refused = await run(stage.worker(), code, there)
    assert refused.failure == ("configuration", False)
    assert "has an address of its own" in refused.said
    assert (await run(stage.worker("any"), code, there)).data == "beta 2.0"


# ── interpreters ──


async def test_version_that_no_interpreter_has_is_an_error_with_the_setting(stage: Stage) -> None:
    ran = await run(stage.worker(), {**NAMES, "deps": {"packages": ["alpha"], "python": "3.99"}})
    assert ran.failure == ("configuration", False)
    assert (
        "this worker has no interpreter for python ==3.99.*; ask the operator to add one to NOETL_WORKER_PYTHONS"
        in ran.said
    )


async def test_version_picks_one_of_the_interpreters_that_the_operator_names(stage: Stage) -> None:
    own = f"3.{sys.version_info.minor}"
    versions = [f"3.{minor}" for minor in (10, 11, 12, 13) if f"3.{minor}" != own]
    others = {version: one for version in versions for one in candidates(version) if works(one, version)}
    if not others:
        pytest.skip("needs another interpreter")
    worker = stage.worker(NOETL_WORKER_PYTHONS=os.pathsep.join(["/no/such", *others.values()]))
    version = max(others)
    code = "import alpha, os, sys\nresult = [alpha.NAME, '%d.%d' % sys.version_info[:2], sys.prefix, os.getppid()]"
    step = {"code": code, "deps": {"packages": ["alpha"], "python": version}}
    ran = await run(worker, step)
    assert ran.data[:2] == ["alpha 1.0", version], ran.said
    assert Path(ran.data[2]).parent == stage.packages / "environments"
    again = await run(worker, step)
    assert again.data == ran.data, "its template is warm"
    own = await run(worker, {"code": "import os\nresult = os.getppid()"})
    assert own.data != ran.data[3], "and is its own"


async def test_interpreter_that_the_operator_names_has_an_environment_of_its_own(stage: Stage, tmp_path: Path) -> None:
    other = tmp_path / "other/bin"
    other.mkdir(parents=True)
    (other / "python").symlink_to(Path(sys.executable).resolve())
    (other.parent / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    worker = stage.worker(NOETL_WORKER_PYTHONS=str(other.parent))
    code = "import alpha, sys\nresult = [alpha.NAME, sys.prefix]"
    ran = await run(worker, {"code": code, "python": str(other / "python")}, "alpha")
    assert ran.error is None, ran.said
    assert ran.data[0] == "alpha 1.0"
    assert Path(ran.data[1]).parent == stage.packages / "environments"
    wrong = await run(
        worker, {"code": "1", "python": str(other / "python"), "deps": {"packages": ["beta"], "python": "3.9"}}
    )
    assert "is no python ==3.9.*; name another one, or leave `python` out" in wrong.said
    own = await run(worker, {"code": code, "deps": {"packages": ["alpha"], "python": sys.version.split()[0]}})
    assert own.data[0] == "alpha 1.0", own.said


# ── time, stops and kills ──


async def test_install_takes_of_the_commands_time(stage: Stage, index: Index) -> None:
    index.hold.clear()
    ran = await run(stage.worker(), NAMES, "alpha", timeout_s=1.5)
    assert ran.failure == ("timeout", True)
    assert (stage.environments(), stage.unfinished()) == ([], [])
    waits = asyncio.create_task(run(stage.worker(), NAMES, "alpha"))
    index.asked_for_a_file.clear()
    await asyncio.to_thread(index.asked_for_a_file.wait, 60)
    behind = await run(stage.worker(), NAMES, "beta", timeout_s=0.5)
    assert behind.failure == ("timeout", True)
    index.hold.set()
    assert (await waits).data == ["alpha 1.0", "beta 2.0"]


async def test_command_that_is_cancelled_ends_its_install(stage: Stage, index: Index) -> None:
    index.hold.clear()
    worker = stage.worker()
    running = asyncio.create_task(run(worker, NAMES, "alpha"))
    await asyncio.to_thread(index.asked_for_a_file.wait, 60)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (stage.environments(), stage.unfinished()) == ([], [])
    index.hold.set()
    assert (await run(worker, NAMES, "alpha")).data == ["alpha 1.0", "beta 2.0"]


WORKER = """
import asyncio, json, sys
from noetl_worker.testing import tool_context
from noetl_worker.settings.tools import ToolSettings
from noetl_worker.tools.process.confinement import Confinement
from noetl_worker.tools.registry import Registry

async def main(level, settings, config):
    worker = Registry(plugins=False, confinement=Confinement(level), settings=ToolSettings(**settings))
    await worker.run_tool("python", config, tool_context(registry=worker, kind="python"))

asyncio.run(main(*json.loads(sys.argv[1])))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_worker_that_is_killed_while_it_builds_leaves_nothing_that_counts(stage: Stage, index: Index) -> None:
    index.hold.clear()
    names = ("python_packages", "packages_dir", "uv_config")
    settings = {name: getattr(stage.settings(), name) for name in names}
    config = {**NAMES, "deps": {"packages": ["alpha"]}}
    given = json.dumps([stage.confinement.level, settings, config])
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", WORKER, given)
    assert await asyncio.to_thread(index.asked_for_a_file.wait, 60)
    [builder] = _running_uv(stage)
    killed.kill()
    await killed.wait()
    assert await until_gone(builder) == []
    assert stage.environments() == []
    assert stage.unfinished() != []
    index.hold.set()
    assert (await run(stage.worker(), NAMES, "alpha")).data == ["alpha 1.0", "beta 2.0"]
    assert stage.unfinished() == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_install_that_is_killed_may_go_well_later(stage: Stage, index: Index) -> None:
    index.hold.clear()
    running = asyncio.create_task(run(stage.worker(), NAMES, "alpha"))
    assert await asyncio.to_thread(index.asked_for_a_file.wait, 60)
    [builder] = _running_uv(stage)
    os.kill(builder, signal.SIGKILL)
    assert (await running).failure == ("process", True)
    assert (stage.environments(), stage.unfinished()) == ([], [])


def _running_uv(stage: Stage) -> list[int]:
    """The uv that works in this store."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            where = (process / "cwd").readlink()
        except OSError:
            continue
        if where.is_relative_to(stage.packages / "building"):
            found.append(int(process.name))
    return found


# ── room ──


async def test_least_recently_used_go_and_those_in_use_stay(stage: Stage, tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        wheel(stage.wheels, name, "1.0", {f"{name}/__init__.py": "", f"{name}/data.txt": "x" * 700_000})
    worker = stage.worker(NOETL_WORKER_PACKAGES_MB="2")
    seen = tmp_path / "seen"
    code = f"""
import os, one
os.mkfifo({str(seen)!r})
open({str(seen)!r}).read()
result = os.path.getsize(os.path.join(os.path.dirname(one.__file__), "data.txt"))
"""
    using = asyncio.create_task(run(worker, {"code": code}, "one"))
    await until(lambda: seen.exists() or using.done(), "the step that uses a package", every_s=0.01)
    assert not using.done(), using.result().said
    assert (await run(worker, {"code": "import two"}, "two")).error is None
    third = await run(worker, {"code": "import three"}, "three")
    assert ("info", "packages_removed", {"environments": 1}) in third.log
    kept = {one.requirements for one in PackageStore(stage.packages).environments()}
    assert kept == {("one",), ("three",)}
    await asyncio.to_thread(seen.write_text, "")
    assert (await using).data == 700_000
    assert stage.unfinished() == []


async def test_directory_that_others_may_write_is_not_used(stage: Stage) -> None:
    stage.packages.mkdir()
    stage.packages.chmod(0o777)
    ran = await run(stage.worker(), NAMES, "alpha")
    assert "can be written by other users: name a directory in NOETL_WORKER_PACKAGES_DIR" in ran.said


# ── code of strangers ──


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_package_that_reaches_out_when_it_is_imported_is_confined_as_its_step(stage: Stage) -> None:
    """By a `.pth` file too: both run in the command's own process."""
    attack = (
        "import os; status = dict(l.split(':', 1) for l in open('/proc/self/status')); "
        "os.environ.setdefault('SAW', ''); os.environ['SAW'] += status['NoNewPrivs'].strip()"
    )
    files = {
        "epsilon.py": attack + "\ntry:\n    os.kill(int(os.environ['WORKER']), 0)\n    READS = True\n"
        "except PermissionError:\n    READS = False\n",
        "epsilon.pth": attack + "\n",
    }
    wheel(stage.wheels, "epsilon", "1.0", files)
    code = "import epsilon, os\nresult = [os.environ['SAW'], epsilon.READS]"
    ran = await run(stage.worker(), {"code": code, "env": {"WORKER": str(os.getpid())}}, "epsilon")
    assert ran.data == (["11", not has_domains()] if stage.confinement.is_on else ["00", True]), ran.said


@pytest.mark.skipif(not landlock.is_there(), reason="needs Landlock")
async def test_no_command_changes_packages_and_a_build_only_what_it_builds(tmp_path: Path) -> None:
    """The directory is not in the temporary one, in which each command has a new directory."""
    apart = Path(tempfile.mkdtemp(dir="/var/tmp"))
    stage = Stage(tmp_path, Confinement("basic", closed=(str(apart / "packages"),)))
    stage.packages = apart / "packages"
    worker = stage.worker("any")
    try:
        first = await run(worker, NAMES, "alpha")
        assert first.data == ["alpha 1.0", "beta 2.0"], first.said
        [environment] = (stage.packages / "environments").iterdir()
        module = next(environment.rglob("beta.py"))
        attacks = [
            f"open({str(module)!r}, 'a')",
            f"os.truncate({str(module)!r}, 0)",
            f"os.remove({str(module)!r})",
            f"os.rename({str(environment)!r}, {str(environment.parent / 'other')!r})",
            f"os.link({str(module)!r}, 'linked'); open('linked', 'a')",
            f"open({str(stage.packages / 'building/x')!r}, 'w')",
            f"open({str(stage.packages / 'locks/x')!r}, 'w')",
        ]
        for attack in attacks:
            tried = await run(worker, {"code": f"import os\n{attack}"})
            assert tried.error is not None, attack
            assert tried.error.code == "PermissionError" or "cross-device" in tried.said, tried.said
        shell = tool_context(registry=worker, kind="shell")
        assert (await worker.run_tool("shell", {"command": f"echo x >> {module}"}, shell)).exit_code != 0
        usual = await run(worker, {"code": "open('a', 'w').write('x')\nimport os\nos.rename('a', 'b')\nresult = 1"})
        assert usual.data == 1, usual.said
        mark = sdist(stage.wheels, tmp_path, then=f"open({str(module)!r}, 'a')")
        built = await run(worker, {"code": "import delta"}, "delta")
        assert "PermissionError" in built.said
        assert mark.exists()
        assert module.read_text() == "NAME = 'beta 2.0'\n"
    finally:
        await worker.aclose()
        shutil.rmtree(apart)
