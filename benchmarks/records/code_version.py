"""Which code made a run: the hash of what its numbers depend on. Imports no torch."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]  # the checkout, or where packages are installed
IS_CHECKOUT = (ROOT / "pyproject.toml").is_file()
TRAINING = (
    "lightning_modules/**/*.py",
    "datamodules/**/*.py",
    "benchmarks/training/*.py",
    "benchmarks/complexity/counting.py",
    "benchmarks/complexity/cost.py",
)


@lru_cache
def training_sha256() -> str:
    """SHA-256 over names and contents of the source files that train and test; launching and reports are not among them."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in TRAINING for path in ROOT.glob(pattern)}):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def made_by_other_code(record: Mapping[str, Any]) -> bool:
    """Whether a run was made by other training code than this; not where no rank came as far as to write the code's hash."""
    code = record.get("code") or {}
    return bool(code) and code.get("training_sha256") != training_sha256()
