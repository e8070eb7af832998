import gc
import io
import json
import multiprocessing
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from segdata import packing
from segdata.archives import resizing
from segdata.building.reading import Stored
from segdata.core import records
from segdata.core.stream import Stream
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


def packed_row(image, size):
    """The record of an image file whose mask is 0."""
    mask = np.zeros(PIL.Image.open(io.BytesIO(image)).size[::-1], np.uint8)
    example = Stored(id="a", group="a", image=image, mask=mask)
    row = packing.row(example, packing.Rule.of(size, fit="stretch", has_instances=False))
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
    packed = pack(built_dsb2018)
    for example, row in zip(examples_of(built_dsb2018), packed.array(), strict=True):
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
    row = packed_row(buffer.getvalue(), size)
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
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, "JPEG")
    row = packed_row(buffer.getvalue(), (8, 32))
    decoded = np.asarray(PIL.Image.open(buffer))
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


def resized(example, size, box=None):
    """Image and mask of a built example at a size."""
    image = np.asarray(PIL.Image.open(io.BytesIO(example["image"])).convert("RGB"))
    mask = np.asarray(PIL.Image.open(io.BytesIO(example["mask"])))
    return np.dstack([resizing.image(image, size), resizing.mask(mask, size)])


def examples_of(built, split="train", config=""):
    builder: Any = packing.built(f"dsb2018{config}", data_dir=built)
    data = builder.as_dataset(
        split=split, decoders={key: tfds.decode.SkipDecoding() for key in ("image", "mask")}
    )
    return list(tfds.as_numpy(data))


def test_records_of_native_size_are_the_images(built):
    packed = pack(built, size="native")
    assert packed.size is None
    assert len({row.shape for row in packed}) > 1
    for example, row in zip(examples_of(built), packed, strict=True):
        shape = PIL.Image.open(io.BytesIO(example["mask"])).size[::-1]
        np.testing.assert_array_equal(row, resized(example, shape))
    streamed = tf.data.TFRecordDataset(str(packed.path)).as_numpy_iterator()
    for row, record in zip(packed, streamed, strict=True):
        assert row.tobytes() == record
    with pytest.raises(ValueError, match="differ in size; take them one by one"):
        packed.array()
    packed.verify()
    again = records.load(packed.manifest)
    np.testing.assert_array_equal(again[3], packed[3])
    np.testing.assert_array_equal(pack(built, "train[5:]", size="native")[0], packed[5])


def test_a_longest_side_reduces_larger_images_in_their_proportions(built):
    packed = pack(built, size=300)
    for example, row in zip(examples_of(built), packed, strict=True):
        width, height = PIL.Image.open(io.BytesIO(example["mask"])).size
        scale = min(1, 300 / max(height, width))
        assert row.shape[:2] == (round(height * scale), round(width * scale))
        np.testing.assert_array_equal(row, resized(example, row.shape[:2]))
    assert max(max(row.shape) for row in packed) == 300
    assert min(max(row.shape) for row in packed) < 300


