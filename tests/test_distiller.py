"""The methods in one's own training loop."""

import copy
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import collegium
from collegium.cohort import Cohort, CohortSpec, PeerOutputs, describe
from collegium.distiller import Distiller, DistillerOutput
from collegium.errors import UsageError
from collegium.losses import cross_entropy
from collegium.method import Method, ParameterGroup, Progress, Terms, trainable
from collegium.methods.dml import DML
from collegium.methods.okdph import OKDPH
from collegium.methods.pcl import PCL

SHAPE: dict[str, Any] = dict(image_shape=(3, 8, 8), num_classes=5)
G = torch.Generator().manual_seed(0)
IMAGES, TARGET = torch.randn(8, 3, 8, 8, generator=G), torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
VIEWS = torch.stack([IMAGES, IMAGES.flip(-1)])


class Net(nn.Module):
    """The user's own: nothing of Collegium in it."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.low = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.high = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU())
        self.head = nn.Linear(2 * width, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.high(self.low(x)).mean((2, 3)))
        return y


def nets(count: int = 2) -> list[Net]:
    torch.manual_seed(0)
    return [Net() for _ in range(count)]


def made(method: Any, **options: Any) -> Distiller:
    return Distiller(method, nets(), **SHAPE, **options)


def sgd(kd: Distiller) -> torch.optim.Optimizer:
    return torch.optim.SGD(kd.parameter_groups(lr=0.05, weight_decay=1e-3), momentum=0.9)


def step(kd: Distiller, optimizer: torch.optim.Optimizer, images: Tensor = IMAGES, fraction: float = 0.5) -> Any:
    out = kd(images, TARGET, fraction)
    out.loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    kd.after_step()
    return out


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_it_is_public() -> None:
    assert collegium.Distiller is Distiller


def test_the_loss_is_the_sum_of_the_method_s_terms_and_logits_are_the_peers() -> None:
    kd, (a, b) = made("dml", temperature=2.0), nets()
    out = kd(IMAGES, TARGET, 0.25)
    z = torch.stack([a(IMAGES), b(IMAGES)])
    torch.testing.assert_close(out.logits, z)
    assert not out.logits.requires_grad
    now = Progress(torch.tensor(25.0), torch.tensor(100.0), torch.tensor(0.25))
    expected = DML(kd.spec, temperature=2.0)(PeerOutputs(z, ()), TARGET, now)["peers"]
    assert list(out.terms) == ["ce", "mutual"]
    torch.testing.assert_close(out.terms, expected)
    torch.testing.assert_close(out.loss, expected["ce"] + expected["mutual"])


@pytest.mark.parametrize("method", ["dml", DML, {"name": "dml"}, {"name": DML}])
def test_a_method_is_named_in_any_way_that_train_takes_and_by_its_class(method: Any) -> None:
    assert type(made(method).method) is DML


def test_options_that_bear_a_name_of_the_constructor_s_come_with_the_method() -> None:
    kd = made({"name": "switokd", "teacher": 0})
    assert kd.deployed_peer == "peer1"


def test_peers_may_be_named() -> None:
    kd = Distiller("dml", ["resnet8", Net(), "2xwrn_10_1"], **SHAPE)
    assert kd.cohort.names == ("resnet8", "Net", "wrn_10_1", "wrn_10_1")
    assert Distiller("dml", "2xresnet8", **SHAPE).cohort.names == ("resnet8", "resnet8")


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("dmll", {}, "no method is called 'dmll'"),
        ("dml", {"temprature": 2.0}, "DML has no option 'temprature'"),
        ("dml", {"temperature": "2"}, "DML's temperature must be a number"),
        ("kd", {}, "KD needs a trained teacher"),
        ("dml", {"share_until": "stage9"}, "cannot"),
        ("switokd", {"teacher": 0}, "teacher= is a trained module, not 0; an option of the method that is called so"),
    ],
)
def test_what_does_not_fit_is_refused(method: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        made(method, **options)


@pytest.mark.parametrize("fraction", [-0.1, 1.5, 30])
def test_a_fraction_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(UsageError, match="fraction is the share of training that is done, from 0 to 1, not"):
        made("dml")(IMAGES, TARGET, fraction)


class Clock(Method):
    """Tells what progress it was given."""

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        return {"peers": {"ce": cross_entropy(out.logits, target), **progress._asdict()}}


def test_the_fraction_becomes_the_epochs_that_methods_count() -> None:
    kd = made(Clock, epochs=7)
    for epoch, done in itertools.product(range(7), (0, 1, 2)):
        fraction = (epoch + done / 3) / 7
        for given in (fraction, torch.tensor(fraction)):
            terms = kd(IMAGES, TARGET, given).terms
            assert (terms["epoch"].item(), terms["epochs"].item()) == (epoch, 7)
            assert terms["fraction"].item() == pytest.approx(fraction)


def test_the_user_s_own_modules_are_trained_and_come_back() -> None:
    peers = nets()
    peers[1].eval()
    peers[0].high.eval()
    before = [m.training for peer in peers for m in peer.modules()]
    strides = [p.stride() for peer in peers for p in peer.parameters()]
    kd = Distiller("dml", peers, **SHAPE)
    assert [m.training for peer in peers for m in peer.modules()] == before
    start = copy.deepcopy(peers[0].state_dict())
    kd.train()
    assert all(m.training for peer in peers for m in peer.modules())
    step(kd, sgd(kd))
    for k, peer in enumerate(peers):
        assert kd.peer(k) is peer
    assert not torch.equal(peers[0].low[0].weight, start["low.0.weight"])
    assert not torch.equal(peers[0].low[1].running_mean, start["low.1.running_mean"])
    assert [p.stride() for peer in peers for p in peer.parameters()] == strides
    kd.eval()
    assert not any(m.training for peer in peers for m in peer.modules())
    torch.testing.assert_close(peers[1](IMAGES), kd.predict(IMAGES)["peer1"])


@pytest.mark.parametrize("share_until", [None, "stage1"])
def test_a_run_too_gives_modules_back_as_they_came(share_until: str | None, tmp_path: Path) -> None:
    peers = nets()
    peers[1].eval()
    images = torch.rand(20, 3, 8, 8, generator=G)
    data = (images, torch.arange(20) % 5), (images, torch.arange(20) % 5)
    modes = [m.training for peer in peers for m in peer.modules()]
    places = [(t.device, t.stride()) for peer in peers for t in peer.state_dict().values()]
    start = copy.deepcopy(peers[0].state_dict())
    options: dict[str, Any] = dict(epochs=1, batch_size=10, channels_last=True, quiet=True, share_until=share_until)
    collegium.train(method="dml", peers=peers, data=data, run=tmp_path / "run", **options)
    assert [m.training for peer in peers for m in peer.modules()] == modes
    assert [(t.device, t.stride()) for peer in peers for t in peer.state_dict().values()] == places
    assert not torch.equal(peers[0].low[0].weight, start["low.0.weight"])


def test_a_peer_on_another_s_trunk_comes_back_whole() -> None:
    peers = nets()
    kd = Distiller("dml", peers, share_until="stage1", **SHAPE)
    optimizer = sgd(kd)
    for _ in range(2):
        step(kd, optimizer)
    kd.eval()
    assert kd.peer(1) is peers[1]
    torch.testing.assert_close(peers[1](IMAGES), kd.predict(IMAGES)["peer1"])
    torch.testing.assert_close(peers[0](IMAGES), kd.predict(IMAGES)["peer0"])


@pytest.mark.parametrize("method", ["pcl", "okdph", "codistillation"])
def test_a_method_without_the_copies_it_learns_from_is_refused(method: str) -> None:
    kind = type(made(method).method)
    cohort = Cohort([collegium.networks.as_network(peer, (3, 8, 8)) for peer in nets()])  # type: ignore[attr-defined]
    alone, progress = kind(describe(cohort, (3, 8, 8), 5)), Progress(*torch.zeros(3))
    with pytest.raises(UsageError, match="learns from copies that follow its peers.*collegium.Distiller"):
        alone(cohort(IMAGES), TARGET, progress)


def test_copies_follow_the_peers() -> None:
    kd = made("pcl", decay=0.5, ramp=0.0)
    optimizer = sgd(kd)
    out = step(kd, optimizer, VIEWS)
    assert out.terms["pm"] > 0
    assert kd.shadow is not None
    pairs = list(zip(kd.shadow.parameters(), kd.cohort.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)  # the first step's decay is 0
    old = [a.clone() for a, _ in pairs]
    step(kd, optimizer, VIEWS)
    for (a, b), before in zip(pairs, old, strict=True):
        torch.testing.assert_close(a, (before + b) / 2)


@pytest.mark.parametrize("method", ["pcl", "okdph"])
def test_views_of_each_peer_s_own_cannot_be_forgotten(method: str) -> None:
    kd = made(method)
    assert kd.views == 2 and made("dml").views == 1
    with pytest.raises(UsageError, match=r"2 random views of each image: give images of shape \(2, B, C, H, W\)"):
        kd(IMAGES, TARGET, 0.0)
    assert kd(VIEWS, TARGET, 0.0).loss.isfinite()
    assert kd.eval()(IMAGES, TARGET, 0.0).loss.isfinite()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_a_forgotten_after_step_is_found_in_the_next_backward_pass(kind: Any, fused: bool) -> None:
    kd = made("codistillation")
    optimizer = kind(kd.parameter_groups(lr=0.01), fused=fused)
    kd(IMAGES, TARGET, 0.0).loss.backward()
    kd(IMAGES, TARGET, 0.0).loss.backward()  # accumulates: the weights are the same
    optimizer.step()
    with pytest.raises(UsageError, match="after_step.. was not called after an optimizer step, which Codistillation"):
        kd(IMAGES, TARGET, 0.0).loss.backward()
    kd.after_step()
    kd(IMAGES, TARGET, 0.0).loss.backward()


def test_nobody_must_call_what_the_method_does_not_need() -> None:
    kd = made("dml")
    optimizer = sgd(kd)
    for _ in range(2):
        kd(IMAGES, TARGET, 0.0).loss.backward()
        optimizer.step()


def test_weights_may_be_loaded_between_steps() -> None:
    kd = made("codistillation")
    optimizer = sgd(kd)
    step(kd, optimizer)
    kd.load_state_dict(made("codistillation").state_dict())
    step(kd, optimizer)


def test_a_method_that_counts_the_steps_of_an_epoch_is_told_them() -> None:
    kd = made("okdph")
    kd(VIEWS, TARGET, 0.0).loss.backward()
    with pytest.raises(UsageError, match="OKDPH counts the steps of an epoch: give Distiller steps_per_epoch="):
        kd.after_step()
    step(made("okdph", steps_per_epoch=2), sgd(kd), VIEWS)


class TwoPlayers(Method):
    """The peers descend their mean logit times a weight of the critic's; the critic descends the opposite."""

    def __init__(self, spec: CohortSpec) -> None:
        super().__init__(spec)
        self.critic = nn.Parameter(torch.tensor(2.0))

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        value = out.logits.mean() * self.critic
        return {"peers": {"fool": value}, "critic": {"judge": -value}}

    def players(self, cohort: Cohort) -> dict[str, list[ParameterGroup]]:
        return {"peers": [{"params": trainable(cohort)}], "critic": [{"params": [self.critic], "lr": 0.5}]}


