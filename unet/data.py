"""What a recipe trains on and is judged by: streams of segdata.

The only module that knows where batches come from. Keras's backend decides what they are handed
over as: a `tf.data.Dataset` for TensorFlow, arrays for JAX, which needs no TensorFlow for them.
"""

import dataclasses
import functools
import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from segdata import mixing, native, packing, sources
from segdata.archives.intensity import Scaling
from segdata.building import features, reading, slices, stored
from segdata.core import stream
from segdata.core.augment import Augment
from segdata.core.records import Records
from segdata.inspection import traits
from unet.recipes import Recipe


@dataclasses.dataclass(frozen=True)
class Data:
    """The data of a recipe."""

    recipe: Recipe

    data_dir: str | None = None
    """Where the datasets were built; TFDS's default where None."""

    part: str = "held-out"
    """What `validation` and `native` give: what is held out; or "training", what it trains on."""

    trained_on: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """What `sizes` gave for a model: `native` gives images far larger than these at their scale, as
    `predict` sees them; where empty, all as training does."""

    @functools.cached_property
    def training(self) -> stream.Training:
        """The batches of the training; packs them where that was not done before.

        Raises:
            ValueError: If a dataset is not built, or a setting does not fit it.
        """
        recipe = self.recipe
        common: dict[str, Any] = {"size": recipe.size, "batch": recipe.batch, "seed": recipe.seed}
        if recipe.mix:
            return mixing.mix(**self._mix.training, **common, data_dir=self.data_dir)
        augment = _augment(recipe)
        stream.require_examples(
            augment=augment,
            seed=recipe.seed,
            size=recipe.size,
            record=self._rule.size,
            classes=len(self._class_names()),
        )
        records = self._records(recipe.train_split, part="training")
        return stream.Stream(records, augment=augment, **common)

    def batches(self, start_step: int) -> Iterable[Any]:
        """An endless stream of image uint8 [B, H, W, 3] and mask uint8 [B, H, W, 1]."""
        import keras

        if keras.backend.backend() == "jax":  # on an accelerator, made there
            from segdata.adapters import jax as adapter
        else:
            from segdata.adapters import tf as adapter
        return adapter.training(self.training, start_step=start_step)

    @property
    def steps_per_epoch(self) -> int:
        """As the recipe says, or batches that hold as many examples as there are."""
        return self.recipe.steps_per_epoch or self.training.steps_per_epoch

    @property
    def validation(self) -> Any:
        """What is held out of the training: batches in order; of several datasets by name.

        Where training is on crops they are tiles, in which each pixel counts once.
        """
        return self._held_out

    @functools.cached_property
    def _held_out(self) -> Any:
        recipe = self.recipe
        if recipe.mix and self.part == "training":
            mixture: Any = self.training
            return {
                name: stream.Evaluation(records, batch=recipe.batch, size=recipe.size, table=table)
                for (name, records), table in zip(
                    mixture.taken.items(), self._labels().tables.values(), strict=True
                )
            }
        if recipe.mix:
            return mixing.mix_eval_batches(
                **self._mix.evaluation,
                size=recipe.size,
                batch=recipe.batch,
                data_dir=self.data_dir,
            )
        records = self._records(self._judged_split, part=self.part)
        return stream.Evaluation(records, batch=recipe.batch, size=recipe.size)

    @property
    def has_objects(self) -> bool:
        """Whether `native` can read maps of objects of the images that are judged."""
        if self.recipe.mix or self.recipe.is_regression:
            return False
        try:
            self._with_objects(self._judged_split)
        except ValueError:
            return False
        return True

    def native(self, *, objects: bool = False) -> Any:
        """The same images at their own size: `segdata.native.Native`; of several datasets by name.

        Iterated over once.

        Args:
            objects: Whether to read the maps of objects, from the dataset's config `instances`
                where it has none itself.

        Raises:
            ValueError: If a dataset is not built, or has no such maps.
        """
        recipe = self.recipe
        what: dict[str, Any] = {"rule": self._rule, "data_dir": self.data_dir}
        what |= {"fold": recipe.fold, "part": self.part}
        if self.trained_on:
            what["seen"] = functools.partial(recipe.seen, trained_on=self.trained_on)
        if not recipe.mix:
            split = self._judged_split
            named = features.from_json(recipe.features)
            name = self._with_objects(split) if objects else recipe.dataset
            return native.examples(name, split, instances=objects, **what, **named)
        if objects:
            raise ValueError("objects are scored of one dataset, and this run has several.")
        given, labels = self._mix.evaluation, self._labels()
        splits = self._mix.training["split"] if self.part == "training" else given["split"]
        found = {}
        for name in given["names"]:
            named = given["features"][name]
            rows = self._taken(name, splits[name], named) if self.part == "training" else None
            own = native.examples(name, splits[name], rows=rows, **what, **named)
            found[name] = _relabelled(own, labels.tables[name])
        return found

    def unlabelled(self, split: str) -> Any:
        """Images of a split at their own size, which needs no labels; as `native`.

        Raises:
            ValueError: If a dataset is not built, or has no such split.
        """
        name = self.recipe.dataset
        base = name.partition("/")[0]
        is_there = split in packing.built(name, data_dir=self.data_dir).info.splits
        if base == "carvana" and not is_there:
            name = "carvana/with_test"
        if base == "dsb2018" and split == "test" and not is_there:
            raise ValueError(
                f"{name} was built without the competition's images: put stage1_test.zip into the "
                f"manual dir, and give segdata build {name} --overwrite."
            )
        recipe = dataclasses.replace(self.recipe, dataset=name, validation_split=split, fold=None)
        return dataclasses.replace(self, recipe=recipe).native()

    def account(self, steps: int) -> Mapping[str, Any]:
        """Of a mixture: what its first steps hold of each dataset; else nothing."""
        if not self.recipe.mix:
            return {}
        training: Any = self.training
        return training.account(training.steps(0, steps))

    def made_with(self) -> dict[str, str]:
        """What the numbers of a run depend on besides its settings, by name."""
        import keras

        backend = str(keras.backend.backend())
        libraries = {name: importlib.metadata.version(name) for name in ("keras", backend)}
        return {
            "training images": _checksums(self.training.files),
            "validation images": self.judged_by(),
            "steps an epoch": str(self.steps_per_epoch),
            "backend": backend,
            **libraries,
        }

    def judged_by(self) -> str:
        """The checksums of the validation images at the size of the training."""
        own = self._held_out
        every = own.values() if isinstance(own, Mapping) else [own]
        return _checksums(each.records for each in every)

    def classes(self) -> tuple[str, ...]:
        """The names of the classes of a model with softmax; of one of one channel none.

        Raises:
            ValueError: If the model does not have as many.
        """
        recipe = self.recipe
        if recipe.is_regression:
            return ()
        names = self._class_names()
        is_softmax = recipe.model.output_activation == "softmax"
        channels = recipe.model.output_channels
        if len(names) != (channels if is_softmax else 2):
            softmax = "" if is_softmax else "--output_activation softmax --loss cross_entropy "
            joined = " Or join classes by `labels` in the file of --mix." if recipe.mix else ""
            raise ValueError(
                f"output_channels is {channels}, but {recipe.dataset} has {len(names)} classes; "
                f"give {softmax}--output_channels {len(names)}.{joined}"
            )
        if not is_softmax and mixing.is_rest(names[1]):
            raise ValueError(
                f"--labels: a model of one channel finds the class that is named second, and of "
                f"{recipe.dataset} that is {names[1]!r}; name it first."
            )
        if recipe.mix:
            print(self._labels())
        return names if is_softmax else ()

    def require_like(
        self, *, classes: tuple[str, ...], scalings: Mapping[str, Mapping[str, Any] | None]
    ) -> None:
        """Requires data such as a model was trained on: of its classes, in its brightness.

        A dataset that was built anew, or lies elsewhere, may have the same name and others.

        Args:
            classes: What `classes` gave then.
            scalings: What `scalings` gave then; nothing is required of a dataset that is not in it.

        Raises:
            ValueError: If a dataset is not built, or differs.
        """
        dataset = self.recipe.dataset
        if not self.recipe.is_regression:
            names = self._class_names()
            is_one = self.recipe.model.output_channels == 1
            if names != classes if classes else is_one and len(names) != 2:
                raise ValueError(
                    f"{dataset} has the classes {', '.join(names)}, and the run was trained on "
                    f"{', '.join(classes) or 'background and one other'}: numbers in its masks "
                    "mean something else. Build it of the same classes in the same order, or name "
                    "where the dataset of the run is: --data_dir."
                )
        for name, found in self.scalings().items():
            kept = scalings.get(name, found)
            if _levels(kept) != _levels(found):
                raise ValueError(
                    f"{name}: brightness was {_said(found)} when it was built, and {_said(kept)} "
                    "in what the run was trained on. Build it likewise, of images of the same "
                    "type, with --range; or name where the dataset of the run is: --data_dir."
                )

    def scalings(self) -> dict[str, Any]:
        """How brightness becomes 8 bits in the datasets, by their names."""
        return {
            name: _scaling(packing.built(name, data_dir=self.data_dir), own)
            for name, own in self._named().items()
        }

    def sizes(self) -> dict[str, int]:
        """Sizes of the images to train on, in pixels: median `height` and `width`, `longest` side.

        Of up to 1,024 of each dataset.
        """
        recipe = self.recipe
        splits = self._mix.training["split"] if recipe.mix else {recipe.dataset: recipe.train_split}
        found = [
            traits.sizes(name, splits[name], data_dir=self.data_dir, **own)
            for name, own in self._named().items()
        ]
        every = np.concatenate(found)
        height, width = (int(side) for side in np.median(every, axis=0))
        return {"height": height, "width": width, "longest": int(every.max())}

    def _named(self) -> dict[str, Any]:
        """The names of the features of the datasets, by the names of these."""
        recipe = self.recipe
        if recipe.mix:
            return self._mix.training["features"]
        return {recipe.dataset: features.from_json(recipe.features)}

    def _class_names(self) -> tuple[str, ...]:
        recipe = self.recipe
        if recipe.mix:
            return self._labels().classes
        named = {recipe.dataset: features.from_json(recipe.features)}
        known = mixing.class_names((recipe.dataset,), features=named, data_dir=self.data_dir)
        return known[recipe.dataset]

    def _labels(self) -> mixing.Labels:
        """The label space of several datasets."""
        given = self._mix.evaluation
        known = mixing.class_names(
            given["names"], features=given["features"], data_dir=self.data_dir
        )
        told = {name: given[name] for name in ("labels", "background") if name in given}
        return mixing.joined(known, **told)

    def _records(self, split: str, *, part: str) -> Records:
        recipe = self.recipe
        return packing.pack_by(
            self._rule,
            recipe.dataset,
            split,
            fold=recipe.fold,
            part=part,
            data_dir=self.data_dir,
            **features.from_json(recipe.features),
        )

    def _taken(self, name: str, split: str, named: Mapping[str, Any]) -> list[int]:
        """Of a dataset of a mixture the examples that are trained on: their numbers in the split.

        Those of another fold are not, and not those of weight 0.
        """
        mixture: Any = self.training
        taken = mixture.taken[name]
        whole = packing.pack_by(self._rule, name, split, data_dir=self.data_dir, **named)
        return np.flatnonzero(np.isin(whole.rows, taken.rows)).tolist()

    @property
    def _judged_split(self) -> str:
        """The split that holds the images to judge by: all of it, or a fold of it."""
        is_trained_on = self.recipe.fold or self.part == "training"
        return self.recipe.train_split if is_trained_on else self.recipe.validation_split

    @property
    def _rule(self) -> packing.Rule:
        """How large the records are that training takes its examples from."""
        return packing.Rule.of_batches(self.recipe.size, self.recipe.records)

    def _with_objects(self, split: str) -> str:
        """The dataset, or its config that has the objects of the same examples as well."""
        name, data_dir = self.recipe.dataset, self.data_dir
        builder: Any = packing.built(name, data_dir=data_dir)
        if "instances" in builder.info.features:
            return name
        base = name.removeprefix("folder:").partition("/")[0]
        if name.startswith("folder:") or not _has_config(base, "instances"):
            how = "; build it of masks that number objects: --mask_kind objects"
            raise ValueError(
                f"{name} has no map of objects, `instances`"
                f"{how if name.startswith('folder:') else ''}."
            )
        other = packing.built(f"{base}/instances", data_dir=data_dir)
        if _ids(builder, split) != _ids(other, split):
            raise ValueError(
                f"{split} of {base}/instances has other images than that of {name}: build both "
                "again, of the same archives, with --overwrite."
            )
        return f"{base}/instances"

    @functools.cached_property
    def _mix(self) -> mixing.Arguments:
        recipe = self.recipe
        return mixing.from_json(
            recipe.mix,
            split=recipe.train_split,
            validation_split=recipe.validation_split,
            augment=_augment(recipe),
            record_size=recipe.record_size,
            fold=recipe.fold,
        )


