"""The user's arrays: fitted to the interface, and every misfit told."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssmc import arrays, files
from ssmc.diagnostics import UserError
from ssmc.interface import Interface, Port, from_json, to_json
from ssmc.ir.types import SequenceType, StreamType

FEATURES = Port("features", "btf", ("batch", "length", 12), "float32", "data", StreamType((12,)))
STATE = Port("x", "bff", (1, 2, 3), "float32", "state", SequenceType((2, 3)))
TOKEN = Port("token", "tb", (16, "batch"), "int64", "data", StreamType((), "index"))
LOGITS = Port("logits", "bf", ("batch", 9), "float32", "data", SequenceType((9,)))
MODEL = Interface("sequence", (FEATURES, STATE), (LOGITS,), {"x": "x_next"})


def refused(given: dict[str, Any], interface: Interface = MODEL) -> str:
    with pytest.raises(UserError) as caught:
        arrays.fit(given, interface, where="X.npz")
    return str(caught.value)


def test_interface_survives_json() -> None:
    whole = Interface("step", (FEATURES, STATE, TOKEN), (LOGITS,), {"x": "x_next"})
    assert from_json(json.loads(json.dumps(to_json(whole)))) == whole


def test_fit_moves_axes_and_types() -> None:
    token = np.arange(32, dtype=np.int32).reshape(16, 2)
    fitted = arrays.fit({"token": token}, Interface("sequence", (TOKEN,), (LOGITS,)))
    assert fitted["token"].dtype == np.int64
    np.testing.assert_array_equal(fitted["token"], token.T)
    fitted = arrays.fit({"features": np.zeros((4, 7, 12), np.float32)}, MODEL)
    assert list(fitted) == ["features"] and fitted["features"].dtype == np.float64


def test_outputs_come_back_in_the_models_types() -> None:
    back = arrays.unfit({"logits": np.zeros((3, 9)), "inner": np.zeros(2)}, MODEL)
    assert list(back) == ["logits"] and back["logits"].dtype == np.float32


def test_outputs_come_back_in_the_models_order() -> None:
    first, last = replace(LOGITS, name="first"), replace(LOGITS, name="last")
    values = {name: np.zeros((3, 9)) for name in ("last", "first")}
    assert list(arrays.unfit(values, Interface("sequence", (FEATURES,), (first, last)))) == ["first", "last"]


def test_what_the_element_type_cannot_hold_is_refused() -> None:
    said = refused({"features": np.full((1, 2, 12), 1e308)})
    assert "'features' holds 1e+308, and float32 ends at 3.4e+38" in said
    assert arrays.fit({"features": np.full((1, 2, 12), 3e38)}, MODEL)


@pytest.mark.parametrize("value", [70_000, -70_000])
def test_whole_numbers_that_float16_cannot_hold_are_refused(value: int) -> None:
    half = Interface("sequence", (replace(FEATURES, dtype="float16"),), (LOGITS,))
    given = {"features": np.full((1, 2, 12), value)}
    assert "'features' holds 7e+04, and float16 ends at 6.55e+04" in refused(given, half)
    assert arrays.fit({"features": np.full((1, 2, 12), 65_504)}, half)["features"].max() == 65_504


def test_no_file_is_to_be_unpickled(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"no zip file")
    np.savez(tmp_path / "o.npz", x=np.array([{}], dtype=object))
    for name in ("x.npz", "o.npz"):
        with pytest.raises(UserError, match=r"not a readable \.npz file") as caught:
            arrays.read(tmp_path / name)
        assert "allow_pickle" not in str(caught.value) and "Python objects" in str(caught.value)
    with pytest.raises(UserError, match="this is a folder"):
        arrays.read(tmp_path)


def test_every_mistake_is_told_at_once() -> None:
    message = refused({"feature": np.zeros((4, 7, 12)), "x": np.zeros((4, 2, 2))})
    assert message.startswith("X.npz: ")
    assert "no input 'feature' (did you mean 'features'?)" in message
    assert "the input 'features' is missing" in message
    assert "'x' has the shape 4x2x2, the model takes (batch, 2, 3)" in message
    assert "features: float32 (batch, time, 12)" in message


def test_a_thousand_names_are_no_thousand_mistakes() -> None:
    message = refused({f"n{i}": np.zeros(1) for i in range(1000)})
    assert "no input 'n0'" in message and "nor 980 more" in message and len(message) < 1500


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((4, 12)), "has 2 axes (4x12), the model takes 3: (batch, time, 12)"),
        (np.zeros((4, 7, 11)), "has the shape 4x7x11, the model takes (batch, time, 12)"),
        (np.zeros((0, 7, 12)), "is empty (0x7x12)"),
        (np.full((4, 7, 12), np.nan), "is nan at (0, 0, 0)"),
        (np.full((4, 7, 12), "word"), "not numbers"),
        (np.zeros((4, 7, 12), complex), "holds complex128, not numbers"),
    ],
)
def test_misfits(array: Any, says: str) -> None:
    assert says in refused({"features": array})


def test_fixed_length_index_and_batches_that_differ() -> None:
    both = Interface("sequence", (FEATURES, TOKEN), (LOGITS,))
    assert "has the shape 15x2, the model takes (16, batch)" in refused({"token": np.zeros((15, 2))}, both)
    assert "holds numbers with a fraction" in refused({"token": np.full((16, 2), 0.5)}, both)
    message = refused({"features": np.zeros((3, 16, 12)), "token": np.zeros((16, 2), int)}, both)
    assert "how many sequences they hold: 3 in 'features', 2 in 'token'" in message
    message = refused({"features": np.zeros((2, 9, 12)), "token": np.zeros((16, 2), int)}, both)
    assert "how many steps they hold: 9 in 'features', 16 in 'token'" in message


def test_reading(tmp_path: Path) -> None:
    good = tmp_path / "good.npz"
    files.write_arrays(good, {"features": np.ones(3)})
    assert arrays.read(good)["features"].tolist() == [1, 1, 1]
    with pytest.raises(UserError, match="no such file"):
        arrays.read(tmp_path / "none.npz")
    for name, content in {"text": b"hello", "cut": good.read_bytes()[:60], "empty": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=r"not a readable \.npz file"):
            arrays.read(tmp_path / name)
    np.savez(tmp_path / "objects.npz", features=np.array([{}], dtype=object))
    with pytest.raises(UserError, match="not a readable"):
        arrays.read(tmp_path / "objects.npz")
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(UserError, match="one array without a name"):
        arrays.read(tmp_path / "one.npy")


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.json"
    files.write(path, "first")

    def fail(source: str, destination: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(UserError, match="No space left"):
        files.write(path, "second")
    monkeypatch.undo()
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError, match="cannot be written"):
        files.write(tmp_path / "no" / "out.json", "text")
    with pytest.raises(UserError, match="the folder does not exist"):
        files.writable(tmp_path / "no" / "out.json")
    with pytest.raises(UserError, match="this is a folder"):
        files.writable(tmp_path)


def test_elapsed_times_do_not_run_backwards() -> None:
    elapsed = Port("dt", "bt", ("batch", "length"), "float32", "dt", StreamType(()))
    interface = Interface("sequence", (elapsed,), (LOGITS,))
    times = np.ones((2, 3), np.float32)
    arrays.fit({"dt": 0 * times}, interface)
    times[1, 2] = -0.5
    told = refused({"dt": times}, interface)
    assert "is -0.5 at (1, 2)" in told and "zero or positive" in told


def head(shape: str) -> bytes:
    """What stands before the numbers in an .npy file of float32."""
    told = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(told).to_bytes(2, "little") + told


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"x.npy": head("(800000, 93, 12)")}, "it holds 892800000 numbers (at most 268435456)"),
        ({"x.npy": head("(18446744073709551616, 1)")}, "it holds 18446744073709551616 numbers"),
        ({"x.npy": head("(1,)") + bytes(4), "x": head("(1,)") + bytes(4)}, "two arrays of the name 'x'"),
        ({"x.npy": head("(" * 300 + ")" * 300)}, "not a readable .npz file"),
    ],
)
def test_what_a_file_says_of_itself_is_read_first(tmp_path: Path, members: dict[str, bytes], says: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    with pytest.raises(UserError) as caught:
        arrays.read(tmp_path / "x.npz")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("at", "value", "says"), [(8, 99, "compression method"), (6, 1, "encrypted"), (30, 0, "differ"), (80, 255, "")]
)
def test_damaged_archives(tmp_path: Path, at: int, value: int, says: str) -> None:
    """The method, the flags, the name and the content of a member, in its own head and in the archive's."""
    np.savez_compressed(tmp_path / "x.npz", x=np.arange(99.0))
    damaged = bytearray((tmp_path / "x.npz").read_bytes())
    damaged[at] = value
    if at < 10:
        damaged[damaged.find(b"PK\x01\x02") + 2 + at] = value
    (tmp_path / "x.npz").write_bytes(damaged)
    with pytest.raises(UserError, match=r"not a readable \.npz file") as caught:
        arrays.read(tmp_path / "x.npz")
    assert says in str(caught.value)


def test_a_system_tells_in_words(tmp_path: Path) -> None:
    (tmp_path / "x.npz").symlink_to("x.npz")
    with pytest.raises(UserError, match="symbolic links") as caught:
        arrays.read(tmp_path / "x.npz")
    assert "Errno" not in str(caught.value)
