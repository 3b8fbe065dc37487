"""`robustgate train`: weights of a configured model, by a recipe."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from os.path import relpath
from pathlib import Path
from typing import Annotated, Any

import typer

from robustgate.cli.completion import models, recipes, sources
from robustgate.cli.configuration import ConfigOption, configured
from robustgate.cli.lessons import Lessons
from robustgate.cli.refusal import refusal
from robustgate.config.reader import Reader
from robustgate.core.components import Recipe
from robustgate.core.errors import CompressionError, ConfigurationError, RobustgateError, listing, nearest
from robustgate.core.files import write_whole
from robustgate.reports import figures


def train(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model.", autocompletion=models)],
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The domain that it learns.", autocompletion=sources)],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where its weights go: .safetensors.")],
    recipe: Annotated[str, typer.Option(metavar="NAME", autocompletion=recipes)] = "supervised",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A key of the recipe, as in TOML.")
    ] = None,
    config: ConfigOption = None,
    scratch: Annotated[bool, typer.Option("--scratch", help="Begin with fresh weights; none need be there.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
) -> None:
    """Train a model from its weights. What was broken off goes on.

    Exit status: 0 written, 1 training failed, 4 bad input.

    Example: robustgate train vgg amazon --set epochs=3 --out vgg.safetensors
    """
    try:
        configuration = configured(config, has_weights=not scratch)
        if model not in configuration.models:
            known = configuration.models
            raise RobustgateError(f"no model {model!r}{nearest(model, known)}; known: {listing(known)}")
        check_free(out, force=force)
        if out.suffix != ".safetensors":
            raise RobustgateError(f"--out: expected a file *.safetensors, got {out}")
        chosen = read_recipe(recipe, settings or ())
        from robustgate.engine.weights import check_trainable, train_weights

        check_trainable(configuration, model, source, chosen, scratch=scratch)
    except RobustgateError as error:
        raise refusal(error) from error
    try:
        with Lessons() as lessons:
            trained = train_weights(configuration, model, source, chosen, scratch=scratch, pupil=lessons)
    except RobustgateError as error:
        raise refusal(error, 1 if isinstance(error, CompressionError) else 4) from error
    from safetensors.torch import save

    content = save(dict(trained.state))
    write_whole(out, content)
    how = "trained by an earlier call" if trained.kept else "trained"
    typer.echo(f"{out}: {how}, {figures.size(len(content))}")
    place = Path(relpath(out, configuration.source.parent)).as_posix()
    typer.echo(f'[models.{model}.weights]\n{source} = "{place}"')


def check_free(path: Path, *, force: bool) -> None:
    """Raise RobustgateError where there is a file that nobody asked to overwrite."""
    if path.exists() and not force:
        raise RobustgateError(f"{path} is there already; --force overwrites it")


def read_recipe(name: str, settings: Sequence[str]) -> Recipe:
    """Return the recipe of that name with these settings, ``key=value`` as in TOML. Raises ConfigurationError."""
    for one in settings:
        parsed(one, "--set")
    return made({**parsed("\n".join(settings), "--set"), "recipe": name})


def made(table: Mapping[str, Any]) -> Recipe:
    """Return the recipe that a table names. Raises ConfigurationError with every mistake in it."""
    reader = Reader(Path.cwd())
    recipe: Recipe = reader.component("training", table, "recipe", key="recipe", default="supervised")
    if reader.problems:
        raise ConfigurationError(reader.problems)
    return recipe


def parsed(text: str, option: str) -> dict[str, Any]:
    """Return what a text of TOML says. Raises ConfigurationError, which names the option that has it."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem = f"{option} {text!r}: expected key=value as in TOML: {error}; a text stands in quotes: key='\"text\"'"
        raise ConfigurationError([problem]) from error
