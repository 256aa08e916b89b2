"""Whether a request comes from one of our proxies: the JWT in its `Grip-Sig`.

A key's type decides the one algorithm that it may be used with; what a token says is never asked.
Says why a token is refused, and repeats neither the token nor a key. Pure: the clock is passed in.

https://pushpin.org/docs/protocols/grip/
"""

from __future__ import annotations

import json
import logging
import re
from base64 import b64decode
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from grip_edge_middleware.errors import SignatureError
from grip_edge_middleware.grip import FASTLY_VERIFY_KEY, Proxy
from grip_edge_middleware.log_fields import log_fields

logger = logging.getLogger(__name__)

# How far the clocks of proxy and app may be apart; Pushpin's tokens live an hour.
LEEWAY_S = 60
# Pushpin makes a new token each second and sends it with each request of that second.
CACHED_TOKENS = 128
# Pushpin's have 131 characters, and 771 if an RSA key of 4,096 bits signs.
MAX_TOKEN_LENGTH = 4_096
# https://www.rfc-editor.org/rfc/rfc7518#section-3.2 and #section-3.3
MIN_SECRET_BYTES = 32
MIN_RSA_BITS = 2_048

_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_JWK_ALGORITHMS = {"EC": "ES256", "RSA": "RS256"}
# Beyond this a double no longer counts seconds.
_MAX_TIME = 2**53

# Its checks of times would read the clock, and GRIP says nothing of an audience.
_JWT = jwt.PyJWT(
    {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False}
)


