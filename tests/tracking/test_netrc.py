"""Whether a key for W&B's server is in a netrc file."""

from pathlib import Path

import pytest

from benchmarks.tracking.wandb_run import has_key

KEY = "machine api.wandb.ai\n  login user\n  password secret\n"
CLOUD, LOCAL = "https://api.wandb.ai", "http://localhost:8080"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("NETRC", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("name", [".netrc", "_netrc", "other"])
@pytest.mark.parametrize(
    ("content", "servers"),
    [
        (KEY, {CLOUD}),
        (KEY.replace("api.wandb.ai", "localhost"), {LOCAL}),
        ("default login a password b\n", {CLOUD, LOCAL}),
        ("machine api.wandb.ai\n", set()),
        ("machine\n", set()),
        ("", set()),
    ],
)
def test_a_key_is_found_for_its_server_alone(
    named: bool, name: str, content: str, servers: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    path.write_text(content)
    if named:
        monkeypatch.setenv("NETRC", str(path))
    for url in (CLOUD, LOCAL):
        monkeypatch.setenv("WANDB_BASE_URL", url)
        assert has_key() == (url in servers and (named or name != "other"))


def test_a_file_that_is_named_and_absent_hides_the_usual_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", CLOUD)
    (tmp_path / ".netrc").write_text(KEY)
    assert has_key()
    monkeypatch.setenv("NETRC", str(tmp_path / "absent"))
    assert not has_key()
