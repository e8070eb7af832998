"""What is used of TFDS beyond its public API: each thing by name, and that one module alone does.

A release of TFDS that fails here is not admitted by `pyproject.toml` before `building.internals`
follows it.
"""

import ast
import dataclasses
import inspect
import pathlib
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import constants, splits, utils

import segdata.datasets
from segdata.building import internals

ROOT = pathlib.Path(__file__).parent.parent
BUILDER: Any = tfds.core.GeneratorBasedBuilder
UNKNOWN_SIDES: Any = tfds.features.Tensor(shape=(None, None), dtype=np.uint8, encoding="bytes")
HOOKS = {"_info", "_split_generators", "_generate_examples"}  # which TFDS's guide has one write


def parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def fields(owner: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(owner)}


def template(folder: Any, **more: str) -> tfds.core.ShardedFileTemplate:
    return tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name="a", filetype_suffix="tfrecord", **more
    )


def absolute(spec: Any) -> list[tuple[str, int | None, int | None]]:
    infos = {"train": tfds.core.SplitInfo(name="train", shard_lengths=[6, 4], num_bytes=0)}
    parts = splits.AbstractSplit.from_spec(spec).to_absolute(infos)
    return [(part.splitname, part.from_, part.to) for part in parts]


def builds_beside(folder: pathlib.Path) -> bool:
    with utils.incomplete_dir(str(folder / "1.0.0")):
        (found,) = folder.glob(f"{constants.INCOMPLETE_PREFIX}*_1.0.0")
    return len(found.name) == len("incomplete.4D8K1Z_1.0.0") and (folder / "1.0.0").is_dir()


def command() -> Any:
    return internals.build_command()


