"""Which runs a chart may hold against each other: of one data set and protocol, one recipe and budget, one machine."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from benchmarks.analysis.learning_rates import RATE
from benchmarks.analysis.seeds import short_condition
from benchmarks.records.runs import Run, overrides_text
from benchmarks.units import as_key, grouped, number, quantity, short_value

OWN = "each family’s own recipe"
EVERYTHING = "all recipes and budgets"
_BY_COST = re.compile(r"(.+)_[\d.]+e\d+")  # an experiment's row that is a point of a curve: plain_2.6e6
DEFAULT_RECIPES = ("classification", "segmentation")  # of families that have none of their own on a data set


@dataclass(frozen=True, eq=False)
class ComparableRuns:
    """Runs on the same test images by the same protocol.

    Attributes:
        title: their recipe and budget, or `EVERYTHING`.
        networks: the number of networks that have finished.
    """

    title: str
    runs: tuple[Run, ...]
    networks: int

    @property
    def mixed(self) -> bool:
        """Whether recipes and budgets differ."""
        return self.title == EVERYTHING


def protocols(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Return the runs by data set and protocol, which the title tells apart where a data set has several.

    A run that has not got as far as its test goes with the first that agrees in what it has.
    """
    titled = {}
    for data, of_data in sorted(grouped(runs, lambda run: run.data).items()):
        facts: dict[tuple[str, str], dict[str, Any]] = {}
        members: dict[tuple[str, str], list[Run]] = {}
        for run in sorted(of_data, key=lambda run: run.value is None):
            agreeing = (key for key, other in facts.items() if run.value is None and _agree(run.test, other))
            key = next(agreeing, run.test_key)
            facts.setdefault(key, run.test)
            members.setdefault(key, []).append(run)
        first, *others = facts.values()
        differing = [name for name in first if any(own.get(name) != first[name] for own in others)]
        for key, group in members.items():
            notes = [f"{name} {short_condition(facts[key].get(name))}" for name in differing]
            titled[f"{data} ({', '.join(notes)})" if others else data] = group
    return titled


def comparisons(runs: Sequence[Run]) -> list[ComparableRuns]:
    """Return the runs of one protocol by recipe and budget, most networks first, then, of several recipes, all together.

    Where no recipe has two networks, all together come first.
    """
    groups: list[list[Run]] = []
    for members in _by_recipe(runs, but=RATE):
        # A rate that is fitted for each network is the network's; several rates of one network are a comparison of rates.
        fitted = len({run.network for run in members}) == len({(run.network, _rate(run)) for run in members})
        groups += [members] if fitted else _by_recipe(members)
    made = [ComparableRuns(_title(members), tuple(members), _networks(members)) for members in groups]
    made.sort(key=lambda one: (-one.networks, -len(one.runs), _budget(one.runs[0])))
    if len(made) < 2:
        return made
    together = ComparableRuns(EVERYTHING, tuple(runs), _networks(runs))
    return [together, *made] if made[0].networks < 2 <= together.networks else [*made, together]


def _by_recipe(runs: Sequence[Run], but: str = "") -> list[list[Run]]:
    return list(grouped(runs, lambda run: as_key(_recipe(run, but))).values())


def recipe_title(run: Run, but: str = "") -> str:
    """Return recipe, budget and what else departs from the recipe but the network itself and the override `but`."""
    return ", ".join(filter(None, (run.record["recipe"], _changes(run, but))))


def machine(run: Run) -> str:
    """Return what a run's time, speed, memory and energy hold for: device and number, precision, threads of a CPU."""
    environment, parallel = run.part("environment"), run.part("parallel")
    name = str(environment.get("device_name") or environment.get("device") or "unknown machine")
    processes, nodes = parallel.get("world_size") or 1, parallel.get("num_nodes") or 1
    threads = "" if environment.get("device") == "cuda" else environment.get("threads")
    parts = [
        f"{processes} × {name}" if processes != 1 else name,
        f"{nodes} nodes" if nodes != 1 else "",
        f"{threads} thread{'s' * (threads != 1)}" if threads else "",
        str(parallel.get("precision") or ""),
    ]
    return ", ".join(filter(None, parts))


