"""Where a checkpoint comes from: its stage, the stages before it, and the model they began with.

A contract names what its stage started from. Where that is a folder which is still here, with the
files that it had then, the walk goes on; where not, it ends and says why. Nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from rank_rl.errors import ModelError
from rank_rl.hub.contract import FILE, PromptContract
from rank_rl.hub.tree import read_json
from rank_rl.models.sources import ADAPTER_CONFIG, fingerprint

RECIPE, PROVENANCE, DONE = "recipe.resolved.yaml", "provenance.json", "done.json"
LOG = "training_log.jsonl"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MOST = 20  # stages; more is a circle


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of training, by what its folder holds.

    Attributes:
        checkpoint: the folder of weights.
        contract: the prompt contract saved with them.
        folder: the stage's output; None where the checkpoint stands alone.
        recipe, provenance, done: files of that folder; empty where there are none, or where they
            belong to another run than the contract names.
    """

    checkpoint: Path
    contract: PromptContract
    folder: Path | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    done: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the stage is called: score, sft, grpo."""
        return self.contract.stage or "unknown stage"

    def file(self, name: str) -> Path | None:
        """A file of the stage's output, where the output is this run's."""
        if self.folder is None or not self.provenance:
            return None
        return path if (path := self.folder / name).is_file() else None

    def section(self, name: str) -> Mapping[str, Any]:
        """A section of the recipe; empty where it is not known."""
        found = self.recipe.get(name)
        return found if isinstance(found, Mapping) else {}

    def summary(self) -> Mapping[str, Any]:
        """What the stage said when it was done."""
        found = self.done.get("summary")
        return found if isinstance(found, Mapping) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """All stages behind a checkpoint, the newest first, and the model that the oldest began with.

    ``broken`` says why the stages before the oldest one are not known; empty where there are none.
    """

    stages: tuple[Stage, ...]
    base: str
    base_revision: str
    broken: str = ""

    @property
    def last(self) -> Stage:
        """The stage that wrote the checkpoint."""
        return self.stages[0]

    @property
    def hub_base(self) -> str:
        """Hub id of the base model; empty where it is none or not known to be one."""
        return "" if self.broken else hub_id(self.base, self.base_revision)


def hub_id(name: str, revision: str) -> str:
    """A model's name where it was loaded from the Hub, which its revision (a commit) tells."""
    return name if name.count("/") == 1 and _COMMIT.fullmatch(revision or "") else ""


def trace(checkpoint: Path) -> Lineage:
    """Walk back from a checkpoint through the contracts of local folders.

    Raises:
        ModelError: no such folder, or no prompt contract in it (or, for a trainer's own
            checkpoint, in the stage's ``final`` beside it).
    """
    if not checkpoint.is_dir():
        raise ModelError("no such folder", where=str(checkpoint), expected="a checkpoint")
    stages = [_stage(checkpoint, _contract(checkpoint))]
    broken = ""
    while len(stages) < _MOST:
        contract = stages[-1].contract
        if not contract.base_revision.startswith("files:"):
            break
        found, broken = _before(stages[-1])
        if found is None:
            break
        stages.append(_stage(found, PromptContract.read(found)))
    last = stages[-1].contract
    return Lineage(
        stages=tuple(stages),
        base=last.base_model,
        base_revision=last.base_revision,
        broken=broken,
    )


def _contract(checkpoint: Path) -> PromptContract:
    """The contract in a folder; that of its stage for one which the trainer wrote."""
    if (checkpoint / FILE).is_file():
        return PromptContract.read(checkpoint)
    beside = checkpoint.parent / "final"
    if checkpoint.name.startswith("checkpoint-") and (beside / FILE).is_file():
        # How it wants to be asked is the stage's; how well it did at the end is not its own.
        return replace(PromptContract.read(beside), extra={})
    raise ModelError(
        f"{FILE} is missing",
        where=str(checkpoint),
        expected="a checkpoint saved by rank_rl, such as a stage's folder final",
    )


def _stage(checkpoint: Path, contract: PromptContract) -> Stage:
    folder = checkpoint.absolute().parent
    provenance = read_json(folder / PROVENANCE)
    if not provenance or provenance.get("hash") != contract.recipe_hash:
        return Stage(checkpoint=checkpoint, contract=contract)
    done = read_json(folder / DONE)
    return Stage(
        checkpoint=checkpoint,
        contract=contract,
        folder=folder,
        recipe=recipe_of(folder),
        provenance=provenance,
        done=done if done.get("hash") == contract.recipe_hash else {},
    )


def recipe_of(folder: Path) -> Mapping[str, Any]:
    """The resolved recipe in an output folder; empty where there is none."""
    try:
        found = yaml.safe_load((folder / RECIPE).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, Mapping) else {}


def _before(stage: Stage) -> tuple[Path | None, str]:
    """The checkpoint that a stage started from, or why it is not known."""
    name, revision = stage.contract.base_model, stage.contract.base_revision
    seen = False
    for folder in places(stage, name):
        if not folder.is_dir():
            continue
        seen = True
        # An adapter's revision names its base too.
        if revision.split(" on ")[0] != f"files:{fingerprint(folder)}":
            continue
        if not (folder / FILE).is_file():
            return None, ""  # a model that rank_rl did not train: this is the base
        return folder, ""
    what = "holds other files now" if seen else "is not here"
    return None, f"{Path(name).name if Path(name).is_absolute() else name} {what}"


def places(stage: Stage, name: str) -> Iterator[Path]:
    """Where a path that a recipe names may be: from here, or from where the stage was run."""
    yield Path(name).expanduser()
    if Path(name).is_absolute() or stage.folder is None:
        return
    output = Path(str(stage.section("run").get("output_dir", "")))
    parts, own = output.parts, stage.folder.parts
    if parts and not output.is_absolute() and own[-len(parts) :] == parts:
        yield Path(*own[: -len(parts)]) / name


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a PEFT adapter."""
    return (folder / ADAPTER_CONFIG).is_file()
