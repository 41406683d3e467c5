"""Kills runs at random moments with SIGKILL, goes on with the same command, and compares with a run that nothing happened to.

``python tests/support/kill_trials.py --count 50``, over all kinds of runs in turn; exits 1 if a weight, a row or a figure
differs. Each trial is a line when it ends; SIGINT and SIGTERM end with the table of those that have. Linux only.
"""

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path[:0] = [str(folder) for folder in Path(__file__).resolve().parents[1:3]]

from support.forked_trials import ROOT, TINY, outcome  # noqa: E402

from benchmarks.records.files import read_json  # noqa: E402
from benchmarks.units import plural  # noqa: E402

LONGER = ("recipe.epochs=12", "trainer.limit_train_batches=24")  # as long as set-up and end together
SEGMENTATION = (
    *("model=unet", "data=touching_cells", "model.base_channels=2", "logger=none", "trainer.accelerator=cpu"),
    *("cluster.threads_per_process=1", "launch.checkpoint_every_steps=2", "launch.collective_timeout_s=20"),
    *("+data.source.train_count=48", "+data.source.val_count=1", "+data.source.test_count=4", "+data.source.size=64"),
    *("recipe.augment.elastic.input_size=[64,64]", "recipe.augment.elastic.output_size=[64,64]"),
    "data.image_size=[64,64]",
)
WHO = ("rank", "parent")
PARTS = {"set-up": 0.1, "training": 0.8, "end": 0.1}  # of a life, with the share of the kills that they get
RECORDS = "*/*/*/seed*/record.json"
LIVES = 12  # a trial that has not finished by then never will
STARTS = 4  # of a trial whose run has ended before each of its kills
LIFE_S = 600  # on a busy machine
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "SLURM_"))}


@dataclass
class Trial:
    """What became of one: whom kills hit, the steps within training that lives went on from, and what differs at the end."""

    kills: list[str] = field(default_factory=list)
    resumed: list[int] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Kind:
    """A kind of runs.

    Attributes:
        overrides: beside those of a tiny run.
        ranks: processes of a run.
        workers: loader workers of each.
        base: the tiny run.
    """

    overrides: tuple[str, ...] = ()
    ranks: int = 1
    workers: int = 0
    base: tuple[str, ...] = TINY


KINDS = {
    "single": Kind(),
    "two ranks": Kind(ranks=2),
    "workers": Kind(workers=2),
    "EMA": Kind(("trainer.ema_decay=0.9",)),
    "U-Net": Kind(("recipe.epochs=4",), base=SEGMENTATION),
    "W&B": Kind(("logger=wandb", "logger.mode=offline")),
    "sweep": Kind(("-m", "seed=0,1")),
    "all at once": Kind(("trainer.ema_decay=0.9", "logger=wandb", "logger.mode=offline"), workers=2),
}


class Trials:
    """A reference run, or sweep, and trials under the same configuration.

    Args:
        root: where runs go.
        kind: of the runs.
    """

    def __init__(self, root: Path, kind: Kind) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        tiny = [
            override for override in kind.base if override.split("=")[0] not in {key.split("=")[0] for key in LONGER}
        ]
        self.overrides = [*tiny, *LONGER, f"trainer.devices={kind.ranks}", f"cluster.loader_workers={kind.workers}"]
        self.overrides += ["cluster.oversubscribe=true", *kind.overrides]
        process = self._start(root / "reference")
        out, _ = process.communicate(timeout=LIFE_S)
        if process.returncode:
            raise RuntimeError(f"the reference run failed:\n{out}")
        self.reference = outcomes(root / "reference")

    def run(self, name: str, who: list[str], chance: random.Random) -> Trial:
        """Kills one of ``who`` in each life, then lets the run finish; one that no kill has met is started over."""
        for start in range(STARTS):
            trial = self._try(self.root / f"{name}.{start}", who, chance)
            if trial.kills or trial.differing or not who:
                return trial
        trial.differing.append(f"each of {STARTS} runs ended before it could be killed")
        return trial

    def _try(self, root: Path, who: list[str], chance: random.Random) -> Trial:
        trial, share = Trial(), 0.0
        for life in range(LIVES):
            began, process = time.time(), self._start(root)
            try:
                if life < len(who):
                    # After a kill at the end the next life has nothing to train.
                    parts = list(PARTS)[: None if life == len(who) - 1 else -1]
                    part = chance.choices(parts, [PARTS[name] for name in parts])[0]
                    share = chance.uniform(share, 0.95) if part == "training" else share  # a resumed run is that far
                    self._await(process, root, began, {"set-up": -1.0, "training": share, "end": 1.0}[part])
                    # Set-up takes seconds; in training, the time between two writings of progress.json.
                    time.sleep(chance.uniform(0, 3 if part == "set-up" else 0.5))
                    if process.poll() is None and kill(process, root, who[life], chance):
                        trial.kills.append(who[life])
                out, _ = process.communicate(timeout=LIFE_S)
            except subprocess.TimeoutExpired:
                trial.differing.append(f"life {life + 1} did not end within {LIFE_S} s")
                break
            finally:
                process.kill()  # its ranks die with it
            if process.returncode == 0:
                break
        else:
            trial.differing.append(f"not finished: {out.strip().splitlines()[-1:]}")
        found = outcomes(root)
        for run, reference in self.reference.items():
            trial.differing += [f"{run}: {key}" for key in reference if found.get(run, {}).get(key) != reference[key]]
        for path in root.glob(RECORDS):
            steps = [entry["step"] for entry in json.loads(path.read_text())["resumptions"]]
            last = self.reference[str(path.parent.relative_to(root))]["rows"][-1]["step"]
            trial.resumed += [step for step in steps if 0 < step < last]
        return trial

    def _start(self, root: Path) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, str(ROOT / "run.py"), *self.overrides, f"output_root={root}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.root, env=CLEAN,
        )  # fmt: skip

    @staticmethod
    def _await(process: "subprocess.Popen[str]", root: Path, began: float, share: float) -> None:
        """Waits until a run has done this share of its steps in this life, or for the ranks alone if it is negative.

        Args:
            began: the time of the life's start: what was written before says nothing of it.
        """
        deadline = time.monotonic() + LIFE_S
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
            if share < 0:
                if ranks_of(root):
                    return
                continue
            for path in root.glob(RECORDS):
                progress = read_json(path.with_name("progress.json"))
                if not progress or progress["time"] < began or progress["phase"] == "prepare":
                    continue
                if progress["done"] >= share * progress["total"]:
                    return


