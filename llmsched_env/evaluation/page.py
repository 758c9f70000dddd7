"""HTML pages that need nothing beside them, in one style."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def write_page(path: str | Path, template: str, package: str = __package__, **values: Any) -> Path:
    """Render a template to a file that loads nothing from elsewhere, so it can be mailed or archived.

    Args:
        path: the HTML file.
        template: name of a template in the folder `templates` of `package`; it may extend `base.html.j2`.
        package: where it is.
        values: what the template refers to.

    Returns:
        `path`.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(__package__)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(environment.get_template(template).render(**values), encoding="utf-8")
    return path


def svg_source(svg: str) -> str:
    """What an image's `src` is for a picture to be inside the page."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
