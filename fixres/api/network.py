"""`fixres.load`: a trained network with its test transform and its classes, ready to predict."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fixres.api.calls import checked
from fixres.api.classes import ClassNames, names_from
from fixres.models.checkpoint import CheckpointInfo
from fixres.models.export import Format, export
from fixres.models.factory import Normalize
from fixres.models.precision import choose_device, choose_precision
from fixres.models.predictor import Predictor
from fixres.models.pretrained import open_network
from fixres.pipelines.images.codec import decode_sound
from fixres.pipelines.images.input_formats import named_errors, to_rgb
from fixres.pipelines.loaders.pillow import eval_crop
from fixres.pipelines.sampling.crops import center_boxes
from fixres.pipelines.spec import EvalCrop, InputError, Interpolation, check_resolution

ImageLike = str | os.PathLike | bytes | Image.Image | np.ndarray
"""A file name, the bytes of an image file, a PIL image, or uint8 (H, W, 3) RGB."""


class Prediction(NamedTuple):
    """One class of a prediction.

    Attributes:
        name: class name.
        probability: softmax probability, in [0, 1].
        label: class number.
    """

    name: str
    probability: float
    label: int


class TestTransform:
    """From an image to the network's input: center crop, antialiased resize, normalization.

    It gives the pixels that fixres evaluate tests with: the short side is resized to floor(resolution / crop_pct)
    and the center square is taken, as timm does.

    Args:
        resolution: side of the square in pixels.
        crop: the center crop and the filter of the resize.
        normalize: from uint8 NHWC to the network's input.
    """

    __test__ = False  # pytest collects classes of this name

    def __init__(self, resolution: int, crop: EvalCrop, normalize: Normalize) -> None:
        self.resolution, self._crop, self.normalize = check_resolution(resolution), crop, normalize
        self.crop_pct, self.interpolation = crop.crop_pct, crop.interpolation

    def __call__(self, image: ImageLike) -> Tensor:
        """Returns float32 (3, resolution, resolution), normalized.

        Raises:
            InputError: a file that does not exist, or an image that cannot be decoded.
        """
        device = next(self.normalize.buffers()).device
        return self.normalize(torch.from_numpy(self.crop(image)[None].copy()).to(device))[0]

    def crop(self, image: ImageLike) -> np.ndarray:
        """The center crop before normalization: uint8 (resolution, resolution, 3), RGB."""
        pixels = _pixels(image)
        sizes = np.array([pixels.shape[:2]])
        box = center_boxes(self._crop, sizes, self.resolution)[0]
        return eval_crop(pixels, box, self.resolution, self.interpolation == "bicubic")


class Network:
    """A network with its test transform and its classes.

    Attributes:
        model: the `torch.nn.Module`, in eval mode.
        classes: class names in label order.
        info: architecture, resolutions and transform that the weights were trained and tested with.
        transform: from an image to the network's input at its test resolution.

    Example:
        >>> net = fixres.load("runs/demo/fast/finetuned.pt")
        >>> net.predict("cat.jpg")[0]
        Prediction(name='cat', probability=0.93, label=3)
    """

    def __init__(self, model: nn.Module, info: CheckpointInfo, device: str = "auto") -> None:
        self.device = choose_device(device)
        self.model = model.to(self.device).eval()
        self.set_info(info)

    def set_info(self, info: CheckpointInfo) -> None:
        """Replaces `info`, and classes and transform, which follow from it."""
        self.info, self.classes = info, info.classes
        self._normalize = Normalize(info.mean, info.std).to(self.device)
        self._predictor = Predictor(self.model, self._normalize, choose_precision("fp32", self.device))
        self.transform = TestTransform(info.test_res, info.eval_crop, self._normalize)

    @checked
    def predict(
        self,
        images: ImageLike | Sequence[ImageLike],
        *,
        top_k: int = 5,
        resolution: int | None = None,
        batch_size: int = 32,
    ) -> Any:
        """The most probable classes of one image or several.

        Args:
            images: a file name, the bytes of a file, a PIL image, or uint8 (H, W, 3) RGB; or a list of them.
            top_k: classes for each image, most probable first; all if there are fewer.
            resolution: test resolution in pixels; the network's own by default.
            batch_size: images evaluated at once.

        Returns:
            A list of `Prediction` for one image; a list of such lists for a list of images.

        Raises:
            InputError: an image that does not exist or cannot be decoded, or a resolution that the network cannot take.
        """
        for name, value in (("top_k", top_k), ("batch_size", batch_size)):
            if value < 1:
                raise InputError(f"{name}={value} must be at least 1")
        single = isinstance(images, ImageLike)
        wanted = [images] if single else list(images)
        transform = self.transform
        if resolution is not None:
            transform = TestTransform(resolution, self.info.eval_crop, self._normalize)
        predictor = self._predictor if resolution is None else self._predictor.at(resolution)
        found: list[list[Prediction]] = []
        for first in range(0, len(wanted), batch_size):
            crops = np.stack([transform.crop(image) for image in wanted[first : first + batch_size]])
            found += self._top(predictor, torch.from_numpy(crops), top_k)
        return found[0] if single else found

    @checked
    def export(self, path: str | os.PathLike[str], format: Format, *, overwrite: bool = False) -> None:
        """Writes the network with its classes and test transform for other programs.

        Args:
            path: a file that ends in .safetensors or .onnx, or a folder for timm.
            format: "safetensors": for `fixres.load` and others. "onnx": takes float32 (N, 3, r, r) with any N,
                normalized, gives logits, and was compared with this network; needs `pip install 'roc-fixres[onnx]'`.
                "timm": a folder for `timm.create_model("local-dir:PATH", pretrained=True)` and for uploads.
            overwrite: replace an earlier export.

        Raises:
            InputError: an existing path, a name that does not end as the format does, missing packages, or a network
                that the format cannot hold; nothing is left at `path` then.

        Example:
            >>> net.export("net.onnx", "onnx")
        """
        export(self.model, self.info, Path(path), format, overwrite)

    def _top(self, predictor: Predictor, crops: Tensor, top_k: int) -> list[list[Prediction]]:
        with torch.inference_mode():
            logits = predictor(crops).float()
        probabilities, labels = logits.softmax(1).topk(min(top_k, logits.shape[1]))
        return [
            [Prediction(self.classes[label], probability, label) for probability, label in zip(*row, strict=True)]
            for row in zip(probabilities.tolist(), labels.tolist(), strict=True)
        ]


@checked
def load(
    path: str | os.PathLike[str],
    *,
    arch: str | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    classes: ClassNames | None = None,
    crop_pct: float | None = None,
    interpolation: Interpolation | None = None,
    device: str = "auto",
) -> Network:
    """Opens a checkpoint of ours, weights of others, or timm's weights from the local cache.

    Args:
        path: a file (ours, timm's, torchvision's, FixRes', safetensors), or timm's name of cached weights, such as
            "resnet50.tv_in1k". Nothing is downloaded.
        arch: timm's name of the network, for files that do not name it.
        model_kwargs: further arguments of `timm.create_model`, for files that do not name them.
        classes: names of the network's outputs, for weights that do not name them: a list in order; "imagenet"; or the
            path of a text file with one name a line, of data, or of a checkpoint.
        crop_pct: side of the center crop over the resized short side; that of the weights by default.
        interpolation: filter of the resize, "bilinear" or "bicubic"; that of the weights by default.
        device: "cpu", "cuda[:n]", or "auto": the GPU if there is one.

    Returns:
        The network, its classes and its test transform.

    Raises:
        InputError: no such file or name, or weights that do not fit the network.
    """
    transform = {"crop_pct": crop_pct, "interpolation": interpolation}
    opened = open_network(os.fspath(path), names=names_from(classes), arch=arch, model_kwargs=model_kwargs, **transform)
    return Network(opened.net, opened.info, device)


def _pixels(image: ImageLike) -> np.ndarray:
    if isinstance(image, Image.Image):
        with named_errors(getattr(image, "filename", "") or "the PIL image", -1):
            return np.asarray(to_rgb(image))
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise InputError(f"an image array must be uint8 (H, W, 3) in RGB, not {image.dtype} {image.shape}")
        return image
    if isinstance(image, bytes):
        return decode_sound(image, "image bytes")
    path = Path(image)
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file; give an image file")
    return decode_sound(path.read_bytes(), str(path))
