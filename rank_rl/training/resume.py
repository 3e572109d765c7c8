"""Going on where a killed run was: which checkpoint, and whether it belongs to this run.

``run_state.json`` beside the checkpoints remembers what the run was started with. Checkpoints of
other settings, other data or other start weights are removed instead of being resumed; a finished
run that is asked for again with the same settings or fewer steps starts over, with more steps it
goes on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rank_rl.specs import EvalSpec, RecipeSpec

logger = logging.getLogger(__name__)

LOG_FILE = "training_log.jsonl"
STATE_FILE = "run_state.json"
BEST_FILE = "best.json"
SETTING = "eval_fingerprint"  # of best.json and of validations in the trainer's log history
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
# A run may go on with others of these; a longer run changes the schedule of what is left of it.
_FREE = {"max_steps", "report_to", "run_name", "project", "disable_tqdm", "log_level"}
_FREE_PREFIXES = ("save_", "logging_", "dataloader_num", "log_completions", "eval_", "trackio_")


def latest_checkpoint(out_dir: Path | str) -> Path | None:
    """The complete trainer checkpoint with the most steps; None when there is none.

    A checkpoint that a killed run left half written (``trainer_state.json`` is written last, see
    ``whole_checkpoints``) is passed over.
    """
    complete = [
        (int(match[1]), path)
        for path in Path(out_dir).glob("checkpoint-*")
        if (match := _CHECKPOINT.fullmatch(path.name)) and _step(path) is not None
    ]
    return max(complete)[1] if complete else None


def resume_point(out_dir: Path, spec: RecipeSpec, identity: Mapping[str, Any]) -> Path | None:
    """Return the checkpoint to go on from, after removing what another run left behind.

    Args:
        out_dir: the run's folder.
        spec: the recipe.
        identity: what else must be the same (start weights, data), JSON-safe.

    Returns:
        A checkpoint folder, or None to start from the beginning; the same on every process, all of
        which must call this.
    """
    if not _main():
        return _from_main(None)
    core, full = _fingerprint(spec, identity, free=False), _fingerprint(spec, identity, free=True)
    before = read_json(out_dir / STATE_FILE)
    checkpoint = latest_checkpoint(out_dir)
    again = before.get("finished") and before.get("full") == full
    beyond = checkpoint is not None and _beyond(checkpoint, spec, bool(before.get("finished")))
    if before.get("core") != core or again or beyond:
        if checkpoint:
            why = "it was finished" if again else "it had other settings, data or start weights"
            why = "it has trained for as many steps or more" if beyond and not again else why
            logger.info("%s: the former run is not continued (%s)", out_dir, why)
        checkpoint = None
    _clear(out_dir, keep=checkpoint)
    write_json(out_dir / STATE_FILE, {"core": core, "full": full, "finished": False})
    if checkpoint:
        logger.info("going on from %s", checkpoint)
    return _from_main(checkpoint)


def whole_checkpoints(trainer: Any) -> None:
    """Let every process write its part of a checkpoint before the file that makes it complete.

    transformers does not wait: killed in between, a run would find a checkpoint that another
    process has only begun to write.
    """
    save = trainer._save_rng_state

    def save_and_wait(output_dir: str) -> None:
        save(output_dir)
        trainer.accelerator.wait_for_everyone()

    trainer._save_rng_state = save_and_wait


def _from_main(checkpoint: Path | None) -> Path | None:
    """The main process's choice, on every process: a shared folder may look different on others."""
    import torch

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return checkpoint
    chosen = [checkpoint]
    torch.distributed.broadcast_object_list(chosen, src=0)
    return chosen[0]


def _beyond(checkpoint: Path, spec: RecipeSpec, finished: bool) -> bool:
    """Whether a checkpoint is further than the steps now asked for, so not a part of this run.

    At exactly that step only the saving may be missing, unless the run was finished.
    """
    steps, planned = _step(checkpoint) or 0, spec.training.get("max_steps")
    if not isinstance(planned, int) or planned <= 0:
        return False
    return steps > planned or (finished and steps == planned)


def mark_finished(out_dir: Path) -> None:
    """Remember that the run came to its end."""
    write_json(out_dir / STATE_FILE, {**read_json(out_dir / STATE_FILE), "finished": True})


def _fingerprint(spec: RecipeSpec, identity: Mapping[str, Any], *, free: bool) -> str:
    left_out: dict[str, Any] = {"run": True, "bench": True, "rank": True}
    if not free:
        left_out |= {"eval": True, "grpo": {"alarm", "log_completions"}}
    content = spec.model_dump(mode="json", exclude=left_out)
    content["seed"] = spec.run.seed
    content["training"] = {
        k: v
        for k, v in content["training"].items()
        if free or not (k in _FREE or k.startswith(_FREE_PREFIXES))
    }
    text = json.dumps([content, identity], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def eval_fingerprint(spec: EvalSpec) -> str:
    """What validations must share for their values to be compared: how they rank and measure."""
    left_out = {"on_start", "every", "patience", "min_gain"}
    if spec.reasoning == "write":  # as all runs did before there was a choice
        left_out.add("reasoning")
    text = spec.model_dump_json(exclude=left_out)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _clear(out_dir: Path, *, keep: Path | None) -> None:
    """Remove checkpoints other than ``keep``, and log records and best weights behind it."""
    for path in out_dir.glob("checkpoint-*"):
        if path != keep and (_CHECKPOINT.fullmatch(path.name) and path.is_dir()):
            shutil.rmtree(path, ignore_errors=True)
    step = _step(keep) if keep else None
    log = out_dir / LOG_FILE
    best = read_json(out_dir / BEST_FILE).get("step")
    if step is None or not isinstance(best, int) or best > step:
        (out_dir / BEST_FILE).unlink(missing_ok=True)
        shutil.rmtree(out_dir / "best", ignore_errors=True)
    if step is None:
        log.unlink(missing_ok=True)
    elif log.is_file():
        kept = [line for line in log.read_text(encoding="utf-8").splitlines() if _at(line) <= step]
        part = log.with_name(log.name + ".part")
        part.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        os.replace(part, log)


def _at(line: str) -> float:
    """Step of a log record; a line cut short by a kill counts as never."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _step(checkpoint: Path) -> int | None:
    step = read_json(checkpoint / "trainer_state.json").get("global_step")
    return step if isinstance(step, int) else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from ``path``; empty when there is none or it does not parse."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(part, path)


def _main() -> bool:
    return os.environ.get("RANK", "0") == "0"
