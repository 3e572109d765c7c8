"""The page in a real browser: numbers, sorting, filters, queries, keyboard, contrast, phones.

Needs playwright and a Chromium: ``RANK_RL_BROWSER``, one on the path, or playwright's own.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import made
import pytest

from rank_rl import report
from rank_rl.report import shown
from rank_rl.report.leaderboard import leaderboard
from rank_rl.report.reading import sources

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

TEACHER = made.SYSTEMS[3].name
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 720}
CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const known = new Map();
  const rgb = (text) => {
    if (!known.has(text)) known.set(text, drawn(text));
    return known.get(text);
  };
  const drawn = (text) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const [r, g, b, a] = rgb(getComputedStyle(at).backgroundColor);
      if (a === 255) return [r, g, b];
      if (a > 0) throw new Error('half transparent ' + at.className);
    }
    return rgb(getComputedStyle(document.body).backgroundColor);
  };
  const found = new Map();
  for (const input of document.querySelectorAll('[placeholder]')) {
    const [one, other] = [getComputedStyle(input, '::placeholder').color,
                          getComputedStyle(input).backgroundColor].map(rgb).map(light);
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    found.set('placeholder ' + input.id, ratio);
  }
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.getClientRects().length) continue;
    if (/^(SCRIPT|STYLE|TITLE|NOSCRIPT|OPTION|title|desc)$/.test(node.tagName)) continue;
    if (node.closest('button:disabled')) continue;
    const style = getComputedStyle(node);
    const color = rgb(node.namespaceURI.endsWith('svg') ? style.fill : style.color);
    const [one, other] = [light(color), light(ground(node))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    const name = node.tagName + '.' + (node.getAttribute('class') || '');
    if (!found.has(name) || found.get(name) > ratio) found.set(name, ratio);
  }
  return [...found].map(([name, ratio]) => [name, ratio]);
}"""
SORTED = """() => [...document.querySelectorAll('#c1-table thead th')].flatMap((head, i) => {
  const button = head.querySelector('button');
  return !button ? [] : [0, 1].map(() => {
    button.click();
    const marked = document.querySelectorAll('[aria-sort]').length;
    const said = document.querySelector('#c1-table').parentNode.nextElementSibling.textContent;
    const rows = [...document.querySelectorAll('#c1-table tbody tr')];
    return [button.dataset.numeric === '1', head.getAttribute('aria-sort'), marked, said,
            rows.map(row => row.cells[i].getAttribute('data-v'))];
  });
})"""
NAMELESS = """() => [...document.querySelectorAll('button, input, select, a, summary')]
.filter(e => {
  const label = e.labels && e.labels.length ? e.labels[0].textContent : '';
  return !(label + e.textContent + (e.getAttribute('aria-label') || '')).trim();
}).map(e => e.outerHTML.slice(0, 100))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    named = os.environ.get("RANK_RL_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    with playwright.sync_playwright() as started:
        try:
            opened = started.chromium.launch(executable_path=named, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no browser: {str(error).splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page_file(bench_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("browser") / "report.html"
    return report.write([bench_dir], out, compare=("first stage", TEACHER))


@pytest.fixture
def load(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a page; whatever it says on the console, or asks for, fails the test at its end."""
    contexts, said, asked, files = [], [], [], set[str]()

    def opened(path: Path, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": DESK, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        files.add(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == [] and set(asked) == files


def texts(page: Any, selector: str) -> list[str]:
    return page.eval_on_selector_all(selector, "nodes => nodes.map(n => n.textContent)")


def minus(text: str) -> str:
    return text.replace("−", "-")


def differences(page: Any) -> list[float]:
    return [float(minus(t)) for t in texts(page, ".explorer td:last-child > span:first-child")]


def open_query(page: Any, words: str) -> None:
    page.get_by_label("Find", exact=True).fill(words)
    page.locator("button.open").first.click()


def test_every_number_of_the_leaderboard_is_the_results(
    load: Callable, page_file: Path, bench_dir: Path, read_result: Callable
) -> None:
    page = load(page_file)
    heads = [t.rstrip("↕ ") for t in texts(page, "#c1-table thead th")]
    result = read_result(bench_dir)
    rows = page.locator("#c1-table tbody tr")
    assert rows.count() == len(result["systems"])
    for row, system in zip(rows.all(), result["systems"], strict=True):
        cells = [row.locator("th, td").nth(i) for i in range(len(heads))]
        by_head = {h: minus(c.inner_text()) for h, c in zip(heads, cells, strict=True)}
        assert by_head["system"].startswith(system["name"])
        for metric in made.METRICS:
            m = system["metrics"][metric]
            said = by_head[metric].split()
            assert said[:2] == [f"{m['mean']:.3f}", f"{m['low']:.3f}–{m['high']:.3f}"]
        costs = system["costs"]
        assert by_head["s / query"] == (shown.amount(costs["seconds"]) if costs else "")
        assert by_head["tokens in"] == (shown.amount(costs["prompt_tokens"]) if costs else "")
    (source,) = sources([bench_dir])
    table = leaderboard(source)
    shown_cells = [minus(t) for t in texts(page, "#c1-table td .v, #c1-table tbody th .v")]
    assert shown_cells == [c.text for row in table.rows for c in row if c.text]


def test_every_column_sorts_both_ways_and_blanks_stay_last(load: Callable, page_file: Path) -> None:
    page = load(page_file)
    sorts = page.evaluate(SORTED)
    assert len(sorts) == 2 * page.locator("#c1-table button.sort").count() > 20
    for numeric, way, marked, said, values in sorts:
        given = [v for v in values if v]
        assert values[: len(given)] == given and marked == 1
        keys = [float(v) for v in given] if numeric else given
        assert keys == sorted(keys, reverse=way == "descending")
        assert said.endswith(f", {way}.")
    assert {way for _, way, *_ in sorts[::2]} == {"ascending", "descending"}
    assert all(a[1] != b[1] for a, b in zip(sorts[::2], sorts[1::2], strict=True))
    page.locator("#c1-table button.sort").first.click()
    assert page.locator("#c1-table th").first.get_attribute("aria-sort") == "ascending"


def test_the_leaderboard_is_filtered_by_name_and_kind(load: Callable, page_file: Path) -> None:
    page = load(page_file)

    def visible() -> list[str]:
        return texts(page, "#c1-table tbody tr:not([hidden]) th .v")

    page.get_by_label("Filter").fill("STAGE")
    assert visible() == ["first stage"]
    assert "1 of 6 systems" in texts(page, "form[data-filter] [role=status]")
    page.get_by_label("Filter").fill("")
    page.get_by_label("Kind", exact=True).select_option("generated text")
    assert visible() == [s.name for s in made.SYSTEMS[2:5]]


def test_one_cost_is_shown_at_a_time(load: Callable, page_file: Path) -> None:
    page = load(page_file)
    assert page.locator("#c1-cost-seconds svg.wide").is_visible()
    page.get_by_label("tokens", exact=True).check()
    assert page.locator("#c1-cost-tokens svg.wide").is_visible()
    assert not page.locator("#c1-cost-seconds").is_visible()
    page.locator("#c1-cost-tokens summary").click()
    assert "5,020" in page.locator("#c1-cost-tokens table").inner_text()


def test_queries_are_found_by_words_wins_type_and_order(
    load: Callable, page_file: Path, bench_dir: Path, read_result: Callable
) -> None:
    page = load(page_file)
    values = read_result(bench_dir)["per_query"]
    one, other = values["first stage"]["ndcg@10"], values[TEACHER]["ndcg@10"]
    gaps = {q: other[q] - one[q] for q in one}
    count = page.locator(".explorer [data-part=count]")
    for show, fits in (("win", lambda g: g > 1e-9), ("loss", lambda g: g < -1e-9),
                       ("tie", lambda g: abs(g) <= 1e-9)):  # fmt: skip
        page.get_by_label("Show", exact=True).select_option(show)
        expected = sum(map(fits, gaps.values()))
        assert count.inner_text() == f"{expected} of 12 queries"
        assert page.locator("button.open").count() == expected
    page.get_by_label("Show", exact=True).select_option("all")
    shown_gaps = [
        float(minus(t)) for t in texts(page, ".explorer td:last-child > span:first-child")
    ]
    assert shown_gaps == pytest.approx(sorted(gaps.values(), reverse=True), abs=6e-4)
    page.get_by_label("Sort by", exact=True).select_option("loss")
    shown_gaps = [
        float(minus(t)) for t in texts(page, ".explorer td:last-child > span:first-child")
    ]
    assert shown_gaps == pytest.approx(sorted(gaps.values()), abs=6e-4)
    page.get_by_label("Type", exact=True).select_option("bridge")
    assert count.inner_text() == "6 of 12 queries"
    page.get_by_label("Find", exact=True).fill("made-10")
    assert count.inner_text() == "1 of 12 queries"
    page.get_by_label("Find", exact=True).fill("nothing like it")
    assert count.inner_text() == "0 of 12 queries" and not page.locator("button.open").count()
    page.get_by_label("Find", exact=True).fill("")
    page.get_by_label("System", exact=True).select_option("untrained base")
    page.get_by_label("Show", exact=True).select_option("issue")
    assert count.inner_text() == "6 of 12 queries"


def test_an_open_query_shows_orders_moves_grades_and_reasoning(
    load: Callable, page_file: Path, bench_dir: Path
) -> None:
    page = load(page_file)
    (source,) = sources([bench_dir])
    open_query(page, "made-0")
    dialog = page.locator("dialog")
    assert dialog.locator("h2").inner_text().startswith("where does river 0 run?")
    task = source.beside.tasks["made-0"]
    columns = {s.get_attribute("aria-label"): s for s in dialog.locator(".order").all()}
    assert list(columns) == ["Input order", TEACHER]
    for name, docids in (("Input order", task.docids),
                         (TEACHER, source.beside.orders(TEACHER)["made-0"])):  # fmt: skip
        items = columns[name].locator("li").all()
        assert len(items) == len(docids) == 8
        for rank, (item, docid) in enumerate(zip(items, docids, strict=True)):
            candidate = next(c for c in task.candidates if c.docid == docid)
            assert item.locator(".title").inner_text() == candidate.title
            grade = (task.grades or {}).get(docid)
            wanted = "unjudged" if grade is None else f"grade {grade}"
            assert item.locator(".grade").inner_text() == wanted
            if name == TEACHER:
                places = task.docids.index(docid) - rank
                arrow = f"▲{places}" if places > 0 else f"▼{-places}" if places else "="
                assert item.locator(".move [aria-hidden]").inner_text() == arrow
    ours = columns[TEACHER]
    assert "It says where the river runs. <b>not bold</b>" in ours.inner_text()
    assert "Why here: It stands above the next one" in ours.inner_text()
    assert "First the rivers, then the lakes." in ours.inner_text()
    assert "ok · 900 tokens read, 20 written · 3.00 s" in ours.inner_text()
    ours.locator("li summary").first.click()
    text = next(
        c.text for c in task.candidates if c.docid == source.beside.orders(TEACHER)["made-0"][0]
    )
    assert page.evaluate("t => t.length", text) > 0
    assert ours.locator("li .inside").first.is_visible()
    dialog.get_by_role("checkbox", name="untrained base").check()
    base = dialog.locator('.order[aria-label="untrained base"]')
    assert "failed" in base.inner_text()
    assert "Issue: the answer is not between answer tags" in base.inner_text()
    base.get_by_text("Answer as written").click()
    assert "I cannot say <answer>" in base.inner_text()


def test_the_whole_way_by_keyboard(load: Callable, page_file: Path) -> None:
    page = load(page_file)

    def focused(script: str = "e => e.textContent") -> str:
        return page.evaluate(f"({script})(document.activeElement)").strip()

    def tab_until(fits: Callable[[str], bool], script: str, most: int = 80) -> None:
        for _ in range(most):
            page.keyboard.press("Tab")
            if fits(focused(script)):
                return
        raise AssertionError("not reached by Tab")

    page.keyboard.press("Tab")
    assert focused() == "Skip to the results"
    page.keyboard.press("Enter")
    assert focused("e => e.id") == "main"
    outline = "e => getComputedStyle(e).outlineStyle + ' ' + e.className"
    tab_until(lambda o: o == "solid sort", outline)
    page.keyboard.press("Space")
    assert page.locator("[aria-sort]").count() == 1
    tab_until(lambda o: o == "solid open", outline)
    first = focused()
    page.keyboard.press("ArrowDown")
    second = focused()
    page.keyboard.press("ArrowUp")
    assert focused() == first != second
    page.keyboard.press("End")
    last = focused()
    page.keyboard.press("Home")
    assert focused() == first != last
    page.keyboard.press("Enter")
    title = page.locator("#reader-title")
    assert page.locator("dialog[open]").count() == 1 and title.inner_text() == first
    assert focused("e => e.id") == "reader-title"
    page.keyboard.press("ArrowRight")
    assert title.inner_text() == second
    for _ in range(30):  # focus never leaves the dialog for the page behind it
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || "
                             "document.activeElement.closest('dialog') !== null")  # fmt: skip
    tab_until(lambda name: name == "SUMMARY", "e => e.tagName")
    page.keyboard.press("Enter")
    assert page.locator("dialog details[open] > summary:focus").count() == 1
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0 and focused() == second


