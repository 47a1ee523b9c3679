import pytest

from ci.check_site import check_site

HEAD = '<meta name="viewport" content="width=device-width">'
FUNCTION = '<dt class="sig sig-object py" id="f">f</dt>'


@pytest.fixture
def site(tmp_path):
    (tmp_path / "api").mkdir()
    (tmp_path / "index.html").write_text(f'{HEAD}<a href="api/f.html#f">f</a><a href="#top">up</a>')
    (tmp_path / "api" / "f.html").write_text(
        f'{HEAD}{FUNCTION}<a href="../index.html">home</a><a href="https://keras.io">Keras</a>'
    )
    index = tmp_path / "index.html"
    index.write_text(index.read_text() + '<p id="top">')
    return tmp_path


def test_a_whole_site_has_no_fault(site):
    assert list(check_site(site)) == []


@pytest.mark.parametrize(
    "page, fault",
    [
        ('<a href="gone.html">x</a>', "nothing is at gone.html"),
        ('<img src="_images/gone.png">', "nothing is at _images/gone.png"),
        ('<a href="api/f.html#g">x</a>', "api/f.html#g names no part"),
        ('<a href="#gone">x</a>', "#gone names no part"),
        ('<a href="api/">x</a>', "nothing is at api/"),
    ],
)
def test_what_a_link_misses_is_named(site, page, fault):
    (site / "new.html").write_text(HEAD + page)
    (found,) = check_site(site)
    assert found.startswith("new.html: ") and fault in found


def test_a_page_of_the_api_describes_something_and_fits_a_phone(site):
    (site / "api" / "f.html").write_text('<p id="f">')
    assert [fault.partition(": ")[2] for fault in check_site(site)] == [
        "a phone would show the page as wide as a desk's.",
        "the page describes nothing.",
    ]
