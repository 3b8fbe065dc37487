"""Marks and names that lie over a chart: their shapes, and where a name stands without touching anything.

All in points of the chart's `view_box`, from its upper left. The page writes them, not matplotlib: names come from
outside, and the page escapes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from unicodedata import combining, east_asian_width

from robustgate.reports.drawing import Place, Size

# Paths around (0, 0), of about the same area.
SHAPES = {
    "circle": "M4.5 0A4.5 4.5 0 1 1-4.5 0A4.5 4.5 0 1 1 4.5 0Z",
    "square": "M-4 -4H4V4H-4Z",
    "triangle": "M0 -5L5 4H-5Z",
    "diamond": "M0 -5.5L5.5 0L0 5.5L-5.5 0Z",
    "pointer": "M0 5L5 -4H-5Z",
    "cross": "M-4.9 -2.5L-2.5 -4.9L0 -2.4L2.5 -4.9L4.9 -2.5L2.4 0L4.9 2.5L2.5 4.9L0 2.4L-2.5 4.9L-4.9 2.5L-2.4 0Z",
    "plus": "M-1.7 -5.3H1.7V-1.7H5.3V1.7H1.7V5.3H-1.7V1.7H-5.3V-1.7H-1.7Z",
}
RADIUS, RING = 6.0, 9.0  # what a mark takes, without a ring around it and with one
FONT = 10.0
LONGEST = 30
# How wide letters are at most in the usual fonts, in parts of their height; any other is as wide as MOST.
NARROW, MOST, CAPITAL, WIDE = 0.42, 0.66, 0.8, 1.05
DISTANCES = (3.0, 10.0, 18.0, 28.0, 40.0, 54.0)
NEAR = 3  # so many of them
# Right, left, above, below, and between: where, seen from its mark, a name stands.
DIRECTIONS = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1))
ANCHORS = {1: "start", 0: "middle", -1: "end"}

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A mark at a spot: `kind` is its class in report.css, `title` what it tells a pointer that rests on it."""

    x: float
    y: float
    shape: str
    kind: str
    title: str
    ring: bool = False

    @property
    def path(self) -> str:
        """Its outline, around the spot."""
        return SHAPES[self.shape]

    @property
    def box(self) -> Box:
        """Left, top, right and bottom of what it takes."""
        radius = RING if self.ring else RADIUS
        return self.x - radius, self.y - radius, self.x + radius, self.y + radius


@dataclass(frozen=True, kw_only=True)
class Label:
    """A text whose line is centred at `y`; `anchor` is SVG's. `leader` is the end of a line to a mark far off."""

    x: float
    y: float
    anchor: str
    text: str
    leader: tuple[float, float] | None = None

    @property
    def box(self) -> Box:
        """Left, top, right and bottom of what it takes, in a font that is rather wide."""
        wide = width(self.text)
        left = self.x - {"start": 0.0, "middle": wide / 2, "end": wide}[self.anchor]
        return left, self.y - 0.6 * FONT, left + wide, self.y + 0.6 * FONT

    @property
    def way(self) -> list[Box]:
        """Points along the leader, as boxes without extent."""
        if self.leader is None:
            return []
        (x, y), parts = self.leader, 16
        steps = [(x + (self.x - x) * part / parts, y + (self.y - y) * part / parts) for part in range(parts)]
        return [(right, down, right, down) for right, down in steps]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Turns figures into points: from `low` to `high` across axes at `place` of a sheet of `size` inches."""

    size: Size
    place: Place
    low: tuple[float, float]
    high: tuple[float, float]

    def spot(self, x: float, y: float) -> tuple[float, float]:
        """Return where in the `view_box` a point lies."""
        (wide, tall), (left, bottom, across, up) = self.size, self.place
        (x_low, y_low), (x_high, y_high) = self.low, self.high
        right = left + across * (x - x_low) / (x_high - x_low)
        above = bottom + up * (y - y_low) / (y_high - y_low)
        return round(72 * wide * right, 2), round(72 * tall * (1 - above), 2)


@lru_cache
def width(text: str) -> float:
    """Return how wide a text is at most."""
    return FONT * sum(_share(letter) for letter in text)


def place_labels(
    marks: Sequence[Mark], wishes: Sequence[tuple[int, Sequence[str]]], frame: Box, lines: Sequence[Box] = ()
) -> list[Label]:
    """Place a text for each wish, an index of `marks` with texts, the first that finds room within `frame`.

    The first wish is served first. Near its mark a text keeps off `lines`; it lies over one rather than far off. A
    number stands beside its mark or nowhere, as does any text that finds no room: the table has it too.
    """
    found: list[Label] = []
    for index, texts in wishes:
        taken = [one.box for place, one in enumerate(marks) if place != index] + [one.box for one in found]
        rooms = [_room(marks[index], text, frame, taken, lines) for text in texts]
        found += [room for room in rooms if room][:1]
    return found


def _room(mark: Mark, text: str, frame: Box, taken: Sequence[Box], lines: Sequence[Box]) -> Label | None:
    reach = DISTANCES[:1] if text.isdigit() else DISTANCES
    tries = [(distance, [*taken, *lines]) for distance in reach[:NEAR]] + [(distance, [*taken]) for distance in reach]
    for distance, kept_off in tries:
        for spot in _around(mark, text, distance):
            room = spot.box
            is_free = _within(room, frame) and not any(_overlap(room, box) for box in kept_off)
            if is_free and not _is_crossing(spot, taken):
                return spot
    return None


def _around(mark: Mark, text: str, distance: float) -> Iterator[Label]:
    apart = (RING if mark.ring else RADIUS) + distance
    leader = (mark.x, mark.y) if distance > DISTANCES[0] else None
    for right, down in DIRECTIONS:
        # Above and below, a little more, so that the text and not its middle is that far off.
        x, y = mark.x + right * apart, mark.y + down * (apart + 0.3 * FONT)
        yield Label(x=round(x, 2), y=round(y, 2), anchor=ANCHORS[right], text=text, leader=leader)


def _is_crossing(label: Label, taken: Sequence[Box]) -> bool:
    """Say whether the line to a label's mark would lead through another mark or name."""
    return any(_overlap(point, box) for point in label.way for box in taken)


def _within(box: Box, frame: Box) -> bool:
    return frame[0] <= box[0] and frame[1] <= box[1] and box[2] <= frame[2] and box[3] <= frame[3]


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _share(letter: str) -> float:
    if combining(letter):
        return 0.0
    if letter in "mwMW@%…—" or east_asian_width(letter) in "WF":
        return WIDE
    if letter in "fijlrtI.,:;'|!()[]/ -":
        return NARROW
    return CAPITAL if letter.isupper() else MOST
