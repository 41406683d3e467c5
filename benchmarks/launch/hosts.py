"""A trial over several machines without a scheduler: the same command on each of them, over a folder that they share."""

import re
from collections.abc import Mapping
from typing import Any

from benchmarks.config.trial import Trial, config_hash
from benchmarks.launch.checks import missing_resources
from benchmarks.launch.process import Node
from benchmarks.launch.sweep import LocalExecutor
from benchmarks.launch.trial_job import Outcome, TrialJob, settled, start_trial


class HostsExecutor(LocalExecutor):
    """This machine's part of each trial, one trial after the other; machine 0 leads and keeps the records.

    Args:
        launch: the configuration's block of that name.
        rendezvous: ``host:port`` on machine 0, where all meet.
        node: this machine's number, from 0.
        address: by which the others reach this machine; None for what its name resolves to.

    Raises:
        ValueError: the values name no meeting place or no machine, or there are several trials at a time.
    """

    def __init__(
        self, launch: Mapping[str, Any], rendezvous: str | None, node: int | None, address: str | None
    ) -> None:
        if not re.fullmatch(r".+:[1-9]\d{0,4}", rendezvous or ""):
            raise ValueError(
                f"cluster.rendezvous is host:port of machine 0, such as 10.0.0.1:29400, got {rendezvous!r}"
            )
        if not isinstance(node, int) or node < 0:
            raise ValueError(f"cluster.node is this machine's number, from 0, got {node!r}")
        if launch["workers"] != 1:
            raise ValueError(f"cluster=hosts runs one trial at a time, got launch.workers={launch['workers']}")
        super().__init__(launch)
        self._endpoint = str(rendezvous)
        self._node = node
        self._address = address
        self._restarts = launch["retries"]

    def start(self, trial: Trial) -> TrialJob | Outcome:
        """Starts this machine's ranks; all but machine 0 wait for it."""
        machines = trial.config["trainer"]["num_nodes"]
        if machines < 2:
            return Outcome("refused", f"cluster=hosts is for several machines, got trainer.num_nodes={machines}")
        if self._node >= machines:
            return Outcome("refused", f"cluster.node={self._node} of trainer.num_nodes={machines} machines")
        if done := settled(trial):
            return done
        if lacking := missing_resources(trial, machines=machines):
            return Outcome("refused", lacking)
        digest = config_hash(trial.config)
        node = Node(self._node, machines, self._endpoint, digest, self._address, self._restarts)
        started = start_trial(trial, node=node)
        self._running += isinstance(started, TrialJob)
        return started
