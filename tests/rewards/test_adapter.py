"""TRL's calling convention: keyword lists in, one list of numbers or None a reward out."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import rank_rl.formats as formats
import rank_rl.rewards as rewards
from rank_rl.data.rows import group_rows
from rank_rl.records import Candidate, Query, RankingTask, View, numbered
from rank_rl.rewards.adapter import TrlRewards
from rank_rl.specs import FormatSpec, RewardSpec

EOS = 2
DOCS = tuple(Candidate(docid=f"d{i}", text=f"text {i}", rank=i) for i in range(1, 5))


def task_of(qid: str, **grades: int) -> RankingTask:
    return RankingTask(query=Query(qid=qid, text="who?"), candidates=DOCS, grades=grades)


FIRST, SECOND = task_of("first", d4=1), task_of("second", d1=2, d2=1)
VIEW = numbered(FIRST.query, DOCS)


def trl(name: str = "permutation", mode="answer", specs=(), **given) -> TrlRewards:
    fmt = formats.make(FormatSpec(name=name, mode=mode))
    specs = specs or [RewardSpec(name="ndcg"), RewardSpec(name="format", weight=0.1)]
    return TrlRewards(rewards.make(specs), fmt, **given)


def columns_of(adapter: TrlRewards, *tasks: RankingTask, **changed) -> dict[str, list]:
    """Columns as TRL passes them: a list a column with one value a completion."""
    rows = []
    for task in tasks:
        (row,) = group_rows(task, [numbered(task.query, task.candidates)], adapter.fmt)
        rows.append({**row, **changed})
    return {k: [row[k] for row in rows] for k in rows[0] if k != "prompt"}


def call(adapter: TrlRewards, completions: list, columns: dict, ids: list | None = None):
    """Call every function as a trainer does; returns values by name and what was logged."""
    ids = ids or [[1, EOS] for _ in completions]
    logged: dict[str, list[float]] = {}
    extra: dict[str, list] = {}
    values = {
        f.__name__: f(
            prompts=["…"] * len(completions),
            completions=completions,
            completion_ids=ids,
            **columns,
            trainer_state=SimpleNamespace(global_step=3),
            log_extra=extra.__setitem__,
            log_metric=lambda name, value: logged.setdefault(name, []).append(value),
        )
        for f in adapter.functions
    }
    return values, logged, extra


def test_functions_carry_the_names_and_weights_of_the_rewards():
    adapter = trl()
    assert [f.__name__ for f in adapter.functions] == ["ndcg", "format"]
    assert adapter.weights == [1.0, 0.1]


def test_completions_are_messages_or_strings():
    adapter = trl()
    ideal = adapter.fmt.ideal(VIEW, FIRST.grades)
    columns = columns_of(adapter, FIRST, FIRST)
    values, _, extra = call(adapter, [ideal, "no idea"], columns)
    assert values == {"ndcg": [1.0, 0.0], "format": [1.0, 0.0]}
    assert extra == {"status": ["ok", "failed"]}
    chat = [[{"role": "assistant", "content": c}] for c in (ideal, "no idea")]
    assert call(adapter, chat, columns)[0] == values
    pieces = [[{"role": "assistant", "content": [{"type": "text", "text": ideal}]}], chat[1]]
    assert call(adapter, pieces, columns)[0] == values
    silent = [[{"role": "assistant", "content": None}], []]
    assert call(adapter, silent, columns)[0] == {"ndcg": [0.0, 0.0], "format": [0.0, 0.0]}


def test_each_completion_is_parsed_once_for_all_rewards():
    adapter = trl(specs=[RewardSpec(name=n) for n in ("ndcg", "rbo", "format", "ndcg_gain")])
    parsed: list[str] = []

    class Counting:
        """The real format, with its parses counted."""

        def __init__(self, fmt):
            self.ideal = fmt.ideal
            self._fmt = fmt

        def parse(self, text: str, view: View, *, prefill: str = ""):
            parsed.append(text)
            return self._fmt.parse(text, view, prefill=prefill)

    columns = columns_of(adapter, FIRST, FIRST)
    adapter.fmt = Counting(adapter.fmt)
    call(adapter, ["one", "two"], columns)
    assert parsed.count("one") == parsed.count("two") == 1
    call(adapter, ["one", "two"], columns)
    assert parsed.count("one") == 2


def test_a_list_that_is_filled_again_is_parsed_again():
    adapter = trl()
    columns = columns_of(adapter, FIRST)
    completions = ["no idea"]
    assert call(adapter, completions, columns)[0]["ndcg"] == [0.0]
    completions[0] = adapter.fmt.ideal(VIEW, FIRST.grades)
    assert call(adapter, completions, columns)[0]["ndcg"] == [1.0]


def test_what_does_not_apply_is_none():
    adapter = trl(specs=[RewardSpec(name="recall"), RewardSpec(name="format")])
    ideal = adapter.fmt.ideal(VIEW, FIRST.grades)
    values, _, _ = call(adapter, [ideal], columns_of(adapter, FIRST))
    assert values == {"recall": [None], "format": [1.0]}


def test_metrics_are_logged_once_a_batch_with_copy_and_ceiling():
    adapter = trl(eos_ids=[EOS])
    best = adapter.fmt.ideal(VIEW, FIRST.grades)
    completions = [best, "no idea", "no idea", "what?"]
    columns = columns_of(adapter, FIRST, FIRST, SECOND, SECOND)
    _, logged, _ = call(adapter, completions, columns, [[1, EOS], [1, 1], [EOS], []])
    assert all(len(values) == 1 for values in logged.values())
    found = {name: values[0] for name, values in logged.items()}
    # The first view's only relevant document stands fourth, the second view is perfect as shown.
    copied = (1 / 2.321928094887362 + 1.0) / 2 + 0.1
    shown = {name: value for name, value in found.items() if name.startswith("ranking/")}
    assert shown == {
        "ranking/reward": pytest.approx(1.1 / 4),
        "ranking/copy": pytest.approx(copied),
        "ranking/ceiling": pytest.approx(1.1),
        "ranking/parse_ok": 0.25,
        "ranking/parse_repaired": 0.0,
        "ranking/parse_failed": 0.75,
        "ranking/truncated": 0.5,
        "ranking/flat_groups": 0.5,
    }
    # The first view's answers earn 1.1 and 0: ndcg makes ten elevenths of that difference.
    assert {name: value for name, value in found.items() if name not in shown} == {
        "rewards/ndcg/absent": 0.0,
        "rewards/ndcg/low": 0.75,
        "rewards/ndcg/high": 0.25,
        "rewards/ndcg/group_std": pytest.approx(0.25),
        "rewards/ndcg/share": pytest.approx(1 / 1.1),
        "rewards/format/absent": 0.0,
        "rewards/format/low": 0.75,
        "rewards/format/high": 0.25,
        "rewards/format/group_std": pytest.approx(0.25),
        "rewards/format/share": pytest.approx(0.1 / 1.1),
    }


def test_an_observer_is_shown_every_batch_once():
    seen = []
    adapter = trl(eos_ids=[EOS], observe=seen.append)
    ideal = adapter.fmt.ideal(VIEW, FIRST.grades)
    call(adapter, [ideal, "no idea"], columns_of(adapter, FIRST, FIRST), [[1, EOS], [1, 1, 1]])
    (batch,) = seen
    assert (batch.texts, batch.tokens) == ([ideal, "no idea"], [2, 3])
    assert [j.truncated for j in batch.judged] == [False, True]
    assert [row["qid"] for row in batch.rows] == ["first", "first"]
    assert batch.prompts == ["…", "…"]


def test_truncation_is_unknown_without_eos_ids():
    adapter = trl()
    _, logged, _ = call(adapter, ["no idea"], columns_of(adapter, FIRST))
    assert "ranking/truncated" not in logged
    assert "ranking/flat_groups" not in logged


def test_length_counts_completion_ids():
    adapter = trl(specs=[RewardSpec(name="length", params={"soft_max": 2, "hard_max": 4})])
    ideal = adapter.fmt.ideal(VIEW, FIRST.grades)
    columns = columns_of(adapter, FIRST, FIRST, FIRST)
    values, _, _ = call(adapter, [ideal] * 3, columns, [[1, 1], [1, 1, 1], [1] * 4])
    assert values["length"] == [1.0, 0.5, 0.0]


def test_a_prefilled_tag_counts_as_written():
    adapter = trl(mode="reason")
    whole = adapter.fmt.ideal(VIEW, FIRST.grades, "The fourth says who.")
    assert whole.startswith("<think>")
    rest = whole.removeprefix("<think>")
    with_prefill = columns_of(adapter, FIRST, prefill="<think>")
    assert call(adapter, [rest], with_prefill)[0]["format"] == [1.0]
    without = columns_of(adapter, FIRST, prefill=None)
    assert call(adapter, [whole], without)[0]["format"] == [1.0]
    assert call(adapter, [rest], without)[0]["format"][0] < 1.0


@pytest.mark.parametrize("name", ["permutation", "scores"])
@pytest.mark.parametrize("mode", ["answer", "reason"])
def test_the_ideal_text_of_a_format_earns_the_ceiling(name, mode):
    specs = ("ndcg", "ndcg_gain", "rbo", "format")
    adapter = trl(name, mode, specs=[RewardSpec(name=n) for n in specs])
    ideal = adapter.fmt.ideal(VIEW, FIRST.grades, "The fourth says who.")
    values, logged, extra = call(adapter, [ideal], columns_of(adapter, FIRST, prefill=""))
    assert extra["status"] == ["ok"]
    assert values == {n: [pytest.approx(1.0)] for n in specs}
    assert logged["ranking/reward"] == logged["ranking/ceiling"] == [pytest.approx(4.0)]


def test_the_ceiling_of_labels_is_that_of_the_formats_own_scale():
    labels = RewardSpec(name="label_agree", params={"max": 10, "grade_max": 3})
    adapter = trl("scores", specs=[RewardSpec(name="ndcg"), labels])
    adapter.fmt = formats.make(FormatSpec(name="scores", params={"grade_max": 3}))
    task = task_of("q", d4=3, d2=1)
    ideal = adapter.fmt.ideal(VIEW, task.grades)
    (judged,) = adapter.judge([ideal], None, columns_of(adapter, task))
    assert judged.scored.total == pytest.approx(judged.baselines.ceiling) == 2.0
