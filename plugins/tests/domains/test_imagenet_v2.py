"""ImageNet-V2: folders are called by numbers, which are sorted as numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_trees import grown, reds, told
from PIL import Image
from torchvision import transforms

from robustgate.core.errors import DomainError
from robustgate.domains.imagenet_v2 import ImagenetV2

# As texts these are sorted 0, 1, 10, 100, 2.
NUMBERS = (100, 10, 2, 1, 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for each of NUMBERS with two images of its number's red."""
    return grown(tmp_path, {f"{number}/{name}.jpeg": number for number in NUMBERS for name in "ab"})


def load(root: Path, **parameters):
    return ImagenetV2(root=root, **{"image_size": 8, "short_side": 8, **parameters}).load("test")


def test_folders_are_sorted_as_numbers(folder: Path) -> None:
    samples = load(folder)
    assert samples.classes == ("0", "1", "2", "10", "100")
    assert told(samples) == [(str(number), number) for number in (0, 0, 1, 1, 2, 2, 10, 10, 100, 100)]


def test_a_number_is_the_place_among_the_names(folder: Path, tmp_path: Path) -> None:
    names = tuple(f"n{number:08}" for number in range(1000))
    file = folder / "wnids.txt"
    file.write_text("\n".join(names), encoding="utf-8")
    for classes in (names, file):
        samples = load(folder, classes=classes)
        assert samples.classes == names
        assert samples.labels.tolist() == reds(samples) == [0, 0, 1, 1, 2, 2, 10, 10, 100, 100]


def test_folders_that_are_none_are_named(folder: Path) -> None:
    with pytest.raises(DomainError, match=r"100: expected a number from 0 to 99: classes names 100 of them"):
        load(folder, classes=tuple(map(str, range(100))))
    (folder / "007").mkdir()
    with pytest.raises(DomainError, match=r"007: expected a class folder called by its number, 0, 1, 2, \.\.\."):
        load(folder)
    (folder / "007").rename(folder / "n01440764")
    with pytest.raises(DomainError, match=r"n01440764: expected a class folder called by its number"):
        load(folder)
    (folder / "n01440764").rename(folder / "5")
    with pytest.raises(DomainError, match=r"5: no images in it"):
        load(folder)


def test_pixels_are_those_of_the_usual_evaluation(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 411, 3), dtype=np.uint8))
    (tmp_path / "0").mkdir()
    image.save(tmp_path / "0" / "one.png")
    expected = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])(image)
    found = ImagenetV2(root=tmp_path).load("whole").read(0)
    np.testing.assert_array_equal(found, np.asarray(expected))


@pytest.mark.parametrize("split", ["train", "calibration"])
def test_it_is_a_test_set(folder: Path, split) -> None:
    with pytest.raises(DomainError, match=rf"no {split} split: .* is a test set"):
        ImagenetV2(root=folder).load(split)
    with pytest.raises(ValueError, match="image_size must be at least 1"):
        ImagenetV2(root=folder, image_size=300)
