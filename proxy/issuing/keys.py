"""The keys of the trust domain as the running issuer has them: read, and rotated in time.

Whoever changes them on the disk, this process or `sallyport ca rotate`: both are taken up by the
same look.  The passphrase is read for each errand and kept by nobody.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import Mapping
from pathlib import Path

from certs.domain import Distribution, Rotated, ensure_domain, load_domain
from certs.errors import CertsError
from certs.sealed import find_secret
from certs.trust_domain import TrustDomain
from proxy.channel import Event
from proxy.config import Settings
from proxy.issuing.issuer import Issuer

logger = logging.getLogger(__name__)

FOLDER = "identity"
_ABOUT = "our keys"
_LACKS_ROOT = (
    "an intermediate is due, and the root's key is not in {}: put it back until sallyport has made "
    "one, within half a minute"
)
LOOK_S = 30.0  # between looks at files and clock; a step is due days before anything ends


class Keys:
    """Reads and rotates the trust domain of `settings`; `environ` may name systemd's folder."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._folder = Path(settings.state) / FOLDER
        self._identity = settings.identity
        self._environ = environ

    def load(self) -> TrustDomain:
        """Return the trust domain.

        Raises:
            KeystoreError: it cannot be read.
        """
        return load_domain(self._folder, self._secret(), self._distribution())

    def ensure(self, now: dt.datetime) -> Rotated:
        """Make what is missing or due; raises as `certs.domain.ensure_domain`."""
        return ensure_domain(self._folder, self._identity.trust_domain, now, self._secret())

    async def look(self, issuer: Issuer) -> None:
        """Rotate what is due, and have `issuer` use what is on the disk by now.

        What keeps us from it is told with the bundles, until it has passed.
        """
        now = dt.datetime.fromtimestamp(issuer.wall(), dt.UTC)
        problem = ""
        try:
            if issuer.domain.rotate_due(now):
                rotated = await asyncio.to_thread(self.ensure, now)
                for what in rotated.made:
                    issuer.event(Event("rotated", "", what))
                problem = _LACKS_ROOT.format(self._folder) if rotated.lacks_root else ""
            if issuer.domain.is_stale():
                issuer.use(await asyncio.to_thread(self.load))
        except (CertsError, OSError) as error:
            problem = f"the keys of the trust domain stay as they are: {error}"
        if issuer.bundles.note(_ABOUT, problem) and problem:
            logger.warning("%s", problem)

    async def follow(self, issuer: Issuer) -> None:
        """Look for ever; to be run as a task."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look(issuer)

    def _secret(self) -> bytes | None:
        return find_secret(self._identity.key_file, self._environ)

    def _distribution(self) -> Distribution:
        return Distribution()