CONTRACT: dict[str, Callable[[pathlib.Path], object]] = {
    "core.constants.INCOMPLETE_PREFIX begins the name of a folder in which a dataset is built": (
        builds_beside
    ),
    "core.utils.tqdm is a bar that tfds.disable_progress_bar turns off": lambda _: (
        list(utils.tqdm([1, 2], desc="", unit="", total=2, leave=False)) == [1, 2]
    ),
    "core.utils.classproperty makes GeneratorBasedBuilder.builder_configs of a class": lambda _: (
        type(vars(tfds.core.DatasetBuilder)["builder_configs"]) is utils.classproperty
        and BUILDER.builder_configs == {}
        and "lowres" in tfds.builder_cls("carvana").builder_configs
    ),
    "a feature is recorded as its _fully_qualified_class_name": lambda _: (
        tfds.features.Image().to_json()["type"]
        == tfds.features.Image()._fully_qualified_class_name
        == "tensorflow_datasets.core.features.image_feature.Image"
    ),
    "GeneratorBasedBuilder takes skip_registration when a class is made": lambda _: (
        "skip_registration" in parameters(BUILDER.__init_subclass__)
    ),
    "GeneratorBasedBuilder._generate_splits(dl_manager, download_config)": lambda _: (
        parameters(BUILDER._generate_splits) == ["self", "dl_manager", "download_config"]
    ),
    "GeneratorBasedBuilder._download_and_prepare takes from _generate_splits what it records": (
        lambda _: (
            "split_infos = self._generate_splits(dl_manager, download_config)"
            in inspect.getsource(BUILDER._download_and_prepare)
        )
    ),
    "GeneratorBasedBuilder._as_dataset(split, decoders, read_config, shuffle_files)": lambda _: (
        parameters(BUILDER._as_dataset)
        == ["self", "split", "decoders", "read_config", "shuffle_files"]
    ),
    "GeneratorBasedBuilder.as_dataset reads each split by _as_dataset": lambda _: (
        "self._build_single_dataset" in inspect.getsource(BUILDER.as_dataset)
        and "ds = self._as_dataset(" in inspect.getsource(BUILDER._build_single_dataset)
    ),
    "GeneratorBasedBuilder._get_filename_template(split_name)": lambda _: (
        parameters(BUILDER._get_filename_template) == ["self", "split_name"]
    ),
    "ShardedFileTemplate.sharded_filepaths(num_shards) gives one path each": lambda folder: (
        [path.name for path in template(folder, split="train").sharded_filepaths(2)]
        == ["a-train.tfrecord-00000-of-00002", "a-train.tfrecord-00001-of-00002"]
    ),
    "GeneratorBasedBuilder._example_writer() is an ExampleWriter": lambda folder: (
        parameters(BUILDER._example_writer) == ["self"]
        and isinstance(
            tfds.builder("dsb2018", data_dir=folder)._example_writer(), tfds.core.ExampleWriter
        )
    ),
    "ExampleWriter.write(path, examples)": lambda _: (
        parameters(tfds.core.ExampleWriter.write) == ["self", "path", "examples"]
    ),
    "GeneratorBasedBuilder.__getstate__ holds the constructor's arguments as _original_state": (
        lambda folder: (
            BUILDER.__getstate__(tfds.builder("dsb2018", data_dir=folder))["_original_state"]
            == {"data_dir": str(folder), "config": None, "version": None}
        )
    ),
    "GeneratorBasedBuilder.__setstate__ calls the constructor with them": lambda folder: (
        pickle.loads(
            pickle.dumps(tfds.builder("dsb2018/instances", data_dir=folder))
        ).info.full_name
        == "dsb2018/instances/" + str(tfds.builder("dsb2018").version)
    ),
    "core.ExampleSerializer makes a protocol buffer of an encoded example": lambda _: (
        internals.serializer(tfds.features.FeaturesDict({"a": tfds.features.Text()}))({"a": "b"})
        == b"\n\x0c\n\n\n\x01a\x12\x05\n\x03\n\x01b"
    ),
    "a Decoder gets a Tensor of several unknown sides as shape and value": lambda _: (
        {*UNKNOWN_SIDES.get_serialized_info()} == {"shape", "value"}
        and UNKNOWN_SIDES.to_json_content().encoding == "bytes"
        and parameters(tfds.decode.Decoder.decode_example_np) == ["self", "serialized_example"]
    ),
    "AbstractSplit.from_spec and to_absolute": lambda _: (
        absolute("train[2:4]+train[50%:]") == [("train", 2, 4), ("train", 5, None)]
    ),
    "ReadInstruction(split, from_, to, unit='abs') is an AbstractSplit, and adds up": lambda _: (
        absolute(
            tfds.core.ReadInstruction("train", from_=2, to=4, unit="abs")
            + tfds.core.ReadInstruction("train", from_=7, to=10, unit="abs")
        )
        == [("train", 2, 4), ("train", 7, None)]
    ),
    "SplitDict gives slices to AbstractSplit": lambda folder: (
        tfds.core.SplitDict(
            [
                tfds.core.SplitInfo(
                    "train",
                    shard_lengths=[6, 4],
                    num_bytes=0,
                    filename_template=template(folder),
                )
            ]
        )[internals.Moved("train[:3]", lambda *_: (0, 5))].num_examples
        == 5
    ),
    "DownloadManager keeps the manual folder as _manual_dir": lambda folder: (
        tfds.download.DownloadManager(
            download_dir=folder, manual_dir=folder / "none", manual_dir_instructions="x"
        )._manual_dir
        == folder / "none"
    ),
    "DownloadManager.manual_dir raises AssertionError where that is missing": lambda _: (
        "raise AssertionError" in inspect.getsource(tfds.download.DownloadManager.manual_dir.func)
    ),
    "scripts.cli.build.Args is a frozen dataclass of these flags, and executes": lambda _: (
        command().__dataclass_params__.frozen
        and {"positional_datasets", "datasets", "debug", "generation"} <= fields(command())
        and {"overwrite", "max_examples_per_split"} <= fields(command().debug)
        and {
            *("imports", "num_shards", "num_processes", "max_shard_size_mb"),
            *("download_only", "config", "file_format", "beam_pipeline_options"),
        }
        <= {field.name for field in dataclasses.fields(generation_options())}
        and callable(command().execute)
    ),
}


