"""The pages of docs/: every block of code runs, prints what the page says, and draws the page's pictures."""

import importlib.machinery
import importlib.util
import re
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

from gpunet.backend import BackendUnavailableError, get_backend

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parent.parent
PICTURE = re.compile(r"!\[[^\]]*\]\((pictures/[^)]+\.png)\)")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
NEEDS_GPU = "<!-- needs a GPU -->"  # a page that says so runs only where there is one


def load(path):
    """Import a script by its path."""
    loader = importlib.machinery.SourceFileLoader(path.stem.replace("-", "_"), str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


render_docs = load(ROOT / "scripts" / "render-docs")


def mark(page):
    """Return a page as a parameter, marked if it needs a GPU."""
    marks = pytest.mark.gpu if NEEDS_GPU in page.read_text(encoding="utf-8") else ()
    return pytest.param(page, id=page.stem, marks=marks)


PAGES = [mark(page) for page in sorted((ROOT / "docs").glob("*.md"))]


def pictures_of(page):
    return set(PICTURE.findall(page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES)
def test_page_runs_and_draws_its_pictures(page, tmp_path, monkeypatch):
    if NEEDS_GPU in page.read_text(encoding="utf-8"):
        try:
            get_backend("cupy")
        except BackendUnavailableError as error:
            pytest.skip(str(error))
    else:
        monkeypatch.setenv("GPUNET_BACKEND", "numpy")
    with threadpool_limits(1):  # for small matrices threads only get in each other's way
        render_docs.run(page, tmp_path)
    made = {f"pictures/{path.name}" for path in (tmp_path / "pictures").iterdir()}
    assert made == pictures_of(page)


@pytest.mark.parametrize("page", PAGES)
def test_the_committed_pictures_are_there_and_small(page):
    sizes = {name: (page.parent / name).stat().st_size for name in pictures_of(page)}
    assert {name: size for name, size in sizes.items() if not 0 < size < 100_000} == {}


def test_no_picture_is_left_over():
    used = set().union(*(pictures_of(page) for page in (ROOT / "docs").glob("*.md")))
    assert {f"pictures/{path.name}" for path in (ROOT / "docs/pictures").iterdir()} <= used


def anchor(heading):
    """Return GitHub's anchor for a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links_within_the_project_lead_somewhere(page):
    links = LINK.findall(CODE.sub("", page.read_text(encoding="utf-8")))
    inside = [link for link in links if not link.startswith(("http:", "https:", "mailto:"))]
    assert [link for link in inside if not leads_somewhere(page, link)] == []


def leads_somewhere(page, link):
    """Return whether a link's file is there and has the heading that it names."""
    name, _, fragment = link.partition("#")
    target = page.parent / name if name else page
    if not (target.exists() and fragment):
        return target.exists()
    prose = CODE.sub("", target.read_text(encoding="utf-8"))
    return fragment in map(anchor, re.findall(r"^#+ (.*)$", prose, re.MULTILINE))


def write(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    return page


class TestRenderDocs:
    def test_blocks_share_a_namespace_and_run_in_the_directory(self, tmp_path):
        page = write(
            tmp_path,
            "```python\nx = 1\n```\n\n```python\n>>> x += 1\n>>> x\n2\n```\n\n"
            "```python\nassert x == 2\nopen('pictures/here', 'w').close()\n```\n",
        )
        render_docs.run(page, tmp_path)
        assert (tmp_path / "pictures" / "here").exists()

    def test_other_blocks_are_left_alone(self, tmp_path):
        render_docs.run(write(tmp_path, "```sh\nexit 1\n```\n```text\n>>> 1\n2\n```\n"), tmp_path)

    def test_a_stale_output_fails(self, tmp_path):
        page = write(tmp_path, "# Title\n\n```python\n>>> 1 + 1\n3\n```\n")
        with pytest.raises(
            AssertionError, match=r'page.md", line 4(?s:.*)Expected:\s+3\s+Got:\s+2'
        ):
            render_docs.run(page, tmp_path)

    def test_a_failing_block_is_named_by_the_pages_own_line(self, tmp_path):
        page = write(tmp_path, "# Title\n\n```python\nx = 1\nassert x == 2\n```\n")
        with pytest.raises(AssertionError) as error:
            render_docs.run(page, tmp_path)
        assert error.traceback[-1].lineno + 1 == 5

    def test_an_unknown_page_is_an_error_that_lists_the_known(self):
        with pytest.raises(SystemExit, match=r"no page 'lectrue' in docs/; there are .*lecture"):
            render_docs.main(["lectrue"])
