"""What a run of teachers produced, threw away and is worth: report, quality, data card.

Quality is measured against people's grades where they exist, before and after the filters, beside
the order that the teacher was shown and chance; so a bad teacher is seen before anything is
trained. All of it depends on the answers alone, not on when they came.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from rank_rl.data.lessons import Lesson
from rank_rl.metrics import expected_ndcg, kendall, ndcg
from rank_rl.records import Order, numbered
from rank_rl.teachers.choosing import agreement
from rank_rl.teachers.filters import Item, complete_order, known_grades
from rank_rl.teachers.units import Answered

# Below these a teacher is called out; they are conventions, not laws.
GOOD_FIRST, FAIR_FIRST = 0.8, 0.6


def statuses(
    answered: Sequence[Answered], imported: Sequence[Item] = ()
) -> dict[str, dict[str, Any]]:
    """By question: answers kept by ``choose``, by parse status, and the issues found.

    Questions that give no lessons count too: what cannot be read gives no label either.
    """
    outcomes = [
        (trail.question, answer.outcome)
        for one in answered
        for trails in one.chosen.values()
        for trail in trails
        for answer in trail.answers
    ]
    outcomes += [(item.lesson.question, item.outcome) for item in imported]
    status: dict[str, Counter[str]] = {}
    issues: dict[str, Counter[str]] = {}
    for question, outcome in outcomes:
        status.setdefault(question, Counter())[outcome.status] += 1
        issues.setdefault(question, Counter()).update(outcome.issues)
    return {
        name: {
            "answers": counted.total(),
            "status": dict(sorted(counted.items())),
            "issues": dict(issues[name].most_common()),
        }
        for name, counted in status.items()
    }


def quality(lessons: Iterable[Lesson], whole: Iterable[Lesson] = ()) -> dict[str, dict[str, Any]]:
    """By question: the teacher's order against people's grades, where a query can be checked.

    ``first_relevant`` is the share of first choices that are relevant, over answers where some but
    not all documents shown are; ``pairs_right`` the share of (relevant, other) pairs in the right
    order. ``chance`` is what a random order would reach. Where no lesson of a question can be
    checked (of one document each, say), its rankings of ``whole`` queries are.
    """
    found = {name: _quality(group) for name, group in _by_question(lessons).items()}
    for name, group in _by_question(whole).items():
        facts = found.get(name, {"answers": len(group), "checkable": 0})
        if not facts["checkable"]:
            found[name] = _quality(group) | {"answers": facts["answers"]}
    return found


def rankings(answered: Iterable[Answered]) -> list[Lesson]:
    """What all answers to a question about a query amount to, as lessons for ``quality``."""
    found = []
    for one in answered:
        task = one.unit.task
        for trail in (t for trails in one.chosen.values() for t in trails if t.readable):
            kept = [c for c in task.candidates if c.docid in trail.ranking.docids]
            found.append(
                Lesson(
                    view=numbered(task.query, kept),
                    answer=Order(docids=trail.ranking.docids),
                    grades=task.grades,
                    question=trail.question,
                )
            )
    return found


def _by_question(lessons: Iterable[Lesson]) -> dict[str, list[Lesson]]:
    groups: dict[str, list[Lesson]] = {}
    for lesson in lessons:
        groups.setdefault(lesson.question, []).append(lesson)
    return groups


def _quality(lessons: Sequence[Lesson]) -> dict[str, Any]:
    rows = [_checked(lesson) for lesson in lessons if len(lesson.view.docids) > 1]
    checked = [row for row in rows if row is not None]
    if not checked:
        return {"answers": len(lessons), "checkable": 0}
    facts: dict[str, Any] = {"answers": len(lessons), "checkable": len(checked)}
    for key in checked[0]:
        facts[key] = round(fmean(row[key] for row in checked), 4)
    return facts | {"verdict": verdict(facts)}


def _checked(lesson: Lesson) -> dict[str, float] | None:
    grades = known_grades(lesson)
    if grades is None:
        return None
    shown = {d: grades.get(d, 0) for d in lesson.view.docids}
    relevant = [d for d, g in shown.items() if g > 0]
    if len(relevant) == len(shown):
        return None
    order = complete_order(lesson)
    pairs = [(d, o) for d in relevant for o in shown if shown[o] <= 0]
    place = {d: i for i, d in enumerate(order)}
    return {
        "ndcg@10": ndcg(order, shown),
        "ndcg@10_as_shown": ndcg(lesson.view.docids, shown),
        "ndcg@10_first_stage": ndcg(lesson.view.by_first_stage(), shown),
        "ndcg@10_chance": expected_ndcg(dict.fromkeys(shown, 0.0), shown),
        "first_relevant": float(shown[order[0]] > 0),
        "first_relevant_chance": len(relevant) / len(shown),
        "pairs_right": fmean(float(place[d] < place[o]) for d, o in pairs),
    }


def verdict(facts: Mapping[str, Any]) -> str:
    """One sentence about a teacher; thresholds are 0.8 and 0.6 of first choices relevant."""
    first, count = facts["first_relevant"], facts["checkable"]
    said = (
        f"its first choice is a labelled positive in {first:.0%} of {count} checkable answers "
        f"(chance {facts['first_relevant_chance']:.0%})"
    )
    base = max(facts["ndcg@10_as_shown"], facts["ndcg@10_first_stage"])
    if facts["ndcg@10"] <= base < 1:
        return f"poor: no better than the order it was given; {said}"
    if first < FAIR_FIRST:
        return f"mediocre: {said}; filter by quality, or take another teacher"
    return f"{'good' if first >= GOOD_FIRST else 'fair'}: {said}"


def agreements(answered: Sequence[Answered]) -> dict[str, Any]:
    """Mean Kendall's tau between the samples of a question, and between pairs of questions."""
    samples: dict[str, list[float]] = {}
    pairs: dict[str, list[float]] = {}
    for one in answered:
        firsts = {n: t[0] for n, t in one.chosen.items() if t and t[0].readable}
        for name, trails in one.drawn.items():
            if len(trails) > 1:
                mean = fmean(agreement(t, trails) for t in trails)
                samples.setdefault(name, []).append(mean)
        names = sorted(firsts)
        for i, a in enumerate(names):
            for b in names[i + 1 :]:
                if set(firsts[a].ranking.docids) & set(firsts[b].ranking.docids):
                    tau = kendall(firsts[a].ranking.docids, firsts[b].ranking.docids)
                    pairs.setdefault(f"{a}, {b}", []).append(tau)
    return {
        "samples": {name: round(fmean(v), 4) for name, v in samples.items()},
        "questions": {name: round(fmean(v), 4) for name, v in pairs.items()},
    }


