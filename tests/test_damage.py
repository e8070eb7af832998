"""Every kind of damage on every source that it can happen to: read rightly, or refused well."""

import io
import pathlib
import re
import shutil
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from segdata import sources
from segdata.archives import ArchiveError
from segdata.inspection import raw
from segdata.sources import Example, carvana, cityscapes_pairs, dsb2018
from segdata.testing import damage
from segdata.testing.damage_kinds import KINDS

CASES = [(kind, name) for name in sources.names() for kind in damage.kinds(name)]
REMEDY = re.compile(
    r"\b(Delete|Download|Do not trust|Fix|Give|Join|One of them was replaced; download|Pack"
    r"|Remove|Rename|Save|Unpack)\b.*\.$"
)
BOMBS = [case for case in CASES if case[0] in ("enormous", "enormous-file", "swelling", "bomb")]


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> pathlib.Path:
    """A folder with a sound, small drawing of each source."""
    folder = tmp_path_factory.mktemp("sound")
    carvana.draw(folder / "carvana", examples=2, seed=0, size=(96, 144), views=1)
    cityscapes_pairs.draw(folder / "cityscapes_pairs", examples=7, seed=0)
    dsb2018.draw_zips(folder / "dsb2018", examples=2, seed=0)
    return folder


@pytest.fixture(scope="session")
def sound(drawn) -> dict[str, dict[str, Example]]:
    """What is read of them, by source and id."""
    found = {}
    for folder in drawn.iterdir():
        found[folder.name], faults = read(folder.name, folder)
        assert not faults
    return found


@pytest.fixture
def damaged(drawn, tmp_path, monkeypatch):
    """Damages a copy of a drawing; returns its folder and what messages must name."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def inflict(name: str, source: str, place: str = "damaged") -> tuple[pathlib.Path, str]:
        folder = tmp_path / place
        shutil.copytree(drawn / source, folder)
        return folder, damage.inflict(name, folder, source=source, seed=0)

    return inflict


def read(source: str, folder: pathlib.Path) -> tuple[dict[str, Example], list[str]]:
    """The examples that can be read, and what is said of the others."""
    collection = raw.collection(source, manual_dir=folder)
    found, faults = {}, [text for _, _, text in collection.faults]
    for pending in collection.stream():
        try:
            found[pending.id] = pending.read()
        except ArchiveError as error:
            faults.append(str(error))
    return found, faults


def pixels(example: Example, mode: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(example.image)).convert(mode)).astype(int)


def assert_same(found: Example, expected: Example, *, mode: str) -> None:
    """The same pixels and classes; nearly, where a JPEG was encoded anew."""
    assert (found.id, found.group, found.overlap) == (expected.id, expected.group, expected.overlap)
    apart = np.abs(pixels(found, mode) - pixels(expected, mode))
    if expected.instances is not None:
        np.testing.assert_array_equal(found.instances, expected.instances)
        assert apart.max() == 0
    assert apart.mean() < 4
    assert np.mean(found.mask != expected.mask) < (0.02 if "/" in expected.id else 1e-9)


@pytest.mark.parametrize(("name", "source"), CASES)
def test_damage_is_read_rightly_or_refused_by_name_with_a_remedy(damaged, sound, name, source):
    folder, named = damaged(name, source)
    outcome = damage.outcome(name, source=source)
    if outcome == "archive refused":
        with pytest.raises(ArchiveError) as caught:
            read(source, folder)
        faults, found = [str(caught.value)], {}
    else:
        found, faults = read(source, folder)
        assert bool(faults) == (outcome == "example refused")
        assert len(sound[source].keys() - found.keys()) <= min(len(faults), 1)
    for fault in faults[:1]:  # the first is what ends a build
        assert pathlib.PurePath(named).stem in fault
    for fault in faults:
        assert REMEDY.search(fault), fault
        assert "\n" not in fault
        assert str(folder) in fault
    for key, example in found.items():
        assert_same(example, sound[source][key], mode="L" if name == "grey" else "RGB")


@pytest.mark.parametrize(("name", "source"), BOMBS)
def test_bombs_are_refused_before_memory_is_spent(damaged, name, source):
    folder, _ = damaged(name, source)
    tracemalloc.start()
    try:
        _, faults = read(source, folder)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(faults) == 1
    assert peak < 1 << 25  # most of it an example of another file


def test_there_is_damage_of_many_kinds_and_to_every_source():
    assert len(KINDS) >= 40
    assert all(KINDS[name].outcomes for name in KINDS)
    assert {source for _, source in CASES} == {*sources.names()}
    assert len({kind.what for kind in KINDS.values()}) == len(KINDS)


@pytest.mark.parametrize(
    "name", ["cut", "tail", "streamed", "nested-deflated", "encrypted", "lzma"]
)
def test_damage_depends_on_its_seed_alone(damaged, name):
    (first, _), (second, _) = damaged(name, "carvana", "a"), damaged(name, "carvana", "b")
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


def test_damage_that_cannot_happen_to_a_source_is_refused(drawn):
    with pytest.raises(ValueError, match="damage 'odd-width': of dsb2018 there are cut, empty"):
        damage.inflict("odd-width", drawn / "dsb2018", source="dsb2018", seed=0)
