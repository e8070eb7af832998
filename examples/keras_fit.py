"""A U-Net of one's own with Keras: `python examples/keras_fit.py --data_dir DATA`."""

import argparse

import keras

import segdata

parser = argparse.ArgumentParser()
parser.add_argument("--data_dir", required=True, help="where `segdata build dsb2018` put it")
parser.add_argument("--epochs", type=int, default=2)
asked = parser.parse_args()

what = {"size": (64, 64), "batch": 8, "data_dir": asked.data_dir}
augment = segdata.Augment(horizontal_flip=0.5, quarter_turns=True, contrast_range=(0.8, 1.25))
train = segdata.train_batches("dsb2018", "train", augment=augment, seed=0, **what)
validation = segdata.eval_batches("dsb2018", "validation", **what)

layers = keras.layers
inputs = keras.Input((64, 64, 3))
fine = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.Rescaling(1 / 255)(inputs))
coarse = layers.Conv2D(32, 3, padding="same", activation="relu")(layers.MaxPooling2D(4)(fine))
joined = layers.Concatenate()([fine, layers.UpSampling2D(4, interpolation="bilinear")(coarse)])
network = keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid")(joined))
network.compile(optimizer="adam", loss="binary_crossentropy", jit_compile=False)
network.fit(train, epochs=asked.epochs, validation_data=validation)
