"""Prepares small data sets with TFDS's own builders, from files in the formats that they read.

    python prepare_tfds.py SOURCES DATA_DIR

It runs in a process of its own because preparing needs TensorFlow, and reading must not.
"""

import sys

import tensorflow_datasets as tfds
from tensorflow_datasets.object_detection.coco import AnnotationType


def prepare(data_dir, dataset, config=None, file_format="array_record", **source):
    builder = tfds.builder_cls(dataset)
    with tfds.core.registered.skip_registration():

        class Local(builder):
            name = dataset

            def _split_generators(self, dl_manager):
                return {"train": self._generate_examples(**source)}

    Local(data_dir=data_dir, config=config, file_format=file_format).download_and_prepare()


def main(sources, data_dir):
    prepare(data_dir, "voc", "2007", data_path=sources, set_name="train")
    prepare(data_dir, "voc", "2012", "tfrecord", data_path=sources, set_name="train")
    prepare(
        data_dir,
        "coco",
        "2017",
        image_dir=f"{sources}/pets",
        annotation_dir=f"{sources}/pets",
        split_name="train",
        annotation_type=AnnotationType.BBOXES,
        panoptic_dir=None,
    )
    prepare(
        data_dir,
        "oxford_iiit_pet",
        images_dir_path=f"{sources}/oxford/images",
        annotations_dir_path=f"{sources}/oxford/annotations",
        images_list_file=f"{sources}/oxford/annotations/trainval.txt",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
