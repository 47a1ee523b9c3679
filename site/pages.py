"""What the site changes in chapters and docstrings before Sphinx reads them."""

import json
import re

COLAB = "https://colab.research.google.com"


def stamped(notebook, repository):
    """The text of a chapter whose Colab cell installs from `repository`, GitHub's `owner/name`."""
    folder = repository.rpartition("/")[2]
    return notebook.replace("OWNER/cvlib", repository).replace("%cd cvlib", f"%cd {folder}")


def badge(name, repository):
    """Markdown that opens the stamped chapter `name`, on the branch of the site, in Colab."""
    link = f"{COLAB}/github/{repository}/blob/gh-pages/course/{name}.ipynb"
    return f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({link})"


def page(notebook, name, repository=None):
    """The text of a chapter as the site shows it.

    Code that the notebook hides is folded; the Colab cell and marks for nbval are left out; the
    badge, where the repository is known, stands below the title.
    """
    book = json.loads(notebook.replace("# NBVAL_CHECK_OUTPUT\\n", ""))
    for cell in book["cells"]:
        tags = cell["metadata"].setdefault("tags", [])
        if "google.colab" in "".join(cell["source"]):
            tags.append("remove-cell")
        elif cell["metadata"].get("jupyter", {}).get("source_hidden"):
            tags.append("hide-input")
    if repository:
        title, _, rest = "".join(book["cells"][0]["source"]).partition("\n")
        book["cells"][0]["source"] = f"{title}\n\n{badge(name, repository)}\n{rest}"
    return json.dumps(book)


def terms_table(glossary):
    """A `ci.terms.glossary` as a table, each term with links to its chapters."""
    rows = ["| term | in Korean | chapters |", "|---|---|---|"]
    for (english, korean), found in glossary.items():
        links = ", ".join(f"{{doc}}`{stem[:2]} <course/{stem}>`" for stem in found)
        rows.append(f"| {english} | {korean} | {links} |")
    return "\n".join([*rows, ""])


def restructured(lines):
    """A docstring's lines, with what is Markdown in them as reStructuredText."""
    text = re.sub(r"(?:^ *\|.*\n)+", _list_table, "\n".join([*lines, ""]), flags=re.M)
    # Code is what stands deeper than the lines before it, after an empty one.
    text = re.sub(r"^( *)(\S.*)\n\n(?=\1 {4})", r"\1\2\n\n\1::\n\n", text, flags=re.M)
    text = re.sub(r"`([^`]+)`(\w?)", _literal, text)
    return text.replace("**kwargs", r"\*\*kwargs").split("\n")


def _literal(span):
    # Google's sections end at the first colon of a line that stands in no code.
    ending = f"\\ {span[2]}" if span[2] else ""
    return f"``{' '.join(span[1].split())}``{ending}"


def _list_table(table):
    rows = table[0].splitlines()
    indent = " " * rows[0].index("|")
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in [rows[0], *rows[2:]]:
        first, *others = (cell.strip() for cell in row.strip().strip("|").split("|"))
        lines += [f"   * - {first}", *(f"     - {cell}" for cell in others)]
    return "".join(f"{indent}{line}\n" for line in lines)
