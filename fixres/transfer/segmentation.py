"""FCN or DeepLabV3 on dilated stages of a trained backbone, with torchvision's decoders."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.transforms.v2 import functional as transforms

from fixres.config.transfer import SegmentRecipe
from fixres.distributed.process_group import all_gather, num_processes
from fixres.models.precision import Precision
from fixres.observability.console import bar
from fixres.pipelines.spec import InputError
from fixres.training.optimizer import Stepper, create_optimizer
from fixres.training.trainer import Trainer
from fixres.transfer.feature_pyramid import Backbone, chosen_backbone
from fixres.transfer.layouts.masks import IGNORED, MaskData
from fixres.transfer.pictures import masks_side_by_side
from fixres.transfer.sample_loader import SampleLoader, listed, stacked
from fixres.transfer.samples import MaskReader, SampleDataset, mask_transform
from fixres.transfer.segmentation_metrics import SegmentationResult, confusion, score_masks


class Segmenter(nn.Module):
    """Logits for each pixel.

    Args:
        backbone: its last output goes into the decoder, the one before into the auxiliary head.
        num_classes: channels of the logits.
        decoder: "fcn" or "deeplabv3".
        has_aux: whether there is an auxiliary head, for training.
        base_size: short side in pixels of the images that `predict` gives to the network.
    """

    def __init__(self, backbone: Backbone, num_classes: int, decoder: str, has_aux: bool, base_size: int) -> None:
        super().__init__()
        self.backbone, self.base_size = backbone, base_size
        make = FCNHead if decoder == "fcn" else DeepLabHead
        self.decoder = make(backbone.channels[-1], num_classes)
        self.aux = FCNHead(backbone.channels[-2], num_classes) if has_aux else None

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """float32 (B, classes, H, W) of normalized float (B, 3, H, W); in training also those of the auxiliary head."""
        features = self.backbone(images)
        logits = [self.decoder(features[-1])]
        if self.training and self.aux is not None:
            logits.append(self.aux(features[-2]))
        # In float32: 16 bits would shift the borders between classes.
        size = images.shape[-2:]
        return tuple(functional.interpolate(one.float(), size, mode="bilinear", align_corners=False) for one in logits)

    @torch.inference_mode()
    def predict(self, image: Tensor) -> Tensor:
        """The class of each pixel, int64 (H, W) on the CPU, of a uint8 (3, H, W) image; in eval mode.

        Raises:
            InputError: an image of another type or shape.
        """
        _check_image(image)
        size, normalize = image.shape[-2:], self.backbone.normalize
        image = image.as_subclass(Tensor).to(normalize.shift.device)
        resized = transforms.resize(image, [self.base_size], antialias=True)
        (logits,) = self(normalize(resized.permute(1, 2, 0)[None]))
        full = functional.interpolate(logits, size, mode="bilinear", align_corners=False)
        return full.argmax(1)[0].cpu()


def _check_image(image: Any) -> None:
    shape, dtype = getattr(image, "shape", ()), getattr(image, "dtype", None)
    if not isinstance(image, Tensor) or dtype != torch.uint8 or image.ndim != 3 or len(image) != 3 or 0 in image.shape:
        given = type(image).__name__ + (f" of {dtype} {tuple(shape)}" if dtype is not None else "")
        raise InputError(
            "predict takes a uint8 tensor (3, H, W), as torchvision.io.decode_image(path, mode='RGB') gives, "
            f"not {given}"
        )


def segmenter_stages(recipe: SegmentRecipe) -> tuple[tuple[int, ...], int]:
    """Numbers of the backbone's outputs, and its output stride."""
    return (-2, -1), recipe.output_stride


def create_segmenter(recipe: SegmentRecipe, backbone: Backbone, num_classes: int) -> Segmenter:
    """The network of a recipe on a backbone with two outputs."""
    return Segmenter(backbone, num_classes, recipe.decoder, recipe.aux_weight > 0, recipe.base_size)


