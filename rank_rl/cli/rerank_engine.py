"""What answers ``rank-rl rerank``: a checkpoint here, the same in vLLM, or a model on a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rank_rl.cli.asked import (
    ENGINES,
    Options,
    asking_options,
    format_named,
    given,
    read_params,
    refuse,
    strategy_named,
)
from rank_rl.errors import RecipeError

if TYPE_CHECKING:
    from rank_rl.rerank import Reranker

OVERRIDES = ("constrained", "thinking_budget", "max_new_tokens", "batch_size", "workers", "dtype")


def check(options: Options) -> None:
    """Find what is wrong with format, strategy and engine before anything is loaded.

    Raises:
        RecipeError: naming the option.
    """
    if options.engine not in ENGINES:
        raise RecipeError(
            f"{options.engine!r}", where="--engine", expected=f"one of {', '.join(ENGINES)}"
        )
    if options.explain and options.reasoning is False:
        raise RecipeError("not with --no-reasoning", where="--explain")
    format_named(options.format_)
    strategy_named(options.strategy, options.strategy_params)
    if options.engine == "endpoint":
        own: dict[str, object] = {"batch-size": options.batch_size, "revision": options.revision}
        own |= {"device": options.device != "auto", "dtype": options.dtype}
        refuse(own, "not with --engine endpoint")
        expected = "with --engine endpoint, how the model is asked, e.g. permutation"
        given(options.format_, "--format", expected)
    else:
        remote: dict[str, object] = {
            "base-url": options.base_url,
            "concurrency": options.concurrency,
        }
        refuse(remote, "only with --engine endpoint")
    if options.engine != "local":
        refuse({"workers": options.workers}, "only with --engine local")
    else:
        refuse({"engine-params": options.engine_params}, "not with --engine local")


def overrides(options: Options) -> dict[str, Any]:
    """What was asked for apart from the checkpoint's own contract; only what was given."""
    found = {name: getattr(options, name) or None for name in OVERRIDES}
    found["thinking_budget"] = options.thinking_budget  # 0 is one
    return {name: value for name, value in found.items() if value is not None}


def load(options: Options, *, device: str = "auto", answers: Path | None = None) -> Reranker:
    """The reranker that the options name.

    Args:
        options: what was asked for.
        device: where a checkpoint is put.
        answers: a file that keeps what a server answers.

    Raises:
        RankRLError: the model is missing or wrong, or cannot be asked so.
    """
    from rank_rl.rerank import Reranker

    strategy = strategy_named(options.strategy, options.strategy_params)
    how = {**asking_options(options.readout, options.reasoning, strategy), **overrides(options)}
    if options.engine_params is not None:
        how |= read_params(options.engine_params, "--engine-params")
    spec = format_named(options.format_)
    if options.engine == "endpoint":
        named = {"base_url": options.base_url, "concurrency": options.concurrency}
        how |= {name: value for name, value in named.items() if value is not None}
        return Reranker.from_endpoint(options.model, format=spec or {}, answers=answers, **how)
    if options.engine != "local":
        how["engine"] = options.engine
    if options.revision is not None:
        how["revision"] = options.revision
    return Reranker.from_pretrained(options.model, device=device, format=spec, **how)
