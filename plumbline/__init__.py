"""What joins the packages: the command line, the demonstration and the version."""

from service import __version__

__all__ = ["__version__"]
