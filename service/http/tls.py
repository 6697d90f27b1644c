"""The server's certificate: checked at start, and read again when its files change."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

from service.contract.errors import SettingsError
from service.settings import ServiceSettings

logger = logging.getLogger(__name__)

_PAUSE = 5.0  # seconds between two looks at the files


def check_certificate(settings: ServiceSettings) -> None:
    """:raises SettingsError: if there is a certificate and it cannot be used."""
    if settings.tls_cert is not None and settings.tls_key is not None:
        try:
            _read(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), settings.tls_cert, settings.tls_key)
        except OSError as error:  # of which SSLError is one
            raise SettingsError(
                f"PLUMBLINE_TLS_CERT is {settings.tls_cert} and PLUMBLINE_TLS_KEY is {settings.tls_key}, which cannot "
                f"be used: {_reason(error)}. Give a PEM file with the certificate and its chain, and one with its key."
            ) from error


async def follow_certificate(context: ssl.SSLContext, cert: Path, key: Path, pause: float = _PAUSE) -> None:
    """Use a certificate for new connections as soon as both of its files are there, for as long as this runs.

    What cannot be used is told once, and the one before stays.
    """
    seen = _state(cert, key)
    while True:
        await asyncio.sleep(pause)
        state = _state(cert, key)
        if state == seen or state is None:
            continue
        try:
            # First into a context of its own: half of a pair would break the one in use.
            _read(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), cert, key)
            _read(context, cert, key)
        except OSError as error:
            logger.error("the new certificate %s cannot be used, the one before stays: %s", cert, _reason(error))
        else:
            logger.info("the certificate %s was read again", cert)
        seen = state


def _read(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    def password() -> str:
        raise ssl.SSLError("the key has a password")  # OpenSSL would ask for it at the terminal

    context.load_cert_chain(cert, key, password)


def _state(cert: Path, key: Path) -> tuple[int, ...] | None:
    """What changes when the files do; None while one is missing."""
    try:
        return tuple(part for path in (cert, key) for part in (path.stat().st_mtime_ns, path.stat().st_ino))
    except OSError:
        return None


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or str(error)
