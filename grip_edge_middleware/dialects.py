"""What each edge reads in a response, and what it takes: names, limits and rates, as data.

The settings, the headers of a response, the purgers, `grip-edge check` and `docs/edges.md` read
them here, so they cannot differ.

Pure: no sockets, no clock, no framework.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b

# The shortest that a CDN takes is Akamai's. One spelling does for all that need one.
MAX_TAG = 128


@dataclass(frozen=True, slots=True)
class Rate:
    """How many purge requests an account may make: so many a minute, and so many at once."""

    per_minute: int
    at_once: int


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of edge is told of a response's keys and lifetime, and what it takes.

    Bytes are those of the header's value.
    """

    title: str
    header: str
    separators: tuple[str, ...]
    """What it takes between keys; the first is used unless another edge needs another."""
    budget: int
    """What `key_budget` means by its name: this leaves room for what else is on the way."""
    max_bytes: int | None = None
    """What is beyond is lost, so such a response is not cached. None if that can be raised."""
    max_keys: int | None = None
    max_key_bytes: int | None = None
    is_exact: bool = True
    """Whether keys are sent as they are: it takes any character, and tells upper case from lower.
    """
    is_quoted: bool = False
    control: str = ""
    """The header that says how long it keeps a response, if it reads another than
    `Cache-Control`."""
    varies: bool = True
    """Whether it keeps an answer for each value of what `Vary` names."""
    answers_polls: bool = False
    """Whether it compares what it has with what a long-poll has, as the shipped VCL does. Else the
    app does, and its answers are not cached.
    """
    purge_keys: int | None = None
    """Keys in a purge request."""
    purge_bytes: int | None = None
    """Bytes of the keys in a purge request, with one between each two."""
    settle_s: float = 0.0
    """Seconds from the acknowledgement until the purge is everywhere."""
    rates: Mapping[str, Rate] = field(default_factory=dict, hash=False)
    """How often it may be purged, by the plan of the account."""
    sources: tuple[str, ...] = ()

    def spell(self, key: str) -> str:
        """Return the key as this edge is told of it, on a response and in a purge.

        Two keys never have one spelling.
        """
        spelled = key if self.is_exact else escape_tag(key, self.max_key_bytes or MAX_TAG)
        return f'"{spelled}"' if self.is_quoted else spelled


VARNISH = Dialect(
    "Varnish",
    "Surrogate-Key",
    (" ", ", ", ","),
    # What examples/edge gives Varnish room for: a longer header, and an object may lose its keys.
    budget=7_500,
    control="Surrogate-Control",
    answers_polls=True,
    # Varnish answers 400 to a header line of more than http_req_hdr_len, by default 8 kB.
    purge_bytes=7_500,
    sources=("https://varnish-cache.org/docs/7.1/reference/varnishd.html",),
)
FASTLY = Dialect(
    "Fastly",
    "Surrogate-Key",
    (" ",),
    budget=16_000,
    # What is beyond is silently not a key, nor is anything after a key of more than 1,024 bytes.
    max_bytes=16_384,
    max_key_bytes=1_024,
    control="Surrogate-Control",
    # "Batch surrogate key request only supports up to 256 surrogate keys": 400 otherwise.
    purge_keys=256,
    # "Purges complete within 150 milliseconds"; 200 leaves a margin.
    settle_s=0.2,
    sources=(
        "https://www.fastly.com/documentation/reference/http/http-headers/Surrogate-Key/",
        "https://www.fastly.com/documentation/reference/api/purging/",
    ),
)
SOUIN = Dialect(
    "Souin",
    "Surrogate-Key",
    # It splits at these two characters, and reads the first line only.
    (", ",),
    # It has no limit of its own; Go's server takes a megabyte.
    budget=16_000,
    control="Surrogate-Control",
    purge_bytes=7_500,
    sources=("https://github.com/darkweak/souin/blob/master/pkg/surrogate/README.md",),
)
CLOUDFLARE = Dialect(
    "Cloudflare",
    "Cache-Tag",
    (",",),
    budget=16_000,
    # 16 KB, "approximately 1,000 unique tags", in printable ASCII, where Tag1 and tag1 are one.
    max_bytes=16_384,
    max_keys=1_000,
    max_key_bytes=MAX_TAG,  # 1,024 in a purge
    is_exact=False,
    control="CDN-Cache-Control",
    varies=False,  # but for Accept-Encoding
    purge_keys=100,
    # "Instant Purge": 150 ms for the median; this leaves a margin.
    settle_s=0.3,
    rates={
        "free": Rate(5, 25),
        "pro": Rate(300, 25),
        "business": Rate(600, 50),
        "enterprise": Rate(3_000, 500),
    },
    sources=(
        "https://developers.cloudflare.com/cache/how-to/purge-cache/purge-by-tags/",
        "https://developers.cloudflare.com/cache/how-to/purge-cache/",
        "https://developers.cloudflare.com/cache/concepts/cdn-cache-control/",
        "https://developers.cloudflare.com/cache/concepts/cache-control/",
    ),
)
CLOUDFRONT = Dialect(
    "CloudFront",
    "Cache-Tag",
    (",",),
    # 20,480 for all headers; with 50 tags of 128 characters it is never more than this.
    budget=6_500,
    # "The additional tags beyond the limit are not stored"; upper case is not told from lower.
    max_keys=50,
    max_key_bytes=MAX_TAG,  # 256
    is_exact=False,
    varies=False,  # but for what its cache policy names
    # 3,000 may be in progress, and each is paid for.
    purge_keys=1_000,
    # "Invalidations take effect in under 5 seconds at P95".
    settle_s=5.0,
    sources=(
        (
            "https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/"
            "invalidation-specifying-tags.html"
        ),
        "https://aws.amazon.com/about-aws/whats-new/2026/04/cloudfront-invalidation-cache-tag/",
        "https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/InvalidationLimits.html",
    ),
)
AKAMAI = Dialect(
    "Akamai",
    "Edge-Cache-Tag",
    (",",),
    # All headers of a response may have 8,192 bytes by default; this leaves some for the others.
    budget=6_000,
    max_bytes=7_000,
    # "Any additional tags are ignored", as are tags of more than 128 characters, or with a colon.
    max_keys=128,
    max_key_bytes=MAX_TAG,
    is_exact=False,
    control="Edge-Control",
    varies=False,  # it keeps nothing that varies by more than Accept-Encoding
    # An account has 5,000 tags, and 500 more each minute; a body may have 50,000 bytes.
    purge_keys=300,
    # It answers "estimatedSeconds": 5.
    settle_s=5.0,
    rates={"tags": Rate(500, 5_000)},
    sources=(
        "https://techdocs.akamai.com/purge-cache/docs/purge-content-cache-tag",
        "https://techdocs.akamai.com/purge-cache/reference/rate-limiting",
        "https://techdocs.akamai.com/property-mgr/docs/know-caching",
    ),
)
CACHE_GROUPS = Dialect(
    "Cache groups",
    "Cache-Groups",
    (", ",),
    budget=1_150,
    # What each cache must take; a longer one may be refused as a whole.
    max_keys=32,
    max_key_bytes=32,
    is_exact=False,
    is_quoted=True,
    answers_polls=True,  # this is said to whatever cache, and stops none
    sources=("https://www.rfc-editor.org/rfc/rfc9875",),
)

