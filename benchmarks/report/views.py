"""What is held fixed and what varies: ``python -m benchmarks views layers model=resnet,resnext data=cifar10``.

Layer by layer where a network's compute goes, error over cardinality at constant cost, families at matched cost, and which
layers of a DenseNet use which features. Each view is one HTML file that opens from disk with no network, styled as the page.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.config.compose import expand
from benchmarks.config.trial import ConfigurationError, Trial
from benchmarks.records.files import write_atomic
from benchmarks.report.accuracy_view import EXPERIMENT as MATCHED
from benchmarks.report.accuracy_view import accuracy_view
from benchmarks.report.cardinality_view import EXPERIMENT, cardinality_view, with_experiment
from benchmarks.report.feature_reuse import REUSE, reuse_view
from benchmarks.report.layers_view import layers_view
from benchmarks.report.view import View, render


def main(argv: Sequence[str]) -> int:
    """Writes a view and prints where it is. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks views",
        description="Views of what is held fixed and what varies. Each is one HTML file, which needs no network.",
    )
    commands = parser.add_subparsers(metavar="VIEW", dest="view", required=True)
    command = commands.add_parser(
        "layers",
        help="MACs, parameters and activations of every layer: a bar chart per network",
        description="MACs, parameters and activations of every convolution and linear layer, in the order in which an image "
        "meets them: a bar chart per network.",
    )
    command.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="as for run.py; several values make several charts"
    )
    command.add_argument("--out", metavar="FILE", type=Path, help="default: OUTPUT_ROOT/views/layers.html")
    command.set_defaults(make=lambda given: _of_trials(layers_view, given.overrides))
    command = commands.add_parser(
        "cardinality",
        help=f"error over cardinality at constant cost, from the runs of experiment={EXPERIMENT}",
        description=f"Test error over cardinality from the finished runs of experiment={EXPERIMENT}, in a band from the lowest "
        "to the highest seed, and below it what the networks cost. Without runs the cost alone.",
    )
    command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for run.py: data=digits …")
    command.add_argument("--out", metavar="FILE", type=Path, help="default: OUTPUT_ROOT/views/cardinality.html")
    command.set_defaults(make=lambda given: _of_trials(cardinality_view, with_experiment(given.overrides)))
    command = commands.add_parser(
        "accuracy",
        help=f"error over the cost of an image, a curve for each family, from the runs of experiment={MATCHED}",
        description=f"Test error over multiply-adds of one image from the finished runs of experiment={MATCHED}: a curve "
        "for each family, in a band from the lowest to the highest seed.",
    )
    command.add_argument("output_root", metavar="OUTPUT_ROOT", type=Path, nargs="?", default=Path("outputs"))
    command.add_argument("--experiment", default=MATCHED, help=f"default: {MATCHED}")
    command.add_argument("--out", metavar="FILE", type=Path, help="default: OUTPUT_ROOT/views/accuracy.html")
    command.set_defaults(
        make=lambda given: (
            accuracy_view(given.output_root, given.experiment),
            given.output_root / "views" / "accuracy.html",
        )
    )
    command = commands.add_parser(
        "reuse",
        help="how much each layer of a trained DenseNet uses of each layer before it: a heat map per dense block",
        description="How much weight each layer of a trained DenseNet puts on the feature maps of each layer before it: a heat "
        "map per dense block, as in Figure 5 of Huang et al. 2017.",
    )
    command.add_argument(
        "run", metavar="RUN", type=Path, help="folder of the run, as in outputs/digits/densenet…/seed0"
    )
    command.add_argument("--checkpoint", choices=("last", "best"), default="last", help="which weights (default: last)")
    command.add_argument("--out", metavar="FILE", type=Path, help=f"default: RUN/{REUSE}")
    command.set_defaults(make=lambda given: (reuse_view(given.run, given.checkpoint), given.run / REUSE))
    arguments = parser.parse_args(argv)
    try:
        view, path = arguments.make(arguments)
        path = arguments.out or path
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, render(view))
    except (ValueError, OSError) as error:
        print(f"python -m benchmarks views {arguments.view}: {error}", file=sys.stderr)
        return 2
    print(path)
    return 0


def _of_trials(view: Callable[[Sequence[Trial]], View], overrides: Sequence[str]) -> tuple[View, Path]:
    """The view of these configurations, and where it goes."""
    trials = []
    for trial in expand(overrides, multirun=True):
        if not isinstance(trial, Trial):
            raise ConfigurationError(f"{trial.label}: {trial.error}")
        trials.append(trial)
    name = view.__name__.removesuffix("_view")
    return view(trials), Path(trials[0].config["output_root"], "views", f"{name}.html")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
