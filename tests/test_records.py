import gc
import io
import json
import multiprocessing
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from segdata import packing
from segdata.archives import resizing
from segdata.core import records
from segdata.core.system import files

SIZE = (24, 40)


@pytest.fixture
def built(built_dsb2018, tmp_path):
    """A copy of the built dataset that a test may damage."""
    copy = tmp_path / "data"
    shutil.copytree(built_dsb2018, copy)
    return copy


def pack(data_dir, split="train", size=SIZE):
    return packing.pack("dsb2018", split, size=size, data_dir=data_dir)


def seal(packed):
    return packed.path.stat().st_ino, packed.path.stat().st_mtime_ns


def manifest_of(packed):
    """The manifest beside a packed file, whose name ends in a token."""
    return packed.path.with_name(f"{packed.path.stem.rpartition('-')[0]}.json")


def packed_row(example, size):
    row = packing._row(example, packing._Rule.of(size, fit="stretch", has_instances=False))
    assert isinstance(row, np.ndarray)
    return row


def test_any_tfrecord_reader_streams_what_the_array_holds(built_dsb2018):
    packed = pack(built_dsb2018)
    streamed = [
        np.frombuffer(record, np.uint8).reshape(*SIZE, 4)
        for record in tf.data.TFRecordDataset(str(packed.path)).as_numpy_iterator()
    ]
    np.testing.assert_array_equal(streamed, packed.array())
    assert packed.path.stat().st_size == packed.count * (SIZE[0] * SIZE[1] * 4 + 16)


def test_records_are_the_dataset_resized(built_dsb2018):
    """And the means beside them are theirs."""
    builder = packing.built("dsb2018", data_dir=built_dsb2018)
    examples = list(tfds.as_numpy(packing._raw(builder, ["train"])))
    packed = pack(built_dsb2018)
    for example, row in zip(examples, packed.array(), strict=True):
        image = PIL.Image.open(io.BytesIO(example["image"])).convert("RGB")
        mask = PIL.Image.open(io.BytesIO(example["mask"]))
        np.testing.assert_array_equal(row[..., :3], resizing.image(np.asarray(image), SIZE))
        np.testing.assert_array_equal(row[..., 3], resizing.mask(np.asarray(mask), SIZE))
    means = packed.array()[..., :3].mean(axis=(1, 2), dtype=np.float64)
    np.testing.assert_array_equal(packed.index()["means"], np.floor(means * 65536 + 0.5))


@pytest.mark.parametrize(
    ("full", "size"),
    [
        ((1280, 1918), (128, 192)),
        ((257, 257), (16, 16)),
        ((203, 131), (25, 16)),
        ((90, 61), (8, 9)),
    ],
)
def test_a_jpeg_is_not_stretched_by_the_scale_it_is_decoded_at(full, size):
    """Its size is rounded up there. Waves tell how far each end of each axis has moved."""
    y, x = (np.mgrid[: full[0], : full[1]].T / (np.array(full) / size)).T  # pixels of the result
    image = np.full((*full, 3), 128, np.uint8)
    image[..., 0], image[..., 1] = (128 + 100 * np.sin(2 * np.pi * p / 6) for p in (x, y))
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, "JPEG", quality=100, subsampling=0)
    mask = io.BytesIO()
    PIL.Image.fromarray(np.zeros(full, np.uint8)).save(mask, "PNG")
    example = {"id": b"waves", "image": buffer.getvalue(), "mask": mask.getvalue()}
    row = packed_row(example, size)
    expected = resizing.image(image, size).astype(float)
    for axis, channel in ((1, 0), (0, 1)):
        slopes = np.gradient(expected[..., channel], axis=axis)
        errors = row[..., channel] - expected[..., channel]
        third = size[axis] // 3
        for end in (slice(third), slice(-third, None)):
            slope, error = (np.moveaxis(a, axis, 0)[end] for a in (slopes, errors))
            assert abs((slope * error).sum() / (slope * slope).sum()) < 0.03


def test_a_second_run_reuses_the_file_and_does_not_read_it(built, monkeypatch):
    before = seal(pack(built))
    monkeypatch.setattr(records.Records, "verify", lambda _: pytest.fail("it was read"))
    assert seal(pack(built)) == before
    (folder,) = pathlib.Path(built).glob("dsb2018/default/*")
    (folder / ".DS_Store").write_bytes(b"a file manager was here")
    assert seal(pack(built)) == before


