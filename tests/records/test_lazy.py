"""Modules that are imported late."""

import subprocess
import sys

from support.commands import ROOT

CODE = """
import sys
import benchmarks.training
assert not {"scipy", "torch"} & set(sys.modules)
import pytorch_lightning, torchmetrics
assert "scipy.signal" in sys.modules and "scipy.signal._signaltools" not in sys.modules, "loaded with Lightning"
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
"""


def test_importing_lightning_does_not_load_scipys_signal_processing_and_using_it_does() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
