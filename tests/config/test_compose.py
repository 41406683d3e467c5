"""Overrides to trials: what composes, where it goes, and what is said of what does not."""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchmarks.config import folders, hydra_errors
from benchmarks.config.compose import expand, register_resolvers
from benchmarks.config.folders import choices
from benchmarks.config.trial import (
    CONF,
    ConfigurationError,
    Impossible,
    Trial,
    config_hash,
    differing_keys,
    flatten,
    identity,
)
from benchmarks.launch.new_record import new_record
from benchmarks.records.record import to_json

VARIANTS = [path.stem for path in sorted((CONF / "model" / "variant").glob("*.yaml"))]
FAMILIES = sorted(choices("model"), key=len, reverse=True)


def parted(pair: str) -> tuple[str, str]:
    """The network and the rest of a variant's name."""
    model = next(family for family in FAMILIES if pair.startswith(f"{family}_"))
    return model, pair.removeprefix(f"{model}_")


PAIRS = [name for name in VARIANTS if parted(name)[1] in choices("data")]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of ``--config-dir``, of this test alone."""
    for group in ("data", "model"):
        (tmp_path / group).mkdir()
    monkeypatch.setattr(folders, "_added", [tmp_path])
    return tmp_path


def one(*overrides: str) -> Trial:
    [trial] = expand(overrides, multirun=False)
    assert isinstance(trial, Trial)
    return trial


def test_what_differs_from_a_recipe_is_judged_by_its_file_as_it_is_now(own: Path) -> None:
    recipe, text = own / "recipe" / "mine.yaml", (CONF / "recipe" / "common.yaml").read_text(encoding="utf-8")
    recipe.parent.mkdir()
    overrides = ("model=resnet", "data=digits", "recipe=mine", "recipe.epochs=7", "seed=1")
    for epochs, differing in ((5, {"recipe.epochs": 7}), (7, {}), (9, {"recipe.epochs": 7})):
        recipe.write_text(re.sub(r"^epochs: *\d+", f"epochs: {epochs}", text, count=1, flags=re.MULTILINE))
        assert f"epochs: {epochs}" in recipe.read_text()
        assert one(*overrides).overrides == differing


@pytest.mark.parametrize("pair", PAIRS)
def test_every_pair_composes_and_its_network_takes_its_images(pair: str) -> None:
    model, data = parted(pair)
    trial = one(f"model={model}", f"data={data}")
    assert trial.config["recipe"]["name"] == pair
    assert (trial.config["family"], trial.config["data"]["name"]) == (model, data)
    module = instantiate(trial.config["module"])
    module.net.check_image_size(*trial.config["data"]["image_size"])
    assert max(module.learning_rates(100)) == pytest.approx(trial.config["recipe"]["optimizer"]["lr"])
    instantiate(trial.config["datamodule"])


def test_every_model_on_a_data_set_has_a_recipe_for_it() -> None:
    assert set(PAIRS) <= set(choices("recipe"))


@pytest.mark.parametrize("data", ["nuclei", "touching_cells"])
def test_a_detector_takes_the_objects_of_images_that_have_masks(data: str) -> None:
    short, full = (expand(["model=mask_rcnn", f"data={name}"], False) for name in (data, f"{data}_instances"))
    assert short == full


@pytest.mark.parametrize("default", sorted({*VARIANTS} - {*PAIRS}))
def test_a_default_variant_and_recipe_serve_a_data_set_that_has_none(default: str, own: Path) -> None:
    model, kind = parted(default)
    task = "segmentation" if kind == "segmentation" else "classification"
    stem = "" if kind == "segmentation" else f"stem: {kind}\n"
    (own / "data" / "pets.yaml").write_text(
        f"name: pets\ntask: {task}\n{stem}num_classes: 3\nin_channels: 3\nimage_size: [32, 32]\nmean: null\nstd: null\n"
        "eval_batch_size: 8\nsource: {_target_: pets.load_pets, _partial_: true}\n"
    )
    trial = one(f"model={model}", "data=pets")
    assert trial.config["recipe"]["name"] == task and trial.overrides == {}
    assert trial.config["defaulted"] == {"variant": default, "recipe": task}
    assert "defaulted" not in identity(trial.config)
    instantiate(trial.config["model"]).check_image_size(32, 32)
    notes = new_record(trial.config, {}, None).notes
    assert notes is not None and notes[0] == f"the default variant, {default}: {model} has none of its own for pets"
    chosen = one(f"model={model}", "data=pets", f"recipe={task}", f"model/variant@model={default}")
    assert (chosen.directory, config_hash(chosen.config)) == (trial.directory, config_hash(trial.config))
    assert new_record(chosen.config, {}, None).notes is None


def test_where_no_file_serves_its_name_is_said(own: Path) -> None:
    (own / "model" / "wide_net.yaml").write_text(
        "# @package _global_\ndefaults: [{variant@model: 'wide_net_${data}'}]\nname: wide\nmodel: {_target_: wide.Net}\n"
    )
    with pytest.raises(ConfigurationError) as error:
        one("model=wide_net", "data=digits")
    assert str(error.value) == (
        "model=wide_net is not set up for data=digits: digits with densenet, resnet, resnext; missing: "
        "conf/model/variant/wide_net_digits.yaml or conf/model/variant/wide_net_cifar.yaml or "
        "conf/model/variant/wide_net_classification.yaml"
    )
    with pytest.raises(ConfigurationError, match=r"no data named 'digit' \(did you mean 'digits'"):
        one("model=wide_net", "data=digit")


def launched(*overrides: str) -> list[tuple[str, str, int]]:
    trials = expand(["experiment=group_convolution", *overrides], multirun=False)
    return [
        (trial.config["row"], trial.config["name"], trial.config["seed"])
        for trial in trials
        if isinstance(trial, Trial)
    ]


def test_rows_of_an_experiment_are_run_with_everything_that_is_swept() -> None:
    rows = launched("data=digits", "seed=0,1")
    assert len(rows) == 10 and len(set(rows)) == 10
    assert [seed for _, _, seed in rows] == [0, 1] * 5
    some = [row for row, _, _ in rows[::4]]
    assert [row for row, _, _ in launched("data=digits", f"row={','.join(some)}")] == some


def test_an_override_beats_the_row_and_rows_that_become_equal_are_one_trial() -> None:
    assert [name for _, name, _ in launched("data=digits", "model.cardinality=2", "model.base_width=3")] == [
        "resnext20_2x3d"
    ]


def test_a_row_that_does_not_exist_is_refused_with_those_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # as in a process that has composed nothing yet
    with pytest.raises(ConfigurationError, match="has no row 'nothing'.*there are") as caught:
        launched("row=nothing")
    assert all(row in str(caught.value) for row, _, _ in launched())
    with pytest.raises(ConfigurationError, match="rows are those of an experiment"):
        expand(["row=a"], multirun=False)
    with pytest.raises(ConfigurationError, match="one experiment at a time"):
        expand(["experiment=group_convolution,iso_compute"], multirun=True)


def test_rows_are_no_part_of_what_a_run_computes() -> None:
    [first, *_] = expand(["experiment=group_convolution", "data=digits"], multirun=False)
    assert isinstance(first, Trial)
    model = first.config["model"]
    alone = one("model=resnext", *(f"model.{key}={model[key]}" for key in ("cardinality", "base_width")))
    assert differing_keys(first.config, alone.config) == {} and first.directory == alone.directory
    assert not {"rows", "paper"} & first.config.keys()


@pytest.mark.parametrize("group", ["trainer", "logger", "cluster", "recipe"])
def test_every_option_of_a_group_composes(group: str) -> None:
    for option in choices(group):
        assert one(f"{group}={option}").config[group]


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["model=resnext", "data=cifar10"], "resnext29_8x64d"),
        (["model=resnext", "data=cifar10", "model.cardinality=16"], "resnext29_16x64d"),
        (["model=resnet", "data=cifar10", "model.depth=110"], "resnet110"),
        (["model=densenet", "data=cifar10"], "densenet_bc100_k12"),
        (["model=densenet", "data=cifar10", "model.bottleneck=false", "model.compression=1.0"], "densenet100_k12"),
        (["model=densenet", "data=cifar10", "model.compression=0.75"], "densenet_bc100_k12_theta0.75"),
        (["model=unet", "data=nuclei"], "unet8_padded"),
    ],
)
def test_names_are_computed_from_the_numbers(overrides: list[str], name: str) -> None:
    assert one(*overrides).config["name"] == name


@pytest.mark.parametrize(
    ("overrides", "directory"),
    [
        ([], "outputs/digits/resnext20_8x4d/resnext_digits/seed0"),
        (["seed=3", "output_root=/x"], "/x/digits/resnext20_8x4d/resnext_digits/seed3"),
        (["model.depth=29", "model.cardinality=4"], "outputs/digits/resnext29_4x4d/resnext_digits/seed0"),
        (["recipe=common"], "outputs/digits/resnext20_8x4d/common/seed0"),
        (["recipe.epochs=2"], "outputs/digits/resnext20_8x4d/resnext_digits,epochs=2/seed0"),
        (["trainer=ddp"], "outputs/digits/resnext20_8x4d/resnext_digits,devices=2/seed0"),
        (["recipe.augment.crop_padding=0"], "outputs/digits/resnext20_8x4d/resnext_digits,crop_padding=0/seed0"),
        (["model=unet", "data=touching_cells", "recipe.augment.border_weights=null"],
         "outputs/touching_cells/unet8_padded/unet_touching_cells,border_weights=null/seed0"),
        (["recipe={epochs:2}"], "outputs/digits/resnext20_8x4d/resnext_digits,epochs=2/seed0"),
        (["~recipe.optimizer.lr"], "outputs/digits/resnext20_8x4d/resnext_digits,lr=null/seed0"),
        (["trainer.limit_train_batches=2"], "outputs/digits/resnext20_8x4d/resnext_digits,limit_train_batches=2/seed0"),
        (["logger=none", "trainer.accelerator=cpu", "trainer=default", "cluster.oversubscribe=true"],
         "outputs/digits/resnext20_8x4d/resnext_digits/seed0"),
    ],
)  # fmt: skip
def test_the_directory_is_a_function_of_what_is_computed(overrides: list[str], directory: str) -> None:
    assert one(*overrides).directory == Path(directory)


def test_a_record_says_whether_runs_differ_in_the_seed_alone(own: Path) -> None:
    recipe, text = own / "recipe" / "mine.yaml", (CONF / "recipe" / "common.yaml").read_text(encoding="utf-8")
    recipe.parent.mkdir()

    def opened(lr: float, seed: int, previous: dict[str, Any] | None = None) -> dict[str, Any]:
        recipe.write_text(re.sub(r"(?m)^name: .*", "name: mine", re.sub(r"\blr: [\d.]+", f"lr: {lr}", text)))
        trial = one("model=resnet", "data=digits", "recipe=mine", f"seed={seed}")
        assert trial.overrides == {}
        return to_json(new_record(trial.config, trial.overrides, previous))

    first, second, changed = opened(0.05, 0), opened(0.05, 1), opened(0.001, 1)
    key = "config_hash_without_seed"
    assert first[key] == second[key] != changed[key]
    assert opened(0.05, 0, first)[key] == first[key]
    # A run that an older version has begun stays with the seeds that this one has finished.
    del first[key]
    assert key not in opened(0.05, 0, first)


def test_places_are_no_part_of_the_identity() -> None:
    base = one().config
    moved = one("output_root=/x", "logger=none", "trainer.accelerator=cpu").config
    assert config_hash(base) == config_hash(moved)
    other = one("recipe.optimizer.lr=0.5").config
    assert config_hash(base) != config_hash(other)
    assert differing_keys(base, other) == {"recipe.optimizer.lr": (0.01, 0.5)}


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("recipe.optimizer.lr=1", "recipe.optimizer.lr=1.0"),
        ("trainer.max_train_flops=80000000000", "trainer.max_train_flops=8e10"),
        ("model.dropout=0", "model=densenet"),  # 0.0 in its file
        ("recipe.optimizer={lr: 1}", "recipe.optimizer={lr: 1.0}"),
    ],
)
def test_one_value_has_one_hash_however_it_is_written(text: str, same: str) -> None:
    first, second = (one("model=densenet", override) for override in (text, same))
    assert first.directory == second.directory
    assert config_hash(first.config) == config_hash(second.config)
    assert json.dumps(first.config) == json.dumps(second.config)


def test_a_sweep_is_the_product_in_order() -> None:
    trials = expand(["model=resnet,resnext,densenet", "seed=0,1"], multirun=True)
    assert [(trial.config["family"], trial.config["seed"]) for trial in trials if isinstance(trial, Trial)] == [
        (family, seed) for family in ("resnet", "resnext", "densenet") for seed in (0, 1)
    ]
    assert len({trial.directory for trial in trials if isinstance(trial, Trial)}) == 6


@pytest.mark.parametrize(
    ("values", "seeds", "rates"),
    [("seed=0,0", [0], [0.01]), ("recipe.optimizer.lr=0.1,1e-1", [0], [0.1]), ("seed=1,0,1", [1, 0], [0.01, 0.01])],
)
def test_equal_trials_of_a_sweep_are_one(values: str, seeds: list[int], rates: list[float]) -> None:
    configs = [trial.config for trial in expand([values], multirun=True) if isinstance(trial, Trial)]
    assert [config["seed"] for config in configs] == seeds
    assert [config["recipe"]["optimizer"]["lr"] for config in configs] == rates


def test_an_impossible_trial_leaves_the_others() -> None:
    trials = expand(["model=resnext,unet,densenet"], multirun=True)
    assert [type(trial) for trial in trials] == [Trial, Impossible, Trial]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model=resnxt"], "no model named 'resnxt' (did you mean 'resnext'?); there are densenet, faster_rcnn, "),
        (["~recipe.nothing"], "recipe.nothing is null already, or there is no such key: do without ~recipe.nothing"),
        (["~weights"], "weights is null already, or there is no such key: do without ~weights"),
        (["model.cardinalty=3"], "no key 'model.cardinalty' (did you mean 'model.cardinality'?)"),
        (["modl=resnext"], "no key 'modl' (did you mean 'model'?)"),
        (["modle=resnext"], "no key 'modle' (did you mean 'model'?)"),
        (["depth=20"], "no key 'depth' (did you mean 'model.depth'?)"),
        (["trainer.limit_val_batches=2"], "no key 'trainer.limit_val_batches' (did you mean 'trainer.limit_train_batches'?)"),
        (["model=densenet", "model.initial_channels=8"], "no file sets model.initial_channels; write +model"),
        (["recipe.optimizer.momentun=0.5"], "no key 'recipe.optimizer.momentun' (did you mean 'recipe.optimizer.momentum'?)"),
        (["model={a:1}"], "no key 'model.a'; ResNet takes base_channels, base_width, block, cardinality, depth"),
        (["recipe={a:1}"], "no key 'recipe.a' (did you mean 'recipe.name'?)"),
        (["model=unet"], "model=unet is not set up for data=digits: unet goes with dic_hela"),
        (["model=resnet", "data=nuclei"], "resnet goes with cifar10, cifar100, digits, fashion_mnist, image_folder, imagenet"),
        (["model=unet", "data=mnist"], "touching_cells, and mnist with densenet, resnet, resnext; missing: conf/model"),
        (["recipe=resnext_digit"], "no recipe named 'resnext_digit' (did you mean 'resnext_digits'?)"),
        (["seed=0,1"], "seed=0,1 is a sweep over several values: add -m"),
        (["foo"], "'foo' is not of the form key=value"),
        (["model=resnet,", "densenet"], "'densenet' is not of the form key=value; values have no spaces between: model="),
        (["seed=0", ",1"], "',1' is not of the form key=value; values have no spaces between: seed=0,1"),
        (["recipe.lr=0.1"], "no key 'recipe.lr' (did you mean 'recipe.optimizer.lr'?)"),
        (["trainer.batch_size=9"], "no key 'trainer.batch_size' (did you mean 'recipe.batch_size'?)"),
        (["data=CIFAR10"], "no data named 'CIFAR10' (did you mean 'cifar10'?)"),
        (["model=DenseNet"], "no model named 'DenseNet' (did you mean 'densenet'?)"),
        (["recipe.epochs=${nothing}"], "nothing"),
    ],
)  # fmt: skip
def test_bad_overrides_get_one_line_that_names_what_would_be_right(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        expand(overrides, multirun=False)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@lru_cache
def composed_alone(*overrides: str) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
    """One call of Hydra's compose: unresolved, resolved, and the choices of groups that make the recipe."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", overrides=list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(composed)
    chosen = composed.hydra.runtime.choices
    groups = ("model", "backbone", "data", "model/variant@model", "backbone/variant@model.backbone", "recipe")
    selected = tuple(f"{group}={chosen[group]}" for group in groups if chosen.get(group))
    job = OmegaConf.masked_copy(composed, [str(key) for key in composed if key not in ("hydra", "rows", "paper")])
    written: Any = OmegaConf.to_container(job, throw_on_missing=True)
    config: Any = OmegaConf.to_container(job, resolve=True, throw_on_missing=True)
    return written, config, selected


