"""What each key of a configuration may hold: one table, checked of every trial when it is composed."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.config.trial import ConfigurationError
from benchmarks.units import number

INT64 = 2**63 - 1  # the largest integer of tensors
LONGEST_SHOWN = 200  # characters


@dataclass(frozen=True)
class Kind:
    """Values of one kind.

    Attributes:
        alternatives: the kind in words, as the user reads them after "is".
        holds: whether a value is of the kind.
        required: whether the key must be there.
        hint: what follows the refusal of a value.
    """

    alternatives: tuple[str, ...]
    holds: Callable[[Any], bool]
    required: bool = True
    hint: str = ""

    @property
    def words(self) -> str:
        """The alternatives in one phrase: ``null, true or false``."""
        *first, last = self.alternatives
        return f"{', '.join(first)} or {last}" if first else last


def or_null(kind: Kind) -> Kind:
    """Return the kind that takes null too."""
    return replace(kind, alternatives=("null", *kind.alternatives), holds=lambda v: v is None or kind.holds(v))


def optional(kind: Kind) -> Kind:
    """Return the kind for a key that may be left out."""
    return replace(kind, required=False)


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number; true and false are none."""
    return number(value) is not None


def whole(least: int, most: float = math.inf) -> Kind:
    """Return whole numbers from ``least`` to ``most``."""
    words = f"a whole number from {least}" + (f" to {most}" if most < math.inf else "")
    return Kind((words,), lambda v: type(v) is int and least <= v <= min(most, INT64))


def word(*words: str) -> Kind:
    """Return a choice of words."""
    return Kind(words, lambda v: isinstance(v, str) and v in words)


COUNT = whole(1)
POSITIVE = Kind(("a positive number",), lambda v: is_number(v) and v > 0)
NOT_NEGATIVE = Kind(("a number from 0",), lambda v: is_number(v) and v >= 0)
BELOW_ONE = Kind(("a number between 0 and 1, as 0.999",), lambda v: isinstance(v, float) and 0 < v < 1)
SHARE = Kind(("a number between 0 and 1, as 0.15",), lambda v: is_number(v) and 0 < v < 1)
FROM_ZERO_BELOW_ONE = Kind(("a number from 0, below 1",), lambda v: is_number(v) and 0 <= v < 1)
SWITCH = Kind(("true", "false"), lambda v: isinstance(v, bool))
TEXT = Kind(("a text",), lambda v: isinstance(v, str) and bool(v.strip()))
BLOCK = Kind(("a block of keys",), lambda v: isinstance(v, Mapping))
SIZE = Kind(
    ("two whole numbers from 1, as [32, 32]",),
    lambda v: isinstance(v, list) and len(v) == 2 and all(map(COUNT.holds, v)),
)
NUMBERS = Kind(("a list of numbers",), lambda v: isinstance(v, list) and bool(v) and all(map(is_number, v)))
LINES = Kind(("a list of texts",), lambda v: isinstance(v, list) and all(isinstance(line, str) for line in v))
TAGS = Kind(LINES.alternatives, lambda v: isinstance(v, str) or LINES.holds(v))  # WANDB_TAGS is text with commas

# Of their targets only what stands here: a run keeps to its protocol, and a key of the trainer could change it.
CLOSED = ("trainer.", "logger.")

MIRRORS = ("csv", "mlflow", "tensorboard", "trackio")  # beside W&B's, whose keys are the group's own

