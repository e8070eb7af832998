"""Losses of segmentation.

Each takes masks uint8 [B, H, W, 1], 255 the ignore label, and logits float32 [B, H, W, C], and
returns one value an image: float32 [B]. With one channel, 1 is foreground and all else background;
with more, masks hold the classes 0 to C-1. The loss of an image does not depend on others in its
batch, so means over images do not depend on the batch size. Pixels with the ignore label are left
out; the loss of an image without any other is 0.

Losses take logits, not probabilities: a probability near 1 has no digits left to say how near.
Only `batch_dice` is the loss of a batch as a whole and has the same value for all its images.
`parts` and `total` score a dataset as one batch, whatever batches it came in. `chosen` makes the
loss of a recipe, with label smoothing, weights of classes and the boundary loss where asked for.
"""

# Keras ships no stubs: a checker takes what its ops return for None.
# pyright: reportOptionalOperand=false, reportOperatorIssue=false, reportOptionalSubscript=false
# pyright: reportOptionalMemberAccess=false

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
from keras import ops

from segdata.core import IGNORE_LABEL

Loss = Callable[[Any, Any], Any]

_PIXELS = (1, 2, 3)
_SMOOTH = 1e-5
_FAR = 1e9  # squared pixels; beyond any distance in an image
_MOST_DOUBLINGS = 16  # for sides that are not known when the graph is made


@keras.saving.register_keras_serializable(package="unet")
def cross_entropy(mask, logits, *, smoothing: float = 0.0, class_weights: Sequence[float] = ()):
    """Cross-entropy in nats, each image's mean over its labelled pixels.

    Args:
        mask: uint8 [B, H, W, 1].
        logits: float32 [B, H, W, C].
        smoothing: The share of each pixel's label that is spread over all classes alike.
        class_weights: What a pixel of each class weighs: C numbers, with one channel two, the
            background first; all 1 where empty. The mean is over the number of pixels.

    Returns:
        float32 [B], 0 or more.

    Raises:
        ValueError: If the shapes differ.

    Source: for smoothing Szegedy et al., "Rethinking the Inception architecture", CVPR 2016.
    """
    truth, labelled = _split(mask, logits)
    entropy = _entropy(truth, logits)
    if smoothing:
        entropy = (1 - smoothing) * entropy + smoothing * _entropy_of_any(logits)
    return _mean(entropy * _weights(truth, class_weights), labelled)


@keras.saving.register_keras_serializable(package="unet")
def focal(mask, logits, *, class_weights: Sequence[float] = ()):
    """Cross-entropy in which a pixel of probability p weighs (1 − p)²; each image's mean.

    Args:
        mask: uint8 [B, H, W, 1].
        logits: float32 [B, H, W, C].
        class_weights: As in `cross_entropy`.

    Returns:
        float32 [B], 0 or more.

    Raises:
        ValueError: If the shapes differ.

    Source: Lin et al., "Focal loss for dense object detection", ICCV 2017, with γ = 2, and the
        class weights for α.
    """
    truth, labelled = _split(mask, logits)
    # Of a pixel without a label it is no entropy: its power may be too large a number.
    entropy = _entropy(truth, logits) * labelled
    weights = _weights(truth, class_weights)
    return _mean(ops.square(-ops.expm1(-entropy)) * entropy * weights, labelled)


@keras.saving.register_keras_serializable(package="unet")
def dice(mask, logits):
    """Soft Dice loss of each image: 1 − (2 Σpt + 1) / (Σp + Σt + 1), over labelled pixels.

    The 1 makes an empty prediction of an empty mask cost nothing. Of several classes, the mean over
    all of them.

    Args:
        mask: uint8 [B, H, W, 1].
        logits: float32 [B, H, W, C].

    Returns:
        float32 [B] in [0, 1).

    Raises:
        ValueError: If the shapes differ.

    Source: Milletari, Navab and Ahmadi, "V-Net", 3DV 2016, with plain instead of squared sums.
    """
    return ops.mean(_dice(*_overlap(mask, logits), smooth=1), axis=-1)


@keras.saving.register_keras_serializable(package="unet")
def tversky(mask, logits):
    """Dice in which what is missed costs more than what is too much; each image's.

    1 − (Σpt + 1) / (Σpt + 0.3 Σp(1−t) + 0.7 Σ(1−p)t + 1); of several classes, the mean over them.

    Args:
        mask: uint8 [B, H, W, 1].
        logits: float32 [B, H, W, C].

    Returns:
        float32 [B] in [0, 1).

    Raises:
        ValueError: If the shapes differ.

    Source: Salehi, Erdogmus and Gholipour, "Tversky loss function", MLMI 2017.
    """
    common, found, true = _sums(mask, logits)
    wrong = 0.3 * (found - common) + 0.7 * (true - common)
    return ops.mean(1 - (common + 1) / (common + wrong + 1), axis=-1)


