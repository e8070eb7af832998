"""A source that another package adds: the page about it, done as it says."""

import importlib
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from segdata import cli, sources

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "adding-a-dataset.md").read_text()
CODE = dict(re.findall(r"`(disks/\w+\.py)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL))
(TOML,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"^segdata (.*)$", PAGE, re.MULTILINE)
USE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[-1]

RUN = """
import shlex, sys
from segdata import cli
for command in {commands}:
    assert "tensorflow" not in sys.modules or not command.startswith(("draw", "doctor")), command
    assert cli.main(shlex.split(command)) == 0, command
"""


@pytest.fixture
def package(tmp_path) -> pathlib.Path:
    """A folder with the package of the page, as if installed."""
    site = tmp_path / "site"
    (site / "disks").mkdir(parents=True)
    for name, code in CODE.items():
        (site / name).write_text(code)
    (site / "disks" / "__init__.py").write_text("")
    (site / "disks" / "README.md").write_text("Disks.")
    (site / "disks" / "CITATIONS.bib").write_text("@misc{disks, title = {Disks}}")
    (site / "disks" / "TAGS.txt").write_text("content.data-type.image # Contains image data.")
    info = site / "disks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: disks\nVersion: 1.0\n")
    points = TOML.replace('project.entry-points."segdata.sources"', "segdata.sources")
    (info / "entry_points.txt").write_text(points.replace('"', ""))
    return site


def run(package: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    where = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=package.parent,
        env=os.environ | {"PYTHONPATH": where},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_source_is_sixty_lines_in_two_modules():
    assert [*CODE] == ["disks/source.py", "disks/disks_dataset_builder.py"]
    assert sum(code.count("\n") for code in CODE.values()) <= 60


@pytest.mark.heavy
def test_a_source_of_another_package_does_what_ours_do(package):
    assert [command.split()[0] for command in COMMANDS] == [
        *("draw", "doctor", "audit", "build", "audit", "show")
    ]
    done = run(package, "-c", RUN.format(commands=COMMANDS) + USE + "assert image.shape[0] == 8")
    assert done.returncode == 0, done.stderr
    assert "40 examples drawn" in done.stdout
    assert "ok  disks.zip" in done.stdout
    assert "BAD" not in done.stdout
    names = {path.name for path in (package.parent / "data" / "disks" / "default").rglob("*")}
    assert {"disks-train.tfrecord-00000-of-00001", "packed", "dataset_info.json"} <= names
    assert (package.parent / "sheet.png").stat().st_size > 1000
    by_folder = ["build", str(package / "disks"), "--manual_dir", "raw", "--data_dir", "again"]
    done = run(package, "-m", "tensorflow_datasets.scripts.cli.main", *by_folder)
    assert done.returncode == 0, done.stderr
    for first in (package.parent / "data").rglob("*.tfrecord-*"):
        second = package.parent / "again" / first.relative_to(package.parent / "data")
        assert first.read_bytes() == second.read_bytes()


def test_what_is_not_on_kaggle_says_where_it_is_from(package):
    for command, expected in {
        "fetch disks --to raw": "disks is not on Kaggle; it is from https://example.com/disks.",
        "doctor disks --to raw": "Put it there; it is from https://example.com/disks.",
        "audit disks --manual_dir raw": "https://example.com/disks has the real one.",
        "draw disks --to raw --damage cut": "damage 'cut': of disks there are none.",
        "draw disks --to raw --unlabelled 1": "unlabelled=1: every image has its mask.",
        "draw dots --to raw": "draw carvana, cityscapes_pairs, dsb2018, disks.",
    }.items():
        script = "import sys; from segdata import cli; sys.exit(cli.main())"
        done = run(package, "-c", script, *shlex.split(command))
        assert done.returncode == (1 if command.startswith("doctor") else 2)
        assert expected in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ("carvana = disks.source:SOURCE", "both registered as the source carvana"),
        ("disks = disks.nothing:SOURCE", "the source disks should be disks.nothing:SOURCE: No mod"),
        ("disks = disks.source:NOTHING", "the source disks should be disks.source:NOTHING: module"),
        ("disks = disks.source:np", "is registered as the source disks and is none of that"),
        ("dots = disks.source:SOURCE", "is registered as the source dots and is none of that"),
    ],
)
def test_a_wrong_entry_point_is_one_line(package, monkeypatch, point, message):
    (package / "disks-1.0.dist-info" / "entry_points.txt").write_text(f"[segdata.sources]\n{point}")
    monkeypatch.syspath_prepend(package)
    with pytest.raises(ValueError, match=re.escape(message)):
        sources.named(point.partition(" ")[0])


