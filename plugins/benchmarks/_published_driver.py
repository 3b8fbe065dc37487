"""The published corruptions' package, driven from outside. Runs in an environment of its own: standard library, NumPy.

Reads one JSON request a line from standard input, answers with one JSON object a line. Images travel as .npy files.
"""

import json
import sys
import time
import warnings

warnings.simplefilter("ignore")  # the package is older than what it calls

import cv2  # noqa: E402
import imagecorruptions.corruptions as published  # noqa: E402
import numpy as np  # noqa: E402
from skimage import filters  # noqa: E402

cv2.setNumThreads(1)


def gaussian(image, sigma=1, *, multichannel=False, **options):
    """Call scikit-image's filter by the name that its channels have had since 0.19."""
    return filters.gaussian(image, sigma, channel_axis=-1 if multichannel else None, **options)


published.gaussian = gaussian


def corrupt(image, name, severity):
    """Return the corrupted image, uint8, as the package's own entry does, and as cheaply."""
    from imagecorruptions import corrupt as entry

    return entry(image, corruption_name=name, severity=severity)


def write(request):
    """Corrupt every image `draws` times, each time anew, into (draws, N, H, W, 3)."""
    images = np.load(request["images"])
    np.random.seed(request["seed"])  # the package draws from the global stream
    made = [[corrupt(image, request["name"], request["severity"]) for image in images] for _ in range(request["draws"])]
    np.save(request["to"], np.asarray(made, dtype=np.uint8))
    return {}


def rate(request):
    """Return the images per second of one pass over the images, repeated until it has taken `seconds`."""
    images, done, began = np.load(request["images"]), 0, time.perf_counter()
    while (taken := time.perf_counter() - began) < request["seconds"]:
        corrupt(images[done % len(images)], request["name"], request["severity"])
        done += 1
    return {"per_s": done / taken}


for line in sys.stdin:
    asked = json.loads(line)
    print(json.dumps({"write": write, "rate": rate}[asked["do"]](asked)), flush=True)
