"""Who is responsible for which object: the matching rules of the papers."""

from keras import ops


def left_to_right(boxes, labels, count):
    """The first `count` objects of each image, ordered by the centre of their boxes.

    Args:
        boxes: (B, N, 4) xyxy.
        labels: (B, N) integers, -1 where padded.
        count: K <= N.

    Returns:
        `{"boxes": (B, K, 4), "labels": (B, K)}`; padded objects come last.

    Raises:
        ValueError: N < K.
    """
    if labels.shape[1] < count:
        raise ValueError(
            f"{count} objects are asked for where there is room for {labels.shape[1]}."
        )
    centre = boxes[..., 0] + boxes[..., 2]
    order = ops.argsort(ops.where(labels >= 0, centre, float("inf")), axis=-1)[:, :count]
    return {
        "boxes": ops.take_along_axis(boxes, order[..., None], axis=1),
        "labels": ops.take_along_axis(labels, order, axis=1),
    }
