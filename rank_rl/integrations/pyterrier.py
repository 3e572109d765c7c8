"""A reranker as a transformer of PyTerrier.

A frame with qid, query, docno and text comes back with new ``score`` and ``rank``, so that it
stands behind any retriever (``bm25 >> text >> reranker``) and before any other transformer. All
queries of a frame are ranked together, and no JVM is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rank_rl.errors import DataError
from rank_rl.integrations import Settings, apart, checked, reranker, shown
from rank_rl.registry import need

try:
    import pandas as pd
    import pyterrier as pt
except ImportError:
    need("pyterrier", "pyterrier")
    raise

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in typing from Python 3.11 on

    from rank_rl.generation.results import RankResult
    from rank_rl.ranker import Ranker


class RankRLTransformer(pt.Transformer):
    """Reranks the documents of every query of a PyTerrier frame.

    The first stage is what the frame says: documents are taken in the order of ``rank``, else of
    ``score``, and their scores are handed on; without either column, ``first_stage`` decides as
    for ``Reranker.rank``.

    Args:
        ranker: a ``Reranker``, or a name that ``Reranker.from_pretrained`` loads.
        text_field: the column of the documents' texts.
        title_field: the column of their titles, shown before the text.
        query_field: the column of the queries' texts (``query_0`` for the one before a rewrite).
        settings: ``instruction``: what counts as relevant; ``explain``: write reasoning, for all
            documents or for that many of each query, into a column ``reasoning``;
            ``first_stage``: ``bm25`` overrules the frame.

    Raises:
        RecipeError: an argument is wrong.
        ModelError: there is no checkpoint of that name.

    Example:
        >>> reranker = RankRLTransformer("outputs/quickstart/grpo/final")
        >>> pipeline = bm25 % 20 >> dataset.text_loader(["text"]) >> reranker
    """

    def __init__(
        self,
        ranker: Any,
        *,
        text_field: str = "text",
        title_field: str | None = None,
        query_field: str = "query",
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__()
        self.settings = checked(settings)
        self.text_field, self.title_field = text_field, title_field
        self.query_field = query_field
        self.ranker: Ranker = reranker(ranker)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.ranker.fmt.version})"

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """The frame with the reranker's scores, strictly decreasing, and ranks, from 0.

        Queries stay in the order of their first rows; the rows of each are sorted by rank.

        Raises:
            pt.validate.InputValidationError: a column is missing.
            DataError: a text that is none, a repeated docno, or a qid with two queries.
        """
        fields = [self.query_field, self.text_field, *filter(None, [self.title_field])]
        pt.validate.result_frame(inp, extra_columns=fields, context=self)
        explains = bool(self.settings.get("explain"))
        if inp.empty:
            columns: dict[str, Any] = {"score": pd.Series(dtype=float)}
            columns["rank"] = pd.Series(dtype=int)
            return inp.assign(**columns, **({"reasoning": ""} if explains else {}))
        groups = [self._ordered(rows) for _, rows in inp.groupby("qid", sort=False)]
        pairs = [(self._query(rows), self._documents(rows)) for rows in groups]
        first = self.settings.get("first_stage", "auto")
        known = {"rank", "score"} & set(inp.columns)
        asking: Settings = {**self.settings, "first_stage": "given" if known else first}
        if first == "bm25":
            asking["first_stage"] = first
        results = self.ranker.rank_many(pairs, **asking)
        found = [_ranked(*both, explains) for both in zip(groups, results, strict=True)]
        return pd.concat(found, ignore_index=True)

    def _ordered(self, rows: pd.DataFrame) -> pd.DataFrame:
        if "rank" in rows:
            return rows.sort_values("rank", kind="stable")
        if "score" in rows:
            return rows.sort_values("score", ascending=False, kind="stable")
        return rows

    def _query(self, rows: pd.DataFrame) -> str:
        found = list(dict.fromkeys(rows[self.query_field]))
        if len(found) > 1 or not isinstance(found[0], str):
            raise DataError(
                f"{len(found)} queries" if len(found) > 1 else f"query is {found[0]!r}",
                where=f"qid {rows['qid'].iloc[0]!r}",
                expected="one text",
            )
        return str(found[0])

    def _documents(self, rows: pd.DataFrame) -> list[dict[str, Any]]:
        where = f"qid {rows['qid'].iloc[0]!r}"
        scores = rows["score"] if "score" in rows else [None] * len(rows)
        titles = rows[self.title_field] if self.title_field else [None] * len(rows)
        found = []
        for docno, text, score, title in zip(
            rows["docno"], rows[self.text_field], scores, titles, strict=True
        ):
            if not isinstance(text, str):
                raise DataError(
                    f"{self.text_field} of docno {docno!r} is {text!r}",
                    where=where,
                    expected="a text",
                    remedy="load it first, e.g. with pt.text.get_text",
                )
            found.append({**shown(text, score=score, title=title), "id": docno})
        twice = rows["docno"][rows["docno"].astype(str).duplicated()]
        if len(twice):
            raise DataError(f"docno {twice.iloc[0]!r} appears twice", where=where)
        return found


def _ranked(rows: pd.DataFrame, results: list[RankResult], explains: bool) -> pd.DataFrame:
    place = {str(docno): i for i, docno in enumerate(rows["docno"])}
    columns: dict[str, Any] = {
        "score": apart([r.score for r in results]),
        "rank": range(pt.model.FIRST_RANK, pt.model.FIRST_RANK + len(results)),
    }
    if explains:
        columns["reasoning"] = [r.reasoning for r in results]
    return rows.iloc[[place[r.docid] for r in results]].assign(**columns)
