import ast
import importlib
import pathlib
import pydoc
import subprocess
import sys
import tomllib

import pytest

import segdata
from segdata.sources.folder.settings import Folder

ROOT = pathlib.Path(__file__).parent.parent
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("segdata", "unet")
    for path in sorted((ROOT / package).rglob("*.py"))
]


@pytest.mark.parametrize("name", segdata.__all__)
def test_public_names_are_there_and_documented(name):
    assert getattr(segdata, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="train_batchs"):
        _ = segdata.train_batchs


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports_and_says_what_it_is(name):
    assert importlib.import_module(name).__doc__


def test_the_version_is_said_once_and_alike():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == segdata.__version__


@pytest.mark.parametrize(
    "statement",
    [
        "import segdata",
        "import unet",
        "import segdata.cli; segdata.cli.main(['--help'])",
        "import unet.cli; unet.cli.main(['--help'])",
    ],
)
def test_nothing_heavy_is_imported_to_say_hello(statement):
    heavy = ["tensorflow", "tensorflow_datasets", "keras", "kaggle", "pandas", "scipy", "jax"]
    check = f"import sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\n{check}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_no_module_swallows_errors():
    for path in [*ROOT.glob("segdata/**/*.py"), *ROOT.glob("unet/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path}:{node.lineno}: a bare except"
                assert not (len(node.body) == 1 and isinstance(node.body[0], ast.Pass)), (
                    f"{path}:{node.lineno}: an error is passed over"
                )


@pytest.mark.parametrize("kind", [segdata.Augment, segdata.Named, Folder])
def test_help_explains_every_setting(kind):
    text = pydoc.render_doc(kind, renderer=pydoc.plaintext)
    for name in kind.__annotations__:
        assert f" {name}: " in text.split("Attributes:")[1].partition("Method")[0], name
