"""The solver of matched costs against brute force, published sizes and the exact counter; the rows of `compute_accuracy`."""

import re
import shlex
from collections.abc import Callable
from itertools import count as count_from
from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import instantiate
from support.benchmark_command import command
from torch import Tensor, nn

from benchmarks.complexity.cost import Complexity
from benchmarks.complexity.counting import measure
from benchmarks.complexity.match import TOLERANCE, Network, Unreachable, count
from benchmarks.complexity.reference_counts import check
from benchmarks.config.compose import expand, expand_all
from benchmarks.config.folders import choices
from benchmarks.config.trial import Trial
from lightning_modules.nets import DenseNet, ResNet, UNet

match = command("complexity match")

HEADLINE = Path(__file__).resolve().parents[2] / "conf" / "experiment" / "compute_accuracy.yaml"


pytestmark = pytest.mark.usefixtures("one_thread")


def trials(*overrides: str) -> list[Trial]:
    found = expand(overrides, multirun=True)
    assert all(isinstance(trial, Trial) for trial in found)
    return [trial for trial in found if isinstance(trial, Trial)]


def network(*overrides: str) -> Network:
    [trial] = trials(*overrides)
    return Network(trial.config)


def measured(trial: Trial) -> Complexity:
    data = trial.config["data"]
    return measure(instantiate(trial.config["model"]), (data["in_channels"], *data["image_size"]))


@pytest.mark.parametrize(
    ("build", "size"),
    [
        (lambda: ResNet(8, block="basic", base_channels=5, stem="cifar", shortcut="A", num_classes=7), (3, 32, 32)),
        (lambda: ResNet(50, base_channels=4, base_width=6, shortcut="C", num_classes=7), (3, 40, 64)),
        (lambda: ResNet(11, cardinality=4, base_width=3, base_channels=5, stem="cifar"), (3, 9, 9)),
        (lambda: DenseNet(16, 5, bottleneck=True, compression=0.5, in_channels=1, stem="cifar"), (1, 8, 8)),
        (lambda: UNet(1, 2, base_channels=3), (1, 188, 188)),
        (lambda: UNet(3, 2, base_channels=3, depth=2, padded=True, release=True), (3, 16, 24)),
    ],
    ids=["basic", "bottleneck", "resnext", "densenet", "unet", "unet_release"],
)
def test_the_count_from_shapes_is_the_exact_counters(
    build: Callable[[], nn.Module], size: tuple[int, int, int]
) -> None:
    exact = measure(build(), size)
    with torch.device("meta"):
        assert count(build(), size) == {"macs": exact.macs, "params": exact.params}


@pytest.mark.parametrize(
    "overrides",
    [["model=resnet"], ["model=resnet", "model.block=bottleneck"], ["model=resnext"], ["model=densenet"]],
    ids=["basic", "bottleneck", "resnext", "densenet"],
)
def test_a_wider_network_costs_more(overrides: list[str]) -> None:
    net = network(*overrides)
    for step in (0, 1):
        counts = [net.count(width, step) for width in (*range(1, 18), 40, 41, 200, 201)]
        for quantity in ("macs", "params"):
            costs = [cost[quantity] for cost in counts]
            assert costs == sorted(set(costs)), (step, quantity)


@pytest.mark.parametrize(
    ("overrides", "quantity", "target", "found"),
    [  # as published; each search starts from another width
        (["model=resnet", "data=cifar10", "model.base_channels=9"], "params", 853_018, {"base_channels": 16}),
        (["model=resnext", "data=cifar10", "model.base_width=4"], "params", 34_426_698, {"base_width": 64}),
        (["model=resnext", "data=imagenet", "model.base_width=30"], "macs", 4_230_479_872, {"base_width": 4}),
        (
            [
                "model=densenet",
                "data=cifar10",
                "model.depth=40",
                "model.bottleneck=false",
                "model.compression=1",
                "model.growth_rate=40",
            ],
            "params",
            1_019_722,
            {"growth_rate": 12},
        ),
        (["model=unet", "data=isbi2012", "model.base_channels=3"], "params", 31_030_658, {"base_channels": 64}),
    ],
    ids=["ResNet-56", "ResNeXt-29 8x64d", "ResNeXt-50 32x4d", "DenseNet-40", "U-Net"],
)
def test_published_sizes_give_the_published_widths(
    overrides: list[str], quantity: str, target: int, found: dict[str, int]
) -> None:
    matched = network(*overrides).solve(quantity, target)
    assert matched.arguments == found
    assert getattr(matched, quantity) == target


