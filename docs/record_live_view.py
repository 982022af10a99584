"""docs/live-view.svg: the lines of `noetl-worker dev examples/demo.yaml` at its end, as a terminal shows it."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

from noetl_worker.authoring.dev.session import run_playbook
from noetl_worker.cli.local_worker import local_worker
from noetl_worker.models import Dialect
from noetl_worker.observability.logging import configure_logging
from noetl_worker.process import event_loop

HERE = Path(__file__).parent
PLAYBOOK = HERE.parent / "examples/demo.yaml"


def main() -> None:
    configure_logging("error", "console")
    picture = Console(record=True, force_terminal=True, width=110, file=io.StringIO())
    picture.print("$ noetl-worker dev examples/demo.yaml\n", highlight=False)
    run = run_playbook(
        PLAYBOOK,
        {},
        dialect=Dialect.PYTHON,
        keep=False,
        as_json=False,
        worker_factory=local_worker,
        console=picture,
    )
    if event_loop.run(run) != 0:
        raise SystemExit("the demo did not complete: no picture")
    text = picture.export_svg(title="noetl-worker")
    # Rich names a font of another host, which whoever looks at the picture would ask.
    (HERE / "live-view.svg").write_text(re.sub(r"@font-face {.*?}\s*", "", text, flags=re.S), encoding="utf-8")


if __name__ == "__main__":
    main()
