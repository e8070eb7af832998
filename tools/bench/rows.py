"""Which rows there are: whose, what they need, and of which kinds."""

import ctypes.util
import importlib.util
from typing import NamedTuple

import decoders
import ours
import peers
from jobs import KINDS, Make

LIMIT = "copy limit"
OURS = "segdata"
SIDES = (128, 256, 512)
"""Height and width of packed records, in pixels; all rows but "crops" have the first."""
_ALL = ("none", "flip + colour", "warp + colour", "everything")
_LARGE = ("flip + colour", "warp + colour")


class Row(NamedTuple):
    """What makes batches.

    Attributes:
        make: Batches of a job.
        kinds: Of `KINDS`, what it can do.
        needs: Modules that must be there.
        unable: Kind to the reason why it has none of it.
    """

    make: Make
    kinds: tuple[str, ...]
    needs: tuple[str, ...] = ()
    unable: dict[str, str] = {}  # noqa: RUF012 - never written to


_NO_ELASTIC = {"everything": "it has no elastic warp on the CPU"}
_NO_ELASTIC_IN_TF = {"everything": "TensorFlow has no elastic warp of images"}
ROWS = {
    LIMIT: Row(ours.gather, ("none",)),
    OURS: Row(ours.arrays, tuple(KINDS)),
    f"{OURS} through tf.data": Row(ours.through_tf, _ALL, ("tensorflow",)),
    f"{OURS} through PyTorch": Row(ours.through_torch, ("none", "warp + colour"), ("torch",)),
    f"{OURS} through JAX": Row(ours.through_jax, ("none", "warp + colour"), ("jax",)),
    f"{OURS} on XLA": Row(ours.xla, ("none", *_LARGE), ("tensorflow",)),
    "albumentations on threads": Row(peers.on_threads, _ALL, ("albumentations",)),
    "PyTorch DataLoader": Row(peers.torch_loader, _ALL, ("torch", "albumentations")),
    "SPDL": Row(peers.spdl, _ALL, ("spdl", "albumentations")),
    "Grain on threads": Row(peers.grain, _ALL, ("grain", "albumentations")),
    "Grain in processes": Row(peers.grain_workers, _ALL, ("grain", "albumentations")),
    "DALI": Row(peers.dali, _ALL[:3], ("nvidia.dali",), _NO_ELASTIC),
    "tf.data batched": Row(peers.tf_batched, _ALL[:3], ("tensorflow",), _NO_ELASTIC_IN_TF),
    "tf.data one by one": Row(peers.tf_one_by_one, ("flip + colour",), ("tensorflow",)),
    "tf.data from files": Row(decoders.tf_from_files, ("flip + colour",), ("tensorflow",)),
    "OpenCV on threads": Row(decoders.cv2_crops, ("crops",), ("cv2",)),
    "SPDL that decodes": Row(decoders.spdl_crops, ("crops",), ("spdl",)),
    "DALI that decodes": Row(decoders.dali_crops, ("crops",), ("nvidia.dali",)),
    "tf.data that decodes": Row(decoders.tf_crops, ("crops",), ("tensorflow",)),
}
_ALSO_LARGE = (OURS, "albumentations on threads", "PyTorch DataLoader", "SPDL", "DALI")
_ALSO_LARGE += ("Grain in processes", "tf.data batched")


class Case(NamedTuple):
    """A row, a kind and a size: what a process measures."""

    whose: str
    kind: str
    side: int

    @property
    def name(self) -> str:
        """Such as `segdata flip + colour 256²`; of 128² and of crops without the size."""
        large = self.kind != "crops" and self.side != SIDES[0]
        return f"{self.whose} {self.kind}" + (f" {self.side}²" if large else "")


def cases() -> list[Case]:
    """All that is measured, in the order in which a round goes over it."""
    small = [Case(whose, kind, SIDES[0]) for whose, row in ROWS.items() for kind in row.kinds]
    large = [
        Case(whose, kind, side) for side in SIDES[1:] for whose in _ALSO_LARGE for kind in _LARGE
    ]
    return small + large


def left_out() -> dict[str, str]:
    """Row, or row and kind, to the reason why it is not measured here."""
    reasons = {
        f"{whose} {kind}": reason
        for whose, row in ROWS.items()
        for kind, reason in row.unable.items()
    }
    if not ctypes.util.find_library("avcodec"):
        reasons["SPDL that decodes"] = "FFmpeg's shared libraries are not on this machine"
    for whose, row in ROWS.items():
        missing = [name for name in row.needs if not _there(name)]
        if missing:
            names = ", ".join(missing)
            reasons[whose] = f"{names} not installed: pip install -c constraints.txt -e '.[bench]'"
    return reasons


def _there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package that it is in
        return False
