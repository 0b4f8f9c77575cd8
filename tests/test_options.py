from pathlib import Path
from typing import Any, Literal

import pytest

from collegium.errors import UsageError
from collegium.options import check_kind, check_options, checked, keywords


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
