import copy

import pytest
import torch
from torch import nn

from collegium.cohort import Cohort, describe
from collegium.errors import UsageError
from collegium.layers import GlobalPoolClassifier
from collegium.method import trainable
from collegium.networks import Network, build

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def networks(*names: str, classes: int = 5) -> list[Network]:
    torch.manual_seed(0)
    return [build(name, num_classes=classes) for name in names]


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("training", [False, True])
def test_separate_peers_say_what_each_network_says_alone(training):
    peers = networks("resnet8", "wrn_10_1", "resnet8")
    cohort = Cohort(peers).train(training)
    out = cohort(IMAGES)
    assert out.trunk is None and out.teacher is None
    assert out.logits.shape == (3, 4, 5)
    for k, peer in enumerate(peers):
        torch.testing.assert_close(out.logits[k], peer(IMAGES))
        for ours, own in zip(out.features[k], peer.forward_features(IMAGES), strict=True):
            torch.testing.assert_close(ours, own)
        assert out.last_features[k] is out.features[k][-1]


@pytest.mark.parametrize("cut", ["stem", "stage1", "stage2"])
def test_peers_on_a_trunk_say_what_each_says_as_a_whole_network(cut):
    peers = networks("resnet8", "resnet8", "resnet8")
    cohort = Cohort(peers, share_until=cut).eval()
    out = cohort(IMAGES)
    names = list(cohort.peer(0).stage_names)
    for k in range(3):
        whole = cohort.peer(k)
        torch.testing.assert_close(out.logits[k], whole(IMAGES))
        assert list(whole.stage_names) == names == ["stem", "stage1", "stage2", "stage3"]
        assert len(out.features[k]) == 4
        assert out.features[k][names.index(cut)] is out.trunk
    torch.testing.assert_close(out.logits[0], peers[0](IMAGES))  # the trunk is the first peer's
    assert not torch.allclose(out.logits[0], out.logits[1])


def test_the_trunk_is_computed_once_and_each_branch_once():
    cohort = Cohort(networks("resnet8", "resnet8", "resnet8"), share_until="stage2")
    calls = []
    for stage in cohort.trunk.values():
        stage.register_forward_hook(lambda *_: calls.append("trunk"))
    for branch in cohort.branches:
        branch.stages["stage3"].register_forward_hook(lambda *_: calls.append("branch"))
    cohort(IMAGES)
    assert calls == ["trunk"] * 3 + ["branch"] * 3


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("resnet32", 100, 832_920),
        ("resnet32", 10, 821_220),
        ("resnet56", 100, 1_517_720),
        ("resnet110", 10, 3_046_820),
        ("wrn_16_2", 100, 1_241_624),
        ("wrn_40_2", 10, 3_951_972),
    ],
)
def test_two_peers_on_a_trunk_have_as_many_parameters_as_published(name, classes, expected):
    assert parameters(Cohort(networks(name, name, classes=classes), share_until="stage2")) == expected


def test_gradients_of_all_peers_meet_in_the_trunk():
    cohort = Cohort(networks("resnet8", "resnet8"), share_until="stage2")
    weight = cohort.trunk["stem"][0].weight
    out = cohort(IMAGES)
    each = [torch.autograd.grad(out.logits[k].square().sum(), weight, retain_graph=True)[0] for k in (0, 1)]
    (both,) = torch.autograd.grad(out.logits.square().sum(), weight)
    torch.testing.assert_close(both, each[0] + each[1], rtol=1e-4, atol=1e-4)


def test_no_peers_are_refused():
    with pytest.raises(UsageError, match="at least one peer"):
        Cohort([])


def test_equal_peers_are_refused_naming_them():
    first, second = networks("resnet8", "resnet8")
    with pytest.raises(UsageError, match=r"peer0 and peer2 \(resnet8\) have equal weights"):
        Cohort([first, second, copy.deepcopy(first)])
    with pytest.raises(UsageError, match=r"peer0 and peer1 \(resnet8\) have equal weights"):
        Cohort([first, first])


@pytest.mark.parametrize(("other", "cut"), [("resnet14", "stage1"), ("wrn_10_1", "stage2"), ("wrn_10_2", "stage2")])
def test_unlike_peers_cannot_share_a_trunk(other, cut):
    with pytest.raises(UsageError, match=rf"peer0 \(resnet8\) and peer1 \({other}\) differ up to {cut}"):
        Cohort(networks("resnet8", other), share_until=cut)


