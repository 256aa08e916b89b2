"""Which `Grip-Sig` is good, and why another is not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import warnings
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import example, given
from hypothesis import strategies as st

from grip_edge_middleware.errors import GripEdgeError, SignatureError
from grip_edge_middleware.grip import FASTLY_VERIFY_KEY, Proxy, parse_grip_url
from grip_edge_middleware.signature import (
    CACHED_TOKENS,
    LEEWAY_S,
    MAX_TOKEN_LENGTH,
    Signer,
    Verifier,
)

NOW = 1_700_000_000.0
HOUR = int(NOW) + 3600
SECRET = "hunter2-hunter2-hunter2-hunter2-hunter2"
CLAIMS = {"exp": HOUR, "iss": "pushpin"}

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

EC = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)


def public(key: PrivateKey, encoding: Encoding = Encoding.PEM) -> bytes:
    return key.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)


def private(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def jwk(key: ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey) -> str:
    algorithm = jwt.get_algorithm_by_name("ES256")
    return json.dumps(algorithm.to_jwk(key, as_dict=True))


def proxy(key: str | bytes | None = SECRET, iss: str | None = None) -> Proxy:
    return Proxy("http://h", verify_iss=iss, verify_key=key)


def sign(
    claims: object = CLAIMS, key: str | bytes = SECRET, alg: str = "HS256", **header: object
) -> str:
    """What a proxy sends. Of a short key PyJWT warns who signs, rightly."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)
        payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
        return jwt.PyJWS().encode(payload, key, alg, headers=header or None)


def encode(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forge(header: object, claims: object, key: bytes, digest: str = "sha256") -> str:
    """An HMAC made by hand, which PyJWT would refuse to make."""
    signed = f"{encode(header)}.{encode(claims)}"
    return f"{signed}.{encode(hmac.new(key, signed.encode(), digest).digest())}"


def refusal(verifier: Verifier, token: str, now: float = NOW) -> str:
    with pytest.raises(SignatureError) as caught:
        verifier.check(token, now=now)
    return caught.value.reason


# --- good -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("proxies", "token"),
    [
        ([proxy()], sign()),
        ([proxy(SECRET.encode())], sign()),
        ([proxy(iss="pushpin")], sign()),
        ([proxy(iss="é")], sign({"exp": HOUR, "iss": "é"})),
        ([proxy()], sign({**CLAIMS, "exp": HOUR + 0.5})),
        ([proxy()], sign({**CLAIMS, "nbf": NOW, "iat": HOUR, "aud": "x", "sub": "s", "jti": "j"})),
        ([proxy("short")], sign(key="short")),
        ([proxy(bytes(range(32)))], sign(key=bytes(range(32)))),
        ([proxy(b"\xff" * 100)], sign(key=b"\xff" * 100)),
        ([proxy(public(EC))], sign(key=private(EC), alg="ES256")),
        ([proxy(public(EC).decode())], sign(key=private(EC), alg="ES256")),
        ([proxy(public(EC, Encoding.DER))], sign(key=private(EC), alg="ES256")),
        ([proxy(b64encode(public(EC, Encoding.DER)))], sign(key=private(EC), alg="ES256")),
        ([proxy(jwk(EC.public_key()))], sign(key=private(EC), alg="ES256")),
        ([proxy(public(RSA))], sign(key=private(RSA), alg="RS256")),
        ([proxy("another secret"), proxy()], sign()),
        ([proxy(public(RSA)), proxy(public(EC)), proxy()], sign()),
        ([proxy(iss="one"), proxy(iss="pushpin")], sign()),
        ([proxy(None), proxy()], sign()),
    ],
)
def test_what_a_proxy_signed_is_good(proxies: list[Proxy], token: str) -> None:
    Verifier(proxies).check(token, now=NOW)


@pytest.mark.parametrize("size", [1, 8, 31, 32, 33, 63, 64, 65])
def test_a_secret_of_any_length_verifies_without_a_warning(size: int) -> None:
    # Warnings are errors here; PyJWT has one for secrets below 32 bytes.
    Verifier([proxy(b"x" * size)]).check(sign(key=b"x" * size), now=NOW)


