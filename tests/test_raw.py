import shutil

import pytest
import reading

from segdata.archives import rle, trees
from segdata.inspection import audit, raw
from segdata.sources import carvana, cityscapes_pairs


def errors(report: audit.Report) -> dict[str, set[str]]:
    return {
        finding.check: {key for case in finding.cases for _, key in case.members}
        for finding in report.findings
        if finding.severity == "error"
    }


@pytest.fixture
def cars(tmp_path):
    """Three cars with masks and one without, as zips, and the table of run lengths."""
    carvana.draw(tmp_path, examples=12, seed=4, unlabelled=2, size=(64, 96), views=4)
    parts = [trees.open(tmp_path / f"{name}.zip") for name in ("train_hq", "train_masks")]
    lines = ["img,rle_mask"]
    for example in reading.cars(*parts):
        lines.append(f"{example.id}.jpg,{rle.encode(example.mask, order='rows')}")
    (tmp_path / "train_masks.csv").write_text("\n".join(lines))
    return tmp_path


def test_drawn_cars_are_sound_and_agree_with_their_table(cars):
    report = audit.audit(raw.collection("carvana", manual_dir=cars))
    assert errors(report) == {}
    assert "masks and run lengths" not in {finding.check for finding in report.findings}
    figures = audit.statistics(report, "train_hq")
    assert (figures["examples"], figures["groups"], figures["modes"]) == (12, 3, {"JPEG RGB": 12})
    assert audit.statistics(report, "test_hq")["unlabelled"] == 2


def test_a_table_in_the_order_of_the_nuclei_is_found(cars):
    table = cars / "train_masks.csv"
    first, *rest = rle.read_train_masks(table)
    wrong = rle.encode(first.mask((64, 96)), order="columns")
    table.write_text(f"img,rle_mask\n{first.id}.jpg,{wrong}\n{rest[0].id}.jpg,{rest[0].runs[0]}")
    assert errors(audit.audit(raw.collection("carvana", manual_dir=cars))) == {
        "masks and run lengths": {first.id}
    }


def test_cars_that_lack_a_half_or_have_a_wrong_one_are_findings(cars):
    for name in ("train_hq", "train_masks"):
        shutil.unpack_archive(cars / f"{name}.zip", cars)
        (cars / f"{name}.zip").unlink()
    bare, blind, odd, cut, *_ = sorted(path.stem for path in (cars / "train_hq").iterdir())
    (cars / "train_masks" / f"{bare}_mask.gif").unlink()
    (cars / "train_hq" / f"{blind}.jpg").unlink()
    carvana.draw(cars / "other", examples=1, seed=4, size=(32, 32), views=4)
    shutil.unpack_archive(cars / "other" / "train_masks.zip", cars / "other")
    (small,) = (cars / "other").rglob("*.gif")
    shutil.copy(small, cars / "train_masks" / f"{odd}_mask.gif")
    photo = cars / "train_hq" / f"{cut}.jpg"
    photo.write_bytes(photo.read_bytes()[:700])
    (cars / "train_hq" / "readme.jpg").write_bytes(b"")
    report = audit.audit(raw.collection("carvana", manual_dir=cars))
    assert errors(report) == {
        "damaged": {bare, blind, cut, "readme.jpg"},
        "size mismatch": {odd},
    }
    assert len(report.summaries) == 12 - 4 + 2


def test_streets_are_audited_with_their_share_of_unlabelled(tmp_path):
    cityscapes_pairs.draw(tmp_path, examples=7, seed=2)
    report = audit.audit(raw.collection("cityscapes_pairs", manual_dir=tmp_path))
    assert report.splits == ("train", "val")
    assert errors(report) == {}
    figures = audit.statistics(report, "train")
    assert 0 < figures["not_labelled_pixels"] < 0.2 * 256 * 256 * figures["examples"]
    assert list(figures["pixels"]) == ["other", "road"]


def test_a_street_under_another_name_is_a_finding(tmp_path):
    cityscapes_pairs.draw(tmp_path, examples=7, seed=2)
    (archive,) = tmp_path.glob("*.zip")
    shutil.unpack_archive(archive, tmp_path)
    archive.unlink()
    (tmp_path / cityscapes_pairs.FOLDER / "train" / "sheet.jpg").write_bytes(b"")
    report = audit.audit(raw.collection("cityscapes_pairs", manual_dir=tmp_path))
    (names,) = errors(report).values()
    assert [name.rpartition("/")[2] for name in names] == ["sheet.jpg"]
    assert len(report.summaries) == 7


def test_streets_are_audited_with_all_classes_when_asked_for(tmp_path):
    cityscapes_pairs.draw(tmp_path, examples=2, seed=2)
    report = audit.audit(raw.collection("cityscapes_pairs/classes", manual_dir=tmp_path))
    assert report.name == "cityscapes_pairs/classes, raw"
    assert len(report.summaries) == 2
    assert report.classes == cityscapes_pairs.CLASSES
    assert audit.statistics(report, "train")["pixels"]["sky"] > 0
