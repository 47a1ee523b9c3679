import io

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from pycocotools import mask as coco_mask

from cvlib import masks, plots
from cvlib.data import load

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


class Detections(dict):
    classes = ("a", "b")


def detections():
    """What `predict` returns for two pictures: in the second, one detection is left."""
    boxes = np.array([[[5, 5, 20, 20], [30, 10, 50, 30]], [[6, 6, 21, 21], [-1, -1, -1, -1]]])
    return Detections(
        boxes=boxes.astype("float32"),
        labels=np.array([[0, 1], [1, -1]]),
        confidence=np.array([[0.9, 0.8], [0.7, 0]], "float32"),
        num_detections=np.array([2, 1]),
    )


def test_what_predict_returns_is_drawn_as_it_is():
    figure = plots.show(np.stack([IMAGE] * 2), predictions=detections())
    assert [list(boxes_in(axes)) for axes in figure.axes] == [
        [(5, 5, 20, 20), (30, 10, 50, 30)],
        [(6, 6, 21, 21)],
    ]
    assert [texts_in(axes) for axes in figure.axes] == [["a 0.90", "b 0.80"], ["b 0.70"]]


def test_rows_beyond_the_number_of_detections_are_left_out():
    found = detections() | {"num_detections": np.array([1, 0])}
    figure = plots.show([IMAGE] * 2, predictions=found)
    assert [len(boxes_in(axes)) for axes in figure.axes] == [1, 0]


def test_masks_in_the_frame_of_their_boxes_are_pasted():
    found = detections() | {"masks": np.ones((2, 2, 7, 7), "float32")}
    figure = plots.show([IMAGE] * 2, draw=("masks",), predictions=found)
    first, second = (axes.images[1].get_array()[..., 3] > 0 for axes in figure.axes)
    expected = np.zeros((40, 60), bool)
    expected[6:21, 6:21] = True
    assert np.array_equal(second, expected)
    assert first.sum() == 15 * 15 + 20 * 20


@pytest.mark.parametrize("shape", [(2, 3, 2), (2, 3, 3), (2, 1, 3, 3)])
def test_predicted_joints_are_drawn_in_any_of_their_shapes(shape):
    joints = np.ones(shape) + np.arange(3)[:, None]
    figure = plots.show([IMAGE] * 2, predictions={"keypoints": joints}, limbs=[(0, 1)])
    for axes in figure.axes:
        assert axes.collections[0].get_offsets().tolist() == [[1, 1], [2, 2], [3, 3]]
        assert axes.lines[0].get_xydata().tolist() == [[1, 1], [2, 2]]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"pictures": []}, "There are 0 pictures to show in 4 columns"),
        ({"columns": 0}, "There are 3 pictures to show in 0 columns"),
        ({"predictions": detections()}, "There are 3 pictures, but predictions for 2"),
        ({"predictions": [{}] * 2}, "There are 3 pictures, but predictions for 2"),
        ({"titles": ["a"]}, "There are 3 pictures, but titles for 1"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        plots.show(**{"pictures": [IMAGE] * 3} | arguments)


@pytest.mark.parametrize("name", ["masks", "segmentation"])
def test_a_mask_of_another_size_is_refused(name):
    whole = np.ones((20, 30), np.uint8)
    right = masks.encode(np.ones((40, 60), np.uint8))
    annotation = whole if name == "segmentation" else [right, masks.encode(whole)]
    with pytest.raises(ValueError, match=f"The {name} are of 20 x 30 pixels, .* of 40 x 60"):
        plots.show([sample(**{name: annotation})], draw=(name,))


@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (1, 5)])
def test_masks_of_a_thin_picture_have_an_outline(shape):
    picture = {"image": np.zeros((*shape, 3), np.uint8), "masks": [masks.encode(np.ones(shape))]}
    axes = plots.show([picture], draw=("masks",)).axes[0]
    axes.figure.draw_without_rendering()
    (outline,) = axes.collections
    (box,) = (path.get_extents() for path in outline.get_paths())
    np.testing.assert_allclose(box.extents, [0, 0, shape[1], shape[0]])


def test_an_empty_mask_is_nothing_and_no_warning(recwarn):
    empty = {"masks": [masks.encode(np.zeros((40, 60)))], "labels": np.array([0])}
    axes = plots.show([sample(**empty)], draw=("masks",)).axes[0]
    assert not axes.collections and not axes.images[1].get_array().any()
    assert not [w for w in recwarn if "contour" in str(w.message)]


