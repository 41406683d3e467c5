"""Which files of the user's own count as the code that made a run."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.records import code_version
from benchmarks.records.code_version import made_by_other_code, remember, training_sha256, user_code


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network of two files and a package, and a file that nothing imports."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (tmp_path / "wide_net.py").write_text(
        "import torch\nfrom own_parts.blocks import block\nclass WideNet:\n    pass\n"
    )
    (tmp_path / "own_parts").mkdir()
    (tmp_path / "own_parts" / "__init__.py").write_text("")
    (tmp_path / "own_parts" / "blocks.py").write_text("def block():\n    import own_layers\n")
    (tmp_path / "own_layers.py").write_text("WIDTH = 8\n")
    (tmp_path / "nothing_of_it.py").write_text("")
    return tmp_path


def config(network: str) -> dict[str, Any]:
    classifier = "lightning_modules.classifier.Classifier"
    return {"module": {"_target_": classifier, "net": {"_target_": network}}, "datamodule": {"source": {"a": [1]}}}


def record(folder: Path) -> dict[str, Any]:
    return {"code": {"training_sha256": training_sha256(), "user_code": user_code(config("wide_net.WideNet"))}}


def test_a_network_and_what_it_imports_from_beside_it_are_hashed(folder: Path) -> None:
    hashes = user_code(config("wide_net.WideNet"))
    assert list(hashes) == ["own_layers.py", "own_parts/__init__.py", "own_parts/blocks.py", "wide_net.py"]
    for name, digest in hashes.items():
        assert digest == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert list(user_code(config("own_parts.blocks.Outer.Inner"))) == list(hashes)[:3]


@pytest.mark.parametrize(
    "network", ["lightning_modules.nets.ResNet", "torch.nn.Linear", "json.tool.main", "no_such.Net"]
)
def test_ours_and_what_is_installed_has_no_code_of_the_users_own(network: str) -> None:
    assert user_code(config(network)) == {}


@pytest.mark.parametrize("name", ["wide_net.py", "own_layers.py"])
def test_a_changed_or_missing_file_is_other_code(name: str, folder: Path) -> None:
    before = record(folder)
    assert not made_by_other_code(before)
    text = (folder / name).read_text()
    (folder / name).write_text(f"{text}\n# changed\n")
    assert made_by_other_code(before)
    (folder / name).write_text(text)
    assert not made_by_other_code(before)


def test_where_the_files_are_not_found_they_are_not_said_to_be_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = record(folder)
    (folder / "own_layers.py").unlink()
    assert not made_by_other_code(before)  # the module is nowhere
    (folder / "own_parts" / "blocks.py").unlink()
    assert made_by_other_code(before)  # its package is there
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(folder)])
    assert not made_by_other_code(before)
    assert made_by_other_code({"code": before["code"] | {"training_sha256": "0" * 64}})


def test_a_file_that_is_no_python_stops_nothing(folder: Path) -> None:
    before = record(folder)
    (folder / "wide_net.py").write_text("def")
    assert made_by_other_code(before)
    assert user_code(config("wide_net.WideNet")) == {}


def test_imported_code_keeps_its_hashes_whatever_becomes_of_its_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_version, "_remembered", {})
    before = user_code(config("wide_net.WideNet"))
    remember(["wide_net", "lightning_modules.classifier", "no_such"])
    (folder / "own_layers.py").write_text("WIDTH = 9\n")
    (folder / "wide_net.py").write_text("def")
    assert user_code(config("wide_net.WideNet")) == user_code(config("wide_net.WideNet.Inner")) == before
    assert user_code(config("own_layers.Layer")) == {"own_layers.py": hashlib.sha256(b"WIDTH = 9\n").hexdigest()}
