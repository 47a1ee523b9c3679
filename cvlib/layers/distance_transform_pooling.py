"""Where a part fits best near the place at which it belongs, for every place of a map at once."""

import keras
from keras import ops

from cvlib.sizes import positive_integer


@keras.saving.register_keras_serializable(package="cvlib")
class DistanceTransformPooling(keras.layers.Layer):
    """A maximum that costs more the farther away it is: the generalised distance transform.

    Each channel holds how well a part fits at each place. A part belongs at place p, and may move
    by d = (dy, dx), at most `reach` cells each way, for a price that each channel has to itself:

        score(p) = max over d of  fit(p + d) - (ay dy^2 + by dy + ax dx^2 + bx dx)

    No part leaves the map. Of equal maxima the first displacement, row by row, counts.

    The price is a sum over rows and columns, so the maximum over a square is one over columns, then
    one over rows, of 2 `reach` + 1 values each: the result is exact, and the work grows with the
    number of pixels. The known algorithm without a bound, the lower envelope of parabolas
    (Felzenszwalb and Huttenlocher 2012), finds one parabola after the other, which does not suit
    whole arrays; and the released deformable parts model bounds parts to 4 cells too.

    Args:
        reach: how many cells a part may move each way.
        strides: distance in cells of the places p, in both directions, from (0, 0) on.

    Call arguments:
        inputs: (B, H, W, C), how well each part fits.

    Returns:
        `{"scores": (B, h, w, C), "displacements": (B, h, w, C, 2)}`, h = ceil(H / strides), w
        likewise; displacements are int32 (dy, dx).

    Raises:
        ValueError: `reach` or `strides` is not a positive integer.

    Attributes:
        deformation: (C, 4) weights (ay, by, ax, bx), at first 0.1 for the squares and 0.

    Source: Felzenszwalb, Girshick, McAllester and Ramanan 2010, section 3.3; as a layer in Girshick
    et al. 2015, "Deformable Part Models are Convolutional Neural Networks".
    """

    def __init__(self, reach=4, strides=1, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.reach = positive_integer("reach", reach)
        self.strides = positive_integer("strides", strides)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        price = keras.initializers.Constant([0.1, 0, 0.1, 0])
        shape = input_shape[-1], 4
        self.deformation = self.add_weight(shape, price, autocast=False, name="deformation")

    def call(self, inputs):
        ay, by, ax, bx = ops.unstack(ops.transpose(self.deformation), 4)
        scores, (dx,) = self._moved(ops.cast(inputs, "float32"), 2, ax, bx)
        scores, (dy, dx) = self._moved(scores, 1, ay, by, dx)
        return {
            "scores": ops.cast(scores, self.compute_dtype),
            "displacements": ops.stack([dy, dx], axis=-1),
        }

    def _moved(self, scores, axis, a, b, *carried):
        """The maxima along an axis, how far away each is, and what `carried` holds there."""
        places = -(-scores.shape[axis] // self.strides)
        before = -(-self.reach // self.strides)
        after = (places + before) * self.strides - scores.shape[axis]

        def in_phases(x, fill):
            """Every `strides`-th value from the first on, from the second on, and so forth."""
            room = [(0, 0)] * 4
            room[axis] = before * self.strides, after
            x = ops.pad(x, room, constant_values=fill)
            whole = x.shape[1:axis], x.shape[axis + 1 :]
            x = ops.reshape(x, (-1, *whole[0], 2 * before + places, self.strides, *whole[1]))
            return [ops.take(x, phase, axis + 1) for phase in range(self.strides)]

        # Slices of a phase have no gaps, and are several times as fast as those with strides.
        scores = in_phases(scores, -float("inf"))
        carried = [in_phases(x, 0) for x in carried]
        best = None
        for d in range(-self.reach, self.reach + 1):
            start, phase = divmod(before * self.strides + d, self.strides)
            there = (*[slice(None)] * axis, slice(start, start + places))
            found = scores[phase][there] - (a * d**2 + b * d)
            moved = [ops.full_like(found, d, dtype="int32"), *(x[phase][there] for x in carried)]
            if best is None:
                best, kept = found, moved
            else:
                better = found > best
                best = ops.maximum(best, found)
                kept = [ops.where(better, new, old) for new, old in zip(moved, kept, strict=True)]
        return best, kept

    def compute_output_shape(self, input_shape):
        batch, *size, channels = input_shape
        shape = (batch, *(-(-n // self.strides) for n in size), channels)
        return {"scores": shape, "displacements": (*shape, 2)}

    def compute_output_spec(self, inputs):
        shapes = self.compute_output_shape(inputs.shape)
        return {
            "scores": keras.KerasTensor(shapes["scores"], self.compute_dtype),
            "displacements": keras.KerasTensor(shapes["displacements"], "int32"),
        }

    def get_config(self):
        return {**super().get_config(), "reach": self.reach, "strides": self.strides}
