"""Exports: that each says what the original says, and is refused where it does not."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import zipfile
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from PIL import Image

from segdata.archives import resizing
from segdata.core import tiles
from segdata.inspection import overlays
from unet import (
    cli,
    export,
    hardware,
    inference,
    metrics,
    model,
    onnx_graph,
    runs,
    tensorflow_graph,
)
from unet.model import FCN, UNet
from unet.recipes import Recipe
from unet.runs import Settings

EXAMPLE = pathlib.Path(__file__).parent.parent / "examples" / "onnx_predict.py"
TO = {"keras": "m.keras", "savedmodel": "m", "onnx": "m.onnx", "litert": "m.tflite"}
SOFTMAX: Any = {"output_activation": "softmax", "output_channels": 3}
MODELS = {
    "plain": UNet(filters=(2, 3, 4)),
    "all else": UNet(
        filters=(3, 4),
        standardise=True,
        stem_stride=2,
        image_skip=True,
        batch_norm=True,
        dropout=(0.2,),
        upsampling="transposed",
        transposed_kernel=3,
        head_filters=2,
        activation="elu",
        **SOFTMAX,
    ),
    "even kernel": UNet(
        filters=(2, 3), upsampling="transposed", skips=False, activation="leaky_relu"
    ),
    "unpadded": UNet(filters=(3, 4), convolutions=1, padding="valid", activation="elu"),
    "fcn": FCN(filters=(3, 2), activation="silu", **SOFTMAX),
}
REGRESSION = Recipe(
    size=(8, 16), model=UNet(filters=(2, 3), output_activation="linear"), loss="squared_error"
)


def run_of(folder: pathlib.Path, recipe: Recipe, **more: Any) -> Settings:
    """A run's folder, with weights that are far from their first ones."""
    choice = hardware.Choice(hardware="a CPU", precision="float32", compile=False)
    settings = Settings(recipe=recipe, choice=choice, name="mine", **more)
    runs.create(folder, settings)
    hardware.apply(choice)
    network = model.build(recipe.model)
    rng = np.random.default_rng(0)
    for weight in network.weights:
        is_spread = "variance" in weight.path
        values = (
            rng.random(weight.shape) + 0.5 if is_spread else 0.3 * rng.normal(size=weight.shape)
        )
        weight.assign(values)
    network.save(folder / "best.keras")
    return settings


def photos(count: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, *size, 3), np.uint8)


def exported(tmp_path: pathlib.Path, kind: str, recipe: Recipe) -> Any:
    """The original, the settings, what the export says, and the file."""
    settings = run_of(tmp_path / "run", recipe)
    original, to = export.network(tmp_path / "run", settings), tmp_path / TO[kind]
    compared = export.write(to, original, settings=settings, images=photos(3, recipe.size))
    assert (compared.images, compared.equal) == (3, 1)
    assert compared.difference < 1e-5
    return original, settings, export._FORMATS[export._ENDINGS.get(to.suffix, "savedmodel")][1], to


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", TO)
def test_an_export_says_what_the_original_says(tmp_path, name, kind):
    record_size = None if name in ("plain", "fcn") else "native"
    recipe = Recipe(
        size=(16, 24),
        model=MODELS[name],
        loss="cross_entropy",
        threshold=0.4,
        record_size=record_size,
    )
    original, _, load, to = exported(tmp_path, kind, recipe)
    ask = load(to)
    shapes = [(1, 16, 24)]
    if kind != "litert":
        shapes = [(3, 16, 24)] if record_size is None else [(1, 16, 24), (2, 40, 8), (3, 8, 64)]
    for count, *size in shapes:
        images = photos(count, (size[0], size[1]))
        wanted, found = original.predict_on_batch(images), ask(images)
        assert wanted.std() > 1e-3
        np.testing.assert_allclose(found["probability"], wanted, atol=1e-5)
        assert found["mask"].dtype == np.uint8
        assert found["mask"].shape == images.shape[:3]
        mask = np.zeros(images.shape[:3], np.uint8)
        for place in np.ndindex(*mask.shape):
            values = list(found["probability"][place])
            mask[place] = values.index(max(values)) if len(values) > 1 else values[0] > 0.4
        np.testing.assert_array_equal(found["mask"], mask)
        np.testing.assert_array_equal(metrics.decide(found["probability"], threshold=0.4), mask)
    if kind in ("onnx", "savedmodel") and record_size is None:
        with pytest.raises(Exception, match=r"(?i)shape|dimension|signature|compatible"):
            ask(photos(1, (32, 24)))


