import gc
import re
import shlex
import shutil
import subprocess
import sys

import pytest

import segdata
from segdata import cli, console
from segdata.sources import dsb2018
from segdata.testing import damage

COMMAND = [sys.executable, "-c", "import sys; from segdata import cli; sys.exit(cli.main())"]

NAMES = "carvana, cityscapes_pairs, dsb2018"


@pytest.mark.parametrize("arguments", [["--help"], ["draw", "--help"], ["fetch", "--help"]])
def test_help_answers_at_once(arguments):
    """0.15 s; importing TensorFlow alone would take 2.5, and Numba and SciPy half a second."""
    code = (
        "import atexit, sys; from segdata import cli; "
        "atexit.register(lambda: print({'tensorflow', 'numba', 'scipy'} & set(sys.modules))); "
        f"sys.exit(cli.main({arguments}))"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "usage: segdata" in result.stdout
    assert result.stdout.endswith("set()\n")


@pytest.mark.parametrize("command", ["doctor", "build folder", "audit", "show", "packed"])
def test_the_help_of_a_command_names_dataclasses_and_nothing_internal(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main([*command.split(), "--help"])
    assert exit_.value.code == 0
    shown = capsys.readouterr().out
    assert f"\n{command.split()[0].capitalize()}:\n  " in shown
    assert not any(internal in shown for internal in ("['", "<locals>", "(*", "Literal"))


def test_the_help_of_the_program_names_its_commands(capsys):
    assert cli.main(["--help"]) == 0
    assert {"fetch", "doctor", "draw", "build"} <= set(capsys.readouterr().out.split())


def test_draw_draws_what_its_function_draws(tmp_path, capsys):
    drawn = tmp_path / "new" / "drawn"
    arguments = ["--to", str(drawn), "--examples", "2", "--seed", "7", "--unlabelled", "1"]
    assert cli.main(["draw", "dsb2018", *arguments]) == 0
    assert "2 examples drawn" in capsys.readouterr().out
    dsb2018.draw_zips(tmp_path / "same", examples=2, seed=7, unlabelled=1)
    for name in ("stage1_train.zip", "stage1_test.zip"):
        assert (drawn / name).read_bytes() == (tmp_path / "same" / name).read_bytes()


def test_draw_draws_each_source_as_it_is_downloaded(tmp_path):
    expected = {
        "carvana": ["train_hq.zip", "train_masks.zip"],
        "cityscapes_pairs": ["cityscapes-image-pairs.zip"],
        "dsb2018": ["stage1_train.zip"],
    }
    for source, names in expected.items():
        assert cli.main(["draw", source, "--to", str(tmp_path / source), "--examples", "1"]) == 0
        assert sorted(path.name for path in (tmp_path / source).iterdir()) == names


def test_build_builds_from_a_drawing_with_the_flags_of_tfds(tmp_path, drawn_dsb2018, capsys):
    paths = ["--manual_dir", str(drawn_dsb2018), "--data_dir", str(tmp_path)]
    flags = ["--config", "instances", "--num_shards", "2"]
    assert cli.main(["build", "dsb2018", *paths, *flags]) == 0
    names = sorted(path.name for path in (tmp_path / "dsb2018" / "instances" / "1.0.0").iterdir())
    assert "dsb2018-train.tfrecord-00001-of-00002" in names
    assert "Shuffling" not in capsys.readouterr().out


def test_draw_lists_the_damage_that_it_can_do(capsys):
    for source in NAMES.split(", "):
        assert cli.main(["draw", source, "--damage", "list"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == list(damage.kinds(source))


def test_draw_damages_one_file_and_says_which(tmp_path, capsys):
    arguments = ["draw", "cityscapes_pairs", "--to", str(tmp_path), "--examples", "2"]
    assert cli.main([*arguments, "--damage", "cut"]) == 0
    assert "train/2.jpg is damaged: a photo ends in the middle." in capsys.readouterr().out


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The last line on stderr; TFDS's progress bars may come before it."""
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    return errors.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["paint"],
            "'paint' is not a command; the commands are fetch, doctor, draw, build, audit, show",
        ),
        (
            ["fetch", "cats", "--to", "x"],
            "there is no source 'cats'; fetch carvana, cityscapes_pairs",
        ),
        (["fetch", "carvana", "--config", "hq"], "there are default, lowres, with_test"),
        (["doctor", "cats"], "there is no source 'cats'"),
        (["draw", "cats", "--to", "x"], f"there is no source 'cats'; draw {NAMES}"),
        (
            ["draw", "cityscapes_pairs", "--to", "x", "--unlabelled", "1"],
            "every pair of cityscapes_pairs has its mask",
        ),
        (["draw", "dsb2018"], "--to: name the folder to draw into"),
        (
            ["draw", "dsb2018", "--to", "x", "--damage", "flood"],
            "damage 'flood': of dsb2018 there are cut, empty, ",
        ),
        (
            ["draw", "carvana", "--to", "x", "--damage", "odd-width"],
            "damage 'odd-width': of carvana there are cut, empty, ",
        ),
        (["build", "cats"], f"there is no dataset cats; segdata has {NAMES}"),
        (["build"], f"name a dataset to build: {NAMES}"),
        (["build", "dsb2018", "--num-processes", "2"], "--num_processes is not for dsb2018"),
        (["build", "dsb2018", "--max_shard_size_mb", "-1"], "--num_shards says how many"),
        (["build", "dsb2018", "--download_only"], "`segdata fetch NAME` downloads"),
        (["build", "dsb2018", "--num_shards", "0"], "--num_shards 0: a whole number from 1"),
        (["audit", "dsb2018", "--html", "-"], "--html -: the page goes to a file; name it"),
        (["audit", "dsb2018", "--json", "x", "--html", "./x"], "and --html ./x are one file"),
        (["build", "dsb2018", "--imports", "no.such"], "No module named 'no'"),
        (
            ["show", "dsb2018", "--to", "x.png", "--augment", "--border", "constant"],
            "do nothing alone",
        ),
        (["show", "dsb2018", "--to", "x.png", "--cutout_range", "0.1", "0.2"], "do nothing alone"),
        (
            ["show", "dsb2018", "--to", "x.png", "--augment", "--foreground", "0.7"],
            "--foreground is for crops, and a sheet shows whole images",
        ),
        (["show", "--replay", "run", "--to", "x.png", "--count", "3"], "leave out all other flags"),
    ],
)
def test_a_mistake_is_one_line(capsys, arguments, message):
    assert cli.main(arguments) == 2
    line = one_line(capsys)
    assert line.startswith("segdata")
    assert message in line


def test_a_flag_that_is_none_is_named(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["draw", "dsb2018", "--to", "x", "--exampels", "3"])
    assert "no --exampels; did you mean --examples? `segdata" in one_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["packed", "--prune", "all", "--data_dir"], "--data_dir: its value is missing"),
        (["show", "dsb2018", "--data_dir", "--to", "x.png"], "--data_dir: its value is missing"),
        (["draw", "dsb2018", "--to", "x", "--example", "3"], "no --example"),
        (["draw", "dsb2018", "--to", "x", "--examples", "many"], "invalid int value"),
        (["fetch"], "required"),
    ],
)
def test_flags_are_read_by_their_whole_names_with_a_value_each(capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    assert message in one_line(capsys)


def test_a_switch_takes_no_other_word(capsys, tmp_path):
    path = str(tmp_path / "x.png")
    for switch in (["--augment"], ["--augment", "true"], ["--augment=false"]):
        asked = console.parse(cli.Show, [*switch, "dsb2018", "--to", path], prog="show")
        assert (asked.name, asked.augment) == ("dsb2018", switch != ["--augment=false"])


def test_a_printed_command_can_be_typed_as_it_is(no_credentials, capsys):
    assert cli.main(["draw", "dsb2018", "--to=~/a folder; true", "--examples", "1"]) == 0
    (command,) = re.findall("`(.*)`", capsys.readouterr().out)
    folder = str(no_credentials / "a folder; true")
    assert shlex.split(command) == ["segdata", "build", "dsb2018", "--manual_dir", folder]
    assert (no_credentials / "a folder; true" / "stage1_train.zip").exists()


def test_commands_that_mend_something_quote_their_paths(tmp_path, monkeypatch, capsys):
    folder = str(tmp_path / "a folder; true")
    assert cli.main(["audit", "dsb2018", "--manual_dir", folder]) == 2
    (command,) = re.findall("`(.*)`", capsys.readouterr().err)
    assert shlex.split(command) == ["segdata", "draw", "dsb2018", "--to", folder]
    monkeypatch.setattr("os.access", lambda *_: False)
    (tmp_path / "a folder; true").mkdir()
    assert cli.main(["doctor", "dsb2018", "--to", folder]) == 1
    commands = [line for line in capsys.readouterr().out.splitlines() if "chmod" in line]
    assert [shlex.split(command) for command in commands] == [["chmod", "u+w", folder]]


@pytest.mark.parametrize(
    ("flag", "value"),
    [("num_shards", "-2"), ("max_examples_per_split", "-2"), ("max_examples_per_split", "0")],
)
def test_numbers_that_are_none_of_a_build_are_named(tmp_path, capsys, drawn_dsb2018, flag, value):
    paths = ["--manual_dir", str(drawn_dsb2018), "--data_dir", str(tmp_path)]
    assert cli.main(["build", "dsb2018", *paths, f"--{flag}", value]) == 2
    assert f"{flag}={value}" in one_line(capsys)
    assert not list(tmp_path.glob("dsb2018/default/*/*"))


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("fault", ["no source", "bad number", "in use"])
def test_a_dataset_that_cannot_be_built_anew_stays(
    tmp_path, capsys, drawn_dsb2018, built_dsb2018, fault
):
    shutil.copytree(built_dsb2018, tmp_path / "data")
    packed = segdata.pack("dsb2018", "train", size=(8, 8), data_dir=tmp_path / "data")
    if fault != "in use":
        del packed
        gc.collect()
    before = contents(tmp_path / "data")
    manual = tmp_path / "none" if fault == "no source" else drawn_dsb2018
    paths = ["--manual_dir", str(manual), "--data_dir", str(tmp_path / "data")]
    more = ["--num_shards", "-3"] if fault == "bad number" else []
    command = ["build", "dsb2018", "--config", "default", *paths, "--overwrite", *more]
    assert cli.main(command) == 2
    line = one_line(capsys)
    assert fault != "in use" or "is in use; wait" in line
    assert contents(tmp_path / "data") == before


def test_overwriting_builds_anew(tmp_path, drawn_dsb2018):
    data = tmp_path / "data"
    paths = ["--manual_dir", str(drawn_dsb2018), "--data_dir", str(data), "--config", "default"]
    assert cli.main(["build", "dsb2018", *paths, "--max_examples_per_split", "3"]) == 0
    (folder,) = data.glob("dsb2018/default/*")
    (folder / "mine").write_text("")
    assert cli.main(["build", "dsb2018", *paths]) == 0  # which reuses it
    assert (folder / "mine").exists()
    assert cli.main(["build", "dsb2018", *paths, "--overwrite", "--skip_damaged"]) == 0
    assert (
        cli.main(["build", "dsb2018", *paths[:2], "--data_dir", str(tmp_path / "b"), *paths[4:]])
        == 0
    )
    (fresh,) = (tmp_path / "b").glob("dsb2018/default/*")
    assert {path.name: data for path, data in contents(folder).items()} == {
        path.name: data for path, data in contents(fresh).items()
    }
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]


