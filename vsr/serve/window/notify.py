"""Tell the user of the system that something is done."""

from __future__ import annotations

import asyncio
import importlib.util
import logging

__all__ = ["notify"]

LOGGER = logging.getLogger("vsr.serve")


def notify(title: str, text: str) -> None:
    """Show a notification of the system, where it has any; the log has it in any case."""
    LOGGER.info("%s: %s", title, text)
    if importlib.util.find_spec("desktop_notifier") is None:
        return

    async def send() -> None:
        from desktop_notifier import DesktopNotifier

        await DesktopNotifier(app_name="vsr").send(title=title, message=text)

    logging.getLogger("desktop_notifier").setLevel(logging.CRITICAL)  # it would write a stack trace
    try:
        asyncio.run(asyncio.wait_for(send(), timeout=5))
    except Exception as error:  # of any service of the system that is not there, or at the import
        LOGGER.info("no notification could be shown (%s)", error)
