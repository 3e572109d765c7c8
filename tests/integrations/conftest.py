"""What the tests of adapters rank: four short texts, a tiny checkpoint with its contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rank_rl.specs import FormatSpec, ModelSpec, StrategySpec

SLOTS = FormatSpec(name="slots", mode="reason", doc_tokens=16)
LIST = FormatSpec(name="permutation", mode="reason")


@pytest.fixture(scope="session")
def loaded(tiny_model_dir: Path) -> Any:
    from rank_rl.models.loading import load

    return load(ModelSpec(name=str(tiny_model_dir), autocast="off"), device="cpu")


@pytest.fixture(scope="session")
def ranker(loaded: Any) -> Any:
    """Scores documents one by one."""
    from rank_rl import Reranker, formats

    return Reranker(loaded=loaded, fmt=formats.make(SLOTS), max_new_tokens=6)


@pytest.fixture
def listwise(loaded: Any) -> Callable[..., Any]:
    """Makes a reranker that gives these answers, and keeps what it was asked."""
    from rank_rl import Reranker, formats
    from rank_rl.generation.canned import CannedGenerator

    def make(*answers: str, **changes: Any) -> Any:
        fmt = formats.make(LIST.model_copy(update=changes))
        return Reranker(loaded=loaded, fmt=fmt, generator=CannedGenerator(answers))

    return make


@pytest.fixture(scope="session")
def checkpoint(loaded: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder whose name is the quickstart's, below the folder that is returned."""
    from rank_rl import formats
    from rank_rl.hub.contract import PromptContract
    from rank_rl.models.loading import save

    contract = PromptContract.of(
        formats.make(SLOTS), StrategySpec(name="by_score"), stage="grpo", max_new_tokens=6
    )
    root = tmp_path_factory.mktemp("checkpoint")
    save(loaded.model, loaded.tokenizer, root / "outputs/quickstart/grpo/final", contract)
    return root
