"""Results of another user, for reading only: every reader shows them, and writes where it is told to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from support.any_user import as_any_user
from support.commands import CLEAN, ROOT, run_here

OTHER = 65534  # a user and a group without files
TINY = (
    *("-m", "model=unet", "data=nuclei", "model.base_channels=2", "model.depth=2", "seed=0,1", "logger=wandb"),
    *("recipe.epochs=1", "trainer.limit_train_batches=1", "trainer.accelerator=cpu"),
)
LIMIT_S = 300


def call(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=CLEAN | {"PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"},
        capture_output=True, text=True, timeout=LIMIT_S, preexec_fn=as_any_user,
    )  # fmt: skip


@pytest.mark.slow
def test_every_reader_shows_results_that_may_only_be_read(tmp_path: Path) -> None:
    root, own = tmp_path / "outputs", tmp_path / "own"
    own.mkdir()
    done = run_here(*TINY, root=root)
    assert done.returncode == 0, done.stdout + done.stderr
    run = next(root.glob("*/*/*/seed0"))
    Image.new("L", (40, 40)).save(own / "image.png")
    (root / "report.html").unlink()
    for path in (*root.rglob("*"), root):
        if os.geteuid() == 0:
            os.chown(path, OTHER, OTHER)
        path.chmod(0o555 if path.is_dir() else 0o444)
    contents = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    try:
        writing = call("-c", "import sys; open(sys.argv[1], 'w')", root / "new", cwd=own)
        if writing.returncode == 77:
            pytest.skip("this process may not give up rights")
        assert "PermissionError" in writing.stderr

        def command(*arguments: object) -> tuple[int, str, str]:
            done = call("-m", "benchmarks", *arguments, cwd=own)
            assert "Traceback" not in done.stdout + done.stderr, done.stderr
            return done.returncode, done.stdout, done.stderr

        code, out, err = command("status", root)
        assert (code, err) == (0, "") and "2 trials: 2 done" in out
        code, out, err = command("report", root)
        assert code == 0 and "unet" in out
        assert err == "the page was not written: Permission denied; --out FILE writes it elsewhere\n"
        code, out, err = command("report", root, "--out", own / "page.html")
        assert (code, err) == (0, "") and "seed 1" in (own / "page.html").read_text(encoding="utf-8")
        code, out, err = command("report", "unet_table1", root, "--out", own / "table.html")
        assert (code, err) == (0, "") and (own / "table.html").exists()
        for words, written in (
            (("export", root, "--format", "csv"), ("runs.csv", "history.csv")),
            (("predict", run, own / "image.png"), ("image_mask.png",)),
        ):
            code, out, err = command(*words)
            assert code == 2 and err.endswith(": Permission denied; --out writes elsewhere\n") and err.count("\n") == 1
            code, out, err = command(*words, "--out", own / "files")
            assert code == 0 and all((own / "files" / name).exists() for name in written), err
        code, out, err = command("wandb", "show", root)
        assert code == 2 and "this is no terminal" in err  # as for one's own
        again = call(ROOT / "run.py", *TINY, f"output_root={root}", cwd=own)
        assert again.returncode == 0 and "unet" in again.stdout, again.stdout + again.stderr
        another = call(ROOT / "run.py", *TINY, "model.depth=1", f"output_root={root}", cwd=own)
        assert another.returncode in {1, 2} and "Permission denied" in another.stdout + another.stderr
        assert "Traceback" not in again.stdout + again.stderr + another.stdout + another.stderr

        run.joinpath("record.json").chmod(0)  # a colleague's umask
        run.joinpath("config.yaml").chmod(0)
        for words in (("status", root), ("report", root), ("export", root, "--format", "csv", "--out", own / "rest")):
            code, out, err = command(*words)
            assert code == 0 and f"{run / 'record.json'}" in out + err and "Permission denied" in out + err, out + err
    finally:
        for path in (*root.rglob("*"), root):
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == contents
