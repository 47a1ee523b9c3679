import numpy as np
import pytest

from cvlib.proposals.segmentation_tree import (
    SegmentationTree,
    impurity,
    segmentation_tree,
    vote,
)

# Leaves 0 to 3; node 4 is of 1 and 2, node 5 of 4 and 0, node 6, the image, of 5 and 3.
LABELS = np.array([[0, 0, 1, 1], [0, 2, 2, 3]])
PARENTS = np.array([[1, 2], [4, 0], [5, 3]])
TREE = SegmentationTree(LABELS, PARENTS)


def random_tree(leaves, seed):
    """Leaves of one pixel, two random nodes without a parent merged at a time."""
    rng = np.random.default_rng(seed)
    free, parents = list(range(leaves)), []
    for node in range(leaves, 2 * leaves - 1):
        pair = rng.choice(free, 2, replace=False).tolist()
        parents.append(pair)
        free = [other for other in free if other not in pair] + [node]
    return SegmentationTree(np.arange(leaves)[None], np.reshape(parents, (-1, 2)))


def random_costs(tree, seed):
    """Of nodes, the more the larger they are: the best cover may have nodes of all depths."""
    sizes = tree.sums(np.ones((*tree.labels.shape, 1)))[:, 0]
    return np.random.default_rng(seed).uniform(0.5, 1, len(sizes)) * sizes


def leaves_below(tree, node):
    leaves = tree.labels.max() + 1
    if node < leaves:
        return {node}
    return set.union(*(leaves_below(tree, part) for part in tree.parents[node - leaves]))


def covers(tree, node):
    """All sets of nodes that together cover `node`, no leaf twice."""
    leaves = tree.labels.max() + 1
    if node < leaves:
        return [[node]]
    a, b = tree.parents[node - leaves]
    return [[node]] + [x + y for x in covers(tree, a) for y in covers(tree, b)]


def test_sums_of_the_pixels_of_every_node():
    values = np.random.default_rng(0).uniform(size=(2, 4, 3))
    sums = TREE.sums(values)
    members = [{0}, {1}, {2}, {3}, {1, 2}, {0, 1, 2}, {0, 1, 2, 3}]
    for node, inside in enumerate(members):
        assert leaves_below(TREE, node) == inside
        np.testing.assert_allclose(sums[node], values[np.isin(LABELS, list(inside))].sum(0))


def test_cover_by_hand():
    # Node 4 costs less than its leaves together, node 5 more than node 4 and leaf 0.
    assert TREE.cover([1, 3, 3, 1, 5, 7, 9]).tolist() == [0, 4, 4, 3]
    assert TREE.cover([1, 3, 3, 1, 5, 7, 7]).tolist() == [6, 6, 6, 6]
    assert TREE.cover([1, 2, 2, 1, 5, 7, 9]).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("leaves", [1, 2, 5, 8])
def test_cover_is_the_least_of_all(leaves):
    for seed in range(20):
        tree = random_tree(leaves, seed)
        costs = random_costs(tree, seed)
        chosen = tree.cover(costs)
        for node in np.unique(chosen):
            assert set(np.flatnonzero(chosen == node)) == leaves_below(tree, node)
        least = min(sum(costs[list(cover)]) for cover in covers(tree, 2 * leaves - 2))
        assert sum(costs[np.unique(chosen)]) == pytest.approx(least)


def test_cover_is_that_of_higra():
    """Higra's optimal cut (Perret et al. 2019), an independent implementation."""
    hg = pytest.importorskip("higra")
    for leaves in (2, 30, 200):
        tree = random_tree(leaves, leaves)
        costs = random_costs(tree, leaves + 1)
        chosen = tree.cover(costs)
        over = np.arange(2 * leaves - 1)
        over[tree.parents] = np.arange(leaves, 2 * leaves - 1)[:, None]
        labels = hg.labelisation_optimal_cut_from_energy(hg.Tree(over), costs)
        assert leaves == 2 or 2 < len(np.unique(chosen)) < leaves
        # The same regions, whatever they are called.
        pairs = np.unique([labels, chosen], axis=1)
        assert pairs.shape[1] == len(np.unique(labels)) == len(np.unique(chosen))


def test_purest_by_hand():
    # Leaf 3 is under the image only; leaves 1 and 2 are under nodes 4 and 5 too.
    assert TREE.purest([0.5, 0.1, 0.4, 0.9, 0.4, 0.3, 0.6]).tolist() == [5, 1, 5, 6]
    assert TREE.purest([0.2, 0.1, 0.2, 0.3, 0.3, 0.2, 0.4]).tolist() == [5, 1, 5, 3]


@pytest.mark.parametrize("leaves", [1, 2, 9])
def test_purest_is_the_least_of_all_nodes_above(leaves):
    tree = random_tree(leaves, leaves)
    impurities = np.random.default_rng(leaves).uniform(size=2 * leaves - 1)
    above = [
        [n for n in range(2 * leaves - 1) if x in leaves_below(tree, n)] for x in range(leaves)
    ]
    assert tree.purest(impurities).tolist() == [min(n, key=impurities.__getitem__) for n in above]


def test_cover_of_a_pure_half_and_a_mixed_half():
    """With the true classes, the best cover has the segments of the truth, however fine."""
    truth = np.array([[0, 0, 1, 1], [0, 2, 2, 2]])
    counts = TREE.sums(np.eye(3)[truth])
    sizes = counts.sum(axis=1)
    costs = sizes * impurity(counts / sizes[:, None])
    assert TREE.cover(costs + 1e-9).tolist() == [0, 1, 2, 3]
    one = np.full_like(truth, 2)
    counts = TREE.sums(np.eye(3)[one])
    assert TREE.cover(sizes * impurity(counts / sizes[:, None])).tolist() == [6, 6, 6, 6]


def test_impurity():
    found = impurity(np.array([[1.0, 0, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]]))
    np.testing.assert_allclose(found, [0, np.log(2), np.log(3)], atol=1e-9)


def test_regions_vote():
    probabilities = np.zeros((2, 4, 3))
    probabilities[..., 0] = 0.4
    # Two pixels of region 2 are for class 1 and 2; the surer one decides.
    probabilities[1, 1], probabilities[1, 2] = (0.1, 0.9, 0), (0.2, 0.2, 0.6)
    found = vote(LABELS, probabilities)
    assert found.dtype == np.uint8
    assert found.tolist() == [[0, 0, 0, 0], [0, 1, 1, 0]]


def test_tree_of_a_picture(picture):
    tree = segmentation_tree(picture, 60)
    leaves = tree.labels.max() + 1
    assert tree.labels.shape == picture.shape[:2]
    assert 30 < leaves < 90
    assert tree.parents.shape == (leaves - 1, 2)
    # Each node has one parent, and the last none.
    assert sorted(tree.parents.ravel()) == list(range(2 * leaves - 2))
    # Some node is the blue disc, but for a few pixels along its edge.
    y, x = np.mgrid[:96, :128] + 0.5
    disc = (np.hypot(y - 60, x - 90) < 24)[..., None]
    inside, sizes = tree.sums(disc)[:, 0], tree.sums(np.ones_like(disc))[:, 0]
    assert (inside / (sizes + disc.sum() - inside)).max() > 0.9


def test_one_region():
    tree = segmentation_tree(np.zeros((8, 8, 3), "uint8"), 1)
    assert tree.parents.shape == (0, 2)
    assert tree.cover([2.0]).tolist() == [0]


def test_no_image():
    with pytest.raises(ValueError):
        segmentation_tree(np.zeros((4, 4, 5), "uint8"))
