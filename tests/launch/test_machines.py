"""Two launches that find each other, as on two machines, are one run."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from launching import alone, command, curve, environment, kill, write_recipe


@pytest.mark.distributed
@pytest.mark.slow
def test_two_launches_meet_and_learn_what_one_process_does(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, tiny_model_dir, name="two")
    start = command("multi_node", "sft", recipe)
    at = start.index("-m", start.index("--config_file"))
    launches = [
        subprocess.Popen(
            [*start[:at], "--machine_rank", str(rank), *start[at:]],
            cwd=tmp_path,
            env=environment("multi_node"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [launch.communicate(timeout=240)[0] for launch in launches]
    finally:
        for launch in launches:
            if launch.poll() is None:
                kill(launch.pid)
    assert [launch.returncode for launch in launches] == [0, 0], "\n".join(said)
    summary = json.loads((tmp_path / "two" / "done.json").read_text())["summary"]
    assert summary["launch"] == {"processes": 2, "kind": "MULTI_CPU"}
    one = write_recipe(tmp_path, tiny_model_dir, name="one", accumulate=2)
    alone("sft", one)
    for got, expected in zip(curve(tmp_path / "two"), curve(tmp_path / "one"), strict=True):
        assert got == pytest.approx(expected, abs=1e-4, rel=1e-4)
