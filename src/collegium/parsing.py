"""Parsers of the command line, made from signatures: there alone stand an option's name, kind, default, description.

jsonargparse reads the values by their annotations. Its own ``add_function_arguments`` would call options with
underscores and want a value for every switch, so parameters are added one by one.
"""

import argparse
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from docstring_parser import DocstringStyle, parse
from jsonargparse import ArgumentError, ArgumentParser

from collegium.errors import UsageError, nearest
from collegium.options import check_kind, described_in, kind_in_words


def spelled(arguments: Sequence[str]) -> list[str]:
    """Options with dashes for underscores, and ``--method`` for ``--method.name``, as they may be written too."""
    result = []
    for argument in arguments:
        if argument.startswith("--"):
            option, equals, value = argument.partition("=")
            option = option.replace("_", "-")
            option = {"--method.name": "--method", "--data.name": "--data"}.get(option, option)
            argument = option + equals + value
        result.append(argument)
    return result


def first_look(arguments: Sequence[str], *names: str) -> dict[str, str | None]:
    """What some options are set to, which decide what other options there are."""
    look = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in names:
        look.add_argument(f"--{name}", nargs="?")
    return vars(look.parse_known_args(arguments)[0])


class Parser(ArgumentParser):
    """The parser of one command.

    What must be given to the call is positional, or needed, and its switches have no value on the command line.

    Args:
        command: its name.
        call: what it calls, whose parameters are its options.
        skip: parameters that are no options.
        written: parameters that are written as text, with the default's text.
        examples: of values of what is needed.
    """

    def __init__(
        self,
        command: str,
        call: Callable[..., object],
        *,
        skip: Collection[str] = (),
        written: Mapping[str, str] | None = None,
        examples: Mapping[str, str] | None = None,
    ) -> None:
        self.examples = examples or {}
        self.kinds: dict[str, Any] = {}  # option -> annotation, None for a switch
        self.needed: dict[str, str] = {}  # name -> option
        parameters = [p for p in inspect.signature(call).parameters.values() if p.name not in skip]
        positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty]
        several = {p.name for p in parameters if p.name in positional and _takes_several(p)}
        super().__init__(
            prog=f"collegium {command}",
            usage=" ".join(
                ["collegium", command, *(name.upper() + " ..." * (name in several) for name in positional), "[options]"]
            ),
            description=first_paragraph(call),
            exit_on_error=False,
            allow_abbrev=False,
        )
        self.kinds["--help"] = None
        described = _descriptions(call)
        for name in positional:
            many: dict[str, Any] = {"nargs": "+"} if name in several else {}
            self.add_argument(name, type=str, metavar=name.upper(), help=described.get(name, ""), **many)
        for p in parameters:
            option = _option(p.name)
            if written and p.name in written:
                self.add_option(option, str, default=written[p.name], help=described.get(p.name, ""))
            elif p.name in positional or p.kind is p.VAR_KEYWORD:
                continue
            elif p.default is p.empty:
                self.needed[p.name] = option
                self.add_option(option, _annotation(call, p) | None, default=None, help=described.get(p.name, ""))
            elif p.default is False:
                self.add_switch(option, help=described.get(p.name, ""))
            else:
                self.add_option(option, _annotation(call, p), default=p.default, help=described.get(p.name, ""))

    def add_option(self, option: str, kind: Any, *, group: Any = None, **settings: Any) -> None:
        """Adds an option with a value of the annotated kind."""
        self.kinds[option] = kind
        (group or self).add_argument(option, type=kind, **settings)

    def add_switch(self, option: str, *, help: str) -> None:
        """Adds an option without a value."""
        self.kinds[option] = None
        self.add_argument(option, action="store_true", help=help)

    def add_entries(
        self,
        function: Callable[..., object],
        title: str,
        *,
        part: str = "",
        only: Collection[str] | None = None,
        skip: Collection[str] = (),
    ) -> None:
        """Adds parameters of a class or function with their values, under a title in the help.

        Args:
            part: "method" for options like ``--method.temperature``; their values come back as "method_options".
            only: these parameters alone.
            skip: all but these.
        """
        group, described = self.add_argument_group(title), _descriptions(function)
        for p in inspect.signature(function).parameters.values():
            if p.kind is p.VAR_KEYWORD or p.name in skip or (only is not None and p.name not in only):
                continue
            self.add_option(
                _option(p.name, part),
                _annotation(function, p),
                group=group,
                dest=f"{part}_options.{p.name}" if part else p.name,
                default=p.default,
                help=described.get(p.name, ""),
            )

    def set_recipe(self, plain: Mapping[str, Any], source: str) -> None:
        """Makes the entries of a recipe the defaults, as far as there are options for them.

        Raises:
            UsageError: an entry of its method or of its data is unknown or ill-valued.
        """
        defaults: dict[str, Any] = {}
        for key, value in plain.items():
            if key not in ("method", "data"):
                defaults |= {key: value} if _option(key) in self.kinds else {}
                continue
            for name, of_part in value.items():
                option = _option(name, key)
                if name == "name":
                    continue
                if option not in self.kinds:
                    known = [known for known in self.kinds if known.startswith(f"--{key}.")]
                    raise UsageError(
                        f"{source}: {key} {value['name']!r} has no option {name!r}{nearest(option, known)}"
                    )
                check_kind(f"{source}: {key}.{name}", of_part, self.kinds[option])
                defaults[f"{key}_options.{name}"] = of_part
        self.set_defaults(defaults)

    def read(self, arguments: Sequence[str]) -> dict[str, Any]:
        """The values of all options, which are :func:`spelled`; ``--help`` is answered here.

        Raises:
            UsageError: something is wrong, in one sentence.
        """
        for option, _ in _pairs(arguments):
            if option not in self.kinds:
                raise UsageError(f"{self.prog} has no option {option}{_nearest_option(option, list(self.kinds))}")
        try:
            values: dict[str, Any] = self.parse_args(arguments).as_dict()
        except ArgumentError as error:
            raise UsageError(self._wrong_value(arguments) or " ".join(str(error).split())) from None
        for name, option in self.needed.items():
            if values[name] is None:
                example = f", for example {option} {self.examples[name]}" if name in self.examples else ""
                raise UsageError(f"{self.prog} needs {option}{example}")
        return values

    def _wrong_value(self, arguments: Sequence[str]) -> str | None:
        """Which option's value cannot be read, found by reading each alone."""
        for option, value in _pairs(arguments):
            kind = self.kinds[option]
            if kind is None:
                continue
            if value is None:
                return f"{option} expects a value"
            alone = ArgumentParser(exit_on_error=False)
            alone.add_argument(option, type=kind)
            try:
                alone.parse_args([f"{option}={value}"])
            except ArgumentError:
                example = ", written like [0.5,0.75]" if "list" in kind_in_words(kind) else ""
                return f"{option} must be {kind_in_words(kind)}{example}, not {value!r}"
        return None


