"""Licences as the Hub's metadata has them, and what a base model says of its own.

The Hub knows a list of identifiers (huggingface.co/docs/hub/repositories-licenses); any other
licence is ``other`` with a name. What nobody said is ``unknown``, which the Hub accepts too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

_IDS = """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
    bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause
    bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0
    cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0
    cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1
    agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by
    odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr
    deepfloyd-if-license llama2 gemma unknown other
"""
KNOWN = frozenset(_IDS.split())
_FRONT = re.compile(r"\A---\r?\n(.*?)\r?\n---", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """A licence and who says so.

    Attributes:
        id: identifier of the Hub; ``other`` for a licence that has none, ``unknown`` for none.
        name, link: of a licence without an identifier.
        source: where it was said, as a card may put it.
    """

    id: str = "unknown"
    name: str = ""
    link: str = ""
    source: str = ""

    def metadata(self) -> dict[str, str]:
        """Keys of a card's metadata."""
        found = {"license": self.id, "license_name": self.name, "license_link": self.link}
        return {key: value for key, value in found.items() if value}


def licence(wanted: str, link: str = "", *, source: str = "") -> Licence:
    """A licence by whatever name: an identifier in any case, or a name of its own."""
    plain = wanted.strip()
    if not plain:
        return Licence()
    if plain.lower() in KNOWN - {"other"}:
        return Licence(id=plain.lower(), link="", source=source)
    name = re.sub(r"[^a-z0-9.+-]+", "-", plain.lower()).strip("-")
    return Licence(id="other", name=name or "custom", link=link, source=source)


def of_base(name: str, folder: Path | None) -> Licence:
    """What a base model says of its licence: its card, or the package that holds it.

    Args:
        name: as a recipe has it.
        folder: where its files lie on this machine, if they do.
    """
    if name.startswith("pip:"):
        package = name.removeprefix("pip:")
        said = _of_package(package)
        found = licence(said, source=f"the package `{package}`") if said else Licence()
        return found if found.id != "other" else Licence()
    if folder is None or not (folder / "README.md").is_file():
        return Licence()
    front = front_matter((folder / "README.md").read_text(encoding="utf-8", errors="replace"))
    said = str(front.get("license") or "")
    if said.lower() == "other" and front.get("license_name"):
        said = str(front["license_name"])
    source = "the card of the base model"
    return licence(said, str(front.get("license_link") or ""), source=source) if said else Licence()


def front_matter(card: str) -> dict[str, Any]:
    """The metadata of a card; empty where it has none."""
    match = _FRONT.match(card)
    try:
        found = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _of_package(package: str) -> str:
    try:
        about: Any = metadata.metadata(package)
    except metadata.PackageNotFoundError:
        return ""
    said = about.get("License-Expression") or about.get("License") or ""
    return said if "\n" not in said and len(said) < 60 else ""