def test_masks_of_one_class_differ_in_shade_and_small_ones_are_on_top():
    large, small = np.zeros((2, 40, 60), np.uint8)
    large[5:35, 5:55], small[10:20, 10:20] = 1, 1
    annotations = {"masks": masks.encode(np.stack([small, large])), "labels": np.array([2, 2])}
    axes = plots.show([sample(**annotations)], draw=("masks",)).axes[0]
    overlay = axes.images[1].get_array()
    assert to_hex(overlay[15, 15, :3]).upper() == plots.color(2)
    assert to_hex(overlay[30, 30, :3]).upper() not in (plots.color(2), "#000000")
    assert len(axes.collections) == 2


def test_true_masks_are_dashed_outlines():
    truth = sample(masks=[masks.encode(np.ones((40, 60)))], labels=np.array([1]))
    axes = plots.show([truth], draw=("masks",), predictions=[{}]).axes[0]
    assert len(axes.images) == 1
    assert axes.collections[0].get_linestyle()[0][1] is not None


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_floats_up_to_one_are_as_bright_as_bytes(kind):
    image = np.linspace(0, 255, 12).round().reshape(2, 2, 3)
    for values in (image.astype("uint8"), image.astype(kind), image.astype(kind) / 255):
        shown = plots.show([values]).axes[0].images[0].get_array()
        np.testing.assert_allclose(shown, image, atol=1)


def test_grey_pictures_are_grey():
    for shape in ((4, 5), (4, 5, 1)):
        picture = plots.show([np.full(shape, 128, np.uint8)]).axes[0].images[0]
        assert np.ptp(picture.to_rgba(picture.get_array())[0, 0, :3]) == 0
        assert picture.get_clim() == (0, 255)


def test_labels_outside_of_the_classes_are_numbers():
    picture = sample(boxes=np.array([[5, 6, 20, 30]]), labels=np.array([7]), label=9)
    axes = plots.show([picture], draw=("boxes", "label"), classes=("a", "b")).axes[0]
    assert texts_in(axes) == ["class 7"] and axes.get_title() == "class 9"


def test_dollars_in_names_are_no_formula():
    names = ("$\\frac$", "5 $ and 6 $")
    picture = sample(boxes=np.array([[5, 6, 20, 30]]), labels=np.array([0]), label=1)
    segmentation = np.ones((40, 60), np.uint8)
    figures = [
        plots.show([picture], draw=("boxes", "label"), classes=names),
        plots.show([picture], titles=names[:1]),
        plots.show([sample(segmentation=segmentation)], ("segmentation",), classes=names),
        plots.bars({names[0]: 1, names[1]: 2}, {names[0]: (0, 2)}, baseline=(names[1], 1)),
        plots.curves({name: [1, 2] for name in names}),
        plots.histogram({name: [1, 2] for name in names}),
        plots.scatter({name: (1, 2) for name in names}),
        plots.precision_recall({name: ([0.5], [1]) for name in names}),
        plots.errors({name: {"counts": {"missed": 1}, "gain": {}} for name in names}),
        plots.waterfall({name: {name: 1} for name in names}),
    ]
    for figure in figures:
        figure.draw_without_rendering()
    assert texts_in(figures[0].axes[0]) == [r"\$\frac\$"]


def overlapping(axes):
    """Whether two texts of a picture cover each other, in pixels of the figure as laid out."""
    axes.figure.draw_without_rendering()
    boxes = [text.get_window_extent().padded(-0.5) for text in axes.texts]
    return any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_names_do_not_cover_each_other_and_stay_inside():
    dataset = load("scenes:crowd", "test")
    figure = plots.show(dataset[:8], classes=dataset.classes)
    assert sum(len(axes.texts) for axes in figure.axes) > 60
    assert not any(overlapping(axes) for axes in figure.axes)
    inside = [axes.get_window_extent().padded(1) for axes in figure.axes]
    for axes, box in zip(figure.axes, inside, strict=True):
        for text in axes.texts:
            extent = text.get_window_extent()
            assert box.contains(extent.x0, extent.y0) and box.contains(extent.x1, extent.y1)


def test_of_equal_boxes_all_names_are_readable():
    boxes, labels = np.tile([10, 20, 50, 35], (4, 1)), np.arange(4)
    axes = plots.show([sample(boxes=boxes, labels=labels)], classes=("mug", "mushroom", "c", "d"))
    assert not overlapping(axes.axes[0])


