"""What models were trained on, as far as it can be found: for comparing it with test queries.

A checkpoint that a stage wrote lies in a folder of the stage's output, with the stage's recipe
(``recipe.resolved.yaml``) beside it; ``rank_rl.json`` in it names the model that it started from,
which may be such a checkpoint too. Of any other model nothing is known here, which is said.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import ValidationError

from rank_rl.data.leak_report import Sample
from rank_rl.data.leaks import learned
from rank_rl.errors import DataError
from rank_rl.specs import DataSpec

if TYPE_CHECKING:
    from rank_rl.data import Collection

logger = logging.getLogger(__name__)
RECIPE, CONTRACT = "recipe.resolved.yaml", "rank_rl.json"
# What decides which queries and lessons are learned from; the rest says how.
_KEYS = (
    *("source", "path", "params", "train_split", "test_split", "validation_split", "validation"),
    *("max_train", "max_validation", "lessons", "leaks"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Training data, read when they are asked for.

    ``parts`` are ``data`` sections with the seed that divides them, each with its collection;
    ``unknown`` says of which models the training data are not known, and why.
    """

    parts: tuple[tuple[DataSpec, Collection], ...]
    unknown: tuple[str, ...] = ()

    def samples(self) -> Iterator[Sample]:
        """Everything learned from, once each."""
        seen: set[tuple[str, str]] = set()
        for spec, collection in self.parts:
            for sample in learned(spec, collection):
                if (sample.source, sample.where) not in seen:
                    seen.add((sample.source, sample.where))
                    yield sample


def training_of(spec: DataSpec, seed: int, models: Sequence[str] = ()) -> Training:
    """The training data of a recipe and of models.

    Args:
        spec: the recipe's ``data`` section.
        seed: its ``run.seed``.
        models: folders of checkpoints; other names are told as unknown.

    Raises:
        DataError: the recipe's own data cannot be read (those of models are told as unknown).
    """
    from rank_rl import data

    parts = {_key(spec, seed): (spec, data.load(spec, seed=seed))}
    unknown: dict[str, str] = {}
    for model in dict.fromkeys(models):
        for name in _chain(model, unknown):
            try:
                found, its_seed = _recipe(Path(name))
                key = _key(found, its_seed)
                if key not in parts:
                    parts[key] = found, data.load(found, seed=its_seed)
            except DataError as error:
                unknown[name] = error.line()
    for name, why in unknown.items():  # models of others are the rule: no warning
        logger.info("what %s was trained on is not compared: %s", name, why)
    told = tuple(f"{name}: {why}" for name, why in unknown.items())
    return Training(parts=tuple(parts.values()), unknown=told)


def _chain(model: str, unknown: dict[str, str]) -> Iterator[str]:
    """A checkpoint and those that it started from; the model at the end of the chain is unknown."""
    seen: set[str] = set()
    while model and model not in seen:
        seen.add(model)
        contract = Path(model) / CONTRACT
        if not contract.is_file():
            unknown.setdefault(model, "not a checkpoint of rank_rl on this machine")
            return
        yield model
        try:
            known = json.loads(contract.read_text(encoding="utf-8"))
            model = str(known.get("base_model") or "")
        except (OSError, ValueError, AttributeError) as error:
            unknown.setdefault(model, f"{CONTRACT} cannot be read: {error}")
            return


def _recipe(checkpoint: Path) -> tuple[DataSpec, int]:
    """The ``data`` section, and the seed, that a checkpoint was trained with."""
    path = checkpoint.parent / RECIPE
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return DataSpec.model_validate(content["data"]), int(content["run"]["seed"])
    except (OSError, yaml.YAMLError, ValidationError, LookupError, TypeError, ValueError) as error:
        raise DataError(
            f"its recipe cannot be read: {(str(error).splitlines() or ['?'])[0]}", where=str(path)
        ) from error


def _key(spec: DataSpec, seed: int) -> str:
    known = spec.model_dump(mode="json", include=set(_KEYS))
    return json.dumps([known, seed], sort_keys=True)
