"""What every method that the folder holds must keep. A new method is found by itself; nothing is added here."""

import copy
import dataclasses
import inspect
import math
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from collegium import methods
from collegium.cohort import Cohort, describe
from collegium.distiller import Distiller
from collegium.errors import UsageError
from collegium.method import Method, trainable
from collegium.networks import build
from collegium.tiles import Tile

CLASSES = 5
TARGET = torch.tensor([0, 1, 2, 3])
IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))

FROM_THE_END = ("hint", "guided")  # stages, which may be counted from the last
NAMES = methods.names()
each_method = pytest.mark.parametrize("name", NAMES)
each_case = pytest.mark.parametrize(
    ("name", "peers", "teacher"),
    [(name, peers, methods.get(name).needs_teacher) for name in NAMES for peers in (2, 3, 4)]
    + [(name, 2, True) for name in NAMES if methods.get(name).may_have_teacher],
)
each_precision = pytest.mark.parametrize("precision", ["float32", "bfloat16"])


def built(name: str, peers: int, teacher: bool = False) -> tuple[Cohort, Method]:
    kd = distiller(name, peers, teacher)
    return kd.cohort, kd.method


def distiller(name: str, peers: int, teacher: bool = False) -> Distiller:
    cls = methods.get(name)
    torch.manual_seed(0)
    networks = [build("resnet8", num_classes=CLASSES) for _ in range(max(peers, cls.min_peers))]
    trained = build("resnet8", num_classes=CLASSES) if teacher or cls.needs_teacher else None
    shape = dict(image_shape=(3, 16, 16), num_classes=CLASSES)
    return Distiller(name, networks, share_until="stage2", teacher=trained, **shape)


def autocast(precision: str):
    return torch.autocast("cpu", torch.bfloat16) if precision == "bfloat16" else nullcontext()


def owned(method: Method, cohort: Cohort) -> dict[str, list[nn.Parameter]]:
    return {
        player: [p for group in groups for p in group["params"]] for player, groups in method.players(cohort).items()
    }


def test_the_folder_holds_methods():
    assert {"independent", "kd", "dml", "dualnet", "one", "ffl"} <= set(methods.names())


@each_case
@each_precision
def test_every_player_descends_finite_float32_scalars(name, peers, teacher, precision, at):
    kd = distiller(name, peers, teacher)
    cohort, method = kd.cohort, kd.method
    for epoch in range(peers):
        with autocast(precision):
            terms = method(kd._outputs(IMAGES, copies=True), TARGET, at(epoch, peers))
        assert set(terms) == set(method.players(cohort))
        for named in terms.values():
            assert named
            for term in named.values():
                assert term.shape == () and term.dtype == torch.float32 and term.isfinite()


@each_case
@each_precision
def test_every_parameter_has_a_player_and_a_gradient(name, peers, teacher, precision, at):
    kd = distiller(name, peers, teacher)
    cohort, method = kd.cohort, kd.method
    players = owned(method, cohort)
    for parameters in players.values():
        assert len({id(p) for p in parameters}) == len(parameters)
    everything = {id(p) for p in (*trainable(cohort), *trainable(method))}
    assert {id(p) for parameters in players.values() for p in parameters} == everything
    # A method may let some peers rest in an epoch, so every peer is given its turn.
    size = dict.fromkeys(everything, 0.0)
    for epoch in range(peers):
        with autocast(precision):
            terms = method(kd._outputs(IMAGES, copies=True), TARGET, at(epoch, peers))
        for player, named in terms.items():
            found = torch.autograd.grad(
                torch.stack(list(named.values())).sum(), players[player], retain_graph=True, allow_unused=True
            )
            for parameter, gradient in zip(players[player], found, strict=True):
                if gradient is not None:
                    assert gradient.isfinite().all()
                    size[id(parameter)] += gradient.abs().sum().item()
    # By layer: a bias before a norm has a gradient of zero.
    for path, layer in [*cohort.named_modules(), *method.named_modules()]:
        own = [p for p in layer.parameters(recurse=False) if p.requires_grad]
        assert not own or max(size[id(p)] for p in own) > 0, f"{path} never learns"


@each_case
@each_precision
def test_predictors_are_logits_under_names_of_their_own(name, peers, teacher, precision):
    cohort, method = built(name, peers, teacher)
    cohort.eval()
    method.eval()
    with torch.no_grad(), autocast(precision):
        predicted = method.predict(cohort(IMAGES))
    for predictor, logits in predicted.items():
        assert logits.shape == (4, CLASSES) and logits.isfinite().all()
        assert not re.fullmatch(r"peer\d+|ensemble|mean_peer", predictor)


@each_case
def test_predictors_judge_each_image_by_itself(name, peers, teacher):
    cohort, method = built(name, peers, teacher)
    cohort.eval()
    method.eval()
    with torch.no_grad():
        together, alone = method.predict(cohort(IMAGES)), method.predict(cohort(IMAGES[:1]))
    for predictor, logits in together.items():
        torch.testing.assert_close(logits[:1], alone[predictor], rtol=1e-3, atol=1e-4)