DIALECTS: Mapping[str, Dialect] = {
    "varnish": VARNISH,
    "fastly": FASTLY,
    "souin": SOUIN,
    "cloudflare": CLOUDFLARE,
    "cloudfront": CLOUDFRONT,
    "akamai": AKAMAI,
}
"""What a `cdn` may be, by its name in the settings."""


# What each of them takes, and keeps apart: some fold case, Akamai has no colon, and in a purge
# some may read a percent sign.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")
_ESCAPES = re.compile("(?:~[0-9a-f]{2})+")
# Of 120 bits: "~h" and 30 hexadecimal digits fit what a cache group may have.
_DIGEST_BYTES = 15
_SHORTENED = re.compile("[a-z0-9._~-]*~h[0-9a-f]{30}")


class Spelled(str):
    """A key that was shortened to a digest: it cannot be read back, and is spelled as it is."""

    __slots__ = ()


def escape_tag(key: str, max_length: int) -> str:
    """Spell a key in lower-case letters, digits and `._~-`, in so many of them at most.

    Any other character, and `~`, is `~` and the hexadecimal digits of its bytes. What is too long
    then ends in a digest: `~h` never arises from a character. So no two keys have one spelling.
    """
    return key if isinstance(key, Spelled) else _escape(key, max_length)


def unescape_tag(spelled: str) -> str:
    """Return the key that is spelled so; one with capitals, say, was spelled by somebody else."""
    if "~" not in spelled:
        return spelled
    if _SHORTENED.fullmatch(spelled):
        return Spelled(spelled)
    return _ESCAPES.sub(_characters, spelled)


@lru_cache(maxsize=4_096)
def _escape(key: str, max_length: int) -> str:
    spelled = "".join(c if c in _PLAIN else _code(c) for c in key)
    if len(spelled) <= max_length:
        return spelled
    digest = blake2b(key.encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES).hexdigest()
    # An escape that is cut in two is no matter: it is not read back.
    return f"{spelled[: max_length - 2 * _DIGEST_BYTES - 2]}~h{digest}"


def _characters(escapes: re.Match[str]) -> str:
    try:
        return bytes.fromhex(escapes[0].replace("~", "")).decode(errors="surrogatepass")
    except UnicodeDecodeError:
        return escapes[0]


def _code(character: str) -> str:
    return "".join(f"~{byte:02x}" for byte in character.encode(errors="surrogatepass"))
