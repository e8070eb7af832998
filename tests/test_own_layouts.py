import json
import shutil
import unicodedata
import zipfile
from typing import Any

import numpy as np
import own_folders as own
import pytest
import tensorflow_datasets as tfds

COUNT = 8
SPLITS = ("train", "val", "test")


def two_folders(root, key, image, mask):
    own.write(root / "images" / f"{key}.png", image)
    own.write(root / "masks" / f"{key}.png", mask)


def suffixed(root, key, image, mask):
    own.write(root / "images" / f"{key}.png", image)
    own.write(root / "masks" / f"{key}_mask.png", mask)


def subfolders(root, key, image, mask):
    own.write(root / "images" / "a" / f"{key}.png", image)
    own.write(root / "masks" / "a" / f"{key}.png", mask)


def side_by_side(root, key, image, mask):
    own.write(root / "images" / f"{key}.png", image)
    own.write(root / "images" / f"{key}_mask.png", mask)


def both_suffixed(root, key, image, mask):
    own.write(root / "images" / f"{key}_image.png", image)
    own.write(root / "images" / f"{key}_label.png", mask)


def prefixed(root, key, image, mask):
    own.write(root / "images" / f"image_{key}.png", image)
    own.write(root / "images" / f"mask_{key}.png", mask)


def folder_each(root, key, image, mask):
    own.write(root / "images" / key / "image.png", image)
    own.write(root / "images" / key / "mask.png", mask)


def folders_each(root, key, image, mask):
    own.write(root / "images" / key / "images" / "any.png", image)
    own.write(root / "images" / key / "masks" / "labels.png", mask)


def in_one_folder(root, key, image, mask):
    own.write(root / "images" / "images" / f"{key}.png", image)
    own.write(root / "images" / "masks" / f"{key}.png", mask)