def test_hostile_texts_stay_texts(load: Callable, page_file: Path) -> None:
    page = load(page_file)
    for number in (0, 5):
        open_query(page, f"made-{number}")
        page.locator("dialog").get_by_role("checkbox", name="slow").check()
        page.evaluate("document.querySelectorAll('dialog details').forEach(d => { d.open = true })")
        assert page.locator("dialog .inside").count() == 24
        said = page.locator("dialog .body").inner_text()
        for text in (*made.HOSTILE[:3], "{{ 7 * 7 }} {% raw %} ${alert(1)}", "NUL \ufffd, bell"):
            assert text.split("\u2028")[0] in said
        assert len(said) > 200_000  # the long text is there as a whole
        box = "d => d.scrollWidth - d.clientWidth"
        assert page.eval_on_selector("dialog .body", box) <= 0
        page.keyboard.press("Escape")
    assert page.evaluate("window.broken") is None
    assert page.locator("img, iframe, dialog b:has-text('bold')").count() == 0
    assert page.locator("style").count() == 1 and page.locator("h1").is_visible()
    assert page.evaluate("getComputedStyle(document.body).direction") == "ltr"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_text_has_contrast(
    load: Callable, page_file: Path, scheme: str, viewport: dict[str, int]
) -> None:
    page = load(page_file, color_scheme=scheme, viewport=viewport)
    page.evaluate("document.querySelectorAll('main details').forEach(d => { d.open = true })")
    found = dict(page.evaluate(CONTRAST))
    open_query(page, "made-0")
    page.evaluate("document.querySelectorAll('dialog details').forEach(d => { d.open = true })")
    found |= {f"dialog {name}": ratio for name, ratio in page.evaluate(CONTRAST)}
    assert (
        len(found) > 40
        and {"text.tick", "placeholder c1-find"} <= set(found)
        and "dialog SPAN.grade g2" in found
    )
    low = {name: round(ratio, 2) for name, ratio in found.items() if ratio < 4.5}
    assert not low
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")


