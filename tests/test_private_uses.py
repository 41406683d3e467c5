"""What the product uses of other libraries that they do not promise to keep: each use, why, and that it is there."""

import inspect
import multiprocessing.forkserver as forkserver

import pytest
import pytorch_lightning as pl
import torch
from fvcore.nn import jit_handles
from omegaconf import _utils, base, basecontainer, grammar_parser
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.trainer import call
from pytorch_lightning.trainer.connectors.signal_connector import _SignalConnector
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from torchmetrics.aggregation import MeanMetric

USES: dict[str, tuple[object, tuple[str, ...]]] = {
    # training.stopping: its own SIGTERM handler starts a collective, and its question at each step waits for the GPU.
    "Trainer._signal_connector": (_SignalConnector.register_signal_handlers, ("self",)),
    "_TrainingEpochLoop._broadcast_sigterm_tensor": (_TrainingEpochLoop._broadcast_sigterm_tensor, ("self",)),
    # training.checkpoints: when a batch's gradients are complete, and whether an evaluation follows.
    "_TrainingEpochLoop._should_accumulate": (_TrainingEpochLoop._should_accumulate, ("self",)),
    "_TrainingEpochLoop._should_check_val_fx": (_TrainingEpochLoop._should_check_val_fx, ("self", "data_fetcher")),
    # config.fast_composition: YAML by libyaml, interpolations parsed once.
    "omegaconf get_yaml_loader": (_utils.get_yaml_loader, ()),
    "omegaconf parse": (grammar_parser.parse, ("value", "parser_rule", "lexer_mode")),
    # training.batch_hooks: entered 37 times a step, also by the profiler that measures nothing.
    "PassThroughProfiler.profile": (PassThroughProfiler.profile, ("self", "action_name")),
    # training.deferred_imports: what is asked of the compiler where nothing is compiled.
    "torch._dynamo disable": (torch._dynamo.disable, ("fn", "recursive", "reason", "wrapping")),
    "torch._dynamo graph_break": (torch._dynamo.graph_break, ("msg",)),
    # complexity.by_trace: arithmetic and shapes of fvcore's own handles.
    "fvcore conv_flop_count": (jit_handles.conv_flop_count, ("x_shape", "w_shape", "out_shape", "transposed")),
    "fvcore get_shape": (jit_handles.get_shape, ("val",)),
    # complexity.by_dispatch: each operator as it reaches a device.
    "TorchDispatchMode": (TorchDispatchMode.__torch_dispatch__, ("self", "func", "types", "args", "kwargs")),
}


@pytest.mark.parametrize("use", USES)
def test_a_function_takes_what_it_is_given(use: str) -> None:
    function, parameters = USES[use]
    assert tuple(inspect.signature(function).parameters) == parameters  # type: ignore[arg-type]


def test_attributes_are_there() -> None:
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    assert isinstance(trainer._signal_connector, _SignalConnector)
    assert isinstance(trainer.fit_loop.epoch_loop, _TrainingEpochLoop)
    assert trainer.fit_loop._data_fetcher is None, "made by the fit"
    assert trainer.fit_loop._combined_loader is None, "until the loader is set up"
    assert MeanMetric()._update_count == 0
    assert issubclass(nn.BatchNorm2d, _BatchNorm)
    assert nn.Linear(1, 1)._compiled_call_impl is None
    assert hasattr(forkserver, "_forkserver")
    assert callable(base.parse) and callable(basecontainer.get_yaml_loader)


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
