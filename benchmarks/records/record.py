"""The record of a run: what ``record.json`` holds, a class for each block of it. Imports no torch."""

from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from benchmarks.units import number

SCHEMA = 1


@dataclass(kw_only=True)
class Code:
    """The code that made a run: versions, and hashes of what differs from the commit and of the files that train.

    ``user_code`` has the hash of each file of a network or data set that is the user's own; absent where there is none.
    """

    version: str | None
    commit: str | None
    diff_sha256: str | None
    training_sha256: str
    user_code: dict[str, str] | None = None


@dataclass(kw_only=True)
class Environment:
    """Packages and hardware of a run's process; on a GPU ``device_name`` is the GPU's, else the processor's, as
    ``AMD EPYC (AVX512, bfloat16)``; of a processor with AMX it ends with that."""

    python: str
    platform: str
    packages: dict[str, str]
    device: str
    device_name: str
    cores: int | None
    threads: int
    memory_bytes: int
    cuda: str | None
    cudnn: int | None


@dataclass(kw_only=True)
class Parallel:
    """Processes, precision and training options in effect; ``loader_workers`` only where tuning has set it."""

    world_size: int
    devices: int
    num_nodes: int
    strategy: str
    backend: str | None
    sync_batchnorm: bool
    precision: str
    global_batch_size: int
    tuned: bool
    compile: bool
    channels_last: bool
    tf32: dict[str, bool] | None
    accumulate_grad_batches: int
    gradient_checkpointing: bool
    ema_decay: float | None
    loader_workers: int | None = None
    eval_batch_size: int
    cuda_graph: bool = False


@dataclass(kw_only=True)
class Dataset:
    """The data of a run: images of each split, checksum, and the shape [C, H, W] of a training image.

    ``grey_range`` are the 16-bit grey values that became 0 and 255; absent where files have 8 bits.
    """

    counts: dict[str, int]
    classes: list[str]
    sha256: str
    image_shape: list[int]
    mean: list[float]
    std: list[float]
    notes: str
    baselines: dict[str, float]
    grey_range: list[int] | None = None
    category_ids: list[int] | None = None  # of the classes, in an annotation file


@dataclass(kw_only=True)
class PartCost:
    """The multiply-adds of a part of a network, each time that it is done: once for an image, or for each region of it.

    ``test`` and ``train`` say how often that is for one image, at most, and ``counted_by`` what a training step counts it by.
    """

    part: str
    macs: int
    train_macs: int
    test: int
    train: int
    counted_by: str


@dataclass(kw_only=True)
class NetworkCost:
    """The cost of a network for one image [C, H, W]: convolutions, linear layers, products of tensors; FLOPs are 2 x MACs.

    Of a detector it is that of as many regions as an image has at most; ``parts`` has the cost of each. ``uncounted`` names
    the operators whose arithmetic is in none of the counts; absent where there are none.
    """

    input_size: list[int]
    params: int
    macs: int
    flops: int
    activations: int
    train_macs_per_sample: int
    train_flops_per_sample: int
    parts: list[PartCost] | None = None
    uncounted: list[str] | None = None


@dataclass(kw_only=True)
class Compute:
    """What training has cost; ``hardware_train_flops`` includes what recomputation adds, where there is any.

    ``energy_j`` is None where the devices have no counter. ``processed`` has the regions that a detector's heads computed.
    """

    train_flops: int
    train_macs: int
    samples_seen: int
    steps: int
    epochs: int
    wall_s: float
    train_s: float
    images_per_s: float | None
    peak_memory_bytes: int
    energy_j: float | None
    hardware_train_flops: int | None = None
    processed: dict[str, int] | None = None


# What of it a row of the history has; what is measured no second training repeats.
MEASURED = ("wall_s", "train_s", "images_per_s", "peak_memory_bytes", "energy_j")
COSTS = ("samples_seen", "train_macs", "train_flops", *MEASURED)


@dataclass(kw_only=True)
class SpentBudget:
    """A budget of training, ``train_flops``, ``train_seconds`` or ``train_joules``, and what of it is spent."""

    kind: str
    limit: float
    spent: float


@dataclass(kw_only=True)
class ImportedWeights:
    """Weights that a run tests without training, and the published file, or the run's checkpoint, that they come from."""

    file: str
    sha256: str | None
    source: str
    source_file: str
    source_sha256: str


@dataclass(kw_only=True)
class Protocol:
    """What the reported metric is: of which weights, on which split, by which definition.

    ``batch_norm_images``: training images over which batch-norm statistics were computed anew, of a run too short for running
    averages; else None.
    """

    checkpoint: str
    weights: ImportedWeights | None
    split: str
    metric: str
    metric_label: str
    definitions: dict[str, str]
    budget: SpentBudget | None
    batch_norm_images: int | None = None


@dataclass(kw_only=True)
class Resumption:
    """A start from a checkpoint, None for a start anew; ``reason`` only where newer checkpoints were not usable, or
    a CPU computes in another number of threads than before, or the run in another precision."""

    at: str
    step: int
    checkpoint: str | None
    reason: str | None = None


