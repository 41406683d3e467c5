"""The package as a user installs it: a wheel in another environment, used from an empty folder."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from support.commands import CLEAN, ROOT

COMMANDS = [["run.py"], ["-m", "benchmarks"]]
OUTSIDE = {key: value for key, value in CLEAN.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}


@pytest.mark.parametrize("platform", ["win32", "cygwin", "emscripten"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_system_without_fcntl_is_refused_in_one_line(platform: str, command: list[str]) -> None:
    start = f"runpy.run_path({command[0]!r}, run_name='__main__')"
    if command[0] == "-m":
        start = f"runpy.run_module({command[1]!r}, run_name='__main__')"
    # What these import first is imported before the name changes, as it is on that system; fcntl is not.
    code = f"import runpy, sys, rich.console; sys.platform = {platform!r}; sys.modules['fcntl'] = None; {start}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=CLEAN, check=False
    )
    assert done.returncode == 2
    assert done.stderr == f"compute-accuracy runs on Linux and macOS, not on {platform}: it needs fcntl\n"


def test_every_package_is_listed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {
        path.parent for top in ("benchmarks", "datamodules", "lightning_modules") for path in (ROOT / top).rglob("*.py")
    }
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert names | set(settings["package-dir"]) == set(settings["packages"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the files that git knows, or would: nothing that lies in the checkout beside them."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*build, "--wheel-dir", str(out), str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of a fresh environment with the wheel, which finds other packages where these tests have them."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    [packages] = folder.glob("lib/python*/site-packages")
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(folder / "bin" / "python"),
        "install",
        "--quiet",
        "--no-deps",
    ]
    # With the checkout on PYTHONPATH, where a launcher of an earlier test has put it, pip finds the package installed.
    done = subprocess.run(
        [*install, "--no-index", str(wheel)], capture_output=True, text=True, check=False, env=OUTSIDE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # A path alone, so that the .pth file of an editable installation there is not read.
    (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin"


def call(environment: Path, command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program, *arguments = command.split()
    return subprocess.run(
        [str(environment / program), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=OUTSIDE,
    )


@pytest.mark.slow
def test_the_wheel_holds_what_the_checkout_holds(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside in (("conf", "benchmarks/conf"), ("benchmarks", "benchmarks"), ("datamodules", "datamodules")):
        files = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        missing = {f"{inside}/{path.relative_to(ROOT / folder)}" for path in files} - names
        assert not missing
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {
        "benchmarks",
        "datamodules",
        "lightning_modules",
        "run.py",
    }


@pytest.mark.slow
def test_the_installed_commands_work_in_an_empty_folder(environment: Path, tmp_path: Path) -> None:
    done = call(environment, "compute-accuracy model=resnet data=digits recipe.epochs=1 logger=none", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    [record] = tmp_path.glob("outputs/digits/*/*,epochs=1/seed0/record.json")
    assert (tmp_path / "outputs" / "report.html").is_file()
    text = record.read_text()
    assert re.search(r'"commit": null', text) and re.search(r'"training_sha256": "[0-9a-f]{64}"', text)

    report = call(environment, "python -m benchmarks report", tmp_path)
    assert report.returncode == 0 and "resnet" in report.stdout, report.stderr
    published = call(environment, "python -m benchmarks report resnext_table3", tmp_path)
    assert published.returncode == 0 and "ImageNet" in published.stdout, published.stderr
    cost = call(environment, "python -m benchmarks complexity model=resnext data=digits", tmp_path)
    assert cost.returncode == 0 and "MACs" in cost.stdout, cost.stderr
    unknown = call(environment, "compute-accuracy model=nothing", tmp_path)
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("run.py: no model named 'nothing'; there are ") and "resnext" in unknown.stderr
    trained = call(environment, "python -m benchmarks report reproduce resnext_table3 no_such_key=1", tmp_path)
    assert "run.py: no key 'no_such_key'" in trained.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}


@pytest.mark.slow
def test_the_code_has_the_same_hash_when_installed(environment: Path, tmp_path: Path) -> None:
    from benchmarks.records.code_version import training_sha256

    code = "import benchmarks.records.code_version as c; print(c.__file__, c.training_sha256())"
    (tmp_path / "show.py").write_text(code)
    done = call(environment, "python show.py", tmp_path)
    file, digest = done.stdout.split()
    assert str(environment.parent) in file
    assert digest == training_sha256()
    assert os.fspath(ROOT) not in file


def test_the_hooks_before_a_commit_are_the_linters_of_make_lint() -> None:
    [local] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [" ".join([hook["entry"], *hook.get("args", ())]) for hook in local["hooks"]]
    recipe = re.search(r"^lint:.*\n\t(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe and hooks == recipe[1].replace("$(BIN)", ".venv/bin").split(" && ")


def test_releases_that_run_what_a_file_names_are_out_of_range() -> None:
    """hydra-core 1.3.2 instantiates ``os.system``; Lightning below 2.6.6 runs a checkpoint's hyper-parameters."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    ranges = {one.name: one.specifier for one in map(Requirement, dependencies)}
    for name, releases in {"hydra-core": ["1.3.2"], "pytorch-lightning": ["2.6.2", "2.6.3", "2.6.5"]}.items():
        assert list(ranges[name].filter(releases)) == []
        assert pins("constraints.txt")[name] in ranges[name]


def pins(name: str) -> dict[str, str]:
    """The version of each package in a file of requirements."""
    lines = re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / name).read_text(), re.MULTILINE)
    return {re.sub("[-_.]+", "-", package).lower(): version for package, version in lines}


def test_the_hashes_are_of_the_versions_that_make_demo_and_make_test_install() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    exact, hashed = pins("constraints.txt"), pins("constraints-hashes.txt")
    assert {name: version for name, version in hashed.items() if exact.get(name, version) != version} == {}
    wanted = [*settings["dependencies"], *settings["optional-dependencies"]["test"]]
    names = {re.sub("[-_.]+", "-", re.split("[<>=~!;]", requirement)[0].strip()).lower() for requirement in wanted}
    assert names <= hashed.keys()
    blocks = re.split(r"^(?=\S)", (ROOT / "constraints-hashes.txt").read_text(), flags=re.MULTILINE)[1:]
    assert len(blocks) == len(hashed)
    for block in blocks:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block
