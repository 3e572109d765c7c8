"""Axes, labels, charts and their SVG."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from rank_rl.report import sparks
from rank_rl.report.charts import NARROW, WIDE, Axis, Chart, Point, Series, drawn, figure
from rank_rl.report.labels import Label, placed
from rank_rl.report.reading import sources
from rank_rl.report.scales import Scale, around, around_log, label
from rank_rl.report.svg import Drawing, text_width
from rank_rl.report.tables import Table, names
from rank_rl.report.training import stages

TABLE = Table(caption="numbers", columns=names("a"), rows=())


def chart(*series: Series, **other: object) -> Chart:
    given = {"title": "t", "description": "d", "x": Axis(title="x"), "y": Axis(title="y")}
    return Chart(**{**given, "series": series, **other})


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-0.3, 0.3, [-0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3]),
        (3, 47, [10, 20, 30, 40]),
        (5, 5, [5]),
    ],
)
def test_linear_ticks_are_round_and_inside(low: float, high: float, expected: list) -> None:
    ticks = Scale(low=low, high=high, start=0, end=100).ticks()
    assert ticks == pytest.approx(expected)


def test_log_ticks_and_places() -> None:
    scale = Scale(low=1, high=1000, start=0, end=300, log=True)
    assert scale.place(10) == pytest.approx(100) and scale.place(100) == pytest.approx(200)
    assert scale.place(0) == 0 and scale.place(1e9) == 300
    assert scale.ticks() == [1, 10, 100, 1000]
    assert Scale(low=2, high=4, start=0, end=1, log=True).ticks() == [2, 3]
    for low, high in ((0.001, 9e6), (3.1, 3.2)):
        ticks = Scale(low=low, high=high, start=0, end=1, log=True).ticks()
        assert 1 <= len(ticks) <= 7 and all(low <= t <= high for t in ticks)


def test_bounds_hold_all_values() -> None:
    assert around([2.0]) == pytest.approx((1.88, 2.12)) and around([]) == pytest.approx(
        (-0.06, 1.06)
    )
    assert around([0.0, 0.0]) == (-1.0, 1.0)
    low, high = around_log([0.0, 3.0, 300.0])
    assert low < 3 and high > 300
    values = (0, 0.25, -2, 1234, 45_000, 2_500_000)
    assert [label(v) for v in values] == ["0", "0.25", "−2", "1,234", "45k", "2.5M"]


def test_names_cover_no_other_name_and_stay_inside() -> None:
    area = (0.0, 0.0, 700.0, 400.0)
    points = [Label(text=f"system {i}", x=100 + 4 * i, y=200 + 3 * (i % 4)) for i in range(12)]
    found = placed(points, [], area, 12)
    boxes = [(p.left, p.base - 9.6, p.left + text_width(p.text, 12), p.base + 2.4) for p in found]
    for a, b in itertools.combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    assert all(b[0] >= 0 and b[2] <= 700 and b[1] >= 0 and b[3] <= 400 for b in boxes)
    assert found == placed(points, [], area, 12)
    assert any(p.far for p in found) and not placed(points[:1], [], area, 12)[0].far
    (long,) = placed([Label(text="x" * 90, x=10, y=10)], [], area, 12)
    assert long.text == "x" * 30 + "…"


def test_pictures_are_xml_with_title_description_and_escaped_texts() -> None:
    hostile = '</title><script>alert("x")</script> & \x00'
    series = Series(
        name=hostile,
        points=(Point(x=1, y=0.2, name=hostile, low=0.1, high=0.3), Point(x=10, y=0.5, name="b")),
        joined=False,
        named=True,
    )
    many = chart(
        series,
        title=hostile,
        x=Axis(title=hostile, log=True),
        references=(("one", 0.25), ("another", 0.26)),
        path=((1, 0.2), (10, 0.5)),
    )
    made = figure("f", many, TABLE, large=True)
    assert len(made.pictures) == 2 and made.legend == ()
    for picture in made.pictures:
        root = ElementTree.fromstring(str(picture).replace("<svg", "<svg xmlns='x'", 1))
        assert root.attrib["role"] == "img" and "script" not in {e.tag for e in root.iter()}
        ids = [e.attrib["id"] for e in root.iter() if "id" in e.attrib]
        assert root.attrib["aria-labelledby"] in ids and root.attrib["aria-describedby"] in ids
    assert made.pictures == figure("f", many, TABLE, large=True).pictures


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize(
    "points",
    [(), (Point(x=3, y=0.5),), tuple(Point(x=i, y=0.0) for i in range(3))],
    ids=["none", "one", "all the same"],
)
def test_few_points_are_drawn_too(width: float, points: tuple[Point, ...]) -> None:
    picture = str(drawn(chart(Series(name="s", points=points)), width).picture("x", "t", "d"))
    assert "nan" not in picture and picture.count("<circle") == len(points)


def test_series_differ_in_more_than_colour() -> None:
    looks = {(s.shape, s.colour) for s in (Series(name="", points=(), style=i) for i in range(12))}
    assert len(looks) == 12
    assert len({Series(name="", points=(), style=i).shape for i in range(5)}) == 5


def test_bands_and_errors() -> None:
    points = tuple(Point(x=i, y=i, low=i - 1, high=i + 1) for i in range(3))
    assert 'class="band s0 d0"' in str(
        drawn(chart(Series(name="s", points=points)), 360).hidden("")
    )
    apart = Series(name="s", points=points, joined=False)
    assert str(drawn(chart(apart), 360).hidden("")).count('class="error"') == 3


def test_small_drawings() -> None:
    spark = str(sparks.interval(sparks.Spread(mean=0.5, low=0.25, high=0.75), (0.0, 1.0)))
    assert 'aria-hidden="true"' in spark and 'cx="66"' in spark
    assert 'x1="35.5"' in spark and 'x2="96.5"' in spark
    bar = str(sparks.parts([3, 0, 1], ["win", "tie", "loss"]))
    assert 'width="98" height="12" class="win"' in bar and "tie" not in bar
    assert str(sparks.parts([0, 0], ["a", "b"])).count("<rect") == 1


def test_shapes_and_drawing_are_rounded() -> None:
    drawing = Drawing(10, 10)
    for shape in ("circle", "square", "triangle", "diamond", "cross"):
        drawing.mark((1.2345, 2.3456), shape, "point", title="<&>")
    text = str(drawing.hidden("x"))
    assert "1.2345" not in text and text.count("<title>&lt;&amp;&gt;</title>") == 5


def test_curves_of_shares_run_from_none_to_all(bench_dir: Path) -> None:
    (stage,) = stages(sources([bench_dir]))
    by_title = {f.chart.title.split(": ")[1]: f.chart for f in stage.figures}
    assert by_title["answers by how they parse"].y.bounds == (-0.03, 1.03)
    assert by_title["loss"].y.bounds is None
    shares = by_title["share of the reward's spread"]
    assert [s.name for s in shares.series] == ["ndcg", "recall"]
    assert [p.y for p in shares.series[0].points] == [0.8] * 6
