"""The recipe `small`: what it leaves open is chosen from the dataset, for minutes on two CPU cores.

How a dataset is measured is known to the caller. Keras is not imported.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from segdata.console import counted
from unet.recipes import Recipe, most_momentum
from unet.saved import require

if TYPE_CHECKING:
    from segdata.inspection.traits import Traits

# Pixels that are trained on, augmented anew each time: some five minutes on two cores, which train
# the recipe's model on 0.75 million in a second of CPU time.
_PIXELS = 400e6
_FEWEST_STEPS, _MOST_EPOCHS = 300, 100
_WARMUP = 0.1  # share of the epochs at most; else 100 batches
_FEW = 200  # training images, below which they are seen so often that more must happen to them
_GOOD = 0.97  # Dice of a perfect mask at the training size
_WHOLE = 256  # side in pixels: images that need more are cut
_RARE = 0.1  # share of the foreground, below which half of the crops are chosen to hold some
_SQUARE = 0.8  # shorter to longer side; what is nearly square is trained square, and may be turned
_SIDED = 0.25  # share of the difference from a mirror image that all examples have in common
_BALANCED = 0.3  # share of the foreground, from which on the classes are about as frequent
_MORE = {
    "rotation_range": (-15.0, 15.0),
    "scale_range": (0.8, 1.25),
    "contrast_range": (0.75, 1.25),
    "brightness_range": (-0.1, 0.1),
}
_VALIDATION = ("validation", "val", "valid", "dev")
_FOLDS = 10


def choose(traits: Traits, asked: Recipe, *, given: Collection[str]) -> tuple[Recipe, list[str]]:
    """Fills in what the recipe `small` leaves open.

    Args:
        traits: Of the dataset's training split.
        asked: The recipe, with the user's own settings.
        given: The names of these settings, of the model and of the augmentation too, which stay.

    Returns:
        The recipe, and in some lines what was chosen and why.

    Raises:
        ValueError: If the dataset has one class, or nothing but background, or one image and none
            to validate on; or if a setting of the user's does not fit it.
    """
    recipe, said = _chosen(traits, asked, given, sized="at the median")
    augment, why = _augment(
        traits,
        count=_training_images(traits, recipe, fold=recipe.fold),
        is_square=recipe.size[0] == recipe.size[1],
        given=given,
    )
    if recipe.record_size and sum(traits.shares[1:]) < _RARE and "foreground" not in given:
        augment["foreground"] = 0.5
        why += " Half of the crops hold some of the foreground."
    recipe = dataclasses.replace(recipe, augment={**augment, **asked.augment})
    if "flips" not in given:
        recipe = dataclasses.replace(recipe, flips=len(recipe.views) > 1)
    return _explained(recipe, [*said, why])


def choose_mixed(
    found: Mapping[str, Traits], joint: Traits, asked: Recipe, *, given: Collection[str]
) -> tuple[Recipe, list[str]]:
    """As `choose`, for several datasets: one model and size for all, each its own augmentation.

    Each dataset is validated on its own split, where all have one; else a fold of each.

    Args:
        found: By dataset what its training split is like.
        joint: What they are like together.
        asked: As in `choose`; what its `mix` says stays.
        given: As in `choose`.
    """
    mix = dict(asked.mix)
    if "validation_split" in mix:
        given = {*given, "validation_split"}
    own = {name: _validation(traits) for name, traits in found.items()}
    if all(own.values()) and not {"fold", "validation_split"} & {*given}:
        mix["validation_split"] = own
        images = sum(traits.splits[own[name]] for name, traits in found.items())
        joint = dataclasses.replace(joint, splits={_VALIDATION[0]: images})
    recipe, said = _chosen(joint, asked, given, sized="on average over the datasets")
    augments: dict[str, Any] = dict(mix.get("augment", {}))
    for name in [name for name in found if name not in augments]:
        augments[name], why = _augment(
            found[name],
            count=_training_images(found[name], recipe, fold=recipe.fold),
            is_square=recipe.size[0] == recipe.size[1],
            given=given,
        )
        augments[name] |= asked.augment
        said.append(f"{name}: {why}")
    recipe = dataclasses.replace(recipe, mix=mix | {"augment": augments})
    if "flips" not in given:
        recipe = dataclasses.replace(recipe, flips=len(recipe.views) > 1)
    return _explained(recipe, said)


def _explained(recipe: Recipe, said: list[str]) -> tuple[Recipe, list[str]]:
    source = f"Chosen from the dataset{'s' if recipe.mix else ''}. {' '.join(said)}"
    return dataclasses.replace(recipe, source=source), said


def _chosen(
    traits: Traits, asked: Recipe, given: Collection[str], *, sized: str
) -> tuple[Recipe, list[str]]:
    """All but the augmentation; `sized` says what the height and width of the traits are."""
    require(len(traits.classes) > 1, "dataset", asked.dataset, "one of two classes or more")
    if traits.looked_at >= traits.examples and not any(traits.shares[1:]):
        raise ValueError(
            f"{asked.dataset}: no pixel of its {traits.examples:,} examples is "
            f"{' or '.join(traits.classes[1:])}; there is nothing to learn."
        )
    chosen, said = dict[str, Any](), list[str]()

    def now(name: str) -> Any:
        return getattr(asked, name) if name in given else chosen.get(name, getattr(asked, name))

    chosen["validation_split"], chosen["fold"], held_out = _held_out(traits, asked, given)
    count = _training_images(traits, asked, fold=now("fold"))
    said.append(
        f"{counted(count, 'image')} to train on, {traits.height}×{traits.width} pixels {sized}; "
        f"validated on {held_out}. The classes: {_listed(traits)}."
    )
    head, why = _head(traits)
    model = {name: value for name, value in head.items() if name not in given}
    chosen["model"] = dataclasses.replace(asked.model, **model)
    stride, activation = chosen["model"].stride, chosen["model"].output_activation
    chosen["loss"], why_loss = _loss(traits, activation)
    said.append(f"{why}: {activation}; the loss {now('loss')}{_because('loss', given, why_loss)}.")
    is_whole = bool(asked.mix) or not {"size", "record_size"}.isdisjoint(given)
    chosen["size"], chosen["record_size"], why = _size(traits, stride=stride, is_whole=is_whole)
    height, width = now("size")
    said.append(f"Training size {height}×{width}{_because('size', given, why)}.")
    chosen["batch"] = 8 if count >= _FEW else 4
    steps = max(_FEWEST_STEPS, _PIXELS / (now("batch") * height * width))
    each = asked.steps_per_epoch or math.ceil(count / now("batch"))
    chosen["epochs"] = max(2, min(_MOST_EPOCHS, round(steps / each)))
    chosen["warmup"] = round(min(_WARMUP * now("epochs"), 100 / each), 5)
    said.append(
        f"{counted(now('epochs'), 'epoch')} of {each:,} batch{'' if each == 1 else 'es'} of "
        f"{now('batch')}" + _because("epochs", given, "for some minutes on two cores") + "."
    )
    updates = now("epochs") * each // asked.accumulation
    chosen["ema_momentum"] = min(asked.ema_momentum, most_momentum(updates))
    kept = {name: value for name, value in chosen.items() if name not in given}
    return dataclasses.replace(asked, **kept), said


def _held_out(
    traits: Traits, asked: Recipe, given: Collection[str]
) -> tuple[str, tuple[int, int] | None, str]:
    """The split to validate on, or else a fold of the training split; and its name."""
    if "fold" in given or "validation_split" in given:
        return asked.validation_split, asked.fold, asked.validated_on
    if name := _validation(traits):
        return name, None, f"{name}, {counted(traits.splits[name], 'image')}"
    if traits.examples < 2:
        raise ValueError(
            f"{asked.dataset}: {asked.train_split} has one image, and there is no other to score. "
            f"Bring more; or give --validation_split {asked.train_split}, which scores the "
            "image that was trained on."
        )
    folds = min(_FOLDS, max(2, traits.looked_at))
    fold = dataclasses.replace(asked, fold=(0, folds))
    return asked.validation_split, fold.fold, f"{fold.validated_on}, as there is no validation"


def _validation(traits: Traits) -> str:
    """The split that is for validation; "" where there is none."""
    return next((name for name in _VALIDATION if traits.splits.get(name)), "")


def _training_images(traits: Traits, asked: Recipe, *, fold: tuple[int, int] | None) -> int:
    """About how many: all of the split, less those of a fold."""
    count = traits.examples
    return max(1, count - round(count / fold[1])) if fold else count


def _head(traits: Traits) -> tuple[dict[str, Any], str]:
    """The settings of the model's output."""
    count = len(traits.classes)
    if count == 2:
        return {"output_channels": 1, "output_activation": "sigmoid"}, "Two classes"
    return {"output_channels": count, "output_activation": "softmax"}, f"{count} classes"


