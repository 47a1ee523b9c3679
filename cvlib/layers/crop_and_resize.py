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
        boxes: (B, R, 4) floats, `xyxy` in pixels of the images; kept in float32 under any policy.

    Returns:
        (B, R, height, width, C) in the layer's compute type.

    Source: the bilinear warp of Dai et al. 2016 (Multi-task Network Cascades), section 3.2.
    """

    def __init__(self, size, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.size = tuple(size)

    def call(self, images, boxes):
        images = ops.cast(images, self.compute_dtype)
        boxes = ops.cast(boxes, "float32")
        height, width = ops.shape(images)[1:3]
        columns = _bilinear(boxes[..., 0], boxes[..., 2], self.size[1], width)
        rows = _bilinear(boxes[..., 1], boxes[..., 3], self.size[0], height)
        columns, rows = (ops.cast(w, self.compute_dtype) for w in (columns, rows))
        rows_cropped = ops.einsum("brih,bhwc->briwc", rows, images)
        return ops.einsum("brjw,briwc->brijc", columns, rows_cropped)

    def compute_output_shape(self, images_shape, boxes_shape):
        return (images_shape[0], boxes_shape[1], *self.size, images_shape[3])

    def get_config(self):
        return {**super().get_config(), "size": self.size}


def _bilinear(start, end, cells, pixels):
    """Weights (..., cells, pixels) of the pixels at the centres of cells from `start` to `end`."""
    steps = (ops.arange(cells, dtype="float32") + 0.5) / cells
    places = (start[..., None] + (end - start)[..., None] * steps - 0.5)[..., None]
    # Of the two pixels around each centre. The shorter max(1 - distance, 0) has slopes that
    # contradict each other where a centre meets a pixel's, and other ones on every backend.
    before = ops.floor(places)
    share = places - before
    pixel = ops.arange(pixels, dtype="float32")
    return ops.where(pixel == before, 1 - share, ops.where(pixel == before + 1, share, 0.0))