class Verifier:
    """Tells requests of our proxies from all others.

        verifier = Verifier(settings.proxies)
        verifier.check(token, now=time.time())

    A token is good if one of the proxies made it. Threads may share a verifier.
    """

    def __init__(self, proxies: Iterable[Proxy]) -> None:
        """Read the keys of the proxies that name one. ValueError says why one cannot be used."""
        keyed = [proxy for proxy in proxies if proxy.verify_key is not None]
        self._signers = tuple(Signer.parse(proxy) for proxy in keyed)
        # All but the time stays true of a good token. Refusals are exceptions, so none is kept.
        self._lifetime = lru_cache(CACHED_TOKENS)(self._verify)
        for proxy in keyed:
            _warn_if_short(proxy)

    @property
    def has_keys(self) -> bool:
        """Whether any token can be good."""
        return bool(self._signers)

    def check(self, token: str, *, now: float) -> None:
        """Raise SignatureError unless the token is good at Unix time `now`."""
        starts, ends = self._lifetime(token)
        if now >= ends + LEEWAY_S:
            raise SignatureError(f"expired {now - ends:.0f} seconds ago")
        if now < starts - LEEWAY_S:
            raise SignatureError(f"not valid for another {starts - now:.0f} seconds")

    def _verify(self, token: str) -> tuple[float, float]:
        if len(token) > MAX_TOKEN_LENGTH:
            raise SignatureError(f"longer than {MAX_TOKEN_LENGTH:,} characters")
        if not _TOKEN.fullmatch(token):
            raise SignatureError("not a signed JWT")
        reasons = []
        for signer in self._signers:
            try:
                return signer.verify(token)
            except SignatureError as error:
                reasons.append(error.reason)
        raise SignatureError("; ".join(dict.fromkeys(reasons)) or "no proxy has a verify key")


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs for one proxy. Without `iss`, whoever has the key."""

    algorithm: str
    key: Any = field(repr=False)
    iss: str | None = None

    @classmethod
    def parse(cls, proxy: Proxy) -> Signer:
        """Return who signs for a proxy. ValueError says what is wrong and repeats no key."""
        if not proxy.verify_key:
            raise ValueError("the verify key is empty")
        signer = cls(*_parse_key(proxy.verify_key), proxy.verify_iss)
        if signer.iss is None and signer.key == _parse_key(FASTLY_VERIFY_KEY)[1]:
            raise ValueError(
                "Fastly signs for all its customers with this verify key: "
                "say for whom with verify-iss=fastly:SERVICE_ID"
            )
        return signer

    def verify(self, token: str) -> tuple[float, float]:
        """Return the Unix times between which a token is valid. SignatureError if it never is."""
        try:
            claims = _JWT.decode(token, self.key, [self.algorithm])
        except jwt.InvalidAlgorithmError:
            raise SignatureError(f"its alg is not {self.algorithm}") from None
        except jwt.InvalidSignatureError:
            raise SignatureError("signed with another key") from None
        except jwt.PyJWTError:
            raise SignatureError("not a signed JWT") from None
        self._check_iss(claims.get("iss"))
        return _time(claims, "nbf", 0), _time(claims, "exp")

    def _check_iss(self, iss: object) -> None:
        if not isinstance(iss, str) or not iss:
            raise SignatureError("its iss is missing")
        if self.iss not in (None, iss):
            raise SignatureError(f"its iss is not {self.iss}")


def _time(claims: Mapping[str, Any], name: str, default: float | None = None) -> float:
    found = claims.get(name, default)
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    if is_number and 0 <= found < _MAX_TIME:
        return float(found)
    raise SignatureError(f"its {name} is missing" if found is None else f"its {name} is no time")


def is_secret(key: str | bytes) -> bool:
    """Whether a verify key signs too, rather than being a public one. ValueError if it is none."""
    return _parse_key(key)[0] == "HS256"


def _parse_key(key: str | bytes) -> tuple[str, Any]:
    """Return the algorithm that goes with the key, and the key as PyJWT takes it."""
    try:
        encoded = key.encode() if isinstance(key, str) else key
        public = _load_public_key(encoded)
        if public is None:
            return "HS256", _secret(encoded)
    except (jwt.PyJWTError, UnsupportedAlgorithm, KeyError, TypeError, ValueError):
        # Their texts may repeat parts of the key.
        public = None
    if isinstance(public, EllipticCurvePublicKey) and isinstance(public.curve, SECP256R1):
        return "ES256", public
    if isinstance(public, RSAPublicKey) and public.key_size >= MIN_RSA_BITS:
        return "RS256", public
    raise ValueError(
        "the verify key is neither a secret nor a public key that can be used "
        f"(EC P-256, or RSA with {MIN_RSA_BITS:,} bits or more, as PEM, DER or JWK)"
    )


def _load_public_key(key: bytes) -> object | None:
    """Return the key that this is the text of, None if it is a secret."""
    if b"-----BEGIN" in key:
        return load_pem_public_key(key)
    if (jwk := _jwk(key)) is not None:
        key_of_jwk: object = jwt.PyJWK(jwk, _JWK_ALGORITHMS[jwk["kty"]]).key
        return key_of_jwk
    for der in (key, _from_base64(key)):
        with suppress(ValueError):
            return load_der_public_key(der)
    return None


def _from_base64(key: bytes) -> bytes:
    """The body of a PEM without its frame, which must not be taken for a secret: it is public."""
    try:
        return b64decode(b"".join(key.split()), validate=True)
    except ValueError:
        return b""


def _jwk(key: bytes) -> dict[str, Any] | None:
    try:
        jwk = json.loads(key)
    except (RecursionError, ValueError):
        return None
    return jwk if isinstance(jwk, dict) and "kty" in jwk else None


def _secret(key: bytes) -> bytes:
    # Refuses what is public in any other way: certificates and keys of SSH.
    secret = jwt.get_algorithm_by_name("HS256").prepare_key(key)
    # To HMAC this is the same key, and PyJWT does not warn about it with each request.
    return bytes(secret).ljust(MIN_SECRET_BYTES, b"\0")


def _warn_if_short(proxy: Proxy) -> None:
    if len(proxy.verify_key or b"") < MIN_SECRET_BYTES:
        logger.warning(
            "the verify key of %s can be guessed: it should be %d random bytes or more",
            proxy.control_uri,
            MIN_SECRET_BYTES,
            extra=log_fields(target=f"grip {proxy.control_uri}"),
        )
