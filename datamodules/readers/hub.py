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

_BATCH = 1000  # rows decoded at a time: bounds what is in memory beside the result


def shards(folder: Path, split: str) -> list[Path]:
    """List the files <split>-<i>-of-<n>.parquet in folder and below, in order; none if there is none.

    Raises FileNotFoundError if some of the n are missing.
    """
    paths = sorted(folder.rglob(f"{split}-*.parquet"))
    numbered = [re.search(r"-(\d+)-of-(\d+)\.parquet$", path.name) for path in paths]
    total = max((int(match[2]) for match in numbered if match), default=0)
    missing = set(range(total)) - {int(match[1]) for match in numbered if match}
    if missing:
        raise FileNotFoundError(
            f"{folder}: {split}-{min(missing):05d}-of-{total:05d}.parquet is missing; fetch it, or all files with data.hub=true"
        )
    return paths


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


def decode_parquet(files: dict[str, list[Path]], image: str, label: str, size: int) -> Decoded:
    """Decode images of size x size pixels, by split, from the columns image (a struct with the bytes) and label (integers).

    Raises ValueError naming the file and the row that is no such image, ImportError without pyarrow.
    """
    formats: set[str | None] = set()

    def decode(encoded: dict[str, bytes], place: str) -> np.ndarray:
        try:
            picture = Image.open(io.BytesIO(encoded["bytes"]))
            pixels = np.asarray(picture.convert("RGB"))
        except (*PILLOW_ERRORS, KeyError) as error:
            raise ValueError(f"{place}: {image}.bytes must be an encoded image ({error})") from error
        if pixels.shape != (size, size, 3):
            raise ValueError(f"{place}: an image must be {size}x{size}, got {picture.height}x{picture.width}")
        formats.add(picture.format)
        return pixels.transpose(2, 0, 1)

    def count(path: Path) -> int:
        with opened(path, image, label) as file:
            return file.metadata.num_rows

    def read(paths: list[Path]) -> Part:
        images = np.empty((sum(map(count, paths)), 3, size, size), dtype=np.uint8)
        labels: list[int] = []
        for path in paths:
            first = len(labels)
            with opened(path, image, label) as file:
                for batch in file.iter_batches(_BATCH, columns=[image, label]):
                    start = len(labels)
                    labels.extend(batch.column(label).to_pylist())
                    for row, encoded in enumerate(batch.column(image).to_pylist(), start):
                        images[row] = decode(encoded, f"{path} row {row - first}")
        return Part(images, np.array(labels, dtype=np.int64))

    parts = {split: read(paths) for split, paths in files.items()}
    return Decoded(parts, notes="lossy JPEG" if "JPEG" in formats else "")