def optimizers(kd: Distiller) -> dict[str, torch.optim.Optimizer]:
    return {name: torch.optim.SGD(groups) for name, groups in kd.players(lr=0.1).items()}


def test_every_player_steps_on_its_own_loss_at_the_weights_before() -> None:
    kd, twin = made(TwoPlayers), made(TwoPlayers)
    mean = twin.cohort(IMAGES).logits.mean()
    peers = trainable(twin.cohort)
    expected = torch.autograd.grad(2.0 * mean, peers)
    out = kd.step(IMAGES, TARGET, 0.0, optimizers(kd))
    assert set(out.terms) == {"peers/fool", "critic/judge"}
    for now, before, gradient in zip(trainable(kd.cohort), peers, expected, strict=True):
        torch.testing.assert_close(now, before - 0.1 * gradient)
    assert isinstance(kd.method, TwoPlayers)
    torch.testing.assert_close(kd.method.critic, 2.0 + 0.5 * mean.detach())
    assert kd.steps == 1


def test_several_players_are_not_taken_for_one() -> None:
    kd = made("afd")
    with pytest.raises(UsageError, match="several players .peers, adversarial, discriminators.*Distiller.step"):
        kd(IMAGES, TARGET, 0.0).loss  # noqa: B018
    with pytest.raises(UsageError, match="AFD has several players .peers, adversarial, discriminators"):
        kd.parameter_groups(lr=0.1)
    with pytest.raises(UsageError, match="AFD needs an optimizer for each of its players peers, .*some for peers$"):
        kd.step(IMAGES, TARGET, 0.0, {"peers": torch.optim.SGD(kd.parameters(), lr=0.1)})


