"""TensorFlow Datasets, read at random and without TensorFlow."""

import os
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np

from cvlib.data.reading import digest, missing_split
from cvlib.data.sample import DataError, Dataset, open_image, read_image


def load(name, split, faults):
    """A split of a data set that TensorFlow Datasets has prepared as array_record.

    Read are `image`; `label`; `objects` with `bbox`, `label` and, where they are,
    `is_difficult`, `is_crowd` and `area`; `head_bbox` (Oxford-IIIT Pet, whose test split has none)
    as the box of one object of the image's class; `segmentation_mask`, whose values count from 1
    there (pet, background, border) and from 0 here. `voc` keeps VOC's boxes, which count pixels
    from 1; they become continuous as those of `cvlib.data.voc`.

    Annotations lie beside their images, so their faults show when a sample is read.

    Args:
        name: `"voc/2007"`, `"coco/2017"`, `"oxford_iiit_pet"`; as in `tfds.builder`, below the
            folder `TFDS_DATA_DIR` or `~/tensorflow_datasets`.
        split: the split's name.
        faults: `Faults`.

    Returns:
        `Dataset`, whose image identifiers are the positions in the split.

    Raises:
        ImportError: there is no tensorflow-datasets.
        DataError: the data set is not prepared, not as array_record, has no images, or not this
            split.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise ImportError(
            f"tfds:{name} needs tensorflow-datasets (pip install tensorflow-datasets)."
        ) from None
    folder = os.environ.get("TFDS_DATA_DIR")
    prepare = f"prepare it with `tfds build {name} --file_format=array_record`"
    try:
        # tfds.data_source imports the builder's own code, which for COCO imports TensorFlow.
        builder = tfds.core.read_only_builder.builder_from_files(name, data_dir=folder)
    except tfds.core.registered.DatasetNotFoundError:
        where = folder or "~/tensorflow_datasets"
        raise DataError(f"tfds:{name}: the data set is not in {where}; {prepare}.") from None
    features = builder.info.features
    if "image" not in features:
        raise DataError(f"tfds:{name}: the data set has no images.")
    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    try:
        # Pillow decodes like in the other readers; TFDS would take OpenCV where there is one.
        source = builder.as_data_source(
            split, decoders=dict.fromkeys(images, tfds.decode.SkipDecoding())
        )
    except NotImplementedError:
        found = builder.info.file_format.value
        raise DataError(
            f"tfds:{name}: {found} in {builder.data_dir} has no random access; {prepare}."
        ) from None
    except ValueError:
        raise missing_split(f"tfds:{name}", split, builder.info.splits) from None
    labelled = features["objects"] if "objects" in features else features
    prepared = Path(builder.data_dir)
    return Dataset(
        name=f"tfds:{name}",
        split=split,
        classes=labelled["label"].names if "label" in labelled else (),
        image_ids=[str(i) for i in range(len(source))],
        read=partial(_read, source, (1, 1, 0, 0) if builder.name == "voc" else 0, faults),
        digest=partial(
            digest,
            sorted(prepared.glob("*.labels.txt")) + [prepared / "features.json"],
            [Path(path) for path in builder.info.splits[split].filepaths],
        ),
    )


def _read(source, first_pixel, faults, i):
    record = source[i]
    where = f"tfds:{source.dataset_info.name} {source.split}: record {i}"
    try:
        image = read_image(BytesIO(record["image"]), turn=False)
        if "segmentation_mask" in record:
            with open_image(BytesIO(record["segmentation_mask"])) as mask:
                segmentation = np.asarray(mask) - np.uint8(1)
    except DataError:
        raise DataError(f"{where} holds an image that cannot be read.") from None
    size = np.array(image.shape[:2], np.int32)
    sample = {"image": image, "image_id": str(i), "size": size}
    if "label" in record:
        sample["label"] = int(record["label"])
    if "segmentation_mask" in record:
        sample["segmentation"] = segmentation

    objects = record.get("objects")
    if "head_bbox" in record:
        heads = [record["head_bbox"]] * bool(record["head_bbox"].any())
        objects = {"bbox": heads, "label": [record["label"]] * len(heads)}
    if objects:
        relative = np.array(objects["bbox"], float).reshape(-1, 4)[:, [1, 0, 3, 2]]
        # Relative coordinates are float32, of which pixels do not come back whole.
        boxes = np.round(relative * size[[1, 0, 1, 0]], 3) - first_pixel
        sample["boxes"], kept = faults.check_boxes(
            boxes, np.tile(size, (len(boxes), 1)), lambda row: f"{where}: object {row}"
        )
        columns = {
            "labels": ("label", np.int32),
            "difficult": ("is_difficult", bool),
            "crowd": ("is_crowd", bool),
            "area": ("area", np.float32),
        }
        for key, (feature, dtype) in columns.items():
            if feature in objects:
                sample[key] = np.array(objects[feature], dtype)[kept]
    return sample
