import dataclasses

import numpy as np
import pytest
import torch

from collegium.cohort import PeerOutputs
from collegium.errors import UsageError
from collegium.methods.two_views import TwoViews
from collegium.training.engine import make_fabric
from collegium.training.experiment import build
from collegium.training.loop import Run
from collegium.training.recipe import Recipe
from collegium.training.run import train
from collegium.training.run_folder import RunFolder


def two_views(random_outputs, peers: int) -> PeerOutputs:
    out = random_outputs(peers, batch=12)
    return dataclasses.replace(out, logits=out.logits.detach().requires_grad_())


@pytest.mark.parametrize("peers", [1, 3])
@pytest.mark.parametrize(("alpha", "temperature"), [(1.0, 1.0), (0.6, 2.0)])
@pytest.mark.parametrize("constant", [False, True])
def test_all_terms_and_gradients_are_the_paper_s(
    naive, array, at, random_outputs, spec_of, labels, peers, alpha, temperature, constant
):
    out = two_views(random_outputs, peers)
    method = TwoViews(spec_of(out), alpha=alpha, temperature=temperature, constant=constant)
    terms = method(out, labels, at(0))["peers"]
    z, y = array(out.logits), array(labels)
    a, b = z[:, :6], z[:, 6:]
    assert list(terms) == ["ce", "consistency"]
    ce = sum(naive.cross_entropy(one, y) for one in (*a, *b)) / 2
    kl = sum(naive.kd(p, q, temperature) + naive.kd(q, p, temperature) for p, q in zip(a, b, strict=True)) / 2
    assert terms["ce"].item() == pytest.approx(ce, rel=1e-5)
    assert terms["consistency"].item() == pytest.approx(alpha * kl, rel=1e-4)
    (gradient,) = torch.autograd.grad(terms["consistency"], out.logits)
    p, q = naive.softmax(a / temperature), naive.softmax(b / temperature)

    def towards(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        """By the logits of p: of KL(q || p), and of KL(p || q) where q is no constant to it."""
        learns = p - q
        if not constant:
            gap = np.log(p) - np.log(q)
            learns = learns + p * (gap - (p * gap).sum(-1, keepdims=True))
        return alpha * temperature * learns / 2 / 6

    np.testing.assert_allclose(array(gradient), np.concatenate([towards(p, q), towards(q, p)], 1), rtol=1e-3, atol=1e-5)


def test_one_view_alone_has_nothing_to_agree_with(at, random_outputs, spec_of, labels):
    out = random_outputs(2)
    terms = TwoViews(spec_of(out))(out, labels, at(0))["peers"]
    assert terms["consistency"].item() == 0 and terms["ce"].item() > 0


def test_a_network_sees_two_views_of_every_image_in_one_batch(tmp_path):
    recipe = dict(method="two_views", peers="1xresnet8", data={"name": "digits", "per_class": 4}, batch_size=20)
    recipe = Recipe.from_dict(recipe | {"epochs": 1, "device": "cpu"})
    running = Run(build(recipe), RunFolder(tmp_path), make_fabric(recipe), quiet=True)
    images, target = next(running.training_batches.epoch(0))
    assert images.shape[:2] == (2, 20) and target.shape == (20,) and not torch.equal(images[0], images[1])
    seen = []
    running.learner.cohort.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    terms, logits = running.learner.train()(images, target, running.progress)
    assert torch.equal(seen[0], images.flatten(0, 1)) and logits.shape == (1, 20, 10)
    assert terms["peers"]["consistency"].item() > 0
    assert running.evaluator.predict(images[0])["peer0"].shape == (20, 10)


@pytest.mark.parametrize("mixing", [{}, {"mixup": 0.4, "cutmix": 1.0}])
def test_it_trains_with_mixed_images_too(tmp_path, mixing):
    recipe = dict(method="two_views", peers="resnet8", data={"name": "digits", "per_class": 4}, batch_size=20)
    result = train(Recipe.from_dict(recipe | mixing | {"epochs": 1, "device": "cpu"}), tmp_path / "run", quiet=True)
    assert result["complete"]


def test_a_temperature_of_zero_is_refused(random_outputs, spec_of):
    with pytest.raises(UsageError, match="TwoViews's temperature must be more than 0 and finite, not 0"):
        TwoViews(spec_of(random_outputs(2)), temperature=0.0)


def test_the_defaults_are_the_paper_s(spec_of, random_outputs):
    method = TwoViews(spec_of(random_outputs(1)))
    assert (method.alpha, method.temperature, method.constant) == (1, 1, False)
