import pytest

from collegium.results import wording


def test_a_recipes_options_are_written_in_one_line():
    entry = {"name": "ffl", "temperature": 3.0, "ekd": True, "fused_channels": None}
    assert wording.entry(entry) == "ffl (temperature 3, ekd yes)"


@pytest.mark.parametrize(
    ("share_until", "text"),
    [
        (None, "nothing"),
        ("stage2", "all up to stage2"),
        ("stem, stage1,stage2", "all up to stem, halves up to stage1, halves of those up to stage2"),
    ],
)
def test_what_peers_share_is_said(share_until: str | None, text: str):
    assert wording.shared(share_until) == text


def test_a_method_that_is_not_ours_has_no_source():
    assert wording.about_method("mine") == ("", [])
    assert wording.method_title("mine") == "mine"
