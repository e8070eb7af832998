"""Several built datasets as one training: packed, their class names joined into one label space.

The shares, the order and the pixels are in `core.mixture`. A mask holds the joint class ids, and
the ignore label 255 wherever a dataset does not know of a class that the mixture has.
"""

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from segdata import packing
from segdata.building import features as naming
from segdata.building.features import Named
from segdata.core import IGNORE_LABEL, mixture
from segdata.core.augment import Augment
from segdata.core.mixture import Mixture, Source
from segdata.core.records import Records
from segdata.core.stream import (
    LARGEST_BATCH,
    Batch,
    Evaluation,
    Then,
    require_batches,
    require_examples,
    require_then,
)
from segdata.core.system import arguments

PathLike = str | os.PathLike[str]
LabelMap = Mapping[str, str | None]
"""A dataset's class names to those of the mixture; None for the ignore label."""

REST = ("background", "other", "unlabeled", "unlabelled", "void")
"""Classes that stand for all that a dataset has no class for, as `is_rest` compares them."""
BACKGROUNDS = ("ignore", "negative")
_BY_DATASET = ("shares", "augment", "labels", "weights", "features")
_SPLITS = ("split", "validation_split")
_OTHERS = ("background", "record_size", "fit")


class Labels(NamedTuple):
    """One label space of several datasets.

    Attributes:
        classes: The names, by their ids.
        tables: By dataset uint8 [256], its own class ids to those of the label space.
        maps: The same by names.
    """

    classes: tuple[str, ...]
    tables: dict[str, np.ndarray]
    maps: dict[str, LabelMap]

    def __str__(self) -> str:
        """A line a dataset: `dsb2018: background → 255, nucleus → nucleus`."""
        return "\n".join(
            f"{name}: {', '.join(f'{old} → {new or IGNORE_LABEL}' for old, new in given.items())}"
            for name, given in self.maps.items()
        )


class Arguments(NamedTuple):
    """What JSON says of a mixture.

    Attributes:
        training: Arguments of `mix`.
        evaluation: Arguments of `mix_eval_batches`.
    """

    training: dict[str, Any]
    evaluation: dict[str, Any]


def from_json(
    given: Mapping[str, Any],
    *,
    split: str = "train",
    validation_split: str = "validation",
    augment: Augment | None = None,
    record_size: packing.Size | None = None,
    fold: packing.Fold | None = None,
) -> Arguments:
    """The arguments of `mix` as JSON has them: `unet train --mix FILE`, and the settings of a run.

    Args:
        given: `shares`, and any of `split`, `augment`, `labels`, `background`, `weights`,
            `record_size`, `fit` and `features`, each as `mix` takes it: by dataset `augment` has
            the settings of an `Augment` or null, and `features` those of `Named`, where the keys of
            `labels` are texts such as "1", "0-127" and "#804080". And `validation_split`, the
            `split` of `mix_eval_batches`.
        split: Where there is none in `given`.
        validation_split: Likewise.
        augment: Of the datasets of which `augment` says nothing.
        record_size: Where there is none in `given`.
        fold: As in `mix`; what is held out is then of `split`.

    Raises:
        ValueError: If it says what there is not, or in another kind.
    """
    known = (*_BY_DATASET, *_SPLITS, *_OTHERS)
    if odd := given.keys() - known:
        raise ValueError(f"a mixture has no setting {min(odd)!r}; it has {', '.join(known)}.")
    by_dataset = {name: given.get(name, {}) for name in _BY_DATASET}
    for name, held in by_dataset.items():
        if not isinstance(held, Mapping):
            raise ValueError(f"{name}={held!r:.60} is not given by dataset.")
    _require_shares(by_dataset["shares"])
    names = tuple(by_dataset["shares"])
    parts = {"split": split, "validation_split": validation_split}
    parts |= {name: given[name] for name in _SPLITS if name in given}
    splits = {name: _each(name, part, names) for name, part in parts.items()}
    for name, own in splits.items():
        if not all(isinstance(split, str) for split in own.values()):
            raise ValueError(
                f"{name}={parts[name]!r:.60} is neither a split nor one for each dataset."
            )
    for name, weights in by_dataset["weights"].items():
        listed = weights.values() if isinstance(weights, Mapping) else weights
        if not isinstance(weights, Mapping | list) or arguments.floats(listed) is None:
            raise ValueError(f"weights of {name}: {weights!r:.60}, no numbers.")
    named = {name: _named(name, value) for name, value in by_dataset["features"].items()}
    augments = {name: _augment(name, value) for name, value in by_dataset["augment"].items()}
    shared: dict[str, Any] = {
        "labels": by_dataset["labels"],
        "features": {name: _named(name, {}) for name in names} | named,
        "fold": fold,
        "record_size": given.get("record_size", record_size),
        **{name: given[name] for name in ("background", "fit") if name in given},
    }
    return Arguments(
        {
            "shares": by_dataset["shares"],
            "split": splits["split"],
            "augment": dict.fromkeys(names, augment) | augments,
            "weights": by_dataset["weights"],
            **shared,
        },
        {"names": names, "split": splits["split" if fold else "validation_split"], **shared},
    )


