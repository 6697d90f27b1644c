"""``python -m service`` is the ``plumbline`` command."""

from service.cli import main

main()
