"""Labels for image files, by a trained network or by a file that was exported from one."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from collegium.data import OwnData
from collegium.data.decoding.passes import counted
from collegium.data.decoding.pixels import read_parts
from collegium.data.decoding.workers import Crew, default_workers
from collegium.data.plain_files import shown, walk
from collegium.data.views import Part, described_view
from collegium.errors import CollegiumError, DataError, UsageError, out_of_memory
from collegium.exporting import SUFFIX, Program, trained_predictor
from collegium.files import check_can_make, storing, write_whole
from collegium.formatting import plural, printable
from collegium.hub import located
from collegium.onnx_files import Answer, read_onnx
from collegium.options import checked
from collegium.pages.sheet import csv_text
from collegium.schemas import read_exported
from collegium.user_code import Untrusted, consents, current

_FEW = 256  # images that are read before other processes have started
_FORMATS = (".csv", ".jsonl")


@dataclass(frozen=True)
class Predictions:
    """What a network takes images for.

    Attributes:
        files: what names each image.
        class_names: in the order of the labels.
        probabilities: (N, classes) float32.
        notes: what must be known before the labels are believed.
        truth: the right label of each image, () where it is not known.
        named: what ``files`` are: paths, or numbers of images in their split.
    """

    files: tuple[str, ...]
    class_names: tuple[str, ...]
    probabilities: Tensor
    notes: tuple[str, ...] = ()
    truth: tuple[str, ...] = ()
    named: Literal["file", "index"] = "file"

    def __len__(self) -> int:
        return len(self.files)

    @property
    def labels(self) -> list[str]:
        """The most probable class of each image."""
        return [self.class_names[k] for k in self.probabilities.argmax(1).tolist()] if self.files else []

    def top(self, count: int) -> list[list[tuple[str, float]]]:
        """The most probable classes of each image with their probabilities, the most probable first."""
        found = self.probabilities.topk(min(count, len(self.class_names)), dim=1)
        pairs = zip(found.indices.tolist(), found.values.tolist(), strict=True)
        return [[(self.class_names[k], p) for k, p in zip(*of_image, strict=True)] for of_image in pairs]

    def csv(self) -> str:
        """Columns file, true_label where it is known, label, probability, and the probability of every class."""
        columns = [f"p({name})" for name in self.class_names]
        records = [record | dict(zip(columns, p, strict=True)) for record, p in self._records()]
        return csv_text([*self._heads, *columns], records)

    def json_lines(self) -> str:
        """An object a line: file, true_label where it is known, label, probability, and those of all classes."""
        return "".join(
            json.dumps({**record, "probabilities": dict(zip(self.class_names, p, strict=True))}) + "\n"
            for record, p in self._records()
        )

    def write(self, file: str | Path) -> None:
        """Writes :meth:`csv` or :meth:`json_lines`, by the end of the file's name.

        Raises:
            UsageError: it has another end.
            StorageError: it cannot be written.
        """
        check_file(file)
        with storing(Path(file)):
            Path(file).parent.mkdir(parents=True, exist_ok=True)
        write_whole(Path(file), self.csv() if Path(file).suffix == ".csv" else self.json_lines())

    @property
    def _heads(self) -> list[str]:
        return [self.named, *(["true_label"] if self.truth else []), "label", "probability"]

    def _records(self) -> Iterator[tuple[dict[str, Any], list[float]]]:
        """Of each image what there is but the probabilities, and these."""
        images = zip(self.files, self.labels, self.probabilities.tolist(), strict=True)
        for k, (file, label, p) in enumerate(images):
            truth = [self.truth[k]] if self.truth else []
            yield dict(zip(self._heads, [shown(file), *truth, label, max(p)], strict=True)), p

    def text(self, top: int = 1) -> str:
        """For a terminal: a line for each image, with its most probable classes in percent."""
        width = max((len(shown(file)) for file in self.files), default=0)
        lines = []
        for file, classes in zip(self.files, self.top(top), strict=True):
            likely = ", ".join(f"{printable(name)} {100 * p:.1f} %" for name, p in classes)
            lines.append(f"{shown(file):<{width}}  {likely}")
        return "\n".join(lines)

    def summary(self) -> str:
        """How many images each class has."""
        found = Counter(self.labels).most_common()
        counts = ", ".join(f"{printable(name)} {count}" for name, count in found[:10])
        return f"{plural(len(self), 'image')}: {counts}" + (", ..." if len(found) > 10 else "")


@checked
@consents()
def predict(
    source: str | Path,
    paths: str | Path | Sequence[str | Path],
    *,
    predictor: str | None = None,
    out: str | Path | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    skip_broken: bool = False,
    network: nn.Module | None = None,
    data: OwnData | None = None,
    peers: Sequence[nn.Module] | None = None,
    teacher: nn.Module | None = None,
    trust: bool = False,
) -> Predictions:
    """Tells the classes of image files.

    Images are read, resized and normalised as those that scored the network.

    Args:
        source: a finished run, a peer's folder, a file that `collegium export` wrote, or hf://OWNER/NAME, a peer on the
            Hugging Face Hub.
        paths: image files, and folders that are searched for them.
        predictor: a peer, "ensemble", or one of the method's own ("fused"), or with averaged weights "peer0_ema"; by
            default the peer that the method trains for use.
        out: a file for the labels and the probabilities of all classes: CSV where its name ends in .csv, an object a
            line where it ends in .jsonl.
        batch_size: images that the network is asked about at once.
        workers: processes that decode; by default one for each CPU but one.
        skip_broken: leave files out that cannot be decoded, instead of stopping.
        network: the untrained module, where the peer is a network of your own that was given from Python.
        data, peers, teacher: as for :func:`evaluate`, where the predictor is not a peer and the run was given them
            from Python.
        trust: import code of your own that the run names, module:package.function; and read a file of the format
            torch, which may hold code that runs as it is read.

    Raises:
        UsageError: there is no such run, file or predictor; it was not trained on image files.
        DataError: a path does not exist, holds no images, or cannot be decoded.
        StorageError: ``out`` cannot be written.
    """
    if out is not None:
        check_file(out)
    if batch_size < 1:
        raise UsageError(f"a batch has at least one image, not {batch_size}")
    files = image_files([paths] if isinstance(paths, str | Path) else paths)
    asked = _ask(located(source), predictor, network=network, data=data, peers=peers, teacher=teacher)
    found = _answered(asked, files, batch_size=batch_size, workers=workers, skip_broken=skip_broken)
    if out is not None:
        found.write(out)
    return found


def check_file(file: str | Path) -> None:
    """Raises UsageError where predictions cannot go to a file of this name."""
    if Path(file).suffix not in _FORMATS:
        raise UsageError(f"the file of labels ends in {' or '.join(_FORMATS)}, not as {file}")
    check_can_make(Path(file).parent)


def image_files(paths: Sequence[str | Path]) -> list[str]:
    """Files as they are given, and the images in folders, at any depth, sorted, without hidden ones.

    Raises:
        DataError: there is no such file or folder, or no image in a folder.
    """
    from torchvision.datasets.folder import is_image_file

    found: list[str] = []
    for path in map(Path, paths):
        if not path.is_dir():
            if not path.exists():
                raise DataError(f"there is no file or folder {shown(path)}")
            found.append(str(path))
            continue
        within = []
        for place, folders, names in walk(path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            here = (os.path.join(place, name) for name in names if is_image_file(name) and not name.startswith("."))
            within += [file for file in here if os.path.isfile(file)]
        if not within:
            raise DataError(f"{shown(path)} holds no images (jpg, png, tif, webp, bmp, ppm)")
        found += sorted(within)
    if not found:
        raise DataError("there are no images to predict: give files or folders")
    return found


class _Asked(NamedTuple):
    """Somebody to ask about images."""

    answer: Answer  # (B, C, H, W) in [0, 1] -> logits (B, classes)
    config: dict[str, Any]
    batch_size: int | None  # the only one that it takes; None: any


def _ask(source: Path, predictor: str | None, **given: Any) -> _Asked:
    if source.is_file():
        if predictor is not None:
            raise UsageError(f"{source} holds one predictor alone: leave out {predictor}")
        asked = _exported(source)
    else:
        module, config = trained_predictor(source, predictor, needed=("image_size", "mean", "std"), **given)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        program = Program(module, (config["mean"], config["std"])).to(device).eval()
        asked = _Asked(lambda images: program(images.to(device)).cpu(), config, None)
    if "bands" in asked.config:
        raise UsageError(f"{source} was trained on pixels of a scene, not on image files: its page shows a map")
    return asked


def _exported(file: Path) -> _Asked:
    if file.suffix not in SUFFIX.values():
        raise UsageError(f"{file} is neither a run nor an exported file ({', '.join(SUFFIX.values())})")
    answer, description = (read_onnx if file.suffix == SUFFIX["onnx"] else _from_torch)(file)
    config = read_exported(file, description)
    if not config["normalises"]:
        if "mean" not in config or "std" not in config:
            raise DataError(f"{file} takes normalised images, and does not say by which mean and std")
        answer = _after_normalisation(answer, config["mean"], config["std"])
    return _Asked(answer, config, config.get("batch_size"))


def _after_normalisation(answer: Answer, mean: Sequence[float], std: Sequence[float]) -> Answer:
    normalise = Program(nn.Identity(), (mean, std))
    return lambda images: answer(normalise(images))


def _from_torch(file: Path) -> tuple[Answer, str]:
    """What a program of torch.export answers, and its config.json."""
    if not current().everything:
        raise Untrusted(
            f"{file} may hold code that runs as it is read: if you trust who made it, give --trust (trust=True); "
            "a run or an ONNX file needs none"
        )
    kept = {"config.json": ""}
    try:
        program = torch.export.load(file, extra_files=kept).module()
    except Exception as error:  # torch raises many kinds
        raise DataError(f"{file} cannot be read: {' '.join(str(error).split())[:120]}") from error
    return program, kept["config.json"]


class _Read(NamedTuple):
    """Some images, as the network takes them."""

    images: Tensor  # (B, C, H, W) uint8
    resized: int  # how many had another size
    broken: dict[str, str]  # file -> what is wrong with it


class _Reader:
    """Reads image files as those were read that scored the network."""

    def __init__(self, config: dict[str, Any], *, skip_broken: bool) -> None:
        self.channels, self.bit_depth = config["in_channels"], config.get("bit_depth")
        self.size = tuple(config["image_size"])
        self.view = described_view(config)
        self.skip_broken = skip_broken

    def __call__(self, files: list[str]) -> _Read:
        images, resized, broken = [torch.empty(0, self.channels, *self.size, dtype=torch.uint8)], 0, {}
        size = self.size

        def plan(height: int, width: int) -> list[Part]:
            nonlocal size
            size = height, width
            return [self.view.part(height, width)]

        for file in files:
            try:
                (part,) = read_parts(Path(file), plan, self.channels, self.bit_depth)
            except CollegiumError as error:
                if not self.skip_broken:
                    wrong = f"{shown(file)} cannot be decoded ({error}): remove it, or give --skip-broken"
                    raise DataError(wrong) from error
                broken[file] = str(error)
                continue
            images.append(self.view.finish(part)[None])
            resized += size != self.size
        return _Read(torch.cat(images), resized, broken)


@torch.no_grad()
def _answered(
    asked: _Asked, files: list[str], *, batch_size: int, workers: int | None, skip_broken: bool
) -> Predictions:
    config = asked.config
    batch_size = asked.batch_size or batch_size
    chunks = [files[begin : begin + batch_size] for begin in range(0, len(files), batch_size)]
    count = default_workers() if workers is None else workers
    crew = Crew(_Reader(config, skip_broken=skip_broken), count if len(files) > _FEW else min(count, 0))
    names = tuple(config.get("class_names") or map(str, range(config["num_classes"])))
    broken: dict[str, str] = {}
    found, resized = [torch.empty(0, len(names))], 0
    read: Iterator[_Read] = counted(crew.run(chunks), "Predicting", len(chunks))
    for batch in read:
        resized += batch.resized
        broken |= batch.broken
        if len(batch.images):
            found.append(_logits(asked, batch.images, len(names)).softmax(1))
    notes: list[str] = []
    if resized and "resize" not in config:
        size = " x ".join(map(str, config["image_size"]))
        notes.append(
            f"{plural(resized, 'image')} had another size than {size}, that of the training images, and "
            f"{'was' if resized == 1 else 'were'} resized: labels may be worse than the scores say."
        )
    if broken:
        first = next(iter(broken.items()))
        notes.append(f"{plural(len(broken), 'broken file')} left out, such as {shown(first[0])} ({first[1]}).")
    return Predictions(tuple(f for f in files if f not in broken), names, torch.cat(found), tuple(notes))


def _logits(asked: _Asked, images: Tensor, classes: int) -> Tensor:
    """(B, classes) float32, of images (B, C, H, W) uint8.

    Raises:
        DataError: the network cannot take the images, or answers with something else.
    """
    try:
        logits: object = _padded(asked, images.float() / 255)
    except Exception as error:  # an exported file may hold any program
        if out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:120]
        size = " x ".join(map(str, images.shape[1:]))
        raise DataError(
            f"the network cannot take images of {size}, which its description asks for: {reason}"
        ) from error
    if not isinstance(logits, Tensor) or logits.shape != (len(images), classes):
        said = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise DataError(f"the network answers with {said}, not with {(len(images), classes)} for images and classes")
    if not bool(logits.isfinite().all()):
        raise DataError(
            "the network answers with numbers that are not finite: its weights or its precision are at fault"
        )
    return logits.float()


def _padded(asked: _Asked, images: Tensor) -> Tensor:
    """The logits of images, of which there may be fewer than the batch that is asked about."""
    missing = 0 if asked.batch_size is None else asked.batch_size - len(images)
    if missing <= 0:
        return asked.answer(images)
    return asked.answer(torch.cat([images, images.new_zeros(missing, *images.shape[1:])]))[: len(images)]
