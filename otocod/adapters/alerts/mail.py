"""Alerts by e-mail, through a mail server of the operator's choice."""

import smtplib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime

from otocod.adapters.alerts.channel import ChannelFailed, in_daemon_thread
from otocod.adapters.alerts.message import Message
from otocod.alarms import Severity

_TIMEOUT_S = 15.0  # of each step with the server


@dataclass(frozen=True, slots=True)
class MailServer:
    host: str
    port: int
    security: str  # starttls, tls, none
    user: str = ""
    password: str = field(default="", repr=False)


class Mail:
    """Implements Channel."""

    name = "email"

    def __init__(self, server: MailServer, sender: str, receivers: Sequence[str]) -> None:
        self._server = server
        self._sender = sender
        self._receivers = tuple(receivers)

    async def send(self, message: Message) -> None:
        mail = self._mail(message)
        await in_daemon_thread(lambda: self._deliver(mail), "alert-email")

    async def close(self) -> None:
        return

    def _mail(self, message: Message) -> EmailMessage:
        mail = EmailMessage()
        mail["Subject"] = message.subject
        mail["From"] = self._sender
        mail["To"] = ", ".join(self._receivers)
        mail["Date"] = format_datetime(datetime.now(UTC))
        # The same for the same alerts, so that a mail that arrives twice is shown once.
        mail["Message-ID"] = f"<{message.key}@otocod.invalid>"
        mail["Auto-Submitted"] = "auto-generated"
        if message.worst is Severity.CRITICAL:
            mail["X-Priority"] = "1"
        mail.set_content(message.text)
        return mail

    def _deliver(self, mail: EmailMessage) -> None:
        """Blocks. Raises ChannelFailed; a server that takes it for some receivers only has taken it."""
        server = self._server
        try:
            with self._connection() as connection:
                if server.security == "starttls":
                    connection.starttls(context=ssl.create_default_context())
                if server.user:
                    connection.login(server.user, server.password)
                connection.send_message(mail, self._sender, self._receivers)
        except smtplib.SMTPResponseException as error:
            # Only the code: what a server says after a log-in may repeat what it was sent.
            raise ChannelFailed(f"SMTP {error.smtp_code}") from None
        except smtplib.SMTPRecipientsRefused as error:
            codes = ", ".join(str(code) for code, _ in error.recipients.values())
            raise ChannelFailed(f"SMTP {codes}: no receiver was accepted") from None
        except TimeoutError:
            raise ChannelFailed(f"the mail server did not answer within {_TIMEOUT_S:g} s") from None
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise ChannelFailed(type(error).__name__) from None

    def _connection(self) -> smtplib.SMTP:
        server = self._server
        if server.security == "tls":
            return smtplib.SMTP_SSL(server.host, server.port, timeout=_TIMEOUT_S, context=ssl.create_default_context())
        return smtplib.SMTP(server.host, server.port, timeout=_TIMEOUT_S)
