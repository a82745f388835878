"""What is particular to buckets that speak S3: how they are opened, their errors, broken-off uploads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from perijove.model import OperatorError, PerijoveError, UnavailableError
from perijove_spawners.store.errors import FULL, FullError

_FULL_CODES = frozenset({"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "InsufficientCapacity"})
_TRANSIENT_CODES = frozenset(
    {"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling", "OperationAborted"}
)
"""Those after which one tries again, of https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html."""
_CONFIG = {
    "connect_timeout": 10,
    "read_timeout": 60,
    "signature_version": "s3v4",
    "retries": {"total_max_attempts": 2},
}
"""Of :class:`botocore.config.Config`; seconds. s3fs tries again five times by itself."""


def with_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of :class:`s3fs.S3FileSystem`: others write to the bucket too, so that no listing is kept."""
    config = {**_CONFIG, **options.get("config_kwargs", {})}
    return {"use_listings_cache": False, **options, "config_kwargs": config}


@contextmanager
def far_errors(where: str) -> Iterator[None]:
    """Errors of a store reached over a network as those for users, operators and for trying again.

    ``FileNotFoundError`` of a file passes as it is.
    """
    try:
        yield
    except (PerijoveError, FileExistsError):
        raise
    except FileNotFoundError as error:
        if _code(error) == "NoSuchBucket":
            raise OperatorError(f"store: there is no bucket for {where}") from error
        raise
    except Exception as error:
        raise _error_of(error, where) from error


def _error_of(error: Exception, where: str) -> PerijoveError:
    code, text = _code(error), str(error).strip() or type(error).__name__
    if code in _FULL_CODES or (isinstance(error, OSError) and error.errno in FULL) or _status(error) == 507:
        return FullError(f"the store {where} is full: {text}")
    if isinstance(error, PermissionError) or type(error).__name__ in {
        "NoCredentialsError",
        "ParamValidationError",
    }:
        return OperatorError(f"store: {where} refuses its credentials: {text}")
    if code is not None and code not in _TRANSIENT_CODES and _status(error) < 500:
        return OperatorError(f"store: {where} refuses: {code}: {text}")
    return UnavailableError(f"the store {where} cannot be reached: {text}")


def _response(error: BaseException | None) -> Mapping[str, Any]:
    """Of botocore's error, which s3fs may have wrapped."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, Mapping):
            return response
        error = error.__cause__
    return {}


def _code(error: Exception) -> str | None:
    code = _response(error).get("Error", {}).get("Code")
    return None if code is None else str(code)


def _status(error: Exception) -> int:
    return int(_response(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def abort_uploads(fs: Any, root: str, before: float) -> None:
    """End the multipart uploads below `root` that began before that time; S3 keeps their parts for ever."""
    bucket, _, prefix = root.partition("/")
    for upload in fs.list_multipart_uploads(bucket):
        mine = upload["Key"].startswith(f"{prefix}/incoming/".lstrip("/"))
        if mine and upload["Initiated"].timestamp() < before:
            fs.call_s3(
                "abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )
