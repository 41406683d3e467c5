"""Overlap-tile inference against one pass over the whole mirrored image."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_modules.nets import UNet
from lightning_modules.segmenter import Segmenter
from lightning_modules.tiling import default_tiles, predict_by_tiles

pytestmark = pytest.mark.usefixtures("one_thread")

TOLERANCE = {"rtol": 0, "atol": 1e-5}


def unet(depth=3, **options):
    torch.manual_seed(depth)
    net = UNet(2, 3, base_channels=2, depth=depth, **options).eval()
    for parameter in net.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.1)
    return net


def picture(height, width, channels=2):
    return torch.rand(channels, height, width, generator=torch.Generator().manual_seed(height * 1000 + width))


def mirrored(image, border, height, width):
    """An image continued by its mirror images, from -border, to the size given."""
    bottom, right = height - image.shape[1] - border, width - image.shape[2] - border
    return torch.from_numpy(np.pad(image.numpy(), ((0, 0), (border, bottom), (border, right)), mode="reflect"))


def whole(net, image, border):
    """Logits of the image from one pass over all of it, mirrored as far as the network needs."""
    height, width = image.shape[1:]
    sides = []
    for side in (height, width):
        side += 2 * border
        while True:
            try:
                net.check_image_size(side, side)
                break
            except ValueError:
                side += 1
        sides.append(side)
    with torch.no_grad():
        logits = net(mirrored(image, border, *sides)[None])[0]
    cut = border if net.padded else 0
    return logits[:, cut : cut + height, cut : cut + width]


def legal(net, at_least):
    side = at_least
    while True:
        try:
            net.check_image_size(side, side)
            return side
        except ValueError:
            side += 1


# Smaller than a tile, smaller than the border, one pixel wide, larger, and divisible by nothing.
SIZES = [(1, 1), (3, 70), (17, 23), (52, 52), (61, 97), (150, 131)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kept", [8, 20, 57])
def test_unpadded_tiles_equal_the_whole_image(size, kept):
    net = unet()
    image = picture(*size)
    tile = legal(net, 2 * net.border + kept)
    logits = predict_by_tiles(net, image, tile, batch_size=5)
    assert logits.shape == (3, *size)
    torch.testing.assert_close(logits, whole(net, image, net.border), **TOLERANCE)


@pytest.mark.parametrize("tile", [204, 252])
def test_tiles_of_the_published_depth_equal_the_whole_image(tile):
    """188 + 16 k in, 4 + 16 k out: the outputs are no multiple of the 16 pixels on which pooling repeats itself."""
    net = unet(depth=4)
    image = picture(75, 60)
    torch.testing.assert_close(predict_by_tiles(net, image, tile, 2), whole(net, image, 92), **TOLERANCE)


@pytest.mark.parametrize("size", [*SIZES, (150, 256)])
@pytest.mark.parametrize("more", [8, 32])
def test_padded_tiles_equal_the_whole_mirrored_image(size, more):
    """48 pixels are more than the 44 that an unpadded network of this depth drops, and a multiple of its stride."""
    net = unet(padded=True)
    image = picture(*size)
    logits = predict_by_tiles(net, image, 2 * 48 + more, batch_size=4, margin=48)
    torch.testing.assert_close(logits, whole(net, image, 48), **TOLERANCE)


def test_padded_tiles_equal_the_plain_network_away_from_the_border():
    net = unet(padded=True)
    image = picture(160, 168)
    tiles = predict_by_tiles(net, image, 136, batch_size=1, margin=48)
    with torch.no_grad():
        plain = net(image[None])[0]
    inner = (slice(None), slice(56, -56), slice(56, -56))
    torch.testing.assert_close(tiles[inner], plain[inner], **TOLERANCE)
    assert (tiles - plain).abs().max() > 1e-3  # zeros against mirror images


def test_a_margin_too_small_shows_seams():
    """Else the equality above would say nothing of the margin."""
    net = unet(padded=True)
    image = picture(100, 100)
    tiles = predict_by_tiles(net, image, 72, batch_size=4, margin=8)
    assert (tiles - whole(net, image, 48)).abs().max() > 1e-3


def test_pooling_repeats_itself_at_the_stride_only():
    """Why tiles are laid whole strides apart: moved by the 12 pixels of its own output, a network puts out others."""
    net = unet()
    image = picture(160, 160)
    out = net.output_size(100, 100)[0]
    assert out == 12 and out % 8
    with torch.no_grad():
        first, by_stride, by_output = (net(image[None, :, top : top + 100, :100]) for top in (0, 8, 12))
    torch.testing.assert_close(first[:, :, 8:], by_stride[:, :, :4], **TOLERANCE)
    with torch.no_grad():
        long = net(image[None, :, :108, :100])
    assert long.shape[2] == 20
    assert (long[:, :, 12:] - by_output[:, :, :8]).abs().max() > 1e-3


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batch_size_does_not_change_the_result_and_bounds_the_memory(batch_size):
    net = unet()
    image = picture(61, 97)
    taken = []
    handle = net.register_forward_pre_hook(lambda module, inputs: taken.append(tuple(inputs[0].shape)))
    seen = []
    # 100 in and 12 out, laid every 8: 1 + ceil((61 - 12) / 8) = 8 by 1 + ceil((97 - 12) / 8) = 12.
    logits = predict_by_tiles(net, image, 100, batch_size, progress=lambda done, total: seen.append((done, total)))
    handle.remove()
    assert {shape[1:] for shape in taken} == {(2, 100, 100)}
    assert max(shape[0] for shape in taken) == min(batch_size, 96)
    assert sum(shape[0] for shape in taken) == 96
    assert seen == [(min(done, 96), 96) for done in range(batch_size, 96 + batch_size, batch_size)]
    torch.testing.assert_close(logits, whole(net, image, net.border), **TOLERANCE)


def test_an_image_of_one_output_is_one_tile():
    net = unet()
    calls = []
    image = picture(12, 12)
    predict_by_tiles(net, image, 100, 4, progress=lambda *count: calls.append(count))
    assert calls == [(1, 1)]


class Shift(nn.Module):
    """Takes away one pixel on each side and puts out the pixel in the middle, so that every output names its input."""

    def output_size(self, height, width):
        if min(height, width) < 3:
            raise ValueError(f"too small: {height}x{width}")
        return height - 2, width - 2

    def forward(self, x):
        return x[:, :, 1:-1, 1:-1]


@pytest.mark.parametrize("tile", [3, 4, 9, 50])
def test_every_pixel_comes_back_to_its_place(tile):
    image = picture(13, 10)
    assert torch.equal(predict_by_tiles(Shift().eval(), image, tile, 7), image)


class Own(nn.Sequential):
    """Somebody's padded network, with a pooling in it."""

    def __init__(self):
        torch.manual_seed(0)
        up = nn.Upsample(scale_factor=2)
        super().__init__(nn.Conv2d(2, 4, 3, padding=1), nn.MaxPool2d(2), up, nn.Conv2d(4, 3, 3, padding=1))


