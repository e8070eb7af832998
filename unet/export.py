"""A run's best model as one file or folder that runs without this package.

The input is uint8 [B, H, W, 3]; the outputs are `mask`, uint8 [B, H, W], class ids, and
`probability`, float32 [B, H, W, C]; of a regression `values`, float32 [B, H, W, 1]. A run on whole
images takes those of the size of its training, one on crops images of any height and width that the
stride divides, but for LiteRT, whose size is fixed. What an image has to be before, and what the
outputs mean, is in the file as JSON: in ONNX under the metadata `unet`, in Keras's and LiteRT's
file as `unet.json`, which any program for zips shows, in a SavedModel as `assets.extra/unet.json`.

Nothing gets its name before it was read back and compared with the original.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import itertools
import json
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from segdata import console
from segdata.core.system import files
from unet import hardware, model, recipes, runs
from unet.runs import Settings

if TYPE_CHECKING:
    import keras

Kind = Literal["keras", "savedmodel", "onnx", "litert"]

LARGEST_DIFFERENCE = 1e-3
"""Of a probability, or of a regression's value as a share of the largest one."""
LEAST_EQUAL = 0.999
"""Share of the pixels of masks that have to be equal."""

_ENDINGS: dict[str, Kind] = {".keras": "keras", ".onnx": "onnx", ".tflite": "litert"}
_NEEDED = {"onnx": ("onnx", "onnxruntime"), "litert": ("ai_edge_litert",)}
_IMAGES = 8  # that are compared
_SIDE = 512  # pixels; larger ones are cut to it
_NAME = "unet.json"

Ask = Callable[[np.ndarray], dict[str, np.ndarray]]
"""From uint8 [B, H, W, 3] to the outputs by name."""


class Compared(NamedTuple):
    """How an export differs from the original."""

    images: int
    """How many were compared."""

    difference: float
    """The largest of a probability, or of a value as a share of the largest one."""

    equal: float
    """Share of equal pixels of the masks; 1 of a regression."""


def kind_of(to: pathlib.Path) -> Kind:
    """The format that a name asks for.

    Raises:
        ValueError: If it has another ending, is there already, or what it needs is not installed.
    """
    if to.suffix and to.suffix not in _ENDINGS:
        raise ValueError(
            f"--to {to}: .keras, .onnx and .tflite are written, and without an ending a "
            "SavedModel, which is a folder."
        )
    if os.path.lexists(to):
        raise ValueError(f"--to {to} is there already and is never overwritten; name another.")
    kind = _ENDINGS.get(to.suffix, "savedmodel")
    missing = [name for name in _NEEDED.get(kind, ()) if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"--to {to} needs {' and '.join(missing)}: pip install 'segdata[export]'.")
    return kind


def load_libraries(kind: Kind) -> None:
    """Loads what a format needs, without the lines that it prints: TensorFlow, on JAX too."""
    if kind != "onnx":
        with console.quiet_start():
            import tensorflow as tf

            tf.config.list_physical_devices()


def network(run: pathlib.Path, settings: Settings) -> keras.Model:
    """The original: from images to probabilities or values, in float32."""
    choice = hardware.Choice(hardware=hardware.detect().name, precision="float32", compile=False)
    return model.serving(runs.load(run, choice), settings.recipe.model.output_activation)


def write(
    to: pathlib.Path, original: keras.Model, *, settings: Settings, images: Iterable[np.ndarray]
) -> Compared:
    """Writes an export, compares it with the original, and only then gives it its name.

    Args:
        to: The new file or folder; its ending says the format.
        original: From `network`.
        settings: Of the run.
        images: uint8 [h, w, 3], as the model sees them; the first few are compared.

    Raises:
        ValueError: If it cannot be written so, or differs too much from the original.
        OSError: If it cannot be written.
    """
    kind = kind_of(to)
    about = json.dumps(description(settings, kind), ensure_ascii=False, indent=2)
    write, load = _FORMATS[kind]
    files.make_folder(to.parent)
    files.remove_unfinished(to.parent)  # of processes that were killed
    with _new(to, kind) as unfinished:
        write(unfinished, original, settings, about)
        shown = itertools.islice(images, _IMAGES)
        batches = [_fitted(image, settings, kind)[None] for image in shown]
        compared = compare(load(unfinished), original, batches, settings=settings)
        # NaN is not below a limit.
        if not (compared.difference <= LARGEST_DIFFERENCE and compared.equal >= LEAST_EQUAL):
            raise ValueError(
                f"{to} was not written: it differs from the original by {compared.difference:.2g}, "
                f"where {LARGEST_DIFFERENCE:g} is allowed, and {compared.equal:.3%} of the mask's "
                f"pixels are equal, where {LEAST_EQUAL:.1%} have to be. Export another format."
            )
    return compared


