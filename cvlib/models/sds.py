"""SDS: regions instead of boxes are proposed, seen with and without what is around, and refined."""

import keras
import numpy as np
from keras import layers, ops
from PIL import Image

from cvlib import boxes as box_ops
from cvlib import masks as rle
from cvlib.data.augment import MEAN_COLOR, letterbox, render
from cvlib.data.pipeline import as_pieces
from cvlib.layers import CropAndResize, NonMaxSuppression
from cvlib.layers.crop_and_resize import bilinear, centres
from cvlib.losses import mean_where
from cvlib.models.backbone import folded, trunk_up_to
from cvlib.models.region_detector import inside
from cvlib.models.staged_detector import (
    CROP,
    MOST,
    TOGETHER,
    Examples,
    StagedDetector,
    look_at,
    region_network,
    save_array,
    train_svm,
    warped,
    with_context,
)
from cvlib.models.system import System, as_images
from cvlib.sizes import height_and_width
from cvlib.targets import chunks, forgiven, has_area, masks_in

# Of the authors' code (train_svms.m, train_refiner.m).
NEGATIVE = 0.2  # overlap with an object of the class under which a region is no such object
LATENT = 0.5  # overlap over which a region may stand for an object
PAIR = 0.7  # overlap with its object from which a region learns to be refined
GRID = 10  # cells on a side of the coarse mask
LARGE = 100 / (375 * 500)  # share of the image, of superpixels that are learnt from: 100 pixels
# The authors learn from no others either, but may take others at the test.
LIKELY = 0.2  # coarse mask over which a superpixel outside of the region may be taken
COARSE, FINE = 0.01, 1.0  # liblinear's C of the two logistic regressions

STAYS = (0.0, 20.0, -10.0)  # weights of a class that never learnt to refine: as proposed


