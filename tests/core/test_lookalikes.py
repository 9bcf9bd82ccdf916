"""Names whose letters are of several scripts that look alike, and names as people write them."""

import pytest

from app.core.lookalikes import latin_reading, plainly_written, written_alike

pytestmark = pytest.mark.found("A12")


@pytest.mark.parametrize(
    "name",
    [
        *("аdmin", "admіn", "аdmіn", "ΑDMIN", "ADMIΝ", "admіn team", "public\u0430", "рublic", "Οwner", "sales оps"),
        *("а team", "team сор", "ԁata", "ꓮdmin", "Ꭺdmin", "օwner", "а\u200bdmin", "а\u0301dmin", "full width ａdmіn"),
        *("данные1х2a", "Кaтя", "αdmin", "ｆｕｌｌ аdmin", "x_аdmin", "АВС reports"),
    ],
)
def test_what_mixes_scripts_that_look_alike_is_refused(name: str) -> None:
    assert [fault.code for fault in written_alike(name, "name")] == ["mixed_scripts"]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "admin",
            "Größe",
            "naïve café",
            "Zoë",
            "Продажи",
            "Отдел продаж",
            "Продажи CRM",
            "CRM и сайт",
            "Ελλάδα",
            "Ελλάδα EU",
        ),
        *(
            "売上データ",
            "データbase",
            "部門A",
            "營業ㄅ",
            "한국어 팀",
            "한국팀A",
            "مبيعات",
            "מכירות",
            "ฝ่ายขาย",
            "विक्रय",
            "தமிழ்",
            "Հայերեն",
        ),
        *(
            "team-отдел",
            "crm_продажи",
            "Q4 отчёт",
            "α-тест",
            "µ-service",
            "Łódź",
            "Đà Nẵng",
            "İstanbul",
            "ǅ",
            "人々",
            "ラーメン",
        ),
        *("№ 5", "naïve", "😀 team", "m²", "10 Ω", "сахар", "оса", ""),
    ],
)
def test_what_people_write_is_taken(name: str) -> None:
    assert list(written_alike(name, "name")) == []


@pytest.mark.parametrize(
    ("name", "reading"),
    [
        ("асе", "ace"),
        ("ΝΕΑΤ", "neat"),
        ("ꓮꓓꓟꓲꓠ", "admin"),
        ("АСЕ ТЕАМ", "ace team"),
        ("admın", "admin"),
        ("ᴀᴅᴍɪɴ", "admin"),
        ("ᴘᴜʙʟɪᴄ", "public"),
        ("ad⠀min", "admin"),
        ("admin⠀", "admin"),
        ("Ada", "ada"),
        ("ad\u00a0 min", "ad min"),
        ("\u2003admin \u1680", "admin"),
        ("а\u2028с", "a c"),
    ],
)
def test_a_name_reads_as_what_it_looks_like(name: str, reading: str) -> None:
    assert latin_reading(name) == reading


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("north  west", "north west"),
        (" \u3000north\u00a0\u2028west\t", "north west"),
        ("sa\u200dles", "sales"),
        ("\u202esales", "sales"),
        ("про\u200bдажи", "продажи"),
        ("x\ufe0f", "x"),
        ("❤\ufe0f", "❤\ufe0f"),
        ("क्\u200dष", "क्\u200dष"),
        ("\u2800", ""),
    ],
)
def test_a_text_is_written_as_it_is_read(text: str, written: str) -> None:
    assert plainly_written(text) == written
    assert plainly_written(written) == written
