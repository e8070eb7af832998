"""The flags of each command, as dataclasses whose docstrings are their help.

What may be asked for is checked where it is used.
"""

import dataclasses
import pathlib
from typing import Any, Literal, get_args

from segdata.cli import Features
from unet.hardware import Compilation, Precision
from unet.objects import Separation
from unet.recipes import Flips, Larger, Loss

_LOSSES = {"custom_args": {"choices": get_args(Loss)}}


def _positional(name: str, **custom_args: Any) -> dict[str, Any]:
    """Field metadata of a positional argument."""
    return {"positional": True, "custom_args": {"metavar": name, **custom_args}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """Flags that set the defaults of all others or are needed before Keras loads."""

    recipe: str = "dsb2018"
    """The recipe to start from; `unet recipes` lists them."""

    deterministic: bool = False
    """The same run gives the same weights, bit for bit; slower on a GPU."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Features(Features):
    """Features of the dataset, where they are not called as those of the built-in ones."""

    stratum: str | None = None
    """The feature that is its stratum, for --fold; stratum if not given."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(Start):
    """A training that is yet to begin."""

    data_dir: str | None = None
    """Where the dataset was built; TFDS's default if not given."""

    features: _Features = dataclasses.field(default_factory=_Features)

    mix: list[str] = dataclasses.field(default_factory=list)
    """Several datasets instead of one, each with its share of the examples: dsb2018=0.5 mine=2. Or
    a JSON file of the arguments of segdata.mix: {"shares": {"dsb2018": 0.5, "mine": 2}, ...}."""

    background: Literal["ignore", "negative"] = "ignore"
    """Of mixed datasets: whether a background may hold classes of the others, or holds none."""

    balance_classes: bool = False
    """Set class_weights so that all classes weigh alike in the first epoch of the training."""

    init_from: pathlib.Path | None = None
    """Start from the weights of the best model of another run; a head of other classes starts
    afresh."""

    precision: Precision = "auto"
    """Precision of products; auto is the fastest that this machine supports."""

    compile: Compilation = "auto"
    """Whether XLA compiles the model; auto chooses the faster for this machine."""

    devices: int | None = None
    """How many devices share each batch; if not given one CPU, or as many accelerators as can have
    equal shares."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Training):
    """Trains a U-Net. Every setting of the recipe can be changed by a flag."""

    out: pathlib.Path
    """The folder to make for the run."""

    checkpoint_minutes: float = 10.0
    """The most work that a kill may cost; 0 saves every step."""

    steps_per_execution: int = 1
    """How many steps run in one call at most, as many as divide an epoch; checkpoints and the check
    of the loss come between calls. Saves about a millisecond a step on TensorFlow."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run, and where its data are."""

    run: pathlib.Path = dataclasses.field(metadata=_positional("RUN"))
    """The run's folder."""

    data_dir: str | None = None
    """Where the dataset is now, if it has moved since the run began."""

    imports: str = ""
    """Modules to import first, which register datasets; separated by commas."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resume(Run):
    """Resumes a run from its last checkpoint."""

    precision: Precision = "auto"
    """Precision of products on this machine; auto keeps it, or chooses anew on other hardware."""

    compile: Compilation = "auto"
    """Likewise whether XLA compiles the model."""

    devices: int | None = None
    """How many devices share each batch; if not given as before, where there are as many."""

    epochs: int | None = None
    """More epochs than before, in all; the learning rate goes on as if there had always been as
    many: with a cosine it rises again."""

    accept_changes: bool = False
    """Go on although the data, the steps an epoch or the libraries are not as they were."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sweep:
    """A learning-rate range test."""

    to: pathlib.Path = pathlib.Path("lr.html")
    """The page to write, with the picture."""

    lowest: float = 1e-6
    """The first learning rate."""

    highest: float = 1.0
    """The last one; the test ends before, where the loss diverges."""

    steps: int = 100
    """How many rates, each for one update of the weights."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatesOfRun(_Sweep, Run):
    """Tests learning rates on fresh weights, with the settings of a run, which stays as it is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rates(_Sweep, Training):
    """Tests learning rates on fresh weights; `unet lr RUN` with the settings of a run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _View:
    larger: Larger = "tiles"
    """How images are seen whose longest side is more than 1.5 times as long as any of the training,
    of up to 1,024 of each dataset: in tiles at the scale of those, or shrunk, where they show the
    same with more pixels."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(_View, Run):
    """Scores the best model of a run."""

    split: str | None = None
    """The split to score on; what the run was validated on if not given."""

    at: Literal["native", "training"] = "native"
    """Score at the images' own size, or at the size of the training."""

    objects: bool = False
    """Score single objects too, as the Data Science Bowl 2018 does (docs/objects.md)."""

    separation: Separation = dataclasses.field(default_factory=Separation)

    loss: Loss | None = dataclasses.field(default=None, metadata=_LOSSES)
    """The loss to score with, without settings of its own; the recipe's if not given."""

    flips: Flips = "auto"
    """Score the mean over the mirror images and turns that the training showed; auto as the recipe
    says."""

    threshold: str | None = None
    """A pixel is foreground above this probability: a number; or best, the one that scores best on
    the training images, which takes a pass over them. The recipe's if not given."""

    boundary: bool = False
    """Score contours too, by boundary F1; that takes about as long as all other scores."""

    boundary_tolerance: float | None = None
    """Pixels that a contour may be off, with --boundary; 0.75 % of the diagonal if not given."""

    json: bool = False
    """Print one JSON object."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare:
    """Scores the best models of several runs on the same images, at the images' own size.

    Single objects are scored too, where the dataset has maps of them (docs/objects.md). Differences
    are to the first run, with intervals of paired draws of groups of images.
    """

    runs: list[pathlib.Path] = dataclasses.field(metadata=_positional("RUN", nargs="+"))
    """The folders of two or more runs."""

    data_dir: str | None = None
    """Where the dataset is now, if it has moved since the runs began."""

    imports: str = ""
    """Modules to import first, which register datasets; separated by commas."""

    split: str | None = None
    """The split to score on; what each run was validated on if not given."""

    boundary: bool = False
    """Score contours too, by boundary F1."""

    to: pathlib.Path | None = None
    """An HTML page to write."""

    json: bool = False
    """Print one JSON object."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Decision:
    threshold: float | None = None
    """A pixel is foreground above this probability; the recipe's if not given. `unet evaluate`
    finds the best one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Submit(_View, _Decision, Run):
    """Predicts the unlabelled images of a competition and writes the table that it takes.

    Of dsb2018 a row an object, of carvana a row an image, as run lengths. The table is read back
    and compared with the masks before it gets its name.
    """

    to: pathlib.Path
    """The table to write, a .csv; replaced if it is there."""

    split: str = "test"
    """The split to predict."""

    separation: Separation = dataclasses.field(default_factory=Separation)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(_View, _Decision):
    """Writes a mask and an overlay for each image file.

    A mask holds 0 and 255 for background and foreground; of a model of several classes, their ids.
    Of a regression the numbers are written, as a TIFF.
    """

    run: pathlib.Path = dataclasses.field(metadata=_positional("RUN"))
    """The run's folder."""

    inputs: list[pathlib.Path] = dataclasses.field(metadata=_positional("INPUT", nargs="+"))
    """Images of any size: files, folders with all that are in them, zips, patterns in quotes."""

    to: pathlib.Path
    """The folder to write into; made if missing."""

    write: list[str] = dataclasses.field(default_factory=list)
    """What to write: mask, overlay, probability, labels, contours, objects, coco, page; the first
    two if not given. docs/prediction.md says what each is."""

    flips: Flips = "auto"
    """Average over the mirror images and turns that the training showed: up to 8 times the work;
    auto as the recipe says."""

    overlap: float | None = None
    """The share of a tile's side by which tiles overlap; 0.25 if not given."""

    pixel_size: float | None = None
    """Side of a pixel in µm, for objects and contours; in pixels if not given."""

    separation: Separation = dataclasses.field(default_factory=Separation)

    overwrite: bool = False
    """Replace masks and overlays that are there already."""

    like: str = ""
    """Of a run on several datasets the one that these images are like, where their depths do not
    say it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export(_Decision, Run):
    """Writes the best model of a run as a file or folder that runs without this package.

    It takes uint8 images and gives masks and probabilities. It is compared with the original first.
    """

    to: pathlib.Path
    """NAME.onnx, NAME.tflite (LiteRT), NAME.keras, or without an ending a SavedModel's folder."""
