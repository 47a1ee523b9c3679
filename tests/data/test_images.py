"""Files of pictures, and what becomes of their numbers, their EXIF and their faults."""

import warnings

import numpy as np
import pytest
from PIL import Image

from cvlib.data import DataError, load
from cvlib.data.sample import image_size, open_image, read_image

CAT = ("cat", 0, 1, 1, 5, 5)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1"])
def test_other_kinds_become_three_channels(tmp_path, mode):
    grey = np.arange(0, 240, 5, dtype=np.uint8).reshape(6, 8)
    grey = np.where(grey > 120, 255, 0).astype(np.uint8) if mode == "1" else grey
    Image.fromarray(grey).convert(mode).save(tmp_path / "grey.png")
    pixels = read_image(tmp_path / "grey.png")
    np.testing.assert_array_equal(pixels, np.repeat(grey[..., None], 3, -1))


@pytest.mark.parametrize(
    ("suffix", "values", "expected"),
    [
        (".png", np.uint16([[0, 257, 65535]]), [0, 1, 255]),
        (".tif", np.uint16([[0, 257, 65535]]), [0, 1, 255]),
        (".tif", np.int32([[0, 257, 65535]]), [0, 1, 255]),
        (".tif", np.float32([[0, 0.5, 1]]), [0, 128, 255]),
        (".tif", np.float32([[0, 0.4, 200]]), [0, 0, 200]),
        (".tif", np.float32([[0, 257, 65535]]), [0, 1, 255]),
    ],
)
def test_numbers_of_other_ranges_are_scaled(tmp_path, suffix, values, expected):
    path = tmp_path / f"scan{suffix}"
    Image.fromarray(values).save(path)
    np.testing.assert_array_equal(read_image(path), np.repeat([expected], 3).reshape(1, 3, 3))


@pytest.mark.parametrize("value", [-1, np.nan, np.inf, 1e6])
def test_numbers_out_of_every_range(tmp_path, value):
    Image.fromarray(np.float32([[0, value]])).save(tmp_path / "scan.tif")
    with pytest.raises(DataError, match=r"scan\.tif: the image has values that are not in 0\.\.65"):
        read_image(tmp_path / "scan.tif")


def photograph(path, height, width, orientation):
    """A photograph of which the corner at the top left is red once it is upright."""
    upright = np.zeros((height, width, 3), np.uint8)
    upright[: height // 2, : width // 2, 0] = 255
    # How the sensor saw it, by https://en.wikipedia.org/wiki/Exif: rows and columns from the
    # corner that is at the top left when the photograph is upright.
    seen = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(seen)).save(path, exif=exif)
    return upright, seen


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_upright(tmp_path, suffix, orientation):
    path = tmp_path / f"photo{suffix}"
    upright, _ = photograph(path, 20, 30, orientation)
    np.testing.assert_array_equal(read_image(path), upright)
    assert image_size(path) == (20, 30)


@pytest.mark.parametrize("orientation", range(5, 9))
def test_the_size_of_the_annotation_says_how_a_photograph_is_held(tmp_path, orientation):
    path = tmp_path / "photo.png"
    upright, seen = photograph(path, 20, 30, orientation)
    np.testing.assert_array_equal(read_image(path, (20, 30)), upright)
    np.testing.assert_array_equal(read_image(path, (30, 20)), seen)
    with pytest.raises(DataError, match="the image is 20x30 but its annotation is of 40x20"):
        read_image(path, (20, 40))


@pytest.mark.parametrize(("height", "orientation"), [(20, 3), (30, 6)])
def test_where_the_size_does_not_say_it_a_warning_does(tmp_path, height, orientation):
    path = tmp_path / "photo.png"
    upright, _ = photograph(path, height, 30, orientation)
    with pytest.warns(UserWarning, match="photographs are turned upright as their EXIF says"):
        np.testing.assert_array_equal(read_image(path, (height, 30)), upright)


def test_damaged_exif_says_nothing(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (30, 20)).save(path, exif=b"Exif\0\0MM" + b"\xff" * 30)
    assert read_image(path, (20, 30)).shape == (20, 30, 3)


def test_boxes_lie_on_the_photograph_as_its_annotation_has_it(voc_folder, write_xml):
    folder = voc_folder({"a": []})
    path = folder / "JPEGImages" / "a.jpg"
    upright, _ = photograph(path, 20, 30, 6)
    write_xml(folder / "Annotations" / "a.xml", [("cat", 0, 1, 1, 15, 10)])
    sample = load(f"voc:{folder}", "train")[0]
    x1, y1, x2, y2 = sample["boxes"][0].astype(int)
    assert sample["image"].shape == (20, 30, 3)
    assert sample["image"][y1 : y2 - 2, x1 : x2 - 2, 0].min() > 180


def test_only_pictures_are_opened(tmp_path):
    text = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 20\n%%EndComments\nshowpage\n"
    (tmp_path / "1.png").write_bytes(text)
    with pytest.raises(
        DataError, match=r"1\.png: the image cannot be read \(it is none of JPEG, PNG"
    ):
        image_size(tmp_path / "1.png")


def test_a_picture_of_absurd_size_is_refused(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match=r"bomb\.png: the image cannot be read \(.*bomb"):
        read_image(tmp_path / "bomb.png")


def test_sizes_are_compared_before_anything_is_decoded(write_image, tmp_path):
    path = write_image(tmp_path / "large.png", 400, 600)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="the image is 600x400 but its annotation is of 30x20"):
        read_image(path, (20, 30))
    with pytest.raises(DataError, match=r"\(it is damaged\)\.$"):
        read_image(path, (400, 600))


def test_indices_of_absurd_size(voc_folder, monkeypatch):
    folder = voc_folder({"a": [CAT], "b": [CAT]}, kind="Segmentation")
    (folder / "SegmentationClass").mkdir()
    for name, side in (("a", 90), ("b", 1)):
        indices = Image.new("L", (30 * side, 20 * side))
        indices.save(folder / "SegmentationClass" / f"{name}.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(DataError, match=r"a\.png: the image cannot be read \(.*bomb\)\.$"):
        load(f"voc:{folder}", "train")[0]
    with pytest.warns(UserWarning, match="1 images left out"):
        assert load(f"voc:{folder}", "train", on_error="skip").image_ids == ["b"]


@pytest.mark.parametrize("error", [KeyError, IndexError, OverflowError, MemoryError, EOFError])
def test_whatever_a_decoder_raises_is_one_sentence(tmp_path, write_image, error):
    path = write_image(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg: the image cannot be read \(it is damaged\)\.$"):
        with open_image(path):
            raise error("Python's own words")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".bmp", ".tif", ".webp", ".ppm"])
def test_damaged_files_read_or_say_so(tmp_path, write_image, suffix):
    path = write_image(tmp_path / f"a{suffix}")
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[rng.integers(0, min(200, len(damaged)), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes()[: rng.integers(1, len(whole) + 1)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on damaged EXIF and such
            try:
                assert read_image(path).shape[2] == 3
            except DataError as error:
                assert str(error).startswith(f"{path}: the image ") and str(error)[-1] == "."
