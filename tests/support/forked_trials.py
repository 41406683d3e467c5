"""Runs trials in forked children of one process that has imported everything and computed nothing, and kills them where told.

``forked_trials.py PLAN.json`` writes ``PLAN.done``. A plan is a list of trials, a trial a list of lives in one
directory, one after the other. An event is the moment before or after a call that ``watch`` has wrapped; a run meets the same
events in the same order every time.
"""

import contextlib
import functools
import importlib
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIFE_S = 180  # a compiled network takes a minute on a busy machine
TINY = (
    "model=densenet", "model.depth=10", "model.growth_rate=4", "model.dropout=0.2", "recipe.epochs=3",
    "recipe.augment.crop_padding=1", "trainer.limit_train_batches=6", "logger=none", "trainer.accelerator=cpu",
    "cluster.threads_per_process=1", "launch.checkpoint_every_steps=2", "launch.collective_timeout_s=20",
)  # fmt: skip
TIMES = ("wall_s", "train_s", "images_per_s", "peak_memory_bytes", "energy_j")


def outcome(directory: Path) -> dict[str, Any]:
    """What must not depend on how often a run was killed."""
    import torch

    from benchmarks.training.checkpoints import weights_sha256

    record = json.loads((directory / "record.json").read_text())
    rows = [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]
    stored = {}
    for name in ("last", "best"):
        checkpoint = torch.load(directory / "checkpoints" / f"{name}.ckpt", weights_only=True)
        stored[name] = {
            key: weights_sha256(checkpoint[key]) for key in ("state_dict", "current_model_state") if key in checkpoint
        }
    return {
        "status": record["status"],
        "error": record["error"],
        "weights_sha256": record.get("weights_sha256"),
        "metrics": record.get("metrics"),
        "compute": {key: value for key, value in record["compute"].items() if key not in TIMES},
        "rows": [{key: value for key, value in row.items() if key not in TIMES} for row in rows],
        "checkpoints": stored,
        "leftovers": sorted(path.name for path in (directory / "checkpoints").glob("*") if path.suffix != ".ckpt"),
    }


def run_trial(trial: dict[str, Any]) -> dict[str, Any]:
    """Lives the trial's lives.

    Args:
        trial: ``directory``; ``overrides`` of ``TINY``; ``ranks``; ``lives``. A life is None, or a death: number of the
            ``event``, or its ``name`` and ``occurrence`` from 0; ``rank``; ``signal``. Between two lives there may be
            ``damage``, kind by file, or a ``command``.
    """
    directory, ranks = Path(trial["directory"]), trial.get("ranks", 1)
    codes = []
    for life in trial["lives"]:
        if life is not None and "damage" in life:
            for name, kind in life["damage"].items():
                damage(directory / name, kind)
            continue
        if life is not None and "command" in life:
            subprocess.run(life["command"], check=True)
            continue
        _prepare(directory, trial.get("overrides", ()), ranks)
        codes.append(_live(directory, ranks, life))
    record = json.loads((directory / "record.json").read_text())
    events = directory / "events.json"
    return {
        "codes": codes,
        "status": record["status"],
        "error": record["error"],
        "resumptions": record["resumptions"],
        "events": json.loads(events.read_text()) if events.exists() else [],
    }


def damage(path: Path, kind: str) -> None:
    """Makes a file ``short``, ``empty``, ``zero``, ``flipped`` (one bit in its middle), ``missing``, or another's copy."""
    content = path.read_bytes() if path.exists() else b""
    middle = len(content) // 2
    if kind == "missing":
        path.unlink()
    elif kind == "flipped":
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    else:
        made = {"short": content[:middle], "empty": b"", "zero": bytes(len(content))}
        path.write_bytes(made[kind] if kind in made else Path(kind).read_bytes())


def _composed(overrides: Iterable[str], ranks: int) -> Any:
    return _compose((*overrides, f"trainer.devices={ranks}"))


@functools.cache
def _compose(overrides: tuple[str, ...]) -> Any:
    from benchmarks.config.compose import expand

    another = any(override.startswith("model=") for override in overrides)  # with keys and a recipe of its own
    tiny = [override for override in TINY if not (another and override.startswith(("model", "recipe.augment")))]
    return expand([*tiny, *overrides], False)[0]


