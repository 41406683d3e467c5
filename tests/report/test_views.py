"""The views: hand-made weights give the known map, bars add up to the exact counter's totals, only what may be averaged is."""

import itertools
import json
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import instantiate
from support.benchmark_command import command
from support.browser import Page, visit
from support.records import make_run
from torch import nn

from benchmarks.analysis.seeds import seed_groups
from benchmarks.complexity.counting import measure
from benchmarks.config.compose import expand
from benchmarks.config.trial import CONF, Trial, config_hash
from benchmarks.records.runs import load_runs
from benchmarks.report.accuracy_view import accuracy_view
from benchmarks.report.cardinality_view import cardinality_view
from benchmarks.report.deconvolution_view import deconvolution_view
from benchmarks.report.feature_reuse import feature_reuse, reuse_view
from benchmarks.report.layers_view import layers_view
from benchmarks.report.learning_rate_view import networks_tried
from benchmarks.report.scaling_view import scaling_view
from lightning_modules.nets import DenseNet, ResNet

view = command("view")

pytestmark = pytest.mark.usefixtures("one_thread")

# Red, green and blue of the page's background, and of the first chart's.
BACKGROUNDS = """
const page = getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).map(Number);
const chart = document.getElementById("chart-0").layout.paper_bgcolor;
return [page, [1, 3, 5].map(place => parseInt(chart.slice(place, place + 2), 16))];
"""


def trials(*overrides: str) -> list[Trial]:
    return [trial for trial in expand(overrides, multirun=True) if isinstance(trial, Trial)]


def strength(block: int, source: int, target: int) -> float:
    """A weight that tells block, source and target."""
    return 1 + block + 0.1 * source + 0.01 * target


def known_net(**arguments: Any) -> tuple[DenseNet, list[list[list[float]]]]:
    """A DenseNet whose connections from s to l all have the strength of (s, l), in either sign, and its map."""
    net = DenseNet(growth_rate=3, stem="cifar", in_channels=1, num_classes=4, **arguments)
    stages = list(net.stages)
    expected = []
    with torch.no_grad():
        for block in range(3):
            layers = [layer.composite[2] for layer in stages[2 * block]]
            last = stages[2 * block + 1][2] if block < 2 else net.classifier
            size = len(layers) + 1
            expected.append([[math.nan] * size for _ in range(size)])
            for target, layer in enumerate([*layers, last]):
                start = 0
                for source in range(target + 1):
                    end = start + 3 if source else layer.weight.shape[1] - 3 * target
                    signs = torch.randint(2, layer.weight[:, start:end].shape) * 2.0 - 1
                    layer.weight[:, start:end] = signs * strength(block, source, target)
                    expected[block][source][target] = strength(block, source, target)
                    start = end
    return net, expected


@pytest.mark.parametrize(
    "arguments",
    [{"depth": 13}, {"depth": 22, "bottleneck": True, "compression": 0.5}, {"depth": 7, "initial_channels": 5}],
    ids=["plain", "bc", "one_layer"],
)
def test_known_weights_give_the_known_map(arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net, expected = known_net(**arguments)
    for block, known in zip(feature_reuse(net.state_dict()), expected, strict=True):
        for row, wanted in zip(block, known, strict=True):
            assert row == pytest.approx(wanted, rel=1e-5, nan_ok=True)


def test_a_map_is_the_mean_over_all_weights_of_a_connection() -> None:
    net = DenseNet(10, 2, stem="cifar")
    weight = net.stages[0][1].composite[2].weight  # the second layer: 16 maps of the stem, 2 of the first
    mean_of_input = sum(abs(value) for value in weight[:, :16].flatten().tolist()) / (2 * 16 * 9)
    mean_of_first = sum(abs(value) for value in weight[:, 16:].flatten().tolist()) / (2 * 2 * 9)
    block = feature_reuse(net.state_dict())[0]
    assert (block[0][1], block[1][1]) == pytest.approx((mean_of_input, mean_of_first), rel=1e-5)
    assert math.isnan(block[1][0]) and math.isnan(block[2][1])


def test_other_weights_have_no_map() -> None:
    with pytest.raises(ValueError, match="not the weights of a DenseNet"):
        feature_reuse(ResNet(11, base_channels=4, stem="cifar").state_dict())


def folder_of(root: Path, net: nn.Module, *overrides: str) -> Path:
    """A run's folder with these weights."""
    [trial] = trials(*overrides)
    folder = root / "seed0"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(trial.config))
    state = {f"net.{name}": weight for name, weight in net.state_dict().items()}
    torch.save({"state_dict": state}, folder / "checkpoints" / "last.ckpt")
    return folder


