"""A small U-Net on Keras, trained on any iterable of images and masks."""