def test_unlike_peers_may_share_the_stages_that_are_alike():
    cohort = Cohort(networks("resnet8", "resnet14"), share_until="stem").eval()
    out = cohort(IMAGES)
    torch.testing.assert_close(out.logits[1], cohort.peer(1)(IMAGES))


def test_an_unknown_cut_is_refused_naming_the_legal_ones():
    with pytest.raises(UsageError, match="'layer2'.*stem, stage1, stage2"):
        Cohort(networks("resnet8", "resnet8"), share_until="layer2")


def halved(side: int, times: int) -> int:
    for _ in range(times):
        side = (side + 1) // 2
    return side


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 12), (9, 5)])
@pytest.mark.parametrize("share_until", [None, "stage1", "stage2"])
def test_describe_finds_every_shape(height, width, share_until):
    cohort = Cohort(networks("resnet8", "resnet8"), share_until=share_until, teacher=networks("wrn_10_2")[0])
    spec = describe(cohort, (3, height, width), 5)
    small, half, quarter = ((halved(height, n), halved(width, n)) for n in range(3))
    stages = ((16, *small), (16, *small), (32, *half), (64, *quarter))
    assert spec.feature_shapes == (stages, stages)
    assert spec.last_shapes == (stages[-1], stages[-1])
    assert spec.named_last_shapes == [("resnet8", stages[-1])] * 2
    assert spec.trunk_shape == {None: None, "stage1": stages[1], "stage2": stages[2]}[share_until]
    assert spec.teacher_shapes == ((16, *small), (32, *small), (64, *half), (128, *quarter))
    assert (spec.names, spec.num_classes, spec.num_peers) == (("resnet8", "resnet8"), 5, 2)


@pytest.mark.parametrize("training", [True, False])
def test_describe_leaves_the_cohort_and_the_random_state_as_they_were(training):
    cohort = Cohort(networks("resnet8", "wrn_10_1"), teacher=networks("resnet14")[0]).train(training)
    before, random = copy.deepcopy(cohort.state_dict()), torch.get_rng_state()
    modes = [module.training for module in cohort.modules()]
    describe(cohort, (3, 8, 8), 5)
    assert [module.training for module in cohort.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[name], value) for name, value in cohort.state_dict().items())
    assert all(p.grad is None for p in cohort.parameters())


def test_describe_leaves_the_training_mode_when_it_refuses():
    cohort = Cohort(networks("resnet8", "wrn_10_1")).train()
    with pytest.raises(UsageError):
        describe(cohort, (3, 8, 8), 7)
    assert all(module.training for module in cohort.modules())


def unpadded(name: str = "unpadded", *, kernel_size: int = 3) -> Network:
    stages = {"only": nn.Conv2d(3, 4, kernel_size), "pool": nn.MaxPool2d(2)}
    return Network(stages, GlobalPoolClassifier(4, 5), in_channels=3, name=name)


@pytest.mark.parametrize(
    ("image_shape", "classes", "message"),
    [
        ((1, 8, 8), 5, r"peer0 \(resnet8\) takes images of 3 channels, the data have 1"),
        ((3, 8, 8), 7, r"peer0 \(resnet8\) has 5 classes, the data have 7"),
        ((3, 2, 4), 5, r"peer1 \(unpadded\) cannot take images of 2x4 pixels"),
        ((3, 3, 3), 5, r"peer1 \(unpadded\) cannot take images of 3x3 pixels"),
    ],
)
def test_describe_refuses_data_that_do_not_fit_with_both_values(image_shape, classes, message):
    cohort = Cohort([*networks("resnet8"), unpadded()])
    with pytest.raises(UsageError, match=message):
        describe(cohort, image_shape, classes)


def test_describe_refuses_a_teacher_of_other_classes():
    cohort = Cohort(networks("resnet8"), teacher=networks("resnet8", classes=9)[0])
    with pytest.raises(UsageError, match=r"teacher \(resnet8\) has 9 classes, the data have 5"):
        describe(cohort, (3, 8, 8), 5)


