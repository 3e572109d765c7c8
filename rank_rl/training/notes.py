"""What a run has to say beside its numbers: records of ``training_log.jsonl`` that are words.

An alarm is ``{"step", "alarm": kind, "text", …}``, an early end ``{"step", "stopped": why}``. They
lie in the log like any other record, so a run that is resumed loses those behind its checkpoint and
meets them again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rank_rl.training import common
from rank_rl.training.resume import LOG_FILE

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState

logger = logging.getLogger(__name__)


def append(out_dir: Path, record: Mapping[str, Any]) -> None:
    """Add one record to the training log of a run.

    Raises:
        StorageError: the disk is full or not writable.
    """
    with common.saving(out_dir), (out_dir / LOG_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def stop(out_dir: Path, state: TrainerState, control: TrainerControl, why: str) -> None:
    """End training after this step, on every process, and say why."""
    if halt(state, control):
        say_stopped(out_dir, state, why)


def halt(state: TrainerState, control: TrainerControl) -> bool:
    """End training after this step; False at the last one, where it ends anyway.

    The step is not saved as a checkpoint to resume from: a run that is killed before its end is
    written must come to this decision again, not train one step past it.
    """
    if state.global_step >= state.max_steps:
        return False
    control.should_training_stop = True
    control.should_save = False
    return True


def say_stopped(out_dir: Path, state: TrainerState, why: str) -> None:
    """Say why training has ended before its last step, as a warning and as a record."""
    logger.warning("training stops at step %s: %s", state.global_step, why)
    if state.is_world_process_zero:
        append(out_dir, {"step": state.global_step, "stopped": why})


def summary(out_dir: Path, step: int) -> dict[str, Any]:
    """``alarms`` of a run and why it ``stopped`` at its last ``step``, where there are any."""
    records = _read(out_dir / LOG_FILE)
    alarms = [r for r in records if "alarm" in r]
    ends = [r for r in records if "stopped" in r and r.get("step") == step]
    found: dict[str, Any] = {}
    if ends:
        found["stopped"] = {"step": step, "why": ends[0]["stopped"]}
    if alarms:
        found["alarms"] = [f"{r['alarm']} at step {r['step']}: {r.get('text', '')}" for r in alarms]
    return found


def _read(log: Path) -> list[dict[str, Any]]:
    """Records of a log; processes without that file have none."""
    if not log.is_file():
        return []
    records = []
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:  # cut short by a kill
            continue
    return [r for r in records if isinstance(r, dict)]
