"""The maximum of each cell of a grid over each box: what a detector reads of a shared map.

Girshick, Fast R-CNN, 2015, section 2.1.
"""

import keras
from keras import ops

from cvlib.layers.crop_and_resize import rows_at
from cvlib.sizes import height_and_width, positive_stride

FAR = 2.0**20  # cells; further out, and not a number, counts as this far: int32 holds it


@keras.saving.register_keras_serializable(package="cvlib")
class RoIPooling(keras.layers.Layer):
    """Max pooling of a quantised grid over every box, exactly as in Fast R-CNN's release.

    A box's first and last cell are its coordinates / `stride`, rounded half away from zero; the
    last belongs to it, and it has one cell at least. Bin i of n over `extent` cells runs from cell
    floor(i * extent / n) up to, not including, ceil((i + 1) * extent / n), so that neighbours share
    cells. Bins are clipped to the map; an empty one is 0. The gradient of a bin goes to its
    first maximum in row-major order; boxes get none.

    Bins are computed in integers. In float32, as in the release and in torchvision, the last of
    7 bins over 57, 114 or 121 cells reaches one cell beyond the box.

    Memory at the peak, beside input and output: floor(log2(W)) + 1 maps as large as the features,
    twice as many for the gradient, and there three arrays as large as the output. Time grows with
    the rows of the tallest bin.

    Args:
        size: (height, width) of the grid; one number stands for both.
        stride: pixels of the image between neighbouring cells of the map.

    Call arguments:
        features: (B, H, W, C) floats.
        boxes: (B, R, 4) floats, `xyxy` in pixels of the image; kept in float32 under any policy.
            A coordinate that is not a number counts as far to the left or above.

    Returns:
        (B, R, height, width, C) in the layer's compute type.

    Raises:
        ValueError: `stride` is not above 0.
    """

    def __init__(self, size=(7, 7), stride=16, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.size = height_and_width(size)
        self.stride = positive_stride(stride)

    def call(self, features, boxes):
        features = ops.cast(features, self.compute_dtype)
        places = ops.stop_gradient(ops.cast(boxes, "float32")) / self.stride
        # Not floor(x + 0.5), which rounds 0.49999997 to 1 in float32.
        size, below = ops.abs(places), ops.floor(ops.abs(places))
        cells = whole(ops.sign(places) * (below + ops.cast(size - below >= 0.5, "float32")))
        height, width = ops.shape(features)[1:3]
        rows = bins(cells[..., 1], cells[..., 3], self.size[0], height)
        columns = bins(cells[..., 0], cells[..., 2], self.size[1], width)
        return max_of_bins(features, rows, columns)

    def compute_output_shape(self, features_shape, boxes_shape):
        return (features_shape[0], boxes_shape[1], *self.size, features_shape[3])

    def get_config(self):
        return {**super().get_config(), "size": self.size, "stride": self.stride}


def whole(cells):
    """Rounded floats as int32, not beyond `FAR`."""
    return ops.cast(ops.clip(ops.nan_to_num(cells, nan=-FAR), -FAR, FAR), "int32")


def bins(first, last, count, size):
    """Starts and ends (..., count) of bins over the cells `first` to `last`, within 0 to `size`."""
    first, extent = first[..., None], ops.maximum(last - first + 1, 1)[..., None]
    edges = extent * ops.arange(count + 1, dtype="int32")
    starts, ends = edges[..., :-1] // count, (edges[..., 1:] + count - 1) // count
    return ops.clip(first + starts, 0, size), ops.clip(first + ends, 0, size)


def max_of_bins(features, rows, columns):
    """Maxima (B, R, n, m, C) of features (B, H, W, C) over every pair of a row and a column bin.

    Any run of columns is the union of two runs of the same power of two, whose maxima, for all
    places, come from doubling; so each row of a bin costs two reads. The gradient reads in the same
    way where the first maximum of each run is.

    Args:
        features: (B, H, W, C) floats.
        rows: starts and ends (B, R, n), whole numbers in [0, H].
        columns: starts and ends (B, R, m), whole numbers in [0, W].
    """
    batch, height, width, channels = ops.shape(features)
    (top, bottom), (left, right) = rows, columns
    empty = ops.logical_or((bottom <= top)[..., None], (right <= left)[..., None, :])[..., None]
    # An empty bin reads one cell all the same, so that no read is outside the map.
    top, left = ops.minimum(top, height - 1), ops.minimum(left, width - 1)
    bottom, right = ops.maximum(bottom, top + 1), ops.maximum(right, left + 1)
    tallest = ops.max(bottom - top, initial=1)  # There may be no region.
    # Compiled for maps of any width: no bin of theirs is wider than 2 * 2 ** 9 cells.
    runs = [2**k for k in range(width.bit_length() if isinstance(width, int) else 10)]
    fits = ops.convert_to_tensor(runs, "int32") <= (right - left)[..., None]
    level = ops.sum(ops.cast(fits, "int32"), axis=-1) - 1
    image = ops.reshape(ops.arange(batch, dtype="int32"), (-1, 1, 1, 1))
    last_run = right - ops.left_shift(ops.ones_like(level), level)

    def tables(features):
        """Maxima of the runs from each cell to the right, (levels * B * H * W, C)."""
        maxima = [features]
        for run in runs[:-1]:
            maxima.append(ops.maximum(maxima[-1], ops.roll(maxima[-1], -run, axis=2)))
        return ops.reshape(ops.stack(maxima), (-1, channels))

    def first_cells(features):
        """The first cell with the maximum of each of these runs, as `tables`."""
        cells = ops.reshape(ops.arange(height * width, dtype="int32"), (1, height, width, 1))
        first = [ops.broadcast_to(cells, ops.shape(features))]
        for run in runs[:-1]:
            ahead, cells = (ops.roll(x, -run, axis=2) for x in (features, first[-1]))
            first.append(ops.where(features >= ahead, first[-1], cells))
            features = ops.maximum(features, ahead)
        return ops.reshape(ops.stack(first), (-1, channels))

    def places(i):
        """Where row i of every bin has its two runs in a table; the last row, if it has fewer."""
        row = ops.minimum(top + i, bottom - 1)[..., None]
        start = ((level[..., None, :] * batch + image) * height + row) * width
        return start + left[..., None, :], start + last_run[..., None, :]

    def row_maxima(table, i):
        return ops.maximum(*(rows_at(table, place) for place in places(i)))

    @ops.custom_gradient
    def pool(features):
        table = tables(features)
        _, maxima = ops.while_loop(
            lambda i, _: i < tallest,
            lambda i, maxima: (i + 1, ops.maximum(maxima, row_maxima(table, i))),
            (ops.ones((), "int32"), row_maxima(table, 0)),
        )

        def gradient(*_, upstream=None):
            # PyTorch passes the features too, and the upstream gradient by name.
            upstream = _[0] if upstream is None else upstream
            table, cells = tables(features), first_cells(features)
            # Nothing equals this: the gradients of empty bins go one cell beyond the last image. So
            # the sum below reads what is in memory; XLA would work out `empty` for each value.
            wanted = ops.where(empty, float("nan"), maxima)
            beyond = (batch - image[..., None]) * height * width

            def row_above(i, cell):
                """From the last row up, so that the first with the maximum is the one kept."""
                for place in reversed(places(i - 1)):
                    found = rows_at(table, place) == wanted
                    cell = ops.where(found, rows_at(cells, place), cell)
                return i - 1, cell

            _, cell = ops.while_loop(
                lambda i, _: i > 0,
                row_above,
                (tallest, ops.broadcast_to(beyond, ops.shape(maxima))),
            )
            cell = image[..., None] * height * width + cell
            channel = ops.arange(channels, dtype="int32")
            # In float32: what thousands of boxes add to a cell is lost in half precision.
            flat = ops.segment_sum(
                ops.cast(ops.reshape(upstream, (-1,)), "float32"),
                ops.reshape(cell * channels + channel, (-1,)),
                (batch * height * width + 1) * channels,
            )
            flat = ops.cast(flat[:-channels], upstream.dtype)
            return ops.reshape(flat, (batch, height, width, channels))

        return ops.where(empty, ops.zeros_like(maxima), maxima), gradient

    return pool(features)