@pytest.mark.parametrize("size", [(40, 100), (100, 40), (64, 64)])
@pytest.mark.parametrize("fit", ["letterbox", "crop"])
def test_shapes_stay_where_they_are_asked_to(built, fit, size):
    packed = packing.pack("dsb2018", "train", size=size, fit=fit, data_dir=built)
    assert packed.size == size
    for example, row in zip(examples_of(built), packed.array(), strict=True):
        width, height = PIL.Image.open(io.BytesIO(example["mask"])).size
        ratios = size[0] / height, size[1] / width
        scale = min(ratios) if fit == "letterbox" else max(ratios)
        inner = round(height * scale), round(width * scale)
        whole = resized(example, inner)
        top, left = (abs(a - b) // 2 for a, b in zip(size, inner, strict=True))
        if fit == "crop":
            expected = whole[top : top + size[0], left : left + size[1]]
        else:
            expected = np.zeros((*size, 4), np.uint8)
            expected[..., 3] = 255
            expected[top : top + inner[0], left : left + inner[1]] = whole
        np.testing.assert_array_equal(row, expected)
    assert packed.path != pack(built, size=size).path


@pytest.mark.parametrize(
    ("size", "fit"),
    [
        ("large", "stretch"),
        (0, "stretch"),
        (70_000, "stretch"),
        ("native", "crop"),
        (9, "letterbox"),
        ((4, 4), "squash"),
        (True, "stretch"),
        ((4, 4, 4), "stretch"),
        (None, "stretch"),
    ],
)
def test_sizes_and_fits_that_are_none_are_named(built_dsb2018, size, fit):
    with pytest.raises(ValueError, match=r"^(size|fit)="):
        packing.pack("dsb2018", "train", size=size, fit=fit, data_dir=built_dsb2018)


def test_maps_of_instances_lie_beside_the_records(built_dsb2018, tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (3, 6, 5, 4), np.uint8)
    maps = rng.integers(0, 65_536, (3, 6, 5)).astype(np.uint16)
    kept = records.write(
        tmp_path / "x.json",
        zip(rows, maps, strict=True),
        size=(6, 5),
        source={},
        has_instances=True,
    )
    for number in range(3):
        np.testing.assert_array_equal(kept.instances(number), maps[number])
    np.testing.assert_array_equal(kept.index()["objects"], maps.max(axis=(1, 2)))
    np.testing.assert_array_equal(kept.select([2])[0], rows[2])
    np.testing.assert_array_equal(kept.select([2]).instances(0), maps[2])
    kept.verify()
    with kept.instances_path.open("r+b") as file:
        file.write(b"\0\1\2\3")
    with pytest.raises(OSError, match="is damaged"):
        kept.verify()
    with pytest.raises(ValueError, match="has no feature `instances`"):
        packing.pack("dsb2018", "train", size=(8, 8), instances=True, data_dir=built_dsb2018)
    with pytest.raises(ValueError, match="has no maps of instances"):
        pack(built_dsb2018).instances(0)


@pytest.mark.parametrize("classes", [0, 2, 200])
@pytest.mark.parametrize("size", [(6, 5), None])
def test_the_document_of_the_format_reads_it(tmp_path, classes, size):
    """The reader in docs/records.md, as it is written there."""
    document = pathlib.Path(__file__).parents[1] / "docs" / "records.md"
    reader = document.read_text().split("```python\n")[1].split("```")[0]
    assert sum(map(bool, reader.splitlines())) <= 15
    shapes = [(6, 5)] * 4 if size else [(6, 5), (1, 1), (9, 2), (3, 3)]
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 256, (*shape, 4), np.uint8) for shape in shapes]
    maps = [rng.integers(0, 9, shape).astype(np.uint16) for shape in shapes]
    packed = records.write(
        tmp_path / "x.json",
        zip(rows, maps, strict=True),
        size=size,
        source={},
        classes=classes,
        has_instances=True,
    )
    names: dict = {}
    exec(reader, names)
    found = list(names["read"](packed.manifest))
    assert len(found) == 4
    for (image, mask, instances, index), row, numbers in zip(found, rows, maps, strict=True):
        np.testing.assert_array_equal(np.dstack([image, mask]), row)
        np.testing.assert_array_equal(instances, numbers)
        np.testing.assert_array_equal(index["means"], records.means_of(row))
        np.testing.assert_array_equal(index["places"], records.places_of(row[..., 3], classes))


KILLED = """
import os, pathlib, sys
import numpy as np
from segdata.core import records
rows = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 4), np.uint8)
maps = rows[..., 0].astype(np.uint16)
def some(first):
    print("from", first, flush=True)
    for number in range(first, 12):
        if number == int(sys.argv[2]):
            os.kill(os.getpid(), 9)
        yield rows[number], maps[number]
packed = records.write(
    pathlib.Path(sys.argv[1], "x.json"), some, size=(16, 16), source={}, has_instances=True
)
np.testing.assert_array_equal(packed.array(), rows)
np.testing.assert_array_equal([packed.instances(i) for i in range(12)], maps)
packed.verify()
print(sorted(path.suffix for path in pathlib.Path(sys.argv[1]).iterdir()))
"""


