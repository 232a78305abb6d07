"""The report: one page that needs nothing but itself."""

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from vicinal.reports.svg import COLORS_DARK, COLORS_LIGHT, Picture
from vicinal.reports.wording import (
    DIFFERENCES,
    PUBLISHED,
    PUBLISHED_CAPTION,
    PUBLISHED_HEADING,
    SPLITS,
    WORST,
    answer,
    caption,
    data_notes,
    differences,
    heading,
    lines,
    published_lines,
    recall_table,
    remarks,
    split_lines,
)


def page(
    summary: Mapping[str, Any],
    *,
    recipe_text: str,
    machines: Sequence[Mapping[str, str]],
    accuracy: Picture,
    memorization: Sequence[Picture],
    curves: Sequence[tuple[str, Sequence[Picture]]],
    examples: Picture | None,
) -> str:
    """Return the page as HTML: the answer first, then what it rests on.

    Args:
        summary: of the study.
        recipe_text: the recipe as resolved, in TOML.
        machines: what the trials ran on, each kind once.
        accuracy: the picture of the answer.
        memorization: one picture for each condition with wrong labels.
        curves: for each condition its name and its learning curves.
        examples: the strip of blended examples, where an arm mixes.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vicinal.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        study=summary["study"],
        answer=answer(summary),
        caption=caption(summary),
        heading=heading(summary),
        lines=lines(summary),
        remarks=remarks(summary),
        splits_heading=SPLITS,
        split_lines=split_lines(summary),
        data_notes=data_notes(summary),
        recalls=recall_table(summary),
        worst=WORST,
        published_title=PUBLISHED,
        published_heading=PUBLISHED_HEADING,
        published_lines=published_lines(summary),
        published_caption=PUBLISHED_CAPTION,
        differences_title=DIFFERENCES,
        differences=differences(summary),
        recipe=recipe_text,
        versions=summary["versions"],
        machines=machines,
        accuracy=accuracy,
        memorization=memorization,
        curves=curves,
        examples=examples,
        light=COLORS_LIGHT,
        dark=COLORS_DARK,
    )
