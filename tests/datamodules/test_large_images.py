"""A small file that says to hold more pixels than a memory should take is refused by name, in one line, by every reader."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from datamodules.readers.hub import decode_parquet
from datamodules.readers.image_files import open_image
from datamodules.readers.photographs import read_photograph
from datamodules.readers.stored_image import StoredImage

SIDE = 30_000  # 900 million pixels, 5 times what Pillow takes


def png(side: int) -> bytes:
    """A grey PNG that says to have this height and width, with the pixels of the first rows alone."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(50_000)))
        + chunk(b"IEND", b"")
    )


class Stored:
    """A packed file with one image."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def place(self, row: int) -> str:
        return self.path.name

    def read(self, row: int) -> bytes:
        return self.path.read_bytes()


def from_parquet(path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    shard = path.with_name(f"{path.name}.parquet")
    parquet.write_table(pyarrow.table({"img": [{"bytes": path.read_bytes()}], "label": [1]}), shard)
    decode_parquet({"train": [shard]}, ("img",), "label", 32)


READERS: dict[str, Callable[[Path], object]] = {
    "images and masks": open_image,
    "photographs": lambda path: read_photograph(path, SIDE, SIDE, 1, path),
    "photographs in files and shards": lambda path: StoredImage(Stored(path), 0),  # type: ignore[arg-type]
    "small images in shards": from_parquet,
}


@pytest.mark.parametrize("reader", READERS)
def test_an_image_of_too_many_pixels_is_refused_by_name(reader: str, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(png(SIDE))
    with pytest.raises(ValueError, match="large.png.*exceeds limit of .* pixels") as error:
        READERS[reader](path)
    assert "\n" not in str(error.value)
    assert "cut it into smaller images" in str(error.value) or reader == "small images in shards"


def test_the_file_is_one_that_pillow_reads_when_it_is_small() -> None:
    from PIL import Image

    with Image.open(io.BytesIO(png(100))) as image:
        assert image.size == (100, 100) and not image.load()[5, 5]
