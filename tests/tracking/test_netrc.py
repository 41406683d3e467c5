"""Whether a key for W&B's server is in a netrc file, beside what requests finds there."""

from pathlib import Path

import pytest
from requests.utils import get_netrc_auth

from benchmarks.tracking.wandb_run import key_in_netrc

KEY = "machine api.wandb.ai\n  login user\n  password secret\n"


@pytest.mark.parametrize(
    "url", ["https://api.wandb.ai", "https://api.wandb.ai:443/x", "http://localhost:8080", "", "x"]
)
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("name", [".netrc", "_netrc", "other"])
@pytest.mark.parametrize(
    "content",
    [
        KEY,
        KEY.replace("api.wandb.ai", "localhost"),
        "default login a password b\n",
        "machine api.wandb.ai\n",
        "machine\n",
        "",
    ],
)
def test_an_entry_is_found_where_requests_finds_one(
    url: str, named: bool, name: str, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    path = tmp_path / name
    path.write_text(content)
    if named:
        monkeypatch.setenv("NETRC", str(path))
    assert key_in_netrc(url) == (get_netrc_auth(url) or (None, None))[1]


def test_a_file_that_is_named_and_absent_hides_the_usual_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text(KEY)
    assert key_in_netrc("https://api.wandb.ai")
    monkeypatch.setenv("NETRC", str(tmp_path / "absent"))
    assert not key_in_netrc("https://api.wandb.ai")
