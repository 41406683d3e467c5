"""Every image at most once an epoch, exactly once in evaluation, at any number of processes."""

import os
import signal
import time
from functools import partial
from itertools import chain

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from datamodules.in_memory import InMemoryDataModule
from datamodules.loading.batching import (
    GlobalBatchSampler,
    GroupedBatchSampler,
    ResumableLoader,
    TrainRows,
    evaluation_batches,
)
from datamodules.readers.seeds import mix_seed
from datamodules.readers.splits import Split, Splits

COUNT = 21


def epoch_rows(sampler: GlobalBatchSampler, epoch: int = 0) -> list[list[int]]:
    sampler.set_epoch(epoch)
    return [item.rows.tolist() for item in sampler]


def one_process(batch_size: int = 6, seed: int = 0) -> GlobalBatchSampler:
    return GlobalBatchSampler(COUNT, batch_size, seed, rank=0, world_size=1)


@pytest.mark.parametrize("batch_size", [1, 5, 6, 21])
def test_an_epoch_holds_whole_batches_of_distinct_images(batch_size):
    sampler = one_process(batch_size)
    batches = epoch_rows(sampler)
    assert len(batches) == len(sampler) == COUNT // batch_size
    assert all(len(batch) == batch_size for batch in batches)
    rows = list(chain(*batches))
    assert len(set(rows)) == len(rows)
    assert set(rows) <= set(range(COUNT))


def test_order_is_a_function_of_seed_and_epoch():
    first = epoch_rows(one_process(), epoch=3)
    assert epoch_rows(one_process(), epoch=3) == first
    assert epoch_rows(one_process(), epoch=4) != first
    assert epoch_rows(one_process(seed=1), epoch=3) != first
    # A sum of seed and epoch would make these equal.
    assert epoch_rows(one_process(seed=0), epoch=1) != epoch_rows(one_process(seed=1), epoch=0)


def test_images_dropped_in_one_epoch_appear_in_others():
    sampler = one_process(batch_size=6)
    seen = [set(chain(*epoch_rows(sampler, epoch))) for epoch in range(10)]
    assert all(len(rows) == 18 for rows in seen)
    assert set.union(*seen) == set(range(COUNT))


@pytest.mark.parametrize(("wide", "upright", "batch_size"), [(30, 10, 16), (20, 5, 8)])
def test_images_of_each_kind_are_dropped_equally_often(wide, upright, batch_size):
    kind, epochs = torch.arange(wide + upright) < wide, 200
    sampler = GroupedBatchSampler(kind, batch_size, seed=0, rank=0, world_size=1)
    rows = torch.tensor([list(chain(*epoch_rows(sampler, epoch))) for epoch in range(epochs)])
    assert all(len(row.unique()) == len(row) for row in rows)
    seen = torch.bincount(rows.flatten(), minlength=len(kind)) / epochs
    for of_kind in (kind, ~kind):
        assert seen[of_kind].mean().item() == pytest.approx(rows.shape[1] / len(kind), abs=0.05)


@pytest.mark.parametrize("wide", [False, True])
def test_images_of_one_kind_are_in_the_batches_of_a_plain_sampler(wide):
    sampler = GroupedBatchSampler(torch.full((COUNT,), wide), 6, seed=0, rank=0, world_size=1)
    for epoch in (0, 3):
        plain = epoch_rows(one_process(), epoch)
        shuffled = torch.randperm(len(plain), generator=torch.Generator().manual_seed(mix_seed("batches", 0, epoch)))
        assert epoch_rows(sampler, epoch) == [plain[batch] for batch in shuffled]


