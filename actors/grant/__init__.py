"""A node's access to a namespace at its storage provider, shared by all attachments there."""
