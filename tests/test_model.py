import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pytest

from unet import model
from unet.model import FCN, UNet
from unet.recipes import RECIPES

TINY = UNet(filters=(2, 3, 4))


@pytest.fixture
def policy():
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        (RECIPES["dsb2018-generator"].model, 1_962_625),
        (RECIPES["dsb2018-dropout"].model, 1_941_105),
        (RECIPES["carvana-fcn"].model, 2_879_489),
        (RECIPES["carvana-unet"].model, 34_550_273),
        (RECIPES["unet-batchnorm"].model, 31_055_297),
    ],
)
def test_published_parameter_counts_are_met_exactly(settings, parameters):
    assert settings.parameters == parameters
    assert model.build(settings).count_params() == parameters


@pytest.mark.parametrize(
    "settings",
    [
        TINY,
        UNet(filters=(2, 3, 4), upsampling="transposed", transposed_kernel=3, batch_norm=True),
        UNet(filters=(2, 3), dropout=(0.1, 0.5), activation="leaky_relu", convolutions=3),
        UNet(filters=(2, 3), skips=False),
        UNet(filters=(2, 3), stem_stride=2, standardise=True),
        UNet(filters=(2, 3), stem_stride=2, upsampling="transposed"),
        UNet(filters=(2, 3), stem_stride=2, image_skip=True, head_filters=4),
        UNet(filters=(2,), image_skip=True),
        UNet(filters=(2, 3), convolutions=1, padding="valid"),
        UNet(filters=(2,), convolutions=3, padding="valid", stem_stride=2, standardise=True),
        UNet(filters=(2,), output_channels=3, output_activation="softmax"),
        UNet(filters=(2, 3), head_filters=5),
        FCN(filters=(2, 3)),
        FCN(filters=(3,), output_channels=3, output_activation="softmax", activation="elu"),
    ],
)
def test_every_image_that_the_stride_divides_gives_as_many_pixels(settings):
    network = model.build(settings)
    assert network.count_params() == settings.parameters
    for height, width in ((8, 12), (16, 8)):
        output = np.asarray(network(images(2, height, width)))
        assert output.shape == (2, height, width, settings.output_channels)
        assert output.dtype == np.float32


@pytest.mark.parametrize(
    "settings",
    [
        UNet(filters=(2, 3), stem_stride=2, batch_norm=True, image_skip=True),
        UNet(filters=(2, 3), convolutions=1, padding="valid", upsampling="transposed"),
        FCN(filters=(2, 3)),
    ],
)
def test_channels_come_last_whatever_keras_is_told(settings):
    """As `image_data_format` in ~/.keras/keras.json tells it."""
    plain, given = model.build(settings), images(2, 8, 12)
    keras.config.set_image_data_format("channels_first")
    try:
        network = model.build(settings)
        assert keras.config.image_data_format() == "channels_first"
        network.set_weights(plain.get_weights())
        found = network.predict_on_batch(given)
    finally:
        keras.config.set_image_data_format("channels_last")
    np.testing.assert_array_equal(found, plain.predict_on_batch(given))


