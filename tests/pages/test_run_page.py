import base64
import io
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

import collegium
from collegium.baseline import Baseline
from collegium.pages.html import element
from collegium.pages.run_page import render, write_report, write_report_if_possible
from collegium.results.analysis import RunAnalysis, gather
from collegium.results.examples import Answer, Changes, Example

VOID = {"meta", "img", "br", "wbr"}


class Checker(HTMLParser):
    """Collects what is open, and every attribute by element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(page)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(analysis: RunAnalysis) -> str:
    return render(analysis)


@pytest.fixture(scope="module")
def checked(page: str) -> Checker:
    return Checker(page)


def test_tags_balance_and_ids_are_unique(checked: Checker):
    ids = [a["id"] for _, a in checked.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert len(checked.all("h1")) == 1 and len(checked.all("title")) == 1


def test_the_page_holds_the_numbers_of_the_result(page: str, analysis: RunAnalysis):
    for name, scores in analysis.result["predictors"].items():
        row = re.search(rf'<tr><th scope="row" data-value="{name}">.*?</tr>', page)
        assert row is not None
        last, best = scores["last"], scores["best"]
        for text in (
            f"<b>{100 - 100 * last['top1_error']:.2f}</b>",
            f"<td>{100 - 100 * last['top5_error']:.2f}</td>",
            f"<td>{last['nll']:.3f}</td>",
            f"<td>{100 * last['ece']:.2f}</td>",
            f"{100 - 100 * best['top1_error']:.2f} (epoch {best['epoch']})",
            f'data-value="{analysis.result["cost"][name]["parameters"]}"',
            f'data-value="{analysis.result["cost"][name]["flops"]}"',
        ):
            assert text in row[0]
    assert f"<b>{100 - 100 * analysis.result['mean_peer']['last']['top1_error']:.2f}</b>" in page
    assert "chosen on the test images themselves, which flatters" in page


def test_the_page_shows_every_curve_section_and_entry(page: str, checked: Checker, analysis: RunAnalysis):
    sections = [a["id"] for a in checked.all("section")]
    assert sections == [
        "scores", "curves", "diversity", "mistakes", "confidence", "examples", "attention", "trained", "use",
    ]  # fmt: skip
    labels = [a["aria-label"] for a in checked.all("svg")]
    for term in ("ce", "ce_fused", "ekd", "fkd", "learning rate"):
        assert f"{term} over the epochs" in labels
    for entry in analysis.recipe.to_dict():
        assert f'<th scope="row">{entry}</th>' in page
    for entry, value in analysis.provenance.items():
        assert f'<th scope="row">{entry}</th><td>{value}</td>' in page
    assert "https://arxiv.org/abs/1904.09058" in page


def test_nothing_comes_from_the_network(page: str, checked: Checker):
    for tag, attributes in checked.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            if name in attributes and tag != "a":
                assert attributes[name].startswith(("data:", "#")), (tag, attributes[name])
        assert "url(http" not in attributes.get("style", "")
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.S)[:1]
    assert "@import" not in style and "url(" not in style
    assert not checked.all("link") and not checked.all("iframe")
    assert all(a.get("rel") == "noreferrer" for a in checked.all("a"))


def test_pictures_decode_and_have_descriptions(checked: Checker, analysis: RunAnalysis):
    images = checked.all("img")
    attention = min(6, len(analysis.examples)) * (1 + len(analysis.examples[0].maps))
    assert len(images) == len(analysis.examples) + attention
    for attributes in images:
        picture = Image.open(io.BytesIO(base64.b64decode(attributes["src"].partition(",")[2])))
        picture.load()
        enlarged = int(attributes["width"]) // picture.width
        assert (enlarged * picture.width, enlarged * picture.height) == (
            int(attributes["width"]),
            int(attributes["height"]),
        )
        assert attributes["alt"]
    assert all(a["role"] == "img" and a["aria-label"] for a in checked.all("svg"))


def test_text_from_data_is_escaped(analysis: RunAnalysis):
    names = ("<b>", "$a$", 'q"', "&amp;", "日本", *analysis.data.class_names[5:])
    data = replace(analysis.data, name="<script>alert(1)</script>", class_names=names)
    result = analysis.result | {"data": data.name}
    page = render(replace(analysis, data=data, result=result, run=Path("<i>/run")))
    Checker(page)
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
    assert "&lt;i&gt;/run/peers/peer0" in page and "<i>/" not in page
    assert "&lt;b&gt;" in page and "<b><b>" not in page
    assert "&amp;amp;" in page


def test_the_page_is_written_whole_and_is_the_same_each_time(run: Path):
    path = write_report(run)
    first = path.read_bytes()
    assert path == run / "report.html" and first.endswith(b"</html>\n")
    assert write_report(run).read_bytes() == first
    assert len(first) < 3_000_000
    assert not list(run.glob("*.part"))


def test_the_student_loads_from_where_the_page_says(page: str):
    place = re.search(r"load_peer\(&#x27;(.+?)&#x27;\)", page)
    assert place is not None
    assert not collegium.load_peer(place[1]).training
    run = str(Path(place[1]).parents[1])
    assert f"collegium export {run} --format onnx" in page and f"collegium predict {run} photographs/" in page


def test_a_baseline_beside_the_run_is_compared_with_the_deployed_network(page: str, analysis: RunAnalysis):
    assert "The same network alone" not in page
    error = analysis.result["predictors"]["peer0"]["last"]["top1_error"]
    told = render(replace(analysis, baseline=Baseline(error + 0.0125, "runs/ffl-baseline")))
    assert f"peer0, which is deployed: {100 - 100 * error:.2f} %." in told
    assert "alone (runs/ffl-baseline): " in told and "The difference, +1.25 points, is of one seed" in told


def test_images_that_changed_beside_the_network_alone_are_shown_with_their_counts(page: str, analysis: RunAnalysis):
    assert 'id="changes"' not in page
    names = ("<i>", *analysis.data.class_names[1:])
    image = Example(
        3, "/d/0/a<b>.png", "", analysis.examples[0].image, 0, {"alone": Answer(4, 0.5), "peer0": Answer(0, 0.876)}
    )
    changes = Changes(torch.tensor([[40, 21], [1, 388]]), (image,) * 8, ())
    told = render(replace(analysis, changes=changes, data=replace(analysis.data, class_names=names)))
    Checker(told)
    (section,) = re.findall(r'<section id="changes">.*?</section>', told, re.DOTALL)
    text = re.sub(r"<[^>]+>", "", section.replace("</h3>", ". "))
    assert "Of the 450 test images peer0 gets 409 right, and the same network trained alone 389: +4.44 points." in text
    assert "only peer0 right21only the network alone right1both right388both wrong40" in text
    assert "Only peer0 is right: 8 of 21 images, at even steps. " in text and "Only the network alone is" not in text
    assert (
        text.count("&lt;i&gt;alone: ✗ 4, 50\N{NO-BREAK SPACE}%peer0: ✓ right, 88\N{NO-BREAK SPACE}%a&lt;b&gt;.png") == 8
    )
    assert told.index('id="scores"') < told.index('id="changes"') < told.index('id="curves"')


def test_a_file_names_its_image(page: str, analysis: RunAnalysis):
    first, *rest = analysis.examples
    assert f"test image {first.index}<" in page
    told = render(replace(analysis, examples=(replace(first, file="/data/test/3/scan <7>.png"), *rest)))
    assert told.count("scan &lt;7&gt;.png</span>") == 1 and f"test image {first.index}<" not in told
    assert 'alt="scan &lt;7&gt;.png, true class' in told and "/data/test" not in told


def test_a_split_that_was_scored_once_has_no_curve(page: str, analysis: RunAnalysis):
    before, last = analysis.history
    seldom = {key: value for key, value in before.items() if not key.startswith("test/")}
    labels = [a["aria-label"] for a in Checker(render(replace(analysis, history=[seldom, last]))).all("svg")]
    assert "Top-1 test accuracy of every predictor over the epochs" not in labels
    assert "Accuracy of the predictors on training batches over the epochs" in labels


def test_of_five_classes_or_fewer_there_is_no_top_5_accuracy(page: str, analysis: RunAnalysis):
    assert page.count("top-5 accuracy") > 1
    told = render(replace(analysis, result=analysis.result | {"test_images_per_class": [90] * 5}))
    assert told.count("top-1 accuracy") == page.count("top-1 accuracy") and "top-5" not in told


def test_what_was_reconstructed_is_said(page: str, analysis: RunAnalysis):
    assert "Reconstructed" not in page and 'class="notice"' not in page
    told = render(replace(analysis, result=analysis.result | {"reconstructed": "the <schedule>"}))
    assert "Reconstructed: the &lt;schedule&gt;." in told


def test_a_page_whose_predictions_differ_from_the_runs_says_so(analysis: RunAnalysis):
    logits = analysis.logits | {"peer0": analysis.logits["peer1"].roll(1, dims=0)}
    assert "accuracies come out as peer0" in render(replace(analysis, logits=logits))


def test_a_lone_peer_has_a_page(lone_run: Path):
    page = write_report(lone_run).read_text()
    checked = Checker(page)
    assert "ensemble" not in page and "mean of 1" not in page and "kappa" not in page.lower()
    assert not [a for a in checked.all("svg") if "over the epochs" in a["aria-label"]], "there is no curve of one epoch"
    (measured,) = gather(lone_run).history
    assert (
        f"validation accuracy of peer0, %</th><td>{100 - 100 * measured['validation/peer0/top1_error']:.2f}</td>"
        in page
    )
    assert f"ce, term of the loss</th><td>{measured['train/peers/ce']:.4g}</td>" in page
    assert "chosen on the validation images" in page and "flatters" not in page


def test_a_failed_report_leaves_the_old_page(run: Path, tmp_path: Path):
    broken = Path(shutil.copytree(run, tmp_path / "run"))
    (broken / "report.html").write_text("old")
    (broken / "result.json").unlink()
    with pytest.raises(collegium.errors.UsageError):
        write_report(broken)
    assert (broken / "report.html").read_text() == "old"


@pytest.mark.filterwarnings("error")
def test_a_page_that_cannot_be_written_is_a_warning_after_training(run: Path, tmp_path: Path):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "report.html").unlink(missing_ok=True)
    (copy / "report.html").mkdir()
    with pytest.warns(UserWarning, match="the run is complete, but its page cannot be written .*collegium report"):
        assert write_report_if_possible(copy) is None


def test_elements_escape_what_is_not_html():
    assert element("td", "<", element("b", 1), class_='a"b', title=None) == '<td class="a&quot;b">&lt;<b>1</b></td>'


def test_gather_and_render_need_the_same_arguments_as_writing(run: Path, analysis: RunAnalysis):
    """Data given from Python take the place of the recipe's."""
    few = replace(analysis.data, test=analysis.data.test.subset(analysis.targets.new_tensor(range(40))))
    assert len(gather(run, data=few).targets) == 40
