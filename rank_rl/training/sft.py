"""Supervised fine-tuning on ideal answers: stage ``sft`` of a recipe, by TRL's SFTTrainer.

Formats that answer as a whole get one row a view (ideal answer with reasoning), label slots one
row a document (label, then note); with ``data.lessons`` the answers are a teacher's. Rows are
tokenised here, prompt exactly as at inference and then the answer: a chat template that rewrites an
assistant turn (``<think>`` in history) or a truncation would otherwise change what is learned
without a word. The loss covers the answer only.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rank_rl import seeds
from rank_rl.data import lessons as lesson_files
from rank_rl.data import rows
from rank_rl.data.annotations import reasoning
from rank_rl.errors import DataError
from rank_rl.formats.budget import CutReport, fit
from rank_rl.models.tokens import ChatTokens
from rank_rl.records import Prompt, RankingTask, View
from rank_rl.specs import RecipeSpec
from rank_rl.training import answer_head, common
from rank_rl.training.callbacks import LogCallback, RerankCallback

if TYPE_CHECKING:
    from rank_rl.formats.base import Format
    from rank_rl.formats.slots import SlotFormat

logger = logging.getLogger(__name__)

IGNORED = -100  # label of a token that the loss leaves out


def run(spec: RecipeSpec, info: Mapping[str, Any]) -> dict[str, Any]:
    """Train, validate and save; goes on from the last checkpoint of an interrupted run.

    Args:
        spec: a checked recipe; ``training`` holds SFTConfig's arguments.
        info: what the recipe loader knows (hash, path, versions).

    Returns:
        Summary: checkpoint folder, steps, metrics, seconds, log file.

    Raises:
        RankRLError: whatever of recipe, data, model or disk is wrong.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    stage = common.begin("sft", spec, info)
    args = common.hf_arguments(
        spec, SFTConfig, stage.out_dir, max_length=None, packing=False, save_steps=50
    )
    encoded, report = training_rows(stage, limit=args.max_length)
    args.max_length = None  # every row fits: nothing is left for the trainer to cut
    validator = RerankCallback(stage)
    checkpoint = common.resume_point(stage.out_dir, spec, stage.identity())
    trainer = SFTTrainer(
        model=stage.loaded.model,
        args=args,
        train_dataset=Dataset.from_list(encoded),
        processing_class=stage.loaded.tokenizer,
        callbacks=[validator, LogCallback(stage.out_dir)],
    )
    validator.trainer = trainer
    answer_head.install(trainer)
    trained = common.train(trainer, stage, checkpoint)
    metrics = {"train": dict(trained), "rows": report, **validator.summary()}
    return common.finish(trainer, stage, metrics=metrics, best=validator.best)


def training_rows(
    stage: common.Stage, *, limit: int | None = None
) -> tuple[list[dict[str, list[int]]], dict[str, Any]]:
    """Tokenised rows (``input_ids``, ``labels``) in an order drawn from the seed, and a report.

    Args:
        stage: what ``common.begin`` returned.
        limit: most tokens of a row; None is what the model can read.

    Raises:
        DataError: a row is longer than that.
    """
    written, report = lesson_rows(stage) if stage.spec.data.lessons else drawn_rows(stage)
    seeds.rng(stage.spec.run.seed, "sft rows").shuffle(written)
    encoded = [encode(stage.tokens, row) for row in written]
    window = common.window(stage)
    longest = max(len(row["input_ids"]) for row in encoded)
    if longest > min(limit or window, window):
        raise DataError(
            f"a training row has {longest} tokens",
            where="training.max_length" if (limit or window) < window else "model",
            expected=f"at most {min(limit or window, window)}",
            remedy="lower format.doc_tokens, format.prompt_tokens or data.sampler.size",
        )
    answers = sum(label != IGNORED for row in encoded for label in row["labels"])
    report |= {"rows": len(encoded), "longest": longest, "answer_tokens": answers}
    logger.info("%s rows, the longest of %s tokens", len(encoded), longest)
    return encoded, report


