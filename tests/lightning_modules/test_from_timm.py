"""Networks of timm, and what is said where it is not installed or does not start."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.complexity.counting import build
from benchmarks.config.compose import expand_all
from benchmarks.config.trusted import check_targets
from lightning_modules.from_timm import lamb, timm_network

HERE = Path("run/config.yaml")


@pytest.fixture
def without_timm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    yield


def config(*overrides: str) -> dict:
    [trial] = expand_all(["model=timm", *overrides], multirun=False)
    return trial.config


def test_a_trial_is_named_by_its_source() -> None:
    composed = config("data=cifar10", "model.net=convnext_atto")
    assert (composed["name"], composed["family"]) == ("timm_convnext_atto", "timm")
    assert composed["defaulted"] == {"recipe": "classification"}


def test_where_it_is_not_installed_the_extra_is_named(without_timm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    for call in (lambda: timm_network("resnet18", 3, 10), lambda: lamb([])):
        with pytest.raises(ImportError, match=r"^timm is not installed: pip install -e '\.\[timm\]'$"):
            call()
    with pytest.raises(ValueError, match="is not installed: pip install"):
        build(config("data=cifar10")["model"], (3, 32, 32))


def test_what_it_needs_and_is_not_installed_is_named(
    without_timm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "timm.py").write_text("import nothing_such\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ImportError, match="^timm, or nothing_such that it needs, is not installed: pip install"):
        timm_network("resnet18", 3, 10)


def test_trained_weights_are_not_taken() -> None:
    with pytest.raises(ValueError, match="trained from the start here: leave out model.pretrained"):
        timm_network("resnet18", 3, 10, pretrained=True)


def test_a_torchvision_of_another_torch_is_named(
    without_timm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "timm").mkdir()
    # What importing torchvision 0.28 from the index says beside a torch for the CPU alone.
    (tmp_path / "timm" / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ImportError) as error:
        timm_network("resnet18", 3, 10)
    assert str(error.value) == (
        "timm does not start, as its torchvision is not of this torch (operator torchvision::nms does not exist): install "
        "both from one index, in the same build"
    )


def test_of_a_run_folder_its_name_and_numbers_are_built_and_nothing_else() -> None:
    node = {
        "_target_": "lightning_modules.from_timm.timm_network",
        "net": "resnet18",
        "in_channels": 3,
        "num_classes": 10,
    }
    check_targets(node, HERE)
    check_targets({"_target_": "lightning_modules.from_timm.lamb", "_partial_": True, "lr": 0.1}, HERE)
    for key, value in (("net", "hf-hub:somebody/network"), ("checkpoint_path", "weights.pth"), ("pretrained", True)):
        with pytest.raises(ValueError, match="is not run"):
            check_targets(node | {key: value}, HERE)


# Multiply-adds and parameters for 1000 classes as printed: Howard et al. 2019, Table 3; Tan and Le 2019, Table 2; Liu et al.
# 2021, Table 1; of ViT-Ti Steiner et al. 2021, Table 2.
PRINTED = {
    "mobilenetv3_small_100": (56e6, 2.5e6),
    "efficientnet_b0": (0.39e9, 5.3e6),
    "swin_tiny_patch4_window7_224": (4.5e9, 29e6),
    "vit_tiny_patch16_224": (1.3e9, 5.7e6),
}


@pytest.mark.timm
@pytest.mark.parametrize("net", PRINTED)
def test_networks_cost_what_their_papers_print(net: str) -> None:
    macs, params = PRINTED[net]
    built, cost = build(config("data=imagenet", f"model.net={net}")["model"], (3, 224, 224))
    assert cost.macs == pytest.approx(macs, rel=0.04)
    assert cost.params == pytest.approx(params, rel=0.04)
    assert cost.uncounted == () and built.num_classes == 1000


@pytest.mark.timm
def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ValueError, match="has no network 'mobilenetv3_smal', perhaps mobilenetv3_small_100, "):
        timm_network("mobilenetv3_smal", 3, 10)
