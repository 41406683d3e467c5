"""Who may import whom, read from the syntax trees."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("lightning_modules", "datamodules", "benchmarks")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
NETS = sorted((ROOT / "lightning_modules" / "nets").glob("*.py"))
# What reads records must start in under a second.
READERS = (
    *(
        "results",
        "published",
        "differences",
        "table_report",
        "certify",
        "report",
        "measured",
        "measuring",
        "throughput",
        "tune",
        "tuning",
        "page",
        "chart_data",
        "passport",
        "pareto",
        "statistics",
        "crossover",
        "status",
        "export",
        "show",
    ),
    *("launch", "sweep", "plan"),
)
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


def starts(path: Path, seen: set[Path]) -> set[str]:
    """Packages outside the house that importing a file imports, by itself and through its siblings."""
    seen.add(path)
    outside = set()
    for name in imports(parse(path), at_start=True):
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
    assert {"torch", "fvcore"} <= starts(ROOT / "benchmarks" / "complexity.py", set())


@pytest.mark.parametrize("path", NETS, ids=lambda path: path.stem)
def test_nets_import_torch_only(path):
    allowed = {"torch", *sys.stdlib_module_names}
    foreign = {name for name in imports(parse(path)) if top(name) not in allowed}
    assert all(name.startswith("lightning_modules.nets.") for name in foreign), foreign


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_siblings_do_not_know_each_other(path):
    own = path.relative_to(ROOT).parts[0]
    others = {*PACKAGES, "run"} - {own}
    assert not {name for name in imports(parse(path)) if top(name) in others}
    assert "torchvision" not in {top(name) for name in imports(parse(path))}


@pytest.mark.parametrize("name", READERS)
def test_readers_of_records_import_no_torch(name):
    path = ROOT / "benchmarks" / f"{name}.py"
    assert not starts(path, set()) & IMPORT_TORCH
    assert not starts(path.parent / "__init__.py", set()) & IMPORT_TORCH