@keras.saving.register_keras_serializable(package="cvlib")
class SDS(StagedDetector):
    """Segments objects by classifying proposed regions, each by itself, and refining the best.

    A region is seen twice: its box is cut out and warped, as in R-CNN, and once more with all that
    is not of the region set to the mean colour. Two networks of their own look at the two squares;
    what both see is put side by side, and a linear SVM for each class scores it. Of regions of a
    class that share a piece of the image only the best stays. It is then refined: from what was
    seen, and the region itself, a logistic regression for each cell of a coarse grid says whether
    the cell is of the object, and superpixels, which know the edges, take part in that by how much
    of it they hold, and by whether they were of the region.

        batches = cvlib.data.batches(
            dataset, 16, size, targets="masks", proposals=proposals, max_proposals=300,
            max_pieces=512,
        )
        sds = SDS(backbone("tiny"), num_classes, size, max_proposals=300, max_pieces=512)
        sds.compile("adam", num_regions=8)
        sds.fit(batches, folder="features", epochs=4)
        sds.predict(images, proposals)["masks"]

    The stages are those of `RCNN`, by the overlap of regions where that has the overlap of boxes:

    1. both networks are fine-tuned, each with a new layer of C + 1 classes, on the same sample of
       regions, of which a quarter overlap an object by 0.5. These are of its class for the second
       network; for the first those whose box overlaps an object's by 0.5 are;
    2. what they see of all proposals and of the objects themselves is written to disk;
    3. one SVM for each class learns to tell the objects from regions that overlap none by 0.2; then
       it learns again, with the region instead of each object that it likes best of those that
       overlap it by more than 0.5;
    4. the two logistic regressions of each class learn from regions that overlap an object by 0.7.

    The superpixels are the pieces into which all proposed regions cut the image. Objects that are
    difficult, crowds, and those whose mask is empty, are neither right nor wrong.

    Args:
        backbone: a model from `cvlib.models.backbone`, of the network that sees boxes; it is used,
            and trained, in place, up to the map. The other network begins as a copy.
        num_classes: number of classes C.
        size: (height, width) of the images.
        max_proposals: R, how many regions of an image are looked at.
        max_pieces: P, into how many pieces they may cut it, as in `cvlib.data.batches`.
        crop_size, context, feature_map, hidden, dropout, frozen_to: as in `RCNN`.
        features: what SVMs and refinement see: `"box"`, `"region"` or `"joint"`, both.
        refinement: whether regions are refined.
        mask_size: M, cells on a side of a mask.
        nms: arguments of `NonMaxSuppression`, of regions; its threshold is 0 if they do not say
            another, so that no two regions of a class share a piece.
        network: that of another `SDS`, to share its weights; see `variant`.

    The inputs are `{"images": (B, H, W, 3), "proposals": (B, R, 4), "pieces": (B, H, W), "members":
    (B, R, P)}`: the boxes of the regions; the number of the piece that each pixel is of; which
    pieces each region consists of. Proposals without area, of NaN or infinite, are padding.
    Detections have `masks` (B, N, M, M) of 0 and 1, in the frames of the boxes.

    Memory: the squares of an image take 24 `crop_size`^2 bytes for each region, 800 MB for 2,000 of
    128; the overlaps 4 R^2 bytes, and its refined masks 8 H W for each detection. In training only
    the squares of `num_regions` are there, the masks of 32 objects of an image (of several images
    on TensorFlow), some 27 H W bytes each, and for each object 4 P bytes. The features of one
    batch, and of a class at most 10,000 objects and 10,000 negatives, are in memory at a time; for
    refinement its pairs are.

    Raises:
        ValueError: `features`, `feature_map` or `frozen_to` is none of the above.

    Source: Hariharan et al. 2014 (Simultaneous Detection and Segmentation), network B, and the
    authors' code; network C, with one last layer over both, has 0.7 points more there.
    """

    detections = (*System.detections, "masks")
    loss_names = ("box", "region")
    _seen_by = (
        *("num_classes", "size", "max_proposals", "max_pieces", "crop_size", "context"),
        *("feature_map", "hidden", "dropout", "mask_size", "frozen_to"),
    )

    def __init__(
        self,
        backbone,
        num_classes,
        size,
        max_proposals=2000,
        max_pieces=1024,
        crop_size=128,
        context=16,
        feature_map="stride32",
        hidden=512,
        dropout=0.5,
        features="joint",
        refinement=True,
        mask_size=56,
        nms=None,
        frozen_to=None,
        network=None,
        **kwargs,
    ):
        size = height_and_width(size)
        if features not in ("box", "region", "joint"):
            raise ValueError(f"`features` is one of box, region, joint, not {features!r}.")
        backbone = trunk_up_to(backbone, feature_map, frozen_to)
        if network is None:
            like = feature_map, crop_size, num_classes, hidden, dropout
            copy = keras.models.clone_model(backbone)
            copy.set_weights(backbone.get_weights())
            copy = trunk_up_to(copy, feature_map, frozen_to)
            network = _both(
                region_network(backbone, *like, "box"), region_network(copy, *like, "region")
            )
        images = keras.Input((*size, 3), name="images")
        given = keras.Input((max_proposals, 4), name="proposals")
        pieces = keras.Input(size, dtype="int32", name="pieces")
        members = keras.Input((max_proposals, max_pieces), dtype="bool", name="members")
        proposals = inside(given, size)
        crop = CropAndResize((crop_size, crop_size), name="warp")
        masks = _masks_of(members, pieces, proposals, mask_size)
        crops, cut_out = _squares(crop, images, proposals, masks, context)
        seen = look_at(network, [crops, cut_out])
        seen = _of_kind(seen, features)
        svm = layers.Dense(
            num_classes, kernel_initializer="zeros", trainable=False, dtype="float32", name="svm"
        )
        scores = ops.sigmoid(svm(seen))
        nms = nms or {}
        real = ops.where(box_ops.area(proposals)[..., None] > 0, scores, -1.0)
        overlaps = _shared(members, PieceSizes(max_pieces, name="sizes")(pieces))
        best = NonMaxSuppression(**{"iou_threshold": 0.0, **nms})(proposals, real, overlaps)
        index = ops.maximum(best["indices"], 0)
        found = {key: best[key] for key in System.detections}
        kept = ops.take_along_axis(members, index[..., None], axis=1)
        parts = {
            "warp": ([images, given, pieces, members], [proposals, crops, cut_out]),
            "networks": ([crops, cut_out], seen),
            "SVMs": (seen, scores),
            "suppression": ([proposals, pieces, members, scores], [*found.values(), index, kept]),
        }
        if refinement:
            label = ops.maximum(found["labels"], 0)
            frames = with_context(found["boxes"], crop_size, context)
            cells = ops.cast(_masks_of(kept, pieces, frames, GRID), "float32")
            cells = ops.reshape(cells, (-1, cells.shape[1], GRID * GRID))
            looked = ops.take_along_axis(seen, index[..., None], axis=1)
            coarse = layers.Dense(
                num_classes * GRID * GRID,
                kernel_initializer="zeros",
                trainable=False,
                dtype="float32",
                name="coarse",
            )(ops.concatenate([looked, cells], axis=-1))
            coarse = ops.reshape(coarse, (-1, coarse.shape[1], num_classes, GRID, GRID))
            coarse = ops.take_along_axis(coarse, label[..., None, None, None], axis=2)[:, :, 0]
            mean = CoarseMeans(max_pieces)(ops.sigmoid(coarse), frames, pieces)
            fine = layers.Embedding(
                num_classes,
                3,
                embeddings_initializer="zeros",
                trainable=False,
                dtype="float32",
                name="fine",
            )(label)
            taken = _combined(fine, mean, kept)
            found = {**found, "boxes": _bounds(taken, pieces, found["boxes"])}
        else:
            taken = kept
        masks = _masks_of(taken, pieces, found["boxes"], mask_size)
        masks = masks & (found["labels"] >= 0)[..., None, None]
        found = {**found, "masks": ops.cast(masks, "float32")}
        # Not what only passes through: Keras loses the way if an input of a part is its output too.
        proposed = [parts["suppression"][1][i] for i in (0, 2)]
        seen_there = [index, seen] if refinement else []
        changed = [found["boxes"]] if refinement else []
        parts["refinement"] = ([*proposed, kept, pieces, *seen_there], [*changed, found["masks"]])
        super().__init__(
            {"images": images, "proposals": given, "pieces": pieces, "members": members},
            {
                "images": layers.Identity()(images),
                "proposals": proposals,
                "pieces": layers.Identity()(pieces),
                "members": layers.Identity()(members),
                **found,
            },
            **kwargs,
        )
        if refinement:
            self.get_layer("fine").set_weights([np.tile(np.float32(STAYS), (num_classes, 1))])
        self.backbone, self.network, self._crop = backbone, network, crop
        self._parts = parts
        self._config = {
            "num_classes": num_classes,
            "size": size,
            "max_proposals": max_proposals,
            "max_pieces": max_pieces,
            "crop_size": crop_size,
            "context": context,
            "feature_map": feature_map,
            "hidden": hidden,
            "dropout": dropout,
            "features": features,
            "refinement": refinement,
            "mask_size": mask_size,
            "nms": nms,
            "frozen_to": frozen_to,
        }

    def _freeze(self):
        super()._freeze()
        second = self.network.get_layer("region").get_layer(self.backbone.name)
        for layer, like in zip(second.layers, self.backbone.layers, strict=True):
            layer.trainable = like.trainable

    def compute_losses(self, y, outputs):
        ignored = self._ignored(y)
        boxes = ops.concatenate([outputs["proposals"], ops.cast(y["boxes"], "float32")], axis=1)
        overlap = self._overlaps_to_learn(y, outputs["pieces"], outputs["members"])
        found = self._match(y, boxes, ignored, overlap)
        drawn = self._draw(found, self._num_regions, 0.25)
        place, valid = drawn["place"], drawn["valid"]
        regions = ops.where(
            valid[..., None], ops.take_along_axis(boxes, place[..., None], axis=1), 0.0
        )
        masks = self._drawn_masks(y, outputs, regions, place)
        squares = _squares(self._crop, outputs["images"], regions, masks, self._config["context"])
        logits = look_at(self.network, list(squares), training=self._training)
        by_box = self._match(y, boxes, ignored)
        state = ops.take_along_axis(by_box["state"], place, axis=1)
        of_box = {
            "valid": valid & (state >= 0),
            "positive": valid & (state == 1),
            "object": ops.take_along_axis(by_box["index"], place, axis=1),
        }
        losses = {}
        for name, which in (("box", of_box), ("region", drawn)):
            answers = self._answers(y, regions, which)
            each = keras.losses.sparse_categorical_crossentropy(
                answers["labels"], logits[f"{name}_logits"], from_logits=True
            )
            losses[name] = mean_where(answers["valid"], each)
        return losses

    def predict(self, images, proposals, batch_size=1, verbose=0):
        """Detections in images, among their proposals.

        Args:
            images: as in `System.predict`.
            proposals: for each image its `Proposals` with masks, the best first; those after
                `max_proposals` are left out.

        Returns:
            `Detections` with `masks`, as `System.predict` does.

        Raises:
            ValueError: there are not as many proposals as images, they have no masks, or masks that
                are not of the images' sizes or of their own boxes.
        """
        images = as_images(images)
        if len(proposals) != len(images):
            raise ValueError(f"there are {len(proposals)} proposals for {len(images)} images.")
        most = self._config["max_proposals"], self._config["max_pieces"]
        boxes = np.full((len(images), most[0], 4), -1, np.float32)
        members, pieces = np.zeros((len(images), *most), bool), []
        for i, (image, found) in enumerate(zip(images, proposals, strict=True)):
            piece, has = as_pieces(found, image, f"image {i}", *most)
            pieces.append(piece)
            members[i, : len(has)] = has
            boxes[i, : len(has)] = found.boxes[: len(has)]
        given = {"proposals": boxes, "pieces": pieces, "members": members}
        return System.predict(self, images, batch_size, verbose, **given)

    def _fitted(self, x, geometry):
        boxes = super()._fitted({"proposals": x["proposals"]}, geometry)
        pieces = x["pieces"]
        if geometry is not None:
            size = self._config["size"]
            pieces = [
                np.asarray(
                    render(
                        Image.fromarray(piece),
                        letterbox((0, 0, *piece.shape[::-1]), size),
                        size,
                        Image.Resampling.NEAREST,
                    )
                )
                for piece in pieces
            ]
        return {**boxes, "pieces": np.stack(pieces), "members": np.stack(x["members"])}

    def _ignored(self, y):
        if "masks" not in y:
            raise ValueError('There are no masks to learn from: give batches of targets="masks".')
        return forgiven(y) | _without_mask(y)

    def _overlaps_to_learn(self, y, pieces, members):
        """`_overlaps` (B, R + N, N) of the regions, and then the objects, with the objects.

        Each object answers for itself alone: to lay hundreds of them over each other would take
        most of a step.
        """
        overlap, _ = self._overlaps(y, pieces, members)
        itself = ops.eye(ops.shape(y["labels"])[1], dtype="float32")
        itself = itself * ops.cast(y["labels"] >= 0, "float32")[:, None]
        return ops.concatenate([overlap, itself], axis=1)

    def _overlaps(self, y, pieces, members):
        """IoUs of regions and objects, and what those were made from.

        Returns:
            IoUs (B, R, N) of the regions with the objects; with those that are neither right nor
            wrong, how much of a region they cover instead: a crowd is larger than those in it. And
            how many pixels (B, N, P) of each piece the objects cover. An object without a mask may
            be anywhere in its box.
        """
        most = members.shape[-1]
        covered = self._covered({**y, "masks": _anywhere(y)}, pieces, most)
        members = ops.cast(members, "float32")
        both = ops.matmul(members, ops.transpose(covered, (0, 2, 1)))
        size = ops.sum(members * PieceSizes(most)(pieces), axis=-1, keepdims=True)
        union = size - (both - ops.sum(covered, axis=-1)[:, None])
        return _ratio(both, ops.where(self._ignored(y)[:, None], size, union)), covered

    def _covered(self, y, pieces, most):
        """How many pixels (B, N, P) of each piece the objects cover."""
        keys = "labels", "boxes", "masks"

        def cover(image):
            pieces, *objects = image

            def draw():
                shown = dict(zip(keys, (value[None] for value in objects), strict=True))
                return _sums(pieces[None], _canvases(shown, self._config["size"]), most)[0]

            def leave_out():
                return ops.zeros((ops.shape(objects[0])[0], most), "float32")

            # Where one image has hundreds of objects, most rows of the others are padding.
            return ops.cond(ops.any(objects[0] >= 0), draw, leave_out)

        pieces, *columns = map(ops.convert_to_tensor, (pieces, *(y[key] for key in keys)))
        covered = [
            ops.map(cover, (pieces, *(values[:, rows] for values in columns)))
            for rows in chunks(columns[0].shape[1])
        ]
        return ops.concatenate(covered, axis=1)

    def _among(self, y):
        """`_overlaps` (B, N, N) of the objects with each other.

        On the host, where only the masks that there are take room, as run lengths.
        """
        given = {"boxes": y["boxes"], "masks": _anywhere(y), "ignored": self._ignored(y)}
        boxes, masks, ignored = (ops.convert_to_numpy(value) for value in given.values())
        present = ops.convert_to_numpy(_present(y))
        among = np.zeros((*present.shape, present.shape[1]), "float32")
        for i, there in enumerate(present):
            drawn = rle.paste(masks[i, there], boxes[i, there], *self._config["size"])
            among[i][np.ix_(there, there)] = rle.iou(drawn, drawn, ignored[i, there])
        return among

    def _drawn_masks(self, y, outputs, regions, place):
        """The masks (B, n, M, M) of regions, that are at these places of proposals and objects."""
        cells, given = self._config["mask_size"], outputs["members"].shape[1]
        proposed = ops.minimum(place, given - 1)[..., None]
        members = ops.take_along_axis(outputs["members"], proposed, axis=1)
        masks = _masks_of(members, outputs["pieces"], regions, cells)
        own = ops.maximum(place - given, 0)
        objects = ops.take_along_axis(y["masks"], own[..., None, None], axis=1)
        framed = masks_in(regions, regions, objects, cells)
        return ops.where((place >= given)[..., None, None], framed, masks)

    def _regions(self, x, y, first):
        """As `StagedDetector._regions`; the networks look at boxes and masks.

        Returns:
            Of each image a structured array of its proposals that are boxes, and of its objects:
            `image`; `own`, the class of the object that it is, or -1; `overlap`, the highest IoU of
            the region with an object of each class, or the share that a forgiven one covers;
            `pair`, the class of the object that a proposal overlaps most, or -1, `object`, which
            that is in its image, and `share`, by how much;
            `cells`, the region on the coarse grid, and `answer`, the object there. And, of each
            image, `pieces`, and of each proposal with a share of at least 0.7 which pieces it
            (`has`) and its object (`should`) consist of.
        """
        size, cells = self._config["size"], self._config["mask_size"]
        labels = ops.convert_to_numpy(y["labels"])
        objects = ops.cast(y["boxes"], "float32")
        proposals = inside(ops.cast(x["proposals"], "float32"), size)
        boxes = ops.concatenate([proposals, objects], axis=1)
        pieces, members = ops.convert_to_tensor(x["pieces"]), ops.convert_to_tensor(x["members"])
        taught = ops.convert_to_numpy(_present(y) & ~self._ignored(y))
        overlap, covered = (ops.convert_to_numpy(a) for a in self._overlaps(y, pieces, members))
        overlap = np.concatenate([overlap, self._among(y)], axis=1) * (labels >= 0)[:, None]
        given = proposals.shape[1]
        flat = [("cells", "?", (GRID, GRID)), ("answer", "?", (GRID, GRID))]
        known = [("object", "i4"), ("share", "f4"), ("frame", "f4", 4), *flat]
        found, real, nearest, share = self._describe(
            first, labels, taught, proposals, overlap, LATENT, known
        )

        own_masks = ops.cast(y["masks"], "float32")
        own_frames = with_context(objects, self._config["crop_size"], self._config["context"])
        shown = ops.concatenate(
            [
                _masks_of(members, pieces, proposals, cells),
                masks_in(objects, objects, own_masks, cells),
            ],
            axis=1,
        )
        frames = with_context(boxes, self._config["crop_size"], self._config["context"])
        on_grid = ops.concatenate(
            [
                _masks_of(members, pieces, frames[:, :given], GRID),
                masks_in(own_frames, objects, own_masks, GRID),
            ],
            axis=1,
        )
        which = ops.convert_to_tensor(nearest.astype("int32"))
        answer = masks_in(
            frames,
            ops.take_along_axis(objects, which[..., None], axis=1),
            ops.take_along_axis(own_masks, which[..., None, None], axis=1),
            GRID,
        )
        found["object"], found["share"] = nearest, share
        found["frame"], found["cells"] = ops.convert_to_numpy(frames), ops.convert_to_numpy(on_grid)
        found["answer"] = ops.convert_to_numpy(answer)

        members, shown, boxes = (ops.convert_to_numpy(a) for a in (members, shown, boxes))
        sizes = ops.convert_to_numpy(PieceSizes(members.shape[-1])(pieces))
        learnt = _learnt(found) & real
        image, region = np.nonzero(learnt)
        more = {
            "pieces": ops.convert_to_numpy(pieces),
            "has": members[image, region],
            "should": covered[image, nearest[learnt]] > sizes[image, 0] / 2,
        }
        return (
            [one[which] for one, which in zip(found, real, strict=True)],
            [(b[which], s[which]) for b, s, which in zip(boxes, shown, real, strict=True)],
            more,
        )

    def _look(self):
        size, cells = self._config["size"], self._config["mask_size"]
        images, boxes = keras.Input((*size, 3)), keras.Input((TOGETHER, 4))
        masks = keras.Input((TOGETHER, cells, cells), dtype="bool")
        squares = _squares(self._crop, images, boxes, masks, self._config["context"])
        seen = look_at(folded(self.network), list(squares))
        look = keras.Model([images, boxes, masks], _of_kind(seen, "joint")[0])
        look.jit_compile = self.jit_compile
        return look

    def _columns(self, kind):
        hidden = self._config["hidden"]
        return {
            "box": slice(hidden),
            "region": slice(hidden, None),
            "joint": slice(None),
        }[kind]

    def _heads(self):
        heads = {"SVMs": lambda folder: self._fit_svms(folder, train_latent_svm)}
        if self._config["refinement"]:
            heads["refinement"] = self._fit_refinement
        return heads

    def _fit_refinement(self, folder):
        kind, C = self._config["features"], self._config["num_classes"]
        coarse = self._each_class(folder, kind, f"coarse-{kind}", _train_coarse)
        *kernel, bias = np.moveaxis(coarse, 0, 1).reshape(coarse.shape[1], -1)
        self.get_layer("coarse").set_weights([np.array(kernel), bias])
        fine = []
        for label in range(C):
            path = folder / f"fine-{kind}-{label:03}.npy"
            if not path.exists():
                examples = Examples(folder, self._columns(kind))
                save_array(path, train_fine(examples, label, coarse[label], folder))
            fine.append(np.load(path))
        self.get_layer("fine").set_weights([np.array(fine)])


