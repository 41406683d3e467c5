"""``--config-dir``: a folder of one's own beside conf/."""

import subprocess
import sys
from pathlib import Path

import pytest

import run
from benchmarks.config.folders import GROUPS, add_config_dir, choices, read_option
from benchmarks.config.trial import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]


def test_the_help_lists_every_group() -> None:
    assert sorted(run.GROUPS) == list(GROUPS)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("", "no such folder"),
        ("net.py", "no configuration in it, as model/NAME.yaml or data/NAME.yaml"),
        ("model/resnet.yaml", "conf/model/resnet.yaml is there already; give model/resnet.yaml another name"),
        ("random.py", "random.py would hide Python's own"),
        ("yaml.py", "yaml.py would hide the installed yaml; give it another name"),
    ],
)
def test_a_folder_that_would_not_be_read_is_refused_in_one_line(file: str, line: str, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    if file:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    if file in ("random.py", "yaml.py"):
        (folder / "model").mkdir()
        (folder / "model" / "x.yaml").touch()
    with pytest.raises(ConfigurationError) as error:
        add_config_dir(str(folder))
    assert str(error.value).startswith(f"--config-dir {folder}: ") and line in str(error.value)


def test_help_imports_no_hydra() -> None:
    code = "import sys, run\ntry: run.main(['--help'])\nexcept SystemExit: print({'hydra', 'torch', 'jinja2'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("option", choices("data"))
def test_an_option_is_read_with_the_files_that_it_begins_with(option: str) -> None:
    """As Hydra composes it: `dic_hela` begins with `phc_u373`, and an own network was not set up for it."""
    content = read_option("data", option)
    assert content["task"] in ("classification", "segmentation", "detection") and content["name"]
    assert {"in_channels", "num_classes"} <= content.keys()
