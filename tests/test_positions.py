"""Networks that label positions, and whatever else gives bare logits."""

import pydoc_data.topics
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from collegium import methods, ranks
from collegium.cohort import PeerOutputs
from collegium.data.download import data_root
from collegium.data.hyperspectral.mat_files import read_mat
from collegium.distiller import Distiller
from collegium.errors import UsageError
from collegium.method import Method, Progress, Terms
from collegium.positions import Positions

LOGITS_ONLY = [name for name in methods.names() if methods.get(name).logits_only]
G = torch.Generator().manual_seed(0)
MAPS, LABELS = torch.randn(4, 3, 6, 7, generator=G), torch.randint(5, (4, 6, 7), generator=G)
IGNORED = LABELS.masked_fill(torch.rand(4, 6, 7, generator=G) < 0.4, -1)


class Segmenter(nn.Module):
    """(B, 3, H, W) -> (B, classes, H, W)"""

    def __init__(self, channels: int = 3, classes: int = 5, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(inplace=True),  # which writes into its input
            nn.Conv2d(channels, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, classes, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y


class Tagger(nn.Module):
    """A causal Transformer of tokens, (B, L) -> (B, L, classes)."""

    def __init__(self, vocabulary: int, classes: int, width: int = 32, layers: int = 1) -> None:
        super().__init__()
        self.embedding, self.place = nn.Embedding(vocabulary, width), nn.Embedding(64, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=tokens.device)
        x = self.embedding(tokens) + self.place(torch.arange(length, device=tokens.device))
        y: Tensor = self.head(self.layers(x, mask=mask, is_causal=True))
        return y


def segmenters(count: int = 2) -> list[nn.Module]:
    torch.manual_seed(0)
    return [Segmenter() for _ in range(count)]


def made(method: Any = "dml", ignore_index: int | None = None, **options: Any) -> Distiller:
    given: dict[str, Any] = dict(num_classes=5, example_input=MAPS, ignore_index=ignore_index)
    return Distiller(method, segmenters(), **given, **options)


def dml_by_hand(logits: list[Tensor], target: Tensor) -> Tensor:
    """Of two peers, from logits (N, C), position by position."""
    total = torch.zeros(())
    log_p = [z.log_softmax(-1) for z in logits]
    for n, label in enumerate(target):
        for own, other in ((0, 1), (1, 0)):
            p = log_p[other][n].exp().detach()
            total = total - log_p[own][n, label]
            total = total + (p * (log_p[other][n].detach() - log_p[own][n])).sum()
    return total / len(target)


@pytest.mark.parametrize("ignore_index", [None, -1])
def test_the_loss_is_the_mean_over_labelled_positions(ignore_index: int | None) -> None:
    target = LABELS if ignore_index is None else IGNORED
    kd, peers = made(ignore_index=ignore_index), segmenters()
    out = kd(MAPS, target, 0.5)
    given = [peer(MAPS.clone()) for peer in peers]
    assert out.logits.shape == (2, 4, 5, 6, 7) and not out.logits.requires_grad
    torch.testing.assert_close(out.logits, torch.stack(given).detach())
    chosen = [z.movedim(1, -1)[target != -1] for z in given]
    expected = dml_by_hand(chosen, target[target != -1])
    torch.testing.assert_close(out.loss, expected)
    ce = sum(F.cross_entropy(z, target, ignore_index=-1) for z in given)
    torch.testing.assert_close(out.terms["ce"], ce)
    parameters = [p for peer in peers for p in peer.parameters()]
    out.loss.backward()
    for p, g in zip(kd.cohort.parameters(), torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-6)


def test_ignored_positions_teach_nothing() -> None:
    kd = made(ignore_index=-1).eval()
    loss = kd(MAPS, IGNORED, 0.5).loss

    class Shifted(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            z: Tensor = self.inner(x)
            return torch.where(IGNORED[:, None] == -1, z.flip(1) * 7, z)

    others = [Shifted(peer).eval() for peer in segmenters()]
    changed = Distiller("dml", others, num_classes=5, example_input=MAPS, ignore_index=-1).eval()
    assert torch.equal(changed(MAPS, IGNORED, 0.5).loss, loss)


def test_probabilities_may_be_targets() -> None:
    probabilities = F.one_hot(LABELS, 5).movedim(-1, 1).float()
    torch.testing.assert_close(made()(MAPS, probabilities, 0.5).terms, made()(MAPS, LABELS, 0.5).terms)
    smooth = torch.rand(4, 5, 6, 7, generator=G).softmax(1)
    terms = made(ignore_index=-1)(MAPS, smooth, 0.5).terms
    expected = sum(F.cross_entropy(peer(MAPS.clone()), smooth) for peer in segmenters())
    torch.testing.assert_close(terms["ce"], expected)


def test_a_batch_without_any_label_has_terms_and_gradients_of_zero() -> None:
    kd = made({"name": "kdcl", "target": "general", "own_views": False}, ignore_index=-1)
    covariance = kd.method.covariance.clone()
    out = kd(MAPS, torch.full_like(LABELS, -1), 0.5)
    assert out.terms == {"ce": 0, "kd": 0}
    assert torch.equal(kd.method.covariance, covariance)
    out.loss.backward()
    assert all(p.grad is not None and not p.grad.any() for p in kd.cohort.parameters())
    assert kd(MAPS, IGNORED, 0.5).loss > 0
    assert not torch.equal(kd.method.covariance, covariance)


@pytest.mark.parametrize("method", LOGITS_ONLY)
def test_every_method_that_reads_logits_alone_labels_positions_as_if_they_were_images(method: str) -> None:
    kind = methods.get(method)
    teacher = Segmenter() if kind.needs_teacher else None
    options = {"own_views": False} if method == "kdcl" else {}
    kd = made({"name": method, **options}, ignore_index=-1, teacher=teacher)
    views = torch.stack([MAPS, MAPS + 0.1]) if kd.views > 1 else MAPS
    progress = Progress(torch.tensor(50.0), torch.tensor(100.0), torch.tensor(0.5))
    out = kd(views, IGNORED, progress)

    def rows(z: Tensor) -> Tensor:
        return z.movedim(1, -1).flatten(0, 2)

    kept = IGNORED.flatten() != -1
    images = list(views) if kd.views > 1 else [MAPS]
    given = kd.cohort(views.flatten(0, 1) if kd.views > 1 else views)
    by_view = given.logits.split(len(MAPS), 1)
    logits = torch.cat([torch.stack([rows(z)[kept] for z in view]) for view in by_view], 1)
    assert logits.shape == (2, len(images) * int(kept.sum()), 5)
    frozen = None if given.teacher is None else type(given.teacher)(rows(given.teacher.logits)[kept], ())
    shadow = None
    if kd.shadow is not None:
        shadow = torch.stack([rows(z)[kept] for z in kd.shadow.forward_peers(MAPS).logits])
    seen = PeerOutputs(logits, (), teacher=frozen, shadow=shadow)
    expected = kd.method(seen, IGNORED.flatten()[kept], progress)
    for player, terms in expected.items():
        torch.testing.assert_close(out.by_player[player], terms)
    assert out.logits.shape == (2, 4, 5, 6, 7)


class Calibrated(Method):
    """Predicts with logits that are halved, in whatever shape they come."""

    logits_only = True

    def forward(self, out: PeerOutputs, target: Tensor, progress: Progress) -> dict[str, Terms]:
        return {"peers": {"ce": F.cross_entropy(out.logits[0], target)}}

    def predict(self, out: PeerOutputs) -> dict[str, Tensor]:
        assert out.logits.ndim == 3
        return {"half": out.logits[0] / 2}


def test_predictions_have_the_shape_of_the_networks() -> None:
    kd, peers = made(Calibrated).eval(), segmenters()
    found = kd.predict(MAPS)
    with torch.no_grad():
        first, second = (peer.eval()(MAPS.clone()) for peer in peers)
    torch.testing.assert_close(found["peer1"], second)
    torch.testing.assert_close(found["ensemble"], (first + second) / 2)
    torch.testing.assert_close(found["half"], first / 2)
    tokens = torch.randint(9, (2, 6), generator=G)
    tagger = Distiller(Calibrated, [Tagger(9, 4), Tagger(9, 4)], num_classes=4, example_input=tokens).eval()
    found = tagger.predict(tokens)
    assert found["half"].shape == (2, 6, 4)
    torch.testing.assert_close(found["half"], found["peer0"] / 2)


def test_inputs_are_not_changed_by_networks_that_write_into_them() -> None:
    before = MAPS.clone()
    made()(MAPS, LABELS, 0.5)
    assert torch.equal(MAPS, before)


def test_volumes_are_no_views() -> None:
    volumes, labels = torch.randn(2, 1, 4, 5, 6), torch.randint(3, (2, 4, 5, 6))
    peers = [nn.Conv3d(1, 3, 3, padding=1) for _ in range(2)]
    kd = Distiller("dml", peers, num_classes=3, example_input=volumes)
    z = [peer(volumes).movedim(1, -1).flatten(0, 3) for peer in peers]
    torch.testing.assert_close(kd(volumes, labels, 0.5).loss, dml_by_hand(z, labels.flatten()))


@pytest.mark.parametrize("method", ["two_views", "kdcl"])
def test_views_cannot_be_forgotten(method: str) -> None:
    with pytest.raises(UsageError, match=r"2 random views of each image: give images of shape \(2, B, C, H, W\)"):
        made(method)(MAPS, LABELS, 0.5)
    assert made(method)(torch.stack([MAPS, MAPS]), LABELS, 0.5).loss.isfinite()


def test_micro_batches_are_weighted_by_their_labelled_positions() -> None:
    uneven = IGNORED.clone()
    uneven[:2] = -1
    uneven[0, 0, 0] = 3
    whole, parts = made("independent", ignore_index=-1).eval(), made("independent", ignore_index=-1).eval()
    a = whole.step(MAPS, uneven, 0.5, {"peers": torch.optim.SGD(whole.parameters(), lr=0.1)})
    b = parts.step(MAPS, uneven, 0.5, {"peers": torch.optim.SGD(parts.parameters(), lr=0.1)}, micro_batches=4)
    torch.testing.assert_close(a.terms, b.terms)
    for p, q in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)
    assert b.logits.shape == a.logits.shape


def test_a_target_of_all_processes_takes_no_positions_of_which_each_has_another_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    linear = {"name": "kdcl", "target": "linear", "own_views": False}
    monkeypatch.setattr(ranks, "count", lambda: 2)
    with pytest.raises(UsageError, match="KDCL with these options joins the labelled positions of all processes"):
        made(linear, ignore_index=-1)(MAPS, IGNORED, 0.5)
    monkeypatch.undo()
    made(linear, ignore_index=-1)(MAPS, IGNORED, 0.5)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own, where it breaks the graph
@pytest.mark.parametrize("ignore_index", [None, -1])
def test_a_compiled_one_trains_alike(ignore_index: int | None) -> None:
    torch.compiler.reset()
    target = LABELS if ignore_index is None else IGNORED
    kd, plain = made(ignore_index=ignore_index), made(ignore_index=ignore_index)
    compiled = torch.compile(kd, backend="aot_eager", fullgraph=ignore_index is None)
    for fraction in (0.1, 0.2):
        out = compiled(MAPS, target, torch.tensor(fraction))
        torch.testing.assert_close(out.terms, plain(MAPS, target, fraction).terms, rtol=1e-4, atol=1e-5)
    out.loss.backward()
    assert all(p.grad is not None for p in kd.cohort.parameters())


class Named(nn.Module):
    """Gives what ``wrap`` makes of its logits."""

    def __init__(self, wrap: Any) -> None:
        super().__init__()
        self.inner, self.wrap = Segmenter(), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.inner(x))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda z: {"aux": z.flip(1), "logits": z},
        lambda z: {"out": z, "aux": z.flip(1)},
        lambda z: (z, z.flip(1)),
        lambda z: type("Output", (), {"logits": z, "loss": None})(),
    ],
)
def test_logits_are_found_in_what_a_network_gives(wrap: Any) -> None:
    peers = [Named(wrap) for _ in range(2)]
    kd = Distiller("dml", peers, num_classes=5, example_input=MAPS)
    torch.testing.assert_close(kd(MAPS, LABELS, 0.5).logits, torch.stack([p.inner(MAPS.clone()) for p in peers]))
    assert kd.peer(1) is peers[1]


