"""Public training loops beside a hand-written one: all do the same work; those that are not there are left out."""

from dataclasses import replace

import pytest
import torch
from support.benchmark_command import command

from benchmarks.performance import other_loops, peers
from benchmarks.performance.cases import Case
from benchmarks.performance.document import MeasuredTable
from benchmarks.performance.hand_written_loop import InterleavedLoader, Round
from benchmarks.performance.other_loops import Peer, Work, find_peers, train_interleaved
from benchmarks.performance.peers import input_rows, step_rows
from benchmarks.training.checkpoints import weights_sha256

main = command("measure peers")

# Two epochs, so that the schedule counts.
NETWORK = ("model=resnet", "data=digits", "model.depth=8", "recipe.batch_size=399")
SMALL = Case((*NETWORK, "trainer.channels_last=false"), None, 6, 1197)  # other projects have no layout of their own
# Of the form of torchvision's and of timm's, each with a module beside it, as torchvision's has.
LOOP = """
import types
from beside import OFF
torchvision = types.SimpleNamespace(transforms=None)
def one_epoch(model, loss, optimizer, loader):
    for images, targets in loader:
        optimizer.zero_grad()
        loss(model(images), targets).backward()
        optimizer.step()
"""
TORCHVISION = """
import argparse
def get_args_parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("--amp", default=OFF)
    return parser
def train_one_epoch(model, criterion, optimizer, data_loader, device, epoch, args, model_ema=None):
    assert args.amp == 0 and device.type == "cpu"
    one_epoch(model, criterion, optimizer, data_loader)
"""
TIMM = """
import argparse
parser = argparse.ArgumentParser()
def train_one_epoch(epoch, model, loader, optimizer, loss_fn, args, device, lr_scheduler=None):
    assert not args.prefetcher and not args.distributed
    one_epoch(model, loss_fn, optimizer, loader)
"""


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    monkeypatch.setattr(other_loops, "version", lambda package: "1.2")
    for name, text in {"torchvision": TORCHVISION, "timm": TIMM}.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "train.py").write_text(LOOP + text)
        (folder / "beside.py").write_text("OFF = 0\n")
    return tmp_path / "torchvision", tmp_path / "timm" / "train.py"


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_all_loops_end_with_the_same_weights_to_the_bit(scripts):
    found, _ = find_peers(*scripts)
    assert {"ours", "torchvision", "timm", "lightning"} <= {peer.name for peer in found}
    ends = {}
    for peer in found:
        trained: list[Work] = []

        def watched(work: Work, peer: Peer = peer, trained: list[Work] = trained) -> None:
            trained.append(work)
            peer.train(work)

        beside = train_interleaved(SMALL, 6, replace(peer, train=peer.train and watched))
        # Some loops ask for a batch after an epoch's last.
        assert 4 <= len(beside.rounds) <= 6
        nets = [beside.bare.net, *(work.net for work in trained)]
        ends[peer.name] = {weights_sha256(net.state_dict()) for net in nets}
    assert len(set.union(*ends.values())) == 1, ends


def test_images_a_second_do_not_depend_on_when_a_loop_was_measured(monkeypatch):
    def rounds(case, steps, peer, own_batches):
        busy = 3.0 if peer.name == "slow" else 1.0
        cost = 2.0 if peer.name == "slow" else 1.0
        beside = InterleavedLoader.__new__(InterleavedLoader)
        beside.rounds = [Round(cost * busy, busy, cost * busy, busy, 0.0)] * 9
        beside.bare = type("Bare", (), {"device": torch.device("cpu"), "loader": None})()
        beside.bare.loader = type("Loader", (), {"sampler": type("Sampler", (), {"batch_size": 12})()})()
        return beside

    monkeypatch.setattr(other_loops, "train_interleaved", rounds)
    bare, one, other, slow = step_rows("resnet20_digits", [Peer(n, "1", None) for n in ("one", "other", "slow")], 9)
    assert (bare["loop"], bare["images_per_s"], bare["batch"]) == ("bare", 12, 12)
    assert (one["images_per_s"], one["ratio"]) == (other["images_per_s"], other["ratio"]) == (12, 1)
    assert (slow["images_per_s"], slow["ratio"]) == (6, 2)


@pytest.mark.usefixtures("one_thread")
def test_each_input_path_is_measured_and_trained_with(monkeypatch):
    asked = []

    def batches(pictures, batch, device):
        picture = pictures.images[0]
        assert picture.shape == (32, 32, 3) and len(pictures) % batch == 0
        asked.append(batch)
        order = torch.randperm(len(pictures)).split(batch)
        return [(torch.rand(batch, 3, 32, 32), torch.tensor(pictures.targets)[rows]) for rows in order]

    def train(work):
        for images, targets in work.loader:
            work.optimizer.zero_grad()
            torch.nn.functional.cross_entropy(work.net(images), targets).backward()
            work.optimizer.step()

    monkeypatch.setitem(peers.CASES, peers.WHOLE, Case(("model=resnet", "data=cifar10", "model.depth=8"), 2, 8, None))
    found = [Peer("ours", "1", None), Peer("without", "1", train), Peer("other", "1", train, batches)]
    ours, other = input_rows(found, batches=8, steps=8)
    assert asked == [2, 2]
    assert (ours["loop"], ours["times"], other["loop"]) == ("ours", 1, "other")
    for row in (ours, other):
        assert row["images_per_s_low"] <= row["images_per_s"] <= row["images_per_s_high"] and row["whole_ratio"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_what_is_missing_is_left_out_in_a_line(scripts, tmp_path, monkeypatch, capsys):
    torchvision, timm = scripts
    timm.write_text(
        LOOP + "import argparse\nparser = argparse.ArgumentParser()\ndef train_one_epoch(epoch, task): pass\n"
    )
    (torchvision / "train.py").write_text("raise RuntimeError('operator torchvision::nms does not exist\\nmore')\n")
    found, left_out = find_peers(torchvision, timm)
    assert left_out[:2] == [
        "torchvision: RuntimeError: operator torchvision::nms does not exist",
        "timm: TypeError: missing a required argument: 'task'",
    ]
    assert {peer.name for peer in found} >= {"ours", "lightning"}
    kept = []
    monkeypatch.setattr(MeasuredTable, "write", lambda *record: kept.append(record))
    monkeypatch.setattr(peers, "CASES", {"resnet20_digits": SMALL})
    assert main(["resnet20_digits", "--torchvision", str(tmp_path / "nowhere"), "--steps", "12", "--write"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("left out: torchvision: FileNotFoundError: ") for line in lines)
    assert "left out: timm: --timm does not say where its training script is" in lines
    [(table, _, command, rows, note)] = kept
    assert (table.kind, command.split()[-3:]) == ("peers", ["--steps", "12", "--write"])
    assert [row["loop"] for row in rows][:3] == ["bare", "ours", "lightning"]
    assert all(set(table.columns) <= set(row) for row in rows)
    assert "Left out: timm: --timm does not say where its training script is." in note


def test_bad_calls_are_refused(capsys):
    assert main(["unet32_padded"]) == 2
    assert "no case unet32_padded; there are resnext29_8x64d" in capsys.readouterr().err
