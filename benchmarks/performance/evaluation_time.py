"""What the suite adds to an evaluation, beside the forward pass of the same images: ``measure steps evaluation``."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from benchmarks.performance.cases import Case
from benchmarks.performance.hand_written_loop import configuration, run_trial
from benchmarks.performance.interleaved import with_interval
from benchmarks.performance.throughput import label
from benchmarks.training.options import synchronize

WARM_UP, ROUNDS = 2, 12  # evaluations
SIZES = (64, 256, 1024)  # images of a bare forward pass, of which the fastest counts
STEPS_BETWEEN = 2  # of training


class Trainer(pl.Trainer):
    """The trainer, with bare forward passes of the validation images before each evaluation; ``rounds`` are made by ``fit``."""

    rounds: list[tuple[float, dict[int, float]]]

    def fit(self, model: Any, *, datamodule: Any, **keywords: Any) -> None:  # type: ignore[override]
        """Train; note the seconds of each evaluation, of a CPU's processor, and by batch of the forward passes before it."""
        loop, device = self.fit_loop.epoch_loop.val_loop, self.strategy.root_device
        evaluate, self.rounds = loop.run, []

        def now() -> float:
            synchronize(device)
            return time.thread_time() if device.type == "cpu" else time.perf_counter()

        def timed() -> Any:
            images, bare = torch.cat([batch[0].to(device) for batch in datamodule.val_dataloader()]), {}
            model.eval()
            for size in SIZES:
                begun = now()
                with torch.inference_mode(), self.precision_plugin.forward_context():
                    for part in images.split(size):
                        model.predict_logits(part)
                bare[size] = now() - begun
            model.train()
            begun = now()
            result = evaluate()
            self.rounds.append((now() - begun, bare))
            return result

        loop.run = timed  # type: ignore[method-assign]
        super().fit(model, datamodule=datamodule, **keywords)


def evaluation_row(name: str, case: Case, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return the row of a case: milliseconds, their ratio with its interval and their difference, medians over evaluations."""
    with tempfile.TemporaryDirectory() as root:
        trial = configuration(case, Path(root), case.batch, case.steps, overrides)
        trial.config["trainer"] |= {
            "_target_": f"{__name__}.Trainer",
            "max_epochs": WARM_UP + ROUNDS,
            "limit_train_batches": STEPS_BETWEEN,
        }
        record, settings, trainer = run_trial(trial)
    rounds = trainer.rounds[WARM_UP:]
    fastest = min(SIZES, key=lambda size: statistics.median(bare[size] for _, bare in rounds))
    pairs = [(ours, bare[fastest]) for ours, bare in rounds]
    return {
        "network": name,
        "images": record["counts"]["val"],
        "setting": label(settings),
        "batch": record["parallel"]["eval_batch_size"],
        "bare_batch": fastest,
        "ours_ms": 1e3 * statistics.median(ours for ours, _ in pairs),
        "bare_ms": 1e3 * statistics.median(bare for _, bare in pairs),
        **with_interval("ratio", [ours / bare for ours, bare in pairs]),
        "added_ms": 1e3 * statistics.median(ours - bare for ours, bare in pairs),
        "rounds": len(pairs),
    }
