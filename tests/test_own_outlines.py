import json
from typing import Any

import numpy as np
import own_folders as own
import pytest
import tensorflow_datasets as tfds
from pycocotools import mask as coco

from segdata.archives import ArchiveError, annotations
from segdata.sources.folder import pairing

HEIGHT, WIDTH = own.SIZE
CLASSES = ["cell", "hole"]


def polygon(seed, scale=1.0):
    """A star of ten corners around a point of the image, x and y in turn."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform((12, 12), (WIDTH - 12, HEIGHT - 12))
    radius = np.where(np.arange(10) % 2, 4, 9) * scale
    angle = np.linspace(0, 2 * np.pi, 10, endpoint=False) + seed
    corners = centre + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return corners.round(2)


def runs(mask):
    """Lengths of runs down the columns, first of what is outside: one pixel after the other."""
    found, inside = [0], 0
    for pixel in mask.T.ravel().tolist():
        if pixel != inside:
            found.append(0)
            inside = pixel
        found[-1] += 1
    return found


def disc(seed):
    y, x = np.random.default_rng(seed).integers(8, 30, 2)
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    return ((rows - y) ** 2 + (columns - x) ** 2 < 40).astype(np.uint8)


def filled(corners):
    parts = coco.frPyObjects([corners.ravel().tolist()], HEIGHT, WIDTH)
    return coco.decode(coco.merge(parts)) > 0


def stacked(shapes):
    """Numbers from 1 of bool [H, W] each: the smallest on top, of equally large ones the first."""
    objects = np.zeros(own.SIZE, np.uint16)
    for number in sorted(range(len(shapes)), key=lambda at: (-shapes[at].sum(), -at)):
        objects[shapes[number]] = number + 1
    return objects


def annotation(image, category, segmentation, **more):
    return {"image_id": image, "category_id": category, "segmentation": segmentation, **more}


def lay_coco(root, count=5):
    """Images, and a JSON with a polygon, runs as a list and as text, and a crowd in each."""
    images, found, expected = [], [], {}
    for seed in range(count):
        own.write(root / "images" / f"x{seed}.png", own.photo(seed))
        images.append({"id": seed, "file_name": f"x{seed}.png", "width": WIDTH, "height": HEIGHT})
        shapes = [filled(polygon(seed)), disc(seed) > 0, disc(seed + 50) > 0]
        text = coco.encode(np.asfortranarray(disc(seed + 50)))["counts"].decode()
        crowd = disc(seed + 90) > 0
        size = [HEIGHT, WIDTH]
        found += [
            annotation(seed, 3, [polygon(seed).ravel().tolist()]),
            annotation(seed, 9, {"counts": runs(disc(seed)), "size": size}),
            annotation(seed, 3, {"counts": text, "size": size}),
            annotation(seed, 9, {"counts": runs(crowd), "size": size}, iscrowd=1),
        ]
        objects = stacked(shapes)
        mask = np.array([0, 1, 2, 1])[objects]
        mask[crowd & (objects == 0)] = 255
        expected[f"x{seed}"] = (mask, objects)
    kinds = [{"id": 9, "name": "hole"}, {"id": 3, "name": "cell"}]
    document = {"images": images, "annotations": found, "categories": kinds}
    (root / "a.json").write_text(json.dumps(document))
    return document, expected


def test_coco_is_drawn_exactly(tmp_path):
    _, expected = lay_coco(tmp_path)
    code, out, err = own.build(tmp_path, "--coco", tmp_path / "a.json")
    assert code == 0, err
    assert "Classes: 0 background, 1 cell, 2 hole." in out
    own.equal(tmp_path, {key: mask for key, (mask, _) in expected.items()})
    own.equal(tmp_path, {key: objects for key, (_, objects) in expected.items()}, "instances")


def test_an_image_without_objects_is_background_and_one_not_listed_is_named(tmp_path):
    document, _ = lay_coco(tmp_path)
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] != 2]
    document["images"] = [i for i in document["images"] if i["id"] != 4]
    document["images"].append({"id": 8, "file_name": "gone.png"})
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] != 4]
    (tmp_path / "a.json").write_text(json.dumps(document))
    flags = ["--coco", tmp_path / "a.json"]
    code, _, err = own.build(tmp_path, *flags)
    assert code == 2
    assert "1 image without annotations: x4.png" in err
    assert "1 annotation without an image: gone.png" in err
    code, out, _ = own.build(tmp_path, *flags, "--unpaired", "skip")
    assert code == 0
    assert "2 examples were left out; the dataset's metadata lists them under `skipped`" in out
    metadata: Any = tfds.builder("mine", data_dir=tmp_path / "data").info.metadata
    assert metadata["skipped"] == {"x4": "it has no mask.", "gone.png": "nothing pairs with it."}
    found = own.examples(tmp_path)
    assert sorted(found) == ["x0", "x1", "x2", "x3"]
    assert not found["x2"]["mask"].any()


def test_a_licence_that_the_file_names_is_said(tmp_path):
    document, _ = lay_coco(tmp_path)
    named = [{"id": 1, "name": "CC BY 4.0", "url": "x"}, {"id": 2, "name": "", "url": "y"}, 3]
    (tmp_path / "a.json").write_text(json.dumps({**document, "licenses": named}))
    flags = ["--coco", tmp_path / "a.json"]
    code, out, err = own.build(tmp_path, *flags)
    assert code == 0, err
    assert "names the licence CC BY 4.0, y, which is not kept; give --license." in out
    assert "the licence" not in own.build(tmp_path, *flags, "--license", "CC", name="told")[1]
    (tmp_path / "a.json").write_text(json.dumps({**document, "licenses": {"name": "odd"}}))
    assert "the licence" not in own.build(tmp_path, *flags, name="odd")[1]


FAULTS = {
    "a box": ({"segmentation": [], "bbox": [1, 2, 3, 4]}, "it has a box and no outline"),
    "two points": ({"segmentation": [[1, 2, 3, 4]]}, "at least 3 points"),
    "words": ({"segmentation": [["a"] * 6]}, "could not convert string"),
    "not a number": ({"segmentation": [[float("nan")] * 6]}, "a number that is none"),
    "far away": ({"segmentation": [[1, 2, 3, 4, 1e9, 5]]}, "far beyond the image of 56×40"),
    "short runs": ({"segmentation": {"counts": [5, 5], "size": [40, 56]}}, "do not fit"),
    "runs below 0": ({"segmentation": {"counts": [-5, 5], "size": [40, 56]}}, "whole numbers"),
    "text that is none": ({"segmentation": {"counts": "\x7f", "size": [40, 56]}}, "no part of"),
    "runs of no size": (
        {"segmentation": {"counts": [5], "size": [float("inf"), 40]}},
        "convert float infinity to integer",
    ),
    "a number of 400 digits": ({"segmentation": [[10**400] * 6]}, "too large"),
    "an unknown category": ({"category_id": 4}, "category 4 is not listed"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_outline_that_is_none_is_named_and_costs_its_image(tmp_path, fault):
    document, _ = lay_coco(tmp_path)
    change, message = FAULTS[fault]
    document["annotations"][0] |= change
    (tmp_path / "a.json").write_text(json.dumps(document))
    flags = ["--coco", tmp_path / "a.json"]
    code, _, err = own.build(tmp_path, *flags)
    assert code == 2
    assert message in err
    assert "x0.png" in err
    assert own.build(tmp_path, *flags, "--skip_damaged")[0] == 0
    assert sorted(own.examples(tmp_path)) == ["x1", "x2", "x3", "x4"]


def test_images_of_another_size_than_listed_are_named(tmp_path):
    lay_coco(tmp_path)
    own.write(tmp_path / "images" / "x1.png", own.photo(1, (WIDTH, HEIGHT)))
    code, _, err = own.build(tmp_path, "--coco", tmp_path / "a.json")
    assert code == 2
    assert "x1.png is 40×56, in" in err
    assert "--skip_sizes" in err


def test_run_lengths_say_the_size_of_an_image_where_its_entry_does_not(tmp_path):
    document, expected = lay_coco(tmp_path)
    for image in document["images"]:
        del image["width"], image["height"]
    (tmp_path / "a.json").write_text(json.dumps(document))
    flags = ["--coco", tmp_path / "a.json", "--overwrite"]
    assert own.build(tmp_path, *flags)[0] == 0
    own.equal(tmp_path, {key: mask for key, (mask, _) in expected.items()})
    own.write(tmp_path / "images" / "x1.png", own.photo(1, (WIDTH, HEIGHT)))  # as many pixels
    code, _, err = own.build(tmp_path, *flags)
    assert code == 2
    assert "x1.png is 40×56, in" in err
    document["annotations"][2]["segmentation"]["size"] = [WIDTH, HEIGHT]  # of x0, whose others fit
    (tmp_path / "a.json").write_text(json.dumps(document))
    code, _, err = own.build(tmp_path, *flags)
    assert code == 2
    assert "an annotation of x0.png: run lengths of" in err


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"images": [], "categories": [{"id": Infinity, "name": "a"}]}',
        '{"images": 3}',
        '{"images": [{}], "annotations": [], "categories": 1}',
    ],
)
def test_what_is_no_coco_is_one_error(text):
    with pytest.raises(ArchiveError, match=r"a\.json is no JSON of COCO"):
        annotations.read_coco(text.encode(), name="a.json")


def test_a_message_is_short_whatever_a_file_has(tmp_path):
    long = "x" * 5000
    for image, points in ((0, [long] * 6), (long, [0] * 6)):
        found = [{"image_id": image, "category_id": 1, "segmentation": [points]}]
        kinds, images = [{"id": 1, "name": "a"}], [{"id": 0, "file_name": "x.png"}]
        own.write(tmp_path / "images" / "x.png", own.photo(0))
        document = {"images": images, "annotations": found, "categories": kinds}
        (tmp_path / "a.json").write_text(json.dumps(document))
        code, _, err = own.build(tmp_path, "--coco", tmp_path / "a.json")
        assert code == 2
        assert len(err) < 1000
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "x.txt").write_text(f"0 {long}\n")
    flags = ["--yolo", tmp_path / "labels", "--classes", "background", "a"]
    assert len(own.build(tmp_path, *flags)[2]) < 1000


def test_text_of_run_lengths_is_read_like_pycocotools():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        mask = (rng.random((int(rng.integers(1, 90)), int(rng.integers(1, 90)))) < 0.3).astype("u1")
        text = coco.encode(np.asfortranarray(mask))["counts"].decode()
        shown = {"counts": text, "size": list(mask.shape)}
        outlines = annotations._coco_outline(annotation(0, 1, shown), {1: 1}, mask.shape)
        drawn = annotations.draw(annotations.Outlines(objects=(outlines,)), shape=mask.shape)
        np.testing.assert_array_equal(drawn.mask, mask)


def outlined(*polygons, shares=False):
    objects = tuple(
        annotations.Outline(label=1, polygons=(np.asarray(each, float),)) for each in polygons
    )
    return annotations.Outlines(objects=objects, are_shares=shares)


def test_polygons_are_drawn_as_pycocotools_does_wherever_they_are():
    for seed in range(200):
        rng = np.random.default_rng(seed)
        low = rng.uniform((-WIDTH, -HEIGHT), (WIDTH, HEIGHT))
        corners = low + rng.uniform(0, 30, (rng.integers(3, 9), 2)).round(int(rng.integers(0, 3)))
        drawn = annotations.draw(outlined(corners), shape=own.SIZE)
        np.testing.assert_array_equal(drawn.mask > 0, filled(corners), err_msg=str(seed))


def test_an_object_is_drawn_in_its_own_columns(monkeypatch):
    def decode(*_):
        raise AssertionError("the whole image is drawn")

    monkeypatch.setattr(coco, "decode", decode)
    triangles = [[(x, 2), (x + 18, 2), (x + 18, 20)] for x in range(0, 1900, 20)]
    drawn = annotations.draw(outlined(*triangles), shape=(2000, 2000))
    assert drawn.instances.max() == len(triangles)
    runs = annotations._runs_of(outlined(triangles[5]).objects[0], (2000, 2000), np.ones(2))
    columns, inside = annotations._decoded(runs, (2000, 2000))
    assert (columns, inside.shape) == (slice(101, 118), (2000, 17))


ENDLESS = {
    "long": (
        lambda: outlined([(-1999, 0), (3999, 1999)] * 20_000),
        "pixels long; up to 4,194,304 are drawn",
    ),
    "many parts": (
        lambda: annotations.Outlines(
            objects=(
                annotations.Outline(
                    label=1, polygons=(np.array([(-1999, 0), (3999, 1999), (0, 0.0)]),) * 1000
                ),
            )
        ),
        "pixels long",
    ),
    "many": (
        lambda: outlined(*[[(2, 2), (20, 2), (20, 20)]] * 65_536),
        "there are 65,536 objects, of which 65,535",
    ),
}


@pytest.mark.parametrize(("make", "message"), ENDLESS.values(), ids=ENDLESS)
def test_what_would_take_all_time_or_memory_is_refused_before_it_is_drawn(
    monkeypatch, make, message
):
    monkeypatch.delattr(coco, "frPyObjects")  # it would abort the process
    with pytest.raises(ValueError, match=message):
        annotations.draw(make(), shape=(2000, 2000))


def test_an_outline_of_too_many_numbers_is_refused():
    line = "0 " + "0.5 0.6 " * 300_000
    found = annotations.read_yolo(line, name="x.txt", classes=1)
    assert "x.txt, line 1: an outline of 600,001 numbers; up to 262,144 points" in found.fault
    with pytest.raises(ValueError, match="an outline of 600,000 numbers"):
        annotations._points([1.0] * 600_000)


def lay_yolo(root, naming, count=5):
    expected = {}
    for seed in range(count):
        part = "train" if seed < 4 else "val"
        own.write(root / "images" / part / f"x{seed}.png", own.photo(seed))
        lines, shapes = [], []
        for number in (1, 2):
            shares = (polygon(seed + 20 * number) / (WIDTH, HEIGHT)).round(6)
            lines.append(" ".join(map(str, [number - 1, *shares.ravel().tolist()])))
            shapes.append(filled(shares * (WIDTH, HEIGHT)))
        path = root / "labels" / part / f"x{seed}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
        split = "train" if seed < 4 else "validation"
        expected[f"{split}/x{seed}"] = stacked(shapes)
    for name, text in naming.items():
        (root / "labels" / name).write_text(text)
    return expected


NAMINGS = {
    "a list": {"data.yaml": "path: .\nnc: 2\nnames: ['cell', \"hole\"]  # two\n"},
    "a list of lines": {"data.yaml": "names:\n- cell\n- hole\nnc: 2\n"},
    "a mapping": {"data.yaml": "names: {0: cell, 1: hole}\n"},
    "a mapping of lines": {"data.yaml": "train: a\nnames:\n  0: cell\n  1: 'hole'\nval: b\n"},
    "a mapping in another order": {"data.yaml": "names:\n  1: hole\n  0: cell\n"},
    "two that agree": {"classes.txt": "cell\nhole\n", "data.yaml": "names: [cell, hole]\n"},
    "another YAML file": {"hyp.yaml": "lr0: 0.01\n", "data.yaml": "names: [cell, hole]\n"},
    "a text": {"classes.txt": "cell\nhole\n"},
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_yolo_is_drawn_exactly(tmp_path, naming):
    expected = lay_yolo(tmp_path, NAMINGS[naming])
    code, out, err = own.build(tmp_path, "--yolo", tmp_path / "labels")
    assert code == 0, err
    assert "Classes: 0 background, 1 cell, 2 hole." in out
    own.equal(tmp_path, expected)
    found = own.examples(tmp_path)
    assert {key.partition("/")[0] == example["split"] for key, example in found.items()} == {True}
    assert all(example["instances"].max() == 2 for example in found.values())


@pytest.mark.parametrize("name", ["classes.txt", "data.yaml"])
def test_a_byte_order_mark_is_no_part_of_a_name_or_a_number(tmp_path, name):
    naming = {"classes.txt": "cell\nhole\n", "data.yaml": "names: [cell, hole]\n"}
    expected = lay_yolo(tmp_path, {name: naming[name]})
    for path in (tmp_path / "labels").rglob("*.*"):
        path.write_text(path.read_text(), encoding="utf-8-sig")
    code, out, err = own.build(tmp_path, "--yolo", tmp_path / "labels")
    assert code == 0, err
    assert "Classes: 0 background, 1 cell, 2 hole." in out
    own.equal(tmp_path, expected)


def test_yolo_names_are_those_of_yaml():
    names = "names: ['a, b', no, \"c: d\", 1]\n"
    assert annotations.yolo_classes(names, name="data.yaml") == ("a, b", "no", "c: d", "1")


UNNAMED = {
    "a gap": ({"data.yaml": "names: {0: cell, 2: hole}\n"}, "it numbers them 0, 2, not 0, 1, 2"),
    "from 1": ({"data.yaml": "names: {1: cell, 2: hole}\n"}, "it numbers them 1, 2, not 0, 1, 2"),
    "twice": ({"data.yaml": "names: {0: cell, 0: hole}\n"}, "it numbers them 0, 0, not 0, 1, 2"),
    "a word as number": ({"data.yaml": "names: {a: cell}\n"}, "names of classes cannot be read"),
    "a list of lists": ({"data.yaml": "names: [[cell], hole]\n"}, "one of them is no word"),
    "a word": ({"data.yaml": "names: cell\n"}, "neither a list nor numbered"),
    "fewer than nc": ({"data.yaml": "nc: 3\nnames: [cell, hole]\n"}, "it names 2, and its nc is 3"),
    "nc is no number": ({"data.yaml": "nc: []\nnames: [cell]\n"}, "it names 1, and its nc is []"),
    "no YAML": ({"data.yaml": "names: [cell\n"}, "names of classes cannot be read"),
    "nested deeply": ({"data.yaml": "names: " + "[" * 5000}, "names of classes cannot be read"),
    "two that differ": (
        {"a.yaml": "names: [old, older]\n", "classes.txt": "cell\nhole\n"},
        "a.yaml and classes.txt name different classes",
    ),
}


@pytest.mark.parametrize("case", UNNAMED)
def test_yolo_names_that_are_not_sure_are_refused(tmp_path, case):
    naming, message = UNNAMED[case]
    lay_yolo(tmp_path, naming, count=2)
    code, _, err = own.build(tmp_path, "--yolo", tmp_path / "labels")
    assert code == 2
    assert message in err


def test_yolo_needs_names_and_polygons(tmp_path):
    lay_yolo(tmp_path, {})
    flags = ["--yolo", tmp_path / "labels"]
    assert "which name the classes. Give --classes" in own.build(tmp_path, *flags)[2]
    flags += ["--classes", "background", *CLASSES]
    path = tmp_path / "labels" / "train" / "x1.txt"
    whole = path.read_text()
    for line, message in (
        ("0 0.5 0.5 0.1 0.1", "5 numbers are a box and no outline"),
        ("7 0.1 0.1 0.2 0.1 0.2 0.3", "class 7 is none of the 2, counted from 0"),
        ("0 10 10 20 10 20 30", "its coordinates are no shares of the width and height"),
        ("0 a b c d e f", "could not convert string"),
    ):
        path.write_text(f"{whole}{line}\n")
        code, _, err = own.build(tmp_path, *flags)
        assert code == 2
        assert f"x1.txt, line 3: {message}" in err
    (tmp_path / "labels" / "train" / "x2.txt").unlink()
    path.write_text(whole)
    assert "1 image without annotations: train/x2.png" in own.build(tmp_path, *flags)[2]
    assert own.build(tmp_path, *flags, "--unpaired", "background")[0] == 0
    assert not own.examples(tmp_path)["train/x2"]["mask"].any()


def test_coco_means_the_image_of_the_whole_path_before_one_of_the_same_name(tmp_path):
    images, found = [], []
    for seed, part in enumerate(("test", "test", "train", "train")):
        own.write(tmp_path / "images" / part / f"{seed % 2}.png", own.photo(seed))
    for key in range(2):
        name = f"train/{key}.png"
        images.append({"id": key, "file_name": name, "width": WIDTH, "height": HEIGHT})
        found.append(annotation(key, 3, [polygon(key).ravel().tolist()]))
    document = {"images": images, "annotations": found, "categories": [{"id": 3, "name": "cell"}]}
    (tmp_path / "a.json").write_text(json.dumps(document))
    flags = ["--coco", tmp_path / "a.json"]
    assert "2 images without annotations: test/0.png, test/1.png" in own.build(tmp_path, *flags)[2]
    assert own.build(tmp_path, *flags, "--unpaired", "skip")[0] == 0
    own.equal(tmp_path, {f"train/{key}": filled(polygon(key)) for key in range(2)})


PATHS = {  # images, paths of annotations, and what they mean
    "the whole path": (("x", "a/x"), ("x",), {"x": "x"}),
    "the longest end": (("a/x", "b/x"), ("/d/b/x", "/d/a/x"), {"/d/a/x": "a/x", "/d/b/x": "b/x"}),
    "the name": (("a/x", "a/y"), ("x", "c/y"), {"x": "a/x", "c/y": "a/y"}),
    "a name of two images": (("a/x", "b/x"), ("x", "c/x"), {}),
    "two paths of an image": (("a/x",), ("x", "b/x"), {}),
    "one of them the whole": (("a/x",), ("b/x", "a/x"), {"a/x": "a/x"}),
    "another split": (("test/x",), ("train/x",), {}),
}


@pytest.mark.parametrize("case", PATHS)
def test_a_path_means_an_image_only_where_no_other_is_meant(case):
    images, paths, expected = PATHS[case]
    entries = pairing.images_alone([f"{name}.png" for name in images]).bare
    found = pairing.by_path(entries, [f"{name}.png" for name in paths])
    assert {key: entry.image for key, entry in found.items()} == {
        f"{path}.png": f"{image}.png" for path, image in expected.items()
    }


def test_a_smaller_object_lies_over_a_larger_and_what_is_covered_is_said(tmp_path, monkeypatch):
    """Road, a car on it, the car again, and a line that no pixel's centre is in."""
    drawn, draw = [], annotations.draw
    monkeypatch.setattr(
        annotations, "draw", lambda *given, **more: drawn.append(given) or draw(*given, **more)
    )
    whole, part = [0, 0, WIDTH, 0, WIDTH, HEIGHT, 0, HEIGHT], [5, 5, 15, 5, 15, 15, 5, 15]
    line = [20, 20, 30, 20, 30, 20]
    images, found = [], []
    for key in range(3):
        own.write(tmp_path / "images" / f"x{key}.png", own.photo(key))
        images.append({"id": key, "file_name": f"x{key}.png", "width": WIDTH, "height": HEIGHT})
        shapes = [(1, whole), (2, part), *([(1, part), (2, line)] if key == 1 else [])]
        found += [annotation(key, kind, [points]) for kind, points in shapes]
    kinds = [{"id": 1, "name": "road"}, {"id": 2, "name": "car"}]
    document = {"images": images, "annotations": found, "categories": kinds}
    (tmp_path / "a.json").write_text(json.dumps(document))
    code, out, err = own.build(tmp_path, "--coco", tmp_path / "a.json")
    assert code == 0, err
    expected = np.ones(own.SIZE, np.uint8)
    expected[5:15, 5:15] = 2
    own.equal(tmp_path, {f"x{key}": expected for key in range(3)})
    own.equal(tmp_path, {f"x{key}": expected for key in range(3)}, "instances")
    assert len(drawn) == 3  # once each
    assert "300 pixels of 3 images are in several objects: the smallest has them" in out
    assert "2 objects without a pixel" in out
    assert "too thin: x1 (2)." in out


