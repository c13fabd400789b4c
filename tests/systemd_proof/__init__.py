"""The service in a fresh Debian 12 under its own systemd, installed by typing docs/operate.md. See `__main__`."""
