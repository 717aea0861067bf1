"""The audit line of a client whose certificate did not hold, so that its handshake failed."""

from collections.abc import Callable

from proxy.audit import Audit, Line
from proxy.flow import Plane
from proxy.target import authority
from proxy.transport.handshake import Unverified
from rules.decision import Reason, Verdict
from rules.facts import UNKNOWN_APP, Evidence

type Record = Callable[[Plane, str, Unverified], None]


def recorder(audit: Audit, generation: Callable[[], int]) -> Record:
    """Return what writes the line of a failed handshake at a listener of that name and plane.

    Whoever floods us with certificates folds into a line a second for each way in which they
    fail, and takes of the quota of the app `unknown`.
    """

    def record(plane: Plane, listener: str, client: Unverified) -> None:
        line = Line(
            flow="",
            app=UNKNOWN_APP,
            evidence=(Evidence.CERTIFICATE,),
            plane=plane,
            fact=None,
            verdict=Verdict.DENY,
            reason=Reason.IDENTITY_UNKNOWN,
            rule=None,
            generation=generation(),
            target=f"{listener}: {client.text}",
            detail={"peer": authority(client.peer[0], client.peer[1])},
        )
        audit.write(line)

    return record
