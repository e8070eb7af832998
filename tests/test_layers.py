"""The order of imports: CONTRIBUTING.md holds the table of layers; these hold the code to it."""

import ast
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent

TABLE = (ROOT / "CONTRIBUTING.md").read_text().split("| modules |")[1].split("\n\n")[0]
# From the lowest up: each row of the table names modules, those of segdata without its name.
LAYERS = [
    [name if name.startswith("unet") else f"segdata.{name}" for name in re.findall(r"`(.+?)`", row)]
    for row in re.findall(r"^\| (`.+?) \|", TABLE, re.MULTILINE)
]
KNOWING = ("unet.cli", "unet.data")  # where the data come from
# What the rest of the trainer shares with the data.
SHARED = {
    *("segdata", "segdata.console", "segdata.core", "segdata.core.augment", "segdata.core.tiles"),
    *(f"segdata.core.system.{name}" for name in ("compiling", "files")),
    *(f"segdata.archives.{name}" for name in ("images", "intensity", "large", "resizing")),
    *(f"segdata.archives.{name}" for name in ("rle", "scientific", "trees")),
    *(f"segdata.inspection.{name}" for name in ("charts", "overlays", "page")),
}


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


def is_code(path):
    """Whether there is more than a docstring."""
    return len(ast.parse(path.read_text()).body) > 1


def level(name):
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


def test_the_table_of_layers_names_each_module_once():
    named = [name for layer in LAYERS for name in layer]
    assert sorted(named) == sorted(
        name for name, path in FILES.items() if is_code(path) and name not in ("segdata", "unet")
    )


@pytest.mark.parametrize("name", sorted(name for name in FILES if name != "segdata"))
def test_each_module_imports_only_what_lies_before_it(name):
    for imported in imports(FILES[name]) & set(FILES):
        if imported == "segdata" or not is_code(FILES[imported]):
            continue
        assert level(imported) < level(name), f"{name} imports {imported}"
        if (
            name.startswith("unet.")
            and name not in ("unet.cli", "unet.data", "unet.flags", "unet.planning")
            and imported.startswith("segdata")
        ):
            assert imported in SHARED, f"{name} must not know {imported}"


def test_unet_trains_without_tensorflow():
    # These import it where it is in use.
    either = {"export", "parallel", "steps", "tensorflow_graph", "waiting"}
    for name, path in FILES.items():
        if name.startswith("unet") and name.removeprefix("unet.") not in either:
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
    light = tuple(f"segdata.{package}." for package in ("archives", "testing", "sources", "kaggle"))
    for name in [name for name in FILES if name.startswith(light)]:
        assert not imports(FILES[name]) & {"tensorflow", "tensorflow_datasets", "keras"}, name


def test_only_declared_packages_are_imported():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    optional = [*extras["export"], *extras["jax"], *extras["torch"]]
    declared = {
        requirement.split(">")[0].split("=")[0].replace("-", "_").lower()
        for requirement in [*project["dependencies"], *optional]
    }
    called = {"PIL": "pillow", "tensorboardX": "tensorboardx", "yaml": "pyyaml"}
    for path in FILES.values():
        for imported in imports(path):
            top = imported.split(".")[0]
            if top in sys.stdlib_module_names or top in ("segdata", "unet"):
                continue
            assert called.get(top, top) in declared, f"{path} imports {top}"
