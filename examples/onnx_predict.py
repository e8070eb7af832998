"""A mask from an ONNX file of `unet export`, without Keras: onnx_predict.py MODEL IMAGE MASK."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

model, photo, to = sys.argv[1:]
session = onnxruntime.InferenceSession(model)
about = json.loads(session.get_modelmeta().custom_metadata_map["unet"])
image = Image.open(photo).convert("RGB")
stride = about["input"]["multiple_of"]
height, width = about["input"]["size"] or (side // stride * stride for side in image.size[::-1])
seen = (
    image.resize((width, height)) if about["input"]["size"] else image.crop((0, 0, width, height))
)
mask, probability = session.run(["mask", "probability"], {"image": np.asarray(seen)[None]})
Image.fromarray(mask[0] * np.uint8(255 if mask.max() < 2 else 1)).save(to)
