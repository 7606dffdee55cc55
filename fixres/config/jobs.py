"""Jobs with a trained network: what each command does, as frozen dataclasses that are checked before any work starts.

The command line makes them from options. This module does not import torch, so that `--help` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fixres.config.checks import check_batch_size, check_device, check_resolutions
from fixres.config.network_arguments import check_arguments
from fixres.config.recipe import FinetuneConfig, OptimConfig
from fixres.pipelines.runtime.atomic_files import check_free, check_json_target, check_target
from fixres.pipelines.spec import DataConfig, InputError, Interpolation, TrainCrop, check_resolution, check_seed

_OTHER_ENDINGS = (".pth", ".bin", ".ckpt", ".safetensors", ".onnx", ".tar", ".txt", ".json")  # of files


@dataclass(frozen=True)
class WeightsChoice:
    """Which network: settings that all jobs share."""

    model: str | None = field(default=None, metadata={"positional": True})
    """A file of weights (ours, timm's, torchvision's, FixRes', safetensors), or the timm name of cached weights."""
    arch: str | None = None
    """timm's name of the network, for files that do not name it; its tag (resnet50.tv_in1k) chooses the transform."""
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    """Further arguments of timm.create_model, for files without them."""
    crop_pct: float | None = None
    """Side of the center crop over the resized short side in testing; that of the weights if null."""
    interpolation: Interpolation | None = None
    """Filter of the resize in testing, antialiased; that of the weights if null."""
    classes: str | None = None
    """Names of the network's outputs: imagenet, a file with one name a line, data, or a checkpoint; for weights that do
    not name them. The data's classes are found among them by name."""

    def __post_init__(self) -> None:
        if self.model is None:
            raise InputError("MODEL is missing: a file of weights, or timm's name of cached weights; see --help")
        check_arguments("model_kwargs", self.model_kwargs)

    @property
    def weights(self) -> str:
        """`model`, once it is known to be given."""
        assert self.model is not None
        return self.model


@dataclass(frozen=True)
class NetworkChoice(WeightsChoice):
    """The network of a job, its device and precision."""

    device: str = "auto"
    """"cpu", "cuda[:n]", or "auto": the GPU if there is one."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Autocast type; "auto" takes bf16 where the network is faster with it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_device(self.device)


@dataclass(frozen=True)
class EvaluateJob(NetworkChoice):
    """Tests a network with its own transform, or scores probabilities that were extracted before."""

    data: DataConfig = field(default_factory=DataConfig)
    """Which images, read by which engine."""
    images: Path | None = None
    """Only test images, instead of data: class folders, ImageNet-V2, val images of ILSVRC2012, a .beton file."""
    softmax: list[Path] = field(default_factory=list)
    """Folders that `fixres extract` wrote, or .npy files; several are averaged. Instead of model and data."""
    labels: Path | None = None
    """Labels for softmax files that have no labels.npy beside them."""
    real: Path | None = None
    """real.json: also score by ReaL labels; the images are ImageNet's val."""
    val_labels: Path | None = None
    """With real, for data without image names: the labels of ImageNet's val, see docs/evaluation.md."""
    json: Path | None = None
    """JSON file for all figures, including those of each class; - prints it instead of the text."""
    test_res: list[int] = field(default_factory=list)
    """Test resolutions in pixels; the checkpoint's by default."""
    batch_size: int = 64
    """Images per step."""

    def __post_init__(self) -> None:
        check_resolutions("test_res", self.test_res)
        check_batch_size("batch_size", self.batch_size)
        if not self.softmax:
            super().__post_init__()
        elif self.model or self.test_res or self.images:
            raise InputError("softmax files are scored as they are; omit the model, --test-res and --images")
        if self.json not in (None, Path("-")):
            check_json_target(self.json)


@dataclass(frozen=True)
class ExtractJob(NetworkChoice):
    """Writes embeddings, softmax and labels of all images of a split."""

    output: Path = Path("features")
    """Folder to create."""
    data: DataConfig = field(default_factory=DataConfig)
    """Which images, read by which engine."""
    images: Path | None = None
    """Folder or file of test images, see `fixres evaluate`; instead of data."""
    split: Literal["train", "val"] = "val"
    """Which images of data; training images are cropped as in testing."""
    test_res: int | None = None
    """Test resolution in pixels; the weights' own if null."""
    dtype: Literal["float32", "float16"] = "float32"
    """Type of embeddings and softmax."""
    batch_size: int = 64
    """Images per step."""
    overwrite: bool = False
    """Replace the output folder if it exists."""
    restart: bool = False
    """Discard an unfinished extraction instead of resuming it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_batch_size("batch_size", self.batch_size)
        if self.test_res is not None:
            check_resolution(self.test_res)
        if self.images is not None and self.split != "val":
            raise InputError("--images is a test split; omit --split")
        check_target(self.output, folder=True)
        # Before the images are converted; extraction.json is the record of an extraction.
        check_free(self.output, self.overwrite, folder=True, mark="extraction.json")


@dataclass(frozen=True)
class FinetuneJob(NetworkChoice):
    """Fine-tunes layers of a network for test resolutions (arXiv 1906.06423, section 4). See docs/fixres.md."""

    new_classifier: bool = False
    """Start with a classifier of random weights if the network's is for another number of classes."""
    test_res: int | list[int] | Literal["auto"] = field(default_factory=list)
    """Test resolutions in pixels, each fine-tuned from the same weights; auto: those at which objects appear as large
    as in training."""
    train_res: int | None = None
    """Training resolution in pixels; the checkpoint's if null."""
    output: Path | None = None
    """Folder of the fine-tuned checkpoints and the report, or a .pt file for a single resolution; beside the checkpoint
    if null."""
    sweep: list[int] = field(default_factory=list)
    """Further test resolutions at which to test before and after each fine-tuning; train_res and test_res are always
    tested."""
    train_crop: TrainCrop = field(default_factory=TrainCrop)
    """RandomResizedCrop of the training, for auto and for augmentation train."""
    data: DataConfig = field(default_factory=DataConfig)
    """Which images, read by which engine."""
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """Which layers are trained, how long and on which images."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(batch_size=64))
    """Batch size, momentum, weight decay and label smoothing; the learning rate is that of --finetune.lr."""
    seed: int = 0
    """Seeds order, crops, flips and jitter."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seed(self.seed)
        check_resolutions("test_res", self.resolutions)
        check_resolutions("sweep", self.sweep)
        if self.train_res is not None:
            check_resolution(self.train_res)
        if self.test_res != "auto" and not self.resolutions:
            raise InputError("test_res is empty; give resolutions such as 288,320, or auto")
        if self.output is not None and self.output.suffix in _OTHER_ENDINGS and not self.output.is_dir():
            raise InputError(f"output={self.output} must end in .pt, or be a folder")
        if self._is_file and len(self.resolutions) != 1:
            raise InputError(f"output={self.output} is one file; for several resolutions give a folder")
        for name in ("ema", "accumulate", "steps"):
            if getattr(self.optim, name) is not None:
                raise InputError(
                    f"optim.{name} is for training; fine-tuning has its own schedule (--finetune.schedule), omit it"
                )
        if self.optim.per_process is not None:
            raise InputError(
                "optim.per_process is for training; fine-tuning needs the images of all processes, optim.batch_size"
            )
        self.check_free(self.resolutions)

    @property
    def resolutions(self) -> list[int]:
        """The test resolutions that the job names, in rising order; none for auto."""
        if self.test_res == "auto":
            return []
        return [self.test_res] if isinstance(self.test_res, int) else sorted(set(self.test_res))

    @property
    def _is_file(self) -> bool:
        return self.output is not None and self.output.suffix == ".pt"

    def target(self, test_res: int) -> Path:
        """The file of the weights fine-tuned for `test_res`."""
        if self.output is not None and self._is_file:
            return self.output
        weights = Path(self.weights)
        folder = weights.parent if weights.is_file() else Path()  # weights that are a name have no folder
        return (self.output or folder) / f"{self._stem}_finetuned{test_res}.pt"

    @property
    def _stem(self) -> str:
        weights = Path(self.weights)
        return weights.stem if weights.is_file() else weights.name

    def report(self, resolutions: list[int]) -> Path:
        """The report of the fine-tunings for `resolutions`, without its suffix."""
        target = self.target(resolutions[0])
        if self._is_file:
            return target.with_name(f"{target.stem}_report")
        return target.with_name(f"{self._stem}_finetuned{'-'.join(map(str, resolutions))}_report")

    def check_free(self, resolutions: list[int]) -> None:
        """Raises InputError if a checkpoint or the report would overwrite a file, or cannot be written."""
        if self.output is not None:
            check_target(self.output, folder=not self._is_file)
        paths = [self.target(resolution) for resolution in resolutions]
        if resolutions:
            report = self.report(resolutions)
            paths += [report.with_name(f"{report.name}.json"), report.with_name(f"{report.name}.md")]
        for path in paths:
            if path.exists():
                raise InputError(f"{path} exists; choose another --output")


@dataclass(frozen=True)
class ActivationsJob(NetworkChoice):
    """Measures a network's pooled activations at test resolutions (arXiv 1906.06423, section 3.2)."""

    data: DataConfig = field(default_factory=DataConfig)
    """Which images, read by which engine."""
    test_res: list[int] = field(default_factory=list)
    """Test resolutions in pixels; by default the checkpoint's training and test resolutions."""
    num_images: int = 1000
    """Number of test images, chosen at random, the same ones at each resolution."""
    plot: Path | None = None
    """PNG file with the distributions; none if null."""
    batch_size: int = 64
    """Images per step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_resolutions("test_res", self.test_res)
        check_batch_size("batch_size", self.batch_size)
        if self.num_images < 1:
            raise InputError(f"num_images={self.num_images} must be at least 1")
        if self.plot is not None and self.plot.suffix.lower() != ".png":
            raise InputError(f"plot={self.plot} must be a .png file")
        if self.plot is not None:
            check_target(self.plot)
