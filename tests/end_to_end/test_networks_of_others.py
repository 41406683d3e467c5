"""Networks of timm and torchvision through the command line, in the environment of ``make test-timm``."""

import csv
import re
from pathlib import Path

import pytest
import torch
from support.benchmark_command import command
from support.commands import ROOT, records, run_here
from support.data_files import photographs
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.complexity.reference_counts import all_reference_counts

pytestmark = pytest.mark.timm
NAME = "timm_mobilenetv3_small_100"  # depthwise convolutions, squeeze-and-excitation, hardswish
QUICK = ("recipe.epochs=1", "logger=none", "trainer.accelerator=cpu")


def counted_by_torch(net: nn.Module, *size: int) -> FlopCounterMode:
    """torch's count of a forward pass, in which depthwise convolutions are right."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(torch.zeros(1, *size))
    return counter


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep over a network of timm and one of ours."""
    root = tmp_path_factory.mktemp("sweep") / "outputs"
    done = run_here("-m", "model=timm,resnet", "data=digits", *QUICK, root=root)
    assert done.returncode == 0, done.stdout + done.stderr
    table = [line for line in done.stdout.splitlines() if re.match(rf"\S (resnet20|{NAME}) ", line)]
    assert len(table) == 2 and all(line.split()[-1] == "ok" for line in table)
    return root


def test_it_is_trained_beside_ours_and_counted_as_torch_counts(root: Path) -> None:
    import timm

    record = records(root)[NAME]
    assert (record["status"], record["metrics"]["test/n"], record["family"]) == ("ok", 450, "timm")
    assert record["notes"] == ["the default recipe, classification: timm has none of its own for digits"]
    net = timm.create_model("mobilenetv3_small_100", in_chans=1, num_classes=10)
    counter = counted_by_torch(net, 1, 8, 8)
    complexity = record["complexity"]
    assert complexity["params"] == sum(parameter.numel() for parameter in net.parameters())
    assert complexity["flops"] == 2 * complexity["macs"] == counter.get_total_flops()
    # Forward, gradient to weights and to inputs, of which the first layer needs none.
    first = sum(counter.get_flop_counts()["MobileNetV3.conv_stem"].values())
    assert complexity["train_flops_per_sample"] == 3 * complexity["flops"] - first
    assert not any(network.name.startswith("timm") for network in all_reference_counts())


def test_it_stands_on_the_page_and_on_that_of_a_report(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        page = (root / "report.html").read_text(encoding="utf-8")
        assert NAME in page and 'data-family="timm"' in page and "--family:#882255" in page
        assert '"timm":{"colour":"#882255","symbol":"triangle-down"' in page
        assert command("report")([str(root)]) == 0
        assert NAME in capsys.readouterr().out


def test_ours_are_matched_to_its_cost(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    macs = records(root)[NAME]["complexity"]["macs"]
    ask = ["data=digits", "--macs", str(macs)]
    assert command("complexity match")(["model=densenet", *ask]) == 0
    assert "model.growth_rate=" in capsys.readouterr().out
    assert command("complexity match")(["model=timm", *ask]) == 2
    assert "model=timm does not say which argument is its width" in capsys.readouterr().err


def test_an_unknown_name_gets_the_nearest_in_one_line(tmp_path: Path) -> None:
    done = run_here("model=timm", "model.net=mobilenetv3_smal", "data=digits", *QUICK, root=tmp_path / "outputs")
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    [line] = [line for line in done.stdout.splitlines() if "failed" in line and "seed 0" in line]
    assert "has no network 'mobilenetv3_smal', perhaps mobilenetv3_small_100, " in line


def test_photographs_train_networks_of_both_and_new_ones_are_classified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """torchvision's by the YAML of docs/how_to/network.md; both are built of the run's folder by the allow list, and their
    weights tested anew."""
    text = (ROOT / "docs" / "how_to" / "network.md").read_text(encoding="utf-8")
    [configuration] = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "torchvision" in block]
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "mobilenet.yaml").write_text(configuration)
    pets, root = photographs(tmp_path / "pets", {"cats": 20, "dogs": 20}), tmp_path / "outputs"
    mine = ("--config-dir", str(tmp_path / "mine"))
    asked = ("data=image_folder", f"data.root={pets}", "data.image_size=[32,32]", *QUICK)
    done = run_here(*mine, "-m", "model=timm,mobilenet", *asked, root=root)
    assert done.returncode == 0, done.stdout + done.stderr
    trained = records(root)
    assert trained.keys() == {NAME, "torchvision_mobilenet_v3_small"}
    from torchvision.models import mobilenet_v3_small

    net = mobilenet_v3_small(num_classes=2)
    counted = trained["torchvision_mobilenet_v3_small"]["complexity"]
    assert counted["flops"] == counted_by_torch(net, 3, 32, 32).get_total_flops()
    assert counted["params"] == sum(parameter.numel() for parameter in net.parameters())
    photographs(tmp_path / "new", {"a": 1, "b": 1})
    images = [str(tmp_path / "new" / name / "0.jpg") for name in "ab"]
    for directory in root.glob("*/*/*/seed0"):
        capsys.readouterr()
        assert command("predict")([str(directory), *images]) == 0, capsys.readouterr().err
        with (directory / "predictions" / "classes.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [float(row["cats"]) + float(row["dogs"]) for row in rows] == pytest.approx([1, 1], abs=1e-5)
    for name, record in trained.items():
        [weights] = root.glob(f"*/{name}/*/seed0/checkpoints/last.ckpt")
        tested = ("mode=test", f'weights="{weights}"', f"model={record['family']}")
        done = run_here(*mine, *tested, *asked, root=tmp_path / name)
        assert done.returncode == 0, done.stdout + done.stderr
        [again] = records(tmp_path / name).values()
        assert again["metrics"]["test/top1_err"] == record["metrics"]["test/top1_err"]