def compare(
    ask: Ask, original: keras.Model, batches: Iterable[np.ndarray], *, settings: Settings
) -> Compared:
    """Compares an export with the original.

    Args:
        ask: The export.
        original: From `network`.
        batches: uint8 [B, H, W, 3].
        settings: Of the run.

    Raises:
        ValueError: If there are no images, or the outputs are of other shapes or types.
    """
    from unet import inference, metrics

    recipe, count, differences, equal = settings.recipe, 0, [], []
    for images in batches:
        wanted, found = inference.asked(original, images), ask(images)
        count += len(images)
        if recipe.is_regression:
            expected = {"values": wanted}
            differences.append(_largest(found["values"] - wanted) / max(_largest(wanted), 1e-6))
        else:
            mask = metrics.decide(wanted, threshold=recipe.threshold)
            expected = {"mask": mask, "probability": wanted}
            differences.append(_largest(found["probability"] - wanted))
            equal.append((found["mask"] == mask).mean())
        for name, value in expected.items():
            given = found[name]
            if (given.shape, given.dtype) != (value.shape, value.dtype):
                raise ValueError(
                    f"the export's {name} is {given.dtype} {list(given.shape)}, where the original "
                    f"gives {value.dtype} {list(value.shape)}."
                )
    if not count:
        raise ValueError("there is no image to compare the export with the original on.")
    return Compared(count, float(np.max(differences)), float(np.mean(equal)) if equal else 1.0)


def description(settings: Settings, kind: Kind) -> dict[str, Any]:
    """What comes before and after the file, for its metadata."""
    recipe = settings.recipe
    size = input_size(settings, kind)
    if recipe.records is None:
        before = "Resize the whole image to this size, by area where it shrinks."
    elif recipe.records == "native":
        before = "Keep the image's own scale."
    else:
        before = f"Resize the image as for training: {_resized(recipe.records)}, by area."
    if recipe.records is not None:
        before += f" The training saw crops of {recipe.size[0]}×{recipe.size[1]} pixels."
    if recipe.records != "native" and (sizes := settings.trained_on):
        before += (
            f" Of an image with a side above {recipes.LARGER * sizes['longest']:g} pixels, `unet "
            f"predict` sees tiles of {recipe.size[0]}×{recipe.size[1]} pixels, at the scale that "
            f"images of {sizes['height']}×{sizes['width']} pixels are brought to."
        )
    if recipe.flips:
        before += f" `unet predict` averages over {len(recipe.views)} views; this is of one."
    outputs: dict[str, Any] = {"values": "float32 [B, H, W, 1]"}
    decided: dict[str, Any] = {}
    if not recipe.is_regression:
        decided["classes"] = settings.classes or ("background", "foreground")
        rule = (
            f"1 where the probability is above {recipe.threshold:g}, else 0"
            if recipe.model.output_channels == 1
            else "the number of the most probable class"
        )
        channels = recipe.model.output_channels
        probability = f"float32 [B, H, W, {channels}], after {recipe.model.output_activation}"
        outputs = {"mask": f"uint8 [B, H, W], {rule}", "probability": probability}
    if recipe.model.output_activation == "sigmoid":
        decided["threshold"] = recipe.threshold
    return {
        "input": {
            "image": "uint8 [B, H, W, 3], RGB; grey in all three channels",
            "size": size,
            "multiple_of": recipe.model.stride,
            "least": recipe.model.least,
            "before": before,
            "record_size": recipe.records,
            "scalings": settings.scalings,
            "scaled_in_the_file": "from 0 to 255 to what the model takes",
        },
        "outputs": outputs,
        **decided,
        "recipe": settings.name,
        "dataset": recipe.dataset,
        "version": f"segdata {importlib.metadata.version('segdata')}",
    }


def input_size(settings: Settings, kind: Kind) -> tuple[int, int] | None:
    """Height and width of the input; None for any that the stride divides."""
    recipe = settings.recipe
    return recipe.size if recipe.records is None or kind == "litert" else None


def random_images(settings: Settings) -> Iterator[np.ndarray]:
    """Smooth random images, where no data is there to compare on."""
    from segdata.archives import resizing

    rng = np.random.default_rng(0)
    for _ in range(_IMAGES):
        coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
        yield resizing.image(coarse, settings.recipe.size)


