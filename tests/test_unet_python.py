"""The public names of `unet`: steps against Keras's own, predictions against the command's."""

import dataclasses
import pydoc
from typing import Any

import keras
import networks
import numpy as np
import pytest
from PIL import Image

import unet
from segdata.archives import resizing
from segdata.archives.intensity import Scaling
from unet import model, predicting, results, runs, train, watershed
from unet.hardware import Choice
from unet.objects import Separation
from unet.runs import Settings

IS_JAX = keras.backend.backend() == "jax"
SMALL = unet.UNet(filters=(4, 8), batch_norm=True, dropout=(0.2,))
FLIPPED = {"horizontal_flip": 0.5, "vertical_flip": 0.5}
SQUASHED = unet.Recipe(size=(16, 24), model=SMALL, batch=3, threshold=0.6, augment=FLIPPED)
CROPS = dataclasses.replace(SQUASHED, record_size="native")
SEPARATION = Separation(least_area=2)


def batches(count: int, size=(16, 24)):
    """Images and masks with the ignore label."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        image = rng.integers(0, 256, (3, *size, 3), np.uint8)
        mask = rng.choice(np.array([0, 1, 255], np.uint8), (3, *size, 1))
        yield image, mask


def made(recipe=SQUASHED, **optimizer: Any) -> tuple[Any, Any]:
    keras.utils.set_random_seed(7)
    network = unet.build(recipe)
    return network, keras.optimizers.Adam(1e-2, **optimizer)


def values(owner) -> list[np.ndarray]:
    found: Any = [keras.ops.convert_to_numpy(variable) for variable in owner.variables]
    return found


@pytest.mark.parametrize("name", unet.__all__)
def test_public_names_are_there_documented_and_in_help(name):
    assert getattr(unet, name).__doc__ or name == "RECIPES"  # a mapping
    assert name in dir(unet)
    assert name in pydoc.render_doc(unet, renderer=pydoc.plaintext)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="trian_step"):
        _ = unet.trian_step  # pyright: ignore[reportAttributeAccessIssue]


def test_a_network_is_built_of_settings_a_recipe_or_a_name():
    for what in (SMALL, SQUASHED, "carvana"):
        settings = unet.RECIPES[what].model if isinstance(what, str) else SMALL
        network = unet.build(what)
        assert network.count_params() == settings.parameters
        assert network.output_shape == (None, None, None, 1)
    with pytest.raises(ValueError, match="'carvanna' is not a recipe"):
        unet.build("carvanna")


@pytest.mark.parametrize("options", [{}, {"use_ema": True, "ema_momentum": 0.9, "clipnorm": 0.1}])
def test_steps_are_those_of_keras_own_training(options):
    network, optimizer = made(**options)
    step = unet.train_step(network, optimizer, unet.losses.cross_entropy_dice)
    variables, losses = unet.Variables.of(network, optimizer), []
    for image, mask in batches(4):
        variables, loss = step(variables, image, mask)
        losses.append(float(loss))
    variables.put_into(network, optimizer)

    other, own = made(**options)
    other.compile(optimizer=own, loss=unet.losses.cross_entropy_dice, jit_compile=IS_JAX)
    for (image, mask), loss in zip(batches(4), losses, strict=True):
        other.reset_metrics()
        assert other.train_on_batch(image, mask) == pytest.approx(loss, rel=1e-4)
    for mine, theirs in zip(values(network), values(other), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-5)
    for mine, theirs in zip(values(optimizer), values(own), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-5)
    assert losses[-1] < losses[0]


def test_the_trainers_own_step_is_the_same():
    recipe = dataclasses.replace(SQUASHED, loss="dice", schedule="cosine", clip_norm=0.5)
    keras.utils.set_random_seed(3)
    theirs = train.compiled(recipe, steps_per_epoch=4, xla=IS_JAX)
    keras.utils.set_random_seed(3)
    network = unet.build(recipe)
    from unet import optimizers

    optimizer = optimizers.build(recipe, network.trainable_variables, steps_per_epoch=4)
    step = unet.train_step(network, optimizer, unet.losses.chosen(**recipe.loss_settings))
    variables = unet.Variables.of(network, optimizer)
    for image, mask in batches(3):
        variables, _ = step(variables, image, mask)
        theirs.train_on_batch(image, mask)
    variables.put_into(network, optimizer)
    for mine, other in zip(values(network), values(theirs), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(not IS_JAX, reason="on TensorFlow a step changes its variables in place")
def test_a_step_is_pure_on_jax():
    import jax

    network, optimizer = made()
    before = values(network)
    step = unet.train_step(network, optimizer, unet.losses.dice)
    variables = unet.Variables.of(network, optimizer)
    ((image, mask),) = batches(1)
    twice = [step(variables, image, mask) for _ in range(2)]
    for one, other in zip(*map(jax.tree.leaves, twice), strict=True):
        assert np.array_equal(one, other)
    for one, other in zip(before, values(network), strict=True):
        assert np.array_equal(one, other)
    donating = jax.jit(step, donate_argnums=0)
    after, loss = donating(jax.tree.map(lambda x: x.copy(), variables), image, mask)
    assert float(loss) == pytest.approx(float(twice[0][1]))
    after.put_into(network, optimizer)
    assert not np.array_equal(before[0], values(network)[0])


@pytest.mark.skipif(IS_JAX, reason="on JAX a step takes any variables")
def test_variables_of_another_network_are_refused_on_tensorflow():
    network, optimizer = made()
    step = unet.train_step(network, optimizer, unet.losses.dice)
    other = unet.Variables.of(*made())
    ((image, mask),) = batches(1)
    with pytest.raises(ValueError, match=r"give what Variables\.of\(network, optimizer\) returns"):
        step(other, image, mask)


def trained(recipe, **more: Any) -> unet.Trained:
    return unet.Trained(network=networks.fixed(recipe.model.output_channels), recipe=recipe, **more)


def drawn(shape: tuple[int, ...], dtype: Any = np.uint8) -> np.ndarray:
    """Blobs of some size."""
    rng = np.random.default_rng(sum(shape))
    coarse = rng.integers(0, 2, (shape[0] // 5 + 1, shape[1] // 5 + 1, *shape[2:]))
    fine = coarse.repeat(5, 0).repeat(5, 1)[: shape[0], : shape[1]]
    return (200 * fine + rng.integers(0, 50, shape)).astype(dtype)


@pytest.mark.parametrize("recipe", [SQUASHED, CROPS])
@pytest.mark.parametrize("shape", [(16, 24), (37, 61), (5, 90), (16, 23)])
@pytest.mark.parametrize("flips", ["auto", "on"])
def test_an_array_or_a_file_is_answered_as_the_command_does(recipe, shape, flips, tmp_path):
    pixels = drawn((*shape, 3))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    asked = trained(recipe)
    wanted = results.Wanted(kinds=("mask", "probability", "labels"), separation=SEPARATION)
    (done,) = predicting.files(
        asked.served,
        [tmp_path / "a.png"],
        recipe=dataclasses.replace(recipe, flips=flips == "on"),
        classes=(),
        to=tmp_path / "to",
        wanted=wanted,
    )
    assert done.error is None
    mask, probability, labels = (np.asarray(Image.open(path)) for path in done.written)
    for given in (pixels, tmp_path / "a.png", str(tmp_path / "a.png")):
        found = unet.predict(asked, given, flips=flips)
        assert found.output.shape == (*shape, 1)
        assert found.output.dtype == np.float32
        assert np.array_equal(255 * found.mask, mask)
        assert np.array_equal(np.round(255 * found.output[..., 0]), probability)
        objects = found.objects(SEPARATION)
        assert np.array_equal(objects.labels, labels)
        assert np.array_equal(objects.labels, watershed.objects(found.mask, SEPARATION))
        assert np.array_equal(found.image, pixels)
    if flips == "auto" and (recipe is CROPS or shape == (16, 24)):
        np.testing.assert_allclose(found.output, networks.probability(pixels[None])[0], atol=1e-6)


@pytest.mark.parametrize(
    ("record_size", "shape", "seen"),
    [
        (None, (90, 40), (16, 24)),  # as large as those of the training may be
        (None, (91, 40), (36, 32)),
        (None, (30, 200), (12, 160)),
        (20, (90, 60), (20, 13)),
        (20, (100, 301), (50, 150)),  # of 40 × 30 it saw 20 × 15
        ("native", (100, 301), (100, 301)),
    ],
)
def test_an_image_far_larger_than_those_of_the_training_is_seen_at_their_scale(
    record_size, shape, seen
):
    recipe = dataclasses.replace(SQUASHED, record_size=record_size)
    asked = trained(recipe, trained_on={"height": 40, "width": 30, "longest": 60})
    pixels = drawn((*shape, 3))
    found = unet.predict(asked, pixels, flips="off")
    assert recipe.seen(*shape, trained_on=asked.trained_on) == seen
    (plain,) = networks.probability(resizing.image(pixels, seen)[None])
    wanted = Image.fromarray(plain[..., 0]).resize(shape[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_allclose(found.output[..., 0], np.asarray(wanted), atol=1e-5)
    shrunk = unet.predict(asked, pixels, flips="off", larger="shrink").output
    before = unet.predict(trained(recipe), pixels, flips="off").output
    np.testing.assert_array_equal(shrunk, before)


def test_several_classes_numbers_and_other_depths():
    softmax = unet.UNet(filters=(4, 8), output_activation="softmax", output_channels=3)
    recipe = dataclasses.replace(CROPS, model=softmax)
    pixels = drawn((37, 61, 3))
    found = unet.predict(trained(recipe, classes=("sky", "cell", "border")), pixels)
    wanted = networks.probability(pixels[None], 3)[0]
    np.testing.assert_allclose(found.output, wanted, atol=1e-6)
    assert np.array_equal(found.mask, wanted.argmax(-1))

    linear = unet.UNet(filters=(4, 8), output_activation="linear")
    recipe = dataclasses.replace(CROPS, model=linear, loss="squared_error")
    found = unet.predict(trained(recipe), pixels)
    np.testing.assert_allclose(found.output, networks.logits(pixels[None])[0], atol=1e-5)
    with pytest.raises(ValueError, match="is a regression and has no mask"):
        _ = found.mask

    deep = Scaling(low=(0.0,), high=(2550.0,), rule="a test", types=("uint16",))
    asked = trained(CROPS, scalings={"deep": deep})
    grey = 10 * drawn((37, 61), np.uint16)
    found = unet.predict(asked, grey)
    assert np.array_equal(found.image, np.dstack([grey // 10] * 3))
    with pytest.raises(ValueError, match="its pixels are uint8"):
        unet.predict(asked, pixels)


def test_what_does_not_fit_is_said():
    asked = trained(SQUASHED)
    for image in (np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8), np.zeros((0, 4), np.uint8)):
        with pytest.raises(ValueError, match=r"the image: its shape is .* give \[H, W\]"):
            unet.predict(asked, image)
    with pytest.raises(ValueError, match="its pixels are float32"):
        unet.predict(asked, np.zeros((4, 4), np.float32))
    image = np.zeros((4, 4), np.uint8)
    with pytest.raises(ValueError, match="overlap"):
        unet.predict(asked, image, overlap=0.8)
    larger: Any = "squash"
    with pytest.raises(ValueError, match="larger is 'squash'; it must be tiles or shrink"):
        unet.predict(asked, image, larger=larger)
    plain = dataclasses.replace(SQUASHED, augment={})
    with pytest.raises(ValueError, match="trained without flips"):
        unet.predict(trained(plain), image, flips="on")
    odd: Any
    for odd in (True, False, None, "yes"):
        with pytest.raises(ValueError, match=f"flips is {odd!r}; it must be auto, on or off"):
            unet.predict(asked, image, flips=odd)
    with pytest.raises(ValueError, match="like"):
        unet.predict(asked, image, like="cells")
    with pytest.raises(ValueError, match="holds no run"):
        unet.load("no/such/folder")


def test_a_run_is_loaded_with_all_that_it_keeps_and_the_policy_stays(tmp_path):
    softmax = dataclasses.replace(SMALL, output_activation="softmax", output_channels=3)
    recipe = dataclasses.replace(CROPS, model=softmax)
    deep = Scaling(low=(0.0,), high=(2550.0,), rule="a test", types=("uint16",))
    settings = Settings(
        recipe=recipe,
        choice=Choice(hardware="test", precision="float32", compile=False),
        classes=("sky", "cell", "border"),
        scalings={"deep": deep.to_json()},
    )
    run = tmp_path / "run"
    runs.create(run, settings)
    with pytest.raises(ValueError, match=r"has no best\.keras"):
        unet.load(run)
    network, _ = made(recipe)
    model.serving(network, "softmax").save(run / "best.keras")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        loaded = unet.load(str(run))
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy(before)
    assert (loaded.recipe, loaded.classes) == (recipe, settings.classes)
    assert loaded.scalings == {"deep": deep}
    for mine, theirs in zip(loaded.network.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    grey = 10 * drawn((16, 24), np.uint16)
    found = unet.predict(run, grey)
    seen = np.dstack([grey // 10] * 3).astype(np.uint8)
    # In the precision that is best here, which may be that of bfloat16.
    wanted: Any = keras.ops.softmax(loaded.network(seen[None]), axis=-1)
    np.testing.assert_allclose(found.output, np.asarray(wanted)[0], atol=1e-5)
