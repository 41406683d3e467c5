"""Makes this environment see the packages of another, and import torchvision beside a torch for the CPU alone.

``.venv/timm/bin/python tests/support/timm_environment.py .venv/bin/python``, of ``make test-timm``, copies this file into the
environment of the first and has every process of it import it.

The index has torchvision in its build for CUDA alone. Beside torch's build for the CPU its compiled library does not load, so
it defines no operators; still it registers shapes for two of them while it is imported, which fails: "operator
torchvision::nms does not exist". Here these two are declared, without a kernel: only detection calls them.
"""

import shutil
import subprocess
import sys
import sysconfig
from importlib.abc import MetaPathFinder
from pathlib import Path

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
libraries = []  # operators are declared as long as their library lives


class Declaring(MetaPathFinder):
    """Declares the operators just before torchvision registers their shapes. It finds no module itself."""

    def find_spec(self, fullname, path, target=None):
        if fullname == "torchvision._meta_registrations":
            from torch.library import Library
            from torchvision.extension import _has_ops

            if not _has_ops():
                libraries.append(Library("torchvision", "FRAGMENT"))
                for schema in SCHEMAS:
                    libraries[-1].define(schema)
        return None


def main(python: str) -> None:
    """Install this file here, beside the packages that the interpreter ``python`` has."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    here = Path(sysconfig.get_path("purelib"))
    shutil.copy(__file__, here)
    (here / "beside.pth").write_text(f"import site; site.addsitedir({packages!r})\nimport {Path(__file__).stem}\n")


if __name__ == "__main__":
    main(sys.argv[1])
else:
    sys.meta_path.insert(0, Declaring())
