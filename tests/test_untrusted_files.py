"""Files of others run nothing: how the sources read them, from the syntax trees."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    *(
        path
        for package in ("benchmarks", "datamodules", "lightning_modules")
        for path in (ROOT / package).rglob("*.py")
    ),
    ROOT / "run.py",
]
# Calls that run what a file says, with the argument that stops them; None: nothing does.
NEEDED = {
    "torch.load": ("weights_only", "True"),
    "fit": ("weights_only", "True"),
    "load_from_checkpoint": ("weights_only", "True"),
    "extractall": ("filter", "'data'"),
    "extract": ("filter", "'data'"),
    **dict.fromkeys(
        (
            *("pickle.load", "pickle.loads", "cloudpickle.load", "cloudpickle.loads", "dill.load", "joblib.load"),
            *("yaml.unsafe_load", "yaml.full_load", "torch.jit.load", "torch.hub.load", "eval", "exec"),
        )
    ),
}


def unsafe_calls(source: str) -> Iterator[str]:
    """Yield the calls of a source that would run what a file says, with their lines."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        arguments = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        method = name.rpartition(".")[2]
        needed = NEEDED.get(name, NEEDED.get(method, ()))
        if method in {"eval", "exec"} and "." in name or method == "fit" and "ckpt_path" not in arguments:
            continue  # a network's eval() sets its mode
        if needed is None or (needed and arguments.get(needed[0]) != needed[1]):
            yield f"{node.lineno}: {name}"
        if name == "yaml.load" and "SafeLoader" not in ast.unparse(node):
            yield f"{node.lineno}: {name}"
        if name.endswith("np.load") and arguments.get("allow_pickle", "False") != "False":
            yield f"{node.lineno}: {name}"


@pytest.mark.parametrize(
    "call",
    [
        *("torch.load(path)", "torch.load(path, weights_only=False)", "trainer.fit(module, ckpt_path=path)"),
        *("pickle.load(file)", "pickle.loads(data)", "yaml.load(text, yaml.Loader)", "yaml.load(text)", "eval(text)"),
        *("np.load(path, allow_pickle=True)", "archive.extractall(folder)", "torch.hub.load(repository, name)"),
    ],
)
def test_calls_that_run_what_a_file_says_are_found(call: str) -> None:
    assert list(unsafe_calls(call)) == [f"1: {call.partition('(')[0]}"]


@pytest.mark.parametrize(
    "call",
    [
        *(
            "torch.load(path, weights_only=True)",
            "trainer.fit(module, ckpt_path=path, weights_only=True)",
            "net.eval()",
        ),
        *("yaml.load(text, yaml.SafeLoader)", "np.load(path)", "archive.extractall(folder, filter='data')"),
    ],
)
def test_calls_that_run_nothing_are_free(call: str) -> None:
    assert not list(unsafe_calls(call))


def test_no_source_runs_what_a_file_says() -> None:
    unsafe = {str(path.relative_to(ROOT)): calls for path in SOURCES if (calls := list(unsafe_calls(path.read_text())))}
    assert unsafe == {}