@keras.saving.register_keras_serializable(package="unet")
def lovasz(mask, logits):
    """The convex surrogate of the IoU of each image: hinge with one channel, else softmax.

    Of several classes, the mean over those that the image has.

    Args:
        mask: uint8 [B, H, W, 1].
        logits: float32 [B, H, W, C].

    Returns:
        float32 [B], 0 or more.

    Raises:
        ValueError: If the shapes differ.

    Source: Berman, Rannen Triki and Blaschko, "The Lovász-Softmax loss", CVPR 2018.
    """
    truth, labelled = _split(mask, logits)
    signs = 2 * truth - 1
    errors = ops.maximum(1 - logits * signs, 0) if logits.shape[-1] == 1 else None
    if errors is None:
        errors = ops.abs(truth - ops.softmax(logits, axis=-1))
    shape = ops.shape(truth)
    flat = (shape[0], shape[1] * shape[2], truth.shape[-1])
    # The ignore label has no error and is no truth: it comes last and changes no sum.
    errors, truth = (ops.reshape(x * labelled, flat) for x in (errors, truth))
    order = ops.argsort(-errors, axis=1)
    errors, sorted_truth = (ops.take_along_axis(x, order, axis=1) for x in (errors, truth))
    found = ops.cumsum(sorted_truth, axis=1)
    true = found[:, -1:]
    ranks = ops.cumsum(ops.ones_like(errors), axis=1)
    jaccard = 1 - (true - found) / ops.maximum(true + ranks - found, 1)
    steps = ops.concatenate([jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]], axis=1)
    costs = ops.sum(errors * ops.stop_gradient(steps), axis=1)
    if truth.shape[-1] == 1:
        return costs[:, 0]
    occurs = ops.cast(true[:, 0] > 0, "float32")
    return ops.sum(costs * occurs, axis=-1) / ops.maximum(ops.sum(occurs, axis=-1), 1)


@keras.saving.register_keras_serializable(package="unet")
def batch_dice(mask, logits):
    """Soft Dice loss of a batch as one flat image: 1 − (2 Σpt + 10⁻⁵) / (Σp + Σt + 10⁻⁵).

    Args:
        mask: uint8 [B, H, W, 1].
        logits: float32 [B, H, W, C]; of several classes, the mean over all of them.

    Returns:
        float32 [B] in [0, 1): the batch's value, for each of its images.

    Raises:
        ValueError: If the shapes differ.
    """
    common, both = _overlap(mask, logits)
    whole = _dice(ops.sum(common, axis=0), ops.sum(both, axis=0), smooth=_SMOOTH)
    return ops.ones_like(both[:, 0]) * ops.mean(whole)


@keras.saving.register_keras_serializable(package="unet")
def cross_entropy_dice(
    mask, logits, *, smoothing: float = 0.0, class_weights: Sequence[float] = ()
):
    """`cross_entropy` plus `dice`: the one for calibration, the other for small foregrounds."""
    entropy = cross_entropy(mask, logits, smoothing=smoothing, class_weights=class_weights)
    return entropy + dice(mask, logits)


@keras.saving.register_keras_serializable(package="unet")
def squared_error(target, output):
    """Squared error, each image's mean over its labelled pixels; for dense regression.

    Args:
        target: uint8 or float32 [B, H, W, 1], not scaled; 255 is the ignore label.
        output: float32 [B, H, W, 1].

    Returns:
        float32 [B], 0 or more.

    Raises:
        ValueError: If the shapes differ.
    """
    _, labelled = _split(target, output)
    return _mean(ops.square(ops.cast(target, "float32") - output), labelled)