def _checksums(files: Iterable[Records]) -> str:
    return " ".join(f"{records.checksum:08x}" for records in files)


def _has_config(base: str, config: str) -> bool:
    return base in sources.names() and any(x.name == config for x in sources.named(base).configs)


def _ids(builder: Any, split: str) -> list[str]:
    """The names of the examples of a split, in order."""
    names = reading.Names(builder, features.Features())
    packing.examples(builder, split)
    parts = slices.absolute(builder.info.splits, split)
    return [names.read(frame)[0] for frame in stored.frames(builder, parts)]


def _relabelled(examples: Iterable[Any], table: np.ndarray) -> Iterator[Any]:
    """Native examples with the class ids of a mixture."""
    return (example.relabelled(table) for example in examples)


def _scaling(builder: Any, named: Mapping[str, Any]) -> dict[str, Any] | None:
    """As it was when the dataset was built, or is when it is packed."""
    bands, ends = named.get("bands"), named.get("value_range")
    if bands is None and ends is None:
        return dict(builder.info.metadata or {}).get("intensity")
    low, high = map(float, ends or (0, 255))
    kind = features.found(builder, "image", named.get("image", "image")).kind
    return Scaling(
        low=(low,),
        high=(high,),
        rule="the value_range given",
        channels=tuple(map(str, bands or ())),
        types=(np.dtype(kind.np_dtype).name,),
    ).to_json()


def _levels(found: Mapping[str, Any] | None) -> Any:
    """What a scaling does to an image, wherever its numbers are from."""
    scaling = None if found is None else Scaling.from_json(found)
    return scaling and (scaling.low, scaling.high, scaling.channels, scaling.page)


def _said(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "8 bits as it is"
    scaling = Scaling.from_json(found)
    ends = zip(scaling.low, scaling.high, strict=True)
    said = "scaled from " + " and ".join(f"{low:g}–{high:g}" for low, high in ends)
    said += f" of the channels {', '.join(scaling.channels)}" if scaling.channels else ""
    return said + (f" of page {scaling.page}" if scaling.page is not None else "")


def _augment(recipe: Recipe) -> Augment:
    try:
        return Augment(**recipe.augment)
    except TypeError as error:
        raise ValueError(f"the augmentation of settings.json is damaged: {error}") from error
