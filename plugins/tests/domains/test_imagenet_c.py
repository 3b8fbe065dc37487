"""ImageNet-C trees: with and without the group's folder, cut but never resized."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_trees import grown, told
from PIL import Image

from robustgate.core.errors import DomainError
from robustgate.domains.imagenet_c import ImagenetC

TREE = {
    "fog/3/n02/b.JPEG": 4,
    "fog/3/n02/a.JPEG": 3,
    "fog/3/n01/z.JPEG": 1,
    "fog/5/n01/z.JPEG": 9,
    "frost/3/n01/z.JPEG": 8,
}
GROUPED = {f"weather/{place}": red for place, red in TREE.items()}


@pytest.mark.parametrize("tree", [TREE, GROUPED], ids=["flat", "grouped"])
def test_a_corruption_at_a_severity_is_its_folder(tmp_path: Path, tree) -> None:
    domain = ImagenetC(root=grown(tmp_path, tree), image_size=8)
    samples = domain.corrupted("fog", 3)
    assert samples.classes == ("n01", "n02")
    assert told(samples) == [("n01", 1), ("n02", 3), ("n02", 4)]
    assert samples.names[0].endswith("fog/3/n01/z.JPEG")
    assert told(domain.corrupted("fog", 5)) == [("n01", 9)]


def test_groups_and_a_flat_folder_may_stand_side_by_side(tmp_path: Path) -> None:
    grown(tmp_path, {"digital/jpeg_compression/1/n01/a.JPEG": 1, "noise/shot_noise/1/n01/a.JPEG": 2})
    domain = ImagenetC(root=grown(tmp_path, {"fog/1/n01/a.JPEG": 3}), image_size=8)
    found = [domain.corrupted(name, 1) for name in ("jpeg_compression", "shot_noise", "fog")]
    assert [told(samples) for samples in found] == [[("n01", 1)], [("n01", 2)], [("n01", 3)]]


def test_the_centre_is_cut_out_and_nothing_is_resized(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (230, 226, 3), dtype=np.uint8)
    file = next(iter(TREE))
    grown(tmp_path, {file: 0})
    Image.fromarray(pixels).save(tmp_path / file, format="PNG")
    samples = ImagenetC(root=tmp_path).corrupted("fog", 3)
    assert samples.size == (224, 224)
    np.testing.assert_array_equal(samples.read(0), pixels[3:227, 1:225])


def test_an_image_that_is_too_small_is_named_not_padded(tmp_path: Path) -> None:
    samples = ImagenetC(root=grown(tmp_path, TREE)).corrupted("fog", 5)
    with pytest.raises(DomainError, match=r"z\.JPEG: expected at least 224 x 224 pixels, got 8 x 8"):
        samples.read(0)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    domain = ImagenetC(root=grown(tmp_path, GROUPED), image_size=8)
    assert domain.missing("fog", 3) is None
    for corruption, severity, message in (
        ("fogg", 3, f"no such folder: {tmp_path}/fogg (did you mean 'fog'?); there: fog, frost"),
        ("fog", 4, f"no such folder: {tmp_path}/weather/fog/4"),
    ):
        assert domain.missing(corruption, severity) == message
        with pytest.raises(DomainError) as raised:
            domain.corrupted(corruption, severity)
        assert str(raised.value) == message
    assert "there: (none)" in (ImagenetC(root=tmp_path / "nowhere").missing("fog", 1) or "")


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    domain = ImagenetC(root=grown(tmp_path, TREE), image_size=8)
    (tmp_path / "fog/3/n015").mkdir()
    with pytest.raises(DomainError, match=r"fog/3/n015: no images in it"):
        domain.corrupted("fog", 3)


def test_it_has_no_clean_images_and_says_what_it_is_for(tmp_path: Path) -> None:
    with pytest.raises(
        DomainError, match=r"no whole split; to measure on them, name this domain in shifts\.corruptions"
    ):
        ImagenetC(root=tmp_path).load("whole")
    with pytest.raises(ValueError, match="image_size must be at least 1"):
        ImagenetC(root=tmp_path, image_size=0)
