"""A trained network in a program of one's own: loaded from a run, and asked about images.

Images are answered by the code of the command `unet predict`, at their own size.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from segdata.archives.intensity import Scaling
from unet import hardware, inference, metrics, model, predicting, recipes, results, runs
from unet.objects import Separation
from unet.recipes import Recipe
from unet.results import Objects


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """A network, and what must be known to answer images with it: `load` makes it from a run."""

    network: Any
    """A Keras model from uint8 [B, h, w, 3] to logits float32 [B, h, w, C], as `unet.build` makes
    it."""

    recipe: Recipe
    """What it was trained by: at which size, on whole images or crops; its threshold."""

    classes: tuple[str, ...] = ()
    """The names of the classes; empty for a network of one channel."""

    scalings: Mapping[str, Scaling | None] = dataclasses.field(default_factory=lambda: {"": None})
    """By dataset how brightness became 8 bits when it was built; None where images had 8 bits."""

    trained_on: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Sizes of a sample of the images of the training, in pixels: median `height` and `width`, and
    the `longest` side; empty where they are not known."""

    @functools.cached_property
    def served(self) -> Any:
        """The same network with probabilities instead of logits."""
        return model.serving(self.network, self.recipe.model.output_activation)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a network says of an image, at the image's own size."""

    image: np.ndarray
    """uint8 [H, W, 3]: the image in the brightness that the network was trained on."""

    output: np.ndarray
    """float32 [H, W, C]: the probability of the foreground, or of each class; of a regression the
    numbers themselves, C = 1."""

    trained: Trained
    """What was asked."""

    @functools.cached_property
    def mask(self) -> np.ndarray:
        """uint8 [H, W]: 1 for foreground, or of several classes their ids.

        Raises:
            ValueError: If the network is a regression.
        """
        recipe = self.trained.recipe
        if recipe.is_regression:
            raise ValueError("the network is a regression and has no mask; see output.")
        return metrics.decide(self.output, threshold=recipe.threshold)

    def objects(self, separation: Separation | None = None) -> Objects:
        """The objects of the mask: `labels`, a map of their numbers, class, area and others.

        Args:
            separation: How touching ones are split; as `unet predict` does if not given.

        Raises:
            ValueError: If the network is a regression.
        """
        classes = self.trained.classes or ("background", "foreground")
        return results.objects(self.mask, self.image, classes, separation=separation)


def load(run: str | os.PathLike[str]) -> Trained:
    """Loads the best model of a run, in the precision that is best for this machine.

    Keras's precision policy stays as it is.

    Args:
        run: The run's folder, of `unet train`.

    Raises:
        ValueError: If the folder holds no run, one that has not finished its first epoch, or a
            damaged model.
    """
    folder = pathlib.Path(run)
    settings = runs.settings(folder)
    hardware.prepare_environment()
    import keras

    policy = keras.config.dtype_policy()
    try:
        network = runs.load(folder)
    finally:
        keras.config.set_dtype_policy(policy)
    return Trained(
        network=network,
        recipe=settings.recipe,
        classes=settings.classes,
        scalings=runs.scalings(settings) or {"": None},  # of a run that kept none
        trained_on=settings.trained_on,
    )


def predict(
    trained: Trained | str | os.PathLike[str],
    image: np.ndarray | str | os.PathLike[str],
    *,
    flips: recipes.Flips = "auto",
    overlap: float | None = None,
    larger: recipes.Larger = "tiles",
    like: str = "",
) -> Prediction:
    """Answers an image of any size, at its own size.

    A network that was trained on whole images sees it squashed to the training's size, one that was
    trained on crops in tiles, and what it says is brought back.

    Args:
        trained: From `load`, or made of a network of one's own; or a run's folder, which is loaded
            for this image alone.
        image: [H, W] or [H, W, C] of one to three channels, uint8, or where the dataset's images
            had another type, of that; or an image file, of up to 33 megapixels.
        flips: Whether to average over the mirror images and turns that the augmentation showed: on,
            off, or as the recipe says.
        overlap: The share of a tile's side by which tiles overlap, from 0 to 0.75; 0.25 if not
            given.
        larger: How an image is seen whose longest side is more than 1.5 times as long as any of the
            training: in tiles at the scale of those, as it shows more than they did; or shrunk,
            where it shows the same with more pixels.
        like: Of a network trained on several datasets, the one that the image is like, where its
            type does not say it.

    Raises:
        ValueError: If the image has another shape, type or depth, or an argument does not fit the
            network; as `load`.
        OSError: If the file cannot be read or is damaged.
    """
    trained = trained if isinstance(trained, Trained) else load(trained)
    recipe, scalings = (
        recipes.flipping(trained.recipe, flips),
        predicting.like(trained.scalings, like),
    )
    predicting.require_overlap(overlap)
    seen_at = predicting.seen_by(recipe, trained.trained_on, larger)
    name = "the image" if isinstance(image, np.ndarray) else image

    def read(scaling: Scaling | None) -> tuple[np.ndarray, inference.Pixels]:
        if isinstance(image, np.ndarray):
            return predicting.of_array(image, seen=seen_at, scaling=scaling)
        return predicting.read(pathlib.Path(image), seen=seen_at, scaling=scaling)

    whole, seen = predicting.only(name, scalings, read)
    ask: inference.Ask = functools.partial(inference.asked, trained.served)
    share = inference.OVERLAP if overlap is None else overlap
    channels = recipe.model.output_channels
    output = np.empty((*whole.shape[:2], channels), np.float32)
    for rows, columns, part in inference.parts(
        inference.flipped(ask, recipe), seen, whole.shape, recipe, overlap=share
    ):
        output[rows, columns] = part
    return Prediction(image=whole, output=output, trained=trained)