def _fitted(image: np.ndarray, settings: Settings, kind: Kind) -> np.ndarray:
    """The part of an image that an export takes: of its size, or as large as the stride allows."""
    from segdata.core import tiles

    size = input_size(settings, kind)
    if size is None:
        stride, least = settings.recipe.model.stride, settings.recipe.model.least
        height, width = (min(side, _SIDE) for side in image.shape[:2])
        size = max(height // stride * stride, least), max(width // stride * stride, least)
    spare = [(have - side) // 2 for have, side in zip(image.shape, size, strict=False)]
    return tiles.cut(image, spare[0], spare[1], size)


def _resized(records: Any) -> str:
    if isinstance(records, int):
        return f"its longer side to {records} pixels where it is longer"
    return "to {}×{} pixels".format(*records)


def _threshold(settings: Settings) -> float | None:
    return None if settings.recipe.is_regression else settings.recipe.threshold


def _largest(values: np.ndarray) -> float:
    """The largest absolute value; NaN where there is one."""
    return float(np.abs(values).max())


@contextlib.contextmanager
def _new(to: pathlib.Path, kind: Kind) -> Iterator[pathlib.Path]:
    """Where to write; it becomes `to` if nothing went wrong."""
    if kind != "savedmodel":
        with files.replacing(to) as unfinished:
            yield unfinished
        return
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=to.parent) as folder:
        unfinished = pathlib.Path(folder) / to.name
        yield unfinished
        unfinished.rename(to)


def _write_keras(path: pathlib.Path, original: Any, settings: Settings, about: str) -> None:
    import keras
    from keras import ops

    size, threshold = input_size(settings, "keras"), _threshold(settings)
    image = keras.Input((*(size or (None, None)), 3), dtype="uint8", name="image")
    found: Any = original(image)
    outputs = {"values": found}
    if threshold is not None:
        is_one = found.shape[-1] == 1
        mask: Any = found[..., 0] > threshold if is_one else ops.argmax(found, axis=-1)
        outputs = {"mask": ops.cast(mask, "uint8"), "probability": found}
    keras.Model(image, outputs, name=original.name).save(path)
    _append(path, about)


def _read_keras(path: pathlib.Path) -> Ask:
    import keras

    read: Any = keras.models.load_model(path)
    return lambda images: {k: np.asarray(v) for k, v in read.predict_on_batch(images).items()}


def _write_onnx(path: pathlib.Path, original: Any, settings: Settings, about: str) -> None:
    from unet import onnx_graph

    what: Any = {"size": input_size(settings, "onnx"), "threshold": _threshold(settings)}
    path.write_bytes(onnx_graph.write(original, **what, metadata={"unet": about}))


def _read_onnx(path: pathlib.Path) -> Ask:
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {"image": images}), strict=True))


def _write_savedmodel(path: pathlib.Path, original: Any, settings: Settings, about: str) -> None:
    import tensorflow as tf

    from unet import tensorflow_graph

    shape = (None, *(input_size(settings, "savedmodel") or (None, None)), 3)
    made = tensorflow_graph.module(original, shape=shape, threshold=_threshold(settings))
    tf.saved_model.save(made, str(path), signatures={"serving_default": made.answer})
    (path / "assets.extra").mkdir()
    (path / "assets.extra" / _NAME).write_text(about, encoding="utf-8")


def _read_savedmodel(path: pathlib.Path) -> Ask:
    import tensorflow as tf

    module: Any = tf.saved_model.load(str(path))
    signature = module.signatures["serving_default"]

    def ask(images: np.ndarray) -> dict[str, np.ndarray]:
        found = signature(image=tf.constant(images))
        return {name: value.numpy() for name, value in found.items()}

    ask.module = module  # its variables live as long as it  # pyright: ignore[reportFunctionMemberAccess]
    return ask


def _write_litert(path: pathlib.Path, original: Any, settings: Settings, about: str) -> None:
    import tensorflow as tf

    from unet import tensorflow_graph

    shape = (1, *settings.recipe.size, 3)
    made = tensorflow_graph.module(original, shape=shape, threshold=_threshold(settings))
    traced = [made.answer.get_concrete_function()]
    with console.quiet_start():  # the converter is loud, as is LiteRT when it reads a file
        converted = tf.lite.TFLiteConverter.from_concrete_functions(traced, made).convert()
    path.write_bytes(converted)
    _append(path, about)  # as LiteRT's own metadata appends its files


def _read_litert(path: pathlib.Path) -> Ask:
    from ai_edge_litert import interpreter

    with console.quiet_start():
        made: Any = interpreter.Interpreter(model_path=str(path))
        made.allocate_tensors()
    runner = made.get_signature_runner()
    return lambda images: dict(runner(image=images))


def _append(path: pathlib.Path, about: str) -> None:
    """Adds the description to a zip, or to the end of a file as a zip."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(_NAME, about)


_FORMATS: dict[Kind, tuple[Callable[..., None], Callable[[pathlib.Path], Ask]]] = {
    "keras": (_write_keras, _read_keras),
    "savedmodel": (_write_savedmodel, _read_savedmodel),
    "onnx": (_write_onnx, _read_onnx),
    "litert": (_write_litert, _read_litert),
}
