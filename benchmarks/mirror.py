"""Weights & Biases as a mirror of the local record: one run per cell, on rank 0, closed with the true exit code."""

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from pytorch_lightning.loggers import WandbLogger

from benchmarks.configuration import WIRING

CONNECT_TIMEOUT_S = 2


def resolve_mode(mode: str) -> str:
    """``auto`` becomes ``online`` if a key is configured and the server answers within 2 s, else ``offline``.

    Raises:
        ValueError: an unknown mode.
    """
    if mode not in {"auto", "online", "offline"}:
        raise ValueError(f"logger.mode is auto, online or offline, got {mode!r}; logger=none turns it off")
    if mode != "auto":
        return mode
    if os.environ.get("WANDB_MODE") in {"offline", "dryrun"}:
        return "offline"
    import wandb
    from requests.utils import get_netrc_auth

    # Not wandb.login or wandb.setup: they start the client's service, which keeps a process alive while the server is away.
    settings = wandb.Settings()
    settings.update_from_env_vars(dict(os.environ))
    if not (settings.api_key or get_netrc_auth(settings.base_url)):
        return "offline"
    server = urlparse(settings.base_url)
    port = server.port or (443 if server.scheme == "https" else 80)
    try:
        with socket.create_connection((server.hostname, port), timeout=CONNECT_TIMEOUT_S):
            return "online"
    except OSError as error:
        print(f"W&B: {server.hostname} does not answer ({error}); going on offline, `wandb sync` sends the run later")
        return "offline"


class Mirror:
    """The life of one W&B run.

    Args:
        record: the run's record; its name, tags and configuration are taken from there.
        config: the resolved configuration.
        metrics: exact names of what ``history.jsonl`` rows hold; a glob would race with Lightning's own ``*``.
    """

    def __init__(self, record: Mapping[str, Any], config: Mapping[str, Any], metrics: Iterable[str]) -> None:
        root = Path(config["output_root"]).resolve()
        # Artifact bytes are staged outside the run's folder otherwise, and lost when it moves.
        os.environ.setdefault("WANDB_DATA_DIR", str(root / "wandb" / "data"))
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        root.mkdir(parents=True, exist_ok=True)
        settings = {key: value for key, value in config.items() if key not in WIRING}
        self.mode = resolve_mode(config["logger"]["mode"])
        self.run = wandb.init(
            entity=config["logger"]["entity"],
            project=config["logger"]["project"],
            dir=str(root),
            mode=self.mode,  # type: ignore[arg-type]
            id=record["run_id"],
            resume="allow",
            name=f"{record['name']} seed {record['seed']}",
            group=record["experiment"] or record["data"],
            job_type="train",
            tags=[
                record["data"],
                record["environment"]["device_name"][:64],
                f"{record['parallel']['world_size']} processes",
            ],
            config=settings | {"hash": record["config_hash"], "complexity": record["complexity"]},
            settings=wandb.Settings(
                init_timeout=30, finish_timeout=60, x_transaction_log_flush_interval=2, silent=True
            ),
        )
        self.run.define_metric("compute/train_flops")
        for name in metrics:
            self.run.define_metric(name, step_metric="compute/train_flops")
        self.logger = WandbLogger(experiment=self.run)

    def finish(self, record: Mapping[str, Any], pictures: Sequence[Path], exit_code: int) -> None:
        """Writes pictures and the flat summary, and closes the run with its true outcome."""
        import wandb

        if pictures:
            self.run.log({"test/pictures": [wandb.Image(str(path), caption=path.stem) for path in pictures]})
        summary = {
            "status": record["status"],
            **{f"model/{name}": value for name, value in record["complexity"].items() if name != "input_size"},
            **{f"compute/{name}": value for name, value in record.get("compute", {}).items()},
            **record.get("metrics", {}),
        }
        self.run.summary.update({name: value for name, value in summary.items() if value is not None})
        self.run.finish(exit_code=exit_code)
