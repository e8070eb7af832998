"""Scores of a model on a dataset.

Every image is scored by itself and sums are integers or float64, so scores do not depend on the
batch size. Classes are decided where the model runs: a byte or two a pixel come back from there.
"""

# Keras ships no stubs: a checker takes what its ops return for None.
# pyright: reportOptionalOperand=false, reportOperatorIssue=false, reportOptionalSubscript=false

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from segdata.core import IGNORE_LABEL
from unet import inference, losses, metrics
from unet.recipes import Recipe

Batches = Iterable[tuple[Any, Any]]
"""Images uint8 [B, H, W, 3] and masks uint8 [B, H, W, 1], as often as it is iterated over."""


class Scored(NamedTuple):
    """One image with its prediction and what its scores are made of."""

    image: np.ndarray
    """uint8 [H, W, 3]."""

    mask: np.ndarray
    """uint8 [H, W]: 1 foreground, or the class id; 255 is the ignore label."""

    found: np.ndarray
    """uint8 [H, W], the predicted class; float32 [H, W] of a regression."""

    probability: np.ndarray
    """uint8 [H, W]: of the foreground, or of the predicted class, in 255ths."""

    sums: np.ndarray
    """Its confusion matrix, int64 [K, K]; or of a regression what `metrics.errors` gives."""

    loss: np.ndarray
    """Its part in the loss of the dataset: float32, from `losses.parts`."""

    scores: Mapping[str, float]
    """`dice` and `iou`; or `mae` and `rmse`. Empty where nothing is labelled."""

    dataset: str = ""
    """Which dataset it is of, where there are several."""

    id: str = ""
    """Its name in the dataset; empty where it is scored at the size of the training."""

    group: str = ""
    """Its group, likewise."""

    instances: np.ndarray | None = None
    """uint16 [H, W], its true objects, where they were asked for."""

    @property
    def name(self) -> str:
        """Its id, with its dataset where there are several."""
        return f"{self.dataset}: {self.id}" if self.dataset else self.id


def scorer(network: Any, recipe: Recipe, *, decides: bool = True) -> keras.Model:
    """What `scored` runs: a model of images and masks that shares the network's variables.

    Args:
        network: From uint8 [B, H, W, 3] to logits float32 [B, H, W, C].
        recipe: Its loss, its threshold and the activation of its model.
        decides: Whether it gives the class of each pixel, or the probabilities.
    """
    mask = keras.Input((None, None, 1), dtype="uint8", name="mask")
    judge = _Judge(recipe, decides=decides)
    made: Any = keras.Model([network.inputs[0], mask], judge(mask, network.outputs[0]))
    made.jit_compile = network.jit_compile
    return made


def evaluate(
    network: Any, batches: Batches | Mapping[str, Batches], recipe: Recipe
) -> dict[str, float]:
    """Scores a model.

    Args:
        network: From uint8 [B, H, W, 3] to logits float32 [B, H, W, C].
        batches: Of a dataset, or those of several by name.
        recipe: Its loss, its threshold and the activation of its model.

    Returns:
        As `summary`.

    Raises:
        ValueError: If no image has labels.
    """
    return summary(scored(scorer(network, recipe), batches, recipe), recipe)


def evaluate_native(
    network: Any, images: Iterable[Any] | Mapping[str, Iterable[Any]], recipe: Recipe
) -> dict[str, float]:
    """Scores a model at the images' own sizes: its probabilities are brought there, and decided.

    Args:
        network: As in `evaluate`.
        images: `segdata.native.Native` of a dataset, or those of several by name.
        recipe: As in `evaluate`.

    Returns:
        As `summary`; the loss is that at the size of the training, of an image in tiles the mean of
        those that have labels, and with flips of all views.

    Raises:
        ValueError: If no image has labels.
    """
    judge = scorer(network, recipe, decides=False)
    return summary(scored_native(judge, images, recipe), recipe)


def scored_native(
    judge: Any, images: Iterable[Any] | Mapping[str, Iterable[Any]], recipe: Recipe
) -> Iterator[Scored]:
    """`scored` at the images' own sizes; arguments as in `evaluate_native`."""
    if isinstance(images, Mapping):
        for name, own in images.items():
            for image in scored_native(judge, own, recipe):
                yield image._replace(dataset=name)
        return
    for example in images:
        losses: list[np.ndarray] = []
        # As in `summary`, what has no labels is left out; an image of tiles without any has loss 0.
        is_empty = (example.record[..., 3] == IGNORE_LABEL).all()

        def ask(
            batch: np.ndarray, losses: list[np.ndarray] = losses, is_empty: bool = is_empty
        ) -> np.ndarray:
            output, part = inference.asked(judge, batch[..., :3], batch[..., 3:])
            is_labelled = (batch[..., 3] != IGNORE_LABEL).any(axis=(1, 2))
            losses.append(part[is_labelled | is_empty])
            return output

        shape = example.mask.shape
        whole = inference.flipped(ask, recipe)
        parts = inference.parts(whole, example.record, shape, recipe)
        found, probability = inference.decided(parts, shape, recipe)
        loss = np.concatenate(losses).mean(axis=0)
        one = _of_image(example.image, example.mask, found, probability, loss, recipe)
        yield one._replace(id=example.id, group=example.group, instances=example.instances)


