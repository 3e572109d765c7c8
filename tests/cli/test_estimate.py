"""``rank-rl check``: what a view costs, against prompts counted one by one."""

from __future__ import annotations

from pathlib import Path

from rank_rl import formats
from rank_rl.cli.estimate import prompt_tokens
from rank_rl.models.counting import Words, token_counter
from rank_rl.records import Candidate, Query, numbered
from rank_rl.specs import FormatSpec

TEXTS = ("The film was made in the town.", "The river runs.", "It does not say who.")
QUERY = Query(qid="q", text="where was the film made?")
VIEW = numbered(
    QUERY, [Candidate(docid=str(i), text=text, rank=i) for i, text in enumerate(TEXTS, 1)]
)


def test_label_slots_share_their_beginning(tiny_model_dir: Path) -> None:
    tokens, said = token_counter(str(tiny_model_dir))
    assert said == f"counted with the tokenizer of {tiny_model_dir}"
    fmt = formats.make(FormatSpec(name="slots"))
    alone = [tokens.count_prompt(prompt) for prompt in fmt.prompts(VIEW)]
    prefix, _ = tokens.encode_slots(fmt.slots(VIEW))
    assert len(prefix) > 20
    assert prompt_tokens(VIEW, fmt, tokens, alone=True) == sum(alone)
    assert prompt_tokens(VIEW, fmt, tokens) == sum(alone) - 2 * len(prefix)


def test_a_list_is_one_prompt(tiny_model_dir: Path) -> None:
    tokens, _ = token_counter(str(tiny_model_dir))
    fmt = formats.make(FormatSpec(name="permutation"))
    (prompt,) = fmt.prompts(VIEW)
    assert prompt_tokens(VIEW, fmt, tokens) == tokens.count_prompt(prompt)


def test_a_model_that_is_not_there_yet_is_counted_in_words() -> None:
    tokens, said = token_counter("outputs/none/score/final")
    assert isinstance(tokens, Words)
    assert said.startswith("counted in words, because outputs/none/score/final is not there yet")
    fmt = formats.make(FormatSpec(name="slots"))
    packed, alone = (prompt_tokens(VIEW, fmt, tokens, alone=alone) for alone in (False, True))
    shared = len(f"{fmt.slots(VIEW).system} {fmt.slots(VIEW).head}".split())
    assert packed == alone - 2 * shared
