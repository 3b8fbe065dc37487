"""Arrays in .npy files: mapped, not read; whole, and of the kind that is expected."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustgate.core.errors import DomainError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def images(path: Path) -> NDArray[np.uint8]:
    """Map the images (N, H, W, 3), RGB, of a file. Raises DomainError, naming it."""
    import numpy as np

    found: NDArray[np.uint8] = _mapped(path)
    if found.dtype != np.uint8 or found.ndim != 4 or found.shape[3] != 3:
        raise DomainError(f"{path}: expected images, uint8 (N, H, W, 3), got {found.dtype} {found.shape}")
    return found


def labels(path: Path, count: int, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Read the labels (N,) of `count` images, each the index of a class. Raises DomainError, naming the file."""
    import numpy as np

    found: NDArray[np.int64] = _mapped(path)
    if found.shape != (count,) or found.dtype.kind not in "iu":
        raise DomainError(f"{path}: expected {count:,} labels, whole numbers, got {found.dtype} {found.shape}")
    strange = np.flatnonzero((found < 0) | (found >= len(classes)))
    if len(strange):
        label, row = int(found[strange[0]]), strange[0]
        raise DomainError(f"{path}: expected labels from 0 to {len(classes) - 1}, got {label} at [{row}]")
    return found.astype(np.int64)


def _mapped(path: Path) -> Any:
    import numpy as np

    # NumPy reads an .npz here too, and says of a pickle that it might be loaded if one trusts it: both are refused.
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(file)
            begins = file.tell()
    except FileNotFoundError:
        raise DomainError(f"no such file: {path}") from None
    except OSError as error:
        raise DomainError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DomainError(f"{path}: not an .npy file: {error}") from error
    if dtype.hasobject:
        raise DomainError(
            f"{path}: expected an array of numbers, got pickled Python objects, which run code as they are loaded; "
            "save the arrays in it with numpy.save or numpy.savez"
        )
    expected, got = begins + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, path.stat().st_size
    if got != expected:
        raise DomainError(f"{path}: expected {expected:,} bytes for {dtype} {shape}, got {got:,}: not copied whole?")
    return np.load(path, mmap_mode="r", allow_pickle=False)