def scored(
    judge: Any, batches: Batches | Mapping[str, Batches], recipe: Recipe
) -> Iterator[Scored]:
    """Predicts and scores image by image.

    Args:
        judge: From `scorer`.
        batches: As for `evaluate`.
        recipe: The same.
    """
    if isinstance(batches, Mapping):
        for name, own in batches.items():
            for image in scored(judge, own, recipe):
                yield image._replace(dataset=name)
        return
    for images, masks in batches:
        images, masks = np.asarray(images), np.asarray(masks)
        answers = judge.predict_on_batch([images, masks])
        found, probability, loss = (np.asarray(answer) for answer in answers)
        for i in range(len(images)):
            mask = masks[i, ..., 0]
            yield _of_image(images[i], mask, found[i], probability[i], loss[i], recipe)


def summary(images: Iterable[Scored], recipe: Recipe) -> dict[str, float]:
    """Sums up the scores of a dataset. Images without labels are left out.

    Args:
        images: From `scored`.
        recipe: The same.

    Returns:
        `images`, how many have labels, `unlabelled`, how many have none, where there are such, and
        `loss`, from `losses.total`. Of classes `dice` and `iou`, means over images;
        `dataset_dice` and `dataset_iou`, of all pixels together; `threshold`. Of several classes
        Dice and IoU are means over those that occur. Of a regression `mae`, `rmse` and `r2` over
        all pixels. Where there are several datasets, the same of each, as `dice/NAME`.

    Raises:
        ValueError: If no image has labels.
    """
    added: dict[str, _Added] = {}
    for image in images:
        added.setdefault(image.dataset, _Added()).add(image)
    together = _summed([*added.values()], recipe)
    for name in filter(None, added):
        scores = _summed([added[name]], recipe, of=name)
        together |= {f"{score}/{name}": value for score, value in scores.items()}
    return together | ({} if recipe.is_regression else {"threshold": recipe.threshold})


def require_classes(mask: np.ndarray, recipe: Recipe, *, of: str) -> None:
    """Raises ValueError if masks hold classes that the model does not have."""
    most = max(recipe.model.output_channels, 2) - 1
    odd = np.setdiff1d(mask, [*range(most + 1), IGNORE_LABEL])
    if odd.size:
        listed = ", ".join(map(str, odd[:8].tolist()))
        raise ValueError(
            f"masks of {of} hold {listed}, but the classes of this model are 0 to {most} and "
            f"{IGNORE_LABEL} the ignore label. For more classes give --output_activation softmax "
            f"--output_channels N."
        )


def _of_image(
    image: np.ndarray,
    mask: np.ndarray,
    found: np.ndarray,
    probability: np.ndarray,
    loss: np.ndarray,
    recipe: Recipe,
) -> Scored:
    """An image with what is added up of it, and its own scores."""
    scores: dict[str, float] = {}
    if recipe.is_regression:
        sums = metrics.errors(mask, found)
        if sums[0]:
            own = metrics.regression(sums)
            scores = {name: own[name] for name in ("mae", "rmse")}
    else:
        channels = recipe.model.output_channels
        sums = metrics.confusion(mask, found, channels=channels)
        if sums.any():
            each = metrics.scores(sums, channels=channels)
            scores = {name: float(metrics.mean(each[name])) for name in ("dice", "iou")}
    return Scored(image, mask, found, probability, sums, loss, scores)


class _Added:
    """What is added up of the images of a dataset."""

    def __init__(self) -> None:
        self.images = 0
        self.sums: Any = 0
        self.scores: list[Mapping[str, float]] = []
        self.parts: list[np.ndarray] = []

    def add(self, image: Scored) -> None:
        self.images += 1
        if image.scores:
            self.scores.append(image.scores)
            self.parts.append(image.loss)
            self.sums = self.sums + image.sums


def _summed(added: list[_Added], recipe: Recipe, *, of: str = "the set") -> dict[str, float]:
    images = sum(each.images for each in added)
    rows = [row for each in added for row in each.scores]
    parts = [part for each in added for part in each.parts]
    if not rows:
        raise ValueError(
            f"there is nothing to score: none of the {images} images of {of} has labels. "
            "Score a split that has them."
        )
    whole: Any = sum(each.sums for each in added)
    found: dict[str, float] = {"images": len(rows)}
    if len(rows) < images:
        found["unlabelled"] = images - len(rows)
    if recipe.is_regression:
        found |= metrics.regression(whole)
    else:
        for name in ("dice", "iou"):
            found[name] = float(np.mean([row[name] for row in rows]))
        together = metrics.scores(whole, channels=recipe.model.output_channels)
        for name in ("dice", "iou"):
            found[f"dataset_{name}"] = float(metrics.mean(together[name]))
    loss = losses.chosen(**recipe.loss_settings)
    return found | {"loss": losses.total(loss, np.array(parts, np.float64))}


class _Judge(keras.layers.Layer):
    """Masks and logits to predictions, probabilities in 255ths and parts of the loss.

    Or, where it does not decide, to probabilities, or numbers of a regression, and parts.
    """

    def __init__(self, recipe: Recipe, *, decides: bool):
        super().__init__(dtype="float32")
        self.loss, self.threshold = losses.chosen(**recipe.loss_settings), recipe.threshold
        self.activation, self.decides = recipe.model.output_activation, decides

    def call(self, mask, logits):
        parts = losses.parts(self.loss, mask, logits)
        if self.activation == "linear":
            unknown = ops.cast(ops.zeros_like(mask[..., 0]), "uint8")
            return (logits[..., 0], unknown, parts) if self.decides else (logits, parts)
        is_one = logits.shape[-1] == 1
        output = ops.sigmoid(logits) if is_one else ops.softmax(logits, axis=-1)
        if not self.decides:
            return output, parts
        probability = ops.max(output, axis=-1)
        found = probability > self.threshold if is_one else ops.argmax(logits, axis=-1)
        return ops.cast(found, "uint8"), ops.cast(ops.round(255 * probability), "uint8"), parts