def _option(name: str, part: str = "") -> str:
    """``("per_class", "data")`` -> ``"--data.per-class"``"""
    return "--" + (f"{part}." if part else "") + name.replace("_", "-")


def _pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Every option with what follows it."""
    for k, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option.startswith("--") and option != "--":
            following = next(iter(arguments[k + 1 : k + 2]), None)
            yield option, value if equals else None if following is None or following.startswith("--") else following


def _nearest_option(option: str, known: list[str]) -> str:
    """Options are near by their initials too: ``--lr`` is ``--learning-rate``."""
    initials = [
        name for name in known if "--" + "".join(w[0] for w in name[2:].split("-")) == option and "-" in name[2:]
    ]
    return f"; did you mean {initials[0]!r}?" if initials else nearest(option, known)


def _annotation(function: Callable[..., object], parameter: inspect.Parameter) -> Any:
    """The parameter's annotation; where there is none, anything goes."""
    kind = parameter.annotation
    if isinstance(kind, str):
        kind = get_type_hints(function.__init__ if inspect.isclass(function) else function)[parameter.name]
    if get_origin(kind) is not Mapping and str in get_args(kind):  # what Python may give as an object is written here
        return str | None if NoneType in get_args(kind) else str
    return Any if kind is parameter.empty else kind


def _takes_several(parameter: inspect.Parameter) -> bool:
    """Whether it may be a sequence."""
    kind = parameter.annotation
    return any(get_origin(part) is Sequence for part in (kind, *get_args(kind)))


def _descriptions(function: Callable[..., object]) -> dict[str, str]:
    """Parameter -> its description in the docstrings, as plain text."""
    read = [parse(inspect.getdoc(each) or "", style=DocstringStyle.GOOGLE) for each in described_in(function)]
    return {p.arg_name: plain_text(p.description or "") for docstring in read for p in docstring.params}


def first_paragraph(documented: object) -> str:
    """The first paragraph of a docstring, as plain text."""
    return plain_text((inspect.getdoc(documented) or "").split("\n\n")[0])


def plain_text(text: str) -> str:
    """Without the marks of reStructuredText."""
    return " ".join(re.sub(r":\w+:`~?([^`]*)`", r"\1", text).replace("``", "").split())