BROKEN = {
    "raises": ("1 / 0", "the source odd, odd:SOURCE, cannot be imported: ZeroDivisionError"),
    "ends": ("raise SystemExit(0)", "the source odd, odd:SOURCE, cannot be imported: SystemExit"),
    "value": ("raise ValueError('no')", "odd, odd:SOURCE, cannot be imported: ValueError: no"),
    "syntax": ("def (", "the source odd, odd:SOURCE, cannot be imported: SyntaxError"),
    "missing": ("import not_installed_here", "odd needs the Python package not_installed_here"),
    "configs": (
        "from disks.source import *\nimport dataclasses\n"
        "SOURCE = dataclasses.replace(SOURCE, name='odd', configs=())",
        "configs of odd: there is none",
    ),
    "config": (
        "from disks.source import *\nimport dataclasses\n"
        "SOURCE = dataclasses.replace(SOURCE, name='odd', configs=('default',))",
        "configs of odd: 'default' is no Config",
    ),
    "files": (
        "from disks.source import *\n"
        "sources.Config('default', 'All.', ('ground', 'disk'), ('disks.zip',))",
        "files of the config default: 'disks.zip' is no File",
    ),
    "builder": (
        "from disks.source import *\nimport dataclasses\n"
        "SOURCE = dataclasses.replace(SOURCE, name='odd', builder=None)",
        "builder=None of odd is no name of a module",
    ),
}
LIES = {
    "list raises": ("parts=lambda *_: 1 / 0", "cannot list its archives: ZeroDivisionError"),
    "list none": ("parts=lambda *_: None", "cannot list its archives: TypeError"),
    "no part": ("parts=lambda *_: [1]", "cannot list its archives: TypeError: 1 is no Part"),
    "split": ("parts=changed(split='weird/..')", "split='weird/..' is no name of a split"),
    "entries": ("parts=changed(entries=[1])", "entries of disks: 1 has no text 'id'"),
    "no entries": ("parts=changed(entries=None)", "cannot list its archives: TypeError"),
    "faults": ("parts=changed(faults=['x'])", "faults of disks: ['x'] is no mapping"),
    "group": (
        "parts=changed(entries=[sources.Entry('p0-0', 0, 'p0-0.png')])",
        "entries of disks: Entry(id='p0-0', group=0, image='p0-0.png') has no text 'group'",
    ),
    "read raises": ("parts=changed(read=lambda e: {}['k'])", "odd cannot read p0-0: KeyError"),
    "read none": ("parts=changed(read=lambda e: None)", "p0-0: TypeError: None is no Example"),
    "mask": (
        "parts=changed(read=lambda e: sources.Example("
        "id='i', group='g', image=b'', mask=np.zeros((2, 2))))",
        "mask of i: float64 [2, 2], where it is uint8 [H, W]",
    ),
}


def add_odd(package, code):
    (package / "odd.py").write_text(code)
    points = package / "disks-1.0.dist-info" / "entry_points.txt"
    points.write_text(points.read_text() + "odd = odd:SOURCE\n")


