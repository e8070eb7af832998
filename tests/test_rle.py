import collections
import io
import zipfile

import numpy as np
import pytest

from segdata import archives
from segdata.archives import rle, trees

# Both evaluation pages use this very example of a submission's pairs.
OFFICIAL = "1 3 10 5"
PIXELS = [1, 2, 3, 10, 11, 12, 13, 14]


@pytest.mark.parametrize("order", ["columns", "rows"])
def test_the_example_of_the_evaluation_pages_is_the_pixels_they_name(order):
    mask = rle.decode(OFFICIAL, shape=(4, 5), order=order)
    counted = mask.T.ravel() if order == "columns" else mask.ravel()
    assert (np.flatnonzero(counted) + 1).tolist() == PIXELS
    assert rle.encode(mask, order=order) == OFFICIAL


def test_columns_go_down_and_rows_go_right():
    # Worked by hand: 3 rows, 4 columns; DSB2018 numbers down, Carvana to the right.
    down = [[1, 0, 0, 1], [1, 0, 0, 1], [0, 1, 0, 1]]
    right = [[1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 1, 1]]
    assert (
        rle.decode("1 2 6 1 10 3", shape=(3, 4), order="columns").tolist()
        == np.array(down, bool).tolist()
    )
    assert (
        rle.decode("1 2 6 1 10 3", shape=(3, 4), order="rows").tolist()
        == np.array(right, bool).tolist()
    )
    assert rle.encode(np.array(down), order="rows") == "1 1 4 2 8 1 10 1 12 1"


@pytest.mark.parametrize("order", ["columns", "rows"])
@pytest.mark.parametrize("density", [0, 0.02, 0.5, 0.98, 1])
def test_a_mask_comes_back_exactly(order, density):
    rng = np.random.default_rng(3)
    for shape in ((1, 1), (1, 9), (9, 1), (31, 47)):
        mask = rng.random(shape) < density
        runs = rle.encode(mask.astype(np.uint8) * 255, order=order)
        assert np.array_equal(rle.decode(runs, shape=shape, order=order), mask)


@pytest.mark.parametrize("order", ["columns", "rows"])
def test_an_encoding_has_as_few_runs_as_can_be(order):
    mask = rle.decode("1 2 3 2 9 1", shape=(4, 5), order=order)  # the first two runs touch
    assert rle.encode(mask, order=order) == "1 4 9 1"


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ("1 3 10", "3 numbers, the last of them 10"),
        ("0 3", "“0 3” holds a 0"),
        ("1 3 9 0", "“9 0” holds a 0"),
        ("1 -3", "'-3' is no start or length"),
        ("1 3.5", "'3.5' is no start"),
        ("1 3 x 5", "'x' is no start"),
        ("1 ١", "'١' is no start"),
        ("1\u00a03", r"'1\\xa03' is no start"),
        ("1\u20033 5 1", r"'1\\u20033' is no start"),
        ("1 3\x1c", r"'3\\x1c' is no start"),
        ("1 " + "9" * 5_000, "'9{40}' is no start"),
        ("1_0 1", "'1_0' is no start"),
        ("9 1 1 3", "“1 3” begins before run “9 1” ends"),
        ("1 3 3 2", "“3 2” begins before run “1 3” ends"),
        ("1 3 1 3", "“1 3” begins before"),
        ("20 2", "“20 2” ends at pixel 21; the image has 4×5 = 20"),
        ("999999999999999999 1", "ends at pixel 999,999,999,999,999,999"),
        ("99999999999999999999 1", "'99999999999999999999' is no start"),
    ],
)
def test_bad_runs_are_refused_with_their_value(runs, message):
    with pytest.raises(ValueError, match=message):
        rle.decode(runs, shape=(4, 5), order="rows")


def test_the_last_pixel_is_in_the_image():
    assert rle.decode("20 1", shape=(4, 5), order="rows")[-1, -1]
    assert not rle.decode("", shape=(4, 5), order="rows").any()


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match="'down': it is 'columns'"):
        rle.encode(np.ones((2, 2)), order="down")  # pyright: ignore[reportArgumentType]