LAYOUTS = {
    two_folders: ("--masks", "{key}"),
    suffixed: ("--masks", "{key}"),
    subfolders: ("--masks", "a/{key}"),
    side_by_side: ("", "{key}"),
    both_suffixed: ("", "{key}_image"),
    prefixed: ("", "image_{key}"),
    folder_each: ("", "{key}"),
    folders_each: ("", "{key}/any"),
    in_one_folder: ("", "{key}"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_paired_and_read_exactly(tmp_path, layout):
    flag, form = LAYOUTS[layout]
    masks = {}
    for seed in range(COUNT):
        key = f"cell-{seed}"
        masks[form.format(key=key)] = own.classes(seed)
        layout(tmp_path, key, own.photo(seed), own.classes(seed))
    more = [flag, tmp_path / "masks"] if flag else []
    code, out, err = own.build(tmp_path, *more)
    assert code == 0, err
    assert "Masks are read as ids: numbers without gaps" in out
    own.equal(tmp_path, masks)
    for seed, example in enumerate(dict(sorted(own.examples(tmp_path).items())).values()):
        np.testing.assert_array_equal(example["image"], own.photo(seed))


def test_images_and_masks_are_read_from_zips(tmp_path):
    for seed in range(4):
        two_folders(tmp_path, f"x{seed}", own.photo(seed), own.classes(seed))
    for name in ("images", "masks"):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for path in sorted((tmp_path / name).iterdir()):
                archive.write(path, path.name)
        shutil.rmtree(tmp_path / name)
    code, _, err = own.build(tmp_path, "--masks", tmp_path / "masks.zip", images="images.zip")
    assert code == 0, err
    own.equal(tmp_path, {f"x{seed}": own.classes(seed) for seed in range(4)})


def test_where_files_of_objects_overlap_the_first_has_the_pixels_and_it_is_said(tmp_path):
    """Of three images one has a file over another, and one that is covered whole."""
    expected = {}
    for seed in range(3):
        own.write(tmp_path / "images" / f"x{seed}.png", own.photo(seed))
        boxes = [(2, 12), (20, 30), *([(8, 18), (3, 7)] if seed == 1 else [])]
        expected[f"x{seed}"] = np.zeros(own.SIZE, np.uint16)
        for number, (start, stop) in enumerate(boxes, start=1):
            level = np.zeros(own.SIZE, np.uint8)
            level[start:stop, 5:15] = 255
            own.write(tmp_path / "masks" / f"x{seed}" / f"{number}.png", level)
            free = (level > 0) & (expected[f"x{seed}"] == 0)
            expected[f"x{seed}"][free] = number
    code, out, err = own.build(tmp_path, "--masks", tmp_path / "masks")
    assert code == 0, err
    own.equal(tmp_path, expected, "instances")
    assert "80 pixels of 1 image are in several objects: the first file has them." in out
    assert "1 object without a pixel, as others cover them or they are too thin: x1 (1)." in out


SPELLINGS = {
    "two folders": ("--masks", "masks"),
    "a table": ("--masks", "masks", "--pairs", "pairs.csv"),
    "COCO": ("--coco", "a.json"),
}


@pytest.mark.parametrize("layout", SPELLINGS)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accented_letters_are_the_same_in_one_character_and_in_two(tmp_path, layout, form: Any):
    other: Any = {"NFC": "NFD", "NFD": "NFC"}[form]
    mask = np.zeros(own.SIZE, np.uint8)
    mask[5:15, 5:15] = 1
    rows, images, shapes = ["image,mask"], [], []
    for seed, key in enumerate(("Zellé", "naïve", "b")):
        here, there = (unicodedata.normalize(each, key) for each in (form, other))
        own.write(tmp_path / "images" / f"{here}.png", own.photo(seed))
        own.write(tmp_path / "masks" / f"{there}.png", mask)
        rows.append(f"{there}.png,masks/{here}.png")
        images.append({"id": seed, "file_name": f"{there}.png"})
        square = [5, 5, 15, 5, 15, 15, 5, 15]
        shapes.append({"image_id": seed, "category_id": 1, "segmentation": [square]})
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    kinds = [{"id": 1, "name": "cell"}]
    document = {"images": images, "annotations": shapes, "categories": kinds}
    (tmp_path / "a.json").write_text(json.dumps(document))
    flags = [x if x.startswith("--") else tmp_path / x for x in SPELLINGS[layout]]
    code, _, err = own.build(tmp_path, *flags)
    assert code == 0, err
    own.equal(tmp_path, dict.fromkeys(("Zellé", "naïve", "b"), mask))


def test_two_files_of_one_name_in_two_spellings_are_named(tmp_path):
    for seed, form in enumerate(("NFC", "NFD")):
        for folder in ("images", "masks"):
            name = unicodedata.normalize(form, "é")
            own.write(tmp_path / folder / f"{name}.png", own.classes(seed))
    two_folders(tmp_path, "b", own.photo(2), own.classes(2))
    code, _, err = own.build(tmp_path, "--masks", tmp_path / "masks")
    assert code == 2
    assert "1 example there more than once" in err


def test_one_file_an_object_makes_instances(tmp_path):
    for seed in range(3):
        labels = own.objects(seed, count=9)
        own.write(tmp_path / "images" / f"x{seed}.png", own.photo(seed))
        for number in range(1, 10):
            level = np.where(labels == number, 255, 0).astype(np.uint8)
            own.write(tmp_path / "masks" / f"x{seed}" / f"{number}.png", level)
    code, out, err = own.build(tmp_path, "--masks", tmp_path / "masks")
    assert code == 0, err
    assert "read as objects: one file an object" in out
    own.equal(tmp_path, {f"x{s}": own.objects(s, count=9) for s in range(3)}, "instances")
    own.equal(tmp_path, {f"x{s}": own.objects(s, count=9) > 0 for s in range(3)})


def test_one_file_an_object_tells_objects_from_background_alone(tmp_path):
    """No file says of which of several classes its object is, and one without any is none."""
    for seed in range(3):
        own.write(tmp_path / "images" / f"x{seed}.png", own.photo(seed))
        for number in (1, 2):
            level = np.where(own.classes(seed) == number, 255, 0).astype(np.uint8)
            own.write(tmp_path / "masks" / f"x{seed}" / f"{number}.png", level)
            own.write(tmp_path / "empty" / f"x{seed}" / f"{number}.png", level * 0)
    flags = ["--masks", tmp_path / "masks", "--classes", "no", "a", "b"]
    code, _, err = own.build(tmp_path, *flags)
    assert code == 2
    assert "--classes names 3, and the masks tell objects from background alone" in err
    code, _, err = own.build(tmp_path, "--masks", tmp_path / "empty")
    assert code == 2
    assert "all 6 masks are 0 everywhere" in err


def test_a_table_pairs_groups_and_splits(tmp_path):
    lines = ["image,mask,split,patient"]
    for seed in range(9):
        own.write(tmp_path / "images" / f"x{seed}.png", own.photo(seed))
        own.write(tmp_path / "other" / f"y{seed}.png", own.classes(seed))
        lines.append(f"images/x{seed}.png,y{seed}.png,{SPLITS[seed % 3]},p{seed // 3}")
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    flags = ["--masks", tmp_path / "other", "--pairs", tmp_path / "pairs.csv"]
    code, out, err = own.build(tmp_path, *flags, "--group_column", "patient")
    assert code == 0, err
    own.equal(tmp_path, {f"x{seed}": own.classes(seed) for seed in range(9)})
    found = own.examples(tmp_path)
    assert {key: e["split"] for key, e in found.items()} == {
        f"x{seed}": ("train", "validation", "test")[seed % 3] for seed in range(9)
    }
    assert {key: e["group"].decode() for key, e in found.items()} == {
        f"x{seed}": f"p{seed // 3}" for seed in range(9)
    }
    assert "3 groups of near duplicates, or of your own, are in several" in out


SEPARATED = {
    "semicolons": "image;mask\n{0};{1}\n{2};{3}\n",
    "tabs": "image\tmask\n{0}\t{1}\n{2}\t{3}\n",
    "spaces after commas": "image, mask\n{0}, {1}\n{2}, {3}\n",
    "quotes": 'image, "mask"\n"{0}", "{1}"\n"{2}", "{3}"\n',
}


@pytest.mark.parametrize("case", SEPARATED)
def test_cells_of_a_table_are_separated_as_its_first_line_says(tmp_path, case):
    names = ["a b.png", "c.d.png", "e,f.png", "g;h.png"]
    if '"' not in SEPARATED[case]:
        names = [name.replace(",", ".").replace(";", ".") for name in names]
    for seed in range(2):
        own.write(tmp_path / "images" / names[2 * seed], own.photo(seed))
        own.write(tmp_path / "masks" / names[2 * seed + 1], own.classes(seed))
    (tmp_path / "pairs.csv").write_text(SEPARATED[case].format(*names))
    flags = ["--masks", tmp_path / "masks", "--pairs", tmp_path / "pairs.csv"]
    code, _, err = own.build(tmp_path, *flags)
    assert code == 0, err
    own.equal(tmp_path, {names[2 * seed][:-4]: own.classes(seed) for seed in range(2)})


def test_a_column_that_is_there_twice_is_named(tmp_path):
    two_folders(tmp_path, "x", own.photo(0), own.classes(0))
    (tmp_path / "pairs.csv").write_text("image,mask,mask\nx.png,x.png,y.png\n")
    flags = ["--masks", tmp_path / "masks", "--pairs", tmp_path / "pairs.csv"]
    code, _, err = own.build(tmp_path, *flags)
    assert code == 2
    assert "pairs.csv has the column mask twice" in err


def test_an_image_without_a_group_in_the_table_is_named(tmp_path):
    for seed in range(4):
        two_folders(tmp_path, f"x{seed}", own.photo(seed), own.classes(seed))
    groups = ["a", "a", "", " "]
    lines = [f"x{seed}.png,x{seed}.png,{group}" for seed, group in enumerate(groups)]
    (tmp_path / "pairs.csv").write_text("\n".join(["image,mask,patient", *lines]))
    flags = ["--masks", tmp_path / "masks", "--pairs", tmp_path / "pairs.csv"]
    code, _, err = own.build(tmp_path, *flags, "--group_column", "patient")
    assert code == 2
    assert "pairs.csv: 2 images with nothing in the column patient: x2.png, x3.png." in err
    assert own.build(tmp_path, *flags)[0] == 0


def test_a_table_that_names_no_file_says_the_line(tmp_path):
    two_folders(tmp_path, "x", own.photo(0), own.classes(0))
    (tmp_path / "pairs.csv").write_text("image,mask\nx.png,x.png\ny.png,x.png\n")
    flags = ["--masks", tmp_path / "masks", "--pairs", tmp_path / "pairs.csv"]
    code, _, err = own.build(tmp_path, *flags)
    assert code == 2
    assert "1 mask without an image: line 3 of pairs.csv" in err
    (tmp_path / "pairs.csv").write_text("photo,mask\nx.png,x.png\n")
    assert "has no column image; it has photo, mask" in own.build(tmp_path, *flags)[2]


def test_cvat_masks_have_their_classes_and_objects(tmp_path):
    colours = np.array([(0, 0, 0), (250, 50, 83), (51, 221, 255)], np.uint8)
    export = tmp_path / "export"
    for seed in range(4):
        mask, labels = own.classes(seed), own.objects(seed)
        own.write(tmp_path / "images" / f"x{seed}.png", own.photo(seed))
        own.write(export / "SegmentationClass" / f"x{seed}.png", colours[mask])
        shades = np.random.default_rng(9).permutation(np.arange(1, 1 << 24, 99999))[:31]
        shades = np.stack([shades >> 16, shades >> 8 & 255, shades & 255], -1).astype(np.uint8)
        shades[0] = 0
        own.write(export / "SegmentationObject" / f"x{seed}.png", shades[labels])
    named = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncell:250,50,83::\n"
    (export / "labelmap.txt").write_text(f"{named}hole:250,50,83::\n")
    code, _, err = own.build(tmp_path, "--masks", export)
    assert code == 2
    assert "on a line: 250,50,83=hole: that colour is cell already" in err
    (export / "labelmap.txt").write_text(f"{named}hole:51,221,255::\n")
    code, out, err = own.build(tmp_path, "--masks", export)
    assert code == 0, err
    assert "Classes: 0 background, 1 cell, 2 hole." in out
    own.equal(tmp_path, {f"x{seed}": own.classes(seed) for seed in range(4)})
    for key, example in own.examples(tmp_path).items():
        expected = np.where(example["mask"][..., 0] > 0, own.objects(int(key[1:])), 0)
        found = example["instances"][..., 0]
        pairs = {*zip(expected.ravel().tolist(), found.ravel().tolist(), strict=True)}
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
        assert (0, 0) in pairs


def test_a_map_of_objects_that_some_images_lack_is_named(tmp_path):
    """Their objects would be none, beside a mask that has some."""
    export = tmp_path / "export"
    for seed in range(4):
        own.write(tmp_path / "images" / f"x{seed}.png", own.photo(seed))
        own.write(export / "SegmentationClass" / f"x{seed}.png", own.classes(seed))
        if seed != 2:
            own.write(export / "SegmentationObject" / f"x{seed}.png", own.objects(seed))
    code, _, err = own.build(tmp_path, "--masks", export)
    assert code == 2
    assert "1 image without a map of objects, which others have: x2.png" in err
    own.write(export / "SegmentationObject" / "x2.png", own.objects(2))
    assert own.build(tmp_path, "--masks", export)[0] == 0
    expected = {f"x{s}": np.where(own.classes(s) > 0, own.objects(s), 0) for s in range(4)}
    own.equal(tmp_path, expected, "instances")


def test_label_studio_brushes_are_paired_by_the_tasks(tmp_path):
    tasks = []
    for seed in range(4):
        own.write(tmp_path / "images" / f"x{seed}.png", own.photo(seed))
        tasks.append(
            {
                "id": 7 + seed,
                "data": {"image": f"/data/upload/1/0a1b2c3d-x{seed}.png"},
                "annotations": [{"result": [{"value": {"brushlabels": ["cell", "dead-cell"]}}]}],
            }
        )
        for number, kind in enumerate(("cell", "dead-cell"), start=1):
            inside = np.where(own.classes(seed) == number, 255, 0).astype(np.uint8)
            if kind == "cell":  # also under the others, which are smaller
                inside[own.classes(seed) == 2] = 255
            name = f"task-{7 + seed}-annotation-3-by-1-tag-{kind}-0.png"
            own.write(tmp_path / "brushes" / name, inside)
    flags = ["--masks", tmp_path / "brushes"]
    assert "Export the same project as JSON too" in own.build(tmp_path, *flags)[2]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    flags += ["--tasks", tmp_path / "tasks.json"]
    code, _, err = own.build(tmp_path, *flags, "--classes", "background", "cell", "dead")
    assert code == 2
    assert "1 brush label not among --classes background cell dead: dead-cell" in err
    code, out, err = own.build(tmp_path, *flags)
    assert code == 0, err
    assert "Classes: 0 background, 1 cell, 2 dead-cell." in out
    own.equal(tmp_path, {f"x{seed}": own.classes(seed) for seed in range(4)})


def test_several_annotations_of_a_task_of_label_studio_are_named(tmp_path):
    """Of two people, who mark the same objects: no example is both."""
    tasks = []
    for seed in range(3):
        own.write(tmp_path / "images" / f"x{seed}.png", own.photo(seed))
        brush = [{"result": [{"value": {"brushlabels": ["cell"]}}]}]
        tasks.append({"id": seed, "data": {"image": f"x{seed}.png"}, "annotations": brush})
        for annotation in range(1, 2 + (seed == 1)):
            inside = np.where(own.classes(seed) == annotation, 255, 0).astype(np.uint8)
            name = f"task-{seed}-annotation-{annotation}-by-{annotation}-tag-cell-0.png"
            own.write(tmp_path / "brushes" / name, inside)
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    flags = ["--masks", tmp_path / "brushes", "--tasks", tmp_path / "tasks.json"]
    code, _, err = own.build(tmp_path, *flags)
    assert code == 2
    both = [f"task-1-annotation-{number}-by-{number}-tag-cell-0.png" for number in (1, 2)]
    assert f"1 example there more than once: {' and '.join(both)}" in err
    assert own.build(tmp_path, *flags, "--unpaired", "skip")[0] == 0
    own.equal(tmp_path, {f"x{seed}": own.classes(seed) == 1 for seed in (0, 2)})


def test_label_studio_tasks_mean_images_of_other_folders_of_the_same_name(tmp_path):
    tasks = []
    for number, key in enumerate(("a/x", "b/x", "y", "0a1b2c3d-z", "4e5f6a7b-z")):
        own.write(tmp_path / "images" / f"{key}.png", own.photo(number))
        brush = [{"result": [{"value": {"brushlabels": ["cell"]}}]}]
        image = f"/data/local-files/?d={key}.png" if number < 3 else f"/data/upload/1/{key}.png"
        tasks.append({"id": number, "data": {"image": image}, "annotations": brush})
        inside = np.where(own.classes(number) == 1, 255, 0).astype(np.uint8)
        own.write(tmp_path / "brushes" / f"task-{number}-annotation-1-by-1-tag-cell-0.png", inside)
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    flags = ["--masks", tmp_path / "brushes", "--tasks", tmp_path / "tasks.json"]
    code, _, err = own.build(tmp_path, *flags)
    assert code == 0, err
    own.equal(
        tmp_path,
        {
            key: own.classes(number) == 1
            for number, key in enumerate(("a/x", "b/x", "y", "0a1b2c3d-z", "4e5f6a7b-z"))
        },
    )


def test_folders_split_where_there_are_any(tmp_path):
    for seed in range(9):
        part = SPLITS[seed % 3]
        own.write(tmp_path / "images" / part / "images" / f"x{seed}.png", own.photo(seed))
        own.write(tmp_path / "images" / part / "masks" / f"x{seed}.png", own.classes(seed))
    assert own.build(tmp_path)[0] == 0
    names = {"train": "train", "val": "validation", "test": "test"}
    found = {key: example["split"] for key, example in own.examples(tmp_path).items()}
    assert found == {
        f"{names[SPLITS[seed % 3]]}/x{seed}": names[SPLITS[seed % 3]] for seed in range(9)
    }
    own.write(tmp_path / "images" / "images" / "x.png", own.photo(99))
    own.write(tmp_path / "images" / "masks" / "x.png", own.classes(99))
    code, _, err = own.build(tmp_path, "--overwrite")
    assert code == 2
    assert "1 image outside of folders such as train, val and test: images/x.png" in err
    assert "--split_by share" in err
    assert own.build(tmp_path, "--overwrite", "--split_by", "share")[0] == 0
    assert len(own.examples(tmp_path)) == 10


def test_shares_and_patterns_split_by_group(tmp_path):
    for seed in range(20):
        two_folders(tmp_path, f"p{seed // 4}_{seed}", own.photo(seed), own.classes(seed))
    shares = ["--validation", "0.2", "--test", "0.2", "--group_regex", "p[0-9]+"]
    assert own.build(tmp_path, "--masks", tmp_path / "masks", *shares)[0] == 0
    splits = {}
    for key, example in own.examples(tmp_path).items():
        splits.setdefault(example["split"], set()).add(key.partition("_")[0])
        assert example["group"].decode() == key.partition("_")[0]
    assert {split: len(found) for split, found in splits.items()} == {
        "train": 3,
        "validation": 1,
        "test": 1,
    }


def test_the_group_of_a_pattern_with_several_is_the_first_that_is_found(tmp_path):
    for seed, key in enumerate(("A7_0", "B7_1", "A7_2", "B7_3")):
        two_folders(tmp_path, key, own.photo(seed), own.classes(seed))
    flags = ["--masks", tmp_path / "masks", "--group_regex", "^(A7)|^(B7)"]
    assert own.build(tmp_path, *flags)[0] == 0
    found = {key: each["group"].decode() for key, each in own.examples(tmp_path).items()}
    assert found == {"A7_0": "A7", "B7_1": "B7", "A7_2": "A7", "B7_3": "B7"}


def test_near_duplicates_are_a_group(tmp_path):
    for seed in range(6):
        two_folders(tmp_path, f"x{seed}", own.photo(seed), own.classes(seed))
    brighter = np.clip(own.photo(2).astype(int) + 8, 0, 255).astype(np.uint8)
    two_folders(tmp_path, "again", brighter, own.classes(2))
    assert own.build(tmp_path, "--masks", tmp_path / "masks")[0] == 0
    found = own.examples(tmp_path)
    assert found["again"]["group"] == found["x2"]["group"]
    assert len({example["group"] for example in found.values()}) == 6


STRAYS = {  # images, masks of their names, and one of another
    "of a patient": (("p0/a", "p1/a"), ("p1/a",), "p0/b"),
    "beside the right one": (("p0/a", "p1/a"), ("p0/a", "p1/a"), "p0/b"),
    "of a split": (("train/a", "val/b"), ("train/a",), "val/c"),
    "in the folders of a split": (("train/images/a", "val/images/b"), ("train/a",), "val/masks/c"),
    "in an example's own folder": (("x/images/a", "y/images/a"), ("x/a", "y/a"), "x/masks/b"),
}


@pytest.mark.parametrize("case", STRAYS)
def test_a_mask_of_another_name_is_given_to_no_image(tmp_path, case):
    images, masks, stray = STRAYS[case]
    for seed, key in enumerate(images):
        own.write(tmp_path / "images" / f"{key}.png", own.photo(seed))
    for key in (*masks, stray):
        own.write(tmp_path / "masks" / f"{key}.png", own.classes(0))
    code, _, err = own.build(tmp_path, "--masks", tmp_path / "masks")
    assert code == 2
    assert f"1 mask without an image: {stray}.png" in err


@pytest.mark.parametrize("other", ["x0.bmp", "x0_mask.png"])
def test_a_second_mask_of_the_same_image_is_named_and_not_merged(tmp_path, other):
    for seed in range(3):
        two_folders(tmp_path, f"x{seed}", own.photo(seed), own.classes(seed))
    own.write(tmp_path / "masks" / other, own.classes(9))
    flags = ["--masks", tmp_path / "masks"]
    for more in ([], ["--unpaired", "background"]):
        code, _, err = own.build(tmp_path, *flags, *more)
        assert code == 2
        assert f"1 example there more than once: {' and '.join(sorted([other, 'x0.png']))}" in err
    assert own.build(tmp_path, *flags, "--unpaired", "skip")[0] == 0
    own.equal(tmp_path, {f"x{seed}": own.classes(seed) for seed in (1, 2)})
    metadata: Any = tfds.builder("mine", data_dir=tmp_path / "data").info.metadata
    same = sorted([other, "x0.png"])
    why = f"it is there more than once: {' and '.join(same)}."
    assert metadata["skipped"] == dict.fromkeys(same, why)


def lay_table(root, lines, count=4):
    for seed in range(count):
        two_folders(root, f"x{seed}", own.photo(seed), own.classes(seed) > 0)
    (root / "pairs.csv").write_text("image,mask,split\n" + "\n".join(lines))
    return ["--masks", root / "masks", "--pairs", root / "pairs.csv"]


@pytest.mark.parametrize("last", ["x3.png,,", ""])
def test_an_image_without_a_mask_in_the_table_is_named(tmp_path, last):
    flags = lay_table(tmp_path, [f"x{seed}.png,x{seed}.png," for seed in range(3)] + [last])
    assert "1 image without masks: x3.png" in own.build(tmp_path, *flags)[2]
    assert own.build(tmp_path, *flags, "--unpaired", "background")[0] == 0
    expected = {f"x{seed}": (own.classes(seed) > 0) & (seed < 3) for seed in range(4)}
    own.equal(tmp_path, expected)


def test_an_image_whose_mask_is_missing_is_no_background(tmp_path):
    lines = ["x0.png,x0.png,", "x1.png,x1.png,", "x2.png,x2.png,", "x3.png,gone.png,"]
    flags = lay_table(tmp_path, lines)
    assert own.build(tmp_path, *flags, "--unpaired", "background")[0] == 0
    own.equal(tmp_path, {f"x{seed}": own.classes(seed) > 0 for seed in range(3)})


ROWS = {  # a row more, and what is said
    "again": ("x0.png,x0.png,train", "rows with the same image and mask: x0.png."),
    "another mask": ("x0.png,x3.png,train", "1 image with several rows: x0.png; --mask_kind"),
    "another split": ("x0.png,x3.png,test", "rows of an image have several values of split: x0"),
    "a split of another name": (
        "x3.png,x3.png,holdout",
        "the column split has holdout (1 row), which is none of train, val and test.",
    ),
}


@pytest.mark.parametrize("case", ROWS)
def test_rows_that_contradict_are_named(tmp_path, case):
    line, message = ROWS[case]
    lines = [*(f"x{seed}.png,x{seed}.png,train" for seed in range(3)), line]
    flags = [*lay_table(tmp_path, lines), "--unpaired", "skip"]
    code, _, err = own.build(tmp_path, *flags)
    assert code == 2
    assert message in err


def test_rows_of_an_image_are_objects_where_it_is_said(tmp_path):
    flags = lay_table(tmp_path, [f"x{s}.png,m{n}.png," for s in range(4) for n in (1, 2)])
    for number in (1, 2):
        level = np.where(own.objects(0, count=2) == number, 255, 0).astype(np.uint8)
        own.write(tmp_path / "masks" / f"m{number}.png", level)
    assert own.build(tmp_path, *flags)[0] == 2
    code, _, err = own.build(tmp_path, *flags, "--mask_kind", "objects")
    assert code == 0, err
    own.equal(tmp_path, {f"x{s}": own.objects(0, count=2) for s in range(4)}, "instances")
