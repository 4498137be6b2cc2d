"""Files are signed, a change breaks the signature, and the keys are their owner's alone."""
from config import BadInput

import builtins
import datetime
import json
import os
import stat

import numpy as np
import pytest

from data.video_io import ENDINGS, read_frames, write_clip
from safety import provenance
from safety.provenance import first_action, log_skip, make_manifest, sign, signer, verify
from world.scenes import draw_scene, render

VERSION = "0123abcd"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A folder with a development certificate and its key; skips without the extras."""
    pytest.importorskip("c2pa")
    folder = tmp_path_factory.mktemp("signer") / "keys"
    assert signer(folder) is not None
    return folder


def write_video(path, T=9):
    write_clip(path, render(draw_scene(np.random.default_rng(0)), T), 12.0)
    return path


def flip_a_bit(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def frames_of(path):
    return np.stack([frame for _, frame in read_frames(path)])


# Signed, changed, missing


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_signed_file_is_valid_and_plays_as_before(keys, tmp_path, ask, ending):
    path = write_video(tmp_path / f"clip{ending}")
    before = frames_of(path)
    size = path.stat().st_size
    assert verify(path) == ("missing", None, None)

    assert sign(path, signer(keys), VERSION, ask) == "signed"
    assert verify(path)[0] == "valid"
    assert (frames_of(path) == before).all()
    assert path.stat().st_size < size + 15_000
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_was_changed_is_not_valid(keys, tmp_path, ending):
    path = write_video(tmp_path / f"clip{ending}")
    sign(path, signer(keys), VERSION)
    flip_a_bit(path, -40)
    state, who, _ = verify(path)
    assert state == "changed"
    assert "development signer" in who


def test_a_changed_prompt_is_not_valid(keys, tmp_path, ask):
    path = write_video(tmp_path / "clip.png", T=1)
    sign(path, signer(keys), VERSION, ask)
    flip_a_bit(path, path.read_bytes().rfind(ask.encode()))
    assert verify(path)[0] == "changed"


def test_a_file_that_is_saved_again_has_no_signature(keys, tmp_path):
    path = write_video(tmp_path / "clip.png", T=1)
    sign(path, signer(keys), VERSION)
    write_clip(tmp_path / "again.png", frames_of(path), 12.0)
    assert verify(tmp_path / "again.png")[0] == "missing"


def test_the_signature_says_who_made_the_file_with_what(keys, tmp_path, ask):
    path = write_video(tmp_path / "clip.png", T=1)
    sign(path, signer(keys), VERSION, ask)
    _, who, action = verify(path)
    assert who == "Sora, small, development signer"
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"].endswith("/digitalsourcetype/trainedAlgorithmicMedia")
    assert action["softwareAgent"] == {"name": "Sora, small", "version": VERSION}
    assert action["parameters"]["prompt"] == ask


def test_a_file_made_from_given_pictures_says_so(keys, tmp_path):
    path = write_video(tmp_path / "clip.png", T=1)
    sign(path, signer(keys), VERSION, given=True)
    _, _, action = verify(path)
    assert action["digitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")
    assert action["parameters"]["prompt"] == ""


def test_the_manifest_names_the_file_but_not_its_folder(keys, tmp_path):
    import c2pa

    path = write_video(tmp_path / "clip.png", T=1)
    sign(path, signer(keys), VERSION)
    with c2pa.Reader(path) as reader:
        report = json.loads(reader.json())
    manifest = report["manifests"][report["active_manifest"]]
    assert manifest["title"] == "clip.png"
    assert manifest["claim_generator_info"][0]["name"] == "Sora, small"
    assert manifest["claim_generator_info"][0]["version"] == VERSION
    assert "thumbnail" not in manifest
    assert str(tmp_path) not in json.dumps(report)


def test_a_file_can_be_signed_again(keys, tmp_path, ask):
    path = write_video(tmp_path / "clip.png", T=1)
    sign(path, signer(keys), VERSION)
    sign(path, signer(keys), VERSION, ask)
    state, _, action = verify(path)
    assert state == "valid"
    assert action["parameters"]["prompt"] == ask


class Reader:
    """Stands in for c2pa.Reader: a report of one's own."""

    def __init__(self, report):
        self.report = report

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def json(self):
        return json.dumps(self.report)


@pytest.mark.parametrize(
    "said, state",
    [("Trusted", "trusted"), ("Valid", "valid"), ("Invalid", "changed"), ("unheard of", "changed")],
)
def test_only_what_is_trusted_or_valid_counts_as_unchanged(monkeypatch, said, state):
    c2pa = pytest.importorskip("c2pa")
    manifest = {"signature_info": {"issuer": "A", "common_name": "B"}, "assertions": []}
    report = {"validation_state": said, "active_manifest": "m", "manifests": {"m": manifest}}
    monkeypatch.setattr(c2pa, "Reader", lambda path: Reader(report))
    assert verify("x.png") == (state, "A, B", None)


