"""What stage ``grpo`` refuses, before data and model where it can, and ``rank-rl check`` for it."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rank_rl import rewards
from rank_rl.data.curriculum import check_order
from rank_rl.errors import RecipeError
from rank_rl.formats.base import picks_worst
from rank_rl.records import Completion, Grades, View
from rank_rl.rewards.gold import Gold
from rank_rl.rewards.picks import PickMatch, Survived
from rank_rl.specs import RecipeSpec
from rank_rl.training import rank_credit
from rank_rl.training.arguments import check_training

if TYPE_CHECKING:
    from rank_rl.formats import Format

logger = logging.getLogger(__name__)

PAID_VIEWS = 64
# Set by GRPOConfig itself; a second value in generation_kwargs would silently win.
_OWN_GENERATION = {
    "max_new_tokens": "training.max_completion_length",
    "max_length": "training.max_completion_length",
    "temperature": "training.temperature",
    "top_p": "training.top_p",
    "top_k": "training.top_k",
    "min_p": "training.min_p",
    "repetition_penalty": "training.repetition_penalty",
    "num_return_sequences": "training.num_generations",
}


def check_grpo(spec: RecipeSpec, fmt: Format) -> None:
    """The rewards, and for generated answers format and sampling, must fit the stage.

    Raises:
        RecipeError: no rewards, a reward for the other end of a choice, or what does not fit the
            policy.
    """
    composite = rewards.make(spec.rewards)
    check_ends(composite, spec, fmt)
    if spec.grpo.policy == "slots":
        check_drawn(composite)
        return
    if hasattr(fmt, "slot_messages"):
        raise RecipeError(
            "label slots are not generated as one answer",
            where="grpo.policy",
            expected="slots",
        )
    if spec.grpo.credit == "rank":
        rank_credit.check(spec, fmt)
    if spec.grpo.pass_rate is not None:
        check_order(spec.grpo.pass_rate, spec.training)
    check_generation(spec.training)


def check_drawn(composite: rewards.Composite) -> None:
    """Rewards that compare written answers need some.

    Raises:
        RecipeError: naming the first of them.
    """
    for part in composite.grouped:
        raise RecipeError(
            f"{part.name!r} compares written answers, here all are drawn from the same scores",
            where="rewards",
            remedy="leave it out, or set grpo.policy: text",
        )


def check_ends(composite: rewards.Composite, spec: RecipeSpec, fmt: Format) -> None:
    """A choice of the worst is not paid for being the best, nor the other way round.

    Raises:
        RecipeError: naming the reward.
    """
    if spec.format.name != "choice":
        return
    wrong, right = (PickMatch, "survived") if picks_worst(fmt) else (Survived, "pick_match")
    for part in composite.parts:
        if isinstance(part.reward, wrong) and part.weight:
            end = "worst" if picks_worst(fmt) else "best"
            raise RecipeError(
                f"the format picks the {end} document",
                where=f"reward {part.name!r}",
                expected=right,
                remedy="or change format.params.pick",
            )


def check_paid(
    composite: rewards.Composite, fmt: Format, views: Sequence[tuple[View, Grades]]
) -> None:
    """Refuse rewards none of which applies to a right answer; warn of one that never does.

    Args:
        composite: the rewards.
        fmt: the format of the answers.
        views: some training views with their grades; those where every order is as good, for which
            most rewards do not apply, are passed over.

    Raises:
        RecipeError: no reward pays for anything.
    """
    varied = [(view, grades) for view, grades in views if Gold.of(view, grades).varied]
    idle = {p.name for p in composite.parts if p.weight and not p.grouped}
    names = sorted(idle)
    for view, grades in varied:
        answer = fmt.parse(fmt.ideal(view, grades), view)
        found = composite(answer, view, grades, Completion(text=""))
        idle -= {name for name, value in found.raw.items() if value is not None}
    if not varied or not idle:
        return
    if idle == set(names):
        raise RecipeError(
            f"{', '.join(names)} never applies to answers of format {fmt.spec.name!r}",
            where="rewards",
            expected="a reward that the answers can earn, such as ndcg for orders and scores",
        )
    logger.warning(
        "rewards: %s never applies in %s training views and pays nothing",
        ", ".join(sorted(idle)), len(varied),
    )  # fmt: skip


def check_generation(training: Mapping[str, Any]) -> None:
    """Sampling must be able to give different answers, and each setting has one place.

    Raises:
        RecipeError: greedy sampling, or a setting in ``generation_kwargs`` that has its own key.
    """
    temperature = training.get("temperature", 1.0)
    if isinstance(temperature, int | float) and temperature <= 0:
        raise RecipeError(
            f"value {temperature!r}",
            where="training.temperature",
            expected="above 0: equal answers to a prompt teach nothing",
        )
    for key, value in (training.get("generation_kwargs") or {}).items():
        where = f"training.generation_kwargs.{key}"
        if key in _OWN_GENERATION:
            raise RecipeError("not set here", where=where, expected=_OWN_GENERATION[key])
        if (key == "do_sample" and not value) or (key == "num_beams" and value != 1):
            raise RecipeError(f"value {value!r}", where=where, expected="sampling, not search")


def check_engine(training: Mapping[str, Any]) -> None:
    """vLLM must be there where it is to generate, also for a server: TRL's client imports it.

    Raises:
        RecipeError: it is not installed.
    """
    wanted = check_training("grpo", training).get("use_vllm")
    if wanted and importlib.util.find_spec("vllm") is None:
        raise RecipeError(
            "vLLM is not installed",
            where="training.use_vllm",
            remedy="pip install 'trl[vllm]', in mode server as well, or leave it out",
        )
