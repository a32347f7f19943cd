"""What is made from the tables of the runtime.

Written by `python -m tools.client`: change the tables that it reads, not this file.
"""