def mix(
    shares: Mapping[str, Any],
    *,
    size: tuple[int, int],
    batch: int,
    seed: int,
    split: str | Mapping[str, str] = "train",
    augment: Augment | Mapping[str, Augment | None] | None = None,
    labels: Mapping[str, LabelMap] | None = None,
    background: str = "ignore",
    weights: Mapping[str, Any] | None = None,
    record_size: packing.Size | None = None,
    fit: str = "stretch",
    shard: tuple[int, int] = (0, 1),
    then: Then | None = None,
    fold: packing.Fold | None = None,
    features: Mapping[str, Named] | None = None,
    data_dir: PathLike | None = None,
) -> Mixture:
    """Mixes built datasets in exact shares; batch k depends on (seed, k) alone.

    Among the first n examples, for any n, each dataset has its share to within less than one.
    Each passes through its own epochs, augmented by its own settings.

    Args:
        shares: By dataset, relative to each other: whole numbers, fractions, or simple floats.
        size: Height and width of the examples in pixels; packed on first use.
        batch: Examples a batch, over all shards.
        seed: Chooses the order of examples and what happens to them.
        split: A TFDS split, or one for each dataset.
        augment: What may happen to each example, or that for each dataset.
        labels: As in `joined`.
        background: As in `joined`.
        weights: By dataset how often its examples are taken, relative to each other: one number for
            each of the split, also with a fold, 0 for never; or numbers by class name, where an
            example has the largest of its classes, and 1 without any of them.
        record_size: As in `train_batches`.
        fit: As in `train_batches`.
        shard: (index, count): of each batch only this part, for hosts that share a training.
        then: A function of NumPy arrays, image, mask and sources int64 [B] of a whole batch, to
            what is given instead.
        fold: (k, n): of n folds of each split all but fold k, as in `train_batches`.
        features: By dataset the keywords of `train_batches` that name its features, where they are
            not as in the built-in datasets.
        data_dir: Where the datasets were built; TFDS's default where None.

    Raises:
        ValueError: If a dataset is not built, a share or weight is not above 0, a label map loses a
            class, a name is unknown, or an argument is out of range.
    """
    _require_shares(shares)
    names = tuple(shares)
    known = class_names(names, features=features, data_dir=data_dir)
    space = joined(known, labels=labels, background=background)
    splits, augments = _each("split", split, names), _each("augment", augment, names)
    _require_known("weights", weights or {}, names)
    for name, given in (weights or {}).items():
        if isinstance(given, Mapping) and (odd := [x for x in given if x not in known[name]]):
            raise ValueError(
                f"weights of {name}: it has no class {odd[0]!r}, but {', '.join(known[name])}."
            )
    size = arguments.size(size)
    rule = packing.Rule.of_batches(size, record_size, fit=fit)
    # All that needs no pixels is checked before any are packed, which may take minutes.
    require_batches(batch=batch, shard=shard, then=then)
    for name in names:
        packing.examples(packing.built(name, data_dir=data_dir), splits[name])
        _require_weights(name, (weights or {}).get(name), known[name])
        try:
            require_examples(
                augment=augments[name],
                seed=seed,
                size=size,
                record=rule.size,
                classes=len(known[name]),
            )
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    sources = {}
    for name, share in shares.items():
        named = (features or {}).get(name, {})
        records = packing.pack_by(rule, name, splits[name], fold=fold, data_dir=data_dir, **named)
        given = (weights or {}).get(name)
        weight = _weights(given, records, known[name])
        if fold is not None and given is not None and not isinstance(given, Mapping):
            every = packing.pack_by(rule, name, splits[name], data_dir=data_dir, **named)
            weight = _of_fold(name, weight, every, records)
        sources[name] = Source(
            records=records,
            share=share,
            augment=augments[name],
            table=space.tables[name],
            weights=weight,
        )
    return Mixture(
        sources, batch=batch, seed=seed, size=size, shard=shard, then=then, classes=space.classes
    )


