"""What went wrong in a system's answers, counted by kind, and what every name means in plain words.

Read from exchange records, the lines of ``exchanges/*.jsonl``; nothing is asked. Contract: counts
are of answers (of label slots where slots are read), so that one answer may count under several
kinds; a kind that did not occur is absent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

Record: TypeAlias = Mapping[str, Any]

# Kinds of failures, of ``failures``.
KINDS: dict[str, str] = {
    "unreadable": "nothing could be read: the input order was kept",
    "repaired": "read, although it broke a rule of its format",
    "cut_off": "stopped at the longest answer allowed",
    "empty": "no text at all",
    "error": "no answer: the server failed, or the prompt left no room for one",
    "unread": "documents without a readable label, which kept their places",
    "explanation_malformed": "explanations that broke a rule of their format",
    "explanation_cut_off": "explanations that stopped at the longest answer allowed",
}

# Issues that the parsers of ``rank_rl.formats`` name, of ``issues``.
ISSUES: dict[str, str] = {
    # reasoning and answer between tags
    "leading_text": "text before the first tag or label",
    "no_answer_tag": "the answer is not between answer tags",
    "no_think": "no reasoning between think tags",
    "no_think_close": "the reasoning has no closing tag",
    "no_think_open": "the reasoning has no opening tag",
    "repeated_think": "more than one reasoning",
    "second_answer": "more than one answer",
    "stray_tag": "tags in the wrong order",
    "tag_spelling": "a tag is spelled in another way",
    "text_between": "text between reasoning and answer",
    "trailing_text": "text behind the answer",
    "truncated": "the text ends within its reasoning or answer",
    "unexpected_tags": "tags where none are asked for",
    # characters and surroundings of an answer
    "non_ascii": "brackets, digits or signs of another script",
    "text_before": "text before the list or object",
    "text_after": "text behind the list or object",
    "unfinished": "the list or object breaks off",
    # lists of labels
    "bad_list": "the list is not written as asked for",
    "duplicate": "a document is named twice",
    "missing": "a document is left out",
    "no_list": "no list of documents",
    "out_of_range": "a label or number that does not exist",
    "prose": "labels in sentences instead of a list",
    "tie": "documents are tied where no tie is allowed",
    "too_long": "more documents are listed than asked for",
    # objects of scores
    "bad_json": "the scores are not a JSON object as asked for",
    "label_spelling": "a label is spelled in another way",
    "no_scores": "no scores",
    "non_integer": "a number that is not whole",
    "out_of_order": "documents are not in the order shown",
    "quote": "a quotation is not the document's",
    "unknown_label": "a score for a document that was not shown",
    # choices, grades and label slots
    "bad_choice": "the choice is not written as asked for",
    "no_choice": "no choice, or several",
    "grade_spelling": "the grade is not written as asked for",
    "no_grade": "no grade",
    "several_documents": "several documents where one is asked about",
    "extra_documents": "more answers than documents",
    "no_label": "no label",
    "no_lead": "the answer does not begin as asked for",
    "second_label": "a second label in the note",
    "no_note": "no note behind the label",
    "separator": "label and note are not separated as asked for",
    # reasoning in sections
    "bad_section": "headings or lines of a section are not as asked for",
    "no_explicit": "no section on the single documents",
    "explicit_missing": "a document without a line in the section on the single documents",
    "explicit_order": "the section on the single documents is not in the order shown",
    "explicit_repeated": "a document comes twice in the section on the single documents",
    "explicit_unexpected": "a section on the single documents that was not asked for",
    "explicit_unknown_label": "the section on the single documents names one that was not shown",
    "no_comparison": "no section that compares documents",
    "comparison_missing": "a document without a line in the section that compares documents",
    "comparison_order": "the section that compares documents is not in the order of the answer",
    "comparison_repeated": "a document comes twice in the section that compares documents",
    "comparison_unexpected": "a section that compares documents and was not asked for",
    "comparison_unknown_label": "the section that compares documents names one not shown",
}


def describe(name: str) -> str:
    """What a kind of failure or an issue means; its name in words where nobody described it."""
    return KINDS.get(name) or ISSUES.get(name) or name.replace("_", " ")


def failures(
    records: Iterable[Record], statuses: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Failures by kind (``KINDS``).

    Args:
        records: exchanges and explanations.
        statuses: what a system's statuses add up to, where they are known: for label slots they
            count slots in which the model would have written no label, which records do not tell.
    """
    found: Counter[str] = Counter()
    for record in records:
        found.update(_explanation(record) if "explains" in record else _answer(record))
    if statuses:
        found["unreadable"] = statuses.get("failed", 0)
        found["repaired"] = statuses.get("repaired", 0)
    return {kind: found[kind] for kind in KINDS if found[kind]}


def issues(records: Iterable[Record]) -> dict[str, int]:
    """Issues of answers and explanations by name (``ISSUES``), most frequent first."""
    found: Counter[str] = Counter()
    for record in records:
        found.update(record["issues"] if "explains" in record else record["outcome"]["issues"])
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _answer(record: Record) -> Counter[str]:
    completion, outcome = record["completion"], record["outcome"]
    answer = outcome["answer"] or {}
    found: Counter[str] = Counter()
    found["unreadable"] = outcome["status"] == "failed"
    found["repaired"] = outcome["status"] == "repaired"
    found["cut_off"] = completion["finish"] == "length"
    found["error"] = completion["finish"] == "error"
    # A scorer writes nothing and answers all the same.
    written = completion["text"].strip() or completion["finish"] == "error" or answer
    found["empty"] = not written
    found["unread"] = len(answer.get("unread", ()))
    return found


def _explanation(record: Record) -> Counter[str]:
    return Counter(
        explanation_malformed=bool(record["issues"]),
        explanation_cut_off=record["completion"]["finish"] == "length",
    )