class OwnOfEvenSides(Own):
    def check_image_size(self, height, width):
        if height % 2 or width % 2:
            raise ValueError(f"sides must be even, got {height}x{width}")


@pytest.mark.parametrize("net", [Own(), OwnOfEvenSides()], ids=["any side", "even sides"])
def test_a_network_without_output_size_gives_as_much_as_it_takes(net):
    image, module = picture(61, 97), Segmenter(net.eval(), 3, None, None, None, None)
    padded = mirrored(image, 4, 70, 106)
    expected = net(padded[None])[0, :, 4:65, 4:101].detach()
    torch.testing.assert_close(predict_by_tiles(net, image, 24, 5, margin=4), expected, **TOLERANCE)
    module.use_tiles(240)
    assert torch.equal(module.predict(image), expected.argmax(0))
    half = Segmenter(nn.MaxPool2d(2), 2, None, None, None, None)
    with pytest.raises(ValueError, match=r"logits \[1, 2, 8, 8\], .* got \[1, 2, 4, 4\]; .* says so by output_size"):
        half(torch.zeros(1, 2, 8, 8))


@pytest.mark.parametrize(
    "options", [{"depth": 2}, {"depth": 4}, {"depth": 3, "padded": True}, {"depth": 6, "padded": True}]
)
def test_a_run_without_tiles_predicts_an_image_of_any_size(options):
    net, image = UNet(2, 3, base_channels=1, **options).eval(), picture(61, 97)
    tiles = default_tiles(net)
    assert tiles["tile"] >= 384 and tiles.get("margin", 96) >= 96
    assert Segmenter(net, 3, None, None, None, None).predict(image).shape == (61, 97)


def test_an_image_of_the_size_that_was_tested_whole_is_predicted_whole():
    net, image = UNet(2, 3, base_channels=1, depth=2, padded=True).eval(), picture(64, 96)
    module = Segmenter(net, 3, None, None, None, None)
    expected = net(image[None])[0].argmax(0)
    assert torch.equal(module.predict(image, whole=[64, 96]), expected)
    assert not torch.equal(module.predict(image), expected)  # by tiles, with mirrored borders
    module.use_tiles(384)
    assert not torch.equal(module.predict(image, whole=[64, 96]), expected)
    unpadded = Segmenter(unet(), 3, None, None, None, None)
    assert unpadded.predict(picture(92, 100), whole=[92, 100]).shape == (92, 100)


