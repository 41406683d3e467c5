"""Published sets as torchvision, Keras, their authors and the hub leave them on a disk."""

import gzip
import os
import pickle
import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from support.data_files import (
    SMALL,
    SMALL_100,
    SMALL_SVHN,
    as_python_2,
    cifar100_files,
    cifar100_pickles,
    cifar_arrays,
    cifar_files,
    cifar_pickles,
    one_line,
    svhn_arrays,
    write_archive,
    write_binary,
    write_parquet,
    write_shard,
    write_svhn_parquet,
)

from datamodules.readers.hub import shards
from datamodules.readers.pickles import read_pickle
from datamodules.sources.cifar import load_cifar
from datamodules.sources.fashion_mnist import load_fashion_mnist, load_mnist
from datamodules.sources.svhn import load_svhn

needs_pyarrow = pytest.mark.skipif(not __import__("importlib.util").util.find_spec("pyarrow"), reason="needs pyarrow")

# CIFAR


def test_cifar10_for_python_is_the_binary_cifar10(tmp_path: Path) -> None:
    binary = load_cifar("cifar10", write_binary(tmp_path / "binary", cifar_files()), tmp_path / "cache", **SMALL)
    places = []
    for name, dump in {
        "authors": as_python_2,
        "python 3": partial(pickle.dumps, protocol=2),
        "4": pickle.dumps,
    }.items():
        write_binary(tmp_path / name / "cifar-10-batches-py", cifar_pickles(dump))  # as torchvision unpacks it
        places.append(tmp_path / name)
    write_binary(tmp_path / "keras" / "cifar-10-batches-py-target" / "cifar-10-batches-py", cifar_pickles())
    (tmp_path / "packed").mkdir()
    (tmp_path / "old keras").mkdir()
    packed = write_archive(tmp_path / "packed" / "cifar-10-python.tar.gz", cifar_pickles(), "cifar-10-batches-py")
    write_archive(tmp_path / "old keras" / "cifar-10-batches-py.tar.gz", cifar_pickles(), "cifar-10-batches-py")
    places += [places[0] / "cifar-10-batches-py", tmp_path / "keras", packed, packed.parent, tmp_path / "old keras"]
    for place in places:
        assert load_cifar("cifar10", place, tmp_path / "cache", **SMALL).checksum() == binary.checksum(), place
    assert np.array_equal(binary.test.images.numpy(), cifar_arrays()[2])


def test_cifar100_for_python_is_the_binary_cifar100(tmp_path: Path) -> None:
    binary = load_cifar(
        "cifar100", write_binary(tmp_path / "binary", cifar100_files()), tmp_path / "cache", **SMALL_100
    )
    write_binary(tmp_path / "unpacked" / "cifar-100-python", cifar100_pickles())
    (tmp_path / "packed").mkdir()
    write_archive(tmp_path / "packed" / "cifar-100-python.tar.gz", cifar100_pickles(), "cifar-100-python")
    for place in ("unpacked", "packed"):
        splits = load_cifar("cifar100", tmp_path / place, tmp_path / "cache", **SMALL_100)
        assert splits.checksum() == binary.checksum()


class Runs:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    for content in ({"data": Runs(trap)}, Runs(trap), [np.array([Runs(trap)], dtype=object)]):
        with pytest.raises(ValueError, match=r"^evil is no pickle of arrays.*names posix.mkdir, which is not run"):
            read_pickle("evil", pickle.dumps(content))
    files = cifar_pickles() | {"test_batch": pickle.dumps({"data": Runs(trap), "labels": [0]})}
    with pytest.raises(ValueError, match="test_batch is no pickle of arrays.*posix.mkdir, which is not run") as error:
        load_cifar("cifar10", write_binary(tmp_path / "cifar-10-batches-py", files), tmp_path / "cache", **SMALL)
    one_line(error)
    assert not trap.exists()
    for name in ("eval", "getattr", "open"):
        with pytest.raises(ValueError, match="which is not run"):
            read_pickle("evil", f"cbuiltins\n{name}\n(S'1'\ntR.".encode())


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("data_batch_2", b"", "data_batch_2 is no pickle of arrays"),
        ("data_batch_2", pickle.dumps([1]), "data_batch_2 must hold a dict with data, it holds list"),
        ("data_batch_2", pickle.dumps({"images": 1}), "data_batch_2 must hold a dict with data, it holds images"),
        ("data_batch_2", pickle.dumps({"data": np.zeros((2, 3)), "labels": [1, 2]}), r"uint8 \[N, 3072\] under data"),
        ("data_batch_2", pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}), "must hold 2 integers"),
        ("batches.meta", pickle.dumps({"label_names": ["cat"]}), "batches.meta must name airplane, .*, got cat"),
    ],
)  # fmt: skip
def test_damaged_pickles_are_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    folder = write_binary(tmp_path / "cifar-10-batches-py", cifar_pickles() | {name: data})
    with pytest.raises(ValueError, match=message) as error:
        load_cifar("cifar10", folder, tmp_path / "cache", **SMALL)
    assert str(folder) in one_line(error)


