"""`robustgate init`: a first robustgate.toml, from what lies in the folder and what its owner says."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from robustgate.cli.refusal import refusal
from robustgate.config import find, load
from robustgate.core.errors import RobustgateError, listing, nearest
from robustgate.core.files import write_whole
from robustgate.engine.discovery import IMAGES, NETWORKS, Data, runs_by_itself, search, unique
from robustgate.engine.plan import make_plan
from robustgate.engine.scaffold import Draft, class_argument, guessed_build, read_build, read_normalize

T = TypeVar("T")


def init(
    weights: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Weights, or a model file; DOMAIN=FILE where it matters.")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(metavar="PATH", help="A data set, or where to look for some; or NAME=PATH.")
    ] = None,
    build: Annotated[
        str | None, typer.Option(metavar="MODULE:NAME", help="What builds the network: a function or a class.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="How many classes; default: as many as the data.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Height and width that images are resized to.")
    ] = None,
    normalize: Annotated[
        str | None, typer.Option(metavar="HOW", help="imagenet, inside, or six numbers: mean then std.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a robustgate.toml.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Take what is found, ask nothing.")] = False,
) -> None:
    """Write a robustgate.toml for the weights and data found below this folder.

    What the options do not say is asked. --weights and --data may be repeated.

    Example: robustgate init --build torchvision.models:resnet18
    """
    folder = Path.cwd()
    try:
        if not force and (there := find(folder)) is not None:
            raise RobustgateError(f"{there} is there already; --force writes a new robustgate.toml")
        found, files = _found(folder, data or (), weights or ())
        interview = Interview(folder=folder, silent=yes)
        sets, of_source, made = interview.material(found, files, given=bool(data), named=bool(weights))
        draft = interview.draft(sets, of_source, made, build, classes, image_size, normalize)
        typer.echo("building the network and loading its weights ...")
        draft.check()
        path = folder / "robustgate.toml"
        write_whole(path, draft.text(folder))
        plan = make_plan(load(path))
    except RobustgateError as error:
        raise refusal(error) from error
    typer.echo(f"{path.name}: {len(plan.cases):,} cases of {len(plan.variants):,} variants")
    typer.echo("next: read it, then robustgate plan, then robustgate run")


@dataclass(frozen=True, kw_only=True)
class Interview:
    """Questions to a person; where it is `silent`, what they would be offered is the answer."""

    folder: Path
    silent: bool

    def material(
        self, found: Sequence[Data], files: Mapping[Path, str | None], *, given: bool, named: bool
    ) -> tuple[list[Data], dict[str, Path], list[tuple[str, Path]]]:
        """Return the data, the weights by their source domain, and the files that run by themselves, with theirs.

        `given` and `named` say that the options named the data and the files: all of them are then wanted. Raises
        RobustgateError where two weights are for one domain, or where there are none.
        """
        lines = [f"{self._shown(one.place)}: {len(one.classes):,} classes, {one.kind}" for one in found]
        data = self._choose("data", found, lines, range(len(found)), sure=given)
        sources = {file: name or _named_in(file, data) for file, name in files.items()}
        whole = {file for file in files if runs_by_itself(file)}
        if not files.keys() - whole:
            raise RobustgateError(
                f"found only {listing(map(self._shown, files))}: what runs by itself is judged beside the network that "
                "it was made of, whose weights are needed (.safetensors, .pt, .pth); name them: --weights FILE"
            )
        first = {sources[file] or data[0].name: file for file in reversed([*files]) if file not in whole}
        offered = [n for n, file in enumerate(files) if named or file in whole or file in first.values()]
        chosen = self._choose("weights", list(files), [*map(self._shown, files)], offered, sure=named)
        weights: dict[str, Path] = {}
        made: list[tuple[str, Path]] = []
        for file in chosen:
            source = sources[file] or self._trained_on(file, data)
            if file in whole:
                made.append((source, file))
            elif source in weights:
                both = f"{self._shown(weights[source])} and {self._shown(file)}"
                raise RobustgateError(f"two networks for the domain {source}: {both}; name one: --weights FILE")
            else:
                weights[source] = file
        return data, weights, [(source, file) for source, file in made if source in weights]

    def draft(
        self,
        data: Sequence[Data],
        weights: Mapping[str, Path],
        made: Sequence[tuple[str, Path]],
        build: str | None,
        classes: int | None,
        image_size: int | None,
        normalize: str | None,
    ) -> Draft:
        """Return what the file is written of: options, and answers for those that are None. Raises RobustgateError."""
        alike = self._alike(data, weights)
        guessed = None if build else guessed_build(next(iter(weights.values())))
        build = self._ask("What builds the network, module:name", "--build", build, guessed, read_build)
        args = {}
        if (argument := class_argument(build)) is not None:
            count = str(len(alike[0].classes))
            args[argument] = self._ask("Classes", "--classes", _text(classes), count, _whole)
        if folders := [one for one in alike if one.kind == "image_folder"]:
            usual = str(folders[0].size[0])
            pixels = self._ask("Image size, in pixels", "--image-size", _text(image_size), usual, _whole)
            alike = [replace(one, size=(pixels, pixels)) if one in folders else one for one in alike]
        how = "Normalisation: imagenet, inside (the network's own), or six numbers, mean then std"
        return Draft(
            model=unique(build.rpartition(":")[2], ()),
            build=build,
            args=args,
            normalize=self._ask(how, "--normalize", normalize, "imagenet", read_normalize),
            data=alike,
            weights=weights,
            made=made,
        )

    def _alike(self, data: Sequence[Data], weights: Mapping[str, Path]) -> list[Data]:
        """Return the data of the sources, and those that have the same classes; the others are left out, and told."""
        for name in weights:
            if name not in (names := [one.name for one in data]):
                raise RobustgateError(f"--weights: no domain {name!r}{nearest(name, names)}; known: {listing(names)}")
        known = set(next(one.classes for one in data if one.name in weights))
        alike = [one for one in data if one.name in weights or set(one.classes) == known]
        for one in data:
            if one not in alike:
                typer.echo(f"left out: {self._shown(one.place)}: it has other classes than {next(iter(weights))}")
        return alike

    def _trained_on(self, file: Path, data: Sequence[Data]) -> str:
        names = [one.name for one in data]

        def read(text: str) -> str:
            if text not in names:
                raise ValueError(f"no domain {text!r}{nearest(text, names)}; known: {listing(names)}")
            return text

        if len(names) > 1 and self.silent:
            typer.echo(f"{self._shown(file)} is taken as trained on {names[0]}; say it: --weights DOMAIN=FILE")
        question = f"{self._shown(file)} was trained on ({', '.join(names)})"
        return names[0] if len(names) == 1 else self._ask(question, "--weights", None, names[0], read)

    def _choose(
        self, noun: str, found: Sequence[T], lines: Sequence[str], offered: Sequence[int], *, sure: bool
    ) -> list[T]:
        """Return some of what was found: what is `offered`, where that is `sure` or the only one, or what is chosen."""

        def read(text: str) -> list[T]:
            numbers = [int(part) for part in text.split(",") if part.strip().isdecimal()]
            if len(numbers) != text.count(",") + 1 or not all(0 < number <= len(found) for number in numbers):
                raise ValueError(f"expected numbers from 1 to {len(found)}, with commas between, got {text!r}")
            return [found[number - 1] for number in dict.fromkeys(numbers)]

        typer.echo(f"{noun}:")
        for number, line in enumerate(lines, 1):
            is_left = self.silent and number - 1 not in offered
            typer.echo(f"  {number}  {line}" + ("  (left out)" if is_left else ""))
        usual = ",".join(str(number + 1) for number in offered)
        only = usual if sure or len(found) == 1 else None
        return self._ask(f"Which {noun}, by numbers", f"--{noun}", only, usual, read)

    def _ask(self, question: str, option: str, given: str | None, usual: str | None, read: Callable[[str], T]) -> T:
        """Return what `read` makes of what is given, or of the answer. Raises RobustgateError where there is none."""
        text = usual if given is None and self.silent else given
        if text is None and self.silent:
            raise RobustgateError(f"nothing says this: {question}; say it: {option}")
        try:
            return read(text) if text is not None else typer.prompt(question, default=usual, value_proc=_again(read))
        except ValueError as error:
            raise RobustgateError(f"{option}: {error}") from error

    def _shown(self, path: Path) -> str:
        return str(path.relative_to(self.folder)) if path.is_relative_to(self.folder) else str(path)


def _found(folder: Path, data: Sequence[str], weights: Sequence[str]) -> tuple[list[Data], dict[Path, str | None]]:
    """Return the data, and the files of networks, each with its domain where one is named.

    Raises RobustgateError where there is none, or not what the options name.
    """
    given = _paths(folder, data, "--data")
    here = search(*(path for path, name in given.items() if name is None) if data else [folder])
    files = (
        _paths(folder, weights, "--weights") if weights else dict.fromkeys((search(folder) if data else here).networks)
    )
    sets = list(here.data)
    for path, name in given.items():
        if name is not None:
            sets += [replace(one, name=name) for one in search(path).data]
    names = [one.name for one in sets]
    problems = [f"two data sets are called {name!r}" for name in dict.fromkeys(names) if names.count(name) > 1]
    where = ", ".join(map(str, given)) or f"below {folder}"
    if not sets:
        problems.append(
            f"no data {where}: looked for folders that hold a folder of images for each class ({IMAGES}), and for "
            ".npz files with the arrays images and labels; name one: --data PATH"
        )
        problems += here.refused
    if not files:
        kinds = ", ".join(f"*{suffix}" for suffix in NETWORKS)
        problems.append(f"no weights below {folder}: looked for {kinds}; name them: --weights FILE")
    if problems:
        raise RobustgateError("\n  ".join(problems))
    for reason in here.refused:
        typer.echo(f"left out: {reason}")
    return sets, files


def _paths(folder: Path, texts: Sequence[str], option: str) -> dict[Path, str | None]:
    """Return the paths that an option gives, each with the name before its ``=``, if any."""
    found = {}
    for text in texts:
        name, equals, path = text.rpartition("=")
        if equals and not re.fullmatch(r"\w+", name, re.ASCII):
            raise RobustgateError(f"{option}: a name is made of letters, digits and '_', got {name!r}")
        place = folder / path
        if not place.exists():
            raise RobustgateError(f"{option}: no such file or folder: {place}")
        found[place] = name if equals else None
    return found


def _named_in(file: Path, data: Sequence[Data]) -> str | None:
    """Return the domain whose name is in that of a file."""
    names = [one.name for one in data if one.name.lower() in file.stem.lower()]
    return max(names, key=len, default=None)


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def _again(read: Callable[[str], T]) -> Callable[[str], T]:
    """Return `read` so that a prompt says what is wrong with an answer, and asks again."""

    def reading(text: str) -> T:
        try:
            return read(text)
        except (ValueError, RobustgateError) as error:
            raise typer.BadParameter(str(error)) from error

    return reading
