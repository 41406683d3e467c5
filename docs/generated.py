"""The pages of the site that are made when it is built, from code, configuration and records. A hook of MkDocs (mkdocs.yml)."""

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from inspect import cleandoc
from itertools import takewhile
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from benchmarks.__main__ import COMMANDS, Command, Paragraphs, find, parser_of
from benchmarks.analysis.estimates import estimates
from benchmarks.analysis.seeds import same_but_seed
from benchmarks.records import record
from benchmarks.records.runs import Run, load_runs
from benchmarks.units import duration, si

CONF = Path(__file__).parents[1] / "conf"
GROUPS = {
    "model": "The networks.",
    "backbone": "What a detector stands on.",
    "data": "The data sets.",
    "recipe": "How a network is trained. `<model>_<data>` is taken by itself where there is such a file.",
    "experiment": "The papers' tables and our own comparisons: `run.py experiment=NAME` runs what is missing.",
    "trainer": "Devices, budgets, precision and training options.",
    "cluster": "Where trials run.",
    "logger": "Mirrors of the local record; several at once: `'logger=[wandb,tensorboard]'`.",
}
WITH_KEYS = (
    "trainer/default",
    "cluster/local",
    "cluster/slurm",
    "cluster/ray",
    "cluster/hosts",
    "logger/wandb",
    "logger/mlflow",
    "logger/trackio",
    "recipe/common",
)


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to those of docs/. Called by MkDocs."""
    from mkdocs.structure.files import File

    pages = {
        "reference/configuration.md": configuration,
        "reference/commands.md": commands,
        "reference/record.md": record_fields,
        "results.md": results,
    }
    for name, page in pages.items():
        files.append(File.generated(config, name, content=page()))
    return files


def configuration() -> str:
    """Return the keys of conf/config.yaml, the choices of every group, and the keys of the groups that all runs share."""
    lines = [
        "# Configuration",
        "",
        "Made from the comments in `conf/` when this site is built. Any key can be set on the command line, `KEY=VALUE`, and "
        "with `-m` swept over values, `KEY=A,B`. A group is chosen by its name: `model=densenet`. `--cfg job` after any of "
        "these prints the whole configuration, with `-m` that of each run, and runs nothing.",
        "",
        "## Keys of every run",
        "",
        *_key_table(CONF / "config.yaml", skip=("defaults", "task", "loading", "module", "datamodule")),
    ]
    for group, meaning in GROUPS.items():
        lines += ["", f"## `{group}`", "", meaning, "", "| choice | what |", "| --- | --- |"]
        for path in sorted((CONF / group).glob("*.yaml")):
            lines.append(f"| `{group}={path.stem}` | {_cell(_header(path))} |")
        for name in (name for name in WITH_KEYS if name.startswith(f"{group}/")):
            path = CONF / f"{name}.yaml"
            package = re.match(r"# @package ([a-z]\w*(?:\.\w+)*)\n", path.read_text(encoding="utf-8"))
            lines += [
                "",
                f"### Keys of `{name.replace('/', '=')}`",
                "",
                *_key_table(path, prefix=package[1] if package else group),
            ]
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Return what every command says of itself."""
    lines = [
        "# Commands",
        "",
        "`python run.py` makes runs; `python run.py --help` lists groups and choices. Around the runs:",
        "",
    ]
    for names, command in _all_commands(COMMANDS):
        name = f"python -m benchmarks {' '.join(names)}"
        lines += [f"{'#' * (len(names) + 1)} `{' '.join(names)}`", ""]
        lines += (
            ["```text", _help(names), "```", ""]
            if command.module
            else [f"{command.help[0].upper()}{command.help[1:]}. `{name} COMMAND`", ""]
        )
    return "\n".join(lines)


def record_fields() -> str:
    """Return the blocks of record.json with their fields, from the dataclasses that write them."""
    lines = [
        "# The record of a run",
        "",
        "`record.json` lies in the folder of a run ([what else is there](../start.md#what-a-run-leaves)).",
        "Its blocks, made from the classes in `benchmarks/records/record.py` that write them:",
        "",
    ]
    blocks = [block for block in vars(record).values() if is_dataclass(block) and block.__module__ == record.__name__]
    for block in sorted(blocks, key=lambda block: block is not record.Record):
        text, _, attributes = cleandoc(block.__doc__ or "").replace("``", "`").partition("Attributes:\n")
        meanings = {
            name: meaning.strip(" .")
            for names, _, meaning in (line.partition(":") for line in attributes.splitlines())
            for name in names.strip().split(", ")
        }
        hints = get_type_hints(block)
        lines += [f"## {block.__name__}", "", text.strip(), "", "| field | type | meaning |", "| --- | --- | --- |"]
        lines += [
            f"| `{one.name}` | {_type(hints[one.name])} | {meanings.get(one.name, '')} |" for one in fields(block)
        ] + [""]
    return "\n".join(lines)


