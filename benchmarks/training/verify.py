"""A finished run against what it says of itself: ``python -m benchmarks report verify RUN``."""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.config.trial import Trial, config_hash
from benchmarks.config.trusted import TRUST_HELP, check_targets
from benchmarks.records.clean_environment import clean_environment
from benchmarks.records.files import CHECKPOINTS, CONFIG, HISTORY, RECORD, read_config, read_json, write_json
from benchmarks.records.outcomes import OUTCOMES, read_outcomes
from benchmarks.records.record import MEASURED
from benchmarks.records.runs import Run, load_runs, read_history
from benchmarks.units import one_line, plural

NEEDED = {
    **{"name": str, "seed": int, "output_root": str, "data": dict, "module": dict, "datamodule": dict},
    **{"recipe": dict, "trainer": dict, "logger": dict, "data.in_channels": int, "data.image_size": list},
    "cluster.threads_per_process": int,
}
BUILT, TRAINER = ("module", "datamodule", "trainer"), "pytorch_lightning.Trainer"
RESULTS = ("metrics", "confusion", "weights_sha256", "compute", "error", "finished")
VERDICTS = {True: "ok", False: "DIFFERS", None: "not checked"}
TOLERANCE = 1e-3  # of a metric in percent: the record's is in single precision


class Finding(NamedTuple):
    """Whether something that a run says of itself ``agrees`` with what was derived anew, None where that cannot be done."""

    agrees: bool | None
    text: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``report verify``."""
    parser.description = (
        "Derive anew what a finished run says of itself: its identity, the counts of its network, the checksum of its "
        "data, its score from the stored outcomes, the checksum of its weights. Exit code 1 if anything differs."
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of the run, as in outputs/digits/…/seed0")
    parser.add_argument(
        "--replay", metavar="N", type=int, default=0,
        help="train up to N steps again, from the checkpoint before the last or from the start, and compare weights to the bit",
    )  # fmt: skip
    parser.add_argument("--trust", metavar="NAME", action="append", default=[], help=TRUST_HELP)


def run(arguments: argparse.Namespace) -> int:
    """Print what agrees and what does not; return 0 where nothing differs, else 1. Raises ValueError or OSError where there is
    no finished run, or N steps are too few to replay it."""
    directory: Path = arguments.run
    if arguments.replay < 0:
        raise ValueError(f"--replay {arguments.replay}: a number of steps from 1")
    finished = _finished(directory)
    config = read_config(directory, NEEDED)
    for part in BUILT:
        check_targets(config[part], directory / CONFIG, [*arguments.trust, TRAINER])
    start = _start(finished, arguments.replay) if arguments.replay else None
    differs = False
    for subject, (agrees, text) in findings(finished, config, start):
        print(f"{VERDICTS[agrees]:<12} {subject:<10} {one_line(text)}", flush=True)
        differs |= agrees is False
    return int(differs)


def findings(run: Run, config: dict[str, Any], start: tuple[Path | None, int] | None) -> Iterator[tuple[str, Finding]]:
    """Yield what each check finds, with its subject; ``start`` is what ``_start`` returns, None for no replay."""
    yield "identity", identity(run, config)
    yield "counts", counts(run, config)
    finding, test_sha256 = data(run, config)
    yield "data", finding
    yield "score", score(run, test_sha256)
    yield "weights", weights(run, config)
    if start is not None:
        yield "replay", replay(run, config, *start)


def identity(run: Run, config: dict[str, Any]) -> Finding:
    """Compare the configuration with its recorded hash, and the folder with the one that it gives."""
    digest, recorded = config_hash(config), run.record.get("config_hash")
    if digest != recorded:
        return Finding(False, f"{CONFIG} has the hash {digest[:12]}, the record {str(recorded)[:12]}")
    place = Trial(config, run.part("overrides")).directory.relative_to(config["output_root"])
    if run.directory.resolve().parts[-len(place.parts) :] != place.parts:
        return Finding(False, f"the run of {place} lies in {run.directory}")
    return Finding(True, f"configuration {digest[:12]} of {place}")


def counts(run: Run, config: dict[str, Any]) -> Finding:
    """Build the network, count it, and compare it with the record and the published network of its name."""
    from benchmarks.complexity.counting import build
    from benchmarks.complexity.reference_counts import check
    from benchmarks.records.record import to_json

    size = config["data"]["in_channels"], *config["data"]["image_size"]
    try:
        _, complexity = build(config["module"]["net"], size)
    except ValueError as error:
        return Finding(None, f"cannot be built here: {error}")
    try:
        check(config["name"], config["data"]["num_classes"], complexity)
    except ValueError as error:
        return Finding(False, str(error))
    here, recorded = to_json(complexity.totals()), run.part("complexity")
    if not recorded:
        return Finding(None, "the record has none")
    differing = [
        f"{key} {here.get(key)}, in the record {value}" for key, value in recorded.items() if here.get(key) != value
    ]
    text = f"{complexity.params:,} parameters, {complexity.macs:,} MACs"
    return Finding(not differing, "; ".join(differing) or text)


def data(run: Run, config: dict[str, Any]) -> tuple[Finding, str | None]:
    """Read the data and compare checksums; return that of the test images too, None where they cannot be read."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    from benchmarks.config.hydra_errors import unwrapped

    try:
        datamodule = instantiate(config["datamodule"])
        datamodule.setup("fit")
        manifest, test_sha256 = datamodule.manifest(), datamodule.splits.checksum(["test"])
    except (OSError, ValueError, ImportError, InstantiationException) as error:
        return Finding(None, f"cannot be read here: {unwrapped(error)}"), None
    recorded = run.part("dataset").get("sha256")
    agrees = manifest["sha256"] == recorded and manifest["counts"] == run.part("counts")
    images = ", ".join(f"{number:,} {name}" for name, number in manifest["counts"].items())
    text = f"{images}, checksum {manifest['sha256'][:12]}"
    return Finding(agrees, text if agrees else f"{text}; the record has {str(recorded)[:12]}"), test_sha256