def network_labels(runs: Sequence[Run]) -> list[str]:
    """Return the name of each run's network, with those of its arguments that tell networks of that name apart."""
    variants = {
        name: {run.network: run.arguments for run in same} for name, same in grouped(runs, lambda run: run.name).items()
    }
    names = {}
    for name, networks in variants.items():
        for network, arguments in networks.items():
            telling = [
                f"{key}={short_value(value)}"
                for key, value in arguments.items()
                if any(other.get(key) != value for other in networks.values())
            ]
            names[network] = ", ".join([name, *telling])
    return [names[run.network] for run in runs]


def row_kind(run: Run) -> str:
    """Return what is before the cost in the name of an experiment's row, `plain` of `plain_2.6e6`; empty of other rows."""
    row = _BY_COST.fullmatch(str(run.record.get("row")))
    return row[1] if row else ""


def kind(run: Run) -> str:
    """Return what the networks of a curve over costs are called.

    That is what their row says, where it is named by its cost; else the family, of a detector with its backbone's, and the
    arguments of the network that are text or true or false, so no sizes: `resnet shortcut=none`.
    """
    if said := row_kind(run):
        return said
    family = run.family
    if run.record.get("task") == "detection":  # mask_rcnn_resnext50_8x2d_fpn64
        family = re.split(r"\d", run.name)[0] or family
    texts = {key: value for key, value in run.arguments.items() if isinstance(value, str | bool)}
    return " ".join(filter(None, (family, overrides_text(texts))))


def _agree(own: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(value is None or other.get(key) in (None, value) for key, value in own.items())


def _recipe(run: Run, but: str) -> list[Any]:
    own = "" if _is_own(run.family, run.data, run.record["recipe"]) else run.record["recipe"]
    overrides = run.part("overrides").items()
    return [own, {key: value for key, value in overrides if not key.startswith(("model.", "data.")) and key != but}]


def _rate(run: Run) -> str:
    return str(run.part("overrides").get(RATE))


@cache
def _is_own(family: str, data: str, recipe: str) -> bool:
    """Tell whether the recipe is the one that a network gets by itself on its data set."""
    return recipe in DEFAULT_RECIPES or bool(re.fullmatch(rf"{re.escape(family)}\w*_{re.escape(data)}", recipe))


def _title(runs: Sequence[Run]) -> str:
    recipes = {run.record["recipe"] for run in runs}
    fitted = len({_rate(run) for run in runs}) > 1
    parts = (
        recipes.pop() if len(recipes) == 1 else OWN,
        _changes(runs[0], RATE if fitted else ""),
        "each network’s learning rate" if fitted else "",
    )
    return ", ".join(filter(None, parts))


def _changes(run: Run, but: str = "") -> str:
    """Return budget and overrides but those of the network and the data set: `80.0 GFLOPs, epochs=5`."""
    texts = []
    for key, value in sorted(run.part("overrides").items()):
        if key == "trainer.max_train_flops" and (budget := number(value)) is not None:
            texts.append(f"budget {quantity(budget, 'FLOPs')}")
        elif not key.startswith(("model.", "data.")) and key != but:
            texts.append(f"{key.removeprefix('recipe.').removeprefix('trainer.')}={short_value(value)}")
    return ", ".join(texts)


def _budget(run: Run) -> tuple[str, list[tuple[str, float, str]]]:
    """Return what orders budgets and values of an override by size."""
    changes = [(key, value) for key, value in sorted(run.part("overrides").items()) if not key.startswith("model.")]
    sized = [(key, number(value) or 0.0, str(value)) for key, value in changes]
    return run.record["recipe"], sized


def _networks(runs: Iterable[Run]) -> int:
    return len({run.all_but_seed for run in runs if run.value is not None})
