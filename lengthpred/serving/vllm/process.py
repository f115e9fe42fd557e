"""The one service of this process: middleware and statistics plugin meet in it."""

import atexit
import threading

from lengthpred.serving.service import Service
from lengthpred.serving.settings import ServingSettings

__all__ = ["running_service", "service_of_process"]

# vLLM makes both plugins itself and hands neither anything: only the process is common to them.
_lock = threading.Lock()
_services: list[Service] = []


def service_of_process() -> Service:
    """The service, made from the environment when it is first asked for."""
    with _lock:
        if not _services:
            _services.append(Service(ServingSettings.from_environment()))
            atexit.register(_services[0].close)  # the last lengths are written, processes ended
        return _services[0]


def running_service() -> Service | None:
    """The service, where there is one: vLLM may run without the middleware."""
    return _services[0] if _services else None
