"""What callers and operators may ask of the rental domain: request types are the messages actors get.

Field names, bounds and unknown-field refusal are `api.md` sections 3 and 4. Every request is checked before an
actor sees it; ids that the runtime creates are TypeIDs, names are the caller's.
"""

from typing import Annotated

from msgspec import Meta, Struct

# `$(?!\n)` is the end of the text in Python and in ECMA-262, which JSON Schema prescribes; `$` alone lets a newline by.

Name = Annotated[
    str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$(?!\n)", description="lower-case letters, digits, dashes")
]
AllocationId = Annotated[str, Meta(pattern=r"^alloc_[0-7][0-9a-hjkmnp-tv-z]{25}$(?!\n)")]
NotificationId = Annotated[str, Meta(pattern=r"^ntf_[0-7][0-9a-hjkmnp-tv-z]{25}$(?!\n)")]
OutboxId = Annotated[str, Meta(pattern=r"^evt_[0-7][0-9a-hjkmnp-tv-z]{25}$(?!\n)")]
CaseId = Annotated[str, Meta(pattern=r"^case_[0-7][0-9a-hjkmnp-tv-z]{25}$(?!\n)")]
Reason = Annotated[str, Meta(min_length=1, max_length=1000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$(?!\n)")]
Currency = Annotated[str, Meta(pattern=r"^[a-z]{3}$(?!\n)")]
Label = Annotated[str, Meta(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)")]
Labels = Annotated[
    dict[Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$(?!\n)")], Label], Meta(max_length=32)
]
ShortText = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)")]
KeyText = Annotated[str, Meta(min_length=1, max_length=16384)]
MAX_RATE = 10**15


class Request(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request's data object; unknown fields are refused."""
