"""GRPO on generated answers: stage ``grpo`` with ``policy: text``, on TRL's GRPOTrainer.

Prompts go in as finished text, because TRL (1.16) closes a conversation that ends in an assistant
message instead of continuing it, so that a prefilled ``<think>`` could not be shown; the ids are
checked against those of inference. Rewards, parse rates, the copy baseline and the ceiling of each
group are logged by ``rewards.adapter``. Shao et al., 2024 (GRPO).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rank_rl import rewards, seeds
from rank_rl.data import rows
from rank_rl.data.annotations import told
from rank_rl.data.rows import view_of
from rank_rl.errors import ModelError, RecipeError
from rank_rl.formats.base import picks_worst
from rank_rl.generation.local import STOP, ends
from rank_rl.models.tokens import ChatTokens
from rank_rl.records import Prompt, RankingTask, View
from rank_rl.rewards.adapter import TrlRewards
from rank_rl.specs import RecipeSpec
from rank_rl.training import answer_head, common, group_rows, pass_rates
from rank_rl.training.alarm import watchers
from rank_rl.training.callbacks import LogCallback, RerankCallback
from rank_rl.training.completions import CompletionLog
from rank_rl.training.flat_groups import FlatGroups
from rank_rl.training.group_generation import Ending
from rank_rl.training.group_rows import GroupShuffle
from rank_rl.training.grpo_checks import PAID_VIEWS, check_engine, check_paid
from rank_rl.training.rank_credit import RankCredit

logger = logging.getLogger(__name__)


def run(spec: RecipeSpec, info: Mapping[str, Any]) -> dict[str, Any]:
    """Train, validate and save; goes on from the last checkpoint of an interrupted run.

    Args:
        spec: a checked recipe; ``training`` holds GRPOConfig's arguments.
        info: what the recipe loader knows (hash, path, versions).

    Returns:
        Summary: checkpoint folder, steps, metrics, seconds, log file.

    Raises:
        RankRLError: whatever of recipe, data, model or disk is wrong.
    """
    from datasets import Dataset

    from rank_rl.training.group_trainer import GroupTrainer, saved

    composite = rewards.make(spec.rewards)
    check_engine(spec.training)
    pass_rates.check_file(spec)
    stage = common.begin("grpo", spec, info)
    composite = rewards.taught(composite, stage.collection.teacher)
    prompts, longest, report = training_rows(stage)
    check_paid(composite, stage.fmt, [view_of(row) for row in prompts[:PAID_VIEWS]])
    args = arguments(stage, list(composite.weights), longest)
    check_groups(composite, args)
    shuffle = group_shuffle(stage, composite)
    if shuffle is not None:
        longest = shuffle.longest(prompts, longest, args, common.window(stage))
        check_lengths(stage, args.max_completion_length, longest)
    written = CompletionLog(spec)
    eos = ends(stage.loaded)
    adapter = TrlRewards(composite, stage.fmt, eos_ids=eos, observe=written.see)
    credit = RankCredit(adapter, stage.loaded.tokenizer) if spec.grpo.credit == "rank" else None
    validator = RerankCallback(stage)
    checkpoint = common.resume_point(stage.out_dir, spec, stage.identity())
    prompts, chosen = pass_rates.select(stage, prompts, composite, args)
    trainer = GroupTrainer(
        ending=Ending(tokens=stage.tokens, eos=eos, stop=STOP),
        share=spec.grpo.shared_prefix == "auto",
        flat=FlatGroups(spec.grpo.flat_groups, spec.grpo.flat_tries),
        model=stage.loaded.model,
        reward_funcs=adapter.functions,
        args=args,
        train_dataset=Dataset.from_list(prompts),
        processing_class=stage.loaded.tokenizer,
        callbacks=[validator, LogCallback(stage.out_dir), *watchers(spec), written],
    )
    trainer.variants, trainer.credit = shuffle, credit
    validator.trainer = written.trainer = trainer
    answer_head.install(trainer, temperature=args.temperature)
    trained = common.train(trainer, stage, checkpoint)
    metrics = {"train": dict(trained), "rows": {**report, **chosen}, **validator.summary()}
    metrics["shared_prefix"] = saved(trainer)
    return common.finish(trainer, stage, metrics=metrics, best=validator.best)


def arguments(stage: common.Stage, weights: list[float], longest: Mapping[str, int]) -> Any:
    """TRL's configuration: what the recipe says, over what this stage needs.

    Raises:
        RecipeError: as ``hf_arguments`` and ``check_lengths``.
    """
    own = {"reward_weights": weights, "save_steps": 25}
    args = group_arguments(
        stage.spec, stage.out_dir, longest["answer"], longest["documents"], **own
    )
    check_lengths(stage, args.max_completion_length, longest)
    return args


def group_arguments(
    spec: RecipeSpec, out_dir: Path | str, ideal: int, documents: int, **own: Any
) -> Any:
    """TRL's configuration with a group a batch and room for the longest ideal answer.

    Args:
        spec: the recipe.
        out_dir: the run's folder.
        ideal: tokens of the longest ideal answer.
        documents: most documents that a prompt shows.
        own: arguments of the stage.
    """
    from trl import GRPOConfig

    chosen = spec.grpo.pass_rate
    group = int(spec.training.get("num_generations", 8))
    return common.hf_arguments(
        spec,
        GRPOConfig,
        out_dir,
        num_generations=group,
        per_device_train_batch_size=group,
        max_completion_length=default_length(spec, ideal, documents),
        shuffle_dataset=chosen is None or chosen.order == "none",
        **own,
    )


def check_groups(composite: rewards.Composite, args: Any) -> None:
    """Rewards that compare the answers of a group need each group whole on one process.

    Raises:
        RecipeError: groups are spread over processes.
    """
    rows = args.per_device_train_batch_size * args.steps_per_generation
    if composite.grouped and rows % args.num_generations:
        raise RecipeError(
            f"{composite.grouped[0].name!r} compares the {args.num_generations} answers of a "
            f"group, but a process holds {rows}",
            where="training.per_device_train_batch_size",
            expected=f"a multiple of {args.num_generations} answers a process",
        )


def training_rows(
    stage: common.Stage,
) -> tuple[list[dict[str, Any]], dict[str, int], dict[str, Any]]:
    """One row a view, ``prompt`` being finished text, in an order drawn from the seed.

    Returns:
        rows; tokens of the longest ``prompt`` and of the longest ideal ``answer``, and most
        ``documents`` of a view; a report.
    """
    pairs, report = common.training_views(stage)
    written: list[dict[str, Any]] = []
    longest = {"prompt": 0, "answer": 0, "documents": 0}
    draws: Counter[str] = Counter()
    for task, view in pairs:
        draws[task.query.qid] += 1
        (row,) = rows.group_rows(task, [view], stage.fmt)
        prompt = Prompt(messages=tuple(row["prompt"]), prefill=row["prefill"])
        text, size = prompt_text(stage.tokens, prompt)
        group = f"{task.query.qid}#{draws[task.query.qid]}"
        written.append({**row, "prompt": text, "group": group})
        longest["prompt"] = max(longest["prompt"], size)
        longest["answer"] = max(longest["answer"], _answer_tokens(stage, task, view, prompt))
        longest["documents"] = max(longest["documents"], len(view.docids))
    seeds.rng(stage.spec.run.seed, "grpo rows").shuffle(written)
    return written, longest, {**report, "rows": len(written), "longest": longest}


def group_shuffle(stage: common.Stage, composite: rewards.Composite) -> GroupShuffle | None:
    """What shows each answer of a group another order, where the recipe wants that."""
    if not stage.spec.grpo.group_shuffle:
        return None
    group_rows.warn(composite)
    return GroupShuffle(stage.fmt, stage.tokens, seed=stage.spec.run.seed, written=prompt_text)


def prompt_text(tokens: ChatTokens, prompt: Prompt) -> tuple[str, int]:
    """A prompt as text that the tokenizer turns into the ids of inference, and their number.

    Raises:
        ModelError: the tokenizer does not give the same ids.
    """
    ids = tokens.encode_prompt(prompt)
    text = tokens.text(prompt)
    # A tokenizer that adds its own beginning must not find it written out already.
    begin = tokens.tokenizer.bos_token or ""
    for written in (text, text.removeprefix(begin)):
        if list(tokens.tokenizer(text=written)["input_ids"]) == ids:
            return written, len(ids)
    raise ModelError(
        "chat template and tokenizer disagree about a prompt",
        where="grpo",
        expected="the same ids from the template's text as from the template",
    )


def _answer_tokens(stage: common.Stage, task: RankingTask, view: View, prompt: Prompt) -> int:
    """Tokens of the ideal answer of a view, with its end."""
    style = stage.spec.data.reasoning if stage.fmt.mode == "reason" else "none"
    answer = stage.fmt.ideal(
        view, task.grades or {}, told(task, view, style, worst=picks_worst(stage.fmt))
    )
    return len(stage.tokens.encode(answer.removeprefix(prompt.prefill))) + 1


def default_length(spec: RecipeSpec, ideal: int, documents: int) -> int:
    """Completion length where the recipe gives none: room to reason, or twice the bare answer.

    Reasoning about 20 documents takes 600 to 900 tokens on average (ReasonRank, Rearank), so there
    are 64 for each.
    """
    if spec.format.mode == "reason":
        return max(512, 64 * documents, 2 * ideal)
    return max(16, 2 * ideal)


def check_lengths(stage: common.Stage, completion: int, longest: Mapping[str, int]) -> None:
    """Every ideal answer must fit the completion, and prompt and completion the model.

    Raises:
        RecipeError: they do not.
    """
    if longest["answer"] > completion:
        raise RecipeError(
            f"{completion} tokens, but the longest ideal answer takes {longest['answer']}",
            where="training.max_completion_length",
            expected=f"at least {longest['answer']}",
        )
    room = common.window(stage)
    if longest["prompt"] + completion + 1 > room:  # an answer that closes gets an end token
        raise RecipeError(
            f"{longest['prompt']} prompt and {completion} completion tokens",
            where="training.max_completion_length",
            expected=f"at most {room} together, the model's window",
            remedy="lower it, format.prompt_tokens or format.doc_tokens",
        )
