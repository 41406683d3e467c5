"""What a W&B run holds of a run's folder: the same whether it is written beside the training or sent later."""

import base64
import csv
import http.client
import io
import json
import math
import os
import re
import signal
import ssl
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlparse
from urllib.request import Request, urlopen

from benchmarks.config.trial import WIRING
from benchmarks.records.files import HISTORY, LAYERS, LOG, pictures, read_bytes
from benchmarks.records.runs import Run, read_history
from benchmarks.units import number, one_line

ANSWER_TIMEOUT_S = 4  # until a server shows that it is there
ASK_TIMEOUT_S = 20  # for one answer of the server
AXIS = "compute/train_flops"
STEPS, STEP_LOSS = "steps", "train/loss_step"
COMPUTE = (
    *("train_flops", "train_macs", "samples_seen", "wall_s", "train_s"),
    *("images_per_s", "peak_memory_bytes", "energy_j"),
)
LONGEST_TAG = 64  # characters, the server's limit
OFF = {"disabled": "disabled", "offline": "offline", "dryrun": "offline"}  # modes of the client's without a server


def prepare(root: Path) -> None:
    """Set the client's environment, before its first use."""
    # Artifact bytes are staged outside the run's folder otherwise, and lost when it moves.
    os.environ.setdefault("WANDB_DATA_DIR", str(folder_of(root) / "wandb" / "data"))
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_SILENT", "true")


def switched_off() -> str | None:
    """Return ``disabled`` or ``offline`` where one of W&B's own switches says so: WANDB_MODE, WANDB_DISABLED, and the settings
    that ``wandb offline`` and ``wandb disabled`` write."""
    if os.environ.get("WANDB_DISABLED", "").lower() in {"1", "true", "yes", "on"}:
        return "disabled"
    try:
        return OFF.get(_settings().mode)
    except ValueError as error:
        print(f"W&B: {one_line(str(error))}; going on offline", file=sys.stderr)
        return "offline"


def folder_of(root: Path) -> Path:
    """Return the folder in which W&B's own files lie, in ``wandb/``: WANDB_DIR, else the output root."""
    return Path(os.environ.get("WANDB_DIR") or root)


def has_key() -> bool:
    """Tell whether a key for W&B's server is configured, of whatever shape."""
    settings = _settings()
    return bool(settings.api_key or key_in_netrc(settings.base_url))


def key_in_netrc(url: str) -> str | None:
    """Return the password for a server in NETRC's file, else in ~/.netrc or ~/_netrc, where `wandb login` writes."""
    named = os.environ.get("NETRC")
    places = map(os.path.expanduser, ("~/.netrc", "~/_netrc") if named is None else (named,))
    path, host = next(filter(os.path.exists, places), None), urlparse(url).hostname
    try:
        entry = netrc(path).authenticators(host) if path and host else None
    except (NetrcParseError, OSError):
        return None
    return entry[2] or None if entry else None


def unreachable() -> str | None:
    """Return why the configured server cannot be used, in one line; None if it answers, whatever it says of the key."""
    try:
        return ask()
    except ConnectionRefusedError:
        return None


def ask() -> str | None:
    """Return why the configured server cannot be used, in one line; None if it answers.

    Raises:
        ConnectionRefusedError: it refuses the configured key.
    """
    settings = _settings()
    url, key = settings.base_url, settings.api_key or key_in_netrc(settings.base_url)
    host = urlparse(url).hostname
    headers = {"Content-Type": "application/json"} | (settings.x_extra_http_headers or {})
    if key:
        headers["Authorization"] = f"Basic {base64.b64encode(f'api:{key}'.encode()).decode()}"
    question = json.dumps({"query": "query Viewer { viewer { id } }"}).encode()
    try:
        with urlopen(Request(f"{url.rstrip('/')}/graphql", question, headers), timeout=ANSWER_TIMEOUT_S):
            return None
    except HTTPError as error:
        if key and error.code == 401:
            raise ConnectionRefusedError(f"{host} answers with error 401 to the configured key") from None
        return f"{host} answers with error {error.code}" if error.code >= 500 else None
    except (OSError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)
        # The client may know a certificate that Python does not.
        return None if isinstance(cause, ssl.SSLError) else f"{host} does not answer ({one_line(str(cause))})"


