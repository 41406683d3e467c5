"""What must agree between runs: for results to be averaged over seeds, and for them to be compared.

Each is returned with its key, and made once for all runs that have it in common.
"""

import hashlib
import json
import marshal
from collections.abc import Mapping
from typing import Any

from benchmarks.units import as_key, short_value

OF_ITS_LENGTH = ("budget", "batch_norm_images")  # in a run's protocol: what configuration and number of steps decide
_known: dict[tuple[str, bytes], tuple[dict[str, Any], str]] = {}


def to_average(protocol: dict[str, Any], code: dict[str, Any], others: tuple[Any, ...]) -> tuple[dict[str, Any], str]:
    """Return what must agree, beside the configuration, for results to be averaged.

    Args:
        others: number of test images, checksum of the data, precision.
    """
    parts = "average", marshal.dumps((protocol, code, others), 2)
    if parts not in _known:
        own = code.get("user_code")
        conditions = {
            "protocol": {key: value for key, value in protocol.items() if key not in OF_ITS_LENGTH},
            **dict(zip(("test images", "data", "precision"), others, strict=True)),
            "code": code.get("training_sha256"),
            "own code": hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest() if own else None,
        }
        _known[parts] = conditions, as_key(conditions)
    return _known[parts]


def to_compare(
    protocol: dict[str, Any], overrides: Mapping[str, Any], others: tuple[str | None, int | None, Any]
) -> tuple[dict[str, Any], str]:
    """Return what must agree for results on a data set to be compared, flat; None is not known yet.

    Args:
        overrides: from the recipe, by dotted key; those of the data set count.
        others: reported metric, number of test images, checksum of the data.
    """
    options = {key: value for key, value in overrides.items() if key.startswith("data.")}
    parts = "compare", marshal.dumps((protocol, options, others), 2)
    if parts not in _known:
        kept = {key: value for key, value in protocol.items() if key not in (*OF_ITS_LENGTH, "metric_label")}
        definitions, (metric, n, sha256) = kept.pop("definitions", None), others
        name = (metric or "/").split("/", 1)[1]
        test = {
            **dict.fromkeys(("checkpoint", "split", "metric", "weights")),
            **kept,
            "n": n,
            "test data": sha256,
            "definition": definitions.get(name) if isinstance(definitions, dict) else None,
            "options": ", ".join(f"{key}={short_value(value)}" for key, value in sorted(options.items())),
        }
        _known[parts] = test, as_key(test)
    return _known[parts]
