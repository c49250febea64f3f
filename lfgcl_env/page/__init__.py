"""A run as one HTML file that needs nothing else: no network connection, no script, no font."""

from lfgcl_env.page.document import PAGE, write_page

__all__ = ["PAGE", "write_page"]
