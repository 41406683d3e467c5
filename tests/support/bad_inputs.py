"""Inputs that are wrong, and what they end in: ``python tests/support/bad_inputs.py`` prints them all.

``--write`` makes the page ``docs/reference/refused.md``. All are tried in one process, and nothing trains: run.py has a budget
of one FLOP, and what only building the network shows is asked of ``plan``.
"""

import argparse
import contextlib
import io
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.data_files import photographs  # noqa: E402

import run  # noqa: E402
from benchmarks import __main__ as commands  # noqa: E402
from benchmarks.config.schema import BLOCK, KEYS  # noqa: E402
from benchmarks.units import one_line  # noqa: E402

BUDGET = "launch.budget.train_flops=1"
PAGE = ROOT / "docs" / "reference" / "refused.md"
PLAN = f"{commands.PROGRAM} plan --flops-per-s=1e12"
LONGEST = 140  # characters of a cell
INTRODUCTION = """\
# What is refused

{count} wrong inputs, each tried: {wrong} of them were taken or ended in a traceback. Nothing is started or written; the exit
code is 2, or 1 from `plan` for a network that cannot be built. Made by `python tests/support/bad_inputs.py --write`
on {date:%Y-%m-%d}; a slow test tries them again.
"""
NEVER = ("null", "abc", "true", "[1]", "{a:1}")
# Values that are wrong for keys, whatever the network and the data are.
WRONG: dict[tuple[str, ...], tuple[str, ...]] = {
    (
        *("launch.workers", "recipe.batch_size", "recipe.epochs", "trainer.devices", "trainer.num_nodes"),
        *("data.num_classes", "data.in_channels", "data.eval_batch_size"),
    ): (*NEVER, "-1", "0", "1.5", "1e3", "inf"),
    ("seed", "launch.retries"): (*NEVER, "-1", "1.5"),
    ("launch.checkpoint_every_steps", "trainer.accumulate_grad_batches", "cluster.threads_per_process"): (
        *NEVER[1:],
        *("-1", "0", "1.5"),
    ),
    (
        *("launch.time_limit_s", "launch.stall_s", "launch.budget.device_hours", "launch.budget.money"),
        *("trainer.max_train_flops", "trainer.max_train_seconds", "trainer.max_train_joules"),
    ): (*NEVER[1:], "-5", "0", "nan", "inf"),
    ("launch.collective_timeout_s", "logger.init_timeout", "logger.finish_timeout"): (*NEVER, "-5", "0", "nan", "inf"),
    ("launch.fail_fast", "cluster.oversubscribe", "trainer.sync_batchnorm", "logger.checkpoints"): (
        *("null", "maybe", "1"),
        *("1.5", "[true]", "{a:1}"),
    ),
    (
        *("trainer.compile", "trainer.cuda_graph", "trainer.channels_last", "trainer.tf32"),
        "trainer.gradient_checkpointing",
    ): ("maybe", "1", "[true]", "{a:1}"),
    (
        *("mode", "launch.rerun", "logger.mode", "trainer.accelerator", "trainer.precision", "data.task"),
        "trainer.on_out_of_memory",
    ): ("abc", "1", "true", "[a]", "{a:1}", "''"),
    ("name", "output_root", "recipe.name", "data.name"): ("null", "5", "true", "[a]", "{a:1}", "''", "' '"),
    ("model", "data", "recipe", "trainer", "cluster", "logger"): ("null", "abc", "5", "[1]", "{a:1}", "true", "../x"),
    ("trainer.ema_decay",): ("abc", "0", "1", "1.5", "-0.5", "true", "[0.9]"),
    ("recipe.optimizer.lr", "recipe.optimizer.momentum", "recipe.optimizer.weight_decay"): (
        "abc",
        "-1",
        "nan",
        "[1]",
        "{a:1}",
    ),
    ("data.image_size",): ("null", "32", "[32]", "[32,0]", "[a,b]", "[32,32,32]"),
}
# Likewise, but only the composed configuration shows it.
COMPOSED: dict[tuple[str, ...], tuple[str, ...]] = {
    ("name", "recipe.name", "data.name"): ("..", ".", "a/b", "/a", "../a", '"a\tb"'),
    ("weights",): ("5", "true", "[a]", "{a:1}", "nowhere.pth"),
    ("launch", "launch.budget", "cluster.executor", "recipe.optimizer", "recipe.scheduler", "recipe.augment"): (
        *("null", "5"),
        *("abc", "[1]", "true"),
    ),
}
# What is no override, or names nothing.
WRITTEN = """
model | =3 | model==resnet | seed={ | seed=[1 | seed=' | a b | ~nothing | + | ++seed | model=resnet=3
foo=1 | recipe.epoch=3 | model.dept=20 | launch.worker=2 | trainer.lr=1 | data.sorce=x | +model=resnet | launch.budget.nothing=1
+trainer.max_time=1 | +trainer.enable_checkpointing=true | +trainer.fast_dev_run=true | +trainer.limit_val_batches=2
experiment=nothing | +experiment=nothing | row=x | data=digits.yml | --mode=test | --config-dir=nowhere | --config-dir=file
--config-dir=empty | --config-dir | -x | --multirun=3 | logger=wandb logger.tag=x | about=x | paper=x | rows={} | defaulted=x
seed=${nothing} | seed=${seed} | name=${model.nothing} | recipe.epochs=${recipe.epochs} | seed=range(3) | seed=0,1
model=resnet,densenet | -m seed=range(0,0) | -m recipe.optimizer.lr=interval(0,1)
-m model=glob(zzz*) | -m model= | seed= | seed=auto | hydra.run.dir=x | hydra.sweep.dir=x | hydra/launcher=x
logger=wandb,csv | logger=[csv,none] | logger=[wandb,tensorbord] | logger=[]
logger=none logger.mode=online | logger=csv logger.mode=offline | logger=csv +logger.finish_timeout=3
data.root=x | +data.root=x | data=digits +data.hub=true | model=unet data=nuclei data.root=x | +data.shorter_side=100
cluster.partition=x | +cluster.partition=x | cluster=ray cluster.partition=x | trainer.tuned=true | +recipe.zoom=2
+trainer.allow_reduced_precision=true | recipe.mixup=0.2 model=unet data=nuclei
hydra/sweeper=x | hydra.mode=MULTIRUN | module.net=x | datamodule.root=x | model/variant=x | model=resnet@x | ~seed | ~model
~recipe.epochs | ~recipe.optimizer | ~trainer | mode=test weights=file trainer.ema_decay=0.9
"""
# What is wrong for a network, a recipe or data.
TOGETHER = """
model=resnext model.depth=21 | model=resnext model.depth=0 | model=resnext model.depth=null | model=resnext model.depth=abc
model=resnext model.cardinality=0 | model=resnext model.cardinality=abc | model=resnext model.base_width=-3
model=densenet model.growth_rate=0 | model=densenet model.growth_rate=abc | model=densenet model.compression=2
model=densenet model.compression=abc | model=densenet model.dropout=1.5 | model=densenet model.dropout=abc
model=densenet model.depth=41 | model=densenet model.bottleneck=maybe | model=densenet model.cardinality=2
model=unet data=nuclei model.depth=0 | model=unet data=nuclei model.base_channels=a | model=unet data=nuclei model.dropout=a
model=unet data=digits | model=resnet data=nuclei | model=faster_rcnn data=digits | model=resnet model.stem=x
model._target_=nothing.Net | model._target_=torch.nn.Nothing | model._target_=os.system
+recipe.tiles={tile:3} | recipe.optimizer.nothing=1 | recipe.augment.nothing=1 | +recipe.nothing=1
recipe.batch_size=64 trainer.devices=3 | data.image_size=[1,1] | data.mean=abc | data.std=[]
+recipe.mixup=0.2 model=unet data=nuclei | trainer.limit_train_batches=0.5 | launch.price_per_device_hour=-1
cluster.loader_workers=-1 | logger=wandb logger.entity=5 | logger=wandb logger.project=null | recipe.label_smoothing=1
data=image_folder | data=image_folder data.root=nowhere | data=image_folder data.root=empty | data=image_folder data.root=file
data=image_folder data.root=dangling | data=image_folder data.root=single | data=image_folder data.root=dangling/cats
data=image_folder data.root=heic
model=mask_rcnn data=coco_folder data.annotations=5 | model=mask_rcnn data=coco_folder data.annotations=null
model=mask_rcnn data=coco_folder data.images=null | model=mask_rcnn data=coco_folder data.images=[a]
model=mask_rcnn data=nuclei_instances model.canonical_side=nan
data=image_mask_folder | data=image_mask_folder data.root=nowhere | data=coco_folder | mode=test | mode=test weights=file
"""
# What a CPU does not have: shown where it is measured, as a run with a budget is refused for that before.
NOT_ON_A_CPU = "trainer.precision=16-mixed | trainer.tf32=true | trainer.cuda_graph=true | trainer.sync_batchnorm=true"
OF_COMMANDS = (("--no-such-option",), ("nowhere",), ("file",), ("file/below",), ("a", "b", "c", "d"), ("\0",))
OF_OPTIONS = ("abc", "-1", "1.5.2", "nan", "")