def connect(folder: Path) -> Any:
    """Return the server's reading side, ``wandb.Api``. ``folder`` holds the runs.

    Raises:
        ValueError: there is none, with the reason in one line.
    """
    if switched_off() == "disabled":
        raise ValueError("W&B is disabled: by WANDB_MODE, WANDB_DISABLED or `wandb disabled`")
    prepare(folder.resolve())
    os.environ.setdefault("WANDB_X_GRAPHQL_RETRY_MAX", "3")
    import wandb

    if not has_key():
        raise ValueError("no W&B key is configured: `wandb login`, or set WANDB_API_KEY")
    if problem := unreachable():
        raise ValueError(f"W&B: {problem}")
    try:
        api = wandb.Api(timeout=ASK_TIMEOUT_S)
        _ = api.default_entity
    except Exception as error:  # of the client, its service or the network: of many classes
        raise ValueError(f"W&B: {reason(error)}") from error
    return api


def reason(error: Exception) -> str:
    """Return an error of the client in one line."""
    return one_line(str(error)) or type(error).__name__


def quiet_settings(init_timeout: float, finish_timeout: float, **others: Any) -> Any:
    """Return the client's settings with these timeouts in seconds, without its output; a late end raises TimeoutError."""
    import wandb

    others |= {"init_timeout": init_timeout, "finish_timeout": finish_timeout, "finish_timeout_raises": True}
    return wandb.Settings(console="off", silent=True, **others)


def open_run(record: Mapping[str, Any], config: Mapping[str, Any], **keywords: Any) -> Any:
    """Call ``wandb.init`` for a trial's run, new or resumed: the same from the trial and from ``sync``."""
    import wandb

    logger = config["logger"]
    settings = {key: value for key, value in config.items() if key not in WIRING}
    given = logger.get("tags") or ()
    tags = [*(given.split(",") if isinstance(given, str) else given), record["data"]]
    tags.append((record.get("environment") or {}).get("device_name") or "")
    tags.append("debug" if config["trainer"].get("limit_train_batches") is not None else "")
    processes = config["trainer"]["devices"] * config["trainer"]["num_nodes"]
    tags.append(f"{processes} process{'es' * (processes > 1)}")
    run = wandb.init(
        entity=logger["entity"],
        project=logger["project"],
        id=record["run_id"],
        resume="allow",
        name=logger.get("name") or run_name(record),
        group=logger.get("group") or record.get("experiment") or record["data"],
        job_type="train",
        tags=list(dict.fromkeys(tag[:LONGEST_TAG] for tag in tags if tag)),
        notes=logger.get("notes"),
        config=settings | {"hash": record["config_hash"], "complexity": record.get("complexity")},
        **keywords,
    )
    run.define_metric(AXIS)
    for name in metrics(record):
        # Exact names: a glob races with other globs.
        run.define_metric(name, step_metric=AXIS)
    return run


def run_name(record: Mapping[str, Any]) -> str:
    """Return what tells runs apart: `resnet20 · digits · common, epochs=5 · seed 0`."""
    run = Run(Path(), dict(record))
    return " · ".join((run.name, run.data, run.recipe, f"seed {run.seed}"))