@pytest.mark.parametrize(
    ("overrides", "target"),
    [(["model=resnext"], 15e6), (["model=densenet"], 1.5e6), (["model=resnet"], 5e6)],
    ids=lambda value: value[0] if isinstance(value, list) else f"{value:.0e}",
)
def test_the_second_number_moves_no_more_than_it_must(overrides: list[str], target: float) -> None:
    net = network(*overrides)
    found = net.solve("macs", round(target))
    assert abs(found.macs - target) <= TOLERANCE * target
    width, second = found.arguments.values()
    steps = abs(second - found.were[net.second]) // net.stride
    assert steps > 0
    for step in range(1 - steps, steps):
        for width in (width for width in count_from(1) if net.is_near(width, step)):
            cost = net.count(width, step)["macs"]
            assert abs(cost - target) > TOLERANCE * target, (width, step)
            if cost > target:
                break


def test_the_second_number_comes_down_to_its_least_value() -> None:
    found = network("model=resnext", "data=digits", "model.base_channels=32").solve("macs", 159_616)
    assert (found.arguments, found.macs) == ({"base_width": 1, "base_channels": 4}, 159_616)


def test_of_a_target_out_of_reach_the_nearest_costs_are_told() -> None:
    net = network("model=unet", "data=nuclei")
    costs = {width: net.count(width, 0)["macs"] for width in range(1, 6)}
    with pytest.raises(Unreachable) as error:
        net.solve("macs", 20_000_000)
    assert re.findall(r"([\d,]+) (\w+) \(base_channels=(\d+)\)", str(error.value)) == [
        (f"{costs[2]:,}", "below", "2"), (f"{costs[3]:,}", "above", "3"),
    ]  # fmt: skip
    with pytest.raises(Unreachable, match=rf"the nearest in reach: {costs[1]:,} above \(base_channels=1\)$"):
        net.solve("macs", 1000)
    with pytest.raises(Unreachable, match=r"below \(base_channels=\d+\)$"):
        net.solve("params", 10**13)


def test_pasted_overrides_make_the_network_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    target = 10_080_000
    assert match(["model=resnet,densenet", "--macs", "10.08e6", "data=digits", "recipe=common"]) == 0
    out = capsys.readouterr().out
    pasted = re.findall(r"^python run\.py (.*)$", out, re.MULTILINE)
    assert len(pasted) == 2
    for overrides, changed in zip(pasted, ("base_channels 16 → 32", "growth_rate 12 → 18"), strict=True):
        [trial] = trials(*overrides.split())
        assert trial.config["recipe"]["name"] == "common"
        cost = measured(trial)
        assert abs(cost.macs - target) <= TOLERANCE * target
        figures = (f"{target:,}", f"{cost.macs:,}", f"{cost.params:,}", f"{cost.macs / target - 1:+.2%}", changed)
        assert " ".join((trial.config["name"], *figures)) in " ".join(out.split())


