"""A training step beside a hand-written loop: both do the same work, and the arithmetic of comparing them."""

import gc
import math
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from support.benchmark_command import command
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.performance import evaluation_time, hand_written_loop
from benchmarks.performance.added_time import LIMIT, SHARE_LIMIT, SHARE_TOLERANCE, STEPS, TOLERANCE, slower
from benchmarks.performance.cases import CASES, Case
from benchmarks.performance.hand_written_loop import (
    WARM_UP,
    BareLoop,
    Round,
    configuration,
    counted_rounds,
    length,
    mean_loss,
    measure,
    summarise,
)
from benchmarks.performance.throughput import label
from benchmarks.training import COLLECTED_EVERY
from benchmarks.training.checkpoints import weights_sha256
from benchmarks.training.default_settings import complete
from benchmarks.training.tuned_settings import PLAIN
from lightning_modules.classifier import Classifier
from lightning_modules.nets import ResNet, UNet
from lightning_modules.segmenter import Segmenter

main = command("measure steps")

aten = torch.ops.aten
SMALL = {
    "classes": (Case(("model=resnet", "data=cifar10", "model.depth=8"), 4, 4, None), 4, 1),
    # Two epochs, so that the schedule counts.
    "schedule": (Case(("model=resnet", "data=digits", "model.depth=8", "recipe.batch_size=399"), None, 6, 1197), 6, 2),
    "weighted masks": (Case(("model=unet", "data=touching_cells", "model.base_channels=2"), 16, 3, 48), 3, 1),
    # Its schedule goes by steps, and what it learns from is drawn in each.
    "objects and masks": (
        Case(
            (
                *("model=mask_rcnn", "data=touching_cells_instances", "recipe.augment.crop_size=64"),
                *("model.backbone.base_channels=8", "model.pyramid=16", "model.post_nms=[40,40]"),
            ),
            *(24, 4, 48),
        ),
        *(4, 2),
    ),
}


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """As the other tests have it: training sets it back."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if "masks" in n else n for n in SMALL])
def test_both_loops_end_with_the_same_weights_to_the_bit(name, monkeypatch):
    case, steps, epochs = SMALL[name]
    rates, weights, collected_every = [], [], set()
    step = BareLoop.step

    def watched(self: BareLoop) -> None:
        collected_every.add(gc.get_threshold())
        rates.append(self.optimizer.param_groups[0]["lr"])
        weights.append(weights_sha256(self.net.state_dict()))
        step(self)

    monkeypatch.setattr(BareLoop, "step", watched)
    monkeypatch.setattr(hand_written_loop, "WARM_UP", 0)
    record, _, trainer = measure(case, case.batch, case.steps)
    beside = trainer.beside
    assert weights_sha256(beside.bare.net.state_dict()) == record["weights_sha256"]
    assert collected_every == {COLLECTED_EVERY}  # not as while modules are imported
    assert len(rates) == len(set(weights)) == steps
    assert record["weights_sha256"] not in weights
    assert len(set(rates)) == (steps if beside.bare.by_step else epochs)
    # Evaluation follows the last step of an epoch.
    assert len(beside.rounds) == steps - epochs == counted_rounds(steps // epochs, epochs, "cpu")
    for timing in beside.rounds:
        assert 0 < timing.batch_processor < timing.bare_processor and timing.suite_processor > 0 and timing.bare > 0
    if case.images is None:
        assert record["counts"] == {"train": steps * case.batch, "val": case.held_out, "test": case.held_out}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", CASES)
def test_every_case_has_rounds_that_count(name, device, tmp_path):
    case = CASES[name]
    config = configuration(case, tmp_path, case.batch if device == "cpu" else None, case.steps, ()).config
    per_epoch, epochs = length(case, config["recipe"]["batch_size"], case.steps)
    assert per_epoch * epochs >= case.steps and epochs == config["trainer"]["max_epochs"]
    assert counted_rounds(per_epoch, epochs, device) >= 6, "below, no interval of a median has 95 %"


@pytest.mark.parametrize("name", CASES)
def test_what_is_measured_by_default_has_a_committed_row(name, tmp_path):
    case = CASES[name]
    config = configuration(case, tmp_path, case.batch, case.steps, ()).config
    setting = label(PLAIN | complete(config, config["trainer"], gpu=False)[0])
    row = {"network": name, "batch": config["recipe"]["batch_size"], "setting": setting}
    assert STEPS.place(row) in map(STEPS.place, STEPS.committed("cpu"))


def test_the_loss_is_the_mean_over_pixels_each_times_its_weight():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    targets = torch.randint(3, (2, 4, 5), generator=generator)
    weights = torch.rand(2, 4, 5, generator=generator)
    expected = sum(
        -float(weights[n, y, x]) * math.log(float(logits[n, :, y, x].softmax(0)[targets[n, y, x]])) / 40
        for n in range(2)
        for y in range(4)
        for x in range(5)
    )
    assert float(mean_loss(logits, targets, weights)) == pytest.approx(expected, rel=1e-5)
    assert torch.equal(mean_loss(logits, targets, None), F.cross_entropy(logits, targets))


def test_ratios_are_medians_over_the_turns_after_the_first():
    slow = Round(suite=9.0, bare=1.0, suite_processor=9.0, bare_processor=1.0, batch_processor=0.9)
    rounds = [
        Round(0.4, 0.2, 0.103, 0.1, 0.001),
        Round(0.6, 0.2, 0.202, 0.2, 0.004),
        Round(0.8, 0.1, 0.101, 0.1, 0.003),
    ]
    found = summarise([slow] * WARM_UP + rounds, processor=True)
    assert found["rounds"] == 3
    assert found["ratio"] == pytest.approx(1.01) and found["ratio_high"] == pytest.approx(1.03)
    assert (found["ours_ms"], found["bare_ms"]) == (600.0, 200.0)
    assert found["added_us"] == pytest.approx(2000)
    assert found["batch_share"] == pytest.approx(0.02)
    assert summarise([slow] * WARM_UP + rounds, processor=False)["ratio"] == pytest.approx(3)


@pytest.mark.usefixtures("one_thread")
def test_an_evaluation_and_the_bare_forward_passes_see_the_same_images(monkeypatch):
    seen, forward = [], Classifier.predict_logits

    def watched(self: Classifier, images: torch.Tensor) -> torch.Tensor:
        seen.append((len(images), float(images.double().sum()), self.training, torch.is_grad_enabled()))
        return forward(self, images)

    monkeypatch.setattr(Classifier, "predict_logits", watched)
    monkeypatch.setattr(evaluation_time, "WARM_UP", 0)
    monkeypatch.setattr(evaluation_time, "ROUNDS", 2)
    case = Case(("model=resnet", "data=digits", "model.depth=8"), None, 2, 1197)
    row = evaluation_time.evaluation_row("small", case)
    assert (row["images"], row["batch"], row["rounds"]) == (150, 512, 2)
    assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"] and row["bare_batch"] in evaluation_time.SIZES
    *validated, tested = seen
    assert [count for count, *_ in validated] == 2 * [64, 64, 22, 150, 150, 150] and tested[0] == 450
    sums = [total for _, total, *_ in validated]
    assert sums[3:6] == sums[9:12] == 3 * [pytest.approx(sum(sums[:3]))]
    assert not any(training or gradients for *_, training, gradients in seen)


def test_what_is_worse_than_committed_is_named():
    row = {
        "network": "resnext29_8x64d",
        "batch": 2,
        "setting": "float32 NCHW eager",
        "ratio": 1.005,
        "batch_share": 0.001,
    }
    slack = 0.001
    before = [row]

    def found(ratio_low: float, **other: object) -> list[dict[str, object]]:
        return [row | {"ratio": ratio_low + 0.01, "ratio_low": ratio_low, "ratio_high": ratio_low + 0.02} | other]

    assert slower(found(1.005 + TOLERANCE - slack), before) == []
    [line] = slower(found(1.005 + TOLERANCE + slack), before)
    assert line == "resnext29_8x64d: a step takes 1.036 of a hand-written one (1.026 to 1.046), 1.025 is allowed"
    [line] = slower(found(1.0, batch_share=0.001 + SHARE_TOLERANCE + slack), before)
    assert line == "resnext29_8x64d: making the batch takes 1.20% of a hand-written step, 1.10% is allowed"
    # Of another batch, another setting nothing is committed: the limits.
    for committed, other in ((before, {"batch": 4}), (before, {"setting": "float32 NCHW compile"}), ([], {})):
        assert slower(found(LIMIT - slack, **other), committed) == []
        assert len(slower(found(LIMIT + slack, **other, batch_share=SHARE_LIMIT + slack), committed)) == 2
    assert not CASES["resnet20_digits"].limited
    assert slower(found(2.0, network="resnet20_digits"), None) == []
    [line] = slower(found(1.0, network="resnet20_digits"), before)
    assert line == "nothing is committed for resnet20_digits, batch 2, float32 NCHW eager"
    # Of several machines: the greatest.
    assert slower(found(1.05), [row | {"ratio": 1.04}, row]) == slower(found(1.05), [row, row | {"ratio": 1.04}]) == []


class Waits(TorchDispatchMode):
    """Notes what would wait for a device: a value asked for in Python, a size that depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in {aten._local_scalar_dense, aten.nonzero, aten._unique2, aten.masked_select}:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("task", ["classes", "masks"])
