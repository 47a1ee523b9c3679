import numpy as np
from keras import ops

from cvlib.targets import left_to_right


def test_left_to_right_orders_by_centre_and_puts_padding_last():
    boxes = np.float32([[[50, 0, 60, 9], [0, 0, 100, 9], [-1, -1, -1, -1], [5, 0, 9, 9]]])
    labels = np.int32([[1, 2, -1, 3]])
    found = left_to_right(boxes, labels, 3)
    np.testing.assert_array_equal(ops.convert_to_numpy(found["labels"]), [[3, 2, 1]])
    np.testing.assert_array_equal(ops.convert_to_numpy(found["boxes"]), boxes[:, [3, 1, 0]])
    all_four = left_to_right(boxes, labels, 4)
    np.testing.assert_array_equal(ops.convert_to_numpy(all_four["labels"]), [[3, 2, 1, -1]])
