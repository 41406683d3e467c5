"""What a viewer shows is what the network sees: masks stored the other way round, and photographs stored on their side."""

import io
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from datamodules.in_memory import InMemoryDataModule
from datamodules.readers.encoded import FolderImages
from datamodules.readers.image_files import read_image
from datamodules.readers.masks import class_mask, read_mask
from datamodules.readers.photographs import read_photograph
from datamodules.readers.slices import read_slices
from datamodules.readers.splits import Splits
from datamodules.readers.stored_image import StoredImage
from datamodules.readers.tiff_stacks import read_label_stack, read_stack
from datamodules.sources.image_mask_folder import load_image_mask_folder
from datamodules.sources.isbi2012 import load_tiff_stack

WHITE_ON_BLACK = np.zeros((20, 30), dtype=bool)
WHITE_ON_BLACK[3:7, 4:9] = True
SHARE = 20 / 600  # of its pixels that are white

# Masks

WHITE_IS_ZERO = {"photometric": "miniswhite", "metadata": None}


def palette(path: Path, indices: np.ndarray, colours: list[int], **options: int | bytes) -> None:
    image = Image.fromarray(indices.astype(np.uint8)).copy()
    image.putpalette(colours)
    image.save(path, **options)


def inverting_table(path: Path, stored: np.ndarray) -> None:
    """As ImageJ's inverting look-up table: 256 greys, 255 first."""
    table = np.tile((255 - np.arange(256)).astype(np.uint16) * 257, (3, 1))
    tifffile.imwrite(path, stored, photometric="palette", colormap=table)