def test_a_network_of_another_width_does_not_bear_a_published_name(capsys: pytest.CaptureFixture[str]) -> None:
    """A run is refused whose network is not what its name says: what is pasted must not be."""
    wanted = measured(trials("model=resnet", "data=cifar10", "model.depth=20", "model.base_channels=17")[0]).macs
    assert match(["model=resnet", "data=cifar10", "model.depth=20", "--macs", str(wanted)]) == 0
    [overrides] = re.findall(r"^python run\.py (.*)$", capsys.readouterr().out, re.MULTILINE)
    [trial] = trials(*overrides.split())
    assert trial.config["name"] == "resnet20_base_channels17"
    assert measured(trial).macs == wanted
    check(trial.config["name"], 10, measured(trial))
    assert match(["model=densenet", "data=cifar10", "--macs", "0.3e9"]) == 0
    [overrides] = re.findall(r"^python run\.py (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert overrides.endswith(" name=densenet_bc100_k12_initial_channels34")  # the growth rate is as it was
    with pytest.raises(ValueError, match="called resnet20 has"):
        check("resnet20", 10, measured(trial))


def test_the_printed_command_is_the_matched_run_when_a_shell_reads_it(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["model=unet", "data=nuclei", "name=it's [2]", "data.image_size=[32,48]"]
    target = measured(trials(*given, "model.base_channels=3")[0]).macs
    assert match([*given, "--macs", str(target)]) == 0
    [line] = re.findall("^python .*$", capsys.readouterr().out, re.MULTILINE)
    assert " 'data.image_size=[32,48]' " in line  # zsh takes brackets for a pattern
    words = shlex.split(line)
    [trial] = trials(*words[2:])
    assert words[:2] == ["python", "run.py"] and trial.config["name"] == "it's [2]"
    assert measured(trial).macs == target


def test_what_is_reached_is_told_beside_what_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert match(["model=unet", "data=nuclei", "--macs", "12.1e6,20e6"]) == 2
    captured = capsys.readouterr()
    assert "python run.py model=unet data=nuclei model.base_channels=2\n" in captured.out
    [line] = captured.err.splitlines()
    assert line.startswith(
        "python -m benchmarks complexity match: unet8_padded on nuclei: no base_channels makes 20,000,000 MACs"
    )


class Scaled(nn.Sequential):
    """A network that needs values: a tensor made without a device. With images of three channels it fails everywhere."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Conv2d(1, width, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self[0](x) * torch.linspace(0, 1, 6)


def test_a_network_that_needs_values_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    config = {"family": "scaled", "name": "scaled8", "about": {"match": {"width": "width"}}}
    config |= {
        "model": {"_target_": f"{__name__}.Scaled", "width": 8},
        "data": {"in_channels": 1, "image_size": [8, 8]},
    }
    with pytest.raises(
        ValueError, match="the widths of scaled8 cannot be tried without values, on PyTorch's meta device"
    ):
        Network(config)
    with pytest.raises(RuntimeError, match="to have 1 channels"):
        Network(config | {"data": {"in_channels": 3, "image_size": [8, 8]}})


class Heads(nn.Sequential):
    """A network whose width eight groups divide; of sixteen channels or more."""

    def __init__(self, width: int) -> None:
        if width < 16:
            raise ValueError("too narrow")
        super().__init__(nn.Conv2d(1, width, 3), nn.GroupNorm(8, width), nn.Conv2d(width, width // 16, 1))


def heads(**changes: object) -> Network:
    config = {"family": "heads", "name": "heads24", "about": {"match": {"width": "width"}}}
    config |= {"model": {"_target_": f"{__name__}.Heads", "width": 24} | changes}
    return Network(config | {"data": {"in_channels": 1, "image_size": [8, 8]}})


def test_widths_that_are_no_network_are_passed_over() -> None:
    costs = {width: 36 * width * (9 + width // 16) for width in range(16, 200, 8)}  # by hand, of 6x6 positions
    for width in (16, 40, 192):
        found = heads().solve("macs", costs[width])
        assert (found.arguments, found.macs) == ({"width": width}, costs[width])
    with pytest.raises(Unreachable, match=rf"{costs[40]:,} below \(width=40\), {costs[48]:,} above \(width=48\)$"):
        heads().solve("macs", (costs[40] + costs[48]) // 2)
    with pytest.raises(Unreachable, match=rf"the nearest in reach: {costs[16]:,} above \(width=16\)$"):
        heads().solve("macs", 1000)


class PowerOfTwo(nn.Conv2d):
    """A network whose legal widths lie ever further apart."""

    def __init__(self, width: int) -> None:
        assert width.bit_count() == 1, f"a width of {width}"
        super().__init__(1, width, 3)


def test_widths_between_legal_ones_that_are_unevenly_spaced_are_passed_over() -> None:
    net = heads(_target_=f"{__name__}.PowerOfTwo", width=8)
    for reached in (8, 16, 64, 1024):
        assert net.solve("macs", 36 * 9 * reached).arguments == {"width": reached}
    below, above = 36 * 9 * 256, 36 * 9 * 512
    with pytest.raises(Unreachable, match=rf"{below:,} below \(width=256\), {above:,} above \(width=512\)$"):
        net.solve("macs", 36 * 9 * 300)


class Normalised(nn.Sequential):
    """A network that is given a class of normalisation to build."""

    def __init__(self, width: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__(nn.Conv2d(1, width, 3), norm(width))


def test_a_network_is_built_as_a_run_builds_it() -> None:
    node = {"_target_": f"{__name__}.Normalised", "width": 4, "_convert_": "all"}
    node["norm"] = {"_target_": "torch.nn.BatchNorm2d", "_partial_": True}
    config = {"family": "mine", "name": "mine4", "about": {"match": {"width": "width"}}, "model": node}
    found = Network(config | {"data": {"in_channels": 1, "image_size": [8, 8]}}).solve("params", 9 * 30 + 30 + 2 * 30)
    assert (found.arguments, found.macs) == ({"width": 30}, 36 * 9 * 30)
    with pytest.raises(ValueError, match="too narrow"):  # of its own code, in one line
        heads(width=8)


def test_a_width_is_a_whole_number() -> None:
    with pytest.raises(ValueError, match=r"width=24.0 of model=heads: only whole numbers are tried as a width"):
        heads(width=24.0)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["model=resnt", "--macs", "1e6"], "no model named 'resnt' (did you mean 'resnet'?)"),
        (["model=unet", "data=digits", "--macs", "1e6"], "model=unet is not set up for data=digits"),
        (["model=resnet", "model.depth=21", "--macs", "1e6"], "a CIFAR basic ResNet has depth 6n+2"),
        (["model=resnext", "data=digits", "+data.image_size=[2,2]", "--macs", "1e6"], "too small"),
        (["experiment=iso_compute", "row=resnet_1e12", "--macs", "1e6"], "name one by model="),
    ],
)
def test_bad_input_is_one_line(argv: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert match(argv) == 2
    captured = capsys.readouterr()
    [line] = captured.err.splitlines()
    assert expected in line and captured.out == ""


@pytest.mark.parametrize("target", ["many", "-3", "0", "nan", "inf", "1e6,"])
def test_a_target_is_a_number(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        match(["model=resnet", f"--macs={target}"])
    assert ended.value.code == 2
    assert "is no number from 1 to" in capsys.readouterr().err


@pytest.mark.slow
def test_the_headline_experiment_is_of_matched_costs() -> None:
    """Each row costs what its name says, and as much more at the 28x28 of Fashion-MNIST as that has more pixels than 8x8."""
    rows = yaml.safe_load(HEADLINE.read_text(encoding="utf-8"))["rows"]
    steps = {
        family: {row.partition("_")[2] for row in rows if row.startswith(f"{family}_")} for family in choices("model")
    }
    assert steps["resnet"] == steps["resnext"] == steps["densenet"] != set()
    more = 28**2 / 8**2  # at every resolution: 8, 4, 2 become 28, 14, 7
    found = trials("experiment=compute_accuracy")
    assert [trial.config["row"] for trial in found] == list(rows)
    for trial in found:
        target = float(trial.config["row"].partition("_")[2])
        cost = measured(trial)
        assert abs(cost.macs - target) <= TOLERANCE * target, trial.label
        if trial.config["family"] != "unet":
            larger = sum(layer.macs * (1 if layer.kind == "linear" else more) for layer in cost.layers)
            assert abs(larger - more * target) <= TOLERANCE * more * target, trial.label


@pytest.mark.slow
def test_the_costs_of_the_headline_experiment_are_reached_from_the_defaults() -> None:
    for trial in trials("experiment=compute_accuracy"):
        target = float(trial.config["row"].partition("_")[2])
        net = network(f"model={trial.config['family']}", f"data={trial.config['data']['name']}")
        assert net.solve("macs", round(target)).macs == pytest.approx(target, rel=TOLERANCE), trial.label


def test_the_networks_of_the_connectivity_experiment_cost_the_same() -> None:
    costs: dict[str, dict[str, int]] = {}
    for trial in expand_all(["experiment=connectivity", "data.root=elsewhere"]):
        name, _, cost = trial.config["row"].partition("_")
        with torch.device("meta"):
            macs = count(instantiate(trial.config["model"]), (3, 32, 32))["macs"]
        costs.setdefault(name, {})[cost] = macs
    four = {"2.6e6", "10.2e6", "40.6e6", "493e6"}
    expected = {"plain": four | {"5.8e6"}, "resnet": four | {"5.8e6"}, "resnext": four, "densenet": four}
    assert {name: set(by_cost) for name, by_cost in costs.items() if name != "cardinality"} == expected
    for family, by_cost in expected.items():
        for cost in by_cost:
            assert costs[family][cost] == pytest.approx(costs["resnet"][cost], rel=0.01)
            assert costs[family][cost] == pytest.approx(float(cost), rel=0.01)
    assert costs["plain"] == costs["resnet"]
    for groups, macs in costs[
        "cardinality"
    ].items():  # of 16 groups a channel each: the next cheaper ends cost too little
        assert macs == pytest.approx(costs["resnet"]["10.2e6"], rel=0.036 if groups == "16" else 0.011)
