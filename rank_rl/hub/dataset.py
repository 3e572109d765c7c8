"""The tree of a dataset repository: what ``rank-rl teach`` wrote, with a card that the Hub indexes.

Contract: lessons and tasks are published as they are and as Parquet, which ``datasets`` loads; the
page is the one that the stage wrote out of its report. The store and the exchanges stay: they hold
every prompt, dropped answers included.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rank_rl.data.tasks import read_tasks
from rank_rl.errors import DataError
from rank_rl.hub.licence import Licence, front_matter, licence
from rank_rl.hub.scrub import portable, portable_text
from rank_rl.hub.tree import CARD, Gathering, Tree, read, read_json
from rank_rl.records import RankingTask
from rank_rl.teachers.push import FILES

LESSONS, TASKS, REPORT = "lessons.jsonl", "tasks.jsonl", "report.json"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """What is to be published, and what nobody but the user knows.

    Attributes:
        folder: output of ``rank-rl teach``.
        repo: where it goes.
        licence, licence_link: of the data; empty takes what the recipe said.
        languages: codes such as ``en``.
    """

    folder: Path
    repo: str
    licence: str = ""
    licence_link: str = ""
    languages: tuple[str, ...] = ()


def is_lessons(folder: Path) -> bool:
    """Whether a folder is the output of ``rank-rl teach``."""
    return (folder / REPORT).is_file() and (folder / LESSONS).is_file()


def data_tree(options: DataOptions, scratch: Path) -> Tree:
    """Gather everything that a dataset repository is to hold.

    Args:
        options: what to publish.
        scratch: a folder for Parquet files; it has to stay until the tree was sent.

    Raises:
        DataError: not an output of ``rank-rl teach``, or a file that holds a key.
    """
    folder = options.folder
    if not is_lessons(folder):
        raise DataError(
            f"no {LESSONS} with {REPORT}", where=str(folder), expected="an output of rank-rl teach"
        )
    gathering = Gathering()
    gathering.copied(folder / LESSONS, LESSONS)
    gathering.items += [*_lessons_table(folder, scratch)]
    if (folder / TASKS).is_file():
        gathering.records(folder / TASKS, TASKS, fields=("source",))
        tasks = read_tasks(folder / TASKS)
        if tasks:
            gathering.made("tasks.parquet", _tasks_table(tasks), text="")
    gathering.json(folder / REPORT, REPORT)
    tables = {item.path for item in gathering.items if item.path.endswith(".parquet")}
    gathering.made(CARD, _card(options, tables).encode("utf-8"))
    known = {*FILES, "tasks.parquet"}
    gathering.left_out += sorted(f.name for f in folder.iterdir() if f.name not in known)
    own = _licence(options)
    if not options.licence:
        where = f"as {own.source} says" if own.source else "nobody said"
        gathering.said.append(f"licence: {own.id} ({where}); --license names another")
    if not options.languages:
        gathering.said.append("languages are unknown: --language en")
    return gathering.tree().finished()


def _lessons_table(folder: Path, scratch: Path) -> Iterator[Any]:
    from rank_rl.hub.tree import Item
    from rank_rl.teachers.output import to_parquet

    if not (folder / LESSONS).stat().st_size:
        return
    made = scratch / "lessons.parquet"
    made.parent.mkdir(parents=True, exist_ok=True)
    to_parquet(folder / LESSONS, made)
    yield Item(path=made.name, source=made)


def _tasks_table(tasks: list[RankingTask]) -> bytes:
    """Tasks as a Parquet file: candidates and grades are lists, as docids are no column names."""
    import pyarrow
    from pyarrow import parquet

    text, number = pyarrow.string(), pyarrow.int64()
    document = pyarrow.struct(
        [
            *(("docid", text), ("title", text), ("text", text)),
            *(("rank", number), ("score", pyarrow.float64())),
        ]
    )
    grade = pyarrow.struct([("docid", text), ("grade", number)])
    schema = pyarrow.schema(
        [
            *(("qid", text), ("query", text), ("instruction", text), ("metadata", text)),
            *(("candidates", pyarrow.list_(document)), ("grades", pyarrow.list_(grade))),
            *(("source", text), ("split", text)),
        ]
    )
    out = io.BytesIO()
    table = pyarrow.Table.from_pylist([_task_row(task) for task in tasks], schema=schema)
    parquet.write_table(table, out, compression="zstd")
    return out.getvalue()


def _task_row(task: RankingTask) -> dict[str, Any]:
    metadata = json.dumps(dict(task.query.metadata), ensure_ascii=False, sort_keys=True)
    return {
        "qid": task.query.qid,
        "query": task.query.text,
        "instruction": task.query.instruction,
        "metadata": metadata if task.query.metadata else None,
        "candidates": [
            {"docid": c.docid, "title": c.title, "text": c.text, "rank": c.rank, "score": c.score}
            for c in task.candidates
        ],
        "grades": None
        if task.grades is None
        else [{"docid": docid, "grade": grade} for docid, grade in task.grades.items()],
        "source": portable(task.source),
        "split": task.split,
    }


def _card(options: DataOptions, tables: set[str]) -> str:
    """The stage's page below metadata that the Hub indexes."""
    from huggingface_hub import DatasetCard, DatasetCardData

    page = options.folder / CARD
    said = read(page) if page.is_file() else f"# {options.repo.split('/')[-1]}\n"
    front = front_matter(said)
    body = said.split("\n---\n", 1)[1] if front else said
    counts = read_json(options.folder / REPORT).get("counts") or {}
    known: dict[str, Any] = dict(_licence(options).metadata())
    data = DatasetCardData(
        **known,
        language=list(options.languages) or None,
        task_categories=["text-ranking"],
        tags=list(front.get("tags") or ["rank_rl", "reranking"]),
        size_categories=_size(counts),
        annotations_creators=["machine-generated"],
        configs=[
            {"config_name": name.split(".")[0], "data_files": name} for name in sorted(tables)
        ],
    )
    text = portable_text(body.strip("\n"))
    use = "\n".join(_use(options, tables))
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n\n{use}\n"))


def _use(options: DataOptions, tables: set[str]) -> list[str]:
    lines = ["## Use", ""]
    if tables:
        name = sorted(tables)[0].split(".")[0]
        lines += [
            "```python",
            "from datasets import load_dataset",
            "",
            f'rows = load_dataset({json.dumps(options.repo)}, {json.dumps(name)}, split="train")',
            "```",
            "",
        ]
    return [
        *lines,
        f"rank_rl trains on the files themselves: `data.lessons: {LESSONS}` for stage sft, "
        f"`data: {{source: jsonl, path: {TASKS}}}` for all others.",
    ]


def _licence(options: DataOptions) -> Licence:
    if options.licence:
        return licence(options.licence, options.licence_link, source="whoever published it")
    page = options.folder / CARD
    said = str(front_matter(read(page)).get("license") or "") if page.is_file() else ""
    known = said and said != "unknown"
    return licence(said, source="the recipe of the lessons") if known else Licence()


def _size(counts: Mapping[str, Any]) -> list[str] | None:
    rows = max((int(counts.get(name) or 0) for name in ("lessons", "tasks")), default=0)
    if not rows:
        return None
    return [next((name for most, name in _SIZES if rows < most), "n>1M")]
