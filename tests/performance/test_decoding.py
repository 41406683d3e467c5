"""Decoding photographs: the generated tree, the packages' pixels, and the arithmetic of waiting."""

import io
import itertools
import json
import multiprocessing
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from support.benchmark_command import command

from benchmarks.performance import decoding, jpeg_tree
from benchmarks.performance.decoding import (
    BATCH,
    Step,
    chrome_trace,
    data_module,
    decoders,
    load,
    run_steps,
    summarise,
    waiting,
)
from benchmarks.performance.document import MeasuredTable
from benchmarks.performance.jpeg_tree import CLASSES, MARK, SCENE, SHAPES, generate, photograph, scene

main = command("measure decoding")

IMAGES = 96


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jpeg_tree, "SCENES", 12)  # of which each takes some tenths of a second
        return root, generate(root, IMAGES)


def test_the_tree_has_imagenets_layout_and_sizes(tree):
    root, made = tree
    files = sorted((root / "train").rglob("*.JPEG"))
    tested = sorted((root / "val").rglob("*.JPEG"))
    assert (len(files), len(tested), made["files"]) == (IMAGES, CLASSES, IMAGES + CLASSES)
    found = [(*Image.open(file).size, file.stat().st_size) for file in files + tested]
    assert {shape[:2] for shape in found} <= set(SHAPES)
    mean = np.mean(found, axis=0)
    assert mean == pytest.approx([made["width"], made["height"], made["mean_bytes"]])
    # 500x375 or upright, about 110 KB: within what so few files and scenes can differ.
    assert 440 < mean[0] < 510 and 375 < mean[1] < 440 and 90e3 < mean[2] < 130e3
    layers = Image.open(files[0]).layer
    assert [(across, down) for _, across, down, _ in layers] == [(2, 2), (1, 1), (1, 1)]
    assert len({file.read_bytes() for file in files + tested}) == len(found)
    splits = data_module(root, 32).splits
    assert {name: len(split) for name, split in splits.named().items()} == {
        "train": IMAGES - CLASSES,
        "val": CLASSES,
        "test": CLASSES,
    }


def test_a_tree_is_made_once_and_another_is_refused(tree, tmp_path):
    root, made = tree
    file = next((root / "train").rglob("*.JPEG"))
    before = file.stat().st_mtime_ns
    assert generate(root, IMAGES) == made and file.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=f"holds a tree of {IMAGES} images; name another folder by --tree"):
        generate(root, IMAGES + 1)
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="holds something else; name another folder by --tree"):
        generate(tmp_path, IMAGES)
    assert not (tmp_path / "train").exists()


def test_scenes_have_the_spectrum_of_photographs():
    """Amplitudes fall as a power of the frequency between -1 and -1.35: fitted to rings of the grey values' spectrum."""
    grey = np.asarray(scene(np.random.default_rng(1)).convert("L"), dtype=float)
    amplitudes = np.abs(np.fft.fft2(grey - grey.mean()))
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(SCENE)] * 2))
    edges = np.geomspace(4 / SCENE, 0.1, 12)
    rings = [amplitudes[(low <= frequency) & (frequency < high)].mean() for low, high in itertools.pairwise(edges)]
    slope = np.polyfit(np.log(edges[:-1] * edges[1:]) / 2, np.log(rings), 1)[0]
    assert -1.4 < slope < -0.9