def test_a_secret_that_can_be_guessed_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    verifier = Verifier([proxy("hunter2"), proxy(SECRET), proxy(None), proxy(public(EC))])
    verifier.check(sign(key="hunter2"), now=NOW)

    assert [record.getMessage() for record in caplog.records] == [
        "the verify key of http://h can be guessed: it should be 32 random bytes or more"
    ]
    assert caplog.records[0].levelno == logging.WARNING


def test_fastlys_key_is_built_in() -> None:
    signer = Signer.parse(parse_grip_url("https://api.fastly.com/service/SidAbc?key=token"))

    assert (signer.algorithm, signer.iss) == ("ES256", "fastly:SidAbc")
    assert jwk(signer.key) == json.dumps(json.loads(FASTLY_VERIFY_KEY))


# --- refused --------------------------------------------------------------------------------------

HS256 = {"alg": "HS256", "typ": "JWT"}
KEY = SECRET.encode()


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        # What is no JWT.
        ("", "not a signed JWT"),
        ("token", "not a signed JWT"),
        ("..", "not a signed JWT"),
        ("a.b", "not a signed JWT"),
        ("a.b.c", "not a signed JWT"),
        (sign() + ".x", "not a signed JWT"),
        (sign() + "\n", "not a signed JWT"),
        (" " + sign(), "not a signed JWT"),
        (sign() + "=", "not a signed JWT"),
        (f"{sign()}, {sign()}", "not a signed JWT"),
        (sign().replace(".", ".é", 1), "not a signed JWT"),
        ("\ud800.\ud800.\ud800", "not a signed JWT"),
        ("\x00", "not a signed JWT"),
        (sign().rpartition(".")[0] + ".", "not a signed JWT"),
        (forge([], CLAIMS, KEY), "not a signed JWT"),
        (forge(b"{", CLAIMS, KEY), "not a signed JWT"),
        (forge(b"\xff", CLAIMS, KEY), "not a signed JWT"),
        (forge(b"[" * 3000, CLAIMS, KEY), "not a signed JWT"),
        (forge({**HS256, "crit": ["x"], "x": 1}, CLAIMS, KEY), "not a signed JWT"),
        (forge({**HS256, "kid": 1}, CLAIMS, KEY), "not a signed JWT"),
        (forge({**HS256, "b64": False, "crit": ["b64"]}, CLAIMS, KEY), "not a signed JWT"),
        ("a" * (MAX_TOKEN_LENGTH + 1), "longer than 4,096 characters"),
        (sign({**CLAIMS, "x": "y" * MAX_TOKEN_LENGTH}), "longer than 4,096 characters"),
        # Claims that are none, though signed.
        (sign(b"[]"), "not a signed JWT"),
        (sign(b"null"), "not a signed JWT"),
        (sign(b"{"), "not a signed JWT"),
        (sign(b"\xff"), "not a signed JWT"),
        (sign(b'{"exp":' + b"[" * 2900), "not a signed JWT"),
        (sign(b'{"iss":"pushpin","exp":' + b"1" * 2900 + b"}"), "its exp is no time"),
        # Algorithms.
        (forge({"alg": "none"}, CLAIMS, KEY), "its alg is not HS256"),
        (sign(key="", alg="none") + "AAAA", "its alg is not HS256"),
        (forge({"alg": "None"}, CLAIMS, KEY), "its alg is not HS256"),
        (forge({"alg": "hs256"}, CLAIMS, KEY), "its alg is not HS256"),
        (forge({"alg": ""}, CLAIMS, KEY), "its alg is not HS256"),
        (forge({"alg": None}, CLAIMS, KEY), "its alg is not HS256"),
        (forge({"alg": ["HS256"]}, CLAIMS, KEY), "its alg is not HS256"),
        (forge({"alg": {"HS256": 1}}, CLAIMS, KEY), "its alg is not HS256"),
        (forge({}, CLAIMS, KEY), "its alg is not HS256"),
        (forge({"alg": "HS384"}, CLAIMS, KEY, "sha384"), "its alg is not HS256"),
        (forge({"alg": "HS512"}, CLAIMS, KEY, "sha512"), "its alg is not HS256"),
        (sign(key=private(EC), alg="ES256"), "its alg is not HS256"),
        (sign(key=private(RSA), alg="RS256"), "its alg is not HS256"),
        # Signatures.
        (sign(key=SECRET + "!"), "signed with another key"),
        (sign(key=SECRET[:-1]), "signed with another key"),
        (forge(HS256, CLAIMS, KEY, "sha512"), "signed with another key"),
        (forge(HS256, CLAIMS, b""), "signed with another key"),
        (f"{sign().rpartition('.')[0]}.AAAA", "signed with another key"),
        # Issuers.
        (sign({"exp": HOUR}), "its iss is missing"),
        (sign({"exp": HOUR, "iss": ""}), "its iss is missing"),
        (sign({"exp": HOUR, "iss": None}), "its iss is missing"),
        (sign({"exp": HOUR, "iss": ["pushpin"]}), "its iss is missing"),
        (sign({"exp": HOUR, "iss": "pushpin "}), "its iss is not pushpin"),
        (sign({"exp": HOUR, "iss": "Pushpin"}), "its iss is not pushpin"),
        # Times.
        (sign({"iss": "pushpin"}), "its exp is missing"),
        (sign({"iss": "pushpin", "exp": None}), "its exp is missing"),
        (sign({"iss": "pushpin", "exp": str(HOUR)}), "its exp is no time"),
        (sign({"iss": "pushpin", "exp": True}), "its exp is no time"),
        (sign({"iss": "pushpin", "exp": [HOUR]}), "its exp is no time"),
        (sign({"iss": "pushpin", "exp": -1}), "its exp is no time"),
        (sign({"iss": "pushpin", "exp": 2**53}), "its exp is no time"),
        (sign({"iss": "pushpin", "exp": float("inf")}), "its exp is no time"),
        (sign({"iss": "pushpin", "exp": float("nan")}), "its exp is no time"),
        (sign({**CLAIMS, "nbf": "soon"}), "its nbf is no time"),
        (sign({**CLAIMS, "exp": 0}), "expired 1700000000 seconds ago"),
        (sign({**CLAIMS, "exp": NOW - LEEWAY_S}), "expired 60 seconds ago"),
        (sign({**CLAIMS, "nbf": NOW + 90}), "not valid for another 90 seconds"),
    ],
)
def test_a_token_is_refused_for_a_reason(token: str, reason: str) -> None:
    assert refusal(Verifier([proxy(iss="pushpin")]), token) == reason


