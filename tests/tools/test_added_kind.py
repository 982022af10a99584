"""The walk of CONTRIBUTING.md to a new tool kind, in a copy of the sources: every file it touches is named there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from integration.processes import environment
from patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
WALK = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Add a tool kind")[2].partition("\n## ")[0]
GUIDE = "## Example\n\n```yaml\nkind: greet\nwhom: ada\n```\n\n## Result\n\n`{greeting}`.\n"
TEST = """from noetl_worker.testing import run_tool
from noetl_worker.tools.kinds.greet.greet import GreetTool


def test_greets():
    assert run_tool(GreetTool(), {"whom": "ada"}).data == {"greeting": "hello ada"}


def test_is_a_kind_like_the_others():
    assert run_tool("greet", {"whom": "{{ name }}"}, variables={"name": "ada"}).data == {"greeting": "hello ada"}
"""


def tool_of_the_page() -> str:
    """The class of docs/add-a-tool.md, word for word."""
    page = (ROOT / "docs" / "add-a-tool.md").read_text(encoding="utf-8")
    [code] = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class GreetTool" in block]
    return str(code)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, its pages and these tests, with a kind `greet` as the walk adds it."""
    root = tmp_path_factory.mktemp("copy")
    for part in ("python", "docs", "tests/tools", "examples"):
        shutil.copytree(ROOT / part, root / part)  # what is compiled too: the files keep their times
    for file in ("pyproject.toml", "CONTRIBUTING.md"):
        shutil.copy(ROOT / file, root / file)
    write(root, "python/noetl_worker/tools/kinds/KIND/__init__.py", '"""Kind `greet`."""\n')
    write(root, "python/noetl_worker/tools/kinds/KIND/KIND.py", tool_of_the_page())
    write(root, "python/noetl_worker/tools/kinds/KIND/page.md", GUIDE)
    write(root, "tests/tools/test_KIND.py", TEST)
    assert "`python/noetl_worker/tools/built_in.py`: one line in `_CLASSES`" in WALK
    registry = root / "python/noetl_worker/tools/built_in.py"
    before, start, after = registry.read_text(encoding="utf-8").partition("_CLASSES: Final[Mapping[str, str]] = {\n")
    registry.write_text(f'{before}{start}    "greet": "GreetTool",\n{after}', encoding="utf-8")
    assert "`make docs` writes `docs/tools`" in WALK
    python(root, "-m", "noetl_worker", "tools", "--markdown", "docs/tools")
    return root


def write(root: Path, name: str, content: str) -> None:
    """One file of the walk, which has to name it."""
    assert f"`{name}`" in WALK
    file = root / name.replace("KIND", "greet")
    file.parent.mkdir(exist_ok=True)
    file.write_text(content, encoding="utf-8")


def python(root: Path, *arguments: str) -> str:
    """Its output; it has to end with 0."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**environment(), "PYTHONPATH": str(root / "python"), "NO_COLOR": "1"},
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.pages
def test_kind_is_listed_described_and_run(copy: Path) -> None:
    assert "Greets somebody." in python(copy, "-m", "noetl_worker", "tools", "greet")
    ran = python(copy, "-m", "noetl_worker", "exec", "greet", "--config", '{"whom": "ada"}', "--json")
    assert "hello ada" in json.dumps(json.loads(ran))
    assert "# greet" in (copy / "docs/tools/greet").with_suffix(".md").read_text(encoding="utf-8")


@pytest.mark.pages
def test_tests_of_all_kinds_hold_for_it_and_its_own_pass(copy: Path) -> None:
    tests = ("tests/tools/test_greet.py", "tests/tools/test_tool_docs.py")
    of_others = "greet or not test_guide_has_a_result"  # they are as they were
    ended = python(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", of_others, "-rA", *tests)
    assert ended.count("[greet]") == 1
    assert " passed" in ended
