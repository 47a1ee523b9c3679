import numpy as np
import pytest


@pytest.fixture
def picture():
    """Two discs and a bar on ground, (96, 128, 3) uint8."""
    y, x = np.mgrid[:96, :128] + 0.5
    image = np.full((96, 128, 3), (90, 120, 60), np.uint8)
    image[np.hypot(y - 28, x - 32) < 18] = (200, 40, 40)
    image[np.hypot(y - 60, x - 90) < 24] = (40, 60, 200)
    image[78:90, 8:60] = (240, 230, 80)
    noise = np.random.default_rng(0).integers(-6, 7, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def objects():
    """The boxes of the discs and of the bar."""
    return np.array([[14, 10, 50, 46], [66, 36, 114, 84], [8, 78, 60, 90]], np.float32)