@pytest.mark.parametrize(
    ("proxies", "reason"),
    [
        ([], "no proxy has a verify key"),
        ([proxy(None)], "no proxy has a verify key"),
        ([proxy("a" * 32), proxy("b" * 32)], "signed with another key"),
        ([proxy("a" * 32), proxy(public(EC))], "signed with another key; its alg is not ES256"),
        ([proxy("a" * 32), proxy(iss="one")], "signed with another key; its iss is not one"),
        ([proxy(iss="one"), proxy(iss="two")], "its iss is not one; its iss is not two"),
    ],
)
def test_a_token_that_is_for_none_of_the_proxies_is_refused(
    proxies: list[Proxy], reason: str
) -> None:
    assert refusal(Verifier(proxies), sign()) == reason


@pytest.mark.parametrize("proxies", [[], [proxy(None)], [proxy()], [proxy(None), proxy()]])
def test_without_a_key_no_token_can_be_good(proxies: list[Proxy]) -> None:
    assert Verifier(proxies).has_keys == (proxy() in proxies)


PUBLIC_TEXTS = [
    (EC, public(EC)),
    (EC, public(EC).strip()),
    (EC, b"\n" + public(EC)),
    (EC, public(EC, Encoding.DER)),
    (EC, jwk(EC.public_key()).encode()),
    (RSA, public(RSA)),
    (RSA, public(RSA, Encoding.DER)),
    (RSA, RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1)),
]