def test_the_converter_to_litert_prints_nothing(tmp_path, capfd):
    recipe = Recipe(size=(16, 24), model=MODELS["plain"], loss="cross_entropy")
    _, _, load, to = exported(tmp_path, "litert", recipe)
    load(to)(photos(1, (16, 24)))
    said = capfd.readouterr().err
    assert "tf_tfl_flatbuffer_helpers" not in said
    assert "XNNPACK" not in said


@pytest.mark.parametrize("kind", TO)
def test_a_regression_gives_its_values(tmp_path, kind):
    original, _, load, to = exported(tmp_path, kind, REGRESSION)
    images = photos(1, (8, 16))
    found = load(to)(images)
    assert found.keys() == {"values"}
    np.testing.assert_allclose(found["values"], original.predict_on_batch(images), atol=1e-5)


@pytest.mark.parametrize("kind", TO)
def test_what_comes_before_and_after_is_in_the_file(tmp_path, kind):
    scaling = {"low": [100.0], "high": [4000.0], "rule": "of a test", "types": ["uint16"]}
    recipe = Recipe(size=(8, 16), model=UNet(filters=(2, 3), **SOFTMAX))
    settings = run_of(
        tmp_path / "run", recipe, classes=("none", "Zelle µ", "Rand"), scalings={"cells": scaling}
    )
    to = tmp_path / TO[kind]
    original = export.network(tmp_path / "run", settings)
    export.write(to, original, settings=settings, images=export.random_images(settings))
    if kind == "onnx":
        (found,) = (each.value for each in onnx.load(to).metadata_props if each.key == "unet")
    elif kind == "savedmodel":
        found = (to / "assets.extra" / "unet.json").read_text(encoding="utf-8")
    else:
        with zipfile.ZipFile(to) as archive:
            found = archive.read("unet.json").decode()
    about = json.loads(found)
    assert about["classes"] == ["none", "Zelle µ", "Rand"]
    assert about["input"]["size"] == [8, 16]
    assert about["input"]["multiple_of"] == 2
    assert about["input"]["scalings"] == {"cells": scaling}
    assert about["recipe"] == "mine"
    assert "threshold" not in about  # the most probable class is found
    assert "softmax" in about["outputs"]["probability"]


@pytest.mark.parametrize("kind", TO)
@pytest.mark.parametrize("fault", ["probability", "mask", "type", "nan"])
def test_an_export_that_says_something_else_is_refused_and_leaves_nothing(
    tmp_path, kind, fault, monkeypatch
):
    recipe = Recipe(size=(16, 16), model=UNet(filters=(2, 3)))
    settings = run_of(tmp_path / "run", recipe)
    write, load = export._FORMATS[kind]  # pyright: ignore[reportArgumentType]

    def wrong(path):
        ask = load(path)

        def answer(images):
            found = {name: np.array(value) for name, value in ask(images).items()}
            if fault == "probability":
                found["probability"][0, 3, 5] += 2e-3
            elif fault == "mask":
                found["mask"][0, 3, 5:7] ^= 1
            elif fault == "nan":
                found["probability"][0, 3, 5] = np.nan
            else:
                found["mask"] = found["mask"].astype(np.int32)
            return found

        return answer

    monkeypatch.setitem(export._FORMATS, kind, (write, wrong))
    original = export.network(tmp_path / "run", settings)
    with pytest.raises(ValueError, match=r"differs from the original|where the original gives"):
        export.write(tmp_path / TO[kind], original, settings=settings, images=photos(2, (16, 16)))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_without_an_image_nothing_is_called_done(tmp_path):
    settings = run_of(tmp_path / "run", Recipe(size=(8, 8), model=UNet(filters=(2,))))
    original = export.network(tmp_path / "run", settings)
    with pytest.raises(ValueError, match="there is no image"):
        export.write(tmp_path / "m.onnx", original, settings=settings, images=[])
    assert not (tmp_path / "m.onnx").exists()


