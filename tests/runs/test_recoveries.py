"""What was recovered is found again, in whatever order it was done."""

import pytest

from lfgcl_env.runs.recoveries import RECOVERIES, add_to_recoveries, read_recoveries

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def add(folder, file, of, tensors):
    fields = {
        "file": file, "of": "pruned.safetensors", "of_tensors": of, "tensors": tensors,
        "score": "outputs", "before": 0.5, "after": 0.6, "epochs": [], "images": "random",
        "num_images": 8, "watched": 2, "labels": False, "options": {}, "device": "cpu",
        "seconds": 1.0,
    }  # fmt: skip
    add_to_recoveries(folder, fields)


@pytest.mark.parametrize("again", [False, True])
def test_what_was_made_of_a_recovered_network_is_kept_with_it(tmp_path, again):
    add(tmp_path, "b", A, B)
    add(tmp_path, "c", B, C)
    if again:
        add(tmp_path, "b", A, B)
    found = read_recoveries(tmp_path, [A])
    assert [one.file for one in found] == (["c", "b"] if again else ["b", "c"])
    assert [one.file for one in read_recoveries(tmp_path, [B])] == ["c"]
    assert read_recoveries(tmp_path, [C]) == []


def test_a_damaged_file_is_kept_when_another_is_written(tmp_path, caplog):
    add(tmp_path, "b", A, B)
    content = (tmp_path / RECOVERIES).read_text().replace("0.6", "0.7")
    (tmp_path / RECOVERIES).write_text(content)
    add(tmp_path, "c", A, C)
    assert (tmp_path / f"{RECOVERIES}.damaged").read_text() == content
    assert "kept as recoveries.json.damaged" in caplog.text
    assert [one.file for one in read_recoveries(tmp_path, [A])] == ["c"]
