"""Frost on a window, drawn: soft blotches, branching crystals and grain, with the statistics of five photographs."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIDE = 480
"""Pixels of a sheet's side. A sheet continues periodically."""

SEED = 1903_12261

RANKS = (0.0, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0)
"""The shares of the pixels that are darker than a sheet's `levels`."""

# A crystal: needles to both sides of a stem, as far along it and as long, in lengths of the stem.
NEEDLES = ((0.0, 0.0, 1.0), *((step / 8, side, 0.45 * (1 - step / 8)) for step in range(1, 8) for side in (-1.0, 1.0)))
# Radians between a needle and its stem, and points that each one is drawn with.
BRANCHING, POINTS = 1.0, 40


class Sheet(NamedTuple):
    """What one sheet of frost looks like.

    `levels` are its greys (0 to 255) at RANKS. A channel differs from grey by a factor (`contrast`), a shift (`tint`)
    and a second field of blotches (`stain`, its deviation). `roughness` is the exponent of the blotches' spectrum,
    `crystals` and `grain` the weights of the two beside them; there are `number` crystals of up to `length` pixels.
    """

    levels: tuple[float, ...]
    contrast: tuple[float, float, float]
    tint: tuple[float, float, float]
    stain: tuple[float, float, float]
    roughness: float
    crystals: float
    grain: float
    number: int
    length: float


TEAL = Sheet(
    levels=(82, 97, 109, 129, 155, 177, 219),
    contrast=(1.37, 0.9, 0.73),
    tint=(-53.2, 18.2, 35.0),
    stain=(10.9, -3.1, -7.8),
    roughness=2.8,
    crystals=0.35,
    grain=0.5,
    number=200,
    length=60,
)
WHITE = Sheet(
    levels=(57, 141, 177, 210, 231, 245, 254),
    contrast=(0.97, 1.0, 1.03),
    tint=(-6.1, -1.5, 7.6),
    stain=(1.6, 0.0, -1.6),
    roughness=2.8,
    crystals=0.7,
    grain=0.6,
    number=300,
    length=60,
)
GREY = Sheet(
    levels=(23, 82, 116, 152, 186, 234, 254),
    contrast=(0.98, 0.99, 1.03),
    tint=(-14.3, 0.9, 13.4),
    stain=(1.6, 0.0, -1.6),
    roughness=3.0,
    crystals=0.8,
    grain=0.8,
    number=300,
    length=40,
)
DARK = Sheet(
    levels=(26, 45, 71, 119, 183, 238, 255),
    contrast=(1.03, 1.0, 0.97),
    tint=(-11.1, -0.1, 11.2),
    stain=(1.5, 0.0, -1.5),
    roughness=2.6,
    crystals=0.7,
    grain=0.4,
    number=300,
    length=60,
)

# Two of the photographs show the same.
SHEETS = (TEAL, WHITE, WHITE, GREY, DARK)


@lru_cache(maxsize=1)
def sheets() -> NDArray[np.float32]:
    """Return the sheets (5, 3, SIDE, SIDE) in [0, 1], on 8-bit levels: the same in every process."""
    import numpy as np

    # Uniform numbers only: of these NumPy's stream is the same on all machines.
    random = np.random.Generator(np.random.PCG64(SEED))
    return np.stack([_draw(sheet, random) for sheet in SHEETS])


def _draw(sheet: Sheet, random: np.random.Generator) -> NDArray[np.float32]:
    import numpy as np

    parts = blotches(random, sheet.roughness), _crystals(random, sheet.number, sheet.length), blotches(random, 0.0)
    relief = sum(weight * part for weight, part in zip((1, sheet.crystals, sheet.grain), parts, strict=True))
    grey = np.interp(relief, np.quantile(relief, RANKS), sheet.levels)
    stain = blotches(random, sheet.roughness + 1)
    middle = grey.mean()
    colours = [
        middle + tint + contrast * (grey - middle) + spread * stain
        for contrast, tint, spread in zip(sheet.contrast, sheet.tint, sheet.stain, strict=True)
    ]
    drawn: NDArray[np.float32] = np.clip(np.round(colours), 0, 255).astype(np.float32) / np.float32(255)
    return drawn


def blotches(random: np.random.Generator, roughness: float) -> NDArray[np.float64]:
    """Return periodic noise (SIDE, SIDE) of mean 0 and deviation 1 whose power falls as frequency**-roughness."""
    import numpy as np

    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE))
    frequency[0, 0] = np.inf
    waves = (
        np.exp(2j * np.pi * random.random(frequency.shape))
        * frequency ** (-roughness / 2)
        * np.exp(-((frequency / 0.45) ** 2))
    )
    waves[0, 0] = 0
    return _standardised(np.fft.irfft2(waves, (SIDE, SIDE)))


def _crystals(random: np.random.Generator, number: int, length: float) -> NDArray[np.float64]:
    """Return (SIDE, SIDE) of mean 0 and deviation 1: `number` crystals of up to `length` pixels, strewn at random."""
    import numpy as np

    down, right, angle, size, brightness = random.random((5, number, 1, 1))
    size = length * (0.3 + 0.7 * size)
    start, side, extent = (column[:, None] for column in np.array(NEEDLES).T)
    along = extent * np.linspace(0, 1, POINTS)
    stem, needle = 2 * np.pi * angle, 2 * np.pi * angle + side * BRANCHING
    rows = down * SIDE + size * (start * np.sin(stem) + along * np.sin(needle))
    columns = right * SIDE + size * (start * np.cos(stem) + along * np.cos(needle))
    pixels = rows.astype(np.int64) % SIDE * SIDE + columns.astype(np.int64) % SIDE
    light = (0.3 + brightness) * size * extent / POINTS * (1 - along / 2)
    drawn = np.bincount(pixels.ravel(), light.ravel(), SIDE * SIDE).reshape(SIDE, SIDE)
    # Where crystals cross, ice is no brighter than it can be.
    return _standardised(np.tanh(drawn))


def _standardised(field: NDArray[np.float64]) -> NDArray[np.float64]:
    standardised: NDArray[np.float64] = (field - field.mean()) / field.std()
    return standardised
