"""Kills runs at random moments with SIGKILL, goes on with the same command, and compares with a run that nothing happened to.

``python tests/support/kill_trials.py --count 50 --who any``; exits 1 if a weight, a row or a figure differs. Linux only.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

sys.path[:0] = [str(folder) for folder in Path(__file__).resolve().parents[1:3]]

from support.forked_trials import ROOT, TINY, outcome  # noqa: E402

from benchmarks.records.files import read_json  # noqa: E402

LONGER = ("recipe.epochs=10", "+trainer.limit_train_batches=12")  # most moments lie in training
WHO = ("process", "rank", "parent")
LIVES = 12  # a trial that has not finished by then never will
LIFE_S = 180
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "SLURM_"))}


@dataclass
class Trial:
    """What became of one: whom the kills hit, the checkpoints that lives began from, and what differs at the end."""

    kills: list[str] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)


class Trials:
    """A reference run and trials under the same configuration.

    Args:
        root: where runs go.
        ranks: processes of a run.
        workers: loader workers of each.
        overrides: further ``KEY=VALUE``.
    """

    def __init__(self, root: Path, ranks: int, workers: int, overrides: list[str]) -> None:
        self.root = root
        tiny = [override for override in TINY if override.split("=")[0] not in {key.split("=")[0] for key in LONGER}]
        self.overrides = [*tiny, *LONGER, f"trainer.devices={ranks}", f"cluster.loader_workers={workers}", *overrides]
        self.overrides.append("cluster.oversubscribe=true")
        process = self._start(root / "reference")
        out, _ = process.communicate(timeout=LIFE_S)
        if process.returncode:
            raise RuntimeError(f"the reference run failed:\n{out}")
        self.reference = outcome(trial_of(root / "reference"))

    def run(self, name: str, who: list[str], chance: random.Random) -> Trial:
        """Kills one of ``who`` each time, at a moment uniform over a run from its set-up to its end, then lets it finish."""
        root, trial = self.root / name, Trial()
        for life in range(LIVES):
            process = self._start(root)
            if life < len(who):
                self._await(process, root, chance.uniform(-0.2, 1))
                time.sleep(chance.uniform(0, 0.5))  # the time between two writings of progress.json
                if process.poll() is None and kill(process, root, who[life], chance):
                    trial.kills.append(who[life])
            out, _ = process.communicate(timeout=LIFE_S)
            if process.returncode == 0:
                break
        else:
            trial.differing.append(f"not finished: {out.strip().splitlines()[-1:]}")
        found = outcome(trial_of(root))
        trial.differing += [key for key in self.reference if found.get(key) != self.reference[key]]
        record = json.loads((trial_of(root) / "record.json").read_text())
        trial.resumed = [entry["checkpoint"] or "none" for entry in record["resumptions"]]
        return trial

    def _start(self, root: Path) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, str(ROOT / "run.py"), *self.overrides, f"output_root={root}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.root, env=CLEAN,
        )  # fmt: skip

    @staticmethod
    def _await(process: "subprocess.Popen[str]", root: Path, share: float) -> None:
        """Waits until this share of the steps is done, or for the ranks alone if it is negative."""
        deadline = time.monotonic() + LIFE_S
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
            for path in root.glob("*/*/*/seed*/progress.json"):
                progress = read_json(path) or {"done": 0, "total": 1}
                if progress["done"] >= share * progress["total"]:
                    return
            if share < 0 and ranks_of(root):
                return


def kill(process: "subprocess.Popen[str]", root: Path, who: str, chance: random.Random) -> bool:
    """Kills run.py (``parent``), the only process of the trial, or one of its ranks; says whether there was one left."""
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


def trial_of(root: Path) -> Path:
    """The directory of the only run below ``root``."""
    [path] = root.glob("*/*/*/seed*/record.json")
    return path.parent


def main(argv: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50, help="trials (default 50)")
    parser.add_argument("--kills", type=int, default=2, help="most kills of a trial (default 2)")
    parser.add_argument("--ranks", type=int, default=1, help="processes of a run (default 1)")
    parser.add_argument("--workers", type=int, default=0, help="loader workers of each process (default 0)")
    parser.add_argument("--who", choices=(*WHO, "any"), default="any", help="who is killed (default any)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and victims (default 0)")
    parser.add_argument("--root", type=Path, help="where runs go (default: a temporary folder)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="beside the tiny run's own")
    arguments = parser.parse_args(argv)
    console, chance = Console(), random.Random(arguments.seed)
    kinds = [arguments.who] if arguments.who != "any" else ["process" if arguments.ranks == 1 else "rank", "parent"]
    with tempfile.TemporaryDirectory() as folder, Progress(console=console) as progress:
        root = arguments.root or Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        bar = progress.add_task("reference", total=arguments.count)
        trials = Trials(root, arguments.ranks, arguments.workers, arguments.overrides)
        results = []
        for number in range(arguments.count):
            progress.update(bar, description=f"trial {number + 1}")
            who = chance.choices(kinds, k=chance.randint(1, arguments.kills))
            results.append(trials.run(f"trial{number}", who, chance))
            if results[-1].differing:
                console.print(f"trial {number}: {results[-1]}", style="red")
            progress.advance(bar)
    table = Table(
        "", "trials", "kills", "resumed", "equal", title=f"{arguments.ranks} ranks, {arguments.workers} workers"
    )
    kills = Counter(kill for result in results for kill in result.kills)
    equal = sum(not result.differing for result in results)
    resumed = Counter(name for result in results for name in result.resumed)
    table.add_row(
        arguments.who,
        str(len(results)),
        ", ".join(f"{count} {who}" for who, count in kills.items()) or "0",
        ", ".join(f"{count} from {name}" for name, count in resumed.items()) or "0",
        f"{equal} of {len(results)}",
    )
    console.print(table)
    return 0 if equal == len(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
