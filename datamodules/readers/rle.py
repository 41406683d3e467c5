"""COCO's run-length encoding of masks (cocodataset/cocoapi, common/maskApi.c): lengths of runs of 0 and 1 in turn, column by
column, the first of 0; and the same as text."""

from collections.abc import Sequence

import numpy as np


def encode(mask: np.ndarray) -> list[int]:
    """Return the run lengths of a mask [H, W]."""
    pixels = np.asarray(mask != 0).T.ravel()
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    edges = np.concatenate([[0], changes, [len(pixels)]])
    runs = np.diff(edges).tolist()
    return [0, *runs] if len(pixels) and pixels[0] else runs


def decode(runs: Sequence[int], height: int, width: int) -> np.ndarray:
    """Return the mask uint8 [height, width]. Raises ValueError if the runs are not its pixels' number."""
    lengths = np.asarray(runs, np.int64)
    if (lengths < 0).any() or lengths.sum() != height * width:
        raise ValueError(f"its runs must add up to {height} x {width} pixels, got {int(lengths.sum())}")
    values = np.arange(len(lengths), dtype=np.uint8) % 2
    return np.ascontiguousarray(np.repeat(values, lengths).reshape(width, height).T)


def to_text(runs: Sequence[int]) -> str:
    """Return run lengths as COCO's text: from the fourth on differences to the one before the last, 5 bits a character."""
    text = []
    for place, run in enumerate(runs):
        rest = run - runs[place - 2] if place > 2 else run
        more = True
        while more:
            bits = rest & 31
            rest >>= 5
            more = rest != (-1 if bits & 16 else 0)
            text.append(chr(48 + bits + 32 * more))
    return "".join(text)


def from_text(text: str) -> list[int]:
    """Return the run lengths of COCO's text. Raises ValueError on other text."""
    runs: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"its counts hold {character!r}, which is no run-length code")
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                number -= 1 << shift
            runs.append(number + runs[-2] if len(runs) > 2 else number)
            number = shift = 0
    if shift:
        raise ValueError("its counts end within a run")
    return runs
