"""Names over a chart: measured by a font itself, none lies on another, on a mark, or outside."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from robustgate.reports.figures import clipped
from robustgate.reports.marks import FONT, SHAPES, Box, Label, Mark, Scale, place_labels

FRAME = (40.0, 10.0, 400.0, 210.0)


def inked(label: Label) -> Box:
    """What a label covers in DejaVu Sans, which is among the widest."""
    extents = TextPath((0, 0), label.text, size=FONT, prop=FontProperties(family="DejaVu Sans")).get_extents()
    left = label.x - {"start": 0.0, "middle": extents.width / 2, "end": extents.width}[label.anchor]
    return left, label.y - extents.height / 2, left + extents.width, label.y + extents.height / 2


def apart(one: Box, other: Box) -> bool:
    return one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def mark(x: float, y: float, *, ring: bool = False) -> Mark:
    return Mark(x=x, y=y, shape="circle", kind="front", title="", ring=ring)


def cloud(seed: int, count: int) -> tuple[list[Mark], list[tuple[int, list[str]]]]:
    draw = np.random.default_rng(seed)
    marks = [mark(draw.normal(220, 50), draw.normal(110, 30), ring=index == 0) for index in range(count)]
    kinds = ("MobileNetV2 filter_pruning-{}", "resnet{}", "WWW@{}", "{}")
    return marks, [(index, [kinds[index % 4].format(index), str(index)]) for index in range(count)]


@pytest.mark.parametrize("count", [2, 6, 20, 60])
def test_no_label_lies_on_another_or_on_a_mark_or_outside(count: int) -> None:
    for seed in range(5):
        marks, wishes = cloud(seed, count)
        labels = place_labels(marks, wishes, FRAME, lines=[(60, 100, 380, 100)])
        assert labels
        boxes = [inked(label) for label in labels]
        assert all(apart(one, other) for one, other in combinations(boxes, 2))
        assert all(apart(box, one.box) for box in boxes for one in marks)
        assert all(
            FRAME[0] <= box[0] and FRAME[1] <= box[1] and box[2] <= FRAME[2] and box[3] <= FRAME[3] for box in boxes
        )
        assert place_labels(marks, wishes, FRAME, lines=[(60, 100, 380, 100)]) == labels


@pytest.mark.parametrize(
    "text", ["static_quantization", "WWWWWWWW@MM", "mobilenet_v2 P+C+Int8 (knee)", "il1|I.,", "ÄÖÜß"]
)
def test_a_box_is_no_narrower_than_the_text(text: str) -> None:
    label = Label(x=100, y=50, anchor="middle", text=text)
    left, top, right, bottom = inked(label)
    assert label.box[0] <= left
    assert label.box[1] <= top
    assert right <= label.box[2]
    assert bottom <= label.box[3]


def test_a_text_stands_beside_its_mark_and_keeps_off_lines_there() -> None:
    (label,) = place_labels([mark(200, 100)], [(0, ["name"])], FRAME)
    assert (label.anchor, label.y, label.leader) == ("start", 100, None)
    (label,) = place_labels([mark(200, 100)], [(0, ["name"])], FRAME, lines=[(200, 100, 400, 100)])
    assert (label.anchor, label.y, label.leader) == ("end", 100, None)


def test_a_name_without_room_becomes_a_number_and_one_without_any_is_left_out() -> None:
    narrow = (180.0, 80.0, 230.0, 120.0)
    (label,) = place_labels([mark(200, 100)], [(0, ["a_name_as_long_as_that", "7"])], narrow)
    assert label.text == "7"
    ring = [mark(200 + x, 100 + y) for x in (-14, 0, 14) for y in (-14, 0, 14)]
    assert place_labels(ring, [(4, ["7"])], FRAME) == []


def test_a_line_to_a_mark_leads_through_no_other_mark() -> None:
    for seed in range(5):
        marks, wishes = cloud(seed, 40)
        led = [label for label in place_labels(marks, wishes, FRAME) if label.leader]
        assert led
        for label in led:
            assert label.leader is not None
            others = [one for one in marks if (one.x, one.y) != label.leader]
            for part in range(101):
                x = label.leader[0] + (label.x - label.leader[0]) * part / 100
                y = label.leader[1] + (label.y - label.leader[1]) * part / 100
                assert all(abs(x - one.x) > 4 or abs(y - one.y) > 4 for one in others)


def test_figures_lie_where_the_axes_have_them() -> None:
    scale = Scale(size=(5.0, 2.0), place=(0.1, 0.2, 0.8, 0.7), low=(0.0, 10.0), high=(1.0, 20.0))
    assert scale.spot(0.0, 10.0) == (36.0, 115.2)
    assert scale.spot(1.0, 20.0) == (324.0, 14.4)
    assert scale.spot(0.5, 15.0) == (180.0, 64.8)


def test_long_names_are_cut() -> None:
    assert clipped("a" * 30, 30) == "a" * 30
    assert clipped("a" * 31, 30) == "a" * 29 + "…"


def test_shapes_are_paths_around_the_origin() -> None:
    assert all(path.startswith("M") and path.endswith("Z") for path in SHAPES.values())
