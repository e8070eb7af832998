"""Event files for TensorBoard; an error in writing them neither blocks nor ends training.

tensorboardX's `SummaryWriter` writes from a thread that one I/O error kills; its queue then fills
and blocks whoever adds to it. Here the caller's thread writes.
"""

import contextlib
import io
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter


class Events:
    """One event file, created at the first `add`.

    Args:
        folder: Where; made if missing.
        step: The step of the run. Values of later steps in older files are discarded.
    """

    def __init__(self, folder: pathlib.Path, *, step: int):
        self.folder, self.step = folder, step
        self.file: RecordWriter | None = None
        self.broken = False

    def add(
        self,
        values: Mapping[str, float],
        *,
        step: int,
        pictures: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Writes and flushes values and pictures by name; does nothing after an error.

        Args:
            values: Numbers.
            step: Of the run.
            pictures: uint8 [H, W, 3] each.

        Raises:
            OSError: At the first error.
        """
        if self.broken:
            return
        self.broken = True
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        shown = [Summary.Value(tag=name, image=_image(x)) for name, x in (pictures or {}).items()]
        file = self.file or self._open()
        _write(file, step=step, summary=Summary(value=[*scalars, *shown]))
        file.flush()
        self.broken = False

    def close(self) -> None:
        """Closes the file; all values added without an error are in it."""
        if self.file is not None:
            with contextlib.suppress(OSError):  # buffered bytes after an error
                self.file.close()

    def _open(self) -> RecordWriter:
        self.folder.mkdir(exist_ok=True)
        # TensorBoard reads a folder's files in the order of their names.
        self.file = RecordWriter(str(self.folder / f"events.out.tfevents.{time.time_ns()}"))
        _write(self.file, file_version="brain.Event:2")
        if self.step:
            start = SessionLog(status=SessionLog.START)
            _write(self.file, step=self.step + 1, session_log=start)
        return self.file


def _image(pixels: np.ndarray) -> Any:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    height, width, channels = pixels.shape
    png = buffer.getvalue()
    return Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=png)


def _write(file: RecordWriter, **event: Any) -> None:
    file.write(Event(wall_time=time.time(), **event).SerializeToString())
