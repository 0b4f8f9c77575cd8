import dataclasses

import numpy as np
import pytest
import torch

from collegium.cohort import Cohort, PeerOutputs, describe
from collegium.errors import UsageError
from collegium.method import trainable
from collegium.methods.afd import AFD, Discriminator, ReimplementedDiscriminator, TransferLayers
from collegium.networks import build
from collegium.training.engine import make_fabric
from collegium.training.experiment import build as build_experiment
from collegium.training.loop import Run
from collegium.training.recipe import Recipe
from collegium.training.run_folder import RunFolder

PEERS = pytest.mark.parametrize("peers", [2, 3, 4])
SCHEMES = pytest.mark.parametrize("scheme", ["cyclic", "mutual"])
UNLIKE = [(4, 8, 8), (6, 8, 8), (5, 4, 4), (4, 5, 5)]


def teachers_of(k: int, peers: int, scheme: str) -> list[int]:
    return [(k - 1) % peers] if scheme == "cyclic" else [j for j in range(peers) if j != k]


def unlike_outputs(peers: int) -> PeerOutputs:
    torch.manual_seed(0)
    maps = tuple((torch.randn(6, *shape, requires_grad=True),) for shape in UNLIKE[:peers])
    return PeerOutputs(torch.randn(peers, 6, 5, requires_grad=True), maps)


@PEERS
@SCHEMES
@pytest.mark.parametrize("unlike", [False, True])
@pytest.mark.parametrize("discriminator", ["strided", "reimplemented"])
def test_all_terms_are_the_paper_s(
    naive, array, at, random_outputs, spec_of, labels, peers, scheme, unlike, discriminator
):
    out = unlike_outputs(peers) if unlike else random_outputs(peers)
    method = AFD(spec_of(out), scheme=scheme, discriminator=discriminator)
    terms = method(out, labels, at(0))
    z, maps = array(out.logits), method.transfer(out.last_features)
    assert {player: list(named) for player, named in terms.items()} == {
        "peers": ["ce", "kd"],
        "adversarial": ["generator"],
        "discriminators": ["real", "fake"],
    }
    kd = generator = real = fake = 0.0
    for k in range(peers):
        teachers = teachers_of(k, peers, scheme)
        assert len(method.discriminators[k]) == len(teachers)
        for j, discriminator in zip(teachers, method.discriminators[k], strict=True):
            own, other = array(discriminator(maps[k])), array(discriminator(maps[j]))
            kd += naive.kd(z[k], z[j], 3) / len(teachers)
            generator += np.mean((1 - own) ** 2) / len(teachers)
            fake += np.mean(own**2) / len(teachers)
            real += np.mean((1 - other) ** 2) / len(teachers)
    ce = sum(naive.cross_entropy(one, array(labels)) for one in z)
    assert terms["peers"]["ce"].item() == pytest.approx(ce, rel=1e-5)
    assert terms["peers"]["kd"].item() == pytest.approx(kd, rel=1e-4)
    assert terms["adversarial"]["generator"].item() == pytest.approx(generator, rel=1e-4)
    assert terms["discriminators"]["real"].item() == pytest.approx(real, rel=1e-4)
    assert terms["discriminators"]["fake"].item() == pytest.approx(fake, rel=1e-4)


@pytest.mark.parametrize("options", [{}, {"adversarial": "l1"}, {"adversarial": "none"}, {"logit_all_pairs": True}])
def test_for_two_networks_mutual_and_cyclic_are_the_same(at, random_outputs, spec_of, labels, options):
    out = random_outputs(2)

    def terms(scheme: str):
        torch.manual_seed(0)
        return AFD(spec_of(out), scheme=scheme, **options)(out, labels, at(0))

    assert terms("mutual") == terms("cyclic")


