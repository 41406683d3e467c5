"""What is fetched from the hub: the real client against a hub on this machine."""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.data_files import (
    SMALL,
    SMALL_100,
    SMALL_SVHN,
    one_line,
    write_cifar100_parquet,
    write_parquet,
    write_svhn,
    write_svhn_parquet,
)

from datamodules.readers.hub import fetch, shards
from datamodules.readers.preparation import reporting_to
from datamodules.sources.cifar import load_cifar
from datamodules.sources.svhn import load_svhn


class Hub(ThreadingHTTPServer):
    """Data sets of a folder, served as the hub does: <folder>/<owner>/<name>/<file>."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), HubRequest)
        self.folder = folder
        self.status = 200
        self.fetched: list[str] = []


class HubRequest(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self) -> None:
        commit, path = "a" * 40, urlsplit(self.path).path
        parts = path.removeprefix("/api").split("/")[2:]  # after /datasets/
        folder = self.server.folder.joinpath(*parts[:2])
        status = 404 if len(parts) < 3 or not folder.is_dir() else self.server.status
        if status != 200:
            reasons = {403: "GatedRepo", 404: "RepoNotFound"}
            return self.answer(status, **({"X_Error_Code": reasons[status]} if status in reasons else {}))
        files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
        if parts[2] == "revision":
            names = [{"rfilename": name} for name in files]
            return self.answer(200, json.dumps({"id": "/".join(parts[:2]), "sha": commit, "siblings": names}).encode())
        if parts[2] == "tree":
            tree = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": name} for name, file in files.items()
            ]
            return self.answer(200, json.dumps(tree).encode())
        name = "/".join(parts[4:])  # after resolve/<revision>
        if self.command == "GET":
            self.server.fetched.append(name)
        self.answer(200, files[name].read_bytes(), ETag=f'"{len(name)}"', X_Repo_Commit=commit)

    do_HEAD = do_GET


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine, at the address that the client reads when it is first imported."""
    pytest.importorskip("huggingface_hub", reason="needs the extra `hub`")
    pytest.importorskip("pyarrow", reason="needs the extra `parquet`")
    for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, name)
    server = Hub(tmp_path / "hub")
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
    for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        del sys.modules[name]


def test_the_hub_gives_what_a_data_root_lacks_and_no_more(tmp_path, hub):
    write_cifar100_parquet(hub.folder / "uoft-cs" / "cifar100")
    write_svhn_parquet(hub.folder / "ufldl-stanford" / "svhn")
    (hub.folder / "uoft-cs" / "cifar100" / "README.md").write_text("a card")
    for _ in ("fetched", "there already"):
        splits = load_cifar("cifar100", tmp_path / "cifar100", tmp_path / "cache", hub=True, **SMALL_100)
    local = load_cifar("cifar100", hub.folder / "uoft-cs" / "cifar100", tmp_path / "cache", **SMALL_100)
    assert splits.checksum() == local.checksum()
    assert sorted(hub.fetched) == [f"cifar100/{part}-00000-of-00001.parquet" for part in ("test", "train")]

    hub.fetched.clear()
    splits = load_svhn(tmp_path / "svhn", tmp_path / "cache", extra=False, hub=True, **SMALL_SVHN)
    assert (
        splits.checksum()
        == load_svhn(write_svhn(tmp_path / "mat"), tmp_path / "cache", extra=False, **SMALL_SVHN).checksum()
    )
    load_svhn(tmp_path / "svhn", tmp_path / "cache", hub=True, **SMALL_SVHN)
    assert sorted(hub.fetched) == [
        f"cropped_digits/{part}-00000-of-00001.parquet" for part in ("extra", "test", "train")
    ]


def test_what_the_hub_sends_is_told(tmp_path, hub):
    folder = hub.folder / "uoft-cs" / "cifar10"
    folder.mkdir(parents=True)
    for number in range(6):
        (folder / f"{number}.parquet").write_bytes(os.urandom(2_500_000))
    told: list[tuple[str, int, int]] = []
    telling = threading.Lock()

    def tell(*what):
        assert telling.acquire(blocking=False), "told by two threads at once"
        time.sleep(0.002)
        told.append(what)
        telling.release()

    with reporting_to(tell):
        fetch("uoft-cs/cifar10", ["*.parquet"], tmp_path / "root")
    assert {(what, total) for what, _, total in told} == {("fetching uoft-cs/cifar10, MB", 0)}
    counts = [done for _, done, _ in told]
    assert counts == sorted(counts) and counts[-1] == 15


def test_an_interrupted_download_is_completed(tmp_path, hub):
    write_parquet(hub.folder / "uoft-cs" / "cifar10" / "plain_text")
    (write_parquet(tmp_path / "root" / "plain_text") / "train-00001-of-00002.parquet").unlink()
    splits = load_cifar("cifar10", tmp_path / "root", tmp_path / "cache", hub=True, **SMALL)
    assert splits.checksum() == load_cifar("cifar10", hub.folder, tmp_path / "cache", **SMALL).checksum()


@pytest.mark.parametrize(
    ("status", "expected", "message"),
    [
        (401, FileNotFoundError, r"the hub does not give uoft-cs/cifar10 \(status 401\); accept its terms and log in"),
        (403, FileNotFoundError, r"the hub does not give uoft-cs/cifar10 \(status 403\); accept its terms and log in"),
        (404, FileNotFoundError, r"the hub does not give uoft-cs/cifar10 \(status 404\); accept its terms and log in"),
        (500, ConnectionError, "the hub cannot be reached for uoft-cs/cifar10 .* try again or put its files into"),
    ],
)
def test_a_hub_that_refuses_is_named(tmp_path, hub, status, expected, message):
    write_parquet(hub.folder / "uoft-cs" / "cifar10")
    hub.status = status
    with pytest.raises(expected, match=message) as error:
        load_cifar("cifar10", tmp_path / "nothing", tmp_path / "cache", hub=True)
    assert str(tmp_path / "nothing") in one_line(error)


@pytest.mark.parametrize(
    "names",
    [
        ("train-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"),
        ("train-00000-of-00001", "train-00001-of-00002"),
        ("old/train-00000-of-00001", "train-00000-of-00001"),
        ("cropped/train/0000", "full/train/0000"),
    ],
)
def test_files_of_two_sets_are_not_read_as_one(tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.parquet").touch()
    with pytest.raises(ValueError, match="must hold the train files of one set, got those of several") as error:
        shards(tmp_path, "train")
    one_line(error)
    assert f"{names[0]}.parquet to {names[-1]}.parquet; remove the others" in str(error.value)


def test_the_hub_without_its_client_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r'data\.hub=true needs huggingface_hub: pip install -e "\.\[hub\]"') as error:
        load_cifar("cifar10", tmp_path, tmp_path / "cache", hub=True)
    one_line(error)