def test_one_player_steps_as_in_a_plain_loop() -> None:
    kd, plain = made("dml"), made("dml")
    ours, theirs = sgd(kd), sgd(plain)
    for fraction in (0.0, 0.5):
        a = kd.step(IMAGES, TARGET, fraction, {"peers": ours})
        b = step(plain, theirs, fraction=fraction)
        assert torch.equal(a.loss, b.loss)
    assert same(kd.state_dict(), plain.state_dict())


def test_torch_s_optimizers_read_the_rates_that_methods_set() -> None:
    groups = made("afd").players(lr=0.1, weight_decay=1e-4)
    rates = {player: [(g["lr"], g["weight_decay"]) for g in torch.optim.Adam(own).param_groups]
             for player, own in groups.items()}  # fmt: skip
    assert rates == {"peers": [(0.1, 1e-4)], "adversarial": [(2e-5, 0.0)], "discriminators": [(2e-5, 0.1)]}
    decays = [g["weight_decay"] for g in torch.optim.AdamW(made("ffl").parameter_groups(lr=0.1)).param_groups]
    assert decays == [0.01, 1e-5]  # AdamW's own where the method sets none
    (_, fusion) = made("ffl").parameter_groups(lr=0.1, weight_decay=1e-4)
    assert (fusion["lr"], fusion["weight_decay"]) == (0.1, 1e-5)
    kd = Distiller("dualnet", nets(), teacher=nets(3)[2], **SHAPE)
    assert [g["lr"] for g in kd.parameter_groups(lr=0.1)] == [0.1, pytest.approx(0.001)]


