import errno
import io

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter

from unet.events import Events


def read(folder):
    """The events of each file, in the order of the names."""
    for file in sorted(folder.iterdir()):
        data, events = file.read_bytes(), []
        while data:
            length = int.from_bytes(data[:8], "little")
            events.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
        yield events


def test_what_is_resumed_adds_a_file_and_takes_back_what_came_after_it(tmp_path):
    for step in (0, 4):
        events = Events(tmp_path / "tensorboard", step=step)
        events.add({"loss": 0.5, "dice": step}, step=step + 2)
        events.close()
    first, second = read(tmp_path / "tensorboard")
    assert [event.file_version for event in (first[0], second[0])] == ["brain.Event:2"] * 2
    assert [v.tag for v in first[1].summary.value] == ["loss", "dice"]
    assert (second[1].session_log.status, second[1].step) == (SessionLog.START, 5)
    assert (second[2].step, second[2].summary.value[1].simple_value) == (6, 4)


def test_pictures_are_written_as_they_are(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 12, 3), np.uint8)
    events = Events(tmp_path / "tensorboard", step=0)
    events.add({"loss": 0.5}, step=2, pictures={"validation/1": pixels})
    events.close()
    (first,) = read(tmp_path / "tensorboard")
    number, picture = first[1].summary.value
    assert (number.tag, picture.tag) == ("loss", "validation/1")
    assert (picture.image.height, picture.image.width, picture.image.colorspace) == (7, 12, 3)
    with Image.open(io.BytesIO(picture.image.encoded_image_string)) as image:
        assert np.array_equal(np.asarray(image), pixels)


@pytest.mark.heavy
def test_tensorflow_reads_values_and_pictures(tmp_path):
    import tensorflow as tf

    pixels = np.random.default_rng(0).integers(0, 256, (7, 12, 3), np.uint8)
    for step in (0, 4):
        events = Events(tmp_path / "tensorboard", step=step)
        events.add({"dice": 0.25}, step=step + 1, pictures={"validation/a/1": pixels + step})
        events.close()
    found = []
    for file in sorted((tmp_path / "tensorboard").iterdir()):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                if value.HasField("image"):
                    image = tf.io.decode_png(value.image.encoded_image_string).numpy()
                    assert np.array_equal(image, pixels + event.step - 1)
                else:
                    assert value.simple_value == 0.25
                found.append((event.step, value.tag))
    assert found == [(s, tag) for s in (1, 5) for tag in ("dice", "validation/a/1")]


def test_nothing_is_made_before_there_is_something_to_write(tmp_path):
    Events(tmp_path / "tensorboard", step=3).close()
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.parametrize("where", ["flush", "write", "open"])
def test_after_one_fault_nothing_is_written_and_nothing_hangs(tmp_path, monkeypatch, where):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    events = Events(tmp_path / "tensorboard", step=0)
    if where == "open":
        (tmp_path / "tensorboard").write_text("no folder")
    else:
        monkeypatch.setattr(RecordWriter, where, full)
    with pytest.raises(OSError, match=r"No space|exists"):
        events.add({"loss": 1}, step=1)
    for step in range(100):
        events.add({"loss": 1}, step=step)
    events.close()