@dataclass(frozen=True)
class Row:
    """What a command line ended in.

    Attributes:
        line: the command.
        code: its exit code; None where it raised.
        cause: the line that says what is wrong; empty where there is none.
        printed: all that it printed.
    """

    line: str
    code: int | None
    cause: str
    printed: str

    @property
    def is_refused(self) -> bool:
        """Whether it was refused with a cause, and without a traceback. A plan of what cannot run ends with exit code 1."""
        taken = self.code == 0 or "nothing was started" in self.cause  # above the budget: it would have run
        said = bool(self.cause) and not self.cause.endswith((":", ": None"))
        return self.code in (1, 2) and not taken and said and "Traceback" not in self.printed


def of_keys(table: Mapping[tuple[str, ...], tuple[str, ...]] = WRONG | COMPOSED) -> Iterator[Row]:
    """Yield the rows of single keys with wrong values."""
    for keys, values in table.items():
        for key in keys:
            for value in values:
                yield _row("run.py", run.main, [BUDGET, f"{key}={value}"])


def of_overrides() -> Iterator[Row]:
    """Yield the rows of overrides that are none, name nothing, or do not go together."""
    _make_files()
    for line in _lines(WRITTEN):
        yield _row("run.py", run.main, [BUDGET, *line.split()])
    for line in _lines(TOGETHER):
        yield _row(commands.PROGRAM, commands.main, ["plan", "--flops-per-s=1e12", *line.split()])
    for line in _lines(NOT_ON_A_CPU):
        yield _row(commands.PROGRAM, commands.main, ["throughput", "trainer.accelerator=cpu", line])