def test_the_teacher_is_a_constant():
    teacher = networks("wrn_10_1")[0]
    expected = copy.deepcopy(teacher).eval()(IMAGES).detach()
    cohort = Cohort(networks("resnet8", "resnet8"), share_until="stage2", teacher=teacher)
    before = copy.deepcopy(teacher.state_dict())
    cohort.train()
    assert not any(module.training for module in teacher.modules())
    out = cohort(IMAGES.clone().requires_grad_())
    torch.testing.assert_close(out.teacher.logits, expected)
    assert not out.teacher.logits.requires_grad and not any(f.requires_grad for f in out.teacher.features)
    (out.logits.sum() + out.teacher.logits.sum()).backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    ours = {id(p) for p in trainable(cohort)}
    assert ours.isdisjoint(id(p) for p in teacher.parameters())
    assert len(ours) == len(list(cohort.parameters())) - len(list(teacher.parameters()))


def test_the_spec_holds_the_teacher_s_frozen_classifier():
    teacher = networks("resnet8")[0]
    cohort = Cohort(networks("wrn_10_1"), teacher=teacher)
    assert describe(cohort, (3, 8, 8), 5).teacher_classifier is teacher.classifier
    assert not any(p.requires_grad for p in teacher.parameters())


def test_logits_are_float32_under_autocast():
    cohort = Cohort(networks("resnet8", "resnet8"), teacher=networks("wrn_10_1")[0])
    with torch.autocast("cpu", torch.bfloat16):
        out = cohort(IMAGES)
    assert out.logits.dtype == out.teacher.logits.dtype == torch.float32


