"""A trial: one fully resolved configuration of one run, its identity and its directory."""

import hashlib
import json
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.units import NO_RUNS, short_value

# In a checkout conf/ stands beside benchmarks/; a wheel has it inside, where no other package's can be taken for it.
_INSTALLED = Path(__file__).resolve().parents[1] / "conf"
CONF = _INSTALLED if _INSTALLED.is_dir() else _INSTALLED.parents[1] / "conf"

# Where a run happens, who watches it and who starts its kernels: no part of what it computes.
PLACES = (
    *("mode", "output_root", "launch", "logger", "cluster", "trainer.accelerator", "trainer.cuda_graph"),
    *("data.root", "data.hub"),
)
# Interpolated from the groups: an override shows at its home.
WIRING = (
    "module",
    "datamodule",
    "loading",
    "task",
    "about",
    "defaulted",
    "experiment",
    "row",
    "data.source",
    "data.augment",
    "data.scores._target_",
)
_COMPUTE_NOTHING = tuple(f"{key}." for key in (*PLACES, *WIRING))  # which a key below one begins with

LONGEST_NAME = 200  # bytes of a folder's; file systems take 255, some encrypted ones less


class ConfigurationError(ValueError):
    """A configuration that cannot be composed; the message is one line that says what would be right."""


@dataclass(frozen=True)
class Trial:
    """A run that is to be made: its resolved configuration, and what of it departs from the recipe. Raises ConfigurationError
    for a name that is no plain name of a folder."""

    config: dict[str, Any]
    overrides: dict[str, Any]

    def __post_init__(self) -> None:
        """Check that the run stays in its place: below the output root, where every reader finds it."""
        data, recipe = (self.config.get(group) for group in ("data", "recipe"))
        for key, group in {"data.name": data, "name": self.config, "recipe.name": recipe}.items():
            name = group.get("name") if isinstance(group, Mapping) else None
            plain = isinstance(name, str) and name.isprintable() and name.strip() == name and "/" not in name
            if not plain or name in ("", ".", ".."):
                raise ConfigurationError(f"{key} is the name of a folder, without / and no ., got {name!r}")
        data_name = self.config["data"]["name"]
        if data_name in NO_RUNS:
            raise ConfigurationError(
                f"data.name={data_name} is a folder of output_root that holds no runs; choose another"
            )

    @property
    def directory(self) -> Path:
        """``<output_root>/<data>/<name>/<recipe>[,<override>…]/seed<k>``; what is too long for a folder ends in a hash."""
        config = self.config
        recipe = ",".join([config["recipe"]["name"], *_short(self.overrides)])
        if len(recipe) > 120:
            digest = hashlib.sha256(recipe.encode()).hexdigest()[:12]
            recipe = f"{config['recipe']['name']},{digest}"
        names = map(_shortened, (config["data"]["name"], config["name"], recipe))
        return Path(config["output_root"], *names, f"seed{config['seed']}")

    @property
    def network(self) -> str:
        """The name, with the arguments of the network that it does not show: `resnet34 model.shortcut=A`, as of a run."""
        arguments = [f"{key}={short_value(value)}" for key, value in self.overrides.items() if key.startswith("model.")]
        return " ".join([self.config["name"], *arguments])

    @property
    def label(self) -> str:
        """What a person calls the run: name, overrides and seed."""
        return " · ".join(
            filter(None, (self.config["name"], " ".join(_short(self.overrides)), f"seed {self.config['seed']}"))
        )


@dataclass(frozen=True)
class Impossible:
    """Overrides of a sweep that compose to nothing, with the reason in one line."""

    overrides: tuple[str, ...]
    error: str

    @property
    def label(self) -> str:
        """The overrides themselves: there is no network to name."""
        return " ".join(self.overrides)


def _shortened(name: str) -> str:
    if len(name.encode()) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{name.encode()[: LONGEST_NAME - 13].decode(errors='ignore')},{digest}"


def flatten(config: Mapping[str, Any], prefix: str = "", whole: Container[str] = (), dot: str = ".") -> dict[str, Any]:
    """Dotted keys of all leaves; a list is a leaf, as are the mappings of ``whole`` and those without a key."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value and f"{prefix}{key}" not in whole:
            flat |= flatten(value, f"{prefix}{key}{dot}", whole, dot)
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run computes: the flat configuration without places and wiring."""
    return {key: value for key, value in flatten(config).items() if not f"{key}.".startswith(_COMPUTE_NOTHING)}


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 of ``identity(config)``; a key that is null counts as absent, so that a new one changes no older hash."""
    set_keys = {key: value for key, value in identity(config).items() if value is not None}
    return hashlib.sha256(json.dumps(set_keys, sort_keys=True).encode()).hexdigest()


def config_hash_without_seed(config: Mapping[str, Any]) -> str:
    """The same of a configuration without its seed."""
    return config_hash({**config, "seed": None})


def differing_keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys of ``identity`` in which two configurations differ, with both values (None where absent)."""
    a, b = identity(one), identity(other)
    return {key: (a.get(key), b.get(key)) for key in differing(a, b)}


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    return [key for key in sorted({*a, *b}) if a.get(key) != b.get(key)]


def _short(overrides: Mapping[str, Any]) -> list[str]:
    """``key=value`` with the last word of the key where that is unambiguous, safe in a path; of a file of weights its name."""
    words = [key.rsplit(".", 1)[-1] for key in overrides]
    texts = []
    for word, (key, value) in zip(words, overrides.items(), strict=True):
        shown = _weights_name(Path(str(value))) if key == "weights" else short_value(value)
        text = f"{word if words.count(word) == 1 else key}={shown}"
        texts.append(re.sub(r"[^\w.=+-]+", "-", text))
    return texts


def _weights_name(path: Path) -> str:
    """Return a file's stem; of a run's ``DATA/NAME/RECIPE/seed0/checkpoints/last.ckpt`` ``DATA-NAME-RECIPE-seed0-last``."""
    place = "/".join(path.parts[-3:-1])
    of_run = path.parts[-6:-2] if re.fullmatch(r"seed\d+/checkpoints", place) else ()
    return "-".join([*of_run, path.stem])
