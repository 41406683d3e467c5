"""Layout and precision that a configuration leaves open."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.configurations import trial

from benchmarks.records import hardware
from benchmarks.training import default_settings
from benchmarks.training.default_settings import complete, exact_precision
from benchmarks.training.environment import environment
from benchmarks.training.options import TrainingOptions
from benchmarks.training.tuned_settings import specification
from lightning_modules.nets import DenseNet, ResNet, UNet

TABLE = """device,family,precision,channels_last,time_ratio,networks
cpu,densenet,32-true,true,0.790,a b
cpu,densenet,bf16-mixed,false,1.250,a
cuda,resnet,bf16-mixed,true,0.600,c
"""


@pytest.fixture(autouse=True)
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "layouts.csv").write_text(TABLE)
    monkeypatch.setattr(default_settings, "LAYOUTS", tmp_path / "layouts.csv")
    default_settings.layouts.cache_clear()
    yield
    default_settings.layouts.cache_clear()


def layout(family: str, gpu: bool = False, **trainer: Any) -> tuple[Any, str | None]:
    arguments, note = complete({"family": family}, {"precision": "32-true", "channels_last": None, **trainer}, gpu)
    return arguments["channels_last"], note


def test_the_table_decides_where_nothing_is_set() -> None:
    value, note = layout("densenet")
    assert value is True and note is not None and "0.79 times" in note and "trainer.channels_last=false" in note
    assert layout("densenet", channels_last=False) == (False, None)
    assert layout("resnet", channels_last=True) == (True, None)
    assert layout("densenet", precision="bf16-mixed") == layout("densenet", gpu=True) == (None, None)
    assert layout("resnet") == layout("mine") == (None, None), "not measured: as it was"
    assert layout("resnet", gpu=True, precision="bf16-mixed")[0] is True


def test_auto_is_bfloat16_where_the_hardware_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for multiplies, precision in ((True, "bf16-mixed"), (False, "32-true"), (None, "32-true")):
        monkeypatch.setattr(default_settings, "multiplies_bf16", lambda gpu, answer=multiplies: answer)
        assert exact_precision("auto", gpu=False) == precision
        arguments, _ = complete({"family": "densenet"}, {"precision": "auto", "channels_last": None}, gpu=False)
        assert arguments == {"precision": precision, "channels_last": True if precision == "32-true" else None}
    assert exact_precision("16-true", gpu=True) == "16-true"


def test_the_processor_says_whether_it_multiplies_bfloat16() -> None:
    lines = Path("/proc/cpuinfo")
    if not lines.exists():
        pytest.skip("not Linux")
    # PyTorch's own view of the processor, which reads CPUID.
    of_torch = [getattr(torch.cpu, name)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    if "flags" in lines.read_text():
        assert hardware.multiplies_bf16(False) is any(of_torch)
        said = environment(torch.device("cpu"))["device_name"]
        wide = ("(AVX512" in said, "bfloat16" in said, "AMX)" in said)
        assert wide == (" avx512f " in lines.read_text(), any(of_torch), of_torch[1])


def test_what_is_measured_and_forecast_has_the_layout_of_the_run() -> None:
    densenet = trial("model=densenet", "data=digits", "trainer.accelerator=cpu").config
    assert specification(densenet)["options"] == {"channels_last": True}
    densenet["trainer"]["channels_last"] = False
    assert specification(densenet)["options"] == {"channels_last": False}


@pytest.mark.parametrize(
    "build",
    [
        lambda: DenseNet(depth=10, growth_rate=4, bottleneck=True, compression=0.5, num_classes=5, stem="cifar"),
        lambda: ResNet(depth=11, block="bottleneck", cardinality=2, base_width=2, num_classes=5, stem="cifar"),
        lambda: UNet(in_channels=3, num_classes=2, base_channels=4, padded=True),
    ],
)
def test_layouts_compute_the_same_network(build: Any) -> None:
    """Logits and gradients, in double precision, where rounding leaves 12 digits."""
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    results = []
    for option in (False, True):
        torch.manual_seed(0)
        net = build().double()
        TrainingOptions(channels_last=option).apply(net)
        logits = net(images)
        logits.square().sum().backward()
        results.append((logits.detach(), torch.cat([weight.grad.flatten() for weight in net.parameters()])))
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)