def test_a_copied_file_is_read_once(built, tmp_path, monkeypatch):
    pack(built)
    copy = tmp_path / "copy"
    shutil.copytree(built, copy)
    reads = []
    verify = records.Records.verify
    monkeypatch.setattr(records.Records, "verify", lambda r: reads.append(r.path) or verify(r))
    paths = {pack(copy).path for _ in range(3)}
    assert reads == list(paths)


def test_a_copy_that_may_not_be_written_to_is_read_each_time(built, tmp_path, monkeypatch):
    pack(built)
    copy = tmp_path / "copy"
    shutil.copytree(built, copy)
    reads = []
    monkeypatch.setattr(records.Records, "verify", lambda r: reads.append(r.path))

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(records, "_write_manifest", refuse)
    assert pack(copy).path == pack(copy).path
    assert len(reads) == 2


@pytest.mark.parametrize("key", sorted(packing._RULE))
def test_a_file_packed_by_another_rule_is_packed_anew(built, monkeypatch, key):
    before = pack(built)
    monkeypatch.setitem(packing._RULE, key, "another")
    after = pack(built)
    assert after.path != before.path
    monkeypatch.undo()
    assert pack(built).path != after.path


def test_the_rule_holds_the_decoder_in_use():
    """Another one enlarges colours another way, and its pixels differ."""
    from PIL import _imaging  # pyright: ignore[reportPrivateImportUsage]

    assert packing._RULE["jpeg"]
    assert packing._RULE["jpeg"] in (_imaging.libjpeg_turbo_version, _imaging.jpeglib_version)


def test_a_dataset_kept_in_another_format_is_refused_by_name(built):
    (info,) = built.glob("dsb2018/default/*/dataset_info.json")
    held = json.loads(info.read_text())
    info.write_text(json.dumps({**held, "fileFormat": "array_record"}))
    with pytest.raises(ValueError, match=r"kept as array_record, .*--file_format tfrecord"):
        pack(built)


def test_a_folder_whose_name_is_not_utf8_is_refused_by_name(built):
    odd = built.with_name("caf\udce9")
    built.rename(odd)
    with pytest.raises(ValueError, match="not UTF-8"):
        pack(odd)


def test_a_file_of_another_format_is_packed_anew(built, monkeypatch):
    before = pack(built)
    monkeypatch.setattr(records, "FORMAT", records.FORMAT + 1)
    assert pack(built).path != before.path


def test_a_file_of_the_first_edition_is_packed_anew(built):
    packed = pack(built)
    manifest = manifest_of(packed)
    old = json.loads(manifest.read_text())
    for key in ("format", "resizing", "jpeg", "token", "seen"):
        del old[key]
    manifest.write_text(json.dumps(old))
    shutil.copy(packed.path, manifest.with_suffix(".tfrecord"))
    assert pack(built).path != packed.path
    assert not manifest.with_suffix(".tfrecord").exists()


def test_what_was_packed_before_goes_when_nobody_uses_it(built):
    before = pack(built)
    shard = next(pathlib.Path(built).glob("dsb2018/default/*/dsb2018-train*"))
    os.utime(shard, (1, 1))
    after = pack(built)
    assert before.path.exists()
    np.testing.assert_array_equal(before.array(), after.array())
    path = before.path
    del before
    gc.collect()
    os.utime(shard, (2, 2))
    pack(built)
    assert not path.exists()
    assert after.path.exists()


def test_what_was_in_use_when_it_was_replaced_goes_later(built):
    before = pack(built)
    shard = next(pathlib.Path(built).glob("dsb2018/default/*/dsb2018-train*"))
    os.utime(shard, (1, 1))
    pack(built)
    path, means = before.path, before.index_path
    assert path.exists()
    del before
    gc.collect()
    after = pack(built)
    assert not path.exists()
    assert not means.exists()
    after.verify()


def test_packing_one_size_anew_leaves_the_others(built):
    other = pack(built, size=(8, 8)).path
    one = pack(built)
    one.path.write_bytes(b"")
    assert pack(built).path != one.path
    assert other.exists()