def departs(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Overrides from first principles: written values that differ from those of the same model, data and recipe."""
    written, config, selected = composed_alone(*overrides)
    resolved = flatten(config)
    overrides = {}
    for key in differing_keys(written, composed_alone(*selected)[0]):
        # Of a mapping that is null now, or empty, itself; a key that was taken out is null.
        above = (".".join(key.split(".")[:count]) for count in range(key.count(".") + 1, 0, -1))
        key = next((place for place in above if place in resolved), key)
        if key not in {"name", "seed"} and f"${{{key}}}" not in written["name"]:
            overrides[key] = resolved.get(key)
    return overrides


@pytest.mark.parametrize(
    ("fixed", "swept"),
    [
        (["output_root=/x"], [["model=resnet", "model=densenet"], ["seed=0", "seed=3", "seed=5"]]),
        (["model=densenet"], [["model.compression=0.5", "model.compression=0.75", "model.compression=1.0"]]),
        ([], [["recipe.optimizer.lr=0.1", "recipe.optimizer.lr=1.0", "recipe.optimizer.lr=0.01"]]),
        (["model=resnet"], [["model.depth=20", "model.depth=32", "model.depth=44"]]),
        (["trainer.limit_train_batches=4"], [["recipe.epochs=2", "recipe.epochs=12"], ["seed=1", "seed=2"]]),
        (["~recipe.augment.crop_padding"], [["seed=1", "seed=2"]]),
        (["model=mask_rcnn", "data=digit_scenes"], [["backbone=resnet", "backbone=resnext"], ["seed=1", "seed=2"]]),
        (["model=faster_rcnn", "data=digit_scenes"], [["model.backbone.base_channels=8", "model.backbone.base_channels=4"]]),
        (["recipe.batch_size=${seed}"], [["seed=8", "seed=16"]]),
        (["recipe.name='${hydra:overrides.task.1}'"], [["model.depth=20", "model.depth=32"], ["seed=1", "seed=2"]]),
        (["recipe.name='of ${name}'"], [["name=one", "name=two", "name=stand_in_0"], ["model.depth=20", "model.depth=32"]]),
        (["model=resnet"], [["name=one-2", "name=two-b.c", "name=inf-1"], ["model.depth=20", "model.depth=32"]]),
        (["recipe.name='lr${below_one:${recipe.optimizer.lr}}'"],
         [["recipe.optimizer.lr=0.5", "recipe.optimizer.lr=0.7", "recipe.optimizer.lr=2.0"]]),
        ([], [["model={depth:29,cardinality:4}"], ["seed=1", "seed=2", "seed=3"]]),
        (["seed=4", "++seed=5"], [["recipe.epochs=3", "recipe.epochs=4", "recipe.epochs=5"]]),
        (["recipe.epochs=4", "recipe={epochs:5}"], [["seed=1", "seed=2", "seed=3"]]),
        (["model=resnet"],
         [[f"model.base_channels={value}" for value in ("1", "2", "null", "two", "0.5", "true", "900000001")]]),
        (["model=unet"], [["data=nuclei", "data=digits"], ["data.task=foo", "data.task=segmentation"], ["seed=1", "seed=2"]]),
        (["recipe=common"], [["trainer=ddp", "trainer=default"], ["seed=1", "seed=2"]]),
        (["recipe={epochs:3}"], [["seed=1", "seed=2"]]),
        (["model=densenet", "+model.initial_channels=8", "~recipe.optimizer.weight_decay"], [["seed=1", "seed=2"]]),
    ],
    ids=lambda value: " ".join(value) if value and isinstance(value[0], str) else "",
)  # fmt: skip
def test_a_sweep_composes_to_what_hydra_makes_of_each_trial(fixed: list[str], swept: list[list[str]]) -> None:
    sweeps = [f"{values[0].split('=')[0]}={','.join(v.partition('=')[2] for v in values)}" for values in swept]
    jobs = [tuple(fixed)]
    for values in swept:
        jobs = [(*job, value) for job in jobs for value in values]
    trials = expand([*fixed, *sweeps], multirun=True)
    assert len(trials) == len(jobs)
    for trial, job in zip(trials, jobs, strict=True):
        try:
            _, config, _ = composed_alone(*job)
        except (HydraException, OmegaConfBaseException):
            assert isinstance(trial, Impossible), job
            continue
        if type(config["seed"]) is not int:
            assert isinstance(trial, Impossible) and trial.error.startswith("seed is a whole number"), job
            continue
        assert isinstance(trial, Trial), job
        assert repr(trial.config) == repr(config)  # with types and order
        assert list(trial.overrides.items()) == list(departs(job).items())
        assert trial.directory == Trial(config, departs(job)).directory


@pytest.mark.parametrize(
    ("missing", "line"),
    [
        (
            "recipe/tiny_digits",
            "model=tiny is not set up for data=digits; "
            "missing: conf/recipe/tiny_digits.yaml or conf/recipe/digits.yaml or conf/recipe/classification.yaml",
        ),
        (
            "model/variant/unet_pets",
            "model=unet is not set up for data=pets: unet goes with nuclei; missing: conf/model/variant/unet_pets.yaml",
        ),
    ],
)
def test_a_new_network_or_data_set_is_told_which_file_is_missing(monkeypatch, missing, line):
    options = {"model": ["tiny", "unet"], "data": ["digits", "nuclei", "pets"], "recipe": ["unet_nuclei"]}
    monkeypatch.setattr(hydra_errors, "choices", lambda group: options.get(group, ["unet_nuclei"]))
    assert hydra_errors._missing_option(missing) == line


@pytest.mark.parametrize("model", ["resnet", "resnext", "densenet"])
def test_a_network_has_the_default_variant_of_the_stem_that_is_asked_for(model: str, tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
    asked = (f"model={model}", "data=image_folder", f"data.root={tmp_path}", "data.image_size=[32,32]")
    for stem in ("cifar", "imagenet"):
        trial = one(*asked, f"data.stem={stem}")
        assert trial.config["defaulted"]["variant"] == f"{model}_{stem}"
        assert instantiate(trial.config["model"]).stem is not None


def test_the_classes_of_ones_own_folder_are_counted_and_its_name_is_the_data_sets(tmp_path: Path) -> None:
    folder = tmp_path / "my pets"
    for name in ("cats", "dogs", "emus", ".git"):
        (folder / name).mkdir(parents=True)
    (folder / "README.txt").write_text("")
    (folder / "cats" / "0.jpg").write_text("")
    trial = one("model=resnet", "data=image_folder", f"data.root='{folder}'", "seed=3")
    assert trial.config["data"]["num_classes"] == trial.config["model"]["num_classes"] == 3
    assert str(trial.directory) == "outputs/image_folder_my-pets/resnet50/image_folder/seed3"
    assert trial.overrides == {} and trial.config["defaulted"]["recipe"] == "image_folder"
    (tmp_path / "link").symlink_to(folder)
    linked = one("model=resnet", "data=image_folder", f"data.root={tmp_path / 'link'}", "seed=3")
    assert (linked.directory, config_hash(linked.config)) == (trial.directory, config_hash(trial.config))
    # With train/, classes are counted there; a class may be called train, too.
    for part in ("train", "val"):
        (tmp_path / "parts" / part / "cats").mkdir(parents=True)
    (tmp_path / "parts" / "train" / "dogs").mkdir()
    (tmp_path / "parts" / "train" / "yaks").mkdir()
    assert one("data=image_folder", f"data.root={tmp_path / 'parts'}").config["data"]["num_classes"] == 3
    with pytest.raises(ConfigurationError) as error:
        one("data=image_folder", f"data.root={folder / 'cats'}")
    assert str(error.value).startswith(f"data.root={folder / 'cats'} must hold a folder of images for each of two")
