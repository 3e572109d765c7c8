"""A reranker with the methods of sentence-transformers' ``CrossEncoder``: ``predict`` and ``rank``.

For code written for a cross-encoder, such as that library's evaluators; the library itself is not
needed. Contract: pairs of one query are ranked together, and sorting their scores gives the
ranking. Their order says nothing about it: an evaluator may list the relevant documents first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from rank_rl.errors import DataError, RecipeError
from rank_rl.integrations import Settings, apart, check_top, checked, reranker

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in typing from Python 3.11 on

    from rank_rl.ranker import Ranker

Pair = Sequence[str]


class Predicting(TypedDict, total=False):
    """Keywords of ``CrossEncoder.predict`` and ``rank`` that mean something here, or are ignored.

    Attributes:
        prompt: handed on as the instruction.
        prompt_name: None only; there are no named prompts.
        activation_fn: applied to the scores; None leaves them as they are.
        convert_to_numpy, convert_to_tensor: what ``predict`` returns.
        batch_size, show_progress_bar, device, apply_softmax, pool, chunk_size: ignored; the
            reranker has its own batch size and device.
    """

    prompt: str | None
    prompt_name: str | None
    activation_fn: Callable[..., Any] | None
    convert_to_numpy: bool
    convert_to_tensor: bool
    batch_size: int
    show_progress_bar: bool | None
    device: Any
    apply_softmax: bool | None
    pool: Any
    chunk_size: int | None


class _Card:
    """Takes what evaluators write on a model's card; a checkpoint of rank_rl has its own."""

    def set_evaluation_metrics(self, *args: Any, **named: Any) -> None:
        """Nothing is kept."""


class RankRLCrossEncoder:
    """Ranks for code written for ``CrossEncoder``.

    Scores are those of ``Reranker.rank``: of a format that scores documents one by one what it
    read out (log-odds of a label, an expected grade); of one that orders lists the number of
    documents ranked at or below, which says nothing beyond this list. Ties are set apart.

    Args:
        ranker: a ``Reranker``, or a name that ``Reranker.from_pretrained`` loads.
        settings: ``instruction`` and ``explain`` as for ``Reranker.rank`` (no method returns
            reasoning); ``first_stage``: ``auto`` orders the documents of a query in ``predict`` by
            BM25, since pairs come in no retriever's order, and lets ``rank`` do as
            ``Reranker.rank`` does; ``given`` and ``bm25`` hold for both.

    Raises:
        RecipeError: an argument is wrong.
        ModelError: there is no checkpoint of that name.

    Example:
        >>> model = RankRLCrossEncoder("outputs/quickstart/grpo/final")
        >>> model.predict([("who wrote Faust?", "Goethe wrote Faust."), ("who?", "Paris.")])
    """

    num_labels = 1

    def __init__(self, ranker: Any, **settings: Unpack[Settings]) -> None:
        self.settings = checked(settings, first_stage="auto")
        self.ranker: Ranker = reranker(ranker)
        self.model_card_data = _Card()

    def predict(self, inputs: Pair | Sequence[Pair], **options: Unpack[Predicting]) -> Any:
        """A score for every pair of query and document; pairs of one query are ranked together.

        All queries are ranked in one batch. A text that a query is paired with twice is ranked
        once.

        Args:
            inputs: pairs, or a single pair.
            options: keywords of ``CrossEncoder.predict``, see ``Predicting``.

        Returns:
            An array of 32-bit numbers in the order of the pairs (one number for a single pair); a
            tensor or a list of tensors where ``convert_to_tensor`` or ``convert_to_numpy`` says so.

        Raises:
            DataError: what is not a pair of texts.
            RecipeError: an unknown option, or a named prompt.
        """
        settings = self._settings(options)
        if settings["first_stage"] == "auto":
            settings["first_stage"] = "bm25"
        single = len(inputs) > 0 and isinstance(inputs[0], str)
        pairs = _pairs([inputs] if single else inputs)
        documents: dict[str, dict[str, str]] = {}
        for query, text in pairs:
            documents.setdefault(query, {})[_name(text)] = text
        results = self.ranker.rank_many(
            [
                (query, [{"id": name, "text": text} for name, text in texts.items()])
                for query, texts in documents.items()
            ],
            **settings,
        )
        scores = {
            (query, result.docid): score
            for query, ranked in zip(documents, results, strict=True)
            for result, score in zip(ranked, apart([r.score for r in ranked]), strict=True)
        }
        found = np.array([scores[query, _name(text)] for query, text in pairs], dtype=np.float32)
        return _converted(found[0] if single else found, options)

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        **options: Unpack[Predicting],
    ) -> list[dict[str, Any]]:
        """Rank documents for one query.

        Args:
            query: the question.
            documents: texts.
            top_k: how many results to return; None returns all.
            return_documents: whether results hold the text too.
            options: keywords of ``CrossEncoder.rank``, see ``Predicting``.

        Returns:
            Best first, dicts of ``corpus_id`` (place in ``documents``, from 0), ``score``, and
            ``text`` where asked for.

        Raises:
            DataError: a document that is no text.
            RecipeError: an unknown option, a named prompt, or ``top_k`` below 1.
        """
        check_top("top_k", top_k)
        settings = self._settings(options)
        if len(documents) == 0:
            return []
        pairs = _pairs([(query, text) for text in documents])
        results = self.ranker.rank(query, [text for _, text in pairs], **settings)
        scores = _activated(np.array(apart([r.score for r in results]), np.float32), options)
        return [
            {"corpus_id": int(result.docid) - 1, "score": float(score)}
            | ({"text": result.text} if return_documents else {})
            for result, score in list(zip(results, scores, strict=True))[:top_k]
        ]

    def _settings(self, options: Predicting) -> Settings:
        """What to ask for.

        Raises:
            RecipeError: an option that ``CrossEncoder`` has not either, or a named prompt.
        """
        for name in options.keys() - Predicting.__annotations__.keys():
            raise RecipeError(
                f"unknown argument {name!r}",
                expected=f"one of {', '.join(Predicting.__annotations__)}",
            )
        if options.get("prompt_name") is not None:
            raise RecipeError(
                f"no prompt is named {options['prompt_name']!r}",
                where="prompt_name",
                remedy="prompt='…' is handed on as the instruction",
            )
        settings = self.settings.copy()
        if options.get("prompt") is not None:
            settings["instruction"] = options["prompt"]
        return settings


def _pairs(inputs: Sequence[Any]) -> list[tuple[str, str]]:
    found = []
    for i, pair in enumerate(inputs):
        texts = tuple(pair) if not isinstance(pair, str) else (pair,)
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            raise DataError(f"{pair!r}"[:80], where=f"pair {i}", expected="a query and a document")
        found.append((str(texts[0]), str(texts[1])))
    return found


def _name(text: str) -> str:
    """An id that depends on the text alone, so that places in a list decide nothing."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def _activated(scores: Any, options: Predicting) -> Any:
    activation = options.get("activation_fn")
    if activation is None:
        return scores
    import torch

    return np.asarray(activation(torch.as_tensor(scores)), dtype=np.float32)


def _converted(scores: Any, options: Predicting) -> Any:
    scores = _activated(scores, options)
    if options.get("convert_to_tensor", False) or not options.get("convert_to_numpy", True):
        import torch

        tensor = torch.as_tensor(scores)
        return tensor if options.get("convert_to_tensor") or not tensor.dim() else list(tensor)
    return scores
