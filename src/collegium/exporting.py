"""A trained predictor as one file that runs without this library: torch.export's program, or ONNX."""

import copy
import io
import json
import logging
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from collegium import networks
from collegium.cohort import AVERAGED, is_peer
from collegium.data import OwnData, as_data
from collegium.errors import CollegiumError, TrainingError, UsageError, nearest
from collegium.extras import how_to_install
from collegium.files import check_can_make, inside, storing, write_whole
from collegium.formatting import percent
from collegium.hub import on_hub
from collegium.logs import no_logging
from collegium.onnx_files import Answer, onnx_session, session_answer
from collegium.quantising import Quantised, RunImages, quantise
from collegium.student import load_peer, peer_folder, read_config
from collegium.user_code import consents

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Format = Literal["torch", "onnx"]
Precision = Literal["fp32", "fp16", "int8"]
SUFFIX = {"torch": ".pt2", "onnx": ".onnx"}
LARGEST_DIFFERENCE = {"fp32": 1e-3, "fp16": 3e-2}
"""Of the logits' own size: other kernels round otherwise, another network differs by about 1."""
OLDEST_OPSET = 18  # that torch writes


@dataclass(frozen=True)
class Exported:
    """A file that was written, and what it takes and gives."""

    path: Path
    predictor: str
    parameters: int
    image_shape: tuple[int, ...]  # (C, H, W)
    batch_size: int | None  # None: any
    takes: str
    num_classes: int
    difference: float  # the largest from the trained predictor's logits, relative to the largest of those
    precision: Precision = "fp32"
    quantised: Quantised | None = None  # where the precision is int8
    openvino: str = ""  # what OpenVINO makes of an ONNX file, "" where it is not installed

    def __str__(self) -> str:
        shape = ", ".join(map(str, self.image_shape))
        batch = self.batch_size or "B"
        size = self.path.stat().st_size / 1e6
        inside = "" if self.precision == "fp32" else f", {self.precision} inside"
        lines = [
            f"{self.path}: {self.predictor}, {self.parameters:,} parameters, {size:.2f} MB{inside}",
            f"images ({batch}, {shape}) float32 {self.takes} -> logits ({batch}, {self.num_classes})",
        ]
        if self.quantised is None:
            lines.append(
                f"its answers differ from the trained network's by at most {self.difference:.0e} of the largest logit"
            )
        else:
            found = self.quantised
            lines.append(
                f"accuracy on the {found.test_images:,} test images: {percent(found.accuracy_before)} % in fp32, "
                f"{percent(found.accuracy_after)} % in int8 with scales of {found.calibration_images:,} training images"
            )
        return "\n  ".join([*lines, *([self.openvino] if self.openvino else [])])