STORED: dict[str, Callable[[Path, np.ndarray], None]] = {
    "grey.png": lambda path, white: Image.fromarray(white * np.uint8(255)).save(path),
    "bits.png": lambda path, white: Image.fromarray(white).save(path),
    "white_first.png": lambda path, white: palette(path, ~white, [255, 255, 255, 0, 0, 0]),
    "black_first.png": lambda path, white: palette(path, white, [0, 0, 0, 255, 255, 255]),
    "table.png": lambda path, white: palette(path, ~white * np.uint8(255), [255 - i // 3 for i in range(768)]),
    "table.tif": lambda path, white: inverting_table(path, ~white * np.uint8(255)),
    "bool.tif": lambda path, white: tifffile.imwrite(path, ~white),
    "pillow_bits.tif": lambda path, white: Image.fromarray(white).save(path),
    "bytes.tif": lambda path, white: tifffile.imwrite(path, ~white * np.uint8(255), **WHITE_IS_ZERO),
    "plain.tif": lambda path, white: tifffile.imwrite(path, white * np.uint8(255)),
    "deep.png": lambda path, white: Image.fromarray(white * np.uint16(65535)).save(path),
    "deep.tif": lambda path, white: tifffile.imwrite(path, white * np.uint16(65535)),
    "deep_white_first.tif": lambda path, white: tifffile.imwrite(path, ~white * np.uint16(65535), **WHITE_IS_ZERO),
}


@pytest.mark.parametrize("form", STORED)
def test_a_black_and_white_mask_is_what_a_viewer_shows_white(tmp_path: Path, form: str) -> None:
    path = tmp_path / form
    STORED[form](path, WHITE_ON_BLACK)
    classes = ("background", "object")
    assert np.array_equal(class_mask(read_mask(path), classes, form), WHITE_ON_BLACK)
    if path.suffix == ".tif":
        [stacked] = read_label_stack(path)
        assert np.array_equal(class_mask(stacked.astype(np.int64), classes, form), WHITE_ON_BLACK)


def test_other_masks_are_what_they_store(tmp_path: Path) -> None:
    indices = np.arange(600).reshape(20, 30) % 3
    palette(tmp_path / "voc.png", indices, [255, 255, 255, 0, 0, 0, 128, 0, 0])
    assert np.array_equal(read_mask(tmp_path / "voc.png", black_and_white=False), indices)
    # Of three classes a mask may show two alone, and these be black and white.
    palette(tmp_path / "two.png", indices % 2, [255, 255, 255, 0, 0, 0, 128, 0, 0])
    assert np.array_equal(read_mask(tmp_path / "two.png", black_and_white=False), indices % 2)
    tifffile.imwrite(tmp_path / "classes.tif", indices.astype(np.uint8), **WHITE_IS_ZERO)
    assert np.array_equal(read_mask(tmp_path / "classes.tif"), indices)
    assert np.array_equal(read_label_stack(tmp_path / "classes.tif")[0], indices)


def test_a_colour_that_stands_for_transparency_is_background(tmp_path: Path) -> None:
    """As alpha is: PNG's tRNS of a grey value, of one palette index or of all, and a GIF's index."""
    indices = np.arange(600).reshape(20, 30) % 3
    grey = Image.fromarray((7 * indices).astype(np.uint8))
    grey.save(tmp_path / "grey.png", transparency=7)
    grey.convert("RGB").save(tmp_path / "colour.png", transparency=(7, 7, 7))
    Image.open(tmp_path / "grey.png").convert("LA").save(tmp_path / "alpha.png")
    for name in ("grey.png", "colour.png", "alpha.png"):
        assert np.array_equal(read_mask(tmp_path / name), np.where(indices == 1, 0, 7 * indices)), name
    for name, transparent in (("index.png", 2), ("all.png", bytes([255, 255, 0])), ("index.gif", 2)):
        palette(tmp_path / name, indices, [9, 9, 9, 128, 0, 0, 0, 128, 0], transparency=transparent)
        assert np.array_equal(read_mask(tmp_path / name, black_and_white=False), np.where(indices == 2, 0, indices))
    palette(tmp_path / "white.png", indices, [255, 255, 255, 0, 0, 0, 255, 255, 255], transparency=0)
    assert np.array_equal(read_mask(tmp_path / "white.png"), np.where(indices == 2, 255, 0))
    palette(tmp_path / "half.png", indices, [9, 9, 9, 128, 0, 0, 0, 128, 0], transparency=bytes([255, 255, 100]))
    with pytest.raises(ValueError, match=r"half.png must be opaque or fully transparent in every pixel"):
        read_mask(tmp_path / "half.png")


def folder_of(root: Path, form: str, white: np.ndarray) -> Path:
    random = np.random.RandomState(0)
    for number in range(6):
        for kind in ("images", "masks"):
            (root / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.randint(0, 256, white.shape).astype(np.uint8)).save(root / "images" / f"{number}.png")
        STORED[form](root / "masks" / f"{number}{Path(form).suffix}", white)
    return root


def of_source(source: Callable[[], Splits]) -> InMemoryDataModule:
    module = InMemoryDataModule(source, 1, 1, {}, None, None, seed=0)
    module.setup()
    return module


@pytest.mark.parametrize("form", ["white_first.png", "bool.tif"])
def test_the_share_of_the_foreground_is_in_the_notes_and_more_than_half_is_said(tmp_path: Path, form: str) -> None:
    for white, share, said in ((WHITE_ON_BLACK, SHARE, 0), (~WHITE_ON_BLACK, 1 - SHARE, 1)):
        folder = folder_of(tmp_path / str(said), form, white)
        module = of_source(partial(load_image_mask_folder, folder, 1, 1))
        assert module.splits.foreground() == pytest.approx(share)
        assert f"foreground {100 * share:.1f} % of the training pixels" in module.manifest()["notes"]
        assert len(module.remarks()) == said
    assert "97 % of the training pixels are foreground" in module.remarks()[0]


def test_a_stack_of_bools_is_read_as_a_folder_of_them_is(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "train-volume.tif", np.random.RandomState(0).randint(0, 256, (6, 20, 30)).astype(np.uint8)
    )
    tifffile.imwrite(tmp_path / "train-labels.tif", np.stack([~WHITE_ON_BLACK] * 6))
    of_stack = load_tiff_stack(tmp_path, 0, 3, 1, classes=("background", "object"))
    of_folder = load_image_mask_folder(folder_of(tmp_path / "folder", "bool.tif", WHITE_ON_BLACK), 1, 1)
    assert of_stack.foreground() == of_folder.foreground() == pytest.approx(SHARE)
    assert torch.equal(of_stack.test.targets[0], of_folder.test.targets[0])


# Orientation

SHOWN = np.arange(6 * 10, dtype=np.uint8).reshape(6, 10) * 4
# By the value of the tag Orientation: what is stored where the first row is the visual top, bottom, left or right (EXIF 2.3).
TURNED = {
    1: SHOWN,
    2: SHOWN[:, ::-1],
    3: SHOWN[::-1, ::-1],
    4: SHOWN[::-1],
    5: SHOWN.T,
    6: SHOWN[:, ::-1].T,
    7: SHOWN[::-1, ::-1].T,
    8: SHOWN[::-1].T,
}


def save_turned(path: Path, pixels: np.ndarray, orientation: int, **options: int) -> None:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, **options)


@pytest.mark.parametrize("orientation", TURNED)
def test_images_and_masks_are_turned_as_a_viewer_turns_them(tmp_path: Path, orientation: int) -> None:
    stored = TURNED[orientation]
    for pixels, shown in ((stored, SHOWN), (stored.astype(np.uint16) * 100, SHOWN.astype(np.uint16) * 100)):
        save_turned(tmp_path / "a.png", pixels, orientation)
        assert np.array_equal(read_image(tmp_path / "a.png"), shown)
        assert np.array_equal(read_mask(tmp_path / "a.png"), shown)
    tag = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", stored, extratags=tag)
    assert np.array_equal(read_image(tmp_path / "a.tif"), SHOWN)
    assert np.array_equal(read_stack(tmp_path / "a.tif"), SHOWN[None])
    tifffile.imwrite(tmp_path / "a.tif", np.stack([stored, 255 - stored]), photometric="minisblack", extratags=tag)
    assert np.array_equal(read_stack(tmp_path / "a.tif"), np.stack([SHOWN, 255 - SHOWN]))


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", TURNED)
def test_a_photograph_is_turned_before_it_is_cropped(tmp_path: Path, orientation: int, suffix: str) -> None:
    # Four quarters of different colours, large enough for a JPEG to be drafted.
    quarters = np.zeros((240, 400, 3), dtype=np.uint8)
    quarters[:120, :200], quarters[:120, 200:], quarters[120:, :200] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    turns = {1: quarters, 2: quarters[:, ::-1], 3: quarters[::-1, ::-1], 4: quarters[::-1]}
    flat = turns.get(orientation, turns[{5: 1, 6: 2, 7: 3, 8: 4}.get(orientation, 1)])
    stored = flat if orientation < 5 else flat.swapaxes(0, 1)
    path = tmp_path / f"a.{suffix}"
    save_turned(path, stored, orientation)
    files = FolderImages(tmp_path, np.array([path.name.encode()]), np.array([1]), np.array([0]))
    image = StoredImage(files, 0)
    assert (image.width, image.height) == (400, 240)
    pixels = image.resample((0, 0, 400, 240), 40, 24).astype(int)
    for place, colour in (((4, 6), (250, 0, 0)), ((4, 33), (0, 250, 0)), ((19, 6), (0, 0, 250)), ((19, 33), (0, 0, 0))):
        assert np.abs(pixels[place] - colour).max() < 12


@pytest.mark.parametrize("orientation", TURNED)
def test_an_annotated_grey_tiff_is_turned_where_its_annotation_is(tmp_path: Path, orientation: int) -> None:
    """Pillow 13 maps it into memory where it opens it by name, and garbles orientations 5 to 8."""
    stored = TURNED[orientation]
    tifffile.imwrite(tmp_path / "a.tif", stored, extratags=[(274, "H", 1, orientation, True)])
    for shape, expected in ((SHOWN.shape, stored if orientation < 5 else SHOWN), (stored.shape, stored)):
        assert np.array_equal(read_photograph(tmp_path / "a.tif", *shape, 1, Path("annotations.json")), expected)


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_an_annotated_square_photograph_is_taken_as_stored(tmp_path: Path, suffix: str, orientation: int) -> None:
    stored = np.zeros((64, 64), np.uint8)
    stored[:16, :16] = 255
    save_turned(tmp_path / f"a.{suffix}", stored, orientation)
    pixels = read_photograph(tmp_path / f"a.{suffix}", 64, 64, 1, Path("annotations.json"))
    assert np.array_equal(pixels > 128, stored > 128)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_metadata_do_not_turn_an_image(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(SHOWN).save(buffer, "JPEG", quality=100, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    assert read_image(tmp_path / "a.jpg").shape == SHOWN.shape


# 16 bits


def deep_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint16 [H, W, 2] as grey and alpha, [H, W, 3] as colours, which Pillow does not write (PNG specification)."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    framed = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))


@pytest.mark.parametrize("name", ["colours.png", "colours.tif", "alpha.png"])
def test_colours_and_alpha_of_16_bits_are_refused_not_cut_to_8(tmp_path: Path, name: str) -> None:
    pixels = np.random.RandomState(0).randint(0, 4096, (8, 8, 2 if name == "alpha.png" else 3)).astype(np.uint16)
    path = tmp_path / name
    tifffile.imwrite(path, pixels, photometric="rgb") if path.suffix == ".tif" else deep_png(path, pixels)
    for read in (
        lambda: read_image(path),
        lambda: read_mask(path),
        lambda: StoredImage(FolderImages.single(path), 0),
        lambda: read_photograph(path, 8, 8, 3, Path("annotations.json")),
    ):
        with pytest.raises(ValueError, match=rf"{name} must have 8 bits a channel, .*got 16; convert it"):
            read()


# 16 bits in `predict`


def test_predict_scales_16_bits_as_training_did(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "grey.png", WHITE_ON_BLACK)
    random = np.random.RandomState(3)
    for number in range(6):
        deep = random.randint(500, 4000 + 100 * number, WHITE_ON_BLACK.shape).astype(np.uint16)
        Image.fromarray(deep).save(folder / "images" / f"{number}.png")
    module = of_source(partial(load_image_mask_folder, folder, 1, 1))
    manifest = module.manifest()
    low, high = manifest["grey_range"]
    assert f"16-bit grey values {low}..{high}" in manifest["notes"]
    # A dim image of the same microscope stays dim.
    dim = np.full((8, 9), 1000, dtype=np.uint16)
    dim[0, 0], dim[0, 1] = 0, 60_000
    for path in (tmp_path / "dim.png", tmp_path / "dim.tif"):
        tifffile.imwrite(path, dim) if path.suffix == ".tif" else Image.fromarray(dim).save(path)
        slices, remark = module.read_slices(path, 1, manifest["grey_range"])
        expected = (round((1000 - low) * 255 / (high - low)) / 255 - module.mean[0]) / module.std[0]
        assert slices[0, 0, 4, 4].item() == pytest.approx(expected, abs=1e-5) and remark == ""
        assert slices[0, 0, 0, 0].item() == pytest.approx(-module.mean[0] / module.std[0], abs=1e-5)
    _, remark = module.read_slices(tmp_path / "dim.png", 1, None)
    assert "the run has no range of grey values from training" in remark
    Image.fromarray(SHOWN).save(tmp_path / "byte.png")
    _, remark = module.read_slices(tmp_path / "byte.png", 1, manifest["grey_range"])
    assert "byte.png has 8 bits per pixel and the training images had 16" in remark
    save_turned(tmp_path / "side.png", TURNED[6], 6)
    slices, remark = module.read_slices(tmp_path / "side.png", 1, None)
    assert slices.shape == (1, 1, *SHOWN.shape) and remark == ""


def test_an_image_without_contrast_is_scaled_as_training_did_and_named_where_nothing_scales_it(tmp_path: Path) -> None:
    path = tmp_path / "dark.png"
    Image.fromarray(np.full((8, 9), 700, dtype=np.uint16)).save(path)
    slices, remark = read_slices(path, 1, (500, 1520))
    assert (slices == 50).all() and remark == ""
    with pytest.raises(ValueError, match=r"dark.png must vary in grey value, nearly all pixels are 700"):
        read_slices(path, 1, None)


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint32])
def test_slices_of_other_numbers_than_8_or_16_bits_are_refused_by_name(dtype: type, tmp_path: Path) -> None:
    slices = np.stack([SHOWN, SHOWN]).astype(dtype)
    slices[0, 0, 0] = -1 if dtype == np.int16 else 2**32 - 1
    tifffile.imwrite(tmp_path / "odd.tif", slices, photometric="minisblack")
    with pytest.raises(
        ValueError, match=rf"odd.tif must have grey values of 8 or 16 bits, got {np.dtype(dtype)} from "
    ):
        read_slices(tmp_path / "odd.tif", 1, None)


def test_slices_of_one_bit_are_black_and_white(tmp_path: Path) -> None:
    slices = np.stack([WHITE_ON_BLACK > 0, WHITE_ON_BLACK == 0])
    tifffile.imwrite(tmp_path / "bits.tif", slices, photometric="minisblack")
    assert np.array_equal(read_slices(tmp_path / "bits.tif", 1, None)[0][:, 0], 255 * slices)


def test_images_with_a_table_of_greys_are_grey_in_one_file_as_in_a_stack(tmp_path: Path) -> None:
    stored = np.random.RandomState(0).randint(0, 256, (20, 30)).astype(np.uint8)
    inverting_table(tmp_path / "table.tif", stored)
    palette(tmp_path / "table.png", stored, [255 - i // 3 for i in range(768)])
    for name in ("table.tif", "table.png"):
        assert (read_image(tmp_path / name) == 255 - stored).all()
        for channels in (1, 3):
            slices, remark = read_slices(tmp_path / name, channels, None)
            assert slices.shape == (1, channels, 20, 30) and (slices.numpy() == 255 - stored).all() and remark == ""
    assert (read_stack(tmp_path / "table.tif") == 255 - stored).all()


def test_colours_are_refused_for_a_network_of_greys_unless_its_training_took_them(tmp_path: Path) -> None:
    colours = np.random.RandomState(0).randint(0, 256, (20, 30, 3)).astype(np.uint8)
    for name, pixels in (("colours", colours), ("greys", np.repeat(colours[..., :1], 3, axis=2))):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match=r"colours.png is a colour image: data.in_channels=3 takes colours"):
        read_slices(tmp_path / "colours.png", 1, None)
    grey, _ = read_slices(tmp_path / "colours.png", 1, None, to_grey=True)
    assert np.abs(grey[0, 0].numpy() - np.asarray(Image.fromarray(colours).convert("L"))).max() <= 1
    greys, _ = read_slices(tmp_path / "greys.png", 1, None)
    assert np.array_equal(greys[0, 0].numpy(), colours[..., 0])


def test_a_bitmap_of_16_bits_a_pixel_has_5_or_6_a_channel(tmp_path: Path) -> None:
    """Windows' bitmap with masks of 5, 6 and 5 bits: two red columns and two blue ones."""
    rows = struct.pack("<4H", 31 << 11, 31 << 11, 31, 31) * 3
    header = struct.pack("<IiiHHIIiiII", 40, 4, 3, 1, 16, 3, len(rows), 2835, 2835, 0, 0)
    content = header + struct.pack("<III", 31 << 11, 63 << 5, 31) + rows
    (tmp_path / "x.bmp").write_bytes(b"BM" + struct.pack("<IHHI", 14 + len(content), 0, 0, 66) + content)
    pixels = read_image(tmp_path / "x.bmp")
    assert pixels.tolist() == [[[255, 0, 0]] * 2 + [[0, 0, 255]] * 2] * 3
    shown = read_photograph(tmp_path / "x.bmp", 3, 4, 3, tmp_path / "annotations.json")
    assert np.array_equal(shown, pixels)


def test_a_photograph_for_print_is_read_as_any_other(tmp_path: Path) -> None:
    colours = Image.fromarray(np.random.RandomState(0).randint(0, 256, (20, 30, 3)).astype(np.uint8)).convert("CMYK")
    colours.save(tmp_path / "print.tif")
    assert (read_image(tmp_path / "print.tif") == np.asarray(colours.convert("RGB"))).all()


def test_an_image_for_a_network_of_other_channels_is_named(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8, 4), np.uint8)).save(tmp_path / "four.png")
    with pytest.raises(ValueError, match=r"four.png is read with 1 channel or 3, the network takes 4"):
        StoredImage(FolderImages.single(tmp_path / "four.png"), 0).centre(4, 8, 8)


@pytest.mark.parametrize("orientation", [1, 6])
def test_of_a_cameras_file_of_several_pictures_the_photograph_is_read(tmp_path: Path, orientation: int) -> None:
    random = np.random.RandomState(0)
    photograph, preview = (Image.fromarray(random.randint(0, 256, (20, 30, 3)).astype(np.uint8)) for _ in range(2))
    exif = Image.Exif()
    exif[0x0112] = orientation
    photograph.save(tmp_path / "alone.jpg", exif=exif)
    photograph.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[preview], exif=exif)
    with Image.open(tmp_path / "phone.jpg") as image:
        assert image.format == "MPO" and image.n_frames == 2
    expected = read_image(tmp_path / "alone.jpg")
    assert expected.shape == ((20, 30, 3) if orientation == 1 else (30, 20, 3))
    assert np.array_equal(read_image(tmp_path / "phone.jpg"), expected)
    assert np.array_equal(read_slices(tmp_path / "phone.jpg", 3, None)[0][0].permute(1, 2, 0), expected)
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([SHOWN, SHOWN]), photometric="minisblack")
    with pytest.raises(ValueError, match=r"pages.tif must hold one two-dimensional image, got 2 pages"):
        read_image(tmp_path / "pages.tif")
