"""robustgate.toml, or `[tool.robustgate]` of a pyproject.toml, into one checked Configuration."""

from __future__ import annotations

import hashlib
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from itertools import permutations, product
from pathlib import Path
from typing import Any

from robustgate.config.chains import ChainReader
from robustgate.config.policies import PolicyReader, choose
from robustgate.config.values import Configuration, Corruptions, Gate, Masking, Model, Pair, Shifts, Step
from robustgate.core.benchmark import BENCHMARK_CORRUPTIONS
from robustgate.core.catalog import shelf
from robustgate.core.errors import ConfigurationError, listing

TABLES = ["gate", "domains", "models", "compressions", "shifts", "attacks", "masking", "policies"]
# Given as in the file, so that they are made absolute like those that are there.
DEFAULT_PATHS = {field.name: str(field.default) for field in fields(Gate) if isinstance(field.default, Path)}
NAME = re.compile(r"[A-Za-z0-9_.]+")


def load(path: Path, *, has_weights: bool = True) -> Configuration:
    """Read and check a configuration file. Raises ConfigurationError with every mistake in it.

    Unless it `has_weights`, the weight files that it names need not be there yet.
    """
    return parse(_read(path), path, has_weights=has_weights)


def parse(content: bytes, path: Path, *, has_weights: bool = True) -> Configuration:
    """Check what a configuration file at `path` holds, or would hold; raises as `load` does."""
    document = _tables(content, path)
    if path.name == "pyproject.toml":
        document = document.get("tool", {}).get("robustgate", {})
        if not document:
            raise ConfigurationError([f"{path}: has no table [tool.robustgate]"])
    loader = _Loader(document, path.absolute(), has_weights=has_weights)
    configuration = loader.configuration(hashlib.sha256(content).hexdigest())
    if loader.problems or configuration is None:
        raise ConfigurationError(loader.problems, source=str(path))
    return configuration


def find(folder: Path) -> Path | None:
    """Return the robustgate.toml of `folder`, or its pyproject.toml if that has a [tool.robustgate] table.

    Raises ConfigurationError for a pyproject.toml that cannot be read.
    """
    own = folder / "robustgate.toml"
    if own.is_file():
        return own
    project = folder / "pyproject.toml"
    if project.is_file() and "robustgate" in _tables(_read(project), project).get("tool", {}):
        return project
    return None


def _read(path: Path) -> bytes:
    """Return a file's bytes. Raises ConfigurationError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigurationError([f"{path}: no such file"]) from None
    except OSError as error:
        raise ConfigurationError([f"{path}: cannot be read: {error.strerror}"]) from error


def _tables(content: bytes, path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file. Raises ConfigurationError."""
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError([f"{path}: not valid TOML: {error}"]) from error


def expose(source: Path) -> None:
    """Let modules beside a configuration be imported, which it may name; last, so that they hide nothing."""
    folder = str(source.absolute().parent)
    if folder not in sys.path:
        sys.path.append(folder)


