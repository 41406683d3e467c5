"""What the product uses of other libraries that they do not promise to keep: each use, why, and that it is there."""

import argparse
import ast
import inspect
import multiprocessing.forkserver as forkserver
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from fvcore.nn import jit_handles
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigSource
from omegaconf import _utils, base, basecontainer, grammar_parser
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.trainer import call
from pytorch_lightning.trainer.connectors.signal_connector import _SignalConnector
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from torchmetrics import Metric
from torchmetrics.aggregation import MeanMetric

ROOT = Path(__file__).parents[1]
PACKAGES = ("benchmarks", "datamodules", "lightning_modules")
SOURCES = (ROOT / "run.py", *(path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))))
PROMISED = {"_asdict", "_replace", "_exit"}  # documented, of named tuples and of os

USES: dict[str, tuple[object, tuple[str, ...]]] = {
    # training.stopping: its own SIGTERM handler starts a collective, and its question at each step waits for the GPU.
    "Trainer._signal_connector": (_SignalConnector.register_signal_handlers, ("self",)),
    "_TrainingEpochLoop._broadcast_sigterm_tensor": (_TrainingEpochLoop._broadcast_sigterm_tensor, ("self",)),
    # training.checkpoints: when a batch's gradients are complete, and whether an evaluation follows.
    "_TrainingEpochLoop._should_accumulate": (_TrainingEpochLoop._should_accumulate, ("self",)),
    "_TrainingEpochLoop._should_check_val_fx": (_TrainingEpochLoop._should_check_val_fx, ("self", "data_fetcher")),
    # config.compose: the trials of a sweep, as Hydra's own sweeper splits them.
    "BasicSweeper.split_arguments": (BasicSweeper.split_arguments, ("overrides", "max_batch_size")),
    # config.fast_composition: files read once; YAML by libyaml, interpolations parsed once, metadata copied at once.
    "SourcesRegistry.resolve": (SourcesRegistry.resolve, ("self", "scheme")),
    "ConfigSource._normalize_file_name": (ConfigSource._normalize_file_name, ("filename",)),
    "omegaconf get_yaml_loader": (_utils.get_yaml_loader, ()),
    "omegaconf Metadata": (
        base.Metadata,
        ("ref_type", "object_type", "optional", "key", "flags", "flags_root", "resolver_cache"),
    ),
    "omegaconf parse": (grammar_parser.parse, ("value", "parser_rule", "lexer_mode")),
    # __main__: each line of a description is wrapped by itself.
    "HelpFormatter._fill_text": (argparse.HelpFormatter._fill_text, ("self", "text", "width", "indent")),
    # datamodules.from_files: a worker's batch in shared memory without a copy.
    "UntypedStorage._new_shared": (torch.UntypedStorage._new_shared, ("size", "device")),
    # training.batch_hooks: entered 37 times a step, also by the profiler that measures nothing.
    "PassThroughProfiler.profile": (PassThroughProfiler.profile, ("self", "action_name")),
    # complexity.by_trace: arithmetic and shapes of fvcore's own handles.
    "fvcore conv_flop_count": (jit_handles.conv_flop_count, ("x_shape", "w_shape", "out_shape", "transposed")),
    "fvcore get_shape": (jit_handles.get_shape, ("val",)),
    # lightning_modules.metrics.sums: losses stay in float64 where a network is moved to half precision.
    "Metric._apply": (Metric._apply, ("self", "fn", "exclude_state")),
    # complexity.by_dispatch: each operator as it reaches a device.
    "TorchDispatchMode": (TorchDispatchMode.__torch_dispatch__, ("self", "func", "types", "args", "kwargs")),
}


@pytest.mark.parametrize("use", USES)
def test_a_function_takes_what_it_is_given(use: str) -> None:
    function, parameters = USES[use]
    assert tuple(inspect.signature(function).parameters) == parameters  # type: ignore[arg-type]


def test_what_is_asked_of_the_compiler_where_nothing_is_compiled() -> None:
    """training.deferred_imports. Imported here: at collection it would take each process of tests a second."""
    from torch._dynamo import decorators

    assert tuple(inspect.signature(decorators.disable).parameters) == ("fn", "recursive", "reason", "wrapping")
    assert tuple(inspect.signature(decorators.graph_break).parameters) == ("msg",)