@each_method
def test_patches_of_a_tile_get_the_answers_that_they_get_one_by_one(name):
    cls = methods.get(name)
    torch.manual_seed(0)
    peers, teacher = (
        [build("hybridsn_2", num_classes=CLASSES, in_channels=15, image_size=(11, 11)) for _ in range(count)]
        for count in (max(2, cls.min_peers), int(cls.needs_teacher))
    )
    shape = dict(image_shape=(15, 11, 11), num_classes=CLASSES)
    kd = Distiller(name, peers, share_until="stage2", teacher=teacher[0] if teacher else None, ema=0.9, **shape).eval()
    tile = Tile(torch.randn(1, 15, 12, 15), 11, torch.tensor([[0, 1, 0, 1], [0, 2, 4, 3]]))
    with torch.no_grad():
        found, expected = kd.predict(tile), kd.predict(tile.patches)
    assert found.keys() == expected.keys()
    for predictor, z in expected.items():
        torch.testing.assert_close(found[predictor], z, rtol=1e-3, atol=1e-5)


@each_case
def test_maps_are_maps_of_the_whole_batch_under_the_name_of_their_predictor(name, peers, teacher):
    cohort, method = built(name, peers, teacher)
    out = cohort(IMAGES)
    maps = method.maps(out)
    assert set(maps) <= set(method.predict(out))
    for feature in maps.values():
        assert feature.ndim == 4 and len(feature) == 4


@each_case
def test_one_hot_probabilities_are_the_same_target_as_class_indices(name, peers, teacher, at):
    kd = distiller(name, peers, teacher)
    method = kd.method
    out = kd._outputs(IMAGES, copies=True)

    def terms(target: Tensor) -> dict[str, dict[str, Tensor]]:
        torch.manual_seed(1)
        return copy.deepcopy(method)(out, target, at(1, peers))

    torch.testing.assert_close(terms(torch.eye(CLASSES)[TARGET]), terms(TARGET))


@each_case
def test_a_teacher_has_no_player_and_no_gradient(name, peers, teacher, at):
    kd = distiller(name, peers, teacher)
    cohort, method = kd.cohort, kd.method
    if cohort.teacher is None:
        return
    frozen = list(cohort.teacher.parameters())
    for parameters in owned(method, cohort).values():
        assert {id(p) for p in parameters}.isdisjoint(id(p) for p in frozen)
    terms = method(kd.train()._outputs(IMAGES, copies=True), TARGET, at(0, peers))
    sum(term for named in terms.values() for term in named.values()).backward()
    assert all(p.grad is None for p in frozen)


@pytest.mark.parametrize("name", [name for name in NAMES if not methods.get(name).learns_from_teacher()])
def test_a_teacher_that_would_teach_nobody_is_refused(name):
    with pytest.raises(UsageError, match=f"{methods.get(name).__name__} does not learn from a trained teacher"):
        built(name, 2, teacher=True)


@pytest.mark.parametrize("name", [name for name in methods.names() if methods.get(name).min_peers > 1])
def test_too_few_peers_are_refused(name):
    cls = methods.get(name)
    cohort, _ = built(name, cls.min_peers)
    spec = describe(cohort, (3, 16, 16), CLASSES)
    few = dataclasses.replace(spec, names=spec.names[:-1], feature_shapes=spec.feature_shapes[:-1])
    with pytest.raises(UsageError, match=f"{cls.__name__} needs at least {cls.min_peers} peers, got {few.num_peers}"):
        cls(few)


def test_class_names_are_unique():
    assert len({methods.get(name).__name__ for name in methods.names()}) == len(methods.names()) > 0


@each_method
def test_the_docstring_states_the_equation_and_the_source(name):
    doc = inspect.getdoc(methods.get(name)) or ""
    assert ".. math::" in doc
    assert "https://" in doc or "Source:" in doc


@each_method
def test_every_option_is_a_documented_keyword_with_a_default(name):
    cls = methods.get(name)
    _, *options = inspect.signature(cls).parameters.values()
    for option in options:
        assert option.kind is option.KEYWORD_ONLY and option.default is not option.empty
        assert f"\n    {option.name}: " in (inspect.getdoc(cls) or "")


@each_method
def test_a_number_that_makes_no_sense_is_refused_by_the_name_of_its_option(name):
    cls = methods.get(name)
    cohort, _ = built(name, 2)
    spec = describe(cohort, (3, 16, 16), CLASSES)
    for option in list(inspect.signature(cls).parameters.values())[1:]:
        kind = str(option.annotation)
        if "tuple" in kind or option.name in FROM_THE_END:
            continue
        if "float" in kind:
            for value in (-1.0, math.nan, math.inf):
                with pytest.raises(UsageError, match=f"^{cls.__name__}'s {option.name} must be .*, not {value}"):
                    cls(spec, **{option.name: value})
        elif "int" in kind:
            with pytest.raises(UsageError, match=f"{cls.__name__}.*{option.name}|^a fused map .*{option.name} is"):
                cls(spec, **{option.name: -1})


def test_every_method_has_tests_of_its_own():
    here, folder = Path(__file__).parent, Path(methods.__file__).parent
    files = [path for path in folder.rglob("*.py") if path.stem != "__init__"]
    assert len(files) == len(methods.names()) > 0
    missing = [path.name for path in files if not (here / f"test_{path.name}").is_file()]
    assert not missing


def test_an_unknown_method_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match="no method is called 'dual_net'; did you mean 'dualnet'"):
        methods.get("dual_net")
