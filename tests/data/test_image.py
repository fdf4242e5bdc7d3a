from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from noise_image import write_noise
from PIL import ExifTags, Image

from rga_timm.data import (
    ImageCache,
    ReidDataset,
    ReidImage,
    ReidReader,
    ReidSplits,
    UnreadableImageError,
    find_bad_images,
    load_image,
    skip_bad_images,
)
from rga_timm.data.checks import check_images, inspect_images
from rga_timm.data.image import decode
from rga_timm.report_page.pictures import read_picture


def grey(high: int = 256, low: int = 0) -> np.ndarray:
    """(32, 16) whole numbers from low to high - 1, all of them if there is room."""
    steps = np.linspace(low, high - 1, 32 * 16)
    return np.random.default_rng(0).permutation(steps).reshape(32, 16).round().astype(np.uint8)


def decoded(values: np.ndarray, folder: Path, name: str) -> np.ndarray:
    """One channel of an image with these values, as it is read back."""
    Image.fromarray(values).save(folder / name)
    image = load_image(folder / name)
    assert (image.mode, image.size) == ("RGB", (16, 32))
    channels = np.asarray(image).astype(int)
    assert np.ptp(channels, axis=2).max() == 0
    return channels[..., 0]


# Depth


@pytest.mark.faults
@pytest.mark.parametrize("extension", ["png", "tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_whole_numbers_of_more_bits_are_scaled_to_8(tmp_path, extension, bits):
    highest = 2**bits - 1
    values = (grey() / 255 * highest).round().astype(np.uint16)
    assert np.array_equal(decoded(values, tmp_path, f"a.{extension}"), grey())


@pytest.mark.faults
def test_an_image_that_does_not_reach_white_stays_so_dark(tmp_path):
    values = grey(high=120).astype(np.uint16)
    assert np.array_equal(decoded(values * 257, tmp_path, "a.png"), grey(high=120))
    assert abs(decoded(values * 256, tmp_path, "b.png") - grey(high=120)).max() <= 1


@pytest.mark.faults
@pytest.mark.parametrize("scale", [1, 1 / 255, 1 / 65535])
def test_floats_are_scaled_by_their_range(tmp_path, scale):
    values = (grey() * scale).astype(np.float32)
    assert abs(decoded(values, tmp_path, "a.tif") - grey()).max() <= 1


@pytest.mark.faults
def test_values_of_no_usual_range_are_stretched_from_the_lowest_to_the_highest(tmp_path):
    for values in (
        grey().astype(np.int32) * 1000 - 90_000,
        grey().astype(np.int32) * 300,
        (grey() / 100 - 1.2).astype(np.float32),
        (grey() / 240).astype(np.float32),  # a little more than 1
    ):
        assert abs(decoded(values, tmp_path, "a.tif") - grey()).max() <= 1


@pytest.mark.faults
def test_pixels_that_are_no_numbers_are_black_and_an_image_of_them_is_unreadable(tmp_path):
    values = (grey() / 255).astype(np.float32)
    values[3, 4], values[5, 6] = np.nan, np.inf
    found = decoded(values, tmp_path, "a.tif")
    assert found[3, 4] == found[5, 6] == 0
    assert (np.abs(found - grey()) > 1).sum() <= 2
    with pytest.raises(UnreadableImageError, match=r"b\.tif: all pixels are NaN"):
        decoded(np.full_like(values, np.nan), tmp_path, "b.tif")


@pytest.mark.faults
@pytest.mark.parametrize(("value", "shown"), [(0, 0), (40_000, 156), (65_535, 255)])
def test_an_image_of_one_colour_keeps_it(tmp_path, value, shown):
    values = np.full((32, 16), value, dtype=np.uint16)
    assert (decoded(values, tmp_path, "a.png") == shown).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "P", "RGBA", "CMYK", "1"])