def _both(box, region):
    """One model of the two networks: from both squares to what each sees, and its logits."""
    squares = [keras.Input(box.input.shape[1:], name=name) for name in ("crops", "cut_out")]
    seen = {}
    for name, network, square in zip(("box", "region"), (box, region), squares, strict=True):
        said = network(square)
        seen |= {name: said["fc"], f"{name}_logits": said["logits"]}
    return keras.Model(squares, seen, name="network")


def _of_kind(seen, kind):
    return (
        ops.concatenate([seen["box"], seen["region"]], axis=-1) if kind == "joint" else seen[kind]
    )


def _squares(crop, images, boxes, masks, context):
    """Boxes (B, R, 4) as squares, and these with the mean colour outside of masks (B, R, M, M)."""
    crops = warped(crop, images, boxes, context)
    side, cells = crop.size[0], masks.shape[-1]
    # The box is a fixed part of the square, and each pixel of that shows one cell of the mask.
    places = ((np.arange(side) + 0.5) / side - 0.5) * side / (
        side - 2 * context * side / CROP
    ) + 0.5
    within = (places >= 0) & (places < 1)
    nearest = np.clip(np.floor(places * cells), 0, cells - 1).astype("int32")
    shown = ops.take(ops.take(masks, nearest, axis=2), nearest, axis=3)
    shown = ops.logical_and(shown, np.outer(within, within))
    return crops, ops.where(shown[..., None], crops, np.float32(MEAN_COLOR))


