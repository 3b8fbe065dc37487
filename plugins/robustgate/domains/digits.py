"""Digits in three styles, from data that installed packages carry: nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from robustgate.core.components import Samples, Split
from robustgate.core.errors import DomainError, listing, nearest
from robustgate.core.seeds import derive

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from robustgate.domains._glyphs import Shape

__all__ = ["Digits"]

Style = Literal["handwritten", "printed", "scene"]

_SIDE = 32
_CLASSES = tuple("0123456789")
_PARTS: tuple[Literal["train", "calibration", "test"], ...] = ("train", "calibration", "test")

# Which of the 1,797 scans a part draws, from and up to. Runs and no random picks: neighbours in that file are often of
# one writer's hand.
_SCANS = {
    ("handwritten", "train"): (0, 900),
    ("handwritten", "calibration"): (900, 1000),
    ("handwritten", "test"): (1000, 1500),
    ("scene", "train"): (1500, 1650),
    ("scene", "calibration"): (1650, 1680),
    ("scene", "test"): (1680, 1797),
}

# Font families by style and side of the split; calibration draws the train side's fonts anew. Families of one
# design (DejaVu Sans and its monospaced sister) stay on one side. Not used: cmmi10 (old-style figures), LastResort,
# cmex10, cmsy10, the display, the size and the non-Unicode fonts, which show other things at the digits' places.
_DEJAVU_SANS = tuple(
    f"DejaVuSans{family}{face}.ttf" for family in ("", "Mono") for face in ("", "-Bold", "-Oblique", "-BoldOblique")
)
_DEJAVU_SERIF = tuple(f"DejaVuSerif{face}.ttf" for face in ("", "-Bold", "-Italic", "-BoldItalic"))
_STIX = tuple(f"STIXGeneral{face}.ttf" for face in ("", "Bol", "Italic", "BolIta"))
_COMPUTER_MODERN = ("cmr10.ttf", "cmb10.ttf", "cmti10.ttf")
_FONTS = {
    ("printed", "train"): (*_DEJAVU_SANS, *_COMPUTER_MODERN),
    ("printed", "test"): _DEJAVU_SERIF,
    ("scene", "train"): (*_STIX, "cmtt10.ttf"),
    ("scene", "test"): ("cmss10.ttf",),
}
# How many images a part draws from fonts: its files in turn, all ten digits of each.
_PRINTED = {
    ("printed", "train"): 1000,
    ("printed", "calibration"): 100,
    ("printed", "test"): 500,
    ("scene", "train"): 850,
    ("scene", "calibration"): 70,
    ("scene", "test"): 350,
}
# Columns of the two photographs (427 high, 640 wide) that lie behind a part's digits.
_COLUMNS = {"train": (0, 330), "calibration": (330, 430), "test": (430, 640)}
_PHOTOGRAPHS = ("china.jpg", "flower.jpg")
# How the digits are drawn decides how far a network carries from one style to another. Alike in box, polarity and
# blur, and differing in the following, a network of 75,000 parameters gets 60 to 92 % on the other styles.
# Least and greatest height of a digit in pixels, and how far width, slant, weight and place sway about their middle.
_HEIGHTS = {"handwritten": (17.75, 25.25), "printed": (11.5, 25.0), "scene": (20.0, 23.0)}
_SWAY = {"handwritten": 1.5, "printed": 1.8, "scene": 0.6}


@dataclass(frozen=True, kw_only=True)
class Digits:
    """Digits 0 to 9 on 32x32 pixels, dark on light, drawn alike in all three styles.

    - ``handwritten``: scikit-learn's optical scans, in ink on paper.
    - ``printed``: the font families that matplotlib ships, varied in weight, slant, size and place.
    - ``scene``: scans and fonts in colour, blended over faint patches of scikit-learn's two photographs.

    No scan, no font family and no part of a photograph stands on both sides of the split, nor in two styles:
    a network that is tested on another style has seen nothing of it. ``calibration`` shares fonts with ``train``,
    but no scan and no drawing. Every image is a function of its name alone.
    """

    style: Style

    def __post_init__(self) -> None:
        styles = get_args(Style)
        if self.style not in styles:
            raise ValueError(f"style must be one of {listing(styles)}, got {self.style!r}{nearest(self.style, styles)}")

    def load(self, split: Split) -> Samples:
        """Return the samples of a split; ``whole`` is train, calibration and test in this order."""
        splits = get_args(Split)
        if split not in splits:
            raise DomainError(
                f"digits/{self.style}: split must be one of {listing(splits)}, got {split!r}{nearest(split, splits)}"
            )
        return _whole(self.style) if split == "whole" else _part(self.style, split)


class _Sketch(NamedTuple):
    """What one image is to show."""

    name: str
    digit: int
    shape: Shape


@cache
def _whole(style: Style) -> Samples:
    import numpy as np

    parts = [_part(style, split) for split in _PARTS]
    return _frozen(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
        tuple(name for part in parts for name in part.names),
    )


@cache
def _part(style: Style, split: Literal["train", "calibration", "test"]) -> Samples:
    import numpy as np

    sketches = [*_from_scans(style, split), *_from_fonts(style, split)]
    draws = [np.random.default_rng(derive(0, "digits", sketch.name)) for sketch in sketches]
    ink = _ink([sketch.shape for sketch in sketches], draws, _HEIGHTS[style], _SWAY[style])
    if style == "scene":
        images, places = _on_photograph(ink, draws, split)
        names = [f"{sketch.name} on {place}" for sketch, place in zip(sketches, places, strict=True)]
    else:
        images, names = _on_paper(ink, draws), [sketch.name for sketch in sketches]
    return _frozen(
        np.round(images * 255).astype(np.uint8),
        np.array([sketch.digit for sketch in sketches], dtype=np.int64),
        tuple(names),
    )


def _frozen(images: NDArray[np.uint8], labels: NDArray[np.int64], names: tuple[str, ...]) -> Samples:
    # The same arrays go to every caller.
    images.flags.writeable = False
    labels.flags.writeable = False
    return Samples(images=images, labels=labels, classes=_CLASSES, names=names)


def _from_scans(style: str, split: str) -> list[_Sketch]:
    if (style, split) not in _SCANS:
        return []
    from sklearn.datasets import load_digits

    from robustgate.domains._glyphs import scan_shapes

    first, end = _SCANS[style, split]
    scans = load_digits()
    shapes = scan_shapes(scans.images[first:end])
    numbers = range(first, end)
    return [
        _Sketch(f"{style}/scan-{number:04d}", int(scans.target[number]), shape)
        for number, shape in zip(numbers, shapes, strict=True)
    ]


def _from_fonts(style: str, split: str) -> list[_Sketch]:
    from robustgate.domains._glyphs import font_shape

    files = _FONTS.get((style, "train" if split == "calibration" else split), ())
    sketches = []
    shapes: dict[tuple[str, int], Shape] = {}
    for number in range(_PRINTED.get((style, split), 0)):
        file, digit = files[number // 10 % len(files)], number % 10
        if (file, digit) not in shapes:
            shapes[file, digit] = font_shape(file, digit)
        name = f"{style}/{file.removesuffix('.ttf')}/{digit}/{split}-{number:04d}"
        sketches.append(_Sketch(name, digit, shapes[file, digit]))
    return sketches


def _uniform(draws: list[np.random.Generator], low: float, high: float, *shape: int) -> NDArray[np.float64]:
    """Return (N, *shape) numbers, each row from its own stream."""
    import numpy as np

    return np.stack([draw.uniform(low, high, shape) for draw in draws])


def _ink(
    shapes: list[Shape], draws: list[np.random.Generator], heights: tuple[float, float], sway: float
) -> NDArray[np.float64]:
    """Return how far ink covers each pixel (N, 32, 32), in [0, 1]: boxes alike, then size, slant, weight, place."""
    import numpy as np

    boxes = np.array([shape.box for shape in shapes], dtype=np.float64)
    canvas = np.stack([shape.depth for shape in shapes])
    height = _uniform(draws, *heights)
    stretch = 1.0 + sway * _uniform(draws, -0.15, 0.15)
    slant = sway * _uniform(draws, -0.2, 0.2)
    weight = 0.15 + sway * _uniform(draws, -0.35, 0.35)
    softness = _uniform(draws, 1.2, 2.2)
    place = sway * _uniform(draws, -2.0, 2.0, 2)

    scale = height / (boxes[:, 3] - boxes[:, 1])
    grid = np.arange(_SIDE) + 0.5 - _SIDE / 2
    across = np.broadcast_to(grid[None, None, :] - place[:, :1, None], (len(shapes), _SIDE, _SIDE))
    down = np.broadcast_to(grid[None, :, None] - place[:, 1:, None], across.shape)
    across = (across + slant[:, None, None] * down) / stretch[:, None, None]
    x = across / scale[:, None, None] + ((boxes[:, 0] + boxes[:, 2]) / 2)[:, None, None]
    y = down / scale[:, None, None] + ((boxes[:, 1] + boxes[:, 3]) / 2)[:, None, None]
    depth = _interpolate(canvas, x - 0.5, y - 0.5) * scale[:, None, None]
    covered: NDArray[np.float64] = np.clip(0.5 + (depth + weight[:, None, None]) / softness[:, None, None], 0.0, 1.0)
    return covered


def _interpolate(canvas: NDArray[np.float32], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the canvases (N, H, W) at pixel coordinates (N, h, w), bilinear, edges continued."""
    import numpy as np

    last = canvas.shape[1] - 1
    x, y = np.clip(x, 0, last), np.clip(y, 0, last)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, bottom = np.minimum(left + 1, last), np.minimum(top + 1, last)
    row = np.arange(len(canvas))[:, None, None]
    upper = canvas[row, top, left] * (1 - x + left) + canvas[row, top, right] * (x - left)
    lower = canvas[row, bottom, left] * (1 - x + left) + canvas[row, bottom, right] * (x - left)
    result: NDArray[np.float64] = upper * (1 - y + top) + lower * (y - top)
    return result


