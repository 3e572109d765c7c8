"""``rank-rl rerank``: a model ranks documents of one query, or of all queries of some files."""

from __future__ import annotations

from rank_rl.cli import asked, rerank_files, rerank_one
from rank_rl.cli.process import keep_memory


def rerank(
    model: asked.Model,
    query: asked.QueryText = None,
    documents: asked.Documents = None,
    top_k: asked.TopK = None,
    explain: asked.Explain = None,
    page: asked.Page = None,
    as_json: asked.AsJson = False,
    run: asked.Run = None,
    corpus: asked.Corpus = None,
    queries: asked.Queries = None,
    beir: asked.Beir = None,
    split: asked.Split = None,
    tasks: asked.Tasks = None,
    depth: asked.Depth = None,
    output: asked.OutputFile = None,
    exchanges: asked.Exchanges = None,
    scores: asked.ScoresOption = False,
    overwrite: asked.Overwrite = False,
    first_stage: asked.FirstStageOption = "auto",
    format_: asked.FormatOption = None,
    readout: asked.ReadoutOption = "auto",
    reasoning: asked.ReasoningOption = None,
    strategy: asked.StrategyOption = None,
    strategy_params: asked.ParamsOption = None,
    fusion: asked.FusionOption = None,
    fusion_weight: asked.WeightOption = None,
    constrained: asked.Constrained = False,
    thinking_budget: asked.ThinkingBudget = None,
    max_new_tokens: asked.MaxNewTokens = None,
    batch_size: asked.BatchSize = None,
    workers: asked.WorkersOption = None,
    engine: asked.Engine = "local",
    engine_params: asked.EngineParams = None,
    base_url: asked.BaseUrl = None,
    concurrency: asked.Concurrency = None,
    device: asked.Device = "auto",
    dtype: asked.Dtype = None,
    revision: asked.Revision = None,
) -> None:
    """Rerank documents for a query, or a whole TREC run, BEIR folder or file of queries."""
    options = asked.Options(**locals())  # first, so that the arguments are all there is
    keep_memory()
    if options.source:
        rerank_files.rerank(options)
    else:
        rerank_one.rerank(options)