def test_images_of_any_size_are_cut_to_what_the_export_takes(tmp_path):
    recipe = Recipe(size=(16, 8), model=UNet(filters=(2, 3, 4)), record_size="native")
    settings = run_of(tmp_path / "run", recipe)
    for size, kind, wanted in [
        ((33, 47), "onnx", (32, 44)),
        ((3, 700), "onnx", (4, 512)),
        ((33, 47), "litert", (16, 8)),
        ((5, 3), "litert", (16, 8)),
    ]:
        image = photos(1, size)[0]
        assert export._fitted(image, settings, kind).shape == (*wanted, 3)  # pyright: ignore


def test_a_layer_or_an_activation_that_is_not_known_is_named():
    image: Any = keras.Input((8, 8, 3), dtype="uint8")
    for layer, fault in [
        (keras.layers.AveragePooling2D(2), "AveragePooling2D"),
        (keras.layers.Activation("hard_silu"), "hard_silu"),
    ]:
        network = keras.Model(image, layer(keras.ops.cast(image, "float32")))
        with pytest.raises(ValueError, match=fault):
            onnx_graph.write(network, size=None, threshold=0.5, metadata={})
        with pytest.raises(ValueError, match=fault):
            tensorflow_graph.module(network, shape=(1, 8, 8, 3), threshold=0.5)


def test_names_that_cannot_be_written_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"m\.h5: \.keras, \.onnx and \.tflite are written"):
        export.kind_of(tmp_path / "m.h5")
    (tmp_path / "m.onnx").touch()
    with pytest.raises(ValueError, match="is there already and is never overwritten"):
        export.kind_of(tmp_path / "m.onnx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs ai_edge_litert: pip install 'segdata\[export\]'"):
        export.kind_of(tmp_path / "m.tflite")


def test_the_command_says_what_it_compared_on(tmp_path, capsys):
    recipe = Recipe(size=(8, 16), model=UNet(filters=(2, 3)), dataset="nowhere")
    run_of(tmp_path / "run", recipe, data_dir=str(tmp_path))
    argv = ["export", str(tmp_path / "run"), "--to", str(tmp_path / "new" / "m.onnx")]
    assert cli.main(argv) == 0
    said = capsys.readouterr().out
    assert "the validation images are not there" in said
    assert "on 8 random images: largest difference" in said
    assert "takes images of 8×16 pixels\n" in said
    assert cli.main(argv) == 2
    assert "is there already" in capsys.readouterr().err