VIEWS = torch.randn(3, 4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("share", [None, "stage1"])
def test_with_views_of_their_own_each_peer_sees_its_view(share):
    peers = networks("resnet8", "resnet8", "resnet8")
    cohort = Cohort(peers, share_until=share).eval()
    out = cohort(VIEWS)
    for k in range(3):
        torch.testing.assert_close(out.logits[k], cohort.peer(k)(VIEWS[k]))
        for ours, own in zip(out.features[k], cohort.peer(k).forward_features(VIEWS[k]), strict=True):
            torch.testing.assert_close(ours, own)
    if share is not None:
        torch.testing.assert_close(out.trunk, out.features[0][1])


def test_a_trunk_sees_all_views_at_once_and_a_teacher_the_first():
    teacher = networks("resnet14")[0]
    cohort = Cohort(networks("resnet8", "resnet8", "resnet8"), share_until="stem", teacher=teacher).eval()
    seen = []
    cohort.trunk["stem"].register_forward_hook(lambda module, arguments, output: seen.append(len(output)))
    out = cohort(VIEWS)
    assert seen == [12]
    torch.testing.assert_close(out.teacher.logits, teacher(VIEWS[0]))


def test_a_transformer_beside_a_convolution_gives_a_map_of_its_tokens():
    peers = [
        build("resnet8", num_classes=5),
        build("timm/vit_tiny_patch16_224:img_size=32:patch_size=8", num_classes=5),
    ]
    spec = describe(Cohort(peers), (3, 32, 32), 5)
    assert spec.last_shapes == ((64, 8, 8), (192, 4, 4))


def test_a_teacher_whose_classifier_reads_tokens_has_none_to_start_from():
    teacher = build("timm/vit_tiny_patch16_224:img_size=32:patch_size=8", num_classes=5)
    spec = describe(Cohort(networks("resnet8"), teacher=teacher), (3, 32, 32), 5)
    assert spec.teacher_shapes is not None and spec.teacher_classifier is None


def test_like_parameters_with_other_layers_between_cannot_share_a_trunk():
    first, second = networks("resnet8", "resnet8")
    second.stages["stage1"] = nn.Sequential(*second.stages["stage1"], nn.ReLU6())
    with pytest.raises(UsageError, match="differ up to stage1"):
        Cohort([first, second], share_until="stage1")


def test_a_branch_that_changes_the_trunk_s_output_is_refused():
    peers = networks("resnet8", "resnet8")
    peers[1].stages["stage2"] = nn.Sequential(nn.SiLU(inplace=True), peers[1].stages["stage2"])
    cohort = Cohort(peers, share_until="stage1")
    with pytest.raises(UsageError, match=r"peer1 \(resnet8\) changes the output of stage1 in place"):
        describe(cohort, (3, 8, 8), 5)


def test_a_branch_that_drops_in_place_while_it_trains_is_refused():
    peers = networks("resnet8", "resnet8")
    for peer in peers:
        peer.stages["stage2"] = nn.Sequential(nn.Dropout2d(0.5, inplace=True), peer.stages["stage2"])
    before = torch.get_rng_state()
    with pytest.raises(UsageError, match=r"peer0 \(resnet8\) changes the output of stage1 in place"):
        describe(Cohort(peers, share_until="stage1"), (3, 8, 8), 5)
    assert torch.equal(before, torch.get_rng_state())


def test_an_adapted_convolutional_teacher_has_a_classifier_to_start_from():
    teacher = build("timm/resnet18", num_classes=5)
    spec = describe(Cohort(networks("resnet8"), teacher=teacher), (3, 32, 32), 5)
    features, logits = teacher.eval().outputs(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(spec.teacher_classifier(features[-1]), logits)


def tree(*names: str, share_until: str = "stage1,stage2") -> Cohort:
    return Cohort(networks(*(names or ["resnet8"] * 4)), share_until=share_until)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(
    ("peers", "stages"),
    [(4, "stem,stage1"), (4, "stage1,stage2"), (6, "stem,stage2"), (8, "stem,stage1,stage2"), (8, "stage1, stage2")],
)
def test_peers_on_a_tree_say_what_each_says_as_a_whole_network(peers, stages, own):
    whole = networks(*["resnet8"] * peers)
    cohort = Cohort(whole, share_until=stages).eval()
    images = torch.randn(peers, 2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    out = cohort(images if own else images[0])
    for k in range(peers):
        seen = images[k if own else 0]
        assert cohort.peer(k).stage_names == ("stem", "stage1", "stage2", "stage3")
        torch.testing.assert_close(out.logits[k], cohort.peer(k)(seen))
        for ours, its_own in zip(out.features[k], cohort.peer(k).forward_features(seen), strict=True):
            torch.testing.assert_close(ours, its_own)
        assert all(not torch.allclose(out.logits[k], z) for z in out.logits[:k])
    torch.testing.assert_close(out.logits[0], whole[0](images[0]))  # each part is that of the first peer on it
    torch.testing.assert_close(out.trunk, out.features[0][whole[0].stage_names.index(stages.partition(",")[0])])


def test_a_tree_is_parts_of_the_peers_each_shared_by_those_above_it():
    cohort = Cohort(whole := networks(*["resnet8"] * 8), share_until="stem,stage1,stage2")
    assert [list(peers) for _, peers in cohort.shared] == [
        [0, 1, 2, 3, 4, 5, 6, 7],
        *([0, 1, 2, 3], [4, 5, 6, 7]),
        *([0, 1], [2, 3], [4, 5], [6, 7]),
    ]
    stages = ["stem"] + ["stage1"] * 2 + ["stage2"] * 4
    for (part, peers), stage in zip(cohort.shared, stages, strict=True):
        assert list(part) == [stage]
        assert part[stage] is whole[peers[0]].stages[stage]
        assert all(cohort.peer(k).stages[stage] is part[stage] for k in peers)
    once = sum(parameters(whole[0].stages[stage]) for stage in stages)
    assert parameters(cohort) == once + 8 * (parameters(whole[0].stages["stage3"]) + parameters(whole[0].classifier))


@pytest.mark.parametrize("own", [False, True])
def test_every_part_of_a_tree_is_computed_once(own):
    cohort, seen = tree(), []
    for number, (part, _) in enumerate(cohort.shared):
        for name, stage in part.items():
            stage.register_forward_hook(
                lambda *call, number=number, name=name: seen.append((number, name, len(call[2])))
            )
    cohort(torch.cat([VIEWS, VIEWS[:1]]) if own else IMAGES)
    wide = (16, 8, 8) if own else (4, 4, 4)
    assert seen == [
        (0, "stem", wide[0]),
        (0, "stage1", wide[0]),
        (1, "stage2", wide[1]),
        (2, "stage2", wide[2]),
    ]


def test_one_stage_gives_the_parameters_the_names_they_always_had():
    names = {name.partition(".")[0] for name in tree(share_until="stage2").state_dict()}
    assert names == {"trunk", "branches"}


def test_gradients_meet_where_peers_do():
    cohort = tree()
    out = cohort(IMAGES)
    losses = out.logits.square().sum((1, 2))
    for part, peers in cohort.shared:
        weight = next(part.parameters())
        each = [torch.autograd.grad(z, weight, retain_graph=True)[0] for z in losses]
        assert [bool(g.any()) for g in each] == [k in peers for k in range(4)]
        (together,) = torch.autograd.grad(losses.sum(), weight, retain_graph=True)
        torch.testing.assert_close(together, sum(each[k] for k in peers), rtol=1e-4, atol=1e-4)


def test_the_trunk_of_a_tree_is_what_all_share():
    spec = describe(tree(), (3, 8, 8), 5)
    assert spec.trunk_shape == spec.feature_shapes[3][1] == (16, 8, 8)


def test_a_copy_of_a_tree_has_weights_of_its_own_and_says_the_same():
    cohort = tree().eval()
    twin = copy.deepcopy(cohort)
    torch.testing.assert_close(twin(IMAGES).logits, cohort(IMAGES).logits)
    assert {id(p) for p in twin.parameters()}.isdisjoint({id(p) for p in cohort.parameters()})


def test_halves_of_unlike_kinds_share_what_all_have_alike():
    cohort = tree("resnet8", "resnet8", "resnet14", "resnet14", share_until="stem,stage2").eval()
    out = cohort(IMAGES)
    for k in range(4):
        torch.testing.assert_close(out.logits[k], cohort.peer(k)(IMAGES))


@pytest.mark.parametrize(
    ("names", "stages", "message"),
    [
        (["resnet8"] * 3, "stage1,stage2", r"3 peers cannot share until stage1,stage2: .* give 4, 6, 8 or another"),
        (["resnet8"] * 2, "stage1,stage2", "2 peers cannot share"),
        (["resnet8"] * 6, "stem,stage1,stage2", "6 peers cannot share .* give 8, 12, 16 or another multiple of 4"),
        (["resnet8"] * 4, "stage2,stage1", "stage2,stage1: name each stage once and in the order .* stem, stage1, sta"),
        (["resnet8"] * 4, "stage1,stage1", "stage1,stage1: name each stage once"),
        (["resnet8"] * 4, "stage1,layer2", "cut after 'layer2'; it can be cut after: stage2"),
        (["resnet8"] * 4, "stage1,", "cut after ''"),
        (["resnet8"] * 4, "stage1,stage3", "cut after 'stage3'"),
        (["resnet8", "resnet8", "resnet14", "resnet14"], "stage1,stage2", r"peer0 .* and peer2 \(resnet14\) differ"),
        (["resnet8", "resnet8", "resnet8", "resnet14"], "stem,stage2", r"peer2 .* and peer3 \(resnet14\) differ up to"),
    ],
)
def test_trees_that_cannot_be_are_refused(names, stages, message):
    with pytest.raises(UsageError, match=message):
        tree(*names, share_until=stages)


@pytest.mark.parametrize(("stage", "message"), [("stage2", "peer2 .* output of stage1"), ("stage3", "peer2 .* stage2")])
def test_a_limb_that_changes_what_it_is_given_is_refused(stage, message):
    peers = networks(*["resnet8"] * 4)
    peers[2].stages[stage] = changed = nn.Sequential(nn.SiLU(inplace=True), peers[2].stages[stage])
    if stage == "stage2":  # the limb of the second half
        peers[3].stages[stage] = copy.deepcopy(changed)
    with pytest.raises(UsageError, match=message):
        describe(Cohort(peers, share_until="stage1,stage2"), (3, 8, 8), 5)


@pytest.mark.parametrize("trunk", [None, "stage2"])
def test_a_batch_is_run_again_with_other_weights_and_leaves_no_trace(trunk):
    torch.manual_seed(0)
    cohort = Cohort([build("resnet8", num_classes=5) for _ in range(2)], share_until=trunk)
    images = torch.randn(4, 3, 8, 8)
    rerun = cohort(images).rerun
    before = {name: x.clone() for name, x in cohort.state_dict().items()}
    halves = {name: (p / 2).detach().requires_grad_() for name, p in rerun.weights.items()}
    assert set(halves) == {name for name, _ in cohort.named_parameters()}
    again = rerun(halves)
    assert all(torch.equal(x, before[name]) for name, x in cohort.state_dict().items())
    gradients = torch.autograd.grad(again.logits.square().sum(), list(halves.values()), create_graph=True)
    assert sum(g.square().sum() for g in gradients).requires_grad
    with torch.no_grad():
        for p in cohort.parameters():
            p /= 2
    torch.testing.assert_close(again.logits, cohort(images).logits)


def test_a_cohort_that_computes_stages_again_is_not_run_again():
    cohort = Cohort([build("resnet8", num_classes=5)], recompute=True)
    rerun = cohort(torch.randn(2, 3, 8, 8)).rerun
    with pytest.raises(UsageError, match="needs --activation-checkpointing false"):
        rerun(rerun.weights)
