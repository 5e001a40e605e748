"""Customers of `afmrl interactions`: nothing of them is stored or shown, and who is forgotten stays forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recommend.shop import call, counts, document, loaded, shop

PLAIN = "customer,item,time\n"


def test_nothing_of_a_customer_is_stored_or_shown(tmp_path: Path) -> None:
    header = "customer_email,Vorname,Telefon,sku,time,event,\n"
    text = header + "anna.ott@shop.example,Änna,+49 170 1234567,A-1,2024-05-01,view,\n" * 2
    text += "anna.ott@shop.example,Änna,+49 170 1234567,anna.ott@shop.example,2024-05-02,anna.ott@shop.example,\n"
    text += "anna.ott@shop.example,Änna,+49 170 1234567,A-1,anna.ott@shop.example,view,\n"
    text += "anna.ott@shop.example,Änna\n"
    root = shop(tmp_path)
    (root / "interactions.csv").write_bytes(text.encode("utf-8").replace("Ä".encode(), b"\xc4", 1))
    said = call(root).output + call(root, "--json").output + call(root, command="check").output
    forgotten = call(root, "--forget", "Anna.Ott@shop.example ")
    assert forgotten.exit_code == 0
    stored = b"".join(path.read_bytes() for path in (root / ".afmrl").rglob("*") if path.is_file())
    for secret in ("anna", "nna\n", "1234567", "Änna"):
        assert secret.lower() not in (said + forgotten.output).lower(), secret
        assert secret.lower().encode() not in stored.lower()
    assert "customer_email, Vorname, Telefon: never stored" in said


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    root = shop(tmp_path, PLAIN + "ann,A-1,2024-05-01\n")
    loaded(root)
    key = root / ".afmrl" / "recommend" / "key"
    made = key.read_bytes()
    assert len(made) == 32 and key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    loaded(root)
    assert key.read_bytes() == made and key.stat().st_mode & 0o777 == 0o600
    other = shop(tmp_path / "other", PLAIN + "ann,A-1,2024-05-01\n")
    assert loaded(other).interactions.customers.tolist() != loaded(root).interactions.customers.tolist()


def test_a_forgotten_customer_is_gone_and_stays_gone(tmp_path: Path) -> None:
    root = shop(tmp_path, PLAIN + "a@b.example,A-1,2024-05-01\nA@B.example,C-1,2024-05-01\nbob,A-1,2024-05-01\n")
    assert document(root)["customers"] == 2
    first = document(root, "--forget", "a@B.example")
    assert first["schema"] == "afmrl.forgotten/1"
    assert [(each["removed"], each["before"]) for each in first["forgotten"]] == [(2, False)]
    assert not (root / ".afmrl" / "recommend" / "interactions").exists()
    again = document(root, "--forget", "a@b.example")["forgotten"][0]
    assert (again["removed"], again["before"]) == (0, True)
    content = document(root)
    assert content["customers"] == 1 and counts(content) == {"forgotten customer": 2}
    assert document(root, command="check")["interactions"]["customers"] == 1


@pytest.mark.parametrize("name", ["key", "forgotten.json"])
def test_without_key_or_list_nobody_who_was_forgotten_is_read_again(tmp_path: Path, name: str) -> None:
    root = shop(tmp_path, PLAIN + "ann,A-1,2024-05-01\nbob,A-1,2024-05-01\n")
    call(root, "--forget", "ann")
    path = root / ".afmrl" / "recommend" / name
    path.write_bytes(path.read_bytes()[:-5])
    found = call(root)
    assert found.exit_code == 3 and "damaged" in found.output and "forget those customers again" in found.output
    if name == "key":
        path.unlink()
        assert call(root).exit_code == 3
