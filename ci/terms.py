"""The key terms that chapters list at their end, in English and Korean."""

import re

import nbformat

LINE = re.compile(r"^\*\*Key terms\*\*: (.+)\.$", re.MULTILINE)
TERM = re.compile(r"([^()]+?) \(([^()]+)\)(?:, |$)")


def key_terms(prose):
    """(English, Korean) of each term in the line `**Key terms**: mask (마스크), ....`.

    Raises:
        ValueError: there is no such line, or something in it is no term with its translation.
    """
    line = LINE.search(prose)
    if not line or TERM.sub("", line[1]):
        raise ValueError("There is no line `**Key terms**: mask (마스크), …` of terms like this.")
    return TERM.findall(line[1])


def glossary(paths):
    """The names of chapters by English and Korean term, in the order of the alphabet.

    Args:
        paths: of notebooks.
    """
    found = {}
    for path in paths:
        cells = nbformat.read(path, as_version=4).cells
        prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
        for term in key_terms("\n\n".join(prose)):
            found.setdefault(term, []).append(path.stem)
    return dict(sorted(found.items(), key=lambda item: item[0][0].lower()))


def two_translations(terms):
    """A sentence for each English term of a `glossary` that has several Korean ones."""
    korean = {}
    for english, translation in terms:
        korean.setdefault(english, []).append(translation)
    for english, several in korean.items():
        if len(several) > 1:
            yield f"The chapters translate the key term {english!r} as {' and '.join(several)}."
