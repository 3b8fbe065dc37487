"""Image folders: every image in one split, the pixels that torchvision's loader shows, and bad files named."""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from robustgate.core.components import Encoded
from robustgate.core.errors import DomainError
from robustgate.domains.image_folder import ImageFolder
from robustgate.engine.data import Library
from robustgate.engine.store import Store

# A folder's listing is in no order; sorted, upper case comes first.
CLASSES = ("zebra", "ant", "Bee")
RED, GREEN = (200, 30, 60), (10, 180, 90)


def picture(size: tuple[int, int] = (8, 8), colour: tuple[int, ...] = RED, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, colour)


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """Three classes of 7, 10 and 13 images; each image's red says its class."""
    for label, (name, count) in enumerate(zip(CLASSES, (7, 10, 13), strict=True)):
        (tmp_path / name).mkdir()
        for index in range(count):
            picture(colour=(label, 0, index)).save(tmp_path / name / f"{index:02}.png")
    return tmp_path


def only(folder: Path, image: Image.Image, name: str = "one.png", **options) -> Path:
    (folder / "thing").mkdir(exist_ok=True)
    image.save(folder / "thing" / name, **options)
    return folder


def decoded(domain: ImageFolder) -> np.ndarray:
    """Decode the whole of a domain as the engine does."""
    with tempfile.TemporaryDirectory() as folder:
        return Library({"things": domain}, Store(Path(folder))).samples("things", "whole").images[:]


def pixels(root: Path, **parameters) -> np.ndarray:
    (image,) = decoded(ImageFolder(root=root, **{"image_size": 8, **parameters}))
    return image


def test_classes_are_sorted_and_labels_follow_the_folders(animals: Path) -> None:
    (animals / "notes.txt").write_text("beside the classes")
    (animals / "ant" / "notes.txt").write_text("beside the images")
    domain = ImageFolder(root=animals, image_size=8)
    whole, images = domain.load("whole"), decoded(domain)
    assert whole.classes == ("Bee", "ant", "zebra")
    assert np.bincount(whole.labels).tolist() == [13, 10, 7]
    assert [CLASSES[red] for red in images[:, 0, 0, 0]] == [whole.classes[label] for label in whole.labels]
    assert whole.names[:2] == ("Bee/00.png", "Bee/01.png")
    assert [int(name[-6:-4]) for name in whole.names] == images[:, 0, 0, 2].tolist()
    assert (images.dtype, images.shape, whole.labels.dtype) == (np.uint8, (30, 8, 8, 3), np.int64)


def split_names(domain: ImageFolder) -> dict[str, tuple[str, ...]]:
    return {split: domain.load(split).names for split in ("train", "calibration", "test")}


def counts(samples: Encoded) -> list[int]:
    return np.bincount(samples.labels, minlength=3).tolist()


def test_splits_are_disjoint_complete_and_hold_their_shares(animals: Path) -> None:
    domain = ImageFolder(root=animals, image_size=8, splits={"train": 0.5, "calibration": 0.2, "test": 0.3})
    names = split_names(domain)
    together = [name for split in names.values() for name in split]
    assert sorted(together) == sorted(domain.load("whole").names)
    assert len(set(together)) == 30
    # 0.5 and 0.7 of 13, 10 and 7 images: the ends of train and calibration, to the nearest image.
    assert [counts(domain.load(split)) for split in names] == [[6, 5, 4], [3, 2, 1], [4, 3, 2]]


def test_a_split_does_not_follow_the_order_of_the_names_nor_change_with_another_class(animals: Path) -> None:
    domain = ImageFolder(root=animals, image_size=8)
    before = split_names(domain)
    bees = [name for name in before["train"] if name.startswith("Bee")]
    assert bees != [f"Bee/{index:02}.png" for index in range(len(bees))]
    only(animals, picture())
    after = split_names(domain)
    assert all(set(before[split]) == {n for n in after[split] if not n.startswith("thing")} for split in before)


