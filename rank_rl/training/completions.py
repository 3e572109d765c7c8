"""What a GRPO run wrote, kept as parquet files that pandas and datasets read as one table.

``<output_dir>/completions/step_000010.parquet`` holds one row an answer of step 10, with its
reward, parts and advantage; further processes add ``step_000010.rank1.parquet`` and so on, so that
nothing has to be gathered. A file appears complete, at the end of its step and before a checkpoint
of that step; a resumed run first removes those behind its checkpoint. TRL's ``log_completions``
(rows of a bounded buffer, written at log steps, without status and issues) is left as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from rank_rl.rewards.adapter import Seen
from rank_rl.rewards.monitor import Judged
from rank_rl.specs import RecipeSpec
from rank_rl.training import common

if TYPE_CHECKING:
    import pyarrow

FOLDER = "completions"
_FILE = re.compile(r"\.?step_(\d+)(\.rank\d+)?\.parquet(\.part)?")
# Columns with their types; the parts of the reward follow as rewards/<name>.
_SHARED = {"step": "int64", "rank": "int32", "group": "int32", "qid": "string"}
_PAID = {"reward": "double", "copy": "double", "ceiling": "double", "advantage": "double"}
TEXT = {
    **_SHARED,
    "prompt": "string",
    "completion": "string",
    "status": "string",
    "issues": "strings",
    "tokens": "int64",
    "truncated": "bool",
    **_PAID,
    "trained": "bool",
}
SLOTS = {
    **_SHARED,
    "documents": "strings",
    "order": "strings",
    "values": "doubles",
    "logprob": "double",
    **_PAID,
}


class CompletionLog(TrainerCallback):  # type: ignore[misc]
    """Collects the answers of a step that is due and writes them when it ends.

    Due are the first step, and the first one with new answers from every multiple of
    ``grpo.log_completions`` on. ``trainer`` may be set to a ``GroupTrainer``: then advantages are
    recorded, and whether an answer is in the loss (not in a flat group that is left out).
    """

    def __init__(self, spec: RecipeSpec) -> None:
        self.folder = Path(spec.run.output_dir) / FOLDER
        self.every = spec.grpo.log_completions
        self.columns = SLOTS if spec.grpo.policy == "slots" else TEXT
        self.trainer: Any = None
        self.step, self.next = 1, 1
        self.rows: list[dict[str, Any]] = []
        self._groups: dict[Any, int] = {}

    @property
    def due(self) -> bool:
        """Whether answers of the present step are recorded."""
        return self.every > 0 and self.step >= self.next

    def see(self, seen: Seen) -> None:
        """Record a batch of generated completions; an observer of the reward adapter."""
        if not self.due:
            return
        for i, judged in enumerate(seen.judged):
            row = {
                "qid": seen.rows[i].get("qid"),
                "prompt": str(seen.prompts[i]),
                "completion": seen.texts[i],
                "status": judged.outcome.status,
                "issues": list(judged.outcome.issues),
                "tokens": seen.tokens[i],
                "truncated": judged.truncated,
            }
            self.add(row, judged)

    def add(self, row: dict[str, Any], judged: Judged) -> None:
        """Record one answer with its reward; ``row`` holds whatever else is known about it."""
        parts = {f"rewards/{name}": value for name, value in judged.scored.parts.items()}
        lines = judged.baselines
        self.rows.append(
            {
                "step": self.step,
                "group": self._groups.setdefault(judged.group, len(self._groups)),
                "reward": judged.scored.total,
                "copy": lines.copy,
                "ceiling": lines.ceiling,
                **row,
                **parts,
            }
        )

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remove what lies behind the step that training begins at."""
        kept = [0]
        for path in self.folder.glob("*step_*"):
            match = _FILE.fullmatch(path.name)
            if match and (int(match[1]) > state.global_step or match[3]):
                path.unlink(missing_ok=True)
            elif match:
                kept.append(int(match[1]))
        self.next = (max(kept) // self.every + 1) * self.every if max(kept) and self.every else 1

    def on_step_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Steps are counted as in the training log: by the update that they end with."""
        self.step = state.global_step + 1
        self.rows, self._groups = [], {}
        if self.trainer is not None:
            self.trainer.advantages_found, self.trainer.trained = [], []

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the answers of the step."""
        if not self.rows:
            return
        for i, row in enumerate(self.rows):
            row["rank"] = args.process_index
            if self.trainer is not None:
                row["advantage"] = self.trainer.advantages_found[i]
                row["trained"] = self.trainer.trained[i]
        own = f".rank{args.process_index}" if args.process_index else ""
        with common.saving(self.folder.parent):
            self.folder.mkdir(parents=True, exist_ok=True)
            write(self.folder / f"step_{self.step:06d}{own}.parquet", self.rows, self.columns)
        self.rows, self._groups = [], {}
        self.next = (self.step // self.every + 1) * self.every


def write(path: Path, rows: Sequence[dict[str, Any]], columns: dict[str, str]) -> None:
    """Write rows as a parquet file that is either whole or not there."""
    import pyarrow
    from pyarrow import parquet

    parts = {name: "double" for row in rows for name in row if name.startswith("rewards/")}
    kinds = {**columns, **parts}
    schema = pyarrow.schema([(name, _type(pyarrow, kind)) for name, kind in kinds.items()])
    # A leading dot hides what is not whole from those who read the folder.
    part = path.with_name(f".{path.name}.part")
    parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema=schema), part)
    os.replace(part, path)


def _type(arrow: Any, kind: str) -> pyarrow.DataType:
    lists = {"strings": "string", "doubles": "double"}
    if kind in lists:
        return arrow.list_(arrow.type_for_alias(lists[kind]))
    return arrow.type_for_alias(kind)