def mix_eval_batches(
    names: Sequence[str] | Mapping[str, Any],
    *,
    size: tuple[int, int],
    batch: int,
    split: str | Mapping[str, str] = "validation",
    labels: Mapping[str, LabelMap] | None = None,
    background: str = "ignore",
    record_size: packing.Size | None = None,
    fit: str = "stretch",
    then: Then | None = None,
    fold: packing.Fold | None = None,
    features: Mapping[str, Named] | None = None,
    data_dir: PathLike | None = None,
) -> dict[str, Evaluation]:
    """Of each dataset of a mixture every example once, in order, with the mixture's class ids.

    Takes what `mix` does; pixels are as they are, and the last batch of each may be smaller. With
    `fold=(k, n)` it gives fold k alone, which `mix` with the same fold leaves out, and with
    `record_size` tiles, as `eval_batches`.

    Returns:
        By dataset what gives, as often as it is iterated over, (image uint8 [B, H, W, 3], mask
        uint8 [B, H, W, 1]), or what `then` makes of these and the dataset's number in `names`.
    """
    batch = arguments.integer("batch", batch, least=1, most=LARGEST_BATCH)
    require_then(then)
    names = tuple(names)
    known = class_names(names, features=features, data_dir=data_dir)
    space = joined(known, labels=labels, background=background)
    splits = _each("split", split, names)
    size = arguments.size(size)
    rule = packing.Rule.of_batches(size, record_size, fit=fit)

    def told(number: int, image: np.ndarray, mask: np.ndarray) -> Batch:
        """`then`, which learns of which dataset a batch is."""
        assert then
        return then(image, mask, np.full(len(mask), number, np.int64))

    return {
        name: Evaluation(
            packing.pack_by(
                rule,
                name,
                splits[name],
                fold=fold,
                part="held-out",
                data_dir=data_dir,
                **(features or {}).get(name, {}),
            ),
            batch=batch,
            size=size,
            table=space.tables[name],
            then=then and functools.partial(told, number),
        )
        for number, name in enumerate(names)
    }


def class_names(
    names: Sequence[str],
    *,
    features: Mapping[str, Named] | None = None,
    data_dir: PathLike | None = None,
) -> dict[str, tuple[str, ...]]:
    """The class names of built datasets, by their ids.

    Raises:
        ValueError: If one is not built, or the classes of its masks have no names.
    """
    features = features or {}
    _require_known("features", features, names)
    return {
        name: packing.class_names(name, data_dir=data_dir, **features.get(name, {}))
        for name in names
    }


def is_rest(name: str) -> bool:
    """Whether a class is one of `REST`; "Background" and "_background_" are too."""
    return name.casefold().strip(" _-") in REST


def joined(
    known: Mapping[str, Sequence[str]],
    *,
    labels: Mapping[str, LabelMap] | None = None,
    background: str = "ignore",
) -> Labels:
    """Joins the classes of datasets into one label space, by name or by maps.

    A "background" (or another class of `REST`) holds whatever its dataset has no class for. Where
    datasets call it differently, it has the name of the first. In a mixture it may hold a class of
    another dataset; so it becomes the ignore label where its dataset lacks a class of the mixture.

    Args:
        known: By dataset the names of its classes, by their ids.
        labels: By dataset each of its class names to one of the mixture, or to None for the ignore
            label. Datasets that it leaves out keep their names; what it says is done.
        background: "ignore", as above; or "negative", where the background of each is known to hold
            no class of the others.

    Returns:
        The label space: background first, then the names as they come.

    Raises:
        ValueError: If a map lacks a class or names one that there is not, no background is left,
            or there are more than 255 classes.
    """
    if background not in BACKGROUNDS:
        raise ValueError(f"background={background!r}: there are 'ignore' and 'negative'.")
    labels = labels or {}
    _require_known("labels", labels, tuple(known))
    maps: dict[str, LabelMap] = {
        name: _checked(name, labels[name], own) if name in labels else {old: old for old in own}
        for name, own in known.items()
    }
    wanted = _targets(maps.values())
    rest = [name for name in wanted if is_rest(name)]
    classes = {*wanted} - {*rest}
    own_rests = [{*rest} & {*given.values()} for given in maps.values()]
    is_one = all(each in (set(), {*rest}) for each in own_rests)
    for name in known.keys() - labels.keys():
        becomes: dict[str | None, str | None] = {}
        if not is_one:
            becomes |= dict.fromkeys(rest, rest[0])
        if background == "ignore" and classes - {*maps[name].values()}:
            becomes |= dict.fromkeys(rest)
        maps[name] = {old: becomes.get(new, new) for old, new in maps[name].items()}
    kept = _targets(maps.values())
    if rest and not {*kept} & {*rest}:
        raise ValueError(
            f"the mixture loses the class {rest[0]!r}: no dataset of "
            f"{', '.join(known)} knows all classes, {', '.join(kept)}, and so what each calls "
            'background may hold those of the others. Where it does not, give background="negative"'
            "; else say by labels= what becomes of each class."
        )
    if not 1 <= len(kept) <= IGNORE_LABEL:
        raise ValueError(f"labels: the mixture has {len(kept)} classes; 1 to {IGNORE_LABEL} fit.")
    order = sorted(kept, key=lambda name: not is_rest(name))
    ids = {name: number for number, name in enumerate(order)} | {None: IGNORE_LABEL}
    tables = {}
    for name, given in maps.items():
        tables[name] = np.full(256, IGNORE_LABEL, np.uint8)
        tables[name][: len(known[name])] = [ids[given[old]] for old in known[name]]
    return Labels(tuple(order), tables, maps)


