"""What a network costs, layer by layer: ``python -m benchmarks complexity model=resnext data=cifar10``."""

import argparse
from collections.abc import Mapping
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from benchmarks import terminal
from benchmarks.complexity.cost import Complexity, LayerCost
from benchmarks.config.compose import expand_all
from benchmarks.config.trial import Trial
from benchmarks.records.lazy import torch
from benchmarks.units import csv_text, grouped, one_line, si


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``complexity``."""
    parser.description = "What a network costs, layer by layer: MACs, parameters, activations, training FLOPs."
    terminal.add_overrides(parser, "; several values make several tables")
    parser.add_argument("--csv", action="store_true", help="exact numbers, comma-separated, a row per layer")


def run(arguments: argparse.Namespace) -> None:
    """Print a table for each network; raise ValueError for one that cannot be built, or does not take the images."""
    for trial in expand_all(arguments.overrides):
        _, cost = network_and_cost(trial.config)
        if arguments.csv:
            _print_csv(trial.network, cost)
        else:
            _print_table(f"{trial.network} on {trial.config['data']['name']}", cost)


def network_and_cost(config: Mapping[str, Any]) -> tuple[Any, Complexity]:
    """Return the network of a configuration and its cost for one of its images; raise ValueError as ``build`` does, and where
    the network asserts that it does not take such images."""
    from benchmarks.complexity.counting import build

    image = config["data"]["in_channels"], *config["data"]["image_size"]
    try:
        return build(config["model"], image)
    except AssertionError as error:  # how timm's networks refuse an image
        if not str(error):
            raise
        size = "×".join(map(str, image))
        raise ValueError(f"{config['name']} does not take an image of {size}: {one_line(str(error))}") from error


def _print_csv(name: str, cost: Complexity) -> None:
    header = ["network", "layer", "kind", "params", "macs", "activations", "train_macs"]
    rows = ([name, row.name, row.kind, row.params, row.macs, row.activations, row.training_macs] for row in cost.layers)
    print(csv_text([header, *rows]), end="")


def _print_table(title: str, cost: Complexity) -> None:
    size = "×".join(str(n) for n in cost.input_size)
    table = Table(title=f"{title}, one image of {size}", box=box.SIMPLE_HEAD, show_footer=True)
    table.add_column("layer", "all", overflow="fold")
    table.add_column("kind", "")
    table.add_column("parameters", f"{cost.params:,}", justify="right", no_wrap=True)
    table.add_column("MACs", f"{cost.macs:,}", justify="right", no_wrap=True)
    table.add_column("share", "100 %", justify="right", no_wrap=True)
    table.add_column("activations", f"{cost.activations:,}", justify="right", no_wrap=True)
    table.add_column("training MACs", f"{cost.train_macs_per_sample:,}", justify="right", no_wrap=True)
    for layer in cost.layers:
        table.add_row(
            layer.name,
            layer.kind,
            f"{layer.params:,}",
            f"{layer.macs:,}",
            f"{100 * layer.macs / cost.macs:.1f} %",
            f"{layer.activations:,}",
            f"{layer.training_macs:,}",
        )
    others = cost.params - sum(layer.params for layer in cost.layers)
    console = terminal.console()
    terminal.print_whole(table, console)
    console.print(
        f"{si(cost.params)} parameters ({others:,} of them in none of these layers), {si(cost.macs)} MACs, "
        f"{si(cost.flops)} FLOPs forward, {si(cost.train_flops_per_sample)} FLOPs of training per image.\n"
        "MACs: multiply-adds of convolutions, linear layers and other products of tensors. Training: forward, gradient to "
        "inputs (not of the first layer), gradient to weights.",
        highlight=False,
    )
    if cost.warning:
        console.print(cost.warning, style="yellow", highlight=False)


class PlacedLayer(NamedTuple):
    """A layer's kind, as ``grouped 3×3``; what a paper calls the part of the network that it is in; its cost."""

    kind: str
    part: str
    cost: LayerCost


def layers_in_order(trial: Trial) -> tuple[Complexity, list[PlacedLayer]]:
    """The cost, and the layers in the order in which an image meets them."""
    net, cost = network_and_cost(trial.config)
    names = {module: name for name, module in net.named_modules()}
    costs = grouped(cost.layers, lambda layer: layer.name)
    met: dict[str, list[PlacedLayer]] = {}

    def meet(module: Any, _: Any) -> None:
        name = names[module]
        part = _part(net, name)
        met[name] = [PlacedLayer(_kind(module, layer.kind), part, layer) for layer in costs[name]]

    for module, name in names.items():
        if name in costs:
            module.register_forward_pre_hook(meet)
    with torch.no_grad():
        net.eval()(torch.zeros(1, *cost.input_size))
    return cost, [layer for layers in met.values() for layer in layers]


def _part(net: Any, layer: str) -> str:
    """What a paper calls the part of the network that a layer is in.

    That is a child of the network, or one of the numbered parts of that child. The network's class may name them in
    ``part_names``, several names in turn.
    """
    child, _, rest = layer.partition(".")
    place, _, within = rest.partition(".")
    names = getattr(net, "part_names", {})
    if not place.isdigit() or not (within or child in names):
        return child
    words = names.get(child, (child,))
    return f"{words[int(place) % len(words)]} {int(place) // len(words) + 1}"


def _kind(layer: Any, kind: str) -> str:
    """`3×3`, `1×1`, `grouped 3×3`, `transposed 2×2`, `linear`, or what a module computes that is no layer: `matmul`, `conv`."""
    from benchmarks.complexity.operator_cost import LAYERS

    if kind == "linear" or not issubclass(type(layer), tuple(LAYERS)):
        return kind
    kernel = "×".join(map(str, layer.kernel_size))
    if kind == "conv_transpose":
        return f"transposed {kernel}"
    return f"grouped {kernel}" if layer.groups > 1 else kernel
