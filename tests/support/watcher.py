"""A watcher of a sweep that records what it is shown."""

from benchmarks.launch.trial_job import Outcome


class RecordingWatcher:
    """A watcher that records what it is shown."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.waited: list[str] = []
        self.said: list[str] = []
        self.seen: list[dict] = []
        self.most = 0
        self.running: set[int] = set()

    def refresh(self) -> None:
        pass

    def begin(self, index: int, label: str) -> None:
        self.running.add(index)

    def update(self, index: int, progress: dict) -> None:
        self.seen.append(progress)
        self.most = max(self.most, len(self.running))

    def wait(self, index: int, label: str, reason: str) -> None:
        self.waited.append(reason)

    def say(self, text: str) -> None:
        self.said.append(text)

    def end(self, index: int, label: str, outcome: Outcome) -> None:
        self.running.discard(index)
        self.order.append(label)
