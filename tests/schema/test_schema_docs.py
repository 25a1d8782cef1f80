from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import mmdata_schema
from mmdata_schema import COLLECTIONS, Taxonomy
from mmdata_schema.base import Annotation
from mmdata_schema.taxonomy import packaged_taxonomies

PAGE = (Path(__file__).parents[2] / "docs" / "annotations.md").read_text("utf-8")
SPAN = {"start_ns", "end_ns"}


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("code", _blocks("python"))
def test_examples_run(code: str) -> None:
    exec(compile(code, "docs/annotations.md", "exec"), {})


def test_example_taxonomy_is_valid() -> None:
    (text,) = _blocks("yaml")
    assert Taxonomy.model_validate(yaml.safe_load(text)).tiers[1].parent == "task"


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_table_names_every_field(collection: str) -> None:
    (row,) = re.findall(rf"^\| `{collection}` \|.*$", PAGE, re.MULTILINE)
    cls = COLLECTIONS[collection]
    assert f"`{cls.__name__}`" in row
    if collection.startswith("tracks"):
        row += PAGE[PAGE.index("### Tracks") : PAGE.index("Between keyframes")]
    for field in set(cls.model_fields) - set(Annotation.model_fields):
        assert f"`{field}`" in row or (field in SPAN and "span" in row), field


def test_page_names_the_public_api_and_the_taxonomies() -> None:
    missing = [n for n in (*mmdata_schema.__all__, *packaged_taxonomies()) if n not in PAGE]
    assert missing == []
