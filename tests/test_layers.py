"""The order of imports, as CONTRIBUTING.md draws it: each room knows only those before it."""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent

NAMES = ["dsb2018", "carvana", "cityscapes_pairs"]
LAYERS = [
    ["segdata"],  # the public names, loaded when used
    ["segdata.core"],
    [f"segdata.core.{name}" for name in ("arguments", "compiling", "files", "parallel")],
    ["segdata.core.random", "segdata.core.resizing"],
    ["segdata.core.augment", "segdata.core.records"],
    ["segdata.core.plan"],
    ["segdata.core.kernels"],
    ["segdata.core.stream"],
    ["segdata.adapters"],
    ["segdata.adapters.expressions"],
    ["segdata.adapters.jax", "segdata.adapters.tf", "segdata.adapters.torch"],
    ["segdata.console", "segdata.masks"],
    ["segdata.zips"],
    ["segdata.archives"],
    ["segdata.images", "segdata.rle", "segdata.overlays"],
    ["segdata.sources", "segdata.splits"],
    [f"segdata.sources.{name}" for name in ("packing", "turntable", "streets")],
    [f"segdata.sources.{name}" for name in ("damaged_folders", "damaged_images", "damaged_zips")],
    [f"segdata.sources.{name}" for name in (*NAMES, "damage_kinds")],
    ["segdata.sources.damage", "segdata.kaggle_client"],
    ["segdata.transfer", "segdata.evidence"],
    ["segdata.kaggle", "segdata.checks", "segdata.slices", "segdata.shards", "segdata.unfinished"],
    ["segdata.doctor", "segdata.builder"],
    ["segdata.datasets", *(f"segdata.datasets.{name}" for name in NAMES)],
    [f"segdata.datasets.{name}.{name}_dataset_builder" for name in NAMES],
    ["segdata.packing"],
    ["segdata.pipeline", "segdata.examples"],
    ["segdata.audit", "segdata.sheet", "segdata.raw"],
    ["segdata.audit_page"],
    ["segdata.cli"],
]
UNET_LAYERS = [
    ["unet"],
    ["unet.hardware", "unet.losses", "unet.preprocess", "unet.charts", "unet.events", "unet.saved"],
    ["unet.metrics", "unet.model"],
    ["unet.recipes"],
    ["unet.runs"],
    ["unet.checkpoints", "unet.evaluate", "unet.predict"],
    ["unet.train", "unet.pictures"],
    ["unet.report"],
    ["unet.cli"],
]
# What the trainer shares with the data.
SHARED = {f"segdata{name}" for name in ("", ".console", ".core.files", ".images")}
# A package registers its own builder; a builder is written against its own package's folder.
WITHIN = {("segdata.datasets", f"segdata.datasets.{name}.{name}_dataset_builder") for name in NAMES}


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {name_of(p): p for package in ("segdata", "unet") for p in (ROOT / package).rglob("*.py")}


def imports(path):
    """Every module that a file imports, also inside functions, but for type checkers alone."""
    found = set()
    nodes = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in FILES else node.module)
        nodes += ast.iter_child_nodes(node)
    return found


def level(name, layers):
    return next(i for i, layer in enumerate(layers) if name in layer)


@pytest.mark.parametrize("name", sorted(FILES))
def test_each_module_imports_only_what_lies_before_it(name):
    layers = LAYERS if name.startswith("segdata") else UNET_LAYERS
    for imported in imports(FILES[name]) & set(FILES):
        if (name, imported) in WITHIN or imported == name.split(".")[0]:
            continue
        if name == "unet.cli" and imported.startswith("segdata"):
            continue
        if name.startswith("unet.") and imported in SHARED:
            continue
        assert imported.split(".")[0] == name.split(".")[0], f"{name} must not know {imported}"
        assert level(imported, layers) < level(name, layers), f"{name} imports {imported}"


def test_unet_trains_without_tensorflow():
    for name, path in FILES.items():
        if name.startswith("unet"):
            assert not {i.split(".")[0] for i in imports(path)} & {"tensorflow", "jax"}, name


def test_the_core_knows_numpy_and_numba_alone():
    allowed = {"numba", "numpy", "segdata", *sys.stdlib_module_names}
    for name, path in FILES.items():
        if name.startswith("segdata.core"):
            assert {i.split(".")[0] for i in imports(path)} <= allowed, name
            inner = {i for i in imports(path) if i.startswith("segdata")}
            assert all(i.startswith("segdata.core") for i in inner), name


def test_an_adapter_imports_its_framework_and_no_other():
    frameworks = {"tensorflow": "tf", "jax": "jax", "torch": "torch", "keras": ""}
    for name, path in FILES.items():
        if name.startswith("segdata.adapters"):
            for top in {i.split(".")[0] for i in imports(path)} & set(frameworks):
                assert name == f"segdata.adapters.{frameworks[top]}", f"{name} imports {top}"


def test_what_reads_archives_does_so_without_tensorflow():
    sources = [name for name in FILES if name.startswith("segdata.sources")]
    light = "archives masks splits images rle overlays checks kaggle doctor transfer"
    for name in light.split():
        sources.append(f"segdata.{name}")
    for name in sources:
        assert not imports(FILES[name]) & {"tensorflow", "tensorflow_datasets", "keras"}, name


def test_only_declared_packages_are_imported():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = {
        requirement.split(">")[0].split("=")[0].replace("-", "_").lower()
        for requirement in project["dependencies"] + extras["jax"] + extras["torch"]
    }
    called = {"PIL": "pillow", "tensorboardX": "tensorboardx"}
    for path in FILES.values():
        for imported in imports(path):
            top = imported.split(".")[0]
            if top in sys.stdlib_module_names or top in ("segdata", "unet"):
                continue
            assert called.get(top, top) in declared, f"{path} imports {top}"