@consents()
def export(
    run: str | Path,
    *,
    predictor: str | None = None,
    format: Format = "torch",
    precision: Precision = "fp32",
    opset: int | None = None,
    out: str | Path | None = None,
    normalised: bool = False,
    batch_size: int | None = None,
    network: nn.Module | None = None,
    data: OwnData | None = None,
    peers: Sequence[nn.Module] | None = None,
    teacher: nn.Module | None = None,
    trust: bool = False,
) -> Exported:
    """Writes a trained predictor as one file, and compares what the file answers with what the networks answer.

    Args:
        run: a finished run, a peer's folder, or hf://OWNER/NAME.
        predictor: a peer, "ensemble", or one of the method's own ("fused"), or with averaged weights "peer0_ema"; by
            default the peer that the method trains for use.
        format: "torch" for a program of :mod:`torch.export` (``torch.export.load(FILE).module()``), "onnx" for ONNX,
            which needs the packages of the extra ``onnx``. Either holds the peer's config.json: for torch
            in ``extra_files``, for ONNX in the metadata's ``collegium``.
        precision: of weights and activations; images and logits are float32 in each. "fp16" takes half the size. "int8"
            is for ONNX and takes a quarter: its scales are chosen by training images of the run, without augmentation,
            and the accuracy on the test images before and after is said, and kept in the file's description.
        opset: of ONNX's operators, 18 or later; by default torch's choice.
        out: the file; by default RUN/exports/PREDICTOR, or PREDICTOR_PRECISION, with the format's suffix.
        normalised: the program takes images that are normalised already, not those in [0, 1] (of a scene: those in
            its own units, the bands picked and projected).
        batch_size: the only one that the program takes; by default any.
        network: the untrained module, where the peer is a network of your own that was given from Python.
        data, peers, teacher: as for :func:`evaluate`, where the predictor is not a peer and the run was given them
            from Python; ``data`` for int8 too.
        trust: import code of your own that the run names, module:package.function.

    Raises:
        UsageError: there is no such run or predictor, or it cannot be exported; nothing is written.
        DataError: int8 needs the run's data, which cannot be read.
        TrainingError: the program's answers differ from the network's; nothing is written.
    """
    if format not in SUFFIX:
        raise UsageError(f"cannot export as {format!r}; the formats are {', '.join(SUFFIX)}")
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"a batch has at least one image, not {batch_size}")
    if precision not in ("fp32", "fp16", "int8"):
        raise UsageError(f"cannot export in {precision!r}; the precisions are fp32, fp16, int8")
    if format != "onnx" and (precision == "int8" or opset is not None):
        raise UsageError(f"{'int8' if precision == 'int8' else 'opset'} is for ONNX alone: add --format onnx")
    if on_hub(run):
        if out is None or predictor is not None:
            raise UsageError(f"{run} is one peer, and not on this machine: give --out FILE, and no predictor")
        run = peer_folder(run)
    name = peer_folder(run).name if predictor is None else predictor
    stem = name if precision == "fp32" else f"{name}_{precision}"
    file = Path(out) if out is not None else inside(Path(run).expanduser(), "exports", stem + SUFFIX[format])
    if file.suffix != SUFFIX[format]:
        raise UsageError(f"the file of format {format} ends in {SUFFIX[format]}, not as {file}")
    check_can_make(file.parent)
    whole = precision == "int8" or not normalised
    module, config = trained_predictor(
        run,
        predictor,
        needed=("image_size", *(("mean", "std") if whole else ())),
        network=network,
        data=data,
        peers=peers,
        teacher=teacher,
    )
    image_shape = (config["in_channels"], *config["image_size"])
    normalisation = None if normalised else (config["mean"], config["std"])
    program = Program(module, normalisation).cpu().eval()
    images = None
    if precision == "int8":
        images = RunImages(run, config, normalised=normalised, batch_size=batch_size, data=data)
    told: dict[str, Any] = {"predictor": name, "normalises": not normalised, "batch_size": batch_size}
    told |= {"precision": precision, "collegium": version("collegium")}
    written = Program(copy.deepcopy(module), normalisation, half=True).eval() if precision == "fp16" else program
    traced = _traced(written, image_shape, batch_size)
    found: Quantised | None = None
    try:
        if format == "torch":
            content, answer = _torch_file(traced, json.dumps({**config, **told}))
        else:
            content = _onnx(traced, opset)
            if images is not None:
                content, found = _in_8_bits(content, images)
                told |= {"quantised": found._asdict()}
            content = _described(content, json.dumps({**config, **told}))
            answer = session_answer(onnx_session(content))
    except CollegiumError:
        raise
    except Exception as error:  # torch and ONNX raise many kinds
        raise UsageError(f"{name} cannot be written as {format}: {' '.join(str(error).split())[:300]}") from error
    difference = _largest_difference(program, answer, image_shape, batch_size)
    # What 8 bits change is told by the accuracy; only logits that are no numbers are refused.
    if not difference <= LARGEST_DIFFERENCE.get(precision, sys.float_info.max):
        raise TrainingError(
            f"{name} as {format} answers otherwise than the trained network, by {difference:.1e} of the largest logit; "
            "nothing was written"
        )
    with storing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, content)
    raw = "as measured, with bands and components as config.json says" if "bands" in config else "in [0, 1]"
    return Exported(
        path=file,
        predictor=f"{name} ({config['network']})" if "network" in config else name,
        parameters=sum(p.numel() for p in traced.parameters()),
        image_shape=image_shape,
        batch_size=batch_size,
        takes="normalised" if normalised else f"{raw}, normalised inside",
        num_classes=config["num_classes"],
        difference=difference,
        precision=precision,
        quantised=found,
        openvino=_in_openvino(content, answer, image_shape, batch_size) if format == "onnx" else "",
    )


