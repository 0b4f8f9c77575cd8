"""A trained predictor as one file that runs without this library: torch.export's program, or ONNX."""

import io
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from collegium import networks
from collegium.cohort import AVERAGED, is_peer
from collegium.data import OwnData, as_data
from collegium.errors import TrainingError, UsageError, nearest
from collegium.extras import how_to_install
from collegium.files import check_can_make, inside, storing, write_whole
from collegium.student import load_peer, peer_folder, read_config
from collegium.user_code import consents

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Format = Literal["torch", "onnx"]
Answer = Callable[[Tensor], Tensor]
SUFFIX = {"torch": ".pt2", "onnx": ".onnx"}
LARGEST_DIFFERENCE = 1e-3  # of the logits' own size: other kernels round otherwise, another network differs by about 1


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

    def __str__(self) -> str:
        shape = ", ".join(map(str, self.image_shape))
        batch = self.batch_size or "B"
        return (
            f"{self.path}: {self.predictor}, {self.parameters:,} parameters, {self.path.stat().st_size / 1e6:.1f} MB\n"
            f"  images ({batch}, {shape}) float32 {self.takes} -> logits ({batch}, {self.num_classes})\n"
            f"  its answers differ from the trained network's by at most {self.difference:.0e} of the largest logit"
        )


@consents()
def export(
    run: str | Path,
    *,
    predictor: str | None = None,
    format: Format = "torch",
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
        run: a finished run, or a peer's folder.
        predictor: a peer, "ensemble", or one of the method's own ("fused"), or with averaged weights "peer0_ema"; by
            default the peer that the method trains for use.
        format: "torch" for a program of :mod:`torch.export` (``torch.export.load(FILE).module()``), "onnx" for ONNX,
            which needs the packages of the extra ``onnx``. Either holds the peer's config.json: for torch
            in ``extra_files``, for ONNX in the metadata's ``collegium``.
        out: the file; by default RUN/exports/PREDICTOR with the format's suffix.
        normalised: the program takes images that are normalised already, not those in [0, 1] (of a scene: those in
            its own units, the bands picked and projected).
        batch_size: the only one that the program takes; by default any.
        network: the untrained module, where the peer is a network of your own that was given from Python.
        data, peers, teacher: as for :func:`evaluate`, where the predictor is not a peer and the run was given them
            from Python.
        trust: import code of your own that the run names, module:package.function.

    Raises:
        UsageError: there is no such run or predictor, or it cannot be exported; nothing is written.
        TrainingError: the program's answers differ from the network's; nothing is written.
    """
    if format not in SUFFIX:
        raise UsageError(f"cannot export as {format!r}; the formats are {', '.join(SUFFIX)}")
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"a batch has at least one image, not {batch_size}")
    name = peer_folder(run).name if predictor is None else predictor
    file = Path(out) if out is not None else inside(Path(run).expanduser(), "exports", name + SUFFIX[format])
    if file.suffix != SUFFIX[format]:
        raise UsageError(f"the file of format {format} ends in {SUFFIX[format]}, not as {file}")
    check_can_make(file.parent)
    needed = ("image_size", *(() if normalised else ("mean", "std")))
    module, config = trained_predictor(
        run, predictor, needed=needed, network=network, data=data, peers=peers, teacher=teacher
    )
    image_shape = (config["in_channels"], *config["image_size"])
    program = Program(module, None if normalised else (config["mean"], config["std"])).cpu().eval()
    how = {"predictor": name, "normalises": not normalised, "batch_size": batch_size}
    described = json.dumps({**config, **how, "collegium": version("collegium")})
    traced = _traced(program, image_shape, batch_size)
    try:
        content, answer = (_onnx_file if format == "onnx" else _torch_file)(traced, described)
    except UsageError:
        raise
    except Exception as error:  # torch and ONNX raise many kinds
        raise UsageError(f"{name} cannot be written as {format}: {' '.join(str(error).split())[:300]}") from error
    difference = _largest_difference(program, answer, image_shape, batch_size)
    if not difference <= LARGEST_DIFFERENCE:
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
    """From images to logits, the normalisation with it where mean and std, one value a channel, are given."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, normalisation: tuple[Sequence[float], Sequence[float]] | None) -> None:
        super().__init__()
        self.network = network
        self.normalises = normalisation is not None
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in normalisation or ([0.0], [1.0]))
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network((images - self.mean) / self.std if self.normalises else images)
        return logits


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


def _onnx_file(traced: "ExportedProgram", described: str) -> tuple[bytes, Answer]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # what torch writes ONNX with
    except ImportError as error:
        raise UsageError(f"ONNX needs the packages of an extra: {how_to_install('onnx')}") from error
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(traced, dynamo=True, verbose=False, **names)
    assert program is not None
    program.model.metadata_props["collegium"] = described
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def answer(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])

    return content, answer


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
