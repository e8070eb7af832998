"""Recipes: all that a training run depends on, published ones by name.

A recipe is plain data and is saved with every run as JSON. It names its data set and describes the
augmentation; what those mean is known to whoever makes the batches. Keras is not imported.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from unet.model import UNet


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one model is trained."""

    dataset: str = "dsb2018"
    """The data set to train on."""

    size: tuple[int, int] = (128, 128)
    """Height and width of the training images, in pixels."""

    batch: int = 16
    """Images in a training batch."""

    epochs: int = 25
    """Passes over the training images, at most."""

    model: UNet = dataclasses.field(default_factory=UNet)
    """What the U-Net is made of."""

    loss: Literal["cross_entropy", "dice", "cross_entropy_dice"] = "cross_entropy"
    """What training minimises."""

    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    """How it does that."""

    learning_rate: float = 1e-3
    """The highest learning rate."""

    schedule: Literal["constant", "cosine"] = "constant"
    """Keep the learning rate, or let it fall to 0 along half a cosine."""

    warmup: float = 0.0
    """Epochs in which the learning rate first rises from 0."""

    patience: int | None = None
    """Stop after this many epochs without a lower validation loss; without a number, never."""

    threshold: float = 0.5
    """A pixel is foreground above this probability."""

    seed: int = 0
    """Decides the first weights, the order of the images, augmentation and dropout."""

    augment: Mapping[str, Any] = dataclasses.field(default_factory=dict, metadata={"cmd": False})
    """Settings of the augmentation that differ from doing nothing."""

    source: str = dataclasses.field(default="", metadata={"cmd": False})
    """Where the recipe was published."""

    def __post_init__(self) -> None:
        for name in ("batch", "epochs", "learning_rate"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "more than 0")
        _require(
            all(side > 0 and side % self.model.stride == 0 for side in self.size),
            "size",
            self.size,
            f"two multiples of this U-Net's stride, {self.model.stride}",
        )
        _require(0 <= self.warmup <= self.epochs, "warmup", self.warmup, "in [0, epochs]")
        _require(
            self.patience is None or self.patience > 0,
            "patience",
            self.patience,
            "1 or more, or none",
        )
        _require(0 <= self.threshold < 1, "threshold", self.threshold, "in [0, 1)")


def to_json(recipe: Recipe) -> dict[str, Any]:
    """Returns the recipe as what `json.dump` takes."""
    return dataclasses.asdict(dataclasses.replace(recipe, augment=dict(recipe.augment)))


def from_json(saved: Mapping[str, Any]) -> Recipe:
    """Makes a recipe of what `to_json` returned and JSON carried.

    Raises:
        ValueError: If a field is unknown or its value not allowed.
    """
    fields = dict(saved)
    try:
        model = UNet(**_with_tuples(fields.pop("model")))
        augment = _with_tuples(fields.pop("augment"))
        return Recipe(model=model, augment=augment, **_with_tuples(fields))
    except (TypeError, KeyError) as error:
        raise ValueError(f"saved settings do not fit this version of unet: {error}") from error


def named(name: str) -> Recipe:
    """Returns a published recipe.

    Raises:
        ValueError: If there is none of that name; it lists those there are.
    """
    if name not in RECIPES:
        raise ValueError(f"{name!r} is not a recipe; the recipes are {', '.join(RECIPES)}.")
    return RECIPES[name]


def _with_tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has only lists."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}


def _require(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise ValueError(f"{name} is {value!r}; it must be {allowed}.")


DSB2018_GENERATOR = Recipe(
    batch=8,
    epochs=5,
    model=UNet(),
    source="A public Kaggle kernel of the 2018 Data Science Bowl: a U-Net fed by a generator.",
)

DSB2018_DROPOUT = Recipe(
    batch=16,
    epochs=25,
    model=UNet(
        dropout=(0.1, 0.1, 0.2, 0.2, 0.3),
        activation="elu",
        initializer="he_normal",
        upsampling="transposed",
    ),
    patience=2,
    source='Kjetil Åmdal-Sævik, "Keras U-Net starter - LB 0.277", Kaggle kernel, 2018.',
)

# Batch norm learns more from a step, but halves the steps a CPU takes in a minute; larger images,
# warps and colour gained nothing on the real nuclei in the same time.
DSB2018 = Recipe(
    batch=8,
    epochs=32,
    model=UNet(filters=(8, 16, 32, 64, 128), initializer="he_normal", standardise=True),
    loss="cross_entropy_dice",
    learning_rate=4e-3,
    schedule="cosine",
    warmup=1,
    augment={"horizontal_flip": 0.5, "vertical_flip": 0.5, "quarter_turns": True},
    source="This project's own, tuned for two CPU cores without half precision.",
)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "dsb2018": DSB2018,
        "dsb2018-generator": DSB2018_GENERATOR,
        "dsb2018-dropout": DSB2018_DROPOUT,
    }
)