def close(run: Any, directory: Path, record: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Send all but the history, and close the run with its true outcome.

    Raises:
        TimeoutError: the server has not taken everything within the client's ``finish_timeout``.
    """
    import wandb

    if not run.resumed:
        with suppress(OSError):
            run.write_logs(read_bytes(directory / LOG).decode(errors="replace"))
    run.summary.update(summary(record, read_history(directory / HISTORY)))
    run.summary.update(media(directory, record))
    for name, paths in artifacts(directory, record, config).items():
        artifact = wandb.Artifact(name, type="model")
        for path in paths:
            artifact.add_file(str(path))
        run.log_artifact(artifact)
    run.finish(exit_code=exit_code(record))


def supersede_offline_files(root: Path, run_id: str) -> None:
    """Tell ``wandb sync`` that W&B's own offline files of a run, below ``root``, have nothing more to give."""
    for path in folder_of(root).glob(f"wandb/offline-run-*-{run_id}/*.wandb"):
        with suppress(OSError):
            path.with_name(f"{path.name}.synced").touch()


def mirrored(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a history as the server has it: before each evaluation, a row for each point of the training that led to it.

    Compute is under ``compute/``; what is absent or not finite is left out.

    Raises:
        ValueError: the points are damaged.
    """
    names = {"step": "trainer/global_step", "loss": STEP_LOSS} | {name: f"compute/{name}" for name in COMPUTE}
    flat: list[dict[str, Any]] = []
    for row in rows:
        points = row.get(STEPS, {})
        if not (isinstance(points, dict) and all(isinstance(values, list) for values in points.values())):
            raise ValueError(f"the {STEPS} of {HISTORY} are damaged: no lists of numbers by name")
        flat += [dict(zip(points, values, strict=True)) for values in zip(*points.values(), strict=True)]
        flat.append({name: value for name, value in row.items() if name != STEPS})
    return [{names.get(name, name): value for name, value in row.items() if _is_there(value)} for row in flat]


def metrics(record: Mapping[str, Any]) -> list[str]:
    """Return the exact names of what rows hold beside their axis."""
    definitions = (record.get("protocol") or {}).get("definitions") or {}
    names = ["epoch", "lr", "train/loss", STEP_LOSS, "val/loss", "val/n", *map("val/{}".format, definitions)]
    names += [f"compute/{name}" for name in COMPUTE if f"compute/{name}" != AXIS]
    return list(dict.fromkeys(names))


def summary(record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return flat keys, for tables and panels: outcome, cost of the network, cost of the run, test metrics, best validation.

    Args:
        rows: of the history, under the record's names or the server's.
    """
    named = {
        "status": record["status"],
        "error": record["error"],
        "exit_code": exit_code(record),
        **{f"model/{name}": value for name, value in (record.get("complexity") or {}).items() if name != "input_size"},
        **{f"compute/{name}": value for name, value in (record.get("compute") or {}).items()},
        **(record.get("metrics") or {}),
        **_best(record, rows),
    }
    return {name: value for name, value in named.items() if _is_there(value)}


def _best(record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the best validation result of the reported metric and its step; errors are better lower, scores higher."""
    metric = Run(Path(), dict(record)).val_metric
    measured = [(value, row) for row in rows if (value := number(row.get(metric))) is not None]
    if not measured:
        return {}
    best, row = (min if metric.endswith("_err") else max)(measured, key=lambda pair: pair[0])
    return {"best_val": best, "best_val_step": row.get("step", row.get("trainer/global_step"))}


def media(directory: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return tables and pictures, as far as the run has come. For the summary: logged they would be rows of the history.

    A table's key has no slash: the client would give its artifact another name each time.
    """
    import wandb

    content: dict[str, Any] = {}
    lines: list[list[Any]] = []
    with suppress(OSError):
        lines = list(csv.reader(io.StringIO(read_bytes(directory / LAYERS).decode(errors="replace"), newline="")))
    if lines:
        rows = [[int(cell) if cell.isdecimal() else cell for cell in line] for line in lines[1:]]
        content["layers"] = wandb.Table(columns=lines[0], data=rows)
    matrix = record.get("confusion")
    if matrix is not None:
        classes = [str(name) for name in record["dataset"]["classes"]]
        rows = [[name, *counts] for name, counts in zip(classes, matrix, strict=True)]
        content["confusion"] = wandb.Table(columns=["true \\ predicted", *classes], data=rows)
    if paths := pictures(directory):
        content["test/pictures"] = [wandb.Image(str(path), caption=path.stem) for path in paths]
    return content


def artifacts(directory: Path, record: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, list[Path]]:
    """Return checkpoints by the name of their artifact, where ``logger.checkpoints`` asks for them."""
    paths = sorted(path for path in directory.glob("checkpoints/*.ckpt") if path.stem in {"last", "best"})
    return {f"checkpoints-{record['run_id']}": paths} if paths and config["logger"].get("checkpoints") else {}


def exit_code(record: Mapping[str, Any]) -> int:
    """Return the exit code of the process that ended as the record says."""
    if record["status"] == "ok":
        return 0
    killed = re.match(r"killed by (SIG[A-Z0-9]+)", record["error"] or "")
    if killed and killed[1] in signal.Signals.__members__:
        return 128 + signal.Signals[killed[1]]
    return 128 + signal.SIGTERM if record["status"] in {"interrupted", "preempted"} else 1


def _settings() -> Any:
    import wandb

    # Not wandb.login or wandb.setup: they start the client's service, which keeps a process alive while the server is away.
    settings = wandb.Settings(silent=True)
    settings.update_from_system_settings()
    settings.update_from_env_vars(dict(os.environ))
    return settings


def _is_there(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))