@pytest.mark.parametrize(("code", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_source_breaks_no_other(package, monkeypatch, code, message):
    add_odd(package, code)
    monkeypatch.syspath_prepend(package)
    monkeypatch.delitem(sys.modules, "odd", raising=False)
    with pytest.raises(ValueError, match=re.escape(message)):
        sources.named("odd")
    script = (
        "from segdata import cli, datasets, packing\n"
        "print(cli.main(['audit', 'disks', '--manual_dir', 'raw']))\n"
        "print(cli.main(['audit', 'odd', '--manual_dir', 'raw']))\n"
        "datasets.register('disks')\n"
        "packing.built('disks', data_dir='none')\n"
    )
    done = run(package, "-c", script)
    assert done.stdout == "2\n2\n"
    assert "raw: there is no archive of disks in it" in done.stderr
    assert message in done.stderr
    assert "is not built in" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(("change", "message"), LIES.values(), ids=LIES)
def test_a_source_that_fails_is_named(package, monkeypatch, tmp_path, capsys, change, message):
    add_odd(
        package,
        "import dataclasses\nfrom disks.source import *\n"
        "def changed(**c):\n"
        "    return lambda *a: (dataclasses.replace(p, **c) for p in parts(*a))\n"
        f"SOURCE = dataclasses.replace(SOURCE, name='odd', {change})\n",
    )
    monkeypatch.syspath_prepend(package)
    for name in ("odd", "disks", "disks.source"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    draw = sources.named("disks").draw
    assert draw
    draw(tmp_path / "raw", examples=2, seed=0)
    code = cli.main(["audit", "odd", "--manual_dir", str(tmp_path / "raw")])
    shown = "".join(capsys.readouterr())
    assert code in (1, 2)
    assert "the source odd cannot" in shown
    assert message in shown


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("draw=lambda *a, **k: 1 / 0", "the source odd cannot draw: ZeroDivisionError: division"),
        ("draw=lambda folder: None", "the source odd cannot draw: TypeError: "),
        ("builder='odd_dataset_builder'", "'odd_dataset_builder', is in no package"),
        ("builder='disks.source'", "odd: disks.source has no class `Builder` whose SOURCE it is."),
        (
            "builder='disks.disks_dataset_builder'",
            "odd: disks.disks_dataset_builder has no class `Builder` whose SOURCE it is.",
        ),
    ],
)
def test_what_a_source_lacks_is_one_line(package, change, message):
    add_odd(
        package,
        "import dataclasses\nfrom disks.source import *\n"
        f"SOURCE = dataclasses.replace(SOURCE, name='odd', {change})\n",
    )
    command = ["draw", "odd", "--to", "raw", "--examples", "2"]
    if change.startswith("builder"):
        (package.parent / "raw").mkdir()
        command = ["build", "odd", "--manual_dir", "raw", "--data_dir", "data"]
    done = run(package, "-m", "segdata", *command)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]


def test_a_package_that_is_missing_is_named(package, monkeypatch, capsys):
    (package / "disks" / "source.py").write_text("import not_installed_here")
    monkeypatch.syspath_prepend(package)
    for name in ("disks", "disks.source"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ValueError, match="disks needs the Python package not_installed_here"):
        sources.named("disks")
    monkeypatch.setattr(cli, "_packed", lambda _: importlib.import_module("not_installed_here"))
    assert cli.main(["packed"]) == 2
    assert "the Python package not_installed_here is not installed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("classes", "colours", "message"),
    [
        ((), {}, "classes=(): 1 to 255 names"),
        (("a", "a"), {}, "classes=('a', 'a'): 1 to 255 names, each once"),
        (("a", " ", "b"), {}, "each once and on one line"),  # of which TFDS would read two
        (("a", "b\nc"), {}, "each once and on one line"),
        (("a", "a "), {}, "each once"),
        (tuple(map(str, range(256))), {}, "1 to 255 names"),
        (("a", "b"), {"c": (0, 0, 0)}, "colours of c: there is no such class"),
    ],
)
def test_classes_and_colours_that_cannot_be_are_refused(classes, colours, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        sources.Config("default", "All.", classes, (), colours)