def test_the_published_network_takes_184_pixels_more_than_it_gives():
    margin, cut, end = UNet(filters=(64, 128, 256, 512, 1024), padding="valid").margins
    # Its figure: 572 to 388 pixels, skips of 568, 280, 136, 64 cut to 392, 200, 104, 56.
    assert 2 * (margin - end) == 572 - 388
    assert cut == ((568 - 392) // 2, (280 - 200) // 2, (136 - 104) // 2, (64 - 56) // 2)


@pytest.mark.parametrize("levels", [1, 2, 4])
@pytest.mark.parametrize("convolutions", [1, 3])
@pytest.mark.parametrize("stem", [1, 2])
def test_without_padding_no_pixel_depends_on_what_is_beyond_the_mirrored_image(
    levels, convolutions, stem
):
    """A window of a larger image, which continues as the mirror does, gives the same."""
    settings = UNet(
        filters=(3,) * levels, convolutions=convolutions, stem_stride=stem, padding="valid"
    )
    network = model.build(settings)
    for weight in network.weights:  # of biases too, which are 0 at first
        weight.assign(np.random.default_rng(1).normal(0, 0.4, weight.shape))
    margin = settings.margins[0]
    side = settings.stride * -(-(margin + 1) // settings.stride)
    image = images(1, side, side + settings.stride)
    more = settings.stride * -(-margin // settings.stride)
    beyond = np.pad(image, [(0, 0), (more, more), (more, more), (0, 0)], "reflect")
    inner = np.asarray(network(beyond))[:, more:-more, more:-more]
    np.testing.assert_allclose(np.asarray(network(image)), inner, rtol=1e-4, atol=1e-4)


def test_one_rate_of_dropout_is_for_all_levels():
    one = UNet(filters=(2, 3), dropout=(0.25,))
    rates = [x.rate for x in model.build(one).layers if isinstance(x, keras.layers.Dropout)]
    assert rates == [0.25] * 3
    assert not any("dropout" in x.name for x in model.build(TINY).layers)


def test_the_two_deepest_blocks_alone_drop_out_where_it_was_published_so():
    network = model.build(RECIPES["carvana-unet"].model)
    rates = [x.rate for x in network.layers if isinstance(x, keras.layers.Dropout)]
    assert rates == [0, 0, 0, 0.3, 0.3, 0, 0, 0, 0]
    by_level = UNet(filters=(2, 3, 4), dropout=(0.1, 0.2, 0.3))
    assert by_level.rates == (0.1, 0.2, 0.3, 0.2, 0.1)


def test_a_plain_decoder_mirrors_its_encoder():
    layers = [
        (type(x).__name__, x.filters, x.strides[0])
        for x in model.build(FCN(filters=(2, 3))).layers
        if isinstance(x, keras.layers.Conv2D | keras.layers.Conv2DTranspose)
    ]
    down, up = "Conv2D", "Conv2DTranspose"
    assert layers == [
        *((down, 2, 2), (down, 2, 1), (down, 3, 2), (down, 3, 1)),
        *((up, 3, 1), (up, 3, 2), (up, 2, 1), (up, 2, 2)),
        (down, 1, 1),
    ]


@pytest.mark.parametrize(("channels", "head"), [(1, "sigmoid"), (3, "softmax"), (1, "linear")])
def test_a_model_gives_logits_and_one_for_serving_what_the_head_makes_of_them(channels, head):
    settings = UNet(filters=(2, 3), output_activation=head, output_channels=channels)
    network: Any = model.build(settings)
    logits = np.asarray(network(images(4, 8, 8)), np.float64)
    assert logits.std() > 1e-4
    output = np.asarray(model.serving(network, head)(images(4, 8, 8)))
    odds = np.exp(logits)
    wanted = {
        "sigmoid": odds / (1 + odds),
        "softmax": odds / odds.sum(axis=-1, keepdims=True),
        "linear": logits,
    }
    assert np.allclose(output, wanted[head], atol=1e-6)


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16"])
def test_the_output_is_float32_whatever_the_policy(policy, name):
    policy(name)
    network = model.build(UNet(filters=(2, 3), batch_norm=True, standardise=True))
    assert np.asarray(network(images(1, 8, 8))).dtype == np.float32
    assert network.weights[0].dtype == "float32"


def test_a_standardised_image_looks_the_same_brighter_and_steeper():
    network = model.build(UNet(filters=(4, 4), standardise=True, initializer="he_normal"))
    dim = images(1, 16, 16) // 4
    bright = 3 * dim + 40
    assert np.allclose(network(dim), network(bright), rtol=0.1, atol=0.02)
    assert not np.allclose(network(dim), 0, atol=0.02)


def test_a_flat_image_is_standardised_to_zero():
    network = model.build(UNet(filters=(4, 4), standardise=True))
    assert np.allclose(network(np.full((1, 8, 8, 3), 77, np.uint8)), 0, atol=1e-3)


def test_a_saved_model_computes_the_same(tmp_path):
    network = model.build(UNet(filters=(2, 3), stem_stride=2, standardise=True, batch_norm=True))
    network.save(tmp_path / "model.keras")
    again: Any = keras.models.load_model(tmp_path / "model.keras")
    assert np.array_equal(network(images(2, 8, 8)), again(images(2, 8, 8)))


OPEN = """
import sys, keras, numpy
network = keras.models.load_model(sys.argv[1])
assert not any(name.startswith("unet") for name in sys.modules)
numpy.save(sys.argv[2], network.predict_on_batch(numpy.load(sys.argv[3])))
"""


@pytest.mark.heavy
def test_a_saved_model_opens_without_this_package(tmp_path):
    network = model.build(UNet(filters=(2, 3), stem_stride=2, standardise=True, batch_norm=True))
    served: Any = model.serving(network, "sigmoid")
    served.save(tmp_path / "model.keras")
    np.save(tmp_path / "in.npy", images(2, 8, 12))
    files = [str(tmp_path / name) for name in ("model.keras", "out.npy", "in.npy")]
    subprocess.run([sys.executable, "-c", OPEN, *files], check=True, cwd=tmp_path)
    assert np.allclose(np.load(tmp_path / "out.npy"), served(images(2, 8, 12)), atol=1e-6)


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("standardise", [False, True])
def test_the_input_is_scaled_and_folded(patch, standardise):
    image = keras.Input((None, None, 3), dtype="uint8")
    scaled = model._folded(model._scaled(image, standardise=standardise), patch)
    found = np.asarray(keras.Model(image, scaled)(images(2, 4, 6)))
    x = images(2, 4, 6).astype(np.float64) / 255
    if standardise:
        axes: Any = {"axis": (1, 2, 3), "keepdims": True}
        x = (x - x.mean(**axes)) / (x.std(**axes) + 1 / 255)
    height, width = 4 // patch, 6 // patch
    x = x.reshape(2, height, patch, width, patch, 3).transpose(0, 1, 3, 2, 4, 5)
    assert np.allclose(found, x.reshape(2, height, width, -1), atol=1e-5)


def test_the_seed_alone_decides_the_first_weights():
    """Nothing else draws before the first layer does."""
    keras.utils.set_random_seed(7)
    network = model.build(UNet(filters=(2, 3)))
    keras.utils.set_random_seed(7)
    plain = keras.layers.Conv2D(2, 3, kernel_initializer="glorot_uniform")
    plain.build((None, 8, 8, 3))
    first = next(layer for layer in network.layers if layer.weights)
    np.testing.assert_array_equal(first.get_weights()[0], plain.get_weights()[0])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("filters", ()),
        ("filters", (4, 0)),
        ("convolutions", 0),
        ("dropout", (0.1, 0.2)),
        ("dropout", (0, 0, 0, 0, 1.0)),
        ("upsampling", "cubic"),
        ("transposed_kernel", 4),
        ("padding", "reflect"),
        ("stem_stride", 3),
        ("head_filters", -1),
        ("output_channels", 0),
        ("output_activation", "tanh"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(field, value):
    with pytest.raises(ValueError, match=field):
        UNet(**{field: value})
    if field in ("filters", "output_channels", "output_activation"):
        with pytest.raises(ValueError, match=field):
            FCN(**{field: value})


def test_one_channel_cannot_be_softmax():
    with pytest.raises(ValueError, match=r"output_channels is 1.*2 or more, with softmax"):
        UNet(output_activation="softmax")
