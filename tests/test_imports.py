"""Who may import whom, read from the syntax trees."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("lightning_modules", "datamodules", "benchmarks")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
NETS = sorted((ROOT / "lightning_modules" / "nets").glob("*.py"))
# Each package of benchmarks/ and those that it may import; `units` and `terminal` are free to all.
PACKAGES_BELOW = {
    "config": set(),
    "records": set(),
    "complexity": {"config", "records"},
    "analysis": {"complexity", "config", "records"},
    "training": {"complexity", "config", "records"},
    "launch": {"training", "config", "records"},
    "report": {"analysis", "complexity", "config", "records"},
    "tracking": {"report", "analysis", "config", "records"},
    "performance": {"launch", "training", "report", "complexity", "config", "records"},
}
LEAVES = {"units", "terminal"}
SEES_ALL = "__main__"
# Of datamodules/ likewise; the data modules themselves, at its root, may import all but `sources`, which conf/ names.
DATA_PACKAGES_BELOW = {
    "readers": set(),
    "loading": {"readers"},
    "sources": {"readers"},
    "augmentation": {"readers", "loading"},
    "": {"readers", "loading", "augmentation"},
}
# What reads records must start in under a second.
WITHOUT_TORCH = ("config", "records", "analysis", "report", "tracking")
IMPORT_TORCH = {"torch", "torchmetrics", "torchvision", "lightning", "pytorch_lightning", "fvcore"}


def imports(tree: ast.AST, at_start: bool = False) -> Iterator[str]:
    """Dotted names that a tree imports; `from a import b` gives a and a.b, since b may be a module.

    at_start leaves out what importing the module does not run: functions and what only a type checker sees.
    """
    if isinstance(tree, ast.Import):
        yield from (alias.name for alias in tree.names)
    elif isinstance(tree, ast.ImportFrom):
        if tree.level or tree.module is None:
            raise AssertionError(f"line {tree.lineno}: write the import in full, a relative one hides who imports whom")
        yield tree.module
        yield from (f"{tree.module}.{alias.name}" for alias in tree.names)
    elif at_start and isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return
    elif at_start and isinstance(tree, ast.If) and ast.unparse(tree.test).endswith("TYPE_CHECKING"):
        for statement in tree.orelse:
            yield from imports(statement, at_start)
    else:
        for node in ast.iter_child_nodes(tree):
            yield from imports(node, at_start)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def top(name: str) -> str:
    return name.partition(".")[0]


@cache
def imported(path: Path, at_start: bool = False) -> tuple[str, ...]:
    return tuple(imports(parse(path), at_start))


def starts(path: Path, seen: set[Path]) -> set[str]:
    """Packages outside the house that importing a file imports, by itself and through its siblings."""
    seen.add(path)
    outside = set()
    for name in imported(path, at_start=True):
        module = ROOT.joinpath(*name.split("."))
        files = [parent / "__init__.py" for parent in (module, *module.parents)] + [module.with_suffix(".py")]
        inside = [file for file in files if file.exists() and ROOT in file.parents]
        if top(name) not in PACKAGES:
            outside.add(top(name))
        for file in inside:
            if file not in seen:
                outside |= starts(file, seen)
    return outside


def test_the_reading_of_imports():
    tree = ast.parse(
        "import a.b\nfrom c import d\nif TYPE_CHECKING:\n    import e\nelse:\n    import f\n"
        "try:\n    import g\nexcept ImportError:\n    import h\ndef function():\n    import i\nclass C:\n    import j\n"
    )
    assert set(imports(tree)) == {"a.b", "c", "c.d", *"efghij"}
    assert set(imports(tree, at_start=True)) == {"a.b", "c", "c.d", *"fghj"}
    with pytest.raises(AssertionError, match="in full"):
        list(imports(ast.parse("from . import x")))
    # The counter needs torch and fvcore, so reading it must say so.
    assert {"torch", "fvcore"} <= starts(ROOT / "benchmarks" / "complexity" / "counting.py", set())


@pytest.mark.parametrize("path", NETS, ids=lambda path: path.stem)
def test_nets_import_torch_only(path):
    allowed = {"torch", *sys.stdlib_module_names}
    foreign = {name for name in imported(path) if top(name) not in allowed}
    assert all(name.startswith("lightning_modules.nets.") for name in foreign), foreign


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_siblings_do_not_know_each_other(path):
    own = path.relative_to(ROOT).parts[0]
    others = {*PACKAGES, "run"} - {own}
    assert not {name for name in imported(path) if top(name) in others}
    assert "torchvision" not in {top(name) for name in imported(path)}


def modules(package: str) -> dict[str, Path]:
    """Dotted names below a package of the house, and their files."""
    paths = sorted((ROOT / package).rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imported_modules(package: str) -> dict[str, set[str]]:
    """The modules of the package that each of its modules imports, inside functions too."""
    known = modules(package)
    return {
        name: {name for name in imported(path) if name in known and known[name].name != "__init__.py"}
        for name, path in known.items()
    }


def room(name: str) -> str:
    """The package of a module within the house: the second part of its name, empty of a module at the root."""
    parts = name.split(".")
    return parts[1] if len(parts) > 2 or parts[-1] in {*PACKAGES_BELOW, *DATA_PACKAGES_BELOW} else ""


@pytest.mark.parametrize(("house", "below"), [("benchmarks", PACKAGES_BELOW), ("datamodules", DATA_PACKAGES_BELOW)])
def test_packages_import_downwards_only(house, below):
    wrong = [
        f"{name} imports {other}"
        for name, others in imported_modules(house).items()
        for other in others
        if room(name) != room(other) and name != f"{house}.{SEES_ALL}"
        if not (house == "benchmarks" and not room(other) and other.split(".")[1] in LEAVES)
        if room(other) not in below.get(room(name), set())
    ]
    assert wrong == []
    assert {room(name) for name in modules(house)} - {""} == set(below) - {""}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_itself_through_others(package):
    left = imported_modules(package)
    while free := {name for name, others in left.items() if not others}:
        left = {name: others - free for name, others in left.items() if name not in free}
    assert left == {}


def test_the_root_of_benchmarks_holds_nothing_else():
    root = {path.name for path in (ROOT / "benchmarks").iterdir() if path.name != "__pycache__"}
    assert root == {*PACKAGES_BELOW, "tables", "__init__.py", "__main__.py", "units.py", "terminal.py"}
    for package in PACKAGES_BELOW:
        assert ast.get_docstring(parse(ROOT / "benchmarks" / package / "__init__.py"))


@pytest.mark.parametrize(
    "path",
    [path for package in WITHOUT_TORCH for path in sorted((ROOT / "benchmarks" / package).glob("*.py"))],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_readers_of_records_import_no_torch(path):
    assert not starts(path, set()) & IMPORT_TORCH
    assert not starts(path.parent / "__init__.py", set()) & IMPORT_TORCH


def test_no_file_of_the_product_is_above_400_lines():
    for path in (*SOURCES, ROOT / "run.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


def test_no_test_imports_from_another_test():
    for path in sorted((ROOT / "tests").rglob("*.py")):
        assert not {name for name in imported(path) if "test_" in name.partition(".")[0]}, path