def test_a_report_without_a_state_or_a_manifest_counts_as_changed(monkeypatch):
    c2pa = pytest.importorskip("c2pa")
    monkeypatch.setattr(c2pa, "Reader", lambda path: Reader({"manifests": {}}))
    assert verify("x.png") == ("changed", "None, None", None)


@pytest.mark.parametrize(
    "assertions, expected",
    [
        ([], None),
        ([{"label": "other", "data": {"actions": ["a"]}}], None),
        ([{"label": "c2pa.actions.v2", "data": {"actions": ["a", "b"]}}], "a"),
        ([{"label": "c2pa.actions", "data": {"actions": []}}], None),
        ([{"label": "c2pa.actions", "data": {}}], None),
        ([{"label": "other", "data": {}}, {"label": "c2pa.actions", "data": {"actions": ["b"]}}], "b"),
    ],
)
def test_the_first_action_by_hand(assertions, expected):
    assert first_action({"assertions": assertions}) == expected


def test_a_manifest_without_assertions_has_no_action():
    assert first_action({}) is None


def test_the_manifest_holds_one_action():
    manifest = make_manifest("clip.gif", VERSION, "a prompt", given=False)
    (assertion,) = manifest["assertions"]
    assert assertion["label"] == "c2pa.actions.v2"
    assert len(assertion["data"]["actions"]) == 1


# Keys


def test_keys_are_readable_by_their_owner_only(keys):
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in keys.iterdir()}
    assert modes == {"cert.pem": 0o600, "key.pem": 0o600}
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700


def test_keys_are_made_once(keys):
    before = {file.name: file.read_bytes() for file in keys.iterdir()}
    signer(keys)
    assert {file.name: file.read_bytes() for file in keys.iterdir()} == before


def test_a_private_file_has_its_mode_from_the_first_byte_on(tmp_path, monkeypatch):
    modes = []
    real_open = builtins.open

    def open_and_look(descriptor, mode):
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return real_open(descriptor, mode)

    monkeypatch.setattr(builtins, "open", open_and_look)
    provenance.write_private(tmp_path / "key.pem", b"secret")
    assert modes == [0o600]
    assert (tmp_path / "key.pem").read_bytes() == b"secret"


def test_a_key_is_never_overwritten(tmp_path):
    (tmp_path / "key.pem").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        provenance.write_private(tmp_path / "key.pem", b"other")
    assert (tmp_path / "key.pem").read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["", "new", "new/in/new"])
def test_keys_are_made_in_a_folder_that_is_there_or_not_yet(tmp_path, name):
    pytest.importorskip("c2pa")
    assert signer(tmp_path / name) is not None
    assert (tmp_path / name / "key.pem").exists()


@pytest.mark.parametrize("there", ["cert.pem", "key.pem"])
def test_half_a_pair_of_keys_is_refused_and_left_alone(keys, tmp_path, there):
    (tmp_path / there).write_bytes((keys / there).read_bytes())
    with pytest.raises(BadInput, match="expected cert.pem and an ES256 key.pem, or a folder to make them in"):
        signer(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [there]


def test_keys_that_are_none_are_refused(keys, tmp_path):
    (tmp_path / "cert.pem").write_text("not a certificate")
    (tmp_path / "key.pem").write_text("not a key")
    with pytest.raises(BadInput, match=f"--keys {tmp_path}: expected cert.pem and an ES256 key.pem"):
        signer(tmp_path)


def read_certificates(keys):
    """Our certificate, and that of the root that signed it."""
    from cryptography import x509

    ours, root = x509.load_pem_x509_certificates((keys / "cert.pem").read_bytes())
    return ours, root


def test_a_root_signed_our_certificate_and_itself(keys):
    ours, root = read_certificates(keys)
    ours.verify_directly_issued_by(root)
    root.verify_directly_issued_by(root)
    assert ours.subject.rfc4514_string() == "CN=development signer,O=Sora\\, small"
    assert root.subject.rfc4514_string() == "CN=development root,O=Sora\\, small"


def test_the_key_is_that_of_our_certificate_and_not_the_roots(keys):
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    ours, root = read_certificates(keys)
    key = load_pem_private_key((keys / "key.pem").read_bytes(), None)
    assert key.public_key() == ours.public_key()
    assert key.public_key() != root.public_key()
    assert key.curve.name == "secp256r1"


def test_our_certificate_names_the_roots_key(keys):
    from cryptography import x509

    ours, root = read_certificates(keys)
    root_name = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    authority = ours.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert authority.key_identifier == root_name


def test_a_certificate_names_its_own_key_and_no_name_is_critical(keys):
    """RFC 5280, sections 4.2.1.1 and 4.2.1.2."""
    from cryptography import x509

    for certificate in read_certificates(keys):
        subject = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        authority = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
        assert subject.value == x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())
        assert not subject.critical
        assert not authority.critical


