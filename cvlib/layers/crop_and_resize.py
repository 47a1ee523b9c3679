"""Boxes of an image, each resampled to the same size: what a second look at a place sees."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="cvlib")
class CropAndResize(keras.layers.Layer):
    """Bilinear crops of boxes, in continuous pixels and half-pixel aligned.

    Output cell (i, j) is the image at the centre of cell (i, j) of a grid of `size` cells over the
    box, interpolated between the centres of the four pixels around it; outside the image all is 0.
    The weights of rows and of columns are independent of each other, so a crop is two matrix
    products. Nothing is averaged where the crop shrinks the image. Differentiable in the images
    and in the boxes.

    Args:
        size: (height, width) of the crops.

    Call arguments:
        images: (B, H, W, C) in any numeric type.
        boxes: (B, R, 4) floats, `xyxy` in pixels of the images; float32 or more under any policy.

    Returns:
        (B, R, height, width, C) in the layer's compute type.

    Source: the bilinear warp of Dai et al. 2016 (Multi-task Network Cascades), section 3.2.
    """

    def __init__(self, size, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.size = tuple(size)

    def call(self, images, boxes):
        images = ops.cast(images, self.compute_dtype)
        boxes = ops.cast(boxes, "float64" if self.compute_dtype == "float64" else "float32")
        height, width = ops.shape(images)[1:3]
        rows = self._weights(boxes[..., 1], boxes[..., 3], self.size[0], height)
        columns = self._weights(boxes[..., 0], boxes[..., 2], self.size[1], width)
        return resample(images, rows, columns)

    def _weights(self, start, end, cells, pixels):
        """Weights (B, R, cells, pixels) of the pixels along one side."""
        return bilinear(centres(start, end, cells), pixels)

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


def resample(images, rows, columns):
    """Samples (B, R, i, j, C) of images (B, H, W, C): weights (B, R, i, H), then (B, R, j, W)."""
    rows, columns = (ops.cast(weights, images.dtype) for weights in (rows, columns))
    # One product for each row, of which no side must be transposed. (`ops.matmul` makes float32 of
    # float64 on PyTorch.)
    return columns[:, :, None] @ ops.einsum("brih,bhwc->briwc", rows, images)