def drop_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The drop report as table rows."""
    return [
        {
            "dropped by": name,
            "answers": d["dropped"],
            "would drop alone": d["alone"],
            "units without labels": d["units"],
        }
        for name, d in report["dropped"].items()
        if d["alone"] or d["units"]
    ]


def quality_rows(report: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Quality by question as table rows."""
    keys = ("answers", "checkable", "ndcg@10", "ndcg@10_as_shown", "first_relevant", "pairs_right")
    return [
        {"question": name, **{k: facts[k] for k in keys if k in facts}}
        for name, facts in report.items()
    ]


def card(name: str, licence: str, report: Mapping[str, Any]) -> str:
    """A data card in Markdown with the front matter that the Hub reads."""
    front = [
        "---",
        f"license: {json.dumps(licence or 'unknown')}",
        "task_categories: [text-ranking]",
        "tags: [rank_rl, reranking, reasoning, distillation]",
        "configs:",
        "- {config_name: lessons, data_files: lessons.jsonl}",
        "---",
    ]
    counts = report["counts"]
    lines = [
        f"# {name}",
        "",
        f"{counts['lessons']} lessons and {counts['tasks']} labelled queries, made by "
        "`rank-rl teach`. Text in them was written by language models and by the authors of the "
        "collection; it is data, and may be wrong.",
        "",
        "| what | value |",
        "|---|---|",
    ]
    lines += [f"| {key} | {_cell(value)} |" for key, value in report["source"].items() if value]
    rows = drop_rows(report["drops"])
    lines += ["", "## Dropped", "", *([] if rows else ["Nothing."])]
    for i, row in enumerate(rows):
        lines += [f"| {' | '.join(row)} |", "|---|---:|---:|---:|"] if i == 0 else []
        lines.append(f"| {' | '.join(map(_cell, row.values()))} |")
    lines += ["", "## Quality against people's grades", ""]
    told = {n: q for n, q in report["quality"]["all"].items() if q.get("verdict")}
    lines += [f"- {n}: {q['verdict']}; nDCG@10 {q['ndcg@10']:.3f}" for n, q in told.items()]
    lines += [] if told else ["No query with grades could be checked."]
    return "\n".join([*front, "", *lines]) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        value = ", ".join(f"{k}: {_cell(v)}" for k, v in value.items() if v)
    elif isinstance(value, (list, tuple)):
        value = ", ".join(map(_cell, value))
    text = " ".join(str(value).replace("|", "/").split())
    # What servers and files say about themselves is shown, not interpreted.
    plain = "".join(c for c in text if c.isalnum() or c in " .,:;/_-+#(){}=\"'@%")
    return plain[:300] or "-"