def test_a_phone_never_scrolls_sideways(load: Callable, page_file: Path) -> None:
    page = load(page_file, viewport=PHONE)
    width = "[document.documentElement.scrollWidth, innerWidth]"
    assert page.evaluate(width) == [375, 375]
    page.evaluate("document.querySelectorAll('main details').forEach(d => { d.open = true })")
    assert page.evaluate(width) == [375, 375]
    wide = page.eval_on_selector_all(
        ".scroll", "boxes => boxes.filter(b => b.scrollWidth > b.clientWidth).length"
    )
    assert wide > 0  # wide tables scroll in their own boxes
    assert page.locator("svg.narrow").first.is_visible()
    assert not page.locator("svg.wide").first.is_visible()
    open_query(page, "made-5")
    page.evaluate("document.querySelectorAll('dialog details').forEach(d => { d.open = true })")
    assert page.eval_on_selector("dialog .body", "d => d.scrollWidth <= d.clientWidth")
    assert page.evaluate(width) == [375, 375]


def test_what_a_screen_reader_needs(load: Callable, page_file: Path) -> None:
    page = load(page_file)
    open_query(page, "made-0")
    page.keyboard.press("Escape")
    for landmark in ("header", "nav[aria-label]", "main", "footer"):
        assert page.locator(f"body > {landmark}, .columns > {landmark}").count() == 1
    levels = [int(t[1]) for t in page.eval_on_selector_all(
        "main :is(h1, h2, h3, h4, h5), header h1", "nodes => nodes.map(n => n.tagName)"
    )]  # fmt: skip
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    assert page.evaluate(NAMELESS) == []
    tables = page.locator("table")
    assert tables.count() > 20
    assert page.locator("table:not(:has(> caption))").count() == 0
    assert page.locator("thead th:not([scope=col]), tbody th:not([scope=row])").count() == 0
    assert page.locator("tbody tr:not(:has(th))").count() == 0
    assert page.locator(".scroll:not([tabindex='0'][role=region][aria-label])").count() == 0
    assert page.locator("svg:not([aria-hidden=true], [role=img])").count() == 0
    unnamed = page.eval_on_selector_all(
        "svg[role=img]",
        "all => all.filter(s => !document.getElementById(s.getAttribute('aria-labelledby'))"
        "?.textContent || !document.getElementById(s.getAttribute('aria-describedby'))"
        "?.textContent).length",
    )
    assert unnamed == 0 and page.locator("figure:not(:has(table))").count() == 0
    assert page.locator("dialog[aria-labelledby=reader-title]").count() == 1
    assert page.evaluate("document.documentElement.lang") == "en"
    ids = page.eval_on_selector_all("[id]", "all => all.map(e => e.id)")
    assert len(ids) == len(set(ids))


