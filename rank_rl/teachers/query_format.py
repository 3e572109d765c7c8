"""The question that asks for a query, in the form of every other question.

A synthesised query goes through the same store, limits and replay as any answer: its unit is one
passage, its view shows it, and its outcome carries the query as the note of that passage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rank_rl import seeds
from rank_rl.errors import RecipeError
from rank_rl.formats.base import finish
from rank_rl.formats.wording import Wording
from rank_rl.records import (
    Candidate,
    Grades,
    Mode,
    Outcome,
    Prompt,
    Query,
    RankingTask,
    Scores,
    View,
)
from rank_rl.specs import FormatSpec, QuestionSpec, StrategySpec, SynthesisSpec
from rank_rl.strategies.by_score import ByScore
from rank_rl.teachers import synthesis
from rank_rl.teachers.units import Answered, Question, Unit

PREFIX = "query_"


class QueryFormat:
    """Asks for a query of one kind about the one document of a view."""

    def __init__(self, kind: str, words: Wording) -> None:
        self.kind, self.words = kind, words
        # The passage is cut in words by the prompt itself; the budget only guards against a flood.
        self.spec = FormatSpec(name="query", doc_tokens=4096, prompt_tokens=8192)
        self.version = f"{words.version}/{kind}"

    @property
    def mode(self) -> Mode:
        """There is no reasoning to ask for."""
        return "answer"

    def render(self, view: View) -> Prompt:
        """The prompt about the view's one passage."""
        return synthesis.prompt(view.candidates[0], self.kind, self.words)

    def prompts(self, view: View) -> tuple[Prompt, ...]:
        """The same, as the only one."""
        return (self.render(view),)

    def parse(self, text: str, view: View, *, prefill: str = "") -> Outcome:
        """The query as the passage's note."""
        query, issues = synthesis.parse_query(prefill + text)
        docid = view.docids[0]
        if query is None:
            return finish(None, issues)
        return finish(Scores(values={docid: 1.0}), issues, notes={docid: query})

    def ideal(self, view: View, grades: Grades, reasoning: str = "") -> str:
        """Nobody knows the ideal query.

        Raises:
            RecipeError: always; a teacher that only knows grades cannot write queries.
        """
        raise RecipeError(
            "an oracle cannot write queries", where="teach.synthesis.teacher",
            remedy="name a teacher that is a language model, or a replay",
        )  # fmt: skip

    def label_texts(self, view: View) -> tuple[str, ...]:
        """There is nothing to choose from."""
        return ()


def query_questions(spec: SynthesisSpec, seed: int) -> list[Question]:
    """One question for each kind of query.

    Raises:
        RecipeError: an unknown kind or wording.
    """
    words = synthesis.load_words(spec)
    questions = []
    for kind in spec.kinds:
        fmt = QueryFormat(kind, words)
        asked = QuestionSpec(
            name=f"{PREFIX}{kind}",
            teacher=spec.teacher,
            format=fmt.spec,
            strategy=StrategySpec(name="by_score", params={"size": 1}),
            temperature=spec.temperature,
            max_tokens=spec.max_tokens,
            lesson=False,
        )
        questions.append(Question(spec=asked, fmt=fmt, strategy=ByScore(size=1)))
    return questions


def query_units(passages: Sequence[Candidate]) -> list[Unit]:
    """A unit for each passage; it has no query yet."""
    return [
        Unit(
            uid=f"passage {c.docid}",
            task=RankingTask(query=Query(qid=f"passage {c.docid}", text=""), candidates=(c,)),
        )
        for c in passages
    ]


def queries_of(
    answered: Sequence[Answered], documents: Mapping[str, Candidate]
) -> list[synthesis.Written]:
    """The queries that could be read, in the order of passages and kinds, with ids of their own."""
    found = []
    for one in answered:
        docid = one.unit.task.docids[0]
        for name, trails in one.chosen.items():
            kind = name.removeprefix(PREFIX)
            text = trails[0].answers[0].outcome.notes.get(docid) if trails else None
            if text and docid in documents:
                qid = f"syn-{seeds.derive(0, docid, kind):016x}"
                found.append(synthesis.Written(qid=qid, text=text, docid=docid, kind=kind))
    return found
