"""Chapter 18: simultaneous detection and segmentation."""

from benchmarks.claims import Claim
from benchmarks.systems import CROPS, SMALL, of_scenes

TABLES = {
    "sds": {
        "title": "Instance segmentation by classified regions",
        "settings": ("features", "refined"),
        "metrics": ("mAPr@0.5", "mAPr@0.7", "mAPr vol", "ms"),
        "papers": [{"system": "SDS", "dataset": "VOC12 val"}],
    },
}

COLUMNS = {
    "features": "what the SVMs see of a region: its box, the cut-out region, or both",
    "refined": "regions are refined by a coarse mask and superpixels",
    "ms": "milliseconds for one picture, of the whole graph, without the search for its regions",
    "mAPr vol": "mean of mAPr at the overlaps 0.1, 0.2, ..., 0.9",
}


def sds(features="box and region", refined=False):
    return {"system": "SDS", "features": features, "refined": refined}


CLAIMS = [
    Claim(
        "Classified regions fit better than filled boxes.",
        metric="mAPr@0.7",
        left=sds(),
        right={"system": "filled boxes"},
    ),
    Claim(
        "To see the box and the region is better than the box alone.",
        metric="mAPr@0.5",
        left=sds(),
        right=sds("box"),
        papers=({"system": "SDS", "dataset": "VOC12 val", "metric": "AP^r@0.5"},),
    ),
    Claim(
        "To see the box and the region is better than the region alone.",
        metric="mAPr@0.5",
        left=sds(),
        right=sds("region"),
    ),
    Claim(
        "Refinement raises AP^r.",
        metric="mAPr@0.7",
        left=sds(refined=True),
        right=sds(),
    ),
]

SYSTEMS = {"scenes": {"SDS": of_scenes("SDS", 8, SMALL, 200, 256, **CROPS)}}
