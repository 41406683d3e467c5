"""Modules that are loaded when they are used, each in a process of its own."""

import pytest
from support.commands import in_python

SIGNAL = """
import sys
import benchmarks.training
assert not {"scipy", "torch"} & set(sys.modules)
import pytorch_lightning, torchmetrics
assert "scipy.signal" in sys.modules and "scipy.signal._signaltools" not in sys.modules, "loaded with Lightning"
import datamodules.in_memory
assert not {"scipy.ndimage", "tifffile"} & set(sys.modules)
import scipy.signal
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as pool:
    assert len(set(pool.map(lambda _: scipy.signal.lfilter, range(8)))) == 1
assert not hasattr(scipy.signal, "no_such_name")
assert scipy.signal.fftconvolve([1, 1, 1], [1, 1]).round(6).tolist() == [1, 2, 2, 1]
from scipy.signal import windows
import scipy.signal.filter_design
assert scipy.signal.hamming is windows.hamming, "as torchmetrics leaves it"
assert scipy.signal.hamming(3).round(2).tolist() == [0.08, 1, 0.08]
try:
    import torch._dynamo.no_such_name
except ModuleNotFoundError as error:
    assert "no_such_name" in str(error)
else:
    raise AssertionError("it has no such module")
"""

COMPILER = """
import sys
import benchmarks.training
import pytorch_lightning as pl
import torch
from torch import nn
from pytorch_lightning.utilities.compile import OptimizedModule
from benchmarks.complexity.by_dispatch import count_by_dispatch

class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 1))
    def training_step(self, batch, index):
        return self.net(batch).mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)

module = Module()
count_by_dispatch(module.net.eval(), torch.zeros(1, 1, 4, 4))
quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
batches = torch.utils.data.DataLoader(torch.rand(4, 1, 4, 4), batch_size=2)
pl.Trainer(accelerator="cpu", max_epochs=1, **quiet).fit(module, batches)
assert "torch._dynamo.eval_frame" not in sys.modules, "training needs no compiler"

@torch.compiler.disable
def marked(x):
    return x.sin()

def function(x):
    return marked(x.cos()).exp()

def backend(graph, inputs):
    compiled.update(node.target for node in graph.graph.nodes if node.op == "call_method")
    return graph.forward

compiled = set()
x = torch.rand(3)
assert torch.equal(torch.compile(function, backend=backend)(x), x.cos().sin().exp())
assert compiled == {"cos", "exp"}, "what was marked before the compiler was there"
assert isinstance(torch.compile(module.net), OptimizedModule) and not isinstance(module.net, OptimizedModule)
assert not hasattr(torch._dynamo, "no_such_name")
"""

FIRST = """
import sys
import torch
import torch._dynamo.NAME as imported
assert imported is sys.modules["torch._dynamo.NAME"] is torch._dynamo.NAME
assert imported.__spec__.loader.path == imported.__file__
assert isinstance(torch.compile(torch.nn.Linear(1, 1)), torch._dynamo.OptimizedModule)
"""

FORKS = """
import importlib, sys
from multiprocessing import forkserver
from benchmarks.launch.process import COMPILER
from benchmarks.launch.process_group import preload
assert COMPILER == "torch._dynamo.config"
preload(["lightning_modules.nets"])
for name in forkserver._forkserver._preload_modules:
    importlib.import_module(name)
from benchmarks.complexity.counting import SMALL, measure
from lightning_modules.nets import ResNet
before = set(sys.modules)
net = ResNet(8, block="basic", in_channels=1, num_classes=10, stem="cifar")
measure(net, (1, SMALL, SMALL))
new = [name for name in sys.modules if name not in before and name.startswith(("torch.", "sympy"))]
assert len(new) < 3 and "sympy" not in sys.modules, new
measure(net, (1, SMALL + 1, SMALL))  # on the meta device
assert "sympy" in sys.modules
assert "torch._dynamo.eval_frame" not in sys.modules
""" + FIRST.replace("NAME", "config")


@pytest.mark.slow
def test_importing_lightning_does_not_load_scipys_signal_processing_and_using_it_does() -> None:
    in_python(SIGNAL)


@pytest.mark.slow
def test_training_does_not_load_the_compiler_and_compiling_does() -> None:
    in_python(COMPILER)


@pytest.mark.slow
def test_forked_trials_import_nothing_to_count_a_small_image() -> None:
    in_python(FORKS)


@pytest.mark.slow
def test_a_module_of_the_compiler_may_be_imported_first_and_is_loaded_once() -> None:
    in_python("import benchmarks.training" + FIRST.replace("NAME", "symbolic_convert"))