@dataclass(kw_only=True)
class Restart:
    """A restart of a run's processes, and the failure after which it came."""

    at: str
    after: str


@dataclass(kw_only=True)
class Mirror:
    """The run's identity on W&B, and the mode of sending: online, offline, or why it ended."""

    id: str
    mode: str


@dataclass(kw_only=True)
class Record:
    """A run's record. Its launcher opens it with all that stands before ``wandb``; the rest comes from rank 0.

    Attributes:
        status: ``running``, ``ok``, ``failed``, ``interrupted`` or ``preempted``.
        error: the cause in one line.
        experiment, row: of the published table that the run belongs to.
        overrides: what differs from the recipe.
        notes: what a reader must know, as that a default recipe was used.
        look: how figures draw the family, where its configuration says it.
        config_hash_without_seed: equal of runs that differ in the seed alone; absent where an older version began the run.
    """

    schema: int = SCHEMA
    status: str
    error: str | None
    run_id: str
    experiment: str | None
    row: str | None
    data: str
    task: str
    family: str
    name: str
    recipe: str
    seed: int
    overrides: dict[str, Any]
    config_hash: str
    started: str
    finished: str | None
    resumptions: list[Resumption]
    restarts: list[Restart]
    wandb: Mirror | None
    look: dict[str, str] | None = None
    config_hash_without_seed: str | None = None
    notes: list[str] | None = None
    code: Code | None = None
    environment: Environment | None = None
    parallel: Parallel | None = None
    dataset: Dataset | None = None
    counts: dict[str, int] | None = None
    baselines: dict[str, float] | None = None
    complexity: NetworkCost | None = None
    protocol: Protocol | None = None
    metrics: dict[str, float] | None = None
    confusion: list[list[int]] | None = None
    weights_sha256: str | None = None
    compute: Compute | None = None


def to_json(block: Any) -> dict[str, Any]:
    """Return a block as plain types. A field whose default is None is left out where it is None; others are written as null."""
    values = ((one, getattr(block, one.name)) for one in fields(block))
    return {one.name: _plain(value) for one, value in values if one.default is not None or value is not None}


def from_json(kind: type, content: dict[str, Any]) -> Any:
    """Return the block that ``to_json`` has written. Raises TypeError where the content has other keys than the block."""
    hints = _hints(kind)
    return kind(**{key: _read(value, hints.get(key, Any)) for key, value in content.items()})


def wrong_value(content: dict[str, Any], block: type = Record) -> str | None:
    """Return which value is of another type than a run writes, and of which it must be; None if all are right.

    Blocks and values that are absent or null are right, as are keys of other versions.

    Args:
        block: the class of the content.
    """
    for key, parts in _known_parts(block).items():
        value = content.get(key)
        kind = type(value)
        if value is None or (kind is parts[0] and (kind in _SCALARS or (kind is int and abs(value) < 2**63))):
            continue  # the usual case, at once: thousands of records are read
        if (wrong := _wrong(value, parts)) is not None:
            return key + wrong
    return None


_SCALARS = (str, float, bool)
_hints = lru_cache(get_type_hints)


def _wrong(value: Any, parts: tuple[Any, bool, Any]) -> str | None:
    """Return what is wrong with a value, to stand behind its key: `` must be a number``, ``.epochs must be a number``."""
    kind, is_block, of_items = parts
    if is_block or kind is dict:
        if not isinstance(value, dict):
            return f" must be an object, got {type(value).__name__}"
        if is_block:
            wrong = wrong_value(value, kind)
            return None if wrong is None else f".{wrong}"
    elif kind in (int, float):
        is_number = isinstance(value, float) or number(value) is not None
        return None if is_number else " must be a number"
    elif not isinstance(value, kind):
        return f" must be a {kind.__name__}"
    items = value.values() if kind is dict else value if kind is list else ()
    usual = of_items in (str, int, float) and set(map(type, items)) <= {of_items}
    if of_items is Any or (usual and (of_items is not int or max(map(abs, items), default=0) < 2**63)):
        return None
    parts_of_one = _parts(of_items)
    return next(filter(None, (_wrong(item, parts_of_one) for item in items if item is not None)), None)


@lru_cache
def _known_parts(block: type) -> dict[str, tuple[Any, bool, Any]]:
    """Return the `_parts` of a block's hints but those that take anything."""
    return {key: _parts(hint) for key, hint in _hints(block).items() if hint is not Any}


@lru_cache
def _parts(hint: Any) -> tuple[Any, bool, Any]:
    """Return the type that a hint names, whether that is a block of the record, and the type of its items."""
    if isinstance(hint, UnionType):
        [hint] = [one for one in get_args(hint) if one is not NoneType]
    kind: Any = get_origin(hint) or hint
    [*_, of_items] = get_args(hint) or [Any]
    return kind, isinstance(kind, type) and is_dataclass(kind), of_items


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return to_json(value)
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _read(value: Any, hint: Any) -> Any:
    kind, is_block, of_items = _parts(hint)
    if value is None:
        return None
    if kind is list and is_dataclass(of_items):
        return [from_json(of_items, item) for item in value]  # type: ignore[arg-type]
    return from_json(kind, value) if is_block else value
