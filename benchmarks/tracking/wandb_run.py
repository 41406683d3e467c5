"""What a W&B run holds of a run's folder: the same whether it is written beside the training or sent later."""

import base64
import http.client
import json
import os
import ssl
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlparse
from urllib.request import Request, urlopen

from benchmarks.config.trial import WIRING
from benchmarks.records.files import CHECKPOINTS, HISTORY, LOG, pictures, read_bytes
from benchmarks.records.runs import read_history
from benchmarks.tracking.content import AXIS, STEP, exit_code, metrics, reason, run_name, summary, tables
from benchmarks.units import one_line

ANSWER_TIMEOUT_S = 4  # until a server shows that it is there
ASK_TIMEOUT_S = 20  # for one answer of the server
LONGEST_TAG = 64  # characters, the server's limit
LONGEST_NAME = 128  # likewise; issue 842 of NVIDIA-NeMo/Skills has what happens beyond it
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
    """Return why the configured server cannot be used, in one line; None if it answers. Raises ConnectionRefusedError where it
    refuses the configured key."""
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
    """Return the server's reading side, ``wandb.Api``, for the runs in ``folder``. Raises ValueError where there is none, which
    says why in one line."""
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
        name=logger.get("name") or display_name(record),
        group=logger.get("group") or record.get("experiment") or record["data"],
        job_type="train",
        tags=list(dict.fromkeys(tag[:LONGEST_TAG] for tag in tags if tag)),
        notes=logger.get("notes"),
        config=settings | {"hash": record["config_hash"], "complexity": record.get("complexity")},
        **keywords,
    )
    run.define_metric(AXIS)
    for name in metrics(record):
        _over_compute(run, name)
    return run


def log_rows(run: Any, record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], sent: int) -> None:
    """Send the rows of the history after the first ``sent``; what a module reports of its own has compute as its axis too."""
    known = {AXIS, STEP, *metrics(record)}
    for name in dict.fromkeys(name for row in rows for name in row if name not in known):
        _over_compute(run, name)
    for row in rows[sent:]:
        run.log(row)


def _over_compute(run: Any, name: str) -> None:
    # An exact name: a glob races with other globs.
    run.define_metric(name, step_metric=AXIS)


def display_name(record: Mapping[str, Any]) -> str:
    """Return the name of a run; of one too long for the server its two ends: network and data set, last overrides and seed."""
    name = run_name(record)
    if len(name.encode()) <= LONGEST_NAME:
        return name
    half = LONGEST_NAME // 2 - 4  # letters beyond ASCII take more bytes
    return f"{name[:half]}…{name[-half:]}"


def close(run: Any, directory: Path, record: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Send all but the history, and close the run with its true outcome. Raises TimeoutError where the server has not taken
    everything within the client's ``finish_timeout``."""
    import wandb

    if not run.resumed:
        with suppress(OSError):
            run.write_logs(read_bytes(directory / LOG).decode(errors="replace"))
    run.summary.update(summary(record, read_history(directory / HISTORY)))
    if record["error"] is None and run.summary.get("error") is not None:
        del run.summary["error"]  # of an interruption from which the run has gone on
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


def media(directory: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return tables and pictures, as far as the run has come. For the summary: logged they would be rows of the history.

    A table's key has no slash: the client would give its artifact another name each time.
    """
    import wandb

    content: dict[str, Any] = {
        name: wandb.Table(columns=lines[0], data=lines[1:]) for name, lines in tables(directory, record).items()
    }
    if paths := pictures(directory):
        content["test/pictures"] = [wandb.Image(str(path), caption=path.stem) for path in paths]
    return content


def artifacts(directory: Path, record: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, list[Path]]:
    """Return checkpoints by the name of their artifact, where ``logger.checkpoints`` asks for them."""
    paths = sorted(path for path in (directory / CHECKPOINTS).glob("*.ckpt") if path.stem in {"last", "best"})
    return {f"checkpoints-{record['run_id']}": paths} if paths and config["logger"].get("checkpoints") else {}


def _settings() -> Any:
    import wandb

    # Not wandb.login or wandb.setup: they start the client's service, which keeps a process alive while the server is away.
    settings = wandb.Settings(silent=True)
    settings.update_from_system_settings()
    settings.update_from_env_vars(dict(os.environ))
    return settings
