import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from collegium.data import SceneData, from_scene
from collegium.pages.run_page import MAP_FILE, render, write_report
from collegium.pages.run_scene_maps import class_colours, map_file, paint, predictor_panels, scene_panels
from collegium.results.analysis import RunAnalysis, gather
from collegium.training.recipe import Recipe
from collegium.training.run import train


def toy(width: int = 30) -> SceneData:
    truth = np.zeros((16, width), dtype=np.uint8)
    truth[:8, 2:], truth[8:, : width // 2] = 1, 2
    cube = 100 * truth[..., None] + np.random.default_rng(0).normal(size=(16, width, 5))
    return from_scene(cube, truth, class_names=("corn & wheat", "oats"), patch=3, per_class=4)


@pytest.fixture(scope="module")
def scene() -> SceneData:
    return toy()


@pytest.fixture(scope="module")
def run(scene: SceneData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene") / "ffl"
    recipe = Recipe(
        method={"name": "ffl"}, peers="2xspectral_resnet8", epochs=1, batch_size=4, data={"name": "python:toy"}
    )
    train(recipe, folder, data=scene, quiet=True)
    return folder


@pytest.fixture(scope="module")
def analysis(run: Path, scene: SceneData) -> RunAnalysis:
    return gather(run, data=scene)


def test_classes_have_colours_of_their_own():
    colours = class_colours(45)
    assert len(set(colours)) == 45 and all(len(c) == 7 for c in colours)
    assert class_colours(6) == colours[:6]


def test_pixels_without_a_class_are_clear():
    painted = paint(torch.tensor([[0, -1], [1, 0]]), ["#ff0000", "#0000ff"])
    assert painted.tolist() == [[[255, 0, 0, 255], [0, 0, 0, 0]], [[0, 0, 255, 255], [255, 0, 0, 255]]]


def test_pixels_without_data_are_clear_in_every_map(scene: SceneData):
    missing = torch.zeros(scene.ground_truth.shape, dtype=torch.bool)
    missing[0, 0] = True
    answer = torch.zeros_like(scene.ground_truth)
    (panel,) = predictor_panels(replace(scene, missing=missing), {"peer0": answer})
    clear = panel.pixels[..., 3] == 0
    assert torch.equal(clear, missing)


def test_training_pixels_are_black(scene: SceneData):
    colour, truth = scene_panels(scene)
    black = (truth.pixels == torch.tensor([0, 0, 0, 255])).all(-1).flatten().nonzero().flatten()
    assert torch.equal(black, scene.train.positions)
    assert torch.equal(colour.pixels[..., :3], scene.false_colour().permute(1, 2, 0))


def test_maps_answer_for_every_pixel_as_the_test_split_says(analysis: RunAnalysis, scene: SceneData):
    assert list(analysis.maps) == analysis.predictors == ["peer0", "peer1", "ensemble", "fused"]
    for name, answers in analysis.maps.items():
        assert answers.shape == (16, 30)
        assert torch.equal(answers.flatten()[scene.test.positions], analysis.answers[name])


def test_a_map_of_labelled_pixels_is_clear_elsewhere(analysis: RunAnalysis, scene: SceneData):
    whole, masked = (predictor_panels(scene, analysis.maps, labelled=labelled)[0].pixels for labelled in (False, True))
    assert (whole[..., 3] == 255).all()
    assert torch.equal(masked[..., 3] == 255, scene.ground_truth >= 0)
    assert torch.equal(masked[scene.ground_truth >= 0], whole[scene.ground_truth >= 0])


def test_the_page_and_the_file_show_every_predictor(run: Path, analysis: RunAnalysis, scene: SceneData):
    page = write_report(run, data=scene).read_text()
    section = page[page.index('<section id="map">') :]
    section = section[: section.index("</section>")]
    assert section.count("<img") == 2 + 2 * len(analysis.predictors)
    assert "corn &amp; wheat" in section and "fused, accuracy" in section
    assert scene.notes[0] in page
    with Image.open(run / MAP_FILE) as picture:
        assert picture.format == "PNG" and picture.width > 1000
    assert render(analysis) == page


@pytest.mark.parametrize("width", [30, 80])
def test_a_long_scene_has_its_maps_one_below_the_other(width):
    data = toy(width)
    maps = {"peer0": data.ground_truth.clamp_min(0), "ensemble": data.ground_truth.clamp_min(0)}
    with Image.open(io.BytesIO(map_file(data, maps, "Toy"))) as picture:
        assert (picture.width > picture.height * 0.9) == (width == 30) or width == 80
    assert map_file(data, maps, "Toy") == map_file(data, maps, "Toy")
