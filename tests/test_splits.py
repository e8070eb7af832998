import collections
import hashlib
import io
import itertools
import random

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from segdata.archives import trees
from segdata.building import splits
from segdata.sources import dsb2018


def picture(seed: int) -> Image.Image:
    """Some bright spots on near black."""
    rng = np.random.default_rng(seed)
    spots = np.zeros((96, 128))
    spots[rng.integers(0, 96, 12), rng.integers(0, 128, 12)] = rng.uniform(1, 3, 12)
    light = 5 + 2000 * ndimage.gaussian_filter(spots, 5) + rng.normal(0, 1, spots.shape)
    return Image.fromarray(light.clip(0, 255).astype(np.uint8)).convert("RGB")


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75)
    return Image.open(buffer)


COPIES = {
    "the same": lambda image: image,
    "brighter": lambda image: image.point([min(255, int(1.3 * v + 3)) for v in range(256)] * 3),
    "half the size": lambda image: image.resize((64, 48)),
    "cropped by a pixel": lambda image: image.crop((1, 1, 128, 96)),
    "JPEG": jpeg,
}


@pytest.mark.parametrize("copy", COPIES)
def test_near_copies_differ_in_few_bits(copy):
    for seed in range(5):
        original, copied = picture(seed), COPIES[copy](picture(seed))
        assert (splits.look(original).hash ^ splits.look(copied).hash).bit_count() <= splits.NEAR