def _targets(maps: Any) -> list[str]:
    """The names that maps lead to, in order."""
    return list(dict.fromkeys(new for given in maps for new in given.values() if new is not None))


def _checked(name: str, given: Any, own: Sequence[str]) -> dict[str, str | None]:
    """A dataset's label map, in the order of its classes."""
    if not isinstance(given, Mapping):
        raise ValueError(f"labels of {name}: {given!r:.60} is no map of class names.")
    if odd := sorted(set(given) - set(own)):
        raise ValueError(f"labels of {name}: it has no class {odd[0]!r}, but {', '.join(own)}.")
    if lost := [old for old in own if old not in given]:
        raise ValueError(
            f"labels of {name} lose the class {lost[0]!r}: map it to a name, or to None for the "
            "ignore label."
        )
    for old, new in given.items():
        if not (new is None or (isinstance(new, str) and new)):
            raise ValueError(f"labels of {name}: {old!r} to {new!r}, neither a name nor None.")
    return {old: given[old] for old in own}


def _each(argument: str, value: Any, names: Sequence[str]) -> dict[str, Any]:
    """One value for each dataset."""
    if not isinstance(value, Mapping):
        return dict.fromkeys(names, value)
    _require_known(argument, value, names)
    if missing := [name for name in names if name not in value]:
        raise ValueError(f"{argument} is given by dataset and lacks {missing[0]}.")
    return dict(value)


def _augment(name: str, given: Any) -> Augment | None:
    """The augmentation of a dataset, as JSON has it."""
    if given is None:
        return None
    try:
        return Augment(**given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"augment of {name}: {error}") from error


def _named(name: str, given: Any) -> Named:
    try:
        return naming.from_json(given)
    except ValueError as error:
        raise ValueError(f"features of {name}: {error}") from error


def _require_shares(shares: Any) -> None:
    if not isinstance(shares, Mapping) or not shares:
        raise ValueError(f"shares={shares!r:.60} gives no datasets, each with its share.")
    mixture.whole({f"the share of {name}": share for name, share in shares.items()})


def _require_known(argument: str, given: Mapping[str, Any], names: Sequence[str]) -> None:
    if odd := [name for name in given if name not in names]:
        raise ValueError(
            f"{argument} names {odd[0]!r}, which is not mixed; there are {', '.join(names)}."
        )


def _require_weights(name: str, given: Any, own: Sequence[str]) -> None:
    """Checks weights of classes; those of examples are checked with them."""
    for label, weight in given.items() if isinstance(given, Mapping) else ():
        if label not in own:
            raise ValueError(f"weights of {name}: it has no class {label!r}, but {', '.join(own)}.")
        if weight != 0:
            mixture.fraction(f"a weight of {name}", weight)


def _weights(given: Any, records: Records, own: Sequence[str]) -> Any:
    """Weights of examples; None where all are alike."""
    if not isinstance(given, Mapping):
        return given
    return mixture.by_class(records, {own.index(label): given[label] for label in given})


def _of_fold(name: str, weights: Any, every: Records, records: Records) -> list[Any]:
    """The weights of the examples that a fold has, of those of the split."""
    if len(weights) != every.count:
        raise ValueError(
            f"{name} has {every.count:,} examples, of all folds, and {len(weights):,} weights."
        )
    weight_of = dict(zip(np.asarray(every.rows).tolist(), weights, strict=True))
    return [weight_of[row] for row in np.asarray(records.rows).tolist()]
