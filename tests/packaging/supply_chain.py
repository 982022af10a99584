"""`make supply-chain`: what the project is made of, and whether any of it is known to be bad.

Each step says `ok`, `FOUND`, or `skipped` and why: a tool that is not installed, data that cannot be had from here.
Only what is found fails. Run by the interpreter whose `bin` has the tools; the argument is the one whose packages are
looked at.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SBOMS = "dist/sbom"
LONGEST_S = 300
NO_SERVICE = ("ConnectionError", "ServiceError", "Could not connect", "Max retries exceeded", "timed out")
"""What pip-audit says when its service does not answer."""


@dataclass(frozen=True)
class Step:
    state: str
    """ok, FOUND or skipped."""
    text: str


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return f"{self.out}\n{self.err}".strip()

    @property
    def last_line(self) -> str:
        return (self.err.strip() or self.out.strip() or "nothing was said").splitlines()[-1]


@dataclass(frozen=True)
class Project:
    root: Path
    python: str
    """Whose packages are looked at."""
    tools: Path
    """A directory of programs, before those of PATH."""

    def run(self, *command: str) -> Ran | None:
        """None: there is no such program."""
        path = f"{self.tools}{os.pathsep}{os.environ.get('PATH', '')}"
        try:
            done = subprocess.run(
                command,
                cwd=self.root,
                env={**os.environ, "PATH": path},
                capture_output=True,
                text=True,
                timeout=LONGEST_S,
                check=False,
            )
        except FileNotFoundError:
            return None
        except subprocess.TimeoutExpired:
            return Ran(124, "", f"{command[0]} timed out after {LONGEST_S} s")
        return Ran(done.returncode, done.stdout, done.stderr)

    def has(self, *command: str) -> bool:
        ran = self.run(*command)
        return ran is not None and ran.code == 0


def crates(project: Project) -> Step:
    if not project.has("cargo", "metadata", "--offline", "--format-version", "1", "--no-deps"):
        return Step("skipped", "no cargo: the crates are not looked at")
    if not project.has("cargo-deny", "--version"):
        return Step("skipped", "cargo-deny is not installed: cargo install --locked cargo-deny")
    ran = project.run("cargo-deny", "check", "bans", "licenses", "sources")
    assert ran is not None
    return Step("ok", "as deny.toml allows") if ran.code == 0 else Step("FOUND", ran.said)


def advisories_of_crates(project: Project) -> Step:
    if not (project.has("cargo", "--version") and project.has("cargo-deny", "--version")):
        return Step("skipped", "no cargo-deny, see above")
    fetched = project.run("cargo-deny", "fetch", "db")
    assert fetched is not None
    if fetched.code != 0:
        return Step("skipped", f"the advisory database cannot be had from here: {fetched.last_line}")
    ran = project.run("cargo-deny", "check", "--disable-fetch", "advisories")
    assert ran is not None
    return Step("ok", "no advisory") if ran.code == 0 else Step("FOUND", ran.said)


def advisories_of_packages(project: Project) -> Step:
    where = project.run(project.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    if where is None or where.code != 0:
        return Step("FOUND", f"{project.python} does not run: its packages cannot be looked at")
    options = ("--skip-editable", "--progress-spinner", "off", "--format", "json")
    ran = project.run("pip-audit", "--path", where.out.strip(), *options)
    if ran is None:
        return Step("skipped", "pip-audit is not installed: pip install pip-audit")
    try:
        told = json.loads(ran.out)["dependencies"]
    except (ValueError, KeyError):
        if ran.code == 124 or any(word in ran.said for word in NO_SERVICE):
            return Step("skipped", f"PyPI's advisories cannot be had from here: {ran.last_line}")
        return Step("FOUND", f"pip-audit failed: {ran.said}")
    bad = [
        f"{one['name']} {one['version']}: {', '.join(v['id'] for v in one['vulns'])}"
        for one in told
        if one.get("vulns")
    ]
    unknown = [one["name"] for one in told if "skip_reason" in one]
    if bad:
        return Step("FOUND", "\n".join(bad))
    if told and len(unknown) == len(told):
        return Step("skipped", f"PyPI's advisories cannot be had from here, for none of {len(told)} packages")
    without = f", none to be had for {len(unknown)} ({', '.join(unknown[:5])})" if unknown else ""
    return Step("ok", f"no advisory for {len(told) - len(unknown)} packages{without}")


def workflows(project: Project) -> Step:
    ran = project.run("zizmor", "--offline", "--no-progress", ".github/workflows")
    if ran is None:
        return Step("skipped", "zizmor is not installed: pip install zizmor")
    return Step("ok", "zizmor finds nothing") if ran.code == 0 else Step("FOUND", ran.said)


def sbom_of_packages(project: Project) -> Step:
    file = f"{SBOMS}/python.cdx.json"
    options = ("--pyproject", "pyproject.toml", "--of", "JSON", "-o", file)
    ran = project.run("cyclonedx-py", "environment", *options, project.python)
    if ran is None:
        return Step("skipped", "cyclonedx-py is not installed: pip install cyclonedx-bom")
    return _sbom(project, ran, file)


def sbom_of_crates(project: Project) -> Step:
    name = "rust.cdx"
    options = ("--format", "json", "--all-features", "--override-filename", name)
    ran = project.run("cargo-cyclonedx", "cyclonedx", "--manifest-path", "rust/binding/Cargo.toml", *options)
    if ran is None:
        return Step("skipped", "cargo-cyclonedx is not installed: cargo install --locked cargo-cyclonedx")
    for made in project.root.glob(
        f"rust/*/{name}.json"
    ):  # one for each crate of the workspace; the binding has them all
        if made.parent.name == "binding":
            made.replace(project.root / SBOMS / made.name)
        else:
            made.unlink()
    return _sbom(project, ran, f"{SBOMS}/{name}.json")


def _sbom(project: Project, ran: Ran, file: str) -> Step:
    path = project.root / file
    if ran.code != 0 or not path.is_file():
        return Step("FOUND", f"no list of components was made: {ran.said}")
    return Step("ok", f"{file}: {len(json.loads(path.read_text(encoding='utf-8'))['components'])} components")


STEPS: Sequence[tuple[str, Callable[[Project], Step]]] = (
    ("crates: licences, sources, bans", crates),
    ("crates: advisories", advisories_of_crates),
    ("packages: advisories", advisories_of_packages),
    ("workflows", workflows),
    ("packages: components", sbom_of_packages),
    ("crates: components", sbom_of_crates),
)


def check(project: Project) -> int:
    """The exit code: 1 for anything that was found."""
    (project.root / SBOMS).mkdir(parents=True, exist_ok=True)
    found = False
    for name, step in STEPS:
        done = step(project)
        found = found or done.state == "FOUND"
        print(f"supply chain: {name}: {done.state}: {done.text}", flush=True)
    return int(found)


if __name__ == "__main__":
    sys.exit(check(Project(ROOT, sys.argv[1], Path(sys.executable).parent)))
