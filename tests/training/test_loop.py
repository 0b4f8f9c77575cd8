"""The loop: players, gradients, precision, what is refused, what is recorded."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import assert_same_run, run, tiny, weights
from many import CASES, assert_same_gradients, gradients
from torch import Tensor

from collegium.cohort import PeerOutputs
from collegium.errors import TrainingError, UsageError
from collegium.method import Progress, Terms
from collegium.methods.ffl import FFL
from collegium.training.devices import Devices
from collegium.training.engine import make_fabric
from collegium.training.experiment import build
from collegium.training.loop import Run
from collegium.training.metrics import Scores
from collegium.training.run_folder import RunFolder


def start(tmp_path: Path, **changes: Any) -> Run:
    experiment = build(tiny(**changes))
    return Run(experiment, RunFolder(tmp_path), make_fabric(experiment.recipe), quiet=True)


def one_step(running: Run) -> None:
    images, target = next(iter(running.training_batches.epoch(0)))
    running.learner.train()
    running.train_step(images, target, 0.0)


def test_in_bf16_a_method_sees_progress_and_targets_unrounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """257 and 0.1 / 10 have no bf16; rounding the epoch would end the turns that DualNet's peers take."""
    seen: list[tuple[Tensor, Tensor]] = []
    forward = FFL.forward

    def spying(self: FFL, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        seen.append((progress.epoch, target))
        return forward(self, out, target, progress)

    monkeypatch.setattr(FFL, "forward", spying)
    running = start(tmp_path, precision="bf16", epochs=301, label_smoothing=0.1)
    running.epoch = 257
    one_step(running)
    (epoch, target) = seen[0]
    assert epoch.item() == 257
    assert running.progress.epochs.item() == 301
    torch.testing.assert_close(target.sum(-1), torch.ones(20), rtol=0, atol=1e-6)


def test_fp16_is_refused_without_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        start(tmp_path, precision="fp16")


def test_a_loss_that_is_not_finite_names_term_and_step_and_keeps_the_last_good_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = FFL.forward

    def poisoned(self: FFL, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        terms = forward(self, out, target, progress)
        if progress.fraction.item() == pytest.approx(6 / 12):  # epoch 2, step 3
            terms["peers"]["fkd"] = terms["peers"]["fkd"] * float("nan")
        return terms

    monkeypatch.setattr(FFL, "forward", poisoned)
    with pytest.raises(TrainingError, match=r"term peers/fkd became nan in epoch 2, step 3; .*step_000000004.pt"):
        run(tmp_path / "run")
    assert [p.name for p in RunFolder(tmp_path / "run").saved_checkpoints()] == ["step_000000004.pt"]
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run").values())
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_loss_that_is_not_finite_is_named_with_clipping_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = FFL.forward

    def poisoned(self: FFL, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        terms = forward(self, out, target, progress)
        terms["peers"]["ekd"] = terms["peers"]["ekd"] * float("inf")
        return terms

    monkeypatch.setattr(FFL, "forward", poisoned)
    with pytest.raises(TrainingError, match=r"term peers/ekd became .* in epoch 1, step 1; nothing had been saved"):
        run(tmp_path / "run", gradient_clip=1.0)


def test_weights_that_the_last_step_has_spoilt_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Run.train_step

    def spoiling(self: Run, *arguments: Any) -> None:
        original(self, *arguments)
        if (self.epoch, self.step) == (1, 3):
            next(self.learner.parameters()).data[0] = float("nan")

    monkeypatch.setattr(Run, "train_step", spoiling)
    perfect = Scores(10, torch.device("cpu"))
    perfect.update(torch.eye(10), torch.arange(10))
    monkeypatch.setattr("collegium.training.evaluation.score", lambda *arguments: {"peer0": perfect})
    with pytest.raises(TrainingError, match="weights are no longer finite after epoch 2.*step_000000004.pt"):
        run(tmp_path / "run")
    assert [p.name for p in RunFolder(tmp_path / "run").saved_checkpoints()] == ["step_000000004.pt"]


def test_training_leaves_the_random_state_of_the_user_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    run(tmp_path / "run", epochs=1)
    assert torch.equal(torch.rand(2), expected)


def test_losses_are_in_float32_whatever_the_precision_of_the_networks(tmp_path: Path) -> None:
    running = start(tmp_path, precision="bf16")
    images, target = next(iter(running.training_batches.epoch(0)))
    with running.fabric.autocast():
        out = running.learner.cohort(images)
        terms = running.learner.method(out, target, running.progress)["peers"]
    assert out.features[0][-1].dtype is torch.bfloat16
    assert out.logits.dtype is torch.float32
    assert {term.dtype for term in terms.values()} == {torch.float32}


def test_bf16_trains_close_to_fp32(tmp_path: Path) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        run(tmp_path / precision, precision=precision, epochs=1)
        losses[precision] = RunFolder(tmp_path / precision).metrics()[0]["train/peers/ce"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.03)
    assert losses["bf16"] != losses["fp32"]


def test_contiguous_images_give_the_same_training_as_channels_last(tmp_path: Path) -> None:
    for name, channels_last in (("last", True), ("first", False)):
        run(tmp_path / name, channels_last=channels_last, epochs=1)
    a, b = (RunFolder(tmp_path / name).metrics()[0]["train/peers/ce"] for name in ("last", "first"))
    assert a == pytest.approx(b, rel=1e-3)


def test_a_compiled_step_is_compiled_once_for_all_epochs(tmp_path: Path) -> None:
    """The ramp and the epoch change; the graph does not. The eager backend traces without generating code."""
    torch._dynamo.reset()
    compiled = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    running = start(tmp_path)
    module = torch.compile(running.learner, backend=backend)
    images, target = next(iter(running.training_batches.epoch(0)))
    for epoch in range(3):
        running.progress.epoch.fill_(epoch)
        terms, _ = module(images, target, running.progress)
        eager, _ = running.learner(images, target, running.progress)
        for name, value in eager["peers"].items():
            torch.testing.assert_close(terms["peers"][name], value, rtol=1e-4, atol=1e-5)
        if epoch == 0:
            graphs = len(compiled)
    assert len(compiled) == graphs > 0


def test_runs_of_several_batch_sizes_are_each_compiled_for_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def backend(graph: Any, inputs: Any) -> Any:
        sizes.append({size for x in inputs if isinstance(x, Tensor) for size in x.shape})
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    with torch._dynamo.config.patch(recompile_limit=3):
        for k, size in enumerate((10, 20, 30, 40, 50)):  # of which torch would take the second for one of any size
            run(tmp_path / str(k), method={"name": "dml"}, share_until=None, batch_size=size, epochs=1, compile=True)
    assert len(sizes) == 5
    for size, found in zip((10, 20, 30, 40, 50), sizes, strict=True):
        assert size in found and all(isinstance(one, int) for one in found)


# Where a method stops the compiler, torch looks at the gradient of what is no leaf, and hides its own warning of that.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("case", CASES)
def test_a_compiled_step_of_any_method_has_the_gradients_of_an_eager_one(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case == "l_mcl" and torch.__version__.startswith("2.8."):
        pytest.skip("torch 2.8 frees what the gradients of L-MCL's meta step need")
    expected = gradients(case, Devices(), synchronised=False)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))  # all of it but the code
    found = gradients(case, Devices(), synchronised=False, compile=True)
    assert_same_gradients(found, expected)


@pytest.mark.parametrize(("graphs", "mode"), [(False, "default"), (True, "reduce-overhead")])
def test_compiled_kernels_are_replayed_as_cuda_graphs_where_that_is_asked(
    graphs: bool, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []

    def compiled(module: torch.nn.Module, mode: str) -> torch.nn.Module:
        modes.append(mode)
        return module

    monkeypatch.setattr(torch, "compile", compiled)
    experiment = build(tiny(compile=True, cuda_graphs=graphs))
    Run(experiment, RunFolder(tmp_path), make_fabric(tiny()), quiet=True)
    assert modes == [mode]


def test_a_run_with_validation_scores_both_splits(tmp_path: Path) -> None:
    result = run(tmp_path / "run", data={"name": "digits", "per_class": 8, "validation": 0.1}, epochs=1)
    assert result["best_chosen_on"] == "validation"
    assert "validation/fused/nll" in RunFolder(tmp_path / "run").metrics()[0]


def test_the_result_counts_parameters_and_flops(tmp_path: Path) -> None:
    result = run(tmp_path / "run", epochs=1)
    cost = result["cost"]
    assert list(cost) == ["peer0", "peer1", "ensemble", "fused"]
    peer = build(tiny()).learner.cohort.peer(0)
    assert cost["peer0"]["parameters"] == sum(p.numel() for p in peer.parameters())
    # Stem: 9 multiplications and additions for each of 16 channels at each of 16 x 16 places of a grey image.
    assert cost["peer0"]["flops"] > 2 * 9 * 16 * 16 * 16
    assert cost["peer0"]["flops"] < cost["ensemble"]["flops"] < cost["fused"]["flops"]
    assert cost["ensemble"]["flops"] < 2 * cost["peer0"]["flops"], "the trunk is shared"


def test_kd_and_the_two_stage_dualnet_learn_from_a_finished_run(tmp_path: Path) -> None:
    run(tmp_path / "teacher", method="independent", peers="resnet8", share_until=None, epochs=1)
    alone = dict(peers="resnet8", share_until=None, epochs=1, teacher=str(tmp_path / "teacher"))
    kd = run(tmp_path / "kd", method="kd", **alone)
    assert set(kd["predictors"]) == {"peer0", "ensemble"}
    assert kd["cost"]["ensemble"] == kd["cost"]["peer0"], "the teacher is no part of it"
    dualnet = run(tmp_path / "dualnet", method="dualnet", **alone)
    assert set(dualnet["predictors"]) == {"peer0", "ensemble", "fused", "fused_classifier", "classifiers_mean"}
    assert dualnet["reconstructed"] == ""


@pytest.mark.parametrize("method", ["ffl", "afd", "pcl"])
def test_activation_checkpointing_changes_no_bit(method: str, tmp_path: Path) -> None:
    # AFD's players take their gradients from one graph, PCL's peers are followed by copies.
    recipe: dict[str, Any] = dict(method={"name": method}, peers="2xresnet8", share_until=None, epochs=2)
    run(tmp_path / "kept", **recipe)
    run(tmp_path / "again", **recipe, activation_checkpointing=True)
    assert_same_run(tmp_path / "kept", tmp_path / "again")
