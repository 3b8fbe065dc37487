"""Arrays of images on their way to a network: grey ones as RGB, in another size, in a black frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from robustgate.core.components import Images
from robustgate.core.images import released

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Framed:
    """RGB images made of `images`, uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3), when rows are asked for.

    They are first resized to `resize`, height and width (bilinear, where smaller antialiased), and then get `pad` black
    pixels on each side.
    """

    def __init__(self, images: Images, resize: tuple[int, int] | None, pad: int) -> None:
        height, width = resize or images.shape[1:3]
        self._images, self._resize, self._pad = released(images), resize, pad
        self.shape, self.dtype = (len(images), height + 2 * pad, width + 2 * pad, 3), images.dtype

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, rows: int | slice | Sequence[int] | NDArray[np.int64], /) -> NDArray[np.uint8]:
        import numpy as np

        found = self._images[rows]
        one = found.ndim == len(self._images.shape) - 1
        images = found[None] if one else found
        images = images[..., None] if images.ndim == 3 else images
        images = np.broadcast_to(images, (*images.shape[:3], 3))
        if self._resize is not None:
            images = _resized(images, *self._resize)
        pad = (self._pad, self._pad)
        framed = np.pad(images, ((0, 0), pad, pad, (0, 0)))
        return framed[0] if one else framed


def _resized(images: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    import numpy as np

    rows, columns = _triangles(images.shape[1], height), _triangles(images.shape[2], width)
    levels = np.einsum("hi,nijc,wj->nhwc", rows, images, columns, optimize=True)
    # A level half way between two goes up, whatever the processor's last bits: these are sums of few fractions.
    rounded: NDArray[np.uint8] = np.floor(levels + (0.5 + 1e-6)).astype(np.uint8)
    return rounded


def _triangles(length: int, new: int) -> NDArray[np.float64]:
    """Return the weights (new, length) of linear interpolation, wider where pixels become fewer."""
    import numpy as np

    scale = length / new
    places = (np.arange(new) + 0.5) * scale - 0.5
    distances = np.abs(np.arange(length) - places[:, None]) / max(scale, 1.0)
    weights = np.clip(1 - distances, 0, None)
    shares: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return shares
