"""The command line, from a folder of annotated images to annotated pictures."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from PIL import Image

from cvlib import cli, masks
from cvlib.cli import _each, centred_iou, choose_anchors, choose_grid, image_size, main, resized
from cvlib.data import load


@pytest.fixture
def folder(tmp_path):
    """XML beside images, without splits: squares of two colours on grey."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(12):
        image = np.full((64, 96, 3), 100, np.uint8)
        objects = ""
        for name, channel in (("red", 0), ("blue", 2)):
            x, y, side = *rng.integers(0, 30, 2), rng.integers(16, 32)
            image[y : y + side, x : x + side, channel] = 255
            objects += f"""<object><name>{name}</name><bndbox><xmin>{x + 1}</xmin>
            <ymin>{y + 1}</ymin><xmax>{x + side}</xmax><ymax>{y + side}</ymax></bndbox></object>"""
        Image.fromarray(image).save(folder / f"{i}.png")
        (folder / f"{i}.xml").write_text(f"<annotation>{objects}</annotation>")
    return folder


@pytest.fixture
def discs(tmp_path):
    """COCO's JSON: one kind of object, whose masks are run-length encoded."""
    rng = np.random.default_rng(0)
    images, objects = [], []
    for i in range(12):
        image = np.full((64, 96, 3), 100, np.uint8)
        row, column = np.mgrid[:64, :96]
        x, y, side = *rng.integers(0, 30, 2), rng.integers(16, 32)
        disc = np.hypot(row - y - side / 2, column - x - side / 2) < side / 2
        image[disc] = 255
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": 64, "width": 96})
        mask = masks.encode(disc)
        box = masks.to_boxes([mask])[0].tolist()
        objects.append(
            {
                "id": i,
                "image_id": i,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [*box[:2], box[2] - box[0], box[3] - box[1]],
                "area": float(disc.sum()),
                "segmentation": {**mask, "counts": mask["counts"].decode()},
            }
        )
    content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "disc"}]}
    (tmp_path / "discs.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:coco")  # That it draws the split is said in a warning.
def test_instances_from_coco_to_coco(discs, tmp_path, capsys):
    out, data = tmp_path / "model.keras", f"coco:{discs / 'discs.json'}"
    command = ["train", "cascade", "--data", data, "--out", str(out), "--backbone", "tiny"]
    assert main([*command, "--epochs", "1", "--batch-size", "4", "--validation", "test"]) == 0
    said = capsys.readouterr().out
    assert "At most 100 objects" in said and "mAPr@0.7, of masks" in said
    assert main(["predict", str(out), str(discs / "0.png"), "--out", str(tmp_path / "found")]) == 0
    results = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert results
    for result in results:
        x, y, width, height = result["bbox"]
        (inner,) = masks.to_boxes([result["segmentation"]])
        assert result["segmentation"]["size"] == [64, 96] and result["category"] == "disc"
        if inner.any():
            assert (inner[:2] >= [x - 1, y - 1]).all()
            assert (inner[2:] <= [x + width + 1, y + height + 1]).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:voc")  # That it draws the split is said in a warning.
@pytest.mark.parametrize(
    "system, chosen",
    [("faster_rcnn", "Anchors have sides of"), ("yolo", "The grid has 10 x 10 cells.")],
)
def test_from_a_folder_to_annotated_pictures(system, chosen, folder, tmp_path, capsys):
    out, data = tmp_path / "out" / "model.keras", f"voc:{folder}"
    command = ["train", system, "--data", data, "--out", str(out), "--backbone", "tiny"]
    assert main([*command, "--epochs", "1", "--batch-size", "2", "--validation", "test"]) == 0
    said = capsys.readouterr().out
    assert "Images are resized to 96x64" in said and chosen in said
    assert "mAP@0.5, VOC 2007" in said and out.with_suffix(".png").exists()
    assert not out.with_suffix(".backup").exists()

    images = [str(folder / "0.png"), str(folder / "1.png")]
    found = tmp_path / "found"
    assert main(["predict", str(out), *images, "--out", str(found), "--confidence", "0"]) == 0
    assert {path.name for path in found.iterdir()} == {"0.png", "1.png", "detections.json"}
    for result in json.loads((found / "detections.json").read_text()):
        x, y, width, height = result["bbox"]
        assert result["image_id"] in ("0.png", "1.png") and result["category"] in ("red", "blue")
        assert 0 <= x <= x + width <= 96.1 and 0 <= y <= y + height <= 64.1

    assert main(["evaluate", str(out), "--data", data, "--split", "all"]) == 0
    assert "missed" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:voc")  # That it draws the split is said in a warning.
