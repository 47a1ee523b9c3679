"""Boxes of an image, each resampled to the same size: what a second look at a place sees."""

import keras
from keras import ops

from cvlib.sizes import height_and_width


@keras.saving.register_keras_serializable(package="cvlib")
class CropAndResize(keras.layers.Layer):
    """Bilinear crops of boxes, in continuous pixels and half-pixel aligned.

    Output cell (i, j) is the image at the centre of cell (i, j) of a grid of `size` cells over the
    box, interpolated between the centres of the four pixels around it; outside the image all is 0.
    Nothing is averaged where the crop shrinks the image. Differentiable in the images and in the
    boxes.

    Args:
        size: (height, width) of the crops; one number stands for both.

    Call arguments:
        images: (B, H, W, C) in any numeric type.
        boxes: (B, R, 4) floats, `xyxy` in pixels of the images; float32 or more under any policy.

    Returns:
        (B, R, height, width, C) in the layer's compute type.

    Source: the bilinear warp of Dai et al. 2016 (Multi-task Network Cascades), section 3.2.
    """

    def __init__(self, size, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.size = height_and_width(size)

    def call(self, images, boxes):
        images = ops.cast(images, self.compute_dtype)
        boxes = ops.cast(boxes, "float64" if self.compute_dtype == "float64" else "float32")
        return self._crops(images, boxes)

    def _crops(self, images, boxes):
        y = centres(boxes[..., 1], boxes[..., 3], self.size[0])
        x = centres(boxes[..., 0], boxes[..., 2], self.size[1])
        return sample(images, y, x)

    def compute_output_shape(self, images_shape, boxes_shape):
        return (images_shape[0], boxes_shape[1], *self.size, images_shape[3])

    def get_config(self):
        return {**super().get_config(), "size": self.size}


def centres(start, end, cells):
    """Coordinates (..., cells), in indices of pixels, of the centres of equal cells over a box."""
    steps = (ops.arange(cells, dtype=start.dtype) + 0.5) / cells
    return start[..., None] + (end - start)[..., None] * steps - 0.5


def bilinear(places, pixels):
    """Weights (..., pixels) of a row of pixels at `places`, in indices; outside all is 0."""
    # Of the two pixels around each place. The shorter max(1 - distance, 0) has slopes that
    # contradict each other where a place meets a pixel's centre, and other ones on every backend.
    places = places[..., None]
    before = ops.floor(places)
    share = places - before
    pixel = ops.arange(pixels, dtype=places.dtype)
    return ops.where(pixel == before, 1 - share, ops.where(pixel == before + 1, share, 0.0))


def extended(start, end, cells, pixels):
    """`bilinear` weights (..., cells, pixels) at the `centres` of cells over a box; outside the row
    goes on as it ends."""
    places = centres(start, end, cells)
    return bilinear(ops.clip(places, 0, ops.cast(pixels - 1, places.dtype)), pixels)


def sample(images, y, x):
    """Bilinear samples (B, R, i, j, C) of images (B, H, W, C), outside of which all is 0.

    Args:
        images: (B, H, W, C) floats.
        y, x: (B, R, i) and (B, R, j), in indices of pixels.
    """
    batch, height, width, channels = ops.shape(images)
    pixels = ops.reshape(images, (-1, channels))
    image = ops.reshape(ops.arange(batch, dtype="int32"), (-1, 1, 1))
    # On images, which are large and have few channels, four reads are as fast as `resample`, which
    # multiplies by matrices that are nearly all 0, or many times faster (`crops_cost`). On the maps
    # of networks `resample` was faster in trials but with XLA, and so was its gradient.
    found = 0.0
    for row, of_row in _neighbours(y, height):
        for column, of_column in _neighbours(x, width):
            place = (width * (height * image + row))[..., None] + column[..., None, :]
            weight = of_row[..., None] * of_column[..., None, :]
            found += ops.cast(weight, images.dtype)[..., None] * rows_at(pixels, place)
    return found


def resample(images, rows, columns):
    """Samples (B, R, i, j, C) of images (B, H, W, C): weights (B, R, i, H), then (B, R, j, W)."""
    rows, columns = (ops.cast(weights, images.dtype) for weights in (rows, columns))
    # One product for each row, of which no side must be transposed. (`ops.matmul` makes float32 of
    # float64 on PyTorch.)
    return columns[:, :, None] @ ops.einsum("brih,bhwc->briwc", rows, images)


def rows_at(table, places):
    """Rows (..., C) of a table (N, C); also of one without rows, if there are no places."""
    # All places in one row: of no rows Keras's `take` gives another shape with JAX.
    rows = ops.take(table, ops.reshape(places, (-1,)), axis=0)
    return ops.reshape(rows, (*ops.shape(places), table.shape[-1]))


def _neighbours(places, pixels):
    """The two pixels around each place, and their weights, 0 outside."""
    before = ops.floor(places)
    share = places - before
    for index, weight in ((before, 1 - share), (before + 1, share)):
        # False for what is not a number.
        inside = ops.logical_and(index >= 0, index < ops.cast(pixels, index.dtype))
        yield ops.cast(ops.where(inside, index, 0.0), "int32"), ops.where(inside, weight, 0.0)
