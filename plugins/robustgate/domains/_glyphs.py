"""Shapes of digits, from fonts and from scans, in one form that can be drawn at any size, slant and weight.

A font's outline is rasterised here, unhinted, so that no pixel hangs on FreeType's version.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from robustgate.core.errors import DomainError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CANVAS = 96
"""Side of a shape's canvas."""
HEIGHT = 64
"""Height of a font's digit on it; a scan's digit is about as high."""
_SCAN = 8
_MARGIN = 2


@dataclass(frozen=True)
class Shape:
    """One digit on a square canvas of side CANVAS.

    `depth` (CANVAS, CANVAS) is the distance in canvas pixels to the digit's edge, above 0 in the ink; `box` is the
    ink's left, top, right and bottom.
    """

    depth: NDArray[np.float32]
    box: tuple[int, int, int, int]


def font_shape(file: str, digit: int) -> Shape:
    """Return a digit as a font file that matplotlib ships draws it. Raises DomainError."""
    import numpy as np
    from matplotlib import get_data_path
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath
    from scipy.ndimage import distance_transform_edt

    path = Path(get_data_path(), "fonts", "ttf", file)
    if not path.is_file():
        raise DomainError(f"digits: matplotlib's font file {path} is missing")
    outline = TextPath((0, 0), str(digit), size=100, prop=FontProperties(fname=path))
    polygons = [np.asarray(polygon) * np.array([1.0, -1.0]) for polygon in outline.to_polygons()]
    points = np.concatenate(polygons)
    low, high = points.min(axis=0), points.max(axis=0)
    scale = HEIGHT / (high[1] - low[1])
    ink = _fill([(polygon - (low + high) / 2) * scale + CANVAS / 2 for polygon in polygons])
    depth = distance_transform_edt(ink) - distance_transform_edt(~ink)
    # The nearest pixel of the other kind begins half a pixel nearer than its centre lies.
    depth -= np.sign(depth) / 2
    return Shape(depth.astype(np.float32), _box(ink))


def scan_shapes(scans: NDArray[np.float64]) -> list[Shape]:
    """Return the digits of scans (N, 8, 8), 0 to 16, whose pixels count the ink of 4x4 finer ones."""
    import numpy as np

    enlarge = _cubic_enlargement()
    padded = np.pad(scans / 16.0, ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN)))
    levels = enlarge @ padded @ enlarge.T
    # Across an edge the level falls from 1 to 0 within about one pixel of the scan.
    depths = ((levels - 0.5) * (HEIGHT / _SCAN)).astype(np.float32)
    return [Shape(depth, _box(depth > 0)) for depth in depths]


def _fill(polygons: list[NDArray[np.float64]]) -> NDArray[np.bool_]:
    """Return which pixels' centres lie within closed polygons in (x, y), by the non-zero winding rule."""
    import numpy as np

    starts = np.concatenate([polygon[:-1] for polygon in polygons])
    ends = np.concatenate([polygon[1:] for polygon in polygons])
    rows = np.arange(CANVAS) + 0.5
    up = (starts[:, 1] <= rows[:, None]) & (ends[:, 1] > rows[:, None])
    down = (starts[:, 1] > rows[:, None]) & (ends[:, 1] <= rows[:, None])
    winding = np.zeros((CANVAS, CANVAS + 1), dtype=np.int64)
    row, edge = np.nonzero(up | down)
    start, end = starts[edge], ends[edge]
    crossing = start[:, 0] + (rows[row] - start[:, 1]) / (end[:, 1] - start[:, 1]) * (end[:, 0] - start[:, 0])
    column = np.clip(np.ceil(crossing - 0.5), 0, CANVAS).astype(np.int64)
    np.add.at(winding, (row, column), np.where(up[row, edge], 1, -1))
    filled: NDArray[np.bool_] = np.cumsum(winding[:, :CANVAS], axis=1) != 0
    return filled


@cache
def _cubic_enlargement() -> NDArray[np.float64]:
    """Return the matrix (CANVAS, CANVAS / 8) of cubic interpolation (Keys 1981, a = -1/2)."""
    import numpy as np

    pixels = _SCAN + 2 * _MARGIN
    places = (np.arange(CANVAS) + 0.5) / (CANVAS / pixels) - 0.5
    distance = np.abs(places[:, None] - np.arange(pixels)[None, :])
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights: NDArray[np.float64] = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    return weights


def _box(ink: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    import numpy as np

    rows = np.flatnonzero(ink.any(axis=1))
    columns = np.flatnonzero(ink.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
