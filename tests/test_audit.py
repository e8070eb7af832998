import dataclasses
import functools
import io
import json
import os
import pathlib
import re
import resource
import shlex
import shutil
import subprocess
import sys
import weakref
import zipfile
from html import parser

import numpy as np
import pytest
import reading
from PIL import Image

from segdata import archives, cli
from segdata.archives import rle, trees
from segdata.inspection import audit, audit_page, examples, raw
from segdata.inspection.examples import Collection, Pending
from segdata.sources import Example, dsb2018


def encoded(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def pictured(number: int, *, split: str = "train", **changes) -> Pending:
    """Some noise with a square in it."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 256, (24, 24, 3), np.uint8)
    mask = np.zeros((24, 24), np.uint8)
    mask[4:12, 5:15] = 1
    fields = {"id": f"e{number}", "group": f"e{number}", "image": encoded(pixels), "mask": mask}
    example = Example(**(fields | changes))
    return Pending(split=split, id=example.id, read=lambda: example)


def broken(number: int, error: Exception) -> Pending:
    def read() -> Example:
        raise error

    return Pending(split="train", id=f"e{number}", read=read)


def collection(*items: Pending, **more) -> Collection:
    return Collection(
        name="toy",
        place="memory",
        classes=("background", "square"),
        count=len(items),
        stream=lambda: iter(items),
        **more,
    )


SOUND = [pictured(0), pictured(1), pictured(2), pictured(3, split="validation")]


def checks_of(report: audit.Report) -> dict[str, str]:
    return {finding.check: finding.severity for finding in report.findings}


def test_a_sound_collection_passes():
    report = audit.audit(collection(*SOUND))
    assert report.sound
    assert checks_of(report) == {}
    assert audit.verdict(report).startswith("4 examples: no findings; fit for training")
    assert audit.verdict(audit.audit(collection(pictured(0)))).startswith("1 example: ")


def test_the_figures_are_those_of_the_pixels():
    mask = np.full((24, 24), 255, np.uint8)
    mask[:12], mask[:3] = 0, 1
    instances = np.zeros((24, 24), np.uint16)
    instances[0, :3], instances[1, :] = 1, 3  # number 2 has no pixel; 3 pixels are a speck
    odd = pictured(4, mask=mask, instances=instances, overlap=5)
    report = audit.audit(collection(*SOUND[:2], odd))
    figures = audit.statistics(report, "train")
    square, rest = 80, 24 * 24 - 80
    assert figures["pixels"] == {"background": 2 * rest + 216, "square": 2 * square + 72}
    assert figures["not_labelled_pixels"] == 288
    assert (figures["examples"], figures["objects"], figures["overlapping"]) == (3, 2, 1)
    assert figures["sizes"] == {"24×24": 3}
    assert figures["modes"] == {"PNG RGB": 3}
    assert report.summaries[-1].specks == 1


@pytest.mark.parametrize(
    ("item", "check"),
    [
        (broken(9, OSError("cut short")), "damaged"),
        (broken(9, SyntaxError("broken PNG file")), "damaged"),
        (pictured(9, image=b"no image"), "damaged"),
        (pictured(9, image=encoded(np.ones((24, 25, 3), np.uint8))), "size mismatch"),
        (pictured(9, mask=np.full((24, 24), 2, np.uint8)), "values outside the classes"),
        (pictured(9, group="e3"), "groups across splits"),
        (pictured(3, id="e9", group="e9"), "exact duplicates across splits"),
        (pictured(0, id="e9", mask=np.eye(24, dtype=np.uint8)), "contradicting masks"),
    ],
)
def test_what_training_would_suffer_from_is_an_error(item, check):
    report = audit.audit(collection(*SOUND, item))
    assert checks_of(report)[check] == "error"
    assert not report.sound


def test_nothing_to_audit_is_refused():
    with pytest.raises(ValueError, match="toy in memory holds no examples"):
        audit.audit(collection())


def test_a_resized_copy_in_another_split_is_a_warning(drawn_dsb2018):
    tree = trees.open(drawn_dsb2018 / "stage1_train.zip")
    original = dsb2018.read_example(tree, dsb2018.survey(tree)[0][0])
    with Image.open(io.BytesIO(original.image)) as image:
        half = image.resize((image.width // 2, image.height // 2))
    mask = original.mask[::2, ::2][: half.height, : half.width]
    copy = pictured(9, split="validation", image=encoded(np.asarray(half)), mask=mask)
    first = Pending(split="train", id=original.id, read=lambda: original)
    report = audit.audit(collection(first, copy))
    assert checks_of(report) == {"near duplicates across splits": "warning"}


def test_few_examples_are_held_at_once():
    held, most = 0, 0

    def dropped():
        nonlocal held
        held -= 1

    def read(number: int) -> Example:
        nonlocal held, most
        # Not the example itself: its image is bytes, which may live on in a cache.
        example = pictured(number).read()
        example = dataclasses.replace(example, mask=example.mask.copy())
        weakref.finalize(example.mask, dropped)
        held += 1
        most = max(most, held)
        return example

    items = [
        Pending(split="train", id=f"e{n}", read=functools.partial(read, n)) for n in range(200)
    ]
    assert len(audit.audit(collection(*items)).summaries) == 200
    assert most <= 2 * len(os.sched_getaffinity(0))


def table_of(*rows: rle.Encoded):
    return (lambda: iter(rows),)


def told(mask: np.ndarray, key: str, order: rle.Order = "columns") -> rle.Encoded:
    return rle.Encoded(
        id=key, runs=(rle.encode(mask, order=order),), order="columns", shape=None, where="line 2"
    )


def test_run_lengths_that_say_what_the_mask_says_are_no_finding():
    rows = [told(item.read().mask, item.id) for item in SOUND]
    missing = told(np.ones((3, 3)), "not in the dataset")
    assert audit.audit(collection(*SOUND, tables=table_of(*rows, missing))).findings == ()


def test_run_lengths_in_the_wrong_order_are_an_error():
    rows = [told(item.read().mask, item.id, "rows") for item in SOUND]
    report = audit.audit(collection(*SOUND, tables=table_of(*rows)))
    assert checks_of(report) == {"masks and run lengths": "error"}
    assert len(report.findings[0].cases) == 4


def test_a_mended_mask_is_a_warning_with_its_pixels():
    mask = SOUND[0].read().mask.copy()
    mask[4, 5] = 0
    report = audit.audit(collection(*SOUND, tables=table_of(told(mask, "e0"))))
    (finding,) = report.findings
    assert finding.severity == "warning"
    assert finding.cases[0].detail == "1 px differ from line 2 (IoU 0.9875)"


def test_a_table_that_cannot_be_read_is_a_finding():
    def damaged():
        yield told(SOUND[0].read().mask, "e0")
        raise ValueError("table, line 3: cut")

    report = audit.audit(collection(*SOUND, tables=(damaged,)))
    assert checks_of(report) == {"masks and run lengths": "error"}
    assert "line 3: cut" in audit.table(report)


@pytest.fixture
def damaged_source(drawn_dsb2018: pathlib.Path, tmp_path: pathlib.Path) -> dict[str, str]:
    """A folder of drawn nuclei with a fault of each kind: fault to id."""
    with zipfile.ZipFile(drawn_dsb2018 / "stage1_train.zip") as archive:
        archive.extractall(tmp_path / "stage1_train")
    with zipfile.ZipFile(drawn_dsb2018 / "stage1_test.zip") as archive:
        archive.extractall(tmp_path / "stage1_test")
    train = tmp_path / "stage1_train"
    cut, bare, two, odd, twin, *_ = sorted(path.name for path in train.iterdir())
    image = train / cut / "images" / f"{cut}.png"
    image.write_bytes(image.read_bytes()[:400])
    shutil.rmtree(train / bare / "masks")
    shutil.copy(train / two / "images" / f"{two}.png", train / two / "images" / "second.png")
    mask = next((train / odd / "masks").iterdir())
    Image.new("L", (7, 5), 255).save(mask)
    leaked = tmp_path / "stage1_test" / "leaked" / "images"
    leaked.mkdir(parents=True)
    shutil.copy(train / twin / "images" / f"{twin}.png", leaked / "leaked.png")
    faults = {"cut": cut, "bare": bare, "two": two, "odd": odd, "twin": twin}
    return faults | {"folder": str(tmp_path)}


def test_a_damaged_archive_is_audited_to_its_end(damaged_source):
    found = raw.collection("dsb2018", manual_dir=damaged_source["folder"])
    report = audit.audit(found)
    assert len(report.summaries) == 24 - 4 + 3
    cases = {
        finding.check: {key for case in finding.cases for _, key in case.members}
        for finding in report.findings
        if finding.severity == "error"
    }
    assert cases == {
        "damaged": {damaged_source[fault] for fault in ("cut", "bare", "two")},
        "size mismatch": {damaged_source["odd"]},
        "exact duplicates across splits": {damaged_source["twin"], "leaked"},
    }
    assert audit.statistics(report, "stage1_train")["modes"] == {"PNG RGBA": 20}


def test_tables_beside_a_raw_archive_are_compared(drawn_dsb2018, tmp_path):
    shutil.copy(drawn_dsb2018 / "stage1_train.zip", tmp_path)
    tree = trees.open(tmp_path / "stage1_train.zip")
    first, second, *_ = reading.nuclei(tree)
    lines = ["ImageId,EncodedPixels"]
    assert first.instances is not None
    for number in range(1, int(first.instances.max()) + 1):
        lines.append(f"{first.id},{rle.encode(first.instances == number, order='columns')}")
    lines.append(f"{second.id},{rle.encode(second.mask.T, order='rows')}")  # the same pixels
    (tmp_path / "stage1_train_labels.csv").write_text("\n".join(lines))
    assert checks_of(audit.audit(raw.collection("dsb2018", manual_dir=tmp_path))) == {}
    lines[-1] = f"{second.id},1 5"
    (tmp_path / "stage1_train_labels.csv").write_text("\n".join(lines))
    report = audit.audit(raw.collection("dsb2018", manual_dir=tmp_path))
    assert checks_of(report) == {"masks and run lengths": "error"}
    assert report.findings[0].cases[0].members == (("stage1_train", second.id),)


def test_a_source_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(archives.ArchiveError, match="there is no archive of dsb2018 in it"):
        raw.collection("dsb2018", manual_dir=tmp_path)
    with pytest.raises(ValueError, match="there is no raw source 'cats'; there are carvana"):
        raw.collection("cats", manual_dir=tmp_path)


def test_a_built_dataset_is_what_its_archive_is(built_dsb2018, drawn_dsb2018):
    built = audit.audit(examples.built("dsb2018/instances", data_dir=built_dsb2018))
    unbuilt = audit.audit(raw.collection("dsb2018", manual_dir=drawn_dsb2018))
    assert built.splits == ("train", "validation", "test")

    def kept(report):
        return {
            item.id: (item.pixels, item.mask, item.perceptual_hash, item.objects, item.overlap)
            for item in report.summaries
            if not item.unlabelled
        }

    assert kept(built) == kept(unbuilt)
    assert len(kept(built)) == 24
    assert built.sound


def test_a_damaged_file_of_a_built_dataset_is_a_finding(built_dsb2018, tmp_path):
    shutil.copytree(built_dsb2018, tmp_path / "data")
    (file,) = (tmp_path / "data" / "dsb2018" / "default").rglob("*-train.tfrecord-*")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    report = audit.audit(examples.built("dsb2018", data_dir=tmp_path / "data"))
    assert checks_of(report)["damaged"] == "error"
    assert "dsb2018-train.tfrecord-00000-of-00001" in report.findings[0].cases[0].detail
    assert len(report.findings[0].cases) == 1  # those behind it are read
    assert {item.split for item in report.summaries} == {"train", "validation", "test"}


class _Outline(parser.HTMLParser):
    """What a page holds."""

    def __init__(self, text: str):
        super().__init__()
        self.images: list[tuple[str, str]] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "img":
            self.images.append((values["alt"] or "", values["src"] or ""))
        self.links += [value for name, value in attrs if name in ("src", "href") and value]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag == "line"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_shows_the_worst_and_fetches_nothing(damaged_source):
    found = raw.collection("dsb2018", manual_dir=damaged_source["folder"])
    page = audit_page.document(audit.audit(found), found)
    outline = _Outline(page)
    assert outline.open == []
    names = [name for name, _ in outline.images]
    assert names[:2] == [f"stage1_train/{damaged_source['twin']}", "stage1_test/leaked"]
    assert all(link.startswith("data:image/jpeg;base64,") for link in outline.links)
    assert "prefers-color-scheme: dark" in page
    assert damaged_source["cut"] in page
    assert not re.search(r"\{\w*\}", page.split("</style>")[1])


def test_what_names_contain_cannot_break_the_page():
    odd = pictured(0, id="<b>&\"'", group="g")
    twin = pictured(0, id="\u00e9\u732b", group="h", split="validation")
    found = collection(odd, twin)
    outline = _Outline(audit_page.document(audit.audit(found), found))
    assert {name for name, _ in outline.images} >= {"train/<b>&\"'", "validation/é猫"}
    assert outline.open == []


HOSTILE = ["\x1b[2Jred", "two\nlines", "\u202egnp", os.fsdecode(b"\xff\xfe"), "<i>&\"'"]


def test_no_name_reaches_a_terminal_or_a_page_raw():
    items = [pictured(0, id=name, group=name, split="train\x9b") for name in HOSTILE]
    items += [broken(9, OSError(f"cut: {name}")) for name in HOSTILE]
    found = collection(*items)
    report = audit.audit(found)
    lines = audit.table(report).splitlines()
    assert all(line.isprintable() for line in lines)
    assert any(r"train\x9b/\x1b[2Jred, train\x9b/two\nlines" in line for line in lines)
    page = audit_page.document(report, found)
    assert page.encode()
    assert all(line.isprintable() for line in page.splitlines())
    assert {name for name, _ in _Outline(page).images} >= {r"train\x9b/\udcff\udcfe"}
    told = json.loads(json.dumps(audit.to_json(report)))
    assert {case["id"] for case in told["findings"][1]["cases"][0]["examples"]} == {*HOSTILE}


@pytest.fixture
def misnamed_source(drawn_dsb2018: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A manual dir of three drawn nuclei in folders, one with a name that is not UTF-8."""
    folder = tmp_path / "manual"
    with zipfile.ZipFile(drawn_dsb2018 / "stage1_train.zip") as archive:
        keys = sorted({name.partition("/")[0] for name in archive.namelist()})[:3]
        archive.extractall(
            folder / "stage1_train", [n for n in archive.namelist() if n.startswith((*keys,))]
        )
    old, new = folder / "stage1_train" / keys[0], os.fsdecode(b"\xff\x1b[2J")
    (old / "images" / f"{keys[0]}.png").rename(old / "images" / f"{new}.png")
    old.rename(old.with_name(new))
    return folder


@pytest.mark.parametrize(
    "environment", [{}, {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}], ids=["UTF-8", "ASCII"]
)
@pytest.mark.parametrize("stderr", ["", "2>&-"])
def test_the_report_is_written_whole_whoever_reads_it(
    misnamed_source, tmp_path, environment, stderr
):
    files = [tmp_path / "a.json", tmp_path / "a.html"]
    program = "import sys; from segdata import cli; sys.exit(cli.main())"
    command = [sys.executable, "-c", program, "audit", "dsb2018", "--manual_dir"]
    command += [str(misnamed_source), "--json", str(files[0]), "--html", str(files[1])]
    gone, output = os.pipe()
    os.close(gone)  # as `| head` does, sooner or later
    done = subprocess.run(
        ["bash", "-c", f"{shlex.join(command)} {stderr}"],
        env={**os.environ, **environment},
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(output)
    assert (done.returncode, done.stderr) == (141, "")
    assert json.loads(files[0].read_text())["splits"]["stage1_train"]["examples"] == 3
    assert files[1].read_text().endswith("</html>\n")


@pytest.mark.parametrize("flag", ["--json", "--html"])
@pytest.mark.parametrize(
    ("path", "message"), [("none/a", "there is no folder"), (".", "is a folder; name a file")]
)
def test_where_no_report_can_be_written_nothing_is_read(
    tmp_path, monkeypatch, capsys, flag, path, message
):
    monkeypatch.setattr(raw, "collection", None)
    where = ["--manual_dir", str(tmp_path), flag, str(tmp_path / path)]
    assert cli.main(["audit", "dsb2018", *where]) == 2
    assert message in capsys.readouterr().err


def test_a_full_disk_costs_the_page_and_not_the_table(misnamed_source, tmp_path, capsys):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    where = ["--manual_dir", str(misnamed_source), "--html", str(tmp_path / "a.html")]
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        code = cli.main(["audit", "dsb2018", *where])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    told = capsys.readouterr()
    assert code == 2
    assert "3 examples: no findings" in told.out
    assert "File too large" in told.err
    assert os.listdir(tmp_path) == ["manual"]


def test_the_command_tells_and_exits_by_what_it_found(damaged_source, tmp_path, capsys):
    files = ["--json", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.html")]
    where = ["--manual_dir", damaged_source["folder"]]
    assert cli.main(["audit", "dsb2018", *where, *files]) == 1
    text = capsys.readouterr().out
    assert "ERROR" in text
    assert damaged_source["odd"] in text
    assert text.strip().endswith("training would suffer.")
    told = json.loads((tmp_path / "a.json").read_text())
    assert told["sound"] is False
    assert {f["check"] for f in told["findings"]} >= {"damaged", "size mismatch"}
    assert (tmp_path / "a.html").read_text().startswith("<!DOCTYPE html>")


def test_json_on_the_standard_output_is_all_there_is(built_dsb2018, capsys):
    arguments = ["--data_dir", str(built_dsb2018), "--json", "-"]
    assert cli.main(["audit", "dsb2018", *arguments]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sound"] is True
    assert told["splits"]["train"]["examples"] + told["splits"]["validation"]["examples"] == 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dsb2018", "--data_dir", "a", "--manual_dir", "b"], "give one of them"),
        (["dsb2018", "--data_dir", "nowhere"], "is not built in"),
        (["cats"], "'cats' is not a dataset known here"),
        (["dsb2018", "--manual_dir", "nowhere"], "nowhere: there is no archive of dsb2018"),
    ],
)
def test_a_mistake_is_one_line(capsys, arguments, message):
    assert cli.main(["audit", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--json", "--html"])
def test_a_report_without_a_file_to_go_to_is_refused(flag):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["audit", "dsb2018", flag])


@pytest.mark.heavy
def test_the_real_nuclei_are_sound(real_dsb2018):
    report = audit.audit(raw.collection("dsb2018", manual_dir=real_dsb2018))
    assert report.sound
    assert len(report.summaries) == 261
    assert audit.statistics(report, "stage1_train")["modes"] == {"PNG RGBA": 261}
    assert checks_of(report).keys() <= {"overlapping objects", "specks"}
