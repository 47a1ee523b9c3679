import io

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from pycocotools import mask as coco_mask

from cvlib import plots

IMAGE = np.full((40, 60, 3), 128, np.uint8)


def sample(**annotations):
    return {"image": IMAGE, **annotations}


def boxes_in(axes):
    patches = [p for p in axes.patches if isinstance(p, Rectangle)]
    return {tuple(float(v) for v in p.get_bbox().extents): p for p in patches}


def texts_in(axes):
    return [t.get_text() for t in axes.texts]


def test_figures_are_closed_and_save_as_svg():
    figure = plots.show([IMAGE] * 5, columns=3)
    assert plt.get_fignums() == []
    assert len(figure.axes) == 6
    assert not any(axes.axison for axes in figure.axes)
    file = io.BytesIO()
    figure.savefig(file, format="svg")
    assert b"</svg>" in file.getvalue()


def test_image_has_continuous_pixel_coordinates():
    axes = plots.show([IMAGE]).axes[0]
    assert axes.get_xlim() == (0, 60)
    assert axes.get_ylim() == (40, 0)


def test_boxes_have_their_class_colour_and_name_and_padding_is_left_out():
    boxes = np.array([[5, 6, 20, 30], [50, 1, 59, 9], [-1, -1, -1, -1]], "float32")
    labels = np.array([2, 0, -1])
    axes = plots.show([sample(boxes=boxes, labels=labels)], classes=("a", "b", "c")).axes[0]
    drawn = boxes_in(axes)
    assert list(drawn) == [(5, 6, 20, 30), (50, 1, 59, 9)]
    edges = [to_hex(p.get_edgecolor()).upper() for p in drawn.values()]
    assert edges == [plots.color(2), plots.color(0)]
    assert texts_in(axes) == ["c", "a"]


def test_text_stays_inside_the_picture():
    boxes = np.array([[40, 0, 58, 20]], "float32")
    pictures = [sample(boxes=boxes, labels=np.array([0]))] * 5
    axes = plots.show(pictures, classes=("umbrella",), columns=5).axes[0]
    axes.figure.draw_without_rendering()
    inside = axes.get_window_extent()
    text = axes.texts[0].get_window_extent()
    assert inside.x0 <= text.x0 and text.x1 <= inside.x1 and text.y1 <= inside.y1


def test_truth_is_dashed_and_prediction_solid():
    truth = sample(boxes=np.array([[5, 5, 20, 20]]), labels=np.array([0]))
    prediction = {
        "boxes": np.array([[6, 6, 21, 21]]),
        "labels": np.array([1]),
        "confidence": np.array([0.875]),
    }
    axes = plots.show([truth], predictions=[prediction], classes=("a", "b")).axes[0]
    drawn = boxes_in(axes)
    assert drawn[(5, 5, 20, 20)].get_linestyle() != "solid"
    assert drawn[(6, 6, 21, 21)].get_linestyle() == "solid"
    assert texts_in(axes) == ["b 0.88"]


def test_label_of_the_image_is_its_title():
    axes = plots.show([sample(label=1)], draw=("label",), classes=("a", "b")).axes[0]
    assert axes.get_title() == "b"


def test_segmentation_leaves_the_background_clear_and_void_white():
    segmentation = np.zeros((40, 60), np.uint8)
    segmentation[0, :2] = 3, 255
    axes = plots.show([sample(segmentation=segmentation)], draw=("segmentation",)).axes[0]
    overlay = axes.images[1].get_array()
    assert overlay[1, 1, 3] == 0
    assert to_hex(overlay[0, 0, :3]).upper() == plots.color(2)
    assert np.all(overlay[0, 1, :3] == 1)


def test_stuff_beyond_the_classes_is_pale():
    segmentation = np.full((40, 60), 4, np.uint8)
    pictures, classes = [sample(segmentation=segmentation)], ("a", "b")
    axes = plots.show(pictures, draw=("segmentation",), classes=classes).axes[0]
    assert to_hex(axes.images[1].get_array()[0, 0, :3]).upper() == plots.PALE[1]


def test_masks_cover_their_pixels_in_their_class_colour():
    pixels = np.zeros((40, 60), np.uint8, order="F")
    pixels[10:20, 5:9] = 1
    annotations = {"masks": [coco_mask.encode(pixels)], "labels": np.array([4])}
    axes = plots.show([sample(**annotations)], draw=("masks",)).axes[0]
    overlay = axes.images[1].get_array()
    assert np.array_equal(overlay[..., 3] > 0, pixels > 0)
    assert to_hex(overlay[10, 5, :3]).upper() == plots.color(4)


def test_a_heat_map_covers_its_part_of_the_image_alone():
    axes = plots.show([IMAGE]).axes[0]
    plots.draw_heat_map(axes, np.array([[0, 0.5, 1]]), (15, 10, 45, 20))
    assert axes.images[1].get_extent() == [15, 45, 20, 10]
    assert axes.images[1].get_clim() == (0, 1)
    assert axes.get_xlim() == (0, 60) and axes.get_ylim() == (40, 0)


def test_joints_outside_of_the_picture_leave_it_as_large_as_it_is():
    outside = np.array([[[4, 4, 2], [40, 90, 2]]])
    picture = {"image": np.zeros((16, 24, 3)), "keypoints": outside}
    axes = plots.show([picture], draw=("keypoints",), limbs=[(0, 1)]).axes[0]
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, 24), (16, 0))