def boundary(mask, logits):
    """Boundary loss: the mean over labelled pixels of their probability times signed distance.

    The distance, in pixels, is exact. It is that of a pixel outside a class to the nearest pixel of
    it, and of one inside, less than 0, to the nearest of another class, plus 1; ignored pixels
    are of no class. Where an image has no pixel of a class, or no other, the class costs nothing.

    Args:
        mask: uint8 [B, H, W, 1].
        logits: float32 [B, H, W, C]; of several classes, the mean over all of them.

    Returns:
        float32 [B], of any sign.

    Raises:
        ValueError: If the shapes differ.

    Source: Kervadec et al., "Boundary loss for highly unbalanced segmentation", MIDL 2019, eq. 5,
        with the distances of the authors' code.
    """
    truth, labelled = _split(mask, logits)
    is_one = logits.shape[-1] == 1
    probability = ops.sigmoid(logits) if is_one else ops.softmax(logits, axis=-1)
    truth, other = truth * labelled, (1 - truth) * labelled
    channels = truth.shape[-1]
    distances = _distance(ops.concatenate([truth, other], axis=-1))
    outside, inside = distances[..., :channels], distances[..., channels:]
    distance = outside - ops.maximum(inside - 1, 0)
    occurs = ops.any(truth > 0, axis=(1, 2), keepdims=True)
    occurs = ops.logical_and(occurs, ops.any(other > 0, axis=(1, 2), keepdims=True))
    distance = ops.stop_gradient(ops.where(occurs, distance, 0))
    return _mean(ops.mean(distance * probability, axis=-1, keepdims=True), labelled)


def chosen(
    name: str,
    *,
    smoothing: float = 0.0,
    class_weights: Sequence[float] = (),
    boundary_weight: float = 0.0,
) -> Loss:
    """A loss by its name and settings.

    Args:
        name: One of `BY_NAME`.
        smoothing: As in `cross_entropy`, for losses that take it.
        class_weights: Likewise.
        boundary_weight: How much of `boundary` is added; 0 for nothing.

    Raises:
        ValueError: If there is no such loss.
    """
    if name not in BY_NAME:
        raise ValueError(f"{name!r} is not a loss; the losses are {', '.join(BY_NAME)}.")
    given = {"smoothing": smoothing, "class_weights": tuple(class_weights)}
    given = {key: value for key, value in given.items() if value}
    loss = functools.partial(BY_NAME[name], **given) if given else BY_NAME[name]
    if not boundary_weight:
        return loss
    return lambda mask, logits: loss(mask, logits) + boundary_weight * boundary(mask, logits)


def balanced_weights(masks: Iterable[np.ndarray], *, classes: int) -> tuple[float, ...]:
    """Weights with which all classes weigh alike over some masks, and a pixel 1 on average.

    Args:
        masks: uint8 arrays of any shapes.
        classes: How many there are, with one channel two.

    Returns:
        N / (K·n) for each class of n of the N labelled pixels, K the number of classes that occur;
        0 for one that does not occur.

    Raises:
        ValueError: If nothing is labelled.

    Source: King and Zeng, "Logistic regression in rare events data", Political Analysis 2001.
    """
    counts = np.zeros(256, np.int64)
    for mask in masks:
        counts += np.bincount(np.asarray(mask).reshape(-1), minlength=256)
    counts = counts[:classes]
    if not counts.any():
        raise ValueError("class weights cannot be balanced: no pixel of the training is labelled.")
    share = counts.sum() / np.count_nonzero(counts)
    return tuple(float(share / n) if n else 0.0 for n in counts.tolist())


BY_NAME: Mapping[str, Loss] = MappingProxyType(
    {
        f.__name__: f
        for f in (
            cross_entropy,
            focal,
            dice,
            cross_entropy_dice,
            tversky,
            lovasz,
            batch_dice,
            squared_error,
        )
    }
)


def parts(loss: Loss, mask, output):
    """Each image's part in the loss of a dataset, float32 [B, K]; for `total`."""
    if loss is batch_dice:
        return ops.concatenate(_overlap(mask, output), axis=-1)
    return loss(mask, output)[:, None]


def total(loss: Loss, parts: np.ndarray) -> float:
    """The loss of a dataset: the mean over its images, or `batch_dice` of all of them together.

    Args:
        loss: One of these losses.
        parts: From `parts`, float64 [N, K], N images.
    """
    if loss is batch_dice:
        return float(_dice(*np.split(parts.sum(axis=0), 2), smooth=_SMOOTH).mean())
    return float(parts.mean())


def _entropy(truth, logits):
    """Of each pixel, float32 [B, H, W, 1]."""
    if logits.shape[-1] == 1:
        return ops.softplus(ops.where(truth > 0, -logits, logits))
    whole = ops.logsumexp(logits, axis=-1, keepdims=True)
    return whole - ops.sum(truth * logits, axis=-1, keepdims=True)


