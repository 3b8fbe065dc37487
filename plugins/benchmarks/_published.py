"""The package `imagecorruptions` in an environment of its own: it needs NumPy, scikit-image and setuptools of old."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Those that the package works with; none of them asks for others at run time.
REQUIREMENTS = (
    "imagecorruptions==1.1.2",
    "numpy==1.23.5",
    "scipy==1.10.1",
    "scikit-image==0.20.0",
    "opencv-python-headless==4.8.1.78",
    "pillow==10.4.0",
    "numba==0.59.1",
    "llvmlite==0.42.0",
    "setuptools==69.5.1",
    "imageio==2.34.2",
    "tifffile==2023.7.10",
    "PyWavelets==1.4.1",
    "networkx==3.2.1",
    "lazy_loader==0.4",
    "packaging==24.1",
)
ENVIRONMENT = Path.home() / ".cache" / "robustgate" / "benchmarks" / "imagecorruptions-1.1.2"
PYTHONS = ("python3.11", "python3.10", "python3.9")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def environment(folder: Path = ENVIRONMENT) -> Path:
    """Return the Python of the package's environment, made where it is not there yet.

    Raises SystemExit where no old enough Python is found: the package's NumPy has no wheels for newer ones.
    """
    python = folder / "bin" / "python"
    if (folder / "ready").is_file():
        return python
    old = sys.executable if sys.version_info < (3, 12) else next(filter(None, map(shutil.which, PYTHONS)), None)
    if old is None:
        raise SystemExit(f"imagecorruptions needs one of {', '.join(PYTHONS)}, and none is on the path")
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([old, "-m", "venv", str(folder)], check=True)
    # Wheels alone: what has none for this Python would be compiled for minutes, and fail.
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*install, "--disable-pip-version-check", *REQUIREMENTS], check=True)
    (folder / "ready").touch()
    return python


class Published:
    """The package at work in a process of one thread; a context."""

    def __init__(self) -> None:
        command = [str(environment()), str(Path(__file__).with_name("_published_driver.py"))]
        single = {**os.environ, **dict.fromkeys(THREADS, "1")}
        single.pop("PYTHONPATH", None)
        self._folder = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=single)

    def __enter__(self) -> Published:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def corrupt(
        self, images: NDArray[np.uint8], name: str, severity: int, draws: int = 1, seed: int = 0
    ) -> NDArray[np.uint8]:
        """Return uint8 (draws, N, H, W, 3): every image corrupted `draws` times. The values are those for 224 px."""
        to = Path(self._folder.name) / "corrupted.npy"
        self._ask("write", images, name, severity, draws=draws, seed=seed, to=str(to))
        made: NDArray[np.uint8] = np.load(to, allow_pickle=False)
        return made

    def per_second(self, images: NDArray[np.uint8], name: str, severity: int, seconds: float) -> float:
        """Return how many images a second it corrupts, called image by image as its users do."""
        return float(self._ask("rate", images, name, severity, seconds=seconds)["per_s"])

    def _ask(self, do: str, images: NDArray[np.uint8], name: str, severity: int, **more: Any) -> dict[str, Any]:
        place = Path(self._folder.name) / "images.npy"
        np.save(place, images)
        request = {"do": do, "images": str(place), "name": name, "severity": severity, **more}
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the package's process has no pipes")
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{name} at severity {severity}: the package's process ended; see its error above")
        reply: dict[str, Any] = json.loads(answer)
        return reply