def test_the_theme_is_remembered_or_at_least_changes(load: Callable, page_file: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    page = load(page_file, color_scheme="light")
    page.get_by_label("Theme").select_option("dark")
    dark = page.evaluate(ground)
    assert dark != "rgb(255, 255, 255)"
    again = page.context.new_page()
    again.goto(page_file.as_uri())
    assert again.evaluate(ground) == dark and again.get_by_label("Theme").input_value() == "dark"
    again.get_by_label("Theme").select_option("auto")
    assert again.evaluate(ground) == "rgb(255, 255, 255)"
    blocked = load(page_file, color_scheme="light")
    blocked.add_init_script(
        "Object.defineProperty(window, 'localStorage', {get() { throw new Error('blocked') }})"
    )
    blocked.reload()
    blocked.get_by_label("Theme").select_option("dark")
    assert blocked.evaluate(ground) == dark


def test_print_and_reduced_motion(load: Callable, page_file: Path) -> None:
    page = load(page_file, color_scheme="dark", reduced_motion="reduce")
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    page.emulate_media(media="print")
    assert not page.locator(".controls").first.is_visible()
    assert page.locator("#c1-table").is_visible() and page.locator("svg.wide").first.is_visible()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 31, 36)"


def test_without_javascript_all_but_the_queries_is_there(load: Callable, page_file: Path) -> None:
    page = load(page_file, java_script_enabled=False)
    assert page.locator("#c1-table").is_visible()
    assert page.locator("#c1-cost-tokens").is_visible()
    assert page.locator("noscript").inner_text().startswith("This part needs JavaScript")
    assert not page.locator(".controls").first.is_visible()


