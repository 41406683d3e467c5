"""The losses, mixed images and optimiser settings of recipes of today, against their formulas."""

from collections import UserList
from functools import partial
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.config.compose import expand_all
from lightning_modules.classifier import Classifier
from lightning_modules.mixing import Mixing

SGD = partial(torch.optim.SGD, lr=0.5, momentum=0.9, weight_decay=0.1)
CONSTANT = partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0)
IMAGES, CLASSES = torch.arange(6.0)[:, None, None, None].expand(6, 2, 10, 14), torch.tensor([0, 1, 2, 0, 1, 2])


class Batches(UserList[Any]):
    """To Lightning a loader, where a list would be one loader each."""


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )


def classifier(**settings: Any) -> Classifier:
    return Classifier(net().double(), 3, SGD, CONSTANT, **settings)


class OfPair(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images.mean(3), images.mean(3)


@pytest.mark.parametrize(
    ("network", "given"),
    [(nn.Flatten(), "[6, 280]"), (nn.Identity(), "[6, 2, 10, 14]"), (OfPair(), "a tuple")],
    ids=["other classes", "maps", "several"],
)
def test_a_network_that_gives_no_logits_of_the_classes_is_refused_in_one_line(network: nn.Module, given: str) -> None:
    module = Classifier(network, 3, SGD, CONSTANT)
    with pytest.raises(ValueError, match=r"must give logits \[6, 3\], of data.num_classes=3, got ") as error:
        module.sample_losses(IMAGES, CLASSES)
    assert str(error.value).endswith(given)


def test_what_is_no_network_is_refused() -> None:
    several: Any = (net(), "its tools")  # as some of torch.hub's functions return
    with pytest.raises(ValueError, match="model._target_ makes a network, a torch.nn.Module, got a tuple"):
        Classifier(several, 3, SGD, CONSTANT)


class WithState(nn.Flatten):
    def get_extra_state(self) -> Any:
        return {"a": 1}


def test_a_state_of_more_than_tensors_is_refused() -> None:
    with pytest.raises(ValueError) as error:
        Classifier(nn.Sequential(WithState()), 3, SGD, CONSTANT)
    assert str(error.value) == (
        "a checkpoint holds tensors alone, and 0._extra_state of Sequential is a dict: make it a buffer, or leave out "
        "get_extra_state"
    )


@pytest.mark.parametrize("apart", [True, False])
def test_a_network_that_learns_nothing_is_refused(apart: bool) -> None:
    module = Classifier(net().requires_grad_(False), 3, SGD, CONSTANT, decay_norms_and_biases=apart)
    with pytest.raises(ValueError, match="^Sequential has no weight that learns: none has requires_grad$"):
        module.configure_optimizers()


def trained(module: Classifier, steps: int = 3, parts: int = 1) -> dict[str, Tensor]:
    module.micro_batches = parts
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(steps, 12, 2, 6, 6, generator=generator).double()
    classes = torch.randint(3, (steps, 12), generator=generator)
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    batches = Batches((*pair, None, None) for pair in zip(images, classes, strict=True))
    pl.Trainer(accelerator="cpu", max_epochs=1, **quiet).fit(module, batches)
    return module.net.state_dict()


def test_mixup_is_a_weighted_mean_of_an_image_and_its_partner() -> None:
    for step in range(20):
        images, shares = Mixing(0, 3, mixup=0.5, cutmix=None)(IMAGES, CLASSES, step)
        share = (images[0, 0, 0, 0].item() - 5) / (0 - 5)  # of image 0 with image 5
        assert torch.allclose(images, share * IMAGES + (1 - share) * IMAGES.flip(0), atol=1e-5)
        assert shares[0].tolist() == pytest.approx([share, 0, 1 - share], abs=1e-5)
        assert torch.allclose(shares.sum(dim=1), torch.ones(6))


def test_cutmix_takes_a_window_and_shares_by_its_area() -> None:
    areas = []
    for step in range(40):
        images, shares = Mixing(0, 3, mixup=None, cutmix=1.0)(IMAGES, CLASSES, step)
        of_partner = images[0, 0] == 5
        assert torch.equal(images[0, 0] == 0, ~of_partner) and torch.equal(images[1] == 4, of_partner.expand(2, -1, -1))
        rows, columns = of_partner.any(dim=1), of_partner.any(dim=0)
        assert torch.equal(of_partner, rows[:, None] & columns)
        areas.append(of_partner.float().mean().item())
        assert shares[0].tolist() == pytest.approx([1 - areas[-1], 0, areas[-1]], abs=1e-6)
    assert min(areas) < 0.1 and max(areas) > 0.4


def test_what_is_mixed_is_a_function_of_seed_and_step() -> None:
    mixing = Mixing(0, 3, mixup=0.2, cutmix=1.0)
    once = [mixing(IMAGES, CLASSES, step) for step in range(200)]
    torch.rand(3)  # no generator of torch has a part in it
    for step, (images, shares) in enumerate(once):
        again, shares_again = mixing(IMAGES, CLASSES, step)
        assert torch.equal(again, images) and torch.equal(shares_again, shares)
    assert not torch.equal(Mixing(1, 3, mixup=0.2, cutmix=1.0)(IMAGES, CLASSES, 0)[0], once[0][0])
    windows = sum(set(images[0].unique().tolist()) <= {0.0, 5.0} for images, _ in once)
    assert 70 < windows < 130  # binomial(200, 1/2), within 4 standard deviations


def test_losses_are_those_of_their_formulas() -> None:
    torch.manual_seed(1)
    images, classes = torch.randn(6, 2, 10, 14).double(), CLASSES
    shares = 0.7 * F.one_hot(classes, 3).double() + 0.3 * F.one_hot(classes.flip(0), 3).double()
    module = classifier(label_smoothing=0.1)
    chances = module(images).log_softmax(dim=1)
    smooth = 0.9 * F.one_hot(classes, 3) + 0.1 / 3
    torch.testing.assert_close(module.sample_losses(images, classes), -(smooth * chances).sum(dim=1))
    mixed = -(0.7 * chances[range(6), classes] + 0.3 * chances[range(6), classes.flip(0)])
    torch.testing.assert_close(classifier().sample_losses(images, shares), mixed)
    binary = classifier(binary_cross_entropy=True)
    both = torch.maximum(F.one_hot(classes, 3), F.one_hot(classes.flip(0), 3)).double()
    there, absent = binary(images).sigmoid().log(), (-binary(images)).sigmoid().log()
    expected = -(both * there + (1 - both) * absent).mean(dim=1)
    torch.testing.assert_close(binary.sample_losses(images, shares), expected)
    # Evaluation is of the plain cross-entropy, whatever training asks for.
    torch.testing.assert_close(module.loss(module(images), classes, None), -chances[range(6), classes])
    assert module.definitions["loss"] == "cross-entropy, mean over images, nats"
    assert binary.definitions["loss"] == (
        "cross-entropy, mean over images, nats; of the softmax, while training minimises binary cross-entropy"
    )


def test_smoothing_and_binary_cross_entropy_exclude_one_another() -> None:
    with pytest.raises(ValueError, match="binary_cross_entropy and recipe.label_smoothing: choose one"):
        classifier(label_smoothing=0.1, binary_cross_entropy=True)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_weight_decay_is_left_off_norms_and_biases() -> None:
    module = classifier(decay_norms_and_biases=False)
    optimizer = module.configure_optimizers()["optimizer"]
    for parameter in module.net.parameters():
        parameter.grad = torch.zeros_like(parameter)
        nn.init.ones_(parameter)
    optimizer.step()
    after = {name: parameter.unique().tolist() for name, parameter in module.net.named_parameters()}
    left = {name for name, values in after.items() if values == [1.0]}
    assert left == {"0.bias", "1.weight", "1.bias", "5.bias"}
    assert all(values == [1 - 0.5 * 0.1] for name, values in after.items() if name not in left)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_gradients_are_clipped_to_one_norm_of_all() -> None:
    norms = []
    for limit in (None, 1e-3):
        module = classifier(clip_gradient_norm=limit)
        module._optimizer = partial(torch.optim.SGD, lr=1.0)
        before = [parameter.detach().clone() for parameter in module.net.parameters()]
        trained(module, steps=1)
        moved = [old - new for old, new in zip(before, module.net.parameters(), strict=True)]
        norms.append(torch.linalg.vector_norm(torch.cat([one.detach().flatten() for one in moved])).item())
    assert norms[0] > 1e-2 and norms[1] == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_micro_batches_mix_as_the_whole_batch() -> None:
    settings: dict[str, Any] = {"mixup": 0.2, "cutmix": 1.0, "seed": 3, "clip_gradient_norm": 0.5}
    whole, parts = trained(classifier(**settings)), trained(classifier(**settings), parts=3)
    plain = trained(classifier())
    for name, weight in whole.items():
        torch.testing.assert_close(parts[name], weight, rtol=0, atol=1e-9)
    assert not torch.allclose(plain["5.weight"], whole["5.weight"])


@pytest.mark.parametrize("recipe", ["torchvision_2021", "vit_imagenet", "a3"])
def test_recipes_of_today_compose(recipe: str) -> None:
    [trial] = expand_all(["model=resnext", "data=imagenet", f"recipe={recipe}"])
    settings = {key: value for key, value in trial.config["module"].items() if key in trial.config["recipe"]}
    assert settings["optimizer"] == trial.config["recipe"]["optimizer"] and trial.overrides == {}
    keys = {"torchvision_2021": 4, "vit_imagenet": 1, "a3": 4}
    assert len(settings) == 2 + keys[recipe]


# As printed: Wightman et al. 2021, Table 2, A3; Vryniotis 2021, the command of ResNet-50's second weights, on 8 GPUs of 128
# images; Dosovitskiy et al. 2021, Table 3 and appendix B.1. The warm-up is 5 epochs of the first two, 10,000 steps of ViT's.
PRINTED: dict[str, dict[str, Any]] = {
    "a3": {
        "batch_size": 2048, "epochs": 100, "lr": 8e-3, "weight_decay": 0.02, "mixup": 0.1, "cutmix": 1.0, "warm_up": 5,
        "binary_cross_entropy": True, "decay_norms_and_biases": False,
    },
    "torchvision_2021": {
        "batch_size": 8 * 128, "epochs": 600, "lr": 0.5, "momentum": 0.9, "weight_decay": 2e-5, "mixup": 0.2, "cutmix": 1.0,
        "warm_up": 5, "label_smoothing": 0.1, "decay_norms_and_biases": False,
    },
    "vit_imagenet": {
        "batch_size": 4096, "epochs": 300, "lr": 3e-3, "weight_decay": 0.3, "clip_gradient_norm": 1.0,
        "warm_up": 10_000 * 4096 / 1_281_167,
    },
}  # fmt: skip


@pytest.mark.parametrize("recipe", PRINTED)
def test_recipes_of_today_have_the_figures_of_their_sources(recipe: str) -> None:
    [trial] = expand_all(["model=resnet", "data=imagenet", f"recipe={recipe}"])
    written = trial.config["recipe"]
    figures = {
        key: value for key, value in written.items() if isinstance(value, int | float) and key != "validate_every"
    }
    figures |= {key: value for key, value in written["optimizer"].items() if not key.startswith("_")}
    assert written["scheduler"]["_target_"] == "lightning_modules.schedules.warm_up_then_cosine"
    warm_up = written["scheduler"]["warm_up"] * written["epochs"]
    assert warm_up == pytest.approx(PRINTED[recipe]["warm_up"], rel=1e-3)
    assert figures | {"warm_up": PRINTED[recipe]["warm_up"]} == PRINTED[recipe]
