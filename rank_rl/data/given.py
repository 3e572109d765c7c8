"""Documents that a user hands over to be ranked, without a collection: texts or mappings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

from rank_rl.errors import DataError, RecipeError
from rank_rl.records import Candidate

Document = str | Mapping[str, Any] | Candidate
FirstStage = Literal["auto", "given", "bm25"]


def check_first_stage(name: str) -> None:
    """Refuse what is no ``FirstStage``.

    Raises:
        RecipeError: naming those that are.
    """
    if name not in get_args(FirstStage):
        raise RecipeError(
            f"unknown first stage {name!r}",
            where="first_stage",
            expected=f"one of {', '.join(get_args(FirstStage))}",
        )


def candidate(document: Document, rank: int) -> Candidate:
    """A document as given by a user, at its first-stage rank.

    Raises:
        DataError: it has no text, or a score that is not a number.
    """
    if isinstance(document, Candidate):
        return replace(document, rank=rank)
    if isinstance(document, str):
        return Candidate(docid=str(rank), text=document, rank=rank)
    text = document.get("text")
    if not isinstance(text, str):
        raise DataError("no text", where=f"document {rank}", expected="a string under 'text'")
    docid = next((document[k] for k in ("id", "docid", "_id") if document.get(k) is not None), rank)
    title, score = str(document.get("title") or ""), document.get("score")
    if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
        raise DataError(f"score is {score!r}", where=f"document {rank}", expected="a number")
    return Candidate(docid=str(docid), text=text, title=title, rank=rank, score=score)