def test_what_is_built_anew_has_the_format_that_was_asked_for(tmp_path, drawn_dsb2018):
    paths = ["--manual_dir", str(drawn_dsb2018), "--data_dir", str(tmp_path)]
    more = ["--file_format", "array_record", "--max_examples_per_split", "1"]
    for _ in range(2):
        command = ["build", "dsb2018", *paths, "--config", "default", "--overwrite", *more]
        assert cli.main(command) == 0
        files = [path.name for path in tmp_path.rglob("*-of-*")]
        assert files
        assert all(".array_record-" in name for name in files)


def test_drawing_over_a_source_is_refused(tmp_path, capsys, drawn_dsb2018):
    assert cli.main(["draw", "dsb2018", "--to", str(drawn_dsb2018)]) == 2
    assert "stage1_train.zip exists" in one_line(capsys)


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (None, "Accept the rules at https://www.kaggle.com/c/data-science-bowl-2018/rules"),
        (b"PK\3\4 and then nothing", "begins like a zip and has no readable end"),
        (b"<!doctype html><title>Sign in</title>", "it is a web page, not a zip"),
    ],
)
def test_a_missing_or_broken_archive_is_one_line(tmp_path, capsys, archive, message):
    if archive:
        (tmp_path / "stage1_train.zip").write_bytes(archive)
    paths = ["--manual_dir", str(tmp_path), "--data_dir", str(tmp_path / "data")]
    assert cli.main(["build", "dsb2018", *paths]) == 2
    assert message in one_line(capsys)


def test_a_dataset_that_must_not_exist_and_does_is_one_line(capsys, drawn_dsb2018, built_dsb2018):
    paths = ["--manual_dir", str(drawn_dsb2018), "--data_dir", str(built_dsb2018)]
    assert cli.main(["build", "dsb2018", *paths, "--fail_if_exists"]) == 2
    assert "already exists" in one_line(capsys)