def test_the_legend_names_the_values_of_a_segmentation_below_the_pictures():
    segmentation = np.zeros((40, 60), np.uint8)
    segmentation[0, :5] = 2, 3, 4, 255, 0
    pictures = [sample(segmentation=segmentation), sample()]
    figure = plots.show(pictures, ("segmentation",), classes=("a", "b"), stuff=("sky",))
    (legend,) = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert words == ["b", "sky", "value 4", "void"]
    paints = [to_hex(patch.get_facecolor()).upper() for patch in legend.get_patches()]
    assert paints == [plots.color(1), *plots.PALE[:2], "#FFFFFF"]
    figure.draw_without_rendering()
    assert legend.get_window_extent().y1 <= figure.axes[0].get_window_extent().y0
    assert not plots.show(pictures, ("segmentation",)).legends


def test_a_predicted_segmentation_takes_the_place_of_the_true_one():
    true, found = np.ones((40, 60), np.uint8), np.full((1, 40, 60), 2)
    pictures = [sample(segmentation=true)]
    axes = plots.show(pictures, predictions={"segmentation": found}).axes[0]
    _, overlay = axes.images
    assert to_hex(overlay.get_array()[0, 0, :3]).upper() == plots.color(1)


@pytest.fixture
def fonts():
    """Fonts as they were before and after the test."""
    with matplotlib.rc_context():
        plots._has_font.cache_clear()
        yield
    plots._has_font.cache_clear()


LETTER = "\u1d81"  # in matplotlib's own STIXGeneral, and not in its DejaVu Sans


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.show([sample(label=0)], draw=("label",), classes=(LETTER,)),
        lambda: plots.show([IMAGE], titles=[LETTER]),
        lambda: plots.show([IMAGE] * 2, predictions=detections(), classes=("a", LETTER)),
        lambda: plots.curves({LETTER: [1, 2]}),
        lambda: plots.bars({LETTER: 1}, {LETTER: (0, 2)}),
    ],
)
def test_texts_fall_back_to_a_font_that_has_their_letters(fonts, recwarn, draw):
    draw().draw_without_rendering()
    assert len(plt.rcParams["font.family"]) == 2
    assert not [str(w.message) for w in recwarn]


def test_letters_that_no_font_has_are_squares_and_said_once(fonts, monkeypatch, recwarn):
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [])
    for name in ("고양이", "개 dog"):
        axes = plots.show([sample(label=0)], draw=("label",), classes=(name,)).axes[0]
        axes.figure.draw_without_rendering()
    assert axes.get_title() == "\u25a1 dog"
    assert [str(w.message)[:17] for w in recwarn] == ["No installed font"]


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


def test_glyphs_run_along_edges():
    histograms = np.zeros((2, 3, 4))
    histograms[1, 2, 0] = 0.5  # a gradient of 22.5 degrees
    _, (axes,) = plots.panels()
    plots.draw_glyphs(axes, histograms, brightest=1)
    (lines,) = axes.collections
    (x1, y1), (x2, y2) = lines.get_segments()[-1]
    assert np.isclose(np.degrees(np.arctan2(y2 - y1, x2 - x1)) % 180, 112.5)
    assert np.allclose(((x1 + x2) / 2, (y1 + y2) / 2), (2.5, 1.5))
    assert lines.get_array()[-1] == 0.5 and lines.get_clim() == (0, 1)
    assert axes.get_xlim() == (0, 3) and axes.get_ylim() == (2, 0)


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


def test_bins_are_drawn_with_their_first_maximum_and_empty_ones_left_out():
    values = np.zeros((4, 5))
    values[1, 2] = values[3, 0] = 1
    _, (axes,) = plots.panels()
    plots.draw_bins(axes, values, [(0, 2), (1, 4), (4, 4)], [(0, 3)])
    assert [round(p.get_y() + p.get_height() / 2, 6) for p in axes.patches] == [1, 2.5]
    assert [tuple(np.ravel(line.get_data())) for line in axes.lines] == [(2.5, 1.5)] * 2
    assert axes.get_xlim() == (0, 5)


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


def test_24_colours_differ_and_then_repeat():
    assert [plots.color(i) for i in range(8)] == list(plots.PALETTE)
    assert len({plots.color(i) for i in range(24)}) == 24
    assert [plots.color(i) for i in range(24, 30)] == [plots.color(i) for i in range(6)]


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


def test_each_stage_of_a_waterfall_begins_where_the_one_before_it_ends():
    first, second = plots.waterfall({"a": {"x": 2, "y": 3}, "b": {"y": 1234.5}}).axes
    assert [(bar.get_x(), bar.get_width()) for bar in first.patches] == [(0, 2), (2, 3)]
    assert [bar.get_x() for bar in second.patches] == [0]
    paints = [bar.get_facecolor() for bar in (*first.patches, *second.patches)]
    assert paints[1] == paints[2] != paints[0]
    assert first.get_title(loc="left") == "a: 5"
    assert second.get_title(loc="left") == "b: 1,234"
    assert first.get_xlim() == second.get_xlim()
