"""TLS of every listener that shows the server's certificate, and when it asks for the client's."""

import logging
from collections.abc import Callable

from certs.files import SERVER_KEY, SERVER_PEM
from certs.leaf import Leaf
from proxy.certificates.trust import TrustBundles
from proxy.config import Settings
from proxy.control.remote import AdminTls
from proxy.egress.identity_context import ALPN as HTTP1
from proxy.errors import ProxyError
from proxy.renewal import Renewal, certificate_folder, certificate_names
from proxy.resolver.doh import ALPN as DOH_ALPN
from proxy.resolver.dot import ALPN as DOT_ALPN
from proxy.transport.server_tls import ServerTls

logger = logging.getLogger(__name__)

_ALPN = {"dot": DOT_ALPN, "doh": DOH_ALPN, "proxy_tls": HTTP1}


class TlsListeners:
    """The contexts by kind of listener, and their certificate's renewal.

    `asks` says whether the rules use client certificates, `clock` gives seconds since 1970.
    """

    def __init__(
        self,
        settings: Settings,
        trust: TrustBundles,
        asks: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        """Raise BindError where the certificate or its key cannot be used."""
        self._trust = trust
        self._asks = asks
        self.contexts: dict[str, ServerTls] = {}
        self.control: AdminTls | None = None
        self.renewal: Renewal | None = None
        self._unasked = ""
        if not settings.listen.tls:
            return
        folder = certificate_folder(settings)
        files = folder / SERVER_PEM, folder / SERVER_KEY
        wanted = {kind: alpn for kind, alpn in _ALPN.items() if getattr(settings.listen, kind)}
        self.contexts = {kind: ServerTls(*files, alpn) for kind, alpn in wanted.items()}
        contexts = list(self.contexts.values())
        if settings.listen.control_tls:
            self.control = AdminTls(*files, trust)
            contexts.append(self.control)
        self.renewal = Renewal(folder, certificate_names(settings), contexts, clock)
        trust.on_change(self.ask)
        self.ask()

    @property
    def problem(self) -> str:
        """Why the listeners are not as they should be; empty where they are."""
        renewing = "" if self.renewal is None else self.renewal.problem
        return renewing or self._unasked

    @property
    def leaf(self) -> Leaf | None:
        """What is known of the certificate."""
        return None if self.renewal is None else self.renewal.leaf

    def ask(self) -> None:
        """Ask for certificates where the rules of now use them: of those who are believed now."""
        anchors = self._trust.store if self._asks() else None
        try:
            for each in self.contexts.values():
                each.ask(anchors)
        except ProxyError as error:
            # Who is believed no more is refused after the handshake all the same.
            logger.warning("the listeners ask for certificates as before: %s", error)
            self._unasked = str(error)
        else:
            self._unasked = ""
