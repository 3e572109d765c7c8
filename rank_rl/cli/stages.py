"""The commands ``rank``, ``score``, ``sft``, ``grpo`` and ``bench``: one stage of one recipe.

They load the recipe, write provenance, call the stage, and leave ``done.json`` with the recipe's
hash in its output folder; ``rank-rl run`` reads that mark. Only the main process speaks.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rank_rl.cli.boundary import main_process
from rank_rl.cli.process import PARENT, die_with_parent
from rank_rl.cli.show import show_summary

STAGES = {
    "rank": "Rank a split with a model: scores for another one to learn from.",
    "score": "Teach the student to score: packed label logits (warm-up stage).",
    "sft": "Fine-tune the student on ideal answers (TRL SFT).",
    "grpo": "Refine the student with ranking rewards (GRPO, generated or packed groups).",
    "bench": "Compare systems on the held-out queries, with statistics.",
}
DONE = "done.json"

RecipePath = Annotated[Path, typer.Argument(help="Recipe file (YAML).", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Change a value of the recipe; repeatable."),
]


def command(stage: str) -> Callable[..., None]:
    """Make the command function of a stage."""

    def run(recipe: RecipePath, set_: Overrides = None) -> None:
        execute(stage, recipe, set_ or [])

    return run


def execute(stage: str, path: Path, overrides: list[str]) -> dict[str, Any]:
    """Run one stage of a recipe and return its summary.

    Raises:
        RankRLError: whatever of the recipe, the data, the model or the disk is wrong.
    """
    from rank_rl import recipe as recipes
    from rank_rl.cli import provenance
    from rank_rl.training.arguments import check_training

    die_with_parent()
    set_up_logging()
    recipe = recipes.load(path, overrides)
    out_dir = Path(recipe.spec.run.output_dir)
    if stage not in ("bench", "rank"):
        training = recipe.spec.training
        check_training(stage, training, policy=recipe.spec.grpo.policy, where=str(path))
    if main_process():
        provenance.write_provenance(out_dir, recipe, {"stage": stage})
        (out_dir / DONE).unlink(missing_ok=True)
    summary = _function(stage)(recipe.spec, recipe.info(**provenance.facts()))
    if main_process():
        mark = {"stage": stage, "hash": recipe.hash, "summary": summary}
        provenance.write_json(out_dir / DONE, mark)
        if PARENT not in os.environ:  # below `rank-rl run`, which reports at its end
            show_summary(summary)
    leave_process_group()
    return summary


def _function(stage: str) -> Callable[[Any, Mapping[str, Any]], dict[str, Any]]:
    if stage == "bench":
        from rank_rl.bench.run import run

        return run
    if stage == "rank":
        from rank_rl.bench.rank import run as rank

        return rank
    from rank_rl import training

    return training.stage(stage)


def set_up_logging() -> None:
    """Log to stderr: this package from INFO on, all others (bm25s is chatty) from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.addFilter(lambda r: r.levelno >= logging.WARNING or r.name.startswith("rank_rl"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    level = logging.INFO if main_process() else logging.ERROR
    logging.getLogger("rank_rl").setLevel(level)


def leave_process_group() -> None:
    """Leave the distributed group, without which some launches abort when they exit."""
    torch = sys.modules.get("torch")
    group = torch.distributed if torch is not None and torch.distributed.is_available() else None
    if group is not None and group.is_initialized():
        group.destroy_process_group()
