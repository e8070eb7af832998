"""Recipes: the settings of a training run, published ones by name.

A recipe is plain data and is saved with every run as JSON. It names a dataset and the settings of
its augmentation, which are known to the maker of the batches. Keras is not imported.
"""

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, get_args

from segdata.core import tiles
from unet.model import FCN, UNet
from unet.saved import require

Loss = Literal[
    "cross_entropy",
    "focal",
    "dice",
    "cross_entropy_dice",
    "tversky",
    "lovasz",
    "batch_dice",
    "squared_error",
]

BestBy = Literal["loss", "dice", "iou", "dataset_dice", "dataset_iou", "mae", "rmse"]

Flips = Literal["auto", "on", "off"]

LARGER = 1.5
"""An image whose longest side is more than so many times as long as any that a model was trained on
shows more than those did, and not the same with more pixels."""

Larger = Literal["tiles", "shrink"]

_SMOOTHED = ("cross_entropy", "cross_entropy_dice")
_WEIGHTED = (*_SMOOTHED, "focal")
_EPSILON = 1e-7  # as Keras has it
_SIDE = {"custom_args": {"metavar": "int|native|none"}}  # in help
_MODELS = {kind.__name__: kind for kind in (UNet, FCN)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one model is trained."""

    dataset: str = "dsb2018"
    """The dataset to train on."""

    train_split: str = "train"
    """The split to train on, as TFDS names it: train[:800]."""

    validation_split: str = "validation"
    """The split to validate on."""

    fold: tuple[int, int] | None = None
    """K N: of N folds of train_split train on all but fold K, from 0, and validate on that one
    instead of validation_split."""

    size: tuple[int, int] = (128, 128)
    """Height and width of the training images, in pixels."""

    record_size: int | Literal["native"] | None = dataclasses.field(default=None, metadata=_SIDE)
    """Train on crops of images of this longest side, or of native ones; with none on whole images,
    squashed to `size`."""

    batch: int = 16
    """Images in a training batch."""

    epochs: int = 25
    """Epochs, at most; after each the model is validated."""

    steps_per_epoch: int = 0
    """Batches in an epoch; 0 for as many as hold all training images."""

    model: UNet | FCN = dataclasses.field(default_factory=UNet)
    """The settings of the model."""

    loss: Loss = "cross_entropy"
    """The loss that training minimises."""

    label_smoothing: float = 0.0
    """Of cross-entropy: the share of each label that is spread over all classes alike."""

    class_weights: tuple[float, ...] = ()
    """Of cross-entropy and focal loss: what a pixel of each class weighs, the background first."""

    boundary_weight: float = 0.0
    """How much of the boundary loss, in pixels of distance, is added to the loss, such as 0.01."""

    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    """The optimizer."""

    learning_rate: float = 1e-3
    """The highest learning rate."""

    epsilon: float = _EPSILON
    """Keeps Adam, AdamW and RMSprop from dividing by 0."""

    momentum: float = 0.0
    """Of sgd: the share of the last update that is added to the next."""

    nesterov: bool = False
    """Of sgd with momentum: take the gradient where the momentum leads."""

    weight_decay: float | None = None
    """The share, times the learning rate, that kernels lose at each update; without a number, as in
    Keras: 0.004 with adamw, none with others."""

    clip_norm: float | None = None
    """The largest norm of all gradients together; larger ones are scaled down to it."""

    accumulation: int = 1
    """Batches whose gradients are averaged for one update of the weights."""

    ema_momentum: float = 0.0
    """Momentum of a moving average of the weights, such as 0.99, which is validated and kept as the
    best model; 0 for none."""

    schedule: Literal["constant", "cosine"] = "constant"
    """Keep the learning rate, or decay it to 0 along half a cosine."""

    warmup: float = 0.0
    """Epochs in which the learning rate first rises from 0."""

    best_by: BestBy = "loss"
    """The score on the validation images by which the best epoch is chosen, whose model is kept."""

    patience: int | None = None
    """Stop after this many epochs without a better one; with none never."""

    threshold: float = 0.5
    """A pixel is foreground above this probability."""

    flips: bool = False
    """Predict, and score at native size, by the mean over the mirror images and turns that the
    augmentation shows: two to eight times the work."""

    seed: int = 0
    """Decides the first weights, the order of the images, augmentation and dropout."""

    augment: Mapping[str, Any] = dataclasses.field(default_factory=dict, metadata={"cmd": False})
    """Settings of the augmentation that differ from their defaults, which do nothing."""

    features: Mapping[str, Any] = dataclasses.field(default_factory=dict, metadata={"cmd": False})
    """The features of the dataset, where they are not as in the built-in ones: `segdata.Named`."""

    mix: Mapping[str, Any] = dataclasses.field(default_factory=dict, metadata={"cmd": False})
    """Several datasets instead of one: their `shares`, and other settings of `segdata.mix`."""

    source: str = dataclasses.field(default="", metadata={"cmd": False})
    """Where the recipe was published."""

    def __post_init__(self) -> None:
        for name in ("batch", "epochs", "learning_rate", "epsilon"):
            value = getattr(self, name)
            require(0 < value < math.inf, name, value, "more than 0, and finite")
        require(
            all(side >= self.model.least and side % self.model.stride == 0 for side in self.size),
            "size",
            self.size,
            f"two multiples of this model's stride, {self.model.stride}"
            + f", from {self.model.least} on" * (self.model.least > self.model.stride),
        )
        require(
            self.record_size in (None, "native")
            or (isinstance(self.record_size, int) and 0 < self.record_size < 1 << 16),
            "record_size",
            self.record_size,
            "native, or a longest side of 1 to 65,535 pixels",
        )
        require(
            self.mix.get("fit", "stretch") == "stretch",
            "fit, in what --mix says,",
            self.mix.get("fit"),
            "stretch, as images are when they are predicted and scored; record_size keeps shapes",
        )
        require(
            self.fold is None or (len(self.fold) == 2 and 0 <= self.fold[0] < self.fold[1] >= 2),
            "fold",
            self.fold,
            "K N, fold K of N, from 0 to N-1, of two or more",
        )
        require(self.steps_per_epoch >= 0, "steps_per_epoch", self.steps_per_epoch, "0 or more")
        self._require_loss()
        self._require_optimizer()
        require(0 <= self.warmup <= self.epochs, "warmup", self.warmup, "in [0, epochs]")
        require(
            self.patience is None or self.patience > 0,
            "patience",
            self.patience,
            "1 or more, or none",
        )
        require(0 <= self.threshold < 1, "threshold", self.threshold, "in [0, 1)")
        require(0 <= self.seed < 2**32, "seed", self.seed, "in [0, 2³²)")  # as Keras has it

    @property
    def is_regression(self) -> bool:
        """Whether the model gives numbers and not classes."""
        return self.model.output_activation == "linear"

    @property
    def records(self) -> Any:
        """`record_size`, or that which a mixture says."""
        return self.mix.get("record_size", self.record_size)

    def seen(
        self, height: int, width: int, *, trained_on: Mapping[str, int] | None = None
    ) -> tuple[int, int]:
        """The size at which the model sees an image: whole, or where larger in tiles of `size`.

        Args:
            height: Of the image, in pixels.
            width: Likewise.
            trained_on: What `Data.sizes` says: an image more than `LARGER` times as large as any of
                these is brought to the scale at which the model saw the median one.
        """
        if trained_on and max(height, width) > LARGER * trained_on["longest"]:
            own = trained_on["height"], trained_on["width"]
            down, across = (to / of for to, of in zip(self.seen(*own), own, strict=True))
            return max(1, round(height * down)), max(1, round(width * across))
        if self.records is None:
            return self.size
        if self.records == "native":
            return height, width
        if isinstance(self.records, int):
            return tiles.reduced(height, width, self.records)
        return tuple(self.records)

    @property
    def views(self) -> list[tuple[int, tuple[int, ...]]]:
        """The views of an image that the augmentation shows alike: quarter turns, axes mirrored.

        Of several datasets those that it shows of each.
        """
        own = self.mix.get("augment", {})
        every = [own.get(name, self.augment) or {} for name in self.mix.get("shares", [""])]
        across, down, is_turned = (
            all(shown.get(name, 0) > 0 for shown in every)
            for name in ("horizontal_flip", "vertical_flip", "quarter_turns")
        )
        turns = range(4) if is_turned else (0, 2) if across and down else (0,)
        mirrored = [(2,)] if across else [(1,)] if down else []
        return [(turn, axes) for turn in turns for axes in [(), *mirrored]]

    @property
    def validated_on(self) -> str:
        """What the scores of a run are of: a split, or a fold of one."""
        if self.fold:
            of = f"fold {self.fold[0]} of {self.fold[1]} of "
            split = self.mix.get("split", self.train_split)
        else:
            of, split = "", self.mix.get("validation_split", self.validation_split)
        if isinstance(split, Mapping):
            split = ", ".join(f"{part} of {name}" for name, part in split.items())
        return of + split

    def _require_loss(self) -> None:
        """Raises ValueError if the loss, or the score that is best, does not fit the output."""
        head = self.model.output_activation
        is_number = head == "linear"
        fitting = [x for x in get_args(Loss) if (x == "squared_error") == is_number]
        require(self.loss in fitting, "loss", self.loss, f"{' or '.join(fitting)} with {head}")
        scores = ["loss", *(x for x in get_args(BestBy)[1:] if (x in ("mae", "rmse")) == is_number)]
        require(
            self.best_by in scores, "best_by", self.best_by, f"{' or '.join(scores)} with {head}"
        )
        require(
            head == "softmax" or self.model.output_channels == 1,
            "output_channels",
            self.model.output_channels,
            f"1 with {head}: a mask has one channel",
        )

        smoothing, weights = self.label_smoothing, self.class_weights
        boundary = self.boundary_weight
        classes = max(self.model.output_channels, 2)
        require(
            not smoothing or (0 < smoothing < 1 and self.loss in _SMOOTHED),
            "label_smoothing",
            smoothing,
            f"in [0, 1), and above 0 only with {' or '.join(_SMOOTHED)}",
        )
        require(
            not weights
            or (
                len(weights) == classes
                and all(0 <= w < math.inf for w in weights)
                and any(weights)
                and self.loss in _WEIGHTED
            ),
            "class_weights",
            weights,
            f"{classes} numbers, one a class, not all 0, with {' or '.join(_WEIGHTED)}; or none",
        )
        require(
            not boundary
            or (0 < boundary < math.inf and self.loss not in ("batch_dice", "squared_error")),
            "boundary_weight",
            boundary,
            "0 or more and finite, and 0 with batch_dice and squared_error",
        )

    @property
    def loss_settings(self) -> dict[str, Any]:
        """The arguments of `losses.chosen`."""
        return {
            "name": self.loss,
            "smoothing": self.label_smoothing,
            "class_weights": self.class_weights,
            "boundary_weight": self.boundary_weight,
        }

    def _require_optimizer(self) -> None:
        """Raises ValueError for settings that the optimizer does not have."""
        is_sgd = self.optimizer == "sgd"
        require(
            not is_sgd or self.epsilon == _EPSILON,
            "epsilon",
            self.epsilon,
            f"left at {_EPSILON} with sgd, which has none",
        )
        require(is_sgd or not self.momentum, "momentum", self.momentum, "0 but with sgd")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        require(
            not self.nesterov or self.momentum > 0,
            "nesterov",
            self.nesterov,
            "with momentum above 0",
        )
        decay, clip = self.weight_decay, self.clip_norm
        require(decay is None or 0 <= decay < math.inf, "weight_decay", decay, "0 or more, finite")
        is_clip = clip is None or 0 < clip < math.inf
        require(is_clip, "clip_norm", clip, "more than 0 and finite, or none")
        require(self.accumulation > 0, "accumulation", self.accumulation, "1 or more")
        require(0 <= self.ema_momentum < 1, "ema_momentum", self.ema_momentum, "in [0, 1)")


def to_json(recipe: Recipe) -> dict[str, Any]:
    """Returns the recipe as a mapping for `json.dump`."""
    plain = {name: dict(getattr(recipe, name)) for name in ("augment", "features", "mix")}
    saved = dataclasses.asdict(dataclasses.replace(recipe, **plain))
    return saved | {"model": {"kind": type(recipe.model).__name__, **saved["model"]}}


def from_json(saved: Mapping[str, Any]) -> Recipe:
    """Makes a recipe from the result of `to_json`, also after a pass through JSON.

    Raises:
        ValueError: If a field is unknown or its value not allowed.
    """
    fields = dict(saved)
    try:
        model = _with_tuples(fields.pop("model"))
        kind = _MODELS[model.pop("kind", "UNet")]  # the only one in the first version
        augment = _with_tuples(fields.pop("augment"))
        return Recipe(model=kind(**model), augment=augment, **_with_tuples(fields))
    except (TypeError, KeyError) as error:
        raise ValueError(f"saved settings do not fit this version of unet: {error}") from error


def named(name: str) -> Recipe:
    """Returns a published recipe.

    Raises:
        ValueError: If there is none of that name; the message lists the names.
    """
    if name not in RECIPES:
        raise ValueError(f"{name!r} is not a recipe; the recipes are {', '.join(RECIPES)}.")
    return RECIPES[name]


def most_momentum(updates: int) -> float:
    """The highest `ema_momentum` at whose end the first weights weigh less than 1 %.

    Args:
        updates: Of the weights, in all.

    Returns:
        In [0, 1), with three digits; 0 where there are too few for an average.
    """
    # ln 0.01 is -4.6, and ln(1 - x) is at most -x.
    return max(0.0, math.floor(1000 * (1 - 5 / max(updates, 1))) / 1000)


def flipping(recipe: Recipe, flips: Flips) -> Recipe:
    """A recipe that averages over views or does not; with auto as it says.

    Raises:
        ValueError: If there is one view alone to average over, or `flips` is something else.
    """
    require(flips in get_args(Flips), "flips", flips, "auto, on or off")
    if flips == "on" and len(recipe.views) == 1:
        raise ValueError("--flips on: this run was trained without flips and turns; leave it out.")
    return recipe if flips == "auto" else dataclasses.replace(recipe, flips=flips == "on")


def _with_tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Turns the lists of JSON into tuples."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}


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
    source='Kjetil Åmdal-Sævik, "Keras U-Net starter - LB 0.277", Kaggle kernel, 2018: model, '
    "size, batch, optimizer and loss. 25 epochs and patience 2 are of a published tutorial built "
    "on it; forks of the kernel have 50 and 5.",
)

# A U-Net at half resolution, which sees the image once more before its last convolutions. Without
# these a step of it takes 0.63 of the CPU time of one of half the filters at full resolution.
_HALVED = UNet(
    filters=(16, 32, 64, 128),
    initializer="he_normal",
    upsampling="transposed",
    stem_stride=2,
    image_skip=True,
    head_filters=8,
    standardise=True,
)

# Small images at their own scale and larger ones, whose nuclei are larger too, at about the same:
# squashed to 128², nuclei of some pixels are lost. Batch norm learns more from a step, but halves
# the steps a CPU takes in a minute. However many images there are, it takes five minutes on two
# cores with bfloat16, as those of cars and streets do, and ten without.
DSB2018 = Recipe(
    size=(256, 256),
    record_size=384,
    batch=4,
    epochs=15,
    steps_per_epoch=200,
    model=_HALVED,
    loss="cross_entropy_dice",
    learning_rate=3e-3,
    ema_momentum=0.99,
    schedule="cosine",
    warmup=0.5,
    flips=True,
    augment={
        "horizontal_flip": 0.5,
        "vertical_flip": 0.5,
        "quarter_turns": True,
        "scale_range": (0.7, 1.4),
        "gamma_range": (0.7, 1.5),
        "saturation_range": (0.6, 1.4),
        "hue_range": (-30, 30),
    },
    source="This project's own, tuned for two CPU cores.",
)

# Valid convolutions, 3×3 points of elastic displacement of 10 pixels, He's initial weights, SGD of
# single images with momentum 0.99: as published. The published weight of a pixel falls with its
# distance to the two nearest cells; here pixels between cells are a class of their own, of as much
# weight as is highest there.
RONNEBERGER2015 = Recipe(
    dataset="dsb2018/borders",
    size=(256, 256),
    record_size="native",
    batch=1,
    epochs=25,
    model=UNet(
        filters=(64, 128, 256, 512, 1024),
        padding="valid",
        dropout=(0, 0, 0, 0.5, 0.5, 0, 0, 0, 0),
        initializer="he_normal",
        upsampling="transposed",
        output_channels=3,
        output_activation="softmax",
    ),
    class_weights=(1, 1, 11),
    optimizer="sgd",
    learning_rate=1e-3,
    momentum=0.99,
    augment={
        "horizontal_flip": 0.5,
        "vertical_flip": 0.5,
        "quarter_turns": True,
        "rotation_range": (-180, 180),
        "shift_range": (-0.1, 0.1),
        "contrast_range": (0.8, 1.25),
        "elastic_range": (10 / 256, 10 / 256),
        "elastic_grid": 3,
    },
    source="Ronneberger, Fischer and Brox, MICCAI 2015, on cells: unpadded, with weighted borders, "
    "heavy elastic deformation, dropout at the end of the way down. Learning rate, epochs, rate of "
    "dropout, flips and ranges of shift, rotation and grey values are not stated in it; "
    "its data were 30 images of 512×512 pixels and others.",
)

CITYSCAPES_ROAD = Recipe(
    dataset="cityscapes_pairs",
    batch=8,
    epochs=25,
    model=UNet(activation="leaky_relu", upsampling="transposed"),
    source="A public Kaggle kernel on the Cityscapes Image Pairs: a U-Net that finds the road. "
    "Filters, batch and learning rate are not stated in the source: common filters for this size, "
    "Keras's learning rate.",
)

# 1,000 images, split 80 to 20. Here no car is in both splits.
CARVANA_FCN = Recipe(
    dataset="carvana",
    train_split="train[:800]",
    validation_split="validation[:200]",
    size=(96, 128),
    batch=32,
    epochs=20,
    model=FCN(),
    loss="batch_dice",
    learning_rate=1e-4,
    epsilon=1e-6,
    patience=2,
    augment={
        "horizontal_flip": 0.5,
        "rotation_range": (-3.6, 3.6),  # ±0.01 turns
        "contrast_range": (0.8, 1.2),
    },
    source="A published article on Carvana with Keras: encoder and decoder, validation Dice 0.8788 "
    "after 10 epochs, 20 minutes on a P100.",
)

CARVANA_UNET = dataclasses.replace(
    CARVANA_FCN,
    model=UNet(
        filters=(64, 128, 256, 512, 1024),
        dropout=(0, 0, 0, 0.3, 0.3, 0, 0, 0, 0),
        initializer="he_normal",
        upsampling="transposed",
        transposed_kernel=3,
        head_filters=64,
    ),
    source="A published article on Carvana with Keras: a full U-Net, validation Dice 0.9416 after "
    "16 epochs, 32 minutes on a P100.",
)

UNET_BATCHNORM = Recipe(
    dataset="carvana",
    size=(512, 512),
    batch=4,
    model=UNet(
        filters=(64, 128, 256, 512, 1024),
        batch_norm=True,
        upsampling="transposed",
    ),
    source="Ronneberger, Fischer and Brox, MICCAI 2015, padded, as widely published with batch "
    "normalisation; sigmoid, softmax or a linear head. Data, size, batch and training are not "
    "stated in the source.",
)

# Whole cars in small images, whose mirror images look alike.
CARVANA = dataclasses.replace(
    DSB2018,
    dataset="carvana",
    size=(96, 128),
    record_size=None,
    batch=16,
    epochs=24,
    steps_per_epoch=150,
    learning_rate=4e-3,
    warmup=1,
    augment=CARVANA_FCN.augment,
)

CITYSCAPES = dataclasses.replace(
    CARVANA,
    dataset="cityscapes_pairs",
    size=(128, 128),
    epochs=15,
    model=dataclasses.replace(_HALVED, filters=(16, 32, 64, 128, 256)),
    augment={
        "horizontal_flip": 0.5,
        "scale_range": (0.8, 1.25),
        "contrast_range": (0.8, 1.25),
        "brightness_range": (-0.1, 0.1),
    },
)

CITYSCAPES_CLASSES = dataclasses.replace(
    CITYSCAPES,
    dataset="cityscapes_pairs/classes",
    epochs=10,
    model=dataclasses.replace(
        CITYSCAPES.model, head_filters=16, output_channels=29, output_activation="softmax"
    ),
    loss="cross_entropy",
)

# The rest is chosen from the dataset, in `small`.
SMALL = Recipe(
    dataset="",
    batch=8,
    epochs=32,
    model=_HALVED,
    learning_rate=3e-3,
    ema_momentum=0.99,
    schedule="cosine",
    warmup=1,
    source="This project's own, for any dataset: classes, size, batch, epochs, loss and "
    "augmentation are chosen from its examples.",
)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "small": SMALL,
        "dsb2018": DSB2018,
        "dsb2018-generator": DSB2018_GENERATOR,
        "dsb2018-dropout": DSB2018_DROPOUT,
        "ronneberger2015": RONNEBERGER2015,
        "carvana": CARVANA,
        "carvana-fcn": CARVANA_FCN,
        "carvana-unet": CARVANA_UNET,
        "cityscapes": CITYSCAPES,
        "cityscapes-classes": CITYSCAPES_CLASSES,
        "cityscapes-road": CITYSCAPES_ROAD,
        "unet-batchnorm": UNET_BATCHNORM,
    }
)