def _entropy_of_any(logits):
    """Of each pixel, the mean over what its class could be; float32 [B, H, W, 1]."""
    if logits.shape[-1] == 1:
        return (ops.softplus(logits) + ops.softplus(-logits)) / 2
    whole = ops.logsumexp(logits, axis=-1, keepdims=True)
    return whole - ops.mean(logits, axis=-1, keepdims=True)


def _weights(truth, class_weights: Sequence[float]):
    """Of each pixel, by its class; 1 where there are none."""
    if not class_weights:
        return 1.0
    if truth.shape[-1] == 1:
        other, own = map(float, class_weights)
        return ops.where(truth > 0, own, other)
    return ops.sum(truth * np.array(class_weights, np.float32), axis=-1, keepdims=True)


def _distance(sites):
    """Euclidean distance of each pixel to the nearest site of its image and channel, in pixels.

    Along columns by doubling; then along rows, by ever longer shifts of squared distances, as long
    as one may be the shortest.

    Args:
        sites: float32 {0, 1} [B, H, W, K].

    Returns:
        float32 [B, H, W, K], exact; anything in a channel without sites.
    """
    shape = ops.shape(sites)
    height, width = shape[1], shape[2]
    columns = ops.where(sites > 0, 0.0, _FAR)
    doublings = (sites.shape[1] - 1).bit_length() if sites.shape[1] else _MOST_DOUBLINGS
    for step in (1 << i for i in range(doublings)):
        below = ops.pad(columns, ((0, 0), (step, 0), (0, 0), (0, 0)), constant_values=_FAR)
        above = ops.pad(columns, ((0, 0), (0, step), (0, 0), (0, 0)), constant_values=_FAR)
        nearest = ops.minimum(below[:, :height], above[:, step:])
        columns = ops.minimum(columns, nearest + step)
    has_sites = ops.any(sites > 0, axis=(1, 2), keepdims=True)
    # Squares of what is farther than any side stay far.
    squares = ops.minimum(ops.square(ops.minimum(columns, 30_000.0)), _FAR)
    squares = ops.where(has_sites, squares, 0.0)
    wide = ops.pad(squares, ((0, 0), (0, 0), (width, width), (0, 0)), constant_values=_FAR)

    def may_shorten(shift, nearest):
        return ops.logical_and(shift < width, ops.cast(shift * shift, "float32") < ops.max(nearest))

    def shorten(shift, nearest):
        left = ops.slice(wide, (0, 0, width - shift, 0), shape)
        right = ops.slice(wide, (0, 0, width + shift, 0), shape)
        along = ops.cast(shift * shift, "float32")
        return shift + 1, ops.minimum(nearest, ops.minimum(left, right) + along)

    start = ops.cast(1, "int32")
    found: Any = ops.while_loop(may_shorten, shorten, (start, squares))
    return ops.sqrt(found[1])


def _overlap(mask, logits):
    """Σpt and Σp + Σt of each image and channel, over labelled pixels; float32 [B, C] each."""
    common, found, true = _sums(mask, logits)
    return common, found + true


def _sums(mask, logits):
    """Σpt, Σp and Σt of each image and channel, over labelled pixels; float32 [B, C] each."""
    truth, labelled = _split(mask, logits)
    is_one = logits.shape[-1] == 1
    probability = (ops.sigmoid(logits) if is_one else ops.softmax(logits, axis=-1)) * labelled
    truth = truth * labelled
    return tuple(ops.sum(x, axis=(1, 2)) for x in (truth * probability, probability, truth))


def _dice(common, both, *, smooth: float):
    return 1 - (2 * common + smooth) / (both + smooth)


def _mean(values, labelled):
    """Each image's mean over its labelled pixels; float32 [B]."""
    labels = ops.sum(labelled, axis=_PIXELS)
    return ops.sum(values * labelled, axis=_PIXELS) / ops.maximum(labels, 1)


def _split(mask, logits):
    """Truth of each channel and labelled, float32 {0, 1}, [B, H, W, C] and [B, H, W, 1]."""
    sides = zip(mask.shape[:-1], logits.shape[:-1], strict=False)
    fits = len(mask.shape) == len(logits.shape) == 4 and mask.shape[-1] == 1
    if not fits or any(a != b for a, b in sides if a is not None and b is not None):
        raise ValueError(
            f"masks {tuple(mask.shape)} and logits {tuple(logits.shape)} differ in shape; masks "
            f"have one channel."
        )
    channels = logits.shape[-1]
    classes = np.arange(channels) if channels > 1 else np.ones(1)
    truth = mask == ops.cast(classes, mask.dtype)
    return ops.cast(truth, "float32"), ops.cast(mask != IGNORE_LABEL, "float32")
