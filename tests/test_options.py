import inspect
from pathlib import Path
from typing import Any, Literal, get_type_hints

import pytest

from collegium.data import Reading, from_scene
from collegium.data.decoding.reading import ReadingOptions
from collegium.data.hyperspectral.scene_data import SceneOptions
from collegium.data.hyperspectral.spectra import SpectraOptions, from_spectra
from collegium.errors import UsageError
from collegium.options import check_kind, check_options, checked, described_in, keywords, options_from


@pytest.mark.parametrize(
    ("value", "hint", "fits"),
    [
        (1, float, True),
        (1.5, int, False),
        (True, int, False),
        (True, float, False),
        ("1", float, False),
        (None, int | None, True),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"] | None, False),
        ([0.5, 1], tuple[float, ...], True),
        ((0.5, "x"), tuple[float, ...], False),
        ("0.5", tuple[float, ...], False),
        (object(), Any, True),
    ],
)
def test_values_fit_their_annotations(value: Any, hint: Any, fits: bool) -> None:
    if fits:
        check_kind("it", value, hint)
    else:
        with pytest.raises(UsageError, match="it must be"):
            check_kind("it", value, hint)


def configured(spec: object, *, rate: float = 1.0, mode: Literal["a", "b"] = "a") -> None: ...


def test_an_unknown_option_is_told_its_neighbours() -> None:
    assert list(keywords(configured, skip="spec")) == ["rate", "mode"]
    with pytest.raises(UsageError, match="Thing has no option 'raet'; did you mean 'rate'"):
        check_options("Thing", configured, {"raet": 1}, skip="spec")
    with pytest.raises(UsageError, match="Thing's mode must be one of a, b, not 'c'"):
        check_options("Thing", configured, {"mode": "c"}, skip="spec")
    check_options("Thing", configured, {"rate": 2, "mode": "b"}, skip="spec")


def reader(*, size: int | None = None, seed: int = 0, flip: bool = True) -> tuple[int | None, int, bool]:
    """Reads.

    Args:
        size: in pixels.
        seed: of chance.
        flip: or not.
    """
    return size, seed, flip


@options_from(reader, skip=("seed",), flip=None)
def loader(path: str, **options: Any) -> tuple[str, dict[str, Any]]:
    """Loads.

    Args:
        path: where from.
    """
    return path, options


def test_options_of_another_function_stand_in_the_signature_with_their_kinds_and_the_functions_own_defaults() -> None:
    parameters = inspect.signature(loader).parameters
    assert {name: p.default for name, p in parameters.items()} == {
        "path": inspect.Parameter.empty,
        "size": None,
        "flip": None,
    }
    assert get_type_hints(loader) == {
        "path": str,
        "size": int | None,
        "flip": bool | None,
        "return": tuple[str, dict[str, Any]],
    }
    assert loader("there", size=3) == ("there", {"size": 3})
    assert described_in(loader) == [reader, loader]


def test_options_of_another_function_are_checked_by_its_kinds() -> None:
    with pytest.raises(UsageError, match="has no option 'seed'"):
        check_options("the loader", loader, {"seed": 1}, skip="path")
    with pytest.raises(UsageError, match="size must be a whole number or nothing, not 'big'"):
        check_options("the loader", loader, {"size": "big"}, skip="path")


@pytest.mark.parametrize(
    ("source", "typed", "skip"),
    [
        (Reading, ReadingOptions, ()),
        (from_scene, SceneOptions, ("name", "class_names", "colour_bands")),
        (from_spectra, SpectraOptions, ("name",)),
    ],
)
def test_what_editors_complete_is_what_the_source_takes(source: Any, typed: Any, skip: tuple[str, ...]) -> None:
    parameters = inspect.signature(source).parameters.values()
    taken = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in skip}
    hints = get_type_hints(source.__init__ if inspect.isclass(source) else source)
    assert get_type_hints(typed) == {name: hints[name] for name in taken}


@checked
def called(run: str | Path | None, count: int = 1, *, quick: bool = False, **rest: Any) -> str:
    return f"{run} {count} {quick} {rest}"


def test_plain_arguments_are_of_their_kinds() -> None:
    assert called(Path("a"), quick=True, other=[1]) == "a 1 True {'other': [1]}"
    for wrong in (lambda: called(3), lambda: called("a", "2"), lambda: called("a", quick=1)):  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="must be"):
            wrong()
    with pytest.raises(TypeError, match="missing"):
        called()  # type: ignore[call-arg]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, 10**400])
def test_a_number_that_cannot_be_computed_with_is_none(value: float) -> None:
    with pytest.raises(UsageError, match="it must be a number") as refused:
        check_kind("it", value, float)
    assert len(str(refused.value)) < 100
