"""Files of fits: as they were written, or refused with one clear error, however they were damaged or rearranged."""

import io
import itertools
import json
import pathlib
import sys
import tempfile
import tracemalloc
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax.results import storage

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from results import made

REFUSED = "is no saved fit, or a damaged one"


def one():
    """A fit by hand."""
    return made.fit(elbojax.full_rank(jnp.arange(float(made.SIZE)), jnp.eye(made.SIZE)), note="a note")


def many():
    """Fits of a batch, with moments."""
    q = jax.vmap(lambda x: elbojax.mean_field(x * jnp.ones(made.SIZE), 1.0))(jnp.arange(3.0))
    return made.fit(q, models=3, dtype=np.float32, moments=True)


@pytest.fixture(scope="module", params=[one, many])
def whole(request, tmp_path_factory):
    """A file, as bytes."""
    path = tmp_path_factory.mktemp("whole") / "fit.npz"
    with jax.enable_x64(True):
        request.param().save(path)
    return path.read_bytes()


@pytest.fixture
def refuse(tmp_path):
    """Raises unless these bytes are refused as they should be."""

    def check(content, match=REFUSED):
        path = tmp_path / "fit.npz"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=match):
            elbojax.load(path)

    return check


def members(content):
    """Of a file, by name."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(parts, compression=zipfile.ZIP_STORED, sealed=False):
    """A valid file of these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    if not sealed:
        return file.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "file"
        path.write_bytes(file.getvalue())
        storage.seal(path)
        return path.read_bytes()


def npy(array):
    """A member."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def signed(content, change):
    """The file with other contents, and a digest that is right for them: what only a hand can make."""
    parts = members(content)
    arrays = [np.load(io.BytesIO(parts[f"{i}.npy"])) for i in range(len(parts) - 1)]
    header = json.loads(np.load(io.BytesIO(parts["header.npy"])).tobytes())
    changed = change(header, arrays)
    header = np.frombuffer(json.dumps(header).encode() if changed is None else changed, np.uint8)
    named = {f"{i}.npy": npy(array) for i, array in enumerate(arrays)}
    return packed({"header.npy": npy(header), **named}, sealed=True)


def test_what_is_packed_again_is_the_same(whole, tmp_path):
    path = tmp_path / "fit.npz"
    path.write_bytes(signed(whole, lambda header, arrays: None))
    fit = elbojax.load(path)
    wanted = many() if fit.batched else one()
    for a, b in zip(jax.tree.leaves(fit.draws), jax.tree.leaves(wanted.draws), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("seed", range(120))
def test_random_damage(whole, refuse, seed):
    rng = np.random.default_rng(seed)
    content = bytearray(whole)
    at = int(rng.integers(len(content)))
    match seed % 4:
        case 0:
            content[at] ^= 1 << int(rng.integers(8))
        case 1:
            del content[at:]
        case 2:
            length = int(rng.integers(1, 200))
            content[at : at + length] = rng.bytes(len(content[at : at + length]))
        case 3:
            del content[at : at + 1 + int(rng.integers(100))]
    refuse(bytes(content))


def test_any_two_members_swapped(whole, refuse):
    parts = members(whole)
    for a, b in itertools.combinations(parts, 2):
        if parts[a] != parts[b]:
            refuse(packed(parts | {a: parts[b], b: parts[a]}))


def test_any_member_left_out_doubled_or_changed(whole, refuse):
    parts = members(whole)
    for name in parts:
        refuse(packed({other: part for other, part in parts.items() if other != name}))
        changed = bytearray(parts[name])
        changed[-1] ^= 1
        refuse(packed(parts | {name: bytes(changed)}))
        array = np.load(io.BytesIO(parts[name]))
        for other in (array[..., None], np.stack([array, array]), array.astype(complex), array.astype("float16")):
            refuse(packed(parts | {name: npy(other)}))
    refuse(packed(parts | {"more.npy": npy(np.zeros(3))}))
    refuse(packed(parts | {f"{len(parts) - 1}.npy": npy(np.zeros(3))}))


def claiming(shape, dtype="<f8"):
    """An array of a few bytes that claims to be a large one."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\x00" * 8


@pytest.mark.parametrize(
    "shape", ["(1000000000000,)", "(2**62,)", "(4611686018427387904, 4)", "(10**8,)", "(-1,)", "(3.5,)", "'ab'"]
)
def test_arrays_that_claim_to_be_large(whole, refuse, shape):
    parts = members(whole)
    for name in ("0.npy", "header.npy"):
        refuse(packed(parts | {name: claiming(shape)}, sealed=True))


