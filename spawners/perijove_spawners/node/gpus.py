"""Which GPUs a node has: what NVIDIA's management library says, or what the configuration says."""

from __future__ import annotations

import contextlib
import logging
import re
from pathlib import Path
from typing import Any

from perijove.model import Gpu, OperatorError

log = logging.getLogger(__name__)


def inventory(setting: str = "auto") -> list[Gpu]:
    """The node's GPUs.

    `setting` is ``auto`` (ask NVML; none without a driver), ``none``, a number of stand-ins (``2``,
    ``a100:2``), or device nodes to hand into containers (``/dev/fakegpu0,/dev/fakegpu1``, each perhaps
    with a model: ``a100=/dev/fakegpu0``). :class:`OperatorError` for anything else.
    """
    text = setting.strip()
    if text == "auto":
        return nvml_inventory()
    if text in {"", "none"}:
        return []
    if match := re.fullmatch(r"(?:([A-Za-z0-9][\w.-]*):)?(\d{1,4})", text):
        return [Gpu(index=i, uuid=f"gpu{i}", model=match[1] or "") for i in range(int(match[2]))]
    return [_device(index, entry.strip()) for index, entry in enumerate(text.split(","))]


def _device(index: int, entry: str) -> Gpu:
    model, _, path = entry.rpartition("=")
    if not path.startswith("/"):
        raise OperatorError(
            f"gpus: {entry!r} is neither auto, none, a number, MODEL:NUMBER nor [MODEL=]/dev/PATH"
        )
    if not Path(path).exists():
        raise OperatorError(f"gpus: {path} does not exist")
    return Gpu(index=index, uuid=path.rpartition("/")[2], model=model, device=path)


def nvml_inventory() -> list[Gpu]:
    """What NVML lists; where a device is split by MIG, its instances instead of it. Never raises."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        log.debug("no NVIDIA driver: %s", error)
        return []
    try:
        return _nvml_devices()
    except pynvml.NVMLError as error:
        log.warning("NVML answers, but does not list its devices: %s", error)
        return []
    finally:
        pynvml.nvmlShutdown()


def driver_version() -> str:
    """Of NVIDIA's driver; empty without one. Never raises."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception as error:  # no library, no driver
        log.debug("no NVIDIA driver: %s", error)
        return ""
    try:
        return f"NVIDIA {_text(pynvml.nvmlSystemGetDriverVersion())}"
    except pynvml.NVMLError as error:
        log.debug("NVIDIA's driver does not say its version: %s", error)
        return ""
    finally:
        pynvml.nvmlShutdown()


def model_name(name: str) -> str:
    """One word for a product name: ``NVIDIA A100-SXM4-80GB`` is ``A100-SXM4-80GB``."""
    return re.sub(r"[^\w.-]+", "-", name.removeprefix("NVIDIA ").strip())


def _nvml_devices() -> list[Gpu]:
    import pynvml

    found: list[Gpu] = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        try:
            device = pynvml.nvmlDeviceGetHandleByIndex(index)
            model = model_name(_text(pynvml.nvmlDeviceGetName(device)))
            parts = _mig_parts(device) or [device]
            found += [_nvml_gpu(len(found) + i, part, model) for i, part in enumerate(parts)]
        except pynvml.NVMLError as error:
            # A device that fell off the bus must not take the others with it.
            log.warning("GPU %d is left out: %s", index, error)
    return found


def _nvml_gpu(index: int, handle: Any, model: str) -> Gpu:
    import pynvml

    uuid = _text(pynvml.nvmlDeviceGetUUID(handle))
    return Gpu(index=index, uuid=uuid, model=model, memory=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total))


def _mig_parts(device: Any) -> list[Any]:
    import pynvml

    try:
        current, _ = pynvml.nvmlDeviceGetMigMode(device)
        if current != pynvml.NVML_DEVICE_MIG_ENABLE:
            return []
        count = pynvml.nvmlDeviceGetMaxMigDeviceCount(device)
    except pynvml.NVMLError:
        return []
    parts = []
    for index in range(count):
        with contextlib.suppress(pynvml.NVMLError):
            parts.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(device, index))
    return parts


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
