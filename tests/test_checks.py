"""Each finding is caused on purpose, on the smallest summaries that shows it."""

import dataclasses

import pytest

from segdata.inspection import checks
from segdata.inspection.summaries import Damage, Disagreement, Summary

CLASSES = ("background", "nucleus")


def example(key, **changes) -> Summary:
    """A sound summary, unlike that of any other key."""
    number = int.from_bytes(key.encode())
    sound = Summary(
        split="train",
        id=key,
        group=key,
        mode="PNG RGB",
        size=(4, 4),
        mask_size=(4, 4),
        counts={0: 10, 1: 6},
        pixels=key.encode(),
        mask=b"mask" + key.encode(),
        foreground=b"",
        perceptual_hash=pow(number, 3, 2**61 - 1) * 0x9E3779B9 % 2**63,
        flat=False,
        objects=2,
        specks=0,
        overlap=0,
    )
    return dataclasses.replace(sound, **changes)


SOUND = [example("a"), example("b"), example("c"), example("d", split="validation")]


def found(*changed, damages=(), tables=(), classes=CLASSES, across=()):
    """The findings about a sound dataset and some examples more, by the name of the check."""
    findings = checks.run(
        [*SOUND, *changed], damages, classes=classes, tables=tables, across=across
    )
    return {finding.check: finding for finding in findings}


def test_a_sound_dataset_has_no_findings():
    assert found() == {}


CAUSES = {
    "size mismatch": ("error", [example("x", mask_size=(4, 5))]),
    "values outside the classes": ("error", [example("x", counts={0: 8, 1: 4, 2: 3, 254: 1})]),
    "groups across splits": ("error", [example("x", group="d")]),
    "repeated ids": (
        "error",
        [example("a", pixels=b"p", perceptual_hash=0, group="x", split="validation")],
    ),
    "exact duplicates across splits": (
        "error",
        [example("x", pixels=b"a", mask=b"maska", split="validation")],
    ),
    "contradicting masks": ("error", [example("x", pixels=b"a")]),
    "exact duplicates": ("warning", [example("x", pixels=b"a", mask=b"maska")]),
    "near duplicates": ("note", [example("x", perceptual_hash=SOUND[0].perceptual_hash ^ 0b10101)]),
    "without labels": ("warning", [example("x", counts={255: 16})]),
    "mostly ignore label": ("warning", [example("x", counts={0: 1, 1: 6, 255: 9})]),
    "empty masks": ("warning", [example("x", counts={0: 16})]),
    "full masks": ("warning", [example("x", counts={1: 15, 255: 1})]),
    "blank images": ("warning", [example("x", flat=True)]),
    "specks": ("note", [example("x", specks=1)]),
}


@pytest.mark.parametrize("check", CAUSES)
def test_each_cause_is_found_and_nothing_else_is(check, request):
    severity, changed = CAUSES[check]
    findings = found(*changed)
    implied = {"contradicting masks": {"exact duplicates"}}.get(check, set())
    assert set(findings) == {check} | implied
    assert findings[check].severity == severity
    assert findings[check].do
    assert any(key == changed[0].key for case in findings[check].cases for key in case.members)


def test_near_duplicates_across_splits_are_a_warning_unless_they_are_exact():
    pair = [SOUND[0], SOUND[3]]
    finding = found(across=[pair])["near duplicates across splits"]
    assert finding.severity == "warning"
    assert finding.cases[0].members == (("train", "a"), ("validation", "d"))
    assert found(across=[[SOUND[0], dataclasses.replace(SOUND[3], pixels=SOUND[0].pixels)]]) == {}


def test_alike_within_a_known_group_is_no_finding():
    assert found(example("x", perceptual_hash=SOUND[0].perceptual_hash ^ 1, group="a")) == {}


def test_hashes_alone_make_no_warning_across_splits():
    assert found(example("x", perceptual_hash=SOUND[3].perceptual_hash ^ 0b11)) == {}


def test_an_object_in_two_places_is_a_warning():
    finding = found(example("x", apart=(2,)))["objects in two places"]
    assert (finding.severity, finding.cases[0].detail) == ("warning", "object 2 of 2")


