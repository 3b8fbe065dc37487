"""Artifacts handed over for deployment, each with a card that says what it is and how it was made."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from robustgate.core.files import write_whole
from robustgate.core.records import Variant, VariantRecord
from robustgate.engine.artifacts import FACTS, Foundry
from robustgate.engine.store import SEAL

CARD = "card.json"
CARD_SCHEMA = "robustgate/card/1"


def export(foundry: Foundry, variant: Variant, record: VariantRecord, folder: Path) -> Path:
    """Copy a built variant and its card into ``folder/<variant's name>``, and return that folder.

    The folder is there whole or not at all; one of an earlier export is replaced. The card is JSON: the recipe with
    every parameter, the hashes of weights, data and source code that went in, the versions, and the artifact's
    figures.
    """
    place = folder / variant.name
    kept = foundry.artifact(variant).folder
    temporary = folder / f".{variant.name}.writing"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    files = sorted(file for file in kept.iterdir() if file.name not in (SEAL, FACTS))
    for file in files:
        shutil.copyfile(file, temporary / file.name)
    seal: dict[str, Any] = json.loads((kept / SEAL).read_text(encoding="utf-8"))
    card = {
        "schema": CARD_SCHEMA,
        "variant": {"name": variant.name, **variant.fields},
        "files": {file.name: seal["files"][file.name] for file in files},
        "figures": {key: value for key, value in asdict(record).items() if key not in ("name", *variant.fields)},
        "recipe": foundry.recipe(variant),
        "made_from": seal["identity"],
    }
    write_whole(temporary / CARD, json.dumps(card, indent=1))
    shutil.rmtree(place, ignore_errors=True)
    temporary.rename(place)
    return place
