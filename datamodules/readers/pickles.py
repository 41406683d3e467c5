"""Pickled arrays of others, read without running anything."""

import io
import pickle
from typing import Any

import numpy as np

_RECONSTRUCT = np.empty(0).__reduce__()[0]
# What pickles of arrays, numbers and bytes name, as numpy 1 and 2 and Python 2 and 3 write them.
_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("_codecs", "encode"): lambda text, encoding: text.encode(encoding),
}


class _Arrays(pickle.Unpickler):
    """Builds arrays, numbers, text, bytes, lists and dicts, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle names. Raises UnpicklingError where that is none of what arrays need."""
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not run") from None


def read_pickle(name: str, data: bytes) -> Any:
    """Return what a pickle of arrays, numbers, text, bytes, lists and dicts holds; text of Python 2 as bytes.

    Raises ValueError, beginning with name, where it is damaged or holds anything else.
    """
    try:
        return _Arrays(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # damaged pickles raise what any constructor raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{name} is no pickle of arrays, numbers and text alone ({reason})") from error
