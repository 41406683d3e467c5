"""What README and docs/ tell to type: commands are parsed and composed, those that need nothing are run, the site is built."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from benchmarks.__main__ import find, parser_of
from benchmarks.config.compose import expand
from benchmarks.config.folders import choices
from benchmarks.config.trial import Impossible

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(?:<!-- (needs|example): (.+?) -->\n)?^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OTHERS = ("python tests/support/kill_trials.py", ". .venv/bin/activate", "wandb login", "pre-commit install", ".ci/run")
OWN = ("DIR", "mynet", "mydata")  # in overrides: what the reader has


@dataclass(frozen=True)
class Block:
    """A block of a page; ``needs`` says what running it takes, empty for what runs anywhere in a minute."""

    page: str
    line: int
    language: str
    text: str
    needs: str
    example: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command, without comments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            kind, word, language, content = match.groups()
            line = text[: match.start(4)].count("\n") + 1
            found.append(
                Block(
                    page.relative_to(ROOT).as_posix(),
                    line,
                    language,
                    content,
                    word if kind == "needs" else "",
                    word if kind == "example" else "",
                )
            )
    return found


SHELL = [block for block in blocks() if block.language == "sh"]
NAMES = dict.fromkeys(block.example for block in blocks() if block.example)  # blocks of one name go on from one another
EXAMPLES = {name: "\n".join(block.text for block in blocks() if block.example == name) for name in NAMES} | {
    path.stem: "\n".join(
        "".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"
    )
    for path in (ROOT / "docs").rglob("*.ipynb")
}
RUNNABLE = [block for block in SHELL if not block.needs and block.page.startswith("docs/")]


@cache  # pages repeat one another's commands
def composes(overrides: tuple[str, ...], multirun: bool) -> None:
    """Assert that every trial composes, of the first seed; of the rows of experiments tests/config/ does it."""
    keys = [override.partition("=")[0] for override in overrides]
    if "experiment" in keys and "row" not in keys:
        [experiment] = [override for override in overrides if override.startswith("experiment=")]
        assert experiment.partition("=")[2] in choices("experiment")
        return
    trials = expand([re.sub("^seed=([0-9]+,.*|auto)", "seed=0", override) for override in overrides], multirun)
    assert not [trial.error for trial in trials if isinstance(trial, Impossible)]


def test_blocks_are_found_on_many_pages() -> None:
    assert len({block.page for block in SHELL}) > 8 and RUNNABLE
    fences = sum(len(re.findall(r"^```sh", page.read_text(encoding="utf-8"), re.MULTILINE)) for page in PAGES)
    assert fences == len(SHELL)


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_every_command_is_one_that_there_is(block: Block) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for words in block.commands:
        match [word for word in words if not word.startswith("#")]:
            case ["make", *rest]:
                assert set(rest) <= set(targets)
            case ["pip", "install", *rest]:
                assert set(re.findall(r"\[(\w+)\]", " ".join(rest))) <= set(extras)
            case ["python", "run.py", *rest] | ["compute-accuracy", *rest]:
                overrides = [word for word in rest if "=" in word and not any(own in word for own in OWN)]
                # tests/end_to_end/ trains on a folder of photographs.
                if not any(word.startswith(("model=mynet", "data=image_folder")) for word in rest):
                    composes(tuple(overrides), "-m" in rest)
            case ["python" | ".venv/bin/python", "-m", "benchmarks", *rest]:
                command, name, after = find(rest)
                assert command.module, f"{name} is no command"
                arguments = parser_of(command, name).parse_intermixed_args(after)
                overrides = getattr(arguments, "overrides", None) or []
                if not any(own in word for own in OWN for word in overrides):
                    composes(tuple(word for word in overrides if "=" in word), True)
            case _:
                assert " ".join(words).startswith(OTHERS), f"{block}: {shlex.join(words)}"


def test_pages_are_made_from_code_and_records(tmp_path: Path) -> None:
    spec = spec_from_file_location("generated", ROOT / "docs" / "generated.py")
    assert spec and spec.loader
    generated = module_from_spec(spec)
    spec.loader.exec_module(generated)
    file = tmp_path / "some.yaml"
    file.write_text(
        "a:         # of a group\n  b: 1     # one\n           # and more\n  c: {d: x, e: null}  # both\nf: [1, 2]\n"
    )
    assert list(generated.keys_of(file)) == [
        ("a.b", "1", "one and more"),
        ("a.c.d", "x", "both"),
        ("a.c.e", "null", "both"),
        ("f", "[1, 2]", ""),
    ]
    configuration = generated.configuration()
    assert "| `launch.workers` | `1` | trials at a time on this machine |" in configuration
    for path in (ROOT / "conf").glob("*/*.yaml"):
        assert f"| `{path.parent.name}={path.stem}` | " in configuration
    commands = generated.commands()
    assert "usage: python -m benchmarks view layers" in commands and "`weights import`" in commands
    assert "\npython -m benchmarks report verify: derive anew" in commands  # a line of its own, as printed
    assert "| `weights_sha256` | text or null |" in generated.record_fields()
    # the mean of 3.11, 1.33 and 0.89, three seeds in docs/results/
    assert re.search(
        r"\| resnet20 \| 1\.78\s\[[^|]+\] \| 2\.52 M \| 214 G \| 3 \| resnet_digits \|  \|", generated.results()
    )
    # A page that repeats figures of the results has them as they are there.
    page = (ROOT / "docs" / "how_to" / "equal_cost.md").read_text(encoding="utf-8")
    table = page.partition("| Fashion-MNIST,")[2].partition("\n\n")[0]
    cells = re.findall(r"[\d.]+ \[[\d.]+, [\d.]+\]", table)
    shown = generated.results().replace("\N{NO-BREAK SPACE}", " ")
    assert len(cells) == 6 and not [cell for cell in cells if f"| {cell} |" not in shown]


def test_the_evidence_counts_its_trials() -> None:
    page = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
    trials = {
        name: len(list((ROOT / "docs" / "evidence" / name).rglob("record.json")))
        for name in ("learning_rates", "learning_rates_bf16", "learning_rates_fashion_mnist")
    }
    assert f"learning_rates_bf16: the {trials['learning_rates_bf16']} trials in bf16-mixed" in page
    rows = [
        json.loads(path.read_text())["row"]
        for name in ("learning_rates", "learning_rates_bf16")
        for path in (ROOT / "docs" / "evidence" / name).rglob("record.json")
    ]
    of_cardinality = sum(row.startswith("cardinality") for row in rows)
    of_table = len(rows) - of_cardinality - 1
    said = (
        f"hold {len(rows)} trials, 7,693 TFLOPs of training: {of_table} of the table's networks, {of_cardinality} of the "
        "[cardinalities](#cardinality), and one of DenseNet"
    )
    assert said in " ".join(page.split())
    assert f"in the same way: {trials['learning_rates_fashion_mnist']} trials of" in page


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to type commands in, with a sweep of digits in its ``outputs``."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("run.py", "conf", "benchmarks", "datamodules", "lightning_modules"):
        (folder / name).symlink_to(ROOT / name)
    type_in(folder, "python run.py -m model=resnet,resnext seed=0,1 recipe.epochs=1 logger=none\n")
    return folder


def type_in(folder: Path, text: str) -> None:
    """Run a block as a shell would in a checkout whose environment is active."""
    # Runs of one thread: two of them, and another process of tests, would mostly wait for one another.
    one_thread = 'if [[ ${1:-} == run.py && " $* " != *" --"* ]]; then set -- "$@" cluster.threads_per_process=1; fi'
    call = f'python() {{ {one_thread}; {shlex.quote(sys.executable)} "$@"; }}'
    script = f"{call}\nset -euo pipefail\n{text}"
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("block", RUNNABLE, ids=str)
def test_a_block_that_needs_nothing_runs(block: Block, checkout: Path) -> None:
    type_in(checkout, block.text)


@pytest.mark.timm
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name: str, checkout: Path) -> None:
    # The sweep of this checkout, and what the documents' own blocks have trained in it before.
    records = len(list((checkout / "outputs").rglob("record.json")))
    assert records >= 4
    rows = f"\nassert len(frame) == len(done) == len(runs) == {records}\n" if "frame =" in EXAMPLES[name] else ""
    (checkout / "example.py").write_text(EXAMPLES[name] + rows)
    type_in(checkout, "MPLBACKEND=agg python example.py\n")


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    if find_spec("mkdocs") is None:
        pytest.skip("needs mkdocs: pip install -e '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for page in tmp_path.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|iframe)[^>]* src=[\"']?(?:https?:)?//|<link[^>]*https?://", page.read_text()
        )
        assert not loaded, page


def test_every_picture_is_of_a_command_or_a_script_that_contributing_names() -> None:
    spec = spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    assert spec and spec.loader
    pictures = module_from_spec(spec)
    spec.loader.exec_module(pictures)
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    scripts = "".join((ROOT / path).read_text(encoding="utf-8") for path in re.findall(r"docs/\w+\.py", contributing))
    made = {
        page.parent / name for page in PAGES for _, name in pictures.PICTURE.findall(page.read_text(encoding="utf-8"))
    }
    others = {path.name for path in (ROOT / "docs").rglob("*.png") if path not in made}
    assert len(made) > 8 and not [name for name in others if name not in scripts + contributing]
