"""`[policies]`: rules and waivers, what a policy inherits from another, and which policies are asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from robustgate.config.reader import Reader
from robustgate.config.values import CaseRule, Policy, RunRule, Waiver
from robustgate.core.errors import listing, nearest
from robustgate.core.records import WHERE_CASE, WHERE_VARIANT

# Each takes the other's place: what a policy says of one, it does not inherit of the other.
ONE_OF = ("prove", "on_undecided")


@dataclass(frozen=True, kw_only=True)
class _Table:
    """What the table of a policy says: its rules by their names, its waivers, and the settings beside them, unread."""

    rules: Mapping[str, CaseRule | RunRule]
    waivers: tuple[Waiver, ...]
    settings: Mapping[str, Any]
    sound: bool

    def over(self, base: _Table) -> _Table:
        """Return this table with what it inherits: a rule of the same name stands in the place of the other's."""
        own = self.settings.keys()
        inherited = {key: value for key, value in base.settings.items() if not (key in ONE_OF and own & set(ONE_OF))}
        return _Table(
            rules={**base.rules, **self.rules},
            waivers=(*base.waivers, *self.waivers),
            settings={**inherited, **self.settings},
            sound=self.sound,
        )


class PolicyReader(Reader):
    """Reads the policies of a configuration, each with what it inherits. A mistake is told once, where it stands."""

    def policies(self, tables: Mapping[str, object]) -> dict[str, Policy | None]:
        """Return each policy by its name, None for one with a mistake, or one that inherits from such."""
        own = {name: self._policy_table(table, f"policies.{name}") for name, table in tables.items()}
        found: dict[str, tuple[Policy, _Table] | None] = {}
        for name in own:
            self._inherit(name, own, found, ())
        return {name: one[0] if one is not None else None for name, one in found.items()}

    def _policy_table(self, value: object, place: str) -> _Table | None:
        table = self.table(value, place)
        if table is None:
            return None
        before = len(self.problems)
        raw_rules, raw_waivers = table.pop("rules", None), table.pop("waivers", [])
        if raw_rules is None and "extends" in table:
            raw_rules = []
        elif not isinstance(raw_rules, list) or not raw_rules:
            self.complain(place, f"has no [[{place}.rules]]: it would pass everything")
            raw_rules = []
        if not isinstance(raw_waivers, list):
            self.complain(f"{place}.waivers", f"expected [[{place}.waivers]], each a table")
            raw_waivers = []
        rules = [self._rule(rule, f"{place}.rules[{index}]") for index, rule in enumerate(raw_rules)]
        waivers = [self._waiver(waiver, f"{place}.waivers[{index}]") for index, waiver in enumerate(raw_waivers)]
        names = [rule.name for rule in rules if rule]
        for twice in sorted({rule for rule in names if names.count(rule) > 1}):
            self.complain(f"{place}.rules", f"two rules are called {twice!r}")
        if set(ONE_OF) <= table.keys():
            self.complain(f"{place}.on_undecided", "says nothing beside prove, with which no verdict is undecided")
        return _Table(
            rules={rule.name: rule for rule in rules if rule},
            waivers=tuple(waiver for waiver in waivers if waiver),
            settings=table,
            sound=len(self.problems) == before,
        )

    def _inherit(
        self,
        name: str,
        tables: Mapping[str, _Table | None],
        found: dict[str, tuple[Policy, _Table] | None],
        users: tuple[str, ...],
    ) -> tuple[Policy, _Table] | None:
        """Return a policy and its whole table, and keep both in `found`; `users` are those that inherit from it."""
        if name in users:
            circle = " → ".join([*users[users.index(name) :], name])
            self.complain(f"policies.{name}.extends", f"'extends' goes round in a circle: {circle}")
            return None
        if name not in found:
            table = tables[name]
            found[name] = None if table is None else self._whole(name, table, tables, found, users)
        return found[name]

    def _whole(
        self,
        name: str,
        table: _Table,
        tables: Mapping[str, _Table | None],
        found: dict[str, tuple[Policy, _Table] | None],
        users: tuple[str, ...],
    ) -> tuple[Policy, _Table] | None:
        place, extends = f"policies.{name}", table.settings.get("extends")
        whole = table
        sound = table.sound
        if isinstance(extends, str):
            self.known(extends, tables, f"{place}.extends", "policy")
            base = self._inherit(extends, tables, found, (*users, name)) if extends in tables else None
            sound = sound and base is not None
            whole = table.over(base[1]) if base is not None else table
        policy = self.read(
            Policy,
            whole.settings,
            place,
            name=name,
            case_rules=tuple(rule for rule in whole.rules.values() if isinstance(rule, CaseRule)),
            run_rules=tuple(rule for rule in whole.rules.values() if isinstance(rule, RunRule)),
            waivers=whole.waivers,
        )
        return (policy, whole) if sound and policy is not None else None

    def _rule(self, value: object, place: str) -> CaseRule | RunRule | None:
        table = self.table(value, place)
        if table is None:
            return None
        if "rule" not in table:
            rule = self.read(CaseRule, table, place)
            self._check_where(rule.where if rule else {}, WHERE_CASE, f"{place}.where")
            return rule
        own = {key: table.pop(key) for key in ("name", "where") if key in table}
        component = self.component("rules", table, place, key="rule")
        run_rule = self.read(RunRule, own, place, component=component)
        self._check_where(run_rule.where if run_rule else {}, WHERE_VARIANT, f"{place}.where")
        return run_rule if component is not None else None

    def _waiver(self, value: object, place: str) -> Waiver | None:
        waiver = self.read(Waiver, value, place)
        self._check_where(waiver.where if waiver else {}, WHERE_CASE, f"{place}.where")
        return waiver

    def _check_where(self, where: Mapping[str, str], known: tuple[str, ...], place: str) -> None:
        for key in where.keys() - set(known):
            self.unknown(place, key, list(known))


def choose(text: str, known: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the names of policies in a text, with commas between them, and what is wrong with them."""
    names = [name.strip() for name in text.split(",")]
    return names, list(_wrong(names, known))


def _wrong(names: list[str], known: Collection[str]) -> Iterator[str]:
    for name in dict.fromkeys(names):
        if name not in known:
            yield f"no policy {name!r}{nearest(name, known)}; known: {listing(known)}"
        elif names.count(name) > 1:
            yield f"policy {name!r} is named twice"
