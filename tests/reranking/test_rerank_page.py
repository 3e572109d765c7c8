"""The page of rankings: everything that was said, nothing that runs, in a real browser.

Needs playwright and a Chromium: ``RANK_RL_BROWSER``, one on the path, or playwright's own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from reranking import done

from rank_rl.bench.answered import answered
from rank_rl.generation.results import Note, TaskResult
from rank_rl.records import (
    Candidate,
    Completion,
    Exchange,
    Outcome,
    Prompt,
    Query,
    Ranking,
    RankingTask,
    Scores,
    numbered,
)
from rank_rl.report import page as report
from rank_rl.reranking.page import Entry, page, write_page

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
HOSTILE = (
    "</pre></details><script>document.title = 'taken'</script>"
    "<img src=x onerror=\"document.title = 'taken'\"> {{ 7 * 7 }} \x00 \u202e back"
)


def entry(number: int = 0, *, text: str = "", failed: bool = False, size: int = 3) -> Entry:
    """A query whose documents come out in reverse order, with a note about the first."""
    candidates = tuple(
        Candidate(docid=f"d{i}", text=text or f"text {number} {i}", rank=i + 1, score=9.5 - i)
        for i in range(size)
    )
    query = Query(qid=f"q{number}", text=text or f"which one, {number}?", instruction=text or None)
    task = RankingTask(query=query, candidates=candidates)
    scores = {c.docid: float(i) - 0.5 for i, c in enumerate(candidates)}
    view = numbered(query, candidates)
    outcome = Outcome(
        status="failed" if failed else "ok",
        answer=None if failed else Scores(values=scores),
        reasoning=text or f"the last one of {number} says it",
        comparisons={"d1": text or "it says less than the last"},
        issues=("no_answer_tag",) if failed else (),
    )
    exchange = Exchange(
        qid=query.qid,
        view=view,
        prompt=Prompt(messages=({"role": "user", "content": "?"},)),
        completion=Completion(text=text or "the answer", prompt_tokens=40, completion_tokens=5),
        outcome=outcome,
    )
    docids = outcome.as_order(view)
    ranking = Ranking(
        qid=query.qid, docids=docids, scores=() if failed else tuple(scores[d] for d in docids)
    )
    completion = Completion(text="x", completion_tokens=2)
    note = Note(docid=docids[0], text=text or f"note {number}", completion=completion)
    result = TaskResult(
        ranking=ranking,
        exchanges=(exchange,),
        calls=1,
        depth=1,
        prompt_tokens=40,
        completion_tokens=7,
        seconds=0.5,
        statuses={"ok": int(not failed), "repaired": 0, "failed": int(failed)},
        notes={docids[0]: note},
    )
    return Entry(task=task, answer=lambda: answered(result, reasons=True))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    named = os.environ.get("RANK_RL_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    with playwright.sync_playwright() as running:
        try:
            opened = running.chromium.launch(executable_path=named, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no browser: {str(error).splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture
def load(browser: Any) -> Iterator[Callable[[Path], Any]]:
    """Open a page; whatever it says on the console, or asks for, fails the test at its end."""
    said: list[str] = []
    asked: list[str] = []
    files: list[str] = []
    contexts: list[Any] = []

    def opened(path: Path, width: int = 1280) -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}))
        shown = contexts[-1].new_page()
        shown.set_default_timeout(10_000)
        shown.on("console", lambda message: said.append(message.text))
        shown.on("pageerror", lambda error: said.append(str(error)))
        shown.on("request", lambda request: asked.append(request.url))
        files.append(path.as_uri())
        shown.goto(path.as_uri())
        return shown

    yield opened
    for context in contexts:
        context.close()
    assert said == [] and asked == files


def test_orders_scores_and_reasons_are_there_and_found(load: Callable, tmp_path: Path) -> None:
    path = tmp_path / "p.html"
    entries = [entry(0), entry(1, failed=True), entry(2)]
    write_page(path, entries, title="Rankings", facts=[("model", "tiny"), ("queries", "3")])
    shown = load(path)
    assert shown.locator("h1").inner_text() == "Rankings"
    assert shown.locator(".facts dd").all_inner_texts() == ["tiny", "3"]
    queries = shown.locator("details.query")
    assert queries.count() == 3 and not queries.first.get_attribute("open")
    queries.first.locator("> summary").click()
    first = queries.first.locator(".order li")
    assert [" ".join(text.split()) for text in first.locator("summary").all_inner_texts()] == [
        "rank 1 was 3 ▲2 up 2 1.5 text 0 2",
        "rank 2 was 2 = not moved 0.5 text 0 1",
        "rank 3 was 1 ▼2 down 2 −0.5 text 0 0",
    ]
    assert "note 0" in first.first.inner_text() and "it says less" in first.nth(1).inner_text()
    first.first.locator("summary").click()
    assert "Document d2, first-stage score 7.5" in first.first.inner_text()
    assert "About the list: the last one of 0 says it" in queries.first.inner_text()
    assert "1 of 1 answers could not be read" in queries.nth(1).locator("> summary").inner_text()
    count = shown.locator("#count")
    shown.get_by_label("Find").fill("NOTE 2")
    assert count.inner_text() == "1 of 3 queries" and queries.nth(2).is_visible()
    shown.get_by_label("Find").fill("")
    shown.get_by_label("Show").select_option("odd")
    assert count.inner_text() == "1 of 3 queries" and queries.nth(1).is_visible()
    assert not queries.first.is_visible()
    shown.get_by_label("Show").select_option("moved")
    assert count.inner_text() == "2 of 3 queries"
    shown.get_by_role("button", name="Open all").click()
    assert shown.locator("details.query[open]").count() == 2
    shown.get_by_role("button", name="Close all").click()
    assert shown.locator("details.query[open]").count() == 0
    shown.get_by_label("Theme").select_option("dark")
    assert shown.evaluate("document.documentElement.dataset.theme") == "dark"


def test_hostile_text_is_text(load: Callable, tmp_path: Path) -> None:
    path = tmp_path / "p.html"
    write_page(path, [entry(text=HOSTILE)], title=HOSTILE, facts=[(HOSTILE, HOSTILE)])
    shown = load(path, width=375)
    assert shown.title() != "taken" and "rank_rl rankings" in shown.title()
    assert shown.locator("script").count() == 2 and shown.locator("img").count() == 0
    query = shown.locator("details.query")
    assert query.count() == 1 and query.get_attribute("open") is not None
    wanted = HOSTILE.replace("\x00", "\ufffd")
    texts = query.locator(".order .said").all_text_contents()
    assert len(texts) == 2 and all(text.endswith(wanted) for text in texts)
    assert shown.locator("pre").text_content() == wanted
    # A narrow screen does not scroll sideways.
    assert shown.evaluate("document.documentElement.scrollWidth") <= 375


def test_a_page_stays_small_and_says_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [entry(i, text="long " * 400) for i in range(40)]
    whole = page(entries, title="t")
    assert "Only the first" not in whole and "Texts are cut" not in whole
    monkeypatch.setattr(report, "BYTES", 180_000)
    cut = page(entries, title="t")
    assert len(cut.encode()) <= 180_000 and cut.count('class="query"') == 40
    assert "Texts are cut to their first 120 characters" in cut
    monkeypatch.setattr(report, "BYTES", 100_000)
    fewer = page(entries, title="t")
    assert len(fewer.encode()) <= 100_000
    kept = fewer.count('class="query"')
    assert 0 < kept < 40 and f"Only the first {kept} of 40 queries" in fewer


def test_pages_of_files_and_of_one_query(checkpoint: Path, tasks: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.trec"
    done("--model", checkpoint, "--tasks", tasks, "--output", output, "--explain", "--top-k", "2")
    found = (tmp_path / "o.trec.html").read_text()
    assert found.count('class="query"') == 10 and found.count("Reasoning: ") == 20
    assert found.count("<li>") == 20 and "where is lake 7?" in found
    documents = tmp_path / "d.txt"
    documents.write_text("the river\nthe <b>lake</b>\n")
    one = tmp_path / "one.html"
    given = ["--model", checkpoint, "--query", "where?", "--documents", documents]
    told = done(*given, "--page", one, "--json")
    assert f"page: {one}" in told.stderr and len(told.stdout.splitlines()) == 2
    text = one.read_text()
    assert "the &lt;b&gt;lake&lt;/b&gt;" in text and text.count("Reasoning: ") == 2