KEYS: Mapping[str, Kind] = {
    "mode": replace(word("train", "test"), hint="; `python -m benchmarks plan` forecasts"),
    "weights": or_null(TEXT),
    "seed": whole(0, 2**32 - 1),  # what torch and NumPy take
    "output_root": TEXT,
    "name": TEXT,
    "row": or_null(TEXT),
    "launch.workers": COUNT,
    "launch.fail_fast": SWITCH,
    "launch.rerun": or_null(word("stale")),
    "launch.retries": whole(0),
    "launch.time_limit_s": or_null(POSITIVE),
    "launch.stall_s": or_null(POSITIVE),
    "launch.collective_timeout_s": POSITIVE,
    "launch.checkpoint_every_steps": or_null(COUNT),
    "launch.price_per_device_hour": or_null(NOT_NEGATIVE),
    "launch.budget.train_flops": or_null(POSITIVE),
    "launch.budget.device_hours": or_null(POSITIVE),
    "launch.budget.money": or_null(POSITIVE),
    "model._target_": TEXT,
    "data.name": TEXT,
    "data.task": word("classification", "segmentation", "detection"),
    "data.loading": optional(word("memory", "files", "objects")),
    "data.num_classes": COUNT,
    "data.in_channels": COUNT,
    "data.image_size": SIZE,
    "data.stem": optional(TEXT),
    "data.root": optional(TEXT),
    "data.folder": optional(TEXT),
    "data.mask_suffix": optional(or_null(TEXT)),
    "data.annotations": optional(TEXT),
    "data.images": optional(TEXT),
    "data.mean": or_null(NUMBERS),
    "data.std": or_null(NUMBERS),
    "data.eval_batch_size": COUNT,
    "data.augment": optional(replace(BLOCK, hint="; recipe.augment={} is none")),
    "data.sha256": optional(or_null(TEXT)),
    "data.hub": optional(SWITCH),
    "data.test_views": optional(Kind(("a list of views",), lambda v: isinstance(v, list))),
    "data.pad_multiple": optional(COUNT),
    "data.shorter_side": optional(or_null(COUNT)),
    "data.longest_side": optional(or_null(COUNT)),
    "data.val_count": optional(COUNT),
    "data.test_count": optional(or_null(COUNT)),
    "data.train_count": optional(or_null(COUNT)),
    "data.val_per_class": optional(COUNT),
    "data.val_fraction": optional(SHARE),
    "data.test_fraction": optional(SHARE),
    "data.instance_masks": optional(SWITCH),
    "data.keep_empty": optional(SWITCH),
    "data.extra": optional(SWITCH),
    "data.fold": optional(whole(0)),
    "data.folds": optional(COUNT),
    "data.source": BLOCK,
    "recipe.name": TEXT,
    "recipe.batch_size": COUNT,
    "recipe.epochs": COUNT,
    "recipe.validate_every": optional(COUNT),
    "recipe.optimizer._target_": TEXT,
    "recipe.optimizer.lr": optional(NOT_NEGATIVE),
    "recipe.optimizer.momentum": optional(NOT_NEGATIVE),
    "recipe.optimizer.weight_decay": optional(NOT_NEGATIVE),
    "recipe.optimizer.nesterov": optional(SWITCH),
    "recipe.scheduler._target_": TEXT,
    "recipe.augment": BLOCK,
    "recipe.tiles": optional(or_null(BLOCK)),
    "recipe.test_time_dihedral": optional(or_null(SWITCH)),
    "recipe.batch_norm_images": optional(or_null(COUNT)),
    "recipe.backbone_weights": optional(or_null(TEXT)),
    "recipe.label_smoothing": optional(FROM_ZERO_BELOW_ONE),
    "recipe.mixup": optional(or_null(POSITIVE)),
    "recipe.cutmix": optional(or_null(POSITIVE)),
    "recipe.binary_cross_entropy": optional(SWITCH),
    "recipe.decay_norms_and_biases": optional(SWITCH),
    "recipe.clip_gradient_norm": optional(or_null(POSITIVE)),
    "cluster.executor._target_": TEXT,
    "cluster.threads_per_process": or_null(COUNT),
    "cluster.oversubscribe": SWITCH,
    "cluster.loader_workers": or_null(whole(0)),
    # hosts
    "cluster.rendezvous": optional(or_null(TEXT)),
    "cluster.node": optional(or_null(whole(0))),
    "cluster.address": optional(or_null(TEXT)),
    # ray
    "cluster.cpus_per_rank": optional(COUNT),
    "cluster.num_cpus": optional(or_null(COUNT)),
    "cluster.object_store_memory": optional(or_null(COUNT)),
    # slurm
    "cluster.partition": optional(or_null(TEXT)),
    "cluster.account": optional(or_null(TEXT)),
    "cluster.qos": optional(or_null(TEXT)),
    "cluster.time_min": optional(COUNT),
    "cluster.max_requeues": optional(whole(0)),
    "cluster.mem_gb": optional(or_null(POSITIVE)),
    "cluster.mem_per_cpu": optional(or_null(TEXT)),
    "cluster.setup": optional(LINES),
    "cluster.additional_parameters": optional(or_null(BLOCK)),
    "logger._target_": optional(TEXT),
    "logger.mode": word("none", "auto", "online", "offline"),
    "logger.project": optional(TEXT),
    "logger.entity": optional(or_null(TEXT)),
    "logger.group": optional(or_null(TEXT)),
    "logger.name": optional(or_null(TEXT)),
    "logger.tags": optional(or_null(TAGS)),
    "logger.notes": optional(or_null(TEXT)),
    "logger.checkpoints": optional(SWITCH),
    "logger.init_timeout": optional(POSITIVE),
    "logger.finish_timeout": optional(POSITIVE),
    **{f"logger.{name}._target_": optional(TEXT) for name in MIRRORS},
    **{f"logger.{name}.finish_timeout": optional(POSITIVE) for name in MIRRORS},
    "logger.mlflow.tracking_uri": optional(or_null(TEXT)),
    "logger.mlflow.experiment": optional(TEXT),
    "logger.trackio.project": optional(TEXT),
    "trainer._target_": TEXT,
    "trainer.accelerator": word("auto", "cpu", "gpu", "cuda"),
    "trainer.devices": COUNT,
    "trainer.num_nodes": COUNT,
    "trainer.precision": word("auto", "64-true", "32-true", "16-true", "bf16-true", "16-mixed", "bf16-mixed"),
    "trainer.sync_batchnorm": SWITCH,
    "trainer.max_epochs": COUNT,
    "trainer.limit_train_batches": or_null(COUNT),
    "trainer.max_train_flops": or_null(POSITIVE),
    "trainer.max_train_seconds": or_null(POSITIVE),
    "trainer.max_train_joules": or_null(POSITIVE),
    "trainer.compile": or_null(SWITCH),
    "trainer.cuda_graph": or_null(SWITCH),
    "trainer.channels_last": or_null(SWITCH),
    "trainer.tf32": or_null(SWITCH),
    "trainer.accumulate_grad_batches": or_null(COUNT),
    "trainer.gradient_checkpointing": or_null(SWITCH),
    "trainer.ema_decay": or_null(BELOW_ONE),
    "trainer.on_out_of_memory": or_null(word("fail", "accumulate")),
    "trainer.tuned": optional(or_null(SWITCH)),
    "trainer.allow_reduced_precision": optional(or_null(SWITCH)),
}