def test_compressed_members_are_not_unpacked(whole, refuse):
    bomb = packed({"header.npy": npy(np.zeros(200_000_000, np.uint8))}, zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    try:
        refuse(bomb, "compressed")
        refuse(packed(members(whole), zipfile.ZIP_DEFLATED), "compressed")
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_members_that_claim_more_than_the_file_has(whole, refuse):
    names = members(whole)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        offset = archive.start_dir
    content = bytearray(whole)
    for size in (20, 24):  # both sizes of the first entry of the directory
        content[offset + size : offset + size + 4] = (2**31).to_bytes(4, "little")
    refuse(bytes(content))
    assert "header.npy" in names


HEADERS = [
    b"[" * 100_000,
    b'{"format":' * 50_000,
    b'{"format": 2, "elbojax": "1", "contents": ' + b'{"a":' * 100_000,
    b"",
    b"{}",
    b"[]",
    b"null",
    b"\xff\xfe",
    b'{"format": "2", "elbojax": "1", "contents": {}}',
    b'{"format": 2, "elbojax": [], "contents": {}}',
    b'{"format": 2, "elbojax": "1", "contents": []}',
    b'{"format": 2, "elbojax": "1", "contents": {}}',
]


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
def test_headers_by_hand(whole, refuse, header):
    refuse(signed(whole, lambda old, arrays: header))


@pytest.mark.parametrize("depth", [300, 900, 5000, 100_000])
def test_deep_contents(whole, refuse, depth):
    node = '{"list": [' * depth + '{"value": 1}' + "]}" * depth
    refuse(signed(whole, lambda old, arrays: (json.dumps(old)[:-2] + ', "more": ' + node + "}}").encode()))


def at(place, new):
    """A change of the header at a place."""

    def change(header, arrays):
        here = header["contents"]
        for step in place[:-1]:
            here = here[step]
        if new is None:
            del here[place[-1]]
        else:
            here[place[-1]] = new

    return change


SPACE = ("space", "dict")
VALUE = {"value": 3}
HANDS = {
    "tree of other numbers": at((*SPACE, "tree"), {"dict": {"a": {"value": 7}}}),
    "tree with fewer leaves": at((*SPACE, "tree"), {"dict": {"a": {"value": 0}}}),
    "tree that is a word": at((*SPACE, "tree"), {"value": "x"}),
    "fewer paths": at((*SPACE, "paths"), {"list": [{"value": "['a']"}]}),
    "no paths": at((*SPACE, "paths"), {"list": []}),
    "paths that are numbers": at((*SPACE, "paths"), {"list": [VALUE] * 3}),
    "shapes that are words": at((*SPACE, "shapes"), {"list": [{"value": "x"}] * 3}),
    "shapes that are negative": at((*SPACE, "shapes"), {"list": [{"tuple": [{"value": -1}]}] * 3}),
    "other shapes": at((*SPACE, "shapes"), {"list": [{"tuple": [{"value": 50}]}] * 3}),
    "supports that are numbers": at((*SPACE, "supports"), {"list": [VALUE] * 3}),
    "fewer supports": at((*SPACE, "supports"), {"list": []}),
    "a space that is a number": at(("space",), VALUE),
    "a note that is a number": at(("note",), VALUE),
    "no note": at(("note",), None),
    "draws that are a word": at(("draws",), {"value": "x"}),
    "log-weights for draws": at(("draws",), {"array": "0"}),
    "no such array": at(("draws",), {"array": "777"}),
    "a bijector for q": at(("q",), {"object": "Positive", "fields": {}}),
    "a number for q": at(("q",), VALUE),
    "a certificate that is a number": at(("certificate",), VALUE),
    "a certificate of words": at(("certificate", "dict", "khat"), {"value": "good"}),
    "a certificate without k-hat": at(("certificate", "dict", "khat"), None),
    "moments that are a number": at(("moments",), VALUE),
    "moments of nothing": at(("moments",), {"list": [{"list": []}, {"list": []}]}),
    "a node of two kinds": at(("note",), {"value": "x", "list": []}),
    "a value that is a list": at(("note",), {"value": ["x"]}),
}


@pytest.mark.parametrize("name", HANDS)
def test_parts_that_do_not_belong_together(whole, refuse, name):
    refuse(signed(whole, HANDS[name]))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.astype(int),
        lambda x: x.astype(complex),
        lambda x: x[..., :1],
        lambda x: np.concatenate([x, x], axis=-1),
        lambda x: np.concatenate([x, x], axis=0),
        lambda x: x[None],
        lambda x: x.ravel(),
        lambda x: x[..., :0],
        lambda x: x.astype(str),
    ],
)
@pytest.mark.parametrize("part", ["draws", "log_weights"])
def test_arrays_of_other_kinds_and_shapes(whole, refuse, change, part):
    def by_hand(header, arrays):
        number = int(header["contents"][part]["array"])
        arrays[number] = change(arrays[number])

    if part == "log_weights" and change(np.zeros(2)).shape == (2,) and change(np.zeros(2)).dtype == float:
        pytest.skip("that is the same vector")
    refuse(signed(whole, by_hand))


def test_every_field_of_a_certificate_with_another_shape(whole, refuse):
    def by_hand(name):
        def change(header, arrays):
            number = int(header["contents"]["certificate"]["dict"][name]["array"])
            arrays[number] = np.stack([arrays[number]] * 2)

        return change

    for name in elbojax.Certificate._fields:
        refuse(signed(whole, by_hand(name)))


def test_a_file_without_a_digest_is_refused_in_words(whole, refuse):
    def older(header, arrays):
        header["format"] = 1

    refuse(signed(whole, older), "without a digest")
    refuse(packed(members(whole)))
