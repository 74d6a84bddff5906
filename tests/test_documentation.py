"""Links between pages lead somewhere, and the reference has every public name."""

import re
from pathlib import Path

import pytest

import bbvi

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in LINK.findall(CODE.sub("", page.read_text())):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


def test_reference_has_every_public_name():
    text = "".join(page.read_text() for page in ROOT.glob("docs/reference/*.md"))
    named = {name.rpartition(".")[2] for name in re.findall(r"^\.\. auto\w+:: (\S+)$", text, flags=re.MULTILINE)}
    assert set(bbvi.__all__) - named == set()
    assert set(bbvi.curvature.__all__) - named == {"grad", "hessian"}  # those of JAX