def test_a_folder_that_may_not_be_written_to_is_refused_before_the_work(
    tmp_path, monkeypatch, capsys
):
    recipe = Recipe(size=(8, 16), model=UNet(filters=(2, 3)), dataset="nowhere")
    run_of(tmp_path / "run", recipe, data_dir=str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    monkeypatch.setattr(export, "network", None)
    for name in ("m.onnx", "m"):
        assert cli.main(["export", str(tmp_path / "run"), "--to", str(tmp_path / name)]) == 2
        assert f"{tmp_path} may not be written to" in capsys.readouterr().err


EXAMPLES: dict[str, dict[str, Any]] = {
    "whole": {},
    "native crops": {"record_size": "native"},
    "crops": {"record_size": 16},
    "unpadded": {"record_size": "native", "size": (32, 32), "model": MODELS["unpadded"]},
    "classes": {"record_size": 16, "model": MODELS["fcn"], "loss": "cross_entropy"},
}


@pytest.mark.heavy
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_runs_an_export_without_keras(tmp_path, name):
    recipe = dataclasses.replace(Recipe(size=(8, 16), model=UNet(filters=(2, 3))), **EXAMPLES[name])
    settings = run_of(tmp_path / "run", recipe)
    to, original = tmp_path / "m.onnx", export.network(tmp_path / "run", settings)
    pixels = photos(1, (21, 35))[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(pixels)).save(tmp_path / "photo.png", exif=exif)  # shown as pixels
    height, width = recipe.seen(21, 35)
    stride, least = recipe.model.stride, recipe.model.least
    high, wide = (max(-(-side // stride) * stride, least) for side in (height, width))
    seen = resizing.image(pixels, (height, width))
    given = seen[
        np.ix_(*(tiles.mirrored(np.arange(n), m) for n, m in [(high, height), (wide, width)]))
    ]
    found = inference.asked(original, given[None])[0, :height, :width]
    recipe = dataclasses.replace(recipe, threshold=float(np.median(found[..., 0])))
    settings = dataclasses.replace(settings, recipe=recipe)
    export.write(to, original, settings=settings, images=photos(2, recipe.size))
    done = example(to, tmp_path / "photo.png", tmp_path / "mask.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    mask = metrics.decide(found, threshold=recipe.threshold)
    mask = overlays.nearest(mask, (21, 35)) * (255 if found.shape[-1] == 1 else 1)
    with Image.open(tmp_path / "mask.png") as written:
        assert written.size == (35, 21)
        assert (np.asarray(written) == mask).mean() > 0.95  # Pillow rounds another way
        assert len(np.unique(np.asarray(written))) > 1


@pytest.mark.heavy
def test_the_example_refuses_levels_that_it_cannot_bring_to_8_bits(tmp_path):
    recipe = Recipe(size=(8, 16), model=UNet(filters=(2, 3)))
    scaling = {"low": [0.0], "high": [4095.0], "rule": "all", "types": ["uint16"]}
    deep = (photos(1, (9, 12))[0, ..., 0].astype(np.uint16) * 16, "photo.png")
    plain = (photos(1, (9, 12))[0], "plain.png")
    for name, scalings, (pixels, photo) in [("a", {}, deep), ("b", {"x": scaling}, plain)]:
        settings = run_of(tmp_path / name, recipe, scalings=scalings)
        to, original = tmp_path / f"{name}.onnx", export.network(tmp_path / name, settings)
        export.write(to, original, settings=settings, images=photos(2, (8, 16)))
        Image.fromarray(pixels).save(tmp_path / photo)
        done = example(to, tmp_path / photo, tmp_path / "mask.png")
        assert done.returncode == 1
        assert "8 bits" in done.stderr
        assert not (tmp_path / "mask.png").exists()


def example(*given: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Runs the example; what it prints is which packages it has loaded, of those it may not."""
    script = (
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0]);"
        "print(sorted({'keras', 'tensorflow', 'jax', 'segdata', 'unet'} & {*sys.modules}))"
    )
    return subprocess.run(
        [sys.executable, "-c", script, EXAMPLE, *given], capture_output=True, text=True
    )


@pytest.mark.heavy
def test_a_keras_file_opens_without_this_package(tmp_path):
    settings = run_of(tmp_path / "run", Recipe(size=(8, 16), model=MODELS["all else"]))
    original = export.network(tmp_path / "run", settings)
    images = photos(2, (8, 16))
    export.write(tmp_path / "m.keras", original, settings=settings, images=images)
    np.save(tmp_path / "images.npy", images)
    script = (
        "import keras, numpy, sys\n"
        "found = keras.models.load_model('m.keras').predict_on_batch(numpy.load('images.npy'))\n"
        "numpy.save('found.npy', found['probability'])\n"
        "assert not {'unet', 'segdata'} & {*sys.modules}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    wanted = original.predict_on_batch(images)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), wanted, atol=1e-6)


def test_what_an_image_has_to_be_before_is_said():
    choice = hardware.Choice(hardware="a CPU", precision="float32", compile=False)
    flips: Any = {"flips": True, "augment": {"horizontal_flip": 0.5}}
    for records, more, said in [
        (None, {}, "Resize the whole image to this size, by area where it shrinks."),
        ("native", flips, "averages over 2 views"),
        (384, {}, "its longer side to 384 pixels where it is longer"),
    ]:
        recipe = Recipe(record_size=records, **more)
        for kind in ("onnx", "litert"):
            about = export.description(Settings(recipe=recipe, choice=choice), kind)
            assert said in about["input"]["before"]
            assert (about["threshold"], about["classes"]) == (0.5, ("background", "foreground"))
    sizes = {"height": 60, "width": 80, "longest": 100}
    scales: dict[Any, bool] = {None: True, 384: True, "native": False}  # the last stays
    for records, is_said in scales.items():
        settings = Settings(recipe=Recipe(record_size=records), choice=choice, trained_on=sizes)
        before = export.description(settings, "onnx")["input"]["before"]
        said = "side above 150 pixels, `unet predict` sees tiles of 128×128 pixels, at the scale"
        assert (said in before) == is_said
    number = Recipe(model=UNet(output_activation="linear"), loss="squared_error", best_by="loss")
    about = export.description(Settings(recipe=number, choice=choice), "onnx")
    assert not {"threshold", "classes"} & about.keys()