class MaskLoss:
    """Cross entropy of the labeled pixels; the auxiliary head's has a weight."""

    def __init__(self, aux_weight: float, label_smoothing: float) -> None:
        self._aux_weight, self._label_smoothing = aux_weight, label_smoothing

    def __call__(self, logits: tuple[Tensor, ...], masks: Tensor, images: Tensor) -> Tensor:  # noqa: ARG002
        """Scalar, for logits (B, classes, H, W) and masks uint8 (B, H, W)."""
        labels = masks.long()
        num = (labels != IGNORED).sum().clamp(min=1)  # a crop may have no labeled pixel
        losses = [
            functional.cross_entropy(
                one, labels, ignore_index=IGNORED, label_smoothing=self._label_smoothing, reduction="sum"
            )
            for one in logits
        ]
        return (losses[0] + self._aux_weight * sum(losses[1:])) / num


class SegmentationTask:
    """See `fixres.transfer.run.Task`."""

    def __init__(self, recipe: SegmentRecipe, data: MaskData, precision: Precision) -> None:
        torch.manual_seed(recipe.seed)
        self.backbone = chosen_backbone(recipe.backbone, *segmenter_stages(recipe), probe=(97, 131))
        self.backbone.freeze(recipe.backbone.num_frozen_stages)
        self.classes, self._data, self._precision = data.classes, data, precision
        net = create_segmenter(recipe, self.backbone, len(data.classes))
        self.net = net.to(precision.device, memory_format=torch.channels_last)
        stepper = Stepper(create_optimizer(self.net, recipe.optim), precision, recipe.optim.accumulate or 1)
        loss = MaskLoss(recipe.aux_weight, recipe.optim.label_smoothing)
        self.trainer = Trainer(self.net, self.backbone.normalize, stepper, loss, seed=recipe.seed)
        self._read = MaskReader(data)
        train = SampleDataset(data.train, self._read, mask_transform(recipe), recipe.seed)
        test = SampleDataset(data.test, self._read, None, recipe.seed)
        options = {"seed": recipe.seed, "resolution": recipe.crop_size, "num_workers": recipe.data.num_workers}
        self.train = SampleLoader(train, recipe.optim.micro_batch_size, shuffle=True, collate=stacked, **options)
        self.test = SampleLoader(test, num_processes(), shuffle=False, collate=listed, **options)

    def check(self, loader: Any) -> None:
        """See `fixres.transfer.run.Task`. Masks of one class say that their numbers are others than the user thinks."""
        counts = torch.zeros(IGNORED + 1, dtype=torch.int64)
        with bar(len(self._data.test), "reading the test images") as shown:
            for batch in loader:
                for mask in batch.labels:
                    counts += torch.bincount(mask.as_subclass(Tensor).flatten(), minlength=len(counts))
                shown.update(len(batch.images) * num_processes())
        present = [name for name, num in zip(self.classes, sum(all_gather(counts)).tolist(), strict=False) if num]
        if len(present) < min(2, len(self.classes)):
            first, ignored = self._data.first, 0 if self._data.first else IGNORED
            raise InputError(
                f"{self._data.test[0].mask.parent}: of all {len(self.classes)} classes, these masks have pixels "
                f"of {', '.join(present) or 'none'}; write numbers from {first} on into them, or {ignored} to ignore"
            )

    def evaluate(self, loader: Any, title: str) -> SegmentationResult:
        """Pixel accuracy and IoU on the test images, at their own sizes."""
        num_classes = len(self.classes)
        matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        with bar(len(self._data.test), title) as shown:
            for batch in loader:
                for image, mask in zip(batch.images, batch.labels, strict=True):
                    matrix += confusion(self.find(image), mask.as_subclass(Tensor), num_classes)
                shown.update(len(batch.images) * num_processes())
        return score_masks(sum(all_gather(matrix)), self.classes, len(self._data.test))

    def find(self, image: Tensor) -> Tensor:
        """See `Segmenter.predict`."""
        self.net.eval()
        with self._precision.autocast():
            return self.net.predict(image)

    def pictures(self, num: int) -> list[bytes]:
        """The first test images with their masks, and with the predicted ones."""
        pictures = []
        for one in self._data.test[:num]:
            image, mask = self._read(one)
            pictures.append(masks_side_by_side(image, mask, self.find(image), self.classes))
        return pictures
