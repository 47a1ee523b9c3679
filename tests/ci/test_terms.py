import pytest
from chapters import write_chapter
from pages import terms_table

from ci.terms import glossary, key_terms, two_translations

LINE = "**Key terms**: mask (마스크), mean IoU, mIoU (평균 IoU)."


def test_terms_of_a_line():
    assert key_terms(f"Words.\n\n{LINE}\n\nMore.") == [
        ("mask", "마스크"),
        ("mean IoU, mIoU", "평균 IoU"),
    ]


@pytest.mark.parametrize(
    "prose",
    [
        "mask (마스크).",
        "**Key terms**: mask (마스크)",
        "**Key terms**: mask.",
        "**Key terms**: mask (마스크), box.",
        "**Key terms**: mask (마스크) · box (상자).",
    ],
)
def test_other_lines_are_refused(prose):
    with pytest.raises(ValueError, match="Key terms"):
        key_terms(prose)


def test_the_glossary_of_two_chapters(tmp_path):
    paths = [
        write_chapter(tmp_path, LINE, name="03_pose.ipynb"),
        write_chapter(tmp_path, "**Key terms**: box (상자), mask (가면).", name="04_box.ipynb"),
    ]
    found = glossary(paths)
    assert list(found) == [
        ("box", "상자"),
        ("mask", "마스크"),
        ("mask", "가면"),
        ("mean IoU, mIoU", "평균 IoU"),
    ]
    assert found["mask", "가면"] == ["04_box"]
    (sentence,) = two_translations(found)
    assert sentence == "The chapters translate the key term 'mask' as 마스크 and 가면."
    assert "| box | 상자 | {doc}`04 <course/04_box>` |" in terms_table(found)