def kill(process: "subprocess.Popen[str]", root: Path, who: str, chance: random.Random) -> bool:
    """Kills run.py (``parent``) or one of the ranks of its trial; says whether there was one left."""
    victims = [process.pid] if who == "parent" else sorted(ranks_of(root))
    if not victims:
        return False
    try:
        os.kill(chance.choice(victims), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def ranks_of(root: Path) -> set[int]:
    """The processes that hold ``ranks.lock`` of the run below ``root``."""
    inodes = {str(path.stat().st_ino) for path in root.glob("*/*/*/seed*/ranks.lock")}
    lines = [line.replace("->", "").split() for line in Path("/proc/locks").read_text().splitlines()]
    held = {int(line[4]) for line in lines if line[1] == "FLOCK" and line[5].rpartition(":")[2] in inodes}
    return {pid for pid in held if Path(f"/proc/{pid}").exists()}


def outcomes(root: Path) -> dict[str, Any]:
    """What must not depend on kills, of every run below ``root``."""
    return {str(path.parent.relative_to(root)): outcome(path.parent) for path in root.glob(RECORDS)}


def main(argv: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50, help="trials (default 50)")
    parser.add_argument("--kills", type=int, default=2, help="most kills of a trial (default 2)")
    parser.add_argument(
        "--kind", choices=KINDS, action="append", help="of runs; may be given several times (default all)"
    )
    parser.add_argument("--who", choices=WHO, action="append", help="who is killed (default: one of both each time)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and victims (default 0)")
    parser.add_argument("--root", type=Path, help="where runs go (default: a temporary folder)")
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    kinds = list(dict.fromkeys(arguments.kind or KINDS))[: arguments.count]
    results: dict[str, list[Trial]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder, suppress(KeyboardInterrupt):
        try_all(arguments, arguments.root or Path(folder), results)
    print_table(results)
    return 1 if any(result.differing for its in results.values() for result in its) else 0


def try_all(arguments: argparse.Namespace, root: Path, results: dict[str, list[Trial]]) -> None:
    """Runs the trials, kind after kind in turn, into ``results``."""
    chance, kinds = random.Random(arguments.seed), list(results)
    trials: dict[str, Trials] = {}
    for number in range(arguments.count):
        kind = kinds[number % len(kinds)]
        if kind not in trials:
            trials[kind] = Trials(root / kind.replace(" ", "_"), KINDS[kind])
        who = chance.choices(arguments.who or WHO, k=chance.randint(1, arguments.kills))
        result = trials[kind].run(f"trial{number}", who, chance)
        results[kind].append(result)
        kills = f"{plural(len(result.kills), 'kill')} ({', '.join(result.kills)})"
        resumed = f"resumed at step {', '.join(map(str, result.resumed)) or 'none'} of training"
        print(f"{number + 1} {kind}: {kills}; {resumed}: {'; '.join(result.differing) or 'equal'}", flush=True)


def print_table(results: Mapping[str, Sequence[Trial]]) -> None:
    """Prints a row for each kind of runs."""
    headers = ("", "trials", "kills of a rank", "of run.py", "resumed within training", "equal")
    rows = []
    for kind, its in results.items():
        kills = Counter(kill for result in its for kill in result.kills)
        resumed = sum(bool(result.resumed) for result in its)
        equal = sum(not result.differing for result in its)
        rows.append(
            (kind, str(len(its)), str(kills["rank"]), str(kills["parent"]), str(resumed), f"{equal} of {len(its)}")
        )
    print(f"{datetime.now():%Y-%m-%d}, {platform.platform()}, {os.cpu_count()} cores, torch {version('torch')}\n")
    for row in (headers, ["---"] * len(headers), *rows):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
