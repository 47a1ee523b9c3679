"""Training on several devices, which here are one that says it is two."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ON_TWO_DEVICES = """
import keras, numpy as np
from cvlib.models import YOLO, backbone
from tests.models.training import squares

def history():
    keras.utils.set_random_seed(1)
    yolo = YOLO(backbone("tiny"), 3, (64, 64), grid=4, convolutions=(), hidden=8)
    yolo.compile(keras.optimizers.SGD(1e-3))
    images, y = squares(16)
    losses = yolo.fit(images, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history["loss"]
    devices = {d for v in yolo.trainable_variables for d in v.value.sharding.device_set}
    return losses, len(devices)

one, one_device = history()
keras.distribution.set_distribution(keras.distribution.DataParallel())
two, two_devices = history()
print(one, two)
assert (one_device, two_devices) == (1, 2)
np.testing.assert_allclose(two, one, rtol=1e-4)
"""


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="keras.distribution is for JAX")
def test_two_devices_have_the_loss_of_one():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "KERAS_BACKEND": "jax"}
    subprocess.run(
        [sys.executable, "-c", ON_TWO_DEVICES],
        check=True,
        env=os.environ | flags,
        cwd=Path(__file__).parents[2],
    )