def test_the_root_signs_certificates_and_ours_signs_files(keys):
    from cryptography import x509

    for certificate, is_root in zip(read_certificates(keys), (False, True), strict=True):
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert constraints.critical
        assert constraints.value.ca == is_root
        assert constraints.value.path_length is None

        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert usage.value.digital_signature != is_root
        assert usage.value.key_cert_sign == is_root
        assert usage.value.crl_sign == is_root
        for other in ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"):
            assert not getattr(usage.value, other)


def test_our_certificate_has_a_purpose_that_c2pa_knows(keys):
    from cryptography import x509

    ours, root = read_certificates(keys)
    purpose = ours.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert list(purpose.value) == [x509.ExtendedKeyUsageOID.EMAIL_PROTECTION]
    assert not purpose.critical
    with pytest.raises(x509.ExtensionNotFound):
        root.extensions.get_extension_for_class(x509.ExtendedKeyUsage)


def test_certificates_hold_for_ten_years_from_yesterday(keys):
    now = datetime.datetime.now(datetime.UTC)
    for certificate in read_certificates(keys):
        age = now - certificate.not_valid_before_utc
        left = certificate.not_valid_after_utc - now
        assert datetime.timedelta(hours=23) < age < datetime.timedelta(hours=25)
        assert datetime.timedelta(days=3649) < left <= datetime.timedelta(days=3650)


# What cannot be done


def test_a_file_that_cannot_be_signed_is_left_as_it_was(keys, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(BadInput, match="broken.png is written, but could not be signed"):
        sign(broken, signer(keys), VERSION)
    assert broken.read_bytes() == b"no picture"
    assert list(tmp_path.iterdir()) == [broken]


def test_a_file_that_is_not_there_cannot_be_signed(keys, tmp_path):
    with pytest.raises(BadInput, match="could not be signed"):
        sign(tmp_path / "nowhere.png", signer(keys), VERSION)
    assert not list(tmp_path.iterdir())


def test_a_half_signed_file_is_taken_away_again(keys, tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.png", T=1)
    before = path.read_bytes()

    def refuse(source, target):
        raise PermissionError("no")

    monkeypatch.setattr(provenance.os, "replace", refuse)
    with pytest.raises(BadInput, match="could not be signed"):
        sign(path, signer(keys), VERSION)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_none_cannot_be_verified(tmp_path):
    pytest.importorskip("c2pa")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for name in ("broken.png", "nowhere.png"):
        with pytest.raises(BadInput, match=f"{name}: not a file whose C2PA metadata can be read"):
            verify(tmp_path / name)


def test_without_the_extras_nothing_is_signed_and_nothing_verified(tmp_path, monkeypatch):
    real_import = builtins.__import__

    def missing(name, *rest, **more):
        if name.split(".")[0] == "c2pa":
            raise ImportError(name)
        return real_import(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    path = write_video(tmp_path / "clip.png", T=1)
    before = path.read_bytes()
    assert signer(tmp_path / "keys") is None
    assert not (tmp_path / "keys").exists()
    assert sign(path, None, VERSION) == "unsigned"
    assert provenance.UNSIGNED.endswith("pip install -r requirements-extra.txt")
    assert path.read_bytes() == before
    with pytest.raises(BadInput, match="pip install -r requirements-extra.txt"):
        verify(path)


# The log of what was let through


def test_every_skip_is_a_line_in_the_log_and_on_stderr(tmp_path, capsys):
    log_skip(["first prompt", ""], tmp_path)
    log_skip(["second prompt"], tmp_path)
    lines = (tmp_path / "unsafe.log").read_text().splitlines()
    assert len(lines) == 2
    for line, prompts in zip(lines, (["first prompt", ""], ["second prompt"]), strict=True):
        stamp = datetime.datetime.strptime(line[:19], "%Y-%m-%d %H:%M:%S")
        assert abs(datetime.datetime.now() - stamp) < datetime.timedelta(minutes=1)
        assert line[19:] == f" --unsafe-skip-checks: no prompt and no frame is checked: {prompts}"
    assert capsys.readouterr().err.splitlines() == [f"warning: {line}" for line in lines]


def test_without_a_log_nothing_is_skipped(tmp_path):
    with pytest.raises(BadInput, match="unsafe.log: cannot be written .*not skipped without a log"):
        log_skip(["a prompt"], tmp_path / "nowhere")