@pytest.mark.parametrize("batch_size", [6, 12, 18])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_together_see_the_global_batches_of_one_process(batch_size, world_size):
    for epoch in (0, 1):
        expected = epoch_rows(one_process(batch_size), epoch)
        per_rank: list[list[TrainRows]] = []
        for rank in range(world_size):
            sampler = GlobalBatchSampler(COUNT, batch_size, 0, rank, world_size)
            sampler.set_epoch(epoch)
            per_rank.append(list(sampler))
        for number, parts in enumerate(zip(*per_rank, strict=True)):
            assert torch.cat([part.rows for part in parts]).tolist() == expected[number]
            assert [part.first for part in parts] == [rank * batch_size // world_size for rank in range(world_size)]
            assert {(part.epoch, part.batch, len(part.global_rows)) for part in parts} == {(epoch, number, batch_size)}


def test_the_epoch_is_read_with_the_first_batch():
    sampler = one_process()
    batches = iter(sampler)
    sampler.set_epoch(5)
    assert [item.rows.tolist() for item in batches] == epoch_rows(one_process(), epoch=5)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_an_epoch_can_go_on_at_any_batch_and_the_next_is_whole(world_size):
    whole = [epoch_rows(one_process(), epoch) for epoch in (4, 5)]
    for start in range(4):
        parts = []
        for rank in range(world_size):
            sampler = GlobalBatchSampler(COUNT, 6, 0, rank, world_size)
            batches = iter(sampler)  # Lightning makes it before it says where to go on
            sampler.start_at(4, start)
            sampler.set_epoch(4)
            assert len(sampler) == 3
            rest = list(batches)
            assert [item.batch for item in rest] == list(range(start, 3))
            parts.append([[item.rows.tolist() for item in rest], epoch_rows(sampler, 5)])
        for epoch, expected in enumerate((whole[0][start:], whole[1])):
            together = [sum(batch, []) for batch in zip(*(part[epoch] for part in parts), strict=True)]
            assert together == expected


class Doubled(Dataset):
    """Of each batch, what it is made of; in a worker, which signals would end it too."""

    def __getitem__(self, item):
        ignored = [signal.getsignal(number) is signal.SIG_IGN for number in STOPS]
        return {"rows": item.rows * 2, "epoch": item.epoch, "worker": get_worker_info() is not None, "ignored": ignored}


STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_goes_on_after_the_batch_it_has_handed_out(workers):
    """Not after those that workers have prepared; an iterator made before the place is known begins there too."""
    whole = ResumableLoader(Doubled(), one_process(), 0)
    whole.sampler.set_epoch(2)
    expected = [batch["rows"].tolist() for batch in whole]
    for taken in range(4):
        loader = ResumableLoader(Doubled(), one_process(), workers)
        loader.sampler.set_epoch(2)
        batches = iter(loader)
        first = [next(batches) for _ in range(taken)]
        state = loader.state_dict()
        assert state == ({"epoch": 2, "batch": taken} if taken else {"epoch": 0, "batch": 0})
        if not taken:
            continue
        again = ResumableLoader(Doubled(), one_process(), workers)
        again.load_state_dict(state)
        rest = iter(again)
        again.sampler.set_epoch(2)
        rest = list(rest)
        assert [batch["rows"].tolist() for batch in first + rest] == expected
        assert again.state_dict() == {"epoch": 2, "batch": 3}
        assert all(batch["worker"] == bool(workers) for batch in first + rest)
        if workers:
            assert all(all(batch["ignored"]) for batch in first + rest)
        again.sampler.set_epoch(3)
        assert [batch["epoch"] for batch in again] == [3, 3, 3]


class Listed(Dataset):
    """Notes in a file which batch was made by whom."""

    def __init__(self, path):
        self.path = path

    def __getitem__(self, item):
        with open(self.path, "a") as file:
            file.write(f"{os.getpid()} {item.epoch} {item.batch}\n")
        return item.epoch, item.batch

    def made(self):
        return [tuple(map(int, line.split())) for line in self.path.read_text().splitlines()]


def test_workers_begin_the_next_epoch_while_nobody_asks_for_it(tmp_path):
    made = Listed(tmp_path / "made")
    loader = ResumableLoader(made, one_process(), 1)
    assert list(loader) == [(0, 0), (0, 1), (0, 2)]
    assert loader.state_dict() == {"epoch": 0, "batch": 3}
    until = time.monotonic() + 30
    while len(made.made()) < 5 and time.monotonic() < until:
        time.sleep(0.01)
    assert [item[1:] for item in made.made()] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    loader.sampler.set_epoch(1)
    assert list(loader) == [(1, 0), (1, 1), (1, 2)]
    loader.sampler.set_epoch(7)  # another than was begun
    assert list(loader) == [(7, 0), (7, 1), (7, 2)]
    assert len({pid for pid, *_ in made.made()}) == 1


@pytest.mark.parametrize("workers", [-1, 1.5, None])
def test_loader_workers_are_a_whole_number(workers):
    with pytest.raises(ValueError, match="cluster.loader_workers is a whole number from 0"):
        ResumableLoader(Doubled(), one_process(), workers)


@pytest.mark.parametrize(
    "augment",
    [
        {"crop_padding": 1},
        {"elastic": {"input_size": [8, 8], "output_size": [8, 8], "displacement": 1, "contrast": 0.2}},
    ],
)
def test_batches_do_not_depend_on_the_number_of_workers(augment):
    images = torch.arange(24 * 64, dtype=torch.int32).remainder(251).to(torch.uint8).reshape(24, 1, 8, 8)
    targets = torch.zeros(24, dtype=torch.long) if "crop_padding" in augment else images[:, 0] // 128
    split = Split(images, targets)
    made = []
    for workers in (0, 2):
        source = partial(Splits, split, split, split, ("a", "b"))
        module = InMemoryDataModule(source, 6, 6, augment, [0.5], [0.25], seed=0, loader_workers=workers)
        module.setup()
        made.append(list(module.train_dataloader()))
    for one, two in zip(*made, strict=True):
        assert torch.equal(one.images, two.images) and torch.equal(one.targets, two.targets)
    assert len(made[0]) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 8, "world_size": 3}, "multiple of the 3 processes, got 8"),
        ({"batch_size": 0, "world_size": 1}, "multiple of the 1 processes, got 0"),
        ({"batch_size": 22, "world_size": 1}, "one batch of 22 images, the training split has 21"),
        ({"batch_size": 6, "world_size": 2, "rank": 2}, r"0\.\.1 for world size 2, got 2"),
    ],
)
def test_impossible_batches_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GlobalBatchSampler(COUNT, **{"seed": 0, "rank": 0, **arguments})