def _prepare(directory: Path, overrides: list[str], ranks: int) -> None:
    """What the launcher does before it starts the ranks."""
    from benchmarks.launch.new_record import new_record
    from benchmarks.records.files import read_json, write_config, write_json
    from benchmarks.records.record import to_json

    trial = _composed(overrides, ranks)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "failure.json").unlink(missing_ok=True)
    write_config(directory, trial.config)
    previous = read_json(directory / "record.json")
    write_json(directory / "record.json", to_json(new_record(trial.config, trial.overrides, previous)))


def unused_port() -> int:
    """Return a port that nobody listens on, below those that the system itself gives away: to any client, at any time."""
    while True:
        port = random.randrange(15_000, 30_000)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


def _live(directory: Path, ranks: int, death: dict[str, Any] | None) -> list[int]:
    port = unused_port()
    pids = {_fork(directory, rank, ranks, port, death): rank for rank in range(ranks)}
    codes: dict[int, int] = {}
    deadline = time.monotonic() + LIFE_S
    while pids:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            codes[pids.pop(pid)] = os.waitstatus_to_exitcode(status)
        killed = death is not None and death.get("signal", signal.SIGKILL) == signal.SIGKILL and codes
        if killed or time.monotonic() > deadline:  # peers of a killed rank would wait for the launcher
            for left in pids:
                os.kill(left, signal.SIGKILL)
        time.sleep(0.005)
    return [codes[rank] for rank in range(ranks)]


def _fork(directory: Path, rank: int, ranks: int, port: int, death: dict[str, Any] | None) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        log = os.open(directory / "log.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if ranks > 1:
            names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "GROUP_RANK": 0}
            names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
            os.environ.update({key: str(value) for key, value in names.items()})
        watch(directory, rank, death)
        from benchmarks.training.rank import main as run_rank

        code = run_rank(directory)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def watch(directory: Path, rank: int, death: dict[str, Any] | None) -> None:
    """Counts the events of this rank and dies at the one told; without a death writes their names to ``events.json``."""
    from benchmarks.training import checkpoints, cost_meter, history, progress_writer, step_seed
    from benchmarks.training.open_run import OpenRun

    progress_writer.PROGRESS_EVERY_S = math.inf  # no event depends on the clock
    history.STEPS_EVERY = 4  # so that points lie within epochs, and across their ends
    seen: list[str] = []
    pid = os.getpid()  # loader workers inherit all this

    def event(name: str) -> None:
        if os.getpid() != pid:
            return
        seen.append(name)
        if death is None or rank != death.get("rank", 0):
            return
        here = len(seen) - 1 == death["event"] if "event" in death else name == death["name"]
        if here and seen.count(name) - 1 == death.get("occurrence", seen.count(name) - 1):
            os.kill(pid, death.get("signal", signal.SIGKILL))

    def watched(owner: Any, name: str) -> None:
        function: Callable[..., Any] = getattr(owner, name)
        label = f"{getattr(owner, '__name__', owner)}.{name}"

        @functools.wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Any:
            event(f"before {label}")
            result = function(*arguments, **keywords)
            event(f"after {label}")
            return result

        setattr(owner, name, call)

    for owner, names in (
        (os, ("fsync", "replace")),
        (history, ("append_row",)),
        (step_seed.StepSeed, ("on_train_batch_start",)),
        (cost_meter.CostMeter, ("on_train_start", "on_train_batch_end", "on_validation_start")),
        (history.HistoryWriter, ("on_validation_end",)),
        (progress_writer.ProgressWriter, ("on_test_start",)),
        (checkpoints.Checkpoints, ("on_train_batch_end", "on_train_epoch_end", "on_train_end")),
        (OpenRun, ("close",)),
    ):
        for name in names:
            watched(owner, name)
    if death is None and rank == 0:
        close = OpenRun.close

        def counted(*arguments: Any) -> int:
            code = close(*arguments)
            (directory / "events.json").write_text(json.dumps(seen))
            return code

        OpenRun.close = counted  # type: ignore[method-assign]


def main(plan: Path) -> None:
    """Runs the plan, after importing what a sweep's trials share."""
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    from benchmarks.launch.process import AGENT
    from benchmarks.launch.sweep import imports_of

    trials = json.loads(plan.read_text())
    composed = [_composed(trial.get("overrides", ()), trial.get("ranks", 1)) for trial in trials]
    for module in (AGENT, *imports_of(composed)):
        importlib.import_module(module)
    plan.with_suffix(".done").write_text(json.dumps([run_trial(trial) for trial in trials]))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(Path(sys.argv[1]))