def killed_at(number, folder):
    command = [sys.executable, "-c", KILLED, str(folder), str(number)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in (0, -9), done.stderr
    return done.stdout


def parts_of(folder):
    """The unfinished file of each kind, a buffer of it written out."""
    return {path.suffixes[0]: path for path in folder.glob("x-*.part")}


@pytest.mark.parametrize(
    "damage",
    [
        *("none", "a cut record", "a flipped bit", "a longer index", "no maps", "odd manifest"),
        *("zeros in a map", "no log"),
    ],
)
def test_packing_that_was_killed_is_resumed_from_what_is_whole(tmp_path, damage):
    rows = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 4), np.uint8)

    def interrupted(first):
        yield from ((row, row[..., 0].astype(np.uint16)) for row in rows[first:7])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        records.write(
            tmp_path / "x.json", interrupted, size=(16, 16), source={}, has_instances=True
        )
    parts = parts_of(tmp_path)
    whole = parts[".tfrecord"].stat().st_size // (16 * 16 * 4 + 16)
    assert whole >= 1
    expected = whole
    if damage == "a cut record":
        os.truncate(parts[".tfrecord"], parts[".tfrecord"].stat().st_size - 1)
        expected -= 1
    elif damage == "a flipped bit":
        with parts[".tfrecord"].open("r+b") as file:
            file.seek(60)
            file.write(bytes([file.read(1)[0] ^ 1]))
            file.seek(60)
            byte = file.read(1)[0]
            file.seek(60)
            file.write(bytes([byte ^ 1]))
        expected = 0
    elif damage == "a longer index":
        with parts[".index"].open("ab") as file:
            file.write(bytes(50))
    elif damage == "no maps":
        parts[".instances"].unlink()
        expected = 0
    elif damage == "odd manifest":
        (tmp_path / "x.json.part").write_text('{"token": "../../x"}')
        expected = 0
    elif damage == "zeros in a map":  # its largest number is as it was
        held = np.memmap(parts[".instances"], np.uint16, "r+", shape=(whole, 256))
        held[2, np.flatnonzero(held[2] != held[2].max())[:9]] = 0
        held.flush()
        expected = 2
    elif damage == "no log":  # as an earlier release left it
        kept = tmp_path / "x.json.part"
        kept.write_text(kept.read_text().splitlines()[0])
        expected = 0
    found = killed_at(99, tmp_path).splitlines()
    assert found == [f"from {expected}", "['.index', '.instances', '.json', '.tfrecord']"]


def test_packing_that_is_killed_leaves_nothing_under_a_final_name(tmp_path):
    assert killed_at(5, tmp_path).splitlines() == ["from 0"]
    assert {path.suffix for path in tmp_path.iterdir()} == {".part"}
    assert (
        killed_at(99, tmp_path).splitlines()[1] == "['.index', '.instances', '.json', '.tfrecord']"
    )


@pytest.mark.parametrize(
    "row",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((4, 5, 4), np.uint8),
        np.zeros((4, 4, 4), np.int8),
        np.zeros((0, 4, 4), np.uint8),
        "row",
    ],
)
def test_rows_of_another_kind_are_refused_by_name(tmp_path, row):
    for size in ((4, 4), None):
        if size is None and np.shape(row) == (4, 5, 4):
            continue
        with pytest.raises(ValueError, match=r"^a record is .*, not uint8 \["):
            records.write(tmp_path / "x.json", [row], size=size, source={})
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_with_a_size_of_the_same_area_is_not_believed(tmp_path):
    packed = records.write(
        tmp_path / "x.json", np.zeros((3, 4, 6, 4), np.uint8), size=(4, 6), source={}
    )
    noted = json.loads(packed.manifest.read_text())
    packed.manifest.write_text(json.dumps(noted | {"size": [6, 4]}))
    with pytest.raises(ValueError, match=r"is no manifest of a packed file: size=\(6, 4\)"):
        records.load(packed.manifest)


