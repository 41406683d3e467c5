"""TensorBoard: an event file in the run's folder, by TensorBoard's own writer, without torch or TensorFlow."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from benchmarks.tracking.content import STEP, Content, Row
from benchmarks.units import number

PNG_SIZE = slice(16, 24)  # width and height, four bytes each: PNG specification, §11.2.2


class Writer:
    """Writes a new event file for what those that are there lack; TensorBoard joins the files of a folder.

    A scalar stands at the training step. TensorBoard's HPARAMS tab has what a run computes beside its costs and errors.
    """

    def __init__(self, content: Content) -> None:
        self._content = content
        self._present = {place for path in content.directory.glob("events.out.tfevents.*") for place in _values(path)}
        self._writer: EventFileWriter | None = None  # a file is made when there is something to write

    @property
    def rows(self) -> int:
        """How many rows of the history event files hold: each has the step among its scalars."""
        return sum(tag == STEP for tag, _ in self._present)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows of the history."""
        for row in rows:
            # The step last: a row of which a part was lost counts as missing.
            scalars = {name: value for name, value in row.items() if name != STEP} | {STEP: row[STEP]}
            self._add(row[STEP], self._content.time_of(row), [_scalar(*pair) for pair in scalars.items()])
        if self._writer is not None:
            self._writer.flush()

    def close(self, content: Content) -> None:
        """Write what the run computes, its costs and errors, its pictures, and how it has ended."""
        last = (content.rows or [Row({STEP: 0})])[-1]
        numbers = {name: value for name, value in content.summary.items() if number(value) is not None}
        values = [_scalar(*pair) for pair in numbers.items()]
        for path in content.pictures:
            encoded = path.read_bytes()
            width, height = (int.from_bytes(encoded[PNG_SIZE][start : start + 4]) for start in (0, 4))
            image = Summary.Image(width=width, height=height, encoded_image_string=encoded)
            values.append(Summary.Value(tag=f"pictures/{path.stem}", image=image))
        start = SessionStartInfo(group_name=content.name, start_time_secs=content.time_of({}))
        for name, value in content.facts.items():
            _set(start.hparams[name], value)
        values.append(_hparams(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start)))
        if content.record["status"] == "ok":  # TensorBoard keeps the first end that it reads, and a run may go on
            end = SessionEndInfo(status=Status.STATUS_SUCCESS, end_time_secs=content.time_of(last))
            values.append(_hparams(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end)))
        self._add(last[STEP], content.time_of(last), values)
        if self._writer is not None:
            self._writer.close()

    @staticmethod
    def where(content: Content) -> str:
        """Return the command that shows the runs."""
        return f"tensorboard --logdir {shlex.quote(str(content.root))}"

    def _add(self, step: int, seconds: float, values: Sequence[Summary.Value]) -> None:
        """Write the values that are not there yet."""
        missing = [value for value in values if (value.tag, step) not in self._present]
        if not missing:
            return
        if self._writer is None:
            self._writer = EventFileWriter(str(self._content.directory))
        self._writer.add_event(Event(step=step, wall_time=seconds, summary=Summary(value=missing)))
        self._present |= {(value.tag, step) for value in missing}


def _values(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the tag and the step of each value in an event file, up to where a writer was killed."""
    for event in EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            yield value.tag, event.step


def _scalar(name: str, value: Any) -> Summary.Value:
    return Summary.Value(tag=name, simple_value=float(value))


def _hparams(tag: str, content: HParamsPluginData) -> Summary.Value:
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=content.SerializeToString())
    return Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin))


def _set(field: Any, value: Any) -> None:
    """Set a field of type google.protobuf.Value."""
    if isinstance(value, bool):
        field.bool_value = value
    elif number(value) is not None:
        field.number_value = value
    else:
        field.string_value = str(value)
