"""The commands around runs: ``python -m benchmarks COMMAND``."""

import importlib
import sys

COMMANDS = {
    "certify": "whether every network of the papers' tables is the papers' network, to the digit",
    "crossover": "where one network overtakes another as the training budget grows, with intervals",
    "decoding": "photographs from JPEG files: decoding, training batches, workers, and whether training waits",
    "export": "all runs and their histories as tables, Parquet or CSV",
    "logging_cost": "what tracking costs a training step",
    "match": "the width with which a network meets a number of MACs or parameters",
    "memory": "what DenseNets keep in memory over depth, plainly and memory-efficient",
    "overhead": "what launching costs, measured against importing torch and Lightning",
    "peers": "our training step and input path beside those of torchvision, timm, Lightning and ignite",
    "performance": "docs/performance.md from the committed measurements",
    "plan": "what a sweep will cost: training FLOPs, device-hours, memory, money",
    "predict": "masks for images of any size, from a finished segmentation run",
    "profile": "cost of a network, layer by layer: MACs, parameters, activations, training FLOPs",
    "report": "the table of all runs, and the page; a table of the papers beside our runs",
    "show": "the runs in the terminal: wandb leet",
    "status": "the grid of a sweep: done, running, failed, missing, stale",
    "step_cost": "a training step beside a hand-written loop, and the making of batches",
    "switch_cost": "what each switch of training costs or saves: layout, compile, recomputation, averaging",
    "sync": "sends runs to the W&B server that it lacks, and reads them back",
    "throughput": "latency, images per second and peak memory of a network",
    "tune": "the fastest settings on this machine: layout, compile, precision, workers",
    "views": "per-layer costs, the cardinality sweep, DenseNet's feature reuse, as pages",
    "weights": "published weights into our networks and back: import, export",
    "workspace": "creates or updates the workspace and the report of a W&B project",
}

MODULES = {
    "certify": "report.certify",
    "crossover": "analysis.crossover",
    "decoding": "performance.decoding",
    "export": "report.export",
    "logging_cost": "performance.logging_cost",
    "match": "complexity.match",
    "memory": "performance.memory",
    "overhead": "performance.overhead",
    "peers": "performance.peers",
    "performance": "performance.document",
    "plan": "performance.plan",
    "predict": "training.predict",
    "profile": "complexity.profile",
    "report": "report.runs_table",
    "show": "tracking.show",
    "status": "report.status",
    "step_cost": "performance.step_cost",
    "switch_cost": "performance.option_cost",
    "sync": "tracking.sync",
    "throughput": "performance.throughput",
    "tune": "performance.tune",
    "views": "report.views",
    "workspace": "tracking.workspace",
    "weights": "training.torchvision_weights",
}


def main(argv: list[str]) -> int:
    """Hands over to the module of that name, which parses the rest."""
    if not argv or argv[0] in {"-h", "--help"}:
        print(
            "usage: python -m benchmarks COMMAND …\n\n"
            + "\n".join(f"  {name:<12} {text}" for name, text in COMMANDS.items())
        )
        print("\npython -m benchmarks COMMAND --help says more.")
        return 0 if argv else 2
    if argv[0] not in COMMANDS:
        print(f"python -m benchmarks: no command {argv[0]!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return importlib.import_module(f"benchmarks.{MODULES[argv[0]]}").main(argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
