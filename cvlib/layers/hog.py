"""Histograms of oriented gradients, for every block of every image of a batch at once."""

import math

import keras
import numpy as np
from keras import ops

from cvlib.sizes import positive_integer


@keras.saving.register_keras_serializable(package="cvlib")
class HOG(keras.layers.Layer):
    """Where the edges of an image run, and which way, whatever the contrast.

    A pixel's gradient is the difference of its two neighbours in x and in y, without a half, in the
    channel where it is longest (of equals the first), and 0 in the outermost rows or columns. Every
    pixel votes with the length of its gradient for the direction of it. The votes are averaged in
    cells, and blocks of neighbouring cells, one beginning at each cell, are normalised together:
    divided by their norm, clipped, and divided by their norm again ("L2-Hys").

    With `interpolate` a vote is divided between the two nearest directions, and between the nearest
    cells of the block in x and in y, by distance: what belongs to cells outside of it is lost.
    These are OpenCV's histograms (without its Gaussian window). Without, a vote counts for the one
    bin and cell that it falls into, which is how scikit-image counts.

    Args:
        cell_size: side of a cell in pixels. Pixels at the right and at the bottom that fill no cell
            are left out.
        bins: how many directions there are. The first bin begins at 0, the direction of x.
        signed: whether dark to bright is another direction than bright to dark, so that directions
            fill 360 degrees instead of 180.
        block_size: cells on a side of a block, b.
        clip: the largest value after the first normalisation.
        interpolate: see above.
        epsilon: a length beside which block norms are large; that of scikit-image.

    Call arguments:
        images: (B, H, W, C), of any type.

    Returns:
        (B, H // cell_size - b + 1, W // cell_size - b + 1, b * b * bins): each block's cells row by
        row, with the bins of one after those of the other.

    Raises:
        ValueError: `cell_size`, `bins` or `block_size` is not a positive integer, or the image is
            smaller than a block.

    Source: Dalal and Triggs 2005, section 6.
    """

    def __init__(
        self,
        cell_size=8,
        bins=9,
        signed=False,
        block_size=2,
        clip=0.2,
        interpolate=True,
        epsilon=1e-5,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.cell_size = positive_integer("cell_size", cell_size)
        self.bins = positive_integer("bins", bins)
        self.signed = signed
        self.block_size = positive_integer("block_size", block_size)
        self.clip = clip
        self.interpolate = interpolate
        self.epsilon = epsilon
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, images):
        c, b, bins = self.cell_size, self.block_size, self.bins
        height, width = images.shape[1:3]
        rows, columns = self._blocks(height), self._blocks(width)
        length, angle = _gradient(ops.cast(images, "float32"))
        turn = ops.mod(angle / (2 * math.pi if self.signed else math.pi) * bins, bins)
        place = turn - 0.5 if self.interpolate else ops.floor(turn)
        # A hat for each direction, and one more at both ends, which are the same directions again.
        hats = ops.reshape(ops.arange(-1, bins + 1, dtype="float32"), (-1, 1, 1))
        votes = length[:, None] * ops.relu(1 - ops.abs(place[:, None] - hats))
        votes = votes[..., : height // c * c, : width // c * c]

        x = self._in_blocks(ops.reshape(votes, (-1, width // c, c)))
        x = ops.reshape(x, (-1, height // c * c, columns * b))
        x = self._in_blocks(ops.reshape(ops.swapaxes(x, 1, 2), (-1, height // c, c)))
        x = ops.reshape(x, (-1, bins + 2, columns, b, rows, b))
        same = np.eye(bins, dtype="float32")[np.arange(-1, bins + 1) % bins]
        x = ops.matmul(ops.transpose(x, (0, 4, 2, 5, 3, 1)), same) / c**2
        x = ops.reshape(x, (-1, rows, columns, b * b * bins))
        x = self._normalised(ops.minimum(self._normalised(x), self.clip))
        return ops.cast(x, self.compute_dtype)

    def _blocks(self, length):
        number = length // self.cell_size - self.block_size + 1
        if number < 1:
            raise ValueError(
                f"An image of {length} rows or columns has no block of {self.block_size} cells "
                f"of {self.cell_size} pixels."
            )
        return number

    def _in_blocks(self, votes):
        """Votes (M, cells, pixels of each) of lines, summed in the cells of blocks (M, n, b)."""
        c, b = self.cell_size, self.block_size
        cells = np.arange(b)
        pixels = np.arange(b * c) + 0.5
        if self.interpolate:
            share = np.maximum(1 - np.abs(pixels[:, None] / c - 0.5 - cells), 0)
        else:
            share = pixels[:, None] // c == cells
        # For each cell of a line what it gives to a block whose k-th cell it is.
        share = np.swapaxes(share.reshape(b, c, b), 0, 1).reshape(c, b * b)
        shared = ops.matmul(votes, np.float32(share))
        number = votes.shape[1] - b + 1
        return sum(shared[:, k : k + number, k * b : (k + 1) * b] for k in range(b))

    def _normalised(self, x):
        return x / ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + self.epsilon**2)

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        size = self.block_size**2 * self.bins
        return (batch, self._blocks(height), self._blocks(width), size)

    def get_config(self):
        return {
            **super().get_config(),
            "cell_size": self.cell_size,
            "bins": self.bins,
            "signed": self.signed,
            "block_size": self.block_size,
            "clip": self.clip,
            "interpolate": self.interpolate,
            "epsilon": self.epsilon,
        }


def _gradient(images):
    """Length and angle in -pi..pi (B, H, W) of the gradient in the channel where it is longest."""
    x = ops.pad(images[:, :, 2:] - images[:, :, :-2], ((0, 0), (0, 0), (1, 1), (0, 0)))
    y = ops.pad(images[:, 2:] - images[:, :-2], ((0, 0), (1, 1), (0, 0), (0, 0)))
    square = ops.square(x) + ops.square(y)
    best = [part[..., 0] for part in (x, y, square)]
    for channel in range(1, images.shape[-1]):
        other = [part[..., channel] for part in (x, y, square)]
        longer = other[2] > best[2]
        best = [ops.where(longer, new, old) for new, old in zip(other, best, strict=True)]
    x, y, square = best
    # Neither the root nor the angle of 0 has a derivative.
    some = square > 0
    length = ops.where(some, ops.sqrt(ops.where(some, square, 1.0)), 0.0)
    return length, ops.arctan2(y, ops.where(some, x, 1.0))