def drawn_rows(stage: common.Stage) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of views drawn from the training tasks, with answers made of their grades."""
    pairs, report = common.training_views(stage)
    return [row for task, view in pairs for row in answer_rows(stage, task, view)], report


def lesson_rows(stage: common.Stage) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of a teacher's lessons, as ``data.lessons`` names them, in the student's format.

    Lessons about queries of the validation or test part are left out, those that ``data.leaks``
    filters, and lessons whose number of documents the format cannot show; all are counted.

    Raises:
        DataError: no lesson is left.
    """
    spec = stage.spec
    held_out = (*stage.collection.validation, *stage.collection.test)
    path = Path(str(spec.data.lessons)).expanduser()
    leaking = stage.collection.leaking
    lessons, report = lesson_files.usable(lesson_files.read(path), stage.fmt, held_out, leaking)
    written: list[dict[str, Any]] = []
    cuts = CutReport()
    for lesson in lessons:
        view, cut = fit(lesson.view, stage.tokens, fmt=stage.fmt)
        cuts = cuts.merge(cut)
        style = style_of(spec, lesson.view)
        written += rows.lesson_rows(lesson, view, stage.fmt, reason=style != "none")
    if not written:
        raise DataError(
            f"no lesson is left ({', '.join(f'{k} {v}' for k, v in report.items())})",
            where=f"data.lessons {path}",
            expected=f"lessons that format {stage.fmt.spec.name} can show",
        )
    return written, {"lessons": report, "cut": dataclasses.asdict(cuts)}


def answer_rows(stage: common.Stage, task: RankingTask, view: View) -> list[dict[str, Any]]:
    """The rows of one view: one, or one a document where the format has label slots."""
    return rows_of(stage.spec, stage.fmt, task, view)


def rows_of(spec: RecipeSpec, fmt: Format, task: RankingTask, view: View) -> list[dict[str, Any]]:
    """``answer_rows`` before there is a stage."""
    style = style_of(spec, view)
    if not hasattr(fmt, "slot_messages"):
        return rows.sft_rows(task, [view], fmt, style)
    told = None if style == "none" else reasoning(task)
    # The draw's documents make its seed: the same negatives for the same view only.
    seed = seeds.derive(spec.run.seed, *view.docids)
    ratio = spec.data.sampler.negatives_per_positive
    by_slots = cast("SlotFormat", fmt)
    return rows.slot_rows(task, [view], by_slots, told, seed=seed, negatives_per_positive=ratio)


def style_of(spec: RecipeSpec, view: View) -> str:
    """The style of reasoning of a view's answers: ``none`` for those that learn to skip it.

    Drawn by ``data.reasoning_share`` from the seed, the query and the documents, so that a resumed
    run trains on the same answers. A mix of thoughts and empty ones is how TFRank (Fan et al.,
    2025) keeps a model able to skip its thinking.
    """
    share = spec.data.reasoning_share
    drawn = seeds.rng(spec.run.seed, "reasoning share", view.query.qid, *view.docids).random()
    return spec.data.reasoning if drawn < share else "none"


def encode(tokens: ChatTokens, row: Mapping[str, Any]) -> dict[str, list[int]]:
    """Prompt and answer of a row as ``input_ids``, and ``labels`` that cover the answer only.

    The prompt, prefill included, has exactly the ids that inference shows; the answer is what the
    model then has to write, ended by the end-of-sequence token that stops generation.
    """
    prompt = Prompt(messages=tuple(row["prompt"]), prefill=row["prefill"])
    context = tokens.encode_prompt(prompt)
    answer = row["completion"][0]["content"].removeprefix(prompt.prefill)
    written = [*tokens.encode(answer), tokens.tokenizer.eos_token_id]
    return {"input_ids": context + written, "labels": [IGNORED] * len(context) + written}