@pytest.mark.parametrize("extension", ["jpg", "png", "bmp", "webp", "tif"])
def test_images_of_8_bits_keep_every_bit(tmp_path, mode, extension):
    write_noise(tmp_path / "noise.png")
    image = Image.open(tmp_path / "noise.png").convert(mode)
    try:
        image.save(tmp_path / f"a.{extension}")
    except OSError:  # the format has no such images
        image.convert("RGB").save(tmp_path / f"a.{extension}")
    with Image.open(tmp_path / f"a.{extension}") as plain:
        expected = plain.convert("RGB")
    found = load_image(tmp_path / f"a.{extension}")
    assert found.tobytes() == expected.tobytes()


# Orientation


def write_oriented(path: Path, orientation: int) -> np.ndarray:
    """A picture whose pixels are stored as a camera held so stores them; return how it looks."""
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(1).integers(0, 256, (6, 4, 3)).repeat(8, 0).repeat(8, 1)
    upright = Image.fromarray(pixels.astype(np.uint8))  # 32 wide, 48 high
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](np.asarray(upright))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {}
    options |= {"lossless": True} if path.suffix == ".webp" else {}
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, **options)
    return np.asarray(upright).astype(int)


@pytest.mark.faults
@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_the_camera_says(tmp_path, orientation, extension):
    upright = write_oriented(tmp_path / f"a.{extension}", orientation)
    found = np.asarray(load_image(tmp_path / f"a.{extension}")).astype(int)
    assert found.shape == upright.shape
    assert abs(found - upright).max() <= 4  # JPEG rounds


@pytest.mark.faults
def test_every_reader_turns_images_and_boxes_are_of_the_upright_image(tmp_path):
    upright = write_oriented(tmp_path / "a.png", 6)
    box = (8, 16, 24, 40)
    images = [ReidImage("a.png", 1, 1), ReidImage("a.png", 1, 1, box=box)]
    reader = ReidReader(tmp_path, images)
    assert np.array_equal(np.asarray(ReidDataset(reader)[0][0]), upright)
    assert np.array_equal(np.asarray(ReidDataset(reader)[1][0]), upright[16:40, 8:24])
    assert np.array_equal(np.asarray(read_picture(reader, 0)), upright)
    cached = ImageCache.fill(reader.without([1]), (48, 32), num_workers=0, progress=False)
    assert np.array_equal(cached.images[0].permute(1, 2, 0).numpy(), upright)
    assert next(inspect_images(reader, workers=0)).size == (32, 48)
    opener = ReidReader("x", images, opener=lambda path: (tmp_path / path).open("rb"))
    assert np.array_equal(np.asarray(ReidDataset(opener)[0][0]), upright)


@pytest.mark.faults
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_exif_data_leave_the_pixels_as_they_are(tmp_path):
    write_noise(tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png")
    for damaged in (b"Exif\0\0", b"Exif\0\0nonsense", b"Exif\0\0MM\0*\xff\xff\xff\xff"):
        image.save(tmp_path / "b.png", exif=damaged)
        assert load_image(tmp_path / "b.png").tobytes() == image.tobytes()


@pytest.mark.faults
def test_deep_images_are_turned_too(tmp_path):
    values = grey().astype(np.uint16) * 257
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(values))).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.asarray(load_image(tmp_path / "a.png"))[..., 0], grey())


# Broken files


def bmp_of(width: int, height: int) -> bytes:
    """A small file that says how large its image is, and holds one pixel."""
    file = io.BytesIO()
    Image.new("RGB", (1, 1)).save(file, "bmp")
    data = file.getvalue()
    return data[:18] + struct.pack("<ii", width, height) + data[26:]


@pytest.mark.faults
def test_an_image_of_too_many_pixels_is_named_and_can_be_left_out(tmp_path):
    for i in range(2):
        write_noise(tmp_path / f"{i}.png", seed=i)
    (tmp_path / "large.bmp").write_bytes(bmp_of(60_000, 60_000))
    images = [ReidImage(name, 1, 1) for name in ("0.png", "large.bmp", "1.png")]
    with pytest.raises(UnreadableImageError, match=r"large\.bmp: .*exceeds limit"):
        ReidDataset(ReidReader(tmp_path, images))[1]
    splits = ReidSplits.from_images("x", tmp_path, train=images)
    left, ((_, path, reason),) = skip_bad_images(splits, workers=0, progress=False)
    assert [image.path for image in left.train.images] == ["0.png", "1.png"]
    assert path == "large.bmp"
    assert reason.startswith("too many pixels: Image size (3600000000 pixels)")