def test_an_empty_split_is_an_error(animals: Path) -> None:
    domain = ImageFolder(root=animals, image_size=8, splits={"test": 1.0})
    assert len(domain.load("test")) == 30
    with pytest.raises(DomainError, match=r"no images in the train split \(shares: {'test': 1.0}\)"):
        domain.load("train")


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("LA", (77, 0), (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (*RED, 128), RED),
        ("RGBA", (*RED, 0), RED),
    ],
)
def test_grey_and_transparent_images_become_rgb(tmp_path: Path, mode: str, colour, expected) -> None:
    assert (pixels(only(tmp_path, picture(colour=colour, mode=mode))) == expected).all()


@pytest.mark.parametrize("transparency", [None, b"\x00\x80"])
def test_palettes_become_rgb_without_a_warning(tmp_path: Path, transparency: bytes | None) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([*RED, *GREEN])
    image.paste(1, (4, 0, 8, 8))
    found = pixels(only(tmp_path, image, **{} if transparency is None else {"transparency": transparency}))
    assert (found[:, :4] == RED).all()
    assert (found[:, 4:] == GREEN).all()


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    found = pixels(only(tmp_path, picture(colour=(255, 0, 0, 0), mode="CMYK"), "one.jpg", quality=100))
    np.testing.assert_allclose(found.astype(int), np.broadcast_to((0, 255, 255), (8, 8, 3)), atol=2)


@pytest.mark.parametrize(("mode", "dtype"), [("I;16", np.uint16), ("F", np.float32)])
def test_deeper_images_are_refused_not_clipped(tmp_path: Path, mode: str, dtype: type) -> None:
    image = Image.fromarray(np.full((8, 8), 40_000, dtype))
    with pytest.raises(DomainError, match=rf"one\.tif: cannot .*expected 8 bits a channel, got Pillow's mode '{mode}'"):
        pixels(only(tmp_path, image, "one.tif"))