class _Loader(ChainReader, PolicyReader):
    """Reads one document, table by table, then checks the names that one table uses of another."""

    def __init__(self, document: Mapping[str, Any], source: Path, *, has_weights: bool) -> None:
        super().__init__(source.parent)
        self.document = document
        self.source = source
        self.has_weights = has_weights

    def configuration(self, sha256: str) -> Configuration | None:
        for key in self.document.keys() - set(TABLES):
            self.unknown("", key, TABLES)
        given = self.table(self.document.get("gate", {}), "gate")
        gate = self.read(Gate, DEFAULT_PATHS | given, "gate") if given is not None else None
        domains = {
            name: self.component("domains", table, place, key="kind") for name, table, place in self.tables("domains")
        }
        models = {name: self.read(Model, table, place) for name, table, place in self.tables("models")}
        for name, model in models.items():
            if model is not None:
                self.check_weights(model, f"models.{name}.weights", domains)
        tables = self.with_preset(self.table(self.document.get("compressions", {}), "compressions") or {})
        compressions = self.chains({name: table for name, table, _ in self.tables("compressions", tables)}, models)
        self.check_domains(compressions, domains)
        shifts = self.read(Shifts, self.document.get("shifts", {}), "shifts")
        named = {name: self.attack(table, place) for name, table, place in self.tables("attacks")}
        attacks, unions = self.unions(named)
        masking = self.read(Masking, self.document.get("masking", {}), "masking")
        policies = self.policies({name: table for name, table, _ in self.tables("policies")})
        for required in ("domains", "models", "policies"):
            if not self.document.get(required):
                self.complain("", f"missing table [{required}.<name>]: without it there is nothing to gate")
        sources = {source for model in models.values() if model for source in model.weights}
        pairs = self.pairs(shifts, domains, sources) if shifts else ()
        matchings = {(pair.source, pair.target): pair for pair in pairs}
        corruptions = self.corruptions(shifts.corruptions) if shifts and shifts.corruptions else {}
        if shifts and shifts.corruptions:
            self.check_stored(shifts.corruptions, corruptions, domains, sources)
        if gate and gate.policy is not None:
            for problem in choose(gate.policy, policies)[1]:
                self.complain("gate.policy", problem)
        if self.problems or gate is None or shifts is None or masking is None:
            return None
        return Configuration(
            source=self.source,
            sha256=sha256,
            gate=gate,
            domains=domains,
            models={name: model for name, model in models.items() if model},
            compressions=compressions,
            pairs=tuple((pair.source, pair.target) for pair in pairs),
            matchings=matchings,
            corruptions=corruptions,
            severities=shifts.corruptions.severities if shifts.corruptions else (),
            stored=shifts.corruptions.stored if shifts.corruptions else {},
            attacks=attacks,
            unions=unions,
            masking=masking,
            policies={name: policy for name, policy in policies.items() if policy},
        )

    def tables(self, key: str, tables: Mapping[str, Any] | None = None) -> list[tuple[str, Any, str]]:
        """Return (name, table, place) for each named table below `key`."""
        tables = self.table(self.document.get(key, {}), key) or {} if tables is None else tables
        for name in tables:
            if not NAME.fullmatch(name):
                self.complain(f"{key}.{name}", "a name is made of letters, digits, '_' and '.': it goes into test ids")
        return [(name, table, f"{key}.{name}") for name, table in tables.items()]

    def check_weights(self, model: Model, place: str, domains: Mapping[str, object]) -> None:
        if not model.weights:
            self.complain(place, "is empty: name a weight file for at least one source domain")
        for domain, file in model.weights.items():
            self.known(domain, domains, f"{place}.{domain}", "domain")
            self.check_clean(domain, domains, f"{place}.{domain}")
            if self.has_weights and not file.is_file():
                self.complain(f"{place}.{domain}", f"no such file: {file}")

    def check_domains(self, compressions: Mapping[str, tuple[Step, ...]], domains: Mapping[str, object]) -> None:
        """Complain of domains that a training looks at, and that are not there or hold no clean images."""
        for name, steps in compressions.items():
            for domain in dict.fromkeys(domain for step in steps for domain in step.domains):
                self.known(domain, domains, f"compressions.{name}", "domain")
                self.check_clean(domain, domains, f"compressions.{name}")

    def attack(self, value: object, place: str) -> Any:
        """Return an attack; of a library's, ``method = "library:name"`` names the library and its attack."""
        table = self.table(value, place)
        if table is None:
            return None
        method = table.get("method")
        if isinstance(method, str) and ":" in method:
            library, _, name = method.partition(":")
            if "attack" in table:
                self.complain(f"{place}.attack", f"the attack is named twice: method = {method!r} says {name!r}")
            table |= {"method": library, "attack": name}
        component = self.component("attacks", table, place, key="method")
        self.check_extra(component, method, place)
        return component

    def unions(self, named: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the attacks, and the unions of some of them; a union of unions would only say the same twice."""
        unions = {name: one for name, one in named.items() if hasattr(one, "attacks")}
        attacks = {name: one for name, one in named.items() if name not in unions}
        for name, union in unions.items():
            for joined in union.attacks:
                if joined in unions:
                    self.complain(f"attacks.{name}.attacks", f"{joined!r} is a union itself: name what it joins")
                else:
                    self.known(joined, attacks, f"attacks.{name}.attacks", "attack")
        return attacks, unions

    def pairs(self, shifts: Shifts, domains: Mapping[str, object], sources: set[str]) -> tuple[Pair, ...]:
        if shifts.pairs == "all":
            clean = [name for name, domain in domains.items() if not _is_stored(domain)]
            return tuple(Pair(source=one, target=other) for one, other in permutations(clean, 2) if one in sources)
        pairs = tuple(pair if isinstance(pair, Pair) else Pair(source=pair[0], target=pair[1]) for pair in shifts.pairs)
        for index, pair in enumerate(pairs):
            for name in (pair.source, pair.target):
                self.known(name, domains, f"shifts.pairs[{index}]", "domain")
                self.check_clean(name, domains, f"shifts.pairs[{index}]")
            if pair.source == pair.target:
                self.complain(f"shifts.pairs[{index}]", f"a pair needs two domains, got {pair.source!r} twice")
        return pairs

    def corruptions(self, table: Corruptions) -> dict[str, Any]:
        place = "shifts.corruptions.names"
        on_shelf = shelf("corruptions").names
        names = {"benchmark": BENCHMARK_CORRUPTIONS, "all": on_shelf}.get(str(table.names), table.names)
        if table.names == "benchmark" and (missing := set(names) - set(on_shelf)):
            self.complain(
                place, f'"benchmark" is the fifteen published corruptions; not on the shelf yet: {listing(missing)}'
            )
            return {}
        return {name: self.component("corruptions", {"name": name}, place, key="name") for name in names}

    def check_clean(self, name: str, domains: Mapping[str, object], place: str) -> None:
        """Complain of a stored benchmark where a domain of clean images is meant."""
        if _is_stored(domains.get(name)):
            how = "stored = { <source domain> = <this one> }"
            self.complain(place, f"{name!r} holds corrupted images only: name it in shifts.corruptions, {how}")

    def check_stored(
        self, table: Corruptions, names: Iterable[str], domains: Mapping[str, Any], sources: set[str]
    ) -> None:
        """Complain of stored benchmarks that are none, and of the first corruption that one of them lacks."""
        benchmarks = {name: domain for name, domain in domains.items() if domain is None or _is_stored(domain)}
        for source, name in table.stored.items():
            place = f"shifts.corruptions.stored.{source}"
            self.known(source, dict.fromkeys(sources), place, "source domain")
            self.known(name, benchmarks, place, "domain of corrupted images")
            if benchmark := benchmarks.get(name):
                lacking = (benchmark.missing(*wanted) for wanted in product(names, table.severities))
                if problem := next(filter(None, lacking), None):
                    self.complain(place, f"domains.{name}: {problem}")


def _is_stored(domain: object) -> bool:
    """Say whether a domain is a stored benchmark, of corrupted images and no clean ones."""
    return hasattr(domain, "corrupted")