def test_a_jpeg_is_not_decoded_smaller_than_it_is_packed():
    """Where one side shrinks by much and the other hardly."""
    image = np.random.default_rng(0).integers(0, 256, (512, 64, 3), np.uint8)
    buffers = io.BytesIO(), io.BytesIO()
    PIL.Image.fromarray(image).save(buffers[0], "JPEG")
    PIL.Image.fromarray(np.zeros((512, 64), np.uint8)).save(buffers[1], "PNG")
    row = packed_row(
        {"id": b"a", "image": buffers[0].getvalue(), "mask": buffers[1].getvalue()}, (8, 32)
    )
    decoded = np.asarray(PIL.Image.open(buffers[0]))
    np.testing.assert_array_equal(row[..., :3], resizing.image(decoded, (8, 32)))


def test_a_split_of_many_slices_is_packed(built):
    slices = [f"train[{i}:{i + 1}]" for i in range(12)]
    many, fewer = ("+".join(slices[:count]) for count in (12, 11))
    np.testing.assert_array_equal(pack(built, many).array(), pack(built).array()[:12])
    np.testing.assert_array_equal(pack(built, fewer).array(), pack(built).array()[:11])
    apart = pack(built, "train[3:5]+train[:2]").array()
    np.testing.assert_array_equal(apart, pack(built).array()[[3, 4, 0, 1]])


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "7", '"x"', "{}", "[" * 5000, "1" * 5000, '{"token": 3}', "\udcff"],
)
def test_a_manifest_may_hold_anything(built, text):
    before = pack(built)
    manifest_of(before).write_text(text, errors="surrogateescape")
    np.testing.assert_array_equal(pack(built).array(), before.array())


@pytest.mark.parametrize("key", ["token", "seen", "count", "size", "format", "files"])
@pytest.mark.parametrize("value", [None, [], {}, "../../x", -1, 1e308, [[1]]])
def test_a_manifest_with_another_value_is_not_believed(built_dsb2018, tmp_path, key, value):
    rows = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 4), np.uint8)
    manifest = tmp_path / "x.json"
    records.write(manifest, rows, size=(4, 5), source={"files": {"a": [1, 2]}})
    noted = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(noted | {key: value}))
    arguments = {"size": (4, 5), "count": 3, "source": {"files": {"a": [1, 2]}}}
    found = records.opened(manifest, **arguments)
    if key == "seen":  # what is not believed is read
        assert found
        np.testing.assert_array_equal(found.array(), rows)
    else:
        assert found is None


