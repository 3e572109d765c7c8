"""Wordings are checked when they are loaded, and values put into them are never looked into."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

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


FEATURES = [
    ("choice", "default", "document_after", "answer", {}, {"labels": "after"}),
    ("permutation", "default", "ties", "answer", {}, {"ties": True}),
    ("pointwise", "default", "label_first", "reason", {}, {"order": "label_first"}),
]


@pytest.mark.parametrize(("name", "wording_", "key", "mode", "off", "on"), FEATURES)
def test_the_words_of_a_feature_are_needed_where_it_is_on(
    tmp_path: Path, name, wording_, key, mode, off, on
):
    bundled = Path(wording.__file__).with_suffix("") / f"{name}.yaml"
    texts = yaml.safe_load(bundled.read_text())[wording_]
    own = tmp_path / "own.yaml"

    def make(params, **changed):
        kept = {k: v for k, v in {**texts, **changed}.items() if v is not None}
        own.write_text(yaml.safe_dump({"mine": kept}))
        spec = FormatSpec(name=name, mode=mode, wording=f"{own}:mine", params=params)
        return formats.make(spec)

    docs = [Candidate(docid="a", text="text")]
    view = numbered(Query(qid="q", text="who?"), docs)
    assert make(off, **{key: None}).render(view).messages == make(off).render(view).messages
    with pytest.raises(RecipeError, match=rf"own\.yaml: mine\.{key}: is missing") as caught:
        make(on, **{key: None})
    assert "\n" not in str(caught.value)
    assert make(on).render(view)
    # A key that is there is checked, whether it is used or not.
    with pytest.raises(RecipeError, match=r"unknown placeholder \{other\}"):
        make(off, **{key: texts[key] + "{other}"})
