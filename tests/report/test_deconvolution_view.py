"""The view of deconvolution: checkerboards as a real transposed convolution makes them, costs as the exact counter has them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.benchmark_command import command
from torch import nn

from benchmarks.complexity.counting import measure
from benchmarks.config.compose import expand
from benchmarks.config.trial import Trial
from benchmarks.report.deconvolution_view import (
    KERNELS,
    SHOWN,
    STRIDES,
    UpConvolution,
    deconvolution_view,
    pattern,
    up_convolutions,
)

view = command("view")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("stride", [*STRIDES, 4])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_pattern_is_what_a_transposed_convolution_makes_of_ones(kernel: int, stride: int) -> None:
    weights = torch.rand(kernel, kernel, dtype=torch.float64)
    out = nn.functional.conv_transpose2d(
        torch.ones(1, 1, 12, 12, dtype=torch.float64), weights[None, None], stride=stride
    )
    start = 2 * stride * -(-kernel // stride)  # far from the border, where the pattern begins anew
    inner = out[0, 0, start : start + 2 * stride, start : start + 2 * stride]
    assert pattern(weights.numpy(), stride, 2 * stride) == pytest.approx(inner.numpy())


def test_an_even_pattern_needs_a_kernel_that_the_stride_divides() -> None:
    for stride in STRIDES:
        for kernel in KERNELS:
            taps = pattern(np.ones((kernel, kernel)), stride, SHOWN)
            assert (taps.min() == taps.max()) == (kernel % stride == 0)


def test_costs_are_those_of_the_layers_that_could_stand_there() -> None:
    up = nn.ConvTranspose2d(6, 3, 2, stride=2)
    layer = UpConvolution("up", 6, 3, (2, 2), (2, 2), measure(up, (6, 5, 7)).macs)
    twice = nn.ConvTranspose2d(6, 3, 4, stride=2, padding=1)
    resized = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(6, 3, 3, padding=1))
    x = torch.zeros(1, 6, 5, 7)
    assert up(x).shape == twice(x).shape == resized(x).shape == (1, 3, 10, 14)
    assert layer.macs == 6 * 3 * 4 * 5 * 7
    assert list(layer.others().values()) == [measure(net, (6, 5, 7)).macs for net in (up, twice, resized)]


class OwnUpConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 2, 2, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv_transpose2d(x, self.weight, stride=2)


def test_an_up_convolution_that_is_no_layer_is_refused_in_one_line() -> None:
    [trial] = expand(["model=unet", "data=nuclei"], multirun=False)
    assert isinstance(trial, Trial)
    own = {**trial.config, "name": "mine", "model": {"_target_": f"{__name__}.OwnUpConvolution"}}
    with pytest.raises(
        ValueError, match=r"OwnUpConvolution of mine calls a transposed convolution itself: .*ConvTranspose2d"
    ):
        deconvolution_view([Trial(own, {})])


@pytest.mark.slow
def test_the_published_u_net_has_four(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [trial] = expand(["model=unet", "data=isbi2012"], multirun=False)
    assert isinstance(trial, Trial)
    total, layers = up_convolutions(trial)
    # Ronneberger et al. 2015, Figure 1: 28, 52, 100 and 196 pixels before an up-convolution, 1024 to 64 channels
    sides = {1024: 28, 512: 52, 256: 100, 128: 196}
    assert [layer.macs for layer in layers] == [c * (c // 2) * 4 * side**2 for c, side in sides.items()]
    boards, bars = deconvolution_view([trial]).figures
    assert len(boards.choices[0]["traces"]) == len(STRIDES) * len(KERNELS)
    assert "each in 12×12 output pixels" in boards.caption
    assert bars.choices[0]["traces"][0]["y"] == [layer.macs for layer in layers] and f"{total:,}" in bars.caption

    path = tmp_path / "deconvolution.html"
    assert view(["deconvolution", "model=unet", "data=nuclei", f"--out={path}"]) == 0
    assert capsys.readouterr().out == f"{path}\n" and "unet8_padded on nuclei" in path.read_text()
    assert view(["deconvolution", "model=resnet", "data=digits", f"--out={tmp_path / 'none.html'}"]) == 2
    assert capsys.readouterr().err.endswith("resnet20 has no up-convolution, model=unet has\n")
    assert not (tmp_path / "none.html").exists()
