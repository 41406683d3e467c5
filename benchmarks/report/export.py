"""Every run and every row of its history as tables for pandas, polars or R: `python -m benchmarks export [FOLDER]`.

`runs` has a row per run: the record's nested parts and the values of its configuration are columns named with dots
(`compute.train_flops`, `config.model.depth`), and what has no fixed shape, lists and overrides, is JSON text. `history` has a
row per evaluation, with the run's name and seed. `directory` joins the two; what a record does not hold, or holds as null or an
empty mapping, is null. A column that no run fills is left out.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.config.trial import WIRING, flatten
from benchmarks.records.files import RECORD, read_config, write_atomic
from benchmarks.records.runs import Run, load_runs, uncollected
from benchmarks.terminal import with_bar
from benchmarks.units import csv_text, one_line, plural

FORMATS = ("parquet", "csv")
FREE = ("overrides",)  # mappings whose keys are the user's
ALWAYS = ("directory", "run_id", "data", "family", "name", "recipe", "seed", "status", "error")

Table = dict[str, list[Any]]  # the values of each column, one per row; None is null


def runs_table(runs: Iterable[Run], root: Path) -> tuple[Table, list[str]]:
    """Return a row per run, by column, and a line for each configuration that cannot be read.

    `directory` is relative to `root`.
    """
    rows, problems = [], []
    for run in runs:
        rows.append({**run.record, "directory": run.directory.relative_to(root).as_posix()})
        try:
            config = read_config(run.directory)
        except FileNotFoundError:  # a record alone
            continue
        except (OSError, ValueError) as error:
            problems.append(one_line(str(error)))
            continue
        rows[-1]["config"] = {key: value for key, value in config.items() if key not in WIRING}
    whole = _unflattened(rows)
    flat = [{key: value for key, value in flatten(row, whole=whole).items() if value != {}} for row in rows]
    return _table(flat, ALWAYS), problems


def history_table(runs: Iterable[Run], root: Path) -> tuple[Table, list[str]]:
    """Return a row per evaluation of every run, by column, and a line for each history that cannot be read."""
    rows: list[dict[str, Any]] = []
    problems = []
    for run in runs:
        of_run = {"directory": run.directory.relative_to(root).as_posix(), "run_id": run.record.get("run_id")}
        of_run |= {"name": run.name, "seed": run.seed}
        try:
            rows += [{**of_run, **row} for row in run.history]
        except (OSError, ValueError) as error:
            problems.append(one_line(str(error)))
    return _table(rows, ("directory", "run_id", "name", "seed")), problems


def write_table(table: Table, path: Path) -> None:
    """Write a table as Parquet or CSV, by the name of the file, which is replaced atomically.

    In Parquet a column of JSON text has the metadata `json`; in CSV null is empty, and truth values are JSON too.
    """
    rows = (
        [json.dumps(value) if isinstance(value, (bool, list, dict)) else value for value in row]
        for row in zip(*table.values(), strict=True)
    )
    write_atomic(path, _parquet(table) if path.suffix == ".parquet" else csv_text([table, *rows]))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``export``."""
    parser.description = (
        "Writes every run below FOLDER to a table `runs`, a row per run, and every row of their histories to a table "
        "`history`, a row per evaluation; the column directory joins them."
    )
    parser.epilog = (
        "Columns are named after the record's parts and the configuration: compute.train_flops, config.model.depth. Lists and "
        "overrides are JSON text."
    )
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default="outputs", help="default: outputs")
    parser.add_argument("--format", choices=FORMATS, default="parquet", help="default: parquet")
    parser.add_argument("--out", metavar="DIR", help="where the two files go (default: FOLDER)")


def run(arguments: argparse.Namespace) -> None:
    """Write both tables and print where they are.

    Raises:
        ValueError: there are no runs, pyarrow is not installed, or the tables would stand among a run's own files.
        OSError: no such folder, or nothing can be written to ``--out``.
    """
    root = Path(arguments.folder)
    out = Path(arguments.out or root)
    if arguments.format == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ValueError("Parquet needs pyarrow: pip install -e '.[parquet]', or --format csv")
    runs, problems = load_runs(root)
    if (out / RECORD).exists():  # its history.csv may be that of logger=csv
        raise ValueError(f"{out} is a run's own folder: --out DIR writes the tables elsewhere")
    if runs:
        with uncollected():
            history, unread = history_table(with_bar(runs, "reading"), root)
            table_of_runs, no_config = runs_table(runs, root)
        out.mkdir(parents=True, exist_ok=True)
        for name, table in (("runs", table_of_runs), ("history", history)):
            path = out / f"{name}.{arguments.format}"
            write_table(table, path)
            print(f"{name:<8} {path}  {plural(len(table['directory']), 'row')}, {plural(len(table), 'column')}")
        problems += [*unread, *no_config]
    for problem in problems:
        print(f"not read: {problem}", file=sys.stderr)
    if not runs:
        raise ValueError(f"no runs in {root}: nothing to export")


def _unflattened(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the paths of mappings that stay whole: where a key has a dot, or another row has no mapping there."""
    whole, nested, plain = set(FREE), set(), set()

    def visit(path: str, value: Any) -> None:
        if not isinstance(value, Mapping):
            if value is not None:
                plain.add(path)
            return
        if value:
            nested.add(path)
        if any("." in key for key in value):
            whole.add(path)
        for key, item in value.items():
            visit(f"{path}.{key}", item)

    for row in rows:
        for key, value in row.items():
            visit(key, value)
    return whole | (nested & plain)


def _table(rows: Sequence[Mapping[str, Any]], always: Sequence[str]) -> Table:
    names = dict.fromkeys((*always, *(name for row in rows for name, value in row.items() if value is not None)))
    return {name: [_encodable(row.get(name)) for row in rows] for name in names}


def _encodable(value: Any) -> Any:
    """Return the value; a lone surrogate, as JSON may hold one, is no text in UTF-8."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _parquet(table: Table) -> memoryview:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields, arrays = [], []
    for name, values in table.items():
        array = _exact_array(values)
        in_json = None if array is not None else {"json": ""}
        if array is None:
            array = pa.array([None if value is None else json.dumps(value) for value in values], pa.string())
        arrays.append(array)
        fields.append(pa.field(name, array.type, metadata=in_json))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields)), sink)
    return memoryview(sink.getvalue())


def _exact_array(values: Sequence[Any]) -> Any:
    """Return the values as an Arrow array of the type that holds them all exactly; None where there is no such type."""
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if kinds & {list, dict}:
        return None
    # What a long training on ImageNet spends is beyond a 64-bit integer.
    for arrow_type in [None, pa.decimal128(38, 0)] if kinds == {int} else [None] if kinds else [pa.string()]:
        with suppress(pa.ArrowException, OverflowError):
            return pa.array(values, arrow_type)
    return None