class Corner(Shift):
    """Puts out the input two above and two left of the output's place, to show what lies outside the image."""

    def output_size(self, height, width):
        return height - 4, width - 4

    def forward(self, x):
        return x[:, :, :-4, :-4]


def test_outside_the_image_is_its_mirror_image():
    image = torch.arange(12.0).reshape(1, 3, 4)
    expected = [[10, 9, 8, 9], [6, 5, 4, 5], [2, 1, 0, 1]]
    assert predict_by_tiles(Corner().eval(), image, 6, 2)[0].tolist() == expected


@pytest.mark.parametrize(
    ("tile", "message"),
    [
        (571, "the legal sides nearest to 571 are 556 and 572"),
        (384, "the legal sides nearest to 384 are 380 and 396"),
        (100, "the legal sides nearest to 100 are 188 and 204"),
        (188, "keep 4 pixels, fewer than the network's stride 16: the nearest sides that keep more are 204 and 220"),
    ],
)
def test_illegal_tiles_are_refused_with_the_nearest_legal_ones(tile, message):
    net = unet(depth=4)
    with pytest.raises(ValueError, match=message):
        predict_by_tiles(net, picture(5, 5), tile, 1)
    for side in map(int, message.split(" are ")[1].split(" and ")):
        net.check_image_size(side, side)


@pytest.mark.parametrize(
    ("tile", "margin", "message"),
    [
        (100, 48, "the legal sides nearest to 100 are 96 and 104"),
        (96, 48, "keep 0 pixels, fewer than the network's stride 8: the nearest sides that keep more are 104 and 112"),
        (64, 48, "keep 0 pixels, .* are 104 and 112"),
        (104, 44, "multiple of the network's stride 8, as 40 and 48 are, got 44"),
        (104, -8, "multiple of the network's stride 8, as 0 and 8 are, got -8"),
        (104, None, "a padded network needs margin"),
    ],
)
def test_padded_tiles_and_margins_that_do_not_fit_are_refused(tile, margin, message):
    with pytest.raises(ValueError, match=message):
        predict_by_tiles(unet(padded=True), picture(5, 5), tile, 1, margin)
    predict_by_tiles(unet(padded=True), picture(5, 5), 104, 1, 48)


@pytest.mark.parametrize(
    ("tiles", "message"),
    [
        ({"tile": 104, "batch_size": 1, "margin": 47}, "margin must be a multiple of the network's stride 8"),
        ({"tile": 100, "batch_size": 1, "margin": 48}, "the legal sides nearest to 100 are 96 and 104"),
        ({"tile": 104, "batch_size": 1, "margin": None}, "a padded network needs margin"),
        ({"tile": 104, "batch_size": 0, "margin": 48}, "batch_size must be at least 1, got 0"),
        (
            {"tile": "a", "batch_size": 1, "margin": 48},
            "recipe.tiles takes whole numbers as tile, batch_size and margin, got",
        ),
        (
            {"tile": 104, "batch_size": 1, "overlap": 48},
            "recipe.tiles takes whole numbers as tile, batch_size and margin, got",
        ),
        ({"tile": 104}, "recipe.tiles takes whole numbers as tile, batch_size and margin, got"),
    ],
)
def test_tiles_that_do_not_fit_are_refused_before_training(tiles, message):
    with pytest.raises(ValueError, match=message):
        Segmenter(unet(padded=True), 3, None, None, None, tiles)


def test_other_impossible_values_are_refused():
    net = unet()
    with pytest.raises(ValueError, match="drops its own margin of 44"):
        predict_by_tiles(net, picture(5, 5), 100, 1, margin=48)
    with pytest.raises(ValueError, match=r"\[C, H, W\]"):
        predict_by_tiles(net, picture(5, 5)[None], 100, 1)
    with pytest.raises(ValueError, match="with pixels"):
        predict_by_tiles(net, torch.zeros(2, 0, 5), 100, 1)
    with pytest.raises(ValueError, match="batch_size"):
        predict_by_tiles(net, picture(5, 5), 100, 0)
    net.bottom.train()
    with pytest.raises(ValueError, match="net.eval"):
        predict_by_tiles(net, picture(5, 5), 100, 1)


class OneSize(Shift):
    def output_size(self, height, width):
        if height != 9:
            raise ValueError("only 9")
        return 7, 7


def test_a_network_of_one_size_has_no_stride():
    with pytest.raises(ValueError, match="takes no side from 10 to 18"):
        predict_by_tiles(OneSize().eval(), picture(5, 5), 9, 1)


def test_no_gradient_is_kept():
    net = unet()
    assert not predict_by_tiles(net, picture(5, 5), 100, 1).requires_grad