def test_no_batch_waits_for_the_device(task, monkeypatch):
    # torch's own looks at the values on a CPU alone.
    monkeypatch.setattr(F, "one_hot", lambda classes, count: (classes[..., None] == torch.arange(count)).long())
    with Waits() as waits:  # it can see them
        assert torch.ones(2).any() and len(torch.unique(torch.ones(2))) == 1
    assert len(waits.found) == 2
    steps = partial(torch.optim.SGD, lr=0.1), partial(torch.optim.lr_scheduler.ConstantLR)
    images = torch.rand(8, 1, 16, 16)
    if task == "classes":
        net = ResNet(8, block="basic", base_channels=4, in_channels=1, num_classes=10, stem="cifar")
        module, targets = Classifier(net, 10, *steps), torch.arange(8)
    else:
        module = Segmenter(UNet(1, 2, base_channels=2, depth=1, padded=True), 2, *steps, None, None)
        targets = torch.ones(8, 16, 16, dtype=torch.int64)
    batch = (images, targets, None, None)
    with Waits() as waits:
        for index in range(2):
            module.training_step(batch, index).backward()
            module.validation_step(batch, index)
            module.test_step(batch, index)
    assert waits.found == []


@pytest.mark.usefixtures("one_thread")
def test_bad_calls_are_refused(capsys):
    assert main(["resnext"]) == 2
    assert "no case resnext; there are resnext29_8x64d" in capsys.readouterr().err
    assert main(["densenet_bc100_k12", "--steps", "4"]) == 2
    assert "no round would count of 1 epoch of 4 steps: " in capsys.readouterr().err
    assert main(["resnet20_digits", "--batch", "2000"]) == 2
    assert "--batch=2000: the training split has 1197 images" in capsys.readouterr().err
    assert main(["resnet20_digits", "trainer.accumulate_grad_batches=2"]) == 2
    assert "trainer.compile, got trainer.accumulate_grad_batches=2" in capsys.readouterr().err
    assert main(["resnet20_digits", "trainer.precision=64-true"]) == 2
    assert "both loops have trainer.precision=32-true and bf16-mixed, got 64-true" in capsys.readouterr().err