def test_sixteen_bit_colours_are_refused_not_cut_off(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)  # 8 x 8 pixels of 3 x 16 bits
    data = zlib.compress(8 * (b"\0" + bytes(range(48))))
    folder = tmp_path / "thing"
    folder.mkdir()
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b""))
    (folder / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    with pytest.raises(DomainError, match=r"deep\.png: cannot be .*: expected 8 bits a channel, got 16 \(RGB\)"):
        pixels(tmp_path)


def turned(suffix: str) -> tuple[Image.Image, dict[str, Image.Exif]]:
    """A picture, green on top, and what says that it must be turned by half a circle."""
    image = picture((16, 16))
    image.paste(GREEN, (0, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = 3
    return image, {"exif": exif} | ({"quality": 100, "subsampling": 0} if suffix == "jpg" else {})


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_orientation_is_ignored_as_torchvision_does_unless_asked_for(tmp_path: Path, suffix: str) -> None:
    image, options = turned(suffix)
    only(tmp_path, image, f"one.{suffix}", **options)
    for exif, top, bottom in (({}, GREEN, RED), ({"exif": "ignore"}, GREEN, RED), ({"exif": "apply"}, RED, GREEN)):
        found = pixels(tmp_path, image_size=16, **exif).astype(int)
        assert np.abs(found[1:7] - top).max() < 40
        assert np.abs(found[9:15] - bottom).max() < 40


def test_what_decoding_depends_on_is_part_of_the_identity(tmp_path: Path) -> None:
    only(tmp_path, picture((16, 16)))
    ways = [{}, {"image_size": 9}, {"short_side": 12}, {"exif": "apply"}]
    found = [ImageFolder(root=tmp_path, **{"image_size": 8, **way}).load("whole").identity for way in ways]
    assert len(set(found)) == 4
    file = tmp_path / "thing" / "one.png"
    moved = file.rename(file.with_name("two.png"))
    os.utime(moved, (0, 0))
    # A fresh clone has other times: the contents alone count.
    assert ImageFolder(root=tmp_path, image_size=8).load("whole").identity == found[0]
    only(tmp_path, picture((16, 16), colour=GREEN), "two.png")
    assert ImageFolder(root=tmp_path, image_size=8).load("whole").identity != found[0]


def test_the_centre_is_cut_out(tmp_path: Path) -> None:
    image = picture((24, 8))
    image.paste(GREEN, (8, 0, 16, 8))
    assert (pixels(only(tmp_path, image)) == GREEN).all()
    assert (pixels(only(tmp_path, image.transpose(Image.Transpose.ROTATE_90))) == GREEN).all()
    # The short side becomes 16, the middle third is 16 wide: 4 of 8 pixels inside it stay green.
    framed = pixels(tmp_path, short_side=16, image_size=16)
    assert (framed[4:12, 4:12] == GREEN).all()


def test_pixels_are_those_of_torchvision(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for width, height, side, short in [
        (33, 20, 7, None),
        (20, 33, 7, 9),
        (3, 5, 8, 13),
        (47, 47, 16, 17),
        (9, 70, 8, 8),
    ]:
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        expected = transforms.Compose([transforms.Resize(short or side), transforms.CenterCrop(side)])(image)
        found = pixels(only(tmp_path, image), image_size=side, short_side=short)
        np.testing.assert_array_equal(found, np.asarray(expected), err_msg=f"{width}x{height} to {side}, {short}")


@pytest.mark.parametrize("content", [b"", b"hello", b"P6 8 8 2x5\n" + bytes(192)], ids=["empty", "text", "header"])
def test_what_is_no_image_is_named(animals: Path, content: bytes) -> None:
    (animals / "ant" / "99.ppm").write_bytes(content)
    with pytest.raises(DomainError, match=r"ant/99\.ppm: cannot be decoded as an image: "):
        decoded(ImageFolder(root=animals, image_size=8))


@pytest.mark.parametrize("damage", ["head", "tables"])
def test_a_corrupt_jpeg_is_named(tmp_path: Path, damage: str) -> None:
    only(tmp_path, Image.effect_noise((64, 64), 60).convert("RGB"), "bad.jpg")
    file = tmp_path / "thing" / "bad.jpg"
    content = file.read_bytes()
    start = {"head": 2, "tables": content.index(b"\xff\xdb")}[damage]
    file.write_bytes(content[:start] + bytes(2) + content[start + 2 :])
    with pytest.raises(DomainError, match=r"thing/bad\.jpg: cannot be decoded as an image: "):
        pixels(tmp_path)


def test_the_first_bad_file_in_order_is_named(animals: Path) -> None:
    for name in ("zebra/03.png", "ant/07.png", "ant/02.png"):
        (animals / name).write_bytes(b"no image")
    with pytest.raises(DomainError, match=r"domains\.things: .*ant/02\.png: cannot be decoded"):
        decoded(ImageFolder(root=animals, image_size=8))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_a_truncated_image_is_named(tmp_path: Path, suffix: str) -> None:
    only(tmp_path, Image.effect_noise((64, 64), 60).convert("RGB"), f"cut.{suffix}")
    file = tmp_path / "thing" / f"cut.{suffix}"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DomainError, match=rf"thing/cut\.{suffix}: cannot be decoded"):
        pixels(tmp_path)


def test_folders_without_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(DomainError, match="nowhere: no such folder; expected one folder a class below it"):
        ImageFolder(root=tmp_path / "nowhere", image_size=8).load("test")
    with pytest.raises(DomainError, match="no class folders in it"):
        ImageFolder(root=tmp_path, image_size=8).load("test")
    (tmp_path / "ant" / "deeper").mkdir(parents=True)
    (tmp_path / "ant" / "notes.txt").write_text("no image")
    with pytest.raises(DomainError, match=r"ant: no images in it \(known suffixes: \.bmp, "):
        ImageFolder(root=tmp_path, image_size=8).load("test")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"image_size": 0}, "image_size must be at least 1"),
        ({"image_size": 8, "short_side": 7}, "short_side not below it"),
        ({"image_size": 8, "splits": {"train": 0.8, "test": 0.1}}, "splits must be shares that add up to 1"),
        ({"image_size": 8, "splits": {"train": 1.2, "test": -0.2}}, "splits must be shares"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageFolder(root=Path("x"), **parameters)


def test_amazon_of_office_has_its_published_size(real_data: Path) -> None:
    amazon = ImageFolder(root=real_data / "office_caltech10_96" / "amazon", image_size=32)
    sizes = {split: len(amazon.load(split)) for split in ("train", "calibration", "test")}
    whole = amazon.load("whole")
    assert (len(whole), len(whole.classes), whole.classes[0]) == (958, 10, "backpack")
    assert sum(sizes.values()) == 958
    assert abs(sizes["train"] - 0.8 * 958) <= 5
    assert set(amazon.load("test").labels.tolist()) == set(range(10))
