"""Parquet files as the Hugging Face hub has them: fetched (extra `hub`), and their small images decoded (extra `parquet`)."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from datamodules.readers import preparation
from datamodules.readers.decoded import Decoded, Part
from datamodules.readers.encoded import PILLOW_ERRORS

Found = TypeVar("Found")

_BATCH = 64  # rows in memory at a time


def shards(folder: Path, split: str, config: str = "") -> list[Path]:
    """List the files of a split in folder and below, in order: <split>-<i>-of-<n>.parquet, or <split>/<i>.parquet as the hub
    converts sets; none if there is none.

    config: the folder of one configuration of a set, which is taken where there is one. Where a cache of the hub's client
    holds several snapshots, the newest is taken.
    Raises FileNotFoundError if some of the n, or of those before the last, are missing; ValueError if files are of
    several sets: two have one name, or another n.
    """
    published, converted = (
        _newest([path for path in every if config in path.parts] or every)
        for every in (sorted(folder.rglob(f"{split}{rest}.parquet")) for rest in ("-*", "/*"))
    )
    numbered = [match for path in published if (match := re.search(r"-(\d+)-of-(\d+)\.parquet$", path.name))]
    totals = {int(match[2]) for match in numbered}
    total = max(totals, default=0)
    missing = [
        f"{split}-{i:05d}-of-{total:05d}" for i in sorted({*range(total)} - {int(match[1]) for match in numbered})
    ]
    if not published:
        present = {int(path.stem) for path in converted if path.stem.isdecimal()}
        missing = [f"{split}/{i:04d}" for i in sorted({*range(max(present, default=0))} - present)]
    files = published or converted
    if len(totals) > 1 or len({path.name for path in files}) < len(files):
        first, last = (files[place].relative_to(folder) for place in (0, -1))
        raise ValueError(
            f"{folder} must hold the {split} files of one set, got those of several, {first} to {last}; remove the others"
        )
    if missing:
        raise FileNotFoundError(f"{folder}: {missing[0]}.parquet is missing; fetch it, or all files with data.hub=true")
    return files


def _newest(every: Sequence[Path]) -> list[Path]:
    snapshots = {snapshot for snapshot in map(_snapshot, every) if snapshot is not None}
    newest = max(snapshots, key=lambda snapshot: (snapshot.stat().st_mtime_ns, snapshot.name), default=None)
    return [path for path in every if newest in (None, _snapshot(path))]


def _snapshot(path: Path) -> Path | None:
    """Return the snapshot that a file of the client's cache is of: <set>/snapshots/<commit>/<file>."""
    return next((parent for parent in path.parents if parent.parent.name == "snapshots"), None)


def snapshot_note(files: Sequence[Path]) -> str:
    """Return what a reader of a result must know of files of the client's cache: which of several snapshots; "" normally."""
    snapshot = _snapshot(files[0]) if files else None
    several = 0 if snapshot is None else sum(entry.is_dir() for entry in snapshot.parent.iterdir())
    return f"of {several} snapshots the newest, {snapshot.name}" if snapshot is not None and several > 1 else ""


