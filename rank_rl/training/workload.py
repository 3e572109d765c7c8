"""What one optimizer step of a stage computes: its passes and its generated tokens, as counts.

Made from a recipe's own views and trainer arguments, with the model's tokenizer; no weights are
needed. ``footprint`` turns it into seconds and bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from rank_rl import seeds
from rank_rl.specs import RecipeSpec

if TYPE_CHECKING:
    from rank_rl.formats.base import Format
    from rank_rl.formats.slots import SlotFormat
    from rank_rl.models.tokens import ChatTokens
    from rank_rl.records import RankingTask, View

Pairs: TypeAlias = "Sequence[tuple[RankingTask, View]]"
SHARED_AT_MOST = 0.95  # of separate rows: what ``SharedPass`` packs


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One forward and backward pass: the groups of a packed sequence, or padded rows.

    Attributes:
        groups: tokens of each prefix and of its segments; of rows, prefix 0 and the rows.
        read: positions that are projected onto the vocabulary.
    """

    groups: tuple[tuple[int, tuple[int, ...]], ...]
    read: int

    @property
    def packed(self) -> bool:
        """Whether segments share a prefix."""
        return any(prefix for prefix, _ in self.groups)

    @property
    def segments(self) -> tuple[int, ...]:
        """Tokens of all segments."""
        return tuple(length for _, own in self.groups for length in own)

    @property
    def tokens(self) -> int:
        """Tokens that go through the layers, padding of rows included."""
        if self.packed:
            return sum(prefix for prefix, _ in self.groups) + sum(self.segments)
        return len(self.segments) * max(self.segments)

    @property
    def pairs(self) -> int:
        """Query-key pairs of the attention, padding included."""
        before, longest = max(p for p, _ in self.groups), max(self.segments)
        shared = len(self.groups) * before * before // 2
        own = longest * (before + longest) if before else longest * longest // 2
        return shared + len(self.segments) * own

    def scaled(self, share: float) -> Pass:
        """The same form with lengths of about ``share``."""
        groups = tuple(
            (math.ceil(p * share), tuple(math.ceil(n * share) for n in own))
            for p, own in self.groups
        )
        return Pass(groups=groups, read=math.ceil(self.read * share))


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """The answers of one generation batch.

    Attributes:
        prompts: tokens of the distinct prompts.
        group: answers a prompt.
        new: tokens of an answer.
        shared: whether a prompt is read once for its answers.
        batches: generation batches an optimizer step (below 1 where answers serve several steps).
    """

    prompts: tuple[int, ...]
    group: int
    new: int
    shared: bool
    batches: float

    @property
    def rows(self) -> int:
        """Answers of the batch."""
        return len(self.prompts) * self.group


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One optimizer step of one process.

    Attributes:
        typical, largest: the micro-batch of middle size, and the largest of the sample.
        micro: micro-batches a step.
        forward: further passes without gradients for each of them (reference model, old policy).
        generation: None where nothing is generated.
    """

    typical: Pass
    largest: Pass
    micro: int
    forward: int = 0
    generation: Generation | None = None


def step_of(
    stage: str, spec: RecipeSpec, fmt: Format, pairs: Pairs, tokens: ChatTokens
) -> tuple[list[Step], Any]:
    """The step of a stage, from a sample of its training views, and its trainer's arguments.

    Args:
        stage: score, sft or grpo.
        spec: the recipe.
        fmt: its format.
        pairs: (task, view within budget).
        tokens: the tokenizer.

    Returns:
        One step; two for generated answers, as long as the ideal ones and as long as allowed.

    Raises:
        RecipeError: training arguments that do not fit together.
    """
    lengths = ideal_tokens(spec, fmt, pairs, tokens)
    shown = max((len(view.docids) for _, view in pairs), default=0)
    args = arguments(stage, spec, lengths, shown)
    if stage == "sft":
        return [from_rows(sft_rows(spec, fmt, pairs, tokens), args)], args
    if stage == "score" or spec.grpo.policy == "slots":
        return [_slots(cast("SlotFormat", fmt), pairs, tokens, args)], args
    prompts = [tokens.count_prompt(fmt.render(view)) for _, view in pairs]
    most = args.max_completion_length
    expected = min(most, round(sum(lengths) / len(lengths)))
    share = spec.grpo.shared_prefix == "auto" and not spec.grpo.group_shuffle
    steps = [answers(prompts, new, args, share=share) for new in dict.fromkeys((expected, most))]
    return steps, args


def arguments(stage: str, spec: RecipeSpec, ideal: Sequence[int], documents: int) -> Any:
    """The trainer config as the stage builds it, for ideal answers and documents of a view.

    Raises:
        RecipeError: unknown or contradictory arguments.
    """
    import transformers
    import trl

    from rank_rl.training.arguments import hf_arguments

    folder = spec.run.output_dir
    if stage == "sft":
        return hf_arguments(spec, trl.SFTConfig, folder, max_length=None, packing=False)
    if stage == "score" or spec.grpo.policy == "slots":
        return hf_arguments(
            spec, transformers.TrainingArguments, folder, per_device_train_batch_size=4
        )
    from rank_rl.training.grpo_text import group_arguments

    return group_arguments(spec, folder, max(ideal, default=0), documents)


def ideal_tokens(spec: RecipeSpec, fmt: Format, pairs: Pairs, tokens: Any) -> list[int]:
    """Tokens of the ideal answer of each view, with its end; none for label slots."""
    from rank_rl.data.annotations import told
    from rank_rl.formats.base import picks_worst

    if hasattr(fmt, "slots"):
        return []
    style = spec.data.reasoning if fmt.mode == "reason" else "none"
    found = []
    for task, view in pairs:
        answer = fmt.ideal(view, task.grades or {}, told(task, view, style, worst=picks_worst(fmt)))
        found.append(len(tokens.encode(answer.removeprefix(fmt.render(view).prefill))) + 1)
    return found


def sft_rows(
    spec: RecipeSpec, fmt: Format, pairs: Pairs, tokens: ChatTokens
) -> list[dict[str, list[int]]]:
    """Rows of stage sft for some views, in the order of a run with only these."""
    from rank_rl.training import sft

    rows = [row for task, view in pairs for row in sft.rows_of(spec, fmt, task, view)]
    seeds.rng(spec.run.seed, "sft rows").shuffle(rows)
    return [sft.encode(tokens, row) for row in rows]


def from_rows(rows: Sequence[dict[str, list[int]]], args: Any) -> Step:
    """The step of stage sft for encoded rows."""
    from rank_rl.training.sft import IGNORED

    passes = []
    for part in _batches(rows, args.per_device_train_batch_size):
        lengths = tuple(len(row["input_ids"]) for row in part)
        read = sum(label != IGNORED for row in part for label in row["labels"])
        passes.append(Pass(groups=((0, lengths),), read=read))
    return _step(passes, args.gradient_accumulation_steps)


def _slots(fmt: SlotFormat, pairs: Pairs, tokens: ChatTokens, args: Any) -> Step:
    encoded = [tokens.encode_slots(fmt.slots(view)) for _, view in pairs]
    passes = []
    for part in _batches(encoded, args.per_device_train_batch_size):
        groups = tuple((len(prefix), tuple(map(len, segments))) for prefix, segments in part)
        passes.append(Pass(groups=groups, read=sum(len(own) for _, own in groups)))
    return _step(passes, args.gradient_accumulation_steps)


def answers(prompts: Sequence[int], new: int, args: Any, *, share: bool) -> Step:
    """The step of stage grpo, policy text, with answers of ``new`` tokens.

    Args:
        prompts: tokens of some prompts.
        new: tokens of an answer.
        args: GRPOConfig.
        share: whether prompts are read once a group.
    """
    group, size = args.num_generations, args.per_device_train_batch_size
    groups = math.lcm(len(prompts) * group, size) // group
    rows = [(n, prompts[n % len(prompts)]) for n in range(groups) for _ in range(group)]
    passes = [grouped(part, new, share=share) for part in _batches(rows, size)]
    generated = max(1, size * args.steps_per_generation // group)
    drawn = sorted(prompts)
    taken = tuple(drawn[(2 * i + 1) * len(drawn) // (2 * generated)] for i in range(generated))
    uses = args.steps_per_generation * args.num_iterations
    generation = Generation(
        prompts=taken,
        group=min(group, size * args.steps_per_generation),
        new=new,
        shared=share,
        batches=args.gradient_accumulation_steps / uses,
    )
    # TRL keeps the old policy's values where answers are not used up within one optimizer step.
    old = args.gradient_accumulation_steps % uses != 0
    step = _step(passes, args.gradient_accumulation_steps)
    return replace(step, forward=int(args.beta != 0) + int(old), generation=generation)


def grouped(rows: Sequence[tuple[int, int]], new: int, *, share: bool) -> Pass:
    """The pass over rows, (number, tokens) of a prompt each, with answers of ``new`` tokens.

    A segment begins with the prompt's last token again, see ``models.shared_prefix``.
    """
    read = len(rows) * new
    plain = Pass(groups=((0, tuple(tokens + new for _, tokens in rows)),), read=read)
    known = [list(same) for _, same in groupby(rows)]
    packed = Pass(
        groups=tuple((same[0][1] - 1, (new + 1,) * len(same)) for same in known), read=read
    )
    return packed if share and packed.tokens <= SHARED_AT_MOST * plain.tokens else plain


def _batches(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    """Whole batches; the sample is repeated where it is smaller than one."""
    items = list(items) * math.ceil(size / len(items))
    for start in range(0, len(items) - size + 1, size):
        yield items[start : start + size]


def _step(passes: Sequence[Pass], micro: int) -> Step:
    ordered = sorted(passes, key=lambda one: one.tokens)
    return Step(typical=ordered[len(ordered) // 2], largest=ordered[-1], micro=micro)
