"""Collections become tuples of ``RankingTask`` here: read, first stage, split, checked for leaks.

Adding a source is one file and one line in ``SOURCES``: a function ``(DataSpec) -> SourceData``.
Drawing views from tasks is left to ``sampling``, rows for trainers to ``rows``.
"""

# Without "from __future__ import annotations": it would hide the submodule of that name here.
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rank_rl import registry
from rank_rl.data import splits
from rank_rl.data.injections import attacked
from rank_rl.data.leaks import sift
from rank_rl.data.provenance import describe_split
from rank_rl.data.sources import SourceData
from rank_rl.data.teacher import scored
from rank_rl.records import RankingTask, TeacherScores
from rank_rl.specs import DataSpec

SOURCES: dict[str, str] = {
    "bundled": "rank_rl.data.beir:load_bundled",
    "beir": "rank_rl.data.beir:load_folder",
    "trec": "rank_rl.data.trec:load_files",
    "jsonl": "rank_rl.data.tasks:load_files",
    "rankify": "rank_rl.data.rankify:load_files",
    "t2ranking": "rank_rl.data.t2ranking:load_folder",
    "bright": "rank_rl.data.bright:load",
    "r2med": "rank_rl.data.r2med:load",
    "litsearch": "rank_rl.data.litsearch:load",
    "nano_beir": "rank_rl.data.nano_beir:load",
    "beir_hub": "rank_rl.data.beir_hub:load",
    "ir_datasets": "rank_rl.data.irds:load",
    "msmarco": "rank_rl.data.msmarco:load",
    "trec_dl": "rank_rl.data.trec_dl:load",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """A collection, ready for training and for the benchmark.

    ``train`` and ``validation`` share no query with ``test``. ``provenance`` is JSON-safe: file
    hashes, counts, the leak report, the first stage and its mean nDCG@10 for each split.
    ``teacher`` holds a teacher's scores of training documents by query id and docid. ``leaking``
    are queries (``splits.normalised``) that ``data.leaks`` filters: lessons about them are not
    trained on.
    """

    name: str
    train: tuple[RankingTask, ...]
    validation: tuple[RankingTask, ...]
    test: tuple[RankingTask, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    teacher: TeacherScores = field(default_factory=dict)
    leaking: frozenset[str] = frozenset()


def load(spec: DataSpec, *, seed: int) -> Collection:
    """Read the collection that a recipe names and divide it.

    Args:
        spec: the ``data`` section of a recipe.
        seed: run seed; it chooses the validation queries and what ``max_*`` keeps.

    Raises:
        RecipeError: unknown source.
        DataError: a file, split or judgement that is missing or malformed.
    """
    source = registry.resolve("data source", spec.source, SOURCES)
    data: SourceData = source(spec)
    held_out = spec.validation_split or data.validation_split
    spec = spec.model_copy(update={"validation_split": held_out})
    division = splits.divide(data.splits, spec, seed=seed)
    sifted = sift(spec, division, data.name)
    train, teacher, facts = scored(spec, sifted.train)
    if spec.attacks is not None:
        train, made = attacked(train, spec.attacks, seed=seed)
        facts = {**facts, "attacks": made}
    parts = {
        "train": train,
        "validation": sifted.validation,
        "test": division.test,
    }
    provenance = {
        "source": spec.source,
        **data.provenance,
        **facts,
        "seed": seed,
        "leaks": division.leaks.as_dict() | ({"overlap": sifted.facts} if sifted.facts else {}),
        "validation_leaks": division.validation_leaks.as_dict(),
        "splits": {name: describe_split(tasks) for name, tasks in parts.items()},
    }
    return Collection(
        name=data.name, provenance=provenance, teacher=teacher, leaking=sifted.leaking, **parts
    )