def test_all_packages_decode_to_the_same_pixels():
    random = np.random.default_rng(0)
    (width, height), data = photograph(scene(random), random)
    expected = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    assert expected.shape == (height, width, 3)
    ways, missing = decoders()
    assert "Pillow" in ways and not set(ways) & set(missing)
    half = np.asarray(ways.pop("Pillow, at half the size")(data)).astype(int)
    assert half.shape == (-(-height // 2), -(-width // 2), 3)
    # A scaled inverse transform of a block is nearly the mean of four pixels.
    even = expected[: height // 2 * 2, : width // 2 * 2].reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
    assert np.abs(half[: height // 2, : width // 2] - even).mean() < 2
    for name, decode in ways.items():
        pixels = np.asarray(decode(data)).astype(int)
        colours = pixels if name.startswith(("Pillow", "simplejpeg")) else pixels[..., ::-1]
        assert np.abs(colours - expected).mean() < 0.5, name  # of another version of the library


def test_rates_and_ratios_are_medians_of_turns():
    row = summarise("x", [0.002, 0.004, 0.002], [0.001, 0.001, 0.001])
    assert (row["images_per_s"], row["ratio"]) == pytest.approx((500, 0.5))
    assert row["images_per_s_low"] == pytest.approx(250) and row["images_per_s_high"] == pytest.approx(500)


def test_waits_are_counted_by_hand():
    """Steps of 1 s; the first batches of both epochs wait 3 and 2 s, others 0, 0.04 (none), 0.06 and 0.5 s (stalls)."""
    steps, now = [], 10.0
    for epoch, wait in ((0, 3.0), (0, 0.0), (0, 0.06), (1, 2.0), (1, 0.04), (1, 0.5)):
        steps.append(Step(epoch, now, now + wait, now + wait + 1))
        now += wait + 1
    found = waiting(steps)
    assert {name: found[name] for name in ("steps", "stalls")} == {"steps": 6, "stalls": 2}
    times = [found[name] for name in ("step_ms", "longest_ms", "first_ms", "next_first_ms")]
    assert times == pytest.approx([1000, 500, 3000, 2000])
    events = chrome_trace(steps)["traceEvents"]
    assert [event["name"] for event in events] == ["wait for the batch", "step"] * 6
    assert events[0]["ts"] == 0 and events[1]["ts"] == pytest.approx(3e6) and events[-1]["dur"] == pytest.approx(1e6)


class Slow:
    """Batches whose third takes a while."""

    def __init__(self):
        self.sampler = SimpleNamespace(set_epoch=lambda epoch: None)

    def __iter__(self):
        for number in range(4):
            time.sleep(0.2 if number == 2 else 0)
            yield number


def test_a_stall_is_seen():
    steps = run_steps(Slow(), lambda batch: None, 0.05)
    assert [step.epoch for step in steps] == [0] * 4 + [1] * 4
    assert all(step.done - step.received >= 0.05 for step in steps)
    late = [step.received - step.requested for step in steps]
    assert late[2] >= 0.2 and late[6] >= 0.2 and waiting(steps)["stalls"] >= 2


def test_the_first_batch_waits_for_the_start_of_the_workers():
    class Starting(Slow):
        def __iter__(self):
            time.sleep(0.5)
            return iter(range(2))

    assert waiting(run_steps(Starting(), lambda batch: None, 0.0))["first_ms"] >= 500


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_of_two_epochs_are_the_same(tree, workers):
    before = set(multiprocessing.active_children())
    rate, same = load(tree[0], 32, workers)
    assert rate > 0 and same
    assert set(multiprocessing.active_children()) == before


def test_too_few_images_are_refused(capsys, tmp_path):
    # The first batch of an epoch is not timed, so that a second one is needed; an image of each class validates.
    for images in (100, 2 * BATCH + CLASSES - 1):
        assert main(["--images", str(images), "--tree", str(tmp_path)]) == 2
        assert f"--images must be at least {2 * BATCH + CLASSES}" in capsys.readouterr().err


@pytest.mark.slow
def test_a_measurement_is_kept_as_two_records(tree, tmp_path, monkeypatch, capsys):
    root, made = tree
    kept = {}
    monkeypatch.setattr(decoding, "BATCH", 32)
    monkeypatch.setattr(decoding, "ROUND_IMAGES", 16)
    monkeypatch.setattr(decoding, "WORKERS", (0, 1))
    monkeypatch.setattr(decoding, "NETWORK_IMAGES", 1)
    monkeypatch.setattr(MeasuredTable, "write", lambda table, *rest: kept.update({table.kind: (table, *rest)}))
    trace = tmp_path / "trace.json"
    assert main(["--images", str(IMAGES), "--tree", str(root), "--write", "--trace", str(trace)]) == 0
    assert len(json.loads(trace.read_text())["traceEvents"]) == 2 * 4
    assert list(kept) == ["decoding", "decoding_trace"]
    for table, _, command_line, rows, *more in kept.values():
        assert command_line.startswith("python -m benchmarks measure decoding --images") and "".join(
            [table.note, *more]
        )
        assert all(set(table.columns) <= set(row) for row in rows)
    rows = {row["what"]: row for row in kept["decoding"][3]}
    assert rows["decoding, Pillow"]["ratio"] == 1
    assert rows["training batch, the papers' augmentation"]["ratio"] < 1 > rows["test batch"]["ratio"]
    assert kept["decoding_trace"][3][0]["same_workers"] == "once"
    assert main(["--images", str(IMAGES + 1), "--tree", str(root)]) == 2
    assert "name another folder by --tree" in capsys.readouterr().err
    assert json.loads((root / MARK).read_text()) == made