def of_commands() -> Iterator[Row]:
    """Yield the rows of every command of ``python -m benchmarks``: wrong arguments, and wrong values of each option."""
    _make_files()
    for words, command in _leaves(commands.COMMANDS, ()):
        for arguments in OF_COMMANDS:
            yield _row(commands.PROGRAM, commands.main, [*words, *arguments])
        for option, values in _options(commands.parser_of(command, " ".join((commands.PROGRAM, *words)))):
            for value in values:
                yield _row(commands.PROGRAM, commands.main, [*words, f"{option}={value}"])


def _options(parser: argparse.ArgumentParser) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the options with a value that can be wrong whatever else is asked: one of a few words, or a number."""
    for action in parser._actions:
        if not action.option_strings or action.nargs == 0:
            continue
        if action.choices:
            yield action.option_strings[-1], ("abc", "")
        elif action.type not in (None, Path):
            yield action.option_strings[-1], OF_OPTIONS


def _make_files() -> None:
    Path("file").write_text("no folder")
    Path("empty").mkdir(exist_ok=True)
    for folder in ("dangling/cats", "dangling/dogs", "single/cats"):
        Path(folder).mkdir(parents=True, exist_ok=True)
    if not Path("dangling/emus").is_symlink():
        Path("dangling/emus").symlink_to("nowhere")
    photographs(Path("heic"), {"cats": 3, "dogs": 3})
    Path("heic/cats/1.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(200))  # of another format than its name says


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.replace("\n", "|").split("|") if line.strip()]


def _leaves(command: commands.Command, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], commands.Command]]:
    if command.module:
        yield words, command
    for name, below in command.commands.items():
        yield from _leaves(below, (*words, name))


def _row(program: str, main: Callable[[list[str]], int], arguments: Sequence[str]) -> Row:
    out, err = io.StringIO(), io.StringIO()
    code: int | None = None
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)}
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(list(arguments))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except Exception:  # noqa: BLE001 - this is what is looked for
            traceback.print_exc()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    # argparse prints the usage first; a plan says what cannot run below its table.
    lines = [line for line in err.getvalue().splitlines() if line.startswith(("run.py: ", program, "python run.py: "))]
    lines += [line for line in out.getvalue().splitlines() if line.startswith("Cannot run: ")]
    shown = [argument for argument in arguments if argument != BUDGET]
    line = " ".join([program, *(word if word.isprintable() else repr(word) for word in shown)])
    return Row(line, code, lines[-1] if lines else "", err.getvalue() + out.getvalue())


def page(rows: Sequence[Row]) -> str:
    """Return the page of these rows: of single keys what each takes, of the rest each line with its exit code and cause."""
    lines, of_keys_count = (
        [INTRODUCTION.format(count=len(rows), wrong=sum(not row.is_refused for row in rows), date=date.today())],
        0,
    )
    takes: dict[str, list[str]] = {}
    for keys, values in (WRONG | COMPOSED).items():
        of_keys_count += len(keys) * len(values)
        for key in keys:
            words = KEYS[key].words if key in KEYS else "one of its options" if "." not in key else BLOCK.words
            takes.setdefault(words, []).append(f"`{key}`")
    lines += ["## Values of keys", "", f"{of_keys_count} inputs, as null, a text, a list, a number out of range.", ""]
    lines += ["| takes | keys |", "| --- | --- |"]
    lines += [f"| {words} | {', '.join(dict.fromkeys(keys))} |" for words, keys in takes.items()]
    for title, prefix in {"Overrides": ("run.py ", f"{PLAN} "), "Commands": (commands.PROGRAM,)}.items():
        lines += ["", f"## {title}", "", "| command | exit code | what it says |", "| --- | --- | --- |"]
        for row in rows[of_keys_count:]:
            if row.line.startswith(prefix) and (title == "Overrides" or not row.line.startswith(PLAN)):
                lines.append(f"| `{row.line.replace(PLAN, 'plan')}` | {row.code} | {_cell(row.cause)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Return a text as a cell of Markdown, cut where it is long."""
    text = one_line(text)
    short = text if len(text) <= LONGEST else f"{text[:LONGEST].rpartition(' ')[0]} …"
    for special in "|<~*_[]":
        short = short.replace(special, f"\\{special}")
    return short


def main(argv: Sequence[str]) -> int:
    """Print the table in Markdown; return 1 if one input was taken or ended in a traceback."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        rows = []
        for row in chain(of_keys(), of_overrides(), of_commands()):
            rows.append(row)
            print(row.code, row.line, "" if row.is_refused else "NOT REFUSED", row.cause, sep=" | ", flush=True)
        os.chdir(ROOT)
    wrong = sum(not row.is_refused for row in rows)
    print(f"\n{len(rows)} inputs, {wrong} of them not refused as they should be.")
    if arguments.write:
        PAGE.write_text(page(rows), encoding="utf-8")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
