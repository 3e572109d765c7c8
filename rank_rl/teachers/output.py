"""The files of stage ``teach``, written from what was gathered.

``lessons.jsonl`` (SFT), ``tasks.jsonl`` (labelled queries for every other stage),
``judged.jsonl`` (imported queries with grades of people), ``exchanges.jsonl`` (every prompt and
answer with what became of it), ``failures.jsonl``,
``report.json`` and the data card ``README.md`` depend on the answers alone; ``ledger.json`` says
what they took.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rank_rl import formats
from rank_rl.data import lessons as lesson_files
from rank_rl.data.files import write_lines
from rank_rl.data.lessons import Lesson, as_record, fits, target
from rank_rl.data.tasks import write_tasks
from rank_rl.errors import DataError
from rank_rl.formats.base import Format
from rank_rl.formats.budget import TokenCounter, fit
from rank_rl.records import RankingTask
from rank_rl.specs import RecipeSpec, TeachSpec
from rank_rl.teachers import report as reports
from rank_rl.teachers.asking import Requests, identity
from rank_rl.teachers.filters import Item
from rank_rl.teachers.gather import Judged
from rank_rl.teachers.imports import Imported
from rank_rl.teachers.store import served_by
from rank_rl.teachers.units import Answered, Ask, Question, Trail

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Everything that a run of teachers made."""

    items: Sequence[Item]
    judged: Judged
    tasks: Sequence[RankingTask]
    human: Sequence[RankingTask]
    answered: Sequence[Answered]
    unlabelled: int
    units: int
    imports: Sequence[Imported]
    synthesis: Mapping[str, Any] | None
    queries: Sequence[Answered] = ()
    query_questions: Sequence[Question] = ()

    @property
    def everything(self) -> list[Answered]:
        """What was answered about passages, then about queries."""
        return [*self.queries, *self.answered]


def write(
    made: Made,
    ledger: Mapping[str, Any],
    spec: RecipeSpec,
    info: Mapping[str, Any],
    requests: Requests,
) -> dict[str, Any]:
    """Write all files and return the stage's summary.

    Raises:
        StorageError: a file cannot be written.
    """
    teach = spec.teach or TeachSpec()
    out = Path(spec.run.output_dir)
    fmt = formats.make_written(spec.format, where="format.name")
    records, unfit = _records(made.judged.kept, fmt, requests.tokens)
    report = _report(made, spec, info, requests) | {"not_in_student_format": unfit}
    lesson_files.write(out / "lessons.jsonl", records)
    write_tasks(out / "tasks.jsonl", made.tasks)
    for name, wanted in (("judged.jsonl", made.imports), ("lessons.parquet", teach.parquet)):
        if not wanted:  # of a run before this one
            (out / name).unlink(missing_ok=True)
    if made.imports:
        write_tasks(out / "judged.jsonl", made.human)
    questions = [Question.of(q, spec.run.seed) for q in teach.questions]
    questions += made.query_questions
    lesson_files.write(out / "exchanges.jsonl", _exchanges(made, questions, requests))
    # The store may remember failures of requests that this recipe does not ask for.
    asked = {a.key for one in made.everything for t in _trails(one) for a in t.answers}
    failures = [dataclasses.asdict(f) for f in requests.store.failures() if f.key in asked]
    ledger = {**ledger, "given_up": len(failures)}
    write_lines(out / "failures.jsonl", (json.dumps(f, ensure_ascii=False) for f in failures))
    _json(out / "report.json", report)
    _json(out / "ledger.json", ledger)
    write_lines(
        out / "README.md", reports.card(spec.run.name, teach.licence, report).rstrip().split("\n")
    )
    if teach.parquet:
        to_parquet(out / "lessons.jsonl", out / "lessons.parquet")
    for name, facts in report["quality"]["all"].items():
        if facts.get("verdict", "").startswith(("mediocre", "poor")):
            logger.warning("teacher of %s is %s", name, facts["verdict"])
    return _summary(report, ledger, out)


def _records(
    kept: Sequence[Lesson], fmt: Format, tokens: TokenCounter
) -> tuple[list[dict[str, Any]], int]:
    """Lessons with prompt and completion in the student's format; and how many have none."""
    records, unfit = [], 0
    for lesson in kept:
        columns: dict[str, Any] = {"prompt": [], "completion": []}
        if fits(fmt, lesson.view) and not hasattr(fmt, "slots"):
            try:
                view, _ = fit(lesson.view, tokens, fmt=fmt)
                prompt = fmt.render(view)
                text = target(fmt, lesson, view)
                columns["prompt"] = [dict(m) for m in prompt.messages]
                columns["completion"] = [{"role": "assistant", "content": text}]
            except DataError:
                pass
        unfit += not columns["prompt"]
        records.append(as_record(lesson, **columns))
    return records, unfit


def _exchanges(
    made: Made, questions: Sequence[Question], requests: Requests
) -> Iterator[dict[str, Any]]:
    """Every prompt and answer in unit order, with its status and why it was dropped."""
    by_name = {q.spec.name: q for q in questions}
    for one in made.everything:
        for name, trails in one.drawn.items():
            question = by_name[name]
            picked = {t.sample for t in one.chosen.get(name, ())}
            for trail in trails:
                for answer in trail.answers:
                    ask = Ask(
                        question=question, unit=one.unit, view=answer.view, samples=(trail.sample,)
                    )
                    prompt = requests.of(ask).prompt
                    completion = answer.completion
                    yield {
                        "unit": one.unit.uid,
                        "question": name,
                        "teacher": question.spec.teacher,
                        "sample": trail.sample,
                        "chosen": trail.sample in picked,
                        "messages": [dict(m) for m in prompt.messages],
                        "prefill": prompt.prefill,
                        "text": completion.text if completion else "",
                        "finish": completion.finish if completion else "error",
                        "logprob": completion.logprob if completion else None,
                        "status": answer.outcome.status,
                        "issues": list(answer.outcome.issues),
                        "dropped": made.judged.reasons.get((one.unit.uid, name, (answer.key,)), ""),
                        "key": answer.key,
                    }