def score(run: Run, test_sha256: str | None) -> Finding:
    """Compute the reported metric from the stored outcomes; ``test_sha256`` is the test set's that is here, if one is."""
    try:
        outcomes = read_outcomes(run.directory)
    except ValueError as error:
        return Finding(False, str(error))
    if outcomes is None:
        return Finding(None, f"the run has no {OUTCOMES}")
    name = (run.metric or "/").partition("/")[2]
    try:
        value = outcomes.score(name)
    except KeyError:
        return Finding(None, f"{OUTCOMES} does not tell {name}")
    if test_sha256 is not None and outcomes.test_sha256 != test_sha256:
        return Finding(
            False, f"{OUTCOMES} is of another test set ({outcomes.test_sha256[:12]}, here {test_sha256[:12]})"
        )
    if len(outcomes) != run.n:
        return Finding(False, f"{OUTCOMES} has {len(outcomes):,} images, the run was tested on {run.n:,}")
    scale = 1 if "%" in run.metric_label else 100
    recorded = (run.measured or 0.0) * scale
    text = f"{value:.4f} % {name} from the outcomes of {len(outcomes):,} images"
    agrees = abs(value - recorded) <= TOLERANCE
    return Finding(agrees, text if agrees else f"{text}, {recorded:.4f} in the record")


def weights(run: Run, config: dict[str, Any]) -> Finding:
    """Compare the checksum of the last checkpoint's weights with that of the weights that were tested."""
    import torch

    from benchmarks.training.checkpoints import LAST, weights_sha256
    from benchmarks.training.weights import checkpoint_weights

    if config.get("mode") == "test":
        return Finding(None, "imported, not trained")
    path = run.directory / CHECKPOINTS / LAST
    if not path.is_file():
        return Finding(None, f"the run has no {CHECKPOINTS}/{LAST}")
    try:
        state_dict, _ = checkpoint_weights(path)
    except ValueError as error:
        return Finding(False, str(error))
    tested = {key[len("net.") :]: value for key, value in state_dict.items() if key.startswith("net.")}
    # Averaged weights are kept in 32 bits and tested in those of the run.
    of_run = {"64-true": torch.float64, "16-true": torch.float16, "bf16-true": torch.bfloat16}
    if (dtype := of_run.get(run.part("parallel").get("precision", ""))) is not None:
        tested = {key: value.to(dtype) if value.is_floating_point() else value for key, value in tested.items()}
    digest = weights_sha256(tested)
    agrees = digest == run.record.get("weights_sha256")
    recorded = str(run.record.get("weights_sha256"))[:12]
    return Finding(agrees, f"{LAST} has {digest[:12]}" + ("" if agrees else f", the record {recorded}"))


def replay(run: Run, config: dict[str, Any], start: Path | None, steps: int) -> Finding:
    """Train the last ``steps`` steps again in a folder of their own, from the checkpoint ``start`` or, for None, from the start
    of training, and compare weights, metrics and history."""
    from benchmarks.training.checkpoints import LAST
    from benchmarks.training.tuned_settings import CHOSEN

    origin = "the start" if start is None else start.name
    print(f"replaying {plural(steps, 'step')} from {origin} …", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        if start is not None:
            (directory / CHECKPOINTS).mkdir()
            shutil.copy(start, directory / CHECKPOINTS / LAST)
        if (run.directory / CHOSEN).exists():
            shutil.copy(run.directory / CHOSEN, directory / CHOSEN)
        write_json(directory / CONFIG, config | {"logger": {"mode": "none"}})  # JSON is YAML
        record = read_json(run.directory / RECORD) or {}
        left = {key: value for key, value in record.items() if key not in RESULTS}
        write_json(directory / RECORD, left | {"status": "running", "error": None, "finished": None, "wandb": None})
        command = [sys.executable, "-m", "benchmarks.training.rank", folder]
        environment = clean_environment(config["cluster"]["threads_per_process"])
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", env=environment, check=False
        )
        again = read_json(directory / RECORD) or {}
        if done.returncode != 0:
            return Finding(False, f"stopped: {again.get('error') or done.stderr[-300:]}")
        differing = _differing_results(run, again, read_history(directory / HISTORY), steps)
        elsewhere = _elsewhere(run, again)
    text = f"{plural(steps, 'step')} from {origin}"
    if not differing:
        return Finding(True, f"{text}: the same weights, metrics and history, to the bit")
    return Finding(False, f"{text}: {differing}{elsewhere}")


