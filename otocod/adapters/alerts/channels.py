"""Which ways out the settings ask for."""

from otocod.adapters.alerts.channel import Channel
from otocod.adapters.alerts.extra import Apprise
from otocod.adapters.alerts.mail import Mail, MailServer
from otocod.adapters.alerts.webhook import Webhook
from otocod.config import AlertSettings


def channels_of(settings: AlertSettings) -> tuple[Channel, ...]:
    """Nothing is connected to yet."""
    found: list[Channel] = []
    if settings.webhook_url is not None:
        token = None if settings.webhook_token is None else settings.webhook_token.reveal()
        found.append(Webhook(settings.webhook_url.reveal(), token))
    if settings.smtp_host:
        password = "" if settings.smtp_password is None else settings.smtp_password.reveal()
        server = MailServer(
            settings.smtp_host, settings.smtp_port, settings.smtp_security.value, settings.smtp_user, password
        )
        found.append(Mail(server, settings.email_from, settings.email_to))
    if settings.apprise_urls is not None:
        found.append(Apprise(settings.apprise_urls.reveal()))
    return tuple(found)
