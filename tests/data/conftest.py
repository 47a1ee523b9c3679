"""Small data sets on disk, in the layouts that the readers read."""

import json

import numpy as np
import pytest
from PIL import Image

SIZE = "<size><width>30</width><height>20</height><depth>3</depth></size>"
ANNOTATION = """<annotation>
{head}
{objects}
</annotation>"""
OBJECT = """<object><name>{}</name><difficult>{}</difficult><bndbox>
<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"""


@pytest.fixture
def write_image():
    """write_image(path, height, width, **options): random pixels, saved with these options."""

    def write(path, height=20, width=30, **options):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(path, **options)
        return path

    return write


@pytest.fixture
def coco_folder(tmp_path, write_image):
    """coco_folder(annotations): images 9 (20 high, 30 wide) and 4 (12 high, 16 wide), in this
    order; categories 3 (cat) and 70 (dog)."""

    def build(annotations, prefix="instances", split="train", **category):
        folder = tmp_path / "pets"
        sizes = {9: (20, 30), 4: (12, 16)}
        for image_id, size in sizes.items():
            write_image(folder / split / f"{image_id}.jpg", *size)
        source = {
            "images": [
                {"id": i, "file_name": f"{i}.jpg", "height": h, "width": w}
                for i, (h, w) in sizes.items()
            ],
            "annotations": [{"id": 100 + i} | a for i, a in enumerate(annotations)],
            "categories": [{"id": 70, "name": "dog"}, {"id": 3, "name": "cat"} | category],
        }
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"{prefix}_{split}.json").write_text(json.dumps(source))
        return folder

    return build


@pytest.fixture
def write_xml():
    """write_xml(path, objects, head): VOC's annotation of (name, difficult, xmin, ymin, xmax, ymax)
    in an image 20 high, 30 wide."""

    def write(path, objects, head=SIZE):
        path.parent.mkdir(parents=True, exist_ok=True)
        objects = "\n".join(OBJECT.format(*obj) for obj in objects)
        path.write_text(ANNOTATION.format(head=head, objects=objects))
        return path

    return write


@pytest.fixture
def voc_folder(tmp_path, write_image, write_xml):
    """voc_folder({image_id: [(name, difficult, xmin, ymin, xmax, ymax), ...]}): images 20 high, 30
    wide."""

    def build(images, split="train", kind="Main", folder="VOC2007"):
        folder = tmp_path / folder
        (folder / "ImageSets" / kind).mkdir(parents=True, exist_ok=True)
        (folder / "ImageSets" / kind / f"{split}.txt").write_text("\n".join(images) + "\n")
        for image_id, objects in images.items():
            write_image(folder / "JPEGImages" / f"{image_id}.jpg")
            write_xml(folder / "Annotations" / f"{image_id}.xml", objects)
        return folder

    return build
