"""What may happen to a training example: settings, checked. What does is drawn in `plan`."""

import dataclasses

import numpy as np

from segdata.core.system import arguments

BORDERS = ("mirror", "constant")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augment:
    """What may happen to a training example; the default is nothing.

    Ranges are drawn from uniformly, ends included. A transform whose range is neutral costs nothing
    and leaves the draws of the others as they are. They apply in the order of the fields: all
    geometry in one sampling of the record, image bilinearly and mask from the nearest pixel; then
    blur; then all colours in one affine map of RGB, noise and gamma; then what covers pixels.

    Attributes:
        horizontal_flip: Probability of swapping left and right.
        vertical_flip: Probability of swapping top and bottom.
        quarter_turns: Whether to turn by 0, 90, 180 or 270 degrees, each as likely; needs square
            examples.
        rotation_range: Degrees, counter-clockwise, about the centre; -360 to 360.
        scale_range: Factor of magnification about the centre, 0.25 to 4.
        shift_range: Fraction of the side, drawn for each axis, -1 to 1.
        elastic_range: Standard deviation of elastic displacements, a fraction of the side, 0 to
            0.1.
        elastic_grid: Displacements are drawn at this many points along each axis, 2 to 16, bicubic
            between them (Ronneberger et al. 2015: 3).
        border: What moves in from outside: "mirror", the mirror image; "constant", black and class
            255.
        blur_range: Standard deviation of a Gaussian blur of the image, in pixels, 0 to 8.
        brightness_range: Added to every channel, as a fraction of 255, -1 to 1.
        contrast_range: Factor on the distance from the channel's mean over the record, 0 to 4.
        saturation_range: Factor on the distance from the pixel's grey, 0 to 4.
        hue_range: Degrees that colours turn about the grey axis of RGB, -180 to 180; 120 makes red
            green.
        channel_shuffle: Probability of putting red, green and blue in another order, each of six as
            likely.
        grey: Probability of making the image grey (ITU-R BT.601).
        noise_range: Standard deviation of near-Gaussian noise, a fraction of 255, 0 to 0.5.
        gamma_range: Exponent of the brightness, 0.25 to 4; above 1 darkens.
        cutout: Probability of a rectangle of mid-grey in the image; the mask stays.
        cutout_range: Its sides, drawn for each axis, as a fraction of the example's, 0 to 1.
        cutmix: Probability of a rectangle of another example, its mask included.
        cutmix_range: Its sides, as for `cutout_range`.
        foreground: Where examples are crops: probability that one holds a pixel of one of
            `foreground_classes`, each as likely that its record has. Rotation and scale are about
            that pixel, and a shift leaves it inside; elastic displacements, which come after, may
            not.
        foreground_classes: Class ids; all but 0 where there are none.
    """

    horizontal_flip: float = 0.0
    vertical_flip: float = 0.0
    quarter_turns: bool = False
    rotation_range: tuple[float, float] = (0.0, 0.0)
    scale_range: tuple[float, float] = (1.0, 1.0)
    shift_range: tuple[float, float] = (0.0, 0.0)
    elastic_range: tuple[float, float] = (0.0, 0.0)
    elastic_grid: int = 3
    border: str = "mirror"
    blur_range: tuple[float, float] = (0.0, 0.0)
    brightness_range: tuple[float, float] = (0.0, 0.0)
    contrast_range: tuple[float, float] = (1.0, 1.0)
    saturation_range: tuple[float, float] = (1.0, 1.0)
    hue_range: tuple[float, float] = (0.0, 0.0)
    channel_shuffle: float = 0.0
    grey: float = 0.0
    noise_range: tuple[float, float] = (0.0, 0.0)
    gamma_range: tuple[float, float] = (1.0, 1.0)
    cutout: float = 0.0
    cutout_range: tuple[float, float] = (0.1, 0.4)
    cutmix: float = 0.0
    cutmix_range: tuple[float, float] = (0.2, 0.7)
    foreground: float = 0.0
    foreground_classes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Checks every field; ranges may come as lists or arrays, numbers as NumPy's.

        Raises:
            ValueError: Naming the field, its value and what is allowed.
        """
        for name in _PROBABILITIES:
            value = getattr(self, name)
            numbers = arguments.floats([value])
            if numbers is None or not 0 <= numbers[0] <= 1:
                raise ValueError(f"{name}={value!r} is not a probability, 0 to 1.")
            object.__setattr__(self, name, numbers[0])
        if not isinstance(self.quarter_turns, (bool, np.bool_)):
            raise ValueError(f"quarter_turns={self.quarter_turns!r} is neither True nor False.")
        object.__setattr__(self, "quarter_turns", bool(self.quarter_turns))
        grid = arguments.integer("elastic_grid", self.elastic_grid, least=2, most=16)
        object.__setattr__(self, "elastic_grid", grid)
        try:
            classes = tuple(
                arguments.integer("foreground_classes", label, least=0, most=254)
                for label in self.foreground_classes
            )
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"foreground_classes={self.foreground_classes!r} are not class ids, 0 to 254."
            ) from error
        object.__setattr__(self, "foreground_classes", tuple(dict.fromkeys(classes)))
        if self.border not in BORDERS:
            allowed = " nor ".join(map(repr, BORDERS))
            raise ValueError(f"border={self.border!r} is neither {allowed}.")
        for name, (least, most) in _LIMITS.items():
            value = getattr(self, name)
            numbers = arguments.floats(value)
            if (
                numbers is None
                or len(numbers) != 2
                or not least <= numbers[0] <= numbers[1] <= most
            ):
                raise ValueError(
                    f"{name}={value!r} is not a range: two numbers, the smaller first, "
                    f"within {least:g} and {most:g}."
                )
            object.__setattr__(self, name, numbers)

    def uses(self, *names: str) -> bool:
        """Whether any of these fields is other than neutral."""
        return any(getattr(self, name) != _NEUTRAL[name] for name in names)

    @property
    def warps(self) -> bool:
        """Whether pixels are resampled rather than only moved."""
        return self.uses("rotation_range", "scale_range", "shift_range", "elastic_range")

    @property
    def colours(self) -> bool:
        """Whether colours go through an affine map."""
        return self.mixes or self.uses("brightness_range", "contrast_range", "noise_range")

    @property
    def mixes(self) -> bool:
        """Whether a channel depends on the others."""
        return self.uses("saturation_range", "hue_range", "channel_shuffle", "grey")

    @property
    def is_neutral(self) -> bool:
        """Whether nothing happens."""
        others = self.uses(
            *("horizontal_flip", "vertical_flip", "quarter_turns", "blur_range"),
            *("gamma_range", "cutout", "cutmix"),
        )
        return not (self.warps or self.colours or others)


_PROBABILITIES = (
    *("horizontal_flip", "vertical_flip", "channel_shuffle", "grey", "cutout", "cutmix"),
    "foreground",
)
_LIMITS = {
    "rotation_range": (-360.0, 360.0),
    "scale_range": (0.25, 4.0),
    "shift_range": (-1.0, 1.0),
    "elastic_range": (0.0, 0.1),
    "blur_range": (0.0, 8.0),
    "brightness_range": (-1.0, 1.0),
    "contrast_range": (0.0, 4.0),
    "saturation_range": (0.0, 4.0),
    "hue_range": (-180.0, 180.0),
    "noise_range": (0.0, 0.5),
    "gamma_range": (0.25, 4.0),
    "cutout_range": (0.0, 1.0),
    "cutmix_range": (0.0, 1.0),
}
_NEUTRAL = {field.name: field.default for field in dataclasses.fields(Augment)}
