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
from unet.recipes import Recipe


@dataclasses.dataclass(frozen=True)
class Data:
    """The data of a recipe."""

    recipe: Recipe

    data_dir: str | None = None
    """Where the datasets were built; TFDS's default where None."""

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
        """Batches that hold as many examples as there are."""
        return self.training.steps_per_epoch

    @property
    def validation(self) -> Any:
        """What is held out of the training: batches in order; of several datasets by name.

        Where training is on crops they are tiles, in which each pixel counts once.
        """
        return self._held_out

    @functools.cached_property
    def _held_out(self) -> Any:
        recipe = self.recipe
        if recipe.mix:
            return mixing.mix_eval_batches(
                **self._mix.evaluation,
                size=recipe.size,
                batch=recipe.batch,
                data_dir=self.data_dir,
            )
        records = self._records(self._judged_split, part="held-out")
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
        what: dict[str, Any] = {"rule": self._rule, "fold": recipe.fold, "data_dir": self.data_dir}
        if not recipe.mix:
            split = self._judged_split
            named = features.from_json(recipe.features)
            name = self._with_objects(split) if objects else recipe.dataset
            return native.examples(name, split, instances=objects, **what, **named)
        if objects:
            raise ValueError("objects are scored of one dataset, and this run has several.")
        given, labels = self._mix.evaluation, self._labels()
        splits = given["split"]
        found = {}
        for name in given["names"]:
            split = splits if isinstance(splits, str) else splits[name]
            own = native.examples(name, split, **what, **given["features"].get(name, {}))
            found[name] = _relabelled(own, labels.tables[name])
        return found

    def unlabelled(self, split: str) -> Any:
        """Images of a split at their own size, which needs no labels; as `native`.

        Raises:
            ValueError: If a dataset is not built, or has no such split.
        """
        name = self.recipe.dataset
        base = name.partition("/")[0]
        if (
            base == "carvana"
            and split not in packing.built(name, data_dir=self.data_dir).info.splits
        ):
            name = "carvana/with_test"
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
        checksums = [f"{records.checksum:08x}" for records in self.training.files]
        return {
            "training images": " ".join(checksums),
            "steps an epoch": str(self.steps_per_epoch),
            "backend": backend,
            **libraries,
        }

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
        return names if is_softmax else ()

    def scalings(self) -> dict[str, Any]:
        """How brightness becomes 8 bits in the datasets, by their names."""
        recipe = self.recipe
        named: Any = {recipe.dataset: features.from_json(recipe.features)}
        if recipe.mix:
            mix = self._mix.training
            named = {name: {} for name in mix["shares"]} | mix["features"]
        return {
            name: _scaling(packing.built(name, data_dir=self.data_dir), own)
            for name, own in named.items()
        }

    def _class_names(self) -> tuple[str, ...]:
        recipe = self.recipe
        if recipe.mix:
            labels = self._labels()
            print(labels)
            return labels.classes
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

    @property
    def _judged_split(self) -> str:
        """The split that holds the images to judge by: all of it, or a fold of it."""
        return self.recipe.train_split if self.recipe.fold else self.recipe.validation_split

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


def _augment(recipe: Recipe) -> Augment:
    try:
        return Augment(**recipe.augment)
    except TypeError as error:
        raise ValueError(f"the augmentation of settings.json is damaged: {error}") from error
