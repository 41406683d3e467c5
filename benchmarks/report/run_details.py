"""What a run was: configuration, protocol, data, reference counts, complexity, environment."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.complexity.reference_counts import reference_counts_of
from benchmarks.records.files import CONFIG
from benchmarks.records.runs import Run
from benchmarks.units import one_line

# A title with its rows (name, text), or with lines of text.
Section = tuple[str, list[tuple[str, str]] | str]


def pooled_details(runs: Iterable[Run]) -> dict[str, Any]:
    """Return the details of runs as lists of indices into the sections, each of which is there once."""
    sections: dict[str, int] = {}
    details = []
    for run in runs:
        title = f"{run.data} · {run.name} · {run.recipe} · seed {run.seed}"
        parts = [sections.setdefault(json.dumps(section), len(sections)) for section in run_details(run)]
        details.append([one_line(title), parts])
    return {"sections": [json.loads(section) for section in sections], "runs": details}


def run_details(run: Run) -> list[Section]:
    """Return the sections of a run that have something to say; the configuration comes last, in several parts.

    Runs of a sweep have most sections in common, word by word.
    """
    record, part = run.record, run.part
    resumptions = record.get("resumptions")
    code, environment, dataset, protocol = part("code"), part("environment"), part("dataset"), part("protocol")
    tables: dict[str, dict[str, Any]] = {
        "Run": {
            "folder": run.directory,
            "status": run.status,
            "cause": run.error,
            "experiment": record.get("experiment"),
            "recipe": record["recipe"],
            "overrides from the recipe": run.overrides or "none",
            "started": record.get("started"),
            "finished": record.get("finished"),
            "resumptions": len(resumptions) if isinstance(resumptions, list) else None,
            "config hash": record.get("config_hash"),
            "weights (sha256)": record.get("weights_sha256"),
            "W&B run": " ".join(str(value) for value in part("wandb").values()),
        },
        "Protocol": {
            "reported metric": run.metric,
            "label": run.metric_label if run.metric else None,
            "checkpoint": protocol.get("checkpoint"),
            **_prefixed("weights: ", protocol.get("weights")),
            "split": protocol.get("split"),
            **_prefixed("budget: ", protocol.get("budget")),
            **_prefixed("definition of ", protocol.get("definitions")),
        },
        "Metrics": {"value": run.value, "test images": run.n, **part("metrics")},
        "Data": {
            **{f"{split} images": n for split, n in (part("counts") or _mapping(dataset.get("counts"))).items()},
            "image shape": dataset.get("image_shape"),
            "classes": dataset.get("classes"),
            "checksum (sha256)": dataset.get("sha256"),
            "notes": dataset.get("notes"),
            **{f"baseline {key}": value for key, value in run.baselines.items()},
        },
        "Reference counts": reference_counts(run),
        "Complexity (one image)": part("complexity"),
        "Compute": part("compute"),
        "Network alone (python -m benchmarks throughput)": part("throughput"),
        "Code": {
            "version": code.get("version"),
            "commit": code.get("commit"),
            "uncommitted changes (sha256)": code.get("diff_sha256"),
            "training code (sha256)": code.get("training_sha256"),
            **_prefixed("own code (sha256) ", code.get("user_code")),
        },
        "Environment": {
            **{key: value for key, value in environment.items() if key != "packages"},
            **_prefixed("package ", environment.get("packages")),
        },
        "Parallelism": part("parallel"),
    }
    sections: list[Section] = []
    for title, values in tables.items():
        rows = [(one_line(str(key)), one_line(_plain(value))) for key, value in values.items() if not _empty(value)]
        if rows:
            sections.append((title, rows))
    return sections + [("Configuration", lines) for lines in _configuration(run.directory / CONFIG)]


def reference_counts(run: Run) -> dict[str, Any]:
    """Return the published counts of the run's network for its images and classes, and whether the run has them."""
    complexity, classes = run.part("complexity"), run.part("dataset").get("classes")
    if not complexity or not isinstance(classes, list):
        return {}
    published = reference_counts_of(run.network, complexity.get("input_size") or (), len(classes))
    if published is None:
        return {"published count": f"none of a network named {run.network} for these images and classes"}
    counts = {"parameters": published.params, "MACs": published.macs}
    ours = {"parameters": complexity.get("params"), "MACs": complexity.get("macs")}
    wrong = [f"{_plain(ours[key])} {key}" for key in counts if ours[key] != counts[key]]
    return {
        "published count": f"{published.source}, input {_shape(list(published.input_size))}, {len(classes)} classes",
        **{f"published {key}": value for key, value in counts.items()},
        "this run": f"differs: {', '.join(wrong)}" if wrong else "equal in both",
    }


def _configuration(path: Path) -> list[str]:
    """Return the text of a configuration, cut before and after each nested block of its top level."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    if not text.replace("\n", "").isprintable():
        text = "".join(char if char.isprintable() or char == "\n" else "�" for char in text)
    parts: list[str] = []
    for block in re.split(r"(?m)^(?=[^\s-])", text):
        if parts and block.count("\n") <= 1 and parts[-1].count("\n ") == 0:
            parts[-1] += block
        elif block:
            parts.append(block)
    return parts


def _shape(size: Any) -> str:
    return "×".join(map(str, size)) if isinstance(size, list) else "unknown"


def _prefixed(prefix: str, values: Any) -> dict[str, Any]:
    return {f"{prefix}{key}": value for key, value in _mapping(values).items()}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _empty(value: Any) -> bool:
    return value is None or value == "" or value == []


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    return str(value)
