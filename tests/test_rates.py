import dataclasses
import itertools
import math
import re
from typing import Any

import numpy as np
import pytest
import test_train as case

from segdata.inspection import charts
from unet import rates
from unet.model import UNet
from unet.rates import Sweep

SETTINGS = case.with_recipe(
    model=UNet(filters=(4, 4)), ema_momentum=0.9, warmup=1, loss="cross_entropy"
)


def swept(settings=SETTINGS, data: Any = None, **options) -> Sweep:
    usual = {"lowest": 1e-4, "highest": 1e3, "steps": 40}
    return rates.sweep(settings, data or case.data(), **{**usual, **options})


def test_the_rate_rises_exponentially_until_the_loss_diverges():
    settings = dataclasses.replace(
        SETTINGS, recipe=dataclasses.replace(SETTINGS.recipe, optimizer="sgd")
    )
    found = swept(settings)
    assert found.diverged
    assert 10 < len(found.rates) < 40
    assert len(found.losses) == len(found.smoothed) == len(found.rates)
    steps = np.diff(np.log(found.rates))
    assert found.rates[0] == pytest.approx(1e-4)
    assert steps == pytest.approx(math.log(1e7) / 39)
    assert np.isfinite(found.losses).all()
    # The first loss is of fresh weights; the average of one value is that value.
    assert found.losses[0] == pytest.approx(math.log(2), abs=0.3)
    assert found.smoothed[0] == pytest.approx(found.losses[0])
    weights = 0.9 ** np.arange(9, -1, -1)
    mean = np.average(found.losses[:10], weights=weights)
    assert found.smoothed[9] == pytest.approx(mean)


def test_a_range_test_leaves_averages_and_schedule_out_and_accumulates():
    asked: list[int] = []

    def batches(start: int):
        for step in itertools.count(start):
            asked.append(step)
            yield case.batch(step)

    recipe = dataclasses.replace(SETTINGS.recipe, accumulation=2, schedule="cosine")
    settings = dataclasses.replace(SETTINGS, recipe=recipe)
    found = swept(settings, case.data(batches=batches), highest=1e-3, steps=11)
    assert asked == [0, *range(22)]  # one more, to see whether model and data fit
    assert not found.diverged


def test_the_loss_of_accumulated_batches_is_the_mean_of_all():
    tiny: dict[str, Any] = {"lowest": 1e-12, "highest": 1e-11}  # rates that change nothing
    recipe = dataclasses.replace(SETTINGS.recipe, accumulation=2)
    found = swept(dataclasses.replace(SETTINGS, recipe=recipe), case.data(), **tiny, steps=11)
    plain = swept(SETTINGS, case.data(), **tiny, steps=22)
    pairs = np.reshape(plain.losses, (11, 2))
    np.testing.assert_allclose(found.losses, pairs.mean(axis=1), rtol=1e-5)
    assert np.ptp(pairs, axis=1).max() > 1e-3


@pytest.mark.usefixtures("loud_seeds")
def test_what_libraries_print_when_seeds_are_set_is_not_shown(capfd):
    swept(lowest=1e-12, highest=1e-11, steps=11)
    assert "cudart_stub" not in capfd.readouterr().err


def test_the_rate_is_suggested_at_which_the_loss_falls_fastest():
    places = np.linspace(-6, 0, 121)
    losses = 1 / (1 + np.exp(8 * (places + 3))) + np.where(places > -1.5, (places + 1.5) * 4, 0)
    found = Sweep((10**places).tolist(), losses.tolist(), losses.tolist(), diverged=False)
    assert found.suggestion == pytest.approx(1e-3, rel=0.15)
    assert found.lowest == pytest.approx(10**-1.5, rel=0.2)
    assert "--learning_rate 1.0e-03" in rates.said(found)
    early = Sweep(found.rates[:62], found.losses[:62], found.smoothed[:62], diverged=False)
    assert "up to 1.1e-03: try a --highest of 0.1." in rates.said(early)
    assert early.suggestion == pytest.approx(1e-3, rel=0.15)
    rising = Sweep(found.rates, losses.tolist(), places.tolist(), diverged=True)
    assert rising.suggestion is None
    assert "did not fall between 1.0e-06 and 1.0e+00" in rates.said(rising)


def test_a_first_batch_that_is_harder_than_the_others_suggests_no_rate():
    places = np.linspace(-6, 0, 121)
    losses = 1 / (1 + np.exp(8 * (places + 3)))
    losses[0] += 2
    kept = 0.9 ** np.arange(121)
    smoothed = np.convolve(losses, kept)[:121] / np.cumsum(kept)
    found = Sweep((10**places).tolist(), losses.tolist(), smoothed.tolist(), diverged=False)
    assert found.suggestion == pytest.approx(1e-3, rel=0.8)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lowest": 0.0}, "--lowest 0.0: it must be above 0 and below highest"),
        ({"lowest": 1.0, "highest": 0.1}, "--lowest 1.0"),
        ({"highest": math.inf}, "--highest inf"),
        ({"steps": 10}, "--steps 10: it must be more than 10"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        swept(**options)


def test_a_loss_that_is_no_number_from_the_start_is_said():
    def batches(start: int):
        for step in itertools.count(start):
            image, mask = case.batch(step)
            yield image, mask + np.float32(np.nan)

    model = UNet(filters=(2, 3), output_activation="linear")
    settings = case.with_recipe(model=model, loss="squared_error")
    with pytest.raises(ValueError, match="the loss is nan at the first step"):
        swept(settings, case.data(batches=batches))


def test_the_page_is_written_to_where_a_link_leads(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "page.html")
    sweep = Sweep([1e-3, 1e-2], [2.0, 1.0], [2.0, 1.0], diverged=False)
    rates.write(tmp_path / "link", sweep, title="a test")
    assert (tmp_path / "link").is_symlink()
    assert "a test" in (tmp_path / "page.html").read_text()


def test_the_axis_is_logarithmic():
    picture = charts.rates("Loss", [1e-4, 1e-3, 1e-1], {"loss": [3.0, 2.0, 1.0]}, marked=1e-3)
    places = [float(x) for x in re.findall(r'<circle class="dot s0" cx="([\d.]+)"', picture)]
    assert places[1] - places[0] == pytest.approx((places[2] - places[0]) / 3, abs=0.2)
    assert float(re.findall(r'<line class="mark" x1="([\d.]+)"', picture)[0]) == places[1]
    for label in ("1e-4", "1e-3", "1e-2", "1e-1"):
        assert f">{label}</text>" in picture
    assert "rate 0.001: 2" in picture