def test_objects_of_some_classes(folder, tmp_path, capsys):
    out, data = tmp_path / "model.keras", ["--data", f"voc:{folder}"]
    command = ["train", "faster_rcnn", *data, "--out", str(out), "--backbone", "tiny"]
    assert main([*command, "--epochs", "1", "--validation", "test", "--classes", "red"]) == 0
    said = capsys.readouterr().out
    assert "red" in said and "blue" not in said
    assert main(["evaluate", str(out), *data, "--split", "all"]) == 0
    assert "Counted are the objects of red alone." in capsys.readouterr().out


# A write of the finished model that is killed halfway.
KILLED_SAVE = """
import keras, os, pathlib, signal

def save(self, path, **kwargs):
    pathlib.Path(path).write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

keras.Model.save = save
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:voc")  # That it draws the split is said in a warning.
def test_a_training_that_was_killed_goes_on(folder, tmp_path, capsys):
    out = tmp_path / "out" / "모델 [1].keras"
    command = [
        "train",
        "yolo",
        "--data",
        f"voc:{folder}",
        "--validation",
        "test",
        "--out",
        str(out),
    ]
    command += ["--backbone", "tiny", "--epochs", "30", "--batch-size", "2"]

    def start(before=""):
        code = f"{before}\nfrom cvlib.cli import main\nmain({command!r})"
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)

    first = start()
    # An epoch has been finished, and the next is under way.
    while not (out.parent / "모델 [1].backup" / "training_metadata.json").exists():
        assert first.poll() is None
        time.sleep(0.01)
    first.kill()
    first.communicate()
    assert not out.exists()

    second = start(KILLED_SAVE)
    said, _ = second.communicate()
    assert second.returncode == -signal.SIGKILL and not out.exists()
    assert "the training goes on" in said and "Epoch 1/30" not in said and "Epoch 30/30" in said
    (left_over,) = out.parent.glob(".*.tmp.*")
    os.utime(left_over, (0, 0))

    assert main(command) == 0
    said = capsys.readouterr().out
    assert "the training goes on" in said and "Epoch" not in said
    assert {path.name for path in out.parent.iterdir()} == {out.name, "모델 [1].png"}


@pytest.fixture
def parts(tmp_path):
    """VOC's layout of classes of pixels: a lower half of sand, void at its border, and a square."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "parts"
    for kind in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / kind).mkdir(parents=True)
    for i in range(8):
        classes = np.zeros((64, 96), np.uint8)
        classes[32:], classes[31:33] = 1, 255
        x, y = rng.integers(0, 60, 2)
        classes[y : y + 24, x : x + 24] = 2
        image = np.uint8([[90, 140, 250], [220, 190, 110], [250, 30, 30]])[np.minimum(classes, 2)]
        Image.fromarray(image).save(folder / "JPEGImages" / f"{i}.jpg")
        Image.fromarray(classes).save(folder / "SegmentationClass" / f"{i}.png")
    (folder / "classes.txt").write_text("sky\nsand\nsquare\n")
    for split, numbers in (("train", "0 1 2 3 4 5"), ("val", "6 7")):
        lines = numbers.replace(" ", "\n")
        (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(lines)
    return folder


@pytest.mark.slow
def test_classes_of_pixels(parts, tmp_path, capsys):
    out, data = tmp_path / "model.keras", f"voc:{parts}"
    command = ["train", "fcn", "--data", data, "--out", str(out), "--backbone", "tiny"]
    assert main([*command, "--epochs", "12", "--batch-size", "2", "--rate", "2e-3"]) == 0
    said = capsys.readouterr().out
    assert "one of 3 classes: sky, sand, square." in said and out.with_suffix(".png").exists()
    assert float(said.split("mIoU: ")[1].split()[0]) > 0.6

    Image.open(parts / "JPEGImages" / "6.jpg").resize((150, 90)).save(tmp_path / "larger.jpg")
    found = tmp_path / "found"
    assert main(["predict", str(out), str(tmp_path / "larger.jpg"), "--out", str(found)]) == 0
    assert {path.name for path in found.iterdir()} == {"larger.png", "larger_classes.png"}
    assert "sky, sand, square." in capsys.readouterr().out
    image = Image.open(found / "larger_classes.png")
    assert image.mode == "P" and image.size == (150, 90)
    values = np.asarray(image)
    assert (values[:10, :10] == 0).mean() > 0.9 and set(np.unique(values)) <= {0, 1, 2}

    assert main(["evaluate", str(out), "--data", data, "--split", "val"]) == 0
    assert "  square: 0." in capsys.readouterr().out
    assert main(["evaluate", str(out), "--data", "scenes"]) == 1
    assert "knows sky, sand, square, and scenes is of background" in capsys.readouterr().err


def test_classes_of_pixels_without_names(tmp_path, capsys):
    from cvlib.models import FCN, backbone

    model = FCN(backbone("tiny"), 3, (64, 64), classes=("square", "disc"))
    model.save(tmp_path / "model.keras")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    images = [str(tmp_path / "a.png"), "--out", str(tmp_path / "found")]
    assert main(["predict", str(tmp_path / "model.keras"), *images]) == 0
    assert "a_classes.png: class " in capsys.readouterr().out


def test_what_cannot_be_read_is_said_and_the_rest_is_done(tmp_path, capsys):
    from cvlib.models import Localizer, backbone

    folder, found = tmp_path / "사진 [새 것]", tmp_path / "찾은 것" / "[2]"
    folder.mkdir()
    Localizer(backbone("tiny"), 2, (64, 64)).save(folder / "모델.keras")
    for name in ("첫째 [1].png", "last.png"):
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(folder / name)
    (folder / "text.png").write_text("no image")
    names = ("첫째 [1].png", "text.png", "none.png", ".", "last.png")
    images = [str(folder / name) for name in names]
    assert main(["predict", str(folder / "모델.keras"), *images, "--out", str(found)]) == 1
    assert {path.name for path in found.iterdir()} == {
        *("첫째 [1].png", "last.png", "detections.json")
    }
    results = json.loads((found / "detections.json").read_text())
    assert [result["image_id"] for result in results] == ["첫째 [1].png", "last.png"]
    said = capsys.readouterr().err.splitlines()
    reasons = ("cannot be read (it is none of", "does not exist", "a folder, not an image")
    for line, reason in zip(said, reasons, strict=True):
        assert line.startswith(f"cvlib: {folder}") and reason in line


def test_a_system_that_needs_more_than_images_is_refused(tmp_path, capsys):
    from cvlib.models import PoseRegressor, backbone

    path = tmp_path / "pose.keras"
    PoseRegressor(backbone("tiny"), 3, hidden=8).save(path)
    for verb, *rest in (("predict", "a.png", "--out", "o"), ("evaluate", "--data", "scenes")):
        assert main([verb, str(path), *rest]) == 1
        said = capsys.readouterr().err
        assert said == f"cvlib: {path}: a PoseRegressor is given boxes besides the images.\n"


def test_only_what_is_said_of_objects_is_cut_to_their_number():
    found = {"boxes": np.zeros((1, 4, 4)), "confidence": np.zeros((1, 4))}
    found |= {"num_detections": [3], "probabilities": np.zeros((1, 2))}
    (each,) = _each(found)
    assert {key: len(values) for key, values in each.items()} == {"boxes": 3, "confidence": 3}


@pytest.mark.filterwarnings("ignore:voc")  # That it draws the split is said in a warning.
def test_objects_are_no_classes_of_pixels(folder, tmp_path, capsys):
    command = ["train", "fcn", "--data", f"voc:{folder}", "--split", "all"]
    assert main([*command, "--out", str(tmp_path / "a.keras"), "--backbone", "tiny"]) == 1
    assert "not every image has a named class for each of its pixels" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["predict", "none.keras", "a.png", "--out", "o"], "none.keras: the file does not exist."),
        (["train", "faster_rcnn", "--data", "voc:none", "--out", "a.keras"], "none"),
        (
            ["train", "faster_rcnn", "--data", "scenes", "--out", "a.h5"],
            "a.h5: the file is a .keras",
        ),
        (
            ["train", "yolo", "--data", "scenes", "--out", "a.keras", "--epochs", "0"],
            "--epochs 0: at least 1.",
        ),
        (
            ["train", "fcn", "--data", "scenes", "--out", "a.keras", "--classes", "cat"],
            "--classes: fcn learns all classes of pixels.",
        ),
        (
            ["train", "yolo", "--data", "scenes", "--out", "a.keras", "--classes", "no such"],
            "scenes has no class 'no such'",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("cvlib: ") and sentence in said and said.count("\n") == 1


def train_on_lists(folder, out, **lists):
    """The status of a training on a folder with the images of these lists."""
    main_lists = folder / "ImageSets" / "Main"
    main_lists.mkdir(parents=True)
    for split, images in lists.items():
        (main_lists / f"{split}.txt").write_text(images)
    command = ["train", "faster_rcnn", "--data", f"voc:{folder}", "--backbone", "tiny"]
    return main([*command, "--out", str(out / "model.keras")])


def test_a_split_without_images_is_refused_before_the_training(folder, tmp_path, capsys):
    assert train_on_lists(folder, tmp_path, train="0\n1\n", val="") == 1
    assert capsys.readouterr().err == "cvlib: voc:data: the split val has no image.\n"


def test_photographs_alone_are_not_annotated(folder, tmp_path, capsys):
    for annotation in folder.glob("*.xml"):
        annotation.unlink()
    assert (
        main(["train", "yolo", "--data", f"voc:{folder}", "--out", str(tmp_path / "a.keras")]) == 1
    )
    assert "data: holds no annotations, neither XML" in capsys.readouterr().err


def test_a_warning_is_one_sentence_for_all_splits(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(cli.SYSTEMS, "faster_rcnn", lambda *_: sys.exit())
    command = ["train", "faster_rcnn", "--data", f"voc:{folder}", "--backbone", "tiny"]
    with warnings.catch_warnings(), pytest.raises(SystemExit):
        warnings.resetwarnings()
        main([*command, "--out", str(tmp_path / "model.keras")])
    said = capsys.readouterr().err
    assert said.startswith("cvlib: voc:data: nothing says which images are for training")
    assert said.count("\n") == 1


def test_size_is_that_of_most_images_in_steps_of_32():
    assert image_size([(480, 640), (480, 640), (1000, 100)], 480) == (352, 480)
    assert image_size([(100, 130)], 480) == (96, 128)


def test_anchors_span_the_boxes():
    side = np.geomspace(20, 80, 101)
    corner = np.zeros_like(side)
    boxes = np.stack([corner, corner, side, 2 * side], axis=-1)
    sizes, ratios, feature_map = choose_anchors(boxes).values()
    assert len(sizes) == 3 and ratios == (2.0,) and feature_map == "stride16"
    # Of the sides' geometric means, the tenth and the ninetieth percentile.
    assert sizes[0] == round(np.sqrt(2) * side[10]) and sizes[-1] == round(np.sqrt(2) * side[90])
    assert centred_iou(boxes, sizes, ratios).min() > 0.5
    assert choose_anchors(boxes * [1, 1, 500, 1])["ratios"] == (0.01,)  # not 0
    assert centred_iou(boxes[:1], (20,), (1.0,)) == pytest.approx(20 * 20 / (20 * 40))
    with pytest.raises(ValueError, match="No image has an object"):
        choose_anchors(np.zeros((2, 4)))


def test_more_anchors_for_more_sizes_and_a_fine_map_for_small_objects():
    """Photographs of everyday things: from 6 to 210 pixels, half of them below 27."""
    side = np.concatenate([np.geomspace(6, 27, 100), np.geomspace(27, 210, 100)])
    boxes = np.stack([0 * side, 0 * side, side, side], axis=-1)
    sizes, _, feature_map = choose_anchors(boxes).values()
    assert max(b / a for a, b in itertools.pairwise(sizes)) <= 2.6  # rounded
    assert centred_iou(boxes, sizes, (1.0,)).min() > 0.38
    assert feature_map == "stride16"
    assert choose_anchors(boxes * 0.8)["feature_map"] == "stride8"


def test_the_grid_is_as_fine_as_nearly_all_objects_need():
    def around(*centres):
        return np.float32([[x - 3, y - 3, x + 3, y + 3] for x, y in centres]).reshape(-1, 4)

    # On 140 x 70 pixels, cells of 20 x 10 pixels with 7, of 14 x 7 with 10, of 10 x 5 with 14.
    apart, near = around((5, 5), (25, 5), (5, 15)), around((45, 5), (59, 5), (45, 15))
    assert choose_grid([apart, around()], (70, 140)) == (7, 1)
    assert choose_grid([apart, near], (70, 140)) == (10, 1)
    # The same cells of another image are other cells; of twenty objects one may be lost.
    assert choose_grid([near[:2], *[apart] * 6], (70, 140)) == (7, 19 / 20)
    same = around((50, 50), (50, 50))
    assert choose_grid([same], (70, 140)) == (14, 1 / 2)
    with pytest.raises(ValueError, match="No image has an object"):
        choose_grid([around()], (70, 140))


def test_boxes_follow_their_images_into_the_network():
    boxes = [np.float32([[0, 0, 50, 100]])]
    (moved,) = resized(boxes, [(200, 100)], (100, 100))
    np.testing.assert_allclose(moved[0, 2:] - moved[0, :2], [25, 50])


def test_pictures_have_names_of_their_own_and_overwrite_no_image(tmp_path):
    images = ["a/x.jpg", "b/x.jpg", "c/x_1.jpg", "d/X.png", "e/x_classes.jpg"]
    names = [path.stem for path in cli.pictures_of(images, tmp_path)]
    assert names == ["x", "x_1", "x_1_1", "X_2", "x_classes_1"]
    for image in ("x.png", "x_classes.png"):
        with pytest.raises(ValueError, match="would be overwritten"):
            cli.pictures_of([str(tmp_path / "x.jpg"), str(tmp_path / image)], tmp_path)


def test_images_of_one_name_have_ids_of_their_own(tmp_path):
    from cvlib.models import Localizer, backbone

    model = tmp_path / "model.keras"
    Localizer(backbone("tiny"), 2, (64, 64)).save(model)
    paths = [tmp_path / name for name in ("a/x.png", "b/x.png", "y.png")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(path)
    out = tmp_path / "out"
    assert main(["predict", str(model), *map(str, paths), "--out", str(out)]) == 0
    results = json.loads((out / "detections.json").read_text())
    assert [result["image_id"] for result in results] == [*map(str, paths[:2]), "y.png"]


def test_what_was_found_before_an_interruption_is_kept(tmp_path, capsys, monkeypatch):
    from cvlib.models import Localizer, backbone

    model = tmp_path / "model.keras"
    Localizer(backbone("tiny"), 2, (64, 64)).save(model)
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(path)
    read = cli.read_image

    def interrupted(name):
        if name == str(paths[2]):
            raise KeyboardInterrupt
        return read(name)

    monkeypatch.setattr(cli, "read_image", interrupted)
    out = tmp_path / "out"
    assert main(["predict", str(model), *map(str, paths), "--out", str(out)]) == 130
    results = json.loads((out / "detections.json").read_text())
    assert [result["image_id"] for result in results] == ["0.png", "1.png"]
    assert capsys.readouterr().err == "\ncvlib: interrupted.\n"


def test_a_fault_in_the_validation_is_no_missing_split(folder, tmp_path, capsys):
    assert train_on_lists(folder, tmp_path, train="0\n1\n", val="2\nnone\n") == 1
    assert "none" in capsys.readouterr().err


def test_one_image_is_too_few(folder, tmp_path, capsys):
    assert train_on_lists(folder, tmp_path, train="0\n") == 1
    assert "one image is too few to keep any apart" in capsys.readouterr().err


def test_a_folder_of_others_is_no_backup(tmp_path):
    backup = tmp_path / "model.backup"
    backup.mkdir()
    (backup / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not ours, and would be deleted"):
        cli._check_settings(backup, {})
    assert (backup / "mine.txt").exists()


def test_what_of_a_checkpoint_is_not_whole_gives_way_to_the_one_before(tmp_path):
    state, weights = tmp_path / "training_metadata.json", tmp_path / "latest.weights.h5"
    weights.write_bytes(b"half of the first")
    assert cli._epochs_done(tmp_path) == 0 and not weights.exists()
    state.write_text("")
    weights.write_bytes(b"the second")
    (tmp_path / "training_metadata.json.bkp").write_text('{"epoch": 1, "batch": 0}')
    (tmp_path / "latest.weights.h5.bkp").write_bytes(b"the first")
    assert cli._epochs_done(tmp_path) == 1 and weights.read_bytes() == b"the first"


def test_few_images_are_kept_in_memory():
    class Nothing:
        def predict(self, images):
            empty = {"boxes": np.zeros((len(images), 0, 4)), "labels": np.zeros((len(images), 0))}
            return empty | {"confidence": empty["labels"], "num_detections": [0] * len(images)}

    samples, found = cli.detect(Nothing(), load("scenes", "test").some(12), count=5)
    assert ["image" in sample for sample in samples] == [True] * 8 + [False] * 4
    assert len(found) == 12 and all("boxes" in sample for sample in samples)