def test_attributes_are_there() -> None:
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    assert isinstance(trainer._signal_connector, _SignalConnector)
    assert isinstance(trainer.fit_loop.epoch_loop, _TrainingEpochLoop)
    assert trainer.fit_loop._data_fetcher is None, "made by the fit"
    assert trainer.fit_loop._combined_loader is None, "until the loader is set up"
    assert MeanMetric()._update_count == 0
    assert issubclass(nn.BatchNorm2d, _BatchNorm)
    assert nn.Linear(1, 1)._compiled_call_impl is None
    # complexity.by_dispatch: whether an operator is within the forward of a torch.autograd.Function.
    assert torch._C._is_fwd_grad_enabled()
    # launch.process_group: the server ends with the last process that holds this pipe.
    assert hasattr(forkserver._forkserver, "_forkserver_alive_fd")  # type: ignore[attr-defined]
    assert callable(base.parse) and callable(basecontainer.get_yaml_loader)


def test_ray_finds_the_cluster_of_this_machine() -> None:
    """launch.ray_cluster: its own connecting takes over two minutes to fail."""
    services = pytest.importorskip("ray._private.services")
    assert next(iter(inspect.signature(services.canonicalize_bootstrap_address).parameters)) == "addr"


def test_a_picture_of_trackio_is_saved_as_its_importers_do() -> None:
    """tracking.to_trackio: ``trackio.log`` has no way to tell of a row that was not written."""
    image = pytest.importorskip("trackio").Image
    assert tuple(inspect.signature(image._save).parameters) == ("self", "project", "run", "step")
    assert tuple(inspect.signature(image._to_dict).parameters) == ("self",)


def test_a_workspace_has_a_name_by_which_it_is_found_again() -> None:
    """tracking.workspace: else each call would make one more."""
    workspaces = pytest.importorskip("wandb_workspaces.workspaces")
    workspace = workspaces.Workspace(entity="e", project="p")
    assert hasattr(workspace, "_internal_name") and hasattr(workspace, "_internal_id")
    assert tuple(inspect.signature(workspaces.internal.View.from_name).parameters) == ("entity", "project", "view_name")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def own_names(tree: ast.AST) -> Iterator[str]:
    """The names that the classes of a module define: of methods and fields, and of attributes that an object gives itself."""
    for node in (node for one in ast.walk(tree) if isinstance(one, ast.ClassDef) for node in one.body):
        if isinstance(node, ast.FunctionDef):
            yield node.name
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        yield from (target.id for target in targets if isinstance(target, ast.Name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr


def foreign_names(trees: list[ast.Module]) -> set[str]:
    """The private names of other libraries that modules use, and what they import of private modules."""
    own = Counter(name for tree in trees for name in own_names(tree))
    used = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            of_super = ast.unparse(node.value).startswith("super(")  # then one definition is the caller's
            if own[node.attr] <= of_super:
                used.add(node.attr)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [alias.name for alias in node.names]
            path = (getattr(node, "module", None) or "").split(".")
            private = [name for name in (*path, *".".join(names).split(".")) if is_private(name)]
            used |= {*private, *(names if any(map(is_private, path)) else ())}
    return used - PROMISED


def test_each_private_use_is_named_here() -> None:
    code = "import a._b.c\nfrom d._e import f\nfrom g import _h\nclass K(L):\n"
    code += "    def _m(self):\n        super()._m(self._n)\n        x._o = self._p = 1\n        self._p.__q__, y._replace()"
    assert foreign_names([ast.parse(code)]) == {"_b", "_e", "f", "_h", "_m", "_n", "_o"}
    here = set(re.findall(r"\w+", Path(__file__).read_text(encoding="utf-8")))
    assert foreign_names([ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES]) - here == set()


def test_lightning_leaves_out_a_hook_that_is_not_callable() -> None:
    """training.batch_hooks: the empty hooks of each callback would be called too, ten times a step."""

    class Hooks(pl.Callback):
        on_train_batch_start = None  # type: ignore[assignment]

        def __init__(self) -> None:
            self.calls = 0

        def on_train_batch_end(self, *arguments: object) -> None:  # type: ignore[override]
            self.calls += 1

    callback = Hooks()
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, callbacks=[callback]
    )
    call._call_callback_hooks(trainer, "on_train_batch_start", None, 0)
    call._call_callback_hooks(trainer, "on_train_batch_end", None, None, 0)
    assert callback.calls == 1


def test_a_mode_within_torchs_counter_sees_operators_first() -> None:
    """complexity.by_dispatch: what the counter adds while an operator runs is the operator's."""
    seen = {}

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            before = counter.get_total_flops()
            output = func(*args, **(kwargs or {}))
            seen[func.overloadpacket.__name__] = counter.get_total_flops() - before
            return output

    with FlopCounterMode(display=False) as counter, Mode():
        nn.Conv2d(1, 1, 1, bias=False).to("meta")(torch.empty(1, 1, 2, 2, device="meta")).relu()
    assert (seen["convolution"], seen["relu"]) == (2 * 4, 0)
