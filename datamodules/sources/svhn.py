"""SVHN's cropped digits (Netzer et al. 2011, Reading Digits in Natural Images with Unsupervised Feature Learning)."""

import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from datamodules.readers.decoded import Decoded, Part, decoded_once, gather
from datamodules.readers.hub import decode_parquet, find_or_fetch, shards, snapshot_note
from datamodules.readers.listing import contents
from datamodules.readers.splits import Splits, hold_out_each

REPOSITORY = "ufldl-stanford/svhn"
CONFIG = "cropped_digits"
_CLASSES = 10
_SIZE = 32


def _decode_mat(path: Path, part: str) -> Decoded:
    """Decode one <part>_32x32.mat: X uint8 [32, 32, 3, N]: rows, columns, colours, images; y [N, 1], 1..10, 10 for digit 0."""
    try:
        variables = loadmat(path, variable_names=["X", "y"])
        images, labels = variables["X"], variables["y"]
    except (MatReadError, NotImplementedError, KeyError, ValueError, TypeError, OSError, zlib.error) as error:
        raise ValueError(f"{path} must be a MATLAB 5 file with X and y ({error}); fetch it again") from error
    if images.dtype != np.uint8 or images.shape[:3] != (_SIZE, _SIZE, 3) or labels.shape != (*images.shape[3:], 1):
        raise ValueError(
            f"{path} must hold X uint8 [{_SIZE}, {_SIZE}, 3, N] and y [N, 1], got {images.dtype} {list(images.shape)} and "
            f"{list(labels.shape)}"
        )
    digits = labels.ravel().astype(np.int64)
    if digits.min() < 1:
        raise ValueError(f"{path}: labels must be 1..10, where 10 is the digit 0, got {digits.min()}")
    digits[digits == 10] = 0
    # A view; what writes it to disk reads it in pieces.
    return Decoded({part: Part(images.transpose(3, 2, 0, 1), digits)})


def _find(path: Path, part: str) -> tuple[list[Path], Callable[[], Decoded]]:
    """Return the files of a part at path and what decodes them."""
    mat = path / f"{part}_32x32.mat"
    if mat.is_file():
        return [mat], partial(_decode_mat, mat, part)
    # The hub's repository has another configuration beside this one, of whole house numbers.
    files = shards(path, part, CONFIG)
    if files:
        return files, partial(decode_parquet, {part: files}, ["image"], "label", _SIZE)
    raise FileNotFoundError(
        f"{path} holds no {mat.name} of SVHN, {contents(path)}; put that (ufldl.stanford.edu/housenumbers) or "
        f"{part}-*.parquet of {CONFIG} of the hub's {REPOSITORY} there (data.hub=true fetches these)"
    )


def load_svhn(
    path: str | Path,
    cache_dir: str | Path,
    extra: bool = True,
    hub: bool = False,
    train_count: int = 73_257,
    extra_count: int = 531_131,
    test_count: int = 26_032,
    val_from_train: int = 400,
    val_from_extra: int = 200,
) -> Splits:
    """Return 598,388 / 6,000 / 26,032 images uint8 [N, 3, 32, 32] of ten digits, the training and the extra images together.

    path: a folder with train_32x32.mat, extra_32x32.mat and test_32x32.mat, or the parquet of the hub's
    ufldl-stanford/svhn, cropped_digits (needs the extra `parquet`). extra: false leaves the extra images out. hub: fetch the
    parquet into path where it lacks a part (needs the extra `hub`). Each part is decoded once and kept as .npy files in a
    subfolder of cache_dir; the images take 1.8 GB of memory. val: 400 images of each class from train and 200 from extra, as
    in Sermanet, Chintala and LeCun 2012 (Convolutional Neural Networks Applied to House Numbers Digit Classification), which
    rows is ours; without extra, as many all from train.
    Raises FileNotFoundError on missing files and ValueError on damaged ones or other counts. ImportError without pyarrow
    when the files are parquet; what fetch raises.
    """
    path = Path(path)
    counts = {"train": train_count, **({"extra": extra_count} if extra else {}), "test": test_count}
    patterns = [f"{CONFIG}/{part}-*.parquet" for part in counts]
    sources = find_or_fetch(lambda: {part: _find(path, part) for part in counts}, hub, REPOSITORY, patterns, path)

    def read(part: str) -> Decoded:
        def check(decoded: Decoded) -> None:
            decoded.parts[part].check(path, part, counts[part], _CLASSES)

        files, decode = sources[part]
        return decoded_once(f"svhn-{part}", files, [part], decode, check, Path(cache_dir))

    decoded = {part: read(part) for part in counts}
    parts = {name: one.parts[name] for name, one in decoded.items()}
    per_class = (
        {"train": val_from_train, "extra": val_from_extra} if extra else {"train": val_from_train + val_from_extra}
    )
    notes = {one.notes for one in decoded.values()} | {snapshot_note(files) for files, _ in sources.values()}
    drawn = [(parts[name], *hold_out_each(parts[name].labels, count, seed=0)) for name, count in per_class.items()]
    return Splits(
        train=gather([(part, rest) for part, rest, _ in drawn]),
        val=gather([(part, held_out) for part, _, held_out in drawn]),
        test=gather([(parts["test"], np.arange(test_count))]),
        classes=tuple(str(digit) for digit in range(_CLASSES)),
        notes="; ".join(sorted(notes - {""})),
    )
