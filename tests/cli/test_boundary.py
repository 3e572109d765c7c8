"""The error boundary: a user's mistake is one line and exit status 2, a bug keeps its traceback."""

from __future__ import annotations

import errno
import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from rank_rl.cli.app import app
from rank_rl.cli.boundary import Boundary, user_error
from rank_rl.cli.provenance import write_json
from rank_rl.errors import DataError, StorageError

RECIPE = """
run: {name: demo, output_dir: out}
model: {name: m}
data: {source: jsonl, path: tasks.jsonl}
format: {name: permutation}
training: {max_steps: 1}
"""


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stderr


def one_line(text: str) -> str:
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    return text


@pytest.mark.parametrize("command", ["check", "score", "sft", "grpo", "bench"])
def test_missing_recipe(command: str, tmp_path: Path) -> None:
    status, said = invoke(command, str(tmp_path / "none.yaml"))
    assert status == 2
    assert "none.yaml: no such file" in one_line(said)


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [
        ("", [], "the file is empty"),
        ("a: [", [], "not valid YAML"),
        (RECIPE + "modle: 1\n", [], "unknown key 'modle' (nearest: model)"),
        (RECIPE, ["run.sede=1"], "unknown key 'sede' (nearest: seed)"),
        (RECIPE, ["run.seed=x"], "run.seed (--set): value 'x'"),
        (RECIPE, ["training.max_stepz=1"], "max_stepz"),
        (RECIPE, [], "tasks.jsonl"),
        (RECIPE, ["format.name=permutations"], "unknown format 'permutations'"),
        (RECIPE, ["data.source=jsnl"], "unknown data source 'jsnl'"),
    ],
)
def test_bad_recipe(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    overrides: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(text)
    sets = [part for item in overrides for part in ("--set", item)]
    status, said = invoke("sft", "a.yaml", *sets)
    assert status == 2
    assert expected in one_line(said)


def test_without_a_pipeline(tmp_path: Path) -> None:
    status, said = invoke("run", str(tmp_path))
    assert status == 2
    assert "pipeline.yaml: no such file" in one_line(said)


def test_output_folder_that_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(RECIPE)
    (tmp_path / "out").write_text("something else")
    status, said = invoke("sft", "a.yaml")
    assert status == 2
    assert "out: folder cannot be made" in one_line(said)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(RECIPE)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "recipe.resolved.yaml").symlink_to("/dev/full")
    status, said = invoke("sft", "a.yaml")
    assert status == 2
    assert "No space left on device (free some disk space)" in one_line(said)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_keeps_the_old_record(tmp_path: Path) -> None:
    path = tmp_path / "done.json"
    write_json(path, {"hash": "old"})
    (tmp_path / "done.json.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_json(path, {"hash": "new"})
    assert "old" in path.read_text()


def test_a_file_cut_short_keeps_its_traceback() -> None:
    """typer alone would end with "Aborted" and nothing else."""
    small = typer.Typer(cls=Boundary)

    @small.callback()
    def group() -> None:
        """So that there is a group."""

    @small.command()
    def load() -> None:
        pickle.load(io.BytesIO())

    result = CliRunner().invoke(small, ["load"])
    assert result.exit_code == 1
    assert isinstance(result.exception, RuntimeError)
    assert "Ran out of input" in str(result.exception)


def test_what_counts_as_the_users() -> None:
    assert isinstance(user_error(OSError(errno.ENOSPC, "No space left", "f")), StorageError)
    assert isinstance(user_error(PermissionError(errno.EACCES, "denied", "f")), StorageError)
    assert isinstance(user_error(RuntimeError("os error: No space left on device")), StorageError)
    assert user_error(DataError("bad", where="file:3")).line() == "file:3: bad"
    assert user_error(FileNotFoundError(errno.ENOENT, "gone", "f")) is None
    assert user_error(ValueError("a bug")) is None


def test_interrupt_ends_with_130(tmp_path: Path) -> None:
    code = (
        "import sys; from rank_rl.cli import app, check\n"
        "def stop(*_): raise KeyboardInterrupt\n"
        "import rank_rl.recipe; rank_rl.recipe.load = stop\n"
        "sys.argv = ['rank-rl', 'check', 'a.yaml']; app.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_a_bug_keeps_its_traceback() -> None:
    code = (
        "import sys; from rank_rl.cli import app\n"
        "def broken(*_): raise ValueError('a bug')\n"
        "import rank_rl.recipe; rank_rl.recipe.load = broken\n"
        "sys.argv = ['rank-rl', 'check', 'a.yaml']; app.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "ValueError: a bug" in done.stderr


def test_module_form_and_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rank_rl", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    for command in ("check", "score", "sft", "grpo", "bench", "rerank", "run"):
        assert command in done.stdout


def test_help_starts_without_torch() -> None:
    code = "import sys, rank_rl.cli.app; sys.exit('torch' in sys.modules or 'trl' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