@pytest.mark.parametrize("method", ["ffl", "pcl", "okdph", "l_mcl"])
def test_training_goes_on_from_state_dicts_bit_for_bit(method: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"steps_per_epoch": 3, "l_mcl": {"meta_interval": 2}}
    own = options.pop("l_mcl") if method == "l_mcl" else options.pop("l_mcl") and {}

    def begun() -> tuple[Distiller, dict[str, torch.optim.Optimizer]]:
        kd = made(method, **options, **own)
        return kd, {name: torch.optim.SGD(g, momentum=0.9) for name, g in kd.players(lr=0.01).items()}

    whole, moving = begun()
    images = VIEWS if whole.views > 1 else IMAGES
    for number in range(5):
        whole.step(images, TARGET, number / 5, moving)
        if number == 1:
            saved = {"kd": whole.state_dict(), **{name: o.state_dict() for name, o in moving.items()}}
            torch.save(saved, tmp_path / "state.pt")
    other, moving = begun()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    other.load_state_dict(state["kd"])
    for name, optimizer in moving.items():
        optimizer.load_state_dict(state[name])
    for number in range(2, 5):
        other.step(images, TARGET, number / 5, moving)
    assert other.steps == whole.steps == 5
    assert same(other.state_dict(), whole.state_dict())


def test_where_another_loop_counts_the_state_dict_has_no_steps() -> None:
    kd = made("codistillation")
    kd.after_step(50, 10)
    assert set(kd.state_dict()) == set(made("codistillation").state_dict())
    assert not any("step" in name for name in kd.state_dict())


@pytest.mark.parametrize("method", ["dml", "ffl", "codistillation"])
def test_it_trains_under_autocast(method: str) -> None:
    kd = made(method)
    with torch.autocast("cpu", torch.bfloat16):
        out = kd(IMAGES, TARGET, 0.5)
    assert out.loss.dtype == out.logits.dtype == torch.float32
    out.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trainable(kd.cohort))


