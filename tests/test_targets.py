import numpy as np
import pytest
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


def test_more_objects_than_there_is_room_for():
    with pytest.raises(ValueError, match="3 objects are asked for where there is room for 1"):
        left_to_right(np.zeros((2, 1, 4), "float32"), np.zeros((2, 1), "int32"), 3)