@pytest.mark.parametrize("layout", ["coco", "yolo"])
def test_names_that_are_given_are_matched_with_the_files_by_name(tmp_path, layout):
    if layout == "coco":
        _, found = lay_coco(tmp_path)
        expected = {key: mask for key, (mask, _) in found.items()}
        flags = ["--coco", tmp_path / "a.json", "--classes"]
    else:
        expected = lay_yolo(tmp_path, NAMINGS["a list"])
        flags = ["--yolo", tmp_path / "labels", "--classes"]
    code, out, err = own.build(tmp_path, *flags, "background", "hole", "cell", name="swapped")
    assert code == 0, err
    assert "Classes: 0 background, 1 hole, 2 cell." in out
    swapped = np.array([0, 2, 1, *range(3, 256)])
    for key, example in own.examples(tmp_path, "swapped").items():
        np.testing.assert_array_equal(example["mask"][..., 0], swapped[expected[key]])
    code, out, err = own.build(tmp_path, *flags, "background", "Zelle", "hole", name="renamed")
    assert code == 0, err
    assert "outlines of objects, cell → Zelle." in out
    for key, example in own.examples(tmp_path, "renamed").items():
        np.testing.assert_array_equal(example["mask"][..., 0], expected[key])
    for names, why in (
        (["background", "hole", "Zelle"], "hole has another place in both"),
        (["background", "Hole", "Cell"], "Hole has another place in both"),
        (["cell", "hole", "background"], "cell has another place in both"),
        (["background", "cell"], "the file has background, cell, hole, and 3 are to be named"),
    ):
        code, _, err = own.build(tmp_path, *flags, *names, name="refused")
        assert (code, why in err, "background, cell, hole" in err) == (2, True, True), err