def test_several_players_train_under_autocast() -> None:
    kd = made("afd")
    with torch.autocast("cpu", torch.bfloat16):
        out = kd.step(IMAGES, TARGET, 0.5, optimizers(kd))
    assert all(term.isfinite() and term.dtype == torch.float32 for term in out.terms.values())


@pytest.mark.parametrize("method", ["dml", "ffl", "codistillation"])
def test_gradients_accumulate_over_micro_batches(method: str) -> None:
    kd, twin = made(method), made(method)
    parts = [slice(0, 3), slice(3, 6), slice(6, 8)]
    by_hand = [torch.zeros_like(p) for p in trainable(twin)]
    for part in parts:
        loss = twin(IMAGES[part], TARGET[part], 0.5).loss
        for total, g in zip(by_hand, torch.autograd.grad(loss, trainable(twin), allow_unused=True), strict=True):
            total += torch.zeros_like(total) if g is None else g / 3
    optimizer = torch.optim.SGD(kd.parameter_groups(lr=0.1))
    before = [p.detach().clone() for p in trainable(kd)]
    for part in parts:
        (kd(IMAGES[part], TARGET[part], 0.5).loss / len(parts)).backward()
    for p, g in zip(trainable(kd), by_hand, strict=True):
        torch.testing.assert_close(torch.zeros_like(p) if p.grad is None else p.grad, g)
    norm = nn.utils.clip_grad_norm_(kd.parameters(), 0.5)
    torch.testing.assert_close(norm, torch.cat([g.flatten() for g in by_hand]).norm())
    optimizer.step()
    optimizer.zero_grad()
    kd.after_step()
    assert kd.steps == 1
    rates = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    for now, then, g in zip(trainable(kd), before, by_hand, strict=True):
        lr, decay = rates[id(now)]
        torch.testing.assert_close(now.detach(), then - lr * (g * (0.5 / norm) + decay * then))
    kd(IMAGES, TARGET, 0.5).loss.backward()  # nothing was forgotten


def test_a_step_in_micro_batches_descends_their_mean_weighted_by_images() -> None:
    kd, twin = made("afd"), made("afd")
    parts = [slice(0, 3), slice(3, 6), slice(6, 8)]
    weights = [3 / 8, 3 / 8, 2 / 8]
    outs = [twin(IMAGES[part], TARGET[part], 0.5) for part in parts]
    expected = {name: p.detach() for name, p in twin.named_parameters()}
    names = {id(p): name for name, p in twin.named_parameters()}
    for player, groups in twin.players(lr=0.1).items():
        own = [p for group in groups for p in group["params"]]
        loss = torch.stack([w * out.losses[player] for w, out in zip(weights, outs, strict=True)]).sum()
        gradients = torch.autograd.grad(loss, own, retain_graph=True, allow_unused=True)
        rates = {id(p): (g["lr"], g.get("weight_decay", 0.0)) for g in groups for p in g["params"]}
        for p, g in zip(own, gradients, strict=True):
            (lr, decay), now = rates[id(p)], expected[names[id(p)]]  # two players step the peers, one after the other
            expected[names[id(p)]] = now if g is None else now - lr * (g + decay * now)
    out = kd.step(IMAGES, TARGET, 0.5, optimizers(kd), micro_batches=3)
    for name, p in kd.named_parameters():
        torch.testing.assert_close(p.detach(), expected[name], msg=name)
    for name, term in out.terms.items():
        mean = torch.stack([w * o.terms[name] for w, o in zip(weights, outs, strict=True)]).sum()
        torch.testing.assert_close(term, mean.detach())
    assert torch.equal(out.logits, torch.cat([o.logits for o in outs], 1))
    assert kd.steps == 1 and all(p.grad is None for p in kd.parameters())


def test_a_step_in_micro_batches_divides_views_by_images() -> None:
    kd = made("pcl")
    out = kd.step(VIEWS, TARGET, 0.5, optimizers(kd), micro_batches=4)
    assert out.logits.shape == (2, 8, 5) and out.loss.isfinite() and kd.steps == 1


