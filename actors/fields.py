"""Types of the fields of the rental domain's requests, beside those that every domain has (`amends.domain.api`)."""

from typing import Annotated

from msgspec import Meta

from amends.domain.api import Asked, Name
from amends.values.mount_path import MAX_PATH_BYTES

AccountId = Annotated[Name, Asked("the account", example="acme")]
NodeId = Annotated[Name, Asked("the node", example="node-1")]
AllocationId = Annotated[
    str, Meta(pattern=r"^alloc_[0-7][0-9a-hjkmnp-tv-z]{25}$(?!\n)"), Asked("the allocation", example="{allocation}")
]
NamespaceId = Annotated[Name, Asked("the namespace", example="acme-data")]
ProviderId = Annotated[Name, Asked("the storage provider", example="nfs-1")]
AttachmentId = Annotated[
    str, Meta(pattern=r"^attach_[0-7][0-9a-hjkmnp-tv-z]{25}$(?!\n)"), Asked("the attachment", example="{attachment}")
]
# Of what `amends.values.mount_path` accepts as much as a schema can say.
MountPath = Annotated[str, Meta(min_length=2, max_length=MAX_PATH_BYTES, pattern=r"^/[^\x00-\x1f\x7f]*$(?!\n)")]
MAX_QUOTA = 2**62
MeterId = Annotated[str, Meta(pattern=r"^meter_[0-7][0-9a-hjkmnp-tv-z]{25}$(?!\n)")]
Currency = Annotated[str, Meta(pattern=r"^[a-z]{3}$(?!\n)")]
Label = Annotated[str, Meta(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)")]
Labels = Annotated[
    dict[Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$(?!\n)")], Label], Meta(max_length=32)
]
KeyText = Annotated[str, Meta(min_length=1, max_length=16384)]
MAX_RATE = 10**15
