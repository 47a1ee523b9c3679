"""Chapter 03: pose as regression of joints."""

from benchmarks.claims import Claim
from benchmarks.systems import of_scenes

TABLES = {
    "pose": {
        "title": "Pose as regression",
        "settings": ("stages",),
        "metrics": (
            *("pcp", "pck@0.2", "nme"),
            *(f"pcp/{side} {limb}" for limb in ("arm", "leg") for side in ("upper", "lower")),
        ),
        "papers": [{"system": "DeepPose", "metric": "PCP average"}],
    },
    "looks": {
        "title": "Which mistakes a look mends: its pictures' own, or those of other pictures",
        "where": {"system": "one look"},
        "settings": ("stages", "mistakes"),
        "metrics": ("distance before", "distance after"),
        "papers": [],
    },
}

COLUMNS = {
    "stages": "how often a `PoseRegressor` has looked: at the person, then around each joint",
    "pcp": "share of the limbs (upper and lower arms and legs) whose ends both lie within half the "
    "limb's length of the true ones",
    "pcp/x": "`pcp` of the limb x",
    "pck@0.2": "share of the joints that lie within a fifth of the torso (right shoulder to left "
    "hip) of the true ones",
    "nme": "mean distance of a face's points from the true ones, in distances of the outer corners "
    "of the eyes; less is better",
    "mistakes": "that the look must mend: those of its own pictures (`own`), or those of others "
    "(`exchanged`)",
    "distance before, distance after": "mean distance of a joint from its true place before and "
    "after the look, in hundredths of the box's diagonal; less is better",
}

CLAIMS = [
    *(
        Claim(
            sentence,
            metric=metric,
            left={"system": "PoseRegressor", "stages": stages},
            right=right,
            relation=relation,
        )
        for metric, relation in (("pcp", "greater"), ("pck@0.2", "greater"), ("nme", "less"))
        for sentence, stages, right in (
            ("Regression of joints beats the mean pose.", 1, {"system": "mean pose"}),
            ("A second look makes the pose better.", 2, {"system": "PoseRegressor", "stages": 1}),
            ("A third look makes it better still.", 3, {"system": "PoseRegressor", "stages": 2}),
            ("Three stages are better than one.", 3, {"system": "PoseRegressor", "stages": 1}),
        )
    ),
    *(
        Claim(
            f"Look {stages} mends other pictures' mistakes better than a picture's own.",
            metric="distance after",
            left={"system": "one look", "stages": stages, "mistakes": "exchanged"},
            right={"system": "one look", "stages": stages, "mistakes": "own"},
            relation="less",
        )
        for stages in (2, 3)
    ),
]

SYSTEMS = {"scenes": {"PoseRegressor": of_scenes("PoseRegressor", 14, joint_crop_size=48)}}
