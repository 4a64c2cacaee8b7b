"""List of the versions of a site, one folder each.

    python docs/site_versions.py site

writes, for the folders in `site` that hold a built version, `versions.js` for the choice in the
sidebar and an `index.html` that leads to the newest version.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from packaging.version import InvalidVersion, Version

INDEX = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>preceptor</title>
<meta http-equiv="refresh" content="0; url={name}/index.html">
<p><a href="{name}/index.html">preceptor {name}</a></p>
</html>
"""


def built_versions(site: Path) -> list[Version]:
    """Versions that have a folder with an index page, the newest first.

    A release comes before all pre-releases, as in pip.
    """
    found = [
        version
        for folder in site.iterdir()
        if (folder / "index.html").is_file() and (version := _version(folder.name)) is not None
    ]
    return sorted(found, key=lambda one: (not one.is_prerelease, one), reverse=True)


def write_list(site: Path) -> list[Version]:
    """Write `versions.js` and `index.html`.

    Args:
        site: Folder of the site.

    Raises:
        ValueError: `site` holds no built version.
    """
    versions = built_versions(site)
    if not versions:
        raise ValueError(f"{site} holds no folder named like a version with an index.html in it")
    listed = [{"name": str(one), "pages": _pages(site / str(one))} for one in versions]
    text = f"window.siteVersions = {json.dumps(listed)};\n"
    (site / "versions.js").write_text(text, encoding="utf-8")
    (site / "index.html").write_text(INDEX.format(name=versions[0]), encoding="utf-8")
    return versions


def _version(name: str) -> Version | None:
    """Version that a folder is named after in its normal form."""
    try:
        version = Version(name)
    except InvalidVersion:
        return None
    return version if str(version) == name else None


def _pages(folder: Path) -> list[str]:
    """Names of the pages, as Sphinx has them."""
    return sorted(
        page.relative_to(folder).with_suffix("").as_posix()
        for page in folder.rglob("*.html")
        if not page.relative_to(folder).parts[0].startswith("_")
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path, help="folder of the site")
    print(", ".join(map(str, write_list(parser.parse_args().site))))