# Keys are made anew by each process, so they are no names of tests.
@pytest.mark.parametrize(("key", "text"), PUBLIC_TEXTS, ids=range(len(PUBLIC_TEXTS)))
@pytest.mark.parametrize("alg", ["HS256", "none"])
def test_who_knows_a_public_key_cannot_sign_with_it(key: PrivateKey, text: bytes, alg: str) -> None:
    # Algorithm confusion: https://www.rfc-editor.org/rfc/rfc8725#section-2.1
    verifier = Verifier([proxy(text)])
    expected = "ES256" if key is EC else "RS256"

    assert refusal(verifier, forge({"alg": alg}, CLAIMS, text)) == f"its alg is not {expected}"
    forged = forge({"alg": expected}, CLAIMS, text)
    assert refusal(verifier, forged) == "signed with another key"
    verifier.check(sign(key=private(key), alg=expected), now=NOW)


@pytest.mark.parametrize(
    ("key", "alg"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (RSA, "PS256"),
        (RSA, "RS384"),
        (RSA, "RS256"),
    ],
)
def test_another_key_of_the_same_type_is_refused(key: PrivateKey, alg: str) -> None:
    reason = refusal(Verifier([proxy(public(EC))]), sign(key=private(key), alg=alg))

    assert reason == ("signed with another key" if alg == "ES256" else "its alg is not ES256")


def test_an_rsa_key_signs_with_its_one_algorithm() -> None:
    verifier = Verifier([proxy(public(RSA))])

    for alg in ("PS256", "RS384", "RS512"):
        assert refusal(verifier, sign(key=private(RSA), alg=alg)) == "its alg is not RS256"


def test_a_public_key_on_an_rsa_jwk_is_taken() -> None:
    algorithm = jwt.get_algorithm_by_name("RS256")
    text = json.dumps(algorithm.to_jwk(RSA.public_key(), as_dict=True))

    Verifier([proxy(text)]).check(sign(key=private(RSA), alg="RS256"), now=NOW)


# --- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "is_good"),
    [
        (0.0, True),
        (HOUR, True),
        (HOUR + LEEWAY_S - 0.001, True),
        (HOUR + LEEWAY_S, False),
        (1e18, False),
    ],
)
def test_only_the_given_clock_is_asked(now: float, is_good: bool) -> None:
    verifier = Verifier([proxy()])

    if is_good:
        verifier.check(sign(), now=now)
    else:
        assert refusal(verifier, sign(), now).startswith("expired")


def test_a_token_that_was_good_expires() -> None:
    verifier = Verifier([proxy()])
    verifier.check(sign(), now=NOW)
    verifier.check(sign(), now=NOW)

    assert refusal(verifier, sign(), HOUR + 61) == "expired 61 seconds ago"
    verifier.check(sign(), now=NOW)


# --- what is remembered ---------------------------------------------------------------------------