def test_different_near_black_images_differ_in_many_bits():
    hashes = [splits.look(picture(seed)).hash for seed in range(40)]
    apart = [(a ^ b).bit_count() for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(apart) > splits.NEAR


@pytest.mark.parametrize(
    ("colour", "stratum"),
    [
        ((9, 9, 9), "grey dark"),
        ((220, 219, 221), "grey bright"),
        ((188, 164, 212), "colour bright"),
        ((60, 10, 10), "colour dark"),
    ],
)
def test_the_stratum_says_colour_and_ground(colour, stratum):
    image = Image.new("RGB", (50, 40), colour)
    image.paste((128, 128, 128), (10, 10, 15, 15))
    assert splits.look(image).stratum == stratum


def test_banding_finds_the_pairs_that_comparing_all_finds():
    chance = random.Random(0)
    hashes = {str(i): chance.getrandbits(63) for i in range(150)}
    for i in range(60):
        flipped = sum(1 << bit for bit in chance.sample(range(63), chance.randint(0, 8)))
        hashes[f"copy {i}"] = hashes[str(i)] ^ flipped
    groups = splits.near_duplicates(hashes)
    for a in hashes:
        for b in hashes:
            if (hashes[a] ^ hashes[b]).bit_count() <= splits.NEAR:
                assert groups[a] == groups[b]
    assert len(set(groups.values())) == len(_components(hashes))


def test_a_group_joins_what_is_near_to_what_is_near_and_has_its_first_name():
    chain = {"c": 0, "b": 0b111111, "a": 0b111111111111, "far": (1 << 63) - 1}
    assert splits.near_duplicates(chain) == {"c": "a", "b": "a", "a": "a", "far": "far"}


def test_groups_stay_together_and_every_stratum_has_its_share():
    chance = random.Random(1)
    groups = {str(i): f"group {chance.randrange(120)}" for i in range(400)}
    strata = {key: "many" if int(group[6:]) < 100 else "few" for key, group in groups.items()}
    dealt = splits.assign(groups, strata=strata, share=0.1)
    sides = collections.defaultdict(set)
    for key, group in groups.items():
        sides[group].add(dealt[key])
    assert {len(side) for side in sides.values()} == {1}
    for stratum in ("many", "few"):
        members = [dealt[key] for key in groups if strata[key] == stratum]
        assert 0.08 <= members.count("validation") / len(members) <= 0.12


def test_a_group_is_of_the_stratum_of_its_first_example():
    groups = {f"{i:03}": f"group {i // 2}" for i in range(200)}
    mixed = {key: "one" if int(key) % 4 in (0, 1, 2) else "other" for key in groups}
    mixed |= {key: "other" for key in groups if int(key) % 12 == 8}
    first = {key: mixed[min(k for k in groups if groups[k] == groups[key])] for key in groups}
    backwards = dict(reversed(groups.items()))
    for order in (groups, backwards):
        dealt = splits.assign(order, strata=mixed, share=0.1)
        assert dealt == splits.assign(order, strata=first, share=0.1)
        for stratum in ("one", "other"):
            members = [dealt[key] for key in groups if first[key] == stratum]
            assert members.count("validation") == 2 * round(len(members) / 20)


def test_the_split_depends_on_no_order():
    groups = {str(i): str(i // 2) for i in range(60)}
    strata = dict.fromkeys(groups, "all")
    backwards = dict(reversed(groups.items()))
    assert splits.assign(groups, strata=strata) == splits.assign(backwards, strata=strata)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_a_stratum_of_two_groups_is_in_both_splits_and_one_of_one_trains(count, share):
    groups = {str(i): str(i % count) for i in range(3 * count)}
    dealt = splits.assign(groups, strata=dict.fromkeys(groups, "all"), share=share)
    assert set(dealt.values()) == ({"train"} if count == 1 else {"train", "validation"})


def in_validation(sizes: list[int], share: float, naming: int = 0) -> int:
    """How many examples of groups of these sizes go to validation."""
    groups = {
        f"{index}/{number}": f"group {index} of naming {naming}"
        for index, size in enumerate(sizes)
        for number in range(size)
    }
    dealt = splits.assign(groups, strata=dict.fromkeys(groups, "all"), share=share)
    return [*dealt.values()].count("validation")


@pytest.mark.parametrize(
    ("sizes", "expected"), [([100, 1], 1), ([50, 40, 1], 1), ([100, 12, 1], 12), ([7, 7, 7], 7)]
)
def test_one_large_group_is_not_sent_to_validation_whatever_the_names(sizes, expected):
    assert {in_validation(sizes, 0.1, naming) for naming in range(200)} == {expected}


@pytest.mark.parametrize("seed", range(8))
def test_no_other_choice_of_groups_comes_nearer_to_the_share(seed):
    chance = random.Random(seed)
    for naming in range(20):
        sizes = [chance.choice([1, 2, 3, 5, 16, 40, 90]) for _ in range(chance.randint(2, 9))]
        share = chance.choice([0.01, 0.1, 0.25, 0.5, 0.8, 0.99, chance.uniform(0.01, 0.99)])
        choices = itertools.product([0, 1], repeat=len(sizes))
        sums = {sum(itertools.compress(sizes, choice)) for choice in choices} - {0, sum(sizes)}
        best = min(abs(made - share * sum(sizes)) for made in sums)
        found = in_validation(sizes, share, naming)
        assert found in sums
        assert abs(found - share * sum(sizes)) == best


@pytest.mark.parametrize("seed", range(20))
def test_many_unequal_groups_miss_the_share_by_half_of_the_largest_at_most(seed):
    chance = random.Random(seed)
    sizes = [int(chance.paretovariate(0.8)) % 300 + 1 for _ in range(chance.randint(20, 200))]
    share = chance.uniform(0.05, 0.95)
    missed = abs(in_validation(sizes, share) - share * sum(sizes))
    assert missed <= max(sizes) / 2


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.83])
@pytest.mark.parametrize("size", [1, 2, 16])
def test_of_groups_of_one_size_the_first_by_hash_validate(size, share):
    """For groups of one that is what every release has done: published scores lean on it."""
    for count in (2, 5, 15, 25, 219):
        groups = {f"{index}/{i}": f"g{index}" for index in range(count) for i in range(size)}
        dealt = splits.assign(groups, strata=dict.fromkeys(groups, "all"), share=share)
        names = sorted({*groups.values()}, key=lambda name: hashlib.sha256(name.encode()).digest())
        first = min(max(round(share * count), 1), count - 1)
        assert {groups[key] for key in dealt if dealt[key] == "validation"} == {*names[:first]}


@pytest.mark.parametrize("share", [0, 1, -0.1, 10])
def test_a_share_that_leaves_a_split_empty_is_refused(share):
    with pytest.raises(ValueError, match=f"share={share}"):
        splits.assign({}, strata={}, share=share)


def test_the_real_images_are_no_near_duplicates_of_each_other(real_dsb2018):
    tree = trees.open(real_dsb2018 / "stage1_train.zip")
    looks = {e.id: splits.look(dsb2018.read_image(tree, e)) for e in dsb2018.survey(tree)[0]}
    groups = splits.near_duplicates({key: look.hash for key, look in looks.items()})
    strata = collections.Counter(look.stratum for look in looks.values())
    assert len(set(groups.values())) == 261
    assert strata == {"grey dark": 219, "colour bright": 39, "grey bright": 3}
    dealt = splits.assign(groups, strata={key: look.stratum for key, look in looks.items()})
    validation = sorted(key for key in dealt if dealt[key] == "validation")
    assert len(validation) == 27
    assert hashlib.sha256(" ".join(validation).encode()).hexdigest().startswith("7db3857194bcb170")


def _components(hashes: dict[str, int]) -> list[set[str]]:
    components: list[set[str]] = []
    for key in hashes:
        near = [
            component
            for component in components
            if any((hashes[key] ^ hashes[other]).bit_count() <= splits.NEAR for other in component)
        ]
        components = [c for c in components if c not in near] + [{key}.union(*near)]
    return components