def generation_options() -> Any:
    (field,) = (field for field in dataclasses.fields(command()) if field.name == "generation")
    return field.default_factory


@pytest.mark.parametrize("what", CONTRACT)
def test_tfds_is_as_it_is_used(what, tmp_path):
    try:
        problem = "" if CONTRACT[what](tmp_path) else "it does not"
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    if problem:
        pytest.fail(f"TFDS {tfds.__version__} is not as used: {what}: {problem}", pytrace=False)


def modules() -> list[pathlib.Path]:
    found = [path for package in ("segdata", "unet") for path in (ROOT / package).rglob("*.py")]
    return [path for path in found if path.name != "internals.py"]


def private_names() -> set[str]:
    """Of the classes that this project derives from or is given."""
    owners = [BUILDER, tfds.core.DatasetInfo, tfds.core.SplitDict, tfds.download.DownloadManager]
    owners += [tfds.features.Image, tfds.features.FeaturesDict, tfds.core.BuilderConfig]
    names = {name for owner in owners for name in dir(owner)}
    names |= {"_original_state", "_manual_dir", "_data_dir", "_builder_config", "_version"}
    private = {name for name in names if name.startswith("_") and not name.startswith("__")}
    return private - HOOKS - {"_abc_impl"}  # which Python itself makes


def touched(source: str) -> set[str]:
    """What a module's source uses of TFDS beyond what TFDS exports and its guide describes."""
    private, found = private_names(), set[str]()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found |= {n.name for n in names if n.name.startswith("tensorflow_datasets.")}
            case ast.ImportFrom(module=str(module)) if module.startswith("tensorflow_datasets"):
                found.add(module)
            case ast.Attribute(value=ast.Name(id="tfds"), attr=name):
                if name not in tfds.public_api.__all__:
                    found.add(f"tfds.{name}")
            case ast.Attribute(
                value=ast.Attribute(value=ast.Name(id="tfds"), attr=inner), attr=name
            ):
                if name not in getattr(tfds, inner).__all__:
                    found.add(f"tfds.{inner}.{name}")
            case ast.FunctionDef(name=name) if name in private:
                found.add(name)
            case ast.Attribute(attr=name) | ast.Constant(value=str(name)) if name in private:
                found.add(name)
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_module_touches_a_private_part_of_tfds(path):
    assert touched(path.read_text()) == set()


@pytest.mark.parametrize("name", ["carvana", "cityscapes_pairs", "dsb2018"])
def test_builders_override_nothing_private_but_in_internals(name):
    cls = tfds.builder_cls(name)
    own = [base for base in cls.__mro__ if base.__module__.startswith("segdata.")]
    assert getattr(segdata.datasets, name).Builder in own
    for base in own:
        if base.__module__ != internals.__name__:
            assert set(vars(base)) & private_names() == set(), base


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import tensorflow_datasets.core.utils", "tensorflow_datasets.core.utils"),
        ("from tensorflow_datasets.scripts.cli import build", "tensorflow_datasets.scripts.cli"),
        ("tfds.core.utils.tqdm([])", "tfds.core.utils"),
        ("tfds.setup_teardown", "tfds.setup_teardown"),
        ("builder._data_dir", "_data_dir"),
        ("state['_original_state']", "_original_state"),
        ("class A(tfds.core.SplitDict):\n def _dataset_name(self): 1", ""),
        ("class A(tfds.features.Image):\n def _flatten(self): 1", "_flatten"),
        ("class A(tfds.core.GeneratorBasedBuilder):\n def _info(self): 1", ""),
        ("tfds.core.ReadInstruction; tfds.features.Image; tfds.load", ""),
    ],
)
def test_what_is_private_is_told_from_what_is_not(source, expected):
    assert touched(source) == ({expected} - {""})
