"""The page as text: complete, escaped, within its size, the same every time."""

from __future__ import annotations

import base64
import hashlib
import html as html_module
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import made
import pytest

from rank_rl import report
from rank_rl.errors import DataError, StorageError
from rank_rl.report import page
from rank_rl.report.explorer import Cut, data
from rank_rl.report.reading import sources
from rank_rl.report.safe import clean, embedded, shortened


class Tags(HTMLParser):
    """Start tags with their attributes, and the texts of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data


@pytest.fixture(scope="module")
def html(bench_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("page") / "report.html"
    return report.write([bench_dir], out).read_text(encoding="utf-8")


def embedded_data(html: str, slug: str = "c1") -> dict[str, Any]:
    match = re.search(rf'<script type="application/json" id="data-{slug}">(.*?)</script>', html)
    assert match is not None
    return json.loads(match[1])


def test_nothing_is_loaded_and_only_the_pages_scripts_run(html: str) -> None:
    found = Tags(html)
    for tag, attributes in found.tags:
        assert tag not in ("img", "iframe", "object", "embed", "base", "b2")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            link = attributes.get(name)
            assert link is None or link.startswith("#") or link == "data:,"
    policy = next(a["content"] for t, a in found.tags if a.get("http-equiv"))
    assert policy is not None and "default-src 'none'" in policy
    running = [s for s, (_, a) in zip(found.scripts, [t for t in found.tags if t[0] == "script"],
                                      strict=True) if "type" not in a]  # fmt: skip
    hashes = {base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in running}
    assert len(running) == 2 and hashes == set(re.findall(r"'sha256-([^']+)'", policy))
    assert "url(" not in html and "@import" not in html


def test_texts_cannot_end_the_element_that_holds_them(html: str) -> None:
    content = embedded_data(html)
    documents = [d["text"] for q in content["queries"] for d in q["documents"]]
    assert made.HOSTILE[0] in documents and made.HOSTILE[5] in documents
    assert made.HOSTILE[3].replace("\x00", "\ufffd").replace("\x07", "\ufffd").replace(
        "\ufffe", "\ufffd"
    ) in documents  # fmt: skip
    notes = content["queries"][0]["answers"][3]["notes"]
    assert "half a pair: \ufffd" in notes["0"]
    assert "\u2028" not in html and "\x00" not in html and "window.broken = 1</script>" not in html


def test_names_are_escaped_wherever_they_stand(old_dir: Path, tmp_path: Path) -> None:
    text = (old_dir / "result.json").read_text()
    name = "\"'><script>window.broken = 1</script><b2 x=\u0000>{{ 7 * 7 }}"
    for known in ("slow", "ndcg@10", "before", "recipes/made/bench.yaml"):
        text = text.replace(json.dumps(known), json.dumps(name + known))
    (tmp_path / "r.json").write_text(text)
    out = tmp_path / "r.html"
    report.write([tmp_path / "r.json"], out, compare=("first stage", name + "slow"))
    found = Tags(out.read_text())
    tags = [tag for tag, _ in found.tags]
    assert "b2" not in tags and tags.count("script") == 3
    heading = re.search(r'<h3 id="compare-1">(.*?) against', out.read_text())
    assert heading is not None and html_module.unescape(heading[1]) == clean(name + "slow")
    assert "49" not in re.findall(r"<title>(.*?)</title>", out.read_text())[0]


@pytest.mark.parametrize(
    "value", ["</script>", "<!--", "]]>", "\u2028\u2029", "a&b", "\ud83d", "\x00\x1f\x7f", "é漢😀"]
)
def test_json_comes_back_as_it_went_in(value: str) -> None:
    text = str(embedded({"k": [value, 1.5, None, float("nan"), float("inf"), True]}))
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"k": [clean(value), 1.5, None, None, None, True]}
    text.encode()


def test_cut_texts() -> None:
    assert shortened("abc", 3) == "abc" and shortened("ab cd", 3) == "ab…"
    assert shortened("abc", None) == "abc"


def test_data_of_the_explorer_is_that_of_the_files(bench_dir: Path, read_result) -> None:
    (source,) = sources([bench_dir])
    found, result = data(source, Cut()), read_result(bench_dir)
    names = [s["name"] for s in result["systems"]]
    assert [s["name"] for s in found["systems"]] == names
    assert (names[found["system"]], names[found["baseline"]]) == (
        made.SYSTEMS[3].name, "first stage"
    )  # fmt: skip
    for query in found["queries"]:
        task, qid = source.beside.tasks[query["id"]], query["id"]
        assert query["text"] == task.query.text and query["candidates"] == 8
        assert query["type"] == task.query.metadata["type"]
        for name, order, values in zip(names, query["orders"], query["values"], strict=True):
            ranked = [query["documents"][i]["id"] for i in order]
            assert ranked == list(source.beside.orders(name)[qid])
            for metric, value in zip(found["metrics"], values, strict=True):
                assert value == pytest.approx(result["per_query"][name][metric][qid], abs=1e-6)
        for document in query["documents"]:
            assert document.get("grade") == (task.grades or {}).get(document["id"])
    said = found["queries"][1]["answers"][3]
    assert said["reasoning"] and len(said["notes"]) == 8 and len(said["comparisons"]) == 1
    assert (said["read"], said["written"], said["seconds"]) == (900, 20, 3.0)
    failed = found["queries"][0]["answers"][2]
    assert failed["issues"] == {"the answer is not between answer tags": 1}


def test_old_results_have_an_explorer_without_texts(old_dir: Path) -> None:
    (source,) = sources([old_dir])
    found = data(source, Cut())
    assert len(found["queries"]) == 12 and "no tasks.jsonl" in found["notes"][0]
    query = found["queries"][0]
    assert query["text"].startswith("where does river 0") and not query["judged"]
    assert [set(d) for d in query["documents"]] == [{"id"}] * 8 and query["candidates"] is None
    assert query["orders"][1] == list(range(8))  # the first stage's order


def test_a_result_alone_has_values(bench_dir: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.json"
    alone.write_text((bench_dir / "result.json").read_text())
    (source,) = sources([alone])
    query = data(source, Cut())["queries"][0]
    assert query["documents"] == [] and query["values"][5][0] == 1.0
    assert query["orders"] == [None] * 6 and query["text"] == query["id"]


def test_what_is_too_large_is_cut_by_the_first_rule_that_fits(
    bench_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, rules = tmp_path / "small.html", page.CUTS
    for room in (700_000, 300_000):
        monkeypatch.setattr(page, "BYTES", room)
        monkeypatch.setattr(page, "CUTS", rules)
        text = report.write([bench_dir], out).read_text()
        characters = embedded_data(text)["characters"]
        assert out.stat().st_size <= room and len(embedded_data(text)["queries"]) == 12
        assert f"cut to their first {characters} characters" in text
        used = rules.index(Cut(characters=characters))
        monkeypatch.setattr(page, "CUTS", rules[used - 1 : used])
        assert report.write([bench_dir], out).stat().st_size > room
    monkeypatch.setattr(page, "CUTS", (Cut(characters=120, queries=5),))
    text = report.write([bench_dir], out).read_text()
    assert len(embedded_data(text)["queries"]) == 5 and embedded_data(text)["of"] == 12
    assert "only the 5 queries are there on which systems differ most" in text


def test_the_queries_kept_are_those_on_which_systems_differ(bench_dir: Path) -> None:
    (source,) = sources([bench_dir])
    asked = [s["name"] for s in source.result["systems"] if s["model"]]
    values = [source.result["per_query"][name]["ndcg@10"] for name in asked]
    spread = {q: max(v[q] for v in values) - min(v[q] for v in values) for q in values[0]}
    kept = [q["id"] for q in data(source, Cut(queries=4))["queries"]]
    least = min(spread[q] for q in kept)
    assert len(kept) == 4 and all(spread[q] <= least for q in spread if q not in kept)


def test_the_same_results_give_the_same_page(bench_dir: Path, html: str, tmp_path: Path) -> None:
    again = report.write([bench_dir], tmp_path / "again.html").read_text(encoding="utf-8")
    assert again == html


def test_ids_are_unique_and_links_lead_somewhere(html: str) -> None:
    tags = Tags(html).tags
    ids = [a["id"] for _, a in tags if "id" in a]
    assert len(ids) == len(set(ids))
    links = {a["href"] for t, a in tags if t == "a"}
    assert links and all(link is not None and link[1:] in ids for link in links)


def test_provenance_is_complete(html: str, read_result, bench_dir: Path) -> None:
    result = read_result(bench_dir)
    text = re.sub(r"\s+", " ", html)
    for said in ("abc123", "f" * 40, "changes that are not committed", "a" * 64, "2.13", "c0ffee",
                 "files:0", "out/slow/final", result["collection"]["judgements"],
                 "Training data compared with the test queries"):  # fmt: skip
        assert said in text


def test_faults_of_the_user_are_one_line(bench_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no results named"):
        report.write([], tmp_path / "x.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        report.write([bench_dir], tmp_path / "file" / "x.html")