def _on_paper(ink: NDArray[np.float64], draws: list[np.random.Generator]) -> NDArray[np.float64]:
    """Return RGB images (N, 32, 32, 3) in [0, 1]: dark ink on light paper, both slightly tinted."""
    paper = _uniform(draws, 0.82, 0.97)[:, None, None, None] + _uniform(draws, -0.03, 0.03, 1, 1, 3)
    pen = _uniform(draws, 0.03, 0.25)[:, None, None, None] + _uniform(draws, -0.03, 0.03, 1, 1, 3)
    return paper + ink[..., None] * (pen - paper)


def _on_photograph(
    ink: NDArray[np.float64], draws: list[np.random.Generator], split: str
) -> tuple[NDArray[np.float64], list[str]]:
    """Return RGB images (N, 32, 32, 3) in [0, 1] with ink in colour over faint patches, and each patch's place."""
    import numpy as np
    from sklearn.datasets import load_sample_image

    photographs = [load_sample_image(name) for name in _PHOTOGRAPHS]
    first, end = _COLUMNS[split]
    patches, places = [], []
    for draw in draws:
        which, fold = int(draw.integers(len(photographs))), int(draw.integers(1, 4))
        side = _SIDE * fold
        top = int(draw.integers(photographs[which].shape[0] - side + 1))
        left = int(draw.integers(first, end - side + 1))
        patch = photographs[which][top : top + side, left : left + side]
        patches.append(patch.reshape(_SIDE, fold, _SIDE, fold, 3).mean(axis=(1, 3)) / 255)
        places.append(f"{_PHOTOGRAPHS[which]} {side}x{side}+{left}+{top}")
    photograph = np.stack(patches)
    contrast = _uniform(draws, 0.25, 0.5)[:, None, None, None]
    light = _uniform(draws, 0.65, 0.85)[:, None, None, None]
    behind = np.clip(light + contrast * (photograph - photograph.mean(axis=(1, 2, 3), keepdims=True)), 0.0, 1.0)
    colour = _uniform(draws, 0.0, 0.4, 1, 1, 3)
    opacity = _uniform(draws, 0.8, 0.95)[:, None, None, None]
    return behind + ink[..., None] * opacity * (colour - behind), places