def test_a_player_that_rests_in_every_micro_batch_takes_no_step() -> None:
    kd = made({"name": "switokd", "teacher": 0})
    own = {name: torch.optim.SGD(g, weight_decay=0.1) for name, g in kd.players(lr=0.1).items()}
    rests = [kd(IMAGES[part], TARGET[part], 0.5).losses["teacher"] == 0 for part in (slice(0, 4), slice(4, 8))]
    before = [p.detach().clone() for p in kd.peer(0).parameters()]
    kd.step(IMAGES, TARGET, 0.5, own, micro_batches=2)
    still = all(torch.equal(a, b) for a, b in zip(kd.peer(0).parameters(), before, strict=True))
    assert still == all(rests)


@pytest.mark.parametrize("largest", [0.1, 1e9])
def test_a_step_clips_the_gradient_of_each_player(largest: float) -> None:
    kd, twin = made(TwoPlayers), made(TwoPlayers)
    assert isinstance(twin.method, TwoPlayers) and isinstance(kd.method, TwoPlayers)
    mean = twin.cohort(IMAGES).logits.mean()
    gradients = torch.autograd.grad(2.0 * mean, trainable(twin.cohort))
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    assert norm > 0.1
    kd.step(IMAGES, TARGET, 0.0, optimizers(kd), max_grad_norm=largest)
    for now, before, g in zip(trainable(kd.cohort), trainable(twin.cohort), gradients, strict=True):
        torch.testing.assert_close(
            now.detach(), before.detach() - 0.1 * g * min(1.0, largest / norm), rtol=1e-4, atol=1e-6
        )
    slope = float(mean.detach())
    clipped = slope * min(1.0, largest / abs(slope))
    torch.testing.assert_close(kd.method.critic.detach(), torch.tensor(2.0 + 0.5 * clipped), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("micro_batches", [0, 9])
def test_a_batch_is_not_divided_into_more_parts_than_images(micro_batches: int) -> None:
    kd = made("afd")
    with pytest.raises(UsageError, match=f"batch of 8 images cannot be divided into {micro_batches} micro-batches"):
        kd.step(IMAGES, TARGET, 0.0, optimizers(kd), micro_batches=micro_batches)


@pytest.mark.parametrize("method", ["dml", "ffl", "pcl", "codistillation"])
def test_a_compiled_one_trains_alike_and_is_not_compiled_for_every_fraction(method: str) -> None:
    torch.compiler.reset()
    kd, plain = made(method), made(method)
    compiled = torch.compile(kd, backend="aot_eager", fullgraph=True)
    images = VIEWS if kd.views > 1 else IMAGES
    ours, theirs = sgd(kd), sgd(plain)
    for fraction in (0.1, 0.2, 0.3, 0.4):
        with torch.compiler.set_stance("default" if fraction < 0.3 else "fail_on_recompile"):
            out = compiled(images, TARGET, torch.tensor(fraction))
        out.loss.backward()
        ours.step()
        ours.zero_grad()
        kd.after_step()
        expected = step(plain, theirs, images, fraction)
        torch.testing.assert_close(out.terms, expected.terms, rtol=1e-4, atol=1e-5)


def test_a_compiled_one_takes_numbers_too() -> None:
    torch.compiler.reset()
    kd = made("ffl")
    compiled = torch.compile(kd, backend="aot_eager")
    for fraction in (0.0, 0.1, 0.2):
        found = compiled(IMAGES, TARGET, fraction).terms
        torch.testing.assert_close(found, kd(IMAGES, TARGET, fraction).terms, rtol=1e-4, atol=1e-5)


def test_a_forgotten_after_step_is_found_in_a_compiled_one() -> None:
    torch.compiler.reset()
    kd = made("codistillation")
    optimizer = sgd(kd)
    compiled = torch.compile(kd, backend="aot_eager")
    compiled(IMAGES, TARGET, 0.0).loss.backward()
    optimizer.step()
    with pytest.raises(UsageError, match="after_step"):
        compiled(IMAGES, TARGET, 0.0).loss.backward()


def in_two_processes(work: Callable[[int], dict[str, Tensor]], folder: Path) -> list[dict[str, Tensor]]:
    mp.spawn(_process, (work, folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def _process(rank: int, work: Callable[[int], dict[str, Tensor]], folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2)
    torch.save(work(rank), folder / f"{rank}.pt")
    dist.barrier()  # nobody leaves while another still needs this process
    os._exit(0)  # DDP keeps the group's threads beyond its destruction, and they may abort Python's own end


def wrapped(rank: int) -> dict[str, Tensor]:
    """Two steps of PCL in DistributedDataParallel, each process on half of the images."""
    kd = made("pcl")
    ddp, optimizer = DistributedDataParallel(kd), sgd(kd)
    half = slice(4 * rank, 4 * rank + 4)
    for fraction in (0.0, 0.5):
        out = ddp(VIEWS[:, half], TARGET[half], fraction)
        assert isinstance(out, DistillerOutput)
        out.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        kd.after_step()
    return {name: p.detach() for name, p in kd.named_parameters()}


def stepped(rank: int) -> dict[str, Tensor]:
    """Two steps of AFD's three players, unwrapped."""
    kd = made("afd")
    own, half = optimizers(kd), slice(4 * rank, 4 * rank + 4)
    for fraction in (0.0, 0.5):
        kd.step(IMAGES[half], TARGET[half], fraction, own)
    return kd.state_dict()


@pytest.mark.parametrize("work", [wrapped, stepped])
def test_two_processes_train_the_same_weights(work: Callable[[int], dict[str, Tensor]], tmp_path: Path) -> None:
    a, b = in_two_processes(work, tmp_path)
    start = made("pcl" if work is wrapped else "afd").state_dict()
    for name in a:
        assert torch.equal(a[name], b[name]), name
    assert any(not torch.equal(a[name], start[name]) for name in a)


def test_predictors_are_those_of_a_run() -> None:
    kd = Distiller(PCL, nets(), **SHAPE).eval()
    assert list(kd.predict(IMAGES)) == ["peer0", "peer1", "ensemble", "pcl_e"]
    assert list(Distiller(OKDPH, nets(), **SHAPE).eval().predict(IMAGES)) == ["peer0", "peer1", "ensemble", "hybrid"]


def test_averaged_weights_follow_the_equation() -> None:
    """average <- d average + (1 - d) weight with d = min(decay, 1 - 1 / step); so for running statistics."""
    kd = made("dml", ema=0.6)
    optimizer = sgd(kd)
    names = tuple(name for name, _ in (*kd.named_parameters(), *kd.named_buffers()) if name.startswith("cohort."))
    expected: dict[str, Tensor] = {}
    for number in range(1, 5):
        step(kd, optimizer)
        d = min(0.6, 1 - 1 / number)
        for name in names:
            now = kd.state_dict()[name].double()
            expected[name] = d * expected.get(name, now) + (1 - d) * now
            if name.endswith("num_batches_tracked"):
                expected[name] = now
            found = kd.state_dict()[name.replace("cohort.", "average.")].double()
            torch.testing.assert_close(found, expected[name], rtol=1e-5, atol=1e-6)


def test_averaged_peers_are_predictors_of_their_own() -> None:
    kd = made("dml", ema=0.9)
    optimizer = sgd(kd)
    for _ in range(3):
        step(kd, optimizer)
    before = {name: tensor.clone() for name, tensor in kd.state_dict().items()}
    kd.train()
    found = kd.eval().predict(IMAGES)
    assert list(found) == ["peer0", "peer1", "ensemble", "peer0_ema", "peer1_ema", "ensemble_ema"]
    assert kd.average is not None
    torch.testing.assert_close(found["peer1_ema"], kd.average.peer(1)(IMAGES))
    torch.testing.assert_close(found["ensemble_ema"], (found["peer0_ema"] + found["peer1_ema"]) / 2)
    assert not torch.allclose(found["peer0"], found["peer0_ema"])
    kd.train().predict(IMAGES)
    after = kd.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("average."))
    assert "average" not in "".join(made("dml").state_dict())
    assert list(Distiller("independent", nets(1), **SHAPE, ema=0.9).eval().predict(IMAGES))[-1] == "peer0_ema"


def test_the_average_leaves_training_as_it_is() -> None:
    plain, averaged = made("codistillation"), made("codistillation", ema=0.9)
    for kd in (plain, averaged):
        optimizer = sgd(kd)
        for _ in range(3):
            step(kd, optimizer)
    state = averaged.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in plain.state_dict().items())
    with pytest.raises(UsageError, match="ema is the decay of a moving average, between 0 and 1, not 1.5"):
        made("dml", ema=1.5)
