"""What is held fixed and what varies: ``python -m benchmarks view layers model=resnet,resnext data=cifar10``.

Each view is one HTML file that opens from disk with no network, styled as the page.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import terminal
from benchmarks.config.compose import expand_all
from benchmarks.config.trial import Trial
from benchmarks.records.files import write_atomic
from benchmarks.report.accuracy_view import EXPERIMENT as MATCHED
from benchmarks.report.accuracy_view import accuracy_view
from benchmarks.report.cardinality_view import EXPERIMENT, cardinality_view
from benchmarks.report.deconvolution_view import DEFAULT, deconvolution_view
from benchmarks.report.feature_reuse import REUSE, reuse_view
from benchmarks.report.layers_view import layers_view
from benchmarks.report.learning_rate_view import learning_rate_view, networks_tried, rate_lines
from benchmarks.report.scaling_view import scaling_view
from benchmarks.report.view import View, render


def add_layers_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``view layers``."""
    parser.description = (
        "MACs, parameters and activations of every convolution and linear layer, in the order in which an image meets them: a "
        "bar chart per network."
    )
    _add_overrides(parser, "layers", "; several values make several charts")


def run_layers(arguments: argparse.Namespace) -> None:
    """Write the view of layers."""
    _write(arguments, *_of_trials(layers_view, arguments.overrides))


def add_cardinality_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``view cardinality``."""
    parser.description = (
        f"Test error over cardinality from the finished runs of experiment={EXPERIMENT}, or of another that is named, "
        "in a band from the lowest to the highest seed, and below it what the networks cost. Without runs the cost alone."
    )
    _add_overrides(parser, "cardinality", ": data=digits …")


def run_cardinality(arguments: argparse.Namespace) -> None:
    """Write the view of cardinality."""
    named = any(override.startswith("experiment=") for override in arguments.overrides)
    experiment = [] if named else [f"experiment={EXPERIMENT}"]
    _write(arguments, *_of_trials(cardinality_view, [*experiment, *arguments.overrides]))


def add_deconvolution_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``view deconvolution``."""
    parser.description = (
        "What an up-convolution computes and costs: checkerboards of kernel against stride, and the multiply-adds of each "
        "up-convolution of a network beside what could stand in its place."
    )
    _add_overrides(parser, "deconvolution", f" (default: {' '.join(DEFAULT)})")


def run_deconvolution(arguments: argparse.Namespace) -> None:
    """Write the view of deconvolution."""
    _write(arguments, *_of_trials(deconvolution_view, arguments.overrides or DEFAULT))


def add_accuracy_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``view accuracy``."""
    parser.description = (
        "Test error, or score, over multiply-adds of one image from finished runs: a curve for each family, in a band from the "
        "lowest to the highest seed."
    )
    _add_root(parser, "accuracy")
    parser.add_argument("--experiment", help=f"default: {MATCHED}, or all runs where none is of it")


def run_accuracy(arguments: argparse.Namespace) -> None:
    """Write the view of accuracy."""
    _write_at_root(arguments, accuracy_view(arguments.output_root, arguments.experiment), "accuracy")


def add_scaling_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``view scaling``."""
    parser.description = (
        "Test error, or score, over training FLOPs from finished runs: a fitted curve in its 95 % band for each family that "
        "has runs of several seeds at four different costs, and which family needs how much of another's compute."
    )
    _add_root(parser, "scaling")


def run_scaling(arguments: argparse.Namespace) -> None:
    """Write the view of scaling."""
    _write_at_root(arguments, scaling_view(arguments.output_root), "scaling")


def add_learning_rates_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``view learning_rates``."""
    parser.description = (
        "Validation loss over learning rate, and each network's rate: of the networks that have finished at two rates or "
        "more, as with experiment=learning_rates."
    )
    _add_root(parser, "learning_rates")


def run_learning_rates(arguments: argparse.Namespace) -> None:
    """Write the view of learning rates, and print the rates."""
    networks = networks_tried(arguments.output_root)
    print(*rate_lines(networks), sep="\n")
    _write_at_root(arguments, learning_rate_view(networks), "learning_rates")


def add_reuse_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``view reuse``."""
    parser.description = (
        "How much weight each layer of a trained DenseNet puts on the feature maps of each layer before it: a heat map per "
        "dense block, as in Figure 5 of Huang et al. 2017."
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of the run, as in outputs/digits/densenet…/seed0")
    parser.add_argument("--checkpoint", choices=("last", "best"), default="last", help="which weights (default: last)")
    _add_out(parser, f"RUN/{REUSE}")


def run_reuse(arguments: argparse.Namespace) -> None:
    """Write the view of feature reuse."""
    _write(arguments, reuse_view(arguments.run, arguments.checkpoint), arguments.run / REUSE)


def _add_overrides(parser: argparse.ArgumentParser, name: str, more: str) -> None:
    """Describe the arguments of a view of configurations."""
    terminal.add_overrides(parser, more)
    _add_out(parser, f"OUTPUT_ROOT/views/{name}.html")


def _add_root(parser: argparse.ArgumentParser, name: str) -> None:
    """Describe the arguments of a view of finished runs."""
    parser.add_argument("output_root", metavar="OUTPUT_ROOT", type=Path, nargs="?", default=Path("outputs"))
    _add_out(parser, f"OUTPUT_ROOT/views/{name}.html")


def _write_at_root(arguments: argparse.Namespace, view: View, name: str) -> None:
    """Write a view of finished runs beside them."""
    _write(arguments, view, arguments.output_root / "views" / f"{name}.html")


def _add_out(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--out", metavar="FILE", type=Path, help=f"default: {default}")


def _write(arguments: argparse.Namespace, view: View, default: Path) -> None:
    """Write a view to ``--out`` or its default path, and print where it is."""
    path = arguments.out or default
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, render(view))
    print(path)


def _of_trials(view: Callable[[Sequence[Trial]], View], overrides: Sequence[str]) -> tuple[View, Path]:
    """Return the view of these configurations and its default path."""
    trials = expand_all(overrides)
    name = view.__name__.removesuffix("_view")
    return view(trials), Path(trials[0].config["output_root"], "views", f"{name}.html")
