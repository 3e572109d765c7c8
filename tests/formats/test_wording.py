"""Wordings are checked when they are loaded, and values put into them are never looked into."""

from __future__ import annotations

from pathlib import Path

import pytest

from rank_rl import formats
from rank_rl.errors import RecipeError
from rank_rl.formats import choice, explain, pair, permutation, pointwise, scores, slots, wording
from rank_rl.records import Candidate, Query, numbered
from rank_rl.specs import FormatSpec

GOOD = """
mine:
  version: 3
  system: "Be brief."
  head: "{instruction}Q: {query}\\n"
  context: "C: {text}\\n"
  document: "D: {hint}{text}"
  instruction: "{instruction} "
  hint_rank: "#{rank} "
  hint_score: "{score} "
  lead: "Good?"
  reason: "Why?"
  answer: ""
"""


@pytest.mark.parametrize(
    ("fmt", "name", "rules"),
    [
        ("choice", "default", choice.RULES),
        ("choice", "rank_r1", choice.RULES),
        ("explain", "default", explain.RULES),
        ("pair", "default", pair.RULES),
        ("permutation", "default", permutation.RULES),
        ("permutation", "rankgpt", permutation.RULES),
        ("pointwise", "default", pointwise.RULES),
        *[("pointwise", x, pointwise.RULES) for x in ("graded10", "words", "yes_no", "binary")],
        ("pointwise", "rubric100", pointwise.RULES),
        ("scores", "default", scores.RULES),
        ("slots", "default", slots.RULES),
        ("slots", "plain", slots.RULES),
    ],
)
def test_the_bundled_wordings_load(fmt, name, rules):
    assert wording.load(fmt, name, rules).version == f"{fmt}/{name}@1"


def test_ones_own_file(tmp_path: Path):
    (tmp_path / "own.yaml").write_text(GOOD)
    fmt = formats.make(FormatSpec(name="slots", wording=f"{tmp_path}/own.yaml:mine"))
    view = numbered(Query(qid="q", text="who?"), [Candidate(docid="a", text="text")])
    assert fmt.version == "slots/own/mine@3"
    assert fmt.render(view).messages[1]["content"] == "Q: who?\nD: text"
    assert fmt.render(view).prefill == "Good?"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Q: {query}", "Q:", r"own\.yaml: mine\.head: placeholder \{query\} is missing"),
        ("D: {hint}", "D: {hnt}{hint}", r"own\.yaml: mine\.document: unknown placeholder \{hnt\}"),
        ('lead: "Good?"', "", r"own\.yaml: mine\.lead: is missing"),
        ("lead:", "leads:", r"mine\.lead"),
        ('reason: "Why?"', "reason: 3", r"mine\.reason: is missing or not a text"),
        ("version: 3", "", r"own\.yaml: mine\.version: no version"),
        ("mine:", "yours:", r"unknown wording 'mine'"),
        (GOOD, "", "holds no wordings"),
        (GOOD, "mine: 3", "own.yaml: mine: is not a mapping"),
        (GOOD, "mine: [", "cannot be read"),
        ('  answer: ""', '  answer: ""\n  extra: ""', r"mine\.extra: unknown key"),
        ("{query}\\n", "{query}", "head must end with a line break"),
        ("D: {hint}", "{hint}", "must begin with a word"),
        ("C: {text}", "{text}", "mine@3: context"),
        ("C: {text}\\n", "C: {text}", "mine@3: context"),
    ],
)
def test_a_wrong_wording_is_refused_with_file_and_key(tmp_path: Path, old, new, message):
    path = tmp_path / "own.yaml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(RecipeError, match=message):
        formats.make(FormatSpec(name="slots", wording=f"{path}:mine"))


def test_a_missing_file_and_an_unknown_name_are_refused(tmp_path: Path):
    with pytest.raises(RecipeError, match="cannot be read"):
        formats.make(FormatSpec(name="slots", wording=f"{tmp_path}/none.yaml:mine"))
    with pytest.raises(RecipeError, match="nearest: rankgpt"):
        formats.make(FormatSpec(name="permutation", wording="rankgp"))


@pytest.mark.parametrize("name", sorted(formats.TABLE))
def test_braces_in_documents_and_queries_stay_text(name):
    query = Query(qid="q", text="what is {documents} {0} {}?", instruction="{query} {task}")
    docs = [Candidate(docid="a", text="code {query} {task} {label} {x!r} }{")]
    docs += [Candidate(docid="b", text="")] if name == "pair" else []
    fmt = formats.make(FormatSpec(name=name, mode="reason"))
    text = fmt.render(numbered(query, docs)).messages[1]["content"]
    assert "code {query} {task} {label} {x!r} }{" in text
    assert "what is {documents} {0} {}?" in text and "{query} {task}" in text