def _finished(directory: Path) -> Run:
    runs = load_runs(directory.resolve())[0] if (directory / RECORD).is_file() else []
    if len(runs) != 1:
        raise ValueError(f"{directory} is no folder of a run: RUN is one with {RECORD}, as in outputs/digits/…/seed0")
    if runs[0].status != "ok":
        raise ValueError(f"{directory} is {runs[0].status}: only a finished run can be verified")
    return runs[0]


def _start(run: Run, most: int) -> tuple[Path | None, int]:
    """Return the checkpoint to replay from, None for the start of training, and the steps from there to the end. Raises
    ValueError where that is not possible, as from a damaged checkpoint."""
    from benchmarks.training.budget import PER_UNIT
    from benchmarks.training.checkpoints import PREVIOUS
    from benchmarks.training.weights import load_file

    if run.part("protocol").get("checkpoint") == "imported":
        raise ValueError(f"{run.directory} tested imported weights: there is no training to replay")
    if run.part("parallel").get("world_size", 1) > 1:
        raise ValueError(f"{run.directory} was trained by several processes: --replay trains in one")
    budget = run.part("protocol").get("budget") or {}
    if budget.get("kind") in PER_UNIT:
        raise ValueError(
            f"{run.directory} ended with a budget of {budget['kind'].removeprefix('train_')}: trained again it takes other "
            "steps"
        )
    total = int(run.part("compute").get("steps") or 0)
    path = run.directory / CHECKPOINTS / PREVIOUS
    fewest = total
    if path.is_file():
        content, _ = load_file(path)
        step = content.get("global_step") if isinstance(content, dict) else None
        if not isinstance(step, int):
            raise ValueError(f"{path} is no checkpoint of a run: it has no global_step")
        if step < total:
            fewest = total - step
            if fewest <= most:
                return path, fewest
    if total <= most:
        return None, total
    start = "the last checkpoint before the end" if fewest < total else "the start of training"
    raise ValueError(f"--replay {most}: {start} is {plural(fewest, 'step')} back, --replay {fewest} would do")


def _differing_results(run: Run, again: dict[str, Any], rows: Sequence[dict[str, Any]], steps: int) -> str:
    """Return in words the first thing in which a replay of the last steps differs from the run; empty where nothing does."""
    start = int(run.part("compute").get("steps") or 0) - steps
    recorded = {row["step"]: row for row in run.history if row.get("step", 0) > start}
    replayed = {row["step"]: row for row in rows}
    for step in sorted(recorded.keys() | replayed.keys()):
        if step not in recorded:
            return f"an evaluation after step {step}, which the run's {HISTORY} has not"
        if step not in replayed:
            return f"no evaluation after step {step}, which the run's {HISTORY} has"
        for key in sorted((recorded[step].keys() | replayed[step].keys()) - {*MEASURED}):
            value, before = replayed[step].get(key), recorded[step].get(key)
            if value != before:
                return f"{key} after step {step} is {value}, in the run's {HISTORY} {before}"
    before, metrics = run.part("metrics"), again.get("metrics") or {}
    for key in sorted(before.keys() | metrics.keys()):
        if before.get(key) != metrics.get(key):
            return f"{key} is {metrics.get(key)}, in the record {before.get(key)}"
    if again.get("weights_sha256") != run.record.get("weights_sha256"):
        return f"weights {str(again.get('weights_sha256'))[:12]}, in the record {str(run.record.get('weights_sha256'))[:12]}"
    return ""


def _elsewhere(run: Run, again: dict[str, Any]) -> str:
    """Return what of the environment is another one, which may change the last bits."""
    before, here = run.part("environment"), again.get("environment") or {}
    facts = {key: (before.get(key), here.get(key)) for key in ("device", "device_name", "threads", "python")}
    packages = before.get("packages") or {}
    facts |= {name: (version, (here.get("packages") or {}).get(name)) for name, version in packages.items()}
    codes = [(one.get("code") or {}).get("training_sha256") for one in (run.record, again)]
    facts["code"] = (str(codes[0])[:7], str(codes[1])[:7])
    other = [f"{name} {there} there, {value} here" for name, (there, value) in facts.items() if there != value]
    return f" ({'; '.join(other)}: bits may differ)" if other else ""
