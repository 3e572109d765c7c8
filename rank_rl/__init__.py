"""rank_rl: train small rerankers that reason, on judged queries, with SFT and GRPO.

The one class most people need is :class:`rank_rl.Reranker`; it is imported on first use so that
``import rank_rl`` stays free of torch.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["Reranker", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Reranker":
        from rank_rl.rerank import Reranker

        return Reranker
    raise AttributeError(f"module 'rank_rl' has no attribute {name!r}")
