"""The shipped launch configurations, and what the scaling guide says about them."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from launching import CONFIGS, ROOT
from test_stages import cells

from rank_rl.training.arguments import check_training

GUIDE = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
FILES = sorted(CONFIGS.glob("*.yaml"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def commands() -> list[list[str]]:
    """The arguments of every ``accelerate launch`` in the guide, up to the module."""
    text = "\n".join(blocks("bash")).replace("\\\n", " ")
    text = re.sub(r'"\$(\(\(.*?\)\)|\w+)"', "2", text)  # what a script computes
    return [
        shlex.split(line.split("accelerate launch", 1)[1], comments=True)
        for line in text.splitlines()
        if "accelerate launch" in line.partition("#")[0]
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_accelerate_reads_every_configuration(path: Path) -> None:
    from accelerate.commands.config.config_args import ClusterConfig

    config = ClusterConfig.from_yaml_file(str(path))  # refuses keys that it does not know
    assert config.mixed_precision == "no"  # the recipe decides
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert 2 <= len(comment) <= 6
    assert f"`{path.name}`" in GUIDE


def test_the_commands_of_the_guide_are_ones_that_accelerate_takes() -> None:
    from accelerate.commands.launch import launch_command_parser

    found = commands()
    assert len(found) >= 5
    for arguments in found:
        known = launch_command_parser().parse_args(arguments)
        assert known.training_script in ("rank_rl", "$@")
        assert (ROOT / known.config_file).is_file()


def test_the_scripts_of_the_guide_are_valid_bash() -> None:
    for script in blocks("bash"):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_the_training_keys_of_the_guide_are_those_of_trl() -> None:
    found: list[dict[str, Any]] = [yaml.safe_load(text)["training"] for text in blocks("yaml")]
    assert found
    for training in found:
        assert check_training("grpo", training)


def test_the_table_of_the_guide_names_tests_that_exist() -> None:
    ids = {str(cell.id) for cell in cells()}
    told = set(re.findall(r"`\[([a-z0-9_]+-[a-z]+)\]`", GUIDE))
    assert told == ids
    names = set(re.findall(r"`(test_[a-z_0-9]+)`", GUIDE))
    text = "".join(p.read_text() for p in Path(__file__).parent.glob("test_*.py"))
    assert names and all(f"def {name}(" in text for name in names)
