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
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
SBOMS: Final = "dist/sbom"
LONGEST_S: Final = 300
NO_SERVICE: Final = ("ConnectionError", "ServiceError", "Could not connect", "Max retries exceeded", "timed out")
"""What pip-audit says when its service does not answer."""


class Step(NamedTuple):
    state: str
    """ok, FOUND or skipped."""
    text: str


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return f"{self.out}\n{self.err}".strip()

    @property
    def last_line(self) -> str:
        return (self.err.strip() or self.out.strip() or "nothing was said").splitlines()[-1]


def run(*command: str) -> Ran | None:
    """None: there is no such program, neither beside this interpreter nor on PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PATH": path}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LONGEST_S)
    except FileNotFoundError:
        return None
    except subprocess.TimeoutExpired:
        return Ran(124, "", f"{command[0]} timed out after {LONGEST_S} s")
    return Ran(done.returncode, done.stdout, done.stderr)


def judged(ran: Ran | None, fine: str, *, missing: str) -> Step:
    if ran is None:
        return Step("skipped", missing)
    return Step("ok", fine) if ran.code == 0 else Step("FOUND", ran.said)


NO_CARGO: Final = Step("skipped", "no cargo: the crates are not looked at")


def crates() -> Step:
    if run("cargo", "--version") is None:
        return NO_CARGO
    missing = "cargo-deny is not installed: cargo install --locked cargo-deny"
    return judged(run("cargo-deny", "check", "bans", "licenses", "sources"), "as deny.toml allows", missing=missing)


def advisories_of_crates() -> Step:
    if run("cargo", "--version") is None:
        return NO_CARGO
    fetched = run("cargo-deny", "fetch", "db")
    if fetched is not None and fetched.code != 0:
        return Step("skipped", f"the advisory database cannot be had from here: {fetched.last_line}")
    ran = run("cargo-deny", "check", "--disable-fetch", "advisories")
    return judged(ran, "no advisory", missing="no cargo-deny, see above")


def advisories_of_packages() -> Step:
    where = run(sys.argv[1], "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    if where is None or where.code != 0:
        return Step("FOUND", f"{sys.argv[1]} does not run: its packages cannot be looked at")
    options = ("--skip-editable", "--progress-spinner", "off", "--format", "json")
    ran = run("pip-audit", "--path", where.out.strip(), *options)
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


def workflows() -> Step:
    ran = run("zizmor", "--offline", "--no-progress", ".github/workflows")
    return judged(ran, "zizmor finds nothing", missing="zizmor is not installed: pip install zizmor")


def sbom_of_packages() -> Step:
    file = f"{SBOMS}/python.cdx.json"
    options = ("--pyproject", "pyproject.toml", "--of", "JSON", "-o", file)
    ran = run("cyclonedx-py", "environment", *options, sys.argv[1])
    if ran is None:
        return Step("skipped", "cyclonedx-py is not installed: pip install cyclonedx-bom")
    return _sbom(ran, file)


def sbom_of_crates() -> Step:
    name = "rust.cdx"
    options = ("--format", "json", "--all-features", "--override-filename", name)
    ran = run("cargo-cyclonedx", "cyclonedx", "--manifest-path", "rust/binding/Cargo.toml", *options)
    if ran is None:
        return Step("skipped", "cargo-cyclonedx is not installed: cargo install --locked cargo-cyclonedx")
    for made in ROOT.glob(f"rust/*/{name}.json"):  # one for each crate of the workspace; the binding has them all
        if made.parent.name == "binding":
            made.replace(ROOT / SBOMS / made.name)
        else:
            made.unlink()
    return _sbom(ran, f"{SBOMS}/{name}.json")


def _sbom(ran: Ran, file: str) -> Step:
    path = ROOT / file
    if ran.code != 0 or not path.is_file():
        return Step("FOUND", f"no list of components was made: {ran.said}")
    return Step("ok", f"{file}: {len(json.loads(path.read_text(encoding='utf-8'))['components'])} components")


STEPS: Sequence[tuple[str, Callable[[], Step]]] = (
    ("crates: licences, sources, bans", crates),
    ("crates: advisories", advisories_of_crates),
    ("packages: advisories", advisories_of_packages),
    ("workflows", workflows),
    ("packages: components", sbom_of_packages),
    ("crates: components", sbom_of_crates),
)


def main() -> int:
    """Return the exit code: 1 for anything that was found."""
    (ROOT / SBOMS).mkdir(parents=True, exist_ok=True)
    found = False
    for name, step in STEPS:
        done = step()
        found = found or done.state == "FOUND"
        print(f"supply chain: {name}: {done.state}: {done.text}", flush=True)
    return int(found)


if __name__ == "__main__":
    sys.exit(main())