def test_classes_may_come_last_or_alone() -> None:
    tokens, tags = torch.randint(9, (3, 6), generator=G), torch.randint(4, (3, 6), generator=G)
    tags[0, :3] = -100
    peers = [Tagger(9, 4), Tagger(9, 4)]
    kd = Distiller("dml", peers, num_classes=4, example_input=tokens, ignore_index=-100)
    z = [peer(tokens)[tags != -100] for peer in peers]
    out = kd(tokens, tags, 0.5)
    torch.testing.assert_close(out.loss, dml_by_hand(z, tags[tags != -100]))
    assert out.logits.shape == (2, 3, 6, 4)

    whole = [nn.Sequential(nn.EmbeddingBag(9, 8), nn.Linear(8, 4)) for _ in range(2)]
    kd = Distiller("dml", whole, num_classes=4, example_input=tokens)
    torch.testing.assert_close(kd(tokens, tags[:, 5], 0.5).loss, dml_by_hand([p(tokens) for p in whole], tags[:, 5]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": {"name": "competitive", "features": 0.1}}, "these options need the peers' maps"),
        ({"method": "ffl"}, "FFL reads more of its peers than their logits.*use one of the methods cl_ilr, .*dml"),
        ({"example_input": None}, "either image_shape=, where the peers classify images, or example_input="),
        ({"image_shape": (3, 6, 7)}, "either image_shape=, where the peers classify images, or example_input="),
        ({"example_input": None, "image_shape": (3, 6, 7), "ignore_index": 0}, "ignore_index= is for networks that"),
        ({"peers": "2xresnet8"}, "'2xresnet8' names networks that classify images; with example_input= give modules"),
        ({"num_classes": 9}, r"peer0 \(Segmenter\) gives \(4, 5, 6, 7\) for a batch .* of 9 classes"),
        ({"example_input": MAPS[..., :5]}, r"cannot be told which dimension of logits \(4, 5, 6, 5\) is that of the 5"),
        ({"example_input": MAPS[:, :2]}, r"peer0 \(Segmenter\) cannot take example_input, of shape \(4, 2, 6, 7\): "),
        ({"peers": [Segmenter(), Segmenter(classes=6)]}, r"peer1 gives logits of shape \(4, 6, 6, 7\), peer0 of"),
        ({"share_until": "stage1"}, "Segmenter has no known stages, so it cannot be cut after 'stage1'"),
        ({"example_input": None, "image_shape": (3, 6, 7)}, r"train with collegium.Distiller\(example_input="),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = dict(method="dml", peers=segmenters(), num_classes=5, example_input=MAPS) | options
    with pytest.raises(UsageError, match=message):
        Distiller(**given)


@pytest.mark.parametrize("target", [LABELS[:, :5], LABELS[..., None], LABELS.float(), LABELS[:, 0]])
def test_a_target_of_other_positions_is_refused(target: Tensor) -> None:
    with pytest.raises(
        UsageError, match=r"does not fit logits of shape \(4, 5, 6, 7\): give class indices \(B, 6, 7\)"
    ):
        made()(MAPS, target, 0.5)


def learn(kd: Distiller, batches: list[tuple[Tensor, Tensor]], lr: float) -> None:
    optimizer = torch.optim.Adam(kd.parameter_groups(lr=lr))
    for number, (inputs, target) in enumerate(batches):
        kd(inputs, target, number / len(batches)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        kd.after_step()


@pytest.mark.hyperspectral
def test_two_segmenters_learn_a_whole_scene() -> None:
    """Indian Pines as one image of 145 x 145 pixels; every other block of 5 x 5 pixels is held out."""
    folder = data_root(None) / "hyperspectral"
    files = [folder / "Indian_pines_corrected.mat", folder / "Indian_pines_gt.mat"]
    if not all(file.is_file() for file in files):
        pytest.skip("needs Indian_pines_corrected.mat and Indian_pines_gt.mat in COLLEGIUM_DATA/hyperspectral")
    cube, truth = (torch.tensor(next(iter(read_mat(file).values())).astype("float32")) for file in files)
    scene = ((cube - cube.mean((0, 1))) / cube.std((0, 1))).movedim(-1, 0)[None]
    labels = truth.long()[None] - 1  # where there is no label, -1
    assert scene.shape == (1, 200, 145, 145) and int((labels >= 0).sum()) == 10249
    block = torch.arange(145) // 5
    held_out = (block[:, None] + block[None]) % 2 == 1
    train, test = labels.masked_fill(held_out, -1), labels.masked_fill(~held_out, -1)
    torch.manual_seed(0)
    peers = [Segmenter(200, 16, width=16) for _ in range(2)]
    kd = Distiller("dml", peers, num_classes=16, example_input=scene, ignore_index=-1)
    with torch.no_grad():
        out = kd(scene, train, 0.0)
    chosen = [z.movedim(1, -1)[train != -1] for z in out.logits]
    torch.testing.assert_close(out.loss, dml_by_hand(chosen, train[train != -1]), rtol=1e-4, atol=1e-5)
    learn(kd, [(scene, train)] * 30, lr=0.02)
    kd.eval()
    most = test[test >= 0].bincount().max() / (test >= 0).sum()
    with torch.no_grad():
        for predictor, z in kd.predict(scene).items():
            accuracy = (z.argmax(1) == test)[test >= 0].float().mean()
            assert accuracy > most + 0.2, f"{predictor}: {accuracy:.3f}, the largest class alone {most:.3f}"


def text() -> Tensor:
    """Python's own manual of its language, as the standard library carries it, as ASCII codes."""
    topics = pydoc_data.topics.topics
    whole = "".join(topics[name] for name in sorted(topics)).encode("ascii", "replace")
    return torch.frombuffer(bytearray(whole), dtype=torch.uint8).long()


def test_two_transformers_learn_to_continue_a_text() -> None:
    codes = text()
    torch.manual_seed(0)
    peers = [Tagger(128, 128), Tagger(128, 128)]
    kd = Distiller("dml", peers, num_classes=128, example_input=codes[:64].view(2, 32))
    starts = torch.randint(len(codes) // 2, (60, 32))
    windows = [torch.stack([codes[a : a + 33] for a in some.tolist()]) for some in starts]
    learn(kd, [(w[:, :-1], w[:, 1:]) for w in windows], lr=0.01)
    held_out = codes[len(codes) // 2 :][: 33 * 60].view(60, 33)
    inputs, following = held_out[:, :-1], held_out[:, 1:]
    most = following.flatten().bincount().max() / following.numel()
    with torch.no_grad():
        for predictor, z in kd.eval().predict(inputs).items():
            accuracy = (z.argmax(-1) == following).float().mean()
            assert accuracy > most + 0.02, f"{predictor}: {accuracy:.3f}, the commonest character {most:.3f}"


def test_models_of_transformers_are_trained_as_they_are() -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra [test]")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=128, n_positions=32, n_embd=16, n_layer=1, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    )
    peers = [transformers.GPT2LMHeadModel(config) for _ in range(2)]
    codes = text()[: 4 * 33].view(4, 33)
    kd = Distiller("dml", peers, num_classes=128, example_input=codes[:, :-1], ignore_index=32)
    out = kd(codes[:, :-1], codes[:, 1:], 0.5)
    spaces = codes[:, 1:] == 32
    z = [peer(codes[:, :-1]).logits[~spaces] for peer in peers]
    torch.testing.assert_close(out.loss, dml_by_hand(z, codes[:, 1:][~spaces]))
    learn(kd, [(codes[:, :-1], codes[:, 1:])] * 20, lr=0.01)
    assert kd(codes[:, :-1], codes[:, 1:], 0.5).loss < 0.8 * out.loss
    assert kd.peer(0) is peers[0]


def test_rows_and_shapes() -> None:
    z = torch.arange(24.0).view(2, 3, 4)
    last, second = Positions(3, -1, None), Positions(3, -2, None)
    assert torch.equal(last.rows(z), z.view(6, 4))
    assert second.rows(z)[5].tolist() == [13, 17, 21]  # of the second image the second position
    for layout in (last, second):
        assert torch.equal(layout.restore(layout.rows(z), z[None]), z)
