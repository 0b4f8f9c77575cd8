"""The page of a ranking, in a real browser."""

import dataclasses
import re
from pathlib import Path

import pytest

from chromium import needs_chromium, visit
from collegium.api import rank
from collegium.results import papers as tables
from collegium.training.recipe import Recipe
from made_up_runs import write_run, write_study

ERRORS = {"peer0": 0.31, "peer1": 0.29, "mean_peer": 0.2656, "ensemble": 0.25, "fused": 0.2456}
RECIPE = Recipe(method={"name": "ffl"}, peers="2xresnet32", share_until="stage2", data={"name": "cifar100"}, epochs=100)
SHOWN = 'const shown = () => [...document.querySelectorAll("tr.row")].filter(row => row.checkVisibility());'
CHOOSE = """const choose = (name, value) => { const filter = document.querySelector(`[name=${name}]`);
  filter.value = value; filter.dispatchEvent(new Event("change")); };"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows of ours, a trial, and all that is published."""
    folder = tmp_path_factory.mktemp("rank")
    write_run(folder / "runs" / "ffl", RECIPE, ERRORS)
    write_run(folder / "runs" / "few", dataclasses.replace(RECIPE, data={"name": "cifar100", "per_class": 50}), ERRORS)
    write_study(folder / "trial", [(cell, ERRORS) for cell in tables.get("ffl/ablation").cells((0,), 0.02)])
    return rank(folder)[1]


def test_the_page_is_one_file_that_loads_nothing(page: Path) -> None:
    text = page.read_text()
    assert not re.findall(r'(?:src|@import|url\()\s*=?\s*["\']?(?:https?:)?//', text)
    assert "<link" not in text
    assert text.count('class="row') > 437


@needs_chromium
def test_it_starts_with_one_network_and_says_how_much_it_shows(page: Path) -> None:
    seen = visit(
        page,
        SHOWN
        + """return {shown: shown().map(row => ({...row.dataset})), said: document.querySelector("#shown").textContent,
          ranks: shown().map(row => row.cells[0].textContent)}""",
    )
    assert seen["problems"] == [] and seen["overflow"] <= 0
    rows = seen["found"]["shown"]
    assert {row["data"] for row in rows} == {"cifar100"} and {row["network"] for row in rows} == {"resnet32"}
    assert {row["deployed"] for row in rows} == {"one network"} and {row["metric"] for row in rows} == {"top-1 error"}
    assert {row["origin"] for row in rows} == {"ours", "published"}
    assert seen["found"]["said"].startswith(f"{len(rows)} of ")
    assert set(seen["found"]["ranks"]) == {"–"}, "single runs and published values cannot be ordered"


@needs_chromium
def test_it_filters(page: Path) -> None:
    seen = visit(
        page,
        SHOWN
        + CHOOSE
        + """
        choose("network", "wrn_40_2"); const wide = shown().map(row => row.dataset.network);
        choose("certainty", "P"); const sure = shown().map(row => row.dataset.certainty);
        choose("certainty", ""); choose("network", "resnet32"); choose("origin", "ours");
        const ours = shown().map(row => row.cells[0].textContent + row.cells[1].textContent);
        choose("data", "imagenet"); const imagenet = shown().map(row => row.dataset.data);
        document.querySelector("#everything").click(); const all = shown().length;
        const search = document.querySelector("[type=search]");
        search.value = "okddip"; search.dispatchEvent(new Event("input"));
        const words = shown().map(row => row.textContent.toLowerCase().includes("okddip"));
        search.value = "no such words"; search.dispatchEvent(new Event("input"));
        const none = document.querySelector(".none").checkVisibility() && !shown().length;
        return {wide, sure, ours, imagenet, all, words, none, hash: location.hash,
          rows: document.querySelectorAll("tr.row").length}""",
    )
    found = seen["found"]
    assert seen["problems"] == []
    assert found["wide"] and set(found["wide"]) == {"wrn_40_2"}
    assert found["sure"] and set(found["sure"]) == {"P"}
    assert len(found["ours"]) == 7 and sum("trial" in text for text in found["ours"]) == 5
    assert all(text.startswith("–") for text in found["ours"] if "trial" in text)
    assert found["imagenet"] and set(found["imagenet"]) == {"imagenet"}  # a choice that does not fit gives way
    assert found["all"] == found["rows"]
    assert found["words"] and all(found["words"]) and found["none"]
    assert "search=no+such+words" in found["hash"]


@needs_chromium
def test_an_address_leads_to_what_it_shows(page: Path) -> None:
    seen = visit(page, SHOWN + "return shown().map(row => row.dataset.network)", fragment="network=wrn_16_2")
    assert seen["found"] and set(seen["found"]) == {"wrn_16_2"}


@needs_chromium
def test_it_sorts_within_a_group(page: Path) -> None:
    seen = visit(
        page,
        SHOWN
        + """
        const heads = [...document.querySelectorAll(".ranking thead th")];
        const head = heads.find(head => head.textContent === "value");
        const values = () => shown().slice(0, 40).map(row => +row.cells[head.cellIndex].dataset.value);
        head.click(); const up = values(), first = head.ariaSort;
        head.click(); const down = values(), second = head.ariaSort;
        const epochs = heads.find(head => head.textContent === "epochs");
        epochs.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter"}));
        const lengths = shown().slice(0, 40).map(row => row.cells[epochs.cellIndex].dataset.value);
        return {up, down, first, second, lengths}""",
    )
    found = seen["found"]
    assert seen["problems"] == []
    assert found["up"] == sorted(found["up"]) and found["first"] == "ascending"
    assert found["down"] == sorted(found["down"], reverse=True) and found["second"] == "descending"
    known = [float(length) for length in found["lengths"] if length]
    assert known == sorted(known) and known[0] == 100


@needs_chromium
@pytest.mark.parametrize("width", [390, 800, 1030, 1290])
def test_it_fits_a_phone(page: Path, width: int) -> None:
    seen = visit(page, 'document.querySelector("#everything").click(); return 0', width=width)
    assert seen["width"] == width and seen["overflow"] <= 0 and seen["problems"] == []
