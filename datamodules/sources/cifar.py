"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images) from local files."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.readers import cifar_files
from datamodules.readers.decoded import Decoded, decoded_once, splits_of
from datamodules.readers.hub import decode_parquet, find_or_fetch, shards, snapshot_note
from datamodules.readers.listing import contents
from datamodules.readers.splits import Splits

_PARTS = ("train", "test")
_FINE_LABELS = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""


IMAGE_COLUMNS = "img", "image"  # of the hub's parquet, by its age


@dataclass(frozen=True)
class _Published:
    """A set as published: its forms, and the repository of the hub's parquet with the column of labels."""

    title: str
    classes: tuple[str, ...]
    forms: tuple[cifar_files.CifarFiles, ...]
    repository: str
    label_column: str


PUBLISHED = {
    "cifar10": _Published(
        title="CIFAR-10",
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        forms=(
            cifar_files.CifarFiles(
                folder="cifar-10-batches-bin",
                archive="cifar-10-binary.tar.gz",
                train_files=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
                test_file="test_batch.bin",
                names_file="batches.meta.txt",
                class_names=cifar_files.names_of_text,
                images=partial(cifar_files.images_of_records, label_bytes=1),
            ),
            cifar_files.CifarFiles(
                folder="cifar-10-batches-py",
                archive="cifar-10-python.tar.gz",
                train_files=tuple(f"data_batch_{number}" for number in range(1, 6)),
                test_file="test_batch",
                names_file="batches.meta",
                class_names=partial(cifar_files.names_of_pickle, key="label_names"),
                images=partial(cifar_files.images_of_pickle, key="labels"),
            ),
        ),
        repository="uoft-cs/cifar10",
        label_column="label",
    ),
    "cifar100": _Published(
        title="CIFAR-100",
        classes=tuple(_FINE_LABELS.split()),
        forms=(
            cifar_files.CifarFiles(
                folder="cifar-100-binary",
                archive="cifar-100-binary.tar.gz",
                train_files=("train.bin",),
                test_file="test.bin",
                names_file="fine_label_names.txt",
                class_names=cifar_files.names_of_text,
                images=partial(cifar_files.images_of_records, label_bytes=2),
            ),
            cifar_files.CifarFiles(
                folder="cifar-100-python",
                archive="cifar-100-python.tar.gz",
                train_files=("train",),
                test_file="test",
                names_file="meta",
                class_names=partial(cifar_files.names_of_pickle, key="fine_label_names"),
                images=partial(cifar_files.images_of_pickle, key="fine_labels"),
            ),
        ),
        repository="uoft-cs/cifar100",
        label_column="fine_label",
    ),
}


def _find(published: _Published, path: Path) -> tuple[list[Path], Callable[[], Decoded]]:
    """Return the files of a set at path and what decodes them."""
    if path.is_file():
        return [path], partial(_form_of(published, path).decode_archive, published.classes, path)
    for form in published.forms:
        # Keras unpacks an archive to <folder>-target, or names it <folder>.tar.gz.
        places = (path, path / form.folder, path / f"{form.folder}-target" / form.folder)
        for folder in places:
            present = [folder / name for name in form.files if (folder / name).is_file()]
            if len(present) > 1:  # a name like train may be of anything
                return present, partial(form.decode_folder, published.classes, folder)
        for archive in (path / form.archive, path / f"{form.folder}.tar.gz"):
            if archive.is_file():
                return _find(published, archive)
    files = {part: shards(path, part) for part in _PARTS}
    if all(files.values()):
        columns = IMAGE_COLUMNS, published.label_column
        return sum(files.values(), []), partial(decode_parquet, files, *columns, cifar_files.SHAPE[-1])
    forms = " or ".join(f"{form.archive} or its unpacked {form.folder}" for form in published.forms)
    raise FileNotFoundError(
        f"{path} holds no {published.title}, {contents(path)}; put {forms} (www.cs.toronto.edu/~kriz/cifar.html), or the "
        f"parquet of the hub's {published.repository} (train-*.parquet and test-*.parquet, or train/ and test/ with "
        "0000.parquet) there; data.hub=true fetches the latter"
    )


def _form_of(published: _Published, path: Path) -> cifar_files.CifarFiles:
    """Return the form of an archive."""
    folder = cifar_files.folder_in(path) if path.name.endswith((".tar.gz", ".tgz")) else ""
    for form in published.forms:
        if form.folder == folder:
            return form
    forms = " or ".join(f"{form.folder}/ ({form.archive})" for form in published.forms)
    held = f"it holds {folder}/" if folder else "it is no .tar.gz of a folder"
    raise ValueError(f"{path} is no archive of {published.title}, which holds {forms}; {held}")


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

    path: an official archive, binary or for Python (cifar-10-binary.tar.gz, cifar-10-python.tar.gz), its unpacked folder, a
    folder that holds either, as torchvision and Keras leave them, or a folder with the hub's parquet: train-*.parquet and
    test-*.parquet, or train/0000.parquet and so on (needs the extra `parquet`). Pickles run no code. hub: fetch the parquet
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
    notes = "; ".join(filter(None, [decoded.notes, snapshot_note(files)]))
    return splits_of(decoded.parts["train"], decoded.parts["test"], val_count, published.classes, notes)