@pytest.mark.parametrize(
    ("field", "value"),
    [("start", -1 << 40), ("start", 1 << 30), ("height", -3), ("height", 0), ("width", 65_535)],
)
def test_an_index_that_leads_elsewhere_is_refused_whatever_its_time(tmp_path, field, value):
    """Compiled loops would read what is not theirs."""
    rows = [np.zeros((k + 1, 3, 4), np.uint8) for k in range(5)]
    packed = records.write(tmp_path / "x.json", rows, size=None, source={}, classes=2)
    times = packed.index_path.stat()
    index = np.fromfile(packed.index_path, records.index_type(2))
    index[field][2] = value
    index.tofile(packed.index_path)
    os.utime(packed.index_path, ns=(times.st_atime_ns, times.st_mtime_ns))
    for call in (packed.verify, lambda: records.load(packed.manifest)):
        with pytest.raises(OSError, match="is cut: delete it"):
            call()
    assert records.opened(packed.manifest, size=None, count=5, source={}, classes=2) is None


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="open files cannot be counted")
def test_views_share_the_open_files(tmp_path):
    packed = records.write(
        tmp_path / "x.json", np.zeros((9, 4, 4, 4), np.uint8), size=(4, 4), source={}
    )
    before = len(os.listdir("/dev/fd"))
    views = [packed.select([row]).select([0]) for row in range(9)]
    assert len(os.listdir("/dev/fd")) == before
    copied = pickle.loads(pickle.dumps(views[3]))
    path = packed.path
    del packed
    gc.collect()
    assert files.in_use(path)  # by the views
    del views, copied
    gc.collect()
    assert not files.in_use(path)


def test_what_is_pickled_is_checked_when_it_is_opened_elsewhere(tmp_path):
    packed = records.write(
        tmp_path / "x.json", np.full((9, 4, 4, 4), 7, np.uint8), size=(4, 4), source={}
    )
    held = pickle.dumps(Stream(packed, batch=2))
    assert (pickle.loads(held).batch(0)[0] == 7).all()
    os.truncate(packed.path, 300)
    with pytest.raises(OSError, match="is cut: delete it"):
        pickle.loads(held)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("which", ["manifest", "path", "index_path", "unfinished"])
def test_a_pipe_is_not_waited_for(tmp_path, which):
    packed = records.write(
        tmp_path / "x.json", np.zeros((9, 4, 4, 4), np.uint8), size=(4, 4), source={}
    )
    path = tmp_path / "x.json.part" if which == "unfinished" else getattr(packed, which)
    manifest = packed.manifest
    del packed
    gc.collect()
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    if which != "unfinished":
        with pytest.raises(OSError, match=r"no file|there is no such manifest"):
            records.load(manifest)
        assert records.opened(manifest, size=(4, 4), count=9, source={}) is None
    rows = np.ones((9, 4, 4, 4), np.uint8)
    again = records.write(manifest, lambda first: rows[first:], size=(4, 4), source={})
    np.testing.assert_array_equal(again.array(), rows)


def test_damage_to_the_dataset_itself_is_named(built):
    shard = next(pathlib.Path(built).glob("dsb2018/default/*/dsb2018-train*"))
    with shard.open("r+b") as file:
        file.seek(shard.stat().st_size // 2)
        file.write(b"damage")
    with pytest.raises(OSError, match=r"default.* is damaged: .*dsb2018-train.*--overwrite"):
        pack(built, size=(9, 9))


def test_verifying_sees_the_frames_too(tmp_path):
    packed = records.write(
        tmp_path / "x.json", np.zeros((3, 4, 6, 4), np.uint8), size=(4, 6), source={}
    )
    for place in (0, 9, packed.path.stat().st_size - 1):
        with packed.path.open("r+b") as file:
            file.seek(place)
            file.write(b"\7")
        with pytest.raises(OSError, match="is damaged"):
            packed.verify()


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