@pytest.mark.parametrize("count", [3, 7, 21, 101])
@pytest.mark.parametrize("batch_size", [1, 4, 16])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_each_image_exactly_once(count, batch_size, world_size):
    rows: list[int] = []
    for rank in range(world_size):
        sampler = evaluation_batches(count, batch_size, rank, world_size)
        batches = [list(range(item.start, item.stop)) for item in sampler]
        assert len(batches) == len(sampler) >= 1
        assert all(1 <= len(batch) <= batch_size for batch in batches)
        assert list(chain(*batches)) == list(range(count * rank // world_size, count * (rank + 1) // world_size))
        rows += chain(*batches)
    assert rows == list(range(count))


def test_impossible_evaluation_is_refused():
    with pytest.raises(ValueError, match="3 processes needs at least as many images, got 2"):
        evaluation_batches(2, 4, rank=0, world_size=3)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        evaluation_batches(2, 0, rank=0, world_size=1)
    with pytest.raises(ValueError, match=r"0\.\.0 for world size 1, got -1"):
        evaluation_batches(2, 4, rank=-1, world_size=1)


def test_a_loader_hands_whole_batches_to_the_dataset():
    class Items(Dataset):
        def __getitem__(self, item):
            return item.rows * 10

    loader = DataLoader(Items(), sampler=one_process(), batch_size=None)
    assert len(loader) == 3
    assert [batch.tolist() for batch in loader] == [[10 * row for row in rows] for rows in epoch_rows(one_process())]


def test_seeds_do_not_collide_in_the_bits_that_torch_uses():
    seeds = [mix_seed("order", *numbers) for numbers in torch.cartesian_prod(*[torch.arange(14)] * 3).tolist()]
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert len({seed % 2**32 for seed in seeds}) == len(seeds) == 14**3
    assert mix_seed("order", 1, 11) != mix_seed("order", 11, 1) != mix_seed("augmentation", 11, 1)
