"""A second opinion on identity from a model that never saw our pictures: dlib's face recognition.

The judge learns persons from renders and may lean on hair or skin; this model was trained on photos of real faces.
Needs the extra `faces` (packages dlib-bin and face-recognition-models).
"""

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from harald.errors import ModelError
from harald.evaluation.accuracy import Score, identity_auc

SIDE = 512  # pixels; smaller pictures are enlarged to it, the detector wants faces of 80 and more
# The five-point landmarks are free to use; the 68-point ones of the same package are not.
LANDMARKS, WEIGHTS = "shape_predictor_5_face_landmarks.dat", "dlib_face_recognition_resnet_model_v1.dat"


class FaceModel:
    """Picture -> embedding of the largest face. Raises ModelError if the extra is not installed."""

    def __init__(self) -> None:
        dlib = _package("dlib")
        folder = Path(_package_file("face_recognition_models")).parent / "models"  # not imported: it needs setuptools
        self.detector: Any = dlib.get_frontal_face_detector()
        self.landmarks: Any = dlib.shape_predictor(str(folder / LANDMARKS))
        self.network: Any = dlib.face_recognition_model_v1(str(folder / WEIGHTS))

    def embed(self, picture: Image.Image) -> np.ndarray | None:
        """float32 [128] of unit length, or None where no face is found (profiles, sunglasses, some comics)."""
        factor = max(1.0, SIDE / min(picture.size))
        size = (round(picture.width * factor), round(picture.height * factor))
        pixels = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BICUBIC))
        faces = self.detector(pixels, 0)
        if not faces:
            return None
        largest = max(faces, key=lambda face: face.area())
        embedding = np.array(self.network.compute_face_descriptor(pixels, self.landmarks(pixels, largest)), np.float32)
        return embedding / np.linalg.norm(embedding)


def face_auc(
    model: FaceModel, pictures: Sequence[Image.Image], states: Sequence[int], identities: Sequence[int], seed: int = 0
) -> tuple[Score, float]:
    """Is a person in another state more alike than another person? And the share of pictures with a face found."""
    found = [(place, face) for place, picture in enumerate(pictures) if (face := model.embed(picture)) is not None]
    kept = [place for place, _ in found]
    embedding = torch.from_numpy(np.stack([face for _, face in found]) if found else np.zeros((0, 128), np.float32))
    state, person = torch.tensor(states)[kept], torch.tensor(identities)[kept]
    return identity_auc(embedding, state, person, seed), len(found) / len(pictures)


def _package(name: str) -> Any:
    _package_file(name)
    return importlib.import_module(name)


def _package_file(name: str) -> str:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModelError(
            f"the face model needs the package {name}, which is not installed", "pip install -e '.[faces]'"
        )
    return spec.origin