def _masks_of(members, pieces, boxes, cells):
    """Masks (B, R, cells, cells) of regions in frames: of the pieces at the cells' centres."""
    height, width = pieces.shape[1:]
    x, y = (
        ops.cast(ops.floor(centres(boxes[..., i], boxes[..., i + 2], cells) + 0.5), "int32")
        for i in (0, 1)
    )
    count = boxes.shape[1]
    inside_x, inside_y = (x >= 0) & (x < width), (y >= 0) & (y < height)
    x, y = ops.clip(x, 0, width - 1), ops.clip(y, 0, height - 1)
    places = ops.reshape(width * y[..., None] + x[..., None, :], (-1, count * cells * cells))
    flat = ops.reshape(pieces, (-1, height * width))
    found = ops.take_along_axis(flat, places, axis=1)
    found = ops.reshape(found, (-1, count, cells * cells))
    masks = ops.reshape(_has(members, found), (-1, count, cells, cells))
    return masks & inside_y[..., None] & inside_x[..., None, :]


def _has(members, pieces):
    """Whether regions consist, among others, of these pieces (B, R, n)."""
    return ops.take_along_axis(members, pieces, axis=2)


def _sums(pieces, values, most):
    """Sums (B, K, P) of values (B, K, H, W) over the pixels of each piece."""
    batch, count = ops.shape(values)[:2]
    numbers = ops.reshape(pieces, (batch, -1)) + most * ops.arange(batch, dtype="int32")[:, None]
    flat = ops.reshape(ops.transpose(values, (0, 2, 3, 1)), (-1, count))
    sums = ops.segment_sum(flat, ops.reshape(numbers, (-1,)), batch * most)
    return ops.transpose(ops.reshape(sums, (batch, most, count)), (0, 2, 1))