def test_absent_joints_and_their_limbs_are_left_out():
    joints = np.array([[[1, 2, 1], [3, 4, 1], [0, 0, 0]]], "float32")
    figure = plots.show([sample(keypoints=joints)], draw=("keypoints",), limbs=((0, 1), (1, 2)))
    axes = figure.axes[0]
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[1, 2], [3, 4]]]
    assert axes.collections[0].get_offsets().tolist() == [[1, 2], [3, 4]]


def test_feature_maps_shows_the_channels_that_vary_most():
    features = np.zeros((4, 6, 5), "float32")
    features[0, 0, 3] = 9
    features[0, 0, 1] = 5
    figure = plots.feature_maps(IMAGE, {"stride 10": features}, channels=2)
    assert [a.get_title() for a in figure.axes] == ["stride 10", "channel 3", "channel 1"]
    assert len(figure.axes[0].lines) == 5 + 3


def test_overlap_fills_the_intersection():
    axes = plots.overlap((1, 1, 5, 4), (3, 2, 7, 6)).axes[0]
    hatched = [box for box, patch in boxes_in(axes).items() if patch.get_hatch()]
    assert hatched == [(3, 2, 5, 4)]
    apart = plots.overlap((0, 0, 1, 1), (2, 2, 3, 3)).axes[0]
    assert not any(patch.get_hatch() for patch in boxes_in(apart).values())


def test_curves_draw_the_mean_and_the_extremes_of_the_seeds():
    axes = plots.curves({"a": [[1, 2], [3, 6]]}, ylabel="loss").axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[1, 2], [2, 4]]
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 1 and band[:, 1].max() == 6


@pytest.mark.parametrize(("names", "beside"), [("abcd", False), ("abcde", True)])
def test_a_long_legend_lies_beside_the_curves(names, beside):
    figure = plots.curves({name: [1, 2] for name in names})
    figure.draw_without_rendering()
    axes = figure.axes[0]
    legend, chart = (x.get_window_extent() for x in (axes.get_legend(), axes.patch))
    assert (legend.x0 >= chart.x1) == beside


def test_bars_draw_values_intervals_and_the_baseline():
    figure = plots.bars({"a": 0.5, "b": 0.75}, {"b": (0.7, 0.8)}, baseline=("constant", 0.4))
    axes = figure.axes[0]
    assert [p.get_width() for p in axes.patches] == [0.5, 0.75]
    interval, line = axes.lines
    assert interval.get_xdata().tolist() == [0.7, 0.8]
    assert list(line.get_xdata()) == [0.4, 0.4]


def test_histograms_share_their_edges():
    figure = plots.histogram({"a": [0, 1], "b": [2, 4]}, bins=4, threshold=0.5)
    edges = [set(p.get_xy()[:, 0]) for p in figure.axes[0].patches]
    assert all(e == {0, 1, 2, 3, 4} for e in edges)


def test_scatter_draws_each_series_in_its_colour():
    axes = plots.scatter({"a": (0.9, 0.5), "b": ([0.8], [0.6])}).axes[0]
    assert [c.get_offsets().tolist() for c in axes.collections] == [[[0.9, 0.5]], [[0.8, 0.6]]]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["a", "b"]


def test_the_picture_given_as_axes_is_used():
    figure, axes = plots.panels(1, 2)
    assert plots.curves({"a": [1, 2]}, axes=axes[1]) is figure


@pytest.mark.parametrize("i", range(8))
def test_colours_differ(i):
    assert [plots.color(j) for j in range(8)].count(plots.color(i)) == 1
    assert plots.color(i) == plots.color(i + 8)


def test_precision_recall_marks_the_highest_precision_from_a_recall_on():
    recall, precision = [0.25, 0.25, 0.5], [1, 1 / 2, 2 / 3]
    points = [0, 0.25, 0.3, 0.6]
    axes = plots.precision_recall({"fish": (recall, precision)}, points).axes[0]
    measured, envelope, marks = axes.lines
    np.testing.assert_allclose(measured.get_xydata(), np.transpose([recall, precision]))
    np.testing.assert_allclose(envelope.get_ydata(), [1, 2 / 3, 2 / 3, 0])
    np.testing.assert_allclose(marks.get_ydata(), [1, 1, 2 / 3, 0])
    assert axes.get_legend() is None
    assert plots.precision_recall({"nothing": ([], [])}, points).axes[0].lines


def test_errors_have_a_bar_for_each_detector_and_kind():
    found = {"counts": {"correct": 5, "missed": 2}, "gain": {"missed": 0.25}}
    other = {"counts": {"correct": 4, "missed": 3}, "gain": {"missed": 0.5}}
    numbers, gains = plots.errors({"a": found, "b": other}).axes
    assert [bar.get_width() for bar in numbers.patches] == [5, 2, 4, 3]
    assert [bar.get_width() for bar in gains.patches] == [0, 0.25, 0, 0.5]
    assert [tick.get_text() for tick in numbers.get_yticklabels()] == ["correct", "missed"]
    middles = [bar.get_y() + bar.get_height() / 2 for bar in numbers.patches]
    np.testing.assert_allclose(middles, [-0.2, 0.8, 0.2, 1.2])
    assert len(gains.get_legend().get_texts()) == 2
    assert plots.errors({"a": found}).axes[1].get_legend() is None