def test_damage_is_found_and_told():
    damages = [Damage("train", "x", "cut"), Damage("train", "y", "1×2, 3×4", mismatch=True)]
    findings = found(damages=damages)
    assert {name: f.severity for name, f in findings.items()} == {
        "damaged": "error",
        "size mismatch": "error",
    }
    assert findings["damaged"].cases[0].detail == "cut"


def test_a_dataset_of_test_images_alone_has_no_labels():
    findings = checks.run([example("x", counts={255: 16}, split="test")], classes=CLASSES)
    assert [finding.check for finding in findings] == ["no labels"]


def test_an_unlabelled_test_split_is_but_a_note():
    finding = found(example("x", counts={255: 16}, split="test"))["without labels"]
    assert (finding.severity, finding.cases[0].detail) == ("note", "all of test: 1 example")


@pytest.mark.parametrize(
    ("absent", "severity"), [("train", "error"), ("validation", "warning"), ("both", "error")]
)
def test_an_absent_class_is_graver_where_it_should_be_learned(absent, severity):
    full = {0: 4, 1: 4, 2: 8}
    parts = {
        "train": [example("a"), example("b")],
        "validation": [example("d", split="validation")],
    }
    if absent != "both":
        present = "validation" if absent == "train" else "train"
        parts[present] = [dataclasses.replace(x, counts=full) for x in parts[present]]
    members = [item for part in parts.values() for item in part]
    (finding,) = checks.run(members, classes=("ground", "road", "car"))
    assert (finding.check, finding.severity) == ("absent class", severity)
    assert finding.cases[0].detail.startswith("car: absent from")


@pytest.mark.parametrize(
    ("iou", "severity"), [(0.2, "error"), (0.95, "warning"), (None, "warning")]
)
def test_run_lengths_of_another_image_are_graver_than_a_mended_mask(iou, severity):
    finding = found(tables=[Disagreement(("train", "a"), iou, "line 7")])["masks and run lengths"]
    assert finding.severity == severity
    assert "line 7" in finding.cases[0].detail


@pytest.mark.parametrize(("overlap", "severity"), [(1, "warning"), (0, None)])
def test_overlap_is_grave_by_its_share_of_the_objects(overlap, severity):
    finding = found(example("x", overlap=overlap)).get("overlapping objects")
    assert (finding and finding.severity) == severity
    slight = found(example("x", overlap=1, counts={0: 10, 1: 600}))["overlapping objects"]
    assert slight.severity == "note"


def test_a_class_of_a_few_stray_pixels_is_a_warning():
    counts = {0: 100_000, 1: 50_000}
    members = [example("a", counts=counts), example("b", counts=counts | {2: 3})]
    (finding,) = checks.run(members, classes=("ground", "road", "car"))
    assert (finding.check, finding.severity) == ("rare class", "warning")
    assert finding.cases[0].members == (("train", "b"),)
    assert finding.cases[0].detail == "car: 3 pixels in all"


def test_the_worst_comes_first():
    bad, worse = example("x", counts={0: 8, 7: 1}), example("y", counts={0: 8, 7: 3})
    cases = found(bad, worse)["values outside the classes"].cases
    assert [case.members[0][1] for case in cases] == ["y", "x"]
    assert cases[0].detail == "3 pixels of 7"


def test_errors_come_before_warnings_before_notes():
    changed = [example("x", specks=1), example("y", flat=True), example("z", group="d")]
    assert [f.severity for f in found(*changed).values()] == ["error", "warning", "note"]


def test_not_labelled_is_never_a_foreign_value():
    assert found(example("x", counts={0: 8, 1: 4, 255: 4})) == {}


def test_class_0_may_be_out_of_sight_where_there_are_many():
    counts = {1: 8, 2: 8}
    members = [example("a", counts={0: 1, 1: 8, 2: 7}), example("b", counts=counts)]
    assert checks.run(members, classes=("road", "car", "sky")) == ()


def test_blank_images_are_not_near_duplicates_of_each_other():
    blank = [example(key, flat=True, perceptual_hash=0, counts={0: 10, 1: 6}) for key in "xyz"]
    assert set(found(*blank)) == {"blank images"}
