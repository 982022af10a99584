"""Packages of python steps that are refused before anything runs, each with the text of its error."""

from __future__ import annotations

from typing import Any

PACKAGES: list[tuple[dict[str, Any], str]] = [
    *(
        ({"code": "1", "deps": deps}, f"deps: {text}")
        for deps, text in (
            ({"packages": "x"}, "'packages' must be a list of requirements, or an object of lists, not str"),
            ({"packages": {"t": "x"}}, "'packages' must be a list of requirements, or an object of lists, not str"),
            ({"packages": [1]}, "1 is no requirement; write one as 'pandas==2.2.*'"),
            ({"packages": ["-r x"]}, "'-r x' is no requirement; write one as 'pandas==2.2.*'"),
            ({"packages": ["x\n-r y"]}, "'x\\n-r y' is no requirement; write one as 'pandas==2.2.*'"),
            ({"packages": ["x", "X>1"]}, "'x' is listed twice; keep one requirement"),
            (
                {"packages": ["x"], "python": 3.1},
                "python 3.1 is no version; write it in quotes, as '3.12' or '>=3.11'",
            ),
            (
                {"packages": ["x"], "venv_path": "/v"},
                "'packages' and 'venv_path' name two environments; keep one of them",
            ),
            (
                {"python": "3.12"},
                "'python' works only with 'packages': give 'packages' too, or use the step's own field 'python'",
            ),
        )
    ),
    *(
        ({"code": f"{block}\n1"}, f"the `# /// script` block: {text}")
        for block, text in (
            ("# /// script\n# dependencies = x\n# ///", "the text is not TOML: Invalid value (at line 1, column 16)"),
            ("# /// script\n# dependencies = 'x'\n# ///", "'dependencies' must be a list"),
            ("# /// script\n# dependencies = ['x', 'x']\n# ///", "'x' is listed twice; keep one requirement"),
            (
                "# /// script\n# ///\n# /// script\n# a = 1\n# ///\n1\n# /// script\n# a = 1\n# ///",
                "the code has several `# /// script` blocks; keep one",
            ),
        )
    ),
    (
        {"code": "# /// script\n# dependencies = ['x']\n# ///", "deps": {"packages": []}},
        "deps: 'packages' is given, and the code has a `# /// script` block too; keep one",
    ),
]
