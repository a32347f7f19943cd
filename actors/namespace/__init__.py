"""The namespace: a directory of an account at a storage provider. Nothing here changes what it holds."""