def test_the_heat_map_shows_parts_of_the_largest(tmp_path: Path) -> None:
    net, expected = known_net(depth=13)
    drawn = reuse_view(folder_of(tmp_path, net, "model=densenet")).figures[0].choices
    for block, known in enumerate(expected):
        of_block, of_layer = (choice["traces"][block]["z"] for choice in drawn)
        top = max(value for row in known for value in row if not math.isnan(value))
        for s, l in ((s, l) for s in range(len(known)) for l in range(len(known))):  # noqa: E741
            if s > l:
                assert of_block[s][l] is None and of_layer[s][l] is None
                continue
            column = max(row[l] for row in known if not math.isnan(row[l]))
            assert of_block[s][l] == pytest.approx(known[s][l] / top, rel=1e-5)
            assert of_layer[s][l] == pytest.approx(known[s][l] / column, rel=1e-5)
    assert drawn[0]["traces"][0]["text"][2][3].startswith("layer 2 → transition<br>mean |w| 1.23")
    assert drawn[0]["traces"][2]["text"][0][3].startswith("the block’s input → classification layer<br>")


def test_bars_add_up_to_the_totals_and_follow_the_image() -> None:
    found = trials("model=unet", "data=nuclei", "model.base_channels=2") + trials("model=densenet", "data=digits")
    view = layers_view(found)
    orders = []
    for trial, figure in zip(found, view.figures, strict=True):
        data, net = trial.config["data"], instantiate(trial.config["model"])
        cost = measure(net, (data["in_channels"], *data["image_size"]))
        normalisation = sum(p.numel() for m in net.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
        for choice in figure.choices:
            sums = {f"y{row}": 0 for row in (1, 2, 3)}
            for trace in choice["traces"]:
                sums[trace["yaxis"]] += sum(trace["y"])
            assert list(sums.values()) == [cost.macs, cost.params - normalisation, cost.activations]
        names = {
            place: re.match(r"<b>([\w.]+)</b>", text)[1]  # type: ignore[index]
            for trace in figure.choices[0]["traces"]
            for place, text in zip(trace["x"], trace["hovertext"], strict=True)
        }
        orders.append([names[place] for place in sorted(names)])
        assert f"{cost.macs:,} MACs" in figure.caption and f"{cost.params:,} parameters" in figure.caption
    assert len(orders[0]) == 23 and len(orders[1]) == 40
    up = orders[0].index("up_convs.1")  # between the levels below and above it
    assert orders[0][up - 1].startswith("expanding.0.") and orders[0][up + 1].startswith("expanding.1.")
    notes = [[note["text"] for note in figure.choices[0]["layout"]["annotations"]] for figure in view.figures]
    assert {"down 1", "down 4", "bottom", "up 1", "up 4"} < set(notes[0])
    assert {"dense block 1", "dense block 2", "dense block 3"} < set(notes[1])
    same = [figure.choices[1]["layout"]["yaxis1"]["range"] for figure in view.figures]
    assert same[0] == same[1]


def test_networks_of_one_name_have_titles_of_their_own() -> None:
    shortcuts = layers_view(trials("model=resnet", "data=digits", "model.shortcut=A,C"))
    assert [figure.title for figure in shortcuts.figures] == [
        "resnet20 on digits",
        "resnet20 model.shortcut=C on digits",
    ]
    small = trials("model=unet", "data=nuclei", "model.base_channels=1", "model.dropout=0,0.5")
    titles = [figure.title for figure in deconvolution_view(small).figures[1:]]
    assert titles == ["unet1_padded on nuclei", "unet1_padded model.dropout=0.5 on nuclei"]


class OwnConvolution(nn.Module):
    """No layer of torch, but with a layer's attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel_size = 3
        self.weight = nn.Parameter(torch.ones(2, 1, 3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(x, self.weight).mean((2, 3))


def test_a_convolution_that_is_no_layer_has_a_bar() -> None:
    [trial] = trials("model=resnet", "data=digits")
    [figure] = layers_view([Trial({**trial.config, "model": {"_target_": f"{__name__}.OwnConvolution"}}, {})]).figures
    assert [(trace["name"], trace["y"]) for trace in figure.choices[0]["traces"]][0] == ("conv", [2 * 9 * 6 * 6])


def test_a_network_of_which_nothing_is_counted_has_no_bars() -> None:
    [trial] = trials("model=resnet", "data=digits")
    flat = Trial({**trial.config, "model": {"_target_": "torch.nn.Flatten"}}, {})
    with pytest.raises(ValueError, match="resnet20 has no layer to draw: nothing is counted for an image of 1×8×8"):
        layers_view([trial, flat])


def test_the_cost_over_cardinality_is_the_published_one() -> None:
    view = cardinality_view(trials("experiment=group_convolution", "row=32x4d,1x64d"))
    [figure] = view.figures
    bars = {trace["name"]: trace for trace in figure.choices[0]["traces"] if trace["type"] == "bar"}
    # ResNet-50 with its stride in the 3x3 and ResNeXt-50 32x4d, as torchvision and pycls publish them.
    assert bars["MACs"]["y"] == [1, 4_230_479_872 / 4_089_184_256]
    assert bars["parameters"]["y"] == [1, 25_028_904 / 25_557_032]
    [paper] = [trace for trace in figure.choices[0]["traces"] if trace.get("name") == "Xie et al. 2017"]
    assert paper["y"] == [23.9, 22.2]
    assert "No run has finished" in figure.caption


def test_the_band_is_of_the_seeds_that_may_be_averaged(tmp_path: Path) -> None:
    sweep = ["experiment=group_convolution", "data=digits", "row=32x4d,1x64d", f"output_root={tmp_path}"]
    hashes = {
        (trial.config["row"], trial.config["seed"]): config_hash(trial.config)
        for trial in trials(*sweep, "seed=range(6)")
    }

    def finished(row: str, seed: int, error: float, **changes: Any) -> None:
        changes = {"config_hash": hashes[row, seed], "metrics": {"test/top1_err": error}} | changes
        make_run(tmp_path, name=f"resnext20_{row}", family="resnext", recipe="resnext_digits", seed=seed, **changes)

    for seed, error in enumerate((3.0, 4.0, 8.0)):
        finished("1x64d", seed, error)
    finished("1x64d", 3, 50.0, dataset={"sha256": "other data"})
    finished("1x64d", 4, 60.0, config_hash="another configuration")
    finished("1x64d", 5, 70.0, status="failed")
    finished("32x4d", 0, 2.0)
    [figure] = cardinality_view(trials(*sweep)).figures
    traces = figure.choices[0]["traces"]
    band, seeds, mean = traces[:3]
    assert (band["fill"], band["x"], band["y"]) == ("toself", [0, 1, 1, 0], [8.0, 2.0, 2.0, 3.0])
    assert (mean["x"], mean["y"]) == ([0, 1], [5.0, 2.0])
    assert sorted(zip(seeds["x"], seeds["y"], strict=True)) == [(0, 3.0), (0, 4.0), (0, 8.0), (1, 2.0)]
    assert figure.choices[0]["layout"]["xaxis"]["ticktext"] == ["1×64d", "32×4d"]
    assert figure.caption.startswith("Mean of 1–3 seeds")


def test_networks_of_one_cost_share_a_chart_of_cardinality_with_widths_and_rates_of_their_own() -> None:
    fitted = trials("experiment=connectivity", "row=cardinality_1,cardinality_4,resnext_10.2e6,cardinality_16")
    assert len({trial.overrides["recipe.optimizer.lr"] for trial in fitted}) == 2
    [figure] = cardinality_view(fitted).figures
    assert figure.title == "20 layers on cifar10, common, batch_size=256, epochs=15"
    assert figure.choices[0]["layout"]["xaxis"]["ticktext"] == ["1×8d", "4×2d", "8×2d", "16×1d"]
    swept = trials("experiment=group_convolution", "data=digits", "row=32x4d,1x64d", "recipe.optimizer.lr=0.1,0.2")
    rates = cardinality_view(swept).figures
    assert [figure.title.rpartition(", ")[2] for figure in rates] == ["optimizer.lr=0.1", "optimizer.lr=0.2"]
    assert all(figure.choices[0]["layout"]["xaxis"]["ticktext"] == ["1×64d", "32×4d"] for figure in rates)


def test_families_are_drawn_over_their_cost_one_chart_per_data_set(tmp_path: Path) -> None:
    known = {"experiment": "compute_accuracy"}
    for seed, error in enumerate((2.0, 3.0, 7.0)):
        for name, macs in (("resnet20", 2_000), ("resnet29", 500), ("densenet40_k12", 2_001)):
            metrics = {"test/top1_err": error + macs / 1000}
            make_run(
                tmp_path, name=name, seed=seed, complexity={"macs": macs}, metrics=metrics, recipe="common", **known
            )
    make_run(tmp_path, name="resnet20", seed=9, metrics={"test/top1_err": 90.0})  # of no experiment
    make_run(tmp_path, task="segmentation", complexity={"macs": 7_000}, **known)
    digits, nuclei = accuracy_view(tmp_path, "compute_accuracy").figures
    assert digits.title.startswith("digits") and "Mean of 3 seeds" in digits.caption and "n = 450" in digits.caption
    assert nuclei.title.startswith("nuclei") and "One run each" in nuclei.caption
    traces = digits.choices[0]["traces"]
    curves = {trace["name"]: trace for trace in traces if trace["mode"] == "lines+markers"}
    assert (curves["resnet"]["x"], curves["resnet"]["y"]) == ([500, 2_000], [4.5, 6.0])
    assert (curves["densenet"]["x"], curves["densenet"]["y"]) == ([2_001], [pytest.approx(6.001)])
    [band] = (trace for trace in traces if trace.get("fill") and trace["x"] == [500, 2_000, 2_000, 500])
    assert band["y"] == [7.5, 9.0, 4.0, 2.5]
    axis = digits.choices[0]["layout"]["xaxis"]
    assert axis["tickvals"] == [500, 2_000]
    assert axis["range"][0] < math.log10(500) and axis["range"][1] > math.log10(2_001)


def test_ticks_of_many_costs_leave_room_for_their_texts(tmp_path: Path) -> None:
    for width in range(8, 28):
        make_run(tmp_path, name=f"resnet20_w{width}", complexity={"macs": 40_000 * width**2})
    [figure] = accuracy_view(tmp_path).figures
    axis = figure.choices[0]["layout"]["xaxis"]
    start, end = axis["range"]
    gaps = [math.log10(right / left) / (end - start) for left, right in itertools.pairwise(axis["tickvals"])]
    assert min(gaps) >= 0.05 and 10 <= len(gaps) < 19


def test_without_the_experiment_all_runs_are_drawn_by_the_score_that_people_know(tmp_path: Path) -> None:
    known: dict[str, Any] = {
        **{"task": "detection", "data": "digit_scenes", "family": "mask_rcnn", "recipe": "mask_rcnn_digit_scenes"},
        "protocol": {"metric": "test/mask_ap_err", "metric_label": "test 100 − mask AP (%)"},
    }
    for name, macs, error in (
        ("mask_rcnn_resnet18_fpn64", 2_000, 37.0),
        ("mask_rcnn_resnet34_fpn64", 3_000, 35.0),
        ("mask_rcnn_resnet18_fpn99", 3_000, 34.0),  # as dear as another of its curve
        ("mask_rcnn_resnext50_8x2d_fpn64", 1_900, 40.0),
    ):
        make_run(tmp_path, name=name, complexity={"macs": macs}, metrics={"test/mask_ap_err": error}, **known)
    [chart] = accuracy_view(tmp_path).figures
    curves = {t["name"]: t for t in chart.choices[0]["traces"] if t["mode"] == "lines+markers"}
    assert sorted(zip(*(curves["mask_rcnn_resnet"][axis] for axis in "xy"), strict=True))[0] == (2_000, 63.0)
    assert curves["mask_rcnn_resnext"]["y"] == [60.0]
    every = {(x, y) for curve in curves.values() for x, y in zip(curve["x"], curve["y"], strict=True)}
    assert every == {(1_900, 60.0), (2_000, 63.0), (3_000, 65.0), (3_000, 66.0)}
    assert len({(curve["line"]["dash"], curve["marker"]["symbol"]) for curve in curves.values()}) == 3
    layout = chart.choices[0]["layout"]
    assert layout["yaxis"]["title"]["text"] == "test mask AP (%)"
    assert layout["xaxis"]["range"][0] < math.log10(1_900) and layout["xaxis"]["range"][1] > math.log10(3_000)
    with pytest.raises(ValueError, match="no finished run of experiment=connectivity"):
        accuracy_view(tmp_path, "connectivity")
    with pytest.raises(ValueError, match=r"no experiment 'conectivity' \(did you mean 'connectivity'\?\); there are "):
        accuracy_view(tmp_path, "conectivity")


def test_every_group_of_a_networks_runs_has_its_mark(tmp_path: Path) -> None:
    """Where the code has changed between seeds, and the recipe is another one, a network is several points at one cost."""
    own, default = "resnet_digits", "classification"
    for seed, (code, recipe) in enumerate((("a", own), ("b", own), ("c", own), ("a", default), ("b", default))):
        make_run(tmp_path, name="resnet20", seed=seed, recipe=recipe, code={"training_sha256": code * 64})
    [chart] = accuracy_view(tmp_path).figures
    traces = chart.choices[0]["traces"]
    marks = [y for trace in traces if trace.get("name") == "each seed" for y in trace["y"]]
    assert sorted(marks) == sorted(run.value or 0 for run in load_runs(tmp_path)[0])
    curves = {trace["name"] for trace in traces if trace["mode"] == "lines+markers"}
    assert len(curves) == 5 and "resnet" in curves and "resnet20 · resnet_digits (code ccccccc)" in curves


def test_a_network_of_another_kind_is_on_a_curve_of_its_own(tmp_path: Path) -> None:
    for name, macs, overrides in (
        ("resnet20", 2_000, {"model.base_channels": 16}),
        ("resnet20_w8", 500, {"model.base_channels": 8}),
        ("plain20", 900, {"model.shortcut": "none"}),
    ):
        make_run(tmp_path, name=name, family="resnet", complexity={"macs": macs}, overrides=overrides)
    charts = [figure.choices[0]["traces"] for figure in accuracy_view(tmp_path).figures]
    curves = {t["name"]: t["x"] for traces in charts for t in traces if t["mode"] == "lines+markers"}
    assert curves == {"resnet": [500, 2_000], "resnet shortcut=none": [900]}


def test_rows_named_by_their_cost_are_curves_of_their_own(tmp_path: Path) -> None:
    for row, macs, error, rate in (
        ("plain_5e2", 500, 9.0, 0.1),
        ("plain_2e3", 2_000, 7.0, 0.2),
        ("resnet_5e2", 500, 6.0, 0.4),
        ("resnet_2e3", 2_000, 4.0, 0.8),
        ("cardinality_1", 2_000, 5.0, 0.8),  # of no curve
    ):
        make_run(
            tmp_path,
            experiment="connectivity",
            row=row,
            name=row,
            family="resnet",
            recipe="common",
            overrides={"recipe.optimizer.lr": rate},
            complexity={"macs": macs},
            metrics={"test/top1_err": error},
        )
    [chart] = accuracy_view(tmp_path, "connectivity").figures
    curves = {t["name"]: t for t in chart.choices[0]["traces"] if t["mode"] == "lines+markers"}
    assert {name: curve["y"] for name, curve in curves.items()} == {"plain": [9.0, 7.0], "resnet": [6.0, 4.0]}
    # Runs of no experiment are there, too, where all are asked for.
    make_run(tmp_path, name="resnet20", data="fashion_mnist")
    assert [figure.title.partition(",")[0] for figure in accuracy_view(tmp_path).figures] == ["digits", "fashion_mnist"]
    # A second rate of a network is no curve that takes the first one's place.
    known = {
        "experiment": "connectivity",
        "row": "plain_5e2",
        "name": "plain_5e2",
        "family": "resnet",
        "recipe": "common",
    }
    slower = {"recipe.optimizer.lr": 0.05}
    make_run(tmp_path, seed=1, overrides=slower, complexity={"macs": 500}, metrics={"test/top1_err": 20.0}, **known)
    shown = [
        trace["y"]
        for figure in accuracy_view(tmp_path, "connectivity").figures
        for trace in figure.choices[0]["traces"]
    ]
    assert [20.0] in shown and any(9.0 in values for values in shown)
    assert curves["plain"]["line"]["dash"] != curves["resnet"]["line"]["dash"]
    assert (curves["resnet"]["marker"]["symbol"], curves["plain"]["marker"]["symbol"]) == ("circle", "circle-open")


def test_curves_over_training_compute_are_the_fitted_ones_and_end_at_twice_the_largest_run(tmp_path: Path) -> None:
    costs = (1e10, 3e10, 1e11, 3e11, 1e12)
    for shortcut, factor in ({}, 6.0), ({"model.shortcut": "none"}, 9.0):
        for epochs, flops in enumerate(costs):
            for seed, noise in enumerate((-0.2, 0.0, 0.2)):
                make_run(
                    tmp_path,
                    name=f"net{factor:g}",
                    family="resnet",
                    seed=seed,
                    overrides={"recipe.epochs": epochs, **shortcut},
                    metrics={"test/top1_err": 1 + noise + factor * (flops / 1e11) ** -0.5},
                    compute={"train_flops": flops},
                )
    [chart] = scaling_view(tmp_path).figures
    traces = chart.choices[0]["traces"]
    curves = {trace["name"]: trace for trace in traces if trace["mode"] == "lines" and "name" in trace}
    assert list(curves) == ["resnet", "resnet shortcut=none"]
    for curve, factor in zip(curves.values(), (6.0, 9.0), strict=True):
        assert (curve["x"][0], curve["x"][-1]) == (pytest.approx(1e10), pytest.approx(2e12))
        # The exponent is one of a grid with steps of 2.3 %.
        assert curve["y"] == pytest.approx([1 + factor * (x / 1e11) ** -0.5 for x in curve["x"]], rel=0.02)
    marks = [trace for trace in traces if trace["mode"] == "markers"]
    assert marks[0]["y"] == pytest.approx([1 + 6 * (x / 1e11) ** -0.5 for x in costs])
    # 9 u and 6 u are equal at (9 / 6)² times the compute, u = C^-0.5.
    pair, *held_out = chart.sentences
    first, ratio = re.search(r"^At .* (resnet|none) needs ([\d.]+) ×", pair).groups()  # type: ignore[union-attr]
    assert len(held_out) == 2  # of five costs the largest is predicted, for both
    assert float(ratio) == pytest.approx(2.25 if first == "none" else 1 / 2.25, rel=0.1)
    assert {trace["line"]["dash"] for trace in curves.values()} == {"solid", "dash"}


def test_curves_over_one_image_and_over_training_have_the_same_names() -> None:
    evidence = CONF.parent / "docs" / "evidence" / "connectivity_bf16"
    over_image, over_training = (
        {trace["name"] for figure in shown.figures for trace in figure.choices[0]["traces"] if trace.get("name")}
        for shown in (accuracy_view(evidence, "connectivity"), scaling_view(evidence))
    )
    assert over_image - {"each seed"} == over_training == {"plain", "resnet", "resnext", "densenet"}


@pytest.mark.parametrize("metric", ["top1_err", "dice_err"])
def test_bars_over_training_compute_are_the_intervals_that_the_tables_say(tmp_path: Path, metric: str) -> None:
    for epochs, seed in itertools.product(range(1, 6), range(3)):
        make_run(
            tmp_path,
            seed=seed,
            task="segmentation" if metric == "dice_err" else "classification",
            overrides={"recipe.epochs": epochs},
            metrics={f"test/{metric}": 0.4 * (seed + 1) / epochs},  # draws of them go below 0 %
            compute={"train_flops": epochs * 1e10},
        )
    groups = sorted(seed_groups(load_runs(tmp_path)[0]), key=lambda group: group.runs[0].train_flops or 0.0)
    [chart] = scaling_view(tmp_path).figures
    [mark] = [trace for trace in chart.choices[0]["traces"] if trace["mode"] == "markers"]
    bars = mark["error_y"]
    ends = [
        (mean - below, mean + above)
        for mean, below, above in zip(mark["y"], bars["arrayminus"], bars["array"], strict=True)
    ]
    assert [f"[{low:.2f}, {high:.2f}]" for low, high in ends] == [group.interval_text for group in groups]
    assert all(-1e-9 <= low < high <= 100 + 1e-9 for low, high in ends)


def test_too_few_training_costs_are_no_curve(tmp_path: Path) -> None:
    make_run(tmp_path)
    with pytest.raises(
        ValueError, match="no family in .* has finished runs of several seeds at 4 different training costs"
    ):
        scaling_view(tmp_path)


@pytest.mark.parametrize("shown", [accuracy_view, scaling_view, networks_tried], ids=lambda shown: shown.__name__)
def test_runs_of_debugging_are_named_where_nothing_else_has_finished(
    tmp_path: Path, shown: Callable[[Path], object]
) -> None:
    for seed in range(2):
        make_run(tmp_path, seed=seed, overrides={"trainer.limit_train_batches": 2})
    with pytest.raises(ValueError, match=r"finished .* \(2 runs with trainer.limit_train_batches left out\): "):
        shown(tmp_path)


def written(tmp_path: Path, capsys: pytest.CaptureFixture[str], *argv: str) -> Path:
    path = tmp_path / "view.html"
    assert view([*argv, "--out", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    return path


def test_a_view_is_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, capsys, "layers", "model=resnext,resnet", "data=digits", "name='<b>&<script>'")
    page = Page(path)
    plotly = max((text for _, text in page.scripts), key=len)
    rest = page.source.replace(plotly, "")
    assert "http:" not in rest and "https:" not in rest and "src=" not in rest and "url(" not in rest
    assert page.text.count("<b>&<script> on digits") == 2
    assert "--paper" in page.styles and "prefers-color-scheme: dark" in page.styles
    [data] = [json.loads(text) for attributes, text in page.scripts if attributes.get("id") == "data"]
    assert [len(choices) for choices in data] == [2, 2]
    default = tmp_path / "outputs"
    assert view(["layers", "model=unet", "data=nuclei", "model.base_channels=1", f"output_root={default}"]) == 0
    assert (default / "views" / "layers.html").is_file()


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["layers", "model=resnt"], "no model named 'resnt' (did you mean 'resnet'?)"),
        (["layers", "model=unet", "data=nuclei", "model.padded=false"], "does not fit this unpadded U-Net"),
        (["layers", "model=resnet", "model.depth=21"], "a CIFAR basic ResNet has depth 6n+2"),
        (["cardinality", "experiment=iso_compute", "row=resnet_1e12"], "has no cardinality, model=resnext has one"),
        (["cardinality", "model=densenet", "data=digits"], "has no cardinality, model=resnext has one"),
        (["cardinality", "model=resnet", "data=digits"], "has no cardinality, model=resnext has one"),
        (["reuse", "nowhere"], "nowhere holds no checkpoints/last.ckpt"),
    ],
)
def test_bad_input_is_one_line(argv: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert view(argv) == 2
    captured = capsys.readouterr()
    [line] = captured.err.splitlines()
    assert expected in line and captured.out == ""


def test_reuse_is_of_a_densenet(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, ResNet(8, block="basic", base_channels=4, stem="cifar"), "model=resnet")
    with pytest.raises(ValueError, match="is a run of resnet20, feature reuse is of model=densenet"):
        reuse_view(folder)


@pytest.mark.browser
def test_browser_draws_and_switches(browser: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    visit(browser, written(tmp_path, capsys, "layers", "model=resnet,densenet", "data=digits"))
    tops = "return [0, 1].map(i => document.getElementById(`chart-${i}`).layout.yaxis.range[1])"
    own = browser.execute_script(tops)
    browser.find_element("css selector", "#choice option[value='1']").click()
    same = browser.execute_script(tops)
    assert own[0] != own[1] and same[0] == same[1] >= max(own) * 0.99
    bars = browser.execute_script("return document.querySelectorAll('#chart-0 .bars .point').length")
    assert bars == 3 * 20
    net, _ = known_net(depth=13)
    visit(browser, written(tmp_path, capsys, "reuse", str(folder_of(tmp_path, net, "model=densenet"))))
    assert browser.execute_script("return document.querySelectorAll('#chart-0 .heatmaplayer image').length") == 3
    # Square trials.
    for image in browser.find_elements("css selector", "#chart-0 .heatmaplayer image"):
        assert image.rect["width"] == pytest.approx(image.rect["height"], abs=3)
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    deadline = time.monotonic() + 20  # the page draws again when it has heard of it
    while (colours := browser.execute_script(BACKGROUNDS))[0] != colours[1] and time.monotonic() < deadline:
        time.sleep(0.1)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert colours[0] == colours[1] and max(colours[0]) < 64
