"""Checks the built site: `python -m ci.check_site build/site` prints each fault, exits 1."""

import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """What the page at `path` links to, what can be linked to in it, and the objects it describes.

    Attributes:
        links: values of `href` and `src`, with `#fragment` where they have one.
        anchors: values of `id` and `name`.
        objects: how many functions, classes and methods it describes.
        responsive: whether a phone is told to show it at the phone's width.
    """

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors, self.objects, self.responsive = [], set(), 0, False
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.links += [found[key] for key in ("href", "src") if found.get(key)]
        self.anchors |= {found[key] for key in ("id", "name") if found.get(key)}
        self.objects += tag == "dt" and "sig-object" in (found.get("class") or "")
        self.responsive |= tag == "meta" and found.get("name") == "viewport"


def check_site(site):
    """Faults of the pages under the folder `site`."""
    page = cache(Page)
    for path in sorted(site.rglob("*.html")):
        name = path.relative_to(site)
        for link in page(path).links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path.parent / unquote(parts.path) if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                yield f"{name}: nothing is at {link}."
            elif target.suffix == ".html" and parts.fragment:
                if unquote(parts.fragment) not in page(target).anchors:
                    yield f"{name}: {link} names no part of its page."
        if not page(path).responsive:
            yield f"{name}: a phone would show the page as wide as a desk's."
        if name.parent.name == "api" and not page(path).objects:
            yield f"{name}: the page describes nothing."


def main():
    site = Path(sys.argv[1])
    faults = list(check_site(site))
    count = len(list(site.rglob("*.html")))
    print(*faults, f"{count} pages checked, {len(faults)} faults.", sep="\n")
    return bool(faults) or not count


if __name__ == "__main__":
    sys.exit(main())