def _loss(traits: Traits, activation: str) -> tuple[str, str]:
    if activation == "linear":
        return "squared_error", "as linear needs it"
    if activation == "softmax":
        return "cross_entropy", "as softmax needs it"
    share = f"{traits.classes[1]} covers {traits.shares[1]:.2g} of the pixels"
    if traits.without > 0.5:
        return "batch_dice", f"over whole batches, as {traits.without:.0%} of the images are empty"
    if traits.shares[1] >= _BALANCED:
        return "cross_entropy", f"as {share}"
    return "cross_entropy_dice", f"with Dice for a small foreground, as {share}"


def _size(
    traits: Traits, *, stride: int, is_whole: bool
) -> tuple[tuple[int, int], int | None, str]:
    """The least size at which masks keep their detail, and at most the images' own.

    Returns:
        Height and width of what is trained on; the longest side of the images that it is cut from,
        or None for whole images; and why.
    """
    sides = [side for side in sorted(traits.best) if side <= _WHOLE or not is_whole]
    side = next((each for each in sides if traits.best[each] >= _GOOD), sides[-1])
    height, width = traits.height, traits.width
    if side <= _WHOLE and min(height, width) >= _SQUARE * max(height, width):
        height = width = min(height, width)
    scale = side / math.sqrt(height * width)
    if traits.best[side] == 1:  # as where no image has more pixels
        scale = min(1.0, scale)
    size = height * scale, width * scale
    why = f"a perfect mask, enlarged to the image, has Dice {traits.best[side]:.3f}"
    if side > _WHOLE:
        own = zip(size, (height, width), strict=True)
        down, along = (max(1, min(_WHOLE, *map(round, x)) // stride) * stride for x in own)
        longest = round(max(height, width) * side / math.sqrt(height * width))
        return (down, along), longest, f", cut from images of at most {longest}, where {why}"
    down, along = (max(1, int(x / stride + 0.5)) * stride for x in size)
    return (down, along), None, f", where {why}"


def _augment(
    traits: Traits, *, count: int, is_square: bool, given: Collection[str]
) -> tuple[dict[str, Any], str]:
    """The settings of the augmentation that are not given."""
    sides = {
        "horizontal_flip": ("left and right", traits.one_sided),
        "vertical_flip": ("top and bottom", traits.upright),
    }
    least = _SIDED + 1 / traits.looked_at  # that much is in common by chance
    found: dict[str, Any] = {}
    flipped, kept = list[str](), list[str]()
    for name, (what, sided) in sides.items():
        if name not in given and sided < least:
            found[name] = 0.5
            flipped.append(what)
        elif name not in given:
            kept.append(what)
    if len(found) == 2 and is_square and traits.oriented < least and "quarter_turns" not in given:
        found["quarter_turns"] = True
        flipped.append("quarter turns")
    said = f"Flipped: {', '.join(flipped) or 'never'}"
    if kept:
        said += f"; {' and '.join(kept)} differ alike in all of {traits.looked_at} examples"
    if count < _FEW:
        said += ". Turned, scaled and changed in colour too, as there are few images"
        for name, ends in _MORE.items():
            if name not in given:
                found[name] = ends
    if asked := [name for name in given if name in {*sides, "quarter_turns", *_MORE}]:
        said += f". As you say: {', '.join(sorted(asked))}"
    return found, f"{said}."


def _listed(traits: Traits) -> str:
    pairs = zip(traits.classes, traits.shares, strict=True)
    most = [f"{name} {share:.2%}" for name, share in pairs]
    more = f" and {len(most) - 8} more" if len(most) > 8 else ""
    return ", ".join(most[:8]) + more


def _because(name: str, given: Collection[str], why: str) -> str:
    return " as you say" if name in given else f" {why}".replace(" ,", ",")
