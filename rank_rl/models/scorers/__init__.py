"""Models that score without writing: cross-encoders, embeddings, pair scorers.

A scorer is an encoder with a small head. It reads the texts that an input of ``formats.inputs``
names, and gives scores of a whole view (``base.Raw``). ``loading`` makes one of a model's files,
``reading`` scores views at inference; training is ``rank_rl.training.scorer_trainer``.
"""

from __future__ import annotations

TABLE: dict[str, str] = {
    "cross_encoder": "rank_rl.models.scorers.cross_encoder:CrossEncoder",
    "embedding": "rank_rl.models.scorers.embedding:Embedding",
    "pair_scores": "rank_rl.models.scorers.pair_scores:PairScores",
}