@pytest.mark.parametrize("where", ["first", "middle", "last"])
@pytest.mark.parametrize("what", ["path", "index_path"])
def test_a_flipped_bit_is_noticed_and_mended(built, where, what):
    path = getattr(pack(built), what)
    good = path.read_bytes()
    inside = (12, -5) if what == "path" else (0, -1)  # around pixels, TFRecord checks by itself
    place = {"first": inside[0], "middle": len(good) // 2, "last": len(good) + inside[1]}[where]
    with path.open("r+b") as file:
        file.seek(place)
        file.write(bytes([good[place] ^ 1]))
    assert getattr(pack(built), what).read_bytes() == good


def test_damage_that_left_no_trace_is_found_when_asked_for(built):
    packed = pack(built)
    packed.verify()
    times = packed.path.stat()
    with packed.path.open("r+b") as file:
        file.seek(100)
        file.write(b"\0\1\2\3")
    os.utime(packed.path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(OSError, match=f"{packed.path} is damaged: delete it"):
        pack(built).verify()


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "manifest gone", "manifest cut"])
def test_damage_is_noticed_and_mended(built, damage):
    packed = pack(built)
    good = packed.path.read_bytes()
    manifest = manifest_of(packed)
    target = manifest if "manifest" in damage else packed.path
    if "gone" in damage:
        target.unlink()
    else:
        os.truncate(target, 0 if damage == "empty" else target.stat().st_size // 2)
    assert pack(built).path.read_bytes() == good
    assert json.loads(manifest.read_text())["count"] == packed.count


def test_a_dataset_built_again_is_packed_again(built):
    before = seal(pack(built))
    shard = next(pathlib.Path(built).glob("dsb2018/default/*/dsb2018-train*"))
    os.utime(shard, (1, 1))
    assert seal(pack(built)) != before


def test_sizes_and_splits_have_files_of_their_own_and_slices_none(built):
    paths = {
        pack(built).path,
        pack(built, size=(40, 24)).path,
        pack(built, split="validation").path,
        pack(built, split="validation+train").path,
    }
    assert len(paths) == 4
    assert pack(built, split="train+validation").path in paths
    assert pack(built, split="validation[:1]+train[2:]").path in paths
    halves = [pack(built, split=s).array() for s in ("train[:50%]", "train[50%:]")]
    np.testing.assert_array_equal(np.concatenate(halves), pack(built).array())


def test_nothing_half_written_has_a_final_name(tmp_path):
    def rows():
        yield np.zeros((2, 2, 4), np.uint8)
        raise RuntimeError("the process goes")

    with pytest.raises(RuntimeError):
        records.write(tmp_path / "x.json", rows(), size=(2, 2), source={})
    assert list(tmp_path.iterdir()) == []


FULL = """
import pathlib, resource, signal, sys
import numpy as np
from segdata.core import records
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
rows = np.zeros((40, 32, 32, 4), np.uint8)
manifest = pathlib.Path(sys.argv[1], "x.json")
for room in (100_000, 500, "manifest", resource.RLIM_INFINITY):
    if room == "manifest":
        write_manifest = records._write_manifest
        def _full(*_):
            raise OSError(27, "File too large")
        records._write_manifest = _full
        room = resource.RLIM_INFINITY
    else:
        records._write_manifest = globals().get("write_manifest", records._write_manifest)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        packed = records.write(manifest, rows, size=(32, 32), source={})
    except OSError as error:
        print(error)
        assert not [*manifest.parent.iterdir()]
np.testing.assert_array_equal(packed.array(), rows)
"""


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    """Where records, not even the first, or all but the manifest fit; and then where all do."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line.startswith(f"{tmp_path}: x cannot be packed: ")
        assert "too large" in line


def _pack_in_process(data_dir, results):
    packed = []
    write = packing.write
    packing.write = lambda *args, **kwargs: packed.append(1) or write(*args, **kwargs)
    results.put((pack(data_dir, size=(23, 41)).path.read_bytes(), len(packed)))


@pytest.mark.heavy
def test_of_two_processes_at_once_one_packs_and_the_other_waits(built):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_pack_in_process, args=(built, results)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert sum(packed for _, packed in found) == 1
    assert {content for content, _ in found} == {pack(built, size=(23, 41)).path.read_bytes()}


def test_two_writers_without_locks_do_no_harm(tmp_path, monkeypatch):
    """In turns, a record each, with one process number; the manifest names one whole file."""
    monkeypatch.setattr(files, "fcntl", None)
    manifest = tmp_path / "x.json"
    ones, twos = (np.full((5, 2, 2, 4), value, np.uint8) for value in (1, 2))

    def interrupted():
        yield from ones[:2]
        records.write(manifest, twos, size=(2, 2), source={})
        yield from ones[2:]

    records.write(manifest, interrupted(), size=(2, 2), source={})
    found = records.opened(manifest, size=(2, 2), count=5, source={})
    assert found
    np.testing.assert_array_equal(found.array(), ones)
    found.verify()


def test_a_packed_file_is_loaded_by_its_manifest_alone(built, tmp_path):
    packed = pack(built)
    again = records.load(packed.manifest)
    assert (again.path, again.checksum, len(again)) == (packed.path, packed.checksum, len(packed))
    with pytest.raises(FileNotFoundError, match="no such manifest"):
        records.load(tmp_path / "none.json")
    for text, message in [
        ("[]", "is no manifest"),
        ('{"format": 1}', "its format is 1, not 2; pack it again"),
        (packed.manifest.read_text().replace('"count"', '"county"'), "is no manifest"),
        (packed.manifest.read_text().replace(packed.path.stem[-8:], "../../..."), "token="),
    ]:
        (tmp_path / "odd.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            records.load(tmp_path / "odd.json")
    with packed.path.open("r+b") as file:
        file.truncate(100)
    with pytest.raises(OSError, match=r"tfrecord is cut: delete it"):
        records.load(packed.manifest)
