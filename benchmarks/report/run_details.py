"""What a run was: configuration, protocol, data, reference counts, complexity, environment."""

import os
import re
from collections.abc import Callable, Hashable, Iterable
from itertools import pairwise
from typing import Any

from benchmarks.complexity.reference_counts import reference_counts_of
from benchmarks.config.trial import flatten
from benchmarks.records.files import CONFIG, read_bytes
from benchmarks.records.runs import Run
from benchmarks.units import number, one_line, printable

# A title with its rows (name, text), with lines of text, or with a matrix: classes and, by true class, the predicted counts.
Section = tuple[str, list[tuple[str, str]] | str | dict[str, Any]]
CONFUSION = "confusion"  # a part that is no table
SEED = "\0"  # no text of a configuration has it
MOST_CLASSES = 100  # of a matrix that can still be read
TITLES = {
    "complexity": "Complexity (one image)",
    "dataset": "Data",
    "parallel": "Parallelism",
    "throughput": "Network alone (python -m benchmarks throughput)",
}


def pooled_details(runs: Iterable[Run]) -> dict[str, Any]:
    """Return the details of runs as their title, their seed, and indices into the sections, each of which is there once.

    Runs of a sweep have most parts in common, word by word, and those that `load_runs` returned hold them once: a section is
    made once for each that differs. In a configuration SEED stands for the run's own, so that seeds have it in common, too.
    """
    places: dict[Hashable, list[int]] = {}
    sections: list[Section] = []

    def place(part: Hashable, make: Callable[..., Section], *arguments: Any) -> list[int]:
        if part not in places:
            section = make(*arguments)
            places[part] = [len(sections)] if section[1] else []
            sections.extend([section] if section[1] else [])
        return places[part]

    configurations: dict[bytes, list[int]] = {}
    details = []
    for index, run in enumerate(runs):
        record = run.record
        own = [*place(index, _alone, run)]
        # A part that a record holds is known by its identity, which no other has while the record is there.
        own += place((run.network, id(record.get("complexity")), id(record.get("dataset"))), _of_reference, run)
        for key, value in record.items():
            if isinstance(value, dict) and key not in (CONFUSION, "overrides"):
                own += place((key, id(value)), _section, key, value)
        classes, counts = run.part("dataset").get("classes"), record.get(CONFUSION)
        if isinstance(classes, list) and isinstance(counts, list):
            own += place((id(classes), id(counts)), _confusion, classes, counts)
        written, seed = _configuration(os.path.join(run.directory, CONFIG)), f"seed: {run.seed}\n"
        shared = written.replace(seed.encode(), f"seed: {SEED}\n".encode())
        if shared not in configurations:
            text = _printable(written).replace(seed, f"seed: {SEED}\n")
            configurations[shared] = [at for block in _blocks(text) for at in place(block, _of_configuration, block)]
        title = f"{run.data} · {run.name} · {run.recipe} · seed {run.seed}"
        details.append([one_line(title), run.seed, own + configurations[shared]])
    return {"sections": sections, "runs": details, "seed": SEED}


def _alone(run: Run) -> Section:
    """Return what is the run's alone: its folder, overrides, and the values of its record that are no tables."""
    values = {key: value for key, value in run.record.items() if key != CONFUSION and not isinstance(value, dict)}
    return "Run", _rows({"folder": str(run.directory), "overrides": run.overrides or "none", **values})


def _section(key: str, content: dict[str, Any]) -> Section:
    """Return the section of a part of a record; an empty one where nothing of it can be shown."""
    return TITLES.get(key, one_line(key).capitalize()), _rows(flatten(content))


def _rows(values: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (one_line(name), one_line(_plain(value)))
        for name, value in values.items()
        if value or isinstance(value, (int, float))  # zero and no, but nothing that is empty
    ]


def _of_configuration(text: str) -> Section:
    return "Configuration", text


def _of_reference(run: Run) -> Section:
    return _section("reference counts", reference_counts(run))


def _confusion(classes: list[Any], counts: list[Any]) -> Section:
    """Return the classes and, by true class, how many images were predicted as each; empty where they cannot be shown."""
    title, squares = "Confusion matrix", all(isinstance(row, list) for row in counts)
    if not (squares and len(counts) == len(classes) <= MOST_CLASSES):
        return title, {}
    if any(number(count) is None for row in counts for count in row):
        return title, {}
    return title, {"classes": [one_line(str(name)) for name in classes], "counts": counts}


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
        "published count": f"{published.source}, input {'×'.join(map(str, published.input_size))}, {len(classes)} classes",
        **{f"published {key}": value for key, value in counts.items()},
        "this run": f"differs: {', '.join(wrong)}" if wrong else "equal in both",
    }


def _configuration(path: str) -> bytes:
    """Return the content of a configuration; empty where it cannot be read."""
    try:
        return read_bytes(path)
    except OSError:
        return b""


def _printable(written: bytes) -> str:
    """Return the text of a file with nothing in it that cannot be shown."""
    return printable(written.decode(errors="replace"))


def _blocks(text: str) -> list[str]:
    """Return the text of a configuration, cut before and after each nested block of its top level."""
    parts: list[str] = []
    starts = [0, *(match.end() for match in re.finditer(r"\n(?=[^\s-])", text)), len(text)]
    for start, end in pairwise(starts):
        block = text[start:end]
        if parts and block.count("\n") <= 1 and parts[-1].count("\n ") == 0:
            parts[-1] += block
        elif block:
            parts.append(block)
    return parts


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:.6g}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return str(len(value))
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    return str(value)