@pytest.mark.faults
def test_a_limit_of_pixels_holds_before_they_are_decoded():
    # Broken after its header: decoding would say so.
    with pytest.raises(Image.DecompressionBombError, match="9000 x 9000 pixels are more than 50"):
        decode(io.BytesIO(bmp_of(9000, 9000)), max_pixels=50_000_000)
    with pytest.raises(OSError, match="truncated"):
        decode(io.BytesIO(bmp_of(90, 90)), max_pixels=50_000_000)


@pytest.mark.faults
@pytest.mark.parametrize(
    "error",
    [
        IndexError("index out of range"), AttributeError("no attribute 'x'"), RecursionError(),
        struct.error("unpack requires 4 bytes"), SyntaxError("not a PNG file"), KeyError(7),
        MemoryError(), NotImplementedError(), ZeroDivisionError("division by zero"),
        Image.DecompressionBombError("too large"), EOFError(), TypeError("x"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_whatever_a_decoder_raises_names_the_file(tmp_path, monkeypatch, error):
    names = ["0.png", "1.png"]
    for name in names:
        write_noise(tmp_path / name)

    def load(self: Image.Image) -> None:
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    reader = ReidReader(tmp_path, [ReidImage(name, 1, 1) for name in names])
    with pytest.raises(UnreadableImageError, match=r"cannot read the image .*1\.png: \S"):
        ReidDataset(reader)[1]
    with pytest.raises(UnreadableImageError, match=r"0\.png: \S"):
        load_image(tmp_path / "0.png")
    assert list(find_bad_images(reader, workers=0, progress=False)) == [0, 1]


@pytest.mark.faults
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_random_damage_gives_an_image_or_an_error_that_names_it(tmp_path):
    rng, errors = np.random.default_rng(0), []
    write_noise(tmp_path / "noise.png")
    for extension in ("png", "bmp", "tif", "webp", "gif", "tga", "ico", "pcx", "jpg", "sgi"):
        path = tmp_path / f"a.{extension}"
        Image.open(tmp_path / "noise.png").save(path)
        whole = path.read_bytes()
        for _ in range(30):
            damaged = np.frombuffer(whole, dtype=np.uint8).copy()
            damaged[rng.integers(0, min(80, len(damaged)), 4)] = rng.integers(0, 256, 4)
            path.write_bytes(damaged[: rng.integers(1, 2 * len(damaged))].tobytes())
            try:
                assert load_image(path).mode == "RGB"
            except UnreadableImageError as error:
                errors.append((path.name, str(error)))
    assert len(errors) > 50
    assert all(name in text for name, text in errors)


# What check-data says


@pytest.mark.faults
def test_boxes_that_leave_their_images_are_found(tmp_path):
    write_noise(tmp_path / "a.png")
    boxes = [(0, 0, 16, 32), (-2, 0, 16, 32), None]
    images = [ReidImage("a.png", 1, i, box=box) for i, box in enumerate(boxes)]
    splits = ReidSplits.from_images("x", tmp_path, train=images)
    facts = {"train": inspect_images(splits.train, workers=0, hashes=False, progress=False)}
    (finding,) = check_images(splits, facts)
    assert (finding.kind, finding.level) == ("clipped", "warning")
    assert finding.text == "1 boxes reach beyond their images"
    assert finding.items == [
        {"split": "train", "path": "a.png", "left": -2, "top": 0, "right": 16, "bottom": 32}
    ]


@pytest.mark.faults
def test_deep_images_are_nothing_to_be_done_about(tmp_path):
    Image.fromarray(grey().astype(np.uint16) * 257).save(tmp_path / "a.png")
    splits = ReidSplits.from_images("x", tmp_path, train=[ReidImage("a.png", 1, 1)])
    facts = {"train": inspect_images(splits.train, workers=0, progress=False)}
    assert check_images(splits, facts) == []
    assert os.listdir(tmp_path) == ["a.png"]
