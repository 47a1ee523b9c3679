"""Regions that agree on one class: superpixels, and the nodes of a tree of regions.

Source: Learning Hierarchical Features for Scene Labeling (Farabet et al. 2013), section 4. The
regions are merged as those of selective search, for the paper's tree has no public code.
"""

from typing import NamedTuple

import numpy as np

from cvlib.proposals.proposals import rgb
from cvlib.proposals.regions import region_sums
from cvlib.proposals.selective_search import color_space, describe, feature_bins, group
from cvlib.proposals.superpixels import segments


class SegmentationTree(NamedTuple):
    """Regions of one image: R leaves, and R - 1 nodes, each merged from two others.

    Attributes:
        labels: (H, W), 0..R-1, the leaf of each pixel.
        parents: (R - 1, 2): node R + i was merged from the nodes in row i, both of them earlier.
            The last node is the whole image.
    """

    labels: np.ndarray
    parents: np.ndarray

    def sums(self, values):
        """Sums (2R - 1, C) over the pixels of every node, of values (H, W, C) of the pixels."""
        leaves = region_sums(self.labels, values)
        sums = np.concatenate([leaves, np.zeros((len(self.parents), leaves.shape[1]))])
        for node, (a, b) in enumerate(self.parents, len(leaves)):
            sums[node] = sums[a] + sums[b]
        return sums

    def cover(self, costs):
        """The nodes of least total cost that together cover the image, no pixel twice.

        A node is taken whole unless the best covers of its two parts cost less together; so the
        best cover of every node is known once those of its parts are. That is not the paper's rule,
        which is `purest`.

        Args:
            costs: (2R - 1,) of the nodes.

        Returns:
            (R,), the node of the cover that each leaf lies in.
        """
        leaves = len(self.parents) + 1
        least, whole = np.array(costs, float), np.ones(len(costs), bool)
        for node, (a, b) in enumerate(self.parents, leaves):
            whole[node] = least[node] <= least[a] + least[b]
            least[node] = min(least[node], least[a] + least[b])
        chosen = np.arange(len(costs))
        # From the image down: what lies in a chosen node is chosen with it.
        for node in range(len(costs) - 1, leaves - 1, -1):
            if whole[node] or chosen[node] != node:
                chosen[self.parents[node - leaves]] = chosen[node]
        return chosen[:leaves]

    def purest(self, impurities):
        """The purest node that each leaf lies in, however large it is.

        Nodes that are taken may lie in one another: each leaf then takes its own.

        Args:
            impurities: (2R - 1,) of the nodes.

        Returns:
            (R,), the node that each leaf takes, the largest of equals.

        Source: Farabet et al. 2013, section 4.2, the "optimal purity cover".
        """
        leaves = len(self.parents) + 1
        best = np.arange(len(impurities))
        # From the image down: a node is compared with the purest of all above it.
        for node in range(len(impurities) - 1, leaves - 1, -1):
            for part in self.parents[node - leaves]:
                if impurities[part] >= impurities[best[node]]:
                    best[part] = best[node]
        return best[:leaves]


def segmentation_tree(image, regions=400):
    """The `SegmentationTree` of an image: superpixels, of which the two most alike merge first.

    Args:
        image: as in `cvlib.proposals`.
        regions: about how many superpixels there are, SLIC's.

    Raises:
        ValueError: not an image, see `cvlib.proposals`.
    """
    image = rgb(image)
    labels = segments(image, "slic", regions)
    bins = feature_bins(color_space(image, "lab"))
    _, parents = group(describe(labels, *bins))
    return SegmentationTree(labels, parents)


def vote(labels, probabilities):
    """The class of each pixel where regions agree on the class that is likeliest in their mean.

    Args:
        labels: (H, W), 0..R-1, the region of each pixel.
        probabilities: (H, W, C).

    Returns:
        (H, W) uint8.
    """
    return region_sums(labels, probabilities).argmax(axis=1).astype("uint8")[labels]


def impurity(distributions):
    """The entropy (N,), in nats, of distributions (N, C) over the classes: 0 where one has all."""
    return -np.sum(distributions * np.log(np.maximum(distributions, 1e-12)), axis=1)
