"""What a release is made of agrees: versions, the citation, the forms for issues."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import asrkern

ROOT = Path(__file__).parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
[VERSION] = re.findall(r'^version = "(.+)"$', PROJECT, re.MULTILINE)
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))


def test_the_version_of_pyproject_is_the_one_that_is_installed() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc|\.dev)\d+)?", VERSION)
    assert asrkern.__version__ == VERSION, "install again: pip install --no-build-isolation --no-deps -e ."


def test_no_other_file_has_a_version_of_its_own() -> None:
    for path in (*ROOT.glob("asrkern/**/*.py"), ROOT / "setup.py", ROOT / "CMakeLists.txt"):
        text = path.read_text("utf-8")
        assert not re.search(r"^(__version__|VERSION|version) *= *[\"']\d", text, re.MULTILINE), path


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == VERSION
    assert f'license = "{citation["license"]}"' in PROJECT
    # What the format 1.2.0 asks for.
    assert citation["cff-version"] == "1.2.0" and citation["authors"][0]["name"]
    assert citation["message"] and citation["title"].startswith("asrkern")


def test_the_changelog_knows_the_version_that_was_released() -> None:
    """The newest version with a date is this one, or the one before it while changes wait."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    released = [heading for heading in headings if heading != "Unreleased"]
    assert headings.index("Unreleased") == 0
    for heading in released:
        assert re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", heading), heading
    newest, _, date = released[0].partition(" - ")
    assert newest == VERSION
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["date-released"].isoformat() == date
    assert len(set(released)) == len(released) and released == sorted(released, key=numbers, reverse=True)


def numbers(heading: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", heading)]


def test_what_a_version_brought_is_under_the_usual_headings() -> None:
    """Each once, in the order of Keep a Changelog's page, with something below it."""
    kinds = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    for version in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        found = re.findall(r"^### (.+)\n- ", version, re.MULTILINE)
        assert found == [kind for kind in kinds if kind in found]
        assert len(found) == version.count("\n### ")
        # Nothing stands outside of them.
        assert found or not version.partition("\n")[2].strip()


def test_strangers_find_what_github_shows_them() -> None:
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "LICENSE",
        ".github/PULL_REQUEST_TEMPLATE.md",
    ):
        assert (ROOT / name).read_text("utf-8").strip(), name
    assert "config.yml" in [path.name for path in FORMS] and len(FORMS) > 1


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_forms_are_what_github_reads(path: Path) -> None:
    form = yaml.safe_load(path.read_text("utf-8"))
    if path.name == "config.yml":
        assert form["blank_issues_enabled"] is True
        return
    assert form["name"] and form["description"]
    assert len({field["id"] for field in form["body"]}) == len(form["body"])
    for field in form["body"]:
        assert field["type"] == "textarea" and field["attributes"]["label"]


def test_a_bug_comes_with_a_report() -> None:
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text("utf-8"))
    [report] = [field for field in form["body"] if field["id"] == "report"]
    assert "`python -m asrkern report`" in report["attributes"]["description"]
    assert report["validations"]["required"]
    # It is a block of Markdown already.
    assert "render" not in report["attributes"]
