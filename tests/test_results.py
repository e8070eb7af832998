"""What is written of answers: objects, contours, tables and pages, against slow plain loops."""

import csv
import itertools
import json
import math

import numpy as np
import pytest
import tifffile
from PIL import Image
from test_predict import Bright, at, half_white

from segdata.archives import annotations
from unet import contours, predicting, results, watershed
from unet.objects import Separation
from unet.results import Wanted

WHOLE = Separation(smoothing=0, seed_depth=1e9, least_area=0)  # what hangs together is one
BINARY = ("background", "foreground")


def filled(rings, shape):
    """The pixels whose centres are inside an odd number of rings."""
    inside = np.zeros(shape, bool)
    for row, column in np.ndindex(*shape):
        for ring in rings:
            for (x0, y0), (x1, y1) in itertools.pairwise(ring):
                if x0 == x1 and x0 <= column and min(y0, y1) <= row < max(y0, y1):
                    inside[row, column] ^= True
    return inside


def pieces(inside):
    """Sets of pixels that hang together by their sides, by a search from each pixel."""
    left, found = {(int(y), int(x)) for y, x in np.argwhere(inside)}, []
    while left:
        waiting, piece = [min(left)], set()
        while waiting:
            pixel = waiting.pop()
            if pixel in left:
                left.remove(pixel)
                piece.add(pixel)
                y, x = pixel
                waiting += [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        found.append(piece)
    return found


def pixels(inside):
    return {(int(y), int(x)) for y, x in np.argwhere(inside)}


@pytest.mark.parametrize("shape", [(1, 1), (5, 8), (13, 9)])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_contours_hold_the_objects_pixels_and_no_other(shape, share):
    rng = np.random.default_rng(3)
    for _ in range(12):
        labels = rng.integers(1, 3, shape) * (rng.random(shape) < share)
        found = {outline.number: outline for outline in contours.outlines(labels)}
        assert found.keys() == {*np.unique(labels).tolist()} - {0}
        for number, outline in found.items():
            inside = labels == number
            np.testing.assert_array_equal(filled([*outline.outer, *outline.holes], shape), inside)
            areas = [contours.area(ring) for ring in (*outline.outer, *outline.holes)]
            assert sum(areas) == inside.sum()
            for ring in (*outline.outer, *outline.holes):
                assert ring[0] == ring[-1]
            geometry = contours.geojson(outline)
            polygons = geometry["coordinates"]
            polygons = [polygons] if geometry["type"] == "Polygon" else polygons
            parts = [pixels(filled(polygon, shape)) for polygon in polygons]
            assert sorted(map(sorted, parts)) == sorted(map(sorted, pieces(inside)))


def test_a_hole_belongs_to_the_innermost_part_around_it():
    rows, columns = np.indices((13, 15))
    rings = np.maximum(abs(rows - 6), abs(columns - 7))
    labels = np.isin(rings, [1, 2, 4, 6]).astype(np.int32)
    (found,) = contours.outlines(labels)
    polygons = contours.geojson(found)["coordinates"]
    parts = [pixels(filled(polygon, labels.shape)) for polygon in polygons]
    assert sorted(map(sorted, parts)) == sorted(map(sorted, pieces(labels > 0)))


def test_a_contour_has_only_corners():
    labels = np.zeros((6, 9), int)
    labels[1:5, 2:8] = 1
    labels[2:4, 4:6] = 0
    (found,) = contours.outlines(labels)
    assert found.outer == [[(2, 1), (8, 1), (8, 5), (2, 5), (2, 1)]]
    assert len(found.holes[0]) <= 6
    assert contours.area(found.holes[0]) == -4


@pytest.mark.parametrize("classes", [BINARY, ("background", "a", "b"), ("road", "car", "sky")])
def test_objects_are_measured(classes):
    rng = np.random.default_rng(4)
    for shape in [(1, 1), (7, 12), (20, 11)]:
        found = rng.integers(0, len(classes), shape).astype(np.uint8)
        image = rng.integers(0, 256, (*shape, 3), np.uint8)
        objects = results.objects(found, image, classes, separation=WHOLE)
        kinds = range(classes[0] == "background", len(classes))
        expected = [(kind, piece) for kind in kinds for piece in pieces(found == kind)]
        assert len(objects.area) == len(expected)
        for index, kind in enumerate(objects.kind):
            piece = pixels(objects.labels == index + 1)
            assert (kind, piece) in expected
            assert objects.area[index] == len(piece)
            x = sum(column + 0.5 for _, column in piece) / len(piece)
            y = sum(row + 0.5 for row, _ in piece) / len(piece)
            np.testing.assert_allclose(objects.centroid[index], (x, y))
            level = sum(int(image[place].sum()) for place in piece) / 3 / len(piece)
            np.testing.assert_allclose(objects.intensity[index], level, rtol=1e-5)
            radius = objects.diameter[index] / 2
            np.testing.assert_allclose(math.pi * radius**2, len(piece))


def test_touching_objects_are_split_and_a_border_belongs_to_them():
    rows, columns = np.indices((30, 50))
    discs = [(rows - 15) ** 2 + (columns - x) ** 2 <= 100 for x in (15, 33)]
    found = (discs[0] | discs[1]).astype(np.uint8)
    image = np.zeros((30, 50, 3), np.uint8)
    objects = results.objects(found, image, BINARY)
    assert len(objects.area) == 2
    np.testing.assert_array_equal(objects.labels, watershed.objects(found))
    bordered = np.where(found & (abs(columns - 24) < 2), 2, found).astype(np.uint8)
    objects = results.objects(bordered, image, ("background", "cell", "border"))
    assert objects.kind.tolist() == [1, 1]
    np.testing.assert_array_equal(objects.labels, watershed.objects(bordered, border=2))
    np.testing.assert_array_equal(objects.labels > 0, found > 0)


def test_a_border_between_objects_of_a_class_is_no_object_of_another():
    classes = ("background", "a", "b", "border")
    found = np.zeros((24, 40), np.uint8)
    found[2:12, 2:38], found[2:12, 19:21] = 2, 3  # two of b with a border
    found[14:20, 2:12], found[14:20, 12:15], found[14:20, 15:30] = 1, 3, 2  # of a and b
    found[21:23, 33:38] = 3  # of none
    image = np.zeros((*found.shape, 3), np.uint8)
    objects = results.objects(found, image, classes, separation=Separation(least_area=5))
    assert objects.kind.tolist() == [1, 1, 2, 2, 2]
    np.testing.assert_array_equal(objects.labels > 0, found > 0)
    for number, kind in enumerate(objects.kind, 1):
        assert {*np.unique(found[objects.labels == number])} <= {kind, 3}
    assert objects.area[1] == 10


def test_what_is_called_background_has_no_objects_wherever_it_stands():
    found = np.ones((9, 12), np.uint8)
    found[2:6, 3:8] = 0
    image = np.zeros((*found.shape, 3), np.uint8)
    for classes in (("pet", "background"), ("pet", "background", "edge")):
        objects = results.objects(found, image, classes, separation=WHOLE)
        assert objects.kind.tolist() == [0]
        np.testing.assert_array_equal(objects.labels > 0, found == 0)


def test_a_label_map_has_16_bits_where_they_are_enough():
    assert results.label_map(np.array([[0, 65_535]], np.int32)).dtype == np.uint16
    assert results.label_map(np.array([[0, 65_536]], np.int32)).dtype == np.uint32


def spots(shape) -> np.ndarray:
    """Three bright squares on black; two touch by a corner."""
    image = np.zeros((*shape, 3), np.uint8)
    for top, left in [(2, 3), (6, 7), (12, 20)]:
        image[top : top + 4, left : left + 4] = 200
    return image


ALL = ("mask", "overlay", "probability", "labels", "contours", "objects", "coco", "page")


@pytest.mark.parametrize("pixel_size", [None, 0.5])
def test_all_that_is_written_of_an_image_says_the_same(tmp_path, pixel_size):
    image = spots((20, 30))
    (tmp_path / "in").mkdir()
    Image.fromarray(image).save(tmp_path / "in" / "a & b.png")
    (tmp_path / "in" / "bad <i>.png").write_text("hello")
    to = tmp_path / "to"
    done = predicting.files(
        Bright(),
        predicting.inputs([tmp_path / "in"], to=to),
        recipe=at(20, 30),
        classes=(),
        to=to,
        wanted=Wanted(kinds=ALL, pixel_size=pixel_size, separation=WHOLE),
    )
    assert [error is None for _, error, *_ in done] == [True, False]
    inside = image[..., 0] > 0
    with Image.open(to / "a & b.mask.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), 255 * inside)
    with Image.open(to / "a & b.probability.png") as probability:
        np.testing.assert_array_equal(np.asarray(probability), image[..., 0])
    labels = tifffile.imread(to / "a & b.labels.tif")
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels > 0, inside)
    with (to / "objects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["1", "2", "3"]
    unit, side = ("px", 1) if pixel_size is None else ("um", pixel_size)
    square = "px" if pixel_size is None else "um2"
    for row, (top, left) in zip(rows, [(2, 3), (6, 7), (12, 20)], strict=True):
        assert row["image"] == str(tmp_path / "in" / "a & b.png")
        assert float(row[f"area_{square}"]) == 16 * side**2
        assert float(row[f"centroid_x_{unit}"]) == (left + 2) * side
        assert float(row[f"centroid_y_{unit}"]) == (top + 2) * side
        assert float(row["mean_intensity"]) == 200
    collection = json.loads((to / "a & b.contours.geojson").read_text())
    assert [each["properties"]["label"] for each in collection["features"]] == [1, 2, 3]
    rings = [
        [[(x / side, y / side) for x, y in ring] for ring in each["geometry"]["coordinates"]]
        for each in collection["features"]
    ]
    np.testing.assert_array_equal(filled([*itertools.chain(*rings)], inside.shape), inside)
    listed = json.loads((to / "coco.json").read_text())
    assert listed["images"] == [{"id": 1, "file_name": "a & b.png", "height": 20, "width": 30}]
    assert listed["categories"] == [{"id": 1, "name": "foreground"}]
    assert [each["bbox"] for each in listed["annotations"]] == [
        [left, top, 4, 4] for top, left in [(2, 3), (6, 7), (12, 20)]
    ]
    page = (to / "index.html").read_text()
    assert "a &amp; b.png" in page
    assert "3 objects" in page
    assert page.count("<figure>") == 1
    assert "bad &lt;i&gt;.png" in page


@pytest.mark.parametrize("classes", [BINARY, ("background", "a", "border", "b")])
def test_what_is_written_as_coco_is_read_as_the_same_objects(tmp_path, classes):
    rng = np.random.default_rng(6)
    wanted = Wanted(kinds=("coco",))
    shapes = [(1, 1), (7, 12), (20, 11), (3, 5)]
    written = {}
    with results.together(tmp_path, wanted, classes, overwrite=False) as together:
        for number, shape in enumerate(shapes):
            found = rng.integers(0, len(classes), shape).astype(np.uint8) * (number < 3)
            image = np.zeros((*shape, 3), np.uint8)
            objects = results.objects(found, image, classes, separation=WHOLE)
            together.add("x", f"a/{number}.png", None, objects, shape)
            written[f"a/{number}.png"] = objects
    data = (tmp_path / "coco.json").read_bytes()
    names, outlines, _ = annotations.read_coco(data, name="coco.json")
    assert names == tuple(name for name in classes if name != "border")
    assert outlines.keys() == written.keys()
    for name, objects in written.items():
        shape = objects.labels.shape
        assert outlines[name].shape == shape
        drawn = annotations.draw(outlines[name], shape=shape)
        np.testing.assert_array_equal(drawn.instances, objects.labels)
        of_class = [names.index(classes[kind]) for kind in objects.kind]
        np.testing.assert_array_equal(drawn.mask, np.array([0, *of_class])[objects.labels])
        assert (objects.area > 0).all()
    listed = json.loads(data)["annotations"]
    assert [each["id"] for each in listed] == [*range(1, len(listed) + 1)]
    assert [each["area"] for each in listed] == [
        area for objects in written.values() for area in objects.area
    ]


def test_a_table_has_every_pixel_of_a_large_object(tmp_path):
    found = np.ones((1111, 1113), np.uint8)
    objects = results.objects(found, np.full((*found.shape, 3), 7, np.uint8), BINARY)
    wanted = Wanted(kinds=("objects",))
    with results.together(tmp_path, wanted, BINARY, overwrite=False) as table:
        table.add("a.png", "a.png", None, objects, found.shape)
    with (tmp_path / "objects.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["area_px"] == str(1111 * 1113)


def test_no_object_at_all_is_coco_too(tmp_path):
    with results.together(tmp_path, Wanted(kinds=("coco",)), BINARY, overwrite=False) as together:
        objects = results.objects(np.zeros((2, 3), np.uint8), np.zeros((2, 3, 3)), BINARY)
        together.add("x", "x.png", None, objects, (2, 3))
    _, outlines, _ = annotations.read_coco((tmp_path / "coco.json").read_bytes(), name="x")
    assert outlines["x.png"].objects == ()


def test_tables_and_pages_are_kept_unless_overwriting_is_asked_for(tmp_path):
    Image.fromarray(half_white(8, 8)).save(tmp_path / "a.png")
    to = tmp_path / "to"
    to.mkdir()
    ends = ("objects.csv", "objects"), ("coco.json", "coco"), ("index.html", "page")
    for name, kind in ends:
        (to / name).write_text("mine")
        how = {"recipe": at(8, 8), "classes": (), "to": to, "wanted": Wanted(kinds=(kind,))}
        with pytest.raises(ValueError, match=f"{name} is there already; give --overwrite"):
            list(predicting.files(Bright(), [tmp_path / "a.png"], **how))
        assert (to / name).read_text() == "mine"
        assert list(predicting.files(Bright(), [tmp_path / "a.png"], **how, overwrite=True))
        assert (to / name).read_text() != "mine"


def test_what_cannot_be_written_is_refused():
    with pytest.raises(ValueError, match="write is 'masks'; it must be some of mask, overlay"):
        Wanted(kinds=("masks",))
    with pytest.raises(ValueError, match="pixel_size"):
        Wanted(pixel_size=0)
    with pytest.raises(ValueError, match="pixel_size"):
        Wanted(pixel_size=1e308)  # whose square is no number


@pytest.mark.parametrize("shape", [(1, 1), (512, 512), (700, 1030), (513, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_spool_gives_back_its_rows_and_writes_them_in_tiles(tmp_path, shape, dtype):
    values = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    with results.spooled(tmp_path, shape, dtype) as spool:
        for top in range(0, shape[0], 100):
            spool.append(values[top : top + 100])
        np.testing.assert_array_equal(spool[3:9], values[3:9])
        spool.save(tmp_path / "a.tif")
        size = max(shape[0] // 3, 1), max(shape[1] // 2, 1)
        small = spool.nearest(size)
    for y, x in np.ndindex(*size):
        row, column = int((y + 0.5) * shape[0] / size[0]), int((x + 0.5) * shape[1] / size[1])
        assert small[y, x] == values[row, column]
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), values)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]