def test_in_a_cycle_each_network_imitates_the_one_before_it_alone(at, random_outputs, spec_of, labels):
    out = random_outputs(3)
    method = AFD(spec_of(out))
    changed = out.logits.detach().clone()
    changed[1] += torch.randn(6, 5)  # network 1 teaches network 2 and nobody else
    changed.requires_grad_()
    method(out, labels, at(0))["peers"]["kd"].backward()
    method(dataclasses.replace(out, logits=changed), labels, at(0))["peers"]["kd"].backward()
    assert [torch.equal(out.logits.grad[k], changed.grad[k]) for k in range(3)] == [True, False, False]


@PEERS
def test_in_a_cycle_the_logits_of_all_can_teach(naive, array, at, random_outputs, spec_of, labels, peers):
    out = random_outputs(peers)
    z = array(out.logits)
    expected = sum(naive.kd(z[k], z[j], 2) / (peers - 1) for k in range(peers) for j in teachers_of(k, peers, "mutual"))
    method = AFD(spec_of(out), temperature=2.0, logit_all_pairs=True)
    assert [len(found) for found in method.discriminators] == [1] * peers
    assert method(out, labels, at(0))["peers"]["kd"].item() == pytest.approx(expected, rel=1e-4)


@SCHEMES
def test_predictions_of_others_are_constants(naive, array, at, random_outputs, spec_of, labels, scheme):
    out = random_outputs(3)
    AFD(spec_of(out), scheme=scheme)(out, labels, at(0))["peers"]["kd"].backward()
    q = naive.softmax(array(out.logits) / 3)
    for k in range(3):
        taught = np.mean([q[j] for j in teachers_of(k, 3, scheme)], axis=0)
        torch.testing.assert_close(array(out.logits.grad[k]), 3 * (q[k] - taught) / 6, rtol=1e-4, atol=1e-6)


@SCHEMES
def test_each_network_is_moved_by_its_own_discriminators_alone(at, random_outputs, spec_of, labels, scheme):
    out = random_outputs(3)
    method = AFD(spec_of(out), scheme=scheme)
    terms = method(out, labels, at(0))
    found = torch.autograd.grad(terms["adversarial"]["generator"], list(out.last_features), retain_graph=True)
    for k, gradient in enumerate(found):
        judged = [discriminator(out.last_features[k]) for discriminator in method.discriminators[k]]
        own = torch.stack([(1 - d).square().mean() for d in judged]).mean()
        torch.testing.assert_close(gradient, torch.autograd.grad(own, out.last_features[k])[0])
    # A map that serves as the real one moves nobody.
    real = torch.autograd.grad(terms["discriminators"]["real"], list(out.last_features), allow_unused=True)
    assert real == (None, None, None)


def test_the_gradient_of_a_least_squares_judgement_is_right_in_float64():
    torch.manual_seed(0)
    discriminator = Discriminator(2).double()
    feature = torch.randn(3, 2, 3, 3, dtype=torch.float64)
    step, direction = 1e-6, torch.randn_like(feature)

    def loss(x: torch.Tensor) -> torch.Tensor:
        logit = discriminator.layers(x).squeeze(1)  # the judgement itself is float32
        return (1 - logit.sigmoid()).square().mean()

    moved = feature.clone().requires_grad_()
    (1 - discriminator(moved)).square().mean().backward()
    slope = (loss(feature + step * direction) - loss(feature - step * direction)) / (2 * step)
    assert (moved.grad * direction).sum().item() == pytest.approx(slope.item(), rel=1e-4)


def test_an_untrained_discriminator_is_at_chance():
    torch.manual_seed(0)
    discriminator = Discriminator(16)
    judged = discriminator(torch.randn(64, 16, 8, 8).relu())
    assert judged.shape == (64,) and ((judged > 0) & (judged < 1)).all()
    assert judged.mean().item() == pytest.approx(0.5, abs=0.1)


