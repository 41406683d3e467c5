"""Public functions say what they raise, read from the syntax trees."""

import ast
import builtins
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [
    path.relative_to(ROOT)
    for package in ("lightning_modules", "datamodules", "benchmarks")
    for path in sorted((ROOT / package).rglob("*.py"))
]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def last_name(node: ast.AST | None) -> str:
    """Return ``b`` of ``a.b``, also where it is called; empty of anything else."""
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


@cache
def bases() -> dict[str, list[str]]:
    """The classes that each class is a kind of."""
    return {
        node.name: [name for base in node.bases if (name := last_name(base))]
        for path in FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef)
    }


def also(error: str) -> Iterator[str]:
    """The names that an exception goes by: its own and those of what it is a kind of."""
    yield error
    of_python = getattr(builtins, error, None)
    for base in [one.__name__ for one in of_python.__bases__] if of_python else bases().get(error, []):
        if base not in ("Exception", "BaseException", "object"):
            yield from also(base)


def raised(node: ast.AST) -> Iterator[str]:
    """The exceptions that a function raises by their names: not in functions within it, nor what its own ``except`` catches."""
    if isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
        return
    if isinstance(node, ast.Raise) and (name := last_name(node.exc)) and name[0].isupper():
        yield name
    caught = {last_name(handler.type) for handler in node.handlers} if isinstance(node, ast.Try) else set()
    for child in ast.iter_child_nodes(node):
        within_try = isinstance(node, ast.Try) and child in node.body
        yield from (name for name in raised(child) if not (within_try and caught & {*also(name)}))


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef, str]]:
    """Name, node and docstring of each public function and method; a method's docstring has its class's with it."""
    for node in tree.body:
        of_class = isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        for function in node.body if isinstance(node, ast.ClassDef) and of_class else [node]:
            public = isinstance(function, ast.FunctionDef) and (function.name[:1] != "_" or function.name[:2] == "__")
            if isinstance(function, ast.FunctionDef) and public:
                owner = node if isinstance(node, ast.ClassDef) else None
                name = f"{owner.name}.{function.name}" if owner else function.name
                docs = [ast.get_docstring(one) or "" for one in (function, owner) if one]
                yield name, function, "\n".join(docs)


def unsaid(tree: ast.Module) -> list[str]:
    """What public functions raise and do not say."""
    return [
        f"{name}: {error}"
        for name, function, docs in functions(tree)
        for error in dict.fromkeys(error for statement in function.body for error in raised(statement))
        if error != "NotImplementedError"  # of methods that subclasses state
        and not any(other in docs for other in also(error))
    ]


def test_the_reading_of_what_is_raised() -> None:
    tree = ast.parse(
        "def f():\n    raise ValueError('a')\n"
        "def _g():\n    raise ValueError\n"
        "def h():\n    '''Raises OSError.'''\n    raise FileNotFoundError(2)\n"
        "def i():\n    try:\n        raise KeyError\n    except LookupError:\n        raise a.Missing from None\n"
        "class C:\n    '''Raises: TypeError.'''\n    def __init__(self):\n        raise TypeError\n"
        "    def j(self):\n        def k():\n            raise ValueError\n        raise error\n"
        "    def l(self):\n        raise ZeroDivisionError\n    def m(self):\n        raise NotImplementedError\n"
    )
    assert unsaid(tree) == ["f: ValueError", "i: Missing", "C.l: ZeroDivisionError"]
    assert list(also("ConfigurationError")) == ["ConfigurationError", "ValueError"]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_public_functions_say_what_they_raise(path: Path) -> None:
    assert unsaid(tree_of(path)) == []