def test_several_collections_and_an_old_one(
    load: Callable, bench_dir: Path, other_dir: Path, old_dir: Path, tmp_path: Path
) -> None:
    page = load(report.write([bench_dir, other_dir, old_dir], tmp_path / "all.html"))
    assert texts(page, "main > section > h2")[0] == "All collections"
    assert {"made", "other", "before"} <= set(texts(page, "main > section > h2"))
    levels = [int(t[1]) for t in page.eval_on_selector_all(
        "main :is(h2, h3, h4, h5)", "nodes => nodes.map(n => n.tagName)")]  # fmt: skip
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    old = page.locator("[data-explorer=c3]")
    assert "There is no tasks.jsonl beside the result" in old.inner_text()
    old.locator("button.open").first.click()
    assert page.locator("dialog .order").count() == 2
    assert "Its text is not known" in page.locator("dialog .inside").first.text_content()
    page.keyboard.press("Escape")
    page.locator("[data-explorer=c2] button.open").first.click()
    assert page.locator("dialog .order li").count() == 16
    page.evaluate("document.querySelector('dialog').close()")
    page.locator("[data-explorer=c1] button.open").first.click()
    assert page.locator("dialog .order").first.is_visible()


def test_a_big_result_stays_small_and_says_what_is_cut(
    load: Callable, tmp_path: Path, bench_dir: Path
) -> None:
    words = " ".join(f"word{i}" for i in range(100))
    systems = (*made.SYSTEMS[:3],
               *(replace(made.SYSTEMS[3], name=f"reasoner {i}", note=words[:200])
                 for i in range(8)), made.SYSTEMS[5])  # fmt: skip
    content = made.Made(
        name="big", queries=200, candidates=20, systems=systems, texts=(words,), diagnosed=False
    )
    made.bench(tmp_path / "big", content)
    path = report.write([tmp_path / "big"], tmp_path / "big.html")
    assert path.stat().st_size < 6_000_000
    page = load(path, viewport=PHONE)
    assert page.locator("button.open").count() == 20
    page.get_by_role("button", name="Show more queries").click()
    assert page.locator("button.open").count() == 70
    assert page.evaluate("[...document.querySelectorAll('button.open')]"
                         ".indexOf(document.activeElement)") == 20  # fmt: skip
    assert "Texts are cut to their first" in page.locator(".explorer").inner_text()
    assert "cut to their first" in page.locator("footer").inner_text()
    assert page.locator("#c1-table tbody tr").count() == 12
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    open_query(page, "big-")
    assert page.locator("dialog .order li").count() == 40
