import collections
import itertools
import pathlib
from typing import Any

import pytest
import tensorflow_datasets as tfds
from building import build

from segdata import packing, pipeline
from segdata.building import slices
from segdata.sources import carvana

SLICES = [
    ("train[:80%]", "train[80%:]"),
    ("train[:3%]", "train[3%:50%]", "train[50%:]"),
    ("train[:2]", "train[2:11]", "train[11:]"),
    ("train[:-3]", "train[-3:]"),
    ("train[:1shard]", "train[1shard:]"),
    tuple(tfds.even_splits("train", n=3)),
    (*tfds.even_splits("train[:60%]", n=2), "train[60%:]"),
]


@pytest.fixture(scope="module")
def cars(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A builder of 8 cars of 5 views in three files; one car is for validation."""
    folder = tmp_path_factory.mktemp("cars")
    carvana.draw(folder / "manual", examples=40, seed=1, size=(16, 24), views=5)
    return build("carvana", folder / "manual", folder / "data", num_shards=3)


def read(built: Any, split: Any) -> list[tuple[str, str]]:
    """Id and group of each example, in the order of the files."""
    data = built.as_dataset(
        split=split,
        decoders={key: tfds.decode.SkipDecoding() for key in ("image", "mask")},
        read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
    )
    return [(e["id"].decode(), e["group"].decode()) for e in tfds.as_numpy(data)]


@pytest.mark.parametrize("parts", SLICES, ids=str)
def test_slices_part_no_group_and_make_up_the_split(cars, parts):
    found = [read(cars, part) for part in parts]
    assert list(itertools.chain(*found)) == read(cars, "train")
    assert all(found)
    groups = [{group for _, group in part} for part in found]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 7
    assert [cars.info.splits[part].num_examples for part in parts] == list(map(len, found))


@pytest.mark.parametrize("parts", SLICES[:5], ids=str)
def test_python_readers_and_packed_files_hold_the_same_slices(cars, parts, tmp_path):
    """Also of `array_record`, and of a list of splits."""
    manual = pathlib.Path(cars.data_dir).parents[3] / "manual"
    config = tfds.download.DownloadConfig(manual_dir=manual, num_shards=3)
    sources: Any = tfds.data_source(
        "carvana",
        split=list(parts),
        data_dir=tmp_path,
        builder_kwargs={"file_format": "array_record"},
        download_and_prepare_kwargs={"download_config": config},
    )
    data_dir = pathlib.Path(cars.data_dir).parents[2]
    for part, source in zip(parts, sources, strict=True):
        expected = read(cars, part)
        assert [(e["id"].decode(), e["group"].decode()) for e in source] == expected
        packed = packing.pack("carvana", part, size=(8, 12), data_dir=data_dir)
        assert packed.count == len(packed.array()) == len(expected)
        assert pipeline.steps_per_epoch("carvana", part, batch=1, data_dir=data_dir) == packed.count


def test_a_slice_whose_ends_move_together_is_told_why_it_is_empty(cars):
    for part, why in (("train[11:12]", ": slices keep groups whole"), ("train[12:12]", r"\.")):
        with pytest.raises(ValueError, match="holds no examples" + why):
            packing.examples(cars, part)


def test_files_may_be_shuffled_and_each_group_is_contiguous_in_no_order_of_their_names(cars):
    shuffled = cars.as_dataset(split="train[:80%]", shuffle_files=True)
    assert len(list(shuffled)) == cars.info.splits["train[:80%]"].num_examples
    groups = [group for _, group in read(cars, "train")]
    runs = [key for key, _ in itertools.groupby(groups)]
    assert len(runs) == len(set(runs)) == 7
    assert runs != sorted(runs)
    assert cars.info.metadata["groups"] == {
        "train": [groups.count(run) for run in runs],
        "validation": [cars.info.splits["validation"].num_examples],
    }


@pytest.mark.parametrize("name", ["dsb2018", "cityscapes_pairs"])
def test_where_every_group_is_of_one_slices_are_those_of_tfds(name, manual_dirs, tmp_path):
    built = build(name, manual_dirs[name], tmp_path)
    assert "groups" not in built.info.metadata
    count = built.info.splits["train"].num_examples
    for percent in (1, 33, 50, 80):
        expected = round(count * percent / 100)
        assert built.info.splits[f"train[:{percent}%]"].num_examples == expected


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_ends_move_to_the_nearest_end_of_a_group_and_stay_in_order(count):
    """Every pair of ends of every kind of split, against a search through all."""
    sizes = [(7 * i) % 5 + 1 for i in range(count)]
    ends = list(itertools.accumulate(sizes))
    moved = [slices._nearest(ends, index) for index in range(ends[-1] + 1)]
    assert moved == sorted(moved)
    assert set(moved) <= {0, *ends}
    assert (moved[0], moved[-1]) == (0, ends[-1])
    for index in range(1, ends[-1]):
        apart = {end: abs(end - index) for end in (ends[:-1] or ends)}
        assert moved[index] == min(end for end in apart if apart[end] == min(apart.values()))


def test_sizes_are_of_stretches():
    groups = "aaabccd"
    assert slices.sizes(groups) == [3, 1, 2, 1]
    assert sum(slices.sizes(groups)) == sum(collections.Counter(groups).values())