def takes_fractions(key: str) -> bool:
    """Tell whether a key's value is any number, not a whole one."""
    return key in KEYS and KEYS[key].holds(0.5)


def check_values(config: Mapping[str, Any]) -> None:
    """Raise ConfigurationError, saying what would be right, for a value that is missing or of another kind than its key's."""
    for key, kind in KEYS.items():
        node: Any = config
        names = key.split(".")
        for place, name in enumerate(names):
            if not isinstance(node, Mapping):
                raise ConfigurationError(f"{'.'.join(names[:place])} is {BLOCK.words}, got {shown(node)}")
            if name not in node:
                if kind.required:
                    hint = "; a network's file sets it, below the line `# @package _global_`" if key == "name" else ""
                    raise ConfigurationError(f"{key} is missing; it is {kind.words}{hint}")
                break
            node = node[name]
        else:
            check_value(key, node)


def check_value(key: str, value: Any) -> None:
    """Raise ConfigurationError where a value is of another kind than the table's for its key."""
    kind = KEYS[key]
    if kind.holds(value):
        return
    hint = kind.hint
    if is_number(value) and kind.holds(str(value)):
        hint = f"; in quotes it is a text: '{key}=\"{value}\"'"
    elif isinstance(value, list) and value and all(map(kind.holds, value)):
        hint = f"; of several, one run each: -m {key}={','.join(map(str, value))}"
    elif (key, value) == ("seed", "auto"):
        hint = "; seed=auto, with no other seed, is for running a sweep, and begins with seed=range(3)"
    raise ConfigurationError(f"{key} is {kind.words}, got {shown(value)}{hint}")


def shown(value: Any) -> str:
    """Return a value as a user writes it: null, true and false by these words, a long one by its beginning."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}… ({len(text):,} characters)"
