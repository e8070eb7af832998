import dataclasses
import html
import html.parser
import json
import pathlib
import re
import resource
import shutil
import subprocess
from typing import Any

import keras
import networks
import numpy as np
import pytest

from segdata.inspection import charts, page
from segdata.native import Native
from unet import evaluate, judging, pictures, recipes, report, runs
from unet.hardware import Choice
from unet.recipes import Recipe
from unet.runs import Settings, State

VOID = {"meta", "img"}


LOOK = """addEventListener("load", () => {
  const images = [...document.images], charts = [...document.querySelectorAll("svg")];
  document.title = JSON.stringify({
    images: images.length,
    broken: images.filter(image => !image.naturalWidth).length,
    charts: charts.length,
    flat: charts.filter(chart => chart.getBoundingClientRect().height < 100).length,
    fetched: performance.getEntriesByType("resource").map(entry => entry.name)
      .filter(name => !name.startsWith("data:")),
  });
})"""


class Tags(html.parser.HTMLParser):
    """Holds that every tag is closed in its turn; collects what is referred to."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.count: dict[str, int] = {}

    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def row(epoch: int) -> dict:
    names = ("loss", "dice", "dataset_iou", "val_loss", "val_dice", "val_dataset_iou")
    values = {name: 1 / (epoch + i) for i, name in enumerate(names)}
    return {"epoch": epoch, "step": epoch, "learning_rate": 1e-3, "seconds": 2.0, **values}


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "my <run>"
    choice = Choice(hardware="test", precision="float32", compile=False)
    runs.create(folder, Settings(recipe=Recipe(source="<&>"), choice=choice, name="dsb2018"))
    runs.write_state(folder, State(step=9, history=tuple(row(e) for e in range(1, 10))))
    return folder


def natives(images: int = 9, classes: int = 2):
    """Examples of odd sizes, in groups of two."""
    rng = np.random.default_rng(0)
    known = np.array([*range(classes), 255], np.uint8)
    for number in range(images):
        shape = (16 + number, 29 - number)
        mask = rng.choice(known, shape)
        image = rng.integers(0, 256, (*shape, 3), np.uint8)
        small = rng.integers(0, 256, (8, 12, 4), np.uint8)
        small[..., 3] = rng.choice(known, (8, 12))
        yield Native(f"<n{number}>", f"g{number // 2}", image, mask, small)


def read(page) -> tuple[str, Tags]:
    text = page.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    return text, tags


def test_the_page_is_whole_and_fetches_nothing(run):
    text, tags = read(report.write(run, natives(), network=networks.fixed()))
    assert text.startswith("<!DOCTYPE html>")
    assert tags.links
    assert all(re.match("data:image/(png|jpeg);base64,", link) for link in tags.links)
    assert not re.search(r"https?://|@import|url\(", text)
    assert "script" not in tags.count


def test_the_page_shows_curves_scores_settings_and_images(run):
    text, tags = read(report.write(run, natives(), network=networks.fixed()))
    assert tags.count["svg"] == 5
    assert tags.count["img"] == 2 * 6 * 4
    for shown in (
        "validation",
        "Dataset IoU",
        "learning_rate",
        "filters",
        "9 validation images, at",
    ):
        assert shown in text
    assert "my &lt;run&gt;" in text
    assert "<&>" not in text


def test_the_share_of_waiting_is_the_mean_of_the_epochs_that_know_it(run):
    assert (
        "Waiting for input" not in read(report.write(run, natives(1), network=networks.fixed()))[0]
    )
    history = (row(1), row(2) | {"input_share": 0.25}, row(3) | {"input_share": 0.125})
    runs.write_state(run, State(step=3, history=history))
    text, _ = read(report.write(run, natives(1), network=networks.fixed()))
    assert "Waiting for input: 18.8% of the training." in text


def test_best_and_worst_are_in_order_and_few_images_are_enough(run):
    text, tags = read(report.write(run, natives(8), network=networks.fixed()))
    assert tags.count["img"] == 2 * 6 * 4
    dice = [float(n) for n in re.findall(r"<tr><th>(\d\.\d{3})</th>", text)]
    worst, best = dice[:6], dice[6:]
    assert worst == sorted(worst)
    assert best == sorted(best, reverse=True)
    assert worst != best[::-1]


def test_few_images_are_shown_once_and_said_to_be_few(run):
    text, tags = read(report.write(run, natives(4), network=networks.fixed()))
    assert tags.count["img"] == 4 * 4
    assert "4 images: too few to judge a model by, as each weighs 25% of the mean" in text
    assert "Best images" not in text
    assert "too few" not in read(report.write(run, natives(20), network=networks.fixed()))[0]


@pytest.mark.parametrize(
    ("name", "changes", "shown"),
    [
        ("dsb2018", {}, "The recipe dsb2018: This project's own, tuned for two CPU cores. Trained"),
        ("carvana-unet", {"batch": 9}, "The recipe carvana-unet: A published article on Carvana"),
        (
            "carvana-unet",
            {"batch": 9, "seed": 1},
            "that are not the recipe's: batch, seed. ",
        ),
        ("small", {"source": "Chosen from the dataset."}, ">Chosen from the dataset. Trained on"),
    ],
)
def test_what_is_said_of_a_recipe_is_not_said_of_a_run(tmp_path, name, changes, shown):
    choice = Choice(hardware="test", precision="mixed_bfloat16", compile=False)
    recipe = dataclasses.replace(recipes.named(name), **changes)
    runs.create(tmp_path / "run", Settings(recipe=recipe, choice=choice, name=name))
    runs.write_state(tmp_path / "run", State(step=1, history=(row(1),)))
    text, _ = read(report.write(tmp_path / "run", natives(1), network=networks.fixed()))
    assert shown in html.unescape(text)


def test_images_without_labels_are_neither_best_nor_worst(run):
    images = [x._replace(mask=np.full_like(x.mask, 255)) for x in natives(2)]
    text, tags = read(report.write(run, [*images, *natives(7)], network=networks.fixed()))
    assert "7 validation images, at native size; 2 without labels left out" in text
    assert tags.count["img"] == 2 * 6 * 4


def test_a_regression_is_reported_by_its_errors(run):
    saved = json.loads((run / "settings.json").read_text())
    saved["recipe"] |= {"loss": "squared_error"}
    saved["recipe"]["model"] |= {"output_activation": "linear"}
    (run / "settings.json").write_text(json.dumps(saved))
    text, _ = read(report.write(run, natives(), network=networks.fixed()))
    assert "Root of mean squared error" in text
    assert "RMSE" in text
    assert "Dataset Dice" not in text


def test_a_run_of_one_epoch_has_a_report(run):
    runs.write_state(run, State(step=1, history=(row(1),)))
    _, tags = read(report.write(run, natives(1), network=networks.fixed()))
    assert tags.count["svg"] == 5


def test_scores_intervals_classes_and_calibration_are_those_of_the_judgement(run):
    recipe = runs.settings(run).recipe
    judge = evaluate.scorer(networks.fixed(), recipe, decides=False)
    found = judging.judge(evaluate.scored_native(judge, natives(), recipe), recipe)
    text, _ = read(report.write(run, natives(), network=networks.fixed()))
    assert "Objects" not in text
    for name in ("dice", "iou", "dataset_dice", "dataset_iou"):
        low, high = found.intervals[name]
        assert f"<td>{found.scores[name]:.4f}</td><td>{low:.3f} to {high:.3f}</td>" in text
    for value in found.by_class()["foreground"].values():
        assert f"<td>{value:.4f}</td>" in text
    whole = found.parts[""].confusion
    assert f"{whole[0, 1] / whole[0].sum():.2%}" in text
    assert f"Calibration error {judging.to_json(found)['calibration_error']:.4f}" in text


def test_objects_are_in_a_table_of_their_own(run):
    def examples():
        rng = np.random.default_rng(1)
        for example in natives():
            yield example._replace(instances=rng.integers(0, 9, example.mask.shape, np.uint16))

    recipe = runs.settings(run).recipe
    judge = evaluate.scorer(networks.fixed(), recipe, decides=False)
    found = judging.judge(evaluate.scored_native(judge, examples(), recipe), recipe)
    text, _ = read(report.write(run, examples(), network=networks.fixed()))
    true, seen, right = (found.scores[f"objects_{x}"] for x in ("true", "found", "matched"))
    assert f"Objects: {true} in truth, {seen} found, {right} of them right" in text
    for name in ("object_ap", "object_ap50", "object_f1"):
        low, high = found.intervals[name]
        assert f"<td>{found.scores[name]:.4f}</td><td>{low:.3f} to {high:.3f}</td>" in text


def test_several_datasets_have_a_table_each(run):
    images = {"one": natives(5), "<two>": natives(4)}
    text, _ = read(report.write(run, images, network=networks.fixed()))
    for shown in ("one, 5 of them", "&lt;two&gt;, 4 of them", "Classes of one"):
        assert shown in text
    for number in range(4):  # which of the images of that name it is
        assert f'title="truth one: &lt;n{number}&gt;"' in text
        assert f'title="truth &lt;two&gt;: &lt;n{number}&gt;"' in text
    assert "<two>" not in text


def test_a_class_that_a_dataset_has_none_of_has_no_shares(run):
    saved = json.loads((run / "settings.json").read_text()) | {"classes": ("no", "yes", "never")}
    saved["recipe"]["model"] |= {"output_activation": "softmax", "output_channels": 3}
    (run / "settings.json").write_text(json.dumps(saved))
    images = {"one": natives(classes=2), "two": natives(classes=3)}
    text, _ = read(report.write(run, images, network=networks.fixed(3)))
    (table,) = re.findall(r"What the truth of one is found as.*?</table>", text, re.DOTALL)
    cells = re.findall(r"<th>never</th>((?:<td>[^<]*</td>)+)", table)[-1]
    assert re.findall(r"<td>([^<]*)", cells) == ["–", "–", "–", "0"]
    assert "%" in table


def test_many_classes_are_listed_by_their_errors(run):
    saved = json.loads((run / "settings.json").read_text())
    saved["classes"] = [f"class {i}" for i in range(9)]
    saved["recipe"]["model"] |= {"output_activation": "softmax", "output_channels": 9}
    (run / "settings.json").write_text(json.dumps(saved))
    network: Any = networks.fixed(3)
    padded = keras.ops.pad(network.output, [[0, 0], [0, 0], [0, 0], [0, 6]])
    network = keras.Model(network.input, padded)
    network.jit_compile = False
    text, _ = read(report.write(run, natives(classes=9), network=network))
    assert "The most frequent errors" in text
    assert "share of the truth" in text


@pytest.mark.parametrize("shape", [(7, 100), (300, 241), (1920, 1081, 3), (1, 1), (33, 479, 3)])
def test_a_picture_is_brought_to_a_length_that_is_seen(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    shown = pictures.resized(pixels, least=240, most=480)
    assert 240 <= max(shown.shape[:2]) <= 480
    height, width = (side / max(shape[:2]) for side in shape[:2])
    assert shown.shape[0] / max(shown.shape[:2]) == pytest.approx(height, abs=1 / 480)
    assert shown.shape[1] / max(shown.shape[:2]) == pytest.approx(width, abs=1 / 480)
    if max(shape[:2]) < 240:
        times = shown.shape[0] // shape[0]
        assert np.array_equal(shown[::times, ::times], pixels)
    assert abs(float(shown.mean()) - float(pixels.mean())) < 2


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.013, 0.87), (-3, 1e4), (5, 5), (0, 0), (1e-7, 3e-7), (-2, -1)]
)
def test_ticks_are_few_and_hold_all_values(low, high):
    ticks = charts.nice_ticks(low, high)
    assert 3 <= len(ticks) <= 7
    assert ticks[0] <= low <= high <= ticks[-1]
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])


def test_several_classes_have_colours_and_names(run):
    names = ("road", "sky", "<ego>")
    saved = json.loads((run / "settings.json").read_text()) | {"classes": names}
    saved["recipe"]["model"] |= {"output_activation": "softmax", "output_channels": 3}
    (run / "settings.json").write_text(json.dumps(saved))
    text, tags = read(report.write(run, natives(classes=3), network=networks.fixed(3)))
    assert tags.count["img"] == 2 * 6 * 4
    for shown in ("road", "sky", "&lt;ego&gt;", "another class than the truth"):
        assert shown in text


def test_whatever_history_is_read_can_be_drawn(run):
    rng = np.random.default_rng(0)
    odd = [0, -1, 1e299, -1e299, 1e-320, 2**62, 0.5]
    for _ in range(20):
        history: Any = tuple(
            {name: odd[rng.integers(len(odd))] for name in row(1)}
            | {name: int(rng.choice([0, 1, 7, -(2**63), 2**63 - 1])) for name in ("epoch", "step")}
            for _ in range(rng.integers(1, 4))
        )
        runs.write_state(run, State(step=9, history=history))
        assert runs.state(run).history == history
        read(report.write(run, natives(1), network=networks.fixed()))


def test_a_page_that_cannot_be_written_leaves_the_one_before(run):
    before = report.write(run, natives(), network=networks.fixed()).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"report\.html cannot be written: File too large"):
            report.write(run, natives(), network=networks.fixed())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (run / "report.html").read_bytes() == before
    assert not list(run.glob("unfinished-*"))


@pytest.mark.heavy
def test_a_browser_draws_the_page_and_asks_for_nothing(run, tmp_path):
    path = report.write(run, natives(), network=networks.fixed())
    seen = drawn(path, LOOK, profile=tmp_path / "profile")
    assert seen == {"images": 48, "broken": 0, "charts": 5, "flat": 0, "fetched": []}


@pytest.mark.heavy
def test_long_names_do_not_widen_a_page(tmp_path):
    name = "cityscapes_pairs/classes/1.0.0 " + 50 * "traffic_light"
    body = f"<h2>{name}</h2><section class='card note'><h3>{name}</h3></section>"
    path = tmp_path / "page.html"
    path.write_text(page.document(name, lead=name, body=body + page.key(name, None)))
    wide = "document.documentElement.scrollWidth > innerWidth"
    seen = drawn(path, f"document.title = JSON.stringify({{wide: {wide}}})", profile=tmp_path / "p")
    assert seen == {"wide": False}


def drawn(path: pathlib.Path, script: str, *, profile: pathlib.Path) -> dict[str, Any]:
    """What a script makes the title of a page, in a browser of a phone's width."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium and no google-chrome to draw the page with")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    shown = subprocess.run(
        [
            browser,
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--window-size=390,800",
            f"--user-data-dir={profile}",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    title = re.search("<title>({.*?})</title>", shown)
    assert title, shown[:500]
    return json.loads(html.unescape(title[1]))