def test_what_is_not_read_is_named_with_what_is(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "cifar-100-python.tar.gz", cifar100_pickles(), "cifar-100-python")
    with pytest.raises(ValueError) as error:
        load_cifar("cifar10", archive, tmp_path / "cache")
    assert "is no archive of CIFAR-10, which holds cifar-10-batches-bin/" in one_line(error)
    assert "it holds cifar-100-python/" in one_line(error) and "fetch" not in one_line(error)
    (tmp_path / "cifar10.npz").write_bytes(b"x")
    with pytest.raises(ValueError, match="cifar10.npz is no archive of CIFAR-10, .*; it is no .tar.gz of a folder"):
        load_cifar("cifar10", tmp_path / "cifar10.npz", tmp_path / "cache")
    with pytest.raises(FileNotFoundError) as found:
        load_cifar("cifar10", tmp_path, tmp_path / "cache")
    message = one_line(found)
    assert (
        "holds no CIFAR-10, it holds cifar-100-python.tar.gz, cifar10.npz; put cifar-10-binary.tar.gz or its" in message
    )
    assert "cifar-10-python.tar.gz or its unpacked cifar-10-batches-py" in message and "again" not in message


# The hub


def write_converted(folder: Path) -> Path:
    """As the hub's branch refs/convert/parquet has a set."""
    train, train_labels, test, test_labels = cifar_arrays()
    write_shard(folder / "plain_text" / "train" / "0000.parquet", train[:120], {"label": train_labels[:120]}, "image")
    write_shard(folder / "plain_text" / "train" / "0001.parquet", train[120:], {"label": train_labels[120:]}, "image")
    write_shard(folder / "plain_text" / "test" / "0000.parquet", test, {"label": test_labels}, "image")
    return folder


@needs_pyarrow
def test_the_hubs_conversion_is_the_set(tmp_path: Path) -> None:
    converted = load_cifar("cifar10", write_converted(tmp_path / "converted"), tmp_path / "cache", **SMALL)
    assert (
        converted.checksum() == load_cifar("cifar10", write_parquet(tmp_path / "p"), tmp_path / "c", **SMALL).checksum()
    )
    (tmp_path / "converted" / "plain_text" / "train" / "0000.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="converted: train/0000.parquet is missing"):
        shards(tmp_path / "converted", "train")


@needs_pyarrow
def test_of_two_snapshots_in_the_clients_cache_the_newer_is_read_and_said(tmp_path: Path) -> None:
    cache = tmp_path / "datasets--uoft-cs--cifar10"
    for number, commit in enumerate(("b" * 6, "a" * 6)):
        snapshot = write_parquet(cache / "snapshots" / commit, ("JPEG", "PNG")[number])
        os.utime(snapshot, ns=(number * 10**9, number * 10**9))
    splits = load_cifar("cifar10", cache, tmp_path / "cache", **SMALL)
    assert splits.notes == "of 2 snapshots the newest, aaaaaa"  # PNG: not "lossy JPEG"
    one = load_cifar("cifar10", cache / "snapshots" / ("b" * 6), tmp_path / "cache", **SMALL)
    assert one.notes.startswith("lossy JPEG")

    svhn = tmp_path / "datasets--ufldl-stanford--svhn"
    for number, commit in enumerate(("b" * 6, "a" * 6)):
        os.utime(write_svhn_parquet(svhn / "snapshots" / commit), ns=(number * 10**9, number * 10**9))
    splits = load_svhn(svhn, tmp_path / "cache", **SMALL_SVHN)  # of cropped_digits, not of full_numbers
    assert "of 2 snapshots the newest, aaaaaa" in splits.notes
    assert len(splits.test) == len(svhn_arrays()["test"][0])


# MNIST


def test_mnist_is_found_where_torchvision_and_archives_leave_it(tmp_path: Path) -> None:
    small = struct.pack(">4B3I", 0, 0, 8, 3, 2, 1, 1) + bytes(2)
    forms = {
        "MNIST/raw/train-images-idx3-ubyte": load_mnist,
        "MNIST/raw/train-images-idx3-ubyte.gz": load_mnist,
        "train-images.idx3-ubyte": load_mnist,
        "FashionMNIST/raw/train-images.idx3-ubyte.gz": load_fashion_mnist,
    }
    for number, (name, load) in enumerate(forms.items()):
        file = tmp_path / str(number) / name
        file.parent.mkdir(parents=True)
        file.write_bytes(gzip.compress(small) if name.endswith(".gz") else small)
        with pytest.raises(ValueError, match=r"train-images.* must hold 60000 entries, got 2") as error:
            load(tmp_path / str(number))
        assert one_line(error).startswith(str(file))
    (tmp_path / "mnist.npz").write_bytes(b"x")
    with pytest.raises(
        FileNotFoundError, match=r"train-images-idx3-ubyte\[.gz\] is missing, it holds .*mnist.npz; put"
    ):
        load_mnist(tmp_path)