class PieceLayer(layers.Layer):
    """What is known of each of `most` pieces; a layer, since it counts the images of the batch."""

    def __init__(self, most, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.most = most

    def get_config(self):
        return {**super().get_config(), "most": self.most}


@keras.saving.register_keras_serializable(package="cvlib")
class PieceSizes(PieceLayer):
    """Numbers (B, 1, P) of the pixels of each piece."""

    def call(self, pieces):
        return _sums(pieces, ops.ones_like(pieces[:, None], "float32"), self.most)

    def compute_output_shape(self, pieces_shape):
        return (pieces_shape[0], 1, self.most)

    def compute_output_spec(self, pieces):
        return keras.KerasTensor(self.compute_output_shape(pieces.shape), "float32")


@keras.saving.register_keras_serializable(package="cvlib")
class CoarseMeans(PieceLayer):
    """Means (B, K, P) over the pieces of coarse masks (B, K, G, G), which are 0 outside frames."""

    def call(self, coarse, frames, pieces):
        drawn = _at_pixels(coarse, frames, pieces.shape[1:])
        sums = _sums(pieces, ops.concatenate([drawn, ops.ones_like(drawn[:, :1])], 1), self.most)
        return sums[:, :-1] / ops.maximum(sums[:, -1:], 1.0)

    def compute_output_shape(self, coarse_shape, frames_shape, pieces_shape):
        return (*coarse_shape[:2], self.most)


def _without_mask(y):
    return ~ops.any(ops.cast(y["masks"], "float32") >= 0.5, axis=(2, 3))


def _ratio(part, whole):
    return ops.where(whole > 0, part / ops.where(whole > 0, whole, 1.0), 0.0)


def _shared(members, sizes):
    """IoUs (B, R, R) of regions, whose pieces have these sizes (B, 1, P)."""
    members = ops.cast(members, "float32")
    both = ops.matmul(members * sizes, ops.transpose(members, (0, 2, 1)))
    size = ops.sum(members * sizes, axis=-1)
    return _ratio(both, size[..., None] - (both - size[:, None]))


def _present(y):
    """Which objects (B, N) there are, with a box that has an area."""
    return ops.logical_and(has_area(ops.cast(y["boxes"], "float32")), y["labels"] >= 0)


def _anywhere(y):
    """The masks of objects; one that has none may be anywhere in its box."""
    return ops.where(_without_mask(y)[..., None, None], 1.0, ops.cast(y["masks"], "float32"))


def _at_pixels(masks, frames, size):
    """Masks (B, K, M, M) in the frames of boxes, interpolated at pixels: (B, K, H, W)."""
    rows, columns = (
        _weights(frames[..., i], frames[..., i + 2], masks.shape[-1], size[1 - i]) for i in (1, 0)
    )
    return ops.matmul(ops.matmul(rows, masks), ops.swapaxes(columns, -1, -2))


def _canvases(y, size):
    """The objects (B, N, H, W), 1 and 0, as `masks.paste` draws them."""
    drawn = _at_pixels(ops.cast(y["masks"], "float32"), ops.cast(y["boxes"], "float32"), size)
    return ops.cast(ops.logical_and(drawn >= 0.5, _present(y)[..., None, None]), "float32")


def _weights(start, end, cells, pixels):
    """Bilinear weights (B, K, pixels, cells) of a frame's cells at the centres of pixels."""
    sides = ops.maximum(end - start, 1e-3)[..., None]
    places = ops.subtract(np.arange(pixels, dtype="float32") + 0.5, start[..., None])
    places = places / sides * cells - 0.5
    within = (places >= -0.5) & (places < cells - 0.5)
    weights = bilinear(ops.minimum(ops.maximum(places, 0.0), cells - 1.0), cells)
    return ops.where(within[..., None], weights, 0.0)


def _combined(weights, means, members):
    """The pieces (B, K, P) of refined regions, by weights (B, K, 3)."""
    score = weights[..., :1] * means + weights[..., 1:2] * ops.cast(members, "float32")
    chosen = ops.greater_equal(score - (-weights[..., 2:]), 0.0)
    # The others were never learnt from: they stay out.
    chosen = chosen & ((means > LIKELY) | members)
    # Piece 0 is of no region, and outside of the image.
    chosen = ops.logical_and(chosen, np.arange(members.shape[-1]) > 0)
    # What nothing is left of stays as it was proposed.
    return ops.where(ops.any(chosen, axis=-1, keepdims=True), chosen, members)


def _bounds(members, pieces, boxes):
    """The smallest boxes around regions; the boxes given where there is no pixel of a region."""
    height, width = pieces.shape[1:]
    count = members.shape[1]
    flat = ops.reshape(pieces, (-1, 1, height * width))
    pixels = _has(members, ops.repeat(flat, count, axis=1))
    pixels = ops.reshape(pixels, (-1, count, height, width))
    sides = []
    for axis, length in ((2, width), (3, height)):
        present, places = ops.any(pixels, axis=axis), np.arange(length, dtype="float32")
        sides.append(ops.min(ops.where(present, places, float(length)), axis=-1))
        sides.append(ops.max(ops.where(present, places + 1, 0.0), axis=-1))
    found = ops.stack([sides[0], sides[2], sides[1], sides[3]], axis=-1)
    return ops.where((found[..., 2:3] > found[..., :1]), found, boxes)


# What follows is the work on the host, class by class.


def train_latent_svm(examples, label):
    """The SVM of a class, which learns twice: from the objects, then from the best regions of them.

    Source: train_svms.m.
    """
    weights = train_svm(examples, label, NEGATIVE)
    best = {}
    for regions, x in examples:
        scores = x @ weights[:-1] + weights[-1]
        for i in np.flatnonzero(regions["pair"] == label):
            key = regions["image"][i], regions["object"][i]
            if key in best and best[key][0] >= scores[i]:
                continue
            if key in best or len(best) < MOST:
                best[key] = scores[i], x[i]
    if not best:
        return weights
    return train_svm(examples, label, NEGATIVE, np.array([x for _, x in best.values()]))


def _learnt(regions):
    """Which regions learn to be refined."""
    return (regions["pair"] >= 0) & (regions["share"] >= PAIR)


def _pairs(examples, label):
    """Regions of a class that learn to be refined, with their features, at most `MOST`."""
    found, count = [], 0
    for regions, x in examples:
        chosen = _learnt(regions) & (regions["pair"] == label)
        cells = regions["cells"][chosen].reshape(-1, GRID * GRID)
        answer = regions["answer"][chosen].reshape(-1, GRID * GRID)
        found.append((np.concatenate([x[chosen], cells], axis=1), answer))
        count += len(answer)
        if count >= MOST:
            break
    return [np.concatenate(part)[:MOST] for part in zip(*found, strict=True)]


def _train_coarse(examples, label):
    """Weights (D + 100 + 1, 100) of the cells' logistic regressions, the bias last."""
    x, answer = _pairs(examples, label)
    weights = logistic(x, answer, COARSE)
    # The cells were not scaled with the features; `_each_class` scales all.
    weights[-1 - GRID * GRID : -1] /= examples.scale
    return weights


def train_fine(examples, label, coarse, folder):
    """(3,) weights of the coarse mask, of the region, and the bias, that refine superpixels.

    Args:
        examples: as `Examples`.
        label: of the class.
        coarse: (D + 100 + 1, 100), for features as they are in the files.
        folder: where, beside the features, the pieces are.

    Source: train_refiner.m.
    """
    seen, answers = [np.zeros((0, 2))], [np.zeros(0, bool)]
    files, first = sorted(folder.glob("pieces-*.npy")), 0
    for path, (regions, x) in zip(files, examples, strict=True):
        before, first = first, first + len(np.load(path, mmap_mode="r"))
        learnt = regions[_learnt(regions)]
        chosen = learnt["pair"] == label
        if not chosen.any():
            continue
        pieces, has, should = (
            np.load(path.with_name(path.name.replace("pieces", name)))
            for name in ("pieces", "has", "should")
        )
        x = x[_learnt(regions)][chosen] / examples.scale
        cells = learnt["cells"][chosen].reshape(-1, GRID * GRID)
        logits = np.concatenate([x, cells], axis=1) @ coarse[:-1] + coarse[-1]
        masks = ops.convert_to_numpy(ops.sigmoid(logits.astype("float32")))
        frames, has, should = learnt["frame"][chosen], has[chosen], should[chosen]
        spread = CoarseMeans(has.shape[-1])
        image = learnt["image"][chosen] - before
        for i in np.unique(image):
            of = image == i
            one = pieces[i : i + 1]
            grid = masks[of].reshape(1, -1, GRID, GRID)
            mean = ops.convert_to_numpy(spread(grid, frames[of][None], one))[0]
            sizes = np.bincount(one.ravel(), minlength=has.shape[-1])
            counts = (sizes > LARGE * one.size) & ((mean > LIKELY) | has[of])
            seen.append(np.stack([mean[counts], has[of][counts]], axis=-1))
            answers.append(should[of][counts])
    x, answer = np.concatenate(seen), np.concatenate(answers)
    if len(np.unique(answer)) < 2:
        return np.float32(STAYS)
    return logistic(x, answer[:, None], FINE)[:, 0].astype("float32")


def logistic(x, answers, C):
    """Logistic regressions of the same features, by liblinear's objective with a bias of 1.

    Args:
        x: (n, D).
        answers: (n, K) booleans.
        C: what an example counts against the squares of the weights, bias too, halved.

    Returns:
        (D + 1, K), the bias last; zeros where there is nothing to learn from.
    """
    from scipy.optimize import minimize

    x = np.pad(np.asarray(x, "float64"), ((0, 0), (0, 1)), constant_values=1)
    sign = 2.0 * answers - 1
    shape = x.shape[1], answers.shape[1]

    def objective(flat):
        weights = flat.reshape(shape)
        margin = sign * (x @ weights)
        slope = -sign / (1 + np.exp(np.minimum(margin, 500)))
        value = flat @ flat / 2 + C * np.logaddexp(0, -margin).sum()
        return value, flat + C * (x.T @ slope).ravel()

    return minimize(objective, np.zeros(np.prod(shape)), jac=True, method="L-BFGS-B").x.reshape(
        shape
    )