def _report(
    made: Made, spec: RecipeSpec, info: Mapping[str, Any], requests: Requests
) -> dict[str, Any]:
    teach = spec.teach or TeachSpec()
    asked = {q.teacher for q in teach.questions}
    asked |= {teach.synthesis.teacher} if teach.synthesis else set()
    collection = f"{spec.data.source} {spec.data.path or ''}".strip()
    own = bool(teach.questions) and teach.synthesis is None
    source = {
        "recipe": f"{info.get('path', '')} ({info.get('hash', '')})",
        "collection": f"{collection}, split {teach.split}" if own else "",
        "corpus": teach.synthesis.corpus if teach.synthesis else "",
        "kept apart from": "" if own else collection,
        "licence": teach.licence or "not stated",
        "teachers": {name: identity(teach.teachers[name]) for name in sorted(asked)},
        "answered as": served_by(requests.store),
        "prompts": {q.name: f"{q.format.wording}, mode {q.format.mode}" for q in teach.questions},
        "prompt versions": {
            **{q.spec.name: q.fmt.version for q in made.query_questions},
            **{q.name: formats.make(q.format).version for q in teach.questions},
        },
        "sha256 of prompts": _prompt_hashes(made),
        "imports": [{"name": s.name, "licence": s.licence, "files": dict(i.files)}
                    for s, i in zip(teach.imports, made.imports, strict=True)],
    }  # fmt: skip
    counts = {
        "units": made.units,
        "units_complete": len(made.answered),
        "answers": len(made.items),
        "lessons": len(made.judged.kept),
        "tasks": len(made.tasks),
        "tasks_with_peoples_grades": len(made.human),
        "tasks_without_labels": made.unlabelled,
    }
    return {
        "counts": counts,
        "source": source,
        "drops": made.judged.as_dict(),
        "imports": [
            {"lessons": len(i.lessons), "refused": dict(i.refused), "examples": dict(i.examples)}
            for i in made.imports
        ],
        "synthesis": made.synthesis,
        "status": reports.statuses(made.everything, [i for i in made.items if i.answered is None]),
        "quality": {
            "all": reports.quality(
                (i.lesson for i in made.items if i.outcome.status != "failed"),
                reports.rankings(made.answered),
            ),
            "kept": reports.quality(made.judged.kept),
        },
        "agreement": reports.agreements(made.answered),
        "cuts": dataclasses.asdict(requests.cuts),
    }


def _trails(answered: Answered) -> list[Trail]:
    return [trail for trails in answered.drawn.values() for trail in trails]


def _prompt_hashes(made: Made) -> dict[str, str]:
    """By question, a hash of the keys of all its requests: of prompts, model and sampling."""
    keys: dict[str, set[str]] = {}
    for one in made.everything:
        for name, trails in one.drawn.items():
            keys.setdefault(name, set()).update(a.key for t in trails for a in t.answers)
    joined = {name: "".join(sorted(found)) for name, found in keys.items()}
    return {n: hashlib.sha256(text.encode()).hexdigest()[:16] for n, text in joined.items()}


def _summary(report: Mapping[str, Any], ledger: Mapping[str, Any], out: Path) -> dict[str, Any]:
    spent = ("requests", "succeeded", "failed_attempts", "given_up", "interrupted")
    summary: dict[str, Any] = {
        "stage": "teach",
        "table": reports.quality_rows(report["quality"]["all"]),
        "units": f"{report['counts']['units_complete']} of {report['counts']['units']} complete",
        "lessons": report["counts"]["lessons"],
        "tasks": report["counts"]["tasks"],
        "dropped": {
            row["dropped by"]: row["answers"] for row in reports.drop_rows(report["drops"])
        },
        "verdict": {
            name: facts["verdict"]
            for name, facts in report["quality"]["all"].items()
            if facts.get("verdict")
        },
        "requests": {key: ledger[key] for key in spent},
        "tokens": {"in": ledger["tokens_in"], "out": ledger["tokens_out"]},
        "cost": f"{ledger['cost']:g} {ledger['currency']}",
        "seconds": ledger["seconds"],
    }
    if report["synthesis"] is not None:
        written = report["synthesis"]
        summary["queries"] = {k: written[k] for k in ("written", "kept", "removed")}
    return summary | {"lessons file": str(out / "lessons.jsonl"), "folder": str(out)}


def to_parquet(source: Path, path: Path) -> None:
    """Write a JSONL file of lessons as Parquet, with the types that a column has without values."""
    from datasets import Dataset, Features

    rows = [json.loads(line) for line in source.read_text("utf-8").split("\n") if line]
    features = Features(lesson_files.features())
    columns = {name: [row[name] for row in rows] for name in features}
    Dataset.from_dict(columns, features=features).to_parquet(str(path))


def _json(path: Path, content: Mapping[str, Any]) -> None:
    # Not splitlines: text of a model may hold other line separators, which JSON leaves alone.
    write_lines(path, json.dumps(content, indent=2, ensure_ascii=False).split("\n"))