def trained_predictor(
    run: str | Path,
    name: str | None,
    *,
    needed: Sequence[str],
    network: nn.Module | None = None,
    data: OwnData | None = None,
    peers: Sequence[nn.Module] | None = None,
    teacher: nn.Module | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """A predictor of a finished run, from normalised images to logits, and its peer's config.json.

    Args:
        run: a finished run, or a peer's folder.
        name: a peer, "ensemble" or one of the method's own; None for the deployed peer.
        needed: what config.json must say.
        network, data, peers, teacher: as for :func:`export`.

    Returns:
        The module, and the configuration, without the name of the network where several answer.

    Raises:
        UsageError: there is no such run or predictor, or config.json lacks something.
    """
    folder = peer_folder(run)
    one_peer = name is None or is_peer(name.removesuffix(AVERAGED))
    name = folder.name if name is None else name
    if one_peer:
        folder = inside(folder.parent, name)
        if not (folder / "config.json").is_file():
            raise UsageError(f"{run} has no {name}{nearest(name, [f.name for f in folder.parent.iterdir()])}")
    config = read_config(folder)
    lacking = [key for key in needed if key not in config]
    if lacking:
        raise UsageError(f"{folder / 'config.json'} does not say {' and '.join(lacking)} of the images")
    if one_peer and peers is not None:
        raise UsageError(f"{name} needs its own network alone: give network= in place of peers=")
    if one_peer:
        image_shape = (config["in_channels"], *config["image_size"])
        return networks.as_network(load_peer(folder, network), image_shape), config
    if network is not None:
        raise UsageError(f"{name} needs all networks: give peers=[...] in place of network=")
    module = _joint(run, name, data=None if data is None else as_data(data), peers=peers, teacher=teacher)
    return module, {key: value for key, value in config.items() if key != "network"}


class Program(nn.Module):
    """From images to logits, the normalisation with it where mean and std, one value a channel, are given.

    With ``half`` the network computes in fp16 between the float32 images and logits.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        normalisation: tuple[Sequence[float], Sequence[float]] | None,
        *,
        half: bool = False,
    ) -> None:
        super().__init__()
        self.network = network.half() if half else network
        self.half_inside = half
        self.normalises = normalisation is not None
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in normalisation or ([0.0], [1.0]))
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: Tensor) -> Tensor:
        images = (images - self.mean) / self.std if self.normalises else images
        logits: Tensor = self.network(images.half() if self.half_inside else images)
        return logits.float() if self.half_inside else logits


class _Predictor(nn.Module):
    """One of a learner's predictors alone."""

    def __init__(self, learner: nn.Module, name: str) -> None:
        super().__init__()
        self.learner = learner
        self.name = name

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.learner.predict(images)[self.name]  # type: ignore[operator]
        return logits


def _joint(run: str | Path, name: str, **given: Any) -> nn.Module:
    from collegium.training.run import restore

    trained = restore(run, **given)
    learner = trained.learner.cpu().eval()
    with torch.no_grad():
        predictors = list(learner.predict(torch.zeros(2, *trained.experiment.data.image_shape)))
    if name not in predictors:
        raise UsageError(f"{run} has no predictor {name!r}{nearest(name, predictors)}; it has {', '.join(predictors)}")
    return _Predictor(learner, name)


def _traced(program: nn.Module, image_shape: tuple[int, ...], batch_size: int | None) -> "ExportedProgram":
    images = torch.zeros(batch_size or 2, *image_shape)
    shapes = None if batch_size else ({0: torch.export.Dim("batch", min=1)},)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.export.export(program, (images,), dynamic_shapes=shapes, strict=False)
            return torch.export.export(_without_unused(traced), (images,), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch.export raises many kinds
        advice = "" if batch_size else "; with --batch-size 1 it may be, for one image at a time"
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"torch.export cannot follow this network{advice}. It says: {reason}") from error


def _without_unused(exported: "ExportedProgram") -> nn.Module:
    """The program as a module, without the operations that the answer does not need, and their weights."""
    module = exported.run_decompositions({}).module()  # which leaves no operations in place
    assert isinstance(module, torch.fx.GraphModule)
    for node in module.graph.nodes:
        if node.target == torch.ops.aten._assert_tensor_metadata.default:
            module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    read = {node.target for node in module.graph.nodes if node.op == "get_attr" and node.users}
    for name in [name for name, _ in [*module.named_parameters(), *module.named_buffers()] if name not in read]:
        for node in [node for node in module.graph.nodes if node.target == name]:
            module.graph.erase_node(node)
        owner, _, attribute = name.rpartition(".")
        delattr(module.get_submodule(owner), attribute)
    module.recompile()
    return module


def _torch_file(traced: "ExportedProgram", described: str) -> tuple[bytes, Answer]:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about weights that lie in one another's memory
        torch.export.save(traced, buffer, extra_files={"config.json": described})
    content = buffer.getvalue()
    return content, torch.export.load(io.BytesIO(content)).module()


def _onnx(traced: "ExportedProgram", opset: int | None) -> bytes:
    """The program in ONNX, from "images" to "logits"; the first axis is called "batch" where it has any length."""
    try:
        import onnx
        import onnxruntime  # noqa: F401  # what tries the file
        import onnxscript  # noqa: F401  # what torch writes ONNX with
    except ImportError as error:
        raise UsageError(f"ONNX needs the packages of an extra: {how_to_install('onnx')}") from error
    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not OLDEST_OPSET <= opset <= newest:
        raise UsageError(f"the opset is one from {OLDEST_OPSET} to {newest}, not {opset}")
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"], "opset_version": opset}
    # Messages are on how the versions of operators are converted, of which only the outcome counts.
    with no_logging(logging.ERROR), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(traced, dynamo=True, verbose=False, **names)
    assert program is not None
    model = program.model_proto
    (made,) = (each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if opset not in (None, made):
        raise UsageError(f"this network cannot be written with opset {opset}, only with {made}")
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        for axis in value.type.tensor_type.shape.dim:
            if batch and axis.dim_param == batch:
                axis.dim_param = "batch"
    content: bytes = model.SerializeToString()
    return content


def _described(content: bytes, description: str) -> bytes:
    """The program with its description in the metadata."""
    import onnx

    model = onnx.load_from_string(content)
    model.metadata_props.add(key="collegium", value=description)
    described: bytes = model.SerializeToString()
    return described


def _in_8_bits(content: bytes, images: RunImages) -> tuple[bytes, Quantised]:
    """The program with weights and activations in 8 bits, and what that does to its accuracy."""
    made = quantise(content, images.calibration())
    return made, Quantised(
        calibration_images=images.calibration_images,
        test_images=len(images.data.test),
        accuracy_before=images.accuracy(session_answer(onnx_session(content)), "Scoring in fp32"),
        accuracy_after=images.accuracy(session_answer(onnx_session(made)), "Scoring in int8"),
    )


def _in_openvino(content: bytes, answer: Answer, image_shape: tuple[int, ...], batch_size: int | None) -> str:
    """Whether OpenVINO answers as onnxruntime does, in words; "" where it is not installed."""
    try:
        import openvino
    except ImportError:
        return ""
    images = torch.rand(batch_size or 3, *image_shape, generator=torch.Generator().manual_seed(0))
    named = f"OpenVINO {openvino.__version__.partition('-')[0]}"
    try:
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        answered = torch.from_numpy(compiled([images.numpy()])[0])
    except Exception as error:  # of its own kinds
        return f"{named} cannot run it: {' '.join(str(error).split())[:200]}"
    expected = answer(images)
    difference = float((answered - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    return f"{named} answers the same within {difference:.0e} of the largest logit"


@torch.no_grad()
def _largest_difference(
    program: Program, answer: Answer, image_shape: tuple[int, ...], batch_size: int | None
) -> float:
    """On random images, in batches of several sizes where the program takes any; nan where an answer is."""
    random = torch.Generator().manual_seed(0)
    found = []
    for size in [batch_size] if batch_size else [1, 2, 5]:
        images = torch.randn(size, *image_shape, generator=random)
        if program.normalises:
            images = images * program.std + program.mean
        answered = answer(images.clone())
        expected = program(images)
        found.append((answered - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    return float(torch.stack(found).max())