def results() -> str:
    """Return a table for each data set and metric of docs/results/: a row for runs that differ in the seed alone."""
    by_experiment: dict[str, list[Run]] = {}  # spread over seeds is pooled within one
    for run in _recorded():
        by_experiment.setdefault(run.record.get("experiment") or "", []).append(run)
    measured = []
    for runs in by_experiment.values():
        groups = same_but_seed(runs)
        measured += zip(groups, estimates(groups), strict=True)
    tables: dict[tuple[str, str], list[str]] = {}
    machines = set()
    for group, mean in measured:
        run = group[0]
        machine = run.part("environment")
        machines.add(f"{machine['device_name']}, {machine['cores']} cores, torch {machine['packages']['torch']}")
        seconds = [one.wall_s for one in group if one.wall_s]
        cells = (
            run.name,
            f"{mean.mean:.2f} {mean.interval_text}".replace(" ", "\N{NO-BREAK SPACE}"),
            si(run.macs),
            si(run.train_flops),
            len(group),
            run.recipe,
            run.record.get("experiment") or "",
            si(run.parameters),
            duration(sum(seconds) / len(seconds)) if seconds else "",
            (run.part("code").get("commit") or "")[:7],
        )
        tables.setdefault((run.data, f"{run.metric_label}, n = {run.n:,}"), []).append(" | ".join(map(str, cells)))
    lines = [
        "# Results",
        "",
        "Made from the records in `docs/results/` when this site is built: "
        f"{sum(len(group) for group, _ in measured)} finished runs. A row is the mean of the runs that differ in nothing but "
        "the seed, with its 95 % interval; these records hold no outcomes of single test images, so the intervals tell of "
        "other trainings alone ([Validity](validity.md)). MACs are those of one image, training FLOPs and time those of one "
        f"run. Machines: {'; '.join(sorted(machines))}.",
    ]
    for (data, metric), rows in sorted(tables.items()):
        head = f"network | {metric} | MACs | training FLOPs | seeds | recipe | experiment | parameters | time | commit"
        lines += [
            "",
            f"## {data}",
            "",
            f"| {head} |",
            f"|{' --- |' * (head.count('|') + 1)}",
            *(f"| {row} |" for row in rows),
        ]
    return "\n".join(lines) + "\n"


def _recorded() -> list[Run]:
    """Return the runs of docs/results/, whose files lie there under the names of their folders."""
    with tempfile.TemporaryDirectory() as root:
        for path in Path(__file__).with_name("results").glob("*.json"):
            folder = Path(root, "data", "network", path.stem, "seed")
            folder.mkdir(parents=True)
            shutil.copy(path, folder / "record.json")
        return load_runs(root)[0]


def _key_table(path: Path, prefix: str = "", skip: tuple[str, ...] = ()) -> list[str]:
    rows = [(f"{prefix}.{key}" if prefix else key, value, comment) for key, value, comment in keys_of(path)]
    shown = [
        row
        for row in rows
        if row[0].partition(".")[0] not in skip
        and not any(part.startswith(("_", "defaults", "executor")) for part in row[0].split("."))
    ]
    return [
        "| key | default | meaning |",
        "| --- | --- | --- |",
        *(f"| `{k}` | `{v}` | {_cell(c)} |" for k, v, c in shown),
    ]


def keys_of(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the dotted keys of a YAML file that have a value, with it and the comment on the same line and below it."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()

    def visit(node: Any, name: str) -> Iterator[tuple[str, str, str]]:
        if isinstance(node, yaml.MappingNode) and node.value:
            for key, value in node.value:
                yield from visit(value, f"{name}.{key.value}" if name else key.value)
        else:
            value = text[node.start_mark.index : node.end_mark.index].strip()
            yield name, value, _comment(lines, node.end_mark.line)

    root = yaml.compose(text)
    return visit(root, "") if root else iter(())


def _comment(lines: list[str], number: int) -> str:
    match = re.search(r"\s#\s(.*)$", lines[number])
    words = [match[1]] if match else []
    for line in lines[number + 1 :] if match else ():
        if not re.match(r"\s+#\s", line) or re.match(r"\s*#", line).end() < match.start():
            break
        words.append(line.strip(" #"))
    return " ".join(words)


def _header(path: Path) -> str:
    """Return the first sentence of the comment that a file begins with, else which file it extends."""
    text = path.read_text(encoding="utf-8")
    lines = re.sub(r"\A# @package .*\n", "", text).splitlines()
    comment = takewhile(lambda line: line.startswith("#"), lines)
    words = " ".join(line[2:] for line in takewhile(lambda line: not line.startswith("#  "), comment))
    extended = [
        name for name in (yaml.safe_load(text) or {}).get("defaults", []) if isinstance(name, str) and name != "_self_"
    ]
    return (
        re.split(r"(?<=[a-z0-9)\]])[.:] (?=[A-Z`])", words)[0].rstrip(".")
        or f"as `{', '.join(extended)}`, other values"
    )


def _all_commands(group: Command, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
    for name, command in group.commands.items():
        yield (*names, name), command
        yield from _all_commands(command, (*names, name))


def _help(names: tuple[str, ...]) -> str:
    command, name, _ = find(names)
    parser = parser_of(command, name)
    parser.formatter_class = partial(Paragraphs, width=100)
    return parser.format_help().strip()


def _type(hint: Any) -> str:
    """Return a type as words, with a link to the block that it is."""
    if is_dataclass(hint):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    if hint is type(None):
        return "null"
    inner = get_args(hint)
    origin = getattr(hint, "__origin__", None)
    if origin is list:
        return f"list of {_type(inner[0])}"
    if origin in (dict, Mapping):
        return f"mapping to {_type(inner[1])}"
    if inner:
        return " or ".join(map(_type, inner))
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}.get(
        getattr(hint, "__name__", ""), "any"
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