def test_the_reimplemented_discriminator_judges_every_place(array):
    torch.manual_seed(0)
    discriminator = ReimplementedDiscriminator(4).eval()
    feature = torch.randn(2, 4, 5, 5)
    judged = array(discriminator(feature))
    first, norm, _, last = discriminator.layers
    assert judged.shape == (2, 1, 2, 2) and first.weight.shape == (2, 4, 2, 2) and last.weight.shape == (1, 2, 2, 2)
    x, w, b = array(feature), array(first.weight), array(first.bias)
    hidden = np.zeros((2, 2, 4, 4))
    for i in range(4):
        for j in range(4):
            hidden[:, :, i, j] = np.einsum("bdij,cdij->bc", x[:, :, i : i + 2, j : j + 2], w) + b
    hidden /= np.sqrt(1 + norm.eps)
    hidden = np.where(hidden > 0, hidden, 0.01 * hidden)
    for i in range(2):
        for j in range(2):
            place = hidden[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            logit = np.einsum("bdij,cdij->bc", place, array(last.weight)) + array(last.bias)
            np.testing.assert_allclose(judged[:, :, i, j], 1 / (1 + np.exp(-logit)), rtol=1e-4)


def test_maps_too_small_for_the_reimplemented_discriminator_are_refused(random_outputs, spec_of):
    with pytest.raises(UsageError, match="needs maps of 3x3 or more, not 2x2; take --method.discriminator strided"):
        AFD(spec_of(random_outputs(2, size=2)), discriminator="reimplemented")


def test_the_adversarial_players_have_decay_and_milestones_of_their_own_where_asked():
    torch.manual_seed(0)
    cohort = Cohort([build("resnet8", num_classes=5) for _ in range(2)])
    spec = describe(cohort, (3, 16, 16), 5)
    players = AFD(spec, adversarial_weight_decay=0.1, adversarial_milestones=(0.25, 0.5)).players(cohort)
    assert players["adversarial"][0]["weight_decay"] == 0.1
    assert [groups[0].get("milestones") for groups in players.values()] == [None, (0.25, 0.5), (0.25, 0.5)]
    assert all("milestones" not in groups[0] for groups in AFD(spec).players(cohort).values())
    for milestones in (0.5, 1.5), (0.5, 1.0), (0.0, 0.5), (0.5,) * 101:
        with pytest.raises(UsageError, match="AFD's adversarial_milestones must lie between 0 and 1"):
            AFD(spec, adversarial_milestones=milestones)


def test_an_untrained_pair_starts_at_the_losses_of_chance(at, spec_of):
    torch.manual_seed(0)
    maps = tuple((torch.randn(64, 16, 8, 8).relu(),) for _ in range(2))
    out = PeerOutputs(torch.randn(2, 64, 5), maps)
    terms = AFD(spec_of(out))(out, torch.zeros(64, dtype=torch.long), at(0))
    assert terms["adversarial"]["generator"].item() == pytest.approx(2 * 0.25, abs=0.2)
    judging = terms["discriminators"]
    assert (judging["real"] + judging["fake"]).item() == pytest.approx(2 * 0.5, abs=0.1)


def test_equal_maps_cannot_be_told_apart(at, random_outputs, spec_of, labels):
    """For equal maps a discriminator loses at least 1/2, which it does by saying 1/2."""
    out = random_outputs(2)
    equal = dataclasses.replace(out, features=out.features[:1] * 2)
    method = AFD(spec_of(out))
    judging = method(equal, labels, at(0))["discriminators"]
    assert (judging["real"] + judging["fake"]).item() >= 2 * 0.5
    for [discriminator] in method.discriminators:
        torch.nn.init.zeros_(discriminator.layers[-1].linear.weight)
        torch.nn.init.zeros_(discriminator.layers[-1].linear.bias)
    terms = method(equal, labels, at(0))
    assert sum(terms["discriminators"].values()).item() == pytest.approx(1)
    assert terms["adversarial"]["generator"].item() == pytest.approx(0.5)


@PEERS
@SCHEMES
def test_direct_alignment_is_the_mean_absolute_difference(array, at, random_outputs, spec_of, labels, peers, scheme):
    out = random_outputs(peers)
    method = AFD(spec_of(out), scheme=scheme, adversarial="l1", l1_weight=2.0)
    terms = method(out, labels, at(0))
    assert {player: list(named) for player, named in terms.items()} == {"peers": ["ce", "kd", "l1"]}
    f = [array(feature) for feature in out.last_features]
    expected = sum(
        np.abs(f[k] - f[j]).mean() / len(teachers_of(k, peers, scheme))
        for k in range(peers)
        for j in teachers_of(k, peers, scheme)
    )
    assert terms["peers"]["l1"].item() == pytest.approx(2 * expected, rel=1e-5)
    terms["peers"]["l1"].backward()
    for k in range(peers):
        gradient = np.mean([np.sign(f[k] - f[j]) for j in teachers_of(k, peers, scheme)], axis=0) * 2 / f[k].size
        torch.testing.assert_close(array(out.last_features[k].grad), gradient, rtol=1e-4, atol=1e-8)


def test_without_maps_and_logits_the_labels_alone_teach(at, random_outputs, spec_of, labels):
    out = random_outputs(3)
    whole = AFD(spec_of(out), adversarial="none")
    assert not list(whole.parameters())
    both = whole(out, labels, at(0))
    assert list(both) == ["peers"] and list(both["peers"]) == ["ce", "kd"]
    alone = AFD(spec_of(out), adversarial="none", logit=False)(out, labels, at(0))
    assert alone == {"peers": {"ce": both["peers"]["ce"]}}
    assert list(AFD(spec_of(out), logit=False)(out, labels, at(0))["peers"]) == ["ce"]


def test_maps_of_like_networks_pass_unchanged_and_unlike_ones_meet_at_the_smallest_size_and_largest_width():
    f = [torch.randn(2, 4, 8, 8) for _ in range(3)]
    like = TransferLayers([(4, 8, 8)] * 3)
    assert not list(like.parameters())
    assert all(torch.equal(a, b) for a, b in zip(f, like(f), strict=True))
    unlike = TransferLayers(UNLIKE)
    moved = unlike([torch.randn(2, *shape) for shape in UNLIKE])
    assert [tuple(m.shape) for m in moved] == [(2, 6, 4, 4)] * 4
    sizes = TransferLayers([(4, 8, 8), (4, 4, 4)])
    small = torch.randn(2, 4, 4, 4)
    assert torch.equal(sizes([f[0][:2], small])[1], small)


def test_the_players_are_the_paper_s():
    torch.manual_seed(0)
    cohort = Cohort([build("resnet8", num_classes=5), build("wrn_10_1", num_classes=5)])
    method = AFD(describe(cohort, (3, 16, 16), 5), discriminator_weight_decay=0.2)
    players = method.players(cohort)
    assert list(players) == ["peers", "adversarial", "discriminators"]
    [peers], [adversarial], [discriminators] = players.values()

    def ids(parameters: object) -> set[int]:
        return {id(p) for p in parameters}  # type: ignore[attr-defined]

    assert peers.keys() == {"params"} and ids(peers["params"]) == ids(cohort.parameters())
    assert ids(adversarial["params"]) == ids([*cohort.parameters(), *method.transfer.parameters()])
    assert ids(discriminators["params"]) == ids(method.discriminators.parameters())
    assert adversarial["weight_decay"] == 0 and discriminators["weight_decay"] == 0.2
    assert adversarial["lr"] == discriminators["lr"] == 2e-5
    assert method.optimizers == {"adversarial": "adam", "discriminators": "adam"}


@pytest.mark.parametrize(("peers", "trunk"), [("resnet8,wrn_10_1", None), ("3xresnet8", "stage2")])
def test_in_the_loop_networks_take_both_steps_from_gradients_at_the_same_weights(tmp_path, peers, trunk):
    recipe = Recipe.from_dict(
        dict(
            method={"name": "afd"},
            peers=peers,
            share_until=trunk,
            data={"name": "digits", "per_class": 4},
            batch_size=10,
            momentum=0.0,
            weight_decay=0.0,
            schedule="constant",
            learning_rate=0.01,
            device="cpu",
        )
    )
    experiment = build_experiment(recipe)
    running = Run(experiment, RunFolder(tmp_path), make_fabric(experiment.recipe), quiet=True)
    images, target = next(iter(running.training_batches.epoch(0)))
    running.learner.train()
    cohort, method = running.learner.cohort, running.learner.method
    networks = trainable(cohort)
    transfer, judges = trainable(method.transfer), trainable(method.discriminators)
    terms, _ = running.learner(images, target, running.progress)
    total = {player: torch.stack(list(named.values())).sum() for player, named in terms.items()}

    def gradients(player: str, of: list[torch.Tensor]) -> list[torch.Tensor]:
        if not of:
            return []
        found = torch.autograd.grad(total[player], of, retain_graph=True, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(of, found, strict=True)]

    def adam(gradient: torch.Tensor) -> torch.Tensor:
        """The first step."""
        return 2e-5 * gradient / (gradient.abs() + 1e-8)

    slopes = zip(networks, gradients("peers", networks), gradients("adversarial", networks), strict=True)
    expected = [p.detach() - 0.01 * g - adam(h) for p, g, h in slopes]
    expected += [p.detach() - adam(g) for p, g in zip(transfer, gradients("adversarial", transfer), strict=True)]
    decayed = zip(judges, gradients("discriminators", judges), strict=True)
    expected += [p.detach() - adam(g + 0.1 * p.detach()) for p, g in decayed]

    running.train_step(images, target, 0.0)
    for parameter, value in zip([*networks, *transfer, *judges], expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=1e-5, atol=1e-6)


def test_one_network_is_refused(random_outputs, spec_of):
    with pytest.raises(UsageError, match="AFD needs at least 2 peers"):
        AFD(spec_of(random_outputs(1)))


def test_a_transfer_layer_is_a_convolution_a_norm_and_a_relu():
    layers = TransferLayers([(4, 8, 8), (6, 8, 8)])
    for layer, width in zip(layers.layers, (4, 6), strict=True):
        convolution, norm, relu = layer
        assert (convolution.in_channels, convolution.out_channels, convolution.kernel_size) == (width, 6, (1, 1))
        assert isinstance(norm, torch.nn.BatchNorm2d) and isinstance(relu, torch.nn.ReLU)


@pytest.mark.parametrize(("channels", "width"), [(1, 1), (3, 1), (8, 4)])
def test_the_reimplemented_discriminator_has_half_the_channels_and_one_at_least(channels, width):
    assert ReimplementedDiscriminator(channels).layers[0].out_channels == width


def test_without_an_adversary_the_peers_are_the_only_player():
    cohort = Cohort([build("resnet8", num_classes=5) for _ in range(2)])
    players = AFD(describe(cohort, (3, 16, 16), 5), adversarial="l1").players(cohort)
    assert list(players) == ["peers"]
    assert {id(p) for group in players["peers"] for p in group["params"]} == {id(p) for p in cohort.parameters()}


def test_the_discriminator_is_a_convolution_to_twice_the_channels_a_norm_and_a_linear_layer():
    convolution, norm, relu, classifier = Discriminator(5).layers
    assert (convolution.in_channels, convolution.out_channels) == (5, 10)
    assert (convolution.kernel_size, convolution.stride) == ((3, 3), (2, 2))
    assert isinstance(norm, torch.nn.BatchNorm2d) and norm.num_features == 10
    assert isinstance(relu, torch.nn.LeakyReLU) and relu.negative_slope == 0.2
    assert classifier(torch.ones(2, 10, 3, 3)).shape == (2, 1)


def test_the_defaults_are_those_of_the_page(random_outputs, spec_of):
    spec = spec_of(random_outputs(3))
    method = AFD(spec)
    assert method.teachers == method.logit_teachers == [[2], [0], [1]]
    assert (method.l1_weight, method.adversarial_learning_rate) == (1, 2e-5)
    assert (method.discriminator_weight_decay, method.adversarial_weight_decay) == (0.1, 0)
    assert AFD(spec, logit=False).logit_teachers == []
    assert not hasattr(AFD(spec, adversarial="none"), "transfer")