class Counted:
    """Stands where PyJWT is asked, and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tokens: list[str] = []
        decode = jwt.PyJWT.decode

        def counting(reader: jwt.PyJWT, token: str, *rest: Any) -> Any:
            self.tokens.append(token)
            return decode(reader, token, *rest)

        monkeypatch.setattr(jwt.PyJWT, "decode", counting)


def test_a_good_token_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    verifier = Verifier([proxy()])
    for _ in range(5):
        verifier.check(sign(), now=NOW)

    assert len(counted.tokens) == 1


def test_a_bad_token_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    verifier = Verifier([proxy()])
    verifier.check(sign(), now=NOW)
    for position in range(2 * CACHED_TOKENS):
        refusal(verifier, sign({**CLAIMS, "x": position}, key="guessed" * 5))
    counted = Counted(monkeypatch)
    verifier.check(sign(), now=NOW)

    assert counted.tokens == []


def test_no_more_tokens_are_remembered_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    verifier = Verifier([proxy()])
    tokens = [sign({**CLAIMS, "exp": HOUR + second}) for second in range(CACHED_TOKENS + 1)]
    for token in (*tokens, tokens[-1], tokens[0]):
        verifier.check(token, now=NOW)

    assert counted.tokens == [*tokens, tokens[0]]


def test_verifiers_do_not_share_what_they_remember() -> None:
    Verifier([proxy()]).check(sign(), now=NOW)

    assert refusal(Verifier([proxy("x" * 32)]), sign()) == "signed with another key"


def test_threads_may_share_a_verifier() -> None:
    verifier = Verifier([proxy(), proxy(public(EC))])
    good = [sign({**CLAIMS, "exp": HOUR + second}) for second in range(2 * CACHED_TOKENS)]
    bad = [f"{token}x" for token in good]

    def is_good(token: str) -> bool:
        try:
            verifier.check(token, now=NOW)
        except SignatureError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(is_good, [*good, *bad] * 3))
    assert answers == [*[True] * len(good), *[False] * len(bad)] * 3


# --- keys that cannot be used ---------------------------------------------------------------------

UNUSABLE = "the verify key is neither a secret nor a public key that can be used"
OTHER_EC = ec.generate_private_key(ec.SECP384R1())
SMALL_RSA = rsa.generate_private_key(65537, 1024)
ED = ed25519.Ed25519PrivateKey.generate()
SSH = EC.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)

KEYS_THAT_CANNOT_BE_USED = [
    ("", "the verify key is empty"),
    (b"", "the verify key is empty"),
    (private(EC), UNUSABLE),
    (private(RSA).decode(), UNUSABLE),
    (jwk(EC), UNUSABLE),
    (public(OTHER_EC), UNUSABLE),
    (jwk(OTHER_EC.public_key()), UNUSABLE),
    (public(SMALL_RSA), UNUSABLE),
    (public(ED), UNUSABLE),
    (public(ED, Encoding.DER), UNUSABLE),
    (SSH, UNUSABLE),
    (public(EC)[:-40], UNUSABLE),
    (public(EC).replace(b"\n", b"\\n"), UNUSABLE),
    (b"-----BEGIN PUBLIC KEY-----\nhunter2\n-----END PUBLIC KEY-----", UNUSABLE),
    (b"-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----", UNUSABLE),
    ('{"kty": "oct", "k": "aHVudGVyMg"}', UNUSABLE),
    ('{"kty": "EC", "crv": "P-256", "x": "hunter2", "y": "hunter2"}', UNUSABLE),
    ('{"kty": "EC", "crv": "P-256", "x": 1, "y": []}', UNUSABLE),
    ('{"kty": "RSA", "n": "hunter2"}', UNUSABLE),
    ('{"kty": "OKP", "x": "hunter2"}', UNUSABLE),
    ('{"kty": ["hunter2"]}', UNUSABLE),
    ('[{"kty": "oct", "k": "aHVudGVyMg"}]', UNUSABLE),
    ("hunter2\ud800", UNUSABLE),
    (FASTLY_VERIFY_KEY, "Fastly signs for all its customers with this verify key"),
]


@pytest.mark.parametrize(
    ("key", "complaint"), KEYS_THAT_CANNOT_BE_USED, ids=range(len(KEYS_THAT_CANNOT_BE_USED))
)
def test_a_key_that_cannot_be_used_is_explained(key: str | bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        Verifier([proxy(key)])

    assert "hunter2" not in f"{caught.value!r}"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@given(st.one_of(st.text(), st.binary(), st.builds("{{{}}}".format, st.text())))
@example("[" * 2_000)
@example('{"a":' * 2_000)
@example(b"0" * 100_000)
def test_any_key_is_usable_or_a_value_error(key: str | bytes) -> None:
    try:
        signer = Signer.parse(proxy(key))
    except ValueError:
        return
    assert signer.algorithm == "HS256"


@pytest.mark.parametrize(
    "key", ["{}", "[]", "0", "{", '"kty"', '{"key": 1}', "base64:", "ssh", "MA=="]
)
def test_text_that_says_nothing_of_a_public_key_is_a_secret(key: str) -> None:
    Verifier([proxy(key)]).check(forge(HS256, CLAIMS, key.encode()), now=NOW)


@given(st.binary(min_size=1, max_size=80))
def test_random_bytes_are_a_secret(key: bytes) -> None:
    # None of them ASCII: Hypothesis knows what public keys begin with.
    key = bytes(byte | 0x80 for byte in key)

    Verifier([proxy(key)]).check(forge(HS256, CLAIMS, key), now=NOW)


# --- nothing is repeated --------------------------------------------------------------------------


def test_no_message_repeats_a_token_or_a_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    claims = {"exp": "hunter2", "iss": "hunter2"}
    tokens = [
        "hunter2",
        sign(claims),
        sign({**claims, "exp": HOUR}),
        forge({"alg": "hunter2"}, CLAIMS, KEY),
        forge({**HS256, "crit": ["hunter2"]}, CLAIMS, KEY),
        forge(b"hunter2", CLAIMS, KEY),
        sign(b"hunter2"),
    ]
    verifier = Verifier([proxy(iss="pushpin"), proxy("hunter2", "pushpin")])
    said = [repr(verifier), repr(Signer.parse(proxy())), caplog.text]
    for token in tokens:
        with pytest.raises(SignatureError) as caught:
            verifier.check(token, now=NOW)
        said += [str(caught.value), repr(caught.value)]

    assert not [line for line in said if "hunter2" in line]


def test_an_error_says_what_it_is_about() -> None:
    error = SignatureError("expired")

    assert isinstance(error, GripEdgeError)
    assert str(error) == "Grip-Sig refused: expired"


# --- anything else --------------------------------------------------------------------------------

VERIFIER = Verifier([proxy(iss="pushpin"), proxy(public(EC)), proxy(public(RSA))])
GOOD = [
    sign(),
    sign(key=private(EC), alg="ES256"),
    sign(key=private(RSA), alg="RS256"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
CLAIMED = st.dictionaries(st.sampled_from(["exp", "iss", "nbf", "iat", "aud", "sub"]), JSON)
HEADERS = st.dictionaries(st.sampled_from(["typ", "kid", "crit", "b64", "jwk", "x5u", "zip"]), JSON)


def is_refused(token: str) -> bool:
    try:
        VERIFIER.check(token, now=NOW)
    except SignatureError as error:
        return bool(error.reason)
    return False


@given(st.sampled_from(GOOD), st.data())
def test_a_token_of_which_one_character_differs_is_refused(token: str, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.characters().filter(lambda c: c != token[position]))

    assert not is_refused(token)
    assert is_refused(token[:position] + character + token[position + 1 :])


@given(st.sampled_from(GOOD), st.sampled_from(GOOD), st.integers(0, 2))
def test_parts_of_two_tokens_make_no_third(one: str, other: str, position: int) -> None:
    parts = one.split(".")
    parts[position] = other.split(".")[position]
    mixed = ".".join(parts)

    assert is_refused(mixed) == (mixed not in GOOD)


@given(st.one_of(st.text(), st.text("ab.=-_é\n", max_size=20)))
@example("a" * 1_000_000)
@example("." * 4096)
@example(f"{encode(b'[' * 1000)}.{encode(b'[' * 1000)}.AAAA")
@example(f"{encode(b'{%s}' % (b'9' * 2000))}.AAAA.AAAA")
def test_garbage_is_refused_and_never_another_error(garbage: str) -> None:
    assert is_refused(garbage)


@given(JSON, JSON)
def test_what_nobody_signed_is_refused(header: object, claims: object) -> None:
    assert is_refused(forge(header, claims, b"guessed"))


@given(st.sampled_from(["HS256", "ES256", "RS256", "none"]), HEADERS, CLAIMED, st.binary())
def test_a_signature_of_garbage_is_refused(
    alg: str, header: dict[str, object], claims: dict[str, object], signature: bytes
) -> None:
    token = f"{encode({**header, 'alg': alg})}.{encode(claims)}.{encode(signature)}"

    assert is_refused(token)


@given(HEADERS, CLAIMED)
def test_signed_garbage_is_good_or_refused(
    header: dict[str, object], claims: dict[str, object]
) -> None:
    token = forge({**header, "alg": "HS256"}, claims, KEY)

    exp = claims.get("exp")
    is_time = isinstance(exp, int | float) and not isinstance(exp, bool)
    assert is_refused(token) or (is_time and claims["iss"] == "pushpin")


def test_hashlib_pads_a_short_secret_with_zeros() -> None:
    """Why a secret may be lengthened: https://www.rfc-editor.org/rfc/rfc2104#section-2."""
    padded = b"short".ljust(32, b"\0")

    assert hmac.digest(b"short", b"x", hashlib.sha256) == hmac.digest(padded, b"x", hashlib.sha256)