def test_a_category_called_background_is_class_0(tmp_path):
    """And a small outline of it is a hole."""
    document, _ = lay_coco(tmp_path, count=2)
    whole, part = [0, 0, WIDTH, 0, WIDTH, HEIGHT, 0, HEIGHT], [5, 5, 15, 5, 15, 15, 5, 15]
    document["annotations"] = [
        annotation(key, kind, [points])
        for key in range(2)
        for kind, points in ((7, part), (9, whole))
    ]
    document["categories"] = [{"id": 7, "name": "Background"}, {"id": 9, "name": "cell"}]
    (tmp_path / "a.json").write_text(json.dumps(document))
    code, out, err = own.build(tmp_path, "--coco", tmp_path / "a.json")
    assert code == 0, err
    assert "Classes: 0 background, 1 cell." in out
    expected = np.ones(own.SIZE, np.uint8)
    expected[5:15, 5:15] = 0
    own.equal(tmp_path, {f"x{key}": expected for key in range(2)})
    own.equal(tmp_path, {f"x{key}": expected * 2 for key in range(2)}, "instances")


@pytest.mark.parametrize(("other", "what"), [((3, "hole"), "id 3"), ((9, "cell"), "name cell")])
def test_two_categories_of_one_id_or_name_are_refused(other, what):
    kinds = [{"id": 3, "name": "cell"}, {"id": other[0], "name": other[1]}]
    document = {"images": [], "annotations": [], "categories": kinds}
    with pytest.raises(ArchiveError, match=f"several categories of the {what}"):
        annotations.read_coco(json.dumps(document).encode(), name="a.json")