def fetch(repository: str, patterns: Sequence[str], folder: Path) -> None:
    """Fetch the files of a data set's repository that match patterns into folder; what is there already is not fetched again.

    HF_ENDPOINT, HF_TOKEN and their like are the client's own environment variables.
    Raises ImportError without the extra `hub`, FileNotFoundError where the hub does not give the files and
    ConnectionError where it cannot be reached.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
        from huggingface_hub.utils import tqdm
    except ImportError as error:
        raise ImportError('data.hub=true needs huggingface_hub: pip install -e ".[hub]"') from error
    otherwise = f"put its files into {folder}"
    tell, one_at_a_time, fetched = preparation.listener(), Lock(), 0

    class ReportingBar(tqdm):
        """Report what has arrived, in MB, beside the client's own bars."""

        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            self.came = 0
            self.of_bytes = keywords.get("unit") == "B"
            super().__init__(*arguments, **keywords)

        def update(self, n: float | None = 1) -> bool | None:
            nonlocal fetched
            with one_at_a_time:  # the client calls from a thread per file
                self.came += int(n or 0)
                if self.of_bytes and self.came > fetched:  # the newest clients count bytes twice: come and written
                    fetched = self.came
                    tell(f"fetching {repository}, MB", fetched // 10**6, 0)
                return super().update(n)

    try:
        snapshot_download(
            repository, repo_type="dataset", allow_patterns=list(patterns), local_dir=folder, tqdm_class=ReportingBar
        )
    except HfHubHTTPError as error:
        raise FileNotFoundError(
            f"the hub does not give {repository} (status {error.response.status_code}); accept its terms and log in "
            f"(hf auth login), or {otherwise}"
        ) from error
    except Exception as error:  # the client's transport has exceptions of its own, others in each major version
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConnectionError(
            f"the hub cannot be reached for {repository} ({reason}); try again or {otherwise}"
        ) from error


def find_or_fetch(
    find: Callable[[], Found], hub: bool, repository: str, patterns: Sequence[str], folder: Path
) -> Found:
    """Return what find returns; with hub, where it raises FileNotFoundError, fetch the files first."""
    try:
        return find()
    except FileNotFoundError:
        if not hub:
            raise
    fetch(repository, patterns, folder)
    return find()


@contextmanager
def opened(path: Path, image: str, label: str) -> Iterator[Any]:
    """Open a parquet file with these two columns, as pyarrow's ParquetFile.

    Raises ImportError without pyarrow, and ValueError naming the file for what goes wrong within the context.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ImportError('reading parquet needs pyarrow: pip install -e ".[parquet]"') from error
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (ArrowException, KeyError, TypeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} must be parquet with the columns {image} and {label} ({reason})") from error


def rows(path: Path, image: str, label: str) -> Iterator[tuple[bytes | None, int]]:
    """Yield of each row the bytes of the image, a struct, None where it has none, and the class. Raises as ``opened``."""
    with opened(path, image, label) as file:
        for batch in file.iter_batches(_BATCH, columns=[image, label]):
            for encoded, number in zip(batch[image].to_pylist(), batch[label].to_pylist(), strict=True):
                yield encoded.get("bytes") if isinstance(encoded, dict) else None, int(number)


def decode_parquet(files: dict[str, list[Path]], images: Sequence[str], label: str, size: int) -> Decoded:
    """Decode images of size x size pixels, by split, from a column of images (structs with the bytes) and label (integers).

    images: names that the column may have, the first one present is taken.

    Raises ValueError naming the file and the row that is no such image, ImportError without pyarrow.
    """
    formats: set[str | None] = set()
    with opened(next(iter(files.values()))[0], images[0], label) as file:
        image = next((name for name in images if name in file.schema_arrow.names), images[0])

    def decode(encoded: bytes | None, place: str) -> np.ndarray:
        try:
            picture = Image.open(io.BytesIO(encoded or b""))
            pixels = np.asarray(picture.convert("RGB"))
        except PILLOW_ERRORS as error:
            raise ValueError(f"{place}: {image}.bytes must be an encoded image ({error})") from error
        if pixels.shape != (size, size, 3):
            raise ValueError(f"{place}: an image must be {size}x{size}, got {picture.height}x{picture.width}")
        formats.add(picture.format)
        return pixels.transpose(2, 0, 1)

    def count(path: Path) -> int:
        with opened(path, image, label) as file:
            return file.metadata.num_rows

    def read(paths: list[Path]) -> Part:
        pixels = np.empty((sum(map(count, paths)), 3, size, size), dtype=np.uint8)
        labels: list[int] = []
        for path in paths:
            for row, (encoded, number) in enumerate(rows(path, image, label)):
                pixels[len(labels)] = decode(encoded, f"{path} row {row}")
                labels.append(number)
        return Part(pixels, np.array(labels, dtype=np.int64))

    parts = {split: read(paths) for split, paths in files.items()}
    return Decoded(parts, notes="lossy JPEG" if "JPEG" in formats else "")
