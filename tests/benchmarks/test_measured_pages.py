"""Tables of the documentation are what the result files say."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("script", "module", "result", "page"),
    [
        ("", "serve_load", "serve_load.json", "serving.md"),
        ("peers", "tables", "rerank_speed.json", "speed.md"),
    ],
)
def test_a_table_is_what_was_measured(script, module, result, page, tmp_path):
    pytest.importorskip("httpx2")
    copy = tmp_path / page
    shutil.copy(ROOT / "docs" / page, copy)
    text = copy.read_text(encoding="utf-8")
    copy.write_text(text.replace("| 0.", "| 7."), encoding="utf-8")
    assert copy.read_text(encoding="utf-8") != text
    code = (
        f"import json, sys; from pathlib import Path; import {module} as made; "
        "made.render(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))"
    )
    folders = [str(ROOT / "benchmarks"), str(ROOT / "benchmarks" / script)]
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {folders!r}; {code}",
         str(ROOT / "results" / result), str(copy)],
        check=True,
    )  # fmt: skip
    assert copy.read_text(encoding="utf-8") == text
