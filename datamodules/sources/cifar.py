"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images) from local files."""

import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.readers.decoded import Decoded, Part, decoded_once, gather
from datamodules.readers.hub import decode_parquet, find_or_fetch, shards
from datamodules.readers.splits import Splits, hold_out

_SHAPE = (3, 32, 32)
_PARTS = ("train", "test")
_UNPACKED_BYTES = 200_000_000  # of an archive; the official ones unpack to 184,640,000 and 184,450,000
_FINE_LABELS = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""


@dataclass(frozen=True)
class _Published:
    """A set as published.

    label_bytes: those before the pixels of a record; the last of them is the label, the ones before it are coarser labels.
    repository, column: of the hub's parquet.
    """

    title: str
    classes: tuple[str, ...]
    folder: str
    archive: str
    train_files: tuple[str, ...]
    test_file: str
    names_file: str
    label_bytes: int
    repository: str
    column: str

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train_files, self.test_file, self.names_file)


PUBLISHED = {
    "cifar10": _Published(
        title="CIFAR-10",
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        folder="cifar-10-batches-bin",
        archive="cifar-10-binary.tar.gz",
        train_files=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        test_file="test_batch.bin",
        names_file="batches.meta.txt",
        label_bytes=1,
        repository="uoft-cs/cifar10",
        column="label",
    ),
    "cifar100": _Published(
        title="CIFAR-100",
        classes=tuple(_FINE_LABELS.split()),
        folder="cifar-100-binary",
        archive="cifar-100-binary.tar.gz",
        train_files=("train.bin",),
        test_file="test.bin",
        names_file="fine_label_names.txt",
        label_bytes=2,
        repository="uoft-cs/cifar100",
        column="fine_label",
    ),
}


def _decode_records(name: str, data: bytes, label_bytes: int) -> Part:
    """Return the images and labels of one binary file: per image its label, then red, green and blue planes, row by row."""
    size = label_bytes + int(np.prod(_SHAPE))
    if not data or len(data) % size:
        raise ValueError(f"{name} must be a whole number of {size}-byte records, got {len(data)} bytes; fetch it again")
    records = np.frombuffer(data, dtype=np.uint8).reshape(-1, size)
    return Part(records[:, label_bytes:].reshape(-1, *_SHAPE), records[:, label_bytes - 1].astype(np.int64))


def _decode_binary(published: _Published, origin: Path, read: Callable[[str], bytes]) -> Decoded:
    """Decode the official binary files; read returns the bytes of a file by its name."""
    names = tuple(read(published.names_file).decode("ascii", "replace").split())
    if names != published.classes:
        raise ValueError(
            f"{origin}: {published.names_file} must name {', '.join(published.classes)}, got {', '.join(names)}"
        )

    def part(files: tuple[str, ...]) -> Part:
        pieces = [_decode_records(f"{origin}: {name}", read(name), published.label_bytes) for name in files]
        return Part(*map(np.concatenate, zip(*((piece.images, piece.labels) for piece in pieces), strict=True)))

    return Decoded({"train": part(published.train_files), "test": part((published.test_file,))})


def _decode_archive(published: _Published, path: Path) -> Decoded:
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                if member.offset_data + member.size > _UNPACKED_BYTES:
                    raise ValueError(
                        f"{path} unpacks to more than {_UNPACKED_BYTES:,} bytes; fetch {published.archive} again"
                    )
                folder, _, name = member.name.rpartition("/")
                if member.isreg() and folder == published.folder and name in published.files:  # no links
                    contents[name] = archive.extractfile(member).read()  # type: ignore[union-attr]
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is damaged or truncated ({error}); fetch {published.archive} again") from error
    for name in published.files:
        if name not in contents:
            raise ValueError(f"{path} must contain {published.folder}/{name}; fetch {published.archive} again")
    return _decode_binary(published, path, contents.__getitem__)


def _decode_folder(published: _Published, folder: Path) -> Decoded:
    for name in published.files:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing; unpack all of {published.archive} there")
    return _decode_binary(published, folder, lambda name: (folder / name).read_bytes())


def _find(published: _Published, path: Path) -> tuple[list[Path], Callable[[], Decoded]]:
    """Return the files of a set at path and what decodes them."""
    if path.is_file() and path.name.endswith(".tar.gz"):
        return [path], partial(_decode_archive, published, path)
    for folder in (path, path / published.folder):
        present = [folder / name for name in published.files if (folder / name).is_file()]
        if present:
            return present, partial(_decode_folder, published, folder)
    if (path / published.archive).is_file():
        return _find(published, path / published.archive)
    files = {part: shards(path, part) for part in _PARTS}
    if all(files.values()):
        return sum(files.values(), []), partial(decode_parquet, files, "img", published.column, _SHAPE[-1])
    raise FileNotFoundError(
        f"{path} holds no {published.title}; put {published.archive} (www.cs.toronto.edu/~kriz/cifar.html), its unpacked "
        f"{published.folder}, or train-*.parquet and test-*.parquet of the hub's {published.repository} there "
        "(data.hub=true fetches these)"
    )


def load_cifar(
    name: str,
    path: str | Path,
    cache_dir: str | Path,
    hub: bool = False,
    train_count: int = 50_000,
    test_count: int = 10_000,
    val_count: int = 5_000,
) -> Splits:
    """Return 45,000 / 5,000 / 10,000 images uint8 [N, 3, 32, 32] of ten classes, of cifar100 the hundred fine ones.

    path: the official binary archive (cifar-10-binary.tar.gz, say), its unpacked folder, a folder that holds either, or a
    folder with train-*.parquet and test-*.parquet of the hub (needs the extra `parquet`). hub: fetch the parquet
    into path where it holds nothing of the set (needs the extra `hub`). The images are decoded once and kept as .npy
    files in a subfolder of cache_dir. val is a fixed, stratified part of the training images.
    Raises FileNotFoundError on missing files and ValueError on damaged ones or other counts; every class must hold an
    equal part of a split, as in the published set. ImportError without pyarrow when the files are parquet; what fetch
    raises.
    """
    published, path = PUBLISHED[name], Path(path)
    counts, classes = {"train": train_count, "test": test_count}, len(PUBLISHED[name].classes)
    patterns = [f"*{part}-*.parquet" for part in _PARTS]
    files, decode = find_or_fetch(partial(_find, published, path), hub, published.repository, patterns, path)

    def check(decoded: Decoded) -> None:
        for part, count in counts.items():
            decoded.parts[part].check(path, part, count, classes)
            sizes = np.bincount(decoded.parts[part].labels)
            if set(sizes) != {count // classes}:
                raise ValueError(
                    f"{path} must hold {count // classes} {part} images of each class 0..{classes - 1}, got {sizes.tolist()}"
                )

    decoded = decoded_once(name, files, _PARTS, decode, check, Path(cache_dir))
    train, test = decoded.parts["train"], decoded.parts["test"]
    rest, held_out = hold_out(train.labels, val_count, seed=0)
    return Splits(
        train=gather([(train, rest)]),
        val=gather([(train, held_out)]),
        test=gather([(test, np.arange(len(test.labels)))]),
        classes=published.classes,
        notes=decoded.notes,
    )