SOLUTION = (
    "ImageId,EncodedPixels,Height,Width,Usage\n"
    "aa,1 2 6 1,3,4,Public\naa,10 3,3,4,Public\nbb,1 1,2,2,Private\n"
)
TRAIN = "img,rle_mask\n00_01.jpg,1 3\n00_02.jpg,\n"


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def places(tmp_path, name, text):
    """The table as a file, as a zip, in a folder's tree, and zipped in a zip's tree."""
    data = text.encode()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).write_bytes(data)
    (tmp_path / f"{name}.zip").write_bytes(zipped({name: data}))
    packed = zipped({f"{name}.zip": zipped({name: data})})
    (tmp_path / "all.zip").write_bytes(packed)
    return [
        tmp_path / "folder" / name,
        tmp_path / f"{name}.zip",
        trees.open(tmp_path / "folder"),
        trees.open(tmp_path / "all.zip"),
    ]


def test_a_solution_joins_the_rows_of_an_image(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for source in places(tmp_path, "stage1_solution.csv", SOLUTION):
        first, second = rle.read_stage1(source)
        assert (first.id, first.shape, len(first.runs)) == ("aa", (3, 4), 2)
        assert rle.encode(first.mask((3, 4)), order="columns") == "1 2 6 1 10 3"
        assert second.mask((2, 2)).tolist() == [[True, False], [False, False]]


def test_train_masks_go_along_rows_and_may_be_empty(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for source in places(tmp_path, "train_masks.csv", TRAIN):
        first, second = rle.read_train_masks(source)
        assert (first.id, first.mask((2, 2)).tolist()) == ("00_01", [[True, True], [True, False]])
        assert not second.mask((2, 2)).any()


def test_labels_without_heights_take_the_shape_of_the_mask(tmp_path):
    path = tmp_path / "stage1_train_labels.csv"
    path.write_bytes(b'\xef\xbb\xbf"ImageId","EncodedPixels"\r\naa,1 2\r\n\r\n')
    (only,) = rle.read_stage1(path)
    assert only.shape is None
    assert only.mask((2, 2)).tolist() == [[True, False], [True, False]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no column 'ImageId'"),
        ("img,rle_mask\n", "there is no column 'ImageId'; it begins with 'img,rle_mask'"),
        ("ImageId,EncodedPixels\naa\n", "line 2: 1 fields, the first line has 2"),
        ("ImageId,EncodedPixels\naa,1 1\nbb,1 1\naa,2 1\n", "line 4: the rows of aa do not stand"),
        ("ImageId,EncodedPixels,Height,Width\naa,1 1,x,2\n", "line 2: 'x' is no height"),
        ("ImageId,EncodedPixels,Height,Width\naa,1 1,٢,2\n", "line 2: '٢' is no height"),
        (f"ImageId,EncodedPixels,Height,Width\naa,1 1,{'9' * 5_000},2\n", "line 2: '9{40}' is no"),
        ("ImageId,EncodedPixels\naa,1\u00a03\n", r"line 2: aa: '1\\xa03' is no start"),
        (f"ImageId,EncodedPixels\n{'a' * 300},1 3\n", "has 300 characters; names of images"),
        ("ImageId,EncodedPixels,Height,Width\naa,5 1,2,2\n", "line 2: aa: run “5 1” ends at"),
        ("ImageId,EncodedPixels,Height,Width\naa,1 1,2,3\n", r"line 2: aa is \(2, 3\)"),
    ],
)
def test_a_bad_table_is_refused_with_its_line(tmp_path, text, message):
    path = tmp_path / "stage1_solution.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        [encoded.mask((2, 2)) for encoded in rle.read_stage1(path)]


def test_a_table_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "train_masks.csv"
    path.write_bytes(b"img,rle_mask\n\xff\xfe")
    with pytest.raises(ValueError, match=r"train_masks\.csv is no text in UTF-8"):
        list(rle.read_train_masks(path))


def test_a_zip_that_holds_itself_is_refused(tmp_path):
    data = zipped({"train_masks.csv": TRAIN.encode()})
    for _ in range(12):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("train_masks.csv.zip", data)
        data = buffer.getvalue()
    (tmp_path / "all.zip").write_bytes(data)
    with pytest.raises(archives.ArchiveError, match="lies in itself more than 8 times"):
        list(rle.read_train_masks(tmp_path / "all.zip"))


HEAD = b"ImageId,EncodedPixels\n"
HOSTILE = {  # each of a few kilobytes when deflated, or of much less than it would take
    "many rows of one image": HEAD + b"a,\n" * 100_000,
    "one long line": HEAD + b"a," + b"1 " * 8_000_000,
    "a line of short runs": HEAD + b"a," + b"1 1 " * 260_000,
    "long rows of one image": HEAD + (b"a," + b"1 1 " * 50_000 + b"\n") * 100,
    "a header of commas": b"," * 16_000_000,
    "a shorter header of commas": b"a," * 500_000,
    "a row of commas": HEAD + b"ab," * 300_000,
    "long names": HEAD + (b"a" * 500_000 + b",\n") * 20,
    "no-break spaces": HEAD + b"a," + "\u00a0".encode() * 400_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_table_is_refused_by_name_in_little_memory(tmp_path, name):
    import tracemalloc

    path = tmp_path / "stage1_train_labels.csv.zip"
    path.write_bytes(zipped({"stage1_train_labels.csv": HOSTILE[name]}))
    tracemalloc.start()
    try:
        table = rle.read_stage1(path, name="stage1_train_labels.csv")
        with pytest.raises(ValueError, match=r"stage1_train_labels\.csv"):
            collections.deque((e.mask((10, 10)) for e in table if e.runs != ("",)), maxlen=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20


def test_a_table_of_more_images_than_any_is_refused(tmp_path):
    path = tmp_path / "stage1_solution.csv"
    path.write_bytes(HEAD + b"".join(b"%x,\n" % number for number in range(65_537)))
    with pytest.raises(ValueError, match="line 65538: more than 65,536 images"):
        collections.deque(rle.read_stage1(path), maxlen=0)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(archives.ArchiveError, match=r"there is no train_masks\.csv in it"):
        list(rle.read_train_masks(trees.open(tmp_path)))


def test_a_long_table_is_read_in_little_memory(tmp_path):
    import tracemalloc

    path = tmp_path / "train_masks.csv"
    row = " ".join(f"{start} 7" for start in range(1, 20_000, 10))
    with path.open("w") as file:
        file.write("img,rle_mask\n")
        file.writelines(f"{number}.jpg,{row}\n" for number in range(1_500))
    assert path.stat().st_size > 15e6
    tracemalloc.start()
    assert sum(1 for _ in rle.read_train_masks(path)) == 1_500
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6e6  # 3.2 MB: a chunk, as bytes, as text and as lines


@pytest.mark.parametrize("order", ["columns", "rows"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (31, 47)])
def test_objects_written_at_once_are_those_written_one_by_one(order, shape):
    for seed in range(5):
        labels = np.random.default_rng(seed).integers(0, 2 + 3 * seed, shape, np.int32)
        labels *= 3  # numbers without pixels
        numbers = np.unique(labels[labels > 0])
        one_by_one = [rle.encode(labels == number, order=order) for number in numbers]
        rows = rle.encode_objects(labels, order=order)
        assert rows == one_by_one
        read = rle.Encoded(id="a", runs=tuple(rows), order=order, shape=None, where="here")
        wanted = np.where(labels > 0, np.searchsorted(numbers, labels) + 1, 0)
        assert np.array_equal(read.labels(shape), wanted)


def test_objects_that_share_pixels_are_named():
    runs = ("1 3", "5 2", "2 1 9 1")
    read = rle.Encoded(id="a", runs=runs, order="rows", shape=None, where="table, line 2")
    with pytest.raises(ValueError, match="table, line 2: a: objects 1 and 3 share pixels"):
        read.labels((3, 4))
    empty = rle.Encoded(id="a", runs=("",), order="rows", shape=None, where="here")
    assert not empty.labels((3, 4)).any()
